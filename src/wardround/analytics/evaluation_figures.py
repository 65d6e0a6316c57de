"""An evaluation in a report: tables, and figures of discrimination, calibration and clinical use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from wardround.analytics.discrimination import Estimate
from wardround.analytics.evaluation import Evaluation, Values
from wardround.analytics.evaluation_text import FIGURES, estimate_text, percent, shown_thresholds
from wardround.analytics.journal_text import ABSENT, count_text, fixed_text, p_text, percent_text
from wardround.analytics.result import Exhibit, FigureExhibit, TableExhibit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GREY = "0.45"
_SIZE = (6.5, 4.6)
_MAX_ROWS = 60
_NUM_BARS = 40
_LEAST_SHARE = 0.01
# Part of the records at or above a threshold from which on a decision curve is drawn.


def exhibits_of(result: Evaluation) -> tuple[Exhibit, ...]:
    """Tables and figures in the order in which a report shows them."""
    made: list[Exhibit] = [_performance_table(result)]
    if result.calibration_groups:
        made.append(_calibration_exhibit(result))
    made.append(_roc_exhibit(result))
    made.append(_precision_exhibit(result))
    if len([at for at in result.thresholds if at.net_benefit.value is not None]) > 1:
        made.append(_decision_exhibit(result))
    if shown_thresholds(result):
        made.append(_threshold_table(result))
    if result.groups:
        made.append(_group_table(result))
    if any(group.performance is not None for group in result.groups):
        made.append(_forest_exhibit(result))
    if result.differences:
        made.append(_difference_table(result))
    return tuple(made)


# Tables


def _performance_table(result: Evaluation) -> TableExhibit:
    overall = result.overall
    rows = {
        "Records": count_text(overall.num_records),
        "Events": f"{count_text(overall.num_events)} ({percent(overall.observed_risk)})",
    }
    if overall.mean_predicted is not None:
        rows["Mean prediction"] = percent(overall.mean_predicted)
    for name, words in FIGURES.items():
        value = getattr(overall, name)
        if isinstance(value, float):
            rows[words] = fixed_text(value, 3)
        elif isinstance(value, Estimate) and value.value is not None:
            rows[words] = estimate_text(value)
    if result.smooth is not None:
        s = result.smooth
        rows["ICI; E50; E90"] = "; ".join(fixed_text(value, 4) for value in (s.ici, s.e50, s.e90))
    bound = overall.auroc.bound
    note = f"The exact AUROC is at most {bound:.2g} away from the one shown. " if bound else ""
    return TableExhibit(
        title="Performance of the model",
        frame=pd.DataFrame({f"Estimate ({percent_text(result.confidence)} CI)": rows}),
        note=f"{note}Model: {' '.join(result.model_name.split())}, SHA-256 {result.model_digest}.",
    )


def _threshold_table(result: Evaluation) -> TableExhibit:
    rows = [
        {
            "At or above": f"{at.threshold:g}",
            "Share": percent(at.share_above),
            "Sensitivity": estimate_text(at.sensitivity),
            "Specificity": estimate_text(at.specificity),
            "PPV": estimate_text(at.positive_predictive_value),
            "NPV": estimate_text(at.negative_predictive_value),
            "Net benefit": estimate_text(at.net_benefit),
        }
        for at in shown_thresholds(result)
    ]
    return TableExhibit(title="Acting at a threshold", frame=pd.DataFrame(rows).set_index("At or above"))


def _group_table(result: Evaluation) -> TableExhibit:
    rows = []
    for group in result.groups:
        p = group.performance
        cells = {"Group": f"{group.variable}: {group.level}"}
        cells["Records"] = count_text(None if p is None else p.num_records)
        cells["Events"] = count_text(None if p is None else p.num_events)
        for name in ("auroc", "observed_over_expected", "calibration_slope", "brier"):
            cells[FIGURES[name]] = ABSENT if p is None else estimate_text(getattr(p, name))
        rows.append(cells)
    tests = [f"{FIGURES[t.figure]} by {t.variable}: p = {p_text(t.p_value)}" for t in result.equality_tests]
    note = f"Tests that a figure is the same in all groups shown: {'; '.join(tests)}." if tests else ""
    return TableExhibit(title="Performance by group", frame=pd.DataFrame(rows).set_index("Group"), note=note)


def _difference_table(result: Evaluation) -> TableExhibit:
    rows = [
        {
            "Group": f"{d.variable}: {d.level} less {d.reference}",
            "Figure": FIGURES[d.figure],
            "Difference": estimate_text(d.difference),
            "p": ABSENT if d.p_value is None else p_text(d.p_value),
        }
        for d in result.differences
    ]
    return TableExhibit(
        title="Differences between groups",
        frame=pd.DataFrame(rows).set_index("Group"),
        note="Groups share no records; p-values are not corrected for multiple tests.",
    )


# Figures


def _figure(size: tuple[float, float] = _SIZE) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def _bare(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def overview(result: Evaluation) -> Figure:
    """ROC curve, and calibration (for a score: precision and recall), side by side."""
    figure = _figure((9.0, 4.4))
    left, right = figure.subplots(1, 2)
    _draw_roc(left, result)
    if result.calibration_groups:
        _draw_calibration(right, result)
    else:
        _draw_precision(right, result)
    return figure


def roc_figure(result: Evaluation) -> Figure:
    """The ROC curve."""
    figure = _figure((5.2, 4.8))
    _draw_roc(figure.subplots(), result)
    return figure


def _draw_roc(axes: Any, result: Evaluation) -> None:
    curve = result.curve
    x = np.concatenate([[1.0], curve.false_positive_rate, [0.0]])
    y = np.concatenate([[1.0], curve.sensitivity, [0.0]])
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.plot(x, y, color="C0", linewidth=1.8)
    for at in shown_thresholds(result) if result.chosen else ():
        place = 1 - float(at.specificity.value or 0), float(at.sensitivity.value or 0)
        axes.plot(*place, "o", color="C0", markersize=5)
        axes.annotate(f"{at.threshold:g}", place, xytext=(6, -10), textcoords="offset points", fontsize=9)
    axes.text(0.97, 0.06, f"AUROC {estimate_text(result.overall.auroc)}", ha="right", fontsize=10)
    axes.set(xlabel="1 \N{MINUS SIGN} specificity", ylabel="Sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_aspect("equal")
    _bare(axes)


def _roc_exhibit(result: Evaluation) -> FigureExhibit:
    return FigureExhibit(
        title="Receiver operating characteristic",
        draw=lambda: roc_figure(result),
        description=f"Sensitivity against 1 less specificity. The area under the curve is "
        f"{estimate_text(result.overall.auroc)}; 0.5 is chance, 1 is perfect.",
        note=_cut_note(result),
    )


def _cut_note(result: Evaluation) -> str:
    if result.minimum_cell <= 1:
        return ""
    return f"Between neighbouring points lie no or at least {result.minimum_cell} events and others."


def precision_figure(result: Evaluation) -> Figure:
    """The precision-recall curve."""
    figure = _figure((5.2, 4.4))
    _draw_precision(figure.subplots(), result)
    return figure


def _draw_precision(axes: Any, result: Evaluation) -> None:
    curve, risk = result.curve, result.overall.observed_risk
    x, y = np.concatenate([[1.0], curve.sensitivity]), np.concatenate([[risk], curve.precision])
    kept = np.isfinite(y)
    axes.axhline(risk, color=_GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.text(0.02, risk - 0.01, "by chance", va="top", fontsize=9, color=_GREY)
    axes.plot(x[kept], y[kept], color="C0", linewidth=1.8)
    # Over the axes, as the curve may be anywhere in them.
    axes.set_title(
        f"Average precision {estimate_text(result.overall.average_precision)}", loc="right", fontsize=10, pad=8
    )
    axes.set(xlabel="Sensitivity (recall)", ylabel="Positive predictive value (precision)")
    axes.set(xlim=(-0.01, 1.01), ylim=(0, 1.02))
    _bare(axes)


def _precision_exhibit(result: Evaluation) -> FigureExhibit:
    return FigureExhibit(
        title="Precision and recall",
        draw=lambda: precision_figure(result),
        description="Precision against recall. Average precision is "
        f"{estimate_text(result.overall.average_precision)}; by chance it would be "
        f"{fixed_text(result.overall.observed_risk, 3)}.",
        note=_cut_note(result),
    )


def calibration_figure(result: Evaluation) -> Figure:
    """Observed against predicted risk, with the distribution of the predictions below."""
    figure = _figure((5.4, 6.2))
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (4, 1)})
    _draw_calibration(above, result)
    above.set_xlabel("")
    _draw_predictions(below, result, above.get_xlim())
    return figure


def _draw_calibration(axes: Any, result: Evaluation) -> None:
    limit = _largest_risk(result)
    axes.plot([0, limit], [0, limit], color=_GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    smooth = result.smooth
    if smooth is not None:
        axes.fill_between(smooth.predicted, smooth.low, smooth.high, color="C0", alpha=0.18, linewidth=0)
        axes.plot(smooth.predicted, smooth.observed, color="C0", linewidth=1.8, label="smooth curve")
    groups = result.calibration_groups
    x = np.array([group.predicted for group in groups])
    y = np.array([group.observed.value for group in groups], float)
    low = np.array([group.observed.low for group in groups], float)
    high = np.array([group.observed.high for group in groups], float)
    axes.vlines(x, low, high, color="C1", linewidth=1.2)
    axes.plot(x, y, "s", color="C1", markersize=5, label="groups of about equal size")
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    slope = estimate_text(result.overall.calibration_slope)
    ratio = estimate_text(result.overall.observed_over_expected)
    axes.text(0.98, 0.04, f"Slope {slope}\nObserved / expected {ratio}", ha="right", va="bottom",
              transform=axes.transAxes, fontsize=9)  # fmt: skip
    axes.set(xlabel="Predicted risk", ylabel="Observed risk", xlim=(0, limit), ylim=(0, limit))
    _bare(axes)


def _largest_risk(result: Evaluation) -> float:
    """End of the axes: what is shown, not an empty square up to 1."""
    groups = result.calibration_groups
    shown = [max(float(group.observed.high or 0), group.predicted) for group in groups]
    if result.smooth is not None:
        shown += [float(result.smooth.predicted[-1]), float(result.smooth.observed[-1])]
    return min(1.0, 1.06 * max(shown))


def _draw_predictions(axes: Any, result: Evaluation, limits: tuple[float, float]) -> None:
    """Events upwards, others downwards, each as a density of its own kind, cell by cell."""
    curve, risk = result.curve, result.overall.observed_risk
    chosen = _spaced(curve.cuts, limits[1] / _NUM_BARS)
    edges = np.concatenate([[0.0], curve.cuts[chosen], [1.0]])
    starts, width = [0, *(place + 1 for place in chosen)], np.diff(edges)
    events, others = (np.add.reduceat(part, starts) for part in (curve.events_between, curve.others_between))
    above, below = events * risk / width, others * (1 - risk) / width
    axes.stairs(above, edges, fill=True, color="C1", alpha=0.9)
    axes.stairs(-below, edges, fill=True, color="C0", alpha=0.6)
    height = float(above.max() + below.max())
    room = 0.45 * height  # for a label above all bars, and one below them
    axes.set_ylim(-below.max() - room, above.max() + room)
    axes.axhline(0, color=_GREY, linewidth=0.6)
    axes.text(0.99, 0.98, "with the event", transform=axes.transAxes, ha="right", va="top", fontsize=9)
    axes.text(0.99, 0.02, "without", transform=axes.transAxes, ha="right", va="bottom", fontsize=9)
    axes.set(xlabel="Predicted risk", xlim=limits, yticks=[])
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _spaced(cuts: Values, width: float) -> list[int]:
    """Indices of cuts that are at least `width` apart."""
    chosen: list[int] = []
    last = 0.0
    for place, cut in enumerate(cuts.tolist()):
        if cut - last >= width:
            chosen.append(place)
            last = cut
    return chosen


def _calibration_exhibit(result: Evaluation) -> FigureExhibit:
    overall = result.overall
    distance = (
        "" if result.smooth is None else f" On average the curve is {result.smooth.ici:.3f} away from the prediction."
    )
    return FigureExhibit(
        title="Calibration",
        draw=lambda: calibration_figure(result),
        description=f"Observed against predicted risk. Calibration slope {estimate_text(overall.calibration_slope)} (1 "
        f"is perfect), observed over expected events {estimate_text(overall.observed_over_expected)}.{distance}",
        note=f"Intervals and band: {percent_text(result.confidence)}. Below, where the predictions lie. "
        + _cut_note(result),
        kind="calibration",
    )


def decision_figure(result: Evaluation) -> Figure:
    """Net benefit over the threshold, beside acting on everybody and on nobody."""
    figure = _figure((6.5, 4.2))
    axes = figure.subplots()
    known = [at for at in result.thresholds if at.net_benefit.value is not None]
    shown = [at for at in known if at.share_above >= _LEAST_SHARE] or known
    x = np.array([at.threshold for at in shown])
    value, low, high = (
        np.array([getattr(at.net_benefit, name) for at in shown], float) for name in ("value", "low", "high")
    )
    grid = np.linspace(0.001, max(float(x[-1]), 0.02), 200)
    risk = result.overall.observed_risk
    of_all = risk - (1 - risk) * grid / (1 - grid)
    axes.fill_between(x, low, high, color="C0", alpha=0.18, linewidth=0)
    axes.plot(x, value, color="C0", linewidth=1.8, label="the model")
    axes.plot(grid, of_all, color="C1", linewidth=1.4, linestyle=(0, (5, 2)), label="everybody")
    axes.axhline(0, color=_GREY, linewidth=1.0, linestyle=(0, (1, 1.5)), label="nobody")
    top = max(risk, float(high.max()))
    axes.set(xlabel="Threshold at or above which one acts", ylabel="Net benefit a record")
    axes.set(xlim=(0, float(grid[-1]) * 1.02), ylim=(-0.25 * top, 1.08 * top))
    axes.legend(title="Acting on", frameon=False, fontsize=9)
    _bare(axes)
    return figure


def _decision_exhibit(result: Evaluation) -> FigureExhibit:
    better = [
        at.threshold
        for at in result.thresholds
        if at.net_benefit.value is not None and at.net_benefit.value > max(float(at.net_benefit_of_all or 0), 0.0)
    ]
    where = f"between {min(better):g} and {max(better):g}" if better else "at none of the thresholds shown"
    return FigureExhibit(
        title="Decision curve",
        draw=lambda: decision_figure(result),
        description=f"Net benefit over the threshold. The model beats acting on everybody and on nobody {where}.",
        note=f"Band: {percent_text(result.confidence)}, pointwise. " + _cut_note(result),
    )


def forest_figure(result: Evaluation) -> Figure:
    """AUROC of everybody and by group, one a row."""
    rows = [("Everybody", result.overall.auroc)]
    rows += [(f"{g.variable}: {g.level}", g.performance.auroc) for g in result.groups if g.performance is not None]
    rows = [row for row in rows if row[1].value is not None][:_MAX_ROWS]
    figure = _figure((6.5, 0.36 * len(rows) + 1.1))
    axes = figure.subplots()
    places = np.arange(len(rows))[::-1]
    for (_, area), place in zip(rows, places, strict=True):
        colour, marker = ("C0", "s") if place != places[0] else ("C1", "D")
        if area.low is not None and area.high is not None:
            axes.hlines(place, area.low, area.high, color=colour, linewidth=1.6)
        axes.plot(float(area.value or 0.0), place, marker, color=colour, markersize=6)
        axes.annotate(estimate_text(area), (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    axes.axvline(float(result.overall.auroc.value or 0.5), color=_GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_yticks(places, [_shortened(name) for name, _ in rows])
    for label in axes.get_yticklabels():
        label.set_parse_math(False)  # a dollar sign in a name is no mathematics
    axes.set(xlabel=f"AUROC ({percent_text(result.confidence)} CI)", ylim=(-0.7, len(rows) - 0.3))
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return figure


def _shortened(name: str) -> str:
    text = " ".join(name.split())
    return text if len(text) <= 34 else text[:31] + "..."


def _forest_exhibit(result: Evaluation) -> FigureExhibit:
    shown = [g for g in result.groups if g.performance is not None and g.performance.auroc.value is not None]
    said = "; ".join(f"{g.variable} {g.level} {estimate_text(g.performance.auroc)}" for g in shown if g.performance)
    return FigureExhibit(
        title="Discrimination by group",
        draw=lambda: forest_figure(result),
        description=f"AUROC of everybody {estimate_text(result.overall.auroc)}; {said}.",
        kind="forest",
    )
