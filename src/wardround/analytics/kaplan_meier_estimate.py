"""Survival curves from counts: Kaplan-Meier and Nelson-Aalen estimates, intervals, quantiles, restricted means.

References:
    Kaplan, Meier (1958), JASA 53(282): the product-limit estimate; equation 2b.
    Greenwood (1926), Reports on Public Health and Medical Subjects 33: its variance.
    Aalen (1978), Annals of Statistics 6(4); Nelson (1972), Technometrics 14(4): the cumulative hazard.
    Kalbfleisch, Prentice (2002), The Statistical Analysis of Failure Time Data, section 1.4: transformed intervals.
    Brookmeyer, Crowley (1982), Biometrics 38(1): intervals of quantiles.
    Jaeckel (1972), The infinitesimal jackknife, Bell Laboratories: robust variances, for weights.
    Irwin (1949), Journal of Hygiene 47(2): the restricted mean and its variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

Values = NDArray[np.float64]
Counts = NDArray[np.int64]

ConfidenceType: TypeAlias = Literal["log-log", "log", "plain"]
"""The scale on which an interval is symmetric."""
CROSSES = 1e-10
"""A curve this near to a probability stands at it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One group's curves on the whole grid, each array of shape (num_steps,).

    Attributes:
        step: distance of the grid's points.
        events: at each point (weighted, where there are weights).
        at_risk: likewise.
        survival: Kaplan and Meier's estimate at each point, right-continuous.
        log_variance: of the logarithm of the survival: Greenwood's sum, or robust.
        cumulative_hazard: Nelson and Aalen's estimate.
        cumulative_hazard_variance: of that.
        squares: sums of squared weights of those who had the event and who were censored, shape (2, num_steps), where
            the variances are robust; else None.
    """

    step: float
    events: Values
    at_risk: Values
    survival: Values
    log_variance: Values
    cumulative_hazard: Values
    cumulative_hazard_variance: Values
    squares: Values | None

    @classmethod
    def of(cls, events: Values, at_risk: Values, step: float, squares: Values | None = None) -> Estimate:
        """From events and those at risk, each of shape (num_steps,); with `squares` the variances are robust."""
        is_event = events > 0
        hazard = np.divide(events, at_risk, out=np.zeros_like(at_risk, float), where=is_event)
        # Weighted sums of all who are left may differ in the last digit.
        hazard[hazard > 1 - 1e-14] = 1.0
        relative = _per_event(hazard, at_risk)
        with np.errstate(divide="ignore"):
            greenwood = np.divide(hazard, at_risk * (1 - hazard), out=np.zeros_like(hazard), where=is_event)
            aalen = np.divide(hazard, at_risk, out=np.zeros_like(hazard), where=is_event)
        log_variance, variance = np.cumsum(greenwood), np.cumsum(aalen)
        survival = np.cumprod(1 - hazard)
        if squares is not None:
            single = np.divide(1.0, at_risk, out=np.zeros_like(hazard), where=is_event)
            log_variance = np.where(survival > 0, _influence_variance(hazard, relative, squares), np.inf)
            variance = _influence_variance(hazard, single, squares)
        return cls(
            step=step,
            events=events,
            at_risk=at_risk,
            survival=survival,
            log_variance=log_variance,
            cumulative_hazard=np.cumsum(hazard),
            cumulative_hazard_variance=variance,
            squares=squares,
        )

    @property
    def standard_error(self) -> Values:
        """Of the survival; NaN where it is 0."""
        return standard_error_of_survival(self.survival, self.log_variance)


def standard_error_of_survival(survival: Values, log_variance: Values) -> Values:
    """From the variance of its logarithm; NaN where the survival is 0."""
    with np.errstate(invalid="ignore"):
        return np.asarray(survival * np.sqrt(log_variance), np.float64)


def _per_event(hazard: Values, at_risk: Values) -> Values:
    """By how much an event of weight 1 lowers the logarithm of the survival; 0 where it lowers it to 0."""
    remain = at_risk * (1 - hazard)
    return np.divide(1.0, remain, out=np.zeros_like(hazard), where=(hazard > 0) & (remain > 0))


def _influence_variance(hazard: Values, per_event: Values, squares: Values) -> Values:
    """The infinitesimal jackknife's variance of a sum over times, where all were there from the beginning.

    A record that is at risk takes `hazard * per_event` off at each time, and adds `per_event` with its event; so those
    who left at a time have one influence, and all who are still there another.

    Args:
        hazard: events over those at risk, shape (num_steps,).
        per_event: what an event of weight 1 adds at each time, shape (num_steps,).
        squares: sums of squared weights of those who had the event and who were censored, shape (2, num_steps).
    """
    so_far = np.cumsum(hazard * per_event)
    left = np.cumsum(squares[0] * (per_event - so_far) ** 2 + squares[1] * so_far**2)
    still_there = squares.sum() - np.cumsum(squares.sum(axis=0))
    return np.asarray(left + np.maximum(still_there, 0.0) * so_far**2, np.float64)


def interval(
    probability: Values, standard_error: Values, confidence_type: ConfidenceType, confidence: float
) -> tuple[Values, Values]:
    """Lower and upper limits of a probability, pointwise; NaN where the scale has none.

    Args:
        probability: estimates in [0, 1].
        standard_error: of them, on their own scale.
        confidence_type: scale on which the interval is symmetric.
        confidence: in (0, 1).
    """
    z = float(special.ndtri(0.5 + confidence / 2))
    with np.errstate(all="ignore"):
        if confidence_type == "plain":
            low, high = probability - z * standard_error, probability + z * standard_error
        elif confidence_type == "log":
            factor = np.exp(z * standard_error / probability)
            low, high = probability / factor, probability * factor
        else:
            log = np.log(probability)
            factor = np.exp(z * standard_error / (probability * np.abs(log)))
            low, high = np.exp(log * factor), np.exp(log / factor)
    return np.maximum(low, 0.0), np.minimum(high, 1.0)


def crossing(curve: Values, level: float, step: float, is_event: NDArray[np.bool_], end: int) -> float | None:
    """The time at which a falling step function comes down to a level; None where it does not.

    Where it stands at the level for a while, the middle of that time, which ends with the follow-up at the latest.

    Args:
        curve: shape (num_steps,), right-continuous; NaN where it is not defined.
        level: in (0, 1).
        step: distance of the points.
        is_event: where the curve may step, shape (num_steps,).
        end: index at which follow-up ended.
    """
    places = np.flatnonzero(is_event)
    values = curve[places]
    reached = places[values <= level + CROSSES]
    if not len(reached):
        return None
    first = int(reached[0])
    later = places[values < level - CROSSES]
    if abs(float(curve[first]) - level) > CROSSES:
        return first * step
    return (first + (int(later[0]) if len(later) else end)) / 2 * step


@dataclass(frozen=True, slots=True, kw_only=True)
class RestrictedMean:
    """Mean survival time up to a horizon, with its standard error; in the unit of the time."""

    horizon: float
    estimate: float
    standard_error: float
    low: float
    high: float


def restricted_mean(estimate: Estimate, last: int, horizon: float, confidence: float) -> RestrictedMean | None:
    """The area under a survival curve up to a horizon; None where follow-up ended before.

    Args:
        estimate: the curve.
        last: index at which the last one left.
        horizon: in the unit of the time, greater than 0.
        confidence: of the interval.
    """
    num = min(math.floor(horizon / estimate.step * (1 + 1e-12)), len(estimate.survival) - 1)
    if last * estimate.step < horizon * (1 - 1e-12) and estimate.survival[last] > 0:
        return None
    # S is constant from each point to the next, the last of which may be the horizon itself.
    widths = np.full(num + 1, estimate.step)
    widths[-1] = max(horizon - num * estimate.step, 0.0)
    area = estimate.survival[: num + 1] * widths
    area_after = np.flip(np.cumsum(np.flip(area)))
    area_after = np.where(area_after > 0, area_after, 0.0)
    if estimate.squares is None:
        with np.errstate(invalid="ignore"):  # late entries may be followed by events after a survival of 0
            steps = np.diff(estimate.log_variance[: num + 1], prepend=0.0)
        # Nothing comes after a survival of 0, whose variance on the log scale is infinite.
        variance = float(np.sum(area_after[np.isfinite(steps)] ** 2 * steps[np.isfinite(steps)]))
    else:
        variance = _robust_mean_variance(estimate, area_after, estimate.squares)
    error, z = math.sqrt(variance), float(special.ndtri(0.5 + confidence / 2))
    mean = float(area.sum())
    return RestrictedMean(
        horizon=horizon, estimate=mean, standard_error=error, low=mean - z * error, high=mean + z * error
    )


def _robust_mean_variance(estimate: Estimate, area_after: Values, squares: Values) -> float:
    """The infinitesimal jackknife's, where an event weighs by the area that comes after it."""
    num_steps = len(estimate.survival)
    after = np.concatenate([area_after, np.zeros(num_steps - len(area_after))])
    hazard = np.divide(estimate.events, estimate.at_risk, out=np.zeros(num_steps), where=estimate.events > 0)
    per_event = _per_event(np.minimum(hazard, 1.0), estimate.at_risk) * after
    return float(_influence_variance(hazard, per_event, squares)[-1])


def grid_error(events: Values, censored: Values, entered: Values, at_risk: Values) -> Values:
    """How far the estimate from unrounded times may lie from this one at each point of the grid; shape (num_steps,).

    Within a step only the order of events, of censored and of entries is not known. The curve is lowest where
    those who were censored in the step left before its events, and highest where those who entered came before them:

        prod (1 - d / (n - c))  <=  S(t)  <=  prod (1 - d / (n + e))

    which is seen from `prod (n - i - 1) / (n - i) = (n - d) / n`: events one after the other, and all at once,
    come to the same.

    Args:
        events: d, at each point.
        censored: c, at each point.
        entered: e, at each point: they entered in the step that ends there.
        at_risk: n, at each point.

    Guarantees:
        grid_error_bounds_the_unrounded_estimate: the estimate from unrounded times is not farther away.
    """
    is_event = events > 0
    zeros = np.zeros_like(at_risk, float)

    def curve(size: Values) -> Values:
        hazard = np.divide(events, size, out=zeros.copy(), where=is_event)
        return np.asarray(np.cumprod(np.clip(1 - hazard, 0.0, 1.0)), np.float64)

    here = curve(at_risk)
    return np.maximum(here - curve(np.maximum(at_risk - censored, events)), curve(at_risk + entered) - here)
