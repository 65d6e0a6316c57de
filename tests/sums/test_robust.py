"""Means that a few liars cannot move: against other implementations, at and beyond their breakdown points."""

import math
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from tests.samples import Update
from wardround.sums import Total
from wardround.sums import robust as robust_module
from wardround.sums.contribution import layout_of
from wardround.sums.robust import coordinate_median, geometric_median, multi_krum, sum_over_buckets, trimmed_mean

LIE = 1e6
NUM_PARTS = 11


def of_some(seed: int, num_parts: int = NUM_PARTS, num_elements: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).normal(3.0, 1.0, (num_parts, num_elements))


def with_liars(parts: np.ndarray, num_liars: int, lie: float = LIE) -> np.ndarray:
    return np.concatenate([parts[num_liars:], np.full((num_liars, parts.shape[1]), lie)])


# How many of eleven parts may lie, by the docstrings.
MEANS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    "coordinate_median": (coordinate_median, 5),
    "trimmed_mean": (lambda parts: trimmed_mean(parts, 3), 3),
    "multi_krum": (lambda parts: multi_krum(parts, 4), 4),
    "krum": (lambda parts: multi_krum(parts, 4, 1), 4),
    "geometric_median": (geometric_median, 5),
}
ALL = pytest.mark.parametrize("name", MEANS)


# Against others' implementations


@given(st.integers(0, 99), st.integers(1, 9), st.integers(0, 30))
def test_medians_are_numpys(seed: int, num_parts: int, num_elements: int) -> None:
    parts = of_some(seed, num_parts, num_elements)
    np.testing.assert_array_equal(coordinate_median(parts), np.median(parts, axis=0))


@given(st.integers(0, 99), st.integers(1, 9), st.data())
def test_trimmed_means_are_scipys(seed: int, num_parts: int, data: st.DataObject) -> None:
    parts = of_some(seed, num_parts)
    num_trimmed = data.draw(st.integers(0, (num_parts - 1) // 2))
    expected = stats.trim_mean(parts, (num_trimmed + 0.5) / num_parts, axis=0)
    np.testing.assert_allclose(trimmed_mean(parts, num_trimmed), expected, rtol=1e-14)


def krum_by_hand(parts: np.ndarray, num_liars: int, num_kept: int) -> np.ndarray:
    """Blanchard 2017, section 4, word by word."""
    scores = []
    for part in parts:
        others = sorted(sum((a - b) ** 2 for a, b in zip(part, other, strict=True)) for other in parts)[1:]
        scores.append(sum(others[: len(parts) - num_liars - 2]))
    best = np.argsort(scores)[:num_kept]
    return parts[best].mean(axis=0)


@given(st.integers(0, 99), st.integers(0, 3), st.data())
def test_krum_is_brute_force(seed: int, num_liars: int, data: st.DataObject) -> None:
    num_parts = data.draw(st.integers(2 * num_liars + 3, 12))
    num_kept = data.draw(st.integers(1, num_parts - num_liars))
    parts = of_some(seed, num_parts)
    if num_parts - num_liars - 2 == 1 and num_kept % 2:  # two parts that are nearest to each other tie, and both stay
        num_kept += 1
    if num_kept <= num_parts - num_liars:
        mine = multi_krum(parts, num_liars, num_kept)
        np.testing.assert_allclose(mine, krum_by_hand(parts, num_liars, num_kept), rtol=1e-12)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("num_parts", [2, 3, 4, 9, 10])
def test_geometric_medians_are_minima(seed: int, num_parts: int) -> None:
    parts = of_some(seed, num_parts, 3)

    def sum_of_distances(point: np.ndarray) -> float:
        return float(np.linalg.norm(parts - point, axis=1).sum())

    found = min(
        optimize.minimize(sum_of_distances, start, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-13}).fun
        for start in (parts.mean(axis=0), *parts)
    )
    assert sum_of_distances(geometric_median(parts)) <= found * (1 + 1e-8)


def test_the_geometric_median_of_a_triangle_is_its_fermat_point() -> None:
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    np.testing.assert_allclose(geometric_median(corners), [0.5, math.sqrt(3) / 6], atol=1e-10)
    # An angle of 120 degrees or more: its corner. The distances there are the smoothing's.
    obtuse = np.array([[0.0, 0.0], [1.0, 0.1], [-1.0, 0.1]])
    np.testing.assert_allclose(geometric_median(obtuse), [0.0, 0.0], atol=1e-6)


def test_half_of_the_parts_at_one_point_are_the_geometric_median() -> None:
    parts = np.array([[1.0, 2.0]] * 3 + [[5.0, 5.0], [6.0, 1.0], [9.0, 9.0]])
    np.testing.assert_allclose(geometric_median(parts), [1.0, 2.0], atol=1e-6)
    np.testing.assert_array_equal(geometric_median(np.ones((4, 2))), [1.0, 1.0])


# Breakdown


@ALL
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("lie", [LIE, -LIE, 1e30, 1e100])
def test_so_many_liars_do_not_move_it(name: str, seed: int, lie: float) -> None:
    mean, num_liars = MEANS[name]
    parts = of_some(seed)
    honest = parts[num_liars:]
    center = honest.mean(axis=0)
    radius = np.linalg.norm(honest - center, axis=1).max()
    # Multi-Krum by default keeps all but the liars; the others' bounds are tighter than this one.
    factor = 2 * (NUM_PARTS - num_liars) / (NUM_PARTS - 2 * num_liars)
    moved = mean(with_liars(parts, num_liars, lie))
    assert np.linalg.norm(moved - center) <= factor * radius * (1 + 1e-6)


@ALL
def test_one_liar_more_moves_it(name: str) -> None:
    mean, num_liars = MEANS[name]
    parts = of_some(1)
    # Krum's liars stand together and are most of its parts' nearest neighbours only when they outnumber the honest.
    more = 6 if "krum" in name else num_liars + 1
    assert np.linalg.norm(mean(with_liars(parts, more))) > LIE / NUM_PARTS


@ALL
def test_the_plain_mean_is_moved_by_one(name: str) -> None:
    parts = of_some(2)
    assert np.linalg.norm(with_liars(parts, 1).mean(axis=0)) > LIE / NUM_PARTS
    assert np.linalg.norm(MEANS[name][0](with_liars(parts, 1))) < 20


@pytest.mark.parametrize("name", ["coordinate_median", "trimmed_mean"])
@given(seed=st.integers(0, 999))
def test_elements_lie_between_honest_ones(name: str, seed: int) -> None:
    mean, num_liars = MEANS[name]
    rng = np.random.default_rng(seed)
    parts = of_some(seed)
    liars = rng.normal(0, 10.0 ** rng.integers(-3, 9), (num_liars, parts.shape[1]))
    honest = parts[num_liars:]
    result = mean(np.concatenate([honest, liars]))
    assert (result >= honest.min(axis=0)).all()
    assert (result <= honest.max(axis=0)).all()


# Symmetries


@ALL
@given(seed=st.integers(0, 99), shift=st.floats(-100, 100), scale=st.floats(0.01, 100))
def test_shifts_and_scales_go_through(name: str, seed: int, shift: float, scale: float) -> None:
    mean, _ = MEANS[name]
    parts = of_some(seed)
    expected = scale * mean(parts) + shift
    np.testing.assert_allclose(mean(scale * parts + shift), expected, rtol=1e-7, atol=1e-7 * scale)


@ALL
@given(seed=st.integers(0, 99), order=st.permutations(range(NUM_PARTS)))
def test_the_order_of_parts_does_not_matter(name: str, seed: int, order: list[int]) -> None:
    mean, _ = MEANS[name]
    parts = with_liars(of_some(seed), 3)
    np.testing.assert_allclose(mean(parts[order]), mean(parts), rtol=1e-9)


@given(st.permutations(range(7)), st.integers(1, 5))
def test_krum_breaks_no_tie_by_order(order: list[int], num_kept: int) -> None:
    parts = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [6.0]])
    np.testing.assert_array_equal(multi_krum(parts[order], 2, num_kept), multi_krum(parts, 2, num_kept))


@ALL
def test_blocks_of_columns_make_no_difference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = with_liars(of_some(4, num_elements=101), 2)
    expected = MEANS[name][0](parts)
    monkeypatch.setattr(robust_module, "BLOCK", 33)
    monkeypatch.setattr(robust_module, "_WIDTH", 8)
    np.testing.assert_allclose(MEANS[name][0](parts), expected, rtol=1e-12)


@ALL
def test_memory_stays_near_the_input(name: str) -> None:
    parts = of_some(5, num_elements=2**18)
    kept = parts.copy()
    tracemalloc.start()
    MEANS[name][0](parts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.6 * parts.nbytes + 2**21
    np.testing.assert_array_equal(parts, kept)


# Refusals


@ALL
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e140, -1e300])
def test_what_is_no_number_is_refused(name: str, bad: float) -> None:
    parts = of_some(6)
    parts[4, 2] = bad
    with pytest.raises(ValueError, match="part 4 contains NaN, infinity or a number of"):
        MEANS[name][0](parts)


@ALL
@pytest.mark.parametrize("parts", [np.empty((0, 3)), np.ones(3), np.ones((2, 2, 2))])
def test_what_is_no_table_is_refused(name: str, parts: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"parts must have shape \(num_parts, num_elements\)"):
        MEANS[name][0](parts)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: trimmed_mean(p, 3), r"num_trimmed must be in \[0, 2\] for 5 parts, got num_trimmed=3"),
        (lambda p: trimmed_mean(p, -1), r"num_trimmed must be in \[0, 2\]"),
        (lambda p: multi_krum(p, 2), r"num_liars must be in \[0, 1\] for 5 parts, got num_liars=2"),
        (lambda p: multi_krum(p, -1), r"num_liars must be in \[0, 1\]"),
        (lambda p: multi_krum(p[:2], 0), "num_liars must be of at least 3 parts"),
        (lambda p: multi_krum(p, 1, 5), r"num_kept must be in \[1, 4\], got num_kept=5"),
        (lambda p: multi_krum(p, 1, 0), r"num_kept must be in \[1, 4\]"),
        (lambda p: geometric_median(p, smoothing=0.0), r"smoothing must be in \(0, 1\], got smoothing=0.0"),
        (lambda p: geometric_median(p, smoothing=math.nan), r"smoothing must be in \(0, 1\]"),
    ],
)
def test_wrong_arguments_are_refused(make: Callable[[np.ndarray], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(of_some(7, 5))


@ALL
def test_equal_parts_are_their_mean(name: str) -> None:
    part = of_some(8, 1)
    np.testing.assert_allclose(MEANS[name][0](np.repeat(part, NUM_PARTS, axis=0)), part[0], rtol=1e-14)
    np.testing.assert_array_equal(MEANS[name][0](np.empty((NUM_PARTS, 0))), np.empty(0))


# Sums over buckets


def bucket(sites: int, start: int, step: list[float], loss: float) -> Total[Update]:
    names = tuple(f"site_{i}" for i in range(start, start + sites))
    return Total(Update(step=np.array(step), loss=loss), names)


def test_bounded_fields_take_the_median_of_means_and_others_are_added() -> None:
    layout = layout_of(Update, {"size": 2, "clip": 1.0, "bits": 16})
    parts = [bucket(3, 0, [3.0, -3.0], 0.1), bucket(4, 3, [8.0, 0.0], 0.2), bucket(3, 7, [30.0, -300.0], 2.0**60)]
    total = sum_over_buckets(layout, parts)
    np.testing.assert_allclose(total.step, [20.0, -10.0], rtol=1e-15)
    assert total.loss == 2.0**60
    losses = [bucket(3, 3 * index, [0.0, 0.0], loss) for index, loss in enumerate((0.1, 0.2, 0.3))]
    small = sum_over_buckets(layout, losses)
    assert small.loss == pytest.approx(0.6, abs=1e-16)
    with pytest.raises(ValueError, match="read-only"):
        total.step[0] = 1
    with pytest.raises(ValueError, match="at least one bucket"):
        sum_over_buckets(layout, [])


@given(st.integers(0, 999), st.integers(3, 8))
def test_the_medians_norm_has_its_bound(seed: int, num_buckets: int) -> None:
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(num_buckets, 3)) * rng.integers(0, 2, (num_buckets, 3))
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-300)
    assert np.linalg.norm(coordinate_median(means)) <= math.sqrt(2) * (1 + 1e-12)
