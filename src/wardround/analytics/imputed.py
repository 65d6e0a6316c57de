"""A regression after multiple imputation: the tables are completed at the sites, the model is fitted to each copy.

The workflow `imputed` plans which variables are imputed and how, lets the sites complete their tables
(`imputation.py`), runs `glm` on every completed copy (`imputation_tables.py`) and pools the fits by Rubin's rules
(`imputation_pooling.py`).

References:
    Rubin (1987), Multiple Imputation for Nonresponse in Surveys.
    van Buuren (2018), Flexible Imputation of Missing Data, 2nd ed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from wardround.analytics.expression import parse_expression
from wardround.analytics.families import FamilyName, LinkName
from wardround.analytics.formula import (
    CategoryFactor,
    FormulaFactor,
    FormulaPlan,
    NumericFactor,
    SplineFactor,
    plan_formula,
)
from wardround.analytics.glm import Covariance, glm
from wardround.analytics.glm_result import GLMResult
from wardround.analytics.imputation import (
    Course,
    Observed,
    at_sites,
    begin,
    draw,
    impute,
    linear_sums,
    logistic_sums,
    observed,
    value_sums,
)
from wardround.analytics.imputation_chain import MAX_COPIES, Chain, ChainVariable, SiteColumn, Values
from wardround.analytics.imputation_tables import on_copy
from wardround.analytics.imputed_result import ImputedResult, Planned, Role, VariableRole, summarise
from wardround.analytics.preparation import CONSTANT_SPREAD, SMALLEST_SCALE
from wardround.analytics.steady_sites import with_steady_sites
from wardround.data.contract import Contract, Setting, Variable
from wardround.errors import ConfigError, DataError, DisclosureError, ModelError
from wardround.sums import Steps, Workflow, ask, workflow

MAX_ITERATIONS = 100
"""Most iterations of the chained equations."""
MAX_SUMS = 2**23
"""Most numbers that the sums of one imputation model may have over all copies (64 MiB)."""
MAX_CODES = 50
"""Most values that an integer's range may have for it to be imputed as a category."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The options of `imputed`, checked."""

    model: Workflow[GLMResult]
    plan: FormulaPlan
    roles: Mapping[str, Role]
    codes: Mapping[str, tuple[float, ...]]
    num_imputations: int
    num_iterations: int
    seed: int
    num_donors: int
    keeps_range: bool
    by_site: bool
    complete_cases: bool


@workflow("imputed", version=1)
def imputed(
    setting: Setting,
    formula: str,
    family: FamilyName = "gaussian",
    link: LinkName | None = None,
    num_imputations: int = 20,
    num_iterations: int = 10,
    seed: int = 0,
    auxiliary: tuple[str, ...] = (),
    categorical: tuple[str, ...] = (),
    method: Literal["norm", "pmm"] = "norm",
    num_donors: int = 5,
    keeps_range: bool = True,
    imputes_by_site: bool = False,
    complete_cases: bool = True,
    offset: str | None = None,
    frequency_weights: str | None = None,
    variance_weights: str | None = None,
    covariance: Covariance = "model",
    cluster: str | None = None,
    site_intercepts: bool = False,
    confidence: float = 0.95,
) -> Steps[ImputedResult]:
    """Regression after multiple imputation by chained equations; no imputed value leaves its site.

    Args:
        setting: contract and sites.
        formula: `outcome ~ predictors`, as in `glm`. Its variables are imputed from each other; transformations and
            interactions are computed from the completed variables.
        family: distribution of the outcome.
        link: None for the family's canonical link.
        num_imputations: completed copies, 2 to 200.
        num_iterations: how often each variable is imputed in turn, 1 to 100.
        seed: of the coordinator's draws; the sites draw with generators of their own.
        auxiliary: further variables that help to impute those of the formula.
        categorical: integers of short range (codes) to be imputed as categories; those of two values always are.
        method: whether missing numbers are drawn from the normal distribution about their model, or are values of
            records of the same site whose predictions are near (predictive mean matching).
        num_donors: for the latter, how many nearest records one is chosen from.
        keeps_range: whether imputed numbers are drawn back into the contract's range.
        imputes_by_site: whether the imputation models have an intercept for each site.
        complete_cases: whether the model is also fitted to the complete records, for comparison.
        offset: as in `glm`; not imputed.
        frequency_weights: as in `glm`; not imputed.
        variance_weights: as in `glm`; not imputed.
        covariance: as in `glm`.
        cluster: as in `glm`; not imputed.
        site_intercepts: whether each site has an intercept of its own, in the model and in the imputation models.
        confidence: of the intervals.

    Raises:
        ConfigError: an option or the formula is wrong, before anything is asked.
        DataError: a variable is missing everywhere, or does not fit the family.
        ModelError: an imputation model or the model itself cannot be estimated.

    Guarantees:
        imputed_values_stay: the sites send sums only; what they imputed is kept there.
        deterministic_for_seeds: the same data and seeds (this option, and the engine's) give the same result.
    """
    plan = plan_formula(formula, setting.contract)
    roles = _roles(plan, setting.contract, auxiliary)
    _check(setting, num_imputations, num_iterations, seed, num_donors, imputes_by_site or site_intercepts)
    model = glm(
        formula,
        family=family,
        link=link,
        offset=offset,
        frequency_weights=frequency_weights,
        variance_weights=variance_weights,
        covariance=covariance,
        cluster=cluster,
        site_intercepts=site_intercepts,
        confidence=confidence,
    )
    options = _Options(
        model=model,
        plan=plan,
        roles=roles,
        codes=_codes(plan, setting.contract, tuple(roles), categorical),
        num_imputations=num_imputations,
        num_iterations=num_iterations,
        seed=seed,
        num_donors=num_donors if method == "pmm" else 0,
        keeps_range=keeps_range,
        by_site=imputes_by_site or site_intercepts,
        complete_cases=complete_cases,
    )
    return (yield from with_steady_sites(lambda: _attempt(setting, options), len(setting.sites)))


def _check(
    setting: Setting, num_imputations: int, num_iterations: int, seed: int, num_donors: int, by_site: bool
) -> None:
    if not 2 <= num_imputations <= MAX_COPIES:
        raise ConfigError(f"num_imputations: must be in [2, {MAX_COPIES}], got {num_imputations}")
    if not 1 <= num_iterations <= MAX_ITERATIONS:
        raise ConfigError(f"num_iterations: must be in [1, {MAX_ITERATIONS}], got {num_iterations}")
    if seed < 0:
        raise ConfigError(f"seed: must be 0 or more, got {seed}")
    if not 1 <= num_donors <= 100:
        raise ConfigError(f"num_donors: must be in [1, 100], got {num_donors}")
    if by_site and not setting.disclosure.allows_site_results:
        raise ConfigError(
            "imputes_by_site, site_intercepts: an intercept for each site is that site's result, which the disclosure "
            "rule allows_site_results = false forbids; leave the option out, or agree on allows_site_results = true"
        )


def _roles(plan: FormulaPlan, contract: Contract, auxiliary: tuple[str, ...]) -> dict[str, Role]:
    roles: dict[str, Role] = dict.fromkeys(_variables(plan.outcome), "outcome")
    for factor in plan.factors:
        for name in _variables(factor):
            roles.setdefault(name, "predictor")
    for name in auxiliary:
        variable = contract.variable(name, "auxiliary")
        if variable.type == "text":
            raise ConfigError(f"auxiliary: {name!r} is text, which is not analysed; leave it out")
        roles.setdefault(name, "auxiliary")
    return roles


def _variables(factor: FormulaFactor) -> tuple[str, ...]:
    if isinstance(factor, CategoryFactor):
        return (factor.variable,)
    if isinstance(factor, SplineFactor):
        return parse_expression(factor.expression).variables
    text = factor.resolve(dict.fromkeys(factor.to_center, 0.0), dict.fromkeys(factor.to_scale, 1.0))
    return parse_expression(text).variables


def _codes(
    plan: FormulaPlan, contract: Contract, names: tuple[str, ...], categorical: tuple[str, ...]
) -> dict[str, tuple[float, ...]]:
    """For each variable that is imputed as a category, the values that it may have, as a table holds them."""
    for name in categorical:
        if name not in names:
            raise ConfigError(f"categorical: {name!r} is in neither formula nor auxiliary; add it or leave it out")
    factors = {f.variable for f in (plan.outcome, *plan.factors) if isinstance(f, CategoryFactor)}
    codes: dict[str, tuple[float, ...]] = {}
    for name in names:
        variable = contract.variable(name)
        if variable.category_levels is not None:
            codes[name] = tuple(map(float, range(len(variable.category_levels))))
        elif name in factors | set(categorical) or _is_binary(variable):
            codes[name] = _whole_numbers(variable)
    return codes


def _is_binary(variable: Variable) -> bool:
    return variable.type == "integer" and variable.range is not None and variable.range[1] - variable.range[0] == 1


def _whole_numbers(variable: Variable) -> tuple[float, ...]:
    if variable.type != "integer" or variable.range is None:
        raise ConfigError(f"categorical: {variable.name!r} must be an integer with a range in the contract")
    low, high = math.ceil(variable.range[0]), math.floor(variable.range[1])
    if high - low >= MAX_CODES:
        raise ConfigError(f"categorical: the range of {variable.name!r} has over {MAX_CODES} values; use a number")
    return tuple(map(float, range(low, high + 1)))


def _attempt(setting: Setting, options: _Options) -> Steps[ImputedResult]:
    names = tuple(options.roles)
    levels = tuple(options.codes.get(name, ()) for name in names)
    analysed = tuple(name for name in names if options.roles[name] != "auxiliary")
    counted = yield from ask(observed, names, levels, analysed, _fewest_rows(setting, options))
    targets = _targets(names, counted.sum)
    _refuse_moving_knots(options.plan, targets)
    chain, absent = yield from _chain(setting, options, names, levels, counted.sum)
    _check_size(chain, targets)
    is_short = counted.sum.num_sites_short > 0
    complete = (yield from _complete_cases(setting, options, is_short)) if targets else None
    rng = np.random.default_rng(options.seed)
    courses: Mapping[str, Course] = {}
    if targets:
        courses = yield from impute(chain, targets, options.num_iterations, rng, setting.disclosure.minimum_cell)
        fits = []
        for copy in range(options.num_imputations):
            fits.append((yield from on_copy(options.model.steps(setting), copy)))
    else:
        fits = [(yield from options.model.steps(setting))]
    _check_same_terms(fits)
    planned = Planned(
        variables=tuple(
            VariableRole(
                name=name,
                role=options.roles[name],
                kind=chain.variable(name).kind,
                num_missing=int(counted.sum.num_missing[i]),
                num_sites_without=int(counted.sum.num_sites_without[i]),
                sites_without=absent.get(name),
            )
            for i, name in enumerate(names)
        ),
        num_records=counted.sum.num_records,
        num_patients=counted.sum.num_patients,
        num_complete=counted.sum.num_complete,
        num_iterations=options.num_iterations,
        num_donors=options.num_donors,
        by_site=options.by_site,
        seed=options.seed,
        nonlinear=_nonlinear(options.plan, targets),
        centred=_centred(options.plan, targets),
    )
    return summarise(setting.disclosure, options.model.options, planned, fits, complete, courses, counted.sites)


def _targets(names: tuple[str, ...], counted: Observed) -> tuple[str, ...]:
    """Variables to impute, those with the fewest missing values first.

    Raises:
        DataError: a variable is missing everywhere, or there are no records.
    """
    if counted.num_records == 0:
        raise DataError("no site has any record")
    empty = [name for name, n in zip(names, counted.num_missing, strict=True) if n == counted.num_records]
    if empty:
        raise DataError(f"{', '.join(empty)}: missing in all records of all sites; leave it out")
    order = np.argsort(counted.num_missing, kind="stable")
    return tuple(names[i] for i in order if counted.num_missing[i])


def _refuse_moving_knots(plan: FormulaPlan, targets: tuple[str, ...]) -> None:
    for factor in plan.factors:
        if isinstance(factor, SplineFactor) and factor.knot_quantiles and set(_variables(factor)) & set(targets):
            raise ConfigError(
                f"formula: the knots of {factor.name} would be others in each completed copy, as the variable has "
                "missing values; give knots=[...]"
            )


def _chain(
    setting: Setting,
    options: _Options,
    names: tuple[str, ...],
    levels: tuple[tuple[float, ...], ...],
    counted: Observed,
) -> Steps[tuple[Chain, dict[str, tuple[str, ...]]]]:
    """The chain, and the sites at which a variable has no value at all, where they may be named."""
    numbers = tuple(name for name in names if name not in options.codes)
    num_observed = counted.num_records - counted.num_missing
    places = {name: i for i, name in enumerate(names)}
    centers, scales = yield from _spreads(numbers, np.array([num_observed[places[name]] for name in numbers], float))
    spreads = dict(zip(numbers, zip(centers.tolist(), scales.tolist(), strict=True), strict=True))
    at_level = np.split(counted.num_at_level, np.cumsum([len(values) for values in levels])[:-1])
    variables = tuple(
        _category(name, values, counts)
        if values
        else _number(setting.contract.variable(name), spreads[name], options.keeps_range)
        for name, values, counts in zip(names, levels, at_level, strict=True)
    )
    sites: tuple[SiteColumn, ...] = ()
    absent: dict[str, tuple[str, ...]] = {}
    is_absent = bool(counted.num_sites_without.any()) and setting.disclosure.allows_site_results
    if options.by_site or is_absent:
        slots = (yield from ask(at_sites, names, setting.sites)).sum
        sites = _site_columns(setting.sites, slots.num_records) if options.by_site else ()
        is_without = (slots.num_missing == slots.num_records[:, None]) & (slots.num_records[:, None] > 0)
        absent = {
            name: tuple(site for site, without in zip(setting.sites, is_without[:, i], strict=True) if without)
            for i, name in enumerate(names)
        }
    chain = Chain(variables=variables, sites=sites, num_copies=options.num_imputations, num_donors=options.num_donors)
    return chain, absent


def _spreads(numbers: tuple[str, ...], num_observed: Values) -> Steps[tuple[Values, Values]]:
    """Means and standard deviations of the observed numbers, in three asks so that no digit is lost."""
    zeros, ones = np.zeros(len(numbers)), np.ones(len(numbers))
    if not numbers:
        return zeros, ones
    centers = (yield from ask(value_sums, numbers, zeros, ones, "value")).sum.sums / num_observed
    sizes = (yield from ask(value_sums, numbers, centers, ones, "size")).sum.sums / num_observed
    is_constant = sizes <= CONSTANT_SPREAD * np.abs(centers)
    tiny = [n for n, s, c in zip(numbers, sizes, is_constant, strict=True) if s < SMALLEST_SCALE and not c]
    if tiny:
        raise DataError(f"{', '.join(tiny)}: spreads less than {SMALLEST_SCALE:g}; use a smaller unit")
    sizes = np.where(is_constant, 1.0, sizes)
    squares = (yield from ask(value_sums, numbers, centers, sizes, "square")).sum.sums / num_observed
    return centers, np.where(is_constant, 1.0, sizes * np.sqrt(squares))


def _category(name: str, values: tuple[float, ...], counts: Any) -> ChainVariable:
    occurring = [(value, int(count)) for value, count in zip(values, counts, strict=True) if count]
    shares = np.array([count for _, count in occurring]) / sum(count for _, count in occurring)
    rest = shares[1:]
    return ChainVariable(
        name=name,
        kind="category",
        levels=tuple(value for value, _ in occurring),
        center=tuple(rest.tolist()),
        scale=tuple(np.sqrt(rest * (1 - rest)).tolist()),
    )


def _number(variable: Variable, spread: tuple[float, float], keeps_range: bool) -> ChainVariable:
    low, high = variable.range if keeps_range and variable.range is not None else (None, None)
    return ChainVariable(name=variable.name, kind="number", center=(spread[0],), scale=(spread[1],), low=low, high=high)


def _site_columns(sites: tuple[str, ...], num_records: Any) -> tuple[SiteColumn, ...]:
    shares = num_records / num_records.sum()
    return tuple(
        SiteColumn(site=site, center=float(share), scale=float(np.sqrt(share * (1 - share))))
        for site, share in zip(sites, shares, strict=True)
        if 0 < share < 1
    )


def _check_size(chain: Chain, targets: tuple[str, ...]) -> None:
    for name in targets:
        variable = chain.variable(name)
        size = chain.num_predictors(name) * (max(len(variable.levels) - 1, 1))
        if chain.num_copies * size * (size + 1) // 2 > MAX_SUMS:
            raise DataError(
                f"the imputation model of {name!r} has {size} coefficients in {chain.num_copies} copies, which is more "
                "than can be summed; merge levels, leave auxiliary variables out, or make fewer imputations"
            )


def _fewest_rows(setting: Setting, options: _Options) -> int:
    """Complete records below which the disclosure rules keep a site out of the model of the complete records."""
    width = 1 + len(setting.sites) * options.by_site
    for term in options.plan.terms:
        factors = {s.factor.name: s.factor for product in term.products for s in product}
        width += math.prod(map(_most_columns, factors.values()))
    rules = setting.disclosure
    return max(rules.minimum_rows_site, math.ceil(width / rules.parameters_per_row))


def _most_columns(factor: FormulaFactor) -> int:
    if isinstance(factor, CategoryFactor):
        return len(factor.levels)
    if isinstance(factor, SplineFactor):
        return factor.degree + 1 + len(factor.knots or factor.knot_quantiles)
    return 1


def _complete_cases(setting: Setting, options: _Options, is_short: bool) -> Steps[GLMResult | str | None]:
    """The fit to the complete records; a text where there is none."""
    if not options.complete_cases:
        return None
    if is_short:
        return "left out, as a site with few complete records would be kept out of the whole run"
    try:
        return (yield from options.model.steps(setting))
    except (DataError, DisclosureError) as error:
        return f"could not be fitted ({error})"


def _check_same_terms(fits: list[GLMResult]) -> None:
    names = [tuple(term.term for term in fit.terms) for fit in fits]
    if len(set(names)) > 1:
        raise ModelError("the completed copies' models have different columns; give the levels or knots in the formula")


def _nonlinear(plan: FormulaPlan, targets: tuple[str, ...]) -> tuple[str, ...]:
    """Terms that make of an incomplete variable what the imputation models do not hold."""
    found = []
    for term in plan.terms:
        scoped = {s.factor.name: s.factor for product in term.products for s in product}
        is_used = any(set(_variables(factor)) & set(targets) for factor in scoped.values())
        if is_used and not (len(scoped) == 1 and all(map(_is_linear, scoped.values()))):
            found.append(term.name)
    return tuple(found)


def _is_linear(factor: FormulaFactor) -> bool:
    names = _variables(factor)
    if isinstance(factor, NumericFactor):
        return factor.name in names or (len(names) == 1 and factor.to_center == names)
    return isinstance(factor, CategoryFactor)


def _centred(plan: FormulaPlan, targets: tuple[str, ...]) -> bool:
    return any(getattr(factor, "to_center", ()) and set(_variables(factor)) & set(targets) for factor in plan.factors)


# A module's vocabulary is what it names: the workflow with the site functions that it asks for.
__all__ = ["at_sites", "begin", "draw", "imputed", "linear_sums", "logistic_sums", "observed", "value_sums"]
