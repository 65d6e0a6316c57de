"""What a site's raw table is read through, whatever holds it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol

import pandas as pd

CHUNK_CELLS = 2**20
"""How much of a table is read at once (unit: cells)."""


class Source(Protocol):
    """A site's table outside the pure rooms. It may be read several times."""

    def names(self) -> tuple[str, ...]:
        """Names of its columns, in NFC and trimmed."""

    def num_records(self) -> int | None:
        """How many rows it has; None where only reading would tell."""

    def chunks(self, columns: Collection[str] | None = None) -> Iterator[pd.DataFrame]:
        """Its rows in pieces, of which there is at least one, with these columns as far as it has them.

        Args:
            columns: names of columns; None: all of them.

        Raises:
            DataError: the table is malformed.
            StoreError: it cannot be read.
        """


def chunk_records(num_columns: int) -> int:
    """Rows of one chunk of a table of so many columns."""
    return max(1, CHUNK_CELLS // max(1, num_columns))
