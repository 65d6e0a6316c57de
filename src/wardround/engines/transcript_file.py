"""Transcripts of secure sums on disk: lines are only ever added, and are there when `record` returns."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from wardround.errors import StoreError
from wardround.privacy.secagg.account import Account
from wardround.privacy.secagg.audit import verify
from wardround.privacy.secagg.keys import SigningKey
from wardround.privacy.secagg.manifest import Manifest
from wardround.privacy.secagg.recording import closed_entry, setup_entries
from wardround.privacy.secagg.transcript import MAX_LINE_BYTES, START, Entry, to_line

SUFFIX = ".wardround-transcript"


class TranscriptFile:
    """A transcript that is written as the sums go on; one file a set-up, with all its runs.

    Guarantees:
        transcript_survives_a_crash: whenever the process ends, the file holds every entry recorded before.
        transcript_is_only_added_to: no file that exists is replaced, and no whole line changed.
    """

    def __init__(self, path: Path, manifest: Manifest, chain: bytes, num_bytes: int) -> None:
        self.path = path
        self._manifest = manifest
        self._chain = chain
        self._num_bytes = num_bytes
        self._is_closed = False

    @classmethod
    def create(cls, path: Path, manifest: Manifest, setup: tuple[Sequence[bytes], Sequence[bytes]]) -> TranscriptFile:
        """Start a transcript.

        Args:
            path: where nothing is yet.
            manifest: of the sums.
            setup: the messages advertise_keys and encapsulate of all sites, each in the roster's order.

        Raises:
            StoreError: something is there, or it cannot be written.
        """
        try:
            path.open("xb").close()
        except FileExistsError:
            raise StoreError(f"{path} exists, and a transcript is never written over; choose another name") from None
        except OSError as error:
            raise _unwritten(path, error) from error
        _sync_folder(path.parent)
        new = cls(path, manifest, START, 0)
        new.record(setup_entries(manifest, *setup))
        return new

    @classmethod
    def create_in(
        cls, folder: Path, stem: str, manifest: Manifest, setup: tuple[Sequence[bytes], Sequence[bytes]]
    ) -> TranscriptFile:
        """As `create`, under the first name in a folder that is free: `STEM`, `STEM-2`, `STEM-3`, ..."""
        number, path = 1, folder / f"{stem}{SUFFIX}"
        while path.exists():
            number += 1
            path = folder / f"{stem}-{number}{SUFFIX}"
        return cls.create(path, manifest, setup)

    @classmethod
    def reopen(cls, path: Path, manifest: Manifest) -> TranscriptFile:
        """Go on with a transcript after a crash; a last line that is not whole is cut off.

        Raises:
            StoreError: the file cannot be read or written, or the transcript is closed.
            TranscriptRefusedError: it was altered, or is of another manifest.
        """
        account = verify_file(path, manifest=manifest)
        if account.is_closed:
            raise StoreError(f"{path} is closed: nothing can be added to it; start another transcript")
        old = cls(path, manifest, account.chain, account.num_bytes)
        if account.num_bytes_cut:
            old._cut_to_whole_lines()
        return old

    def record(self, entries: Sequence[Entry]) -> None:
        """Add entries; they are on disk when this returns.

        Raises:
            StoreError: they cannot be written, or the transcript is closed.
        """
        if self._is_closed:
            raise StoreError(f"{self.path} is closed: nothing can be added to it")
        lines, chain = [], self._chain
        for entry in entries:
            line, chain = to_line(entry, chain)
            lines.append(line)
        self._append(b"".join(lines))
        self._chain = chain

    def close(self, signing_seed: bytes) -> None:
        """End it with the coordinator's signature over all of it; `signing_seed` is of its Ed25519 key. Raises so."""
        self.record([closed_entry(self._manifest, SigningKey.from_seed(signing_seed), self._chain)])
        self._is_closed = True

    def _append(self, data: bytes) -> None:
        try:
            with self.path.open("r+b") as file:
                if file.seek(0, os.SEEK_END) != self._num_bytes:
                    raise StoreError(f"{self.path} was changed by somebody else while it was written; keep it as it is")
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self._cut_to_whole_lines()
            raise _unwritten(self.path, error) from error
        self._num_bytes += len(data)

    def _cut_to_whole_lines(self) -> None:
        """After a write that was cut short: what comes next must not follow half a line."""
        try:
            with self.path.open("r+b") as file:
                file.truncate(self._num_bytes)
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritten(self.path, error) from error


def _unwritten(path: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot write the transcript {path}: {error.strerror or type(error).__name__}")


def _sync_folder(folder: Path) -> None:
    """A new file's name is on disk, too, where the system lets us see to it."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def verify_file(path: Path, *, manifest: Manifest | None = None, fingerprint: bytes | None = None) -> Account:
    """Verify a transcript on disk, line by line: `audit.verify`.

    Raises:
        StoreError: the file cannot be read.
        TranscriptRefusedError: names the line and the rule.
    """
    return verify(_lines(path), manifest=manifest, fingerprint=fingerprint)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                yield line
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreError(f"cannot read the transcript {path}: {reason}") from error
