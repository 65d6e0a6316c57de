"""Rounds of honest parties: sites are lost at every step, and the total is exact or there is none."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.privacy.secagg.two_machines import (
    BOTH_MODES,
    WIDE,
    TwoMachines,
    sha256,
    strict,
    two_leg,
)
from wardround.errors import LocalProtocolError
from wardround.privacy.secagg import coordinator, site
from wardround.privacy.secagg.context import Opening
from wardround.privacy.secagg.coordinator import Closed, Phase
from wardround.privacy.secagg.messages import Unmask
from wardround.privacy.secagg.site import SiteSecrets, SiteState
from wardround.privacy.secagg.terms import Terms
from wardround.sums import Array, Contribution, exact
from wardround.sums.contribution import layout_of

EXHAUSTIVE = {
    "3 strict": strict(3),
    "3 two_leg": two_leg(3),
    "4 strict": strict(4),
    "4 two_leg": two_leg(4),
    "5 strict": strict(5),
    "5 two_leg": two_leg(5),
    "5 strict t=3": strict(5, threshold=3),
    "5 two_leg t=3": two_leg(5, threshold=3),
    "5 strict c=1": strict(5, colluding_sites=1, threshold=4),
}


def subsets(indices):
    """All sets of these sites."""
    return [kept for size in range(len(indices) + 1) for kept in combinations(indices, size)]


@pytest.mark.parametrize("terms", EXHAUSTIVE.values(), ids=EXHAUSTIVE)
def test_total_is_of_the_survivors(terms):
    """Every set that uploads, every set of those that signs, every set of those that releases."""
    machines = TwoMachines(terms.num_sites, terms).open()
    for index in range(terms.num_sites):
        machines.upload(index)
    for uploaded in subsets(range(terms.num_sites)):
        _close_inputs(machines.fork(), uploaded, terms)


def _close_inputs(machines, uploaded, terms):
    for index in range(terms.num_sites):
        machines.receive(index, None if index in uploaded else 0)  # the others are lost while they upload
    machines.close()
    if len(uploaded) < terms.minimum_survivors:
        _has_failed(machines, "sent their contribution", len(uploaded), terms.minimum_survivors)
        assert all(coordinator.message_for(machines.round, index) is None for index in range(terms.num_sites))
        return
    assert machines.round.survivors == uploaded
    if not terms.is_strict:
        _close_releases(machines, uploaded, terms)
        return
    signed = {index: machines.answer(index) for index in uploaded}
    for signers in subsets(uploaded):
        tried = machines.fork()
        for index in signers:
            tried.to_coordinator(coordinator.ConsistencyArrived(index, signed[index]))
        if tried.round.phase == Phase.CONSISTENCY:
            tried.close()
        if len(signers) < terms.threshold:
            _has_failed(tried, "signed who is in the sum", len(signers), terms.threshold)
        else:
            _close_releases(tried, uploaded, terms)


def _close_releases(machines, uploaded, terms):
    released = {index: machines.answer(index) for index in uploaded}
    for answering in subsets(uploaded):
        tried = machines.fork()
        for index in answering:
            tried.to_coordinator(coordinator.UnmaskArrived(index, released[index]))
        if tried.round.phase == Phase.UNMASK:
            tried.close()
        if len(answering) < terms.threshold:
            _has_failed(tried, "released their shares", len(answering), terms.threshold)
        else:
            tried.check_total()
            assert tried.round.survivors == uploaded


def _has_failed(machines, what, num_answered, least):
    assert machines.round.phase == Phase.FAILED
    assert (machines.failure.rule, machines.failure.peer) == (None, None)
    assert f"{num_answered} sites {what}, at least {least} must" in machines.failure.reason
    with pytest.raises(LocalProtocolError, match="cannot be closed"):
        machines.close()


@st.composite
def plans(draw):
    """Terms, a roster, and at which step each of its sites is lost; often so that there is a total."""
    num_sites = draw(st.integers(3, 9))
    is_strict = draw(st.booleans())
    colluding = draw(st.integers(0, num_sites // 3))
    threshold = draw(st.integers((num_sites + colluding) // 2 + 1, num_sites))
    floor = max(3, threshold, colluding + 2)
    terms = Terms(
        num_sites=num_sites,
        threshold=threshold,
        minimum_survivors=draw(st.integers(floor, num_sites)),
        colluding_sites=colluding,
        is_strict=is_strict,
    )
    roster = draw(st.permutations(range(num_sites)))[: draw(st.integers(terms.minimum_survivors, num_sites))]
    steps = st.sampled_from(["never"] * 6 + ["before", "uploading", "signing", "releasing"])
    return terms, {index: draw(steps) for index in sorted(roster)}


@given(plan=plans(), seed=st.integers(0, 3))
@settings(max_examples=80)
def test_any_terms_and_any_losses_give_the_exact_total_or_none(plan, seed):
    terms, lost = plan
    machines = TwoMachines(terms.num_sites, terms, seed=seed).open(roster=lost)
    for index, step in lost.items():
        if step != "before":
            machines.upload(index)
            machines.receive(index, 0 if step == "uploading" else None)
    machines.close()
    uploaded = [index for index, step in lost.items() if step not in ("before", "uploading")]
    signing = [index for index in uploaded if lost[index] != "signing"]
    releasing = [index for index in signing if lost[index] == "never"]
    legs = {"signed": signing, "released": releasing} if terms.is_strict else {"released": releasing}
    if len(uploaded) < terms.minimum_survivors:
        assert machines.round.phase == Phase.FAILED
        return
    for answering in legs.values():
        machines.answer_all(answering)
        if len(answering) < terms.threshold:
            assert machines.round.phase == Phase.FAILED
            return
    machines.check_total()
    assert machines.round.survivors == tuple(uploaded)


@pytest.mark.parametrize("mode", BOTH_MODES)
def test_rounds_follow_each_other_with_other_rosters_and_runs_in_between(mode):
    machines = TwoMachines(5, BOTH_MODES[mode](5))
    for number, roster in ((1, range(5)), (2, (0, 1, 3, 4)), (3, (1, 2, 3, 4)), (7, range(5))):
        machines.open(number, roster=roster).finish()
    machines.run = bytes(16)
    machines.open(1).finish()
    machines.run = bytes(range(16))
    machines.open(8).upload_all((0, 1, 2, 4)).finish()


@pytest.mark.parametrize("mode", BOTH_MODES)
def test_vectors_of_several_chunks_and_of_none(mode):
    machines = TwoMachines(4, BOTH_MODES[mode](4), layout=WIDE).open()
    assert machines.shape.num_chunks == 3
    machines.upload_all((0, 2, 3))
    machines.upload(1)
    machines.receive(1, 2)  # it is lost before its last chunk
    machines.close()
    assert machines.round.survivors == (0, 2, 3)
    machines.finish()
    empty = TwoMachines(3, BOTH_MODES[mode](3), layout=layout_of(_Empty, {"num_numbers": 0}))
    assert empty.shape.num_words == 0
    empty.open().finish()


class _Empty(Contribution):
    numbers: Array = exact("num_numbers")


def test_only_whole_vectors_are_added():
    machines = TwoMachines(4, layout=WIDE).open()
    for index in range(4):
        machines.upload(index)
    _, parts = machines.uploads[2]
    machines.receive(2, 0)
    for part in parts[:-1]:
        effects = machines.to_coordinator(coordinator.ChunkArrived(2, part))
        assert [type(effect) for effect in effects] == [coordinator.StoreChunk]
        assert machines.round.uploaded == ()
        assert not machines.total.any()
    effects = machines.to_coordinator(coordinator.ChunkArrived(2, parts[-1]))
    assert [type(effect) for effect in effects] == [coordinator.StoreChunk, coordinator.AddVector]
    assert machines.round.uploaded == (2,)
    machines.finish()


@pytest.mark.parametrize("mode", BOTH_MODES)
def test_sum_below_the_floor_is_never_unmasked(mode):
    """No message to any site asks for a share, and the round cannot go on."""
    terms = BOTH_MODES[mode](5, threshold=3, minimum_survivors=4)
    machines = TwoMachines(5, terms).open().upload_all((0, 1, 4))
    (failure,) = machines.close()
    assert "site 2, site 3" in failure.reason
    assert failure.rule is None
    assert machines.round.phase == Phase.FAILED
    assert machines.round.survivors == ()
    assert [coordinator.message_for(machines.round, index) for index in range(5)] == [None] * 5
    machines.open(1, attempt=2).finish()


def test_what_a_failed_round_leaves_another_attempt_completes():
    machines = TwoMachines(5).open().upload_all((0, 1, 2))
    machines.close()
    assert machines.round.phase == Phase.FAILED
    machines.open(1, 2).upload_all((0, 1, 2, 3, 4)).close()
    machines.answer_all((1, 2))  # two sign: too few
    assert machines.round.phase == Phase.FAILED
    machines.open(1, 3, roster=(0, 1, 2, 4)).finish()


def test_whom_the_coordinator_waits_for():
    machines = TwoMachines(4).open()
    state = machines.round
    assert (state.waits_for, state.can_close) == ((0, 1, 2, 3), False)
    machines.upload_all((0, 2, 3))
    assert (machines.round.waits_for, machines.round.can_close) == ((1,), True)
    machines.close()
    assert (machines.round.waits_for, machines.round.can_close) == ((0, 2, 3), False)
    machines.answer_all((0, 2))
    assert machines.round.phase == Phase.FAILED
    assert machines.round.waits_for == ()
    assert not machines.round.can_close


def test_masks_are_removed_once_and_what_was_released_is_forgotten():
    machines = TwoMachines(3).open().finish()
    assert machines.round.releases == {}
    with pytest.raises(LocalProtocolError):
        coordinator.step(machines.round, Closed())


def test_an_answer_to_an_earlier_ask_is_not_sent_as_one_to_a_later():
    machines = TwoMachines(4).open()
    machines.to_site(0, machines.opened(0))
    stale = machines.computed(0)
    machines.open(1, 2, ask=b"another question")
    machines.to_site(0, machines.opened(0, b"another question"))
    before = machines.sites[0]
    with pytest.raises(LocalProtocolError, match="was asked something else since"):
        machines.to_site(0, stale)
    assert machines.sites[0] == before
    assert not np.array_equal(machines.computed(0).words, np.zeros_like(stale.words))
    machines.to_site(0, machines.computed(0))
    with pytest.raises(LocalProtocolError, match="or has answered"):
        machines.to_site(0, machines.computed(0))


def test_events_of_the_drivers_own_that_cannot_come():
    machines = TwoMachines(3).open()
    with pytest.raises(LocalProtocolError, match="was not asked"):
        machines.to_site(0, machines.computed(0))
    with pytest.raises(LocalProtocolError, match="Enrol cannot come in stage ready"):
        machines.to_site(0, site.Enrol())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"roster": (0, 2, 1, 3)}, "ascending indices below 4"),
        ({"roster": (0, 1, 2, 4)}, "ascending indices below 4"),
        ({"roster": (0, 0, 1, 2)}, "ascending indices below 4"),
        ({"roster": (0, 1)}, "a round needs at least 3 sites, got 2"),
        ({"signing": bytes(32)}, "the key that the manifest pins"),
    ],
)
def test_rounds_that_the_coordinator_cannot_open(change, complaint):
    machines = TwoMachines(4).open()
    opening = Opening(
        run=machines.run,
        round=1,
        attempt=1,
        roster=change.get("roster", (0, 1, 2)),
        broadcast_digest=sha256(b""),
    )
    signing = change.get("signing", machines.round.signing)
    with pytest.raises(ValueError, match=complaint):
        coordinator.open_round(machines.manifest, signing, opening, keys=bytes(32), layout=bytes(32), num_words=3)


@pytest.mark.parametrize(
    "change", [{"round": 0}, {"attempt": 0}, {"run": bytes(15)}, {"run": bytes(17)}, {"broadcast_digest": b""}]
)
def test_openings_that_cannot_be(change):
    values = {"run": bytes(16), "round": 1, "attempt": 1, "roster": (0, 1, 2), "broadcast_digest": bytes(32)}
    with pytest.raises(ValueError, match=r"must have|count from 1"):
        Opening(**{**values, **change})


def test_a_site_with_another_key_than_the_manifest_pins_is_told_so():
    machines = TwoMachines(3)
    secrets = SiteSecrets(identity=bytes(32), exchange=b"", own_key=bytes(32))
    with pytest.raises(ValueError, match="pins another key for site 'site 1'; compare fingerprints"):
        SiteState(manifest=machines.manifest, index=1, secrets=secrets)
    for index in (-1, 3):
        with pytest.raises(ValueError, match=r"index must be in \[0, 2\]"):
            SiteState(manifest=machines.manifest, index=index, secrets=secrets)


def test_no_secret_is_shown():
    machines = TwoMachines(3).open().upload_all()
    machines.close()
    state = machines.sites[0]
    shown = repr(state) + repr(machines.round) + repr(machines.computed(0)) + repr(state.rounds)
    secrets = [state.secrets.identity, state.secrets.own_key, *state.pair_keys, machines.round.signing]
    for secret in secrets:
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown
    unmask = Unmask.from_bytes(machines.answer(0), machines.manifest, "site 0", 3, 3)
    assert unmask.shares[:20]
    assert repr(unmask.shares[:20])[2:-1] not in repr(unmask)
