"""What chained equations are made of: the variables' columns, the completed copies a site keeps, their models' sums.

Pure arithmetic on one site's table; `imputation.py` makes site functions of it.

References:
    van Buuren, Groothuis-Oudshoorn (2011), mice, Journal of Statistical Software 45(3), section 3.
    Little (1988), Missing-data adjustments in large surveys, JBES 6(3) (predictive mean matching).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.linear import pack_symmetric
from wardround.analytics.survival_time import grid_index
from wardround.data.table import Table
from wardround.errors import DataError

Values = NDArray[np.float64]
Rows = NDArray[np.intp]

MAX_COPIES = 200
"""Most completed copies that a site keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainVariable:
    """A variable of the chain, with what codes and standardises its columns.

    Attributes:
        name: the variable.
        kind: whether it is drawn as a number or as one of its levels; or a time to an event, which is never missing and
            enters the models as the cumulative hazard up to it.
        levels: for a category, its values that occur, as the table's column holds them, the reference first.
        center: of each of its columns.
        scale: of each of its columns, greater than 0.
        low: least value that is imputed; None: any.
        high: greatest value that is imputed; None: any.
        hazard: of a time, the cumulative hazard at each point of its grid.
        step: distance of two of these points.
    """

    name: str
    kind: Literal["number", "category", "hazard"]
    levels: tuple[float, ...] = ()
    center: tuple[float, ...]
    scale: tuple[float, ...]
    low: float | None = None
    high: float | None = None
    hazard: tuple[float, ...] = ()
    step: float = 1.0

    def __post_init__(self) -> None:
        expected = len(self.levels) - 1 if self.kind == "category" else 1
        if len(self.center) != expected or len(self.scale) != expected or not all(s > 0 for s in self.scale):
            raise ValueError(f"{self.name}: center and scale must have one element a column, scale above 0")

    @property
    def num_columns(self) -> int:
        """Columns that it has as a predictor."""
        return len(self.center)

    @property
    def shares(self) -> Values:
        """Share of each level among the observed, shape (num_levels,)."""
        return np.array([1.0 - sum(self.center), *self.center]).clip(0.0, 1.0)

    def coded(self, values: Values) -> Values:
        """Its standardised columns at these values, shape (num_values, num_columns)."""
        if self.kind == "category":
            raw = np.equal.outer(values, np.array(self.levels[1:])).astype(np.float64)
        else:
            raw = (self._hazard_at(values) if self.kind == "hazard" else values)[:, None]
        standardised: Values = (raw - np.array(self.center)) / np.array(self.scale)
        return standardised

    def _hazard_at(self, times: Values) -> Values:
        place = grid_index(times, self.step)
        if not ((place >= 0) & (place < len(self.hazard))).all():
            raise DataError(f"variable {self.name!r} is missing, negative, or beyond the grid that was counted before")
        return np.array(self.hazard)[place.astype(np.int64)]

    def index(self, values: Values) -> NDArray[np.intp]:
        """Which of its levels these values are, shape (num_values,).

        Raises:
            DataError: a value that is none of its levels.
        """
        order = np.argsort(self.levels)
        place = np.searchsorted(np.array(self.levels)[order], values).clip(max=len(order) - 1)
        found: NDArray[np.intp] = order[place]
        if (np.array(self.levels)[found] != values).any():
            raise DataError(f"variable {self.name!r} has values that are none of the levels counted before")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteColumn:
    """A column that is 1 at one site, standardised."""

    site: str
    center: float
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The variables that are imputed from each other, and how many times.

    Attributes:
        variables: with a value missing or not.
        sites: columns of the sites in every model; empty without site intercepts.
        num_copies: completed copies.
        num_donors: for predictive mean matching, how many nearest records of the same site a number is drawn from;
            0: numbers are drawn from the normal distribution.
    """

    variables: tuple[ChainVariable, ...]
    sites: tuple[SiteColumn, ...] = ()
    num_copies: int
    num_donors: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.num_copies <= MAX_COPIES or not 0 <= self.num_donors <= 100:
            raise ValueError(f"num_copies must be in [1, {MAX_COPIES}], num_donors in [0, 100]")

    def variable(self, name: str) -> ChainVariable:
        """The variable of this name. Raises `DataError`."""
        for variable in self.variables:
            if variable.name == name:
                return variable
        raise DataError(f"the chain has no variable {name!r}")

    def num_predictors(self, target: str) -> int:
        """Columns of the model of one variable: the intercept, all other variables, the sites."""
        others = sum(variable.num_columns for variable in self.variables if variable.name != target)
        return 1 + others + len(self.sites)


@dataclass(frozen=True, slots=True)
class Copies:
    """What a site keeps between rounds: where its values are missing, and what is put there in each copy.

    Attributes:
        rows: by variable, the rows in which it is missing, each of shape (num_missing,).
        values: by variable, what the copies hold there, as the table's column would, shape (num_copies, num_missing).
    """

    rows: Mapping[str, Rows]
    values: Mapping[str, Values]

    def with_values(self, name: str, values: Values) -> Copies:
        """The same with other imputed values of one variable."""
        return Copies(self.rows, {**self.values, name: values})

    def table(self, table: Table, copy: int) -> Table:
        """The table with the missing values of the chain filled in, as copy number `copy` has them.

        Raises:
            DataError: there is no copy of this number.
        """
        columns: dict[str, Any] = dict(table.columns)
        for name, rows in self.rows.items():
            values = self.values[name]
            if not 0 <= copy < len(values):
                raise DataError(f"copy must be in [0, {len(values)}), got copy={copy}")
            if len(rows):
                column = np.array(columns[name])
                column[rows] = values[copy]
                columns[name] = column
        return replace(table, columns=columns)


def column_of(table: Table, name: str) -> Values:
    """A variable as the chain reads it: numbers, or codes of levels; NaN where missing. Shape (num_records,)."""
    if table.contract.variable(name).category_levels is None:
        return table.numbers(name)
    codes = table.codes(name).astype(np.float64)
    return np.where(codes < 0, np.nan, codes)


def start(table: Table, chain: Chain, rng: np.random.Generator) -> Copies:
    """Copies to begin with: draws from what is observed over all sites, each variable by itself."""
    rows = {variable.name: np.flatnonzero(table.is_missing(variable.name)) for variable in chain.variables}
    values = {v.name: _first_values(v, (chain.num_copies, len(rows[v.name])), rng) for v in chain.variables}
    return Copies(rows, values)


def _first_values(variable: ChainVariable, shape: tuple[int, int], rng: np.random.Generator) -> Values:
    if variable.kind != "category":  # a time has no missing values
        drawn: Values = variable.center[0] + variable.scale[0] * rng.standard_normal(shape)
        return within(variable, drawn)
    limits = np.cumsum(variable.shares)[:-1]
    return np.array(variable.levels)[np.searchsorted(limits, rng.random(shape), side="right")]


def within(variable: ChainVariable, values: Values) -> Values:
    """Values drawn back into the range that the variable may have."""
    low = -np.inf if variable.low is None else variable.low
    return values.clip(low, np.inf if variable.high is None else variable.high)


class Predictors:
    """The standardised predictors of one variable, copy by copy, at some rows of a table."""

    def __init__(self, table: Table, chain: Chain, target: str, copies: Copies, at: Rows) -> None:
        self._chain, self._copies = chain, copies
        self._x = np.ones((len(at), chain.num_predictors(target)), order="F")
        self._gaps: list[tuple[ChainVariable, slice, Rows, Rows]] = []
        place = np.full(table.num_records, -1)
        place[at] = np.arange(len(at))
        start_ = 1
        for variable in chain.variables:
            if variable.name != target:
                columns = slice(start_, start_ + variable.num_columns)
                self._fill(table, variable, columns, at, place)
                start_ = columns.stop
        for site in chain.sites:
            self._x[:, start_] = (float(site.site == table.site) - site.center) / site.scale
            start_ += 1

    def _fill(self, table: Table, variable: ChainVariable, columns: slice, at: Rows, place: Rows) -> None:
        self._x[:, columns] = variable.coded(column_of(table, variable.name)[at])
        to = place[self._copies.rows[variable.name]]
        if (to >= 0).any():
            self._gaps.append((variable, columns, to[to >= 0], np.flatnonzero(to >= 0)))

    def of_copies(self) -> Iterator[Values]:
        """The predictors in each copy, shape (num_rows, num_predictors); the array is used again for the next."""
        for copy in range(self._chain.num_copies):
            for variable, columns, to, chosen in self._gaps:
                self._x[to, columns] = variable.coded(self._copies.values[variable.name][copy][chosen])
            yield self._x


def level_probabilities(x: Values, coefficients: Values) -> Values:
    """Probabilities of all levels under a multinomial logit model, the first level being the reference.

    Args:
        x: shape (num_rows, num_predictors).
        coefficients: shape (num_levels - 1, num_predictors).

    Returns:
        Shape (num_rows, num_levels).
    """
    eta = np.concatenate([np.zeros((len(x), 1)), x @ coefficients.T], axis=1)
    odds = np.exp(eta - eta.max(axis=1, keepdims=True))
    probabilities: Values = odds / odds.sum(axis=1, keepdims=True)
    return probabilities


def logistic_terms(x: Values, level: NDArray[np.intp], weight: Values, coefficients: Values) -> tuple[Values, Any, Any]:
    """Packed information, score and deviance of a multinomial logit model.

    Args:
        x: shape (num_rows, num_predictors).
        level: which level each row has, shape (num_rows,).
        weight: of the rows, shape (num_rows,).
        coefficients: shape (num_levels - 1, num_predictors), in this order in information and score.
    """
    probabilities = level_probabilities(x, coefficients)
    num_rows, num_predictors = x.shape
    others = len(coefficients)
    observed = np.equal.outer(level, np.arange(1, others + 1))
    score = ((weight[:, None] * (observed - probabilities[:, 1:])).T @ x).ravel()
    information = np.zeros((others, num_predictors, others, num_predictors))
    for k in range(others):
        for j in range(k, others):
            p = probabilities[:, k + 1]
            block = (x * (weight * p * (float(k == j) - probabilities[:, j + 1]))[:, None]).T @ x
            information[k, :, j, :], information[j, :, k, :] = block, block.T
    size = others * num_predictors
    likelihood = np.maximum(probabilities[np.arange(num_rows), level], 1e-300)
    deviance = float(-2 * (weight @ np.log(likelihood)))
    return pack_symmetric(information.reshape(size, size)), score, deviance


def matched(observed: Values, near: Values, to: Values, num_donors: int, rng: np.random.Generator) -> Values:
    """Observed values drawn from those whose predictions are nearest.

    Args:
        observed: values of the donors, shape (num_observed,), at least one.
        near: their predictions, same shape.
        to: predictions of the records in want, shape (num_missing,).
        num_donors: how many nearest ones there are to choose among.
        rng: of the choice.
    """
    order = np.argsort(near, kind="stable")
    near, observed = near[order], observed[order]
    width = min(2 * num_donors, len(near))
    first = np.clip(np.searchsorted(near, to) - num_donors, 0, len(near) - width)
    window = first[:, None] + np.arange(width)
    nearest = np.argsort(np.abs(near[window] - to[:, None]), axis=1, kind="stable")[:, : min(num_donors, width)]
    chosen = nearest[np.arange(len(to)), rng.integers(0, nearest.shape[1], len(to))]
    drawn: Values = observed[window[np.arange(len(to)), chosen]]
    return drawn
