"""Wardround: hospitals learn from all of their patients together while no patient's record leaves its hospital.

    import wardround as wr

    federation = wr.simulate({"North": north, "South": south})
    print(wr.glm(federation, "died ~ age + C(sex)", family="binomial").summary())

What is named here is the public face; everything else may change. A name is imported when it is first used,
so that a part of the package does not pay for the others.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wardround import errors
    from wardround.analytics.scoring_sklearn import scoring_model_of
    from wardround.api import (
        __version__,
        compare_means,
        contingency,
        correlation,
        cox,
        cumulative_incidence,
        describe,
        evaluate,
        glm,
        heterogeneity,
        imputed,
        imputed_cox,
        kaplan_meier,
        kmeans,
        meta_analysis,
        mixed,
        pca,
    )
    from wardround.data.contract import Contract, Variable
    from wardround.engines.script import Event
    from wardround.engines.simulated_hospitals import simulate, simulate_folder
    from wardround.engines.simulation import Simulation
    from wardround.errors import WardroundError
    from wardround.privacy.disclosure import DisclosureRules
    from wardround.privacy.protection import SumProtection
    from wardround.studies.model_file import load_model

__all__ = [
    "Contract",
    "DisclosureRules",
    "Event",
    "Simulation",
    "SumProtection",
    "Variable",
    "WardroundError",
    "__version__",
    "compare_means",
    "contingency",
    "correlation",
    "cox",
    "cumulative_incidence",
    "describe",
    "errors",
    "evaluate",
    "glm",
    "heterogeneity",
    "imputed",
    "imputed_cox",
    "kaplan_meier",
    "kmeans",
    "load_model",
    "meta_analysis",
    "mixed",
    "pca",
    "scoring_model_of",
    "simulate",
    "simulate_folder",
]

_MODULES = {
    "Contract": "wardround.data.contract",
    "DisclosureRules": "wardround.privacy.disclosure",
    "Event": "wardround.engines.simulation",
    "Simulation": "wardround.engines.simulation",
    "SumProtection": "wardround.privacy.protection",
    "Variable": "wardround.data.contract",
    "WardroundError": "wardround.errors",
    "__version__": "wardround.api",
    "compare_means": "wardround.api",
    "contingency": "wardround.api",
    "correlation": "wardround.api",
    "cox": "wardround.api",
    "cumulative_incidence": "wardround.api",
    "describe": "wardround.api",
    "evaluate": "wardround.api",
    "glm": "wardround.api",
    "heterogeneity": "wardround.api",
    "imputed": "wardround.api",
    "imputed_cox": "wardround.api",
    "kaplan_meier": "wardround.api",
    "kmeans": "wardround.api",
    "load_model": "wardround.studies.model_file",
    "meta_analysis": "wardround.api",
    "mixed": "wardround.api",
    "pca": "wardround.api",
    "scoring_model_of": "wardround.analytics.scoring_sklearn",
    "simulate": "wardround.engines.simulated_hospitals",
    "simulate_folder": "wardround.engines.simulated_hospitals",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("wardround.errors")
    if name not in _MODULES:
        raise AttributeError(f"module 'wardround' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
