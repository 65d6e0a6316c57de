"""Gray's test that groups have the same cumulative incidence of a cause, from counts by time.

Each group's risk set at a time is scaled by `(1 - F(t-)) / S(t-)`, its own estimates of the incidence of the cause and
of staying free of all causes, to the number that would be at risk had nobody left for another cause. Observed less
expected events are then summed over times as in a log-rank test. The variance is that of the martingales behind
both, of the cause in question and of all others together, with corrections for ties.

References:
    Gray (1988), Annals of Statistics 16(3): the test, its scores (section 2) and their variance (section 3).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.log_rank import LogRankSums

Values = NDArray[np.float64]


def gray_sums(events: Values, others: Values, at_risk: Values, rho: float) -> LogRankSums:
    """Sums of the test over strata and times.

    Args:
        events: of the cause, shape (num_groups, num_strata, num_steps).
        others: events of all other causes, likewise.
        at_risk: likewise.
        rho: times are weighted by `(1 - F(t-))**rho`.
    """
    total = LogRankSums.zero(len(events))
    for stratum in range(events.shape[1]):
        is_time = (events[:, stratum] + others[:, stratum]).any(axis=0)
        here, other, n = (table[:, stratum][:, is_time].astype(np.float64) for table in (events, others, at_risk))
        total += _one_stratum(here, other, n, rho)
    return total


def _one_stratum(events: Values, others: Values, at_risk: Values, rho: float) -> LogRankSums:
    """Arrays of shape (num_groups, num_times); "before" is just before a time, "after" just after it."""
    is_at_risk = at_risk > 0
    hazard = _divided(events + others, at_risk)
    free: Values = np.cumprod(1 - hazard, axis=1).astype(np.float64)
    free_before = _before(free, 1.0)
    incidence_before = _before(np.cumsum(_divided(free_before * events, at_risk), axis=1), 0.0)
    size = _divided(at_risk, np.where(is_at_risk, free_before, 0.0))
    total_size = size.sum(axis=0)
    scaled = size * (1 - incidence_before)
    num_events = events.sum(axis=0)
    # The incidence that all groups would share, were they alike.
    shared = np.cumsum(_divided(num_events, total_size))
    shared_before = _before(shared[None], 0.0)[0]
    # With late entries (where no test is shown) it may exceed 1.
    weight = np.maximum(1 - shared_before, 0.0) ** rho
    expected = _divided(scaled, scaled.sum(axis=0)) * num_events * weight
    return LogRankSums(
        observed=(events * weight).sum(axis=1),
        expected=expected.sum(axis=1),
        variance=_variance(events, others, at_risk, free, free_before, size, total_size, shared, shared_before, weight),
    )


def _variance(
    events: Values,
    others: Values,
    at_risk: Values,
    free: Values,
    free_before: Values,
    size: Values,
    total_size: Values,
    shared: Values,
    shared_before: Values,
    weight: Values,
) -> Values:
    """Of the scores, shape (num_groups, num_groups)."""
    num_groups, num_events = len(events), events.sum(axis=0)
    part = _divided(size, total_size)
    # How a score reacts to an event of group k: directly, and through the incidences that later times are scaled by.
    direct = weight * size[None] * (np.eye(num_groups)[:, :, None] - part[:, None])
    through = np.cumsum(direct * _divided(num_events, total_size * (1 - shared_before)), axis=-1)
    ratio = _divided(np.broadcast_to(1 - shared, free.shape), free)
    jumps = _cause_jumps(num_events, at_risk, free_before, total_size)
    own = direct + (1 - ratio) * (through[:, :, -1:] - through)
    variance = np.einsum("ikt,jkt,kt->ij", own, own, jumps)
    other_jumps = np.where(free > 0, _other_jumps(others, at_risk, free_before), 0.0)
    other = ratio * (through[:, :, -1:] - through)
    variance += np.einsum("ikt,jkt,kt->ij", other, other, other_jumps)
    return np.asarray(variance, np.float64)


def _cause_jumps(num_events: Values, at_risk: Values, free_before: Values, total_size: Values) -> Values:
    """Variance of what one group's incidence of the cause grows by, were the groups alike."""
    others_than_this = total_size * free_before - 1
    tied = np.where(num_events > 1, 1 - _divided(num_events - 1, others_than_this), 1.0)
    return tied * _divided(free_before * num_events, total_size * at_risk)


def _other_jumps(others: Values, at_risk: Values, free_before: Values) -> Values:
    tied = np.where(others > 1, 1 - _divided(others - 1, at_risk - 1), 1.0)
    return tied * _divided(free_before**2 * others, at_risk**2)


def _before(table: NDArray[Any], first: float) -> Values:
    return np.concatenate([np.full((len(table), 1), first), table[:, :-1]], axis=1)


def _divided(numerator: Values, denominator: Values) -> Values:
    """Quotients, 0 where the denominator is."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    out = np.zeros(shape)
    np.divide(numerator, denominator, out=out, where=np.broadcast_to(denominator, shape) > 0)
    return out
