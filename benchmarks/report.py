"""The report: how long it takes to build beside drawing its figures alone, how large it is beside them, and its PDF."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import tomli_w

from benchmarks.measure import Row, best_seconds, milliseconds
from wardround.analytics.result import FigureExhibit
from wardround.cli.carry_out import carry_out
from wardround.engines.simulated_hospitals import simulate
from wardround.errors import ConfigError
from wardround.report.html import render_report
from wardround.report.outcome import Failure, StudyOutcome
from wardround.report.pdf import find_browser, write_pdf
from wardround.studies.extensions import installed_vocabulary
from wardround.studies.study import parse_study

NUM_SITES, NUM_ROWS = 10, 10_000
BUILD_GOAL, SIZE_GOAL = 1.5, 2.0
ANALYSES = [
    {"workflow": "describe", "title": "The patients", "by": "treated"},
    {"workflow": "glm", "title": "Stay", "formula": "stay ~ age + C(ward) + treated"},
    {"workflow": "glm", "title": "Deaths", "formula": "died ~ age + C(ward) + treated", "family": "binomial"},
    {"workflow": "kaplan_meier", "title": "Survival", "time": "days", "event": "died", "by": "treated"},
    {"workflow": "cox", "title": "Hazards", "formula": "age + C(ward) + treated", "time": "days", "event": "died"},
]


def rows(scale: float) -> Iterator[Row]:
    """A report of five analyses at ten hospitals; raises `RuntimeError` where an analysis fails."""
    outcome = _carried_out(max(int(NUM_ROWS * scale), 200 * NUM_SITES))
    figures = [e for one in outcome.analyses for e in _exhibits(one.result) if isinstance(e, FigureExhibit)]
    best = best_seconds({"report": lambda: render_report(outcome), "figures": lambda: _drawn(figures)}, repeats=3)
    name = f"report, {len(ANALYSES)} analyses, {len(figures)} figures, {NUM_SITES} sites"
    yield Row(
        name=name,
        measured=milliseconds(best["report"]),
        against="its figures drawn, alone",
        limit=milliseconds(best["figures"]),
        goal=BUILD_GOAL,
    )
    page = render_report(outcome)
    yield Row(
        name="report, size",
        measured=len(page.encode()) / 2**20,
        against="its figures as files",
        limit=_drawn(figures) / 2**20,
        goal=SIZE_GOAL,
        unit="MiB",
    )
    yield from _pdf_rows(page)


def _carried_out(num_rows: int) -> StudyOutcome:
    document = {"study": {"name": "Benchmark", "question": "How long does it take?"}, "analysis": ANALYSES}
    study = parse_study(tomli_w.dumps(document), installed_vocabulary())
    outcome = carry_out(study, simulate(_hospitals(num_rows), disclosure=study.disclosure))
    if outcome.failed:
        raise RuntimeError("; ".join(f"{one.analysis.title}: {one.failure}" for one in outcome.failed))
    return outcome


def _hospitals(num_rows: int) -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(5)
    age = rng.normal(65, 10, num_rows).round()
    frame = pd.DataFrame(
        {
            "age": age,
            "ward": rng.choice(["acute", "day", "rehab", "surgery"], num_rows),
            "treated": rng.random(num_rows) < 0.5,
            "stay": rng.gamma(2, 3, num_rows).round(1),
            "died": rng.random(num_rows) < 1 / (1 + np.exp((70 - age) / 8)),
            "days": rng.integers(1, 1000, num_rows),
        }
    )
    parts = np.array_split(np.arange(num_rows), NUM_SITES)
    return {f"site {i}": frame.iloc[part] for i, part in enumerate(parts)}


def _exhibits(result: object) -> tuple[object, ...]:
    exhibits: tuple[object, ...] = () if isinstance(result, Failure) else result.exhibits()  # type: ignore[attr-defined]
    return exhibits


def _drawn(figures: list[FigureExhibit]) -> int:
    """Draw the figures as matplotlib does by itself; their size (unit: bytes)."""
    size = 0
    for figure in figures:
        buffer = io.BytesIO()
        figure.draw().savefig(buffer, format="svg")
        size += len(buffer.getvalue())
    return size


def _pdf_rows(page: str) -> Iterator[Row]:
    try:
        browser = find_browser()
    except ConfigError:  # there is none here
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.pdf"
        best = best_seconds(
            {
                "report": lambda: write_pdf(page, path, browser),
                "nothing": lambda: write_pdf("<!doctype html><html><head></head></html>", path, browser),
            },
            repeats=2,
        )
        yield Row(
            name="report, printed as PDF",
            measured=milliseconds(best["report"]),
            against="an empty page, printed",
            limit=milliseconds(best["nothing"]),
            goal=None,
        )
