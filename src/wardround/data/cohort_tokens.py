"""A cohort expression cut into tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from wardround.data.reading import clean_text
from wardround.errors import ConfigError

MAX_COHORT_CHARACTERS = 10_000
"""Longest cohort expression (unit: characters)."""
MAX_COHORT_TOKENS = 2_000
"""Most words, literals and marks of a cohort expression; the work on a row grows with them."""

KEYWORDS = frozenset(("AND", "OR", "NOT", "IS", "NULL", "IN", "BETWEEN", "LIKE", "TRUE", "FALSE", "DATE"))

TokenKind: TypeAlias = Literal["number", "text", "name", "keyword", "mark", "end"]

_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<number>(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?(?![\w.]))"
    r"|'(?P<text>(?:[^']|'')*)'"
    r'|"(?P<quoted>(?:[^"]|"")+)"'
    r"|(?P<word>[^\W\d]\w*)"
    r"|(?P<mark><=|>=|<>|!=|-(?!-)|[=<>+*/(),])"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A piece of the expression; `position` counts characters from 1."""

    kind: TokenKind
    text: str
    position: int


def tokens_of(expression: str) -> tuple[Token, ...]:
    """The tokens, the last of which is the end.

    Raises:
        ConfigError: too long, or a character that no token begins with; says where.
    """
    if len(expression) > MAX_COHORT_CHARACTERS:
        raise ConfigError(f"cohort: an expression has at most {MAX_COHORT_CHARACTERS} characters")
    found: list[Token] = []
    begin = 0
    while begin < len(expression):
        match = _TOKEN.match(expression, begin)
        if match is None:
            raise ConfigError(f"cohort, character {begin + 1}: {_refused(expression[begin : begin + 2])}")
        if match.lastgroup != "space":
            found.append(_token(match, begin + 1))
        begin = match.end()
    if len(found) > MAX_COHORT_TOKENS:
        raise ConfigError(f"cohort: an expression has at most {MAX_COHORT_TOKENS} words and marks")
    return (*found, Token(kind="end", text="the end", position=len(expression) + 1))


def _refused(begin: str) -> str:
    # SQL leaves out what follows, and would not mean what the arithmetic means.
    if begin == "--":
        return "'--' begins a comment in SQL, and there are none here; of two minus signs, set the second apart: - -"
    return f"{begin[0]!r} has no meaning here"


def _token(match: re.Match[str], position: int) -> Token:
    group = str(match.lastgroup)
    text = match[group]
    if group == "word" and text.upper() in KEYWORDS:
        return Token(kind="keyword", text=text.upper(), position=position)
    if group in ("word", "quoted"):
        return Token(kind="name", text=clean_text(text.replace('""', '"')), position=position)
    if group == "text":
        return Token(kind="text", text=text.replace("''", "'"), position=position)
    return Token(kind="number" if group == "number" else "mark", text=text, position=position)
