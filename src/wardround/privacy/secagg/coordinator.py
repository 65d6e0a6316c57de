"""The coordinator's machine of one round: `step(state, event) -> (state, effects)`. It does no IO and keeps no clock.

    MASKED_INPUT --Closed--> CONSISTENCY --all signed, or Closed--> UNMASK --all answered, or Closed--> DONE
    (two_leg: MASKED_INPUT --Closed--> UNMASK; anything that cannot go on leads to FAILED)

The driver stores the new state, and the sum with it, before it sends anything. The masked vectors are not in the
state: the driver assembles one from its chunks, each checked here before it is stored, and adds it to the sum when the
machine says that it is whole. So the memory is that of two vectors, whatever the number of sites. `message_for` says at
any time what a site is owed, so that a site that comes back, or a coordinator that was started again, goes on where it
was.

References:
    Bonawitz et al., Practical Secure Aggregation (CCS 2017), figure 4; `docs/protocol.md`, section 5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wardround.errors import LocalProtocolError, MessageRefusedError
from wardround.privacy.secagg.commitments import SHARE_COMMITMENT_BYTES as COMMITMENT
from wardround.privacy.secagg.commitments import path_of, seed_commitment, share_commitments
from wardround.privacy.secagg.context import Opening
from wardround.privacy.secagg.coordinator_state import (
    AddVector,
    Announce,
    ChunkArrived,
    Closed,
    ConsistencyArrived,
    Effect,
    Effects,
    Event,
    Fail,
    Phase,
    RemoveMasks,
    RoundState,
    StoreChunk,
    StoredUpload,
    UnmaskArrived,
    UploadArrived,
)
from wardround.privacy.secagg.keys import SigningKey
from wardround.privacy.secagg.messages import (
    CHUNK_BYTES,
    Agreement,
    Chunk,
    Consistency,
    Evidence,
    MaskedInput,
    Sealed,
    Survivors,
    Unmask,
    num_chunks,
    survivors_digest,
)
from wardround.privacy.secagg.shamir import LIMBS, SHARE_BYTES, combine
from wardround.privacy.secagg.stored import StoredManifest

__all__ = [
    "AddVector",
    "Announce",
    "ChunkArrived",
    "Closed",
    "ConsistencyArrived",
    "Effect",
    "Effects",
    "Event",
    "Fail",
    "Phase",
    "RemoveMasks",
    "RoundState",
    "StoreChunk",
    "StoredUpload",
    "UnmaskArrived",
    "UploadArrived",
    "evidence_of",
    "message_for",
    "open_round",
    "step",
]

Handler: TypeAlias = Callable[[RoundState, Any], tuple[RoundState, Effects]]


def open_round(
    manifest: StoredManifest, signing: bytes, opening: Opening, *, keys: bytes, layout: bytes, num_words: int
) -> tuple[RoundState, Effects]:
    """Begin a round.

    Args:
        manifest: of the study.
        signing: seed of the coordinator's Ed25519 key, whose public part the manifest pins.
        opening: of the round.
        keys: `keys_digest` of the set-up's advertisements.
        layout: digest of the vector's layout.
        num_words: of the vector.

    Raises:
        ValueError: the roster is not ascending, has unknown sites or too few, or the key is not the manifest's.
    """
    roster, least = opening.roster, manifest.terms.minimum_survivors
    if list(roster) != sorted(set(roster)) or not set(roster) <= set(range(len(manifest.roster))):
        raise ValueError(f"roster must hold ascending indices below {len(manifest.roster)}, got roster={roster}")
    if len(roster) < least:
        raise ValueError(f"a round needs at least {least} sites, got {len(roster)}")
    if SigningKey.from_seed(signing).public != manifest.coordinator:
        raise ValueError("signing must be the key that the manifest pins for the coordinator")
    state = RoundState(
        manifest=manifest,
        signing=signing,
        opening=opening,
        context=opening.context(manifest, keys, layout),
        num_words=num_words,
    )
    return state, (Announce(roster),)


def step(state: RoundState, event: Event) -> tuple[RoundState, Effects]:
    """Take one event in.

    Raises:
        MessageRefusedError: the message breaks a rule; names it and the peer.
        LocalProtocolError: the round is over and the driver closes it again.

    Guarantees:
        refused_message_changes_nothing: the state is a value; what raises leaves it as it was.
        only_whole_vectors_are_added: a site is counted when all of its vector is here and authentic, not before.
        wrong_share_is_named: a share that is not the one that was sealed is refused, with its holder's name.
        total_is_of_the_survivors: after the masks are removed the sum is that of the survivors' vectors exactly.
        sum_below_the_floor_is_never_unmasked: with fewer survivors than `minimum_survivors` no share is asked for.
    """
    handler = TRANSITIONS.get((state.phase, type(event)))
    if handler is not None:
        return handler(state, event)
    if isinstance(event, Closed):
        raise LocalProtocolError(f"a round that is {state.phase} cannot be closed")
    peer = _name(state, event.site)
    raise MessageRefusedError("out_of_turn", peer, f"it came when the round was at {state.phase}")


def message_for(state: RoundState, site: int) -> bytes | None:
    """What a site is owed in this phase; None where nothing is. The broadcast travels beside an opening."""
    signing = SigningKey.from_seed(state.signing)
    if state.phase == Phase.MASKED_INPUT and site in state.roster:
        return state.opening.to_bytes(state.manifest, signing)
    if site not in state.survivors:
        return None
    is_strict = state.manifest.terms.is_strict
    if state.phase == Phase.CONSISTENCY or (state.phase == Phase.UNMASK and not is_strict):
        survivors = Survivors(
            context=state.context,
            holder=site,
            evidence=evidence_of(state),
            sealed=_sealed_for(state, state.roster.index(site)),
        )
        return survivors.to_bytes(state.manifest, signing)
    if state.phase == Phase.UNMASK:
        agreement = Agreement(context=state.context, signatures=tuple(sorted(state.signatures.items())))
        return agreement.to_bytes(state.manifest, signing)
    return None


def _sealed_for(state: RoundState, place: int) -> tuple[Sealed, ...]:
    uploads = [state.uploads[index] for index in state.survivors]
    return tuple(
        Sealed(
            seeds_digest=upload.masked.seeds_digest,
            committed=hashlib.sha256(upload.masked.share_commitments[place]).digest(),
            path=path_of(upload.leaves, place),
            blob=upload.masked.blobs[place],
        )
        for upload in uploads
    )


def evidence_of(state: RoundState) -> tuple[Evidence, ...]:
    """What each survivor signed when it uploaded, in the roster's order."""
    return tuple(state.uploads[index].evidence for index in state.survivors)


def _name(state: RoundState, site: int) -> str:
    return state.manifest.roster[site].name if 0 <= site < len(state.manifest.roster) else f"site {site}"


def _check(state: RoundState, site: int, sender: int, context: bytes) -> str:
    """The name of a peer that sends in its own name and in this round's context."""
    name = _name(state, site)
    if sender != site or site not in state.roster:
        raise MessageRefusedError("unknown_peer", name, f"it speaks for site {sender}, or is not of this round")
    if context != state.context:
        raise MessageRefusedError("context", name, "it answers another ask, roster or round than was sent out")
    return name


def _upload_arrived(state: RoundState, event: UploadArrived) -> tuple[RoundState, Effects]:
    masked = MaskedInput.from_bytes(event.message, _name(state, event.site), len(state.roster), state.num_words)
    name = _check(state, event.site, masked.sender, masked.context)
    if (known := state.uploads.get(event.site)) is not None:
        if known.masked != masked:
            raise MessageRefusedError("out_of_turn", name, "it has uploaded something else in this round")
        return state, ()  # it lost the connection and begins again: `uploads` says how far it had come
    leaves = masked.leaves(state.roster)
    upload = StoredUpload(masked=masked, leaves=leaves, evidence=masked.evidence(leaves))
    upload.evidence.verify(state.manifest, state.context)
    new = replace(state, uploads={**state.uploads, event.site: upload})
    return new, () if num_chunks(state.num_words) else (AddVector(event.site),)


def _chunk_arrived(state: RoundState, event: ChunkArrived) -> tuple[RoundState, Effects]:
    chunk = Chunk.from_bytes(event.message, _name(state, event.site))
    name = _check(state, event.site, chunk.sender, chunk.context)
    upload = state.uploads.get(event.site)
    if upload is None:
        raise MessageRefusedError("out_of_turn", name, "its chunk came before its masked_input")
    whole = num_chunks(state.num_words)
    if chunk.number != upload.num_chunks or chunk.number >= whole:
        raise MessageRefusedError(
            "chunk", name, f"chunk {upload.num_chunks} of {whole} is next, it sent {chunk.number}"
        )
    size = min(CHUNK_BYTES, 8 * state.num_words - CHUNK_BYTES * chunk.number)
    if len(chunk.content) != size:
        raise MessageRefusedError("chunk", name, f"chunk {chunk.number} must have {size} bytes")
    if hashlib.sha256(chunk.content).digest() != upload.masked.chunk_digests[chunk.number]:
        raise MessageRefusedError("chunk", name, f"chunk {chunk.number} is not the one that was announced")
    grown = replace(upload, num_chunks=chunk.number + 1)
    new = replace(state, uploads={**state.uploads, event.site: grown})
    stored = StoreChunk(event.site, chunk.number, chunk.content)
    return new, (stored, AddVector(event.site)) if grown.num_chunks == whole else (stored,)


def _inputs_closed(state: RoundState, event: Closed) -> tuple[RoundState, Effects]:
    survivors, least = state.uploaded, state.manifest.terms.minimum_survivors
    if len(survivors) < least:
        missing = state.names(state.waits_for)
        return _failed(
            state, Fail(f"{len(survivors)} sites sent their contribution, at least {least} must ({missing})")
        )
    # What no share is ever asked for need not be kept.
    kept = {index: state.uploads[index] for index in survivors}
    strict = state.manifest.terms.is_strict
    new = replace(state, phase=Phase.CONSISTENCY if strict else Phase.UNMASK, survivors=survivors, uploads=kept)
    if (at_odds := _at_odds(new)) is not None:
        names = state.names(at_odds)
        return _failed(state, Fail(f"{names} committed to different seeds for one pair", "seed", names))
    named = replace(new, survivors_digest=survivors_digest(new.context, evidence_of(new)))
    return named, (Announce(survivors),)


def _at_odds(state: RoundState) -> tuple[int, int] | None:
    """Two survivors whose commitments to their common seed differ: their masks would not cancel."""
    commitments = {index: state.uploads[index].masked.seed_commitments for index in state.survivors}
    places = state.places
    for i, j in combinations(state.survivors, 2):
        if commitments[i][places[j]] != commitments[j][places[i]]:
            return i, j
    return None


def _consistency_arrived(state: RoundState, event: ConsistencyArrived) -> tuple[RoundState, Effects]:
    message = Consistency.from_bytes(event.message, state.manifest, _name(state, event.site))
    name = _check(state, event.site, message.sender, message.context)
    if event.site not in state.survivors:
        raise MessageRefusedError("out_of_turn", name, "its contribution is not in the sum")
    if message.survivors_digest != state.survivors_digest:
        raise MessageRefusedError("survivors", name, "it signed other survivors than it was sent")
    new = replace(state, signatures={**state.signatures, event.site: message.signature})
    return (new, ()) if new.waits_for else _signatures_closed(new, Closed())


def _signatures_closed(state: RoundState, event: Closed) -> tuple[RoundState, Effects]:
    if not state.can_close:
        return _failed(state, _too_few(state, "signed who is in the sum"))
    return replace(state, phase=Phase.UNMASK), (Announce(state.survivors),)


def _too_few(state: RoundState, what: str) -> Fail:
    answered = len(state.survivors) - len(state.waits_for)
    needed = state.manifest.terms.threshold
    return Fail(f"{answered} sites {what}, at least {needed} must ({state.names(state.waits_for)} did not)")


def _unmask_arrived(state: RoundState, event: UnmaskArrived) -> tuple[RoundState, Effects]:
    name = _name(state, event.site)
    message = Unmask.from_bytes(event.message, state.manifest, name, len(state.roster), len(state.survivors))
    _check(state, event.site, message.sender, message.context)
    if event.site not in state.survivors:
        raise MessageRefusedError("out_of_turn", name, "its contribution is not in the sum")
    if message.survivors_digest != state.survivors_digest:
        raise MessageRefusedError("survivors", name, "it releases shares for other survivors than it was sent")
    _check_shares(state, event.site, message.shares, name)
    new = replace(state, releases={**state.releases, event.site: message.shares})
    return (new, ()) if new.waits_for else _releases_closed(new, Closed())


def _check_shares(state: RoundState, holder: int, shares: bytes, name: str) -> None:
    """Each share must be the one that its sender committed to, as the holder checked before it signed or released."""
    roster_places, start = state.places, 0
    dropped = [roster_places[index] for index in state.dropped]
    for sender in state.survivors:
        committed = state.uploads[sender].masked.share_commitments[roster_places[holder]]
        places = (roster_places[sender], *dropped)
        stop = start + len(places) * SHARE_BYTES
        found = share_commitments(state.context, sender, holder, shares[start:stop], places)
        if found != [committed[place * COMMITMENT : (place + 1) * COMMITMENT] for place in places]:
            raise MessageRefusedError("share", name, f"a share of site {_name(state, sender)!r} is not its own")
        start = stop


def _releases_closed(state: RoundState, event: Closed) -> tuple[RoundState, Effects]:
    if not state.can_close:
        return _failed(state, _too_few(state, "released their shares"))
    seeds, liar = _seeds(state)
    if liar is not None:
        name = _name(state, liar)
        return _failed(state, Fail(f"the shares of {name} do not give back what it committed to", "seed", name))
    done = replace(state, phase=Phase.DONE, releases={})
    return done, (RemoveMasks(state.survivors, _masks(state, seeds)),)


def _seeds(state: RoundState) -> tuple[Mapping[int, Sequence[bytes]], int | None]:
    """By survivor: the seed of its self mask, then those of its masks with the dropped. Or who shared others."""
    num_each = 1 + len(state.dropped)
    holders = sorted(state.releases)[: state.manifest.terms.threshold]
    released = np.stack([np.frombuffer(state.releases[holder], "<u2") for holder in holders])
    shares = released.reshape(len(holders), -1, LIMBS)
    try:
        joined = combine(shares, holders)
    except ValueError:  # no seed at all: whose?
        return {}, _not_a_seed(state, shares, holders)
    seeds = {
        sender: joined[number * num_each : (number + 1) * num_each] for number, sender in enumerate(state.survivors)
    }
    return seeds, next((sender for sender in seeds if not _are_committed(state, sender, seeds[sender])), None)


def _not_a_seed(state: RoundState, shares: NDArray[np.uint16], holders: Sequence[int]) -> int:
    by_sender = np.split(shares, len(state.survivors), axis=1)
    for sender, own in zip(state.survivors, by_sender, strict=True):
        try:
            combine(own, holders)
        except ValueError:
            return sender
    raise AssertionError("each site's shares give a seed, and all sites' together do not")


def _are_committed(state: RoundState, sender: int, seeds: Sequence[bytes]) -> bool:
    commitments, places = state.uploads[sender].masked.seed_commitments, state.places
    return all(
        seed_commitment(state.context, sender, peer, seed) == commitments[places[peer]]
        for peer, seed in zip((sender, *state.dropped), seeds, strict=True)
    )


def _masks(state: RoundState, seeds: Mapping[int, Sequence[bytes]]) -> tuple[tuple[bytes, int], ...]:
    """What the survivors added and nobody took away again, with the sign that takes it away."""
    masks, dropped = [], state.dropped
    for sender, (own, *others) in seeds.items():
        masks.append((own, -1))
        masks += [(seed, -1 if peer > sender else 1) for peer, seed in zip(dropped, others, strict=True)]
    return tuple(masks)


def _failed(state: RoundState, failure: Fail) -> tuple[RoundState, Effects]:
    return replace(state, phase=Phase.FAILED, failure=failure.reason, releases={}), (failure,)


TRANSITIONS: Mapping[tuple[Phase, type[Event]], Handler] = {
    (Phase.MASKED_INPUT, UploadArrived): _upload_arrived,
    (Phase.MASKED_INPUT, ChunkArrived): _chunk_arrived,
    (Phase.MASKED_INPUT, Closed): _inputs_closed,
    (Phase.CONSISTENCY, ConsistencyArrived): _consistency_arrived,
    (Phase.CONSISTENCY, Closed): _signatures_closed,
    (Phase.UNMASK, UnmaskArrived): _unmask_arrived,
    (Phase.UNMASK, Closed): _releases_closed,
}
