"""`wardround audit verify`: what it prints, and its exit codes."""

import json

import pytest

from tests.privacy.secagg.transcript_samples import NAMES, sample
from wardround.cli.audit import RULES
from wardround.errors import MessageRefusedError

pytest.importorskip("typer")


@pytest.fixture
def transcript(tmp_path):
    def write(lines):
        path = tmp_path / "000-secure-sums.wardround-transcript"
        path.write_bytes(b"".join(lines))
        return path

    return write


def test_a_verified_transcript_is_told_in_words(run, transcript):
    done = run("audit", "verify", transcript(sample().lines))
    assert (done.exit_code, done.stderr) == (0, "")
    text = done.stdout
    assert text.startswith("000-secure-sums.wardround-transcript: verified\n")
    digest = sample().federation.manifest.digest.hex()
    assert f"agreement: {digest[:4]} {digest[4:8]} " in text
    assert "could have made up all keys" in text
    assert "The coordinator has signed its end" in text
    assert "What it never wrote cannot be\nseen: each site can compare" in text
    assert "A total is over at least 3 of 4 sites." in text
    assert "Before that, 3 sites must sign the same list" in text
    assert "Runs: 2. Rounds: 4, of these with a total 3, failed 1, not finished 0." in text
    assert "run 1, round 1, sample.moments@1: total over 4 of 4 sites\n" in text
    assert "run 1, round 2, sample.moments@1: total over 3 of 4 sites, without East\n" in text
    assert "run 2, round 1, sample.moments@1: failed: 2 sites sent their contribution, at least 3 must" in text
    rows = [line.split() for line in text.splitlines() if line.split()[:1] and line.split()[0] in NAMES]
    assert rows == [[name, "4", "2" if name == "East" else "3", "1" if name == "East" else "0"] for name in NAMES]
    assert "Refused messages: 1.\n  1 of West: share\n" in text


def test_the_other_mode_is_said(run, transcript):
    text = run("audit", "verify", transcript(sample(is_strict=False).lines)).stdout
    assert "Sites do not sign to each other who is in the sum (two_leg)." in text
    assert "asked again over other sites" not in text
    text = run("audit", "verify", transcript(sample(allows_repeats=True).lines)).stdout
    assert "The same may be asked again over other sites" in text


@pytest.mark.parametrize("group", [64, 4, 8])
@pytest.mark.parametrize("joint", [" ", ":", "-"])
def test_the_fingerprint_is_compared(run, transcript, group, joint):
    digest = sample().federation.manifest.digest.hex().upper()
    given = joint.join(digest[start : start + group] for start in range(0, 64, group))
    done = run("audit", "verify", transcript(sample().lines), "--fingerprint", given)
    assert done.exit_code == 0
    assert "It is the one that you gave." in done.stdout
    assert "made up all keys" not in done.stdout
    other = run("audit", "verify", transcript(sample(seed=1).lines), "--fingerprint", given)
    assert other.exit_code == 1
    assert "line 1 " in other.stderr
    assert "rule manifest" in other.stderr
    assert other.stdout == ""


@pytest.mark.parametrize("given", ["", "00", "0" * 63, "0" * 65, "g" * 64, "٣" * 64])
def test_what_is_no_fingerprint_is_wrong_use(run, transcript, given):
    done = run("audit", "verify", transcript(sample().lines), "--fingerprint", given)
    assert done.exit_code == 2
    assert "64 digits" in " ".join(done.stderr.replace("│", " ").split())


def test_an_altered_transcript_is_refused_in_words(run, transcript):
    lines = sample().lines
    lines[10] = lines[10].replace(b'"site":0', b'"site":1')
    done = run("audit", "verify", transcript(lines))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "line 11 of the transcript is refused, rule chain" in done.stderr
    assert "something was altered, removed, added or swapped" in done.stderr
    assert "Traceback" not in done.stderr
    as_json = run("audit", "verify", transcript(lines), "--json")
    assert as_json.exit_code == 1
    told = json.loads(as_json.stdout)
    assert (told["is_verified"], told["line"], told["rule"]) == (False, 11, "chain")


def test_a_transcript_that_is_not_closed_is_told_and_not_accepted(run, transcript):
    lines = sample().lines
    path = transcript([*lines[:-5], lines[-5][:40]])
    done = run("audit", "verify", path)
    assert done.exit_code == 1
    assert "verified as far as it goes: it is NOT CLOSED\n" in done.stdout
    assert "not whole (40 bytes)" in done.stdout
    assert "not finished; 4 sites were asked" in done.stdout
    assert "not closed; --unfinished accepts" in done.stderr
    accepted = run("audit", "verify", path, "--unfinished")
    assert (accepted.exit_code, accepted.stdout, accepted.stderr) == (0, done.stdout, "")


def test_the_json_document(run, transcript):
    one = sample()
    done = run("audit", "verify", transcript(one.lines), "--json")
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document["is_verified"] is True
    assert document["is_closed"] is True
    assert document["is_pinned"] is False
    assert document["fingerprint"] == one.federation.manifest.digest.hex()
    assert document["num_lines"] == len(one.lines)
    assert [site["name"] for site in document["sites"]] == list(NAMES)
    assert [site["num_totals"] for site in document["sites"]] == [3, 3, 2, 3]
    assert [site["num_left_out"] for site in document["sites"]] == [0, 0, 1, 0]
    assert document["terms"]["threshold"] == 3
    assert (document["num_runs"], document["num_rounds"], document["num_totals"]) == (2, 4, 3)
    assert (document["num_failed"], document["num_unfinished"]) == (1, 0)
    assert [r["outcome"] for r in document["rounds"]] == ["total", "total", "failed", "total"]
    assert document["rounds"][1]["left_out"] == ["East"]
    assert document["refused"] == [{"rule": "share", "peer": "West"}]


def test_what_is_no_transcript_is_refused(run, tmp_path):
    absent = run("audit", "verify", tmp_path / "absent")
    assert absent.exit_code == 1
    assert "cannot read the transcript" in absent.stderr
    (tmp_path / "study.toml").write_text("[study]\nname = 'x'\n", encoding="utf-8")
    other = run("audit", "verify", tmp_path / "study.toml")
    assert other.exit_code == 1
    assert "line 1 " in other.stderr
    assert "the file is no transcript" in other.stderr


def test_names_that_a_terminal_would_obey_are_shown_harmlessly(run, tmp_path):
    path = tmp_path / "\x1b[31mred"
    path.write_bytes(b"".join(sample().lines))
    assert "\x1b" not in run("audit", "verify", path).stdout


def test_every_rule_that_a_transcript_can_break_has_its_words():
    import re
    from pathlib import Path

    import wardround.privacy.secagg.audit as module

    folder = Path(module.__file__).parent
    raised = set(re.findall(r'_refused\(\s*"(\w+)"', (folder / "audit.py").read_text(encoding="utf-8")))
    raised |= set(re.findall(r'TranscriptRefusedError\(\s*number, "(\w+)"', (folder / "audit.py").read_text()))
    raised |= {"malformed", "chain", "signature", "manifest"}
    assert raised == set(RULES)
    assert isinstance(MessageRefusedError("signature", "West", "x"), Exception)
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
    assert [rule for rule, words in RULES.items() if f"| `{rule}` | {words} |" not in page] == []
