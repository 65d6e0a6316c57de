"""What of a variable counts as the event, as which cause, and what as censored."""

from __future__ import annotations

import difflib
import math

import numpy as np
from numpy.typing import NDArray

from wardround.data.contract import Contract, Variable
from wardround.data.table import Table
from wardround.errors import ConfigError, DataError

MAX_CAUSES = 50
"""Most causes that one analysis tells apart."""
_MAX_SHOWN = 20


def event_values(
    contract: Contract, name: str, event_level: str | None, causes: tuple[str, ...] | None, censored: str | None
) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """The values that count, cause by cause, and those that mean censored (None: all others).

    Raises:
        ConfigError: a variable or value that the contract does not have, or that cannot be meant.
    """
    variable = contract.variable(name, "event")
    if variable.type in ("date", "text"):
        raise ConfigError(f"event: {name!r} is a {variable.type}; name a boolean, a number of 0 and 1, or a category")
    if event_level is not None and (causes is not None or censored is not None):
        raise ConfigError("event_level: give either the one level that counts, or causes and the censored level")
    if causes is not None:
        return _cause_values(variable, causes, censored)
    if event_level is not None:
        return (_checked_level(variable, event_level, "event_level"),), None
    if variable.type == "category":
        raise ConfigError(
            f"event: {name!r} is a category; say which of its levels counts: event_level = one of {_listed(variable)}"
        )
    return (("True",), ("False",)) if variable.type == "boolean" else (("1",), ("0",))


def _cause_values(
    variable: Variable, causes: tuple[str, ...], censored: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    levels = variable.category_levels
    none = censored if censored is not None else levels[0] if levels else "0"
    none = _checked_level(variable, none, "censored")
    events = tuple(_checked_level(variable, cause, "causes") for cause in causes)
    if not 1 <= len(events) <= MAX_CAUSES:
        raise ConfigError(f"causes: give 1 to {MAX_CAUSES} of them, got {len(events)}")
    if none in events or len(set(events)) < len(events):
        raise ConfigError(f"causes: each is named once, and {none!r} means censored; name it otherwise with `censored`")
    left_over = [level for level in levels or () if level not in (*events, none)]
    if left_over:
        raise ConfigError(
            f"causes: {left_over[0]!r} of {variable.name!r} is neither a cause nor censored; a competing cause that is "
            "left out would count as nothing, so name all of them"
        )
    return events, (none,)


def _checked_level(variable: Variable, level: str, where: str) -> str:
    levels = variable.category_levels
    if levels is None:
        try:
            return f"{float(level):.17g}" if math.isfinite(float(level)) else _no_level(variable, level, where)
        except ValueError:
            _no_level(variable, level, where)
    if level not in (levels or ()):
        _no_level(variable, level, where)
    return level


def _no_level(variable: Variable, level: str, where: str) -> str:
    levels = variable.category_levels
    close = difflib.get_close_matches(level, levels or (), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"it has {_listed(variable)}" if levels else "it is a number"
    raise ConfigError(f"{where}: {variable.name!r} has no value {level[:80]!r}; {hint}")


def _listed(variable: Variable) -> str:
    levels = variable.category_levels or ()
    more = ", ..." if len(levels) > _MAX_SHOWN else ""
    return ", ".join(map(repr, levels[:_MAX_SHOWN])) + more


def cause_codes(
    table: Table, name: str, events: tuple[str, ...], censored: tuple[str, ...] | None, rows: NDArray[np.intp]
) -> NDArray[np.int32]:
    """Cause of each of these rows: from 1, 0 where censored, -1 where it is neither; shape (num_rows,).

    Args:
        table: the site's records.
        name: variable that says how follow-up ended; not missing in `rows`.
        events: its values that count, cause by cause.
        censored: its values that mean censored; None: all others.
        rows: indices of the rows.

    Raises:
        DataError: a value that this site's contract does not know.
    """
    levels = table.contract.variable(name).category_levels
    values = table.numbers(name)[rows] if levels is None else table.codes(name)[rows]
    cause = np.full(len(rows), 0 if censored is None else -1, np.int32)
    for level in censored or ():
        cause[values == _level_value(level, levels, name)] = 0
    for number, level in enumerate(events, start=1):
        cause[values == _level_value(level, levels, name)] = number
    return cause


def _level_value(level: str, levels: tuple[str, ...] | None, name: str) -> float:
    try:
        return float(level) if levels is None else levels.index(level)
    except ValueError:
        raise DataError(
            f"variable {name!r} has other levels in this site's contract than in the coordinator's; "
            "send the study's contract to the site again"
        ) from None
