"""Patients of simulated hospitals that the tests of correlations, tables, means, components and clusters share."""

from typing import Any

import numpy as np
import pandas as pd

from tests.analytics.pooled import split
from wardround.data.contract import Contract, Setting, Variable
from wardround.engines.simulated_hospitals import simulate
from wardround.engines.simulation import Simulation
from wardround.privacy.disclosure import DisclosureRules

WARDS = ("acute", "day", "rehab", "home")


def make_patients(seed: int = 3, num_records: int = 600) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(num_records, 3))
    frame = pd.DataFrame(
        {
            "age": (60 + 12 * base[:, 0]).round(1),
            "pressure": (130 + 15 * (0.6 * base[:, 0] + 0.8 * base[:, 1])).round(),
            "sodium": 140 + 3 * base[:, 2] - 1.5 * base[:, 1],
            "tiny": 1e-9 * (5 + base[:, 0] - base[:, 2]),
            "far": 1e9 + rng.normal(size=num_records),
            "grade": np.clip(np.round(2.5 + base[:, 1]), 0, 5).astype(int),
            "falls": rng.poisson(np.exp(0.4 * base[:, 0])).clip(0, 9),
            "sex": rng.choice(["F", "M"], num_records),
            "ward": rng.choice(WARDS, num_records, p=[0.4, 0.3, 0.2, 0.1]),
            "died": rng.random(num_records) < 0.25,
            "team": rng.integers(0, 6, num_records),
        }
    )
    for name, share in (("age", 0.05), ("sodium", 0.1), ("grade", 0.03)):
        frame.loc[rng.random(num_records) < share, name] = np.nan
    return frame


def contract_of(names: tuple[str, ...]) -> Contract:
    known = {
        "age": Variable(name="age", type="number", unit="years"),
        "pressure": Variable(name="pressure", type="integer", unit="mmHg", range=(0, 300)),
        "sodium": Variable(name="sodium", type="number", unit="mmol/L"),
        "tiny": Variable(name="tiny", type="number"),
        "far": Variable(name="far", type="number"),
        "grade": Variable(name="grade", type="integer", range=(0, 5)),
        "falls": Variable(name="falls", type="integer", range=(0, 9)),
        "sex": Variable(name="sex", type="category", levels=("F", "M")),
        "ward": Variable(name="ward", type="category", levels=WARDS),
        "died": Variable(name="died", type="boolean"),
        "team": Variable(name="team", type="integer", range=(0, 5)),
    }
    return Contract(variables=tuple(known[name] for name in names))


PATIENTS = make_patients()
CONTRACT = contract_of(tuple(PATIENTS.columns))
SITES = split(PATIENTS, 4, seed=11)
POOLED = pd.concat(SITES.values(), ignore_index=True)
FEDERATION = simulate(SITES, contract=CONTRACT)


def federation_of(
    frame: pd.DataFrame, num_sites: int = 3, contract: Contract | None = None, seed: int = 5
) -> Simulation:
    return simulate(split(frame, num_sites, seed=seed), contract=contract)


def under(federation: Simulation, **rules: Any) -> Simulation:
    """The same hospitals under other disclosure rules."""
    setting = federation.setting
    assert isinstance(setting, Setting)
    changed = Setting(contract=setting.contract, sites=setting.sites, disclosure=DisclosureRules(**rules))
    return Simulation(federation.data, changed)
