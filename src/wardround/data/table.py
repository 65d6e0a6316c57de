"""A site's table after harmonisation: what site functions are given as their data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.data.contract import Contract
from wardround.errors import DataError

Numbers = NDArray[np.float64]
Codes = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns in the contract's units and codes.

    Attributes:
        site: name of the site that holds it.
        contract: the contract the columns were checked against.
        num_records: number of rows.
        columns: by variable: float64 numbers (NaN = missing; dates in days since 1970-01-01) for `number`,
            `integer` and `date`; int32 indices into the variable's levels (-1 = missing) for `category` and
            `boolean`. `text` variables are not kept. Each of shape (num_records,), read-only.
        patient_index: int64, shape (num_records,), in [0, num_patients): records with the same number are
            of one patient.
        num_patients: number of patients.
    """

    site: str
    contract: Contract
    num_records: int
    columns: Mapping[str, Numbers | Codes]
    patient_index: NDArray[np.int64]
    num_patients: int

    def __post_init__(self) -> None:
        for name, column in self.columns.items():
            if column.shape != (self.num_records,):
                raise DataError(f"column {name!r} has {column.shape[0]} rows, the table {self.num_records}")
            column.setflags(write=False)

    def numbers(self, name: str) -> Numbers:
        """A variable as float64, NaN where missing; a boolean as 0 and 1. Shape (num_records,)."""
        column = self._column(name)
        variable = self.contract.variable(name)
        if variable.is_numeric:
            return column  # type: ignore[return-value]  # float64 by construction
        if variable.type == "boolean":
            return np.where(column < 0, np.nan, column.astype(np.float64))
        raise DataError(f"variable {name!r} is a {variable.type}, not a number")

    def codes(self, name: str) -> Codes:
        """A category or boolean as indices into its levels, -1 where missing. Shape (num_records,)."""
        variable = self.contract.variable(name)
        if variable.category_levels is None:
            raise DataError(f"variable {name!r} is a {variable.type}, not a category")
        return self._column(name)  # type: ignore[return-value]  # int32 by construction

    def is_missing(self, name: str) -> NDArray[np.bool_]:
        """Where a variable is missing. Shape (num_records,)."""
        column = self._column(name)
        return np.isnan(column) if column.dtype.kind == "f" else column < 0

    def take(self, rows: NDArray[Any]) -> Table:
        """The table of these rows (a mask or indices)."""
        index = self.patient_index[rows]
        patients, renumbered = np.unique(index, return_inverse=True)
        return Table(
            site=self.site,
            contract=self.contract,
            num_records=len(index),
            columns={name: column[rows] for name, column in self.columns.items()},
            patient_index=renumbered.astype(np.int64),
            num_patients=len(patients),
        )

    def _column(self, name: str) -> Numbers | Codes:
        if name not in self.columns:
            self.contract.variable(name)  # says which variables there are
            raise DataError(f"variable {name!r} is text, which is not analysed")
        return self.columns[name]
