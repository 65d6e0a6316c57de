"""What a site adds to a sum: a frozen dataclass whose fields say how each may be added.

    class Moments(Contribution):
        total: Array = exact("num_columns")
        num_patients: int = people()

A declaration gives the codec and every protection what they need, without looking at a value: whether a
field is summed exactly or within a clip bound, its shape, and whether it counts people.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal, Self, TypeAlias, dataclass_transform, get_args

import numpy as np
from numpy.typing import NDArray

from wardround.errors import ContributionError

Size: TypeAlias = str | int
Symbols: TypeAlias = Mapping[str, float]
Cells: TypeAlias = Literal["each", "sums", "none"]
"""Which of an array of counts are cells of a table: each of them; their sums over the last axis; none."""

_DECLARATION = "wardround.declaration"
MAX_ELEMENTS = 2**31
"""Largest number of elements of one field (unit: elements)."""


@dataclass(frozen=True, slots=True)
class Exact:
    """Real numbers, summed in 128-bit fixed point with 64 fractional bits."""

    shape: tuple[Size, ...] = ()


@dataclass(frozen=True, slots=True)
class People:
    """Counts of people or of their records: integers >= 0, summed exactly; disclosure rules apply."""

    shape: tuple[Size, ...] = ()
    cells: Cells = "each"


@dataclass(frozen=True, slots=True)
class Bounded:
    """A vector whose Euclidean norm is clipped to `clip_norm`, sent in `bits` bits an element.

    `clip_norm` and `bits` may be names, which the site function's `symbols` give values to.
    """

    shape: tuple[Size, ...]
    clip_norm: str | float
    bits: Size


Declaration: TypeAlias = Exact | People | Bounded


def exact(*shape: Size) -> Any:
    """Declare a field of real numbers of this shape (names are bound by the site function's `symbols`)."""
    return dataclasses.field(metadata={_DECLARATION: Exact(shape)})


def people(*shape: Size, cells: Cells = "each") -> Any:
    """Declare a field of counts of people or records of this shape.

    Args:
        shape: sizes, or names of sizes.
        cells: what a rule on a site's own cells (`own_cells`) holds for. "each": all of them, as those of levels,
            of a cross-table, of groups, of events by group. "sums": their sums over the last axis alone, as of a
            histogram on the way to a quantile or a curve. "none": they are cells of no table, as counts of missing or
            impossible values, or of records on one side of a mean.
    """
    if cells not in get_args(Cells):
        raise ValueError(f'cells must be "each", "sums" or "none", got {cells!r}')
    if cells == "sums" and not shape:
        raise ValueError('cells = "sums" needs an axis to sum over')
    return dataclasses.field(metadata={_DECLARATION: People(shape, cells)})


def bounded(*shape: Size, clip_norm: str | float, bits: Size) -> Any:
    """Declare a field clipped to Euclidean norm `clip_norm` and rounded to `bits` bits an element."""
    return dataclasses.field(metadata={_DECLARATION: Bounded(shape, clip_norm, bits)})


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(exact, people, bounded))
class Contribution:
    """Base of all contributions; a subclass is made a frozen, keyword-only dataclass.

    Guarantees:
        addition_is_fieldwise: `a + b` adds each field and changes neither operand.
    """

    declarations: ClassVar[Mapping[str, Declaration]] = {}

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, kw_only=True, eq=False)(cls)
        declarations: dict[str, Declaration] = {}
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # the line above made it one
            declaration = field.metadata.get(_DECLARATION)
            if declaration is None:
                raise TypeError(
                    f"{cls.__name__}.{field.name} has no declaration; write "
                    f"`{field.name}: ... = exact()`, `people()` or `bounded(...)`"
                )
            declarations[field.name] = declaration
        if not declarations:
            raise TypeError(f"{cls.__name__} declares no field")
        cls.declarations = declarations

    def __add__(self, other: Self) -> Self:
        if type(other) is not type(self):
            raise TypeError(f"cannot add {type(other).__name__} to {type(self).__name__}")
        total: dict[str, Any] = {}
        for name in self.declarations:
            mine, others = getattr(self, name), getattr(other, name)
            if np.shape(mine) != np.shape(others):
                raise ValueError(f"{name} has shape {np.shape(mine)} on the left and {np.shape(others)} on the right")
            total[name] = _added(mine, others) if np.ndim(mine) else mine + others
        return type(self)(**total)


def _added(mine: Any, others: Any) -> NDArray[Any]:
    # Not `mine + others`: that joins lists, and wraps around in small integer types.
    kind = np.result_type(np.asarray(mine), np.asarray(others))
    total: NDArray[Any] = np.add(mine, others, dtype=np.int64 if kind.kind in "iu" else kind)
    return total


@dataclass(frozen=True, slots=True)
class FieldLayout:
    """One field's place in the flattened contribution, all names bound."""

    name: str
    declaration: Declaration
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Flat:
    """A contribution's numbers by kind, in the layout's order: what the codec encodes."""

    exact: NDArray[np.float64]
    people: NDArray[np.int64]
    bounded: tuple[NDArray[np.floating[Any]], ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a contribution's fields lie in the flat vectors. Site and coordinator derive the same one from an ask."""

    contribution: type[Contribution]
    exact: tuple[FieldLayout, ...]
    people: tuple[FieldLayout, ...]
    bounded: tuple[FieldLayout, ...]

    @property
    def num_exact(self) -> int:
        """Number of elements summed in 128-bit fixed point."""
        return sum(field.size for field in self.exact)

    @property
    def num_people(self) -> int:
        """Number of counts."""
        return sum(field.size for field in self.people)

    def flatten(self, contribution: object) -> Flat:
        """Check a contribution's form against this layout and lay its numbers out; the codec checks the numbers.

        Raises:
            ContributionError: wrong type, shape or dtype; names the field.
        """
        if type(contribution) is not self.contribution:
            raise ContributionError(
                f"expected a {self.contribution.__name__}, the site function returned {type(contribution).__name__}"
            )
        return Flat(
            exact=_join([self._reals(contribution, field) for field in self.exact], np.float64),
            people=_join([self._counts(contribution, field) for field in self.people], np.int64),
            bounded=tuple(self._array(contribution, field, "f").ravel() for field in self.bounded),
        )

    def unflatten(self, flat: Flat) -> Contribution:
        """The inverse of `flatten`, for a total; its arrays are made read-only, the given ones among them."""
        values: dict[str, Any] = {}
        for fields, vector in ((self.exact, flat.exact), (self.people, flat.people)):
            vector.setflags(write=False)
            start = 0
            for field in fields:
                part: Any = vector[start : start + field.size]
                start += field.size
                values[field.name] = part.reshape(field.shape) if field.shape else part[0].item()
        for field, vector_ in zip(self.bounded, flat.bounded, strict=True):
            vector_.setflags(write=False)
            values[field.name] = vector_.reshape(field.shape)
        return self.contribution(**values)

    def label(self, field: FieldLayout) -> str:
        """A field's name for an error message."""
        return f"{self.contribution.__name__}.{field.name}"

    def _array(self, contribution: Contribution, field: FieldLayout, kinds: str) -> NDArray[Any]:
        try:
            array = np.asarray(getattr(contribution, field.name))
        except (ValueError, TypeError):
            raise ContributionError(f"{self.label(field)} cannot be read as an array") from None
        if array.dtype.kind not in kinds:
            raise ContributionError(f"{self.label(field)} holds {array.dtype}, which its declaration does not allow")
        if array.shape != field.shape:
            raise ContributionError(f"{self.label(field)} must have shape {field.shape}, got {array.shape}")
        return array

    def _reals(self, contribution: Contribution, field: FieldLayout) -> NDArray[np.float64]:
        array = self._array(contribution, field, "fiu")
        if array.dtype.kind in "iu" and array.size and max(int(array.max()), -int(array.min())) > 2**53:
            raise ContributionError(f"{self.label(field)} holds an integer over 2^53, which float64 rounds")
        if array.dtype.itemsize > 8:
            with np.errstate(over="ignore"):  # found as infinity when the values are checked
                array = array.astype(np.float64)
        return array.astype(np.float64, copy=False).ravel()

    def _counts(self, contribution: Contribution, field: FieldLayout) -> NDArray[np.int64]:
        # An unsigned count of 2^63 or more becomes negative, and is refused as such when the values are checked.
        return self._array(contribution, field, "iu").astype(np.int64, copy=False).ravel()

    def field_at(self, kind: str, index: int) -> str:
        """Name of the field that holds element `index` of the flat vector of `kind` ("exact" or "people")."""
        for field in self.exact if kind == "exact" else self.people:
            if index < field.size:
                return self.label(field)
            index -= field.size
        raise IndexError(index)


def _join(parts: list[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def layout_of(contribution: type[Contribution], symbols: Symbols) -> Layout:
    """The layout of a contribution type with the names in its declarations bound by `symbols`.

    Raises:
        ContributionError: a name is not bound, or its value is out of range.
    """
    return _layout_of(contribution, tuple(sorted(symbols.items())))  # type: ignore[arg-type]  # a class is hashable


@lru_cache(maxsize=256)
def _layout_of(contribution: type[Contribution], symbols: tuple[tuple[str, float], ...]) -> Layout:
    bound = dict(symbols)
    fields: dict[type, list[FieldLayout]] = {Exact: [], People: [], Bounded: []}
    for name, declaration in contribution.declarations.items():
        label = f"{contribution.__name__}.{name}"
        shape = tuple(_size(size, bound, label) for size in declaration.shape)
        size = int(np.prod(shape, dtype=object)) if shape else 1
        if size > MAX_ELEMENTS:
            raise ContributionError(f"{label} would have {size} elements; the limit is {MAX_ELEMENTS}")
        if isinstance(declaration, Bounded):
            declaration = _bind_bounds(declaration, bound, label)
        fields[type(declaration)].append(FieldLayout(name, declaration, shape, size))
    return Layout(contribution, tuple(fields[Exact]), tuple(fields[People]), tuple(fields[Bounded]))


def _value(value: str | float, bound: Mapping[str, float], label: str) -> float:
    if not isinstance(value, str):
        return value
    if value not in bound:
        raise ContributionError(f"{label} needs a value for {value!r}; the symbols given are {sorted(bound)}")
    return bound[value]


def _size(value: Size, bound: Mapping[str, float], label: str) -> int:
    size = _value(value, bound, label)
    if not 0 <= size <= MAX_ELEMENTS or size != int(size):
        raise ContributionError(f"{label}: a size must be a whole number in [0, {MAX_ELEMENTS}], got {value}={size}")
    return int(size)


def _bind_bounds(declaration: Bounded, bound: Mapping[str, float], label: str) -> Bounded:
    clip_norm = _value(declaration.clip_norm, bound, label)
    bits = _size(declaration.bits, bound, label)
    if not 1e-100 <= clip_norm <= 1e100:
        raise ContributionError(f"{label}: clip_norm must be in [1e-100, 1e100], got {clip_norm}")
    if not 4 <= bits <= 32:
        raise ContributionError(f"{label}: bits must be in [4, 32], got {bits}")
    return Bounded(declaration.shape, float(clip_norm), bits)
