"""Means of groups compared, from sums: t-tests, analyses of variance, differences of pairs, effect sizes, rank tests.

The first ask counts; sums are then asked for of those groups alone that have as many values as may be shown, so that
nobody's value is the mean of a group. Two asks find means and spreads, a third adds up squares in units of each
variable's own spread; ranks come from counts in bins (`correlation_ranks.py`).

References:
    Student (1908), Biometrika 6; Welch (1947), Biometrika 34; Welch (1951), Biometrika 38.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.compare_means_result import CompareMeansResult, Comparison, GroupMean
from wardround.analytics.compare_means_statistics import (
    Adjustment,
    Difference,
    Groups,
    MeansTest,
    bartlett,
    differences,
    eta_squared,
    exact_test,
    hedges_factor,
    levene,
    main_test,
    rank_test,
)
from wardround.analytics.compare_means_sums import (
    GroupCounts,
    bin_counts,
    group_counts,
    group_sums,
    paired_sums,
)
from wardround.analytics.correlation_ranks import RankGrid, rank_grid
from wardround.analytics.correlation_sums import check_confidence, checked_variables
from wardround.analytics.families import two_sided_p, two_sided_quantile
from wardround.analytics.grouping import named_levels
from wardround.analytics.lone_variables import lone_variables, refuse_lone_variables
from wardround.analytics.preparation import CONSTANT_SPREAD, SMALLEST_SCALE
from wardround.analytics.steady_sites import with_steady_sites
from wardround.data.contract import Setting
from wardround.errors import ConfigError, DataError, DisclosureError
from wardround.sums import Steps, Total, ask, workflow

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The options of `compare_means`, checked."""

    variables: tuple[str, ...]
    by: str
    levels: tuple[str, ...]
    equal_variances: bool
    adjustment: Adjustment
    rank_tests: bool
    confidence: float


@workflow("compare_means", version=1)
def compare_means(
    setting: Setting,
    variables: tuple[str, ...],
    by: str | None = None,
    equal_variances: bool = False,
    adjustment: Adjustment = "holm",
    paired: bool = False,
    rank_tests: bool = False,
    confidence: float = 0.95,
) -> Steps[CompareMeansResult]:
    """Means of numeric variables by group, compared by t-tests or analyses of variance, as in the pooled records.

    Args:
        setting: contract, sites and disclosure rules.
        variables: numbers, integers, dates or booleans; each is compared by itself.
        by: category, boolean or integer of short range whose levels are the groups.
        equal_variances: Student's t-test and the classical analysis of variance instead of Welch's.
        adjustment: of the p-values of pairs: "holm", "bonferroni", "none", or "tukey" (simultaneous intervals, too;
            after Games and Howell where the variances are not taken as equal).
        paired: compare two variables of the same records (a paired t-test) instead of groups.
        rank_tests: whether Mann-Whitney or Kruskal-Wallis tests are made, too.
        confidence: of the intervals.

    Returns:
        The comparisons. Groups with fewer values than may be shown, or that tell of few, are left out, and named.

    Raises:
        ConfigError: an unknown or unsuitable variable, or an option out of range, before anything is asked.
        DataError: a variable spreads less than can be summed; "paired": no record has both variables.
        DisclosureError: "paired": fewer records than may be shown have both.
        QuorumError: the sites came and went in every attempt.

    Guarantees:
        equals_pooled: means, tests, differences and effect sizes are those of the pooled records, up to rounding; rank
            tests of variables with levels likewise.
        rank_bounds_hold: the rank tests of other variables state a range that the pooled records' p-value is in.
        small_groups_are_never_summed: no sum over a group of fewer than `minimum_cell` values is asked for.
        records_are_not_counted_by_other_variables: where a number of missing values is hidden, or values of a group
            are, none of several variables tells the number of all records, from which it would follow.
        means_are_no_counts: a group in which all but fewer than `minimum_cell` values are nearly the same is left out.
    """
    check_confidence(confidence, "compare_means")
    names = checked_variables(setting.contract, variables, "compare_means.variables", 1)
    if paired:
        if by is not None or len(names) != 2:
            raise ConfigError("compare_means.paired: name two variables, and no `by`")
        steps = with_steady_sites(lambda: _paired(setting, names, confidence), len(setting.sites))
        return (yield from steps)
    if by is None:
        raise ConfigError("compare_means.by: name the variable whose levels are compared (or set paired = true)")
    if by in names:
        raise ConfigError(f"compare_means: {by!r} cannot be compared by itself; leave it out of the variables")
    options = _Options(
        variables=names,
        by=by,
        levels=named_levels(setting.contract, by, "compare_means.by"),
        equal_variances=equal_variances,
        adjustment=adjustment,
        rank_tests=rank_tests,
        confidence=confidence,
    )
    return (yield from with_steady_sites(lambda: _attempt(setting, options), len(setting.sites)))


def _attempt(setting: Setting, options: _Options) -> Steps[CompareMeansResult]:
    names, by, num_groups = options.variables, options.by, len(options.levels)
    counted: Total[GroupCounts] = yield from ask(group_counts, names, by, num_groups)
    least = max(setting.disclosure.minimum_cell, 1 if options.equal_variances else 2)
    is_lone = yield from lone_variables(names, setting.disclosure.minimum_cell, by=by, num_groups=num_groups)
    is_open = (counted.sum.num_values >= least) & ~is_lone
    num_missing = _shown_missing(setting, counted.sum.num_missing, is_open)
    grouped = yield from _sums(options, counted.sum, is_open)
    ranked: list[MeansTest | None] = [None] * len(names)
    if options.rank_tests:
        ranked = yield from _rank_tests(setting, options, is_open)
    comparisons = tuple(
        _comparison(setting, options, row, grouped[row], is_open[row], ranked[row], num_missing[row])
        for row in range(len(names))
    )
    return CompareMeansResult(
        by=by,
        is_paired=False,
        equal_variances=options.equal_variances,
        adjustment=options.adjustment,
        comparisons=comparisons,
        num_ungrouped=setting.disclosure.shown(counted.sum.num_ungrouped),
        minimum_cell=setting.disclosure.minimum_cell,
        confidence=options.confidence,
        sites=counted.sites,
    )


def _shown_missing(setting: Setting, num_missing: NDArray[np.int64], is_open: NDArray[np.bool_]) -> list[int | None]:
    """Numbers of missing values; none of several variables where one is hidden, or values of a group are.

    All are of the same records, whose number one of them and the groups' would tell.
    """
    shown = [setting.disclosure.shown(count) for count in num_missing.tolist()]
    is_hidden = setting.disclosure.minimum_cell > 1 and (None in shown or not is_open.all())
    return [None] * len(shown) if len(shown) > 1 and is_hidden else shown


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grouped:
    """One variable's open groups, in its own unit; `distances` are sums of distances from the groups' means."""

    groups: Groups
    origin: float
    distances: Floats


def _sums(options: _Options, counted: GroupCounts, is_open: NDArray[np.bool_]) -> Steps[list[_Grouped]]:
    """Means and sums of squares of the open groups, in three asks."""
    names, by, num_groups = options.variables, options.by, len(options.levels)
    where = names, by, num_groups, is_open.astype(np.float64)
    count = np.maximum(counted.num_values, 1)
    first = (yield from ask(group_sums, *where, np.zeros(is_open.shape), np.ones(len(names)), False)).sum
    about = first.sums / count
    second = (yield from ask(group_sums, *where, about, np.ones(len(names)), False)).sum
    about = about + second.sums / count
    spread = second.distances.sum(axis=1) / np.maximum((counted.num_values * is_open).sum(axis=1), 1)
    is_constant = spread <= CONSTANT_SPREAD * np.abs(about).max(axis=1)
    tiny = [name for name, s, c in zip(names, spread, is_constant, strict=True) if s < SMALLEST_SCALE and not c]
    if tiny:
        raise DataError(f"{', '.join(tiny[:10])}: spreads less than {SMALLEST_SCALE:g}; use a smaller unit")
    scales = np.where(is_constant, 1.0, spread)
    third = (yield from ask(group_sums, *where, about, scales, True)).sum
    found = []
    for row in range(len(names)):
        kept = np.flatnonzero(is_open[row])
        sums, size = third.sums[row, kept], count[row, kept]
        squares = np.maximum(third.squares[row, kept] - sums**2 / size, 0.0) * scales[row] ** 2
        # What is left of a constant after its rounded mean is taken off is rounding error, not spread.
        is_flat = np.sqrt(squares / size) <= CONSTANT_SPREAD * np.abs(about[row, kept])
        origin = float(about[row, kept[0]]) if len(kept) else 0.0
        found.append(
            _Grouped(
                groups=Groups(
                    names=tuple(options.levels[group] for group in kept),
                    count=counted.num_values[row, kept],
                    mean=about[row, kept] - origin + sums / size * scales[row],
                    square_sum=np.where(is_flat, 0.0, squares),
                ),
                origin=origin,
                distances=third.distances[row, kept] * scales[row],
            )
        )
    return found


def _rank_tests(setting: Setting, options: _Options, is_open: NDArray[np.bool_]) -> Steps[list[MeansTest | None]]:
    grid: RankGrid = yield from rank_grid(setting.contract, options.variables, setting.disclosure.minimum_cell)
    total = yield from ask(
        bin_counts,
        options.variables,
        grid.num_levels,
        grid.ends,
        grid.num_bins,
        options.by,
        len(options.levels),
        is_open.astype(np.float64),
    )
    parts = np.split(total.sum.num_records, np.cumsum(grid.num_bins)[:-1])
    return [
        rank_test(part[:, kept], is_exact) if kept.sum() > 1 else None
        for part, kept, is_exact in zip(parts, is_open, grid.is_exact, strict=True)
    ]


def _comparison(
    setting: Setting,
    options: _Options,
    row: int,
    grouped: _Grouped,
    is_open: NDArray[np.bool_],
    ranked: MeansTest | None,
    num_missing: int | None,
) -> Comparison:
    groups, name = grouped.groups, options.variables[row]
    is_testable = len(groups.names) > 1
    eta, omega = eta_squared(groups) if is_testable else (None, None)
    return Comparison(
        variable=name,
        unit=setting.contract.variable(name).unit,
        groups=tuple(
            _group_mean(setting, group, int(n), grouped.origin + float(mean), float(squares), options.confidence)
            for group, n, mean, squares in zip(groups.names, groups.count, groups.mean, groups.square_sum, strict=True)
        ),
        left_out=tuple(level for level, flag in zip(options.levels, is_open, strict=True) if not flag),
        num_missing=num_missing,
        test=main_test(groups, options.equal_variances) if is_testable else None,
        variance_tests=_variance_tests(groups, grouped.distances) if is_testable else (),
        rank_test=ranked,
        eta_squared=eta,
        omega_squared=omega,
        differences=differences(groups, options.equal_variances, options.adjustment, options.confidence)
        if is_testable
        else (),
    )


def _variance_tests(groups: Groups, distances: Floats) -> tuple[MeansTest, ...]:
    return tuple(test for test in (levene(groups, distances), bartlett(groups)) if test is not None)


def _group_mean(
    setting: Setting, name: str, count: int, mean: float, square_sum: float, confidence: float
) -> GroupMean:
    if count < 2:
        return GroupMean(group=name, num_values=setting.disclosure.shown(count), mean=mean)
    sd = math.sqrt(square_sum / (count - 1))
    reach = two_sided_quantile(confidence, count - 1) * sd / math.sqrt(count)
    shown = setting.disclosure.shown(count)
    return GroupMean(group=name, num_values=shown, mean=mean, sd=sd, low=mean - reach, high=mean + reach)


def _paired(setting: Setting, names: tuple[str, ...], confidence: float) -> Steps[CompareMeansResult]:
    first, second = names
    start = yield from ask(paired_sums, first, second, 0.0, 1.0, False)
    count, rules = start.sum.num_pairs, setting.disclosure
    if not count:
        raise DataError(f"compare_means: no record has both {first!r} and {second!r}")
    if rules.is_small(count):
        raise DisclosureError("minimum_cell", f"compare_means: too few records have both {first!r} and {second!r}")
    yield from refuse_lone_variables((first,), rules.minimum_cell, "compare_means", less=second)
    about = start.sum.total / count
    spread = yield from ask(paired_sums, first, second, about, 1.0, False)
    about, scale = about + spread.sum.total / count, spread.sum.distance / count
    is_constant = scale <= CONSTANT_SPREAD * abs(about)
    if scale < SMALLEST_SCALE and not is_constant:
        raise DataError(f"compare_means: the differences spread less than {SMALLEST_SCALE:g}; use a smaller unit")
    scale = 1.0 if is_constant else scale
    last = (yield from ask(paired_sums, first, second, about, scale, True)).sum
    mean = about + last.total / count * scale
    square_sum = 0.0 if is_constant else max(last.square - last.total**2 / count, 0.0) * scale**2
    name = f"{first} - {second}"
    test, difference = _paired_test((first, second), count, mean, square_sum, confidence)
    comparison = Comparison(
        variable=name,
        unit=setting.contract.variable(first).unit,
        groups=(_group_mean(setting, "difference", count, mean, square_sum, confidence),),
        left_out=(),
        num_missing=rules.shown(start.sum.num_records - count),
        test=test,
        variance_tests=(),
        rank_test=None,
        eta_squared=None,
        omega_squared=None,
        differences=() if difference is None else (difference,),
    )
    return CompareMeansResult(
        by=None,
        is_paired=True,
        equal_variances=False,
        adjustment="none",
        comparisons=(comparison,),
        num_ungrouped=0,
        minimum_cell=rules.minimum_cell,
        confidence=confidence,
        sites=start.sites,
    )


def _paired_test(
    names: tuple[str, str], count: int, mean: float, square_sum: float, confidence: float
) -> tuple[MeansTest | None, Difference | None]:
    """The t-test that the mean difference is 0; its effect size is standardised by the differences' own spread."""
    if count < 2 or square_sum <= 0:
        return None, None
    df = count - 1
    sd = math.sqrt(square_sum / df)
    error = sd / math.sqrt(count)
    p_value, reach = two_sided_p(mean / error, df), two_sided_quantile(confidence, df) * error
    difference = Difference(
        groups=names,
        value=mean,
        standard_error=error,
        low=mean - reach,
        high=mean + reach,
        p_value=p_value,
        p_adjusted=p_value,
        cohens_d=mean / sd,
        hedges_g=mean / sd * hedges_factor(df),
    )
    return exact_test("paired t-test", mean / error, p_value, df), difference


# A module's vocabulary is what it names: the workflow with the site functions that it asks for.
__all__ = ["bin_counts", "compare_means", "group_counts", "group_sums", "paired_sums"]
