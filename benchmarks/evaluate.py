"""A model evaluated at ten sites against scikit-learn's metrics of the pooled records, in time and agreement.

The pooled side computes what the federated one gives: scores, AUROC, average precision, Brier score, log loss,
the calibration curve, and intercept and slope of a recalibration.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy import special
from sklearn import metrics
from sklearn.calibration import calibration_curve

from benchmarks.measure import Row, best_seconds, milliseconds
from wardround.analytics.evaluate import evaluate
from wardround.analytics.evaluation import Evaluation
from wardround.analytics.scoring_model import LinearModel
from wardround.analytics.scoring_read import linear_model
from wardround.engines.simulated_hospitals import simulate
from wardround.engines.simulation import Simulation

NUM_SITES, NUM_COLUMNS, NUM_ROWS = 10, 20, 1_000_000
NAMES = [f"x{j}" for j in range(NUM_COLUMNS)]
COEFFICIENTS = np.linspace(-0.3, 0.3, NUM_COLUMNS)
INTERCEPT = -1.5
AGREEMENT = 1e-8


def rows(scale: float) -> Iterator[Row]:
    """Time of an evaluation and the farthest that its AUROC may be off; raises `RuntimeError` where it is off more."""
    frame = _patients(max(int(NUM_ROWS * scale), 2_000 * NUM_SITES))
    federation, model = (
        _federation(frame),
        linear_model(dict(zip(NAMES, COEFFICIENTS, strict=True)), intercept=INTERCEPT),
    )
    pooled, result = _pooled(frame), _federated(federation, model)
    _check_agreement(result, pooled)
    best = best_seconds(
        {"federated": lambda: _federated(federation, model), "pooled": lambda: _pooled(frame)}, repeats=2
    )
    size = f"{len(frame):,} x {NUM_COLUMNS}"
    yield Row(
        name=f"evaluate, {NUM_SITES} sites, {size}",
        measured=milliseconds(best["federated"]),
        against="scikit-learn and statsmodels, pooled",
        limit=milliseconds(best["pooled"]),
        goal=1.0,
    )
    yield Row(
        name="evaluate, AUROC: stated bound",
        measured=result.overall.auroc.bound or 0.0,
        against="bound that is good enough",
        limit=1e-3,
        goal=1.0,
        unit="AUROC",
    )


def _patients(num_rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(num_rows, NUM_COLUMNS))
    y = rng.random(num_rows) < special.expit(0.2 + 0.8 * (INTERCEPT + x @ COEFFICIENTS))
    return pd.DataFrame(x, columns=NAMES).assign(y=y.astype(float))


def _federation(frame: pd.DataFrame) -> Simulation:
    parts = np.array_split(np.arange(len(frame)), NUM_SITES)
    return simulate({f"site {i}": frame.iloc[part] for i, part in enumerate(parts)})


def _federated(federation: Simulation, model: LinearModel) -> Evaluation:
    return federation.run(evaluate(model=model, outcome="y"))


def _pooled(frame: pd.DataFrame) -> dict[str, float]:
    p, y = special.expit(INTERCEPT + frame[NAMES].to_numpy() @ COEFFICIENTS), frame["y"].to_numpy()
    calibration_curve(y, p, n_bins=10, strategy="quantile")
    line = sm.GLM(y, sm.add_constant(special.logit(p)), family=sm.families.Binomial()).fit(tol=1e-12)
    return {
        "auroc": float(metrics.roc_auc_score(y, p)),
        "average_precision": float(metrics.average_precision_score(y, p)),
        "brier": float(metrics.brier_score_loss(y, p)),
        "log_loss": float(metrics.log_loss(y, p)),
        "calibration_intercept": float(line.params[0]),
        "calibration_slope": float(line.params[1]),
    }


def _check_agreement(result: Evaluation, pooled: dict[str, float]) -> None:
    for name, expected in pooled.items():
        found = getattr(result.overall, name)
        allowed = getattr(found, "bound", None) or AGREEMENT * max(abs(expected), 1.0)
        if not abs(found.value - expected) <= allowed:
            raise RuntimeError(
                f"{name}: federated {found.value!r} and pooled {expected!r} differ by over {allowed:.1e}"
            )
