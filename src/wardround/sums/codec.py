"""From a contribution's numbers to integers that add up exactly, and back.

*Exact* numbers become 128-bit two's-complement fixed point with 64 fractional bits, so that a sum of float64
is exact to 2^-64 a summand and does not depend on order or grouping. *Bounded* vectors are clipped, rounded
stochastically to `bits` bits, and several are packed into each 64-bit word. Counts are added as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.errors import ContributionError, LocalProtocolError
from wardround.sums.contribution import Bounded, Contribution, FieldLayout, Flat, Layout

_BLOCK = 2**15
"""Elements handled at a time, so that the temporaries stay in a core's cache (unit: elements)."""
_FRACTION = 2.0**64
_DITHER_BITS = 16
# Adding 1.5 * 2^52 to a float64 below 2^51 in size leaves its nearest integer in the low bits of the mantissa.
_MAGIC = 1.5 * 2.0**52


def exact_limit(num_sites: int) -> float:
    """Magnitude that an exact number must stay below so that no sum over `num_sites` sites can overflow."""
    return 2.0**63 / num_sites


@dataclass(frozen=True, slots=True)
class Ring128:
    """Integers modulo 2^128 in two's complement: `high * 2^64 + low`. Both of shape (..., num_elements)."""

    high: NDArray[np.int64]
    low: NDArray[np.uint64]

    @classmethod
    def zeros(cls, num_elements: int) -> Ring128:
        """The neutral element."""
        return cls(np.zeros(num_elements, np.int64), np.zeros(num_elements, np.uint64))

    def add(self, other: Ring128) -> None:
        """Add another vector in place, modulo 2^128."""
        for start in range(0, self.low.shape[-1], _BLOCK):
            block = slice(start, start + _BLOCK)
            low, high = self.low[block], self.high[block]
            np.add(low, other.low[block], out=low)
            np.add(high, other.high[block], out=high)
            np.add(high, low < other.low[block], out=high, casting="unsafe")


def encode_exact(values: NDArray[np.float64], num_sites: int) -> Ring128:
    """Round each number to the nearest multiple of 2^-64 (ties to even).

    Args:
        values: finite numbers, shape (num_elements,), each below `exact_limit(num_sites)` in size.
        num_sites: how many such vectors may be added up.

    Raises:
        OverflowError: a number is NaN, infinite or too large; its argument is the index of one such element.
    """
    limit = exact_limit(num_sites)
    high = np.empty(values.size, np.int64)
    low = np.empty(values.size, np.int64)
    buffer = np.empty(min(_BLOCK, values.size))
    whole_buffer = np.empty_like(buffer)
    for start in range(0, values.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        value = values[block]
        # NaN makes either comparison false.
        if not (value.max() < limit and value.min() > -limit):
            raise OverflowError(start + int(np.flatnonzero(~(np.abs(value) < limit))[0]))
        whole, part = whole_buffer[: value.size], buffer[: value.size]
        np.rint(value, out=whole)
        np.subtract(value, whole, out=part)  # exact: |part| <= 1/2 and its bits are bits of value
        if part.max() == 0.5:  # the one value whose 2^64-fold does not fit int64
            whole[part == 0.5] += 1.0
            part[part == 0.5] = -0.5
        np.multiply(part, _FRACTION, out=part)
        np.rint(part, out=part)
        np.copyto(high[block], whole, casting="unsafe")
        np.copyto(low[block], part, casting="unsafe")
        np.add(high[block], low[block] >> 63, out=high[block])  # sign extension of the fraction
    return Ring128(high, low.view(np.uint64))


def decode_exact(total: Ring128) -> NDArray[np.float64]:
    """The float64 numbers nearest to the fixed-point ones (within one unit in the last place)."""
    is_negative = total.high < 0
    # Negate first: rounding the two halves of a small negative number apart would lose all its digits.
    low = np.where(is_negative, ~total.low + np.uint64(1), total.low)
    high = np.where(is_negative, ~total.high + (total.low == 0), total.high).view(np.uint64)
    magnitude: NDArray[np.float64] = high.astype(np.float64) + low.astype(np.float64) / _FRACTION
    values: NDArray[np.float64] = np.where(is_negative, -magnitude, magnitude)
    return values


def slot_bits(bits: int, num_sites: int) -> int:
    """Width of a packed slot that holds the sum of `num_sites` numbers of `bits` bits."""
    return bits + max(num_sites - 1, 0).bit_length()


def words_for(num_elements: int, bits: int, num_sites: int) -> int:
    """64-bit words that a packed vector takes."""
    return -(-num_elements // (64 // slot_bits(bits, num_sites)))


def encode_bounded(
    values: NDArray[np.floating[Any]], clip_norm: float, bits: int, num_sites: int, rng: np.random.Generator
) -> NDArray[np.uint64]:
    """Clip, round stochastically, pack.

    An element x becomes a multiple of the quantum `clip_norm / (2^(bits-1) - 2)`, up or down at random with
    the probabilities that make the expectation x (to 2^-17 of a quantum: the dither has 16 bits); zero stays
    zero exactly. Slot s of all words together holds the s-th contiguous part of the vector.

    Args:
        values: finite, shape (num_elements,).
        clip_norm: Euclidean norm above which the vector is scaled down to it.
        bits: bits an element, in [4, 32].
        num_sites: how many such vectors may be added up.
        rng: source of the rounding.

    Returns:
        Words, shape (words_for(num_elements, bits, num_sites),), which may be added up modulo 2^64.
    """
    norm = float(np.sqrt(np.dot(values, values))) if values.dtype == np.float64 else float(np.linalg.norm(values))
    quantum = clip_norm / (2 ** (bits - 1) - 2)
    scale = min(1.0, clip_norm / norm if norm > 0 else 1.0) / quantum * 2.0**_DITHER_BITS
    # The +0.5 quantum-free offset keeps the integers positive; zero lies exactly on the grid.
    offset = _MAGIC + 2.0 ** (bits - 1 + _DITHER_BITS)
    width = slot_bits(bits, num_sites)
    num_words = words_for(values.size, bits, num_sites)
    words = np.zeros(num_words, np.uint64)
    mask = np.uint64((2**bits - 1) << _DITHER_BITS)
    buffer = np.empty(min(_BLOCK, num_words))
    for start in range(0, num_words, _BLOCK):
        block = slice(start, min(start + _BLOCK, num_words))
        for slot, first in enumerate(range(start, values.size, num_words)):
            value = values[first : min(first + block.stop - start, (slot + 1) * num_words, values.size)]
            scaled = buffer[: value.size]
            np.multiply(value, scale, out=scaled)
            np.add(scaled, offset, out=scaled)
            integer = scaled.view(np.uint64)
            np.add(integer, _dither(rng, value.size), out=integer)
            np.bitwise_and(integer, mask, out=integer)
            shift = slot * width - _DITHER_BITS
            (np.left_shift if shift > 0 else np.right_shift)(integer, np.uint64(abs(shift)), out=integer)
            word = words[start : start + value.size]
            np.bitwise_or(word, integer, out=word)
    return words


def _dither(rng: np.random.Generator, size: int) -> NDArray[np.uint16]:
    raw = rng.integers(0, 2**64, -(-size // 4), dtype=np.uint64)
    return raw.view(np.uint16)[:size]


def decode_bounded(
    words: NDArray[np.uint64], num_elements: int, clip_norm: float, bits: int, num_sites: int, num_summed: int
) -> NDArray[np.float64]:
    """The sum of `num_summed` vectors that were encoded for at most `num_sites`."""
    width = slot_bits(bits, num_sites)
    quantum = clip_norm / (2 ** (bits - 1) - 2)
    mask = np.uint64(2**width - 1)
    slots = [(words >> np.uint64(slot * width)) & mask for slot in range(64 // width)]
    integers = np.concatenate(slots)[:num_elements].astype(np.int64)
    return (integers - num_summed * 2 ** (bits - 1)) * quantum


@dataclass(frozen=True, slots=True)
class Encoded:
    """A contribution in the ring: what is masked, sent and added."""

    exact: Ring128
    people: NDArray[np.uint64]
    bounded: tuple[NDArray[np.uint64], ...]


def encoded_bytes(layout: Layout, num_sites: int) -> int:
    """Size of an encoded contribution (unit: bytes)."""
    packed = sum(words_for(field.size, _bounds(field)[1], num_sites) for field in layout.bounded)
    return 16 * layout.num_exact + 8 * layout.num_people + 8 * packed


def _bounds(field: FieldLayout) -> tuple[float, int]:
    """Clip norm and bits of a bounded field; a layout has them bound to numbers."""
    assert isinstance(field.declaration, Bounded)
    return float(field.declaration.clip_norm), int(field.declaration.bits)


def encode(flat: Flat, layout: Layout, num_sites: int, rng: np.random.Generator | None) -> Encoded:
    """Encode a flattened contribution for a sum over at most `num_sites` sites.

    Raises:
        ContributionError: a number is too large for the ring; names the field.
    """
    _check_people(flat.people, layout, num_sites)
    return Encoded(
        _encode_exact_fields(flat.exact, layout, num_sites),
        flat.people.view(np.uint64),
        tuple(
            encode_bounded(vector, *_bounds(field), num_sites, _given(rng))
            for field, vector in zip(layout.bounded, flat.bounded, strict=True)
        ),
    )


def _given(rng: np.random.Generator | None) -> np.random.Generator:
    if rng is None:
        raise TypeError("bounded fields are rounded at random: rng must be given")
    return rng


def _check_people(counts: NDArray[np.int64], layout: Layout, num_sites: int) -> None:
    if counts.size and counts.max() > (2**63 - 1) // num_sites:
        raise ContributionError(f"{layout.field_at('people', int(counts.argmax()))} is too large to be summed")


def _encode_exact_fields(values: NDArray[np.float64], layout: Layout, num_sites: int) -> Ring128:
    try:
        return encode_exact(values, num_sites)
    except OverflowError as error:
        field = layout.field_at("exact", error.args[0])
        raise ContributionError(
            f"{field} holds a number of {exact_limit(num_sites):.1e} or more, too large to be summed exactly; "
            "express the variable in a larger unit"
        ) from None


class Accumulator:
    """Adds contributions up as they arrive; its memory does not grow with their number.

    Guarantees:
        sums_do_not_depend_on_order: any order and grouping of the same contributions gives the same total.
    """

    def __init__(self, layout: Layout, num_sites: int) -> None:
        if num_sites < 1:
            raise ValueError(f"num_sites must be >= 1, got {num_sites}")
        self._layout, self._num_sites = layout, num_sites
        self._num_summed = 0
        self._exact = Ring128.zeros(layout.num_exact)
        self._people = np.zeros(layout.num_people, np.uint64)
        self._bounded = [
            np.zeros(words_for(field.size, _bounds(field)[1], num_sites), np.uint64) for field in layout.bounded
        ]

    def add(self, encoded: Encoded) -> None:
        """Add one site's contribution.

        Raises:
            LocalProtocolError: more contributions than the sum was planned for.
        """
        if self._num_summed == self._num_sites:
            raise LocalProtocolError(f"a sum planned for {self._num_sites} sites got one more contribution")
        self._num_summed += 1
        self._exact.add(encoded.exact)
        np.add(self._people, encoded.people, out=self._people)
        for words, more in zip(self._bounded, encoded.bounded, strict=True):
            np.add(words, more, out=words)

    def total(self) -> Contribution:
        """The sum of what was added, as a contribution."""
        fields = zip(self._layout.bounded, self._bounded, strict=True)
        return self._layout.unflatten(
            Flat(
                decode_exact(self._exact),
                self._people.view(np.int64),
                tuple(
                    decode_bounded(
                        words,
                        field.size,
                        *_bounds(field),
                        self._num_sites,
                        self._num_summed,
                    )
                    for field, words in fields
                ),
            )
        )
