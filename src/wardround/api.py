"""The analyses as functions: each takes a federation and gives a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from wardround.analytics.describe import describe as _describe
from wardround.analytics.glm import glm as _glm
from wardround.analytics.quantiles import DEFAULT_TOLERANCE
from wardround.privacy.disclosure import DEFAULT_MINIMUM_CELL
from wardround.report.versions import package_version
from wardround.sums import Workflow

if TYPE_CHECKING:
    from wardround.analytics.description import DescribeResult
    from wardround.analytics.families import FamilyName, LinkName
    from wardround.analytics.glm import Covariance
    from wardround.analytics.glm_result import GLMResult

R = TypeVar("R")

__version__ = package_version("wardround")


class Federation(Protocol):
    """Hospitals that carry workflows out: a `Simulation`, or whatever else has this method."""

    def run(self, workflow: Workflow[R]) -> R:
        """Carry a workflow out and return its result."""


def describe(
    federation: Federation,
    *,
    variables: tuple[str, ...] | None = None,
    by: str | None = None,
    categorical: tuple[str, ...] = (),
    quantiles: tuple[float, ...] = (0.25, 0.5, 0.75),
    minimum_cell: int = DEFAULT_MINIMUM_CELL,
    tolerance: float = DEFAULT_TOLERANCE,
) -> DescribeResult:
    """Table 1 over all hospitals: counts, missing values, means, spreads, quantiles and levels, by group.

    Args:
        federation: the hospitals.
        variables: what to describe; None: all but text, the patient column and `by`.
        by: variable to group by.
        categorical: integers whose values are counted like levels.
        quantiles: of numbers, each in (0, 1).
        minimum_cell: least count that is printed.
        tolerance: width at which a quantile is precise enough, as a part of the interquartile range.

    Returns:
        The table: `print(result.summary())`, `result.to_frame()`, `result.to_json()`, `result.plot()`.

    Raises:
        ConfigError: a variable or option is wrong; nothing was asked of any hospital.
        SiteError: a hospital's computation failed.
        QuorumError: too few hospitals answered.
    """
    table = _describe(
        variables=variables,
        by=by,
        categorical=categorical,
        quantiles=quantiles,
        minimum_cell=minimum_cell,
        tolerance=tolerance,
    )
    return federation.run(table)


def glm(
    formula: str,
    federation: Federation,
    *,
    family: FamilyName = "gaussian",
    link: LinkName | None = None,
    offset: str | None = None,
    frequency_weights: str | None = None,
    variance_weights: str | None = None,
    l2: float | Literal["cross-validated"] = 0.0,
    l2_scale: Literal["standardized", "raw"] = "standardized",
    num_folds: int = 5,
    covariance: Covariance = "model",
    cluster: str | None = None,
    site_intercepts: bool = False,
    aliased: Literal["refuse", "drop"] = "refuse",
    term_tests: Literal["wald", "likelihood_ratio"] = "wald",
    use_t: bool = False,
    confidence: float = 0.95,
) -> GLMResult:
    """Fit a generalised linear model, as if all hospitals' records lay in one table.

    Args:
        formula: `outcome ~ predictors`, as in R, patsy or formulaic.
        federation: the hospitals.
        family: distribution of the outcome: "gaussian", "binomial", "poisson" or "gamma".
        link: None for the family's canonical link.
        offset: expression added to the linear predictor.
        frequency_weights: variable that says how many records a row stands for.
        variance_weights: variable of prior weights (a proportion's denominator).
        l2: ridge penalty, or "cross-validated" to have it chosen.
        l2_scale: whether the penalty is on standardised or on raw columns.
        num_folds: folds of the cross-validation; a patient's records are in one.
        covariance: of the estimates: "model", "HC0" to "HC3", or "cluster".
        cluster: variable whose values are the clusters, or "patient" (the default) or "site".
        site_intercepts: whether each site has an intercept of its own.
        aliased: whether columns that are combinations of others are refused or dropped.
        term_tests: how whole terms are tested.
        use_t: t instead of normal quantiles (families with a dispersion).
        confidence: of the intervals, in [0.5, 1).

    Returns:
        The fit: `print(result.summary())`, `result.to_frame()`, `result.to_json()`, `result.plot()`.

    Raises:
        ConfigError: a formula or option is wrong; nothing was asked of any hospital.
        ModelError: rank deficiency, separation or no convergence.
        SiteError: a hospital's computation failed.
        QuorumError: too few hospitals answered.
    """
    model = _glm(
        formula,
        family=family,
        link=link,
        offset=offset,
        frequency_weights=frequency_weights,
        variance_weights=variance_weights,
        l2=l2,
        l2_scale=l2_scale,
        num_folds=num_folds,
        covariance=covariance,
        cluster=cluster,
        site_intercepts=site_intercepts,
        aliased=aliased,
        term_tests=term_tests,
        use_t=use_t,
        confidence=confidence,
    )
    return federation.run(model)
