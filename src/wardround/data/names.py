"""Names of columns and sites: normalised to NFC, trimmed, bounded, without control characters."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from wardround.data.reading import clean_text
from wardround.errors import ConfigError, DataError

MAX_NAME_CHARACTERS = 256
"""Longest name of a column, site or level (unit: characters)."""


def column_name(label: Any) -> str:
    """A frame's column label as a name; a number as its digits."""
    return clean_text(str(label))


def column_positions(labels: Iterable[Any], wanted: Collection[str] | None, site: str) -> dict[str, int]:
    """Where each wanted column is (all where `wanted` is None).

    Raises:
        DataError: two columns have one name.
    """
    names = [column_name(label) for label in labels]
    counts = Counter(names)
    is_wanted = counts if wanted is None else wanted
    twice = sorted(name for name, count in counts.items() if count > 1 and name in is_wanted)
    if twice:
        raise DataError(f"site {site!r}: two columns are named {twice[0]!r}; rename one of them")
    return {name: position for position, name in enumerate(names) if name in is_wanted}


def checked_name(name: str, where: str) -> str:
    """A name in NFC.

    Raises:
        ConfigError: empty, too long, or with control characters.
    """
    name = clean_text(name)
    if not name:
        raise ConfigError(f"{where}: a name must not be empty")
    if len(name) > MAX_NAME_CHARACTERS:
        raise ConfigError(f"{where}: a name has at most {MAX_NAME_CHARACTERS} characters, this has {len(name)}")
    if has_control_characters(name):
        raise ConfigError(f"{where}: a name must not hold control characters, line ends or invisible marks")
    return name


def has_control_characters(text: str) -> bool:
    """Whether a text holds control, format, surrogate or line-separating characters."""
    return any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in text)
