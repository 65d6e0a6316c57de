"""Association within strata: the sums over strata that Cochran, Mantel and Haenszel's statistics are made of.

A stratum is a level of a variable, or a site: then each site computes the terms of its own table, and only their sums
over the sites leave.

References:
    Mantel, Haenszel (1959), Statistical aspects of the analysis of data from retrospective studies, JNCI 22.
    Robins, Breslow, Greenland (1986), Estimators of the Mantel-Haenszel variance, Biometrics 42: the interval.
    Breslow, Day (1980), Statistical Methods in Cancer Research I, section 4.4, and Tarone (1985), Biometrika 72:
    homogeneity.
    Agresti (2013), Categorical Data Analysis, 3rd ed., section 8.4.3: tables with more than two rows or columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from wardround.analytics.contingency_statistics import expected_counts
from wardround.analytics.families import two_sided_quantile
from wardround.analytics.linear import solve_symmetric

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

NUM_ODDS_SUMS = 5
_ROUNDED_DIGITS = 3
P_CLASSES = (0.0, 0.001, 0.01, 0.05, 1.0)
"""Between which of these a p-value lies is told where nothing else is."""
ENOUGH_SPLITS = 20.0
"""Of how many ways to deal a table's records out to the strata rounded numbers may be told (unit: powers of ten).

Rounded, the numbers tell some twelve digits together; so each fits many of the ways.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StratumSums:
    """Sums over strata, of which those with one record, or one row or column only, tell nothing.

    Attributes:
        deviations: of the counts from what is expected, the last row and column left out; shape (num_free,).
        covariance: of these without association, shape (num_free, num_free).
        odds: of two by two tables with the cells a, b, c, d of n records: ad/n, bc/n, and the sums of products
            (a+d)ad/n^2, (a+d)bc/n^2 + (b+c)ad/n^2, (b+c)bc/n^2; shape (5,).
        informative: how many strata tell something.
        small: in how many a count is small.
    """

    deviations: Floats
    covariance: Floats
    odds: Floats
    informative: float
    small: float

    def __add__(self, other: StratumSums) -> StratumSums:
        return StratumSums(
            deviations=self.deviations + other.deviations,
            covariance=self.covariance + other.covariance,
            odds=self.odds + other.odds,
            informative=self.informative + other.informative,
            small=self.small + other.small,
        )


def stratum_sums(counts: Counts, minimum_cell: int) -> StratumSums:
    """The terms of one stratum's table, shape (num_rows, num_columns)."""
    table = counts.astype(np.float64)
    size, num_free = table.sum(), (table.shape[0] - 1) * (table.shape[1] - 1)
    is_small = float(((counts > 0) & (counts < minimum_cell)).any())
    is_informative = size > 1 and table.any(axis=1).sum() > 1 and table.any(axis=0).sum() > 1
    if not is_informative:
        nothing = np.zeros(num_free), np.zeros((num_free, num_free))
        return StratumSums(
            deviations=nothing[0], covariance=nothing[1], odds=np.zeros(NUM_ODDS_SUMS), informative=0.0, small=is_small
        )
    rows, columns = (table.sum(axis=axis) / size for axis in (1, 0))
    across, down = (np.diag(p[:-1]) - np.outer(p[:-1], p[:-1]) for p in (rows, columns))
    return StratumSums(
        deviations=(table - expected_counts(table))[:-1, :-1].ravel(),
        covariance=np.kron(across, down) * size**2 / (size - 1),
        odds=_odds_sums(table) if table.shape == (2, 2) else np.zeros(NUM_ODDS_SUMS),
        informative=1.0,
        small=is_small,
    )


def _odds_sums(table: Floats) -> Floats:
    (a, b), (c, d) = table / np.sqrt(table.sum())
    size = table.sum()
    same, other = (table[0, 0] + table[1, 1]) / size, (table[0, 1] + table[1, 0]) / size
    return np.array([a * d, b * c, same * a * d, same * b * c + other * a * d, other * b * c])


def homogeneity_terms(counts: Counts, odds_ratio: float) -> Floats:
    """One stratum's part in Breslow and Day's test: ((a - e)^2 / v, a - e, v) at a common odds ratio. Shape (3,)."""
    table = counts.astype(np.float64)
    if table.shape != (2, 2) or not (table.any(axis=1).all() and table.any(axis=0).all()):
        return np.zeros(3)
    row, column, size = table[0].sum(), table[:, 0].sum(), table.sum()
    expected = _expected_cell(row, column, size, odds_ratio)
    cells = np.array([expected, row - expected, column - expected, size - row - column + expected])
    if cells.min() <= 0:
        return np.zeros(3)
    variance, distance = 1 / (1 / cells).sum(), table[0, 0] - expected
    return np.array([distance**2 / variance, distance, variance])


def _expected_cell(row: float, column: float, size: float, odds_ratio: float) -> float:
    """First cell of a two by two table with these margins and odds ratio: the root of a quadratic equation."""
    low, high = max(0.0, row + column - size), min(row, column)
    # (1 - r) e^2 + (size - row - column + r (row + column)) e - r row column = 0, in a form without cancellation.
    linear = size - row - column + odds_ratio * (row + column)
    root = math.sqrt(max(linear**2 + 4 * (1 - odds_ratio) * odds_ratio * row * column, 0.0))
    return min(max(2 * odds_ratio * row * column / (linear + root), low), high)


@dataclass(frozen=True, slots=True, kw_only=True)
class StratifiedAssociation:
    """Association of rows and columns within strata.

    Attributes:
        strata: what the strata are.
        informative: strata with at least two rows and two columns; None where withheld.
        statistic: Cochran, Mantel and Haenszel's chi-square, without continuity correction; None where withheld.
        df: its degrees of freedom.
        p_value: of no association within any stratum.
        odds_ratio: common odds ratio (Mantel and Haenszel), of two by two tables.
        low: lower end of its interval.
        high: upper end.
        homogeneity_p: of equal odds ratios (Breslow and Day, with Tarone's correction), of two by two tables.
        p_low: where the p-value is withheld, as few records are in some cell of a stratum, its class begins here,
        p_high: and ends here.
        is_rounded: whether the numbers are rounded to three digits (p-values: two), as few records are in some cell
            of a stratum.
    """

    strata: str
    informative: int | None
    statistic: float | None
    df: int | None
    p_value: float | None
    odds_ratio: float | None = None
    low: float | None = None
    high: float | None = None
    homogeneity_p: float | None = None
    p_low: float | None = None
    p_high: float | None = None
    is_rounded: bool = False


def common_odds_ratio(sums: StratumSums) -> float | None:
    """Mantel and Haenszel's; None where it is 0 or infinite."""
    return float(sums.odds[0] / sums.odds[1]) if sums.odds[0] > 0 and sums.odds[1] > 0 else None


def stratified(
    strata: str, sums: StratumSums, homogeneity: Floats | None, confidence: float, is_rounded: bool
) -> StratifiedAssociation:
    """Statistics from the sums over strata; `homogeneity` holds the sums of `homogeneity_terms`, shape (3,)."""
    diagonal = np.diag(sums.covariance)
    free = np.flatnonzero(diagonal > 0)
    if not len(free):
        return StratifiedAssociation(strata=strata, informative=0, statistic=None, df=None, p_value=None)
    covariance = sums.covariance[np.ix_(free, free)]
    df = int(np.linalg.matrix_rank(covariance, hermitian=True))
    statistic = float(sums.deviations[free] @ solve_symmetric(covariance, sums.deviations[free]))
    digits = _ROUNDED_DIGITS if is_rounded else None
    odds_ratio = common_odds_ratio(sums)
    low, high = _odds_interval(sums, odds_ratio, confidence)
    return StratifiedAssociation(
        strata=strata,
        informative=int(sums.informative),
        statistic=_rounded(statistic, digits),
        df=df,
        p_value=_rounded(float(special.chdtrc(df, statistic)), digits and 2),
        odds_ratio=_rounded(odds_ratio, digits),
        low=_rounded(low, digits),
        high=_rounded(high, digits),
        homogeneity_p=_rounded(_homogeneity(sums, homogeneity), digits and 2),
        is_rounded=is_rounded,
    )


def num_splits(table: Counts, num_strata: int) -> float:
    """In how many ways a table's records can be dealt out to the strata (unit: powers of ten)."""
    counts, others = table.astype(np.float64), num_strata - 1
    ways = special.gammaln(counts + others + 1) - special.gammaln(counts + 1) - special.gammaln(others + 1)
    return float(ways.sum() / math.log(10))


def only_class(found: StratifiedAssociation) -> StratifiedAssociation:
    """The same with nothing told but the class of its p-value."""
    low = high = None
    if found.p_value is not None:
        place = min(int(np.searchsorted(P_CLASSES, found.p_value, side="right")), len(P_CLASSES) - 1)
        low, high = P_CLASSES[place - 1], P_CLASSES[place]
    return StratifiedAssociation(
        strata=found.strata, informative=None, statistic=None, df=None, p_value=None, p_low=low, p_high=high
    )


def _rounded(value: float | None, digits: int | None) -> float | None:
    return value if value is None or digits is None else float(f"{value:.{digits}g}")


def _odds_interval(sums: StratumSums, odds_ratio: float | None, confidence: float) -> tuple[float | None, float | None]:
    if odds_ratio is None:
        return None, None
    agree, disagree, first, mixed, last = sums.odds
    variance = first / (2 * agree**2) + mixed / (2 * agree * disagree) + last / (2 * disagree**2)
    reach = two_sided_quantile(confidence, None) * math.sqrt(variance)
    return odds_ratio * math.exp(-reach), odds_ratio * math.exp(reach)


def _homogeneity(sums: StratumSums, terms: Floats | None) -> float | None:
    if terms is None or sums.informative < 2 or terms[2] <= 0:
        return None
    statistic = max(float(terms[0] - terms[1] ** 2 / terms[2]), 0.0)
    return float(special.chdtrc(sums.informative - 1, statistic))
