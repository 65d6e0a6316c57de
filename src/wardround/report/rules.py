"""The disclosure rules of a study in words, for those who read its report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from wardround.privacy.disclosure import RULES, DisclosureRules


@dataclass(frozen=True, slots=True)
class RuleInWords:
    """One rule: what it is called, what it is set to, what that means."""

    name: str
    value: str
    meaning: str


def rules_in_words(rules: DisclosureRules) -> tuple[RuleInWords, ...]:
    """Every rule, those that allow everything too."""
    return tuple(_in_words(name, getattr(rules, name)) for name in RULES)


def _in_words(name: str, value: Any) -> RuleInWords:
    allowing, meaning = _MEANINGS.get(name, (None, "set to {value}"))
    shown = _shown(name, value)
    said = _ALLOWING.get(name, "") if value == allowing else meaning.format(value=shown, less=_less(value))
    return RuleInWords(name=name, value=shown, meaning=said)


def _less(value: Any) -> str:
    return str(value - 1) if isinstance(value, int) else ""


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and math.isinf(value):
        return "none"
    if name.endswith("_dominance"):
        return f"{100 * value:.4g}%"
    return f"{value:.10g}" if isinstance(value, int | float) else str(value)


_MEANINGS: dict[str, tuple[Any, str]] = {
    "minimum_cell": (1, "Counts of people or records from 1 to {less} are hidden, with others that give them back."),
    "minimum_rows_site": (1, "A site with fewer than {value} records stays out of a sum."),
    "minimum_rows_total": (1, "No sum is over fewer than {value} records of all sites."),
    "parameters_per_row": (math.inf, "A model has at most {value} parameters a record of a site."),
    "site_dominance": (1.0, "No site has more than {value} of the records of a sum."),
    "patient_dominance": (1.0, "No patient has more than {value} of a site's records."),
    "rounding": (1, "Counts are rounded to multiples of {value}."),
    "allows_site_results": (True, "No result tells what is one site's alone."),
    "own_cells": ("allow", "A site keeps back an answer with a small cell of its own: a level, a group, its events."),
}
_ALLOWING = {
    "minimum_cell": "All counts are shown.",
    "minimum_rows_site": "A site with any number of records takes part.",
    "minimum_rows_total": "A sum may be over any number of records.",
    "parameters_per_row": "A model may have any number of parameters.",
    "site_dominance": "One site may have any part of the records of a sum.",
    "patient_dominance": "One patient may have any part of a site's records.",
    "rounding": "Counts are not rounded.",
    "allows_site_results": "Results may tell what is one site's alone.",
    "own_cells": "A site contributes small cells of its own to sums over all sites.",
}
