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

from wardround.errors import ConfigError, LocalProtocolError, RemoteProtocolError

MAX_MESSAGE_BYTES = 2**30
"""Largest message that is parsed (unit: bytes)."""
MAX_HEAD_BYTES = 2**24
"""Largest header of a message: all of it that is not arrays (unit: bytes)."""

_ARRAY_KEY = "$array"
_FORMAT = "wardround-message-1"
_METADATA_KEY = "wardround"
_MAX_SHOWN = 80
"""Characters of a key from outside that an error message shows."""


@dataclass(slots=True)
class _Attached:
    """The arrays of one message, and which of them its body has referred to."""

    tensors: Mapping[str, NDArray[Any]]
    used: set[str]

    def take(self, reference: dict[str, Any]) -> NDArray[Any]:
        name = reference[_ARRAY_KEY]
        if not isinstance(name, str) or name not in self.tensors:
            raise ValueError("refers to an array that the message does not hold")
        self.used.add(name)
        self.tensors[name].setflags(write=False)
        return self.tensors[name]


def _array_from(value: Any, info: ValidationInfo) -> NDArray[np.float64]:
    if isinstance(value, dict) and set(value) == {_ARRAY_KEY} and isinstance(info.context, _Attached):
        value = info.context.take(value)
    try:
        array = np.asarray(value)
    except (TypeError, OverflowError):
        raise ValueError("must be an array of real numbers") from None
    if array.dtype.kind not in "fiu":
        raise ValueError(f"must be an array of real numbers, got {array.dtype}")
    return frozen(array)


def frozen(array: NDArray[Any]) -> NDArray[np.float64]:
    """A float64 copy in C order that nobody can change; the array itself where it is that already.

    Who asks goes on computing in his own arrays, and one site may not change what the next one is sent.
    """
    if not (array.dtype == np.float64 and array.flags.c_contiguous and _is_immutable(array)):
        array = np.array(array, dtype=np.float64, order="C")
        array.setflags(write=False)
    return array


def _is_immutable(array: NDArray[Any]) -> bool:
    owner: Any = array
    while isinstance(owner, np.ndarray):
        if owner.flags.writeable:
            return False
        owner = owner.base
    return owner is None or isinstance(owner, bytes | memoryview)  # a message's arrays lie in a memoryview


def _array_to(value: NDArray[np.float64], info: SerializationInfo) -> Any:
    if info.context is None:
        return value.tolist()
    tensors = info.context["tensors"]
    name = f"a{len(tensors)}"
    tensors[name] = np.ascontiguousarray(value, dtype=np.float64)
    return {_ARRAY_KEY: name}


Array = Annotated[NDArray[np.float64], PlainValidator(_array_from), PlainSerializer(_array_to)]
"""A float64 array in the parameters of a site function or in a workflow's snapshot; read-only there."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a function after its first `num_given` positional ones (the data, the setting)."""

    signature: inspect.Signature
    adapter: TypeAdapter[dict[str, Any]]

    @classmethod
    def of(cls, function: Callable[..., Any], num_given: int, without: frozenset[str] = frozenset()) -> Parameters:
        """Read the parameters of `function`, leaving out the first `num_given` and those named in `without`.

        Raises:
            TypeError: a parameter has no annotation or cannot be given by name, or the function takes *args
                or **kwargs, or too few parameters.
        """
        signature = inspect.signature(function)
        hints = typing.get_type_hints(function, include_extras=True)
        if len(signature.parameters) < num_given:
            raise TypeError(f"{function.__qualname__} must take at least {num_given} positional parameters")
        kept = [p for p in list(signature.parameters.values())[num_given:] if p.name not in without]
        fields: dict[str, Any] = {}
        for parameter in kept:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise TypeError(f"{function.__qualname__} may not take *{parameter.name}: name each parameter")
            if parameter.kind is parameter.POSITIONAL_ONLY:
                raise TypeError(f"{function.__qualname__}: parameter {parameter.name} must be one that a name can give")
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

    def normalised(self, arguments: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Arguments as they will be after their travel: of the annotated types, arrays read-only.

        Raises:
            LocalProtocolError: they do not fit the annotations.
        """
        try:
            return self.adapter.validate_python(dict(arguments))
        except pydantic.ValidationError as error:
            raise LocalProtocolError(explain(error, where, self.names)) from None

    def to_json(self, arguments: Mapping[str, Any]) -> Any:
        """The arguments as JSON values (arrays as lists), for people and for digests of small things."""
        return self.adapter.dump_python(dict(arguments), mode="json")


def explain(error: pydantic.ValidationError, where: str, known: tuple[str, ...] = ()) -> str:
    """A validation error in words: the place, what is wrong, what to write instead."""
    lines = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        path = ".".join(str(part)[:_MAX_SHOWN] for part in item["loc"])
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
        RemoteProtocolError: not a message of this format, or larger than `MAX_MESSAGE_BYTES` or
            `MAX_HEAD_BYTES`.
    """
    if len(message) > MAX_MESSAGE_BYTES:
        raise RemoteProtocolError(f"a message of {len(message)} bytes is over the limit of {MAX_MESSAGE_BYTES} bytes")
    length = int.from_bytes(message[:8], "little")
    if len(message) < 8 or length > len(message) - 8:
        raise RemoteProtocolError("not a Wardround message: it is cut short")
    if length > MAX_HEAD_BYTES:
        raise RemoteProtocolError(f"a header of {length} bytes is over the limit of {MAX_HEAD_BYTES} bytes")
    try:
        head = read_json(read_json(message[8 : 8 + length])["__metadata__"][_METADATA_KEY])
        if head["format"] != _FORMAT:
            raise ValueError("format")
        return dict(head)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RemoteProtocolError("not a Wardround message: its header cannot be read") from error


def read_json(text: str | bytes) -> Any:
    """JSON from outside, in which no object has a key twice. Raises `ValueError` or `RecursionError`."""
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return unique


def read_tensors(message: bytes) -> dict[str, NDArray[Any]]:
    """The message's arrays, whose header `read_head` has accepted.

    Raises:
        RemoteProtocolError: they are malformed.
    """
    try:
        tensors: dict[str, NDArray[Any]] = load_tensors(message)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
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
    head, attached = read_head(message), _Attached(read_tensors(message), set())
    try:
        value = adapter.validate_python(head.get("body"), context=attached)
    except pydantic.ValidationError as error:
        raise RemoteProtocolError(f"malformed message: {explain(error, 'body')}") from None
    if attached.used != set(attached.tensors):
        raise RemoteProtocolError("malformed message: it holds arrays that its body does not refer to")
    return value


def digest(message: bytes) -> str:
    """SHA-256 of a message, in hexadecimal."""
    return hashlib.sha256(message).hexdigest()
