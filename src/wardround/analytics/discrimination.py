"""How well scores tell events from others, from a histogram: AUROC and average precision, with their exact limits.

Within a bin the order of the scores is not known. Every figure is given with the least and the greatest value
that any order in the bins could give, so the figure of the pooled records lies between them.

References:
    DeLong, DeLong & Clarke-Pearson (1988), Biometrics 44, 837-845: the variance of the AUROC.
    Boyd, Eng & Page (2013), ECML PKDD, 451-466: the logit interval of the average precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from wardround.analytics.families import two_sided_quantile

Values = NDArray[np.float64]
Counts = NDArray[np.int64]

ROUNDING = 1e-12
"""What other orders of adding up may change a figure by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its interval; `None` where there is none.

    Attributes:
        value: the figure.
        standard_error: on the figure's own scale.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: float | None = None
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrimination(Estimate):
    """A figure of discrimination from a histogram.

    Attributes:
        least: least value that the records in the bins could have.
        greatest: greatest value that they could have.
    """

    least: float | None = None
    greatest: float | None = None

    @property
    def bound(self) -> float | None:
        """Farthest that the exact figure may lie from the value."""
        if self.value is None or self.least is None or self.greatest is None:
            return None
        return max(self.greatest - self.value, self.value - self.least)


NO_DISCRIMINATION = Discrimination()


def auroc(events: Counts, others: Counts, is_tied: NDArray[np.bool_], confidence: float) -> Discrimination:
    """Area under the ROC curve, with DeLong's variance and an interval on the logit scale.

    Args:
        events: by bin, in the order of the scores, shape (num_bins,).
        others: likewise.
        is_tied: whether all scores of a bin are equal, shape (num_bins,).
        confidence: of the interval.

    Returns:
        Nothing but `None` where there are no events or no others.

    Guarantees:
        auroc_lies_between_its_limits: that of the records themselves, ties counted a half.
    """
    num_events, num_others = int(events.sum()), int(others.sum())
    if not num_events or not num_others:
        return NO_DISCRIMINATION
    above_events = (np.cumsum(others) - 0.5 * others) / num_others
    above_others = (num_events - np.cumsum(events) + 0.5 * events) / num_events
    area = float(events @ above_events) / num_events
    pairs = events.astype(np.float64) * others
    slack = 0.5 * float(pairs[~is_tied].sum()) / num_events / num_others + ROUNDING
    variance = _spread(above_events, events, area) + _spread(above_others, others, area)
    error = float(np.sqrt(variance)) if np.isfinite(variance) else float("nan")
    low, high = logit_interval(area, error, confidence)
    return Discrimination(
        value=area,
        standard_error=known(error),
        low=low,
        high=high,
        least=max(area - slack, 0.0),
        greatest=min(area + slack, 1.0),
    )


def _spread(values: Values, counts: Counts, mean: float) -> float:
    num = int(counts.sum())
    return float(counts @ (values - mean) ** 2) / (num - 1) / num if num > 1 else float("nan")


def known(value: float) -> float | None:
    """A number, or None where it is none."""
    return value if np.isfinite(value) else None


def logit_interval(value: float, error: float, confidence: float) -> tuple[float | None, float | None]:
    """Interval of a proportion-like figure, symmetric on the logit scale; none at 0 or 1 or without an error."""
    if not 0 < value < 1 or not np.isfinite(error) or error <= 0:
        return None, None
    reach = two_sided_quantile(confidence, None) * error / (value * (1 - value))
    middle = special.logit(value)
    return float(special.expit(middle - reach)), float(special.expit(middle + reach))


def average_precision(events: Counts, others: Counts, is_tied: NDArray[np.bool_], confidence: float) -> Discrimination:
    """Average precision: the mean over the events of the precision at each one's score.

    Args:
        events: by bin, in the order of the scores, shape (num_bins,).
        others: likewise.
        is_tied: whether all scores of a bin are equal, shape (num_bins,).
        confidence: of the interval.

    Guarantees:
        average_precision_lies_between_its_limits: that of the records themselves, tied ones taken together.
    """
    num_events = int(events.sum())
    if not num_events:
        return NO_DISCRIMINATION
    p, n = events[::-1].astype(np.float64), others[::-1].astype(np.float64)
    tied = is_tied[::-1]
    before_p, before_n = np.cumsum(p) - p, np.cumsum(n) - n
    total = before_p + p + before_n + n
    together = p * np.divide(before_p + p, total, out=np.zeros(len(p)), where=total > 0)
    # Events first, events last, and events spread evenly among the others.
    first = _mean_precision(p, before_p, before_n, np.ones(len(p)))
    last = _mean_precision(p, before_p, before_n + n, np.ones(len(p)))
    between = _mean_precision(p, before_p, before_n, 1 + n / (p + 1))
    value, greatest, least = (
        float(np.where(tied, together, part).sum()) / num_events for part in (between, first, last)
    )
    error = float(np.sqrt(value * (1 - value) / num_events)) if others.any() else 0.0
    low, high = logit_interval(value, error, confidence)
    # Equal orders add up differently: a last digit must not put the value outside its limits.
    least, greatest = min(least, value) - ROUNDING, max(greatest, value) + ROUNDING
    return Discrimination(value=value, standard_error=known(error), low=low, high=high, least=least, greatest=greatest)


def _mean_precision(p: Values, before_p: Values, before_n: Values, stretch: Values) -> Values:
    """Sum over j = 1..p of (before_p + j) / (before_p + before_n + stretch * j), by bin; 0 where p is 0.

    With c = (before_p + before_n) / stretch it is (p + (before_p - c) (psi(p + 1 + c) - psi(1 + c))) / stretch.
    """
    offset = (before_p + before_n) / stretch
    harmonic = special.digamma(p + 1 + offset) - special.digamma(1 + offset)
    return np.asarray((p + (before_p - offset) * harmonic) / stretch, np.float64)


def next_edges(
    edges: Values, events: Counts, others: Counts, is_tied: NDArray[np.bool_], num_bins: int, minimum_cell: int
) -> Values:
    """Inner edges of better bins: the AUROC's slack is least where sqrt(events * others) is the same in all.

    Args:
        edges: inner edges of the bins so far, increasing, on the scale where scores are spread evenly.
        events: by bin, shape (len(edges) + 1,).
        others: likewise.
        is_tied: bins whose scores are all equal; they keep their edges and are not divided.
        num_bins: how many there should be.
        minimum_cell: a bin is divided into no more parts than this goes into its records, so that the search for
            events among others does not end at single records.

    Returns:
        Increasing edges, on the same scale.
    """
    width = max(float(edges[-1] - edges[0]), 1.0)
    places = np.concatenate([[edges[0] - width], edges, [edges[-1] + width]])
    counts = (events + others).astype(np.float64)
    mixed = np.sqrt(events.astype(np.float64) * others)
    weight = mixed / max(mixed.sum(), 1.0) + 0.25 * counts / max(counts.sum(), 1.0)
    weight = np.where(is_tied, 0.0, weight)
    kept = np.union1d(edges[is_tied[:-1]], edges[is_tied[1:]])
    num_new = max(num_bins - 1 - len(kept), 0)
    if not weight.any() or not num_new:
        return kept
    parts = np.minimum(num_new * weight / weight.sum(), counts / minimum_cell)
    rank = np.concatenate([[0.0], np.cumsum(parts)])
    return np.union1d(kept, np.interp(np.arange(1, int(rank[-1]) + 1) - 0.5, rank, places))
