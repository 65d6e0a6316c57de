"""The compiled loops against numpy's, bit for bit, and both against Python's integers."""

import hashlib
import math
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.sums import kernels as module
from wardround.sums.codec import (
    BLOCK,
    Ring128,
    decode_bounded,
    decode_exact,
    encode_bounded,
    encode_exact,
    words_for,
)
from wardround.sums.kernels import COMPILED_FROM, NUMPY, Kernels, add_words, compiled, kernels_for

pytest.importorskip("numba")
COMPILED = compiled()
assert COMPILED is not None
BOTH = pytest.mark.parametrize("kernels", [NUMPY, COMPILED], ids=["numpy", "compiled"])

WORD = st.sampled_from((0, 1, 2**63, 2**64 - 1)) | st.integers(0, 2**64 - 1)
EDGES = st.sampled_from(
    (0.0, -0.0, 0.5, -0.5, 1.5, -1.5, 0.49999999999999994, -0.49999999999999994, 2.0**-64, -(2.0**-65), 3 * 2.0**-65,
     5e-324, 2.0**52 + 1, 2.0**53 - 1, 2.0**62, -(2.0**62), math.nextafter(2.0**63, 0), -math.nextafter(2.0**63, 0))
)  # fmt: skip


# Rows of words


def numbers_of(words: np.ndarray, num_wide: int) -> list[int]:
    values = words.tolist()
    return [values[2 * i] + 2**64 * values[2 * i + 1] for i in range(num_wide)] + values[2 * num_wide :]


def expected_rows(words: np.ndarray, rows: np.ndarray, num_added: int, num_wide: int) -> list[int]:
    totals = numbers_of(words, num_wide)
    for index, row in enumerate(rows):
        sign = 1 if index < num_added else -1
        totals = [total + sign * number for total, number in zip(totals, numbers_of(row, num_wide), strict=True)]
    return [total % 2 ** (128 if index < num_wide else 64) for index, total in enumerate(totals)]


@BOTH
@given(data=st.data(), num_wide=st.integers(0, 8), num_narrow=st.integers(0, 8), num_rows=st.integers(0, 4))
def test_rows_are_added_modulo_the_ring(
    kernels: Kernels, data: st.DataObject, num_wide: int, num_narrow: int, num_rows: int
) -> None:
    size = 2 * num_wide + num_narrow
    numbers = data.draw(st.lists(WORD, min_size=size * (num_rows + 1), max_size=size * (num_rows + 1)))
    words, *others = np.array(numbers, np.uint64).reshape(num_rows + 1, size)
    rows = np.array(others, np.uint64).reshape(num_rows, size)
    num_added = data.draw(st.integers(0, num_rows))
    expected = expected_rows(words, rows, num_added, num_wide)
    kernels.add_rows(words, rows, num_added, num_wide)
    assert numbers_of(words, num_wide) == expected


@BOTH
@pytest.mark.parametrize("num_wide", [0, 5, 1023, 1024, 1025, 9000, 20_000])
def test_long_rows(kernels: Kernels, num_wide: int) -> None:
    rng = np.random.default_rng(num_wide)
    words, rows = rng.integers(0, 2**64, 40_001, np.uint64), rng.integers(0, 2**64, (3, 40_001), np.uint64)
    expected = expected_rows(words, rows, 2, num_wide)
    kernels.add_rows(words, rows, 2, num_wide)
    assert numbers_of(words, num_wide) == expected


@BOTH
def test_a_vector_is_added_to_another_and_is_not_changed(kernels: Kernels) -> None:
    total, words = np.array([2**64 - 1, 7, 2**64 - 1], np.uint64), np.array([1, 1, 1], np.uint64)
    words.setflags(write=False)
    add_words(total, words, 1, _kernels=kernels)
    assert total.tolist() == [0, 9, 0]


# Exact numbers


def rings(num_elements: int) -> list[Ring128]:
    """Memory in two parts, and memory in pairs of words."""
    pairs = np.empty(2 * num_elements, np.uint64)
    return [Ring128.zeros(num_elements), Ring128(pairs[1::2].view(np.int64), pairs[::2])]


@BOTH
@given(values=st.lists(EDGES | st.floats(-(2.0**62), 2.0**62) | st.floats(-2, 2), max_size=40))
def test_exact_numbers_are_the_nearest_multiples(kernels: Kernels, values: list[float]) -> None:
    for ring in rings(len(values)):
        encode_exact(np.array(values, np.float64), 1, out=ring, _kernels=kernels)
        numbers = [high * 2**64 + low for high, low in zip(ring.high.tolist(), ring.low.tolist(), strict=True)]
        assert numbers == [round(Fraction(value) * 2**64) for value in values]


@given(words=st.lists(WORD, max_size=60))
def test_exact_numbers_are_decoded_the_same(words: list[int]) -> None:
    pairs = np.array(words[: len(words) // 2 * 2], np.uint64)
    for ring in (
        Ring128(pairs[1::2].view(np.int64), pairs[::2]),
        Ring128(pairs[1::2].view(np.int64).copy(), pairs[::2].copy()),
    ):
        decoded = [decode_exact(ring, _kernels=kernels).tobytes() for kernels in (NUMPY, COMPILED)]
        assert decoded[0] == decoded[1]


def test_long_exact_vectors() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=BLOCK + 4097) * 10.0 ** rng.integers(-22, 18, BLOCK + 4097)
    for ring, other in zip(rings(values.size), rings(values.size), strict=True):
        encode_exact(values, 1, out=ring, _kernels=NUMPY)
        encode_exact(values, 1, out=other, _kernels=COMPILED)
        assert (ring.low == other.low).all()
        assert (ring.high == other.high).all()
        assert (decode_exact(ring, _kernels=NUMPY) == decode_exact(other, _kernels=COMPILED)).all()


# Bounded vectors


@settings(max_examples=150)
@given(
    st.integers(4, 32), st.sampled_from((1, 2, 3, 10, 1000)), st.integers(0, 300), st.sampled_from((1e-3, 1.0, 1e3)),
    st.sampled_from((np.float32, np.float64)), st.integers(0, 2**32),
)  # fmt: skip
def test_bounded_vectors_are_the_same_bits(
    bits: int, num_sites: int, size: int, clip_norm: float, dtype: type, seed: int
) -> None:
    values = np.random.default_rng(seed).normal(size=size).astype(dtype)
    assert_same_bits(values, clip_norm, bits, num_sites)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("bits", "num_sites"), [(12, 10), (4, 1), (32, 1000)])
def test_long_bounded_vectors_are_the_same_bits(dtype: type, bits: int, num_sites: int) -> None:
    values = np.random.default_rng(bits).normal(size=4 * BLOCK + 12_345).astype(dtype)
    for clip_norm in (1.0, 1e4):
        assert_same_bits(values, clip_norm, bits, num_sites)


def assert_same_bits(values: np.ndarray, clip_norm: float, bits: int, num_sites: int) -> None:
    """Words, the state that the generator is left in, and the numbers decoded."""
    outcomes = []
    for kernels in (NUMPY, COMPILED):
        rng = np.random.default_rng(3)
        words = encode_bounded(values, clip_norm, bits, num_sites, rng, _kernels=kernels)
        decoded = decode_bounded(words, values.size, clip_norm, bits, num_sites, 1, _kernels=kernels)
        outcomes.append((words.tobytes(), rng.integers(2**63), decoded.tobytes()))
    assert outcomes[0] == outcomes[1]


@BOTH
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e200])
def test_a_norm_that_is_no_number_is_refused(kernels: Kernels, bad: float) -> None:
    values = np.zeros(100)
    values[50] = bad
    with pytest.raises(OverflowError):
        encode_bounded(values, 1.0, 16, 10, np.random.default_rng(0), _kernels=kernels)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 7, 100_003])
def test_the_fast_sum_of_squares_is_near_enough(dtype: type, size: int) -> None:
    values = (np.random.default_rng(0).normal(size=size) * 1e6).astype(dtype)
    assert COMPILED.sum_of_squares is not None
    assert COMPILED.sum_of_squares(values) == pytest.approx(math.fsum((values.astype(float) ** 2).tolist()), rel=1e-9)


@BOTH
@pytest.mark.parametrize("excess", [-1e-12, 0.0, 1e-12, 1e-9, 1e-4])
def test_a_norm_near_the_bound_is_computed_exactly(kernels: Kernels, excess: float) -> None:
    values = np.array([3.0, 4.0]) * (1 + excess)
    words = encode_bounded(values, 5.0, 32, 1, np.random.default_rng(0), _kernels=kernels)
    expected = values * min(1.0, 5.0 / np.linalg.norm(values))
    assert decode_bounded(words, 2, 5.0, 32, 1, 1) == pytest.approx(expected, abs=5.0 / 2**30)


GOLDEN = (
    (12, 10, np.float32, 300_000, "f702952d7f4ef1cf"),
    (16, 3, np.float64, 140_001, "a28240e398037def"),
    (21, 1000, np.float32, 70_000, "38a3168c7111c70c"),
    (32, 1, np.float64, 999, "2baea9f2b47a6867"),
)


@BOTH
def test_golden_words(kernels: Kernels) -> None:
    rng = np.random.default_rng(2026)
    for bits, num_sites, dtype, size, digest in GOLDEN:
        values = np.random.default_rng(5).normal(size=size).astype(dtype)
        words = encode_bounded(values, 1000.0, bits, num_sites, rng, _kernels=kernels)
        assert words.size == words_for(size, bits, num_sites)
        assert hashlib.sha256(words.tobytes()).hexdigest()[:16] == digest
    assert rng.integers(0, 2**63) == 4135580584313005194


# The choice


def test_only_large_vectors_are_worth_a_compiler() -> None:
    assert kernels_for(COMPILED_FROM - 1) is NUMPY
    assert kernels_for(COMPILED_FROM) is COMPILED


def test_without_numba_there_is_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)  # what an import finds where it is not installed
    assert compiled.__wrapped__() is None


def test_loops_are_compiled_where_nothing_can_be_kept() -> None:
    namespace: dict[str, Any] = {}
    exec("def twice(x):\n    return 2 * x", namespace)  # a function without a file cannot be kept
    assert module._compiled(namespace["twice"])(21) == 42


@pytest.mark.parametrize(
    "change", [lambda v: np.repeat(v, 2)[::2], lambda v: v.astype(">f8"), lambda v: v.astype("f2")]
)
def test_uncommon_arrays_are_encoded_by_numpy(change: Any) -> None:
    values = change(np.linspace(-1, 1, COMPILED_FROM))
    words = encode_bounded(values, 1e4, 12, 10, np.random.default_rng(0))
    plain = np.ascontiguousarray(values, np.float64)
    assert (words == encode_bounded(plain, 1e4, 12, 10, np.random.default_rng(0))).all()
