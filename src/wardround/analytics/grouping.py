"""The columns of a comparison: everybody, and each level of a grouping variable."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wardround.data.contract import Contract, Variable
from wardround.data.table import Numbers, Table
from wardround.errors import ConfigError, DataError

MAX_INTEGER_LEVELS = 32
"""Most values that an integer's declared range may have for it to be counted like a category."""


def levels_of(variable: Variable) -> tuple[str, ...] | None:
    """Levels of a category or boolean, or of an integer whose declared range is short; None for others."""
    if variable.type == "integer" and variable.range is not None:
        low, high = math.ceil(variable.range[0]), math.floor(variable.range[1])
        return tuple(map(str, range(low, high + 1))) if high - low < MAX_INTEGER_LEVELS else None
    return variable.category_levels


def named_levels(contract: Contract, name: str, where: str) -> tuple[str, ...]:
    """Levels of a variable of the contract.

    Raises:
        ConfigError: it is not in the contract, or has no levels.
    """
    variable = contract.variable(name, where)
    levels = levels_of(variable)
    if not levels:
        raise ConfigError(
            f"{where}: {name!r} is a {variable.type} without levels; name a category, a boolean, or an integer "
            f"with a range of at most {MAX_INTEGER_LEVELS} values (the contract declares which it is)"
        )
    return levels


def level_codes(data: Table, name: str, num_levels: int) -> NDArray[np.integer]:
    """A variable as indices into its levels, -1 where missing; shape (num_records,).

    Raises:
        DataError: this site's contract has other levels than the coordinator's, or a value is not one of them.
    """
    variable = data.contract.variable(name)
    if len(levels_of(variable) or ()) != num_levels:
        raise DataError(
            f"variable {name!r} has other levels in this site's contract than in the coordinator's; "
            "send the study's contract to the site again"
        )
    if variable.type != "integer":
        return data.codes(name)
    assert variable.range is not None  # levels_of found levels
    codes = data.numbers(name) - math.ceil(variable.range[0])
    codes = np.where(np.isnan(codes), -1.0, codes)
    if np.any((codes < -1) | (codes >= num_levels) | (codes != np.floor(codes))):
        raise DataError(
            f"variable {name!r} has values outside its declared range; check the table against the contract"
        )
    return codes.astype(np.int32)


def group_codes(data: Table, by: str | None, num_groups: int) -> NDArray[np.integer]:
    """Group of each record, -1 where it is not known; without a grouping variable all are in group 0.

    Raises:
        DataError: as `level_codes`.
    """
    return np.zeros(data.num_records, np.int32) if by is None else level_codes(data, by, num_groups)


def present_by_group(values: Numbers, codes: NDArray[np.integer], num_groups: int) -> Iterator[Numbers]:
    """The values that are not missing, group by group."""
    is_known = ~np.isnan(values)
    for group in range(num_groups):
        yield values[is_known & (codes == group)]


def count_codes(codes: NDArray[np.integer], num_codes: int) -> NDArray[np.int64]:
    """How often each code in [0, num_codes) occurs; negative codes are not counted."""
    return np.bincount(codes[codes >= 0], minlength=num_codes).astype(np.int64)
