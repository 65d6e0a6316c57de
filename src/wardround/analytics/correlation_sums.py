"""Means, spreads and cross-products of variables from sums: what correlations, components and clusters are made of.

Three asks: sums, from which the means follow; sums of distances from these means, from which each variable's own unit
follows (so that the next sums keep their digits, whatever the variable is measured in); cross-products of the
standardised values. What is left of the means by rounding is taken off at the end.

References:
    Chan, Golub, LeVeque (1983), Algorithms for computing the sample variance, The American Statistician 37(3),
    equation 1.7 (corrected two-pass).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.design import complete_rows
from wardround.analytics.linear import pack_symmetric, unpack_symmetric
from wardround.analytics.preparation import CONSTANT_SPREAD, SMALLEST_SCALE
from wardround.data.contract import Contract, Setting
from wardround.data.table import Table
from wardround.errors import ConfigError, DataError, DisclosureError
from wardround.sums import Array, Contribution, Steps, ask, exact, people, site_function

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

MAX_VARIABLES = 500
"""Most variables of one analysis; its sums have a number for every pair (unit: variables)."""
BLOCK_ELEMENTS = 2**17
"""Numbers that a site holds at a time beside its table (unit: elements)."""


def checked_variables(contract: Contract, names: tuple[str, ...] | None, where: str, least: int) -> tuple[str, ...]:
    """The named variables, or all numbers and integers of the contract.

    Raises:
        ConfigError: a variable that is unknown, listed twice or no number; fewer than `least`, or over
            `MAX_VARIABLES`.
    """
    if names is None:
        kinds = ("number", "integer")
        names = tuple(v.name for v in contract.variables if v.type in kinds and v.name != contract.patient)
    for name in names:
        variable = contract.variable(name, where)
        if not (variable.is_numeric or variable.type == "boolean"):
            raise ConfigError(
                f"{where}: {name!r} is a {variable.type}, not a number; leave it out, or declare what it measures"
            )
    check_distinct(names, where, least)
    return names


def check_distinct(names: tuple[str, ...], where: str, least: int) -> None:
    """Raises `ConfigError` for a name listed twice, fewer than `least` names, or more than `MAX_VARIABLES`."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"{where}: {twice!r} is listed twice; list it once")
    if not least <= len(names) <= MAX_VARIABLES:
        raise ConfigError(f"{where}: name from {least} to {MAX_VARIABLES} numeric variables, got {len(names)}")


def check_confidence(confidence: float, where: str) -> None:
    """Raises `ConfigError` unless it is in [0.5, 1)."""
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"{where}.confidence: must be in [0.5, 1), got {confidence}")


class Spreads(Contribution):
    """Sums of values about given centres and of their distances from them, by variable."""

    num_records: int = people()
    num_complete: int = people()
    num_values: Counts = people("num_variables")
    sums: Array = exact("num_variables")
    distances: Array = exact("num_variables")


class Products(Contribution):
    """Sums and cross-products of standardised values over complete records."""

    sums: Array = exact("num_variables")
    cross: Array = exact("num_products")


class PairProducts(Contribution):
    """For each two variables, sums over the records in which both are known.

    Element (i, j): how many records; the sum and the sum of squares of variable i; the sum of products.
    """

    num_pairs: Counts = people("num_variables", "num_variables")
    sums: Array = exact("num_variables", "num_variables")
    squares: Array = exact("num_variables", "num_variables")
    cross: Array = exact("num_variables", "num_variables")


def sizes(variables: tuple[str, ...], **_: Any) -> dict[str, float]:
    """Values of the names in the declarations above."""
    size = len(variables)
    return {"num_variables": size, "num_products": size * (size + 1) // 2}


def num_moments(variables: tuple[str, ...], **_: Any) -> int:
    """Means and covariances of these variables: the parameters of a normal distribution."""
    return len(variables) * (len(variables) + 3) // 2


def num_complete_rows(data: Table, variables: tuple[str, ...], **_: Any) -> int:
    """How many records of a table have a value of each of these variables."""
    return len(complete_rows(data, variables))


def standardised_blocks(data: Table, variables: tuple[str, ...], centers: Floats, scales: Floats) -> Iterator[Floats]:
    """`(value - center) / scale` in blocks of rows, NaN where missing; shape (num_rows, num_variables) each.

    Raises:
        DataError: the centres or scales do not fit the variables, or the scales are not positive.
    """
    shape = (len(variables),)
    if centers.shape != shape or scales.shape != shape or not (np.isfinite(centers).all() and (scales > 0).all()):
        raise DataError("centers and scales must have one number a variable, the scales greater than 0")
    columns = [data.numbers(name) for name in variables]
    step = max(1, BLOCK_ELEMENTS // max(len(variables), 1))
    for start in range(0, data.num_records, step):
        # Column by column in memory, as the columns lie.
        block = np.stack([column[start : start + step] for column in columns])
        block -= centers[:, None]
        block /= scales[:, None]
        yield block.T


def complete_blocks(data: Table, variables: tuple[str, ...], centers: Floats, scales: Floats) -> Iterator[Floats]:
    """As `standardised_blocks`, of the records in which no variable is missing."""
    for block in standardised_blocks(data, variables, centers, scales):
        is_missing = np.isnan(block).any(axis=1)
        yield block[~is_missing] if is_missing.any() else block


@site_function("correlation.spreads", version=1, symbols=sizes)
def spreads(data: Table, variables: tuple[str, ...], centers: Array, complete_only: bool) -> Spreads:
    """Sums of values about centres and of their distances from these.

    Args:
        data: this site's table.
        variables: names of numeric variables.
        centers: shape (num_variables,).
        complete_only: whether records in which any of the variables is missing are left out.
    """
    num_complete, num_values = 0, np.zeros(len(variables), np.int64)
    total = np.zeros((2, len(variables)))
    for block in standardised_blocks(data, variables, centers, np.ones(len(variables))):
        is_known: NDArray[np.bool_] = ~np.isnan(block)
        is_complete: NDArray[np.bool_] = np.all(is_known, axis=1)
        num_complete += int(is_complete.sum())
        num_values += is_known.sum(axis=0)
        if not is_complete.all():
            block = np.where(is_known & (is_complete[:, None] | (not complete_only)), block, 0.0)
        total += block.sum(axis=0), np.abs(block).sum(axis=0)
    return Spreads(
        num_records=data.num_records,
        num_complete=num_complete,
        num_values=num_values,
        sums=total[0],
        distances=total[1],
    )


@site_function("correlation.products", version=1, symbols=sizes, parameters=num_moments, rows=num_complete_rows)
def products(data: Table, variables: tuple[str, ...], centers: Array, scales: Array) -> Products:
    """Sums and cross-products of standardised values over the complete records.

    Args:
        data: this site's table.
        variables: names of numeric variables.
        centers: taken off, shape (num_variables,).
        scales: divided by, shape (num_variables,), positive.
    """
    sums, cross = np.zeros(len(variables)), np.zeros((len(variables), len(variables)))
    for block in complete_blocks(data, variables, centers, scales):
        sums += block.sum(axis=0)
        cross += block.T @ block
    return Products(sums=sums, cross=pack_symmetric(cross))


@site_function("correlation.pair_products", version=1, symbols=sizes, parameters=num_moments)
def pair_products(data: Table, variables: tuple[str, ...], centers: Array, scales: Array) -> PairProducts:
    """Sums over the records in which both variables of a pair are known, for every pair.

    Args:
        data: this site's table.
        variables: names of numeric variables.
        centers: taken off, shape (num_variables,).
        scales: divided by, shape (num_variables,), positive.
    """
    shape = (len(variables), len(variables))
    num_pairs, total = np.zeros(shape), np.zeros((3, *shape))
    for block in standardised_blocks(data, variables, centers, scales):
        is_known = (~np.isnan(block)).astype(np.float64)
        values = np.where(np.isnan(block), 0.0, block)
        num_pairs += is_known.T @ is_known
        total += values.T @ is_known, (values**2).T @ is_known, values.T @ values
    return PairProducts(num_pairs=num_pairs.astype(np.int64), sums=total[0], squares=total[1], cross=total[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Standardisation:
    """Where the variables lie and how far they spread.

    Attributes:
        variables: their names.
        center: means, shape (num_variables,); 0 for a variable without values.
        scale: mean distances from the means, 1 for a constant, shape (num_variables,).
        is_constant: whether all values are equal, or there are none, shape (num_variables,).
        num_values: values known, shape (num_variables,).
        num_records: records at the sites.
        num_complete: records in which no variable is missing.
        sites: that answered.
    """

    variables: tuple[str, ...]
    center: Floats
    scale: Floats
    is_constant: NDArray[np.bool_]
    num_values: Counts
    num_records: int
    num_complete: int
    sites: tuple[str, ...]

    def refuse_constants(self, where: str) -> None:
        """Raises `DataError` naming the variables that are constant."""
        constant = [name for name, flag in zip(self.variables, self.is_constant, strict=True) if flag]
        if constant:
            raise DataError(f"{where}: {', '.join(constant[:10])}: all values are equal; leave it out")


def standardisation(variables: tuple[str, ...], complete_only: bool) -> Steps[Standardisation]:
    """Means and mean distances from them, in two asks.

    Raises:
        DataError: a variable spreads less than can be summed.
    """
    first = yield from ask(spreads, variables, np.zeros(len(variables)), complete_only)
    used = np.full(len(variables), first.sum.num_complete) if complete_only else first.sum.num_values
    count = np.maximum(used, 1)
    about = first.sum.sums / count
    second = (yield from ask(spreads, variables, about, complete_only)).sum
    scale = second.distances / count
    is_constant = scale <= CONSTANT_SPREAD * np.abs(about)
    tiny = [name for name, s, c in zip(variables, scale, is_constant, strict=True) if s < SMALLEST_SCALE and not c]
    if tiny:
        raise DataError(f"{', '.join(tiny[:10])}: spreads less than {SMALLEST_SCALE:g}; use a smaller unit")
    return Standardisation(
        variables=variables,
        center=about + second.sums / count,
        scale=np.where(is_constant, 1.0, scale),
        is_constant=is_constant,
        num_values=second.num_values,
        num_records=second.num_records,
        num_complete=second.num_complete,
        sites=first.sites,
    )


def check_complete(setting: Setting, found: Standardisation, where: str) -> None:
    """Raise where there are too few complete records to show anything of them.

    Raises:
        DataError: no record is complete; names variables that nobody has.
        DisclosureError: fewer complete records than may be shown.
    """
    if found.num_complete == 0:
        empty = [name for name, count in zip(found.variables, found.num_values, strict=True) if not count]
        culprit = f"; missing everywhere: {', '.join(empty[:10])}" if empty else ""
        raise DataError(f"{where}: no record is complete{culprit}; leave out variables that are mostly missing")
    if setting.disclosure.is_small(found.num_complete):
        raise DisclosureError(
            "minimum_cell", f"{where}: too few records are complete in all of its variables; name fewer variables"
        )


def covariance(found: Standardisation) -> Steps[tuple[Floats, Floats]]:
    """Means and covariances (denominator n - 1) over the complete records, of the standardised values.

    Returns:
        The variables' means in their own units, shape (num_variables,), and the covariance of `(x - center) /
        scale`, shape (num_variables, num_variables).
    """
    total = (yield from ask(products, found.variables, found.center, found.scale)).sum
    left = total.sums / found.num_complete
    centred = unpack_symmetric(total.cross) - found.num_complete * np.outer(left, left)
    return found.center + left * found.scale, centred / max(found.num_complete - 1, 1)
