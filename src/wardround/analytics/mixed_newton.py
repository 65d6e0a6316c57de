"""Newton's iteration within a region of trust, driven by asks: each evaluation is one round over the sites.

References:
    Nocedal & Wright (2006), Numerical Optimization, 2nd ed., algorithm 4.1 and section 4.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.errors import ConvergenceError
from wardround.sums import Steps

Values = NDArray[np.float64]

MAX_ITERATIONS = 100
"""Most evaluations."""
STEP_TOLERANCE = 1e-7
"""Largest last step of a parameter, relative to 1 + its size; what is left after it is of the order of its square."""
_NOISE = 1e-13
# Relative size of a change that rounding could make.
_FLAT = 1e-9
# Curvature, relative to the largest, below which a direction counts as flat.
_LEVEL = 1e-9
# Slope, relative to 1 + the value's size, below which it counts as none.
_ENOUGH_FLAT_STEPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A function at some place.

    Attributes:
        at: shape (num_parameters,).
        value: to be minimised; infinity where the place is impossible.
        gradient: shape (num_parameters,).
        hessian: shape (num_parameters, num_parameters).
        found: what else was computed there.
    """

    at: Values
    value: float
    gradient: Values
    hessian: Values
    found: Any


def minimise(evaluate: Callable[[Values], Steps[Point]], start: Values) -> Steps[tuple[Point, int]]:
    """Iterate to a minimum of a smooth function.

    Args:
        evaluate: makes the steps that give value, gradient and Hessian at a place.
        start: shape (num_parameters,).

    Returns:
        The minimum, and the number of evaluations.

    Raises:
        ConvergenceError: no minimum in `MAX_ITERATIONS` evaluations.

    Guarantees:
        only_a_minimum_is_returned: the gradient is zero to rounding error and the Hessian has no negative eigenvalue.
    """
    point = yield from evaluate(start)
    radius, num_flat = 1.0, 0
    for iteration in range(2, MAX_ITERATIONS + 1):
        step, gain = _step(point, radius)
        size = float(np.max(np.abs(step) / (1 + np.abs(point.at)), initial=0.0))
        there = yield from evaluate(point.at + step)
        fall, noise = point.value - there.value, _NOISE * (1 + abs(point.value))
        is_flat = abs(fall) <= noise and gain <= noise
        if fall > 0.1 * gain or is_flat:
            if size <= STEP_TOLERANCE:
                return there, iteration
            num_flat = num_flat + 1 if is_flat else 0
            if num_flat >= _ENOUGH_FLAT_STEPS:
                return there, iteration
            is_bold = fall > 0.7 * gain and float(np.linalg.norm(step)) > 0.9 * radius
            point, radius = there, radius * (2.5 if is_bold else 1.0)
        else:
            radius = 0.3 * min(radius, float(np.linalg.norm(step)))
            if radius < 1e-12:
                break
    raise ConvergenceError(
        f"no convergence in {MAX_ITERATIONS} evaluations; simplify the random effects or the formula, or use fewer "
        "quadrature points"
    )


def _step(point: Point, radius: float) -> tuple[Values, float]:
    """The step to the least of the quadratic model within the radius, and how much the model falls by it."""
    values, vectors = np.linalg.eigh((point.hessian + point.hessian.T) / 2)
    slope = vectors.T @ point.gradient
    flat = np.abs(values) <= _FLAT * float(np.abs(values).max(initial=0.0))
    # A direction without slope and curvature is left alone, as in a likelihood that some parameter does not enter.
    idle = flat & (np.abs(slope) <= _LEVEL * (1 + abs(point.value)))
    values, slope = np.where(flat, 0.0, values), np.where(idle, 0.0, slope)
    along = np.zeros_like(slope)
    if (values[~idle] > 0).all():
        along[~idle] = -slope[~idle] / values[~idle]
    if not (values[~idle] > 0).all() or np.linalg.norm(along) > radius:
        along = _on_the_edge(values, slope, radius)
    return vectors @ along, float(-slope @ along - 0.5 * along @ (values * along))


def _on_the_edge(values: Values, slope: Values, radius: float) -> Values:
    """The least of the quadratic model on the region's edge, by bisection of the shift of its eigenvalues."""
    low = max(0.0, -float(values.min()))
    high = low + float(np.linalg.norm(slope)) / radius + 1e-12
    for _ in range(100):
        middle = (low + high) / 2
        along = -slope / np.maximum(values + middle, 1e-300)
        low, high = (middle, high) if np.linalg.norm(along) > radius else (low, middle)
    along = -slope / np.maximum(values + high, 1e-300)
    missing = radius**2 - float(along @ along)
    if values.min() < 0 and missing > 1e-6 * radius**2:  # at a saddle the gradient has no part along the way down
        along[int(values.argmin())] += np.sqrt(missing)
    return along
