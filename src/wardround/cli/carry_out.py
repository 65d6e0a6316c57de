"""Carry the analyses of a study out, one after the other, and print what came of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from wardround.analytics.census import census
from wardround.analytics.result import Result
from wardround.engines.simulation import Simulation
from wardround.errors import WardroundError
from wardround.report.outcome import AnalysisOutcome, DataReading, Failure, RunFacts, StudyOutcome
from wardround.report.protection import SumsInWords
from wardround.report.versions import versions
from wardround.studies.fitted_model import with_fitted_models
from wardround.studies.study import Analysis, Study

_AGREED = DataReading()
_REMEDY = "return one with the members of wardround.analytics.result.Result"
_RULE_WIDTH = 78
_MOST_NAMED = 12


def carry_out(
    study: Study,
    simulation: Simulation,
    *,
    record: Path | None = None,
    begin: Callable[[str], object] = str,
    reading: DataReading = _AGREED,
    date: str | None = None,
) -> StudyOutcome:
    """Carry all analyses of a study out, one after the other.

    Args:
        study: with analyses that passed their preflight.
        simulation: the hospitals.
        record: folder that keeps a file with the record of every run; None keeps none.
        begin: told the label of each analysis before it begins.
        reading: how the tables became data.
        date: of today (ISO 8601); None where nobody says.

    Raises:
        WardroundError: the cohort cannot be counted.
    """
    begin("counting the cohort")
    cohort = simulation.run(census())
    outcomes: list[AnalysisOutcome] = []
    for analysis in study.analyses:
        begin(analysis.label)
        results = {one.analysis.number: one.result for one in outcomes}
        outcomes.append(_carry_out_one(analysis, results, simulation, record))
    return StudyOutcome(
        study=study,
        cohort=cohort,
        sites=simulation.sites,
        is_simulation=True,
        analyses=tuple(outcomes),
        versions=versions(),
        disclosure=simulation.disclosure,
        site_disclosure={
            site: rules for site, rules in simulation.site_disclosure.items() if rules != study.disclosure
        },
        sums=SumsInWords.of(simulation.protection, len(simulation.sites), simulation.minimum_sites, noun="hospital"),
        reading=reading,
        date=date,
    )


def _carry_out_one(
    analysis: Analysis, results: Mapping[int, Result | Failure], simulation: Simulation, record: Path | None
) -> AnalysisOutcome:
    save_to = record / _record_name(analysis) if record else None
    try:
        analysis = with_fitted_models(analysis, results)
        run = simulation.record(analysis.workflow, save_to=save_to)
    except WardroundError as error:
        return AnalysisOutcome(analysis=analysis, result=Failure(type(error).__name__, str(error)), facts=None)
    result: Result | Failure = run.result
    if not isinstance(result, Result):
        kind = type(run.result).__name__
        result = Failure("ConfigError", f"the workflow gave a {kind}, which is no result that can be shown; {_REMEDY}")
    return AnalysisOutcome(analysis=analysis, result=result, facts=RunFacts.of(run.record))


def _record_name(analysis: Analysis) -> str:
    return f"{analysis.number:03d}-{re.sub(r'[^a-z0-9]+', '-', analysis.workflow.name)}.wardround-run"


def outcome_text(outcome: StudyOutcome) -> str:
    """A study's results as text for people."""
    study = outcome.study
    head = [study.name, "=" * min(len(study.name), _RULE_WIDTH), study.question, ""]
    there = outcome.cohort.sites
    named = ", ".join(there[:_MOST_NAMED])
    more = len(there) - _MOST_NAMED
    head.append(f"{outcome.cohort.summary()}: {named}" + (f" and {more} more" if more > 0 else ""))
    if without := [site for site in outcome.sites if site not in there]:
        head.append(f"Without {', '.join(without[:_MOST_NAMED])}, as is said below.")
    head.append(outcome.sums_line)
    return "\n".join([*head, *(_analysis_text(analysis) for analysis in outcome.analyses)])


def _analysis_text(outcome: AnalysisOutcome) -> str:
    title = f"{outcome.analysis.number}. {outcome.analysis.title}"
    lines = ["", title, "-" * min(len(title), _RULE_WIDTH), ""]
    if isinstance(outcome.result, Failure):
        return "\n".join([*lines, f"No result: {outcome.result.message}"])
    lines.append(outcome.result.summary())
    if outcome.facts:
        lines.append(outcome.facts.summary())
        if outcome.facts.asks_in_clear:
            lines.append("IN CLEAR: every hospital was asked for its own contribution, which the coordinator saw.")
    return "\n".join(lines)
