"""Multiple imputation by chained equations from sums: the sites' half, and the loop over the variables.

Each variable with missing values is regressed on all others, over all sites together and in every completed copy at
once: a linear model for numbers, a multinomial logit one for categories. The coordinator draws the models'
coefficients from their posterior; each site draws the missing values from these models with a generator of its own,
keeps them, and sends back nothing but their sums. No imputed value leaves a site.

References:
    van Buuren, Groothuis-Oudshoorn (2011), mice, Journal of Statistical Software 45(3).
    van Buuren (2018), Flexible Imputation of Missing Data, 2nd ed., algorithms 3.1, 3.3, 3.4 and 4.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.design import complete_rows
from wardround.analytics.imputation_chain import (
    Chain,
    Copies,
    Predictors,
    Rows,
    Values,
    column_of,
    level_probabilities,
    logistic_terms,
    matched,
    start,
    within,
)
from wardround.analytics.imputation_models import Posterior, linear_posterior, logistic_fit
from wardround.analytics.linear import pack_symmetric
from wardround.data.table import Table
from wardround.errors import DataError
from wardround.sums import Array, Contribution, Steps, ask, exact, people, site_function, stateful_site_function

Counts = NDArray[np.int64]


class Observed(Contribution):
    """Who has a value: records, records complete in the analysed variables, missing values, values by level."""

    num_records: int = people()
    num_patients: int = people()
    num_complete: int = people()
    num_missing: Counts = people("num_variables", cells="none")
    num_at_level: Counts = people("num_levels")
    num_sites_without: Array = exact("num_variables")
    num_sites_short: float = exact()


def _observed_symbols(
    variables: tuple[str, ...], levels: tuple[tuple[float, ...], ...], analysed: tuple[str, ...], fewest: int
) -> dict[str, float]:
    return {"num_variables": len(variables), "num_levels": sum(map(len, levels))}


@site_function("imputation.observed", version=1, symbols=_observed_symbols)
def observed(
    data: Table,
    variables: tuple[str, ...],
    levels: tuple[tuple[float, ...], ...],
    analysed: tuple[str, ...],
    fewest: int,
) -> Observed:
    """Counts of missing values and of levels; and which variables this site has no value of at all.

    Args:
        data: this site's table.
        variables: their names.
        levels: for each, the values that are counted; empty for a number.
        analysed: those in which a complete record must have a value.
        fewest: complete records, other than none, below which this site counts itself as one that is short of them.
    """
    num_complete = len(complete_rows(data, analysed))
    at_level: list[int] = []
    is_missing = np.array([data.is_missing(name) for name in variables]).reshape(len(variables), data.num_records)
    for name, values in zip(variables, levels, strict=True):
        column = column_of(data, name) if values else np.zeros(0)
        at_level += [int((column == value).sum()) for value in values]
    return Observed(
        num_records=data.num_records,
        num_patients=data.num_patients,
        num_complete=num_complete,
        num_missing=is_missing.sum(axis=1).astype(np.int64),
        num_at_level=np.array(at_level, np.int64),
        num_sites_without=np.array([float(data.num_records > 0 and row.all()) for row in is_missing]),
        num_sites_short=float(0 < num_complete < fewest),
    )


class AtSites(Contribution):
    """Records and missing values in each site's own slot."""

    num_records: Counts = people("num_sites")
    num_missing: Counts = people("num_sites", "num_variables", cells="none")


@site_function(
    "imputation.at_sites",
    version=1,
    symbols=lambda variables, sites: {"num_sites": len(sites), "num_variables": len(variables)},
    per_site=True,
)
def at_sites(data: Table, variables: tuple[str, ...], sites: tuple[str, ...]) -> AtSites:
    """This site's number of records and of missing values by variable, in its own slot."""
    num_records = np.zeros(len(sites), np.int64)
    num_missing = np.zeros((len(sites), len(variables)), np.int64)
    for slot, site in enumerate(sites):
        if site == data.site:
            num_records[slot] = data.num_records
            num_missing[slot] = [int(data.is_missing(name).sum()) for name in variables]
    return AtSites(num_records=num_records, num_missing=num_missing)


class ValueSums(Contribution):
    """A sum a variable."""

    sums: Array = exact("num_variables")


@site_function("imputation.value_sums", version=1, symbols=lambda variables, **_: {"num_variables": len(variables)})
def value_sums(
    data: Table, variables: tuple[str, ...], centers: Array, scales: Array, of: Literal["value", "size", "square"]
) -> ValueSums:
    """Sums over the observed values of numbers, of their standardised value, its size, or its square.

    Raises:
        DataError: centres and scales do not fit the variables.
    """
    if centers.shape != (len(variables),) or scales.shape != centers.shape or not (scales > 0).all():
        raise DataError("centers and scales must have one element a variable, scales above 0")
    sums = []
    for name, center, scale in zip(variables, centers, scales, strict=True):
        values = data.numbers(name)
        standard = (values[~np.isnan(values)] - center) / scale
        sums.append(float({"value": standard, "size": np.abs(standard), "square": standard**2}[of].sum()))
    return ValueSums(sums=np.array(sums, np.float64))


class Begun(Contribution):
    """How many values are to be imputed at the sites, by variable."""

    num_imputed: Counts = people("num_variables", cells="none")


@stateful_site_function("imputation.begin", version=1, symbols=lambda chain: {"num_variables": len(chain.variables)})
def begin(data: Table, state: Copies | None, rng: np.random.Generator, chain: Chain) -> tuple[Begun, Copies]:
    """Complete this site's table with first draws; what was kept before is forgotten."""
    copies = start(data, chain, rng)
    return Begun(num_imputed=np.array([len(rows) for rows in copies.rows.values()], np.int64)), copies


def _begun(state: Copies | None, chain: Chain, data: Table) -> Copies:
    if state is None or any(v.name not in state.rows for v in chain.variables):
        raise DataError(f"site {data.site!r} has no completed copies; ask imputation.begin first")
    return state


def _rows(data: Table, copies: Copies, target: str) -> tuple[Rows, Rows]:
    """Rows in which a variable is observed, and in which it is missing."""
    missing = copies.rows[target]
    return np.setdiff1d(np.arange(data.num_records), missing, assume_unique=True), missing


class LinearSums(Contribution):
    """What the linear model of one variable needs, in each copy."""

    gram: Array = exact("num_copies", "num_pairs")
    cross: Array = exact("num_copies", "num_predictors")
    square: float = exact()
    num_observed: int = people()


def _linear_symbols(chain: Chain, target: str) -> dict[str, float]:
    size = chain.num_predictors(target)
    return {"num_copies": chain.num_copies, "num_predictors": size, "num_pairs": size * (size + 1) // 2}


def _is_by_site(chain: Chain, **_: Any) -> bool:
    return bool(chain.sites)


def _num_observed(data: Table, target: str, **_: Any) -> int:
    return int((~data.is_missing(target)).sum())


@stateful_site_function(
    "imputation.linear_sums",
    version=1,
    symbols=_linear_symbols,
    parameters=lambda chain, target: chain.num_predictors(target),
    per_site=_is_by_site,
    rows=_num_observed,
)
def linear_sums(
    data: Table, state: Copies | None, rng: np.random.Generator, chain: Chain, target: str
) -> tuple[LinearSums, Copies]:
    """Gram matrix of the predictors, and their products with a number, over the records in which it is observed."""
    copies = _begun(state, chain, data)
    at, _ = _rows(data, copies, target)
    y = chain.variable(target).coded(column_of(data, target)[at])[:, 0]
    gram, cross = [], []
    for x in Predictors(data, chain, target, copies, at).of_copies():
        gram.append(pack_symmetric(x.T @ x))
        cross.append(x.T @ y)
    sums = LinearSums(gram=np.array(gram), cross=np.array(cross), square=float(y @ y), num_observed=len(at))
    return sums, copies


class LogisticSums(Contribution):
    """What a Newton step of the multinomial logit model of one variable needs, in each copy."""

    information: Array = exact("num_copies", "num_pairs")
    score: Array = exact("num_copies", "num_coefficients")
    deviance: Array = exact("num_copies")


def _num_coefficients(chain: Chain, target: str, **_: Any) -> int:
    return (len(chain.variable(target).levels) - 1) * chain.num_predictors(target)


def _logistic_symbols(chain: Chain, target: str, coefficients: Array) -> dict[str, float]:
    size = _num_coefficients(chain, target)
    return {"num_copies": chain.num_copies, "num_coefficients": size, "num_pairs": size * (size + 1) // 2}


@stateful_site_function(
    "imputation.logistic_sums",
    version=1,
    symbols=_logistic_symbols,
    parameters=_num_coefficients,
    per_site=_is_by_site,
    rows=_num_observed,
)
def logistic_sums(
    data: Table, state: Copies | None, rng: np.random.Generator, chain: Chain, target: str, coefficients: Array
) -> tuple[LogisticSums, Copies]:
    """Information, score and deviance of a category's model over the records in which it is observed.

    Args:
        data: this site's table.
        state: its completed copies.
        rng: not used.
        chain: the variables.
        target: the category.
        coefficients: shape (num_copies, num_levels - 1, num_predictors).
    """
    copies = _begun(state, chain, data)
    _check_coefficients(chain, target, coefficients)
    at, _ = _rows(data, copies, target)
    level = chain.variable(target).index(column_of(data, target)[at])
    weight = np.ones(len(at))
    predictors = Predictors(data, chain, target, copies, at).of_copies()
    parts = [logistic_terms(x, level, weight, of_copy) for x, of_copy in zip(predictors, coefficients, strict=True)]
    information, score, deviance = (np.array(part) for part in zip(*parts, strict=True))
    return LogisticSums(information=information, score=score, deviance=deviance), copies


def _check_coefficients(chain: Chain, target: str, coefficients: Values) -> None:
    variable = chain.variable(target)
    rows = 1 if variable.kind == "number" else len(variable.levels) - 1
    expected = (chain.num_copies, rows, chain.num_predictors(target))
    if coefficients.shape != expected or not np.isfinite(coefficients).all():
        raise DataError(f"coefficients must be finite, of shape {expected}, got {coefficients.shape}")


class Imputed(Contribution):
    """Sums of what was imputed, in standard units (numbers) or of the levels' numbers, in each copy."""

    num_imputed: int = people(cells="none")
    num_drawn_back: int = people(cells="none")
    num_without_donors: int = people(cells="none")
    total: Array = exact("num_copies")
    square: Array = exact("num_copies")


@stateful_site_function("imputation.draw", version=1, symbols=lambda chain, **_: {"num_copies": chain.num_copies})
def draw(
    data: Table,
    state: Copies | None,
    rng: np.random.Generator,
    chain: Chain,
    target: str,
    estimates: Array,
    coefficients: Array,
    deviations: Array,
    is_traced: bool,
) -> tuple[Imputed, Copies]:
    """Draw the missing values of one variable from its model, in every copy.

    Args:
        data: this site's table.
        state: its completed copies.
        rng: of the draws.
        chain: the variables.
        target: the variable.
        estimates: the models' coefficients, shape (num_copies, 1 or num_levels - 1, num_predictors).
        coefficients: drawn from their posterior, same shape.
        deviations: standard deviations of a number about its model, drawn likewise, shape (num_copies,).
        is_traced: whether the sums of what was drawn are sent; where few values are missing they could tell of a donor.
    """
    copies = _begun(state, chain, data)
    _check_coefficients(chain, target, coefficients)
    _check_coefficients(chain, target, estimates)
    if deviations.shape != (chain.num_copies,) or not (deviations >= 0).all():
        raise DataError("deviations must be 0 or more, one a copy")
    if chain.variable(target).kind == "category":
        values = _draw_levels(data, copies, rng, chain, target, coefficients)
        return _imputed_levels(chain, target, values, is_traced), copies.with_values(target, values)
    drawn = _draw_numbers(data, copies, rng, chain, target, estimates[:, 0], coefficients[:, 0], deviations)
    values = within(chain.variable(target), drawn)
    at, rows = _rows(data, copies, target)
    coded = (values - chain.variable(target).center[0]) / chain.variable(target).scale[0]
    is_matched = 0 < chain.num_donors <= len(at)
    sums = Imputed(
        num_imputed=len(rows),
        num_drawn_back=int((values != drawn).sum()),
        num_without_donors=0 if is_matched or not chain.num_donors else len(rows),
        total=coded.sum(axis=1) * is_traced,
        square=np.square(coded).sum(axis=1) * is_traced,
    )
    return sums, copies.with_values(target, values)


def _draw_levels(
    data: Table, copies: Copies, rng: np.random.Generator, chain: Chain, target: str, coefficients: Values
) -> Values:
    _, rows = _rows(data, copies, target)
    levels = np.array(chain.variable(target).levels)
    drawn = np.empty((chain.num_copies, len(rows)))
    for copy, x in enumerate(Predictors(data, chain, target, copies, rows).of_copies()):
        limits = np.cumsum(level_probabilities(x, coefficients[copy]), axis=1)[:, :-1]
        drawn[copy] = levels[(rng.random(len(rows))[:, None] >= limits).sum(axis=1)]
    return drawn


def _imputed_levels(chain: Chain, target: str, values: Values, is_traced: bool) -> Imputed:
    index = chain.variable(target).index(values.ravel()).reshape(values.shape).astype(np.float64)
    return Imputed(
        num_imputed=values.shape[1],
        num_drawn_back=0,
        num_without_donors=0,
        total=index.sum(axis=1) * is_traced,
        square=np.square(index).sum(axis=1) * is_traced,
    )


def _draw_numbers(
    data: Table,
    copies: Copies,
    rng: np.random.Generator,
    chain: Chain,
    target: str,
    estimates: Values,
    coefficients: Values,
    deviations: Values,
) -> Values:
    """From the normal distribution about the model; or, with enough donors at this site, from their values."""
    variable = chain.variable(target)
    at, rows = _rows(data, copies, target)
    is_matched = 0 < chain.num_donors <= len(at)
    donors = Predictors(data, chain, target, copies, at).of_copies() if is_matched else None
    observed_values = column_of(data, target)[at]
    drawn = np.empty((chain.num_copies, len(rows)))
    for copy, x in enumerate(Predictors(data, chain, target, copies, rows).of_copies()):
        predicted = x @ coefficients[copy]
        if donors is None:
            noise = deviations[copy] * rng.standard_normal(len(rows))
            drawn[copy] = variable.center[0] + variable.scale[0] * (predicted + noise)
        else:
            near = next(donors) @ estimates[copy]
            drawn[copy] = matched(observed_values, near, predicted, chain.num_donors, rng)
    return drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How one variable's imputations went.

    Attributes:
        mean: of the imputed values after each iteration in each copy, shape (num_iterations, num_copies).
        deviation: their standard deviation, same shape.
        share_drawn_back: share of the last iteration's values that were drawn back into the variable's range.
        num_without_donors: records for which too few of their site could be matched.
    """

    mean: Values
    deviation: Values
    share_drawn_back: float
    num_without_donors: int


def impute(
    chain: Chain, targets: tuple[str, ...], num_iterations: int, rng: np.random.Generator, minimum_cell: int
) -> Steps[Mapping[str, Course]]:
    """Complete every site's table in `chain.num_copies` copies; the sites keep them.

    Args:
        chain: the variables.
        targets: those that are missing somewhere, in the order in which they are visited.
        num_iterations: how often each is visited.
        rng: of the coefficients' draws.
        minimum_cell: fewest missing values whose imputations' mean and spread are asked for.

    Raises:
        ModelError: a variable has no more values than its model has coefficients.
        ConvergenceError: the model of a category did not settle.
    """
    begun = yield from ask(begin, chain)
    sizes = dict(zip((v.name for v in chain.variables), begun.sum.num_imputed, strict=True))
    warm: dict[str, Values] = {}
    visits: dict[str, list[Imputed]] = {name: [] for name in targets}
    for _ in range(num_iterations):
        for name in targets:
            posterior = yield from _posterior(chain, name, warm)
            coefficients, deviations = posterior.draw(rng)
            is_traced = bool(sizes[name] >= minimum_cell)
            total = yield from ask(draw, chain, name, posterior.estimates, coefficients, deviations, is_traced)
            visits[name].append(total.sum)
    return {name: _course(chain, name, sums) for name, sums in visits.items()}


def _posterior(chain: Chain, name: str, warm: dict[str, Values]) -> Steps[Posterior]:
    if chain.variable(name).kind == "number":
        sums = (yield from ask(linear_sums, chain, name)).sum
        return linear_posterior(chain, name, sums.gram, sums.cross, sums.square, sums.num_observed)

    def terms(coefficients: Values) -> Any:
        total = yield from ask(logistic_sums, chain, name, coefficients)
        return total.sum.information, total.sum.score, total.sum.deviance

    posterior = yield from logistic_fit(chain, name, terms, warm.get(name))
    warm[name] = posterior.estimates
    return posterior


def _course(chain: Chain, name: str, visits: list[Imputed]) -> Course:
    variable, last = chain.variable(name), visits[-1]
    size = max(last.num_imputed, 1)
    mean = np.array([visit.total for visit in visits]) / size
    spread = np.array([visit.square for visit in visits]) - size * mean**2
    deviation = np.sqrt(np.maximum(spread, 0.0) / max(size - 1, 1))
    if variable.kind == "number":
        mean, deviation = variable.center[0] + variable.scale[0] * mean, variable.scale[0] * deviation
    return Course(
        mean=mean,
        deviation=deviation,
        share_drawn_back=last.num_drawn_back / (size * chain.num_copies),
        num_without_donors=last.num_without_donors,
    )
