"""Tests and effect sizes of groups from their counts, means and sums of squares. Asks nothing.

References:
    Welch (1951), On the comparison of several mean values, Biometrika 38: analysis of variance of unequal variances.
    Levene (1960), in Contributions to Probability and Statistics: equality of variances, by distances from the means.
    Bartlett (1937), Properties of sufficiency and statistical tests, Proceedings of the Royal Society A 160.
    Hedges (1981), Distribution theory for Glass's estimator of effect size, Journal of Educational Statistics 6.
    Games, Howell (1976), Pairwise multiple comparison procedures, Journal of Educational Statistics 1.
    Kruskal, Wallis (1952), Use of ranks in one-criterion variance analysis, JASA 47.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypeAlias

import numpy as np
import scipy  # its parts are loaded when they are first used: `stats` takes a third of a second
from numpy.typing import NDArray
from scipy import special

from wardround.analytics.families import two_sided_p, two_sided_quantile

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Adjustment: TypeAlias = Literal["holm", "bonferroni", "tukey", "none"]

STUDENT, WELCH, ANOVA, WELCH_ANOVA = "Student's t-test", "Welch's t-test", "one-way ANOVA", "Welch's ANOVA"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeansTest:
    """A test of whether groups differ.

    Attributes:
        name: which.
        statistic: t, F, chi-square or z.
        df: degrees of freedom (of an F: of its numerator); None for z.
        df_within: of an F: of its denominator.
        p_value: two-sided.
        p_low: least p-value that fits the counts in bins, where ranks come from bins; else `p_value`.
        p_high: greatest one.
    """

    name: str
    statistic: float
    df: float | None
    df_within: float | None = None
    p_value: float
    p_low: float
    p_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The difference of two groups' means: first less second.

    Attributes:
        groups: the two.
        value: in the variable's unit.
        standard_error: of it.
        low: lower end of the interval (simultaneous with "tukey").
        high: upper end.
        p_value: of no difference.
        p_adjusted: adjusted for the number of pairs.
        cohens_d: standardised by the pooled standard deviation.
        hedges_g: the same without its bias.
    """

    groups: tuple[str, str]
    value: float
    standard_error: float
    low: float
    high: float
    p_value: float
    p_adjusted: float
    cohens_d: float
    hedges_g: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """What is known of one variable in some groups.

    Attributes:
        names: of the groups.
        count: values in each, shape (num_groups,); at least 1.
        mean: how far the means are from a common number; same shape.
        square_sum: centred sums of squares; same shape.
    """

    names: tuple[str, ...]
    count: Counts
    mean: Floats
    square_sum: Floats

    @property
    def variance(self) -> Floats:
        """Denominator n - 1; NaN for one value. Shape (num_groups,)."""
        variances: Floats = np.where(self.count > 1, self.square_sum / np.maximum(self.count - 1, 1), np.nan)
        return variances

    @property
    def grand_mean(self) -> float:
        """Of all values, from the common number."""
        return float(self.count @ self.mean / self.count.sum())

    @property
    def within(self) -> float:
        """Sum of squares within the groups."""
        return float(self.square_sum.sum())

    @property
    def between(self) -> float:
        """Sum of squares between the groups."""
        return float(self.count @ (self.mean - self.grand_mean) ** 2)

    @property
    def df_within(self) -> int:
        """Degrees of freedom within the groups."""
        return int(self.count.sum()) - len(self.count)


def exact_test(
    name: str, statistic: float, p_value: float, df: float | None, df_within: float | None = None
) -> MeansTest:
    """A test whose p-value is known up to rounding."""
    return MeansTest(
        name=name, statistic=statistic, df=df, df_within=df_within, p_value=p_value, p_low=p_value, p_high=p_value
    )


def main_test(groups: Groups, equal_variances: bool) -> MeansTest | None:
    """The t-test of two groups or the analysis of variance of more; None where no group has any spread."""
    is_pair = len(groups.names) == 2
    if groups.within <= 0 or groups.df_within < 1:
        return None
    if not equal_variances and not (groups.variance > 0).all() and (not is_pair or groups.count.min() < 2):
        return None
    if is_pair:
        error, df = standard_error(groups, 0, 1, equal_variances)
        statistic = float(groups.mean[0] - groups.mean[1]) / error
        return exact_test(STUDENT if equal_variances else WELCH, statistic, two_sided_p(statistic, df), df)
    return _anova(groups) if equal_variances else _welch_anova(groups)


def _anova(groups: Groups) -> MeansTest:
    df = len(groups.names) - 1
    statistic = groups.between / df / (groups.within / groups.df_within)
    p_value = float(special.fdtrc(df, groups.df_within, statistic))
    return exact_test(ANOVA, statistic, p_value, df, groups.df_within)


def _welch_anova(groups: Groups) -> MeansTest:
    size = len(groups.names)
    weight = groups.count / groups.variance
    share = weight / weight.sum()
    mean = float(share @ groups.mean)
    lambda_ = float(((1 - share) ** 2 / (groups.count - 1)).sum())
    statistic = float(weight @ (groups.mean - mean) ** 2) / (size - 1)
    statistic /= 1 + 2 * (size - 2) / (size**2 - 1) * lambda_
    df = (size**2 - 1) / (3 * lambda_)
    return exact_test(WELCH_ANOVA, statistic, float(special.fdtrc(size - 1, df, statistic)), size - 1, df)


def standard_error(groups: Groups, i: int, j: int, equal_variances: bool) -> tuple[float, float]:
    """Of the difference of two means, with its degrees of freedom (pooled over all groups, or Satterthwaite's)."""
    if equal_variances:
        variance = groups.within / groups.df_within
        return math.sqrt(variance * float((1 / groups.count[[i, j]]).sum())), groups.df_within
    parts = groups.variance[[i, j]] / groups.count[[i, j]]
    total = float(parts.sum())
    return math.sqrt(total), total**2 / float((parts**2 / (groups.count[[i, j]] - 1)).sum())


def differences(
    groups: Groups, equal_variances: bool, adjustment: Adjustment, confidence: float
) -> tuple[Difference, ...]:
    """Of each two groups, where there is any spread."""
    if groups.df_within < 1 or groups.within <= 0 or (not equal_variances and groups.count.min() < 2):
        return ()
    pairs = [
        (i, j)
        for i, j in combinations(range(len(groups.names)), 2)
        if equal_variances or groups.square_sum[[i, j]].sum() > 0
    ]
    is_range = adjustment == "tukey" and len(groups.names) > 2
    made = [_difference(groups, pair, equal_variances, confidence, is_range) for pair in pairs]
    adjusted = _adjusted([difference.p_value for difference in made], adjustment)
    if is_range:
        adjusted = [_range_p(groups, pair, equal_variances) for pair in pairs]
    return tuple(
        Difference(**{**{name: getattr(d, name) for name in Difference.__slots__}, "p_adjusted": p})
        for d, p in zip(made, adjusted, strict=True)
    )


def _difference(
    groups: Groups, pair: tuple[int, int], equal_variances: bool, confidence: float, is_range: bool
) -> Difference:
    i, j = pair
    value = float(groups.mean[i] - groups.mean[j])
    error, df = standard_error(groups, i, j, equal_variances)
    if is_range:
        reach = float(scipy.stats.studentized_range.ppf(confidence, len(groups.names), df)) / math.sqrt(2) * error
    else:
        reach = two_sided_quantile(confidence, df) * error
    d, g = effect_sizes(groups, i, j)
    p_value = two_sided_p(value / error, df)
    return Difference(
        groups=(groups.names[i], groups.names[j]),
        value=value,
        standard_error=error,
        low=value - reach,
        high=value + reach,
        p_value=p_value,
        p_adjusted=p_value,
        cohens_d=d,
        hedges_g=g,
    )


def _range_p(groups: Groups, pair: tuple[int, int], equal_variances: bool) -> float:
    """Tukey and Kramer's p-value, or Games and Howell's where the variances are not taken as equal."""
    error, df = standard_error(groups, *pair, equal_variances)
    q = abs(float(groups.mean[pair[0]] - groups.mean[pair[1]])) / error * math.sqrt(2)
    return min(max(float(scipy.stats.studentized_range.sf(q, len(groups.names), df)), 0.0), 1.0)


def effect_sizes(groups: Groups, i: int, j: int) -> tuple[float, float]:
    """Cohen's d of two groups, by their own pooled standard deviation, and Hedges' g (exact correction)."""
    df = int(groups.count[[i, j]].sum()) - 2
    spread = math.sqrt(float(groups.square_sum[[i, j]].sum()) / df) if df > 0 else 0.0
    if not spread:
        return float("nan"), float("nan")
    d = float(groups.mean[i] - groups.mean[j]) / spread
    return d, d * hedges_factor(df)


def hedges_factor(df: float) -> float:
    """By which Cohen's d is multiplied to be without bias (Hedges 1981)."""
    if df <= 1:
        return float("nan")
    return math.exp(math.lgamma(df / 2) - math.log(math.sqrt(df / 2)) - math.lgamma((df - 1) / 2))


def _adjusted(p_values: list[float], adjustment: Adjustment) -> list[float]:
    size = len(p_values)
    if adjustment == "bonferroni":
        return [min(1.0, size * p) for p in p_values]
    if adjustment != "holm":
        return p_values
    adjusted, least = [0.0] * size, 0.0
    for rank, index in enumerate(sorted(range(size), key=p_values.__getitem__)):
        least = max(least, min(1.0, (size - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def eta_squared(groups: Groups) -> tuple[float | None, float | None]:
    """Share of the sum of squares that lies between the groups, and the same without its bias (omega squared)."""
    total = groups.between + groups.within
    if total <= 0 or groups.df_within < 1:
        return None, None
    error = groups.within / groups.df_within
    omega = (groups.between - (len(groups.names) - 1) * error) / (total + error)
    return groups.between / total, omega


def bartlett(groups: Groups) -> MeansTest | None:
    """Bartlett's test of equal variances; None where a group has none."""
    variances, size = groups.variance, len(groups.names)
    if not (variances > 0).all():  # NaN compares false
        return None
    degrees = groups.count - 1
    total = float(degrees.sum())
    pooled = groups.within / total
    statistic = total * math.log(pooled) - float(degrees @ np.log(variances))
    statistic /= 1 + (float((1 / degrees).sum()) - 1 / total) / (3 * (size - 1))
    return exact_test(
        "Bartlett's test of equal variances", statistic, float(special.chdtrc(size - 1, statistic)), size - 1
    )


def levene(groups: Groups, distance_sum: Floats) -> MeansTest | None:
    """Levene's test of equal variances from the sums of the distances from the means, shape (num_groups,)."""
    mean = distance_sum / groups.count
    # Distances have the squares of the deviations, whose sums are known.
    spread = np.maximum(groups.square_sum - groups.count * mean**2, 0.0)
    distances = Groups(names=groups.names, count=groups.count, mean=mean, square_sum=spread)
    if distances.within <= 1e-12 * groups.within or groups.df_within < 1:
        return None
    test = _anova(distances)
    return exact_test("Levene's test of equal variances", test.statistic, test.p_value, test.df, test.df_within)


def rank_test(counts: Counts, is_exact: NDArray[np.bool_]) -> MeansTest | None:
    """Mann and Whitney's test of two groups (normal approximation, continuity-corrected), Kruskal and Wallis' of more.

    Args:
        counts: records by bin and group, bins ascending, shape (num_bins, num_groups); no group is empty.
        is_exact: whether all values in a bin are equal, shape (num_bins,).

    Returns:
        None where all values are in one bin. Where bins hold unequal values, the p-value at their mean ranks, with the
        least and the greatest that any ranks within the bins give.
    """
    per_bin, sizes = counts.sum(axis=1), counts.sum(axis=0)
    size = int(sizes.sum())
    midranks = np.cumsum(per_bin) - (per_bin - 1) / 2
    rank_sums = midranks @ counts
    # In a bin of m records of which k are a group's, ranks within it may move this group's sum by k (m - k) / 2.
    slack = np.where(is_exact[:, None], 0.0, counts * (per_bin[:, None] - counts) / 2).sum(axis=0)
    bins = per_bin.astype(np.float64)
    ties = float((bins**3 - bins).sum())
    least_ties = float((bins**3 - bins)[is_exact].sum())
    variances = [1 - t / (float(size) ** 3 - size) for t in (ties, least_ties)] if size > 1 else [0.0, 0.0]
    if variances[0] <= 0:
        return None
    if len(sizes) == 2:
        return _mann_whitney(float(rank_sums[0]), float(slack[0]), sizes, variances)
    return _kruskal(rank_sums, slack, sizes, variances)


def _mann_whitney(rank_sum: float, slack: float, sizes: Counts, variances: list[float]) -> MeansTest:
    size = int(sizes.sum())
    product = float(sizes[0]) * float(sizes[1])
    distance = abs(rank_sum - sizes[0] * (size + 1) / 2)

    def p_value(distance: float, variance: float) -> tuple[float, float]:
        z = max(distance - 0.5, 0.0) / math.sqrt(product * (size + 1) / 12 * variance)
        return z, two_sided_p(z, None)

    z, p = p_value(distance, variances[0])
    return MeansTest(
        name="Mann-Whitney test",
        statistic=math.copysign(z, rank_sum - sizes[0] * (size + 1) / 2),
        df=None,
        p_value=p,
        p_low=p_value(distance + slack, variances[0])[1],
        p_high=p_value(max(distance - slack, 0.0), variances[1])[1],
    )


def _kruskal(rank_sums: Floats, slack: Floats, sizes: Counts, variances: list[float]) -> MeansTest:
    size, df = int(sizes.sum()), len(sizes) - 1
    unit = 12 / (size * (size + 1))
    deviations = rank_sums - sizes * (size + 1) / 2
    length = math.sqrt(unit * float((deviations**2 / sizes).sum()))
    # Lengths differ by no more than that of the vector of the slacks.
    reach = math.sqrt(unit * float((slack**2 / sizes).sum()))
    statistic = length**2 / variances[0]
    highest, lowest = (length + reach) ** 2 / variances[0], max(length - reach, 0.0) ** 2 / variances[1]
    return MeansTest(
        name="Kruskal-Wallis test",
        statistic=statistic,
        df=df,
        p_value=float(special.chdtrc(df, statistic)),
        p_low=float(special.chdtrc(df, highest)),
        p_high=float(special.chdtrc(df, lowest)),
    )
