"""K-means from sums is Lloyd's iteration on the pooled records, and no small cluster is ever summed."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.metrics import calinski_harabasz_score

from tests.analytics.pooled import relative, split
from tests.analytics.statistics_samples import CONTRACT, FEDERATION, POOLED, under
from wardround.analytics.kmeans import counts, kmeans, sums
from wardround.analytics.kmeans_result import KMeansResult
from wardround.analytics.result import FigureExhibit, Result
from wardround.data.contract import Contract, Variable
from wardround.engines.simulated_hospitals import simulate
from wardround.engines.simulation import Simulation
from wardround.errors import ConfigError, DataError, DisclosureError
from wardround.testing import check_workflow

NAMES = ("age", "pressure", "sodium")
COMPLETE = POOLED[list(NAMES)].dropna()
FIRST = ((50.0, 120.0, 138.0), (60.0, 130.0, 141.0), (72.0, 145.0, 140.0))


def fit(**options: Any) -> KMeansResult:
    return FEDERATION.run(kmeans(**{"variables": NAMES, "num_clusters": 3, **options}))


def numbers(frame: pd.DataFrame, num_sites: int = 3) -> Simulation:
    contract = Contract(variables=tuple(Variable(name=name, type="number") for name in frame))
    return simulate(split(frame, num_sites, seed=1), contract=contract)


def oracle(frame: pd.DataFrame, first: np.ndarray, *, scale: bool) -> tuple[KMeans, pd.Series]:
    deviation = frame.std() if scale else frame.std() * 0 + 1.0
    made = KMeans(
        len(first), init=(first - frame.mean().to_numpy()) / deviation.to_numpy(), n_init=1, tol=0, algorithm="lloyd"
    )
    return made.fit(((frame - frame.mean()) / deviation).to_numpy()), deviation


@pytest.mark.parametrize("scale", [True, False])
def test_equals_pooled(scale: bool) -> None:
    result = fit(initial_centers=FIRST, scale=scale)
    expected, deviation = oracle(COMPLETE, np.array(FIRST), scale=scale)
    centres = expected.cluster_centers_ * deviation.to_numpy() + COMPLETE.mean().to_numpy()
    assert relative(result.centers, centres) < 1e-8
    assert relative(result.inertia, expected.inertia_) < 1e-8
    assert [cluster.num_records for cluster in result.clusters] == np.bincount(expected.labels_).tolist()
    standardised = ((COMPLETE - COMPLETE.mean()) / deviation).to_numpy()
    assert relative(result.calinski_harabasz, calinski_harabasz_score(standardised, expected.labels_)) < 1e-8
    assert result.assign(COMPLETE).astype(int).tolist() == (expected.labels_ + 1).tolist()


def test_the_silhouette_is_that_of_the_distances() -> None:
    result = fit(initial_centers=FIRST)
    units = COMPLETE.std().to_numpy()
    distances = np.sort(
        np.stack([(((COMPLETE.to_numpy() - c) / units) ** 2).sum(axis=1) ** 0.5 for c in result.centers], axis=1)
    )
    assert result.silhouette == pytest.approx((1 - distances[:, 0] / distances[:, 1]).mean(), rel=1e-8)


def test_drawn_starts_find_what_many_pooled_starts_find() -> None:
    frame = pd.DataFrame(load_iris().data, columns=["a", "b", "c", "d"])
    result = numbers(frame).run(kmeans(num_clusters=3, scale=False, num_restarts=8))
    best = KMeans(3, n_init=50, random_state=0, tol=0).fit(frame.to_numpy())
    assert relative(result.inertia, best.inertia_) < 1e-8
    assert result.starts_alike >= 2
    sizes = [cluster.num_records for cluster in result.clusters]
    assert sizes == sorted(np.bincount(best.labels_).tolist(), reverse=True)


def test_the_seed_decides() -> None:
    one, same, other = fit(seed=1), fit(seed=1), fit(seed=2)
    np.testing.assert_array_equal(one.centers, same.centers)
    assert one.to_json() == same.to_json()
    assert other.inertia == pytest.approx(one.inertia, rel=0.05)


def _rounds(federation: Simulation, workflow: Any) -> tuple[list[Any], Any]:
    """What was asked and answered, and the result or the error."""
    rounds: list[Any] = []
    watched = Simulation(federation.data, federation.setting, progress=lambda progress: rounds.append(progress.round))
    try:
        return rounds, watched.run(workflow)
    except DisclosureError as error:
        return rounds, error


def _with_outliers(distance: float) -> Simulation:
    frame = pd.DataFrame(np.random.default_rng(4).normal(size=(60, 2)), columns=["a", "b"])
    frame.iloc[:2] += distance  # which the pooled algorithm makes a cluster of
    return numbers(frame)


@pytest.mark.parametrize("distance", [3.0, 6.0, 40.0])
def test_small_clusters_are_never_summed(distance: float) -> None:
    first = ((0.0, 0.0), (1.0, 1.0), (distance, distance))
    rounds, result = _rounds(_with_outliers(distance), kmeans(num_clusters=3, scale=False, initial_centers=first))
    small, summed = set(), set()
    for round_ in rounds:
        positions = round_.ask.arguments.get("positions", ())
        if round_.ask.function is counts:
            is_small = (round_.total.sum.num_records < 5).any(axis=1)
            small |= {p.tobytes() for p, flag in zip(positions, is_small, strict=True) if flag}
        elif round_.ask.function is sums:
            summed |= {p.tobytes() for p in positions}
    assert small  # it did come to that
    assert summed
    assert not summed & small
    if isinstance(result, KMeansResult):
        assert result.is_redrawn
        assert any("drawn anew" in note for note in result.notes)
        assert all(cluster.num_records is not None and cluster.num_records >= 5 for cluster in result.clusters)


def test_empty_clusters_are_drawn_anew() -> None:
    first = ((50.0, 120.0, 138.0), (60.0, 130.0, 141.0), (900.0, 145.0, 140.0))
    result = fit(initial_centers=first)
    assert result.is_redrawn
    assert result.inertia == pytest.approx(fit().inertia, rel=0.05)


def test_where_no_start_ends_well_it_is_refused() -> None:
    frame = pd.DataFrame({"a": [0.0] * 40 + [1.0] * 3 + [2.0] * 3})
    with pytest.raises(DisclosureError, match="fewer clusters"):
        numbers(frame).run(kmeans(num_clusters=3))
    shown = under(numbers(frame), minimum_cell=1).run(kmeans(num_clusters=3))
    assert shown.inertia == pytest.approx(0, abs=1e-12)
    assert shown.calinski_harabasz is None or shown.calinski_harabasz > 1e6


def test_more_clusters_than_records_allow() -> None:
    frame = pd.DataFrame({"a": np.arange(12.0)})
    with pytest.raises(DisclosureError, match="minimum_cell"):
        numbers(frame).run(kmeans(num_clusters=3))
    with pytest.raises(DataError, match="fewer complete records than 13"):
        under(numbers(frame), minimum_cell=1).run(kmeans(num_clusters=13))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_clusters": 1}, "num_clusters: must be in"),
        ({"num_restarts": 0}, "num_restarts"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"seed": -1}, "seed"),
        ({"initial_centers": ((1.0, 2.0), (3.0,))}, "each centre a number"),
        ({"initial_centers": ((1.0, 2.0, 3.0),)}, "must hold 3 centres"),
        ({"initial_centers": ((1.0, 2.0, float("nan")),) * 3}, "finite"),
        ({"variables": ("ward",)}, "is a category"),
        ({"variables": ()}, "from 1 to"),
        ({"num_clusters": "three"}, "num_clusters"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_asked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        fit(**options)


def test_constants_are_named() -> None:
    frame = pd.DataFrame({"a": np.arange(30.0), "b": np.full(30, 2.0)})
    with pytest.raises(DataError, match="b: all values are equal"):
        numbers(frame).run(kmeans(num_clusters=2))


def test_too_few_steps_are_said() -> None:
    result = fit(initial_centers=FIRST, max_iterations=2)
    assert not result.is_settled
    assert any("still moved" in note for note in result.notes)


@settings(max_examples=15)
@given(st.integers(40, 80), st.integers(1, 3), st.integers(2, 3), st.integers(0, 10**6))
def test_any_split_of_any_records(num_records: int, num_columns: int, num_clusters: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=(num_records, num_columns)) + 5 * rng.integers(0, num_clusters, (num_records, 1))) * 1e4
    frame = pd.DataFrame(values, columns=[f"x{j}" for j in range(num_columns)])
    first = np.array([np.quantile(values, (j + 0.5) / num_clusters, axis=0) for j in range(num_clusters)])
    expected, deviation = oracle(frame, first, scale=True)
    workflow = kmeans(num_clusters=num_clusters, initial_centers=tuple(map(tuple, first.tolist())))
    result = under(numbers(frame), minimum_cell=1).run(workflow)
    if not result.is_redrawn:
        centres = expected.cluster_centers_ * deviation.to_numpy() + frame.mean().to_numpy()
        np.testing.assert_allclose(result.centers, centres, rtol=1e-8, atol=1e-6)
        assert relative(result.inertia, expected.inertia_) < 1e-8


def test_the_workflow_keeps_to_the_contract_of_workflows() -> None:
    result = check_workflow(
        kmeans(num_clusters=2, variables=NAMES, num_restarts=2, max_iterations=8), FEDERATION.data, FEDERATION.setting
    )
    assert isinstance(result, Result)


def test_it_prints_draws_and_exports() -> None:
    result = fit()
    assert "cluster 1" in result.summary()
    assert list(result.to_frame().columns) == ["num_records", "inertia", "silhouette", *NAMES]
    assert len(result.to_dict()["clusters"]) == 3
    assert result.plot().axes
    assert "Lloyd 1982" in result.methods()
    assert any(isinstance(exhibit, FigureExhibit) and exhibit.description for exhibit in result.exhibits())
    assert result.assign(POOLED).isna().sum() == len(POOLED) - len(COMPLETE)
    assert CONTRACT.variable("age").unit == result.units[0]
