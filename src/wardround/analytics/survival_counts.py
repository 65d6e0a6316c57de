"""Who entered and who left at each point of the grid, by group and stratum: the one table behind survival curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.design import complete_rows
from wardround.analytics.gray_test import gray_sums
from wardround.analytics.grouping import group_codes, level_codes, named_levels
from wardround.analytics.log_rank import LOG_RANK, LogRankSums, TestWeighting, log_rank_sums
from wardround.analytics.survival_time import SurvivalOutcome, SurvivalRows, survival_rows
from wardround.data.contract import Setting
from wardround.data.table import Table
from wardround.errors import ConfigError, DataError
from wardround.sums import Array, Contribution, Steps, ask, exact, people, site_function

Counts = NDArray[np.int64]
Values = NDArray[np.float64]

SITE = "site"
"""Stands for the hospital itself where a variable is named."""
MAX_CELLS = 2**24
"""Largest table: causes (and censored) x groups x strata x points of the grid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """How records are told apart beside their times.

    Attributes:
        by: variable whose levels are the groups, "site", or None for one group.
        num_groups: its number of levels.
        sites: the roster, where `by` is "site"; else empty.
        strata: variables within whose levels groups are compared.
        num_levels: how many levels each of these has.
        weights: variable that says how many records a row stands for.
        required: variables that must be present.
        within_site: whether each site is a stratum (or several) of its own.
        weighting: of the times in a test that is made within sites.
        compares: what that test compares: survival, or (Gray's) the cumulative incidence of each cause.
    """

    by: str | None = None
    num_groups: int = 1
    sites: tuple[str, ...] = ()
    strata: tuple[str, ...] = ()
    num_levels: tuple[int, ...] = ()
    weights: str | None = None
    required: tuple[str, ...]
    within_site: bool = False
    weighting: TestWeighting = LOG_RANK
    compares: Literal["survival", "incidence"] = "survival"

    def __post_init__(self) -> None:
        if self.num_groups < 1 or len(self.num_levels) != len(self.strata) or min(self.num_levels, default=1) < 1:
            raise ValueError("there must be a group at least, and a number of levels for each stratum variable")
        if (self.by == SITE) != bool(self.sites) or (self.sites and self.num_groups != len(self.sites)):
            raise ValueError("the sites are given where they are the groups, and only there")

    @property
    def num_strata(self) -> int:
        """Combinations of the strata's levels."""
        return int(np.prod(self.num_levels, dtype=np.int64)) if self.num_levels else 1


def divide(
    setting: Setting,
    outcome_variables: tuple[str, ...],
    *,
    by: str | None,
    strata: tuple[str, ...],
    weights: str | None,
    weighting: TestWeighting = LOG_RANK,
    compares: Literal["survival", "incidence"] = "survival",
) -> tuple[Division, tuple[str, ...]]:
    """Check groups, strata and weights against contract and rules.

    Returns:
        The division, and the groups' names (empty without `by`).

    Raises:
        ConfigError: a variable without levels, weights that are no number, or sites that may not be told apart.
    """
    groups = _groups(setting, by)
    others = tuple(dict.fromkeys(name for name in strata if name != SITE))
    if by is not None and by in strata:
        raise ConfigError(f"strata: groups by {by!r} cannot be compared within levels of {by!r}")
    if weights is not None and not setting.contract.variable(weights, "weights").is_numeric:
        raise ConfigError(f"weights: {weights!r} must be a number, 0 or more")
    named = (*(() if by in (None, SITE) else (str(by),)), *others, *(() if weights is None else (weights,)))
    division = Division(
        by=by,
        num_groups=max(1, len(groups)),
        sites=setting.sites if by == SITE else (),
        strata=others,
        num_levels=tuple(len(named_levels(setting.contract, name, "strata")) for name in others),
        weights=weights,
        required=tuple(dict.fromkeys((*outcome_variables, *named))),
        within_site=SITE in strata,
        weighting=weighting,
        compares=compares,
    )
    return division, groups


def _groups(setting: Setting, by: str | None) -> tuple[str, ...]:
    if by is None:
        return ()
    if by != SITE:
        return named_levels(setting.contract, by, "by")
    if not setting.disclosure.allows_site_results:
        raise ConfigError(
            f"by: the disclosure rules ({setting.disclosure.preset}) have allows_site_results = false, so that no "
            "site's own curve is shown; leave `by` out, or agree on other rules"
        )
    return setting.sites


class Departures(Contribution):
    """Records that entered and left, by cause (0: censored), group, stratum and point of the grid.

    The weighted fields are there where there are weights, the test's where it is made within sites. Squared weights
    are for robust variances; `num_fractional` records have a weight that is no whole number.
    """

    num_entered: Counts = people("num_groups", "num_strata", "num_entry_steps", cells="sums")
    num_left: Counts = people("num_ends", "num_groups", "num_strata", "num_steps", cells="sums")
    weight_entered: Array = exact("num_weighted", "num_groups", "num_strata", "num_entry_steps")
    weight_left: Array = exact("num_weighted", "num_ends", "num_groups", "num_strata", "num_steps")
    square_left: Array = exact("num_weighted", "num_ends", "num_groups", "num_strata", "num_steps")
    num_fractional: int = people(cells="none")
    observed: Array = exact("num_tests", "num_groups")
    expected: Array = exact("num_tests", "num_groups")
    variance: Array = exact("num_tests", "num_groups", "num_groups")


def _sizes(outcome: SurvivalOutcome, division: Division) -> dict[str, float]:
    return {
        "num_groups": division.num_groups,
        # Within sites the strata are compared there; what leaves is summed over them.
        "num_strata": 1 if division.within_site else division.num_strata,
        "num_steps": outcome.num_steps,
        "num_entry_steps": 1 if outcome.entry is None else outcome.num_steps,
        "num_ends": outcome.num_causes + 1,
        "num_weighted": int(division.weights is not None),
        "num_tests": _num_tests(outcome.num_causes, division),
    }


def _num_tests(num_causes: int, division: Division) -> int:
    if not division.within_site:
        return 0
    return num_causes if division.compares == "incidence" else 1


@site_function(
    "survival.departures",
    version=1,
    symbols=_sizes,
    per_site=lambda outcome, division: division.by == SITE,
    rows=lambda data, outcome, division: len(complete_rows(data, division.required)),
)
def departures(data: Table, outcome: SurvivalOutcome, division: Division) -> Departures:
    """Count the records that entered and that left at each point of the grid; compare groups within the site if asked.

    Args:
        data: the site's records.
        outcome: time, event, entry and grid.
        division: groups, strata and weights.

    Raises:
        DataError: times, levels or weights that are not what was agreed, or a table over `MAX_CELLS`.
    """
    shape = (outcome.num_causes + 1, division.num_groups, division.num_strata, outcome.num_steps)
    check_table_size(shape)
    rows = complete_rows(data, division.required)
    weights = _weights(data, division.weights, rows)
    if weights is not None:  # a record of weight 0 stands for nobody
        rows, weights = rows[weights > 0], weights[weights > 0]
    at, cells = survival_rows(data, outcome, rows), _cells(data, division, rows)
    counted = _count(at, cells, shape, outcome.entry is not None, None)
    weighed = None if weights is None else _count(at, cells, shape, outcome.entry is not None, weights)
    entered, left = counted if weighed is None else weighed
    tested = compare_groups(entered, left, division) if division.within_site else ()
    size = division.num_groups
    return Departures(
        num_entered=_summed(counted[0].astype(np.int64), division),
        num_left=_summed(counted[1].astype(np.int64), division),
        weight_entered=_weighted(weighed and weighed[0], counted[0], division),
        weight_left=_weighted(weighed and weighed[1], counted[1], division),
        square_left=_weighted(None if weights is None else _left(at, cells, shape, weights**2), counted[1], division),
        num_fractional=0 if weights is None else int((weights != np.rint(weights)).sum()),
        observed=np.array([test.observed for test in tested]).reshape(len(tested), size),
        expected=np.array([test.expected for test in tested]).reshape(len(tested), size),
        variance=np.array([test.variance for test in tested]).reshape(len(tested), size, size),
    )


def check_table_size(shape: tuple[int, ...]) -> None:
    """Raise `DataError` where a table would be too large."""
    size = float(np.prod(np.array(shape, np.float64)))
    if size > MAX_CELLS:
        raise DataError(
            f"a table of {' x '.join(map(str, shape))} (ends, groups, strata, points of time) is over the limit of "
            f"{MAX_CELLS} cells; give a coarser grid, or fewer groups or strata"
        )


def _weights(data: Table, name: str | None, rows: NDArray[np.intp]) -> Values | None:
    if name is None:
        return None
    weights = data.numbers(name)[rows]
    if weights.size and weights.min() < 0:
        raise DataError(f"the weights {name!r} are negative in some rows; weights must be 0 or more")
    return weights


def _cells(data: Table, division: Division, rows: NDArray[np.intp]) -> Counts:
    """Group and stratum of each row as one number, shape (num_rows,)."""
    if division.by == SITE:
        if data.site not in division.sites:
            raise DataError(f"site {data.site!r} is not among those that were asked")
        group = np.full(len(rows), division.sites.index(data.site), np.int64)
    else:
        group = group_codes(data, division.by, division.num_groups)[rows].astype(np.int64)
    for name, size in zip(division.strata, division.num_levels, strict=True):
        group = group * size + level_codes(data, name, size)[rows]
    return group


def _count(
    at: SurvivalRows, cells: Counts, shape: tuple[int, int, int, int], has_entry: bool, weights: Values | None
) -> tuple[Values, Values]:
    """Entered, shape (num_groups, num_strata, num_entry_steps), and left, shape `shape`."""
    _, num_groups, num_strata, num_steps = shape
    num_cells, num_entry_steps = num_groups * num_strata, num_steps if has_entry else 1
    entry = np.maximum(at.entry, 0)
    entered = np.bincount(cells * num_entry_steps + entry, weights, minlength=num_cells * num_entry_steps)
    return entered.reshape(num_groups, num_strata, num_entry_steps).astype(float), _left(at, cells, shape, weights)


def _left(at: SurvivalRows, cells: Counts, shape: tuple[int, int, int, int], weights: Values | None) -> Values:
    num_ends, num_groups, num_strata, num_steps = shape
    num_cells = num_groups * num_strata
    where = (at.cause.astype(np.int64) * num_cells + cells) * num_steps + at.exit
    left = np.bincount(where, weights, minlength=num_ends * num_cells * num_steps)
    return left.reshape(shape).astype(float)


def _summed(table: NDArray[Any], division: Division) -> NDArray[Any]:
    summed: NDArray[Any] = table.sum(axis=-2, keepdims=True) if division.within_site else table
    return summed


def _weighted(table: Values | None, like: Values, division: Division) -> Values:
    """The table in an array of one more axis, which is empty without weights."""
    kept = _summed(like if table is None else table, division)
    return kept[None] if table is not None else np.zeros((0, *kept.shape))


def compare_groups(entered: NDArray[Any], left: NDArray[Any], division: Division) -> tuple[LogRankSums, ...]:
    """The sums of the tests that groups are alike: one of survival, or one of each cause's incidence.

    Args:
        entered: shape (num_groups, num_strata, num_entry_steps).
        left: by cause (0: censored), shape (num_causes + 1, num_groups, num_strata, num_steps).
        division: which test.
    """
    at_risk = num_at_risk(entered, left.sum(axis=0))
    events = left[1:].sum(axis=0)
    if division.compares == "survival":
        return (log_rank_sums(events, at_risk, division.weighting),)
    return tuple(gray_sums(cause, events - cause, at_risk, division.weighting.rho) for cause in left[1:])


def num_at_risk(entered: NDArray[Any], left: NDArray[Any]) -> Values:
    """At risk at each point: entered before it, and not left before it.

    Args:
        entered: shape (..., num_steps); or (..., 1) where all were there from the beginning.
        left: of all causes and censored, shape (..., num_steps).

    Returns:
        Shape (..., num_steps).
    """
    # From the end: what remains is a sum of what is still to come, not a difference of two large numbers.
    still_there = _from_here_on(left)
    if entered.shape[-1] == 1:
        return still_there
    at_risk = still_there - _from_here_on(entered)
    # Weights that cancel leave rounding error where nobody is left.
    return np.where(at_risk < 1e-12 * still_there.max(initial=0.0), 0.0, at_risk)


def _from_here_on(table: NDArray[Any]) -> Values:
    return np.asarray(np.flip(np.cumsum(np.flip(table, -1), axis=-1, dtype=np.float64), -1), np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class SurvivalCounts:
    """The table over all sites.

    Attributes:
        entered: records, shape (num_groups, num_strata, num_steps); or (..., 1): all were there from the beginning.
        left: records by cause (0: censored), shape (num_causes + 1, num_groups, num_strata, num_steps).
        weight_entered: sums of weights, as `entered`; the same numbers where there are no weights.
        weight_left: sums of weights, as `left`.
        square_left: sums of squared weights, as `left`, where a weight is no whole number; else None.
        tests: sums of the test of survival, or of each cause's incidence.
        sites: that answered.
    """

    entered: Counts
    left: Counts
    weight_entered: Values
    weight_left: Values
    square_left: Values | None
    tests: tuple[LogRankSums, ...]
    sites: tuple[str, ...]


def count_departures(outcome: SurvivalOutcome, division: Division) -> Steps[SurvivalCounts]:
    """Ask for the table; one ask. Raises `DataError` where it would be over `MAX_CELLS`."""
    check_table_size((outcome.num_causes + 1, division.num_groups, division.num_strata, outcome.num_steps))
    total = yield from ask(departures, outcome, division)
    found = total.sum
    is_weighted = division.weights is not None
    entered = found.weight_entered[0] if is_weighted else found.num_entered.astype(np.float64)
    left = found.weight_left[0] if is_weighted else found.num_left.astype(np.float64)
    within = (
        LogRankSums(observed=observed, expected=expected, variance=variance)
        for observed, expected, variance in zip(found.observed, found.expected, found.variance, strict=True)
    )
    return SurvivalCounts(
        entered=found.num_entered,
        left=found.num_left,
        weight_entered=entered,
        weight_left=left,
        square_left=found.square_left[0] if found.num_fractional else None,
        tests=tuple(within) if division.within_site else compare_groups(entered, left, division),
        sites=total.sites,
    )
