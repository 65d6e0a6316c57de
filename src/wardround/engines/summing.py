"""Who adds up a round: whoever asks the sites hands their contributions to a `Summing` and is given the total.

`PlainSum` adds in clear. `ClearSum` keeps each site's contribution beside the sum, for clear asks. `BucketSum` makes a
sum of every bucket of sites, by whatever `Summing` it is given for one, and takes medians over them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from wardround.errors import QuorumError, RemoteProtocolError
from wardround.privacy.protection import LEAST_BUCKET, LEAST_BUCKETS, bucket_sizes
from wardround.sums.accumulator import Accumulator, check_values, encode, encoded_bytes
from wardround.sums.contribution import Flat, Layout
from wardround.sums.robust import sum_over_buckets
from wardround.sums.total_checks import check_total
from wardround.sums.workflow import Total

_RING = 2.0**63
"""Every sum of exact numbers or counts is below this in size."""


class Summing(Protocol):
    """The sum of one round in the making.

    Guarantees:
        refused_site_is_not_in_the_total: an `add` that raises changes nothing, and its site is not in the total.
    """

    @property
    def layout(self) -> Layout:
        """The layout of every contribution."""

    @property
    def bytes_up(self) -> int:
        """Size of what one site sends (unit: bytes)."""

    @property
    def left_out(self) -> Mapping[str, str]:
        """After `close`: by site that was added and is not in the total, the reason."""

    def add(self, site: str, flat: Flat, rng: np.random.Generator | None) -> None:
        """Add what one site contributes; sites are added in the order of the roster.

        Args:
            site: whose it is.
            flat: from `layout.flatten`.
            rng: source of the rounding; needed where a field is bounded.

        Raises:
            ContributionError: the numbers may not be summed; names the field.
            LocalProtocolError: more contributions than the sum was planned for.
        """

    def close(self) -> Total[Any]:
        """The total over the sites that were added, with their names in that order; called once.

        Raises:
            QuorumError: too few sites are in the sum for the protection that it is to have.
            RemoteProtocolError: a site broke the rules in a way that keeps the total from being known.
        """


class PlainSum:
    """Contributions in clear to whoever adds them up: a simulation on one's own data."""

    __slots__ = ("_accumulator", "_num_sites", "_sites", "layout")

    left_out: Mapping[str, str] = MappingProxyType({})

    def __init__(self, layout: Layout, num_sites: int) -> None:
        self.layout = layout
        self._num_sites = num_sites
        self._accumulator = Accumulator(layout, num_sites)
        self._sites: list[str] = []

    @property
    def bytes_up(self) -> int:
        """Size of one encoded contribution (unit: bytes)."""
        return encoded_bytes(self.layout, self._num_sites)

    def add(self, site: str, flat: Flat, rng: np.random.Generator | None) -> None:
        """As `Summing.add`."""
        self._accumulator.add_flat(flat, rng)
        self._sites.append(site)

    def close(self) -> Total[Any]:
        """As `Summing.close`; raises nothing."""
        return Total(self._accumulator.total(), tuple(self._sites))


def plain_sum(layout: Layout, num_sites: int) -> Summing:
    """A round's sum over at most `num_sites` sites, added up in clear."""
    return PlainSum(layout, num_sites)


class ClearSum:
    """A sum that keeps each site's contribution: the answer to a clear ask.

    Guarantees:
        clear_total_is_the_same: the sum is, to the last bit, the one without `parts`.
    """

    left_out: Mapping[str, str] = MappingProxyType({})

    def __init__(self, layout: Layout, num_sites: int) -> None:
        self.layout = layout
        self._num_sites = num_sites
        self._accumulator = Accumulator(layout, num_sites)
        self._parts: list[Total[Any]] = []

    @property
    def bytes_up(self) -> int:
        """Size of one encoded contribution (unit: bytes)."""
        return encoded_bytes(self.layout, self._num_sites)

    def add(self, site: str, flat: Flat, rng: np.random.Generator | None) -> None:
        """As `Summing.add`."""
        encoded = encode(flat, self.layout, self._num_sites, rng)
        self._accumulator.add(encoded)
        own = Accumulator(self.layout, self._num_sites)
        own.add(encoded)
        self._parts.append(Total(own.total(), (site,)))

    def close(self) -> Total[Any]:
        """As `Summing.close`."""
        sites = tuple(site for part in self._parts for site in part.sites)
        return Total(self._accumulator.total(), sites, tuple(self._parts))


def buckets_of(sites: Sequence[str], bucket_size: int) -> tuple[tuple[str, ...], ...]:
    """The buckets of a roster: neighbours in it, the same ones for a whole run.

    Raises:
        ConfigError: there would be fewer than three buckets.
    """
    ends = list(itertools.accumulate(bucket_sizes(len(sites), bucket_size)))
    return tuple(tuple(sites[start:end]) for start, end in zip([0, *ends], ends, strict=False))


class BucketSum:
    """A sum of every bucket of sites, and the median over these where a field is bounded (`sum_over_buckets`).

    Args:
        layout: of the ask; has a bounded field.
        buckets: of the roster, from `buckets_of`.
        make_sum: makes the sum of one bucket of these sites; None where too few of them are there to make one.

    Guarantees:
        small_buckets_are_left_out: no part is over fewer than three sites.
        median_is_over_three_buckets_or_more: a round in which fewer are left has no total.
    """

    def __init__(
        self,
        layout: Layout,
        buckets: Sequence[tuple[str, ...]],
        make_sum: Callable[[tuple[str, ...]], Summing | None],
    ) -> None:
        self.layout = layout
        self.left_out: Mapping[str, str] = MappingProxyType({})
        self._num_sites = sum(map(len, buckets))
        self._buckets = tuple(_Bucket(sites, make_sum(sites), []) for sites in buckets)
        self._bucket_of = {site: bucket for bucket in self._buckets for site in bucket.roster}

    @property
    def bytes_up(self) -> int:
        """Size of what a site of the largest bucket sends (unit: bytes)."""
        return max((bucket.summing.bytes_up for bucket in self._buckets if bucket.summing), default=0)

    def add(self, site: str, flat: Flat, rng: np.random.Generator | None) -> None:
        """As `Summing.add`."""
        check_values(flat, self.layout, self._num_sites)  # the buckets' sums will be added up, too
        bucket = self._bucket_of[site]
        if bucket.summing:
            bucket.summing.add(site, flat, rng)
        bucket.added.append(site)

    def close(self) -> Total[Any]:
        """As `Summing.close`; sites of a bucket of which fewer than three are left are left out."""
        parts: list[Total[Any]] = []
        left_out: dict[str, str] = {}
        for number, bucket in enumerate(self._buckets, start=1):
            part = bucket.close()
            if part is None:
                left_out |= dict.fromkeys(bucket.added, _too_few(number, bucket))
            else:
                check_total(part, self.layout)  # before it is added to others
                parts.append(part)
            left_out |= bucket.summing.left_out if bucket.summing else {}
        if len(parts) < LEAST_BUCKETS:
            raise QuorumError(_too_few_buckets(len(parts), len(self._buckets)))
        _check_together(self.layout, parts)
        self.left_out = MappingProxyType(left_out)
        sites = tuple(site for part in parts for site in part.sites)
        return Total(sum_over_buckets(self.layout, parts), sites, tuple(parts))


def _check_together(layout: Layout, parts: Sequence[Total[Any]]) -> None:
    """Each part is within the ring, but their sum may not be, and would come out as another number."""
    flats = [layout.flatten(part.sum) for part in parts]
    exact = np.sum([flat.exact for flat in flats], axis=0)
    people = np.sum([flat.people.astype(np.float64) for flat in flats], axis=0)
    if max(np.abs(exact).max(initial=0.0), people.max(initial=0.0)) >= _RING:
        sites = ", ".join(site for part in parts for site in part.sites)
        raise RemoteProtocolError(
            f"{layout.contribution.__name__}: the buckets' sums together are beyond the ring: one of {sites} sent more "
            "than it may"
        )


@dataclass(frozen=True, slots=True)
class _Bucket:
    roster: tuple[str, ...]
    summing: Summing | None
    added: list[str]

    def close(self) -> Total[Any] | None:
        """The bucket's total; None where too few sites are left in it."""
        if self.summing is None or len(self.added) < LEAST_BUCKET:
            return None
        try:
            total = self.summing.close()
        except QuorumError:
            return None
        return total if total.num_sites >= LEAST_BUCKET else None


def _too_few(number: int, bucket: _Bucket) -> str:
    return (
        f"left out with its bucket (number {number}: {', '.join(bucket.roster)}), of which fewer than {LEAST_BUCKET} "
        "sites are left"
    )


def _too_few_buckets(num_left: int, num_buckets: int) -> str:
    return (
        f"{num_left} of {num_buckets} buckets have {LEAST_BUCKET} sites or more left, and a median over fewer than "
        f"{LEAST_BUCKETS} holds nothing off; run again when more sites can be reached, or choose larger buckets "
        "(bucket_size)"
    )
