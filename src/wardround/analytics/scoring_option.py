"""A model as an option of an analysis: itself, a fit of ours, an estimator of scikit-learn, or the name of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field

from wardround.analytics.glm_result import GLMResult
from wardround.analytics.scoring_model import FittedModel, LinearModel, ModelFile, OnnxModel
from wardround.analytics.scoring_read import model_of_fit
from wardround.analytics.scoring_sklearn import is_estimator, scoring_model_of
from wardround.errors import ConfigError


def _model_from(value: Any) -> Any:
    if isinstance(value, str):
        return ModelFile(file=value)
    if isinstance(value, LinearModel | OnnxModel | ModelFile | FittedModel | dict):
        return value
    try:
        if isinstance(value, GLMResult):
            return model_of_fit(value)
        if is_estimator(value):
            return scoring_model_of(value)
    except ConfigError as error:
        raise ValueError(str(error).removeprefix("model: ")) from None
    raise ValueError(
        "must be a fit of glm, a linear or logistic estimator of scikit-learn, what load_model gives, or in a study "
        "file the name of a .toml, .json or .onnx file, or { analysis = 2 } for what that analysis fits",
    )


_Model: TypeAlias = Annotated[LinearModel | OnnxModel, Field(discriminator="kind")]

if TYPE_CHECKING:  # what may be given; what a workflow receives is checked and made one of the first three
    ModelOption: TypeAlias = LinearModel | OnnxModel | ModelFile | FittedModel | GLMResult | Any
else:
    ModelOption = Annotated[_Model | ModelFile | FittedModel, BeforeValidator(_model_from)]
