"""`wardround run`: carry a study out, print what came of it, write its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wardround.cli.carry_out import carry_out, outcome_text
from wardround.cli.study_file import contract_of, read_study
from wardround.cli.terminal import output_kept_pure, show, show_json, talk, watched
from wardround.data.contract import Contract
from wardround.data.sources.folder import tables_in
from wardround.engines.simulated_hospitals import infer, simulate
from wardround.errors import ConfigError
from wardround.report.html import check_can_report, write_report
from wardround.report.outcome import StudyOutcome
from wardround.studies.extensions import installed_vocabulary
from wardround.studies.preflight import preflight
from wardround.studies.study import Study

_MOST_TOLD = 10


def run_study(
    study_path: Path, folder: Path, *, as_json: bool, report: Path | None, record: Path | None, seed: int
) -> int:
    """Carry the study file's study out on the tables in `folder`; returns the exit code.

    An analysis that fails leaves the others standing: it is told of, and the exit code is 1.

    Raises:
        WardroundError: the study is refused.
    """
    with output_kept_pure():
        study = read_study(study_path, installed_vocabulary())
        if report:
            check_can_report(report)
        if record:
            _make_folder(record)
        outcome = _simulated(study, study_path, folder, record, seed)
    if as_json:
        show_json(outcome.to_json())
    else:
        show(outcome_text(outcome))
    if report:
        with output_kept_pure():
            write_report(outcome, report)
        talk(f"report: {report}")
    for failed in outcome.failed:
        talk(f"wardround: {failed.analysis.label}: {failed.failure}")
    return 1 if outcome.failed else 0


def _simulated(study: Study, study_path: Path, folder: Path, record: Path | None, seed: int) -> StudyOutcome:
    tables = tables_in(folder)
    _check_quorum(study, len(tables), folder)
    contract = contract_of(study, study_path) or _inferred(tables, study)
    doing = [f"reading {folder}"]
    with watched(lambda: doing[0]) as progress:
        simulation = simulate(
            tables,
            contract=contract,
            patient=study.patient,
            cohort=study.cohort,
            violations=study.violations,
            minimum_sites=study.minimum_sites,
            seed=seed,
            progress=progress,
            disclosure=study.disclosure,
            on_misfit=lambda report: talk(f"note: {report}"),
        )
        preflight(study.analyses, simulation.setting)
        return carry_out(study, simulation, record=record, begin=lambda label: doing.__setitem__(0, label))


def _inferred(tables: Mapping[str, Path], study: Study) -> Contract:
    """The contract that the tables fit; how they were read is told where one may read them otherwise."""
    inference = infer(tables, patient=study.patient)
    for said in inference.assumptions[:_MOST_TOLD]:
        talk(f"note: {said}")
    if len(inference.assumptions) > _MOST_TOLD:
        talk(f"note: and {len(inference.assumptions) - _MOST_TOLD} more, as 'wardround contract infer' shows")
    return inference.contract


def _check_quorum(study: Study, num_sites: int, folder: Path) -> None:
    if study.minimum_sites is not None and study.minimum_sites > num_sites:
        raise ConfigError(
            f"study.minimum_sites is {study.minimum_sites}, and {folder} has tables of {num_sites} sites; "
            "add tables or lower it"
        )


def _make_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--record {folder} is a file; name a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # a broken link is "File exists"
        raise ConfigError(f"--record {folder} cannot be made ({error.strerror}); name another folder") from None
