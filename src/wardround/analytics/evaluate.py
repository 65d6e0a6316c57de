"""A model scored at the sites: discrimination, calibration and clinical use, from sums alone.

Counts and moments give Brier score, log loss and the ratio of observed to expected events exactly. Newton steps
on sums give the calibration's intercept and slope exactly. A histogram of the scores, whose bins are placed
where they matter, gives AUROC and average precision with the farthest that the exact figure may lie away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from wardround.analytics.calibration import Binned, Fit, LogisticFit, fit_all, group_ends, knots_of
from wardround.analytics.design import Design, Feature, Frame, Level, Numeric
from wardround.analytics.discrimination import auroc, next_edges
from wardround.analytics.evaluate_sums import (
    MAX_BINS,
    MAX_GROUPS,
    Basis,
    Groups,
    Histogram,
    Moments,
    histogram,
    moments,
    predicted,
    recalibration,
    ties,
)
from wardround.analytics.evaluation import Evaluation
from wardround.analytics.evaluation_summing import Found, bin_middles, shown_cuts, summed_up
from wardround.analytics.expression import is_plain, parse_expression
from wardround.analytics.formula import plan_expression
from wardround.analytics.grouping import named_levels
from wardround.analytics.lone_records import NEAR, refuse_lone_records
from wardround.analytics.preparation_sums import column_sums
from wardround.analytics.scoring import check_inputs, from_line, to_line
from wardround.analytics.scoring_model import (
    FittedModel,
    LinearModel,
    ModelFile,
    OnnxModel,
    Scale,
    check_model,
    frame_of,
    variables_of,
)
from wardround.analytics.scoring_onnx import check_graph
from wardround.analytics.scoring_option import ModelOption
from wardround.analytics.steady_sites import with_steady_sites
from wardround.data.contract import Contract, Setting
from wardround.errors import ConfigError, DataError, DisclosureError
from wardround.sums import Steps, ask, workflow

Values = NDArray[np.float64]

DEFAULT_BINS = 2_000
"""Bins of the scores, where there are enough records to fill them."""
GOOD_SLACK = 5e-4
"""Half the width of the AUROC's limits at which no better bins are looked for."""
MAX_HISTOGRAMS = 6
"""Histograms that are asked for at most."""


@workflow("evaluate", version=1)
def evaluate(
    setting: Setting,
    model: ModelOption,
    outcome: str,
    by: str | tuple[str, ...] = (),
    by_site: bool = False,
    thresholds: tuple[float, ...] = (),
    num_bins: int = DEFAULT_BINS,
    num_groups: int = 10,
    confidence: float = 0.95,
) -> Steps[Evaluation]:
    """A model's predictions held against what happened, at all sites together.

    Args:
        setting: contract, sites and disclosure rules.
        model: coefficients or an ONNX graph, or the name of its file.
        outcome: a boolean, a category of two levels (the second is the event), a variable of 0 and 1, or a
            comparison (`stay > 7`).
        by: variables whose levels are subgroups.
        by_site: whether each site is a group of its own, where the disclosure rules allow it.
        thresholds: of the score, at or above which somebody would act.
        num_bins: most bins of the scores; there are never so many that they hold, on average, fewer records than
            the least count that may be shown.
        num_groups: groups of the calibration figure.
        confidence: of the intervals, in [0.5, 1).

    Raises:
        ConfigError: an option or the model is wrong, before anything is asked.
        DataError: predictions outside [0, 1] or not finite, an outcome other than 0 and 1, or of one class only.

    Guarantees:
        moments_equal_pooled: Brier score, log loss, and intercept and slope of the calibration are those of the
            pooled records.
        evaluation_is_within_its_limits: AUROC and average precision of the pooled records lie within the stated limits.
    """
    plan = _planned(setting, model, outcome, by, by_site)
    options = _Options(thresholds=_checked_thresholds(thresholds, plan.scale), num_bins=num_bins, num_groups=num_groups)
    if not 10 <= num_bins < MAX_BINS - 1_000:
        raise ConfigError(f"num_bins: must be in [10, {MAX_BINS - 1_001}], got {num_bins}")
    if not 2 <= num_groups <= 100:
        raise ConfigError(f"num_groups: must be in [2, 100], got {num_groups}")
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"confidence: must be in [0.5, 1), got {confidence}")
    return (yield from with_steady_sites(lambda: _attempt(setting, plan, options, confidence), len(setting.sites)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """What is shown of the scores."""

    thresholds: tuple[float, ...]
    num_bins: int
    num_groups: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What every ask has in common."""

    model: LinearModel | OnnxModel
    frame: Frame
    groups: Groups
    labels: tuple[tuple[str, str], ...]
    scale: Scale
    outcome: str


def _planned(setting: Setting, model: ModelOption, outcome: str, by: str | tuple[str, ...], by_site: bool) -> _Plan:
    contract = setting.contract
    if isinstance(model, ModelFile):
        raise ConfigError(f"model: {model.file!r} has not been read; from Python, give wr.load_model({model.file!r})")
    if isinstance(model, FittedModel):
        raise ConfigError("model: only a study has analyses with numbers; from Python, give the fit itself")
    assert isinstance(model, LinearModel | OnnxModel)  # as validated
    check_model(model, contract)
    if isinstance(model, OnnxModel):
        check_inputs(model, {port.name: port for port in check_graph(model.file).inputs})
    feature, name, variables = _outcome(outcome, contract)
    leaked = sorted(set(variables) & set(variables_of(model)))
    if leaked:
        raise ConfigError(f"outcome: the model itself reads {leaked[0]!r}; a prediction may not know the outcome")
    by = (by,) if isinstance(by, str) else by
    if set(by) & set(variables):
        raise ConfigError("by: groups by the outcome have one class each; name another variable")
    groups, labels = _groups(setting, by, by_site)
    return _Plan(
        model=model,
        frame=frame_of(model, feature, variables),
        groups=groups,
        labels=labels,
        scale=model.scale,
        outcome=name,
    )


def _outcome(text: str, contract: Contract) -> tuple[Feature, str, tuple[str, ...]]:
    """The outcome as a number, in words, and the variables it is made of."""
    if text not in contract.names:
        expression = parse_expression(plan_expression(text, contract, "outcome"), "outcome")
        if not expression.variables:
            raise ConfigError("outcome: name a variable, or a comparison such as 'stay > 7'")
        return Numeric(expression=expression.text), text, expression.variables
    variable = contract.variable(text, "outcome")
    levels = variable.category_levels
    if levels is None and not variable.is_numeric:
        raise ConfigError(f"outcome: {text!r} is {variable.type}, which is not analysed")
    if levels is None:
        return Numeric(expression=text if is_plain(text) else f"`{text}`"), text, (text,)
    if len(levels) != 2:
        raise ConfigError(f"outcome: {text!r} has {len(levels)} levels; name a variable of two")
    return Level(variable=text, level=levels[1]), f"{text} = {levels[1]}", (text,)


def _groups(setting: Setting, by: tuple[str, ...], by_site: bool) -> tuple[Groups, tuple[tuple[str, str], ...]]:
    if by_site and not setting.disclosure.allows_site_results:
        raise ConfigError(
            f"by_site: the disclosure rules ({setting.disclosure.preset}, allows_site_results = false) allow no "
            "result that is one site's alone; leave it out"
        )
    if len(set(by)) < len(by):
        raise ConfigError("by: a variable is named twice")
    levels = [named_levels(setting.contract, name, "by") for name in by]
    labels = [(name, level) for name, found in zip(by, levels, strict=True) for level in found]
    labels += [("site", site) for site in setting.sites] if by_site else []
    if len(labels) >= MAX_GROUPS:
        raise ConfigError(f"by: {len(labels)} groups; an evaluation has at most {MAX_GROUPS - 1}")
    groups = Groups(
        variables=by, num_levels=tuple(len(found) for found in levels), sites=setting.sites if by_site else ()
    )
    return groups, tuple(labels)


def _checked_thresholds(thresholds: tuple[float, ...], scale: Scale) -> tuple[float, ...]:
    is_fine = [np.isfinite(t) and (scale == "score" or 0 < t < 1) for t in thresholds]
    if not all(is_fine) or len(thresholds) > 100:
        allowed = "in (0, 1)" if scale == "probability" else "finite"
        raise ConfigError(f"thresholds: at most 100 numbers, each {allowed}; got {list(thresholds)[:10]}")
    return tuple(sorted({float(t) for t in thresholds}))


def _attempt(setting: Setting, plan: _Plan, options: _Options, confidence: float) -> Steps[Evaluation]:
    """Everything, over one set of sites."""
    floor = setting.disclosure.minimum_cell
    first = yield from ask(moments, plan.model, plan.frame, plan.groups, plan.scale)
    counted = first.sum
    _check_usable(counted, plan, floor)
    yield from _refuse_lone_columns(plan, int(counted.num_events[0] + counted.num_others[0]), floor)
    edges, counts, is_tied = yield from _histogram(plan, options, counted, floor)
    _refuse_lone_scores(edges, counts, plan.scale, floor)
    grid = _grid(plan.scale, len(edges))
    cuts = shown_cuts(edges, counts, options.thresholds, grid, floor)
    ends = group_ends(counts.num_events[0] + counts.num_others[0], cuts, options.num_groups)
    sums = np.zeros(len(ends) + 1)
    if plan.scale == "probability":
        sums = (yield from ask(predicted, plan.model, plan.frame, edges[[end - 1 for end in ends]])).sum.predicted
    basis, fits = yield from _recalibrated(plan, counted, edges, counts)
    return summed_up(
        Found(
            model=plan.model,
            outcome=plan.outcome,
            scale=plan.scale,
            labels=plan.labels,
            required=plan.frame.required,
            moments=counted,
            edges=edges,
            histogram=counts,
            is_tied=is_tied,
            cuts=cuts,
            ends=ends,
            predicted=sums,
            basis=basis,
            fits=fits,
            thresholds=options.thresholds,
            grid=grid,
            rules=setting.disclosure,
            confidence=confidence,
            sites=first.sites,
        )
    )


def _check_usable(counted: Moments, plan: _Plan, minimum_cell: int) -> None:
    """Raise `DataError` where nothing sensible can be said; says what to do, and no small count."""
    if counted.num_not_binary:
        raise DataError(f"the outcome {plan.outcome!r} must be 0 or 1; in some records it is not. Compare: 'x > 7'")
    if counted.num_not_finite:
        raise DataError("the model's prediction is no finite number in some records; check its coefficients and inputs")
    if counted.num_outside:
        raise DataError(
            "the model predicts values outside [0, 1] in some records, so no probabilities; for coefficients give "
            "link = 'logit' if they are of a logistic model, for ONNX choose the output with the probabilities, or "
            "scale = 'score' for the AUROC alone"
        )
    num_events, num_others = int(counted.num_events[0]), int(counted.num_others[0])
    if num_events + num_others == 0:
        empty = [name for name, n in zip(plan.frame.required, counted.num_missing, strict=True) if n]
        culprit = f": missing values in {', '.join(empty)}" if empty else ""
        raise DataError(f"no record has the outcome and everything that the model reads{culprit}")
    if min(num_events, num_others) == 0:
        which = "no record" if num_events == 0 else "every record"
        raise DataError(f"{which} has the event {plan.outcome!r}; with one class there is nothing to evaluate")
    if min(num_events, num_others) < minimum_cell:
        raise DisclosureError(
            "minimum_cell",
            f"fewer than {minimum_cell} records are {'events' if num_events < num_others else 'without the event'}; "
            "widen the cohort, or choose an outcome that is less rare",
        )


def _refuse_lone_columns(plan: _Plan, num_records: int, minimum_cell: int) -> Steps[None]:
    """Raise `DisclosureError` where arithmetic in a model has one value for all but few records."""
    columns = tuple(column for column in plan.model.all_columns if any(map(_is_arithmetic, column.features)))
    if not columns or minimum_cell <= 1:
        return
    raw = Design(columns=columns, center=np.zeros(len(columns)), scale=np.ones(len(columns)))
    first = (yield from ask(column_sums, raw, plan.frame, 0.0)).sum
    center, mean = first.sums / num_records, first.outcome / first.weight
    centered, middles = replace(raw, center=center), np.append(np.zeros(len(columns)), mean)
    second = (yield from ask(column_sums, centered, plan.frame, mean, tuple(middles.tolist()))).sum
    yield from refuse_lone_records(centered, plan.frame, plan.outcome, second, middles, minimum_cell)


def _is_arithmetic(feature: Feature) -> bool:
    if not isinstance(feature, Numeric):
        return False
    (name, *others) = parse_expression(feature.expression).variables or ("",)
    return bool(others) or feature.expression not in (name, f"`{name}`")


def _refuse_lone_scores(edges: Values, counts: Histogram, scale: Scale, minimum_cell: int) -> None:
    """Raise `DisclosureError` where a model tells few records from all others, which it gives (nearly) one score.

    `I(age == 87.1)` as a model is 1 for one patient, and its figures are that patient's outcome.
    """
    size = counts.num_events[0] + counts.num_others[0]
    line = to_line(edges, scale)
    reach = max(float(line[-1] - line[0]), 1.0)
    low, high = np.concatenate([[line[0] - reach], line]), np.concatenate([line, [line[-1] + reach]])
    for direction in (1, -1):
        filled = np.flatnonzero(size)[::direction]
        starts, stops = (low, high) if direction == 1 else (-high, -low)
        num_apart = int(np.searchsorted(np.cumsum(size[filled]), minimum_cell, side="left"))
        for end in range(min(num_apart, len(filled) - 1)):
            rest = filled[end + 1 :]
            distance = starts[rest].min() - stops[filled[end]]
            if distance > 0 and stops[rest].max() - starts[rest].min() <= NEAR * distance:
                raise DisclosureError(
                    "minimum_cell",
                    f"the model tells fewer than {minimum_cell} records from all others, which have nearly one score; "
                    "its figures would be those of few patients",
                )


def _grid(scale: Scale, num_bins: int) -> tuple[float, ...]:
    """Thresholds of the decision curve; few where there are few bins."""
    if scale == "score":
        return ()
    step = next((s for s in (1, 2, 5) if 100 / s <= num_bins / 2), 10)
    return tuple(percent / 100 for percent in range(step, 100, step))


@dataclass(frozen=True, slots=True)
class _Bins:
    """A histogram with its bins, and by how much the AUROC may be off because of them."""

    edges: Values
    counts: Histogram
    is_tied: NDArray[np.bool_]
    slack: float


def _histogram(
    plan: _Plan, options: _Options, counted: Moments, minimum_cell: int
) -> Steps[tuple[Values, Histogram, NDArray[np.bool_]]]:
    """Bins that tell events from others well: first by a normal distribution, then where they did not."""
    num_records = int(counted.num_events[0] + counted.num_others[0])
    num_bins = max(10, min(options.num_bins, num_records // minimum_cell))
    mean = counted.line_sum / num_records
    spread = np.sqrt(max(counted.line_square / num_records - mean * mean, 1e-12 * (1 + mean * mean)))
    line = mean + spread * special.ndtri(np.arange(1, num_bins) / num_bins)
    # Nobody is farther from the mean than sqrt(num_records) spreads; outliers are found to a factor of two.
    far = spread * 2.0 ** np.arange(2, np.ceil(np.log2(num_records) / 2) + 1)
    fixed = np.union1d([*options.thresholds, *_grid(plan.scale, num_bins)], from_line(mean + far, plan.scale))
    fixed = np.union1d(fixed, from_line(mean - far, plan.scale))
    best: _Bins | None = None
    for _ in range(MAX_HISTOGRAMS):
        edges = _distinct(np.union1d(from_line(line, plan.scale), fixed), plan.scale)
        found = yield from _counted(plan, edges, minimum_cell)
        is_better = best is None or found.slack < 0.8 * best.slack
        if best is None or found.slack < best.slack:
            best = found
        events, others = found.counts.num_events[0], found.counts.num_others[0]
        # Scores that lie close together far from 0 need several steps until the first of them shows.
        is_crowded = bool((np.where(found.is_tied, 0, events + others) > 0.2 * num_records).any())
        if found.slack <= GOOD_SLACK or not (is_better or is_crowded):
            break
        line = next_edges(to_line(edges, plan.scale), events, others, found.is_tied, num_bins, minimum_cell)
    assert best is not None  # the loop ran
    return best.edges, best.counts, best.is_tied


def _counted(plan: _Plan, edges: Values, minimum_cell: int) -> Steps[_Bins]:
    """A histogram; where its bins are not good enough, it is asked which of them hold one score only."""
    counts = (yield from ask(histogram, plan.model, plan.frame, plan.groups, plan.scale, edges)).sum
    events, others = counts.num_events[0], counts.num_others[0]
    size = events + others
    is_tied = np.asarray(size <= 1, np.bool_)
    slack = auroc(events, others, is_tied, 0.95).bound or 0.0
    wide = np.flatnonzero((events > 0) & (others > 0) & (size >= minimum_cell))
    if slack > GOOD_SLACK and len(wide):
        found = (yield from ask(ties, plan.model, plan.frame, plan.scale, edges, tuple(wide.tolist()))).sum
        is_tied[wide] = size[wide] * found.step_square == found.step_sum**2
        slack = auroc(events, others, is_tied, 0.95).bound or 0.0
    return _Bins(edges, counts, is_tied, slack)


def _distinct(edges: Values, scale: Scale) -> Values:
    """Edges that are numbers of their own and, of probabilities, within (0, 1)."""
    inside = edges[(edges > 0) & (edges < 1)] if scale == "probability" else edges
    return np.unique(inside)


def _recalibrated(
    plan: _Plan, counted: Moments, edges: Values, counts: Histogram
) -> Steps[tuple[Basis, dict[tuple[int, Literal["large", "line", "smooth"]], LogisticFit | None]]]:
    """Intercept, slope, and (for everybody) the smooth curve of the calibration."""
    num_records = int(counted.num_events[0] + counted.num_others[0])
    mean = counted.line_sum / num_records
    variance = counted.line_square / num_records - mean * mean
    is_constant = variance <= 1e-14 * (1 + mean * mean)
    basis = Basis(center=mean, spread=1.0 if is_constant else float(np.sqrt(variance)))
    if plan.scale == "score":
        return basis, {}
    if not is_constant:
        basis = replace(basis, knots=_knots(edges, counts, basis))
    wanted: dict[tuple[int, Literal["large", "line", "smooth"]], Fit] = {}
    for group in range(plan.groups.num_groups):
        if counted.num_events[group] and counted.num_others[group]:
            wanted[group, "large"] = Fit(group, 1)
            if not is_constant:
                wanted[group, "line"] = Fit(group, 2)
    if basis.knots:
        wanted[0, "smooth"] = Fit(0, basis.num_columns)
    binned = Binned(to_line(bin_middles(edges), "probability"), counts.num_events, counts.num_others)
    found = yield from fit_all(plan.model, plan.frame, plan.groups, basis, tuple(wanted.values()), binned)
    return basis, dict(zip(wanted, found, strict=True))


def _knots(edges: Values, counts: Histogram, basis: Basis) -> tuple[float, ...]:
    size = counts.num_events[0] + counts.num_others[0]
    filled = size > 0
    places = to_line(bin_middles(edges)[filled], "probability")
    knots = knots_of((places - basis.center) / basis.spread, size[filled])
    return knots if int(counts.num_events[0].sum()) >= 10 * len(knots) else ()


__all__ = ["evaluate", "histogram", "moments", "predicted", "recalibration", "ties"]
