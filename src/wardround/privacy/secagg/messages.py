"""The messages of a round: bytes in, checked values out. Sizes are known before a message is parsed.

What a message must be is in `docs/protocol.md`, section 5; who sent it and whether it may come now is the
machines' business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from wardround.errors import MessageRefusedError
from wardround.privacy.secagg.context import packed_indices
from wardround.privacy.secagg.keys import SEAL_BYTES, SIGNATURE_BYTES, SigningKey, verify
from wardround.privacy.secagg.manifest import Manifest
from wardround.privacy.secagg.shamir import SHARE_BYTES
from wardround.privacy.secagg.stored import Octets
from wardround.privacy.secagg.vector import CHUNK_WORDS, chunks
from wardround.privacy.secagg.wire import COORDINATOR, DIGEST_BYTES, FRAME_BYTES, Kind, Reader, Writer, digest, u16, u64

SHARE_COMMITMENT_BYTES = 16
CHUNK_BYTES = 8 * CHUNK_WORDS


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


def survivors_bytes(num_in_round: int, num_survivors: int) -> int:
    """Size of a survivors message (unit: bytes)."""
    item = 2 * DIGEST_BYTES + SIGNATURE_BYTES + blob_bytes(num_in_round)
    return FRAME_BYTES + DIGEST_BYTES + 2 + num_survivors * (2 + item) + SIGNATURE_BYTES


CONSISTENCY_BYTES = FRAME_BYTES + DIGEST_BYTES + 2 + DIGEST_BYTES + SIGNATURE_BYTES


def agreement_bytes(num_signers: int) -> int:
    """Size of an agreement (unit: bytes)."""
    return FRAME_BYTES + DIGEST_BYTES + 2 + num_signers * (2 + SIGNATURE_BYTES) + SIGNATURE_BYTES


def unmask_bytes(num_in_round: int, num_survivors: int) -> int:
    """Size of an unmask message (unit: bytes)."""
    shares = num_survivors * (1 + num_in_round - num_survivors) * SHARE_BYTES
    return FRAME_BYTES + DIGEST_BYTES + 2 + DIGEST_BYTES + shares + SIGNATURE_BYTES


def seed_commitment(context: bytes, first: int, second: int, seed: bytes) -> bytes:
    """What a site commits to a seed with; for a self mask both indices are its own."""
    return digest("seed", context, u16(min(first, second)), u16(max(first, second)), seed)


def share_commitment(context: bytes, sender: int, holder: int, place: int, share: bytes) -> bytes:
    """What a site commits to one share with."""
    return digest("share", context, u16(sender), u16(holder), u16(place), share)[:SHARE_COMMITMENT_BYTES]


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

    @property
    def evidence(self) -> Evidence:
        """What the signature is over, and the signature."""
        vector = (self.context, u64(self.num_words), b"".join(self.chunk_digests))
        sealed = b"".join(hashlib.sha256(blob).digest() for blob in self.blobs)
        commitments = (b"".join(self.seed_commitments), b"".join(self.share_commitments))
        return Evidence(
            sender=self.sender,
            vector_digest=digest("vector", *vector),
            shares_digest=digest("shares", self.context, *commitments, sealed),
            signature=self.signature,
        )

    def signed(self, manifest: Manifest, signing: SigningKey) -> bytes:
        """The message as bytes, signed."""
        evidence = self.evidence
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
            chunk_digests=_raws(reader, chunks, DIGEST_BYTES),
            seed_commitments=_raws(reader, many, DIGEST_BYTES),
            share_commitments=_raws(reader, many, many * SHARE_COMMITMENT_BYTES),
            blobs=_raws(reader, many, blob_bytes(many)),
            signature=reader.raw(SIGNATURE_BYTES),
        )
        reader.end()
        return masked


def _raws(reader: Reader, count: int, num_bytes: int) -> tuple[bytes, ...]:
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
        head = Writer().raw(self.context).u16(self.sender).u32(self.number)
        return head.finish(Kind.CHUNK) + bytes(self.content)

    @classmethod
    def from_bytes(cls, message: bytes, peer: str) -> Chunk:
        """Parse; whether its hash is the announced one is the coordinator machine's business. Raises likewise."""
        limit = FRAME_BYTES + DIGEST_BYTES + 2 + 4 + CHUNK_BYTES
        reader = Reader(message, Kind.CHUNK, peer, max_bytes=limit)
        return cls(context=reader.raw(DIGEST_BYTES), sender=reader.u16(), number=reader.u32(), content=reader.rest())


def survivors_digest(context: bytes, evidence: Sequence[Evidence]) -> bytes:
    """`S`: who is in the sum, and what each of them signed."""
    indices = packed_indices([one.sender for one in evidence])
    vectors = b"".join(one.vector_digest for one in evidence)
    return digest("survivors", context, indices, vectors, b"".join(one.shares_digest for one in evidence))


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivors:
    """Whom the coordinator says to be in the sum, with the proof and one holder's sealed shares."""

    context: bytes
    evidence: tuple[Evidence, ...]
    blobs: tuple[bytes, ...]

    @property
    def indices(self) -> tuple[int, ...]:
        """The survivors, U."""
        return tuple(one.sender for one in self.evidence)

    @property
    def digest(self) -> bytes:
        """`S`."""
        return survivors_digest(self.context, self.evidence)

    def to_bytes(self, manifest: Manifest, signing: SigningKey) -> bytes:
        """The message, signed by the coordinator."""
        writer = Writer().raw(self.context).indices(self.indices)
        for one, blob in zip(self.evidence, self.blobs, strict=True):
            writer.raw(one.vector_digest).raw(one.shares_digest).raw(one.signature).raw(blob)
        body = writer.finish(Kind.SURVIVORS)
        return body + signing.sign("survivors", manifest.digest, body)

    @classmethod
    def from_bytes(cls, message: bytes, manifest: Manifest, num_in_round: int) -> Survivors:
        """Parse and check the coordinator's signature; the sites' own are checked by the site machine.

        Raises:
            MessageRefusedError: malformed, or not signed by the coordinator.
        """
        limit = survivors_bytes(num_in_round, num_in_round)
        reader = Reader(message, Kind.SURVIVORS, COORDINATOR, max_bytes=limit)
        context, indices = reader.raw(DIGEST_BYTES), reader.indices(num_in_round)
        evidence, blobs = [], []
        for index in indices:
            evidence.append(
                Evidence(
                    sender=index,
                    vector_digest=reader.raw(DIGEST_BYTES),
                    shares_digest=reader.raw(DIGEST_BYTES),
                    signature=reader.raw(SIGNATURE_BYTES),
                )
            )
            blobs.append(reader.raw(blob_bytes(num_in_round)))
        _verify_coordinator(reader, message, manifest, "survivors")
        return cls(context=context, evidence=tuple(evidence), blobs=tuple(blobs))


def _verify_coordinator(reader: Reader, message: bytes, manifest: Manifest, name: str) -> None:
    signature = reader.raw(SIGNATURE_BYTES)
    reader.end()
    verify(manifest.coordinator, signature, name, manifest.digest, message[:-SIGNATURE_BYTES], peer=COORDINATOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistency:
    """A site's signature of who is in the sum."""

    context: bytes
    sender: int
    survivors_digest: bytes
    signature: bytes

    @classmethod
    def signed(cls, manifest: Manifest, context: bytes, sender: int, survivors: bytes, signing: SigningKey) -> bytes:
        """The message as bytes."""
        signature = signing.sign("consistency", manifest.digest, context, survivors)
        head = Writer().raw(context).u16(sender).raw(survivors).finish(Kind.CONSISTENCY)
        return head + signature

    @classmethod
    def from_bytes(cls, message: bytes, manifest: Manifest, peer: str) -> Consistency:
        """Parse and check the signature.

        Raises:
            MessageRefusedError: malformed, of an unknown site, or not signed by it.
        """
        reader = Reader(message, Kind.CONSISTENCY, peer, max_bytes=CONSISTENCY_BYTES)
        one = cls(
            context=reader.raw(DIGEST_BYTES),
            sender=reader.u16(),
            survivors_digest=reader.raw(DIGEST_BYTES),
            signature=reader.raw(SIGNATURE_BYTES),
        )
        reader.end()
        known(manifest, one.sender, peer)
        verify_consistency(manifest, one.context, one.sender, one.survivors_digest, one.signature)
        return one


def known(manifest: Manifest, index: int, peer: str) -> None:
    """Raise `MessageRefusedError` (rule `unknown_peer`) unless the roster has this index."""
    if index >= len(manifest.roster):
        raise MessageRefusedError("unknown_peer", peer, f"the roster has no site {index}")


def verify_consistency(manifest: Manifest, context: bytes, sender: int, survivors: bytes, signature: bytes) -> None:
    """Raise `MessageRefusedError` (rule `signature`) unless the site signed `S` in this context."""
    site = manifest.roster[sender]
    verify(site.identity, signature, "consistency", manifest.digest, context, survivors, peer=site.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The consistency signatures that the coordinator collected: `(index, signature)`, ascending by index."""

    context: bytes
    signatures: tuple[tuple[int, bytes], ...]

    def to_bytes(self, manifest: Manifest, signing: SigningKey) -> bytes:
        """The message, signed by the coordinator."""
        writer = Writer().raw(self.context).u16(len(self.signatures))
        for index, signature in self.signatures:
            writer.u16(index).raw(signature)
        body = writer.finish(Kind.AGREEMENT)
        return body + signing.sign("agreement", manifest.digest, body)

    @classmethod
    def from_bytes(cls, message: bytes, manifest: Manifest) -> Agreement:
        """Parse and check the coordinator's signature; the sites' own are checked by the site machine.

        Raises:
            MessageRefusedError: malformed, or not signed by the coordinator.
        """
        most = len(manifest.roster)
        reader = Reader(message, Kind.AGREEMENT, COORDINATOR, max_bytes=agreement_bytes(most))
        context, count = reader.raw(DIGEST_BYTES), reader.u16()
        if count > most:
            raise reader.malformed(f"it has {count} signatures, the roster {most} sites")
        signatures = tuple((reader.u16(), reader.raw(SIGNATURE_BYTES)) for _ in range(count))
        if any(first >= second for (first, _), (second, _) in pairwise(signatures)):
            raise reader.malformed("its signatures are not in ascending order")
        _verify_coordinator(reader, message, manifest, "agreement")
        return cls(context=context, signatures=signatures)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmask:
    """The shares that a site releases: for each survivor that of its self mask, then of its masks with the dropped."""

    context: bytes
    sender: int
    survivors_digest: bytes
    shares: bytes
    signature: bytes = b""

    def signed(self, manifest: Manifest, signing: SigningKey) -> bytes:
        """The message as bytes, signed."""
        head = Writer().raw(self.context).u16(self.sender).raw(self.survivors_digest).raw(self.shares)
        return head.finish(Kind.UNMASK) + signing.sign("unmask", *self._signed_parts(manifest))

    def _signed_parts(self, manifest: Manifest) -> tuple[bytes, ...]:
        shares = hashlib.sha256(self.shares).digest()
        return manifest.digest, self.context, u16(self.sender), self.survivors_digest, shares

    @classmethod
    def from_bytes(cls, message: bytes, manifest: Manifest, peer: str, num_in_round: int, num_survivors: int) -> Unmask:
        """Parse and check the signature.

        Raises:
            MessageRefusedError: malformed, of an unknown site, or not signed by it.
        """
        limit = unmask_bytes(num_in_round, num_survivors)
        reader = Reader(message, Kind.UNMASK, peer, max_bytes=limit)
        one = cls(
            context=reader.raw(DIGEST_BYTES),
            sender=reader.u16(),
            survivors_digest=reader.raw(DIGEST_BYTES),
            shares=reader.raw(num_survivors * (1 + num_in_round - num_survivors) * SHARE_BYTES),
            signature=reader.raw(SIGNATURE_BYTES),
        )
        reader.end()
        known(manifest, one.sender, peer)
        site = manifest.roster[one.sender]
        verify(site.identity, one.signature, "unmask", *one._signed_parts(manifest), peer=site.name)
        return one
