"""Who adds up a round: whoever asks the sites hands their contributions to a `Summing` and is given the total."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from wardround.sums.accumulator import Accumulator, encoded_bytes
from wardround.sums.contribution import Flat, Layout
from wardround.sums.workflow import Total


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
