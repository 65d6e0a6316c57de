"""Run records on disk: one SQLite file a run, written round by round, readable after a crash at any moment."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from wardround.engines.record import Round, RunRecord
from wardround.errors import RemoteProtocolError, StoreError
from wardround.sums import Snapshot, Vocabulary
from wardround.sums.message import pack_ask, pack_snapshot, pack_total, unpack_ask, unpack_snapshot, unpack_total
from wardround.sums.parameters import read_json

T = TypeVar("T")

_APPLICATION_ID = 0x57524E44
"""Marks a SQLite file as a run record (constant, arbitrary)."""
_SCHEMA = (
    """CREATE TABLE run (run_id TEXT, workflow TEXT, version INTEGER, sites TEXT,
                  snapshot BLOB, rounds_before_snapshot INTEGER)""",
    """CREATE TABLE round (number INTEGER PRIMARY KEY, ask BLOB NOT NULL, total BLOB NOT NULL,
                    failures TEXT NOT NULL, bytes_up INTEGER NOT NULL, seconds REAL NOT NULL)""",
)
_ADD_ROUND = "INSERT INTO round VALUES (?, ?, ?, ?, ?, ?)"


# For reading, too, a file is opened to be written: the rest of a write that a crash cut short is rolled back.
@contextmanager
def _open(path: Path, *, mode: str = "rw") -> Iterator[sqlite3.Connection]:
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None)
        try:
            yield connection
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreError(f"cannot read or write the run record {path}: {error}") from error


class RecordFile:
    """A run record that is written as the run goes on.

    Guarantees:
        record_survives_a_crash: whenever the process ends, the file holds every round appended before.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def create(cls, path: Path, record: RunRecord) -> RecordFile:
        """Start a file with what resuming the record needs, replacing a record (and only a record) at `path`.

        Raises:
            StoreError: the file cannot be written, or something else is there.
        """
        save_record(record.since_snapshot(), path)
        return cls(path)

    def append(self, round_: Round) -> None:
        """Add a finished round; it is on disk when this returns. Raises `StoreError`."""
        with _open(self._path) as connection:
            connection.execute(_ADD_ROUND, _row(round_))

    def keep_snapshot(self, snapshot: Snapshot, rounds_before: int) -> None:
        """Replace the snapshot and forget the rounds that it makes unnecessary. Raises `StoreError`."""
        with _open(self._path) as connection:
            connection.execute("BEGIN")
            connection.execute(
                "UPDATE run SET snapshot = ?, rounds_before_snapshot = ?", (pack_snapshot(snapshot), rounds_before)
            )
            connection.execute("DELETE FROM round WHERE number <= ?", (rounds_before,))
            connection.execute("COMMIT")


def _is_record(path: Path) -> bool:
    try:
        with _open(path) as connection:
            return bool(connection.execute("PRAGMA application_id").fetchone() == (_APPLICATION_ID,))
    except StoreError:
        return False


def _write(path: Path, record: RunRecord) -> None:
    snapshot = None if record.snapshot is None else pack_snapshot(record.snapshot)
    head = (record.run_id, record.workflow, record.version, json.dumps(record.sites))
    with _open(path, mode="rwc") as connection:
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("BEGIN")
        connection.execute(
            "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?)", (*head, snapshot, record.rounds_before_snapshot)
        )
        connection.executemany(_ADD_ROUND, map(_row, record.rounds))
        connection.execute("COMMIT")


def _row(round_: Round) -> tuple[int, bytes, bytes, str, int, float]:
    return (
        round_.number,
        pack_ask(round_.ask),
        pack_total(round_.total),
        json.dumps(dict(round_.failures)),
        round_.bytes_up,
        round_.seconds,
    )


def save_record(record: RunRecord, path: Path) -> None:
    """Write a whole record to a file, replacing a record (and only a record) there.

    Raises:
        StoreError: the file cannot be written, or something else is there.
    """
    if path.exists() and not _is_record(path):
        raise StoreError(f"{path} exists and is not a run record; choose another file")
    # The old record is replaced by a whole new one or not at all: a run may be resumed into its own file.
    draft = path.with_name(path.name + ".new")
    try:
        draft.unlink(missing_ok=True)
        _write(draft, record)
        draft.replace(path)
    except OSError as error:
        raise StoreError(f"cannot write the run record {path}: {error}") from error


def load_record(path: Path, vocabulary: Vocabulary) -> RunRecord:
    """Read a record; functions are resolved in `vocabulary`.

    Raises:
        StoreError: the file is missing or cannot be read.
        RemoteProtocolError: it is not a run record, or a message in it is malformed.
        ConfigError: it names a workflow or function that is not installed.
    """
    if not path.is_file():
        raise StoreError(f"there is no run record {path}")
    if not _is_record(path):
        raise RemoteProtocolError(f"{path} is not a run record")
    try:
        with _open(path) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            # A view in a table's place could give rows without end.
            if [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema")] != [*_SCHEMA]:
                raise ValueError("schema")
            head = connection.execute("SELECT * FROM run").fetchone()
            rows = connection.execute("SELECT * FROM round ORDER BY number").fetchall()
        return _record(str(path), head, rows, vocabulary)
    except (ValueError, TypeError, RecursionError) as error:
        raise RemoteProtocolError(f"{path} is not a run record") from error


def _record(where: str, head: Any, rows: list[Any], vocabulary: Vocabulary) -> RunRecord:
    run_id, name, version, sites, message, rounds_before = head
    workflow = vocabulary.workflow(_of(str, name), where)
    snapshot = None
    if message is not None:
        if workflow.snapshot_type is None:
            raise ValueError("snapshot")
        snapshot = unpack_snapshot(_of(bytes, message), workflow.snapshot_type)
    return RunRecord(
        run_id=_of(str, run_id),
        workflow=name,
        version=_of(int, version),
        sites=tuple(_of(str, site) for site in _of(list, read_json(_of(str, sites)))),
        rounds=tuple(_round(row, vocabulary) for row in rows),
        snapshot=snapshot,
        rounds_before_snapshot=_of(int, rounds_before),
    )


def _round(row: Any, vocabulary: Vocabulary) -> Round:
    number, ask_message, total_message, failures, bytes_up, seconds = row
    ask = unpack_ask(_of(bytes, ask_message), vocabulary)
    total = unpack_total(_of(bytes, total_message), ask.layout)
    if ask.is_clear and [part.sites for part in total.parts] != [(site,) for site in total.sites]:
        raise ValueError("a clear ask's total has one part a site")
    return Round(
        number=_of(int, number),
        ask=ask,
        total=total,
        failures={site: _of(str, reason) for site, reason in _of(dict, read_json(_of(str, failures))).items()},
        bytes_up=_of(int, bytes_up),
        seconds=_of(float, seconds),
    )


def _of(kind: type[T], value: Any) -> T:
    """A value that must be of this type: SQLite lets any column hold anything."""
    if not isinstance(value, kind):
        raise TypeError(kind.__name__)
    return value
