"""Harrell's concordance of a Cox model from counts by event time and score, and its standard error.

Of two records at risk at an event, the one with the event should have the higher score. Scores of two sites meet
in a table of event times x score bins; two records in one bin count as half concordant, which is what ties count.
The share of such pairs bounds the error; bins in which all scores are equal hold true ties and add nothing to it.

References:
    Harrell, Califf, Pryor, Lee & Rosati (1982), JAMA 247, 2543-2546.
    Therneau & Atkinson, vignette "Concordance" of R's survival (infinitesimal jackknife of the standard error).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from wardround.analytics.cox_risk import Indices, RiskBlock, RiskFrame, RiskSums, Values, places, risk_blocks
from wardround.analytics.design import (
    Design,
    Frame,
    evaluate_blocks,
    num_complete_rows,
    num_parameters,
    tells_of_one_site,
)
from wardround.analytics.families import two_sided_quantile
from wardround.analytics.glm_finish import Meat, cluster_numbers
from wardround.analytics.glm_sums import check_columns
from wardround.analytics.linear import pack_symmetric
from wardround.analytics.preparation import Prepared
from wardround.data.table import Table
from wardround.errors import DataError
from wardround.sums import Array, Contribution, Steps, ask, exact, people, site_function

NUM_FINE_BINS = 4096
"""Bins of the first histogram of scores, of which the table's bins are made."""
MAX_BINS, MIN_BINS = 256, 32
"""Most and fewest bins of scores."""
MAX_CELLS = 2**18
"""Most cells of a table of event times x score bins that more than the fewest bins are taken for."""
SAME = 1e-9
"""Scores of one bin that spread less than this part of their standard deviation count as equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Concordance:
    """Harrell's concordance.

    Attributes:
        estimate: share of comparable pairs in which the higher score had the event first, ties as half.
        standard_error: by the infinitesimal jackknife.
        low: end of its interval.
        high: end of its interval.
        error_bound: largest possible distance of `estimate` from the one of exact scores.
    """

    estimate: float
    standard_error: float
    low: float
    high: float
    error_bound: float


class ScoreHistogram(Contribution):
    """Records by score."""

    num_records: NDArray[np.int64] = people(NUM_FINE_BINS, cells="sums")


def _fine_edges(scale: float) -> Values:
    """Where the fine bins meet, denser about 0; shape (NUM_FINE_BINS - 1,)."""
    edges: Values = scale * special.logit(np.arange(1, NUM_FINE_BINS) / NUM_FINE_BINS)
    return edges


@site_function(
    "cox.score_histogram", version=1, parameters=num_parameters, per_site=tells_of_one_site, rows=num_complete_rows
)
def score_histogram(data: Table, design: Design, frame: Frame, coefficients: Array, scale: float) -> ScoreHistogram:
    """Count the complete records by linear predictor, in bins whose width goes with `scale`."""
    check_columns(design, coefficients=np.atleast_1d(coefficients))
    edges = _fine_edges(scale)
    counts = np.zeros(NUM_FINE_BINS, np.int64)
    for block in evaluate_blocks(data, design, frame):
        scores = (block.x @ coefficients)[block.frequency > 0]
        counts += np.bincount(np.searchsorted(edges, scores, side="right"), minlength=NUM_FINE_BINS)
    return ScoreHistogram(num_records=counts)


class ScoreTable(Contribution):
    """Weights of those at risk and of the deaths by point and score bin; and how far scores spread in each bin."""

    at_risk: Array = exact("num_points", "num_bins")
    deaths: Array = exact("num_points", "num_bins")
    spread: Array = exact(3, "num_bins")


def _table_sizes(points: Values, edges: Values, **_: Any) -> dict[str, float]:
    return {"num_points": points.size, "num_bins": edges.size + 1}


@site_function(
    "cox.score_table",
    version=1,
    symbols=_table_sizes,
    parameters=num_parameters,
    per_site=tells_of_one_site,
    rows=num_complete_rows,
)
def score_table(
    data: Table,
    design: Design,
    frame: Frame,
    risk: RiskFrame,
    points: Array,
    coefficients: Array,
    edges: Array,
    scale: float,
) -> ScoreTable:
    """Weights of those at risk, and of those who had the event, by event time and bin of the linear predictor.

    Args:
        data: the site's records.
        design: the columns.
        frame: the rows and weights.
        risk: times and strata.
        points: places of the event times, shape (num_points,).
        coefficients: of the standardised columns.
        edges: increasing, where the bins meet, shape (num_bins - 1,).
        scale: unit of the spread within the bins.

    Raises:
        DataError: arguments that do not fit each other.
    """
    where = _checked(design, coefficients, edges, scale, risk, points)
    table = _Tables(where, edges, scale, risk.outcome.num_steps)
    for block in risk_blocks(data, design, frame, risk, where):
        table.add(block, block.x @ coefficients)
    return ScoreTable(at_risk=table.at_risk, deaths=table.deaths, spread=table.spread)


def _checked(
    design: Design, coefficients: Values, edges: Values, scale: float, risk: RiskFrame, points: Values
) -> Indices:
    check_columns(design, coefficients=np.atleast_1d(coefficients))
    if edges.ndim != 1 or edges.size >= NUM_FINE_BINS or not (np.diff(edges) > 0).all() or not scale > 0:
        raise DataError("edges must increase and be few, scale be positive")
    return risk.check_points(points)


class _Tables:
    """Sums by point and score bin."""

    def __init__(self, points: Indices, edges: Values, scale: float, num_steps: int) -> None:
        self._edges, self._scale = edges, scale
        self._num_points, self._num_bins = len(points), len(edges) + 1
        self._leaving = np.zeros(self._num_points * self._num_bins)
        self._sums = RiskSums(points, num_steps, 0)
        self._deaths = np.zeros_like(self._leaving)
        self.spread = np.zeros((3, self._num_bins))

    def add(self, block: RiskBlock, scores: Values) -> None:
        bins = np.searchsorted(self._edges, scores, side="right")
        is_risk = block.last > block.first
        is_late = is_risk & (block.first > block.begins)
        is_death = block.death >= 0
        self._leaving += self._count(block.last - 1, bins, block.weight, is_risk)
        self._leaving -= self._count(block.first - 1, bins, block.weight, is_late)
        self._deaths += self._count(block.death, bins, block.weight, is_death)
        middle = np.r_[self._edges[:1], self._edges][bins] if self._edges.size else np.zeros(len(bins))
        offsets = (scores - middle) / self._scale
        for row, values in zip(self.spread, (np.ones(len(bins)), offsets, offsets**2), strict=True):
            row += np.bincount(bins, values * (block.weight > 0), minlength=self._num_bins)

    def _count(self, where: Indices, bins: Any, weight: Values, mask: Any) -> Values:
        cell = where[mask] * self._num_bins + bins[mask]
        return np.bincount(cell, weight[mask], minlength=self._leaving.size).astype(np.float64, copy=False)

    @property
    def at_risk(self) -> Values:
        return self._sums.reversed_cumulated(self._leaving.reshape(self._num_points, self._num_bins))

    @property
    def deaths(self) -> Values:
        return self._deaths.reshape(self._num_points, self._num_bins)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pairs:
    """Comparable pairs by point and bin of one table.

    Attributes:
        cases: deaths, shape (num_points, num_bins).
        others: at risk and without the event at that point, likewise.
    """

    cases: Values
    others: Values

    @property
    def below(self) -> Values:
        """Weight of the others that a case in each bin is concordant with, ties as half."""
        total: Values = _before(self.others) + 0.5 * self.others
        return total

    @property
    def above(self) -> Values:
        """Weight of the cases that one in each bin is concordant with, ties as half."""
        total: Values = self.cases.sum(axis=1, keepdims=True) - _before(self.cases) - 0.5 * self.cases
        return total

    def counts(self, is_exact: NDArray[np.bool_]) -> Values:
        """Concordant pairs (ties as half), all pairs, pairs that one inexact bin holds."""
        concordant = float((self.cases * self.below).sum())
        every = float((self.cases.sum(axis=1) * self.others.sum(axis=1)).sum())
        unresolved = float((self.cases * self.others)[:, ~is_exact].sum())
        return np.array([concordant, every, unresolved])


def _before(values: Values) -> Values:
    total: Values = values.cumsum(axis=1) - values
    return total


class PairProducts(Contribution):
    """Sums of products of the concordant pairs and of all pairs that each record, or cluster, is in."""

    counts: Array = exact(3)
    products: Array = exact(3)


@site_function(
    "cox.pair_products", version=1, parameters=num_parameters, per_site=tells_of_one_site, rows=num_complete_rows
)
def pair_products(
    data: Table,
    design: Design,
    frame: Frame,
    risk: RiskFrame,
    points: Array,
    coefficients: Array,
    edges: Array,
    cases: Array,
    others: Array,
    scale: float,
    cluster: str | None,
) -> PairProducts:
    """For the standard error of the concordance: in how many pairs each record is, and in how many concordant ones.

    Args:
        data: the site's records.
        design: the columns.
        frame: the rows and weights.
        risk: times and strata.
        points: places of the event times, shape (num_points,).
        coefficients: of the standardised columns.
        edges: where the bins meet, shape (num_bins - 1,).
        cases: weights of the deaths by point and bin over all sites, shape (num_points, num_bins).
        others: of those at risk without the event, likewise.
        scale: what the pairs of a record are divided by.
        cluster: None for records, or as in `score_products`.

    Raises:
        DataError: arguments that do not fit each other.
    """
    where = _checked(design, coefficients, edges, scale, risk, points)
    shape = (len(where), edges.size + 1)
    if cases.shape != shape or others.shape != shape or not np.isfinite([cases, others]).all():
        raise DataError(f"cases and others must be finite and of shape {shape}")
    pairs = _Pairs(cases=cases, others=others)
    records = _Records(data, design, frame, risk)
    products = _products(records, where, coefficients, edges, pairs, scale, cluster)
    return PairProducts(counts=np.zeros(3), products=products)


@site_function(
    "cox.site_pairs", version=1, parameters=num_parameters, per_site=tells_of_one_site, rows=num_complete_rows
)
def site_pairs(
    data: Table,
    design: Design,
    frame: Frame,
    risk: RiskFrame,
    coefficients: Array,
    edges: Array,
    spread_scale: float,
    scale: float,
    cluster: str | None,
) -> PairProducts:
    """Pairs and their products where this site's risk sets are its own; as `score_table` and `pair_products`."""
    where = np.unique(_events(data, frame, risk))
    _checked(design, coefficients, edges, scale, risk, where.astype(np.float64))
    table = _Tables(where, edges, spread_scale, risk.outcome.num_steps)
    for block in risk_blocks(data, design, frame, risk, where):
        table.add(block, block.x @ coefficients)
    pairs = _Pairs(cases=table.deaths, others=table.at_risk - table.deaths)
    records = _Records(data, design, frame, risk)
    return PairProducts(
        counts=pairs.counts(_is_exact(table.spread)),
        products=_products(records, where, coefficients, edges, pairs, scale, cluster),
    )


def _events(data: Table, frame: Frame, risk: RiskFrame) -> Indices:
    _, exits, is_event = places(data, frame, risk)
    return exits[is_event]


@dataclass(frozen=True, slots=True)
class _Records:
    data: Table
    design: Design
    frame: Frame
    risk: RiskFrame

    def blocks(self, points: Indices, order: Indices | None) -> Iterator[RiskBlock]:
        return risk_blocks(self.data, self.design, self.frame, self.risk, points, order)


def _products(
    records: _Records,
    points: Indices,
    coefficients: Values,
    edges: Values,
    pairs: _Pairs,
    scale: float,
    cluster: str | None,
) -> Values:
    groups = None if cluster is None else cluster_numbers(records.data, cluster)
    below, above = pairs.below / scale, pairs.above / scale
    num_cases, num_others = pairs.cases.sum(axis=1) / scale, pairs.others.sum(axis=1) / scale
    before = np.concatenate([np.zeros((1, above.shape[1])), above.cumsum(axis=0)])
    num_before = np.r_[0.0, num_cases.cumsum()]
    meat = Meat(2)
    for block in records.blocks(points, groups):
        bins = np.searchsorted(edges, block.x @ coefficients, side="right")
        is_death = block.death >= 0
        death = block.death[is_death]
        # One who had the event is compared with the deaths before his own.
        last = np.where(is_death, block.last - 1, block.last)
        found = np.empty((len(bins), 2))
        found[:, 0] = before[last, bins] - before[block.first, bins]
        found[:, 1] = num_before[last] - num_before[block.first]
        found[is_death, 0] += below[death, bins[is_death]]
        found[is_death, 1] += num_others[death]
        found *= block.weight[:, None]
        is_used = block.weight > 0
        if groups is None:
            meat.add_rows(found[is_used])
        else:
            meat.add_clusters(groups[block.rows][is_used], found[is_used])
    return pack_symmetric(meat.total())


def _is_exact(spread: Values) -> NDArray[np.bool_]:
    """Bins in which all scores are equal to rounding error; shape (num_bins,)."""
    count, total, squares = spread
    variance = squares - total**2 / np.maximum(count, 1.0)
    is_equal: NDArray[np.bool_] = variance <= count * SAME**2 + 1e-13 * squares
    return is_equal


def _edges(counts: NDArray[np.int64], scale: float, num_bins: int) -> Values:
    """Edges of at most `num_bins` bins with about as many records each."""
    cumulative = counts.cumsum()
    targets = cumulative[-1] * np.arange(1, num_bins) / num_bins
    chosen = np.unique(np.searchsorted(cumulative, targets))
    edges = _fine_edges(scale)
    # Both sides of a fine bin that holds more than one share, so that what is tied stands alone.
    both = np.unique(np.concatenate([chosen, chosen[counts[chosen] > cumulative[-1] / num_bins] - 1]))
    inside: Values = edges[both[(both >= 0) & (both < len(edges))]]
    return inside


def concordance(
    prepared: Prepared,
    risk: RiskFrame,
    points: Indices | None,
    coefficients: Values,
    squares: float,
    cluster: str | None,
    confidence: float,
) -> Steps[Concordance | None]:
    """Concordance over risk sets that the sites share, or (without `points`) that each has to itself.

    Args:
        prepared: the design.
        risk: times and strata.
        points: places of the event times, or None.
        coefficients: of the standardised columns.
        squares: sum of squared linear predictors.
        cluster: None for a standard error by records, or as in `score_products`.
        confidence: of the interval.

    Returns:
        None where no two records can be compared.
    """
    design, frame = prepared.design, prepared.frame
    # The logistic distribution's scale for this standard deviation.
    scale = max(float(np.sqrt(squares / prepared.num_complete * 3) / np.pi), 1e-6)
    counted = (yield from ask(score_histogram, design, frame, coefficients, scale)).sum
    num_bins = MAX_BINS if points is None else int(np.clip(MAX_CELLS // len(points), MIN_BINS, MAX_BINS))
    edges = _edges(counted.num_records, scale, num_bins)
    share = float(prepared.num_complete)
    if points is None:
        found = yield from ask(site_pairs, design, frame, risk, coefficients, edges, scale, share, cluster)
        return _concordance(found.sum.counts, found.sum.products * share**2, confidence)
    where = points.astype(np.float64)
    table = (yield from ask(score_table, design, frame, risk, where, coefficients, edges, scale)).sum
    pairs = _Pairs(cases=table.deaths, others=table.at_risk - table.deaths)
    counts = pairs.counts(_is_exact(table.spread))
    if counts[1] <= 0:
        return None
    found = yield from ask(
        pair_products,
        design,
        frame,
        risk,
        where,
        coefficients,
        edges,
        pairs.cases,
        pairs.others,
        share,
        cluster,
    )
    return _concordance(counts, found.sum.products * share**2, confidence)


def _concordance(counts: Values, products: Values, confidence: float) -> Concordance | None:
    concordant, every, unresolved = counts.tolist()
    if every <= 0:
        return None
    estimate = concordant / every
    ss, sn, nn = products.tolist()
    error = float(np.sqrt(max(ss - 2 * estimate * sn + estimate**2 * nn, 0.0))) / every
    reach = two_sided_quantile(confidence, None) * error
    return Concordance(
        estimate=estimate,
        standard_error=error,
        low=max(estimate - reach, 0.0),
        high=min(estimate + reach, 1.0),
        error_bound=0.5 * unresolved / every,
    )
