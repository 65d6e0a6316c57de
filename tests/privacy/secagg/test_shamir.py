"""Shares against polynomials of Python's integers."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from wardround.privacy.secagg.prg import keystream
from wardround.privacy.secagg.shamir import FIELD, LIMBS, SHARE_BYTES, combine, split

RANDOMNESS = bytes(range(32))


def seeds_of(num_seeds: int, seed: int) -> list[bytes]:
    return [random.Random(seed + 1000 * i).randbytes(32) for i in range(num_seeds)]


def coefficients_of(randomness: bytes) -> Iterator[int]:
    """The key stream's 16-bit numbers below the field's size."""
    stream = keystream(randomness, 2**17)
    numbers = (int.from_bytes(stream[i : i + 2], "little") for i in range(0, len(stream), 2))
    return (number for number in numbers if number < FIELD)


def expected_shares(seeds: list[bytes], threshold: int, holders: list[int], randomness: bytes) -> list[list[list[int]]]:
    limbs = [int.from_bytes(seed, "little") >> (15 * limb) & 0x7FFF for seed in seeds for limb in range(LIMBS)]
    drawn = coefficients_of(randomness)
    rows = [limbs] + [[next(drawn) for _ in limbs] for _ in range(threshold - 1)]
    values = [
        [sum(row[i] * (j + 1) ** k for k, row in enumerate(rows)) % FIELD for i in range(len(limbs))] for j in holders
    ]
    return [[row[start : start + LIMBS] for start in range(0, len(row), LIMBS)] for row in values]


HOLDERS = st.lists(st.integers(0, 1023) | st.sampled_from((0, FIELD - 2)), min_size=2, max_size=8, unique=True)


@settings(max_examples=30)
@given(st.data(), HOLDERS, st.integers(0, 3), st.binary(min_size=32, max_size=32))
def test_shares_are_values_of_polynomials(
    data: st.DataObject, holders: list[int], num_seeds: int, randomness: bytes
) -> None:
    threshold = data.draw(st.integers(2, len(holders)))
    seeds = [data.draw(st.binary(min_size=32, max_size=32)) for _ in range(num_seeds)]
    shares = split(seeds, threshold, holders, randomness)
    assert shares.dtype == np.uint16
    assert shares.shape == (len(holders), num_seeds, LIMBS)
    assert shares.tolist() == expected_shares(seeds, threshold, holders, randomness)


@given(st.data(), HOLDERS, st.integers(1, 3))
def test_any_threshold_of_shares_gives_the_seeds_back(data: st.DataObject, holders: list[int], num_seeds: int) -> None:
    threshold = data.draw(st.integers(2, len(holders)))
    edges = st.sampled_from((bytes(32), b"\xff" * 32)) | st.binary(min_size=32, max_size=32)
    seeds = [data.draw(edges) for _ in range(num_seeds)]
    shares = split(seeds, threshold, holders, RANDOMNESS)
    places = data.draw(st.permutations(range(len(holders))))[:threshold]
    assert combine(shares[places], [holders[place] for place in places]) == seeds


@pytest.mark.parametrize(("num_holders", "threshold"), [(3, 3), (10, 7), (65, 44), (186, 124), (300, 200)])
def test_many_holders(num_holders: int, threshold: int) -> None:
    seeds = seeds_of(11, 1)
    shares = split(seeds, threshold, range(num_holders), RANDOMNESS)
    last = list(range(num_holders - threshold, num_holders))
    assert combine(shares[last], last) == seeds
    assert shares[-1].tolist() == expected_shares(seeds, threshold, [num_holders - 1], RANDOMNESS)[0]


def test_the_largest_numbers_stay_exact() -> None:
    num_holders = 1024
    points = list(range(FIELD - 1 - num_holders, FIELD - 1))
    seeds = [b"\xff" * 32]
    shares = split(seeds, num_holders, points, RANDOMNESS)
    assert combine(shares, points) == seeds
    assert shares[-1].tolist() == expected_shares(seeds, num_holders, points[-1:], RANDOMNESS)[0]


def test_a_share_has_36_bytes() -> None:
    assert split([bytes(32)], 2, [0, 1], RANDOMNESS)[0, 0].nbytes == SHARE_BYTES == 36


# What fewer holders see

FALSE_ALARM = 1e-6


def is_uniform(numbers: np.ndarray) -> bool:
    """Whether elements of the field look uniform: false alarm in `FALSE_ALARM` of all seeds."""
    counts = np.bincount(numbers.ravel().astype(np.int64) * 256 // FIELD, minlength=256)
    sizes = np.bincount(np.arange(FIELD) * 256 // FIELD, minlength=256)
    p_values = [
        stats.chisquare(counts, sizes * numbers.size / FIELD).pvalue,
        stats.kstest((numbers.ravel() + 0.5) / FIELD, "uniform").pvalue,
    ]
    return bool(min(p_values) * 2 > FALSE_ALARM)


def test_fewer_shares_say_nothing() -> None:
    seeds = [bytes(32)] * 3000  # every limb is zero
    shares = split(seeds, 3, [0, 4, 9, 20], RANDOMNESS).astype(np.int64)
    for place in range(4):
        assert is_uniform(shares[place])
    # Whatever two holders put together: a line through two points, at zero.
    for a, b, x, y in ((0, 1, 1, 5), (1, 3, 5, 21), (2, 3, 10, 21)):
        at_zero = (shares[a] * y - shares[b] * x) * pow(y - x, -1, FIELD) % FIELD
        assert is_uniform(at_zero)


def test_a_threshold_too_low_by_one_would_be_seen() -> None:
    shares = split([bytes(32)] * 3000, 2, [0, 4], RANDOMNESS).astype(np.int64)
    assert not is_uniform((shares[0] * 5 - shares[1] * 1) * pow(4, -1, FIELD) % FIELD)


def test_coefficients_folded_into_the_field_would_be_seen() -> None:
    folded = np.frombuffer(keystream(RANDOMNESS, 2**25), np.uint16)
    low = int((folded % FIELD < 15).sum())
    assert stats.poisson.sf(low, folded.size * 15 / FIELD) < FALSE_ALARM
    kept = split([bytes(32)] * 200_000, 2, [0, 1], RANDOMNESS)[0]  # the coefficients themselves
    low = int((kept < 15).sum())
    assert min(stats.poisson.sf(low - 1, kept.size * 15 / FIELD), stats.poisson.cdf(low, kept.size * 15 / FIELD)) > 1e-6


def test_other_randomness_gives_other_shares() -> None:
    first, second = (split(seeds_of(1, 1), 2, [0, 1], bytes([i]) * 32) for i in (1, 2))
    assert (first != second).all(axis=(1, 2)).any()


# Refusals


@pytest.mark.parametrize(
    ("seeds", "threshold", "holders", "randomness", "message"),
    [
        ([bytes(32)], 1, [0, 1], RANDOMNESS, r"threshold must be in \[2, 2\], got threshold=1"),
        ([bytes(32)], 3, [0, 1], RANDOMNESS, r"threshold must be in \[2, 2\], got threshold=3"),
        ([bytes(31)], 2, [0, 1], RANDOMNESS, "each seed must have 32 bytes"),
        ([bytes(32)], 2, [0, 0], RANDOMNESS, "different"),
        ([bytes(32)], 2, [-1, 0], RANDOMNESS, "indices in"),
        ([bytes(32)], 2, [0, FIELD - 1], RANDOMNESS, "indices in"),
        ([bytes(32)], 2, [], RANDOMNESS, "indices in"),
        ([bytes(32)], 2, [0, 1], b"short", "seed must have 32 bytes"),
    ],
)
def test_bad_arguments_are_refused(
    seeds: list[bytes], threshold: int, holders: list[int], randomness: bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        split(seeds, threshold, holders, randomness)


def test_limbs_out_of_range_are_refused() -> None:
    """Values that are no limbs, planted: the shares of a constant polynomial are that constant."""
    for limb, value, is_good in (
        (0, 2**15 - 1, True),
        (0, 2**15, False),
        (17, 1, True),
        (17, 2, False),
        (0, FIELD, False),
    ):
        shares = np.zeros((2, 1, LIMBS), np.uint16)
        shares[:, 0, limb] = value
        if is_good:
            assert combine(shares, [0, 1]) == [(value << (15 * limb)).to_bytes(32, "little")]
        else:
            with pytest.raises(ValueError, match=r"out of range|not below"):
                combine(shares, [0, 1])


def test_a_wrong_share_gives_another_seed_or_is_refused() -> None:
    shares = split(seeds_of(1, 5), 2, [0, 1, 2], RANDOMNESS)
    shares[0, 0, 3] = (int(shares[0, 0, 3]) + 1) % FIELD
    assert not gives(shares, [0, 1], seeds_of(1, 5))
    assert gives(shares, [1, 2], seeds_of(1, 5))


def gives(shares: np.ndarray, holders: list[int], seeds: list[bytes]) -> bool:
    try:
        return combine(shares[holders], holders) == seeds
    except ValueError:
        return False


@pytest.mark.parametrize("shape", [(2, 1, 17), (3, 1, 18), (2, 18), (0, 1, 18)])
def test_shares_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shares must have shape"):
        combine(np.zeros(shape, np.uint16), [0, 1])


def test_nothing_to_share() -> None:
    assert split([], 2, [0, 1], RANDOMNESS).shape == (2, 0, LIMBS)
    assert combine(np.zeros((2, 0, LIMBS), np.uint16), [0, 1]) == []
