"""Models that one analysis of a study fits and a later one evaluates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from wardround.analytics.design import Column
from wardround.analytics.families import LinkName
from wardround.analytics.glm_result import GLMResult
from wardround.analytics.scoring_model import FittedModel, LinearModel
from wardround.analytics.scoring_read import model_of_fit
from wardround.errors import ConfigError
from wardround.studies.study import Analysis

FITTING = ("glm",)
"""Workflows whose results are models."""


def misplaced_models(analyses: Sequence[Analysis]) -> list[str]:
    """Of each reference to an analysis that comes later, or that fits no model: its place and the remedy."""
    return [
        problem
        for analysis in analyses
        for option, fitted in fitted_models(analysis).items()
        if (problem := _problem(analyses, analysis, f"analysis[{analysis.number}].{option}", fitted))
    ]


def _problem(analyses: Sequence[Analysis], analysis: Analysis, where: str, fitted: FittedModel) -> str | None:
    if fitted.analysis >= analysis.number:
        return f"{where}: analysis {fitted.analysis} is not before this one; name an earlier one that fits a model"
    workflow = analyses[fitted.analysis - 1].workflow.name
    if workflow not in FITTING:
        return f"{where}: analysis {fitted.analysis} is {workflow}, which fits no model; name a {' or '.join(FITTING)}"
    return None


def fitted_models(analysis: Analysis) -> dict[str, FittedModel]:
    """The options of an analysis that wait for the result of an earlier one."""
    return {key: value for key, value in analysis.workflow.options.items() if isinstance(value, FittedModel)}


def with_stand_ins(analysis: Analysis, analyses: Sequence[Analysis]) -> Analysis:
    """The analysis with a model of an intercept alone in the place of those that are still to be fitted.

    Its other options can so be checked before anything is asked.
    """
    models = {key: _stand_in(analyses[fitted.analysis - 1]) for key, fitted in fitted_models(analysis).items()}
    return _with_options(analysis, models)


def _stand_in(fitting: Analysis) -> LinearModel:
    is_probability = fitting.workflow.options["family"] == "binomial"
    intercept = Column(name="Intercept", features=())
    link: LinkName = "logit" if is_probability else "identity"
    return LinearModel(name="to be fitted", columns=(intercept,), coefficients=np.zeros(1), link=link)


def with_fitted_models(analysis: Analysis, results: Mapping[int, object]) -> Analysis:
    """The analysis with the models that earlier ones have fitted.

    Args:
        analysis: with no misplaced models.
        results: by number of the earlier analyses, those that have one.

    Raises:
        ConfigError: the earlier analysis has no result.
    """
    models = {key: _model(fitted, results) for key, fitted in fitted_models(analysis).items()}
    return _with_options(analysis, models)


def _with_options(analysis: Analysis, models: Mapping[str, LinearModel]) -> Analysis:
    if not models:
        return analysis
    options = {**analysis.workflow.options, **models}
    return replace(analysis, workflow=analysis.workflow.type.with_options(options, f"analysis[{analysis.number}]"))


def _model(fitted: FittedModel, results: Mapping[int, object]) -> LinearModel:
    fit = results.get(fitted.analysis)
    if not isinstance(fit, GLMResult):
        raise ConfigError(f"analysis {fitted.analysis} has no result, and so no model to evaluate")
    return replace(model_of_fit(fit, f"the fit of analysis {fitted.analysis}"), is_apparent=True)
