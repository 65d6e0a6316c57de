"""Small dense linear algebra on Gram matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Values = NDArray[np.float64]
RANK_TOLERANCE = 1e-10
"""Part of a column's sum of squares that earlier columns may leave before it counts as their combination."""


def pack_symmetric(matrix: Values) -> Values:
    """Upper triangle by rows: shape (n, n) to (n * (n + 1) / 2,)."""
    return matrix[np.triu_indices(matrix.shape[0])]


def unpack_symmetric(packed: Values) -> Values:
    """The inverse of `pack_symmetric`."""
    size = int((np.sqrt(8 * packed.size + 1) - 1) / 2)
    matrix = np.zeros((size, size))
    matrix[np.triu_indices(size)] = packed
    return matrix + np.triu(matrix, 1).T


def solve_symmetric(matrix: Values, right: Values) -> Values:
    """Solve for a positive semi-definite matrix, scaled to a unit diagonal first.

    Directions in which the matrix is zero to rounding error are left at zero.
    """
    diagonal = np.sqrt(np.maximum(np.diag(matrix), 0.0))  # rounding error may have made a zero negative
    size = np.where(diagonal > 0, diagonal, 1.0)
    scaled = matrix / np.outer(size, size)
    right_scaled = (right.T / size).T
    try:
        solution: Values = linalg.cho_solve(linalg.cho_factor(scaled), right_scaled)
    except linalg.LinAlgError:
        values, vectors = linalg.eigh(scaled)
        inverse = np.where(values > 1e-14 * values.max(), 1 / np.maximum(values, 1e-300), 0.0)
        solution = vectors @ ((vectors.T @ right_scaled).T * inverse).T
    return (solution.T / size).T


def independent_columns(gram: Values) -> list[int]:
    """Indices of the columns that are no combination of earlier ones, by the sweep of a Cholesky factorisation.

    Args:
        gram: Gram matrix of columns whose sums of squares are of one order, shape (n, n).
    """
    left = gram.copy()
    diagonal = np.diag(gram).copy()
    largest = float(diagonal.max(initial=0.0))
    kept = []
    for j in range(len(gram)):
        if left[j, j] <= RANK_TOLERANCE * max(diagonal[j], 1e-6 * largest):
            continue
        kept.append(j)
        left -= np.outer(left[:, j], left[j]) / left[j, j]
    return kept
