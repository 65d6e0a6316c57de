"""The bytes of secure sums: what a writer writes a reader reads, and nothing else."""

from __future__ import annotations

import hashlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wardround.errors import MessageRefusedError
from wardround.privacy.secagg.wire import Kind, Reader, Writer, digest, u16, u32, u64

OPENS = b"WRSA\x01\x04"
parts = st.lists(st.binary(max_size=12), max_size=4)
indices = st.sets(st.integers(0, 2**16 - 1), max_size=20).map(sorted).map(tuple)


def refused(reason: str, message: bytes, kind: Kind = Kind.OPENING, **limits: int) -> None:
    with pytest.raises(MessageRefusedError, match=reason) as error:
        Reader(message, kind, "north", **limits)
    assert (error.value.rule, error.value.peer) == ("malformed", "north")


# The digest


def test_digest_is_that_of_the_protocol() -> None:
    tag = b"wardround/secagg/1/keys"
    lengths = [length.to_bytes(8, "little") for length in (len(tag), 2, 0)]
    expected = hashlib.sha256(lengths[0] + tag + lengths[1] + b"ab" + lengths[2]).digest()
    assert digest("keys", b"ab", b"") == expected


@given(parts, parts)
@example([b"ab", b"c"], [b"a", b"bc"])
@example([b""], [])
@example([b"", b"a"], [b"a", b""])
def test_a_digest_tells_parts_apart(first: list[bytes], second: list[bytes]) -> None:
    assert (digest("keys", *first) == digest("keys", *second)) == (first == second)
    assert digest("keys", *first) != digest("key", *first)
    assert digest("keys", *first) != digest("key", b"s", *first)


def test_a_digest_is_of_bytes_not_of_elements() -> None:
    words = np.arange(5, dtype="<u8")
    assert digest("vector", memoryview(words)) == digest("vector", words.tobytes())


# Round trips


@given(
    st.integers(0, 2**8 - 1),
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=40),
    indices,
)
def test_what_is_written_is_read(a: int, b: int, c: int, d: int, part: bytes, sites: tuple[int, ...]) -> None:
    writer = Writer().u8(a).u16(b).u32(c).u64(d).sized16(part).indices(sites).raw(part)
    reader = Reader(writer.finish(Kind.SURVIVORS), Kind.SURVIVORS, "north")
    assert (reader.u8(), reader.u16(), reader.u32(), reader.u64()) == (a, b, c, d)
    assert (reader.sized16(40), reader.indices(20), reader.raw(len(part))) == (part, sites, part)
    reader.end()


def test_a_message_has_the_frame_of_the_protocol() -> None:
    message = Writer().u16(0x0102).u32(3).indices((1, 258)).sized16(b"x").finish(Kind.OPENING)
    assert message == OPENS + b"\x02\x01" + b"\x03\0\0\0" + b"\x02\0\x01\0\x02\x01" + b"\x01\0x"
    assert [kind.value for kind in Kind] == list(range(1, 11))


def test_numbers_are_little_endian() -> None:
    assert (u16(1), u32(1), u64(1)) == (b"\x01\0", b"\x01\0\0\0", b"\x01" + bytes(7))


def test_what_was_taken_and_what_is_left() -> None:
    reader = Reader(OPENS + b"abcdef", Kind.OPENING, "north")
    assert reader.raw(2) == b"ab"
    assert (reader.taken, reader.rest()) == (OPENS + b"ab", b"cdef")
    reader.end()


def test_a_view_is_read_like_bytes() -> None:
    words = np.frombuffer(OPENS + b"ab", dtype=np.uint16)
    assert Reader(memoryview(words), Kind.OPENING, "north").raw(2) == b"ab"


# Refusals


def test_frames_that_are_refused() -> None:
    refused("does not begin", b"")
    refused("does not begin", OPENS[:5])
    refused("does not begin", b"wRSA\x01\x04")
    refused("version 2", b"WRSA\x02\x04")
    refused(r"kind 5; kind 4 \(opening\)", b"WRSA\x01\x05")
    refused("kind 0", b"WRSA\x01\x00")


def test_the_length_is_looked_at_first() -> None:
    refused("8 bytes, and at most 7", b"not a message"[:8], max_bytes=7)
    Reader(OPENS + b"x", Kind.OPENING, "north", max_bytes=7).raw(1)


@pytest.mark.parametrize("read", ["u8", "u16", "u32", "u64"])
def test_a_number_that_is_cut_off(read: str) -> None:
    size = int(read[1:]) // 8
    reader = Reader(OPENS + bytes(size - 1), Kind.OPENING, "north")
    with pytest.raises(MessageRefusedError, match="before it is complete"):
        getattr(reader, read)()


def test_bytes_that_are_cut_off_left_over_or_too_many() -> None:
    reader = Reader(OPENS + b"\x03\0abc", Kind.OPENING, "north")
    with pytest.raises(MessageRefusedError, match="before it is complete"):
        reader.raw(6)
    with pytest.raises(MessageRefusedError, match="a part has 3 bytes, and at most 2"):
        reader.sized16(2)
    with pytest.raises(MessageRefusedError, match="goes on for 3 bytes"):
        reader.end()


@pytest.mark.parametrize("sites", [(1, 1), (2, 1), (0, 5, 4)])
def test_sets_of_sites_ascend(sites: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must ascend"):
        Writer().indices(sites)
    reader = Reader(OPENS + u16(len(sites)) + b"".join(map(u16, sites)), Kind.OPENING, "north")
    with pytest.raises(MessageRefusedError, match="out of order"):
        reader.indices(5)


def test_sets_of_sites_are_bounded() -> None:
    reader = Reader(OPENS + u16(0xFFFF), Kind.OPENING, "north")
    with pytest.raises(MessageRefusedError, match="lists 65535 sites, and there are at most 3"):
        reader.indices(3)
    with pytest.raises(MessageRefusedError, match="before it is complete"):
        Reader(OPENS + u16(2) + u16(1), Kind.OPENING, "north").indices(3)


@pytest.mark.parametrize(("write", "value"), [("u8", 256), ("u16", 2**16), ("u32", 2**32), ("u64", 2**64), ("u16", -1)])
def test_numbers_too_large_for_their_place_are_not_written(write: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"got value={value}"):
        getattr(Writer(), write)(value)


def test_a_part_too_long_for_its_length_is_not_written() -> None:
    with pytest.raises(ValueError, match="got value=65536"):
        Writer().sized16(bytes(2**16))


@given(
    st.binary(max_size=60), st.lists(st.sampled_from(["u8", "u16", "u32", "u64", "sized16", "indices", "raw", "end"]))
)
def test_a_reader_raises_nothing_but_refusals(content: bytes, steps: list[str]) -> None:
    limits = {"sized16": (8,), "indices": (3,), "raw": (5,)}
    reader = Reader(OPENS + content, Kind.OPENING, "north")
    with suppress(MessageRefusedError):
        for step in steps:
            getattr(reader, step)(*limits.get(step, ()))
    assert bytes(reader.taken) + bytes(reader.rest()) == OPENS + content


@given(st.binary(max_size=20))
def test_a_frame_is_right_or_refused(message: bytes) -> None:
    try:
        Reader(message, Kind.OPENING, "north")
    except MessageRefusedError:
        assert message[:6] != OPENS
