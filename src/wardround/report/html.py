"""The report of a study: one HTML file that needs nothing else, for reading, printing and keeping."""

from __future__ import annotations

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from wardround.errors import ConfigError, StoreError
from wardround.report.outcome import StudyOutcome
from wardround.report.page import page_view
from wardround.report.tables import count_text
from wardround.report.target import PAGE, check_target

NEEDED = ("jinja2", "matplotlib")
"""Packages of the extra `report`."""


def check_packages() -> None:
    """Raises `ConfigError` where a package that a report needs is missing; says what to install."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(f"a report needs {' and '.join(missing)}; install them with: pip install 'wardround[report]'")


def check_can_report(path: Path) -> None:
    """Find out before any work whether a report can be written to `path`.

    Raises:
        ConfigError: a package is missing, or the path is no place for a file; says what to do.
        StoreError: what is there cannot be read.

    Guarantees:
        only_a_page_is_replaced: a study file, a table, a device or whatever else is there is left as it is.
    """
    check_packages()
    check_target(path, PAGE)


def write_report(outcome: StudyOutcome, path: Path) -> None:
    """Write the report of a study to a file, replacing a report there; raises as `write_page`."""
    check_can_report(path)
    write_page(render_report(outcome), path)


def write_page(page: str, path: Path) -> None:
    """Write a rendered report to a file, replacing a report there.

    Raises:
        ConfigError: as `check_can_report`.
        StoreError: the file cannot be written.
    """
    check_can_report(path)
    try:
        path.write_text(page, encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        raise StoreError(f"the report {path} cannot be written ({error.strerror})") from None


def render_report(outcome: StudyOutcome) -> str:
    """The report as HTML.

    Guarantees:
        everything_is_escaped: no text of a study, a site or a result becomes markup.
        needs_nothing_else: the page makes no request, and holds no script.
        equal_outcomes_give_equal_reports: no clock and no random number is asked.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["count"] = _count
    view = page_view(outcome)
    return environment.from_string(_resource("study.html.jinja")).render(
        page=view, outcome=outcome, study=outcome.study, style=_resource("report.css")
    )


def _resource(name: str) -> str:
    return files("wardround.report").joinpath(name).read_text(encoding="utf-8")


def _count(number: int | None) -> str:
    return "hidden" if number is None else count_text(number)
