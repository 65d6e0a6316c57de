"""DuckDB connections of the sources, and how its rows come out in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pandas as pd

from wardround.data.sources.source import chunk_records

MEMORY_LIMIT = "4GB"
"""What DuckDB may take beside the table that is being built."""

_VECTOR_RECORDS = 2048  # DuckDB hands rows out in vectors of this many
_FILES = ":memory:wardround-files"  # one for all files: starting it takes longer than reading a small one


@contextmanager
def reading_files() -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that reads files. While one is open, others begin at once.

    Raises:
        duckdb.Error: the database cannot be opened.
    """
    with _connected(_FILES, is_read_only=False) as connection:
        yield connection


@contextmanager
def connected(database: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to a database file, read-only, or to nothing but memory. It loads and installs no extension.

    Raises:
        duckdb.Error: the database cannot be opened.
    """
    with _connected(":memory:" if database is None else str(database), is_read_only=database is not None) as connection:
        yield connection


@contextmanager
def _connected(name: str, *, is_read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "allow_community_extensions": "false",
        "python_enable_replacements": "false",
        "memory_limit": MEMORY_LIMIT,
    }
    connection = duckdb.connect(name, read_only=is_read_only, config=config)
    try:
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET TimeZone = 'UTC'")
        yield connection
    finally:
        connection.close()


def chunks_of(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> Iterator[pd.DataFrame]:
    """The rows of what was just executed, in pieces, of which there is at least one; columns named `names`.

    Raises:
        duckdb.Error: reading on fails.
    """
    num_vectors = max(1, chunk_records(len(names)) // _VECTOR_RECORDS)
    is_first = True
    while True:
        chunk = connection.fetch_df_chunk(num_vectors)
        if not len(chunk) and not is_first:
            return
        chunk.columns = pd.Index(names, dtype=object)
        yield chunk
        if not len(chunk):
            return
        is_first = False


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
