"""Rubin's rules: one answer from the completed copies' answers, and how much the missing values cost.

References:
    Rubin (1987), Multiple Imputation for Nonresponse in Surveys, chapter 3.
    Barnard, Rubin (1999), Small-sample degrees of freedom with multiple imputation, Biometrika 86.
    Li, Raghunathan, Rubin (1991), Large-sample significance levels from multiply imputed data, JASA 86 (D1).
    van Buuren (2018), Flexible Imputation of Missing Data, 2nd ed., sections 2.3 and 2.4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """Estimates pooled over completed copies.

    Attributes:
        estimates: means over the copies, shape (num_terms,).
        covariance: total, shape (num_terms, num_terms).
        within: mean covariance in a copy, same shape.
        between: covariance of the estimates over copies, same shape.
        df: Barnard and Rubin's degrees of freedom, shape (num_terms,).
        share_missing: share of the variance that is due to the missing values (lambda), shape (num_terms,).
        fmi: fraction of missing information, shape (num_terms,).
        efficiency: relative to infinitely many imputations, on the scale of variances, shape (num_terms,).
    """

    estimates: Values
    covariance: Values
    within: Values
    between: Values
    df: Values
    share_missing: Values
    fmi: Values
    efficiency: Values


def pool(estimates: Values, covariances: Values, df_complete: float) -> Pooled:
    """Rubin's rules.

    Args:
        estimates: in each copy, shape (num_copies, num_terms); one copy where nothing is missing.
        covariances: shape (num_copies, num_terms, num_terms).
        df_complete: residual degrees of freedom that complete data would have.

    Guarantees:
        nothing_missing_changes_nothing: equal copies give their estimates and covariance, and no missing information.
    """
    num_copies = len(estimates)
    mean = estimates.mean(axis=0)
    away = estimates - mean
    between = away.T @ away / max(num_copies - 1, 1)
    within = covariances.mean(axis=0)
    total = within + (1 + 1 / num_copies) * between
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.nan_to_num((1 + 1 / num_copies) * np.diag(between) / np.diag(total))
        df = _degrees_of_freedom(share, num_copies, df_complete)
        growth = share / (1 - share)  # r, the relative increase in variance
        fmi = np.where(np.isinf(growth), 1.0, (growth + 2 / (df + 3)) / (1 + growth))
    fmi = np.where(share > 0, fmi, 0.0)
    return Pooled(
        estimates=mean,
        covariance=total,
        within=within,
        between=between,
        df=df,
        share_missing=share,
        fmi=fmi,
        efficiency=1 / (1 + fmi / num_copies),
    )


def _degrees_of_freedom(share: Values, num_copies: int, df_complete: float) -> Values:
    """Barnard and Rubin (1999), equation 3."""
    observed = (df_complete + 1) / (df_complete + 3) * df_complete * (1 - share)
    repeated = (num_copies - 1) / np.maximum(share, 1e-150) ** 2
    df: Values = np.where(share > 0, repeated * observed / (repeated + observed), observed)
    return df


def joint_test(pooled: Pooled, index: list[int], num_copies: int) -> tuple[float, int, float, float]:
    """D1: whether several coefficients are zero together.

    Args:
        pooled: the estimates.
        index: which coefficients.
        num_copies: copies they were pooled over.

    Returns:
        F statistic, its two degrees of freedom, and the p-value; NaN where the covariance is singular.
    """
    size = len(index)
    part = np.ix_(index, index)
    within, estimate = pooled.within[part], pooled.estimates[index]
    if np.linalg.matrix_rank(within, hermitian=True) < size:
        return float("nan"), size, float("nan"), float("nan")
    growth = (1 + 1 / num_copies) * float(np.trace(np.linalg.solve(within, pooled.between[part]))) / size
    statistic = float(estimate @ np.linalg.solve(within, estimate)) / (size * (1 + growth))
    freedom = size * (num_copies - 1)
    if growth <= 0 or num_copies < 2:
        df = float(pooled.df[index].max())
    elif freedom > 4:
        df = 4 + (freedom - 4) * (1 + (1 - 2 / freedom) / growth) ** 2
    else:
        df = freedom * (1 + 1 / size) * (1 + 1 / growth) ** 2 / 2
    return statistic, size, df, float(special.fdtrc(size, df, statistic))


def convergence(means: Values) -> float:
    """Gelman and Rubin's potential scale reduction of the copies' means over the second half of the iterations.

    Args:
        means: shape (num_iterations, num_copies).

    Returns:
        Near 1 where the copies have mixed; NaN with fewer than 4 iterations or 2 copies, or without any spread.
    """
    late = means[len(means) // 2 :]
    length, num_copies = late.shape
    if len(means) < 4 or num_copies < 2:
        return float("nan")
    within = float(late.var(axis=0, ddof=1).mean())
    between = float(late.mean(axis=0).var(ddof=1))
    if within <= 0:
        return float("nan")
    return float(np.sqrt((length - 1) / length + between / within))
