"""`wardround contract infer|check`."""

import gzip
import json

from wardround.data.contract_text import parse_contract


def test_a_contract_is_inferred_and_fits(run, folder, tmp_path):
    path = tmp_path / "contract.toml"
    done = run("contract", "infer", folder, "--output", path)
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.startswith(f"contract: {path}; read it through")
    contract = parse_contract(path.read_text(encoding="utf-8"))
    assert contract.names == ("age", "sex", "procedure", "long_stay")
    checked = run("contract", "check", path, folder)
    assert checked.exit_code == 0
    assert checked.stdout.splitlines() == [
        "site '$North$': fits the contract (120 rows)",
        "site 'Süd·Zürich': fits the contract (150 rows)",
        "site 'West': fits the contract (90 rows)",
    ]


def test_standard_output_is_the_contract(run, folder, tmp_path):
    done = run("contract", "infer", folder)
    assert parse_contract(done.stdout).variable("procedure").levels == ("hip", "knee", "spine")
    document = json.loads(run("contract", "infer", folder, "--json").stdout)
    assert parse_contract(document["contract"]).names == parse_contract(done.stdout).names


def test_the_patient_column_is_named(run, folder, hospitals):
    for name, table in hospitals.items():
        table.assign(pid=range(len(table))).to_csv(folder / f"{name}.csv", index=False)
    contract = parse_contract(run("contract", "infer", folder, "--patient", "pid").stdout)
    assert contract.patient == "pid"
    assert "pid" not in contract.names
    refused = run("contract", "infer", folder, "--patient", "nr")
    assert refused.exit_code == 1
    assert "no column 'nr'" in refused.stderr


def test_a_table_that_does_not_fit_is_exit_code_1(run, folder, tmp_path, hospitals):
    path = tmp_path / "contract.toml"
    run("contract", "infer", folder / "West.csv", "--output", path)
    wrong = hospitals["West"].assign(age=lambda table: table["age"] + 100, sex="x")
    wrong.to_csv(folder / "West.csv", index=False)
    done = run("contract", "check", path, folder / "West.csv", "--json")
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert document["fits"] is False
    rules = {(v["column"], v["rule"], v["rows"]) for v in document["sites"][0]["violations"]}
    assert rules == {("age", "out of range", 90), ("sex", "unknown level", 90)}
    assert "some tables do not fit" in done.stderr


def test_files_are_sites_by_their_names(run, folder, tmp_path):
    path = tmp_path / "contract.toml"
    run("contract", "infer", folder, "--output", path)
    done = run("contract", "check", path, folder / "West.csv", folder / "$North$.csv")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["site 'West'", "site '$North$'"]
    twice = run("contract", "check", path, folder, folder / "West.csv")
    assert twice.exit_code == 1
    assert "two tables are named West" in twice.stderr


def test_files_that_are_not_there(run, folder, tmp_path):
    missing = run("contract", "infer", tmp_path / "none")
    assert missing.exit_code == 1
    assert "there is no file or folder" in missing.stderr
    no_contract = run("contract", "check", tmp_path / "none.toml", folder)
    assert no_contract.exit_code == 1
    assert "no such contract file" in no_contract.stderr


def test_a_compressed_table_is_of_the_site_before_its_endings(run, folder, tmp_path):
    path = tmp_path / "contract.toml"
    run("contract", "infer", folder, "--output", path)
    (tmp_path / "North.csv.gz").write_bytes(gzip.compress((folder / "West.csv").read_bytes()))
    assert run("contract", "check", path, tmp_path / "North.csv.gz").stdout.startswith("site 'North': fits")


def test_nothing_is_overwritten_by_a_draft(run, folder, tmp_path):
    before = (folder / "West.csv").read_bytes()
    done = run("contract", "infer", folder, "--output", folder / "West.csv")
    assert done.exit_code == 1
    assert "exists, and is not overwritten; name another file" in done.stderr
    assert (folder / "West.csv").read_bytes() == before
    assert "is a folder; name a file in it" in run("contract", "infer", folder, "--output", tmp_path).stderr
