"""The report of a study: one HTML file that needs nothing else, for reading, printing and keeping."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from wardround.errors import ConfigError, StoreError
from wardround.report.figures import svg_of
from wardround.report.methods import methods_text
from wardround.report.outcome import AnalysisOutcome, Failure, RunFacts, StudyOutcome
from wardround.report.tables import TableView, table_view

NEEDED = ("jinja2", "matplotlib")
"""Packages of the extra `report`."""

_FIRST_BYTES = b"<!doctype html>"
# What a report begins with.


def check_can_report(path: Path) -> None:
    """Find out before any work whether a report can be written to `path`.

    Raises:
        ConfigError: a package is missing, or the path is no place for a file; says what to do.
        StoreError: what is there cannot be read.

    Guarantees:
        only_a_page_is_replaced: a study file, a table, a device or whatever else is there is left as it is.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(f"a report needs {' and '.join(missing)}; install them with: pip install 'wardround[report]'")
    if path.is_dir():
        raise ConfigError(f"--report {path} is a folder; name a file in it, such as {path / 'report.html'}")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--report {path}: there is no folder {path.absolute().parent}; make it first")
    if path.exists() and not _is_page(path):
        raise ConfigError(f"--report {path} exists and is no report; name another file")


def _is_page(path: Path) -> bool:
    """Whether this is an HTML file, or an empty one."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(_FIRST_BYTES)).lower() in (b"", _FIRST_BYTES)
    except OSError as error:
        raise StoreError(f"--report {path}: what is there cannot be read ({error.strerror})") from None


def write_report(outcome: StudyOutcome, path: Path) -> None:
    """Write the report of a study to a file, replacing a report there.

    Raises:
        ConfigError: as `check_can_report`.
        StoreError: the file cannot be written.
    """
    check_can_report(path)
    page = render_report(outcome)
    try:
        path.write_text(page, encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        raise StoreError(f"the report {path} cannot be written ({error.strerror})") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    """One analysis as the template shows it."""

    number: int
    title: str
    methods: str
    failure: str | None
    table: TableView | None
    figure: str | None
    notes: tuple[str, ...]
    facts: RunFacts | None


def render_report(outcome: StudyOutcome) -> str:
    """The report as HTML.

    Guarantees:
        everything_is_escaped: no text of a study, a site or a result becomes markup.
        needs_nothing_else: the page makes no request, and holds no script.
        equal_outcomes_give_equal_reports: no date or random id is in it.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("wardround.report").joinpath("study.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        outcome=outcome, study=outcome.study, sections=[_section(one) for one in outcome.analyses]
    )


def _section(outcome: AnalysisOutcome) -> _Section:
    analysis, result = outcome.analysis, outcome.result
    table = figure = None
    if not isinstance(result, Failure):
        table = table_view(result.to_frame())
        figure = svg_of(result, f"Figure: {analysis.title}", f"figure{analysis.number}")
    return _Section(
        number=analysis.number,
        title=analysis.title,
        methods=methods_text(outcome),
        failure=outcome.failure,
        table=table,
        figure=figure,
        notes=() if isinstance(result, Failure) else result.notes,
        facts=outcome.facts,
    )
