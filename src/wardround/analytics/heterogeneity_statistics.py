"""The statistics of a comparison of sites, from sums over sites: tests, intraclass correlation, correction.

References:
    Donner (1986), Int Stat Review 54, equation 2.1 (intraclass correlation from an analysis of variance).
    Holm (1979), Scand J Stat 6. Benjamini, Hochberg (1995), J R Stat Soc B 57.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from wardround.analytics.brackets import Counts
from wardround.analytics.heterogeneity_sums import Deviations, Item

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SiteTest:
    """A test of equality over sites, with the intraclass correlation."""

    name: Literal["analysis of variance", "chi-square"]
    statistic: float
    df: int
    df_residual: int | None
    p_value: float
    rank_p_value: float | None
    correlation: float


def equality_test(item: Item, counts: Counts, total: Deviations, i: int) -> SiteTest:
    """Test item number `i`, whose counts over all sites by bin are given."""
    num, num_sites = int(counts.sum()), round(float(total.num_sites[i]))
    df, df_within = num_sites - 1, num - num_sites
    correlation = intraclass(
        float(total.between[i]), float(total.within[i]), num, num_sites, float(total.size_squares[i])
    )
    if item.kind != "number":
        df *= int((counts > 0).sum()) - 1
        statistic = float(total.chi_square[i])
        p_value = float(special.chdtrc(df, statistic)) if df > 0 else float("nan")
        return SiteTest("chi-square", statistic, df, None, p_value, None, correlation)
    if df < 1 or df_within < 1 or total.within[i] <= 0:
        return SiteTest("analysis of variance", float("nan"), df, df_within, float("nan"), None, correlation)
    statistic = float(total.between[i] / df / (total.within[i] / df_within))
    p_value = float(special.fdtrc(df, df_within, statistic))
    rank = kruskal(float(total.ranks[i]), counts)
    return SiteTest(
        "analysis of variance", statistic, df, df_within, p_value, float(special.chdtrc(df, rank)), correlation
    )


def kruskal(ranks: float, counts: Counts) -> float:
    """The Kruskal-Wallis statistic, corrected for ties, of values known by their bins.

    Args:
        ranks: sum over sites of size times the squared mean rank's distance from the middle, in parts of all records.
        counts: of all sites by bin, shape (num_bins,).
    """
    num = float(counts.sum())
    sizes = counts.astype(float)
    ties = 1 - float((sizes**3 - sizes).sum()) / (num**3 - num)
    return 12 * num / (num + 1) * ranks / ties


def intraclass(between: float, within: float, num: int, num_sites: int, size_squares: float) -> float:
    """Intraclass correlation from an analysis of variance; NaN where there is but one site, or no spread.

    Args:
        between: sum of squares between sites.
        within: sum of squares within sites.
        num: records.
        num_sites: sites with a record.
        size_squares: sum of the sites' squared sizes.
    """
    if num_sites < 2 or num <= num_sites or between + within <= 0:
        return float("nan")
    mean_between, mean_within = between / (num_sites - 1), within / (num - num_sites)
    size = (num - size_squares / num) / (num_sites - 1)
    return (mean_between - mean_within) / (mean_between + (size - 1) * mean_within)


def corrected(p_values: Values, how: Literal["holm", "bh"]) -> Values:
    """P-values corrected for their number; NaN where there is none."""
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    num, answer = len(order), np.full(len(p_values), np.nan)
    if how == "holm":
        answer[order] = np.maximum.accumulate(p_values[order] * np.arange(num, 0, -1)).clip(max=1.0)
    else:
        scaled = (p_values[order] * num / np.arange(1, num + 1))[::-1]
        answer[order] = np.minimum.accumulate(scaled)[::-1].clip(max=1.0)
    return answer
