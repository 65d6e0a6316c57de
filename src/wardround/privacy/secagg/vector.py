"""A contribution as the words that are masked, sent and added: exact numbers, then counts, then bounded fields."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.privacy.secagg.wire import digest
from wardround.sums.accumulator import Encoded, decode, encode, num_bounded_words
from wardround.sums.codec import Ring128
from wardround.sums.contribution import Bounded, Contribution, FieldLayout, Flat, Layout
from wardround.sums.kernels import add_words

__all__ = [
    "CHUNK_WORDS",
    "VectorShape",
    "add_words",
    "chunks",
    "contribution_of",
    "layout_digest",
    "shape_of",
    "to_words",
]

CHUNK_WORDS = 2**17
"""Words that travel together (unit: words)."""


@dataclass(frozen=True, slots=True)
class VectorShape:
    """How many words a vector has: `num_wide` pairs added modulo 2^128, then `num_narrow` modulo 2^64."""

    num_wide: int
    num_narrow: int

    @property
    def num_words(self) -> int:
        """Words in all."""
        return 2 * self.num_wide + self.num_narrow

    @property
    def num_bytes(self) -> int:
        """Bytes in all."""
        return 8 * self.num_words

    @property
    def num_chunks(self) -> int:
        """Chunks that it travels in."""
        return -(-self.num_words // CHUNK_WORDS)


def shape_of(layout: Layout, num_sites: int) -> VectorShape:
    """The shape of the vectors of a sum over at most `num_sites` sites."""
    num_packed = sum(num_bounded_words(field, num_sites) for field in layout.bounded)
    return VectorShape(layout.num_exact, layout.num_people + num_packed)


def layout_digest(layout: Layout, num_sites: int) -> bytes:
    """The digest of everything that says what a vector's words mean: both sides must have the same.

    Guarantees:
        layout_digest_changes_with_the_layout: with the contribution's name, a field's kind, name, place, shape, clip
            norm or bits, and with `num_sites`.
    """
    parts = [layout.contribution.__name__.encode(), struct.pack("<I", num_sites)]
    for kind, fields in ((b"exact", layout.exact), (b"people", layout.people), (b"bounded", layout.bounded)):
        for field in fields:
            sizes = struct.pack(f"<{len(field.shape)}Q", *field.shape)
            parts += [kind, field.name.encode(), sizes, _bounds(field)]
    return digest("layout", *parts)


def _bounds(field: FieldLayout) -> bytes:
    declaration = field.declaration
    if not isinstance(declaration, Bounded):
        return b""
    return struct.pack("<dI", float(declaration.clip_norm), int(declaration.bits))


def to_words(flat: Flat, layout: Layout, num_sites: int, rng: np.random.Generator | None) -> NDArray[np.uint64]:
    """Encode a flattened contribution into a new vector, as `encode` does.

    Args:
        flat: from `layout.flatten`.
        layout: of the ask.
        num_sites: how many contributions may be added up.
        rng: source of the rounding; needed where a field is bounded.

    Returns:
        Shape (num_words,).

    Raises:
        ContributionError: a number cannot be summed; names the field.
    """
    words = np.empty(shape_of(layout, num_sites).num_words, np.uint64)
    encode(flat, layout, num_sites, rng, out=_parts(words, layout, num_sites))
    return words


def contribution_of(words: NDArray[np.uint64], layout: Layout, num_sites: int, num_summed: int) -> Contribution:
    """Decode the sum of `num_summed` vectors: what `Accumulator.total` gives for the same contributions, bit for bit.

    Args:
        words: shape (num_words,); not changed, and not kept.
        layout: of the ask.
        num_sites: how many contributions the sum was planned for.
        num_summed: how many there are in it.
    """
    return decode(_parts(words, layout, num_sites), layout, num_sites, num_summed)


def _parts(words: NDArray[np.uint64], layout: Layout, num_sites: int) -> Encoded:
    """Views of a vector."""
    num_wide, num_people = layout.num_exact, layout.num_people
    exact, people, packed = np.split(words, [2 * num_wide, 2 * num_wide + num_people])
    ends = np.cumsum([num_bounded_words(field, num_sites) for field in layout.bounded])
    bounded = tuple(np.split(packed, ends[:-1])) if layout.bounded else ()
    return Encoded(Ring128(exact[1::2].view(np.int64), exact[::2]), people, bounded)


def chunks(words: NDArray[np.uint64]) -> Iterator[memoryview]:
    """A vector's bytes, `CHUNK_WORDS` words at a time, the last ones fewer; views, not copies."""
    for start in range(0, words.size, CHUNK_WORDS):
        yield words[start : start + CHUNK_WORDS].data.cast("B")
