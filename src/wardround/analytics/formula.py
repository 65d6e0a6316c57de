"""Wilkinson formulas from outside: parsed by formulaic, gated, and turned into a plan. Nothing in them is executed.

Formulaic's parser does the algebra of terms (`formula_terms.py`); `coding.py` decides which categories drop a
level. What each factor means is decided here, from an allow-list: a variable of the contract, arithmetic
(`expression.py`), `C(...)`, `center`, `scale`, `bs`, `rcs`.

Where it must differ from pooled software: the outer knots of `bs` are the contract's range or given (R's are the
least and the greatest value, which are two patients' own); `center` and `scale` use the complete records; a
comparison is 0 or 1, never a category.
"""

from __future__ import annotations

import ast
import copy
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from formulaic.parser.types import Factor

from wardround.analytics.coding import full_rank_coding
from wardround.analytics.expression import function_name, is_plain, parse_expression, parse_python, rename, shorten
from wardround.analytics.formula_terms import FormulaTerms, split_formula
from wardround.analytics.splines import MAX_DEGREE, MAX_KNOTS
from wardround.data.contract import Contract, Variable
from wardround.errors import ConfigError

MAX_INTEGER_LEVELS = 1_000
"""Widest range of an integer variable that `C()` may turn into levels."""

_STATEFUL = ("center", "scale", "standardize")
_SPLINES = ("bs", "rcs")
# Harrell (2015), Regression Modeling Strategies, 2nd ed., table 2.3.
_RCS_QUANTILES = {
    3: (0.10, 0.50, 0.90),
    4: (0.05, 0.35, 0.65, 0.95),
    5: (0.05, 0.275, 0.50, 0.725, 0.95),
    6: (0.05, 0.23, 0.41, 0.59, 0.77, 0.95),
    7: (0.025, 0.1833, 0.3417, 0.50, 0.6583, 0.8167, 0.975),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericFactor:
    """Arithmetic; `center(...)` and `scale(...)` inside are still to be given their constants."""

    name: str
    tree: ast.expr
    to_center: tuple[str, ...]
    to_scale: tuple[str, ...]

    def resolve(self, means: dict[str, float], deviations: dict[str, float]) -> str:
        """The expression with `center(x)` and `scale(x)` replaced by arithmetic with these constants."""
        return to_text(_Inline(means, deviations).visit(copy.deepcopy(self.tree)))


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryFactor:
    """A variable's levels, the reference first; no record may have one of the others."""

    name: str
    variable: str
    levels: tuple[str, ...]
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SplineFactor:
    """A spline basis; its knots are given, or are quantiles still to be found."""

    name: str
    expression: str
    basis: Literal["bs", "rcs"]
    degree: int
    knots: tuple[float, ...] | None
    knot_quantiles: tuple[float, ...]
    bounds: tuple[float, float]


FormulaFactor: TypeAlias = NumericFactor | CategoryFactor | SplineFactor


@dataclass(frozen=True, slots=True)
class ScopedFactor:
    """A factor in a term: `is_reduced` drops a category's reference level."""

    factor: FormulaFactor
    is_reduced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FormulaTerm:
    """A term, its factors' names, and the products that code it; the empty product is the intercept."""

    name: str
    factors: frozenset[str]
    products: tuple[tuple[ScopedFactor, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FormulaPlan:
    """A formula understood against a contract, before anything is asked."""

    text: str
    outcome: FormulaFactor
    terms: tuple[FormulaTerm, ...]

    @property
    def factors(self) -> tuple[FormulaFactor, ...]:
        """The distinct factors of the right-hand side."""
        found = {
            scoped.factor.name: scoped.factor for term in self.terms for product in term.products for scoped in product
        }
        return tuple(found.values())

    @property
    def has_intercept(self) -> bool:
        """Whether there is an intercept."""
        return any(product == () for term in self.terms for product in term.products)

    @property
    def spans_constant(self) -> bool:
        """Whether some columns add up to a constant: the intercept, or a category with all of its levels."""
        products = [product for term in self.terms for product in term.products]
        return any(
            all(isinstance(s.factor, CategoryFactor) and not s.is_reduced for s in product) for product in products
        )


def plan_formula(text: str, contract: Contract, where: str = "formula") -> FormulaPlan:
    """Understand a formula against the contract's variables.

    Raises:
        ConfigError: it does not parse, is too large, names an unknown variable or uses what is not allowed.

    Guarantees:
        executes_nothing: no part of the text is ever run; every construct outside the allow-list is refused.
        bounded_work: a formula that would expand to more than `MAX_TERMS` terms is refused before it is expanded.
    """
    parts = split_formula(text, where)
    factors: dict[str, FormulaFactor] = {}
    for factor in (f for term in parts.terms for f in term):
        if factor.expr not in factors:
            factors[factor.expr] = _factor(factor, parts, contract, where)
    outcome = _factor(parts.outcome, parts, contract, where)
    _refuse_clashes(outcome, factors, where)
    terms = [tuple(factor.expr for factor in term) for term in parts.terms]
    categories = frozenset(expr for expr, factor in factors.items() if isinstance(factor, CategoryFactor))
    try:
        coded = full_rank_coding(terms, categories)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return FormulaPlan(
        text=text,
        outcome=outcome,
        terms=tuple(
            FormulaTerm(
                name=":".join(factors[expr].name for expr in term) or "Intercept",
                factors=frozenset(factors[expr].name for expr in term),
                products=tuple(tuple(ScopedFactor(factors[c.name], c.is_reduced) for c in made) for made in products),
            )
            for term, products in zip(terms, coded, strict=True)
        ),
    )


def _refuse_clashes(outcome: FormulaFactor, factors: dict[str, FormulaFactor], where: str) -> None:
    seen = {outcome.name: "the outcome"}
    for factor in factors.values():
        if factor.name in seen:
            raise ConfigError(f"{where}: {shorten(factor.name)!r} is a predictor and also {seen[factor.name]}")
        seen[factor.name] = "a variable whose name is written like it; rename that"


def plan_expression(text: str, contract: Contract, where: str) -> str:
    """Check an expression (an offset, say) against the contract; return its text.

    Raises:
        ConfigError: not allowed, or a variable that is unknown or no number.
    """
    for name in parse_expression(text, where).variables:
        _require_number(contract.variable(name, where), where)
    return text


def _factor(factor: Factor, parts: FormulaTerms, contract: Contract, where: str) -> FormulaFactor:
    name = parts.label(factor)
    if factor.eval_method is Factor.EvalMethod.LOOKUP:
        variable = contract.variable(name, where)
        if variable.category_levels is not None:
            return CategoryFactor(name=name, variable=variable.name, levels=variable.category_levels)
        _require_number(variable, where)
        return _numeric(name, ast.Name(id=name, ctx=ast.Load()), contract, where)
    tree = rename(_parsed(factor.expr, name, where), parts.quoted)
    if isinstance(tree, ast.Call):
        if function_name(tree) == "C":
            return _category(name, tree, contract, where)
        if function_name(tree) in _SPLINES:
            return _spline(name, tree, contract, where)
    return _numeric(name, tree, contract, where)


def _parsed(expr: str, name: str, where: str) -> ast.expr:
    try:
        return parse_python(expr, name)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _require_number(variable: Variable, where: str) -> None:
    if not variable.is_numeric and variable.type != "boolean":
        remedy = (
            "a category can stand alone in a formula"
            if variable.type == "category"
            else "declare another type in the contract"
        )
        raise ConfigError(f"{where}: variable {variable.name!r} is a {variable.type}, not a number; {remedy}")


def _numeric(name: str, tree: ast.expr, contract: Contract, where: str) -> NumericFactor:
    finder = _Stateful(where)
    plain = finder.visit(copy.deepcopy(tree))
    for expression in (to_text(plain), *finder.to_center, *finder.to_scale):
        plan_expression(expression, contract, where)
    return NumericFactor(
        name=name,
        tree=tree,
        to_center=tuple(dict.fromkeys(finder.to_center)),
        to_scale=tuple(dict.fromkeys(finder.to_scale)),
    )


def _category(name: str, call: ast.Call, contract: Contract, where: str) -> CategoryFactor:
    if not call.args or not isinstance(call.args[0], ast.Name) or len(call.args) > 2:
        raise ConfigError(
            f"{where}: write C(variable), C(variable, Treatment('reference')) or C(variable, levels=[...])"
        )
    variable = contract.variable(call.args[0].id, where)
    allowed = levels = _levels(variable, where)
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if set(keywords) - {"levels"}:
        raise ConfigError(f"{where}: C() takes levels=[...] and Treatment('reference') only, in {shorten(name)!r}")
    if "levels" in keywords:
        levels = _chosen_levels(keywords["levels"], levels, variable, where)
    if len(call.args) == 2:
        reference = _reference(call.args[1], where)
        if reference not in levels:
            raise ConfigError(f"{where}: {reference!r} is no level of {variable.name!r}; it has {', '.join(levels)}")
        levels = (reference, *(level for level in levels if level != reference))
    others = tuple(level for level in allowed if level not in set(levels))
    return CategoryFactor(name=name, variable=variable.name, levels=levels, others=others)


def _levels(variable: Variable, where: str) -> tuple[str, ...]:
    """Levels that a variable may have: declared, or the integers of its range."""
    if variable.category_levels is not None:
        return variable.category_levels
    if variable.type != "integer":
        raise ConfigError(
            f"{where}: C({variable.name}): a {variable.type} has no levels; declare it a category in the contract"
        )
    if variable.range is None:
        raise ConfigError(f"{where}: C({variable.name}): declare its range in the contract, or make it a category")
    first, last = (int(bound) for bound in variable.range)
    if last - first >= MAX_INTEGER_LEVELS:
        raise ConfigError(f"{where}: C({variable.name}): its range has over {MAX_INTEGER_LEVELS} levels; use a number")
    return tuple(str(value) for value in range(first, last + 1))


def _chosen_levels(node: ast.expr, allowed: tuple[str, ...], variable: Variable, where: str) -> tuple[str, ...]:
    try:
        values = ast.literal_eval(node)
        if not isinstance(values, list | tuple):
            raise ValueError("no list")
        chosen = tuple(str(value) for value in values)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise ConfigError(f"{where}: levels of C({variable.name}) must be a list of levels") from None
    if not set(chosen) <= set(allowed) or len(set(chosen)) != len(chosen) or not chosen:
        raise ConfigError(f"{where}: levels of C({variable.name}) must be among {', '.join(allowed)}, each once")
    return chosen


def _reference(node: ast.expr, where: str) -> str:
    match node:
        case ast.Call(func=ast.Name(id="Treatment"), args=[ast.Constant(value=value)], keywords=[]):
            return str(value)
        case ast.Call(
            func=ast.Name(id="Treatment"),
            args=[],
            keywords=[ast.keyword(arg="reference", value=ast.Constant(value=value))],
        ):
            return str(value)
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="contr"), attr="treatment"),
            args=[ast.Constant(value=value)],
            keywords=[],
        ):
            return str(value)
    raise ConfigError(f"{where}: only treatment coding is offered: C(variable, Treatment('reference'))")


def _spline(name: str, call: ast.Call, contract: Contract, where: str) -> SplineFactor:
    basis = function_name(call)
    allowed = {"df", "knots", "degree", "lower_bound", "upper_bound"} if basis == "bs" else {"knots"}
    options = {str(keyword.arg): _constant(keyword.value, where) for keyword in call.keywords}
    if not call.args or len(call.args) > 2 or set(options) - allowed:
        raise ConfigError(f"{where}: {basis}(x, ...) takes the options {', '.join(sorted(allowed))}")
    if len(call.args) == 2:
        options["df" if basis == "bs" else "num_knots"] = _constant(call.args[1], where)
    expression = to_text(call.args[0])
    plan_expression(expression, contract, where)
    degree = options.pop("degree", 3)
    knots = options.pop("knots", None)
    if not isinstance(degree, int) or not 1 <= degree <= MAX_DEGREE:
        raise ConfigError(f"{where}: {shorten(name)}: degree must be in [1, {MAX_DEGREE}]")
    if any(isinstance(value, list | tuple) for value in options.values()):
        raise ConfigError(f"{where}: {shorten(name)}: {', '.join(options)} must be a number, not a list")
    if knots is not None and set(options) & {"df", "num_knots"}:
        raise ConfigError(f"{where}: {shorten(name)}: give knots or how many, not both")
    quantiles = () if knots is not None else _knot_quantiles(name, basis == "rcs", options, degree, where)
    if quantiles and not isinstance(call.args[0], ast.Name):
        raise ConfigError(f"{where}: {shorten(name)}: give knots=[...] where the argument is no plain variable")
    bounds = (0.0, 0.0) if basis == "rcs" else _bounds(name, call.args[0], options, contract, where)
    places = None if knots is None else _knots(name, knots, basis == "rcs", where)
    if basis == "bs" and places and not bounds[0] < places[0] <= places[-1] < bounds[1]:
        raise ConfigError(
            f"{where}: {shorten(name)}: knots must lie between the bounds {bounds[0]:g} and {bounds[1]:g}"
        )
    return SplineFactor(
        name=name,
        expression=expression,
        basis="rcs" if basis == "rcs" else "bs",
        degree=degree,
        knots=places,
        knot_quantiles=quantiles,
        bounds=bounds,
    )


def _constant(node: ast.expr, where: str) -> Any:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        value = None
    numbers = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and abs(n) < 1e300 for n in numbers):
        raise ConfigError(f"{where}: options of splines must be numbers or lists of numbers")
    return value


def _knots(name: str, knots: Any, is_rcs: bool, where: str) -> tuple[float, ...]:
    values = tuple(float(knot) for knot in (knots if isinstance(knots, list | tuple) else [knots]))
    fewest = 3 if is_rcs else 0
    if list(values) != sorted(set(values)) or not fewest <= len(values) <= MAX_KNOTS:
        raise ConfigError(f"{where}: {shorten(name)}: knots must increase, {fewest} to {MAX_KNOTS} of them")
    return values


def _knot_quantiles(name: str, is_rcs: bool, options: dict[str, Any], degree: int, where: str) -> tuple[float, ...]:
    if is_rcs:
        num_knots = options.get("num_knots", 4)
        if num_knots not in _RCS_QUANTILES:
            raise ConfigError(f"{where}: {shorten(name)}: rcs takes 3 to 7 knots, or knots=[...]")
        return _RCS_QUANTILES[num_knots]
    df = options.get("df", degree)
    if not isinstance(df, int) or not degree <= df <= degree + MAX_KNOTS:
        raise ConfigError(f"{where}: {shorten(name)}: df must be in [{degree}, {degree + MAX_KNOTS}]")
    return tuple(float(q) for q in np.linspace(0, 1, df - degree + 2)[1:-1])


def _bounds(
    name: str, argument: ast.expr, options: dict[str, Any], contract: Contract, where: str
) -> tuple[float, float]:
    declared = contract.variable(argument.id, where).range if isinstance(argument, ast.Name) else None
    low, high = (
        options.get("lower_bound", declared and declared[0]),
        options.get("upper_bound", declared and declared[1]),
    )
    if low is None or high is None or not low < high:
        raise ConfigError(f"{where}: {shorten(name)}: give lower_bound and upper_bound, or a range in the contract")
    return float(low), float(high)


class _Stateful(ast.NodeTransformer):
    """Finds `center(x)` and `scale(x)` and leaves x in their place."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.to_center: list[str] = []
        self.to_scale: list[str] = []
        self._is_inside = False

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if function_name(node) not in _STATEFUL:
            return self.generic_visit(node)
        if self._is_inside or len(node.args) != 1 or node.keywords:
            raise ConfigError(f"{self.where}: write center(x) or scale(x), not nested, without options")
        self._is_inside = True
        inner: ast.AST = self.visit(node.args[0])
        self._is_inside = False
        text = to_text(node.args[0])
        self.to_center.append(text)
        if function_name(node) != "center":
            self.to_scale.append(text)
        return inner


class _Inline(ast.NodeTransformer):
    """Replaces `center(x)` by `x - mean` and `scale(x)` by `(x - mean) / deviation`."""

    def __init__(self, means: dict[str, float], deviations: dict[str, float]) -> None:
        self.means, self.deviations = means, deviations

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = function_name(node)
        if name not in _STATEFUL:
            return self.generic_visit(node)
        text = to_text(node.args[0])
        centred = ast.BinOp(left=node.args[0], op=ast.Sub(), right=_number(self.means[text]))
        if name == "center":
            return centred
        return ast.BinOp(left=centred, op=ast.Div(), right=_number(self.deviations[text]))


def _number(value: float) -> ast.expr:
    constant: ast.expr = ast.Constant(value=abs(value))
    return constant if value >= 0 else ast.UnaryOp(op=ast.USub(), operand=constant)


def to_text(tree: ast.expr) -> str:
    """An expression tree as text that `parse_expression` reads, odd names in backticks."""
    quoted = copy.deepcopy(tree)
    for node in ast.walk(quoted):
        if isinstance(node, ast.Name) and not is_plain(node.id):
            node.id = f"`{node.id}`"
    return ast.unparse(quoted)
