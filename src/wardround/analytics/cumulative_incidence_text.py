"""An analysis of competing risks in words, tables and a figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from wardround.analytics.cumulative_incidence_result import CumulativeIncidenceResult, IncidenceAt, IncidenceCurve
from wardround.analytics.journal_text import ABSENT, count_text, listed, p_text, percent_text, time_label
from wardround.analytics.kaplan_meier_text import (
    GUYOT,
    KALBFLEISCH,
    NOT_COMPARED,
    THINNED,
    aligned,
    group_name,
    plain,
)
from wardround.analytics.result import Exhibit, FigureExhibit, TableExhibit
from wardround.analytics.survival_plot import MAX_BANDS, Line, step_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_NAMED = 6
_REFERENCES = {
    "Aalen": "Aalen OO, Johansen S. An empirical transition matrix for non-homogeneous Markov chains based on censored "
    "observations. Scand J Stat 1978; 5(3): 141-150.",
    "Gaynor": "Gaynor JJ, Feuer EJ, Tan CC, et al. On the use of cause-specific failure and conditional failure "
    "probabilities: examples from clinical oncology data. J Am Stat Assoc 1993; 88(422): 400-409.",
    "Kalbfleisch": KALBFLEISCH,
    "Gray": "Gray RJ. A class of K-sample tests for comparing the cumulative incidence of a competing risk. Ann Stat "
    "1988; 16(3): 1141-1154.",
    "Guyot": GUYOT,
}


def _name(curve: IncidenceCurve, result: CumulativeIncidenceResult) -> str:
    group = group_name(result.by, curve.group)
    return f"{plain(curve.cause)}, {group}" if group else plain(curve.cause)


def _time(result: CumulativeIncidenceResult) -> str:
    return time_label(result.time, result.unit)


def summary_text(result: CumulativeIncidenceResult) -> str:
    """Incidences with events so far at the chosen times, numbers at risk, tests and notes."""
    sites = f"{len(result.sites)} site{'s' * (len(result.sites) != 1)}"
    causes = listed([plain(cause) for cause in result.causes])
    head = f"Federated cumulative incidence over {sites}: {_time(result)}, {plain(result.event)} = {causes}"
    times = [at.time for at in result.curves[0].at_times]
    rows = [["", *(f"{time:g}" for time in times)]]
    risk = [["", *(f"{time:g}" for time in times)]]
    groups = set()
    for curve in result.curves:
        rows.append([_name(curve, result), *(_cell(at) for at in curve.at_times)])
        if curve.group not in groups:
            groups.add(curve.group)
            risk.append([plain(curve.group), *(_count(at.num_at_risk) for at in curve.at_times)])
    lines = [head, "", "Incidence (events so far):", *aligned(rows), "", "Under observation:", *aligned(risk)]
    lines += [""] * bool(result.tests)
    lines += [_test_line(result, number) for number in range(len(result.tests))]
    return "\n".join([*lines, "", *result.notes]).rstrip()


def _cell(at: IncidenceAt) -> str:
    return ABSENT if at.incidence is None else f"{at.incidence:.3f} ({_count(at.num_events)})"


def _count(count: int | None) -> str:
    return ABSENT if count is None else f"{count}"


def _test_line(result: CumulativeIncidenceResult, number: int) -> str:
    test = result.tests[number]
    within = f" within {listed([plain(name) for name in test.strata])}" if test.strata else ""
    said = f"chi2({test.df}) = {test.statistic:.4g}, p = {test.p_value:.3g}"
    return f"Gray's test{within}, {plain(test.cause)}: {NOT_COMPARED if math.isnan(test.statistic) else said}"


def headline_texts(result: CumulativeIncidenceResult) -> tuple[str, ...]:
    """The incidences at the last time at which all shown curves have one, and the tests."""
    curves = [curve for curve in result.curves if curve.is_shown][:_MOST_NAMED]
    said = []
    number = _last_common(curves)
    if number is not None:
        parts = [f"{_name(curve, result)} {_with_limits(curve.at_times[number])}" for curve in curves]
        unit = f" {result.unit}" if result.unit else ""
        at = f"{curves[0].at_times[number].time:g}{unit}"
        said.append(f"Cumulative incidence at {at} ({percent_text(result.confidence)} CI): {'; '.join(parts)}.")
    for test in result.tests:
        if not math.isnan(test.p_value):
            p = p_text(test.p_value)
            said.append(f"Gray's test for {plain(test.cause)} gives p {'' if p[0] in '<>' else '= '}{p}.")
    return tuple(said)


def _last_common(curves: list[IncidenceCurve]) -> int | None:
    if not curves:
        return None
    numbers = range(len(curves[0].at_times))
    known = [n for n in numbers if all(curve.at_times[n].incidence is not None for curve in curves)]
    return max((n for n in known if curves[0].at_times[n].time > 0), default=None)


def _with_limits(at: IncidenceAt) -> str:
    if at.incidence is None:
        return ABSENT
    if at.low is None or at.high is None:
        return f"{at.incidence:.3f}"
    return f"{at.incidence:.3f} ({at.low:.3f} to {at.high:.3f})"


def methods_text(result: CumulativeIncidenceResult) -> str:
    """What was computed, as a methods section says it."""
    sites = f"{len(result.sites)} site{'s' * (len(result.sites) != 1)}"
    unit = f" ({result.unit})" if result.unit else ""
    scale = "" if result.confidence_type == "plain" else f" on the {result.confidence_type} scale"
    causes = listed([plain(cause) for cause in result.causes])
    estimated = (
        f"Cumulative incidences of {causes}, which compete, were estimated by the method of Aalen and Johansen "
        f"(Aalen and Johansen 1978) from counts of events and of censored records by time, summed over {sites}, so "
        f"that the estimates are those of the pooled records. Times were counted in steps of {result.step:.4g}{unit}."
    )
    errors = (
        f"Variances are by the delta method (Gaynor 1993); {percent_text(result.confidence)} confidence intervals are "
        f"pointwise{scale} (Kalbfleisch and Prentice 2002)."
    )
    sentences = [estimated, errors]
    if result.entry is not None:
        sentences.append(f"Records were at risk after {plain(result.entry)} (left truncation).")
    if result.tests:
        strata = result.tests[0].strata
        within = f" within {listed([plain(name) for name in strata])}" if strata else ""
        sentences.append(f"Groups were compared by Gray's test{within} (Gray 1988).")
    if result.minimum_cell > 1:
        sentences.append(
            "As counts can be worked out of a published curve (Guyot 2012), curves are shown at times between which "
            f"none or at least {result.minimum_cell} patients had an event of each cause and none or at least as many "
            "were censored."
        )
    return " ".join(sentences)


def references_of(result: CumulativeIncidenceResult) -> tuple[str, ...]:
    """Of the methods that were used."""
    text = methods_text(result)
    return tuple(reference for name, reference in _REFERENCES.items() if f"({name} " in text)


def incidence_figure(result: CumulativeIncidenceResult) -> Figure:
    """The curves, in steps where every time is shown, else with straight lines between the times that are."""
    lines = [
        Line(
            name=_name(curve, result),
            times=np.concatenate([[0.0], curve.times]),
            values=np.concatenate([[0.0], curve.incidence]),
            low=np.concatenate([[0.0], _filled(curve.low, curve.incidence)]),
            high=np.concatenate([[0.0], _filled(curve.high, curve.incidence)]),
            marks=np.zeros(0),
            counts=tuple(at.num_at_risk for at in curve.at_times),
            is_thinned=result.minimum_cell > 1,
        )
        for curve in result.curves
        if curve.is_shown
    ]
    ticks = [at.time for at in result.curves[0].at_times]
    # Causes of one group share their numbers at risk.
    groups = list(dict.fromkeys(curve.group for curve in result.curves if curve.is_shown))
    first = {group: next(curve for curve in result.curves if curve.group == group) for group in groups}
    risk = {group_name(result.by, g) or "all": tuple(at.num_at_risk for at in first[g].at_times) for g in groups}
    return step_figure(lines, ticks, _time(result), "Cumulative incidence", is_falling=False, risk=risk)


def _filled(limits: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(limits), values, limits)


def incidence_exhibits(result: CumulativeIncidenceResult) -> tuple[Exhibit, ...]:
    """The figure, and the incidences at the chosen times."""
    title = f"Cumulative incidence by {plain(result.by)}" if result.by else "Cumulative incidence"
    exhibits: list[Exhibit] = []
    if any(curve.is_shown for curve in result.curves):
        has_bands = sum(curve.is_shown for curve in result.curves) <= MAX_BANDS
        bands = f"Bands: pointwise {percent_text(result.confidence)} confidence intervals." * has_bands
        thin = f" {THINNED}"
        figure = FigureExhibit(
            title=title,
            draw=result.plot,
            description=" ".join(headline_texts(result)) or title,
            note=f"{bands}{thin * (result.minimum_cell > 1)}".strip(),
            kind="survival",
        )
        exhibits.append(figure)
    tests = [_test_line(result, number) + "." for number in range(len(result.tests))]
    note = " ".join([f"Time: {_time(result)}.", *tests, *result.notes])
    table = TableExhibit(title=f"{title}: at chosen times", frame=_frame(result), note=note, kind="survival")
    return (*exhibits, table)


def _frame(result: CumulativeIncidenceResult) -> pd.DataFrame:
    rows = [
        {
            "Curve": _name(curve, result),
            "Time": f"{at.time:g}",
            "Under observation": count_text(at.num_at_risk),
            "Events": count_text(at.num_events),
            "Incidence": _with_limits(at),
        }
        for curve in result.curves
        for at in curve.at_times
    ]
    return pd.DataFrame(rows).set_index("Curve")
