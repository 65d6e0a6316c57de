"""Correlations of every two variables, from sums: Pearson's, Spearman's, Kendall's tau-b, and partial ones.

Pearson's follow from sums of products of the standardised values (`correlation_sums.py`). Spearman's are Pearson's of
the ranks, which counts in bins tell (`correlation_ranks.py`): exactly for variables with few levels, whole numbers and
values that many share, else with a bound. Kendall's are taken from the table of the two variables' levels.

References:
    Fisher (1921), On the probable error of a coefficient of correlation, Metron 1: intervals.
    Bonett, Wright (2000), Sample size requirements for estimating Pearson, Kendall and Spearman correlations,
    Psychometrika 65: intervals for the rank correlations.
    Kendall (1970), Rank Correlation Methods, 4th ed.: tau-b and its variance with ties.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.correlation_ranks import (
    COUNTS_PER_ASK,
    RankGrid,
    RankPair,
    pair_counts,
    pair_tables,
    rank_grid,
    rank_products,
)
from wardround.analytics.correlation_result import CorrelationResult, Method, Missing, Pair
from wardround.analytics.correlation_sums import (
    Standardisation,
    check_complete,
    check_confidence,
    check_distinct,
    checked_variables,
    covariance,
    pair_products,
    products,
    spreads,
    standardisation,
)
from wardround.analytics.families import two_sided_p, two_sided_quantile
from wardround.analytics.grouping import levels_of, named_levels
from wardround.analytics.linear import solve_symmetric
from wardround.analytics.lone_variables import refuse_lone_variables
from wardround.analytics.steady_sites import with_steady_sites
from wardround.data.contract import Setting
from wardround.errors import ConfigError, RankDeficiencyError
from wardround.sums import Steps, ask, workflow

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

CONSTANT_WITHIN = 1e-12
"""Part of a pair's sum of squares about the overall mean that must be left about its own for the pair to vary."""
_FEWEST_FOR_TAU = 5
# Records that the interval around Kendall's tau-b needs.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Raw:
    """A correlation before anything is hidden: number of records, value, error bound, z statistic (Kendall's)."""

    num_records: int
    value: float | None
    bound: float = 0.0
    z: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """The correlations of all pairs in order, and what they are of."""

    pairs: tuple[_Raw, ...]
    num_records: int
    num_complete: int
    sites: tuple[str, ...]


@workflow("correlation", version=1)
def correlation(
    setting: Setting,
    variables: tuple[str, ...] | None = None,
    method: Method = "pearson",
    missing: Missing = "pairwise",
    partial: tuple[str, ...] = (),
    confidence: float = 0.95,
) -> Steps[CorrelationResult]:
    """Correlations of every two variables with intervals and tests, equal to those of the pooled records.

    Args:
        setting: contract, sites and disclosure rules.
        variables: numbers, integers, dates or booleans (rank correlations: also categories, in the order of their
            levels); None: all numbers and integers of the contract.
        method: "pearson"; "spearman"; or "kendall" (tau-b), for variables with few levels.
        missing: which records a correlation is of: those in which its two variables are known ("pairwise"), or
            those in which all are ("listwise").
        partial: variables to hold constant (Pearson's, with `missing = "listwise"`): correlations of what is left of
            the others after a linear regression on these.
        confidence: of the intervals.

    Returns:
        The correlations; None where a variable is constant in the records, or these are too few to be shown.

    Raises:
        ConfigError: an unknown or unsuitable variable, or an option out of range, before anything is asked.
        DataError: no complete record ("listwise").
        DisclosureError: fewer complete records than may be shown ("listwise").
        RankDeficiencyError: a variable is a combination of those held constant, or these of each other.
        QuorumError: the sites came and went in every attempt.

    Guarantees:
        equals_pooled: Pearson's, Kendall's, and Spearman's of variables with levels are those of the pooled records,
            up to rounding.
        bound_holds: other correlations of Spearman are within the stated bound of those of the pooled records.
        small_pairs_are_hidden: nothing is told of two variables that fewer than `minimum_cell` records have both of.
    """
    names = _checked(setting, variables, method, missing, partial)
    check_confidence(confidence, "correlation")

    def attempt() -> Steps[CorrelationResult]:
        found = yield from _found(setting, names, method, missing, partial)
        return _result(setting, names, found, (method, missing, partial), confidence)

    return (yield from with_steady_sites(attempt, len(setting.sites)))


def _checked(
    setting: Setting, variables: tuple[str, ...] | None, method: Method, missing: Missing, partial: tuple[str, ...]
) -> tuple[str, ...]:
    contract, where = setting.contract, "correlation.variables"
    if method == "pearson" or variables is None:
        names = checked_variables(contract, variables, where, 2)
    else:
        names = variables
        check_distinct(names, where, 2)
    for name in names:
        variable = contract.variable(name, where)
        if method == "kendall":
            named_levels(contract, name, "correlation.variables (kendall)")
        elif variable.type == "text":
            raise ConfigError(f"{where}: {name!r} is text, which is not analysed; leave it out")
    if partial:
        checked_variables(contract, partial, "correlation.partial", 1)
        if method != "pearson" or missing != "listwise":
            raise ConfigError('correlation.partial: give method = "pearson" and missing = "listwise" with it')
        if set(partial) & set(names):
            both = sorted(set(partial) & set(names))[0]
            raise ConfigError(f"correlation.partial: {both!r} is also among the variables; leave it out of one of them")
    return names


def _found(
    setting: Setting, names: tuple[str, ...], method: Method, missing: Missing, partial: tuple[str, ...]
) -> Steps[_Found]:
    is_listwise = missing == "listwise"
    yield from refuse_lone_variables((*names, *partial), setting.disclosure.minimum_cell, "correlation")
    if method == "pearson":
        found = yield from standardisation((*names, *partial), is_listwise)
        if is_listwise:
            check_complete(setting, found, "correlation")
            pairs = yield from _listwise(found, len(names))
        else:
            pairs = yield from _pairwise(found)
        return _Found(pairs=pairs, num_records=found.num_records, num_complete=found.num_complete, sites=found.sites)
    pairs, sites = yield from _by_ranks(setting, names, is_listwise, method)
    return _Found(pairs=pairs, num_records=0, num_complete=pairs[0].num_records if is_listwise else 0, sites=sites)


def _listwise(found: Standardisation, num_variables: int) -> Steps[tuple[_Raw, ...]]:
    """Of the complete records; variables from `num_variables` on are held constant."""
    _, covariances = yield from covariance(found)
    constant = found.is_constant | (np.diag(covariances) <= 0)
    if num_variables < len(covariances):
        covariances = _residual(found, covariances, num_variables)
    spread = np.sqrt(np.diag(covariances))
    return tuple(
        _Raw(
            num_records=found.num_complete,
            value=None if constant[[i, j]].any() else _clipped(covariances[i, j] / (spread[i] * spread[j])),
        )
        for i, j in combinations(range(num_variables), 2)
    )


def _residual(found: Standardisation, covariances: Floats, num_variables: int) -> Floats:
    """Covariances of what is left after regression on the last variables."""
    # Columns of one size, so that what counts as a combination does not depend on the units.
    size = np.sqrt(np.where(np.diag(covariances) > 0, np.diag(covariances), 1.0))
    correlations = covariances / np.outer(size, size)
    held, across = correlations[num_variables:, num_variables:], correlations[num_variables:, :num_variables]
    if np.linalg.eigvalsh(held)[0] <= CONSTANT_WITHIN:
        names = ", ".join(found.variables[num_variables:][:10])
        raise RankDeficiencyError(f"correlation.partial: {names}: constant, or combinations of each other; name fewer")
    left: Floats = correlations[:num_variables, :num_variables] - across.T @ solve_symmetric(held, across)
    is_gone = (np.diag(left) <= 1e-10) & ~found.is_constant[:num_variables]
    if is_gone.any():
        name = found.variables[int(is_gone.argmax())]
        raise RankDeficiencyError(f"correlation: {name!r} is a combination of those held constant; leave it out")
    return left


def _clipped(value: float) -> float:
    return float(min(max(value, -1.0), 1.0))


def _pairwise(found: Standardisation) -> Steps[tuple[_Raw, ...]]:
    """Of the records in which both variables are known."""
    total = (yield from ask(pair_products, found.variables, found.center, found.scale)).sum
    count = np.maximum(total.num_pairs, 1)
    squares = total.squares - total.sums**2 / count
    varies = (squares > CONSTANT_WITHIN * total.squares) & ~found.is_constant[:, None] & (total.num_pairs > 1)
    cross = total.cross - total.sums * total.sums.T / count
    with np.errstate(divide="ignore", invalid="ignore"):
        values = cross / np.sqrt(squares * squares.T)
    return tuple(
        _Raw(
            num_records=int(total.num_pairs[i, j]),
            value=_clipped(values[i, j]) if varies[i, j] and varies[j, i] else None,
        )
        for i, j in combinations(range(len(values)), 2)
    )


def _by_ranks(
    setting: Setting, names: tuple[str, ...], is_listwise: bool, method: Method
) -> Steps[tuple[tuple[_Raw, ...], tuple[str, ...]]]:
    raw: list[_Raw] = []
    sites: tuple[str, ...] = ()
    if method == "kendall":
        num_levels = tuple(len(levels_of(setting.contract.variable(name)) or ()) for name in names)
        sizes = {pair: num_levels[pair[0]] * num_levels[pair[1]] for pair in combinations(range(len(names)), 2)}
        for pairs in _chunks(sizes):
            first, second = np.array(pairs, np.float64).T
            total = yield from ask(pair_tables, names, num_levels, first, second, is_listwise)
            tables = np.split(total.sum.num_records, np.cumsum([sizes[pair] for pair in pairs])[:-1])
            shapes = [(num_levels[i], num_levels[j]) for i, j in pairs]
            raw += [_kendall(cells.reshape(shape)) for cells, shape in zip(tables, shapes, strict=True)]
            sites = total.sites
        return tuple(raw), sites
    grid = yield from rank_grid(setting.contract, names, setting.disclosure.minimum_cell)
    sizes = {(i, j): grid.num_bins[i] + grid.num_bins[j] for i, j in combinations(range(len(names)), 2)}
    for pairs in _chunks(sizes):
        found, sites = yield from _spearman(grid, pairs, is_listwise)
        raw += found
    return tuple(raw), sites


def _chunks(sizes: dict[tuple[int, int], int]) -> Iterator[list[tuple[int, int]]]:
    """Pairs in parts whose counts one ask returns."""
    chunk: list[tuple[int, int]] = []
    for pair in sizes:
        if chunk and sum(sizes[other] for other in chunk) + sizes[pair] > COUNTS_PER_ASK:
            yield chunk
            chunk = []
        chunk.append(pair)
    yield chunk


def _spearman(
    grid: RankGrid, pairs: list[tuple[int, int]], is_listwise: bool
) -> Steps[tuple[list[_Raw], tuple[str, ...]]]:
    first, second = np.array(pairs, np.float64).T
    bins = grid.variables, grid.num_levels, grid.ends, grid.num_bins
    counted = yield from ask(pair_counts, *bins, first, second, is_listwise)
    sizes = [size for i, j in pairs for size in (grid.num_bins[i], grid.num_bins[j])]
    parts = np.split(counted.sum.num_records, np.cumsum(sizes)[:-1])
    ranked = [
        RankPair.of((mine, others), (grid.is_exact[i], grid.is_exact[j]))
        for (i, j), mine, others in zip(pairs, parts[::2], parts[1::2], strict=True)
    ]
    scores = np.concatenate([score for pair in ranked for score in pair.scores])
    total = yield from ask(rank_products, *bins, first, second, scores, is_listwise)
    raw = [
        _Raw(num_records=pair.num_records, value=pair.correlation(cross), bound=pair.bound(cross))
        for pair, cross in zip(ranked, total.sum.cross.tolist(), strict=True)
    ]
    return raw, total.sites


def _kendall(table: Counts) -> _Raw:
    """Tau-b of a table of ordered levels, and its z statistic where there is no association (Kendall 1970)."""
    size = int(table.sum())
    exact = table.astype(object)  # whole numbers of any size
    rows, columns = exact.sum(axis=1), exact.sum(axis=0)
    pairs = size * (size - 1) // 2
    tied_rows = sum(int(n) * (int(n) - 1) // 2 for n in rows)
    tied_columns = sum(int(n) * (int(n) - 1) // 2 for n in columns)
    if pairs in (tied_rows, tied_columns):
        return _Raw(num_records=size, value=None)
    later = np.zeros((table.shape[0] + 1, table.shape[1] + 1), object)
    later[:-1, :-1] = exact[::-1, ::-1].cumsum(axis=0).cumsum(axis=1)[::-1, ::-1]
    earlier = np.zeros_like(later)  # rows further down, columns further left
    earlier[:-1, 1:] = exact[::-1].cumsum(axis=0).cumsum(axis=1)[::-1]
    score = int((exact * (later[1:, 1:] - earlier[1:, :-1])).sum())
    tau = score / math.sqrt((pairs - tied_rows) * (pairs - tied_columns))
    return _Raw(num_records=size, value=_clipped(tau), z=score / math.sqrt(_score_variance(size, rows, columns)))


def _score_variance(size: int, rows: NDArray[np.object_], columns: NDArray[np.object_]) -> float:
    """Variance of concordant less discordant pairs with these ties, if all arrangements are equally likely."""

    def ties(counts: NDArray[np.object_]) -> tuple[int, int, int]:
        whole = [int(n) for n in counts]
        return (
            sum(n * (n - 1) * (2 * n + 5) for n in whole),
            sum(n * (n - 1) for n in whole),
            sum(n * (n - 1) * (n - 2) for n in whole),
        )

    (weight_x, pairs_x, triples_x), (weight_y, pairs_y, triples_y) = ties(rows), ties(columns)
    variance = (size * (size - 1) * (2 * size + 5) - weight_x - weight_y) / 18
    variance += pairs_x * pairs_y / (2 * size * (size - 1))
    return variance + (triples_x * triples_y / (9 * size * (size - 1) * (size - 2)) if size > 2 else 0.0)


def _result(
    setting: Setting,
    names: tuple[str, ...],
    found: _Found,
    options: tuple[Method, Missing, tuple[str, ...]],
    confidence: float,
) -> CorrelationResult:
    method, missing, partial = options
    places = combinations(names, 2)
    pairs = tuple(
        _pair(setting, place, raw, method, len(partial), confidence)
        for place, raw in zip(places, found.pairs, strict=True)
    )
    is_listwise = missing == "listwise"
    is_counted = is_listwise and method == "pearson"
    return CorrelationResult(
        variables=names,
        method=method,
        missing=missing,
        partial=partial,
        pairs=pairs,
        num_records=setting.disclosure.shown(found.num_complete) if is_listwise else None,
        num_left_out=setting.disclosure.shown(found.num_records - found.num_complete) if is_counted else None,
        minimum_cell=setting.disclosure.minimum_cell,
        confidence=confidence,
        sites=found.sites,
    )


def _pair(
    setting: Setting, names: tuple[str, str], raw: _Raw, method: Method, num_held: int, confidence: float
) -> Pair:
    if setting.disclosure.is_small(raw.num_records):
        return Pair(first=names[0], second=names[1], num_records=None)
    shown = setting.disclosure.shown(raw.num_records)
    if raw.value is None:
        return Pair(first=names[0], second=names[1], num_records=shown)
    low, high = _interval(raw, method, num_held, confidence)
    return Pair(
        first=names[0],
        second=names[1],
        num_records=shown,
        value=raw.value,
        low=low,
        high=high,
        p_value=_p_value(raw, num_held),
        bound=raw.bound,
    )


def _p_value(raw: _Raw, num_held: int) -> float | None:
    """Of no association: t with the pairs' degrees of freedom, or the normal one of Kendall's score."""
    assert raw.value is not None
    if raw.z is not None:
        return two_sided_p(raw.z, None)
    degrees = raw.num_records - 2 - num_held
    if degrees < 1:
        return None
    left = (1 - raw.value) * (1 + raw.value)
    return two_sided_p(raw.value * math.sqrt(degrees / left), degrees) if left > 0 else 0.0


def _interval(raw: _Raw, method: Method, num_held: int, confidence: float) -> tuple[float | None, float | None]:
    """On Fisher's scale; of rank correlations with the variances of Bonett and Wright (2000)."""
    assert raw.value is not None
    count = raw.num_records - num_held
    if count <= 3 or (method == "kendall" and count < _FEWEST_FOR_TAU):
        return None, None
    if abs(raw.value) == 1:
        return raw.value, raw.value
    variance = {
        "pearson": 1 / (count - 3),
        "spearman": (1 + raw.value**2 / 2) / (count - 3),
        "kendall": 0.437 / (count - 4) if count > 4 else math.inf,
    }[method]
    reach = two_sided_quantile(confidence, None) * math.sqrt(variance)
    place = math.atanh(raw.value)
    return math.tanh(place - reach), math.tanh(place + reach)


# A module's vocabulary is what it names: the workflow with the site functions that it asks for.
__all__ = ["correlation", "pair_counts", "pair_products", "pair_tables", "products", "rank_products", "spreads"]
