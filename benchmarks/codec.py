"""The codecs against a copy of the same array into kept memory: what no codec can beat.

The goals are for an encoder that writes into kept memory, as the copy does; `fresh` adds the page faults. Rows with
`numpy` are the fallback, for where numba is not installed. Vectors are beyond the clip norm, which costs a second pass
for the norm's last bits; `within` are not.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.measure import Row, best_seconds, milliseconds
from wardround.sums.codec import (
    Ring128,
    decode_bounded,
    decode_exact,
    encode_bounded,
    encode_exact,
    words_for,
)
from wardround.sums.kernels import NUMPY

NUM_SITES = 10
CLIP_NORM, WIDE_NORM, BITS = 1.0, 1e9, 16
EXACT_GOAL, BOUNDED_GOAL = 8.0, 4.0


def rows(scale: float) -> Iterator[Row]:
    """Encoding, adding and decoding 2^22 numbers."""
    size = max(int(scale * 2**22), 1)
    values = np.random.default_rng(0).normal(size=size) * 1e3
    yield from _exact_rows(values)
    yield from _bounded_rows(values, BOUNDED_GOAL)
    # No goal: the copy is half as large, the generator's bits alone cost more than four of it.
    yield from _bounded_rows(values.astype(np.float32), None)


def _exact_rows(values: np.ndarray) -> Iterator[Row]:
    copy, kept, total = np.empty_like(values), Ring128.zeros(values.size), Ring128.zeros(values.size)
    encoded = encode_exact(values, NUM_SITES)
    best = best_seconds(
        {
            "copy": lambda: np.copyto(copy, values),
            "encode": lambda: encode_exact(values, NUM_SITES, out=kept),
            "encode (fresh)": lambda: encode_exact(values, NUM_SITES),
            "encode (numpy)": lambda: encode_exact(values, NUM_SITES, out=kept, _kernels=NUMPY),
            "add": lambda: total.add(encoded),
            "decode": lambda: decode_exact(encoded),
            "decode (numpy)": lambda: decode_exact(encoded, _kernels=NUMPY),
        }
    )
    yield from _rows(f"exact {{}}, {values.size:,} {values.dtype}", best, EXACT_GOAL)


def _bounded_rows(values: np.ndarray, goal: float | None) -> Iterator[Row]:
    rng = np.random.default_rng(0)
    copy, kept = np.empty_like(values), np.empty(words_for(values.size, BITS, NUM_SITES), np.uint64)
    encoded = encode_bounded(values, CLIP_NORM, BITS, NUM_SITES, rng)
    total = np.zeros_like(encoded)
    best = best_seconds(
        {
            "copy": lambda: np.copyto(copy, values),
            "encode": lambda: encode_bounded(values, CLIP_NORM, BITS, NUM_SITES, rng, out=kept),
            "encode (fresh)": lambda: encode_bounded(values, CLIP_NORM, BITS, NUM_SITES, rng),
            "encode (within)": lambda: encode_bounded(values, WIDE_NORM, BITS, NUM_SITES, rng, out=kept),
            "encode (numpy)": lambda: encode_bounded(values, CLIP_NORM, BITS, NUM_SITES, rng, out=kept, _kernels=NUMPY),
            "add": lambda: np.add(total, encoded, out=total),
            "decode": lambda: decode_bounded(encoded, values.size, CLIP_NORM, BITS, NUM_SITES, 1),
            "decode (numpy)": lambda: decode_bounded(
                encoded, values.size, CLIP_NORM, BITS, NUM_SITES, 1, _kernels=NUMPY
            ),
        }
    )
    yield from _rows(f"bounded {{}}, {values.size:,} {values.dtype}", best, goal)


def _rows(name: str, best: dict[str, float], encode_goal: float | None) -> Iterator[Row]:
    copy = milliseconds(best.pop("copy"))
    for what, seconds in best.items():
        yield Row(
            name=name.format(what),
            measured=milliseconds(seconds),
            against="copy",
            limit=copy,
            goal=encode_goal if what == "encode" else None,
        )
