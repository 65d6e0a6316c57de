"""What came of a study: each analysis with its result, or why it has none, and the record of its run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wardround.analytics.census import CohortSize
from wardround.analytics.result import Result, json_text, json_value
from wardround.engines.record import RunRecord
from wardround.studies.study import Analysis, Study


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a run cost, and which sites were in it.

    Attributes:
        rounds: number of asks.
        asked: how often each site function was asked, by name and version, in order of first use.
        numbers_up: numbers that one site sent, over all rounds.
        bytes_up: bytes that one site sent, over all rounds.
        bytes_down: bytes that one site was sent, over all rounds.
        seconds: wall time of the rounds.
        sites: the roster.
        failures: by site that was missing from some total: when, and why.
    """

    rounds: int
    asked: Mapping[str, int]
    numbers_up: int
    bytes_up: int
    bytes_down: int
    seconds: float
    sites: tuple[str, ...]
    failures: Mapping[str, str]

    @classmethod
    def of(cls, record: RunRecord) -> RunFacts:
        """Read off a run's record."""
        asked: dict[str, int] = {}
        for round_ in record.rounds:
            function_id = round_.ask.function.function_id
            asked[function_id] = asked.get(function_id, 0) + 1
        layouts = [round_.ask.layout for round_ in record.rounds]
        return cls(
            rounds=len(record.rounds),
            asked=asked,
            numbers_up=sum(field.size for la in layouts for field in (*la.exact, *la.people, *la.bounded)),
            bytes_up=record.bytes_up,
            bytes_down=sum(round_.bytes_down for round_ in record.rounds),
            seconds=record.seconds,
            sites=record.sites,
            failures=dict(record.failures),
        )

    def summary(self) -> str:
        """One paragraph."""
        text = (
            f"{self.rounds} rounds in {self.seconds:.2f} s; each site sent {self.numbers_up:,} numbers "
            f"({self.bytes_up:,} bytes) and was sent {self.bytes_down:,} bytes."
        )
        return " ".join([text, *(f"Site {site} was absent {reason}." for site, reason in self.failures.items())])

    def to_dict(self) -> dict[str, Any]:
        """All attributes as JSON values."""
        return {
            "rounds": self.rounds,
            "asked": dict(self.asked),
            "numbers": self.numbers_up,
            "bytes": self.bytes_up,
            "bytes_received": self.bytes_down,
            "seconds": self.seconds,
            "sites": list(self.sites),
            "failures": dict(self.failures),
        }


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
class StudyOutcome:
    """A study that was carried out.

    Attributes:
        study: what was asked.
        cohort: how many records and patients it is about.
        sites: the roster.
        is_simulation: whether the hospitals were tables in one process.
        analyses: in the study's order.
        versions: of the packages that computed it, by name.
    """

    study: Study
    cohort: CohortSize
    sites: tuple[str, ...]
    is_simulation: bool
    analyses: tuple[AnalysisOutcome, ...]
    versions: Mapping[str, str]

    @property
    def failed(self) -> tuple[AnalysisOutcome, ...]:
        """The analyses without a result."""
        return tuple(outcome for outcome in self.analyses if outcome.failure)

    def to_dict(self) -> dict[str, Any]:
        """The whole outcome as JSON values."""
        study = self.study
        keys = ("name", "question", "purpose", "minimum_sites", "contract", "patient", "cohort", "violations")
        document = {
            "study": {key: getattr(study, key) for key in keys},
            "cohort": self.cohort.to_dict(),
            "analyses": [outcome.to_dict() for outcome in self.analyses],
            "sites": list(self.sites),
            "wardround": self.versions["wardround"],
            "versions": dict(self.versions),
        }
        return dict(json_value(document))

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict())
