"""Coefficients as journals print them: the ratio with its interval in one cell, beside error and P value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from wardround.analytics.glm_result import Coefficient
from wardround.analytics.journal_text import ABSENT, interval_text, p_text, percent_text, plain_term, ratio_interval


class Estimated(Protocol):
    """A number with its interval."""

    @property
    def estimate(self) -> float:
        """The coefficient."""

    @property
    def low(self) -> float:
        """Lower end of its interval."""

    @property
    def high(self) -> float:
        """Upper end of it."""


def estimate_text(term: Estimated, *, is_ratio: bool) -> str:
    """An estimate with its interval; of a ratio, its exponential."""
    if not is_ratio:
        return interval_text(term.estimate, term.low, term.high)
    with np.errstate(over="ignore"):
        estimate, low, high = np.exp([term.estimate, term.low, term.high]).tolist()
    return ratio_interval(estimate, low, high)


def coefficient_table(terms: Sequence[Coefficient], confidence: float, ratio_name: str | None) -> pd.DataFrame:
    """One row a term.

    Args:
        terms: of a model.
        confidence: of their intervals, in (0, 1).
        ratio_name: what the exponential of a coefficient is; None: it is no ratio.
    """
    interval = f"({percent_text(confidence)} CI)"
    rows: list[dict[str, Any]] = []
    for c in terms:
        row: dict[str, Any] = {f"Coefficient {interval}": interval_text(c.estimate, c.low, c.high)}
        if ratio_name is not None:
            ratio = ABSENT if c.term == "Intercept" else estimate_text(c, is_ratio=True)
            row = {f"{ratio_name} {interval}": ratio, "Coefficient": c.estimate}
        rows.append({**row, "Standard error": c.standard_error, "P value": p_text(c.p_value)})
    return pd.DataFrame(rows, index=pd.Index([plain_term(c.term) for c in terms], name=""))
