"""The masks: AES-128 in counter mode, added to a vector block by block.

References:
    NIST SP 800-38A, section 6.5 (CTR).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

from wardround.sums.kernels import Kernels, kernels_for

SEED_BYTES = 32
_BLOCK_WORDS = 2**15
"""Words masked at a time (unit: words)."""
_ROWS = 5
"""Masks made before they are added together: with a block of words, they stay in the cache."""
_ZEROS = bytes(8 * _BLOCK_WORDS)


def keystream(seed: bytes, num_bytes: int) -> bytes:
    """The first bytes of the key stream with key `seed[:16]` and initial counter block `seed[16:]`.

    Raises:
        ValueError: the seed has not 32 bytes.
    """
    return _stream(seed).update(bytes(num_bytes))


def _stream(seed: bytes) -> CipherContext:
    if len(seed) != SEED_BYTES:
        raise ValueError(f"seed must have {SEED_BYTES} bytes, got {len(seed)}")
    return Cipher(algorithms.AES128(seed[:16]), modes.CTR(seed[16:])).encryptor()


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
    streams = [(sign, _stream(seed)) for seed, sign in sorted(masks, key=lambda mask: -mask[1])]
    groups = [streams[first : first + _ROWS] for first in range(0, len(streams), _ROWS)]
    add_rows = (_kernels or kernels_for(words.size)).add_rows
    kept = np.empty(min(len(masks), _ROWS) * min(_BLOCK_WORDS, words.size), np.uint64)
    for start in range(0, words.size, _BLOCK_WORDS):
        block = words[start : start + _BLOCK_WORDS]
        num_pairs = min(max(num_wide - start // 2, 0), block.size // 2)
        for group in groups:
            rows = kept[: len(group) * block.size].reshape(len(group), block.size)
            for (_, stream), row in zip(group, rows, strict=True):
                stream.update_into(memoryview(_ZEROS)[: row.nbytes], row.data.cast("B"))
            add_rows(block, rows, sum(sign == 1 for sign, _ in group), num_pairs)
