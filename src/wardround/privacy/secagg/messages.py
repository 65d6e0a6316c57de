"""The messages of a round: bytes in, checked values out. Sizes are known before a message is parsed.

What a message must be is in `docs/protocol.md`, section 5; who sent it and whether it may come now is the
machines' business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from wardround.errors import MessageRefusedError
from wardround.privacy.secagg.commitments import holder_digest, path_digests, root_of, shares_digest
from wardround.privacy.secagg.context import packed_indices
from wardround.privacy.secagg.keys import SIGNATURE_BYTES, SigningKey, verify
from wardround.privacy.secagg.manifest import Manifest
from wardround.privacy.secagg.shamir import SHARE_BYTES
from wardround.privacy.secagg.upload import (
    CHUNK_BYTES,
    CHUNK_HEAD_BYTES,
    Chunk,
    Evidence,
    MaskedInput,
    blob_bytes,
    chunk_digests,
    masked_input_bytes,
    num_chunks,
    raws,
)
from wardround.privacy.secagg.wire import COORDINATOR, DIGEST_BYTES, FRAME_BYTES, Kind, Reader, Writer, digest, u16

__all__ = [
    "CHUNK_BYTES",
    "CHUNK_HEAD_BYTES",
    "Agreement",
    "Chunk",
    "Consistency",
    "Evidence",
    "MaskedInput",
    "Sealed",
    "Survivors",
    "Unmask",
    "agreement_bytes",
    "chunk_digests",
    "known",
    "masked_input_bytes",
    "num_chunks",
    "survivors_bytes",
    "survivors_digest",
    "unmask_bytes",
    "verify_consistency",
]


def survivors_bytes(num_in_round: int, num_survivors: int) -> int:
    """Size of a survivors message (unit: bytes)."""
    proof = (2 + path_digests(num_in_round)) * DIGEST_BYTES
    item = 2 * DIGEST_BYTES + SIGNATURE_BYTES + proof + blob_bytes(num_in_round)
    return FRAME_BYTES + DIGEST_BYTES + 2 + 2 + num_survivors * (2 + item) + SIGNATURE_BYTES


CONSISTENCY_BYTES = FRAME_BYTES + DIGEST_BYTES + 2 + DIGEST_BYTES + SIGNATURE_BYTES


def agreement_bytes(num_signers: int) -> int:
    """Size of an agreement (unit: bytes)."""
    return FRAME_BYTES + DIGEST_BYTES + 2 + num_signers * (2 + SIGNATURE_BYTES) + SIGNATURE_BYTES


def unmask_bytes(num_in_round: int, num_survivors: int) -> int:
    """Size of an unmask message (unit: bytes)."""
    shares = num_survivors * (1 + num_in_round - num_survivors) * SHARE_BYTES
    return FRAME_BYTES + DIGEST_BYTES + 2 + DIGEST_BYTES + shares + SIGNATURE_BYTES


def survivors_digest(context: bytes, evidence: Sequence[Evidence]) -> bytes:
    """`S`: who is in the sum, and what each of them signed."""
    indices = packed_indices([one.sender for one in evidence])
    vectors = b"".join(one.vector_digest for one in evidence)
    return digest("survivors", context, indices, vectors, b"".join(one.shares_digest for one in evidence))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What one site sealed for one holder, with the proof that it is what that site signed.

    Attributes:
        seeds_digest: SHA-256 of the sender's seed commitments.
        committed: SHA-256 of its commitments to this holder's shares.
        path: from this holder's leaf to the root that was signed.
        blob: the sealed shares.
    """

    seeds_digest: bytes
    committed: bytes
    path: tuple[bytes, ...] = field(repr=False)
    blob: bytes = field(repr=False)

    def shares_digest(self, context: bytes, sender: int, holder: int, place: int) -> bytes:
        """What the sender must have signed, if this is what it sealed for the holder at this place."""
        leaf = holder_digest(context, sender, holder, self.committed, self.blob)
        return shares_digest(context, self.seeds_digest, root_of(leaf, self.path, place))


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivors:
    """Whom the coordinator says to be in the sum, with the proof and one holder's sealed shares."""

    context: bytes
    holder: int
    evidence: tuple[Evidence, ...]
    sealed: tuple[Sealed, ...]

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
        writer = Writer().raw(self.context).u16(self.holder).indices(self.indices)
        for one, sealed in zip(self.evidence, self.sealed, strict=True):
            writer.raw(one.vector_digest).raw(one.shares_digest).raw(one.signature)
            writer.raw(sealed.seeds_digest).raw(sealed.committed).raw(b"".join(sealed.path)).raw(sealed.blob)
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
        context, holder, indices = reader.raw(DIGEST_BYTES), reader.u16(), reader.indices(num_in_round)
        items = [(_read_evidence(reader, index), _read_sealed(reader, num_in_round)) for index in indices]
        _verify_coordinator(reader, message, manifest, "survivors")
        evidence, sealed = tuple(one for one, _ in items), tuple(one for _, one in items)
        return cls(context=context, holder=holder, evidence=evidence, sealed=sealed)


def _read_evidence(reader: Reader, sender: int) -> Evidence:
    return Evidence(
        sender=sender,
        vector_digest=reader.raw(DIGEST_BYTES),
        shares_digest=reader.raw(DIGEST_BYTES),
        signature=reader.raw(SIGNATURE_BYTES),
    )


def _read_sealed(reader: Reader, num_in_round: int) -> Sealed:
    return Sealed(
        seeds_digest=reader.raw(DIGEST_BYTES),
        committed=reader.raw(DIGEST_BYTES),
        path=raws(reader, path_digests(num_in_round), DIGEST_BYTES),
        blob=reader.raw(blob_bytes(num_in_round)),
    )


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
    shares: bytes = field(repr=False)
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
