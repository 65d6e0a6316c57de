"""The installed vocabulary: the built-in analyses and those of a consortium's own packages.

A package offers its analyses by an entry point of the group `wardround.analyses`, whose value is a module:

    [project.entry-points."wardround.analyses"]
    triage = "our_hospitals.triage"
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from wardround.errors import ConfigError
from wardround.sums import Vocabulary

ENTRY_POINT_GROUP = "wardround.analyses"
BUILT_IN = (
    "wardround.analytics.census",
    "wardround.analytics.compare_means",
    "wardround.analytics.contingency",
    "wardround.analytics.correlation",
    "wardround.analytics.cox",
    "wardround.analytics.cumulative_incidence",
    "wardround.analytics.describe",
    "wardround.analytics.evaluate",
    "wardround.analytics.glm",
    "wardround.analytics.heterogeneity",
    "wardround.analytics.imputation",
    "wardround.analytics.imputation_tables",
    "wardround.analytics.imputed",
    "wardround.analytics.imputed_cox",
    "wardround.analytics.kaplan_meier",
    "wardround.analytics.kmeans",
    "wardround.analytics.lone_variables",
    "wardround.analytics.meta_analysis",
    "wardround.analytics.mixed",
    "wardround.analytics.moments",
    "wardround.analytics.pca",
    "wardround.analytics.preparation",
    "wardround.analytics.quantiles",
    "wardround.analytics.survival_time",
)
"""Modules of this package that define site functions and workflows."""


def installed_vocabulary() -> Vocabulary:
    """Everything that may be asked of a site here.

    Raises:
        ConfigError: an installed package's analyses cannot be loaded, or two packages use one name.
    """
    return vocabulary_of(entry_points(group=ENTRY_POINT_GROUP))


def vocabulary_of(points: Iterable[EntryPoint]) -> Vocabulary:
    """The built-in analyses and those of these entry points. Raises `ConfigError` as `installed_vocabulary`."""
    modules = [import_module(name) for name in BUILT_IN]
    return Vocabulary.of_modules([*modules, *(_load(point) for point in points)])


def _load(point: EntryPoint) -> ModuleType:
    owner = f"the installed package {point.dist.name!r}" if point.dist else "an installed package"
    where = f"{owner} (entry point {point.name} = {point.value!r})"
    try:
        module = point.load()
    except Exception as error:  # whatever importing somebody's code may raise
        raise ConfigError(f"{where} cannot be loaded: {error!r}; repair or uninstall it") from error
    if not isinstance(module, ModuleType):
        raise ConfigError(f"{where} must name a module, got {type(module).__name__}; repair or uninstall it")
    return module
