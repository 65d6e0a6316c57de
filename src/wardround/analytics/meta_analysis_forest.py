"""Forest plot of a meta-analysis as journals print it: sites, diamonds, the exact fit, numbers at the right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wardround.analytics.families import two_sided_quantile
from wardround.analytics.forest_plot import LARGEST_RATIO, plain_ticks, shorten
from wardround.analytics.journal_text import (
    count_text,
    decimals_for,
    fixed_text,
    p_relation,
    percent_text,
    plain_term,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from wardround.analytics.meta_analysis_combine import CombinedEstimate
    from wardround.analytics.meta_analysis_result import MetaAnalysisResult, MetaCoefficient

MAX_ROWS = 60
"""Most sites that a forest plot shows."""
INK = "black"
_GREY = "0.45"
_TOP = 1.7
# Height of the plot above the first site, for the heads of the columns.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A line of the plot; `kind` says how its estimate is drawn."""

    label: str
    kind: Literal["site", "diamond", "exact", "prediction"]
    estimate: float
    low: float
    high: float
    weight: float | None = None
    weight_random: float | None = None


def forest(result: MetaAnalysisResult, coefficient: MetaCoefficient) -> Figure:
    """Squares by weight for the sites, diamonds for fixed and random effects, the federated estimate.

    Needs matplotlib (the extra `report`).
    """
    from matplotlib.figure import Figure

    rows = [*_site_rows(result, coefficient), *_combined_rows(coefficient)]
    num_sites = sum(row.kind == "site" for row in rows)
    figure = Figure(figsize=(8.4, 0.3 * len(rows) + 1.6), layout="constrained")
    axes, numbers = figure.subplots(1, 2, width_ratios=[1, 1.05])
    # The sites, a gap, and what was made of them.
    places = [-float(i) - (0.6 if i >= num_sites else 0.0) for i in range(len(rows))]
    limits = _limits(rows)
    is_ratio = result.ratio_name is not None
    for row, place in zip(rows, places, strict=True):
        ends = np.array([row.estimate, *np.clip([row.low, row.high], *limits)])
        _draw(axes, row, place, np.exp(ends) if is_ratio else ends, (row.low < limits[0], row.high > limits[1]))
    axes.axvline(1.0 if is_ratio else 0.0, color=_GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    if is_ratio:
        axes.set_xscale("log")
        plain_ticks(axes)
    _label(axes, rows, places, has_events=result.has_events)
    _write(numbers, result, rows, places)
    what = result.ratio_name or "Coefficient"
    axes.set_xlabel(f"{what} of {shorten(plain_term(coefficient.term))}", color=INK)
    figure.supxlabel(_heterogeneity(coefficient), x=0.01, ha="left", fontsize=9, color=INK)
    return figure


def _limits(rows: list[_Row]) -> tuple[float, float]:
    """Where intervals are cut off, so that one site that knows little does not hide what the others know."""
    combined = [row for row in rows if row.kind != "site"]
    middle = combined[0].estimate
    needed = [*(row.estimate for row in rows), *(end for row in combined for end in (row.low, row.high))]
    reach = max(1.2 * max(abs(value - middle) for value in needed), 4 * (combined[0].high - combined[0].low))
    largest = np.log(LARGEST_RATIO) if rows else np.inf
    return middle - min(reach, largest), middle + min(reach, largest)


def _site_rows(result: MetaAnalysisResult, coefficient: MetaCoefficient) -> list[_Row]:
    one = coefficient.combination
    half = two_sided_quantile(one.confidence, None)
    fits = {fit.site: fit for fit in result.sites}
    rows = []
    for i, site in enumerate(one.labels[:MAX_ROWS]):
        fit, reach = fits[site], half * one.standard_errors[i]
        events = f"{count_text(fit.num_events)}/" if result.has_events else ""
        told = f" ({events}{count_text(fit.num_records)})"
        rows.append(
            _Row(
                label=shorten(site) + told,
                kind="site",
                estimate=one.estimates[i],
                low=one.estimates[i] - reach,
                high=one.estimates[i] + reach,
                weight=one.weights_fixed[i],
                weight_random=one.weights_random[i],
            )
        )
    return rows


def _combined_rows(coefficient: MetaCoefficient) -> list[_Row]:
    one = coefficient.combination
    rows = [_row("Fixed effect", "diamond", one.fixed), _row("Random effects", "diamond", one.random)]
    if one.predicted_low is not None and one.predicted_high is not None:
        rows.append(
            _Row(
                label="Prediction for a further site",
                kind="prediction",
                estimate=one.random.estimate,
                low=one.predicted_low,
                high=one.predicted_high,
            )
        )
    if coefficient.exact is not None:
        rows.append(_row("Federated, all records (exact)", "exact", coefficient.exact))
    return rows


def _row(label: str, kind: Literal["diamond", "exact"], value: CombinedEstimate) -> _Row:
    return _Row(label=label, kind=kind, estimate=value.estimate, low=value.low, high=value.high)


def _draw(axes: Any, row: _Row, place: float, ends: Any, is_cut: tuple[bool, bool]) -> None:
    """One line; an interval that goes on beyond the plot ends in an arrow."""
    estimate, low, high = ends
    if row.kind == "diamond":
        axes.fill([low, estimate, high, estimate], [place, place + 0.3, place, place - 0.3], color="C0", linewidth=0)
        return
    is_exact = row.kind == "exact"
    style = "-" if row.kind != "prediction" else (0, (1, 1.2))
    axes.hlines(place, low, high, color="C1" if is_exact else INK, linewidth=1.8 if is_exact else 1.1, linestyle=style)
    for end, marker, goes_on in ((low, "<", is_cut[0]), (high, ">", is_cut[1])):
        if goes_on:
            axes.plot([end], [place], marker, color=INK, markersize=5)
    if row.kind == "site":
        axes.plot([estimate], [place], "s", color="C0", markersize=3 + 9 * np.sqrt(row.weight or 0.0))
    if is_exact:
        axes.plot([estimate], [place], "o", color="C1", markersize=6.5)


def _label(axes: Any, rows: list[_Row], places: list[float], *, has_events: bool) -> None:
    """Sites and combined estimates on the left, no frame."""
    axes.set_yticks(places, [row.label for row in rows])
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_parse_math(False)  # a dollar sign in a name is no mathematics
        label.set_fontweight("normal" if row.kind == "site" else "bold")
        label.set_fontsize(9)
    axes.text(
        -0.02,
        0.75,
        "Site (events/records)" if has_events else "Site (records)",
        transform=axes.get_yaxis_transform(),
        ha="right",
        va="center",
        fontsize=9,
        fontweight="bold",
        color=INK,
    )
    axes.set_ylim(min(places) - 0.8, _TOP)
    axes.tick_params(axis="y", length=0, colors=INK)
    axes.tick_params(axis="x", colors=INK)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _write(axes: Any, result: MetaAnalysisResult, rows: list[_Row], places: list[float]) -> None:
    """The numbers on the right, at the height of what they are of."""
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(min(places) - 0.8, _TOP)
    options: dict[str, Any] = {"va": "center", "fontsize": 9, "color": INK}
    head = {**options, "fontweight": "bold"}
    axes.text(0.0, 0.75, f"Estimate ({percent_text(result.confidence)} CI)", **head)
    for x, height, text in ((1.0, 1.35, "Weight"), (0.79, 0.75, "fixed"), (1.0, 0.75, "random")):
        axes.text(x, height, text, ha="right", **head)
    decimals = decimals_for(min((row.high - row.low) / 2 for row in rows))
    for row, place in zip(rows, places, strict=True):
        axes.text(0.0, place, _numbers(result, row, decimals), **options)
        for x, weight in ((0.79, row.weight), (1.0, row.weight_random)):
            if weight is not None:
                axes.text(x, place, f"{100 * weight:.1f}%", ha="right", **options)


def _numbers(result: MetaAnalysisResult, row: _Row, decimals: int) -> str:
    """An estimate with its interval, all rows with the same decimals; of a prediction the interval alone."""
    if result.ratio_name is None:
        shown = [fixed_text(value, decimals) for value in (row.estimate, row.low, row.high)]
        text = f"{shown[0]} ({shown[1]} to {shown[2]})"
    else:
        text = result.interval(row.estimate, row.low, row.high)
    return text[text.index("(") :] if row.kind == "prediction" else text


def _heterogeneity(coefficient: MetaCoefficient) -> str:
    spread = coefficient.combination.heterogeneity
    return (
        f"Heterogeneity: I² = {100 * spread.i2:.0f}% ({100 * spread.i2_low:.0f}% to {100 * spread.i2_high:.0f}%), "
        f"τ² = {spread.tau2:.3g}, Q = {spread.q:.2f} ({spread.df} df), P {p_relation(spread.p_value)}"
    )
