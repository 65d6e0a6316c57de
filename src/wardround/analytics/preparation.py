"""From a formula to a design, federatedly: levels that occur, centres and scales, knots, standardisation.

Every regression begins with these asks. What a formula needs of the data (the mean that `center` subtracts,
the knots of a spline, which levels occur anywhere) is computed over all sites together, so that the design
is the one that the pooled data would have given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import prod

import numpy as np

from wardround.analytics.design import (
    MAX_COLUMNS,
    AtSite,
    Block,
    Column,
    Design,
    Feature,
    Frame,
    Level,
    Numeric,
    SplineColumn,
)
from wardround.analytics.expression import parse_expression, shorten
from wardround.analytics.formula import (
    CategoryFactor,
    FormulaFactor,
    FormulaPlan,
    FormulaTerm,
    NumericFactor,
    SplineFactor,
    plan_expression,
    plan_formula,
)
from wardround.analytics.lone_records import refuse_few, refuse_lone_levels, refuse_lone_records
from wardround.analytics.preparation_sums import census, column_sums, expression_sums, far_records
from wardround.analytics.quantiles import quantiles
from wardround.analytics.splines import num_spline_columns
from wardround.data.contract import Setting
from wardround.errors import ConfigError, DataError, RankDeficiencyError
from wardround.sums import Steps, ask

CONSTANT_SPREAD = 1e-13
"""Spread, relative to the mean, up to which a column counts as constant."""
SMALLEST_SCALE = 1e-15
"""Variables whose values spread less than this cannot be summed exactly (unit: the variable's)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A term of the formula with the names of its factors and the design columns that code it."""

    name: str
    factors: frozenset[str]
    columns: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A design ready for fitting.

    Attributes:
        design: standardised columns.
        frame: rows and numbers beside the columns.
        terms: the formula's terms.
        spans_constant: whether some columns add up to a constant.
        outcome_name: what is modelled, in words.
        outcome_mean: weighted mean of the outcome, divided by the frame's scale.
        outcome_spread: weighted mean distance of the outcome from its mean, in the outcome's unit.
        num_records: records at the sites.
        num_complete: records used.
        num_missing: by required variable, records in which it is missing.
        notes: what the reader should know (levels that nobody has).
        absent: levels that a factor lists and no complete record has.
    """

    design: Design
    frame: Frame
    terms: tuple[Term, ...]
    spans_constant: bool
    outcome_name: str
    outcome_mean: float
    outcome_spread: float
    num_records: int
    num_complete: int
    num_missing: dict[str, int]
    notes: tuple[str, ...]
    absent: tuple[Level, ...] = ()

    def with_columns(self, kept: list[int]) -> Prepared:
        """The same with only these columns of the design; terms keep what is left of theirs."""
        place = {column: index for index, column in enumerate(kept)}
        design = Design(
            columns=tuple(self.design.columns[j] for j in kept),
            center=self.design.center[kept],
            scale=self.design.scale[kept],
        )
        terms = tuple(replace(term, columns=tuple(place[j] for j in term.columns if j in place)) for term in self.terms)
        return replace(self, design=design, terms=terms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What a regression uses beside its formula."""

    offset: str | None = None
    frequency_weights: str | None = None
    variance_weights: str | None = None
    also_required: tuple[str, ...] = ()
    site_intercepts: bool = False


def prepare(setting: Setting, formula: str, extras: Extras) -> Steps[Prepared]:
    """Understand a formula and find, from sums, everything its design needs of the data.

    Raises:
        ConfigError: before anything is asked: the formula or another option is wrong.
        DataError: no complete records, or numbers that cannot be summed.
        DisclosureError: few records are complete, or a level, a column or the outcome would single few out.
        RankDeficiencyError: `scale(x)` of a constant.
    """
    contract = setting.contract
    plan = plan_formula(formula, contract)
    if not plan.terms and not extras.site_intercepts:
        raise ConfigError("formula: nothing is left on the right side; write 'outcome ~ 1' for an intercept alone")
    if extras.site_intercepts and not setting.disclosure.allows_site_results:
        raise ConfigError(
            "site_intercepts: an intercept is one site's own result, which the disclosure rule allows_site_results "
            "refuses; leave it out, or set allows_site_results = true in [disclosure]"
        )
    minimum_cell = setting.disclosure.minimum_cell
    outcome, outcome_name = _outcome(plan)
    frame = _frame(plan, outcome, extras, setting)
    levels = _levels(plan)
    counted = (yield from ask(census, frame.required, levels)).sum
    num_missing = dict(zip(frame.required, (int(n) for n in counted.num_missing), strict=True))
    if counted.num_complete == 0:
        raise DataError(_nothing_left(num_missing, counted.num_records))
    refuse_few(counted.num_complete, minimum_cell)
    refuse_lone_levels(levels, counted.num_with_level, minimum_cell)
    present = {level for level, count in zip(levels, counted.num_with_level, strict=True) if count}
    _refuse_unlisted(plan, present)
    means, deviations = yield from _constants(plan, frame)
    knots = yield from _knots(plan, setting)
    known = _Known(present=frozenset(present), means=means, deviations=deviations, knots=knots)
    names, columns = _all_columns(_terms(plan, setting, extras), known)
    standardise = _standardise(columns, frame, counted.num_complete, plan.has_intercept, outcome_name, minimum_cell)
    design, mean, spread = yield from standardise
    return Prepared(
        design=design,
        frame=frame,
        terms=names,
        spans_constant=plan.spans_constant or extras.site_intercepts,
        outcome_name=outcome_name,
        outcome_mean=mean,
        outcome_spread=spread,
        num_records=counted.num_records,
        num_complete=counted.num_complete,
        num_missing=num_missing,
        notes=_absent_levels(plan, present),
        absent=tuple(level for level in levels if level not in present),
    )


def _outcome(plan: FormulaPlan) -> tuple[Feature, str]:
    factor = plan.outcome
    if isinstance(factor, CategoryFactor):
        if len(factor.levels) != 2:
            raise ConfigError(f"formula: the outcome {factor.name!r} has {len(factor.levels)} levels; it must have two")
        return Level(variable=factor.variable, level=factor.levels[1]), f"{factor.name} = {factor.levels[1]}"
    if isinstance(factor, SplineFactor) or factor.to_center:
        raise ConfigError("formula: the outcome must be a variable or arithmetic, without center, scale or splines")
    return Numeric(expression=factor.resolve({}, {})), factor.name


def _frame(plan: FormulaPlan, outcome: Feature, extras: Extras, setting: Setting) -> Frame:
    contract = setting.contract
    used = dict.fromkeys(formula_variables(plan))
    if extras.offset is not None:
        plan_expression(extras.offset, contract, "offset")
        used |= dict.fromkeys(parse_expression(extras.offset).variables)
    for option in ("frequency_weights", "variance_weights"):
        name = getattr(extras, option)
        if name is not None:
            if not contract.variable(name, option).is_numeric:
                raise ConfigError(f"{option}: variable {name!r} is not a number")
            used[name] = None
    used |= dict.fromkeys(extras.also_required)
    return Frame(
        outcome=outcome,
        offset=extras.offset,
        frequency_weights=extras.frequency_weights,
        variance_weights=extras.variance_weights,
        required=tuple(used),
    )


def formula_variables(plan: FormulaPlan) -> tuple[str, ...]:
    """The variables that a formula names, the outcome's first."""
    return tuple(dict.fromkeys(name for factor in (plan.outcome, *plan.factors) for name in _variables(factor)))


def _variables(factor: FormulaFactor) -> tuple[str, ...]:
    match factor:
        case CategoryFactor():
            return (factor.variable,)
        case SplineFactor():
            return parse_expression(factor.expression).variables
        case NumericFactor():
            stand_ins = dict.fromkeys(factor.to_center, 0.0)
            return parse_expression(factor.resolve(stand_ins, dict.fromkeys(factor.to_scale, 1.0))).variables


def _nothing_left(num_missing: dict[str, int], num_records: int) -> str:
    if num_records == 0:
        return "no site has any record"
    empty = [name for name, count in num_missing.items() if count == num_records]
    culprit = f"; missing everywhere: {', '.join(empty)}" if empty else ""
    return f"no record is complete in {', '.join(num_missing)}{culprit}; drop variables that are mostly missing"


def _levels(plan: FormulaPlan) -> tuple[Level, ...]:
    return tuple(
        dict.fromkeys(
            Level(variable=factor.variable, level=level)
            for factor in plan.factors
            if isinstance(factor, CategoryFactor)
            for level in (*factor.levels, *factor.others)
        )
    )


def _refuse_unlisted(plan: FormulaPlan, present: set[Level]) -> None:
    for factor in plan.factors:
        if isinstance(factor, CategoryFactor):
            unlisted = [v for v in factor.others if Level(variable=factor.variable, level=v) in present]
            if unlisted:
                raise DataError(
                    f"{factor.name}: some records have a level that it does not list ({', '.join(unlisted[:10])}); "
                    "list all levels, or choose the records by a cohort"
                )


def _absent_levels(plan: FormulaPlan, present: set[Level]) -> tuple[str, ...]:
    notes = []
    for factor in plan.factors:
        if isinstance(factor, CategoryFactor):
            absent = [v for v in factor.levels if Level(variable=factor.variable, level=v) not in present]
            if absent:
                shown = ", ".join(absent[:10]) + (", ..." if len(absent) > 10 else "")
                notes.append(f"{factor.name}: no complete record at any site has level {shown}; left out")
    return tuple(notes)


def _constants(plan: FormulaPlan, frame: Frame) -> Steps[tuple[dict[str, float], dict[str, float]]]:
    """Means and standard deviations (n - 1) that `center` and `scale` need, by expression."""
    numeric = [factor for factor in plan.factors if isinstance(factor, NumericFactor)]
    texts = tuple(dict.fromkeys(text for factor in numeric for text in factor.to_center))
    if not texts:
        return {}, {}
    first = (yield from ask(expression_sums, texts, np.zeros(len(texts)), 1, frame.required)).sum
    centers = first.sums / first.num_complete
    means = {text: float(center) for text, center in zip(texts, centers, strict=True)}
    scaled = tuple(dict.fromkeys(text for factor in numeric for text in factor.to_scale))
    if not scaled:
        return means, {}
    about = np.array([means[text] for text in scaled])
    second = (yield from ask(expression_sums, scaled, about, 2, frame.required)).sum
    if second.num_complete < 2 or second.sums.min() <= 0:
        raise RankDeficiencyError(f"scale({scaled[int(second.sums.argmin())]}): the values are constant")
    deviations = np.sqrt(second.sums / (second.num_complete - 1))
    return means, {text: float(deviation) for text, deviation in zip(scaled, deviations, strict=True)}


def _knots(plan: FormulaPlan, setting: Setting) -> Steps[dict[str, tuple[float, ...]]]:
    """Knots of every spline: given, or quantiles over all sites."""
    knots: dict[str, tuple[float, ...]] = {}
    for factor in plan.factors:
        if isinstance(factor, SplineFactor):
            knots[factor.name] = factor.knots or ()
            if factor.knot_quantiles:
                (variable,) = parse_expression(factor.expression).variables
                wanted = quantiles(variables=(variable,), probabilities=factor.knot_quantiles)
                found = (yield from wanted.steps(setting)).rows[0].quantiles
                knots[factor.name] = tuple(quantile.value for quantile in found if quantile.value is not None)
            values = knots[factor.name]
            ends = factor.bounds if factor.basis == "bs" else ()
            if len({*ends, *values}) < len(ends) + len(values):
                raise DataError(
                    f"{factor.name}: two of its knots coincide, as many values are equal; use fewer knots, or give them"
                )
    return knots


def _terms(plan: FormulaPlan, setting: Setting, extras: Extras) -> list[FormulaTerm | Column]:
    sites = setting.sites if not plan.has_intercept else setting.sites[1:]
    at_sites = [
        Column(name=f"site[T.{site}]" if plan.has_intercept else f"site[{site}]", features=(AtSite(site=site),))
        for site in sites
    ]
    return [*plan.terms, *(at_sites if extras.site_intercepts else [])]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What the sites' sums say of the formula's factors."""

    present: frozenset[Level]
    means: dict[str, float]
    deviations: dict[str, float]
    knots: dict[str, tuple[float, ...]]


def _all_columns(terms: list[FormulaTerm | Column], known: _Known) -> tuple[tuple[Term, ...], tuple[Column, ...]]:
    """Every term's columns; their number is checked before they are made."""
    choices = [
        [[_features(s.factor, s.is_reduced, known) for s in made] for made in term.products]
        if isinstance(term, FormulaTerm)
        else []
        for term in terms
    ]
    num_columns = sum(sum(prod(map(len, parts)) for parts in made) if made else 1 for made in choices)
    if num_columns > MAX_COLUMNS:
        raise DataError(f"the design would have {num_columns} columns; the limit is {MAX_COLUMNS}")
    names: list[Term] = []
    columns: list[Column] = []
    for term, made in zip(terms, choices, strict=True):
        added = [column for parts in made for column in _products(parts)] if isinstance(term, FormulaTerm) else [term]
        place = tuple(range(len(columns), len(columns) + len(added)))
        factors = term.factors if isinstance(term, FormulaTerm) else frozenset((term.name,))
        names.append(Term(name=term.name, factors=factors, columns=place))
        columns += added
    clash = {column.name for column in columns}
    if len(clash) < len(columns):
        twice = next(name for name in clash if sum(column.name == name for column in columns) > 1)
        raise ConfigError(f"formula: two coefficients would be named {shorten(twice)!r}; rename a variable or a level")
    return tuple(names), tuple(columns)


def _products(choices: list[list[tuple[str, Feature]]]) -> Iterator[Column]:
    # The first factor's levels vary fastest.
    for chosen in product(*reversed(choices)):
        parts = list(reversed(chosen))
        name = ":".join(label for label, _ in parts) or "Intercept"
        yield Column(name=name, features=tuple(feature for _, feature in parts))


def _features(factor: FormulaFactor, is_reduced: bool, known: _Known) -> list[tuple[str, Feature]]:
    match factor:
        case NumericFactor():
            return [(factor.name, Numeric(expression=factor.resolve(known.means, known.deviations)))]
        case CategoryFactor():
            levels = [Level(variable=factor.variable, level=level) for level in factor.levels]
            kept = [level for level in levels if level in known.present]
            mark = "T." if is_reduced else ""
            return [(f"{factor.name}[{mark}{level.level}]", level) for level in kept[int(is_reduced) :]]
        case SplineFactor():
            where = known.knots[factor.name]
            return [
                (
                    f"{factor.name}[{j}]",
                    SplineColumn(
                        expression=factor.expression,
                        basis=factor.basis,
                        degree=factor.degree,
                        knots=where,
                        bounds=factor.bounds,
                        column=j,
                    ),
                )
                for j in range(num_spline_columns(factor.basis, factor.degree, len(where)))
            ]


def _standardise(
    columns: tuple[Column, ...],
    frame: Frame,
    num_complete: int,
    has_intercept: bool,
    outcome_name: str,
    minimum_cell: int,
) -> Steps[tuple[Design, float, float]]:
    """Centre the columns on their means (where an intercept takes that up) and scale them by their mean deviation.

    Returns:
        The design, and the weighted mean of the outcome and its mean distance from that.
    """
    num_columns = len(columns)
    raw = Design(columns=columns, center=np.zeros(num_columns), scale=np.ones(num_columns))
    first = (yield from ask(column_sums, raw, frame, 0.0)).sum
    if not first.weight > 0:
        raise DataError("the weights are 0 in all complete records")
    mean = first.outcome / first.weight
    is_intercept = np.array([column.features == () for column in columns], bool)
    center = np.where(is_intercept, 0.0, first.sums / num_complete) if has_intercept else np.zeros(num_columns)
    middles = np.append(first.sums / num_complete - center, mean)
    centered = replace(raw, center=center)
    second = (yield from ask(column_sums, centered, frame, mean, tuple(middles.tolist()))).sum
    yield from refuse_lone_records(centered, frame, outcome_name, second, middles, minimum_cell)
    scale = second.absolute_sums / num_complete
    # What remains of a constant after its rounded mean is taken off is rounding error, not spread. Such a column
    # is left at its own size, so that it stands at zero and the check of the rank finds and names it.
    is_constant = scale <= CONSTANT_SPREAD * np.abs(center)
    tiny = [
        column.name for column, s, c in zip(columns, scale, is_constant, strict=True) if s < SMALLEST_SCALE and not c
    ]
    if tiny:
        raise DataError(f"{', '.join(tiny[:10])}: spreads less than {SMALLEST_SCALE:g}; use a smaller unit")
    size = np.where(center == 0, 1.0, np.abs(center))
    design = replace(raw, center=center, scale=np.where(is_constant, size, scale))
    return design, mean, second.outcome_spread / second.weight


__all__ = [
    "Block",
    "Extras",
    "Prepared",
    "Term",
    "census",
    "column_sums",
    "expression_sums",
    "far_records",
    "formula_variables",
    "prepare",
]
