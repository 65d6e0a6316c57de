"""What came of a study: each analysis with its result, or why it has none, and the record of its run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from wardround.analytics.census import CohortSize
from wardround.analytics.result import Result, json_text, json_value
from wardround.data.report import ContractReport
from wardround.privacy.disclosure import DisclosureRules
from wardround.report.protection import IN_CLEAR, SumsInWords
from wardround.report.run_facts import RunFacts
from wardround.studies.study import Analysis, Study

__all__ = ["OUTCOME_SCHEMA", "AnalysisOutcome", "DataReading", "Failure", "RunFacts", "StudyOutcome"]

OUTCOME_VERSION = 1
"""Raised whenever what `StudyOutcome.to_dict` gives changes its form after a release."""
OUTCOME_SCHEMA = f"https://wardround.github.io/wardround/schema/outcome-{OUTCOME_VERSION}.json"
"""Names the form of `StudyOutcome.to_dict` (JSON Schema, draft 2020-12)."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an analysis has no result."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisOutcome:
    """An analysis that was carried out.

    Attributes:
        analysis: as the study asked for it.
        result: what came of it, or why nothing did.
        facts: what the run cost; None where it failed.
    """

    analysis: Analysis
    result: Result | Failure
    facts: RunFacts | None

    @property
    def failure(self) -> str | None:
        """Why there is no result; None where there is one."""
        return self.result.message if isinstance(self.result, Failure) else None

    def to_dict(self) -> dict[str, Any]:
        """The outcome as JSON values; `result` is None beside an `error`."""
        outcome: dict[str, Any] = {
            "workflow": self.analysis.workflow.name,
            "version": self.analysis.workflow.type.version,
            "title": self.analysis.title,
            "options": self.analysis.workflow.type.parameters.to_json(self.analysis.workflow.options),
            "result": None if isinstance(self.result, Failure) else self.result.to_dict(),
        }
        if isinstance(self.result, Failure):
            outcome["error"] = {"kind": self.result.kind, "message": self.result.message}
        return {**outcome, "run": self.facts.to_dict() if self.facts else None}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReading:
    """How the sites' tables became data.

    Attributes:
        is_inferred: whether the contract was made from the tables at hand rather than agreed on.
        notes: of an inferred contract: how the tables were read where one may read them otherwise.
        misfits: by site, the values that broke the contract and count as missing.
    """

    is_inferred: bool = False
    notes: tuple[str, ...] = ()
    misfits: tuple[ContractReport, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All attributes as JSON values."""
        return {
            "contract_is_inferred": self.is_inferred,
            "reading_notes": list(self.notes),
            "made_missing": [misfit.to_dict() for misfit in self.misfits],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOutcome:
    """A study that was carried out.

    Attributes:
        study: what was asked.
        cohort: how many records and patients it is about.
        sites: the roster.
        is_simulation: whether the hospitals were tables in one process.
        analyses: in the study's order.
        versions: of the packages that computed it, by name.
        disclosure: the rules that results keep to.
        site_disclosure: by site whose own rules tighten the study's, the rules that it keeps to.
        sums: how the sums were protected.
        reading: how the sites' tables became data.
        date: on which it was carried out (ISO 8601); None where nobody said.
    """

    study: Study
    cohort: CohortSize
    sites: tuple[str, ...]
    is_simulation: bool
    analyses: tuple[AnalysisOutcome, ...]
    versions: Mapping[str, str]
    disclosure: DisclosureRules = field(default_factory=DisclosureRules)
    site_disclosure: Mapping[str, DisclosureRules] = field(default_factory=dict)
    sums: SumsInWords = IN_CLEAR
    reading: DataReading = field(default_factory=DataReading)
    date: str | None = None

    @property
    def failed(self) -> tuple[AnalysisOutcome, ...]:
        """The analyses without a result."""
        return tuple(outcome for outcome in self.analyses if outcome.failure)

    @property
    def sums_line(self) -> str:
        """In one line how the sums were protected, and of how many analyses that hides less."""
        ran = [one.facts for one in self.analyses if one.facts]
        num_clear = sum(facts.asks_in_clear for facts in ran)
        num_of_sites = sum(facts.tells_of_sites and not facts.asks_in_clear for facts in ran)
        line = self.sums.line()
        if self.sums.terms and num_clear:
            line += f" But {num_clear} of {len(ran)} analyses asked for just that, in clear."
        if self.sums.terms and num_of_sites:
            line += (
                f" {'And' if num_clear else 'But'} {num_of_sites} of {len(ran)} analyses "
                f"ask{'s' * (num_of_sites == 1)} for what is each hospital's own, and the sums tell it, as the "
                "disclosure rules allow."
            )
        return line

    def to_dict(self) -> dict[str, Any]:
        """The whole outcome as JSON values, in the form that `OUTCOME_SCHEMA` names."""
        study = self.study
        keys = ("name", "question", "purpose", "minimum_sites", "contract", "patient", "cohort", "violations")
        document = {
            "schema": OUTCOME_SCHEMA,
            "study": {key: getattr(study, key) for key in keys},
            "date": self.date,
            "is_simulation": self.is_simulation,
            "cohort": self.cohort.to_dict(),
            "analyses": [outcome.to_dict() for outcome in self.analyses],
            "sites": list(self.sites),
            "disclosure": _rules(self.disclosure),
            "site_disclosure": {site: _rules(rules) for site, rules in self.site_disclosure.items()},
            "privacy": self.sums.to_dict(),
            "data": self.reading.to_dict(),
            "wardround": self.versions["wardround"],
            "versions": dict(self.versions),
        }
        return dict(json_value(document))

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict())


def _rules(rules: DisclosureRules) -> dict[str, Any]:
    """The rules by name; None where a rule has no limit."""
    values = {one.name: getattr(rules, one.name) for one in fields(rules)}
    return {name: None if value == math.inf else value for name, value in values.items()}
