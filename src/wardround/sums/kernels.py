"""The arithmetic of a sum's words: in wire order, where each exact number is two words, `low, high`.

The first `2 * num_wide` words are numbers modulo 2^128, all others modulo 2^64.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_BLOCK_WORDS = 2**15
"""Words handled at a time: the temporaries stay in the cache (unit: words)."""


def add_words(total: NDArray[np.uint64], words: NDArray[np.uint64], num_wide: int) -> None:
    """Add to `total` in place.

    Args:
        total: shape (num_words,); its first `2 * num_wide` words are pairs `low, high`.
        words: the same shape, in other memory.
        num_wide: how many pairs there are.
    """
    for low, high in _pairs(num_wide):
        np.add(total[low], words[low], out=total[low])
        np.add(total[high], words[high], out=total[high])
        np.add(total[high], total[low] < words[low], out=total[high])  # the carry
    np.add(total[2 * num_wide :], words[2 * num_wide :], out=total[2 * num_wide :])


def subtract_words(total: NDArray[np.uint64], words: NDArray[np.uint64], num_wide: int) -> None:
    """Subtract from `total` in place; arguments as of `add_words`."""
    for low, high in _pairs(num_wide):
        np.subtract(total[high], total[low] < words[low], out=total[high])  # the borrow
        np.subtract(total[low], words[low], out=total[low])
        np.subtract(total[high], words[high], out=total[high])
    np.subtract(total[2 * num_wide :], words[2 * num_wide :], out=total[2 * num_wide :])


def _pairs(num_wide: int) -> Iterator[tuple[slice, slice]]:
    """Where the low words of a block of numbers are, and the high ones."""
    for start in range(0, 2 * num_wide, _BLOCK_WORDS):
        stop = min(start + _BLOCK_WORDS, 2 * num_wide)
        yield slice(start, stop, 2), slice(start + 1, stop, 2)
