"""The analyses as functions: each takes a federation and its workflow's options, and gives a result."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from wardround.analytics.compare_means import compare_means as _compare_means
from wardround.analytics.contingency import contingency as _contingency
from wardround.analytics.correlation import correlation as _correlation
from wardround.analytics.cox import cox as _cox
from wardround.analytics.cumulative_incidence import cumulative_incidence as _cumulative_incidence
from wardround.analytics.describe import describe as _describe
from wardround.analytics.evaluate import evaluate as _evaluate
from wardround.analytics.glm import glm as _glm
from wardround.analytics.heterogeneity import heterogeneity as _heterogeneity
from wardround.analytics.imputed import imputed as _imputed
from wardround.analytics.imputed_cox import imputed_cox as _imputed_cox
from wardround.analytics.kaplan_meier import kaplan_meier as _kaplan_meier
from wardround.analytics.kmeans import kmeans as _kmeans
from wardround.analytics.meta_analysis import meta_analysis as _meta_analysis
from wardround.analytics.mixed import mixed as _mixed
from wardround.analytics.pca import pca as _pca
from wardround.report.versions import package_version
from wardround.sums import Workflow, WorkflowType

P = ParamSpec("P")
R = TypeVar("R")

__version__ = package_version("wardround")

_SETTING = re.compile(r"^( *)setting: .*\n(?:\1 +.*\n)*", re.MULTILINE)
# What a workflow is given by the engine; a person gives a federation instead.


class Federation(Protocol):
    """Hospitals that carry workflows out: a `Simulation`, or whatever else has this method."""

    def run(self, workflow: Workflow[R]) -> R:
        """Carry a workflow out and return its result."""


def face(workflow: WorkflowType[P, R]) -> Callable[Concatenate[Federation, P], R]:
    """A workflow as a function of a federation and of the workflow's options.

    What it raises is what the workflow raises, and `SiteError` where a hospital's computation failed,
    `QuorumError` where too few answered.

    Guarantees:
        a_face_has_the_options_of_its_workflow: the same names, types, defaults and documentation.
    """

    def run(federation: Federation, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return federation.run(workflow(*args, **kwargs))

    written = inspect.signature(workflow.function)
    first = inspect.Parameter("federation", inspect.Parameter.POSITIONAL_ONLY, annotation="Federation")
    options = [option for option in list(written.parameters.values())[1:] if option.name in workflow.parameters.names]
    described: Any = run
    described.__signature__ = written.replace(parameters=[first, *options])
    described.__name__ = described.__qualname__ = workflow.name
    described.__doc__ = _SETTING.sub(r"\1federation: the hospitals.\n", workflow.function.__doc__ or "")
    return run


cox = face(_cox)
describe = face(_describe)
evaluate = face(_evaluate)
glm = face(_glm)
imputed_cox = face(_imputed_cox)
meta_analysis = face(_meta_analysis)
mixed = face(_mixed)
heterogeneity = face(_heterogeneity)
imputed = face(_imputed)
kaplan_meier = face(_kaplan_meier)
cumulative_incidence = face(_cumulative_incidence)
compare_means = face(_compare_means)
contingency = face(_contingency)
correlation = face(_correlation)
kmeans = face(_kmeans)
pca = face(_pca)
