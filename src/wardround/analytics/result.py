"""What every result of an analysis offers: a frozen value that prints, tabulates, serialises and draws itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        """The whole result as JSON values: strings, finite numbers, booleans, None, lists, dicts."""

    def to_json(self) -> str:
        """`to_dict` as JSON text."""

    def plot(self) -> Figure:
        """A figure that a journal would take. Needs matplotlib (the extra `report`)."""


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
