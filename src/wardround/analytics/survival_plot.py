"""The survival figure: steps with bands, named at their ends, and the numbers at risk aligned below the time axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.journal_text import ABSENT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from wardround.analytics.kaplan_meier_result import KaplanMeierResult

Values = NDArray[np.float64]

MAX_CURVES = 8
"""Most curves in one figure."""
MAX_BANDS = 4
"""Most curves that have their bands drawn: more would hide one another."""
_LINES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
_NAME_CHARACTERS = 18
_SHORT = 0.85  # a curve that ends before this part of the axis is named where it ends
_NAME_WIDTH = 0.25  # of a name within the frame, as a part of the axis
_LEAST_GAP = 0.055  # between two names at the right, as a part of the axis


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve to be drawn; arrays of shape (num_points,), of which the first stands at time 0.

    Attributes:
        name: what stands at its end.
        times, values: the steps.
        low, high: band; NaN where there is none.
        marks: times at which somebody was censored, where these may be shown.
        counts: numbers at risk at the ticks.
        is_thinned: whether the values are exact at these times, but the steps between them not shown.
    """

    name: str
    times: Values
    values: Values
    low: Values
    high: Values
    marks: Values
    counts: tuple[int | None, ...]
    is_thinned: bool


def survival_figure(result: KaplanMeierResult) -> Figure:
    """The curves of a Kaplan-Meier analysis; the first `MAX_CURVES` of them."""
    from wardround.analytics.kaplan_meier_text import group_name, time_text

    lines = [
        Line(
            name=group_name(result.by, curve.group),
            times=np.concatenate([[0.0], curve.times]),
            values=np.concatenate([[1.0], curve.survival]),
            low=np.concatenate([[1.0], _filled(curve.low, curve.survival)]),
            high=np.concatenate([[1.0], _filled(curve.high, curve.survival)]),
            # Under a floor a mark could be one patient's.
            marks=_marks(curve.times, curve.num_censored_since) if result.minimum_cell == 1 else np.zeros(0),
            counts=tuple(at.num_at_risk for at in curve.at_times),
            is_thinned=result.minimum_cell > 1,
        )
        for curve in result.curves
        if curve.is_shown
    ]
    ticks = [at.time for at in result.curves[0].at_times]
    return step_figure(lines, ticks, time_text(result), "Survival", is_falling=True)


def _filled(limits: Values, values: Values) -> Values:
    """Limits, the value itself where there are none because it is 1."""
    return np.where(np.isnan(limits) & (values == 1), 1.0, limits)  # nobody had the event yet


def _marks(times: Values, censored: tuple[int | None, ...]) -> Values:
    return np.compress([bool(count) for count in censored], times)


def step_figure(
    lines: list[Line],
    ticks: list[float],
    time: str,
    quantity: str,
    *,
    is_falling: bool,
    risk: Mapping[str, tuple[int | None, ...]] | None = None,
) -> Figure:
    """Curves in steps over time with a table of numbers at risk below.

    Args:
        lines: the curves.
        ticks: times of the axis and of the table.
        time: label of the time axis.
        quantity: label of the other.
        is_falling: whether the curves begin at 1 and fall, or at 0 and rise.
        risk: rows of the table by name; None: each curve has its own, in its colour.
    """
    from matplotlib.figure import Figure

    drawn = lines[:MAX_CURVES]
    rows = [(line.name or "all", f"C{n}", line.counts) for n, line in enumerate(drawn)]
    if risk is not None:
        rows = [(name, "0.15", counts) for name, counts in risk.items()]
    table_inches = 0.22 * (len(rows) + 1.6)
    figure = Figure(figsize=(6.5, 3.7 + table_inches), layout="constrained")
    axes, table = figure.subplots(2, 1, sharex=True, height_ratios=[3.7, table_inches])
    end = max([*ticks, *(float(line.times[-1]) for line in drawn)], default=1.0) or 1.0
    for number, line in enumerate(drawn):
        _draw_line(axes, line, number, has_band=len(drawn) <= MAX_BANDS)
    top = 1.0 if is_falling else min(1.0, 1.12 * max([float(np.nanmax(line.high)) for line in drawn], default=1.0))
    axes.set_ylim(0, top * 1.01)
    axes.set_xlim(0, end * 1.01)
    _name_lines(axes, drawn, end, top)
    axes.set_ylabel(quantity)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.tick_params(axis="x", labelbottom=True)
    axes.set_xlabel(_plain_label(time))
    more = f"; {len(lines) - len(drawn)} more are in the table" if len(lines) > len(drawn) else ""
    _risk_table(table, rows, ticks, f"Under observation{more}")
    return figure


def _plain_label(text: str) -> str:
    return text.replace("$", r"\$")  # a dollar sign in a name is no mathematics


def _draw_line(axes: Any, line: Line, number: int, *, has_band: bool) -> None:
    color = f"C{number}"
    style, step = _LINES[number % len(_LINES)], None if line.is_thinned else "post"
    if has_band:
        axes.fill_between(line.times, line.low, line.high, step=step, color=color, alpha=0.16, linewidth=0)
    drawstyle = "default" if line.is_thinned else "steps-post"
    axes.plot(line.times, line.values, color=color, linestyle=style, linewidth=1.6, drawstyle=drawstyle)
    if line.is_thinned:
        axes.plot(line.times[1:], line.values[1:], "o", color=color, markersize=2.5)
    if len(line.marks):
        values = line.values[np.searchsorted(line.times, line.marks, side="right") - 1]
        axes.plot(line.marks, values, "|", color=color, markersize=5, markeredgewidth=0.8)


def _name_lines(axes: Any, lines: list[Line], end: float, top: float) -> None:
    """Each curve's name at its end: right of the frame, moved apart where two would touch, or where it ends earlier."""
    if not any(line.name for line in lines):
        return
    order = sorted(range(len(lines)), key=lambda number: float(lines[number].values[-1]))
    height = -np.inf
    named: list[tuple[float, float]] = []
    for number in order:
        line = lines[number]
        place = (float(line.times[-1]) / end, float(line.values[-1]) / top)
        is_short = place[0] < _SHORT
        # Where two would touch, the rows of the table below, in the curves' colours, must do.
        if is_short and any(abs(place[0] - x) < _NAME_WIDTH and abs(place[1] - y) < _LEAST_GAP for x, y in named):
            continue
        named.append(place)
        if not is_short:
            height = max(float(line.values[-1]) / top, height + _LEAST_GAP)
        axes.annotate(
            _shorten(line.name),
            xy=(line.times[-1], line.values[-1]),
            xytext=(5, 5) if is_short else (1.02, min(height, 1.05)),
            xycoords="data",
            textcoords="offset points" if is_short else "axes fraction",
            color=f"C{number}",
            va="center",
            fontsize="small",
            parse_math=False,
            annotation_clip=False,
            arrowprops=None if is_short else {"arrowstyle": "-", "color": f"C{number}", "linewidth": 0.5, "alpha": 0.6},
        )


def _shorten(name: str) -> str:
    return name if len(name) <= _NAME_CHARACTERS else name[: _NAME_CHARACTERS - 1] + "…"


def _risk_table(
    table: Any, rows: list[tuple[str, str, tuple[int | None, ...]]], ticks: list[float], title: str
) -> None:
    """Numbers under their ticks; the rows' names (name, colour, counts) stand left."""
    table.set_ylim(len(rows) - 0.4, -1.2)
    table.axis("off")
    table.text(0, 1, title, transform=table.transAxes, fontsize="small", va="center", fontweight="bold")
    for number, (name, color, counts) in enumerate(rows):
        table.annotate(
            _shorten(name),
            xy=(0, number),
            xycoords=("axes fraction", "data"),
            xytext=(-20, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize="small",
            color=color,
            parse_math=False,
            annotation_clip=False,
        )
        for tick, count in zip(ticks, counts, strict=True):
            text = ABSENT if count is None else f"{count}"
            table.text(tick, number, text, ha="center", va="center", fontsize="small")
