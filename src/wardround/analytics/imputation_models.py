"""The imputation models at the coordinator: fits from sums, and draws from their posterior.

Numbers: Bayesian linear regression with a flat prior. Categories: multinomial logit with the normal approximation of
its posterior, the likelihood augmented by a few records of all levels, so that it has a maximum even where a predictor
separates the levels.

References:
    van Buuren (2018), Flexible Imputation of Missing Data, 2nd ed., algorithms 3.1 and 3.5.
    White, Daniel, Royston (2010), Avoiding bias due to perfect prediction in multiple imputation of incomplete
    categorical variables, Computational Statistics & Data Analysis 54.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.imputation_chain import Chain, logistic_terms
from wardround.analytics.linear import independent_columns, solve_symmetric, unpack_symmetric
from wardround.errors import ConvergenceError, ModelError
from wardround.sums import Steps

Values = NDArray[np.float64]

MAX_STEPS = 40
"""Most Newton steps of a category's model."""
SETTLED = 1e-8
"""Largest last step of a standardised coefficient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Posterior:
    """The posterior of a variable's model in every copy.

    Attributes:
        estimates: its centre, shape (num_copies, 1 or num_levels - 1, num_predictors).
        covariance: of the coefficients in this order (a linear model's in units of its residual variance), shape
            (num_copies, size, size); 0 for columns that were left out as combinations of others.
        residual: residual sum of squares of linear models, shape (num_copies,); None for logit models.
        df: their residual degrees of freedom, shape (num_copies,).
    """

    estimates: Values
    covariance: Values
    residual: Values | None = None
    df: Values | None = None

    def draw(self, rng: np.random.Generator) -> tuple[Values, Values]:
        """Coefficients and residual standard deviations (1 for logit models), drawn in every copy."""
        num_copies = len(self.estimates)
        deviations = np.ones(num_copies)
        if self.residual is not None and self.df is not None:
            deviations = np.sqrt(self.residual / rng.chisquare(self.df))
        noise = rng.standard_normal((num_copies, self.covariance.shape[1]))
        steps = np.array([_root(c) @ z for c, z in zip(self.covariance, noise, strict=True)])
        drawn = self.estimates + (deviations[:, None] * steps).reshape(self.estimates.shape)
        return drawn, deviations


def _root(covariance: Values) -> Values:
    """A matrix whose square is this one, also where it is singular."""
    values, vectors = np.linalg.eigh(covariance)
    root: Values = vectors * np.sqrt(np.maximum(values, 0.0))
    return root


def site_prior(chain: Chain, size: int) -> Values:
    """Prior precision of a linear model's coefficients: a site's intercept is worth one record, others nothing."""
    precision = np.zeros(size)
    for place, site in enumerate(chain.sites, size - len(chain.sites)):
        precision[place] = 1 / site.scale**2
    return precision


def linear_posterior(
    chain: Chain, target: str, gram: Values, cross: Values, square: float, num_observed: int
) -> Posterior:
    """Posterior of the linear model of a number.

    Args:
        chain: the variables.
        target: the number.
        gram: packed, shape (num_copies, num_pairs).
        cross: shape (num_copies, num_predictors).
        square: sum of squares of the number in standard units.
        num_observed: records in which it is observed.

    Raises:
        ModelError: no more records than coefficients.
    """
    size = cross.shape[1]
    prior = site_prior(chain, size)
    estimates, covariance = np.zeros((len(gram), 1, size)), np.zeros((len(gram), size, size))
    residual, df = np.zeros(len(gram)), np.zeros(len(gram))
    for copy, (packed, product) in enumerate(zip(gram, cross, strict=True)):
        precision = unpack_symmetric(packed) + np.diag(prior)
        kept = np.array(independent_columns(precision))
        part = np.ix_(kept, kept)
        df[copy] = num_observed + np.count_nonzero(prior) - len(kept)
        if df[copy] < 1:
            raise ModelError(
                f"{target!r} has a value in few records, too few for a model with {len(kept)} coefficients; "
                "leave auxiliary variables out"
            )
        beta = solve_symmetric(precision[part], product[kept])
        estimates[copy, 0, kept] = beta
        covariance[copy][part] = solve_symmetric(precision[part], np.eye(len(kept)))
        residual[copy] = max(square - float(beta @ product[kept]), 0.0)
    return Posterior(estimates=estimates, covariance=covariance, residual=residual, df=df)


def augmentation(size: int, num_levels: int) -> tuple[Values, NDArray[np.intp], Values]:
    """Records that are added to a category's: half a deviation to either side of the mean along each predictor.

    Args:
        size: number of predictors, the intercept (the first) included.
        num_levels: of the category; each record stands once for each.

    Returns:
        Standardised predictors (num_records, size), levels and weights (num_records,); together they weigh as much as
        there are predictors.
    """
    along = np.concatenate([np.eye(size)[1:], -np.eye(size)[1:]]) / 2 if size > 1 else np.zeros((1, size))
    along[:, 0] = 1.0
    x = np.repeat(along, num_levels, axis=0)
    return x, np.tile(np.arange(num_levels), len(along)), np.full(len(x), size / len(x))


Terms = Callable[[Values], Steps[tuple[Values, Values, Values]]]
"""Asks for packed information, score and deviance in every copy at given coefficients."""


def logistic_fit(chain: Chain, target: str, terms: Terms, warm: Values | None) -> Steps[Posterior]:
    """Fit the multinomial logit model of a category in all copies at once, by Newton's method with halved steps.

    Args:
        chain: the variables.
        target: the category.
        terms: asks the sites.
        warm: coefficients to start from.

    Raises:
        ConvergenceError: some copy's model did not settle.
    """
    size, num_levels = chain.num_predictors(target), len(chain.variable(target).levels)
    shape = (chain.num_copies, num_levels - 1, size)
    at = np.zeros(shape) if warm is None else np.array(warm)
    accepted, best, step = at.copy(), np.full(chain.num_copies, np.inf), np.zeros(shape)
    covariance = np.zeros((chain.num_copies, at[0].size, at[0].size))
    more = augmentation(size, num_levels)
    for _ in range(MAX_STEPS):
        asked: Any = yield from terms(at)
        for copy, (information, score, deviance) in enumerate(zip(*asked, strict=True)):
            added = logistic_terms(*more, at[copy])
            reached = deviance + added[2]
            if reached > best[copy] + 1e-9 * abs(best[copy]):
                step[copy] /= 2
                continue
            accepted[copy], best[copy] = at[copy], reached
            whole = unpack_symmetric(information + added[0])
            covariance[copy] = solve_symmetric(whole, np.eye(len(whole)))
            step[copy] = (covariance[copy] @ (score + added[1])).reshape(shape[1:])
        if np.abs(step).max(initial=0.0) < SETTLED:
            return Posterior(estimates=accepted + step, covariance=covariance)
        at = accepted + step
    raise ConvergenceError(
        f"the imputation model of {target!r} did not settle in {MAX_STEPS} steps; leave variables out that are nearly "
        "combinations of others, or merge rare levels"
    )
