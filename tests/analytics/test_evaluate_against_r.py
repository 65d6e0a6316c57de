"""The evaluation of a model against R: pROC and rms, on records that R made and stored."""

import json
from pathlib import Path

import pandas as pd
import pytest

from wardround.analytics.evaluate import evaluate
from wardround.analytics.scoring_read import linear_model
from wardround.engines.simulated_hospitals import simulate

R = json.loads((Path(__file__).parents[1] / "references" / "evaluate.json").read_text())
RECORDS = pd.DataFrame(R["records"])


@pytest.fixture(scope="module")
def result():
    sites = {f"site {site}": rows.drop(columns="site") for site, rows in RECORDS.groupby("site")}
    federation = simulate(sites, disclosure="none")
    model = linear_model({"age": 0.07, "sex[M]": 0.4}, intercept=-5)
    return federation.run(evaluate(model=model, outcome="died", by="sex", thresholds=tuple(R["thresholds"])))


def test_auroc_and_delongs_variance_are_procs(result):
    area = result.overall.auroc
    assert area.bound < 1e-11  # whole years: every bin holds one score
    assert area.value == pytest.approx(R["auc"], rel=1e-10)
    assert area.standard_error**2 == pytest.approx(R["variance"], rel=1e-8)
    female, male = (group.performance.auroc for group in result.groups)
    assert (female.value, male.value) == pytest.approx((R["auc_female"], R["auc_male"]), rel=1e-10)
    difference = next(d for d in result.differences if d.figure == "auroc").difference
    assert difference.value / difference.standard_error == pytest.approx(R["difference_statistic"], rel=1e-8)


def test_calibration_is_that_of_rms(result):
    overall = result.overall
    assert overall.brier.value == pytest.approx(R["brier"], rel=1e-10)
    assert overall.calibration_intercept.value == pytest.approx(R["intercept"], rel=1e-6)
    assert overall.calibration_slope.value == pytest.approx(R["slope"], rel=1e-6)
    assert overall.calibration_p == pytest.approx(R["u_p"], rel=1e-5)
    assert overall.spiegelhalter_z == pytest.approx(R["spiegelhalter_z"], rel=1e-8)
    assert overall.spiegelhalter_p == pytest.approx(R["spiegelhalter_p"], rel=1e-8)
    assert overall.calibration_in_the_large.value == pytest.approx(R["in_the_large"], rel=1e-8)
    assert overall.calibration_in_the_large.standard_error == pytest.approx(R["in_the_large_error"], rel=1e-8)


def test_figures_at_thresholds_are_procs(result):
    assert result.chosen == (0.3, 0.5)
    found = {at.threshold: at for at in result.thresholds}
    for threshold, expected in zip(R["thresholds"], R["at"], strict=True):
        at = found[threshold]
        assert at.sensitivity.value == pytest.approx(expected["sensitivity"], rel=1e-10)
        assert at.specificity.value == pytest.approx(expected["specificity"], rel=1e-10)
        assert at.positive_predictive_value.value == pytest.approx(expected["ppv"], rel=1e-10)
        assert at.negative_predictive_value.value == pytest.approx(expected["npv"], rel=1e-10)
