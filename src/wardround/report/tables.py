"""A frame as a table for people: numbers as a journal prints them, variables over their levels."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from wardround.analytics.journal_text import ABSENT, MINUS, p_text

THIN = "\N{NARROW NO-BREAK SPACE}"
"""Between the thousands of large numbers."""
NO_BREAK = "\N{NO-BREAK SPACE}"
"""Within an interval, which stands on one line."""
_BRACKETED = re.compile(r"[(\[][^()\[\]]*[)\]]")
_P_VALUES = {"p": "P", "p value": "P value", "p-value": "P value", "pvalue": "P value"}
_LARGE, _SMALL = 1e6, 1e-4
# Outside of these an absolute value is printed in scientific notation.
_LEAST_GROUPED = 10_000
_DIGITS, _MOST_DECIMALS = 4, 4
_SHORT = 18
# Longest text that is kept on one line (unit: characters).
_HYPHEN_MINUS = re.compile(r"(?<![\w.,)\]%-])-(?=\.?\d)")
_NUMBER_LIKE = re.compile(
    rf"(?:[<>≥≤~≈]?{THIN}?[{MINUS}+±]?(?:\d|\.\d|∞)[^A-Za-z]*(?: to [^A-Za-z]*|e[{MINUS}+]?\d+)*[^A-Za-z]*"
    r"|hidden|not estimable|\d+ to \d+)"
)
_UNDERSCORE = re.compile(r"(?<=[^\W_])_+(?=[^\W_])")
_BEGINS_A_WORD = re.compile(r"[a-zß-öø-ÿ]{2}|a ")
_WHOLE = 24
# Up to so many rows, a table is not cut by the end of a page.
_WIDE = 9
# From so many columns on, a table is turned on its side in print.


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell, or the heading of a column.

    Attributes:
        text: what it shows.
        is_number: whether it lines up as a number.
    """

    text: str
    is_number: bool = False

    @property
    def is_short(self) -> bool:
        """Whether it is kept on one line."""
        return len(self.text) <= _SHORT


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its heading, and a cell a column."""

    heading: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rows that belong together, such as the levels of a variable.

    Attributes:
        head: the row over them; None where they have none.
        rows: the rows.
    """

    head: Row | None
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableView:
    """A table for people.

    Attributes:
        corner: heading of the rows' headings.
        header: headings of the columns.
        groups: the rows.
    """

    corner: str
    header: tuple[Cell, ...]
    groups: tuple[Group, ...]

    @property
    def num_rows(self) -> int:
        """Rows, those over groups not counted."""
        return sum(len(group.rows) for group in self.groups)

    @property
    def is_kept_whole(self) -> bool:
        """Whether it is short enough to stand on one page of paper."""
        return self.num_rows <= _WHOLE

    @property
    def is_wide(self) -> bool:
        """Whether it has so many columns that paper is turned for it."""
        return len(self.header) >= _WIDE


def table_view(frame: pd.DataFrame) -> TableView:
    """A frame as a table; its index, or else its first column, gives the rows their headings.

    An index of several levels becomes groups: the first level stands over the rows of the others, and a cell that
    only the first row of a group has (a test of the whole variable, say) stands beside it.
    """
    labels, body, corner = _headed(frame)
    columns = [_column(body.iloc[:, i], _heading(label)) for i, label in enumerate(body.columns)]
    if len(columns) < _WIDE:  # else there is no room for an interval on one line
        columns = [[_bound(cell) for cell in column] for column in columns]
    columns = [column if all(cell.is_number for cell in column) else list(map(_as_text, column)) for column in columns]
    rows = list(zip(labels, [tuple(row) for row in zip(*columns, strict=True)] or [()] * len(labels), strict=True))
    header = tuple(
        Cell(_heading(label), all(cell.is_number for cell in column) and bool(column))
        for label, column in zip(body.columns, columns, strict=True)
    )
    if frame.index.nlevels > 1:
        groups = tuple(_group(name, list(run)) for name, run in groupby(rows, key=lambda row: row[0][0]))
    else:
        plain = tuple(Row(sentence(label[0]), cells) for label, cells in rows)
        groups = (Group(head=None, rows=plain),) if rows else ()
    return TableView(corner=corner, header=header, groups=groups)


def _headed(frame: pd.DataFrame) -> tuple[list[tuple[str, ...]], pd.DataFrame, str]:
    """Headings of the rows, what stands beside them, and the heading of the headings."""
    if isinstance(frame.index, pd.RangeIndex) and frame.index.name is None and len(frame.columns) > 1:
        first = _column(frame.iloc[:, 0], "")
        return [(cell.text,) for cell in first], frame.iloc[:, 1:], _heading(frame.columns[0])
    if isinstance(frame.index, pd.RangeIndex) and frame.index.name is None:
        return [("",)] * len(frame), frame, ""
    labels = [label if isinstance(label, tuple) else (label,) for label in frame.index]
    texts = [tuple(_label(part) for part in label) for label in labels]
    return texts, frame, ", ".join(filter(None, (_heading(name or "") for name in frame.index.names)))


def _label(part: Any) -> str:
    is_missing = part is None or part is pd.NA or (isinstance(part, float) and math.isnan(part))
    return "" if is_missing else plain_names(_text_cell(_answer(part)).text)


def _group(name: str, run: list[tuple[tuple[str, ...], tuple[Cell, ...]]]) -> Group:
    rows = [Row(", ".join(filter(None, label[1:])), cells) for label, cells in run]
    if len(rows) == 1:
        whole = sentence(", ".join(filter(None, (name, rows[0].heading))))
        return Group(head=None, rows=(Row(whole, rows[0].cells),))
    blank = Cell("")
    is_lifted = [all(not row.cells[i].text for row in rows[1:]) for i in range(len(rows[0].cells))]
    head = tuple(cell if lifted else blank for cell, lifted in zip(rows[0].cells, is_lifted, strict=True))
    first = tuple(blank if lifted else cell for cell, lifted in zip(rows[0].cells, is_lifted, strict=True))
    return Group(head=Row(sentence(name), head), rows=(Row(rows[0].heading, first), *rows[1:]))


def _heading(label: Any) -> str:
    parts = label if isinstance(label, tuple) else (label,)
    text = " ".join(_answer(part) for part in parts if part not in ("", None)).replace("_", " ")
    return _P_VALUES.get(text.lower(), sentence(text))


def _answer(value: Any) -> str:
    """A value as text, that of a yes-no question as such."""
    return {"False": "no", "True": "yes"}.get(str(value), str(value))


def sentence(text: str) -> str:
    """A text that begins as a sentence does; what is no word (p, pH, eGFR) begins as it is."""
    return text[:1].upper() + text[1:] if _BEGINS_A_WORD.match(text) else text


def plain_names(text: str) -> str:
    """Names as people write them: max_heart_rate is max heart rate."""
    return _UNDERSCORE.sub(" ", text)


def _column(values: pd.Series[Any], heading: str) -> list[Cell]:
    """A column's cells: real numbers with as many decimals as its numbers need together."""
    is_real = [isinstance(v, numbers.Real) and not isinstance(v, bool) for v in values]
    reals = [float(v) for v, real in zip(values, is_real, strict=True) if real]
    decimals = _decimals(reals)
    is_p_value = heading.lower() in _P_VALUES
    return [
        Cell(number_text(float(v), is_p_value=is_p_value, decimals=decimals), is_number=True) if real else _other(v)
        for v, real in zip(values, is_real, strict=True)
    ]


def _other(value: Any) -> Cell:
    if value is None or value is pd.NA or value is pd.NaT:
        return Cell(ABSENT, is_number=True)
    return _text_cell(_answer(value))


def _text_cell(text: str) -> Cell:
    shown = _HYPHEN_MINUS.sub(MINUS, text)
    if shown and shown != ABSENT and not _NUMBER_LIKE.fullmatch(shown):
        return Cell(shown)
    return Cell(shown, is_number=True)


def _bound(cell: Cell) -> Cell:
    """A number whose interval does not break."""
    return (
        Cell(_BRACKETED.sub(lambda match: match[0].replace(" ", NO_BREAK), cell.text), True) if cell.is_number else cell
    )


def _as_text(cell: Cell) -> Cell:
    """A number in a column that holds words, too, lines up with them."""
    return Cell(cell.text)


def _decimals(values: Sequence[float]) -> int:
    """Decimals with which a column shows four digits of its largest number and two of its smallest, at most four."""
    sizes = [abs(value) for value in values if math.isfinite(value) and value and _SMALL <= abs(value) < _LARGE]
    if all(value == int(value) for value in values if math.isfinite(value)):
        return 0
    if not sizes:
        return _MOST_DECIMALS
    of_largest = _DIGITS - 1 - math.floor(math.log10(max(sizes)))
    of_smallest = 1 - math.floor(math.log10(min(sizes)))
    return min(_MOST_DECIMALS, max(of_largest, min(of_smallest, _MOST_DECIMALS), 0))


def number_text(value: float, *, is_p_value: bool = False, decimals: int | None = None) -> str:
    """A number as a journal prints it: to four digits, or with so many decimals; a p-value to three decimals."""
    if math.isnan(value):
        return ABSENT
    if is_p_value:
        return p_text(value)
    if math.isinf(value):
        return "\N{INFINITY}" if value > 0 else f"{MINUS}\N{INFINITY}"
    return _finite_text(value, _decimals([value]) if decimals is None else decimals).replace("-", MINUS)


def _finite_text(value: float, decimals: int) -> str:
    if value == int(value) and abs(value) < 1e15 and (decimals == 0 or value == 0 or abs(value) >= _LARGE):
        return count_text(int(value))
    if not _SMALL <= abs(value) < _LARGE:
        return f"{value:.2e}"
    whole, point, fraction = f"{value:.{decimals}f}".partition(".")
    return f"{count_text(int(whole)) if abs(int(whole)) else whole}{point}{fraction}"


def count_text(count: int) -> str:
    """A count with thin spaces between its thousands, from five digits on."""
    return str(count) if abs(count) < _LEAST_GROUPED else f"{count:,}".replace(",", THIN)
