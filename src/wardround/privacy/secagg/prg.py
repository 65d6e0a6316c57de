"""The masks: AES-128 in counter mode, added to a vector block by block.

References:
    NIST SP 800-38A, section 6.5 (CTR).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wardround.sums.kernels import Kernels, kernels_for
from wardround.sums.keystream import SEED_BYTES, ZEROS, key_stream

__all__ = ["SEED_BYTES", "apply_masks", "keystream"]

_BLOCK_WORDS = len(ZEROS) // 8
"""Words masked at a time (unit: words)."""
_ROWS = 10
"""Masks made before they are added together: few calls, and with a block of words they still stay in the cache."""


def keystream(seed: bytes, num_bytes: int) -> bytes:
    """The first bytes of the key stream with key `seed[:16]` and initial counter block `seed[16:]`.

    Raises:
        ValueError: the seed has not 32 bytes.
    """
    return key_stream(seed).update(bytes(num_bytes))


def apply_masks(
    words: NDArray[np.uint64], num_wide: int, masks: Sequence[tuple[bytes, int]], *, _kernels: Kernels | None = None
) -> None:
    """Add each mask to a vector in place, or take it off.

    A mask is the key stream of the vector's length, read as little-endian words.

    Args:
        words: shape (num_words,), contiguous; the first `2 * num_wide` are pairs added modulo 2^128.
        num_wide: how many pairs there are.
        masks: seeds of 32 bytes, each with +1 (add) or -1 (take off).

    Raises:
        ValueError: a seed has not 32 bytes, or a sign is another number; `words` is as it was.

    Guarantees:
        masks_come_off_again: the same masks with the opposite signs, in any order, give the vector back.
    """
    if bad := [sign for _, sign in masks if sign not in (1, -1)]:
        raise ValueError(f"a mask's sign must be 1 or -1, got {bad[0]}")
    added = [key_stream(seed) for seed, sign in masks if sign == 1]
    streams = added + [key_stream(seed) for seed, sign in masks if sign == -1]
    groups = [(streams[first : first + _ROWS], len(added) - first) for first in range(0, len(streams), _ROWS)]
    add_rows = (_kernels or kernels_for(words.size)).add_rows
    rows, row_bytes = _rows(min(len(masks), _ROWS), min(_BLOCK_WORDS, words.size))
    for start in range(0, words.size, _BLOCK_WORDS):
        block = words[start : start + _BLOCK_WORDS]
        if block.size < rows.shape[1]:
            rows, row_bytes = _rows(len(rows), block.size)
        zeros, num_pairs = ZEROS[: block.nbytes], min(max(num_wide - start // 2, 0), block.size // 2)
        for group, num_added in groups:
            for stream, row in zip(group, row_bytes, strict=False):
                stream.update_into(zeros, row)
            add_rows(block, rows[: len(group)], min(max(num_added, 0), len(group)), num_pairs)


def _rows(num_rows: int, num_words: int) -> tuple[NDArray[np.uint64], list[memoryview]]:
    """Memory for masks: as words, and each row as bytes."""
    rows = np.empty((num_rows, num_words), np.uint64)
    return rows, [row.data.cast("B") for row in rows]
