"""Correlations from sums are those of the pooled records, or within their bound of them."""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.analytics.pooled import split
from tests.analytics.statistics_samples import CONTRACT, FEDERATION, POOLED, WARDS, under
from wardround.analytics.correlation import correlation
from wardround.analytics.correlation_ranks import RankPair
from wardround.analytics.correlation_result import CorrelationResult
from wardround.analytics.result import FigureExhibit, Result
from wardround.data.contract import Contract, Variable
from wardround.engines.simulated_hospitals import simulate
from wardround.engines.simulation import Simulation
from wardround.errors import ConfigError, DataError, DisclosureError, RankDeficiencyError
from wardround.testing import check_workflow

NAMES = ("age", "pressure", "sodium", "tiny", "far", "grade", "died")
LEVELS = ("grade", "falls", "team", "died", "ward")


def fit(**options: Any) -> CorrelationResult:
    return FEDERATION.run(correlation(**{"variables": NAMES, **options}))


def numbers(frame: pd.DataFrame, num_sites: int = 3) -> Simulation:
    contract = Contract(variables=tuple(Variable(name=name, type="number") for name in frame))
    return simulate(split(frame, num_sites, seed=1), contract=contract)


def pooled(names: tuple[str, ...], *, listwise: bool = False) -> Any:
    frame = POOLED[list(names)].assign(**({"ward": POOLED.ward.map(WARDS.index)} if "ward" in names else {}))
    frame = frame.astype(float)
    frame = frame - frame.min()  # the oracle loses digits of values near 1e9
    return frame.dropna() if listwise else frame


@pytest.mark.parametrize("missing", ["pairwise", "listwise"])
def test_equals_pooled(missing: Any) -> None:
    result = fit(missing=missing, confidence=0.9)
    frame = pooled(NAMES, listwise=missing == "listwise")
    for first, second in combinations(NAMES, 2):
        both = frame[[first, second]].dropna()
        expected = stats.pearsonr(both[first], both[second])
        interval = expected.confidence_interval(0.9)
        pair = result.pair(second, first)
        assert pair.num_records == len(both)
        found = [pair.value, pair.low, pair.high, pair.p_value]
        np.testing.assert_allclose(
            found, [expected.statistic, interval.low, interval.high, expected.pvalue], rtol=1e-8, atol=1e-13
        )


@pytest.mark.parametrize("missing", ["pairwise", "listwise"])
def test_rank_correlations_of_levels_equal_pooled(missing: Any) -> None:
    frame = pooled(LEVELS, listwise=missing == "listwise")
    rho = fit(variables=LEVELS, method="spearman", missing=missing)
    tau = fit(variables=LEVELS, method="kendall", missing=missing)
    for first, second in combinations(LEVELS, 2):
        both = frame[[first, second]].dropna()
        expected = stats.spearmanr(both[first], both[second])
        pair = rho.pair(first, second)
        assert (pair.num_records, pair.bound) == (len(both), 0.0)
        np.testing.assert_allclose([pair.value, pair.p_value], [expected.statistic, expected.pvalue], rtol=1e-8)
        expected = stats.kendalltau(both[first], both[second], method="asymptotic")
        pair = tau.pair(first, second)
        np.testing.assert_allclose([pair.value, pair.p_value], [expected.statistic, expected.pvalue], rtol=1e-8)


def test_spearman_of_whole_and_rounded_numbers_is_nearly_exact() -> None:
    names = ("age", "pressure", "sodium", "falls")
    result = fit(variables=names, method="spearman")
    frame = pooled(names)
    for first, second in combinations(names, 2):
        both = frame[[first, second]].dropna()
        pair = result.pair(first, second)
        error = abs(pair.value - stats.spearmanr(both[first], both[second]).statistic)
        assert error <= pair.bound + 1e-12
        assert error < 1e-3
        assert pair.bound < 0.01


def test_partial_correlations_equal_pooled() -> None:
    names, held = ("age", "pressure", "sodium"), ("grade", "died")
    result = fit(variables=names, partial=held, missing="listwise")
    frame = POOLED[[*names, *held]].dropna().astype(float)
    design = np.column_stack([np.ones(len(frame)), frame[list(held)]])
    left = frame[list(names)] - design @ np.linalg.lstsq(design, frame[list(names)].to_numpy())[0]
    for first, second in combinations(names, 2):
        pair = result.pair(first, second)
        r = np.corrcoef(left[first], left[second])[0, 1]
        degrees = len(frame) - 2 - len(held)
        p = 2 * stats.t.sf(abs(r) * np.sqrt(degrees / (1 - r**2)), degrees)
        reach = stats.norm.ppf(0.975) / np.sqrt(len(frame) - len(held) - 3)
        expected = [r, p, np.tanh(np.arctanh(r) - reach), np.tanh(np.arctanh(r) + reach)]
        np.testing.assert_allclose([pair.value, pair.p_value, pair.low, pair.high], expected, rtol=1e-8)


def test_small_pairs_are_hidden() -> None:
    frame = pd.DataFrame({"a": np.arange(30.0), "b": np.arange(30.0) ** 2, "c": np.arange(30.0) ** 3})
    frame.loc[4:, "b"] = np.nan
    result = numbers(frame).run(correlation())
    for hidden in (result.pair("a", "b"), result.pair("b", "c")):
        assert hidden.num_records is None
        assert (hidden.value, hidden.low, hidden.p_value) == (None, None, None)
    assert result.pair("a", "c").num_records == 30
    assert any("1 to 4" in note for note in result.notes)
    assert np.isnan(result.matrix().loc["a", "b"])
    assert "hidden" in result.summary()
    for method in ("spearman", "pearson"):
        shown = under(numbers(frame), minimum_cell=4).run(correlation(method=method))  # type: ignore[arg-type]
        assert shown.pair("a", "b").num_records == 4
        assert numbers(frame).run(correlation(method=method)).pair("a", "b").num_records is None  # type: ignore[arg-type]
    with pytest.raises(DisclosureError, match="minimum_cell"):
        numbers(frame).run(correlation(missing="listwise"))


def test_where_there_is_no_correlation() -> None:
    frame = pd.DataFrame({"a": np.arange(20.0), "b": np.full(20, 3.3), "c": np.arange(20.0)[::-1] ** 2})
    frame["d"] = np.where(np.arange(20) < 10, 1e6 + 0.1, np.nan)
    frame["e"] = np.nan
    frame.loc[10:, "e"] = np.arange(10.0)
    frame["f"] = np.where(np.arange(20) < 10, 0.1, np.arange(20.0))  # constant where d is known
    for method in ("pearson", "spearman"):
        result = numbers(frame).run(correlation(method=method))  # type: ignore[arg-type]
        for first, second in (("a", "b"), ("a", "d"), ("d", "e"), ("d", "f"), ("b", "f")):
            assert result.pair(first, second).value is None, (first, second)
        expected = np.corrcoef(frame.a, frame.c)[0, 1] if method == "pearson" else -1
        pair = result.pair("a", "c")
        assert pair.value == pytest.approx(expected, abs=pair.bound + 1e-12)
        assert any("the same in all" in note for note in result.notes)
        assert result.to_json()


def test_perfect_correlations() -> None:
    frame = pd.DataFrame({"a": np.arange(20.0), "b": 7 - 3 * np.arange(20.0)})
    for method in ("pearson", "spearman"):
        pair = numbers(frame).run(correlation(method=method)).pair("a", "b")  # type: ignore[arg-type]
        assert pair.value == pytest.approx(-1, abs=pair.bound + 1e-12)
        assert pair.p_value == pytest.approx(0, abs=1e-12)


def test_no_complete_record() -> None:
    frame = pd.DataFrame({"a": np.arange(20.0), "b": np.full(20, np.nan)})
    with pytest.raises(DataError, match="missing everywhere: b"):
        numbers(frame).run(correlation(missing="listwise"))
    assert numbers(frame).run(correlation()).pair("a", "b").num_records == 0
    assert numbers(frame).run(correlation(method="spearman")).pair("a", "b").value is None


def test_combinations_cannot_be_held_constant() -> None:
    a, b, c = np.random.default_rng(0).normal(size=(3, 50))
    federation = numbers(pd.DataFrame({"a": a, "b": b, "c": c, "d": a + b, "e": 2 * c}))
    with pytest.raises(RankDeficiencyError, match="constant, or combinations"):
        federation.run(correlation(("a", "b"), partial=("c", "e"), missing="listwise"))
    with pytest.raises(RankDeficiencyError, match="'d' is a combination"):
        federation.run(correlation(("d", "c"), partial=("a", "b"), missing="listwise"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"variables": ("age",)}, "from 2 to"),
        ({"variables": ("age", "age")}, "listed twice"),
        ({"variables": ("age", "ward")}, "is a category"),
        ({"variables": ("age", "sodium"), "method": "kendall"}, "without levels"),
        ({"method": "pearso"}, "method"),
        ({"confidence": 1.0}, "confidence"),
        ({"variables": ("age", "sodium"), "partial": ("falls",)}, "listwise"),
        ({"variables": ("age", "sodium"), "partial": ("age",), "missing": "listwise"}, "also among"),
        ({"variables": ("age", "sodium"), "partial": ("ward",), "missing": "listwise"}, "is a category"),
        ({"variables": ("age", "nobody"), "method": "spearman"}, "no variable"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_asked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        fit(**options)


@settings(max_examples=25)
@given(st.integers(5, 60), st.integers(1, 12), st.integers(0, 10**6))
def test_bound_holds(num_records: int, minimum_cell: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=num_records)
    b = rng.uniform(-1, 1) * 3 * a + rng.normal(size=num_records)
    frame = pd.DataFrame({"a": a, "b": b.round(int(rng.integers(0, 4)))})
    federation = under(numbers(frame, 2), minimum_cell=minimum_cell)
    pair = federation.run(correlation(method="spearman")).pair("a", "b")
    if pair.value is not None and frame.b.nunique() > 1:
        expected = stats.spearmanr(a, frame.b).statistic
        assert abs(pair.value - expected) <= pair.bound + 1e-12


@settings(max_examples=100)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.integers(0, 10**6))
def test_the_bound_covers_every_order_within_bins(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = sum(sizes)
    bins = np.repeat(np.arange(len(sizes)), sizes)
    others = rng.permutation(size)
    order = np.argsort(bins + rng.random(size))  # an order of the records that the bins allow
    ranks = np.empty(size)
    ranks[order] = np.arange(size)
    exact = np.ones(size, bool)
    pair = RankPair.of((np.array(sizes), np.ones(size, np.int64)), (np.zeros(len(sizes), bool), exact))
    cross = float(pair.scores[0][bins] @ pair.scores[1][others])
    estimate = pair.correlation(cross)
    if estimate is not None and size > 1:
        assert abs(estimate - np.corrcoef(ranks, others)[0, 1]) <= pair.bound(cross) + 1e-9


@settings(max_examples=15)
@given(st.integers(5, 40), st.integers(0, 10**6))
def test_any_split_of_any_records(num_records: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(num_records, 3)) * 10.0 ** rng.integers(-8, 9, 3), columns=list("abc"))
    frame = frame.mask(rng.random(frame.shape) < 0.15)
    result = under(numbers(frame), minimum_cell=3).run(correlation())
    for pair in result.pairs:
        both = frame[[pair.first, pair.second]].dropna()
        if pair.num_records and len(both) > 2:
            expected = stats.pearsonr(both.iloc[:, 0], both.iloc[:, 1])
            np.testing.assert_allclose([pair.value, pair.p_value], [expected.statistic, expected.pvalue], rtol=1e-8)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"missing": "listwise", "variables": ("age", "sodium"), "partial": ("falls",)},
        {"method": "spearman", "variables": ("age", "pressure", "grade")},
        {"method": "kendall", "variables": ("falls", "grade")},
    ],
)
def test_the_workflow_keeps_to_the_contract_of_workflows(options: dict[str, Any]) -> None:
    result = check_workflow(correlation(**options), FEDERATION.data, FEDERATION.setting)
    assert isinstance(result, Result)


def test_it_prints_draws_and_exports() -> None:
    for method in ("pearson", "spearman"):
        result = fit(method=method)
        assert "age, pressure" in result.summary()
        assert len(result.to_frame()) == 21
        assert result.to_dict()["pairs"][0]["first"] == "age"
        assert result.plot().axes
        assert result.references[0].split()[0] in result.methods()
        figures = [exhibit for exhibit in result.exhibits() if isinstance(exhibit, FigureExhibit)]
        assert "Strongest" in figures[0].description
    assert CONTRACT.variable("age").unit == "years"
    with pytest.raises(KeyError):
        result.pair("age", "nobody")
