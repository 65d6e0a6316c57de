"""Every site's own fit of a model: the estimates that a meta-analysis combines.

Inside the site runs the very iteration of the federated model (`glm_fit.py`), asked of this site's records alone
(`sums/local.py`), over columns that are the same at all sites. What leaves is a slot of the site's own, so that
these asks need the rule `allows_site_results`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.cox_fit import SiteRiskSets, fit_cox, independent
from wardround.analytics.cox_risk import RiskFrame, Ties
from wardround.analytics.design import (
    Design,
    Frame,
    Level,
    complete_rows,
    evaluate_blocks,
    feature_values,
    num_complete_rows,
)
from wardround.analytics.families import FAMILIES
from wardround.analytics.glm_fit import fit_model
from wardround.analytics.glm_sums import Model, first_terms
from wardround.analytics.linear import independent_columns, pack_symmetric, solve_symmetric, unpack_symmetric
from wardround.analytics.preparation import Prepared
from wardround.analytics.survival_time import survival_rows
from wardround.data.table import Table
from wardround.errors import ConvergenceError, DataError, ModelError, RankDeficiencyError, SeparationError
from wardround.sums import Array, Contribution, Steps, ask, exact, people, site_function
from wardround.sums.local import run_locally

Values = NDArray[np.float64]

FITTED = "fitted"
STATUSES = (
    FITTED,
    "no complete record",
    "fewer records or events than the model needs",
    "the outcome is the same in all of its records, or nobody had the event",
    "a group of its records is smaller than the disclosure rules allow",
    "a column is constant there",
    "columns are combinations of each other there",
    "separation: no finite estimate exists",
    "the iteration did not settle",
)
"""What a site tells of its fit; its place in this tuple is sent."""
_EMPTY, _FEW, _CONSTANT_OUTCOME, _SMALL, _CONSTANT_COLUMN, _ALIASED, _SEPARATED, _UNSETTLED = range(1, 9)


class SiteEstimates(Contribution):
    """A slot for every site: its coefficients of the standardised columns, their covariance, and how the fit went.

    `column` is the number of the column that a status is about, from 1; 0: none. Records and events (outcomes that
    are 1) are told where no such count is small.
    """

    status: Array = exact("num_sites")
    column: Array = exact("num_sites")
    estimates: Array = exact("num_sites", "num_columns")
    covariances: Array = exact("num_sites", "num_pairs")
    num_records: NDArray[np.int64] = people("num_sites")
    num_events: NDArray[np.int64] = people("num_sites")


def estimate_sizes(sites: tuple[str, ...], design: Design, **_: Any) -> dict[str, float]:
    """Values of the names in the declarations of `SiteEstimates`."""
    p = design.num_columns
    return {"num_sites": len(sites), "num_columns": p, "num_pairs": p * (p + 1) // 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What one site tells.

    Attributes:
        status: place in `STATUSES`.
        column: that the status is about, from 1; 0: none.
        coefficients: of the standardised columns, shape (num_columns,); None where there is no fit.
        covariance: of them, shape (num_columns, num_columns).
        num_records: complete records; 0 where it is not told.
        num_events: of them with the outcome; 0 where it is not told.
    """

    status: int
    column: int = 0
    coefficients: Values | None = None
    covariance: Values | None = None
    num_records: int = 0
    num_events: int = 0


@site_function(
    "site_estimates.glm",
    version=1,
    symbols=estimate_sizes,
    parameters=lambda design, **_: design.num_columns,
    per_site=True,
    rows=num_complete_rows,
)
def glm_estimates(
    data: Table, sites: tuple[str, ...], design: Design, frame: Frame, model: Model, minimum_cell: int
) -> SiteEstimates:
    """This site's own generalised linear model, in its slot.

    Args:
        data: the site's records.
        sites: whose slots there are.
        design: the columns, the same at all sites.
        frame: the rows, and the numbers beside the columns.
        model: family and link.
        minimum_cell: a site in which a level, a value of a two-valued column, or (of a binary outcome) one of these
            with or without the outcome has 1 to `minimum_cell - 1` records keeps its estimates back: they would
            tell the count.

    Raises:
        DataError: the site has no slot.

    Guarantees:
        equals_the_sites_own_fit: estimates and covariance are those of the same model fitted to its table alone.
        estimates_of_small_groups_stay: where a group is smaller than `minimum_cell`, nothing but that is told.
    """
    outcome = feature_values(data, frame.outcome)
    is_event = np.zeros(data.num_records, bool)
    if model.family == "binomial":
        rows = complete_rows(data, frame.required)
        is_event[rows] = outcome(rows) == 1
    counts = count_groups(data, design, frame, is_event, is_split=model.family == "binomial")
    estimate = _refusal(counts, design, minimum_cell)
    if estimate is None:
        steps = _fit_glm(design, frame, model, counts)
        estimate = _estimate(counts, lambda: run_locally(steps, data, data.site))
    return in_slot(estimate, data.site, sites, design.num_columns)


@site_function(
    "site_estimates.cox",
    version=1,
    symbols=estimate_sizes,
    parameters=lambda design, **_: design.num_columns,
    per_site=True,
    rows=num_complete_rows,
)
def cox_estimates(
    data: Table, sites: tuple[str, ...], design: Design, frame: Frame, risk: RiskFrame, ties: Ties, minimum_cell: int
) -> SiteEstimates:
    """This site's own Cox model, in its slot.

    Args:
        data: the site's records.
        sites: whose slots there are.
        design: the columns, the same at all sites.
        frame: the rows.
        risk: times, events and strata.
        ties: method for tied events.
        minimum_cell: as in `glm_estimates`; the event takes the place of the binary outcome.

    Raises:
        DataError: the site has no slot.

    Guarantees:
        equals_the_sites_own_cox_fit: estimates and covariance are those of the same model fitted to its table alone.
    """
    rows = complete_rows(data, frame.required)
    is_event = np.zeros(data.num_records, bool)
    is_event[rows] = survival_rows(data, risk.outcome, rows).cause > 0
    found = count_groups(data, design, frame, is_event, is_split=True)
    counts = replace(found, is_constant_outcome=found.num_events == 0, num_needed=found.num_events)
    estimate = _refusal(counts, design, minimum_cell)
    if estimate is None:
        steps = _fit_cox(design, frame, risk, ties, counts)
        estimate = _estimate(counts, lambda: run_locally(steps, data, data.site))
    return in_slot(estimate, data.site, sites, design.num_columns)


def _estimate(counts: Groups, fit: Callable[[], tuple[Values, Values]]) -> Estimate:
    """A fit, or why there is none, with the site's counts."""
    try:
        coefficients, covariance = fit()
    except ModelError as error:
        return Estimate(status=_status_of(error), num_records=counts.num_records, num_events=counts.num_events)
    return Estimate(
        status=0,
        coefficients=coefficients,
        covariance=(covariance + covariance.T) / 2,
        num_records=counts.num_records,
        num_events=counts.num_events,
    )


def in_slot(estimate: Estimate, site: str, sites: tuple[str, ...], num_columns: int) -> SiteEstimates:
    """An estimate in the site's slot, zeros in all others. Raises `DataError` if it has none."""
    if site not in sites:
        raise DataError("this site has no slot among those that the ask names; the roster of the run is another one")
    place, num_sites = sites.index(site), len(sites)
    empty = SiteEstimates(
        status=np.zeros(num_sites),
        column=np.zeros(num_sites),
        estimates=np.zeros((num_sites, num_columns)),
        covariances=np.zeros((num_sites, num_columns * (num_columns + 1) // 2)),
        num_records=np.zeros(num_sites, np.int64),
        num_events=np.zeros(num_sites, np.int64),
    )
    empty.status[place], empty.column[place] = estimate.status, estimate.column
    empty.num_records[place], empty.num_events[place] = estimate.num_records, estimate.num_events
    if estimate.coefficients is not None and estimate.covariance is not None:
        empty.estimates[place] = estimate.coefficients
        empty.covariances[place] = pack_symmetric(estimate.covariance)
    return empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """How many of a site's complete records are of a kind.

    Attributes:
        num_records: all.
        num_events: outcomes that are 1, of a binary outcome, or events; else 0.
        num_needed: what the number of columns must stay below: records, or events of a survival model.
        outcome_mean: weighted mean of the outcome.
        is_constant_outcome: whether it is the same in all.
        constant: columns (but for the intercept) that are the same in all, their numbers from 0.
        smallest: least count, other than 0, among the groups that the estimates would tell of.
    """

    num_records: int
    num_events: int
    num_needed: int
    outcome_mean: float
    is_constant_outcome: bool
    constant: tuple[int, ...]
    smallest: int


def count_groups(data: Table, design: Design, frame: Frame, is_event: NDArray[np.bool_], *, is_split: bool) -> Groups:
    """Count the groups that a site's own coefficients would tell of.

    Args:
        data: the site's records.
        design: the columns.
        frame: the rows, and the numbers beside the columns.
        is_event: which records have the event, shape (num_records,).
        is_split: whether the coefficients compare records with and without it, so that each group is counted twice.
    """
    rows = complete_rows(data, frame.required)
    low, high = np.full(design.num_columns, np.inf), np.full(design.num_columns, -np.inf)
    least, most = np.inf, -np.inf
    weight = weighted = 0.0
    for block in evaluate_blocks(data, design, frame):
        low, high = np.minimum(low, block.x.min(axis=0)), np.maximum(high, block.x.max(axis=0))
        least, most = min(least, float(block.y.min())), max(most, float(block.y.max()))
        weight += float(block.case_weight.sum())
        weighted += float(block.case_weight @ block.y)
    groups = [is_event, ~is_event] if is_split else [np.ones(data.num_records, bool)]
    counts = [len(rows), *(int(group[rows].sum()) for group in groups)]
    counts += _level_counts(data, design, [rows[group[rows]] for group in groups])
    counts += _two_valued_counts(data, design, frame, (low, high), groups)
    constant = [j for j, column in enumerate(design.columns) if column.features and not high[j] > low[j]]
    return Groups(
        num_records=len(rows),
        num_events=int(is_event[rows].sum()),
        num_needed=len(rows),
        outcome_mean=weighted / weight if weight > 0 else 0.0,
        is_constant_outcome=not most > least,
        constant=tuple(constant),
        smallest=min((count for count in counts if count), default=0),
    )


def _level_counts(data: Table, design: Design, groups: list[NDArray[np.intp]]) -> list[int]:
    """Records of every level of the categories in the design, the reference level's among them."""
    names = {feature.variable for c in design.columns for feature in c.features if isinstance(feature, Level)}
    counts: list[int] = []
    for name in sorted(names):
        is_coded = data.contract.variable(name).category_levels is not None
        values = data.codes(name) if is_coded else data.numbers(name)
        for group in groups:
            counts += np.unique(values[group], return_counts=True)[1].tolist()
    return counts


def _two_valued_counts(
    data: Table, design: Design, frame: Frame, ends: tuple[Values, Values], groups: list[NDArray[np.bool_]]
) -> list[int]:
    """Records at either value of the columns that have but two (a number coded 0 and 1, an interaction of levels)."""
    low, high = ends
    counts = np.zeros((2 * len(groups), design.num_columns), np.int64)
    is_two_valued = np.ones(design.num_columns, bool)
    for block in evaluate_blocks(data, design, frame):
        at_low, at_high = block.x == low, block.x == high
        is_two_valued &= (at_low | at_high).all(axis=0)
        counts += [(at & group[block.rows][:, None]).sum(axis=0) for at in (at_low, at_high) for group in groups]
    return [int(count) for count in counts[:, is_two_valued & (high > low)].ravel()]


def _refusal(counts: Groups, design: Design, minimum_cell: int) -> Estimate | None:
    """What a site tells that has no fit to tell of; None where it can be tried."""
    if counts.num_records == 0:
        return Estimate(status=_EMPTY)
    if counts.smallest < minimum_cell:
        return Estimate(status=_SMALL)
    status, column = 0, 0
    if counts.is_constant_outcome:
        status = _CONSTANT_OUTCOME
    elif counts.num_needed <= design.num_columns:
        status = _FEW
    elif counts.constant:
        status, column = _CONSTANT_COLUMN, counts.constant[0] + 1
    if not status:
        return None
    return Estimate(status=status, column=column, num_records=counts.num_records, num_events=counts.num_events)


def _status_of(error: ModelError) -> int:
    match error:
        case RankDeficiencyError():
            return _ALIASED
        case SeparationError():
            return _SEPARATED
        case ConvergenceError():
            return _UNSETTLED
    return _FEW


def _prepared(design: Design, frame: Frame, counts: Groups) -> Prepared:
    """A design as the federated iteration takes it."""
    return Prepared(
        design=design,
        frame=frame,
        terms=(),
        spans_constant=False,
        outcome_name="",
        outcome_mean=counts.outcome_mean,
        outcome_spread=0.0,
        num_records=counts.num_records,
        num_complete=counts.num_records,
        num_missing={},
        notes=(),
    )


def _fit_glm(design: Design, frame: Frame, model: Model, counts: Groups) -> Steps[tuple[Values, Values]]:
    """Coefficients of the standardised columns and their model-based covariance.

    Raises:
        ModelError: rank deficiency, separation, no convergence, a perfect fit.
    """
    first = (yield from ask(first_terms, design, frame, model, counts.outcome_mean)).sum
    if len(independent_columns(unpack_symmetric(first.gram))) < design.num_columns:
        raise RankDeficiencyError("columns are combinations of each other")
    prepared = _prepared(design, frame, counts)
    fit = yield from fit_model(prepared, model, np.zeros(design.num_columns), first)
    sums = fit.total.sum
    has_scale = FAMILIES[model.family].has_scale
    dispersion = sums.pearson / (sums.num_rows - design.num_columns) if has_scale else 1.0
    covariance = dispersion * solve_symmetric(fit.gram, np.eye(design.num_columns))
    if not (np.diag(covariance) > 0).all():
        raise ModelError("the model fits perfectly, which leaves no standard error")
    return fit.coefficients, covariance


def _fit_cox(design: Design, frame: Frame, risk: RiskFrame, ties: Ties, counts: Groups) -> Steps[tuple[Values, Values]]:
    """As `_fit_glm`, of the Cox model.

    Raises:
        ModelError: rank deficiency within the risk sets, monotone likelihood, no convergence.
    """
    prepared, sets = _prepared(design, frame, counts), SiteRiskSets(risk=risk, ties=ties)
    start = yield from sets.at(prepared, np.zeros(design.num_columns))
    if len(independent(start)) < design.num_columns:
        raise RankDeficiencyError("columns are combinations of each other within the risk sets")
    fit = yield from fit_cox(prepared, sets, start, np.zeros(design.num_columns))
    return fit.end.coefficients, solve_symmetric(fit.end.curvature, np.eye(design.num_columns))
