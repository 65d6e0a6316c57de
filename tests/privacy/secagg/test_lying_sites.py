"""Lying sites. Each is stopped by an error that names the rule and the liar, and nothing is changed."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tests.privacy.secagg.lies import (
    machines_of,
    named,
    opened,
    parsed,
    signed,
)
from tests.privacy.secagg.two_machines import (
    BOTH_MODES,
    WIDE,
    TwoMachines,
    sha256,
)
from wardround.privacy.secagg import coordinator, site
from wardround.privacy.secagg.commitments import seed_commitment, share_commitments
from wardround.privacy.secagg.coordinator import ChunkArrived, ConsistencyArrived, Phase, UnmaskArrived, UploadArrived
from wardround.privacy.secagg.keys import derive, seal
from wardround.privacy.secagg.messages import Chunk, Consistency, Unmask
from wardround.privacy.secagg.shamir import FIELD, SHARE_BYTES, split
from wardround.privacy.secagg.vector import CHUNK_WORDS
from wardround.privacy.secagg.wire import COORDINATOR, u16
from wardround.sums import Array, Contribution, exact
from wardround.sums.contribution import layout_of

MODES = pytest.mark.parametrize("mode", BOTH_MODES)


# Lying sites


@MODES
def test_uploads_that_break_the_rules(mode):
    machines = machines_of(mode).open()
    for index in (0, 1):
        machines.upload(index)
    honest = parsed(machines, 1)
    other = replace(honest, blobs=honest.blobs[::-1])
    cases = [
        ("unknown_peer", 1, UploadArrived(1, machines.uploads[0][0])),
        ("unknown_peer", "site 7", UploadArrived(7, machines.uploads[0][0])),
        ("unknown_peer", "site -1", UploadArrived(-1, machines.uploads[0][0])),
        ("context", 1, UploadArrived(1, signed(machines, 1, replace(honest, context=bytes(32))))),
        ("signature", 1, UploadArrived(1, other.to_bytes())),
        ("signature", 1, UploadArrived(1, signed(machines, 0, honest))),
        ("malformed", 1, UploadArrived(1, signed(machines, 1, replace(honest, num_words=honest.num_words - 1)))),
        ("malformed", 1, UploadArrived(1, signed(machines, 1, replace(honest, num_words=2**63)))),
        ("malformed", 1, UploadArrived(1, signed(machines, 1, replace(honest, chunk_digests=(bytes(32),) * 2)))),
        ("out_of_turn", 1, ChunkArrived(1, machines.uploads[1][1][0])),
    ]
    for rule, peer, lie in cases:
        with machines.refused(rule, peer):
            machines.to_coordinator(lie)
    machines.to_coordinator(UploadArrived(1, machines.uploads[1][0]))
    with machines.refused("out_of_turn", 1):
        machines.to_coordinator(UploadArrived(1, signed(machines, 1, other)))
    assert machines.to_coordinator(UploadArrived(1, machines.uploads[1][0])) == ()
    machines.finish()


def test_a_site_that_is_not_of_the_round():
    machines = machines_of("strict").open().upload_all()
    elsewhere = machines_of("strict").open(roster=(0, 1, 2, 4))
    elsewhere.sites = machines_of("strict").sites
    with elsewhere.refused("malformed", 3):  # its size is that of another round
        elsewhere.to_coordinator(UploadArrived(3, machines.uploads[3][0]))
    elsewhere.upload(0)
    with elsewhere.refused("unknown_peer", 3):
        elsewhere.to_coordinator(UploadArrived(3, signed(elsewhere, 3, replace(parsed(elsewhere, 0), sender=3))))
    elsewhere.finish()


@MODES
def test_chunks_that_are_not_those_announced(mode):
    machines = TwoMachines(4, BOTH_MODES[mode](4), layout=WIDE).open()
    _, parts = machines.upload(2)
    machines.upload(0)
    machines.receive(2, 1)
    first, second, third = (Chunk.from_bytes(part, "") for part in parts)
    content = bytearray(second.content)
    content[5] ^= 1
    cases = [
        ("chunk", 2, parts[2]),
        ("chunk", 2, parts[0]),
        ("chunk", 2, replace(second, number=3).to_bytes()),
        ("chunk", 2, replace(second, number=2**32 - 1).to_bytes()),
        ("chunk", 2, replace(second, content=bytes(content)).to_bytes()),
        ("chunk", 2, replace(second, content=first.content).to_bytes()),
        ("chunk", 2, replace(second, content=second.content[:-8]).to_bytes()),
        ("chunk", 2, replace(second, content=b"").to_bytes()),
        ("malformed", 2, replace(second, content=bytes(second.content) + b"0").to_bytes()),
        ("context", 2, replace(second, context=bytes(32)).to_bytes()),
        ("unknown_peer", 2, replace(second, sender=0).to_bytes()),
    ]
    for rule, peer, lie in cases:
        with machines.refused(rule, peer):
            machines.to_coordinator(ChunkArrived(2, lie))
    machines.to_coordinator(ChunkArrived(2, parts[1]))
    short = replace(third, content=third.content[:-1]).to_bytes()
    long = replace(third, content=bytes(third.content) + b"0").to_bytes()
    for lie in (short, long):
        with machines.refused("chunk", 2):
            machines.to_coordinator(ChunkArrived(2, lie))
    machines.to_coordinator(ChunkArrived(2, parts[2]))
    with machines.refused("chunk", 2):
        machines.to_coordinator(ChunkArrived(2, parts[2]))
    machines.finish()


@MODES
def test_chunks_of_another_size_that_were_announced_so(mode):
    """The hash is that of the signed upload: the size is checked by itself."""
    for wrong in (lambda content: content[:-8], lambda content: b"", lambda content: content + bytes(8)):
        machines = machines_of(mode).open()
        _, (part,) = machines.upload(2)
        chunk = Chunk.from_bytes(part, "")
        content = wrong(bytes(chunk.content))
        lie = signed(machines, 2, replace(parsed(machines, 2), chunk_digests=(sha256(content),)))
        machines.to_coordinator(UploadArrived(2, lie))
        with machines.refused("chunk", 2):
            machines.to_coordinator(ChunkArrived(2, replace(chunk, content=content).to_bytes()))
        machines.upload_all((0, 1, 3, 4)).close()
        machines.finish()


class _OneChunk(Contribution):
    numbers: Array = exact("num_numbers")


@MODES
def test_a_chunk_after_the_last(mode):
    """Where the vector fills its last chunk, nothing is left for another, not even an empty one."""
    layout = layout_of(_OneChunk, {"num_numbers": CHUNK_WORDS // 2})
    machines = TwoMachines(3, BOTH_MODES[mode](3), layout=layout).open()
    machines.upload(1)
    machines.receive(1)
    last = Chunk.from_bytes(machines.uploads[1][1][0], "")
    with machines.refused("chunk", 1):
        machines.to_coordinator(ChunkArrived(1, replace(last, number=1, content=b"").to_bytes()))
    machines.finish()


@MODES
def test_consistency_and_unmask_messages_that_break_the_rules(mode):
    machines = named(mode)
    if machines.is_strict:
        honest = Consistency.from_bytes(machines.answer(1), machines.manifest, "")
        manifest, signing = machines.manifest, machines.setup.signing

        def consistency(sender=1, context=honest.context, survivors=honest.survivors_digest, key=signing[1]):
            return ConsistencyArrived(1, Consistency.signed(manifest, context, sender, survivors, key))

        cases = [
            ("unknown_peer", 1, consistency(sender=0, key=signing[0])),
            ("unknown_peer", 1, consistency(sender=999)),
            ("signature", 1, consistency(key=signing[0])),
            ("signature", 0, consistency(sender=0)),
            ("context", 1, consistency(context=bytes(32))),
            ("survivors", 1, consistency(survivors=bytes(32))),
        ]
        for rule, peer, lie in cases:
            with machines.refused(rule, peer):
                machines.to_coordinator(lie)
        lost = replace(consistency(sender=3, key=signing[3]), site=3)
        with machines.refused("out_of_turn", 3):
            machines.to_coordinator(lost)
        machines.answer_all()
    _check_unmask_lies(machines)
    machines.finish()


def _check_unmask_lies(machines: TwoMachines) -> None:
    manifest, signing = machines.manifest, machines.setup.signing
    honest = Unmask.from_bytes(machines.answer(1), manifest, "", 5, 4)

    def unmask(key=signing[1], **changes):
        return UnmaskArrived(1, replace(honest, **changes).signed(manifest, key))

    cases = [
        ("unknown_peer", 1, unmask(signing[0], sender=0)),
        ("unknown_peer", 1, unmask(sender=999)),
        ("signature", 1, unmask(signing[0])),
        ("context", 1, unmask(context=bytes(32))),
        ("survivors", 1, unmask(survivors_digest=bytes(32))),
        ("malformed", 1, unmask(shares=honest.shares[:-36])),
        ("malformed", 1, unmask(shares=honest.shares + bytes(36))),
    ]
    message = honest.signed(manifest, signing[1])
    altered = bytearray(message)
    altered[6 + 32 + 2 + 32 + 5] ^= 1  # in a share: the signature is over them too, and fails before they are looked at
    cases.append(("signature", 1, UnmaskArrived(1, bytes(altered))))
    for rule, peer, lie in cases:
        with machines.refused(rule, peer):
            machines.to_coordinator(lie)
    with machines.refused("out_of_turn", 3):
        machines.to_coordinator(replace(unmask(signing[3], sender=3), site=3))


@MODES
def test_wrong_share_is_named(mode):
    """One number of any share that differs is refused, and the holder named, who was sent the right one."""
    machines = named(mode)
    if machines.is_strict:
        machines.answer_all()
    honest = Unmask.from_bytes(machines.answer(1), machines.manifest, "", 5, 4)
    for number in range(0, len(honest.shares), SHARE_BYTES):
        shares = bytearray(honest.shares)
        shares[number + 3] ^= 1
        lie = replace(honest, shares=bytes(shares)).signed(machines.manifest, machines.setup.signing[1])
        with machines.refused("share", 1):
            machines.to_coordinator(UnmaskArrived(1, lie))
    swapped = honest.shares[SHARE_BYTES:] + honest.shares[:SHARE_BYTES]
    lie = replace(honest, shares=swapped).signed(machines.manifest, machines.setup.signing[1])
    with machines.refused("share", 1):
        machines.to_coordinator(UnmaskArrived(1, lie))
    machines.answer_all((0, 2, 4, 1))
    machines.check_total()


def lying_upload(
    machines: TwoMachines,
    index: int,
    *,
    shares: Callable[[np.ndarray], None] = lambda shares: None,
    sealed: Callable[[np.ndarray], None] = lambda shares: None,
    commitments: dict[int, bytes] | None = None,
    keys: dict[int, int] | None = None,
) -> None:
    """Let a site share, seal or commit to other things than its seeds, all of it well signed.

    Args:
        machines: of which the site has uploaded.
        index: the site's.
        shares: changes the shares (holders, seeds, limbs) before they are committed to.
        sealed: changes what is then sealed.
        commitments: other seed commitments, by place.
        keys: by holder whose key a blob is sealed under instead.
    """
    honest, roster, context = parsed(machines, index), machines.opening.roster, machines.round.context
    keys_of = machines.setup.pair_keys[index]
    seeds = [bytes(32) if peer == index else derive(keys_of[peer], "mask", context) for peer in roster]
    made = split(seeds, machines.manifest.terms.threshold, roster, bytes(32)).astype("<u2")
    shares(made)
    rows = tuple(
        b"".join(share_commitments(context, index, holder, holding.tobytes(), range(len(roster))))
        for holder, holding in zip(roster, made, strict=True)
    )
    sealed(made)
    blobs = []
    for holder, holding in zip(roster, made, strict=True):
        other = (keys or {}).get(holder, holder)
        key = derive(keys_of[other], "blob", context, u16(index), u16(other))
        blobs.append(seal(key, bytes(12), holding.tobytes()))
    seed_commitments = list(honest.seed_commitments)
    seed_commitments[roster.index(index)] = seed_commitment(context, index, index, bytes(32))
    for place, commitment in (commitments or {}).items():
        seed_commitments[place] = commitment
    lie = replace(honest, share_commitments=rows, blobs=tuple(blobs), seed_commitments=tuple(seed_commitments))
    machines.uploads[index] = signed(machines, index, lie), machines.uploads[index][1]


def uploaded_with_a_liar(mode: str, **lies) -> TwoMachines:
    """A round in which site 2 lies; site 3 drops out."""
    machines = machines_of(mode).open()
    for index in (0, 1, 2, 4):
        machines.upload(index)
    lying_upload(machines, 2, **lies)
    for index in (0, 1, 2, 4):
        machines.receive(index)
    machines.close()
    return machines


def _then_without_the_liar(machines: TwoMachines, *, released: bool) -> None:
    """No share was released: another attempt; else another round."""
    number, attempt = (2, 1) if released else (1, 2)
    machines.open(number, attempt, roster=(0, 1, 3, 4)).finish()


@MODES
def test_the_lying_uploads_of_these_tests_are_else_honest(mode):
    machines = uploaded_with_a_liar(mode)
    assert machines.round.phase != Phase.FAILED
    for index in (0, 1, 2, 4):
        machines.answer(index)


@MODES
@pytest.mark.parametrize("place", [0, 2, 3, 4])
def test_shares_that_were_sealed_but_not_committed_to_name_the_sharer(mode, place):
    def lie(shares):
        shares[0, place, 5] = (int(shares[0, place, 5]) + 1) % FIELD

    machines = uploaded_with_a_liar(mode, sealed=lie)
    with machines.refused("share", 2):
        machines.to_site(0, machines.question(machines.owed(0)))
    machines.answer(1)  # for the others nothing is wrong
    _then_without_the_liar(machines, released=not machines.is_strict)


@MODES
def test_shares_with_numbers_outside_the_field_name_the_sharer(mode):
    def lie(shares):
        shares[0, 4, 17] = FIELD

    machines = uploaded_with_a_liar(mode, shares=lie)
    with machines.refused("share", 2):
        machines.to_site(0, machines.question(machines.owed(0)))
    _then_without_the_liar(machines, released=False)


@MODES
def test_blobs_that_do_not_open_name_the_sharer(mode):
    machines = uploaded_with_a_liar(mode, keys={0: 1})
    with machines.refused("blob", 2):
        machines.to_site(0, machines.question(machines.owed(0)))
    machines.answer(1)
    _then_without_the_liar(machines, released=not machines.is_strict)


@MODES
def test_two_uploads_of_one_site_cannot_both_be_in_the_sum(mode):
    """It signed both, and the coordinator shows each to some of the others: the sites are the same, S is not."""
    honest = machines_of(mode).open()
    for index in (0, 1, 2, 4):
        honest.upload(index)
    lying = honest.fork()
    lying_upload(lying, 2)
    for machines in (honest, lying):
        for index in (0, 1, 2, 4):
            machines.receive(index)
        machines.close()
    assert honest.round.survivors == lying.round.survivors
    assert honest.round.survivors_digest != lying.round.survivors_digest
    honest.answer(0)
    with honest.refused("second_answer", COORDINATOR):
        honest.to_site(0, site.SurvivorsArrived(lying.owed(0)))
    honest.finish()


@MODES
@pytest.mark.parametrize("value", [1, 2**15 - 1, 2**15, FIELD - 1])
@pytest.mark.parametrize(("place", "limb"), [(2, 0), (3, 3), (2, 17)])
def test_a_sharer_whose_shares_do_not_give_back_its_seed_is_named(mode, place, limb, value):
    """Shares of another seed, or of no seed at all, committed to and sealed as they are."""

    def lie(shares):
        shares[:, place, limb] = (shares[:, place, limb].astype(np.int64) + value) % FIELD

    machines = uploaded_with_a_liar(mode, shares=lie)
    if machines.is_strict:
        machines.answer_all()
    machines.answer_all()
    assert machines.round.phase == Phase.FAILED
    assert (machines.failure.rule, machines.failure.peer) == ("seed", "site 2")
    assert "site 2" in machines.failure.reason
    assert not np.array_equal(machines.total, machines.expected((0, 1, 2, 4)))
    with machines.refused("replayed", COORDINATOR):
        machines.to_site(0, opened(machines, attempt=2))
    _then_without_the_liar(machines, released=True)


@MODES
def test_a_seed_commitment_that_nobody_else_has_is_found_when_the_seed_is(mode):
    machines = uploaded_with_a_liar(mode, commitments={3: bytes(32)})
    if machines.is_strict:
        machines.answer_all()
    machines.answer_all()
    assert (machines.failure.rule, machines.failure.peer) == ("seed", "site 2")


@MODES
@pytest.mark.parametrize("place", [0, 1, 4])
def test_a_pair_that_commits_to_different_seeds_is_named_before_anything_is_asked(mode, place):
    machines = uploaded_with_a_liar(mode, commitments={place: bytes(32)})
    assert machines.round.phase == Phase.FAILED
    names = ", ".join(f"site {index}" for index in sorted((2, place)))
    assert (machines.failure.rule, machines.failure.peer) == ("seed", names)
    assert [coordinator.message_for(machines.round, index) for index in range(5)] == [None] * 5
    _then_without_the_liar(machines, released=False)
