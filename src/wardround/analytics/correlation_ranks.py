"""Ranks from counts: the grid of bins on which each variable's midranks are known, and sums of products of them.

A variable with few levels has a bin a level, and its ranks are exact. For others, bins are split until each holds as
few records as the disclosure floor, or one number only, or a two-thousandth of the records; the ranks within a bin are
then unknown, and taken as their mean. How far a rank correlation may be off by this follows from the bins' sizes
(`RankPair.bound`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.brackets import FIRST_EDGES, Bracket, bin_edges
from wardround.analytics.grouping import count_codes, level_codes, levels_of
from wardround.analytics.quantiles import bracket_counts, check_sizes, magnitudes
from wardround.data.contract import Contract
from wardround.data.table import Table
from wardround.errors import DataError
from wardround.sums import Array, Contribution, Steps, ask, exact, people, site_function

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

MOST_BINS = 2_000
"""Bins of equal size that a grid would have where there are very many records."""
SPLIT = 32
"""Parts that a bin is split into by one ask."""
MAX_ROUNDS = 14
"""Rounds of splitting; 2^-70 of the first bins' width is less than floats can tell apart."""
COUNTS_PER_ASK = 2**20
"""Largest number of counts that one ask on pairs returns, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankGrid:
    """The bins of some variables.

    Attributes:
        variables: their names.
        num_levels: of variables with few levels; 0 for others.
        highs: by variable, the upper ends of the bins that hold values (for levels: their numbers), ascending.
        is_exact: by variable and bin, whether all values in it are equal.
    """

    variables: tuple[str, ...]
    num_levels: tuple[int, ...]
    highs: tuple[Floats, ...]
    is_exact: tuple[NDArray[np.bool_], ...]

    @property
    def num_bins(self) -> tuple[int, ...]:
        """By variable, how many bins."""
        return tuple(len(highs) for highs in self.highs)

    @property
    def ends(self) -> Floats:
        """All variables' upper ends, one after the other."""
        return np.concatenate(self.highs)


def rank_grid(contract: Contract, variables: tuple[str, ...], floor: int) -> Steps[RankGrid]:
    """Find the bins of numeric variables by splitting those that hold many records.

    Args:
        contract: of the sites.
        variables: names of variables with levels, or numeric ones.
        floor: bins of so few records are not split.
    """
    levels = {name: levels_of(contract.variable(name)) for name in variables}
    numeric = tuple(name for name in variables if levels[name] is None)
    bins: dict[str, list[Bracket]] = {}
    if numeric:
        first = (yield from ask(magnitudes, numeric, None, 1)).sum
        check_sizes(numeric, first)
        for row, name in enumerate(numeric):
            counts = first.num_values[row, 0]
            bins[name] = _filled(FIRST_EDGES, counts, is_whole=not first.num_fractional[row, 0])
        for _ in range(MAX_ROUNDS):
            wanted = [(row, b) for row, name in enumerate(numeric) for b in _too_large(bins[name], floor)]
            if not wanted:
                break
            bins = yield from _split(numeric, bins, wanted)
    num_levels = tuple(len(levels[name] or ()) for name in variables)
    sizes = dict(zip(variables, num_levels, strict=True))
    return RankGrid(
        variables=variables,
        num_levels=num_levels,
        highs=tuple(
            np.array([b.high for b in bins[name]]) if name in bins else np.arange(float(sizes[name]))
            for name in variables
        ),
        is_exact=tuple(
            np.array([b.is_single for b in bins[name]], bool) if name in bins else np.ones(sizes[name], bool)
            for name in variables
        ),
    )


def _filled(edges: Floats, counts: Counts, *, is_whole: bool) -> list[Bracket]:
    """The bins that hold values."""
    return [
        Bracket(
            low=float(edges[j]), high=float(edges[j + 1]), num_below=0, num_inside=int(counts[j]), is_whole=is_whole
        )
        for j in np.flatnonzero(counts)
    ]


def _too_large(bins: list[Bracket], floor: int) -> Iterator[Bracket]:
    most = max(floor, sum(b.num_inside for b in bins) // MOST_BINS, 1)
    return (b for b in bins if b.num_inside > most and not b.is_single)


def _split(
    variables: tuple[str, ...], bins: dict[str, list[Bracket]], wanted: list[tuple[int, Bracket]]
) -> Steps[dict[str, list[Bracket]]]:
    total = yield from ask(
        bracket_counts,
        variables,
        None,
        1,
        np.array([row for row, _ in wanted], np.float64),
        np.zeros(len(wanted)),
        np.array([b.low for _, b in wanted]),
        np.array([b.high for _, b in wanted]),
        np.array([b.is_whole for _, b in wanted], np.float64),
        SPLIT,
    )
    parts: dict[tuple[int, Bracket], list[Bracket]] = {
        (row, b): _filled(bin_edges(b.low, b.high, SPLIT, b.is_whole), counts, is_whole=b.is_whole)
        for (row, b), counts in zip(wanted, total.sum.num_values, strict=True)
    }
    return {name: [part for b in bins[name] for part in parts.get((row, b), [b])] for row, name in enumerate(variables)}


class PairCounts(Contribution):
    """For each pair of variables, how many records are in each bin of the first and of the second, both known."""

    num_records: Counts = people("num_counts", cells="none")


class PairSums(Contribution):
    """For each pair of variables, the sum of the products of their scores."""

    cross: Array = exact("num_pairs")


class PairTables(Contribution):
    """For each pair of variables, how many records have each pair of levels."""

    num_records: Counts = people("num_cells")


def _count_sizes(num_bins: tuple[int, ...], first: Array, second: Array, **_: Any) -> dict[str, float]:
    return {"num_counts": sum(num_bins[int(i)] + num_bins[int(j)] for i, j in zip(first, second, strict=True))}


def bin_positions(
    data: Table, variables: tuple[str, ...], num_levels: tuple[int, ...], ends: Floats, num_bins: tuple[int, ...]
) -> list[NDArray[np.integer]]:
    """By variable, the bin of each record, -1 where missing; shape (num_records,) each."""
    if not len(variables) == len(num_levels) == len(num_bins) or sum(num_bins) != len(ends):
        raise DataError("ends must hold num_bins upper ends for each variable")
    found: list[NDArray[np.integer]] = []
    for name, levels, highs in zip(variables, num_levels, np.split(ends, np.cumsum(num_bins)[:-1]), strict=True):
        if levels:
            found.append(level_codes(data, name, levels))
            continue
        values = data.numbers(name)
        places = np.minimum(np.searchsorted(highs, values, side="left"), len(highs) - 1)
        found.append(np.where(np.isnan(values), -1, places))
    return found


def _known_pairs(
    positions: list[NDArray[np.integer]], first: Floats, second: Floats, complete_only: bool
) -> Iterator[tuple[NDArray[np.integer], NDArray[np.integer]]]:
    """By pair, the bins of the records in which both (or all) variables are known."""
    is_complete = np.all([place >= 0 for place in positions], axis=0)
    for i, j in zip(first.astype(int), second.astype(int), strict=True):
        if not 0 <= min(i, j) <= max(i, j) < len(positions):
            raise DataError("first and second must be numbers of variables")
        one, other = positions[i], positions[j]
        is_known = is_complete if complete_only else (one >= 0) & (other >= 0)
        yield one[is_known], other[is_known]


@site_function("correlation.pair_counts", version=1, symbols=_count_sizes)
def pair_counts(
    data: Table,
    variables: tuple[str, ...],
    num_levels: tuple[int, ...],
    ends: Array,
    num_bins: tuple[int, ...],
    first: Array,
    second: Array,
    complete_only: bool,
) -> PairCounts:
    """How many records are in each bin, for pairs of variables, where both are known.

    Args:
        data: this site's table.
        variables: names of variables.
        num_levels: by variable, how many levels it has; 0: it is cut into bins.
        ends: the bins' upper ends, one variable after the other.
        num_bins: by variable, how many bins.
        first: index of each pair's first variable, shape (num_pairs,).
        second: index of its second one, same shape.
        complete_only: whether all variables must be known.
    """
    positions = bin_positions(data, variables, num_levels, ends, num_bins)
    parts = [np.zeros(0, np.int64)]
    pairs = zip(first.astype(int), second.astype(int), strict=True)
    for (i, j), places in zip(pairs, _known_pairs(positions, first, second, complete_only), strict=True):
        parts += [count_codes(place, num_bins[k]) for k, place in zip((i, j), places, strict=True)]
    return PairCounts(num_records=np.concatenate(parts))


@site_function("correlation.rank_products", version=1, symbols=lambda first, **_: {"num_pairs": len(first)})
def rank_products(
    data: Table,
    variables: tuple[str, ...],
    num_levels: tuple[int, ...],
    ends: Array,
    num_bins: tuple[int, ...],
    first: Array,
    second: Array,
    scores: Array,
    complete_only: bool,
) -> PairSums:
    """Sums of products of the bins' scores, for pairs of variables, where both are known.

    Args:
        data: this site's table.
        variables: names of variables.
        num_levels: by variable, how many levels it has; 0: it is cut into bins.
        ends: the bins' upper ends, one variable after the other.
        num_bins: by variable, how many bins.
        first: index of each pair's first variable, shape (num_pairs,).
        second: index of its second one, same shape.
        scores: pair by pair, the scores of the first variable's bins and of the second's.
        complete_only: whether all variables must be known.
    """
    positions = bin_positions(data, variables, num_levels, ends, num_bins)
    cross, place = np.zeros(len(first)), 0
    indices = np.column_stack([first, second]).astype(int)
    for number, (one, other) in enumerate(_known_pairs(positions, first, second, complete_only)):
        i, j = indices[number]
        mine = scores[place : place + num_bins[i]]
        others = scores[place + num_bins[i] : place + num_bins[i] + num_bins[j]]
        place += num_bins[i] + num_bins[j]
        cross[number] = mine[one] @ others[other]
    return PairSums(cross=cross)


def _cells(num_levels: tuple[int, ...], first: Array, second: Array, **_: Any) -> dict[str, float]:
    return {"num_cells": sum(num_levels[int(i)] * num_levels[int(j)] for i, j in zip(first, second, strict=True))}


@site_function("correlation.pair_tables", version=1, symbols=_cells)
def pair_tables(
    data: Table,
    variables: tuple[str, ...],
    num_levels: tuple[int, ...],
    first: Array,
    second: Array,
    complete_only: bool,
) -> PairTables:
    """Tables of two variables' levels each, one after the other, by rows.

    Args:
        data: this site's table.
        variables: names of variables with levels.
        num_levels: how many each has.
        first: index of the variable in each table's rows, shape (num_pairs,).
        second: index of the one in its columns, same shape.
        complete_only: whether all variables must be known.
    """
    positions = bin_positions(data, variables, num_levels, np.zeros(sum(num_levels)), num_levels)
    parts = [np.zeros(0, np.int64)]
    pairs = zip(first.astype(int), second.astype(int), strict=True)
    for (i, j), (one, other) in zip(pairs, _known_pairs(positions, first, second, complete_only), strict=True):
        size = num_levels[i] * num_levels[j]
        parts.append(count_codes(one.astype(np.int64) * num_levels[j] + other, size))
    return PairTables(num_records=np.concatenate(parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPair:
    """Midranks of two variables over the records in which both are known.

    Attributes:
        num_records: these records.
        scores: midranks less their mean, as parts of the number of records, by bin; of each variable.
        norms: sums of squares of these scores.
        unknown: most that the sums of squares of the true ranks can exceed these by.
    """

    num_records: int
    scores: tuple[Floats, Floats]
    norms: tuple[float, float]
    unknown: tuple[float, float]

    @classmethod
    def of(cls, counts: tuple[Counts, Counts], is_exact: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> RankPair:
        """From the counts of each variable's bins, and whether all values in a bin are equal."""
        size = int(counts[0].sum())
        first, second = (_midranks(c, size) for c in counts)
        return cls(
            num_records=size,
            scores=(first, second),
            norms=(float(counts[0] @ first**2), float(counts[1] @ second**2)),
            unknown=(_unknown(counts[0], is_exact[0], size), _unknown(counts[1], is_exact[1], size)),
        )

    def correlation(self, cross: float) -> float | None:
        """From the sum of the products of the scores; None where a variable is constant."""
        size = np.sqrt(self.norms[0] * self.norms[1])
        return float(np.clip(cross / size, -1, 1)) if size > 0 else None

    def bound(self, cross: float) -> float:
        """How far the correlation of the true ranks may be from that of the bins' mean ranks.

        A true rank is its bin's mean rank and a rest; the rests of a bin add up to 0. The products with a rest are
        bounded by Cauchy and Schwarz, and the true sums of squares lie between `norms` and `norms + unknown`.

        Guarantees:
            bound_holds: no ranks that fit the counts have a correlation farther away.
        """
        (first, second), (rest, other) = self.norms, self.unknown
        if not rest and not other:
            return 0.0
        size = np.sqrt(first * second)
        if not size:
            return 2.0
        slack = np.sqrt(first * other) + np.sqrt(second * rest) + np.sqrt(rest * other)
        shrinkage = 1 - size / np.sqrt((first + rest) * (second + other))
        return float(min(slack / size + abs(cross) / size * shrinkage, 2.0))


def _midranks(counts: Counts, size: int) -> Floats:
    midranks: Floats = (np.cumsum(counts) - counts / 2 - size / 2) / max(size, 1)
    return midranks


def _unknown(counts: Counts, is_exact: NDArray[np.bool_], size: int) -> float:
    """Sum of squares of the ranks within bins of unequal values: of m records, `(m^3 - m) / 12`."""
    open_bins = counts[~is_exact].astype(np.float64)
    return float(((open_bins**3 - open_bins) / 12).sum()) / max(size, 1) ** 2
