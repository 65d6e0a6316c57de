"""Principal components from sums are those of the pooled records."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from tests.analytics.pooled import relative, split
from tests.analytics.statistics_samples import CONTRACT, FEDERATION, POOLED, federation_of, under
from wardround.analytics.pca import pca
from wardround.analytics.pca_result import PCAResult
from wardround.analytics.result import FigureExhibit, Result
from wardround.data.contract import Contract, Variable
from wardround.engines.simulated_hospitals import simulate
from wardround.errors import ConfigError, DataError, DisclosureError
from wardround.testing import check_workflow

NAMES = ("age", "pressure", "sodium", "tiny", "far")
COMPLETE = POOLED[list(NAMES)].dropna()


def fit(**options: Any) -> PCAResult:
    return FEDERATION.run(pca(**{"variables": NAMES, **options}))


def oracle(frame: pd.DataFrame, *, scale: bool = True, num_components: Any = None) -> PCA:
    # Taken off and divided here, as the oracle's own centring of values near 1e9 loses digits.
    values = (frame - frame.iloc[0]).to_numpy()
    values = values - values.mean(axis=0)
    if scale:
        values = values / values.std(axis=0, ddof=1)
    return PCA(num_components, svd_solver="full").fit(values)


def test_equals_pooled() -> None:
    result, expected = fit(), oracle(COMPLETE)
    assert result.num_records == len(COMPLETE)
    assert relative(result.variances, expected.explained_variance_) < 1e-8
    assert relative(result.ratios, expected.explained_variance_ratio_) < 1e-8
    np.testing.assert_allclose(result.components, expected.components_, atol=1e-8)
    assert relative(result.mean, COMPLETE.mean()) < 1e-12
    assert relative(result.standard_deviations, COMPLETE.std()) < 1e-8


def test_covariance_components_equal_pooled() -> None:
    names = ("age", "pressure", "sodium")
    result = fit(variables=names, scale=False)
    expected = oracle(POOLED[list(names)].dropna(), scale=False)
    assert relative(result.variances, expected.explained_variance_) < 1e-8
    np.testing.assert_allclose(result.components, expected.components_, atol=1e-8)
    frame = POOLED[list(names)].dropna()
    scores = result.transform(frame)
    expected_r = [[np.corrcoef(frame[name], scores[pc])[0, 1] for pc in scores] for name in names]
    np.testing.assert_allclose(result.correlations, expected_r, atol=1e-8)


def test_components_of_wildly_different_units() -> None:
    result = fit(variables=("tiny", "sodium"), scale=False)
    expected = oracle(POOLED[["tiny", "sodium"]].dropna(), scale=False)
    assert relative(result.variances[0], expected.explained_variance_[0]) < 1e-8


def test_sign_is_fixed() -> None:
    one = fit()
    other = simulate(split(POOLED, 2, seed=99), contract=CONTRACT).run(pca(variables=NAMES))
    np.testing.assert_allclose(one.components, other.components, atol=1e-10)
    largest = np.take_along_axis(one.components, np.abs(one.components).argmax(axis=1)[:, None], axis=1)
    assert (largest > 0).all()


def test_the_number_of_components_may_be_a_count_or_a_share() -> None:
    everything = fit()
    assert len(fit(num_components=2).variances) == 2
    share = float(everything.ratios[:3].sum()) - 1e-6
    assert len(fit(num_components=share).variances) == 3
    assert fit(num_components=share).total_variance == pytest.approx(len(NAMES))


def test_scores_have_the_variances_of_their_components() -> None:
    result = fit()
    scores = result.transform(COMPLETE)
    assert relative(scores.var(), result.variances) < 1e-6
    assert result.transform(POOLED).isna().any().any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"variables": ("age",)}, "from 2 to"),
        ({"variables": ("age", "age")}, "listed twice"),
        ({"variables": ("age", "ward")}, "is a category"),
        ({"variables": ("age", "agee")}, "did you mean"),
        ({"num_components": 6}, "whole number in"),
        ({"num_components": 0}, "whole number in"),
        ({"num_components": 1.5}, "whole number in"),
        ({"scale": "maybe"}, "scale"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_asked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        fit(**options)


def _numbers(**columns: Any) -> Any:
    frame = pd.DataFrame(columns)
    contract = Contract(variables=tuple(Variable(name=name, type="number") for name in frame))
    return simulate({"north": frame.iloc[::2], "south": frame.iloc[1::2]}, contract=contract)


def test_constants_and_empty_columns_are_named() -> None:
    with pytest.raises(DataError, match="b: all values are equal"):
        _numbers(a=np.arange(20.0), b=np.full(20, 3.3)).run(pca())
    with pytest.raises(DataError, match="missing everywhere: b"):
        _numbers(a=np.arange(20.0), b=np.full(20, np.nan)).run(pca())


def test_few_records_are_refused() -> None:
    with pytest.raises(DisclosureError, match="minimum_cell"):
        _numbers(a=np.arange(4.0), b=np.arange(4.0) ** 2).run(pca())
    few = pd.DataFrame({"a": [*range(20)], "b": [*[np.nan] * 16, 1.0, 2.0, 5.0, 3.0]})
    with pytest.raises(DisclosureError, match="minimum_cell"):
        _numbers(**few).run(pca())


def test_small_counts_of_missing_records_are_hidden() -> None:
    result = _numbers(a=np.arange(20.0), b=[np.nan, np.nan, *np.arange(18.0) ** 2]).run(pca())
    assert (result.num_records, result.num_left_out) == (18, None)
    assert "hidden left out" in result.summary()


def test_combinations_are_said() -> None:
    a = np.random.default_rng(0).normal(size=50)
    b = np.random.default_rng(1).normal(size=50)
    result = _numbers(a=a, b=b, c=a + b).run(pca())
    assert result.variances[-1] == 0
    assert any("combinations" in note for note in result.notes)


def test_a_variable_at_one_site_only() -> None:
    frame = POOLED[["age", "pressure"]].copy()
    sites = {"north": frame.iloc[:300].assign(age=np.nan), "south": frame.iloc[300:]}
    contract = Contract(variables=tuple(v for v in CONTRACT.variables if v.name in frame))
    result = simulate(sites, contract=contract).run(pca())
    expected = oracle(frame.iloc[300:].dropna())
    assert relative(result.variances, expected.explained_variance_) < 1e-8


@settings(max_examples=20)
@given(st.integers(6, 40), st.integers(2, 4), st.integers(0, 10**6))
def test_any_split_of_any_records(num_records: int, num_columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(num_records, num_columns)) * 10.0 ** rng.integers(-6, 7, num_columns)
    frame = pd.DataFrame(values, columns=[f"x{j}" for j in range(num_columns)])
    contract = Contract(variables=tuple(Variable(name=name, type="number") for name in frame))
    result = simulate(split(frame, 3, seed=seed), contract=contract).run(pca())
    expected = oracle(frame)
    kept = len(result.variances)
    np.testing.assert_allclose(result.variances, expected.explained_variance_[:kept], rtol=1e-8, atol=1e-12)


def test_the_workflow_keeps_to_the_contract_of_workflows() -> None:
    result = check_workflow(pca(variables=NAMES), FEDERATION.data, FEDERATION.setting)
    assert isinstance(result, Result)


def test_it_prints_draws_and_exports() -> None:
    result = fit()
    assert "PC1" in result.summary()
    assert list(result.to_frame().columns) == [f"PC{j}" for j in range(1, 6)]
    assert result.variance_frame().cumulative_ratio.iloc[-1] == pytest.approx(1)
    assert len(result.to_dict()["components"]) == 5
    assert result.plot().axes
    assert "Jolliffe 2016" in result.methods()
    figures = [exhibit for exhibit in result.exhibits() if isinstance(exhibit, FigureExhibit)]
    assert all("%" in exhibit.description for exhibit in figures)
    np.testing.assert_allclose(result.broken_stick.sum(), 1)


def test_rules_of_rounding_hold() -> None:
    result = under(FEDERATION, rounding=10).run(pca(variables=NAMES))
    assert result.num_records == round(len(COMPLETE), -1)


def test_one_site() -> None:
    result = federation_of(COMPLETE, 1).run(pca(variables=("age", "pressure")))
    assert relative(result.variances, oracle(COMPLETE[["age", "pressure"]]).explained_variance_) < 1e-8
