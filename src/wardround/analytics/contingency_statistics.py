"""Tests and measures of association of a table of counts. Asks nothing.

References:
    Agresti (2013), Categorical Data Analysis, 3rd ed., chapters 2 and 3: tests, Cramer's V, odds ratio, risk ratio,
    linear-by-linear association (equation 3.16).
    Newcombe (1998), Interval estimation for the difference between independent proportions, Statistics in Medicine
    17, 873-890: method 10.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy  # its parts are loaded when they are first used: `stats` takes a third of a second
from numpy.typing import NDArray
from scipy import special

from wardround.analytics.families import two_sided_quantile

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

LEAST_EXPECTED = 5.0
"""Least expected count at which the chi-square approximation is taken without a word."""
CHI_SQUARE, LIKELIHOOD_RATIO, TREND, CRAMER = "chi-square", "G", "linear-by-linear trend", "Cramer's V"
TWO_BY_TWO_TESTS = ("chi-square, Yates' correction", "Fisher's exact test")
TWO_BY_TWO_MEASURES = ("odds ratio", "risk ratio", "risk difference")
MAX_VISITED = 20_000
"""Most steps of the search for the tables that fit what is shown."""
MAX_FITTING = 2_000
"""Most tables that fit what is shown for a range over them to be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationTest:
    """A test of no association between rows and columns.

    Attributes:
        name: which.
        statistic: chi-square; None for Fisher's exact test, and where it is withheld.
        df: degrees of freedom.
        p_value: two-sided; None where it is withheld.
        p_low: where the p-value is withheld, its least value over all tables that fit what is shown.
        p_high: its greatest value.
    """

    name: str
    statistic: float | None
    df: int | None
    p_value: float | None
    p_low: float | None = None
    p_high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A measure of association with its interval; None where it is withheld or infinite, or has none."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None


def occupied(table: Floats) -> Floats:
    """The table without rows and columns that nobody is in."""
    return table[table.any(axis=1)][:, table.any(axis=0)]


def expected_counts(table: Floats) -> Floats:
    """What the margins make one expect without association, same shape."""
    expected: Floats = table.sum(axis=1)[:, None] * table.sum(axis=0) / table.sum()
    return expected


def association_tests(counts: Counts, scores: tuple[Floats, Floats] | None = None) -> tuple[AssociationTest, ...]:
    """Pearson's chi-square, with Yates' correction and Fisher's exact test for two by two, G and a test of trend.

    Args:
        counts: shape (num_rows, num_columns).
        scores: of the rows and of the columns, for the test of trend (linear-by-linear); None: no such test.

    Returns:
        Nothing where fewer than two rows or two columns have anybody.
    """
    table = occupied(counts.astype(np.float64))
    if min(table.shape, default=0) < 2:
        return ()
    expected, df = expected_counts(table), (table.shape[0] - 1) * (table.shape[1] - 1)
    named = [(CHI_SQUARE, float(((table - expected) ** 2 / expected).sum()))]
    is_two_by_two = table.shape == (2, 2)
    if is_two_by_two:
        distance = np.maximum(np.abs(table - expected) - 0.5, 0.0)
        named.append((TWO_BY_TWO_TESTS[0], float((distance**2 / expected).sum())))
    named.append((LIKELIHOOD_RATIO, max(float(2 * special.xlogy(table, table / expected).sum()), 0.0)))
    tests = [_chi_square(name, statistic, df) for name, statistic in named]
    if is_two_by_two:
        p_value = float(scipy.stats.fisher_exact(table.astype(np.int64)).pvalue)
        tests.append(AssociationTest(name=TWO_BY_TWO_TESTS[1], statistic=None, df=None, p_value=min(p_value, 1.0)))
    elif scores is not None:
        tests.append(_chi_square(TREND, _trend(counts.astype(np.float64), *scores), 1))
    return tuple(tests)


def _chi_square(name: str, statistic: float, df: int) -> AssociationTest:
    return AssociationTest(name=name, statistic=statistic, df=df, p_value=float(special.chdtrc(df, statistic)))


def _trend(table: Floats, row_scores: Floats, column_scores: Floats) -> float:
    """(n - 1) times the squared correlation of the scores (Agresti 2013, equation 3.16)."""
    size = table.sum()
    rows = row_scores - table.sum(axis=1) @ row_scores / size
    columns = column_scores - table.sum(axis=0) @ column_scores / size
    squares = (table.sum(axis=1) @ rows**2) * (table.sum(axis=0) @ columns**2)
    return float((size - 1) * (rows @ table @ columns) ** 2 / squares)


def measures(counts: Counts, confidence: float) -> tuple[Measure, ...]:
    """Cramer's V; of two by two tables also odds ratio, risk ratio and risk difference of the second row.

    Args:
        counts: shape (num_rows, num_columns); the second column is what there is a risk of.
        confidence: of the intervals.
    """
    table = counts.astype(np.float64)
    kept = occupied(table)
    if min(kept.shape, default=0) < 2:
        return ()
    chi_square = ((kept - expected_counts(kept)) ** 2 / expected_counts(kept)).sum()
    cramer = math.sqrt(chi_square / (kept.sum() * (min(kept.shape) - 1)))
    found = [Measure(name=CRAMER, value=float(cramer))]
    if table.shape == (2, 2):
        z = two_sided_quantile(confidence, None)
        found += [_odds_ratio(table, z), _risk_ratio(table, z), _risk_difference(table, z)]
    return tuple(found)


def _ratio(name: str, value: float, variance: float, z: float) -> Measure:
    reach = z * math.sqrt(variance)
    return Measure(name=name, value=value, low=value * math.exp(-reach), high=value * math.exp(reach))


def _odds_ratio(table: Floats, z: float) -> Measure:
    (a, b), (c, d) = table
    if not table.all():
        return Measure(name="odds ratio", value=None)
    return _ratio("odds ratio", float(a * d / (b * c)), float((1 / table).sum()), z)


def _risk_ratio(table: Floats, z: float) -> Measure:
    (a, b), (c, d) = table
    if not (b and d):
        return Measure(name="risk ratio", value=None)
    first, second = b / (a + b), d / (c + d)
    variance = float(1 / d - 1 / (c + d) + 1 / b - 1 / (a + b))
    return _ratio("risk ratio", float(second / first), max(variance, 0.0), z)


def _risk_difference(table: Floats, z: float) -> Measure:
    """Interval from Wilson's of the two risks (Newcombe 1998, method 10)."""
    sizes = table.sum(axis=1)
    risks = table[:, 1] / sizes
    lows, highs = zip(*(_wilson(float(p), float(n), z) for p, n in zip(risks, sizes, strict=True)), strict=True)
    value = float(risks[1] - risks[0])
    return Measure(
        name="risk difference",
        value=value,
        low=value - math.hypot(risks[1] - lows[1], highs[0] - risks[0]),
        high=value + math.hypot(highs[1] - risks[1], risks[0] - lows[0]),
    )


def _wilson(share: float, size: float, z: float) -> tuple[float, float]:
    centre = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    reach = z / (1 + z**2 / size) * math.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    return centre - reach, centre + reach


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTable:
    """What is shown of a table: cells, totals of rows and of columns, None where hidden, and the number of records."""

    cells: tuple[tuple[int | None, ...], ...]
    row_totals: tuple[int | None, ...]
    column_totals: tuple[int | None, ...]
    total: int


def tables_that_fit(shown: ShownTable, minimum_cell: int) -> list[Counts] | None:
    """All tables that fit what is shown and have a small count among what is hidden; None if too many to go through.

    What is computed from this list tells nothing that the shown numbers do not.
    """
    unknown = [(i, j) for i, row in enumerate(shown.cells) for j, cell in enumerate(row) if cell is None]
    known = np.array([[cell or 0 for cell in row] for row in shown.cells], np.int64)
    search = _Search(unknown, known, _left(shown.row_totals, known, 1), _left(shown.column_totals, known, 0))
    found = []
    for table in search.complete(0, shown.total - int(known.sum())):
        if _has_small(table, shown, minimum_cell):
            found.append(table)
        if len(found) > MAX_FITTING:
            return None
    return None if search.num_visited > MAX_VISITED else found


def _left(totals: tuple[int | None, ...], known: Counts, axis: int) -> list[int | None]:
    """What is left of the shown totals for the hidden cells."""
    parts = known.sum(axis=axis).tolist()
    return [None if total is None else total - part for total, part in zip(totals, parts, strict=True)]


def _has_small(table: Counts, shown: ShownTable, minimum_cell: int) -> bool:
    hidden = [int(table[i, j]) for i, row in enumerate(shown.cells) for j, cell in enumerate(row) if cell is None]
    hidden += [int(n) for n, total in zip(table.sum(axis=1), shown.row_totals, strict=True) if total is None]
    hidden += [int(n) for n, total in zip(table.sum(axis=0), shown.column_totals, strict=True) if total is None]
    return any(0 < count < minimum_cell for count in hidden)


class _Search:
    """Goes through the values of the hidden cells, one after the other, that the totals leave possible."""

    def __init__(
        self, unknown: list[tuple[int, int]], known: Counts, rows: list[int | None], columns: list[int | None]
    ) -> None:
        self._unknown, self._table = unknown, known.copy()
        self._rows, self._columns = rows, columns
        self._is_last_in_row = [all(i != k for k, _ in unknown[n + 1 :]) for n, (i, _) in enumerate(unknown)]
        self._is_last_in_column = [all(j != k for _, k in unknown[n + 1 :]) for n, (_, j) in enumerate(unknown)]
        self.num_visited = 0

    def complete(self, number: int, left: int) -> Iterator[Counts]:
        """Complete tables, from the hidden cell of this number on; `left` records are not placed yet."""
        self.num_visited += 1
        if number == len(self._unknown):
            if left == 0:
                yield self._table.copy()
            return
        i, j = self._unknown[number]
        for value in self._values(number, left):
            if self.num_visited > MAX_VISITED:
                return
            self._place(i, j, value)
            yield from self.complete(number + 1, left - value)
            self._place(i, j, -value)

    def _values(self, number: int, left: int) -> range:
        i, j = self._unknown[number]
        row, column = self._rows[i], self._columns[j]
        most = min(n for n in (row, column, left) if n is not None)
        lasts = ((row, self._is_last_in_row[number]), (column, self._is_last_in_column[number]))
        forced = {n for n, is_last in lasts if is_last and n is not None}
        if not forced:
            return range(most + 1)
        value = forced.pop()
        return range(value, value + 1) if not forced and 0 <= value <= most else range(0)

    def _place(self, i: int, j: int, value: int) -> None:
        self._table[i, j] += value
        row, column = self._rows[i], self._columns[j]
        self._rows[i] = None if row is None else row - value
        self._columns[j] = None if column is None else column - value


def p_value_ranges(fitting: list[Counts], scores: tuple[Floats, Floats]) -> dict[str, tuple[float, float]]:
    """Least and greatest p-value over these tables, by test."""
    found: dict[str, list[float]] = {}
    for table in fitting:
        for test in association_tests(table, scores):
            found.setdefault(test.name, []).append(float("nan") if test.p_value is None else test.p_value)
    return {name: (min(values), max(values)) for name, values in found.items()}


def withheld_tests(shape: tuple[int, ...], ranges: dict[str, tuple[float, float]]) -> tuple[AssociationTest, ...]:
    """The tests of a table of this shape without their numbers, with the ranges of their p-values."""
    own = TWO_BY_TWO_TESTS if shape == (2, 2) else (TREND,)
    return tuple(
        AssociationTest(
            name=name,
            statistic=None,
            df=None,
            p_value=None,
            p_low=ranges[name][0] if name in ranges else None,
            p_high=ranges[name][1] if name in ranges else None,
        )
        for name in (CHI_SQUARE, LIKELIHOOD_RATIO, *own)
    )


def withheld_measures(shape: tuple[int, ...]) -> tuple[Measure, ...]:
    """The measures of a table of this shape without their numbers."""
    names = (CRAMER, *TWO_BY_TWO_MEASURES) if shape == (2, 2) else (CRAMER,)
    return tuple(Measure(name=name, value=None) for name in names)
