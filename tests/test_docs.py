"""What the documentation shows is run: every Python block, file by file, in one namespace; tutorials whole."""

import contextlib
import io
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *TUTORIALS]
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[str]:
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page) and page not in TUTORIALS], ids=lambda page: page.name
)
def test_python_blocks_run(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    # A real module, as annotations are looked up in the module that a function is defined in.
    module = types.ModuleType(f"docs_{page.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in blocks(page):
        exec(compile(block, str(page), "exec"), module.__dict__)


def told(command: str) -> str:
    """What a command of the program prints, on either stream; it succeeds, unless a comment names its exit code."""
    program, *arguments = shlex.split(command, comments=True)
    expected = re.search(r"# exit code (\d+)$", command)
    assert program == "wardround", f"a tutorial runs nothing but the program: {command}"
    path = Path(sys.executable).with_name("wardround")
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == (int(expected[1]) if expected else 0), f"{command}\n{done.stderr}"
    return done.stdout + done.stderr


def printed(code: str, where: str, namespace: dict[str, object]) -> str:
    """What a block of Python prints."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(code, where, "exec"), namespace)
    return output.getvalue()


def check_shown(shown: str, output: str) -> None:
    """Each line of a block of text stands in the output, in this order; "..." stands for any lines."""
    lines = [line.rstrip() for line in output.splitlines()]
    for line in shown.splitlines():
        if line.strip() == "...":
            continue
        assert line.rstrip() in lines, f"not printed, or in another order: {line!r}\n{output}"
        lines = lines[lines.index(line.rstrip()) + 1 :]


@pytest.mark.e2e
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.name)
def test_tutorials_do_what_they_show(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType(f"tutorial_{page.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    output = ""
    for kind, name, body in re.findall(r"^```(\w+)(?: ([\w./-]+))?\n(.*?)^```", page.read_text("utf-8"), re.M | re.S):
        if kind == "text":
            check_shown(body, output)
        elif kind == "toml" and name:  # a file that the reader is told to save
            Path(name).write_text(body, encoding="utf-8")
        elif kind == "sh":
            output = "".join(told(command) for command in body.splitlines() if command)
        elif kind == "python":
            output = printed(body, str(page), module.__dict__)


def test_text_that_was_not_printed_is_found() -> None:
    check_shown("one\n...\nthree\n", "one\ntwo\nthree\n")
    with pytest.raises(AssertionError, match="'two'"):
        check_shown("three\ntwo\n", "one\ntwo\nthree\n")


def test_an_analysis_of_ones_own_takes_twenty_lines() -> None:
    first = blocks(ROOT / "docs" / "write-your-own.md")[0]
    definitions = first[first.index("class Sums") :]
    statements = [line for line in definitions.splitlines() if line.strip()]
    assert len(statements) <= 22, "the page promises 20 lines, its docstrings aside"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists() or (page.parent / f"{target}.md").exists(), target
