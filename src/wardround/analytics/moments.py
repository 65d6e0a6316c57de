"""Means and sums of squares from sums: two asks, exact at any offset and in any unit.

The first ask finds the means, the second adds up powers of the deviations from them, so that nothing is lost
to cancellation as in `sum(x^2) - n * mean^2`; the sums of groups are then combined pairwise. Exact sums keep 64
binary digits after the point, hence two scalings by powers of two, which lose nothing: values are divided by
a bound on their size, and deviations are added up in slots by their size, each slot in a unit of its own. What is
below 1e-40 in size is taken as 0.

References:
    Chan, Golub, LeVeque (1983), Algorithms for computing the sample variance, The American Statistician 37(3),
    equations 1.7 (corrected two-pass) and 2.1 (combination).
    Welford (1962), Note on a method for calculating corrected sums of squares, Technometrics 4(3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.grouping import group_codes, present_by_group
from wardround.data.table import Numbers, Table
from wardround.sums import Array, Contribution, Steps, ask, exact, site_function

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

SLOT_BITS = 16
"""Width of a slot of deviations (unit: powers of two)."""
NUM_SLOTS = 4
"""Slots cover deviations from 2^1 down to 2^-62 of the bound; float64 numbers that size cannot differ by less."""
HEADROOM_BITS = 10
"""Deviations are scaled up by this power of two: 2^41 records fit, and each slot keeps a float64's precision."""


class Sums(Contribution):
    """Sums of values by group, in units of each variable's bound."""

    total: Array = exact("num_variables", "num_groups")


class Deviations(Contribution):
    """Sums of deviations from given centres and of their squares, in slots by size."""

    first: Array = exact("num_variables", "num_groups", NUM_SLOTS)
    second: Array = exact("num_variables", "num_groups", NUM_SLOTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Counts, means and centred sums of squares.

    Attributes:
        count: number of values, shape (num_variables, num_groups).
        origin: a number near the values, shape (num_variables,).
        offset: mean less origin, 0 where there are no values, shape (num_variables, num_groups). Means are compared
            by their offsets: at 1e9 the means themselves are rounded to 1e-7.
        square_sum: sum of squared deviations from the mean; same shape.
    """

    count: Counts
    origin: Floats
    offset: Floats
    square_sum: Floats

    @property
    def mean(self) -> Floats:
        """Means, shape (num_variables, num_groups)."""
        return self.origin[:, None] + self.offset

    @property
    def standard_deviation(self) -> Floats:
        """With denominator `count - 1`; NaN where count < 2. Same shape."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.count > 1, np.sqrt(self.square_sum / (self.count - 1)), np.nan)

    def with_everybody(self) -> Moments:
        """All groups together as column 0, before the groups; shape (num_variables, 1 + num_groups)."""
        count = self.count.sum(axis=1, keepdims=True)
        offset = (self.count * self.offset).sum(axis=1, keepdims=True) / np.maximum(count, 1)
        between = (self.count * (self.offset - offset) ** 2).sum(axis=1, keepdims=True)
        square_sum = self.square_sum.sum(axis=1, keepdims=True) + between
        return Moments(
            count=np.hstack([count, self.count]),
            origin=self.origin,
            offset=np.hstack([offset, self.offset]),
            square_sum=np.hstack([square_sum, self.square_sum]),
        )


def _sum_symbols(variables: tuple[str, ...], scales: Array, by: str | None, num_groups: int) -> dict[str, float]:
    return {"num_variables": len(variables), "num_groups": num_groups}


@site_function("moments.sums", version=1, symbols=_sum_symbols)
def sums(data: Table, variables: tuple[str, ...], scales: Array, by: str | None, num_groups: int) -> Sums:
    """Sums of numeric variables by group.

    Args:
        data: this site's table.
        variables: names of numeric variables.
        scales: powers of two no value exceeds in size, shape (num_variables,).
        by: grouping variable; None: all records are in one group.
        num_groups: its number of levels, 1 without one.
    """
    codes = group_codes(data, by, num_groups)
    total = np.zeros((len(variables), num_groups))
    for row, (name, scale) in enumerate(zip(variables, scales, strict=True)):
        for group, values in enumerate(present_by_group(data.numbers(name), codes, num_groups)):
            total[row, group] = (values / scale).sum()
    return Sums(total=total)


def _deviation_symbols(
    variables: tuple[str, ...], scales: Array, centres: Array, by: str | None, num_groups: int
) -> dict[str, float]:
    return {"num_variables": len(variables), "num_groups": num_groups}


@site_function("moments.deviations", version=1, symbols=_deviation_symbols)
def deviations(
    data: Table, variables: tuple[str, ...], scales: Array, centres: Array, by: str | None, num_groups: int
) -> Deviations:
    """Sums of deviations from given centres and of their squares, by group and size of the deviation.

    Args:
        data: this site's table.
        variables: names of numeric variables.
        scales: powers of two no value exceeds in size, shape (num_variables,).
        centres: what to subtract, shape (num_variables, num_groups).
        by: grouping variable; None: all records are in one group.
        num_groups: its number of levels, 1 without one.
    """
    codes = group_codes(data, by, num_groups)
    first = np.zeros((len(variables), num_groups, NUM_SLOTS))
    second = np.zeros_like(first)
    for row, (name, scale) in enumerate(zip(variables, scales, strict=True)):
        for group, values in enumerate(present_by_group(data.numbers(name), codes, num_groups)):
            deviation = (values - centres[row, group]) / scale
            first[row, group], second[row, group] = _slot_sums(deviation)
    return Deviations(first=first, second=second)


def _slot_sums(deviation: Numbers) -> tuple[Floats, Floats]:
    """Sums of deviations, at most 2 in size, and of their squares by slot, each in its slot's unit."""
    first, second = np.zeros(NUM_SLOTS), np.zeros(NUM_SLOTS)
    slots = np.clip((1 - np.frexp(deviation)[1]) // SLOT_BITS, 0, NUM_SLOTS - 1)
    for slot in np.unique(slots):
        scaled = np.ldexp(deviation[slots == slot], SLOT_BITS * int(slot) + HEADROOM_BITS)
        first[slot], second[slot] = scaled.sum(), np.square(scaled).sum()
    return first, second


def moments(
    variables: tuple[str, ...], count: Counts, scales: Floats, by: str | None, num_groups: int
) -> Steps[Moments]:
    """Means and centred sums of squares of numeric variables by group, in two asks.

    Args:
        variables: names of numeric variables.
        count: how many values each has in each group, shape (num_variables, num_groups).
        scales: powers of two no value exceeds in size, shape (num_variables,).
        by: grouping variable; None: all records are in one group.
        num_groups: its number of levels, 1 without one.

    Guarantees:
        exact_at_large_offsets: the spread of values near 1e9 is as precise as near 0.
        constant_has_no_spread: equal values have a square sum of exactly 0.
    """
    people = np.maximum(count, 1)
    sizes = scales[:, None]
    summed = yield from ask(sums, variables, scales, by, num_groups)
    centres = summed.sum.total / people * sizes
    deviated = yield from ask(deviations, variables, scales, centres, by, num_groups)
    # In units of `scales`: slots weigh less the finer they are.
    units = np.ldexp(1.0, -(SLOT_BITS * np.arange(NUM_SLOTS) + HEADROOM_BITS))
    first = deviated.sum.first @ units
    second = deviated.sum.second @ units**2
    # All but equal values are a few units of their last place from the centre: both terms are then exact, and so is 0.
    square_sum = np.maximum(second - first**2 / people, 0.0)
    origin = np.take_along_axis(centres, count.argmax(axis=1)[:, None], axis=1)
    offset = np.where(count > 0, centres - origin + first / people * sizes, 0.0)
    return Moments(count=count, origin=origin[:, 0], offset=offset, square_sum=square_sum * sizes**2)
