"""A site's own SELECT as a source: on a DuckDB or SQLite database file, or over a table that is `records` to it.

The query is the site's, not the study's: what comes from outside is a cohort expression, which runs no SQL
(`wardround.data.cohort`). It is nevertheless one SELECT, on a database that is opened read-only, and it can
read no other file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import duckdb
import pandas as pd

from wardround.data.names import column_name, column_positions
from wardround.data.sources.database import chunks_of, connected
from wardround.data.sources.files import FileSource, file_source
from wardround.data.sources.source import Source, chunk_records
from wardround.errors import ConfigError, DataError

MAX_QUERY_CHARACTERS = 100_000
"""Longest query (unit: characters)."""

_SQLITE_MAGIC = b"SQLite format 3\x00"
_SQLITE_ALLOWED = frozenset((sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, 33))  # 33: RECURSIVE
# Errors that speak of the query; all others may show a value of the data.
_QUERY_ERRORS = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException)


def sql_source(query: str, site: str, *, database: str | Path | None = None, records: object = None) -> Source:
    """The source of a query.

    Args:
        query: one SELECT.
        site: whose table it makes.
        database: a DuckDB or SQLite file.
        records: instead of a database: a data frame, or the path of a CSV or Parquet file, which the query
            knows as the table `records`.

    Raises:
        ConfigError: not one SELECT, no such table or column, no such database.
        DataError: the table is malformed.
    """
    if (database is None) == (records is None):
        raise ValueError("give either a database or records")
    if len(query) > MAX_QUERY_CHARACTERS:
        raise ConfigError(f"site {site!r}: a query has at most {MAX_QUERY_CHARACTERS} characters")
    query = _one_select(query, site)
    if database is None:
        table = records if isinstance(records, pd.DataFrame) else file_source(str(records), site)
        return _named(DuckDBSource(query=query, site=site, records=table))
    path = Path(database)
    if not path.is_file():
        raise ConfigError(f"site {site!r}: there is no database file {path}")
    with path.open("rb") as file:
        is_sqlite = file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC
    if is_sqlite:
        return _named_sqlite(SQLiteSource(query=query, site=site, database=path.resolve()))
    return _named(DuckDBSource(query=query, site=site, database=path.resolve()))


@dataclass(frozen=True, slots=True, kw_only=True)
class DuckDBSource:
    """A SELECT that DuckDB runs.

    Attributes:
        query: one SELECT.
        site: whose table it makes.
        database: a DuckDB file, opened read-only.
        records: instead of a database, what the query knows as `records`.
        columns: names of its columns.
    """

    query: str
    site: str
    database: Path | None = None
    records: pd.DataFrame | FileSource | None = None
    columns: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Names of its columns, in NFC and trimmed."""
        return tuple(column_name(name) for name in self.columns)

    def num_records(self) -> None:
        """Unknown before it is read."""
        return

    def chunks(self, columns: Collection[str] | None = None) -> Iterator[pd.DataFrame]:
        """Its rows in pieces; raises `ConfigError` and `DataError` as `sql_source` does."""
        positions = column_positions(self.columns, columns, self.site)
        listed = ", ".join(f"c{position}" for position in positions.values()) or "NULL"
        names = ", ".join(f"c{position}" for position in range(len(self.columns)))
        with self._opened() as connection:
            # The names of columns are positions here, so that equal names cannot be mistaken.
            connection.execute(f"SELECT {listed} FROM (\n{self.query}\n) AS q({names})")  # noqa: S608  # the site's own
            yield from chunks_of(connection, list(positions) or [""])

    def read_columns(self) -> tuple[str, ...]:
        """Names of the query's columns, as the query gives them."""
        with self._opened() as connection:
            described = connection.execute(f"SELECT * FROM (\n{self.query}\n) LIMIT 0").description  # noqa: S608
        return tuple(str(column[0]) for column in described or ())

    @contextmanager
    def _opened(self) -> Iterator[duckdb.DuckDBPyConnection]:
        try:
            with connected(self.database) as connection:
                self._offer_records(connection)
                connection.execute("SET enable_external_access = false")
                connection.execute("SET lock_configuration = true")
                yield connection
        except _QUERY_ERRORS as error:
            raise ConfigError(f"site {self.site!r}: the query is refused: {str(error).splitlines()[0]}") from None
        except (duckdb.Error, UnicodeDecodeError) as error:
            where = f"site {self.site!r}: the query, or reading what it names, failed"
            raise DataError(f"{where} ({type(error).__name__})") from None

    def _offer_records(self, connection: duckdb.DuckDBPyConnection) -> None:
        if isinstance(self.records, pd.DataFrame):
            connection.register("records", self.records)
        elif self.records is not None:
            connection.execute(f"SET allowed_paths = ['{str(self.records.path).replace(chr(39), chr(39) * 2)}']")
            connection.execute(f"CREATE TEMP VIEW records AS {self.records.as_sql()}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SQLiteSource:
    """A SELECT on an SQLite file, opened read-only.

    Attributes:
        query: one SELECT.
        site: whose table it makes.
        database: the file.
        columns: names of its columns.
    """

    query: str
    site: str
    database: Path
    columns: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Names of its columns, in NFC and trimmed."""
        return tuple(column_name(name) for name in self.columns)

    def num_records(self) -> None:
        """Unknown before it is read."""
        return

    def chunks(self, columns: Collection[str] | None = None) -> Iterator[pd.DataFrame]:
        """Its rows in pieces; raises `ConfigError` and `DataError` as `sql_source` does."""
        positions = column_positions(self.columns, columns, self.site)
        kept = list(positions.values())
        with self._executed() as cursor:
            is_first = True
            while rows := cursor.fetchmany(chunk_records(len(self.columns))) or ([] if is_first else None):
                is_first = False
                yield _frame(rows, list(positions), kept)
            if is_first:
                yield _frame([], list(positions), kept)

    def read_columns(self) -> tuple[str, ...]:
        """Names of the query's columns, as the query gives them."""
        with self._executed() as cursor:
            return tuple(str(column[0]) for column in cursor.description or ())

    @contextmanager
    def _executed(self) -> Iterator[sqlite3.Cursor]:
        try:
            uri = f"file:{quote(str(self.database))}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True)) as connection:
                connection.set_authorizer(_allows)
                yield connection.execute(self.query)
        except (sqlite3.Error, sqlite3.Warning, UnicodeDecodeError, OverflowError) as error:
            raise ConfigError(
                f"site {self.site!r}: the query is refused, or the database cannot be read ({type(error).__name__}); "
                "try it in the sqlite3 program"
            ) from None


def _frame(rows: Sequence[Sequence[object]], names: list[str], positions: list[int]) -> pd.DataFrame:
    columns = [pd.Series([row[position] for row in rows], dtype=object) for position in positions]
    if not columns:
        return pd.DataFrame(index=range(len(rows)))
    frame = pd.concat(columns, axis=1)
    frame.columns = pd.Index(names, dtype=object)
    return frame


def _allows(action: int, *_: object) -> int:
    return sqlite3.SQLITE_OK if action in _SQLITE_ALLOWED else sqlite3.SQLITE_DENY


def _named(source: DuckDBSource) -> DuckDBSource:
    columns = source.read_columns()
    return DuckDBSource(
        query=source.query, site=source.site, database=source.database, records=source.records, columns=columns
    )


def _named_sqlite(source: SQLiteSource) -> SQLiteSource:
    return SQLiteSource(query=source.query, site=source.site, database=source.database, columns=source.read_columns())


def _one_select(query: str, site: str) -> str:
    """The query without its last semicolon.

    Raises:
        ConfigError: not exactly one SELECT.
    """
    try:
        with connected() as connection:
            statements = connection.extract_statements(query)
    except (duckdb.Error, UnicodeEncodeError) as error:
        raise ConfigError(f"site {site!r}: not SQL: {str(error).splitlines()[0]}") from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise ConfigError(f"site {site!r}: a query must be exactly one SELECT")
    return query.strip().rstrip(";")
