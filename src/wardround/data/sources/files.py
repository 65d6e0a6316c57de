"""CSV, TSV (both also gzipped) and Parquet files as sources, read by DuckDB in pieces.

A CSV file is UTF-8 with one line of names, commas, semicolons, tabs or bars between cells, and double quotes
around cells that hold these. Its cells are read as texts: the contract decides what they are.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd

from wardround.data.names import column_name, column_positions
from wardround.data.reading import number_of
from wardround.data.sources.database import chunks_of, quoted, reading_files
from wardround.errors import ConfigError, DataError, StoreError

CSV_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
PARQUET_SUFFIXES = (".parquet",)
TABLE_SUFFIXES = (*CSV_SUFFIXES, *PARQUET_SUFFIXES)
"""Ends of the names of files that can be read."""

MAX_HEADER_BYTES = 2**24
"""Longest line of names of a CSV file (unit: bytes)."""

MAX_LINE_BYTES = 2**24
"""Longest line of a CSV file (unit: bytes)."""

_DELIMITERS = ",;\t|"
_SAVE_AS_UTF_8 = 'save the file as UTF-8 (in Excel: Save As, "CSV UTF-8")'
_LINE_NUMBER = re.compile(r"Line: ([0-9]{1,12})")
# What DuckDB says, and what is said instead: its own messages show lines of the file.
_MALFORMED = (
    ("state machine", "its line ends are not all of one kind, or its quotes do not match"),
    ("Maximum line size", f"{{line}} is longer than {MAX_LINE_BYTES} bytes"),
    ("Expected Number of Columns", "{line} does not have as many cells as the line of names"),
    ("Invalid unicode", f"{{line}} is not UTF-8 text; {_SAVE_AS_UTF_8}"),
    ("unterminated quote", "{line} has a double quote that is not closed, or text after a closing one"),
    ("Could not convert DATE", "a date is of no year from 1 to 9999; correct it, or make it missing"),
)


def file_source(path: str | Path, site: str) -> FileSource:
    """The source of a file; nothing is read yet but the names of its columns.

    Raises:
        ConfigError: no such file, or of a kind that is not read.
        DataError: the file is malformed.
        StoreError: the file cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"site {site!r}: {path} is a folder; name a file (or simulate the whole folder)")
    if not path.is_file():
        raise ConfigError(f"site {site!r}: there is no file {path}")
    kind = next((suffix for suffix in TABLE_SUFFIXES if path.name.lower().endswith(suffix)), None)
    if kind is None:
        raise ConfigError(f"site {site!r}: {path.name} is not of a kind that is read ({', '.join(TABLE_SUFFIXES)})")
    if kind in PARQUET_SUFFIXES:
        return FileSource(path=path.resolve(), site=site, columns=_parquet_columns(path, site), delimiter=None)
    header = _csv_header(path, site)
    delimiter = "\t" if kind.startswith(".tsv") else _delimiter(header)
    return FileSource(
        path=path.resolve(), site=site, columns=_csv_columns(header, delimiter, path, site), delimiter=delimiter
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """A CSV or Parquet file.

    Attributes:
        path: of the file.
        site: whose table it is.
        columns: names of its columns.
        delimiter: what stands between a CSV file's cells; None for Parquet.
    """

    path: Path
    site: str
    columns: tuple[str, ...]
    delimiter: str | None

    def names(self) -> tuple[str, ...]:
        """Names of its columns, in NFC and trimmed."""
        return tuple(column_name(name) for name in self.columns)

    def num_records(self) -> int | None:
        """How many rows a Parquet file has; None for CSV."""
        if self.delimiter is not None:
            return None
        with reading_files() as connection:
            sql = "SELECT sum(num_rows) FROM parquet_file_metadata(?)"
            row = connection.execute(sql, [_literal(self.path)]).fetchone()
        return int(row[0]) if row and row[0] is not None else 0

    def chunks(self, columns: Collection[str] | None = None) -> Iterator[pd.DataFrame]:
        """Its rows in pieces.

        Raises:
            DataError: the file is malformed; names the line, shows nothing of it.
            StoreError: the file cannot be read any more.
        """
        positions = column_positions(self.columns, columns, self.site)
        try:
            with reading_files() as connection:
                connection.execute(self._query(list(positions.values())))
                yield from chunks_of(connection, list(positions) or [""])
        except duckdb.OutOfMemoryException:
            raise StoreError(
                f"site {self.site!r}: {self.path.name} has {len(self.columns)} columns, and reading them takes too "
                "much memory; keep only those that the study needs, or save it as Parquet"
            ) from None
        except (duckdb.Error, UnicodeDecodeError) as error:
            raise DataError(f"site {self.site!r}: {self.path.name}: {_explained(str(error))}") from None

    def as_sql(self) -> str:
        """A SELECT of all of it, with its columns' names."""
        if self.delimiter is None:
            return f"SELECT * FROM {self._scan()}"  # noqa: S608  # the path is quoted
        listed = ", ".join(f"c{position} AS {quoted(name)}" for position, name in enumerate(self.names()))
        return f"SELECT {listed} FROM {self._scan()}"  # noqa: S608  # names and path are quoted

    def _query(self, positions: list[int]) -> str:
        names = self.columns if self.delimiter is None else [f"c{position}" for position in range(len(self.columns))]
        listed = ", ".join(quoted(names[position]) for position in positions) or "NULL"
        return f"SELECT {listed} FROM {self._scan()}"  # noqa: S608  # names and path are quoted

    def _scan(self) -> str:
        """The table function that reads the file; a CSV file's columns are c0, c1, ... to it."""
        path = "'" + _literal(self.path).replace("'", "''") + "'"
        if self.delimiter is None:
            return f"read_parquet({path})"
        types = ", ".join(f"c{position}: 'VARCHAR'" for position in range(len(self.columns)))
        compression = "gzip" if self.path.name.lower().endswith(".gz") else "none"
        return (
            f"read_csv({path}, auto_detect = false, header = true, strict_mode = true, delim = '{self.delimiter}', "
            f"quote = '\"', escape = '\"', compression = '{compression}', max_line_size = {MAX_LINE_BYTES}, "
            f"columns = {{{types}}})"
        )


def _literal(path: Path) -> str:
    """A path that DuckDB takes for one file, not for a pattern."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in str(path))


def _explained(message: str) -> str:
    found = _LINE_NUMBER.search(message)
    line = f"line {found[1]}" if found else "a line"
    for word, said in _MALFORMED:
        if word in message:
            return said.format(line=line)
    return f"{line} is malformed, or the file is not what its name says" if found else "the file is malformed"


def _parquet_columns(path: Path, site: str) -> tuple[str, ...]:
    try:
        with reading_files() as connection:
            rows = connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [_literal(path.resolve())]).fetchall()
    except (duckdb.Error, UnicodeDecodeError):
        raise DataError(f"site {site!r}: {path.name} is not a Parquet file, or damaged") from None
    return tuple(str(row[0]) for row in rows)


def _csv_header(path: Path, site: str) -> str:
    """The line of names."""
    where = f"site {site!r}: {path.name}"
    try:
        with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as file:
            head = file.read(MAX_HEADER_BYTES)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise DataError(f"{where} is not a gzip file, or damaged") from None
    except OSError as error:
        raise StoreError(f"{where} cannot be read ({error.strerror})") from None
    if not head.strip():
        raise DataError(f"{where} is empty; its first line must hold the columns' names")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{where} is UTF-16 text; {_SAVE_AS_UTF_8}")
    if b"\x00" in head[: 2**16]:
        raise DataError(f"{where} is not a text file; is it of another kind than its name says?")
    line = re.split(rb"\r\n|\n|\r", head, maxsplit=1)[0]
    if len(line) == MAX_HEADER_BYTES:
        raise DataError(f"{where}: the line of names is longer than {MAX_HEADER_BYTES} bytes")
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{where}: the line of names is not UTF-8 text; {_SAVE_AS_UTF_8}") from None


def _delimiter(header: str) -> str:
    """The mark that stands most often outside of quotes."""
    bare = re.sub(r'"[^"]*"', "", header)
    return max(_DELIMITERS, key=bare.count)


def _csv_columns(header: str, delimiter: str, path: Path, site: str) -> tuple[str, ...]:
    where = f"site {site!r}: {path.name}"
    if not header.strip():
        raise DataError(f"{where}: the first line is empty; it must hold the columns' names")
    if re.fullmatch(r"\s*sep=.\s*", header, re.IGNORECASE):
        raise DataError(f"{where}: the first line, sep=..., is for Excel alone; delete it")
    try:
        names = next(csv.reader([header], delimiter=delimiter, strict=True, skipinitialspace=True))
    except (csv.Error, StopIteration):
        raise DataError(f"{where}: the line of names has quotes that do not match") from None
    cleaned = [column_name(name) for name in names]
    if all(not name or number_of(name) is not None for name in cleaned):
        # They may be a patient's values, so they are not shown.
        raise DataError(f"{where}: the first line holds numbers, not names; add a line with the columns' names")
    first: dict[str, int] = {}
    for position, name in enumerate(cleaned, start=1):
        if name and first.setdefault(name, position) != position:
            raise DataError(f"{where}: columns {first[name]} and {position} have one name; rename one of them")
    return tuple(name or f"unnamed column {position}" for position, name in enumerate(cleaned, start=1))
