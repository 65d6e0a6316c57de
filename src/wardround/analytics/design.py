"""The design of a regression: its columns as values that can be sent and read, and their evaluation at a site.

A design says, column by column, which numbers make it up; a site evaluates it in blocks of rows, standardised
by centres and scales that were themselves computed from sums, so that the sums are well conditioned whatever
the variables' units.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from wardround.analytics.expression import parse_expression
from wardround.analytics.splines import spline_basis
from wardround.data.table import Table
from wardround.errors import DataError
from wardround.sums import Array

BLOCK_ELEMENTS = 2**17
"""Numbers of the design that a site holds at a time (unit: elements)."""

Rows = slice | NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Numeric:
    """Arithmetic on variables."""

    kind: Literal["numeric"] = "numeric"
    expression: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """1 where a variable has this level, else 0."""

    kind: Literal["level"] = "level"
    variable: str
    level: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SplineColumn:
    """One column of a spline basis."""

    kind: Literal["spline"] = "spline"
    expression: str
    basis: Literal["bs", "rcs"]
    degree: int
    knots: tuple[float, ...]
    bounds: tuple[float, float]
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AtSite:
    """1 at this site, 0 at the others."""

    kind: Literal["site"] = "site"
    site: str


Feature: TypeAlias = Annotated[Numeric | Level | SplineColumn | AtSite, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A product of features; the empty product is the intercept."""

    name: str
    features: tuple[Feature, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Which rows and which numbers beside the columns an analysis uses.

    Attributes:
        outcome: what is modelled.
        offset: expression added to the linear predictor.
        frequency_weights: variable that says how many records a row stands for.
        variance_weights: variable that says how precise a row's outcome is.
        required: variables that must be present; other rows are left out.
    """

    outcome: Feature
    offset: str | None = None
    frequency_weights: str | None = None
    variance_weights: str | None = None
    required: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Columns with the centre and the scale that standardise each: `(x - center) / scale`.

    Attributes:
        columns: in the order of the coefficients.
        center: shape (num_columns,).
        scale: shape (num_columns,), positive.
    """

    columns: tuple[Column, ...]
    center: Array
    scale: Array

    @property
    def num_columns(self) -> int:
        """Number of columns."""
        return len(self.columns)

    def __post_init__(self) -> None:
        if self.center.shape != (len(self.columns),) or self.scale.shape != (len(self.columns),):
            raise ValueError("center and scale must have one element a column")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Some complete rows of a site's table, evaluated.

    Attributes:
        x: standardised design, shape (num_rows, num_columns).
        y: outcome, shape (num_rows,).
        offset: shape (num_rows,).
        frequency: frequency weights, shape (num_rows,).
        precision: variance weights, shape (num_rows,).
        rows: indices of the rows in the table, shape (num_rows,).
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    offset: NDArray[np.float64]
    frequency: NDArray[np.float64]
    precision: NDArray[np.float64]
    rows: NDArray[np.intp]


def complete_rows(table: Table, required: tuple[str, ...]) -> NDArray[np.intp]:
    """Indices of the rows where no required variable is missing."""
    is_complete = np.ones(table.num_records, bool)
    for name in required:
        np.logical_and(is_complete, ~table.is_missing(name), out=is_complete)
    return np.flatnonzero(is_complete)


def evaluate_expression(table: Table, text: str, rows: Rows) -> NDArray[np.float64]:
    """An expression's values at these rows.

    Raises:
        DataError: a value is not a finite number; says how to mend it and shows none.
    """
    values = parse_expression(text).evaluate(lambda name: table.numbers(name)[rows])
    if values.ndim == 0:
        values = np.full(len(table.patient_index[rows]), float(values))
    if not np.isfinite(values).all():
        raise DataError(
            f"{text!r} is not a finite number in some rows (the logarithm of 0, or a division by 0); "
            "change the formula or declare a range that excludes such values"
        )
    return values


def evaluate_feature(table: Table, feature: Feature, rows: Rows) -> NDArray[np.float64]:
    """A feature's values at these rows. Raises `DataError` as `evaluate_expression` does."""
    match feature:
        case Numeric(expression=text):
            return evaluate_expression(table, text, rows)
        case Level(variable=name, level=level):
            levels = table.contract.variable(name).category_levels
            is_level = (
                table.numbers(name)[rows] == float(level)
                if levels is None
                else table.codes(name)[rows] == levels.index(level)
            )
            return np.asarray(is_level, np.float64)
        case SplineColumn():
            values = evaluate_expression(table, feature.expression, rows)
            basis = spline_basis(values, feature.basis, feature.degree, feature.knots, feature.bounds)
            return basis[:, feature.column]
        case AtSite(site=site):
            return np.full(len(table.patient_index[rows]), float(table.site == site))


def evaluate_column(table: Table, column: Column, rows: Rows) -> NDArray[np.float64]:
    """A column's values at these rows, not standardised."""
    if not column.features:
        return np.ones(len(table.patient_index[rows]))
    values = evaluate_feature(table, column.features[0], rows)
    for feature in column.features[1:]:
        values = values * evaluate_feature(table, feature, rows)
    return values


def _weights(table: Table, name: str | None, rows: Rows, size: int) -> NDArray[np.float64]:
    if name is None:
        return np.ones(size)
    weights = table.numbers(name)[rows]
    if weights.size and weights.min() < 0:
        raise DataError(f"the weights {name!r} are negative in some rows; weights must be 0 or more")
    return weights


def evaluate_blocks(table: Table, design: Design, frame: Frame) -> Iterator[Block]:
    """The complete rows of a site in blocks of bounded size.

    Raises:
        DataError: weights or an expression are not usable.
    """
    complete = complete_rows(table, frame.required)
    num_rows = max(1, BLOCK_ELEMENTS // max(design.num_columns, 1))
    for start in range(0, len(complete), num_rows):
        indices = complete[start : start + num_rows]
        # Contiguous rows are read as a view.
        is_run = indices[-1] - indices[0] + 1 == len(indices)
        rows: Rows = slice(int(indices[0]), int(indices[-1]) + 1) if is_run else indices
        size = len(indices)
        x = np.empty((size, design.num_columns), order="F")
        for j, column in enumerate(design.columns):
            values = evaluate_column(table, column, rows)
            np.subtract(values, design.center[j], out=x[:, j])
            x[:, j] /= design.scale[j]
        yield Block(
            x=x,
            y=evaluate_feature(table, frame.outcome, rows),
            offset=np.zeros(size) if frame.offset is None else evaluate_expression(table, frame.offset, rows),
            frequency=_weights(table, frame.frequency_weights, rows, size),
            precision=_weights(table, frame.variance_weights, rows, size),
            rows=indices,
        )
