"""Test of proportional hazards, and baseline hazards with what predictions from them need.

References:
    Grambsch & Therneau (1994), Biometrika 81, 515-526; as a score test of coefficients that grow with a function of
    time, Therneau, vignette "Approximating a Cox model" and `cox.zph` of R's survival since version 3.
    Breslow (1974), Biometrics 30, 89-99 (baseline hazard). Tsiatis (1981), Annals of Statistics 9, 93-108 (variance).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from wardround.analytics.cox_fit import LEAST_PART, At, RiskSets, SharedRiskSets
from wardround.analytics.cox_risk import Values, cumulated
from wardround.analytics.cox_sums import Leaving
from wardround.analytics.linear import solve_symmetric
from wardround.analytics.preparation import Prepared
from wardround.analytics.survival_time import shown_times
from wardround.sums import Steps

Counts = NDArray[np.int64]
TimeTransform: TypeAlias = Literal["km", "rank", "identity", "log"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProportionalityTest:
    """Test that the effect of a term, or ("GLOBAL") of all, does not change over time."""

    term: str
    statistic: float
    df: int
    p_value: float


def time_values(counts: Leaving, times: Values, transform: TimeTransform) -> Values:
    """A function of time on the grid, scaled to mean 0 and spread 1 over the events; shape (num_steps,).

    Args:
        counts: events, leavers and enterers by stratum and grid point, over all sites.
        times: of the grid's points.
        transform: the product-limit estimate just before each time ("km"), the mean rank among all times, the time
            itself or its logarithm.
    """
    events, leavers, entering = (
        part.sum(axis=0).astype(float) for part in (counts.num_events, counts.num_leaving, counts.num_entering)
    )
    before = leavers.cumsum() - leavers
    match transform:
        case "identity":
            values = times.astype(float)
        case "log":
            values = np.log(np.maximum(times, times[1] / 2 if len(times) > 1 else 1.0))
        case "rank":
            values = before + (leavers + 1) / 2
        case "km":
            at_risk = leavers.sum() - before - entering[::-1].cumsum()[::-1]
            with np.errstate(invalid="ignore"):
                survival = np.where(events > 0, 1 - events / np.maximum(at_risk, 1.0), 1.0).cumprod()
            values = 1 - np.r_[1.0, survival[:-1]]
    share = events / events.sum()
    centred = values - share @ values
    spread = float(np.sqrt(share @ centred**2))
    return centred / spread if spread > 0 else np.zeros_like(centred)


def proportionality(
    prepared: Prepared, sets: RiskSets, found: At, values: Values
) -> Steps[tuple[ProportionalityTest, ...]]:
    """Score tests that coefficients do not grow with a function of time, by term and of all together.

    Args:
        prepared: the design.
        sets: where the risk sets lie.
        found: the fit, with the information.
        values: of the function of time on the grid, shape (num_steps,).

    Returns:
        The tests; without those for which there are too few event times.
    """
    if not values.any():
        return ()
    score, information = yield from sets.weighted(prepared, found, np.stack([values, values**2]))
    # What a coefficient's growth adds beyond the coefficients themselves (a Schur complement).
    explained = information[0] @ solve_symmetric(found.curvature, information[0])
    left = information[1] - explained
    tested = [(term.name, list(term.columns)) for term in prepared.terms if term.columns]
    tested.append(("GLOBAL", list(range(prepared.design.num_columns))))
    return tuple(
        _score_test(name, score[0], left, columns)
        for name, columns in tested
        if _is_informative(left, information[1], columns)
    )


def _is_informative(left: Values, whole: Values, columns: list[int]) -> bool:
    """Whether more than rounding error is left of the information on growth in every direction."""
    index = np.ix_(columns, columns)
    size = np.sqrt(np.maximum(np.diag(whole)[columns], 0.0))
    if not (size > 0).all():
        return False
    return float(np.linalg.eigvalsh(left[index] / np.outer(size, size))[0]) > LEAST_PART


def _score_test(name: str, score: Values, information: Values, columns: list[int]) -> ProportionalityTest:
    part = information[np.ix_(columns, columns)]
    statistic = float(score[columns] @ solve_symmetric(part, score[columns]))
    p_value = float(special.chdtrc(len(columns), max(statistic, 0.0)))
    return ProportionalityTest(term=name, statistic=statistic, df=len(columns), p_value=p_value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The cumulative hazard of a record whose columns all have their means, at the times that may be shown.

    Attributes:
        stratum: levels of the strata variables; empty without strata.
        times: shape (num_times,).
        cumulative_hazard: shape (num_times,).
        variance: of it, were the coefficients known, shape (num_times,).
        drift: cumulated increments times the risk sets' means of the standardised columns, shape
            (num_times, num_columns): with it, the uncertainty of the coefficients enters.
    """

    stratum: str
    times: Values
    cumulative_hazard: Values
    variance: Values
    drift: Values


def baselines(
    sets: SharedRiskSets, found: At, counts: Leaving, labels: tuple[str, ...], minimum_cell: int
) -> tuple[Baseline, ...]:
    """Baselines of all strata in which enough people left for one time to be shown."""
    hazard, outcome = found.known_hazard, sets.risk.outcome
    increment, variance, drift = (cumulated(part) for part in (hazard.increment, hazard.variance, hazard.drift))
    curves = []
    for stratum, label in enumerate(labels):
        kinds = [counts.num_leaving[stratum], counts.num_entering[stratum]]
        shown = shown_times(np.stack(kinds) if kinds[1].any() else kinds[0], minimum_cell)
        if not len(shown):
            continue
        begin = stratum * outcome.num_steps
        start = int(np.searchsorted(sets.points, begin))
        ends = np.searchsorted(sets.points, begin + shown, side="right")
        curves.append(
            Baseline(
                stratum=label,
                times=outcome.times[shown],
                cumulative_hazard=increment[ends] - increment[start],
                variance=variance[ends] - variance[start],
                drift=drift[ends] - drift[start],
            )
        )
    return tuple(curves)
