"""Which points of a curve, and which numbers beside it, may be shown."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wardround.analytics.survival_shown import floor_index, shown_partition, tick_times, with_leavers
from wardround.errors import ConfigError

SMALL = st.integers(0, 4)
LEFT = hnp.arrays(np.int64, st.tuples(st.integers(2, 3), st.just(30)), elements=SMALL)
ENTERED = st.none() | hnp.arrays(np.int64, 30, elements=SMALL)
TICKS = st.lists(st.integers(0, 35), min_size=1, max_size=8).map(lambda ticks: np.array(sorted(ticks)))


@given(ENTERED, LEFT, TICKS, st.integers(1, 9))
def test_no_small_count_between_what_is_shown(
    entered: np.ndarray | None, left: np.ndarray, ticks: np.ndarray, minimum_cell: int
) -> None:
    shown = shown_partition(entered, left, ticks, minimum_cell)
    kinds = left if entered is None else np.vstack([entered, left])
    so_far = np.cumsum(kinds, axis=1)
    within = np.minimum(ticks, 29)
    told = np.unique(np.concatenate([shown.places, within[shown.tick_is_shown]])).astype(int)
    steps = np.diff(so_far[:, told], axis=1, prepend=0)
    assert np.all((steps == 0) | (steps >= minimum_cell))
    # The size of a group is known, so what comes after the last number that is told counts as well.
    together = so_far[-len(left) :].sum(axis=0)
    counted = np.unique(np.concatenate([told, within[shown.risk_is_shown], [29]])).astype(int)
    gone = np.diff(together[counted], prepend=0)
    assert np.all((gone == 0) | (gone >= minimum_cell) | (together[-1] < minimum_cell))
    assert np.all(shown.risk_is_shown >= shown.tick_is_shown)


@given(ENTERED, LEFT, TICKS)
def test_a_floor_of_one_shows_everything(entered: np.ndarray | None, left: np.ndarray, ticks: np.ndarray) -> None:
    shown = shown_partition(entered, left, ticks, 1)
    assert shown.tick_is_shown.all()
    np.testing.assert_array_equal(with_leavers(shown.places, left.sum(axis=0)), np.flatnonzero(left.any(axis=0)))


def test_ticks_come_before_other_points() -> None:
    left = np.array([[0] * 20, [1] * 20])
    assert shown_partition(None, left, np.array([7]), 5).places.tolist() == [7, 12, 19]
    assert shown_partition(None, left, np.array([19]), 5).places.tolist() == [4, 9, 14, 19]


@pytest.mark.parametrize(
    ("last", "expected"),
    [(0.0, (0.0,)), (1000.0, (0, 200, 400, 600, 800, 1000)), (7.3, (0, 2, 4, 6)), (0.55, (0, 0.1, 0.2, 0.3, 0.4, 0.5))],
)
def test_round_times(last: float, expected: tuple[float, ...]) -> None:
    assert tick_times((), last) == expected


def test_times_that_are_given_are_kept() -> None:
    assert tick_times((5.0, 1.0, 5.0), 3.0) == (1.0, 5.0)
    with pytest.raises(ConfigError, match="each 0 or more"):
        tick_times((-1.0,), 3.0)


def test_the_last_point_up_to_a_time() -> None:
    assert floor_index((0.0, 0.3, 0.35, 1.0, 99.0), 0.1, 20).tolist() == [0, 3, 3, 10, 19]
