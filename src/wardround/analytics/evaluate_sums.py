"""What the sites compute of a model's scores: counts and moments, histograms, and steps of a recalibration.

Every sum is by group of records: everybody first, then each level of the grouping variables, then each site.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from wardround.analytics.design import Frame, complete_rows
from wardround.analytics.grouping import level_codes
from wardround.analytics.scoring import EPSILON, Scored, scored_blocks, to_line
from wardround.analytics.scoring_model import Scale, ScoringModel
from wardround.analytics.splines import spline_basis
from wardround.data.table import Table
from wardround.errors import DataError
from wardround.sums import Array, Contribution, exact, people, site_function

Values = NDArray[np.float64]

MAX_GROUPS = 500
"""Most groups of one evaluation."""
MAX_BINS = 20_000
"""Most bins of the scores."""
TIE_STEPS = 2**16
"""Into how many steps a bin is divided to see whether all of its scores are one."""
MOMENTS = ("predicted", "brier", "brier_square", "log_loss", "log_loss_square", "unexpected", "expected_variance")
"""Sums by group that only probabilities have; see `_moments_of`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """The groups of records that are told apart.

    Attributes:
        variables: grouping variables.
        num_levels: of each.
        sites: sites that are groups of their own; empty where sites are not told apart.
    """

    variables: tuple[str, ...] = ()
    num_levels: tuple[int, ...] = ()
    sites: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.variables) != len(self.num_levels) or any(size < 1 for size in self.num_levels):
            raise ValueError("each grouping variable must have its number of levels")
        if self.num_groups > MAX_GROUPS:
            raise ValueError(f"an evaluation has at most {MAX_GROUPS} groups, got {self.num_groups}")

    @property
    def num_groups(self) -> int:
        """Everybody, all levels and all sites."""
        return 1 + sum(self.num_levels) + len(self.sites)


def _tells_of_sites(groups: Groups, **_: Any) -> bool:
    return bool(groups.sites)


def _num_complete(data: Table, frame: Frame, **_: Any) -> int:
    return len(complete_rows(data, frame.required))


def _num_parameters(basis: Basis, **_: Any) -> int:
    return basis.num_columns


class _Membership:
    """Which groups the records of a table are in: a code for each partition of the records."""

    def __init__(self, table: Table, groups: Groups) -> None:
        self._partitions: list[tuple[int, int, NDArray[Any] | int]] = [(0, 1, 0)]
        start = 1
        for name, size in zip(groups.variables, groups.num_levels, strict=True):
            self._partitions.append((start, size, level_codes(table, name, size)))
            start += size
        if groups.sites:
            place = groups.sites.index(table.site) if table.site in groups.sites else -1
            self._partitions.append((start, len(groups.sites), place))
        self._num_groups = groups.num_groups

    def add(self, rows: NDArray[np.intp], totals: Values, values: Values) -> None:
        """Add values of these records, shape (num_rows, num_values), to totals, shape (num_groups, num_values)."""
        for start, size, codes in self._partitions:
            if isinstance(codes, int):
                if codes >= 0:
                    totals[start + codes] += values.sum(axis=0)
                continue
            here = codes[rows]
            for group in range(size):
                totals[start + group] += values[here == group].sum(axis=0)

    def count(self, rows: NDArray[np.intp], totals: NDArray[np.int64], bins: NDArray[np.intp]) -> None:
        """Count the bins of these records, shape (num_rows,), into totals, shape (num_groups, num_bins)."""
        num_bins = totals.shape[1]
        for start, size, codes in self._partitions:
            if isinstance(codes, int):
                if codes >= 0:
                    totals[start + codes] += np.bincount(bins, minlength=num_bins)
                continue
            here = codes[rows]
            is_in = here >= 0
            flat = here[is_in].astype(np.intp) * num_bins + bins[is_in]
            totals[start : start + size] += np.bincount(flat, minlength=size * num_bins).reshape(size, num_bins)

    def rows_of(self, rows: NDArray[np.intp], group: int) -> NDArray[np.bool_] | slice:
        """Which of these records are in a group."""
        for start, size, codes in self._partitions:
            if start <= group < start + size:
                if isinstance(codes, int):
                    return slice(None) if codes == group - start else slice(0, 0)
                return np.asarray(codes[rows] == group - start, np.bool_)
        raise DataError(f"there are {self._num_groups} groups, and no group {group}")


class Moments(Contribution):
    """Counts, and sums of scores and of their errors."""

    num_records: int = people()
    num_patients: int = people()
    num_missing: NDArray[np.int64] = people("num_required", cells="none")
    num_not_binary: int = people(cells="none")
    num_not_finite: int = people(cells="none")
    num_outside: int = people(cells="none")
    num_extreme: int = people(cells="none")
    num_events: NDArray[np.int64] = people("num_groups")
    num_others: NDArray[np.int64] = people("num_groups")
    sums: Array = exact("num_groups", "num_moments")
    line_sum: float = exact()
    line_square: float = exact()


def _moment_sizes(model: Any, frame: Frame, groups: Groups, scale: Scale) -> dict[str, float]:
    return {"num_required": len(frame.required), "num_groups": groups.num_groups, "num_moments": len(MOMENTS)}


def _moments_of(score: Values, y: Values) -> Values:
    """By record: score, squared error and its square, log loss and its square, and Spiegelhalter's two terms.

    Shape (num_rows, 7).
    """
    kept = np.clip(score, EPSILON, 1 - EPSILON)
    error = (score - y) ** 2
    loss = -np.where(y == 1, np.log(kept), np.log1p(-kept))
    tilt = 1 - 2 * score
    return np.column_stack([score, error, error**2, loss, loss**2, (y - score) * tilt, tilt**2 * score * (1 - score)])


@site_function("evaluate.moments", version=1, symbols=_moment_sizes, per_site=_tells_of_sites, rows=_num_complete)
def moments(data: Table, model: ScoringModel, frame: Frame, groups: Groups, scale: Scale) -> Moments:
    """Score this site's complete records; count them and sum scores, errors and losses, by group.

    Args:
        data: the site's records.
        model: scores them.
        frame: outcome, and the variables that must be present.
        groups: of records.
        scale: what the scores are.

    Raises:
        ConfigError: a model that may not be run here.
        DataError: a column of the model cannot be computed.
    """
    member = _Membership(data, groups)
    num_groups = groups.num_groups
    counts = np.zeros((num_groups, 2), np.int64)
    sums, line = np.zeros((num_groups, len(MOMENTS))), np.zeros(2)
    refused = np.zeros(4, np.int64)
    for block in scored_blocks(data, model, frame):
        y, score = block.outcome, block.score
        is_binary, is_finite = (y == 0) | (y == 1), np.isfinite(score)
        is_inside = (score >= 0) & (score <= 1) if scale == "probability" else is_finite
        is_extreme = (score < EPSILON) | (score > 1 - EPSILON) if scale == "probability" else np.zeros(len(y), bool)
        refused += [int((~is_binary).sum()), int((~is_finite).sum()), int((is_finite & ~is_inside).sum()), 0]
        kept = is_binary & is_finite & is_inside
        refused[3] += int((is_extreme & kept).sum())
        rows, y, score = block.rows[kept], y[kept], score[kept]
        member.count(rows, counts, (y == 0).astype(np.intp))
        if scale == "probability":
            member.add(rows, sums, _moments_of(score, y))
        places = to_line(score, scale)
        line += float(places.sum()), float(places @ places)
    return Moments(
        num_records=data.num_records,
        num_patients=_num_patients(data, complete_rows(data, frame.required)),
        num_missing=np.array([int(data.is_missing(name).sum()) for name in frame.required], np.int64),
        num_not_binary=int(refused[0]),
        num_not_finite=int(refused[1]),
        num_outside=int(refused[2]),
        num_extreme=int(refused[3]),
        num_events=counts[:, 0],
        num_others=counts[:, 1],
        sums=sums,
        line_sum=float(line[0]),
        line_square=float(line[1]),
    )


def _num_patients(data: Table, rows: NDArray[np.intp]) -> int:
    if data.num_patients == data.num_records:
        return len(rows)
    return int(np.count_nonzero(np.bincount(data.patient_index[rows], minlength=1)))


class Histogram(Contribution):
    """Events and others by group and bin."""

    num_events: NDArray[np.int64] = people("num_groups", "num_bins", cells="sums")
    num_others: NDArray[np.int64] = people("num_groups", "num_bins", cells="sums")


def _histogram_sizes(groups: Groups, edges: Values, **_: Any) -> dict[str, float]:
    return {"num_groups": groups.num_groups, "num_bins": edges.size + 1}


@site_function("evaluate.histogram", version=1, symbols=_histogram_sizes, per_site=_tells_of_sites, rows=_num_complete)
def histogram(data: Table, model: ScoringModel, frame: Frame, groups: Groups, scale: Scale, edges: Array) -> Histogram:
    """Count events and others by bin of the score, by group.

    Args:
        data: the site's records.
        model: scores them.
        frame: outcome, and the variables that must be present.
        groups: of records.
        scale: what the scores are.
        edges: inner edges of the bins, increasing, shape (num_bins - 1,); a score at an edge is in the bin above.

    Raises:
        DataError: the edges do not increase, or are too many.
    """
    _check_edges(edges)
    member, num_bins = _Membership(data, groups), edges.size + 1
    counts = np.zeros((2, groups.num_groups, num_bins), np.int64)
    for block in _usable(data, model, frame, scale):
        bins = np.searchsorted(edges, block.score, side="right")
        for side, is_side in enumerate((block.outcome == 1, block.outcome == 0)):
            member.count(block.rows[is_side], counts[side], bins[is_side])
    return Histogram(num_events=counts[0], num_others=counts[1])


def _check_edges(edges: Values) -> None:
    if edges.ndim != 1 or edges.size >= MAX_BINS or not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
        raise DataError(f"the edges of the bins must be increasing numbers, fewer than {MAX_BINS}")


def _usable(data: Table, model: ScoringModel, frame: Frame, scale: Scale) -> Iterator[Scored]:
    """Scored blocks, less what the first ask counted as unusable (which ends an evaluation, but not at this site)."""
    for block in scored_blocks(data, model, frame):
        is_kept = np.isfinite(block.score) & ((block.outcome == 0) | (block.outcome == 1))
        if scale == "probability":
            is_kept &= (block.score >= 0) & (block.score <= 1)
        if not is_kept.all():
            yield Scored(score=block.score[is_kept], outcome=block.outcome[is_kept], rows=block.rows[is_kept])
        else:
            yield block


class Ties(Contribution):
    """Of some bins, sums that tell whether all of their scores are one and the same."""

    step_sum: Array = exact("num_asked")
    step_square: Array = exact("num_asked")


@site_function("evaluate.ties", version=1, symbols=lambda bins, **_: {"num_asked": len(bins)}, rows=_num_complete)
def ties(data: Table, model: ScoringModel, frame: Frame, scale: Scale, edges: Array, bins: tuple[int, ...]) -> Ties:
    """Sum the places of scores in some bins, in whole steps of a 65,536th of a bin, and the squares of the places.

    Args:
        data: the site's records.
        model: scores them.
        frame: outcome, and the variables that must be present.
        scale: what the scores are.
        edges: as `histogram`.
        bins: which bins; the coordinator asks for such only as hold enough records.

    Raises:
        DataError: wrong edges, or a bin that there is not.
    """
    _check_edges(edges)
    asked = np.array(bins, np.intp)
    if any(not 0 <= place <= edges.size for place in bins):
        raise DataError(f"there are {edges.size + 1} bins")
    sums = np.zeros((2, edges.size + 1))
    for block in _usable(data, model, frame, scale):
        here = np.searchsorted(edges, block.score, side="right")
        steps = _steps(block.score, here, edges, scale)
        sums[0] += np.bincount(here, steps, minlength=edges.size + 1)
        sums[1] += np.bincount(here, steps**2, minlength=edges.size + 1)
    return Ties(step_sum=sums[0][asked], step_square=sums[1][asked])


def _steps(score: Values, bins: NDArray[np.intp], edges: Values, scale: Scale) -> Values:
    """Place of each score in its bin, in whole steps; the two open bins have the width 1 on the even scale."""
    if not edges.size:
        edges = np.zeros(1)
        bins = np.zeros(len(score), np.intp)
    line = to_line(edges, scale)
    low, width = np.concatenate([line[:1] - 1, line]), np.concatenate([[1.0], np.diff(line), [1.0]])
    width = np.where(width > 0, width, 1.0)
    steps: Values = np.floor((to_line(score, scale) - low[bins]) / width[bins] * TIE_STEPS)
    return steps


class Predicted(Contribution):
    """Records and sums of their predictions, by bin."""

    num_in_bin: NDArray[np.int64] = people("num_bins", cells="sums")
    predicted: Array = exact("num_bins")


@site_function(
    "evaluate.predicted", version=1, symbols=lambda edges, **_: {"num_bins": edges.size + 1}, rows=_num_complete
)
def predicted(data: Table, model: ScoringModel, frame: Frame, edges: Array) -> Predicted:
    """Count records and sum their predicted probabilities, by group of the calibration figure.

    Args:
        data: the site's records.
        model: predicts probabilities.
        frame: outcome, and the variables that must be present.
        edges: as `histogram`; the coordinator chooses such as have enough records between them.

    Raises:
        DataError: wrong edges.
    """
    _check_edges(edges)
    num_bins = edges.size + 1
    counts, sums = np.zeros(num_bins, np.int64), np.zeros(num_bins)
    for block in _usable(data, model, frame, "probability"):
        bins = np.searchsorted(edges, block.score, side="right")
        counts += np.bincount(bins, minlength=num_bins)
        sums += np.bincount(bins, block.score, minlength=num_bins)
    return Predicted(num_in_bin=counts, predicted=sums)


class Recalibration(Contribution):
    """Steps of logistic fits of the outcome to the logit of the prediction: Gram matrices, scores, likelihoods."""

    gram: Array = exact("num_fits", "num_pairs")
    score: Array = exact("num_fits", "num_columns")
    log_likelihood: Array = exact("num_fits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """The columns of a recalibration: 1, the standardised logit z, and a restricted cubic spline of z.

    Attributes:
        center: of the logits.
        spread: of the logits.
        knots: of the spline, in z; none for no spline.
    """

    center: float
    spread: float
    knots: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        places = np.array(self.knots, np.float64)
        if not np.isfinite([self.center, self.spread]).all() or self.spread <= 0:
            raise ValueError("center must be finite, spread finite and greater than 0")
        if len(places) > 10 or len(places) in (1, 2) or not np.isfinite(places).all() or (np.diff(places) <= 0).any():
            raise ValueError("a recalibration has 3 to 10 increasing knots, or none")

    @property
    def num_columns(self) -> int:
        """1, z, and what the spline adds."""
        return 2 + max(len(self.knots) - 2, 0)

    def evaluate(self, logit: Values) -> Values:
        """The columns at these logits, shape (num_rows, num_columns)."""
        z = (logit - self.center) / self.spread
        if not self.knots:
            return np.column_stack([np.ones(len(z)), z])
        return np.column_stack([np.ones(len(z)), spline_basis(z, "rcs", 3, self.knots, (0.0, 1.0))])


def _recalibration_sizes(groups: Groups, basis: Basis, of_group: tuple[int, ...], **_: Any) -> dict[str, float]:
    k = basis.num_columns
    return {"num_fits": len(of_group), "num_columns": k, "num_pairs": k * (k + 1) // 2}


@site_function(
    "evaluate.recalibration",
    version=1,
    symbols=_recalibration_sizes,
    parameters=_num_parameters,
    per_site=_tells_of_sites,
    rows=_num_complete,
)
def recalibration(
    data: Table,
    model: ScoringModel,
    frame: Frame,
    groups: Groups,
    basis: Basis,
    of_group: tuple[int, ...],
    num_free: tuple[int, ...],
    coefficients: Array,
) -> Recalibration:
    """Gram matrix, score and log-likelihood of logistic fits at these coefficients, each over one group.

    Args:
        data: the site's records.
        model: predicts probabilities.
        frame: outcome, and the variables that must be present.
        groups: of records.
        basis: columns of the fits.
        of_group: the group of each fit.
        num_free: how many of the columns each fit is over, the first ones; the sums of the others are left at 0.
        coefficients: shape (num_fits, num_columns); 0 for columns beyond the first two that are not free.

    Raises:
        DataError: coefficients or groups do not fit.
    """
    _check_fits(groups, basis, of_group, num_free, coefficients)
    member, k = _Membership(data, groups), basis.num_columns
    used = max((2, *num_free))
    narrow = basis if used > 2 else Basis(center=basis.center, spread=basis.spread)
    gram, score = np.zeros((len(of_group), k, k)), np.zeros((len(of_group), k))
    likelihood = np.zeros(len(of_group))
    for block in _usable(data, model, frame, "probability"):
        x = narrow.evaluate(to_line(block.score, "probability"))
        parts = _by_group(member, block.rows, x, block.outcome, set(of_group))
        for fit, (group, size) in enumerate(zip(of_group, num_free, strict=True)):
            part, y = parts[group]
            eta = part[:, : max(size, 2)] @ coefficients[fit, : max(size, 2)]
            free, mean = part[:, :size], special.expit(eta)
            gram[fit, :size, :size] += free.T @ (free * (mean * (1 - mean))[:, None])
            score[fit, :size] += free.T @ (y - mean)
            likelihood[fit] += float(special.log_expit(np.where(y == 1, eta, -eta)).sum())
    return Recalibration(
        gram=gram[:, *np.triu_indices(k)].reshape(len(of_group), -1), score=score, log_likelihood=likelihood
    )


def _check_fits(
    groups: Groups, basis: Basis, of_group: tuple[int, ...], num_free: tuple[int, ...], coefficients: Values
) -> None:
    if coefficients.shape != (len(of_group), basis.num_columns) or not np.isfinite(coefficients).all():
        raise DataError("each fit must have one finite coefficient a column")
    if len(num_free) != len(of_group) or any(not 1 <= size <= basis.num_columns for size in num_free):
        raise DataError("each fit must be over some of the columns")
    if any(not 0 <= group < groups.num_groups for group in of_group):
        raise DataError(f"there are {groups.num_groups} groups")


def _by_group(
    member: _Membership, rows: NDArray[np.intp], x: Values, y: Values, groups: set[int]
) -> dict[int, tuple[Values, Values]]:
    """Columns and outcomes of the records in each group."""
    chosen = {group: member.rows_of(rows, group) for group in groups}
    return {group: (x[which], y[which]) for group, which in chosen.items()}
