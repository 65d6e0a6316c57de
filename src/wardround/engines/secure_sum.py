"""Secure sums in one process: the machines that hospitals run, joined by the bytes that they would send.

Every site's machine and the coordinator's are the real ones, with keys and masks from the operating system. What is
simulated is the network between them, and who is lost on it.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wardround.errors import LocalProtocolError, MessageRefusedError, QuorumError
from wardround.privacy.secagg import coordinator, coordinator_setup, site
from wardround.privacy.secagg.context import RUN_BYTES, Opening
from wardround.privacy.secagg.coordinator_setup import SetUpArrived, SetUpPhase, SetUpState
from wardround.privacy.secagg.entropy import Entropy
from wardround.privacy.secagg.keys import KEY_BYTES, SigningKey
from wardround.privacy.secagg.manifest import Manifest
from wardround.privacy.secagg.messages import CHUNK_BYTES, Chunk
from wardround.privacy.secagg.prg import apply_masks
from wardround.privacy.secagg.recording import opened_entry, round_entries, summed_entry
from wardround.privacy.secagg.roster import RosterSite
from wardround.privacy.secagg.site import SiteSecrets, SiteState
from wardround.privacy.secagg.terms import Terms
from wardround.privacy.secagg.transcript import Entry, Refused
from wardround.privacy.secagg.vector import (
    VectorShape,
    add_words,
    chunks,
    contribution_of,
    layout_digest,
    shape_of,
    to_words,
)
from wardround.sums.contribution import Flat, Layout
from wardround.sums.message import pack_total
from wardround.sums.workflow import Total


class Loss(enum.Enum):
    """When a simulated site that had an answer is lost."""

    UPLOADING = "while it uploads"
    BEFORE_CONSISTENCY = "after its upload"
    BEFORE_UNMASK = "after it signed who is in the sum"


@dataclass(slots=True)
class Traffic:
    """What travelled in a round (unit: bytes), of all sites together."""

    up: int = 0
    down: int = 0


class Recorder(Protocol):
    """What keeps a transcript: `TranscriptFile`."""

    def record(self, entries: Sequence[Entry]) -> None:
        """Add entries; they are kept when this returns."""


class SecureFederation:
    """The machines of a study's sites and of its coordinator, set up.

    Args:
        sites: their names, in the order of the roster.
        terms: of the secure sums.
        entropy: where all keys and masks come from.
        study_digest: of what the sites agreed to, 32 bytes.

    Attributes:
        manifest: what all sites signed.
        keys: the digest of all advertised keys, which every context holds.
        setup_messages: the set-up's messages, for a transcript.
        recorder: keeps the transcript of all sums; None keeps none.
    """

    def __init__(self, sites: Collection[str], terms: Terms, entropy: Entropy, study_digest: bytes = bytes(32)) -> None:
        self._entropy = entropy
        self.recorder: Recorder | None = None
        identities = {name: entropy.random(KEY_BYTES) for name in sites}
        self.signing_seed = entropy.random(KEY_BYTES)
        roster = tuple(RosterSite(name, SigningKey.from_seed(seed).public) for name, seed in identities.items())
        self.manifest = Manifest(
            study_digest=study_digest,
            coordinator=SigningKey.from_seed(self.signing_seed).public,
            terms=terms,
            roster=roster,
        )
        self.states = [
            SiteState(manifest=self.manifest, index=index, secrets=SiteSecrets.drawn(seed, entropy))
            for index, seed in enumerate(identities.values())
        ]
        self.setup_messages = self._set_up()

    def _set_up(self) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """Both legs of the set-up. Returns their messages, each in the roster's order."""
        state = SetUpState(manifest=self.manifest)
        events: list[Callable[[tuple[bytes, ...]], site.Event]] = [
            lambda _: site.Enrol(),
            site.AdvertisementsArrived,
            site.EncapsulationsArrived,
        ]
        bundles: list[tuple[bytes, ...]] = [()]
        for event in events:
            for index in range(len(self.states)):
                for effect in self.step(index, event(bundles[-1])):
                    assert isinstance(effect, site.Send)
                    state, ready = coordinator_setup.step(state, SetUpArrived(index, effect.message))
                    bundles += [bundle.messages for bundle in ready]
        assert state.phase == SetUpPhase.READY
        self.keys = state.keys
        return bundles[1], bundles[2]

    def step(self, index: int, event: site.Event) -> site.Effects:
        """Let a site take an event in."""
        self.states[index], effects = site.step(self.states[index], event, self._entropy)
        return effects

    def new_run(self) -> bytes:
        """What tells a run from all others."""
        return self._entropy.random(RUN_BYTES)


@dataclass(slots=True, kw_only=True)
class SecureSum:
    """A round's sum, of which the coordinator's side sees masked vectors and, at the end, the total.

    Args:
        federation: the machines.
        run: of `federation.new_run`.
        number: of the round.
        roster: names of the sites that are asked.
        broadcast: the ask, as it is sent.
        layout: of every contribution.
        num_sites: how many contributions the sum is planned for.
        losses: when sites are lost that answer this ask.
        function_id: of the site function, for the transcript.

    Guarantees:
        masked_equals_unmasked: the total is, bit for bit, what `PlainSum` gives for the same contributions.
    """

    federation: SecureFederation
    run: bytes
    number: int
    roster: tuple[str, ...]
    broadcast: bytes
    layout: Layout
    num_sites: int
    losses: Mapping[str, Loss] = field(default_factory=dict)
    function_id: str = ""
    traffic: Traffic = field(default_factory=Traffic)
    left_out: dict[str, str] = field(default_factory=dict)
    _opening: Opening = field(init=False)
    _state: coordinator.RoundState = field(init=False)
    _shape: VectorShape = field(init=False)
    _layout_digest: bytes = field(init=False)
    _sum: NDArray[np.uint64] = field(init=False, repr=False)
    _arriving: NDArray[np.uint64] = field(init=False, repr=False)
    _unrecorded: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        manifest, broadcast_digest = self.federation.manifest, hashlib.sha256(self.broadcast).digest()
        self._shape = shape_of(self.layout, self.num_sites)
        self._layout_digest = layout_digest(self.layout, self.num_sites)
        self._sum = np.zeros(self._shape.num_words, np.uint64)
        self._arriving = np.empty_like(self._sum)
        opening = Opening(
            run=self.run,
            round=self.number,
            attempt=1,
            roster=tuple(sorted(manifest.index_of(name) for name in self.roster)),
            broadcast_digest=broadcast_digest,
        )
        self._opening = opening
        self._state, _ = coordinator.open_round(
            manifest,
            self.federation.signing_seed,
            opening,
            keys=self.federation.keys,
            layout=self._layout_digest,
            num_words=self._shape.num_words,
        )
        self._record(opened_entry(self._state, self.function_id, self._layout_digest))
        for index in opening.roster:
            message = self._owed(index)
            self.traffic.down += len(self.broadcast)
            self._step(index, site.Opened(message, hashlib.sha256(self.broadcast).digest()))

    def _step(self, index: int, event: site.Event) -> site.Effects:
        """Let a site take an event in; what it refuses is recorded."""
        try:
            return self.federation.step(index, event)
        except MessageRefusedError as error:
            self._record(Refused.of(error))
            raise

    def _record(self, *entries: Entry) -> None:
        """Put entries into the transcript, with those that wait."""
        if self.federation.recorder:
            self.federation.recorder.record([*self._unrecorded, *entries])
        self._unrecorded.clear()

    @property
    def bytes_up(self) -> int:
        """What the sites sent, on average (unit: bytes)."""
        return self.traffic.up // max(len(self._state.roster), 1)

    def _owed(self, index: int) -> bytes:
        message = coordinator.message_for(self._state, index)
        assert message is not None
        self.traffic.down += len(message)
        return message

    def add(self, name: str, flat: Flat, rng: np.random.Generator | None) -> None:
        """As `Summing.add`: the site encodes, masks and uploads; the coordinator checks and adds."""
        index = self.federation.manifest.index_of(name)
        words = to_words(flat, self.layout, self.num_sites, rng)
        (upload,) = self._step(
            index,
            site.Computed(
                opening=self._opening, words=words, num_wide=self._shape.num_wide, layout=self._layout_digest
            ),
        )
        assert isinstance(upload, site.Upload)
        sent = list(enumerate(chunks(upload.words)))
        if self.losses.get(name) == Loss.UPLOADING:
            self.left_out[name] = f"was lost {Loss.UPLOADING.value}"
            if not sent:
                return  # of an empty vector the first message is all
            sent = sent[: len(sent) // 2]
        self._arrived(coordinator.UploadArrived(index, upload.message))
        for number, content in sent:
            chunk = Chunk(context=upload.context, sender=index, number=number, content=content)
            self._arrived(coordinator.ChunkArrived(index, chunk.to_bytes()))

    def _arrived(self, event: coordinator.Event) -> None:
        if not isinstance(event, coordinator.Closed):
            self.traffic.up += len(event.message)
        before = self._state
        try:
            self._state, effects = coordinator.step(before, event)
        except MessageRefusedError as error:
            self._record(Refused.of(error))
            raise
        if self.federation.recorder:
            self._unrecorded += round_entries(before, event, self._state, effects)
        # What a leg led to is on disk before anybody is told of it.
        if self._state.phase not in (before.phase, coordinator.Phase.DONE):
            self._record()
        for effect in effects:
            self._carry_out(effect)

    def _carry_out(self, effect: coordinator.Effect) -> None:
        match effect:
            case coordinator.StoreChunk(number=number, content=content):
                start = number * CHUNK_BYTES // 8
                received = np.frombuffer(content, np.uint64)
                self._arriving[start : start + received.size] = received
            case coordinator.AddVector():
                add_words(self._sum, self._arriving, self._shape.num_wide)
            case coordinator.RemoveMasks(masks=masks):
                apply_masks(self._sum, self._shape.num_wide, masks)
            case coordinator.Fail(rule=str(rule), peer=str(peer), reason=reason):
                raise MessageRefusedError(rule, peer, reason)
            case coordinator.Fail(reason=reason):
                raise QuorumError(f"the secure sum cannot be completed: {reason}; run again when those are back")
            case coordinator.Announce():
                pass

    def close(self) -> Total[Any]:
        """As `Summing.close`: the legs after the upload, with the sites that are still there."""
        self._arrived(coordinator.Closed())
        legs = {coordinator.Phase.CONSISTENCY: Loss.BEFORE_CONSISTENCY, coordinator.Phase.UNMASK: None}
        lost: set[int] = set()
        while (phase := self._state.phase) in legs:
            lost |= self._lost_before(phase)
            for index in self._state.survivors:
                if self._state.phase == phase and index not in lost:
                    self._answer(index)
            if self._state.phase == phase:
                self._arrived(coordinator.Closed())
        if self._state.phase != coordinator.Phase.DONE:
            raise LocalProtocolError(f"the round ended as {self._state.phase}")
        manifest = self.federation.manifest
        total = contribution_of(self._sum, self.layout, self.num_sites, len(self._state.survivors))
        summed = Total(total, tuple(manifest.name_of(index) for index in self._state.survivors))
        if self.federation.recorder:
            self._record(summed_entry(self._state, pack_total(summed)))
        return summed

    def _lost_before(self, phase: coordinator.Phase) -> set[int]:
        index_of = self.federation.manifest.index_of
        gone = {Loss.BEFORE_CONSISTENCY}
        if phase == coordinator.Phase.UNMASK:
            gone |= {Loss.BEFORE_UNMASK}
        return {index_of(name) for name, loss in self.losses.items() if loss in gone}

    def _answer(self, index: int) -> None:
        """One site is sent what it is owed, and answers."""
        message = self._owed(index)
        is_agreement = self._state.phase == coordinator.Phase.UNMASK and self._state.manifest.terms.is_strict
        event = site.AgreementArrived(message) if is_agreement else site.SurvivorsArrived(message)
        for effect in self._step(index, event):
            assert isinstance(effect, site.Send)
            if self._state.phase == coordinator.Phase.CONSISTENCY:
                self._arrived(coordinator.ConsistencyArrived(index, effect.message))
            else:
                self._arrived(coordinator.UnmaskArrived(index, effect.message))
