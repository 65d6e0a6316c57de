"""The report as PDF, by a real browser; and what is said where there is none."""

import os
import shutil
import signal
import stat
import sys
import time
from pathlib import Path

import pypdf
import pytest

from tests.report.conftest import BROWSER, needs_browser
from wardround.errors import ConfigError, StoreError
from wardround.report.html import render_report
from wardround.report.pdf import BROWSERS, check_can_print, find_browser, write_pdf


@pytest.fixture(scope="module")
def printed(outcome, tmp_path_factory):
    path = tmp_path_factory.mktemp("pdf") / "report.pdf"
    write_pdf(render_report(outcome), path, BROWSER)
    assert [file.name for file in path.parent.iterdir()] == ["report.pdf"]
    return pypdf.PdfReader(path)


@needs_browser
def test_it_holds_the_whole_report(printed):
    text = " ".join(" ".join(page.extract_text() for page in printed.pages).split())
    for expected in (
        "Who dies?",
        "Table 1.",
        "Figure 2.",
        "Counts of levels by group",  # folded on the screen
        "Run of analysis 2.",
        "McCullagh P, Nelder JA.",
        f"1 of {len(printed.pages)}",
    ):
        assert expected in text
    assert "Skip to the findings" not in text


@needs_browser
def test_it_is_a4_tagged_and_has_an_outline(printed):
    width, height = (float(size) for size in printed.pages[0].mediabox.upper_right)
    assert (width, height) == pytest.approx((595, 842), abs=1)
    root = printed.trailer["/Root"]
    assert root["/MarkInfo"]["/Marked"]
    assert root["/Lang"] == "en"
    assert printed.outline[0]["/Title"] == "Wards"
    assert [entry["/Title"] for entry in printed.outline[1] if not isinstance(entry, list)][:2] == [
        "At a glance",
        "The hospitals and what they disclosed",
    ]


@needs_browser
def test_nothing_reaches_over_the_edge_of_the_paper(printed):
    places = []

    def visit(text, matrix, text_matrix, *_):
        if text.strip():
            places.append((text_matrix[4] * matrix[0] + matrix[4], page.mediabox.width, text))

    for page in printed.pages:
        page.extract_text(visitor_text=visit)
    assert places
    assert all(30 <= x <= width - 30 for x, width, _ in places)


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_without_a_browser_it_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"install Chromium .* or name .* with --browser or WARDROUND_BROWSER"):
        check_can_print(tmp_path / "report.pdf")
    with pytest.raises(ConfigError, match="there is no browser netscape; name an installed Chromium"):
        check_can_print(tmp_path / "report.pdf", "netscape")


def test_a_browser_is_found_by_its_usual_names(monkeypatch, tmp_path):
    for name in BROWSERS:
        browser = program(tmp_path / name, "")
        monkeypatch.setenv("PATH", str(tmp_path))
        assert find_browser() == browser
        browser.unlink()
    own = program(tmp_path / "my-own", "")
    assert find_browser(str(own)) == find_browser("my-own") == own


def test_only_a_pdf_is_replaced(tmp_path):
    table = tmp_path / "north.csv"
    table.write_text("age\n1\n")
    browser = str(program(tmp_path / "browser", ""))
    for path, message in (
        (table, "exists and is no PDF; name another file"),
        (tmp_path, "is a folder; name a file in it"),
        (tmp_path / "none" / "report.pdf", "there is no folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_can_print(path, browser)
    old = tmp_path / "report.pdf"
    old.write_bytes(b"%PDF-1.4")
    assert check_can_print(old, browser) == Path(browser)


def test_a_failed_print_leaves_the_old_file(tmp_path):
    path = tmp_path / "report.pdf"
    path.write_bytes(b"%PDF-1.4 old")
    broken = program(tmp_path / "broken", "import sys; sys.exit('No usable sandbox!')")
    with pytest.raises(StoreError, match=r"broken printed nothing; it could not start its sandbox"):
        write_pdf("<!doctype html>", path, broken)
    assert path.read_bytes() == b"%PDF-1.4 old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["broken", "report.pdf"]


def test_a_browser_that_hangs_is_stopped_with_all_that_it_started(tmp_path):
    note = tmp_path / "child"
    hanging = program(
        tmp_path / "hanging",
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(note)!r}, 'w').write(str(child.pid))\ntime.sleep(60)\n",
    )
    begin = time.monotonic()
    with pytest.raises(StoreError, match="hanging did not finish within 2 s"):
        write_pdf("<!doctype html>", tmp_path / "report.pdf", hanging, time_limit_seconds=2)
    assert time.monotonic() - begin < 20
    child = int(note.read_text())
    for _ in range(100):
        if not _is_running(child):
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the browser's child outlives it")


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"  # a zombie is over
