"""The bytes of secure sums: framed messages, written and read with every size bounded, and the digest of everything.

The rules are those of `docs/protocol.md`, sections 1 and 7. A `Reader` accepts exactly what a `Writer` writes, so that
a message has one form alone.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from enum import IntEnum
from itertools import pairwise

from wardround.errors import MessageRefusedError

PROTOCOL_VERSION = 1
TAG = b"wardround/secagg/1/"
MAGIC = b"WRSA"
FRAME_BYTES = len(MAGIC) + 2
DIGEST_BYTES = 32
COORDINATOR = "coordinator"  # as errors name it; no site may have this name

_FORMATS = {1: struct.Struct("<B"), 2: struct.Struct("<H"), 4: struct.Struct("<I"), 8: struct.Struct("<Q")}


class Kind(IntEnum):
    """What a message is; the sixth byte of its frame."""

    MANIFEST = 1
    ADVERTISE_KEYS = 2
    ENCAPSULATE = 3
    OPENING = 4
    MASKED_INPUT = 5
    CHUNK = 6
    SURVIVORS = 7
    CONSISTENCY = 8
    AGREEMENT = 9
    UNMASK = 10


def digest(name: str, *parts: bytes | memoryview) -> bytes:
    """The SHA-256 of named parts, each with its length before it, so that no two lists of parts share their bytes.

    Args:
        name: what the digest is of; digests of different names never meet.
        parts: the parts in order.

    Returns:
        32 bytes.

    Guarantees:
        a_digest_tells_parts_apart: moving a byte from one part to the next, or into the name, gives another digest.
    """
    return hashlib.sha256(preimage(name, *parts)).digest()


def preimage(name: str, *parts: bytes | memoryview) -> bytes:
    """What `digest` hashes; that of fewer parts begins that of more."""
    pieces: list[bytes | memoryview] = []
    for part in (TAG + name.encode(), *parts):
        pieces += (_FORMATS[8].pack(len(part) if isinstance(part, bytes) else memoryview(part).nbytes), part)
    return b"".join(pieces)


def u16(value: int) -> bytes:
    """A number below 2^16 as two bytes, little-endian."""
    return _packed(2, value)


def u32(value: int) -> bytes:
    """A number below 2^32 as four bytes, little-endian."""
    return _packed(4, value)


def u64(value: int) -> bytes:
    """A number below 2^64 as eight bytes, little-endian."""
    return _packed(8, value)


def _packed(num_bytes: int, value: int) -> bytes:
    try:
        return _FORMATS[num_bytes].pack(value)
    except struct.error:
        raise ValueError(f"value must be an integer in [0, 2**{8 * num_bytes}), got value={value!r}") from None


def check_length(name: str, value: bytes, num_bytes: int) -> None:
    """Refuse bytes of another number.

    Raises:
        ValueError: they are more, or fewer.
    """
    if len(value) != num_bytes:
        raise ValueError(f"{name} must have {num_bytes} bytes, got {len(value)}")


class Writer:
    """Writes a message's body, part by part; `finish` puts it into its frame.

    Raises:
        ValueError: a number or a part is too large for its place.
    """

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[bytes | memoryview] = []

    def u8(self, value: int) -> Writer:
        """A number below 2^8."""
        return self.raw(_packed(1, value))

    def u16(self, value: int) -> Writer:
        """A number below 2^16."""
        return self.raw(u16(value))

    def u32(self, value: int) -> Writer:
        """A number below 2^32."""
        return self.raw(u32(value))

    def u64(self, value: int) -> Writer:
        """A number below 2^64."""
        return self.raw(u64(value))

    def raw(self, part: bytes | memoryview) -> Writer:
        """The bytes as they are; the reader has to know how many."""
        self._parts.append(part)
        return self

    def sized16(self, part: bytes) -> Writer:
        """The bytes with their number before them, below 2^16."""
        return self.u16(len(part)).raw(part)

    def indices(self, indices: Sequence[int]) -> Writer:
        """A set of sites: how many, then their indices, which must ascend."""
        if any(second <= first for first, second in pairwise(indices)):
            raise ValueError(f"indices must ascend without repeats, got indices={list(indices)}")
        self.u16(len(indices))
        for index in indices:
            self.u16(index)
        return self

    def finish(self, kind: Kind) -> bytes:
        """The message: its frame, and what was written. A signature is over it and comes after it."""
        return b"".join((MAGIC, bytes((PROTOCOL_VERSION, kind)), *self._parts))


class Reader:
    """Reads a message's body in the order in which it was written.

    Args:
        message: the whole message with its frame. It is looked at, not copied: do not change it while it is read.
        kind: the kind that it must have.
        peer: whose message it is, for the error: a site's name, or "coordinator".
        max_bytes: the most bytes that the whole message may have; looked at before anything else.

    Raises:
        MessageRefusedError: `malformed`, from here and from every method.
    """

    __slots__ = ("_message", "_place", "peer")

    def __init__(self, message: bytes | memoryview, kind: Kind, peer: str, *, max_bytes: int | None = None) -> None:
        view = memoryview(message).cast("B")
        self.peer = peer
        self._message = view
        self._place = FRAME_BYTES
        if max_bytes is not None and len(view) > max_bytes:
            raise self.malformed(f"it has {len(view)} bytes, and at most {max_bytes} are possible")
        self._check_frame(bytes(view[:FRAME_BYTES]), kind)

    def _check_frame(self, frame: bytes, kind: Kind) -> None:
        if len(frame) < FRAME_BYTES or not frame.startswith(MAGIC):
            raise self.malformed("it does not begin as a message of a secure sum does")
        version, found = frame[len(MAGIC) :]
        if version != PROTOCOL_VERSION:
            raise self.malformed(f"it is of version {version}; this installation speaks version {PROTOCOL_VERSION}")
        if found != kind:
            raise self.malformed(f"it is of kind {found}; kind {kind.value} ({kind.name.lower()}) is expected")

    def malformed(self, reason: str) -> MessageRefusedError:
        """The error to raise where what was read breaks the message's form."""
        return MessageRefusedError("malformed", self.peer, reason)

    def u8(self) -> int:
        """A number below 2^8."""
        return self._number(1)

    def u16(self) -> int:
        """A number below 2^16."""
        return self._number(2)

    def u32(self) -> int:
        """A number below 2^32."""
        return self._number(4)

    def u64(self) -> int:
        """A number below 2^64."""
        return self._number(8)

    def _number(self, num_bytes: int) -> int:
        return int.from_bytes(self._take(num_bytes), "little")

    def raw(self, num_bytes: int) -> bytes:
        """So many bytes, copied."""
        return bytes(self._take(num_bytes))

    def _take(self, num_bytes: int) -> memoryview:
        if num_bytes < 0:
            raise ValueError(f"num_bytes must be 0 or more, got num_bytes={num_bytes}")
        if num_bytes > len(self._message) - self._place:
            raise self.malformed(f"it ends after {len(self._message)} bytes, before it is complete")
        self._place += num_bytes
        return self._message[self._place - num_bytes : self._place]

    def sized16(self, max_bytes: int) -> bytes:
        """Bytes with their number before them, at most `max_bytes`."""
        num_bytes = self.u16()
        if num_bytes > max_bytes:
            raise self.malformed(f"a part has {num_bytes} bytes, and at most {max_bytes} are allowed")
        return self.raw(num_bytes)

    def indices(self, max_count: int) -> tuple[int, ...]:
        """A set of at most `max_count` sites, whose indices ascend."""
        count = self.u16()
        if count > max_count:
            raise self.malformed(f"it lists {count} sites, and there are at most {max_count}")
        indices = struct.unpack(f"<{count}H", self._take(2 * count))
        if any(second <= first for first, second in pairwise(indices)):
            raise self.malformed("it lists sites out of order, or one twice")
        return indices

    @property
    def taken(self) -> memoryview:
        """The message up to here, its frame too: what a signature that follows is over."""
        return self._message[: self._place]

    def rest(self) -> memoryview:
        """All that is left, as a view of the message."""
        return self._take(len(self._message) - self._place)

    def end(self) -> None:
        """Nothing may be left."""
        left = len(self._message) - self._place
        if left:
            raise self.malformed(f"it goes on for {left} bytes after its end")
