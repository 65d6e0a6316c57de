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
from wardround.sums.contribution import FieldLayout, Layout
from wardround.sums.parameters import pack, read_head, read_tensors, unpack, write_message
from wardround.sums.vocabulary import Vocabulary
from wardround.sums.workflow import Ask, Snapshot, Total

_SITES: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[str, ...])
_MAX_NAME = 200
"""Longest name of a function that is looked up (unit: characters)."""


def _adapter_of(kind: type[Any]) -> TypeAdapter[Any]:
    return _cached_adapter(kind)  # type: ignore[arg-type]  # a class is hashable


@lru_cache(maxsize=64)
def _cached_adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def pack_ask(ask: Ask[Any]) -> bytes:
    """An ask: the function's id and its arguments."""
    return pack(ask.function.parameters.adapter, dict(ask.arguments), {"function": ask.function.function_id})


def unpack_ask(message: bytes, vocabulary: Vocabulary) -> Ask[Any]:
    """The inverse of `pack_ask`; the function is resolved from what is installed here.

    Raises:
        ConfigError: the function is not in the vocabulary.
        RemoteProtocolError: the message is malformed.
    """
    name = read_head(message).get("function")
    if not isinstance(name, str) or len(name) > _MAX_NAME:
        raise RemoteProtocolError("malformed message: an ask must name its function")
    function = vocabulary.function(name)
    arguments = unpack(function.parameters.adapter, message)
    ask = Ask(function, function.parameters.bind((), arguments))
    try:
        _ = ask.layout
    except Exception as error:  # the function's own `symbols` may raise anything on arguments it does not expect
        raise RemoteProtocolError(f"malformed message: {name} cannot answer with these arguments") from error
    return ask


def pack_total(total: Total[Any]) -> bytes:
    """A total: each field's sum, and the sites in it."""
    tensors = {name: np.asarray(getattr(total.sum, name)) for name in total.sum.declarations}
    return write_message(tensors, {"sites": total.sites})


def unpack_total(message: bytes, layout: Layout) -> Total[Any]:
    """The inverse of `pack_total` for an ask of this layout.

    Raises:
        RemoteProtocolError: the message is malformed or has another layout.
    """
    head, tensors = read_head(message), read_tensors(message)
    where = f"malformed total of {layout.contribution.__name__}"
    reals, counts = (*layout.exact, *layout.bounded), layout.people
    if set(tensors) != {field.name for field in (*reals, *counts)}:
        raise RemoteProtocolError(f"{where}: it must hold the declared fields and no other")
    values = {field.name: _field(tensors[field.name], field, np.float64, where) for field in reals}
    values |= {field.name: _field(tensors[field.name], field, np.int64, where) for field in counts}
    sum_ = layout.contribution(**values)
    try:
        check_values(layout.flatten(sum_), layout, num_sites=1)
        sites = _SITES.validate_python(head.get("sites"))
    except (ContributionError, pydantic.ValidationError) as error:
        raise RemoteProtocolError(where) from error
    if len(set(sites)) != len(sites):
        raise RemoteProtocolError(f"{where}: it names a site twice")
    return Total(sum_, sites)


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
