"""What a round is about: its opening, and the context that all of its masks, keys and signatures depend on."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from wardround.privacy.secagg.keys import SIGNATURE_BYTES, SigningKey, verify
from wardround.privacy.secagg.manifest import Manifest
from wardround.privacy.secagg.stored import Octets
from wardround.privacy.secagg.wire import COORDINATOR, DIGEST_BYTES, FRAME_BYTES, Kind, Reader, Writer, digest, u16, u32

RUN_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """The coordinator opens a round (protocol, section 5).

    Attributes:
        run: tells runs of a study apart, 16 bytes.
        round: number of the round, from 1.
        attempt: number of the attempt at it, from 1.
        roster: indices of the sites that are asked, ascending.
        broadcast_digest: SHA-256 of the ask; each site computes it from what it received.
    """

    run: Octets
    round: int
    attempt: int
    roster: tuple[int, ...]
    broadcast_digest: Octets

    def __post_init__(self) -> None:
        if len(self.run) != RUN_BYTES or len(self.broadcast_digest) != DIGEST_BYTES:
            raise ValueError(f"run must have {RUN_BYTES} bytes and broadcast_digest {DIGEST_BYTES}")
        if self.round < 1 or self.attempt < 1:
            raise ValueError(f"rounds and attempts count from 1, got round={self.round}, attempt={self.attempt}")

    @property
    def order(self) -> tuple[int, int]:
        """Rounds and attempts go forward only."""
        return self.round, self.attempt

    def _body(self) -> bytes:
        writer = Writer().raw(self.run).u32(self.round).u16(self.attempt)
        return writer.indices(self.roster).finish(Kind.OPENING)

    def to_bytes(self, manifest: Manifest, signing: SigningKey) -> bytes:
        """The message, signed by the coordinator. The broadcast itself travels beside it."""
        body = self._body()
        return body + signing.sign("opening", manifest.digest, body, self.broadcast_digest)

    @classmethod
    def from_bytes(cls, message: bytes, manifest: Manifest, broadcast_digest: bytes) -> Opening:
        """A site's reading of the message beside the broadcast that it received.

        Raises:
            MessageRefusedError: malformed, or not signed by the manifest's coordinator over this broadcast.
        """
        reader = Reader(message, Kind.OPENING, COORDINATOR, max_bytes=opening_bytes(len(manifest.roster)))
        run, number, attempt = reader.raw(RUN_BYTES), reader.u32(), reader.u16()
        roster = reader.indices(len(manifest.roster))
        signature = reader.raw(SIGNATURE_BYTES)
        reader.end()
        if not (number and attempt):
            raise reader.malformed("rounds and attempts count from 1")
        body = message[:-SIGNATURE_BYTES]
        verify(manifest.coordinator, signature, "opening", manifest.digest, body, broadcast_digest, peer=COORDINATOR)
        return cls(run=run, round=number, attempt=attempt, roster=roster, broadcast_digest=broadcast_digest)

    def context(self, manifest: Manifest, keys: bytes, layout: bytes) -> bytes:
        """`ctx`, 32 bytes, for a vector whose layout has this digest, among sites with these keys.

        Args:
            manifest: of the study.
            keys: `keys_digest` of the set-up. After another set-up no signature counts that was made before it.
            layout: `layout_digest` of the vector.
        """
        return digest(
            "context",
            manifest.digest,
            keys,
            self.run,
            u32(self.round),
            u16(self.attempt),
            packed_indices(self.roster),
            self.broadcast_digest,
            layout,
        )


def opening_bytes(num_in_round: int) -> int:
    """Size of an opening (unit: bytes)."""
    return FRAME_BYTES + RUN_BYTES + 4 + 2 + 2 + 2 * num_in_round + SIGNATURE_BYTES


def packed_indices(indices: Sequence[int]) -> bytes:
    """A set of sites as it is written inside digests: ascending `u16` indices."""
    return struct.pack(f"<{len(indices)}H", *indices)
