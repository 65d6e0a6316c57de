"""The machines' states as bytes, so that either side may be stopped at any moment and started again.

A state holds keys and shares: whoever keeps its bytes keeps secrets.
"""

from __future__ import annotations

import base64
import contextlib
from functools import lru_cache
from typing import Annotated, Any, TypeVar

import pydantic
from pydantic import PlainSerializer, PlainValidator, TypeAdapter

from wardround.errors import MessageRefusedError, StoreError
from wardround.privacy.secagg.manifest import Manifest
from wardround.privacy.secagg.wire import DIGEST_BYTES, digest

T = TypeVar("T")
_SUM_BYTES = 2 * DIGEST_BYTES + 1


def _octets_from(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("must be base64 text")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        raise ValueError("must be base64 text") from None


def _octets_to(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _manifest_from(value: Any) -> Manifest:
    try:
        return value if isinstance(value, Manifest) else Manifest.from_bytes(_octets_from(value))
    except MessageRefusedError as error:
        raise ValueError(str(error)) from None


Octets = Annotated[bytes, PlainValidator(_octets_from), PlainSerializer(_octets_to, when_used="json")]
"""Bytes of a state."""
StoredManifest = Annotated[
    Manifest,
    PlainValidator(_manifest_from),
    PlainSerializer(lambda manifest: _octets_to(manifest.to_bytes()), when_used="json"),
]
"""The manifest of a state."""


def pack_state(state: object) -> bytes:
    """A machine's state as bytes: a line with their digest, then JSON."""
    kind = type(state)
    body = _adapter(kind).dump_json(state)  # type: ignore[arg-type]  # a class is hashable
    return _sum_of(kind, body) + body


def unpack_state(kind: type[T], stored: bytes) -> T:
    """The inverse of `pack_state`.

    Raises:
        StoreError: the bytes are not such a state.

    Guarantees:
        damage_is_found: no altered byte is read; with another key a site's masks would not cancel, unseen.
        damage_shows_no_key: the error holds nothing of what was stored.
    """
    sum_, body = stored[:_SUM_BYTES], stored[_SUM_BYTES:]
    if sum_ == _sum_of(kind, body):
        # What pydantic says of a misfit could show a key: it is not even hung on to the error.
        with contextlib.suppress(pydantic.ValidationError):
            state: T = _adapter(kind).validate_json(body)  # type: ignore[arg-type]  # a class is hashable
            return state
    raise StoreError(f"the stored {kind.__name__} of a secure sum is damaged; restore it from a copy")


def _sum_of(kind: type[Any], body: bytes) -> bytes:
    return digest("state", kind.__name__.encode(), body).hex().encode() + b"\n"


@lru_cache(maxsize=16)
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
