"""The iteration to the maximum of the partial likelihood, over risk sets that sites share or have to themselves.

References:
    Cox (1972), J. R. Stat. Soc. B 34, 187-220.
    Bryson & Johnson (1981), Technometrics 23, 381-383 (monotone likelihood).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from scipy import linalg

from wardround.analytics.cox_risk import LARGEST_PREDICTOR, Hazard, Indices, RiskFrame, Ties, Values
from wardround.analytics.cox_sums import risk_sums, second_moment_sums, site_terms
from wardround.analytics.linear import independent_columns, solve_symmetric, unpack_symmetric
from wardround.analytics.preparation import Prepared
from wardround.errors import ConvergenceError, RankDeficiencyError, SeparationError
from wardround.sums import Steps, ask

MAX_ITERATIONS = 100
"""Most steps of the iteration, halvings included."""
STEP_TOLERANCE = 1e-10
"""Largest step of a standardised coefficient, relative to 1 + its size, that may be left to do."""
FLAT_STEP = 1e-4
"""The same where the likelihood has stood still for two steps: what is left is rounding error of a bad condition."""
LEAST_PART = 1e-10
"""Part of a column's sum of squares that must vary within the risk sets for the column to count as not constant."""
MONOTONE_STEP = 0.1
"""Step of a standardised coefficient that a flat likelihood must still take for it to count as monotone."""
MONOTONE_INFORMATION = 1e-4
"""Information along that step, relative to the one at zero, below which the likelihood counts as flat."""
LEAST_INFORMATION = 1e-9
"""Information at the end, relative to the one at zero, below which a likelihood that stands still is a flat one."""
MOST_BEYOND = 4
"""Steps in a row that lead to impossible hazards after which the iteration is given up."""
BEYOND_INFORMATION = 0.05
"""Information along such a step, relative to the one at zero, above which a far value is why, not a flat likelihood."""


@dataclass(frozen=True, slots=True, kw_only=True)
class At:
    """The partial likelihood at some coefficients.

    Attributes:
        coefficients: of the standardised columns, shape (num_columns,).
        log_likelihood: of the partial likelihood; minus infinity where the coefficients are impossible.
        score: its gradient, shape (num_columns,).
        information: its negative second derivative, where it was asked for.
        products: sum of squares that the information is less than, likewise.
        hazard: where risk sets are shared.
        squares: sum of squared linear predictors.
    """

    coefficients: Values
    log_likelihood: float
    score: Values
    information: Values | None = None
    products: Values | None = None
    hazard: Hazard | None = None
    squares: float = 0.0

    @property
    def curvature(self) -> Values:
        """The information, which must have been asked for."""
        assert self.information is not None
        return self.information

    @property
    def known_hazard(self) -> Hazard:
        """The hazard, which shared risk sets give."""
        assert self.hazard is not None
        return self.hazard


def impossible(coefficients: Values) -> At:
    """What is known of coefficients that give some record no possible hazard."""
    return At(coefficients=coefficients, log_likelihood=-np.inf, score=np.zeros_like(coefficients))


class RiskSets(Protocol):
    """Where the risk sets lie: over all sites, or each within its site."""

    def at(self, prepared: Prepared, coefficients: Values) -> Steps[At]:
        """Likelihood and score at these coefficients."""

    def with_information(self, prepared: Prepared, found: At) -> Steps[At]:
        """The same with the information."""

    def weighted(self, prepared: Prepared, found: At, weighting: Values) -> Steps[tuple[Values, Values]]:
        """Score and information with the grid's points weighted, shapes (w, p), (w, p, p)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRiskSets:
    """Each site is a stratum: it computes its own likelihood, and the sums are the whole one."""

    risk: RiskFrame
    ties: Ties

    def with_columns(self, kept: list[int]) -> SiteRiskSets:
        """The same: nothing here is of a column."""
        del kept
        return self

    def at(self, prepared: Prepared, coefficients: Values) -> Steps[At]:
        """Likelihood, score and information at these coefficients, in one ask."""
        ones = np.ones((1, self.risk.outcome.num_steps))
        total = yield from ask(site_terms, prepared.design, prepared.frame, self.risk, self.ties, coefficients, ones)
        if total.sum.num_invalid:
            return impossible(coefficients)
        return At(
            coefficients=coefficients,
            log_likelihood=total.sum.log_likelihood,
            score=total.sum.score[0],
            information=unpack_symmetric(total.sum.information[0]),
            products=unpack_symmetric(total.sum.products),
            squares=total.sum.squares,
        )

    def with_information(self, prepared: Prepared, found: At) -> Steps[At]:
        """As it is: the information came with the likelihood."""
        yield from ()
        return found

    def weighted(self, prepared: Prepared, found: At, weighting: Values) -> Steps[tuple[Values, Values]]:
        """Score and information with the grid's points weighted."""
        design, frame, at = prepared.design, prepared.frame, found.coefficients
        total = (yield from ask(site_terms, design, frame, self.risk, self.ties, at, weighting)).sum
        return total.score, np.array([unpack_symmetric(row) for row in total.information])


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedRiskSets:
    """Risk sets over all sites.

    Attributes:
        risk: times and strata.
        ties: method for tied deaths.
        points: places of the event times, shape (num_points,).
        num_deaths: at each, shape (num_points,).
        death_sums: weights and weighted columns of the deaths at each point, shape (num_points, 1 + num_columns).
    """

    risk: RiskFrame
    ties: Ties
    points: Indices
    num_deaths: Indices
    death_sums: Values

    @property
    def death_weight(self) -> Values:
        """Case weights of the deaths, shape (num_points,)."""
        return self.death_sums[:, 0]

    def with_columns(self, kept: list[int]) -> SharedRiskSets:
        """The same with only these columns of the design."""
        return replace(self, death_sums=self.death_sums[:, [0, *(1 + j for j in kept)]])

    @classmethod
    def found(
        cls, prepared: Prepared, risk: RiskFrame, ties: Ties, points: Indices, num_deaths: Indices
    ) -> Steps[tuple[SharedRiskSets, At]]:
        """Risk sets with the sums over deaths, which are those at coefficients of zero; and the likelihood there."""
        zeros = np.zeros(prepared.design.num_columns)
        where = points.astype(np.float64)
        total = (yield from ask(risk_sums, prepared.design, prepared.frame, risk, where, zeros, True)).sum
        sets = cls(risk=risk, ties=ties, points=points, num_deaths=num_deaths, death_sums=total.deaths)
        return sets, sets._likelihood(sets._hazard(total.at_risk, total.deaths), zeros, 0.0)

    def _hazard(self, at_risk: Values, deaths: Values) -> Hazard:
        return Hazard.of(at_risk, deaths, self.num_deaths, self.death_weight, self.ties)

    def _likelihood(self, hazard: Hazard, coefficients: Values, squares: float) -> At:
        if not np.isfinite(hazard.log_denominator).all():
            return impossible(coefficients)
        reached = float(self.death_sums[:, 1:].sum(axis=0) @ coefficients - hazard.log_denominator.sum())
        score = self.residuals(hazard).sum(axis=0)
        return At(coefficients=coefficients, log_likelihood=reached, score=score, hazard=hazard, squares=squares)

    def residuals(self, hazard: Hazard) -> Values:
        """Columns of the deaths less what their risk sets lead to expect, shape (num_points, num_columns)."""
        return self.death_sums[:, 1:] - self.death_weight[:, None] * hazard.mean

    def at(self, prepared: Prepared, coefficients: Values) -> Steps[At]:
        """Likelihood and score at these coefficients."""
        design, frame, where = prepared.design, prepared.frame, self.points.astype(np.float64)
        wants_deaths = self.ties == "efron"
        total = (yield from ask(risk_sums, design, frame, self.risk, where, coefficients, wants_deaths)).sum
        if total.num_invalid:
            return impossible(coefficients)
        return self._likelihood(self._hazard(total.at_risk, total.deaths), coefficients, total.squares)

    def with_information(self, prepared: Prepared, found: At) -> Steps[At]:
        """The same with the information."""
        ones = np.ones((1, len(self.points)))
        products = yield from self._products(prepared, found, ones)
        information = products[0] - found.known_hazard.outer(ones[0])
        return replace(found, information=information, products=products[0])

    def weighted(self, prepared: Prepared, found: At, weighting: Values) -> Steps[tuple[Values, Values]]:
        """Score and information with the grid's points weighted."""
        weights = weighting[:, self.points % self.risk.outcome.num_steps]
        products = yield from self._products(prepared, found, weights)
        hazard = found.known_hazard
        information = np.array([part - hazard.outer(g) for part, g in zip(products, weights, strict=True)])
        return weights @ self.residuals(hazard), information

    def _products(self, prepared: Prepared, found: At, weights: Values) -> Steps[Values]:
        hazard, design, frame = found.known_hazard, prepared.design, prepared.frame
        total = yield from ask(
            second_moment_sums,
            design,
            frame,
            self.risk,
            self.points.astype(np.float64),
            found.coefficients,
            weights * hazard.increment,
            weights * hazard.death_part,
        )
        return np.array([unpack_symmetric(row) for row in total.sum.products])


def independent(found: At) -> list[int]:
    """Columns that are, within the risk sets, neither constant nor combinations of earlier ones.

    Args:
        found: with the information at coefficients of zero.
    """
    assert found.products is not None
    size = np.sqrt(np.diag(found.products))
    size = np.where(size > 0, size, 1.0)
    scaled = found.curvature / np.outer(size, size)
    is_constant = np.diag(scaled) <= LEAST_PART
    scaled[is_constant], scaled[:, is_constant] = 0.0, 0.0
    return independent_columns(scaled)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoxFit:
    """Where the iteration settled, where it began, and in how many steps."""

    start: At
    end: At
    num_iterations: int


def fit_cox(prepared: Prepared, sets: RiskSets, start: At, penalty: Values) -> Steps[CoxFit]:
    """Newton's iteration to the maximum of the penalised partial likelihood, halving steps that go too far.

    Args:
        prepared: the design.
        sets: where the risk sets lie.
        start: at coefficients of zero, with the information.
        penalty: added to the information's diagonal, shape (num_columns,).

    Raises:
        SeparationError: the likelihood grows for ever in some direction.
        ConvergenceError: no convergence in `MAX_ITERATIONS` steps, or some record lies too far from all others.

    Guarantees:
        only_a_settled_cox_fit_is_returned: the step left to do is below `STEP_TOLERANCE`, or below `FLAT_STEP` where
            the likelihood no longer moves.
    """
    found, num_flat, num_asked, num_beyond = start, 0, 0, 0
    step = np.zeros_like(start.coefficients)
    for iteration in range(1, MAX_ITERATIONS + 1):
        step = solve_symmetric(found.curvature + np.diag(penalty), found.score - penalty * found.coefficients)
        size = float(np.max(np.abs(step) / (1 + np.abs(found.coefficients)), initial=0.0))
        if size <= (FLAT_STEP if num_flat >= 2 else STEP_TOLERANCE):
            # A start from which columns were dropped has no hazard of its own.
            end = found if num_asked else (yield from _asked_again(prepared, sets, found))
            if not penalty.any():
                _check_flat(prepared, start, end, LEAST_INFORMATION)
            return CoxFit(start=start, end=end, num_iterations=iteration - 1)
        if not penalty.any():
            _check_monotone(prepared, start, found, step)
        better, num_halvings, is_beyond = yield from _better(prepared, sets, found, step, penalty)
        num_beyond = num_beyond + 1 if is_beyond else 0
        if num_beyond >= MOST_BEYOND:
            raise _beyond(prepared, start, found, step, is_penalised=bool(penalty.any()))
        num_asked += 1 + num_halvings
        if better is None or num_asked > MAX_ITERATIONS:
            break
        num_flat = num_flat + 1 if _gain(found, better, penalty) <= 1e-13 * abs(found.log_likelihood) else 0
        found = yield from sets.with_information(prepared, better)
    if not penalty.any():
        _check_flat(prepared, start, found, MONOTONE_INFORMATION)
    worst = prepared.design.columns[int(np.argmax(np.abs(step)))].name
    raise ConvergenceError(
        f"no convergence in {MAX_ITERATIONS} steps; {worst} still moves; simplify the formula, or add an l2 penalty"
    )


def _asked_again(prepared: Prepared, sets: RiskSets, found: At) -> Steps[At]:
    there = yield from sets.at(prepared, found.coefficients)
    return (yield from sets.with_information(prepared, there))


def _gain(before: At, after: At, penalty: Values) -> float:
    """By how much the penalised log-likelihood grew."""
    shrunk = 0.5 * float(penalty @ (after.coefficients**2 - before.coefficients**2))
    return after.log_likelihood - before.log_likelihood - shrunk


def _better(
    prepared: Prepared, sets: RiskSets, found: At, step: Values, penalty: Values
) -> Steps[tuple[At | None, int, bool]]:
    """The first of the step, half of it, a quarter of it, ... at which the likelihood is no worse.

    Returns:
        It, which it was, and whether the whole step led to impossible hazards.
    """
    is_beyond = False
    for num_halvings in range(MAX_ITERATIONS):
        there = yield from sets.at(prepared, found.coefficients + step / 2**num_halvings)
        if _gain(found, there, penalty) >= -1e-9 * abs(found.log_likelihood) - 1e-12:
            return there, num_halvings, is_beyond
        is_beyond |= num_halvings == 0 and not np.isfinite(there.log_likelihood)
    return None, MAX_ITERATIONS, is_beyond


def _check_monotone(prepared: Prepared, start: At, found: At, step: Values) -> None:
    """Raise `SeparationError` where the iteration strides on through a likelihood that has become flat."""
    if np.abs(step).max(initial=0.0) < MONOTONE_STEP:
        return
    at_zero, here = float(step @ start.curvature @ step), float(step @ found.curvature @ step)
    is_outward = float(step @ start.curvature @ found.coefficients) > 0
    if not (is_outward and here < MONOTONE_INFORMATION * at_zero):
        return
    raise SeparationError(_monotone(prepared, step))


def _check_flat(prepared: Prepared, start: At, end: At, least: float) -> None:
    """Raise `SeparationError` where less than that part of the information at zero is left in some direction."""
    left, directions = linalg.eigh(end.curvature, start.curvature)
    if left[0] < least:
        raise SeparationError(_monotone(prepared, directions[:, 0]))


def _beyond(
    prepared: Prepared, start: At, found: At, step: Values, *, is_penalised: bool
) -> SeparationError | ConvergenceError:
    """Why steps lead to impossible hazards: the likelihood is flat, or a record lies far from all others."""
    left = float(step @ found.curvature @ step) / float(step @ start.curvature @ step)
    if not is_penalised and left < BEYOND_INFORMATION:
        return SeparationError(_monotone(prepared, step))
    return ConvergenceError(
        f"no fit: a record's hazard would be over exp({LARGEST_PREDICTOR:g}) times that of an average one, by "
        f"{_directions(prepared, step)}; look for values far from all others (another unit?) and correct them, or take "
        "the variable's logarithm"
    )


def _directions(prepared: Prepared, step: Values) -> str:
    largest = np.abs(step).max()
    names = [c.name for c, s in zip(prepared.design.columns, step, strict=True) if abs(s) > 0.1 * largest]
    return ", ".join(names[:5])


def _monotone(prepared: Prepared, step: Values) -> str:
    return (
        f"monotone likelihood: it grows for ever in the direction of {_directions(prepared, step)}, so that the hazard "
        "ratio is infinite (at each event the highest value of those at risk had it, or a level has no event); merge "
        "rare levels, leave the term out, or add an l2 penalty"
    )


def refuse_dependent(prepared: Prepared, kept: list[int]) -> None:
    """Raise `RankDeficiencyError` naming the columns that are not kept."""
    lost = [column.name for j, column in enumerate(prepared.design.columns) if j not in set(kept)]
    if lost:
        raise RankDeficiencyError(
            f"{', '.join(lost[:10])}: constant among those at risk at every event, or nearly a combination of the "
            "columns before it (a variable that is also a stratum is); leave it out, or set aliased = 'drop'"
        )
