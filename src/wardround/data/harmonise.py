"""Checking a site's raw table against the contract and bringing it into the contract's codes, chunk by chunk.

What a value may look like: numbers with a point as decimal mark; truth values as True/False, true/false, 1/0,
yes/no; dates as ISO dates or times (with a zone: the day in UTC); levels as written, or as the same number
("1.0" is the level "1"). Infinity is not a number here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wardround.data.contract import Contract, Variable
from wardround.data.names import column_positions
from wardround.data.patients import PatientNumbers
from wardround.data.reading import read_column
from wardround.data.report import ContractReport, Rule, Violation
from wardround.data.table import Codes, Numbers, Table
from wardround.data.values import Broken, MissingCodes, is_present, values_of
from wardround.errors import DataError
from wardround.privacy.disclosure import DEFAULT_MINIMUM_CELL, shown_count

ViolationPolicy: TypeAlias = Literal["refuse", "missing"]
"""What becomes of a value that breaks the contract: the table is `refuse`d, or the value counts as `missing`."""

MAX_TABLE_BYTES = 8 * 2**30
"""Largest table that a site holds in memory (unit: bytes)."""

MAX_RECORDS = 2**31 - 1
"""Most rows of a table (unit: rows)."""

_PATIENT_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A site's report, and its table where the report is not refused."""

    report: ContractReport
    table: Table | None


def check_size(contract: Contract, num_records: int, site: str, max_bytes: int = MAX_TABLE_BYTES) -> None:
    """Refuse a table that would not fit into memory.

    Args:
        contract: whose columns are kept.
        num_records: how many rows are there, or so far (unit: rows).
        site: for the message.
        max_bytes: what a table may take (unit: bytes).

    Raises:
        DataError: too large; says how large, and what to do.
    """
    size = num_records * bytes_per_record(contract)
    if size <= max_bytes and num_records <= MAX_RECORDS:
        return
    num_columns = sum(variable.type != "text" for variable in contract.variables)
    raise DataError(
        f"site {site!r}: a table of at least {num_records} rows x {num_columns} columns takes {size / 2**30:.1f} GiB, "
        f"the limit is {max_bytes / 2**30:.1f} GiB; list in the contract only the columns that the study needs"
    )


def bytes_per_record(contract: Contract) -> int:
    """What a row takes in a `Table` (unit: bytes)."""
    widths = (0 if v.type == "text" else 4 if v.category_levels else 8 for v in contract.variables)
    return sum(widths) + _PATIENT_BYTES


class TableBuilder:
    """Makes a site's table from chunks of raw rows.

    Args:
        site: name of the site.
        contract: what every chunk is checked against.
        violations: what becomes of values that break it.
        max_bytes: what the table may take (unit: bytes).

    Guarantees:
        chunks_do_not_matter: however the rows are cut into chunks, table and report are the same.
        shows_nothing_of_a_patient: reports and errors show no value of a cell.
    """

    def __init__(
        self,
        site: str,
        contract: Contract,
        *,
        violations: ViolationPolicy = "refuse",
        max_bytes: int = MAX_TABLE_BYTES,
    ) -> None:
        if violations not in ("refuse", "missing"):
            raise ValueError(f"violations must be 'refuse' or 'missing', got violations={violations!r}")
        self._site = site
        self._contract = contract
        self._makes_missing = violations == "missing"
        self._max_bytes = max_bytes
        self._num_records = 0
        self._parts: dict[str, list[Numbers | Codes]] = {v.name: [] for v in contract.variables if v.type != "text"}
        self._patients = PatientNumbers()
        self._broken: defaultdict[tuple[str, Rule], int] = defaultdict(int)
        self._num_present: defaultdict[str, int] = defaultdict(int)
        self._is_refused = False

    def add(self, frame: pd.DataFrame) -> None:
        """Check these rows and keep what the contract lists.

        Raises:
            DataError: two columns of one name, or the table grows over its limit.
        """
        positions = column_positions(frame.columns, self._wanted(), self._site)
        self._num_records += len(frame)
        check_size(self._contract, self._num_records, self._site, self._max_bytes)
        for variable in self._contract.variables:
            position = positions.get(variable.name)
            if position is None:
                self._broken[variable.name, "missing column"] = 0
            else:
                self._add_column(frame.iloc[:, position], variable)
        if self._contract.patient is not None:
            self._add_patients(frame, positions.get(self._contract.patient))
        self._forget_if_refused()

    def finish(self) -> Checked:
        """The report, and the table where it is not refused. The builder is spent."""
        report = self._report()
        if report.is_refused:
            return Checked(report=report, table=None)
        columns = {
            variable.name: self._column(variable) for variable in self._contract.variables if variable.type != "text"
        }
        index, num_patients = self._patient_index()
        table = Table(
            site=self._site,
            contract=self._contract,
            num_records=self._num_records,
            columns=columns,
            patient_index=index,
            num_patients=num_patients,
        )
        return Checked(report=report, table=table)

    def _wanted(self) -> frozenset[str]:
        patient = () if self._contract.patient is None else (self._contract.patient,)
        return frozenset((*self._contract.names, *patient))

    def _add_column(self, column: pd.Series[Any], variable: Variable) -> None:
        reading = read_column(column)
        present = is_present(reading, MissingCodes.of(variable))
        self._num_present[variable.name] += int(present.sum())
        if variable.type == "text":
            broken: Broken = []
        else:
            values, broken = values_of(reading, variable)
            self._parts[variable.name].append(values)
        for rule, mask in broken:
            self._broken[variable.name, rule] += int(mask.sum())
        if variable.is_required:
            made = np.logical_or.reduce([mask for _, mask in broken]) if broken and self._makes_missing else False
            self._count(variable.name, "missing value", ~present | made)

    def _add_patients(self, frame: pd.DataFrame, position: int | None) -> None:
        name = str(self._contract.patient)
        if position is None:
            self._broken[name, "missing column"] = 0
            return
        reading = read_column(frame.iloc[:, position])
        self._count(name, "missing value", ~is_present(reading, MissingCodes(frozenset(), frozenset())))
        self._patients.add(reading)

    def _count(self, name: str, rule: Rule, mask: NDArray[np.bool_]) -> None:
        count = int(mask.sum())
        if count:
            self._broken[name, rule] += count

    def _forget_if_refused(self) -> None:
        """What is going to be refused needs no memory: only the counting goes on."""
        rules = {rule for _, rule in self._broken}
        if rules and (not self._makes_missing or rules & {"missing column", "missing value"}):
            self._is_refused = True
        if self._is_refused:
            self._patients = PatientNumbers()
            for parts in self._parts.values():
                parts.clear()

    def _report(self) -> ContractReport:
        order = {name: position for position, name in enumerate(self._contract.names)}
        found = sorted(self._broken.items(), key=lambda item: (order.get(item[0][0], len(order)), item[0][1]))
        violations = tuple(
            Violation.counted(name, rule, count, self._hint(name, rule, count)) for (name, rule), count in found
        )
        return ContractReport(
            site=self._site,
            shown_records=shown_count(self._num_records),
            violations=violations,
            are_made_missing=self._makes_missing,
        )

    def _hint(self, name: str, rule: Rule, count: int) -> str | None:
        is_most = 2 * count > self._num_present[name] and count >= DEFAULT_MINIMUM_CELL
        if rule == "out of range" and is_most:
            unit = self._contract.variable(name).unit
            agreed = f"are they in {unit}, as the contract says?" if unit else "is the unit the contract's?"
            return f"more than half of its values: {agreed}"
        if rule == "wrong type" and is_most:
            return f"more than half of its values: is it a {self._contract.variable(name).type}?"
        return None

    def _column(self, variable: Variable) -> Numbers | Codes:
        """One column in one piece; its chunks are let go at once, so that two copies of one column exist at most."""
        parts = self._parts.pop(variable.name)
        if not parts:
            return np.empty(0, dtype=np.int32) if variable.category_levels else np.empty(0, dtype=np.float64)
        return parts[0] if len(parts) == 1 else cast(Numbers | Codes, np.concatenate(parts))

    def _patient_index(self) -> tuple[NDArray[np.int64], int]:
        if self._contract.patient is None:
            return np.arange(self._num_records, dtype=np.int64), self._num_records
        return self._patients.finish()


def check_frames(
    frames: Iterable[pd.DataFrame], contract: Contract, site: str, *, violations: ViolationPolicy = "refuse"
) -> Checked:
    """The report and table of a site whose rows come in these chunks, of which there must be one at least."""
    builder = TableBuilder(site, contract, violations=violations)
    for frame in frames:
        builder.add(frame)
    return builder.finish()
