"""A meta-analysis in a report: forest plots, tables, and the sentences of a methods section."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd

from wardround.analytics.journal_text import (
    ABSENT,
    as_sentences,
    count_text,
    fixed_text,
    p_text,
    percent_text,
    plain_term,
)
from wardround.analytics.meta_analysis_result import MetaAnalysisResult, MetaCoefficient
from wardround.analytics.result import Exhibit, FigureExhibit, TableExhibit

MAX_FIGURES = 8
"""Most coefficients that have a forest plot, and rows in the table of estimates without each site."""
_MOST_NAMED = 3
_METHODS = {
    "DL": "DerSimonian and Laird's moment estimator (DerSimonian 1986)",
    "REML": "restricted maximum likelihood (Viechtbauer 2005)",
    "ML": "maximum likelihood (Viechtbauer 2005)",
    "PM": "Paule and Mandel's estimator (Paule 1982)",
    "EB": "the empirical Bayes estimator (Morris 1983)",
}
_REFERENCES = {
    "DerSimonian 1986": "DerSimonian R, Laird N. Meta-analysis in clinical trials. Control Clin Trials 1986; 7(3): "
    "177-188.",
    "Viechtbauer 2005": "Viechtbauer W. Bias and efficiency of meta-analytic variance estimators in the random-effects "
    "model. J Educ Behav Stat 2005; 30(3): 261-293.",
    "Paule 1982": "Paule RC, Mandel J. Consensus values and weighting factors. J Res Natl Bur Stand 1982; 87(5): "
    "377-385.",
    "Morris 1983": "Morris CN. Parametric empirical Bayes inference: theory and applications. J Am Stat Assoc 1983; "
    "78(381): 47-55.",
    "Higgins 2002": "Higgins JPT, Thompson SG. Quantifying heterogeneity in a meta-analysis. Stat Med 2002; 21(11): "
    "1539-1558.",
    "Viechtbauer 2007": "Viechtbauer W. Confidence intervals for the amount of heterogeneity in meta-analysis. "
    "Stat Med 2007; 26(1): 37-52.",
    "Higgins 2009": "Higgins JPT, Thompson SG, Spiegelhalter DJ. A re-evaluation of random-effects meta-analysis. J R "
    "Stat Soc A 2009; 172(1): 137-159.",
    "Knapp 2003": "Knapp G, Hartung J. Improved tests for a random effects meta-regression with a single covariate. "
    "Stat Med 2003; 22(17): 2693-2710.",
}


def meta_methods(result: MetaAnalysisResult) -> str:
    """What was computed, as a methods section says it."""
    num_fitted = sum(fit.is_fitted for fit in result.sites)
    kind = "a Cox model" if result.family == "cox" else f"a {result.family} model with link {result.link}"
    models = (
        f"Each of {num_fitted} sites fitted {kind}, {result.formula}, to its own records, over columns that were the "
        "same at all sites."
    )
    combined = (
        "Its coefficients were combined one by one by fixed effect (inverse variance) and by random effects, the "
        f"variance between sites estimated by {_METHODS[result.method]}."
    )
    spread = (
        "Heterogeneity is described by Cochran's Q and I\N{SUPERSCRIPT TWO} (Higgins 2002) with Q-profile intervals "
        "(Viechtbauer 2007), and by the prediction interval for a further site (Higgins 2009)."
    )
    sentences = [models, combined, spread]
    if result.knapp_hartung:
        sentences.append("Random-effects intervals are those of Knapp and Hartung (Knapp 2003).")
    if any(c.exact for c in result.coefficients):
        sentences.append(
            "Beside them stands the same model fitted to the records of all sites together by exact sums, which needs "
            "no estimate of any single site."
        )
    return " ".join(sentences)


def meta_references(result: MetaAnalysisResult) -> tuple[str, ...]:
    """Of the methods that were used."""
    text = meta_methods(result)
    return tuple(reference for name, reference in _REFERENCES.items() if f"({name})" in text)


def _shown(result: MetaAnalysisResult) -> list[MetaCoefficient]:
    return [c for c in result.coefficients if c.term != "Intercept"]


def _sentence(result: MetaAnalysisResult, c: MetaCoefficient) -> str:
    one = c.combination
    name = (result.ratio_name or "Coefficient").lower()
    exact = "" if c.exact is None else f"; of all records together {result.text_of(c.exact)}"
    return (
        f"{plain_term(c.term)}: {name} by random effects {result.text_of(one.random)}, by fixed effect "
        f"{result.text_of(one.fixed)}{exact}; I\N{SUPERSCRIPT TWO} {100 * one.heterogeneity.i2:.0f}%."
    )


def meta_headlines(result: MetaAnalysisResult) -> tuple[str, ...]:
    """What the first coefficients come to, in a sentence each."""
    return tuple(_sentence(result, c) for c in _shown(result)[:_MOST_NAMED])


def meta_exhibits(result: MetaAnalysisResult) -> tuple[Exhibit, ...]:
    """Forest plots, the combined estimates, the sites, and the estimates without each."""
    shown = _shown(result) or list(result.coefficients)
    name = result.ratio_name or "Coefficient"
    figures = [
        FigureExhibit(
            title=f"{name} of {plain_term(c.term)} for {plain_term(result.outcome)}, by site and combined",
            draw=partial(result.plot, c.term),
            description=_sentence(result, c),
            note="Squares: sites, their area by their weight. Diamonds: combined. Dot: the federated fit.",
            kind="forest",
        )
        for c in shown[:MAX_FIGURES]
    ]
    tables = [
        TableExhibit(
            title="Combined estimates and the exact fit", frame=_combined(result), note=_note(result), kind="forest"
        ),
        TableExhibit(title="The sites' own fits", frame=_sites(result), note=as_sentences(result.notes), kind="forest"),
    ]
    if any(c.combination.without for c in shown):
        tables.append(TableExhibit(title="Random effects without each site", frame=_without(result, shown)))
    return (*figures, *tables)


def _note(result: MetaAnalysisResult) -> str:
    interval = "Knapp and Hartung's" if result.knapp_hartung else "normal"
    return (
        f"Intervals: {percent_text(result.confidence)}, random effects {interval}. The variance between sites "
        f"(\N{GREEK SMALL LETTER TAU}\N{SUPERSCRIPT TWO}) by {result.method}. "
        "The federated fit is the one of the pooled records."
    )


def _combined(result: MetaAnalysisResult) -> pd.DataFrame:
    what = f"{result.ratio_name or 'Coefficient'} ({percent_text(result.confidence)} CI)"
    rows: list[dict[str, Any]] = []
    for c in result.coefficients:
        one, spread = c.combination, c.combination.heterogeneity
        predicted = ABSENT
        if one.predicted_low is not None and one.predicted_high is not None:
            text = result.interval(one.random.estimate, one.predicted_low, one.predicted_high)
            predicted = text[text.index("(") + 1 : -1]
        rows.append(
            {
                f"Fixed effect: {what}": result.text_of(one.fixed),
                f"Random effects: {what}": result.text_of(one.random),
                "Prediction interval": predicted,
                f"Federated: {what}": ABSENT if c.exact is None else result.text_of(c.exact),
                "I\N{SUPERSCRIPT TWO}": f"{100 * spread.i2:.0f}%",
                "\N{GREEK SMALL LETTER TAU}\N{SUPERSCRIPT TWO}": fixed_text(spread.tau2, 4),
                "P (Q)": p_text(spread.p_value),
            }
        )
    return pd.DataFrame(rows, index=pd.Index([plain_term(c.term) for c in result.coefficients], name=""))


def _sites(result: MetaAnalysisResult) -> pd.DataFrame:
    rows = []
    for fit in result.sites:
        row = {"Records": count_text(fit.num_records)}
        if result.has_events:
            row["Events"] = count_text(fit.num_events)
        rows.append({**row, "Own fit": fit.status})
    return pd.DataFrame(rows, index=pd.Index([fit.site for fit in result.sites], name="Site"))


def _without(result: MetaAnalysisResult, shown: list[MetaCoefficient]) -> pd.DataFrame:
    columns = {
        plain_term(c.term): [result.interval(w.estimate, w.low, w.high) for w in c.combination.without]
        for c in shown[:MAX_FIGURES]
    }
    labels = [one.left_out for one in shown[0].combination.without]
    return pd.DataFrame(columns, index=pd.Index([f"without {label}" for label in labels], name=""))
