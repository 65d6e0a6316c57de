"""Numbered references: "(Cox 1972)" in a methods text becomes the number of the paper in the report's bibliography."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

Piece: TypeAlias = "str | tuple[int, ...]"
"""A part of a paragraph: text, or the numbers of the papers that are cited."""

_CITATION = re.compile(r"\s*\(([^()]*\b(?:1[89]|20)\d\d[a-z]?)\)")
_YEAR = re.compile(r"\b((?:1[89]|20)\d\d)[a-z]?\b")
_PAGES = re.compile(r"(?<=\d)-(?=\d)")
_WORD = re.compile(r"[^\W\d_]{4,}")
_LEAST_SHARED = 0.5
"""Part of the words of two references of one author and year from which on they are taken as one paper."""


@dataclass(slots=True)
class Bibliography:
    """The papers of a report in the order in which they are first cited.

    Guarantees:
        a_paper_is_listed_once: references of one first author and year that share their words get one number.
    """

    papers: list[str] = field(default_factory=list)

    def number_of(self, reference: str) -> int:
        """The number of a paper, which is added where it is new; from 1."""
        for index, known in enumerate(self.papers):
            if _is_same(known, reference):
                return index + 1
        self.papers.append(_PAGES.sub("\N{EN DASH}", " ".join(reference.split())))
        return len(self.papers)


def _is_same(one: str, other: str) -> bool:
    if _author(one) != _author(other) or _years(one).isdisjoint(_years(other)):
        return False
    words, others = ({word.casefold() for word in _WORD.findall(text)} for text in (one, other))
    return len(words & others) >= _LEAST_SHARED * min(len(words), len(others))


def _author(reference: str) -> str:
    return re.split(r"[\s,]", reference.strip().casefold(), maxsplit=1)[0]


def _years(text: str) -> set[str]:
    return set(_YEAR.findall(text))


def cited(text: str, references: Sequence[str], bibliography: Bibliography) -> tuple[Piece, ...]:
    """A paragraph with the numbers of its papers.

    Args:
        text: cites by name and year in parentheses; what fits no reference stays as it is.
        references: the papers behind the text; those that it does not cite are cited at its end.
        bibliography: takes up the papers.
    """
    pieces: list[Piece] = []
    used: set[str] = set()
    end = 0
    for match in _CITATION.finditer(text):
        parts = [part.strip() for part in match[1].split(";")]
        found = [_reference(part, references) for part in parts if _YEAR.search(part)]
        papers = [paper for paper in found if paper is not None]
        if len(papers) < len(found):
            continue
        words = "; ".join(part for part in parts if not _YEAR.search(part))
        pieces += [text[end : match.start()] + f" ({words})" * bool(words), _numbers(papers, bibliography)]
        used.update(papers)
        end = match.end()
    rest = [reference for reference in references if reference not in used]
    pieces.append(text[end:])
    return (*pieces, *([_numbers(rest, bibliography)] if rest else []))


def _numbers(papers: Iterable[str], bibliography: Bibliography) -> tuple[int, ...]:
    return tuple(sorted({bibliography.number_of(paper) for paper in papers}))


def _reference(citation: str, references: Sequence[str]) -> str | None:
    """The reference that begins with the name that is cited, and holds the year."""
    years = _years(citation)
    name = _YEAR.split(citation)[0].casefold().replace("see ", "").strip(" ,").split()
    for length in range(len(name), 0, -1):  # "van der Vaart" before "van"
        for reference in references:
            if reference.casefold().startswith(" ".join(name[:length]).rstrip(",")) and years <= _years(reference):
                return reference
    return None
