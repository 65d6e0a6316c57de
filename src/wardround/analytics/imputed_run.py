"""What every analysis after multiple imputation does: plan the chain, impute, fit each copy, pool.

`imputed.py` and `imputed_cox.py` say which workflow is fitted and which variables take part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wardround.analytics.expression import parse_expression
from wardround.analytics.formula import (
    CategoryFactor,
    FormulaFactor,
    FormulaPlan,
    NumericFactor,
    SplineFactor,
)
from wardround.analytics.imputation import Course, Observed, at_sites, impute, observed, value_sums
from wardround.analytics.imputation_chain import MAX_COPIES, Chain, ChainVariable, SiteColumn, Values
from wardround.analytics.imputation_tables import on_copy
from wardround.analytics.imputed_result import Fitted, ImputedResult, Planned, Role, VariableRole, summarise
from wardround.analytics.preparation import CONSTANT_SPREAD, SMALLEST_SCALE
from wardround.data.contract import Contract, Setting, Variable
from wardround.errors import ConfigError, DataError, DisclosureError, ModelError
from wardround.sums import Steps, Workflow, ask

MAX_ITERATIONS = 100
"""Most iterations of the chained equations."""
MAX_SUMS = 2**23
"""Most numbers that the sums of one imputation model may have over all copies (64 MiB)."""
MAX_CODES = 50
"""Most values that an integer's range may have for it to be imputed as a category."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is imputed and fitted, checked.

    Attributes:
        model: the workflow that is fitted to each copy.
        read: what of its result is pooled.
        confidence: of the intervals.
        plan: its formula.
        roles: of the variables.
        codes: of those that are imputed as categories, the values that they may have, as a table holds them.
        hazard_of: the variable of a time to an event, which the imputation models hold as the cumulative hazard.
        hazard: finds that.
        complete: variables that must not be missing anywhere.
        num_imputations: completed copies.
        num_iterations: of the chained equations.
        seed: of the coordinator's draws.
        num_donors: of predictive mean matching; 0: numbers are drawn from the normal distribution.
        keeps_range: whether imputed numbers are drawn back into the contract's range.
        by_site: whether the imputation models have an intercept for each site.
        complete_cases: whether the complete records are fitted, too.
    """

    model: Workflow[Any]
    read: Callable[[Any], Fitted]
    confidence: float
    plan: FormulaPlan
    roles: Mapping[str, Role]
    codes: Mapping[str, tuple[float, ...]]
    hazard_of: str | None = None
    hazard: Callable[[Setting], Steps[ChainVariable]] | None = None
    complete: tuple[str, ...] = ()
    num_imputations: int
    num_iterations: int
    seed: int
    num_donors: int
    keeps_range: bool
    by_site: bool
    complete_cases: bool


def check_options(
    setting: Setting, num_imputations: int, num_iterations: int, seed: int, num_donors: int, by_site: bool
) -> None:
    """Raise `ConfigError` for an option out of its range, or one that the disclosure rules forbid."""
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


def roles_of(plan: FormulaPlan, contract: Contract, auxiliary: tuple[str, ...]) -> dict[str, Role]:
    """What each variable is in the analysis: of the formula's outcome, its predictors, then the auxiliary ones."""
    roles: dict[str, Role] = dict.fromkeys(variables_of(plan.outcome), "outcome")
    for factor in plan.factors:
        for name in variables_of(factor):
            roles.setdefault(name, "predictor")
    for name in auxiliary:
        variable = contract.variable(name, "auxiliary")
        if variable.type == "text":
            raise ConfigError(f"auxiliary: {name!r} is text, which is not analysed; leave it out")
        roles.setdefault(name, "auxiliary")
    return roles


def variables_of(factor: FormulaFactor) -> tuple[str, ...]:
    """The variables that a factor of a formula needs."""
    if isinstance(factor, CategoryFactor):
        return (factor.variable,)
    if isinstance(factor, SplineFactor):
        return parse_expression(factor.expression).variables
    text = factor.resolve(dict.fromkeys(factor.to_center, 0.0), dict.fromkeys(factor.to_scale, 1.0))
    return parse_expression(text).variables


def codes_of(
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


def attempt(setting: Setting, options: Options) -> Steps[ImputedResult]:
    """Count, impute, fit each copy and pool, over one set of sites.

    Raises:
        DataError: a variable is missing everywhere, or one that must not be missing is.
        DisclosureError: few records have a value of a variable.
        ModelError: an imputation model or the model itself cannot be estimated.
    """
    names = tuple(options.roles)
    levels = tuple(options.codes.get(name, ()) for name in names)
    analysed = tuple(name for name in names if options.roles[name] != "auxiliary")
    counted = yield from ask(observed, names, levels, analysed, _fewest_rows(setting, options))
    targets = _targets(names, counted.sum)
    _refuse_gaps(options, targets)
    _refuse_few_values(names, counted.sum, setting.disclosure.minimum_cell)
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
            fits.append(options.read((yield from on_copy(options.model.steps(setting), copy))))
    else:
        fits = [options.read((yield from options.model.steps(setting)))]
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
    return summarise(setting.disclosure, options.confidence, planned, fits, complete, courses, counted.sites)


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


def _refuse_gaps(options: Options, targets: tuple[str, ...]) -> None:
    for name in options.complete:
        if name in targets:
            raise DataError(
                f"{name!r} is missing in some records, and a time to an event is not imputed; leave these records out "
                f"by the cohort ({name} IS NOT NULL)"
            )


def _refuse_few_values(names: tuple[str, ...], counted: Observed, minimum_cell: int) -> None:
    """Raise where the mean of a variable would be that of few records."""
    num_observed = counted.num_records - counted.num_missing
    few = [name for name, num in zip(names, num_observed, strict=True) if 0 < num < minimum_cell]
    if few:
        raise DisclosureError(
            "minimum_cell",
            f"fewer than {minimum_cell} records have a value of {', '.join(few)}; leave it out, or widen the cohort",
        )


def _refuse_moving_knots(plan: FormulaPlan, targets: tuple[str, ...]) -> None:
    for factor in plan.factors:
        if isinstance(factor, SplineFactor) and factor.knot_quantiles and set(variables_of(factor)) & set(targets):
            raise ConfigError(
                f"formula: the knots of {factor.name} would be others in each completed copy, as the variable has "
                "missing values; give knots=[...]"
            )


def _chain(
    setting: Setting,
    options: Options,
    names: tuple[str, ...],
    levels: tuple[tuple[float, ...], ...],
    counted: Observed,
) -> Steps[tuple[Chain, dict[str, tuple[str, ...]]]]:
    """The chain, and the sites at which a variable has no value at all, where they may be named."""
    numbers = tuple(name for name in names if name not in options.codes and name != options.hazard_of)
    hazard = None if options.hazard is None else (yield from options.hazard(setting))
    num_observed = counted.num_records - counted.num_missing
    places = {name: i for i, name in enumerate(names)}
    centers, scales = yield from _spreads(numbers, np.array([num_observed[places[name]] for name in numbers], float))
    spreads = dict(zip(numbers, zip(centers.tolist(), scales.tolist(), strict=True), strict=True))
    at_level = np.split(counted.num_at_level, np.cumsum([len(values) for values in levels])[:-1])
    variables = tuple(
        hazard
        if hazard is not None and name == options.hazard_of
        else _category(name, values, counts)
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


def _fewest_rows(setting: Setting, options: Options) -> int:
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


def _complete_cases(setting: Setting, options: Options, is_short: bool) -> Steps[Fitted | str | None]:
    """The fit to the complete records; a text where there is none."""
    if not options.complete_cases:
        return None
    if is_short:
        return "left out, as a site with few complete records would be kept out of the whole run"
    try:
        return options.read((yield from options.model.steps(setting)))
    except (DataError, DisclosureError) as error:
        return f"could not be fitted ({error})"


def _check_same_terms(fits: list[Fitted]) -> None:
    if len({fit.names for fit in fits}) > 1:
        raise ModelError("the completed copies' models have different columns; give the levels or knots in the formula")


def _nonlinear(plan: FormulaPlan, targets: tuple[str, ...]) -> tuple[str, ...]:
    """Terms that make of an incomplete variable what the imputation models do not hold."""
    found = []
    for term in plan.terms:
        scoped = {s.factor.name: s.factor for product in term.products for s in product}
        is_used = any(set(variables_of(factor)) & set(targets) for factor in scoped.values())
        if is_used and not (len(scoped) == 1 and all(map(_is_linear, scoped.values()))):
            found.append(term.name)
    return tuple(found)


def _is_linear(factor: FormulaFactor) -> bool:
    names = variables_of(factor)
    if isinstance(factor, NumericFactor):
        return factor.name in names or (len(names) == 1 and factor.to_center == names)
    return isinstance(factor, CategoryFactor)


def _centred(plan: FormulaPlan, targets: tuple[str, ...]) -> bool:
    return any(getattr(factor, "to_center", ()) and set(variables_of(factor)) & set(targets) for factor in plan.factors)
