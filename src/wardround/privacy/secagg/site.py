"""A site's machine: `step(state, event, entropy) -> (state, effects)`. It does no IO and keeps no clock.

The driver stores the new state before it carries an effect out. So a site that is stopped at any moment and
started from its stored state never gives two different answers in one context. What was stored and not sent is sent
when the same question comes again; a masked vector alone is not kept, so its round needs another attempt.

    set-up    NEW --Enrol--> ADVERTISED --AdvertisementsArrived--> ENCAPSULATED --EncapsulationsArrived--> READY
    a round   Opened -> ASKED --Computed--> MASKED --SurvivorsArrived--> SIGNED --AgreementArrived--> RELEASED
              (without the consistency leg SurvivorsArrived leads to RELEASED)

An event that may not come now, or whose message breaks a rule, raises; the state is then what it was.

References:
    Bonawitz et al., Practical Secure Aggregation (CCS 2017), figure 4; `docs/protocol.md`, sections 4 and 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wardround.errors import LocalProtocolError, MessageRefusedError
from wardround.privacy.secagg import site_setup
from wardround.privacy.secagg.commitments import seed_commitment, share_commitments
from wardround.privacy.secagg.context import Opening
from wardround.privacy.secagg.entropy import Entropy
from wardround.privacy.secagg.keys import NONCE_BYTES, derive, open_sealed, seal
from wardround.privacy.secagg.messages import (
    Agreement,
    Consistency,
    Evidence,
    MaskedInput,
    Sealed,
    Survivors,
    Unmask,
    chunk_digests,
    verify_consistency,
)
from wardround.privacy.secagg.prg import SEED_BYTES, apply_masks
from wardround.privacy.secagg.shamir import FIELD, SHARE_BYTES, split
from wardround.privacy.secagg.site_state import (
    EXCHANGE_SEED_BYTES,
    AdvertisementsArrived,
    AgreementArrived,
    Compute,
    Computed,
    Effect,
    Effects,
    EncapsulationsArrived,
    Enrol,
    Event,
    Opened,
    Phase,
    RoundMemory,
    Send,
    SiteSecrets,
    SiteState,
    Stage,
    SurvivorsArrived,
    Upload,
)
from wardround.privacy.secagg.wire import COORDINATOR, DIGEST_BYTES, FRAME_BYTES, u16

__all__ = [
    "EXCHANGE_SEED_BYTES",
    "MAX_ANSWERS",
    "MAX_RUNS",
    "AdvertisementsArrived",
    "AgreementArrived",
    "Compute",
    "Computed",
    "Effect",
    "Effects",
    "EncapsulationsArrived",
    "Enrol",
    "Event",
    "Opened",
    "Phase",
    "RoundMemory",
    "Send",
    "SiteSecrets",
    "SiteState",
    "Stage",
    "SurvivorsArrived",
    "Upload",
    "step",
]

MAX_ANSWERS = 1_000_000
"""Most different asks of one study that a site answers: it remembers each with the sites that were in the sum."""
MAX_RUNS = 100_000
"""Most runs of one study that a site answers: it remembers each, so that nothing is answered twice."""

Handler: TypeAlias = Callable[[SiteState, Any, Entropy], tuple[SiteState, Effects]]


def step(state: SiteState, event: Event, entropy: Entropy) -> tuple[SiteState, Effects]:
    """Take one event in.

    Args:
        state: before it.
        event: a message of the coordinator, or the site's own.
        entropy: of the keys, masks and shares that it may need.

    Raises:
        MessageRefusedError: the message breaks a rule; names it and the peer.
        LocalProtocolError: the driver sends an event of its own that cannot come now.

    Guarantees:
        refused_message_changes_nothing: the state is a value; what raises leaves it as it was.
        one_answer_a_context: no two different masked inputs, consistency signatures or unmask messages in one context.
        never_both_kinds: of no site are both the self mask's and a pair mask's shares released in one context.
        same_ask_has_one_total: unless the terms allow repeats, no shares are released for an ask that was answered over
            other sites before: the difference of the totals would be what some sites alone contributed.
        one_total_a_round: after shares were released for a round, no further attempt at it is answered.
        broadcast_is_bound: a site that was sent another ask than the others adds uniform noise to their sum.
    """
    handler = TRANSITIONS.get((state.stage, type(event)))
    if handler is None:
        if isinstance(event, Enrol | Computed):
            raise LocalProtocolError(f"{type(event).__name__} cannot come in stage {state.stage}")
        raise MessageRefusedError("out_of_turn", COORDINATOR, f"it cannot come in stage {state.stage}")
    return handler(state, event, entropy)


def _opened(state: SiteState, event: Opened, entropy: Entropy) -> tuple[SiteState, Effects]:
    opening = Opening.from_bytes(event.message, state.manifest, event.broadcast_digest)
    _check_roster(state, opening)
    memory = state.rounds.get(opening.run.hex())
    if memory is None:
        if len(state.rounds) >= MAX_RUNS:
            raise MessageRefusedError("replayed", COORDINATOR, f"the study has had {MAX_RUNS} runs; set up a new one")
    elif not (memory.phase == Phase.ASKED and memory.opening == opening):  # nothing was sent yet: it may be asked again
        _check_order(memory, opening)
    return _remembered(state, RoundMemory(opening=opening)), (Compute(opening),)


def _check_roster(state: SiteState, opening: Opening) -> None:
    num_sites, least = len(state.manifest.roster), state.manifest.terms.minimum_survivors
    if any(index >= num_sites for index in opening.roster) or state.index not in opening.roster:
        raise MessageRefusedError("roster", COORDINATOR, "the round's roster has unknown sites, or lacks this one")
    if len(opening.roster) < least:
        raise MessageRefusedError("roster", COORDINATOR, f"a round needs {least} sites, it has {len(opening.roster)}")


def _check_order(memory: RoundMemory, opening: Opening) -> None:
    if opening.order <= memory.opening.order:
        raise MessageRefusedError(
            "replayed",
            COORDINATOR,
            f"round {opening.round}, attempt {opening.attempt} comes after round {memory.opening.round}, "
            f"attempt {memory.opening.attempt}",
        )
    if opening.round == memory.opening.round and memory.phase == Phase.RELEASED:
        raise MessageRefusedError("replayed", COORDINATOR, f"round {opening.round} has had its total")


def _remembered(state: SiteState, memory: RoundMemory) -> SiteState:
    return replace(state, rounds={**state.rounds, memory.opening.run.hex(): memory})


def _computed(state: SiteState, event: Computed, entropy: Entropy) -> tuple[SiteState, Effects]:
    opening = event.opening
    memory = state.rounds.get(opening.run.hex())
    if memory is None or memory.phase != Phase.ASKED or memory.opening != opening:
        raise LocalProtocolError("this site was not asked this, was asked something else since, or has answered")
    context = opening.context(state.manifest, state.keys, event.layout)
    seeds = _seeds(state, opening.roster, context, entropy)
    signs = [1 if peer >= state.index else -1 for peer in opening.roster]
    apply_masks(event.words, event.num_wide, list(zip(seeds, signs, strict=True)))
    message = _masked_input(state, opening.roster, context, seeds, event.words, entropy)
    upload = Upload(message, context, state.index, event.words)
    return _remembered(state, replace(memory, phase=Phase.MASKED, context=context)), (upload,)


def _seeds(state: SiteState, roster: tuple[int, ...], context: bytes, entropy: Entropy) -> list[bytes]:
    """`s_i`: the self mask's seed at the site's own place, at each peer's that of the pair."""
    return [
        entropy.random(SEED_BYTES) if peer == state.index else derive(state.pair_keys[peer], "mask", context)
        for peer in roster
    ]


def _masked_input(
    state: SiteState,
    roster: tuple[int, ...],
    context: bytes,
    seeds: list[bytes],
    words: NDArray[np.uint64],
    entropy: Entropy,
) -> bytes:
    me = state.index
    shares = split(seeds, state.manifest.terms.threshold, roster, entropy.random(SEED_BYTES)).astype("<u2")
    by_holder = [holding.tobytes() for holding in shares]
    return MaskedInput(
        context=context,
        sender=me,
        num_words=len(words),
        chunk_digests=chunk_digests(words),
        seed_commitments=tuple(seed_commitment(context, me, j, seed) for j, seed in zip(roster, seeds, strict=True)),
        share_commitments=tuple(
            b"".join(share_commitments(context, me, holder, holding, range(len(roster))))
            for holder, holding in zip(roster, by_holder, strict=True)
        ),
        blobs=tuple(
            seal(_blob_key(state, context, me, holder), entropy.random(NONCE_BYTES), holding)
            for holder, holding in zip(roster, by_holder, strict=True)
        ),
    ).signed(state.manifest, roster, state.signing)


def _share(holding: bytes, place: int) -> bytes:
    return holding[place * SHARE_BYTES : (place + 1) * SHARE_BYTES]


def _blob_key(state: SiteState, context: bytes, sender: int, holder: int) -> bytes:
    peer = holder if sender == state.index else sender
    return derive(state.pair_keys[peer], "blob", context, u16(sender), u16(holder))


def _survivors_arrived(state: SiteState, event: SurvivorsArrived, entropy: Entropy) -> tuple[SiteState, Effects]:
    memory, survivors = _survivors_of(state, event.message)
    if survivors.holder != state.index:
        raise MessageRefusedError("survivors", COORDINATOR, "what it says of the survivors is for another site")
    if memory.phase != Phase.MASKED:
        if survivors.digest != memory.survivors_digest:
            raise MessageRefusedError("second_answer", COORDINATOR, "it answered other survivors in this context")
        return state, (Send(_consistency(state, memory) if state.manifest.terms.is_strict else memory.answer),)
    _check_survivors(state, memory, survivors)
    release = _release(state, memory, survivors)
    known = replace(memory, survivors=survivors.indices, survivors_digest=survivors.digest)
    if not state.manifest.terms.is_strict:
        return _released(state, known, release)
    signed = replace(known, phase=Phase.SIGNED, release=release)
    return _remembered(state, signed), (Send(_consistency(state, signed)),)


def _consistency(state: SiteState, memory: RoundMemory) -> bytes:
    return Consistency.signed(state.manifest, memory.context, state.index, memory.survivors_digest, state.signing)


def _survivors_of(state: SiteState, message: bytes) -> tuple[RoundMemory, Survivors]:
    """The message with the round that it is for. The size of the round is in the message's context."""
    memory = _memory_of(state, message)
    return memory, Survivors.from_bytes(message, state.manifest, len(memory.opening.roster))


def _memory_of(state: SiteState, message: bytes) -> RoundMemory:
    context = message[FRAME_BYTES : FRAME_BYTES + DIGEST_BYTES]
    if len(context) < DIGEST_BYTES:
        raise MessageRefusedError("malformed", COORDINATOR, "it is cut short")
    for memory in state.rounds.values():
        if memory.context == context:
            return memory
    raise MessageRefusedError("context", COORDINATOR, "this site has no open answer in this context")


def _check_survivors(state: SiteState, memory: RoundMemory, survivors: Survivors) -> None:
    indices, least = survivors.indices, state.manifest.terms.minimum_survivors
    if not set(indices) <= set(memory.opening.roster) or state.index not in indices:
        raise MessageRefusedError("survivors", COORDINATOR, "they are not of the round's roster, or lack this site")
    if len(indices) < least:
        raise MessageRefusedError(
            "too_few_survivors", COORDINATOR, f"{len(indices)} are left, at least {least} must be"
        )
    _check_same_ask(state, memory, indices)
    for evidence in survivors.evidence:
        _check_evidence(state, memory.context, evidence)


def _check_same_ask(state: SiteState, memory: RoundMemory, survivors: tuple[int, ...]) -> None:
    ask = memory.opening.broadcast_digest.hex()
    before = state.answered.get(ask, survivors)
    if before != survivors and not state.manifest.terms.allows_repeats:
        names = ", ".join(state.manifest.name_of(index) for index in before)
        raise MessageRefusedError(
            "same_ask",
            COORDINATOR,
            "the same was asked before and summed over other sites; the difference of the two totals would be what the "
            f"sites contributed that are in one of them alone. Ask it of just those again ({names}), or let all sites "
            "agree to allows_repeats = true",
        )
    if ask not in state.answered and len(state.answered) >= MAX_ANSWERS:
        raise MessageRefusedError("replayed", COORDINATOR, f"the study has had {MAX_ANSWERS} asks; set up a new one")


def _check_evidence(state: SiteState, context: bytes, evidence: Evidence) -> None:
    try:
        evidence.verify(state.manifest, context)
    except MessageRefusedError as error:  # the coordinator had to check it, so it is the one that lies
        reason = f"it hands on what site {error.peer!r} has not signed in this context"
        raise MessageRefusedError("signature", COORDINATOR, reason) from None


def _release(state: SiteState, memory: RoundMemory, survivors: Survivors) -> bytes:
    """The shares to release: of each survivor's self mask, and of its masks with those who dropped out."""
    roster, left = memory.opening.roster, set(survivors.indices)
    dropped = [place for place, index in enumerate(roster) if index not in left]
    places = {index: place for place, index in enumerate(roster)}
    parts = []
    for evidence, sealed in zip(survivors.evidence, survivors.sealed, strict=True):
        holding = _holding(state, memory, evidence, sealed)
        parts += [_share(holding, place) for place in (places[evidence.sender], *dropped)]
    return b"".join(parts)


def _holding(state: SiteState, memory: RoundMemory, evidence: Evidence, sealed: Sealed) -> bytes:
    """What a survivor sealed for this site, all of it checked against what that survivor signed.

    So a share that does not fit the sender's commitments is found here, before anything is released, and a holder
    whose released share does not fit is the liar.
    """
    roster, me, sender = memory.opening.roster, state.index, evidence.sender
    name = state.manifest.roster[sender].name
    if sealed.shares_digest(memory.context, sender, me, roster.index(me)) != evidence.shares_digest:
        reason = f"it hands on sealed shares of site {name!r} that are not those that were signed"
        raise MessageRefusedError("blob", COORDINATOR, reason)
    holding = open_sealed(_blob_key(state, memory.context, sender, me), sealed.blob, peer=name)
    committed = b"".join(share_commitments(memory.context, sender, me, holding, range(len(roster))))
    if sha256(committed).digest() != sealed.committed or np.frombuffer(holding, "<u2").max() >= FIELD:
        raise MessageRefusedError("share", name, "the shares that it sealed are not those that it committed to")
    return holding


def _released(state: SiteState, memory: RoundMemory, release: bytes) -> tuple[SiteState, Effects]:
    _check_same_ask(state, memory, memory.survivors)  # another run may have had its total since
    message = Unmask(
        context=memory.context, sender=state.index, survivors_digest=memory.survivors_digest, shares=release
    ).signed(state.manifest, state.signing)
    done = replace(memory, phase=Phase.RELEASED, answer=message, release=b"")
    answered = {**state.answered, memory.opening.broadcast_digest.hex(): memory.survivors}
    return replace(_remembered(state, done), answered=answered), (Send(message),)


def _check_signer(state: SiteState, memory: RoundMemory, index: int, signature: bytes) -> None:
    try:
        verify_consistency(state.manifest, memory.context, index, memory.survivors_digest, signature)
    except MessageRefusedError as error:
        reason = f"site {error.peer!r} has not signed that these are the survivors, and it says so"
        raise MessageRefusedError("agreement", COORDINATOR, reason) from None


def _agreement_arrived(state: SiteState, event: AgreementArrived, entropy: Entropy) -> tuple[SiteState, Effects]:
    memory = _memory_of(state, event.message)
    agreement = Agreement.from_bytes(event.message, state.manifest)
    if memory.phase == Phase.RELEASED and state.manifest.terms.is_strict:
        return state, (Send(memory.answer),)
    if memory.phase != Phase.SIGNED:
        raise MessageRefusedError("out_of_turn", COORDINATOR, "this site has not signed who is in the sum")
    for index, signature in agreement.signatures:
        if index not in memory.survivors:
            raise MessageRefusedError("agreement", COORDINATOR, f"site {index} signed and is not in the sum")
        _check_signer(state, memory, index, signature)
    if len(agreement.signatures) < state.manifest.terms.threshold:
        raise MessageRefusedError(
            "agreement",
            COORDINATOR,
            f"{len(agreement.signatures)} sites signed, at least {state.manifest.terms.threshold} must",
        )
    return _released(state, memory, memory.release)


TRANSITIONS: Mapping[tuple[Stage, type[Event]], Handler] = {
    (Stage.NEW, Enrol): site_setup.enrol,
    (Stage.ADVERTISED, Enrol): site_setup.enrolled_again,
    (Stage.ADVERTISED, AdvertisementsArrived): site_setup.keys_arrived,
    (Stage.ENCAPSULATED, AdvertisementsArrived): site_setup.keys_arrived_again,
    (Stage.ENCAPSULATED, EncapsulationsArrived): site_setup.secrets_arrived,
    (Stage.READY, Opened): _opened,
    (Stage.READY, Computed): _computed,
    (Stage.READY, SurvivorsArrived): _survivors_arrived,
    (Stage.READY, AgreementArrived): _agreement_arrived,
}
