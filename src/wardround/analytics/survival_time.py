"""Times to an event on the grid of the contract: who entered, who left, and of which cause.

A time `t` is given the index `ceil(t / step)` of the grid (0 is the time 0 itself), so that every analysis of
survival is one of counts by index, and nobody's own time is needed. Entry and exit are rounded alike: the order
of any two times is kept or becomes a tie. What follows is exactly the pooled analysis of the rounded times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.design import complete_rows
from wardround.analytics.survival_event import MAX_CAUSES, cause_codes, event_values
from wardround.data.contract import Contract, Setting, Variable
from wardround.data.table import Table
from wardround.errors import ConfigError, DataError
from wardround.privacy.disclosure import is_small, shown_count
from wardround.sums import Array, Contribution, Steps, ask, exact, people, site_function

Counts = NDArray[np.int64]
Indices = NDArray[np.int64]

MAX_GRID_POINTS = 2**17
"""Most points of a grid of times: some 350 years of days (unit: points)."""
ON_GRID = 1e-9
"""A time this near to a point of the grid, relative to its index, lies on it."""
_NUM_SIZES = 64

DAYS_PER_UNIT = {
    **dict.fromkeys(("d", "day", "days"), 1.0),
    **dict.fromkeys(("wk", "wks", "week", "weeks"), 7.0),
    **dict.fromkeys(("mo", "mon", "month", "months"), 30.4375),
    **dict.fromkeys(("a", "y", "yr", "yrs", "year", "years"), 365.25),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 1 / 24),
}
"""Units of time that a contract may name, and how long each is (unit: days)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SurvivalOutcome:
    """A time to an event, as it is asked of the sites.

    Attributes:
        time: variable that says when a record's follow-up ended.
        event: variable that says how it ended.
        events: values of `event` that count; the first is cause 1, the second cause 2, and so on.
        censored: values that mean censored; None: all that are not among `events`.
        entry: variable that says after which time a record was under observation; None: from the beginning.
        step: distance of two points of the grid, in the unit of `time`.
        num_steps: points of the grid: the indices are 0 to `num_steps - 1`.
    """

    time: str
    event: str
    events: tuple[str, ...]
    censored: tuple[str, ...] | None = None
    entry: str | None = None
    step: float
    num_steps: int

    def __post_init__(self) -> None:
        if not 0 < self.step < math.inf or not 1 <= self.num_steps <= MAX_GRID_POINTS:
            raise ValueError(f"step must be positive and num_steps in [1, {MAX_GRID_POINTS}]")
        if not 1 <= len(self.events) <= MAX_CAUSES:
            raise ValueError(f"there must be 1 to {MAX_CAUSES} causes, got {len(self.events)}")
        if len({*self.events, *(self.censored or ())}) < len(self.events) + len(self.censored or ()):
            raise ValueError("a value may mean one cause or censored, not both")

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables that must be present in a record."""
        return (self.time, self.event) if self.entry is None else (self.time, self.event, self.entry)

    @property
    def num_causes(self) -> int:
        """How many causes are told apart."""
        return len(self.events)

    @property
    def times(self) -> NDArray[np.float64]:
        """The points of the grid in the unit of `time`, shape (num_steps,)."""
        return np.arange(self.num_steps, dtype=np.float64) * self.step


@dataclass(frozen=True, slots=True, kw_only=True)
class SurvivalRows:
    """Some records of a site on the grid, each array of shape (num_rows,).

    A record is at risk at the indices `entry + 1` to `exit`.

    Attributes:
        entry: index after which it was at risk; -1 where there is no entry variable.
        exit: index at which it left, in [0, num_steps).
        cause: of the event, from 1; 0: censored.
    """

    entry: Indices
    exit: Indices
    cause: NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedSurvival:
    """A survival outcome that the sites' data have been found to fit.

    Attributes:
        outcome: with the length of the grid.
        unit: of the time, as the contract has it.
        num_records: at the sites.
        num_complete: without a missing value.
        num_missing: by required variable, records in which it is missing.
        num_events: by cause, among the complete records; shape (num_causes,).
        is_on_grid: whether all times lay on the grid, so that nothing was rounded.
        sites: that answered.
        notes: what the reader should know.
    """

    outcome: SurvivalOutcome
    unit: str | None
    num_records: int
    num_complete: int
    num_missing: dict[str, int]
    num_events: tuple[int, ...]
    is_on_grid: bool
    sites: tuple[str, ...]
    notes: tuple[str, ...]


def grid_index(times: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """The index of each time: `ceil(time / step)`, where a time within rounding error of a point lies on it."""
    ratio = times / step
    nearest = np.rint(ratio)
    is_near = np.abs(ratio - nearest) <= ON_GRID * np.maximum(1.0, np.abs(nearest))
    return np.asarray(np.where(is_near, nearest, np.ceil(ratio)), np.float64)


def grid_step(variable: Variable, grid: float | None = None) -> float:
    """The distance of two points of a time's grid: given, the contract's, or one day.

    Args:
        variable: the time.
        grid: in its unit; None: its `resolution`, 1 for integers, or a day where its unit says how long that is.

    Raises:
        ConfigError: not a time, not a positive distance, or nothing says what a day is.
    """
    if variable.type not in ("number", "integer"):
        raise ConfigError(
            f"time: {variable.name!r} is a {variable.type}; a time to an event is a number, as days since diagnosis"
        )
    if grid is not None:
        if not 0 < grid < math.inf:
            raise ConfigError(f"grid: must be a positive number of the time's unit, got {grid}")
        return float(grid)
    if variable.resolution is not None:
        return variable.resolution
    if variable.type == "integer":
        return 1.0
    days = DAYS_PER_UNIT.get((variable.unit or "").strip().casefold())
    if days is None:
        said = f"the unit {variable.unit!r}, which is not one of time" if variable.unit else "no unit"
        raise ConfigError(
            f"time: {variable.name!r} has {said}; give grid = the distance of two times that may be told apart, or "
            'give the variable a resolution or a unit ("days", "weeks", "months", "years") in the contract'
        )
    return 1 / days


def survival_rows(table: Table, outcome: SurvivalOutcome, rows: NDArray[np.intp]) -> SurvivalRows:
    """Records of a site on the grid.

    Args:
        table: the site's records.
        outcome: time, event, entry and grid.
        rows: indices of records in which none of `outcome.variables` is missing, shape (num_rows,).

    Raises:
        DataError: a time is negative or beyond the grid, an entry is not before its exit, or an event is neither
            a cause nor censored.
    """
    entry, exits = _grid_times(table, outcome, rows)
    cause = cause_codes(table, outcome.event, outcome.events, outcome.censored, rows)
    if len(rows) and (entry.min() < -1 or not (entry < exits).all() or exits.max() >= outcome.num_steps):
        raise DataError(
            f"{outcome.time!r}: a time is negative, beyond the grid of {outcome.num_steps} points, or not after its "
            "entry; the table is not the one that was checked"
        )
    if (cause < 0).any():
        raise DataError(f"{outcome.event!r}: a value is neither an event nor censored")
    return SurvivalRows(entry=entry.astype(np.int64), exit=exits.astype(np.int64), cause=cause)


def _grid_times(
    table: Table, outcome: SurvivalOutcome, rows: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    exits = grid_index(table.numbers(outcome.time)[rows], outcome.step)
    if outcome.entry is None:
        # Negative times must not be taken for entries before the beginning.
        return np.where(exits < 0, exits, -1.0), exits
    return grid_index(table.numbers(outcome.entry)[rows], outcome.step), exits


class TimeCheck(Contribution):
    """What of a site's times, entries and events could not be analysed, and how long the times are.

    The length is a count of sites: how many binary digits the index of a site's last time has.
    """

    num_records: int = people()
    num_complete: int = people()
    num_missing: Counts = people("num_required", cells="none")
    num_negative: int = people(cells="none")
    num_not_after_entry: int = people(cells="none")
    num_within_step: int = people(cells="none")
    num_unknown: int = people(cells="none")
    num_off_grid: int = people(cells="none")
    num_events: Counts = people("num_causes")
    num_sites_by_size: Array = exact(_NUM_SIZES)


@site_function(
    "survival.check",
    version=1,
    symbols=lambda outcome, required: {"num_required": len(required), "num_causes": outcome.num_causes},
)
def check_times(data: Table, outcome: SurvivalOutcome, required: tuple[str, ...]) -> TimeCheck:
    """Count the records whose times, entries or events cannot be used, and the events; tell how long the times are.

    Args:
        data: the site's records.
        outcome: its grid's length is not looked at.
        required: variables that must be present, those of the outcome among them; other records are left out.
    """
    rows = complete_rows(data, required)
    entry, exits = _grid_times(data, outcome, rows)
    cause = cause_codes(data, outcome.event, outcome.events, outcome.censored, rows)
    raw = [data.numbers(name)[rows] for name in (outcome.time, *([outcome.entry] if outcome.entry else []))]
    is_negative = np.any([values < 0 for values in raw], axis=0)
    is_late = ~is_negative & (raw[-1] >= raw[0]) if outcome.entry else np.zeros(len(rows), bool)
    is_off = np.any([grid_index(v, outcome.step) != np.rint(v / outcome.step) for v in raw], axis=0)
    return TimeCheck(
        num_records=data.num_records,
        num_complete=len(rows),
        num_missing=np.array([int(data.is_missing(name).sum()) for name in required], np.int64),
        num_negative=int(is_negative.sum()),
        num_not_after_entry=int(is_late.sum()),
        num_within_step=int((~is_negative & ~is_late & (entry >= exits)).sum()),
        num_unknown=int((cause < 0).sum()),
        num_off_grid=int(is_off.sum()),
        num_events=np.bincount(cause[cause > 0] - 1, minlength=outcome.num_causes).astype(np.int64),
        num_sites_by_size=_by_size(exits),
    )


def _by_size(indices: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 at the number of binary digits of the largest index, else 0; shape (_NUM_SIZES,)."""
    sizes = np.zeros(_NUM_SIZES)
    if len(indices):
        _, digits = np.frexp(max(float(indices.max()), 0.0))
        sizes[min(int(digits), _NUM_SIZES - 1)] = 1.0
    return sizes


def prepare_survival(
    setting: Setting,
    *,
    time: str,
    event: str,
    event_level: str | None = None,
    causes: tuple[str, ...] | None = None,
    censored: str | None = None,
    entry: str | None = None,
    grid: float | None = None,
    also_required: tuple[str, ...] = (),
    needs_events: bool = True,
) -> Steps[PreparedSurvival]:
    """Check a survival outcome at all sites and fix its grid; one ask.

    What counts as the event: with `event_level`, that value, and all others are censored (so that one cause of
    several has its own hazard); without, True of a boolean and 1 of a number, whose 0 means censored. With
    `causes`, each of them is a cause of its own, `censored` means censored, and no other value may occur.

    Args:
        setting: contract and sites.
        time: variable that says when follow-up ended; a number or integer, 0 or more.
        event: variable that says how it ended: boolean, integer, number or category.
        event_level: the value that counts as the event.
        causes: the values that count as causes, in the order in which they are numbered.
        censored: with `causes`, the value that means censored; None: 0 of a number, False of a boolean, the first
            level of a category.
        entry: variable that says after which time a record was under observation.
        grid: distance of two times that are told apart, in the unit of `time`.
        also_required: further variables that must be present.
        needs_events: whether records without a single event are refused.

    Raises:
        ConfigError: a variable or value that the contract does not have, no grid; before anything is asked.
        DataError: what the sites' data do not allow: counted, no value is shown.
    """
    variable = setting.contract.variable(time, "time")
    events, none = event_values(setting.contract, event, event_level, causes, censored)
    outcome = SurvivalOutcome(
        time=time,
        event=event,
        events=events,
        censored=none,
        entry=None if entry is None else _entry_name(setting.contract, entry),
        step=grid_step(variable, grid),
        num_steps=MAX_GRID_POINTS,
    )
    names = [setting.contract.variable(name).name for name in also_required]
    required = tuple(dict.fromkeys((*outcome.variables, *names)))
    total = yield from ask(check_times, outcome, required)
    _refuse(total.sum, outcome, required, setting.disclosure.minimum_cell, needs_events)
    num_steps = _num_steps(total.sum, outcome, variable)
    return PreparedSurvival(
        outcome=replace(outcome, num_steps=num_steps),
        unit=variable.unit,
        num_records=total.sum.num_records,
        num_complete=total.sum.num_complete,
        num_missing=dict(zip(required, total.sum.num_missing.tolist(), strict=True)),
        num_events=tuple(total.sum.num_events.tolist()),
        is_on_grid=total.sum.num_off_grid == 0,
        sites=total.sites,
        notes=tuple(_notes(total.sum, outcome, variable)),
    )


def _entry_name(contract: Contract, entry: str) -> str:
    variable = contract.variable(entry, "entry")
    if variable.type not in ("number", "integer"):
        raise ConfigError(f"entry: {entry!r} is a {variable.type}; it must be a number in the unit of the time")
    return variable.name


def _refuse(
    found: TimeCheck, outcome: SurvivalOutcome, required: tuple[str, ...], minimum_cell: int, needs_events: bool
) -> None:
    """Raise `DataError` for what cannot be analysed; counts are shown as the rules allow."""
    if not found.num_records:
        raise DataError("the sites have no records; check the cohort")
    if not found.num_complete:
        empty = [n for n, count in zip(required, found.num_missing, strict=True) if count == found.num_records]
        what = f"{', '.join(map(repr, empty))} missing in all records" if empty else "something missing in every record"
        raise DataError(f"no record can be used, with {what}; check what {', '.join(map(repr, required))} hold")
    for count, problem in _problems(found, outcome):
        if count:
            raise DataError(f"{problem} ({_part(count, found.num_complete, minimum_cell)} records)")
    if needs_events and not found.num_events.any():
        raise DataError(
            f"nobody had the event: {outcome.event!r} is {' or '.join(map(repr, outcome.events))} in none of the "
            f"{shown_count(found.num_complete, minimum_cell)} complete records; is that the value that counts?"
        )


def _part(count: int, of: int, minimum_cell: int) -> str:
    """How many of the records, where neither they, nor all, nor the others are few."""
    if is_small(of, minimum_cell):
        return "some"
    if is_small(of - count, minimum_cell):
        return "nearly all"
    return f"{shown_count(count, minimum_cell)} of {of}"


def _problems(found: TimeCheck, outcome: SurvivalOutcome) -> Iterator[tuple[int, str]]:
    yield (
        found.num_negative,
        "times are negative; follow-up begins at 0: correct the table or declare the range [0, ...]",
    )
    yield (
        found.num_unknown,
        (
            f"{outcome.event!r} is neither an event ({', '.join(outcome.events)}) nor censored "
            f"({', '.join(outcome.censored or ())}); say which values count"
        ),
    )
    yield (
        found.num_not_after_entry,
        f"{outcome.entry!r} is not before {outcome.time!r}; nobody can leave before entering",
    )
    yield found.num_within_step, f"entry and exit lie within one step of the grid, {outcome.step:g}; give a finer grid"


def _num_steps(found: TimeCheck, outcome: SurvivalOutcome, variable: Variable) -> int:
    """The length of the grid: the next power of two over all times, or less where the contract's range ends earlier."""
    num_steps: int = 1 << int(np.flatnonzero(found.num_sites_by_size).max(initial=0))
    if variable.range is not None and math.isfinite(variable.range[1]):
        num_steps = min(num_steps, int(grid_index(np.array(variable.range[1]), outcome.step)) + 1)
    if num_steps > MAX_GRID_POINTS:
        raise DataError(
            f"{outcome.time!r} reaches over more than {MAX_GRID_POINTS} steps of {outcome.step:g}; give a coarser grid "
            f"(grid = {outcome.step * num_steps / MAX_GRID_POINTS:.3g} or more), or declare the range of the time"
        )
    return max(num_steps, 1)


def _notes(found: TimeCheck, outcome: SurvivalOutcome, variable: Variable) -> Iterator[str]:
    unit = f" {variable.unit}" if variable.unit else ""
    if found.num_off_grid:
        yield (
            f"Times were rounded up to multiples of {outcome.step:.6g}{unit}: each is later by less than that, and "
            "those within it are tied."
        )
    if outcome.censored is None:
        yield f"The event is {outcome.event} = {outcome.events[0]}; records with any other value are censored."


def shown_times(leavers_per_step: Counts, minimum_cell: int) -> Indices:
    """Indices of the grid at which a curve may be shown.

    Between a shown index and the one before it (or the beginning) nobody is told of whom fewer than
    `minimum_cell` left. Those who left after the last index that this allows are joined to the ones before, so that
    the last shown index is where the last one left.

    Args:
        leavers_per_step: how many left at each index, shape (num_steps,); or of several kinds, such as events and
            censored, each of which is none or enough by itself, shape (num_kinds, num_steps).
        minimum_cell: least number that may be told of.

    Returns:
        Increasing indices; none where fewer than `minimum_cell` left in all.

    Guarantees:
        enough_left_between_shown_times: of every kind, between two neighbours of [-1, *shown], none or at least
            `minimum_cell` left; none left after the last.
    """
    leavers = np.atleast_2d(leavers_per_step)
    places = np.flatnonzero(leavers.any(axis=0))
    shown: list[tuple[int, list[int]]] = []
    count = [0] * len(leavers)
    for place, here in zip(places.tolist(), leavers[:, places].T.tolist(), strict=True):
        count = [a + b for a, b in zip(count, here, strict=True)]
        if all(c == 0 or c >= minimum_cell for c in count):
            shown.append((place, count))
            count = [0] * len(leavers)
    while any(count) and not all(c == 0 or c >= minimum_cell for c in count):
        if not shown:
            return np.zeros(0, np.int64)
        count = [a + b for a, b in zip(count, shown.pop()[1], strict=True)]
    ends = [place for place, _ in shown] + ([int(places[-1])] if any(count) else [])
    return np.array(ends, np.int64)


# What this module offers; a vocabulary reads the site function.
__all__ = [
    "PreparedSurvival",
    "SurvivalOutcome",
    "SurvivalRows",
    "check_times",
    "grid_index",
    "grid_step",
    "prepare_survival",
    "shown_times",
    "survival_rows",
]
