"""Correlations, components and clusters beside numpy and scikit-learn on the pooled records."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from benchmarks.measure import Row, best_seconds
from wardround.analytics.correlation import correlation
from wardround.analytics.kmeans import kmeans
from wardround.analytics.pca import pca
from wardround.data.contract import Contract, Variable
from wardround.engines.simulated_hospitals import simulate

NUM_SITES = 10
NAMES = tuple(f"x{j}" for j in range(20))


def rows(scale: float) -> Iterator[Row]:
    """Times on 1e6 rows of 20 columns over 10 sites, at scale 1 (k-means: 1e5)."""
    size = max(1000, round(1_000_000 * scale))
    frame = _frame(size)
    contract = Contract(variables=tuple(Variable(name=name, type="number") for name in NAMES))
    federation = simulate({f"site {k}": frame.iloc[k::NUM_SITES] for k in range(NUM_SITES)}, contract=contract)
    values = frame.to_numpy()
    best = best_seconds(
        {
            "correlation": lambda: federation.run(correlation(missing="listwise")),
            "corrcoef": lambda: np.corrcoef(values, rowvar=False),
            "pca": lambda: federation.run(pca()),
            "sklearn": lambda: PCA().fit((values - values.mean(axis=0)) / values.std(axis=0, ddof=1)),
        },
        repeats=2,
    )
    where = f"{NUM_SITES} sites, {size:.0e} x {len(NAMES)}"
    yield _row(f"correlation, {where}", best["correlation"], "numpy.corrcoef, pooled", best["corrcoef"])
    yield _row(f"pca, {where}", best["pca"], "scikit-learn, pooled", best["sklearn"])
    yield from _clusters(frame.iloc[: max(1000, size // 10)], contract)


def _frame(size: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 3, (4, len(NAMES)))
    return pd.DataFrame(centres[rng.integers(0, 4, size)] + rng.normal(size=(size, len(NAMES))), columns=list(NAMES))


def _clusters(frame: pd.DataFrame, contract: Contract) -> Iterator[Row]:
    federation = simulate({f"site {k}": frame.iloc[k::NUM_SITES] for k in range(NUM_SITES)}, contract=contract)
    first = frame.iloc[:4].to_numpy()
    given = tuple(map(tuple, first.tolist()))
    best = best_seconds(
        {
            "kmeans": lambda: federation.run(kmeans(4, scale=False, initial_centers=given)),
            "sklearn": lambda: KMeans(4, init=first, n_init=1, tol=0).fit(frame.to_numpy()),
        },
        repeats=2,
    )
    where = f"{NUM_SITES} sites, {len(frame):.0e} x {len(NAMES)}"
    yield _row(f"kmeans, 4 clusters, {where}", best["kmeans"], "scikit-learn, pooled, same centres", best["sklearn"])


def _row(name: str, seconds: float, against: str, limit: float) -> Row:
    return Row(name=name, measured=1e3 * seconds, against=against, limit=1e3 * limit, goal=None)
