"""A survival analysis in words and tables: as it prints, and in a report."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from wardround.analytics.journal_text import ABSENT, count_text, interval_text, listed, p_text, percent_text, time_label
from wardround.analytics.kaplan_meier_result import AtTime, KaplanMeierResult, SurvivalCurve, SurvivalQuantile
from wardround.analytics.result import Exhibit, FigureExhibit, TableExhibit
from wardround.analytics.survival_plot import MAX_BANDS

_NAME_WIDTH = 24
_MOST_NAMED = 6
NOT_COMPARED = "the groups cannot be compared, as no event befell one while another was under observation too"
"""What is said instead of a test that cannot be made."""
THINNED = (
    "The estimate is exact at the points, the only times at which it is shown; between them it changes in steps "
    "that are not shown, and the straight lines are drawn to lead the eye."
)
"""What a figure of curves that are shown at fewer points says of its lines."""
KALBFLEISCH = (
    "Kalbfleisch JD, Prentice RL. The Statistical Analysis of Failure Time Data. 2nd ed. Hoboken: Wiley; 2002."
)
GUYOT = (
    "Guyot P, Ades AE, Ouwens MJNM, Welton NJ. Enhanced secondary analysis of survival data: "
    "reconstructing the data from published Kaplan-Meier survival curves. BMC Med Res Methodol 2012; "
    "12: 9."
)
_REFERENCES = {
    "Kaplan": "Kaplan EL, Meier P. Nonparametric estimation from incomplete observations. J Am Stat Assoc "
    "1958; 53(282): 457-481.",
    "Greenwood": "Greenwood M. The natural duration of cancer. Reports on Public Health and Medical Subjects 33. "
    "London: HMSO; 1926.",
    "Jaeckel": "Jaeckel LA. The infinitesimal jackknife. Memorandum MM 72-1215-11. Murray Hill: Bell Laboratories; "
    "1972.",
    "Kalbfleisch": KALBFLEISCH,
    "Brookmeyer": "Brookmeyer R, Crowley J. A confidence interval for the median survival time. Biometrics 1982; "
    "38(1): 29-41.",
    "Mantel": "Mantel N. Evaluation of survival data and two new rank order statistics arising in its "
    "consideration. Cancer Chemother Rep 1966; 50(3): 163-170.",
    "Gehan": "Gehan EA. A generalized Wilcoxon test for comparing arbitrarily singly-censored samples. "
    "Biometrika 1965; 52(1-2): 203-223.",
    "Tarone": "Tarone RE, Ware J. On distribution-free tests for equality of survival distributions. "
    "Biometrika 1977; 64(1): 156-160.",
    "Peto": "Peto R, Peto J. Asymptotically efficient rank invariant test procedures. J R Stat Soc A 1972; "
    "135(2): 185-207.",
    "Harrington": "Harrington DP, Fleming TR. A class of rank test procedures for censored survival data. "
    "Biometrika 1982; 69(3): 553-566.",
    "Irwin": "Irwin JO. The standard error of an estimate of expectation of life. J Hyg 1949; 47(2): 188-189.",
    "Guyot": GUYOT,
}
_TEST_PAPERS = {
    "log-rank": "Mantel 1966",
    "gehan": "Gehan 1965",
    "tarone-ware": "Tarone and Ware 1977",
    "peto": "Peto and Peto 1972",
    "fleming-harrington": "Harrington and Fleming 1982",
}


def time_text(result: KaplanMeierResult) -> str:
    """The time with its unit, as an axis is labelled."""
    return time_label(result.time, result.unit)


def plain(name: str) -> str:
    """A variable's or level's name on one line."""
    return " ".join(name.split())


def group_name(by: str | None, group: str) -> str:
    """A group as a figure names it; nothing where there is one only. A number alone would say nothing."""
    if by is None:
        return ""
    name = plain(group)
    return f"{plain(by)} {name}" if name.isdecimal() or name in ("True", "False") else name


def summary_text(result: KaplanMeierResult) -> str:
    """Groups, test, differences, numbers at risk and notes."""
    sites = f"{len(result.sites)} site{'s' * (len(result.sites) != 1)}"
    lines = [f"Federated Kaplan-Meier estimate over {sites}: {time_text(result)}, event {result.event}", ""]
    lines += aligned(_group_rows(result))
    if result.test is not None:
        lines += ["", *_test_lines(result)]
    for d in result.mean_differences:
        text = f"{d.estimate:.5g} ({d.low:.5g} to {d.high:.5g}), p = {d.p_value:.3g}"
        lines.append(f"Restricted mean, {plain(d.group)} less {plain(d.reference)}: {text}")
    lines += ["", "Under observation (events so far):", *aligned(_risk_rows(result)), "", *result.notes]
    return "\n".join(lines).rstrip()


def aligned(rows: list[list[str]]) -> list[str]:
    """Rows of a printed table: the first column left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[0] = min(widths[0], _NAME_WIDTH)
    return [
        "  ".join(
            [row[0][: widths[0]].ljust(widths[0]), *(t.rjust(w) for t, w in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]


def _group_rows(result: KaplanMeierResult) -> list[list[str]]:
    level = f"{result.confidence:g}"
    head = [plain(result.by or ""), "records", "events", "median", f"{level}LCL", f"{level}UCL"]
    has_mean = any(curve.restricted_mean for curve in result.curves)
    rows = [[*head, *(["rmean", "se(rmean)"] if has_mean else [])]]
    for curve in result.curves:
        counts = [count_text(count) for count in (curve.num_records, curve.num_events)]
        median = median_of(curve)
        values = [median.time, median.low, median.high] if median else [None] * 3
        if has_mean:
            mean = curve.restricted_mean
            values += [mean.estimate, mean.standard_error] if mean else [None] * 2
        rows.append([plain(curve.group), *counts, *(_number(value) for value in values)])
    return rows


def median_of(curve: SurvivalCurve) -> SurvivalQuantile | None:
    """The median among a curve's quantiles."""
    return next((quantile for quantile in curve.quantiles if quantile.probability == 0.5), None)


def _number(value: float | None) -> str:
    return "NA" if value is None or math.isnan(value) else f"{value:.5g}"


def _test_lines(result: KaplanMeierResult) -> Iterator[str]:
    test = result.test
    assert test is not None
    if test.strata:
        yield f"Compared within {listed([plain(name) for name in test.strata])}."
    rows = [[plain(result.by or ""), "N", "Observed", "Expected", "(O-E)^2/E"]]
    for group in test.groups:
        contribution = None
        if group.observed is not None and group.expected:
            contribution = (group.observed - group.expected) ** 2 / group.expected
        numbers = [_number(value) for value in (group.observed, group.expected, contribution)]
        rows.append([plain(group.group), count_text(group.num_records), *numbers])
    yield from aligned(rows)
    title = f"{test.title[0].upper()}{test.title[1:]}"
    if math.isnan(test.statistic):
        yield f"{title}: {NOT_COMPARED}."
    else:
        yield f"{title}: chi2({test.df}) = {test.statistic:.4g}, p = {test.p_value:.3g}"


def _risk_rows(result: KaplanMeierResult) -> list[list[str]]:
    times = [at.time for at in result.curves[0].at_times]
    rows = [["", *(f"{time:g}" for time in times)]]
    for curve in result.curves:
        rows.append([plain(curve.group), *(risk_text(at) for at in curve.at_times)])
    return rows


def risk_text(at: AtTime) -> str:
    """Number at risk with the events so far; a dash where one is hidden."""
    at_risk, events = (ABSENT if count is None else f"{count}" for count in (at.num_at_risk, at.num_events))
    return at_risk if at_risk == events == ABSENT else f"{at_risk} ({events})"


def headline_texts(result: KaplanMeierResult) -> tuple[str, ...]:
    """Medians by group, and the test."""
    parts = []
    for curve in result.curves[:_MOST_NAMED]:
        median = median_of(curve)
        if median is not None:
            name = group_name(result.by, curve.group)
            parts.append(f"{name + ': ' if name else ''}{_quantile_text(median, result.unit)}")
    said = [f"Median survival ({percent_text(result.confidence)} CI): {'; '.join(parts)}."] if parts else []
    if result.test is not None and not math.isnan(result.test.p_value):
        said.append(f"The {result.test.title} gives {_p(result.test.p_value)}.")
    return tuple(said)


def _quantile_text(quantile: SurvivalQuantile, unit: str | None) -> str:
    if quantile.time is None:
        return "not reached"
    limits = ["not reached" if limit is None else f"{limit:.4g}" for limit in (quantile.low, quantile.high)]
    return f"{quantile.time:.4g}{' ' + unit if unit else ''} ({limits[0]} to {limits[1]})"


def methods_text(result: KaplanMeierResult) -> str:
    """What was computed, as a methods section says it."""
    sites = f"{len(result.sites)} site{'s' * (len(result.sites) != 1)}"
    unit = f" ({result.unit})" if result.unit else ""
    scale = "" if result.confidence_type == "plain" else f" on the {result.confidence_type} scale"
    estimated = (
        f"Survival from {plain(result.time)} to {plain(result.event)} was estimated by the product-limit method "
        f"(Kaplan and Meier 1958) from counts of events and of censored records by time, summed over {sites}, so that "
        f"the estimates are those of the pooled records. Times were counted in steps of {result.step:.4g}{unit}."
    )
    has_weights = result.weights is not None
    robust = ", with weights that are not whole the infinitesimal jackknife's (Jaeckel 1972)" * has_weights
    errors = (
        f"Standard errors are Greenwood's (Greenwood 1926){robust}; {percent_text(result.confidence)} confidence "
        f"intervals are pointwise{scale} (Kalbfleisch and Prentice 2002), those of quantiles by inversion (Brookmeyer "
        "and Crowley 1982)."
    )
    sentences = [estimated, errors]
    if result.entry is not None:
        sentences.append(f"Records were at risk after {plain(result.entry)} (left truncation).")
    if result.test is not None:
        within = f", within {listed([plain(name) for name in result.test.strata])}" if result.test.strata else ""
        sentences.append(f"Groups were compared by the {result.test.title}{within} ({_TEST_PAPERS[result.test.test]}).")
    if any(curve.restricted_mean for curve in result.curves):
        sentences.append("Restricted mean survival times are areas under the curves (Irwin 1949).")
    if result.minimum_cell > 1:
        sentences.append(
            "As counts can be worked out of a published curve (Guyot 2012), curves are shown at times between which "
            f"none or at least {result.minimum_cell} patients had the event and none or at least as many were censored."
        )
    return " ".join(sentences)


def references_of(result: KaplanMeierResult) -> tuple[str, ...]:
    """Of the methods that were used."""
    text = methods_text(result)
    return tuple(reference for name, reference in _REFERENCES.items() if f"({name} " in text)


def survival_exhibits(result: KaplanMeierResult) -> tuple[Exhibit, ...]:
    """The figure, the groups with their medians, the numbers at risk."""
    exhibits: list[Exhibit] = []
    title = f"Survival by {plain(result.by)}" if result.by else "Survival"
    if any(curve.is_shown for curve in result.curves):
        figure = FigureExhibit(
            title=title,
            draw=result.plot,
            description=" ".join(headline_texts(result)) or title,
            note=_lines(result),
            kind="survival",
        )
        exhibits.append(figure)
    note = " ".join([*_comparisons(result), *result.notes])
    exhibits.append(TableExhibit(title=f"{title}: groups", frame=_group_frame(result), note=note, kind="survival"))
    risk = TableExhibit(
        title=f"{title}: at chosen times",
        frame=_risk_frame(result),
        note=f"Time: {time_text(result)}. Under observation after that time, events up to it.",
        kind="survival",
    )
    return (*exhibits, risk)


def _comparisons(result: KaplanMeierResult) -> Iterator[str]:
    """The test and the differences of restricted means, as a table's note says them."""
    if result.test is not None and math.isnan(result.test.p_value):
        yield f"{result.test.title[0].upper()}{result.test.title[1:]}: {NOT_COMPARED}."
    elif result.test is not None:
        within = f" within {listed([plain(name) for name in result.test.strata])}" if result.test.strata else ""
        title = f"{result.test.title[0].upper()}{result.test.title[1:]}"
        statistic = f"chi-squared {result.test.statistic:.2f}, df {result.test.df}"
        yield f"{title}{within}: {statistic}, {_p(result.test.p_value)}."
    for d in result.mean_differences:
        groups = [group_name(result.by, group) for group in (d.group, d.reference)]
        difference = interval_text(d.estimate, d.low, d.high)
        yield f"Difference of means, {groups[0]} less {groups[1]}: {difference}, {_p(d.p_value)}."


def _p(p_value: float) -> str:
    p = p_text(p_value)
    return f"p {p}" if p[0] in "<>" else f"p = {p}"


def _lines(result: KaplanMeierResult) -> str:
    """What the figure's bands and points are."""
    has_bands = sum(curve.is_shown for curve in result.curves) <= MAX_BANDS
    bands = f"Bands: pointwise {percent_text(result.confidence)} confidence intervals. " * has_bands
    if result.minimum_cell == 1:
        return f"{bands}Strokes: censored."
    return f"{bands}{THINNED}"


def _group_frame(result: KaplanMeierResult) -> pd.DataFrame:
    rows = {}
    for curve in result.curves:
        median, mean = median_of(curve), curve.restricted_mean
        row = {"Records": count_text(curve.num_records), "Events": count_text(curve.num_events)}
        if median is not None:
            row[f"Median ({percent_text(result.confidence)} CI)"] = _quantile_text(median, None)
        if mean is not None:
            row[f"Mean up to {mean.horizon:g}"] = interval_text(mean.estimate, mean.low, mean.high)
        rows[group_name(result.by, curve.group) or "All"] = row
    return pd.DataFrame.from_dict(rows, orient="index").fillna(ABSENT)


def _risk_frame(result: KaplanMeierResult) -> pd.DataFrame:
    rows = []
    for curve in result.curves:
        for at in curve.at_times:
            rows.append(
                {
                    "Group": group_name(result.by, curve.group) or "All",
                    "Time": f"{at.time:g}",
                    "Under observation": count_text(at.num_at_risk),
                    "Events": count_text(at.num_events),
                    "Survival": _survival_text(at),
                }
            )
    return pd.DataFrame(rows).set_index("Group")


def _survival_text(at: AtTime) -> str:
    if at.survival is None:
        return ABSENT
    if at.low is None or at.high is None:
        return f"{at.survival:.3f}"
    return f"{at.survival:.3f} ({at.low:.3f} to {at.high:.3f})"
