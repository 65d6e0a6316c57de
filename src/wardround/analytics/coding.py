"""Which categories of a design drop their reference level, so that no column is a combination of others.

The rule is that of formulaic and patsy: a term's categories span every product of their reduced codings; what
earlier terms span already is left out; what is left is merged into as few full codings as it makes.

References:
    Wilkinson & Rogers (1973), Applied Statistics 22, 392-399 (the algebra).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple, TypeAlias

from wardround.errors import ConfigError

MAX_CATEGORIES = 8
"""Most categories in one term."""
MAX_PRODUCTS = 20_000
"""Most products of reduced codings that all terms together may span."""


class Coded(NamedTuple):
    """A factor by its name, and whether it drops its reference level."""

    name: str
    is_reduced: bool


Product: TypeAlias = tuple[Coded, ...]


def full_rank_coding(terms: Sequence[tuple[str, ...]], categories: frozenset[str]) -> list[list[Product]]:
    """The products of codings that each term is made of.

    Args:
        terms: each term's factors by name; the intercept has none.
        categories: which factors have levels; the others are numbers.

    Raises:
        ConfigError: too many categories in one term, or too many products altogether.
    """
    sizes = [sum(name in categories for name in term) for term in terms]
    if max(sizes, default=0) > MAX_CATEGORIES or sum(2**size for size in sizes) > MAX_PRODUCTS:
        raise ConfigError(
            f"interactions of more than {MAX_CATEGORIES} categories, or of {MAX_PRODUCTS} codings in all, "
            "are not offered; write fewer products"
        )
    spanned: set[frozenset[Coded]] = set()
    coded = []
    for term in terms:
        new = [made for made in _span(term, categories) if frozenset(made) not in spanned]
        spanned.update(map(frozenset, new))
        coded.append(_merged(new))
    return coded


def _span(term: tuple[str, ...], categories: frozenset[str]) -> Iterable[Product]:
    choices = [
        (Coded(name, is_reduced=True), None) if name in categories else (Coded(name, is_reduced=False),)
        for name in term
    ]
    return (tuple(coded for coded in chosen if coded is not None) for chosen in product(*choices))


def _merged(products: Iterable[Product]) -> list[Product]:
    """Apply `anything + anything:reduced = anything:full` until it no longer applies."""
    kept: list[Product] = []
    for made in sorted(products, key=len):
        found = next((other for other in kept if _absorbs(made, other)), None)
        if found is None:
            kept.append(made)
            continue
        (extra,) = set(made) - set(found)
        full = tuple(Coded(coded.name, coded.is_reduced and coded != extra) for coded in made)
        kept = _merged([*(other for other in kept if other is not found), full])
    return kept


def _absorbs(longer: Product, shorter: Product) -> bool:
    extra = set(longer) - set(shorter)
    return len(longer) == len(shorter) + 1 and len(extra) == 1 and next(iter(extra)).is_reduced
