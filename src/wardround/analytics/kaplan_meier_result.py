"""The result of a survival analysis: curves, numbers at risk, quantiles, restricted means and the test."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wardround.analytics.kaplan_meier_estimate import RestrictedMean
from wardround.analytics.log_rank import TEST_NAMES
from wardround.analytics.result import Exhibit, json_text, json_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SurvivalQuantile:
    """The time by which a part of a group has had the event.

    Attributes:
        probability: that part; 0.5 for the median.
        time: None where the curve does not come down so far.
        low, high: limits of the interval; None where its limits do not come down so far.
    """

    probability: float
    time: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AtTime:
    """A group at one time; what the disclosure rules hide is None.

    Attributes:
        time: in the unit of the time.
        num_at_risk: under observation after it.
        num_events: events up to it.
        num_censored: censored up to it.
        survival: estimate; None also after the end of follow-up.
        low, high: its interval.
    """

    time: float
    num_at_risk: int | None
    num_events: int | None
    num_censored: int | None
    survival: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SurvivalCurve:
    """One group's curve at the times at which it may be shown; arrays of shape (num_shown,).

    Attributes:
        group: level of the grouping variable, or "all".
        num_records: of the group; None where hidden, as the other counts.
        num_events: of those.
        num_censored: of those.
        times: increasing; each stands for the interval since the one before.
        num_at_risk: under observation at the beginning of the interval, with those who entered in it.
        num_events_since: events in the interval.
        num_censored_since: censored in the interval.
        survival: Kaplan and Meier's estimate.
        standard_error: Greenwood's, or robust where weights are not whole; NaN where the survival is 0.
        low, high: pointwise interval; NaN where there is none.
        cumulative_hazard: Nelson and Aalen's estimate.
        cumulative_hazard_error: its standard error.
        quantiles: times by which parts of the group have had the event, but those between which too few had it.
        restricted_mean: mean survival time up to the horizon; None where not wanted, hidden, or not defined.
        at_times: numbers at risk.
        grid_error: how far the estimate from unrounded times may lie from this one; 0: times were not rounded.
    """

    group: str
    num_records: int | None
    num_events: int | None
    num_censored: int | None
    times: Values
    num_at_risk: tuple[int | None, ...]
    num_events_since: tuple[int | None, ...]
    num_censored_since: tuple[int | None, ...]
    survival: Values
    standard_error: Values
    low: Values
    high: Values
    cumulative_hazard: Values
    cumulative_hazard_error: Values
    quantiles: tuple[SurvivalQuantile, ...]
    restricted_mean: RestrictedMean | None
    at_times: tuple[AtTime, ...]
    grid_error: float

    @property
    def is_shown(self) -> bool:
        """Whether there is a curve to be shown."""
        return len(self.times) > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TestGroup:
    """One group in a test; None where hidden."""

    __test__ = False  # its name is not that of a pytest class

    group: str
    num_records: int | None
    observed: float | None
    expected: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SurvivalTest:
    """A test that all groups have the same survival.

    Attributes:
        test: its name.
        rho, gamma: exponents of a Fleming-Harrington test.
        strata: within whose levels the groups were compared.
        statistic: chi-squared.
        df: degrees of freedom.
        p_value: of the test.
        groups: observed and expected events, weighted as the test is.
    """

    test: str
    rho: float
    gamma: float
    strata: tuple[str, ...]
    statistic: float
    df: int
    p_value: float
    groups: tuple[TestGroup, ...]

    @property
    def title(self) -> str:
        """Its name in words."""
        exponents = f" (rho = {self.rho:g}, gamma = {self.gamma:g})" if self.test == "fleming-harrington" else ""
        return f"{'stratified ' * bool(self.strata)}{TEST_NAMES[self.test]}{exponents}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanDifference:
    """Difference of two groups' restricted mean survival times."""

    group: str
    reference: str
    estimate: float
    standard_error: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KaplanMeierResult:
    """Survival curves of one or more groups.

    Attributes:
        time: variable that holds the times.
        unit: of the times.
        event: what counted as the event.
        entry: variable of late entries.
        by: grouping variable.
        weights: variable of weights.
        curves: by group.
        test: that the groups are alike; None with one group.
        mean_differences: of restricted mean survival times, against the first group.
        num_records: with nothing missing; None where groups' counts would follow from it.
        num_events: of those, likewise.
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
    entry: str | None
    by: str | None
    weights: str | None
    curves: tuple[SurvivalCurve, ...]
    test: SurvivalTest | None
    mean_differences: tuple[MeanDifference, ...]
    num_records: int | None
    num_events: int | None
    num_left_out: int | None
    num_missing: dict[str, int | None]
    step: float
    confidence_type: str
    confidence: float
    minimum_cell: int
    sites: tuple[str, ...]
    notes: tuple[str, ...]

    def curve(self, group: str | None = None) -> SurvivalCurve:
        """The curve of a group; None: of the only one.

        Raises:
            ValueError: no such group.
        """
        for curve in self.curves:
            if curve.group == group or (group is None and len(self.curves) == 1):
                return curve
        raise ValueError(f"group must be one of {[curve.group for curve in self.curves]}, got {group!r}")

    def to_frame(self) -> pd.DataFrame:
        """The curves, a row a shown time; indexed by group and time. Hidden counts are missing."""
        return pd.concat([_frame_of(curve) for curve in self.curves]).set_index(["group", "time"])

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return dict(json_value(asdict(self)))

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict())

    def summary(self) -> str:
        """Groups with their medians, the test and the numbers at risk, as text."""
        from wardround.analytics.kaplan_meier_text import summary_text

        return summary_text(self)

    def plot(self) -> Figure:
        """The curves with their intervals, and the numbers at risk below. Needs matplotlib (the extra `report`).

        In steps where every time is shown; else with straight lines between the times that are.
        """
        from wardround.analytics.survival_plot import survival_figure

        return survival_figure(self)

    def methods(self) -> str:
        """What was computed, as a methods section says it."""
        from wardround.analytics.kaplan_meier_text import methods_text

        return methods_text(self)

    @property
    def references(self) -> tuple[str, ...]:
        """Of the methods that were used."""
        from wardround.analytics.kaplan_meier_text import references_of

        return references_of(self)

    def headlines(self) -> tuple[str, ...]:
        """Medians and the test, in words."""
        from wardround.analytics.kaplan_meier_text import headline_texts

        return headline_texts(self)

    def exhibits(self) -> tuple[Exhibit, ...]:
        """The curves, the groups, the numbers at risk."""
        from wardround.analytics.kaplan_meier_text import survival_exhibits

        return survival_exhibits(self)


def _frame_of(curve: SurvivalCurve) -> pd.DataFrame:
    counts = {
        "num_at_risk": curve.num_at_risk,
        "num_events": curve.num_events_since,
        "num_censored": curve.num_censored_since,
    }
    return pd.DataFrame(
        {
            "group": pd.Series([curve.group] * len(curve.times), dtype=object),
            "time": curve.times,
            **{name: pd.array(list(values), dtype="Int64") for name, values in counts.items()},
            "survival": curve.survival,
            "standard_error": curve.standard_error,
            "low": curve.low,
            "high": curve.high,
            "cumulative_hazard": curve.cumulative_hazard,
            "cumulative_hazard_error": curve.cumulative_hazard_error,
        }
    )
