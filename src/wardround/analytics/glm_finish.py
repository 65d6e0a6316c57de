"""What is reported of a fit beside its coefficients: log-likelihood, null deviance, robust covariance.

References:
    White (1980), Econometrica 48; MacKinnon & White (1985), J. Econometrics 29 (HC0 to HC3).
    Liang & Zeger (1986), Biometrika 73 (clusters).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.design import (
    Block,
    Design,
    Frame,
    evaluate_blocks,
    num_complete_rows,
    num_parameters,
    tells_of_one_site,
)
from wardround.analytics.families import FAMILIES, LINKS, mean_of
from wardround.analytics.glm_sums import Model, check_columns, sizes
from wardround.analytics.linear import pack_symmetric
from wardround.data.table import Table
from wardround.errors import DataError
from wardround.sums import Array, Contribution, exact, people, site_function

Values = NDArray[np.float64]
Covariance: TypeAlias = Literal["model", "HC0", "HC1", "HC2", "HC3", "cluster"]


class Finish(Contribution):
    """What is reported about the fit beside the coefficients."""

    log_likelihood: float = exact()
    null_deviance: float = exact()
    meat: Array = exact("num_pairs")
    num_clusters: int = people()


@site_function(
    "glm.finish",
    version=1,
    symbols=sizes,
    parameters=num_parameters,
    per_site=tells_of_one_site,
    rows=num_complete_rows,
)
def finish(
    data: Table,
    design: Design,
    frame: Frame,
    model: Model,
    coefficients: Array,
    null_mean: float,
    dispersion: float,
    bread: Array,
    covariance: Covariance,
    cluster: str,
) -> Finish:
    """Log-likelihood, deviance of the null model, and the middle of a robust covariance.

    Args:
        data: the site's records.
        design: the columns.
        frame: the rows, and the numbers beside the columns.
        model: family and link.
        coefficients: of the standardised columns, shape (num_columns,).
        null_mean: mean of every outcome in the null model.
        dispersion: at which the likelihood is taken, positive.
        bread: inverse of the Gram matrix, shape (num_columns, num_columns); HC2 and HC3 need it.
        covariance: which middle.
        cluster: "patient", "site", or a variable; clusters lie within sites.

    Raises:
        DataError: arguments that do not fit each other.
    """
    check_columns(design, coefficients=np.atleast_1d(coefficients), bread=np.atleast_1d(bread))
    if bread.shape != 2 * coefficients.shape or not dispersion > 0:
        raise DataError("bread must be a square matrix of the design's columns, dispersion greater than 0")
    family = FAMILIES[model.family]
    log_likelihood = null_deviance = 0.0
    meat = Meat(design.num_columns)
    groups = cluster_numbers(data, cluster) if covariance == "cluster" else None
    for block in evaluate_blocks(data, design, frame, order=groups):
        eta = block.x @ coefficients + block.offset
        mu = mean_of(model.link, model.family, eta)
        is_used = block.case_weight > 0
        with np.errstate(all="ignore"):
            likelihoods = family.log_likelihood(block.y, mu, block.precision, dispersion)
        log_likelihood += float(block.frequency @ np.where(is_used, likelihoods, 0.0))
        null = family.unit_deviance(block.y, np.full_like(block.y, null_mean))
        null_deviance += float(block.case_weight @ null)
        if groups is not None:
            scores = _scores(block, model, eta, mu) * block.frequency[:, None]
            meat.add_clusters(groups[block.rows][is_used], scores[is_used])
        elif covariance != "model":
            factor = _leverage_factor(block, model, eta, mu, bread, covariance) * np.sqrt(block.frequency)
            meat.add_rows(_scores(block, model, eta, mu)[is_used] * factor[is_used, None])
    return Finish(
        log_likelihood=log_likelihood,
        null_deviance=null_deviance,
        meat=pack_symmetric(meat.total()),
        num_clusters=meat.num_clusters,
    )


class Meat:
    """Sum over rows or clusters of the outer product of their scores, in memory for one block."""

    def __init__(self, num_columns: int) -> None:
        self._total = np.zeros((num_columns, num_columns))
        self._open: tuple[int, Values] | None = None
        self.num_clusters = 0

    def add_rows(self, scores: Values) -> None:
        """Add rows that each stand for themselves; scores have shape (num_rows, num_columns)."""
        self._total += scores.T @ scores

    def add_clusters(self, groups: NDArray[np.int64], scores: Values) -> None:
        """Add rows whose clusters come in order; the last cluster may go on in the next call."""
        if not len(groups):
            return
        starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
        sums = np.add.reduceat(scores, starts, axis=0)
        if self._open is not None and self._open[0] == groups[0]:
            sums[0] += self._open[1]
        else:
            self._close()
            self.num_clusters += 1
        self.num_clusters += len(starts) - 1
        self.add_rows(sums[:-1])
        self._open = int(groups[-1]), sums[-1]

    def _close(self) -> None:
        if self._open is not None:
            self.add_rows(self._open[1][None])
            self._open = None

    def total(self) -> Values:
        """The sum, all clusters closed. Shape (num_columns, num_columns)."""
        self._close()
        return self._total


def _scores(block: Block, model: Model, eta: Values, mu: Values) -> Values:
    """Score of one record that each row stands for, shape (num_rows, num_columns)."""
    slope = LINKS[model.link].inverse_derivative(eta)
    factor = block.precision * slope / FAMILIES[model.family].variance(mu) * (block.y - mu)
    return block.x * factor[:, None]


def _leverage_factor(block: Block, model: Model, eta: Values, mu: Values, bread: Values, kind: str) -> Values:
    """What HC2 and HC3 divide a score by, to the power -1. Shape (num_rows,)."""
    if kind in ("HC0", "HC1"):
        return np.ones(len(block.y))
    slope = LINKS[model.link].inverse_derivative(eta)
    weights = block.precision * slope**2 / FAMILIES[model.family].variance(mu)
    leverage = np.clip(weights * np.einsum("ij,ij->i", block.x @ bread, block.x), 0, 1 - 1e-12)
    factor: Values = (1 - leverage) ** (-0.5 if kind == "HC2" else -1.0)
    return factor


def cluster_numbers(data: Table, cluster: str) -> NDArray[np.int64]:
    """Number of each record's cluster ("patient", "site", or a variable's values), shape (num_records,).

    Clusters lie within sites: records of one value at two sites are two clusters.
    """
    if cluster == "site":
        return np.zeros(data.num_records, np.int64)
    if cluster == "patient":
        return data.patient_index
    variable = data.contract.variable(cluster)
    values = data.numbers(cluster) if variable.is_numeric else data.codes(cluster)
    inverse: NDArray[np.int64] = np.unique(values, return_inverse=True)[1].astype(np.int64)
    return inverse
