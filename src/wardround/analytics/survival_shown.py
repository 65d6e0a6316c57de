"""Which points of a survival curve, and which numbers beside it, may be shown under a floor.

What is shown of a group, its curve and its table of numbers at risk together, cuts the time into intervals. In each
of them none or at least `minimum_cell` left of each kind (events of each cause, censored) and entered, so that whoever
takes differences of what is shown, or works counts out of an exact estimate, finds no smaller count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.survival_time import shown_times
from wardround.errors import ConfigError
from wardround.privacy.disclosure import DisclosureRules

Counts = NDArray[np.int64]
Values = NDArray[np.float64]

MAX_TIMES = 100
"""Most times at which numbers at risk may be asked for."""
_NICE = (1.0, 2.0, 2.5, 5.0, 10.0)
_NUM_TICKS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What of a group may be shown.

    Attributes:
        places: indices of the curve, increasing; none where the whole group is hidden.
        tick_is_shown: of the times at which numbers were asked for, shape (num_ticks,).
        risk_is_shown: of the same times, where the number under observation at least is shown.
    """

    places: Counts
    tick_is_shown: NDArray[np.bool_]
    risk_is_shown: NDArray[np.bool_]


def shown_partition(entered: Counts | None, left: Counts, ticks: Counts, minimum_cell: int) -> Shown:
    """Cut the time so that as many of the ticks as possible, and then as many other points, may be shown.

    The number under observation tells only how many left, not why; so it may be shown at more ticks.

    Args:
        entered: how many entered at each point, shape (num_steps,); None: all were there from the beginning.
        left: how many were censored, or had an event of each cause, shape (num_causes + 1, num_steps).
        ticks: indices after which numbers are wanted, not decreasing, shape (num_ticks,).
        minimum_cell: least count that is shown.

    Guarantees:
        no_small_count_between_what_is_shown: between two neighbours of all that is shown, of each kind, none or at
            least `minimum_cell`; where only the number under observation is shown, of all who left together.
    """
    kinds = left if entered is None else np.vstack([entered, left])
    ends = np.append(np.minimum(ticks, kinds.shape[1] - 1), kinds.shape[1] - 1)
    sums = np.cumsum(kinds, axis=1)[:, ends]
    closed = shown_times(np.diff(sums, axis=1, prepend=0), minimum_cell)
    # A tick since whose last closed one nobody came or went shows the same numbers once more.
    reached = {0, *sums[:, closed].sum(axis=0).tolist()}
    tick_is_shown = np.array([count in reached for count in sums.sum(axis=0)[:-1].tolist()], bool)
    places: list[Counts] = [np.zeros(0, np.int64)]
    start = 0
    for end in ends[closed].tolist():
        places.append(start + shown_times(kinds[:, start : end + 1], minimum_cell))
        start = end + 1
    shown = np.concatenate(places)
    moves = left.sum(axis=0, keepdims=True) if entered is None else np.vstack([entered, left.sum(axis=0)])
    risk_is_shown = _at_risk_ticks(np.cumsum(moves, axis=1), ends[:-1], tick_is_shown, shown, minimum_cell)
    return Shown(places=shown, tick_is_shown=tick_is_shown, risk_is_shown=risk_is_shown)


def _at_risk_ticks(
    moved: Counts, ticks: Counts, tick_is_shown: NDArray[np.bool_], places: Counts, minimum_cell: int
) -> NDArray[np.bool_]:
    """At which ticks those who came and went so far, shape (num_moves, num_steps), may be told, beside what is."""
    told = np.unique(np.concatenate([places, ticks[tick_is_shown], [moved.shape[1] - 1]]))
    is_shown = tick_is_shown.copy()
    last = np.zeros(len(moved), np.int64)
    for number, tick in enumerate(ticks.tolist()):
        before, after = told[told <= tick], told[told >= tick]
        if len(before):  # what is told in between, or the last tick, whichever is later
            last = np.maximum(last, moved[:, before[-1]])
        parts = np.concatenate([moved[:, tick] - last, moved[:, after[0]] - moved[:, tick]])
        if ((parts == 0) | (parts >= minimum_cell)).all():
            is_shown[number] = True
            last = moved[:, tick]
    return is_shown


def with_leavers(places: Counts, leavers: Counts) -> Counts:
    """The places up to which somebody left since the one before; `leavers` of shape (num_steps,)."""
    left = np.cumsum(leavers)[places]
    return places[np.diff(left, prepend=0) > 0]


def tick_times(times: tuple[float, ...], last: float, where: str = "times") -> tuple[float, ...]:
    """The times at which numbers at risk are told: given, or about six round ones up to the last.

    Raises:
        ConfigError: a time is negative or not finite, or there are more than `MAX_TIMES`.
    """
    if len(times) > MAX_TIMES or not all(0 <= time < math.inf for time in times):
        raise ConfigError(f"{where}: give at most {MAX_TIMES} times, each 0 or more")
    if times:
        return tuple(sorted(set(map(float, times))))
    if not last > 0:
        return (0.0,)
    size = 10.0 ** math.floor(math.log10(last / _NUM_TICKS))
    width = next(nice * size for nice in _NICE if last / (nice * size) <= _NUM_TICKS)
    return tuple(float(f"{width * i:.12g}") for i in range(math.floor(last / width * (1 + 1e-12)) + 1))


def floor_index(times: tuple[float, ...], step: float, num_steps: int) -> Counts:
    """The last point of the grid at or before each time, shape (num_times,)."""
    index = np.floor(np.array(times, float) / step * (1 + 1e-9))
    return np.minimum(index, num_steps - 1).astype(np.int64)


def shown_counts(counts: Counts, rules: DisclosureRules) -> tuple[int | None, ...]:
    """Counts as a result may hold them: None where hidden."""
    return tuple(rules.shown(int(count)) for count in counts)
