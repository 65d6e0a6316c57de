"""Asks, totals and snapshots as bytes: what a record keeps and what an engine sends."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import TypeAdapter

from wardround.errors import ContributionError, RemoteProtocolError
from wardround.sums.accumulator import check_values
from wardround.sums.contribution import Contribution, FieldLayout, Layout
from wardround.sums.parameters import pack, read_head, read_tensors, unpack, write_message
from wardround.sums.vocabulary import Vocabulary
from wardround.sums.workflow import Ask, Snapshot, Total

_SITES: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[str, ...])
_PARTS: TypeAdapter[tuple[tuple[str, ...], ...]] = TypeAdapter(tuple[tuple[str, ...], ...])
_MAX_NAME = 200
"""Longest name of a function that is looked up (unit: characters)."""
_CLEAR = "each"
"""What the header of a clear ask says that its answer shows: each contribution."""


def _adapter_of(kind: type[Any]) -> TypeAdapter[Any]:
    return _cached_adapter(kind)  # type: ignore[arg-type]  # a class is hashable


@lru_cache(maxsize=64)
def _cached_adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def pack_ask(ask: Ask[Any]) -> bytes:
    """An ask: the function's id and its arguments, and whether it is clear."""
    head = {"function": ask.function.function_id} | ({"shown": _CLEAR} if ask.is_clear else {})
    return pack(ask.function.parameters.adapter, dict(ask.arguments), head)


def unpack_ask(message: bytes, vocabulary: Vocabulary) -> Ask[Any]:
    """The inverse of `pack_ask`; the function is resolved from what is installed here.

    Raises:
        ConfigError: the function is not in the vocabulary.
        RemoteProtocolError: the message is malformed.
    """
    head = read_head(message)
    name = head.get("function")
    if not isinstance(name, str) or len(name) > _MAX_NAME:
        raise RemoteProtocolError("malformed message: an ask must name its function")
    if "shown" in head and head["shown"] != _CLEAR:
        raise RemoteProtocolError(f'malformed message: what an ask shows is "{_CLEAR}" or left out')
    function = vocabulary.function(name)
    arguments = unpack(function.parameters.adapter, message)
    ask = Ask(function, function.parameters.bind((), arguments), is_clear="shown" in head)
    try:
        _ = ask.layout
    except Exception as error:  # the function's own `symbols` may raise anything on arguments it does not expect
        raise RemoteProtocolError(f"malformed message: {name} cannot answer with these arguments") from error
    return ask


def pack_total(total: Total[Any]) -> bytes:
    """A total: each field's sum, and the sites in it; after it the same of each of its parts."""
    tensors = _tensors(total, "")
    head: dict[str, Any] = {"sites": total.sites}
    if total.parts:
        head["parts"] = [part.sites for part in total.parts]
        for index, part in enumerate(total.parts):
            tensors |= _tensors(part, _prefix(index))
    return write_message(tensors, head)


def _tensors(total: Total[Any], prefix: str) -> dict[str, NDArray[Any]]:
    return {prefix + name: np.asarray(getattr(total.sum, name)) for name in total.sum.declarations}


def _prefix(index: int) -> str:
    """Of the names of a part's arrays; no field's name holds a dot."""
    return f"{index}."


def unpack_total(message: bytes, layout: Layout) -> Total[Any]:
    """The inverse of `pack_total` for an ask of this layout.

    Raises:
        RemoteProtocolError: the message is malformed or has another layout.
    """
    head, tensors = read_head(message), read_tensors(message)
    where = f"malformed total of {layout.contribution.__name__}"
    try:
        sites = _SITES.validate_python(head.get("sites"))
        parts = _PARTS.validate_python(head.get("parts", ()))
    except pydantic.ValidationError as error:
        raise RemoteProtocolError(where) from error
    if len(set(sites)) != len(sites):
        raise RemoteProtocolError(f"{where}: it names a site twice")
    if "parts" in head and (not parts or not all(parts) or [site for part in parts for site in part] != list(sites)):
        raise RemoteProtocolError(f"{where}: its parts must be over its sites, in the same order")
    prefixes = ["", *map(_prefix, range(len(parts)))]
    names = {field.name for field in (*layout.exact, *layout.bounded, *layout.people)}
    if set(tensors) != {prefix + name for prefix in prefixes for name in names}:
        raise RemoteProtocolError(f"{where}: it must hold the declared fields and no other")
    sums = [_sum(tensors, prefix, layout, where) for prefix in prefixes]
    return Total(sums[0], sites, tuple(Total(sum_, part) for sum_, part in zip(sums[1:], parts, strict=True)))


def _sum(tensors: dict[str, NDArray[Any]], prefix: str, layout: Layout, where: str) -> Contribution:
    reals = (*layout.exact, *layout.bounded)
    values = {field.name: _field(tensors[prefix + field.name], field, np.float64, where) for field in reals}
    values |= {field.name: _field(tensors[prefix + field.name], field, np.int64, where) for field in layout.people}
    sum_ = layout.contribution(**values)
    try:
        check_values(layout.flatten(sum_), layout, num_sites=1)
    except ContributionError as error:
        raise RemoteProtocolError(where) from error
    return sum_


def _field(array: NDArray[Any], field: FieldLayout, dtype: type[np.generic], where: str) -> Any:
    if array.dtype != dtype or array.shape != field.shape:
        raise RemoteProtocolError(
            f"{where}: {field.name} must be {np.dtype(dtype)} of shape {field.shape}, "
            f"got {array.dtype} of shape {array.shape}"
        )
    array.setflags(write=False)
    return array if field.shape else array.item()


def pack_snapshot(snapshot: Snapshot) -> bytes:
    """A snapshot's state. Raises `TypeError` unless it is a dataclass."""
    kind: type[Any] = type(snapshot.state)
    if not dataclasses.is_dataclass(kind):
        raise TypeError(f"a snapshot's state must be a dataclass, got {kind.__name__}")
    return pack(_adapter_of(kind), snapshot.state, {"state": type(snapshot.state).__qualname__})


def unpack_snapshot(message: bytes, state_type: type[Any]) -> Snapshot:
    """The inverse of `pack_snapshot`.

    Raises:
        RemoteProtocolError: the message is malformed, or of another state.
    """
    if read_head(message).get("state") != state_type.__qualname__:
        raise RemoteProtocolError(f"malformed message: it is not a snapshot of {state_type.__qualname__}")
    return Snapshot(unpack(_adapter_of(state_type), message))
