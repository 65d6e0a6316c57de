"""The messages of a round as bytes: their sizes, their one form, and what is no message."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.privacy.secagg.lies import machines_of, parsed, survivors_of
from tests.privacy.secagg.two_machines import BOTH_MODES, WIDE, TwoMachines
from wardround.errors import MessageRefusedError
from wardround.privacy.secagg import cost, messages
from wardround.privacy.secagg.commitments import (
    holder_digest,
    path_digests,
    path_of,
    root_of,
    seed_commitment,
    share_commitments,
)
from wardround.privacy.secagg.context import Opening, opening_bytes
from wardround.privacy.secagg.messages import Agreement, Chunk, Consistency, MaskedInput, Survivors, Unmask
from wardround.privacy.secagg.wire import Kind, digest, u16


@pytest.mark.parametrize("mode", BOTH_MODES)
@pytest.mark.parametrize(("num_sites", "lost"), [(3, ()), (5, (3,)), (9, (0, 8)), (9, ())])
def test_sizes_are_known_beforehand(mode, num_sites, lost):
    machines = TwoMachines(num_sites, BOTH_MODES[mode](num_sites)).open()
    left = num_sites - len(lost)
    assert len(machines.opened(1).message) == opening_bytes(num_sites)
    machines.upload_all([index for index in range(num_sites) if index not in lost])
    upload, chunks = machines.uploads[1]
    shape = machines.shape
    assert len(upload) == messages.masked_input_bytes(num_sites, shape.num_words)
    assert len(upload) + sum(map(len, chunks)) == cost.upload_bytes(num_sites, shape.num_bytes)
    machines.close()
    survivors = machines.owed(1)
    assert len(survivors) == messages.survivors_bytes(num_sites, left)
    if machines.is_strict:
        assert len(machines.answer(1)) == messages.CONSISTENCY_BYTES
        machines.answer_all()
        assert len(machines.owed(1)) == messages.agreement_bytes(left)
    released = machines.answer(1)
    assert len(released) == messages.unmask_bytes(num_sites, left)
    machines.finish()


def test_sizes_of_vectors_in_several_chunks():
    machines = TwoMachines(3, layout=WIDE).open()
    upload, chunks = machines.upload(0)
    assert len(chunks) == messages.num_chunks(machines.shape.num_words) == 3
    assert len(upload) == messages.masked_input_bytes(3, machines.shape.num_words)
    assert len(upload) + sum(map(len, chunks)) == cost.upload_bytes(3, machines.shape.num_bytes)


def _round():
    machines = machines_of("strict").open().upload_all((0, 1, 2, 4))
    machines.close()
    survivors = machines.owed(0)
    consistency = machines.answer(0)
    machines.answer_all()
    return machines, survivors, consistency, machines.owed(0), machines.answer(0)


ROUND = _round()


def test_messages_have_one_form():
    machines, survivors, consistency, agreement, unmask = ROUND
    manifest, signing = machines.manifest, machines.signing
    opening = machines.opening
    message = opening.to_bytes(manifest, signing)
    assert Opening.from_bytes(message, manifest, opening.broadcast_digest) == opening
    upload, (chunk,) = machines.uploads[0]
    assert parsed(machines, 0).to_bytes() == upload
    assert Chunk.from_bytes(chunk, "").to_bytes() == chunk
    assert Survivors.from_bytes(survivors, manifest, 5).to_bytes(manifest, signing) == survivors
    one = Consistency.from_bytes(consistency, manifest, "")
    again = Consistency.signed(manifest, one.context, one.sender, one.survivors_digest, machines.setup.signing[0])
    assert again == consistency
    assert Agreement.from_bytes(agreement, manifest).to_bytes(manifest, signing) == agreement
    released = Unmask.from_bytes(unmask, manifest, "", 5, 4)
    assert released.signed(manifest, machines.setup.signing[0]) == unmask


def _decoders():
    machines = ROUND[0]
    manifest, num_words = machines.manifest, machines.shape.num_words
    return {
        Kind.OPENING: lambda message: Opening.from_bytes(message, manifest, bytes(32)),
        Kind.MASKED_INPUT: lambda message: MaskedInput.from_bytes(message, "site 1", 5, num_words),
        Kind.CHUNK: lambda message: Chunk.from_bytes(message, "site 1"),
        Kind.SURVIVORS: lambda message: Survivors.from_bytes(message, manifest, 5),
        Kind.CONSISTENCY: lambda message: Consistency.from_bytes(message, manifest, "site 1"),
        Kind.AGREEMENT: lambda message: Agreement.from_bytes(message, manifest),
        Kind.UNMASK: lambda message: Unmask.from_bytes(message, manifest, "site 1", 5, 4),
    }


DECODERS = _decoders()


@pytest.mark.parametrize("kind", DECODERS, ids=lambda kind: kind.name)
@given(body=st.binary(max_size=300), frame=st.booleans())
def test_any_bytes_are_refused_and_nothing_else_happens(kind, body, frame):
    message = b"WRSA\x01" + bytes([kind]) + body if frame else body
    try:
        DECODERS[kind](message)
    except MessageRefusedError as error:
        assert error.rule in ("malformed", "signature", "unknown_peer")  # noqa: PT017
    else:
        assert kind in (Kind.MASKED_INPUT, Kind.CHUNK)  # nothing in them is believed yet


@pytest.mark.parametrize("kind", DECODERS, ids=lambda kind: kind.name)
def test_what_is_too_large_is_refused_before_it_is_looked_at(kind):
    with pytest.raises(MessageRefusedError, match="at most") as caught:
        DECODERS[kind](bytes(2**20 + 2**12))
    assert caught.value.rule == "malformed"


@pytest.mark.parametrize("kind", DECODERS, ids=lambda kind: kind.name)
def test_a_message_of_another_kind_is_refused(kind):
    upload, (chunk,) = ROUND[0].uploads[0]
    for message in (*ROUND[1:], upload, chunk, ROUND[0].opening.to_bytes(ROUND[0].manifest, ROUND[0].signing)):
        if message[5] != kind:
            with pytest.raises(MessageRefusedError, match="malformed"):
                DECODERS[kind](message)


@given(data=st.data())
def test_an_agreement_or_roster_longer_than_the_study_is_malformed(data):
    machines = ROUND[0]
    count = data.draw(st.integers(6, 2**16 - 1))
    body = b"WRSA\x01\x09" + bytes(32) + u16(count)
    message = body + machines.signing.sign("agreement", machines.manifest.digest, body)
    with pytest.raises(MessageRefusedError, match=f"it has {count} signatures, the roster 5 sites"):
        Agreement.from_bytes(message, machines.manifest)


@given(index=st.integers(5, 2**16 - 1))
def test_indices_outside_the_roster_name_who_delivered_them(index):
    machines = ROUND[0]
    lies = [
        Consistency.signed(machines.manifest, bytes(32), index, bytes(32), machines.setup.signing[0]),
        replace(Unmask.from_bytes(ROUND[4], machines.manifest, "", 5, 4), sender=index).signed(
            machines.manifest, machines.setup.signing[0]
        ),
    ]
    for kind, lie in zip((Kind.CONSISTENCY, Kind.UNMASK), lies, strict=True):
        with pytest.raises(MessageRefusedError) as caught:
            DECODERS[kind](lie)
        assert (caught.value.rule, caught.value.peer) == ("unknown_peer", "site 1")


def test_survivors_of_no_site_are_read_and_left_to_the_machine():
    machines = ROUND[0]
    nobody = replace(survivors_of(_told(), 0), evidence=(), sealed=())
    message = nobody.to_bytes(machines.manifest, machines.signing)
    assert Survivors.from_bytes(message, machines.manifest, 5) == nobody


def _told():
    machines = machines_of("strict").open().upload_all((0, 1, 2, 4))
    machines.close()
    return machines


def test_a_context_binds_all_that_it_is_about():
    """Masks, seals and signatures of two rounds that differ in anything have nothing in common."""
    machines, other = machines_of("strict"), TwoMachines(5, seed=3)
    opening = machines.open().opening
    keys, layout = bytes(range(32)), bytes(range(32, 64))
    changes = [
        {"run": bytes(16)},
        {"round": 2},
        {"attempt": 2},
        {"roster": (0, 1, 2, 3)},
        {"roster": (0, 1, 2, 4)},
        {"broadcast_digest": bytes(32)},
    ]
    contexts = [
        opening.context(machines.manifest, keys, layout),
        opening.context(other.manifest, keys, layout),
        opening.context(machines.manifest, layout, layout),
        opening.context(machines.manifest, keys, keys),
        *[replace(opening, **change).context(machines.manifest, keys, layout) for change in changes],
    ]
    assert len(set(contexts)) == len(contexts) == 10


def test_what_is_signed_of_an_upload_binds_all_of_it():
    machines = ROUND[0]
    honest, roster = parsed(machines, 0), machines.opening.roster
    flipped = [replace(honest, **change) for change in _changes_of(honest)]
    digests = set()
    for one in (honest, *flipped):
        evidence = one.evidence(one.leaves(roster))
        digests.add((evidence.sender, evidence.vector_digest, evidence.shares_digest))
    assert len(digests) == 1 + len(flipped)


def _changes_of(honest):
    """Each field, and each part of it, with one bit changed."""
    yield {"context": _flip(honest.context)}
    yield {"sender": 1}
    yield {"num_words": honest.num_words + 1}
    for name in ("chunk_digests", "seed_commitments", "share_commitments", "blobs"):
        parts = getattr(honest, name)
        for place, part in enumerate(parts):
            yield {name: (*parts[:place], _flip(part), *parts[place + 1 :])}


def _flip(octets: bytes) -> bytes:
    return octets[:-1] + bytes([octets[-1] ^ 1])


def test_who_is_in_the_sum_binds_all_that_they_signed():
    """S: the context, the sites, their vectors and their shares."""
    survivors = survivors_of(_told(), 0)
    first, *others = survivors.evidence
    digests = {
        survivors.digest,
        replace(survivors, context=bytes(32)).digest,
        replace(survivors, evidence=tuple(others)).digest,
        replace(survivors, evidence=(replace(first, sender=3), *others)).digest,
        replace(survivors, evidence=(replace(first, vector_digest=bytes(32)), *others)).digest,
        replace(survivors, evidence=(replace(first, shares_digest=bytes(32)), *others)).digest,
    }
    assert len(digests) == 6
    assert replace(survivors, evidence=(replace(first, signature=bytes(64)), *others)).digest == survivors.digest


# Commitments


@pytest.mark.parametrize("num_leaves", [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 33, 100, 1024])
def test_every_leaf_leads_to_the_root_by_its_own_path(num_leaves):
    leaves = tuple(digest("leaf", u16(number)) for number in range(num_leaves))
    roots = set()
    for place in range(num_leaves):
        path = path_of(leaves, place)
        assert (
            len(path) == path_digests(num_leaves) == messages.survivors_bytes(num_leaves, 1) // 32 - _rest(num_leaves)
        )
        roots.add(root_of(leaves[place], path, place))
        if num_leaves > 1:
            assert root_of(digest("leaf", b"another"), path, place) not in roots
            other = (place + 1) % num_leaves
            assert root_of(leaves[place], path, other) != root_of(leaves[place], path, place) or _own_sibling(
                num_leaves, place, other
            )
    assert len(roots) == 1


def _rest(num_leaves: int) -> int:
    return messages.survivors_bytes(num_leaves, 1) // 32 - path_digests(num_leaves)


def _own_sibling(num_leaves: int, place: int, other: int) -> bool:
    """Whether the two places differ only where a node is its own sibling."""
    level = num_leaves
    while place != other:
        if place // 2 == other // 2:
            return place == level - 1 and level % 2 == 1
        place, other, level = place // 2, other // 2, -(-level // 2)
    return True


@given(holder=st.integers(0, 1023), sender=st.integers(0, 1023), shares=st.binary(min_size=36 * 4, max_size=36 * 4))
def test_share_commitments_are_the_digests_of_the_specification(holder, sender, shares):
    context, places = bytes(range(32)), (3, 0, 1000, 7)
    expected = [
        digest("share", context, u16(sender), u16(holder), u16(place), shares[36 * k : 36 * k + 36])[:16]
        for k, place in enumerate(places)
    ]
    assert share_commitments(context, sender, holder, shares, places) == expected


def test_a_commitment_binds_all_that_it_is_about():
    context, share = bytes(32), bytes(36)
    one = share_commitments(context, 1, 2, share, [3])
    others = [
        share_commitments(bytes(31) + b"\1", 1, 2, share, [3]),
        share_commitments(context, 2, 2, share, [3]),
        share_commitments(context, 1, 1, share, [3]),
        share_commitments(context, 1, 2, share, [2]),
        share_commitments(context, 1, 2, bytes(35) + b"\1", [3]),
    ]
    assert one not in others
    seed = bytes(32)
    assert seed_commitment(context, 1, 2, seed) == seed_commitment(context, 2, 1, seed)
    assert seed_commitment(context, 1, 2, seed) not in (
        seed_commitment(context, 1, 1, seed),
        seed_commitment(context, 2, 2, seed),
        seed_commitment(bytes(31) + b"\1", 1, 2, seed),
        seed_commitment(context, 1, 2, bytes(31) + b"\1"),
    )
    leaf = holder_digest(context, 1, 2, bytes(32), b"blob")
    assert leaf not in (
        holder_digest(bytes(31) + b"\1", 1, 2, bytes(32), b"blob"),
        holder_digest(context, 2, 2, bytes(32), b"blob"),
        holder_digest(context, 1, 1, bytes(32), b"blob"),
        holder_digest(context, 2, 1, bytes(32), b"blob"),
        holder_digest(context, 1, 2, bytes(31) + b"\1", b"blob"),
        holder_digest(context, 1, 2, bytes(32), b"glob"),
    )
