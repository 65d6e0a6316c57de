"""scikit-learn's linear models read off as coefficients, at the desk of whoever fitted them.

Only attributes are read: nothing is pickled, and nothing of scikit-learn is imported here. What is not linear in
the variables goes to ONNX by skl2onnx.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wardround.analytics.design import Column, Level
from wardround.analytics.expression import shorten
from wardround.analytics.families import LinkName
from wardround.analytics.scoring_model import LinearModel
from wardround.analytics.scoring_read import term_column
from wardround.data.reading import canonical_text
from wardround.errors import ConfigError

LOGISTIC = ("LogisticRegression", "LogisticRegressionCV")
LINEAR = ("LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV", "BayesianRidge")
_MADE_BY_FIT = {
    "StandardScaler": "scale_",
    "MaxAbsScaler": "scale_",
    "MinMaxScaler": "scale_",
    "OneHotEncoder": "categories_",
    "ColumnTransformer": "transformers_",
}
_TO_ONNX = (
    "convert it to ONNX: skl2onnx.to_onnx(estimator, X[:1].astype('float32'), options={'zipmap': False})"
    ".SerializeToString(), and give those bytes to wr.load_model(..., features=[...])"
)


@dataclass(frozen=True, slots=True)
class _Affine:
    """A feature as the estimator sees it: `slope * column + shift`."""

    column: Column
    slope: float = 1.0
    shift: float = 0.0


def scoring_model_of(estimator: Any, features: Sequence[str] | None = None, *, name: str | None = None) -> LinearModel:
    """The coefficients of a fitted linear or logistic model of scikit-learn, in the variables' own units.

    Args:
        estimator: fitted; one of `LOGISTIC` or `LINEAR`, or a Pipeline that ends in one after StandardScaler,
            MinMaxScaler, MaxAbsScaler, OneHotEncoder and ColumnTransformer.
        features: what each column it was fitted to is, in order: a variable, `sex[M]`, or arithmetic. None: the
            names of the frame that it was fitted to.
        name: for people; None: the estimator's class.

    Raises:
        ConfigError: not fitted, not linear, or not for two classes; says how to go by ONNX.

    Guarantees:
        coefficients_predict_what_the_estimator_predicts: to rounding error.
    """
    steps = [step for _, step in estimator.steps] if _kind(estimator) == "Pipeline" else [estimator]
    *transformers, last = steps
    slopes, intercept, link = _coefficients(last)
    inputs = tuple(features) if features is not None else _names(steps[0])
    columns = [_Affine(term_column(feature)) for feature in inputs]
    for transformer in transformers:
        columns = _transformed(transformer, columns, inputs)
    if len(slopes) != len(columns):
        raise ConfigError(f"model: {len(slopes)} coefficients, but {len(columns)} features; list one for each column")
    total = intercept + sum(slope * part.shift for slope, part in zip(slopes, columns, strict=True))
    parts = [slope * part.slope for slope, part in zip(slopes, columns, strict=True)]
    try:
        return LinearModel(
            name=name or type(last).__name__,
            columns=(Column(name="Intercept", features=()), *(part.column for part in columns)),
            coefficients=np.array([total, *parts], np.float64),
            link=link,
        )
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None


def is_estimator(value: Any) -> bool:
    """Whether a value is an estimator of scikit-learn, told without importing it."""
    return type(value).__module__.split(".")[0] == "sklearn"


def _kind(estimator: Any) -> str:
    kind = type(estimator).__name__
    if not is_estimator(estimator):
        raise ConfigError(f"model: a {shorten(kind)} cannot be read off; {_TO_ONNX}")
    return kind


def _names(first: Any) -> tuple[str, ...]:
    names = getattr(first, "feature_names_in_", None)
    if names is None:
        raise ConfigError("model: list the features in the order of the columns it was fitted to: features=[...]")
    return tuple(str(name) for name in names)


def _coefficients(estimator: Any) -> tuple[list[float], float, LinkName]:
    kind = _kind(estimator)
    if kind not in LOGISTIC + LINEAR:
        raise ConfigError(f"model: a {kind} is not read off as coefficients; {_TO_ONNX}")
    if not hasattr(estimator, "coef_"):
        raise ConfigError(f"model: this {kind} is not fitted; call its fit() first")
    coefficients = np.atleast_2d(np.asarray(estimator.coef_, np.float64))
    if coefficients.shape[0] != 1:
        raise ConfigError(
            f"model: a {kind} for {coefficients.shape[0]} classes or outcomes; evaluate takes two classes"
        )
    intercept = float(np.atleast_1d(np.asarray(estimator.intercept_, np.float64))[0])
    return coefficients[0].tolist(), intercept, "logit" if kind in LOGISTIC else "identity"


def _transformed(transformer: Any, columns: list[_Affine], inputs: tuple[str, ...]) -> list[_Affine]:
    if isinstance(transformer, str) and transformer == "passthrough":
        return columns
    kind = _kind(transformer)
    _refuse_unfitted(transformer, kind)
    match kind:
        case "StandardScaler":
            # A mean that is not taken off is kept all the same.
            return _rescaled(columns, transformer.mean_ if transformer.with_mean else None, transformer.scale_)
        case "FunctionTransformer" if transformer.func is None:  # what "passthrough" becomes
            return columns
        case "MaxAbsScaler":
            return _rescaled(columns, None, transformer.scale_)
        case "MinMaxScaler" if not transformer.clip:
            scale = np.asarray(transformer.scale_, np.float64)
            return _rescaled(columns, -np.asarray(transformer.min_, np.float64) / scale, 1 / scale)
        case "OneHotEncoder":
            return _one_hot(transformer, columns)
        case "ColumnTransformer":
            return _by_columns(transformer, columns, inputs)
        case "Pipeline":
            for _, step in transformer.steps:
                columns = _transformed(step, columns, inputs)
            return columns
        case _:
            raise ConfigError(f"model: a {kind} before the model is not read off; {_TO_ONNX}")


def _refuse_unfitted(transformer: Any, kind: str) -> None:
    if kind in _MADE_BY_FIT and not hasattr(transformer, _MADE_BY_FIT[kind]):
        raise ConfigError(f"model: the {kind} before the model is not fitted; call the pipeline's fit() first")


def _rescaled(columns: list[_Affine], center: Any, scale: Any) -> list[_Affine]:
    centers = np.zeros(len(columns)) if center is None else np.asarray(center, np.float64)
    scales = np.ones(len(columns)) if scale is None else np.asarray(scale, np.float64)
    return [
        replace(part, slope=part.slope / float(s), shift=(part.shift - float(c)) / float(s))
        for part, c, s in zip(columns, centers, scales, strict=True)
    ]


def _one_hot(encoder: Any, columns: list[_Affine]) -> list[_Affine]:
    if getattr(encoder, "_infrequent_enabled", False):
        raise ConfigError(f"model: a OneHotEncoder that lumps infrequent levels together is not read off; {_TO_ONNX}")
    dropped = encoder.drop_idx_ if encoder.drop_idx_ is not None else [None] * len(columns)
    made = []
    for part, levels, drop in zip(columns, encoder.categories_, dropped, strict=True):
        variable = part.column.name
        for index, level in enumerate(levels.tolist()):
            if index != drop:
                text = canonical_text(str(level))
                made.append(
                    _Affine(Column(name=f"{variable}[{text}]", features=(Level(variable=variable, level=text),)))
                )
    return made


def _by_columns(transformer: Any, columns: list[_Affine], inputs: tuple[str, ...]) -> list[_Affine]:
    made: list[_Affine] = []
    for _, step, chosen in transformer.transformers_:
        if isinstance(step, str) and step == "drop":
            continue
        index = _indices(chosen, inputs)
        made += _transformed(step, [columns[i] for i in index], tuple(inputs[i] for i in index))
    return made


def _indices(chosen: Any, inputs: tuple[str, ...]) -> list[int]:
    if isinstance(chosen, slice):
        return list(range(len(inputs)))[chosen]
    values = [chosen] if isinstance(chosen, str | int) else list(chosen)
    if values and all(isinstance(value, bool | np.bool_) for value in values):
        return [i for i, value in enumerate(values) if value]
    return [inputs.index(value) if isinstance(value, str) else int(value) for value in values]
