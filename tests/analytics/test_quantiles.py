"""Quantiles from counts against numpy on the pooled values."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.analytics.by_hand import category, hospitals, number, tables_of
from wardround.analytics.brackets import FIRST_EDGES, Bracket, bin_edges, count_in_bins
from wardround.analytics.quantiles import COUNTS_PER_ASK, in_chunks, quantiles
from wardround.analytics.result import Result
from wardround.data.contract import Variable
from wardround.errors import ConfigError, DataError
from wardround.testing import check_workflow

PROBABILITIES = (0.01, 0.25, 0.5, 0.9)

sizes = st.one_of(
    st.integers(-3, 3).map(float),
    st.sampled_from([0.0, -0.0, 0.1, 1e-15, -1e-15, 1e15, -1e15, 1e9, 1e9 + 1e-6, 5e-324, 1e-30, 1.8e19]),
    st.floats(-1e18, 1e18),
    st.floats(-10, 10),
)
distributions = st.one_of(
    st.lists(sizes, max_size=40),
    st.lists(st.floats(-1e15, 1e15), min_size=1, max_size=2),  # one or two points
    st.tuples(sizes, st.integers(1, 40)).map(lambda pair: [pair[0]] * pair[1]),  # constant
    st.tuples(sizes, sizes, st.integers(1, 30), st.integers(1, 30)).map(lambda t: [t[0]] * t[2] + [t[1]] * t[3]),
    st.integers(0, 2**32).map(lambda seed: np.random.default_rng(seed).standard_cauchy(60).tolist()),
    st.integers(0, 2**32).map(lambda seed: np.exp(np.random.default_rng(seed).normal(0, 12, 60)).tolist()),
)


def run(values, *, minimum_cell=1, tolerance=1e-6, probabilities=PROBABILITIES, type_="number", num_sites=3):
    values = np.asarray(values, np.float64)
    simulation = hospitals(
        [Variable(name="x", type=type_)], {"x": values}, np.arange(len(values)) % num_sites, num_sites
    )
    options = {"probabilities": probabilities, "minimum_cell": minimum_cell, "tolerance": tolerance}
    return simulation.record(quantiles(**options))


def found(values, **options):
    return run(values, **options).result.rows[0].quantiles


@given(distributions, st.sampled_from([1, 2, 5]), st.sampled_from([0.0, 1e-6, 0.1]))
@settings(max_examples=300)
@example([1e15, -1e15, 1e-15, 0.0], 1, 0.0)
@example([5e-324] * 9, 5, 0.0)
def test_within_bound(values, floor, tolerance):
    for quantile in found(values, minimum_cell=floor, tolerance=tolerance):
        if len(values) < floor or not values:
            assert quantile.value is None
            assert quantile.bound is None
        else:
            pooled = np.quantile(values, quantile.probability)
            assert abs(quantile.value - pooled) <= quantile.bound


@given(distributions, st.sampled_from([2, 5, 11]))
def test_brackets_hold_the_floor(values, floor):
    record = run(values, minimum_cell=floor, tolerance=0.0).record
    for round_ in record.rounds[1:]:
        asked = round_.ask.arguments
        for low, high in zip(asked["lows"], asked["highs"], strict=True):
            assert np.count_nonzero((np.array(values) > low) & (np.array(values) <= high)) >= floor


@given(st.integers(0, 2**32), st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_precise_to_the_tolerance_without_a_floor(seed, centre, scale):
    values = np.random.default_rng(seed).normal(centre, scale, 400)
    spread = np.subtract(*np.quantile(values, [0.75, 0.25]))
    for quantile in found(values):
        assert quantile.bound <= 2e-6 * spread


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=50), st.sampled_from(["integer", "date", "number"]))
def test_whole_numbers_are_exact_without_a_floor(values, type_):
    for quantile in found(values, type_=type_):
        pooled = np.quantile(np.array(values, float), quantile.probability)
        assert quantile.value == pytest.approx(pooled, rel=1e-15, abs=0)
        assert quantile.bound <= 1e-14 * max(map(abs, values))


def test_ties_of_enough_people_are_exact():
    values = [0.1] * 30 + [0.7] * 30 + [0.3] * 40
    result = found(values, minimum_cell=5, probabilities=(0.25, 0.5, 0.75), tolerance=0.0)
    assert [(q.value, q.bound) for q in result] == [(0.1, 0.0), (0.3, 0.0), (0.7, 0.0)]


def test_zeros_are_told_from_small_numbers():
    values = [0.0] * 60 + [1e-25] * 40
    low, high = found(values, minimum_cell=5, probabilities=(0.5, 0.9), tolerance=0.0)
    assert (low.value, low.bound) == (0.0, 0.0)
    assert (high.value, high.bound) == (1e-25, 0.0)


def test_floor_keeps_single_people_apart_no_closer():
    values = np.random.default_rng(3).normal(0, 1, 101)
    (median,) = found(values, minimum_cell=9, probabilities=(0.5,), tolerance=0.0)
    is_inside = np.abs(values - median.value) <= median.bound
    assert is_inside.sum() >= 9
    assert median.bound < 0.4  # and yet it tells where the median is


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_answer_does_not_depend_on_the_split(seed, num_sites):
    rng = np.random.default_rng(seed)
    values = rng.lognormal(0, 2, 80)
    assert found(values, num_sites=num_sites) == found(values, num_sites=1)


def test_few_rounds_and_few_bytes():
    rng = np.random.default_rng(0)
    columns = {f"x{i}": rng.normal(i, 1 + i, 3000) for i in range(20)}
    simulation = hospitals([number(name) for name in columns], columns, np.arange(3000) % 4)
    record = simulation.record(quantiles(minimum_cell=1)).record
    assert len(record.rounds) <= 5
    assert record.bytes_up < 20 * 3 * 128 * 8 * 5  # variables, quantiles, bins, bytes a count, rounds


def test_groups_and_missing_values():
    rng = np.random.default_rng(1)
    values = np.where(rng.random(600) < 0.1, np.nan, rng.normal(50, 10, 600))
    groups = rng.integers(-1, 3, 600)
    variables = [number("x"), category("g", "a", "b", "c", "nobody")]
    result = hospitals(variables, {"x": values, "g": groups}, rng.integers(0, 5, 600)).run(
        quantiles(by="g", minimum_cell=1)
    )
    assert result.num_records == np.count_nonzero(groups >= 0)
    assert [row.group for row in result.rows] == [None, "a", "b", "c", "nobody"]
    for row, is_in in zip(result.rows, [groups >= 0, *(groups == code for code in range(4))], strict=True):
        inside = values[is_in & ~np.isnan(values)]
        assert row.num_values == len(inside)
        for quantile in row.quantiles:
            if row.group == "nobody":
                assert quantile.value is None
            else:
                assert abs(quantile.value - np.quantile(inside, quantile.probability)) <= quantile.bound <= 1e-4


@pytest.mark.parametrize("value", [np.inf, -np.inf, 2e19, -1e300])
def test_values_too_large_are_refused(value):
    with pytest.raises(DataError, match=r"'x'.*larger unit") as caught:
        run([1.0, value, 2.0])
    assert "e+300" not in str(caught.value)


def test_a_float_declared_integer_is_not_taken_for_whole():
    result = found([1.5] * 10 + [2.25] * 11, type_="integer", probabilities=(0.5,))
    assert 0 < abs(result[0].value - 2.25) <= result[0].bound < 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probabilities": (0.0,)}, "not between 0 and 1"),
        ({"probabilities": (1.0,)}, "single persons"),
        ({"variables": ("g",)}, "category, which has no quantiles"),
        ({"variables": ("xx",)}, "did you mean 'x'"),
        ({"by": "x"}, "'x' is a number without levels"),
        ({"minimum_cell": 0}, "at least 1"),
        ({"tolerance": -1.0}, r"in \[0, 1\]"),
    ],
)
def test_wrong_options_are_refused_before_any_work(options, message):
    simulation = hospitals([number("x"), category("g", "a")], {"x": [1.0], "g": [0]}, [0])
    with pytest.raises(ConfigError, match=message):
        simulation.run(quantiles(**options))


def test_contract_without_numbers_is_refused():
    with pytest.raises(ConfigError, match="no numeric variable"):
        hospitals([category("g", "a")], {"g": [0]}, [0]).run(quantiles())


def test_result_has_every_face():
    variables = [number("x", unit="mg"), number("nothing")]
    columns = {"x": np.arange(40) / 8, "nothing": np.full(40, np.nan)}
    result = hospitals(variables, columns, np.arange(40) % 3).run(quantiles())
    assert isinstance(result, Result)
    assert json.loads(result.to_json()) == result.to_dict()
    assert result.to_dict()["rows"][0]["unit"] == "mg"
    assert result.to_dict()["rows"][1]["quantiles"][0] == {"probability": 0.25, "value": None, "bound": None}
    assert result.to_frame().loc[("x", "everybody", 0.5), "num_values"] == 40
    assert "nan" not in result.summary().lower()
    assert result.plot().axes


def test_chunks_bound_the_counts_of_an_ask():
    names = tuple(f"x{i}" for i in range(10_000))
    chunks = list(in_chunks(names, 3))
    assert sum(chunks, ()) == names
    assert max(map(len, chunks)) * 128 * 6 * 4 <= COUNTS_PER_ASK
    assert len(list(in_chunks(names[:3], 10_000))) == 3  # at least one variable a time


@given(
    st.floats(-1e12, 1e12),
    st.floats(1e-3, 1e12),
    st.lists(st.integers(0, 9), min_size=2, max_size=20).filter(lambda counts: sum(counts) > 0),
    st.data(),
)
def test_narrowed_bracket_holds_the_rank_and_enough_people(low, width, counts, data):
    num_inside = sum(counts)
    bracket = Bracket(low=low, high=low + width, num_below=7, num_inside=num_inside, is_whole=False)
    rank = data.draw(st.integers(8, 7 + num_inside))
    floor = data.draw(st.integers(1, num_inside))
    edges = bin_edges(bracket.low, bracket.high, len(counts), False)
    narrowed = bracket.narrowed(rank, edges, np.array(counts), floor)
    assert bracket.low <= narrowed.low < narrowed.high <= bracket.high
    assert narrowed.num_below < rank <= narrowed.num_below + narrowed.num_inside
    assert narrowed.num_inside >= floor
    start, end = np.searchsorted(edges, [narrowed.low, narrowed.high])
    assert narrowed.num_inside == sum(counts[start:end])


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=20), st.booleans())
def test_bound_holds(values, is_whole):
    values = np.sort(np.round(values) if is_whole else values)
    bracket = Bracket(low=-101.0, high=100.0, num_below=0, num_inside=len(values), is_whole=is_whole)
    for rank, value in enumerate(values, start=1):
        estimate, bound = bracket.locate(rank)
        assert abs(value - estimate) <= bound


def test_bins_are_open_below_and_closed_above():
    assert count_in_bins(np.array([0.0, 1.0, 1.5, 2.0, 3.0]), np.array([0.0, 1.0, 2.0])).tolist() == [1, 2]
    zeros = np.searchsorted(FIRST_EDGES, 0.0, side="left") - 1
    counts = count_in_bins(np.array([0.0, -0.0, 5e-324, -5e-324]), FIRST_EDGES)
    assert counts[zeros - 1 : zeros + 2].tolist() == [1, 2, 1]


def test_keeps_the_contract_of_workflows():
    variables, values = [number("x"), category("g", "a", "b")], np.random.default_rng(4).normal(0, 1, 90)
    tables, setting = tables_of(variables, {"x": values, "g": np.arange(90) % 2}, np.arange(90) % 3)
    assert check_workflow(quantiles(by="g"), tables, setting).num_records == 90
