"""Predictions of a Cox model for patients that are described to the coordinator.

References:
    Tsiatis (1981), Annals of Statistics 9, 93-108. Therneau & Grambsch (2000), section 10.2 (`survfit` of a Cox model).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wardround.analytics.cox_hazards import Baseline
from wardround.analytics.cox_result import CoxResult
from wardround.analytics.cox_risk import Values
from wardround.analytics.design import Frame, Numeric, evaluate_blocks
from wardround.analytics.families import two_sided_quantile
from wardround.analytics.survival_time import ON_GRID
from wardround.data.contract import Contract, Variable
from wardround.data.table import Table


def standardised_profiles(result: CoxResult, profiles: pd.DataFrame) -> Values:
    """The design's columns of these profiles, shape (num_profiles, num_columns).

    Raises:
        ValueError: a variable is missing, or a value is none that it may have.
    """
    columns = {variable.name: _column(profiles, variable) for variable in result.variables}
    _refuse_absent(result, profiles)
    size = len(profiles)
    table = Table(
        site="profiles",
        contract=Contract(variables=result.variables),
        num_records=size,
        columns=columns,
        patient_index=np.arange(size),
        num_patients=size,
    )
    frame = Frame(outcome=Numeric(expression="0"), required=())
    blocks = [block.x for block in evaluate_blocks(table, result.design, frame)]
    return np.concatenate(blocks) if blocks else np.zeros((0, result.design.num_columns))


def _refuse_absent(result: CoxResult, profiles: pd.DataFrame) -> None:
    for absent in result.absent:
        variable = next((v for v in result.variables if v.name == absent.variable), None)
        if variable is not None and _has_level(profiles[absent.variable], variable, absent.level):
            raise ValueError(
                f"profiles: no record that the model was fitted to has {absent.variable} = {absent.level}, so nothing "
                "is known of it"
            )


def _has_level(values: pd.Series, variable: Variable, level: str) -> bool:
    if variable.category_levels is None:
        return bool((pd.to_numeric(values, errors="coerce") == float(level)).any())
    return level in _as_text(values, variable)


def _column(profiles: pd.DataFrame, variable: Variable) -> NDArray[np.float64] | NDArray[np.int32]:
    if variable.name not in profiles.columns:
        raise ValueError(f"profiles must have the column {variable.name!r}")
    values = profiles[variable.name]
    levels = variable.category_levels
    if levels is not None:
        codes = pd.Index(levels).get_indexer(pd.Index(_as_text(values, variable)))
        if (codes < 0).any():
            raise ValueError(f"profiles: {variable.name!r} must be one of {', '.join(levels[:20])}")
        return codes.astype(np.int32)
    numbers: NDArray[np.float64] = pd.to_numeric(values, errors="coerce").to_numpy(np.float64, copy=True)
    if not np.isfinite(numbers).all():
        raise ValueError(f"profiles: {variable.name!r} must be a number in every row")
    return numbers


def _as_text(values: pd.Series, variable: Variable) -> list[str]:
    if variable.type == "boolean":
        return ["True" if value in (True, 1, "True", "true", "1") else "False" for value in values]
    return [str(value).strip() for value in values]


def predicted_risk(result: CoxResult, profiles: pd.DataFrame) -> pd.DataFrame:
    """See `CoxResult.predict_risk`."""
    z = standardised_profiles(result, profiles)
    predictor = z @ _coefficients(result)
    error = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", z, _covariance(result), z), 0.0))
    reach = two_sided_quantile(result.confidence, None) * error
    with np.errstate(over="ignore"):
        return pd.DataFrame(
            {
                "linear_predictor": predictor,
                "standard_error": error,
                "hazard_ratio": np.exp(predictor),
                "low": np.exp(predictor - reach),
                "high": np.exp(predictor + reach),
            },
            index=profiles.index,
        )


def _coefficients(result: CoxResult) -> Values:
    """Of the standardised columns."""
    return np.array([term.estimate for term in result.terms]) * result.design.scale


def _covariance(result: CoxResult) -> Values:
    covariance: Values = result.covariance_matrix * np.outer(result.design.scale, result.design.scale)
    return covariance


def baseline_of(result: CoxResult, stratum: str | None) -> Baseline:
    """The baseline of a stratum, or the only one.

    Raises:
        ValueError: there is none, or it is not said which.
    """
    known = {curve.stratum: curve for curve in result.baselines}
    if not known:
        raise ValueError(f"no baseline hazard is held, so survival cannot be predicted: {' '.join(result.notes)}")
    if stratum is None and len(known) == 1:
        return next(iter(known.values()))
    if stratum not in known:
        raise ValueError(f"stratum must be one of {', '.join(map(repr, list(known)[:20]))}, got {stratum!r}")
    return known[stratum]


def predicted_survival(
    result: CoxResult,
    profiles: pd.DataFrame,
    stratum: str | None,
    times: tuple[float, ...] | None,
    interval: str,
) -> pd.DataFrame:
    """See `CoxResult.predict`."""
    if interval not in ("log", "log-log", "plain"):
        raise ValueError(f"interval must be 'log', 'log-log' or 'plain', got {interval!r}")
    curve = baseline_of(result, stratum)
    z = standardised_profiles(result, profiles)
    wanted = curve.times if times is None else np.asarray(times, float)
    hazard, error = cumulative_hazards(result, curve, z, wanted)
    reach = two_sided_quantile(result.confidence, None)
    survival, low, high = survival_interval(hazard, error, reach, interval)
    size = len(profiles)
    return pd.DataFrame(
        {
            "profile": np.repeat(profiles.index.to_numpy(), len(wanted)),
            "time": np.tile(wanted, size),
            "survival": survival.ravel(),
            "low": low.ravel(),
            "high": high.ravel(),
            "cumulative_hazard": hazard.ravel(),
            "standard_error": error.ravel(),
        }
    )


def cumulative_hazards(result: CoxResult, curve: Baseline, z: Values, times: Values) -> tuple[Values, Values]:
    """Cumulative hazards and their standard errors, each of shape (num_profiles, num_times)."""
    times = np.where(times > 0, times * (1 + ON_GRID), times)  # a rounding error below a point is on it
    place = np.searchsorted(curve.times, times, side="right")
    base, variance, drift = (
        np.concatenate([np.zeros_like(part[:1]), part])[place]
        for part in (curve.cumulative_hazard, curve.variance, curve.drift)
    )
    is_unknown = (times < 0) | (times > curve.times[-1] * (1 + 2 * ON_GRID))
    with np.errstate(over="ignore", invalid="ignore"):
        ratio = np.exp(z @ _coefficients(result))[:, None]
        away = z[:, None, :] * base[None, :, None] - drift[None, :, :]
        of_coefficients = np.einsum("ijk,kl,ijl->ij", away, _covariance(result), away)
        hazard = np.where(base > 0, ratio * base, 0.0)  # before the first event, whatever the ratio
        error = np.where(base > 0, ratio * np.sqrt(np.maximum(variance + of_coefficients, 0.0)), 0.0)
    hazard, error = np.where(is_unknown, np.nan, hazard), np.where(is_unknown, np.nan, error)
    return hazard, error


def survival_interval(hazard: Values, error: Values, reach: float, interval: str) -> tuple[Values, Values, Values]:
    """Survival with the ends of its interval; `reach` is in standard errors."""
    survival = np.exp(-hazard)
    with np.errstate(all="ignore"):
        if interval == "plain":
            low, high = survival * (1 - reach * error), survival * (1 + reach * error)
        elif interval == "log":
            low, high = np.exp(-hazard - reach * error), np.exp(-hazard + reach * error)
        else:
            factor = np.exp(reach * error / hazard)
            low, high = np.exp(-hazard * factor), np.exp(-hazard / factor)
            low, high = (np.where(hazard == 0, 1.0, end) for end in (low, high))
    return survival, np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)
