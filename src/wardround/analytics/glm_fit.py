"""The iteration to the maximum of the likelihood, and the proof from sums that there is none.

References:
    McCullagh & Nelder (1989), Generalized Linear Models, 2nd ed., section 2.5 (the iteration).
    Albert & Anderson (1984), Biometrika 71, 1-10 (separation).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.design import (
    Design,
    Frame,
    evaluate_blocks,
    num_complete_rows,
    num_parameters,
    tells_of_one_site,
)
from wardround.analytics.families import LINKS
from wardround.analytics.glm_sums import Model, Terms, check_columns, terms
from wardround.analytics.linear import solve_symmetric, unpack_symmetric
from wardround.analytics.preparation import Prepared
from wardround.data.table import Table
from wardround.errors import ConvergenceError, SeparationError
from wardround.sums import Array, Contribution, Steps, Total, ask, people, site_function

MAX_ITERATIONS = 100
"""Most steps of the iteration, halvings included."""
STEP_TOLERANCE = 1e-9
"""Largest last step of a standardised coefficient, relative to 1 + its size."""
FLAT_STEP = 1e-4
"""The same where the deviance has stood still for two steps: what is left is rounding error of a bad condition."""
LEAST_CURVATURE = 1e-13
"""Least eigenvalue of the Gram matrix at the fit, its diagonal scaled to 1; columns that are combinations of each
other were found before, so that a smaller one is of weights that went to zero."""
SEPARATION_CHECK_FROM = 8
"""Step from which on an iteration that does not settle is checked for separation."""
SEPARATION_STEP = 1e-7
"""Relative step above which an iteration counts as not settled there."""
SEPARATION_TOLERANCE = 1e-6
"""How far against a direction, in standardised columns, a record may stand and still count as neither way."""

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A fitted model in standardised coefficients, with the sums computed at them."""

    coefficients: Values
    total: Total[Terms]
    num_iterations: int

    @property
    def gram(self) -> Values:
        """Weighted Gram matrix at the fit, shape (num_columns, num_columns)."""
        return unpack_symmetric(self.total.sum.gram)


def fit_model(prepared: Prepared, model: Model, penalty: Values, first: Terms) -> Steps[Fit]:
    """Iterate to the maximum of the penalised likelihood, halving steps that go too far.

    Args:
        prepared: the design.
        model: family and link.
        penalty: what is added to the Gram matrix's diagonal, shape (num_columns,).
        first: sums whose solution is the start.

    Raises:
        SeparationError: the sums show that no finite estimate exists.
        ConvergenceError: no convergence in `MAX_ITERATIONS` steps.

    Guarantees:
        only_a_settled_fit_is_returned: the last step was below `STEP_TOLERANCE`, or below `FLAT_STEP` where the
            deviance no longer moved.
    """
    design, frame = prepared.design, prepared.frame
    coefficients = solve_symmetric(unpack_symmetric(first.gram) + np.diag(penalty), first.score)
    accepted, objective = overall_mean_coefficients(prepared, model), np.inf
    step, num_flat = np.zeros_like(coefficients), 0
    for iteration in range(1, MAX_ITERATIONS + 1):
        total = yield from ask(terms, design, frame, model, coefficients)
        reached = total.sum.deviance + float(penalty @ coefficients**2)
        if total.sum.num_invalid or reached > objective + 1e-9 * abs(objective) + 1e-12:
            coefficients = (coefficients + accepted) / 2
            continue
        num_flat = num_flat + 1 if objective - reached <= 1e-14 * abs(reached) else 0
        accepted, objective = coefficients, reached
        gram = unpack_symmetric(total.sum.gram) + np.diag(penalty)
        step = solve_symmetric(gram, total.sum.score - penalty * coefficients)
        size = float(np.max(np.abs(step) / (1 + np.abs(coefficients)), initial=0.0))
        if not penalty.any():
            is_moving = iteration >= SEPARATION_CHECK_FROM and iteration % 2 == 0 and size > SEPARATION_STEP
            yield from _check_separation(prepared, model, total.sum, coefficients, step if is_moving else None)
        if size <= (FLAT_STEP if num_flat >= 2 else STEP_TOLERANCE):
            _check_curvature(prepared, gram)
            last = yield from ask(terms, design, frame, model, coefficients + step)
            if last.sum.num_invalid:  # an impossible mean a rounding error away
                return Fit(coefficients=coefficients, total=total, num_iterations=iteration)
            return Fit(coefficients=coefficients + step, total=last, num_iterations=iteration)
        coefficients = coefficients + step
    raise ConvergenceError(_not_settled(prepared, step, objective))


def _check_curvature(prepared: Prepared, gram: Values) -> None:
    """Raise `SeparationError` where the weights have vanished in a direction that the records did span."""
    size = np.sqrt(np.diag(gram))
    with np.errstate(all="ignore"):
        scaled = gram / np.outer(size, size)
    values, vectors = np.linalg.eigh(scaled) if np.isfinite(scaled).all() else (np.zeros(1), np.eye(len(gram)))
    if values[0] > LEAST_CURVATURE:
        return
    flat = vectors[:, 0] / np.abs(vectors[:, 0]).max()
    names = [c.name for c, part in zip(prepared.design.columns, flat, strict=True) if abs(part) > 0.1]
    raise SeparationError(
        f"the likelihood grows for ever in the direction of {', '.join(names[:5])}: the means of some records go to "
        "the edge of what is possible; merge rare levels, leave the term out, or add an l2 penalty"
    )


def _not_settled(prepared: Prepared, step: Values, objective: float) -> str:
    remedy = "simplify the formula, try another link, or add an l2 penalty"
    if not np.isfinite(objective):
        return f"found no coefficients at which every record's mean is possible; {remedy}"
    worst = prepared.design.columns[int(np.argmax(np.abs(step)))].name
    return f"no convergence in {MAX_ITERATIONS} steps; {worst} still moves; {remedy}"


def overall_mean_coefficients(prepared: Prepared, model: Model) -> Values:
    """Coefficients that give every record the overall mean: where a first step that went too far is drawn back to."""
    coefficients = np.zeros(prepared.design.num_columns)
    for j, column in enumerate(prepared.design.columns):
        if not column.features:
            with np.errstate(all="ignore"):
                value = float(LINKS[model.link].link(np.array([prepared.outcome_mean]))[0])
            coefficients[j] = value - prepared.frame.offset_shift if np.isfinite(value) else 0.0
    return coefficients


class Separated(Contribution):
    """Records that speak against a direction of separation, and records that it separates."""

    num_against: int = people(cells="none")
    num_separated: int = people(cells="none")


@site_function(
    "glm.separated",
    version=1,
    parameters=num_parameters,
    per_site=tells_of_one_site,
    rows=num_complete_rows,
)
def separated(data: Table, design: Design, frame: Frame, model: Model, direction: Array, tolerance: float) -> Separated:
    """Whether going along `direction` for ever improves the fit of every record that has a weight.

    Where no record is against it and some are separated, no finite maximum-likelihood estimate exists.

    Raises:
        DataError: `direction` does not fit the design.
    """
    check_columns(design, direction=np.atleast_1d(direction))
    num_against = num_separated = 0
    for block in evaluate_blocks(data, design, frame):
        along = block.x @ direction
        if model.family == "binomial" and model.link != "log":  # a log link's predictor cannot grow for ever
            gain = np.where(block.y >= 0.5, along, -along)
            gain = np.where((block.y > 0) & (block.y < 1), -np.abs(along), gain)
        else:
            gain = np.where(block.y > 0, -np.abs(along), -along)
        gain = gain[block.case_weight > 0]
        num_against += int((gain < -tolerance).sum())
        num_separated += int((gain > tolerance).sum())
    return Separated(num_against=num_against, num_separated=num_separated)


def _check_separation(
    prepared: Prepared, model: Model, sums: Terms, coefficients: Values, step: Values | None
) -> Steps[None]:
    """Raise `SeparationError` where sums prove that no finite estimate exists.

    Args:
        prepared: the design.
        model: family and link.
        sums: at the coefficients.
        coefficients: where the iteration is.
        step: the step it takes, where it ought to have settled by now.
    """
    if model.family not in ("binomial", "poisson") or model.link in ("identity", "sqrt"):
        return
    is_perfect = model.family == "binomial" and sums.deviance < 1e-4 * sums.num_rows
    direction = coefficients if is_perfect else step
    if direction is None or not direction.any():
        return
    direction = direction / np.abs(direction).max()
    found = (yield from ask(separated, prepared.design, prepared.frame, model, direction, SEPARATION_TOLERANCE)).sum
    if found.num_against == 0 and found.num_separated > 0:
        names = [c.name for c, d in zip(prepared.design.columns, direction, strict=True) if abs(d) > 0.1 and c.features]
        raise SeparationError(
            f"separation: {', '.join(names[:5]) or 'the intercept'} predicts the outcome perfectly in a part of the "
            "records, so that the estimate is infinite; merge rare levels, leave the term out, or add an l2 penalty"
        )
