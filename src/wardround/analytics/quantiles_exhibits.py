"""Quantiles in a report: table, figure, and the sentences of a methods section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from wardround.analytics.description_exhibits import QUANTILES_REFERENCE
from wardround.analytics.journal_text import ABSENT, MINUS, count_text
from wardround.analytics.result import Exhibit, FigureExhibit, TableExhibit

if TYPE_CHECKING:
    from wardround.analytics.quantiles import Quantile, QuantilesResult

QUANTILES_REFERENCES = (QUANTILES_REFERENCE,)


def quantiles_methods(result: QuantilesResult) -> str:
    """What was computed, as a methods section says it."""
    return (
        f"Quantiles of {count_text(result.num_records)} records at {len(result.sites)} sites were read from counts in "
        "brackets, which were narrowed around each quantile by further sums over sites; they are those of the pooled "
        "sample within the stated bound (Hyndman and Fan 1996)."
    )


def quantiles_exhibits(result: QuantilesResult) -> tuple[Exhibit, ...]:
    """The quantiles of each variable and group, one a row, and the figure."""
    probabilities = tuple(quantile.probability for quantile in result.rows[0].quantiles)
    named = [_head(probability) for probability in probabilities]
    described = f"The {', '.join(named)} of {len(result.rows)} rows (variables, by group), as the table holds them."
    return (
        TableExhibit(title="Quantiles", frame=_frame(result, named), note=" ".join(result.notes)),
        FigureExhibit(title="Quantiles with their bounds", draw=result.plot, description=described),
    )


def _frame(result: QuantilesResult, named: list[str]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for row in result.rows:
        shown = dict(zip(named, map(_value, row.quantiles), strict=True))
        rows.append({"Values": count_text(row.num_values), **shown})
    labels = [
        (row.variable.replace("_", " ") + (f", {row.unit}" if row.unit else ""), row.group or "all")
        for row in result.rows
    ]
    index = pd.MultiIndex.from_tuples(labels, names=["Variable", (result.by or "Group").replace("_", " ")])
    return pd.DataFrame(rows, index=index)


def _head(probability: float) -> str:
    return {0.25: "First quartile", 0.5: "Median", 0.75: "Third quartile"}.get(probability, f"{probability:g} quantile")


def _value(quantile: Quantile) -> str:
    if quantile.value is None:
        return ABSENT
    bound = f" ±{quantile.bound:.1g}" if quantile.bound and quantile.bound > 1e-5 * abs(quantile.value) else ""
    return f"{quantile.value:.5g}".replace("-", MINUS) + bound
