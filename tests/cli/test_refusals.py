"""Each refusal: exit code 1 (2 for wrong usage), nothing on standard output, a message that says what to do."""

import pytest

from tests.cli.conftest import STUDY
from wardround.cli.app import app


@pytest.fixture
def refused(run, folder):
    """Run a study that is refused; what it says."""

    def invoke(study, *more):
        done = run("run", study, "--simulate", folder, *more)
        assert done.exit_code == 1
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert done.stderr.startswith("wardround: ")
        return done.stderr

    return invoke


def test_no_study_file(refused, tmp_path):
    assert refused(tmp_path / "none.toml") == f"wardround: there is no study file {tmp_path / 'none.toml'}\n"


def test_a_folder_for_a_study_file(refused, tmp_path):
    assert f"{tmp_path} is a folder; name the study file in it" in refused(tmp_path)


def test_a_study_file_that_is_no_text(refused, tmp_path):
    path = tmp_path / "study.toml"
    path.write_bytes(b'[study]\nname = "caf\xe9"\n')
    assert "is not UTF-8 text (line 2); save it as UTF-8" in refused(path)


def test_a_study_file_that_is_too_large(refused, tmp_path):
    path = tmp_path / "study.toml"
    path.write_bytes(b"#" * (2**20 + 1))
    assert "has over 1048576 bytes" in refused(path)


def test_a_device_for_a_study_file(refused):
    assert "/dev/zero is not a regular file" in refused("/dev/zero")


def test_a_byte_order_mark_is_no_fault(run, folder, tmp_path):
    path = tmp_path / "study.toml"
    path.write_bytes(b"\xef\xbb\xbf" + STUDY.encode())
    assert run("run", path, "--simulate", folder).exit_code == 0


def test_an_unknown_key(refused, study_file):
    path = study_file(STUDY + "famly = 1")
    assert refused(path) == (
        f"wardround: the study file {path} is refused:\nanalysis[1].famly: unknown key; did you mean 'family'?\n"
    )


def test_a_missing_column(refused, study_file, tmp_path):
    message = refused(study_file(STUDY.replace("C(sex)", "C(sx)")), "--record", tmp_path / "kept")
    assert "analysis 1 (glm): " in message
    assert "did you mean 'sex'?" in message
    assert list((tmp_path / "kept").iterdir()) == []  # refused before any work


def test_a_bad_formula(refused, study_file):
    assert "analysis 1 (glm): formula" in refused(study_file(STUDY.replace("+ age", "+ (age")))


def test_a_bad_cohort(refused, study_file):
    text = STUDY.replace("[[analysis]]", 'cohort = "weight > 80"\n[[analysis]]')
    assert "weight" in refused(study_file(text))


def test_a_contract_that_is_not_there(refused, study_file):
    text = STUDY.replace("[[analysis]]", 'contract = "contract.toml"\n[[analysis]]')
    assert "contract.toml: no such contract file" in refused(study_file(text))


def test_a_quorum_of_more_sites_than_there_are(refused, study_file, folder):
    text = STUDY.replace("[[analysis]]", "minimum_sites = 4\n[[analysis]]")
    message = f"study.minimum_sites is 4, and {folder} has tables of 3 sites; add sites or lower it"
    assert message in refused(study_file(text))
    (folder / "West.csv").unlink()
    assert "secure sums take three sites, or secure_sums = false under [privacy]" in refused(study_file(text))


def test_a_folder_of_tables_that_is_not_there(run, study_file, tmp_path):
    done = run("run", study_file(), "--simulate", tmp_path / "none")
    assert done.exit_code == 1
    assert "none: no such folder" in done.stderr


def test_a_folder_without_tables(run, study_file, tmp_path):
    (tmp_path / "empty").mkdir()
    done = run("run", study_file(), "--simulate", tmp_path / "empty")
    assert done.exit_code == 1
    assert "holds no table" in done.stderr


def test_a_report_in_no_folder(refused, study_file, tmp_path):
    assert "there is no folder" in refused(study_file(), "--report", tmp_path / "none" / "report.html")
    assert "is a folder; name a file in it" in refused(study_file(), "--report", tmp_path)


def test_a_record_in_a_file(refused, study_file, tmp_path):
    (tmp_path / "kept").write_text("x")
    assert "is a file; name a folder" in refused(study_file(), "--record", tmp_path / "kept")


def test_nothing_that_a_terminal_obeys_is_printed(refused, study_file):
    message = refused(study_file(STUDY + '"\\u001b[31mred" = 1'))
    assert "\x1b" not in message


def test_debug_shows_the_traceback(run, folder, tmp_path):
    for args in (["--debug", "run"], ["run", "--debug"]):
        done = run(*args, tmp_path / "none.toml", "--simulate", folder)
        assert done.exit_code == 1
        assert "Traceback" in done.stderr
        assert "wardround: there is no study file" in done.stderr


def test_a_fault_of_our_own_shows_no_value(run, folder, study_file, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyError("patient 4711")

    monkeypatch.setattr("wardround.cli.run.read_study", fail)
    done = run("run", study_file(), "--simulate", folder)
    assert done.exit_code == 1
    assert "failed by a fault of its own (KeyError at test_refusals.py:" in done.stderr
    assert "4711" not in done.stderr


def test_a_disk_that_is_full_is_told(run, folder, study_file, monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device", str(tmp_path / "r.html"))

    monkeypatch.setattr("pathlib.Path.write_text", fail)
    path = tmp_path / "study.toml"
    path.write_bytes(STUDY.encode())
    done = run("run", path, "--simulate", folder, "--report", tmp_path / "r.html")
    assert done.exit_code == 1
    assert f"wardround: the report {tmp_path / 'r.html'} cannot be written (No space left on device)" in done.stderr
    assert "Federated" in done.stdout  # the results are not lost


def test_the_keyboard_stops_it_quietly(run, folder, study_file, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("wardround.cli.run.read_study", stop)
    done = run("run", study_file(), "--simulate", folder)
    assert (done.exit_code, done.stderr) == (130, "wardround: stopped\n")


@pytest.mark.parametrize(
    "args",
    [[], ["run"], ["run", "study.toml"], ["walk"], ["contract"], ["contract", "check", "c.toml"], ["run", "--nope"]],
)
def test_wrong_usage_is_exit_code_2(run, args):
    done = run(*args)
    assert done.exit_code == 2
    assert "Usage: " in done.stdout + done.stderr


def test_every_command_has_help_and_json_where_it_prints_data(run):
    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert sorted(names) == ["demo", "run", "schema", "vocabulary"]
    for args in (["run"], ["vocabulary"], ["contract", "infer"], ["contract", "check"]):
        done = run(*args, "--help")
        assert done.exit_code == 0
        assert "--json" in done.stdout


def test_the_version(run):
    done = run("--version")
    assert (done.exit_code, done.stdout) == (0, "wardround 0.1.0\n")


def test_a_report_onto_the_study_file_is_refused_before_any_work(refused, study_file):
    path = study_file()
    before = path.read_bytes()
    assert "exists and is no report; name another file" in refused(path, "--report", path)
    assert path.read_bytes() == before


def test_a_record_behind_a_broken_link(refused, study_file, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    assert "cannot be made (File exists); name another folder" in refused(study_file(), "--record", tmp_path / "link")
