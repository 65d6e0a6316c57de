"""From a contribution's numbers to integers that add up exactly, and back.

*Exact* numbers become 128-bit two's-complement fixed point with 64 fractional bits, so that a sum of float64
is exact to 2^-64 a summand and does not depend on order or grouping. *Bounded* vectors are clipped, rounded
stochastically to `bits` bits, and several are packed into each 64-bit word. Counts are added as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.sums.kernels import NUMPY, Kernels, kernels_for
from wardround.sums.keystream import SEED_BYTES, ZEROS, key_stream

MAX_SITES = 2**20
"""Most sites that one sum may be planned for."""

BLOCK = 2**17
"""Elements handled at a time: the temporaries stay in the cache, the calls stay few (unit: elements)."""
_PIECE = 2**13
"""Elements of a dot product that is certain to stay in one thread: where other processes keep the cores busy,
waiting for a second one takes a thousand times as long as the product."""
FEW = 16
"""Elements up to which a loop in Python is faster than a call to numpy."""
_HALF_WORD = np.uint64(0xFFFFFFFF)
_DITHER = 2.0**16
"""A bounded element's quantum in units of its dither."""
# Adding 1.5 * 2^68 to a float64 below 2^67 in size rounds it to a multiple of 2^16, whose integer multiple then
# stands in the low 51 bits of the mantissa.
_ANCHOR = 1.5 * 2.0**52 * _DITHER


def check_num_sites(num_sites: int) -> None:
    """Raise `ValueError` unless a sum may be planned for so many sites."""
    if not 1 <= num_sites <= MAX_SITES:
        raise ValueError(f"num_sites must be in [1, {MAX_SITES}], got num_sites={num_sites}")


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

    def part(self, part: slice) -> Ring128:
        """A view of some of the elements."""
        return Ring128(self.high[..., part], self.low[..., part])

    def add(self, other: Ring128) -> None:
        """Add another vector, which must not share memory with this one, in place, modulo 2^128."""
        for start in range(0, self.low.shape[-1], BLOCK):
            mine, more = (ring.part(slice(start, start + BLOCK)) for ring in (self, other))
            np.add(mine.low, more.low, out=mine.low)
            np.add(mine.high, more.high, out=mine.high)
            np.add(mine.high, mine.low < more.low, out=mine.high)  # the carry

    def sum_rows(self) -> Ring128:
        """The sum over the first axis, modulo 2^128, of at most 2^32 rows. Shape (num_elements,)."""
        lower = (self.low & _HALF_WORD).sum(axis=0)
        upper = (self.low >> np.uint64(32)).sum(axis=0) + (lower >> np.uint64(32))
        carry = (upper >> np.uint64(32)).view(np.int64)
        return Ring128(self.high.sum(axis=0) + carry, (upper << np.uint64(32)) | (lower & _HALF_WORD))


def encode_exact(
    values: NDArray[np.float64], num_sites: int, out: Ring128 | None = None, *, _kernels: Kernels | None = None
) -> Ring128:
    """Round each number to the nearest multiple of 2^-64 (ties to even).

    Args:
        values: finite numbers, shape (num_elements,), each below `exact_limit(num_sites)` in size.
        num_sites: how many such vectors may be added up.
        out: where to write, shape (num_elements,); saves a caller that encodes again and again the cost of
            fresh memory.

    Raises:
        OverflowError: a number is NaN, infinite or too large; its argument is the index of one such element.
            `out` then holds nothing of use.
    """
    ring = out or Ring128(np.empty(values.size, np.int64), np.empty(values.size, np.uint64))
    kernels = _kernels or _kernels_for_reals(values)
    for block, value in _blocks(values, exact_limit(num_sites)):
        part = ring.part(block)
        kernels.encode(value, part.high, part.low)
    return ring


def add_exact(values: NDArray[np.float64], num_sites: int, total: Ring128) -> None:
    """The same as `total.add(encode_exact(values, num_sites))`, in the memory of one block.

    Raises:
        OverflowError: as `encode_exact`; `total` then holds nothing of use.
    """
    encoded = Ring128.zeros(min(BLOCK, values.size))
    kernels = _kernels_for_reals(values)
    for block, value in _blocks(values, exact_limit(num_sites)):
        part = encoded.part(slice(value.size))
        kernels.encode(value, part.high, part.low)
        total.part(block).add(part)


def _blocks(values: NDArray[np.float64], limit: float) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    for start in range(0, values.size, BLOCK):
        value = values[start : start + BLOCK]
        if (index := index_beyond(value, limit)) is not None:
            raise OverflowError(start + index)
        yield slice(start, start + BLOCK), value


def index_beyond(values: NDArray[np.float64], limit: float) -> int | None:
    """Index of a number that is NaN or not below `limit` in size; None if there is none."""
    if values.size <= FEW:
        if all(-limit < value < limit for value in values.tolist()):
            return None
    # One fast pass: rounding is monotone, so a sum of squares below limit^2 has no square that reaches it.
    elif _sum_of_squares(values) < limit * limit:
        return None
    beyond = np.flatnonzero(~(np.abs(values) < limit))
    return int(beyond[0]) if beyond.size else None


def decode_exact(total: Ring128, *, _kernels: Kernels | None = None) -> NDArray[np.float64]:
    """The float64 numbers nearest to the fixed-point ones (within one unit in the last place).

    Args:
        total: a sum of encoded numbers, shape (num_elements,).
    """
    values = np.empty(total.low.size)
    kernels = _kernels or kernels_for(values.size)
    for start in range(0, values.size, BLOCK):
        part = total.part(slice(start, start + BLOCK))
        kernels.decode(part.high, part.low, values[start : start + BLOCK])
    return values


def slot_bits(bits: int, num_sites: int) -> int:
    """Width of a packed slot that holds the sum of `num_sites` numbers of `bits` bits."""
    return bits + (num_sites - 1).bit_length()


def words_for(num_elements: int, bits: int, num_sites: int) -> int:
    """64-bit words that a packed vector takes."""
    return -(-num_elements // (64 // slot_bits(bits, num_sites)))


def _quantum(clip_norm: float, bits: int) -> float:
    return float(clip_norm / (2 ** (bits - 1) - 2))


def encode_bounded(
    values: NDArray[np.floating[Any]],
    clip_norm: float,
    bits: int,
    num_sites: int,
    rng: np.random.Generator,
    out: NDArray[np.uint64] | None = None,
    *,
    _kernels: Kernels | None = None,
) -> NDArray[np.uint64]:
    """Clip, round stochastically, pack.

    An element x becomes a multiple of the quantum `clip_norm / (2^(bits-1) - 2)`, up or down at random with
    the probabilities that make the expectation x (to 2^-16 of a quantum: the dither has 15 bits and a sign);
    zero stays zero exactly. Rounding may lift the vector's norm above `clip_norm`, each element by less than
    a quantum. Slot s of all words together holds the s-th contiguous part of the vector.

    Args:
        values: finite, shape (num_elements,).
        clip_norm: Euclidean norm above which the vector is scaled down to it, in [1e-100, 1e100].
        bits: bits an element, in [4, 32].
        num_sites: how many such vectors may be added up.
        rng: gives a seed of 32 bytes, of whose key stream the rounding is.
        out: where to write, of the returned shape; saves a caller that encodes again and again the cost of
            fresh memory.

    Returns:
        Words, shape (words_for(num_elements, bits, num_sites),), which may be added up modulo 2^64.

    Raises:
        OverflowError: a value is NaN or infinite, or the norm is too large to be computed.
    """
    kernels = _kernels or _kernels_for_reals(values)
    scale = _shrinkage(values, clip_norm, kernels) / _quantum(clip_norm, bits) * _DITHER
    anchor = _ANCHOR + 2 ** (bits - 1) * _DITHER  # keeps the integers positive; zero lies on the grid
    width = slot_bits(bits, num_sites)
    num_words = words_for(values.size, bits, num_sites)
    words = np.empty(num_words, np.uint64) if out is None else out
    stream, drawn = key_stream(rng.bytes(SEED_BYTES)), np.empty(min(num_words, BLOCK), np.int16)
    for start in range(0, num_words, BLOCK):
        stop = min(start + BLOCK, num_words)
        for slot, first in enumerate(range(start, values.size, num_words)):
            value = values[first : first + stop - start]
            dither = drawn[: value.size]
            stream.update_into(ZEROS[: dither.nbytes], dither.data.cast("B"))
            kernels.pack(value, dither, scale, anchor, 2**bits - 1, slot * width, words[start : start + value.size])
    return words


def _kernels_for_reals(values: NDArray[np.floating[Any]]) -> Kernels:
    # Compiled loops are for the types and layouts that large vectors have.
    is_plain = values.flags.c_contiguous and values.flags.aligned and values.dtype in (np.float32, np.float64)
    return kernels_for(values.size) if is_plain else NUMPY


def _shrinkage(values: NDArray[np.floating[Any]], clip_norm: float, kernels: Kernels) -> float:
    """What the values are multiplied with, so that their norm is at most `clip_norm`."""
    # Most updates are well within: then a sum in any order says so, and no bit depends on it.
    if kernels.sum_of_squares and kernels.sum_of_squares(values) < 0.999 * clip_norm * clip_norm:
        return 1.0
    norm = _norm(values)
    return clip_norm / norm if norm > clip_norm else 1.0


def _norm(values: NDArray[np.floating[Any]]) -> float:
    """Euclidean norm. Raises `OverflowError` where its square is not finite."""
    square = _sum_of_squares(values)
    if not math.isfinite(square):
        raise OverflowError
    return math.sqrt(square)


def is_finite(values: NDArray[np.floating[Any]]) -> bool:
    """Whether no element is NaN or infinite."""
    # The sum of squares is the fastest pass there is; NaN and infinity go through it.
    return math.isfinite(_sum_of_squares(values)) or bool(np.isfinite(values).all())


def _sum_of_squares(values: NDArray[np.floating[Any]]) -> float:
    """In float64; NaN or infinity without a warning."""
    square = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, values.size, _PIECE):
            piece = values[start : start + _PIECE].astype(np.float64, copy=False)
            square += float(np.dot(piece, piece))
    return square


def decode_bounded(
    words: NDArray[np.uint64],
    num_elements: int,
    clip_norm: float,
    bits: int,
    num_sites: int,
    num_summed: int,
    *,
    _kernels: Kernels | None = None,
) -> NDArray[np.float64]:
    """The sum of `num_summed` vectors that were encoded for at most `num_sites`. Shape (num_elements,)."""
    kernels = _kernels or kernels_for(num_elements)
    width = slot_bits(bits, num_sites)
    quantum, offset = _quantum(clip_norm, bits), num_summed * 2 ** (bits - 1)
    values = np.empty(num_elements)
    for start in range(0, words.size, BLOCK):
        word = words[start : start + BLOCK]
        for slot, first in enumerate(range(start, num_elements, words.size)):
            value = values[first : min(first + word.size, (slot + 1) * words.size)]
            kernels.unpack(word[: value.size], slot * width, 2**width - 1, offset, quantum, value)
    return values
