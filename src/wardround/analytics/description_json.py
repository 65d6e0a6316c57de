"""What `DescribeResult.to_dict` holds, for the schema of outcomes; None where a number is hidden or is not defined."""

from __future__ import annotations

from typing_extensions import TypedDict

from wardround.analytics.group_tests import GroupTest
from wardround.analytics.quantiles import Quantile
from wardround.data.contract import VariableType


class DescribedLevel(TypedDict):
    """A level, how many records have it, and their share of those with a value (unit: percent)."""

    level: str
    count: int | None
    percent: float | None


class DescribedColumn(TypedDict):
    """One variable in one column of Table 1.

    Attributes:
        group: level of the grouping variable; null for everybody.
        num_records: records in the column.
        num_missing: those without a value.
        mean: dates: days since 1970-01-01.
        sd: standard deviation, denominator n - 1; dates: days.
        is_hidden: mean, sd and quantiles are hidden, as they would tell of few.
        quantiles: with their bounds; none for categories.
        levels: a category's levels in the contract's order.
    """

    group: str | None
    num_records: int | None
    num_missing: int | None
    mean: float | None
    sd: float | None
    is_hidden: bool
    quantiles: tuple[Quantile, ...]
    levels: tuple[DescribedLevel, ...]


class DescribedDifference(TypedDict):
    """Standardised difference of two groups."""

    groups: tuple[str, str]
    value: float | None


class DescribedVariable(TypedDict):
    """One variable of Table 1.

    Attributes:
        variable: its name.
        type: its type in the contract.
        unit: its unit, as the contract has it.
        groups: everybody, then the groups.
        test: of whether the groups differ.
        smd: standardised differences of each two groups.
        is_hidden: test and differences are hidden, or some of them, as they would give hidden counts back.
    """

    variable: str
    type: VariableType
    unit: str | None
    groups: tuple[DescribedColumn, ...]
    test: GroupTest | None
    smd: tuple[DescribedDifference, ...]
    is_hidden: bool


class DescribedGroup(TypedDict):
    """A group, and how many records are in it."""

    group: str
    num_records: int | None


class Description(TypedDict):
    """Table 1.

    Attributes:
        by: the grouping variable.
        groups: its levels.
        num_records: records in the table.
        num_ungrouped: records left out because their group is not known.
        sites: the sites in every total.
        minimum_cell: least count that is shown.
        variables: in the order they were asked for.
    """

    by: str | None
    groups: tuple[DescribedGroup, ...]
    num_records: int | None
    num_ungrouped: int | None
    sites: tuple[str, ...]
    minimum_cell: int
    variables: tuple[DescribedVariable, ...]
