"""What the coordinator knows of a round, what can happen, and what the driver then does.

The machine itself is `coordinator.step`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from wardround.privacy.secagg.context import Opening
from wardround.privacy.secagg.messages import Evidence, MaskedInput, num_chunks
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
    """A masked_input that was accepted.

    Attributes:
        masked: the message.
        leaves: by place in the round's roster the digest of what was committed to and sealed for the holder.
        evidence: what its sender signed by it.
        num_chunks: of its chunks that have come.
    """

    masked: MaskedInput
    leaves: tuple[Octets, ...] = field(repr=False)
    evidence: Evidence
    num_chunks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundState:
    """All that the coordinator knows of a round, but for the vectors.

    Attributes:
        manifest: of the study.
        signing: seed of the coordinator's own Ed25519 key.
        opening: of the round.
        context: of the round, 32 bytes.
        num_words: of every vector.
        phase: what it waits for.
        uploads: by index.
        survivors: U, once the first leg is closed.
        survivors_digest: S, then too.
        signatures: consistency signatures by index.
        releases: shares by index of their holder.
        failure: why it failed.
    """

    manifest: StoredManifest
    signing: Octets = field(repr=False)
    opening: Opening
    context: Octets
    num_words: int
    phase: Phase = Phase.MASKED_INPUT
    uploads: Mapping[int, StoredUpload] = field(default_factory=dict)
    survivors: tuple[int, ...] = ()
    survivors_digest: Octets = b""
    signatures: Mapping[int, Octets] = field(default_factory=dict)
    releases: Mapping[int, Octets] = field(default_factory=dict, repr=False)
    failure: str = ""

    @property
    def roster(self) -> tuple[int, ...]:
        """Indices of the sites that are asked, ascending."""
        return self.opening.roster

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
            uploaded = set(self.uploaded)
            return tuple(index for index in self.roster if index not in uploaded)
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

    @property
    def dropped(self) -> tuple[int, ...]:
        """Indices of the roster's sites that are not survivors."""
        survivors = set(self.survivors)
        return tuple(index for index in self.roster if index not in survivors)

    @property
    def places(self) -> Mapping[int, int]:
        """Places in the roster by index."""
        return {index: place for place, index in enumerate(self.roster)}

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
    """The round cannot be completed.

    Where no site can have released a share (the phases before UNMASK) another attempt at it may be opened; after
    that sites refuse any, and the ask has to be put in another round.

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
