"""Which rows a study is about: an expression as SQL writes it after WHERE, over the contract's variables.

    age BETWEEN 18 AND 90 AND sex = 'F' AND admitted >= '2014-07-01' AND NOT (bmi IS NULL OR weight / height > 2)

It comes from outside, so no database runs it: it is parsed here into the few forms below, and NumPy works them
out on the site's checked table. What is no form of this grammar (a function, a subquery, a cast, a second
statement) does not exist, so there is nothing to escape to; and whether a form fails depends on no value.

    expression  := conjunction { OR conjunction }        conjunction := negation { AND negation }
    negation    := { NOT } predicate
    predicate   := sum [ comparison sum | IS [NOT] NULL | [NOT] IN ( literal {, literal} )
                         | [NOT] BETWEEN sum AND sum | [NOT] LIKE 'pattern' ]
    comparison  := = | <> | != | < | <= | > | >=
    sum         := product { (+ | -) product }           product := factor { (* | /) factor }
    factor      := - factor | literal | name | "name" | ( expression )
    literal     := [-] number | 'text' | [DATE] '2014-07-01' | TRUE | FALSE

A name that is a word of this grammar, such as date, or no word at all, stands in double quotes. As in SQL, what
compares with a missing value is unknown, and rows for which the expression is unknown are not in the cohort. A
division by zero is missing. A category compares with its levels, a date with an ISO date.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.data.cohort_forms import (
    Form,
    among,
    arithmetic,
    combined,
    compared,
    is_null,
    like,
    negated,
    variable_form,
)
from wardround.data.cohort_tokens import Token, tokens_of
from wardround.data.contract import Contract
from wardround.data.reading import day_of
from wardround.data.table import Table
from wardround.errors import ConfigError

MAX_DEPTH = 40
"""Deepest parentheses."""

MAX_LIST = 1_000
"""Most literals of one IN."""

MAX_SHOWN_NAME = 128
"""Longest unknown name that an error repeats in full (unit: characters)."""

_COMPARISONS = frozenset(("=", "<>", "!=", "<", "<=", ">", ">="))


@dataclass(frozen=True, slots=True)
class Cohort:
    """A cohort expression that fits a contract.

    Guarantees:
        sql_agrees: its rows are those of `SELECT ... WHERE expression` in a database.
        rows_are_a_subset: it can only leave rows out.
    """

    expression: str
    _form: Form

    @classmethod
    def parse(cls, expression: str, contract: Contract) -> Cohort:
        """Read an expression.

        Raises:
            ConfigError: it is not of the grammar, or does not fit the contract; says where and what to write.

        Guarantees:
            refuses_with_config_error: whatever the text, the outcome is a cohort or a `ConfigError`.
        """
        parser = _Parser(tokens_of(expression), contract)
        form = parser.expression()
        parser.expect_end()
        if form.kind != "truth":
            raise ConfigError(f"cohort: the expression is a {form.kind}, not a condition; compare it with something")
        return cls(expression, form)

    def rows(self, table: Table) -> NDArray[np.bool_]:
        """Which rows of a table are in the cohort; shape (num_records,)."""
        with np.errstate(all="ignore"):  # what overflows is infinite, what is undefined is missing
            truth = self._form.value(table)
        return np.broadcast_to(truth > 0, (table.num_records,)).copy()

    def of(self, table: Table) -> Table:
        """The part of a table that is in the cohort."""
        return table.take(self.rows(table))


class _Parser:
    """Recursive descent, one method a line of the grammar."""

    def __init__(self, tokens: tuple[Token, ...], contract: Contract) -> None:
        self._tokens = tokens
        self._contract = contract
        self._next = 0
        self._depth = 0

    def expression(self) -> Form:
        forms = [self._conjunction()]
        while self._takes("OR"):
            forms.append(self._conjunction())
        return forms[0] if len(forms) == 1 else self._checked(combined, forms, "OR")

    def expect_end(self) -> None:
        token = self._tokens[self._next]
        if token.kind != "end":
            raise self._error(token, "an operator, AND, OR or the end")

    def _conjunction(self) -> Form:
        forms = [self._negation()]
        while self._takes("AND"):
            forms.append(self._negation())
        return forms[0] if len(forms) == 1 else self._checked(combined, forms, "AND")

    def _negation(self) -> Form:
        num_nots = 0
        while self._takes("NOT"):
            num_nots += 1
        form = self._predicate()
        # Twice not is as it was; once asks for a condition.
        for _ in range(2 - num_nots % 2 if num_nots else 0):
            form = self._checked(negated, form)
        return form

    def _predicate(self) -> Form:
        left = self._sum()
        token = self._tokens[self._next]
        if token.kind == "mark" and token.text in _COMPARISONS:
            self._next += 1
            return self._checked(compared, left, self._sum(), token.text)
        if self._takes("IS"):
            is_not = self._takes("NOT")
            self._expect("NULL")
            form = self._checked(is_null, left)
            return self._checked(negated, form) if is_not else form
        is_not = self._takes("NOT")
        form = self._test(left, must_be=is_not)
        return self._checked(negated, form) if is_not else form

    def _test(self, left: Form, *, must_be: bool) -> Form:
        """What may follow a sum, with or without NOT before it."""
        if self._takes("IN"):
            return self._checked(among, left, self._list())
        if self._takes("BETWEEN"):
            low = self._sum()
            self._expect("AND")
            high = self._sum()
            at_least = self._checked(compared, left, low, ">=")
            return self._checked(combined, [at_least, self._checked(compared, left, high, "<=")], "AND")
        if self._takes("LIKE"):
            pattern = self._take()
            if pattern.kind != "text":
                raise self._error(pattern, "a pattern in single quotes")
            return self._checked(like, left, pattern.text)
        if must_be:
            raise self._error(self._tokens[self._next], "IN, BETWEEN or LIKE")
        return left

    def _list(self) -> list[Form]:
        self._expect("(")
        forms = [self._literal()]
        while self._takes(","):
            forms.append(self._literal())
        self._expect(")")
        if len(forms) > MAX_LIST:
            raise ConfigError(f"cohort: a list has at most {MAX_LIST} values")
        return forms

    def _sum(self) -> Form:
        form = self._product()
        while (mark := self._tokens[self._next].text) in ("+", "-") and self._takes(mark):
            form = self._checked(arithmetic, form, self._product(), mark)
        return form

    def _product(self) -> Form:
        form = self._factor()
        while (mark := self._tokens[self._next].text) in ("*", "/") and self._takes(mark):
            form = self._checked(arithmetic, form, self._factor(), mark)
        return form

    def _factor(self) -> Form:
        token = self._tokens[self._next]
        if token.kind == "name":
            self._next += 1
            return self._variable(token)
        if token.kind == "mark" and token.text in ("(", "-"):
            self._next += 1
            return self._nested(is_minus=token.text == "-")
        return self._literal()

    def _variable(self, token: Token) -> Form:
        if len(token.text) > MAX_SHOWN_NAME and token.text not in self._contract.names:
            raise self._error(token, "a variable of the contract")
        return variable_form(self._contract.variable(token.text, "cohort"))

    def _nested(self, *, is_minus: bool) -> Form:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ConfigError(f"cohort: parentheses are nested deeper than {MAX_DEPTH}; write it flatter")
        if is_minus:
            form = self._checked(arithmetic, Form.constant("number", 0.0), self._factor(), "-")
        else:
            form = self.expression()
            self._expect(")")
        self._depth -= 1
        return form

    def _literal(self) -> Form:
        is_negative = self._takes("-")
        token = self._take()
        if token.kind == "number":
            number = float(token.text)
            return Form.constant("number", -number if is_negative else number)
        if is_negative:
            raise self._error(token, "a number")
        if token.kind == "keyword" and token.text in ("TRUE", "FALSE"):
            return Form.constant("truth", 1.0 if token.text == "TRUE" else -1.0)
        if token.kind == "keyword" and token.text == "DATE":
            token = self._take()
            day = day_of(token.text) if token.kind == "text" else None
            if day is None:
                raise self._error(token, "an ISO date such as '2014-07-01'")
            return Form.constant("date", day)
        if token.kind == "text":
            return Form.of_text(token.text)
        raise self._error(token, "a variable, a number, a text in single quotes or a parenthesis")

    def _checked(self, make: Callable[..., Form], *parts: object) -> Form:
        """Build a form; a part of the wrong kind is reported with the place."""
        try:
            return make(*parts)
        except ValueError as error:
            place = self._tokens[self._next - 1].position
            raise ConfigError(f"cohort, near character {place}: {error}{self._advice()}") from None

    def _take(self) -> Token:
        token = self._tokens[self._next]
        if token.kind != "end":
            self._next += 1
        return token

    def _takes(self, text: str) -> bool:
        token = self._tokens[self._next]
        if token.kind in ("keyword", "mark") and token.text == text:
            self._next += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._takes(text):
            raise self._error(self._tokens[self._next], text)

    def _error(self, token: Token, wanted: str) -> ConfigError:
        shown = token.text if len(token.text) <= 40 else f"{token.text[:40]}..."
        found = shown if token.kind == "end" else repr(shown)
        return ConfigError(f"cohort, character {token.position}: expected {wanted}, got {found}{self._advice()}")

    def _advice(self) -> str:
        """What to write where a keyword of the expression is a variable's name as well."""
        keywords = {token.text for token in self._tokens if token.kind == "keyword"}
        names = [variable.name for variable in self._contract.variables if variable.name.upper() in keywords]
        return "".join(f'; the variable {name!r} is written "{name}", in double quotes' for name in names)
