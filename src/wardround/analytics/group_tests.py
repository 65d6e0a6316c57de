"""Differences between groups from their counts, means and spreads: tests and standardised differences.

References:
    Welch (1947), The generalization of Student's problem, Biometrika 34.
    Yang, Dalton (2012), A unified approach to measuring the effect size between two groups using SAS, SAS Global
    Forum, paper 335.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy  # its parts are loaded when they are first used: `stats` takes a third of a second
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

MINIMUM_EXPECTED = 5.0
"""Least expected count at which the chi-square approximation is taken without a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTest:
    """A test of whether a variable differs between groups.

    Attributes:
        name: which test.
        statistic: t, F or chi-square; None for Fisher's exact test.
        p_value: two-sided.
        groups: the groups compared: those with a value.
        has_small_expected: an expected count is below 5, so that a chi-square test's p-value is rough.
    """

    name: str
    statistic: float | None
    p_value: float
    groups: tuple[str, ...]
    has_small_expected: bool = False


def compare_means(groups: tuple[str, ...], count: Counts, mean: Floats, square_sum: Floats) -> GroupTest | None:
    """Welch's t-test of two groups, one-way analysis of variance of more (or where a group has one value).

    Args:
        groups: their names.
        count: values in each, shape (num_groups,).
        mean: their means, or how far these are from a common number, shape (num_groups,).
        square_sum: centred sums of squares, shape (num_groups,).

    Returns:
        None where fewer than two groups have a value, or where no group has any spread.
    """
    is_there = count > 0
    names = tuple(name for name, there in zip(groups, is_there, strict=True) if there)
    count, mean, square_sum = count[is_there], mean[is_there], square_sum[is_there]
    if len(count) < 2 or square_sum.sum() == 0:
        return None
    if len(count) > 2 or count.min() < 2:
        statistic, p_value = _analysis_of_variance(count, mean, square_sum)
        return GroupTest(name="one-way ANOVA", statistic=statistic, p_value=p_value, groups=names)
    deviation = np.sqrt(square_sum / (count - 1))
    first, second = zip(mean.tolist(), deviation.tolist(), count.tolist(), strict=True)
    welch = scipy.stats.ttest_ind_from_stats(*first, *second, equal_var=False)
    return GroupTest(name="Welch's t-test", statistic=float(welch.statistic), p_value=float(welch.pvalue), groups=names)


def _analysis_of_variance(count: Counts, mean: Floats, square_sum: Floats) -> tuple[float, float]:
    deviation = mean - mean[0]  # nothing cancels at large offsets
    between = (count * (deviation - (count * deviation).sum() / count.sum()) ** 2).sum()
    degrees = len(count) - 1, int(count.sum()) - len(count)
    statistic = float((between / degrees[0]) / (square_sum.sum() / degrees[1]))
    return statistic, float(special.fdtrc(*degrees, statistic))


def compare_levels(groups: tuple[str, ...], counts: Counts) -> GroupTest | None:
    """Chi-square test of a contingency table; Fisher's exact test of a two by two one with an expected count below 5.

    Two by two tables are tested with Yates' continuity correction.

    Args:
        groups: their names.
        counts: by level and group, shape (num_levels, num_groups).

    Returns:
        None where fewer than two levels or two groups have anybody.
    """
    is_there = counts.sum(axis=0) > 0
    names = tuple(name for name, there in zip(groups, is_there, strict=True) if there)
    table = counts[counts.any(axis=1)][:, is_there]
    if min(table.shape) < 2:
        return None
    chi_square = scipy.stats.chi2_contingency(table)
    is_small = bool(chi_square.expected_freq.min() < MINIMUM_EXPECTED)
    if is_small and table.shape == (2, 2):
        p_value = float(scipy.stats.fisher_exact(table).pvalue)
        return GroupTest(
            name="Fisher's exact test", statistic=None, p_value=p_value, groups=names, has_small_expected=True
        )
    return GroupTest(
        name="chi-square test",
        statistic=float(chi_square.statistic),
        p_value=float(chi_square.pvalue),
        groups=names,
        has_small_expected=is_small,
    )


def mean_difference(mean: Floats, deviation: Floats) -> float | None:
    """Standardised mean difference of two groups: second less first, over the root of the mean variance.

    Args:
        mean: two means, or how far these are from a common number.
        deviation: two standard deviations; NaN where there are fewer than two values.

    Returns:
        None where it is not defined or infinite.
    """
    spread = np.sqrt((deviation**2).mean())
    return float((mean[1] - mean[0]) / spread) if spread > 0 else None  # NaN compares false


def level_difference(counts: Counts) -> float | None:
    """Standardised difference of two groups' proportions: Mahalanobis' distance (Yang and Dalton 2012).

    Args:
        counts: by level and group, shape (num_levels, 2).

    Returns:
        At least 0; None where a group is empty, or where no level occurs in both (the distance is infinite).
    """
    table = counts[counts.any(axis=1)]
    if not counts.any(axis=0).all() or not (table > 0).all(axis=1).any():
        return None
    # One level tells nothing that the others do not; any may go.
    proportions = (table / table.sum(axis=0))[1:]
    covariance = sum(np.diag(p) - np.outer(p, p) for p in proportions.T) / 2
    difference = proportions[:, 1] - proportions[:, 0]
    if not len(difference):
        return 0.0
    return float(np.sqrt(difference @ np.linalg.solve(covariance, difference)))
