"""The design of a regression: its columns as values that can be sent and read, and their evaluation at a site.

A design says, column by column, which numbers make it up; a site evaluates it in blocks of rows, standardised
by centres and scales that were themselves computed from sums, so that the sums are well conditioned whatever
the variables' units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from wardround.analytics.expression import Expression, parse_expression, shorten
from wardround.analytics.splines import MAX_DEGREE, MAX_KNOTS, num_spline_columns, spline_basis
from wardround.data.table import Table
from wardround.errors import DataError
from wardround.sums import Array

BLOCK_ELEMENTS = 2**17
"""Numbers of the design that a site holds at a time (unit: elements)."""
MAX_COLUMNS = 2_000
"""Widest design (unit: columns); its sums have a number for every pair of columns."""
MAX_FEATURES = 50
"""Most features in one column."""

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

    def __post_init__(self) -> None:
        if not 1 <= self.degree <= MAX_DEGREE or len(self.knots) > MAX_KNOTS:
            raise ValueError(f"a spline has a degree in [1, {MAX_DEGREE}] and at most {MAX_KNOTS} knots")
        is_bs = self.basis == "bs"
        places = np.array([self.bounds[0], *self.knots, self.bounds[1]] if is_bs else self.knots, float)
        if not np.isfinite(places).all() or not (np.diff(places) > 0).all() or len(places) < (2 if is_bs else 3):
            raise ValueError("a spline's knots must increase, between its bounds; 3 or more for rcs")
        if not 0 <= self.column < num_spline_columns(self.basis, self.degree, len(self.knots)):
            raise ValueError(f"this spline has no column {self.column}")


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
        outcome_scale: the outcome is divided by it, so that its sums keep their digits whatever its unit.
        offset_scale: the offset is multiplied by it, and then
        offset_shift: is added, as the outcome's scale wants it on the scale of the link.
    """

    outcome: Feature
    offset: str | None = None
    frequency_weights: str | None = None
    variance_weights: str | None = None
    required: tuple[str, ...]
    outcome_scale: float = 1.0
    offset_scale: float = 1.0
    offset_shift: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.outcome_scale < np.inf or not np.isfinite([self.offset_scale, self.offset_shift]).all():
            raise ValueError("outcome_scale must be greater than 0, and the offset's scale and shift be finite")


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
        if len(self.columns) > MAX_COLUMNS or any(len(c.features) > MAX_FEATURES for c in self.columns):
            raise ValueError(f"a design has at most {MAX_COLUMNS} columns, of at most {MAX_FEATURES} features")
        if not (np.isfinite(self.center).all() and np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise ValueError("center must be finite, scale finite and greater than 0")


def num_parameters(design: Design, **_: Any) -> int:
    """Coefficients of a model with this design, as `site_function` declares them."""
    return design.num_columns


def tells_of_one_site(design: Design, frame: Frame, **_: Any) -> bool:
    """Whether sums over this design tell what is one site's alone: a column or the outcome marks a site."""
    features = (frame.outcome, *(feature for column in design.columns for feature in column.features))
    return any(isinstance(feature, AtSite) for feature in features)


def num_complete_rows(data: Table, frame: Frame, **_: Any) -> int:
    """Records that sums over this frame are over."""
    return len(complete_rows(data, frame.required))


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

    @property
    def case_weight(self) -> NDArray[np.float64]:
        """Product of the two weights, shape (num_rows,)."""
        return self.frequency * self.precision


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
    return _finite(table, parse_expression(text), rows)


def _finite(table: Table, expression: Expression, rows: Rows) -> NDArray[np.float64]:
    values = expression.evaluate(lambda name: table.numbers(name)[rows])
    if values.ndim == 0:
        values = np.full(len(table.patient_index[rows]), float(values))
    if not np.isfinite(values).all():
        raise DataError(
            f"{shorten(expression.text)!r} is not a finite number in some rows (the logarithm of 0, or a division "
            "by 0); change the formula or declare a range that excludes such values"
        )
    return values


def count_levels(table: Table, levels: tuple[Level, ...], rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """How many of these rows have each level, one pass a variable. Shape (num_levels,); raises as `feature_values`."""
    codes = [_level_code(table, level.variable, level.level) for level in levels]
    counted: dict[str, dict[float, int]] = {}
    for level, (values, _) in zip(levels, codes, strict=True):
        if level.variable not in counted:
            counted[level.variable] = _counts(values[rows])
    return np.array(
        [counted[level.variable].get(code, 0) for level, (_, code) in zip(levels, codes, strict=True)], np.int64
    )


def _counts(values: NDArray[Any]) -> dict[float, int]:
    if values.dtype.kind == "i":  # codes, -1 where missing
        return {code - 1: count for code, count in enumerate(np.bincount(values + 1).tolist())}
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


FeatureValues: TypeAlias = Callable[[Rows], NDArray[np.float64]]
"""A feature's values at some rows of a table, shape (num_rows,)."""


def feature_values(table: Table, feature: Feature) -> FeatureValues:
    """How to evaluate a feature of this table, checked once for all rows.

    Raises:
        ConfigError: an unknown variable or expression.
        DataError: the variable does not have this level.
    """
    match feature:
        case Numeric(expression=text):
            expression = parse_expression(text)
            return lambda rows: _finite(table, expression, rows)
        case Level(variable=name, level=level):
            values, code = _level_code(table, name, level)
            return lambda rows: np.equal(values[rows], code).astype(np.float64)
        case SplineColumn(column=column):
            whole = _spline_values(table, replace(feature, column=0))
            return lambda rows: whole(rows)[:, column]
        case AtSite(site=site):
            is_here = float(table.site == site)
            return lambda rows: np.full(len(table.patient_index[rows]), is_here)


def _level_code(table: Table, name: str, level: str) -> tuple[NDArray[Any], float]:
    """A variable's column and the number that this level has in it."""
    levels = table.contract.variable(name).category_levels
    try:
        return (table.numbers(name), float(level)) if levels is None else (table.codes(name), levels.index(level))
    except ValueError:
        raise DataError(f"variable {name!r} has no level {shorten(level)!r} in the contract") from None


def _spline_values(table: Table, spline: SplineColumn) -> FeatureValues:
    """All columns of a spline; rows are remembered, as its columns are evaluated one after another."""
    latest: list[tuple[Rows, NDArray[np.float64]]] = []
    expression = parse_expression(spline.expression)

    def whole(rows: Rows) -> NDArray[np.float64]:
        if not latest or latest[0][0] is not rows:
            values = _finite(table, expression, rows)
            basis = spline_basis(values, spline.basis, spline.degree, spline.knots, spline.bounds)
            latest[:] = [(rows, basis)]
        return latest[0][1]

    return whole


class _Columns:
    """A design's columns over one table: every distinct feature is evaluated once a block."""

    def __init__(self, table: Table, design: Design) -> None:
        self._design = design
        distinct = {f: i for i, f in enumerate(dict.fromkeys(f for c in design.columns for f in c.features))}
        splines: dict[SplineColumn, FeatureValues] = {}
        self._values = [self._of(table, feature, splines) for feature in distinct]
        self._columns = [tuple(distinct[feature] for feature in column.features) for column in design.columns]

    @staticmethod
    def _of(table: Table, feature: Feature, splines: dict[SplineColumn, FeatureValues]) -> FeatureValues:
        if not isinstance(feature, SplineColumn):
            return feature_values(table, feature)
        whole, column = replace(feature, column=0), feature.column
        shared = splines.setdefault(whole, _spline_values(table, whole))
        return lambda rows: shared(rows)[:, column]

    def standardised(self, rows: Rows, size: int) -> NDArray[np.float64]:
        """The columns at these rows, shape (size, num_columns)."""
        values = [evaluate(rows) for evaluate in self._values]
        x = np.empty((size, len(self._columns)), order="F")
        for j, parts in enumerate(self._columns):
            out = x[:, j]
            if len(parts) == 1:
                np.subtract(values[parts[0]], self._design.center[j], out=out)
            else:
                out.fill(1.0)
                for part in parts:
                    out *= values[part]
                out -= self._design.center[j]
            if self._design.scale[j] != 1.0:
                out /= self._design.scale[j]
        return x


def _offset(table: Table, frame: Frame, rows: Rows, size: int) -> NDArray[np.float64]:
    if frame.offset is None:
        return np.full(size, frame.offset_shift)
    return evaluate_expression(table, frame.offset, rows) * frame.offset_scale + frame.offset_shift


def _weights(table: Table, name: str | None, rows: Rows, size: int) -> NDArray[np.float64]:
    if name is None:
        return np.ones(size)
    weights = table.numbers(name)[rows]
    if weights.size and weights.min() < 0:
        raise DataError(f"the weights {name!r} are negative in some rows; weights must be 0 or more")
    return weights


def evaluate_blocks(
    table: Table, design: Design, frame: Frame, order: NDArray[np.int64] | None = None
) -> Iterator[Block]:
    """The complete rows of a site in blocks of bounded size.

    Args:
        table: the site's records.
        design: the columns.
        frame: the rows and the numbers beside the columns.
        order: a number for every record, shape (num_records,), by which the rows come sorted; None: as they lie.

    Raises:
        DataError: weights or an expression are not usable.
    """
    complete = complete_rows(table, frame.required)
    if order is not None:
        complete = complete[np.argsort(order[complete], kind="stable")]
    columns, outcome = _Columns(table, design), feature_values(table, frame.outcome)
    num_rows = max(1, BLOCK_ELEMENTS // max(design.num_columns, 1))
    for start in range(0, len(complete), num_rows):
        indices = complete[start : start + num_rows]
        size = len(indices)
        # Contiguous rows are read as a view.
        is_run = indices[-1] - indices[0] + 1 == size and (order is None or bool((np.diff(indices) == 1).all()))
        rows: Rows = slice(int(indices[0]), int(indices[-1]) + 1) if is_run else indices
        yield Block(
            x=columns.standardised(rows, size),
            y=outcome(rows) / frame.outcome_scale,
            offset=_offset(table, frame, rows, size),
            frequency=_weights(table, frame.frequency_weights, rows, size),
            precision=_weights(table, frame.variance_weights, rows, size),
            rows=indices,
        )
