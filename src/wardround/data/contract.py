"""The data contract: the variables that every site's table must offer, with types, units, ranges and codes."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from wardround.data.reading import canonical_text, clean_text
from wardround.errors import ConfigError
from wardround.privacy.disclosure import DisclosureRules

VariableType: TypeAlias = Literal["number", "integer", "category", "boolean", "date", "text"]
BOOLEAN_LEVELS = ("False", "True")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One column. Its name and levels are normalised to Unicode NFC and trimmed.

    Attributes:
        name: the column's name.
        type: `number`, `integer`, `category`, `boolean`, `date` (days since 1970-01-01) or `text` (never analysed).
        unit: unit of measurement, as written by people ("mmol/L").
        range: least and greatest allowed value, in that unit (dates: ISO dates are turned into days).
        levels: a category's levels in order; the first is the reference.
        missing: codes that stand for a missing value, beside the empty cell.
        is_required: whether a missing value breaks the contract.
        resolution: distance of the points on which times lie in an analysis of survival, in that unit; None: one
            day where the unit says how long that is, 1 for integers.
        description: what it is, for people.
    """

    name: str
    type: VariableType
    unit: str | None = None
    range: tuple[float, float] | None = None
    levels: tuple[str, ...] | None = None
    missing: tuple[str | float, ...] = ()
    is_required: bool = False
    resolution: float | None = None
    description: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", clean_text(self.name))
        if self.levels is not None:
            object.__setattr__(self, "levels", tuple(clean_text(level) for level in self.levels))
        where = f"variable {self.name!r}"
        if self.type == "category" and not self.levels:
            raise ConfigError(f'{where}: a category needs its levels; write levels = ["...", ...]')
        if self.levels is not None:
            if self.type != "category":
                raise ConfigError(f"{where}: only a category has levels, this is a {self.type}")
            # "1" and "1.0" are one level to a table that stores numbers.
            if len({canonical_text(level) for level in self.levels}) != len(self.levels):
                raise ConfigError(f"{where}: a level is listed twice")
        if self.range is not None:
            if self.type not in ("number", "integer", "date"):
                raise ConfigError(f"{where}: a {self.type} has no range")
            if not self.range[0] <= self.range[1]:
                raise ConfigError(f"{where}: range must be [least, greatest], got {list(self.range)}")
        _check_resolution(self.resolution, self.type, where)

    @property
    def is_numeric(self) -> bool:
        """Whether its values are ordered numbers."""
        return self.type in ("number", "integer", "date")

    @property
    def category_levels(self) -> tuple[str, ...] | None:
        """Levels of a category or a boolean; None for other types."""
        return BOOLEAN_LEVELS if self.type == "boolean" else self.levels


def _check_resolution(resolution: float | None, type_: str, where: str) -> None:
    if resolution is None:
        return
    if type_ not in ("number", "integer"):
        raise ConfigError(f"{where}: a {type_} has no resolution; only a number or an integer has one")
    if not 0 < resolution < math.inf:
        raise ConfigError(f"{where}: resolution must be greater than 0, got {resolution}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What the sites of a study agreed that their tables hold.

    Attributes:
        variables: the columns that an analysis may use.
        patient: the column that tells patients apart; None where a row is a patient.
        is_inferred: made from the tables at hand rather than agreed on.
        left_out: columns that inference could not make a variable of, each with the reason.
        description: what the tables are, for people.
    """

    variables: tuple[Variable, ...]
    patient: str | None = None
    is_inferred: bool = False
    left_out: tuple[tuple[str, str], ...] = ()
    description: str | None = None
    _by_name: Mapping[str, Variable] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.patient is not None:
            object.__setattr__(self, "patient", clean_text(self.patient))
        counts = Counter(variable.name for variable in self.variables)
        twice = sorted(name for name, count in counts.items() if count > 1)
        if twice:
            raise ConfigError(f"the contract lists {', '.join(map(repr, twice[:20]))} twice; keep one of each")
        object.__setattr__(self, "_by_name", {variable.name: variable for variable in self.variables})

    @property
    def names(self) -> tuple[str, ...]:
        """The variables' names in order."""
        return tuple(variable.name for variable in self.variables)

    def variable(self, name: str, where: str = "analysis") -> Variable:
        """The variable of this name.

        Raises:
            ConfigError: not in the contract; suggests near names.
        """
        if name in self._by_name:
            return self._by_name[name]
        reason = dict(self.left_out).get(name)
        if reason:
            raise ConfigError(f"{where}: the contract has no variable {name!r}; it was left out: {reason}")
        close = difflib.get_close_matches(name, self.names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it lists: {', '.join(self.names[:20])}"
        raise ConfigError(f"{where}: the contract has no variable {name!r}; {hint}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What the coordinator's half of an analysis knows before it asks anything.

    Attributes:
        contract: the variables.
        sites: the roster of the run.
        disclosure: the rules its result must keep to.
    """

    contract: Contract
    sites: tuple[str, ...]
    disclosure: DisclosureRules = field(default_factory=DisclosureRules)
