"""Run records on disk: one SQLite file a run, written round by round, readable after a crash at any moment."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wardround.engines.record import Round, RunRecord
from wardround.errors import ConfigError, RemoteProtocolError, StoreError
from wardround.sums import Snapshot, Vocabulary
from wardround.sums.message import pack_ask, pack_snapshot, pack_total, unpack_ask, unpack_snapshot, unpack_total

_APPLICATION_ID = 0x57524E44
"""Marks a SQLite file as a run record (constant, arbitrary)."""
_SCHEMA = """
CREATE TABLE run (run_id TEXT, workflow TEXT, version INTEGER, sites TEXT,
                  snapshot BLOB, rounds_before_snapshot INTEGER);
CREATE TABLE round (number INTEGER PRIMARY KEY, ask BLOB NOT NULL, total BLOB NOT NULL,
                    failures TEXT NOT NULL, bytes_up INTEGER NOT NULL, seconds REAL NOT NULL);
"""


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            yield connection
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise StoreError(f"cannot read or write the run record {path}: {error}") from error


class RecordFile:
    """A run record that is written as the run goes on."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def create(cls, path: Path, record: RunRecord) -> RecordFile:
        """Start a file with what the record holds so far, replacing a record (and only a record) at `path`.

        Raises:
            StoreError: the file cannot be written, or something else is there.
        """
        if path.exists():
            with _open(path) as connection:
                if connection.execute("PRAGMA application_id").fetchone() != (_APPLICATION_ID,):
                    raise StoreError(f"{path} exists and is not a run record; choose another file")
            path.unlink()
        with _open(path) as connection:
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.executescript(_SCHEMA)
            connection.execute(
                "INSERT INTO run VALUES (?, ?, ?, ?, NULL, 0)",
                (record.run_id, record.workflow, record.version, json.dumps(record.sites)),
            )
        file = cls(path)
        if record.snapshot is not None:
            file.keep_snapshot(record.snapshot, record.rounds_before_snapshot)
        for round_ in record.rounds:
            file.append(round_)
        return file

    def append(self, round_: Round) -> None:
        """Add a finished round; it is on disk when this returns."""
        values = (
            round_.number,
            pack_ask(round_.ask),
            pack_total(round_.total),
            json.dumps(dict(round_.failures)),
            round_.bytes_up,
            round_.seconds,
        )
        with _open(self._path) as connection:
            connection.execute("INSERT INTO round VALUES (?, ?, ?, ?, ?, ?)", values)

    def keep_snapshot(self, snapshot: Snapshot, rounds_before: int) -> None:
        """Replace the snapshot and forget the rounds that it makes unnecessary."""
        with _open(self._path) as connection:
            connection.execute("BEGIN")
            connection.execute(
                "UPDATE run SET snapshot = ?, rounds_before_snapshot = ?", (pack_snapshot(snapshot), rounds_before)
            )
            connection.execute("DELETE FROM round WHERE number <= ?", (rounds_before,))
            connection.execute("COMMIT")


def save_record(record: RunRecord, path: Path) -> None:
    """Write a whole record to a file. Raises `StoreError`."""
    RecordFile.create(path, record)


def load_record(path: Path, vocabulary: Vocabulary) -> RunRecord:
    """Read a record; functions are resolved in `vocabulary`.

    Raises:
        StoreError: the file is missing or cannot be read.
        RemoteProtocolError: it is not a run record, or a message in it is malformed.
        ConfigError: it names a workflow or function that is not installed.
    """
    if not path.is_file():
        raise StoreError(f"there is no run record {path}")
    with _open(path) as connection:
        if connection.execute("PRAGMA application_id").fetchone() != (_APPLICATION_ID,):
            raise RemoteProtocolError(f"{path} is not a run record")
        head = connection.execute("SELECT * FROM run").fetchone()
        rows = connection.execute("SELECT * FROM round ORDER BY number").fetchall()
    return _record(path, head, rows, vocabulary)


def _record(path: Path, head: Any, rows: list[Any], vocabulary: Vocabulary) -> RunRecord:
    try:
        run_id, name, version, sites, snapshot, rounds_before = head
        workflow = vocabulary.workflow(str(name), str(path))
        if snapshot is not None and workflow.snapshot_type is None:
            raise ValueError("snapshot")
        return RunRecord(
            run_id=str(run_id),
            workflow=str(name),
            version=int(version),
            sites=tuple(str(site) for site in json.loads(sites)),
            rounds=tuple(_round(row, vocabulary) for row in rows),
            snapshot=None if snapshot is None else unpack_snapshot(bytes(snapshot), workflow.snapshot_type or object),
            rounds_before_snapshot=int(rounds_before),
        )
    except (ConfigError, RemoteProtocolError):
        raise
    except (ValueError, TypeError, AttributeError) as error:
        raise RemoteProtocolError(f"{path} is not a run record") from error


def _round(row: Any, vocabulary: Vocabulary) -> Round:
    number, ask_message, total_message, failures, bytes_up, seconds = row
    ask = unpack_ask(bytes(ask_message), vocabulary)
    return Round(
        number=int(number),
        ask=ask,
        total=unpack_total(bytes(total_message), ask.layout),
        failures={str(site): str(reason) for site, reason in json.loads(failures).items()},
        bytes_up=int(bytes_up),
        seconds=float(seconds),
    )
