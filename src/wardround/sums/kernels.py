"""The inner loops of encoding, adding and masking: in numpy, and compiled for large vectors where numba is installed.

Both give the same bits. `kernels_for` chooses by size: importing the compiler takes a second or two, which only
large vectors give back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Words: TypeAlias = NDArray[np.uint64]
Reals: TypeAlias = NDArray[np.floating[Any]]
Doubles: TypeAlias = NDArray[np.float64]

COMPILED_FROM = 2**20
"""Elements from which compiled loops are worth their start (unit: elements)."""
_CHUNK = 2**14
"""Elements that numpy handles at a time where a loop needs temporaries: they stay in the cache (unit: elements)."""
_FRACTION = 2.0**64
_HIGHEST_BITS = 13
"""Upper bits of a word that hold an anchor's own bits: a shift by as many drops them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """The inner loops, all of one make. All arrays but those of `encode` and `decode` are contiguous.

    Attributes:
        encode: `(values, high, low)`: round numbers below 2^63 in size to multiples of 2^-64, in two's complement.
        decode: `(high, low, values)`: the float64 nearest to such multiples, within one unit in the last place.
        pack: `(values, dither, scale, anchor, mask, shift, words)`: put the bits `mask` of `values * scale + dither +
            anchor`, read as words, into the slot at `shift`. The first slot (`shift` 0) clears the others, which
            must be empty. Dithers count as odd, their last bit does not matter: then they are symmetric about zero,
            and smaller than a quantum, so that no grid point is ever left.
        unpack: `(words, shift, mask, offset, quantum, values)`: take the slot at `shift` out, as numbers.
        add_rows: `(words, rows, num_added, num_wide)`: add the first `num_added` rows to `words` in place, subtract
            the others. Shapes (num_words,) and (num_rows, num_words). The first `2 * num_wide` words are pairs
            `low, high` modulo 2^128, the others numbers modulo 2^64.
        sum_of_squares: `(values)`: in float64, within one part in a million; None where there is no fast one.
    """

    encode: Callable[[Doubles, NDArray[np.int64], Words], None]
    decode: Callable[[NDArray[np.int64], Words, Doubles], None]
    pack: Callable[[Reals, NDArray[np.int16], float, float, int, int, Words], None]
    unpack: Callable[[Words, int, int, int, float, Doubles], None]
    add_rows: Callable[[Words, Words, int, int], None]
    sum_of_squares: Callable[[Reals], float] | None


def kernels_for(num_elements: int) -> Kernels:
    """The kernels for vectors of this many elements."""
    return (compiled() if num_elements >= COMPILED_FROM else None) or NUMPY


def add_words(total: Words, words: Words, num_wide: int, *, _kernels: Kernels | None = None) -> None:
    """Add to `total` in place.

    Args:
        total: shape (num_words,); its first `2 * num_wide` words are pairs `low, high`.
        words: the same shape, in other memory.
        num_wide: how many pairs there are.
    """
    (_kernels or kernels_for(2 * num_wide)).add_rows(total, words[None, :], 1, num_wide)


# In numpy


def _encode(values: Doubles, high: NDArray[np.int64], low: Words) -> None:
    whole = np.rint(values)
    fraction = values - whole  # exact: at most 1/2 in size, and its bits are bits of value
    if fraction.size and fraction.max() == 0.5:  # the one fraction whose 2^64-fold does not fit int64
        whole[fraction == 0.5] += 1.0
        fraction[fraction == 0.5] = -0.5
    np.multiply(fraction, _FRACTION, out=fraction)
    np.rint(fraction, out=fraction)
    signed = low.view(np.int64)
    np.copyto(signed, fraction, casting="unsafe")
    np.right_shift(signed, 63, out=high)  # the fraction's sign, extended
    np.copyto(fraction.view(np.int64), whole, casting="unsafe")
    np.add(high, fraction.view(np.int64), out=high)


def _decode(high: NDArray[np.int64], low: Words, values: Doubles) -> None:
    # The fraction is read as signed, in [-1/2, 1/2): a small negative number keeps all its digits.
    signed = low.view(np.int64)
    whole = signed >> 63
    np.subtract(high, whole, out=whole)
    np.multiply(signed, 1 / _FRACTION, out=values)
    np.add(whole, values, out=values)


def _pack(
    values: Reals, dither: NDArray[np.int16], scale: float, anchor: float, mask: int, shift: int, words: Words
) -> None:
    rounded = np.multiply(values, scale, dtype=np.float64)
    np.add(rounded, dither | np.int16(1), out=rounded)
    np.add(rounded, anchor, out=rounded)
    integers = rounded.view(np.uint64)
    if shift < _HIGHEST_BITS:
        np.bitwise_and(integers, np.uint64(mask), out=integers if shift else words)
    if shift:
        np.left_shift(integers, np.uint64(shift), out=integers)
        np.bitwise_or(words, integers, out=words)


def _unpack(words: Words, shift: int, mask: int, offset: int, quantum: float, values: Doubles) -> None:
    integers = words >> np.uint64(shift)
    np.bitwise_and(integers, np.uint64(mask), out=integers)
    np.subtract(integers.view(np.int64), offset, out=values)
    np.multiply(values, quantum, out=values)


def _add_rows(words: Words, rows: Words, num_added: int, num_wide: int) -> None:
    narrow = slice(2 * num_wide, None)
    for index, row in enumerate(rows):
        wide, operation = (_add_pairs, np.add) if index < num_added else (_subtract_pairs, np.subtract)
        for part in _parts(2 * num_wide):
            wide(words[part], row[part])
        operation(words[narrow], row[narrow], out=words[narrow])


def _parts(num_words: int) -> Iterator[slice]:
    for start in range(0, num_words, _CHUNK):
        yield slice(start, min(start + _CHUNK, num_words))


def _add_pairs(words: Words, more: Words) -> None:
    np.add(words, more, out=words)
    np.add(words[1::2], words[::2] < more[::2], out=words[1::2])  # the carry


def _subtract_pairs(words: Words, less: Words) -> None:
    borrow = words[::2] < less[::2]
    np.subtract(words, less, out=words)
    np.subtract(words[1::2], borrow, out=words[1::2])


NUMPY = Kernels(encode=_encode, decode=_decode, pack=_pack, unpack=_unpack, add_rows=_add_rows, sum_of_squares=None)


# Compiled. Each inner loop runs over slices from their first element on: only such become vector instructions.


def _encode_loop(values: Doubles, high: NDArray[np.int64], low: NDArray[np.int64]) -> None:
    # By way of contiguous memory, since `high` and `low` may be every other word.
    highs, lows = np.empty(1024, np.int64), np.empty(1024, np.int64)
    for start in range(0, values.size, 1024):
        value = values[start : start + 1024]
        for i in range(value.size):
            whole = np.rint(value[i])
            fraction = value[i] - whole
            if fraction == 0.5:  # as in `_encode`
                whole += 1.0
                fraction = -0.5
            lows[i] = np.int64(np.rint(fraction * _FRACTION))
            highs[i] = (lows[i] >> 63) + np.int64(whole)
        high_part, low_part = high[start : start + 1024], low[start : start + 1024]
        for i in range(value.size):
            low_part[i] = lows[i]
            high_part[i] = highs[i]


def _decode_loop(high: NDArray[np.int64], low: NDArray[np.int64], values: Doubles) -> None:
    for i in range(values.size):
        values[i] = np.float64(high[i] - (low[i] >> 63)) + np.float64(low[i]) * (1 / _FRACTION)


def _pack_loop(
    values: Reals, dither: NDArray[np.int16], scale: float, anchor: float, mask: Any, shift: Any, words: Words
) -> None:
    if shift == 0:
        for i in range(values.size):
            words[i] = np.float64(values[i] * scale + (dither[i] | 1) + anchor).view(np.uint64) & mask
    else:
        for i in range(values.size):
            words[i] |= (np.float64(values[i] * scale + (dither[i] | 1) + anchor).view(np.uint64) & mask) << shift


def _unpack_loop(words: Words, shift: Any, mask: Any, offset: int, quantum: float, values: Doubles) -> None:
    for i in range(values.size):
        values[i] = (np.int64((words[i] >> shift) & mask) - offset) * quantum


def _add_wide_loop(words: Words, rows: Words, num_added: int, num_wide: int) -> None:
    pairs = words[: 2 * num_wide]
    for index in range(len(rows)):
        row = rows[index]
        if index < num_added:
            for i in range(0, pairs.size, 2):
                low = pairs[i] + row[i]
                pairs[i + 1] += row[i + 1] + np.uint64(low < row[i])
                pairs[i] = low
        else:
            for i in range(0, pairs.size, 2):
                pairs[i + 1] -= row[i + 1] + np.uint64(pairs[i] < row[i])
                pairs[i] -= row[i]


def _add_narrow_loop(words: Words, rows: Words, num_added: int, num_wide: int) -> None:
    # Two rows at a time: half as often through the words. What is subtracted is added as its complement, and one.
    narrow = words[2 * num_wide :]
    for index in range(0, len(rows) - 1, 2):
        row, other = rows[index, 2 * num_wide :], rows[index + 1, 2 * num_wide :]
        one, another = np.uint64(index >= num_added), np.uint64(index + 1 >= num_added)
        flip, flip_other = np.uint64(0) - one, np.uint64(0) - another
        for i in range(narrow.size):
            narrow[i] += (row[i] ^ flip) + (other[i] ^ flip_other) + (one + another)
    if len(rows) % 2:
        row, one = rows[len(rows) - 1, 2 * num_wide :], np.uint64(len(rows) > num_added)
        flip = np.uint64(0) - one
        for i in range(narrow.size):
            narrow[i] += (row[i] ^ flip) + one


def _sum_of_squares_loop(values: Reals) -> float:
    square = 0.0
    for i in range(values.size):
        square += np.float64(values[i]) * np.float64(values[i])
    return square


@cache
def compiled() -> Kernels | None:
    """The compiled kernels; None where numba is not installed."""
    try:
        encode, decode = _compiled(_encode_loop), _compiled(_decode_loop)
    except ImportError:
        return None
    pack, unpack = _compiled(_pack_loop), _compiled(_unpack_loop)
    add_wide, add_narrow = _compiled(_add_wide_loop), _compiled(_add_narrow_loop)

    def add_rows(words: Words, rows: Words, num_added: int, num_wide: int) -> None:
        if num_wide:
            add_wide(words, rows, num_added, num_wide)
        add_narrow(words, rows, num_added, num_wide)

    word = np.uint64  # a Python integer would be signed, and turn words into float64
    return Kernels(
        encode=lambda values, high, low: encode(values, high, low.view(np.int64)),
        decode=lambda high, low, values: decode(high, low.view(np.int64), values),
        pack=lambda values, dither, scale, anchor, mask, shift, words: pack(
            values, dither, scale, anchor, word(mask), word(shift), words
        ),
        unpack=lambda words, shift, mask, offset, quantum, values: unpack(
            words, word(shift), word(mask), offset, quantum, values
        ),
        add_rows=add_rows,
        # In any order: the sum is a bound, never a result.
        sum_of_squares=_compiled(_sum_of_squares_loop, fastmath={"reassoc"}),
    )


def _compiled(loop: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    import numba  # takes a second, and most sums do without

    try:
        kernel: Callable[..., Any] = numba.njit(loop, nogil=True, cache=True, **options)
    except RuntimeError:  # there is no folder that the compiled code could be kept in
        kernel = numba.njit(loop, nogil=True, **options)
    return kernel
