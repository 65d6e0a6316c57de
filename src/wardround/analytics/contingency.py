"""Contingency tables over all sites: counts, tests of association, measures of it, and association within strata.

One ask for the table; where the strata are sites, one or two more for the sums of their own tables' terms.

References:
    Agresti (2013), Categorical Data Analysis, 3rd ed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.contingency_bounds import p_value_bounds
from wardround.analytics.contingency_result import ContingencyResult
from wardround.analytics.contingency_statistics import (
    LEAST_EXPECTED,
    AssociationTest,
    Measure,
    ShownTable,
    association_tests,
    expected_counts,
    measures,
    occupied,
    p_value_ranges,
    tables_that_fit,
    withheld_measures,
    withheld_tests,
)
from wardround.analytics.contingency_strata import (
    ENOUGH_SPLITS,
    StratifiedAssociation,
    StratumSums,
    common_odds_ratio,
    homogeneity_terms,
    num_splits,
    only_class,
    stratified,
    stratum_sums,
)
from wardround.analytics.correlation_sums import check_confidence
from wardround.analytics.grouping import count_codes, level_codes, named_levels
from wardround.analytics.small_cells import hidden_cells, hidden_sizes
from wardround.analytics.steady_sites import with_steady_sites
from wardround.data.contract import Contract, Setting
from wardround.data.table import Table
from wardround.errors import ConfigError, DataError, DisclosureError
from wardround.privacy.disclosure import DisclosureRules
from wardround.sums import Array, Contribution, Steps, ask, exact, people, site_function, workflow

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

MAX_CELLS = 100_000
"""Largest table, strata included (unit: cells)."""
SITES = "site"


class TableCounts(Contribution):
    """Records in each cell, by stratum, and those in which a variable is missing."""

    num_records: Counts = people("num_strata", "num_rows", "num_columns")
    num_left_out: int = people(cells="none")


class SiteTerms(Contribution):
    """Terms of the sites' own tables."""

    deviations: Array = exact("num_free")
    covariance: Array = exact("num_free", "num_free")
    odds: Array = exact(5)
    informative: float = exact()
    small: float = exact()


class SiteHomogeneity(Contribution):
    """Terms of the sites' own tables at a common odds ratio."""

    terms: Array = exact(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableAsk:
    """Which table a site counts.

    Attributes:
        rows: variable in the rows.
        columns: variable in the columns.
        num_levels: how many levels they have.
        strata: variable that parts the records; None: none.
        num_strata: its number of levels, 1 without one.
    """

    rows: str
    columns: str
    num_levels: tuple[int, int]
    strata: str | None = None
    num_strata: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.num_strata * self.num_levels[0] * self.num_levels[1] <= MAX_CELLS or min(self.num_levels) < 1:
            raise ValueError(f"a table has from 1 to {MAX_CELLS} cells")


def _count_sizes(table: TableAsk) -> dict[str, float]:
    return {"num_strata": table.num_strata, "num_rows": table.num_levels[0], "num_columns": table.num_levels[1]}


@site_function("contingency.counts", version=1, symbols=_count_sizes)
def counts(data: Table, table: TableAsk) -> TableCounts:
    """How many records are in each cell.

    Args:
        data: this site's table.
        table: which variables.
    """
    rows, columns = table.num_levels
    place = level_codes(data, table.rows, rows).astype(np.int64)
    column = level_codes(data, table.columns, columns)
    stratum: NDArray[np.integer] = np.zeros(data.num_records, np.int64)
    if table.strata is not None:
        stratum = level_codes(data, table.strata, table.num_strata)
    is_known = (place >= 0) & (column >= 0) & (stratum >= 0)
    codes = np.where(is_known, (stratum * rows + place) * columns + column, -1)
    return TableCounts(
        num_records=count_codes(codes, table.num_strata * rows * columns).reshape(table.num_strata, rows, columns),
        num_left_out=int(np.count_nonzero(~is_known)),
    )


def _own_table(data: Table, table: TableAsk) -> Counts:
    found: Counts = counts.function(data, table=table).num_records[0]
    return found


def _free(table: TableAsk, **_: Any) -> dict[str, float]:
    return {"num_free": (table.num_levels[0] - 1) * (table.num_levels[1] - 1)}


@site_function("contingency.site_terms", version=1, symbols=_free)
def site_terms(data: Table, table: TableAsk, minimum_cell: int) -> SiteTerms:
    """Terms of this site's table in Cochran, Mantel and Haenszel's statistics.

    Args:
        data: this site's table.
        table: which variables, without strata.
        minimum_cell: counts from 1 to this less 1 are small.
    """
    found = stratum_sums(_own_table(data, table), minimum_cell)
    return SiteTerms(
        deviations=found.deviations,
        covariance=found.covariance,
        odds=found.odds,
        informative=found.informative,
        small=found.small,
    )


@site_function("contingency.site_homogeneity", version=1)
def site_homogeneity(data: Table, table: TableAsk, odds_ratio: float) -> SiteHomogeneity:
    """Terms of this site's two by two table in the test that all sites have this odds ratio.

    Args:
        data: this site's table.
        table: which variables, without strata.
        odds_ratio: positive.

    Raises:
        DataError: an odds ratio that is not positive and finite.
    """
    if not 0 < odds_ratio < np.inf:
        raise DataError(f"odds_ratio must be positive and finite, got {odds_ratio}")
    return SiteHomogeneity(terms=homogeneity_terms(_own_table(data, table), odds_ratio))


@workflow("contingency", version=1)
def contingency(
    setting: Setting,
    rows: str,
    columns: str,
    strata: str | None = None,
    confidence: float = 0.95,
) -> Steps[ContingencyResult]:
    """A table of counts of two variables, with tests and measures of their association.

    Args:
        setting: contract, sites and disclosure rules.
        rows: category, boolean or integer of short range: in a two by two table what may be the cause. Its first
            level is what the second one is compared with.
        columns: likewise: in a two by two table the second level is what there is a risk of.
        strata: variable with levels, or "site": association within strata, beside that of the whole table.
        confidence: of the intervals.

    Returns:
        The table. Where the disclosure rules hide cells, tests and measures are withheld, as they would give these
        back; told is then the range of the p-values over all tables that fit what is shown.

    Raises:
        ConfigError: an unknown or unsuitable variable, or an option out of range, before anything is asked.
        DataError: no record has both variables.
        DisclosureError: fewer records than may be shown have both.
        QuorumError: the sites came and went in every attempt.

    Guarantees:
        equals_pooled: counts, tests and measures are those of the pooled records.
        hidden_cells_stay_hidden: nobody who knows this program can tell a hidden small count of a two by two table.
        told_by_what_is_shown: all that is told of a table with hidden cells follows from the numbers shown.
    """
    check_confidence(confidence, "contingency")
    asked, levels = _checked(setting.contract, rows, columns, strata)

    def attempt() -> Steps[ContingencyResult]:
        total = yield from ask(counts, asked)
        tables, rules = total.sum.num_records, setting.disclosure
        pooled = tables.sum(axis=0)
        _check_enough(int(pooled.sum()), rules, rows, columns)
        shown = _shown(pooled, rules)
        is_whole = _is_whole(shown)
        within = None
        if strata is not None:
            within = yield from _within(strata, asked, tables, (is_whole, confidence), rules)
        scores = _scores(setting.contract, rows, levels[0]), _scores(setting.contract, columns, levels[1])
        tests, measures_ = _statistics(pooled, shown, scores, rules, confidence)
        known = occupied(pooled.astype(np.float64))
        return ContingencyResult(
            rows=rows,
            columns=columns,
            row_levels=levels[0],
            column_levels=levels[1],
            counts=tuple(tuple(_rounded(cell, rules) for cell in row) for row in shown.cells),
            row_totals=tuple(_rounded(cell, rules) for cell in shown.row_totals),
            column_totals=tuple(_rounded(cell, rules) for cell in shown.column_totals),
            num_records=rules.shown(int(pooled.sum())),
            num_left_out=rules.shown(total.sum.num_left_out),
            tests=tests,
            measures=measures_,
            has_small_expected=bool((expected_counts(known) < LEAST_EXPECTED).any()) if is_whole else None,
            stratified=within,
            minimum_cell=rules.minimum_cell,
            rounding=rules.rounding,
            confidence=confidence,
            sites=total.sites,
        )

    return (yield from with_steady_sites(attempt, len(setting.sites)))


def _checked(
    contract: Contract, rows: str, columns: str, strata: str | None
) -> tuple[TableAsk, tuple[tuple[str, ...], tuple[str, ...]]]:
    levels = named_levels(contract, rows, "contingency.rows"), named_levels(contract, columns, "contingency.columns")
    by = strata if strata != SITES else None
    num_strata = len(named_levels(contract, by, "contingency.strata")) if by is not None else 1
    if len({rows, columns, by}) < 3:
        raise ConfigError("contingency: rows, columns and strata must be different variables")
    for name, found in zip((rows, columns), levels, strict=True):
        if len(found) < 2:
            raise ConfigError(f"contingency: {name!r} has one level only; name a variable with two or more")
    sizes = len(levels[0]), len(levels[1])
    if num_strata * sizes[0] * sizes[1] > MAX_CELLS:
        raise ConfigError(f"contingency: the table would have over {MAX_CELLS} cells; name variables with fewer levels")
    return TableAsk(rows=rows, columns=columns, num_levels=sizes, strata=by, num_strata=num_strata), levels


def _check_enough(size: int, rules: DisclosureRules, rows: str, columns: str) -> None:
    if not size:
        raise DataError(f"contingency: no record has both {rows!r} and {columns!r} (and the strata)")
    if rules.is_small(size):
        raise DisclosureError("minimum_cell", f"contingency: too few records have both {rows!r} and {columns!r}")


def _shown(table: Counts, rules: DisclosureRules) -> ShownTable:
    """What may be shown of a table with its totals."""
    if table.shape == (2, 2):
        hidden, row_is_hidden, size_is_hidden = _hidden_of_four(table, rules.minimum_cell)
    else:
        size_is_hidden = hidden_sizes(table.sum(axis=0), rules.minimum_cell)
        whole = hidden_cells(table, size_is_hidden, rules.minimum_cell)
        hidden, row_is_hidden = whole[:, 1:], whole[:, 0]

    def cells(values: Counts, mask: NDArray[np.bool_]) -> tuple[int | None, ...]:
        return tuple(None if flag else value for value, flag in zip(values.tolist(), mask.tolist(), strict=True))

    return ShownTable(
        cells=tuple(cells(row, mask) for row, mask in zip(table, hidden, strict=True)),
        row_totals=cells(table.sum(axis=1), row_is_hidden),
        column_totals=cells(table.sum(axis=0), size_is_hidden),
        total=int(table.sum()),
    )


def _hidden_of_four(table: Counts, minimum_cell: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Which cells, row totals and column totals of a two by two table are hidden: of each kind all, or none.

    Which these are depends on the totals alone, so that it tells nothing of the cells, not even to those who know how
    they are chosen. If the totals leave one table only that has small cells, they are hidden, too.
    """

    def is_small(counts: Counts) -> bool:
        return bool(((counts > 0) & (counts < minimum_cell)).any())

    rows, columns = table.sum(axis=1), table.sum(axis=0)
    if not is_small(np.concatenate([table.ravel(), rows, columns])):
        none = np.zeros(2, bool)
        return np.zeros((2, 2), bool), none, none
    low, high = max(0, int(rows[0] - columns[1])), int(min(rows[0], columns[0]))
    # A cell is small only where the first one is near an end of its range.
    firsts = {*range(low, min(low + minimum_cell, high + 1)), *range(max(low, high - minimum_cell + 1), high + 1)}
    fitting = (np.array([a, rows[0] - a, columns[0] - a, columns[1] - rows[0] + a]) for a in firsts)
    is_exposed = len(list(islice(filter(is_small, fitting), 2))) < 2
    row_is_hidden, column_is_hidden = (np.full(2, is_exposed or is_small(sizes)) for sizes in (rows, columns))
    return np.ones((2, 2), bool), row_is_hidden, column_is_hidden


def _is_whole(shown: ShownTable) -> bool:
    everything = [*shown.row_totals, *shown.column_totals, *(cell for row in shown.cells for cell in row)]
    return all(cell is not None for cell in everything)


def _rounded(count: int | None, rules: DisclosureRules) -> int | None:
    return None if count is None else rules.shown(count)


def _scores(contract: Contract, name: str, levels: tuple[str, ...]) -> Floats:
    """Of the levels, for the test of trend: an integer's values, else 0, 1, 2 and so on."""
    is_number = contract.variable(name).type == "integer"
    return np.array([float(level) for level in levels]) if is_number else np.arange(float(len(levels)))


def _statistics(
    table: Counts, shown: ShownTable, scores: tuple[Floats, Floats], rules: DisclosureRules, confidence: float
) -> tuple[tuple[AssociationTest, ...], tuple[Measure, ...]]:
    if rules.rounding > 1:  # what is computed from the exact counts would tell them
        table = np.array([[rules.shown(int(cell)) or 0 for cell in row] for row in table], np.int64)
    if _is_whole(shown):
        return association_tests(table, scores), measures(table, confidence)
    ranges: dict[str, tuple[float, float]] = {}
    if rules.rounding == 1:
        fitting = tables_that_fit(shown, rules.minimum_cell)
        ranges = p_value_bounds(shown) if fitting is None else p_value_ranges(fitting, scores)
    return withheld_tests(table.shape, ranges), withheld_measures(table.shape)


def _within(
    strata: str, table: TableAsk, tables: Counts, told: tuple[bool, float], rules: DisclosureRules
) -> Steps[StratifiedAssociation]:
    """Association within strata.

    Withheld where cells of the whole table are hidden, which it would help to find, and where it would be one site's.
    Where a stratum has small cells, numbers are rounded, or the class of the p-value alone is told, if somebody could
    go through all tables that fit.
    """
    is_whole, confidence = told
    withheld = StratifiedAssociation(strata=strata, informative=None, statistic=None, df=None, p_value=None)
    if not is_whole:
        return withheld
    num_sites = 0
    if strata == SITES:
        total = yield from ask(site_terms, table, rules.minimum_cell)
        num_sites = total.num_sites
        sums = StratumSums(**{name: getattr(total.sum, name) for name in SiteTerms.declarations})
        if sums.informative == 1 and not rules.allows_site_results:
            return withheld
    else:
        parts = [stratum_sums(part, rules.minimum_cell) for part in tables]
        sums = sum(parts[1:], parts[0])
    odds_ratio = common_odds_ratio(sums)
    homogeneity = None
    if odds_ratio is not None and strata == SITES:
        homogeneity = (yield from ask(site_homogeneity, table, odds_ratio)).sum.terms
    elif odds_ratio is not None:
        homogeneity = np.sum([homogeneity_terms(part, odds_ratio) for part in tables], axis=0)
    found = stratified(strata, sums, homogeneity, confidence, is_rounded=sums.small > 0 or rules.rounding > 1)
    num_strata = num_sites if strata == SITES else table.num_strata
    is_exposed = sums.small > 0 and num_splits(tables.sum(axis=0), num_strata) < ENOUGH_SPLITS
    return only_class(found) if is_exposed else found


# A module's vocabulary is what it names: the workflow with the site functions that it asks for.
__all__ = ["contingency", "counts", "site_homogeneity", "site_terms"]
