"""A folder of hospitals and a study for the command line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from wardround.cli.app import app

STUDY = """
[study]
name = "length-of-stay"
question = "Which patients stay longer than a week?"
[[analysis]]
workflow = "glm"
formula = "long_stay ~ C(procedure) + C(sex) + age"
family = "binomial"
"""


def hospital(num_records, seed):
    rng = np.random.default_rng(seed)
    age = rng.integers(20, 90, num_records)
    return pd.DataFrame(
        {
            "age": age,
            "sex": rng.choice(["f", "m"], num_records),
            "procedure": rng.choice(["hip", "knee", "spine"], num_records),
            "long_stay": (rng.random(num_records) < 1 / (1 + np.exp((55 - age) / 15))).astype(int),
        }
    )


@pytest.fixture
def hospitals():
    """Three tables, one of a site whose name is no ASCII and one whose name is a formula to TeX."""
    return {"$North$": hospital(120, 1), "Süd·Zürich": hospital(150, 2), "West": hospital(90, 3)}


@pytest.fixture
def folder(tmp_path, hospitals) -> Path:
    path = tmp_path / "hospitals"
    path.mkdir()
    for name, table in hospitals.items():
        table.to_csv(path / f"{name}.csv", index=False)
    return path


@pytest.fixture
def study_file(tmp_path):
    """Write a study file and return its path."""

    def write(text=STUDY, name="study.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def run():
    """Run the program in this process."""

    def invoke(*args):
        return CliRunner().invoke(app, [str(arg) for arg in args])

    return invoke
