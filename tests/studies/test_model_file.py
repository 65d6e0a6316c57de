"""A study that names a model's file: read from beside the study file, and refused where it is not what it should be."""

import pickle

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from wardround.cli.app import app
from wardround.cli.study_file import read_study
from wardround.errors import ConfigError
from wardround.studies.extensions import installed_vocabulary

STUDY = """
[study]
name = "risk"
question = "Does the score hold here?"
[[analysis]]
workflow = "evaluate"
outcome = "died"
model = {model}
"""
COEFFICIENTS = "intercept = -3.0\n[coefficients]\nage = 0.04\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "risk.toml").write_text(COEFFICIENTS)
    return tmp_path


def read(folder, model):
    path = folder / "study.toml"
    path.write_text(STUDY.format(model=model))
    return read_study(path, installed_vocabulary())


@pytest.mark.parametrize("model", ['"risk.toml"', '{ file = "risk.toml" }', '"./models/risk.toml"'])
def test_the_model_is_read_from_beside_the_study(folder, model):
    (folder / "models").mkdir()
    (folder / "models" / "risk.toml").write_text(COEFFICIENTS)
    (analysis,) = read(folder, model).analyses
    assert analysis.workflow.options["model"].coefficients.tolist() == [-3.0, 0.04]
    assert "risk.toml" in str(analysis.given["model"])


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ('"absent.toml"', r"analysis\[1\]\.model: there is no model file"),
        ('"../risk.toml"', r"without '\.\.'"),
        ('"/etc/passwd"', "inside the study file's folder"),
        ('"link.toml"', "leads out of the study file's folder"),
        ('"pickle.onnx"', "a pickle"),
        ('"risk.pkl"', r"ends in \.toml"),
        ("7", "must be a fit"),
        ('{ file = "risk.toml", features = ["age"] }', "for ONNX"),
        ('{ file = "risk.toml", shape = 3 }', "model"),
        ('"broken.toml"', "not valid TOML"),
    ],
)
def test_a_model_that_is_not_there_or_not_what_it_says_is_refused(folder, model, words, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "risk.toml"
    outside.write_text(COEFFICIENTS)
    (folder / "link.toml").symlink_to(outside)
    (folder / "pickle.onnx").write_bytes(pickle.dumps({"a": 1}))
    (folder / "risk.pkl").write_bytes(b"x")
    (folder / "broken.toml").write_text("[coefficients\n")
    with pytest.raises(ConfigError, match=words) as refused:
        read(folder, model)
    assert "study.toml is refused" in str(refused.value)


def test_an_evaluation_runs_from_the_command_line(folder):
    rng = np.random.default_rng(1)
    tables = folder / "tables"
    tables.mkdir()
    for name in ("north", "south", "east"):
        age = rng.normal(60, 10, 300).round(1)
        died = rng.random(300) < 1 / (1 + np.exp(3 - 0.04 * age))
        pd.DataFrame({"age": age, "died": died.astype(int)}).to_csv(tables / f"{name}.csv", index=False)
    read(folder, '"risk.toml"')
    ran = CliRunner().invoke(app, ["run", str(folder / "study.toml"), "--simulate", str(tables)])
    assert ran.exit_code == 0, ran.output
    assert "AUROC" in ran.stdout
    assert "SHA-256" in ran.stdout
