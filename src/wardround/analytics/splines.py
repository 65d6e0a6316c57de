"""Spline bases with given knots.

References:
    de Boor (1978), A Practical Guide to Splines (`bs`).
    Harrell (2015), Regression Modeling Strategies, 2nd ed., section 2.4.5 (`rcs`).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from wardround.errors import DataError

MAX_KNOTS = 50
"""Most knots of a spline."""
MAX_DEGREE = 5
"""Highest degree of a B-spline."""


def num_spline_columns(basis: Literal["bs", "rcs"], degree: int, num_knots: int) -> int:
    """Columns that a basis with this many inner (`bs`) or all (`rcs`) knots has."""
    return num_knots + degree if basis == "bs" else num_knots - 1


def spline_basis(
    values: NDArray[np.float64],
    basis: Literal["bs", "rcs"],
    degree: int,
    knots: tuple[float, ...],
    bounds: tuple[float, float],
) -> NDArray[np.float64]:
    """Evaluate a basis without the constant.

    Args:
        values: shape (num_rows,).
        basis: `bs`, B-splines of `degree` between `bounds`; `rcs`, restricted (natural) cubic splines.
        degree: of the B-splines.
        knots: inner knots (`bs`) or all knots (`rcs`), increasing.
        bounds: outer knots of the B-splines.

    Returns:
        Shape (num_rows, num_spline_columns(...)).

    Raises:
        DataError: values lie outside the bounds of a B-spline.
    """
    return _restricted_cubic(values, knots) if basis == "rcs" else _b_spline(values, degree, knots, bounds)


def _b_spline(
    values: NDArray[np.float64], degree: int, knots: tuple[float, ...], bounds: tuple[float, float]
) -> NDArray[np.float64]:
    if values.size and (values.min() < bounds[0] or values.max() > bounds[1]):
        raise DataError(f"bs(): some values lie outside its bounds {bounds}; widen lower_bound and upper_bound")
    outer = degree + 1
    all_knots = np.concatenate([np.full(outer, bounds[0]), knots, np.full(outer, bounds[1])])
    if not values.size:
        return np.empty((0, len(knots) + degree))
    columns: NDArray[np.float64] = BSpline.design_matrix(values, all_knots, degree).toarray()
    return columns[:, 1:]  # the first column is what the others lack of the constant


def _restricted_cubic(values: NDArray[np.float64], knots: tuple[float, ...]) -> NDArray[np.float64]:
    t = np.asarray(knots)
    spread = (t[-1] - t[0]) ** 2

    def cubed(knot: float) -> NDArray[np.float64]:
        above = np.maximum(values - knot, 0.0)
        cube: NDArray[np.float64] = above * above * above  # ten times as fast as a power
        return cube

    last_but_one, last = cubed(t[-2]), cubed(t[-1])
    curved = [
        (cubed(t[j]) - last_but_one * (t[-1] - t[j]) / (t[-1] - t[-2]) + last * (t[-2] - t[j]) / (t[-1] - t[-2]))
        / spread
        for j in range(len(t) - 2)
    ]
    return np.column_stack([values, *curved])
