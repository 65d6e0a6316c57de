"""Table 1 from sums alone: who is in the study, by group, and how the groups differ.

Categories take one ask (counts of levels). Numbers take one ask for counts and magnitudes, two for means and
spreads (`moments`), and a few for quantiles (`quantiles`); all variables and groups go in the same asks, in parts of
bounded size where there are very many.

The result hides small counts, and what would give them back, in every form (`protected_description`). The coordinator
has received the totals as they are: a count of one over all sites is known there.

References:
    Chan, Golub, LeVeque (1983), The American Statistician 37(3): sums of squares without cancellation.
    Welford (1962), Technometrics 4(3): the same, one value at a time.
    Hyndman, Fan (1996), The American Statistician 50(4): sample quantiles (type 7 here).
    Yang, Dalton (2012), SAS Global Forum, paper 335: standardised differences of categories.
    Pollard, Johnson, Raffa, Mark (2018), tableone, JAMIA Open 1(1): what Table 1 should hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.brackets import FIRST_EDGES
from wardround.analytics.description import ColumnSummary, DescribeResult, Difference, LevelCount, VariableSummary
from wardround.analytics.group_tests import compare_levels, compare_means, level_difference, mean_difference
from wardround.analytics.grouping import count_codes, group_codes, level_codes, named_levels
from wardround.analytics.moments import Moments, moments
from wardround.analytics.protected_description import protected, tells_of_few
from wardround.analytics.quantiles import (
    COUNTS_PER_ASK,
    DEFAULT_TOLERANCE,
    Magnitudes,
    Quantile,
    check_precision,
    check_probabilities,
    check_sizes,
    in_chunks,
    magnitudes,
    refine,
)
from wardround.analytics.steady_sites import with_steady_sites
from wardround.data.contract import Contract, Setting, Variable
from wardround.data.table import Table
from wardround.errors import ConfigError
from wardround.privacy.disclosure import DisclosureRules
from wardround.sums import Contribution, Steps, ask, people, site_function, workflow

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


class LevelCounts(Contribution):
    """How many records have each level, and how many have none, by group."""

    num_at_level: Counts = people("num_levels", "num_groups")
    num_missing: Counts = people("num_variables", "num_groups", cells="none")
    num_records: Counts = people("num_groups")
    num_ungrouped: int = people(cells="none")


def _level_symbols(
    variables: tuple[str, ...], num_levels: tuple[int, ...], by: str | None, num_groups: int
) -> dict[str, float]:
    return {"num_levels": sum(num_levels), "num_variables": len(variables), "num_groups": num_groups}


@site_function("describe.level_counts", version=1, symbols=_level_symbols)
def level_counts(
    data: Table, variables: tuple[str, ...], num_levels: tuple[int, ...], by: str | None, num_groups: int
) -> LevelCounts:
    """Counts of levels by group, with the counts of missing values.

    Args:
        data: this site's table.
        variables: names of categories, booleans and integers of short range.
        num_levels: how many levels each has.
        by: grouping variable; None: all records are in one group.
        num_groups: its number of levels, 1 without one.

    Raises:
        DataError: this site's contract has other levels than the coordinator's.
    """
    codes = group_codes(data, by, num_groups)
    num_records = count_codes(codes, num_groups)
    at_level: list[Counts] = [np.zeros((0, num_groups), np.int64)]
    for name, expected in zip(variables, num_levels, strict=True):
        levels = level_codes(data, name, expected)
        # One code for each pair of level and group.
        pairs = np.where((codes < 0) | (levels < 0), -1, levels * np.int64(num_groups) + codes)
        at_level.append(count_codes(pairs, expected * num_groups).reshape(expected, num_groups))
    num_present = np.array([counts.sum(axis=0) for counts in at_level[1:]]).reshape(len(variables), num_groups)
    return LevelCounts(
        num_at_level=np.concatenate(at_level),
        num_missing=num_records - num_present,
        num_records=num_records,
        num_ungrouped=int(np.count_nonzero(codes < 0)),
    )


@dataclass(frozen=True, slots=True)
class _Sizes:
    """How many records there are, as each ask of an attempt tells."""

    by_group: Counts
    num_ungrouped: int
    sites: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be described, checked."""

    variables: tuple[Variable, ...]
    levels: Mapping[str, tuple[str, ...]]
    by: str | None
    groups: tuple[str, ...]
    probabilities: tuple[float, ...]
    rules: DisclosureRules
    tolerance: float

    @property
    def num_groups(self) -> int:
        return max(1, len(self.groups))

    @property
    def columns(self) -> tuple[str | None, ...]:
        return (None, *self.groups)


@workflow("describe", version=1)
def describe(
    setting: Setting,
    variables: tuple[str, ...] | None = None,
    by: str | None = None,
    categorical: tuple[str, ...] = (),
    quantiles: tuple[float, ...] = (0.25, 0.5, 0.75),
    minimum_cell: int = 1,
    tolerance: float = DEFAULT_TOLERANCE,
) -> Steps[DescribeResult]:
    """Table 1: counts, missing values, means, spreads, quantiles and levels, by group, with tests and differences.

    Args:
        setting: contract and sites.
        variables: what to describe; None: all of the contract but text, the patient column and `by`.
        by: category, boolean or integer of short range to group by; records whose group is missing are left out
            and counted.
        categorical: integers of short range (codes) whose values are to be counted like a category's levels.
        quantiles: of numbers, each in (0, 1).
        minimum_cell: least count that is shown, and fewest people a bracket around a quantile may hold, where that is
            more than the disclosure rules ask for.
        tolerance: width at which a quantile is precise enough, as a part of the interquartile range.

    Returns:
        The table. Numbers are compared by Welch's t-test (two groups) or one-way analysis of variance, categories
        by the chi-square test, or Fisher's exact one where a two by two table expects fewer than 5 in a cell.

    Raises:
        ConfigError: an unknown or unsuitable variable, or an option out of range.
        DataError: a value is infinite, or 2^64 or more in size.
        QuorumError: the sites came and went in every attempt.

    Guarantees:
        equals_pooled: the numbers are those of the pooled table, whatever the split of the records among sites:
            counts and quantiles to the last bit, means and spreads up to rounding.
    """
    check_probabilities(quantiles, "describe.quantiles")
    check_precision(minimum_cell, tolerance, "describe")
    described = _described(setting.contract, variables, by)
    plan = _Plan(
        variables=described,
        levels=_levels(setting.contract, described, categorical),
        by=by,
        groups=() if by is None else named_levels(setting.contract, by, "describe.by"),
        probabilities=quantiles,
        rules=replace(setting.disclosure, minimum_cell=max(minimum_cell, setting.disclosure.minimum_cell)),
        tolerance=tolerance,
    )
    return (yield from with_steady_sites(lambda: _attempt(plan), len(setting.sites)))


def _described(contract: Contract, names: tuple[str, ...] | None, by: str | None) -> tuple[Variable, ...]:
    if names is None:
        left_out = (contract.patient, by)
        found = tuple(v for v in contract.variables if v.type != "text" and v.name not in left_out)
    else:
        found = tuple(contract.variable(name, "describe.variables") for name in dict.fromkeys(names))
    for variable in found:
        if variable.type == "text":
            raise ConfigError(f"describe.variables: {variable.name!r} is text, which is not analysed; leave it out")
        if variable.name == by:
            raise ConfigError(
                f"describe.variables: {by!r} is what the table is grouped by; leave it out of one of them"
            )
    if not found:
        raise ConfigError("describe.variables: there is no variable to describe; name one that is not text")
    return found


def _levels(
    contract: Contract, variables: tuple[Variable, ...], categorical: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """Levels of those variables that are counted rather than averaged."""
    names = [variable.name for variable in variables]
    for name in categorical:
        contract.variable(name, "describe.categorical")
        if name not in names:
            raise ConfigError(f"describe.categorical: {name!r} is not among the variables described; add or drop it")
    counted = {*categorical, *(variable.name for variable in variables if not variable.is_numeric)}
    return {name: named_levels(contract, name, "describe.categorical") for name in names if name in counted}


def _attempt(plan: _Plan) -> Steps[DescribeResult]:
    numbers = tuple(variable for variable in plan.variables if variable.name not in plan.levels)
    categories = tuple(variable for variable in plan.variables if variable.name in plan.levels)
    found: dict[str, VariableSummary] = {}
    lone: dict[str, tuple[bool, ...]] = {}
    sizes = _Sizes(np.zeros(plan.num_groups, np.int64), 0, ())
    for chunk in _category_chunks(plan, categories):
        sizes = yield from _describe_categories(plan, chunk, found)
    for part in in_chunks(numbers, len(plan.groups)):
        sizes = yield from _describe_numbers(plan, part, found, lone)
    exact = DescribeResult(
        by=plan.by,
        groups=plan.groups,
        num_by_group=tuple(sizes.by_group.tolist()) if plan.groups else (),
        num_records=int(sizes.by_group.sum()),
        num_ungrouped=sizes.num_ungrouped,
        sites=sizes.sites,
        variables=tuple(found[variable.name] for variable in plan.variables),
        minimum_cell=plan.rules.minimum_cell,
    )
    return protected(exact, plan.rules, lone)


def _category_chunks(plan: _Plan, variables: tuple[Variable, ...]) -> Iterator[tuple[Variable, ...]]:
    chunk: list[Variable] = []
    num_counts = 0
    for variable in variables:
        size = len(plan.levels[variable.name]) * plan.num_groups
        if chunk and num_counts + size > COUNTS_PER_ASK:
            yield tuple(chunk)
            chunk, num_counts = [], 0
        chunk.append(variable)
        num_counts += size
    if chunk:
        yield tuple(chunk)


def _describe_categories(
    plan: _Plan, variables: tuple[Variable, ...], found: dict[str, VariableSummary]
) -> Steps[_Sizes]:
    names = tuple(variable.name for variable in variables)
    num_levels = tuple(len(plan.levels[name]) for name in names)
    total = yield from ask(level_counts, names, num_levels, plan.by, plan.num_groups)
    by_variable = np.split(total.sum.num_at_level, np.cumsum(num_levels)[:-1])
    for variable, counts, missing in zip(variables, by_variable, total.sum.num_missing, strict=True):
        found[variable.name] = _category_summary(plan, variable, counts, missing)
    return _Sizes(total.sum.num_records, total.sum.num_ungrouped, total.sites)


def _category_summary(plan: _Plan, variable: Variable, counts: Counts, missing: Counts) -> VariableSummary:
    """From counts by level and group, shape (num_levels, num_groups), and of the missing, (num_groups,)."""
    columns = [
        ColumnSummary(
            group=group,
            num_records=int(at_level.sum() + num_missing),
            num_missing=int(num_missing),
            levels=tuple(map(LevelCount, plan.levels[variable.name], at_level.tolist())),
        )
        for group, at_level, num_missing in zip(
            plan.columns, [counts.sum(axis=1), *counts.T], [missing.sum(), *missing], strict=False
        )
    ]
    return VariableSummary(
        variable=variable.name,
        type=variable.type,
        unit=variable.unit,
        columns=tuple(columns),
        test=compare_levels(plan.groups, counts) if plan.groups else None,
        differences=tuple(
            Difference(groups=(plan.groups[i], plan.groups[j]), value=level_difference(counts[:, [i, j]]))
            for i, j in combinations(range(len(plan.groups)), 2)
        ),
    )


def _describe_numbers(
    plan: _Plan,
    variables: tuple[Variable, ...],
    found: dict[str, VariableSummary],
    lone: dict[str, tuple[bool, ...]],
) -> Steps[_Sizes]:
    names = tuple(variable.name for variable in variables)
    first = yield from ask(magnitudes, names, plan.by, plan.num_groups)
    check_sizes(names, first.sum)
    count, scales = first.sum.num_values.sum(axis=2), _scales(first.sum)
    by_group = yield from moments(names, count, scales, plan.by, plan.num_groups)
    quantiles = yield from refine(
        names, first.sum, plan.probabilities, plan.by, floor=plan.rules.minimum_cell, tolerance=plan.tolerance
    )
    everybody = by_group.with_everybody()
    missing = np.hstack([first.sum.num_missing.sum(axis=1, keepdims=True), first.sum.num_missing])
    for row, variable in enumerate(variables):
        found[variable.name] = _number_summary(plan, variable, everybody, missing[row], quantiles[row], row)
        lone[variable.name] = _tell_of_few(plan, first.sum, row)
    return _Sizes(first.sum.num_records, first.sum.num_ungrouped, first.sites)


def _tell_of_few(plan: _Plan, first: Magnitudes, row: int) -> tuple[bool, ...]:
    """Of everybody and each group, whether a number's mean would be a small count in disguise."""
    by_group = first.num_values[row]
    is_whole = not first.num_fractional[row].any()
    columns = [by_group.sum(axis=0), *(by_group if plan.groups else ())]
    return tuple(tells_of_few(counts, is_whole, plan.rules.minimum_cell) for counts in columns)


def _scales(first: Magnitudes) -> Floats:
    """For each variable the power of two that no value exceeds in size, shape (num_variables,)."""
    bounds = np.maximum(np.abs(FIRST_EDGES[:-1]), np.abs(FIRST_EDGES[1:]))
    is_used = first.num_values.any(axis=1)
    largest: Floats = np.where(is_used, bounds, 0.0).max(axis=1)
    return np.where(largest >= np.ldexp(1.0, -64), largest, 1.0)  # only zeros, or no values at all


def _number_summary(
    plan: _Plan,
    variable: Variable,
    moments_: Moments,
    missing: Counts,
    quantiles: tuple[tuple[Quantile, ...], ...],
    row: int,
) -> VariableSummary:
    count, mean, deviation = moments_.count[row], moments_.mean[row], moments_.standard_deviation[row]
    offset = moments_.offset[row]  # differences of means lose nothing to a large common part
    columns = [
        ColumnSummary(
            group=group,
            num_records=int(count[column] + missing[column]),
            num_missing=int(missing[column]),
            mean=float(mean[column]) if count[column] else None,
            sd=float(deviation[column]) if count[column] > 1 else None,
            quantiles=quantiles[column],
        )
        for column, group in enumerate(plan.columns)
    ]
    return VariableSummary(
        variable=variable.name,
        type=variable.type,
        unit=variable.unit,
        columns=tuple(columns),
        test=compare_means(plan.groups, count[1:], offset[1:], moments_.square_sum[row, 1:]) if plan.groups else None,
        differences=tuple(
            Difference(
                groups=(plan.groups[i], plan.groups[j]),
                value=mean_difference(offset[[1 + i, 1 + j]], deviation[[1 + i, 1 + j]]),
            )
            for i, j in combinations(range(len(plan.groups)), 2)
        ),
    )
