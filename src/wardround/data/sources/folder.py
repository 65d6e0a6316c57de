"""A folder with one table a site: the file's name without its ending is the site's name."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from wardround.data.sources.files import TABLE_SUFFIXES
from wardround.errors import ConfigError, StoreError

# Tables of other programs: passing over one would lose a hospital without a word.
_UNREAD_SUFFIXES = (
    *(".xlsx", ".xls", ".xlsm", ".ods", ".sas7bdat", ".xpt", ".dta", ".sav", ".rds", ".rdata", ".feather", ".arrow"),
    *(".json", ".jsonl", ".ndjson", ".zip", ".7z", ".bz2", ".xz", ".zst", ".gz", ".tab", ".dat", ".data", ".db"),
    *(".sqlite", ".duckdb", ".orc", ".avro", ".h5", ".pkl"),
)


def tables_in(folder: str | Path) -> dict[str, Path]:
    """The tables of a folder by site, sorted by site.

    Sub-folders, hidden files, and files that are no tables (a README, a contract) are passed over.

    Raises:
        ConfigError: no such folder, no table in it, two files for one site, a table of a kind that is not read, or
            something of a table's name that is no file (a folder, a broken link, a device).
        StoreError: the folder cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; name one that holds a table ({_kinds()}) for every site")
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise StoreError(f"{folder}: cannot be read ({error.strerror})") from None
    tables: dict[str, Path] = {}
    for path in paths:
        if not path.name.lower().endswith(TABLE_SUFFIXES):
            _refuse_unread_table(path)
            continue
        if not path.is_file():
            raise ConfigError(
                f"{path}: is no file, as its name says (or a link to none); put the table there, or rename it"
            )
        site = site_of(path)
        if site in tables:
            raise ConfigError(f"{folder}: {tables[site].name} and {path.name} are both of site {site!r}; keep one")
        tables[site] = path
    if not tables:
        raise ConfigError(f"{folder}: holds no table ({_kinds()}); put one there for every site")
    return dict(sorted(tables.items()))


def site_of(path: Path) -> str:
    """The name of a file without its ending, in NFC ("North.csv.gz" is of the site "North")."""
    suffix = next((suffix for suffix in TABLE_SUFFIXES if path.name.lower().endswith(suffix)), path.suffix)
    return unicodedata.normalize("NFC", path.name[: len(path.name) - len(suffix)])


def _refuse_unread_table(path: Path) -> None:
    if path.is_file() and path.name.lower().endswith(_UNREAD_SUFFIXES):
        raise ConfigError(f"{path}: tables of this kind are not read; save it as one of {_kinds()}, or remove it")


def _kinds() -> str:
    return ", ".join(TABLE_SUFFIXES)
