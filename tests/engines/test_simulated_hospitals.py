"""Simulated hospitals from frames, files and folders; real data, and what is refused before any work."""

import subprocess
import sys
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from wardround.data.contract import Contract, Setting, Variable
from wardround.data.contract_text import contract_text
from wardround.data.sources.sql import sql_source
from wardround.data.table import Table
from wardround.engines.simulated_hospitals import check_tables, infer, simulate, simulate_folder
from wardround.errors import ConfigError, ContractError, DataError
from wardround.sums import Contribution, Steps, ask, exact, people, site_function, workflow

HEART = "age sex cp trestbps chol fbs restecg thalach exang oldpeak slope ca thal num".split()  # noqa: SIM905
HOSPITALS = {"cleveland": 303, "hungarian": 294, "switzerland": 123, "va": 200}


class Sums(Contribution):
    num_rows: int = people()
    num_values: int = people()
    total: float = exact()


@site_function("test.sums_of", version=1)
def sums_of(data: Table, column: str) -> Sums:
    values = data.numbers(column)
    present = ~np.isnan(values)
    return Sums(num_rows=data.num_records, num_values=int(present.sum()), total=float(values[present].sum()))


@workflow("sums", version=1)
def sums(setting: Setting, column: str) -> Steps[Any]:
    total = yield from ask(sums_of, column)
    return total.sum


def found(made, column):
    total = made.run(sums(column))
    return total.num_rows, total.num_values, total.total


@pytest.fixture
def heart(shared_data):
    return {
        site: pd.read_csv(
            shared_data / "heart_uci4" / f"processed.{site}.data", header=None, names=HEART, na_values="?"
        )
        for site in HOSPITALS
    }


def test_real_hospitals_from_frames_and_files_alike(heart, shared_data, tmp_path):
    pooled = pd.concat(heart.values())
    for site, frame in heart.items():
        frame.to_csv(tmp_path / f"{site}.csv", index=False, na_rep="?")
    contract = tmp_path / "contract.toml"
    contract.write_text(contract_text(infer(heart).contract))
    as_files = {site: tmp_path / f"{site}.csv" for site in HOSPITALS}
    inference = infer(as_files)
    assert inference.contract.variable("chol").missing == ("?",)
    (tmp_path / "of_files.toml").write_text(contract_text(inference.contract, inference.notes))
    for made in (
        simulate(heart),
        simulate(as_files),
        simulate_folder(tmp_path),
        simulate_folder(str(tmp_path), contract=tmp_path / "of_files.toml"),
        simulate(heart, contract=contract),
    ):
        assert made.sites == tuple(HOSPITALS)
        for column in ("chol", "age", "oldpeak"):
            num_rows, num_values, total = found(made, column)
            assert (num_rows, num_values) == (920, pooled[column].count())
            assert total == pytest.approx(pooled[column].sum(), rel=1e-12)


def test_the_186_hospitals_of_eicu(shared_data):
    stays = pd.read_parquet(shared_data / "eicu_demo" / "patient.parquet")
    tables = {str(site): frame for site, frame in stays.groupby("hospitalid")}
    made = simulate(tables, patient="uniquepid")
    assert len(made.sites) == 186
    assert found(made, "admissionweight")[2] == pytest.approx(stays["admissionweight"].sum(), rel=1e-12)
    assert found(made, "unitvisitnumber")[0] == len(stays) == 2520
    with pytest.raises(ConfigError, match="'age'; it was left out: the sites disagree"):
        made.setting.contract.variable("age")


@pytest.mark.slow
def test_physionet_in_bounded_memory(shared_data):
    folder = shared_data / "physionet2019_sepsis"
    made = simulate({site: folder / f"{site}.parquet" for site in ("setA", "setB")})
    frames = [pd.read_parquet(folder / f"{site}.parquet") for site in made.sites]
    num_rows, _, total = found(made, "HR")
    assert num_rows == sum(map(len, frames))
    assert total == pytest.approx(sum(float(frame["HR"].astype(float).sum()) for frame in frames), rel=1e-12)
    assert found(made, "EtCO2")[1] == sum(int(frame["EtCO2"].count()) for frame in frames)


NORTH = pd.DataFrame({"age": [50, 60, 70, 80, 90, 40], "sex": ["M", "F"] * 3, "pid": [1, 1, 2, 3, 4, 5]})
SOUTH = pd.DataFrame({"age": [55.0, None], "sex": ["F", "F"], "pid": [1, 2]})


def test_all_sites_are_checked_first():
    contract = Contract(
        variables=(
            Variable(name="age", type="integer", range=(0, 65)),
            Variable(name="sex", type="category", levels=("F",)),
        )
    )
    with pytest.raises(ContractError) as caught:
        simulate({"North": NORTH, "South": SOUTH.drop(columns="age"), "East": SOUTH}, contract=contract)
    assert [report.site for report in caught.value.reports] == ["North", "South"]
    assert "site 'North' (6 rows) does not fit the contract:\n  'age': out of range in 1 to 4 rows" in str(caught.value)
    assert "site 'South' (1 to 4 rows) does not fit the contract:\n  'age': missing column" in str(caught.value)
    reports = check_tables({"North": NORTH, "East": SOUTH}, contract)
    assert [report.fits for report in reports.values()] == [False, True]
    made = simulate({"North": NORTH, "East": SOUTH}, contract=contract, violations="missing")
    assert found(made, "age") == (8, 4, 205.0)


def test_patients_and_cohort():
    made = simulate({"North": NORTH, "South": SOUTH}, patient="pid", cohort="sex = 'F' AND age > 54")
    assert made.setting.contract.patient == "pid"
    assert found(made, "age") == (3, 3, 195.0)
    with pytest.raises(ConfigError, match="did you mean 'age'"):
        simulate({"North": NORTH}, cohort="agee > 1")
    with pytest.raises(ConfigError, match="no column 'mrn' at site 'North'"):
        simulate({"North": NORTH}, patient="mrn")
    contract = infer({"North": NORTH}, patient="pid").contract
    with pytest.raises(ConfigError, match="the contract's patient column is 'pid'"):
        simulate({"North": NORTH}, contract=contract, patient="age")


def test_a_source_of_ones_own():
    made = simulate({"North": sql_source("SELECT age FROM records WHERE age > 55", "North", records=NORTH)})
    assert found(made, "age") == (4, 4, 300.0)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({}, "give at least one table"),
        ({"": NORTH}, "must not be empty"),
        ({"a\nb": NORTH}, "control characters"),
        ({"a\u202eb": NORTH}, "control characters"),
        ({"x" * 300: NORTH}, "at most 256 characters"),
        ({"Z\u00fcrich": NORTH, "Zu\u0308rich": NORTH}, "two sites are named 'Zürich'"),
        ({"North": "absent.csv"}, "there is no file absent.csv"),
    ],
)
def test_names_and_paths_that_are_refused(tables, said):
    with pytest.raises(ConfigError) as caught:
        simulate(tables)
    assert said in str(caught.value)


def test_arguments_of_the_wrong_type():
    with pytest.raises(TypeError, match="a site's name must be a string"):
        simulate({1: NORTH})
    with pytest.raises(TypeError, match="a table must be a DataFrame, a path or a source, got list"):
        simulate({"North": [1]})
    with pytest.raises(TypeError, match="contract must be"):
        simulate({"North": NORTH}, contract=3)
    with pytest.raises(ConfigError, match="no such contract file"):
        simulate({"North": NORTH}, contract="absent.toml")


def test_empty_one_row_constant_and_all_missing():
    full = NORTH.assign(constant=1, nothing=None)
    made = simulate({"Full": full, "Empty": full.iloc[:0], "One": full.iloc[:1]})
    assert found(made, "age") == (7, 7, 440.0)
    assert found(made, "constant") == (7, 7, 7.0)
    assert found(made, "nothing") == (7, 0, 0.0)
    assert made.setting.contract.variable("sex").levels == ("F", "M")


class Warehouse:
    """A source of 1e7 rows x 1e4 columns that nobody could read."""

    def names(self):
        return tuple(f"x{i}" for i in range(10_000))

    def num_records(self):
        return 10_000_000

    def chunks(self, columns=None):
        raise AssertionError("was read")


def test_too_many_cells_are_refused_before_reading():
    with pytest.raises(DataError, match="write a contract that lists the columns that the study needs"):
        simulate({"North": Warehouse()})
    contract = Contract(variables=tuple(Variable(name=name, type="number") for name in Warehouse().names()))
    with pytest.raises(DataError, match="list in the contract only the columns that the study needs"):
        simulate({"North": Warehouse()}, contract=contract)


_LARGE = """
import resource, sys, time
from wardround.data.contract import Contract, Variable
from wardround.engines.simulated_hospitals import simulate
path = sys.argv[1]
number = lambda name: Variable(name=name, type="number", range=(0, 1))
sex = Variable(name="s", type="category", levels=("F", "M"))
contract = Contract(variables=(*map(number, ("x0", "x1", "x2")), sex), patient="pid")
begin = time.perf_counter()
made = simulate({"North": path}, contract=contract)
print(time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_ten_million_rows(tmp_path, kind, record_property):
    path = tmp_path / f"large.{kind}"
    options = "FORMAT parquet" if kind == "parquet" else "FORMAT csv, HEADER"
    with duckdb.connect() as connection:
        connection.execute("SET memory_limit = '2GB'")
        connection.execute(
            f"COPY (SELECT i // 3 AS pid, {', '.join(f'random() AS x{i}' for i in range(5))}, "
            "CASE WHEN random() < 0.5 THEN 'F' ELSE 'M' END AS s FROM range(10000000) t(i)) "
            f"TO '{path}' ({options})"
        )
    done = subprocess.run([sys.executable, "-c", _LARGE, str(path)], capture_output=True, text=True, check=True)
    seconds, mebibytes = map(float, done.stdout.split())
    record_property("seconds", seconds)
    record_property("mebibytes", mebibytes)
    # The table takes 10^7 x (3 x 8 + 4 + 8) bytes, 343 MiB; numbering the patients sorts 160 MB of hashes.
    assert mebibytes < 2000
