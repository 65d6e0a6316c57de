"""The result of a mixed model: fixed effects, variances between and within sites, and how it prints."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wardround.analytics.glm_result import Coefficient
from wardround.analytics.journal_text import ABSENT, count_text, fixed_text, p_relation, p_text, percent_text
from wardround.analytics.result import Exhibit, json_text, json_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class VarianceComponent:
    """A standard deviation of random effects, or of what is left within sites.

    Attributes:
        name: the coefficient that differs between sites, or "Residual".
        standard_deviation: on the scale of the linear predictor, in the variables' own units.
        variance: its square.
        low: lower end of the standard deviation's interval; None where there is none.
        high: upper end.
    """

    name: str
    standard_deviation: float
    variance: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomCorrelation:
    """Correlation of two random effects; None where one of them does not vary."""

    first: str
    second: str
    correlation: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomTest:
    """Likelihood-ratio test of the model against the one without random effects.

    Attributes:
        statistic: growth of the deviance without them.
        df: variances and covariances that the test is about.
        p_value: of a mixture of chi-squared distributions for one random effect, as a variance cannot be negative;
            for several of the chi-squared distribution with `df` degrees of freedom, which is conservative.
        is_mixture: which of the two.
    """

    statistic: float
    df: int
    p_value: float
    is_mixture: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteEffect:
    """One random effect of one site, with an interval given the model's parameters."""

    site: str
    name: str
    effect: float
    standard_deviation: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedResult:
    """A fitted mixed model whose groups are the sites.

    Attributes:
        formula: the fixed effects, as given.
        random: the random effects, as given.
        family: distribution of the outcome.
        link: link function.
        method: "REML", "ML", "Laplace" or "adaptive quadrature".
        quadrature_points: of the integral over a site's random effect; 0 for a linear model.
        outcome: what is modelled.
        terms: the fixed effects.
        covariance_matrix: of them.
        components: standard deviations of the random effects, and within sites for a linear model.
        random_covariance: of the random effects, shape (num_random, num_random).
        correlations: of the random effects.
        icc: part of the variance that is between sites (of a logistic model on the latent scale), for one random
            effect; else None.
        icc_low: where an end of the interval of the standard deviation between sites would put it.
        icc_high: likewise.
        median_odds_ratio: median ratio of the odds of two like patients of two sites drawn at random (a Poisson
            model: of their rates), for one random effect; else None.
        deviance: minus twice the log-likelihood (restricted, for REML).
        log_likelihood: likewise.
        aic: Akaike's information criterion; counts fixed effects, variances and covariances.
        bic: Bayesian information criterion, likewise, by records.
        test: of the random effects.
        is_singular: whether a variance is zero or a correlation one, so that the random effects are too many.
        num_records: records used; None: hidden.
        num_left_out: records with a missing value; None: hidden.
        num_missing: by variable, records in which it is missing; None: hidden.
        num_groups: sites with records.
        num_iterations: rounds of the iteration.
        site_effects: of each site, where they were asked for.
        interval_method: of the standard deviations.
        confidence: of the intervals.
        sites: in the sums.
        notes: what the reader should know.
    """

    formula: str
    random: str
    family: str
    link: str
    method: str
    quadrature_points: int
    outcome: str
    terms: tuple[Coefficient, ...]
    covariance_matrix: Values
    components: tuple[VarianceComponent, ...]
    random_covariance: Values
    correlations: tuple[RandomCorrelation, ...]
    icc: float | None
    icc_low: float | None
    icc_high: float | None
    median_odds_ratio: float | None
    deviance: float
    log_likelihood: float
    aic: float
    bic: float
    test: RandomTest
    is_singular: bool
    num_records: int | None
    num_left_out: int | None
    num_missing: dict[str, int | None]
    num_groups: int
    num_iterations: int
    site_effects: tuple[SiteEffect, ...]
    interval_method: Literal["profile", "wald"]
    confidence: float
    sites: tuple[str, ...]
    notes: tuple[str, ...]

    def to_frame(self, *, exponentiate: bool = False) -> pd.DataFrame:
        """Fixed effects, one a row, indexed by term.

        Args:
            exponentiate: estimates and intervals as ratios; the standard error stays on the linear predictor's scale.

        Raises:
            ValueError: a linear model's coefficients are no logarithms of ratios.
        """
        frame = pd.DataFrame([asdict(term) for term in self.terms]).set_index("term")
        if exponentiate:
            if self.link == "identity":
                raise ValueError("exponentiate needs the link 'logit' or 'log', this model has 'identity'")
            with np.errstate(over="ignore"):
                frame[["estimate", "low", "high"]] = np.exp(frame[["estimate", "low", "high"]])
        return frame

    def random_frame(self) -> pd.DataFrame:
        """Standard deviations of the random effects with intervals, one a row."""
        return pd.DataFrame([asdict(component) for component in self.components]).set_index("name")

    def site_frame(self) -> pd.DataFrame:
        """Random effects by site, one a row; empty where they were not asked for."""
        columns = ["site", "name", "effect", "standard_deviation", "low", "high"]
        rows = [asdict(effect) for effect in self.site_effects]
        return pd.DataFrame(rows, columns=columns).set_index(["site", "name"])

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        converted: dict[str, Any] = json_value(asdict(self))
        return converted

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict())

    def summary(self) -> str:
        """The fit as text: fixed effects, random effects, test."""
        kind = {"binomial": "logistic ", "poisson": "Poisson ", "gaussian": "linear "}[self.family]
        lines = [
            f"Federated {kind}mixed model: {self.formula}, random effects {self.random} by site",
            f"{self.method}; {self._counts()}",
            f"deviance {self.deviance:.4f}, AIC {self.aic:.2f}, BIC {self.bic:.2f}, {self.num_iterations} rounds",
            "",
            _columns(["", "coef", "std err", "z", "P>|z|", "low", "high"], [_fixed_row(term) for term in self.terms]),
            "",
            _columns(
                ["random effect", "sd", "low", "high"],
                [[c.name, *(_number(v) for v in (c.standard_deviation, c.low, c.high))] for c in self.components],
            ),
        ]
        lines += [f"correlation of {c.first} and {c.second}: {_number(c.correlation)}" for c in self.correlations]
        lines += [f"intraclass correlation {self.icc:.4f}"] if self.icc is not None else []
        name = "odds" if self.family == "binomial" else "rate"
        lines += [f"median {name} ratio {self.median_odds_ratio:.3f}"] if self.median_odds_ratio is not None else []
        test = f"chi2({self.test.df}) = {self.test.statistic:.3f}, P {p_relation(self.test.p_value)}"
        lines.append(f"without random effects: {test}")
        return "\n".join([*lines, f"intervals: {percent_text(self.confidence)}", *self.notes])

    def _counts(self) -> str:
        missing = f"{count_text(self.num_left_out)} left out (missing)"
        return f"{count_text(self.num_records)} records of {self.num_groups} sites, {missing}"

    def plot(self) -> Figure:
        """The sites' random effects in order (caterpillar) where they were asked for; else the fixed effects."""
        from wardround.analytics.mixed_exhibits import caterpillar, fixed_plot

        return caterpillar(self) if self.site_effects else fixed_plot(self)

    def headlines(self) -> tuple[str, ...]:
        """How much the sites differ, and the clearest fixed effects, in a sentence each."""
        from wardround.analytics.mixed_exhibits import mixed_headlines

        return mixed_headlines(self)

    def methods(self) -> str:
        """What was computed, as a methods section says it."""
        from wardround.analytics.mixed_exhibits import mixed_methods

        return mixed_methods(self)

    @property
    def references(self) -> tuple[str, ...]:
        """The papers behind it."""
        from wardround.analytics.mixed_exhibits import mixed_references

        return mixed_references(self)

    def exhibits(self) -> tuple[Exhibit, ...]:
        """Fixed effects, random effects, and the sites' effects where they were asked for."""
        from wardround.analytics.mixed_exhibits import mixed_exhibits

        return mixed_exhibits(self)


def _number(value: float | None) -> str:
    return ABSENT if value is None else fixed_text(value, 4)


def _fixed_row(term: Coefficient) -> list[str]:
    numbers = [term.estimate, term.standard_error, term.statistic]
    return [
        " ".join(term.term.split())[:40],
        *(fixed_text(value, 4) for value in numbers),
        p_text(term.p_value),
        fixed_text(term.low, 4),
        fixed_text(term.high, 4),
    ]


def _columns(heads: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[k]) for row in [heads, *rows]) for k in range(len(heads))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in [heads, *rows]
    )
