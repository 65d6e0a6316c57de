"""Exponential families and links of generalised linear models.

References:
    McCullagh & Nelder (1989), Generalized Linear Models, 2nd ed., chapter 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

Values = NDArray[np.float64]
FamilyName: TypeAlias = Literal["gaussian", "binomial", "poisson", "gamma"]
LinkName: TypeAlias = Literal["identity", "log", "inverse", "logit", "probit", "cloglog", "sqrt"]

_EPS = np.finfo(np.float64).eps


@dataclass(frozen=True, slots=True)
class Link:
    """A link g with its inverse and the derivative of the inverse, elementwise."""

    link: Callable[[Values], Values]
    inverse: Callable[[Values], Values]
    inverse_derivative: Callable[[Values], Values]


def _normal_density(eta: Values) -> Values:
    density: Values = np.exp(-0.5 * eta * eta) / np.sqrt(2 * np.pi)
    return density


def _ones(values: Values) -> Values:
    return np.ones(values.shape)


LINKS: Mapping[str, Link] = MappingProxyType(
    {
        "identity": Link(lambda mu: mu, lambda eta: eta, _ones),
        "log": Link(np.log, np.exp, np.exp),
        "inverse": Link(lambda mu: 1 / mu, lambda eta: 1 / eta, lambda eta: -1 / eta**2),
        "logit": Link(special.logit, special.expit, lambda eta: special.expit(eta) * special.expit(-eta)),
        "probit": Link(special.ndtri, special.ndtr, _normal_density),
        "cloglog": Link(
            lambda mu: np.log(-np.log1p(-mu)),
            lambda eta: -np.expm1(-np.exp(eta)),
            lambda eta: np.exp(eta - np.exp(eta)),
        ),
        "sqrt": Link(np.sqrt, np.square, lambda eta: 2 * eta),
    }
)


@dataclass(frozen=True, slots=True)
class Family:
    """A family of distributions.

    Attributes:
        links: names of the links it may have, the canonical one first.
        has_scale: whether the dispersion is estimated (else it is 1).
        outcome_rule: which outcomes it allows, in words.
        allows_outcome: which outcomes it allows.
        allows_mean: which means it allows.
        variance: variance function of the mean.
        unit_deviance: of outcome and mean.
        start: first means of the iteration, from outcome and overall mean.
        log_likelihood: of outcome, mean, prior weight and dispersion, by row.
    """

    links: tuple[LinkName, ...]
    has_scale: bool
    outcome_rule: str
    allows_outcome: Callable[[Values], NDArray[np.bool_]]
    allows_mean: Callable[[Values], NDArray[np.bool_]]
    variance: Callable[[Values], Values]
    unit_deviance: Callable[[Values, Values], Values]
    start: Callable[[Values, float], Values]
    log_likelihood: Callable[[Values, Values, Values, float], Values]


def _binomial_deviance(y: Values, mu: Values) -> Values:
    if ((y == 0) | (y == 1)).all():  # one logarithm a record instead of four
        single: Values = -2 * np.log(np.where(y == 1, mu, 1 - mu))
        return single
    parts = special.xlogy(y, y) - special.xlogy(y, mu) + special.xlogy(1 - y, 1 - y) - special.xlog1py(1 - y, -mu)
    return np.asarray(2 * parts, np.float64)


def _binomial_log_likelihood(y: Values, mu: Values, weight: Values, scale: float) -> Values:
    choices = special.gammaln(weight + 1) - special.gammaln(y * weight + 1) - special.gammaln((1 - y) * weight + 1)
    return choices + weight * (special.xlogy(y, mu) + special.xlog1py(1 - y, -mu))


def _gaussian_log_likelihood(y: Values, mu: Values, weight: Values, scale: float) -> Values:
    return -0.5 * (weight * (y - mu) ** 2 / scale + np.log(2 * np.pi * scale / weight))


def _gamma_log_likelihood(y: Values, mu: Values, weight: Values, scale: float) -> Values:
    shape = weight / scale
    return shape * np.log(shape * y / mu) - shape * y / mu - special.gammaln(shape) - np.log(y)


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "gaussian": Family(
            links=("identity", "log", "inverse"),
            has_scale=True,
            outcome_rule="any number",
            allows_outcome=np.isfinite,
            allows_mean=np.isfinite,
            variance=_ones,
            unit_deviance=lambda y, mu: (y - mu) ** 2,
            start=lambda y, mean: (y + mean) / 2,
            log_likelihood=_gaussian_log_likelihood,
        ),
        "binomial": Family(
            links=("logit", "probit", "cloglog", "log"),
            has_scale=False,
            outcome_rule="0 or 1 (or a proportion, with its denominator as variance weight)",
            allows_outcome=lambda y: (y >= 0) & (y <= 1),
            allows_mean=lambda mu: (mu >= 0) & (mu <= 1),
            variance=lambda mu: mu * (1 - mu),
            unit_deviance=_binomial_deviance,
            start=lambda y, mean: (y + 0.5) / 2,
            log_likelihood=_binomial_log_likelihood,
        ),
        "poisson": Family(
            links=("log", "identity", "sqrt"),
            has_scale=False,
            outcome_rule="a count, 0 or more",
            allows_outcome=lambda y: y >= 0,
            allows_mean=lambda mu: (mu > 0) & np.isfinite(mu),
            variance=lambda mu: mu,
            unit_deviance=lambda y, mu: 2 * (special.xlogy(y, y / mu) - (y - mu)),
            start=lambda y, mean: (y + mean) / 2,
            log_likelihood=lambda y, mu, weight, scale: (
                weight * (special.xlogy(y, mu) - mu - special.gammaln(y + 1)) / scale
            ),
        ),
        "gamma": Family(
            links=("inverse", "log", "identity"),
            has_scale=True,
            outcome_rule="greater than 0",
            allows_outcome=lambda y: y > 0,
            allows_mean=lambda mu: (mu > 0) & np.isfinite(mu),
            variance=lambda mu: mu**2,
            unit_deviance=lambda y, mu: 2 * ((y - mu) / mu - np.log(y / mu)),
            start=lambda y, mean: (y + mean) / 2,
            log_likelihood=_gamma_log_likelihood,
        ),
    }
)


def mean_of(link: LinkName, family: FamilyName, eta: Values) -> Values:
    """Means at linear predictors; kept off the ends of a binomial's range by the machine's precision."""
    with np.errstate(all="ignore"):
        mu = LINKS[link].inverse(eta)
    return np.clip(mu, _EPS, 1 - _EPS) if family == "binomial" and link != "log" else mu


def two_sided_p(statistic: float, df: float | None) -> float:
    """Two-sided p-value of a z statistic (df None) or a t statistic."""
    # The functions beneath scipy.stats, whose import takes longer than most fits.
    size = -abs(statistic)
    return float(2 * (special.ndtr(size) if df is None else special.stdtr(df, size)))


def two_sided_quantile(confidence: float, df: float | None) -> float:
    """How many standard errors an interval reaches to each side, normal (df None) or t."""
    upper = (1 + confidence) / 2
    return float(special.ndtri(upper) if df is None else special.stdtrit(df, upper))
