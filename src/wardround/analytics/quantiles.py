"""Quantiles from sums: histograms over brackets that close in on the order statistics.

One ask counts, for all variables and groups at once, the values between consecutive powers of two. Each
following ask divides every bracket that holds a wanted order statistic into equal bins and keeps the bin that
holds it. A bracket is narrow enough when it is a small part of the interquartile range, when it has room for
one number only (where all values are whole numbers, that is one unit, and nothing wider will do), or when it would
hold fewer people than the disclosure floor. The value is interpolated in the bracket by rank.

Only counts of people leave a site, so the answer does not depend on how the records are split among sites,
to the last bit. What is *not* promised: the coordinator sees the histograms themselves, small counts included.

References:
    Hyndman, Fan (1996), Sample quantiles in statistical packages, The American Statistician 50(4), type 7.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from wardround.analytics.brackets import (
    FIRST_EDGES,
    LARGEST_EXPONENT,
    NUM_FIRST_BINS,
    Bracket,
    Counts,
    Search,
    bin_edges,
    count_in_bins,
)
from wardround.analytics.grouping import group_codes, named_levels, present_by_group
from wardround.analytics.result import Exhibit, json_text, json_value
from wardround.analytics.small_cells import hidden_cells, hidden_sizes
from wardround.analytics.steady_sites import with_steady_sites
from wardround.data.contract import Contract, Setting
from wardround.data.table import Table
from wardround.errors import ConfigError, DataError
from wardround.privacy.disclosure import DEFAULT_MINIMUM_CELL, is_small
from wardround.sums import Array, Contribution, Steps, Total, ask, people, site_function, workflow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")

DEFAULT_TOLERANCE = 1e-6
"""Width at which a bracket is narrow enough, as a part of the interquartile range."""
DEFAULT_NUM_BINS = 128
"""Bins a bracket is divided into by one ask: seven binary digits a round."""
MAX_ROUNDS = 24
"""Rounds after which brackets are taken as they are; the bound says how wide (enough for 2^-128 of the range)."""
COUNTS_PER_ASK = 2**20
"""Largest number of counts one ask returns, about (8 MiB); more variables go in several asks."""
_EXPECTED_BRACKETS = 6


class Magnitudes(Contribution):
    """Who has a value, and of what size, by variable and group."""

    num_values: Counts = people("num_variables", "num_groups", NUM_FIRST_BINS, cells="sums")
    num_fractional: Counts = people("num_variables", "num_groups", cells="none")
    num_missing: Counts = people("num_variables", "num_groups", cells="none")
    num_records: Counts = people("num_groups")
    num_ungrouped: int = people(cells="none")


class BracketCounts(Contribution):
    """How many values lie in each bin of each bracket."""

    num_values: Counts = people("num_brackets", "num_bins", cells="none")


def _magnitude_symbols(variables: tuple[str, ...], by: str | None, num_groups: int) -> dict[str, float]:
    return {"num_variables": len(variables), "num_groups": num_groups}


@site_function("quantiles.magnitudes", version=1, symbols=_magnitude_symbols)
def magnitudes(data: Table, variables: tuple[str, ...], by: str | None, num_groups: int) -> Magnitudes:
    """Counts of numeric values between consecutive powers of two, by group, with the counts of missing values.

    Args:
        data: this site's table.
        variables: names of numeric variables.
        by: grouping variable; None: all records are in one group.
        num_groups: its number of levels, 1 without one.
    """
    codes = group_codes(data, by, num_groups)
    num_records = np.bincount(codes[codes >= 0], minlength=num_groups).astype(np.int64)
    shape = (len(variables), num_groups)
    num_values = np.zeros((*shape, NUM_FIRST_BINS), np.int64)
    num_fractional, num_present = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, name in enumerate(variables):
        for group, values in enumerate(present_by_group(data.numbers(name), codes, num_groups)):
            num_present[row, group] = len(values)
            num_values[row, group] = count_in_bins(values, FIRST_EDGES)
            num_fractional[row, group] = np.count_nonzero(values != np.floor(values))
    return Magnitudes(
        num_values=num_values,
        num_fractional=num_fractional,
        num_missing=num_records - num_present,
        num_records=num_records,
        num_ungrouped=int(np.count_nonzero(codes < 0)),
    )


def _bracket_symbols(
    variables: tuple[str, ...],
    by: str | None,
    num_groups: int,
    rows: Array,
    columns: Array,
    lows: Array,
    highs: Array,
    whole: Array,
    num_bins: int,
) -> dict[str, float]:
    return {"num_brackets": len(rows), "num_bins": num_bins}


@site_function("quantiles.bracket_counts", version=1, symbols=_bracket_symbols)
def bracket_counts(
    data: Table,
    variables: tuple[str, ...],
    by: str | None,
    num_groups: int,
    rows: Array,
    columns: Array,
    lows: Array,
    highs: Array,
    whole: Array,
    num_bins: int,
) -> BracketCounts:
    """Counts of numeric values in equal bins of given brackets, of everybody or of one group.

    Args:
        data: this site's table.
        variables: names of numeric variables.
        by: grouping variable; None: all records are in one group.
        num_groups: its number of levels, 1 without one.
        rows: index into `variables` of each bracket, ascending, shape (num_brackets,).
        columns: 0 for everybody, else 1 + the group, shape (num_brackets,).
        lows: lower ends (outside the brackets), shape (num_brackets,).
        highs: upper ends (inside), shape (num_brackets,).
        whole: 1 where bins begin and end at whole numbers, else 0, shape (num_brackets,).
        num_bins: bins a bracket.
    """
    codes = group_codes(data, by, num_groups)
    counts = np.zeros((len(rows), num_bins), np.int64)
    for row in np.unique(rows):
        groups = list(present_by_group(data.numbers(variables[int(row)]), codes, num_groups))
        by_column = [np.concatenate(groups) if len(groups) != 1 else groups[0], *groups]
        for index in np.flatnonzero(rows == row):
            edges = bin_edges(float(lows[index]), float(highs[index]), num_bins, bool(whole[index]))
            counts[index] = count_in_bins(by_column[int(columns[index])], edges)
    return BracketCounts(num_values=counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantile:
    """A sample quantile with its error bound.

    Attributes:
        probability: in (0, 1).
        value: in the variable's unit (dates: days since 1970-01-01); None where fewer people than the floor
            have a value.
        bound: the pooled sample's quantile is at most this far from `value`.
    """

    probability: float
    value: float | None
    bound: float | None


def check_probabilities(probabilities: tuple[float, ...], where: str) -> None:
    """Raises `ConfigError` unless all are in (0, 1): the least and greatest value are one person's each."""
    for probability in probabilities:
        if not 0 < probability < 1:
            raise ConfigError(
                f"{where}: {probability:g} is not between 0 and 1 (minimum and maximum are single persons' values)"
            )


def numeric_variables(contract: Contract, names: tuple[str, ...] | None, where: str) -> tuple[str, ...]:
    """The named variables, or all numeric ones. Raises `ConfigError` for one that is not numeric, or none."""
    if names is None:
        names = tuple(v.name for v in contract.variables if v.is_numeric and v.name != contract.patient)
    if not names:
        raise ConfigError(
            f"{where}: no numeric variable to describe; the contract lists {', '.join(contract.names[:20])}"
        )
    for name in names:
        if not contract.variable(name, where).is_numeric:
            raise ConfigError(f"{where}: {name!r} is a {contract.variable(name).type}, which has no quantiles")
    return names


def in_chunks(items: tuple[T, ...], num_groups: int, num_bins: int = DEFAULT_NUM_BINS) -> Iterator[tuple[T, ...]]:
    """Variables in parts such that no ask on one part returns many more than `COUNTS_PER_ASK` counts."""
    size = max(1, COUNTS_PER_ASK // (_EXPECTED_BRACKETS * num_bins * (num_groups + 1)))
    for start in range(0, len(items), size):
        yield items[start : start + size]


def check_sizes(variables: tuple[str, ...], total: Magnitudes) -> None:
    """Raises `DataError` if a value is infinite or too large to be counted between powers of two."""
    is_short = total.num_values.sum(axis=2) + total.num_missing != total.num_records
    for row in np.flatnonzero(is_short.any(axis=1)):
        raise DataError(
            f"variable {variables[row]!r} has values of 2^{LARGEST_EXPONENT} (1.8e19) or more; "
            "declare its range or its missing codes in the contract, or express it in a larger unit"
        )


def refine(
    variables: tuple[str, ...],
    first: Magnitudes,
    probabilities: tuple[float, ...],
    by: str | None = None,
    *,
    floor: int = DEFAULT_MINIMUM_CELL,
    tolerance: float = DEFAULT_TOLERANCE,
    num_bins: int = DEFAULT_NUM_BINS,
) -> Steps[tuple[tuple[tuple[Quantile, ...], ...], ...]]:
    """Quantiles of numeric variables after the `magnitudes` ask, for use in other workflows.

    Args:
        variables: names of numeric variables.
        first: total of `magnitudes` of these variables.
        probabilities: which quantiles.
        by: the grouping variable that `magnitudes` was asked with.
        floor: fewest people a bracket may hold.
        tolerance: width at which a bracket is narrow enough, as a part of the interquartile range.
        num_bins: bins that one ask divides a bracket into.

    Returns:
        Quantiles by variable and column: everybody, then (with a grouping variable) the groups.

    Raises:
        DataError: a value is infinite, or 2^64 or more in size.

    Guarantees:
        within_bound: each quantile differs from numpy's "linear" quantile of the pooled values by at most its bound.
        brackets_hold_the_floor: no bracket that is narrowed to holds fewer people than `floor`.
    """
    check_sizes(variables, first)
    counts = first.num_values
    is_whole = first.num_fractional.sum(axis=1) == 0
    columns = counts if by is None else np.concatenate([counts.sum(axis=1, keepdims=True), counts], axis=1)
    searches = {
        (row, column): Search.begin(columns[row, column], probabilities, floor, bool(is_whole[row]))
        for row in range(columns.shape[0])
        for column in range(columns.shape[1])
    }
    for _ in range(MAX_ROUNDS):
        wanted = [(*cell, bracket) for cell, search in searches.items() for bracket in search.open_brackets(tolerance)]
        if not wanted:
            break
        total = yield from _ask_counts(variables, by, counts.shape[1], wanted, num_bins)
        found: dict[tuple[int, int], dict[Bracket, Any]] = {}
        for (row, column, bracket), inside in zip(wanted, total.sum.num_values, strict=True):
            edges = bin_edges(bracket.low, bracket.high, num_bins, bracket.is_whole)
            found.setdefault((row, column), {})[bracket] = (edges, inside)
        searches |= {cell: searches[cell].narrowed(brackets, floor) for cell, brackets in found.items()}
    return tuple(
        tuple(_quantiles(searches[row, column], probabilities) for column in range(columns.shape[1]))
        for row in range(columns.shape[0])
    )


def _ask_counts(
    variables: tuple[str, ...], by: str | None, num_groups: int, wanted: list[tuple[int, int, Bracket]], num_bins: int
) -> Any:
    rows, columns, brackets = zip(*wanted, strict=True)
    return ask(
        bracket_counts,
        variables,
        by,
        num_groups,
        np.array(rows, np.float64),
        np.array(columns, np.float64),
        np.array([bracket.low for bracket in brackets]),
        np.array([bracket.high for bracket in brackets]),
        np.array([bracket.is_whole for bracket in brackets], np.float64),
        num_bins,
    )


def _quantiles(search: Search, probabilities: tuple[float, ...]) -> tuple[Quantile, ...]:
    found = ((p, *search.quantile(p)) for p in probabilities)
    return tuple(Quantile(probability=p, value=value, bound=bound) for p, value, bound in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableQuantiles:
    """One variable's quantiles in one column.

    Attributes:
        variable: its name.
        unit: its unit, as the contract has it.
        group: level of the grouping variable; None for everybody.
        num_values: records with a value; None where that is hidden.
        quantiles: in the order they were asked for.
    """

    variable: str
    unit: str | None
    group: str | None
    num_values: int | None
    quantiles: tuple[Quantile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantilesResult:
    """Quantiles of numeric variables with their error bounds.

    Attributes:
        by: the grouping variable.
        rows: by variable, everybody first, then the groups.
        num_records: records in the analysis; None where that is hidden.
        sites: the sites in every total.
    """

    by: str | None
    rows: tuple[VariableQuantiles, ...]
    num_records: int | None
    sites: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """How to read the quantiles."""
        return ("From counts in brackets: the pooled sample's quantile is within the stated bound.",)

    def summary(self) -> str:
        """The quantiles as an aligned text table."""
        num_records = "few" if self.num_records is None else self.num_records
        head = f"Quantiles of {num_records} records at {len(self.sites)} sites"
        return f"{head}\n\n{self.to_frame().to_string(float_format='{:.6g}'.format, na_rep='')}\n"

    def to_frame(self) -> pd.DataFrame:
        """A row a variable, group and probability: num_values, value, bound."""
        index = ["variable", "group", "probability"]
        records = [
            (row.variable, row.group or "everybody", q.probability, row.num_values, q.value, q.bound)
            for row in self.rows
            for q in row.quantiles
        ]
        frame = pd.DataFrame(records, columns=[*index, "num_values", "value", "bound"])
        return frame.astype({"num_values": "Int64", "value": float, "bound": float}).set_index(index)

    def to_dict(self) -> dict[str, Any]:
        """Keys: by, rows (variable, unit, group (None: everybody), num_values, quantiles), num_records, sites."""
        rows = [
            {
                "variable": row.variable,
                "unit": row.unit,
                "group": row.group,
                "num_values": row.num_values,
                "quantiles": [quantile_dict(quantile) for quantile in row.quantiles],
            }
            for row in self.rows
        ]
        whole = {"by": self.by, "rows": rows, "num_records": self.num_records, "sites": self.sites}
        return dict(json_value(whole))

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict())

    def plot(self) -> Figure:
        """Quantiles of each variable and group, in units of the median's size, with their bounds."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 1.2 + 0.3 * len(self.rows)), layout="constrained")
        axes = figure.add_subplot()
        labels = [row.variable if row.group is None else f"{row.variable}, {row.group}" for row in self.rows]
        for height, row in enumerate(self.rows):
            known = [(q.value, q.bound) for q in row.quantiles if q.value is not None]
            scale = max((abs(value) for value, _ in known), default=1.0) or 1.0
            values, bounds = [value / scale for value, _ in known], [(bound or 0.0) / scale for _, bound in known]
            axes.errorbar(values, [height] * len(known), xerr=bounds, fmt="o-", color="C0", markersize=4, capsize=2)
        axes.set_yticks(range(len(labels)), labels)
        axes.invert_yaxis()
        axes.set_xlabel("quantile / largest quantile of the row")
        return figure

    def methods(self) -> str:
        """How the quantiles were found, as a methods section says it."""
        from wardround.analytics.quantiles_exhibits import quantiles_methods

        return quantiles_methods(self)

    @property
    def references(self) -> tuple[str, ...]:
        """The papers behind them."""
        from wardround.analytics.quantiles_exhibits import QUANTILES_REFERENCES

        return QUANTILES_REFERENCES

    def exhibits(self) -> tuple[Exhibit, ...]:
        """The quantiles, one row a variable and group, and the figure."""
        from wardround.analytics.quantiles_exhibits import quantiles_exhibits

        return quantiles_exhibits(self)


def quantile_dict(quantile: Quantile) -> dict[str, Any]:
    """A quantile as JSON values."""
    return {"probability": quantile.probability, "value": quantile.value, "bound": quantile.bound}


@workflow("quantiles", version=1)
def quantiles(
    setting: Setting,
    variables: tuple[str, ...] | None = None,
    by: str | None = None,
    probabilities: tuple[float, ...] = (0.25, 0.5, 0.75),
    minimum_cell: int = DEFAULT_MINIMUM_CELL,
    tolerance: float = DEFAULT_TOLERANCE,
) -> Steps[QuantilesResult]:
    """Quantiles of numeric variables, of everybody and by group, from counts alone.

    Args:
        setting: contract and sites.
        variables: numeric variables; None: all of the contract.
        by: category, boolean or integer of short range to group by; records without a group are left out.
        probabilities: which quantiles, each in (0, 1).
        minimum_cell: fewest people that a bracket around a quantile may hold, where that is more than the disclosure
            rules ask for.
        tolerance: width at which a bracket is narrow enough, as a part of the interquartile range.

    Raises:
        ConfigError: an unknown or unsuitable variable, or an option out of range.
        DataError: a value is infinite, or 2^64 or more in size.
        QuorumError: the sites came and went in every attempt.
    """
    names = numeric_variables(setting.contract, variables, "quantiles.variables")
    check_probabilities(probabilities, "quantiles.probabilities")
    check_precision(minimum_cell, tolerance, "quantiles")
    groups = () if by is None else named_levels(setting.contract, by, "quantiles.by")
    rules = setting.disclosure
    floor = max(minimum_cell, rules.minimum_cell)

    def attempt() -> Steps[QuantilesResult]:
        rows: list[VariableQuantiles] = []
        num_records, sites = 0, setting.sites
        for chunk in in_chunks(names, len(groups)):
            first: Total[Magnitudes] = yield from ask(magnitudes, chunk, by, max(1, len(groups)))
            num_records, sites = int(first.sum.num_records.sum()), first.sites
            found = yield from refine(chunk, first.sum, probabilities, by, floor=floor, tolerance=tolerance)
            rows += _rows(setting, chunk, groups, first.sum, found)
        return QuantilesResult(by=by, rows=tuple(rows), num_records=rules.shown(num_records), sites=sites)

    return (yield from with_steady_sites(attempt, len(setting.sites)))


def check_precision(minimum_cell: int, tolerance: float, where: str) -> None:
    """Raises `ConfigError` for a floor below 1 or a tolerance that is not in [0, 1]."""
    if minimum_cell < 1:
        raise ConfigError(f"{where}.minimum_cell: must be at least 1, got {minimum_cell}")
    if not 0 <= tolerance <= 1:
        raise ConfigError(f"{where}.tolerance: must be in [0, 1], got {tolerance:g}")


def _rows(
    setting: Setting,
    variables: tuple[str, ...],
    groups: tuple[str, ...],
    first: Magnitudes,
    found: tuple[tuple[tuple[Quantile, ...], ...], ...],
) -> Iterator[VariableQuantiles]:
    rules = setting.disclosure
    sizes = first.num_records
    is_few = is_small(int(sizes.sum()), rules.minimum_cell)
    sizes_hidden = np.full(len(sizes), is_few) if is_few or not groups else hidden_sizes(sizes, rules.minimum_cell)
    for row, name in enumerate(variables):
        by_group = first.num_values[row].sum(axis=1)
        # How many have a value tells how many have none.
        hidden = hidden_cells(np.stack([by_group, first.num_missing[row]]), sizes_hidden, rules.minimum_cell)[0]
        counts = [int(by_group.sum()), *by_group.tolist()]
        for group, count, is_hidden, quantiles_ in zip((None, *groups), counts, hidden, found[row], strict=False):
            yield VariableQuantiles(
                variable=name,
                unit=setting.contract.variable(name).unit,
                group=group,
                num_values=None if is_hidden else rules.shown(count),
                quantiles=quantiles_,
            )
