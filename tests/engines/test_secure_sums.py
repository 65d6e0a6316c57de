"""Secure sums in the simulation: the same totals bit for bit, whoever is lost, and nothing else for the coordinator."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

import wardround as wr
from tests.report.conftest import EVERY_WORKFLOW, ward_table
from tests.samples import VOCABULARY, Roster, hospitals, mean, moments, train, wander
from wardround.engines.entropy import SystemEntropy
from wardround.engines.record_file import load_record
from wardround.engines.script import Event
from wardround.engines.secure_sum import Loss, SecureFederation, SecureSum
from wardround.engines.simulation import Run, Simulation
from wardround.engines.transcript_file import verify_file
from wardround.errors import ConfigError, MessageRefusedError, QuorumError, WardroundError
from wardround.privacy.disclosure import DisclosureRules
from wardround.privacy.protection import PLAIN, SumProtection
from wardround.privacy.secagg import coordinator
from wardround.privacy.secagg.terms import Terms
from wardround.privacy.secagg.vector import to_words
from wardround.studies.extensions import installed_vocabulary
from wardround.studies.study import parse_study
from wardround.sums import Array, Contribution, Steps, ask, exact, workflow
from wardround.sums.contribution import layout_of
from wardround.sums.message import pack_total
from wardround.testing import fingerprint

LOSSES = ("drops_before", "drops_uploading", "drops_before_consistency", "drops_before_unmask", "drops_after")


class Nothing(Contribution):
    """A vector without a word."""

    numbers: Array = exact("size")


def simulation(num_sites: int, *, secure: bool, **options: Any) -> Simulation:
    sites = hospitals(num_sites)
    return Simulation(sites, Roster(tuple(sites)), secure=secure, **options)


@workflow("three_times", version=1)
def three_times(setting: Roster) -> Steps[float]:
    """The same ask again and again, as an analysis puts it that loses a site and starts again."""
    total = 0.0
    for _ in range(3):
        total += (yield from ask(moments, np.zeros(2))).sum.square
    return total


def totals(run: Run[Any]) -> list[bytes]:
    return [pack_total(round_.total) for round_ in run.record.rounds]


def study(*analyses: dict[str, Any]) -> Any:
    head = {"name": "Secure", "question": "Are they the same?"}
    document = {"study": head, "disclosure": {"allows_site_results": True}, "analysis": list(analyses)}
    return parse_study(tomli_w.dumps(document), installed_vocabulary())


@pytest.fixture(scope="module")
def wards() -> dict[bool, Simulation]:
    tables = {name: ward_table(number) for number, name in enumerate(("North", "South", "East"))}
    return {
        secure: wr.simulate(tables, disclosure=study(*EVERY_WORKFLOW).disclosure, secure=secure)
        for secure in (False, True)
    }


@pytest.mark.parametrize("analysis", EVERY_WORKFLOW, ids=lambda one: f"{one['workflow']}-{one['title']}")
def test_masked_equals_unmasked(wards: dict[bool, Simulation], analysis: dict[str, Any]) -> None:
    whole = study(analysis).analyses[0].workflow
    outcomes: dict[bool, Any] = {}
    for secure, federation in wards.items():
        try:
            run = federation.record(whole)
        except WardroundError as error:
            outcomes[secure] = (type(error), str(error))
        else:
            outcomes[secure] = (totals(run), fingerprint(run.result))
    assert outcomes[True] == outcomes[False]


@pytest.mark.parametrize("analysis", [mean(rounds=4), train(rounds=4), wander()], ids=lambda one: one.name)
@pytest.mark.parametrize("loss", LOSSES)
def test_masked_equals_unmasked_when_sites_are_lost(analysis: Any, loss: Any) -> None:
    script = [
        Event(site="site_1", behaviour=loss, round=2),
        Event(site="site_4", behaviour=loss, round=3),
        Event(site="site_0", behaviour="lags", round=1, seconds=99.0),
    ]
    options: dict[str, Any] = {"script": script, "minimum_sites": 5, "seed": 3}
    protections = {False: PLAIN, True: SumProtection(allows_repeats=True)}
    runs = {
        secure: simulation(7, secure=False, protection=protection, **options).record(analysis)
        for secure, protection in protections.items()
    }
    assert totals(runs[True]) == totals(runs[False])
    assert fingerprint(runs[True].result) == fingerprint(runs[False].result)
    for masked, plain in zip(runs[True].record.rounds, runs[False].record.rounds, strict=True):
        assert masked.total.sites == plain.total.sites
        assert set(masked.failures) == set(plain.failures)


@pytest.mark.parametrize("loss", [None, *LOSSES])
def test_buckets_are_secure_sums_of_their_own(loss: Any) -> None:
    script = [Event(site=f"site_{i}", behaviour=loss, round=2) for i in (1, 12)] if loss else []
    plain, masked = (
        simulation(
            16,
            secure=False,
            script=script,
            minimum_sites=12,
            protection=SumProtection(secure_sums=secure, bucket_size=4, allows_repeats=True if secure else None),
        )
        for secure in (False, True)
    )
    assert totals(masked.record(train(rounds=3))) == totals(plain.record(train(rounds=3)))


def test_the_same_is_not_asked_again_over_other_sites() -> None:
    options: dict[str, Any] = {"script": [Event(site="site_1", behaviour="drops_before", round=2)], "minimum_sites": 5}
    open_ = simulation(7, secure=False, protection=SumProtection(allows_repeats=True), **options).run(three_times())
    assert fingerprint(open_) == fingerprint(simulation(7, secure=False, **options).run(three_times()))
    with pytest.raises(MessageRefusedError, match=r"rule same_ask.*let all sites agree to allows_repeats = true"):
        simulation(7, secure=False, protection=SumProtection(allows_repeats=False), **options).run(three_times())
    with pytest.raises(ConfigError, match="minimum_sites is 5 of 7"):
        simulation(7, secure=True, **options)


def test_too_few_left_for_their_shares_is_said() -> None:
    script = [Event(site=f"site_{i}", behaviour="drops_before_unmask", round=1) for i in (0, 1)]
    with pytest.raises(
        QuorumError, match=r"round 1 .*: the secure sum .* 2 sites released their shares, at least 3 must"
    ):
        simulation(4, secure=True, script=script).run(mean())


def test_who_is_lost_while_it_uploads_an_empty_vector_is_not_in_the_sum() -> None:
    entropy, names = SystemEntropy(), ("a", "b", "c", "d")
    federation = SecureFederation(names, Terms.of(4), entropy)
    layout = layout_of(Nothing, {"size": 0})
    sum_ = SecureSum(
        federation=federation,
        run=federation.new_run(),
        number=1,
        roster=names,
        broadcast=b"nothing",
        layout=layout,
        num_sites=4,
        losses={"b": Loss.UPLOADING},
    )
    for name in names:
        sum_.add(name, layout.flatten(Nothing(numbers=np.zeros(0))), None)
    assert sum_.close().sites == ("a", "c", "d")
    assert set(sum_.left_out) == {"b"}


def test_too_few_sites_are_refused_when_it_is_written() -> None:
    with pytest.raises(ConfigError, match="fewer than 3 sites cannot be secure"):
        simulation(2, secure=True)
    with pytest.raises(ConfigError, match="minimum_sites"):
        simulation(3, secure=True, minimum_sites=2)
    with pytest.raises(ValueError, match="give one of the two"):
        simulation(3, secure=True, protection=SumProtection())


def test_runs_can_be_resumed() -> None:
    federation = simulation(4, secure=True)
    whole = federation.record(mean(rounds=4))
    again = federation.record(mean(rounds=4), resume=whole.record)
    assert fingerprint(again.result) == fingerprint(whole.result)
    first = whole.record.rounds[:2]
    part = dataclasses.replace(whole.record, rounds=first)
    resumed = simulation(4, secure=True).record(mean(rounds=4), resume=part)
    assert totals(resumed) == totals(whole)


def test_a_run_whose_round_broke_is_resumed_where_it_was(tmp_path: Path) -> None:
    script = [Event(site=f"site_{i}", behaviour="drops_before_unmask", round=2) for i in (0, 1)]
    protection = SumProtection(allows_repeats=True)
    options: dict[str, Any] = {"secure": False, "protection": protection, "minimum_sites": 3, "transcripts": tmp_path}
    broken = simulation(4, script=script, **options)
    with pytest.raises(QuorumError, match="released their shares"):
        broken.record(mean(rounds=3), save_to=tmp_path / "run")
    with pytest.raises(QuorumError):  # the two are still gone, and nobody is told that it is a replay
        broken.record(mean(rounds=3), resume=load_record(tmp_path / "run", VOCABULARY))
    (closed,) = broken.close_transcripts()
    assert verify_file(closed.path).is_closed


def test_what_travels_is_counted() -> None:
    rounds = {secure: simulation(4, secure=secure).record(mean()).record.rounds[0] for secure in (False, True)}
    assert rounds[True].bytes_up > rounds[False].bytes_up + 4 * 36


def test_transcripts_are_in_a_folder_that_there_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder; make it"):
        simulation(4, secure=True, transcripts=tmp_path / "none")
    assert simulation(4, secure=True, transcripts=str(tmp_path))


def test_a_run_has_one_name_in_record_and_transcript(tmp_path: Path) -> None:
    federation = simulation(4, secure=True, transcripts=tmp_path)
    run = federation.record(mean(rounds=2))
    (closed,) = federation.close_transcripts()
    assert {one.run.hex() for one in verify_file(closed.path).rounds} == {run.record.run_id}


def test_transcripts_are_kept_and_verify(tmp_path: Any) -> None:
    federation = simulation(4, secure=True, transcripts=tmp_path)
    federation.run(mean(rounds=2))
    (first,) = federation.close_transcripts()
    assert verify_file(first.path, fingerprint=bytes.fromhex(first.fingerprint)).is_closed
    federation.run(mean(rounds=2))
    (second,) = federation.close_transcripts()
    assert second.path != first.path
    assert second.fingerprint != first.fingerprint
    assert verify_file(second.path).is_closed
    assert federation.close_transcripts() == ()


def test_who_keeps_out_of_a_run_is_asked_no_more(tmp_path: Path) -> None:
    own = {"site_1": DisclosureRules(minimum_rows_site=1000)}
    federation = simulation(
        5,
        secure=False,
        protection=SumProtection(allows_repeats=False),
        minimum_sites=4,
        site_disclosure=own,
        transcripts=tmp_path,
    )
    federation.run(mean(rounds=2))
    (closed,) = federation.close_transcripts()
    first, second = verify_file(closed.path).rounds
    assert (first.roster, second.roster) == ((0, 1, 2, 3, 4), (0, 2, 3, 4))
    assert first.survivors == second.survivors == (0, 2, 3, 4)


def test_the_systems_randomness_does_not_repeat_itself() -> None:
    entropy = SystemEntropy()
    drawn = b"".join(entropy.random(num_bytes) for num_bytes in (32, 96, 8 * 2**12))
    eights = {drawn[start : start + 8] for start in range(len(drawn) - 7)}
    assert len(eights) == len(drawn) - 7  # two alike: one in 10^10


def test_the_coordinators_machine_is_sent_no_contribution(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    step = coordinator.step

    def watched(state: Any, event: Any) -> Any:
        seen.append(bytes(getattr(event, "message", b"")))
        return step(state, event)

    monkeypatch.setattr(coordinator, "step", watched)
    sites = hospitals(4)
    run = Simulation(sites, Roster(tuple(sites)), secure=True).record(mean(num_columns=3, rounds=1))
    ask, arrived = run.record.rounds[0].ask, b"".join(seen)
    for data in sites.values():
        contribution = ask.layout.flatten(moments(data, **ask.arguments))
        sent_in_clear = to_words(contribution, ask.layout, 4, None).tobytes()
        assert len(sent_in_clear) < len(arrived)
        for start in range(0, 16 * ask.layout.num_exact, 16):
            assert sent_in_clear[start : start + 16] not in arrived
