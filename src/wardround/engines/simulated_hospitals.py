"""Simulated hospitals from tables: one table a site, checked against a contract before any work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import pandas as pd

from wardround.data.cohort import Cohort
from wardround.data.contract import Contract, Setting
from wardround.data.harmonise import MAX_TABLE_BYTES, Checked, ViolationPolicy, check_frames, check_size
from wardround.data.inference import Inference, infer_contract, profile
from wardround.data.names import checked_name
from wardround.data.reading import clean_text
from wardround.data.report import ContractReport, refuse_misfits
from wardround.data.sources.contract_file import read_contract
from wardround.data.sources.database import reading_files
from wardround.data.sources.files import file_source
from wardround.data.sources.folder import tables_in
from wardround.data.sources.frame import FrameSource
from wardround.data.sources.source import Source
from wardround.engines.script import Event
from wardround.engines.simulation import Progress, Simulation
from wardround.errors import ConfigError, DataError
from wardround.privacy.disclosure import DisclosureRules
from wardround.privacy.protection import SumProtection

__all__ = ["TableLike", "check_tables", "infer", "simulate", "simulate_folder", "tables_in"]

_NO_RULES: Mapping[str, DisclosureRules | str] = MappingProxyType({})
TableLike: TypeAlias = pd.DataFrame | str | Path | Source
"""What a site's table may be given as: a frame, the path of a CSV or Parquet file, or a source."""


def simulate(
    tables: Mapping[str, TableLike],
    *,
    contract: Contract | str | Path | None = None,
    patient: str | None = None,
    cohort: str | None = None,
    violations: ViolationPolicy = "refuse",
    minimum_sites: int | None = None,
    seed: int = 0,
    script: Sequence[Event] = (),
    progress: Callable[[Progress], None] | None = None,
    shows_site_errors: bool = False,
    disclosure: DisclosureRules | str | None = None,
    site_disclosure: Mapping[str, DisclosureRules | str] = _NO_RULES,
    on_misfit: Callable[[ContractReport], object] | None = None,
    secure: bool = False,
    protection: SumProtection | None = None,
    study_digest: bytes = bytes(32),
    transcripts: str | Path | None = None,
) -> Simulation:
    """Hospitals in this process, each with its table.

    Args:
        tables: by site's name, its table.
        contract: what every table must fit, or the path of its TOML file; None: inferred from all tables.
        patient: the column that tells patients apart, where the contract is inferred.
        cohort: which rows the work is on, as SQL writes it after WHERE (`wardround.data.cohort`); None: all.
        violations: whether values that break the contract are refused or count as missing.
        minimum_sites: as `Simulation`.
        seed: as `Simulation`.
        script: as `Simulation`.
        progress: as `Simulation`.
        shows_site_errors: as `Simulation`.
        disclosure: as `Simulation`; None: the standard rules.
        site_disclosure: as `Simulation`.
        on_misfit: told of each table of which values count as missing because they break the contract.
        secure: as `Simulation`.
        protection: as `Simulation`.
        study_digest: as `Simulation`.
        transcripts: as `Simulation`.

    Raises:
        ContractError: a table does not fit; tells of all sites at once, and carries their reports.
        ConfigError: a site's name, a path, the contract or the cohort is wrong.
        DataError: a table is malformed or too large.
        StoreError: a file cannot be read.

    Guarantees:
        all_sites_are_checked_first: no table is worked on unless every table fits.
    """
    with _reader(tables):
        sources = _sources(tables)
        agreed = _infer(sources, patient).contract if contract is None else _contract(contract, patient)
        chosen = None if cohort is None else Cohort.parse(cohort, agreed)
        checked = {site: _check(source, agreed, site, violations) for site, source in sources.items()}
    reports = [one.report for one in checked.values()]
    refuse_misfits(reports)
    for misfit in reports:
        if on_misfit is not None and not misfit.fits:
            on_misfit(misfit)
    tables_held = {site: one.table for site, one in checked.items() if one.table is not None}
    return Simulation(
        {site: table if chosen is None else chosen.of(table) for site, table in tables_held.items()},
        Setting(contract=agreed, sites=tuple(tables_held)),
        seed=seed,
        minimum_sites=minimum_sites,
        script=script,
        progress=progress,
        shows_site_errors=shows_site_errors,
        disclosure=disclosure,
        site_disclosure=site_disclosure,
        secure=secure,
        protection=protection,
        study_digest=study_digest,
        transcripts=transcripts,
    )


def simulate_folder(
    folder: str | Path,
    *,
    contract: Contract | str | Path | None = None,
    patient: str | None = None,
    cohort: str | None = None,
    violations: ViolationPolicy = "refuse",
    minimum_sites: int | None = None,
    seed: int = 0,
    script: Sequence[Event] = (),
    progress: Callable[[Progress], None] | None = None,
    shows_site_errors: bool = False,
    disclosure: DisclosureRules | str | None = None,
    site_disclosure: Mapping[str, DisclosureRules | str] = _NO_RULES,
    on_misfit: Callable[[ContractReport], object] | None = None,
    secure: bool = False,
    protection: SumProtection | None = None,
    study_digest: bytes = bytes(32),
    transcripts: str | Path | None = None,
) -> Simulation:
    """Hospitals in this process from a folder with one table a site, as `tables_in` finds them; else as `simulate`."""
    return simulate(
        tables_in(folder),
        contract=contract,
        patient=patient,
        cohort=cohort,
        violations=violations,
        minimum_sites=minimum_sites,
        seed=seed,
        script=script,
        progress=progress,
        shows_site_errors=shows_site_errors,
        disclosure=disclosure,
        site_disclosure=site_disclosure,
        on_misfit=on_misfit,
        secure=secure,
        protection=protection,
        study_digest=study_digest,
        transcripts=transcripts,
    )


def infer(tables: Mapping[str, TableLike], *, patient: str | None = None) -> Inference:
    """The contract that all these tables fit, with notes for people; raises as `simulate` does."""
    with _reader(tables):
        return _infer(_sources(tables), patient)


def check_tables(
    tables: Mapping[str, TableLike], contract: Contract | str | Path, *, violations: ViolationPolicy = "refuse"
) -> dict[str, ContractReport]:
    """How each site's table fits a contract; raises `ConfigError` and `DataError` as `simulate` does."""
    agreed = _contract(contract, None)
    with _reader(tables):
        return {site: _check(source, agreed, site, violations).report for site, source in _sources(tables).items()}


def _reader(tables: Mapping[str, TableLike]) -> AbstractContextManager[object]:
    """Held open while many files are read one after the other."""
    has_files = any(isinstance(table, str | Path) for table in tables.values())
    return reading_files() if has_files else nullcontext()


def _sources(tables: Mapping[str, TableLike]) -> dict[str, Source]:
    if not tables:
        raise ConfigError("there is no site; give at least one table")
    sources: dict[str, Source] = {}
    for given, table in tables.items():
        if not isinstance(given, str):
            raise TypeError(f"a site's name must be a string, got {type(given).__name__}")
        site = checked_name(given, "site")
        if site in sources:
            raise ConfigError(f"two sites are named {site!r} (after Unicode normalisation); rename one of them")
        sources[site] = _source(table, site)
    return sources


def _source(table: TableLike, site: str) -> Source:
    if isinstance(table, pd.DataFrame):
        return FrameSource(table, site)
    if isinstance(table, str | Path):
        return file_source(table, site)
    if all(callable(getattr(table, method, None)) for method in ("names", "num_records", "chunks")):
        return table
    raise TypeError(f"site {site!r}: a table must be a DataFrame, a path or a source, got {type(table).__name__}")


def _contract(contract: Contract | str | Path, patient: str | None) -> Contract:
    if isinstance(contract, str | Path):
        contract = read_contract(contract)
    if not isinstance(contract, Contract):
        raise TypeError(f"contract must be a Contract or a path, got {type(contract).__name__}")
    if patient is not None and patient != contract.patient:
        raise ConfigError(f"patient={patient!r}, but the contract's patient column is {contract.patient!r}; drop one")
    return contract


def _infer(sources: Mapping[str, Source], patient: str | None) -> Inference:
    for site, source in sources.items():
        _refuse_too_wide(source, site)
    profiles = {site: profile(source.chunks(), site) for site, source in sources.items()}
    return infer_contract(profiles, patient=None if patient is None else clean_text(patient))


def _refuse_too_wide(source: Source, site: str) -> None:
    """Before a long reading: all columns of this table would not fit into memory as numbers."""
    num_records = source.num_records()
    if num_records is not None and num_records * len(source.names()) * 8 > MAX_TABLE_BYTES:
        raise DataError(
            f"site {site!r}: all {len(source.names())} columns of {num_records} rows are over the limit of "
            f"{MAX_TABLE_BYTES / 2**30:.0f} GiB; write a contract that lists the columns that the study needs"
        )


def _check(source: Source, contract: Contract, site: str, violations: ViolationPolicy) -> Checked:
    num_records = source.num_records()
    if num_records is not None:
        check_size(contract, num_records, site)
    wanted = [*contract.names, *([] if contract.patient is None else [contract.patient])]
    return check_frames(source.chunks(wanted), contract, site, violations=violations)
