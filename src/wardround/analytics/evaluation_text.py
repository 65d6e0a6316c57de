"""An evaluation in words: its summary, the sentences of a methods section, and the main findings."""

from __future__ import annotations

from wardround.analytics.decision_curve import ThresholdResult
from wardround.analytics.discrimination import Discrimination, Estimate
from wardround.analytics.evaluation import Evaluation, Performance
from wardround.analytics.journal_text import (
    ABSENT,
    count_text,
    fixed_text,
    interval_text,
    listed,
    p_text,
    percent_text,
)

FIGURES = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "brier": "Brier score",
    "scaled_brier": "Scaled Brier score",
    "log_loss": "Log loss",
    "observed_over_expected": "Observed / expected events",
    "calibration_in_the_large": "Calibration-in-the-large",
    "calibration_intercept": "Calibration intercept",
    "calibration_slope": "Calibration slope",
}
"""Figures in words."""
_DIGITS = 12
"""Characters of a digest that a summary shows."""
_WIDTH = 78
_REFERENCES = {
    "DeLong": "DeLong ER, DeLong DM, Clarke-Pearson DL. Comparing the areas under two or more correlated receiver "
    "operating characteristic curves: a nonparametric approach. Biometrics 1988; 44(3): 837-845.",
    "Boyd": "Boyd K, Eng KH, Page CD. Area under the precision-recall curve: point estimates and confidence intervals. "
    "In: Machine Learning and Knowledge Discovery in Databases. Berlin: Springer; 2013: 451-466.",
    "Cox": "Cox DR. Two further applications of a model for binary regression. Biometrika 1958; 45(3-4): 562-565.",
    "Austin": "Austin PC, Steyerberg EW. The Integrated Calibration Index (ICI) and related metrics for quantifying "
    "the calibration of logistic regression models. Stat Med 2019; 38(21): 4051-4065.",
    "Harrell": "Harrell FE. Regression Modeling Strategies. 2nd ed. Cham: Springer; 2015.",
    "Vickers": "Vickers AJ, Elkin EB. Decision curve analysis: a novel method for evaluating prediction models. Med "
    "Decis Making 2006; 26(6): 565-574.",
    "Brier": "Brier GW. Verification of forecasts expressed in terms of probability. Monthly Weather Review 1950; "
    "78(1): 1-3.",
    "Debray": "Debray TPA, Damen JAAG, Snell KIE, et al. A guide to systematic review and meta-analysis of prediction "
    "model performance. BMJ 2017; 356: i6460.",
    "Wilson": "Wilson EB. Probable inference, the law of succession, and statistical inference. J Am Stat Assoc 1927; "
    "22(158): 209-212.",
    "Van Calster": "Van Calster B, McLernon DJ, van Smeden M, Wynants L, Steyerberg EW. Calibration: the Achilles heel "
    "of predictive analytics. BMC Med 2019; 17: 230.",
}


def estimate_text(estimate: Estimate) -> str:
    """An estimate with its interval; a dash where there is none."""
    if estimate.value is None:
        return ABSENT
    if estimate.low is None or estimate.high is None:
        return fixed_text(estimate.value, 3)
    return interval_text(estimate.value, estimate.low, estimate.high)


def summary_text(result: Evaluation) -> str:
    """The evaluation as a statistician expects to see it printed."""
    overall = result.overall
    sites = f"{len(result.sites)} site{'s' * (len(result.sites) != 1)}"
    events = f"{count_text(overall.num_events)} with the event ({percent(overall.observed_risk)})"
    lines = [
        f"Evaluation of {' '.join(result.model_name.split())}".center(_WIDTH).rstrip(),
        "=" * _WIDTH,
        f"Outcome: {result.outcome}    Sites: {len(result.sites)}",
        f"Model: {result.model_kind}, SHA-256 {result.model_digest[:_DIGITS]}...",
        f"Records: {count_text(overall.num_records)} of {sites}, {events}",
        f"Left out (missing): {count_text(result.num_left_out)}",
        "-" * _WIDTH,
        *_figure_lines(overall, result.confidence),
    ]
    if result.smooth is not None:
        s = result.smooth
        lines.append(f"{'ICI, E50, E90':<30}{fixed_text(s.ici, 4)}, {fixed_text(s.e50, 4)}, {fixed_text(s.e90, 4)}")
    lines += _group_lines(result)
    lines += _threshold_lines(result)
    return "\n".join([*lines, "=" * _WIDTH, *(f"Note: {note}" for note in result.notes)])


def percent(share: float) -> str:
    """A part as a percentage with one decimal."""
    return f"{100 * share:.1f}%"


def _figure_lines(overall: Performance, confidence: float) -> list[str]:
    lines = [f"{'':<30}estimate ({percent_text(confidence)} interval)"]
    for name, words in FIGURES.items():
        value = getattr(overall, name)
        if isinstance(value, float):
            lines.append(f"{words:<30}{fixed_text(value, 3)}")
        elif isinstance(value, Estimate) and value.value is not None:
            lines.append(f"{words:<30}{estimate_text(value)}{_limits(value)}")
    if overall.calibration_p is not None:
        lines.append(f"{'P of perfect calibration':<30}{p_text(overall.calibration_p)}")
    return lines


def _limits(value: Estimate) -> str:
    """Between which values the exact figure lies."""
    if not isinstance(value, Discrimination) or value.least is None or value.greatest is None:
        return ""
    if value.greatest - value.least < 1e-9:
        return "  exact"
    return f"  exact: in [{value.least:.5f}, {value.greatest:.5f}]"


def _group_lines(result: Evaluation) -> list[str]:
    if not result.groups:
        return []
    lines = ["-" * _WIDTH, f"{'Group':<26}{'Records':>9}{'Events':>8}  {'AUROC':<26}Calibration slope"]
    for group in result.groups:
        name = f"{group.variable} = {group.level}"[:25]
        p = group.performance
        if p is None:
            lines.append(f"{name:<26}{'hidden, or none':>17}")
        else:
            slope = estimate_text(p.calibration_slope)
            lines.append(f"{name:<26}{p.num_records:>9}{p.num_events:>8}  {estimate_text(p.auroc):<26}{slope}")
    for test in result.equality_tests:
        words = FIGURES[test.figure]
        lines.append(
            f"{words} the same by {test.variable}: chi2({test.df}) = {test.statistic:.4g}, p {p_text(test.p_value)}"
        )
    return lines


def _threshold_lines(result: Evaluation) -> list[str]:
    shown = shown_thresholds(result)
    if not shown:
        return []
    head = ["At or above", "Sensitivity", "Specificity", "PPV", "NPV", "Net benefit"]
    lines = ["-" * _WIDTH, "".join(f"{text:>13}" for text in head)]
    for at in shown:
        figures = (
            at.sensitivity,
            at.specificity,
            at.positive_predictive_value,
            at.negative_predictive_value,
            at.net_benefit,
        )
        cells = [ABSENT if figure.value is None else fixed_text(figure.value, 3) for figure in figures]
        lines.append("".join(f"{text:>13}" for text in [f"{at.threshold:g}", *cells]))
    return lines


def shown_thresholds(result: Evaluation) -> tuple[ThresholdResult, ...]:
    """The thresholds that were asked for, or else tenths of a probability."""
    wanted = set(result.chosen) or {tenth / 10 for tenth in range(1, 10)}
    return tuple(at for at in result.thresholds if at.threshold in wanted)


def methods_text(result: Evaluation) -> str:
    """What was computed, as a methods section says it."""
    sites = f"{len(result.sites)} site{'s' * (len(result.sites) != 1)}"
    form = "coefficients" if result.model_kind == "linear" else "an ONNX graph"
    interval = percent_text(result.confidence)
    sentences = [
        (
            f"The model {' '.join(result.model_name.split())} ({form}; SHA-256 {result.model_digest}) was sent to "
            f"{sites}, where it scored {count_text(result.overall.num_records)} records; only sums left a site."
        ),
        f"Records with a missing value ({count_text(result.num_left_out)}) were left out.",
        (
            "Discrimination was measured by the area under the receiver operating characteristic curve (DeLong 1988) "
            "and by average precision (Boyd 2013), both from a histogram of "
            f"{result.num_bins} bins of the score, for which the limits of the exact figure are stated."
        ),
    ]
    if result.scale == "probability":
        sentences += [
            "The Brier score (Brier 1950) and the logarithmic loss are exact sums.",
            (
                "Calibration was judged (Van Calster 2019) by the ratio of observed to expected events (Debray 2017), "
                "and by intercept and slope of a logistic regression of the outcome on the logit of the prediction "
                "(Cox 1958), which equal those of the pooled records."
            ),
        ]
        if result.smooth is not None:
            sentences.append(
                "The calibration curve is a logistic regression on a restricted cubic spline of the logit with "
                f"{len(result.smooth.knots)} knots (Harrell 2015), summarised by ICI, E50 and E90 (Austin 2019)."
            )
        if result.thresholds:
            sentences.append("Clinical use was judged by net benefit (Vickers 2006).")
    if result.thresholds:
        sentences.append("Proportions have score intervals (Wilson 1927).")
    sentences.append(f"Intervals are {interval} confidence intervals and take records as independent.")
    if result.minimum_cell > 1:
        sentences.append(
            f"Curves are shown at cuts between which lie no or at least {result.minimum_cell} events and others; "
            "smaller groups are hidden."
        )
    return " ".join(sentences)


def references_of(result: Evaluation) -> tuple[str, ...]:
    """Of the methods that were used."""
    text = methods_text(result)
    return tuple(reference for name, reference in _REFERENCES.items() if f"({name} " in text)


def headlines_of(result: Evaluation) -> tuple[str, ...]:
    """The main findings, a sentence each."""
    overall = result.overall
    found = [f"AUROC {estimate_text(overall.auroc)} over {len(result.sites)} sites."]
    if overall.calibration_slope.value is not None:
        found.append(
            f"Calibration slope {estimate_text(overall.calibration_slope)} (1 is perfect), observed over expected "
            f"events {estimate_text(overall.observed_over_expected)}."
        )
    unequal = [f"{FIGURES[t.figure]} by {t.variable}" for t in result.equality_tests if t.p_value < 0.05]
    if unequal:
        found.append(f"Different between groups (p < 0.05, not corrected for multiple tests): {listed(unequal)}.")
    return tuple(found)
