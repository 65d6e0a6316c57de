"""A contract inferred from the tables at hand: each site's columns are profiled chunk by chunk, then compared.

How a column gets its type: numbers are `integer` where all are whole (also when stored as floats because of
missing values), else `number`; True and False, as values or as text, are `boolean`, 0 and 1 stay integers; ISO
dates are `date`; other texts are `category` where few are distinct, else `text`, which is not analysed. Texts of
digits that begin with a zero are texts ("007"). `MISSING_TEXTS` are taken for missing values and listed so, and
so are `MISSING_WORDS` where they stand among numbers that measure something, or among dates.

What sites may disagree on: integer and number make number; boolean and integers of 0 and 1 make boolean; levels
are united. Anything else, a column that some site lacks, and texts that are mostly numbers are left out of the
contract with the reason, which an analysis that names the column is told.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from wardround.data.contract import Contract, Variable, VariableType
from wardround.data.names import MAX_NAME_CHARACTERS, column_positions, has_control_characters
from wardround.data.reading import Days, Reading, Texts, day_of, number_of, plain_numbers, read_column
from wardround.data.rounding import rounded_days, rounded_range
from wardround.errors import ConfigError
from wardround.privacy.disclosure import DEFAULT_MINIMUM_CELL, is_small

MAX_INFERRED_LEVELS = 50
"""Most distinct texts of a column that is taken for a category (unit: levels)."""

MAX_DECLARED_LEVELS = 10_000
"""Most levels that are taken over from a Categorical (unit: levels)."""

MISSING_TEXTS = frozenset({"NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "?", ".", "<NA>", "NaT"})
"""Texts that are taken for a missing value in any column."""

MISSING_WORDS = frozenset(
    (
        *("-", "--", "---", "*", "na", "n.a.", "nd", "n.d.", "none", "nil", "unk", "unknown", "missing", "not known"),
        *(
            "not done",
            "not available",
            "not applicable",
            "not measured",
            "not recorded",
            "no data",
            "#null!",
            "#value!",
        ),
    )
)
"""Texts (in small letters) that are a missing value among numbers or dates, and may be a level elsewhere."""

_FEW = 5  # so many distinct texts are a category in however small a table
_FEW_NUMBERS = 10  # so many distinct numbers may be codes of levels; more measure something
_MOST = 0.8  # this part of a column's distinct texts tells what it was meant to be
_MAX_LOOKED_AT = 1000  # of a chunk's distinct texts
_COMMA_NUMBER = re.compile(r"[+-]?[0-9]+,[0-9]+")
_KEY = re.compile(r"(^|[_\W])(patient|subject|person|participant|mrn|pid|usubjid)([_\W]?(id|nr|no|number|key))?$", re.I)

Kind: TypeAlias = Literal["integer", "number", "boolean", "date", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnProfile:
    """What a site's column holds, as far as a contract needs to know; grows by `+`.

    Attributes:
        kinds: kinds of its values.
        num_values: rows that are not missing.
        low, high: least and greatest number or day.
        counts: rows of each distinct text; None where there are too many, or none but numbers were seen.
        missing: texts that were taken for missing.
        words: texts of `MISSING_WORDS`; they are in `counts`, not in `kinds`.
        num_texts: distinct texts that were looked at, over the chunks; `num_numbers` of them are numbers, and
            `num_commas` numbers with a decimal comma.
        order: levels of a Categorical in its order.
    """

    kinds: frozenset[Kind] = frozenset()
    num_values: int = 0
    low: float = np.inf
    high: float = -np.inf
    counts: Mapping[str, int] | None = None
    missing: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()
    num_texts: int = 0
    num_numbers: int = 0
    num_commas: int = 0
    order: tuple[str, ...] | None = None

    def __add__(self, other: ColumnProfile) -> ColumnProfile:
        if not self.num_values or not other.num_values:
            full, empty = (self, other) if self.num_values else (other, self)
            return replace(full, missing=full.missing | empty.missing, order=full.order or empty.order)
        limit = MAX_DECLARED_LEVELS if self.order else MAX_INFERRED_LEVELS
        counts = None
        if self.counts is not None and other.counts is not None:
            counts = Counter(self.counts) + Counter(other.counts)
        return ColumnProfile(
            kinds=self.kinds | other.kinds,
            num_values=self.num_values + other.num_values,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            counts=counts if counts is not None and len(counts) <= limit else None,
            missing=self.missing | other.missing,
            words=self.words | other.words,
            num_texts=self.num_texts + other.num_texts,
            num_numbers=self.num_numbers + other.num_numbers,
            num_commas=self.num_commas + other.num_commas,
            order=self.order if self.order == other.order else None,
        )

    @property
    def type(self) -> VariableType | None:
        """The type of its values; None where all are missing."""
        if self.words and not self.words_are_missing:
            return "category" if self._has_few_texts else "text"
        if not self.kinds:
            return None
        if self.kinds <= {"integer", "number"}:
            return "number" if "number" in self.kinds else "integer"
        if self.kinds <= {"boolean", "integer"} and (self.kinds == {"boolean"} or self._holds_zero_and_one):
            return "boolean"
        if self.kinds == {"date"}:
            return "date"
        return "category" if self._has_few_texts else "text"

    @property
    def words_are_missing(self) -> bool:
        """Whether `words` stand among numbers that measure something, or among dates."""
        if not self.words or not self.kinds:
            return False
        return self.kinds == {"date"} or (self.kinds <= {"integer", "number"} and self._measures)

    @property
    def _measures(self) -> bool:
        """Whether numbers are too many, and too far apart, to be codes of levels."""
        num_others = MAX_INFERRED_LEVELS if self.counts is None else len(self.counts.keys() - self.words)
        is_wide = "number" in self.kinds or self.high - self.low > _FEW_NUMBERS
        return num_others > _FEW_NUMBERS and is_wide

    @property
    def has_decimal_commas(self) -> bool:
        """Whether its texts are mostly numbers, of which some have a comma."""
        num_either = self.num_numbers + self.num_commas
        return num_either > _FEW_NUMBERS and num_either >= _MOST * self.num_texts and 4 * self.num_commas > num_either

    @property
    def is_mostly_numbers(self) -> bool:
        """Whether most of its texts are numbers."""
        return self.num_numbers > _FEW_NUMBERS and self.num_numbers >= _MOST * self.num_texts

    @property
    def _holds_zero_and_one(self) -> bool:
        return self.low >= 0 and self.high <= 1

    @property
    def _has_few_texts(self) -> bool:
        if self.counts is None:
            return False
        is_few = len(self.counts) <= _FEW or 2 * len(self.counts) <= self.num_values or self.order is not None
        fits_contract = all(len(t) <= MAX_NAME_CHARACTERS and not has_control_characters(t) for t in self.counts)
        return is_few and fits_contract

    @property
    def levels(self) -> tuple[str, ...]:
        """Levels of a category that occur: in a Categorical's order, else sorted."""
        counts = self.counts or {}
        return tuple(level for level in self.order if level in counts) if self.order else tuple(sorted(counts))


SiteProfile: TypeAlias = dict[str, ColumnProfile]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """An inferred contract with what people should know of it.

    Attributes:
        contract: the contract.
        notes: what was left out, is empty or rare, and the assumptions.
        assumptions: how the tables were read, where one may read them otherwise.
        patient_columns: columns whose names look like a patient's identifier; suggested, not chosen.
    """

    contract: Contract
    notes: tuple[str, ...]
    assumptions: tuple[str, ...]
    patient_columns: tuple[str, ...]


def profile(frames: Iterable[pd.DataFrame], site: str) -> SiteProfile:
    """Profile a site's rows.

    Raises:
        DataError: two columns of one name.
    """
    profiles: SiteProfile = {}
    for frame in frames:
        for name, position in column_positions(frame.columns, None, site).items():
            found = profile_column(read_column(frame.iloc[:, position]))
            profiles[name] = profiles[name] + found if name in profiles else found
    return profiles


def infer_contract(sites: Mapping[str, SiteProfile], *, patient: str | None = None) -> Inference:
    """The contract that all sites' tables fit.

    Args:
        sites: by site, the profiles of its columns.
        patient: the column that tells patients apart; not made a variable.

    Raises:
        ConfigError: a site lacks the patient column, or the sites share no column.
    """
    lacking = [site for site, columns in sites.items() if patient is not None and patient not in columns]
    if lacking:
        raise ConfigError(f"patient: no column {patient!r} at {_sites(lacking)}; name a column that every site has")
    variables: list[Variable] = []
    left_out: dict[str, str] = {}
    odd: list[str] = []
    assumptions: list[str] = []
    for name in dict.fromkeys(name for columns in sites.values() for name in columns if name != patient):
        found = {site: columns[name] for site, columns in sites.items() if name in columns}
        reason = _reason_to_leave_out(name, found, {site: sites[site] for site in sites if site not in found})
        if reason:
            left_out[name] = reason
        else:
            total = _total(found)
            variables.append(_variable(name, total))
            odd += _notes_of_odd(name, total)
            assumptions += _assumptions(name, total)
    if not variables:
        raise ConfigError(_nothing_shared(sites, left_out))
    suggested = () if patient else tuple(variable.name for variable in variables if _KEY.search(variable.name))
    assumptions += [
        f'{name!r} may tell patients apart; if so, say patient = "{name}" (now each row is a patient)'
        for name in suggested
    ]
    missed = [f"{name!r} was left out: {reason}" for name, reason in left_out.items()]
    contract = Contract(variables=tuple(variables), patient=patient, is_inferred=True, left_out=tuple(left_out.items()))
    return Inference(
        contract=contract,
        notes=(*missed, *odd, *assumptions),
        assumptions=tuple(assumptions),
        patient_columns=suggested,
    )


def profile_column(reading: Reading) -> ColumnProfile:
    """Profile one column of one chunk."""
    if isinstance(reading, Texts):
        return _profile_texts(reading)
    if isinstance(reading, Days):
        return _profile_days(reading.days)
    values = reading.values[~reading.is_missing]
    if reading.is_boolean:
        counts = {"False": int((values == 0).sum()), "True": int((values == 1).sum())}
        counts = {text: count for text, count in counts.items() if count}
        return ColumnProfile(
            kinds=frozenset({"boolean"} if counts else ()), num_values=len(values), low=0, high=1, counts=counts
        )
    finite = values[np.isfinite(values)]
    is_whole = values.dtype.kind in "iu" or bool(np.all(finite == np.floor(finite)))
    fits = not len(finite) or max(abs(float(finite.min())), abs(float(finite.max()))) <= 2**53
    found = _profile_numbers(finite, "integer" if is_whole and fits else "number")
    # Infinity fits no type; the check of the table will say so.
    return replace(found, num_values=len(values), kinds=found.kinds or frozenset({"number"} if len(values) else ()))


def _profile_numbers(values: np.ndarray[Any, Any], kind: Kind) -> ColumnProfile:
    if not len(values):
        return ColumnProfile()
    kinds: frozenset[Kind] = frozenset({kind})
    return ColumnProfile(kinds=kinds, num_values=len(values), low=float(values.min()), high=float(values.max()))


def _profile_days(days: np.ndarray[Any, Any]) -> ColumnProfile:
    found = _profile_numbers(days[np.isfinite(days)], "date")
    num_values = int((~np.isnan(days)).sum())
    # Days of no year that there is are infinite; the check of the table will say so.
    return replace(found, num_values=num_values, kinds=frozenset({"date"} if num_values else ()))


def _profile_texts(reading: Texts) -> ColumnProfile:
    """Each distinct text is looked at once."""
    rows = np.bincount(reading.codes + 1, minlength=len(reading.texts) + 1)[1:]
    held: Counter[str] = Counter()
    missing: set[str] = set()
    for text, count in zip(reading.texts, rows, strict=True):
        word = "\ufffd" * (MAX_NAME_CHARACTERS + 1) if text is None else text  # too long for a level, hence text
        if word in MISSING_TEXTS:
            missing.add(word)
        elif count:
            held[word] += int(count)
    order = tuple(t for t in reading.texts if t is not None) if reading.is_ordered else None
    limit = MAX_DECLARED_LEVELS if reading.is_ordered else MAX_INFERRED_LEVELS
    words = frozenset() if reading.is_ordered else frozenset(word for word in held if word.lower() in MISSING_WORDS)
    others = [word for word in held if word not in words]
    if reading.is_ordered:
        found = ColumnProfile(kinds=frozenset({"text"} if held else ()))
    else:
        found = _profile_plain_numbers(others) or _profile_words(others)
    return replace(
        found,
        num_values=sum(held.values()),
        counts=dict(held) if len(held) <= limit else None,
        missing=frozenset(missing),
        words=words,
        order=order,
    )


def _profile_plain_numbers(texts: list[str]) -> ColumnProfile | None:
    """As `_profile_words`, much faster; None where not all of these are finite numbers and no codes."""
    numbers = plain_numbers(texts)
    if numbers is None or not len(numbers) or not np.isfinite(numbers).all() or any(map(_is_code, texts)):
        return None
    is_whole = (numbers == np.floor(numbers)) & (np.abs(numbers) <= 2**53)
    kinds: tuple[tuple[Kind, bool], ...] = (("integer", bool(is_whole.any())), ("number", not is_whole.all()))
    num_texts = min(len(texts), _MAX_LOOKED_AT)
    return ColumnProfile(
        kinds=frozenset(kind for kind, is_there in kinds if is_there),
        low=float(numbers.min()),
        high=float(numbers.max()),
        num_texts=num_texts,
        num_numbers=num_texts,
    )


def _profile_words(texts: list[str]) -> ColumnProfile:
    kinds = _kinds(texts)
    bounds = [_ordered(text) for text in texts] if "text" not in kinds else []
    looked_at = texts[:_MAX_LOOKED_AT]
    return ColumnProfile(
        kinds=kinds,
        low=min(bounds, default=np.inf),
        high=max(bounds, default=-np.inf),
        num_texts=len(looked_at),
        num_numbers=sum(number_of(text) is not None for text in looked_at),
        num_commas=sum(_COMMA_NUMBER.fullmatch(text) is not None for text in looked_at),
    )


def _kinds(texts: Iterable[str]) -> frozenset[Kind]:
    kinds: set[Kind] = set()
    for text in texts:
        kinds.add(_kind(text))
        if "text" in kinds:
            break
    return frozenset(kinds)


def _kind(text: str) -> Kind:
    number = number_of(text)
    if number is not None:
        if _is_code(text) or not np.isfinite(number):
            return "text"
        return "integer" if number.is_integer() and abs(number) <= 2**53 else "number"
    if text.lower() in ("true", "false"):
        return "boolean"
    return "date" if day_of(text) is not None else "text"


def _is_code(text: str) -> bool:
    """Whether a number is written as numbers are not: "007"."""
    digits = text.lstrip("+-")
    return digits.startswith("0") and digits[1:2].isdigit()


def _ordered(text: str) -> float:
    number = number_of(text)
    day = day_of(text) if number is None else None
    return number if number is not None else day if day is not None else float(text.lower() == "true")


def _nothing_shared(sites: Mapping[str, SiteProfile], left_out: Mapping[str, str]) -> str:
    others = {site: {n for other in sites if other != site for n in sites[other]} for site in sites}
    alone = [site for site, columns in sites.items() if len(sites) > 2 and not others[site] & columns.keys()]
    if alone:
        why = f"{_sites(alone)}: no column is named as elsewhere; is its first line the columns' names?"
    else:
        why = "; ".join(f"{name!r}: {reason}" for name, reason in list(left_out.items())[:5])
    return f"no contract can be inferred, as the tables share no column{': ' if why else ''}{why}"


def _reason_to_leave_out(
    name: str, found: Mapping[str, ColumnProfile], lacking: Mapping[str, SiteProfile]
) -> str | None:
    if not name or len(name) > MAX_NAME_CHARACTERS or has_control_characters(name):
        return "its name is empty, too long, or holds control characters; rename the column"
    if lacking:
        return _reason_of_lack(name, lacking)
    total = _total(found)
    by_type: dict[str, list[str]] = {}
    for site, column in found.items():
        read = replace(column, words=frozenset()) if total.words_are_missing else column
        if read.type is not None:
            by_type.setdefault(_family(read, read.type), []).append(site)
    if len(by_type) <= 1 or total.type == "boolean":
        return _reason_of_text(total)
    said = ", ".join(f"{family} at {_sites(names)}" for family, names in by_type.items())
    return f"the sites disagree: {said}; write a contract that says what it is and which codes are missing values"


def _reason_of_lack(name: str, lacking: Mapping[str, SiteProfile]) -> str:
    has = "has" if len(lacking) == 1 else "have"
    for site, columns in lacking.items():
        close = next((other for other in columns if other.casefold() == name.casefold()), None)
        if close is not None:
            return f"{_sites(list(lacking))} {has} no such column; at {_sites([site])} there is {close!r}: rename one"
    return f"{_sites(list(lacking))} {has} no such column; add it there, empty if need be, or write a contract"


def _reason_of_text(total: ColumnProfile) -> str | None:
    if total.type in ("text", "category") and total.has_decimal_commas:
        return "its numbers have a decimal comma; write them with a decimal point"
    if total.type == "text" and total.is_mostly_numbers:
        return (
            "it holds numbers, but not only: correct what is none, or write a contract that lists the codes of "
            "missing values"
        )
    return None


def _family(column: ColumnProfile, type_: VariableType) -> str:
    if type_ in ("category", "text"):
        commas, mostly = "numbers with a decimal comma", "numbers and other texts"
        return commas if column.has_decimal_commas else mostly if column.is_mostly_numbers else "texts"
    return {"integer": "numbers", "number": "numbers"}.get(type_, f"{type_}s")


def _total(found: Mapping[str, ColumnProfile]) -> ColumnProfile:
    return functools.reduce(lambda one, other: one + other, found.values())


def _variable(name: str, total: ColumnProfile) -> Variable:
    type_ = total.type
    bounds = None
    if total.low <= total.high and type_ in ("integer", "number", "date"):
        rounded = rounded_days if type_ == "date" else rounded_range
        bounds = rounded(total.low, total.high, is_integer=type_ == "integer")
    return Variable(
        name=name,
        type=type_ or "number",
        range=bounds,
        levels=total.levels if type_ == "category" else None,
        missing=tuple(sorted(total.missing | total.words if total.words_are_missing else total.missing)),
    )


def _notes_of_odd(name: str, total: ColumnProfile) -> list[str]:
    if total.type is None:
        return [f"{name!r} has no value at any site; it is listed as a number"]
    counts = total.counts or {}
    num_rare = sum(is_small(counts[level]) for level in total.levels) if total.type == "category" else 0
    if not num_rare:
        return []
    few = f"{name!r}: {num_rare} of its levels are held by fewer than {DEFAULT_MINIMUM_CELL} rows"
    return [f"{few}; look at them before you show the contract to anybody"]


def _assumptions(name: str, total: ColumnProfile) -> list[str]:
    """What was assumed of a column; shows none of its levels, which may be of one patient."""
    said = []
    if total.words_are_missing:
        said.append(f"{name!r}: {', '.join(map(repr, sorted(total.words)))} among its values count as missing")
    if total.type == "category":
        num_alike = len(total.levels) - len({level.casefold() for level in total.levels})
        if num_alike:
            said.append(
                f"{name!r}: {num_alike} of its levels differ from others in capitals alone; write alike what is one"
            )
        if total.is_mostly_numbers:
            said.append(f"{name!r}: most of its values are numbers, but not all, so that each counts as a level")
    return said


def _sites(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return (
        f"site {shown}" if len(names) == 1 else f"sites {shown}" + (f" and {len(names) - 3} more" if names[3:] else "")
    )
