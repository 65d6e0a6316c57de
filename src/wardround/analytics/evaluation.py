"""The result of an evaluation: what a model is worth at the sites, as numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wardround.analytics.calibration import CalibrationGroup, SmoothCalibration
from wardround.analytics.decision_curve import ThresholdResult
from wardround.analytics.discrimination import Discrimination, Estimate
from wardround.analytics.result import Exhibit, json_text, json_value
from wardround.analytics.scoring_model import Scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = NDArray[np.float64]

NONE = Estimate()


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """What a model is worth in some records; figures that there are none of are `None` inside.

    Attributes:
        num_records: complete records.
        num_events: of them, with the event.
        observed_risk: part with the event.
        mean_predicted: mean prediction.
        auroc: area under the ROC curve.
        average_precision: mean precision at the events.
        brier: mean squared error of the predictions.
        scaled_brier: 1 less the Brier score over that of predicting the observed risk for all.
        log_loss: mean negative log-likelihood a record.
        observed_over_expected: events over the sum of the predictions.
        calibration_in_the_large: intercept of the outcome given the logit of the prediction; 0 is perfect.
        calibration_intercept: intercept of the fit that has a slope as well; 0 is perfect.
        calibration_slope: slope of that fit; 1 is perfect, less is predictions too extreme.
        calibration_p: that intercept and slope are 0 and 1, by the likelihood ratio.
        spiegelhalter_z: Spiegelhalter's statistic.
        spiegelhalter_p: its two-sided p-value.
    """

    num_records: int
    num_events: int
    observed_risk: float
    mean_predicted: float | None
    auroc: Discrimination
    average_precision: Discrimination
    brier: Estimate = NONE
    scaled_brier: float | None = None
    log_loss: Estimate = NONE
    observed_over_expected: Estimate = NONE
    calibration_in_the_large: Estimate = NONE
    calibration_intercept: Estimate = NONE
    calibration_slope: Estimate = NONE
    calibration_p: float | None = None
    spiegelhalter_z: float | None = None
    spiegelhalter_p: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPerformance:
    """A subgroup or a site.

    Attributes:
        variable: the grouping variable; "site" for the sites.
        level: its level.
        performance: None where the group is hidden.
    """

    variable: str
    level: str
    performance: Performance | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A group's figure less that of the reference group, the first that is shown of its variable."""

    variable: str
    level: str
    reference: str
    figure: str
    difference: Estimate
    p_value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualityTest:
    """A test that a figure is the same in all shown groups of a variable: chi-squared, by inverse variances."""

    variable: str
    figure: str
    statistic: float
    df: int
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreCurve:
    """What is shown of the order of the scores, cut by cut from the lowest.

    Attributes:
        cuts: scores, increasing, shape (num_cuts,).
        sensitivity: part of the events at or above each.
        false_positive_rate: part of the others at or above.
        precision: part with the event of those at or above; NaN of none.
        events_between: part of the events in each cell between cuts, shape (num_cuts + 1,).
        others_between: part of the others, likewise.
    """

    cuts: Values
    sensitivity: Values
    false_positive_rate: Values
    precision: Values
    events_between: Values
    others_between: Values


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A model scored at the sites.

    Attributes:
        model_name: of the model.
        model_kind: "linear" or "onnx".
        model_digest: SHA-256 of the model, in hexadecimal.
        outcome: what counts as the event.
        scale: whether the model predicts a probability or a score.
        overall: everybody.
        groups: subgroups, then sites.
        differences: between groups.
        equality_tests: over all shown groups of a variable.
        curve: sensitivity and the like at the cuts that may be shown.
        thresholds: figures at the thresholds that may be shown, increasing.
        chosen: those of them that were asked for.
        calibration_groups: of about equal size.
        smooth: the calibration curve; None where it cannot be estimated.
        brier_parts: reliability, resolution, uncertainty, and what is within the groups.
        hosmer_lemeshow: statistic, degrees of freedom and p-value; None where there are few groups.
        num_records: at the sites; None: hidden.
        num_left_out: records with a missing value; None: hidden.
        num_missing: by variable, records in which it is missing; None: hidden.
        num_bins: bins of the scores.
        minimum_cell: least count, other than 0, that is shown.
        confidence: of the intervals.
        sites: in the sums.
        notes: what the reader should know.
    """

    model_name: str
    model_kind: str
    model_digest: str
    outcome: str
    scale: Scale
    overall: Performance
    groups: tuple[GroupPerformance, ...]
    differences: tuple[Difference, ...]
    equality_tests: tuple[EqualityTest, ...]
    curve: ScoreCurve
    thresholds: tuple[ThresholdResult, ...]
    chosen: tuple[float, ...]
    calibration_groups: tuple[CalibrationGroup, ...]
    smooth: SmoothCalibration | None
    brier_parts: dict[str, float]
    hosmer_lemeshow: tuple[float, int, float] | None
    num_records: int | None
    num_left_out: int | None
    num_missing: dict[str, int | None]
    num_bins: int
    minimum_cell: int
    confidence: float
    sites: tuple[str, ...]
    notes: tuple[str, ...]

    def summary(self) -> str:
        """The evaluation as text."""
        from wardround.analytics.evaluation_text import summary_text

        return summary_text(self)

    def to_frame(self) -> pd.DataFrame:
        """One row for everybody and for each group, hidden ones among them; columns as `Performance`."""
        rows = [{"group": "everybody", "level": "", **_cells(self.overall)}]
        rows += [{"group": g.variable, "level": g.level, **_cells(g.performance)} for g in self.groups]
        return pd.DataFrame(rows).set_index(["group", "level"])

    def thresholds_frame(self) -> pd.DataFrame:
        """One row a threshold: sensitivity and the like, net benefit."""
        rows = []
        for at in self.thresholds:
            row: dict[str, Any] = {"threshold": at.threshold, "share_above": at.share_above}
            for name in ("sensitivity", "specificity", "positive_predictive_value", "negative_predictive_value"):
                row |= _columns(name, getattr(at, name))
            row |= _columns("net_benefit", at.net_benefit)
            rows.append(
                {**row, "net_benefit_of_all": at.net_benefit_of_all, **_columns("gain_over_all", at.gain_over_all)}
            )
        return pd.DataFrame(rows).set_index("threshold") if rows else pd.DataFrame()

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        converted: dict[str, Any] = json_value(asdict(self))
        return converted

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict())

    def plot(self) -> Figure:
        """ROC curve and calibration (for a score, ROC and precision-recall) side by side. Needs matplotlib."""
        from wardround.analytics.evaluation_figures import overview

        return overview(self)

    def methods(self) -> str:
        """What was computed, in sentences that the methods section of a paper could hold."""
        from wardround.analytics.evaluation_text import methods_text

        return methods_text(self)

    @property
    def references(self) -> tuple[str, ...]:
        """The papers behind the methods."""
        from wardround.analytics.evaluation_text import references_of

        return references_of(self)

    def headlines(self) -> tuple[str, ...]:
        """The main findings, a sentence each."""
        from wardround.analytics.evaluation_text import headlines_of

        return headlines_of(self)

    def exhibits(self) -> tuple[Exhibit, ...]:
        """Tables and figures of a report."""
        from wardround.analytics.evaluation_figures import exhibits_of

        return exhibits_of(self)


def _cells(performance: Performance | None) -> dict[str, Any]:
    if performance is None:
        return {"num_records": None, "num_events": None}
    cells: dict[str, Any] = {}
    for name in Performance.__slots__:
        value = getattr(performance, name)
        cells |= _columns(name, value) if isinstance(value, Estimate) else {name: value}
    return cells


def _columns(name: str, estimate: Estimate) -> dict[str, Any]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
