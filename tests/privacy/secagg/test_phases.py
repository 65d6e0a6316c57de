"""Every message in every phase, and every byte of it: what may not come now, or was altered, changes nothing."""

import contextlib
from dataclasses import replace
from itertools import product

import pytest

from tests.privacy.secagg.lies import (
    machines_of,
    named,
    new_site,
    opened,
    parsed,
    signed,
    survivors_of,
    told,
    without,
)
from tests.privacy.secagg.setup_of import setup_of
from tests.privacy.secagg.two_machines import (
    ASK,
    BOTH_MODES,
    TwoMachines,
    sha256,
    strict,
)
from wardround.errors import LocalProtocolError, MessageRefusedError
from wardround.privacy.secagg import coordinator, site
from wardround.privacy.secagg.coordinator import ChunkArrived, ConsistencyArrived, Phase, UnmaskArrived, UploadArrived
from wardround.privacy.secagg.messages import Chunk, Consistency, Unmask
from wardround.privacy.secagg.wire import COORDINATOR
from wardround.testing.seeded_entropy import SeededEntropy

MODES = pytest.mark.parametrize("mode", BOTH_MODES)


RULES = {
    "malformed",
    "signature",
    "unknown_peer",
    "manifest",
    "context",
    "replayed",
    "roster",
    "out_of_turn",
    "chunk",
    "survivors",
    "too_few_survivors",
    "second_answer",
    "agreement",
    "blob",
    "share",
    "seed",
}


# Altered bytes


def _altered(message: bytes):
    """The message with each byte flipped, cut after each byte, and with something behind it."""
    for place in range(len(message)):
        yield message[:place] + bytes([message[place] ^ (1 + place % 255)]) + message[place + 1 :]
    for end in range(0, len(message), 7):
        yield message[:end]
    yield message + b"\0"
    yield message + message


def _all_refused(machines: TwoMachines, messages, deliver) -> None:
    before = list(machines.sites), machines.round
    for message in messages:
        with pytest.raises(MessageRefusedError) as caught:
            deliver(message)
        assert caught.value.rule in RULES
        assert caught.value.peer.startswith(("site ", COORDINATOR))
    assert before == (machines.sites, machines.round)


@MODES
def test_every_byte_of_every_message_counts(mode):
    """Nothing that was altered, cut or made longer is taken in by anybody."""
    machines = TwoMachines(4, BOTH_MODES[mode](4)).open()
    opening = machines.opened(1)
    _all_refused(machines, _altered(opening.message), lambda m: machines.to_site(1, replace(opening, message=m)))
    _all_refused(
        machines, _altered(opening.broadcast_digest), lambda m: machines.to_site(1, site.Opened(opening.message, m))
    )
    upload, (chunk,) = machines.upload(1)
    _all_refused(machines, _altered(upload), lambda m: machines.to_coordinator(UploadArrived(1, m)))
    machines.receive(1, 0)
    _all_refused(machines, _altered(chunk), lambda m: machines.to_coordinator(ChunkArrived(1, m)))
    machines.to_coordinator(ChunkArrived(1, chunk))
    machines.upload_all((0, 2))
    machines.close()
    survivors = machines.owed(1)
    _all_refused(machines, _altered(survivors), lambda m: machines.to_site(1, site.SurvivorsArrived(m)))
    if machines.is_strict:
        signed_survivors = machines.answer(1)
        deliver = lambda m: machines.to_coordinator(ConsistencyArrived(1, m))  # noqa: E731
        _all_refused(machines, _altered(signed_survivors), deliver)
        _all_refused(machines, _altered(survivors), lambda m: machines.to_site(1, site.SurvivorsArrived(m)))
        machines.answer_all()
        agreement = machines.owed(1)
        _all_refused(machines, _altered(agreement), lambda m: machines.to_site(1, site.AgreementArrived(m)))
    released = machines.answer(1)
    _all_refused(machines, _altered(released), lambda m: machines.to_coordinator(UnmaskArrived(1, m)))
    machines.finish()


# Late, early and repeated


SITE_EVENTS = ("enrol", "advertisements", "encapsulations", "same_opening", "next_attempt", "next_round", "computed",
               "survivors", "other_survivors", "agreement")  # fmt: skip
"""What can come to a site. The survivors and the agreement are those of round 1, attempt 1."""
OK, LOCAL = "taken in", "driver's fault"
SITE_TABLE = {
    # stage or phase: what becomes of each of SITE_EVENTS
    "new": (OK, *["out_of_turn"] * 5, LOCAL, *["out_of_turn"] * 3),
    "advertised": (OK, OK, *["out_of_turn"] * 4, LOCAL, *["out_of_turn"] * 3),
    "encapsulated": (LOCAL, OK, OK, *["out_of_turn"] * 3, LOCAL, *["out_of_turn"] * 3),
    "ready": (LOCAL, "out_of_turn", "out_of_turn", OK, OK, OK, LOCAL, *["context"] * 3),
    "asked": (LOCAL, "out_of_turn", "out_of_turn", OK, OK, OK, OK, *["context"] * 3),
    "masked": (LOCAL, "out_of_turn", "out_of_turn", "replayed", OK, OK, LOCAL, OK, OK, "out_of_turn"),
    "signed": (LOCAL, "out_of_turn", "out_of_turn", "replayed", OK, OK, LOCAL, OK, "second_answer", OK),
    "released": (LOCAL, "out_of_turn", "out_of_turn", "replayed", "replayed", OK, LOCAL, OK, "second_answer", OK),
    "asked again": (LOCAL, "out_of_turn", "out_of_turn", "replayed", "replayed", OK, LOCAL, *["context"] * 3),
}


def _site_states() -> dict[str, site.SiteState]:
    """Site 1 at every moment of its life."""
    setup, entropy = setup_of(5, terms=strict(5)), SeededEntropy(2)
    states = {"new": new_site(setup, 1)}
    states["advertised"], _ = site.step(states["new"], site.Enrol(), entropy)
    arrived = site.AdvertisementsArrived(setup.advertisements)
    states["encapsulated"], _ = site.step(states["advertised"], arrived, entropy)
    machines = machines_of("strict").open()
    states["ready"] = machines.sites[1]
    (compute,) = machines.to_site(1, machines.opened(1))
    states["asked"] = machines.sites[1]
    (upload,) = machines.to_site(1, machines.computed(1, compute.opening))
    states["masked"] = machines.sites[1]
    states |= _answering(machines, upload)
    return states


def _answering(machines: TwoMachines, upload: site.Upload) -> dict[str, site.SiteState]:
    machines.upload_all((0, 2, 3, 4))
    machines.uploads[1] = (
        upload.message,
        [Chunk(context=upload.context, sender=1, number=0, content=upload.words.data.cast("B")).to_bytes()],
    )
    machines.receive(1)
    machines.close()
    events = {"survivors": site.SurvivorsArrived(machines.owed(1))}
    events["other_survivors"] = told(machines, without(survivors_of(machines, 1), 4))
    machines.to_site(1, events["survivors"])
    states = {"signed": machines.sites[1]}
    machines.answer_all()
    events["agreement"] = site.AgreementArrived(machines.owed(1))
    machines.to_site(1, events["agreement"])
    states["released"] = machines.sites[1]
    states["events"] = events
    return states


def _site_events(setup, states) -> dict[str, site.Event]:
    machines = machines_of("strict").open()
    encapsulations = (states["encapsulated"].encapsulation, *setup.encapsulations)
    messages = (encapsulations[1], encapsulations[0], *encapsulations[3:])
    events = {
        "enrol": site.Enrol(),
        "advertisements": site.AdvertisementsArrived(setup.advertisements),
        "encapsulations": site.EncapsulationsArrived(messages),
        "same_opening": machines.opened(1),
        "computed": machines.computed(1),
    }
    ask = ASK
    events["next_attempt"] = opened(machines, ask, attempt=2)
    events["next_round"] = opened(machines, ask, round=2)
    return events | states.pop("events")


def test_every_event_in_every_phase_of_a_site():
    states = _site_states()
    events = _site_events(setup_of(5, terms=strict(5)), states)
    states["asked again"] = _asked_again(states["released"])
    assert set(states) == set(SITE_TABLE)
    for (phase, state), name in product(states.items(), SITE_EVENTS):
        expected = SITE_TABLE[phase][SITE_EVENTS.index(name)]
        assert _outcome(state, events[name]) == expected, (phase, name)


def _asked_again(state: site.SiteState) -> site.SiteState:
    machines = machines_of("strict").open()
    ask = ASK
    return site.step(state, opened(machines, ask, round=2), SeededEntropy(0))[0]


def _outcome(state: site.SiteState, event: site.Event) -> str:
    if isinstance(event, site.Computed):
        event = replace(event, words=event.words.copy())
    before = repr(state)
    try:
        site.step(state, event, SeededEntropy(4))
    except MessageRefusedError as error:
        return error.rule if error.peer == COORDINATOR else f"{error.rule} of {error.peer}"
    except LocalProtocolError:
        return LOCAL
    finally:
        assert repr(state) == before
    return OK


COORDINATOR_EVENTS = ("upload", "same_upload", "other_upload", "chunk", "early_chunk", "same_chunk", "consistency",
                      "consistency_of_the_lost", "unmask", "unmask_of_the_lost", "closed")  # fmt: skip
COORDINATOR_TABLE = {
    "masked_input": (OK, OK, "out_of_turn", OK, "out_of_turn", "chunk", *["out_of_turn"] * 4, OK),
    "consistency": (*["out_of_turn"] * 6, OK, "out_of_turn", "out_of_turn", "out_of_turn", OK),
    "unmask": (*["out_of_turn"] * 8, OK, "out_of_turn", OK),
    "done": (*["out_of_turn"] * 10, LOCAL),
    "failed": (*["out_of_turn"] * 10, LOCAL),
}


def test_every_event_in_every_phase_of_the_coordinator():
    machines, states = machines_of("strict").open(), {}
    for index in range(5):
        machines.upload(index)
    early = machines.fork()
    machines.receive(0)
    machines.receive(1, 0)
    states["masked_input"] = machines.round
    failing = machines.fork()
    failing.close()
    states["failed"] = failing.round
    machines.receive(1, 1)
    events = {
        "upload": UploadArrived(2, early.uploads[2][0]),
        "same_upload": UploadArrived(0, early.uploads[0][0]),
        "other_upload": UploadArrived(0, signed(early, 0, replace(parsed(early, 0), blobs=parsed(early, 1).blobs))),
        "chunk": ChunkArrived(1, early.uploads[1][1][0]),
        "early_chunk": ChunkArrived(2, early.uploads[2][1][0]),
        "same_chunk": ChunkArrived(0, early.uploads[0][1][0]),
        "closed": coordinator.Closed(),
    }
    machines.to_coordinator(UploadArrived(1, early.uploads[1][0]))
    machines = early.fork()
    for index in (0, 1, 2, 4):
        machines.receive(index)
    machines.close()
    answers = {index: machines.answer(index) for index in (0, 1, 2, 4)}
    signing, digest = machines.setup.signing[3], machines.round.survivors_digest
    lost = Consistency.signed(machines.manifest, machines.round.context, 3, digest, signing)
    events["consistency"] = ConsistencyArrived(0, answers[0])
    events["consistency_of_the_lost"] = ConsistencyArrived(3, lost)
    states["consistency"] = machines.round
    machines.answer_all()
    states["unmask"] = machines.round
    released = machines.answer(0)
    events["unmask"] = UnmaskArrived(0, released)
    one = Unmask.from_bytes(released, machines.manifest, "", 5, 4)
    events["unmask_of_the_lost"] = UnmaskArrived(3, replace(one, sender=3).signed(machines.manifest, signing))
    machines.answer_all()
    states["done"] = machines.round
    for (phase, state), name in product(states.items(), COORDINATOR_EVENTS):
        expected = COORDINATOR_TABLE[phase][COORDINATOR_EVENTS.index(name)]
        assert _coordinators_outcome(state, events[name]) == expected, (phase, name)


def _coordinators_outcome(state: coordinator.RoundState, event: coordinator.Event) -> str:
    before = repr(state)
    try:
        coordinator.step(state, event)
    except MessageRefusedError as error:
        return error.rule if error.peer == f"site {event.site}" else f"{error.rule} of {error.peer}"
    except LocalProtocolError:
        return LOCAL
    finally:
        assert repr(state) == before
    return OK


@MODES
def test_answers_that_come_twice_count_once(mode):
    machines = named(mode)
    for _ in range(2 if machines.is_strict else 1):
        message = machines.answer(0)
        for _ in range(5):
            machines.to_coordinator(machines.answered(0, message))
        machines.answer_all(machines.round.waits_for)
    machines.check_total()


@MODES
def test_refused_message_changes_nothing(mode):
    """A whole round in which before every message that is meant all others, that are not, are tried on the receiver."""
    machines = machines_of(mode, 3).open()
    messages = [machines.opened(index).message for index in range(3)]
    for index in range(3):
        upload, parts = machines.upload(index)
        messages += [upload, *parts]
    for index in range(3):
        machines.receive(index)
        _nobody_takes(machines, messages)
    machines.close()
    while machines.round.phase in (Phase.CONSISTENCY, Phase.UNMASK):
        for index in machines.round.waits_for:
            _nobody_takes(machines, messages)
            owed = machines.owed(index)
            answer = machines.answer(index, owed)
            messages += [owed, answer]
            machines.to_coordinator(machines.answered(index, answer))
    machines.check_total()
    assert len({message[5] for message in messages}) == (7 if mode == "strict" else 5)


def _nobody_takes(machines: TwoMachines, messages) -> None:
    """Each message is refused by, or changes nothing at, each site and the coordinator, whatever it is said to be."""
    before = list(machines.sites), machines.round
    for message, index in product(messages, range(3)):
        for event in (
            site.Opened(message, sha256(b"")),
            *[kind(message) for kind in (site.SurvivorsArrived, site.AgreementArrived)],
        ):
            _tried(lambda index=index, event=event: site.step(machines.sites[index], event, SeededEntropy(0))[0])
        for kind in (UploadArrived, ChunkArrived, ConsistencyArrived, UnmaskArrived):
            event = kind(index, message)
            _tried(lambda event=event: coordinator.step(machines.round, event)[0])
    assert before == (machines.sites, machines.round)


def _tried(action) -> None:
    with contextlib.suppress(MessageRefusedError):
        action()


def test_a_site_remembers_all_runs_and_refuses_new_ones_rather_than_forget(monkeypatch):
    monkeypatch.setattr(site, "MAX_RUNS", 3)
    machines = machines_of("strict").open()
    for number in range(3):
        machines.to_site(0, opened(machines, run=bytes([number]) * 16))
    with machines.refused("replayed", COORDINATOR):
        machines.to_site(0, opened(machines, run=bytes([9]) * 16))
    machines.to_site(0, opened(machines, run=bytes(16), round=2))
    assert len(machines.sites[0].rounds) == 3
