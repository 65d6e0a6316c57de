"""The result of a Cox model: what is reported, how it prints, and predictions from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import special

from wardround.analytics.cox_concordance import Concordance
from wardround.analytics.cox_fit import CoxFit
from wardround.analytics.cox_hazards import Baseline, ProportionalityTest
from wardround.analytics.cox_risk import Values
from wardround.analytics.design import Design, Level
from wardround.analytics.families import two_sided_p, two_sided_quantile
from wardround.analytics.glm_disclosed import shown_missing
from wardround.analytics.linear import solve_symmetric
from wardround.analytics.lone_records import refuse_few_clusters
from wardround.analytics.preparation import Prepared
from wardround.analytics.result import Exhibit, json_text, json_value
from wardround.analytics.survival_time import PreparedSurvival
from wardround.data.contract import Setting, Variable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


LEAST_EIGENVALUE = 1e-10
"""Smallest eigenvalue of a correlation matrix of coefficients whose inverse is more than rounding error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HazardRatio:
    """One coefficient, the logarithm of a hazard ratio, in the variables' own units; and the ratio."""

    term: str
    estimate: float
    standard_error: float
    statistic: float
    p_value: float
    low: float
    high: float
    ratio: float
    ratio_low: float
    ratio_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CoxTest:
    """A test that coefficients are zero: of all ("likelihood ratio", "Wald", "score") or of a term (Wald)."""

    name: str
    statistic: float
    df: int
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What the sums gave at the fit, in standardised columns.

    Attributes:
        fit: where the iteration began and settled.
        covariance: of the coefficients, shape (num_columns, num_columns).
        bread: inverse of the penalised information, likewise.
        num_clusters: where the covariance is by clusters.
        concordance: None where no two records can be compared.
        tests: of proportional hazards.
    """

    fit: CoxFit
    covariance: Values
    bread: Values
    num_clusters: int | None
    concordance: Concordance | None
    tests: tuple[ProportionalityTest, ...]

    @property
    def has_singular_covariance(self) -> bool:
        """Whether coefficients cannot be tested together."""
        return not _is_regular(self.covariance, list(range(len(self.covariance))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Records used, their events, strata in which anybody is."""

    num_records: int
    num_events: int
    num_strata: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CoxResult:
    """A fitted Cox model. Counts that the disclosure rules hide are None.

    Attributes:
        formula: the predictors.
        time: the variable of the time.
        unit: of it.
        event: the event in words.
        entry: variable of the entry, where there is one.
        step: of the grid of times, in that unit.
        ties: method for tied events.
        strata: the variables ("site": each site is one).
        num_strata: how many have records (times the sites, where each is one).
        weights: variable of case weights.
        terms: the coefficients.
        covariance_matrix: of the estimates, rows and columns as `terms`.
        covariance: how it was estimated.
        num_clusters: clusters, where it is by clusters.
        num_records: records used.
        num_events: of them with the event.
        num_left_out: records with a missing value.
        num_missing: by variable, records in which it is missing.
        log_likelihood: of the partial likelihood.
        null_log_likelihood: with coefficients of zero.
        aic: Akaike's information criterion; with a penalty, of as many parameters as the penalty leaves (the trace of
            the information times the inverse of the penalised one).
        num_iterations: steps of the iteration.
        tests: that all coefficients are zero (none with a penalty), then of terms with several.
        concordance: Harrell's.
        proportionality: tests of proportional hazards, by term and "GLOBAL".
        transform: function of time in these.
        baselines: by stratum; none where each site is a stratum.
        design: the columns, with the means that the baselines belong to.
        variables: the contract's, that the columns need.
        absent: levels of theirs that no record had, so that nothing is known of them.
        l2: ridge penalty.
        l2_scale: what it is on.
        dropped: columns left out as combinations of others.
        confidence: of the intervals.
        sites: in the sums.
        notes: what the reader should know.
    """

    formula: str
    time: str
    unit: str | None
    event: str
    entry: str | None
    step: float
    ties: str
    strata: tuple[str, ...]
    num_strata: int
    weights: str | None
    terms: tuple[HazardRatio, ...]
    covariance_matrix: Values
    covariance: str
    num_clusters: int | None
    num_records: int | None
    num_events: int | None
    num_left_out: int | None
    num_missing: dict[str, int | None]
    log_likelihood: float
    null_log_likelihood: float
    aic: float
    num_iterations: int
    tests: tuple[CoxTest, ...]
    concordance: Concordance | None
    proportionality: tuple[ProportionalityTest, ...]
    transform: str | None
    baselines: tuple[Baseline, ...]
    design: Design
    variables: tuple[Variable, ...]
    absent: tuple[Level, ...]
    l2: float
    l2_scale: str
    dropped: tuple[str, ...]
    confidence: float
    sites: tuple[str, ...]
    notes: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """Coefficients and hazard ratios with their intervals, one a row, indexed by term."""
        return pd.DataFrame([asdict(term) for term in self.terms]).set_index("term")

    def to_dict(self) -> dict[str, Any]:
        """All attributes as JSON values; `terms` holds a dict a coefficient."""
        return dict(json_value(asdict(self)))

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict())

    def summary(self) -> str:
        """The fit as text, laid out as users of R and lifelines know it."""
        from wardround.analytics.cox_exhibits import cox_summary

        return cox_summary(self)

    def plot(self) -> Figure:
        """Forest plot of the hazard ratios."""
        from wardround.analytics.cox_exhibits import draw_ratios

        return draw_ratios(self)

    def plot_baseline(self) -> Figure:
        """Survival of records with average columns, by stratum, at the times that may be shown.

        Raises:
            ValueError: there is no baseline.
        """
        from wardround.analytics.cox_exhibits import draw_baselines

        return draw_baselines(self)

    def methods(self) -> str:
        """How the model was fitted, as a methods section says it."""
        from wardround.analytics.cox_exhibits import cox_methods

        return cox_methods(self)

    @property
    def references(self) -> tuple[str, ...]:
        """The papers behind it."""
        from wardround.analytics.cox_exhibits import cox_references

        return cox_references(self)

    def headlines(self) -> tuple[str, ...]:
        """The hazard ratios that differ from one most clearly, in a sentence."""
        from wardround.analytics.cox_exhibits import cox_headlines

        return cox_headlines(self)

    def exhibits(self) -> tuple[Exhibit, ...]:
        """The forest plot, the coefficients, the test of proportional hazards, the baseline survival, the fit."""
        from wardround.analytics.cox_exhibits import cox_exhibits

        return cox_exhibits(self)

    def predict(
        self,
        profiles: pd.DataFrame,
        *,
        stratum: str | None = None,
        times: tuple[float, ...] | None = None,
        interval: Literal["log", "log-log", "plain"] = "log",
    ) -> pd.DataFrame:
        """Survival of patients with these values, with intervals, as R's `survfit` of a Cox model gives it.

        Args:
            profiles: a row a patient, a column a variable of the formula.
            stratum: whose baseline hazard; needed where there are several.
            times: in the unit of the time; None: all that are shown. Between two shown times the survival is that of
                the earlier one; after the last one it is not known (NaN).
            interval: the scale on which the interval is symmetric.

        Returns:
            A row a profile and time: profile, time, survival, low, high, cumulative_hazard, standard_error (of the
            cumulative hazard).

        Raises:
            ValueError: no baseline is held, an unknown stratum, or profiles that do not fit.
        """
        from wardround.analytics.cox_predict import predicted_survival

        return predicted_survival(self, profiles, stratum, times, interval)

    def predict_risk(self, profiles: pd.DataFrame) -> pd.DataFrame:
        """Linear predictor and hazard ratio of patients with these values, against one with average columns.

        Args:
            profiles: a row a patient, a column a variable of the formula.

        Returns:
            A row a profile: linear_predictor, standard_error, hazard_ratio, low, high.

        Raises:
            ValueError: profiles that do not fit.
        """
        from wardround.analytics.cox_predict import predicted_risk

        return predicted_risk(self, profiles)


def _ratios(names: list[str], estimates: Values, covariance: Values, confidence: float) -> tuple[HazardRatio, ...]:
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    reach = two_sided_quantile(confidence, None)
    rows = []
    for name, estimate, error in zip(names, estimates.tolist(), errors.tolist(), strict=True):
        statistic = estimate / error if error > 0 else float("nan")
        low, high = estimate - reach * error, estimate + reach * error
        with np.errstate(over="ignore"):  # the ratio of a huge coefficient is infinite
            ratios = np.exp([estimate, low, high]).tolist()
        rows.append(
            HazardRatio(
                term=name,
                estimate=estimate,
                standard_error=error,
                statistic=statistic,
                p_value=two_sided_p(statistic, None),
                low=low,
                high=high,
                ratio=ratios[0],
                ratio_low=ratios[1],
                ratio_high=ratios[2],
            )
        )
    return tuple(rows)


def _test(name: str, statistic: float, df: int) -> CoxTest:
    return CoxTest(name=name, statistic=statistic, df=df, p_value=float(special.chdtrc(df, max(statistic, 0.0))))


def _wald(name: str, estimates: Values, covariance: Values, columns: list[int]) -> CoxTest:
    part = estimates[columns]
    statistic = float(part @ solve_symmetric(covariance[np.ix_(columns, columns)], part))
    return _test(name, statistic, len(columns))


def _is_regular(covariance: Values, columns: list[int]) -> bool:
    """Whether a covariance has an inverse: that of fewer clusters than coefficients has none."""
    part = covariance[np.ix_(columns, columns)]
    size = np.sqrt(np.maximum(np.diag(part), 0.0))
    return bool((size > 0).all()) and float(np.linalg.eigvalsh(part / np.outer(size, size))[0]) > LEAST_EIGENVALUE


def _tests(settled: Settled, prepared: Prepared, l2: float) -> tuple[CoxTest, ...]:
    fit, df = settled.fit, prepared.design.num_columns
    at, covariance = fit.end.coefficients, settled.covariance
    tested = [(term.name, list(term.columns)) for term in prepared.terms if len(term.columns) > 1]
    several = [_wald(name, at, covariance, columns) for name, columns in tested if _is_regular(covariance, columns)]
    if l2 > 0:
        return tuple(several)
    wald = [_wald("Wald", at, covariance, list(range(df)))] if _is_regular(covariance, list(range(df))) else []
    score = float(fit.start.score @ solve_symmetric(fit.start.curvature, fit.start.score))
    ratio = 2 * (fit.end.log_likelihood - fit.start.log_likelihood)
    overall = [
        _test("likelihood ratio", ratio, df),
        *wald,
        _test("score", score, df),
    ]
    return (*overall, *several)


def _notes(
    survival: PreparedSurvival,
    prepared: Prepared,
    settled: Settled,
    penalty: tuple[float, str],
    dropped: tuple[str, ...],
    strata: tuple[str, ...],
    curves: tuple[Baseline, ...],
    minimum_cell: int,
    covariance: str,
) -> tuple[str, ...]:
    notes = [*survival.notes, *prepared.notes]
    if dropped:
        notes.append(f"Left out as combinations of other columns: {', '.join(dropped)}.")
    if penalty[0] > 0:
        notes.append(
            f"l2 = {penalty[0]:g}: estimates are drawn towards zero; their standard errors describe the penalised "
            "estimator and do not count the bias. Tests of all coefficients and of proportional hazards are left out."
        )
    if prepared.frame.frequency_weights is not None and covariance == "model":
        notes.append(
            "Model-based standard errors take weights for counts of records; where they are sampling weights, set "
            "covariance = 'robust'."
        )
    if covariance != "model" and penalty[0] == 0:
        notes.append(
            "Standard errors and Wald tests are robust; the likelihood ratio and score tests are not: they take "
            "records for independent, and weights for counts."
        )
    if settled.has_singular_covariance:
        notes.append(
            "Too few clusters, or records with events, for as many coefficients: the robust covariance has no inverse, "
            "so that tests that need it are left out; do not trust the standard errors either."
        )
    if "site" in strata:
        notes.append("Each site is a stratum: its baseline hazard stays there, so survival cannot be predicted.")
    elif not curves:
        notes.append(f"No baseline hazard is shown: fewer than {minimum_cell} records left in each stratum.")
    elif minimum_cell > 1:
        notes.append(
            f"Baseline hazards are shown at times between which {minimum_cell} records or more left; there they are "
            "exact."
        )
    if settled.concordance is not None and settled.concordance.error_bound > 0:
        bound = settled.concordance.error_bound
        notes.append(f"The concordance was computed from binned scores; it is exact to {bound:.2g}.")
    return tuple(notes)


def summarise_cox(
    *,
    predictors: str,
    survival: PreparedSurvival,
    prepared: Prepared,
    settled: Settled,
    counted: Counted,
    curves: tuple[Baseline, ...],
    ties: str,
    strata: tuple[str, ...],
    weights: str | None,
    covariance: tuple[str, str],
    penalty: tuple[float, str],
    transform: str | None,
    dropped: tuple[str, ...],
    confidence: float,
    sites: tuple[str, ...],
    setting: Setting,
) -> CoxResult:
    """Turn the last sums of a fit into what is reported; all of it is arithmetic on totals."""
    design, rules, outcome, end = prepared.design, setting.disclosure, survival.outcome, settled.fit.end
    names = [column.name for column in design.columns]
    matrix = settled.covariance / np.outer(design.scale, design.scale)
    kind, cluster = covariance
    num_clusters = settled.num_clusters
    if num_clusters is not None:
        refuse_few_clusters(num_clusters, cluster, rules)
    num_left_out, num_missing = shown_missing(prepared.num_records - prepared.num_complete, prepared.num_missing, rules)
    used = [name for name in prepared.frame.required if name in _named(prepared)]
    return CoxResult(
        formula=predictors,
        time=outcome.time,
        unit=survival.unit,
        event=f"{outcome.event} = {' or '.join(outcome.events)}",
        entry=outcome.entry,
        step=outcome.step,
        ties=ties,
        strata=strata,
        num_strata=counted.num_strata,
        weights=weights,
        terms=_ratios(names, end.coefficients / design.scale, matrix, confidence),
        covariance_matrix=matrix,
        covariance=f"{kind} ({cluster})" if kind == "cluster" else kind,
        num_clusters=None if num_clusters is None else rules.shown(num_clusters),
        num_records=rules.shown(counted.num_records),
        num_events=rules.shown(counted.num_events),
        num_left_out=num_left_out,
        num_missing=num_missing,
        log_likelihood=end.log_likelihood,
        null_log_likelihood=settled.fit.start.log_likelihood,
        aic=-2 * end.log_likelihood + 2 * _num_effective(settled, penalty[0]),
        num_iterations=settled.fit.num_iterations,
        tests=_tests(settled, prepared, penalty[0]),
        concordance=settled.concordance,
        proportionality=settled.tests,
        transform=transform,
        baselines=curves,
        design=design,
        variables=tuple(setting.contract.variable(name) for name in used),
        absent=prepared.absent,
        l2=penalty[0],
        l2_scale=penalty[1],
        dropped=dropped,
        confidence=confidence,
        sites=sites,
        notes=_notes(survival, prepared, settled, penalty, dropped, strata, curves, rules.minimum_cell, kind),
    )


def _num_effective(settled: Settled, l2: float) -> float:
    """How many parameters a fit has; with a penalty, its effective degrees of freedom (Gray 1992)."""
    curvature = settled.fit.end.curvature
    return float(np.trace(settled.bread @ curvature)) if l2 > 0 else float(len(curvature))


def _named(prepared: Prepared) -> set[str]:
    """Variables that the columns of a design are made of."""
    from wardround.analytics.expression import parse_expression

    names: set[str] = set()
    for feature in (feature for column in prepared.design.columns for feature in column.features):
        variable = getattr(feature, "variable", None)
        expression = getattr(feature, "expression", None)
        names |= {variable} if variable else set(parse_expression(expression).variables) if expression else set()
    return names
