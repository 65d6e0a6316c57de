"""What every result of an analysis offers: a frozen value that prints, tabulates, serialises and draws itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ExhibitKind: TypeAlias = Literal["table_one", "forest", "survival", "calibration", "heterogeneity", "other"]
"""What an exhibit shows; a report puts its parts in order by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableExhibit:
    """A table of a report: text as it is to be read.

    Attributes:
        title: in words.
        frame: cells are strings, or numbers that the report formats; the index is the row's label.
        note: what stands below it.
        kind: what it shows.
    """

    title: str
    frame: pd.DataFrame
    note: str = ""
    kind: ExhibitKind = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureExhibit:
    """A figure of a report.

    Attributes:
        title: in words.
        draw: makes the figure when it is wanted; needs matplotlib.
        description: what a reader who cannot see it must know (the numbers that matter, in a sentence or two).
        note: what stands below it.
        kind: what it shows.
    """

    title: str
    draw: Callable[[], Figure]
    description: str
    note: str = ""
    kind: ExhibitKind = "other"


Exhibit: TypeAlias = TableExhibit | FigureExhibit


@runtime_checkable
class Result(Protocol):
    """A result of an analysis."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader should know, a sentence each."""

    def summary(self) -> str:
        """The result as text, as a statistician expects to see it printed."""

    def to_frame(self) -> pd.DataFrame:
        """The result's main table."""

    def to_dict(self) -> dict[str, Any]:
        """The whole result as JSON values: strings, finite numbers, booleans, None, lists, dicts.

        It holds the fields, as `json_value(asdict(self))` does: the schema of outcomes follows from their types. A
        class whose dict is another one names a `TypedDict` as its `json_type`, a class variable.
        """

    def to_json(self) -> str:
        """`to_dict` as JSON text."""

    def plot(self) -> Figure:
        """A figure that a journal would take. Needs matplotlib (the extra `report`)."""

    def methods(self) -> str:
        """What was computed, in sentences that the methods section of a paper could hold.

        A paper is cited as "(Cox 1972)" or "(Hyndman and Fan 1996)": a report puts the number of the reference there
        that begins with that name and holds that year.
        """

    @property
    def references(self) -> tuple[str, ...]:
        """The papers behind the methods, as a bibliography lists them."""

    def exhibits(self) -> tuple[Exhibit, ...]:
        """Tables and figures in the order in which a report shows them."""


@runtime_checkable
class Headlined(Protocol):
    """A result that tells its main findings in words; of others, a report takes the first figure's description."""

    def headlines(self) -> tuple[str, ...]:
        """The main findings, a sentence each."""


def json_value(value: Any) -> Any:
    """A value as strict JSON allows it: numpy unwrapped, tuples as lists, NaN and infinity as None."""
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [json_value(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def json_text(value: dict[str, Any]) -> str:
    """Strict JSON text of a dict that `json_value` made."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2)
