"""Table 1 as disclosure rules let it be known: what is hidden is None, in every form that the result takes.

Counts are hidden by `small_cells`. With a count goes what would give it back:
- a share, as it is one of the number it is a share of;
- a test's statistic, and what of its p-value and of standardised differences is not the same whatever is hidden;
- mean, spread and quantiles of fewer than the floor, or of a number of which all but few records have one value (the
  mean of a 0/1 number is a count), and of one more group, as everybody's mean would give it back;
- digits of mean and spread where it is hidden how many have a value: of whole numbers, the mean times that number is a
  whole number, which tells it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.brackets import FIRST_EDGES
from wardround.analytics.description import ColumnSummary, DescribeResult, Difference, LevelCount, VariableSummary
from wardround.analytics.group_tests import GroupTest, compare_levels, compare_means, level_difference
from wardround.analytics.quantiles import Quantile
from wardround.analytics.small_cells import hidden_cells, hidden_sizes, other_tables
from wardround.privacy.disclosure import DisclosureRules, is_small

_MOST_GROUPS = 6
"""Groups for which it is tried out what a p-value tells."""
_P_DECIMALS = 2
_SPREAD_OF_WHOLE = 0.2
Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]
ZERO = int(np.flatnonzero(FIRST_EDGES[1:] == 0.0)[0])
"""The bracket of the zeros."""
_ONE_NUMBER = np.isin(FIRST_EDGES[1:], (-1.0, 0.0, 1.0, 2.0))
# Brackets in which only one whole number lies.


def tells_of_few(num_values: Counts, is_whole: bool, minimum_cell: int) -> bool:
    """Whether a mean would be a small count in disguise: all but few values are zero, or of two values one is rare.

    Args:
        num_values: in each bracket of `FIRST_EDGES`.
        is_whole: all values are whole numbers.
        minimum_cell: least count that is shown.
    """
    occupied = np.flatnonzero(num_values)
    if num_values[ZERO] and 0 < num_values.sum() - num_values[ZERO] < minimum_cell:
        return True
    if not is_whole or len(occupied) != 2 or not _ONE_NUMBER[occupied].any():
        return False
    return bool(num_values[occupied].min() < minimum_cell)


def protected(result: DescribeResult, rules: DisclosureRules, lone: Mapping[str, tuple[bool, ...]]) -> DescribeResult:
    """The same table with everything hidden that the rules hide.

    Args:
        result: all numbers.
        rules: their `minimum_cell` and `rounding` are kept to.
        lone: by numeric variable and column, whether its mean tells of few (`tells_of_few`).

    Guarantees:
        small_counts_are_hidden_everywhere: no count from 1 to `minimum_cell - 1` is in `to_dict`, frame, text or plot.
    """
    if rules.minimum_cell == 1 and rules.rounding == 1:
        return result
    counts = _plain(result.num_records)
    is_few = is_small(counts, rules.minimum_cell)
    sizes = np.array([_plain(size) for size in result.num_by_group] or [counts], np.int64)
    sizes_hidden = np.ones(len(sizes), bool) if is_few else hidden_sizes(sizes, rules.minimum_cell)
    if not result.groups:
        sizes_hidden = np.array([is_few])
    table = _Protection(rules=rules, sizes_hidden=sizes_hidden, is_few=is_few)
    return replace(
        result,
        num_records=None if is_few else rules.shown(counts),
        num_by_group=tuple(
            None if hidden else rules.shown(_plain(size))
            for size, hidden in zip(result.num_by_group, sizes_hidden, strict=False)
        ),
        num_ungrouped=rules.shown(_plain(result.num_ungrouped)),
        variables=tuple(table.of(variable, lone.get(variable.variable, ())) for variable in result.variables),
    )


def _plain(count: int | None) -> int:
    if count is None:
        raise ValueError("the table is protected already")
    return count


@dataclass(frozen=True, slots=True, kw_only=True)
class _Protection:
    """What holds for the whole table.

    Attributes:
        rules: that are kept to.
        sizes_hidden: which groups' sizes are hidden; without groups, whether everybody's is.
        is_few: the whole table is of few records.
    """

    rules: DisclosureRules
    sizes_hidden: Mask
    is_few: bool

    def of(self, variable: VariableSummary, lone: tuple[bool, ...]) -> VariableSummary:
        is_grouped = len(variable.columns) > 1
        counts = np.array(
            [
                [*([_plain(v.count) for v in c.levels] or [_plain(c.num_values)]), _plain(c.num_missing)]
                for c in variable.columns[is_grouped:]
            ],
            np.int64,
        ).T
        hidden = hidden_cells(counts, self.sizes_hidden, self.rules.minimum_cell)[:, : len(variable.columns)]
        if self.is_few:
            hidden[:] = True
        return self._number(variable, hidden, lone) if variable.is_numeric else self._category(variable, counts, hidden)

    def _counts(self, column: ColumnSummary, hidden: Mask, number: int) -> ColumnSummary:
        """A column with its counts as they are shown; `hidden` by row of this column."""
        is_size_hidden = self.is_few or (number > 0 and bool(self.sizes_hidden[number - 1]))
        return replace(
            column,
            num_records=None if is_size_hidden else self.rules.shown(_plain(column.num_records)),
            num_missing=None if hidden[-1] else self.rules.shown(_plain(column.num_missing)),
            levels=tuple(
                LevelCount(level.level, None if is_hidden else self.rules.shown(_plain(level.count)))
                for level, is_hidden in zip(column.levels, hidden[:-1], strict=False)
            ),
        )

    def _category(self, variable: VariableSummary, counts: Counts, hidden: Mask) -> VariableSummary:
        columns = tuple(self._counts(c, hidden[:, i], i) for i, c in enumerate(variable.columns))
        if not hidden.any() or len(columns) == 1:
            return replace(variable, columns=columns)
        others: list[Counts] = []
        if not self.sizes_hidden.any():
            others = [table[:-1] for table in other_tables(counts, self.sizes_hidden, self.rules.minimum_cell)]
        test, differences = None, tuple(replace(difference, value=None) for difference in variable.differences)
        if others:
            groups = tuple(str(column.group) for column in columns[1:])
            test = _in_common(variable.test, [compare_levels(groups, table) for table in others])
            index = {group: i for i, group in enumerate(groups)}
            differences = tuple(_coarse_difference(d, index, others) for d in variable.differences)
        is_hidden = (test is None) != (variable.test is None)
        return replace(variable, columns=columns, test=test, differences=differences, is_hidden=is_hidden)

    def _number(self, variable: VariableSummary, hidden: Mask, lone: tuple[bool, ...]) -> VariableSummary:
        few = self._few(variable.columns, lone)
        columns = []
        for index, column in enumerate(variable.columns):
            shown = self._counts(column, hidden[:, index], index)
            if few[index]:
                shown = _without_values(shown)
            elif shown.num_values is None:
                shown = _coarse(shown, _plain(column.num_values))
            columns.append(shown)
        if not hidden.any() and not any(few):
            return replace(variable, columns=tuple(columns))
        test, differences = self._comparisons(variable, few, hidden)
        return replace(
            variable,
            columns=tuple(columns),
            test=test,
            differences=differences,
            is_hidden=test is None and variable.test is not None,
        )

    def _few(self, columns: tuple[ColumnSummary, ...], lone: tuple[bool, ...]) -> list[bool]:
        """Where mean and spread would tell of few people, themselves or by difference to everybody's."""
        least = self.rules.minimum_cell
        few = [is_small(_plain(column.num_values), least) for column in columns]
        few = [a or b for a, b in zip(few, lone or (False,) * len(few), strict=True)]
        few = [a or b for a, b in zip(few, [self.is_few, *self.sizes_hidden], strict=False)]
        # Everybody's mean less the means shown is the mean of the groups hidden, taken together.
        sizes = [_plain(column.num_values) for column in columns]
        while not few[0]:
            together = [size for size, is_few in zip(sizes[1:], few[1:], strict=True) if is_few and size]
            if not together or (len(together) > 1 and sum(together) >= least):
                break
            others = [i for i in range(1, len(few)) if not few[i] and sizes[i]]
            few[min(others, key=sizes.__getitem__) if others else 0] = True
        return few

    def _comparisons(
        self, variable: VariableSummary, few: list[bool], hidden: Mask
    ) -> tuple[GroupTest | None, tuple[Difference, ...]]:
        """Test and differences, with as few digits as keep hidden what is hidden."""
        index = {column.group: i for i, column in enumerate(variable.columns)}
        differences = tuple(
            replace(d, value=None if d.value is None or any(few[index[g]] for g in d.groups) else round(d.value, 2))
            for d in variable.differences
        )
        if variable.test is None or any(few[1:]) or len(few) - 1 > _MOST_GROUPS:
            return None, differences
        return _coarse_test(variable, hidden, self.rules.minimum_cell), differences


def _without_values(column: ColumnSummary) -> ColumnSummary:
    quantiles = tuple(Quantile(probability=q.probability, value=None, bound=None) for q in column.quantiles)
    return replace(column, mean=None, sd=None, quantiles=quantiles, is_hidden=True)


def _coarse(column: ColumnSummary, num_values: int) -> ColumnSummary:
    """Mean and spread to a step at which the sum of the values could be another one by two standard deviations."""
    if column.sd is None or column.mean is None or not column.sd or num_values < 1:
        return column
    # Whole numbers that spread at all spread by about 0.2 or more; their sum must be uncertain by one, too.
    uncertain = max(2 * column.sd, 1.0) if column.sd > _SPREAD_OF_WHOLE else 2 * column.sd
    step = _step(uncertain / num_values)
    return replace(column, mean=_rounded(column.mean, step), sd=_rounded(column.sd, step))


def _step(least: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that is not below."""
    unit = 10.0 ** math.floor(math.log10(least))
    return next(factor * unit for factor in (1.0, 2.0, 5.0, 10.0) if factor * unit >= least)


def _rounded(value: float, step: float) -> float:
    return round(round(value / step) * step, max(0, 1 - math.floor(math.log10(step))))


def _coarse_test(variable: VariableSummary, hidden: Mask, minimum_cell: int) -> GroupTest | None:
    """The test of means as far as it is the same whatever the hidden numbers of missing values are."""
    groups = tuple(str(column.group) for column in variable.columns[1:])
    columns = variable.columns[1:]
    ranges = [
        (_plain(c.num_records) - 1, max(_plain(c.num_records) - minimum_cell + 1, 1))
        if is_hidden
        else (_plain(c.num_values),)
        for c, is_hidden in zip(columns, hidden[-1, 1:], strict=True)
    ]
    mean = np.array([column.mean or 0.0 for column in columns])
    variance = np.array([(column.sd or 0.0) ** 2 for column in columns])
    counts = [np.array(sizes, np.int64) for sizes in product(*ranges)]
    others = [compare_means(groups, count, mean - mean[0], variance * np.maximum(count - 1, 0)) for count in counts]
    return _in_common(variable.test, others)


def _in_common(test: GroupTest | None, others: list[GroupTest | None]) -> GroupTest | None:
    """A test with its p-value to two decimals and no statistic, if all others are the same then."""
    if test is None or any(other is None for other in others):
        return None
    known = [(t.name, t.groups, t.has_small_expected, round(t.p_value, _P_DECIMALS)) for t in (test, *others) if t]
    if any(other != known[0] for other in known):
        return None
    return replace(test, statistic=None, p_value=max(known[0][-1], 10.0**-_P_DECIMALS))


def _coarse_difference(difference: Difference, index: Mapping[str, int], others: list[Counts]) -> Difference:
    """A standardised difference to two decimals, if it is the same in all other tables."""
    pair = [index[group] for group in difference.groups]
    values = [difference.value, *(level_difference(table[:, pair]) for table in others)]
    known = {None if value is None else round(value, 2) for value in values}
    return replace(difference, value=known.pop() if len(known) == 1 else None)
