"""The codecs against Python's own big integers and fractions."""

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from wardround.sums import codec
from wardround.sums.codec import (
    MAX_SITES,
    Ring128,
    decode_bounded,
    decode_exact,
    encode_bounded,
    encode_exact,
    exact_limit,
    slot_bits,
    words_for,
)
from wardround.sums.kernels import NUMPY, Kernels, compiled

EDGES = (
    0.0, -0.0, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 0.49999999999999994, -0.49999999999999994, 0.5000000000000001,
    2.0**-64, -(2.0**-64), 2.0**-65, -(2.0**-65), 3 * 2.0**-65, -3 * 2.0**-65, 1e-300, -1e-300, 5e-324, -5e-324,
    2.0**51 + 0.5, -(2.0**51) - 0.5, 2.0**52 + 1, -(2.0**52) - 1, 2.0**53 - 1, 2.0**62, -(2.0**62), 1e15 + 0.125,
)  # fmt: skip
SITES = st.sampled_from((1, 2, 3, 10, 1000, 10**4, MAX_SITES))


def integers(ring: Ring128) -> list[int]:
    return [high * 2**64 + low for high, low in zip(ring.high.tolist(), ring.low.tolist(), strict=True)]


def ring_of(numbers: list[int]) -> Ring128:
    wrapped = [number % 2**128 for number in numbers]
    high = np.array([number >> 64 for number in wrapped], np.uint64).view(np.int64)
    return Ring128(high, np.array([number % 2**64 for number in wrapped], np.uint64))


def below(limit: float) -> st.SearchStrategy[float]:
    largest = math.nextafter(limit, 0.0)
    kept = [edge for edge in EDGES if abs(edge) < limit]
    return st.one_of(st.floats(-largest, largest), st.sampled_from([*kept, largest, -largest]), st.floats(-2, 2))


RING = st.lists(st.integers(-(2**127), 2**127 - 1), min_size=1, max_size=5)


@given(st.data(), SITES)
def test_encoding_is_the_nearest_multiple_of_2_to_minus_64(data: st.DataObject, num_sites: int) -> None:
    values = data.draw(st.lists(below(exact_limit(num_sites)), max_size=40))
    ring = encode_exact(np.array(values, np.float64), num_sites)
    assert integers(ring) == [round(Fraction(value) * 2**64) for value in values]


@given(st.data(), SITES)
def test_decoding_is_within_a_unit_in_the_last_place(data: st.DataObject, num_sites: int) -> None:
    limit = 2**127 - 2**70
    numbers = data.draw(st.lists(st.one_of(st.integers(-limit, limit), st.integers(-(2**70), 2**70)), max_size=40))
    for value, number in zip(decode_exact(ring_of(numbers)).tolist(), numbers, strict=True):
        assert abs(Fraction(value) - Fraction(number, 2**64)) <= Fraction(math.ulp(number / 2**64))


@given(st.lists(st.floats(-(2.0**62), 2.0**62).filter(lambda x: x == 0 or abs(x) >= 2.0**-11), max_size=20))
def test_a_single_number_comes_back_as_it_was(values: list[float]) -> None:
    decoded = decode_exact(encode_exact(np.array(values, np.float64), 1))
    assert decoded.tolist() == values


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(-300, 700)[:1000].clip(-300, 15)
    whole = encode_exact(values, 7)
    monkeypatch.setattr(codec, "BLOCK", 64)
    parts = encode_exact(values, 7)
    assert integers(parts) == integers(whole)
    decoded = decode_exact(parts)
    whole.add(parts)
    monkeypatch.undo()
    assert decoded.tobytes() == decode_exact(parts).tobytes()
    assert integers(whole) == [2 * number for number in integers(parts)]


@given(RING, st.data())
def test_ring_addition_is_that_of_integers_modulo_2_to_128(numbers: list[int], data: st.DataObject) -> None:
    others = data.draw(st.lists(st.integers(-(2**127), 2**127 - 1), min_size=len(numbers), max_size=len(numbers)))
    thirds = data.draw(st.lists(st.integers(-(2**127), 2**127 - 1), min_size=len(numbers), max_size=len(numbers)))
    for order in ((numbers, others, thirds), (thirds, numbers, others), (others, thirds, numbers)):
        total = Ring128.zeros(len(numbers))
        for summand in order:
            total.add(ring_of(summand))
        expected = [sum(column) for column in zip(numbers, others, thirds, strict=True)]
        assert integers(total) == integers(ring_of(expected))


@given(st.lists(st.lists(st.integers(-(2**127), 2**127 - 1), min_size=3, max_size=3), min_size=1, max_size=30))
def test_sum_of_rows_is_that_of_integers_modulo_2_to_128(rows: list[list[int]]) -> None:
    rings = [ring_of(row) for row in rows]
    stacked = Ring128(np.stack([ring.high for ring in rings]), np.stack([ring.low for ring in rings]))
    expected = [sum(column) for column in zip(*rows, strict=True)]
    assert integers(stacked.sum_rows()) == integers(ring_of(expected))


@given(SITES, st.sampled_from((math.nan, math.inf, -math.inf, "limit", "-limit")), st.integers(0, 39), st.booleans())
def test_what_cannot_be_summed_is_refused_with_its_index(
    num_sites: int, bad: float | str, index: int, is_long: bool
) -> None:
    limit = exact_limit(num_sites)
    values = np.zeros(200 if is_long else 40)
    if is_long:
        values[50:] = math.nextafter(limit, 0.0)  # a legal vector whose sum of squares is over the limit's
    values[index] = {"limit": limit, "-limit": -limit}.get(bad, bad)  # type: ignore[call-overload]
    with pytest.raises(OverflowError) as caught:
        encode_exact(values, num_sites)
    assert caught.value.args == (index,)


@pytest.mark.parametrize("num_sites", [1, 2, 3, 10, 1000, 10**4, MAX_SITES])
def test_the_largest_sum_does_not_overflow(num_sites: int) -> None:
    for largest in (math.nextafter(exact_limit(num_sites), 0.0), -math.nextafter(exact_limit(num_sites), 0.0)):
        (number,) = integers(encode_exact(np.array([largest]), num_sites))
        assert abs(number * num_sites) < 2**127
        assert decode_exact(ring_of([number * num_sites]))[0] == pytest.approx(largest * num_sites, rel=1e-15)


def test_encoding_into_kept_memory_gives_the_same() -> None:
    values = np.random.default_rng(3).normal(size=500)
    out = Ring128(np.full(500, -1), np.full(500, 7, np.uint64))
    assert encode_exact(values, 3, out=out) is out
    assert integers(out) == integers(encode_exact(values, 3))
    words = np.full(words_for(500, 16, 3), 99, np.uint64)
    kept = encode_bounded(values, 1.0, 16, 3, np.random.default_rng(1), out=words)
    assert kept is words
    assert words.tolist() == encode_bounded(values, 1.0, 16, 3, np.random.default_rng(1)).tolist()


def test_empty_vectors() -> None:
    nothing = np.empty(0)
    assert decode_exact(encode_exact(nothing, 5)).shape == (0,)
    words = encode_bounded(nothing, 1.0, 16, 5, np.random.default_rng(0))
    assert words.shape == (0,)
    assert decode_bounded(words, 0, 1.0, 16, 5, 5).shape == (0,)


# Bounded


def decoded_sum(
    vectors: list[np.ndarray], clip_norm: float, bits: int, num_sites: int, rng: np.random.Generator
) -> np.ndarray:
    words = np.zeros(words_for(vectors[0].size, bits, num_sites), np.uint64)
    for vector in vectors:
        words += encode_bounded(vector, clip_norm, bits, num_sites, rng)
    return decode_bounded(words, vectors[0].size, clip_norm, bits, num_sites, len(vectors))


def quantum(clip_norm: float, bits: int) -> float:
    return clip_norm / (2 ** (bits - 1) - 2)


@given(
    st.integers(4, 32), st.sampled_from((1, 2, 3, 9, 10, 1000, 10**4)), st.integers(1, 70), st.integers(1, 4),
    st.sampled_from((1e-100, 1e-3, 1.0, 7.3, 1e100)), st.sampled_from((np.float64, np.float32)), st.integers(0, 99),
)  # fmt: skip
def test_each_element_is_within_a_quantum(
    bits: int, num_sites: int, size: int, num_vectors: int, clip_norm: float, dtype: type, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    factor = clip_norm if dtype is np.float64 else min(max(clip_norm, 1e-30), 1e18)
    vectors = [(rng.normal(size=size) * factor).astype(dtype) for _ in range(min(num_vectors, num_sites))]
    total = decoded_sum(vectors, clip_norm, bits, num_sites, rng)
    norms = [np.linalg.norm(vector.astype(np.float64)) for vector in vectors]
    clipped = [v.astype(np.float64) * min(1.0, clip_norm / n) for v, n in zip(vectors, norms, strict=True)]
    difference = np.abs(total - np.sum(clipped, axis=0))
    assert difference.max() <= len(vectors) * quantum(clip_norm, bits) * (1 + 1e-6)


@pytest.mark.parametrize("bits", [4, 5, 7, 8, 12, 13, 16, 21, 31, 32])
@pytest.mark.parametrize("num_sites", [1, 2, 3, 16, 17, 10**4, MAX_SITES])
def test_the_largest_packed_sum_does_not_reach_its_neighbour(bits: int, num_sites: int) -> None:
    width = slot_bits(bits, num_sites)
    assert num_sites * (2**bits - 1) < 2**width <= 2**64
    size = 2 * (64 // width) + 1
    rng = np.random.default_rng(bits)
    for sign in (1.0, -1.0):
        vector = np.zeros(size)
        vector[size // 2] = sign * 3.0  # beyond the clip norm: the largest integer there is
        words = encode_bounded(vector, 1.0, bits, num_sites, rng)
        summed = words * np.uint64(num_sites)
        total = decode_bounded(summed, size, 1.0, bits, num_sites, num_sites)
        expected = np.zeros(size)
        expected[size // 2] = sign * num_sites
        assert total == pytest.approx(expected, rel=2 / 2 ** (bits - 1), abs=1e-12)


@given(st.integers(4, 32), st.integers(1, 200), st.sampled_from((1, 3, 100)), st.integers(0, 9))
def test_zero_stays_zero(bits: int, size: int, num_sites: int, seed: int) -> None:
    words = encode_bounded(np.zeros(size), 1.0, bits, num_sites, np.random.default_rng(seed))
    assert decode_bounded(words, size, 1.0, bits, num_sites, 1).tolist() == [0.0] * size


def test_grid_points_stay_where_they_are() -> None:
    values = np.arange(-20, 21) * 2.0**-10
    clip_norm = (2**15 - 2) * 2.0**-10
    words = encode_bounded(values, clip_norm, 16, 10, np.random.default_rng(0))
    assert decode_bounded(words, 41, clip_norm, 16, 10, 1).tolist() == values.tolist()


@given(st.integers(4, 16), st.integers(0, 200), st.sampled_from((1, 10)), st.integers(0, 9))
def test_rounding_is_that_of_a_key_stream(bits: int, size: int, num_sites: int, seed: int) -> None:
    clip_norm = 2.0 ** (bits - 1) - 2  # a quantum of 1
    values = np.random.default_rng(size).uniform(-1, 1, size) * clip_norm / (1 + size)
    drawn = np.random.default_rng(seed).bytes(32)
    stream = Cipher(algorithms.AES128(drawn[:16]), modes.CTR(drawn[16:])).encryptor().update(bytes(2 * size))
    dithers = (np.frombuffer(stream, "<i2") | 1).tolist()
    expected = [
        float((Fraction(value) + Fraction(dither, 2**16) + Fraction(1, 2)) // 1)
        for value, dither in zip(values.tolist(), dithers, strict=True)
    ]
    words = encode_bounded(values, clip_norm, bits, num_sites, np.random.default_rng(seed))
    assert decode_bounded(words, size, clip_norm, bits, num_sites, 1).tolist() == expected


def with_dither(kernels: Kernels, dither: int) -> Kernels:
    """Kernels that get one draw again and again: the least likely ones are tested, too."""

    def pack(values: np.ndarray, drawn: np.ndarray, *arguments: Any) -> None:
        kernels.pack(values, np.full_like(drawn, dither), *arguments)

    return replace(kernels, pack=pack)


@pytest.mark.parametrize("kernels", [NUMPY, compiled() or NUMPY], ids=["numpy", "compiled"])
@pytest.mark.parametrize("dither", [-(2**15), -(2**15) + 1, -1, 0, 1, 2**15 - 2, 2**15 - 1])
def test_no_draw_moves_a_grid_point_or_rounds_further_than_a_quantum(kernels: Kernels, dither: int) -> None:
    rng, extreme = np.random.default_rng(0), with_dither(kernels, dither)
    clip_norm = 32766.0  # a quantum of 1
    values = np.arange(-20.0, 21.0)
    for shift in (0.0, 0.0001, 0.5, 0.9999):
        words = encode_bounded(values + shift, clip_norm, 16, 10, rng, _kernels=extreme)
        rounded = decode_bounded(words, 41, clip_norm, 16, 10, 1) - values
        assert set(rounded.tolist()) <= ({0.0, 1.0} if shift else {0.0})


FALSE_ALARM = 1e-6


def unlikely(deviations: np.ndarray) -> bool:
    """Whether standardised sums, one a value, are too far out: false alarm in `FALSE_ALARM` of all seeds."""
    return bool(2 * stats.norm.sf(np.abs(deviations)).min() * deviations.size < FALSE_ALARM)


def rounding_deviations(scale: float) -> np.ndarray:
    """Of the mean of many roundings from `scale` times the value, in standard errors."""
    repeats, bits, clip_norm = 40_000, 8, 126.0  # a quantum of 1
    assert quantum(clip_norm, bits) == 1.0
    values = np.array([0.1, 0.25, 0.5, 0.75, 0.9, -0.1, -0.37, 3.3, -7.77])
    # In parts: one vector of all would be clipped.
    rng = np.random.default_rng(20260101)
    parts = [np.repeat(values, 10) for _ in range(repeats // 10)]
    rounded = np.stack(
        [decode_bounded(encode_bounded(p, clip_norm, bits, 10, rng), p.size, clip_norm, bits, 10, 1) for p in parts]
    )
    means = rounded.reshape(-1, values.size, 10).mean(axis=(0, 2))
    fractions = values - np.floor(values)
    errors = np.sqrt(fractions * (1 - fractions) / repeats)
    return (means - scale * values) / errors


def test_rounding_is_unbiased() -> None:
    assert not unlikely(rounding_deviations(1.0))


def test_a_wrong_scale_would_be_noticed() -> None:
    assert unlikely(rounding_deviations(1.004))


def test_the_dither_of_neighbours_is_not_correlated() -> None:
    clip_norm = 32766.0 / 64  # a quantum of 1/64
    values = np.full(30_000, 0.5 / 64)
    words = encode_bounded(values, clip_norm, 16, 10, np.random.default_rng(5))
    ups = decode_bounded(words, values.size, clip_norm, 16, 10, 1) * 64
    assert set(ups.tolist()) == {0.0, 1.0}
    for lag in (1, 2, 3, 4, words.size):
        correlation = np.corrcoef(ups[:-lag], ups[lag:])[0, 1] * math.sqrt(ups.size - lag)
        assert abs(correlation) < 5.5  # false alarm 4e-8 each


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e200])
def test_a_norm_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(OverflowError):
        encode_bounded(np.array([0.0, bad]), 1.0, 16, 10, np.random.default_rng(0))


def test_the_norm_of_float32_is_computed_in_float64() -> None:
    vector = np.array([3e38, 3e38, 0.0], np.float32)
    words = encode_bounded(vector, 1.0, 32, 1, np.random.default_rng(0))
    assert decode_bounded(words, 3, 1.0, 32, 1, 1) == pytest.approx([2**-0.5, 2**-0.5, 0.0], abs=1e-8)


@settings(max_examples=20)
@given(st.integers(4, 32), st.integers(1, 300), st.integers(0, 5))
def test_strided_and_foreign_byte_order_vectors_are_encoded_the_same(bits: int, size: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=size)
    strided = np.zeros(2 * size)[::2]
    strided[:] = values
    expected = encode_bounded(values, 1.0, bits, 3, np.random.default_rng(seed)).tolist()
    for same in (strided, values.astype(">f8")):
        assert encode_bounded(same, 1.0, bits, 3, np.random.default_rng(seed)).tolist() == expected
