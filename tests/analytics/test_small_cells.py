"""What tables hide, against attackers who try all that is possible given what is shown."""

import json
import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, milp

from tests.analytics.by_hand import category, hospitals, number
from wardround.analytics import small_cells
from wardround.analytics.describe import describe
from wardround.analytics.group_tests import compare_levels
from wardround.analytics.small_cells import hidden_cells, hidden_sizes
from wardround.privacy.disclosure import DisclosureRules
from wardround.testing.small_counts import shown_small_counts


def counts_of(max_rows, max_groups, max_count):
    return st.integers(1, max_groups).flatmap(
        lambda num_groups: st.lists(
            st.lists(st.integers(0, max_count), min_size=num_groups, max_size=num_groups),
            min_size=2,
            max_size=max_rows,
        )
    )


def values_possible(hidden, shown, total, least):
    """All vectors of hidden counts with a given sum."""
    rest = total - shown
    return [v for v in product(range(least, rest + 1), repeat=hidden) if sum(v) == rest]


@given(st.lists(st.integers(0, 7), min_size=1, max_size=4), st.integers(2, 5))
def test_hidden_sizes_keep_their_range(sizes, minimum_cell):
    sizes = np.array(sizes)
    hidden = hidden_sizes(sizes, minimum_cell)
    small = (sizes > 0) & (sizes < minimum_cell)
    assert hidden[small].all()
    if not small.any():
        assert not hidden.any()
    if not hidden.any() or sizes.sum() < max(minimum_cell, 3):  # a small sum is hidden itself
        return
    possible = values_possible(int(hidden.sum()), int(sizes[~hidden].sum()), int(sizes.sum()), 1 - hidden.all())
    for index in np.flatnonzero(small[hidden]):
        assert {v[index] for v in possible} >= set(range(1, minimum_cell))


class Attacker:
    """Knows every shown cell and margin of a table, and that hidden cells are at least `least`; by integer programs."""

    def __init__(self, counts, hidden, size_is_hidden, least):
        num_rows, num_groups = counts.shape
        self.shape, self.least = (num_rows, num_groups), least
        lines, sums = [], []

        def know(mask, total):
            lines.append(mask.ravel().astype(float))
            sums.append(float(total))

        for row in range(num_rows):
            for group in range(num_groups):
                if not hidden[row, 1 + group]:
                    know(self._only(row, group), counts[row, group])
            if not hidden[row, 0]:
                know(self._row(row), counts[row].sum())
        for group in np.flatnonzero(~size_is_hidden):
            know(self._column(group), counts[:, group].sum())
        know(np.ones(self.shape), counts.sum())
        self.known = LinearConstraint(np.array(lines), sums, sums)
        self.low = np.where(hidden[:, 1:], least, 0).ravel()

    def _only(self, row, group):
        mask = np.zeros(self.shape)
        mask[row, group] = 1
        return mask

    def _row(self, row):
        mask = np.zeros(self.shape)
        mask[row] = 1
        return mask

    def _column(self, group):
        mask = np.zeros(self.shape)
        mask[:, group] = 1
        return mask

    def can_be(self, mask, value):
        exactly = LinearConstraint(mask.ravel()[None, :], value, value)
        solved = milp(
            np.zeros(mask.size), integrality=np.ones(mask.size), bounds=_bounds(self.low),
            constraints=[self.known, exactly],
        )  # fmt: skip
        return solved.status == 0


def _bounds(low):
    from scipy.optimize import Bounds

    return Bounds(low, np.inf)


def check_range(counts, minimum_cell):
    """Every small count may be anything small, for all that the shown numbers tell."""
    size_is_hidden = hidden_sizes(counts.sum(axis=0), minimum_cell)
    hidden = hidden_cells(counts, size_is_hidden, minimum_cell)
    small = (counts > 0) & (counts < minimum_cell)
    everybody = counts.sum(axis=1)
    assert hidden[:, 1:][small].all()
    assert hidden[:, 0][(everybody > 0) & (everybody < minimum_cell)].all()
    # In a group that is hidden altogether, zeros are hidden, too.
    least = np.where(hidden[:, 1:].all(axis=0) & (size_is_hidden | hidden.all()), 0, 1)[None, :]
    attacker = Attacker(counts, hidden, size_is_hidden, least)
    for row, group in np.argwhere(small):
        for value in range(1, minimum_cell):
            assert attacker.can_be(attacker._only(row, group), value), (counts, hidden, row, group, value)
    for row in np.flatnonzero((everybody > 0) & (everybody < minimum_cell)):
        lowest = max(1, int((np.broadcast_to(least, counts.shape)[row] * hidden[row, 1:]).sum()))
        for value in range(lowest, minimum_cell):
            assert attacker.can_be(attacker._row(row), value)
    return hidden


@settings(max_examples=50)
@given(counts_of(4, 3, 9), st.integers(3, 5))
def test_hidden_cells_keep_their_range(counts, minimum_cell):
    counts = np.array(counts)
    if counts.sum() >= minimum_cell:
        check_range(counts, minimum_cell)


def test_lines_taken_together_do_not_pin_a_cell():
    # Two hidden in each line is not enough: (1, 1, ...) in a row with the sum 2 is known.
    counts = np.array([[1, 1, 40], [30, 20, 10], [9, 8, 7]])
    assert check_range(counts, 5)[0].sum() > 2


def test_an_audit_that_hides_less_would_be_noticed():
    counts = np.array([[1, 1, 40], [30, 20, 10], [9, 8, 7]])
    hidden = np.zeros((3, 4), bool)
    hidden[:2, 1:3] = True  # two in each line, as printed tables are usually protected
    attacker = Attacker(counts, hidden, np.zeros(3, bool), 1)
    assert not attacker.can_be(attacker._only(0, 0), 2)


def test_five_counts_of_one_are_hidden_with_the_zeros():
    counts = np.array([[1], [1], [1], [1], [1], [0]])
    assert hidden_cells(counts, np.zeros(1, bool), 5).all()


def test_a_table_too_large_to_audit_is_hidden(monkeypatch):
    monkeypatch.setattr(small_cells, "MAX_AUDITED", 10)
    counts = np.arange(60).reshape(20, 3) % 7
    assert hidden_cells(counts, np.zeros(3, bool), 5).all()


def test_nothing_small_nothing_hidden():
    counts = np.array([[10, 20], [5, 0], [7, 9]])
    assert not hidden_cells(counts, np.zeros(2, bool), 5).any()


def printed(columns, variables, disclosure="standard", **options):
    site_of = np.arange(len(next(iter(columns.values())))) % 3
    return hospitals(variables, columns, site_of, disclosure=disclosure).run(describe(**options))


def test_small_count_and_the_next_smallest_are_hidden_with_their_percents():
    codes = np.repeat([0, 1, 2], [50, 3, 20])
    result = printed({"stage": codes}, [category("stage", "I", "II", "III")])
    frame = result.to_frame()["everybody"]
    assert frame["stage"].to_dict() == {"I": "50 (68.5)", "II": "hidden", "III": "hidden"}
    assert "Counts from 1 to 4 are hidden" in result.summary()
    levels = result.to_dict()["variables"][0]["groups"][0]["levels"]
    assert [level["count"] for level in levels] == [50, None, None]
    assert [level["percent"] for level in levels[1:]] == [None, None]


def test_percents_do_not_tell_how_many_are_missing():
    codes = np.repeat([0, 1, -1], [50, 30, 2])
    frame = printed({"stage": codes}, [category("stage", "I", "II")]).to_frame()["everybody"]
    assert frame["stage"].to_dict() == {"I": "50", "II": "hidden", "missing": "hidden"}


def test_difference_to_everybody_does_not_give_a_group_back():
    columns = {"stage": np.repeat([0, 1, 0, 1], [40, 3, 30, 30]), "group": np.repeat([0, 0, 1, 1], [40, 3, 30, 30])}
    result = printed(columns, [category("stage", "I", "II"), category("group", "a", "b")], by="group")
    frame = result.to_frame()
    assert frame.loc[("stage", "II"), "a"] == "hidden"
    assert "hidden" in (frame.loc[("stage", "II"), "b"], frame.loc[("stage", "II"), "everybody"])
    assert frame.loc[("stage", "I"), "P value"] == "<=0.01"
    assert result.variable("stage").test.statistic is None
    assert result.variable("stage").differences[0].value is None


def test_mean_of_few_people_is_hidden_with_one_more_group():
    columns = {"x": np.arange(60.0), "group": np.repeat([0, 1, 2], [40, 17, 3])}
    result = printed(columns, [number("x"), category("group", "a", "b", "c")], by="group")
    frame = result.to_frame()
    assert frame.loc[("n", "")].tolist()[:4] == ["60", "40", "hidden", "hidden"]
    assert frame.loc[("x", "mean (SD)")].tolist()[1:4] == ["19.5 (11.7)", "hidden", "hidden"]
    assert "hidden" in frame.loc[("x", "median [Q1, Q3]")].tolist()[2:4]
    assert all(quantile.value is None for quantile in result.variable("x").columns[3].quantiles)


def test_means_that_are_hidden_together_are_of_enough_people():
    x = np.arange(80.0)
    x[40:48] = np.nan  # two of each of the two small groups have a value
    columns = {"x": x, "group": np.repeat([0, 1, 2, 3], [40, 5, 7, 28])}
    columns["x"][[40, 41, 48, 49]] = [1.0, 2.0, 3.0, 4.0]
    columns["x"][50:52] = np.nan
    result = printed(columns, [number("x"), category("group", "a", "b", "c", "d")], by="group").variable("x")
    hidden = [column.is_hidden for column in result.columns]
    present = [np.count_nonzero(~np.isnan(x[columns["group"] == g])) for g in range(4)]
    assert present == [40, 2, 2, 28]
    assert hidden == [False, False, True, True, True]


def test_a_mean_is_no_small_count_in_disguise():
    rare = np.repeat([0.0, 1.0], [97, 3])
    result = printed({"died": rare, "code": rare + 1, "age": np.arange(100.0)}, [*map(number, ("died", "code", "age"))])
    assert [variable.columns[0].mean for variable in result.variables] == [None, None, 49.5]
    assert result.to_frame().loc[("died", "mean (SD)"), "everybody"] == "hidden"
    common = printed({"died": np.repeat([0.0, 1.0], [90, 10])}, [number("died")])
    assert common.variables[0].columns[0].mean == pytest.approx(0.1)


@pytest.mark.parametrize("num_missing", [1, 2, 3, 4])
def test_digits_of_a_mean_do_not_tell_how_many_have_a_value(num_missing):
    rng = np.random.default_rng(3)
    age = rng.integers(30, 90, 200).astype(float)
    age[:num_missing] = np.nan
    column = printed({"age": age}, [number("age")]).variables[0].columns[0]
    assert column.num_missing is None
    assert abs(column.mean - np.nanmean(age)) < 0.2
    # For every number of missing values there are whole numbers whose mean is shown so.
    step = 10.0 ** -len(f"{column.mean:.10f}".rstrip("0").split(".")[1])
    for candidate in range(1, 5):
        total = column.mean * (200 - candidate)
        assert np.floor(total + step / 2 * (200 - candidate)) >= total - step / 2 * (200 - candidate)
        assert step * (200 - candidate) >= 1


def test_p_values_of_numbers_with_few_missing_have_two_digits_and_no_statistic():
    rng = np.random.default_rng(4)
    x = rng.normal(np.repeat([0.0, 0.1], 150), 1.0)
    x[[0, 1, 200]] = np.nan
    columns = {"x": x, "group": np.repeat([0, 1], 150)}
    result = printed(columns, [number("x"), category("group", "a", "b")], by="group")
    exact = hospitals([number("x"), category("group", "a", "b")], columns, np.arange(300) % 3).run(describe(by="group"))
    test = result.variable("x").test
    assert test.statistic is None
    assert test.p_value == max(0.01, round(exact.variable("x").test.p_value, 2))


def test_minimum_cell_of_one_hides_nothing():
    stage = [category("stage", "I", "II")]
    result = printed({"stage": np.repeat([0, 1], [50, 1])}, stage, disclosure="none")
    assert result.to_frame().loc[("stage", "II"), "everybody"] == "1 (2.0)"
    assert "hidden" not in result.summary()


def test_the_option_can_only_raise_the_floor():
    columns, stage = {"stage": np.repeat([0, 1, 2], [50, 30, 7])}, [category("stage", "I", "II", "III")]
    assert printed(columns, stage, minimum_cell=1).minimum_cell == 5
    raised = printed(columns, stage, minimum_cell=10)
    assert (raised.minimum_cell, raised.to_frame().loc[("stage", "III"), "everybody"]) == (10, "hidden")


def test_counts_are_rounded_where_the_rules_say_so():
    columns = {"stage": np.repeat([0, 1], [53, 11])}
    result = printed(columns, [category("stage", "I", "II")], disclosure="nhs")
    assert result.num_records == 65
    assert [level.count for level in result.variables[0].columns[0].levels] == [55, 10]
    assert result.to_frame().loc[("stage", "I"), "everybody"] == "55 (84.6)"


def few_and_many(seed):
    """Levels from rare to frequent, by groups from small to large, with missing values."""
    rng = np.random.default_rng(seed)
    num_records = int(rng.integers(8, 120))
    share = rng.dirichlet([0.6] * 4)
    columns = {
        "a": rng.choice(4, num_records, p=share) - (rng.random(num_records) < 0.05) * 9,
        "b": rng.choice(2, num_records, p=[0.93, 0.07]),
        "x": np.where(rng.random(num_records) < 0.04, np.nan, rng.integers(0, 3, num_records)),
        "group": rng.choice(3, num_records, p=rng.dirichlet([0.8] * 3)),
    }
    columns["a"] = np.maximum(columns["a"], -1)
    variables = [category("a", "1", "2", "3", "4"), category("b", "no", "yes"), number("x")]
    return columns, [*variables, category("group", "u", "v", "w")]


class WholeResult:
    """All numbers of `to_dict` that counts bear on, as one integer program over all variables.

    Its cells are, by variable, the levels and the missing of three groups.
    """

    def __init__(self, whole):
        self.variables = whole["variables"]
        self.rows = [len(v["groups"][0]["levels"] or [None]) + 1 for v in self.variables]
        self.starts = np.cumsum([0, *(rows * 3 for rows in self.rows)])
        lines = [(self.line(v, rows, groups), n) for v, rows, groups, n in self._shown() if n is not None]
        for v, group in product(range(len(self.rows)), range(3)):  # a group has one size, whatever the variable
            size = self.line(v, range(self.rows[v]), [group])
            lines.append((size - self.line(0, range(self.rows[0]), [group]), 0))
        self.coefficients = np.array([line for line, _ in lines])
        self.sums = [number for _, number in lines]

    def line(self, variable, rows, groups):
        line = np.zeros(self.starts[-1])
        for row, group in product(rows, groups):
            line[self.starts[variable] + row * 3 + group] = 1
        return line

    def _shown(self):
        for v, described in enumerate(self.variables):
            for index, column in enumerate(described["groups"]):
                groups = range(3) if index == 0 else [index - 1]
                yield v, range(self.rows[v]), groups, column["num_records"]
                yield v, [self.rows[v] - 1], groups, column["num_missing"]
                for row, level in enumerate(column["levels"]):
                    yield v, [row], groups, level["count"]

    def truth(self, columns):
        cells = []
        for described, num_rows in zip(self.variables, self.rows, strict=True):
            values = columns[described["variable"]]
            missing = np.isnan(values) | (values < 0)
            codes = np.where(missing, num_rows - 1, values if described["groups"][0]["levels"] else 0)
            cells += [np.sum((codes == row) & (columns["group"] == g)) for row in range(num_rows) for g in range(3)]
        return np.array(cells)

    def can_be(self, cell, value):
        line = np.zeros(self.starts[-1])
        line[cell] = 1
        known = LinearConstraint(self.coefficients, self.sums, self.sums)
        exactly = LinearConstraint(line[None, :], value, value)
        solved = milp(np.zeros(len(line)), integrality=np.ones(len(line)), constraints=[known, exactly])
        return solved.status == 0


@pytest.mark.parametrize("seed", range(12))
def test_an_attacker_on_the_whole_result_pins_no_small_count(seed):
    columns, variables = few_and_many(seed)
    attacker = WholeResult(printed(columns, variables, by="group").to_dict())
    truth = attacker.truth(columns)
    assert np.allclose(attacker.coefficients @ truth, attacker.sums)
    for cell in np.flatnonzero((truth > 0) & (truth < 5)):
        assert attacker.can_be(cell, 1), cell
        assert attacker.can_be(cell, 4), cell


def test_the_attacker_would_find_what_is_not_hidden():
    columns, variables = few_and_many(0)
    attacker = WholeResult(printed(columns, variables, by="group", disclosure="none").to_dict())
    truth = attacker.truth(columns)
    (cell, *_) = np.flatnonzero((truth > 0) & (truth < 4))
    assert not attacker.can_be(cell, 4)


def columns_that_show(cells, is_hidden):
    """All columns of three counts with the sum of this one and its shown cells."""
    size = int(cells.sum())
    every = (np.array([a, b, size - a - b]) for a in range(size + 1) for b in range(size + 1 - a))
    return [column for column in every if (column == cells)[~is_hidden].all()]


@pytest.mark.parametrize("seed", range(20))
def test_a_shown_p_value_leaves_every_small_count_its_range(seed):
    """All tables with the shown cells and the shown test, by brute force."""
    rng = np.random.default_rng(seed)
    counts = np.array(
        [[rng.integers(10, 60), rng.integers(10, 60)], [rng.integers(5, 25), rng.integers(5, 25)], [3, 0]]
    )
    counts[2] = rng.integers(0, 5, 2)
    columns = {
        "group": np.repeat([0, 1], counts.sum(axis=0)),
        "stage": np.concatenate([np.repeat([0, 1, -1], counts[:, g]) for g in range(2)]),
    }
    variables = [category("stage", "I", "II"), category("group", "a", "b")]
    shown = printed(columns, variables, by="group").variable("stage")
    if shown.test is None:
        return
    hidden = np.array([[n is None for n in (*(v.count for v in c.levels), c.num_missing)] for c in shown.columns]).T
    possible = []
    for parts in product(*(columns_that_show(counts[:, g], hidden[:, 1 + g]) for g in range(2))):
        table = np.column_stack(parts)
        if (table.sum(axis=1) != counts.sum(axis=1))[~hidden[:, 0]].any():
            continue
        test = compare_levels(("a", "b"), table[:2])
        if test and (test.name, max(round(test.p_value, 2), 0.01)) == (shown.test.name, shown.test.p_value):
            possible.append(table)
    for row, column in np.argwhere((counts > 0) & (counts < 5)):
        assert {1, 4} <= {int(table[row, column]) for table in possible}, (counts, hidden)


@pytest.mark.parametrize("floor", [2, 5, 11, 1000])
def test_small_counts_are_hidden_everywhere(floor):
    columns, variables = few_and_many(3)
    result = printed(columns, variables, DisclosureRules(minimum_cell=floor), by="group")
    assert shown_small_counts(result.to_dict(), floor) == []
    assert shown_small_counts(json.loads(result.to_json()), floor) == []
    rows = result.to_frame().iloc[:, :4]
    counts = [
        cell for name, *cells in rows.itertuples() if not name[1].startswith(("mean", "median")) for cell in cells
    ]
    numbers = [int(re.match(r"\d+", cell)[0]) for cell in counts if cell != "hidden" and cell]
    assert not [n for n in numbers if 0 < n < floor]
    text = " ".join(str(label.get_text()) for label in result.plot().axes[0].get_yticklabels())
    assert "a" in text
