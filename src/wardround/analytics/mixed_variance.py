"""Variances of random effects in the variables' own units, with intervals.

References:
    Pinheiro & Bates (2000), Mixed-Effects Models in S and S-PLUS, section 2.4.3 (intervals on the logarithmic scale).
    Venzon & Moolgavkar (1988), Applied Statistics 37, 87-94 (profile-likelihood intervals).
    Goldstein, Browne & Rasbash (2002), Understanding Statistics 1, 223-231 (intraclass correlation, latent scale).
    Larsen & Merlo (2005), American J. Epidemiology 161, 81-88 (median odds ratio).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import special

from wardround.analytics.families import two_sided_quantile
from wardround.analytics.mixed_linear import factor_of
from wardround.analytics.mixed_newton import Point
from wardround.analytics.mixed_result import RandomCorrelation, VarianceComponent
from wardround.errors import ConvergenceError
from wardround.sums import Steps

Values = NDArray[np.float64]

SINGULAR = 1e-5
"""Smallest diagonal element of the random effects' factor, relative to the largest, below which it counts as zero."""
RESIDUAL = "Residual"
LATENT_VARIANCE = np.pi**2 / 3
"""Variance of the logistic distribution, which a logistic model's outcome has within sites on the latent scale."""
_PROFILE_STEPS = 40
_PROFILE_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Random effects at the fit.

    Attributes:
        names: of the coefficients that differ between sites.
        theta: lower triangle of the Cholesky factor, by columns, of standardised columns.
        scale: matrix that turns random effects of standardised columns into those of raw ones, shape (q, q).
        log_sigma: logarithm of a linear model's residual standard deviation, which its factor is relative to, or None.
        information: half the second derivative of the deviance by theta (and `log_sigma`), coefficients at their best.
    """

    names: tuple[str, ...]
    theta: Values
    scale: Values
    log_sigma: float | None
    information: Values

    @property
    def parameters(self) -> Values:
        """Theta, and `log_sigma` where there is one."""
        return self.theta if self.log_sigma is None else np.append(self.theta, self.log_sigma)

    def covariance(self, parameters: Values | None = None) -> Values:
        """Of the random effects in the variables' own units, shape (q, q)."""
        whole = self.parameters if parameters is None else parameters
        q = len(self.names)
        factor = self.scale @ factor_of(whole[: len(self.theta)], q)
        sigma = 1.0 if self.log_sigma is None else float(np.exp(whole[-1]))
        matrix: Values = sigma**2 * factor @ factor.T
        return matrix

    @property
    def is_singular(self) -> bool:
        """Whether a variance is zero, or some random effects are combinations of others."""
        diagonal = np.abs(np.diag(factor_of(self.theta, len(self.names))))
        return bool(diagonal.min() <= SINGULAR * max(1.0, float(np.abs(self.theta).max())))


def wald_components(
    spread: Spread, confidence: float
) -> tuple[tuple[VarianceComponent, ...], tuple[RandomCorrelation, ...]]:
    """Standard deviations with intervals on the logarithmic scale, correlations on Fisher's scale."""
    quantile = two_sided_quantile(confidence, None)
    errors = None if spread.is_singular else _parameter_covariance(spread)
    components = []
    for j, name in enumerate(spread.names):
        deviation = float(np.sqrt(spread.covariance()[j, j]))
        low = high = None
        if errors is not None:
            reach = quantile * _error(partial(_log_deviation, spread, j), spread, errors)
            low, high = deviation * float(np.exp(-reach)), deviation * float(np.exp(reach))
        components.append(_component(name, deviation, low, high))
    if spread.log_sigma is not None:
        deviation = float(np.exp(spread.log_sigma))
        square = 1 / float(spread.information[-1, -1]) if errors is None else float(errors[-1, -1])
        reach = quantile * float(np.sqrt(square))
        low, high = deviation * float(np.exp(-reach)), deviation * float(np.exp(reach))
        components.append(_component(RESIDUAL, deviation, low, high))
    return tuple(components), _correlations(spread, errors, quantile)


def _log_deviation(spread: Spread, j: int, parameters: Values) -> float:
    return 0.5 * float(np.log(spread.covariance(parameters)[j, j]))


def _component(name: str, deviation: float, low: float | None, high: float | None) -> VarianceComponent:
    return VarianceComponent(name=name, standard_deviation=deviation, variance=deviation**2, low=low, high=high)


def _parameter_covariance(spread: Spread) -> Values | None:
    """Of theta and `log_sigma`; None where the likelihood is flat in some direction."""
    values = np.linalg.eigvalsh(spread.information)
    if values[0] <= 1e-10 * max(values[-1], 1e-300):
        return None
    return np.asarray(np.linalg.inv(spread.information), np.float64)


def _error(function: Callable[[Values], float], spread: Spread, covariance: Values) -> float:
    """Standard error of a function of the parameters, by the delta method."""
    at = spread.parameters
    step = 1e-5 * (1 + np.abs(at))
    slope = np.array(
        [
            (function(at + h * direction) - function(at - h * direction)) / (2 * h)
            for h, direction in zip(step, np.eye(len(at)), strict=True)
        ]
    )
    return float(np.sqrt(slope @ covariance @ slope))


def _correlations(spread: Spread, errors: Values | None, quantile: float) -> tuple[RandomCorrelation, ...]:
    found = []
    covariance = spread.covariance()
    for j in range(len(spread.names)):
        for i in range(j):
            size = np.sqrt(covariance[i, i] * covariance[j, j])
            value = float(np.clip(covariance[i, j] / size, -1, 1)) if size > 0 else None
            low = high = None
            if errors is not None and value is not None and abs(value) < 1:

                def fisher(whole: Values, i: int = i, j: int = j) -> float:
                    matrix = spread.covariance(whole)
                    return float(np.arctanh(matrix[i, j] / np.sqrt(matrix[i, i] * matrix[j, j])))

                reach = quantile * _error(fisher, spread, errors)
                low, high = (float(np.tanh(np.arctanh(value) + sign * reach)) for sign in (-1, 1))
            found.append(
                RandomCorrelation(first=spread.names[i], second=spread.names[j], correlation=value, low=low, high=high)
            )
    return tuple(found)


def profile_bound(
    evaluate: Callable[[Values], Steps[Point]], start: Values, interest: int, target: float
) -> Steps[Values]:
    """Where the deviance, all other parameters at their best, reaches a target.

    Newton's iteration for the value and the gradient by the other parameters together (Venzon & Moolgavkar 1988).

    Args:
        evaluate: gives deviance and derivatives at a place.
        start: a place on the wanted side of the minimum, shape (num_parameters,).
        interest: index of the parameter whose bound is sought.
        target: of the deviance.

    Raises:
        ConvergenceError: the iteration did not settle.
    """
    at = start
    others = np.arange(len(start)) != interest
    for _ in range(_PROFILE_STEPS):
        point = yield from evaluate(at)
        if not np.isfinite(point.value):
            break
        system = np.vstack([point.gradient, point.hessian[others]])
        step = -np.linalg.lstsq(system, np.append(point.value - target, point.gradient[others]), rcond=None)[0]
        size = float(np.max(np.abs(step) / (1 + np.abs(at))))
        moved: Values = at + step * min(1.0, 0.5 / max(size, 1e-300))
        at = moved
        if size < _PROFILE_TOLERANCE:
            return at
    raise ConvergenceError("the profile of the likelihood could not be followed to the end of the interval")


def intraclass(deviation: float, within: float) -> float:
    """Part of the variance that is between sites."""
    return deviation**2 / (deviation**2 + within)


def median_ratio(deviation: float) -> float:
    """Median ratio of odds or rates between two like patients of two sites (Larsen & Merlo 2005, equation 3)."""
    with np.errstate(over="ignore"):
        return float(np.exp(np.sqrt(2.0) * deviation * special.ndtri(0.75)))
