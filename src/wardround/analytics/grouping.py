"""The columns of a comparison: everybody, and each level of a grouping variable."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wardround.data.contract import Contract
from wardround.data.table import Numbers, Table
from wardround.errors import ConfigError, DataError


def group_names(contract: Contract, by: str | None, where: str) -> tuple[str, ...]:
    """Levels of the grouping variable; none without one.

    Raises:
        ConfigError: `by` is not in the contract, or is neither a category nor a boolean.
    """
    if by is None:
        return ()
    variable = contract.variable(by, f"{where}.by")
    if variable.category_levels is None:
        raise ConfigError(
            f"{where}.by: {by!r} is a {variable.type}; group by a category or a boolean "
            "(the contract may declare a number with few values as a category)"
        )
    return variable.category_levels


def group_codes(data: Table, by: str | None, num_groups: int) -> NDArray[np.integer]:
    """Group of each record, -1 where it is not known; without a grouping variable all are in group 0.

    Raises:
        DataError: this site's contract has other levels than the coordinator's.
    """
    if by is None:
        return np.zeros(data.num_records, np.int32)
    levels = data.contract.variable(by).category_levels or ()
    if len(levels) != num_groups:
        raise DataError(
            f"variable {by!r} has {len(levels)} levels in this site's contract and {num_groups} in the "
            "coordinator's; send the study's contract to the site again"
        )
    return data.codes(by)


def present_by_group(values: Numbers, codes: NDArray[np.integer], num_groups: int) -> Iterator[Numbers]:
    """The values that are not missing, group by group."""
    is_known = ~np.isnan(values)
    for group in range(num_groups):
        yield values[is_known & (codes == group)]


def count_codes(codes: NDArray[np.integer], num_codes: int) -> NDArray[np.int64]:
    """How often each code in [0, num_codes) occurs; negative codes are not counted."""
    return np.bincount(codes[codes >= 0], minlength=num_codes).astype(np.int64)
