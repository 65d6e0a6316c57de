"""Machines of sites and coordinator, joined in memory: each message is bytes that a test may alter, drop or repeat."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.privacy.secagg.setup_of import SetUp, setup_of
from wardround.errors import MessageRefusedError
from wardround.privacy.secagg import coordinator, site
from wardround.privacy.secagg.context import RUN_BYTES, Opening
from wardround.privacy.secagg.keys import SigningKey
from wardround.privacy.secagg.manifest import keys_digest
from wardround.privacy.secagg.messages import CHUNK_BYTES, Chunk
from wardround.privacy.secagg.prg import apply_masks
from wardround.privacy.secagg.terms import Terms
from wardround.privacy.secagg.vector import (
    VectorShape,
    add_words,
    chunks,
    contribution_of,
    layout_digest,
    shape_of,
    to_words,
)
from wardround.sums import Array, Contribution, bounded, exact, people
from wardround.sums.accumulator import Accumulator
from wardround.sums.contribution import Flat, Layout, layout_of
from wardround.testing.seeded_entropy import SeededEntropy

RUN = bytes(range(RUN_BYTES))
ASK = b"how many, and how far from here?"


def ask_of(number: int) -> bytes:
    """What the coordinator asks in a round."""
    return ASK if number == 1 else ASK + f" Round {number}.".encode()


class Mixed(Contribution):
    """One of each kind of field."""

    sums: Array = exact("num_sums")
    step: Array = bounded("size", clip_norm=1.0, bits=12)
    num_records: int = people()


LAYOUT = layout_of(Mixed, {"num_sums": 2, "size": 7})
WIDE = layout_of(Mixed, {"num_sums": 2**17, "size": 7})
"""Its vectors travel in three chunks."""


def flat_of(layout: Layout, index: int) -> Flat:
    """What a site would add: other numbers at every site."""
    rng = np.random.default_rng(index)
    sums = rng.normal(size=layout.num_exact) * 10.0 ** rng.integers(-6, 7, layout.num_exact)
    steps = tuple(rng.normal(size=one.size) for one in layout.bounded)
    return Flat(sums, rng.integers(0, 10**6, layout.num_people), steps)


@lru_cache(maxsize=64)
def encoded(layout: Layout, index: int, num_sites: int) -> NDArray[np.uint64]:
    """A site's vector without masks."""
    words = to_words(flat_of(layout, index), layout, num_sites, np.random.default_rng(1000 + index))
    words.flags.writeable = False
    return words


@lru_cache(maxsize=64)
def _shape(layout: Layout, num_sites: int) -> VectorShape:
    return shape_of(layout, num_sites)


@lru_cache(maxsize=64)
def _unmasked(layout: Layout, indices: tuple[int, ...], num_sites: int) -> Mapping[str, Any]:
    """What the accumulator, which knows no masks, gives for the same contributions."""
    accumulator = Accumulator(layout, num_sites)
    for index in indices:
        accumulator.add_flat(flat_of(layout, index), np.random.default_rng(1000 + index))
    total = accumulator.total()
    return {name: getattr(total, name) for name in total.declarations}


def site_state(setup: SetUp, index: int) -> site.SiteState:
    """A site whose set-up is complete."""
    secrets = site.SiteSecrets(identity=setup.signing_seeds[index], exchange=b"", own_key=setup.own_keys[index])
    return site.SiteState(
        manifest=setup.manifest,
        index=index,
        secrets=secrets,
        stage=site.Stage.READY,
        advertisement=setup.advertisements[index],
        keys=keys_digest(setup.advertisements),
        pair_keys=setup.pair_keys[index],
    )


def coordinator_seed(seed: int) -> bytes:
    """The seed of the coordinator's key in `setup_of(..., seed=seed)`."""
    return SeededEntropy(seed).random(32)


@dataclass(slots=True)
class TwoMachines:
    """n sites and a coordinator.

    Args:
        num_sites: of the study.
        terms: by default the protocol's.
        layout: of every contribution.
        seed: of all keys.
        run: of all rounds.

    Attributes:
        sites: their states, by index.
        round: the coordinator's state; None before a round is open.
        total: the sum so far, and at the end the total.
        uploads: by index what a site sent: its masked_input, and its chunks.
    """

    num_sites: int
    terms: Terms | None = None
    layout: Layout = LAYOUT
    seed: int = 0
    run: bytes = RUN
    entropy: Any = None
    sites: list[site.SiteState] = field(init=False)
    round: coordinator.RoundState = field(init=False)
    opening: Opening = field(init=False)
    total: NDArray[np.uint64] = field(init=False)
    arriving: dict[int, NDArray[np.uint64]] = field(init=False)
    uploads: dict[int, tuple[bytes, list[bytes]]] = field(init=False)
    failure: coordinator.Fail | None = field(init=False, default=None)
    ask: bytes = field(init=False, default=b"")

    def __post_init__(self) -> None:
        setup = self.setup
        assert SigningKey.from_seed(coordinator_seed(self.seed)).public == setup.manifest.coordinator
        self.entropy = self.entropy or SeededEntropy(f"round {self.seed}".encode())
        self.sites = [site_state(setup, index) for index in range(self.num_sites)]

    @property
    def setup(self) -> SetUp:
        """The set-up of all sites."""
        return setup_of(self.num_sites, seed=self.seed, terms=self.terms)

    @property
    def manifest(self) -> Any:
        """The study's."""
        return self.setup.manifest

    @property
    def is_strict(self) -> bool:
        """Whether there is a consistency leg."""
        return bool(self.manifest.terms.is_strict)

    @property
    def shape(self) -> VectorShape:
        """Of every vector."""
        return _shape(self.layout, self.num_sites)

    @property
    def signing(self) -> SigningKey:
        """The coordinator's key: with it a test lies in its name."""
        return SigningKey.from_seed(coordinator_seed(self.seed))

    def fork(self) -> TwoMachines:
        """The same parties at the same moment, to try something."""
        other = object.__new__(TwoMachines)
        for name in self.__slots__:
            if hasattr(self, name):
                setattr(other, name, getattr(self, name))
        other.sites, other.uploads = list(self.sites), dict(self.uploads)
        if hasattr(self, "total"):
            other.total = self.total.copy()
            other.arriving = {index: words.copy() for index, words in self.arriving.items()}
        return other

    # Single steps

    def to_site(self, index: int, event: site.Event) -> site.Effects:
        """Let a site take an event in."""
        self.sites[index], effects = site.step(self.sites[index], event, self.entropy)
        return effects

    def to_coordinator(self, event: coordinator.Event) -> coordinator.Effects:
        """Let the coordinator take an event in, and carry out what it says."""
        self.round, effects = coordinator.step(self.round, event)
        for effect in effects:
            match effect:
                case coordinator.StoreChunk(site=index, number=number, content=content):
                    start, received = number * CHUNK_BYTES // 8, np.frombuffer(content, np.uint64)
                    self.arriving[index][start : start + received.size] = received
                case coordinator.AddVector(site=index):
                    add_words(self.total, self.arriving[index], self.shape.num_wide)
                case coordinator.RemoveMasks(masks=masks):
                    apply_masks(self.total, self.shape.num_wide, masks)
                case coordinator.Fail():
                    self.failure = effect
        return effects

    def open(
        self, number: int = 1, attempt: int = 1, roster: Collection[int] | None = None, ask: bytes | None = None
    ) -> TwoMachines:
        """The coordinator opens a round; no site knows yet. Every round asks something of its own."""
        self.ask = ask_of(number) if ask is None else ask
        indices = tuple(range(self.num_sites)) if roster is None else tuple(sorted(roster))
        self.opening = Opening(
            run=self.run, round=number, attempt=attempt, roster=indices, broadcast_digest=sha256(self.ask)
        )
        self.round, _ = coordinator.open_round(
            self.manifest,
            coordinator_seed(self.seed),
            self.opening,
            keys=keys_digest(self.setup.advertisements),
            layout=layout_digest(self.layout, self.num_sites),
            num_words=self.shape.num_words,
        )
        self.total = np.zeros(self.shape.num_words, np.uint64)
        self.arriving = {index: np.zeros(self.shape.num_words, np.uint64) for index in indices}
        self.uploads, self.failure = {}, None
        return self

    def owed(self, index: int) -> bytes:
        """What the coordinator owes a site now."""
        message = coordinator.message_for(self.round, index)
        assert message is not None
        return message

    def opened(self, index: int, ask: bytes | None = None) -> site.Opened:
        """The opening as it arrives."""
        return site.Opened(self.owed(index), sha256(self.ask if ask is None else ask))

    def computed(self, index: int, opening: Opening | None = None) -> site.Computed:
        """The site's own contribution to the opening that it has."""
        words = encoded(self.layout, index, self.num_sites).copy()
        layout = layout_digest(self.layout, self.num_sites)
        return site.Computed(opening=opening or self.opening, words=words, num_wide=self.shape.num_wide, layout=layout)

    def upload(self, index: int) -> tuple[bytes, list[bytes]]:
        """The site answers; what it sends is noted, and not yet taken in by the coordinator."""
        (compute,) = self.to_site(index, self.opened(index))
        assert isinstance(compute, site.Compute)
        (upload,) = self.to_site(index, self.computed(index, compute.opening))
        assert isinstance(upload, site.Upload)
        self.uploads[index] = upload.message, chunk_messages(upload)
        return self.uploads[index]

    def receive(self, index: int, num_chunks: int | None = None) -> None:
        """The coordinator takes in what a site uploaded, or the first of its chunks."""
        message, parts = self.uploads[index]
        self.to_coordinator(coordinator.UploadArrived(index, message))
        for part in parts[:num_chunks]:
            self.to_coordinator(coordinator.ChunkArrived(index, part))

    def close(self) -> coordinator.Effects:
        """The time for the phase is over."""
        return self.to_coordinator(coordinator.Closed())

    def answer(self, index: int, message: bytes | None = None) -> bytes:
        """The site answers what it is owed after its upload; the coordinator has not yet taken it in."""
        (send,) = self.to_site(index, self.question(message or self.owed(index)))
        assert isinstance(send, site.Send)
        return send.message

    def question(self, message: bytes) -> site.Event:
        """The coordinator's message of this phase as the event that it is."""
        is_agreement = self.round.phase == coordinator.Phase.UNMASK and self.is_strict
        return site.AgreementArrived(message) if is_agreement else site.SurvivorsArrived(message)

    def answered(self, index: int, message: bytes) -> coordinator.Event:
        """A site's answer as the event that it is."""
        if self.round.phase == coordinator.Phase.CONSISTENCY:
            return coordinator.ConsistencyArrived(index, message)
        return coordinator.UnmaskArrived(index, message)

    # Whole legs

    def upload_all(self, indices: Collection[int] | None = None) -> TwoMachines:
        """All sites of the round, or these, upload."""
        for index in self.opening.roster if indices is None else indices:
            self.upload(index)
            self.receive(index)
        return self

    def answer_all(self, indices: Collection[int] | None = None) -> TwoMachines:
        """All survivors, or these, answer; then the phase is closed unless it has ended."""
        phase = self.round.phase
        for index in self.round.survivors if indices is None else indices:
            if self.round.phase == phase:
                self.to_coordinator(self.answered(index, self.answer(index)))
        if self.round.phase == phase:
            self.close()
        return self

    def finish(self) -> TwoMachines:
        """What is left of the round, honestly; the total must be exact."""
        if self.round.phase == coordinator.Phase.MASKED_INPUT:
            for index in self.round.waits_for:
                if index not in self.uploads:
                    self.upload(index)
                _, parts = self.uploads[index]
                if index not in self.round.uploads:
                    self.to_coordinator(coordinator.UploadArrived(index, self.uploads[index][0]))
                for part in parts[self.round.uploads[index].num_chunks :]:
                    self.to_coordinator(coordinator.ChunkArrived(index, part))
            self.close()
        while self.round.phase in (coordinator.Phase.CONSISTENCY, coordinator.Phase.UNMASK):
            self.answer_all(self.round.waits_for)
        self.check_total()
        return self

    def check_total(self) -> None:
        """The total is, bit for bit, that over the survivors."""
        assert self.round.phase == coordinator.Phase.DONE, (self.round.phase, self.round.failure)
        survivors = self.round.survivors
        assert np.array_equal(self.total, self.expected(survivors))
        total = contribution_of(self.total, self.layout, self.num_sites, len(survivors))
        for name, value in _unmasked(self.layout, survivors, self.num_sites).items():
            assert np.array_equal(getattr(total, name), value), name

    def expected(self, indices: Collection[int]) -> NDArray[np.uint64]:
        """The sum of these sites' vectors."""
        total = np.zeros(self.shape.num_words, np.uint64)
        for index in indices:
            add_words(total, encoded(self.layout, index, self.num_sites), self.shape.num_wide)
        return total

    # Lies

    @contextlib.contextmanager
    def refused(self, rule: str, peer: int | str) -> Iterator[None]:
        """What happens here is refused by this rule, naming this peer; and it changes nothing."""
        before = list(self.sites), getattr(self, "round", None), [state.rounds for state in self.sites]
        with pytest.raises(MessageRefusedError) as caught:
            yield
        name = self.manifest.name_of(peer) if isinstance(peer, int) else peer
        assert (caught.value.rule, caught.value.peer) == (rule, name), str(caught.value)
        assert name in str(caught.value)
        assert before == (self.sites, getattr(self, "round", None), [state.rounds for state in self.sites])


def chunk_messages(upload: site.Upload) -> list[bytes]:
    """A masked vector as the messages that it travels in."""
    return [
        Chunk(context=upload.context, sender=upload.sender, number=number, content=content).to_bytes()
        for number, content in enumerate(chunks(upload.words))
    ]


def sha256(content: bytes) -> bytes:
    """SHA-256, as a site makes it of the ask that it received."""
    return hashlib.sha256(content).digest()


def two_leg(num_sites: int, **terms: Any) -> Terms:
    """Terms without the consistency leg."""
    return Terms.of(num_sites, is_strict=False, **terms)


def strict(num_sites: int, **terms: Any) -> Terms:
    """Terms with the consistency leg."""
    return Terms.of(num_sites, is_strict=True, **terms)


BOTH_MODES = {"strict": strict, "two_leg": two_leg}
