"""A model that one analysis fits and a later one of the same study evaluates."""

import numpy as np
import pandas as pd
import pytest

from wardround.analytics.evaluation import Evaluation
from wardround.analytics.scoring_read import model_of_fit
from wardround.cli.carry_out import carry_out
from wardround.engines.simulated_hospitals import simulate
from wardround.errors import ConfigError
from wardround.studies.extensions import installed_vocabulary
from wardround.studies.preflight import preflight
from wardround.studies.study import parse_study

STUDY = """
[study]
name = "Length of stay"
question = "Who stays longer?"
[[analysis]]
workflow = "glm"
formula = "died ~ {predictor}"
family = "binomial"
[[analysis]]
workflow = "evaluate"
model = {{ analysis = {number} }}
outcome = "{outcome}"
"""


def hospital(num_patients, seed):
    rng = np.random.default_rng(seed)
    age = rng.normal(60, 10, num_patients).round()
    return pd.DataFrame({"age": age, "died": rng.random(num_patients) < 1 / (1 + np.exp(6 - age / 10))})


HOSPITALS = {"North": hospital(200, 1), "South": hospital(150, 2)}


def study(*, predictor="age", number=1, outcome="died"):
    return parse_study(STUDY.format(predictor=predictor, number=number, outcome=outcome), installed_vocabulary())


def test_the_fit_is_evaluated_and_called_apparent():
    simulation, given = simulate(HOSPITALS), study()
    preflight(given.analyses, simulation.setting)
    fitted, evaluated = carry_out(given, simulation).analyses
    assert isinstance(evaluated.result, Evaluation)
    assert evaluated.result.model_digest == model_of_fit(fitted.result).digest
    # Of the records that it was fitted to, a logistic regression is calibrated.
    assert evaluated.result.overall.calibration_slope.value == pytest.approx(1, abs=1e-6)
    assert any(note.startswith("Apparent performance") for note in evaluated.result.notes)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (2, r"analysis\[2\].model: analysis 2 is not before this one"),
        (3, r"analysis\[2\].model: analysis 3 is not before this one"),
    ],
)
def test_a_model_must_come_before_its_evaluation(number, message):
    with pytest.raises(ConfigError, match=message):
        preflight(study(number=number).analyses, simulate(HOSPITALS).setting)


def test_analyses_are_numbered_from_1():
    with pytest.raises(ConfigError, match="analyses are numbered from 1, got analysis = 0"):
        study(number=0)


def test_an_analysis_that_fits_no_model_is_refused():
    text = STUDY.format(predictor="age", number=1, outcome="died").replace("glm", "describe", 1)
    text = text.replace('formula = "died ~ age"\nfamily = "binomial"\n', "")
    with pytest.raises(ConfigError, match="analysis 1 is describe, which fits no model; name a glm"):
        preflight(parse_study(text, installed_vocabulary()).analyses, simulate(HOSPITALS).setting)


def test_other_options_are_checked_before_there_is_a_model():
    with pytest.raises(ConfigError, match="no variable 'dead'"):
        preflight(study(outcome="dead").analyses, simulate(HOSPITALS).setting)


def test_without_a_fit_there_is_nothing_to_evaluate():
    same = {name: table.assign(twin=table["age"]) for name, table in HOSPITALS.items()}
    _, evaluated = carry_out(study(predictor="age + twin"), simulate(same)).analyses
    assert evaluated.failure == "analysis 1 has no result, and so no model to evaluate"
