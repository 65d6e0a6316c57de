"""Nobody is singled out by a formula: columns, levels and outcomes that tell few records from all others are refused.

`I(age == 87.1)` makes a column that is 1 for one patient; its coefficient is that patient's outcome, and as an outcome
it gives the patient's covariates. Such a column is found from sums: few records lie on one side of its mean, and
all others at (nearly) one place.

What this does not find: a column that singles out nobody by itself and does so as the difference of two columns. The
formula is there for every hospital to read; where that does not do, noise must (differential privacy).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.design import Design, Frame, Level
from wardround.analytics.preparation_sums import ColumnSums, far_records
from wardround.errors import DisclosureError
from wardround.privacy.disclosure import DisclosureRules
from wardround.sums import Steps, ask

NEAR = 0.15
"""Records are at one place that are nearer to their mean than this part of the distance of those set apart."""
_MOST_NAMED = 10
_LEAST_SITES = 3
Values = NDArray[np.float64]
Counts = NDArray[np.int64]


def refuse_few(num_complete: int, minimum_cell: int) -> None:
    """Raise `DisclosureError` where a model would be of few records."""
    if 0 < num_complete < minimum_cell:
        raise DisclosureError(
            "minimum_cell",
            f"fewer than {minimum_cell} records are complete in the model's variables; drop variables that are mostly "
            "missing, or widen the cohort",
        )


def refuse_few_clusters(num_clusters: int, cluster: str, rules: DisclosureRules) -> None:
    """Raise `DisclosureError` where a covariance by clusters would give the scores of single clusters.

    The scores of all records add up to zero, so that of two clusters each has the other's, and their products are the
    covariance; of three they are known but for a rotation.

    Args:
        num_clusters: over all sites.
        cluster: "patient", "site" or a variable.
        rules: sites count as what is one site's alone, other clusters by `minimum_cell`.

    Guarantees:
        few_clusters_are_refused: fewer than `minimum_cell` clusters, or fewer than three sites unless
            `allows_site_results`.
    """
    if cluster == "site" and num_clusters < _LEAST_SITES and not rules.allows_site_results:
        raise DisclosureError(
            "allows_site_results",
            f"a covariance by fewer than {_LEAST_SITES} sites tells what is each one's own; choose other clusters",
        )
    if cluster != "site" and num_clusters < rules.minimum_cell:
        raise DisclosureError(
            "minimum_cell",
            f"fewer than {rules.minimum_cell} clusters by {cluster}, each of which the covariance would tell of; "
            "choose other clusters, or another covariance",
        )


def refuse_lone_levels(levels: tuple[Level, ...], counts: NDArray[np.int64], minimum_cell: int) -> None:
    """Raise `DisclosureError` where few complete records have a level of the design.

    Guarantees:
        levels_of_few_are_refused: no design is made with a level that 1 to `minimum_cell - 1` records have.
    """
    small = [
        f"{level.variable} = {level.level!r}"
        for level, count in zip(levels, counts, strict=True)
        if 0 < count < minimum_cell
    ]
    if small:
        raise DisclosureError(
            "minimum_cell",
            f"some, but fewer than {minimum_cell} complete records have {_listed(small)}; join such levels with others "
            "in the contract, leave their records out by the cohort, or leave the variable out",
        )


def refuse_lone_records(
    design: Design, frame: Frame, outcome_name: str, sums: ColumnSums, middles: Values, minimum_cell: int
) -> Steps[None]:
    """Ask whether few records stand apart in a column or in the outcome, where sums leave that open.

    Args:
        design: the columns, as `column_sums` was asked for them.
        frame: the rows, and the outcome.
        outcome_name: for the message.
        sums: total of `column_sums`.
        middles: the means from which its sides were counted: of the columns and, last, the outcome.
        minimum_cell: fewest records that may stand apart.

    Raises:
        DisclosureError: names the columns.

    Guarantees:
        nobody_is_singled_out: no model is fitted that has a column, or an outcome, with nearly the same value
            in all but 1 to `minimum_cell - 1` of its records.
    """
    suspects = np.flatnonzero(_is_small(np.minimum(sums.num_above, sums.num_below), minimum_cell))
    if not len(suspects):
        return
    places, reaches = places_of_others(
        sums.num_above, sums.num_below, sums.above, sums.below, sums.num_weighted, middles, near=NEAR
    )
    columns = [int(j) for j in suspects if j < design.num_columns]
    part = replace(
        design,
        columns=tuple(design.columns[j] for j in columns),
        center=design.center[columns],
        scale=design.scale[columns],
    )
    asked = [*columns, design.num_columns]
    total = yield from ask(far_records, part, frame, places[asked], reaches[asked])
    names = [*(column.name for column in part.columns), f"the outcome {outcome_name}"]
    num_far, num_few = total.sum.num_far, np.minimum(sums.num_above, sums.num_below)[asked]
    # Of a handful of records with values of all sizes, no few stand apart from the others.
    are_apart = (num_far <= num_few) | (sums.num_weighted - num_far >= 2 * num_far)
    is_lone = _is_small(num_far, minimum_cell) & are_apart & np.isin(asked, suspects)
    lone = [name for name, refused in zip(names, is_lone, strict=True) if refused]
    if lone:
        raise DisclosureError(
            "minimum_cell",
            f"all records but fewer than {minimum_cell} have nearly the same value in {_listed(lone)}, which would "
            "tell of those few; leave it out, or make it tell of more records",
        )


def _is_small(counts: NDArray[np.int64], minimum_cell: int) -> NDArray[np.bool_]:
    return (counts > 0) & (counts < minimum_cell)


def places_of_others(
    num_above: Counts,
    num_below: Counts,
    above: Values,
    below: Values,
    num_values: Counts | int,
    middles: Values,
    *,
    near: float,
) -> tuple[Values, Values]:
    """Mean of the records that are not on the side of the few, and the distance up to which one is near it.

    Args:
        num_above: records above the middle, shape (num_columns,).
        num_below: records below it, likewise.
        above: sum of their distances from it, likewise.
        below: of those below, likewise.
        num_values: records that have a value, likewise, or one number for all.
        middles: of the columns, likewise.
        near: part of the distance between the few and the others up to which one is near the others.
    """
    are_above = num_above <= num_below
    num_few = np.maximum(np.where(are_above, num_above, num_below), 1)
    num_others = np.maximum(num_values - num_few, 1)
    sign = np.where(are_above, 1.0, -1.0)
    few = middles + sign * np.where(are_above, above, below) / num_few
    others = middles - sign * np.where(are_above, below, above) / num_others
    return others, near * np.abs(few - others)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
