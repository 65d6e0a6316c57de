"""A study of the demonstration: its hospitals, what came of it, and the same model on the pooled table."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from wardround.data.contract import Contract
from wardround.engines.simulated_hospitals import simulate
from wardround.errors import ConfigError, SeparationError, WardroundError
from wardround.report.outcome import AnalysisOutcome, RunFacts
from wardround.studies.study import Study

NEEDS_EXTRA = "the demonstration needs {}; install what it needs with: pip install 'wardround[demo]'"
_ESTIMATES = ["estimate", "standard_error", "p_value"]
_MOST_COLUMNS = 6
"""Hospitals whose own estimates a table for people still has room for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledTerms:
    """A model fitted to one table of all patients.

    Attributes:
        terms: by term: estimate, standard_error and p_value.
        seconds: wall time of the fit.
    """

    terms: pd.DataFrame
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoStudy:
    """A study with the tables it is about.

    Attributes:
        introduction: who the patients are, and where the data come from.
        study: from its file.
        contract: of the tables.
        tables: by hospital.
        compared: type of the result that is compared with the pooled fit.
        fit_pooled: of the tables, the contract and that result: the same model on one table.
        remark: what the printed estimates are.
    """

    introduction: str
    study: Study
    contract: Contract
    tables: dict[str, pd.DataFrame]
    compared: type[Any]
    fit_pooled: Callable[[dict[str, pd.DataFrame], Contract, Any], PooledTerms]
    remark: str


def packaged_table(package: str, path: str, version: str) -> pd.DataFrame:
    """A table that comes inside an installed package.

    Raises:
        ConfigError: the package is not installed, or has no such file.
    """
    try:
        file = Path(str(distribution(package).locate_file(path)))
    except PackageNotFoundError:
        raise ConfigError(NEEDS_EXTRA.format(package)) from None
    if not file.is_file():
        raise ConfigError(f"the installed {package} has no file {path}; install {package}=={version}")
    return pd.read_csv(file)


def resource(folder: str, name: str) -> str:
    """The text of a file that comes with the demonstration."""
    return files("wardround.cli").joinpath(folder, name).read_text(encoding="utf-8")


def plain_term(term: str) -> str:
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
        remark: what the estimates are.
    """

    terms: pd.DataFrame
    without_own: dict[str, str]
    federated: RunFacts
    pooled_seconds: float
    remark: str


def compare(demo: DemoStudy, outcome: AnalysisOutcome) -> Comparison:
    """Fit the model of `outcome` again on the pooled table, and at each hospital alone."""
    assert isinstance(outcome.result, demo.compared)
    assert outcome.facts is not None
    federated = outcome.result.to_frame().rename(index=plain_term)
    pooled = demo.fit_pooled(demo.tables, demo.contract, outcome.result)
    there = pooled.terms.loc[federated.index, _ESTIMATES]
    terms = pd.DataFrame(
        {
            "federated": federated["estimate"],
            "pooled": there["estimate"],
            "difference": ((federated[_ESTIMATES] - there) / there).abs().max(axis=1),
        }
    )
    without_own = {}
    for hospital, table in demo.tables.items():
        own = _own_estimates(demo, hospital, table, outcome)
        terms[hospital] = own if isinstance(own, pd.Series) else math.nan
        if isinstance(own, str):
            without_own[hospital] = own
    return Comparison(
        terms=terms,
        without_own=without_own,
        federated=outcome.facts,
        pooled_seconds=pooled.seconds,
        remark=demo.remark,
    )


def _own_estimates(
    demo: DemoStudy, hospital: str, table: pd.DataFrame, outcome: AnalysisOutcome
) -> pd.Series[float] | str:
    """A hospital's own estimates, or why it has none."""
    # What a hospital finds on its own it tells nobody: no disclosure rule applies.
    alone = simulate({hospital: table}, contract=demo.contract, disclosure="none")
    try:
        own = alone.run(outcome.analysis.workflow)
    except SeparationError:
        return "separation"
    except WardroundError as error:  # too few patients, or none with the event
        return str(error)
    estimates: pd.Series[float] = own.to_frame().rename(index=plain_term)["estimate"]
    return estimates


def comparison_text(comparison: Comparison) -> str:
    """The comparison as a table for people."""
    hospitals = list(comparison.terms.columns[3:])
    shown = hospitals if len(hospitals) <= _MOST_COLUMNS else []
    width = max(len(term) for term in comparison.terms.index) + 2
    heads = ["federated", "pooled", "difference", *shown]
    lines = [" " * width + "".join(f"{head:>15}" for head in heads)]
    lines.append("-" * len(lines[0]))
    for term, row in comparison.terms.iterrows():
        own = ["not estimable" if h in comparison.without_own else _shown(row[h]) for h in shown]
        cells = [f"{row['federated']:.8f}", f"{row['pooled']:.8f}", f"{row['difference']:.0e}", *own]
        lines.append(f"{term:<{width}}" + "".join(f"{cell:>15}" for cell in cells))
    facts = comparison.federated
    return "\n".join(
        [
            *lines,
            "",
            comparison.remark,
            "Difference: the largest relative one of estimate, standard error and p-value.",
            *_alone(comparison, hospitals, shown),
            "",
            f"Federated: {facts.seconds:.3f} s in {facts.rounds} rounds; pooled: {comparison.pooled_seconds:.3f} s.",
            f"{facts.numbers_up:,} numbers ({facts.bytes_up:,} bytes) left each hospital, to be summed; no record did.",
        ]
    )


def _alone(comparison: Comparison, hospitals: list[str], shown: list[str]) -> list[str]:
    """What the hospitals could have found out alone."""
    if not shown:
        able = len(hospitals) - len(comparison.without_own)
        return [f"Alone, {able} of the {len(hospitals)} hospitals could have estimated this model at all."]
    reasons = [f"{hospital} alone: not estimable ({why})." for hospital, why in comparison.without_own.items()]
    return ["By hospital: its own fit.", *reasons]


def _shown(estimate: float) -> str:
    """A hospital's own estimate; alone, it has no other hospitals' intercepts."""
    return "" if math.isnan(estimate) else f"{estimate:.4f}"
