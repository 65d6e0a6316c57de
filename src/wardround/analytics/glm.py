"""Generalised linear models, exactly as the pooled records would give them.

Iteratively reweighted least squares needs, at each step, only sums over records: the weighted Gram matrix
`X'WX`, the score and the deviance. The sites compute these (`glm_sums.py`, `glm_finish.py`); the coordinator
solves (`glm_fit.py`), and chooses a penalty (`glm_penalty.py`).

References:
    McCullagh & Nelder (1989), Generalized Linear Models, 2nd ed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.design import Column, Design
from wardround.analytics.families import FAMILIES, FamilyName, LinkName
from wardround.analytics.glm_disclosed import disclosed
from wardround.analytics.glm_finish import Covariance, finish
from wardround.analytics.glm_fit import Fit, fit_model, separated
from wardround.analytics.glm_penalty import MAX_FOLDS, cross_validate, fold_terms, penalty_unit, square_sums
from wardround.analytics.glm_result import GLMResult, PenaltyScore, Units, summarise
from wardround.analytics.glm_sums import Model, Terms, first_terms, terms
from wardround.analytics.linear import independent_columns, pack_symmetric, solve_symmetric, unpack_symmetric
from wardround.analytics.preparation import CONSTANT_SPREAD, SMALLEST_SCALE, Extras, Prepared, prepare
from wardround.analytics.steady_sites import with_steady_sites
from wardround.data.contract import Setting
from wardround.errors import ConfigError, DataError, ModelError, RankDeficiencyError
from wardround.sums import Steps, ask, workflow

Values = NDArray[np.float64]


@workflow("glm", version=1)
def glm(
    setting: Setting,
    formula: str,
    family: FamilyName = "gaussian",
    link: LinkName | None = None,
    offset: str | None = None,
    frequency_weights: str | None = None,
    variance_weights: str | None = None,
    l2: float | Literal["cross-validated"] = 0.0,
    l2_scale: Literal["standardized", "raw"] = "standardized",
    num_folds: int = 5,
    covariance: Covariance = "model",
    cluster: str | None = None,
    site_intercepts: bool = False,
    aliased: Literal["refuse", "drop"] = "refuse",
    term_tests: Literal["wald", "likelihood_ratio"] = "wald",
    use_t: bool = False,
    confidence: float = 0.95,
) -> Steps[GLMResult]:
    """Generalised linear model, equal to the fit of the pooled records.

    Args:
        setting: contract and sites.
        formula: `outcome ~ predictors`, as in R, patsy or formulaic; see `formula.py` for what it may hold.
        family: distribution of the outcome.
        link: None for the family's canonical link. Means that a link makes possible and the family does not
            are drawn back from; where the maximum lies on that edge, the iteration is said not to settle.
        offset: expression added to the linear predictor.
        frequency_weights: variable that says how many records a row stands for.
        variance_weights: variable of prior weights (a proportion's denominator); records of weight 0 are not counted.
        l2: ridge penalty: half of it times the squared norm of the coefficients, the intercept left out, is
            added to half the deviance; or "cross-validated".
        l2_scale: whether the penalty is on coefficients of columns with standard deviation 1 (without an
            intercept: root mean square 1), or of raw columns.
        num_folds: folds of the cross-validation; a patient's records are in one.
        covariance: of the estimates: model-based, robust (HC0 to HC3), or by clusters.
        cluster: variable whose values are the clusters, or "patient" (the default) or "site".
        site_intercepts: whether each site has an intercept of its own.
        aliased: what to do about columns that are combinations of others.
        term_tests: how the terms are tested: together by Wald tests (each given all others, as SAS's type III
            with treatment coding), or by leaving each out that is part of no interaction, as R's `drop1`.
        use_t: t instead of normal quantiles (families with a dispersion).
        confidence: of the intervals.

    Raises:
        ConfigError: an option or the formula is wrong, before anything is asked.
        DataError: the outcome does not fit the family, or nothing is left to compute on.
        ModelError: rank deficiency, separation, no convergence, as many columns as records.

    Guarantees:
        equals_pooled: estimates, standard errors, p-values and deviance are those of the pooled records.
    """
    model = _model(family, link)
    _check_options(setting, l2, num_folds, covariance, cluster, confidence, use_t, family, term_tests)
    extras = Extras(
        offset=offset,
        frequency_weights=frequency_weights,
        variance_weights=variance_weights,
        also_required=() if cluster in (None, "patient", "site") else (str(cluster),),
        site_intercepts=site_intercepts,
    )
    options = _Options(
        formula=formula,
        model=model,
        extras=extras,
        l2=l2,
        l2_scale=l2_scale,
        num_folds=num_folds,
        covariance=covariance,
        cluster=cluster or "patient",
        aliased=aliased,
        term_tests=term_tests,
        use_t=use_t,
        confidence=confidence,
    )
    return (yield from with_steady_sites(lambda: _attempt(setting, options), len(setting.sites)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The options of `glm`, checked."""

    formula: str
    model: Model
    extras: Extras
    l2: float | str
    l2_scale: str
    num_folds: int
    covariance: Covariance
    cluster: str
    aliased: str
    term_tests: str
    use_t: bool
    confidence: float


def _attempt(setting: Setting, options: _Options) -> Steps[GLMResult]:
    """Prepare, fit and finish, over one set of sites."""
    model = options.model
    prepared = yield from prepare(setting, options.formula, options.extras)
    prepared, units = in_own_units(prepared, model)
    first = yield from ask(first_terms, prepared.design, prepared.frame, model, prepared.outcome_mean)
    prepared, dropped, first_sum = _full_rank(prepared, first.sum, options)
    unit = (yield from penalty_unit(prepared, options.l2, options.l2_scale)) * units.penalty
    l2, path = options.l2, tuple[PenaltyScore, ...]()
    if isinstance(l2, str):
        l2, path = yield from cross_validate(prepared, model, unit, options.num_folds)
    fit = yield from fit_model(prepared, model, l2 * unit, first_sum)
    null_mean, null_deviance = yield from _null(prepared, model)
    dispersion = _dispersion(fit, model, prepared.design.num_columns)
    bread = solve_symmetric(fit.gram + np.diag(l2 * unit), np.eye(prepared.design.num_columns))
    # A gaussian's likelihood is reported at the dispersion that maximises it.
    at = fit.total.sum.deviance / fit.total.sum.num_rows if model.family == "gaussian" else dispersion
    ended = yield from ask(
        finish,
        prepared.design,
        prepared.frame,
        model,
        fit.coefficients,
        null_mean,
        at if at > 0 else 1.0,
        bread,
        options.covariance,
        options.cluster,
    )
    is_likelihood = options.term_tests == "likelihood_ratio"
    tests = (yield from _likelihood_ratios(prepared, model, fit)) if is_likelihood else None
    result = summarise(
        formula=options.formula,
        model=(model.family, model.link),
        prepared=prepared,
        fit=(fit.coefficients, fit.gram, fit.num_iterations),
        sums=fit.total.sum,
        finish=ended.sum,
        sites=fit.total.sites,
        null_deviance=null_deviance,
        dispersion=dispersion,
        bread=bread,
        covariance=(options.covariance, options.cluster),
        penalty=(l2, options.l2_scale, path),
        dropped=dropped,
        likelihood_ratios=tests,
        use_t=options.use_t,
        confidence=options.confidence,
        units=units,
    )
    return disclosed(result, setting.disclosure)


def in_own_units(prepared: Prepared, model: Model) -> tuple[Prepared, Units]:
    """The outcome in a unit of its own size, a power of two, so that its sums keep their digits.

    Raises:
        DataError: the outcome is the same in all records, or spreads less than can be summed.
    """
    if not FAMILIES[model.family].has_scale:
        return prepared, Units()
    size = prepared.outcome_spread if model.family == "gaussian" else prepared.outcome_mean
    is_constant = model.family == "gaussian" and size <= CONSTANT_SPREAD * abs(prepared.outcome_mean)
    if size < SMALLEST_SCALE or is_constant:
        raise DataError(
            f"the outcome {prepared.outcome_name!r} is the same in all complete records, or in too large a unit"
        )
    scale = 2.0 ** round(np.log2(size))
    units = Units.of(scale, is_gaussian=model.family == "gaussian", link=model.link)
    frame = replace(
        prepared.frame,
        outcome_scale=scale,
        offset_scale=units.predictor,
        offset_shift=-float(np.log(scale)) if model.link == "log" else 0.0,
    )
    return replace(prepared, frame=frame, outcome_mean=prepared.outcome_mean / scale), units


def _model(family: FamilyName, link: LinkName | None) -> Model:
    allowed = FAMILIES[family].links
    if link is not None and link not in allowed:
        raise ConfigError(f"link: a {family} model has the links {', '.join(allowed)}, got {link!r}")
    return Model(family=family, link=link or allowed[0])


def _check_options(
    setting: Setting,
    l2: float | str,
    num_folds: int,
    covariance: Covariance,
    cluster: str | None,
    confidence: float,
    use_t: bool,
    family: FamilyName,
    term_tests: str,
) -> None:
    if isinstance(l2, float) and not 0 <= l2 < np.inf:
        raise ConfigError(f"l2: must be 0 or more, got {l2}")
    if term_tests == "likelihood_ratio" and l2 != 0:
        raise ConfigError("term_tests: likelihood ratios of a penalised fit have no known distribution; set l2 = 0")
    if not 2 <= num_folds <= MAX_FOLDS:
        raise ConfigError(f"num_folds: must be in [2, {MAX_FOLDS}], got {num_folds}")
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"confidence: must be in [0.5, 1), got {confidence}")
    if cluster is not None and covariance != "cluster":
        raise ConfigError("cluster: give covariance = 'cluster' with it")
    if cluster not in (None, "patient", "site") and setting.contract.variable(str(cluster), "cluster").type == "text":
        raise ConfigError(f"cluster: variable {cluster!r} is text; declare it a category")
    if use_t and not FAMILIES[family].has_scale:
        raise ConfigError(f"use_t: a {family} model has no dispersion to estimate, so its statistics are normal")


def _full_rank(prepared: Prepared, sums: Terms, options: _Options) -> tuple[Prepared, tuple[str, ...], Terms]:
    """Find columns that are combinations of earlier ones; refuse or drop them."""
    gram = unpack_symmetric(sums.gram)
    names = [column.name for column in prepared.design.columns]
    kept = independent_columns(gram)
    dropped = tuple(name for j, name in enumerate(names) if j not in kept)
    if dropped and options.aliased == "refuse":
        raise RankDeficiencyError(
            f"{', '.join(dropped[:10])}: constant, or nearly a combination of the columns before it, in the "
            "complete records; leave it out, take powers of center(x), or set aliased = 'drop'"
        )
    has_scale = FAMILIES[options.model.family].has_scale
    num_records = min(prepared.num_complete, sums.num_rows) if has_scale else prepared.num_complete
    if num_records <= len(kept):
        raise ModelError(f"{len(kept)} coefficients cannot be estimated from so few complete records")
    if dropped:
        index = np.array(kept)
        prepared = prepared.with_columns(kept)
        sums = replace(sums, gram=pack_symmetric(gram[np.ix_(index, index)]), score=sums.score[index])
    return prepared, dropped, sums


def _dispersion(fit: Fit, model: Model, num_columns: int) -> float:
    if not FAMILIES[model.family].has_scale:
        return 1.0
    return fit.total.sum.pearson / (fit.total.sum.num_rows - num_columns)


def _null(prepared: Prepared, model: Model) -> Steps[tuple[float, float | None]]:
    """Mean of the null model where it has a constant one, else its deviance (an offset needs a fit of its own)."""
    family = FAMILIES[model.family]
    if prepared.frame.offset is None:
        return prepared.outcome_mean, None
    constant = Design(columns=(Column(name="Intercept", features=()),), center=np.zeros(1), scale=np.ones(1))
    null = replace(prepared, design=constant)
    first = yield from ask(first_terms, constant, prepared.frame, model, prepared.outcome_mean)
    fit = yield from fit_model(null, model, np.zeros(1), first.sum)
    # Any mean that the family allows will do: its deviance is not used.
    return (0.5 if family is FAMILIES["binomial"] else 1.0), fit.total.sum.deviance


def _likelihood_ratios(prepared: Prepared, model: Model, fit: Fit) -> Steps[dict[str, tuple[float, int]]]:
    """By how much the deviance grows without a term, and its number of columns.

    Terms that are part of an interaction are left out: what a model without them means depends on their coding.
    """
    growth: dict[str, tuple[float, int]] = {}
    for term in prepared.terms:
        kept = [j for j in range(prepared.design.num_columns) if j not in term.columns]
        is_part = any(term.factors < other.factors and other.columns for other in prepared.terms)
        if term.name == "Intercept" or not kept or not term.columns or is_part:
            continue
        reduced = prepared.with_columns(kept)
        first = yield from ask(first_terms, reduced.design, reduced.frame, model, prepared.outcome_mean)
        without = yield from fit_model(reduced, model, np.zeros(len(kept)), first.sum)
        growth[term.name] = (without.total.sum.deviance - fit.total.sum.deviance, len(term.columns))
    return growth


# A module's vocabulary is what it names: the workflow with the site functions that it asks for.
__all__ = [
    "Covariance",
    "finish",
    "first_terms",
    "fold_terms",
    "glm",
    "in_own_units",
    "separated",
    "square_sums",
    "terms",
]
