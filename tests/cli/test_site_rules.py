"""Hospitals' own disclosure rules beside their tables."""

import json

import pytest

from tests.cli.conftest import STUDY

STRICT = 'preset = "hospital"\nminimum_rows_site = 100\n'


@pytest.fixture
def rules(folder):
    def write(text, site="West"):
        (folder / f"{site}.disclosure.toml").write_text(text, encoding="utf-8")

    return write


def test_a_hospitals_rules_keep_it_out(run, folder, study_file, rules):
    rules(STRICT)
    refused = run("run", study_file(), "--simulate", folder)
    assert refused.exit_code == 1
    assert "disclosure rule minimum_rows_site of site 'West'" in refused.stderr
    in_clear = "minimum_sites = 2\n[privacy]\nsecure_sums = false\n[[analysis]]"
    two = study_file(STUDY.replace("[[analysis]]", in_clear))
    document = json.loads(run("run", two, "--simulate", folder, "--json").stdout)
    assert document["cohort"]["sites"] == ["$North$", "Süd·Zürich"]
    assert document["disclosure"]["minimum_rows_site"] == 100
    assert document["site_disclosure"]["West"]["preset"] == "hospital (changed) and standard"
    text = run("run", two, "--simulate", folder).stdout
    assert "at 2 sites: $North$, Süd·Zürich\nWithout West, as is said below.\n" in text
    run("run", two, "--simulate", folder, "--report", folder.parent / "report.html")
    assert "<dt>of 3 hospitals</dt><dd>2</dd>" in (folder.parent / "report.html").read_text(encoding="utf-8")


def test_rules_that_loosen_change_nothing(run, folder, study_file, rules):
    before = json.loads(run("run", study_file(), "--simulate", folder, "--json").stdout)
    rules('preset = "none"\n', "Süd·Zürich")
    after = json.loads(run("run", study_file(), "--simulate", folder, "--json").stdout)
    assert after["analyses"][0]["result"] == before["analyses"][0]["result"]
    changed = {name: value for name, value in after["disclosure"].items() if value != before["disclosure"][name]}
    assert set(changed) == {"preset"}


@pytest.mark.parametrize(
    ("text", "site", "message"),
    [
        ("minimum_rows = 3", "West", "minimum_rows: unknown key; did you mean"),
        ("minimum_cell = 0", "West", "minimum_cell must be a whole number"),
        ("[disclosure]\nminimum_cell = 9", "West", "disclosure: unknown key"),
        ("minimum_cell", "West", "is not valid TOML"),
        ("minimum_cell = 9", "Wets", "there is no table of a site 'Wets'"),
    ],
)
def test_wrong_rules_are_refused(run, folder, study_file, rules, text, site, message):
    rules(text, site)
    done = run("run", study_file(), "--simulate", folder)
    assert done.exit_code == 1
    assert message in done.stderr
    assert f"{site}.disclosure.toml" in done.stderr
