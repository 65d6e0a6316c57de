"""The result of a contingency table: counts, tests, measures, how it prints and draws."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from wardround.analytics.contingency_statistics import AssociationTest, Measure
from wardround.analytics.contingency_strata import StratifiedAssociation
from wardround.analytics.journal_text import count_text, fixed_text, interval_text, p_text, percent_text, ratio_interval
from wardround.analytics.result import Exhibit, FigureExhibit, TableExhibit, json_text, json_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOTAL = "total"
MAX_DRAWN = 30
"""Rows that the figure shows."""
HATCHES = ("", "///", "...", "\\\\\\", "xx", "++", "oo")
_AGRESTI = "Agresti A (2013). Categorical Data Analysis, 3rd edition. Wiley, Hoboken."
_NEWCOMBE = (
    "Newcombe RG (1998). Interval estimation for the difference between independent proportions: comparison of eleven "
    "methods. Statistics in Medicine 17:873-890."
)
_MANTEL = (
    "Mantel N, Haenszel W (1959). Statistical aspects of the analysis of data from retrospective studies of disease. "
    "Journal of the National Cancer Institute 22:719-748."
)
_ROBINS = (
    "Robins J, Breslow N, Greenland S (1986). Estimators of the Mantel-Haenszel variance consistent in both sparse "
    "data and large-strata limiting models. Biometrics 42:311-323."
)
_TARONE = "Tarone RE (1985). On heterogeneity tests based on efficient scores. Biometrika 72:91-95."


@dataclass(frozen=True, slots=True, kw_only=True)
class ContingencyResult:
    """A table of counts of two variables with their association.

    Attributes:
        rows: variable in the rows.
        columns: variable in the columns.
        row_levels: its levels.
        column_levels: levels of the variable in the columns.
        counts: by row and column; None where hidden.
        row_totals: None where hidden.
        column_totals: None where hidden.
        num_records: in the table.
        num_left_out: records in which a variable is missing, None where hidden.
        tests: of association.
        measures: of association.
        has_small_expected: whether an expected count is below 5; None where cells are hidden.
        stratified: association within strata; None without strata.
        minimum_cell: least count that is shown.
        rounding: base to which shown counts are rounded.
        confidence: of the intervals.
        sites: in every total.
    """

    rows: str
    columns: str
    row_levels: tuple[str, ...]
    column_levels: tuple[str, ...]
    counts: tuple[tuple[int | None, ...], ...]
    row_totals: tuple[int | None, ...]
    column_totals: tuple[int | None, ...]
    num_records: int | None
    num_left_out: int | None
    tests: tuple[AssociationTest, ...]
    measures: tuple[Measure, ...]
    has_small_expected: bool | None
    stratified: StratifiedAssociation | None
    minimum_cell: int
    rounding: int
    confidence: float
    sites: tuple[str, ...]

    @property
    def is_withheld(self) -> bool:
        """Whether cells or totals are hidden, and tests and measures with them."""
        hidden = [*self.row_totals, *self.column_totals, *(cell for row in self.counts for cell in row)]
        return any(cell is None for cell in hidden)

    def test(self, name: str) -> AssociationTest:
        """The test of this name. Raises `KeyError`."""
        for test in self.tests:
            if test.name == name:
                return test
        raise KeyError(name)

    def measure(self, name: str) -> Measure:
        """The measure of this name. Raises `KeyError`."""
        for measure in self.measures:
            if measure.name == name:
                return measure
        raise KeyError(name)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader should know."""
        hidden = (
            f"Counts from 1 to {self.minimum_cell - 1} are hidden, and others that would give them back; statistics "
            "are withheld with them."
        )
        said = [
            (self.is_withheld, hidden),
            (
                any(test.p_low is not None for test in self.tests),
                "P values are ranges over all tables that fit what is shown.",
            ),
            (
                bool(self.has_small_expected),
                "An expected count is below 5: the chi-square tests' P values are rough.",
            ),
            (not self.tests, "Fewer than two rows or columns have anybody: there is no association to test."),
            (self.rounding > 1, f"Counts are rounded to multiples of {self.rounding}, and statistics are of those."),
            (
                self.stratified is not None and self.stratified.is_rounded,
                "Statistics within strata are rounded: few records are in some cell of a stratum.",
            ),
            (
                self.stratified is not None and self.stratified.p_low is not None,
                "Statistics within strata are withheld: few records are in some cell of a stratum.",
            ),
        ]
        return tuple(text for holds, text in said if holds)

    def to_frame(self, percent: str | None = None) -> pd.DataFrame:
        """Counts by row and column with their totals; hidden ones are missing.

        Args:
            percent: "row" or "column": of the row's or the column's total instead of counts.

        Raises:
            ValueError: another `percent`.
        """
        if percent not in (None, "row", "column"):
            raise ValueError(f"percent must be 'row', 'column' or None, got {percent!r}")
        cells = [
            [*row, total]
            for row, total in zip((*self.counts, self.column_totals), (*self.row_totals, self.num_records), strict=True)
        ]
        index = pd.Index([*self.row_levels, TOTAL], name=self.rows)
        heads = pd.Index([*self.column_levels, TOTAL], name=self.columns)
        frame = pd.DataFrame(cells, index=index, columns=heads, dtype="Int64")
        if percent is None:
            return frame
        values = frame.astype("Float64").to_numpy(np.float64, na_value=np.nan)
        whole = values[:, -1:] if percent == "row" else values[-1:]
        shares = np.divide(100 * values, whole, out=np.full_like(values, np.nan), where=whole > 0)
        return pd.DataFrame(shares, index=index, columns=heads)

    def to_dict(self) -> dict[str, Any]:
        """All attributes as JSON values."""
        return dict(json_value(asdict(self)))

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict())

    def _printed(self) -> pd.DataFrame:
        """Counts with row percentages, as they are printed."""
        frame, shares = self.to_frame(), self.to_frame("row")
        cells = [
            [
                _cell(None if pd.isna(count) else int(count), share, is_total=place == len(self.column_levels))
                for place, (count, share) in enumerate(zip(row, parts, strict=True))
            ]
            for row, parts in zip(frame.itertuples(index=False), shares.itertuples(index=False), strict=True)
        ]
        return pd.DataFrame(cells, index=frame.index, columns=list(frame.columns))

    def summary(self) -> str:
        """Table, tests and measures as text."""
        head = (
            f"{self.rows} by {self.columns}: {count_text(self.num_records)} records at {len(self.sites)} sites, "
            f"{count_text(self.num_left_out)} left out"
        )
        lines = [head, "", self._printed().to_string(), ""]
        lines += [_test_line(test) for test in self.tests]
        lines += [f"{measure.name}: {_measure_text(measure)}" for measure in self.measures]
        if self.stratified is not None:
            lines += _stratified_lines(self.stratified)
        return "\n".join([*lines, "", *self.notes]) + "\n"

    def methods(self) -> str:
        """What was computed, for a methods section."""
        text = (
            f"The association of {self.rows.replace('_', ' ')} and {self.columns.replace('_', ' ')} was tested in the "
            "table of counts over all sites by Pearson's chi-square and likelihood-ratio (G) tests (Agresti 2013)"
        )
        if any(measure.name == "risk difference" for measure in self.measures):
            text += (
                " and Fisher's exact test, and measured by odds ratio, risk ratio (both with logarithmic intervals) "
                "and risk difference (Newcombe 1998)"
            )
        if self.stratified is not None:
            text += (
                f". Association within strata ({self.stratified.strata}) was tested after Cochran, Mantel and Haenszel "
                "(Mantel 1959), the common odds ratio has the interval of Robins (Robins 1986), and its homogeneity "
                "was tested after Breslow and Day with the correction of Tarone (Tarone 1985)"
            )
        return f"{text}."

    @property
    def references(self) -> tuple[str, ...]:
        """The papers behind the methods."""
        is_two = any(measure.name == "risk difference" for measure in self.measures)
        return (_AGRESTI, *((_NEWCOMBE,) if is_two else ()), *((_MANTEL, _ROBINS, _TARONE) if self.stratified else ()))

    def plot(self) -> Figure:
        """Stacked bars: how each row is divided among the columns; rows with hidden cells are left blank."""
        from matplotlib.figure import Figure

        shares = self.to_frame("row").iloc[:-1, :-1].head(MAX_DRAWN)
        figure = Figure(figsize=(6.5, 1.5 + 0.42 * len(shares)), layout="constrained")
        axes = figure.subplots()
        places, left = np.arange(len(shares)), np.zeros(len(shares))
        is_whole = shares.notna().all(axis=1).to_numpy()
        for number, level in enumerate(shares.columns):
            widths = np.where(is_whole, shares[level].fillna(0.0), 0.0)
            _draw_bars(axes, places, left, widths, number, str(level))
            left += widths
        for place in places[~is_whole]:
            axes.text(1, place, "hidden", va="center", fontsize="small", color="0.45")
        axes.set_yticks(places, [f"{level[:28]} ({count_text(n)})" for level, n in self._drawn_rows(len(shares))])
        for label in axes.get_yticklabels():
            label.set_parse_math(False)  # a dollar sign in a name is no mathematics
        axes.set(xlim=(0, 100), xlabel=f"share of the row (%), by {self.columns}", ylabel=self.rows)
        axes.invert_yaxis()
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        if len(shares.columns) <= len(HATCHES):
            figure.legend(
                frameon=False, fontsize="small", loc="outside upper center", ncols=min(len(shares.columns), 4)
            )
        return figure

    def _drawn_rows(self, num_rows: int) -> list[tuple[str, int | None]]:
        return list(zip(self.row_levels, self.row_totals, strict=True))[:num_rows]

    def exhibits(self) -> tuple[Exhibit, ...]:
        """Table of counts, table of statistics, and the figure."""
        title = f"{self.rows} by {self.columns}"
        statistics = [(test.name, _statistic_text(test), _p_text(test)) for test in self.tests]
        statistics += [(measure.name, _measure_text(measure), "") for measure in self.measures]
        if self.stratified is not None:
            statistics += _stratified_rows(self.stratified)
        heads = ["", f"value ({percent_text(self.confidence)} interval)", "P value"]
        first = next((f"{test.name}: P {_p_words(test)}." for test in self.tests), "")
        return (
            TableExhibit(title=f"{title}: records (% of the row)", frame=self._printed(), note=" ".join(self.notes)),
            TableExhibit(title=f"{title}: association", frame=pd.DataFrame(statistics, columns=heads).set_index("")),
            FigureExhibit(
                title=f"How {self.columns} is distributed in each level of {self.rows}",
                draw=self.plot,
                description=f"{len(self.row_levels)} rows and {len(self.column_levels)} columns. {first}".strip(),
            ),
        )


def _draw_bars(axes: Any, places: Any, left: Any, widths: Any, number: int, label: str) -> None:
    axes.barh(
        places,
        widths,
        0.62,
        left=left,
        color=f"C{number % 7}",
        alpha=0.85,
        hatch=HATCHES[number % len(HATCHES)],
        edgecolor="white",
        linewidth=0.6,
        label=label.replace("$", r"\$"),
    )


def _cell(count: int | None, share: float, *, is_total: bool) -> str:
    if count is None:
        return "hidden"
    return str(count) if is_total or np.isnan(share) else f"{count} ({share:.1f})"


def _p_text(test: AssociationTest) -> str:
    if test.p_low is not None and test.p_high is not None:
        return f"{p_text(test.p_low)} to {p_text(test.p_high)}"
    return "withheld" if test.p_value is None else p_text(test.p_value)


def _p_words(test: AssociationTest) -> str:
    text = _p_text(test)
    return text if text == "withheld" or not text[0].isdigit() else f"= {text}"


def _statistic_text(test: AssociationTest) -> str:
    if test.statistic is None:
        return "" if test.p_value is not None else "withheld"
    return f"{test.statistic:.4g} ({test.df} df)"


def _test_line(test: AssociationTest) -> str:
    statistic = _statistic_text(test)
    return f"{test.name}: {statistic}{', ' if statistic else ''}P {_p_words(test)}"


def _measure_text(measure: Measure) -> str:
    if measure.value is None:
        return "withheld or not defined"
    if measure.low is None or measure.high is None:
        return fixed_text(measure.value, 3)
    text = ratio_interval if measure.name.endswith("ratio") else interval_text
    return text(measure.value, measure.low, measure.high)


def _stratified_rows(found: StratifiedAssociation) -> list[tuple[str, str, str]]:
    """What is told of the association within strata: name, value, P value."""
    where = f"within {found.strata}"
    if found.p_low is not None and found.p_high is not None:
        return [(f"Cochran-Mantel-Haenszel test {where}", "withheld", f"{found.p_low:g} to {found.p_high:g}")]
    if found.statistic is None or found.p_value is None:
        reason = "withheld" if found.informative is None else "no stratum has two rows and two columns"
        return [(f"association {where}", reason, "")]
    statistic = f"{found.statistic:.4g} ({found.df} df)"
    rows = [(f"Cochran-Mantel-Haenszel test {where}", statistic, p_text(found.p_value))]
    if found.odds_ratio is not None and found.low is not None and found.high is not None:
        rows.append((f"common odds ratio {where}", ratio_interval(found.odds_ratio, found.low, found.high), ""))
    if found.homogeneity_p is not None:
        rows.append((f"homogeneity of the odds ratios {where}", "", p_text(found.homogeneity_p)))
    return rows


def _stratified_lines(found: StratifiedAssociation) -> list[str]:
    return [f"{name}: {', '.join(filter(None, (value, p and f'P {p}')))}" for name, value, p in _stratified_rows(found)]
