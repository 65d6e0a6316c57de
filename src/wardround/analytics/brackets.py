"""Brackets around order statistics, narrowed by counts: the arithmetic of quantiles from sums. Asks nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

LARGEST_EXPONENT = 64
"""Values must stay below 2 to this in size."""
SMALLEST_EXPONENT = -64
"""Values below 2 to this in size, but for 0 itself, share one bracket at first."""
_POWERS = np.ldexp(1.0, np.arange(SMALLEST_EXPONENT, LARGEST_EXPONENT + 1))
# Bins are open below and closed above, so that the bin from the float before 0 to 0 holds the zeros alone.
FIRST_EDGES = np.concatenate([-_POWERS[::-1], [np.nextafter(0.0, -1.0), 0.0], _POWERS])
"""Edges of the first histogram, shape (num_first_bins + 1,)."""
NUM_FIRST_BINS = len(FIRST_EDGES) - 1


def bin_edges(low: float, high: float, num_bins: int, is_whole: bool) -> Floats:
    """Edges that divide a bracket evenly, on whole numbers if asked; shape (num_bins + 1,), not decreasing.

    Site and coordinator compute them alike: each step is one correctly rounded operation.
    """
    if is_whole:
        low, high = math.floor(low), math.floor(high)
    steps = np.arange(num_bins + 1) / num_bins
    edges = np.minimum(low + (high - low) * steps, high)
    if is_whole:
        edges = np.floor(edges)
    edges[-1] = high
    return edges


def count_in_bins(values: Floats, edges: Floats) -> Counts:
    """How many values lie in each bin, open below and closed above; shape (num_bins,)."""
    inside = values[(values > edges[0]) & (values <= edges[-1])]
    return np.bincount(np.searchsorted(edges, inside, side="left") - 1, minlength=len(edges) - 1).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bracket:
    """An interval, open below and closed above, that is known to hold some order statistics.

    Attributes:
        low: not in the interval.
        high: in the interval.
        num_below: number of values at or below `low`.
        num_inside: number of values in the interval.
        is_whole: all values are whole numbers.
        is_settled: it cannot become narrower and still hold enough people.
    """

    low: float
    high: float
    num_below: int
    num_inside: int
    is_whole: bool
    is_settled: bool = False

    @property
    def width(self) -> float:
        """Length of the interval."""
        return self.high - self.low

    @property
    def least(self) -> float:
        """Least number that may be in the interval."""
        return math.floor(self.low) + 1.0 if self.is_whole else math.nextafter(self.low, math.inf)

    @property
    def greatest(self) -> float:
        """Greatest number that may be in the interval."""
        return float(math.floor(self.high)) if self.is_whole else self.high

    @property
    def is_single(self) -> bool:
        """Whether there is room for one number only, whose value is then known."""
        return self.least >= self.greatest

    def locate(self, rank: int) -> tuple[float, float]:
        """An order statistic in it: where it would lie were the values spread evenly, and how far off that may be.

        Args:
            rank: in [num_below + 1, num_below + num_inside].

        Guarantees:
            bound_holds: no value that fits the counts is farther from the estimate than the bound.
        """
        if self.is_single:
            return self.greatest, 0.0
        share = (rank - self.num_below - 0.5) / self.num_inside
        estimate = self.low + share * self.width
        if self.is_whole:
            estimate = float(round(estimate))
        estimate = min(max(estimate, self.least), self.greatest)
        return estimate, max(estimate - self.least, self.greatest - estimate)

    def narrowed(self, rank: int, edges: Floats, counts: Counts, floor: int) -> Bracket:
        """The narrowest run of bins that holds an order statistic and at least `floor` people.

        Args:
            rank: which order statistic.
            edges: of the bins, shape (num_bins + 1,).
            counts: people in each, shape (num_bins,).
            floor: at most `num_inside`.
        """
        below = np.concatenate([[0], np.cumsum(counts)])
        place = int(np.searchsorted(below, rank - self.num_below, side="left")) - 1
        starts = np.arange(place + 1)
        # For each start, the first end with enough people that does not lie before the rank's own bin.
        ends = np.maximum(np.searchsorted(below, below[starts] + floor, side="left"), place + 1)
        is_enough = ends < len(below)
        starts, ends = starts[is_enough], ends[is_enough]
        best = int(np.argmin(edges[ends] - edges[starts]))
        start, end = int(starts[best]), int(ends[best])
        low, high = float(edges[start]), float(edges[end])
        return Bracket(
            low=low,
            high=high,
            num_below=self.num_below + int(below[start]),
            num_inside=int(below[end] - below[start]),
            is_whole=self.is_whole,
            # A run of several bins is as narrow as the floor allows, about; halving again would gain little.
            is_settled=end - start > 1 and high - low > self.width / 2,
        )


@dataclass(frozen=True, slots=True)
class Search:
    """The search for some order statistics of one variable in one column.

    Attributes:
        num_values: how many values there are.
        brackets: by rank, from 1, the bracket that holds it; the quartiles' ranks are always among them.
    """

    num_values: int
    brackets: Mapping[int, Bracket]

    @classmethod
    def begin(cls, counts: Counts, probabilities: tuple[float, ...], floor: int, is_whole: bool) -> Search:
        """From a first histogram over `FIRST_EDGES`, shape (num_first_bins,). No search under `floor` values."""
        num_values = int(counts.sum())
        if num_values < max(floor, 1):
            return cls(num_values, {})
        everything = Bracket(
            low=float(FIRST_EDGES[0]),
            high=float(FIRST_EDGES[-1]),
            num_below=0,
            num_inside=num_values,
            is_whole=is_whole,
        )
        ranks = {rank for p in (*probabilities, 0.25, 0.75) for rank in neighbours(num_values, p)[:2]}
        return cls(num_values, {rank: everything.narrowed(rank, FIRST_EDGES, counts, floor) for rank in sorted(ranks)})

    @property
    def spread(self) -> float:
        """A lower bound of the interquartile range, as far as the brackets tell."""
        lower, upper = (neighbours(self.num_values, p)[0] for p in (0.25, 0.75))
        return max(0.0, self.brackets[upper].low - self.brackets[lower].high)

    def open_brackets(self, tolerance: float) -> Iterator[Bracket]:
        """Brackets that are to be narrowed further, each once."""
        if self.brackets:
            enough = tolerance * self.spread
            for bracket in dict.fromkeys(self.brackets.values()):
                is_enough = bracket.width <= enough and not bracket.is_whole  # whole numbers: to the unit
                if not (bracket.is_settled or bracket.is_single or is_enough):
                    yield bracket

    def narrowed(self, found: Mapping[Bracket, tuple[Floats, Counts]], floor: int) -> Search:
        """The search after a histogram (edges, counts) of each of some brackets."""
        return Search(
            self.num_values,
            {
                rank: bracket.narrowed(rank, *found[bracket], floor) if bracket in found else bracket
                for rank, bracket in self.brackets.items()
            },
        )

    def quantile(self, probability: float) -> tuple[float | None, float | None]:
        """The sample quantile and its error bound; None where too few people have a value."""
        if not self.brackets:
            return None, None
        lower, upper, fraction = neighbours(self.num_values, probability)
        (left, left_bound), (right, right_bound) = (self.brackets[rank].locate(rank) for rank in (lower, upper))
        value = _between(left, right, fraction)
        bound = (1.0 - fraction) * left_bound + fraction * right_bound
        # The pooled quantile is itself rounded; where nothing is rounded the bound stays 0.
        is_rounded = left != right or bound > 0
        return value, bound + 8.0 * math.ulp(max(abs(left), abs(right))) * is_rounded


def neighbours(num_values: int, probability: float) -> tuple[int, int, float]:
    """Ranks, from 1, between which a quantile lies, and how far it is from the first to the second.

    Type 7 of Hyndman and Fan (1996), which numpy calls "linear": at `1 + (num_values - 1) * probability`.
    """
    position = (num_values - 1) * probability
    lower = math.floor(position)
    fraction = position - lower
    return lower + 1, min(lower + 1 + (fraction > 0), num_values), fraction


def _between(left: float, right: float, fraction: float) -> float:
    # From the nearer end, so that equal ends give exactly themselves and fraction 1 gives exactly the right one.
    step = (right - left) * (fraction if fraction < 0.5 else 1.0 - fraction)
    return left + step if fraction < 0.5 else right - step
