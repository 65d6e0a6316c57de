"""A Cox model as text, in a report, and drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from wardround.analytics.cox_hazards import ProportionalityTest
from wardround.analytics.cox_result import CoxResult, HazardRatio
from wardround.analytics.families import two_sided_quantile
from wardround.analytics.journal_text import (
    count_text,
    fixed_text,
    listed,
    p_text,
    percent_text,
    plain_term,
    ratio_interval,
    time_label,
)
from wardround.analytics.result import Exhibit, FigureExhibit, TableExhibit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_ROWS = 60
"""Most coefficients that the forest plot shows."""
MAX_CURVES = 6
"""Most strata whose baseline survival is drawn."""
LARGEST_RATIO = 1e4
"""Where ratios are cut off in the plot, and at one over it."""
_MOST_NAMED = 4
_NARROW = 10
_LINES = ("-", "--", ":", "-.", (0, (6, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))
_REFERENCES = {
    "Cox 1972": "Cox DR. Regression models and life-tables. J R Stat Soc B 1972; 34(2): 187-220.",
    "Efron 1977": "Efron B. The efficiency of Cox's likelihood function for censored data. J Am Stat Assoc 1977; "
    "72(359): 557-565.",
    "Breslow 1974": "Breslow N. Covariance analysis of censored survival data. Biometrics 1974; 30(1): 89-99.",
    "Lin and Wei 1989": "Lin DY, Wei LJ. The robust inference for the Cox proportional hazards model. J Am Stat Assoc "
    "1989; 84(408): 1074-1078.",
    "Grambsch and Therneau 1994": "Grambsch PM, Therneau TM. Proportional hazards tests and diagnostics based on "
    "weighted residuals. Biometrika 1994; 81(3): 515-526.",
    "Harrell 1982": "Harrell FE, Califf RM, Pryor DB, Lee KL, Rosati RA. Evaluating the yield of medical tests. JAMA "
    "1982; 247(18): 2543-2546.",
    "Tsiatis 1981": "Tsiatis AA. A large sample study of Cox's regression model. Ann Stat 1981; 9(1): 93-108.",
    "Hoerl and Kennard 1970": "Hoerl AE, Kennard RW. Ridge regression: biased estimation for nonorthogonal problems. "
    "Technometrics 1970; 12(1): 55-67.",
}


def cox_summary(result: CoxResult) -> str:
    """The fit as text."""
    left = [
        ("Time", time_label(result.time, result.unit)),
        ("Event", result.event),
        ("Ties", result.ties),
        ("Strata", ", ".join(result.strata) or "none"),
        ("Covariance", result.covariance),
        ("Sites", str(len(result.sites))),
    ]
    right = [
        ("Records", count_text(result.num_records)),
        ("Events", count_text(result.num_events)),
        ("Left out (missing)", count_text(result.num_left_out)),
        ("Log-likelihood", f"{result.log_likelihood:.6g}"),
        ("Null log-likelihood", f"{result.null_log_likelihood:.6g}"),
        ("Concordance", _concordance(result)),
    ]
    table = _text_table(result.terms, result.confidence)
    width = max(len(table[0]), 78)
    head = [
        f"{a + ':':<12}{' '.join(b.split())[:26]:<28}{c + ':':<21}{d:>{width - 61}}"
        for (a, b), (c, d) in zip(left, right, strict=True)
    ]
    tests = [
        f"{plain_term(test.name)}: chi2({test.df}) = {test.statistic:.5g}, p = {test.p_value:.3g}"
        for test in result.tests
    ]
    hazards = [
        f"Proportional hazards ({result.transform}), {_tested(test)}: chi2({test.df}) = {test.statistic:.4g}, "
        f"p = {test.p_value:.3g}"
        for test in result.proportionality
    ]
    title = "Federated Cox proportional hazards model".center(width)
    lines = [title, "=" * width, *head, "=" * width, *table, "=" * width, *tests, *hazards]
    return "\n".join([*lines, *result.notes])


def _tested(test: ProportionalityTest) -> str:
    return "all terms" if test.term == "GLOBAL" else plain_term(test.term)


def _concordance(result: CoxResult) -> str:
    found = result.concordance
    return "none" if found is None else f"{found.estimate:.4f} (se {found.standard_error:.4f})"


def _text_table(terms: tuple[HazardRatio, ...], confidence: float) -> list[str]:
    name_width = min(max([12, *(len(term.term) for term in terms)]), 40)
    tail = (1 - confidence) / 2
    heads = ["coef", "std err", "z", "P>|z|", "HR", f"[{tail:.3g}", f"{1 - tail:.3g}]"]
    rows = ["".join([" " * name_width, *(f"{head:>10}" for head in heads)])]
    rows.append("-" * len(rows[0]))
    for c in terms:
        name = " ".join(c.term.split())
        name = name if len(name) <= name_width else name[: name_width - 3] + "..."
        shown = [_number(c.estimate), _number(c.standard_error), f"{c.statistic:.2f}", f"{c.p_value:.3f}"]
        shown += [_number(value) for value in (c.ratio, c.ratio_low, c.ratio_high)]
        rows.append("".join([f"{name:<{name_width}}", *(f"{text:>10}" for text in shown)]))
    return rows


def _number(value: float) -> str:
    is_odd = value != 0 and not 1e-3 <= abs(value) < 1e5
    return f"{value:.3g}" if is_odd else f"{value:.4f}" if abs(value) < 100 else f"{value:.1f}"


def cox_methods(result: CoxResult) -> str:
    """What was computed, as a methods section says it."""
    ties = "Efron's method (Efron 1977)" if result.ties == "efron" else "Breslow's method (Breslow 1974)"
    sites = f"{len(result.sites)} site{'s' * (len(result.sites) != 1)}"
    head = (
        f"A Cox proportional hazards model (Cox 1972) of {result.formula} was fitted to "
        f"{count_text(result.num_records)} records of {sites}, of which {count_text(result.num_events)} had the event "
        f"({result.event}); the grid of times had steps of {result.step:.6g} {result.unit or ''}".rstrip()
        + f", and ties were treated by {ties}. Sums over risk sets, scores and information were added up over sites, "
        "so that the estimates are those of the pooled records."
    )
    sentences = [head]
    if result.strata:
        sentences.append(f"Baseline hazards were stratified by {listed(list(result.strata))}.")
    if result.entry:
        sentences.append(f"Follow-up began at {result.entry} (left truncation).")
    if result.weights:
        sentences.append(f"Records were weighted by {result.weights}.")
    if result.l2 > 0:
        sentences.append(f"A ridge penalty of {result.l2:g} was applied (Hoerl and Kennard 1970).")
    robust = result.covariance != "model"
    kind = (
        f"robust, {result.covariance.replace('robust', 'by records')} (Lin and Wei 1989)" if robust else "model-based"
    )
    sentences.append(f"Standard errors are {kind}; {percent_text(result.confidence)} confidence intervals are normal.")
    if result.proportionality:
        sentences.append(
            "Proportional hazards were tested by score tests of effects that change with time "
            f"({result.transform} transform; Grambsch and Therneau 1994)."
        )
    if result.concordance:
        sentences.append("Discrimination is Harrell's concordance (Harrell 1982).")
    if result.baselines:
        sentences.append("Intervals of predicted survival count the uncertainty of the coefficients (Tsiatis 1981).")
    return " ".join(sentences)


def cox_references(result: CoxResult) -> tuple[str, ...]:
    """Of the methods that were used."""
    text = cox_methods(result)
    return tuple(reference for name, reference in _REFERENCES.items() if name in text)


def cox_headlines(result: CoxResult) -> tuple[str, ...]:
    """The hazard ratios that differ from one most clearly, and a violation of proportional hazards."""
    level = 1 - result.confidence
    clear = sorted((c for c in result.terms if c.p_value < level), key=lambda c: -abs(c.statistic))
    if not clear:
        first = f"No hazard ratio for {_outcome(result)} differs from 1 at the {100 * level:.3g}% level."
    else:
        parts = [f"{plain_term(c.term)} {_ratio(c)}" for c in clear[:_MOST_NAMED]]
        more = f"; {len(clear) - _MOST_NAMED} more are in the table" if len(clear) > _MOST_NAMED else ""
        interval = percent_text(result.confidence)
        first = f"{_outcome(result)}: hazard ratio ({interval} CI) of {'; '.join(parts)}{more}."
    overall = next((test for test in result.proportionality if test.term == "GLOBAL"), None)
    if overall is None or not overall.p_value < level:
        return (first,)
    return first, f"Hazards are not proportional (p {_p(overall.p_value)}): each ratio is an average over follow-up."


def _p(p_value: float) -> str:
    text = p_text(p_value)
    return text if text.startswith(("<", ">")) else f"= {text}"


def _outcome(result: CoxResult) -> str:
    return plain_term(result.event.removesuffix(" = True").removesuffix(" = 1"))


def _ratio(c: HazardRatio) -> str:
    return ratio_interval(c.ratio, c.ratio_low, c.ratio_high)


def cox_exhibits(result: CoxResult) -> tuple[Exhibit, ...]:
    """The forest plot, the coefficients, the test of proportional hazards, the baseline survival, the fit."""
    outcome = _outcome(result)
    interval = percent_text(result.confidence)
    note = f"Model: {result.formula}."
    if result.strata:
        note += f" Stratified by {listed(list(result.strata))}."
    exhibits: list[Exhibit] = [
        FigureExhibit(
            title=f"Hazard ratios for {outcome}, with {interval} confidence intervals",
            draw=result.plot,
            description=cox_headlines(result)[0],
            kind="forest",
        ),
        TableExhibit(title=f"Cox model of {outcome}", frame=_coefficients(result), note=note, kind="forest"),
    ]
    if result.proportionality:
        exhibits.append(
            TableExhibit(
                title="Tests of proportional hazards",
                frame=_proportionality(result),
                note=f"Score tests of effects that change with time ({result.transform} transform).",
            )
        )
    if result.baselines:
        exhibits.append(_baseline_figure(result))
    return (*exhibits, TableExhibit(title=f"Fit of the Cox model of {outcome}", frame=_fit(result)))


def _coefficients(result: CoxResult) -> pd.DataFrame:
    interval = f"({percent_text(result.confidence)} CI)"
    rows: list[dict[str, Any]] = [
        {
            f"Hazard ratio {interval}": _ratio(c),
            "Coefficient": c.estimate,
            "Standard error": c.standard_error,
            "P value": p_text(c.p_value),
        }
        for c in result.terms
    ]
    return pd.DataFrame(rows, index=pd.Index([plain_term(c.term) for c in result.terms], name=""))


def _proportionality(result: CoxResult) -> pd.DataFrame:
    names = [_tested(test) for test in result.proportionality]
    rows = [
        {"Chi-squared": fixed_text(test.statistic, 2), "df": str(test.df), "P value": p_text(test.p_value)}
        for test in result.proportionality
    ]
    return pd.DataFrame(rows, index=pd.Index(names, name=""))


def _fit(result: CoxResult) -> pd.DataFrame:
    lines = {
        "Records": count_text(result.num_records),
        "Events": count_text(result.num_events),
        "Left out (missing values)": count_text(result.num_left_out),
        "Log-likelihood": fixed_text(result.log_likelihood, 2),
        "Log-likelihood without predictors": fixed_text(result.null_log_likelihood, 2),
        "AIC": fixed_text(result.aic, 2),
    }
    for test in result.tests:
        name = plain_term(test.name)
        lines[f"{name[:1].upper()}{name[1:]} test"] = (
            f"{fixed_text(test.statistic, 2)} on {test.df} df, p {_p(test.p_value)}"
        )
    found = result.concordance
    if found is not None:
        lines["Concordance"] = (
            f"{fixed_text(found.estimate, 3)} ({fixed_text(found.low, 3)} to {fixed_text(found.high, 3)})"
        )
    return pd.DataFrame({"Value": list(lines.values())}, index=pd.Index(list(lines), name=""))


def _baseline_figure(result: CoxResult) -> FigureExhibit:
    ends = [
        f"{curve.stratum or 'overall'} {np.exp(-curve.cumulative_hazard[-1]):.3f} at {curve.times[-1]:.6g}"
        for curve in result.baselines[:MAX_CURVES]
    ]
    return FigureExhibit(
        title="Survival of patients with average characteristics",
        draw=result.plot_baseline,
        description=f"Predicted survival at the last time shown: {'; '.join(ends)}.",
        note="Shown at times between which enough patients left; bands are pointwise confidence intervals.",
        kind="survival",
    )


def draw_ratios(result: CoxResult) -> Figure:
    """Forest plot of the hazard ratios, on a logarithmic axis."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from wardround.analytics.forest_plot import plain_ticks, shorten, write_beside

    rows = result.terms[:MAX_ROWS]
    limit = np.log(LARGEST_RATIO)
    values = np.exp(np.clip(np.array([(c.estimate, c.low, c.high) for c in rows]), -limit, limit))
    figure = Figure(figsize=(6.5, 0.34 * len(rows) + 1.1), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))[::-1]
    axes.hlines(places, values[:, 1], values[:, 2], color="C0", linewidth=1.6)
    axes.plot(values[:, 0], places, "s", color="C0", markersize=5)
    axes.axvline(1.0, color="black", linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xscale("log")
    plain_ticks(axes)
    low, high = axes.get_xlim()
    if high / low < _NARROW:  # where 1, 2 and 5 are too far apart
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_yticks(places, [shorten(plain_term(row.term)) for row in rows])
    for label in axes.get_yticklabels():
        label.set_parse_math(False)  # a dollar sign in a name is no mathematics
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    write_beside(axes, places, [ratio_interval(*row) for row in values.tolist()])
    part = f"; the first {len(rows)} of {len(result.terms)}" if len(result.terms) > len(rows) else ""
    axes.set_xlabel(f"Hazard ratio ({percent_text(result.confidence)} interval{part})")
    return figure


def draw_baselines(result: CoxResult) -> Figure:
    """Survival with average columns, by stratum, with pointwise intervals."""
    from matplotlib.figure import Figure

    from wardround.analytics.cox_predict import baseline_of, cumulative_hazards, survival_interval

    if not result.baselines:
        baseline_of(result, None)  # says why there is none
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    reach = two_sided_quantile(result.confidence, None)
    average = np.zeros((1, result.design.num_columns))
    curves = result.baselines[:MAX_CURVES]
    for number, (curve, line) in enumerate(zip(curves, _LINES, strict=False)):
        hazard, error = cumulative_hazards(result, curve, average, curve.times)
        ends = survival_interval(hazard[0], error[0], reach, "log")
        times = np.r_[0.0, curve.times]
        survival, low, high = (np.r_[1.0, part] for part in ends)
        axes.step(times, survival, where="post", color=f"C{number}", linestyle=line, label=curve.stratum or None)
        axes.fill_between(times, low, high, step="post", color=f"C{number}", alpha=0.15, linewidth=0)
    if len(curves) > 1:
        part = f" (the first {len(curves)} of {len(result.baselines)})" if len(result.baselines) > len(curves) else ""
        legend = axes.legend(frameon=False, title=f"Stratum{part}")
        for text in legend.get_texts():
            text.set_parse_math(False)
    axes.set_ylim(0, 1.02)
    axes.set_xlim(0, None)
    axes.set_xlabel(time_label(result.time, result.unit), parse_math=False)
    axes.set_ylabel("Survival with average characteristics")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
