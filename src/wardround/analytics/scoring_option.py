"""A model as an option of an analysis: itself, a fit of ours, an estimator of scikit-learn, or the name of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field

from wardround.analytics.glm_result import GLMResult
from wardround.analytics.scoring_model import FittedModel, LinearModel, ModelFile, OnnxModel
from wardround.analytics.scoring_read import linear_model, model_of_fit
from wardround.analytics.scoring_sklearn import is_estimator, scoring_model_of
from wardround.errors import ConfigError


def _model_from(value: Any) -> Any:
    if isinstance(value, str):
        return ModelFile(file=value)
    if isinstance(value, LinearModel | OnnxModel | ModelFile | FittedModel):
        return value
    try:
        if isinstance(value, dict):
            return linear_model(value) if _are_coefficients(value) else value
        if isinstance(value, GLMResult):
            return model_of_fit(value)
        if is_estimator(value):
            return scoring_model_of(value)
    except ConfigError as error:
        raise ValueError(str(error).removeprefix("model: ")) from None
    raise ValueError(
        "must be a fit of glm, a linear or logistic estimator of scikit-learn, what load_model gives, a dict of a "
        "logistic model's coefficients by term (of statsmodels: fit.params.to_dict()), or in a study file the name of "
        "a .toml, .json or .onnx file, or { analysis = 2 } for what that analysis fits",
    )


def _are_coefficients(value: dict[Any, Any]) -> bool:
    """Whether these are terms and numbers, not the fields of a model."""
    are_numbers = all(isinstance(item, int | float) and not isinstance(item, bool) for item in value.values())
    return bool(value) and are_numbers and all(isinstance(key, str) for key in value) and set(value) != {"analysis"}


_Model: TypeAlias = Annotated[LinearModel | OnnxModel, Field(discriminator="kind")]

if TYPE_CHECKING:  # what may be given; what a workflow receives is checked and made one of the first three
    ModelOption: TypeAlias = LinearModel | OnnxModel | ModelFile | FittedModel | GLMResult | Any
else:
    ModelOption = Annotated[_Model | ModelFile | FittedModel, BeforeValidator(_model_from)]
