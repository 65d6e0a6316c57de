"""The sums from which a design is prepared: counts, sums of expressions and of columns, and who stands apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.design import (
    Block,
    Design,
    Frame,
    Level,
    complete_rows,
    count_levels,
    evaluate_blocks,
    evaluate_expression,
    num_complete_rows,
    tells_of_one_site,
)
from wardround.data.table import Table
from wardround.errors import DataError
from wardround.sums import Array, Contribution, exact, people, site_function

MAX_SUMS = 20_000
"""Most levels or expressions that one ask may have."""


class Census(Contribution):
    """Records, complete records, missing values a required variable, complete records a level."""

    num_records: int = people()
    num_patients: int = people()
    num_complete: int = people()
    num_missing: NDArray[np.int64] = people("num_required", cells="none")
    num_with_level: NDArray[np.int64] = people("num_levels")


@site_function(
    "design.census",
    version=1,
    symbols=lambda required, levels: {"num_required": len(required), "num_levels": len(levels)},
)
def census(data: Table, required: tuple[str, ...], levels: tuple[Level, ...]) -> Census:
    """Count records, missing values, and complete records by level.

    Raises:
        DataError: more than `MAX_SUMS` levels, or a level that a variable does not have.
    """
    _refuse_too_many(levels)
    rows = complete_rows(data, required)
    return Census(
        num_records=data.num_records,
        num_patients=data.num_patients,
        num_complete=len(rows),
        num_missing=np.array([int(data.is_missing(name).sum()) for name in required], np.int64),
        num_with_level=count_levels(data, levels, rows),
    )


def _refuse_too_many(wanted: tuple[object, ...]) -> None:
    if len(wanted) > MAX_SUMS:
        raise DataError(f"{len(wanted)} levels or expressions are over the limit of {MAX_SUMS} in one ask")


class Sums(Contribution):
    """A sum for every expression or column."""

    num_complete: int = people()
    sums: Array = exact("num_sums")


@site_function(
    "design.expression_sums",
    version=1,
    symbols=lambda expressions, **_: {"num_sums": len(expressions)},
    rows=lambda data, required, **_: len(complete_rows(data, required)),
)
def expression_sums(
    data: Table, expressions: tuple[str, ...], centers: Array, power: Literal[1, 2], required: tuple[str, ...]
) -> Sums:
    """Sum of `(expression - center) ** power` over complete records, for every expression.

    Raises:
        DataError: `centers` does not have one element an expression, or there are over `MAX_SUMS` of them.
    """
    _refuse_too_many(expressions)
    if centers.shape != (len(expressions),):
        raise DataError("centers must have one element an expression")
    rows = complete_rows(data, required)
    sums = [
        float(((evaluate_expression(data, text, rows) - center) ** power).sum())
        for text, center in zip(expressions, centers, strict=True)
    ]
    return Sums(num_complete=len(rows), sums=np.array(sums, np.float64))


class ColumnSums(Contribution):
    """Sums over complete records for every column of a design, and of the outcome.

    "Sides" are of the design's columns and, last, the outcome: how many records of a weight lie above and below a
    middle, and by how much altogether.
    """

    sums: Array = exact("num_columns")
    absolute_sums: Array = exact("num_columns")
    weight: float = exact()
    outcome: float = exact()
    outcome_spread: float = exact()
    num_weighted: int = people()
    num_above: NDArray[np.int64] = people("num_sides", cells="none")
    num_below: NDArray[np.int64] = people("num_sides", cells="none")
    above: Array = exact("num_sides")
    below: Array = exact("num_sides")


def _column_symbols(design: Design, **_: Any) -> dict[str, float]:
    return {"num_columns": design.num_columns, "num_sides": design.num_columns + 1}


@site_function(
    "design.column_sums",
    version=2,
    symbols=_column_symbols,
    per_site=tells_of_one_site,
    rows=num_complete_rows,
)
def column_sums(
    data: Table, design: Design, frame: Frame, outcome_center: float, middles: tuple[float, ...] = ()
) -> ColumnSums:
    """Sums of the standardised columns, of their absolute values, of the weighted outcome, of its spread, and sides.

    Args:
        data: the site's records.
        design: the columns.
        frame: the rows, and the numbers beside the columns.
        outcome_center: from which the outcome's spread is measured.
        middles: of the standardised columns and the outcome; none: the sides are left at 0.

    Raises:
        DataError: `middles` are not one a column and one of the outcome.
    """
    num_columns = design.num_columns
    if len(middles) not in (0, num_columns + 1):
        raise DataError("middles must be one a column and one of the outcome")
    total = np.zeros((2, num_columns))
    sides = _Sides.none(num_columns + 1)
    weight = outcome = spread = 0.0
    for block in evaluate_blocks(data, design, frame):
        total += block.x.sum(axis=0), np.abs(block.x).sum(axis=0)
        weight += float(block.case_weight.sum())
        outcome += float(block.case_weight @ block.y)
        spread += float(block.case_weight @ np.abs(block.y - outcome_center))
        if middles:
            sides += _Sides.of(block, np.array(middles))
    return ColumnSums(
        sums=total[0],
        absolute_sums=total[1],
        weight=weight,
        outcome=outcome,
        outcome_spread=spread,
        num_weighted=sides.num_weighted,
        num_above=sides.num_above,
        num_below=sides.num_below,
        above=sides.above,
        below=sides.below,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sides:
    """The sides of some records that have a weight."""

    num_weighted: int
    num_above: NDArray[np.int64]
    num_below: NDArray[np.int64]
    above: NDArray[np.float64]
    below: NDArray[np.float64]

    @classmethod
    def none(cls, size: int) -> _Sides:
        counts, sums = np.zeros(size, np.int64), np.zeros(size)
        return cls(num_weighted=0, num_above=counts, num_below=counts, above=sums, below=sums)

    @classmethod
    def of(cls, block: Block, middles: NDArray[np.float64]) -> _Sides:
        has_weight = block.case_weight > 0
        x, y = (block.x, block.y) if has_weight.all() else (block.x[has_weight], block.y[has_weight])
        columns, outcome = x - middles[:-1], y - middles[-1]
        sums = np.append(columns.sum(axis=0), outcome.sum())
        sizes = np.append(np.abs(columns).sum(axis=0), np.abs(outcome).sum())
        return cls(
            num_weighted=len(y),
            num_above=np.append((columns > 0).sum(axis=0), (outcome > 0).sum()),
            num_below=np.append((columns < 0).sum(axis=0), (outcome < 0).sum()),
            above=(sizes + sums) / 2,
            below=(sizes - sums) / 2,
        )

    def __add__(self, other: _Sides) -> _Sides:
        return _Sides(
            num_weighted=self.num_weighted + other.num_weighted,
            num_above=self.num_above + other.num_above,
            num_below=self.num_below + other.num_below,
            above=self.above + other.above,
            below=self.below + other.below,
        )


class FarRecords(Contribution):
    """Records of a weight that lie far from where nearly all are; of a design's columns and, last, the outcome."""

    num_far: NDArray[np.int64] = people("num_sides", cells="none")


@site_function(
    "design.far_records",
    version=1,
    symbols=_column_symbols,
    per_site=tells_of_one_site,
    rows=num_complete_rows,
)
def far_records(data: Table, design: Design, frame: Frame, places: Array, reaches: Array) -> FarRecords:
    """How many records are further than `reaches` from `places`, by column and, last, of the outcome.

    Args:
        data: the site's records.
        design: the columns.
        frame: the rows, and the outcome.
        places: where nearly all records are, shape (num_columns + 1,).
        reaches: distances, shape (num_columns + 1,).

    Raises:
        DataError: `places` or `reaches` are not one a column and one of the outcome.
    """
    if places.shape != (design.num_columns + 1,) or reaches.shape != places.shape:
        raise DataError("places and reaches must be one a column and one of the outcome")
    num_far = np.zeros(len(places), np.int64)
    for block in evaluate_blocks(data, design, frame):
        values = np.column_stack([block.x, block.y])[block.case_weight > 0]
        num_far += (np.abs(values - places) > reaches).sum(axis=0)
    return FarRecords(num_far=num_far)
