"""From the table of counts to the curves that may be shown."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.families import two_sided_p, two_sided_quantile
from wardround.analytics.kaplan_meier_estimate import (
    ConfidenceType,
    Estimate,
    RestrictedMean,
    crossing,
    grid_error,
    interval,
    restricted_mean,
)
from wardround.analytics.kaplan_meier_result import (
    AtTime,
    MeanDifference,
    SurvivalCurve,
    SurvivalQuantile,
)
from wardround.analytics.survival_counts import SurvivalCounts, num_at_risk
from wardround.analytics.survival_shown import Shown, floor_index, shown_counts, shown_partition, with_leavers
from wardround.privacy.disclosure import DisclosureRules

Counts = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveOptions:
    """How curves are made and shown.

    Attributes:
        step: of the grid.
        ticks: times at which numbers at risk are told.
        probabilities: of the quantiles.
        horizon: of the restricted mean; None: none.
        confidence_type: scale of the intervals.
        confidence: of the intervals.
        is_on_grid: whether no time was rounded.
        rules: under which the curves are shown.
    """

    step: float
    ticks: tuple[float, ...]
    probabilities: tuple[float, ...]
    horizon: float | None
    confidence_type: ConfidenceType
    confidence: float
    is_on_grid: bool
    rules: DisclosureRules


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTable:
    """One group on the grid, summed over strata.

    Attributes:
        entered: records, shape (num_steps,); without late entries all at index 0.
        left: records by cause (0: censored), shape (num_causes + 1, num_steps).
        weight_left: sums of weights, as `left`.
        weight_at_risk: likewise at risk, shape (num_steps,).
        weight_entered: that entered at each index; 0 without late entries.
        has_entries: whether some entered late.
        squares: sums of squared weights of events and of censored, shape (2, num_steps), for robust variances.
    """

    entered: Counts
    left: Counts
    weight_left: Values
    weight_at_risk: Values
    weight_entered: Values
    has_entries: bool
    squares: Values | None

    @classmethod
    def of(cls, counts: SurvivalCounts, group: int) -> GroupTable:
        """A group of the table over all sites."""
        left = counts.left[:, group].sum(axis=1)
        weight_left = counts.weight_left[:, group].sum(axis=1)
        entered, weight_entered = counts.entered[group].sum(axis=0), counts.weight_entered[group].sum(axis=0)
        at_risk = num_at_risk(weight_entered, weight_left.sum(axis=0))
        at_risk[num_at_risk(entered, left.sum(axis=0)) == 0] = 0.0
        num_steps, has_entries = left.shape[-1], len(entered) > 1
        if not has_entries:
            entered = np.concatenate([entered, np.zeros(num_steps - 1, np.int64)])
            weight_entered = np.zeros(num_steps)
        return cls(
            entered=entered,
            left=left,
            weight_left=weight_left,
            weight_at_risk=at_risk,
            weight_entered=weight_entered,
            has_entries=has_entries,
            squares=_squares(counts.square_left, group, has_entries),
        )

    @property
    def num_records(self) -> int:
        """How many records the group has."""
        return int(self.left.sum())

    @property
    def last(self) -> int:
        """Index at which the last one left."""
        return int(np.flatnonzero(self.left.any(axis=0)).max(initial=0))

    def partition(self, ticks: Counts, minimum_cell: int) -> Shown:
        """What of the group may be shown."""
        return shown_partition(self.entered if self.has_entries else None, self.left, ticks, minimum_cell)

    def at_risk_since(self, places: Counts) -> Counts:
        """Under observation at the beginning of each interval that ends at a place, with those who entered in it."""
        gone = np.cumsum(self.left.sum(axis=0))[places]
        gone_before = np.concatenate([np.zeros(1, np.int64), gone])[: len(places)]
        return np.asarray(np.cumsum(self.entered)[places] - gone_before, np.int64)


def _squares(square_left: Values | None, group: int, has_entries: bool) -> Values | None:
    # With late entries the influences would need another ask: each record's own entry counts.
    if square_left is None or has_entries:
        return None
    summed = square_left[:, group].sum(axis=1)
    return np.vstack([summed[1:].sum(axis=0), summed[0]])


def curve_of(table: GroupTable, name: str, options: CurveOptions) -> SurvivalCurve:
    """The curve of one group, as far as the rules allow it to be shown."""
    ticks = floor_index(options.ticks, options.step, table.left.shape[1])
    shown = table.partition(ticks, options.rules.minimum_cell)
    estimate = Estimate.of(table.weight_left[1:].sum(axis=0), table.weight_at_risk, options.step, table.squares)
    is_hidden = not len(shown.places)
    places = with_leavers(shown.places, table.left.sum(axis=0))
    error = estimate.standard_error
    low, high = interval(estimate.survival, error, options.confidence_type, options.confidence)
    ends, rules = np.cumsum(table.left, axis=1), options.rules
    between = np.diff(ends[:, places], axis=1, prepend=0)
    return SurvivalCurve(
        group=name,
        num_records=rules.shown(table.num_records),
        num_events=None if is_hidden else rules.shown(int(table.left[1:].sum())),
        num_censored=None if is_hidden else rules.shown(int(table.left[0].sum())),
        times=places.astype(np.float64) * options.step,
        num_at_risk=shown_counts(table.at_risk_since(places), rules),
        num_events_since=shown_counts(between[1:].sum(axis=0), rules),
        num_censored_since=shown_counts(between[0], rules),
        survival=estimate.survival[places],
        standard_error=error[places],
        low=low[places],
        high=high[places],
        cumulative_hazard=estimate.cumulative_hazard[places],
        cumulative_hazard_error=np.sqrt(estimate.cumulative_hazard_variance[places]),
        quantiles=() if is_hidden else _quantiles(estimate, (low, high), table, options),
        restricted_mean=None if is_hidden else _mean(estimate, table, options),
        at_times=_at_times(table, estimate.survival, (low, high), shown, ticks, options),
        grid_error=0.0 if is_hidden or options.is_on_grid else _grid_error(table, places),
    )


def _mean(estimate: Estimate, table: GroupTable, options: CurveOptions) -> RestrictedMean | None:
    if options.horizon is None:
        return None
    # With a single event, the mean up to a horizon would tell when it was.
    until = floor_index((options.horizon,), options.step, table.left.shape[1])[0]
    if options.rules.is_small(int(table.left[1:, : until + 1].sum())):
        return None
    return restricted_mean(estimate, table.last, options.horizon, options.confidence)


def _grid_error(table: GroupTable, places: Counts) -> float:
    """The largest of the bounds at the shown times."""
    bounds = grid_error(
        table.weight_left[1:].sum(axis=0), table.weight_left[0], table.weight_entered, table.weight_at_risk
    )
    return rounded_up(float(bounds[places].max(initial=0.0)))


def rounded_up(bound: float) -> float:
    """A bound of a probability, rounded up to two digits: enough to judge it by, too little to count by."""
    if bound == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(bound)) - 1)
    return min(1.0, float(f"{math.ceil(bound / unit) * unit:.3g}"))


def _quantiles(
    estimate: Estimate, limits: tuple[Values, Values], table: GroupTable, options: CurveOptions
) -> tuple[SurvivalQuantile, ...]:
    """Quantiles between which, and before which, none or enough had the event: else they would list event times."""
    is_event, events = estimate.events > 0, np.cumsum(table.left[1:].sum(axis=0))
    told = {0}
    found: dict[float, SurvivalQuantile] = {}
    for p in sorted(set(options.probabilities), key=lambda p: abs(p - 0.5)):  # the median before all others
        time, low, high = (
            crossing(curve, 1 - p, estimate.step, is_event, table.last) for curve in (estimate.survival, *limits)
        )
        if time is not None:
            num_events = int(events[floor_index((time,), estimate.step, len(events))[0]])
            if any(options.rules.is_small(abs(num_events - other)) for other in told):
                continue
            told.add(num_events)
        found[p] = SurvivalQuantile(probability=p, time=time, low=low, high=high)
    return tuple(found[p] for p in options.probabilities if p in found)


def _at_times(
    table: GroupTable,
    survival: Values,
    limits: tuple[Values, Values],
    shown: Shown,
    ticks: Counts,
    options: CurveOptions,
) -> tuple[AtTime, ...]:
    """The group at each tick; None where a number would give small counts back."""
    rows = []
    rules, entered, left = options.rules, np.cumsum(table.entered), np.cumsum(table.left, axis=1)
    masks = (shown.tick_is_shown.tolist(), shown.risk_is_shown.tolist())
    for time, tick, is_shown, has_risk in zip(options.ticks, ticks.tolist(), *masks, strict=True):
        gone = left[:, tick]
        at_risk = rules.shown(int(entered[tick] - gone.sum())) if has_risk else None
        is_after = tick > table.last and survival[tick] > 0
        values = [None if is_after or not is_shown else float(curve[tick]) for curve in (survival, *limits)]
        low, high = (None if value is None or math.isnan(value) else value for value in values[1:])
        events, censored = (rules.shown(int(n)) if is_shown else None for n in (gone[1:].sum(), gone[0]))
        rows.append(
            AtTime(
                time=time,
                num_at_risk=at_risk,
                num_events=events,
                num_censored=censored,
                survival=values[0],
                low=low,
                high=high,
            )
        )
    return tuple(rows)


def mean_differences(curves: tuple[SurvivalCurve, ...], confidence: float) -> tuple[MeanDifference, ...]:
    """Restricted means of the other groups less that of the first which has one; z intervals, z tests."""
    with_mean = [curve for curve in curves if curve.restricted_mean is not None]
    differences = []
    for curve in with_mean[1:]:
        first, mean = with_mean[0].restricted_mean, curve.restricted_mean
        assert first is not None
        assert mean is not None
        estimate = mean.estimate - first.estimate
        error = math.hypot(mean.standard_error, first.standard_error)
        reach = two_sided_quantile(confidence, None) * error
        differences.append(
            MeanDifference(
                group=curve.group,
                reference=with_mean[0].group,
                estimate=estimate,
                standard_error=error,
                low=estimate - reach,
                high=estimate + reach,
                p_value=two_sided_p(estimate / error, None) if error > 0 else math.nan,
            )
        )
    return tuple(differences)
