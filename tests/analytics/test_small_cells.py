"""What a printed table hides, and that it is not given back by subtraction."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.analytics.by_hand import category, hospitals, number
from wardround.analytics.describe import describe
from wardround.analytics.small_cells import hidden_cells, hidden_sizes

tables = st.integers(1, 5).flatmap(
    lambda num_groups: st.lists(
        st.lists(st.integers(0, 12), min_size=num_groups, max_size=num_groups), min_size=2, max_size=5
    )
)


def with_margins(counts):
    inner = np.concatenate([counts.sum(axis=1, keepdims=True), counts], axis=1)
    return np.concatenate([inner, inner.sum(axis=0, keepdims=True)])


@given(tables, st.integers(1, 6))
def test_hidden_cells_are_not_given_back(counts, minimum_cell):
    counts = np.array(counts)
    sizes_hidden = hidden_sizes(counts.sum(axis=0), minimum_cell)
    hidden = hidden_cells(counts, sizes_hidden, minimum_cell)
    cells = with_margins(counts)
    everything_hidden = np.concatenate([hidden, [[False, *sizes_hidden]]])
    is_small = (cells > 0) & (cells < minimum_cell)
    assert everything_hidden[:-1][is_small[:-1]].all()
    assert not hidden[cells[:-1] == 0].any()
    lines = [*zip(cells.T, everything_hidden.T, strict=True)]
    if counts.shape[1] > 1:
        lines += zip(cells[:-1], hidden, strict=True)
    for line, is_hidden in lines:
        could_be_hidden = line[:-1][~is_hidden[:-1]] if line.shape == cells.T[0].shape else line[~is_hidden]
        assert is_hidden.sum() != 1 or not could_be_hidden.any()


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), st.integers(1, 6))
def test_hidden_sizes_are_not_given_back(sizes, minimum_cell):
    sizes = np.array(sizes)
    hidden = hidden_sizes(sizes, minimum_cell)
    assert hidden[(sizes > 0) & (sizes < minimum_cell)].all()
    assert hidden.sum() != 1 or not sizes[~hidden].any()


def test_nothing_small_nothing_hidden():
    counts = np.array([[10, 20], [5, 0], [7, 9]])
    assert not hidden_cells(counts, np.zeros(2, bool), 5).any()


def printed(columns, variables, **options):
    return hospitals(variables, columns, np.arange(len(next(iter(columns.values())))) % 3).run(describe(**options))


def test_small_count_and_the_next_smallest_are_hidden_with_their_percents():
    codes = np.repeat([0, 1, 2], [50, 3, 20])
    result = printed({"stage": codes}, [category("stage", "I", "II", "III")])
    frame = result.to_frame()["everybody"]
    assert frame["stage"].to_dict() == {"I": "50 (68.5)", "II": "<5", "III": "hidden"}
    assert "Counts from 1 to 4 are hidden" in result.summary()
    assert result.to_dict()["variables"][0]["groups"][0]["levels"][1]["count"] == 3  # as the coordinator received it


def test_percents_do_not_tell_how_many_are_missing():
    codes = np.repeat([0, 1, -1], [50, 30, 2])
    frame = printed({"stage": codes}, [category("stage", "I", "II")]).to_frame()["everybody"]
    assert frame["stage"].to_dict() == {"I": "50", "II": "hidden", "missing": "<5"}


def test_difference_to_everybody_does_not_give_a_group_back():
    columns = {"stage": np.repeat([0, 1, 0, 1], [40, 3, 30, 30]), "group": np.repeat([0, 0, 1, 1], [40, 3, 30, 30])}
    frame = printed(columns, [category("stage", "I", "II"), category("group", "a", "b")], by="group").to_frame()
    assert frame.loc[("stage", "II"), "a"] == "<5"
    assert "hidden" in (frame.loc[("stage", "II"), "b"], frame.loc[("stage", "II"), "everybody"])


def test_mean_of_few_people_is_hidden_with_one_more_group():
    columns = {"x": np.arange(60.0), "group": np.repeat([0, 1, 2], [40, 17, 3])}
    frame = printed(columns, [number("x"), category("group", "a", "b", "c")], by="group").to_frame()
    assert frame.loc[("n", "")].tolist()[:4] == ["60", "40", "hidden", "<5"]
    assert frame.loc[("x", "mean (SD)")].tolist()[1:4] == ["19.5 (11.7)", "hidden", "hidden"]


def test_minimum_cell_of_one_hides_nothing():
    result = printed({"stage": np.repeat([0, 1], [50, 1])}, [category("stage", "I", "II")], minimum_cell=1)
    assert result.to_frame().loc[("stage", "II"), "everybody"] == "1 (2.0)"
    assert "hidden" not in result.summary()
