"""The demonstration's second study: survival with advanced lung cancer at eighteen institutions (package lifelines)."""

from __future__ import annotations

import time

import pandas as pd

from wardround.analytics.cox_result import CoxResult
from wardround.cli.demo_study import DemoStudy, PooledTerms, packaged_table, plain_term, resource
from wardround.data.contract import Contract
from wardround.data.contract_text import parse_contract
from wardround.errors import ConfigError
from wardround.studies.extensions import installed_vocabulary
from wardround.studies.study import Study, parse_study

NUM_PATIENTS = 227
"""Patients whose institution is known; one of the 228 has none."""
NUM_INSTITUTIONS = 18

_PACKAGE, _TABLE = "lifelines", "lifelines/datasets/lung.csv"
_COLUMNS = {
    "time": "days",
    "age": "age",
    "ph.ecog": "ecog",
    "pat.karno": "karnofsky",
    "wt.loss": "weight_loss",
    "meal.cal": "meal_calories",
}
_INTRODUCTION = """\
Survival with advanced lung cancer, {patients} patients of {institutions} institutions, 2 to 36 each.
The data come inside the package lifelines (North Central Cancer Treatment Group, Loprinzi et al. 1994, J Clin Oncol
12). One patient more has no institution on record, and so stands in no hospital's table.
"""


def lung_demo() -> DemoStudy:
    """The study with its hospitals. Raises `ConfigError` where the extra `demo` is not installed."""
    return DemoStudy(
        introduction=_INTRODUCTION.format(patients=NUM_PATIENTS, institutions=NUM_INSTITUTIONS),
        study=lung_study(),
        contract=lung_contract(),
        tables=lung_hospitals(),
        compared=CoxResult,
        fit_pooled=fit_pooled,
        remark=("Log hazard ratios. Federated: from sums over the hospitals. Pooled: lifelines on one table of all."),
    )


def lung_hospitals() -> dict[str, pd.DataFrame]:
    """Each institution's table.

    Raises:
        ConfigError: the extra `demo` is not installed, or its table is another one.
    """
    return split_by_institution(packaged_table(_PACKAGE, _TABLE, "0.30.3"))


def split_by_institution(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The packaged table by institution, with the contract's names. Raises `ConfigError` where it is another one."""
    known = table[table["inst"].notna()]
    if len(known) != NUM_PATIENTS or known["inst"].nunique() != NUM_INSTITUTIONS:
        raise ConfigError(f"the installed {_PACKAGE} holds another table of patients; install {_PACKAGE}==0.30.3")
    renamed = (
        known[list(_COLUMNS)]
        .rename(columns=_COLUMNS)
        .assign(died=known["status"] == 1, sex=known["sex"].map({1: "Male", 2: "Female"}))
    )
    numbers = sorted(int(number) for number in known["inst"].unique())
    return {f"Institution {n}": renamed[known["inst"] == n].reset_index(drop=True) for n in numbers}


def lung_contract() -> Contract:
    """The data contract of the study."""
    return parse_contract(resource("lung", "contract.toml"))


def lung_study() -> Study:
    """The study."""
    return parse_study(resource("lung", "study.toml"), installed_vocabulary())


def fit_pooled(tables: dict[str, pd.DataFrame], contract: Contract, fitted: CoxResult) -> PooledTerms:
    """Pool the institutions' tables and fit the Cox model, with nothing of Wardround in it."""
    from lifelines import CoxPHFitter

    del contract, fitted  # the formula is written out, as whoever pools the tables would
    pooled = pd.concat(tables.values(), ignore_index=True)
    columns = pooled[["days", "died", "age", "ecog"]].assign(**{"sex: Female": pooled["sex"] == "Female"})
    model = CoxPHFitter()
    begin = time.perf_counter()
    model.fit(columns.dropna().astype(float), "days", "died", fit_options={"precision": 1e-12, "r_precision": 1e-14})
    seconds = time.perf_counter() - begin
    terms = model.summary[["coef", "se(coef)", "p"]]
    terms.columns = ["estimate", "standard_error", "p_value"]
    return PooledTerms(terms=terms.rename(index=plain_term), seconds=seconds)
