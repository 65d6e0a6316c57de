"""The forms of a cohort expression: what each is made of, and how NumPy works it out on a table.

A truth is 1 (true), 0 (unknown) or -1 (false), so that AND is the minimum, OR the maximum, NOT the negative.
A number or date is a float64, NaN where missing. A category is a code, -1 where missing.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wardround.data.contract import Variable
from wardround.data.reading import day_of, number_of, number_text
from wardround.data.table import Table

FormKind: TypeAlias = Literal["number", "date", "category", "truth", "text"]
_Values: TypeAlias = NDArray[Any]

MAX_FORM_DEPTH = 200
"""Most operations of an expression that stand within one another."""

_ORDERED: dict[str, Callable[[_Values, _Values], _Values]] = {
    "=": np.equal,
    "<>": np.not_equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


def _quotient(left: _Values, right: _Values) -> _Values:
    return np.where(right == 0, np.nan, np.divide(left, right))


_WORK: dict[str, Callable[[_Values, _Values], _Values]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": _quotient,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A part of an expression.

    Attributes:
        kind: of its values.
        value: works it out; shape (num_records,), or () for a constant.
        levels: of a category.
        text: of a literal text, whose meaning depends on what it is compared with.
        number: of a literal number.
        name: of the variable, for messages.
        depth: how many forms stand within one another.
    """

    kind: FormKind
    value: Callable[[Table], _Values]
    levels: tuple[str, ...] = ()
    text: str | None = None
    number: float | None = None
    name: str = "this"
    depth: int = 1

    @classmethod
    def constant(cls, kind: FormKind, number: float) -> Form:
        """A literal number, date or truth."""
        return cls(kind=kind, value=lambda _: np.asarray(number), number=number if kind == "number" else None)

    @classmethod
    def of_text(cls, text: str) -> Form:
        """A literal text."""
        return cls(kind="text", value=lambda _: np.asarray(np.nan), text=text)


def variable_form(variable: Variable) -> Form:
    """The form of a variable's name; a boolean is a truth.

    Raises:
        ValueError: the variable is text.
    """
    name = variable.name
    if variable.type == "boolean":
        return Form(kind="truth", value=lambda table: _truth_of_codes(table.codes(name)), name=repr(name))
    if variable.type == "category":
        return Form(
            kind="category", value=lambda table: table.codes(name), levels=variable.levels or (), name=repr(name)
        )
    kind: FormKind = "date" if variable.type == "date" else "text" if variable.type == "text" else "number"
    return Form(kind=kind, value=lambda table: table.numbers(name), name=repr(name))


def negated(form: Form) -> Form:
    """NOT. Raises `ValueError` where the form is no condition."""
    _ask_for_truth(form, "NOT")
    return Form(kind="truth", value=lambda table: -form.value(table), depth=_depth(form))


def combined(forms: Sequence[Form], word: str) -> Form:
    """All of them joined by AND or OR. Raises `ValueError` where one is no condition."""
    work: Callable[[_Values, _Values], _Values] = np.minimum if word == "AND" else np.maximum
    for form in forms:
        _ask_for_truth(form, word)

    def value(table: Table) -> _Values:
        return functools.reduce(work, (form.value(table) for form in forms))

    return Form(kind="truth", value=value, depth=_depth(*forms))


def is_null(form: Form) -> Form:
    """IS NULL."""
    if form.kind == "truth":
        return _truth(form, _is_zero)
    if form.kind == "category":
        return _truth(form, lambda codes: codes < 0)
    if form.text is not None:
        return Form.constant("truth", -1.0)
    return _truth(form, np.isnan)


def arithmetic(left: Form, right: Form, mark: str) -> Form:
    """Sum, difference, product or quotient; dates may be subtracted, and shifted by days.

    Raises:
        ValueError: a side is of another kind.
    """
    kinds = (left.kind, right.kind)
    kind: FormKind | None = "number" if kinds == ("number", "number") else None
    if mark == "-" and kinds == ("date", "date"):
        kind = "number"
    elif mark in "+-" and kinds == ("date", "number"):
        kind = "date"
    if kind is None:
        raise ValueError(f"{left.name} and {right.name} are {left.kind} and {right.kind}, for which there is no {mark}")
    work = _WORK[mark]
    depth = _depth(left, right)
    return Form(kind=kind, value=lambda table: work(left.value(table), right.value(table)), depth=depth)


def compared(left: Form, right: Form, mark: str) -> Form:
    """A comparison; literal texts are read as what they are compared with.

    Raises:
        ValueError: the sides are of kinds that do not compare.
    """
    if left.kind == "category" or right.kind == "category":
        return _compared_levels(left, right, mark)
    left, right = _as_date(left, right), _as_date(right, left)
    if left.kind != right.kind or left.kind == "text":
        raise ValueError(f"{_described(left)} does not compare with {_described(right)}")
    if left.kind == "truth" and mark not in ("=", "<>", "!="):
        raise ValueError(f"conditions compare with = and <> only, not with {mark}")
    work = _ORDERED[mark]
    unknown = _is_zero if left.kind == "truth" else np.isnan

    def value(table: Table) -> _Values:
        one, other = left.value(table), right.value(table)
        return np.where(unknown(one) | unknown(other), 0, np.where(work(one, other), 1, -1))

    return Form(kind="truth", value=value, depth=_depth(left, right))


def among(left: Form, literals: list[Form]) -> Form:
    """IN. Raises `ValueError` as `compared` does."""
    return combined([compared(left, literal, "=") for literal in literals], "OR")


def like(left: Form, pattern: str) -> Form:
    """LIKE on a category's levels, where % stands for any characters and _ for one.

    Raises:
        ValueError: not a category.
    """
    if left.kind != "category":
        raise ValueError(f"LIKE is for categories, {_described(left)} is none")
    return _by_level(left, [matches(level, pattern) for level in left.levels])


def matches(text: str, pattern: str) -> bool:
    """Whether a text matches a LIKE pattern; takes at most len(text) * len(pattern) steps."""
    reached = {0}
    for mark in pattern:
        if mark == "%":
            reached = set(range(min(reached), len(text) + 1)) if reached else set()
        else:
            reached = {at + 1 for at in reached if at < len(text) and mark in ("_", text[at])}
    return len(text) in reached


def _compared_levels(left: Form, right: Form, mark: str) -> Form:
    """A category with a literal level."""
    category, literal = (left, right) if left.kind == "category" else (right, left)
    level = number_text(literal.number) if literal.number is not None else literal.text
    if level is None or mark not in ("=", "<>", "!="):
        raise ValueError(f"{category.name} is a category, which compares with one of its levels by = and <> only")
    if level not in category.levels:
        same = [
            known for known in category.levels if number_of(known) is not None and number_of(known) == number_of(level)
        ]
        if not same:
            close = difflib.get_close_matches(level[:256], category.levels, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(map(repr, category.levels[:10]))}"
            raise ValueError(f"{category.name} has no level {level[:40]!r}; {hint}")
        level = same[0]
    return _by_level(category, [(known == level) == (mark == "=") for known in category.levels])


def _by_level(category: Form, holds: list[bool]) -> Form:
    truths = np.array([*(1 if one else -1 for one in holds), 0])  # the code -1, missing, finds the last
    return Form(kind="truth", value=lambda table: truths[category.value(table)])


def _as_date(form: Form, other: Form) -> Form:
    """A literal text beside a date is a date."""
    if form.text is None or other.kind != "date":
        return form
    day = day_of(form.text.strip())
    if day is None:
        raise ValueError(f"{form.text[:40]!r} is not an ISO date such as '2014-07-01'")
    return Form.constant("date", day)


def _ask_for_truth(form: Form, word: str) -> None:
    if form.kind != "truth":
        raise ValueError(f"{word} needs a condition, {_described(form)} is none; compare it with something")


def _described(form: Form) -> str:
    if form.text is not None:
        return "a text"
    return f"{form.name} (text, which is not analysed)" if form.kind == "text" else f"{form.name} ({form.kind})"


def _truth(form: Form, holds: Callable[[_Values], _Values]) -> Form:
    return Form(kind="truth", value=lambda table: np.where(holds(form.value(table)), 1, -1), depth=_depth(form))


def _depth(*forms: Form) -> int:
    """Depth of a form made of these.

    Raises:
        ValueError: deeper than what Python's stack surely bears.
    """
    depth = 1 + max(form.depth for form in forms)
    if depth > MAX_FORM_DEPTH:
        raise ValueError(f"more than {MAX_FORM_DEPTH} operations stand within one another; write it flatter")
    return depth


def _truth_of_codes(codes: _Values) -> _Values:
    return np.where(codes < 0, 0, 2 * codes - 1)


def _is_zero(values: _Values) -> _Values:
    return np.equal(values, 0)
