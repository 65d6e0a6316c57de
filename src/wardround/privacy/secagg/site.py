"""A site's machine: `step(state, event, entropy) -> (state, effects)`. It does no IO and keeps no clock.

The driver stores the new state before it carries an effect out. So a site that is stopped at any moment and
started from its stored state never gives two different answers in one context.

    set-up    NEW --Enrol--> ADVERTISED --AdvertisementsArrived--> ENCAPSULATED --EncapsulationsArrived--> READY
    a round   Opened -> ASKED --Computed--> MASKED --SurvivorsArrived--> SIGNED --AgreementArrived--> RELEASED
              (without the consistency leg SurvivorsArrived leads to RELEASED)

An event that may not come now, or whose message breaks a rule, raises; the state is then what it was.

References:
    Bonawitz et al., Practical Secure Aggregation (CCS 2017), figure 4; `docs/protocol.md`, sections 4 and 5.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wardround.errors import LocalProtocolError, MessageRefusedError
from wardround.privacy.secagg.context import Opening
from wardround.privacy.secagg.entropy import Entropy
from wardround.privacy.secagg.keys import (
    KEY_BYTES,
    MLKEM_SEED_BYTES,
    NONCE_BYTES,
    ExchangeKey,
    SigningKey,
    derive,
    open_sealed,
    seal,
)
from wardround.privacy.secagg.manifest import advertise, encapsulate_all, pair_keys
from wardround.privacy.secagg.messages import (
    Agreement,
    Consistency,
    MaskedInput,
    Survivors,
    Unmask,
    chunk_digests,
    seed_commitment,
    share_commitment,
    verify_consistency,
)
from wardround.privacy.secagg.prg import SEED_BYTES, apply_masks
from wardround.privacy.secagg.shamir import SHARE_BYTES, split
from wardround.privacy.secagg.stored import Octets, StoredManifest
from wardround.privacy.secagg.wire import COORDINATOR, DIGEST_BYTES, FRAME_BYTES, u16

EXCHANGE_SEED_BYTES = KEY_BYTES + MLKEM_SEED_BYTES
MAX_RUNS = 100_000
"""Most runs of one study that a site answers: it remembers each, so that nothing is answered twice."""


class Stage(enum.StrEnum):
    """How far the set-up has come."""

    NEW = "new"
    ADVERTISED = "advertised"
    ENCAPSULATED = "encapsulated"
    READY = "ready"


class Phase(enum.StrEnum):
    """How far the last round of a run has come at this site."""

    ASKED = "asked"
    MASKED = "masked"
    SIGNED = "signed"
    RELEASED = "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSecrets:
    """What a site alone knows, for the whole study.

    Attributes:
        identity: seed of the Ed25519 key whose public part the manifest pins, 32 bytes.
        exchange: seed of its X25519 and ML-KEM keys, 96 bytes.
        own_key: seals what it sends to itself, 32 bytes.
    """

    identity: Octets = field(repr=False)
    exchange: Octets = field(repr=False)
    own_key: Octets = field(repr=False)

    @classmethod
    def drawn(cls, identity: bytes, entropy: Entropy) -> SiteSecrets:
        """Fresh secrets of a study, beside the identity, which outlives studies."""
        return cls(identity=identity, exchange=entropy.random(EXCHANGE_SEED_BYTES), own_key=entropy.random(KEY_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredOpening:
    """The opening of the round at hand."""

    run: Octets
    round: int
    attempt: int
    roster: tuple[int, ...]
    broadcast_digest: Octets

    @property
    def order(self) -> tuple[int, int]:
        """Rounds and attempts go forward only."""
        return self.round, self.attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundMemory:
    """What a site remembers of a run: its last round, and how it answered.

    Attributes:
        opening: of the round.
        phase: how far it has come.
        context: once it has answered, 32 bytes.
        survivors: whom it was told to be in the sum.
        survivors_digest: what it signed, or released shares for.
        answer: the unmask message that it sent; the same question gets the same bytes again.
        release: the shares that wait for the agreement.
    """

    opening: StoredOpening
    phase: Phase = Phase.ASKED
    context: Octets = b""
    survivors: tuple[int, ...] = ()
    survivors_digest: Octets = b""
    answer: Octets = field(default=b"", repr=False)
    release: Octets = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteState:
    """All that a site knows of a study's secure sums.

    Guarantees:
        survives_a_restart: a state that is stored and read again answers as the one that was stored.
    """

    manifest: StoredManifest
    index: int
    secrets: SiteSecrets
    stage: Stage = Stage.NEW
    advertisement: Octets = b""
    advertisements: tuple[Octets, ...] = ()
    encapsulated: Mapping[int, Octets] = field(default_factory=dict, repr=False)
    pair_keys: tuple[Octets, ...] = field(default=(), repr=False)
    rounds: Mapping[str, RoundMemory] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.index < len(self.manifest.roster):
            raise ValueError(f"index must be in [0, {len(self.manifest.roster) - 1}], got index={self.index}")
        if self._signing.public != self.manifest.roster[self.index].identity:
            raise ValueError(
                f"the manifest pins another key for site {self.name!r}; compare fingerprints with the other sites"
            )

    @property
    def name(self) -> str:
        """The site's name in the manifest."""
        return self.manifest.roster[self.index].name

    @property
    def _signing(self) -> SigningKey:
        return SigningKey.from_seed(self.secrets.identity)


# Events


@dataclass(frozen=True, slots=True)
class Enrol:
    """The site has the manifest from people and takes part."""


@dataclass(frozen=True, slots=True)
class AdvertisementsArrived:
    """The keys of all sites, in the roster's order."""

    messages: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class EncapsulationsArrived:
    """The encapsulated secrets of all sites, in the roster's order."""

    messages: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """A round is opened; `broadcast_digest` is the SHA-256 of the ask as it arrived here."""

    message: bytes
    broadcast_digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """The site has computed and encoded its contribution.

    Attributes:
        run: which it is for.
        words: the encoded vector; masked in place, as nobody needs it any more.
        num_wide: elements of it that take two words.
        layout: digest of its layout, as this site derived it from the ask.
    """

    run: bytes
    words: NDArray[np.uint64] = field(repr=False)
    num_wide: int
    layout: bytes


@dataclass(frozen=True, slots=True)
class SurvivorsArrived:
    """The coordinator says who is in the sum."""

    message: bytes


@dataclass(frozen=True, slots=True)
class AgreementArrived:
    """The coordinator shows that enough sites were told the same."""

    message: bytes


Event: TypeAlias = (
    Enrol | AdvertisementsArrived | EncapsulationsArrived | Opened | Computed | SurvivorsArrived | AgreementArrived
)


# Effects


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to the coordinator."""

    message: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Compute:
    """Check the ask of this round, and compute its answer if the site agrees."""

    opening: Opening


@dataclass(frozen=True, slots=True)
class Upload:
    """Send the masked_input, then the masked vector in chunks."""

    message: bytes = field(repr=False)
    context: bytes
    sender: int
    words: NDArray[np.uint64] = field(repr=False)


Effect: TypeAlias = Send | Compute | Upload
Effects: TypeAlias = tuple[Effect, ...]
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
        one_total_a_round: after shares were released for a round, no further attempt at it is answered.
        broadcast_is_bound: a site that was sent another ask than the others adds uniform noise to their sum.
    """
    handler = TRANSITIONS.get((state.stage, type(event)))
    if handler is None:
        if isinstance(event, Enrol | Computed):
            raise LocalProtocolError(f"{type(event).__name__} cannot come in stage {state.stage}")
        raise MessageRefusedError("out_of_turn", COORDINATOR, f"it cannot come in stage {state.stage}")
    return handler(state, event, entropy)


def _enrol(state: SiteState, event: Enrol, entropy: Entropy) -> tuple[SiteState, Effects]:
    message = advertise(state.manifest, state.index, state._signing, _exchange(state))
    return replace(state, stage=Stage.ADVERTISED, advertisement=message), (Send(message),)


def _exchange(state: SiteState) -> ExchangeKey:
    return ExchangeKey.from_seed(state.secrets.exchange)


def _keys_arrived(state: SiteState, event: AdvertisementsArrived, entropy: Entropy) -> tuple[SiteState, Effects]:
    message, secrets = encapsulate_all(
        state.manifest,
        state.index,
        state._signing,
        _exchange(state),
        event.messages,
        state.advertisement,
        entropy,
    )
    known = replace(state, stage=Stage.ENCAPSULATED, advertisements=tuple(event.messages), encapsulated=dict(secrets))
    return known, (Send(message),)


def _secrets_arrived(state: SiteState, event: EncapsulationsArrived, entropy: Entropy) -> tuple[SiteState, Effects]:
    keys = pair_keys(
        state.manifest,
        state.index,
        _exchange(state),
        state.advertisements,
        event.messages,
        state.encapsulated,
        state.secrets.own_key,
    )
    return replace(state, stage=Stage.READY, encapsulated={}, pair_keys=keys), ()


def _opened(state: SiteState, event: Opened, entropy: Entropy) -> tuple[SiteState, Effects]:
    opening = Opening.from_bytes(event.message, state.manifest, event.broadcast_digest)
    _check_roster(state, opening)
    memory = state.rounds.get(opening.run.hex())
    stored = StoredOpening(
        run=opening.run,
        round=opening.round,
        attempt=opening.attempt,
        roster=opening.roster,
        broadcast_digest=opening.broadcast_digest,
    )
    if memory is None:
        if len(state.rounds) >= MAX_RUNS:
            raise MessageRefusedError("replayed", COORDINATOR, f"the study has had {MAX_RUNS} runs; set up a new one")
    elif not (memory.phase == Phase.ASKED and memory.opening == stored):  # nothing was sent yet: it may be asked again
        _check_order(memory, stored)
    return _remembered(state, RoundMemory(opening=stored)), (Compute(opening),)


def _check_roster(state: SiteState, opening: Opening) -> None:
    num_sites, least = len(state.manifest.roster), state.manifest.terms.minimum_survivors
    if any(index >= num_sites for index in opening.roster) or state.index not in opening.roster:
        raise MessageRefusedError("roster", COORDINATOR, "the round's roster has unknown sites, or lacks this one")
    if len(opening.roster) < least:
        raise MessageRefusedError("roster", COORDINATOR, f"a round needs {least} sites, it has {len(opening.roster)}")


def _check_order(memory: RoundMemory, opening: StoredOpening) -> None:
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
    memory = state.rounds.get(event.run.hex())
    if memory is None or memory.phase != Phase.ASKED:
        raise LocalProtocolError("this run has no round that waits for an answer of this site")
    opening = Opening(
        run=memory.opening.run,
        round=memory.opening.round,
        attempt=memory.opening.attempt,
        roster=memory.opening.roster,
        broadcast_digest=memory.opening.broadcast_digest,
    )
    context = opening.context(state.manifest, event.layout)
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
            b"".join(
                share_commitment(context, me, holder, place, _share(holding, place)) for place in range(len(roster))
            )
            for holder, holding in zip(roster, by_holder, strict=True)
        ),
        blobs=tuple(
            seal(_blob_key(state, context, me, holder), entropy.random(NONCE_BYTES), holding)
            for holder, holding in zip(roster, by_holder, strict=True)
        ),
    ).signed(state.manifest, state._signing)


def _share(holding: bytes, place: int) -> bytes:
    return holding[place * SHARE_BYTES : (place + 1) * SHARE_BYTES]


def _blob_key(state: SiteState, context: bytes, sender: int, holder: int) -> bytes:
    peer = holder if sender == state.index else sender
    return derive(state.pair_keys[peer], "blob", context, u16(sender), u16(holder))


def _survivors_arrived(state: SiteState, event: SurvivorsArrived, entropy: Entropy) -> tuple[SiteState, Effects]:
    memory, survivors = _survivors_of(state, event.message)
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
    return Consistency.signed(state.manifest, memory.context, state.index, memory.survivors_digest, state._signing)


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
    for evidence in survivors.evidence:
        evidence.verify(state.manifest, memory.context)


def _release(state: SiteState, memory: RoundMemory, survivors: Survivors) -> bytes:
    """The shares to release: of each survivor's self mask, and of its masks with those who dropped out."""
    roster, left = memory.opening.roster, set(survivors.indices)
    dropped = [place for place, index in enumerate(roster) if index not in left]
    parts = []
    for sender, blob in zip(survivors.indices, survivors.blobs, strict=True):
        name = state.manifest.roster[sender].name
        holding = open_sealed(_blob_key(state, memory.context, sender, state.index), blob, peer=name)
        parts += [_share(holding, place) for place in (roster.index(sender), *dropped)]
    return b"".join(parts)


def _released(state: SiteState, memory: RoundMemory, release: bytes) -> tuple[SiteState, Effects]:
    message = Unmask(
        context=memory.context, sender=state.index, survivors_digest=memory.survivors_digest, shares=release
    ).signed(state.manifest, state._signing)
    done = replace(memory, phase=Phase.RELEASED, answer=message, release=b"")
    return _remembered(state, done), (Send(message),)


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
        verify_consistency(state.manifest, memory.context, index, memory.survivors_digest, signature)
    if len(agreement.signatures) < state.manifest.terms.threshold:
        raise MessageRefusedError(
            "agreement",
            COORDINATOR,
            f"{len(agreement.signatures)} sites signed, at least {state.manifest.terms.threshold} must",
        )
    return _released(state, memory, memory.release)


TRANSITIONS: Mapping[tuple[Stage, type[Event]], Handler] = {
    (Stage.NEW, Enrol): _enrol,
    (Stage.ADVERTISED, AdvertisementsArrived): _keys_arrived,
    (Stage.ENCAPSULATED, EncapsulationsArrived): _secrets_arrived,
    (Stage.READY, Opened): _opened,
    (Stage.READY, Computed): _computed,
    (Stage.READY, SurvivorsArrived): _survivors_arrived,
    (Stage.READY, AgreementArrived): _agreement_arrived,
}
