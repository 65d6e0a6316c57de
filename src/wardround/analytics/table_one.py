"""Table 1 as it is printed: rounded numbers, small counts hidden."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from wardround.analytics.description import ColumnSummary, DescribeResult, VariableSummary
from wardround.analytics.group_tests import GroupTest
from wardround.analytics.quantiles import Quantile
from wardround.privacy.disclosure import shown_count

EVERYBODY = "everybody"
HIDDEN = "hidden"
_QUARTILES = (0.25, 0.5, 0.75)
_EPOCH = datetime.date(1970, 1, 1)
_DAYS_OF_DATES = 700_000
"""Days from the epoch that a calendar date can be written for (years 54 to 3886)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    variable: str
    level: str
    cells: tuple[str, ...]
    p_value: str = ""
    test: str = ""
    difference: str = ""


def table_frame(result: DescribeResult) -> pd.DataFrame:
    """Rows (variable, level), a column for everybody and each group, then P value, test and SMD if grouped."""
    rows = list(_rows(result))
    index = pd.MultiIndex.from_tuples([(row.variable, row.level) for row in rows], names=["variable", "level"])
    columns = [EVERYBODY, *result.groups]
    if len(result.groups) > 1:
        cells = [(*row.cells, row.p_value, row.test, row.difference) for row in rows]
        columns += ["P value", "test", "SMD" if len(result.groups) == 2 else "largest |SMD|"]
    else:
        cells = [row.cells for row in rows]
    return pd.DataFrame(cells, index=index, columns=columns)


def table_text(result: DescribeResult) -> str:
    """The frame with a heading, aligned, and notes on how to read it."""
    frame = table_frame(result)
    lines = [["", "", *frame.columns]]
    previous = None
    for (variable, level), *cells in frame.itertuples(name=None):
        lines.append([variable if variable != previous else "", level, *cells])
        previous = variable
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    rule = "-" * max(map(len, text))
    return "\n".join([_heading(result), rule, text[0], rule, *text[1:], rule, *table_notes(result)]) + "\n"


def _heading(result: DescribeResult) -> str:
    num_sites = len(result.sites)
    sites = f"{num_sites} site{'s' * (num_sites != 1)}"
    if num_sites <= 8:
        sites += f" ({', '.join(result.sites)})"
    return f"Table 1{f' by {result.by}' if result.by else ''}: {_count(result.num_records)} records at {sites}"


def table_notes(result: DescribeResult) -> Iterator[str]:
    """How to read the table."""
    frame = table_frame(result)
    if result.num_ungrouped != 0:
        least = shown_count(1, result.minimum_cell)
        size = least if result.num_ungrouped is None else result.num_ungrouped
        yield f"{size} records without {result.by} are left out."
    yield "Percentages are of the records with a value. Quantiles from counts: ± is their error bound where it shows."
    if any(variable.test and _test(variable.test)[1].endswith("*") for variable in result.variables):
        yield "* An expected count is below 5, so that the chi-square test's P value is rough."
    cells = frame.iloc[:, : 1 + len(result.groups)].to_numpy().ravel()
    if HIDDEN in cells:
        yield f"Counts from 1 to {result.minimum_cell - 1} are hidden, and what would give them back."


def _rows(result: DescribeResult) -> Iterator[_Row]:
    sizes = (result.num_records, *result.num_by_group)
    yield _Row(variable="n", level="", cells=tuple(map(_count, sizes)))
    for variable in result.variables:
        body = _numeric_rows(variable) if variable.is_numeric else _level_rows(variable)
        label = variable.variable + (f", {variable.unit}" if variable.unit else "")
        p_value, test = (HIDDEN, "") if variable.is_hidden else _test(variable.test)
        difference = HIDDEN if variable.is_hidden and not variable.largest_difference else _difference(variable)
        for level, cells in [*body, *_missing_row(variable)]:
            yield _Row(variable=label, level=level, cells=cells, p_value=p_value, test=test, difference=difference)
            p_value = test = difference = ""  # on the variable's first row only


def _numeric_rows(variable: VariableSummary) -> Iterator[tuple[str, tuple[str, ...]]]:
    formatter = _Formatter.of(variable)
    yield "mean (SD)", tuple(HIDDEN if column.is_hidden else formatter.mean(column) for column in variable.columns)
    probabilities = tuple(quantile.probability for quantile in variable.columns[0].quantiles)
    if probabilities:
        cells = tuple(
            HIDDEN if column.is_hidden else formatter.quantiles(column.quantiles) for column in variable.columns
        )
        is_usual = probabilities == _QUARTILES
        yield "median [Q1, Q3]" if is_usual else f"quantiles {', '.join(f'{p:g}' for p in probabilities)}", cells


def _level_rows(variable: VariableSummary) -> Iterator[tuple[str, tuple[str, ...]]]:
    for index, level in enumerate(variable.columns[0].levels):
        if variable.type == "integer" and level.count == 0:
            continue  # a number within the declared range that is no code at all
        cells = []
        for column in variable.columns:
            percent = column.percent(column.levels[index])
            cells.append(_count(column.levels[index].count) + ("" if percent is None else f" ({percent:.1f})"))
        yield level.level, tuple(cells)


def _missing_row(variable: VariableSummary) -> Iterator[tuple[str, tuple[str, ...]]]:
    if any(column.num_missing != 0 for column in variable.columns):
        yield "missing", tuple(_count(column.num_missing) for column in variable.columns)


def _count(count: int | None) -> str:
    return HIDDEN if count is None else str(count)


def _test(test: GroupTest | None) -> tuple[str, str]:
    if test is None:
        return "", ""
    is_rough = test.has_small_expected and test.statistic is not None
    if test.statistic is None and test.name != "Fisher's exact test":  # two digits are all that may be known
        return "<=0.01" if test.p_value <= 0.01 else f"{test.p_value:.2f}", test.name
    return "<0.001" if test.p_value < 0.001 else f"{test.p_value:.3f}", test.name + "*" * is_rough


def _difference(variable: VariableSummary) -> str:
    is_pair = len(variable.differences) == 1
    value = variable.differences[0].value if is_pair else variable.largest_difference
    return "" if value is None else f"{value:.3f}"


def _rounded_up(bound: float) -> float:
    """To one significant digit."""
    unit = 10.0 ** math.floor(math.log10(bound))
    return math.ceil(bound / unit - 1e-9) * unit


@dataclass(frozen=True, slots=True)
class _Formatter:
    """Numbers of one variable with as many decimals as its spread calls for."""

    decimals: int | None
    is_date: bool

    @classmethod
    def of(cls, variable: VariableSummary) -> _Formatter:
        column = variable.columns[0]
        spread = column.sd or abs(column.mean or 0.0) or 1.0
        largest = max(abs(column.mean or 0.0), spread)
        decimals = min(6, max(1, 1 - math.floor(math.log10(spread))))
        # Very large and very small numbers are written with exponents.
        return cls(decimals if spread >= 1e-4 and largest < 1e7 else None, variable.type == "date")

    def number(self, value: float) -> str:
        return f"{value:.5g}" if self.decimals is None else f"{value:.{self.decimals}f}"

    def place(self, value: float) -> str:
        """A position on the variable's scale: dates as dates."""
        if self.is_date and abs(value) < _DAYS_OF_DATES:
            return str(_EPOCH + datetime.timedelta(days=round(value)))
        return self.number(value)

    def mean(self, column: ColumnSummary) -> str:
        if column.mean is None:
            return ""
        deviation = "" if column.sd is None else f" ({self.number(column.sd)}{' days' * self.is_date})"
        return self.place(column.mean) + deviation

    def quantiles(self, quantiles: tuple[Quantile, ...]) -> str:
        texts = [self._quantile(quantile) for quantile in quantiles]
        if not all(texts):
            return ""
        if tuple(quantile.probability for quantile in quantiles) == _QUARTILES:
            return f"{texts[1]} [{texts[0]}, {texts[2]}]"
        return ", ".join(texts)

    def _quantile(self, quantile: Quantile) -> str:
        if quantile.value is None or quantile.bound is None:
            return ""
        if self.is_date:
            visible = 0.5
        elif self.decimals is None:
            visible = 5e-5 * abs(quantile.value)
        else:
            visible = 0.5 * 10.0**-self.decimals
        return self.place(quantile.value) + (f"±{_rounded_up(quantile.bound):g}" if quantile.bound > visible else "")
