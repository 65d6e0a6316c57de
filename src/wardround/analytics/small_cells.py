"""Which cells of a printed table are hidden, so that a small count is neither shown nor given back by the totals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]


def hidden_sizes(sizes: Counts, minimum_cell: int) -> Mask:
    """Which group sizes are hidden when their sum is shown; shape (num_groups,)."""
    cells = np.concatenate([[sizes.sum()], sizes])
    hidden = _is_small(cells, minimum_cell)
    hidden[0] = False
    while _hide_one_more(cells, hidden, np.arange(len(cells)) == 0, minimum_cell):
        pass
    return hidden[1:]


def hidden_cells(counts: Counts, size_is_hidden: Mask, minimum_cell: int) -> Mask:
    """Which cells are hidden of a table that is printed with its margins.

    Small counts are hidden; then, while a row or a column would give hidden ones back by subtraction (one is
    hidden alone, or all that are hidden in it sum up to less than `minimum_cell`), so is its next smallest
    count. Zeros are shown: they tell of nobody. This is the usual protection of printed tables, not a proof: the cells
    of three and more lines taken together, or of several tables, may still tell.

    Args:
        counts: by row (the levels and, last, the missing) and group, shape (num_rows, num_groups).
        size_is_hidden: which groups' sizes are not shown, shape (num_groups,).
        minimum_cell: least count that is shown.

    Returns:
        By row and column, where column 0 is everybody; shape (num_rows, 1 + num_groups).

    Guarantees:
        hidden_cells_are_not_given_back: in each row and each column, the shown numbers leave either nothing
            hidden, or at least two hidden numbers, or no further number that could be hidden.
    """
    inner = np.concatenate([counts.sum(axis=1, keepdims=True), counts], axis=1)
    cells = np.concatenate([inner, inner.sum(axis=0, keepdims=True)])
    hidden = _is_small(cells, minimum_cell)
    hidden[-1] = np.concatenate([[False], size_is_hidden])
    is_fixed_column = np.arange(cells.shape[0]) == cells.shape[0] - 1
    everybody_is_last_resort = np.arange(cells.shape[1]) == 0
    is_changed = True
    while is_changed:
        is_changed = False
        for column in range(cells.shape[1]):
            is_changed |= _hide_one_more(cells[:, column], hidden[:, column], is_fixed_column, minimum_cell)
        for row in range(cells.shape[0] - 1) if cells.shape[1] > 2 else ():
            is_changed |= _hide_one_more(cells[row], hidden[row], everybody_is_last_resort, minimum_cell, True)
    return hidden[:-1]


def _is_small(cells: Counts, minimum_cell: int) -> Mask:
    return (cells > 0) & (cells < minimum_cell)


def _hide_one_more(
    cells: Counts, hidden: Mask, is_margin: Mask, minimum_cell: int, may_hide_margin: bool = False
) -> bool:
    """Hide one more cell of a line (in place) if subtraction would give the hidden ones back."""
    if not hidden.any() or (hidden & is_margin).any():
        is_open = hidden.sum() == 1  # a hidden margin alone is the sum of what is shown
    else:
        is_open = hidden.sum() == 1 or cells[hidden].sum() < minimum_cell
    candidates = np.flatnonzero(~hidden & (cells > 0) & (may_hide_margin | ~is_margin))
    if not is_open or not len(candidates):
        return False
    hidden[candidates[np.lexsort([cells[candidates], is_margin[candidates]])[0]]] = True
    return True
