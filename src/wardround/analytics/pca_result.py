"""The result of a principal component analysis: weights, variances, how it prints and draws."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wardround.analytics.journal_text import count_text, fixed_text, listed
from wardround.analytics.result import Exhibit, FigureExhibit, TableExhibit, json_text, json_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
MAX_SHOWN = 8
"""Components that the printed tables show."""
REFERENCES = (
    (
        "Jolliffe IT, Cadima J (2016). Principal component analysis: a review and recent developments. Philosophical "
        "Transactions of the Royal Society A 374:20150202."
    ),
    "Jackson DA (1993). Stopping rules in principal components analysis. Ecology 74:2204-2214.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PCAResult:
    """Principal components.

    Attributes:
        variables: their names.
        is_scaled: whether the variables were divided by their standard deviations.
        mean: what is taken off before the projection, shape (num_variables,).
        scale: what is then divided by (the standard deviations, or ones if not scaled), same shape.
        standard_deviations: of the variables (denominator n - 1), same shape.
        components: weights of the variables, one component a row, of length 1; shape (num_components, num_variables).
        variances: of the components' scores (denominator n - 1), shape (num_components,).
        ratios: their shares of the total variance, same shape.
        total_variance: of all components, those not reported included.
        num_records: complete records, None where hidden.
        num_left_out: records with a missing value, None where hidden.
        sites: in every total.
        remarks: what is particular to these data.
    """

    variables: tuple[str, ...]
    is_scaled: bool
    mean: Floats
    scale: Floats
    standard_deviations: Floats
    components: Floats
    variances: Floats
    ratios: Floats
    total_variance: float
    num_records: int | None
    num_left_out: int | None
    sites: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The components' names: PC1, PC2 and so on."""
        return tuple(f"PC{j + 1}" for j in range(len(self.variances)))

    @property
    def broken_stick(self) -> Floats:
        """Shares of the pieces of a stick broken at random: components below them tell little (Jackson 1993).

        Shape (num_components,).
        """
        size = len(self.variables)
        shares = np.cumsum(1.0 / np.arange(size, 0, -1))[::-1] / size
        return shares[: len(self.variances)]

    @property
    def correlations(self) -> Floats:
        """Correlation of each variable with each component's score, shape (num_variables, num_components)."""
        in_own_units = self.components.T * np.sqrt(self.variances) * self.scale[:, None]
        return in_own_units / self.standard_deviations[:, None]

    @property
    def notes(self) -> tuple[str, ...]:
        """How to read the components."""
        matrix = "correlation" if self.is_scaled else "covariance"
        return (
            f"Components of the {matrix} matrix of complete records; the largest weight of each is positive.",
            *self.remarks,
        )

    def transform(self, records: pd.DataFrame) -> pd.DataFrame:
        """Scores of records, where they are: a column a component, NaN where a variable is missing.

        Args:
            records: has a column for each variable, in the contract's units (dates as days since 1970-01-01).

        Raises:
            KeyError: a variable is not among the columns.
        """
        values = (records[list(self.variables)].to_numpy(np.float64) - self.mean) / self.scale
        return pd.DataFrame(values @ self.components.T, index=records.index, columns=list(self.names))

    def to_frame(self) -> pd.DataFrame:
        """Weights: a row a variable, a column a component."""
        index = pd.Index(self.variables, name="variable")
        return pd.DataFrame(self.components.T, index=index, columns=list(self.names))

    def variance_frame(self) -> pd.DataFrame:
        """A row a component: variance, standard_deviation, ratio, cumulative_ratio, broken_stick."""
        return pd.DataFrame(
            {
                "variance": self.variances,
                "standard_deviation": np.sqrt(self.variances),
                "ratio": self.ratios,
                "cumulative_ratio": np.cumsum(self.ratios),
                "broken_stick": self.broken_stick,
            },
            index=pd.Index(self.names, name="component"),
        )

    def to_dict(self) -> dict[str, Any]:
        """All attributes as JSON values."""
        return dict(json_value(asdict(self)))

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict())

    def summary(self) -> str:
        """Variances and weights as text, the first components."""
        head = (
            f"Principal components of {len(self.variables)} variables: {count_text(self.num_records)} complete records "
            f"at {len(self.sites)} sites, {count_text(self.num_left_out)} left out"
        )
        shares = self.variance_frame().head(MAX_SHOWN).T
        weights = self.to_frame().iloc[:, :MAX_SHOWN]
        parts = [head, "", shares.to_string(float_format="{:.4f}".format)]
        parts += ["", "Weights", weights.to_string(float_format="{:.3f}".format), ""]
        return "\n".join([*parts, *self.notes]) + "\n"

    def methods(self) -> str:
        """What was computed, for a methods section."""
        matrix = "correlation" if self.is_scaled else "covariance"
        return (
            f"Principal components of {listed([name.replace('_', ' ') for name in self.variables[:12]])}"
            f"{' and others' if len(self.variables) > 12 else ''} were computed (Jolliffe 2016) from the {matrix} "
            "matrix of the complete records of all sites, which was assembled from sums over sites and equals that of "
            "the pooled records. Shares of the variance are shown beside those of a randomly broken stick "
            "(Jackson 1993)."
        )

    @property
    def references(self) -> tuple[str, ...]:
        """The papers behind the methods."""
        return REFERENCES

    def plot(self) -> Figure:
        """Scree plot, and the weights of the first two components."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.8, max(3.4, 1.3 + 0.22 * min(len(self.variables), 40))), layout="constrained")
        scree, weights = figure.subplots(1, 2, width_ratios=(1, 1.25))
        self._draw_scree(scree)
        self._draw_weights(weights)
        return figure

    def _draw_scree(self, axes: Any) -> None:
        ranks = np.arange(1, len(self.variances) + 1)
        axes.plot(ranks, 100 * self.ratios, "o-", color="C0", markersize=4, label="components")
        axes.plot(ranks, 100 * self.broken_stick, "--", color="0.45", linewidth=1, label="broken stick")
        axes.set_xlabel("component")
        axes.set_ylabel("share of the variance (%)")
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="x", integer=True)
        axes.legend(frameon=False, fontsize="small")
        axes.spines[["top", "right"]].set_visible(False)

    def _draw_weights(self, axes: Any) -> None:
        shown = self.to_frame().iloc[:40, :2]
        places = np.arange(len(shown))
        for number, (name, marker) in enumerate(zip(shown.columns, "os", strict=False)):
            axes.plot(
                shown[name], places, marker, color=f"C{number}", markersize=5, label=f"{name} ({self._share(number)})"
            )
        axes.axvline(0, color="0.45", linewidth=0.8)
        axes.set_yticks(places, [name[:28] for name in shown.index])
        for label in axes.get_yticklabels():
            label.set_parse_math(False)  # a dollar sign in a name is no mathematics
        axes.invert_yaxis()
        axes.grid(axis="y", color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel("weight")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.legend(frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    def _share(self, number: int) -> str:
        return f"{100 * self.ratios[number]:.0f}%"

    def exhibits(self) -> tuple[Exhibit, ...]:
        """Shares of the variance, weights, and the figure."""
        shares = self.variance_frame().head(MAX_SHOWN)
        shown = pd.DataFrame(
            {
                "Variance": [fixed_text(value, 3) for value in shares.variance],
                "Share (%)": [fixed_text(100 * value, 1) for value in shares.ratio],
                "Cumulative (%)": [fixed_text(100 * value, 1) for value in shares.cumulative_ratio],
            },
            index=shares.index,
        )
        weights = self.to_frame().iloc[:, :MAX_SHOWN].map(lambda value: fixed_text(value, 2))
        note = f"{count_text(self.num_records)} complete records. " + " ".join(self.notes)
        first = f"{self.names[0]} explains {self._share(0)} of the variance"
        cumulative = f"the first {min(2, len(self.names))} explain {100 * self.ratios[:2].sum():.0f}%"
        return (
            TableExhibit(title="Principal components: variance explained", frame=shown, note=note),
            TableExhibit(title="Principal components: weights of the variables", frame=weights),
            FigureExhibit(
                title="Scree plot and weights of the first components",
                draw=self.plot,
                description=f"{first}, {cumulative}.",
            ),
        )
