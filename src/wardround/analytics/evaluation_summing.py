"""From the sums of an evaluation to its result; all of it is arithmetic on totals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.calibration import (
    CalibrationGroup,
    LogisticFit,
    SmoothCalibration,
    brier_parts,
    calibration_groups,
    hosmer_lemeshow,
    intercept_of,
    likelihood_ratio_p,
    line_of,
    normal,
    observed_over_expected,
    smooth_curve,
    spiegelhalter,
)
from wardround.analytics.decision_curve import ThresholdResult, at_threshold, safe_cuts, spread_out
from wardround.analytics.discrimination import Estimate, auroc, average_precision
from wardround.analytics.evaluate_sums import MOMENTS, Basis, Histogram, Moments
from wardround.analytics.evaluation import Evaluation, GroupPerformance, Performance, ScoreCurve
from wardround.analytics.evaluation_groups import differences_of, equality_tests_of, hidden_groups
from wardround.analytics.scoring_model import LinearModel, OnnxModel, Scale
from wardround.privacy.disclosure import DisclosureRules, round_count, shown_count

Values = NDArray[np.float64]
Counts = NDArray[np.int64]

MAX_CUTS = 200
"""Most points of the curves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """All that an evaluation asked for.

    Attributes:
        model: that was scored.
        outcome: in words.
        scale: of the scores.
        labels: variable and level of each group but everybody.
        required: variables that must be present.
        moments: counts and moments.
        edges: inner edges of the bins.
        histogram: counts by bin.
        is_tied: bins whose scores are all equal.
        cuts: cuts of the scores that may be shown, increasing; cut i lies below bin i.
        ends: of them, those between the groups of the calibration figure.
        predicted: sum of the predictions by such group.
        basis: of the recalibrations.
        fits: by group and kind; None where there is none.
        thresholds: that were asked for.
        grid: thresholds of the decision curve.
        rules: of disclosure.
        confidence: of the intervals.
        sites: in the sums.
    """

    model: LinearModel | OnnxModel
    outcome: str
    scale: Scale
    labels: tuple[tuple[str, str], ...]
    required: tuple[str, ...]
    moments: Moments
    edges: Values
    histogram: Histogram
    is_tied: NDArray[np.bool_]
    cuts: list[int]
    ends: tuple[int, ...]
    predicted: Values
    basis: Basis
    fits: Any
    thresholds: tuple[float, ...]
    grid: tuple[float, ...]
    rules: DisclosureRules
    confidence: float
    sites: tuple[str, ...]

    @property
    def events(self) -> Counts:
        """Of everybody, by bin."""
        events: Counts = self.histogram.num_events[0]
        return events

    @property
    def others(self) -> Counts:
        """Of everybody, by bin."""
        others: Counts = self.histogram.num_others[0]
        return others

    def fit(self, group: int, kind: str) -> LogisticFit | None:
        """A recalibration; None where there is none."""
        fit: LogisticFit | None = self.fits.get((group, kind))
        return fit


def summed_up(found: Found) -> Evaluation:
    """The result of an evaluation."""
    overall = _performance(found, 0)
    groups = _group_performances(found)
    shown = _calibration_groups(found)
    num_records, num_left_out, num_missing = _left_out(found)
    return Evaluation(
        model_name=found.model.name,
        model_kind=found.model.kind,
        model_digest=found.model.digest,
        outcome=found.outcome,
        scale=found.scale,
        overall=overall,
        groups=groups,
        differences=differences_of(groups, found.confidence),
        equality_tests=equality_tests_of(groups),
        curve=_curve(found),
        thresholds=_thresholds(found),
        chosen=tuple(t for t in found.thresholds if t in {float(found.edges[cut - 1]) for cut in found.cuts}),
        calibration_groups=_rounded(shown, found.rules),
        smooth=_smooth(found),
        brier_parts=brier_parts(shown, overall.brier.value) if shown and overall.brier.value is not None else {},
        hosmer_lemeshow=hosmer_lemeshow(shown, is_apparent=_is_apparent(found)),
        num_records=num_records,
        num_left_out=num_left_out,
        num_missing=num_missing,
        num_bins=len(found.edges) + 1,
        minimum_cell=found.rules.minimum_cell,
        confidence=found.confidence,
        sites=found.sites,
        notes=tuple(_notes(found, overall, groups)),
    )


def _performance(found: Found, group: int) -> Performance:
    events, others = found.histogram.num_events[group], found.histogram.num_others[group]
    num_events, num_records = int(events.sum()), int(events.sum() + others.sum())
    known: dict[str, Any] = {}
    if found.scale == "probability":
        known = _probability_figures(found, group, num_events, num_records)
    return Performance(
        num_records=round_count(num_records, found.rules.rounding),
        num_events=round_count(num_events, found.rules.rounding),
        observed_risk=num_events / num_records,
        mean_predicted=known.pop("mean_predicted", None),
        auroc=auroc(events, others, found.is_tied, found.confidence),
        average_precision=average_precision(events, others, found.is_tied, found.confidence),
        **known,
    )


def _probability_figures(found: Found, group: int, num_events: int, n: int) -> dict[str, Any]:
    sums = dict(zip(MOMENTS, found.moments.sums[group].tolist(), strict=True))
    c, risk = found.confidence, num_events / n
    intercept, slope = line_of(found.fit(group, "line"), found.basis, c)
    z, p = spiegelhalter(sums["unexpected"], sums["expected_variance"])
    brier = _mean(sums["brier"], sums["brier_square"], n, c)
    return {
        "mean_predicted": sums["predicted"] / n,
        "brier": brier,
        "scaled_brier": 1 - sums["brier"] / n / (risk * (1 - risk)) if 0 < risk < 1 else None,
        "log_loss": _mean(sums["log_loss"], sums["log_loss_square"], n, c),
        "observed_over_expected": observed_over_expected(num_events, n, sums["predicted"], c),
        "calibration_in_the_large": intercept_of(found.fit(group, "large"), found.basis, c),
        "calibration_intercept": intercept,
        "calibration_slope": slope,
        "calibration_p": likelihood_ratio_p(found.fit(group, "line"), sums["log_loss"]),
        "spiegelhalter_z": z,
        "spiegelhalter_p": p,
    }


def _mean(total: float, square: float, n: int, confidence: float) -> Estimate:
    mean = total / n
    return normal(mean, float(np.sqrt(max(square / n - mean * mean, 0.0) / n)), confidence)


def _group_performances(found: Found) -> tuple[GroupPerformance, ...]:
    cells = np.column_stack([found.moments.num_events, found.moments.num_others])
    variables = [variable for variable, _ in found.labels]
    made = []
    for variable in dict.fromkeys(variables):
        index = [i + 1 for i, name in enumerate(variables) if name == variable]
        hidden = hidden_groups(cells[index], cells[0], found.rules.minimum_cell)
        for group, is_hidden in zip(index, hidden.tolist(), strict=True):
            is_empty = not cells[group].any()
            made.append(
                GroupPerformance(
                    variable=variable,
                    level=found.labels[group - 1][1],
                    performance=None if is_hidden or is_empty else _performance(found, group),
                )
            )
    return tuple(made)


def shown_cuts(
    edges: Values, counts: Histogram, thresholds: tuple[float, ...], grid: tuple[float, ...], minimum_cell: int
) -> list[int]:
    """Cuts of the scores that may be shown: thresholds first, then spread evenly over the records."""
    events, others = counts.num_events[0], counts.num_others[0]
    place = {value: index + 1 for index, value in enumerate(edges.tolist())}
    wanted = [place[t] for t in (*thresholds, *grid) if t in place]
    below = np.concatenate([[0], np.cumsum(events + others)])
    evenly = (below[-1] * np.array(spread_out(4 * MAX_CUTS)) / (4 * MAX_CUTS)).astype(np.int64)
    wanted += np.searchsorted(below, evenly).tolist()
    inside = [cut for cut in dict.fromkeys(wanted) if 1 <= cut <= len(edges)]
    return safe_cuts(events, others, inside, minimum_cell, MAX_CUTS + len(thresholds) + len(grid))


def _curve(found: Found) -> ScoreCurve:
    cuts = found.cuts
    events = np.add.reduceat(found.events, [0, *cuts]).astype(np.float64)
    others = np.add.reduceat(found.others, [0, *cuts]).astype(np.float64)
    above_events, above_others = events.sum() - np.cumsum(events)[:-1], others.sum() - np.cumsum(others)[:-1]
    above = above_events + above_others
    return ScoreCurve(
        cuts=found.edges[[cut - 1 for cut in cuts]],
        sensitivity=above_events / events.sum(),
        false_positive_rate=above_others / others.sum(),
        precision=np.divide(above_events, above, out=np.full(len(above), np.nan), where=above > 0),
        events_between=events / events.sum(),
        others_between=others / others.sum(),
    )


def _thresholds(found: Found) -> tuple[ThresholdResult, ...]:
    wanted = {*found.thresholds, *found.grid}
    made = []
    for cut in found.cuts:
        value = float(found.edges[cut - 1])
        if value in wanted:
            above = int(found.events[cut:].sum()), int(found.others[cut:].sum())
            below = int(found.events[:cut].sum()), int(found.others[:cut].sum())
            is_probability = found.scale == "probability"
            made.append(at_threshold(value, above, below, found.confidence, is_probability=is_probability))
    return tuple(made)


def _calibration_groups(found: Found) -> tuple[CalibrationGroup, ...]:
    if found.scale == "score":
        return ()
    return calibration_groups(found.ends, found.edges, (found.events, found.others), found.predicted, found.confidence)


def _rounded(groups: tuple[CalibrationGroup, ...], rules: DisclosureRules) -> tuple[CalibrationGroup, ...]:
    return tuple(
        replace(
            group,
            num_records=round_count(group.num_records, rules.rounding),
            num_events=round_count(group.num_events, rules.rounding),
        )
        for group in groups
    )


def _smooth(found: Found) -> SmoothCalibration | None:
    fit = found.fit(0, "smooth")
    size = found.events + found.others
    below = np.concatenate([[0], np.cumsum(size)])
    # Beyond the bulk of the predictions a curve is the spline's, not the records'.
    inner = [cut for cut in found.cuts if 0.005 <= below[cut] / below[-1] <= 0.995]
    if fit is None or len(inner) < 2:
        return None
    filled = size > 0
    predictions = bin_middles(found.edges)[filled]
    ends = found.edges[[inner[0] - 1, inner[-1] - 1]]
    return smooth_curve(fit, found.basis, predictions, size[filled], ends, found.confidence)


def bin_middles(edges: Values) -> Values:
    """Middle of each bin of probabilities."""
    ends = np.concatenate([[0.0], edges, [1.0]])
    middles: Values = (ends[1:] + ends[:-1]) / 2
    return middles


def _left_out(found: Found) -> tuple[int | None, int | None, dict[str, int | None]]:
    """Records at the sites, left out, and missing by variable; hidden together where one of them is small."""
    rules = found.rules
    num_records, num_used = found.moments.num_records, int(found.moments.num_events[0] + found.moments.num_others[0])
    missing = {name: int(n) for name, n in zip(found.required, found.moments.num_missing, strict=True) if n}
    left_out = num_records - num_used
    # A sum less the other numbers would narrow a hidden one down.
    is_hidden = rules.is_small(left_out) or any(rules.is_small(n) for n in missing.values())
    shown = {name: rules.shown(n) for name, n in missing.items()}
    return (None, None, shown) if is_hidden else (rules.shown(num_records), rules.shown(left_out), shown)


def _is_apparent(found: Found) -> bool:
    return isinstance(found.model, LinearModel) and found.model.is_apparent


def _notes(found: Found, overall: Performance, groups: tuple[GroupPerformance, ...]) -> Iterable[str]:
    if _is_apparent(found):
        yield (
            "Apparent performance: the model was fitted to these very records, and would do less well in others; "
            "evaluate it where it was not fitted before it is used."
        )
    if found.moments.num_patients < int(found.events.sum() + found.others.sum()):
        yield "Some patients have several records: the intervals take records as independent, and may be too narrow."
    if found.moments.num_extreme:
        yield "Some predictions are 0 or 1, and count as 2e-16 away from it where their logarithm is taken."
    if found.scale == "score":
        yield "The model gives a score, not a probability: calibration, Brier score and net benefit have no meaning."
    elif found.fit(0, "line") is None:
        yield (
            "There is no calibration slope: all predictions are equal, or they tell events from others perfectly, or "
            "the fit did not settle."
        )
    hidden = [group for group in groups if group.performance is None]
    if hidden:
        floor = found.rules.minimum_cell
        why = f" (groups with {shown_count(1, floor)} events or others, and what would give these away)"
        yield (
            f"Hidden, or without records: {', '.join(f'{g.variable} = {g.level}' for g in hidden)}"
            f"{why if floor > 1 else ''}."
        )
    lost = [t for t in found.thresholds if t not in {float(found.edges[cut - 1]) for cut in found.cuts}]
    if lost:
        yield (
            "Thresholds that are not shown, as between them and another one or the end there are too few records: "
            f"{', '.join(f'{t:g}' for t in lost)}."
        )
    if overall.auroc.bound is not None and overall.auroc.bound > 5e-3:
        yield f"With these few records the bins are wide: the exact AUROC may be {overall.auroc.bound:.2g} away."
    if overall.auroc.high is not None and overall.auroc.high < 0.5:
        yield "The AUROC is below a half: the score falls with the risk; is it of the other class or outcome?"
