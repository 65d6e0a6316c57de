"""A generalised linear model in a report: table, forest plot, and the sentences of a methods section."""

from __future__ import annotations

import pandas as pd

from wardround.analytics.coefficient_table import coefficient_table, estimate_text
from wardround.analytics.glm_result import Coefficient, GLMResult, HypothesisTest
from wardround.analytics.journal_text import (
    count_text,
    fixed_text,
    listed,
    p_text,
    percent_text,
    plain_term,
)
from wardround.analytics.result import Exhibit, FigureExhibit, TableExhibit

RATIO_NAMES = {"logit": "Odds ratio", "log": "Ratio of means"}
"""What the exponential of a coefficient is, by link."""
_MODELS = {
    ("binomial", "logit"): "logistic regression",
    ("gaussian", "identity"): "linear regression",
    ("poisson", "log"): "Poisson regression",
}
_MOST_NAMED = 4
_REFERENCES = {
    "McCullagh": "McCullagh P, Nelder JA. Generalized Linear Models. 2nd ed. London: Chapman and Hall; 1989.",
    "Wu": "Wu Y, Jiang X, Kim J, Ohno-Machado L. Grid Binary LOgistic REgression (GLORE): building shared models "
    "without sharing data. J Am Med Inform Assoc 2012; 19(5): 758-764.",
    "MacKinnon": "MacKinnon JG, White H. Some heteroskedasticity-consistent covariance matrix estimators with improved "
    "finite sample properties. J Econometrics 1985; 29(3): 305-325.",
    "Liang": "Liang KY, Zeger SL. Longitudinal data analysis using generalized linear models. Biometrika 1986; 73(1): "
    "13-22.",
    "Hoerl": "Hoerl AE, Kennard RW. Ridge regression: biased estimation for nonorthogonal problems. Technometrics "
    "1970; 12(1): 55-67.",
}


def glm_methods(result: GLMResult) -> str:
    """What was computed, as a methods section says it."""
    kind = _MODELS.get((result.family, result.link), f"generalised linear model ({result.family}, link {result.link})")
    sites = f"{len(result.sites)} site{'s' * (len(result.sites) != 1)}"
    head = (
        f"The model {result.formula} was fitted by {kind} (McCullagh and Nelder 1989) to "
        f"{count_text(result.num_records)} records of {sites}. In each step of the iteration the gradient and the "
        "information matrix were summed over sites (Wu 2012), so that the estimates are those of the pooled records."
    )
    sentences = [
        head,
        f"Records with a missing value ({count_text(result.num_left_out)}) were left out.",
        _covariance(result),
    ]
    if result.l2 > 0:
        sentences.append(f"A ridge penalty of {result.l2:g} was applied (Hoerl and Kennard 1970).")
    if any(test.df > 1 for test in result.tests):
        which = "Likelihood-ratio" if result.tests[0].test == "likelihood_ratio" else "Wald"
        sentences.append(f"Terms of several coefficients were tested together by {which} tests.")
    return " ".join(sentences)


def _covariance(result: GLMResult) -> str:
    interval = f"{percent_text(result.confidence)} confidence intervals are from the {result.distribution} distribution"
    if result.covariance == "model":
        return f"Standard errors are model-based; {interval}."
    if result.covariance.startswith("cluster"):
        return f"Standard errors are robust, by clusters (Liang and Zeger 1986); {interval}."
    return f"Standard errors are robust, {result.covariance} (MacKinnon and White 1985); {interval}."


def glm_references(result: GLMResult) -> tuple[str, ...]:
    """Of the methods that were used."""
    text = glm_methods(result)
    return tuple(reference for name, reference in _REFERENCES.items() if f"({name} " in text)


def glm_headlines(result: GLMResult) -> tuple[str, ...]:
    """The coefficients that differ from zero most clearly, in a sentence."""
    level = 1 - result.confidence
    clear = sorted((c for c in _shown(result) if c.p_value < level), key=lambda c: -abs(c.statistic))
    outcome = _outcome(result)
    if not clear:
        return (f"No coefficient of the model for {outcome} differs from zero at the {100 * level:.3g}% level.",)
    name = RATIO_NAMES.get(result.link, "Coefficient").lower()
    parts = [
        f"{plain_term(c.term)} {estimate_text(c, is_ratio=result.link in RATIO_NAMES)}" for c in clear[:_MOST_NAMED]
    ]
    more = f"; {len(clear) - _MOST_NAMED} more are in the table" if len(clear) > _MOST_NAMED else ""
    said = f"{outcome}: {name} ({percent_text(result.confidence)} CI) of {'; '.join(parts)}{more}."
    return (said[:1].upper() + said[1:],)


def glm_exhibits(result: GLMResult) -> tuple[Exhibit, ...]:
    """The forest plot, the coefficients, tests of whole terms, the fit."""
    outcome = _outcome(result)
    exhibits: list[Exhibit] = []
    if _shown(result):
        name = RATIO_NAMES.get(result.link, "Coefficient")
        figure = FigureExhibit(
            title=f"{name}s for {outcome}, with {percent_text(result.confidence)} confidence intervals",
            draw=result.plot,
            description=" ".join(glm_headlines(result)),
            kind="forest",
        )
        exhibits.append(figure)
    note = f"Model: {result.formula}."
    if any(":" in plain_term(c.term) for c in _shown(result)):
        note += " A level is compared with the first level of its variable, which has no row."
    exhibits.append(
        TableExhibit(
            title=f"Model of {outcome}",
            frame=coefficient_table(result.terms, result.confidence, RATIO_NAMES.get(result.link)),
            note=note,
            kind="forest",
        )
    )
    several = [test for test in result.tests if test.df > 1]
    if several:
        exhibits.append(TableExhibit(title=f"Tests of terms of several coefficients, {outcome}", frame=_tests(several)))
    return (*exhibits, TableExhibit(title=f"Fit of the model of {outcome}", frame=_fit(result)))


def _outcome(result: GLMResult) -> str:
    return plain_term(result.outcome.removesuffix(" = True"))


def _shown(result: GLMResult) -> list[Coefficient]:
    return [coefficient for coefficient in result.terms if coefficient.term != "Intercept"]


def _tests(tests: list[HypothesisTest]) -> pd.DataFrame:
    rows = [
        {
            "Test": test.test.replace("_", "-").capitalize(),
            "Statistic": fixed_text(test.statistic, 2),
            "Degrees of freedom": test.df,
            "P value": p_text(test.p_value),
        }
        for test in tests
    ]
    return pd.DataFrame(rows, index=pd.Index([plain_term(test.term) for test in tests], name="Term"))


def _fit(result: GLMResult) -> pd.DataFrame:
    missing = {name: count for name, count in result.num_missing.items() if count is None or count}
    rows = {
        "Records": count_text(result.num_records),
        "Records left out (missing values)": count_text(result.num_left_out),
        "Missing by variable": listed([f"{plain_term(name)} {count_text(n)}" for name, n in missing.items()]) or "none",
        "Deviance (of the intercept alone)": f"{result.deviance:.1f} ({result.null_deviance:.1f})",
        "Log-likelihood": fixed_text(result.log_likelihood, 1),
        "AIC; BIC": f"{fixed_text(result.aic, 1)}; {fixed_text(result.bic, 1)}",
        "Dispersion": f"{result.dispersion:.4g}",
        "Iterations": str(result.num_iterations),
    }
    return pd.DataFrame({"Value": list(rows.values())}, index=pd.Index(list(rows), name=""))
