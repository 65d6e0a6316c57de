"""Tests that groups have the same survival: sums of observed less expected events over times and strata.

References:
    Mantel (1966), Cancer Chemotherapy Reports 50(3): the log-rank test.
    Harrington, Fleming (1982), Biometrika 69(3), equation 2.1: the family of weights.
    Gehan (1965), Biometrika 52(1/2); Tarone, Ware (1977), Biometrika 64(1); Peto, Peto (1972), JRSS A 135(2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

Values = NDArray[np.float64]

TestName: TypeAlias = Literal["log-rank", "gehan", "tarone-ware", "peto", "fleming-harrington"]
TEST_NAMES = {
    "log-rank": "log-rank test",
    "gehan": "Gehan's generalised Wilcoxon test",
    "tarone-ware": "Tarone-Ware test",
    "peto": "Peto-Peto test",
    "fleming-harrington": "Fleming-Harrington test",
}
MAX_EXPONENT = 10.0
"""Largest exponent of a Fleming-Harrington weight."""
_LEAST_VARIANCE = 1e-13
# Relative to what is expected: a variance below this is the rounding error of one that is 0.


@dataclass(frozen=True, slots=True)
class TestWeighting:
    """How the times of a test are weighted.

    Attributes:
        test: "log-rank": 1; "gehan": those at risk; "tarone-ware": their square root; "peto": Peto's estimate of
            survival; "fleming-harrington": `S(t-)**rho * (1 - S(t-))**gamma`, with Kaplan and Meier's S of all groups.
        rho: weight of early times.
        gamma: weight of late times.
    """

    __test__ = False  # its name is not that of a pytest class

    test: TestName = "log-rank"
    rho: float = 0.0
    gamma: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.rho <= MAX_EXPONENT and 0 <= self.gamma <= MAX_EXPONENT):
            raise ValueError(f"rho and gamma must be in [0, {MAX_EXPONENT:g}], got {self.rho} and {self.gamma}")


LOG_RANK = TestWeighting()
"""All times weigh the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRankSums:
    """Weighted sums over times and strata.

    Attributes:
        observed: events by group, shape (num_groups,).
        expected: were the groups alike, shape (num_groups,).
        variance: of the difference, shape (num_groups, num_groups).
    """

    observed: Values
    expected: Values
    variance: Values

    @classmethod
    def zero(cls, num_groups: int) -> LogRankSums:
        """Nothing summed yet."""
        return cls(
            observed=np.zeros(num_groups), expected=np.zeros(num_groups), variance=np.zeros((num_groups, num_groups))
        )

    def __add__(self, other: LogRankSums) -> LogRankSums:
        return LogRankSums(
            observed=self.observed + other.observed,
            expected=self.expected + other.expected,
            variance=self.variance + other.variance,
        )

    def test(self) -> tuple[float, int, float]:
        """Chi-squared statistic, degrees of freedom and p-value.

        Groups of whom nobody was at risk at an event, or never together with others, are left out; and where groups
        fall into sets that never meet, each set has a degree less than it has groups: the rank of the variance.
        NaN where no two groups can be compared.
        """
        is_met = (self.expected > 0) & (np.diag(self.variance) > _LEAST_VARIANCE * self.expected)
        kept = np.flatnonzero(is_met)[1:]
        if not len(kept):
            return math.nan, 0, math.nan
        excess = (self.observed - self.expected)[kept]
        matrix = self.variance[np.ix_(kept, kept)]
        scale = np.sqrt(np.diag(matrix))
        solved, _, df, _ = np.linalg.lstsq(matrix / np.outer(scale, scale), excess / scale, rcond=1e-12)
        statistic = float(excess / scale @ solved)
        return statistic, int(df), float(special.chdtrc(df, statistic))


def log_rank_sums(events: Values, at_risk: Values, weighting: TestWeighting) -> LogRankSums:
    """Sums of a test over strata and times.

    Args:
        events: shape (num_groups, num_strata, num_steps).
        at_risk: likewise.
        weighting: of the times.
    """
    total = LogRankSums.zero(len(events))
    for stratum in range(events.shape[1]):
        total += _one_stratum(events[:, stratum], at_risk[:, stratum], weighting)
    return total


def _one_stratum(events: Values, at_risk: Values, weighting: TestWeighting) -> LogRankSums:
    is_time = events.any(axis=0)
    d, n = events[:, is_time].astype(np.float64), at_risk[:, is_time].astype(np.float64)
    all_d, all_n = d.sum(axis=0), n.sum(axis=0)
    weight = time_weights(all_d, all_n, weighting)
    share = n / all_n
    with np.errstate(divide="ignore", invalid="ignore"):
        # The variance of a hypergeometric count; the last one at risk alone has none.
        spread = np.where(all_n > 1, all_d * (all_n - all_d) / (all_n - 1), 0.0) * weight**2
    crossed = -(share * spread) @ share.T
    return LogRankSums(
        observed=d @ weight,
        expected=share @ (all_d * weight),
        variance=crossed + np.diag(share @ spread),
    )


def time_weights(events: Values, at_risk: Values, weighting: TestWeighting) -> Values:
    """The weight of each time at which there were events, of all groups together; shape (num_times,)."""
    match weighting.test:
        case "log-rank":
            return np.ones(len(events))
        case "gehan":
            return at_risk
        case "tarone-ware":
            return np.sqrt(at_risk)
        case "peto":
            return np.asarray(np.cumprod(1 - events / (at_risk + 1)), np.float64)
        case "fleming-harrington":
            # Sums of weights of all who are left may differ in the last digit.
            stays = np.where(events > at_risk * (1 - 1e-14), 0.0, 1 - events / at_risk)
            before = np.concatenate([[1.0], np.cumprod(stays)])[:-1]
            return np.asarray(before**weighting.rho * (1 - before) ** weighting.gamma, np.float64)
