"""The result of an analysis of competing risks: incidence curves, numbers at risk and Gray's tests."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wardround.analytics.result import Exhibit, json_text, json_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidenceAt:
    """A cause in a group at one time; what the disclosure rules hide is None.

    Attributes:
        time: in the unit of the time.
        num_at_risk: under observation after it, free of all causes.
        num_events: events of the cause up to it.
        incidence: estimate; None also after the end of follow-up.
        low, high: its interval.
    """

    time: float
    num_at_risk: int | None
    num_events: int | None
    incidence: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidenceCurve:
    """One cause in one group, at the times at which it may be shown; arrays of shape (num_shown,).

    Attributes:
        group: level of the grouping variable, or "all".
        cause: value of the event variable.
        num_records: of the group; None where hidden, as the other counts.
        num_events: of the cause in the group.
        times: increasing; each stands for the interval since the one before.
        num_at_risk: under observation at the beginning of the interval, with those who entered in it.
        num_events_since: events of the cause in the interval.
        incidence: Aalen and Johansen's estimate.
        standard_error: of that.
        low, high: pointwise interval; NaN where there is none.
        at_times: numbers at risk.
        grid_error: how far the estimate from unrounded times may lie from this one; 0: times were not rounded.
    """

    group: str
    cause: str
    num_records: int | None
    num_events: int | None
    times: Values
    num_at_risk: tuple[int | None, ...]
    num_events_since: tuple[int | None, ...]
    incidence: Values
    standard_error: Values
    low: Values
    high: Values
    at_times: tuple[IncidenceAt, ...]
    grid_error: float

    @property
    def is_shown(self) -> bool:
        """Whether there is a curve to be shown."""
        return len(self.times) > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidenceTest:
    """Gray's test that all groups have the same incidence of a cause."""

    cause: str
    rho: float
    strata: tuple[str, ...]
    statistic: float
    df: int
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CumulativeIncidenceResult:
    """Cumulative incidences of competing causes, in one or more groups.

    Attributes:
        time: variable that holds the times.
        unit: of the times.
        event: variable whose values are the causes.
        causes: in the order of the curves.
        censored: the value that means censored.
        entry: variable of late entries.
        by: grouping variable.
        weights: variable of weights.
        curves: by group and cause.
        tests: by cause; none with one group, late entries or weights.
        num_records: with nothing missing; None where groups' counts would follow from it.
        num_left_out: records with a missing value.
        num_missing: by variable.
        step: distance of the points of the grid.
        confidence_type: scale of the intervals.
        confidence: of the intervals.
        minimum_cell: floor under which counts were hidden.
        sites: that answered.
        notes: what the reader should know.
    """

    time: str
    unit: str | None
    event: str
    causes: tuple[str, ...]
    censored: str
    entry: str | None
    by: str | None
    weights: str | None
    curves: tuple[IncidenceCurve, ...]
    tests: tuple[IncidenceTest, ...]
    num_records: int | None
    num_left_out: int | None
    num_missing: dict[str, int | None]
    step: float
    confidence_type: str
    confidence: float
    minimum_cell: int
    sites: tuple[str, ...]
    notes: tuple[str, ...]

    def curve(self, cause: str, group: str | None = None) -> IncidenceCurve:
        """The curve of a cause in a group; None: in the only one.

        Raises:
            ValueError: no such curve.
        """
        wanted = "all" if group is None and self.by is None else group
        for curve in self.curves:
            if (curve.cause, curve.group) == (cause, wanted):
                return curve
        known = [(curve.cause, curve.group) for curve in self.curves]
        raise ValueError(f"cause and group must be among {known}, got {(cause, group)}")

    def to_frame(self) -> pd.DataFrame:
        """The curves, a row a shown time; indexed by group, cause and time. Hidden counts are missing."""
        return pd.concat([_frame_of(curve) for curve in self.curves]).set_index(["group", "cause", "time"])

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return dict(json_value(asdict(self)))

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict())

    def summary(self) -> str:
        """Incidences at the chosen times and the tests, as text."""
        from wardround.analytics.cumulative_incidence_text import summary_text

        return summary_text(self)

    def plot(self) -> Figure:
        """The curves with their intervals, and the numbers at risk below. Needs matplotlib (the extra `report`)."""
        from wardround.analytics.cumulative_incidence_text import incidence_figure

        return incidence_figure(self)

    def methods(self) -> str:
        """What was computed, as a methods section says it."""
        from wardround.analytics.cumulative_incidence_text import methods_text

        return methods_text(self)

    @property
    def references(self) -> tuple[str, ...]:
        """Of the methods that were used."""
        from wardround.analytics.cumulative_incidence_text import references_of

        return references_of(self)

    def headlines(self) -> tuple[str, ...]:
        """The incidences at the last time at which all are shown, and the tests, in words."""
        from wardround.analytics.cumulative_incidence_text import headline_texts

        return headline_texts(self)

    def exhibits(self) -> tuple[Exhibit, ...]:
        """The curves, and the incidences at the chosen times."""
        from wardround.analytics.cumulative_incidence_text import incidence_exhibits

        return incidence_exhibits(self)


def _frame_of(curve: IncidenceCurve) -> pd.DataFrame:
    size = len(curve.times)
    return pd.DataFrame(
        {
            "group": pd.Series([curve.group] * size, dtype=object),
            "cause": pd.Series([curve.cause] * size, dtype=object),
            "time": curve.times,
            "num_at_risk": pd.array(list(curve.num_at_risk), dtype="Int64"),
            "num_events": pd.array(list(curve.num_events_since), dtype="Int64"),
            "incidence": curve.incidence,
            "standard_error": curve.standard_error,
            "low": curve.low,
            "high": curve.high,
        }
    )
