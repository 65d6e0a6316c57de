"""Logistic and Poisson mixed models with sites as groups: a site's integral over its random effects.

The integral is approximated about its mode (Laplace), for one random effect also by adaptive Gauss-Hermite
quadrature. The gradient is that of the approximation itself, the mode's own movement with the parameters included.
The Hessian is the derivative of the gradient by a complex step, which is exact to rounding: the code of the gradient
runs with one parameter moved by a tiny imaginary amount.

References:
    Bates, Mächler, Bolker & Walker (2015), J. Statistical Software 67(1) (random effects by a relative factor).
    Pinheiro & Bates (1995), J. Computational and Graphical Statistics 4, 12-35 (Laplace and adaptive quadrature).
    Squire & Trapp (1998), SIAM Review 40, 110-112 (complex step).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from wardround.analytics.design import Design, Frame, evaluate_blocks, num_complete_rows
from wardround.analytics.glm_sums import check_columns
from wardround.analytics.linear import pack_symmetric, unpack_symmetric
from wardround.analytics.mixed_linear import check_random, factor_of, num_theta, theta_places
from wardround.analytics.mixed_newton import Point
from wardround.data.table import Table
from wardround.errors import DataError
from wardround.sums import Array, Contribution, Steps, ask, exact, people, site_function

Values = NDArray[np.float64]
Numbers = NDArray[Any]
"""Real, or complex where a derivative is taken."""
MixedFamily: TypeAlias = Literal["binomial", "poisson"]

MAX_POINTS = 101
"""Most points of the quadrature."""
LARGEST_PREDICTOR = 500.0
"""Largest linear predictor that is evaluated; beyond it parameters count as impossible."""
_MODE_STEPS = 200
_STEP = 1e-100
# Of the complex step: so small that its square is nothing beside any number.


@dataclass(frozen=True, slots=True)
class Curve:
    """A family with its canonical link, by linear predictor: mean, its first two derivatives, log-likelihood."""

    mean: Callable[[Numbers], Numbers]
    slopes: Callable[[Numbers], tuple[Numbers, Numbers]]
    log_likelihood: Callable[[Numbers, Values], Numbers]
    allows: Callable[[Values], bool]
    rule: str


def _moved(eta: Numbers, value: Values, slope: Values) -> Numbers:
    """A function of `eta`: its value, and where a derivative is taken its slope along the tiny imaginary part.

    Exact to rounding, as the square of that part is nothing; several times faster than complex exponentials.
    """
    return value + 1j * (eta.imag * slope) if np.iscomplexobj(eta) else value


def _expit(eta: Numbers) -> Numbers:
    mean = special.expit(eta.real)
    return _moved(eta, mean, mean * (1 - mean))


def _softplus(eta: Numbers) -> Numbers:
    return _moved(eta, np.logaddexp(0, eta.real), special.expit(eta.real))


def _exp(eta: Numbers) -> Numbers:
    mean = np.exp(eta.real)
    return _moved(eta, mean, mean)


def _logistic_slopes(mean: Numbers) -> tuple[Numbers, Numbers]:
    return mean * (1 - mean), mean * (1 - mean) * (1 - 2 * mean)


CURVES: Mapping[str, Curve] = MappingProxyType(
    {
        "binomial": Curve(
            mean=_expit,
            slopes=_logistic_slopes,
            log_likelihood=lambda eta, y: y * eta - _softplus(eta),
            allows=lambda y: bool(((y == 0) | (y == 1)).all()),
            rule="0 or 1",
        ),
        "poisson": Curve(
            mean=_exp,
            slopes=lambda mean: (mean, mean),
            log_likelihood=lambda eta, y: y * eta - _exp(eta) - special.gammaln(y + 1),
            allows=lambda y: bool((y >= 0).all()),
            rule="a count, 0 or more",
        ),
    }
)


class IntegralTerms(Contribution):
    """A site's log-integral with its gradient and Hessian by coefficients and theta."""

    log_likelihood: float = exact()
    gradient: Array = exact("num_parameters")
    hessian: Array = exact("num_pairs")
    num_impossible: int = exact()
    num_groups: float = exact()
    num_rows: int = people()


def _sizes(design: Design, random: tuple[int, ...], **_: Any) -> dict[str, float]:
    size = design.num_columns + num_theta(len(random))
    return {"num_parameters": size, "num_pairs": size * (size + 1) // 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """A site's complete records: columns, outcome, offset, the random effects' columns among those of `x`."""

    x: Values
    y: Values
    offset: Values
    random: list[int]

    @property
    def z(self) -> Values:
        """Columns of the random effects, shape (num_rows, num_random)."""
        return self.x[:, self.random]


def records_of(data: Table, design: Design, frame: Frame, random: tuple[int, ...]) -> Records:
    """All complete records of a site, evaluated."""
    blocks = list(evaluate_blocks(data, design, frame))
    empty = np.zeros(0)
    return Records(
        x=np.concatenate([block.x for block in blocks]) if blocks else np.zeros((0, design.num_columns)),
        y=np.concatenate([block.y for block in blocks]) if blocks else empty,
        offset=np.concatenate([block.offset for block in blocks]) if blocks else empty,
        random=list(random),
    )


@site_function(
    "mixed.integral_terms",
    version=1,
    symbols=_sizes,
    parameters=lambda design, **_: design.num_columns,
    rows=num_complete_rows,
)
def integral_terms(
    data: Table,
    design: Design,
    frame: Frame,
    random: tuple[int, ...],
    family: MixedFamily,
    num_points: int,
    coefficients: Array,
    theta: Array,
) -> IntegralTerms:
    """This site's log-integral over its random effects at these parameters.

    Args:
        data: the site's records.
        design: the columns.
        frame: the rows, and the numbers beside the columns.
        random: which columns have random effects.
        family: distribution of the outcome, with its canonical link.
        num_points: of the quadrature; 1 is Laplace's approximation. More need a single random effect.
        coefficients: fixed effects of the standardised columns, shape (num_columns,).
        theta: lower triangle of the random effects' Cholesky factor, by columns.

    Raises:
        DataError: arguments that do not fit each other, or an outcome that the family does not allow.

    Guarantees:
        integral_derivatives_are_exact: gradient and Hessian are those of the log-likelihood beside them.
    """
    check_columns(design, coefficients=np.atleast_1d(coefficients))
    check_random(design, random, theta)
    if not 1 <= num_points <= MAX_POINTS or (num_points > 1 and len(random) > 1):
        raise DataError(f"the quadrature has 1 to {MAX_POINTS} points, and 1 for several random effects")
    records = records_of(data, design, frame, random)
    if not CURVES[family].allows(records.y):
        raise DataError(f"the outcome of a {family} model must be {CURVES[family].rule}; some records are not")
    whole = np.concatenate([coefficients, theta])
    mode = site_mode(records, family, coefficients, theta)
    if mode is None:
        return _nothing(len(whole), num_impossible=1, num_rows=len(records.y))
    points = quadrature(num_points)
    value, gradient = log_integral(records, family, points, whole, mode)
    hessian = np.empty((len(whole),) * 2)
    for k in range(len(whole)):
        moved = whole.astype(complex)
        moved[k] += 1j * _STEP
        hessian[k] = log_integral(records, family, points, moved, mode)[1].imag / _STEP
    return IntegralTerms(
        log_likelihood=float(value.real),
        gradient=gradient,
        hessian=pack_symmetric((hessian + hessian.T) / 2),
        num_impossible=0,
        num_groups=float(len(records.y) > 0),
        num_rows=len(records.y),
    )


def _nothing(size: int, *, num_impossible: int, num_rows: int) -> IntegralTerms:
    return IntegralTerms(
        log_likelihood=0.0,
        gradient=np.zeros(size),
        hessian=np.zeros(size * (size + 1) // 2),
        num_impossible=num_impossible,
        num_groups=float(num_rows > 0),
        num_rows=num_rows,
    )


def quadrature(num_points: int) -> tuple[Values, Values]:
    """Places in standard deviations about the mode, and logarithms of their weights with the normal density off."""
    nodes, weights = special.roots_hermite(num_points)
    return np.sqrt(2) * nodes, np.log(weights) + nodes**2 - 0.5 * np.log(np.pi)


def site_mode(records: Records, family: MixedFamily, coefficients: Values, theta: Values) -> Values | None:
    """The most likely standardised random effects, shape (num_random,); None where none is found.

    The logarithm of their density is concave, so that Newton's steps, halved where they go too far, lead there.
    """
    curve, columns = CURVES[family], records.z @ factor_of(theta, len(records.random))
    fixed = records.x @ coefficients + records.offset
    if np.abs(fixed).max(initial=0.0) > LARGEST_PREDICTOR:
        return None

    def height(effects: Values) -> float:
        eta = fixed + columns @ effects
        if np.abs(eta).max(initial=0.0) > LARGEST_PREDICTOR:
            return -np.inf
        return float(curve.log_likelihood(eta, records.y).sum() - 0.5 * effects @ effects)

    effects = np.zeros(columns.shape[1])
    reached = height(effects)
    for _ in range(_MODE_STEPS):
        step = _mode_step(curve, records.y, fixed + columns @ effects, columns, effects)
        if np.abs(step).max() < 1e-10:
            return effects + step  # from here one more step is exact
        found = height(effects + step)
        while found < reached - 1e-12 * abs(reached) and np.abs(step).max() > 1e-10:
            step = step / 2
            found = height(effects + step)
        effects, reached = effects + step, found
    return None


def _mode_step(curve: Curve, y: Values, eta: Numbers, columns: Numbers, effects: Numbers) -> Numbers:
    mean = curve.mean(eta)
    inner = np.eye(columns.shape[1]) + columns.T @ (columns * curve.slopes(mean)[0][:, None])
    step: Numbers = np.linalg.solve(inner, columns.T @ (y - mean) - effects)
    return step


def _product(real: Values, numbers: Numbers) -> Numbers:
    """`real.T @ numbers` without a complex copy of the real matrix."""
    product: Numbers = real.T @ numbers.real
    return product + 1j * (real.T @ numbers.imag) if np.iscomplexobj(numbers) else product


def log_integral(
    records: Records, family: MixedFamily, points: tuple[Values, Values], whole: Numbers, mode: Values
) -> tuple[Any, Numbers]:
    """Logarithm of the approximated integral, and its gradient.

    Args:
        records: of the site.
        family: of the outcome.
        points: from `quadrature`.
        whole: coefficients and theta, shape (num_parameters,); complex where a derivative is taken.
        mode: at the real part of `whole`.

    Returns:
        The value, and the gradient, shape (num_parameters,); of the type of `whole`.
    """
    at = _AtMode.of(records, CURVES[family], whole, mode)
    places, log_weights = points
    heights, slopes = [], []
    deviation = 1 / np.sqrt(at.inner[0, 0]) if len(places) > 1 else 0.0
    for place in places:
        # Where a point lies follows the parameters by way of the mode and of the spread about it.
        shift = -0.5 * place * deviation * at.log_det_gradient
        height, slope = at.height_at(at.effects + place * deviation, at.effects_gradient + shift)
        heights.append(height)
        slopes.append(slope)
    logs = np.array(heights) + log_weights
    largest = logs[int(np.argmax(logs.real))]
    shares = np.exp(logs - largest)
    value = largest + np.log(shares.sum()) - 0.5 * at.log_det
    gradient = np.array(slopes).T @ (shares / shares.sum()) - 0.5 * at.log_det_gradient
    return value, gradient


@dataclass(frozen=True, slots=True, kw_only=True)
class _AtMode:
    """What the integral needs at its mode.

    Attributes:
        records: of the site.
        curve: family and link.
        fixed: linear predictor without random effects, shape (num_rows,).
        factor: of the random effects, shape (q, q).
        effects: the mode, shape (q,).
        effects_gradient: by the parameters, shape (q, num_parameters).
        inner: negative second derivative at the mode, shape (q, q).
        log_det: logarithm of its determinant.
        log_det_gradient: by the parameters, the mode's movement included.
    """

    records: Records
    curve: Curve
    fixed: Numbers
    factor: Numbers
    effects: Numbers
    effects_gradient: Numbers
    inner: Numbers
    log_det: Any
    log_det_gradient: Numbers

    @classmethod
    def of(cls, records: Records, curve: Curve, whole: Numbers, mode: Values) -> _AtMode:
        num_columns, q = records.x.shape[1], len(records.random)
        coefficients, theta = whole[:num_columns], whole[num_columns:]
        factor = factor_of(theta, q)
        columns = _product(records.z.T, factor)
        fixed = _product(records.x.T, coefficients) + records.offset
        effects = mode.astype(whole.dtype)
        # One step makes the mode exact where a parameter was moved; another leaves nothing of rounding.
        for _ in range(2):
            effects = effects + _mode_step(curve, records.y, fixed + columns @ effects, columns, effects)
        mean = curve.mean(fixed + columns @ effects)
        weight, bend = curve.slopes(mean)
        rest = _product(records.z, records.y - mean)  # Z'(y - mean)
        moment = _product(records.x, columns * weight[:, None])  # X'W Z L
        inner = np.eye(q) + factor.T @ moment[records.random]
        inverse = np.linalg.inv(inner)
        third = _product(records.x, bend * ((columns @ inverse) * columns).sum(axis=1))
        moved = factor.T @ third[records.random]
        by_effects = np.empty((q, len(whole)), whole.dtype)
        by_log_det = np.empty(len(whole), whole.dtype)
        by_effects[:, :num_columns] = -inverse @ moment.T
        by_log_det[:num_columns] = third
        for k, (i, j) in enumerate(theta_places(q), start=num_columns):
            row = moment[records.random[i]]  # Z_i'W Z L
            by_effects[:, k] = inverse[:, j] * rest[i] - inverse @ row * effects[j]
            by_log_det[k] = 2 * row @ inverse[:, j] + third[records.random[i]] * effects[j]
        return cls(
            records=records,
            curve=curve,
            fixed=fixed,
            factor=factor,
            effects=effects,
            effects_gradient=by_effects,
            inner=inner,
            log_det=_log_det(inner),
            log_det_gradient=by_log_det + moved @ by_effects,
        )

    def height_at(self, effects: Numbers, movement: Numbers) -> tuple[Any, Numbers]:
        """Logarithm of the density at some effects, and its gradient where these move with the parameters."""
        records = self.records
        along = _product(records.z.T, self.factor @ effects)
        eta = self.fixed + along
        height = self.curve.log_likelihood(eta, records.y).sum() - 0.5 * effects @ effects
        score = _product(records.x, records.y - self.curve.mean(eta))
        inner_score = score[records.random]
        by_theta = [inner_score[i] * effects[j] for i, j in theta_places(len(records.random))]
        uphill = self.factor.T @ inner_score - effects
        return height, np.concatenate([score, np.array(by_theta)]) + uphill @ movement


def _log_det(matrix: Numbers) -> Any:
    """Logarithm of the determinant of a symmetric matrix with a positive definite real part (no conjugation)."""
    sign, size = np.linalg.slogdet(matrix)
    return size + (np.log(sign) if np.iscomplexobj(matrix) else 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegralModel:
    """A generalised linear mixed model over the sites."""

    design: Design
    frame: Frame
    random: tuple[int, ...]
    family: MixedFamily
    num_points: int

    def at(self, whole: Values) -> Steps[Point]:
        """The deviance at coefficients and theta with its derivatives; `found` are the totals."""
        p = self.design.num_columns
        total = yield from ask(
            integral_terms,
            self.design,
            self.frame,
            self.random,
            self.family,
            self.num_points,
            whole[:p],
            whole[p:],
        )
        sums = total.sum
        return Point(
            at=whole,
            value=np.inf if sums.num_impossible else -2 * sums.log_likelihood,
            gradient=-2 * np.array(sums.gradient),
            hessian=-2 * unpack_symmetric(sums.hessian),
            found=sums,
        )
