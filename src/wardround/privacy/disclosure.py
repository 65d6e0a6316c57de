"""Disclosure rules: what may be asked of few patients, and what is shown of small counts.

Pure. A count of zero tells of nobody and is shown; one from 1 to the floor less 1 could point at somebody.
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_MINIMUM_CELL = 5
"""Least count, other than 0, that is shown (unit: rows or people)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisclosureRules:
    """What a study, or a hospital's policy, allows to be known.

    Attributes:
        preset: the name they go by.
        minimum_cell: least count of people or records, other than 0, that a result shows; 1: all are shown.
        minimum_rows_site: fewest records with which a site takes part in a sum.
        minimum_rows_total: fewest records over all sites that a sum may be over.
        parameters_per_row: most parameters of a model, as a part of the records it is fitted to.
        dominance: largest part of the records that one site (in a sum) or one patient (at a site) may have.
        rounding: base to which shown counts are rounded; 1: not at all.
        allows_site_results: whether a result may hold what is one site's alone.
    """

    preset: str = "standard"
    minimum_cell: int = DEFAULT_MINIMUM_CELL
    minimum_rows_site: int = 1
    minimum_rows_total: int = 1
    parameters_per_row: float = 1.0
    dominance: float = 1.0
    rounding: int = 1
    allows_site_results: bool = True


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
