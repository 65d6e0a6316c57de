"""Profile-likelihood intervals of a random intercept's standard deviation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import special

from wardround.analytics.mixed_integral import IntegralModel
from wardround.analytics.mixed_linear import LinearModel
from wardround.analytics.mixed_newton import Point
from wardround.analytics.mixed_variance import SINGULAR, profile_bound
from wardround.sums import Steps

Values = NDArray[np.float64]


def linear_interval(linear: LinearModel, whole: Point, null: Point, confidence: float) -> Steps[tuple[float, float]]:
    """Interval of the standard deviation between sites of a linear model, in the outcome's own size.

    Args:
        linear: the model.
        whole: the minimum, by theta and the logarithm of the residual standard deviation.
        null: the profiled deviance without random effects.
        confidence: of the interval.

    Raises:
        ConvergenceError: an end could not be reached.
    """

    def evaluate(place: Values) -> Steps[Point]:
        """By the logarithms of the standard deviations between sites and within."""
        theta = np.array([np.exp(place[0] - place[1])])
        point = yield from linear.at(theta)
        return _by_logarithms(point.found.by_log_sigma(theta, float(place[1])), place)

    theta, log_sigma = abs(float(whole.at[0])), float(whole.at[1])
    bend = float(whole.hessian[0, 0] - whole.hessian[0, 1] ** 2 / whole.hessian[1, 1])

    def place_of(value: float) -> Values:
        return np.array([np.log(value) + log_sigma, log_sigma])

    ends = yield from _ends(evaluate, place_of, (theta, bend), 0, whole.value, null.value, confidence)
    return tuple(0.0 if end is None else float(np.exp(end[0])) for end in ends)  # type: ignore[return-value]  # two


def theta_interval(integral: IntegralModel, best: Point, null: Point, confidence: float) -> Steps[tuple[float, float]]:
    """Interval of the standard deviation between sites of a logistic or Poisson model.

    Raises:
        ConvergenceError: an end could not be reached.
    """
    p = len(best.at) - 1
    cross = best.hessian[:p, p]
    bend = float(best.hessian[p, p] - cross @ np.linalg.solve(best.hessian[:p, :p], cross))

    def place_of(value: float) -> Values:
        return np.append(best.at[:p], value)

    found = (abs(float(best.at[p])), bend)
    ends = yield from _ends(integral.at, place_of, found, p, best.value, null.value, confidence)
    return tuple(0.0 if end is None else abs(float(end[p])) for end in ends)  # type: ignore[return-value]  # two


def _ends(
    evaluate: Callable[[Values], Steps[Point]],
    place_of: Callable[[float], Values],
    found: tuple[float, float],
    interest: int,
    least: float,
    null: float,
    confidence: float,
) -> Steps[tuple[Values | None, Values | None]]:
    """Both ends; the lower one is None where even no random effect lies within the interval."""
    theta, bend = found
    reach = float(special.chdtri(1, 1 - confidence))
    # Where the deviance has grown by as much if it is a parabola (of theta, or of its square's root at zero).
    half = float(np.sqrt(2 * reach / max(bend, 1e-10)))
    low = None
    if null > least + reach and theta > SINGULAR:
        low = yield from profile_bound(
            evaluate, place_of(theta * np.exp(-min(half / theta, 1.5))), interest, least + reach
        )
    high = yield from profile_bound(evaluate, place_of(theta + half), interest, least + reach)
    return low, high


def _by_logarithms(point: Point, place: Values) -> Point:
    """A point by theta and log sigma, by the logarithms of theta times sigma and of sigma."""
    theta = float(point.at[0])
    (by_theta, by_sigma), hessian = point.gradient, point.hessian
    twice = theta**2 * hessian[0, 0] + theta * by_theta
    mixed = theta * hessian[0, 1] - twice
    return Point(
        at=place,
        value=point.value,
        gradient=np.array([theta * by_theta, by_sigma - theta * by_theta]),
        hessian=np.array([[twice, mixed], [mixed, hessian[1, 1] - 2 * theta * hessian[0, 1] + twice]]),
        found=point.found,
    )
