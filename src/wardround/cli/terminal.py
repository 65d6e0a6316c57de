"""Data on standard output, talk on standard error, and nothing of the one on the other."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from wardround.engines.simulation import Progress

SECONDS_BETWEEN_LINES = 5.0
"""Least time between two progress lines where standard error is no terminal (unit: seconds)."""

Watch: TypeAlias = "Callable[[Progress], None]"


def plain(text: str) -> str:
    """Text from outside without anything that a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def show(text: str) -> None:
    """Print data for people on standard output."""
    _write(plain(text))


def show_json(text: str) -> None:
    """Print a JSON document on standard output, in ASCII where that is no UTF-8."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    _write(text if encoding == "utf8" else text.translate(_AsciiEscapes()))


def talk(text: str) -> None:
    """Tell the person at the terminal something, on standard error."""
    print(plain(text), file=sys.stderr, flush=True)  # noqa: T201


class _AsciiEscapes(dict[int, str]):
    """Every character outside ASCII as JSON's escape; only strings of a JSON text hold such characters."""

    def __missing__(self, code: int) -> str:
        if code < 0x80:
            return chr(code)
        units = chr(code).encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def _write(text: str) -> None:
    # A lone surrogate (a file name that is no UTF-8) must not stop the output.
    data = text.encode(getattr(sys.stdout, "encoding", None) or "utf-8", "backslashreplace")
    sys.stdout.write(data.decode(sys.stdout.encoding or "utf-8"))
    sys.stdout.write("\n")
    sys.stdout.flush()


@contextlib.contextmanager
def output_kept_pure() -> Iterator[None]:
    """While work is done, whatever a library prints on standard output goes to standard error.

    Guarantees:
        output_is_pure: neither Python's `print` nor a C library's reaches standard output in here.
    """
    sys.stdout.flush()
    with contextlib.redirect_stdout(sys.stderr), _file_descriptor_redirected():
        yield


@contextlib.contextmanager
def _file_descriptor_redirected() -> Iterator[None]:
    try:
        kept = os.dup(1)
    except OSError:  # standard output is closed: nothing can reach it
        yield
        return
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def watched(get_label: Callable[[], str]) -> Iterator[Watch]:
    """A callback for the engine that shows the rounds on standard error: a spinner on a terminal, else few lines."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(get_label)
        return
    with console.status("") as status:

        def update(progress: Progress) -> None:
            status.update(Text(plain(_line(get_label(), progress))))

        yield update


class _Lines:
    """One line now and then."""

    def __init__(self, get_label: Callable[[], str]) -> None:
        self._get_label = get_label
        self._last = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            talk(_line(self._get_label(), progress))


def _line(label: str, progress: Progress) -> str:
    absent = len(progress.round.failures)
    without = f", {absent} absent" if absent else ""
    return f"{label}: round {progress.round.number} ({progress.round.ask.function.function_id}){without}"
