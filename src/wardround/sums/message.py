"""Asks, totals and snapshots as bytes: what a record keeps and what an engine sends."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from wardround.errors import RemoteProtocolError
from wardround.sums.contribution import Contribution, Layout
from wardround.sums.parameters import pack, read_head, read_tensors, unpack, write_message
from wardround.sums.vocabulary import Vocabulary
from wardround.sums.workflow import Ask, Snapshot, Total


def pack_ask(ask: Ask[Any]) -> bytes:
    """An ask: the function's id and its arguments."""
    return pack(ask.function.parameters.adapter, dict(ask.arguments), {"function": ask.function.function_id})


def unpack_ask(message: bytes, vocabulary: Vocabulary) -> Ask[Any]:
    """The inverse of `pack_ask`; the function is resolved from what is installed here.

    Raises:
        ConfigError: the function is not in the vocabulary.
        RemoteProtocolError: the message is malformed.
    """
    head = read_head(message)
    if not isinstance(head.get("function"), str):
        raise RemoteProtocolError("malformed message: an ask must name its function")
    function = vocabulary.function(head["function"])
    arguments = unpack(function.parameters.adapter, message)
    try:
        return Ask(function, function.parameters.bind((), arguments))
    except TypeError as error:
        raise RemoteProtocolError("malformed message: arguments do not fit the function") from error


def pack_total(total: Total[Any]) -> bytes:
    """A total: each field's sum, and the sites in it."""
    tensors = {name: np.atleast_1d(np.asarray(getattr(total.sum, name))) for name in total.sum.declarations}
    return write_message(tensors, {"sites": total.sites})


def unpack_total(message: bytes, layout: Layout) -> Total[Any]:
    """The inverse of `pack_total` for an ask of this layout.

    Raises:
        RemoteProtocolError: the message is malformed or has another layout.
    """
    head, tensors = read_head(message), read_tensors(message)
    try:
        sites = TypeAdapter(tuple[str, ...]).validate_python(head["sites"])
        fields = (*layout.exact, *layout.people, *layout.bounded)
        values = {}
        for field in fields:
            array = tensors[field.name].reshape(field.shape)
            values[field.name] = array if field.shape else array.item()
        _check_names(sorted(tensors), sorted(field.name for field in fields))
        sum_: Contribution = layout.contribution(**values)
        layout.flatten(sum_)
    except Exception as error:  # whatever a hostile message makes of it, it is malformed
        raise RemoteProtocolError(f"malformed total of {layout.contribution.__name__}") from error
    return Total(sum_, sites)


def _check_names(got: Sequence[str], expected: Sequence[str]) -> None:
    if got != expected:
        raise ValueError("fields")


def pack_snapshot(snapshot: Snapshot) -> bytes:
    """A snapshot's state, which must be a frozen dataclass."""
    if not dataclasses.is_dataclass(snapshot.state) or isinstance(snapshot.state, type):
        raise TypeError(f"a snapshot's state must be a dataclass, got {type(snapshot.state).__name__}")
    return pack(TypeAdapter(type(snapshot.state)), snapshot.state, {"state": type(snapshot.state).__qualname__})


def unpack_snapshot(message: bytes, state_type: type[Any]) -> Snapshot:
    """The inverse of `pack_snapshot`."""
    return Snapshot(unpack(TypeAdapter(state_type), message))
