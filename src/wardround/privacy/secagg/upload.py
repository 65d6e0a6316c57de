"""What a site uploads: its masked vector in chunks, and beside it its commitments and sealed shares, signed.

What each must be is in `docs/protocol.md`, section 5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from wardround.privacy.secagg.commitments import (
    SHARE_COMMITMENT_BYTES,
    holder_digest,
    path_of,
    root_of,
    shares_digest,
)
from wardround.privacy.secagg.keys import SEAL_BYTES, SIGNATURE_BYTES, SigningKey, verify
from wardround.privacy.secagg.manifest import Manifest
from wardround.privacy.secagg.shamir import SHARE_BYTES
from wardround.privacy.secagg.stored import Octets
from wardround.privacy.secagg.vector import CHUNK_WORDS, chunks
from wardround.privacy.secagg.wire import DIGEST_BYTES, FRAME_BYTES, Kind, Reader, Writer, digest, u16, u64

CHUNK_BYTES = 8 * CHUNK_WORDS
CHUNK_HEAD_BYTES = FRAME_BYTES + DIGEST_BYTES + 2 + 4
"""What a chunk message has beside its words."""


def blob_bytes(num_in_round: int) -> int:
    """Size of the sealed shares for one holder (unit: bytes)."""
    return SEAL_BYTES + num_in_round * SHARE_BYTES


def num_chunks(num_words: int) -> int:
    """Chunks that a vector travels in."""
    return -(-num_words // CHUNK_WORDS)


def masked_input_bytes(num_in_round: int, num_words: int) -> int:
    """Size of a masked_input, without the chunks (unit: bytes)."""
    commitments = num_in_round * DIGEST_BYTES + num_in_round**2 * SHARE_COMMITMENT_BYTES
    head = FRAME_BYTES + DIGEST_BYTES + 2 + 8 + 4
    return head + DIGEST_BYTES * num_chunks(num_words) + commitments + num_in_round * blob_bytes(num_in_round) + 64


def chunk_digests(words: NDArray[np.uint64]) -> tuple[bytes, ...]:
    """SHA-256 of each chunk of a vector."""
    return tuple(hashlib.sha256(chunk).digest() for chunk in chunks(words))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a site signed when it uploaded: enough for its peers, and for an auditor.

    Attributes:
        sender: index of the site.
        vector_digest: over the masked vector's chunks.
        shares_digest: over its commitments and sealed shares.
        signature: the site's, over both and the context.
    """

    sender: int
    vector_digest: Octets
    shares_digest: Octets
    signature: Octets

    def verify(self, manifest: Manifest, context: bytes) -> None:
        """Raise `MessageRefusedError` (rule `signature`) unless the site signed this in this context."""
        site = manifest.roster[self.sender]
        parts = (manifest.digest, context, u16(self.sender), self.vector_digest, self.shares_digest)
        verify(site.identity, self.signature, "masked_input", *parts, peer=site.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedInput:
    """What a site uploads beside the chunks of its masked vector.

    Attributes:
        context: of the round, 32 bytes.
        sender: index of the site.
        num_words: of the vector.
        chunk_digests: SHA-256 of each chunk.
        seed_commitments: one a place in the round's roster.
        share_commitments: by holder, one a place, joined.
        blobs: sealed shares by holder.
        signature: over all of this.
    """

    context: Octets
    sender: int
    num_words: int
    chunk_digests: tuple[Octets, ...] = field(repr=False)
    seed_commitments: tuple[Octets, ...] = field(repr=False)
    share_commitments: tuple[Octets, ...] = field(repr=False)
    blobs: tuple[Octets, ...] = field(repr=False)
    signature: Octets = b""

    def leaves(self, roster: Sequence[int]) -> tuple[bytes, ...]:
        """By place in the round's roster: the digest of what the holder was committed to and sealed."""
        rows = zip(roster, self.share_commitments, self.blobs, strict=True)
        return tuple(
            holder_digest(self.context, self.sender, holder, hashlib.sha256(row).digest(), blob)
            for holder, row, blob in rows
        )

    def evidence(self, leaves: tuple[bytes, ...]) -> Evidence:
        """What the signature is over, and the signature."""
        vector = (self.context, u64(self.num_words), b"".join(self.chunk_digests))
        return Evidence(
            sender=self.sender,
            vector_digest=digest("vector", *vector),
            shares_digest=shares_digest(self.context, self.seeds_digest, root_of(leaves[0], path_of(leaves, 0), 0)),
            signature=self.signature,
        )

    @property
    def seeds_digest(self) -> bytes:
        """SHA-256 of the seed commitments."""
        return hashlib.sha256(b"".join(self.seed_commitments)).digest()

    def signed(self, manifest: Manifest, roster: Sequence[int], signing: SigningKey) -> bytes:
        """The message as bytes, signed."""
        evidence = self.evidence(self.leaves(roster))
        parts = (manifest.digest, self.context, u16(self.sender), evidence.vector_digest, evidence.shares_digest)
        return replace(self, signature=signing.sign("masked_input", *parts)).to_bytes()

    def to_bytes(self) -> bytes:
        """The message with the signature that it has."""
        return self._body() + self.signature

    def _body(self) -> bytes:
        writer = Writer().raw(self.context).u16(self.sender).u64(self.num_words).u32(len(self.chunk_digests))
        for part in (*self.chunk_digests, *self.seed_commitments, *self.share_commitments, *self.blobs):
            writer.raw(part)
        return writer.finish(Kind.MASKED_INPUT)

    @classmethod
    def from_bytes(cls, message: bytes, peer: str, num_in_round: int, num_words: int) -> MaskedInput:
        """Parse; the signature is checked by `evidence.verify`.

        Args:
            message: from outside.
            peer: who delivered it.
            num_in_round: sites of the round's roster.
            num_words: that the vector must have.

        Raises:
            MessageRefusedError: malformed, or of another size.
        """
        reader = Reader(message, Kind.MASKED_INPUT, peer, max_bytes=masked_input_bytes(num_in_round, num_words))
        context, sender = reader.raw(DIGEST_BYTES), reader.u16()
        if (words := reader.u64()) != num_words:
            raise reader.malformed(f"the vector must have {num_words} words, it has {words}")
        if (chunks := reader.u32()) != num_chunks(num_words):
            raise reader.malformed(f"the vector must come in {num_chunks(num_words)} chunks, not {chunks}")
        many = num_in_round
        masked = cls(
            context=context,
            sender=sender,
            num_words=words,
            chunk_digests=raws(reader, chunks, DIGEST_BYTES),
            seed_commitments=raws(reader, many, DIGEST_BYTES),
            share_commitments=raws(reader, many, many * SHARE_COMMITMENT_BYTES),
            blobs=raws(reader, many, blob_bytes(many)),
            signature=reader.raw(SIGNATURE_BYTES),
        )
        reader.end()
        return masked


def raws(reader: Reader, count: int, num_bytes: int) -> tuple[bytes, ...]:
    """So many parts of one size."""
    return tuple(reader.raw(num_bytes) for _ in range(count))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A part of a masked vector; `number` counts from 0."""

    context: bytes
    sender: int
    number: int
    content: bytes | memoryview

    def to_bytes(self) -> bytes:
        """The message."""
        return Writer().raw(self.context).u16(self.sender).u32(self.number).raw(self.content).finish(Kind.CHUNK)

    @classmethod
    def from_bytes(cls, message: bytes, peer: str) -> Chunk:
        """Parse; whether its hash is the announced one is the coordinator machine's business. Raises likewise."""
        limit = CHUNK_HEAD_BYTES + CHUNK_BYTES
        reader = Reader(message, Kind.CHUNK, peer, max_bytes=limit)
        return cls(context=reader.raw(DIGEST_BYTES), sender=reader.u16(), number=reader.u32(), content=reader.rest())
