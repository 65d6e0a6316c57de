"""The sums from which a design is prepared: counts, sums of expressions and of columns, and who stands apart."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.design import (
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
    num_missing: NDArray[np.int64] = people("num_required")
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
    num_above: NDArray[np.int64] = people("num_sides")
    num_below: NDArray[np.int64] = people("num_sides")
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
        middles: of the standardised columns and the outcome; none: 0 and `outcome_center`.

    Raises:
        DataError: `middles` are not one a column and one of the outcome.
    """
    num_columns = design.num_columns
    middle = np.array(middles or (*np.zeros(num_columns), outcome_center))
    if middle.shape != (num_columns + 1,):
        raise DataError("middles must be one a column and one of the outcome")
    total, sides, num_sides = np.zeros((2, num_columns)), np.zeros((2, num_columns + 1)), np.zeros((2, num_columns + 1))
    weight = outcome = spread = 0.0
    num_weighted = 0
    for block in evaluate_blocks(data, design, frame):
        total += block.x.sum(axis=0), np.abs(block.x).sum(axis=0)
        weight += float(block.case_weight.sum())
        outcome += float(block.case_weight @ block.y)
        spread += float(block.case_weight @ np.abs(block.y - outcome_center))
        off = np.column_stack([block.x, block.y])[block.case_weight > 0] - middle
        num_weighted += len(off)
        sides += np.maximum(off, 0.0).sum(axis=0), np.maximum(-off, 0.0).sum(axis=0)
        num_sides += (off > 0).sum(axis=0), (off < 0).sum(axis=0)
    num_above, num_below = num_sides.astype(np.int64)
    return ColumnSums(
        sums=total[0],
        absolute_sums=total[1],
        weight=weight,
        outcome=outcome,
        outcome_spread=spread,
        num_weighted=num_weighted,
        num_above=num_above,
        num_below=num_below,
        above=sides[0],
        below=sides[1],
    )


class FarRecords(Contribution):
    """Records of a weight that lie far from where nearly all are; of a design's columns and, last, the outcome."""

    num_far: NDArray[np.int64] = people("num_sides")


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
