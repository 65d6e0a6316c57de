"""The result of a comparison of means: groups, tests, differences, how it prints and draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from wardround.analytics.compare_means_statistics import Adjustment, Difference, MeansTest
from wardround.analytics.journal_text import (
    count_text,
    decimals_for,
    fixed_text,
    interval_text,
    listed,
    p_text,
    percent_text,
)
from wardround.analytics.result import Exhibit, FigureExhibit, TableExhibit, json_text, json_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_DRAWN = 6
"""Variables that the figure shows."""
_REFERENCES = {
    "Welch 1947": "Welch BL (1947). The generalization of Student's problem when several different population "
    "variances are involved. Biometrika 34:28-35.",
    "Welch 1951": "Welch BL (1951). On the comparison of several mean values: an alternative approach. Biometrika "
    "38:330-336.",
    "Student 1908": "Student (1908). The probable error of a mean. Biometrika 6:1-25.",
    "Fisher 1925": "Fisher RA (1925). Statistical Methods for Research Workers. Oliver and Boyd, Edinburgh.",
    "Holm 1979": "Holm S (1979). A simple sequentially rejective multiple test procedure. Scandinavian Journal of "
    "Statistics 6:65-70.",
    "Dunn 1961": "Dunn OJ (1961). Multiple comparisons among means. Journal of the American Statistical Association "
    "56:52-64.",
    "Kramer 1956": "Kramer CY (1956). Extension of multiple range tests to group means with unequal numbers of "
    "replications. Biometrics 12:307-310.",
    "Games 1976": "Games PA, Howell JF (1976). Pairwise multiple comparison procedures with unequal n's and/or "
    "variances. Journal of Educational Statistics 1:113-125.",
    "Hedges 1981": "Hedges LV (1981). Distribution theory for Glass's estimator of effect size and related estimators. "
    "Journal of Educational Statistics 6:107-128.",
    "Kruskal 1952": "Kruskal WH, Wallis WA (1952). Use of ranks in one-criterion variance analysis. Journal of the "
    "American Statistical Association 47:583-621.",
    "Mann 1947": "Mann HB, Whitney DR (1947). On a test of whether one of two random variables is stochastically "
    "larger than the other. Annals of Mathematical Statistics 18:50-60.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMean:
    """One group.

    Attributes:
        group: its name.
        num_values: None where hidden.
        mean: in the variable's unit.
        sd: standard deviation (denominator n - 1); None for one value.
        low: lower end of the mean's interval.
        high: upper end.
    """

    group: str
    num_values: int | None
    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One variable's groups compared.

    Attributes:
        variable: its name (paired: the two variables).
        unit: as the contract has it.
        groups: those compared.
        left_out: groups with too few values, none of which is told.
        num_missing: records of a group without a value, None where hidden.
        test: of equal means; None where there is nothing to test.
        variance_tests: of equal variances.
        rank_test: Mann and Whitney's or Kruskal and Wallis'; None where it was not made.
        eta_squared: share of the sum of squares between the groups.
        omega_squared: the same without its bias.
        differences: of each two groups.
    """

    variable: str
    unit: str | None
    groups: tuple[GroupMean, ...]
    left_out: tuple[str, ...]
    num_missing: int | None
    test: MeansTest | None
    variance_tests: tuple[MeansTest, ...]
    rank_test: MeansTest | None
    eta_squared: float | None
    omega_squared: float | None
    differences: tuple[Difference, ...]

    @property
    def label(self) -> str:
        """The variable with its unit."""
        return f"{self.variable}, {self.unit}" if self.unit else self.variable


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareMeansResult:
    """Means compared.

    Attributes:
        by: the grouping variable; None for a paired comparison.
        is_paired: whether two variables of the same records were compared.
        equal_variances: whether the groups' variances were taken as equal.
        adjustment: of the pairs' p-values.
        comparisons: one a variable.
        num_ungrouped: records without a group, None where hidden.
        minimum_cell: least number of values of a group that is compared.
        confidence: of the intervals.
        sites: in every total.
    """

    by: str | None
    is_paired: bool
    equal_variances: bool
    adjustment: Adjustment
    comparisons: tuple[Comparison, ...]
    num_ungrouped: int | None
    minimum_cell: int
    confidence: float
    sites: tuple[str, ...]

    def comparison(self, variable: str) -> Comparison:
        """The comparison of this variable. Raises `KeyError`."""
        for comparison in self.comparisons:
            if comparison.variable == variable:
                return comparison
        raise KeyError(variable)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader should know."""
        notes = [
            f"{comparison.variable}: {listed(comparison.left_out)} left out, with too few values to be compared, or "
            "too few that differ."
            for comparison in self.comparisons
            if comparison.left_out
        ]
        notes += [
            f"{comparison.variable}: nothing to test, as fewer than two groups remain or nothing varies within them."
            for comparison in self.comparisons
            if comparison.test is None
        ]
        if any(c.rank_test is not None and c.rank_test.p_low < c.rank_test.p_high for c in self.comparisons):
            notes.append("Ranks are from bins: the pooled records' P value lies in the range in brackets.")
        return tuple(notes)

    def to_frame(self) -> pd.DataFrame:
        """A row a variable and group: num_values, mean, sd, low, high."""
        rows = [
            {"variable": comparison.variable, **asdict(group)}
            for comparison in self.comparisons
            for group in comparison.groups
        ]
        columns = ["variable", "group", "num_values", "mean", "sd", "low", "high"]
        frame = pd.DataFrame(rows, columns=columns).set_index(["variable", "group"])
        return frame.astype({"num_values": "Int64", **dict.fromkeys(("mean", "sd", "low", "high"), float)})

    def tests_frame(self) -> pd.DataFrame:
        """A row a variable and test: statistic, df, df_within, p_value, p_low, p_high."""
        rows = [
            {"variable": comparison.variable, **asdict(test)}
            for comparison in self.comparisons
            for test in _tests(comparison)
        ]
        columns = ["variable", "name", "statistic", "df", "df_within", "p_value", "p_low", "p_high"]
        return pd.DataFrame(rows, columns=columns).set_index(["variable", "name"])

    def differences_frame(self) -> pd.DataFrame:
        """A row a variable and pair (first, second): value, standard_error, low, high, p-values and effect sizes."""
        rows = [
            {"variable": c.variable, "first": d.groups[0], "second": d.groups[1], **asdict(d)}
            for c in self.comparisons
            for d in c.differences
        ]
        effects = ["value", "standard_error", "low", "high", "p_value", "p_adjusted", "cohens_d", "hedges_g"]
        frame = pd.DataFrame(rows, columns=["variable", "first", "second", *effects])
        return frame.set_index(["variable", "first", "second"])

    def to_dict(self) -> dict[str, Any]:
        """All attributes as JSON values."""
        return dict(json_value(asdict(self)))

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict())

    def summary(self) -> str:
        """Groups, tests and differences as text, variable by variable."""
        what = "Paired comparison" if self.is_paired else f"Means by {self.by}"
        lines = [f"{what} at {len(self.sites)} sites"]
        for comparison in self.comparisons:
            lines += ["", f"{comparison.label} ({count_text(comparison.num_missing)} missing)"]
            lines.append(_group_table(comparison, self.confidence).to_string())
            lines += [_test_text(test) for test in _tests(comparison)]
            if comparison.eta_squared is not None:
                lines.append(_share_text(comparison.eta_squared, comparison.omega_squared))
            if comparison.differences:
                lines.append(self._difference_table([comparison]).to_string())
        return "\n".join([*lines, "", *self.notes]) + "\n"

    def _difference_table(self, comparisons: list[Comparison]) -> pd.DataFrame:
        """Differences as they are printed."""
        rows = [
            (
                comparison.variable,
                f"{d.groups[0]} - {d.groups[1]}",
                interval_text(d.value, d.low, d.high),
                p_text(d.p_value),
                *((p_text(d.p_adjusted),) if self._is_adjusted else ()),
                fixed_text(d.hedges_g, 2),
            )
            for comparison in comparisons
            for d in comparison.differences
        ]
        adjusted = (f"P ({self.adjustment})",) if self._is_adjusted else ()
        heads = ["variable", "pair", f"difference ({percent_text(self.confidence)})", "P value", *adjusted, "Hedges' g"]
        return pd.DataFrame(rows, columns=heads).set_index(["variable", "pair"])

    @property
    def _is_adjusted(self) -> bool:
        return self.adjustment != "none" and any(len(c.differences) > 1 for c in self.comparisons)

    def methods(self) -> str:
        """What was computed, for a methods section."""
        what = (
            "The two variables' means were compared in the same records by the paired t-test (Student 1908)"
            if self.is_paired
            else f"Means by {str(self.by).replace('_', ' ')} were compared by {listed(list(self._main_methods()))}"
        )
        parts = [f"{what}, from counts, means and sums of squares over all sites."]
        if self._is_adjusted:
            how = {
                "holm": "Holm (Holm 1979)",
                "bonferroni": "Bonferroni (Dunn 1961)",
                "tukey": "Tukey and Kramer (Kramer 1956)" if self.equal_variances else "Games and Howell (Games 1976)",
                "none": "",
            }[self.adjustment]
            parts.append(f" P values of pairs of groups were adjusted after {how}.")
        parts.append(" Differences are also given standardised, as Hedges' g (Hedges 1981).")
        ranks = {c.rank_test.name for c in self.comparisons if c.rank_test is not None}
        cited = {"Mann-Whitney test": "(Mann 1947)", "Kruskal-Wallis test": "(Kruskal 1952)"}
        if ranks:
            parts.append(f" Ranks were compared by the {listed([f'{n} {cited[n]}' for n in sorted(ranks)])}.")
        return "".join(parts)

    def _main_methods(self) -> Iterator[str]:
        sizes = {len(comparison.groups) > 2 for comparison in self.comparisons} or {False}
        if False in sizes:
            yield "Student's t-test (Student 1908)" if self.equal_variances else "Welch's t-test (Welch 1947)"
        if True in sizes:
            yield "analysis of variance (Fisher 1925)" if self.equal_variances else "Welch's ANOVA (Welch 1951)"

    @property
    def references(self) -> tuple[str, ...]:
        """The papers behind the methods."""
        text = self.methods()
        return tuple(reference for key, reference in _REFERENCES.items() if f"({key})" in text)

    def plot(self) -> Figure:
        """Means of the groups with their intervals, a panel a variable."""
        from matplotlib.figure import Figure

        drawn = [comparison for comparison in self.comparisons if comparison.groups][:MAX_DRAWN]
        num_rows = max((len(comparison.groups) for comparison in drawn), default=1)
        columns = min(max(len(drawn), 1), 2)
        rows = -(-max(len(drawn), 1) // columns)
        figure = Figure(figsize=(3.3 * columns + 0.4, rows * (1.2 + 0.32 * num_rows)), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels[len(drawn) :]:
            axes.set_axis_off()
        for axes, comparison in zip(panels, drawn, strict=False):
            _draw_means(axes, comparison)
        if drawn:
            figure.supxlabel(f"mean ({percent_text(self.confidence)} interval)", fontsize="small")
        return figure

    def exhibits(self) -> tuple[Exhibit, ...]:
        """Groups with tests, differences, and the figure."""
        means = self._mean_table()
        compared = [comparison for comparison in self.comparisons if comparison.differences]
        differ = [c.variable for c in self.comparisons if c.test is not None and c.test.p_value < 1 - self.confidence]
        found = f"Groups differ in {listed(differ)}." if differ else "No difference is told from chance."
        title = "Paired comparison" if self.is_paired else f"Means by {self.by}"
        tables = [TableExhibit(title=title, frame=means, note=" ".join(self.notes))]
        if compared:
            tables.append(TableExhibit(title=f"{title}: differences", frame=self._difference_table(compared)))
        return (*tables, FigureExhibit(title=f"{title}: intervals", draw=self.plot, description=found))

    def _mean_table(self) -> pd.DataFrame:
        """Mean (SD) by variable and group, as they are printed, with the main test's P value."""
        names = list(dict.fromkeys(group.group for comparison in self.comparisons for group in comparison.groups))
        rows = []
        for comparison in self.comparisons:
            cells = {group.group: _mean_text(group) for group in comparison.groups}
            p_value = float("nan") if comparison.test is None else comparison.test.p_value
            test = "" if comparison.test is None else comparison.test.name
            rows.append([comparison.label, *(cells.get(name, "left out") for name in names), p_text(p_value), test])
        return pd.DataFrame(rows, columns=["variable", *names, "P value", "test"]).set_index("variable")


def _tests(comparison: Comparison) -> list[MeansTest]:
    main = [test for test in (comparison.test, comparison.rank_test) if test is not None]
    return [*main, *comparison.variance_tests]


def _test_text(test: MeansTest) -> str:
    letter = "z" if test.df is None else "F" if test.df_within is not None else "t" if "t-test" in test.name else "chi2"
    degrees = "" if test.df is None else f"({test.df:.4g})"
    if test.df_within is not None:
        degrees = f"({test.df:.4g}, {test.df_within:.4g})"
    low, high = p_text(test.p_low), p_text(test.p_high)
    bounds = f" [{low} to {high}]" if test.p_low < test.p_high else ""
    return f"{test.name}: {letter}{degrees} = {test.statistic:.4g}, P {p_text(test.p_value)}{bounds}"


def _share_text(eta: float, omega: float | None) -> str:
    unbiased = "" if omega is None else f", omega squared {fixed_text(omega, 3)}"
    return f"eta squared {fixed_text(eta, 3)}{unbiased}"


def _mean_text(group: GroupMean) -> str:
    decimals = decimals_for(group.sd or abs(group.mean) or 1.0)
    spread = "" if group.sd is None else f" ({fixed_text(group.sd, decimals)})"
    return f"{fixed_text(group.mean, decimals)}{spread}, n = {count_text(group.num_values)}"


def _group_table(comparison: Comparison, confidence: float) -> pd.DataFrame:
    nothing = float("nan")
    rows = [
        (
            group.group,
            count_text(group.num_values),
            nothing if group.low is None or group.high is None else interval_text(group.mean, group.low, group.high),
            nothing if group.sd is None else fixed_text(group.sd, decimals_for(group.sd)),
        )
        for group in comparison.groups
    ]
    heads = ["group", "n", f"mean ({percent_text(confidence)})", "SD"]
    return pd.DataFrame(rows, columns=heads).set_index("group")


def _draw_means(axes: Any, comparison: Comparison) -> None:
    places = np.arange(len(comparison.groups))
    means = np.array([group.mean for group in comparison.groups])
    lows = np.array([group.mean if group.low is None else group.low for group in comparison.groups])
    highs = np.array([group.mean if group.high is None else group.high for group in comparison.groups])
    axes.hlines(places, lows, highs, color="C0", linewidth=1.6)
    axes.plot(means, places, "s", color="C0", markersize=5)
    axes.set_yticks(places, [group.group[:24] for group in comparison.groups])
    axes.set_ylim(len(places) - 0.4, -0.6)
    axes.set_title(comparison.label[:40], fontsize="medium", loc="left")
    for text in (*axes.get_yticklabels(), axes.title):
        text.set_parse_math(False)  # a dollar sign in a name is no mathematics
    axes.locator_params(axis="x", nbins=5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
