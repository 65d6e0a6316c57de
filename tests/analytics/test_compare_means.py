"""Means compared from sums are compared as in the pooled records, and small groups are never summed."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.oneway import anova_oneway

from tests.analytics.pooled import split
from tests.analytics.statistics_samples import FEDERATION, POOLED, WARDS, under
from wardround.analytics.compare_means import compare_means, group_sums
from wardround.analytics.compare_means_result import CompareMeansResult
from wardround.analytics.compare_means_statistics import Groups, differences, hedges_factor, rank_test
from wardround.analytics.result import FigureExhibit, Result
from wardround.data.contract import Contract, Variable
from wardround.engines.simulated_hospitals import simulate
from wardround.engines.simulation import Simulation
from wardround.errors import ConfigError, DataError, DisclosureError
from wardround.testing import check_workflow

R = json.loads((Path(__file__).parents[1] / "references" / "statistics.json").read_text())
NAMES = ("age", "sodium", "tiny", "far", "falls", "died")
R_VALUES = {
    "a": [4.1, 5.3, 6.2, 5.8, 4.9, 6.6, 5.1],
    "b": [6.9, 7.4, 5.9, 8.1, 7.7, 6.3],
    "c": [5.5, 9.1, 4.2, 7.9, 10.3, 3.8, 6.4, 8.8],
}


def fit(**options: Any) -> CompareMeansResult:
    return FEDERATION.run(compare_means(**{"variables": NAMES, "by": "ward", **options}))


def grouped(values: dict[str, list[float]], num_sites: int = 2) -> Simulation:
    frame = pd.DataFrame([(name, value) for name, part in values.items() for value in part], columns=["g", "y"])
    contract = Contract(
        variables=(Variable(name="g", type="category", levels=tuple(values)), Variable(name="y", type="number"))
    )
    return simulate(split(frame, num_sites, seed=3), contract=contract)


def samples(name: str, by: str, levels: tuple[str, ...]) -> list[np.ndarray]:
    values = POOLED[name].astype(float)
    values = values - values.min()  # the oracles lose digits of values near 1e9
    return [values[levels_ == level].dropna().to_numpy() for levels_ in [POOLED[by]] for level in levels]


def close(got: Any, expected: Any, rtol: float = 1e-8) -> bool:
    np.testing.assert_allclose(np.asarray(got, float), np.asarray(expected, float), rtol=rtol, atol=1e-14)
    return True


@pytest.mark.parametrize("equal", [True, False])
def test_two_groups_equal_pooled(equal: bool) -> None:
    result = fit(by="sex", equal_variances=equal, confidence=0.9)
    for name in NAMES:
        first, second = samples(name, "sex", ("F", "M"))
        expected = stats.ttest_ind(first, second, equal_var=equal)
        interval = expected.confidence_interval(0.9)
        found = result.comparison(name)
        test, (difference,) = found.test, found.differences
        assert test is not None
        assert close([test.statistic, test.p_value, test.df], [expected.statistic, expected.pvalue, expected.df])
        value = first.mean() - second.mean()
        assert close([difference.value, difference.low, difference.high], [value, interval.low, interval.high])
        n, m = len(first), len(second)
        pooled = np.sqrt(((n - 1) * first.var(ddof=1) + (m - 1) * second.var(ddof=1)) / (n + m - 2))
        assert close(difference.cohens_d, value / pooled)
        assert difference.hedges_g == pytest.approx(value / pooled * (1 - 3 / (4 * (n + m - 2) - 1)), rel=1e-5)


@pytest.mark.parametrize("equal", [True, False])
def test_several_groups_equal_pooled(equal: bool) -> None:
    result = fit(equal_variances=equal)
    for name in NAMES:
        parts = samples(name, "ward", WARDS)
        found = result.comparison(name)
        expected = anova_oneway(parts, use_var="equal" if equal else "unequal", welch_correction=True)
        assert found.test is not None
        assert close([found.test.statistic, found.test.p_value], [expected.statistic, expected.pvalue])
        assert close(found.test.df_within, expected.df_denom)
        levene, bartlett = found.variance_tests
        oracle = stats.levene(*parts, center="mean")
        assert close([levene.statistic, levene.p_value], [oracle.statistic, oracle.pvalue], 1e-7)
        oracle = stats.bartlett(*parts)
        assert close([bartlett.statistic, bartlett.p_value], [oracle.statistic, oracle.pvalue], 1e-7)
        everything = np.concatenate(parts)
        total = ((everything - everything.mean()) ** 2).sum()
        within = sum(((part - part.mean()) ** 2).sum() for part in parts)
        assert close(found.eta_squared, 1 - within / total)
        assert close([group.num_values for group in found.groups], [len(part) for part in parts])
        assert close([group.sd for group in found.groups], [part.std(ddof=1) for part in parts])


def test_means_are_those_of_the_pooled_records() -> None:
    for name in NAMES:
        means = POOLED.groupby("ward")[name].mean().loc[list(WARDS)]
        assert close([group.mean for group in fit().comparison(name).groups], means.to_numpy(), 1e-12)
    group = fit().comparison("age").groups[0]
    values = POOLED.age[POOLED.ward == "acute"].dropna()
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), values.sem())
    assert close([group.low, group.high], [low, high])


@pytest.mark.parametrize("adjustment", ["holm", "bonferroni", "none"])
def test_adjusted_p_values_equal_statsmodels(adjustment: Any) -> None:
    found = fit(adjustment=adjustment).comparison("falls").differences
    raw = [d.p_value for d in found]
    for d, (i, j) in zip(found, combinations(range(4), 2), strict=True):
        parts = samples("falls", "ward", WARDS)
        assert close(d.p_value, stats.ttest_ind(parts[i], parts[j], equal_var=False).pvalue)
    expected = raw if adjustment == "none" else multipletests(raw, method=adjustment)[1]
    assert close([d.p_adjusted for d in found], expected)


def test_equals_r() -> None:
    federation = grouped(R_VALUES)
    classical = federation.run(compare_means(("y",), "g", equal_variances=True, adjustment="tukey")).comparison("y")
    welch = federation.run(compare_means(("y",), "g")).comparison("y")
    assert classical.test is not None
    assert welch.test is not None
    assert close([classical.test.statistic, classical.test.p_value], R["anova"])
    assert close([welch.test.statistic, welch.test.df, welch.test.df_within, welch.test.p_value], R["welch"])
    assert close([welch.variance_tests[1].statistic, welch.variance_tests[1].p_value], R["bartlett"])
    assert close([d.p_adjusted for d in welch.differences], R["holm"])
    # R reports second less first, and its studentised range is good to about seven digits.
    ours = [[-d.value, -d.high, -d.low, d.p_adjusted] for d in classical.differences]
    assert close(ours, R["tukey"], 1e-5)
    ranked = (
        under(federation, minimum_cell=1).run(compare_means(("y",), "g", rank_tests=True)).comparison("y").rank_test
    )
    assert ranked is not None
    assert close([ranked.statistic, ranked.p_value], R["kruskal"])
    assert close([ranked.p_low, ranked.p_high], [ranked.p_value] * 2)


def test_games_and_howell() -> None:
    parts = [np.array(values) for values in R_VALUES.values()]
    found = grouped(R_VALUES).run(compare_means(("y",), "g", adjustment="tukey")).comparison("y").differences
    for d, (i, j) in zip(found, combinations(range(3), 2), strict=True):
        shares = [part.var(ddof=1) / len(part) for part in (parts[i], parts[j])]
        df = sum(shares) ** 2 / sum(s**2 / (len(p) - 1) for s, p in zip(shares, (parts[i], parts[j]), strict=True))
        q = abs(parts[i].mean() - parts[j].mean()) / np.sqrt(sum(shares) / 2)
        assert close(d.p_adjusted, stats.studentized_range.sf(q, 3, df))
        reach = stats.studentized_range.ppf(0.95, 3, df) * np.sqrt(sum(shares) / 2)
        assert close([d.low, d.high], [d.value - reach, d.value + reach])


def test_rank_tests_equal_pooled() -> None:
    two = fit(by="sex", variables=("falls", "grade", "died"), rank_tests=True)
    several = fit(variables=("falls", "grade", "died"), rank_tests=True)
    for name in ("falls", "grade", "died"):
        expected = stats.mannwhitneyu(*samples(name, "sex", ("F", "M")), method="asymptotic")
        found = two.comparison(name).rank_test
        assert found is not None
        assert close([found.p_value, found.p_low, found.p_high], [expected.pvalue] * 3)
        expected = stats.kruskal(*samples(name, "ward", WARDS))
        found = several.comparison(name).rank_test
        assert found is not None
        assert close([found.statistic, found.p_value, found.p_low], [*expected, expected.pvalue])


@settings(max_examples=25)
@given(st.integers(2, 4), st.integers(6, 25), st.integers(0, 10**6))
def test_rank_bounds_hold(num_groups: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = {f"g{k}": rng.normal(k * rng.uniform(0, 0.6), 1, size).round(3).tolist() for k in range(num_groups)}
    found = grouped(values).run(compare_means(("y",), "g", rank_tests=True)).comparison("y").rank_test
    assert found is not None
    parts = list(values.values())
    exact = stats.mannwhitneyu(*parts, method="asymptotic") if num_groups == 2 else stats.kruskal(*parts)
    assert found.p_low * (1 - 1e-9) <= exact.pvalue <= found.p_high * (1 + 1e-9)


@settings(max_examples=60)
@given(st.integers(2, 3), st.integers(4, 9), st.integers(0, 10**6))
def test_the_range_covers_every_order_within_bins(num_groups: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(num_groups), rng.integers(0, num_groups, size)])
    bins = np.sort(rng.integers(0, 4, len(codes)))
    counts = np.zeros((4, num_groups), np.int64)
    np.add.at(counts, (bins, codes), 1)
    found = rank_test(counts, np.zeros(4, bool))
    values = bins + rng.random(len(codes)).round(1) * 0.9
    parts = [values[codes == group] for group in range(num_groups)]
    if found is not None and len(np.unique(values)) > 1:
        exact = stats.mannwhitneyu(*parts, method="asymptotic") if num_groups == 2 else stats.kruskal(*parts)
        assert found.p_low - 1e-12 <= exact.pvalue <= found.p_high + 1e-12


def test_paired_equals_pooled() -> None:
    for first, second in (("pressure", "age"), ("far", "tiny")):
        both = POOLED[[first, second]].dropna().astype(float)
        expected = stats.ttest_rel(both[first], both[second])
        interval = expected.confidence_interval()
        result = fit(variables=(first, second), by=None, paired=True)
        found = result.comparisons[0]
        assert found.test is not None
        assert close([found.test.statistic, found.test.p_value, found.test.df], [*expected, expected.df], 1e-7)
        (difference,) = found.differences
        left = both[first] - both[second]
        assert close([difference.value, difference.low], [left.mean(), interval.low])
        assert close(difference.cohens_d, left.mean() / left.std(), 1e-7)
        assert "paired t-test" in result.summary()


def test_small_groups_are_never_summed() -> None:
    values = {"a": [*np.arange(20.0)], "b": [3.0, 99.0], "c": [*np.arange(30.0)], "d": []}
    rounds: list[Any] = []
    federation = grouped(values)
    watched = Simulation(federation.data, federation.setting, progress=lambda progress: rounds.append(progress.round))
    result = watched.run(compare_means(("y",), "g", rank_tests=True))
    found = result.comparison("y")
    assert [group.group for group in found.groups] == ["a", "c"]
    assert found.left_out == ("b", "d")
    assert found.test is not None
    assert found.test.p_value == pytest.approx(stats.ttest_ind(values["a"], values["c"], equal_var=False).pvalue)
    assert any("b and d left out" in note for note in result.notes)
    assert '"b"' not in json.dumps(result.to_dict()["comparisons"][0]["groups"])
    asked = [r for r in rounds if r.ask.function is group_sums]
    assert asked
    for round_ in asked:
        assert not round_.total.sum.sums[0, [1, 3]].any()
        assert not round_.total.sum.distances[0, [1, 3]].any()


def test_where_nothing_varies_or_one_group_remains() -> None:
    flat = grouped({"a": [0.1] * 9, "b": [0.1] * 8}).run(compare_means(("y",), "g"))
    assert flat.comparison("y").test is None
    assert any("nothing to test" in note for note in flat.notes)
    assert flat.to_json()
    one = grouped({"a": [*np.arange(9.0)], "b": [1.0]}).run(compare_means(("y",), "g"))
    assert (one.comparison("y").test, one.comparison("y").differences) == (None, ())
    half = grouped({"a": [*np.arange(9.0)], "b": [0.3] * 8}).run(compare_means(("y",), "g")).comparison("y")
    expected = stats.ttest_1samp(np.arange(9.0), 0.3)  # the other mean has no error
    assert half.test is not None
    assert close(half.test.p_value, expected.pvalue)
    several = grouped({"a": [*np.arange(9.0)], "b": [0.3] * 8, "c": [0.4] * 8}).run(compare_means(("y",), "g"))
    assert several.comparison("y").test is None  # Welch's analysis of variance needs a spread in each group
    assert len(several.comparison("y").differences) == 2


def test_a_variable_missing_everywhere_or_at_one_site() -> None:
    frame = pd.DataFrame({"g": ["a", "b"] * 30, "y": [np.nan] * 30 + [*np.arange(30.0)], "z": [np.nan] * 60})
    contract = Contract(
        variables=(
            Variable(name="g", type="category", levels=("a", "b")),
            Variable(name="y", type="number"),
            Variable(name="z", type="number"),
        )
    )
    federation = simulate({"north": frame.iloc[:30], "south": frame.iloc[30:]}, contract=contract)
    result = federation.run(compare_means(("y", "z"), "g", rank_tests=True))
    south = frame.iloc[30:]
    expected = stats.ttest_ind(south.y[south.g == "a"], south.y[south.g == "b"], equal_var=False)
    test = result.comparison("y").test
    assert test is not None
    assert close(test.p_value, expected.pvalue)
    assert result.comparison("z").groups == ()
    assert result.plot().axes
    assert result.summary()


def test_few_pairs_are_refused() -> None:
    contract = Contract(variables=tuple(Variable(name=name, type="number") for name in "ab"))
    frame = pd.DataFrame({"a": np.arange(20.0), "b": [1.0, 2, 4, 5, *[np.nan] * 16]})
    federation = simulate({"north": frame}, contract=contract)
    with pytest.raises(DisclosureError, match="minimum_cell"):
        federation.run(compare_means(("a", "b"), paired=True))
    with pytest.raises(DataError, match="no record has both"):
        simulate({"north": frame.assign(b=np.nan)}, contract=contract).run(compare_means(("a", "b"), paired=True))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"by": None}, "name the variable"),
        ({"by": "age", "variables": ("sodium",)}, "without levels"),
        ({"by": "falls"}, "cannot be compared by itself"),
        ({"variables": ("ward",), "by": "sex"}, "is a category"),
        ({"variables": ()}, "from 1 to"),
        ({"paired": True}, "two variables"),
        ({"paired": True, "by": None}, "two variables"),
        ({"adjustment": "fdr"}, "adjustment"),
        ({"confidence": 0.0}, "confidence"),
        ({"by": "wrad"}, "did you mean"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_asked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        fit(**options)


@settings(max_examples=20)
@given(st.integers(2, 4), st.integers(0, 10**6), st.integers(-9, 9))
def test_any_groups_equal_pooled(num_groups: int, seed: int, exponent: int) -> None:
    rng = np.random.default_rng(seed)
    unit = 10.0**exponent
    values = {f"g{k}": (unit * rng.normal(k, 1 + k, rng.integers(5, 12))).tolist() for k in range(num_groups)}
    found = grouped(values, 3).run(compare_means(("y",), "g")).comparison("y")
    expected = anova_oneway(list(map(np.array, values.values())), use_var="unequal", welch_correction=True)
    assert found.test is not None
    assert close(found.test.p_value, expected.pvalue)


def test_the_exact_factor_of_hedges() -> None:
    assert hedges_factor(10) == pytest.approx(0.9228, abs=1e-4)  # Hedges (1981), table 1: c(10) = 0.923
    groups = Groups(
        names=("a", "b"), count=np.array([1, 1]), mean=np.array([0.0, 1.0]), square_sum=np.array([0.0, 0.0])
    )
    assert differences(groups, True, "holm", 0.95) == ()


@pytest.mark.parametrize(
    "options",
    [
        {"variables": ("age", "falls"), "by": "ward", "rank_tests": True},
        {"variables": ("age", "pressure"), "paired": True},
        {"variables": ("age",), "by": "sex", "equal_variances": True},
    ],
)
def test_the_workflow_keeps_to_the_contract_of_workflows(options: dict[str, Any]) -> None:
    result = check_workflow(compare_means(**options), FEDERATION.data, FEDERATION.setting)
    assert isinstance(result, Result)


def test_it_prints_draws_and_exports() -> None:
    for options in ({"rank_tests": True}, {"by": "sex", "equal_variances": True}, {"adjustment": "tukey"}):
        result = fit(variables=("age", "falls"), **options)
        assert "eta squared" in result.summary()
        assert len(result.to_frame()) == 2 * len(result.comparisons[0].groups)
        assert len(result.differences_frame()) == 2 * len(result.comparisons[0].differences)
        assert set(result.tests_frame().columns) >= {"statistic", "p_value"}
        assert result.to_dict()["comparisons"][0]["variable"] == "age"
        assert result.plot().axes
        assert len(result.references) >= 2
        assert any(isinstance(exhibit, FigureExhibit) and exhibit.description for exhibit in result.exhibits())
    with pytest.raises(KeyError):
        result.comparison("nobody")
