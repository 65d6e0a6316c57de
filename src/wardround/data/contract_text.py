"""A contract as TOML text, and back. Pure: the text comes from somewhere else.

    [contract]
    patient = "patient_id"                 # optional: the column that tells patients apart
    description = "Stays on the ward"      # optional

    [variables.age]
    type = "integer"                       # number, integer, category, boolean, date or text
    unit = "years"
    range = [18, 110]                      # dates: ["2014-01-01", "2015-12-31"]
    missing = [-9, "unknown"]              # beside the empty cell
    required = true

    [variables.survival]
    type = "number"
    unit = "years"
    resolution = 0.01                      # optional: grid of times in analyses of survival; else one day

    [variables."Blood group"]
    type = "category"
    levels = ["0", "A", "B", "AB"]         # the first is the reference

Names, levels and codes are normalised to Unicode NFC and trimmed.
"""

from __future__ import annotations

import datetime as dt
import difflib
import math
import tomllib
from typing import Annotated, Any, NotRequired, TypeAlias

import pydantic
import tomli_w
from pydantic import Field, StringConstraints, TypeAdapter
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from wardround.data.contract import Contract, Variable, VariableType
from wardround.data.names import checked_name, has_control_characters
from wardround.data.reading import clean_text, day_of, day_text, number_text
from wardround.errors import ConfigError
from wardround.sums.parameters import explain

MAX_CONTRACT_BYTES = 8 * 2**20
"""Largest contract file (unit: bytes of UTF-8)."""
MAX_VARIABLES = 100_000
"""Most variables of a contract."""
MAX_LEVELS = 10_000
"""Most levels of a category."""
MAX_MISSING_CODES = 100
"""Most missing codes of a variable."""
MAX_TEXT_CHARACTERS = 10_000
"""Longest description (unit: characters)."""

_MAX_PERIODS_IN_A_LINE = 200  # the TOML parser's time grows with the square of a dotted key's parts
_MAX_ERRORS = 50
_TOP_KEYS = ("contract", "variables")
_STRICT = pydantic.ConfigDict(extra="forbid", strict=True)

_Description: TypeAlias = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARACTERS)]


class _Head(TypedDict):
    """The keys of [contract]."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]  # pydantic reads it from a TypedDict
    patient: NotRequired[str]
    description: NotRequired[_Description]


class _Fields(TypedDict):
    """The keys of [variables.NAME]."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]  # pydantic reads it from a TypedDict
    type: VariableType
    unit: NotRequired[str]
    range: NotRequired[list[object]]
    levels: NotRequired[Annotated[list[str | int | float], Field(min_length=1, max_length=MAX_LEVELS)]]
    missing: NotRequired[Annotated[list[str | int | float], Field(max_length=MAX_MISSING_CODES)]]
    required: NotRequired[bool]
    resolution: NotRequired[float]
    description: NotRequired[_Description]


_head = TypeAdapter(_Head)
_fields = TypeAdapter(_Fields)
_HEAD_KEYS = tuple(_Head.__annotations__)
_FIELD_KEYS = tuple(_Fields.__annotations__)


def parse_contract(text: str) -> Contract:
    """The contract that a TOML text writes.

    Raises:
        ConfigError: not TOML, over a limit, or not a contract; names every place and what to do there.

    Guarantees:
        refuses_with_config_error: whatever the text, the outcome is a contract or a `ConfigError`.
        text_and_back: `parse_contract(contract_text(c))` has the variables, patient and description of `c`.
    """
    tables = _tables(text)
    head = _validated(_head, tables.get("contract", {}), "contract", _HEAD_KEYS)
    given = tables.get("variables")
    if not isinstance(given, dict) or not given:
        raise ConfigError("variables: missing; add a table [variables.NAME] for every column")
    if len(given) > MAX_VARIABLES:
        raise ConfigError(f"variables: a contract lists at most {MAX_VARIABLES} variables, this {len(given)}")
    variables: list[Variable] = []
    errors: list[str] = []
    for name, fields in given.items():
        try:
            variables.append(_variable(name, fields))
        except ConfigError as error:
            errors.append(str(error))
    if errors:
        more = [f"... and {len(errors) - _MAX_ERRORS} more"] if len(errors) > _MAX_ERRORS else []
        raise ConfigError("\n".join([*errors[:_MAX_ERRORS], *more]))
    patient = checked_name(head["patient"], "contract.patient") if "patient" in head else None
    return Contract(variables=tuple(variables), patient=patient, description=head.get("description"))


def contract_text(contract: Contract, notes: tuple[str, ...] = ()) -> str:
    """A contract as TOML text.

    Args:
        contract: what to write.
        notes: comments for its head, as those of an inference.
    """
    comments = [" ".join(note.split()) for note in notes]
    if contract.is_inferred:
        comments.insert(0, "Inferred from the tables at hand: read it, correct it, agree on it.")
    head = {"patient": contract.patient, "description": contract.description}
    tables: dict[str, Any] = {"contract": {key: value for key, value in head.items() if value is not None}}
    if not tables["contract"]:
        del tables["contract"]
    tables["variables"] = {variable.name: _to_fields(variable) for variable in contract.variables}
    body = tomli_w.dumps(tables)
    return "".join(f"# {comment}\n" for comment in comments) + ("\n" if comments else "") + body


def _tables(text: str) -> dict[str, Any]:
    if len(text) > MAX_CONTRACT_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_CONTRACT_BYTES:
        raise ConfigError(f"a contract has at most {MAX_CONTRACT_BYTES} bytes; list only the columns that are used")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > _MAX_PERIODS_IN_A_LINE:
            raise ConfigError(f"line {number}: more than {_MAX_PERIODS_IN_A_LINE} periods; break the line")
    try:
        tables = tomllib.loads(text)
    except RecursionError:
        raise ConfigError("not a contract: its values are nested too deeply") from None
    except ValueError as error:  # tomllib's own error is one; others stem from absurd numbers and dates
        said = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "a number or date that cannot be"
        raise ConfigError(f"not TOML: {said}") from None
    for key in tables:
        if key not in _TOP_KEYS:
            close = difflib.get_close_matches(key, _TOP_KEYS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(_TOP_KEYS)}"
            raise ConfigError(f"{_shown(key)}: unknown key; {hint}")
    return tables


def _validated(adapter: TypeAdapter[Any], given: Any, where: str, known: tuple[str, ...]) -> Any:
    try:
        return adapter.validate_python(given)
    except pydantic.ValidationError as error:
        raise ConfigError(explain(error, where, known)) from None


def _variable(given_name: str, given: Any) -> Variable:
    where = f"variables.{_shown(given_name)}"
    name = checked_name(given_name, where)
    fields = _validated(_fields, given, where, _FIELD_KEYS)
    levels = tuple(_code(level, f"{where}.levels") for level in fields["levels"]) if "levels" in fields else None
    missing = fields.get("missing", [])
    for text in (fields.get("unit", ""), *(code for code in missing if isinstance(code, str))):
        if has_control_characters(text) or len(text) > MAX_TEXT_CHARACTERS:
            raise ConfigError(f"{where}: a unit or missing code is too long or holds control characters")
    if any(isinstance(code, float) and not math.isfinite(code) for code in missing):
        raise ConfigError(f"{where}.missing: a code must be a finite number or a text; empty cells need no code")
    return Variable(
        name=name,
        type=fields["type"],
        unit=fields.get("unit"),
        range=_bounds(fields["range"], fields["type"], f"{where}.range") if "range" in fields else None,
        levels=levels,
        missing=tuple(clean_text(code) if isinstance(code, str) else _float(code, where) for code in missing),
        is_required=fields.get("required", False),
        resolution=_float(fields["resolution"], where) if "resolution" in fields else None,
        description=fields.get("description"),
    )


def _code(level: str | float, where: str) -> str:
    if isinstance(level, str):
        return checked_name(level, where)
    return number_text(_float(level, where))


def _float(number: float, where: str) -> float:
    try:
        return float(number)
    except OverflowError:
        raise ConfigError(f"{where}: a number is too large") from None


def _bounds(given: list[object], type_: str, where: str) -> tuple[float, float]:
    if len(given) != 2:
        raise ConfigError(f"{where}: must be [least, greatest], got {len(given)} values")
    low, high = (_bound(bound, type_, where) for bound in given)
    if math.isnan(low) or math.isnan(high):
        raise ConfigError(f"{where}: a bound must not be nan; use -inf or inf for none")
    return low, high


def _bound(bound: object, type_: str, where: str) -> float:
    if isinstance(bound, int | float) and not isinstance(bound, bool) and (type_ != "date" or math.isinf(bound)):
        return _float(bound, where)
    if type_ == "date" and isinstance(bound, str | dt.date):
        day = day_of(bound.isoformat() if isinstance(bound, dt.date) else clean_text(bound))
        if day is not None:
            return day
    wanted = 'ISO dates, as in ["2014-01-01", "2015-12-31"]' if type_ == "date" else "numbers, as in [0, 100]"
    raise ConfigError(f"{where}: the bounds of a {type_} must be {wanted}")


def _to_fields(variable: Variable) -> dict[str, Any]:
    fields = {
        "type": variable.type,
        "unit": variable.unit,
        "range": None if variable.range is None else [_written(bound, variable.type) for bound in variable.range],
        "levels": list(variable.levels) if variable.levels else None,
        "missing": [code if isinstance(code, str) else _whole(code) for code in variable.missing] or None,
        "required": variable.is_required or None,
        "resolution": None if variable.resolution is None else _whole(variable.resolution),
        "description": variable.description,
    }
    return {key: value for key, value in fields.items() if value is not None}


def _written(bound: float, type_: str) -> Any:
    if type_ == "date" and math.isfinite(bound):
        return day_text(bound)
    return _whole(bound)


def _whole(number: float) -> int | float:
    return int(number) if float(number).is_integer() and abs(number) < 2**53 else float(number)


def _shown(name: str) -> str:
    return name if len(name) <= 80 and not has_control_characters(name) else repr(name[:80])
