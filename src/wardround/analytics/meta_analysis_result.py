"""The result of a meta-analysis: sites, combined estimates and the exact fit side by side."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from wardround.analytics.journal_text import (
    ABSENT,
    count_text,
    fixed_text,
    interval_text,
    p_text,
    percent_text,
    plain_term,
    ratio_interval,
)
from wardround.analytics.meta_analysis_combine import Combination, CombinedEstimate, TauMethod
from wardround.analytics.result import Exhibit, json_text, json_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATIO_NAMES = {"logit": "Odds ratio", "log": "Ratio of means", "hazard": "Hazard ratio"}
"""What the exponential of a coefficient is, by link."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFit:
    """How one site's own fit went.

    Attributes:
        site: its name.
        is_fitted: whether its estimates are in the meta-analysis.
        status: in words.
        num_records: complete records; None: not told.
        num_events: of them with the outcome, of a binary or survival outcome; None: not told.
    """

    site: str
    is_fitted: bool
    status: str
    num_records: int | None
    num_events: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaCoefficient:
    """One coefficient.

    Attributes:
        term: its name in the model.
        combination: of the sites' estimates, on the scale of the linear predictor.
        together_estimate: its fixed effect when all coefficients are combined together, by generalised least squares.
        together_standard_error: of that.
        exact: from the fit to all records; None: there is none to compare with.
    """

    term: str
    combination: Combination
    together_estimate: float
    together_standard_error: float
    exact: CombinedEstimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaAnalysisResult:
    """A meta-analysis of the sites' own fits, with the exact fit of all records beside it.

    Attributes:
        formula: as given.
        model: what each site fitted.
        family: distribution of the outcome.
        link: link function; "hazard" for a survival model.
        outcome: what is modelled.
        sites: how each site's own fit went.
        coefficients: combined, in the order of the model.
        method: of the variance between sites.
        knapp_hartung: whether random-effects intervals are Knapp and Hartung's.
        confidence: of the intervals.
        notes: what the reader should know.
    """

    formula: str
    model: str
    family: str
    link: str
    outcome: str
    sites: tuple[SiteFit, ...]
    coefficients: tuple[MetaCoefficient, ...]
    method: TauMethod
    knapp_hartung: bool
    confidence: float
    notes: tuple[str, ...]

    def coefficient(self, term: str | None = None) -> MetaCoefficient:
        """The coefficient of this name; None: the first that is no intercept.

        Raises:
            ValueError: no such coefficient; names those there are.
        """
        names = [c.term for c in self.coefficients]
        if term is None:
            return next((c for c in self.coefficients if c.term != "Intercept"), self.coefficients[0])
        if term not in names:
            raise ValueError(f"term must be one of {', '.join(names)}, got {term!r}")
        return self.coefficients[names.index(term)]

    @property
    def ratio_name(self) -> str | None:
        """What the exponential of a coefficient is; None: coefficients are read as they are."""
        return RATIO_NAMES.get(self.link)

    def to_frame(self) -> pd.DataFrame:
        """One row a coefficient: fixed, random and exact estimates with intervals, and heterogeneity."""
        rows = []
        for c in self.coefficients:
            row: dict[str, Any] = {"term": c.term, "num_sites": len(c.combination.labels)}
            exact = {} if c.exact is None else {"federated": c.exact}
            for name, value in {"fixed": c.combination.fixed, "random": c.combination.random, **exact}.items():
                row |= {
                    name: value.estimate,
                    f"{name}_se": value.standard_error,
                    f"{name}_low": value.low,
                    f"{name}_high": value.high,
                    f"{name}_p": value.p_value,
                }
            spread = c.combination.heterogeneity
            row |= {"q": spread.q, "q_p": spread.p_value, "tau2": spread.tau2, "i2": spread.i2}
            row |= {"predicted_low": c.combination.predicted_low, "predicted_high": c.combination.predicted_high}
            rows.append(row)
        return pd.DataFrame(rows).set_index("term")

    def site_frame(self, term: str | None = None) -> pd.DataFrame:
        """One row a site: its own estimate of a coefficient and its weights, by site.

        Raises:
            ValueError: no such coefficient.
        """
        one = self.coefficient(term).combination
        return pd.DataFrame(
            {
                "estimate": one.estimates,
                "standard_error": one.standard_errors,
                "weight_fixed": one.weights_fixed,
                "weight_random": one.weights_random,
            },
            index=pd.Index(one.labels, name="site"),
        )

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        converted: dict[str, Any] = json_value(asdict(self))
        return converted

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict())

    def text_of(self, value: CombinedEstimate) -> str:
        """An estimate with its interval, as a ratio where coefficients are logarithms of ratios."""
        return self.interval(value.estimate, value.low, value.high)

    def interval(self, estimate: float, low: float, high: float) -> str:
        """As `text_of`, of three numbers."""
        if self.ratio_name is None:
            return interval_text(estimate, low, high)
        with np.errstate(over="ignore"):
            return ratio_interval(*np.exp([estimate, low, high]).tolist())

    def summary(self) -> str:
        """The combined estimates as text, and how each site's fit went."""
        num_fitted = sum(fit.is_fitted for fit in self.sites)
        how = f"{self.method}{', Knapp-Hartung' * self.knapp_hartung}"
        what = self.ratio_name or "Coefficient"
        lines = [
            f"Meta-analysis of {num_fitted} sites' own fits of {self.formula} ({self.family})",
            f"{what} with {percent_text(self.confidence)} intervals; random effects by {how}",
            "",
            self._table(),
            "",
        ]
        lines += [
            f"{fit.site}: {fit.status}, {count_text(fit.num_records)} records"
            + (f", {count_text(fit.num_events)} events" if self.has_events else "")
            for fit in self.sites
        ]
        return "\n".join([*lines, *self.notes])

    @property
    def has_events(self) -> bool:
        """Whether the outcome is an event that records have or have not."""
        return self.family in ("binomial", "cox")

    def _table(self) -> str:
        rows = []
        for c in self.coefficients:
            spread = c.combination.heterogeneity
            rows.append(
                [
                    plain_term(c.term)[:32],
                    self.text_of(c.combination.fixed),
                    self.text_of(c.combination.random),
                    ABSENT if c.exact is None else self.text_of(c.exact),
                    f"{100 * spread.i2:.0f}%",
                    fixed_text(spread.tau2, 4),
                    p_text(spread.p_value),
                ]
            )
        heads = ["", "fixed effect", "random effects", "federated, exact", "I2", "tau2", "P (Q)"]
        widths = [max(len(row[k]) for row in [heads, *rows]) for k in range(len(heads))]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
            for row in [heads, *rows]
        )

    def plot(self, term: str | None = None) -> Figure:
        """Forest plot of one coefficient: sites, fixed and random effects, the exact fit.

        Raises:
            ValueError: no such coefficient.
        """
        from wardround.analytics.meta_analysis_forest import forest

        return forest(self, self.coefficient(term))

    def headlines(self) -> tuple[str, ...]:
        """What the first coefficients come to, in a sentence each."""
        from wardround.analytics.meta_analysis_exhibits import meta_headlines

        return meta_headlines(self)

    def methods(self) -> str:
        """What was computed, as a methods section says it."""
        from wardround.analytics.meta_analysis_exhibits import meta_methods

        return meta_methods(self)

    @property
    def references(self) -> tuple[str, ...]:
        """The papers behind it."""
        from wardround.analytics.meta_analysis_exhibits import meta_references

        return meta_references(self)

    def exhibits(self) -> tuple[Exhibit, ...]:
        """Forest plots, the combined estimates, the sites, and the estimates without each."""
        from wardround.analytics.meta_analysis_exhibits import meta_exhibits

        return meta_exhibits(self)
