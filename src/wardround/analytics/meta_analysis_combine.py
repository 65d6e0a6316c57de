"""Meta-analysis of estimates with standard errors: fixed and random effects, heterogeneity, prediction.

Plain functions of numbers, for `meta_analysis` and for anybody who has estimates of several sites or studies.

References:
    DerSimonian & Laird (1986), Controlled Clinical Trials 7, 177-188 (random effects, the moment estimator).
    Viechtbauer (2005), J. Educational and Behavioral Statistics 30, 261-293 (restricted likelihood, equations 9-13).
    Paule & Mandel (1982), J. Research of the National Bureau of Standards 87, 377-385.
    Morris (1983), JASA 78, 47-55 (the empirical Bayes estimator, whose solution is Paule and Mandel's).
    Knapp & Hartung (2003), Statistics in Medicine 22, 2693-2710.
    Viechtbauer (2007), Statistics in Medicine 26, 37-52 (Q-profile interval).
    Higgins & Thompson (2002), Statistics in Medicine 21, 1539-1558 (I squared).
    Higgins, Thompson & Spiegelhalter (2009), J. Royal Statistical Society A 172, 137-159 (prediction interval).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from wardround.analytics.families import two_sided_p, two_sided_quantile

Values = NDArray[np.float64]
TauMethod: TypeAlias = Literal["DL", "REML", "ML", "PM", "EB"]

MAX_SITES = 10_000
"""Most estimates that are combined."""
_GRID = np.concatenate([[0.0], np.geomspace(1e-6, 1e6, 97)])
# Where a likelihood's highest top is looked for, in units of the typical variance.


@dataclass(frozen=True, slots=True, kw_only=True)
class CombinedEstimate:
    """An estimate over all sites.

    Attributes:
        estimate: on the scale of the given ones.
        standard_error: of it.
        statistic: estimate over standard error.
        p_value: two-sided.
        low: lower end of the interval.
        high: upper end.
        df: degrees of freedom of its t distribution; None: normal.
    """

    estimate: float
    standard_error: float
    statistic: float
    p_value: float
    low: float
    high: float
    df: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Heterogeneity:
    """How much the sites differ beyond chance.

    Attributes:
        q: Cochran's statistic.
        df: its degrees of freedom, sites less 1.
        p_value: of Q.
        tau2: variance of the true effects between sites.
        tau2_low: lower end of its Q-profile interval.
        tau2_high: upper end.
        i2: part of the total variance that is between sites, from `tau2`, in [0, 1].
        i2_low: at `tau2_low`.
        i2_high: at `tau2_high`.
    """

    q: float
    df: int
    p_value: float
    tau2: float
    tau2_low: float
    tau2_high: float
    i2: float
    i2_low: float
    i2_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WithoutOne:
    """The random-effects estimate without one of the sites."""

    left_out: str
    estimate: float
    standard_error: float
    low: float
    high: float
    tau2: float
    q: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """Estimates of several sites, combined.

    Attributes:
        labels: of the sites.
        estimates: of each.
        standard_errors: of each.
        weights_fixed: of each, adding up to 1.
        weights_random: of each, adding up to 1.
        fixed: one true effect in all sites (inverse-variance weights).
        random: the mean of true effects that differ.
        heterogeneity: by how much they do.
        predicted_low: lower end of the interval for the true effect in a further site; None with two sites.
        predicted_high: its upper end.
        without: the random-effects estimate without each site in turn; none with two sites.
        method: of `tau2`.
        knapp_hartung: whether the random-effects interval is Knapp and Hartung's.
        confidence: of the intervals.
    """

    labels: tuple[str, ...]
    estimates: tuple[float, ...]
    standard_errors: tuple[float, ...]
    weights_fixed: tuple[float, ...]
    weights_random: tuple[float, ...]
    fixed: CombinedEstimate
    random: CombinedEstimate
    heterogeneity: Heterogeneity
    predicted_low: float | None
    predicted_high: float | None
    without: tuple[WithoutOne, ...]
    method: TauMethod
    knapp_hartung: bool
    confidence: float


def combine(
    estimates: Sequence[float] | Values,
    standard_errors: Sequence[float] | Values,
    labels: Sequence[str] | None = None,
    *,
    method: TauMethod = "REML",
    knapp_hartung: bool = False,
    confidence: float = 0.95,
) -> Combination:
    """Combine independent estimates of one quantity.

    Args:
        estimates: shape (num_sites,), on a scale where they are about normal (log ratios, differences).
        standard_errors: shape (num_sites,), positive.
        labels: of the sites; None: their numbers.
        method: how the variance between sites is estimated: "DL" (DerSimonian-Laird), "REML", "ML", "PM"
            (Paule-Mandel) or "EB" (empirical Bayes, which solves the same equation as PM).
        knapp_hartung: whether the random-effects interval takes the uncertainty of that variance into account.
        confidence: of the intervals.

    Raises:
        ValueError: fewer than two estimates, lengths that differ, or numbers that are not usable.

    Guarantees:
        equals_metafor: to 1e-8, what R's metafor reports.
        unit_does_not_matter: estimates in another unit give the same result in that unit.
    """
    y, se = np.asarray(estimates, np.float64), np.asarray(standard_errors, np.float64)
    names = tuple(labels) if labels is not None else tuple(str(i + 1) for i in range(y.size))
    _check(y, se, names, confidence)
    # In the unit of the smallest standard error, so that the search's bounds fit any unit.
    unit = float(se.min())
    scaled, variances = y / unit, (se / unit) ** 2
    tau2 = _between(scaled, variances, method)
    weights = 1 / (variances + tau2)
    random = _random(scaled, variances, tau2, knapp_hartung, confidence)
    fixed = _estimate(scaled, 1 / variances, 1.0, None, confidence)
    low, high = _prediction(random, tau2, len(y), confidence)
    without = _leave_one_out(scaled, variances, names, method, knapp_hartung, confidence) if len(y) > 2 else ()
    return Combination(
        labels=names,
        estimates=tuple(y.tolist()),
        standard_errors=tuple(se.tolist()),
        weights_fixed=_shares(1 / variances),
        weights_random=_shares(weights),
        fixed=_in_unit(fixed, unit),
        random=_in_unit(random, unit),
        heterogeneity=_heterogeneity(scaled, variances, tau2, unit, confidence),
        predicted_low=None if low is None else low * unit,
        predicted_high=None if high is None else high * unit,
        without=tuple(_without_in_unit(one, unit) for one in without),
        method=method,
        knapp_hartung=knapp_hartung,
        confidence=confidence,
    )


def combine_vectors(estimates: Values, covariances: Values) -> tuple[Values, Values]:
    """Fixed effects of all coefficients together, by generalised least squares.

    Unlike one coefficient at a time, this lets what a site knows of one coefficient inform the others by their
    covariance.

    Args:
        estimates: shape (num_sites, num_coefficients).
        covariances: shape (num_sites, num_coefficients, num_coefficients), positive definite.

    Returns:
        The estimates, shape (num_coefficients,), and their covariance.

    References:
        Becker & Wu (2007), Statistical Science 22, 414-429, equation 10.
    """
    precisions = np.linalg.inv(covariances)
    covariance = np.linalg.inv(precisions.sum(axis=0))
    estimate: Values = covariance @ np.einsum("ijk,ik->j", precisions, estimates)
    return estimate, (covariance + covariance.T) / 2


def _check(y: Values, se: Values, labels: tuple[str, ...], confidence: float) -> None:
    if y.ndim != 1 or y.shape != se.shape or len(labels) != y.size:
        raise ValueError("estimates, standard_errors and labels must have one element a site")
    if not 2 <= y.size <= MAX_SITES:
        raise ValueError(f"a meta-analysis needs 2 to {MAX_SITES} estimates, got {y.size}")
    if not (np.isfinite(y).all() and np.isfinite(se).all() and (se > 0).all()):
        raise ValueError("estimates must be finite, standard errors finite and greater than 0")
    if not 0.5 <= confidence < 1:
        raise ValueError(f"confidence must be in [0.5, 1), got {confidence}")


def _shares(weights: Values) -> tuple[float, ...]:
    return tuple((weights / weights.sum()).tolist())


def _mean(y: Values, weights: Values) -> float:
    return float(weights @ y / weights.sum())


def _q(y: Values, weights: Values) -> float:
    """Weighted sum of squares about the weighted mean."""
    return float(weights @ (y - _mean(y, weights)) ** 2)


def _between(y: Values, variances: Values, method: TauMethod) -> float:
    """Variance between sites, 0 or more."""
    if method == "DL":
        weights = 1 / variances
        spare = float(weights.sum() - (weights**2).sum() / weights.sum())
        return max(0.0, (_q(y, weights) - (len(y) - 1)) / spare)
    if method in ("PM", "EB"):
        return _where_q_is(y, variances, len(y) - 1)
    return _most_likely(y, variances, is_restricted=method == "REML")


def _where_q_is(y: Values, variances: Values, target: float) -> float:
    """The variance at which Cochran's Q, which falls as it grows, is this large; 0 where it never is."""

    def beyond(tau2: float) -> float:
        return _q(y, 1 / (variances + tau2)) - target

    if beyond(0.0) <= 0:
        return 0.0
    upper = max(float(variances.max()), float(np.ptp(y)) ** 2)
    while beyond(upper) > 0:
        upper *= 4
    return _root(beyond, 0.0, upper)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    return float(optimize.brentq(function, low, high, xtol=1e-300, rtol=1e-15, maxiter=1000))


def _most_likely(y: Values, variances: Values, *, is_restricted: bool) -> float:
    """The variance that maximises the (restricted) likelihood; the highest top, should there be several."""

    def log_likelihood(tau2: float) -> float:
        weights = 1 / (variances + tau2)
        penalty = np.log(weights.sum()) if is_restricted else 0.0
        return float(np.log(weights).sum() - penalty - _q(y, weights))

    def slope(tau2: float) -> float:
        weights = 1 / (variances + tau2)
        correction = (weights**2).sum() / weights.sum() if is_restricted else 0.0
        return float(weights**2 @ (y - _mean(y, weights)) ** 2 - weights.sum() + correction)

    grid = _GRID * max(float(np.median(variances)), float(np.ptp(y)) ** 2)
    best = int(np.argmax([log_likelihood(tau2) for tau2 in grid]))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
    return _root(slope, low, high) if slope(low) > 0 > slope(high) else 0.0


def _estimate(y: Values, weights: Values, inflation: float, df: float | None, confidence: float) -> CombinedEstimate:
    estimate, error = _mean(y, weights), float(np.sqrt(inflation / weights.sum()))
    half = two_sided_quantile(confidence, df) * error
    statistic = estimate / error if error > 0 else float("nan")
    return CombinedEstimate(
        estimate=estimate,
        standard_error=error,
        statistic=statistic,
        p_value=two_sided_p(statistic, df),
        low=estimate - half,
        high=estimate + half,
        df=df,
    )


def _random(y: Values, variances: Values, tau2: float, knapp_hartung: bool, confidence: float) -> CombinedEstimate:
    weights = 1 / (variances + tau2)
    if not knapp_hartung:
        return _estimate(y, weights, 1.0, None, confidence)
    df = len(y) - 1
    return _estimate(y, weights, _q(y, weights) / df, float(df), confidence)


def _prediction(
    random: CombinedEstimate, tau2: float, num_sites: int, confidence: float
) -> tuple[float | None, float | None]:
    if num_sites < 3:
        return None, None
    half = two_sided_quantile(confidence, num_sites - 2) * float(np.hypot(random.standard_error, np.sqrt(tau2)))
    return random.estimate - half, random.estimate + half


def _heterogeneity(y: Values, variances: Values, tau2: float, unit: float, confidence: float) -> Heterogeneity:
    weights, df = 1 / variances, len(y) - 1
    q = _q(y, weights)
    typical = df * float(weights.sum() / (weights.sum() ** 2 - (weights**2).sum()))
    tail = (1 - confidence) / 2
    low = _where_q_is(y, variances, float(special.chdtri(df, tail)))
    high = _where_q_is(y, variances, float(special.chdtri(df, 1 - tail)))
    return Heterogeneity(
        q=q,
        df=df,
        p_value=float(special.chdtrc(df, q)),
        tau2=tau2 * unit**2,
        tau2_low=low * unit**2,
        tau2_high=high * unit**2,
        i2=tau2 / (tau2 + typical),
        i2_low=low / (low + typical),
        i2_high=high / (high + typical),
    )


def _leave_one_out(
    y: Values, variances: Values, labels: tuple[str, ...], method: TauMethod, knapp_hartung: bool, confidence: float
) -> list[WithoutOne]:
    rows = []
    for i, label in enumerate(labels):
        others, spread = np.delete(y, i), np.delete(variances, i)
        tau2 = _between(others, spread, method)
        random = _random(others, spread, tau2, knapp_hartung, confidence)
        rows.append(
            WithoutOne(
                left_out=label,
                estimate=random.estimate,
                standard_error=random.standard_error,
                low=random.low,
                high=random.high,
                tau2=tau2,
                q=_q(others, 1 / spread),
            )
        )
    return rows


def _in_unit(value: CombinedEstimate, unit: float) -> CombinedEstimate:
    return CombinedEstimate(
        estimate=value.estimate * unit,
        standard_error=value.standard_error * unit,
        statistic=value.statistic,
        p_value=value.p_value,
        low=value.low * unit,
        high=value.high * unit,
        df=value.df,
    )


def _without_in_unit(value: WithoutOne, unit: float) -> WithoutOne:
    return WithoutOne(
        left_out=value.left_out,
        estimate=value.estimate * unit,
        standard_error=value.standard_error * unit,
        low=value.low * unit,
        high=value.high * unit,
        tau2=value.tau2 * unit**2,
        q=value.q,
    )
