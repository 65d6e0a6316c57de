"""The sites' own random effects: each site's, in its slot. Needs the rule `allows_site_results`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.design import Design, Frame, num_complete_rows
from wardround.analytics.glm_sums import check_columns
from wardround.analytics.linear import pack_symmetric
from wardround.analytics.mixed_integral import CURVES, MixedFamily, records_of, site_mode
from wardround.analytics.mixed_linear import check_random, factor_of
from wardround.data.table import Table
from wardround.errors import DataError
from wardround.sums import Array, Contribution, exact, site_function

Values = NDArray[np.float64]


class SiteEffects(Contribution):
    """A slot for every site: whether it tells, its random effects' modes, and their conditional covariance."""

    is_told: Array = exact("num_sites")
    modes: Array = exact("num_sites", "num_random")
    covariances: Array = exact("num_sites", "num_pairs")


def _sizes(sites: tuple[str, ...], random: tuple[int, ...], **_: Any) -> dict[str, float]:
    q = len(random)
    return {"num_sites": len(sites), "num_random": q, "num_pairs": q * (q + 1) // 2}


@site_function(
    "mixed.site_effects",
    version=1,
    symbols=_sizes,
    parameters=lambda random, **_: len(random),
    per_site=True,
    rows=num_complete_rows,
)
def site_effects(
    data: Table,
    sites: tuple[str, ...],
    design: Design,
    frame: Frame,
    random: tuple[int, ...],
    family: MixedFamily | None,
    coefficients: Array,
    theta: Array,
    variance: float,
    minimum_cell: int,
) -> SiteEffects:
    """This site's random effects given the model's parameters, in its slot.

    Args:
        data: the site's records.
        sites: whose slots there are.
        design: the columns.
        frame: the rows, and the numbers beside the columns.
        random: which columns have random effects.
        family: of the outcome; None: a linear model.
        coefficients: fixed effects of the standardised columns, shape (num_columns,).
        theta: lower triangle of the random effects' Cholesky factor (of a linear model, relative to the residuals).
        variance: of a linear model's residuals; 1 for the others.
        minimum_cell: a site with 1 to `minimum_cell - 1` records does not tell: the covariance would tell the number.

    Raises:
        DataError: the site has no slot, or arguments that do not fit each other.

    Guarantees:
        effects_of_few_records_stay: a site with fewer records than `minimum_cell` leaves its slot empty.
    """
    check_columns(design, coefficients=np.atleast_1d(coefficients))
    check_random(design, random, theta)
    if data.site not in sites:
        raise DataError("this site has no slot among those that the ask names; the roster of the run is another one")
    q, place = len(random), sites.index(data.site)
    answer = SiteEffects(
        is_told=np.zeros(len(sites)),
        modes=np.zeros((len(sites), q)),
        covariances=np.zeros((len(sites), q * (q + 1) // 2)),
    )
    records = records_of(data, design, frame, random)
    if 0 < len(records.y) < minimum_cell:
        return answer
    factor = factor_of(theta, q)
    columns = records.z @ factor
    fixed = records.x @ coefficients + records.offset
    if family is None:
        inner = np.eye(q) + columns.T @ columns
        mode: Values | None = np.linalg.solve(inner, columns.T @ (records.y - fixed))
    else:
        mode = site_mode(records, family, coefficients, theta)
        if mode is None:
            return answer
        weight = CURVES[family].slopes(CURVES[family].mean(fixed + columns @ mode))[0]
        inner = np.eye(q) + columns.T @ (columns * weight[:, None])
    answer.is_told[place] = 1.0
    answer.modes[place] = factor @ mode
    answer.covariances[place] = pack_symmetric(variance * factor @ np.linalg.solve(inner, factor.T))
    return answer
