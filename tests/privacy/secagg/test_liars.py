"""Lying coordinators. Each is stopped by an error that names the rule and the liar, and nothing is changed.

After every refusal the round is completed honestly, and its total must be exact.
"""

from dataclasses import replace

import numpy as np
import pytest

from tests.privacy.secagg.lies import (
    blob_key,
    machines_of,
    named,
    new_site,
    opened,
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
    site_state,
)
from wardround.errors import LocalProtocolError, MessageRefusedError
from wardround.privacy.secagg import coordinator_setup, site
from wardround.privacy.secagg.coordinator import ChunkArrived, ConsistencyArrived, UnmaskArrived, UploadArrived
from wardround.privacy.secagg.coordinator_setup import SetUpArrived, SetUpState
from wardround.privacy.secagg.keys import SigningKey, open_sealed
from wardround.privacy.secagg.manifest import Advertisement, Encapsulations, advertise
from wardround.privacy.secagg.messages import Agreement, Chunk, Consistency, MaskedInput, Survivors, Unmask
from wardround.privacy.secagg.prg import apply_masks
from wardround.privacy.secagg.shamir import SHARE_BYTES
from wardround.privacy.secagg.wire import COORDINATOR, u16
from wardround.testing.seeded_entropy import SeededEntropy

MODES = pytest.mark.parametrize("mode", BOTH_MODES)


# A lying coordinator: rounds and rosters


@MODES
def test_a_round_is_not_answered_twice(mode):
    machines = machines_of(mode).open(2)
    honest = machines.opened(0)
    machines.upload(0)
    for event in (honest, opened(machines, attempt=1), opened(machines, round=1, attempt=9)):
        with machines.refused("replayed", COORDINATOR):
            machines.to_site(0, event)
    machines.receive(0)
    machines.finish()


@MODES
def test_an_unanswered_opening_may_come_again_but_no_other_under_its_number(mode):
    machines = machines_of(mode).open()
    machines.to_site(0, machines.opened(0))
    machines.to_site(0, machines.opened(0))
    for change in ({"ask": b"other"}, {"roster": (0, 1, 2, 3)}):
        with machines.refused("replayed", COORDINATOR):
            machines.to_site(0, opened(machines, **change))
    machines.finish()


@MODES
def test_one_total_a_round(mode):
    """After a site released shares for a round it answers no further attempt at it, but later rounds."""
    machines = machines_of(mode).open().finish()
    for attempt in (1, 2, 2**16 - 1):
        with machines.refused("replayed", COORDINATOR):
            machines.to_site(0, opened(machines, attempt=attempt))
    machines.open(2).finish()


@MODES
def test_an_attempt_that_was_left_releases_nothing(mode):
    machines = named(mode)
    owed = machines.owed(0)
    if machines.is_strict:
        signed = {index: machines.answer(index) for index in machines.round.survivors}
        for index, message in signed.items():
            machines.to_coordinator(ConsistencyArrived(index, message))
        agreement = machines.owed(0)
    machines.open(1, 2).upload_all((0, 1, 2, 3, 4))
    with machines.refused("context", COORDINATOR):
        machines.to_site(0, site.SurvivorsArrived(owed))
    if machines.is_strict:
        with machines.refused("context", COORDINATOR):
            machines.to_site(0, site.AgreementArrived(agreement))
    machines.finish()


@MODES
@pytest.mark.parametrize("roster", [(1, 2, 3, 4), (0, 1), (0, 1, 2), (0, 1, 2, 5), (0, 1, 2, 3, 4, 65535)])
def test_rosters_that_break_the_rules(mode, roster):
    machines = machines_of(mode).open()
    with pytest.raises(MessageRefusedError) as caught:
        machines.to_site(0, opened(machines, roster=roster))
    assert caught.value.rule in ("roster", "malformed")
    assert caught.value.peer == COORDINATOR
    if roster != (0, 1, 2, 3, 4, 65535):
        with machines.refused("roster", COORDINATOR):
            machines.to_site(0, opened(machines, roster=roster))
    machines.finish()


@MODES
def test_an_opening_of_another_key_study_or_ask(mode):
    machines, honest = machines_of(mode).open(), None
    honest = machines.opened(0)
    other = setup_of(5, seed=9, terms=machines.terms)
    stranger = SigningKey.from_seed(bytes(32))
    lies = [
        site.Opened(machines.opening.to_bytes(machines.manifest, stranger), honest.broadcast_digest),
        site.Opened(machines.opening.to_bytes(machines.manifest, other.signing[1]), honest.broadcast_digest),
        site.Opened(machines.opening.to_bytes(other.manifest, machines.signing), honest.broadcast_digest),
        site.Opened(honest.message, sha256(b"another ask")),
    ]
    for lie in lies:
        with machines.refused("signature", COORDINATOR):
            machines.to_site(0, lie)
    machines.finish()


class _Noting:
    """Entropy that remembers what it gave."""

    def __init__(self) -> None:
        self.entropy, self.given = SeededEntropy(b"noting"), []

    def random(self, num_bytes: int) -> bytes:
        """As the entropy inside."""
        self.given.append(self.entropy.random(num_bytes))
        return self.given[-1]


def _lied_to(machines: TwoMachines, index: int, event: site.Opened):
    """One site is sent another opening than the others, and answers it. Returns its masked vector and its own seed."""
    machines.entropy = _Noting()
    (compute,) = machines.to_site(index, event)
    (upload,) = machines.to_site(index, machines.computed(index, compute.opening))
    return upload, machines.entropy.given[0]


@pytest.mark.parametrize("lie", ["broadcast", "roster", "round", "attempt", "run"])
@MODES
def test_broadcast_is_bound(mode, lie):
    """Whoever is asked another thing than the others adds uniform noise, even when its self mask is known."""
    changes = {
        "broadcast": {"ask": b"other parameters"},
        "roster": {"roster": (1, 2, 3, 4, 5)},
        "round": {"round": 2},
        "attempt": {"attempt": 2},
        "run": {"run": bytes(16)},
    }[lie]
    machines = machines_of(mode, 6).open(roster=(0, 1, 2, 3, 4))
    upload, own = _lied_to(machines, 3, opened(machines, **{"ask": ASK, **changes}))
    with machines.refused("context", 3):
        machines.to_coordinator(UploadArrived(3, upload.message))
    for chunk in (Chunk(context=upload.context, sender=3, number=0, content=upload.words.data.cast("B")),):
        with machines.refused("context", 3):
            machines.to_coordinator(ChunkArrived(3, chunk.to_bytes()))
    # The coordinator adds it up all the same, and takes off all self masks.
    total, seeds = upload.words.copy(), [own]
    for index in (0, 1, 2, 4):
        machines.entropy = _Noting()
        _, parts = machines.upload(index)
        words = np.frombuffer(Chunk.from_bytes(parts[0], "").content, np.uint64)
        total += words  # carries do not matter to noise
        seeds.append(machines.entropy.given[0])
    apply_masks(total, 0, [(seed, -1) for seed in seeds])
    flipped = np.bitwise_count(total[4:] ^ machines.expected(range(5))[4:]).mean()
    assert 16 < flipped < 48  # of 64 bits
    # The honest coordinator goes on without that site.
    for index in (0, 1, 2, 4):
        machines.receive(index)
    machines.close()
    assert machines.round.survivors == (0, 1, 2, 4)
    machines.finish()


@MODES
def test_a_site_that_computes_another_layout_is_not_counted(mode):
    """Its words would mean another thing than the others': the coordinator refuses its context."""
    machines = machines_of(mode).open()
    (compute,) = machines.to_site(3, machines.opened(3))
    other = replace(machines.computed(3, compute.opening), layout=bytes(32))
    (upload,) = machines.to_site(3, other)
    with machines.refused("context", 3):
        machines.to_coordinator(UploadArrived(3, upload.message))
    machines.upload_all((0, 1, 2, 4)).close()
    machines.finish()


# A lying coordinator: survivors


@MODES
def test_survivors_that_break_the_rules(mode):
    machines = named(mode)
    honest = survivors_of(machines, 0)
    cases = {
        "without the site": ("survivors", without(honest, 0)),
        "for another site": ("survivors", survivors_of(machines, 1)),
        "too few": ("too_few_survivors", without(honest, 4)),
        "not of the round": ("survivors", _renamed(honest, 4, 3000)),
    }
    for rule, lie in cases.values():
        with machines.refused(rule, COORDINATOR):
            machines.to_site(0, told(machines, lie))
    machines.finish()


def _renamed(survivors: Survivors, index: int, other: int) -> Survivors:
    evidence = tuple(replace(one, sender=other) if one.sender == index else one for one in survivors.evidence)
    return replace(survivors, evidence=evidence)


@MODES
def test_survivors_out_of_a_round_with_a_smaller_roster(mode):
    machines = machines_of(mode).open(roster=(0, 1, 2, 4)).upload_all()
    machines.close()
    with machines.refused("survivors", COORDINATOR):
        machines.to_site(0, told(machines, _renamed(survivors_of(machines, 0), 2, 3)))
    machines.finish()


@MODES
def test_survivors_in_another_order(mode):
    machines = named(mode)
    honest = machines.owed(0)
    head = 6 + 32 + 2 + 2
    swapped = honest[:head] + honest[head + 2 : head + 4] + honest[head : head + 2] + honest[head + 4 : -64]
    repeated = honest[:head] + honest[head + 2 : head + 4] + honest[head + 2 : -64]
    for body in (swapped, repeated):
        signed = body + machines.signing.sign("survivors", machines.manifest.digest, body)
        with machines.refused("malformed", COORDINATOR):
            machines.to_site(0, site.SurvivorsArrived(signed))
    machines.finish()


@MODES
def test_evidence_that_its_site_did_not_sign(mode):
    """Swapped, of another context, of another study, or made up: the coordinator, who hands it on, is named."""
    machines = named(mode)
    honest = survivors_of(machines, 0)
    first, second, *others = honest.evidence
    other_study = named_elsewhere(mode)
    earlier = replace(machines.opening, round=9).context(machines.manifest, bytes(32), bytes(32))
    lies = [
        replace(honest, evidence=(replace(first, signature=second.signature), second, *others)),
        replace(honest, evidence=(first, replace(second, vector_digest=bytes(32)), *others)),
        replace(honest, evidence=(first, replace(second, shares_digest=bytes(32)), *others)),
        replace(honest, evidence=(first, replace(second, signature=bytes(64)), *others)),
        replace(honest, evidence=(first, other_study.evidence[1], *others)),
        replace(honest, evidence=(first, _signed_in(machines, 1, earlier), *others)),
    ]
    for lie in lies:
        with machines.refused("signature", COORDINATOR):
            machines.to_site(0, told(machines, lie))
    machines.finish()


def named_elsewhere(mode: str) -> Survivors:
    """What the same sites signed in another study."""
    machines = TwoMachines(5, BOTH_MODES[mode](5), seed=4).open().upload_all((0, 1, 2, 4))
    machines.close()
    return survivors_of(machines, 0)


def _signed_in(machines: TwoMachines, index: int, context: bytes):
    evidence = survivors_of(machines, 0).evidence[index]
    parts = (machines.manifest.digest, context, u16(index), evidence.vector_digest, evidence.shares_digest)
    return replace(evidence, signature=machines.setup.signing[index].sign("masked_input", *parts))


@MODES
def test_sealed_shares_that_their_sender_did_not_sign(mode):
    """A blob for another holder, swapped blobs, a blob altered, and proofs that do not fit: the coordinator lies."""
    machines = named(mode)
    honest, of_another = survivors_of(machines, 0), survivors_of(machines, 1)
    first, second, *others = honest.sealed
    flipped = second.blob[:-1] + bytes([second.blob[-1] ^ 1])
    lies = [
        (first, of_another.sealed[1], *others),
        (first, replace(second, blob=of_another.sealed[1].blob), *others),
        (second, first, *others),
        (replace(first, blob=second.blob), replace(second, blob=first.blob), *others),
        (first, replace(second, blob=flipped), *others),
        (first, replace(second, seeds_digest=bytes(32)), *others),
        (first, replace(second, committed=bytes(32)), *others),
        (first, replace(second, path=(bytes(32), *second.path[1:])), *others),
        (first, replace(second, path=second.path[::-1]), *others),
    ]
    for lie in lies:
        with machines.refused("blob", COORDINATOR):
            machines.to_site(0, told(machines, replace(honest, sealed=lie)))
    machines.finish()


@MODES
def test_never_both_kinds(mode):
    """Told of other survivors in the same context a site refuses; so it never gives both kinds of share."""
    machines = named(mode, (0, 1, 2, 3, 4))
    honest = survivors_of(machines, 0)
    other = told(machines, without(honest, 3))
    first = machines.answer(0)
    for _ in range(2):
        with machines.refused("second_answer", COORDINATOR):
            machines.to_site(0, other)
        assert machines.answer(0) == first
    machines.to_coordinator(machines.answered(0, first))
    machines.finish()
    with machines.refused("second_answer", COORDINATOR):
        machines.to_site(0, other)


@pytest.mark.parametrize("mode", BOTH_MODES)
@pytest.mark.parametrize("dropped", [(), (3,), (1,)])
def test_a_site_releases_self_masks_of_survivors_and_pair_masks_of_the_dropped_alone(mode, dropped):
    machines = machines_of(mode).open().upload_all([index for index in range(5) if index not in dropped])
    blobs = {index: MaskedInput.from_bytes(message, "", 5, machines.shape.num_words).blobs
             for index, (message, _) in machines.uploads.items()}  # fmt: skip
    machines.close()
    if machines.is_strict:
        machines.answer_all()
    message = Unmask.from_bytes(machines.answer(0), machines.manifest, "", 5, 5 - len(dropped))
    expected = b""
    for sender in machines.round.survivors:
        shares = _opened_blob(machines, sender, 0, blobs[sender][0])
        expected += b"".join(shares[SHARE_BYTES * place :][:SHARE_BYTES] for place in (sender, *dropped))
    assert message.shares == expected


def _opened_blob(machines: TwoMachines, sender: int, holder: int, blob: bytes) -> bytes:
    return open_sealed(blob_key(machines, sender, holder), blob, peer="")


# A lying coordinator: agreement


def agreed(machines: TwoMachines, signatures) -> site.AgreementArrived:
    """An agreement that the coordinator signed, on these signatures."""
    agreement = Agreement(context=machines.round.context, signatures=tuple(signatures))
    return site.AgreementArrived(agreement.to_bytes(machines.manifest, machines.signing))


def test_agreements_that_are_none():
    machines = named("strict")
    signed = {index: machines.answer(index) for index in machines.round.survivors}
    for index, message in signed.items():
        machines.to_coordinator(ConsistencyArrived(index, message))
    honest = sorted(machines.round.signatures.items())
    elsewhere = _signature(machines, 3, machines.round.survivors_digest)
    cases = {
        "below t": ("agreement", honest[:3]),
        "none": ("agreement", []),
        "twice": ("malformed", [*honest[:3], honest[2]]),
        "not ascending": ("malformed", honest[::-1]),
        "of a site not in U": ("agreement", [*honest[:3], (3, elsewhere), honest[3]]),
        "of no site": ("agreement", [*honest, (4000, honest[0][1])]),
        "swapped": ("agreement", [(honest[0][0], honest[1][1]), *honest[1:]]),
        "over another S": ("agreement", [*honest[:3], (4, _signature(machines, 4, bytes(32)))]),
        "one bad among enough": ("agreement", [*honest[:3], (4, bytes(64))]),
    }
    for rule, signatures in cases.values():
        with machines.refused(rule, COORDINATOR):
            machines.to_site(0, agreed(machines, signatures))
    machines.finish()


def _signature(machines: TwoMachines, index: int, survivors: bytes, context: bytes | None = None) -> bytes:
    parts = (machines.manifest.digest, context or machines.round.context, survivors)
    return machines.setup.signing[index].sign("consistency", *parts)


@pytest.mark.parametrize("num_told", range(6))
def test_different_survivors_to_different_sites_release_nothing_twice(num_told):
    """Whoever is told what, at most one set of survivors gets enough signatures; signatures of both do not add up."""
    machines = named("strict", (0, 1, 2, 3, 4))
    threshold = machines.manifest.terms.threshold
    signatures: dict[bytes, list[tuple[int, bytes]]] = {}
    for index in range(5):
        honest = survivors_of(machines, index)
        lie = honest if index < num_told else without(honest, 0 if index else 1)
        (send,) = machines.to_site(index, told(machines, lie))
        message = Consistency.from_bytes(send.message, machines.manifest, "")
        signatures.setdefault(message.survivors_digest, []).append((index, message.signature))
    assert sum(len(signers) >= threshold for signers in signatures.values()) <= 1
    mixed = agreed(machines, sorted(one for signers in signatures.values() for one in signers))
    released = []
    for digest, signers in signatures.items():
        for index, _ in signers:
            if len(signatures) > 1:
                with machines.refused("agreement", COORDINATOR):
                    machines.to_site(index, mixed)
            if len(signers) < threshold:
                with machines.refused("agreement", COORDINATOR):
                    machines.to_site(index, agreed(machines, signers))
            else:
                machines.to_site(index, agreed(machines, signers))
                released.append(digest)
    assert len(set(released)) <= 1
    later = TwoMachines(5, machines.terms)
    later.sites = machines.sites
    later.open(2).finish()


def test_different_survivors_to_different_sites_are_seen_by_an_honest_coordinator():
    machines = named("strict", (0, 1, 2, 3, 4))
    other = told(machines, without(survivors_of(machines, 2), 3))
    (send,) = machines.to_site(2, other)
    with machines.refused("survivors", 2):
        machines.to_coordinator(ConsistencyArrived(2, send.message))
    machines.answer_all((0, 1, 3, 4))
    with machines.refused("agreement", COORDINATOR):  # the site learns that others signed something else
        machines.to_site(2, site.AgreementArrived(machines.owed(2)))
    machines.answer_all((0, 1, 3, 4))
    machines.check_total()


def test_different_survivors_without_the_consistency_leg():
    """Each site answers one alone, and an honest coordinator refuses shares for another."""
    machines = named("two_leg", (0, 1, 2, 3, 4))
    (send,) = machines.to_site(2, told(machines, without(survivors_of(machines, 2), 3)))
    with pytest.raises(MessageRefusedError) as caught:
        machines.to_coordinator(UnmaskArrived(2, send.message))
    assert (caught.value.rule, caught.value.peer) == ("malformed", "site 2")  # its length is that of other survivors
    with machines.refused("second_answer", COORDINATOR):
        machines.to_site(2, site.SurvivorsArrived(machines.owed(2)))
    machines.answer_all((0, 1, 3, 4))
    machines.check_total()


# The set-up


def test_unpinned_keys_and_replaced_keys_at_the_set_up():
    setup = setup_of(4)
    manifest, honest = setup.manifest, list(setup.advertisements)
    stranger, other = SigningKey.from_seed(bytes(32)), setup_of(4, seed=8)
    forged = replace(Advertisement.from_bytes(honest[2], manifest), signature=bytes(64))
    body = forged.to_bytes()[:-64]
    unpinned = body + stranger.sign("advertise_keys", manifest.digest, body)
    state = new_site(setup, 0)
    state, _ = site.step(state, site.Enrol(), SeededEntropy(0))
    mine_replaced = advertise(manifest, 0, setup.signing[0], other.exchange[0])
    cases = [
        ("signature", [honest[0], honest[1], unpinned, honest[3]]),
        ("signature", [honest[0], honest[1], other.advertisements[2], honest[3]]),
        ("manifest", [mine_replaced, *honest[1:]]),
        ("malformed", [honest[0], honest[2], honest[1], honest[3]]),
        ("malformed", honest[:3]),
        ("malformed", [*honest, honest[3]]),
    ]
    for rule, messages in cases:
        _refused_by(state, site.AdvertisementsArrived(tuple(messages)), rule, COORDINATOR)
        if rule == "signature":
            with pytest.raises(MessageRefusedError) as caught:
                coordinator_setup.step(SetUpState(manifest=manifest), SetUpArrived(2, messages[2]))
            assert (caught.value.rule, caught.value.peer) == (rule, "site 2")
    state, _ = site.step(state, site.AdvertisementsArrived(tuple(honest)), SeededEntropy(1))
    _refused_by(state, site.AdvertisementsArrived((mine_replaced, *honest[1:])), "out_of_turn", COORDINATOR)


def _refused_by(state, event, rule, peer):
    with pytest.raises(MessageRefusedError) as caught:
        site.step(state, event, SeededEntropy(5))
    assert (caught.value.rule, caught.value.peer) == (rule, peer)


def test_secrets_for_other_keys_at_the_set_up():
    setup = setup_of(4)
    states = [new_site(setup, index) for index in range(4)]
    entropy = SeededEntropy(3)
    sent = []
    for event in (lambda: site.Enrol(), lambda: site.AdvertisementsArrived(setup.advertisements)):
        sent = []
        for index in range(4):
            states[index], (send,) = site.step(states[index], event(), entropy)
            sent.append(send.message)
    last = Encapsulations.from_bytes(sent[1], setup.manifest)
    body = replace(last, keys_digest=bytes(32)).to_bytes()[:-64]
    lie = body + setup.signing[1].sign("encapsulate", setup.manifest.digest, body)
    _refused_by(states[0], site.EncapsulationsArrived((sent[0], lie, *sent[2:])), "manifest", "site 1")
    swapped = site.EncapsulationsArrived((sent[0], sent[2], sent[1], sent[3]))
    _refused_by(states[0], swapped, "malformed", COORDINATOR)
    known = dict(enumerate(setup.advertisements))
    collecting = SetUpState(
        manifest=setup.manifest, phase=coordinator_setup.SetUpPhase.ENCAPSULATE, advertisements=known
    )
    with pytest.raises(MessageRefusedError) as caught:
        coordinator_setup.step(collecting, SetUpArrived(1, lie))
    assert (caught.value.rule, caught.value.peer) == ("manifest", "site 1")
    ready = [site.step(state, site.EncapsulationsArrived(tuple(sent)), entropy)[0] for state in states]
    assert {state.stage for state in ready} == {site.Stage.READY}


def test_what_was_signed_before_another_set_up_counts_nothing_after_it():
    """The same sites, manifest, run, round and ask: another K, another context."""
    machines = machines_of("strict").open().upload_all((0, 1, 2, 4))
    machines.close()
    before = survivors_of(machines, 0)
    context = machines.opening.context(machines.manifest, bytes(32), machines.computed(0).layout)
    assert context != machines.round.context
    again = machines_of("strict").open()
    again.sites = [replace(site_state(again.setup, index), keys=bytes(32)) for index in range(5)]
    upload = again.upload(0)
    with again.refused("context", 0):
        again.to_coordinator(UploadArrived(0, upload[0]))
    with again.refused("context", COORDINATOR):
        again.to_site(0, told(machines, before))
    forged = replace(before, context=context)
    with again.refused("signature", COORDINATOR):
        again.to_site(0, told(machines, forged))


def test_messages_of_the_set_up_that_come_twice_late_or_for_another():
    setup = setup_of(3)
    state = SetUpState(manifest=setup.manifest)

    def refused(event, rule, peer):
        with pytest.raises(MessageRefusedError) as caught:
            coordinator_setup.step(state, event)
        assert (caught.value.rule, caught.value.peer) == (rule, peer)

    refused(SetUpArrived(0, setup.encapsulations[0]), "malformed", "site 0")
    refused(SetUpArrived(3, setup.advertisements[0]), "unknown_peer", "3")
    refused(SetUpArrived(1, setup.advertisements[0]), "unknown_peer", "site 1")
    with pytest.raises(LocalProtocolError, match="site 0, site 1, site 2 must enrol"):
        _ = state.keys
    state, _ = coordinator_setup.step(state, SetUpArrived(0, setup.advertisements[0]))
    assert coordinator_setup.step(state, SetUpArrived(0, setup.advertisements[0])) == (state, ())
    other = advertise(setup.manifest, 0, setup.signing[0], setup.exchange[1])
    refused(SetUpArrived(0, other), "out_of_turn", "site 0")
    for index in (1, 2):
        state, effects = coordinator_setup.step(state, SetUpArrived(index, setup.advertisements[index]))
    assert effects[0].messages == setup.advertisements
    assert coordinator_setup.step(state, SetUpArrived(0, setup.advertisements[0])) == (state, ())
    refused(SetUpArrived(0, other), "malformed", "site 0")
    refused(SetUpArrived(2, setup.encapsulations[1]), "unknown_peer", "site 2")
    for index in range(3):
        state, effects = coordinator_setup.step(state, SetUpArrived(index, setup.encapsulations[index]))
    assert effects[0].messages == setup.encapsulations
    for message in (setup.advertisements[1], setup.encapsulations[1]):
        assert coordinator_setup.step(state, SetUpArrived(1, message)) == (state, ())
    refused(SetUpArrived(1, other), "out_of_turn", "site 1")
