"""Forest plots: estimates with intervals, one a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wardround.analytics.journal_text import interval_text, plain_term, ratio_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from wardround.analytics.glm_result import Coefficient, GLMResult

INK = "#1f2933"
ACCENT = "#0072b2"  # blue of the Okabe-Ito palette, which colour-blind readers tell apart
MAX_ROWS = 60
"""Most coefficients that a forest plot shows."""
LARGEST_RATIO = 1e4
"""Where ratios are cut off, and at one over it."""
_RATIO_NAMES = {"logit": "Odds ratio", "log": "Ratio of means"}


def forest_plot(result: GLMResult) -> Figure:
    """Coefficients with intervals, the intercept left out; ratios on a logarithmic axis for logit and log links.

    Needs matplotlib (the extra `report`).
    """
    from matplotlib.figure import Figure

    terms = [term for term in result.terms if term.term != "Intercept"]
    rows = terms[:MAX_ROWS]
    is_ratio = result.link in _RATIO_NAMES
    limit = np.log(LARGEST_RATIO)
    scale = (lambda values: np.exp(np.clip(values, -limit, limit))) if is_ratio else np.asarray
    figure = Figure(figsize=(7.2, 0.34 * max(len(rows), 1) + 1.1), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))[::-1]
    estimates = scale(np.array([row.estimate for row in rows], float))
    lows = scale(np.array([row.low for row in rows], float))
    highs = scale(np.array([row.high for row in rows], float))
    axes.hlines(places, lows, highs, color=ACCENT, linewidth=1.6)
    axes.plot(estimates, places, "s", color=ACCENT, markersize=5)
    axes.axvline(1.0 if is_ratio else 0.0, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    if is_ratio and len(rows):
        axes.set_xscale("log")
        plain_ticks(axes)
    _label(axes, rows, places)
    write_beside(axes, places, [_in_words(row, is_ratio) for row in rows])
    name = _RATIO_NAMES.get(result.link, "Coefficient")
    part = f"; the first {len(rows)} of {len(terms)}" if len(terms) > len(rows) else ""
    axes.set_xlabel(f"{name} ({100 * result.confidence:.4g}% interval{part})", color=INK)
    return figure


def _in_words(row: Coefficient, is_ratio: bool) -> str:
    if not is_ratio:
        return interval_text(row.estimate, row.low, row.high)
    with np.errstate(over="ignore"):  # the ratio of a huge coefficient is infinite
        return ratio_interval(*np.exp([row.estimate, row.low, row.high]).tolist())


def write_beside(axes: Any, places: Any, texts: list[str]) -> None:
    """The estimates in words, right of the axes, as journals print them."""
    for place, text in zip(places, texts, strict=True):
        axes.annotate(
            text,
            (1.0, place),
            xycoords=axes.get_yaxis_transform(),
            xytext=(10, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            fontsize="small",
            annotation_clip=False,
        )


def plain_ticks(axes: Any) -> None:
    """Ratios as people write them, 0.5 and 2, where matplotlib would write powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axes.get_xlim()
    is_narrow = high / low < 100
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if is_narrow else (1.0,), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _label(axes: Any, rows: list[Any], places: Any) -> None:
    """Terms on the left, no frame: the reader's eye should meet the intervals."""
    axes.set_yticks(places, [shorten(plain_term(row.term)) for row in rows])
    for label in axes.get_yticklabels():
        label.set_parse_math(False)  # a dollar sign in a name is no mathematics
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.tick_params(axis="y", length=0, colors=INK)
    axes.tick_params(axis="x", colors=INK)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def shorten(term: str) -> str:
    """A name on one line of at most 40 characters."""
    text = " ".join(term.split())
    return text if len(text) <= 40 else text[:37] + "..."
