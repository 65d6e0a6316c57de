"""Cumulative incidences of competing causes from counts, with variances and what a coarse grid may change.

References:
    Aalen, Johansen (1978), Scandinavian Journal of Statistics 5(3): the estimate.
    Gaynor et al. (1993), JASA 88(422), appendix: its variance by the delta method.
    Beyersmann, Allignol, Schumacher (2012), Competing Risks and Multistate Models with R, section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidenceEstimate:
    """One group's cumulative incidence of one cause on the whole grid, each array of shape (num_steps,).

    Attributes:
        incidence: probability of the cause by each point.
        variance: of that.
        grid_error: how far the estimate from unrounded times may lie from it.

    Guarantees:
        grid_error_bounds_the_unrounded_incidence: the estimate from unrounded times is not farther away.
    """

    incidence: Values
    variance: Values
    grid_error: Values


def incidences(left: Values, at_risk: Values, entered: Values) -> tuple[IncidenceEstimate, ...]:
    """The cumulative incidence of each cause.

    Args:
        left: by cause (0: censored), shape (num_causes + 1, num_steps).
        at_risk: shape (num_steps,).
        entered: that entered at each point, shape (num_steps,); 0 without late entries.
    """
    events = left[1:].sum(axis=0)
    free = np.cumprod(1 - _share(events, at_risk))
    free_before = np.concatenate([[1.0], free[:-1]])
    low, high = _free_bounds(events, left[0], entered, at_risk)
    estimates = []
    for cause in left[1:]:
        incidence = np.cumsum(free_before * _share(cause, at_risk))
        # What an event of the cause adds is S / n, which other events leave as it is. A record that is censored when m
        # are at risk lifts it by m / (m - 1), one that enters lowers it by m / (m + 1): most where few are left, that
        # is, after all events of other causes in the step.
        remain = at_risk - (events - cause)
        least = np.cumsum(low * _share(cause, at_risk) * _ratio(remain, remain + entered))
        most = np.cumsum(high * _share(cause, at_risk) * _ratio(remain, np.maximum(remain - left[0], cause)))
        estimates.append(
            IncidenceEstimate(
                incidence=incidence,
                variance=_variance(cause, events, at_risk, free_before, incidence),
                grid_error=np.maximum(most - incidence, incidence - least),
            )
        )
    return tuple(estimates)


def _share(events: Values, at_risk: Values) -> Values:
    share = np.divide(events, at_risk, out=np.zeros(len(at_risk)), where=events > 0)
    return np.minimum(share, 1.0)


def _ratio(numerator: Values, denominator: Values) -> Values:
    return np.divide(numerator, denominator, out=np.ones(len(numerator)), where=denominator > 0)


def _free_bounds(events: Values, censored: Values, entered: Values, at_risk: Values) -> tuple[Values, Values]:
    """What being free of all causes just before each step is at least and at most, from unrounded times."""
    low = np.cumprod(1 - _share(events, np.maximum(at_risk - censored, events)))
    high = np.cumprod(1 - _share(events, at_risk + entered))
    return np.concatenate([[1.0], low[:-1]]), np.concatenate([[1.0], high[:-1]])


def _variance(cause: Values, events: Values, at_risk: Values, free_before: Values, incidence: Values) -> Values:
    """The delta method with multinomial events at each point.

    With `D = F(t) - F(s)`, what is added at a time s up to t is

        D**2 d / (n (n - d)) - 2 D S d_k / n**2 + S**2 d_k (n - d_k) / n**3

    a polynomial in F(t), whose coefficients are cumulative sums.
    """
    is_event = events > 0
    n = np.where(is_event, at_risk, 1.0)
    remain = np.where(is_event & (events < n), n - events, np.inf)  # after the last event D is 0
    square = np.where(is_event, events / (n * remain), 0.0)
    linear = np.where(is_event, -2 * free_before * cause / n**2, 0.0)
    constant = np.where(is_event, free_before**2 * cause * (n - cause) / n**3, 0.0)
    total = (
        incidence**2 * np.cumsum(square)
        + incidence * np.cumsum(linear - 2 * square * incidence)
        + np.cumsum(square * incidence**2 - linear * incidence + constant)
    )
    return np.asarray(np.maximum(total, 0.0), np.float64)
