"""What is printed where."""

import io
import json
import sys
from types import SimpleNamespace

import pytest

from wardround.cli import terminal
from wardround.cli.terminal import plain, show, show_json, watched


def round_ended(number, failures=()):
    function = SimpleNamespace(function_id="glm.terms@1")
    return SimpleNamespace(
        workflow="glm", round=SimpleNamespace(number=number, ask=SimpleNamespace(function=function), failures=failures)
    )


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


def stream(monkeypatch, encoding):
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding=encoding, errors="strict"))
    return buffer


def test_what_a_terminal_obeys_is_made_visible():
    assert plain("a\x1b[2J\r\x07b\n\tc \u202e ü") == "a\\x1b[2J\\r\\x07b\n\tc \\u202e ü"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp1252", "utf-16"])
def test_json_survives_every_encoding(monkeypatch, encoding):
    document = {"Süd": "𝛽 ≤ 1 \U0001f3e5"}
    buffer = stream(monkeypatch, encoding)
    show_json(json.dumps(document, ensure_ascii=False))
    assert json.loads(buffer.getvalue().decode(encoding)) == document


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_file_name_that_is_no_text_does_not_stop_the_output(monkeypatch, encoding):
    buffer = stream(monkeypatch, encoding)
    show_json(json.dumps({"site": "caf\udce9"}, ensure_ascii=False))
    assert json.loads(buffer.getvalue()) == {"site": "caf\udce9"}
    show("Süd \udce9")
    assert b"S" in buffer.getvalue()


def test_progress_off_a_terminal_is_a_line_now_and_then(capsys, clock):
    with watched(lambda: "analysis 1 (glm)") as progress:
        for number in range(1, 41):
            clock[0] += 0.25
            progress(round_ended(number, failures={"West": "gone"}))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "analysis 1 (glm): round 20 (glm.terms@1), 1 absent",
        "analysis 1 (glm): round 40 (glm.terms@1), 1 absent",
    ]


def test_progress_on_a_terminal_is_a_spinner(monkeypatch):
    shown = io.StringIO()
    shown.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    with watched(lambda: "[bold]a\x1b[2J[/bold]") as progress:
        progress(round_ended(7))
    assert "[bold]a\\x1b[2J[/bold]: round 7 (glm.terms@1)" in shown.getvalue()
