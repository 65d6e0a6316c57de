"""The masks: AES-128 in counter mode, added to a vector block by block.

References:
    NIST SP 800-38A, section 6.5 (CTR).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

from wardround.sums.kernels import add_words, subtract_words

SEED_BYTES = 32
_BLOCK_WORDS = 2**15
"""Words masked at a time: the block, its mask and what they are made from stay in the cache (unit: words)."""
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
    words: NDArray[np.uint64], num_wide: int, masks: Sequence[tuple[bytes, int]], *, _block_words: int = _BLOCK_WORDS
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
    streams = [(_stream(seed), _OPERATIONS[_checked(sign)]) for seed, sign in masks]
    kept = np.empty(min(_block_words, words.size), np.uint64)
    for start in range(0, words.size, _block_words):
        block = words[start : start + _block_words]
        mask = kept[: block.size]
        raw, zeros = mask.data.cast("B"), memoryview(_ZEROS)[: mask.nbytes]
        num_pairs = min(max(num_wide - start // 2, 0), block.size // 2)
        for stream, operation in streams:
            stream.update_into(zeros, raw)
            operation(block, mask, num_pairs)


_OPERATIONS = {1: add_words, -1: subtract_words}


def _checked(sign: int) -> int:
    if sign not in _OPERATIONS:
        raise ValueError(f"a mask's sign must be 1 or -1, got {sign}")
    return sign
