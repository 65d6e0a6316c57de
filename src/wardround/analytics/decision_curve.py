"""What comes of acting on a score at a threshold: sensitivity and the like, and net benefit.

References:
    Vickers & Elkin (2006), Medical Decision Making 26, 565-574: net benefit.
    Wilson (1927), Journal of the American Statistical Association 22, 209-212: intervals of proportions.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.discrimination import Estimate
from wardround.analytics.families import two_sided_quantile

Counts = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdResult:
    """Acting on all records whose score is at or above a threshold.

    Attributes:
        threshold: on the scale of the score.
        share_above: part of the records at or above it.
        sensitivity: part of the events at or above it.
        specificity: part of the others below it.
        positive_predictive_value: part of those at or above it who have the event.
        negative_predictive_value: part of those below it who do not.
        net_benefit: true positives less false positives weighted by the odds of the threshold, a record; no value
            for scores that are no probabilities.
        net_benefit_of_all: of acting on everybody.
        gain_over_all: net benefit less that of acting on everybody.
    """

    threshold: float
    share_above: float
    sensitivity: Estimate
    specificity: Estimate
    positive_predictive_value: Estimate
    negative_predictive_value: Estimate
    net_benefit: Estimate
    net_benefit_of_all: float | None
    gain_over_all: Estimate


def wilson(count: float, total: float, confidence: float) -> Estimate:
    """A proportion with Wilson's interval; no value of no records."""
    if total <= 0:
        return Estimate()
    share, z = count / total, two_sided_quantile(confidence, None)
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    reach = z / (1 + z * z / total) * float(np.sqrt(share * (1 - share) / total + z * z / (4 * total * total)))
    return Estimate(
        value=share,
        standard_error=float(np.sqrt(share * (1 - share) / total)),
        low=max(middle - reach, 0.0) if count else 0.0,
        high=min(middle + reach, 1.0) if count < total else 1.0,
    )


def at_threshold(
    threshold: float, above: tuple[int, int], below: tuple[int, int], confidence: float, *, is_probability: bool
) -> ThresholdResult:
    """All figures at one threshold.

    Args:
        threshold: on the scale of the score.
        above: events and others at or above it.
        below: events and others below it.
        confidence: of the intervals.
        is_probability: whether the threshold is a probability, so that it has odds.
    """
    (true_positive, false_positive), (false_negative, true_negative) = above, below
    num_events, num_others = true_positive + false_negative, false_positive + true_negative
    total = num_events + num_others
    benefit, gain, of_all = Estimate(), Estimate(), None
    if is_probability and 0 < threshold < 1:
        odds = threshold / (1 - threshold)
        benefit = _mean(true_positive, -odds, false_positive, total, confidence)
        gain = _mean(-false_negative, odds, true_negative, total, confidence)
        of_all = (num_events - odds * num_others) / total
    return ThresholdResult(
        threshold=threshold,
        share_above=(true_positive + false_positive) / total,
        sensitivity=wilson(true_positive, num_events, confidence),
        specificity=wilson(true_negative, num_others, confidence),
        positive_predictive_value=wilson(true_positive, true_positive + false_positive, confidence),
        negative_predictive_value=wilson(true_negative, true_negative + false_negative, confidence),
        net_benefit=benefit,
        net_benefit_of_all=of_all,
        gain_over_all=gain,
    )


def _mean(first: int, odds: float, second: int, total: int, confidence: float) -> Estimate:
    """Mean over records of a benefit that is +-1 for `first` of them, `odds` for `second`, else 0; normal interval."""
    value = (first + odds * second) / total
    variance = max((abs(first) + odds * odds * second) / total - value * value, 0.0) / total
    error = float(np.sqrt(variance))
    reach = two_sided_quantile(confidence, None) * error
    return Estimate(value=value, standard_error=error, low=value - reach, high=value + reach)


def safe_cuts(events: Counts, others: Counts, wanted: Iterable[int], minimum_cell: int, max_cuts: int) -> list[int]:
    """Which cuts of the scores may be shown: between any two of them lie no, or enough, events and others.

    Everything that is shown of the order of the scores is shown at these cuts, so that no difference of shown
    figures tells of fewer than `minimum_cell` records.

    Args:
        events: by bin, in the order of the scores, shape (num_bins,).
        others: likewise.
        wanted: cuts in the order in which they are tried; cut i lies below bin i, in [1, num_bins - 1].
        minimum_cell: least count, other than 0.
        max_cuts: most cuts.

    Returns:
        Increasing.

    Guarantees:
        cells_between_cuts_are_zero_or_enough: of events as of others, between neighbouring cuts and at the ends.
    """
    below_events = np.concatenate([[0], np.cumsum(events)]).tolist()
    below_others = np.concatenate([[0], np.cumsum(others)]).tolist()

    def is_fine(start: int, stop: int) -> bool:
        cells = below_events[stop] - below_events[start], below_others[stop] - below_others[start]
        return all(cell == 0 or cell >= minimum_cell for cell in cells)

    chosen = [0, len(events)]
    for cut in wanted:
        place = bisect.bisect_left(chosen, cut)
        if chosen[min(place, len(chosen) - 1)] == cut or len(chosen) >= max_cuts + 2:
            continue
        if is_fine(chosen[place - 1], cut) and is_fine(cut, chosen[place]):
            chosen.insert(place, cut)
    return chosen[1:-1]


def spread_out(count: int) -> list[int]:
    """The numbers 1 to count - 1 in an order in which any first part of them is spread evenly."""
    order: list[int] = []
    seen = {0}
    step = 1.0
    while len(seen) < count and step > 0.25 / count:
        for place in np.floor(np.arange(step / 2, 1, step) * count).astype(int).tolist():
            if place not in seen:
                seen.add(place)
                order.append(place)
        step /= 2
    return order + [place for place in range(1, count) if place not in seen]
