"""Linear mixed models with sites as groups: what a site adds to the likelihood, with exact derivatives.

With `V = I + Z L L' Z'` (`L` the relative Cholesky factor that `theta` fills), the profiled likelihood needs of a
site only `log |V|` and `W' V^-1 W` for `W = [X, y]`, and its derivatives by theta only such sums again. All of them
follow from the site's own Gram matrix of `[X, y]`, as the columns of `Z` are columns of `X`.

References:
    Bates, Mächler, Bolker & Walker (2015), J. Statistical Software 67(1), section 3 (the profiled criterion).
    Lindstrom & Bates (1988), JASA 83, 1014-1022 (Newton's iteration, derivatives).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.design import Block, Design, Frame, evaluate_blocks, num_complete_rows
from wardround.analytics.glm_sums import check_columns
from wardround.analytics.linear import pack_symmetric, solve_symmetric, unpack_symmetric
from wardround.analytics.mixed_newton import Point
from wardround.data.table import Table
from wardround.errors import DataError, ModelError
from wardround.sums import Array, Contribution, Steps, ask, exact, people, site_function

Values = NDArray[np.float64]

MAX_RANDOM = 5
"""Most random effects of a site."""


def num_theta(num_random: int) -> int:
    """Number of elements of the lower triangle."""
    return num_random * (num_random + 1) // 2


def theta_places(num_random: int) -> list[tuple[int, int]]:
    """Row and column of each element of theta in the lower triangle, by columns."""
    return [(i, j) for j in range(num_random) for i in range(j, num_random)]


def factor_of(theta: Values, num_random: int) -> Any:
    """The lower triangle that theta fills, shape (num_random, num_random); of theta's type."""
    factor = np.zeros((num_random, num_random), theta.dtype)
    for value, (i, j) in zip(theta, theta_places(num_random), strict=True):
        factor[i, j] = value
    return factor


def check_random(design: Design, random: tuple[int, ...], theta: Values) -> None:
    """Raise `DataError` unless these are columns of the design, with as many thetas as belong to them."""
    if not 1 <= len(random) <= MAX_RANDOM or not all(0 <= j < design.num_columns for j in random):
        raise DataError(f"the random effects must be 1 to {MAX_RANDOM} of the design's columns")
    if len(set(random)) < len(random) or theta.shape != (num_theta(len(random)),) or not np.isfinite(theta).all():
        raise DataError("theta must hold a finite number for each element of the random effects' lower triangle")


class LinearTerms(Contribution):
    """A site's part of the profiled likelihood: `log |V|`, `W' V^-1 W`, and their derivatives by theta."""

    log_det: float = exact()
    log_det_gradient: Array = exact("num_theta")
    log_det_hessian: Array = exact("num_theta_pairs")
    products: Array = exact("num_pairs")
    products_gradient: Array = exact("num_theta", "num_pairs")
    products_hessian: Array = exact("num_theta_pairs", "num_pairs")
    num_groups: float = exact()
    num_rows: int = people()


def _sizes(design: Design, random: tuple[int, ...], **_: Any) -> dict[str, float]:
    width, thetas = design.num_columns + 1, num_theta(len(random))
    return {
        "num_theta": thetas,
        "num_theta_pairs": thetas * (thetas + 1) // 2,
        "num_pairs": width * (width + 1) // 2,
    }


@site_function(
    "mixed.linear_terms",
    version=1,
    symbols=_sizes,
    parameters=lambda design, **_: design.num_columns,
    rows=num_complete_rows,
)
def linear_terms(
    data: Table, design: Design, frame: Frame, random: tuple[int, ...], theta: Array, start: Array
) -> LinearTerms:
    """This site's part of the likelihood of a linear mixed model in which it is one group.

    Args:
        data: the site's records.
        design: the columns.
        frame: the rows, and the numbers beside the columns.
        random: which columns have random effects.
        theta: lower triangle of the relative Cholesky factor, by columns.
        start: coefficients whose fit is taken off the outcome, so that its sums keep their digits.

    Raises:
        DataError: arguments that do not fit each other.

    Guarantees:
        linear_derivatives_are_exact: the derivatives by theta are those of the sums beside them.
    """
    check_columns(design, start=np.atleast_1d(start))
    check_random(design, random, theta)
    inner, fitted, rest, num_rows = _site_fit(data, design, frame, list(random), start)
    return _derivatives(inner, fitted, rest, theta, num_rows)


def _site_fit(
    data: Table, design: Design, frame: Frame, random: list[int], start: Values
) -> tuple[Values, Values, Values, int]:
    """`Z'Z`, the coefficients of `W` regressed on `Z` within the site, the Gram matrix of what is left, and the rows.

    What is left and what is fitted enter `W' V^-1 W` as a sum, so that nothing cancels however far sites are apart.
    """
    width = design.num_columns + 1
    inner, across, rest = np.zeros((len(random),) * 2), np.zeros((len(random), width)), np.zeros((width, width))
    num_rows = 0
    for block in evaluate_blocks(data, design, frame):
        z = block.x[:, random]
        inner += z.T @ z
        across += z.T @ _whole(block, start)
        num_rows += len(z)
    fitted = np.asarray(np.linalg.lstsq(inner, across, rcond=1e-12)[0], np.float64)
    for block in evaluate_blocks(data, design, frame):
        left = _whole(block, start) - block.x[:, random] @ fitted
        rest += left.T @ left
    return inner, fitted, rest, num_rows


def _whole(block: Block, start: Values) -> Values:
    """Columns and outcome, the fit of the starting coefficients taken off. Shape (num_rows, num_columns + 1)."""
    return np.column_stack([block.x, block.y - block.offset - block.x @ start])


def _derivatives(inner: Values, fitted: Values, rest: Values, theta: Values, num_rows: int) -> LinearTerms:
    q = len(inner)
    places, factor = theta_places(q), factor_of(theta, q)
    core = inner @ np.linalg.inv(np.eye(q) + factor @ factor.T @ inner)  # Z' V^-1 Z
    across = fitted.T @ core  # W' V^-1 Z
    products = rest + across @ fitted
    moves = [_unit(q, i, j) @ factor.T + factor @ _unit(q, i, j).T for i, j in places]
    pairs = [(k, m) for k in range(len(places)) for m in range(k, len(places))]
    seconds = [_unit(q, *places[k]) @ _unit(q, *places[m]).T for k, m in pairs]
    log_hessian = [
        np.trace(core @ (both + both.T)) - np.trace(core @ moves[k] @ core @ moves[m])
        for (k, m), both in zip(pairs, seconds, strict=True)
    ]
    bends = [
        moves[k] @ core @ moves[m] + moves[m] @ core @ moves[k] - both - both.T
        for (k, m), both in zip(pairs, seconds, strict=True)
    ]
    return LinearTerms(
        log_det=float(np.linalg.slogdet(np.eye(q) + factor.T @ inner @ factor)[1]),
        log_det_gradient=np.array([np.trace(core @ move) for move in moves]),
        log_det_hessian=np.array(log_hessian),
        products=pack_symmetric(products),
        products_gradient=np.array([pack_symmetric(-across @ move @ across.T) for move in moves]),
        products_hessian=np.array([pack_symmetric(across @ bend @ across.T) for bend in bends]),
        num_groups=float(num_rows > 0),
        num_rows=num_rows,
    )


def _unit(size: int, i: int, j: int) -> Values:
    matrix = np.zeros((size, size))
    matrix[i, j] = 1.0
    return matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What the totals at some theta say of the model, fixed effects and residual variance at their best.

    Attributes:
        deviance: minus twice the (restricted) log-likelihood.
        coefficients: of the standardised columns.
        precision: `X' V^-1 X`; the coefficients' covariance is the residual variance times its inverse.
        variance: of the residuals.
        freedom: records, less coefficients for the restricted likelihood.
        level: what of the deviance does not depend on the residual variance, with its derivatives by theta.
        square: least generalised sum of squares, with its derivatives by theta.
        num_rows: records.
        num_groups: sites with records.
    """

    deviance: float
    coefficients: Values
    precision: Values
    variance: float
    freedom: int
    level: tuple[float, Values, Values]
    square: tuple[float, Values, Values]
    num_rows: int
    num_groups: int

    def by_log_sigma(self, theta: Values, log_sigma: float) -> Point:
        """The deviance with the residual standard deviation a parameter of its own, the last one."""
        (level, slope, bend), (square, square_slope, square_bend) = self.level, self.square
        shrink, size = float(np.exp(-2 * log_sigma)), len(theta)
        hessian = np.empty((size + 1, size + 1))
        hessian[:size, :size] = bend + square_bend * shrink
        hessian[:size, size] = hessian[size, :size] = -2 * square_slope * shrink
        hessian[size, size] = 4 * square * shrink
        return Point(
            at=np.append(theta, log_sigma),
            value=level + self.freedom * (float(np.log(2 * np.pi)) + 2 * log_sigma) + square * shrink,
            gradient=np.append(slope + square_slope * shrink, 2 * self.freedom - 2 * square * shrink),
            hessian=hessian,
            found=self,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearModel:
    """A linear mixed model over the sites: design, random effects, and which likelihood is maximised."""

    design: Design
    frame: Frame
    random: tuple[int, ...]
    start: Values
    is_restricted: bool

    def at(self, theta: Values) -> Steps[Point]:
        """The profiled deviance at theta with its derivatives; `found` is the `Profile`.

        Raises:
            ModelError: the model fits perfectly, or has as many coefficients as there are records.
        """
        total = yield from ask(linear_terms, self.design, self.frame, self.random, theta, self.start)
        return profile_point(theta, total.sum, self.start, self.is_restricted)


def profile_point(theta: Values, sums: LinearTerms, start: Values, is_restricted: bool) -> Point:
    """The profiled deviance with its derivatives, from totals (Bates et al. 2015, equations 34 and 41)."""
    whole = unpack_symmetric(sums.products)
    precision, right = whole[:-1, :-1], whole[:-1, -1]
    change = solve_symmetric(precision, right)
    direction = np.append(-change, 1.0)
    square = float(direction @ whole @ direction)
    freedom = sums.num_rows - (len(change) if is_restricted else 0)
    if freedom <= 0 or not square > 1e-14 * sums.num_rows:
        raise ModelError("the columns predict the outcome perfectly, so that there is no residual variance to estimate")
    bread = solve_symmetric(precision, np.eye(len(change)))
    slope, bend = _square_derivatives(sums, direction, bread)
    logs, log_bend = np.array(sums.log_det_gradient), unpack_symmetric(sums.log_det_hessian)
    level = sums.log_det
    if is_restricted:
        more, more_bend = _log_det_derivatives(sums, bread)
        logs, log_bend = logs + more, log_bend + more_bend
        level += float(np.linalg.slogdet(precision)[1])
    ratio = slope / square
    variance = square / freedom
    profile = Profile(
        deviance=level + freedom * (1 + float(np.log(2 * np.pi * variance))),
        coefficients=start + change,
        precision=precision,
        variance=variance,
        freedom=freedom,
        level=(level, logs, log_bend),
        square=(square, slope, bend),
        num_rows=sums.num_rows,
        num_groups=round(sums.num_groups),
    )
    return Point(
        at=theta,
        value=profile.deviance,
        gradient=logs + freedom * ratio,
        hessian=log_bend + freedom * (bend / square - np.outer(ratio, ratio)),
        found=profile,
    )


def _square_derivatives(sums: LinearTerms, direction: Values, bread: Values) -> tuple[Values, Values]:
    """First and second derivatives by theta of the least sum of squares; the coefficients follow theta."""
    moved = np.array([unpack_symmetric(row) @ direction for row in sums.products_gradient])
    second = [direction @ unpack_symmetric(row) @ direction for row in sums.products_hessian]
    bend = unpack_symmetric(np.array(second)) - 2 * moved[:, :-1] @ bread @ moved[:, :-1].T
    return moved @ direction, bend


def _log_det_derivatives(sums: LinearTerms, bread: Values) -> tuple[Values, Values]:
    """First and second derivatives by theta of `log |X' V^-1 X|`."""
    turned = [bread @ unpack_symmetric(row)[:-1, :-1] for row in sums.products_gradient]
    second = np.array([np.trace(bread @ unpack_symmetric(row)[:-1, :-1]) for row in sums.products_hessian])
    products = np.array([[np.trace(one @ other) for other in turned] for one in turned])
    return np.array([np.trace(one) for one in turned]), unpack_symmetric(second) - products
