"""The transcript of secure sums: what was asked, who signed what, who is in which total, for anybody to verify.

A transcript is lines of JSON in ASCII. Each ends with a digest over itself and the line before it (`chain`), so that no
byte can change unseen, and the last one is signed by the coordinator. A line has one form alone: what is read is
written again and compared. It holds no share, seed, mask, vector, contribution or total, and no value of a patient: of
vectors and shares it has digests of uniform bytes, of a total a commitment that only the coordinator can open.

Here entries become lines and lines become entries. `recording` makes entries of what happened; `audit.verify` says
whether together they tell of sums that kept to the protocol. What people are told of it is `docs/audit.md`.

References:
    Schneier and Kelsey, Cryptographic Support for Secure Logs on Untrusted Machines, USENIX Security 1998, section 3.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias, get_args

from wardround.errors import MessageRefusedError, TranscriptRefusedError
from wardround.privacy.secagg.keys import SIGNATURE_BYTES
from wardround.privacy.secagg.wire import DIGEST_BYTES, digest
from wardround.sums.parameters import read_json

TRANSCRIPT_VERSION = 1
MAX_LINE_BYTES = 2**19
"""Longest line; of 256 sites the first one's message encapsulate needs three quarters of it."""
MAX_TEXT_CHARACTERS = 500
START = digest("transcript_start")
"""What the first line is bound to."""


# How the fields of an entry are written


@dataclass(frozen=True, slots=True)
class _Form:
    """A field as JSON, and back. `read` raises `ValueError`."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def _octets(num_bytes: int) -> Any:
    def read(value: Any) -> bytes:
        if not isinstance(value, str) or len(value) != 2 * num_bytes:
            raise ValueError(f"must be {num_bytes} bytes in hexadecimal")
        return bytes.fromhex(value)

    return field(metadata={"form": _Form(bytes.hex, read)})


def _read_message(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("must be a message in base64")
    return base64.b64decode(value, validate=True)


def _message() -> Any:
    return field(metadata={"form": _Form(lambda value: base64.b64encode(value).decode("ascii"), _read_message)})


def _read_index(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**16:
        raise ValueError("must be the index of a site")
    return value


def _index() -> Any:
    return field(metadata={"form": _Form(int, _read_index)})


def _read_indices(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ValueError("must be indices of sites")
    return tuple(_read_index(one) for one in value)


def _indices() -> Any:
    return field(metadata={"form": _Form(list, _read_indices)})


def _text() -> Any:
    def read(value: Any) -> str:
        if not isinstance(value, str) or len(value) > MAX_TEXT_CHARACTERS or not value.isprintable():
            raise ValueError(f"must be at most {MAX_TEXT_CHARACTERS} printable characters")
        return value

    return field(metadata={"form": _Form(str, read)})


def in_short(text: str) -> str:
    """Text that a line can hold: printable, and cut where it is too long."""
    printable = "".join(c if c.isprintable() else "?" for c in text[: MAX_TEXT_CHARACTERS + 1])
    return printable if len(printable) <= MAX_TEXT_CHARACTERS else printable[: MAX_TEXT_CHARACTERS - 4] + " ..."


# Entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """The manifest: the first line."""

    kind: ClassVar[str] = "manifest"
    version: int = _index()
    message: bytes = _message()


@dataclass(frozen=True, slots=True, kw_only=True)
class Advertised:
    """A site's message advertise_keys."""

    kind: ClassVar[str] = "advertise_keys"
    message: bytes = _message()


@dataclass(frozen=True, slots=True, kw_only=True)
class Encapsulated:
    """A site's message encapsulate."""

    kind: ClassVar[str] = "encapsulate"
    message: bytes = _message()


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A round was opened.

    Attributes:
        message: the opening as the coordinator signed it.
        function: id of the site function that was asked for.
        broadcast: SHA-256 of the ask.
        layout: digest of the vector's layout.
        context: of the round, which every later line of it names.
    """

    kind: ClassVar[str] = "opening"
    message: bytes = _message()
    function: str = _text()
    broadcast: bytes = _octets(DIGEST_BYTES)
    layout: bytes = _octets(DIGEST_BYTES)
    context: bytes = _octets(DIGEST_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """A site uploaded its masked vector and signed it: what `messages.Evidence` is."""

    kind: ClassVar[str] = "masked_input"
    context: bytes = _octets(DIGEST_BYTES)
    site: int = _index()
    vector: bytes = _octets(DIGEST_BYTES)
    shares: bytes = _octets(DIGEST_BYTES)
    signature: bytes = _octets(SIGNATURE_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """The coordinator named the survivors; `digest` is S."""

    kind: ClassVar[str] = "survivors"
    context: bytes = _octets(DIGEST_BYTES)
    sites: tuple[int, ...] = _indices()
    digest: bytes = _octets(DIGEST_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """A site signed who is in the sum."""

    kind: ClassVar[str] = "consistency"
    context: bytes = _octets(DIGEST_BYTES)
    site: int = _index()
    signature: bytes = _octets(SIGNATURE_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """A site released its shares; `shares` is their SHA-256."""

    kind: ClassVar[str] = "unmask"
    context: bytes = _octets(DIGEST_BYTES)
    site: int = _index()
    shares: bytes = _octets(DIGEST_BYTES)
    signature: bytes = _octets(SIGNATURE_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summed:
    """The total was found; `commitment` is `recording.total_commitment`."""

    kind: ClassVar[str] = "total"
    context: bytes = _octets(DIGEST_BYTES)
    commitment: bytes = _octets(DIGEST_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The round has no total. `rule` and `peer` are empty where nobody broke a rule."""

    kind: ClassVar[str] = "failure"
    context: bytes = _octets(DIGEST_BYTES)
    rule: str = _text()
    peer: str = _text()
    reason: str = _text()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A message was refused; what was in it is not told."""

    kind: ClassVar[str] = "refused"
    rule: str = _text()
    peer: str = _text()

    @classmethod
    def of(cls, error: MessageRefusedError) -> Refused:
        """The entry of a refusal."""
        return cls(rule=in_short(error.rule), peer=in_short(error.peer))


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The last line: the coordinator signed everything before it."""

    kind: ClassVar[str] = "closed"
    signature: bytes = _octets(SIGNATURE_BYTES)


Entry: TypeAlias = (
    Pinned
    | Advertised
    | Encapsulated
    | Opened
    | Uploaded
    | Named
    | Agreed
    | Released
    | Summed
    | Failed
    | Refused
    | Closed
)
KINDS: Mapping[str, type[Entry]] = {kind.kind: kind for kind in get_args(Entry)}


# Lines


def to_line(entry: Entry, before: bytes) -> tuple[bytes, bytes]:
    """An entry as a line.

    Args:
        entry: what happened.
        before: the `chain` of the line before it, 32 bytes; `START` for the first one.

    Returns:
        The line with its newline, and its own `chain`.
    """
    content = _content(entry)
    chain = digest("transcript_line", before, _json(content))
    return _line(content, chain.hex()), chain


def _content(entry: Entry) -> dict[str, Any]:
    fields = dataclasses.fields(entry)
    return {"kind": entry.kind, **{one.name: one.metadata["form"].write(getattr(entry, one.name)) for one in fields}}


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def _line(content: Mapping[str, Any], chain: Any) -> bytes:
    return _json({**content, "chain": chain}) + b"\n"


def from_line(line: bytes, before: bytes, number: int) -> tuple[Entry, bytes]:
    """The inverse of `to_line`; `number` is the line's, for the error.

    Raises:
        TranscriptRefusedError: rule `malformed`: it is no such line; rule `chain`: it was altered, or is not the one
            that followed the line before.

    Guarantees:
        a_line_has_one_form: what this accepts, `to_line` gives back byte for byte.
    """
    if len(line) > MAX_LINE_BYTES:
        raise TranscriptRefusedError(number, "malformed", f"it is longer than {MAX_LINE_BYTES} bytes")
    try:
        read = read_json(line.decode("ascii"))
        entry = _entry(read)
    except (ValueError, RecursionError) as error:
        raise TranscriptRefusedError(number, "malformed", _why(error)) from None
    expected, chain = to_line(entry, before)
    if line == expected:
        return entry, chain
    if isinstance(read["chain"], str) and line == _line(_content(entry), read["chain"]):
        reason = "it was altered, or lines before it were altered, removed, added or swapped"
        raise TranscriptRefusedError(number, "chain", reason)
    raise TranscriptRefusedError(number, "malformed", "it is not written as this program writes it")


def _entry(read: Any) -> Entry:
    named = read.get("kind") if isinstance(read, dict) else None
    kind = KINDS.get(named) if isinstance(named, str) else None
    if kind is None:
        raise ValueError("it is of no kind that a transcript has")
    fields = dataclasses.fields(kind)
    if read.keys() != {"kind", "chain", *(one.name for one in fields)}:
        raise ValueError(f"it has other fields than a line of kind {kind.kind}")
    return kind(**{one.name: _field(one, read[one.name]) for one in fields})


def _field(one: dataclasses.Field[Any], value: Any) -> Any:
    try:
        return one.metadata["form"].read(value)
    except ValueError:
        raise ValueError(f"its field {one.name} is not what it must be") from None


def _why(error: ValueError | RecursionError) -> str:
    known = type(error) is ValueError and str(error).startswith("it")  # others could quote the line
    return str(error) if known else "it is no line of a transcript"
