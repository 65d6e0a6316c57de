"""What is shown of small counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.privacy.disclosure import DEFAULT_MINIMUM_CELL, is_small, shown_count


def test_the_default_floor_is_five():
    assert DEFAULT_MINIMUM_CELL == 5
    assert [shown_count(count) for count in (0, 1, 4, 5, 1234)] == ["0", "1 to 4", "1 to 4", "5", "1234"]
    assert [is_small(count) for count in (0, 1, 4, 5)] == [False, True, True, False]


@given(st.integers(1, 30), st.integers(0, 60))
def test_small_counts_look_alike(floor, count):
    if 0 < count < floor:
        assert shown_count(count, floor) == shown_count(1, floor)
    else:
        assert shown_count(count, floor) == str(count)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="count=-1"):
        shown_count(-1)
    with pytest.raises(ValueError, match="minimum_cell=0"):
        is_small(1, 0)
