"""`wardround demo`: real patients of many hospitals, analysed together without pooling them, beside pooling them."""

from __future__ import annotations

from pathlib import Path

from wardround.cli.carry_out import carry_out, outcome_text
from wardround.cli.demo_heart import heart_demo
from wardround.cli.demo_lung import lung_demo
from wardround.cli.demo_study import NEEDS_EXTRA, Comparison, DemoStudy, compare, comparison_text, resource
from wardround.cli.terminal import output_kept_pure, show
from wardround.engines.simulated_hospitals import simulate
from wardround.errors import ConfigError, StoreError
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


def unpack_demo(folder: Path) -> int:
    """Write the demonstration's studies, contracts and hospitals' tables into a folder; returns the exit code.

    `wardround run FOLDER/heart/study.toml --simulate FOLDER/heart/hospitals` then does what the demonstration does.

    Raises:
        WardroundError: the extra `demo` is not installed, or the folder holds something or cannot be written.
    """
    demos = {"heart": heart_demo(), "lung": lung_demo()}
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--unpack {folder} is a file, or a folder that holds something; name a new folder")
    try:
        for name, demo in demos.items():
            _unpack(demo, folder / name, name)
    except OSError as error:
        raise StoreError(f"--unpack {folder} cannot be written ({error.strerror})") from None
    for name in demos:
        here = folder / name
        show(f"wardround run {here / 'study.toml'} --simulate {here / 'hospitals'} --report {name}.html")
    return 0


def _unpack(demo: DemoStudy, folder: Path, name: str) -> None:
    (folder / "hospitals").mkdir(parents=True)
    for file in ("study.toml", "contract.toml"):
        (folder / file).write_text(resource(name, file), encoding="utf-8", newline="\n")
    for hospital, table in demo.tables.items():
        table.to_csv(folder / "hospitals" / f"{hospital}.csv", index=False, lineterminator="\n")


def _carried_out(demo: DemoStudy) -> tuple[StudyOutcome, Comparison]:
    simulation = simulate(
        demo.tables, contract=demo.contract, disclosure=demo.study.disclosure, protection=demo.study.privacy
    )
    preflight(demo.study.analyses, simulation.setting)
    outcome = carry_out(demo.study, simulation)
    compared = next(one for one in outcome.analyses if isinstance(one.result, demo.compared))
    try:
        return outcome, compare(demo, compared)
    except ModuleNotFoundError as error:  # what the pooled table is fitted with
        raise ConfigError(NEEDS_EXTRA.format(error.name)) from None
