"""Where a report may be written: nothing but a report of the same kind is replaced."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wardround.errors import ConfigError, StoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of file.

    Attributes:
        option: of the command line that names such a file.
        example: a usual name.
        first_bytes: what such a file begins with, in lower case.
        is_what: what a file of another kind is not ("no report").
    """

    option: str
    example: str
    first_bytes: bytes
    is_what: str


PAGE = Kind(option="--report", example="report.html", first_bytes=b"<!doctype html>", is_what="no report")
PDF = Kind(option="--pdf", example="report.pdf", first_bytes=b"%pdf-", is_what="no PDF")


def check_target(path: Path, kind: Kind) -> None:
    """Find out before any work whether such a file can be written to `path`.

    Raises:
        ConfigError: the path is no place for a file; says what to do.
        StoreError: what is there cannot be read.
    """
    name = f"{kind.option} {path}"
    if path.is_dir():
        raise ConfigError(f"{name} is a folder; name a file in it, such as {path / kind.example}")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{name}: there is no folder {path.absolute().parent}; make it first")
    if path.exists() and not _is_of(path, kind):
        raise ConfigError(f"{name} exists and is {kind.is_what}; name another file")


def _is_of(path: Path, kind: Kind) -> bool:
    """Whether this is a file of the kind, or an empty one."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(kind.first_bytes)).lower() in (b"", kind.first_bytes)
    except OSError as error:
        raise StoreError(f"{kind.option} {path}: what is there cannot be read ({error.strerror})") from None
