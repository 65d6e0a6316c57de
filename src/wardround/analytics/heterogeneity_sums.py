"""How far each site is from all of them together: the sites' half of `heterogeneity`.

A site compares its own counts and means with those of all sites, which it is sent, and gives back the distances:
added up over sites, or, where that is allowed, its counts in its own slot. Both lead to the same numbers, as both
go through `deviations`.

References:
    Kruskal, Wallis (1952), JASA 47: the rank test, here on the bins' middle ranks.
    Lin (1991), Divergence measures based on the Shannon entropy, IEEE Transactions on Information Theory 37.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.brackets import Counts
from wardround.analytics.design import Design, Frame, evaluate_blocks
from wardround.analytics.families import mean_of
from wardround.analytics.glm_sums import Model, check_columns, sizes, working
from wardround.analytics.grouping import count_codes, level_codes
from wardround.analytics.linear import pack_symmetric
from wardround.data.table import Table
from wardround.errors import DataError
from wardround.sums import Array, Contribution, exact, people, site_function

Values = NDArray[np.float64]

NOTABLE = 0.25
"""Standardised difference from all sites above which a site counts as notably different."""
SMALL_EXPECTED = 5.0
"""Expected count below which a chi-square test is rough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What is compared between sites: a variable's values in bins, or whether it is missing.

    Attributes:
        variable: its name.
        kind: number, category, or whether the variable is missing.
        edges: inner edges of a number's bins, ascending; bins are closed above.
        num_levels: of a category.
        center: mean of a number over all sites.
        scale: its standard deviation.
    """

    variable: str
    kind: Literal["number", "category", "missing"]
    edges: tuple[float, ...] = ()
    num_levels: int = 2
    center: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.scale > 0 or list(self.edges) != sorted(set(self.edges)) or self.num_levels < 1:
            raise ValueError(f"{self.variable}: edges must increase, scale be above 0, and there be a level")

    @property
    def num_bins(self) -> int:
        """Bins that its records are counted in."""
        return len(self.edges) + 1 if self.kind == "number" else self.num_levels


def _present(data: Table, item: Item) -> Values:
    values = data.numbers(item.variable)
    return values[~np.isnan(values)]


def count_item(data: Table, item: Item) -> Counts:
    """A site's records in each bin of an item, shape (num_bins,)."""
    if item.kind == "missing":
        num_missing = int(data.is_missing(item.variable).sum())
        return np.array([data.num_records - num_missing, num_missing], np.int64)
    if item.kind == "category":
        return count_codes(level_codes(data, item.variable, item.num_levels), item.num_levels)
    places = np.searchsorted(np.array(item.edges), _present(data, item), side="left")
    return np.bincount(places, minlength=item.num_bins).astype(np.int64)


def _bin_symbols(items: tuple[Item, ...], **_: Any) -> dict[str, float]:
    return {"num_items": len(items), "num_bins": sum(item.num_bins for item in items)}


class Histograms(Contribution):
    """Records in each bin of each item, and sums of the standardised numbers there."""

    num_records: int = people()
    num_patients: int = people()
    num_in_bin: Counts = people("num_bins")
    sums: Array = exact("num_bins")


@site_function("heterogeneity.histograms", version=1, symbols=_bin_symbols)
def histograms(data: Table, items: tuple[Item, ...]) -> Histograms:
    """Counts of this site's records by bin, and sums of the standardised values of numbers in each."""
    sums = []
    for item in items:
        total: Values = np.zeros(item.num_bins)
        if item.kind == "number":
            values = _present(data, item)
            places = np.searchsorted(np.array(item.edges), values, side="left")
            standard = (values - item.center) / item.scale
            total = np.bincount(places, weights=standard, minlength=item.num_bins).astype(np.float64)
        sums.append(total)
    return Histograms(
        num_records=data.num_records,
        num_patients=data.num_patients,
        num_in_bin=np.concatenate([count_item(data, item) for item in items]),
        sums=np.concatenate(sums),
    )


class SiteHistograms(Contribution):
    """Records by bin, and the first two moments of the standardised numbers, in each site's own slot."""

    num_records: Counts = people("num_sites")
    num_in_bin: Counts = people("num_sites", "num_bins")
    mean: Array = exact("num_sites", "num_items")
    square_sum: Array = exact("num_sites", "num_items")


@site_function(
    "heterogeneity.site_histograms",
    version=1,
    symbols=lambda items, sites: {**_bin_symbols(items), "num_sites": len(sites)},
    per_site=True,
)
def site_histograms(data: Table, items: tuple[Item, ...], sites: tuple[str, ...]) -> SiteHistograms:
    """This site's counts by bin, and the mean and the centred sum of squares of its numbers, in its own slot."""
    num_bins = sum(item.num_bins for item in items)
    num_records = np.zeros(len(sites), np.int64)
    counts = np.zeros((len(sites), num_bins), np.int64)
    mean, square_sum = np.zeros((len(sites), len(items))), np.zeros((len(sites), len(items)))
    for slot in [slot for slot, site in enumerate(sites) if site == data.site]:
        num_records[slot] = data.num_records
        counts[slot] = np.concatenate([count_item(data, item) for item in items])
        mean[slot], square_sum[slot] = np.array([_moments(data, item) for item in items]).T
    return SiteHistograms(num_records=num_records, num_in_bin=counts, mean=mean, square_sum=square_sum)


def _moments(data: Table, item: Item) -> tuple[float, float]:
    """Mean and centred sum of squares of a number in standard units; 0 for others."""
    if item.kind != "number" or not len(_present(data, item)):
        return 0.0, 0.0
    values = (_present(data, item) - item.center) / item.scale
    mean = float(values.mean())
    return mean, float(((values - mean) ** 2).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """How far one site is from all sites together, in one item.

    Attributes:
        num_values: its records.
        difference: of its mean from that of all sites in standard deviations; for categories the square root of the
            mean squared contingency (that is for two levels the standardised difference of the share).
        jensen_shannon: distance of the distributions over bins, base 2, in [0, 1].
        total_variation: likewise, in [0, 1].
        wasserstein: of numbers, in standard deviations, each bin at its mean; 0 for categories.
        chi_square: its part of the chi-square statistic over bins.
        between: its part of the sum of squares between sites.
        within: its part of the sum of squares within sites.
        ranks: its part of the Kruskal-Wallis statistic, before scaling.
        num_small: of its cells, those that are expected to hold fewer than 5 records.
    """

    num_values: int
    difference: float
    jensen_shannon: float
    total_variation: float
    wasserstein: float
    chi_square: float
    between: float
    within: float
    ranks: float
    num_small: int


def deviations(
    item: Item, counts: Counts, mean: float, square_sum: float, expected: Values, places: Values, ranks: Values
) -> Deviation | None:
    """Compare a site with all of them together; None where it has no record.

    Args:
        item: what is compared.
        counts: the site's, shape (num_bins,).
        mean: of its standardised numbers; 0 for other items.
        square_sum: centred, likewise.
        expected: share of all sites' records in each bin, shape (num_bins,).
        places: mean of all sites' standardised numbers in each bin, shape (num_bins,).
        ranks: middle rank of each bin less the mean rank, as a part of all records, shape (num_bins,).
    """
    num = int(counts.sum())
    if num == 0:
        return None
    share = counts / num
    used = expected > 0
    away = share - expected
    chi_square = num * float((away[used] ** 2 / expected[used]).sum())
    is_number = item.kind == "number"
    between = num * (mean**2 if is_number else float((away**2).sum()))
    within = square_sum if is_number else num * float((share * (1 - share)).sum())
    return Deviation(
        num_values=num,
        difference=mean if is_number else float(np.sqrt(chi_square / num)),
        jensen_shannon=jensen_shannon(share, expected),
        total_variation=float(np.abs(away).sum()) / 2,
        wasserstein=float(np.abs(np.cumsum(away)[:-1]) @ np.diff(places)) if is_number else 0.0,
        chi_square=chi_square,
        between=between,
        within=within,
        ranks=num * float(share @ ranks) ** 2,
        num_small=int((num * expected[used] < SMALL_EXPECTED).sum()),
    )


def jensen_shannon(one: Values, other: Values) -> float:
    """Square root of the Jensen-Shannon divergence of two distributions, base 2."""
    middle = (one + other) / 2
    total = 0.0
    for part in (one, other):
        used = part > 0
        total += float((part[used] * np.log2(part[used] / middle[used])).sum()) / 2
    return float(np.sqrt(max(total, 0.0)))


class Deviations(Contribution):
    """Sums over sites of their deviations from all sites together, by item."""

    num_sites: Array = exact("num_items")
    num_notable: Array = exact("num_items")
    size_squares: Array = exact("num_items")
    difference: Array = exact("num_items")
    jensen_shannon: Array = exact("num_items")
    total_variation: Array = exact("num_items")
    wasserstein: Array = exact("num_items")
    chi_square: Array = exact("num_items")
    between: Array = exact("num_items")
    within: Array = exact("num_items")
    ranks: Array = exact("num_items")
    num_small: Array = exact("num_items")


def summed(found: list[Deviation | None]) -> Deviations:
    """One site's deviations, item by item, as its part of the sums; distances count as often as it has records."""
    rows = np.zeros((12, len(found)))
    for column, one in enumerate(found):
        if one is not None:
            size = one.num_values
            rows[:, column] = (
                1.0,
                float(abs(one.difference) > NOTABLE),
                float(size) ** 2,
                size * one.difference**2,
                size * one.jensen_shannon,
                size * one.total_variation,
                size * one.wasserstein,
                one.chi_square,
                one.between,
                one.within,
                one.ranks,
                one.num_small,
            )
    return Deviations(**dict(zip(Deviations.declarations, rows, strict=True)))


@site_function("heterogeneity.site_deviations", version=1, symbols=lambda items, **_: {"num_items": len(items)})
def site_deviations(data: Table, items: tuple[Item, ...], expected: Array, places: Array, ranks: Array) -> Deviations:
    """How far this site is from all sites together, as its part of sums over sites.

    Args:
        data: this site's table.
        items: what is compared.
        expected: shares of all sites' records by bin, items one after another, shape (num_bins,).
        places: means of all sites' standardised numbers by bin, same shape.
        ranks: middle ranks by bin, as in `deviations`, same shape.
    """
    bounds = np.cumsum([item.num_bins for item in items])
    if any(array.shape != (bounds[-1],) for array in (expected, places, ranks)):
        raise DataError("expected, places and ranks must have one element a bin")
    parts = [np.split(array, bounds[:-1]) for array in (expected, places, ranks)]
    found = [
        deviations(item, count_item(data, item), *_moments(data, item), *references)
        for item, *references in zip(items, *parts, strict=True)
    ]
    return summed(found)


class SiteScores(Contribution):
    """What a score test of intercepts of the sites needs: sums over sites of each site's own sums."""

    square: float = exact()
    cross: Array = exact("num_columns")
    gram: Array = exact("num_pairs")
    num_sites: float = exact()


@site_function("heterogeneity.site_scores", version=1, symbols=sizes, parameters=lambda design, **_: design.num_columns)
def site_scores(data: Table, design: Design, frame: Frame, model: Model, coefficients: Array) -> SiteScores:
    """This site's residual, squared and over its weight, with its weighted column sums.

    Args:
        data: this site's table.
        design: the columns.
        frame: rows and outcome.
        model: family and link.
        coefficients: of the model without sites, shape (num_columns,).
    """
    check_columns(design, coefficients=np.atleast_1d(coefficients))
    residual = weight = 0.0
    columns = np.zeros(design.num_columns)
    for block in evaluate_blocks(data, design, frame):
        eta = block.x @ coefficients + block.offset
        mu = mean_of(model.link, model.family, eta)
        weights, factor = working(block, model, eta, mu)
        residual += float(factor @ (block.y - mu))
        weight += float(weights.sum())
        columns += weights @ block.x
    is_there = weight > 0
    over = 1 / weight if is_there else 0.0
    return SiteScores(
        square=residual**2 * over,
        cross=columns * residual * over,
        gram=pack_symmetric(np.outer(columns, columns) * over),
        num_sites=float(is_there),
    )
