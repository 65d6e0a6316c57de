"""A mixed model in a report: tables, the plot of the sites' effects, the sentences of a methods section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from wardround.analytics.coefficient_table import coefficient_table, estimate_text
from wardround.analytics.forest_plot import LARGEST_RATIO, plain_ticks, shorten, write_beside
from wardround.analytics.glm_result import Coefficient
from wardround.analytics.journal_text import (
    ABSENT,
    as_sentences,
    count_text,
    fixed_text,
    interval_text,
    p_relation,
    percent_text,
    plain_term,
    ratio_interval,
)
from wardround.analytics.mixed_result import MixedResult
from wardround.analytics.result import Exhibit, FigureExhibit, TableExhibit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_ROWS = 60
"""Most sites or coefficients that a figure shows."""
RATIO_NAMES = {"logit": "Odds ratio", "log": "Rate ratio"}
_INK, _GREY = "black", "0.45"
_MOST_NAMED = 3
_KINDS = {"gaussian": "linear", "binomial": "logistic", "poisson": "Poisson"}
_REFERENCES = {
    "Laird 1982": "Laird NM, Ware JH. Random-effects models for longitudinal data. Biometrics 1982; 38(4): 963-974.",
    "Bates 2015": "Bates D, M\u00e4chler M, Bolker B, Walker S. Fitting linear mixed-effects models using lme4. "
    "J Stat Softw 2015; 67(1): 1-48.",
    "Pinheiro 1995": "Pinheiro JC, Bates DM. Approximations to the log-likelihood function in the nonlinear mixed-"
    "effects model. J Comput Graph Stat 1995; 4(1): 12-35.",
    "Venzon 1988": "Venzon DJ, Moolgavkar SH. A method for computing profile-likelihood-based confidence intervals. "
    "Appl Stat 1988; 37(1): 87-94.",
    "Self 1987": "Self SG, Liang KY. Asymptotic properties of maximum likelihood estimators and likelihood ratio tests "
    "under nonstandard conditions. J Am Stat Assoc 1987; 82(398): 605-610.",
    "Larsen 2005": "Larsen K, Merlo J. Appropriate assessment of neighborhood effects on individual health. Am J "
    "Epidemiol 2005; 161(1): 81-88.",
}


def mixed_methods(result: MixedResult) -> str:
    """What was computed, as a methods section says it."""
    head = (
        f"A {_KINDS[result.family]} mixed model (Laird 1982; Bates 2015), {result.formula} with random effects "
        f"{result.random} of the {result.num_groups} sites, was fitted to {count_text(result.num_records)} records."
    )
    how = {
        "REML": "Variances are restricted maximum-likelihood estimates.",
        "ML": "All parameters are maximum-likelihood estimates.",
        "Laplace": "The likelihood was integrated by Laplace's approximation (Pinheiro 1995).",
        "adaptive quadrature": "The likelihood was integrated by adaptive Gauss-Hermite quadrature with "
        f"{result.quadrature_points} points (Pinheiro 1995).",
    }[result.method]
    sums = (
        "Each site computed its own part of the likelihood with its derivatives, and only their sums were seen, so "
        "that the fit is that of the pooled records."
    )
    sentences = [head, how, sums]
    if result.interval_method == "profile":
        sentences.append("The interval of the standard deviation between sites is from the profile of the likelihood ")
        sentences[-1] += "(Venzon 1988)."
    if result.test.is_mixture:
        sentences.append("The variance between sites was tested by a mixture of chi-squared distributions (Self 1987).")
    if result.median_odds_ratio is not None:
        sentences.append("The median ratio compares like patients of two sites drawn at random (Larsen 2005).")
    return " ".join(sentences)


def mixed_references(result: MixedResult) -> tuple[str, ...]:
    """Of the methods that were used."""
    text = mixed_methods(result)
    return tuple(reference for name, reference in _REFERENCES.items() if name in text)


def mixed_headlines(result: MixedResult) -> tuple[str, ...]:
    """How much the sites differ, and the clearest fixed effects, in a sentence each."""
    first = result.components[0]
    interval = "" if first.low is None or first.high is None else f" ({first.low:.3g} to {first.high:.3g})"
    differ = f"Sites differ with a standard deviation of {first.standard_deviation:.3g}{interval}"
    if result.icc is not None:
        differ += f", {100 * result.icc:.1f}% of the variance"
    if result.median_odds_ratio is not None:
        kind = "odds" if result.family == "binomial" else "rate"
        differ += f"; median {kind} ratio {result.median_odds_ratio:.2f}"
    shown = sorted((c for c in _slopes(result) if c.p_value < 1 - result.confidence), key=lambda c: -abs(c.statistic))
    parts = [
        f"{plain_term(c.term)} {estimate_text(c, is_ratio=result.link in RATIO_NAMES)}" for c in shown[:_MOST_NAMED]
    ]
    name = RATIO_NAMES.get(result.link, "Coefficient")
    clear = (f"{name} ({percent_text(result.confidence)} CI) of {'; '.join(parts)}.",) if parts else ()
    return (f"{differ}, P {p_relation(result.test.p_value)}.", *clear)


def mixed_exhibits(result: MixedResult) -> tuple[Exhibit, ...]:
    """Fixed effects, random effects, and the sites' effects where they were asked for."""
    outcome = plain_term(result.outcome.removesuffix(" = True"))
    exhibits: list[Exhibit] = []
    description = " ".join(mixed_headlines(result))
    if _slopes(result):
        exhibits.append(
            FigureExhibit(
                title=f"{RATIO_NAMES.get(result.link, 'Coefficient')}s for {outcome}, mixed model",
                draw=lambda: fixed_plot(result),
                description=description,
                kind="forest",
            )
        )
    if result.site_effects:
        exhibits.append(
            FigureExhibit(
                title=f"How the sites differ in {outcome}",
                draw=lambda: caterpillar(result),
                description=description,
                note="Random effects with intervals given the model's parameters.",
                kind="heterogeneity",
            )
        )
    note = f"Model: {result.formula}, random effects {result.random} by site. {result.method}."
    exhibits.append(
        TableExhibit(
            title=f"Mixed model of {outcome}",
            frame=coefficient_table(result.terms, result.confidence, RATIO_NAMES.get(result.link)),
            note=note,
            kind="forest",
        )
    )
    exhibits.append(
        TableExhibit(
            title=f"Differences between sites in {outcome}",
            frame=_between(result),
            note=as_sentences(result.notes),
            kind="heterogeneity",
        )
    )
    return tuple(exhibits)


def _slopes(result: MixedResult) -> list[Coefficient]:
    return [coefficient for coefficient in result.terms if coefficient.term != "Intercept"]


def _between(result: MixedResult) -> pd.DataFrame:
    rows = {}
    for c in result.components:
        name = "Within sites (residual)" if c.name == "Residual" else f"Between sites: {plain_term(c.name)}"
        interval = "" if c.low is None or c.high is None else f" ({c.low:.3g} to {c.high:.3g})"
        rows[f"{name}, standard deviation"] = f"{c.standard_deviation:.3g}{interval}"
    for pair in result.correlations:
        value = ABSENT if pair.correlation is None else fixed_text(pair.correlation, 2)
        rows[f"Correlation of {plain_term(pair.first)} and {plain_term(pair.second)}"] = value
    if result.icc is not None:
        interval = (
            ""
            if result.icc_low is None or result.icc_high is None
            else f" ({result.icc_low:.3f} to {result.icc_high:.3f})"
        )
        rows["Intraclass correlation"] = f"{result.icc:.3f}{interval}"
    if result.median_odds_ratio is not None:
        rows[f"Median {'odds' if result.family == 'binomial' else 'rate'} ratio"] = f"{result.median_odds_ratio:.2f}"
    rows["Without random effects"] = f"\u03c7\u00b2 = {result.test.statistic:.2f}, P {p_relation(result.test.p_value)}"
    rows["Records; sites"] = f"{count_text(result.num_records)}; {result.num_groups}"
    return pd.DataFrame({"Value": list(rows.values())}, index=pd.Index(list(rows), name=""))


def fixed_plot(result: MixedResult) -> Figure:
    """Fixed effects with intervals, the intercept left out; ratios on a logarithmic axis. Needs matplotlib."""
    terms = _slopes(result)[:MAX_ROWS]
    ends = np.array([[c.estimate, c.low, c.high] for c in terms]).reshape(len(terms), 3)
    is_ratio = result.link in RATIO_NAMES
    if is_ratio:
        limit = np.log(LARGEST_RATIO)
        ends = np.exp(np.clip(ends, -limit, limit))
    label = f"{RATIO_NAMES.get(result.link, 'Coefficient')} ({percent_text(result.confidence)} CI)"
    return _interval_plot([plain_term(c.term) for c in terms], ends, label, is_ratio=is_ratio)


def caterpillar(result: MixedResult) -> Figure:
    """The sites' random effects in the order of their size, one panel for each random effect. Needs matplotlib."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(effect.name for effect in result.site_effects))
    num_sites = min(MAX_ROWS, max(sum(e.name == name for e in result.site_effects) for name in names))
    size = (1.6 + 3.4 * len(names), 0.3 * num_sites + 1.2)
    figure = Figure(figsize=size, layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        rows = sorted((e for e in result.site_effects if e.name == name), key=lambda e: -e.effect)[:MAX_ROWS]
        ends = np.array([[e.effect, e.low, e.high] for e in rows])
        _draw(axes, [e.site for e in rows], ends)
        axes.axvline(0.0, color=_GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        axes.set_xlabel(f"Random effect: {shorten(plain_term(name))}", color=_INK)
    return figure


def _interval_plot(labels: list[str], ends: Any, label: str, *, is_ratio: bool) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 0.34 * max(len(labels), 1) + 1.1), layout="constrained")
    axes = figure.subplots()
    _draw(axes, labels, ends)
    axes.axvline(1.0 if is_ratio else 0.0, color=_GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    if is_ratio and labels:
        axes.set_xscale("log")
        plain_ticks(axes)
    in_words = ratio_interval if is_ratio else interval_text
    write_beside(axes, np.arange(len(labels))[::-1], [in_words(*row) for row in ends.tolist()])
    axes.set_xlabel(label, color=_INK)
    return figure


def _draw(axes: Any, labels: list[str], ends: Any) -> None:
    places = np.arange(len(labels))[::-1]
    axes.hlines(places, ends[:, 1], ends[:, 2], color="C0", linewidth=1.6)
    axes.plot(ends[:, 0], places, "s", color="C0", markersize=5)
    axes.set_yticks(places, [shorten(label) for label in labels])
    for text in axes.get_yticklabels():
        text.set_parse_math(False)  # a dollar sign in a name is no mathematics
    axes.set_ylim(-0.7, len(labels) - 0.3)
    axes.tick_params(axis="y", length=0, colors=_INK)
    axes.tick_params(axis="x", colors=_INK)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
