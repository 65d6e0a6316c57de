"""`wardround demo`: real patients of many hospitals, analysed together without pooling them, beside pooling them."""

from __future__ import annotations

from pathlib import Path

from wardround.cli.carry_out import carry_out, outcome_text
from wardround.cli.demo_heart import heart_demo
from wardround.cli.demo_lung import lung_demo
from wardround.cli.demo_study import NEEDS_EXTRA, Comparison, DemoStudy, compare, comparison_text
from wardround.cli.terminal import output_kept_pure, show
from wardround.engines.simulated_hospitals import simulate
from wardround.errors import ConfigError
from wardround.report.html import check_can_report, write_report
from wardround.report.outcome import StudyOutcome
from wardround.studies.preflight import preflight


def run_demo(report: Path) -> int:
    """Run the demonstration's two studies and write a report of each; returns the exit code.

    Args:
        report: of the first study; the second's lies beside it and has "-survival" in its name.

    Raises:
        WardroundError: the extra `demo` is not installed, or a report cannot be written.
    """
    paths = (report, report.with_stem(f"{report.stem}-survival"))
    with output_kept_pure():
        for path in paths:
            check_can_report(path)
        demos = (heart_demo(), lung_demo())
        done = [_carried_out(demo) for demo in demos]
        for (outcome, _), path in zip(done, paths, strict=True):
            write_report(outcome, path)
    for demo, (outcome, comparison) in zip(demos, done, strict=True):
        show(demo.introduction)
        show(outcome_text(outcome))
        show(f"\nTogether, pooled, and alone\n{'-' * 27}\n\n{comparison_text(comparison)}\n")
    show("\n".join(f"Report: {path}" for path in paths))
    return 1 if any(outcome.failed for outcome, _ in done) else 0


def _carried_out(demo: DemoStudy) -> tuple[StudyOutcome, Comparison]:
    simulation = simulate(demo.tables, contract=demo.contract, disclosure=demo.study.disclosure)
    preflight(demo.study.analyses, simulation.setting)
    outcome = carry_out(demo.study, simulation)
    compared = next(one for one in outcome.analyses if isinstance(one.result, demo.compared))
    try:
        return outcome, compare(demo, compared)
    except ModuleNotFoundError as error:  # what the pooled table is fitted with
        raise ConfigError(NEEDS_EXTRA.format(error.name)) from None
