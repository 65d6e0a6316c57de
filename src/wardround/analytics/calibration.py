"""Whether predicted probabilities come true: recalibration by Newton steps on sums, curves, and decompositions.

References:
    Cox (1958), Biometrika 45, 562-565; Miller, Hui & Tierney (1991), Statistics in Medicine 10, 1213-1226:
        calibration intercept and slope.
    Austin & Steyerberg (2019), Statistics in Medicine 38, 4051-4065: ICI, E50 and E90.
    Harrell (2015), Regression Modeling Strategies, 2nd ed., section 2.4.6: places of the knots.
    Murphy (1973), Journal of Applied Meteorology 12, 595-600: decomposition of the Brier score.
    Spiegelhalter (1986), Statistics in Medicine 5, 421-433: z test of calibration.
    Debray et al. (2017), BMJ 356, i6460: interval of the ratio of observed to expected events.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import special

from wardround.analytics.decision_curve import wilson
from wardround.analytics.design import Frame
from wardround.analytics.discrimination import Estimate, known
from wardround.analytics.evaluate_sums import Basis, Groups, recalibration
from wardround.analytics.families import two_sided_p, two_sided_quantile
from wardround.analytics.linear import unpack_symmetric
from wardround.analytics.scoring_model import ScoringModel
from wardround.sums import Steps, ask

Values = NDArray[np.float64]
Counts = NDArray[np.int64]

MAX_STEPS = 40
"""Newton steps after which a fit counts as one that has no end."""
LARGEST_STEP = 5.0
"""Longest step in a coefficient of a standardised column."""
LARGEST_COEFFICIENT = 200.0
"""Coefficients of a standardised column beyond this run off to infinity."""
TOLERANCE = 1e-9
"""Largest step, of a coefficient of a standardised column, after which a fit has settled."""
KNOT_QUANTILES = {3: (0.10, 0.50, 0.90), 4: (0.05, 0.35, 0.65, 0.95), 5: (0.05, 0.275, 0.50, 0.725, 0.95)}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogisticFit:
    """A recalibration that settled.

    Attributes:
        coefficients: of the basis, shape (num_columns,); fixed ones among them.
        covariance: of the free ones, zero elsewhere, shape (num_columns, num_columns).
        log_likelihood: at these coefficients.
    """

    coefficients: Values
    covariance: Values
    log_likelihood: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationGroup:
    """Records with neighbouring predictions.

    Attributes:
        num_records: how many.
        num_events: of them, with the event.
        low: least prediction that may be in the group.
        high: greatest.
        predicted: mean prediction.
        observed: part with the event, with Wilson's interval.
    """

    num_records: int
    num_events: int
    low: float
    high: float
    predicted: float
    observed: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class SmoothCalibration:
    """The calibration curve: a logistic fit to a restricted cubic spline of the logit of the prediction.

    Attributes:
        predicted: predictions, shape (num_points,).
        observed: estimated risk at each.
        low: lower end of its pointwise interval.
        high: upper end.
        knots: of the spline, as predictions.
        ici: mean distance of curve and prediction over the records (integrated calibration index).
        e50: median distance.
        e90: 90th percentile of the distance.
    """

    predicted: Values
    observed: Values
    low: Values
    high: Values
    knots: tuple[float, ...]
    ici: float
    e50: float
    e90: float


@dataclass(frozen=True, slots=True)
class Fit:
    """A logistic fit that is wanted: over which group, and how many of the basis's columns are free.

    One free column is the intercept, with the logit's own coefficient held at 1.
    """

    group: int
    num_free: int


@dataclass(frozen=True, slots=True)
class Binned:
    """What the bins of the scores tell of a fit before it is carried out: enough to begin near its end.

    Attributes:
        logits: middle of each bin, shape (num_bins,).
        events: by group and bin, shape (num_groups, num_bins).
        others: likewise.
    """

    logits: Values
    events: Counts
    others: Counts

    def start(self, fit: Fit, basis: Basis) -> Values:
        """Coefficients of the fit to the bins; those of predictions that are right, where it does not settle."""
        state, x = _Newton(fit.num_free, basis, as_they_are(basis)), basis.evaluate(self.logits)
        events, others = self.events[fit.group], self.others[fit.group]
        for _ in range(MAX_STEPS):
            if not state.is_open:
                break
            eta = x @ state.trial
            mean = special.expit(eta)
            free, weight = x[:, : fit.num_free], (events + others) * mean * (1 - mean)
            gram = np.zeros((basis.num_columns,) * 2)
            gram[: fit.num_free, : fit.num_free] = free.T @ (free * weight[:, None])
            likelihood = float(events @ special.log_expit(eta) + others @ special.log_expit(-eta))
            state.take(gram, free.T @ (events - (events + others) * mean), likelihood)
        return as_they_are(basis) if state.fit is None else state.fit.coefficients


def as_they_are(basis: Basis) -> Values:
    """Coefficients with which the predictions are taken as they are: the logit itself is center + spread * z."""
    coefficients = np.zeros(basis.num_columns)
    coefficients[:2] = basis.center, basis.spread
    return coefficients


def fit_all(
    model: ScoringModel, frame: Frame, groups: Groups, basis: Basis, fits: tuple[Fit, ...], binned: Binned
) -> Steps[tuple[LogisticFit | None, ...]]:
    """Carry out several logistic fits at once, each by Newton's method from the fit to the bins.

    Returns:
        For each, the fit, or None where there is none (the outcome is separated, or the predictions are constant).
    """
    states = [_Newton(fit.num_free, basis, binned.start(fit, basis)) for fit in fits]
    for _ in range(MAX_STEPS):
        open_ = [index for index, state in enumerate(states) if state.is_open]
        if not open_:
            break
        at = np.array([states[index].trial for index in open_])
        of_group, num_free = (tuple(getattr(fits[index], name) for index in open_) for name in ("group", "num_free"))
        total = (yield from ask(recalibration, model, frame, groups, basis, of_group, num_free, at)).sum
        for place, index in enumerate(open_):
            gram = unpack_symmetric(total.gram[place])
            states[index].take(gram, total.score[place][: num_free[place]], float(total.log_likelihood[place]))
    return tuple(state.fit for state in states)


class _Newton:
    """One fit's iteration: full steps, halved while the likelihood falls."""

    def __init__(self, num_free: int, basis: Basis, start: Values) -> None:
        self._free = slice(0, num_free)
        self.trial = start.copy()
        self._at = self.trial
        self._step = np.zeros(num_free)
        self._best: float | None = None
        self.is_open = True
        self.fit: LogisticFit | None = None

    def take(self, gram: Values, score: Values, likelihood: float) -> None:
        """What was found at `trial`: Gram matrix of all columns, score of the free ones, log-likelihood."""
        if self._best is not None and likelihood < self._best - 1e-9 * (1 + abs(self._best)):
            self._step = self._step / 2
            self._try()
            return
        self._best, self._at = likelihood, self.trial
        gram = gram[self._free, self._free]
        scale = np.sqrt(np.maximum(np.diag(gram), 0.0))
        if not (scale > 0).all() or np.linalg.cond(gram / np.outer(scale, scale)) > 1e12:
            self.is_open = False
            return
        inverse = np.linalg.inv(gram / np.outer(scale, scale)) / np.outer(scale, scale)
        self._step = inverse @ score
        if np.abs(self._step).max() <= TOLERANCE * (1 + np.abs(self._at).max()):
            self._end(inverse, likelihood)
            return
        self._step *= min(1.0, LARGEST_STEP / float(np.abs(self._step).max()))
        self._try()

    def _try(self) -> None:
        trial = self._at.copy()
        trial[self._free] += self._step
        self.trial = trial
        if np.abs(trial).max() > LARGEST_COEFFICIENT or np.abs(self._step).max() < 1e-14:
            self.is_open = False

    def _end(self, inverse: Values, likelihood: float) -> None:
        covariance = np.zeros((len(self._at),) * 2)
        covariance[self._free, self._free] = inverse
        final = self._at.copy()
        final[self._free] += self._step  # the step is computed already, and takes off the last rounding
        self.fit = LogisticFit(coefficients=final, covariance=covariance, log_likelihood=likelihood)
        self.is_open = False


def intercept_of(fit: LogisticFit | None, basis: Basis, confidence: float) -> Estimate:
    """Calibration-in-the-large: the intercept where the logit of the prediction is an offset."""
    if fit is None:
        return Estimate()
    return normal(float(fit.coefficients[0] - basis.center), float(np.sqrt(fit.covariance[0, 0])), confidence)


def line_of(fit: LogisticFit | None, basis: Basis, confidence: float) -> tuple[Estimate, Estimate]:
    """Intercept and slope of the outcome's logit on the prediction's."""
    if fit is None:
        return Estimate(), Estimate()
    ratio = basis.center / basis.spread
    slope = float(fit.coefficients[1]) / basis.spread
    intercept = float(fit.coefficients[0]) - slope * basis.center
    part = fit.covariance[:2, :2]
    errors = np.sqrt([part[0, 0] - 2 * ratio * part[0, 1] + ratio**2 * part[1, 1], part[1, 1] / basis.spread**2])
    return normal(intercept, float(errors[0]), confidence), normal(slope, float(errors[1]), confidence)


def normal(value: float, error: float, confidence: float) -> Estimate:
    """An estimate with its normal interval."""
    if not np.isfinite(error):
        return Estimate(value=known(value))
    reach = two_sided_quantile(confidence, None) * error
    return Estimate(value=value, standard_error=error, low=value - reach, high=value + reach)


def likelihood_ratio_p(fit: LogisticFit | None, log_loss: float) -> float | None:
    """P-value that intercept and slope are 0 and 1, by the likelihood ratio with 2 degrees of freedom.

    Args:
        fit: with both free.
        log_loss: sum over the records of the log loss of the predictions as they are.
    """
    if fit is None:
        return None
    return float(special.chdtrc(2, max(2 * (fit.log_likelihood + log_loss), 0.0)))


def observed_over_expected(num_events: int, num_records: int, expected: float, confidence: float) -> Estimate:
    """Ratio of observed to expected events, with an interval on the log scale."""
    if expected <= 0:
        return Estimate()
    ratio = num_events / expected
    if not num_events:
        return Estimate(value=0.0)
    error = float(np.sqrt((1 - num_events / num_records) / num_events))
    reach = two_sided_quantile(confidence, None) * error
    return Estimate(
        value=ratio,
        standard_error=ratio * error,
        low=ratio * float(np.exp(-reach)),
        high=ratio * float(np.exp(reach)),
    )


def spiegelhalter(unexpected: float, variance: float) -> tuple[float | None, float | None]:
    """Spiegelhalter's z with its two-sided p-value; none where every prediction is 0, 1 or a half."""
    if variance <= 0:
        return None, None
    z = unexpected / float(np.sqrt(variance))
    return z, two_sided_p(z, None)


def calibration_groups(
    ends: tuple[int, ...], edges: Values, counts: tuple[Counts, Counts], predicted: Values, c: float
) -> tuple[CalibrationGroup, ...]:
    """The groups of the calibration figure; empty ones are left out.

    Args:
        ends: inner ends of the groups; end i lies below bin i.
        edges: inner edges of the bins, shape (num_bins - 1,).
        counts: events and others by bin.
        predicted: sums of the predictions, shape (len(ends) + 1,).
        c: confidence of the intervals.
    """
    made = []
    for place, (start, stop) in enumerate(pairwise([0, *ends, len(edges) + 1])):
        num_events, num_others = (int(part[start:stop].sum()) for part in counts)
        if not num_events + num_others:
            continue
        made.append(
            CalibrationGroup(
                num_records=num_events + num_others,
                num_events=num_events,
                low=float(edges[start - 1]) if start else 0.0,
                high=float(edges[stop - 1]) if stop <= len(edges) else 1.0,
                predicted=float(predicted[place]) / (num_events + num_others),
                observed=wilson(num_events, num_events + num_others, c),
            )
        )
    return tuple(made)


def group_ends(counts: Counts, cuts: list[int], wanted: int) -> tuple[int, ...]:
    """Of the cuts that may be shown, those next to where groups of equal size would end.

    Args:
        counts: records by bin.
        cuts: increasing; cut i lies below bin i.
        wanted: how many groups.
    """
    if not cuts:
        return ()
    below = np.concatenate([[0], np.cumsum(counts)])
    goals = below[-1] * np.arange(1, wanted) / wanted
    return tuple(sorted({cuts[int(np.abs(below[cuts] - goal).argmin())] for goal in goals}))


def hosmer_lemeshow(
    groups: tuple[CalibrationGroup, ...], *, is_apparent: bool = False
) -> tuple[float, int, float] | None:
    """Statistic, degrees of freedom and p-value over the groups.

    Args:
        groups: of the calibration figure.
        is_apparent: whether the model was fitted to these very records, which takes two degrees of freedom.
    """
    if len(groups) < 3:
        return None
    n = np.array([group.num_records for group in groups], np.float64)
    observed = np.array([group.num_events for group in groups], np.float64)
    predicted = np.array([group.predicted for group in groups])
    variance = n * predicted * (1 - predicted)
    if not (variance > 0).all():
        return None
    statistic = float(((observed - n * predicted) ** 2 / variance).sum())
    df = len(groups) - 2 * is_apparent
    return statistic, df, float(special.chdtrc(df, statistic))


def brier_parts(groups: tuple[CalibrationGroup, ...], brier: float) -> dict[str, float]:
    """Murphy's decomposition over the groups: brier = reliability - resolution + uncertainty + within groups."""
    n = np.array([group.num_records for group in groups], np.float64)
    observed = np.array([group.num_events for group in groups], np.float64) / n
    predicted = np.array([group.predicted for group in groups])
    mean = float(n @ observed / n.sum())
    reliability = float(n @ (predicted - observed) ** 2 / n.sum())
    resolution = float(n @ (observed - mean) ** 2 / n.sum())
    uncertainty = mean * (1 - mean)
    within = brier - (reliability - resolution + uncertainty)
    return {"reliability": reliability, "resolution": resolution, "uncertainty": uncertainty, "within_groups": within}


def knots_of(places: Values, counts: NDArray[np.int64]) -> tuple[float, ...]:
    """Knots of the spline at quantiles of the (binned) logits; none where the predictions have too few values.

    Args:
        places: mean logit of each bin, increasing.
        counts: records in each.
    """
    total = int(counts.sum())
    shares = np.cumsum(counts) / max(total, 1)
    for num_knots in (5, 4, 3) if total >= 500 else (4, 3):
        index = np.searchsorted(shares, np.array(KNOT_QUANTILES[num_knots]) - 1e-12)
        found = places[np.minimum(index, len(places) - 1)]
        if (np.diff(found) > 1e-6).all() and total >= 20 * num_knots:
            return tuple(found.tolist())
    return ()


def smooth_curve(
    fit: LogisticFit, basis: Basis, predictions: Values, counts: NDArray[np.int64], cuts: Values, confidence: float
) -> SmoothCalibration:
    """The curve over the shown range of predictions, and its distances from the diagonal over the records.

    Args:
        fit: to the whole basis.
        basis: with knots.
        predictions: mean prediction of each bin that holds records, increasing.
        counts: records in each.
        cuts: least and greatest prediction at which the curve is shown, shape (2,).
        confidence: of the pointwise intervals.
    """
    start, stop = special.logit(cuts)
    logit = np.linspace(start, stop, 81)
    x = basis.evaluate(logit)
    eta, error = x @ fit.coefficients, np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", x, fit.covariance, x), 0.0))
    reach = two_sided_quantile(confidence, None) * error
    inner = np.clip(predictions, np.finfo(np.float64).eps, 1 - np.finfo(np.float64).eps)
    distance = np.abs(special.expit(basis.evaluate(special.logit(inner)) @ fit.coefficients) - predictions)
    order = np.argsort(distance)
    shares = np.cumsum(counts[order]) / counts.sum()
    at = np.minimum(np.searchsorted(shares, [0.5, 0.9]), len(order) - 1)
    return SmoothCalibration(
        predicted=special.expit(logit),
        observed=special.expit(eta),
        low=special.expit(eta - reach),
        high=special.expit(eta + reach),
        knots=tuple(special.expit(np.array(basis.knots) * basis.spread + basis.center).tolist()),
        ici=float(counts @ distance / counts.sum()),
        e50=float(distance[order[at[0]]]),
        e90=float(distance[order[at[1]]]),
    )
