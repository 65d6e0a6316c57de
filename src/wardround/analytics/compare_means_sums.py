"""What the sites add up to compare groups: counts, then sums of those groups alone that are large enough."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.correlation_ranks import bin_positions
from wardround.analytics.grouping import count_codes, level_codes
from wardround.data.table import Numbers, Table
from wardround.errors import DataError
from wardround.sums import Array, Contribution, exact, people, site_function

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


class GroupCounts(Contribution):
    """Values by variable and group, missing ones by variable, and records without a group."""

    num_values: Counts = people("num_variables", "num_groups")
    num_missing: Counts = people("num_variables", cells="none")
    num_ungrouped: int = people(cells="none")


class GroupSums(Contribution):
    """Sums of standardised values, of their sizes and of their squares, by variable and group."""

    sums: Array = exact("num_variables", "num_groups")
    distances: Array = exact("num_variables", "num_groups")
    squares: Array = exact("num_variables", "num_groups")


class PairedSums(Contribution):
    """Differences of two variables: how many, and their standardised sums, sizes and squares."""

    num_pairs: int = people()
    num_records: int = people()
    total: float = exact()
    distance: float = exact()
    square: float = exact()


class BinCounts(Contribution):
    """Records by bin and group, one variable after the other."""

    num_records: Counts = people("num_bins", "num_groups", cells="none")


def _count_sizes(variables: tuple[str, ...], by: str, num_groups: int) -> dict[str, float]:
    return {"num_variables": len(variables), "num_groups": num_groups}


@site_function("compare_means.counts", version=1, symbols=_count_sizes)
def group_counts(data: Table, variables: tuple[str, ...], by: str, num_groups: int) -> GroupCounts:
    """How many values there are of each variable in each group.

    Args:
        data: this site's table.
        variables: names of numeric variables.
        by: grouping variable.
        num_groups: its number of levels.
    """
    codes = level_codes(data, by, num_groups)
    num_values = np.zeros((len(variables), num_groups), np.int64)
    num_missing = np.zeros(len(variables), np.int64)
    for row, name in enumerate(variables):
        is_known = ~np.isnan(data.numbers(name))
        num_values[row] = count_codes(codes[is_known], num_groups)
        num_missing[row] = np.count_nonzero(~is_known & (codes >= 0))
    return GroupCounts(num_values=num_values, num_missing=num_missing, num_ungrouped=int(np.count_nonzero(codes < 0)))


def _sum_sizes(variables: tuple[str, ...], num_groups: int, **_: Any) -> dict[str, float]:
    return {"num_variables": len(variables), "num_groups": num_groups}


@site_function("compare_means.sums", version=1, symbols=_sum_sizes)
def group_sums(
    data: Table,
    variables: tuple[str, ...],
    by: str,
    num_groups: int,
    is_open: Array,
    centers: Array,
    scales: Array,
    with_squares: bool,
) -> GroupSums:
    """Sums of `(value - center) / scale` by variable and group.

    Args:
        data: this site's table.
        variables: names of numeric variables.
        by: grouping variable.
        num_groups: its number of levels.
        is_open: 1 for the groups that are added up, by variable; the sums of the others are 0. Shape (num_variables,
            num_groups).
        centers: same shape.
        scales: positive, shape (num_variables,).
        with_squares: whether squares are added up, too (values far from their centres have squares too large for it).
    """
    shape = (len(variables), num_groups)
    if is_open.shape != shape or centers.shape != shape or scales.shape != shape[:1] or not (scales > 0).all():
        raise DataError("is_open and centers must have a row a variable and a column a group, scales be positive")
    codes = level_codes(data, by, num_groups)
    total = np.zeros((3, *shape))
    for row, name in enumerate(variables):
        for group, values in _open_groups(data.numbers(name), codes, is_open[row]):
            left = (values - centers[row, group]) / scales[row]
            squares = float((left**2).sum()) if with_squares else 0.0
            total[:, row, group] = left.sum(), np.abs(left).sum(), squares
    return GroupSums(sums=total[0], distances=total[1], squares=total[2])


def _open_groups(values: Numbers, codes: NDArray[np.integer], is_open: Floats) -> Iterator[tuple[int, Numbers]]:
    is_known = ~np.isnan(values)
    for group in np.flatnonzero(is_open):
        yield int(group), values[is_known & (codes == group)]


@site_function("compare_means.paired_sums", version=1)
def paired_sums(data: Table, first: str, second: str, center: float, scale: float, with_squares: bool) -> PairedSums:
    """Sums of `(first - second - center) / scale` over the records in which both are known.

    Args:
        data: this site's table.
        first: a numeric variable.
        second: another one.
        center: taken off the difference.
        scale: then divided by, positive.
        with_squares: whether squares are added up, too.

    Raises:
        DataError: a scale that is not positive.
    """
    if not scale > 0:
        raise DataError(f"scale must be positive, got {scale}")
    left = (data.numbers(first) - data.numbers(second) - center) / scale
    left = left[~np.isnan(left)]
    return PairedSums(
        num_pairs=len(left),
        num_records=data.num_records,
        total=float(left.sum()),
        distance=float(np.abs(left).sum()),
        square=float((left**2).sum()) if with_squares else 0.0,
    )


def _bin_sizes(num_bins: tuple[int, ...], num_groups: int, **_: Any) -> dict[str, float]:
    return {"num_bins": sum(num_bins), "num_groups": num_groups}


@site_function("compare_means.bin_counts", version=1, symbols=_bin_sizes)
def bin_counts(
    data: Table,
    variables: tuple[str, ...],
    num_levels: tuple[int, ...],
    ends: Array,
    num_bins: tuple[int, ...],
    by: str,
    num_groups: int,
    is_open: Array,
) -> BinCounts:
    """How many records of each group are in each bin.

    Args:
        data: this site's table.
        variables: names of variables.
        num_levels: by variable, how many levels it has; 0: it is cut into bins.
        ends: the bins' upper ends, one variable after the other.
        num_bins: by variable, how many bins.
        by: grouping variable.
        num_groups: its number of levels.
        is_open: 1 for the groups that are counted, by variable. Shape (num_variables, num_groups).
    """
    if is_open.shape != (len(variables), num_groups):
        raise DataError("is_open must have a row a variable and a column a group")
    codes = level_codes(data, by, num_groups).astype(np.int64)
    positions = bin_positions(data, variables, num_levels, ends, num_bins)
    parts = [np.zeros((0, num_groups), np.int64)]
    for place, size, kept in zip(positions, num_bins, is_open, strict=True):
        is_counted = (place >= 0) & (codes >= 0) & (kept[codes] > 0)
        counted = count_codes(np.where(is_counted, place * num_groups + codes, -1), size * num_groups)
        parts.append(counted.reshape(size, num_groups))
    return BinCounts(num_records=np.concatenate(parts))
