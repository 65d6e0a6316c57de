"""Cumulative incidences of competing causes, exactly as the pooled records would give them.

As a Kaplan-Meier analysis: one ask checks the times and fixes the grid, the other sums one table of counts (groups x
strata x times: entered, events of each cause, censored), from which the curves and Gray's tests follow. Where sites are
strata, each compares the groups among its own records, and only the sums of its scores leave it.

References:
    Aalen, Johansen (1978), Scandinavian Journal of Statistics 5(3). Gray (1988), Annals of Statistics 16(3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.cumulative_incidence_estimate import incidences
from wardround.analytics.cumulative_incidence_result import (
    CumulativeIncidenceResult,
    IncidenceAt,
    IncidenceCurve,
    IncidenceTest,
)
from wardround.analytics.glm_disclosed import shown_missing
from wardround.analytics.kaplan_meier_curves import GroupTable, rounded_up
from wardround.analytics.kaplan_meier_estimate import ConfidenceType, interval
from wardround.analytics.log_rank import MAX_EXPONENT, TestWeighting
from wardround.analytics.steady_sites import with_steady_sites
from wardround.analytics.survival_counts import Division, SurvivalCounts, count_departures, departures, divide
from wardround.analytics.survival_shown import (
    Shown,
    floor_index,
    shown_counts,
    tick_times,
    with_leavers,
)
from wardround.analytics.survival_time import PreparedSurvival, check_times, prepare_survival
from wardround.data.contract import Setting, Variable
from wardround.errors import ConfigError, DataError
from wardround.sums import Steps, workflow

Counts = NDArray[np.int64]
Values = NDArray[np.float64]


@workflow("cumulative_incidence", version=1)
def cumulative_incidence(
    setting: Setting,
    time: str,
    event: str,
    causes: tuple[str, ...] | None = None,
    censored: str | None = None,
    entry: str | None = None,
    grid: float | None = None,
    by: str | None = None,
    strata: tuple[str, ...] = (),
    weights: str | None = None,
    confidence_type: ConfidenceType = "log-log",
    times: tuple[float, ...] = (),
    rho: float = 0.0,
    confidence: float = 0.95,
) -> Steps[CumulativeIncidenceResult]:
    """Cumulative incidences of competing causes by group, with Gray's tests, equal to those of the pooled records.

    Args:
        setting: contract, sites and disclosure rules.
        time: variable that says when follow-up ended, 0 or later.
        event: variable that says how: censored, or of which cause.
        causes: its values that are causes, all of them; None: every level of a category but `censored`.
        censored: the value that means censored; None: the first level of a category, 0 of a number.
        entry: variable that says after which time a record was under observation (left truncation).
        grid: distance of two times that are told apart, in the unit of `time`; None: the contract's, or a day.
        by: variable whose levels are the groups; "site" for the hospitals, where the disclosure rules allow it.
        strata: variables, or "site", within whose levels the tests compare the groups; the curves are not stratified.
        weights: variable that says how many records a row stands for.
        confidence_type: scale on which the intervals of an incidence are symmetric.
        times: at which incidences and numbers at risk are told; none: about six round ones.
        rho: weight of early times in Gray's test.
        confidence: of the intervals.

    Raises:
        ConfigError: a variable or option is wrong, before anything is asked.
        DataError: times, entries or events that cannot be used, or no record that can.

    Guarantees:
        incidences_equal_the_pooled: estimates, errors, intervals and tests are those of the pooled records on the same
            grid.
        no_small_count_of_a_cause_is_shown: neither what is shown, nor differences of it, hold a count of 1 to the floor
            less 1.
    """
    tick_times(times, 0.0)
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"confidence: must be in [0.5, 1), got {confidence}")
    if not 0 <= rho <= MAX_EXPONENT:
        raise ConfigError(f"rho: must be in [0, {MAX_EXPONENT:g}], got {rho}")
    if strata and (by is None or entry is not None or weights is not None):
        raise ConfigError(
            "strata: are for Gray's test, which needs groups (`by`) and is not known for late entries or weights"
        )
    named = causes or _causes(setting.contract.variable(event, "event"), censored)
    options = _Options(times=times, confidence_type=confidence_type, confidence=confidence, rho=rho)

    def attempt() -> Steps[CumulativeIncidenceResult]:
        division, groups = divide(
            setting,
            tuple(name for name in (time, event, entry) if name is not None),
            by=by,
            strata=strata,
            weights=weights,
            weighting=TestWeighting("fleming-harrington", rho),
            compares="incidence",
        )
        prepared = yield from prepare_survival(
            setting,
            time=time,
            event=event,
            causes=named,
            censored=censored,
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
    """The options that the sites need not know."""

    times: tuple[float, ...]
    confidence_type: ConfidenceType
    confidence: float
    rho: float


def _causes(variable: Variable, censored: str | None) -> tuple[str, ...]:
    levels = variable.category_levels
    if levels is None:
        raise ConfigError(f"causes: {variable.name!r} is a {variable.type}; name its values that are causes")
    none = levels[0] if censored is None else censored
    return tuple(level for level in levels if level != none)


def _result(
    setting: Setting,
    prepared: PreparedSurvival,
    division: Division,
    groups: tuple[str, ...],
    counts: SurvivalCounts,
    options: _Options,
) -> CumulativeIncidenceResult:
    rules, outcome = setting.disclosure, prepared.outcome
    num_left_out, num_missing = shown_missing(prepared.num_records - prepared.num_complete, prepared.num_missing, rules)
    tables = {name: GroupTable.of(counts, index) for index, name in enumerate(groups)}
    held = {name: table for name, table in tables.items() if table.num_records}
    if not held:
        raise DataError("all records have weight 0; check the weights")
    ticks = tick_times(options.times, max(table.last for table in held.values()) * outcome.step)
    curves = tuple(
        curve
        for name, table in held.items()
        for curve in _GroupCurves(table, name, prepared, setting, options, ticks).curves()
    )
    hides_size = any(curve.num_records is None for curve in curves)
    return CumulativeIncidenceResult(
        time=outcome.time,
        unit=prepared.unit,
        event=outcome.event,
        causes=outcome.events,
        censored=(outcome.censored or ("",))[0],
        entry=outcome.entry,
        by=division.by,
        weights=division.weights,
        curves=curves,
        tests=_tests(counts, division, outcome.events, options.rho, outcome.entry is not None),
        num_records=None if hides_size else rules.shown(sum(table.num_records for table in held.values())),
        num_left_out=num_left_out,
        num_missing=num_missing,
        step=outcome.step,
        confidence_type=options.confidence_type,
        confidence=options.confidence,
        minimum_cell=rules.minimum_cell,
        sites=counts.sites,
        notes=(*prepared.notes, *_notes(curves, groups, division, prepared, rules.minimum_cell, counts)),
    )


class _GroupCurves:
    """The curves of one group's causes, as far as the rules allow them to be shown."""

    def __init__(
        self,
        table: GroupTable,
        name: str,
        prepared: PreparedSurvival,
        setting: Setting,
        options: _Options,
        times: tuple[float, ...],
    ) -> None:
        self._table, self._name, self._prepared, self._options = table, name, prepared, options
        self._times, self._rules = times, setting.disclosure
        self._ticks = floor_index(times, prepared.outcome.step, table.left.shape[1])
        self._shown: Shown = table.partition(self._ticks, self._rules.minimum_cell)
        self._places = with_leavers(self._shown.places, table.left.sum(axis=0))

    def curves(self) -> Iterator[IncidenceCurve]:
        """One a cause."""
        table, places, rules = self._table, self._places, self._rules
        is_hidden = not len(places)
        found = incidences(table.weight_left, table.weight_at_risk, table.weight_entered)
        for number, (cause, estimate) in enumerate(zip(self._prepared.outcome.events, found, strict=True), start=1):
            error = np.sqrt(estimate.variance)
            low, high = interval(estimate.incidence, error, self._options.confidence_type, self._options.confidence)
            events = table.left[number]
            yield IncidenceCurve(
                group=self._name,
                cause=cause,
                num_records=rules.shown(table.num_records),
                num_events=None if is_hidden else rules.shown(int(events.sum())),
                times=places.astype(np.float64) * self._prepared.outcome.step,
                num_at_risk=shown_counts(table.at_risk_since(places), rules),
                num_events_since=shown_counts(np.diff(np.cumsum(events)[places], prepend=0), rules),
                incidence=estimate.incidence[places],
                standard_error=error[places],
                low=low[places],
                high=high[places],
                at_times=tuple(self._at_times(events, estimate.incidence, low, high)),
                grid_error=self._grid_error(estimate.grid_error),
            )

    def _grid_error(self, bounds: Values) -> float:
        return 0.0 if self._prepared.is_on_grid else rounded_up(float(bounds[self._places].max(initial=0.0)))

    def _at_times(self, events: Counts, incidence: Values, low: Values, high: Values) -> Iterator[IncidenceAt]:
        """The cause at each tick; None where a number would give small counts back."""
        table, rules = self._table, self._rules
        so_far, at_risk = np.cumsum(events), np.cumsum(table.entered) - np.cumsum(table.left.sum(axis=0))
        masks = (self._shown.tick_is_shown.tolist(), self._shown.risk_is_shown.tolist())
        for time, tick, is_shown, has_risk in zip(self._times, self._ticks.tolist(), *masks, strict=True):
            # After the last one left, the incidence is known only if that one was not censored.
            is_after = tick > table.last and bool(table.left[0, table.last])
            values = [None if is_after or not is_shown else float(curve[tick]) for curve in (incidence, low, high)]
            limits = [None if value is None or math.isnan(value) else value for value in values[1:]]
            yield IncidenceAt(
                time=time,
                num_at_risk=rules.shown(int(at_risk[tick])) if has_risk else None,
                num_events=rules.shown(int(so_far[tick])) if is_shown else None,
                incidence=values[0],
                low=limits[0],
                high=limits[1],
            )


def _tests(
    counts: SurvivalCounts, division: Division, causes: tuple[str, ...], rho: float, has_entry: bool
) -> tuple[IncidenceTest, ...]:
    if division.num_groups < 2 or has_entry or division.weights is not None:
        return ()
    strata = (*division.strata, *(("site",) if division.within_site else ()))
    tests = []
    for cause, sums in zip(causes, counts.tests, strict=True):
        statistic, df, p_value = sums.test()
        tests.append(IncidenceTest(cause=cause, rho=rho, strata=strata, statistic=statistic, df=df, p_value=p_value))
    return tuple(tests)


def _notes(
    curves: tuple[IncidenceCurve, ...],
    groups: tuple[str, ...],
    division: Division,
    prepared: PreparedSurvival,
    minimum_cell: int,
    counts: SurvivalCounts,
) -> Iterator[str]:
    largest = max(curve.grid_error for curve in curves)
    if largest > 0:
        yield f"From unrounded times, the incidences shown would differ by at most {largest:.2g}."
    if minimum_cell > 1:
        yield (
            "Curves are exact at the times that are shown: between two of them none or at least "
            f"{minimum_cell} had an event of each cause, and none or at least {minimum_cell} were censored."
        )
    hidden = list(dict.fromkeys(curve.group for curve in curves if not curve.is_shown))
    if hidden:
        yield f"Not shown, as too few left them for a floor of {minimum_cell}: {', '.join(hidden)}."
    empty = [group for group in groups if group not in [curve.group for curve in curves]]
    if empty:
        yield f"Without any record: {', '.join(empty)}."
    nobody = [cause for cause, count in zip(prepared.outcome.events, prepared.num_events, strict=True) if count == 0]
    if nobody:
        yield f"Nobody had: {', '.join(nobody)}."
    if division.weights is not None:
        yield f"Estimates weigh each row by {division.weights}, as if it stood for so many; counts are of rows."
    if counts.square_left is not None:
        yield "Standard errors take weights as numbers of records, though they are not whole numbers."
    if division.num_groups > 1 and (prepared.outcome.entry is not None or division.weights is not None):
        yield "Gray's test is not known for late entries or weights, so that the groups are not tested."


# A module's vocabulary is what it names: the workflow with the site functions that it asks for.
__all__ = ["check_times", "cumulative_incidence", "departures"]
