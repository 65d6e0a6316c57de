"""A reading as values of a variable, with masks of what breaks which rule of the contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.data.contract import Variable
from wardround.data.reading import (
    Days,
    Numeric,
    Reading,
    Texts,
    canonical_text,
    clean_text,
    day_of,
    day_text,
    number_of,
    number_text,
    plain_numbers,
)
from wardround.data.report import Rule
from wardround.data.table import Codes, Numbers

Mask = NDArray[np.bool_]
Broken = list[tuple[Rule, Mask]]

_LARGEST_EXACT = 2**53
_MISSING = -1
_WRONG = -2
_TRUTH = {"false": 0, "no": 0, "0": 0, "true": 1, "yes": 1, "1": 1}


@dataclass(frozen=True, slots=True)
class MissingCodes:
    """Codes that stand for a missing value, as texts and as numbers: -9 is met by -9, -9.0, "-9" and "-9.0"."""

    texts: frozenset[str]
    numbers: frozenset[float]

    @classmethod
    def of(cls, variable: Variable) -> MissingCodes:
        """The codes of a variable."""
        texts = [clean_text(code) if isinstance(code, str) else number_text(float(code)) for code in variable.missing]
        numbers = [number_of(text) for text in texts]
        return cls(
            frozenset(canonical_text(text) for text in texts),
            frozenset(number for number in numbers if number is not None),
        )

    def has(self, text: str) -> bool:
        """Whether a text is one of them, as it stands or as a number."""
        return bool(self.texts) and (text in self.texts or canonical_text(text) in self.texts)

    def among(self, numbers: NDArray[np.float64]) -> Mask:
        """Which numbers are among them."""
        return np.isin(numbers, list(self.numbers)) if self.numbers else np.zeros(len(numbers), dtype=bool)


def values_of(reading: Reading, variable: Variable) -> tuple[Numbers | Codes, Broken]:
    """A column's values, missing where the raw value is missing or breaks a rule, and which rows break which.

    Returns:
        float64 or int32 of shape (num_records,) as `Table.columns` holds them; the rules that are broken, each
        with a mask of shape (num_records,).
    """
    if variable.category_levels is not None:
        return _codes(reading, variable)
    if variable.type == "date":
        return _ranged(*_days(reading, MissingCodes.of(variable)), variable)
    return _ranged(*_numbers(reading, MissingCodes.of(variable)), variable)


def is_present(reading: Reading, missing: MissingCodes) -> Mask:
    """Which rows hold something; shape (num_records,)."""
    if isinstance(reading, Days):
        return ~np.isnan(reading.days)
    if isinstance(reading, Numeric):
        return ~(reading.is_missing | missing.among(reading.values.astype(np.float64)))
    if not missing.texts:
        return reading.codes >= 0
    present = [text is None or not missing.has(text) for text in reading.texts]
    return np.array([*present, False])[reading.codes]


def _ranged(values: Numbers, is_wrong: Mask, variable: Variable) -> tuple[Numbers, Broken]:
    """Numbers or days against the variable's type and range."""
    broken: Broken = [("wrong type", is_wrong)]
    if variable.type == "integer":
        with np.errstate(invalid="ignore"):
            is_fraction = (values != np.floor(values)) & ~np.isnan(values)
            broken[0] = ("wrong type", is_wrong | (np.abs(values) > _LARGEST_EXACT))
        broken.append(("not an integer", is_fraction))
    if variable.range is not None:
        low, high = variable.range
        broken.append(("out of range", (values < low) | (values > high)))
    broken = [(rule, mask) for rule, mask in broken if mask.any()]
    for _, mask in broken:
        values[mask] = np.nan
    return values, broken


def _numbers(reading: Reading, missing: MissingCodes) -> tuple[Numbers, Mask]:
    """A fresh float64 array, NaN where missing or wrong; and where wrong."""
    if isinstance(reading, Days):
        return np.full(len(reading.days), np.nan), ~np.isnan(reading.days)
    if isinstance(reading, Numeric):
        values = reading.values.astype(np.float64)
        is_missing = reading.is_missing | missing.among(values)
        is_wrong = ~np.isfinite(values) & ~is_missing
        values[is_missing | is_wrong] = np.nan
        return values, is_wrong
    return _plain_numbers(reading, missing) or _by_text(reading, missing, number_of)


def _plain_numbers(reading: Texts, missing: MissingCodes) -> tuple[Numbers, Mask] | None:
    """As `_by_text` with `number_of`, where all texts are plainly numbers."""
    numbers = plain_numbers(reading.texts)
    if numbers is None:
        return None
    is_missing = missing.among(numbers)
    is_wrong = ~np.isfinite(numbers) & ~is_missing
    numbers[is_missing | is_wrong] = np.nan
    return np.append(numbers, np.nan)[reading.codes], np.append(is_wrong, False)[reading.codes]


def _days(reading: Reading, missing: MissingCodes) -> tuple[Numbers, Mask]:
    if isinstance(reading, Days):
        is_wrong = np.isinf(reading.days)
        return np.where(is_wrong, np.nan, reading.days), is_wrong
    if isinstance(reading, Numeric):
        is_missing = reading.is_missing | missing.among(reading.values.astype(np.float64))
        return np.full(len(is_missing), np.nan), ~is_missing
    return _by_text(reading, missing, day_of)


def _by_text(reading: Texts, missing: MissingCodes, parse: Callable[[str], float | None]) -> tuple[Numbers, Mask]:
    """Parse each distinct text once."""
    values = np.full(len(reading.texts) + 1, np.nan)
    is_wrong = np.zeros(len(reading.texts) + 1, dtype=bool)
    for index, text in enumerate(reading.texts):
        if text is not None and missing.has(text):
            continue
        value = None if text is None else parse(text)
        is_wrong[index] = value is None or not np.isfinite(value)
        values[index] = np.nan if is_wrong[index] or value is None else value
    return values[reading.codes], is_wrong[reading.codes]


def _codes(reading: Reading, variable: Variable) -> tuple[Codes, Broken]:
    """Indices into the levels, -1 where missing or unknown."""
    distinct, positions = _distinct_texts(reading)
    code_of = _truth_code if variable.type == "boolean" else _level_code(variable.category_levels or ())
    missing = MissingCodes.of(variable)
    codes = [_WRONG if t is None else _MISSING if missing.has(t) else code_of(t) for t in distinct]
    values = np.array([*codes, _MISSING], dtype=np.int32)[positions]
    is_wrong = values == _WRONG
    if not is_wrong.any():
        return values, []
    values[is_wrong] = _MISSING
    return values, [("wrong type" if variable.type == "boolean" else "unknown level", is_wrong)]


def _distinct_texts(reading: Reading) -> tuple[Sequence[str | None], NDArray[np.intp]]:
    """The distinct values as texts and each row's position among them, -1 where missing."""
    if isinstance(reading, Texts):
        return reading.texts, reading.codes
    is_missing = np.isnan(reading.days) if isinstance(reading, Days) else reading.is_missing
    raw = reading.days if isinstance(reading, Days) else reading.values
    distinct, inverse = np.unique(raw[~is_missing], return_inverse=True)
    positions = np.full(len(raw), -1, dtype=np.intp)
    positions[~is_missing] = inverse
    if isinstance(reading, Days):
        return [day_text(day) if np.isfinite(day) else None for day in distinct], positions
    if reading.is_boolean:
        return ["True" if value else "False" for value in distinct], positions
    return [str(value) if distinct.dtype.kind in "iu" else number_text(float(value)) for value in distinct], positions


def _truth_code(text: str) -> int:
    number = number_of(text)
    return _TRUTH.get(text.lower() if number is None else number_text(number), _WRONG)


def _level_code(levels: tuple[str, ...]) -> Callable[[str], int]:
    """How a text finds its level: as it stands, else as a number ("1.0" is the level "1")."""
    codes = {text: code for code, text in enumerate(levels)} | {canonical_text(t): c for c, t in enumerate(levels)}

    def code(text: str) -> int:
        found = codes.get(text)
        return codes.get(canonical_text(text), _WRONG) if found is None else found

    return code
