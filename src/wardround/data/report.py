"""What of a table does not fit its contract, in counts that give nobody away."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from wardround.errors import ContractError
from wardround.privacy.disclosure import is_small, shown_count

Rule: TypeAlias = Literal[
    "missing column",
    "wrong type",
    "not an integer",
    "out of range",
    "unknown level",
    "missing value",
]

_MAX_LINES = 200  # of one message; the reports hold the rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A rule of the contract that a column breaks.

    Attributes:
        column: the column's name.
        rule: what it breaks.
        num_rows: in how many rows; None where that number is under the disclosure floor.
        shown_rows: that number as people may see it.
        hint: what may be the matter.
    """

    column: str
    rule: Rule
    num_rows: int | None
    shown_rows: str
    hint: str | None = None

    @classmethod
    def counted(cls, column: str, rule: Rule, num_rows: int, hint: str | None = None) -> Violation:
        """A violation in `num_rows` rows, which is forgotten where it is small."""
        shown = None if is_small(num_rows) else num_rows
        return cls(column=column, rule=rule, num_rows=shown, shown_rows=shown_count(num_rows), hint=hint)

    def __str__(self) -> str:
        rows = "" if self.rule == "missing column" else f" in {self.shown_rows} rows"
        return f"{self.column!r}: {self.rule}{rows}" + (f" ({self.hint})" if self.hint else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractReport:
    """How a site's table fits a contract; shows column names and counts, never a value.

    Attributes:
        site: whose table.
        shown_records: number of rows, as people may see it.
        violations: what does not fit.
        are_made_missing: whether the offending values were turned into missing ones instead of refused.

    Guarantees:
        shows_nothing_of_a_patient: no value of a cell is in the report or in its text.
    """

    site: str
    shown_records: str
    violations: tuple[Violation, ...]
    are_made_missing: bool = False

    @property
    def fits(self) -> bool:
        """Whether nothing breaks the contract."""
        return not self.violations

    @property
    def is_refused(self) -> bool:
        """Whether no table can be made: something breaks the contract and is not to become missing."""
        return any(not self.are_made_missing or v.rule in ("missing column", "missing value") for v in self.violations)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values; hidden counts as None."""
        return {
            "site": self.site,
            "fits": self.fits,
            "records": self.shown_records,
            "violations": [
                {"column": v.column, "rule": v.rule, "rows": v.num_rows, "shown_rows": v.shown_rows, "hint": v.hint}
                for v in self.violations
            ],
            "made_missing": self.are_made_missing,
        }

    def __str__(self) -> str:
        if self.fits:
            return f"site {self.site!r}: fits the contract ({self.shown_records} rows)"
        lines = [f"  {violation}" for violation in self.violations]
        made = "; these values count as missing" if self.are_made_missing and not self.is_refused else ""
        return "\n".join([f"site {self.site!r} ({self.shown_records} rows) does not fit the contract{made}:", *lines])


def refuse_misfits(reports: Iterable[ContractReport]) -> None:
    """Raise one error with all that is refused at all sites.

    Raises:
        ContractError: a report is refused; carries these reports.
    """
    refused = tuple(report for report in reports if report.is_refused)
    if not refused:
        return
    lines = "\n".join(str(report) for report in refused).splitlines()
    if len(lines) > _MAX_LINES:
        lines = [*lines[:_MAX_LINES], f"... and {len(lines) - _MAX_LINES} more lines"]
    remedy = "Correct the tables or the contract (or count offending values as missing, where the study allows it)."
    raise ContractError("\n".join([*lines, remedy]), reports=refused)
