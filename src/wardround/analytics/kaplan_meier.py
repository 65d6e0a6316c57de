"""Kaplan-Meier curves and log-rank tests, exactly as the pooled records would give them.

Two asks: one checks the times and fixes the grid, the other sums one table of counts (groups x strata x times: entered,
events, censored). Estimates, intervals, tests, quantiles and restricted means all follow from that table. Where sites
are strata, each compares the groups among its own records, and only the sums of its differences leave it.

References:
    Kaplan, Meier (1958), JASA 53(282). Mantel (1966), Cancer Chemotherapy Reports 50(3).
    Guyot et al. (2012), BMC Medical Research Methodology 12:9: how counts are worked out of published curves, which
    is why curves are shown at fewer points here (`survival_shown.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from wardround.analytics.glm_disclosed import shown_missing
from wardround.analytics.kaplan_meier_curves import CurveOptions, GroupTable, curve_of, mean_differences
from wardround.analytics.kaplan_meier_estimate import ConfidenceType
from wardround.analytics.kaplan_meier_result import KaplanMeierResult, SurvivalCurve, SurvivalTest, TestGroup
from wardround.analytics.log_rank import MAX_EXPONENT, TestName, TestWeighting
from wardround.analytics.steady_sites import with_steady_sites
from wardround.analytics.survival_counts import (
    Division,
    SurvivalCounts,
    count_departures,
    departures,
    divide,
)
from wardround.analytics.survival_shown import tick_times
from wardround.analytics.survival_time import PreparedSurvival, check_times, prepare_survival
from wardround.data.contract import Setting
from wardround.errors import ConfigError, DataError
from wardround.privacy.disclosure import DisclosureRules
from wardround.sums import Steps, workflow

MAX_QUANTILES = 50
"""Most quantiles of a curve."""


@workflow("kaplan_meier", version=1)
def kaplan_meier(
    setting: Setting,
    time: str,
    event: str,
    event_level: str | None = None,
    entry: str | None = None,
    grid: float | None = None,
    by: str | None = None,
    strata: tuple[str, ...] = (),
    weights: str | None = None,
    confidence_type: ConfidenceType = "log-log",
    times: tuple[float, ...] = (),
    rmst_at: float | None = None,
    quantiles: tuple[float, ...] = (0.25, 0.5, 0.75),
    test: TestName = "log-rank",
    rho: float = 0.0,
    gamma: float = 0.0,
    confidence: float = 0.95,
) -> Steps[KaplanMeierResult]:
    """Survival curves by group, with a test that the groups are alike, equal to those of the pooled records.

    Args:
        setting: contract, sites and disclosure rules.
        time: variable that says when follow-up ended, 0 or later.
        event: variable that says how: True or 1 for the event, False or 0 for censored.
        event_level: the value of `event` that counts; all others are censored.
        entry: variable that says after which time a record was under observation (left truncation).
        grid: distance of two times that are told apart, in the unit of `time`; None: the contract's, or a day.
        by: variable whose levels are the groups; "site" for the hospitals, where the disclosure rules allow it.
        strata: variables, or "site", within whose levels the test compares the groups; the curves are not stratified.
        weights: variable that says how many records a row stands for.
        confidence_type: scale on which the intervals of survival are symmetric.
        times: at which numbers at risk are told; none: about six round ones.
        rmst_at: horizon up to which mean survival times are restricted; None: they are not computed.
        quantiles: parts of a group; 0.5 gives the median survival time. Those are left out between which too few
            had the event.
        test: how the groups are compared; "log-rank" weighs all times alike.
        rho: weight of early times, of a Fleming-Harrington test (1: that of R's `survdiff(rho = 1)`).
        gamma: weight of late times, of a Fleming-Harrington test.
        confidence: of the intervals.

    Raises:
        ConfigError: a variable or option is wrong, before anything is asked.
        DataError: times, entries or events that cannot be used, or no record that can.

    Guarantees:
        curves_equal_the_pooled: estimates, errors, intervals, quantiles and test are those of the pooled records on the
            same grid.
        shown_counts_are_not_small: neither what is shown, nor differences of it, hold a count of 1 to the floor less 1.
    """
    options = _Options(
        times=times,
        rmst_at=rmst_at,
        quantiles=quantiles,
        confidence_type=confidence_type,
        confidence=confidence,
        weighting=_weighting(test, rho, gamma),
    )
    if strata and by is None:
        raise ConfigError("strata: there are no groups to compare within them; name the groups with `by`")

    def attempt() -> Steps[KaplanMeierResult]:
        outcome_variables = tuple(name for name in (time, event, entry) if name is not None)
        division, groups = divide(
            setting, outcome_variables, by=by, strata=strata, weights=weights, weighting=options.weighting
        )
        prepared = yield from prepare_survival(
            setting,
            time=time,
            event=event,
            event_level=event_level,
            entry=entry,
            grid=grid,
            also_required=division.required,
            needs_events=False,
        )
        counts = yield from count_departures(prepared.outcome, division)
        return _result(setting, prepared, division, groups or ("all",), counts, options)

    return (yield from with_steady_sites(attempt, len(setting.sites)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The options of `kaplan_meier` that the sites need not know."""

    times: tuple[float, ...]
    rmst_at: float | None
    quantiles: tuple[float, ...]
    confidence_type: ConfidenceType
    confidence: float
    weighting: TestWeighting

    def __post_init__(self) -> None:
        tick_times(self.times, 0.0)
        if not 0.5 <= self.confidence < 1:
            raise ConfigError(f"confidence: must be in [0.5, 1), got {self.confidence}")
        if len(self.quantiles) > MAX_QUANTILES or not all(0 < p < 1 for p in self.quantiles):
            raise ConfigError(f"quantiles: give at most {MAX_QUANTILES} numbers in (0, 1)")
        if self.rmst_at is not None and not 0 < self.rmst_at < math.inf:
            raise ConfigError(f"rmst_at: must be a time greater than 0, got {self.rmst_at}")


def _weighting(test: TestName, rho: float, gamma: float) -> TestWeighting:
    if (rho or gamma) and test != "fleming-harrington":
        raise ConfigError(f"rho, gamma: are of the Fleming-Harrington test, not of {test!r}; set test to that")
    if not (0 <= rho <= MAX_EXPONENT and 0 <= gamma <= MAX_EXPONENT):
        raise ConfigError(f"rho, gamma: must be in [0, {MAX_EXPONENT:g}], got {rho} and {gamma}")
    return TestWeighting(test, rho, gamma)


def _result(
    setting: Setting,
    prepared: PreparedSurvival,
    division: Division,
    groups: tuple[str, ...],
    counts: SurvivalCounts,
    options: _Options,
) -> KaplanMeierResult:
    rules, outcome = setting.disclosure, prepared.outcome
    num_left_out, num_missing = shown_missing(prepared.num_records - prepared.num_complete, prepared.num_missing, rules)
    tables = {name: GroupTable.of(counts, index) for index, name in enumerate(groups)}
    held = {name: table for name, table in tables.items() if table.num_records}
    if not held:
        raise DataError("all records have weight 0; check the weights")
    last = max(table.last for table in held.values()) * outcome.step
    curve_options = CurveOptions(
        step=outcome.step,
        ticks=tick_times(options.times, last),
        probabilities=options.quantiles,
        horizon=options.rmst_at,
        confidence_type=options.confidence_type,
        confidence=options.confidence,
        is_on_grid=prepared.is_on_grid,
        rules=rules,
    )
    curves = tuple(curve_of(table, name, curve_options) for name, table in held.items())
    test = None if len(groups) < 2 else _test(counts, division, groups, curves, options.weighting, rules)
    # A total, less the groups that are shown, would give the hidden one back.
    hides_size = any(curve.num_records is None for curve in curves)
    hides_events = any(curve.num_events is None for curve in curves)
    num_records = sum(table.num_records for table in held.values())
    num_events = sum(int(table.left[1:].sum()) for table in held.values())
    return KaplanMeierResult(
        time=outcome.time,
        unit=prepared.unit,
        event=f"{outcome.event} = {outcome.events[0]}",
        entry=outcome.entry,
        by=division.by,
        weights=division.weights,
        curves=curves,
        test=test,
        mean_differences=mean_differences(curves, options.confidence),
        num_records=None if hides_size else rules.shown(num_records),
        num_events=None if hides_events else rules.shown(num_events),
        num_left_out=num_left_out,
        num_missing=num_missing,
        step=outcome.step,
        confidence_type=options.confidence_type,
        confidence=options.confidence,
        minimum_cell=rules.minimum_cell,
        sites=counts.sites,
        notes=(*prepared.notes, *_notes(curves, groups, division, options, rules.minimum_cell, counts)),
    )


def _test(
    counts: SurvivalCounts,
    division: Division,
    groups: tuple[str, ...],
    curves: tuple[SurvivalCurve, ...],
    weighting: TestWeighting,
    rules: DisclosureRules,
) -> SurvivalTest:
    (sums,) = counts.tests
    is_count = weighting.test == "log-rank" and division.weights is None
    observed = [float(rules.shown(round(o)) or 0) if is_count else float(o) for o in sums.observed]
    statistic, df, p_value = sums.test()
    rows = []
    for curve in curves:
        group, is_shown = groups.index(curve.group), curve.num_events is not None
        rows.append(
            TestGroup(
                group=curve.group,
                num_records=curve.num_records,
                observed=observed[group] if is_shown else None,
                expected=float(sums.expected[group]) if is_shown else None,
            )
        )
    strata = (*division.strata, *(("site",) if division.within_site else ()))
    return SurvivalTest(
        test=weighting.test,
        rho=weighting.rho,
        gamma=weighting.gamma,
        strata=strata,
        statistic=statistic,
        df=df,
        p_value=p_value,
        groups=tuple(rows),
    )


def _notes(
    curves: tuple[SurvivalCurve, ...],
    groups: tuple[str, ...],
    division: Division,
    options: _Options,
    minimum_cell: int,
    counts: SurvivalCounts,
) -> Iterator[str]:
    largest = max(curve.grid_error for curve in curves)
    if largest > 0:
        yield f"From unrounded times, the survival shown would differ by at most {largest:.2g}."
    if minimum_cell > 1:
        yield (
            f"Curves are exact at the times that are shown: between two of them none or at least {minimum_cell} had "
            f"the event, and none or at least {minimum_cell} were censored."
        )
    hidden = [curve.group for curve in curves if not curve.is_shown]
    if hidden:
        yield f"Not shown, as too few left them for a floor of {minimum_cell}: {', '.join(hidden)}."
    empty = [group for group in groups if group not in [curve.group for curve in curves]]
    if empty:
        yield f"Without any record: {', '.join(empty)}."
    if not counts.left[1:].any():
        yield "Nobody had the event: all curves stay at 1."
    if division.weights is not None:
        yield f"Estimates weigh each row by {division.weights}, as if it stood for so many; counts are of rows."
        yield from _weight_notes(counts, division.num_groups > 1)
    short = [curve.group for curve in curves if curve.is_shown and curve.restricted_mean is None]
    if options.rmst_at is not None and short:
        yield (
            f"No mean up to {options.rmst_at:g}, as follow-up ended before, or too few had the event by then: "
            f"{', '.join(short)}."
        )


def _weight_notes(counts: SurvivalCounts, has_test: bool) -> Iterator[str]:
    if counts.square_left is None:
        return
    if counts.entered.shape[-1] == 1:
        yield "As weights are not whole numbers, standard errors are robust (infinitesimal jackknife)."
    else:
        yield "Standard errors take weights as numbers of records, though they are not whole numbers."
    if has_test:
        yield "So does the test." if counts.entered.shape[-1] > 1 else "The test takes weights as numbers of records."


# A module's vocabulary is what it names: the workflow with the site functions that it asks for.
__all__ = ["check_times", "departures", "kaplan_meier"]
