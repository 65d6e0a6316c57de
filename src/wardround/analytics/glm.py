"""Generalised linear models, exactly as the pooled records would give them.

Iteratively reweighted least squares needs, at each step, only sums over records: the weighted Gram matrix
`X'WX`, the score and the deviance. The sites compute these; the coordinator solves.

References:
    McCullagh & Nelder (1989), Generalized Linear Models, 2nd ed., section 2.5 (the iteration).
    White (1980), Econometrica 48; MacKinnon & White (1985), J. Econometrics 29 (HC0 to HC3).
    Liang & Zeger (1986), Biometrika 73 (clusters).
    Albert & Anderson (1984), Biometrika 71 (separation).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.design import Block, Column, Design, Frame, evaluate_blocks
from wardround.analytics.families import FAMILIES, LINKS, FamilyName, LinkName, mean_of
from wardround.analytics.glm_result import GLMResult, PenaltyScore, summarise
from wardround.analytics.linear import independent_columns, pack_symmetric, solve_symmetric, unpack_symmetric
from wardround.analytics.preparation import Extras, Prepared, prepare
from wardround.analytics.steady_sites import with_steady_sites
from wardround.data.contract import Setting
from wardround.data.table import Table
from wardround.errors import ConfigError, ConvergenceError, DataError, ModelError, RankDeficiencyError, SeparationError
from wardround.sums import Array, Contribution, Steps, Total, ask, exact, people, site_function, workflow

MAX_ITERATIONS = 100
"""Most steps of the iteration, halvings included."""
STEP_TOLERANCE = 1e-9
"""Largest last step of a standardised coefficient, relative to 1 + its size."""
PENALTY_GRID = tuple(float(p) for p in np.geomspace(1e-4, 1e1, 21))
"""Penalties a record that cross-validation tries."""
SEPARATION_CHECK_FROM = 8
"""Step from which on an iteration that does not settle is checked for separation."""
SEPARATION_STEP = 1e-7
"""Relative step above which an iteration counts as not settled there."""

Values = NDArray[np.float64]
Covariance: TypeAlias = Literal["model", "HC0", "HC1", "HC2", "HC3", "cluster"]


class Terms(Contribution):
    """What a step of the iteration needs."""

    gram: Array = exact("num_pairs")
    score: Array = exact("num_columns")
    deviance: float = exact()
    pearson: float = exact()
    num_rows: float = exact()
    num_invalid: int = people()


def _sizes(design: Design, **_: Any) -> dict[str, float]:
    p = design.num_columns
    return {"num_columns": p, "num_pairs": p * (p + 1) // 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Family and link."""

    family: FamilyName
    link: LinkName


def _check_outcome(block: Block, model: Model) -> None:
    family = FAMILIES[model.family]
    if not family.allows_outcome(block.y).all():
        raise DataError(f"the outcome of a {model.family} model must be {family.outcome_rule}; some records are not")


def _working(block: Block, model: Model, eta: Values, mu: Values) -> tuple[Values, Values]:
    """Working weights and the factor that turns residuals into scores, by row."""
    slope = LINKS[model.link].inverse_derivative(eta)
    factor = block.frequency * block.precision * slope / FAMILIES[model.family].variance(mu)
    return factor * slope, factor


def _terms_of(block: Block, model: Model, eta: Values, mu: Values) -> Terms:
    """Sums of one block at linear predictors `eta`; rows whose mean is impossible are counted, not added."""
    family = FAMILIES[model.family]
    with np.errstate(all="ignore"):
        weights, factor = _working(block, model, eta, mu)
        residuals = block.y - mu
        deviances = family.unit_deviance(block.y, mu)
        pearson = residuals**2 / family.variance(mu)
        is_valid = family.allows_mean(mu) & np.isfinite(weights) & np.isfinite(deviances) & np.isfinite(pearson)
    x = block.x
    if not is_valid.all():
        weights, factor = np.where(is_valid, weights, 0.0), np.where(is_valid, factor, 0.0)
        residuals = np.where(is_valid, residuals, 0.0)
        deviances, pearson = np.where(is_valid, deviances, 0.0), np.where(is_valid, pearson, 0.0)
    case_weight = block.frequency * block.precision
    scaled = x * np.sqrt(weights)[:, None]
    return Terms(
        gram=pack_symmetric(scaled.T @ scaled),
        score=x.T @ (factor * residuals),
        deviance=float(case_weight @ deviances),
        pearson=float(case_weight @ pearson),
        num_rows=float(block.frequency.sum()),
        num_invalid=int((~is_valid).sum()),
    )


def _no_terms(design: Design) -> Terms:
    sizes = _sizes(design)
    zeros = {name: np.zeros(int(sizes[f"num_{dim}"])) for name, dim in (("gram", "pairs"), ("score", "columns"))}
    return Terms(**zeros, deviance=0.0, pearson=0.0, num_rows=0.0, num_invalid=0)


@site_function("glm.terms", version=1, symbols=_sizes)
def terms(data: Table, design: Design, frame: Frame, model: Model, coefficients: Array) -> Terms:
    """Gram matrix, score and deviance of this site's records at these coefficients."""
    total = _no_terms(design)
    for block in evaluate_blocks(data, design, frame):
        eta = block.x @ coefficients + block.offset
        total += _terms_of(block, model, eta, mean_of(model.link, model.family, eta))
    return total


@site_function("glm.first_terms", version=1, symbols=_sizes)
def first_terms(data: Table, design: Design, frame: Frame, model: Model, outcome_mean: float) -> Terms:
    """Sums whose solution is where the iteration starts: the outcome, drawn to its mean, regressed on the design.

    Raises:
        DataError: an outcome that the family does not allow.
    """
    total = _no_terms(design)
    for block in evaluate_blocks(data, design, frame):
        _check_outcome(block, model)
        mu = FAMILIES[model.family].start(block.y, outcome_mean)
        with np.errstate(all="ignore"):
            eta = LINKS[model.link].link(mu)
        here = _terms_of(block, model, eta, mu)
        with np.errstate(all="ignore"):
            weights, factor = _working(block, model, eta, mu)
            response = weights * (eta - block.offset) + factor * (block.y - mu)
        response = np.where(np.isfinite(response), response, 0.0)
        total += replace(here, score=block.x.T @ response)
    return total


class FoldTerms(Contribution):
    """Sums of the iteration for every fold left out and every penalty, and the deviance of the left-out fold."""

    gram: Array = exact("num_folds", "num_penalties", "num_pairs")
    score: Array = exact("num_folds", "num_penalties", "num_columns")
    deviance: Array = exact("num_folds", "num_penalties")
    held_out: Array = exact("num_folds", "num_penalties")
    num_rows: Array = exact("num_folds")
    num_invalid: NDArray[np.int64] = people("num_folds", "num_penalties")


def _fold_sizes(design: Design, coefficients: Values, **_: Any) -> dict[str, float]:
    return {**_sizes(design), "num_folds": coefficients.shape[0], "num_penalties": coefficients.shape[1]}


def fold_of(patient_index: NDArray[np.int64], num_folds: int) -> NDArray[np.int64]:
    """The fold of each patient: all records of a patient are in one. Shape as given.

    The index is scrambled (the finaliser of SplitMix64; Steele, Lea & Flood 2014), so that an order in the
    table does not become an order of folds.
    """
    z = patient_index.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) % np.uint64(num_folds)).astype(np.int64)


@site_function("glm.fold_terms", version=1, symbols=_fold_sizes)
def fold_terms(data: Table, design: Design, frame: Frame, model: Model, coefficients: Array) -> FoldTerms:
    """Sums without each fold at coefficients of shape (num_folds, num_penalties, num_columns)."""
    num_folds, num_penalties, _ = coefficients.shape
    sizes = _sizes(design)
    gram = np.zeros((num_folds, num_penalties, int(sizes["num_pairs"])))
    score = np.zeros((num_folds, num_penalties, int(sizes["num_columns"])))
    deviance, held_out = np.zeros((2, num_folds, num_penalties))
    num_invalid: NDArray[np.int64] = np.zeros((num_folds, num_penalties), np.int64)
    num_rows = np.zeros(num_folds)
    for block in evaluate_blocks(data, design, frame):
        folds = fold_of(data.patient_index[block.rows], num_folds)
        for fold in range(num_folds):
            inside, outside = _rows_of(block, folds != fold), _rows_of(block, folds == fold)
            num_rows[fold] += outside.frequency.sum()
            for k in range(num_penalties):
                here = _terms_at(inside, model, coefficients[fold, k])
                gram[fold, k] += here.gram
                score[fold, k] += here.score
                deviance[fold, k] += here.deviance
                there = _terms_at(outside, model, coefficients[fold, k])
                held_out[fold, k] += there.deviance
                num_invalid[fold, k] += here.num_invalid + there.num_invalid
    return FoldTerms(
        gram=gram, score=score, deviance=deviance, held_out=held_out, num_rows=num_rows, num_invalid=num_invalid
    )


def _rows_of(block: Block, mask: NDArray[np.bool_]) -> Block:
    return Block(
        x=block.x[mask],
        y=block.y[mask],
        offset=block.offset[mask],
        frequency=block.frequency[mask],
        precision=block.precision[mask],
        rows=block.rows[mask],
    )


def _terms_at(block: Block, model: Model, coefficients: Values) -> Terms:
    eta = block.x @ coefficients + block.offset
    return _terms_of(block, model, eta, mean_of(model.link, model.family, eta))


class Separated(Contribution):
    """Records that speak against a direction of separation, and records that it separates."""

    num_against: int = people()
    num_separated: int = people()


@site_function("glm.separated", version=1)
def separated(data: Table, design: Design, frame: Frame, model: Model, direction: Array, tolerance: float) -> Separated:
    """Whether going along `direction` for ever improves the fit of every record.

    Where no record is against it and some are separated, no finite maximum-likelihood estimate exists.
    """
    num_against = num_separated = 0
    for block in evaluate_blocks(data, design, frame):
        along = block.x @ direction
        if model.family == "binomial":
            gain = np.where(block.y >= 0.5, along, -along)
            gain = np.where((block.y > 0) & (block.y < 1), -np.abs(along), gain)
        else:
            gain = np.where(block.y > 0, -np.abs(along), -along)
        num_against += int((gain < -tolerance).sum())
        num_separated += int((gain > tolerance).sum())
    return Separated(num_against=num_against, num_separated=num_separated)


class Finish(Contribution):
    """What is reported about the fit beside the coefficients."""

    log_likelihood: float = exact()
    null_deviance: float = exact()
    meat: Array = exact("num_pairs")
    num_clusters: int = people()


@site_function("glm.finish", version=1, symbols=_sizes)
def finish(
    data: Table,
    design: Design,
    frame: Frame,
    model: Model,
    coefficients: Array,
    null_mean: float,
    dispersion: float,
    bread: Array,
    covariance: Covariance,
    cluster: str,
) -> Finish:
    """Log-likelihood, deviance of the null model, and the middle of a robust covariance."""
    family = FAMILIES[model.family]
    log_likelihood = null_deviance = 0.0
    meat = np.zeros((design.num_columns, design.num_columns))
    groups = _clusters(data, cluster) if covariance == "cluster" else np.empty(0, np.int64)
    by_cluster = np.zeros((int(groups.max()) + 1 if groups.size else 0, design.num_columns))
    is_used = np.zeros(len(by_cluster), bool)
    for block in evaluate_blocks(data, design, frame):
        eta = block.x @ coefficients + block.offset
        mu = mean_of(model.link, model.family, eta)
        log_likelihood += float(block.frequency @ family.log_likelihood(block.y, mu, block.precision, dispersion))
        null = family.unit_deviance(block.y, np.full_like(block.y, null_mean))
        null_deviance += float((block.frequency * block.precision) @ null)
        if covariance == "cluster":
            group = groups[block.rows]
            np.add.at(by_cluster, group, _scores(block, model, eta, mu) * block.frequency[:, None])
            is_used[group] = True
        elif covariance != "model":
            scores = (
                _scores(block, model, eta, mu) * _leverage_factor(block, model, eta, mu, bread, covariance)[:, None]
            )
            scores *= np.sqrt(block.frequency)[:, None]
            meat += scores.T @ scores
    if covariance == "cluster":
        meat = by_cluster.T @ by_cluster
    return Finish(
        log_likelihood=log_likelihood,
        null_deviance=null_deviance,
        meat=pack_symmetric(meat),
        num_clusters=int(is_used.sum()),
    )


def _scores(block: Block, model: Model, eta: Values, mu: Values) -> Values:
    """Score of one record that each row stands for, shape (num_rows, num_columns)."""
    slope = LINKS[model.link].inverse_derivative(eta)
    factor = block.precision * slope / FAMILIES[model.family].variance(mu) * (block.y - mu)
    return block.x * factor[:, None]


def _leverage_factor(block: Block, model: Model, eta: Values, mu: Values, bread: Values, kind: str) -> Values:
    """What HC2 and HC3 divide a score by, to the power -1. Shape (num_rows,)."""
    if kind in ("HC0", "HC1"):
        return np.ones(len(block.y))
    slope = LINKS[model.link].inverse_derivative(eta)
    weights = block.precision * slope**2 / FAMILIES[model.family].variance(mu)
    leverage = np.clip(weights * np.einsum("ij,jk,ik->i", block.x, bread, block.x, optimize=True), 0, 1 - 1e-12)
    power = -0.5 if kind == "HC2" else -1.0
    factor: Values = (1 - leverage) ** power
    return factor


def _clusters(data: Table, cluster: str) -> NDArray[np.int64]:
    """Number of each record's cluster; clusters lie within sites."""
    if cluster == "site":
        return np.zeros(data.num_records, np.int64)
    if cluster == "patient":
        return data.patient_index
    variable = data.contract.variable(cluster)
    values = data.numbers(cluster) if variable.is_numeric else data.codes(cluster)
    inverse: NDArray[np.int64] = np.unique(values, return_inverse=True)[1].astype(np.int64)
    return inverse


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A fitted model in standardised coefficients."""

    coefficients: Values
    total: Total[Terms]
    num_iterations: int

    @property
    def gram(self) -> Values:
        """Weighted Gram matrix at the fit, shape (num_columns, num_columns)."""
        return unpack_symmetric(self.total.sum.gram)


@workflow("glm", version=1)
def glm(
    setting: Setting,
    formula: str,
    family: FamilyName = "gaussian",
    link: LinkName | None = None,
    offset: str | None = None,
    frequency_weights: str | None = None,
    variance_weights: str | None = None,
    l2: float | Literal["cross-validated"] = 0.0,
    l2_scale: Literal["standardized", "raw"] = "standardized",
    num_folds: int = 5,
    covariance: Covariance = "model",
    cluster: str | None = None,
    site_intercepts: bool = False,
    aliased: Literal["refuse", "drop"] = "refuse",
    term_tests: Literal["wald", "likelihood_ratio"] = "wald",
    use_t: bool = False,
    confidence: float = 0.95,
) -> Steps[GLMResult]:
    """Generalised linear model, equal to the fit of the pooled records.

    Args:
        setting: contract and sites.
        formula: `outcome ~ predictors`, as in R, patsy or formulaic; see `formula.py` for what it may hold.
        family: distribution of the outcome.
        link: None for the family's canonical link.
        offset: expression added to the linear predictor.
        frequency_weights: variable that says how many records a row stands for.
        variance_weights: variable of prior weights (a proportion's denominator).
        l2: ridge penalty: half of it times the squared norm of the coefficients, the intercept left out, is
            added to half the deviance; or "cross-validated".
        l2_scale: whether the penalty is on coefficients of columns with standard deviation 1, or of raw columns.
        num_folds: folds of the cross-validation; a patient's records are in one.
        covariance: of the estimates: model-based, robust (HC0 to HC3), or by clusters.
        cluster: variable whose values are the clusters, or "patient" (the default) or "site".
        site_intercepts: whether each site has an intercept of its own.
        aliased: what to do about columns that are combinations of others.
        term_tests: how the terms are tested.
        use_t: t instead of normal quantiles (families with a dispersion).
        confidence: of the intervals.

    Raises:
        ConfigError: before anything is asked.
        ModelError: rank deficiency, separation, no convergence, more columns than records.

    Guarantees:
        equals_pooled: estimates, standard errors, p-values and deviance are those of the pooled records.
    """
    model = _model(family, link)
    _check_options(setting, l2, num_folds, covariance, cluster, confidence, use_t, family)
    extras = Extras(
        offset=offset,
        frequency_weights=frequency_weights,
        variance_weights=variance_weights,
        also_required=() if cluster in (None, "patient", "site") else (str(cluster),),
        site_intercepts=site_intercepts,
    )
    options = _Options(
        formula=formula,
        model=model,
        extras=extras,
        l2=l2,
        l2_scale=l2_scale,
        num_folds=num_folds,
        covariance=covariance,
        cluster=cluster or "patient",
        aliased=aliased,
        term_tests=term_tests,
        use_t=use_t,
        confidence=confidence,
    )
    return (yield from with_steady_sites(lambda: _attempt(setting, options), len(setting.sites)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The options of `glm`, checked."""

    formula: str
    model: Model
    extras: Extras
    l2: float | str
    l2_scale: str
    num_folds: int
    covariance: Covariance
    cluster: str
    aliased: str
    term_tests: str
    use_t: bool
    confidence: float


def _attempt(setting: Setting, options: _Options) -> Steps[GLMResult]:
    """Prepare, fit and finish, over one set of sites."""
    model = options.model
    prepared = yield from prepare(setting, options.formula, options.extras)
    first = yield from ask(first_terms, prepared.design, prepared.frame, model, prepared.outcome_mean)
    prepared, dropped, first_sum = _full_rank(prepared, first.sum, options.aliased)
    unit = yield from _penalty_unit(prepared, options.l2, options.l2_scale)
    l2, path = options.l2, tuple[PenaltyScore, ...]()
    if isinstance(l2, str):
        l2, path = yield from _cross_validate(prepared, model, unit, options.num_folds)
    fit = yield from _fit(prepared, model, l2 * unit, first_sum)
    null_mean, null_deviance = yield from _null(prepared, model)
    dispersion = _dispersion(fit, model, prepared.design.num_columns)
    bread = solve_symmetric(fit.gram + np.diag(l2 * unit), np.eye(prepared.design.num_columns))
    # A gaussian's likelihood is reported at the dispersion that maximises it.
    at = fit.total.sum.deviance / fit.total.sum.num_rows if model.family == "gaussian" else dispersion
    ended = yield from ask(
        finish,
        prepared.design,
        prepared.frame,
        model,
        fit.coefficients,
        null_mean,
        at if at > 0 else 1.0,
        bread,
        options.covariance,
        options.cluster,
    )
    is_likelihood = options.term_tests == "likelihood_ratio"
    tests = (yield from _likelihood_ratios(prepared, model, fit)) if is_likelihood else None
    return summarise(
        formula=options.formula,
        model=(model.family, model.link),
        prepared=prepared,
        fit=(fit.coefficients, fit.gram, fit.num_iterations),
        sums=fit.total.sum,
        finish=ended.sum,
        sites=fit.total.sites,
        null_deviance=null_deviance,
        dispersion=dispersion,
        bread=bread,
        covariance=(options.covariance, options.cluster),
        penalty=(l2, options.l2_scale, path),
        dropped=dropped,
        likelihood_ratios=tests,
        use_t=options.use_t,
        confidence=options.confidence,
    )


def _model(family: FamilyName, link: LinkName | None) -> Model:
    allowed = FAMILIES[family].links
    if link is not None and link not in allowed:
        raise ConfigError(f"link: a {family} model has the links {', '.join(allowed)}, got {link!r}")
    return Model(family=family, link=link or allowed[0])


def _check_options(
    setting: Setting,
    l2: float | str,
    num_folds: int,
    covariance: Covariance,
    cluster: str | None,
    confidence: float,
    use_t: bool,
    family: FamilyName,
) -> None:
    if isinstance(l2, float) and not 0 <= l2 < np.inf:
        raise ConfigError(f"l2: must be 0 or more, got {l2}")
    if not 2 <= num_folds <= 20:
        raise ConfigError(f"num_folds: must be in [2, 20], got {num_folds}")
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"confidence: must be in [0.5, 1), got {confidence}")
    if cluster is not None and covariance != "cluster":
        raise ConfigError("cluster: give covariance = 'cluster' with it")
    if cluster not in (None, "patient", "site") and setting.contract.variable(str(cluster), "cluster").type == "text":
        raise ConfigError(f"cluster: variable {cluster!r} is text; declare it a category")
    if use_t and not FAMILIES[family].has_scale:
        raise ConfigError(f"use_t: a {family} model has no dispersion to estimate, so its statistics are normal")


def _full_rank(prepared: Prepared, sums: Terms, aliased: str) -> tuple[Prepared, tuple[str, ...], Terms]:
    """Find columns that are combinations of earlier ones; refuse or drop them."""
    gram = unpack_symmetric(sums.gram)
    names = [column.name for column in prepared.design.columns]
    kept = independent_columns(gram)
    dropped = tuple(name for j, name in enumerate(names) if j not in kept)
    if dropped and aliased == "refuse":
        raise RankDeficiencyError(
            f"{', '.join(dropped[:10])}: constant, or a combination of the columns before it, in the "
            f"{prepared.num_complete} complete records; leave it out, or set aliased = 'drop'"
        )
    if prepared.num_complete <= len(kept):
        raise ModelError(f"{len(kept)} coefficients cannot be estimated from {prepared.num_complete} complete records")
    if dropped:
        index = np.array(kept)
        prepared = prepared.with_columns(kept)
        sums = replace(sums, gram=pack_symmetric(gram[np.ix_(index, index)]), score=sums.score[index])
    return prepared, dropped, sums


class SquareSums(Contribution):
    """Sums of squares of the standardised columns."""

    squares: Array = exact("num_columns")
    num_rows: int = people()


@site_function("glm.square_sums", version=1, symbols=_sizes)
def square_sums(data: Table, design: Design, frame: Frame) -> SquareSums:
    """Sums of squares of the design's columns, as they are standardised."""
    squares, num_rows = np.zeros(design.num_columns), 0
    for block in evaluate_blocks(data, design, frame):
        squares += np.einsum("ij,ij->j", block.x, block.x)
        num_rows += len(block.y)
    return SquareSums(squares=squares, num_rows=num_rows)


def _penalty_unit(prepared: Prepared, l2: float | str, l2_scale: str) -> Steps[Values]:
    """What a penalty of 1 adds to the Gram matrix's diagonal, in the design's own standardisation."""
    is_penalised = np.array([column.features != () for column in prepared.design.columns], float)
    if l2 == 0:
        return np.zeros(prepared.design.num_columns)
    if l2_scale == "raw":
        return is_penalised / prepared.design.scale**2
    sums = (yield from ask(square_sums, prepared.design, prepared.frame)).sum
    return is_penalised * sums.squares / sums.num_rows


def _fit(prepared: Prepared, model: Model, penalty: Values, first: Terms) -> Steps[Fit]:
    """Iterate to the maximum of the penalised likelihood; returns sums computed at the coefficients returned."""
    design, frame = prepared.design, prepared.frame
    start = solve_symmetric(unpack_symmetric(first.gram) + np.diag(penalty), first.score)
    coefficients, accepted, objective = start, _fallback(prepared, model), np.inf
    step = np.zeros_like(start)
    num_flat = 0
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
        coefficients = coefficients + step
        if size <= STEP_TOLERANCE or num_flat >= 2:
            last = yield from ask(terms, design, frame, model, coefficients)
            if not last.sum.num_invalid:
                return Fit(coefficients=coefficients, total=last, num_iterations=iteration)
    worst = design.columns[int(np.argmax(np.abs(step)))].name
    raise ConvergenceError(
        f"no convergence in {MAX_ITERATIONS} steps; {worst} still moves; "
        "simplify the formula, try another link, or add an l2 penalty"
    )


def _fallback(prepared: Prepared, model: Model) -> Values:
    """Coefficients that give every record the overall mean: where a first step that went too far is drawn back to."""
    coefficients = np.zeros(prepared.design.num_columns)
    for j, column in enumerate(prepared.design.columns):
        if not column.features:
            mean = np.array([prepared.outcome_mean])
            with np.errstate(all="ignore"):
                value = float(LINKS[model.link].link(mean)[0])
            coefficients[j] = value if np.isfinite(value) else 0.0
    return coefficients


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
    if model.family not in ("binomial", "poisson"):
        return
    is_perfect = model.family == "binomial" and sums.deviance < 1e-4 * sums.num_rows
    direction = coefficients if is_perfect else step
    if direction is None or not direction.any():
        return
    direction = direction / np.abs(direction).max()
    found = (yield from ask(separated, prepared.design, prepared.frame, model, direction, 0.01)).sum
    if found.num_against == 0 and found.num_separated > 0:
        names = [c.name for c, d in zip(prepared.design.columns, direction, strict=True) if abs(d) > 0.1 and c.features]
        raise SeparationError(
            f"separation: {', '.join(names[:5]) or 'the intercept'} predicts the outcome perfectly in a part of the "
            "records, so that the estimate is infinite; merge rare levels, leave the term out, or add an l2 penalty"
        )


def _dispersion(fit: Fit, model: Model, num_columns: int) -> float:
    if not FAMILIES[model.family].has_scale:
        return 1.0
    return fit.total.sum.pearson / (fit.total.sum.num_rows - num_columns)


def _null(prepared: Prepared, model: Model) -> Steps[tuple[float, float | None]]:
    """Mean of the null model where it has a constant one, else its deviance (an offset needs a fit of its own)."""
    family = FAMILIES[model.family]
    if prepared.frame.offset is None:
        return prepared.outcome_mean, None
    constant = Design(columns=(Column(name="Intercept", features=()),), center=np.zeros(1), scale=np.ones(1))
    null = replace(prepared, design=constant)
    first = yield from ask(first_terms, constant, prepared.frame, model, prepared.outcome_mean)
    fit = yield from _fit(null, model, np.zeros(1), first.sum)
    # Any mean that the family allows will do: its deviance is not used.
    return (0.5 if family is FAMILIES["binomial"] else 1.0), fit.total.sum.deviance


def _cross_validate(
    prepared: Prepared, model: Model, unit: Values, num_folds: int
) -> Steps[tuple[float, tuple[PenaltyScore, ...]]]:
    """Choose the penalty with the least deviance a left-out record; all folds and penalties share each ask."""
    penalties = np.array(PENALTY_GRID) * prepared.num_complete
    p = prepared.design.num_columns
    coefficients = np.tile(_fallback(prepared, model), (num_folds, len(penalties), 1))
    previous, objective = coefficients.copy(), np.full((num_folds, len(penalties)), np.inf)
    for _ in range(MAX_ITERATIONS):
        sums = (yield from ask(fold_terms, prepared.design, prepared.frame, model, coefficients)).sum
        weight = penalties[None, :, None] * unit
        reached = sums.deviance + (weight * coefficients**2).sum(axis=2)
        is_worse = (sums.num_invalid > 0) | (reached > objective + 1e-9 * np.abs(objective) + 1e-12)
        size = 0.0
        for fold, k in np.ndindex(is_worse.shape):
            if is_worse[fold, k]:
                coefficients[fold, k] = (coefficients[fold, k] + previous[fold, k]) / 2
                size = np.inf
                continue
            gram = unpack_symmetric(sums.gram[fold, k]) + np.diag(weight[0, k])
            step = solve_symmetric(gram, sums.score[fold, k] - weight[0, k] * coefficients[fold, k])
            previous[fold, k], objective[fold, k] = coefficients[fold, k], reached[fold, k]
            coefficients[fold, k] += step
            size = max(size, float(np.abs(step).max(initial=0.0)))
        if size <= 1e-6:
            break
    else:
        raise ConvergenceError(f"cross-validation of {p} coefficients did not settle; set l2 to a number")
    scores = sums.held_out / sums.num_rows[:, None]
    mean, error = scores.mean(axis=0), scores.std(axis=0, ddof=1) / np.sqrt(num_folds)
    path = tuple(
        PenaltyScore(l2=float(a), deviance=float(b), standard_error=float(c))
        for a, b, c in zip(penalties, mean, error, strict=True)
    )
    return float(penalties[int(mean.argmin())]), path


def _likelihood_ratios(prepared: Prepared, model: Model, fit: Fit) -> Steps[dict[str, tuple[float, int]]]:
    """For every term: by how much the deviance grows without it, and how many columns it has."""
    growth: dict[str, tuple[float, int]] = {}
    for term in prepared.terms:
        kept = [j for j in range(prepared.design.num_columns) if j not in term.columns]
        if term.name == "Intercept" or not kept or not term.columns:
            continue
        reduced = prepared.with_columns(kept)
        first = yield from ask(first_terms, reduced.design, reduced.frame, model, prepared.outcome_mean)
        without = yield from _fit(reduced, model, np.zeros(len(kept)), first.sum)
        growth[term.name] = (without.total.sum.deviance - fit.total.sum.deviance, len(term.columns))
    return growth
