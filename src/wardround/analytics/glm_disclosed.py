"""A fitted regression as disclosure rules let it be known: counts of people that are small are None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from wardround.analytics.glm_result import GLMResult
from wardround.analytics.lone_records import refuse_few_clusters
from wardround.privacy.disclosure import DisclosureRules, round_count


def disclosed(result: GLMResult, rules: DisclosureRules) -> GLMResult:
    """The same fit without small counts of missing values, and with numbers of records rounded.

    Raises:
        DisclosureError: the covariance is by few clusters.

    Guarantees:
        a_regression_shows_no_small_count: `num_left_out`, `num_missing` and a `num_clusters` that counts patients hold
            none from 1 to `minimum_cell - 1`, and no `num_left_out` that would give one of `num_missing` back.
    """
    if result.num_clusters is not None:
        refuse_few_clusters(result.num_clusters, result.covariance.removeprefix("cluster (").removesuffix(")"), rules)
    num_left_out, num_missing = shown_missing(result.num_left_out or 0, result.num_missing, rules)
    counts_patients = result.covariance == "cluster (patient)" and result.num_clusters is not None
    hidden = replace(
        result,
        num_left_out=num_left_out,
        num_missing=num_missing,
        num_clusters=rules.shown(result.num_clusters or 0) if counts_patients else result.num_clusters,
    )
    return hidden if rules.rounding == 1 else _rounded(hidden, rules.rounding)


def shown_missing(
    num_left_out: int, num_missing: Mapping[str, int | None], rules: DisclosureRules
) -> tuple[int | None, dict[str, int | None]]:
    """How many records are left out, and how many lack each variable, as they may be shown.

    Where the number of one variable is hidden, that of the records left out is hidden with it: it is not above the sum
    of all, and with the others would tell the hidden one nearly.
    """
    shown = {name: None if count is None else rules.shown(count) for name, count in num_missing.items()}
    return (None if None in shown.values() else rules.shown(num_left_out)), shown


def _rounded(result: GLMResult, base: int) -> GLMResult:
    """With all that tells the number of records as the rounded number would have it."""
    num_records = float(round_count(round(result.num_records), base))
    num_columns = len(result.terms)
    return replace(
        result,
        num_records=num_records,
        df_residual=num_records - num_columns,
        bic=result.aic + num_columns * (float(np.log(num_records)) - 2.0),
    )
