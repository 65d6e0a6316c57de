"""The result of a correlation analysis: every two variables' correlation, how it prints and draws."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wardround.analytics.journal_text import count_text, fixed_text, listed, p_text, percent_text
from wardround.analytics.result import Exhibit, FigureExhibit, TableExhibit, json_text, json_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
Method: TypeAlias = Literal["pearson", "spearman", "kendall"]
Missing: TypeAlias = Literal["pairwise", "listwise"]

MAX_DRAWN = 24
"""Variables that the figure shows."""
MAX_LISTED = 60
"""Pairs that the printed tables show: the strongest."""
TITLES = {"pearson": "Pearson's r", "spearman": "Spearman's rho", "kendall": "Kendall's tau-b"}
_FISHER = (
    "Fisher RA (1921). On the probable error of a coefficient of correlation deduced from a small sample. "
    "Metron 1:3-32."
)
_BONETT = (
    "Bonett DG, Wright TA (2000). Sample size requirements for estimating Pearson, Kendall and Spearman correlations. "
    "Psychometrika 65:23-28."
)
_KENDALL = "Kendall MG (1970). Rank Correlation Methods, 4th edition. Griffin, London."


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The correlation of two variables.

    Attributes:
        first: one variable.
        second: the other one.
        num_records: that it is of, None where hidden (then nothing else is told either).
        value: the correlation; None where a variable is constant in these records.
        low: lower end of the interval; None where the records are too few for one.
        high: upper end.
        p_value: of no association, two-sided.
        bound: how far the pooled records' correlation may be from `value`; 0: up to rounding.
    """

    first: str
    second: str
    num_records: int | None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    bound: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrelationResult:
    """Correlations of every two variables.

    Attributes:
        variables: their names.
        method: which correlation.
        missing: which records each is of.
        partial: variables held constant.
        pairs: of each two variables, in the variables' order.
        num_records: complete records ("listwise"), None where hidden or where each pair has its own.
        num_left_out: records that are not complete; None where hidden or not counted.
        minimum_cell: least number of records that anything is told of.
        confidence: of the intervals.
        sites: in every total.
    """

    variables: tuple[str, ...]
    method: Method
    missing: Missing
    partial: tuple[str, ...]
    pairs: tuple[Pair, ...]
    num_records: int | None
    num_left_out: int | None
    minimum_cell: int
    confidence: float
    sites: tuple[str, ...]

    def pair(self, first: str, second: str) -> Pair:
        """The correlation of two variables, in either order. Raises `KeyError`."""
        for pair in self.pairs:
            if {pair.first, pair.second} == {first, second}:
                return pair
        raise KeyError(f"{first}, {second}")

    def matrix(self) -> pd.DataFrame:
        """Correlations, 1 on the diagonal, NaN where there is none; rows and columns are the variables."""
        values = np.eye(len(self.variables))
        place = {name: number for number, name in enumerate(self.variables)}
        for pair in self.pairs:
            i, j = place[pair.first], place[pair.second]
            values[i, j] = values[j, i] = np.nan if pair.value is None else pair.value
        return pd.DataFrame(values, index=list(self.variables), columns=list(self.variables))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader should know."""
        notes = [
            "Each correlation is of the records in which both variables are known."
            if self.missing == "pairwise"
            else f"Of {count_text(self.num_records)} records in which all variables are known."
        ]
        bound = max((pair.bound for pair in self.pairs), default=0.0)
        if bound > 0:
            notes.append(f"From ranks in bins: within {bound:.1g} of the pooled records' correlations, or nearer.")
        if any(pair.num_records is None for pair in self.pairs):
            notes.append(f"Correlations of 1 to {self.minimum_cell - 1} records are hidden.")
        if any(pair.value is None and pair.num_records is not None for pair in self.pairs):
            notes.append("There is no correlation where a variable is the same in all records of the pair.")
        return tuple(notes)

    def to_frame(self) -> pd.DataFrame:
        """A row a pair (first, second): num_records, value, low, high, p_value, bound."""
        frame = pd.DataFrame([asdict(pair) for pair in self.pairs]).set_index(["first", "second"])
        kinds: dict[str, Any] = dict.fromkeys(("value", "low", "high", "p_value"), float)
        return frame.astype({**kinds, "num_records": "Int64"})

    def to_dict(self) -> dict[str, Any]:
        """All attributes as JSON values."""
        return dict(json_value(asdict(self)))

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict())

    @property
    def _title(self) -> str:
        return ("Partial correlations" if self.partial else "Correlations") + f" ({TITLES[self.method]})"

    def _strongest(self) -> list[Pair]:
        return sorted(self.pairs, key=lambda pair: -abs(pair.value or 0.0))[:MAX_LISTED]

    def _table(self, pairs: list[Pair]) -> pd.DataFrame:
        """Pairs as they are printed."""
        nothing = float("nan")
        rows = [
            (
                f"{pair.first}, {pair.second}",
                count_text(pair.num_records),
                fixed_text(nothing if pair.value is None else pair.value, 3),
                ""
                if pair.low is None or pair.high is None
                else f"{fixed_text(pair.low, 3)} to {fixed_text(pair.high, 3)}",
                p_text(nothing if pair.p_value is None else pair.p_value),
            )
            for pair in pairs
        ]
        heads = ["pair", "records", TITLES[self.method], f"{percent_text(self.confidence)} interval", "P value"]
        return pd.DataFrame(rows, columns=heads).set_index("pair")

    def summary(self) -> str:
        """The pairs as text, the strongest first."""
        held = f", {listed(self.partial)} held constant" if self.partial else ""
        head = f"{self._title} of {len(self.variables)} variables at {len(self.sites)} sites{held}"
        shown = self._strongest()
        lines = [head, "", self._table(shown).to_string(), ""]
        if len(shown) < len(self.pairs):
            lines.append(f"The {len(shown)} strongest of {len(self.pairs)} are shown.")
        return "\n".join([*lines, *self.notes]) + "\n"

    def methods(self) -> str:
        """What was computed, for a methods section."""
        of = "records in which both variables were known" if self.missing == "pairwise" else "complete records"
        held = f", with {listed(self.partial)} held constant" if self.partial else ""
        how = {
            "pearson": "from sums of products over all sites, with intervals by the z transformation (Fisher 1921)",
            "spearman": "from ranks that counts over all sites gave, with intervals after Bonett (Bonett 2000)",
            "kendall": "as tau-b (Kendall 1970) from tables over all sites, with intervals after Bonett (Bonett 2000)",
        }[self.method]
        return f"Correlations ({TITLES[self.method]}) were computed {how}{held}, of {of}."

    @property
    def references(self) -> tuple[str, ...]:
        """The papers behind the methods."""
        return {"pearson": (_FISHER,), "spearman": (_BONETT,), "kendall": (_KENDALL, _BONETT)}[self.method]

    def plot(self) -> Figure:
        """Heat map of the correlations with their numbers, the lower triangle."""
        from matplotlib.figure import Figure

        matrix = self.matrix().iloc[:MAX_DRAWN, :MAX_DRAWN]
        size = len(matrix)
        figure = Figure(figsize=(max(3.6, 1.6 + 0.48 * size), max(2.8, 1.0 + 0.42 * size)), layout="constrained")
        axes = figure.subplots()
        values = matrix.to_numpy()
        _draw_cells(axes, values)
        axes.set_xticks(range(size - 1), [name[:20] for name in matrix.columns[:-1]], rotation=40, ha="right")
        axes.set_yticks(range(1, size), [name[:20] for name in matrix.index[1:]])
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            label.set_parse_math(False)  # a dollar sign in a name is no mathematics
        axes.set(xlim=(-0.5, size - 1.5), ylim=(size - 0.5, 0.5), aspect="equal")
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_title(self._title, fontsize="medium", loc="left")
        return figure

    def exhibits(self) -> tuple[Exhibit, ...]:
        """The pairs, strongest first, and the heat map."""
        shown = self._strongest()
        known = [pair for pair in shown if pair.value is not None][:3]
        strongest = listed([f"{pair.first} with {pair.second} ({fixed_text(pair.value or 0.0, 2)})" for pair in known])
        part = f" The first {MAX_DRAWN} variables are drawn." if len(self.variables) > MAX_DRAWN else ""
        return (
            TableExhibit(title=self._title, frame=self._table(shown), note=" ".join(self.notes)),
            FigureExhibit(
                title=f"{self._title}: heat map",
                draw=self.plot,
                description=(f"Strongest: {strongest}." if known else "No correlation could be computed.") + part,
            ),
        )


def _draw_cells(axes: Any, values: Floats) -> None:
    """A square a pair, as strong as its colour is opaque; positive and negative ones differ in colour and sign."""
    from matplotlib.patches import Rectangle

    for i in range(len(values)):
        for j in range(i):
            value = values[i, j]
            if np.isnan(value):
                axes.text(j, i, "\N{EN DASH}", ha="center", va="center", fontsize=8, color="0.45")
                continue
            colour = "C0" if value >= 0 else "C1"
            strength = 0.75 * abs(value)  # never so dark that black numbers could not be read on it
            axes.add_patch(Rectangle((j - 0.48, i - 0.48), 0.96, 0.96, facecolor=colour, alpha=strength, linewidth=0))
            axes.text(j, i, fixed_text(value, 2), ha="center", va="center", fontsize=8, color="black")
