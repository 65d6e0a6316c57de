"""Counts of people that a result shows although its disclosure rules hide them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

NOT_PEOPLE = frozenset(
    (
        "bins",
        "clusters",
        "coefficients",
        "columns",
        "comparisons",
        "components",
        "draws",
        "epochs",
        "folds",
        "grid_points",
        "groups",
        "imputations",
        "intervals",
        "iterations",
        "knots",
        "levels",
        "models",
        "parameters",
        "quantiles",
        "rounds",
        "sites",
        "steps",
        "strata",
        "studies",
        "terms",
        "tests",
        "thresholds",
        "times",
        "variables",
    )
)
"""What a field `num_...` may count beside people and their records."""
_COUNT_KEYS = frozenset(("count", "counts", "n"))


def shown_small_counts(value: Any, minimum_cell: int, place: str = "") -> list[str]:
    """Where JSON values hold, under a key that counts people, a number between 0 and `minimum_cell`.

    Args:
        value: what `to_dict` gives.
        minimum_cell: least count that may be shown.
        place: the value's own place.

    Returns:
        A place and its number each ("variables[0].num_missing = 3").
    """
    if isinstance(value, dict):
        return [
            found
            for key, item in value.items()
            for found in (
                _small_numbers(item, minimum_cell, f"{place}.{key}".lstrip("."))
                if _counts_people(str(key))
                else shown_small_counts(item, minimum_cell, f"{place}.{key}".lstrip("."))
            )
        ]
    if isinstance(value, list):
        return [
            found for i, item in enumerate(value) for found in shown_small_counts(item, minimum_cell, f"{place}[{i}]")
        ]
    return []


def _counts_people(key: str) -> bool:
    return key in _COUNT_KEYS or (key.startswith("num_") and key.removeprefix("num_") not in NOT_PEOPLE)


def _small_numbers(value: Any, minimum_cell: int, place: str) -> Iterator[str]:
    """All numbers below a key that counts people, however deep."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _small_numbers(item, minimum_cell, f"{place}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _small_numbers(item, minimum_cell, f"{place}[{index}]")
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < minimum_cell:
        yield f"{place} = {value}"
