"""Federated survival curves against lifelines' fit of the pooled records, in time, memory and agreement."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from lifelines import KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test

from benchmarks.measure import Row, best_seconds, milliseconds
from wardround.analytics.kaplan_meier import kaplan_meier
from wardround.analytics.kaplan_meier_result import KaplanMeierResult
from wardround.engines.simulated_hospitals import simulate
from wardround.engines.simulation import Simulation

NUM_SITES, NUM_GROUPS, NUM_ROWS, NUM_TIMES = 10, 2, 1_000_000, 1_000
AGREEMENT = 1e-8


def rows(scale: float) -> Iterator[Row]:
    """Two curves with a log-rank test; raises `RuntimeError` where federated and pooled do not agree."""
    frame = _patients(max(int(NUM_ROWS * scale), 1000 * NUM_SITES))
    parts = np.array_split(np.arange(len(frame)), NUM_SITES)
    federation = simulate({f"site {i}": frame.iloc[part] for i, part in enumerate(parts)}, disclosure="none")
    _check_agreement(_federated(federation), *_pooled(frame))
    size = f"{len(frame):,} x {NUM_TIMES:,} times"
    best = best_seconds({"federated": lambda: _federated(federation), "pooled": lambda: _pooled(frame)}, repeats=2)
    yield Row(
        name=f"kaplan_meier, {NUM_SITES} sites, {size}",
        measured=milliseconds(best["federated"]),
        against="lifelines, pooled",
        limit=milliseconds(best["pooled"]),
        goal=1.0,
    )
    yield Row(
        name="kaplan_meier, memory beside the records",
        measured=_traced_peak(lambda: _federated(federation)) / 2**20,
        against="lifelines, pooled",
        limit=_traced_peak(lambda: _pooled(frame)) / 2**20,
        goal=1.0,
        unit="MiB",
    )


def _patients(num_rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    arm = rng.integers(0, NUM_GROUPS, num_rows)
    died, censored = rng.exponential(400 + 100 * arm), rng.exponential(600, num_rows)
    time = np.clip(np.ceil(np.minimum(died, censored)), 1, NUM_TIMES).astype(int)
    return pd.DataFrame({"time": time, "event": (died <= censored).astype(int), "arm": arm})


def _federated(federation: Simulation) -> KaplanMeierResult:
    return federation.run(kaplan_meier(time="time", event="event", by="arm"))


def _pooled(frame: pd.DataFrame) -> tuple[list[Any], Any]:
    parts = [frame[frame.arm == group] for group in range(NUM_GROUPS)]
    curves = [KaplanMeierFitter().fit(part.time, part.event) for part in parts]
    return curves, multivariate_logrank_test(frame.time, frame.arm, frame.event)


def _check_agreement(result: KaplanMeierResult, curves: list[Any], test: Any) -> None:
    pairs = [
        (curve.survival, fitted.survival_function_at_times(curve.times).to_numpy())
        for curve, fitted in zip(result.curves, curves, strict=True)
    ]
    assert result.test is not None
    pairs.append((np.array([result.test.statistic]), np.array([test.test_statistic])))
    difference = max(float(np.max(np.abs(got - expected) / np.abs(expected))) for got, expected in pairs)
    if not difference < AGREEMENT:
        raise RuntimeError(f"federated and pooled curves differ by {difference:.1e}")


def _traced_peak(task: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        task()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
