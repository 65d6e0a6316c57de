"""`wardround run`: carry a study out, print what came of it, write its report."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wardround.cli.carry_out import carry_out, outcome_text
from wardround.cli.study_file import contract_of, read_study, site_rules, study_digest
from wardround.cli.terminal import output_kept_pure, show, show_json, talk, watched
from wardround.data.report import ContractReport
from wardround.data.sources.folder import tables_in
from wardround.engines.simulated_hospitals import infer, simulate
from wardround.engines.simulation import Progress, Simulation
from wardround.errors import ConfigError
from wardround.privacy.protection import SumProtection
from wardround.privacy.secagg.terms import LEAST_SITES
from wardround.report.html import check_can_report, render_report, write_page
from wardround.report.outcome import DataReading, StudyOutcome
from wardround.report.pdf import check_can_print, find_browser, write_pdf
from wardround.report.protection import SumsInWords
from wardround.studies.extensions import installed_vocabulary
from wardround.studies.preflight import preflight
from wardround.studies.study import Study

_MOST_TOLD = 10
_NO_NOTES: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Faces:
    """What becomes of an outcome.

    Attributes:
        as_json: print a JSON document instead of text.
        report: write the report as HTML here.
        pdf: write it as PDF here.
        browser: path or name of the browser that prints; None: one of the usual names.
    """

    as_json: bool = False
    report: Path | None = None
    pdf: Path | None = None
    browser: str | None = None

    def check(self) -> None:
        """Find out before any work whether everything can be written. Raises `WardroundError` that says what to do."""
        if self.report:
            check_can_report(self.report)
        if self.pdf:
            check_can_print(self.pdf, self.browser)

    def show(self, outcome: StudyOutcome) -> None:
        """Print the outcome, then write the files. Raises `WardroundError` where one cannot be written."""
        try:
            if self.as_json:
                show_json(outcome.to_json())
            else:
                show(outcome_text(outcome))
        finally:  # whoever reads no further (`| head`) still wants the files
            if self.report or self.pdf:
                with output_kept_pure():
                    self._write(render_report(outcome))

    def _write(self, page: str) -> None:
        if self.report:
            write_page(page, self.report)
            talk(f"report: {self.report}")
        if self.pdf:
            write_pdf(page, self.pdf, find_browser(self.browser))
            talk(f"report: {self.pdf}")


def run_study(study_path: Path, folder: Path, *, faces: Faces, record: Path | None, seed: int) -> int:
    """Carry the study file's study out on the tables in `folder`; returns the exit code.

    An analysis that fails leaves the others standing: it is told of, and the exit code is 1.

    Raises:
        WardroundError: the study is refused.
    """
    with output_kept_pure():
        study = read_study(study_path, installed_vocabulary())
        faces.check()
        if record:
            _make_folder(record)
        outcome = _simulated(study, study_path, folder, record, seed)
    faces.show(outcome)
    for failed in outcome.failed:
        talk(f"wardround: {failed.analysis.label}: {failed.failure}")
    return 1 if outcome.failed else 0


def _simulated(study: Study, study_path: Path, folder: Path, record: Path | None, seed: int) -> StudyOutcome:
    doing = [f"reading {folder}"]
    with watched(lambda: doing[0]) as progress:
        simulation, reading = hospitals(
            study, study_path, folder, protection=study.privacy, seed=seed, progress=progress, transcripts=record
        )
        try:
            return carry_out(
                study,
                simulation,
                record=record,
                begin=lambda label: doing.__setitem__(0, label),
                reading=reading,
                date=datetime.date.today().isoformat(),
            )
        finally:
            for closed in simulation.close_transcripts():
                talk(f"transcript: {closed.path} (fingerprint {closed.fingerprint})")


def hospitals(
    study: Study,
    study_path: Path,
    folder: Path,
    *,
    protection: SumProtection,
    seed: int = 0,
    progress: Callable[[Progress], None],
    transcripts: Path | None = None,
) -> tuple[Simulation, DataReading]:
    """The simulated hospitals of a study, its analyses checked; tells on standard error how tables were read.

    Args:
        study: from `study_path`.
        study_path: its contract lies beside it.
        folder: one table a site, and the sites' own rules.
        protection: of the sums: the study's, or that of a rehearsal.
        seed: of the simulated sites.
        progress: told of every round.
        transcripts: folder for the transcripts of secure sums; None keeps none.

    Raises:
        WardroundError: the study cannot be carried out on these tables.
    """
    tables = tables_in(folder)
    check_quorum(study, len(tables), f"{folder} has tables of")
    SumsInWords.of(protection, len(tables), study.minimum_sites)  # refused here rather than after the reading
    contract, notes = contract_of(study, study_path), _NO_NOTES
    if contract is None:
        inference = infer(tables, patient=study.patient)
        contract, notes = inference.contract, inference.assumptions
        _tell(notes)
    misfits: list[ContractReport] = []
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
        site_disclosure=site_rules(folder, tables),
        on_misfit=misfits.append,
        protection=protection,
        study_digest=study_digest(study_path, contract),
        transcripts=transcripts,
    )
    for misfit in misfits:
        talk(f"note: {misfit}")
    preflight(study.analyses, simulation.setting)
    return simulation, DataReading(is_inferred=contract.is_inferred, notes=notes, misfits=tuple(misfits))


def _tell(assumptions: Sequence[str]) -> None:
    """How tables without a contract were read, where one may read them otherwise."""
    for said in assumptions[:_MOST_TOLD]:
        talk(f"note: {said}")
    if len(assumptions) > _MOST_TOLD:
        talk(f"note: and {len(assumptions) - _MOST_TOLD} more, as 'wardround contract infer' shows")


def check_quorum(study: Study, num_sites: int, said_by: str) -> None:
    """Refuse a study that needs more sites than there are; `said_by` is what says how many: "DIR has tables of".

    Raises:
        ConfigError: says what to do.
    """
    if study.minimum_sites is not None and study.minimum_sites > num_sites:
        secure = " (secure sums take three sites, or secure_sums = false under [privacy])"
        few = secure if study.privacy.secure_sums and num_sites < LEAST_SITES else ""
        raise ConfigError(
            f"study.minimum_sites is {study.minimum_sites}, and {said_by} {num_sites} sites; add sites or lower it{few}"
        )


def _make_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--record {folder} is a file; name a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # a broken link is "File exists"
        raise ConfigError(f"--record {folder} cannot be made ({error.strerror}); name another folder") from None
