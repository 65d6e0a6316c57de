"""Risk sets on the grid of event times: sums over them, and what follows from the sums.

Every event time of every stratum is a *point*, numbered by stratum and then by time. A record is at risk at the
points `first` to `last - 1`. Sums over risk sets are reverse cumulated sums over the points, so that a pass over
the records fills arrays of points x columns; sums of squares are never kept by point.

References:
    Cox (1972), J. R. Stat. Soc. B 34, 187-220. Breslow (1974), Biometrics 30, 89-99.
    Efron (1977), J. Am. Stat. Assoc. 72, 557-565. Therneau & Grambsch (2000), Modeling Survival Data, chapter 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.design import Design, Frame, complete_rows, evaluate_blocks
from wardround.analytics.grouping import level_codes
from wardround.analytics.survival_time import SurvivalOutcome, survival_rows
from wardround.data.table import Table
from wardround.errors import DataError

Values = NDArray[np.float64]
Indices = NDArray[np.int64]
Ties: TypeAlias = Literal["efron", "breslow"]

MAX_PLACES = 2**21
"""Most places of a grid over all strata (unit: strata x grid points)."""
LARGEST_PREDICTOR = 30.0
"""Linear predictor, relative to that of average columns, above which coefficients count as impossible."""
_CHUNK = 2**16
# Tied deaths that are worked on at a time.


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskFrame:
    """How records fall into risk sets.

    Attributes:
        outcome: time, event, entry and grid.
        strata: variables whose combined levels have risk sets of their own.
        num_levels: of each of them.
    """

    outcome: SurvivalOutcome
    strata: tuple[str, ...] = ()
    num_levels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.strata) != len(self.num_levels) or any(count < 1 for count in self.num_levels):
            raise ValueError("every stratum variable has its number of levels, 1 or more")
        if self.num_places > MAX_PLACES:
            raise ValueError(f"strata times grid points may be {MAX_PLACES} at most, got {self.num_places}")

    @property
    def num_strata(self) -> int:
        """How many combinations of levels there are."""
        return int(np.prod(self.num_levels, dtype=object)) if self.num_levels else 1

    @property
    def num_places(self) -> int:
        """Strata times grid points."""
        return self.num_strata * self.outcome.num_steps

    def stratum(self, data: Table) -> Indices:
        """The stratum of each record, -1 where a variable is missing. Shape (num_records,)."""
        number = np.zeros(data.num_records, np.int64)
        for name, size in zip(self.strata, self.num_levels, strict=True):
            codes = level_codes(data, name, size)
            number = np.where((codes < 0) | (number < 0), -1, number * size + codes)
        return number

    def check_points(self, points: Values) -> Indices:
        """Points that were sent, as indices; raises `DataError` unless they are increasing places of the grid."""
        indices = points.astype(np.int64)
        is_valid = points.ndim == 1 and (indices == points).all() and (np.diff(indices) > 0).all()
        if not is_valid or (indices.size and not 0 <= indices[0] <= indices[-1] < self.num_places):
            raise DataError("points must be increasing places of the grid")
        return indices


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskBlock:
    """Some records of a site with their place in the risk sets, each array of shape (num_rows,) but `x`.

    Attributes:
        x: standardised design, shape (num_rows, num_columns).
        weight: case weights.
        first: the first point at which a record is at risk.
        last: one beyond the last such point.
        begins: the first point of its stratum.
        death: the point of its event; -1: none.
        rows: indices in the table.
    """

    x: Values
    weight: Values
    first: Indices
    last: Indices
    begins: Indices
    death: Indices
    rows: NDArray[np.intp]


def risk_blocks(
    data: Table, design: Design, frame: Frame, risk: RiskFrame, points: Indices, order: Indices | None = None
) -> Iterator[RiskBlock]:
    """The complete records of a site in blocks of bounded size; records of weight 0 are in no risk set.

    Args:
        data: the site's records.
        design: the columns.
        frame: the rows and weights.
        risk: times and strata.
        points: places (stratum times grid points plus index) of all event times, increasing.
        order: as in `evaluate_blocks`.

    Raises:
        DataError: an event at none of the points, or what `survival_rows` and `evaluate_blocks` raise.
    """
    rank = np.zeros(risk.num_places + 1, np.int64)  # number of points before each place
    rank[points + 1] = 1
    np.cumsum(rank, out=rank)
    stratum = risk.stratum(data)
    for block in evaluate_blocks(data, design, frame, order):
        rows = survival_rows(data, risk.outcome, block.rows)
        if (stratum[block.rows] < 0).any():
            raise DataError("a stratum is missing; its variables must be among those required")
        base = stratum[block.rows] * risk.outcome.num_steps
        begins, last = rank[base], rank[base + rows.exit + 1]
        first = begins if risk.outcome.entry is None else rank[base + rows.entry + 1]
        is_used = block.frequency > 0
        is_death = (rows.cause == 1) & is_used
        death = np.where(is_death, last - 1, -1)
        dead = np.flatnonzero(is_death)
        if not np.array_equal(points[death[dead]], base[dead] + rows.exit[dead]):
            raise DataError("an event lies at none of the points; the table is not the one that was asked before")
        last = np.where(is_used, last, first)
        yield RiskBlock(
            x=block.x, weight=block.frequency, first=first, last=last, begins=begins, death=death, rows=block.rows
        )


def places(data: Table, frame: Frame, risk: RiskFrame) -> tuple[Indices, Indices, NDArray[np.bool_]]:
    """Places at which the complete records with a weight entered and left, and whether they left by the event.

    A record that was there from the beginning has the entry -1.
    """
    rows = complete_rows(data, frame.required)
    if frame.frequency_weights is not None:
        rows = rows[data.numbers(frame.frequency_weights)[rows] > 0]
    found = survival_rows(data, risk.outcome, rows)
    base = risk.stratum(data)[rows] * risk.outcome.num_steps
    return np.where(found.entry >= 0, base + found.entry, -1), base + found.exit, found.cause == 1


def segments(points: Indices, num_steps: int) -> Iterator[tuple[int, slice]]:
    """The points of each stratum that has any: its number and where they lie."""
    stratum = points // num_steps
    bounds = np.flatnonzero(np.r_[True, stratum[1:] != stratum[:-1], True]) if len(points) else np.zeros(1, np.int64)
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        yield int(stratum[start]), slice(start, stop)


class RiskSums:
    """Sums over the risk set, and over the deaths, of every point: of weights and of weighted columns.

    Attributes:
        at_risk: shape (num_points, width).
        deaths: shape (num_points, width).
    """

    def __init__(self, points: Indices, num_steps: int, width: int) -> None:
        self._segments = list(segments(points, num_steps))
        self._size = len(points)
        self._leaving = np.zeros((width, self._size))  # by column, so that each is contiguous
        self.deaths = np.zeros((self._size, width))

    def add(self, block: RiskBlock, values: list[Values], death_values: list[Values] | None = None) -> None:
        """Add records; `values` has an array of shape (num_rows,) for each of `width`, weights included."""
        is_risk = block.last > block.first
        rows, late = np.flatnonzero(is_risk), np.flatnonzero(is_risk & (block.first > block.begins))
        ends, enters = block.last[rows] - 1, block.first[late] - 1
        for out, value in zip(self._leaving, values, strict=True):
            out += np.bincount(ends, value if len(rows) == len(value) else value[rows], minlength=self._size)
            if len(late):
                out -= np.bincount(enters, value[late], minlength=self._size)
        if death_values is not None:
            self.add_deaths(block.death, death_values)

    def add_deaths(self, death: Indices, values: list[Values]) -> None:
        """Add to the sums over deaths; `death` is the point of each record, -1 where it had none."""
        rows = np.flatnonzero(death >= 0)
        where = death[rows]
        for column, value in enumerate(values):
            self.deaths[:, column] += np.bincount(where, value[rows], minlength=self._size)

    @property
    def at_risk(self) -> Values:
        """Sums over the risk sets so far."""
        return self.reversed_cumulated(self._leaving.T)

    def reversed_cumulated(self, leaving: Values) -> Values:
        """From each point on to the end of its stratum, the sums of what leaves; shape (num_points, ...)."""
        total = np.empty(leaving.shape)
        for _, part in self._segments:
            total[part] = leaving[part][::-1].cumsum(axis=0)[::-1]
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Hazard:
    """What the sums over risk sets give at some coefficients, by point.

    With tied deaths, Efron's method takes the `l`-th of `d` deaths away from the risk set in parts, `f = l / d`:
    its denominators are `S0 - f E0`. Breslow's has `f = 0` throughout.

    Attributes:
        increment: of the cumulative hazard, shape (num_points,).
        death_part: what of it a death at that point does not bear, shape (num_points,).
        variance: squared increments by denominator: the variance of the cumulative hazard's increment.
        drift: increment times the mean of the columns, shape (num_points, num_columns).
        death_drift: the same of `death_part`.
        mean: mean of the columns over the risk set, averaged over the ties.
        log_denominator: sum over the ties of the logarithms of the denominators, weighted.
        factors: `sum f^k / (S0 - f E0)^2` for k = 0, 1, 2, weighted, shape (3, num_points).
        at_risk_x: S1.
        deaths_x: E1.
    """

    increment: Values
    death_part: Values
    variance: Values
    drift: Values
    death_drift: Values
    mean: Values
    log_denominator: Values
    factors: Values
    at_risk_x: Values
    deaths_x: Values

    @classmethod
    def of(cls, at_risk: Values, deaths: Values, num_deaths: Indices, death_weight: Values, ties: Ties) -> Hazard:
        """From sums whose first column is the weights, the others weighted columns.

        Args:
            at_risk: over the risk sets, shape (num_points, 1 + num_columns).
            deaths: over the deaths, likewise; not looked at with Breslow's method.
            num_deaths: shape (num_points,), 1 or more.
            death_weight: sum of the deaths' case weights, shape (num_points,).
            ties: method for tied deaths.
        """
        is_efron = ties == "efron"
        deaths = deaths if is_efron else np.zeros_like(at_risk)
        weight = death_weight / num_deaths
        sums = _sums_over_ties(at_risk[:, 0], deaths[:, 0], num_deaths, is_efron) * weight
        inverse, inverse_f, log_denominator, *factors = sums
        s, e = at_risk[:, 1:], deaths[:, 1:]
        f0, f1, f2 = (factor[:, None] for factor in factors)
        with np.errstate(invalid="ignore"):  # an impossible denominator shows in the likelihood
            return cls(
                increment=inverse,
                death_part=inverse_f,
                variance=factors[0],
                drift=s * f0 - e * f1,
                death_drift=s * f1 - e * f2,
                mean=(s * inverse[:, None] - e * inverse_f[:, None]) / death_weight[:, None],
                log_denominator=log_denominator,
                factors=np.stack(factors),
                at_risk_x=s,
                deaths_x=e,
            )

    def outer(self, weight: Values) -> Values:
        """Weighted sum over points and ties of the outer product of the risk sets' means."""
        f0, f1, f2 = ((factor * weight)[:, None] for factor in self.factors)
        cross = self.at_risk_x.T @ (self.deaths_x * f1)
        total: Values = (
            self.at_risk_x.T @ (self.at_risk_x * f0) - cross - cross.T + self.deaths_x.T @ (self.deaths_x * f2)
        )
        return total


def _sums_over_ties(at_risk: Values, deaths: Values, num_deaths: Indices, is_efron: bool) -> Values:
    """Over the ties of each point, with `D = S0 - f E0`: 1/D, f/D, log D, 1/D^2, f/D^2, f^2/D^2.

    Shape (6, num_points).
    """
    total = np.zeros((6, len(at_risk)))
    ends = np.cumsum(num_deaths)
    start = 0
    while start < len(at_risk):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _CHUNK, side="right")))
        d = num_deaths[start:stop]
        begins = np.cumsum(d) - d
        f = is_efron * (np.arange(int(d.sum())) - np.repeat(begins, d)) / np.repeat(d, d)
        with np.errstate(all="ignore"):  # an impossible denominator shows in the likelihood
            denominator = np.repeat(at_risk[start:stop], d) - f * np.repeat(deaths[start:stop], d)
            inverse = 1 / denominator
            parts = (inverse, f * inverse, np.log(denominator), inverse**2, f * inverse**2, (f * inverse) ** 2)
            for row, part in zip(total, parts, strict=True):
                row[start:stop] = np.add.reduceat(part, begins)
        start = stop
    return total


def cumulated(values: Values) -> Values:
    """Sums up to and without each point, shape (num_points + 1, ...)."""
    return np.concatenate([np.zeros((1, *values.shape[1:])), values.cumsum(axis=0)])


def predictor(block: RiskBlock, coefficients: Values) -> tuple[Values, NDArray[np.bool_]]:
    """Linear predictors of a block and which of them are too large to be possible (there taken as 0)."""
    eta: Values = block.x @ coefficients
    is_invalid = ~(eta <= LARGEST_PREDICTOR) & (block.last > block.first)
    return np.where(is_invalid, 0.0, np.minimum(eta, LARGEST_PREDICTOR)), is_invalid


def second_moments(block: RiskBlock, theta: Values, increment: Values, death_part: Values) -> Values:
    """Sum over records of `theta x x'` times the hazard that each bears; shape (num_columns, num_columns).

    Args:
        block: the records.
        theta: weight times the exponential of the linear predictor, shape (num_rows,).
        increment: cumulated, shape (num_points + 1,).
        death_part: shape (num_points,).
    """
    borne = increment[block.last] - increment[block.first]
    is_death = block.death >= 0
    borne[is_death] -= death_part[block.death[is_death]]
    total: Values = block.x.T @ (block.x * (borne * theta)[:, None])
    return total
