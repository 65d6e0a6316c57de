"""A regression after multiple imputation in a report: forest, tables, course of the chains, sentences."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from wardround.analytics.coefficient_table import estimate_text
from wardround.analytics.glm_exhibits import RATIO_NAMES
from wardround.analytics.imputed_result import ImputedResult, ImputedVariable, PooledTerm
from wardround.analytics.journal_text import (
    ABSENT,
    fixed_text,
    listed,
    p_text,
    percent_text,
    plain_term,
)
from wardround.analytics.result import Exhibit, FigureExhibit, TableExhibit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_ROWS = 40
"""Most coefficients that the forest plot shows."""
MAX_COURSES = 6
"""Most variables whose chains are drawn."""
LARGEST_RATIO = 1e4
_REFERENCES = {
    "van Buuren": "van Buuren S, Groothuis-Oudshoorn K. mice: Multivariate Imputation by Chained Equations in R. J "
    "Stat Softw 2011; 45(3): 1-67.",
    "Rubin": "Rubin DB. Multiple Imputation for Nonresponse in Surveys. New York: Wiley; 1987.",
    "Barnard": "Barnard J, Rubin DB. Small-sample degrees of freedom with multiple imputation. Biometrika 1999; 86(4): "
    "948-955.",
    "White": "White IR, Daniel R, Royston P. Avoiding bias due to perfect prediction in multiple imputation of "
    "incomplete categorical variables. Comput Stat Data Anal 2010; 54(10): 2267-2275.",
    "Little": "Little RJA. Missing-data adjustments in large surveys. J Bus Econ Stat 1988; 6(3): 287-296.",
    "Li": "Li KH, Raghunathan TE, Rubin DB. Large-sample significance levels from multiply imputed data using "
    "moment-based statistics and an F reference distribution. J Am Stat Assoc 1991; 86(416): 1065-1073.",
    "Cox": "Cox DR. Regression models and life-tables. J R Stat Soc B 1972; 34(2): 187-220.",
    "White and Royston": "White IR, Royston P. Imputing missing covariate values for the Cox model. Stat Med 2009; "
    "28(15): 1982-1998.",
    "Gelman": "Gelman A, Rubin DB. Inference from iterative simulation using multiple sequences. Stat Sci 1992; 7(4): "
    "457-472.",
}


def imputed_methods(result: ImputedResult) -> str:
    """What was done, as a methods section says it."""
    incomplete = [v for v in result.variables if v.model]
    if not incomplete:
        return f"No variable of the model {result.formula} had a missing value; it was fitted to all records."
    models = {v.model for v in incomplete}
    how = (
        f"Missing values were imputed {result.num_imputations} times by chained equations (van Buuren 2011) with "
        f"{result.num_iterations} iterations. The imputation models were fitted to the records of {len(result.sites)} "
        "sites together, from sums; each site drew its own missing values from them, and no imputed value left it."
    )
    analysed = (
        f"{_model(result)} was fitted to each completed copy, and the "
        "fits were pooled by Rubin's rules (Rubin 1987) with small-sample degrees of freedom (Barnard 1999)."
    )
    sentences = [
        how,
        f"The models held the variables {listed([v.variable for v in result.variables])}"
        + (", and an intercept for each site." if result.imputes_by_site else "."),
        _draws(models, result.num_donors),
        analysed,
    ]
    if result.tests:
        sentences.append("Terms of several coefficients were tested together by the statistic D1 (Li 1991).")
    if any(v.scale_reduction is not None for v in incomplete):
        sentences.append(
            "Convergence was judged by the course of the imputed values' means and their potential scale reduction "
            "(Gelman 1992)."
        )
    return " ".join(sentences)


def _model(result: ImputedResult) -> str:
    if result.family == "cox":
        return (
            f"The proportional hazards model {result.formula} (Cox 1972), whose event and cumulative hazard the "
            "imputation models held (White and Royston 2009),"
        )
    return f"The model {result.formula} ({result.family}, link {result.link})"


def _draws(models: set[str | None], num_donors: int) -> str:
    drawn = []
    if "linear" in models:
        drawn.append("numbers from Bayesian linear regression")
    if "predictive mean matching" in models:
        drawn.append(f"numbers by predictive mean matching with {num_donors} donors of the same site (Little 1988)")
    if "logistic" in models:
        drawn.append("categories from multinomial logistic regression with augmented data (White 2010)")
    return f"Drawn were {' and '.join(drawn)}."


def imputed_references(result: ImputedResult) -> tuple[str, ...]:
    """Of the methods that were used."""
    text = imputed_methods(result)
    return tuple(reference for name, reference in _REFERENCES.items() if re.search(rf"\({name} \d", text))


def imputed_headlines(result: ImputedResult) -> tuple[str, ...]:
    """What was missing, and the coefficients that differ from zero most clearly."""
    incomplete = sorted((v for v in result.variables if v.share_missing), key=lambda v: -(v.share_missing or 0.0))
    most = listed([f"{v.variable} ({100 * (v.share_missing or 0.0):.0f}%)" for v in incomplete[:3]])
    told = [f"Missing most often: {most}." if incomplete else "Nothing is missing."]
    level = 1 - result.confidence
    clear = sorted((t for t in _shown(result) if t.p_value < level), key=lambda t: t.p_value)
    if clear:
        name = ratio_name(result).lower()
        parts = [f"{plain_term(t.term)} {estimate_text(t, is_ratio=result.link in RATIO_NAMES)}" for t in clear[:4]]
        told.append(f"{_outcome(result)}: {name} ({percent_text(result.confidence)} CI) of {'; '.join(parts)}.")
    return tuple(told)


def imputed_exhibits(result: ImputedResult) -> tuple[Exhibit, ...]:
    """Forest plot, pooled coefficients, missing values, convergence."""
    name = ratio_name(result)
    exhibits: list[Exhibit] = []
    if _shown(result):
        exhibits.append(
            FigureExhibit(
                title=f"{name}s for {_outcome(result)} after multiple imputation",
                draw=result.plot,
                description=" ".join(imputed_headlines(result)),
                kind="forest",
            )
        )
    exhibits.append(
        TableExhibit(
            title=f"Model of {_outcome(result)} after multiple imputation",
            frame=_coefficients(result),
            note=f"Model: {result.formula}. FMI: fraction of missing information.",
            kind="forest",
        )
    )
    exhibits.append(TableExhibit(title="Missing values and how they were imputed", frame=_missing(result)))
    drawn = _drawn(result)
    if drawn:
        exhibits.append(
            FigureExhibit(
                title="Course of the imputed values",
                draw=lambda: courses(result),
                description=_mixing(drawn),
                note="A line a completed copy. Lines that cross freely and show no trend have settled.",
            )
        )
    return tuple(exhibits)


def ratio_name(result: ImputedResult) -> str:
    """What the exponential of a coefficient is, or "Coefficient" where it is none's."""
    return "Hazard ratio" if result.family == "cox" else RATIO_NAMES.get(result.link, "Coefficient")


def _outcome(result: ImputedResult) -> str:
    return plain_term(result.outcome.removesuffix(" = True"))


def _shown(result: ImputedResult) -> list[PooledTerm]:
    return [term for term in result.terms if term.term != "Intercept"]


def _coefficients(result: ImputedResult) -> pd.DataFrame:
    name = f"{ratio_name(result)} ({percent_text(result.confidence)} CI)"
    complete = {term.term: term for term in result.complete_cases or ()}
    rows = {}
    for term in _shown(result):
        row = {
            name: estimate_text(term, is_ratio=result.link in RATIO_NAMES),
            "p": p_text(term.p_value),
            "FMI": fixed_text(term.fmi, 2),
        }
        if result.complete_cases is not None:
            other = complete.get(term.term)
            row["Complete records only"] = (
                ABSENT if other is None else estimate_text(other, is_ratio=result.link in RATIO_NAMES)
            )
        rows[plain_term(term.term)] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _missing(result: ImputedResult) -> pd.DataFrame:
    rows = {
        v.variable: {
            "Role": v.role,
            "Missing": _missing_text(result, v),
            "Sites without any value": _sites_text(v),
            "Imputed by": v.model or ABSENT,
        }
        for v in result.variables
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def _missing_text(result: ImputedResult, variable: ImputedVariable) -> str:
    return "0" if variable.model is None else result.missing_text(variable)


def _sites_text(variable: ImputedVariable) -> str:
    if variable.sites_without:
        return ", ".join(variable.sites_without)
    return "1 or more" if variable.absent_sites is None else str(variable.absent_sites)


def _drawn(result: ImputedResult) -> list[ImputedVariable]:
    found = [v for v in result.variables if v.mean is not None and len(v.mean) > 1]
    return sorted(found, key=lambda v: -(v.share_missing or 0.0))[:MAX_COURSES]


def _mixing(drawn: list[ImputedVariable]) -> str:
    known = [(v.scale_reduction, v.variable) for v in drawn if v.scale_reduction is not None]
    if not known:
        return "Too few iterations to judge whether the copies have mixed."
    worst, name = max(known)
    return f"Largest potential scale reduction of the means: {worst:.2f} ({name}); near 1 the copies have mixed."


def courses(result: ImputedResult) -> Figure:
    """Means and standard deviations of the imputed values by iteration, a line a copy."""
    from matplotlib.figure import Figure

    drawn = _drawn(result)
    figure = Figure(figsize=(6.5, 1.2 + 1.4 * max(len(drawn), 1)), layout="constrained")
    axes = figure.subplots(max(len(drawn), 1), 2, squeeze=False, sharex=True)
    for row, variable in enumerate(drawn):
        for place, values in ((0, variable.mean), (1, variable.deviation)):
            if values is not None:
                axes[row, place].plot(np.arange(1, len(values) + 1), values, linewidth=0.7, alpha=0.7)
            axes[row, place].spines[["top", "right"]].set_visible(False)
            axes[row, place].locator_params(axis="y", nbins=4)
            axes[row, place].locator_params(axis="x", integer=True)
        axes[row, 0].set_ylabel(variable.variable[:20]).set_parse_math(False)
    axes[0, 0].set_title("Mean of the imputed", fontsize="medium")
    axes[0, 1].set_title("Their standard deviation", fontsize="medium")
    for axis in axes[-1]:
        axis.set_xlabel("iteration")
    return figure


def forest(result: ImputedResult) -> Figure:
    """Pooled coefficients with intervals, beside those of the complete records; ratios for logit and log links."""
    from matplotlib.figure import Figure

    terms = _shown(result)[:MAX_ROWS]
    complete = {term.term: term for term in result.complete_cases or ()}
    others = [complete.get(term.term) for term in terms]
    is_ratio = result.link in RATIO_NAMES
    figure = Figure(figsize=(6.5, 1.3 + 0.42 * max(len(terms), 1)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(terms))[::-1]
    shift = 0.13 if complete else 0.0
    _intervals(axes, terms, places + shift, is_ratio, color="C0", marker="s", label="after imputation")
    if complete:
        kept = [(term, place) for term, place in zip(others, places, strict=True) if term is not None]
        rows, at = [term for term, _ in kept], np.array([place for _, place in kept])
        _intervals(axes, rows, at - shift, is_ratio, color="C1", marker="o", label="complete records only", style=":")
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    axes.axvline(1.0 if is_ratio else 0.0, color="black", linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_yticks(places, [plain_term(term.term)[:40] for term in terms])
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
    if is_ratio and terms:
        _ratio_axis(axes)
    axes.set_xlabel(f"{ratio_name(result)} ({percent_text(result.confidence)} interval)")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _ratio_axis(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 100 else (1.0,), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _intervals(
    axes: Any, terms: Any, places: Any, is_ratio: bool, *, color: str, marker: str, label: str, style: str = "-"
) -> None:
    values = np.array([[term.estimate, term.low, term.high] for term in terms], float).reshape(-1, 3).T
    if is_ratio:
        limit = np.log(LARGEST_RATIO)
        values = np.exp(np.clip(values, -limit, limit))
    axes.hlines(places, values[1], values[2], color=color, linewidth=1.5, linestyle=style)
    axes.plot(values[0], places, marker, color=color, markersize=5, linestyle="none", label=label)
