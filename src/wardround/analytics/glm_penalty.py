"""Ridge penalties: their unit, and the choice of one by cross-validation over all sites.

References:
    Hastie, Tibshirani & Friedman (2009), The Elements of Statistical Learning, 2nd ed., sections 3.4.1 and 7.10.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.design import (
    AtSite,
    Block,
    Column,
    Design,
    Frame,
    evaluate_blocks,
    num_complete_rows,
    num_parameters,
    tells_of_one_site,
)
from wardround.analytics.glm_fit import MAX_ITERATIONS, overall_mean_coefficients
from wardround.analytics.glm_result import PenaltyScore
from wardround.analytics.glm_sums import Model, check_columns, sizes, terms_at
from wardround.analytics.linear import solve_symmetric, unpack_symmetric
from wardround.analytics.preparation import Prepared
from wardround.data.table import Table
from wardround.errors import ConvergenceError, DataError, ModelError
from wardround.sums import Array, Contribution, Steps, ask, exact, people, site_function

PENALTY_GRID = tuple(float(p) for p in np.geomspace(1e-4, 1e1, 21))
"""Penalties a record that cross-validation tries."""
MAX_FOLDS = 20
"""Most folds."""
MAX_FOLD_NUMBERS = 2**24
"""Most numbers in the sums of one step of all folds and penalties (unit: elements); 128 MiB of float64."""

Values = NDArray[np.float64]


class SquareSums(Contribution):
    """Sums of squares of the standardised columns."""

    squares: Array = exact("num_columns")
    num_rows: int = people()


@site_function(
    "glm.square_sums",
    version=1,
    symbols=sizes,
    parameters=num_parameters,
    per_site=tells_of_one_site,
    rows=num_complete_rows,
)
def square_sums(data: Table, design: Design, frame: Frame) -> SquareSums:
    """Sums of squares of the design's columns, as they are standardised."""
    squares, num_rows = np.zeros(design.num_columns), 0
    for block in evaluate_blocks(data, design, frame):
        squares += np.einsum("ij,ij->j", block.x, block.x)
        num_rows += len(block.y)
    return SquareSums(squares=squares, num_rows=num_rows)


def penalty_unit(prepared: Prepared, l2: float | str, l2_scale: str) -> Steps[Values]:
    """What a penalty of 1 adds to the Gram matrix's diagonal, in the design's own standardisation."""
    is_penalised = np.array([not _is_intercept(column) for column in prepared.design.columns], float)
    if l2 == 0:
        return np.zeros(prepared.design.num_columns)
    if l2_scale == "raw":
        return is_penalised / prepared.design.scale**2
    sums = (yield from ask(square_sums, prepared.design, prepared.frame)).sum
    return is_penalised * sums.squares / sums.num_rows


def _is_intercept(column: Column) -> bool:
    return all(isinstance(feature, AtSite) for feature in column.features)


class FoldTerms(Contribution):
    """Sums of the iteration for every fold left out and every penalty, and the deviance of the left-out fold."""

    gram: Array = exact("num_folds", "num_penalties", "num_pairs")
    score: Array = exact("num_folds", "num_penalties", "num_columns")
    deviance: Array = exact("num_folds", "num_penalties")
    held_out: Array = exact("num_folds", "num_penalties")
    num_rows: Array = exact("num_folds")
    num_invalid: NDArray[np.int64] = people("num_folds", "num_penalties", cells="none")


def _fold_sizes(design: Design, coefficients: Values, **_: Any) -> dict[str, float]:
    num_folds, num_penalties = _grid(design, coefficients)
    return {**sizes(design), "num_folds": num_folds, "num_penalties": num_penalties}


def _grid(design: Design, coefficients: Values) -> tuple[int, int]:
    """Folds and penalties of coefficients of shape (num_folds, num_penalties, num_columns), checked."""
    check_columns(design, coefficients=np.atleast_1d(coefficients))
    if coefficients.ndim != 3 or not 1 <= coefficients.shape[0] <= MAX_FOLDS or not coefficients.size:
        raise DataError(f"coefficients must be of up to {MAX_FOLDS} folds, of penalties, and of the columns")
    num_folds, num_penalties, num_columns = coefficients.shape
    if num_folds * num_penalties * num_columns**2 // 2 > MAX_FOLD_NUMBERS:
        raise DataError(_too_many(num_columns, num_folds))
    return num_folds, num_penalties


def _too_many(num_columns: int, num_folds: int) -> str:
    return (
        f"cross-validation of {num_columns} columns in {num_folds} folds needs more than {MAX_FOLD_NUMBERS} numbers "
        "a step; set l2 to a number, or take fewer folds or columns"
    )


def fold_of(patient_index: NDArray[np.int64], num_folds: int, site: str) -> NDArray[np.int64]:
    """The fold of each patient of a site: all records of a patient are in one. Shape as given.

    The index is scrambled (the finaliser of SplitMix64; Steele, Lea & Flood 2014), so that an order in the
    table does not become an order of folds, and begins elsewhere at each site, so that small sites do not
    all fill the same folds.
    """
    z = patient_index.astype(np.uint64) + (np.uint64(zlib.crc32(site.encode())) << np.uint64(32))
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) % np.uint64(num_folds)).astype(np.int64)


@site_function(
    "glm.fold_terms",
    version=1,
    symbols=_fold_sizes,
    parameters=num_parameters,
    per_site=tells_of_one_site,
    rows=num_complete_rows,
)
def fold_terms(data: Table, design: Design, frame: Frame, model: Model, coefficients: Array) -> FoldTerms:
    """Sums without each fold at coefficients of shape (num_folds, num_penalties, num_columns).

    Raises:
        DataError: coefficients of another shape, or over `MAX_FOLD_NUMBERS` numbers.
    """
    num_folds, num_penalties = _grid(design, coefficients)
    size = sizes(design)
    gram = np.zeros((num_folds, num_penalties, int(size["num_pairs"])))
    score = np.zeros((num_folds, num_penalties, design.num_columns))
    deviance, held_out = np.zeros((2, num_folds, num_penalties))
    num_invalid: NDArray[np.int64] = np.zeros((num_folds, num_penalties), np.int64)
    num_rows = np.zeros(num_folds)
    for block in evaluate_blocks(data, design, frame):
        folds = fold_of(data.patient_index[block.rows], num_folds, data.site)
        for fold in range(num_folds):
            inside, outside = _rows_of(block, folds != fold), _rows_of(block, folds == fold)
            num_rows[fold] += outside.frequency.sum()
            for k in range(num_penalties):
                here = terms_at(inside, model, coefficients[fold, k])
                gram[fold, k] += here.gram
                score[fold, k] += here.score
                deviance[fold, k] += here.deviance
                there = terms_at(outside, model, coefficients[fold, k])
                held_out[fold, k] += there.deviance
                num_invalid[fold, k] += here.num_invalid + there.num_invalid
    return FoldTerms(
        gram=gram, score=score, deviance=deviance, held_out=held_out, num_rows=num_rows, num_invalid=num_invalid
    )


def _rows_of(block: Block, mask: NDArray[np.bool_]) -> Block:
    return Block(
        x=block.x[mask],
        y=block.y[mask],
        offset=block.offset[mask],
        frequency=block.frequency[mask],
        precision=block.precision[mask],
        rows=block.rows[mask],
    )


def cross_validate(
    prepared: Prepared, model: Model, unit: Values, num_folds: int
) -> Steps[tuple[float, tuple[PenaltyScore, ...]]]:
    """Choose the penalty with the least deviance a left-out record; all folds and penalties share each ask.

    Raises:
        ModelError: too many columns for so many folds, or a fold without records.
        ConvergenceError: the fits did not settle.
    """
    penalties = np.array(PENALTY_GRID) * prepared.num_complete
    num_columns = prepared.design.num_columns
    if num_folds * len(penalties) * num_columns**2 // 2 > MAX_FOLD_NUMBERS:
        raise ModelError(_too_many(num_columns, num_folds))
    coefficients = np.tile(overall_mean_coefficients(prepared, model), (num_folds, len(penalties), 1))
    previous, objective = coefficients.copy(), np.full((num_folds, len(penalties)), np.inf)
    weight = penalties[None, :, None] * unit
    for _ in range(MAX_ITERATIONS):
        sums = (yield from ask(fold_terms, prepared.design, prepared.frame, model, coefficients)).sum
        if sums.num_rows.min() <= 0:
            raise ModelError(f"cross-validation: one of the {num_folds} folds has no records; take fewer folds")
        reached = sums.deviance + (weight * coefficients**2).sum(axis=2)
        is_worse = (sums.num_invalid > 0) | (reached > objective + 1e-9 * np.abs(objective) + 1e-12)
        size = 0.0
        for fold, k in np.ndindex(is_worse.shape):
            if is_worse[fold, k]:
                coefficients[fold, k] = (coefficients[fold, k] + previous[fold, k]) / 2
                size = np.inf
                continue
            gram = unpack_symmetric(sums.gram[fold, k]) + np.diag(weight[0, k])
            step = solve_symmetric(gram, sums.score[fold, k] - weight[0, k] * coefficients[fold, k])
            previous[fold, k], objective[fold, k] = coefficients[fold, k], reached[fold, k]
            coefficients[fold, k] += step
            size = max(size, float(np.abs(step).max(initial=0.0)))
        if size <= 1e-6:
            break
    else:
        raise ConvergenceError(f"cross-validation of {num_columns} coefficients did not settle; set l2 to a number")
    return _best(penalties, sums.held_out / sums.num_rows[:, None])


def _best(penalties: Values, scores: Values) -> tuple[float, tuple[PenaltyScore, ...]]:
    """The penalty with the least score; scores have shape (num_folds, num_penalties)."""
    mean, error = scores.mean(axis=0), scores.std(axis=0, ddof=1) / np.sqrt(len(scores))
    path = tuple(
        PenaltyScore(l2=float(a), deviance=float(b), standard_error=float(c))
        for a, b, c in zip(penalties, mean, error, strict=True)
    )
    return float(penalties[int(mean.argmin())]), path
