"""The masks against the published vectors of AES-CTR, and against Python's big integers."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from wardround.privacy.secagg import prg
from wardround.privacy.secagg.prg import apply_masks, keystream
from wardround.sums.kernels import NUMPY, Kernels, compiled

# NIST SP 800-38A, F.5.1: CTR-AES128.Encrypt, the output blocks.
NIST_KEY = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
NIST_COUNTER = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
NIST_STREAM = bytes.fromhex(
    "ec8cdf7398607cb0f2d21675ea9ea1e4362b7c3c6773516318a077d7fc5073ae"
    "6a2cc3787889374fbeb4c81b17ba6c44e89c399ff0f198c6d40a31db156cabfe"
)
SEEDS = st.binary(min_size=32, max_size=32)
SIGNS = st.sampled_from((1, -1))


def test_the_key_stream_is_that_of_nist() -> None:
    for length in (0, 1, 15, 16, 17, 64):
        assert keystream(NIST_KEY + NIST_COUNTER, length) == NIST_STREAM[:length]


def test_the_counter_wraps_around() -> None:
    first, second = keystream(NIST_KEY + b"\xff" * 16, 32)[16:], keystream(NIST_KEY + bytes(16), 16)
    assert first == second


def numbers_of(words: np.ndarray, num_wide: int) -> list[int]:
    values = words.tolist()
    wide = [values[2 * i] + 2**64 * values[2 * i + 1] for i in range(num_wide)]
    return wide + values[2 * num_wide :]


def expected(words: np.ndarray, num_wide: int, masks: Sequence[tuple[bytes, int]]) -> list[int]:
    totals = numbers_of(words, num_wide)
    for seed, sign in masks:
        mask = numbers_of(np.frombuffer(keystream(seed, words.nbytes), "<u8"), num_wide)
        totals = [total + sign * number for total, number in zip(totals, mask, strict=True)]
    return [total % 2 ** (128 if index < num_wide else 64) for index, total in enumerate(totals)]


@st.composite
def vectors(draw: st.DrawFn, words: st.SearchStrategy[int]) -> tuple[np.ndarray, int]:
    num_wide, num_narrow = draw(st.integers(0, 12)), draw(st.integers(0, 12))
    size = 2 * num_wide + num_narrow
    return np.array(draw(st.lists(words, min_size=size, max_size=size)), np.uint64), num_wide


EDGES = st.sampled_from((0, 1, 2**63, 2**64 - 1)) | st.integers(0, 2**64 - 1)


@given(vectors(EDGES), st.lists(st.tuples(SEEDS, SIGNS), max_size=12))
def test_masks_are_added_modulo_the_ring(vector: tuple[np.ndarray, int], masks: list[tuple[bytes, int]]) -> None:
    words, num_wide = vector
    expectation = expected(words, num_wide, masks)
    apply_masks(words, num_wide, masks)
    assert numbers_of(words, num_wide) == expectation


@pytest.mark.parametrize("extra", [-2, -1, 0, 1, 2])
@pytest.mark.parametrize("num_wide", [0, 3, prg._BLOCK_WORDS // 2, prg._BLOCK_WORDS // 2 + 1])
@pytest.mark.parametrize("kernels", [NUMPY, compiled()], ids=["numpy", "compiled"])
def test_blocks_join(extra: int, num_wide: int, kernels: Kernels | None) -> None:
    words = np.random.default_rng(1).integers(0, 2**64, 2 * prg._BLOCK_WORDS + extra, np.uint64)
    masks = [(bytes([i]) * 32, sign) for i, sign in enumerate((1, -1, 1))]
    expectation = expected(words, num_wide, masks)
    apply_masks(words, num_wide, masks, _kernels=kernels)
    assert numbers_of(words, num_wide) == expectation


@given(vectors(EDGES), st.lists(st.tuples(SEEDS, SIGNS), max_size=12), st.randoms())
def test_masks_come_off_again(vector: tuple[np.ndarray, int], masks: list[tuple[bytes, int]], random: object) -> None:
    words, num_wide = vector
    before = words.tolist()
    apply_masks(words, num_wide, masks)
    opposite = [(seed, -sign) for seed, sign in masks]
    random.shuffle(opposite)  # type: ignore[attr-defined]
    apply_masks(words, num_wide, opposite)
    assert words.tolist() == before


@pytest.mark.parametrize("bad", [(b"x" * 31, 1), (b"x" * 33, 1), (b"", -1), (b"x" * 32, 0), (b"x" * 32, 2)])
def test_a_bad_mask_is_refused_before_anything_changes(bad: tuple[bytes, int]) -> None:
    words = np.arange(10, dtype=np.uint64)
    with pytest.raises(ValueError, match=r"seed must have 32 bytes|sign must be 1 or -1"):
        apply_masks(words, 2, [(b"y" * 32, 1), bad])
    assert words.tolist() == list(range(10))


# Uniformity

FALSE_ALARM = 1e-6


def looks_uniform(words: np.ndarray) -> bool:
    """Whether bytes at each of the eight places of a word, and the words themselves, look uniform and unrelated.

    Ten tests share a false alarm in `FALSE_ALARM` of all seeds.
    """
    places = words.view(np.uint8).reshape(-1, 8).T
    p_values = [stats.chisquare(np.bincount(place, minlength=256)).pvalue for place in places]
    p_values.append(stats.kstest(words / 2.0**64, "uniform").pvalue)
    lagged = np.corrcoef(words[:-1] / 2.0**64, words[1:] / 2.0**64)[0, 1] * np.sqrt(words.size - 1)
    p_values.append(2 * stats.norm.sf(abs(lagged)))
    return bool(min(p_values) * len(p_values) > FALSE_ALARM)


def contribution() -> np.ndarray:
    """What a site sends: small numbers, counts, slots around the middle of their range."""
    rng = np.random.default_rng(7)
    return rng.integers(2**31 - 1000, 2**31 + 1000, 2**16, np.uint64)


def test_a_masked_vector_is_uniform() -> None:
    for seed in range(5):
        for num_wide in (0, 2**15):
            words = contribution()
            apply_masks(words, num_wide, [(bytes([seed]) * 32, 1), (bytes([seed + 100]) * 32, -1)])
            assert looks_uniform(words)


def test_a_bare_vector_is_not_uniform() -> None:
    assert not looks_uniform(contribution())


def test_a_mask_used_twice_is_seen() -> None:
    first, second = contribution(), contribution()[::-1].copy()
    for words in (first, second):
        apply_masks(words, 0, [(b"once" * 8, 1)])
        assert looks_uniform(words)
    assert not looks_uniform(first - second)
    assert (first - second).tolist() == (contribution() - contribution()[::-1]).tolist()


def test_masks_of_other_seeds_do_not_cancel() -> None:
    first, second = contribution(), contribution()
    apply_masks(first, 0, [(b"k" * 16 + b"a" * 16, 1)])
    apply_masks(second, 0, [(b"k" * 16 + b"b" * 16, 1)])
    assert looks_uniform(first - second)
