"""`wardround run`: what it prints, writes and returns."""

import json
import re

import pandas as pd
import pytest
import statsmodels.api as sm

from tests.cli.conftest import STUDY
from tests.report.conftest import needs_browser
from wardround.engines.record import replay
from wardround.engines.record_file import load_record
from wardround.engines.simulated_hospitals import simulate_folder
from wardround.studies.extensions import installed_vocabulary
from wardround.studies.study import parse_study

SEPARATED = STUDY + '[[analysis]]\nworkflow = "glm"\ntitle = "Perfect"\nformula = "long_stay ~ perfect"\n'


def test_json_is_the_pooled_fit(run, folder, study_file, hospitals):
    done = run("run", study_file(), "--simulate", folder, "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    (analysis,) = document["analyses"]
    pooled = pd.concat(hospitals.values())
    fit = sm.GLM.from_formula(analysis["options"]["formula"], pooled, family=sm.families.Binomial()).fit(tol=1e-12)
    terms = pd.DataFrame(analysis["result"]["terms"]).set_index("term")
    for name, expected in (("estimate", fit.params), ("standard_error", fit.bse), ("p_value", fit.pvalues)):
        assert terms[name].to_dict() == pytest.approx(expected.to_dict(), rel=1e-8)
    assert {"low", "high"} <= set(terms.columns)


def test_json_holds_study_sites_runs_and_version(run, folder, study_file):
    document = json.loads(run("run", study_file(), "--simulate", folder, "--json").stdout)
    assert document["study"]["question"] == "Which patients stay longer than a week?"
    assert document["sites"] == ["$North$", "Süd·Zürich", "West"]
    assert document["cohort"]["num_records"] == 360
    assert document["wardround"] == document["versions"]["wardround"]
    (analysis,) = document["analyses"]
    assert (analysis["workflow"], analysis["title"]) == ("glm", "glm")
    facts = analysis["run"]
    assert facts["rounds"] == sum(facts["asked"].values()) > 0
    assert facts["bytes"] >= 8 * facts["numbers"] > 0
    assert facts["seconds"] > 0
    assert facts["sites"] == document["sites"]
    assert facts["failures"] == {}


def test_text_is_each_summary_under_its_heading(run, folder, study_file):
    done = run("run", study_file(STUDY + 'title = "Längere Liegezeit"\n'), "--simulate", folder)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("length-of-stay\n==============\nWhich patients")
    assert "1. Längere Liegezeit\n--------------------\n" in done.stdout
    assert "Federated generalised linear model" in done.stdout
    assert "C(procedure)[T.knee]" in done.stdout
    assert done.stderr == ""


def test_the_record_replays_to_the_result(run, folder, study_file, tmp_path):
    path = study_file()
    kept = tmp_path / "kept" / "here"
    done = run("run", path, "--simulate", folder, "--json", "--record", kept)
    document = json.loads(done.stdout)
    file, transcript = sorted(kept.iterdir())
    assert file.name == "001-glm.wardround-run"
    assert transcript.name == "secure-sums.wardround-transcript"
    fingerprint = re.search(
        r"transcript: .*secure-sums.wardround-transcript \(fingerprint ([0-9a-f]{64})\)", done.stderr
    )
    assert fingerprint
    assert "verified" in run("audit", "verify", transcript, "--fingerprint", fingerprint[1]).stdout.lower()
    assert run("audit", "verify", transcript, "--fingerprint", "0" * 64).exit_code == 1
    vocabulary = installed_vocabulary()
    record = load_record(file, vocabulary)
    (analysis,) = parse_study(path.read_text(encoding="utf-8"), vocabulary).analyses
    again = replay(analysis.workflow, simulate_folder(folder).setting, record)
    assert again.to_dict() == document["analyses"][0]["result"]


def test_an_analysis_that_fails_leaves_the_others_standing(run, folder, study_file, hospitals, tmp_path):
    for name, table in hospitals.items():
        table.assign(perfect=table["long_stay"] * 2.5).to_csv(folder / f"{name}.csv", index=False)
    text = SEPARATED + 'family = "binomial"\n'
    done = run("run", study_file(text), "--simulate", folder, "--json", "--report", tmp_path / "report.html")
    assert done.exit_code == 1
    good, bad = json.loads(done.stdout)["analyses"]
    assert good["result"]["terms"]
    assert (bad["result"], bad["run"], bad["error"]["kind"]) == (None, None, "SeparationError")
    assert "analysis 2 (glm): separation" in done.stderr
    assert "No result." in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "No result: separation" in run("run", study_file(text), "--simulate", folder).stdout


def test_the_contract_of_a_study_is_read_from_beside_it(run, folder, study_file, tmp_path):
    contract = tmp_path / "agreed" / "contract.toml"
    contract.parent.mkdir()
    assert run("contract", "infer", folder, "--output", contract).exit_code == 0
    text = STUDY.replace("[[analysis]]", 'contract = "agreed/contract.toml"\n[[analysis]]')
    assert run("run", study_file(text), "--simulate", folder).exit_code == 0
    contract.write_text(contract.read_text(encoding="utf-8").replace("knee", "elbow"), encoding="utf-8")
    done = run("run", study_file(text), "--simulate", folder)
    assert done.exit_code == 1
    assert "does not fit the contract" in done.stderr
    assert "unknown level" in done.stderr


def test_a_link_out_of_the_folder_is_not_followed(run, folder, study_file, tmp_path):
    outside = tmp_path / "outside.toml"
    assert run("contract", "infer", folder, "--output", outside).exit_code == 0
    inside = tmp_path / "study"
    inside.mkdir()
    (inside / "contract.toml").symlink_to(outside)
    text = STUDY.replace("[[analysis]]", 'contract = "contract.toml"\n[[analysis]]')
    (inside / "study.toml").write_text(text, encoding="utf-8")
    done = run("run", inside / "study.toml", "--simulate", folder)
    assert done.exit_code == 1
    assert "study.contract: contract.toml leads out of the study file's folder" in done.stderr


def test_the_cohort_chooses_the_records(run, folder, study_file, hospitals):
    text = STUDY.replace("[[analysis]]", 'cohort = "age >= 60"\n[[analysis]]')
    document = json.loads(run("run", study_file(text), "--simulate", folder, "--json").stdout)
    expected = sum(int((table["age"] >= 60).sum()) for table in hospitals.values())
    assert document["cohort"]["num_records"] == document["analyses"][0]["result"]["num_records"] == expected


def test_a_report_is_written_and_named(run, folder, study_file, tmp_path):
    report = tmp_path / "Bericht.html"
    done = run("run", study_file(), "--simulate", folder, "--json", "--report", report)
    json.loads(done.stdout)
    assert done.stderr == f"report: {report}\n"
    assert report.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_it_is_told_how_tables_without_a_contract_were_read(run, folder, study_file, hospitals):
    table = hospitals["West"].assign(patient_id=range(90))
    table["age"] = table["age"].astype(object).where(table.index % 10 != 3, "unknown")
    for name in hospitals:
        table.to_csv(folder / f"{name}.csv", index=False)
    done = run("run", study_file(), "--simulate", folder, "--json")
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [
        "note: 'age': 'unknown' among its values count as missing",
        """note: 'patient_id' may tell patients apart; if so, say patient = "patient_id" (now each row is a patient)""",
    ]
    document = json.loads(done.stdout)
    assert document["analyses"][0]["result"]["num_records"] == 3 * 81
    assert document["data"]["contract_is_inferred"]
    assert [f"note: {note}" for note in document["data"]["reading_notes"]] == done.stderr.splitlines()


def test_what_is_told_of_the_tables_is_of_bounded_length(run, folder, study_file, hospitals):
    for name, table in hospitals.items():
        keys = {f"{letter} patient": 1 for letter in "abcdefghijkl"}
        table.assign(**keys).to_csv(folder / f"{name}.csv", index=False)
    said = run("run", study_file(), "--simulate", folder).stderr.splitlines()
    assert len(said) == 11
    assert said[-1] == "note: and 2 more, as 'wardround contract infer' shows"


def test_the_report_tells_how_tables_were_read(run, folder, study_file, hospitals, tmp_path):
    report = tmp_path / "report.html"
    for name, table in hospitals.items():
        table.assign(patient_id=range(len(table))).to_csv(folder / f"{name}.csv", index=False)
    assert run("run", study_file(), "--simulate", folder, "--report", report).exit_code == 0
    assert "&#39;patient_id&#39; may tell patients apart" in report.read_text(encoding="utf-8")


@needs_browser
def test_a_pdf_is_written_and_named(run, folder, study_file, tmp_path):
    pdf = tmp_path / "report.pdf"
    done = run("run", study_file(), "--simulate", folder, "--json", "--pdf", pdf)
    json.loads(done.stdout)
    assert done.stderr == f"report: {pdf}\n"
    assert pdf.read_bytes().startswith(b"%PDF-")


def test_a_pdf_without_a_browser_is_refused_before_any_work(run, study_file, tmp_path, monkeypatch):
    args = ("run", study_file(), "--simulate", tmp_path / "none", "--pdf", tmp_path / "report.pdf")
    done = run(*args, "--browser", "netscape")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("wardround: there is no browser netscape; ")
    monkeypatch.setenv("WARDROUND_BROWSER", "mosaic")
    assert run(*args).stderr.startswith("wardround: there is no browser mosaic; ")


def test_a_pdf_onto_the_study_file_is_refused_before_any_work(run, folder, study_file):
    path = study_file()
    before = path.read_bytes()
    done = run("run", path, "--simulate", folder, "--pdf", path)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "exists and is no PDF; name another file" in done.stderr
    assert path.read_bytes() == before


def test_it_is_told_what_counts_as_missing(run, folder, study_file, hospitals, tmp_path):
    run("contract", "infer", folder, "--output", tmp_path / "contract.toml")
    hospitals["West"].assign(age=4711).to_csv(folder / "West.csv", index=False)
    study = study_file(
        STUDY.replace("[[analysis]]", 'contract = "contract.toml"\nviolations = "missing"\n[[analysis]]')
    )
    done = run("run", study, "--simulate", folder, "--json")
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [
        "note: site 'West' (90 rows) does not fit the contract; these values count as missing:",
        "  'age': out of range in 90 rows (more than half of its values: is the unit the contract's?)",
    ]
    document = json.loads(done.stdout)
    assert document["analyses"][0]["result"]["num_records"] == 270
    (misfit,) = document["data"]["made_missing"]
    assert (misfit["site"], misfit["violations"][0]["rows"]) == ("West", 90)
    assert not document["data"]["contract_is_inferred"]
