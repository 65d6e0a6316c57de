"""A contribution encoded, and the sum of many.

A site encodes what it flattened; whoever adds up keeps one `Accumulator` a round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.errors import ContributionError, LocalProtocolError
from wardround.sums.codec import (
    BLOCK,
    FEW,
    Ring128,
    add_exact,
    check_num_sites,
    decode_bounded,
    decode_exact,
    encode_bounded,
    encode_exact,
    exact_limit,
    index_beyond,
    is_finite,
    words_for,
)
from wardround.sums.contribution import Bounded, Contribution, FieldLayout, Flat, Layout


@dataclass(frozen=True, slots=True)
class Encoded:
    """A contribution in the ring: what is masked, sent and added."""

    exact: Ring128
    people: NDArray[np.uint64]
    bounded: tuple[NDArray[np.uint64], ...]


def encoded_bytes(layout: Layout, num_sites: int) -> int:
    """Size of an encoded contribution (unit: bytes)."""
    packed = sum(num_bounded_words(field, num_sites) for field in layout.bounded)
    return 16 * layout.num_exact + 8 * layout.num_people + 8 * packed


def num_bounded_words(field: FieldLayout, num_sites: int) -> int:
    """Words that a bounded field is packed into."""
    return words_for(field.size, _bounds(field)[1], num_sites)


def _bounds(field: FieldLayout) -> tuple[float, int]:
    """Clip norm and bits of a bounded field; a layout has them bound to numbers."""
    assert isinstance(field.declaration, Bounded)
    return float(field.declaration.clip_norm), int(field.declaration.bits)


def check_values(flat: Flat, layout: Layout, num_sites: int) -> None:
    """Check that a flattened contribution may be summed over at most `num_sites` sites.

    Raises:
        ContributionError: a number is NaN, infinite or too large for the ring, or a count negative; names the field.
    """
    _check_exact_and_people(flat, layout, num_sites)
    for field, vector in zip(layout.bounded, flat.bounded, strict=True):
        if not is_finite(vector):
            raise ContributionError(f"{layout.label(field)} contains NaN or infinity")


def _check_exact_and_people(flat: Flat, layout: Layout, num_sites: int) -> None:
    index = index_beyond(flat.exact, exact_limit(num_sites))
    if index is not None:
        raise ContributionError(_complaint(layout.field_at("exact", index), float(flat.exact[index]), num_sites))
    # Read as unsigned, a negative count is a very large one.
    counts = flat.people.view(np.uint64)
    if counts.size and max(counts.tolist() if counts.size <= FEW else (counts.max(),)) > (2**63 - 1) // num_sites:
        index = int(counts.argmax())
        what = "a negative number" if flat.people[index] < 0 else "one too large to be summed"
        raise ContributionError(f"{layout.field_at('people', index)} counts people and contains {what}")


def _complaint(label: str, number: float, num_sites: int) -> str:
    if np.isnan(number):
        return f"{label} contains NaN"
    if np.isinf(number):
        return f"{label} contains infinity"
    return (
        f"{label} contains a number of {exact_limit(num_sites):.1e} or more, too large to be summed exactly; "
        "express the variable in a larger unit"
    )


def encode(
    flat: Flat, layout: Layout, num_sites: int, rng: np.random.Generator | None, out: Encoded | None = None
) -> Encoded:
    """Encode a flattened contribution for a sum over at most `num_sites` sites.

    Args:
        flat: from `layout.flatten`.
        layout: of the ask.
        num_sites: how many contributions may be added up, in [1, MAX_SITES].
        rng: source of the rounding; needed where a field is bounded.
        out: where to write, of the returned shapes.

    Raises:
        ContributionError: as `check_values` does; `out` then holds nothing of use.
    """
    check_num_sites(num_sites)
    _check_exact_and_people(flat, layout, num_sites)
    counts = flat.people.view(np.uint64)
    if out is None:
        bounded = _encode_vectors(flat, layout, num_sites, rng)
        return Encoded(encode_exact(flat.exact, num_sites), counts, bounded)
    _encode_vectors(flat, layout, num_sites, rng, out.bounded)
    encode_exact(flat.exact, num_sites, out=out.exact)
    np.copyto(out.people, counts)
    return out


def decode(total: Encoded, layout: Layout, num_sites: int, num_summed: int) -> Contribution:
    """The sum of `num_summed` encoded contributions, as a contribution; its arrays are read-only copies."""
    vectors = (
        decode_bounded(words, field.size, *_bounds(field), num_sites, num_summed)
        for field, words in zip(layout.bounded, total.bounded, strict=True)
    )
    return layout.unflatten(Flat(decode_exact(total.exact), total.people.view(np.int64).copy(), tuple(vectors)))


def _encode_vectors(
    flat: Flat,
    layout: Layout,
    num_sites: int,
    rng: np.random.Generator | None,
    out: Sequence[NDArray[np.uint64] | None] = (),
) -> tuple[NDArray[np.uint64], ...]:
    if not layout.bounded:
        return ()
    if rng is None:
        raise TypeError("bounded fields are rounded at random: rng must be given")
    words = []
    for field, vector, kept in zip(layout.bounded, flat.bounded, out or [None] * len(layout.bounded), strict=True):
        try:
            words.append(encode_bounded(vector, *_bounds(field), num_sites, rng, out=kept))
        except OverflowError:
            what = "has a norm of 1e154 or more; it has diverged" if is_finite(vector) else "contains NaN or infinity"
            raise ContributionError(f"{layout.label(field)} {what}") from None
    return tuple(words)


class Accumulator:
    """Adds contributions up as they arrive; its memory does not grow with their number.

    Guarantees:
        sums_do_not_depend_on_order: any order and grouping of the same contributions gives the same total.
        refused_contribution_changes_nothing: an `add` that raises leaves the sum as it was.
    """

    def __init__(self, layout: Layout, num_sites: int) -> None:
        check_num_sites(num_sites)
        self.layout, self._num_sites = layout, num_sites
        self._num_summed = 0
        self._exact = Ring128.zeros(layout.num_exact)
        self._people = np.zeros(layout.num_people, np.uint64)
        self._bounded = [np.zeros(num_bounded_words(field, num_sites), np.uint64) for field in layout.bounded]
        num_rows = BLOCK // max(layout.num_exact + layout.num_people, 1)
        self._rows = np.empty((min(num_sites, num_rows), layout.num_exact))
        self._people_rows = np.empty((len(self._rows), layout.num_people), np.uint64)
        self._num_rows = 0

    def add(self, encoded: Encoded) -> None:
        """Add one site's contribution.

        Raises:
            LocalProtocolError: more contributions than the sum was planned for.
        """
        self._check_room()
        self._num_summed += 1
        self._exact.add(encoded.exact)
        np.add(self._people, encoded.people, out=self._people)
        self._add_words(encoded.bounded)

    def add_flat(self, flat: Flat, rng: np.random.Generator | None) -> None:
        """The same as `add(encode(flat, ...))`, faster: small ones are encoded together, large ones block by block.

        Raises:
            ContributionError: as `encode` does.
            LocalProtocolError: more contributions than the sum was planned for.
        """
        self._check_room()
        _check_exact_and_people(flat, self.layout, self._num_sites)
        bounded = _encode_vectors(flat, self.layout, self._num_sites, rng)
        self._num_summed += 1
        self._add_words(bounded)
        if len(self._rows) > 1:
            self._rows[self._num_rows] = flat.exact
            self._people_rows[self._num_rows] = flat.people
            self._num_rows += 1
            if self._num_rows == len(self._rows):
                self._add_rows()
        else:
            add_exact(flat.exact, self._num_sites, self._exact)
            np.add(self._people, flat.people.view(np.uint64), out=self._people)

    def _check_room(self) -> None:
        if self._num_summed == self._num_sites:
            raise LocalProtocolError(f"a sum planned for {self._num_sites} sites got one more contribution")

    def _add_words(self, bounded: tuple[NDArray[np.uint64], ...]) -> None:
        for words, more in zip(self._bounded, bounded, strict=True):
            np.add(words, more, out=words)

    def _add_rows(self) -> None:
        """Encode and add the small contributions that wait."""
        rows = self._rows[: self._num_rows]
        encoded = encode_exact(rows.ravel(), self._num_sites)
        self._exact.add(Ring128(encoded.high.reshape(rows.shape), encoded.low.reshape(rows.shape)).sum_rows())
        np.add(self._people, self._people_rows[: self._num_rows].sum(axis=0), out=self._people)
        self._num_rows = 0

    def total(self) -> Contribution:
        """The sum of what was added, as a contribution; its arrays are read-only."""
        if self._num_rows:
            self._add_rows()
        total = Encoded(self._exact, self._people, tuple(self._bounded))
        return decode(total, self.layout, self._num_sites, self._num_summed)
