"""A pandas data frame as a source."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import pandas as pd

from wardround.data.names import column_name, column_positions
from wardround.data.sources.source import chunk_records


@dataclass(frozen=True, slots=True)
class FrameSource:
    """A frame in memory. Its index is no column."""

    frame: pd.DataFrame
    site: str

    def names(self) -> tuple[str, ...]:
        """Names of its columns, in NFC and trimmed."""
        return tuple(column_name(label) for label in self.frame.columns)

    def num_records(self) -> int:
        """How many rows it has."""
        return len(self.frame)

    def chunks(self, columns: Collection[str] | None = None) -> Iterator[pd.DataFrame]:
        """Its rows in slices that share the frame's memory.

        Raises:
            DataError: two of these columns have one name.
        """
        positions = column_positions(self.frame.columns, columns, self.site)
        kept = self.frame if columns is None else self.frame.iloc[:, list(positions.values())]
        size = chunk_records(kept.shape[1])
        for begin in range(0, max(1, len(kept)), size):
            yield kept.iloc[begin : begin + size]
