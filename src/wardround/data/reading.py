"""A raw column of any pandas dtype as one of three plain forms, before anybody asks what it should hold.

Strings are trimmed and normalised to NFC; the empty one is missing. A time of day with a zone is converted to
UTC before its day is taken; one without is taken as it stands.
"""

from __future__ import annotations

import datetime as dt
import decimal
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

MAX_NUMBER_CHARACTERS = 400
"""Longest text that is read as a number (unit: characters)."""

_UNREADABLE = "\x00unreadable"
_LARGEST_EXACT = 2**53
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,9})?")
_NUMBER_CHARACTERS = re.compile(r"[0-9.+\-eE]*")
_SPACE = re.compile(r"\s")
_DATE = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)
_EPOCH = dt.date(1970, 1, 1).toordinal()
_FIRST_DAY, _LAST_DAY = dt.date.min.toordinal() - _EPOCH, dt.date.max.toordinal() - _EPOCH


@dataclass(frozen=True, slots=True, kw_only=True)
class Numeric:
    """Numbers or truth values as they are stored.

    Attributes:
        values: int64, uint64 or float64, shape (num_records,); truth values are 0 and 1.
        is_missing: shape (num_records,).
        is_boolean: whether they are truth values.
    """

    values: NDArray[Any]
    is_missing: NDArray[np.bool_]
    is_boolean: bool = False


@dataclass(frozen=True, slots=True)
class Days:
    """Days since 1970-01-01, float64, NaN where missing; shape (num_records,).

    Infinite where a moment is of no year from 1 to 9999, which ISO dates and Python's know.
    """

    days: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Texts by their distinct values.

    Attributes:
        codes: index of each row's text, -1 where missing; shape (num_records,).
        texts: the texts, clean and not empty; None stands for something that is neither text nor number.
        is_ordered: whether `texts` come from a Categorical, in its order.
    """

    codes: NDArray[np.intp]
    texts: tuple[str | None, ...]
    is_ordered: bool = False


Reading: TypeAlias = Numeric | Days | Texts


def read_column(column: pd.Series[Any]) -> Reading:
    """A column of any dtype as numbers, days or texts."""
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _read_categorical(column)
    if isinstance(dtype, pd.SparseDtype):
        return read_column(column.astype(dtype.subtype))
    if isinstance(dtype, pd.PeriodDtype):
        return _read_days(column.dt.to_timestamp())
    if dtype.kind == "M":
        return _read_days(column)
    if dtype.kind in "biuf":
        return _read_numeric(column)
    return _read_texts(column)


def clean_text(text: str) -> str:
    """NFC, without white space at its ends."""
    if text.isascii():
        return text.strip()
    return unicodedata.normalize("NFC", text).strip()


def number_of(text: str) -> float | None:
    """The number that a text writes, NaN for one that is too long; None where it writes none.

    Digits are ASCII, the decimal mark is a point, and there are no thousands' marks, so that "1,5" is none.
    """
    if len(text) > MAX_NUMBER_CHARACTERS or not _NUMBER.fullmatch(text):
        return None
    return float(text)


def plain_numbers(texts: Sequence[str | None]) -> NDArray[np.float64] | None:
    """What `number_of` makes of every text, much faster; None where one of them is not plainly a number."""
    words = [text for text in texts if text is not None]
    if len(words) < len(texts) or max(map(len, words), default=0) > MAX_NUMBER_CHARACTERS:
        return None
    # Of these characters alone, Python's float reads what `number_of` reads, and nothing else.
    if not _NUMBER_CHARACTERS.fullmatch("".join(words)):
        return None
    try:
        return np.fromiter(map(float, words), dtype=np.float64, count=len(words))
    except ValueError:
        return None


def number_text(number: float) -> str:
    """The shortest text of a number; 1.0 is "1"."""
    if number.is_integer() and abs(number) < _LARGEST_EXACT:
        return str(int(number))
    return repr(number)


def canonical_text(text: str) -> str:
    """One text for all ways to write a number ("1.0", "1e0" and "1" are "1"), other texts as they stand.

    Integers that a float64 cannot tell apart stand as they are.
    """
    number = number_of(text)
    return text if number is None or not abs(number) < _LARGEST_EXACT else number_text(number)


def day_of(text: str) -> float | None:
    """Days since 1970-01-01 of an ISO date or time ("2024-02-29", "2024-02-29T23:30:00+01:00"); None otherwise."""
    match = _DATE.fullmatch(text) if len(text) <= 40 else None
    if match is None:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
        if match[2]:
            moment = moment.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return None
    return float(moment.toordinal() - _EPOCH)


def day_text(day: float) -> str:
    """The ISO date of a number of days since 1970-01-01."""
    return dt.date.fromordinal(int(day) + _EPOCH).isoformat()


def _read_numeric(column: pd.Series[Any]) -> Numeric:
    dtype = column.dtype
    if isinstance(dtype, np.dtype):
        values = column.to_numpy()
        is_missing = np.isnan(values) if dtype.kind == "f" else np.zeros(len(values), dtype=bool)
    else:
        is_missing = column.isna().to_numpy(dtype=bool)
        wide = {"f": np.float64, "u": np.uint64}.get(dtype.kind, np.int64)
        zero: Any = False if dtype.kind == "b" else 0
        values = column.fillna(zero).to_numpy(dtype=wide)
        if dtype.kind == "f":
            is_missing = is_missing | np.isnan(values)
    if dtype.kind in "bf":
        values = values.astype(np.int64 if dtype.kind == "b" else np.float64)
    return Numeric(values=values, is_missing=is_missing, is_boolean=dtype.kind == "b")


def _read_days(column: pd.Series[Any]) -> Days:
    dtype = column.dtype
    zone = getattr(getattr(dtype, "pyarrow_dtype", dtype), "tz", None)
    if isinstance(dtype, pd.ArrowDtype):
        column = column.astype("datetime64[us]" if zone is None else "datetime64[us, UTC]")
    if zone is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    moments = column.to_numpy().astype("datetime64[D]")
    days = moments.astype(np.float64)
    days[(days < _FIRST_DAY) | (days > _LAST_DAY)] = np.inf
    days[np.isnat(moments)] = np.nan
    return Days(days)


def _read_categorical(column: pd.Series[Any]) -> Texts:
    labels = read_column(pd.Series(column.cat.categories))
    codes = column.cat.codes.to_numpy().astype(np.intp)
    if isinstance(labels, Texts):
        texts = tuple(labels.texts[code] if code >= 0 else "" for code in labels.codes)
    elif isinstance(labels, Days):
        texts = tuple(day_text(day) if np.isfinite(day) else None for day in labels.days)
    else:
        words = ("False", "True") if labels.is_boolean else ()
        texts = tuple(words[int(v)] if words else _plain_text(v) for v in labels.values)
    return _without_empty(codes, texts, is_ordered=True)


def _read_texts(column: pd.Series[Any]) -> Reading:
    values = column.to_numpy(dtype=object)
    kind = pd.api.types.infer_dtype(values, skipna=True)
    if kind == "boolean":
        is_missing = column.isna().to_numpy(dtype=bool)
        return Numeric(values=np.where(is_missing, 0, values).astype(np.int64), is_missing=is_missing, is_boolean=True)
    if kind not in ("string", "empty"):
        # Hashing would take 1, 1.0 and True for one value, and refuse lists.
        values = np.array([_plain_text(value) for value in values], dtype=object)
    codes, distinct = pd.factorize(values)
    joined = "".join(distinct)
    is_clean = joined.isascii() and "\x00" not in joined and not _SPACE.search(joined)
    texts = tuple(distinct) if is_clean else tuple(clean_text(t) if "\x00" not in t else None for t in distinct)
    return _without_empty(codes, texts)


def _without_empty(codes: NDArray[np.intp], texts: tuple[str | None, ...], is_ordered: bool = False) -> Texts:
    """Empty texts become missing; texts that became equal by cleaning stay apart, which nobody minds."""
    if "" not in texts:
        return Texts(codes=codes, texts=texts, is_ordered=is_ordered)
    kept = [index for index, text in enumerate(texts) if text != ""]
    renumbered = np.full(len(texts) + 1, -1, dtype=np.intp)
    renumbered[kept] = np.arange(len(kept))
    return Texts(codes=renumbered[codes], texts=tuple(texts[index] for index in kept), is_ordered=is_ordered)


def _plain_text(value: Any) -> str | None:
    """One cell of a column of mixed objects; None where missing."""
    for types, text_of in _PLAIN_TEXTS:
        if isinstance(value, types):
            return text_of(value)
    return None if value is None or value is pd.NA or value is pd.NaT else _UNREADABLE


def _float_text(value: Any) -> str | None:
    return None if np.isnan(value) else number_text(float(value))


def _int_text(value: Any) -> str:
    # Python refuses to print integers of thousands of digits.
    return str(int(value)) if int(value).bit_length() < 1000 else _UNREADABLE


def _decimal_text(value: decimal.Decimal) -> str | None:
    if value.is_nan():
        return None
    text = str(value)
    number = number_of(text)
    return text if number is None else number_text(number) if abs(number) < _LARGEST_EXACT else text


def _bytes_text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return _UNREADABLE


def _moment_text(value: Any) -> str | None:
    if value is pd.NaT:
        return None
    try:
        return str((value.astimezone(dt.UTC) if value.tzinfo else value).isoformat())
    except OverflowError:
        return _UNREADABLE


def _numpy_moment_text(value: np.datetime64) -> str | None:
    return None if np.isnat(value) else str(value.astype("datetime64[D]"))


# The first that fits counts: a truth value is an int to Python, a datetime is a date, NaT is a datetime.
_PLAIN_TEXTS: tuple[tuple[Any, Callable[[Any], str | None]], ...] = (
    (str, lambda value: cast(str, value)),
    ((bool, np.bool_), lambda value: "True" if value else "False"),
    ((int, np.integer), _int_text),
    ((float, np.floating), _float_text),
    (decimal.Decimal, _decimal_text),
    (bytes, _bytes_text),
    (dt.datetime, _moment_text),
    (dt.date, lambda value: str(value.isoformat())),
    (np.datetime64, _numpy_moment_text),
)
