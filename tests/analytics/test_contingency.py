"""Contingency tables: equal to the pooled ones, and what is hidden in them stays hidden."""

import json
from collections import defaultdict
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import StratifiedTable, Table, Table2x2
from statsmodels.stats.proportion import confint_proportions_2indep

from tests.analytics.pooled import split
from tests.analytics.statistics_samples import FEDERATION, POOLED, SITES, WARDS, under
from wardround.analytics.contingency import _is_whole, _shown, _statistics, contingency
from wardround.analytics.contingency_bounds import p_value_bounds
from wardround.analytics.contingency_result import ContingencyResult
from wardround.analytics.contingency_statistics import ShownTable, association_tests, measures, tables_that_fit
from wardround.analytics.contingency_strata import (
    ENOUGH_SPLITS,
    homogeneity_terms,
    num_splits,
    only_class,
    stratified,
    stratum_sums,
)
from wardround.analytics.result import FigureExhibit, Result
from wardround.data.contract import Contract, Variable
from wardround.engines.simulated_hospitals import simulate
from wardround.engines.simulation import Simulation
from wardround.errors import ConfigError, DataError, DisclosureError
from wardround.privacy.disclosure import DisclosureRules
from wardround.testing import check_workflow

R = json.loads((Path(__file__).parents[1] / "references" / "statistics.json").read_text())


def fit(rows: str, columns: str, **options: Any) -> ContingencyResult:
    return FEDERATION.run(contingency(rows, columns, **options))


def federation_of(tables: Any, num_sites: int = 2, *, by_stratum: bool = False) -> Simulation:
    """Hospitals whose records make these tables, by stratum, row and column; or a hospital a stratum."""
    tables = np.atleast_3d(np.asarray(tables)) if np.ndim(tables) == 3 else np.asarray(tables)[None]
    places = np.repeat(np.array(list(np.ndindex(tables.shape))), tables.ravel(), axis=0)
    frame = pd.DataFrame(places, columns=["stratum", "row", "column"]).astype(str)
    contract = Contract(
        variables=tuple(
            Variable(name=name, type="category", levels=tuple(map(str, range(max(size, 1)))))
            for name, size in zip(frame, tables.shape, strict=True)
        )
    )
    sites = split(frame, num_sites, seed=2)
    if by_stratum:
        sites = {f"site {k}": part for k, part in frame.groupby("stratum")}
    return simulate(sites, contract=contract)


def close(got: Any, expected: Any) -> bool:
    np.testing.assert_allclose(np.asarray(got, float), np.asarray(expected, float), rtol=1e-8, atol=1e-14)
    return True


def test_equals_pooled() -> None:
    result = fit("ward", "grade")
    table = pd.crosstab(POOLED.ward, POOLED.grade).loc[list(WARDS)].reindex(columns=range(6), fill_value=0)
    assert result.num_records == table.to_numpy().sum()
    shown = under(FEDERATION, minimum_cell=1).run(contingency("ward", "grade"))
    assert [list(row) for row in shown.counts] == table.to_numpy().tolist()
    expected = stats.chi2_contingency(table, correction=False)
    test = shown.test("chi-square")
    assert close([test.statistic, test.df, test.p_value], [expected.statistic, expected.dof, expected.pvalue])
    expected = stats.chi2_contingency(table, correction=False, lambda_="log-likelihood")
    assert close([shown.test("G").statistic, shown.test("G").p_value], [expected.statistic, expected.pvalue])
    assert close(shown.measure("Cramer's V").value, stats.contingency.association(table, "cramer"))
    trend = Table(table.to_numpy(), shift_zeros=False).test_ordinal_association(np.arange(4), np.arange(6))
    assert close(shown.test("linear-by-linear trend").p_value, trend.pvalue)


def test_two_by_two_equals_pooled() -> None:
    result = fit("sex", "died", confidence=0.9)
    table = pd.crosstab(POOLED.sex, POOLED.died).to_numpy()
    yates = stats.chi2_contingency(table)
    test = result.test("chi-square, Yates' correction")
    assert close([test.statistic, test.p_value], [yates.statistic, yates.pvalue])
    assert close(result.test("Fisher's exact test").p_value, stats.fisher_exact(table).pvalue)
    oracle = Table2x2(table)
    odds, low_high = result.measure("odds ratio"), oracle.oddsratio_confint(0.1)
    assert close([odds.value, odds.low, odds.high], [oracle.oddsratio, *low_high])
    swapped = Table2x2(table[::-1, ::-1])  # its risk is that of the first column in the first row
    risk, low_high = result.measure("risk ratio"), swapped.riskratio_confint(0.1)
    assert close([risk.value, risk.low, risk.high], [swapped.riskratio, *low_high])
    (_, b), (_, d) = table
    sizes = table.sum(axis=1)
    newcombe = confint_proportions_2indep(d, sizes[1], b, sizes[0], method="newcomb", compare="diff", alpha=0.1)
    difference = result.measure("risk difference")
    assert close([difference.value, difference.low, difference.high], [d / sizes[1] - b / sizes[0], *newcombe])


@pytest.mark.parametrize("strata", ["ward", "site"])
def test_association_within_strata_equals_pooled(strata: str) -> None:
    result = fit("sex", "died", strata=strata).stratified
    assert result is not None
    if strata == "ward":
        tables = [pd.crosstab(part.sex, part.died).to_numpy() for _, part in POOLED.groupby("ward")]
    else:
        tables = [pd.crosstab(part.sex, part.died).to_numpy() for part in SITES.values()]
    oracle = StratifiedTable(tables)
    test = oracle.test_null_odds(correction=False)
    assert not result.is_rounded
    assert close([result.statistic, result.p_value], [test.statistic, test.pvalue])
    low, high = oracle.oddsratio_pooled_confint()
    assert close([result.odds_ratio, result.low, result.high], [oracle.oddsratio_pooled, low, high])
    assert close(result.homogeneity_p, oracle.test_equal_odds(adjust=True).pvalue)


def test_tables_within_strata_equal_r() -> None:
    # R fills its arrays by columns.
    tables = np.array(
        [12, 9, 7, 20, 15, 8, 6, 11, 19, 25, 14, 10, 13, 17, 21, 9, 10, 30, 8, 7, 16, 12, 22, 9, 14, 6, 18]
    )
    tables = tables.reshape(3, 3, 3).transpose(0, 2, 1)
    for by_stratum, strata in ((False, "stratum"), (True, "site")):
        result = federation_of(tables, 3, by_stratum=by_stratum).run(contingency("row", "column", strata=strata))
        found = result.stratified
        assert found is not None
        assert close([found.statistic, found.df, found.p_value], R["cmh"])
    two = np.array([12, 9, 20, 15, 25, 14, 13, 27, 8, 17, 12, 22]).reshape(3, 2, 2).transpose(0, 2, 1)
    found = federation_of(two).run(contingency("row", "column", strata="stratum")).stratified
    assert found is not None
    assert close([found.statistic, found.p_value, found.odds_ratio, found.low, found.high], R["mh"])
    assert close(
        federation_of(two[0]).run(contingency("row", "column")).test("Fisher's exact test").p_value, R["fisher"]
    )


def test_strata_that_tell_nothing_are_left_out() -> None:
    tables = [[[10, 12], [15, 9]], [[0, 0], [20, 30]], [[0, 0], [0, 0]]]
    found = federation_of(tables).run(contingency("row", "column", strata="stratum")).stratified
    assert found is not None
    assert found.informative == 1
    assert found.odds_ratio == pytest.approx(10 * 9 / (12 * 15))
    nothing = federation_of([[[10, 12], [0, 0]], [[0, 0], [10, 12]]]).run(
        contingency("row", "column", strata="stratum")
    )
    assert nothing.stratified is not None
    assert (nothing.stratified.informative, nothing.stratified.statistic) == (0, None)
    assert "no stratum has" in nothing.summary()


def test_what_one_site_alone_tells_is_withheld() -> None:
    federation = federation_of([[[10, 12], [15, 9]], [[0, 0], [20, 30]]], by_stratum=True)
    found = federation.run(contingency("row", "column", strata="site")).stratified
    assert found is not None
    assert (found.statistic, found.odds_ratio, found.informative) == (None, None, None)
    allowed = under(federation, allows_site_results=True).run(contingency("row", "column", strata="site")).stratified
    assert allowed is not None
    assert allowed.odds_ratio == pytest.approx(10 * 9 / (12 * 15))


def test_small_cells_in_strata_round_what_is_told() -> None:
    tables = [[[60, 72], [65, 59]], [[71, 3], [80, 70]], [[50, 62], [75, 41]], [[66, 45], [88, 60]]]
    for by_stratum, strata in ((False, "stratum"), (True, "site")):
        federation = federation_of(tables, by_stratum=by_stratum)
        found = federation.run(contingency("row", "column", strata=strata)).stratified
        exact = under(federation, minimum_cell=1).run(contingency("row", "column", strata=strata)).stratified
        assert found is not None
        assert exact is not None
        assert found.is_rounded
        assert not exact.is_rounded
        assert found.odds_ratio == float(f"{exact.odds_ratio:.3g}")
        assert found.p_value == float(f"{exact.p_value:.2g}")


def test_few_records_in_strata_tell_the_class_of_the_p_value_alone() -> None:
    tables = [[[10, 12], [15, 9]], [[11, 3], [20, 30]]]
    for by_stratum, strata in ((False, "stratum"), (True, "site")):
        federation = federation_of(tables, by_stratum=by_stratum)
        result = federation.run(contingency("row", "column", strata=strata))
        exact = under(federation, minimum_cell=1).run(contingency("row", "column", strata=strata)).stratified
        found = result.stratified
        assert found is not None
        assert exact is not None
        assert (found.statistic, found.p_value, found.odds_ratio, found.homogeneity_p) == (None,) * 4
        assert found.p_low is not None
        assert found.p_high is not None
        assert exact.p_value is not None
        assert found.p_low <= exact.p_value <= found.p_high
        assert f"P {found.p_low:g} to {found.p_high:g}" in result.summary()


def test_strata_of_few_are_not_told_apart() -> None:
    """An attacker goes through all ways to deal a shown table out to two strata, and keeps those that tell the same."""
    pooled, told = np.array([6, 7, 8, 9]), defaultdict(list)
    for cells in product(*(range(n + 1) for n in pooled)):
        tables = np.array([cells, pooled - cells]).reshape(2, 2, 2)
        sums = stratum_sums(tables[0], 5) + stratum_sums(tables[1], 5)
        if sums.small and num_splits(tables.sum(axis=0), 2) < ENOUGH_SPLITS:
            found = only_class(stratified("s", sums, None, 0.95, is_rounded=True))
            told[repr(found)].append(min(tables.ravel().tolist(), tables[::-1].ravel().tolist()))
    assert told
    for ways in told.values():
        lines = np.array(ways)
        for place in range(8):
            assert len(set(lines[:, place].tolist())) > 1


def test_expected_counts_below_five_are_said() -> None:
    result = federation_of([[6, 30], [7, 90]]).run(contingency("row", "column"))
    assert result.has_small_expected
    assert any("below 5" in note for note in result.notes)
    assert not federation_of([[20, 30], [27, 90]]).run(contingency("row", "column")).has_small_expected


def test_empty_cells_have_no_ratios() -> None:
    result = federation_of([[0, 30], [27, 90]]).run(contingency("row", "column"))
    assert result.measure("odds ratio").value is None
    assert result.measure("risk ratio").value == pytest.approx((90 / 117) / 1)
    assert result.to_json()
    result = federation_of([[20, 30], [0, 0]]).run(contingency("row", "column"))
    assert result.tests == ()
    assert any("no association to test" in note for note in result.notes)


def _published(table: np.ndarray, rules: DisclosureRules) -> str | None:
    """All that a reader is given of a table with these cells, from the functions that the workflow calls."""
    shown = _shown(table, rules)
    scores = np.arange(float(table.shape[0])), np.arange(float(table.shape[1]))
    return repr((shown, _statistics(table, shown, scores, rules, 0.95)))


@pytest.mark.parametrize(("total", "minimum_cell"), [(8, 2), (10, 3), (9, 5)])
def test_hidden_cells_stay_hidden(total: int, minimum_cell: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attacker who knows the program runs it on every table there could be, and keeps those with the same output."""
    monkeypatch.setattr(
        stats, "fisher_exact", lambda table: SimpleNamespace(pvalue=float(table[0, 0]))
    )  # slow, and 1:1
    rules = DisclosureRules(minimum_cell=minimum_cell)
    outputs = defaultdict(list)
    for cells in product(range(total + 1), repeat=3):
        if sum(cells) <= total:
            table = np.array([*cells, total - sum(cells)]).reshape(2, 2)
            outputs[_published(table, rules)].append(table)
    num_hidden = 0
    for tables in outputs.values():
        lines = np.array([[*table.ravel(), *table.sum(axis=0), *table.sum(axis=1)] for table in tables])
        is_small = (lines > 0) & (lines < minimum_cell)
        for place in np.flatnonzero(is_small.any(axis=0)):
            num_hidden += 1
            assert len(set(lines[:, place].tolist())) > 1, tables
    assert num_hidden >= 8  # cells and totals of one output at least


@settings(max_examples=40)
@given(st.sampled_from([(2, 2), (2, 3), (3, 3)]), st.integers(0, 10**6), st.integers(2, 5))
def test_told_by_what_is_shown(shape: tuple[int, int], seed: int, minimum_cell: int) -> None:
    """Every other table that shows the same numbers would be told the same of."""
    rng = np.random.default_rng(seed)
    rules, table = DisclosureRules(minimum_cell=minimum_cell), rng.poisson(rng.uniform(1, 12, shape))
    if rules.is_small(int(table.sum())) or not table.any():
        return
    shown = _shown(table, rules)
    if _is_whole(shown):
        return
    scores = np.arange(float(shape[0])), np.arange(float(shape[1]))
    told = _statistics(table, shown, scores, rules, 0.95)
    for other in (tables_that_fit(shown, minimum_cell) or [])[:8]:
        assert _statistics(other, shown, scores, rules, 0.95) == told


@settings(max_examples=60)
@given(st.lists(st.integers(0, 9), min_size=6, max_size=6), st.integers(2, 5))
def test_tables_that_fit_are_all_of_them(cells: list[int], minimum_cell: int) -> None:
    table = np.array(cells).reshape(2, 3)
    if not table.any():
        return
    shown = _shown(table, DisclosureRules(minimum_cell=minimum_cell))
    if _is_whole(shown):
        return
    found = tables_that_fit(shown, minimum_cell)
    if found is not None:
        assert any((fitting == table).all() for fitting in found)
        for fitting in found:
            for i, j in np.ndindex(2, 3):
                assert shown.cells[i][j] in (None, fitting[i, j])
            assert all(n in (None, int(m)) for n, m in zip(shown.row_totals, fitting.sum(axis=1), strict=True))
            assert all(n in (None, int(m)) for n, m in zip(shown.column_totals, fitting.sum(axis=0), strict=True))


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 5))
def test_p_values_lie_within(seed: int, minimum_cell: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.poisson(rng.uniform(1, 30, (int(rng.integers(2, 4)), 4)))
    shown = _shown(table, DisclosureRules(minimum_cell=minimum_cell))
    bounds = p_value_bounds(shown) if not _is_whole(shown) else {}
    for test in association_tests(table):
        if test.name in bounds and test.p_value is not None:
            low, high = bounds[test.name]
            assert low <= test.p_value <= high


def test_tables_too_many_to_go_through_have_bounds() -> None:
    table = [[2, 28, 71, 93, 27, 3], [3, 4, 54, 68, 27, 10], [1, 14, 38, 43, 14, 3], [2, 90, 9, 8, 3, 2]]
    result = federation_of(table).run(contingency("row", "column"))
    test = result.test("chi-square")
    expected = stats.chi2_contingency(table, correction=False).pvalue
    assert test.statistic is None
    assert test.p_low is not None
    assert test.p_high is not None
    assert test.p_low <= expected <= test.p_high < 1e-6


def test_the_search_finds_what_brute_force_finds() -> None:
    shown = ShownTable(cells=((None, None), (None, None)), row_totals=(7, 9), column_totals=(6, 10), total=16)
    found = {tuple(table.ravel().tolist()) for table in tables_that_fit(shown, 3) or ()}
    expected = {(a, 7 - a, 6 - a, 3 + a) for a in range(7) if any(0 < cell < 3 for cell in (a, 7 - a, 6 - a, 3 + a))}
    assert found == expected


def test_what_is_withheld_is_said() -> None:
    result = federation_of([[3, 97], [50, 50]]).run(contingency("row", "column", strata="site"))
    assert result.is_withheld
    assert result.counts == ((None, None), (None, None))
    assert result.row_totals == (100, 100)
    chi_square = result.test("chi-square")
    assert (chi_square.statistic, chi_square.p_value, chi_square.df) == (None, None, None)
    exact = stats.chi2_contingency([[3, 97], [50, 50]], correction=False).pvalue
    assert chi_square.p_low is not None
    assert chi_square.p_high is not None
    assert chi_square.p_low <= exact <= chi_square.p_high < 0.001
    assert result.stratified is not None
    assert result.stratified.statistic is None
    assert all(measure.value is None for measure in result.measures)
    assert "<0.001 to <0.001" in result.summary()
    assert "withheld" in result.summary()
    assert result.has_small_expected is None
    assert result.to_frame("row").iloc[0, 0] is pd.NA or np.isnan(result.to_frame("row").iloc[0, 0])


def test_rounded_counts_have_statistics_of_their_own() -> None:
    result = under(federation_of([[23, 41], [32, 58]]), rounding=5).run(contingency("row", "column"))
    assert result.counts == ((25, 40), (30, 60))
    assert result.test("chi-square").statistic == pytest.approx(
        stats.chi2_contingency([[25, 40], [30, 60]], correction=False).statistic
    )
    assert any("multiples of 5" in note for note in result.notes)


def test_few_or_no_records_are_refused() -> None:
    with pytest.raises(DisclosureError, match="minimum_cell"):
        federation_of([[1, 1], [1, 1]], 1).run(contingency("row", "column"))
    contract = Contract(variables=tuple(Variable(name=name, type="boolean") for name in "ab"))
    nothing = pd.DataFrame({"a": [True, None] * 5, "b": [None, False] * 5})
    with pytest.raises(DataError, match="no record has both"):
        simulate({"north": nothing}, contract=contract).run(contingency("a", "b"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rows": "age", "columns": "sex"}, "without levels"),
        ({"rows": "sex", "columns": "sex"}, "different variables"),
        ({"rows": "sex", "columns": "died", "strata": "sex"}, "different variables"),
        ({"rows": "sex", "columns": "died", "strata": "age"}, "without levels"),
        ({"rows": "sex", "columns": "dead"}, "did you mean 'died'"),
        ({"rows": "sex", "columns": "died", "confidence": 2.0}, "confidence"),
        ({"rows": 3, "columns": "died"}, "rows"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_asked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FEDERATION.run(contingency(**options))


def test_a_variable_of_one_level_is_refused() -> None:
    contract = Contract(
        variables=(Variable(name="a", type="category", levels=("x",)), Variable(name="b", type="boolean"))
    )
    federation = simulate({"north": pd.DataFrame({"a": ["x"] * 9, "b": [True] * 9})}, contract=contract)
    with pytest.raises(ConfigError, match="one level only"):
        federation.run(contingency("a", "b"))


@settings(max_examples=30)
@given(st.lists(st.integers(0, 40), min_size=12, max_size=12))
def test_any_strata_equal_the_oracle(cells: list[int]) -> None:
    tables = np.array(cells).reshape(3, 2, 2)
    informative = [t for t in tables if t.any(axis=0).all() and t.any(axis=1).all()]
    sums = [stratum_sums(table, 1) for table in tables]
    total = sums[0] + sums[1] + sums[2]
    found = stratified("s", total, None, 0.95, is_rounded=False)
    assert (found.informative or 0) == len(informative)
    if informative and found.odds_ratio is not None:
        oracle = StratifiedTable(informative)
        assert close(found.odds_ratio, oracle.oddsratio_pooled)
        assert close(found.statistic, oracle.test_null_odds(correction=False).statistic)
        terms = sum(homogeneity_terms(table, found.odds_ratio) for table in tables)
        if len(informative) > 1 and all(t.all() for t in informative):
            whole = stratified("s", total, np.asarray(terms), 0.95, is_rounded=False)
            expected = oracle.test_equal_odds(adjust=True).pvalue
            assert whole.homogeneity_p == pytest.approx(expected, rel=1e-6)


def test_measures_of_a_table_with_an_empty_row() -> None:
    assert measures(np.array([[0, 0], [3, 4]]), 0.95) == ()


@pytest.mark.parametrize("strata", [None, "ward", "site"])
def test_the_workflow_keeps_to_the_contract_of_workflows(strata: str | None) -> None:
    result = check_workflow(contingency("sex", "died", strata=strata), FEDERATION.data, FEDERATION.setting)
    assert isinstance(result, Result)


def test_it_prints_draws_and_exports() -> None:
    for rows, columns, strata in (("sex", "died", "ward"), ("ward", "grade", None)):
        result = fit(rows, columns, strata=strata)
        assert "chi-square" in result.summary()
        assert result.to_frame().index[-1] == "total"
        assert result.to_dict()["rows"] == rows
        assert result.plot().axes
        assert all(reference.split()[0] in result.methods() for reference in result.references)
        figures = [exhibit for exhibit in result.exhibits() if isinstance(exhibit, FigureExhibit)]
        assert figures[0].description
    with pytest.raises(ValueError, match="percent must be"):
        result.to_frame("all")
    for missing in (result.test, result.measure):
        with pytest.raises(KeyError):
            missing("nothing")
    assert fit("sex", "died").to_frame("column").loc["total", "total"] == 100
