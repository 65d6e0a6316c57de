"""Either side is stopped at any moment and started again from what it stored."""

import base64
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.privacy.secagg.lies import machines_of, named, new_site, opened, survivors_of, told, without
from tests.privacy.secagg.setup_of import setup_of
from tests.privacy.secagg.two_machines import ASK, BOTH_MODES, WIDE, TwoMachines, chunk_messages
from wardround.errors import LocalProtocolError, StoreError
from wardround.privacy.secagg import coordinator, coordinator_setup, site, stored
from wardround.privacy.secagg.coordinator import Phase, RoundState
from wardround.privacy.secagg.coordinator_setup import SetUpArrived, SetUpPhase, SetUpState
from wardround.privacy.secagg.manifest import keys_digest
from wardround.privacy.secagg.site import SiteState, Stage
from wardround.privacy.secagg.stored import pack_state, unpack_state
from wardround.privacy.secagg.wire import COORDINATOR
from wardround.testing.seeded_entropy import SeededEntropy

MODES = pytest.mark.parametrize("mode", BOTH_MODES)


def restarted(state):
    """What is read of a state that was stored; it must be the same, and be stored the same again."""
    packed = pack_state(state)
    read = unpack_state(type(state), packed)
    assert read == state
    assert type(read) is type(state)
    assert pack_state(read) == packed
    return read


class Restarting(TwoMachines):
    """All parties are stopped and started again before every step."""

    def to_site(self, index, event):
        """After a restart of the site, and once more after a crash between storing and sending."""
        self.sites[index] = restarted(self.sites[index])
        effects = TwoMachines.to_site(self, index, event)
        self.sites[index] = restarted(self.sites[index])
        return effects

    def to_coordinator(self, event):
        """After a restart of the coordinator."""
        self.round = restarted(self.round)
        effects = TwoMachines.to_coordinator(self, event)
        self.round = restarted(self.round)
        return effects


@MODES
@pytest.mark.parametrize("uploaded", [(0, 1, 2, 3, 4), (0, 1, 2, 4)])
def test_survives_a_restart(mode, uploaded):
    machines = Restarting(5, BOTH_MODES[mode](5)).open().upload_all(uploaded)
    machines.close()
    machines.finish()
    machines.open(2).finish()
    steady = TwoMachines(5, BOTH_MODES[mode](5)).open().upload_all(uploaded)
    steady.close()
    steady.finish()
    steady.open(2).finish()
    assert np.array_equal(machines.total, steady.total)
    assert machines.sites == steady.sites
    assert machines.round == steady.round


@MODES
def test_one_answer_a_context(mode):
    """A site that crashed between storing and sending answers the same question by the same bytes, and no other."""
    machines = machines_of(mode).open()
    for index in range(5):
        machines.upload(index)
    elsewhere = machines.fork()
    for index in range(5):
        elsewhere.receive(index)
    elsewhere.close()
    other = told(elsewhere, survivors_of(elsewhere, 0))
    for index in (0, 1, 2, 4):
        machines.receive(index)
    machines.close()
    honest = machines.question(machines.owed(0))
    first = machines.answer(0)
    for _ in range(3):
        machines.sites[0] = restarted(machines.sites[0])
        (again,) = machines.to_site(0, honest)
        assert again.message == first
        with machines.refused("second_answer", COORDINATOR):
            machines.to_site(0, other)
    machines.answer_all()
    if machines.is_strict:
        agreement, released = machines.owed(0), machines.answer(0)
        machines.sites[0] = restarted(machines.sites[0])
        assert machines.answer(0) == released
        machines.answer_all()
        machines.sites[0] = restarted(machines.sites[0])
        (again,) = machines.to_site(0, site.AgreementArrived(agreement))
        assert again.message == released
    machines.check_total()


@MODES
def test_a_masked_vector_that_was_stored_as_sent_is_not_made_again(mode):
    """It was lost between storing and sending: another vector in this context would have another self mask."""
    machines = machines_of(mode).open()
    machines.upload(0)  # and it is never received
    machines.sites[0] = restarted(machines.sites[0])
    with machines.refused("replayed", COORDINATOR):
        machines.to_site(0, machines.opened(0))
    with pytest.raises(LocalProtocolError, match="or has answered"):
        machines.to_site(0, machines.computed(0))
    machines.upload_all((1, 2, 3, 4))
    machines.close()
    machines.finish()
    machines.open(2).finish()


def test_a_site_that_was_stopped_while_it_computed_is_asked_again():
    machines = machines_of("strict").open()
    machines.to_site(0, machines.opened(0))
    machines.sites[0] = restarted(machines.sites[0])
    assert machines.to_site(0, machines.opened(0)) == (site.Compute(machines.opening),)
    machines.finish()


@MODES
def test_a_coordinator_that_was_stopped_owes_the_same_messages(mode):
    machines = named(mode)
    while machines.round.phase in (Phase.CONSISTENCY, Phase.UNMASK):
        owed = [machines.owed(index) for index in machines.round.survivors]
        machines.round = restarted(machines.round)
        assert [machines.owed(index) for index in machines.round.survivors] == owed
        machines.answer_all()
    machines.check_total()


@MODES
def test_an_upload_goes_on_where_it_was(mode):
    machines = TwoMachines(4, BOTH_MODES[mode](4), layout=WIDE).open()
    for index in range(4):
        machines.upload(index)
    machines.receive(2, 1)
    machines.round = restarted(machines.round)
    message, parts = machines.uploads[2]
    assert machines.to_coordinator(coordinator.UploadArrived(2, message)) == ()
    assert machines.round.uploads[2].num_chunks == 1
    for part in parts[1:]:
        machines.to_coordinator(coordinator.ChunkArrived(2, part))
    machines.finish()


def test_a_whole_set_up_with_restarts_and_messages_that_are_lost():
    setup = setup_of(4)
    states = [new_site(setup, index) for index in range(4)]
    collected, entropy = SetUpState(manifest=setup.manifest), SeededEntropy(7)
    events = [lambda _: site.Enrol(), site.AdvertisementsArrived, site.EncapsulationsArrived]
    bundle: tuple[bytes, ...] = ()
    for event in events:
        for index in range(4):
            states[index] = restarted(states[index])
            states[index], sent = site.step(states[index], event(bundle), entropy)
            states[index] = restarted(states[index])
            if sent:  # it is lost; the site was stopped, and asks the coordinator what it missed
                state, again = site.step(states[index], event(bundle), entropy)
                assert (state, again) == (states[index], sent)
            for effect in sent:
                collected, _ = coordinator_setup.step(restarted(collected), SetUpArrived(index, effect.message))
                collected, _ready = coordinator_setup.step(collected, SetUpArrived(index, effect.message))
        bundle = collected.bundle
        assert collected.phase != SetUpPhase.ADVERTISE_KEYS
    assert collected.phase == SetUpPhase.READY
    assert {state.stage for state in states} == {Stage.READY}
    for i in range(4):
        assert [states[j].pair_keys[i] for j in range(4) if j != i] == [
            key for j, key in enumerate(states[i].pair_keys) if j != i
        ]
    assert {state.keys for state in states} == {collected.keys} == {keys_digest(setup.advertisements)}
    machines = TwoMachines(4)
    machines.sites = states
    machines.open().finish()


def test_the_exchange_keys_are_erased():
    setup, entropy = setup_of(3), SeededEntropy(7)
    states, sent = [], []
    for index in range(3):
        state, _ = site.step(new_site(setup, index), site.Enrol(), entropy)
        state, (send,) = site.step(state, site.AdvertisementsArrived(setup.advertisements), entropy)
        states.append(state)
        sent.append(send.message)
    for index, before in enumerate(states):
        ready, _ = site.step(before, site.EncapsulationsArrived(tuple(sent)), entropy)
        stored = pack_state(ready)
        secrets = [setup.exchange_seeds[index], *before.encapsulated.values()]
        assert all(_text(secret) in pack_state(before) for secret in secrets)
        assert not any(_text(secret) in stored for secret in secrets)
        assert (ready.secrets.exchange, ready.encapsulated, ready.advertisements) == (b"", {}, ())


def _text(secret: bytes) -> bytes:
    return json.dumps(_base64(secret)).encode()


def _base64(secret: bytes) -> str:
    return base64.b64encode(secret).decode()


# Damage


def _states():
    machines = named("strict")
    machines.answer(0)
    setup = setup_of(3)
    return [machines.sites[0], machines.round, SetUpState(manifest=setup.manifest), new_site(setup, 0)]


STATES = _states()


@pytest.mark.parametrize("state", STATES, ids=lambda state: type(state).__name__)
def test_damage_is_found(state):
    stored = pack_state(state)
    rng = np.random.default_rng(0)
    places = {*range(200), len(stored) - 1, *rng.integers(0, len(stored), 600).tolist()}
    for place in places & set(range(len(stored))):
        for bit in (1, 32):
            damaged = stored[:place] + bytes([stored[place] ^ bit]) + stored[place + 1 :]
            _is_refused(type(state), damaged)
    for cut in (0, 1, 64, 65, 66, len(stored) // 2, len(stored) - 1):
        _is_refused(type(state), stored[:cut])
    _is_refused(type(state), stored + b" ")
    for other in (SiteState, RoundState, SetUpState):
        if other is not type(state):
            _is_refused(other, stored)


def _is_refused(kind, stored):
    with pytest.raises(StoreError, match=f"the stored {kind.__name__} of a secure sum is damaged; restore it from"):
        unpack_state(kind, stored)


def _with_sum(kind, body: bytes) -> bytes:
    """As a stored state whose damage the digest does not show: somebody wrote it so."""
    return stored._sum_of(kind, body) + body


@pytest.mark.parametrize("state", STATES, ids=lambda state: type(state).__name__)
def test_damage_shows_no_key(state):
    """However it is damaged: the error and all that it hangs on hold none of the stored text."""
    kind, body = type(state), json.loads(pack_state(state)[65:])
    secret = _base64(b"this is a secret key of a site!!")
    for name in body:
        for wrong in (secret, {secret: secret}, [secret], 17, None, "no base64: " + secret):
            text = _with_sum(kind, json.dumps({**body, name: wrong}).encode())
            try:
                unpack_state(kind, text)
            except StoreError as error:
                shown = error
            else:
                continue  # this field may be so
            assert str(shown) == f"the stored {kind.__name__} of a secure sum is damaged; restore it from a copy"
            assert shown.__cause__ is None
            assert shown.__context__ is None


@pytest.mark.parametrize("text", [b"", b"null", b"{}", b"[]", b"\xff", b"{" * 5000])
def test_what_is_no_state_is_refused(text):
    for kind in (SiteState, RoundState, SetUpState):
        _is_refused(kind, text)
        _is_refused(kind, _with_sum(kind, text))


@given(manifest=st.binary(max_size=60))
def test_a_stored_manifest_that_is_none_is_a_damaged_state(manifest):
    body = json.loads(pack_state(STATES[2])[65:]) | {"manifest": _base64(manifest)}
    _is_refused(SetUpState, _with_sum(SetUpState, json.dumps(body).encode()))


def test_a_restored_site_is_asked_otherwise():
    """Put back to what it had stored before it signed, it has not signed, and may sign other survivors: once."""
    machines = named("two_leg", (0, 1, 2, 3, 4))
    stored = pack_state(machines.sites[0])
    released = machines.answer(0)
    copy = unpack_state(SiteState, stored)
    assert copy != machines.sites[0]
    lie = told(machines, without(survivors_of(machines, 0), 3))
    with machines.refused("second_answer", COORDINATOR):
        machines.to_site(0, lie)
    # That an older copy would answer is why a site must set up anew after it was restored from one: in its new
    # context nothing that was said in the old one counts.
    state = replace(copy, keys=bytes(32))
    (compute,) = site.step(state, opened(machines, ASK, round=2), SeededEntropy(0))[1]
    assert compute.opening.context(machines.manifest, state.keys, bytes(32)) != compute.opening.context(
        machines.manifest, copy.keys, bytes(32)
    )
    machines.to_coordinator(machines.answered(0, released))
    machines.finish()


def test_chunks_of_an_upload_are_views_of_the_vector():
    machines = machines_of("strict").open()
    (compute,) = machines.to_site(0, machines.opened(0))
    computed = machines.computed(0, compute.opening)
    (upload,) = machines.to_site(0, computed)
    assert upload.words is computed.words  # masked in place: nothing unmasked is left
    assert len(chunk_messages(upload)) == 1
