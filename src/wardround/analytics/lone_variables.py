"""Numbers that are the same in all but few records: their means, correlations and clusters would tell of those few.

As `lone_records` finds columns of a model: few records lie on one side of the mean, and nearly all others at one
place (nearer to it than there, as nobody makes these numbers up by a formula). The mean of a 0/1 number with a single
1 is a count; its correlation with another number is that number in the one record.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.grouping import level_codes
from wardround.analytics.lone_records import places_of_others
from wardround.data.table import Table
from wardround.errors import DataError, DisclosureError
from wardround.sums import Array, Contribution, Steps, ask, exact, people, site_function

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
NEAR = 0.02
"""Records are at one place that are nearer to their mean than this part of the distance of those set apart."""
_MOST_NAMED = 10


class Sides(Contribution):
    """Records above and below a middle, and by how much altogether, by variable and group."""

    num_values: Counts = people("num_variables", "num_groups")
    num_above: Counts = people("num_variables", "num_groups", cells="none")
    num_below: Counts = people("num_variables", "num_groups", cells="none")
    above: Array = exact("num_variables", "num_groups")
    below: Array = exact("num_variables", "num_groups")


class Far(Contribution):
    """Records that are not near a place, by variable and group."""

    num_far: Counts = people("num_variables", "num_groups", cells="none")


def _sizes(middles: Array, **_: Any) -> dict[str, float]:
    return {"num_variables": middles.shape[0], "num_groups": middles.shape[1]}


@site_function("lone_variables.sides", version=1, symbols=_sizes)
def sides(data: Table, variables: tuple[str, ...], less: str | None, by: str | None, middles: Array) -> Sides:
    """How many records lie above and below a middle, and by how much altogether.

    Args:
        data: this site's table.
        variables: numbers, or categories (as the numbers of their levels).
        less: a number that is taken off each of them; None: nothing is.
        by: grouping variable; None: all records are one group.
        middles: by variable and group, shape (num_variables, num_groups).
    """
    left = [[part - middle for part, middle in row] for row in _parts(data, variables, less, by, middles)]
    return Sides(
        num_values=np.array([[len(part) for part in row] for row in left], np.int64),
        num_above=np.array([[np.count_nonzero(part > 0) for part in row] for row in left], np.int64),
        num_below=np.array([[np.count_nonzero(part < 0) for part in row] for row in left], np.int64),
        above=np.array([[part[part > 0].sum() for part in row] for row in left]),
        below=np.array([[-part[part < 0].sum() for part in row] for row in left]),
    )


@site_function("lone_variables.far", version=1, symbols=_sizes)
def far(
    data: Table, variables: tuple[str, ...], less: str | None, by: str | None, middles: Array, reaches: Array
) -> Far:
    """How many records are farther than a reach from a middle.

    Args:
        data: this site's table.
        variables: as `sides`.
        less: likewise.
        by: likewise.
        middles: likewise.
        reaches: of the same shape.
    """
    if reaches.shape != middles.shape:
        raise DataError(f"reaches must have the shape of the middles, {middles.shape}, got {reaches.shape}")
    parts = _parts(data, variables, less, by, middles)
    num_far = [
        [
            np.count_nonzero(np.abs(part - middle) > reach)
            for (part, middle), reach in zip(row, row_reaches, strict=True)
        ]
        for row, row_reaches in zip(parts, reaches, strict=True)
    ]
    return Far(num_far=np.array(num_far, np.int64))


def _parts(
    data: Table, variables: tuple[str, ...], less: str | None, by: str | None, middles: Array
) -> list[list[tuple[Floats, float]]]:
    """The known values of each variable and group, with its middle."""
    if middles.ndim != 2 or len(middles) != len(variables):
        raise DataError("middles must have a row a variable and a column a group")
    num_groups = middles.shape[1]
    codes = np.zeros(data.num_records, np.int64) if by is None else level_codes(data, by, num_groups)
    taken_off = 0.0 if less is None else data.numbers(less)
    rows = []
    for name, row in zip(variables, middles, strict=True):
        values = _numbers(data, name) - taken_off
        is_known = ~np.isnan(values)
        rows.append([(values[is_known & (codes == group)], float(middle)) for group, middle in enumerate(row)])
    return rows


def _numbers(data: Table, name: str) -> Floats:
    variable = data.contract.variable(name)
    if variable.is_numeric or variable.type == "boolean":
        return data.numbers(name).astype(np.float64)
    codes = data.codes(name)
    return np.where(codes < 0, np.nan, codes).astype(np.float64)


def lone_variables(
    variables: tuple[str, ...],
    minimum_cell: int,
    *,
    less: str | None = None,
    by: str | None = None,
    num_groups: int = 1,
) -> Steps[Mask]:
    """Ask which variables are nearly the same in all but few of a group's records.

    Returns:
        Shape (num_variables, num_groups).

    Guarantees:
        lone_values_are_found: a variable with one value in all but 1 to `minimum_cell - 1` of a group's records.
    """
    middles = np.zeros((len(variables), num_groups))
    if minimum_cell == 1:
        return np.zeros(middles.shape, bool)
    where = variables, less, by
    first = (yield from ask(sides, *where, middles)).sum
    middles = (first.above - first.below) / np.maximum(first.num_values, 1)
    found = (yield from ask(sides, *where, middles)).sum
    num_few = np.minimum(found.num_above, found.num_below)
    # Of fewer values than may be shown nothing is told anyway.
    is_suspect = (num_few > 0) & (num_few < minimum_cell) & (found.num_values >= minimum_cell)
    if not is_suspect.any():
        return is_suspect
    places, reaches = places_of_others(
        found.num_above, found.num_below, found.above, found.below, found.num_values, middles, near=NEAR
    )
    num_far = (yield from ask(far, *where, places, reaches)).sum.num_far
    # Of a handful of records with values of all sizes, no few stand apart from the others.
    are_apart = (num_far <= num_few) | (found.num_values - num_far >= 2 * num_far)
    return is_suspect & are_apart & (num_far > 0) & (num_far < minimum_cell)


def refuse_lone_variables(
    variables: tuple[str, ...], minimum_cell: int, where: str, *, less: str | None = None
) -> Steps[None]:
    """Ask whether a variable tells of few records.

    Raises:
        DisclosureError: one does; names it.

    Guarantees:
        variables_of_few_are_refused: nothing is summed of a variable with one value in all but 1 to
            `minimum_cell - 1` records but what finds that out.
    """
    is_lone = yield from lone_variables(variables, minimum_cell, less=less)
    lone = [
        name if less is None else f"{name} - {less}"
        for name, lone in zip(variables, is_lone[:, 0], strict=True)
        if lone
    ]
    if lone:
        raise DisclosureError(
            "minimum_cell",
            f"{where}: all records but fewer than {minimum_cell} have nearly the same value in "
            f"{', '.join(lone[:_MOST_NAMED])}, which would tell of those few; leave it out, or make it "
            "tell of more records",
        )
