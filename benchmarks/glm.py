"""Federated regression against statsmodels' fit of the pooled records, in time, memory and agreement.

An iteration is also held against one pass of `X'WX` over the pooled design, which no fit can do without.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm

from benchmarks.measure import Row, best_seconds, milliseconds
from wardround.analytics.design import Column, Design, Frame, Numeric
from wardround.analytics.glm import glm
from wardround.analytics.glm_result import GLMResult
from wardround.analytics.glm_sums import Model, terms
from wardround.engines.simulated_hospitals import simulate
from wardround.engines.simulation import Simulation

NUM_SITES, NUM_COLUMNS, NUM_ROWS = 10, 20, 1_000_000
AGREEMENT = 1e-8
FAMILIES = {"binomial": sm.families.Binomial, "gaussian": sm.families.Gaussian}
NAMES = [f"x{j}" for j in range(NUM_COLUMNS)]
FORMULA = f"y ~ {' + '.join(NAMES)}"


def rows(scale: float) -> Iterator[Row]:
    """Logistic and linear regression; raises `RuntimeError` where federated and pooled do not agree."""
    num_rows = max(int(NUM_ROWS * scale), 20 * NUM_SITES * NUM_COLUMNS)
    for family in FAMILIES:
        frame = _patients(family, num_rows)
        federation = _federation(frame)
        _check_agreement(_federated(federation, family), _pooled(frame, family), family)
        yield from _time_rows(frame, federation, family)
        yield _memory_row(frame, federation, family)


def _patients(family: str, num_rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(num_rows, NUM_COLUMNS))
    eta = x @ np.linspace(-0.3, 0.3, NUM_COLUMNS)
    y = (rng.random(num_rows) < 1 / (1 + np.exp(-eta))) if family == "binomial" else eta + rng.normal(size=num_rows)
    return pd.DataFrame(x, columns=NAMES).assign(y=y.astype(float))


def _federation(frame: pd.DataFrame) -> Simulation:
    parts = np.array_split(np.arange(len(frame)), NUM_SITES)
    return simulate({f"site {i}": frame.iloc[part] for i, part in enumerate(parts)})


def _federated(federation: Simulation, family: Any) -> GLMResult:
    return federation.run(glm(formula=FORMULA, family=family))


def _pooled(frame: pd.DataFrame, family: str) -> Any:
    # As a user would: the formula's design is made by hand, which is the faster way.
    x = sm.add_constant(frame[NAMES].to_numpy())
    return sm.GLM(frame["y"].to_numpy(), x, family=FAMILIES[family]()).fit(tol=1e-12)


def _check_agreement(result: GLMResult, pooled: Any, family: str) -> None:
    got = np.array([(c.estimate, c.standard_error) for c in result.terms])
    expected = np.column_stack([pooled.params, pooled.bse])
    difference = float(np.max(np.abs(got - expected) / np.abs(expected).max(axis=0)))
    if not difference < AGREEMENT:
        raise RuntimeError(f"{family}: federated and pooled estimates differ by {difference:.1e}")


def _time_rows(frame: pd.DataFrame, federation: Simulation, family: Any) -> Iterator[Row]:
    size = f"{len(frame):,} x {NUM_COLUMNS}"
    model = Model(family=family, link="logit" if family == "binomial" else "identity")
    columns = (Column(name="Intercept", features=()), *_numeric_columns())
    design = Design(columns=columns, center=np.zeros(len(columns)), scale=np.ones(len(columns)))
    outcome = Frame(outcome=Numeric(expression="y"), required=("y", *NAMES))
    zeros = np.zeros(len(columns))
    x, weights = sm.add_constant(frame[NAMES].to_numpy()), np.full(len(frame), 0.25)
    best = best_seconds(
        {
            "federated": lambda: _federated(federation, family),
            "pooled": lambda: _pooled(frame, family),
            "iteration": lambda: [terms(table, design, outcome, model, zeros) for table in federation.data.values()],
            "pass": lambda: x.T @ (weights[:, None] * x),
        },
        repeats=2,
    )
    yield Row(
        name=f"glm, {family}, {NUM_SITES} sites, {size}",
        measured=milliseconds(best["federated"]),
        against="statsmodels, pooled",
        limit=milliseconds(best["pooled"]),
        goal=1.0,
    )
    yield Row(
        name=f"glm, {family}, one iteration",
        measured=milliseconds(best["iteration"]),
        against="one pass of X'WX",
        limit=milliseconds(best["pass"]),
        goal=None,
    )


def _numeric_columns() -> tuple[Column, ...]:
    return tuple(Column(name=name, features=(Numeric(expression=name),)) for name in NAMES)


def _memory_row(frame: pd.DataFrame, federation: Simulation, family: str) -> Row:
    """Largest sum of what Python and numpy held at a time, beside the records, which lie there before."""
    return Row(
        name=f"glm, {family}, memory beside the records",
        measured=_traced_peak(lambda: _federated(federation, family)) / 2**20,
        against="statsmodels, pooled",
        limit=_traced_peak(lambda: _pooled(frame, family)) / 2**20,
        goal=1.0,
        unit="MiB",
    )


def _traced_peak(task: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        task()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
