"""What happened in secure sums, as the entries of a transcript: the coordinator's side, step by step."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from wardround.privacy.secagg import coordinator
from wardround.privacy.secagg.coordinator import Phase, RoundState
from wardround.privacy.secagg.keys import SIGNATURE_BYTES, SigningKey, derive
from wardround.privacy.secagg.manifest import Manifest
from wardround.privacy.secagg.messages import survivors_digest
from wardround.privacy.secagg.transcript import (
    TRANSCRIPT_VERSION,
    Advertised,
    Agreed,
    Closed,
    Encapsulated,
    Entry,
    Failed,
    Named,
    Opened,
    Pinned,
    Released,
    Summed,
    Uploaded,
    in_short,
)
from wardround.privacy.secagg.wire import DIGEST_BYTES, Kind, Reader, digest


def setup_entries(
    manifest: Manifest, advertisements: Sequence[bytes], encapsulations: Sequence[bytes]
) -> tuple[Entry, ...]:
    """The lines that a transcript begins with; messages in the roster's order."""
    return (
        Pinned(version=TRANSCRIPT_VERSION, message=manifest.to_bytes()),
        *(Advertised(message=message) for message in advertisements),
        *(Encapsulated(message=message) for message in encapsulations),
    )


def opened_entry(state: RoundState, function_id: str, layout: bytes) -> Opened:
    """The entry of a round that `coordinator.open_round` began."""
    return Opened(
        message=state.opening.to_bytes(state.manifest, SigningKey.from_seed(state.signing)),
        function=in_short(function_id),
        broadcast=state.opening.broadcast_digest,
        layout=layout,
        context=state.context,
    )


def round_entries(
    before: RoundState, event: coordinator.Event, after: RoundState, effects: coordinator.Effects
) -> tuple[Entry, ...]:
    """What a step of the coordinator's machine adds to the transcript; `summed_entry` is the driver's."""
    entries: list[Entry] = []
    if isinstance(event, coordinator.ConsistencyArrived) and event.site not in before.signatures:
        signature = event.message[-SIGNATURE_BYTES:]
        entries.append(Agreed(context=before.context, site=event.site, signature=signature))
    if isinstance(event, coordinator.UnmaskArrived) and event.site not in before.releases:
        entries.append(_released(event, before.context))
    if after.phase != before.phase == Phase.MASKED_INPUT and after.phase != Phase.FAILED:
        entries += _named(after)
    entries += [_failed(effect, before.context) for effect in effects if isinstance(effect, coordinator.Fail)]
    return tuple(entries)


def _released(event: coordinator.UnmaskArrived, context: bytes) -> Released:
    reader = Reader(event.message, Kind.UNMASK, "")
    reader.raw(DIGEST_BYTES + 2 + DIGEST_BYTES)  # context, sender, S: those of the round, as the machine has checked
    rest = reader.rest()
    shares, signature = rest[:-SIGNATURE_BYTES], bytes(rest[-SIGNATURE_BYTES:])
    return Released(context=context, site=event.site, shares=hashlib.sha256(shares).digest(), signature=signature)


def _named(state: RoundState) -> list[Entry]:
    evidence = coordinator.evidence_of(state)
    uploads: list[Entry] = [
        Uploaded(
            context=state.context,
            site=one.sender,
            vector=one.vector_digest,
            shares=one.shares_digest,
            signature=one.signature,
        )
        for one in evidence
    ]
    return [
        *uploads,
        Named(context=state.context, sites=state.survivors, digest=survivors_digest(state.context, evidence)),
    ]


def _failed(failure: coordinator.Fail, context: bytes) -> Failed:
    rule, peer = in_short(failure.rule or ""), in_short(failure.peer or "")
    return Failed(context=context, rule=rule, peer=peer, reason=in_short(failure.reason))


def summed_entry(state: RoundState, total: bytes) -> Summed:
    """The entry of a total, which is given as its bytes in the run's record (`pack_total`)."""
    return Summed(context=state.context, commitment=total_commitment(state.signing, state.context, total))


def total_commitment(signing_seed: bytes, context: bytes, total: bytes) -> bytes:
    """What binds the coordinator to a total, 32 bytes.

    A digest of the total alone would give small totals away to whoever tries them all, those that disclosure rules
    hide first. So it is blinded by 32 bytes that the coordinator derives from its key: whoever is shown them
    and the total can recompute it.

    Args:
        signing_seed: of the coordinator's Ed25519 key, 32 bytes.
        context: of the round.
        total: its bytes in the run's record.

    Guarantees:
        small_total_cannot_be_guessed: without the coordinator's key no total can be tried against it.
    """
    return digest("total", context, derive(signing_seed, "total_blind", context), total)


def closed_entry(manifest: Manifest, signing: SigningKey, before: bytes) -> Closed:
    """The entry that ends a transcript whose last line has the chain `before`."""
    return Closed(signature=signing.sign("transcript", manifest.digest, before))
