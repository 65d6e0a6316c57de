"""Which cells of a table with margins are hidden, so that no small count is shown, given back or pinned down.

Small counts are hidden (primary suppression), and others with them (secondary suppression) until an audit finds that
what is shown leaves every small count its whole range: the shown cells, the row and column totals and what is known of
hidden cells are linear (in)equalities, and linear programs find the least and greatest value that a cell can have. In a
table of rows, columns and totals the least and greatest values of the linear program are whole numbers (the
constraints are those of a network), so that the audit is of what is possible, not of an approximation.

The audit is of one table. Several tables of the same people may tell more together (`docs/disclosure.md`). Nor does it
reckon with somebody who works backwards from which cells this program hides.

References:
    Fischetti, Salazar (2001), Management Science 47(7): cell suppression and its audit by linear programs.
    Hundepool et al. (2012), Statistical Disclosure Control, Wiley, chapter 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

MAX_AUDITED = 400
"""Most hidden cells of a table that is audited; one with more is hidden altogether."""
MAX_VARIED = 40
"""Most small counts of a table for which it is tried out whether less can be hidden, and what else it could be."""
_NEARLY = 1e-6


def hidden_sizes(sizes: Counts, minimum_cell: int) -> Mask:
    """Which of some counts are hidden when their sum is shown; shape (num_groups,).

    Guarantees:
        hidden_sizes_keep_their_range: each hidden small count may be anything from 1 to `minimum_cell - 1`, as far
            as the sum and the others shown tell, where the sum is not small itself (from 1 to 2 for a floor of 2).
    """
    hidden = _is_small(sizes, minimum_cell)
    # Of k hidden counts of at least 1 with the sum s, each is at most s - k + 1.
    while hidden.any() and (hidden.sum() < 2 or sizes[hidden].sum() - hidden.sum() + 1 < _highest(minimum_cell)):
        candidates = np.flatnonzero(~hidden & (sizes > 0))
        if not len(candidates):
            return np.ones(len(sizes), bool)  # zeros, too: then a hidden count may be 0
        hidden[candidates[sizes[candidates].argmin()]] = True
    return hidden


def hidden_cells(counts: Counts, size_is_hidden: Mask, minimum_cell: int) -> Mask:
    """Which cells are hidden of a table that is printed with its margins.

    Small counts are hidden; then others, the smallest first, until each small count may be anything from 1 to
    `minimum_cell - 1` for all that the shown numbers tell. Zeros are shown, as they tell of nobody; where hiding all
    else is not enough, or would take too long to find out, the whole table is hidden, zeros and all. A group whose
    size is hidden is hidden altogether. To be safe against reconstruction, what is derived from hidden cells
    (percentages, tests, differences) must be hidden, too.

    Args:
        counts: by row (the levels and, last, the missing) and group, shape (num_rows, num_groups).
        size_is_hidden: which groups' sizes are not shown, shape (num_groups,).
        minimum_cell: least count that is shown.

    Returns:
        By row and column, where column 0 is everybody; shape (num_rows, 1 + num_groups). With one group, column 0 and
        column 1 are the same.

    Guarantees:
        hidden_cells_keep_their_range: every whole number from 1 to `minimum_cell - 1` is possible for every small
            count, given the cells that are shown, the shown sizes, and that hidden cells are at least 1 (0 in a
            group, or a table, that is hidden altogether). For everybody's small count: every number from that
            of the groups with somebody. For a floor of 2, the numbers 1 and 2 are possible.
    """
    table = _protected(counts, size_is_hidden, minimum_cell)
    return table.hidden.copy() if counts.shape[1] != 1 else np.repeat(table.hidden, 2, axis=1)


def other_tables(counts: Counts, size_is_hidden: Mask, minimum_cell: int) -> list[Counts]:
    """Tables that show what `hidden_cells` leaves of this one: with each small count as low and as high as may be.

    What is derived from the table (a test, say) may be shown to as many digits as it has in common with all of these.

    Args:
        counts: as for `hidden_cells`.
        size_is_hidden: as for `hidden_cells`.
        minimum_cell: as for `hidden_cells`.

    Returns:
        Tables of the shape of `counts`; none where nothing is hidden.
    """
    table = _protected(counts, size_is_hidden, minimum_cell)
    small = np.argwhere(_is_small(table.cells, minimum_cell))
    if not table.hidden.any() or len(small) > MAX_VARIED:
        return []
    audit = _Audit.of(table)
    found = []
    for row, column in small:
        for sign in (1.0, -1.0):
            values = audit.solution(int(audit.place[row, column]), sign, _highest(minimum_cell))
            if values is not None:
                other = table.cells.copy()
                other[table.hidden] = np.rint(values).astype(np.int64)
                found.append(other[:, -counts.shape[1] :])
    return found


def _protected(counts: Counts, size_is_hidden: Mask, minimum_cell: int) -> _Table:
    """The table with all that is to be hidden; not to be changed by the caller."""
    counts = counts.astype(np.int64)
    return _found_before(counts.shape, counts.tobytes(), size_is_hidden.tobytes(), minimum_cell)


@lru_cache(maxsize=16)
def _found_before(shape: tuple[int, int], counts: bytes, size_is_hidden: bytes, minimum_cell: int) -> _Table:
    numbers = np.frombuffer(counts, np.int64).reshape(shape)
    table = _Table.of(numbers, np.frombuffer(size_is_hidden, np.bool_), minimum_cell)
    while True:
        if table.hidden.sum() > MAX_AUDITED:
            table.hide_all()
            return table
        exposed = table.first_exposed()
        if exposed is None:
            break
        table.hide_beside(*exposed)
    table.show_what_need_not_be_hidden()
    return table


def _highest(minimum_cell: int) -> int:
    """Up to which number a small count must be possible: at least two numbers, lest hiding it tell it."""
    return max(minimum_cell - 1, 2)


def _is_small(cells: Counts, minimum_cell: int) -> Mask:
    return (cells > 0) & (cells < minimum_cell)


@dataclass(slots=True)
class _Table:
    """A table in the course of its protection. Column 0 is everybody, where there is more than one group.

    Attributes:
        cells: counts, shape (num_rows, num_columns).
        hidden: what is hidden so far.
        least: least value that an outsider must reckon with in a hidden cell of a column, shape (num_columns,).
        sizes: of the columns, shape (num_columns,).
        size_is_hidden: which of them are not shown.
        minimum_cell: least count that is shown.
        cleared: small cells that an audit found to have their whole range; hiding more does not change that.
    """

    cells: Counts
    hidden: Mask
    least: Counts
    sizes: Counts
    size_is_hidden: Mask
    minimum_cell: int
    cleared: Mask

    @classmethod
    def of(cls, counts: Counts, size_is_hidden: Mask, minimum_cell: int) -> _Table:
        if counts.shape[1] == 1:
            cells, size_hidden = counts, size_is_hidden
        else:
            cells = np.concatenate([counts.sum(axis=1, keepdims=True), counts], axis=1)
            size_hidden = np.concatenate([[False], size_is_hidden])
        return cls(
            cells=cells,
            hidden=_is_small(cells, minimum_cell) | size_hidden[None, :],
            least=np.where(size_hidden, 0, 1),
            sizes=cells.sum(axis=0),
            size_is_hidden=size_hidden,
            minimum_cell=minimum_cell,
            cleared=np.zeros(cells.shape, bool),
        )

    def first_exposed(self) -> tuple[int, int] | None:
        """A small cell for which some number from 1 to `minimum_cell - 1` is impossible; None if there is none."""
        audit = None
        open_cells = _is_small(self.cells, self.minimum_cell) & ~self.cleared
        # Those that subtraction alone gives back need no linear program.
        is_alone = ~self.size_is_hidden & (self.hidden.sum(axis=0) == 1)
        is_alone = is_alone | (self.hidden.sum(axis=1, keepdims=True) == 1) & (self.cells.shape[1] > 1)
        for row, column in np.argwhere(open_cells & is_alone)[:1]:
            return int(row), int(column)
        for row, column in np.argwhere(open_cells):
            audit = audit or _Audit.of(self)
            # Everybody's count is at least as large as there are groups with somebody.
            lowest = max(1, int(self.least[1:][self.hidden[row, 1:]].sum())) if column == 0 else 1
            if not audit.leaves_range(int(row), int(column), lowest):
                return int(row), int(column)
            self.cleared[row, column] = True
        return None

    def hide_beside(self, row: int, column: int) -> None:
        """Hide one more cell that gives an exposed one room: in its column, its row, the rest, then zeros."""
        for rows, columns in self._neighbourhoods(row, column):
            candidates = np.argwhere(~self.hidden[np.ix_(rows, columns)] & (self.cells[np.ix_(rows, columns)] > 0))
            if len(candidates):
                values = self.cells[rows[candidates[:, 0]], columns[candidates[:, 1]]]
                best = candidates[values.argmin()]
                self.hidden[rows[best[0]], columns[best[1]]] = True
                return
        self.hide_all()

    def _neighbourhoods(self, row: int, column: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        num_rows, num_columns = self.cells.shape
        rows, columns = np.arange(num_rows), np.arange(num_columns)
        groups = columns[1:] if num_columns > 1 else columns
        is_open_row = self.hidden[row].sum() < 2
        in_row, in_column = (rows[[row]], groups), (rows, columns[[column]])
        # The line in which it stands alone first: subtraction gives it back there.
        yield from (in_row, in_column) if is_open_row and num_columns > 1 else (in_column, in_row)
        lines = np.flatnonzero(self.hidden.any(axis=1))
        yield lines, groups
        yield rows, groups
        yield rows, columns

    def show_what_need_not_be_hidden(self) -> None:
        """Show again, the largest counts first, what the audit does not need hidden now that all is chosen."""
        small = _is_small(self.cells, self.minimum_cell)
        others = np.argwhere(self.hidden & ~small & ~self.size_is_hidden)
        if not self.least.any() or len(others) * small.sum() > 5 * MAX_VARIED:
            return
        for row, column in others[np.argsort(-self.cells[others[:, 0], others[:, 1]], kind="stable")]:
            self.hidden[row, column] = False
            self.cleared[:] = False
            if self.first_exposed() is not None:
                self.hidden[row, column] = True

    def hide_all(self) -> None:
        """Hide everything, zeros too, so that any hidden cell may be 0."""
        self.hidden[:] = True
        self.least[:] = 0
        self.cleared[:] = True


@dataclass(slots=True)
class _Audit:
    """The linear programs of a table as it is hidden now.

    Attributes:
        place: index of each hidden cell among the variables, -1 elsewhere.
        equations: coefficients, shape (num_equations, num_variables).
        sums: right-hand sides.
        least: lower bounds of the variables.
        seen: least and greatest value of each variable in any solution so far; all between are possible, too.
        minimum_cell: of the table.
    """

    place: Counts
    equations: Floats
    sums: Floats
    least: Floats
    seen: Floats
    minimum_cell: int

    @classmethod
    def of(cls, table: _Table) -> _Audit:
        hidden, cells = table.hidden, table.cells
        place = np.full(cells.shape, -1, np.int64)
        place[hidden] = np.arange(hidden.sum())
        num_variables = int(hidden.sum())
        equations, sums = [], []

        def add(entries: list[tuple[int, int, float]], total: float) -> None:
            line = np.zeros(num_variables)
            for row, column, sign in entries:
                if hidden[row, column]:
                    line[place[row, column]] += sign
                else:
                    total -= sign * cells[row, column]
            if line.any():
                equations.append(line)
                sums.append(total)

        num_rows, num_columns = cells.shape
        for column in np.flatnonzero(~table.size_is_hidden):
            add([(row, int(column), 1.0) for row in range(num_rows)], float(table.sizes[column]))
        for row in range(num_rows) if num_columns > 1 else ():
            add([(row, 0, -1.0), *((row, column, 1.0) for column in range(1, num_columns))], 0.0)
        values = cells[hidden].astype(np.float64)
        return cls(
            place=place,
            equations=np.array(equations).reshape(len(equations), num_variables),
            sums=np.array(sums),
            least=np.broadcast_to(table.least, cells.shape)[hidden].astype(np.float64),
            seen=np.stack([values, values]),
            minimum_cell=table.minimum_cell,
        )

    def leaves_range(self, row: int, column: int, lowest: int) -> bool:
        """Whether the cell may be anything from `lowest` to `minimum_cell - 1`, and two numbers in any case."""
        variable = int(self.place[row, column])
        for wanted, sign in ((lowest, 1.0), (max(_highest(self.minimum_cell), lowest + 1), -1.0)):
            if self._has_seen(variable, wanted):
                continue
            self._solve(variable, sign)
            if not self._has_seen(variable, wanted):
                return False
        return True

    def _has_seen(self, variable: int, wanted: int) -> bool:
        low, high = self.seen[:, variable]
        return bool(low <= wanted + _NEARLY and high >= wanted - _NEARLY)

    def _solve(self, variable: int, sign: float) -> None:
        """Take in the solution with the least (sign 1) or greatest (-1) value of a cell."""
        values = self.solution(variable, sign)
        if values is not None:
            self.seen = np.stack([np.minimum(self.seen[0], values), np.maximum(self.seen[1], values)])

    def solution(self, variable: int, sign: float, highest: float | None = None) -> Floats | None:
        """The hidden cells where one has its least (sign 1) or greatest (-1) value, `highest` at most."""
        objective = np.zeros(len(self.least))
        objective[variable] = sign
        bounds: list[tuple[float, float | None]] = [(low, None) for low in self.least.tolist()]
        bounds[variable] = (bounds[variable][0], highest)
        solved: Any = linprog(objective, A_eq=self.equations, b_eq=self.sums, bounds=bounds, method="highs")
        values: Floats | None = solved.x
        return values
