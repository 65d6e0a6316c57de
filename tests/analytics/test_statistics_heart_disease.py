"""The heart disease data of four hospitals: what is pooled there is what the sums give."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from statsmodels.stats.contingency_tables import StratifiedTable

from tests.analytics.pooled import relative
from wardround.analytics.compare_means import compare_means
from wardround.analytics.contingency import contingency
from wardround.analytics.correlation import correlation
from wardround.analytics.kmeans import kmeans
from wardround.analytics.pca import pca
from wardround.data.contract import Contract, Variable
from wardround.engines.simulated_hospitals import simulate
from wardround.engines.simulation import Simulation

COLUMNS = [
    "age",
    "sex",
    "cp",
    "trestbps",
    "chol",
    "fbs",
    "restecg",
    "thalach",
    "exang",
    "oldpeak",
    "slope",
    "ca",
    "thal",
    "num",
]
NUMBERS = ("age", "trestbps", "chol", "thalach", "oldpeak")
CONTRACT = Contract(
    variables=(
        *(Variable(name=name, type="number") for name in NUMBERS),
        Variable(name="pain", type="integer", range=(1, 4)),
        Variable(name="sex", type="boolean"),
        Variable(name="disease", type="boolean"),
    )
)


@pytest.fixture(scope="module")
def hospitals(shared_data: Path) -> dict[str, pd.DataFrame]:
    tables = {}
    for name in ("cleveland", "hungarian", "switzerland", "va"):
        path = shared_data / "heart_uci4" / f"processed.{name}.data"
        frame = pd.read_csv(path, header=None, na_values="?", names=COLUMNS)
        frame["chol"] = frame.chol.where(frame.chol > 0)
        frame["sex"], frame["disease"] = frame.sex == 1, frame.num > 0
        tables[name] = frame.rename(columns={"cp": "pain"})[list(CONTRACT.names)]
    return tables


@pytest.fixture(scope="module")
def federation(hospitals: dict[str, pd.DataFrame]) -> Simulation:
    return simulate(hospitals, contract=CONTRACT)


@pytest.fixture(scope="module")
def pooled(hospitals: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(hospitals.values(), ignore_index=True)


def test_correlations(federation: Simulation, pooled: pd.DataFrame) -> None:
    pearson, spearman = (federation.run(correlation(NUMBERS, method=m)) for m in ("pearson", "spearman"))
    for first, second in combinations(NUMBERS, 2):
        both = pooled[[first, second]].dropna()
        expected = stats.pearsonr(both[first], both[second])
        pair = pearson.pair(first, second)
        assert pair.num_records == len(both)
        assert relative([pair.value, pair.p_value], [expected.statistic, expected.pvalue]) < 1e-8
        rho, pair = stats.spearmanr(both[first], both[second]).statistic, spearman.pair(first, second)
        # Whole years, mmHg and tenths of millimetres: ranks are exact but for values that fewer than five share.
        assert abs(pair.value - rho) <= pair.bound < 3e-3


def test_tables(federation: Simulation, hospitals: dict[str, pd.DataFrame], pooled: pd.DataFrame) -> None:
    result = federation.run(contingency("pain", "disease"))
    expected = stats.chi2_contingency(pd.crosstab(pooled.pain, pooled.disease), correction=False)
    test = result.test("chi-square")
    assert relative([test.statistic, test.p_value], [expected.statistic, expected.pvalue]) < 1e-8
    within = federation.run(contingency("sex", "disease", strata="site")).stratified
    tables = [
        pd.crosstab(part.sex, part.disease).reindex(index=[False, True], columns=[False, True], fill_value=0)
        for part in hospitals.values()
    ]
    oracle = StratifiedTable([table.to_numpy() for table in tables])
    assert within is not None
    assert within.is_rounded  # some hospital has a cell of few patients
    assert within.odds_ratio == float(f"{oracle.oddsratio_pooled:.3g}")


def test_means(federation: Simulation, pooled: pd.DataFrame) -> None:
    result = federation.run(compare_means(NUMBERS, "disease", rank_tests=True))
    for name in NUMBERS:
        first, second = (pooled[name][pooled.disease == level].dropna() for level in (False, True))
        expected = stats.ttest_ind(first, second, equal_var=False)
        found = result.comparison(name)
        assert found.test is not None
        assert found.rank_test is not None
        assert relative([found.test.statistic, found.test.p_value], [expected.statistic, expected.pvalue]) < 1e-8
        ranks = stats.mannwhitneyu(first, second, method="asymptotic").pvalue
        assert found.rank_test.p_low * (1 - 1e-9) <= ranks <= found.rank_test.p_high * (1 + 1e-9)


def test_components_and_clusters(federation: Simulation, pooled: pd.DataFrame) -> None:
    complete = pooled[list(NUMBERS)].dropna()
    standardised = ((complete - complete.mean()) / complete.std()).to_numpy()
    expected = PCA().fit(standardised)
    components = federation.run(pca(NUMBERS))
    assert relative(components.variances, expected.explained_variance_) < 1e-8
    np.testing.assert_allclose(components.components, expected.components_, atol=1e-8)
    first = complete.quantile([0.2, 0.5, 0.8]).to_numpy()
    given = (first - complete.mean().to_numpy()) / complete.std().to_numpy()
    oracle = KMeans(3, init=given, n_init=1, tol=0).fit(standardised)
    result = federation.run(kmeans(3, NUMBERS, initial_centers=tuple(map(tuple, first.tolist()))))
    assert relative(result.inertia, oracle.inertia_) < 1e-8
    assert [c.num_records for c in result.clusters] == np.bincount(oracle.labels_).tolist()
