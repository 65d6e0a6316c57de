"""The sums that a step of the iteration needs: Gram matrix, score and deviance of a site's records.

References:
    McCullagh & Nelder (1989), Generalized Linear Models, 2nd ed., section 2.5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

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
from wardround.analytics.families import FAMILIES, LINKS, FamilyName, LinkName, mean_of
from wardround.analytics.linear import pack_symmetric
from wardround.data.table import Table
from wardround.errors import DataError
from wardround.sums import Array, Contribution, exact, people, site_function

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Family and link."""

    family: FamilyName
    link: LinkName

    def __post_init__(self) -> None:
        if self.link not in FAMILIES[self.family].links:
            raise ValueError(f"a {self.family} model has no link {self.link!r}")


class Terms(Contribution):
    """What a step of the iteration needs."""

    gram: Array = exact("num_pairs")
    score: Array = exact("num_columns")
    deviance: float = exact()
    pearson: float = exact()
    num_rows: float = exact()
    num_invalid: int = people(cells="none")


def sizes(design: Design, **_: Any) -> dict[str, float]:
    """Values of the names in the declarations of a design's sums."""
    p = design.num_columns
    return {"num_columns": p, "num_pairs": p * (p + 1) // 2}


def check_columns(design: Design, **arrays: Values) -> None:
    """Raise `DataError` unless each array has one finite number a column: what arrives may be wrong."""
    for name, array in arrays.items():
        if array.shape[-1:] != (design.num_columns,) or not np.isfinite(array).all():
            raise DataError(f"{name} must hold a finite number for each of the {design.num_columns} columns")


def check_outcome(block: Block, model: Model) -> None:
    """Raise `DataError` where the family does not allow an outcome."""
    family = FAMILIES[model.family]
    if not family.allows_outcome(block.y).all():
        raise DataError(f"the outcome of a {model.family} model must be {family.outcome_rule}; some records are not")


def working(block: Block, model: Model, eta: Values, mu: Values) -> tuple[Values, Values]:
    """Working weights and the factor that turns residuals into scores, by row."""
    slope = LINKS[model.link].inverse_derivative(eta)
    factor = block.case_weight * slope / FAMILIES[model.family].variance(mu)
    return factor * slope, factor


def terms_of(block: Block, model: Model, eta: Values, mu: Values) -> Terms:
    """Sums of one block at linear predictors `eta`; rows whose mean is impossible are counted, not added."""
    family = FAMILIES[model.family]
    with np.errstate(all="ignore"):
        weights, factor = working(block, model, eta, mu)
        scores = factor * (block.y - mu)
        deviances = family.unit_deviance(block.y, mu)
        pearson = (block.y - mu) ** 2 / family.variance(mu)
        is_valid = family.allows_mean(mu) & np.isfinite(weights) & np.isfinite(deviances) & np.isfinite(pearson)
    if not is_valid.all():
        weights, scores, deviances, pearson = (
            np.where(is_valid, values, 0.0) for values in (weights, scores, deviances, pearson)
        )
    scaled = block.x * np.sqrt(weights)[:, None]
    return Terms(
        gram=pack_symmetric(scaled.T @ scaled),
        score=block.x.T @ scores,
        deviance=float(block.case_weight @ deviances),
        pearson=float(block.case_weight @ pearson),
        num_rows=float(block.frequency[block.precision > 0].sum()),
        num_invalid=int((~is_valid & (block.case_weight > 0)).sum()),
    )


def terms_at(block: Block, model: Model, coefficients: Values) -> Terms:
    """Sums of one block at these coefficients."""
    eta = block.x @ coefficients + block.offset
    return terms_of(block, model, eta, mean_of(model.link, model.family, eta))


def _no_terms(design: Design) -> Terms:
    size = sizes(design)
    return Terms(
        gram=np.zeros(int(size["num_pairs"])),
        score=np.zeros(design.num_columns),
        deviance=0.0,
        pearson=0.0,
        num_rows=0.0,
        num_invalid=0,
    )


@site_function(
    "glm.terms",
    version=1,
    symbols=sizes,
    parameters=num_parameters,
    per_site=tells_of_one_site,
    rows=num_complete_rows,
)
def terms(data: Table, design: Design, frame: Frame, model: Model, coefficients: Array) -> Terms:
    """Gram matrix, score and deviance of this site's records at these coefficients.

    Args:
        data: the site's records.
        design: the columns.
        frame: the rows, and the numbers beside the columns.
        model: family and link.
        coefficients: of the standardised columns, shape (num_columns,).

    Raises:
        DataError: `coefficients` does not fit the design.
    """
    check_columns(design, coefficients=np.atleast_1d(coefficients))
    total = _no_terms(design)
    for block in evaluate_blocks(data, design, frame):
        total += terms_at(block, model, coefficients)
    return total


@site_function(
    "glm.first_terms",
    version=1,
    symbols=sizes,
    parameters=num_parameters,
    per_site=tells_of_one_site,
    rows=num_complete_rows,
)
def first_terms(data: Table, design: Design, frame: Frame, model: Model, outcome_mean: float) -> Terms:
    """Sums whose solution is where the iteration starts: the outcome, drawn to its mean, regressed on the design.

    Raises:
        DataError: an outcome that the family does not allow.
    """
    total = _no_terms(design)
    for block in evaluate_blocks(data, design, frame):
        check_outcome(block, model)
        mu = FAMILIES[model.family].start(block.y, outcome_mean)
        with np.errstate(all="ignore"):
            eta = LINKS[model.link].link(mu)
            weights, factor = working(block, model, eta, mu)
            response = weights * (eta - block.offset) + factor * (block.y - mu)
        response = np.where(np.isfinite(response), response, 0.0)
        total += replace(terms_of(block, model, eta, mu), score=block.x.T @ response)
    return total
