"""The middle of the robust covariance of a Cox model: products of score residuals, summed at the sites.

A record's score residual is what it adds to the score when each record at risk is charged with its part of what
was expected; it needs, beside the record, only sums over risk sets by point, which are sent to the sites.

References:
    Lin & Wei (1989), J. Am. Stat. Assoc. 84, 1074-1078. Therneau & Grambsch (2000), section 7.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from wardround.analytics.cox_risk import (
    Hazard,
    RiskBlock,
    RiskFrame,
    Ties,
    Values,
    cumulated,
    predictor,
    risk_blocks,
)
from wardround.analytics.cox_sums import own_risk_sets
from wardround.analytics.design import Design, Frame, num_complete_rows, num_parameters, tells_of_one_site
from wardround.analytics.glm_finish import Meat, cluster_numbers
from wardround.analytics.glm_sums import check_columns, sizes
from wardround.analytics.linear import pack_symmetric
from wardround.data.table import Table
from wardround.errors import DataError
from wardround.sums import Array, Contribution, exact, people, site_function

CoxCovariance: TypeAlias = Literal["model", "robust", "cluster"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HazardSteps:
    """A hazard as it is sent: by point, shape (num_points,) or (num_points, num_columns); see `Hazard`."""

    increment: Array
    death_part: Array
    drift: Array
    death_drift: Array
    mean: Array

    @classmethod
    def of(cls, hazard: Hazard) -> HazardSteps:
        """What of a hazard the residuals need."""
        return cls(
            increment=hazard.increment,
            death_part=hazard.death_part,
            drift=hazard.drift,
            death_drift=hazard.death_drift,
            mean=hazard.mean,
        )

    def check(self, num_points: int, num_columns: int) -> None:
        """Raise `DataError` unless all is finite and of these sizes."""
        wide = (self.drift, self.death_drift, self.mean)
        fits = all(array.shape == (num_points, num_columns) for array in wide)
        fits &= all(array.shape == (num_points,) for array in (self.increment, self.death_part))
        if not fits or not all(np.isfinite(array).all() for array in (*wide, self.increment, self.death_part)):
            raise DataError(f"a hazard must have finite numbers for {num_points} points and {num_columns} columns")


class ScoreProducts(Contribution):
    """Sum over records, or over clusters, of the outer products of their weighted score residuals."""

    meat: Array = exact("num_pairs")
    num_clusters: int = people()


@site_function(
    "cox.score_products",
    version=1,
    symbols=sizes,
    parameters=num_parameters,
    per_site=tells_of_one_site,
    rows=num_complete_rows,
)
def score_products(
    data: Table,
    design: Design,
    frame: Frame,
    risk: RiskFrame,
    points: Array,
    coefficients: Array,
    steps: HazardSteps,
    covariance: CoxCovariance,
    cluster: str,
) -> ScoreProducts:
    """Products of score residuals over risk sets that the sites share.

    Args:
        data: the site's records.
        design: the columns.
        frame: the rows and weights.
        risk: times and strata.
        points: places of the event times, shape (num_points,).
        coefficients: of the standardised columns.
        steps: the hazard over all sites.
        covariance: by records ("robust") or by clusters.
        cluster: "patient", "site", or a variable; clusters lie within sites.

    Raises:
        DataError: arguments that do not fit each other.
    """
    check_columns(design, coefficients=np.atleast_1d(coefficients))
    where = risk.check_points(points)
    steps.check(points.size, design.num_columns)
    return _products(_Records(data, design, frame, risk), where, coefficients, steps, covariance, cluster)


@site_function(
    "cox.site_score_products",
    version=1,
    symbols=sizes,
    parameters=num_parameters,
    per_site=tells_of_one_site,
    rows=num_complete_rows,
)
def site_score_products(
    data: Table,
    design: Design,
    frame: Frame,
    risk: RiskFrame,
    ties: Ties,
    coefficients: Array,
    covariance: CoxCovariance,
    cluster: str,
) -> ScoreProducts:
    """Products of score residuals where this site's risk sets are its own; as `score_products`."""
    check_columns(design, coefficients=np.atleast_1d(coefficients))
    own = own_risk_sets(data, design, frame, risk, ties, coefficients)
    records = _Records(data, design, frame, risk)
    return _products(records, own.points, coefficients, HazardSteps.of(own.hazard), covariance, cluster)


@dataclass(frozen=True, slots=True)
class _Records:
    data: Table
    design: Design
    frame: Frame
    risk: RiskFrame


def _products(
    records: _Records, points: Any, coefficients: Values, steps: HazardSteps, covariance: str, cluster: str
) -> ScoreProducts:
    groups = cluster_numbers(records.data, cluster) if covariance == "cluster" else None
    meat = Meat(records.design.num_columns)
    increment, drift = cumulated(steps.increment), cumulated(steps.drift)
    for block in risk_blocks(records.data, records.design, records.frame, records.risk, points, groups):
        residuals = _residuals(block, coefficients, steps, increment, drift) * block.weight[:, None]
        is_used = block.weight > 0
        if groups is None:
            meat.add_rows(residuals[is_used])
        else:
            meat.add_clusters(groups[block.rows][is_used], residuals[is_used])
    return ScoreProducts(meat=pack_symmetric(meat.total()), num_clusters=meat.num_clusters)


def _residuals(block: RiskBlock, coefficients: Values, steps: HazardSteps, increment: Values, drift: Values) -> Values:
    """Score residuals, shape (num_rows, num_columns); `increment` and `drift` are cumulated."""
    theta = np.exp(predictor(block, coefficients)[0])
    is_death = block.death >= 0
    death = block.death[is_death]
    borne = increment[block.last] - increment[block.first]
    drifted = drift[block.last] - drift[block.first]
    borne[is_death] -= steps.death_part[death]
    drifted[is_death] -= steps.death_drift[death]
    residuals: Values = theta[:, None] * (drifted - block.x * borne[:, None])
    residuals[is_death] += block.x[is_death] - steps.mean[death]
    return residuals
