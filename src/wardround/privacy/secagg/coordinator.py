"""The coordinator's machine of one round: `step(state, event) -> (state, effects)`. It does no IO and keeps no clock.

    MASKED_INPUT --Closed--> CONSISTENCY --all signed, or Closed--> UNMASK --all answered, or Closed--> DONE
    (two_leg: MASKED_INPUT --Closed--> UNMASK; anything that cannot go on leads to FAILED)

The masked vectors are not in the state: the driver assembles one from its chunks, each checked here before it is
stored, and adds it to the sum when the machine says that it is whole. So the memory is that of two
vectors, whatever the number of sites. `message_for` says at any time what a site is owed, so that a site that comes
back, or a coordinator that was started again, goes on where it was.

References:
    Bonawitz et al., Practical Secure Aggregation (CCS 2017), figure 4; `docs/protocol.md`, section 5.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from wardround.errors import LocalProtocolError, MessageRefusedError
from wardround.privacy.secagg.context import Opening
from wardround.privacy.secagg.keys import SigningKey
from wardround.privacy.secagg.messages import (
    CHUNK_BYTES,
    Agreement,
    Chunk,
    Consistency,
    Evidence,
    MaskedInput,
    Survivors,
    Unmask,
    num_chunks,
    seed_commitment,
    share_commitment,
    survivors_digest,
)
from wardround.privacy.secagg.messages import SHARE_COMMITMENT_BYTES as COMMITMENT
from wardround.privacy.secagg.shamir import LIMBS, SHARE_BYTES, combine
from wardround.privacy.secagg.stored import Octets, StoredManifest


class Phase(enum.StrEnum):
    """What the coordinator waits for."""

    MASKED_INPUT = "masked_input"
    CONSISTENCY = "consistency"
    UNMASK = "unmask"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredUpload:
    """A masked_input that was accepted, what its sender signed by it, and how many of its chunks have come."""

    masked: MaskedInput
    evidence: Evidence
    num_chunks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundState:
    """All that the coordinator knows of a round, but for the vectors.

    Attributes:
        manifest: of the study.
        signing: seed of the coordinator's own Ed25519 key.
        run, round, attempt, roster, broadcast_digest: of the opening.
        context: of the round, 32 bytes.
        num_words: of every vector.
        phase: what it waits for.
        uploads: by index.
        survivors: U, once the first leg is closed.
        signatures: consistency signatures by index.
        releases: shares by index of their holder.
        failure: why it failed.
    """

    manifest: StoredManifest
    signing: Octets = field(repr=False)
    run: Octets
    round: int
    attempt: int
    roster: tuple[int, ...]
    broadcast_digest: Octets
    context: Octets
    num_words: int
    phase: Phase = Phase.MASKED_INPUT
    uploads: Mapping[int, StoredUpload] = field(default_factory=dict)
    survivors: tuple[int, ...] = ()
    signatures: Mapping[int, Octets] = field(default_factory=dict)
    releases: Mapping[int, Octets] = field(default_factory=dict, repr=False)
    failure: str = ""

    @property
    def uploaded(self) -> tuple[int, ...]:
        """Indices of the sites whose whole vector is here."""
        whole = num_chunks(self.num_words)
        return tuple(
            index for index in self.roster if index in self.uploads and self.uploads[index].num_chunks == whole
        )

    @property
    def waits_for(self) -> tuple[int, ...]:
        """Indices of the sites that have not answered in this phase."""
        if self.phase == Phase.MASKED_INPUT:
            return tuple(index for index in self.roster if index not in self.uploaded)
        answers = {Phase.CONSISTENCY: self.signatures, Phase.UNMASK: self.releases}.get(self.phase)
        return () if answers is None else tuple(index for index in self.survivors if index not in answers)

    @property
    def can_close(self) -> bool:
        """Whether enough sites have answered in this phase to go on without the others."""
        terms = self.manifest.terms
        if self.phase == Phase.MASKED_INPUT:
            return len(self.uploaded) >= terms.minimum_survivors
        answers = {Phase.CONSISTENCY: self.signatures, Phase.UNMASK: self.releases}.get(self.phase, {})
        return len(answers) >= terms.threshold

    def names(self, indices: tuple[int, ...]) -> str:
        """Names of sites, for messages."""
        return ", ".join(self.manifest.roster[index].name for index in indices)


# Events


@dataclass(frozen=True, slots=True)
class UploadArrived:
    """A masked_input from a site."""

    site: int
    message: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ChunkArrived:
    """A chunk from a site."""

    site: int
    message: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ConsistencyArrived:
    """A consistency signature from a site."""

    site: int
    message: bytes


@dataclass(frozen=True, slots=True)
class UnmaskArrived:
    """Shares from a site."""

    site: int
    message: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Closed:
    """The time for this phase is over, or the driver sees that nobody else will answer."""


Event: TypeAlias = UploadArrived | ChunkArrived | ConsistencyArrived | UnmaskArrived | Closed


# Effects


@dataclass(frozen=True, slots=True)
class StoreChunk:
    """Put a chunk, which is authentic, in its place in the site's vector."""

    site: int
    number: int
    content: bytes | memoryview = field(repr=False)


@dataclass(frozen=True, slots=True)
class AddVector:
    """The site's vector is whole and authentic: add it to the sum."""

    site: int


@dataclass(frozen=True, slots=True)
class Announce:
    """These sites are owed a message now: `message_for`."""

    sites: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RemoveMasks:
    """Apply these masks to the sum: it is then the total over the survivors."""

    survivors: tuple[int, ...]
    masks: tuple[tuple[bytes, int], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Fail:
    """The round cannot be completed; another attempt may be opened.

    Attributes:
        reason: in words.
        rule: that a peer broke; None where too few answered.
        peer: who broke it.
    """

    reason: str
    rule: str | None = None
    peer: str | None = None


Effect: TypeAlias = StoreChunk | AddVector | Announce | RemoveMasks | Fail
Effects: TypeAlias = tuple[Effect, ...]
Handler: TypeAlias = Callable[[RoundState, Any], tuple[RoundState, Effects]]


def open_round(
    manifest: StoredManifest, signing: bytes, opening: Opening, layout: bytes, num_words: int
) -> tuple[RoundState, Effects]:
    """Begin a round.

    Args:
        manifest: of the study.
        signing: seed of the coordinator's Ed25519 key, whose public part the manifest pins.
        opening: of the round.
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
        run=opening.run,
        round=opening.round,
        attempt=opening.attempt,
        roster=roster,
        broadcast_digest=opening.broadcast_digest,
        context=opening.context(manifest, layout),
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
        return _opening(state).to_bytes(state.manifest, signing)
    if site not in state.survivors:
        return None
    is_strict = state.manifest.terms.is_strict
    if state.phase == Phase.CONSISTENCY or (state.phase == Phase.UNMASK and not is_strict):
        place = state.roster.index(site)
        survivors = Survivors(
            context=state.context,
            evidence=evidence_of(state),
            blobs=tuple(state.uploads[index].masked.blobs[place] for index in state.survivors),
        )
        return survivors.to_bytes(state.manifest, signing)
    if state.phase == Phase.UNMASK:
        agreement = Agreement(context=state.context, signatures=tuple(sorted(state.signatures.items())))
        return agreement.to_bytes(state.manifest, signing)
    return None


def evidence_of(state: RoundState) -> tuple[Evidence, ...]:
    """What each survivor signed when it uploaded, in the roster's order."""
    return tuple(state.uploads[index].evidence for index in state.survivors)


def _opening(state: RoundState) -> Opening:
    return Opening(
        run=state.run,
        round=state.round,
        attempt=state.attempt,
        roster=state.roster,
        broadcast_digest=state.broadcast_digest,
    )


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
    evidence = masked.evidence
    evidence.verify(state.manifest, state.context)
    known = state.uploads.get(event.site)
    if known is not None:
        if known.masked != masked:
            raise MessageRefusedError("out_of_turn", name, "it has uploaded something else in this round")
        return state, ()  # it lost the connection and begins again: `uploads` says how far it had come
    new = replace(state, uploads={**state.uploads, event.site: StoredUpload(masked=masked, evidence=evidence)})
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
    return new, (Announce(survivors),)


def _at_odds(state: RoundState) -> tuple[int, int] | None:
    """Two survivors whose commitments to their common seed differ: their masks would not cancel."""
    uploads = {index: state.uploads[index].masked for index in state.survivors}
    places = {index: place for place, index in enumerate(state.roster)}
    for i in state.survivors:
        for j in state.survivors:
            if i < j and uploads[i].seed_commitments[places[j]] != uploads[j].seed_commitments[places[i]]:
                return i, j
    return None


def _consistency_arrived(state: RoundState, event: ConsistencyArrived) -> tuple[RoundState, Effects]:
    message = Consistency.from_bytes(event.message, state.manifest, _name(state, event.site))
    name = _check(state, event.site, message.sender, message.context)
    if event.site not in state.survivors:
        raise MessageRefusedError("out_of_turn", name, "its contribution is not in the sum")
    if message.survivors_digest != _survivors_digest(state):
        raise MessageRefusedError("survivors", name, "it signed other survivors than it was sent")
    new = replace(state, signatures={**state.signatures, event.site: message.signature})
    return (new, ()) if new.waits_for else _signatures_closed(new, Closed())


def _survivors_digest(state: RoundState) -> bytes:
    return survivors_digest(state.context, evidence_of(state))


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
    if message.survivors_digest != _survivors_digest(state):
        raise MessageRefusedError("survivors", name, "it releases shares for other survivors than it was sent")
    _check_shares(state, event.site, message.shares, name)
    new = replace(state, releases={**state.releases, event.site: message.shares})
    return (new, ()) if new.waits_for else _releases_closed(new, Closed())


def _dropped(state: RoundState) -> tuple[int, ...]:
    return tuple(index for index in state.roster if index not in state.survivors)


def _check_shares(state: RoundState, holder: int, shares: bytes, name: str) -> None:
    """Each share must be the one that its sender committed to."""
    roster, start = state.roster, 0
    dropped = [roster.index(index) for index in _dropped(state)]
    for sender in state.survivors:
        committed = state.uploads[sender].masked.share_commitments[roster.index(holder)]
        for place in (roster.index(sender), *dropped):
            share = shares[start : start + SHARE_BYTES]
            start += SHARE_BYTES
            expected = committed[place * COMMITMENT : (place + 1) * COMMITMENT]
            if share_commitment(state.context, sender, holder, place, share) != expected:
                raise MessageRefusedError("share", name, f"a share of site {_name(state, sender)!r} is not its own")


def _releases_closed(state: RoundState, event: Closed) -> tuple[RoundState, Effects]:
    if not state.can_close:
        return _failed(state, _too_few(state, "released their shares"))
    seeds, liar = _seeds(state)
    if liar is not None:
        name = _name(state, liar)
        return _failed(state, Fail(f"the shares of {name} do not give back what it committed to", "seed", name))
    done = replace(state, phase=Phase.DONE, releases={}, uploads=state.uploads)
    return done, (RemoveMasks(state.survivors, _masks(state, seeds)),)


def _seeds(state: RoundState) -> tuple[dict[int, list[bytes]], int | None]:
    """By survivor: the seed of its self mask, then those of its masks with the dropped. Or who shared others."""
    dropped = _dropped(state)
    holders = sorted(state.releases)[: state.manifest.terms.threshold]
    released = np.stack([np.frombuffer(state.releases[holder], "<u2") for holder in holders])
    shares = released.reshape(len(holders), len(state.survivors), 1 + len(dropped), LIMBS)
    seeds: dict[int, list[bytes]] = {}
    for number, sender in enumerate(state.survivors):
        peers = (sender, *dropped)
        commitments = state.uploads[sender].masked.seed_commitments
        try:
            seeds[sender] = combine(shares[:, number], holders)
        except ValueError:
            return {}, sender
        for peer, seed in zip(peers, seeds[sender], strict=True):
            expected = commitments[state.roster.index(peer)]
            if seed_commitment(state.context, sender, peer, seed) != expected:
                return {}, sender
    return seeds, None


def _masks(state: RoundState, seeds: Mapping[int, list[bytes]]) -> tuple[tuple[bytes, int], ...]:
    """What the survivors added and nobody took away again, with the sign that takes it away."""
    masks = []
    for sender, (own, *others) in seeds.items():
        masks.append((own, -1))
        masks += [(seed, -1 if peer > sender else 1) for peer, seed in zip(_dropped(state), others, strict=True)]
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
