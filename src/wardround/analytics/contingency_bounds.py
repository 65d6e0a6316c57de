"""Between which p-values the tests of a table with hidden cells lie, where too many tables fit to go through them.

With the totals known, Pearson's chi-square and G are sums of convex functions of the cells. Over what the totals leave
possible, linear programs bound them: from above with the chord of each cell's function, from below with tangents.
The bounds follow from the numbers shown, and so tell nothing more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.optimize import linprog

from wardround.analytics.contingency_statistics import CHI_SQUARE, LIKELIHOOD_RATIO, ShownTable

Floats = NDArray[np.float64]
Term: TypeAlias = Callable[[Floats, Floats], Floats]

MAX_BOUNDED = 200
"""Most hidden cells of a table whose p-values are bounded."""
NUM_TANGENTS = 40
"""Tangents a cell, spread evenly over its range."""
_SLACK = 1e-6
# Of the linear programs' answers, relative.


def p_value_bounds(shown: ShownTable) -> dict[str, tuple[float, float]]:
    """Least and greatest p-value by test, wide enough for every table that fits; nothing where totals are hidden.

    Guarantees:
        p_values_lie_within: the p-values of all tables that fit what is shown lie within these bounds.
    """
    if None in shown.row_totals or None in shown.column_totals:
        return {}
    totals = [np.array(part, np.float64) for part in (shown.row_totals, shown.column_totals)]
    rows, columns = (np.flatnonzero(part) for part in totals)
    df = (len(rows) - 1) * (len(columns) - 1)
    hidden = [(i, j) for i in rows for j in columns if shown.cells[i][j] is None]
    if df < 1 or len(hidden) > MAX_BOUNDED:
        return {}
    expected = np.outer(*totals) / shown.total
    known = [(float(shown.cells[i][j] or 0), expected[i, j]) for i in rows for j in columns if (i, j) not in hidden]
    place = np.array(hidden)
    left = [_left(shown, totals[0], axis=0), _left(shown, totals[1], axis=1)]
    at = expected[place[:, 0], place[:, 1]]
    most = np.minimum(left[0][place[:, 0]], left[1][place[:, 1]])
    equations, sums = _equations(place, left)
    bounds = {}
    for name, value, slope in ((CHI_SQUARE, _pearson, _pearson_slope), (LIKELIHOOD_RATIO, _deviance, _deviance_slope)):
        fixed = float(sum(value(np.array(n), np.array(e)) for n, e in known))
        high = fixed + _greatest(value, at, most, equations, sums)
        low = fixed + _least(value, slope, at, most, equations, sums)
        wide = _SLACK * max(abs(high), 1.0)
        bounds[name] = float(special.chdtrc(df, high + wide)), float(special.chdtrc(df, max(low - wide, 0.0)))
    return {name: (_rounded(low, -1), _rounded(high, 1)) for name, (low, high) in bounds.items()}


def _left(shown: ShownTable, totals: Floats, axis: int) -> Floats:
    """What the shown cells leave of the totals of the rows (axis 0) or of the columns (1)."""
    known = np.array([[cell or 0 for cell in row] for row in shown.cells], np.float64)
    return np.asarray(totals - known.sum(axis=1 - axis), np.float64)


def _equations(place: NDArray[np.int64], left: list[Floats]) -> tuple[Floats, Floats]:
    """Hidden cells of a row, and of a column, add up to what is left of its total."""
    lines = [(place[:, axis] == line, left[axis][line]) for axis in (0, 1) for line in np.unique(place[:, axis])]
    return np.array([mask for mask, _ in lines], np.float64), np.array([size for _, size in lines])


def _pearson(count: Floats, expected: Floats) -> Floats:
    return (count - expected) ** 2 / expected


def _pearson_slope(count: Floats, expected: Floats) -> Floats:
    return 2 * (count - expected) / expected


def _deviance(count: Floats, expected: Floats) -> Floats:
    return np.asarray(2 * special.xlogy(count, count / expected), np.float64)


def _deviance_slope(count: Floats, expected: Floats) -> Floats:
    slope: Floats = 2 * (np.log(count / expected) + 1)
    return slope


def _greatest(value: Term, expected: Floats, most: Floats, equations: Floats, sums: Floats) -> float:
    """Upper bound of the sum: on its range, a convex function lies below its chord."""
    start, end = value(np.zeros(len(most)), expected), value(most, expected)
    slopes = (end - start) / np.maximum(most, 1e-9)
    found = linprog(-slopes, A_eq=equations, b_eq=sums, bounds=[(0.0, high) for high in most.tolist()])
    # Without an answer of the solver, what the cells can be one by one.
    return float(np.maximum(start, end).sum() if found.fun is None else start.sum() - found.fun)


def _least(value: Term, slope: Term, expected: Floats, most: Floats, equations: Floats, sums: Floats) -> float:
    """Lower bound of the sum: a convex function lies above its tangents. One more variable a cell is above them all."""
    size = len(most)
    blocks, limits = [], []
    for share in (np.arange(NUM_TANGENTS) + 0.5) / NUM_TANGENTS:
        point = np.maximum(share * most, 1e-9)
        tilt = slope(point, expected)
        blocks.append(np.hstack([np.diag(tilt), -np.eye(size)]))
        limits.append(tilt * point - value(point, expected))
    found = linprog(
        np.concatenate([np.zeros(size), np.ones(size)]),
        A_ub=np.vstack(blocks),
        b_ub=np.concatenate(limits),
        A_eq=np.hstack([equations, np.zeros((len(equations), size))]),
        b_eq=sums,
        bounds=[*((0.0, high) for high in most.tolist()), *([(None, None)] * size)],
    )
    return -np.inf if found.fun is None else float(found.fun)


def _rounded(p_value: float, direction: int) -> float:
    """To two significant digits, away from the middle, so that solvers' last digits do not show."""
    if not 0 < p_value < 1:
        return p_value
    unit = 10.0 ** (np.floor(np.log10(p_value)) - 1)
    scaled = p_value / unit
    return float(min((np.floor(scaled) if direction < 0 else np.ceil(scaled)) * unit, 1.0))
