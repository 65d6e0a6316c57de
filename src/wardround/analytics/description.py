"""What `describe` returns: the numbers of Table 1, as values, as JSON, as a printed table and as a figure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import combinations, cycle
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from wardround.analytics.description_json import Description
from wardround.analytics.group_tests import GroupTest
from wardround.analytics.quantiles import Quantile, quantile_dict
from wardround.analytics.result import Exhibit, json_text, json_value
from wardround.data.contract import VariableType

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_PLOTTED = 60
"""Variables that a figure shows; the ones that differ most, or are missing most, are kept."""
_MOST_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class LevelCount:
    """A level and how many records have it; None where that is hidden."""

    level: str
    count: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnSummary:
    """One variable in one column of Table 1.

    Attributes:
        group: level of the grouping variable; None for everybody.
        num_records: records in the column; None where that is hidden.
        num_missing: those without a value; None where that is hidden.
        mean: None where nobody has a value, where it is hidden, and for categories. Dates: days since 1970-01-01.
        sd: standard deviation, denominator n - 1; None where fewer than two have a value or it is hidden. Dates: days.
        quantiles: with their bounds; none for categories.
        levels: a category's levels in the contract's order, those that nobody has included.
        is_hidden: mean, sd and quantiles are hidden, as they would tell of few.
    """

    group: str | None
    num_records: int | None
    num_missing: int | None
    mean: float | None = None
    sd: float | None = None
    quantiles: tuple[Quantile, ...] = ()
    levels: tuple[LevelCount, ...] = ()
    is_hidden: bool = False

    @property
    def num_values(self) -> int | None:
        """Records with a value; None where that is hidden."""
        if self.num_records is None or self.num_missing is None:
            return None
        return self.num_records - self.num_missing

    def percent(self, level: LevelCount) -> float | None:
        """A level's share of those with a value (unit: percent); None where nobody has one, or it is hidden."""
        # A share tells the number it is a share of, and with it how many are missing.
        if not self.num_values or level.count is None:
            return None
        return min(100.0, 100.0 * level.count / self.num_values)  # rounded counts may be more than their sum

    def to_dict(self) -> dict[str, Any]:
        """All attributes; levels with their percent."""
        return {
            "group": self.group,
            "num_records": self.num_records,
            "num_missing": self.num_missing,
            "mean": self.mean,
            "sd": self.sd,
            "is_hidden": self.is_hidden,
            "quantiles": [quantile_dict(quantile) for quantile in self.quantiles],
            "levels": [
                {"level": level.level, "count": level.count, "percent": self.percent(level)} for level in self.levels
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Standardised difference of two groups; None where it is not defined or infinite."""

    groups: tuple[str, str]
    value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableSummary:
    """One variable of Table 1.

    Attributes:
        variable: its name.
        type: its type in the contract (an integer may have been counted like a category).
        unit: its unit, as the contract has it.
        columns: everybody, then the groups.
        test: of whether the groups differ; None without groups, where there is nothing to test, or it is hidden.
        differences: of each two groups.
        is_hidden: test and differences are hidden, or some of them, as they would give hidden counts back.
    """

    variable: str
    type: VariableType
    unit: str | None
    columns: tuple[ColumnSummary, ...]
    test: GroupTest | None = None
    differences: tuple[Difference, ...] = ()
    is_hidden: bool = False

    @property
    def is_numeric(self) -> bool:
        """Whether it has a mean and quantiles rather than levels."""
        return not self.columns[0].levels

    @property
    def largest_difference(self) -> float | None:
        """Largest standardised difference of two groups, in size."""
        known = [abs(difference.value) for difference in self.differences if difference.value is not None]
        return max(known, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Keys: variable, type, unit, groups (everybody first, its group None), test (`GroupTest`), smd, is_hidden."""
        return {
            "variable": self.variable,
            "type": self.type,
            "unit": self.unit,
            "groups": [column.to_dict() for column in self.columns],
            "test": None if self.test is None else asdict(self.test),
            "smd": [{"groups": difference.groups, "value": difference.value} for difference in self.differences],
            "is_hidden": self.is_hidden,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeResult:
    """Table 1, as the disclosure rules let it be known: what they hide is None here, and in every other form.

    The coordinator has received the totals as they are: this protects against those who see the result.

    Attributes:
        by: the grouping variable.
        groups: its levels.
        num_by_group: records in each group.
        num_records: records in the table.
        num_ungrouped: records left out because their group is not known.
        sites: the sites in every total.
        variables: in the order they were asked for.
        minimum_cell: least count that is shown.
    """

    json_type: ClassVar[Any] = Description

    by: str | None
    groups: tuple[str, ...]
    num_by_group: tuple[int | None, ...]
    num_records: int | None
    num_ungrouped: int | None
    sites: tuple[str, ...]
    variables: tuple[VariableSummary, ...]
    minimum_cell: int

    def variable(self, name: str) -> VariableSummary:
        """The summary of one variable. Raises `KeyError`."""
        for variable in self.variables:
            if variable.variable == name:
                return variable
        raise KeyError(name)

    @property
    def notes(self) -> tuple[str, ...]:
        """How to read the table."""
        from wardround.analytics.table_one import table_notes

        return tuple(table_notes(self))

    def summary(self) -> str:
        """Table 1 as aligned text, small counts hidden."""
        from wardround.analytics.table_one import table_text

        return table_text(self)

    def to_frame(self) -> pd.DataFrame:
        """Table 1 as it is printed: rows (variable, level), a column for everybody and each group, text cells."""
        from wardround.analytics.table_one import table_frame

        return table_frame(self)

    def to_dict(self) -> dict[str, Any]:
        """The whole result; None where a count is hidden.

        Keys: by, groups (a list of group and num_records), num_records, num_ungrouped, sites, minimum_cell,
        variables (`VariableSummary.to_dict`, whose groups are `ColumnSummary.to_dict`).
        """
        sizes = zip(self.groups, self.num_by_group, strict=True)
        whole = {
            "by": self.by,
            "groups": [{"group": group, "num_records": size} for group, size in sizes],
            "num_records": self.num_records,
            "num_ungrouped": self.num_ungrouped,
            "sites": self.sites,
            "minimum_cell": self.minimum_cell,
            "variables": [variable.to_dict() for variable in self.variables],
        }
        return dict(json_value(whole))

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict())

    def plot(self) -> Figure:
        """Standardised differences of each two groups ("love plot"); without groups, how much is missing."""
        return _plot_differences(self) if len(self.groups) > 1 else _plot_missing(self)

    def methods(self) -> str:
        """How the table was made, as a methods section says it."""
        from wardround.analytics.description_exhibits import describe_methods

        return describe_methods(self)

    @property
    def references(self) -> tuple[str, ...]:
        """The papers behind it."""
        from wardround.analytics.description_exhibits import describe_references

        return describe_references(self)

    def exhibits(self) -> tuple[Exhibit, ...]:
        """Table 1 with headings for readers, and the figure."""
        from wardround.analytics.description_exhibits import describe_exhibits

        return describe_exhibits(self)


def _axes(num_rows: int) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 1.4 + 0.26 * num_rows), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _plot_differences(result: DescribeResult) -> Figure:
    ranked = sorted(result.variables, key=lambda variable: -(variable.largest_difference or 0.0))[:MAX_PLOTTED]
    figure, axes = _axes(len(ranked))
    markers = cycle("osD^v")
    for pair in combinations(result.groups, 2):
        points = [
            (abs(difference.value), height)
            for height, variable in enumerate(ranked)
            for difference in variable.differences
            if difference.groups == pair and difference.value is not None
        ]
        axes.plot(*_columns(points), next(markers), markersize=5, alpha=0.8, label=" and ".join(map(_shortened, pair)))
    axes.axvline(0.1, color="0.6", linewidth=0.8, linestyle="--")  # the usual mark of imbalance
    _name_rows(axes, [variable.variable for variable in ranked])
    axes.set_xlim(left=0)
    axes.set_xlabel("absolute standardised difference")
    if ranked and 2 < len(result.groups) <= 4:
        axes.legend(title=result.by, frameon=False, fontsize="small")
    return figure


def _name_rows(axes: Any, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), [_shortened(name.replace("_", " ")) for name in names])
    axes.invert_yaxis()


def _shortened(name: str) -> str:
    """A name that leaves room for the figure."""
    return name if len(name) <= _MOST_CHARACTERS else f"{name[: _MOST_CHARACTERS - 3]}..."


def _columns(points: list[tuple[float, int]]) -> tuple[list[float], list[int]]:
    return [x for x, _ in points], [y for _, y in points]


def _plot_missing(result: DescribeResult) -> Figure:
    ranked = sorted(result.variables, key=lambda variable: -(variable.columns[0].num_missing or 0))[:MAX_PLOTTED]
    figure, axes = _axes(len(ranked))
    missing = [variable.columns[0].num_missing for variable in ranked]
    percents = [100.0 * (number or 0) / max(result.num_records or 0, 1) for number in missing]
    axes.barh(range(len(ranked)), percents, height=0.6, color="C0")
    for height in (height for height, number in enumerate(missing) if number is None):
        axes.annotate(" hidden", (0.0, height), va="center", fontsize="small", color="0.4")
    _name_rows(axes, [variable.variable for variable in ranked])
    axes.set_xlim(0, max(1.0, *percents, 1.0))
    of = "the" if result.num_records is None else result.num_records
    axes.set_xlabel(f"missing (% of {of} records)")
    return figure
