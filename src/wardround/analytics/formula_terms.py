"""From a formula's text to its terms: Wilkinson's algebra by formulaic, behind a gate for its tokens.

Formulaic reads some texts otherwise than R and patsy do: `(a - 1)` keeps the intercept, `a :+ b` becomes
`a + b`, `a %in% b` has a main effect. The gate lets through only what all of them read alike, so that an
accepted formula means what its author meant. Names travel through the parser as stand-ins of our own.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from formulaic.errors import FormulaicError
from formulaic.parser import DefaultFormulaParser
from formulaic.parser.algos.tokenize import tokenize
from formulaic.parser.types import ASTNode, Factor, Term, Token

from wardround.analytics.expression import requote, shorten, unquote
from wardround.errors import ConfigError

MAX_FORMULA_CHARACTERS = 20_000
"""Longest formula (unit: characters)."""
MAX_TERMS = 2_000
"""Most terms that a formula may expand to."""
MAX_BRACKETS = 50
"""Deepest nesting of a formula's brackets."""

_OPERATORS = ("+", "-", "*", "/", ":", "**")
_ADDITIVE = ("~", "~+", "~-", "+", "-")
_UNREADABLE = (FormulaicError, SyntaxError, ValueError, TypeError, AttributeError, KeyError, IndexError)


@dataclass(frozen=True, slots=True)
class FormulaTerms:
    """A formula's outcome and the terms of its right side, the intercept a term without factors.

    Attributes:
        outcome: the left side.
        terms: of the right side, each with its factors, without repetition.
        quoted: the names that stand-ins stand for.
    """

    outcome: Factor
    terms: tuple[tuple[Factor, ...], ...]
    quoted: Mapping[str, str]

    def label(self, factor: Factor) -> str:
        """A factor as its author would write it."""
        if factor.eval_method is Factor.EvalMethod.LOOKUP:
            return self.quoted.get(factor.expr, factor.expr)
        return requote(factor.expr, self.quoted)


def split_formula(text: str, where: str) -> FormulaTerms:
    """Parse a formula and expand it to its terms, within bounds.

    Raises:
        ConfigError: it does not parse, is too large, or holds what is not allowed.
    """
    if len(text) > MAX_FORMULA_CHARACTERS:
        raise ConfigError(f"{where}: a formula may have {MAX_FORMULA_CHARACTERS} characters, this has {len(text)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Python warns of what it half understands
            source, quoted = unquote(text)
            _check_tokens(source, text)
            outcome, right = _expand(source, text)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except (*_UNREADABLE, Warning) as error:
        raise ConfigError(f"{where}: cannot read {shorten(text)!r} as a formula") from error
    except (RecursionError, MemoryError) as error:
        raise ConfigError(f"{where}: the formula is nested too deeply") from error
    terms = (tuple(f for f in term.factors if f.eval_method is not Factor.EvalMethod.LITERAL) for term in right)
    return FormulaTerms(outcome, tuple(terms), quoted)


def _expand(source: str, text: str) -> tuple[Factor, list[Term]]:
    parser = DefaultFormulaParser(feature_flags=DefaultFormulaParser.FeatureFlags.TWOSIDED)
    context: dict[str, Any] = {}
    tree = parser.get_ast(source, context=context)
    if not isinstance(tree, ASTNode) or tree.operator.symbol != "~":
        raise ConfigError(f"write 'outcome ~ predictors', got {shorten(text)!r}")
    if _num_terms(tree) > MAX_TERMS:
        raise ConfigError(f"the formula expands to more than {MAX_TERMS} terms; write fewer products")
    sides = parser.get_terms_from_ast(tree, context=context)
    (outcome,) = sides.lhs
    # As R does, main effects come before interactions.
    return outcome.factors[0], sorted(sides.rhs, key=lambda term: term.degree)


def _check_tokens(source: str, text: str) -> None:
    """Let through only sequences of tokens that R, patsy and formulaic read alike."""
    tokens = [*tokenize(source), Token()]
    _check_sides(tokens, text)
    before, depth = "", 0
    for token, after in pairwise(tokens):
        if token.kind is Token.Kind.OPERATOR:
            _check_operator(token, before, text)
        elif token.kind is Token.Kind.CONTEXT:
            depth += {"(": 1, ")": -1}.get(token.token, MAX_BRACKETS + 1)
            if depth > MAX_BRACKETS:
                raise ConfigError(f"brackets are ( ), nested at most {MAX_BRACKETS} deep, not as in {shorten(text)!r}")
        elif token.kind is Token.Kind.VALUE:
            _check_number(token.token, before, after, depth, text)
        before = token.token if token.kind in (Token.Kind.OPERATOR, Token.Kind.CONTEXT) else "operand"


def _check_sides(tokens: list[Token], text: str) -> None:
    tildes = [i for i, token in enumerate(tokens) if token.kind is Token.Kind.OPERATOR and token.token[:1] == "~"]
    if len(tildes) != 1 or tildes[0] == 0:
        raise ConfigError(f"write 'outcome ~ predictors', got {shorten(text)!r}")
    if tildes[0] != 1 or tokens[0].kind not in (Token.Kind.NAME, Token.Kind.PYTHON):
        raise ConfigError("the left side must be one outcome, as in 'outcome ~ age + sex'")


def _check_operator(token: Token, before: str, text: str) -> None:
    symbol = token.token
    is_known = symbol in _OPERATORS or symbol in _ADDITIVE
    if not is_known or (token.source or "")[token.source_start or 0] == "%":
        raise ConfigError(f"the operator {shorten(symbol)!r} is not allowed; use + - : * / and **")
    if before not in ("operand", ")"):
        raise ConfigError(f"{symbol!r} stands where a variable should, in {shorten(text)!r}")


def _check_number(number: str, before: str, after: Token, depth: int, text: str) -> None:
    """A number is an exponent, or the intercept outside of all brackets."""
    if before == "**":
        if number not in ("1", "2", "3", "4"):
            raise ConfigError("the exponent of ** must be 1, 2, 3 or 4")
    elif number == ".":
        raise ConfigError("the operator '.' is not allowed; write the variables' names")
    elif number not in ("0", "1"):
        raise ConfigError(
            f"cannot read {shorten(number)!r} in {shorten(text)!r}: a number may not scale a term; write I(2 * age)"
        )
    elif depth or before not in _ADDITIVE or after.token not in ("", "+", "-"):
        raise ConfigError(f"write the intercept, 1 or 0, outside of brackets and products, not as in {shorten(text)!r}")


def _num_terms(tree: ASTNode[Any]) -> int:
    """An upper bound of the number of terms a parsed formula expands to; without recursion, as sums nest deeply."""
    counts: dict[int, int] = {}
    for node in _children_first(tree):
        counts[id(node)] = _expansion(node, counts) if isinstance(node, ASTNode) else 1
    return counts[id(tree)]


def _children_first(tree: ASTNode[Any]) -> Iterator[Any]:
    stack: list[tuple[Any, bool]] = [(tree, False)]
    while stack:
        node, is_ready = stack.pop()
        if is_ready or not isinstance(node, ASTNode):
            yield node
        else:
            stack += [(node, True), *((argument, False) for argument in node.args)]


def _expansion(node: ASTNode[Any], counts: Mapping[int, int]) -> int:
    arguments = list(node.args)
    parts = [counts[id(argument)] for argument in arguments]
    symbol = node.operator.symbol
    if symbol == "**":
        exponent = str(arguments[1])
        if exponent not in ("1", "2", "3", "4"):
            raise ConfigError("the exponent of ** must be 1, 2, 3 or 4")
        return int(min(parts[0] ** int(exponent), MAX_TERMS + 1))
    return min((math.prod(parts) if symbol in (":", "*", "/") else 0) + sum(parts), MAX_TERMS + 1)
