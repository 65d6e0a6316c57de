"""Principal components from covariance sums: those of the pooled records, while every record stays at its site.

The coordinator receives means and covariances over all sites and takes the eigenvectors; scores are computed where
the records are, with `PCAResult.transform`.

References:
    Jolliffe, Cadima (2016), Principal component analysis: a review and recent developments, Philosophical
    Transactions of the Royal Society A 374, 20150202.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.correlation_sums import (
    check_complete,
    checked_variables,
    covariance,
    products,
    spreads,
    standardisation,
)
from wardround.analytics.lone_variables import refuse_lone_variables
from wardround.analytics.pca_result import PCAResult
from wardround.analytics.steady_sites import with_steady_sites
from wardround.data.contract import Setting
from wardround.errors import ConfigError, DataError
from wardround.sums import Steps, workflow

Floats = NDArray[np.float64]

NO_VARIANCE = 1e-12
"""Part of the largest eigenvalue up to which another counts as 0."""
EQUAL_VARIANCES = 1e-8
"""Relative difference up to which two eigenvalues count as equal, so that their directions are arbitrary."""


@workflow("pca", version=1)
def pca(
    setting: Setting,
    variables: tuple[str, ...] | None = None,
    scale: bool = True,
    num_components: int | float | None = None,
) -> Steps[PCAResult]:
    """Principal components of numeric variables, equal to those of the pooled records.

    Args:
        setting: contract, sites and disclosure rules.
        variables: numbers, integers, dates or booleans; None: all numbers and integers of the contract. Records in
            which one of them is missing are left out.
        scale: whether the variables are first divided by their standard deviations (components of the correlation
            matrix); otherwise those of the covariance matrix, in which the variable with the largest numbers rules.
        num_components: how many, or the least share of the variance that they must explain together (a number
            below 1); None: all.

    Returns:
        The components, largest variance first. Of each, the weight that is largest in size is positive.

    Raises:
        ConfigError: an unknown or unsuitable variable, or an option out of range, before anything is asked.
        DataError: no complete record, or a variable whose values are all equal.
        DisclosureError: fewer complete records than may be shown.
        QuorumError: the sites came and went in every attempt.

    Guarantees:
        equals_pooled: components and variances are those of the pooled complete records, up to rounding.
        sign_is_fixed: the same records give the same signs, however they are split among sites.
    """
    names = checked_variables(setting.contract, variables, "pca.variables", 2)
    _check_num_components(num_components, len(names))

    def attempt() -> Steps[PCAResult]:
        yield from refuse_lone_variables(names, setting.disclosure.minimum_cell, "pca")
        found = yield from standardisation(names, complete_only=True)
        check_complete(setting, found, "pca")
        found.refuse_constants("pca")
        if found.num_complete < 2:
            raise DataError("pca: one complete record has no components")
        means, covariances = yield from covariance(found)
        deviations = np.sqrt(np.diag(covariances))
        units = 1 / deviations if scale else found.scale
        vectors, variances = _eigenvectors(covariances * np.outer(units, units))
        kept = _num_kept(num_components, variances, found.num_complete)
        return PCAResult(
            variables=names,
            is_scaled=scale,
            mean=means,
            scale=deviations * found.scale if scale else np.ones(len(names)),
            standard_deviations=deviations * found.scale,
            components=vectors[:kept],
            variances=variances[:kept],
            ratios=variances[:kept] / variances.sum(),
            total_variance=float(variances.sum()),
            num_records=setting.disclosure.shown(found.num_complete),
            num_left_out=setting.disclosure.shown(found.num_records - found.num_complete),
            sites=found.sites,
            remarks=_remarks(variances, kept, found.num_complete),
        )

    return (yield from with_steady_sites(attempt, len(setting.sites)))


def _check_num_components(wanted: int | float | None, num_variables: int) -> None:
    if wanted is None:
        return
    is_share = isinstance(wanted, float) and 0 < wanted < 1
    if not is_share and not (wanted == int(wanted) and 1 <= wanted <= num_variables):
        raise ConfigError(
            f"pca.num_components: must be a whole number in [1, {num_variables}] or a share in (0, 1), got {wanted:g}"
        )


def _eigenvectors(matrix: Floats) -> tuple[Floats, Floats]:
    """Eigenvectors as rows, by descending eigenvalue, with a deterministic sign; eigenvalues below rounding are 0."""
    values, vectors = np.linalg.eigh(matrix)
    values, rows = values[::-1], vectors.T[::-1]
    largest = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1)
    return rows * np.where(largest < 0, -1.0, 1.0), np.where(values > NO_VARIANCE * values[0], values, 0.0)


def _num_kept(wanted: int | float | None, variances: Floats, num_records: int) -> int:
    """How many components are reported; none beyond the number of records less one."""
    most = min(len(variances), num_records - 1)
    if wanted is None:
        return most
    if wanted < 1:
        reached = np.cumsum(variances) / variances.sum() >= wanted - 1e-12
        return min(int(reached.argmax()) + 1, most)
    return min(int(wanted), most)


def _remarks(variances: Floats, kept: int, num_records: int) -> tuple[str, ...]:
    remarks = []
    if num_records <= len(variances):
        remarks.append("There are no more records than variables, so that the last components have no variance.")
    elif not variances[-1]:
        remarks.append("Some variables are combinations of others: the last components have no variance.")
    close = variances[:-1] - variances[1:] <= EQUAL_VARIANCES * variances[0]
    pairs = [str(j + 1) for j in np.flatnonzero(close[:kept] & (variances[:-1][:kept] > 0))]
    if pairs:
        remarks.append(
            f"Component {', '.join(pairs)} has the variance of the next one: their directions within "
            "the space that they span are arbitrary."
        )
    return tuple(remarks)


# A module's vocabulary is what it names: the workflow with the site functions that it asks for.
__all__ = ["pca", "products", "spreads"]
