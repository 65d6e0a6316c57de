"""Numbering a site's patients over chunks, without keeping their identifiers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wardround.data.reading import Days, Numeric, Reading, number_of, number_text

_KEYS = ("wardround-first-", "wardround-second")  # pandas wants 16 characters


class PatientNumbers:
    """Tells patients apart by 128 bits of hash of their identifiers.

    16 bytes a record are kept, however long the identifiers are. Two of 10^8 patients get one hash with a
    probability under 10^-22. The hashes never leave this object.
    """

    def __init__(self) -> None:
        self._hashes: list[NDArray[np.uint64]] = []

    def add(self, reading: Reading) -> None:
        """The identifiers of the next rows; 1, 1.0 and "1" are one identifier. Missing ones are one patient."""
        if isinstance(reading, Numeric) and not reading.is_boolean:
            texts, positions = _number_texts(reading)
        elif isinstance(reading, Numeric | Days):
            values = reading.days if isinstance(reading, Days) else reading.values
            positions, distinct = pd.factorize(values)
            texts = [f"d{value}" for value in distinct]
        else:
            texts, positions = [_canonical(text) for text in reading.texts], reading.codes
        words = np.array([*texts, ""], dtype=object)
        hashes = np.empty((len(positions), 2), dtype=np.uint64)
        for column, key in enumerate(_KEYS):
            hashes[:, column] = pd.util.hash_array(words, hash_key=key, categorize=False)[positions]
        self._hashes.append(hashes)

    def finish(self) -> tuple[NDArray[np.int64], int]:
        """Each record's patient, int64 in [0, num_patients), shape (num_records,); and num_patients."""
        if not self._hashes:
            return np.empty(0, dtype=np.int64), 0
        hashes = np.concatenate(self._hashes)
        self._hashes.clear()
        order = np.lexsort((hashes[:, 1], hashes[:, 0]))
        is_new = np.ones(len(order), dtype=bool)
        is_new[1:] = np.any(hashes[order[1:]] != hashes[order[:-1]], axis=1)
        index = np.empty(len(order), dtype=np.int64)
        index[order] = np.cumsum(is_new) - 1
        return index, int(is_new.sum())


def _canonical(text: str | None) -> str:
    number = number_of(text) if text is not None else None
    # Only what surely is the same number: "007" and "7" may be two patients.
    return number_text(number) if number is not None and text == f"{number_text(number)}.0" else text or ""


def _number_texts(reading: Numeric) -> tuple[list[str], NDArray[np.intp]]:
    positions, distinct = pd.factorize(reading.values)
    positions = np.where(reading.is_missing, -1, positions)
    is_whole = distinct.dtype.kind in "iu"
    return [str(value) if is_whole else number_text(float(value)) for value in distinct], positions
