"""Disclosure rules: what may be asked of few patients, and what is shown of small counts.

Pure. A count of zero tells of nobody and is shown; one from 1 to the floor less 1 could point at somebody.

Who enforces what, and against whom, is in `wardround.privacy.disclosure_gate` (sums) and
`wardround.analytics.small_cells` (tables).

References:
    Hundepool et al. (2012), Statistical Disclosure Control, Wiley: thresholds, dominance, secondary suppression.
    DataSHIELD, package dsBase, disclosure settings (`nfilter.tab`, `nfilter.subset`, `nfilter.glm`).
    NHS Digital (2018), Disclosure control methodology for Hospital Episode Statistics and Emergency Care Data Set.
    Centers for Medicare & Medicaid Services, Cell Size Suppression Policy.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

OwnCells: TypeAlias = Literal["allow", "refuse"]
"""Whether a site contributes counts in which few people of its own stand."""

DEFAULT_MINIMUM_CELL = 5
"""Least count, other than 0, that is shown (unit: rows or people)."""
MAX_MINIMUM = 1_000_000_000
"""Largest floor that a rule may set (unit: records)."""
MAX_ROUNDING = 1_000
"""Largest base that counts may be rounded to."""
_CHANGED = " (changed)"


@dataclass(frozen=True, slots=True, kw_only=True)
class DisclosureRules:
    """What a study, or a hospital's policy, allows to be known. As they stand they are the preset `standard`.

    A rule that is a number allows everything at one end: 1 for the floors and `rounding`, infinity for
    `parameters_per_row`, 1 for the dominances.

    Attributes:
        preset: the name they go by.
        minimum_cell: least count of people or records, other than 0, that a result shows; 1: all are shown.
            A model's category level or column that only so few records have is refused.
        minimum_rows_site: fewest records with which a site takes part in a sum (0 records tell of nobody).
        minimum_rows_total: fewest records over all sites that a sum may be over.
        parameters_per_row: most parameters of a model, as a part of the records that a site fits it to.
        site_dominance: largest part of the records of a sum that one site may have.
        patient_dominance: largest part of a site's records that one patient may have.
        rounding: base to which shown counts are rounded; 1: not at all.
        allows_site_results: whether a result may hold what is one site's alone.
        own_cells: whether a site contributes ("allow") or keeps back ("refuse") an answer with a small cell of its own:
            of a level, a cross-table, the size of a group, the events of a group. Bins of histograms on the way to a
            quantile or a curve, and counts of missing values, are no cells (`wardround.sums.people`).

    Raises:
        ValueError: a rule is out of its range; names it.
    """

    preset: str = "standard"
    minimum_cell: int = DEFAULT_MINIMUM_CELL
    minimum_rows_site: int = 1
    minimum_rows_total: int = 1
    parameters_per_row: float = math.inf
    site_dominance: float = 1.0
    patient_dominance: float = 1.0
    rounding: int = 1
    allows_site_results: bool = False
    own_cells: OwnCells = "allow"

    def __post_init__(self) -> None:
        for name in ("minimum_cell", "minimum_rows_site", "minimum_rows_total"):
            _check_whole(name, getattr(self, name), MAX_MINIMUM)
        _check_whole("rounding", self.rounding, MAX_ROUNDING)
        _check_real("parameters_per_row", self.parameters_per_row, math.inf)
        _check_real("site_dominance", self.site_dominance, 1.0)
        _check_real("patient_dominance", self.patient_dominance, 1.0)
        if not isinstance(self.allows_site_results, bool):
            raise ValueError(f"allows_site_results must be true or false, got {self.allows_site_results!r}")
        if self.own_cells not in ("allow", "refuse"):
            raise ValueError(f'own_cells must be "allow" or "refuse", got {self.own_cells!r}')
        if not (isinstance(self.preset, str) and self.preset):
            raise ValueError("preset must be a name")

    @classmethod
    def of(cls, preset: str = "standard", **changes: Any) -> DisclosureRules:
        """The rules of a preset, with some changed: `DisclosureRules.of("nhs", minimum_cell=10)`.

        Raises:
            ValueError: an unknown preset or rule, or a value out of range; names it.
        """
        if preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
        unknown = sorted(set(changes) - set(RULES))
        if unknown:
            raise ValueError(f"unknown disclosure rule {unknown[0]!r}; known: {', '.join(RULES)}")
        rules = PRESETS[preset]
        changed = dataclasses.replace(rules, **changes)
        return rules if changed == rules else dataclasses.replace(changed, preset=preset + _CHANGED)

    def tightened_by(self, other: DisclosureRules) -> DisclosureRules:
        """Rule by rule the stricter of the two: what holds where both a study and a hospital have rules.

        Guarantees:
            tightened_rules_are_never_looser: no rule of the answer allows what either of the two refuses.
            tightening_is_a_meet: commutative, associative and idempotent, in the names too.
        """
        names = sorted({*self.preset.split(_AND), *other.preset.split(_AND)})
        return DisclosureRules(
            preset=_AND.join(names),
            minimum_cell=max(self.minimum_cell, other.minimum_cell),
            minimum_rows_site=max(self.minimum_rows_site, other.minimum_rows_site),
            minimum_rows_total=max(self.minimum_rows_total, other.minimum_rows_total),
            parameters_per_row=min(self.parameters_per_row, other.parameters_per_row),
            site_dominance=min(self.site_dominance, other.site_dominance),
            patient_dominance=min(self.patient_dominance, other.patient_dominance),
            rounding=max(self.rounding, other.rounding),
            allows_site_results=self.allows_site_results and other.allows_site_results,
            own_cells="refuse" if "refuse" in (self.own_cells, other.own_cells) else "allow",
        )

    def summary(self) -> str:
        """The rules in a sentence each that refuses something, for a steward to read."""
        said = [
            (self.minimum_cell > 1, f"counts from 1 to {self.minimum_cell - 1} are hidden"),
            (self.rounding > 1, f"counts are rounded to multiples of {self.rounding}"),
            (self.minimum_rows_site > 1, f"a site with fewer than {self.minimum_rows_site} records stays out"),
            (self.minimum_rows_total > 1, f"sums are over {self.minimum_rows_total} records or more"),
            (
                self.parameters_per_row < math.inf,
                f"a model has at most {self.parameters_per_row:g} parameters a record of a site",
            ),
            (self.site_dominance < 1, f"no site has more than {self.site_dominance:.0%} of the records of a sum"),
            (self.patient_dominance < 1, f"no patient has more than {self.patient_dominance:.0%} of a site's records"),
            (self.own_cells == "refuse", "no site tells a small cell of a table of its own"),
            (not self.allows_site_results, "no result of one site alone"),
        ]
        return f"{self.preset}: " + ("; ".join(text for holds, text in said if holds) or "nothing is hidden")

    def is_small(self, count: int) -> bool:
        """Whether a count must be hidden: `0 < count < minimum_cell`. Raises `ValueError` for a negative one."""
        return is_small(count, self.minimum_cell)

    def shown(self, count: int) -> int | None:
        """A count as a result may hold it: rounded, or None where it is hidden.

        Guarantees:
            small_counts_are_not_shown: the answer is None for each count from 1 to `minimum_cell - 1`.
        """
        return None if is_small(count, self.minimum_cell) else round_count(count, self.rounding)


def _check_whole(name: str, value: object, largest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
        raise ValueError(f"{name} must be a whole number in [1, {largest}], got {name}={value!r}")


def _check_real(name: str, value: object, largest: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= largest:
        end = "greater than 0" if largest == math.inf else f"in (0, {largest:g}]"
        raise ValueError(f"{name} must be {end}, got {name}={value!r}")


_AND = " and "
RULES = tuple(field.name for field in dataclasses.fields(DisclosureRules) if field.name != "preset")
"""Names of the rules."""

PRESETS: Mapping[str, DisclosureRules] = MappingProxyType(
    {
        rules.preset: rules
        for rules in (
            DisclosureRules(),
            # dsBase's options default.nfilter.tab = 3, default.nfilter.subset = 3, default.nfilter.glm = 0.33. Its
            # filters on strings, neighbours and noise have nothing here that they could apply to.
            DisclosureRules(
                preset="datashield",
                minimum_cell=3,
                minimum_rows_site=3,
                minimum_rows_total=3,
                parameters_per_row=0.33,
                allows_site_results=True,
                own_cells="refuse",
            ),
            # Numbers from 1 to 7 are suppressed, all others rounded to the nearest 5.
            DisclosureRules(preset="nhs", minimum_cell=8, minimum_rows_site=8, minimum_rows_total=8, rounding=5),
            # No cell from 1 to 10, and nothing from which one follows.
            DisclosureRules(preset="cms11", minimum_cell=11, minimum_rows_site=11, minimum_rows_total=11),
            DisclosureRules(preset="none", minimum_cell=1, allows_site_results=True),
            # Against a coordinator that sees each site's answers: what a hospital may set for itself.
            DisclosureRules(
                preset="hospital",
                minimum_rows_site=10,
                minimum_rows_total=20,
                parameters_per_row=0.5,
                patient_dominance=0.5,
            ),
        )
    }
)
"""The rules by name: `standard`, `datashield`, `nhs`, `cms11`, `none`; `hospital` is meant as a hospital's own."""


def rules_of(given: DisclosureRules | str | None) -> DisclosureRules:
    """Rules as a caller may give them: themselves, a preset's name, or None for the standard ones.

    Raises:
        ValueError: an unknown preset.
        TypeError: something else.
    """
    if given is None:
        return PRESETS["standard"]
    if isinstance(given, str):
        return DisclosureRules.of(given)
    if not isinstance(given, DisclosureRules):
        raise TypeError(f"disclosure must be DisclosureRules or a preset's name, got {type(given).__name__}")
    return given


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


def round_count(count: int, base: int) -> int:
    """A count rounded to the nearest multiple of `base`, halves up, never to 0 unless it is 0.

    Raises:
        ValueError: a negative count, or a base below 1.
    """
    if count < 0 or base < 1:
        raise ValueError(f"count must be at least 0 and base at least 1, got count={count}, base={base}")
    rounded = base * ((2 * count + base) // (2 * base))
    return base if count and not rounded else rounded
