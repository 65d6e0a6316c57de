"""Mixed models whose groups are the sites: what the sites share, and by how much they differ.

A site's part of the likelihood depends on nothing but its own records and the parameters, so that likelihood,
gradient and Hessian are sums over sites: of a linear model from its Gram matrix (`mixed_linear.py`), of a logistic or
Poisson model from its own integral (`mixed_integral.py`). The coordinator iterates (`mixed_newton.py`); no site's own
numbers are asked for, unless its random effects are (`mixed_effects.py`).

References:
    Bates, Mächler, Bolker & Walker (2015), J. Statistical Software 67(1).
    Laird & Ware (1982), Biometrics 38, 963-974.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.formula import plan_formula
from wardround.analytics.glm import in_own_units
from wardround.analytics.glm_fit import fit_model
from wardround.analytics.glm_sums import Model, first_terms
from wardround.analytics.linear import independent_columns, solve_symmetric, unpack_symmetric
from wardround.analytics.mixed_effects import SiteEffects, site_effects
from wardround.analytics.mixed_finish import Ending, finish_mixed
from wardround.analytics.mixed_integral import MAX_POINTS, IntegralModel, MixedFamily, integral_terms
from wardround.analytics.mixed_intervals import linear_interval, theta_interval
from wardround.analytics.mixed_linear import MAX_RANDOM, LinearModel, Profile, factor_of, linear_terms, num_theta
from wardround.analytics.mixed_newton import Point, minimise
from wardround.analytics.mixed_result import MixedResult
from wardround.analytics.mixed_variance import SINGULAR
from wardround.analytics.preparation import Extras, Prepared, prepare
from wardround.analytics.steady_sites import with_steady_sites
from wardround.data.contract import Setting
from wardround.errors import ConfigError, ConvergenceError, ModelError, RankDeficiencyError
from wardround.sums import Steps, Total, ask, workflow

Values = NDArray[np.float64]

LARGEST_DEVIATION = 30.0
"""Largest factor of random effects on the scale of logits or logarithms that counts as found."""
_START = 0.5
# Of the diagonal of the random effects' factor.


@workflow("mixed", version=1)
def mixed(
    setting: Setting,
    formula: str,
    random: str = "1",
    family: Literal["gaussian", "binomial", "poisson"] = "gaussian",
    method: Literal["REML", "ML"] = "REML",
    quadrature_points: int = 1,
    offset: str | None = None,
    variance_intervals: Literal["profile", "wald"] = "profile",
    by_site: bool = False,
    confidence: float = 0.95,
) -> Steps[MixedResult]:
    """Linear, logistic or Poisson mixed model with random effects of the sites, equal to the fit of the pooled records.

    Args:
        setting: contract, sites and disclosure rules.
        formula: `outcome ~ predictors`: the fixed effects.
        random: which of them differ between sites: "1" for the intercept, "1 + age" for the slope of age, too. The
            random effects of a site are correlated freely.
        family: distribution of the outcome, with its canonical link.
        method: of a linear model: restricted or full maximum likelihood. The others maximise the likelihood.
        quadrature_points: of the integral over a site's random effect in a logistic or Poisson model, about its mode:
            1 is Laplace's approximation; more need a random intercept alone.
        offset: expression added to the linear predictor.
        variance_intervals: of a random intercept's standard deviation: from the profile of the likelihood, or
            Wald's on the logarithmic scale, as of several random effects.
        by_site: whether each site's random effects are told; needs the disclosure rule `allows_site_results`.
        confidence: of the intervals.

    Raises:
        ConfigError: an option or the formula is wrong, before anything is asked.
        DataError: the outcome does not fit the family, or nothing is left to compute on.
        ModelError: rank deficiency, separation, no convergence, fewer than two sites with records.

    Guarantees:
        linear_equals_pooled: estimates, standard errors, variances and likelihood are those of the pooled records.
        integral_equals_pooled: likewise for logistic and Poisson models, at the same approximation of the integral.
    """
    options = _Options(
        formula=formula,
        random=random,
        family=family,
        is_restricted=method == "REML" and family == "gaussian",
        quadrature_points=quadrature_points,
        offset=offset,
        wants_profile=variance_intervals == "profile",
        by_site=by_site,
        confidence=confidence,
        factors=_random_factors(setting, formula, random),
    )
    _check_options(setting, options)
    return (yield from with_steady_sites(lambda: _attempt(setting, options), len(setting.sites)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The options of `mixed`, checked; `factors` are those of the terms that differ between sites."""

    formula: str
    random: str
    family: Literal["gaussian", "binomial", "poisson"]
    is_restricted: bool
    quadrature_points: int
    offset: str | None
    wants_profile: bool
    by_site: bool
    confidence: float
    factors: tuple[frozenset[str], ...]

    @property
    def integral_family(self) -> MixedFamily | None:
        """The family whose likelihood is an integral; None for a linear model."""
        return None if self.family == "gaussian" else self.family


def _random_factors(setting: Setting, formula: str, random: str) -> tuple[frozenset[str], ...]:
    outcome = formula.split("~")[0]
    if "~" in random or "|" in random:
        raise ConfigError("random: write the terms alone, such as '1' or '1 + age'; the groups are the sites")
    fixed = {term.factors for term in plan_formula(formula, setting.contract).terms}
    wanted = plan_formula(f"{outcome} ~ {random}", setting.contract, "random")
    if not wanted.has_intercept or frozenset() not in fixed:
        raise ConfigError(
            "random: keep the intercept, in the formula and here ('1 + age'); sites differ in it at least"
        )
    missing = [term.name for term in wanted.terms if term.factors not in fixed]
    if missing:
        raise ConfigError(
            f"random: {', '.join(missing)} must be in the formula too; a random slope is about the fixed one"
        )
    return tuple(term.factors for term in wanted.terms)


def _check_options(setting: Setting, options: _Options) -> None:
    points = options.quadrature_points
    if not 0.5 <= options.confidence < 1:
        raise ConfigError(f"confidence: must be in [0.5, 1), got {options.confidence}")
    if not 1 <= points <= MAX_POINTS:
        raise ConfigError(f"quadrature_points: must be in [1, {MAX_POINTS}], got {points}")
    if points > 1 and (options.family == "gaussian" or len(options.factors) > 1):
        raise ConfigError("quadrature_points: more than 1 need a logistic or Poisson model with random = '1'")
    if len(setting.sites) < 2:
        raise ConfigError("a mixed model needs two sites or more, as they are its groups; fit glm to one site")
    if options.by_site and not setting.disclosure.allows_site_results:
        raise ConfigError(
            "by_site: a site's random effects are that site's alone, which the disclosure rule "
            "allows_site_results = false does not allow; set by_site = false, or agree on allows_site_results = true"
        )


def _attempt(setting: Setting, options: _Options) -> Steps[MixedResult]:
    """Prepare, fit and finish, over one set of sites."""
    prepared = yield from prepare(setting, options.formula, Extras(offset=options.offset))
    random = _random_columns(prepared, options)
    if options.integral_family is None:
        ending = yield from _fit_linear(prepared, random, options)
    else:
        ending = yield from _fit_integral(prepared, random, options.integral_family, options)
    effects: Total[SiteEffects] | None = None
    if options.by_site:
        effects = yield from ask(
            site_effects,
            setting.sites,
            ending.prepared.design,
            ending.prepared.frame,
            random,
            options.integral_family,
            ending.coefficients,
            ending.theta,
            ending.variance,
            setting.disclosure.minimum_cell,
        )
    return finish_mixed(
        setting,
        ending,
        formula=options.formula,
        random=options.random,
        family=options.family,
        is_restricted=options.is_restricted,
        quadrature_points=0 if options.family == "gaussian" else options.quadrature_points,
        confidence=options.confidence,
        effects=effects,
    )


def _random_columns(prepared: Prepared, options: _Options) -> tuple[int, ...]:
    columns = tuple(j for term in prepared.terms if term.factors in options.factors for j in term.columns)
    if len(columns) > MAX_RANDOM:
        raise ModelError(f"random: {len(columns)} random effects a site are over the limit of {MAX_RANDOM}")
    return columns


def _start_of(num_random: int) -> Values:
    places = num_theta(num_random)
    diagonal = np.eye(num_random, dtype=bool)
    index = np.arange(places, dtype=np.float64)
    on_diagonal = np.isin(index, factor_of(index, num_random)[diagonal])
    return np.where(on_diagonal, _START, 0.0)


def _independent(prepared: Prepared, model: Model) -> Steps[tuple[Values, tuple[str, ...]]]:
    """Coefficients to start from, of columns that are no combinations of each other; and the sites that answer.

    Raises:
        RankDeficiencyError: some are.
        ModelError: as many as records.
        SeparationError: some have no finite estimate.
    """
    total = yield from ask(first_terms, prepared.design, prepared.frame, model, prepared.outcome_mean)
    gram = unpack_symmetric(total.sum.gram)
    kept = independent_columns(gram)
    lost = [column.name for j, column in enumerate(prepared.design.columns) if j not in kept]
    if lost:
        raise RankDeficiencyError(
            f"{', '.join(lost[:10])}: constant, or nearly a combination of the columns before it; leave it out"
        )
    if prepared.num_complete <= len(kept) + 1:
        raise ModelError(f"{len(kept)} coefficients and a variance cannot be estimated from so few complete records")
    if model.family == "gaussian":
        return solve_symmetric(gram, total.sum.score), total.sites
    fit = yield from fit_model(prepared, model, np.zeros(len(gram)), total.sum)
    return fit.coefficients, total.sites


def _fit_linear(prepared: Prepared, random: tuple[int, ...], options: _Options) -> Steps[Ending]:
    model = Model(family="gaussian", link="identity")
    own, units = in_own_units(prepared, model)
    start, sites = yield from _independent(own, model)
    linear = LinearModel(
        design=own.design, frame=own.frame, random=random, start=start, is_restricted=options.is_restricted
    )
    null = yield from linear.at(np.zeros(num_theta(len(random))))
    _refuse_one_group(null.found.num_groups)
    best, num_iterations = yield from minimise(linear.at, _start_of(len(random)))
    if len(random) == 1 and (abs(best.at[0]) <= SINGULAR or null.value <= best.value):
        best = null
    profile: Profile = best.found
    log_sigma = 0.5 * float(np.log(profile.variance))
    whole = profile.by_log_sigma(best.at, log_sigma)
    interval = None
    if options.wants_profile and len(random) == 1:
        interval = yield from _or_none(linear_interval(linear, whole, null, options.confidence))
    bread = solve_symmetric(profile.precision, np.eye(len(start)))
    return Ending(
        prepared=own,
        units=units,
        random=random,
        coefficients=profile.coefficients,
        covariance=profile.variance * bread,
        theta=best.at,
        variance=profile.variance,
        information=whole.hessian / 2,
        deviance=best.value,
        null_deviance=null.value,
        freedom=profile.freedom,
        interval=interval,
        num_groups=profile.num_groups,
        num_iterations=num_iterations,
        sites=sites,
    )


def _fit_integral(prepared: Prepared, random: tuple[int, ...], family: MixedFamily, options: _Options) -> Steps[Ending]:
    model = Model(family=family, link="logit" if family == "binomial" else "log")
    start, sites = yield from _independent(prepared, model)
    integral = IntegralModel(
        design=prepared.design,
        frame=prepared.frame,
        random=random,
        family=family,
        num_points=options.quadrature_points,
    )
    p, thetas = len(start), num_theta(len(random))
    null = yield from integral.at(np.append(start, np.zeros(thetas)))
    _refuse_one_group(round(null.found.num_groups))
    best, num_iterations = yield from minimise(integral.at, np.append(start, _start_of(len(random))))
    if np.abs(best.at[p:]).max() > LARGEST_DEVIATION:
        raise ConvergenceError(
            "the likelihood grows with the variance between sites without end: within the sites the outcomes are all "
            "or nearly the same; there is nothing that such a model could tell apart"
        )
    if thetas == 1 and (abs(best.at[p]) <= SINGULAR or null.value <= best.value):
        best = null
    interval = None
    if options.wants_profile and thetas == 1:
        interval = yield from _or_none(theta_interval(integral, best, null, options.confidence))
    covariance, information = _blocks(best, p)
    return Ending(
        prepared=prepared,
        units=None,
        random=random,
        coefficients=best.at[:p],
        covariance=covariance,
        theta=best.at[p:],
        variance=1.0,
        information=information,
        deviance=best.value,
        null_deviance=null.value,
        freedom=best.found.num_rows,
        interval=interval,
        num_groups=round(best.found.num_groups),
        num_iterations=num_iterations,
        sites=sites,
    )


def _blocks(best: Point, num_columns: int) -> tuple[Values, Values]:
    """Covariance of the coefficients, and information on theta with the coefficients at their best."""
    half = best.hessian / 2
    fixed, cross = half[:num_columns, :num_columns], half[:num_columns, num_columns:]
    information: Values = half[num_columns:, num_columns:] - cross.T @ solve_symmetric(fixed, cross)
    values = np.linalg.eigvalsh(half)
    # Where theta is not to be found, the coefficients' errors are those at the theta that was.
    is_regular = values[0] > 1e-10 * values[-1]
    covariance = np.linalg.inv(half)[:num_columns, :num_columns] if is_regular else np.linalg.inv(fixed)
    return np.asarray(covariance, np.float64), information


def _or_none(steps: Steps[tuple[float, float]]) -> Steps[tuple[float, float] | None]:
    """An interval; None where its ends could not be reached."""
    try:
        return (yield from steps)
    except ConvergenceError:
        return None


def _refuse_one_group(num_groups: int) -> None:
    if num_groups < 2:
        raise ModelError(
            f"a mixed model needs two sites with complete records, there is {num_groups}; fit glm, or drop variables "
            "that are mostly missing"
        )


# A module's vocabulary is what it names: the workflow with the site functions that it asks for.
__all__ = ["integral_terms", "linear_terms", "mixed", "site_effects"]
