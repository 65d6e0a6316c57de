"""`wardround privacy plan`: what a study's [privacy] means for so many sites, and what it costs."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wardround.analytics.result import json_text
from wardround.cli.calibration import measured_speeds
from wardround.cli.carry_out import carry_out
from wardround.cli.privacy_costs import AnalysisCost, Pricing, Question, traffic_dict
from wardround.cli.run import check_quorum, hospitals
from wardround.cli.study_file import contract_of, read_study
from wardround.cli.terminal import output_kept_pure, show, show_json, watched
from wardround.data.contract import Setting
from wardround.data.sources.folder import tables_in
from wardround.engines.simulation import Progress
from wardround.errors import ConfigError
from wardround.privacy.protection import SumProtection
from wardround.privacy.secagg.cost import Speeds, Traffic, setup_traffic
from wardround.privacy.secagg.terms import Terms
from wardround.report.protection import Said, SumsInWords
from wardround.studies.extensions import installed_vocabulary
from wardround.studies.fitted_model import with_stand_ins
from wardround.studies.preflight import preflight
from wardround.studies.study import Analysis, Study
from wardround.sums import Snapshot

_MAY_ASK_IN_CLEAR = Said(
    "Does anything go round the sums?",
    "An analysis may ask every site for its own contribution, in clear (allows_clear = true): the coordinator sees it, "
    "with the site's name. The analyses of a rehearsal (--simulate DIR) that do so are named below their costs.",
)
WIDTH = 100
"""Of the text (unit: characters)."""
_COHORT = "Counting the cohort"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyPlan:
    """What the protection of a study's sums means and costs.

    Attributes:
        study: whose.
        sums: the protection, for so many sites.
        set_up: bytes before the first round; None where sums are in clear.
        analyses: what each costs; first the counting of the cohort.
        speeds: of this machine, for sums over all sites; None where sums are in clear.
        notes: what the figures hold and what they do not.
    """

    study: Study
    sums: SumsInWords
    set_up: Traffic | None
    analyses: tuple[AnalysisCost, ...]
    speeds: Speeds | None
    notes: tuple[str, ...]

    def said(self) -> tuple[Said, ...]:
        """Questions that people ask about the sums, and the answers."""
        said = self.sums.said()
        return (*said, _MAY_ASK_IN_CLEAR) if self.sums.terms and self.sums.protection.allows_clear else said

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "study": self.study.name,
            "sites": self.sums.num_sites,
            "summary": self.sums.line(),
            "privacy": self.sums.to_dict(),
            "answers": [{"question": said.question, "answer": said.answer} for said in self.said()],
            "set_up": traffic_dict(self.set_up) if self.set_up else None,
            "analyses": [one.to_dict() for one in self.analyses],
            "speeds": {name: getattr(self.speeds, name) for name in Speeds.__slots__} if self.speeds else None,
            "notes": list(self.notes),
        }


def plan_privacy(study_path: Path, *, num_sites: int | None, folder: Path | None, as_json: bool) -> int:
    """Print the plan of a study for so many sites, or for the tables of a folder; returns the exit code.

    Raises:
        WardroundError: the study is refused, with these sites.
    """
    with output_kept_pure():
        study = read_study(study_path, installed_vocabulary())
        if folder is not None:
            plan = _rehearsed(study, study_path, folder)
        elif num_sites is not None:
            plan = _foreseen(study, study_path, num_sites)
        else:
            raise ConfigError("name the number of sites (--sites N) or a folder of tables (--simulate DIR)")
    if as_json:
        show_json(json_text(plan.to_dict()))
    else:
        show(plan_text(plan))
    return 0


def _rehearsed(study: Study, study_path: Path, folder: Path) -> PrivacyPlan:
    """From a run in clear on these tables, in which every round is looked at."""
    num_sites = len(tables_in(folder))
    check_quorum(study, num_sites, f"{folder} has tables of")
    sums = SumsInWords.of(study.privacy, num_sites, study.minimum_sites)
    asked: dict[str, list[Question]] = {}
    doing = [_COHORT]

    def look(progress: Progress) -> None:
        asked.setdefault(doing[0], []).append(Question.of(progress.round.ask))
        tell(progress)

    def begin(label: str) -> None:
        doing[0] = label if asked else _COHORT

    with watched(lambda: f"rehearsing {doing[0]}") as tell:
        simulation, _ = hospitals(study, study_path, folder, protection=in_clear(study.privacy), progress=look)
        outcome = carry_out(study, simulation, begin=begin)
    problems = {one.analysis.label: one.failure for one in outcome.failed}
    return _plan(
        study,
        sums,
        lambda pricing: (
            pricing.of(_COHORT, _COHORT, asked.get(_COHORT, [])),
            *(_rehearsed_cost(pricing, analysis, asked, problems) for analysis in study.analyses),
        ),
        "Rounds and sizes are those of a rehearsal in clear on these tables; other tables may take more or fewer.",
    )


def in_clear(protection: SumProtection) -> SumProtection:
    """The same buckets and clear asks without secure sums: what a rehearsal asks is what a run asks."""
    return SumProtection(secure_sums=False, bucket_size=protection.bucket_size, allows_clear=protection.allows_clear)


def _rehearsed_cost(
    pricing: Pricing, analysis: Analysis, asked: dict[str, list[Question]], problems: dict[str, str | None]
) -> AnalysisCost:
    problem = problems.get(analysis.label)
    cost = pricing.of(analysis.label, analysis.title, asked.get(analysis.label, []), is_whole=problem is None)
    return replace(cost, problem=problem)


def _foreseen(study: Study, study_path: Path, num_sites: int) -> PrivacyPlan:
    """From the first question of each analysis, which the contract decides; without a contract, terms alone."""
    check_quorum(study, num_sites, "--sites says")
    sums = SumsInWords.of(study.privacy, num_sites, study.minimum_sites)
    contract = contract_of(study, study_path)
    if contract is None:
        note = "The study names no contract, so the sizes of its questions are not known: try --simulate DIR."
        return _plan(study, sums, lambda pricing: (), note)
    sites = tuple(f"site {number}" for number in range(1, num_sites + 1))
    setting = Setting(contract=contract, sites=sites, disclosure=study.disclosure)
    preflight(study.analyses, setting)
    return _plan(
        study,
        sums,
        lambda pricing: tuple(_first_cost(pricing, analysis, study, setting) for analysis in study.analyses),
        "How many rounds there will be follows from the data: the figures are of the first question of each analysis. "
        "Try --simulate DIR for all of them.",
    )


def _first_cost(pricing: Pricing, analysis: Analysis, study: Study, setting: Setting) -> AnalysisCost:
    steps = with_stand_ins(analysis, study.analyses).workflow.steps(setting)
    try:
        step = next(steps, None)
        while isinstance(step, Snapshot):
            step = steps.send(None)
    finally:
        steps.close()
    questions = [] if step is None else [Question.of(step)]
    return pricing.of(analysis.label, analysis.title, questions, is_whole=False)


def _plan(
    study: Study, sums: SumsInWords, costs: Callable[[Pricing], tuple[AnalysisCost, ...]], note: str
) -> PrivacyPlan:
    speeds_of: Callable[[Terms], Speeds] = functools.cache(measured_speeds)
    analyses = costs(Pricing(sums, speeds_of))
    notes = [note] if sums.terms is None else [note, *_NOTES]
    return PrivacyPlan(
        study=study,
        sums=sums,
        set_up=setup_traffic(sums.num_sites) if sums.terms else None,
        analyses=analyses,
        speeds=speeds_of(sums.terms) if sums.terms else None,
        notes=tuple(notes),
    )


_NOTES = (
    "A round is one question and its sum; a leg is once to and fro between the coordinator and all sites.",
    "Bytes are exact for sums in which all sites answer.",
    (
        "Seconds are computing time, estimated from a short measurement on this machine: what it takes when nothing "
        "else runs. Time on the network is not in them, nor what the analyses themselves take: a round waits in each "
        "leg for the slowest site."
    ),
)


def plan_text(plan: PrivacyPlan) -> str:
    """The plan for people, at most `WIDTH` characters wide where no name is longer."""
    title = f"{plan.study.name}: how its sums are protected at {plan.sums.count(plan.sums.num_sites)}"
    lines = [title, "=" * min(len(title), WIDTH), "", *_wrapped(plan.sums.line())]
    for said in plan.said():
        lines += ["", said.question, *_wrapped(said.answer, "    ")]
    lines += ["", *_terms_lines(plan), *_cost_lines(plan)]
    for note in plan.notes:
        lines += ["", *_wrapped(note)]
    return "\n".join(lines)


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)


def _terms_lines(plan: PrivacyPlan) -> list[str]:
    """The figures that sites sign."""
    named = [("sum over all", plan.sums.terms), *((f"group {i}", one) for i, one in enumerate(plan.sums.buckets, 1))]
    shown = [(name, terms) for name, terms in named if terms is not None]
    if not shown:
        return []
    head = f"{'Terms':<16}{'sites':>7}{'at least':>10}{'threshold':>11}{'colluding':>11}{'tolerated':>11}   mode"
    rows = [
        f"{name:<16}{one.num_sites:>7}{one.minimum_survivors:>10}{one.threshold:>11}{one.colluding_sites:>11}"
        f"{one.tolerated_colluders:>11}   {one.mode}"
        for name, one in shown
    ]
    return [head, *rows, "", *_wrapped(_TERMS_MEAN), ""]


_TERMS_MEAN = (
    "At least: sites in every sum. Threshold: so many, with the coordinator, could open what each sent. Colluding: "
    "sites that may help the coordinator, as the study plans. Tolerated: the most of them with which the promise holds."
)


def _cost_lines(plan: PrivacyPlan) -> list[str]:
    is_whole = all(one.is_whole for one in plan.analyses)
    head = f"{'':<27}{'':>11}  {'each site':^28}  {'coordinator':^28}"
    columns = f"{'What it costs':<27}{'rounds':>6}{'legs':>5}  " + "  ".join(
        [f"{'sends':>9}{'is sent':>10}{'works':>9}"] * 2
    )
    lines = [head.rstrip(), columns]
    if plan.set_up:
        lines.append(_cost_line("Set-up, once a study", "", plan.set_up, None))
    for one in plan.analyses:
        rounds = str(one.questions) if one.is_whole else f"{one.questions}+"
        seconds = None if plan.sums.terms is None else (one.site_seconds, one.coordinator_seconds)
        lines.append(_cost_line(one.title, rounds, one.traffic, seconds))
    remarks = [line for one in plan.analyses for line in _remarks(one)]
    lines += ["", *remarks] if remarks else []
    worst = sum(one.coordinator_seconds_with_dropouts for one in plan.analyses)
    if plan.sums.terms and plan.sums.terms.num_may_drop and is_whole:
        lines += [
            "",
            *_wrapped(
                f"With {plan.sums.count(plan.sums.terms.num_may_drop)} missing from every sum, the coordinator "
                f"computes for {_seconds_text(worst)} in all."
            ),
        ]
    return lines


def _remarks(cost: AnalysisCost) -> list[str]:
    lines = []
    if cost.num_clear:
        count = f"{cost.num_clear} of {cost.questions} questions"
        lines += _wrapped(f"{cost.label}: {count} ask every site for its own contribution, IN CLEAR.")
    if cost.num_of_sites:
        count = f"{cost.num_of_sites} of {cost.questions} sums"
        lines += _wrapped(
            f"{cost.label}: {count} tell what is each site's own, as the disclosure rules allow; adding up does not "
            "hide that."
        )
    if cost.problem:
        lines += _wrapped(f"{cost.label}: no result in the rehearsal ({cost.problem})")
    return lines


def _cost_line(title: str, rounds: str, traffic: Traffic, seconds: tuple[float, float] | None) -> str:
    shown = title if len(title) <= 26 else f"{title[:23]}..."
    site, coordinator = ("", "") if seconds is None else map(_seconds_text, seconds)
    halves = [
        f"{_bytes_text(sent):>9}{_bytes_text(received):>10}{works:>9}"
        for sent, received, works in (
            (traffic.site_up, traffic.site_down, site),
            (traffic.coordinator_up, traffic.coordinator_down, coordinator),
        )
    ]
    return f"{shown:<27}{rounds:>6}{traffic.legs:>5}  {halves[0]}  {halves[1]}".rstrip()


def _bytes_text(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} B" if unit == "B" else f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def _seconds_text(seconds: float) -> str:
    if seconds < 0.0995:
        return f"{1000 * seconds:.2g} ms" if seconds < 0.00995 else f"{1000 * seconds:.0f} ms"
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.0f} min"
