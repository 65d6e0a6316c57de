"""Federated Cox regression against lifelines' fit of the pooled records, in time, memory and agreement.

The default size is a million records of 20 columns at ten sites, with 1,000 distinct event times, so that nearly all
are tied.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter

from benchmarks.measure import Row, best_seconds, milliseconds
from wardround.analytics.cox import cox
from wardround.analytics.cox_result import CoxResult
from wardround.engines.simulated_hospitals import simulate
from wardround.engines.simulation import Simulation

NUM_SITES, NUM_COLUMNS, NUM_ROWS, NUM_TIMES = 10, 20, 1_000_000, 1_000
AGREEMENT = 1e-6
"""Lifelines ends its iteration there; the tests hold the fit to R's to 1e-8."""
NAMES = [f"x{j}" for j in range(NUM_COLUMNS)]
FORMULA = " + ".join(NAMES)


def rows(scale: float) -> Iterator[Row]:
    """Efron's method; raises `RuntimeError` where federated and pooled do not agree."""
    num_rows = max(int(NUM_ROWS * scale), 100 * NUM_SITES * NUM_COLUMNS)
    frame = _patients(num_rows)
    federation = _federation(frame)
    best = _timed(frame, federation)
    size = f"{num_rows:,} x {NUM_COLUMNS}"
    yield Row(
        name=f"cox, {NUM_SITES} sites, {size}, {NUM_TIMES:,} times",
        measured=milliseconds(best["federated"]),
        against="lifelines, pooled",
        limit=milliseconds(best["pooled"]),
        goal=1.0,
    )
    yield Row(
        name="cox, with concordance, zph and robust errors",
        measured=milliseconds(best["robust"]),
        against="lifelines, pooled",
        limit=milliseconds(best["pooled"]),
        goal=None,
    )
    # Largest sum of what Python and numpy held at a time, beside the records, which lie there before.
    yield Row(
        name="cox, memory beside the records",
        measured=_traced_peak(lambda: _federated(federation)) / 2**20,
        against="lifelines, pooled",
        limit=_traced_peak(lambda: _pooled(frame)) / 2**20,
        goal=1.0,
        unit="MiB",
    )


def _patients(num_rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(11)
    x = rng.normal(size=(num_rows, NUM_COLUMNS))
    hazard = np.exp(x @ np.linspace(-0.2, 0.2, NUM_COLUMNS))
    time = np.ceil(rng.exponential(NUM_TIMES / 2 / hazard))
    stopped = rng.integers(1, NUM_TIMES + 1, num_rows)
    frame = pd.DataFrame(x, columns=NAMES)
    return frame.assign(time=np.minimum(time, stopped).astype(int), dead=(time <= stopped).astype(int))


def _federation(frame: pd.DataFrame) -> Simulation:
    parts = np.array_split(np.arange(len(frame)), NUM_SITES)
    return simulate({f"site {i}": frame.iloc[part] for i, part in enumerate(parts)})


def _federated(federation: Simulation, covariance: str = "model", test: str | None = None) -> CoxResult:
    return federation.run(
        cox(formula=FORMULA, time="time", event="dead", covariance=covariance, proportionality_test=test)  # type: ignore[arg-type]
    )


def _pooled(frame: pd.DataFrame) -> CoxPHFitter:
    return CoxPHFitter().fit(frame, "time", "dead")


def _timed(frame: pd.DataFrame, federation: Simulation) -> dict[str, float]:
    """Seconds of each, and that they agree."""
    fits: dict[str, CoxResult | CoxPHFitter] = {}
    tasks: dict[str, Callable[[], object]] = {
        "federated": lambda: fits.update(federated=_federated(federation)),
        "robust": lambda: fits.update(robust=_federated(federation, "robust", "km")),
        "pooled": lambda: fits.update(pooled=_pooled(frame)),
    }
    best = best_seconds(tasks, repeats=2)
    _check_agreement(fits["federated"], fits["pooled"])
    return best


def _check_agreement(result: CoxResult | CoxPHFitter, pooled: CoxResult | CoxPHFitter) -> None:
    assert isinstance(result, CoxResult)
    assert isinstance(pooled, CoxPHFitter)
    got = np.array([(term.estimate, term.standard_error) for term in result.terms])
    expected = np.column_stack([pooled.params_, pooled.standard_errors_])
    difference = float(np.max(np.abs(got - expected) / np.abs(expected).max(axis=0)))
    if not difference < AGREEMENT:
        raise RuntimeError(f"cox: federated and pooled estimates differ by {difference:.1e}")


def _traced_peak(task: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        task()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
