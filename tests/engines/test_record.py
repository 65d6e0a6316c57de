"""Replay and resume, from memory and from disk, after a crash at every round."""

import dataclasses
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.samples import VOCABULARY, Roster, Trained, hospitals, mean, moments, train, update, wander
from wardround.engines.record import RunRecord, replay
from wardround.engines.record_file import RecordFile, load_record, save_record
from wardround.engines.script import Event
from wardround.engines.simulation import Progress, Simulation
from wardround.errors import ConfigError, LocalProtocolError, RemoteProtocolError, StoreError
from wardround.sums import Ask, Snapshot, Steps, Vocabulary, ask, workflow
from wardround.sums.message import pack_ask, pack_snapshot, pack_total
from wardround.testing import fingerprint

SITES = hospitals(3)
ROSTER = Roster(tuple(SITES))
ANALYSES = [mean(rounds=4), train(rounds=7, every=2), wander(rounds=4)]
SCRIPT = [
    Event(site="site_1", behaviour="lags", round=2, seconds=99),
    Event(site="site_2", behaviour="garbage", round=3),
    Event(site="site_0", behaviour="drops_after", round=4),
]
IDS = [analysis.name for analysis in ANALYSES]


class CrashError(Exception):
    """The end of the process."""


def federation(**options: Any) -> Simulation:
    return Simulation(SITES, ROSTER, seed=3, minimum_sites=1, script=SCRIPT, **options)


def crashing(number: int) -> Simulation:
    def crash(progress: Progress) -> None:
        if progress.round.number == number:
            raise CrashError

    return federation(progress=crash)


def contents(record: RunRecord) -> list[Any]:
    rounds = [
        (r.number, pack_ask(r.ask), pack_total(r.total), dict(r.failures), r.bytes_up, r.seconds) for r in record.rounds
    ]
    snapshot = record.snapshot and pack_snapshot(record.snapshot)
    return [
        record.run_id,
        record.workflow,
        record.version,
        record.sites,
        rounds,
        snapshot,
        record.rounds_before_snapshot,
    ]


@pytest.mark.parametrize("analysis", ANALYSES, ids=IDS)
def test_a_record_replays_to_the_same_result(analysis: Any) -> None:
    run = federation().record(analysis)
    whole = dataclasses.replace(run.record, snapshot=None, rounds_before_snapshot=0)
    for record in (run.record, whole, run.record.since_snapshot()):
        assert fingerprint(replay(analysis, ROSTER, record)) == fingerprint(run.result)


@pytest.mark.parametrize("analysis", ANALYSES, ids=IDS)
def test_a_record_survives_the_disk(analysis: Any, tmp_path: Path) -> None:
    run = federation().record(analysis)
    save_record(run.record, tmp_path / "a.run")
    loaded = load_record(tmp_path / "a.run", VOCABULARY)
    assert contents(loaded) == contents(run.record)
    assert fingerprint(replay(analysis, ROSTER, loaded)) == fingerprint(run.result)


@pytest.mark.parametrize("analysis", ANALYSES, ids=IDS)
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_resumed_run_equals_uninterrupted(analysis: Any, number: int, tmp_path: Path) -> None:
    expected = federation().record(analysis)
    path = tmp_path / "a.run"
    broken = crashing(number)
    with pytest.raises(CrashError):
        broken.record(analysis, save_to=path)
    # In a new process, from the file and into the same file; and in the old one, which kept the sites' state.
    for again in (federation(), broken):
        resumed = again.record(
            analysis, resume=load_record(path, VOCABULARY), save_to=path if again is broken else None
        )
        assert fingerprint(resumed.result) == fingerprint(expected.result)
        assert {r.number: pack_total(r.total) for r in expected.record.rounds}.items() >= {
            r.number: pack_total(r.total) for r in resumed.record.rounds
        }.items()
        assert resumed.record.rounds[-1].number == len(expected.record.rounds)
    assert fingerprint(replay(analysis, ROSTER, load_record(path, VOCABULARY))) == fingerprint(expected.result)


def test_record_survives_a_crash(tmp_path: Path) -> None:
    """At whatever moment: every round that was reported is in the file, and later ones are not."""
    path = tmp_path / "a.run"
    seen: list[int] = []

    def look(progress: Progress) -> None:
        seen.append(progress.round.number)
        assert [r.number for r in load_record(path, VOCABULARY).rounds] == seen

    Simulation(SITES, ROSTER, progress=look).record(mean(rounds=4), save_to=path)
    assert seen == [1, 2, 3, 4]


def test_a_crash_while_a_run_is_resumed_into_its_own_file_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.run"
    with pytest.raises(CrashError):
        crashing(3).record(mean(rounds=4), save_to=path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(CrashError):
            federation().record(mean(rounds=4), resume=load_record(path, VOCABULARY), save_to=path)
    assert path.read_bytes() == before
    federation().record(mean(rounds=4), resume=load_record(path, VOCABULARY), save_to=path)
    assert len(load_record(path, VOCABULARY).rounds) == 4
    assert [child.name for child in tmp_path.iterdir()] == ["a.run"]


def test_a_snapshot_makes_rounds_before_it_unnecessary(tmp_path: Path) -> None:
    path = tmp_path / "a.run"
    with pytest.raises(CrashError):
        crashing(5).record(train(rounds=7, every=2), save_to=path)
    loaded = load_record(path, VOCABULARY)
    assert [r.number for r in loaded.rounds] == [5]
    assert loaded.rounds_before_snapshot == 4
    assert loaded.snapshot is not None
    assert loaded.snapshot.state.rounds == 4


def test_a_snapshot_is_as_it_was_when_it_was_taken() -> None:
    record = federation().record(train(rounds=5, every=2)).record  # `train` goes on adding to the state's array
    assert record.snapshot is not None
    assert record.snapshot.state.params.tolist() == record.rounds[4].ask.arguments["params"].tolist()


@workflow("forgetful", version=1)
def forgetful(setting: Roster, snapshot: Trained | None = None) -> Steps[float]:
    """Stateful asks and a snapshot between them."""
    from tests.samples import drift

    state = snapshot or Trained(np.zeros(2), 0)
    for i in range(state.rounds, 4):
        total = yield from ask(drift, 0.5)
        yield Snapshot(Trained(total.sum.moved, i + 1))
    return float(total.sum.moved[0])


def test_lost_state_of_the_sites_is_not_silently_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.run"
    broken = crashing(2)
    with pytest.raises(CrashError):
        broken.record(forgetful(), save_to=path)
    with pytest.raises(CrashError):  # after the snapshot of round 2
        crashing(3).record(forgetful(), save_to=tmp_path / "b.run")
    words = Vocabulary(VOCABULARY.functions, {"forgetful": forgetful})
    with pytest.raises(LocalProtocolError, match=r"drift\.step@1 needs what the sites remembered before the snapshot"):
        federation().record(forgetful(), resume=load_record(tmp_path / "b.run", words))
    expected = federation().record(forgetful()).result
    assert broken.record(forgetful(), resume=load_record(path, words)).result == expected


def test_an_older_record_is_not_resumed_with_newer_state() -> None:
    rounds: list[Any] = []
    broken = Simulation(SITES, ROSTER, progress=lambda p: rounds.append(p.round) or (len(rounds) == 4 and 1 / 0))
    with pytest.raises(ZeroDivisionError):
        broken.record(wander(rounds=5))
    (run_id,) = broken._unfinished
    record = RunRecord(run_id=run_id, workflow="wander", version=1, sites=ROSTER.sites, rounds=tuple(rounds[:2]))
    expected = Simulation(SITES, ROSTER).run(wander(rounds=5))
    assert broken.record(wander(rounds=5), resume=record).result == expected


# Records that do not fit


def recorded() -> RunRecord:
    return Simulation(SITES, ROSTER).record(mean(rounds=3)).record


@pytest.mark.parametrize(
    ("analysis", "changed", "message"),
    [
        (train(), {}, "the record is of mean version 1"),
        (mean(rounds=3), {"version": 2}, "the record is of mean version 2"),
        (mean(rounds=3), {"sites": ("elsewhere",)}, "at elsewhere"),
        (mean(num_columns=3, rounds=3), {}, "round 1: the workflow asks something else"),
        (mean(rounds=4), {}, "the record ends before the workflow does"),
        (mean(rounds=2), {}, "the workflow ended before round 3"),
    ],
)
def test_another_runs_record_is_refused(analysis: Any, changed: dict[str, Any], message: str) -> None:
    record = dataclasses.replace(recorded(), **changed)
    with pytest.raises(LocalProtocolError, match=message):
        replay(analysis, ROSTER, record)
    if "ends before" not in message:
        with pytest.raises(LocalProtocolError, match=message):
            Simulation(SITES, ROSTER).record(analysis, resume=record)


def test_a_record_with_a_gap_is_refused() -> None:
    record = recorded()
    gap = dataclasses.replace(record, rounds=(record.rounds[0], record.rounds[2]))
    with pytest.raises(LocalProtocolError, match=r"lacks rounds: it holds \[1, 3\] after round 0"):
        replay(mean(rounds=3), ROSTER, gap)


def test_long_runs_take_time_in_proportion(tmp_path: Path) -> None:
    """Counted in copies of the record's rounds, not in seconds: the record is put together once."""
    sizes: list[int] = []

    class Counted(tuple[Any, ...]):
        __slots__ = ()

        def __new__(cls, items: Any) -> "Counted":
            made = super().__new__(cls, items)
            sizes.append(len(made))
            return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wardround.engines.simulation.tuple", Counted, raising=False)
        run = Simulation(SITES, ROSTER).record(mean(rounds=50))
    assert len(run.record.rounds) == 50
    assert sizes.count(50) == 1
    assert max(sizes[:-1]) == 3  # the names of the sites


# Files that are not records


def test_what_is_not_a_record_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("the only copy of something")
    empty = tmp_path / "empty"
    empty.touch()
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE patients (id)")
    connection.close()
    for path in (other, empty, foreign, tmp_path):
        before = path.read_bytes() if path.is_file() else b""
        with pytest.raises(StoreError, match="exists and is not a run record; choose another file"):
            save_record(recorded(), path)
        with pytest.raises((RemoteProtocolError, StoreError)):
            load_record(path, VOCABULARY)
        assert not path.is_file() or path.read_bytes() == before
    with pytest.raises(StoreError, match="there is no run record"):
        load_record(tmp_path / "nowhere", VOCABULARY)
    with pytest.raises(StoreError, match="cannot read or write"):
        save_record(recorded(), tmp_path / "no folder" / "a.run")


def test_a_record_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a run, with spaces? & #more%20.run"
    save_record(recorded(), path)
    save_record(Simulation(SITES, ROSTER).record(mean(rounds=1)).record, path)
    assert len(load_record(path, VOCABULARY).rounds) == 1
    RecordFile.create(path, recorded())
    assert len(load_record(path, VOCABULARY).rounds) == 3


def test_functions_must_be_installed(tmp_path: Path) -> None:
    save_record(recorded(), tmp_path / "a.run")
    with pytest.raises(ConfigError, match="unknown workflow 'mean'"):
        load_record(tmp_path / "a.run", Vocabulary(VOCABULARY.functions, {}))
    with pytest.raises(ConfigError, match=r"unknown site function 'sample\.moments@1'"):
        load_record(tmp_path / "a.run", Vocabulary({}, VOCABULARY.workflows))


CELLS = st.one_of(
    st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=5), st.binary(max_size=9),
    st.sampled_from(("[" * 10_000, '["site_0", "site_0"]', '{"a": 1}', "{}", "[1]", "9" * 5000, 10**12)),
    st.sampled_from([pack_ask(Ask(moments, {"center": np.zeros(2)})),
                     pack_ask(Ask(update, {"params": np.zeros(2), "clip": -1.0, "bits": 99}))]),
)  # fmt: skip
COLUMNS = [
    ("run", name) for name in ("run_id", "workflow", "version", "sites", "snapshot", "rounds_before_snapshot")
] + [("round", name) for name in ("ask", "total", "failures", "bytes_up", "seconds")]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "a.run"
    save_record(federation().record(train(rounds=3, every=2)).record, path)
    return path


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(COLUMNS), CELLS)
def test_hostile_cells_raise_only_our_errors(saved: Path, tmp_path: Path, column: tuple[str, str], cell: Any) -> None:
    path = tmp_path / "hostile.run"
    path.write_bytes(saved.read_bytes())
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute(f"UPDATE {column[0]} SET {column[1]} = ?", (cell,))
    except sqlite3.IntegrityError:
        return  # the schema itself refuses
    finally:
        connection.close()
    try:
        record = load_record(path, VOCABULARY)
    except (RemoteProtocolError, ConfigError, StoreError):
        return
    assert isinstance(record.version, int)
    assert all(isinstance(site, str) for site in record.sites)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 40_000), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6))
def test_damaged_files_raise_only_our_errors(saved: Path, tmp_path: Path, damage: list[tuple[int, bytes]]) -> None:
    path = tmp_path / "damaged.run"
    content = bytearray(saved.read_bytes())
    for place, junk in damage:
        start = place % len(content)
        content[start : start + len(junk)] = junk
    path.write_bytes(content)
    try:
        record = load_record(path, VOCABULARY)
    except (RemoteProtocolError, ConfigError, StoreError):
        return
    assert json.dumps(record.sites)


def test_a_view_in_a_tables_place_is_no_record(saved: Path, tmp_path: Path) -> None:
    """It could give rows without end."""
    path = tmp_path / "view.wardround-run"
    path.write_bytes(saved.read_bytes())
    endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n, x'', x'', '{}', 1, 1.0 FROM r"
    connection = sqlite3.connect(path)
    connection.executescript(
        f"DROP TABLE round; CREATE VIEW round(number, ask, total, failures, bytes_up, seconds) AS {endless}"
    )
    connection.close()
    with pytest.raises(RemoteProtocolError, match="is not a run record"):
        load_record(path, VOCABULARY)
