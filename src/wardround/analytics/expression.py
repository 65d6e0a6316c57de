"""Arithmetic on columns, written as text that came from outside: parsed, checked against an allow-list, evaluated.

Nothing is ever passed to Python's own evaluator. An expression is numbers, variables, `+ - * / **`,
comparisons (1 where true, 0 where false) and the functions below; anything else is refused by name.
"""

from __future__ import annotations

import ast
import keyword
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from wardround.errors import ConfigError

MAX_EXPRESSION_CHARACTERS = 2_000
"""Longest expression (unit: characters)."""
MAX_EXPRESSION_NODES = 500
"""Most operations and operands in one expression."""
MAX_DEPTH = 50
"""Deepest nesting of one expression."""
MAX_POWER = 10.0
"""Largest constant exponent in size."""
_STAND_IN = "_quoted_"
# A string, a name in backticks, a word, and what starts a comment or an escape in Python.
_PIECES = re.compile(r"""(?P<string>'[^']*'|"[^"]*")|`(?P<quoted>[^`]*)`|(?P<word>[^\W\d]\w*)|(?P<refused>[`#\\])""")

Values = NDArray[np.float64]

FUNCTIONS: Mapping[str, Callable[[Values], Values]] = MappingProxyType(
    {
        "log": np.log,
        "log2": np.log2,
        "log10": np.log10,
        "log1p": np.log1p,
        "exp": np.exp,
        "expm1": np.expm1,
        "sqrt": np.sqrt,
        "abs": np.abs,
        "I": lambda values: values,
    }
)
_BINARY: Mapping[type[ast.operator], Callable[[Values, Values], Values]] = MappingProxyType(
    {ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.divide, ast.Pow: np.power}
)
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Values, Values], NDArray[np.bool_]]] = MappingProxyType(
    {
        ast.Lt: np.less,
        ast.LtE: np.less_equal,
        ast.Gt: np.greater,
        ast.GtE: np.greater_equal,
        ast.Eq: np.equal,
        ast.NotEq: np.not_equal,
    }
)


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked expression.

    Guarantees:
        runs_only_the_allow_list: parsing refuses every construct that `evaluate` does not carry out itself.
    """

    text: str
    tree: ast.expr
    variables: tuple[str, ...]

    def evaluate(self, numbers: Callable[[str], Values]) -> Values:
        """Values by row, NaN where a variable is missing.

        Args:
            numbers: gives a variable's values, each of one shape (num_records,).
        """
        with np.errstate(all="ignore"):  # what is not finite is found and reported by whoever uses it
            return np.asarray(_evaluate(self.tree, numbers), dtype=np.float64)


def parse_expression(text: str, where: str = "formula") -> Expression:
    """Parse and check an expression; column names that are no Python names stand in backticks.

    Raises:
        ConfigError: not allowed; says what, and what is.
    """
    try:
        return _parse(text)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


@lru_cache(maxsize=256)
def _parse(text: str) -> Expression:
    if len(text) > MAX_EXPRESSION_CHARACTERS:
        raise ConfigError(f"an expression may have {MAX_EXPRESSION_CHARACTERS} characters, this one has {len(text)}")
    source, quoted = unquote(text)
    tree = rename(parse_python(source, text), quoted)
    variables: dict[str, None] = {}
    _check(tree, text, variables, 0)
    return Expression(text, tree, tuple(variables))


def parse_python(source: str, text: str) -> ast.expr:
    """Python's syntax tree of an expression; nothing is run.

    Raises:
        ConfigError: it does not parse, or is too large.
    """
    try:
        tree = ast.parse(source.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"cannot read {shorten(text)!r}: check brackets, quotes and operators") from error
    if sum(1 for _ in ast.walk(tree)) > 3 * MAX_EXPRESSION_NODES:
        raise ConfigError(f"{shorten(text)!r} is too long: at most {MAX_EXPRESSION_NODES} operations")
    return tree


def shorten(text: str) -> str:
    """At most 80 characters of a text that came from outside, for an error message."""
    return text if len(text) <= 80 else text[:77] + "..."


def is_plain(name: str) -> bool:
    """Whether Python reads this name as itself: other alphabets are normalised, and keywords are none."""
    return name.isascii() and name.isidentifier() and not keyword.iskeyword(name)


def unquote(text: str) -> tuple[str, dict[str, str]]:
    """Replace each name that Python would not read as itself by one of our own.

    Such are names in backticks, words of other alphabets and keywords.

    Returns:
        The text, and the names by stand-in; equal names have one stand-in.

    Raises:
        ConfigError: an empty or open backtick, a comment, a backslash, or a name that looks like a stand-in.
    """
    if _STAND_IN in text:
        raise ConfigError(f"names may not contain {_STAND_IN!r}")
    stand_ins: dict[str, str] = {}

    def replaced(piece: re.Match[str]) -> str:
        if piece["refused"] or piece["quoted"] == "":
            raise ConfigError(
                f"a backtick is not closed or empty, or there is a # or a backslash, in {shorten(text)!r}"
            )
        name = piece["word"] if piece["quoted"] is None else piece["quoted"]
        if name is None or is_plain(name) or piece["word"] in ("True", "False", "None"):
            return name or piece[0]
        return stand_ins.setdefault(unicodedata.normalize("NFC", name), f"{_STAND_IN}{len(stand_ins)}_")

    source = _PIECES.sub(replaced, text)
    return source, {stand_in: name for name, stand_in in stand_ins.items()}


def requote(source: str, quoted: Mapping[str, str]) -> str:
    """The inverse of `unquote`: the names back in the text, in backticks where they are no words."""
    for stand_in, name in quoted.items():
        is_word = name.isidentifier() and not keyword.iskeyword(name)
        source = source.replace(stand_in, name if is_word else f"`{name}`")
    return source


def rename(tree: ast.expr, quoted: Mapping[str, str]) -> ast.expr:
    """Put the names back that `unquote` took out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in quoted:
            node.id = quoted[node.id]
    return tree


def function_name(call: ast.Call) -> str | None:
    """`log` of `log(...)` and of `np.log(...)`; None for anything that is no plain call of a name."""
    function = call.func
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "np":
        return function.attr
    return function.id if isinstance(function, ast.Name) else None


def _check(node: ast.expr, text: str, variables: dict[str, None], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ConfigError(f"{shorten(text)!r} is nested more than {MAX_DEPTH} deep")
    for child in _operands(node, text):
        _check(child, text, variables, depth + 1)
    if isinstance(node, ast.Name):
        variables[node.id] = None


def _operands(node: ast.expr, text: str) -> list[ast.expr]:
    """The node's operands, if the node itself is allowed."""
    match node:
        case ast.Name():
            return []
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool) and abs(value) < 1e300:
            return []
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return [operand]
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            _check_power(right, text)
            return [left, right]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return [left, right]
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARISONS:
            return [left, right]
        case ast.Call(args=[argument], keywords=[]) if function_name(node) in FUNCTIONS:
            return [argument]
        case ast.Call():
            raise ConfigError(
                f"{shorten(ast.unparse(node))!r} is not allowed; functions of one variable: {', '.join(FUNCTIONS)}"
            )
    hint = "; put a name that has a dot in backticks" if isinstance(node, ast.Attribute) else ""
    raise ConfigError(
        f"{type(node).__name__} is not allowed in {shorten(text)!r}; write numbers, variables, "
        f"+ - * / **, a comparison, and {', '.join(FUNCTIONS)}{hint}"
    )


def _check_power(exponent: ast.expr, text: str) -> None:
    number = exponent.operand if isinstance(exponent, ast.UnaryOp) else exponent
    if not (isinstance(number, ast.Constant) and isinstance(number.value, int | float) and number.value <= MAX_POWER):
        raise ConfigError(f"{shorten(text)!r}: an exponent must be a number of at most {MAX_POWER:g} in size")


def _evaluate(node: ast.expr, numbers: Callable[[str], Values]) -> Values:
    """Carry out what `_check` let through."""
    match node:
        case ast.Name(id=name):
            return numbers(name)
        case ast.Constant(value=int() | float() as value):
            return np.float64(value)  # type: ignore[return-value]  # broadcasts as an array does
        case ast.UnaryOp(op=op, operand=operand):
            values = _evaluate(operand, numbers)
            return -values if isinstance(op, ast.USub) else values
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_evaluate(left, numbers), _evaluate(right, numbers))
        case ast.Compare(left=left, ops=[comparison], comparators=[right]):
            first, second = _evaluate(left, numbers), _evaluate(right, numbers)
            is_true = _COMPARISONS[type(comparison)](first, second).astype(np.float64)
            return np.where(np.isnan(first) | np.isnan(second), np.nan, is_true)
        case ast.Call(args=[argument]):
            return FUNCTIONS[function_name(node) or ""](_evaluate(argument, numbers))
    raise AssertionError("unreachable: the expression was checked")
