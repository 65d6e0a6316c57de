"""Shamir's secret sharing of seeds, limb by limb, over the field of 65521 elements.

A seed of 32 bytes is 18 limbs of 15 bits. Each is the constant of a polynomial of degree `threshold - 1` of its own;
the holder with index j gets the values at j + 1. All of a site's seeds are shared by one product of matrices.

References:
    Shamir, How to share a secret, Communications of the ACM 22 (1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from wardround.privacy.secagg.prg import SEED_BYTES, keystream

FIELD = 65521
"""The largest prime below 2^16."""
LIMBS = 18
SHARE_BYTES = 2 * LIMBS
MAX_HOLDERS = 1024
_LIMB_BITS = 15
_PLACES = 1 << np.arange(_LIMB_BITS)
_PIECE = 2**18
"""Multiplications of a product of matrices that is certain to stay in one thread: where other processes keep the
cores busy, waiting for a second one takes far longer than the product."""
_ROW_PIECE = 2**13
"""The same for the product of one row and a matrix."""
_ROWS = 64
"""Rows of such a piece."""


def split(seeds: Sequence[bytes], threshold: int, holders: Sequence[int], randomness: bytes) -> NDArray[np.uint16]:
    """Shares of seeds: any `threshold` holders can rebuild them, fewer learn nothing.

    Args:
        seeds: of 32 bytes each.
        threshold: how many shares give a seed back, in [2, number of holders].
        holders: their indices, different ones, in [0, 65519].
        randomness: a seed of 32 bytes, never used before; the coefficients are drawn from its key stream.

    Returns:
        Shape (num_holders, num_seeds, 18).

    Raises:
        ValueError: an argument is out of range.

    Guarantees:
        any_threshold_of_shares_gives_the_seeds_back: whoever the holders are, and in any order.
        fewer_shares_say_nothing: `threshold - 1` shares of any seed are uniform.
    """
    points = _points(holders)
    if not 2 <= threshold <= len(points):
        raise ValueError(f"threshold must be in [2, {len(points)}], got threshold={threshold}")
    coefficients = np.empty((threshold, len(seeds) * LIMBS))
    coefficients[0] = _limbs_of(seeds).ravel()
    coefficients[1:] = _uniform(randomness, (threshold - 1) * len(seeds) * LIMBS).reshape(threshold - 1, -1)
    return _product(_powers(points, threshold), coefficients).reshape(len(points), len(seeds), LIMBS)


def combine(shares: NDArray[np.uint16], holders: Sequence[int]) -> list[bytes]:
    """The seeds whose shares these are.

    Args:
        shares: shape (threshold, num_seeds, 18), exactly as many holders as the threshold.
        holders: whose shares they are, in the order of the first axis.

    Raises:
        ValueError: a share or a rebuilt limb is out of range, or the holders do not fit; what was rebuilt is then
            not what was shared.
    """
    points = _points(holders)
    if shares.ndim != 3 or shares.shape[::2] != (len(points), LIMBS):
        raise ValueError(f"shares must have shape ({len(points)}, num_seeds, {LIMBS}), got {shares.shape}")
    if shares.size and shares.max() >= FIELD:
        raise ValueError(f"a share holds {shares.max()}, which is not below {FIELD}")
    flat = shares.reshape(len(points), -1).astype(np.float64)
    return _seeds_of(_product(_at_zero(tuple(points.tolist())), flat).reshape(-1, LIMBS))


def _points(holders: Sequence[int]) -> NDArray[np.int64]:
    """Where the polynomials are evaluated: never at zero, never twice at the same."""
    points = np.array(holders, np.int64) + 1
    if not 1 <= len(points) <= MAX_HOLDERS or points.min() < 1 or points.max() >= FIELD:
        raise ValueError(f"holders must be 1 to {MAX_HOLDERS} indices in [0, {FIELD - 2}], got {list(holders)}")
    if len(np.unique(points)) < len(points):
        raise ValueError(f"holders must be different from each other, got {list(holders)}")
    return points


def _limbs_of(seeds: Sequence[bytes]) -> NDArray[np.int64]:
    """Limbs, lowest first. Shape (num_seeds, 18)."""
    if any(len(seed) != SEED_BYTES for seed in seeds):
        raise ValueError(f"each seed must have {SEED_BYTES} bytes, got {sorted({len(seed) for seed in seeds})}")
    octets = np.frombuffer(b"".join(seeds), np.uint8).reshape(-1, SEED_BYTES)
    bits = np.zeros((len(seeds), LIMBS * _LIMB_BITS), np.int64)
    bits[:, : 8 * SEED_BYTES] = np.unpackbits(octets, axis=1, bitorder="little")
    return bits.reshape(-1, LIMBS, _LIMB_BITS) @ _PLACES


def _seeds_of(limbs: NDArray[np.uint16]) -> list[bytes]:
    if limbs.size and (limbs.max() >= 2**_LIMB_BITS or limbs[:, -1].max() > 1):
        raise ValueError("the shares do not give a seed: a rebuilt limb is out of range")
    bits = ((limbs[:, :, None] & _PLACES) != 0).reshape(-1, LIMBS * _LIMB_BITS)
    return [row.tobytes() for row in np.packbits(bits[:, : 8 * SEED_BYTES], axis=1, bitorder="little")]


def _uniform(randomness: bytes, num_numbers: int) -> NDArray[np.uint16]:
    """Uniform elements of the field: the key stream's 16-bit numbers, without those that are not below 65521."""
    num_drawn = num_numbers + 64
    while True:
        drawn = np.frombuffer(keystream(randomness, 2 * num_drawn), np.uint16)
        kept = drawn[drawn < FIELD]
        if len(kept) >= num_numbers:
            return kept[:num_numbers]
        num_drawn += num_drawn // 1024 + 64  # one in 4369 is left out


def _powers(points: NDArray[np.int64], num_powers: int) -> NDArray[np.float64]:
    """Shape (num_points, num_powers)."""
    powers = np.ones((len(points), num_powers))
    for power in range(1, num_powers):
        powers[:, power] = powers[:, power - 1] * points % FIELD
    return powers


@lru_cache(maxsize=8)
def _at_zero(points: tuple[int, ...]) -> NDArray[np.float64]:
    """Lagrange's coefficients: their product with a polynomial's values at the points is its constant."""
    coefficients = np.ones((1, len(points)))
    for index, point in enumerate(points):
        above, below = 1, 1
        for other in points[:index] + points[index + 1 :]:
            above, below = above * other % FIELD, below * (other - point) % FIELD
        coefficients[0, index] = above * pow(below, -1, FIELD) % FIELD
    coefficients.setflags(write=False)
    return coefficients


def _product(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.uint16]:
    """The product of two matrices over the field.

    Exact in float64: a sum of up to 1024 products of numbers below 2^16 is below 2^42.
    """
    product = np.empty((len(left), right.shape[1]), np.uint16)
    num_rows = min(len(left), _ROWS)
    width = max((_PIECE if num_rows > 1 else _ROW_PIECE) // (num_rows * len(right)), 1)
    for row in range(0, len(left), _ROWS):
        for start in range(0, right.shape[1], width):
            sums = left[row : row + _ROWS] @ right[:, start : start + width]
            # A quotient below 2^26 is no closer than 2^-16 to the whole number above: its floor is the true one.
            product[row : row + _ROWS, start : start + width] = sums - np.floor(sums / FIELD) * FIELD
    return product
