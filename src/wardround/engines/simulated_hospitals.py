"""Simulated hospitals from tables: one table a site, checked against a contract before any work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from wardround.data.contract import Contract, Setting
from wardround.data.harmonise import Checked, TableBuilder, ViolationPolicy, check_size
from wardround.data.inference import Inference, infer_contract, profile
from wardround.data.names import checked_name
from wardround.data.reading import clean_text
from wardround.data.report import ContractReport, refuse_misfits
from wardround.data.sources.frame import FrameSource
from wardround.data.sources.source import Source
from wardround.engines.simulation import Event, Progress, Simulation
from wardround.errors import ConfigError

TableLike: TypeAlias = pd.DataFrame | str | Path | Source
"""What a site's table may be given as: a frame, the path of a CSV or Parquet file, or a source."""


def simulate(
    tables: Mapping[str, TableLike],
    *,
    contract: Contract | str | Path | None = None,
    patient: str | None = None,
    violations: ViolationPolicy = "refuse",
    minimum_sites: int | None = None,
    seed: int = 0,
    script: Sequence[Event] = (),
    progress: Callable[[Progress], None] | None = None,
    shows_site_errors: bool = False,
) -> Simulation:
    """Hospitals in this process, each with its table.

    Args:
        tables: by site's name, its table.
        contract: what every table must fit; None: inferred from all of them.
        patient: the column that tells patients apart, where the contract is inferred.
        violations: whether values that break the contract are refused or count as missing.
        minimum_sites: as `Simulation`.
        seed: as `Simulation`.
        script: as `Simulation`.
        progress: as `Simulation`.
        shows_site_errors: as `Simulation`.

    Raises:
        ContractError: a table does not fit; tells of all sites at once, and carries their reports.
        ConfigError: a site's name or the contract is wrong.
        DataError: a table is malformed or too large.
    """
    sources = _sources(tables)
    agreed = _infer(sources, patient).contract if contract is None else _contract(contract, patient)
    checked = {site: _check(source, agreed, site, violations) for site, source in sources.items()}
    refuse_misfits(one.report for one in checked.values())
    return Simulation(
        {site: one.table for site, one in checked.items()},
        Setting(contract=agreed, sites=tuple(checked)),
        seed=seed,
        minimum_sites=minimum_sites,
        script=script,
        progress=progress,
        shows_site_errors=shows_site_errors,
    )


def infer(tables: Mapping[str, TableLike], *, patient: str | None = None) -> Inference:
    """The contract that all these tables fit, with notes for people; raises as `simulate` does."""
    return _infer(_sources(tables), patient)


def check_tables(
    tables: Mapping[str, TableLike], contract: Contract | str | Path, *, violations: ViolationPolicy = "refuse"
) -> dict[str, ContractReport]:
    """How each site's table fits a contract; raises `ConfigError` and `DataError` as `simulate` does."""
    agreed = _contract(contract, None)
    return {site: _check(source, agreed, site, violations).report for site, source in _sources(tables).items()}


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
    raise TypeError(f"site {site!r}: a table must be a DataFrame, a path or a source, got {type(table).__name__}")


def _contract(contract: Contract | str | Path, patient: str | None) -> Contract:
    if not isinstance(contract, Contract):
        raise TypeError(f"contract must be a Contract or a path, got {type(contract).__name__}")
    if patient is not None and patient != contract.patient:
        raise ConfigError(f"patient={patient!r}, but the contract's patient column is {contract.patient!r}; drop one")
    return contract


def _infer(sources: Mapping[str, Source], patient: str | None) -> Inference:
    profiles = {site: profile(source.chunks(), site) for site, source in sources.items()}
    return infer_contract(profiles, patient=None if patient is None else clean_text(patient))


def _check(source: Source, contract: Contract, site: str, violations: ViolationPolicy) -> Checked:
    num_records = source.num_records()
    if num_records is not None:
        check_size(contract, num_records, site)
    builder = TableBuilder(site, contract, violations=violations)
    wanted = [*contract.names, *([] if contract.patient is None else [contract.patient])]
    for chunk in source.chunks(wanted):
        builder.add(chunk)
    return builder.finish()
