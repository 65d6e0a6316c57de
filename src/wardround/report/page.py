"""What a report shows, put in order and numbered: the values that its template lays out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from wardround.analytics.result import Exhibit, ExhibitKind, FigureExhibit, Headlined
from wardround.privacy.disclosure import DisclosureRules
from wardround.report.citations import Bibliography, Piece, cited
from wardround.report.figures import svg_of
from wardround.report.outcome import AnalysisOutcome, Failure, StudyOutcome
from wardround.report.protection import Said, named
from wardround.report.rules import RuleInWords, rules_in_words
from wardround.report.run_facts import RoundFacts, RunFacts, SiteFacts
from wardround.report.tables import TableView, plain_names, sentence, table_view

ORDER: tuple[ExhibitKind, ...] = ("table_one", "forest", "survival", "calibration", "heterogeneity", "other")
"""In which order the exhibits of an analysis are shown; within a kind, as the result gives them."""
_LONGEST_OPTION = 200
# Characters of an option that are shown; the JSON holds all of it.
FEDERATED_REFERENCE = (
    "Wolfson M, Wallace SE, Masca N, et al. DataSHIELD: resolving a conflict in contemporary bioscience: performing a "
    "pooled analysis of individual-level data without sharing the data. Int J Epidemiol 2010; 39(5): 1372-1382."
)
SECURE_SUMS_REFERENCE = (
    "Bonawitz K, Ivanov V, Kreuter B, et al. Practical secure aggregation for privacy-preserving machine learning. "
    "Proceedings of the 2017 ACM SIGSAC Conference on Computer and Communications Security (CCS 2017): 1175-1191."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExhibitView:
    """A table or a figure with its number.

    Attributes:
        anchor: the id of its place in the page.
        label: "Table 2", "Figure 1".
        title: in words.
        note: what stands below it.
        table: the table; None for a figure.
        svg: the figure as SVG; None for a table.
    """

    anchor: str
    label: str
    title: str
    note: str
    table: TableView | None = None
    svg: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisView:
    """One analysis.

    Attributes:
        number: its place in the study.
        title: as the study has it.
        failure: why there is no result.
        headlines: its main findings, a sentence each.
        exhibits: tables and figures in order.
        notes: what the reader should know that stands below no exhibit.
        methods: what was computed, with the numbers of the papers.
        workflow: name and version.
        options: as the study file gave them.
        facts: what the run cost.
    """

    number: int
    title: str
    failure: str | None
    headlines: tuple[str, ...]
    exhibits: tuple[ExhibitView, ...]
    notes: tuple[str, ...]
    methods: tuple[Piece, ...]
    workflow: str
    options: tuple[tuple[str, str], ...]
    facts: RunFacts | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteView:
    """What one site took part in over all analyses, and how much of it left the site."""

    name: str
    analyses: int
    rounds: int
    numbers_up: int
    bytes_up: int
    absences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedView:
    """A site function over all analyses: how often it was asked, and what one site sent in answer."""

    function: str
    meaning: str
    times: int
    num_people: int
    num_real: int
    num_bounded: int
    tells_of_sites: bool
    is_clear: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TightenedView:
    """A site whose own disclosure rules are stricter than the study's, and which these are."""

    site: str
    changes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundsView:
    """Rounds that followed each other with the same question to the same sites, as one line of the record."""

    first: int
    last: int
    function: str
    num_sites: int
    numbers_up: int
    bytes_up: int
    bytes_down: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SumsView:
    """How the sums were protected.

    Attributes:
        line: in one line.
        said: what people ask about it, and the answers.
        in_clear: the analyses that asked for every site's own contribution; empty if there are none.
        by_site: the analyses whose sums tell of each site, by the disclosure rules' leave; empty if there are none.
        legs: how often each question went to and fro.
    """

    line: str
    said: tuple[Said, ...]
    in_clear: str
    by_site: str
    legs: int

    @classmethod
    def of(cls, outcome: StudyOutcome) -> SumsView:
        """Read off an outcome."""
        ran = [(one.analysis.title, one.facts) for one in outcome.analyses if one.facts]
        return cls(
            line=outcome.sums_line,
            said=outcome.sums.said(),
            in_clear=named(title for title, facts in ran if facts.asks_in_clear),
            by_site=named(title for title, facts in ran if facts.tells_of_sites),
            legs=outcome.sums.legs,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PageView:
    """The whole report."""

    outcome: StudyOutcome
    analyses: tuple[AnalysisView, ...]
    overview: tuple[Piece, ...]
    references: tuple[str, ...]
    sites: tuple[SiteView, ...]
    asked: tuple[AskedView, ...]
    rules: tuple[RuleInWords, ...]
    tightened: tuple[TightenedView, ...]
    sums: SumsView

    @property
    def num_rounds(self) -> int:
        """Asks over all analyses."""
        return sum(one.facts.rounds for one in self.analyses if one.facts)

    @property
    def bytes_up(self) -> int:
        """Bytes that one site sent over all analyses."""
        return sum(one.facts.bytes_up for one in self.analyses if one.facts)

    @property
    def bytes_down(self) -> int:
        """Bytes of the questions that one site was sent over all analyses."""
        return sum(one.facts.bytes_down for one in self.analyses if one.facts)

    def lines(self, facts: RunFacts) -> tuple[RoundsView, ...]:
        """The record of a run, a line for rounds that differ in nothing but their numbers."""
        runs = groupby(facts.log, key=lambda round_: (round_.function, round_.absent))
        return tuple(_line(list(run), len(facts.sites)) for _, run in runs)


def page_view(outcome: StudyOutcome) -> PageView:
    """Put an outcome in the order in which a report shows it."""
    numbering, papers = _Numbering(), Bibliography()
    references = (FEDERATED_REFERENCE, SECURE_SUMS_REFERENCE) if outcome.sums.terms else (FEDERATED_REFERENCE,)
    overview = cited(_overview(outcome), references, papers)
    analyses = tuple(_analysis(one, numbering, papers) for one in outcome.analyses)
    ran = [one.facts for one in outcome.analyses if one.facts]
    return PageView(
        outcome=outcome,
        analyses=analyses,
        overview=overview,
        references=tuple(papers.papers),
        sites=_sites(outcome),
        asked=tuple(_asked(ran)),
        rules=rules_in_words(outcome.disclosure),
        tightened=tuple(
            TightenedView(site=site, changes=_changes(outcome.study.disclosure, rules))
            for site, rules in outcome.site_disclosure.items()
        ),
        sums=SumsView.of(outcome),
    )


@dataclass(slots=True)
class _Numbering:
    """Tables and figures are counted over the whole report."""

    counts: dict[str, int] = field(default_factory=dict)

    def next(self, kind: str) -> str:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return f"{kind} {self.counts[kind]}"


def _analysis(outcome: AnalysisOutcome, numbering: _Numbering, papers: Bibliography) -> AnalysisView:
    analysis, result = outcome.analysis, outcome.result
    exhibits: list[ExhibitView] = []
    headlines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    methods: tuple[Piece, ...] = ()
    if not isinstance(result, Failure):
        shown = sorted(result.exhibits(), key=lambda exhibit: ORDER.index(exhibit.kind))
        exhibits = [_exhibit(exhibit, numbering) for exhibit in shown]
        said = result.headlines() if isinstance(result, Headlined) else _described(shown)
        headlines = tuple(sentence(plain_names(text)) for text in said)
        notes = tuple(sentence(note) for note in result.notes if not _is_told(note, shown))
        methods = cited(result.methods(), result.references, papers)
    return AnalysisView(
        number=analysis.number,
        title=analysis.title,
        failure=outcome.failure,
        headlines=headlines,
        exhibits=tuple(exhibits),
        notes=notes,
        methods=methods,
        workflow=f"{analysis.workflow.type.name}, version {analysis.workflow.type.version}",
        options=tuple((name, _shortened(_option(value))) for name, value in analysis.given.items()),
        facts=outcome.facts,
    )


def _is_told(note: str, exhibits: Iterable[Exhibit]) -> bool:
    """Whether a note stands below a table or figure already."""
    return any(note.rstrip(".").casefold() in exhibit.note.casefold() for exhibit in exhibits)


def _described(exhibits: Iterable[Exhibit]) -> tuple[str, ...]:
    """What the first figure shows, of a result that has no words of its own."""
    return tuple(exhibit.description for exhibit in exhibits if isinstance(exhibit, FigureExhibit))[:1]


def _exhibit(exhibit: Exhibit, numbering: _Numbering) -> ExhibitView:
    is_figure = isinstance(exhibit, FigureExhibit)
    label = numbering.next("Figure" if is_figure else "Table")
    anchor = label.lower().replace(" ", "-")
    return ExhibitView(
        anchor=anchor,
        label=label,
        title=sentence(plain_names(exhibit.title.rstrip("."))),
        note=sentence(exhibit.note),
        table=None if isinstance(exhibit, FigureExhibit) else table_view(exhibit.frame),
        svg=svg_of(exhibit, anchor) if isinstance(exhibit, FigureExhibit) else None,
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_OPTION else f"{text[: _LONGEST_OPTION - 3]}..."


def _option(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_option, value))
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_option(item)}" for key, item in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _overview(outcome: StudyOutcome) -> str:
    """What holds for all analyses alike."""
    took_part = f"{len(outcome.sites)} hospitals took part" if len(outcome.sites) != 1 else "One hospital took part"
    head = (
        f"{took_part}. No record of a patient left its hospital: each hospital computed on its own records and "
        "contributed to sums over hospitals, from which everything above was computed (Wolfson 2010)."
    )
    sentences = [head]
    if outcome.study.minimum_sites is not None:
        sentences.append(f"No sum was taken over fewer than {outcome.study.minimum_sites} hospitals.")
    if outcome.sums.terms:
        sentences.append("What each hospital contributed was masked, and only the sums were revealed (Bonawitz 2017).")
    sentences.append(
        "Real numbers were summed in 128-bit fixed point, so that a sum does not depend on the order of the hospitals."
    )
    if outcome.study.cohort:
        sentences.append(f"The analyses are of the records with {outcome.study.cohort}.")
    return " ".join(sentences)


def _sites(outcome: StudyOutcome) -> tuple[SiteView, ...]:
    took_part: dict[str, list[tuple[str, SiteFacts]]] = {name: [] for name in outcome.sites}
    for one in outcome.analyses:
        for site in one.facts.by_site if one.facts else ():
            took_part[site.site].append((one.analysis.title, site))
    return tuple(
        SiteView(
            name=name,
            analyses=sum(site.rounds > 0 for _, site in facts),
            rounds=sum(site.rounds for _, site in facts),
            numbers_up=sum(site.numbers_up for _, site in facts),
            bytes_up=sum(site.bytes_up for _, site in facts),
            absences=tuple(f"{title}: {site.absence}" for title, site in facts if site.absence),
        )
        for name, facts in took_part.items()
    )


def _asked(runs: list[RunFacts]) -> Iterator[AskedView]:
    rounds = [round_ for facts in runs for round_ in facts.log]
    by_function: dict[str, list[RoundFacts]] = {}
    for round_ in rounds:
        by_function.setdefault(round_.function, []).append(round_)
    for function, asked in by_function.items():
        yield AskedView(
            function=function,
            meaning=asked[0].meaning,
            times=len(asked),
            num_people=sum(round_.num_people for round_ in asked),
            num_real=sum(round_.num_real for round_ in asked),
            num_bounded=sum(round_.num_bounded for round_ in asked),
            tells_of_sites=any(round_.tells_of_sites for round_ in asked),
            is_clear=any(round_.is_clear for round_ in asked),
        )


def _changes(study: DisclosureRules, site: DisclosureRules) -> str:
    pairs = zip(rules_in_words(study), rules_in_words(site), strict=True)
    changed = [f"{own.name.replace('_', ' ')} {own.value}" for common, own in pairs if common != own]
    return f"{site.preset}: {', '.join(changed)}"


def _line(run: list[RoundFacts], num_sites: int) -> RoundsView:
    return RoundsView(
        first=run[0].number,
        last=run[-1].number,
        function=run[0].function,
        num_sites=num_sites - len(run[0].absent),
        numbers_up=sum(round_.numbers_up for round_ in run),
        bytes_up=sum(round_.bytes_up for round_ in run),
        bytes_down=sum(round_.bytes_down for round_ in run),
        seconds=sum(round_.seconds for round_ in run),
    )
