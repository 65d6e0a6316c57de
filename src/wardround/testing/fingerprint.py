"""Whether two values are the same to the last bit, whatever they are made of."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Set
from typing import Any

import numpy as np
import pandas as pd


def fingerprint(value: Any) -> str:
    """SHA-256 of everything that a value holds, in hexadecimal: equal for equal contents, bit for bit.

    Goes through mappings, sequences, sets, arrays, pandas objects, dataclasses (their fields) and other objects
    (their attributes). NaN equals itself; 0.0 and -0.0 differ.

    Raises:
        ValueError: the value contains itself.
    """
    digest = hashlib.sha256()
    for part in _parts(value, ()):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any, path: tuple[int, ...]) -> Iterator[bytes]:
    if id(value) in path:
        raise ValueError(f"a {type(value).__name__} contains itself")
    yield type(value).__qualname__.encode()
    path = (*path, id(value))
    if isinstance(value, np.ndarray | np.generic):
        yield from _array_parts(np.asarray(value), path)
    elif isinstance(value, str | bytes | int | float | complex | type(None) | type):
        yield repr(value).encode("utf-8", "surrogatepass")
    else:
        for item in _items(value):
            yield from _parts(item, path)


def _array_parts(array: np.ndarray[Any, Any], path: tuple[int, ...]) -> Iterator[bytes]:
    yield f"{array.dtype.str}{array.shape}".encode()
    if array.dtype.kind == "O":
        for item in array.ravel().tolist():
            yield from _parts(item, path)
    else:
        yield array.tobytes()


def _items(value: Any) -> Iterator[Any]:
    if isinstance(value, pd.DataFrame):
        yield from (value.index.to_numpy(), tuple(value.columns), *(column.to_numpy() for _, column in value.items()))
    elif isinstance(value, pd.Series | pd.Index):
        yield from (value.name, value.to_numpy(), *([value.index.to_numpy()] if isinstance(value, pd.Series) else []))
    elif isinstance(value, Mapping):
        yield from ((key, item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        yield from value
    elif isinstance(value, Set):
        yield from sorted(map(fingerprint, value))
    elif dataclasses.is_dataclass(value):
        yield from ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    elif getattr(value, "__dict__", None):
        yield from vars(value).items()
    else:
        yield repr(value)
