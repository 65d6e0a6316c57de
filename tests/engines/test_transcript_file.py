"""Transcripts on disk: lines are only added, are there after a crash, and are verified as what was recorded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.privacy.secagg.transcript_samples import Sample, sample
from tests.samples import Roster, hospitals, mean
from wardround.engines.script import Event
from wardround.engines.simulation import Simulation
from wardround.engines.transcript_file import TranscriptFile, verify_file
from wardround.errors import StoreError, TranscriptRefusedError
from wardround.privacy.protection import SumProtection
from wardround.privacy.secagg.account import Outcome
from wardround.privacy.secagg.audit import verify
from wardround.privacy.secagg.transcript import MAX_LINE_BYTES, Closed, Refused


def started(path: Path, one: Sample) -> TranscriptFile:
    return TranscriptFile.create(path, one.federation.manifest, one.federation.setup_messages)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sums.wardround-transcript"


def recorded(one: Sample) -> list:
    """What happened after the set-up."""
    return [entry for entry in one.entries[9:] if not isinstance(entry, Closed)]


def test_a_transcript_is_written_as_it_is_made_in_memory(path: Path) -> None:
    one = sample()
    transcript = started(path, one)
    for entry in recorded(one):
        transcript.record([entry])
    transcript.close(one.federation.signing_seed)
    assert path.read_bytes() == b"".join(one.lines)
    assert verify_file(path) == verify(one.lines)
    assert verify_file(path, manifest=one.federation.manifest).is_pinned
    assert verify_file(path, fingerprint=one.federation.manifest.digest).is_pinned


def test_nothing_is_added_to_a_closed_transcript(path: Path) -> None:
    one = sample()
    transcript = started(path, one)
    transcript.close(one.federation.signing_seed)
    before = path.read_bytes()
    for act in (
        lambda: transcript.record([Refused(rule="share", peer="West")]),
        lambda: transcript.close(one.federation.signing_seed),
        lambda: TranscriptFile.reopen(path, one.federation.manifest),
    ):
        with pytest.raises(StoreError, match="closed"):
            act()
    assert path.read_bytes() == before


def test_transcript_is_only_added_to(path: Path) -> None:
    one = sample()
    path.write_bytes(b"something else")
    with pytest.raises(StoreError, match="never written over"):
        started(path, one)
    assert path.read_bytes() == b"something else"
    path.unlink()
    transcript = started(path, one)
    size = path.stat().st_size
    for entry in recorded(one):
        before = path.read_bytes()
        transcript.record([entry])
        assert path.read_bytes().startswith(before)
        assert path.stat().st_size > size
        size = path.stat().st_size


def test_a_free_name_is_found(tmp_path: Path) -> None:
    one = sample()
    setup = (one.federation.manifest, one.federation.setup_messages)
    names = [TranscriptFile.create_in(tmp_path, "000-secure-sums", *setup).path.name for _ in range(3)]
    assert names == [f"000-secure-sums{more}.wardround-transcript" for more in ("", "-2", "-3")]


def test_a_transcript_goes_on_after_a_crash(path: Path) -> None:
    one = sample()
    entries = recorded(one)
    started(path, one).record(entries[:7])
    with path.open("ab") as file:
        file.write(one.lines[16][:-5])
    transcript = TranscriptFile.reopen(path, one.federation.manifest)
    assert path.read_bytes() == b"".join(one.lines[:16])
    transcript.record(entries[7:])
    transcript.close(one.federation.signing_seed)
    assert path.read_bytes() == b"".join(one.lines)


def test_an_altered_transcript_is_not_gone_on_with(path: Path) -> None:
    one = sample()
    started(path, one)
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2'))
    with pytest.raises(TranscriptRefusedError, match="line 1 "):
        TranscriptFile.reopen(path, one.federation.manifest)
    path.unlink()
    started(path, one)
    with pytest.raises(TranscriptRefusedError, match="rule manifest"):
        TranscriptFile.reopen(path, sample(seed=1).federation.manifest)


def test_a_file_that_somebody_else_changes_is_left_as_it_is(path: Path) -> None:
    one = sample()
    transcript = started(path, one)
    changed = path.read_bytes() + b"a line of somebody else\n"
    path.write_bytes(changed)
    with pytest.raises(StoreError, match="by somebody else"):
        transcript.record(recorded(one)[:1])
    assert path.read_bytes() == changed
    path.unlink()
    with pytest.raises(StoreError, match="cannot write"):
        transcript.record(recorded(one)[:1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX limits")
def test_a_full_disk_leaves_whole_lines(path: Path) -> None:
    """A write that is cut short is taken back, so that what follows follows a whole line."""
    program = f"""
import resource, signal
from pathlib import Path
from tests.privacy.secagg.transcript_samples import sample
from wardround.engines.transcript_file import TranscriptFile
from wardround.errors import StoreError
one = sample()
transcript = TranscriptFile.create(Path({str(path)!r}), one.federation.manifest, one.federation.setup_messages)
size = transcript.path.stat().st_size
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 700, resource.RLIM_INFINITY))
try:
    transcript.record(one.entries[9:14])
except StoreError as error:
    assert transcript.path.stat().st_size == size, transcript.path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    transcript.record(one.entries[9:-1])
    transcript.close(one.federation.signing_seed)
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=_root())
    assert "cannot write the transcript" in done.stdout, done.stderr
    assert verify_file(path).is_closed


def test_transcript_survives_a_crash(path: Path) -> None:
    """A process that is killed leaves every entry that it had recorded."""
    program = f"""
import os, signal
from pathlib import Path
from tests.privacy.secagg.transcript_samples import sample
from wardround.engines.transcript_file import TranscriptFile
one = sample()
transcript = TranscriptFile.create(Path({str(path)!r}), one.federation.manifest, one.federation.setup_messages)
for entry in one.entries[9:20]:
    transcript.record([entry])
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, cwd=_root())
    assert done.returncode < 0
    account = verify_file(path)
    assert (account.num_lines, account.num_bytes_cut, account.is_closed) == (20, 0, False)
    assert account.rounds[0].outcome == Outcome.UNFINISHED


def _root() -> Path:
    return Path(__file__).parents[2]


def test_what_is_on_disk_is_refused_line_by_line(path: Path, tmp_path: Path) -> None:
    one = sample()
    for content, line in (
        (b"", 1),
        (b"\n", 1),
        (b"x" * (MAX_LINE_BYTES + 10), 1),
        (b"".join(one.lines[:5]) + b"x" * (MAX_LINE_BYTES + 10), 6),
        (b"".join(one.lines) + b"\n", len(one.lines) + 1),
        (b"".join(one.lines).replace(b"\n", b"\r\n"), 1),
        (b"\0" * 5000, 1),
    ):
        path.write_bytes(content)
        with pytest.raises(TranscriptRefusedError) as caught:
            verify_file(path)
        assert caught.value.line == line, content[:20]
    with pytest.raises(StoreError, match="cannot read"):
        verify_file(tmp_path / "absent")
    with pytest.raises(StoreError, match="cannot read"):
        verify_file(tmp_path)
    with pytest.raises(StoreError, match="cannot write"):
        started(tmp_path / "absent" / "file", one)


def test_a_simulation_keeps_transcripts(tmp_path: Path) -> None:
    """Sites are lost at every step of a sum; the transcript tells who is in which total."""
    data = hospitals(7)
    names = tuple(data)
    script = [
        Event(site=names[0], behaviour="drops_uploading", round=2),
        Event(site=names[3], behaviour="drops_before_unmask", round=3),
    ]
    simulation = Simulation(
        data,
        Roster(names),
        protection=SumProtection(allows_repeats=True),
        minimum_sites=5,
        script=script,
        transcripts=tmp_path,
        seed=3,
    )
    result = simulation.run(mean(rounds=4))
    (closed,) = simulation.close_transcripts()
    account = verify_file(closed.path, fingerprint=bytes.fromhex(closed.fingerprint))
    assert account.is_closed
    assert [site.name for site in account.manifest.roster] == list(names)
    assert [(one.round, one.outcome) for one in account.rounds] == [(n, Outcome.TOTAL) for n in (1, 2, 3, 4)]
    assert [one.dropped for one in account.rounds] == [(), (0,), (0,), (3,)]
    assert [one.num_releases for one in account.rounds] == [7, 6, 5, 5]
    assert [len(one.roster) for one in account.rounds] == [7, 7, 7, 6]
    text = closed.path.read_text(encoding="ascii")
    assert not any(repr(value) in text for value in result)
