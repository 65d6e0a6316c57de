"""A result's table as text cells: numbers rounded as a journal prints them."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import pandas as pd

_P_VALUES = ("p", "p value", "p-value", "pvalue")
_LEAST_P = 0.001
_MINUS = "\N{MINUS SIGN}"
_ABSENT = "\N{EN DASH}"
_LARGE, _SMALL = 1e5, 1e-3
# Outside of these an absolute value is printed in scientific notation.
_SHORT = 16
# Longest text that is kept on one line (unit: characters).


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell.

    Attributes:
        text: what it shows.
        is_number: whether it lines up as a number.
        num_rows: how many rows it spans; 0 where a cell above spans this one.
    """

    text: str
    is_number: bool = False
    num_rows: int = 1

    @property
    def is_short(self) -> bool:
        """Whether it is kept on one line."""
        return len(self.text) <= _SHORT


@dataclass(frozen=True, slots=True, kw_only=True)
class TableView:
    """A table for people.

    Attributes:
        header: column headings.
        rows: the cells by row.
        num_headings: how many cells of a row, from its first, are headings of it.
    """

    header: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    num_headings: int


def table_view(frame: pd.DataFrame) -> TableView:
    """A frame as cells; its index, or else its first column, gives the rows their headings."""
    is_plain = isinstance(frame.index, pd.RangeIndex)
    flat = frame if is_plain else frame.reset_index()
    names = [_heading(label) for label in flat.columns]
    columns = [[_cell(value, name) for value in flat.iloc[:, i]] for i, name in enumerate(names)]
    if frame.index.nlevels > 1:
        columns[0] = _merged(columns[0])
    is_number = [all(cell.is_number for cell in column) and bool(column) for column in columns]
    return TableView(
        header=tuple(Cell(text=name, is_number=kind) for name, kind in zip(names, is_number, strict=True)),
        rows=tuple(zip(*columns, strict=True)),
        num_headings=1 if is_plain else frame.index.nlevels,
    )


def _merged(column: list[Cell]) -> list[Cell]:
    """Runs of equal cells as one cell that spans them."""
    merged: list[Cell] = []
    for _, run in groupby(column, key=lambda cell: cell.text):
        cells = list(run)
        merged += [replace(cells[0], num_rows=len(cells)), *(replace(cell, num_rows=0) for cell in cells[1:])]
    return merged


def _heading(label: Any) -> str:
    parts = label if isinstance(label, tuple) else (label,)
    return " ".join(str(part) for part in parts if part not in ("", None)).replace("_", " ")


def _cell(value: Any, heading: str) -> Cell:
    if value is None or value is pd.NA or value is pd.NaT:
        return Cell(text=_ABSENT, is_number=True)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return Cell(text=str(value))
    return Cell(text=number_text(float(value), is_p_value=heading.lower() in _P_VALUES), is_number=True)


def number_text(value: float, *, is_p_value: bool = False) -> str:
    """A number to four significant digits; a p-value to three decimals, "<0.001" below."""
    if math.isnan(value):
        return _ABSENT
    if is_p_value:
        return f"<{_LEAST_P}" if value < _LEAST_P else f"{value:.3f}"
    if math.isinf(value):
        return "\N{INFINITY}" if value > 0 else f"{_MINUS}\N{INFINITY}"
    return _finite_text(value).replace("-", _MINUS)


def _finite_text(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if not _SMALL <= abs(value) < _LARGE:
        return f"{value:.3e}"
    num_decimals = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:,.{num_decimals}f}"
