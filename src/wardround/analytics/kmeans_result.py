"""The result of k-means: centres, sizes, how well they part the records, how it prints and draws."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wardround.analytics.journal_text import count_text, decimals_for, fixed_text, listed
from wardround.analytics.result import Exhibit, FigureExhibit, TableExhibit, json_text, json_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
MAX_DRAWN = 40
"""Variables that the figure shows."""
MARKERS = "osD^vPX<>*"
REFERENCES = (
    "Lloyd SP (1982). Least squares quantization in PCM. IEEE Transactions on Information Theory 28:129-137.",
    "Arthur D, Vassilvitskii S (2007). k-means++: the advantages of careful seeding. Proceedings of SODA:1027-1035.",
    "Calinski T, Harabasz J (1974). A dendrite method for cluster analysis. Communications in Statistics 3:1-27.",
    (
        "Hruschka ER, de Castro LN, Campello RJGB (2004). Evolutionary algorithms for clustering gene-expression data. "
        "Proceedings of ICDM 2004:403-406."
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """One cluster.

    Attributes:
        name: its number, from 1.
        num_records: nearest to its centre, None where hidden.
        center: mean of its records in the variables' own units, shape (num_variables,).
        inertia: sum of their squared distances from the centre.
        silhouette: mean simplified silhouette: 1 less the ratio of the distances from the own and the next centre.
    """

    name: str
    num_records: int | None
    center: Floats
    inertia: float
    silhouette: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KMeansResult:
    """Clusters of records around centres.

    Attributes:
        variables: their names.
        units: as the contract has them.
        is_scaled: whether distances are of variables divided by their standard deviations.
        mean: of the complete records, shape (num_variables,).
        standard_deviation: denominator n - 1, same shape.
        clusters: largest first, or in the order of the given first centres.
        inertia: sum of squared distances of the records from their centres.
        total_sum_of_squares: of their squared distances from the mean.
        calinski_harabasz: ratio of the variances between and within the clusters; None where nothing varies within.
        silhouette: mean simplified silhouette, in [0, 1].
        num_iterations: steps of the start that is reported.
        is_settled: whether it had come to rest.
        has_given_centers: whether the first centres were given rather than drawn.
        starts_made: how many.
        starts_alike: that found clusters of this inertia, the reported one included.
        starts_given_up: whose clusters kept becoming too small.
        is_redrawn: whether a cluster of the reported start was drawn anew, because it was too small.
        num_records: complete records, None where hidden.
        num_left_out: records with a missing value, None where hidden.
        sites: in every total.
    """

    variables: tuple[str, ...]
    units: tuple[str | None, ...]
    is_scaled: bool
    mean: Floats
    standard_deviation: Floats
    clusters: tuple[Cluster, ...]
    inertia: float
    total_sum_of_squares: float
    calinski_harabasz: float | None
    silhouette: float
    num_iterations: int
    is_settled: bool
    has_given_centers: bool
    starts_made: int
    starts_alike: int
    starts_given_up: int
    is_redrawn: bool
    num_records: int | None
    num_left_out: int | None
    sites: tuple[str, ...]

    @property
    def centers(self) -> Floats:
        """Centres in the variables' own units, shape (num_clusters, num_variables)."""
        return np.array([cluster.center for cluster in self.clusters])

    @property
    def explained(self) -> float:
        """Share of the squared distances from the mean that lies between the clusters."""
        return 1 - self.inertia / self.total_sum_of_squares

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader should know."""
        distances = "standard deviations of the variables" if self.is_scaled else "the variables' own units"
        said = [
            (True, f"Distances are in {distances}; complete records only."),
            (not self.is_settled, f"The centres still moved after {self.num_iterations} steps; allow more of them."),
            (self.is_redrawn, "A cluster became too small on the way and was drawn anew."),
            (
                self.starts_given_up > 0,
                f"{self.starts_given_up} of {self.starts_made} starts were given up: their clusters were too small.",
            ),
            (
                self.starts_made > 1 and self.starts_alike == 1,
                "No other start found these clusters; more restarts may find better ones.",
            ),
        ]
        return tuple(text for holds, text in said if holds)

    def assign(self, records: pd.DataFrame) -> pd.Series:
        """The cluster of each record, where the records are: its name, None where a variable is missing.

        Args:
            records: has a column for each variable, in the contract's units (dates as days since 1970-01-01).

        Raises:
            KeyError: a variable is not among the columns.
        """
        units = self.standard_deviation if self.is_scaled else 1.0
        values = records[list(self.variables)].to_numpy(np.float64)
        distances = np.stack([(((values - c.center) / units) ** 2).sum(axis=1) for c in self.clusters], axis=1)
        is_known = ~np.isnan(distances).any(axis=1)
        nearest = np.where(is_known, distances.argmin(axis=1), -1)
        labels = [self.clusters[j].name if j >= 0 else None for j in nearest]
        return pd.Series(labels, index=records.index, name="cluster", dtype=object)

    def to_frame(self) -> pd.DataFrame:
        """A row a cluster: num_records, inertia, silhouette, then its centre, a column a variable."""
        index = pd.Index([cluster.name for cluster in self.clusters], name="cluster")
        sizes = pd.array([cluster.num_records for cluster in self.clusters], dtype="Int64")
        described = pd.DataFrame(
            {
                "num_records": sizes,
                "inertia": [cluster.inertia for cluster in self.clusters],
                "silhouette": [cluster.silhouette for cluster in self.clusters],
            },
            index=index,
        )
        return described.join(
            pd.DataFrame(self.centers, index=index, columns=list(self.variables)), rsuffix=" (centre)"
        )

    def to_dict(self) -> dict[str, Any]:
        """All attributes as JSON values."""
        return dict(json_value(asdict(self)))

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict())

    def summary(self) -> str:
        """The clusters as text."""
        head = (
            f"{len(self.clusters)} clusters of {count_text(self.num_records)} complete records at {len(self.sites)} "
            f"sites, {count_text(self.num_left_out)} left out"
        )
        index = "n/a" if self.calinski_harabasz is None else f"{self.calinski_harabasz:.4g}"
        fit = (
            f"Inertia {self.inertia:.6g}, {100 * self.explained:.1f}% of the squared distances between the clusters; "
            f"silhouette {self.silhouette:.3f}; Calinski-Harabasz {index}"
        )
        starts = f"{self.starts_alike} of {self.starts_made} starts found these clusters"
        return "\n".join([head, fit, starts, "", self._table().to_string(), "", *self.notes]) + "\n"

    def _table(self) -> pd.DataFrame:
        """Centres as they are printed: a row a variable, a column a cluster."""
        rows = {"records": [count_text(cluster.num_records) for cluster in self.clusters]}
        for j, (name, unit) in enumerate(zip(self.variables, self.units, strict=True)):
            decimals = decimals_for(float(self.standard_deviation[j]))
            rows[f"{name}, {unit}" if unit else name] = [fixed_text(value, decimals) for value in self.centers[:, j]]
        return pd.DataFrame.from_dict(rows, orient="index", columns=[f"cluster {c.name}" for c in self.clusters])

    def methods(self) -> str:
        """What was computed, for a methods section."""
        scaled = "each divided by its standard deviation, " if self.is_scaled else ""
        names = listed([name.replace("_", " ") for name in self.variables[:12]])
        others = " and others" if len(self.variables) > 12 else ""
        starts = (
            "from given first centres"
            if self.has_given_centers
            else f"the best of {self.starts_made} starts from centres drawn far apart (Arthur 2007) from a normal "
            "distribution with the records' means and covariances"
        )
        return (
            f"Complete records were grouped by {names}{others}, {scaled}into {len(self.clusters)} clusters by k-means "
            f"(Lloyd 1982), {starts}. Centres were updated from sums over all sites and equal those of the pooled "
            "records. Clusters are judged by the index of Calinski and Harabasz (Calinski 1974) and the simplified "
            "silhouette (Hruschka 2004)."
        )

    @property
    def references(self) -> tuple[str, ...]:
        """The papers behind the methods."""
        return REFERENCES

    def plot(self) -> Figure:
        """The clusters' centres, variable by variable, in standard deviations from the mean of all."""
        from matplotlib.figure import Figure

        names = self.variables[:MAX_DRAWN]
        figure = Figure(figsize=(6.5, 1.6 + 0.34 * len(names)), layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(names))
        standardised = ((self.centers - self.mean) / self.standard_deviation)[:, : len(names)]
        for number, (cluster, values) in enumerate(zip(self.clusters, standardised, strict=True)):
            label = f"{cluster.name} ({count_text(cluster.num_records)})"
            marker = MARKERS[number % len(MARKERS)]
            axes.plot(values, places, marker, color=f"C{number % 7}", markersize=6, alpha=0.9, label=label)
        axes.hlines(places, standardised.min(axis=0), standardised.max(axis=0), color="0.8", linewidth=1, zorder=0)
        axes.axvline(0, color="0.45", linewidth=0.8, zorder=0)
        axes.set_yticks(places, [name[:28] for name in names])
        for tick in axes.get_yticklabels():
            tick.set_parse_math(False)  # a dollar sign in a name is no mathematics
        axes.invert_yaxis()
        axes.margins(y=0.5 / max(len(names), 1))
        axes.set_xlabel("centre, in standard deviations from the mean")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        if len(self.clusters) <= 12:
            figure.legend(title="Cluster (records)", frameon=False, fontsize="small", loc="outside right upper")
        return figure

    def exhibits(self) -> tuple[Exhibit, ...]:
        """The centres as a table, and the figure."""
        sizes = listed([f"{count_text(cluster.num_records)}" for cluster in self.clusters])
        return (
            TableExhibit(title="Clusters: means of the variables", frame=self._table(), note=" ".join(self.notes)),
            FigureExhibit(
                title="Centres of the clusters",
                draw=self.plot,
                description=(
                    f"{len(self.clusters)} clusters of {sizes} records, between which lie {100 * self.explained:.0f}% "
                    f"of the squared distances from the mean; mean silhouette {self.silhouette:.2f}."
                ),
            ),
        )
