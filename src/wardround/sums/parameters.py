"""The typed parameters of a function, read from its signature: bound, validated, and turned into bytes and back.

Site functions and workflows are plain functions; what they may be sent is what their annotations say, and
anything else is refused before they run. Arrays travel as safetensors, the rest as JSON in its header.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired, Required, cast

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import PlainSerializer, PlainValidator, SerializationInfo, TypeAdapter, ValidationInfo
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from wardround.errors import ConfigError, RemoteProtocolError

MAX_MESSAGE_BYTES = 2**30
"""Largest message that is parsed (unit: bytes)."""

_ARRAY_KEY = "$array"
_FORMAT = "wardround-message-1"
_METADATA_KEY = "wardround"


def _array_from(value: Any, info: ValidationInfo) -> NDArray[np.float64]:
    if isinstance(value, dict) and set(value) == {_ARRAY_KEY}:
        tensors = (info.context or {}).get("tensors", {})
        if value[_ARRAY_KEY] not in tensors:
            raise ValueError("refers to an array that the message does not hold")
        value = tensors[value[_ARRAY_KEY]]
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"must be an array of real numbers, got {array.dtype}")
    return array.astype(np.float64, copy=False)


def _array_to(value: NDArray[np.float64], info: SerializationInfo) -> Any:
    if info.context is None:
        return value.tolist()
    tensors = info.context["tensors"]
    name = f"a{len(tensors)}"
    tensors[name] = np.ascontiguousarray(value)
    return {_ARRAY_KEY: name}


Array = Annotated[NDArray[np.float64], PlainValidator(_array_from), PlainSerializer(_array_to)]
"""A float64 array in the parameters of a site function or in a workflow's snapshot."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a function after its first `num_given` positional ones (the data, the setting)."""

    signature: inspect.Signature
    adapter: TypeAdapter[dict[str, Any]]

    @classmethod
    def of(cls, function: Callable[..., Any], num_given: int, without: frozenset[str] = frozenset()) -> Parameters:
        """Read the parameters of `function`, leaving out the first `num_given` and those named in `without`.

        Raises:
            TypeError: a parameter has no annotation, or the function takes *args or **kwargs.
        """
        signature = inspect.signature(function)
        hints = typing.get_type_hints(function, include_extras=True)
        kept = [p for p in list(signature.parameters.values())[num_given:] if p.name not in without]
        fields: dict[str, Any] = {}
        for parameter in kept:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise TypeError(f"{function.__qualname__} may not take *{parameter.name}: name each parameter")
            if parameter.name not in hints:
                raise TypeError(f"{function.__qualname__}: parameter {parameter.name} needs a type annotation")
            hint = hints[parameter.name]
            has_default = parameter.default is not parameter.empty
            fields[parameter.name] = NotRequired[hint] if has_default else Required[hint]
        config = pydantic.ConfigDict(extra="forbid", arbitrary_types_allowed=False)
        arguments = TypedDict("Arguments", fields)  # type: ignore[misc]  # built from a signature
        arguments.__pydantic_config__ = config  # type: ignore[attr-defined]
        return cls(signature.replace(parameters=kept), TypeAdapter(cast(Any, arguments)))

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters' names in order."""
        return tuple(self.signature.parameters)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by name, defaults filled in. Raises `TypeError` as a call would."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    def validate(self, given: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Check values that came from outside against the annotations.

        Raises:
            ConfigError: unknown, missing or ill-typed parameters; names the place and the remedy.
        """
        try:
            return self.bind((), self.adapter.validate_python(dict(given)))
        except pydantic.ValidationError as error:
            raise ConfigError(explain(error, where, self.names)) from None

    def to_json(self, arguments: Mapping[str, Any]) -> Any:
        """The arguments as JSON values (arrays as lists), for people and for digests of small things."""
        return self.adapter.dump_python(dict(arguments), mode="json")


def explain(error: pydantic.ValidationError, where: str, known: tuple[str, ...] = ()) -> str:
    """A validation error in words: the place, what is wrong, what to write instead."""
    lines = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        path = ".".join(str(part) for part in item["loc"])
        place = f"{where}.{path}" if path else where
        if item["type"] == "extra_forbidden":
            close = difflib.get_close_matches(path, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}" if known else ""
            lines.append(f"{place}: unknown key; {hint}" if hint else f"{place}: unknown key")
        elif item["type"] == "missing":
            lines.append(f"{place}: missing; add it")
        else:
            lines.append(f"{place}: {item['msg']}")
    return "\n".join(lines)


def write_message(tensors: Mapping[str, NDArray[Any]], head: Mapping[str, Any]) -> bytes:
    """Arrays and a JSON header as one safetensors message; equal values give equal bytes."""
    # One key only: the order in which safetensors writes several is not fixed.
    metadata = {_METADATA_KEY: json.dumps({**head, "format": _FORMAT}, ensure_ascii=False, sort_keys=True)}
    message: bytes = save_tensors(dict(tensors), metadata=metadata)
    return message


def read_head(message: bytes) -> dict[str, Any]:
    """The message's header.

    Raises:
        RemoteProtocolError: not a message of this format, or larger than `MAX_MESSAGE_BYTES`.
    """
    if len(message) > MAX_MESSAGE_BYTES:
        raise RemoteProtocolError(f"a message of {len(message)} bytes is over the limit of {MAX_MESSAGE_BYTES} bytes")
    try:
        length = int.from_bytes(message[:8], "little")
        if len(message) < 8 or length > len(message) - 8:
            raise ValueError("header length")
        head = json.loads(json.loads(message[8 : 8 + length])["__metadata__"][_METADATA_KEY])
        if head["format"] != _FORMAT:
            raise ValueError("format")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RemoteProtocolError("not a Wardround message: its header cannot be read") from error
    return dict(head)


def read_tensors(message: bytes) -> dict[str, NDArray[Any]]:
    """The message's arrays.

    Raises:
        RemoteProtocolError: they are malformed.
    """
    try:
        tensors: dict[str, NDArray[Any]] = load_tensors(message)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise RemoteProtocolError("malformed message: its arrays cannot be read") from error
    return tensors


def pack(adapter: TypeAdapter[Any], value: Any, head: Mapping[str, str]) -> bytes:
    """A value as one message; `head` is kept beside it, readable without the value's schema."""
    tensors: dict[str, NDArray[Any]] = {}
    body = adapter.dump_python(value, mode="json", context={"tensors": tensors})
    return write_message(tensors, {**head, "body": body})


def unpack(adapter: TypeAdapter[Any], message: bytes) -> Any:
    """The inverse of `pack`; validates everything.

    Raises:
        RemoteProtocolError: the message is malformed or does not fit the schema.
    """
    head, tensors = read_head(message), read_tensors(message)
    try:
        return adapter.validate_python(head.get("body"), context={"tensors": tensors})
    except pydantic.ValidationError as error:
        raise RemoteProtocolError(f"malformed message: {explain(error, 'body')}") from None


def digest(message: bytes) -> str:
    """SHA-256 of a message, in hexadecimal."""
    return hashlib.sha256(message).hexdigest()
