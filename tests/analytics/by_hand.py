"""Simulated hospitals from arrays, without reading or checking: each column split among sites as told."""

from collections.abc import Mapping, Sequence

import numpy as np

from wardround.data.contract import Contract, Setting, Variable
from wardround.data.table import Table
from wardround.engines.script import Event
from wardround.engines.simulation import Simulation
from wardround.privacy.disclosure import DisclosureRules


def number(name: str, **options) -> Variable:
    return Variable(name=name, type="number", **options)


def category(name: str, *levels: str) -> Variable:
    return Variable(name=name, type="category", levels=levels)


def hospitals(
    variables: Sequence[Variable],
    columns: Mapping[str, np.ndarray],
    site_of: np.ndarray,
    num_sites: int | None = None,
    *,
    script: Sequence[Event] = (),
    minimum_sites: int | None = None,
    disclosure: DisclosureRules | str = "none",
) -> Simulation:
    """Record i is at site `site_of[i]`; numbers as float64 with NaN, levels as codes with -1. Nothing is hidden."""
    tables, setting = tables_of(variables, columns, site_of, num_sites)
    return Simulation(tables, setting, script=script, minimum_sites=minimum_sites, disclosure=disclosure)


def tables_of(
    variables: Sequence[Variable], columns: Mapping[str, np.ndarray], site_of: np.ndarray, num_sites: int | None = None
) -> tuple[dict[str, Table], Setting]:
    """The sites' tables and the setting that `hospitals` simulates."""
    contract = Contract(variables=tuple(variables))
    site_of = np.asarray(site_of)
    num_sites = num_sites or int(site_of.max(initial=0)) + 1
    tables = {f"site{site}": _table(f"site{site}", contract, columns, site_of == site) for site in range(num_sites)}
    return tables, Setting(contract=contract, sites=tuple(tables))


def _table(site: str, contract: Contract, columns: Mapping[str, np.ndarray], is_here: np.ndarray) -> Table:
    num_records = int(is_here.sum())
    kept = {}
    for variable in contract.variables:
        dtype = np.float64 if variable.is_numeric else np.int32
        kept[variable.name] = np.asarray(columns[variable.name])[is_here].astype(dtype)
    return Table(
        site=site,
        contract=contract,
        num_records=num_records,
        columns=kept,
        patient_index=np.arange(num_records),
        num_patients=num_records,
    )
