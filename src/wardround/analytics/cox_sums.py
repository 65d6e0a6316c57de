"""The sums that a step of the Cox model's iteration needs of a site.

Where risk sets are shared by the sites, a step is two asks: sums over risk sets by point (points x columns), then,
from the hazard that these give, sums of squares over records (columns x columns). Where each site is a stratum, a
site computes its own partial likelihood, and only sums of scores and information leave it.

References:
    Cox (1972), J. R. Stat. Soc. B 34, 187-220. Efron (1977), J. Am. Stat. Assoc. 72, 557-565.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.cox_risk import (
    Hazard,
    Indices,
    RiskBlock,
    RiskFrame,
    RiskSums,
    Ties,
    Values,
    cumulated,
    places,
    predictor,
    risk_blocks,
    second_moments,
)
from wardround.analytics.design import Design, Frame, num_complete_rows, num_parameters, tells_of_one_site
from wardround.analytics.glm_sums import check_columns
from wardround.analytics.linear import pack_symmetric
from wardround.data.table import Table
from wardround.errors import DataError
from wardround.sums import Array, Contribution, exact, people, site_function

MAX_WEIGHTINGS = 4
"""Most ways in which one ask may weight the points."""


class Leaving(Contribution):
    """Records that had the event, left, and entered, by stratum and point of the grid."""

    num_events: NDArray[np.int64] = people("num_strata", "num_steps", cells="sums")
    num_leaving: NDArray[np.int64] = people("num_strata", "num_steps", cells="sums")
    num_entering: NDArray[np.int64] = people("num_strata", "num_steps", cells="sums")


def _grid_sizes(frame: Frame, risk: RiskFrame, **_: Any) -> dict[str, float]:
    return {"num_strata": risk.num_strata, "num_steps": risk.outcome.num_steps}


@site_function("cox.leaving", version=1, symbols=_grid_sizes, rows=num_complete_rows)
def leaving(data: Table, frame: Frame, risk: RiskFrame) -> Leaving:
    """Count the complete records that had the event, left and entered, by stratum and point of the grid."""
    entry, exits, is_event = places(data, frame, risk)
    shape = (risk.num_strata, risk.outcome.num_steps)
    counts = [
        np.bincount(where, minlength=risk.num_places).reshape(shape)
        for where in (exits[is_event], exits, entry[entry >= 0])
    ]
    return Leaving(num_events=counts[0], num_leaving=counts[1], num_entering=counts[2])


class RiskTotals(Contribution):
    """Sums over risk sets and over deaths by point: of weights, then of weighted columns."""

    at_risk: Array = exact("num_points", "width")
    deaths: Array = exact("num_death_points", "width")
    squares: float = exact()
    num_invalid: int = people(cells="none")


def _risk_sizes(design: Design, points: Values, has_deaths: bool, **_: Any) -> dict[str, float]:
    width = design.num_columns + 1
    return {"num_points": points.size, "num_death_points": points.size if has_deaths else 0, "width": width}


@site_function(
    "cox.risk_sums",
    version=1,
    symbols=_risk_sizes,
    parameters=num_parameters,
    per_site=tells_of_one_site,
    rows=num_complete_rows,
)
def risk_sums(
    data: Table, design: Design, frame: Frame, risk: RiskFrame, points: Array, coefficients: Array, has_deaths: bool
) -> RiskTotals:
    """Sums of relative hazards, and of columns weighted with them, over the risk set of every event time.

    Args:
        data: the site's records.
        design: the columns.
        frame: the rows and weights.
        risk: times and strata.
        points: places of the event times, increasing, shape (num_points,).
        coefficients: of the standardised columns, shape (num_columns,).
        has_deaths: whether the sums over those who had the event at each time are wanted too.

    Raises:
        DataError: points or coefficients that do not fit.
    """
    check_columns(design, coefficients=np.atleast_1d(coefficients))
    where = risk.check_points(points)
    blocks = risk_blocks(data, design, frame, risk, where)
    sums, squares, num_invalid = _summed(blocks, where, risk, coefficients, has_deaths)
    return RiskTotals(
        at_risk=sums.at_risk,
        deaths=sums.deaths if has_deaths else sums.deaths[:0],
        squares=squares,
        num_invalid=num_invalid,
    )


def _summed(
    blocks: Iterator[RiskBlock], points: Indices, risk: RiskFrame, coefficients: Values, has_deaths: bool
) -> tuple[RiskSums, float, int]:
    """Sums over risk sets, sum of squared linear predictors, records whose predictor is impossible."""
    sums = RiskSums(points, risk.outcome.num_steps, len(coefficients) + 1)
    squares, num_invalid = 0.0, 0
    for block in blocks:
        eta, is_invalid = predictor(block, coefficients)
        values = weighted_columns(block, block.weight * np.exp(eta))
        sums.add(block, values, values if has_deaths else None)
        squares += float(eta @ eta)
        num_invalid += int(is_invalid.sum())
    return sums, squares, num_invalid


def weighted_columns(block: RiskBlock, theta: Values) -> list[Values]:
    """The weights themselves and each column times them."""
    return [theta, *(block.x[:, j] * theta for j in range(block.x.shape[1]))]


class SecondMoments(Contribution):
    """Weighted sums of products of columns, one for each weighting of the points."""

    products: Array = exact("num_weightings", "num_pairs")


def _moment_sizes(design: Design, increment: Values, **_: Any) -> dict[str, float]:
    p = design.num_columns
    return {"num_weightings": increment.shape[0], "num_pairs": p * (p + 1) // 2}


@site_function(
    "cox.second_moments",
    version=1,
    symbols=_moment_sizes,
    parameters=num_parameters,
    per_site=tells_of_one_site,
    rows=num_complete_rows,
)
def second_moment_sums(
    data: Table,
    design: Design,
    frame: Frame,
    risk: RiskFrame,
    points: Array,
    coefficients: Array,
    increment: Array,
    death_part: Array,
) -> SecondMoments:
    """Products of columns, weighted with the hazard that each record bears: with the risk sets' means, the information.

    Args:
        data: the site's records.
        design: the columns.
        frame: the rows and weights.
        risk: times and strata.
        points: places of the event times, shape (num_points,).
        coefficients: of the standardised columns.
        increment: of the hazard at each point, shape (num_weightings, num_points).
        death_part: what of it a death at that point does not bear, likewise.

    Raises:
        DataError: arguments that do not fit each other.
    """
    check_columns(design, coefficients=np.atleast_1d(coefficients))
    where = risk.check_points(points)
    num_weightings = check_weightings(points.size, increment, death_part)
    cumulated_increments = [cumulated(row) for row in increment]
    p = design.num_columns
    total = np.zeros((num_weightings, p, p))
    for block in risk_blocks(data, design, frame, risk, where):
        theta = block.weight * np.exp(predictor(block, coefficients)[0])
        for out, steps, part in zip(total, cumulated_increments, death_part, strict=True):
            out += second_moments(block, theta, steps, part)
    return SecondMoments(products=_packed(total))


def _packed(matrices: Values) -> Values:
    return np.array([pack_symmetric(matrix) for matrix in matrices])


def check_weightings(num_points: int, *arrays: Values) -> int:
    """How many weightings there are; raises `DataError` unless each array has a finite number a point for each."""
    shape = arrays[0].shape
    if len(shape) != 2 or not 1 <= shape[0] <= MAX_WEIGHTINGS or shape[1] != num_points:
        raise DataError(f"weightings must have shape (1 to {MAX_WEIGHTINGS}, {num_points}), got {shape}")
    if any(array.shape != shape or not np.isfinite(array).all() for array in arrays):
        raise DataError("weightings must be finite and of one shape")
    return int(shape[0])


class SiteTerms(Contribution):
    """Partial likelihood of a site's own risk sets, its score and information, for each weighting of the grid."""

    log_likelihood: float = exact()
    score: Array = exact("num_weightings", "num_columns")
    information: Array = exact("num_weightings", "num_pairs")
    products: Array = exact("num_pairs")
    squares: float = exact()
    num_invalid: int = people(cells="none")


def site_sizes(design: Design, weighting: Values, **_: Any) -> dict[str, float]:
    """Values of the names in the declaration of a site's own terms."""
    p = design.num_columns
    return {"num_weightings": weighting.shape[0], "num_columns": p, "num_pairs": p * (p + 1) // 2}


@site_function(
    "cox.site_terms",
    version=1,
    symbols=site_sizes,
    parameters=num_parameters,
    per_site=tells_of_one_site,
    rows=num_complete_rows,
)
def site_terms(
    data: Table, design: Design, frame: Frame, risk: RiskFrame, ties: Ties, coefficients: Array, weighting: Array
) -> SiteTerms:
    """Partial likelihood, score and information where this site's risk sets are its own.

    Args:
        data: the site's records.
        design: the columns.
        frame: the rows and weights.
        risk: times and strata (within the site).
        ties: method for tied deaths.
        coefficients: of the standardised columns, shape (num_columns,).
        weighting: of the grid's points in score and information, shape (num_weightings, num_steps).

    Raises:
        DataError: arguments that do not fit each other.
    """
    check_columns(design, coefficients=np.atleast_1d(coefficients))
    check_weightings(risk.outcome.num_steps, weighting)
    own = own_risk_sets(data, design, frame, risk, ties, coefficients)
    if own.num_invalid or not np.isfinite(own.hazard.log_denominator).all():
        return _impossible(site_sizes(design, weighting), max(own.num_invalid, 1))
    weights = weighting[:, own.points % risk.outcome.num_steps]
    p = design.num_columns
    products = np.zeros((len(weights) + 1, p, p))
    steps = [(cumulated(own.hazard.increment * g), own.hazard.death_part * g) for g in (np.ones(own.size), *weights)]
    for block in risk_blocks(data, design, frame, risk, own.points):
        theta = block.weight * np.exp(predictor(block, coefficients)[0])
        for out, (increment, part) in zip(products, steps, strict=True):
            out += second_moments(block, theta, increment, part)
    information = [total - own.hazard.outer(g) for total, g in zip(products[1:], weights, strict=True)]
    return SiteTerms(
        log_likelihood=own.log_likelihood(coefficients),
        score=weights @ own.residuals,
        information=_packed(np.array(information)),
        products=pack_symmetric(products[0]),
        squares=own.squares,
        num_invalid=own.num_invalid,
    )


def _impossible(sizes: dict[str, float], num_invalid: int) -> SiteTerms:
    """Nothing but the count of the records to which coefficients give no possible hazard."""
    g, p, pairs = (int(sizes[name]) for name in ("num_weightings", "num_columns", "num_pairs"))
    return SiteTerms(
        log_likelihood=0.0,
        score=np.zeros((g, p)),
        information=np.zeros((g, pairs)),
        products=np.zeros(pairs),
        squares=0.0,
        num_invalid=num_invalid,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRiskSets:
    """The risk sets of one site and the hazard that they give.

    Attributes:
        points: places of the event times, shape (num_points,).
        hazard: at the coefficients.
        death_x: weighted columns of the deaths, shape (num_points, num_columns).
        death_weight: shape (num_points,).
        squares: sum of squared linear predictors.
        num_invalid: records whose linear predictor is impossible.
    """

    points: Indices
    hazard: Hazard
    death_x: Values
    death_weight: Values
    squares: float
    num_invalid: int

    @property
    def size(self) -> int:
        """Number of points."""
        return len(self.points)

    @property
    def residuals(self) -> Values:
        """Columns of the deaths less what the risk sets lead to expect, shape (num_points, num_columns)."""
        return self.death_x - self.death_weight[:, None] * self.hazard.mean

    def log_likelihood(self, coefficients: Values) -> float:
        """Logarithm of the partial likelihood."""
        return float(self.death_x.sum(axis=0) @ coefficients - self.hazard.log_denominator.sum())


def own_risk_sets(
    data: Table, design: Design, frame: Frame, risk: RiskFrame, ties: Ties, coefficients: Values
) -> OwnRiskSets:
    """Risk sets of this site's records alone."""
    _, exits, is_event = places(data, frame, risk)
    points, num_deaths = np.unique(exits[is_event], return_counts=True)
    plain = RiskSums(points, risk.outcome.num_steps, design.num_columns + 1)

    def remembered() -> Iterator[RiskBlock]:
        for block in risk_blocks(data, design, frame, risk, points):
            plain.add_deaths(block.death, weighted_columns(block, block.weight))
            yield block

    sums, squares, num_invalid = _summed(remembered(), points, risk, coefficients, has_deaths=True)
    death_weight = plain.deaths[:, 0]
    return OwnRiskSets(
        points=points,
        hazard=Hazard.of(sums.at_risk, sums.deaths, num_deaths, death_weight, ties),
        death_x=plain.deaths[:, 1:],
        death_weight=death_weight,
        squares=squares,
        num_invalid=num_invalid,
    )
