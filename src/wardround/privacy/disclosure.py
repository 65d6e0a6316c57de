"""Disclosure control of counts: what is shown of a number of people that is small.

Pure. A count of zero tells of nobody and is shown; one from 1 to the floor less 1 could point at somebody.
"""

from __future__ import annotations

DEFAULT_MINIMUM_CELL = 5
"""Least count, other than 0, that is shown (unit: rows or people)."""


def is_small(count: int, minimum_cell: int = DEFAULT_MINIMUM_CELL) -> bool:
    """Whether a count must be hidden: `0 < count < minimum_cell`.

    Raises:
        ValueError: a negative count, or a floor below 1.
    """
    if count < 0:
        raise ValueError(f"a count must be at least 0, got count={count}")
    if minimum_cell < 1:
        raise ValueError(f"minimum_cell must be at least 1, got minimum_cell={minimum_cell}")
    return 0 < count < minimum_cell


def shown_count(count: int, minimum_cell: int = DEFAULT_MINIMUM_CELL) -> str:
    """A count as people may see it: itself, or the interval in which a small one lies ("1 to 4").

    Guarantees:
        small_counts_look_alike: all counts that are hidden under one floor are shown as the same text.
    """
    if not is_small(count, minimum_cell):
        return str(count)
    return "1" if minimum_cell == 2 else f"1 to {minimum_cell - 1}"  # a floor of 2 hides the 1 alone
