"""The result of a regression after multiple imputation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wardround.analytics.families import two_sided_p, two_sided_quantile
from wardround.analytics.glm_result import GLMResult
from wardround.analytics.imputation import Course
from wardround.analytics.imputation_pooling import Pooled, convergence, joint_test, pool
from wardround.analytics.result import Exhibit, json_text, json_value
from wardround.privacy.disclosure import DisclosureRules

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = NDArray[np.float64]
Role: TypeAlias = Literal["outcome", "predictor", "auxiliary"]

MUCH_DRAWN_BACK = 0.05
"""Share of values drawn back into a range above which the reader is told."""
FEWEST_SITES = 3
"""Fewest sites, other than none, whose number is told where they may not be named."""
UNSETTLED = 1.2
"""Potential scale reduction above which the chains count as not settled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledTerm:
    """One coefficient pooled over the completed copies, on the scale of the linear predictor.

    Attributes:
        term: the design's column.
        estimate: mean over the copies.
        standard_error: within and between copies.
        statistic: estimate over its standard error.
        df: Barnard and Rubin's degrees of freedom.
        p_value: two-sided, from t with these.
        low: lower end of the interval.
        high: upper end.
        fmi: fraction of missing information.
        share_missing: share of the variance that is due to the missing values (lambda).
        efficiency: relative to infinitely many imputations.
    """

    term: str
    estimate: float
    standard_error: float
    statistic: float
    df: float
    p_value: float
    low: float
    high: float
    fmi: float
    share_missing: float
    efficiency: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteCaseTerm:
    """The same coefficient fitted to the complete records."""

    term: str
    estimate: float
    standard_error: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledTest:
    """A test (D1) that all coefficients of a term are zero."""

    term: str
    statistic: float
    df: int
    df_denominator: float
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ImputedVariable:
    """How a variable was imputed.

    Attributes:
        variable: its name.
        role: in the analysis.
        model: what it was imputed by; None where nothing is missing.
        num_missing: records in which it is missing; None: hidden.
        share_missing: of all records; None: hidden.
        absent_sites: sites where it has no value at all; None: one or a few.
        sites_without: these sites; None where they may not be named.
        mean: of the imputed values, by iteration and copy, shape (num_iterations, num_copies); a category's: of the
            number of the level, from 0; None: hidden, or nothing is missing.
        deviation: their standard deviation, same shape.
        scale_reduction: Gelman and Rubin's, of the means; near 1 where the copies have mixed.
        share_drawn_back: share of the imputed numbers that were drawn back into the contract's range.
    """

    variable: str
    role: Role
    model: str | None
    num_missing: int | None
    share_missing: float | None
    absent_sites: int | None
    sites_without: tuple[str, ...] | None
    mean: Values | None = None
    deviation: Values | None = None
    scale_reduction: float | None = None
    share_drawn_back: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImputedResult:
    """A regression after multiple imputation.

    Attributes:
        formula: as given.
        family: distribution of the outcome.
        link: link function.
        outcome: what is modelled.
        terms: the pooled coefficients.
        covariance_matrix: of the pooled estimates, rows and columns as `terms`.
        tests: of terms of several coefficients.
        complete_cases: the coefficients of the complete records; None where they were not fitted.
        variables: how each was imputed.
        num_records: records at the sites; None: hidden.
        num_complete: of them, complete in all variables of the formula; None: hidden.
        num_imputations: completed copies; 1 where nothing is missing.
        num_iterations: of the chained equations.
        num_donors: of predictive mean matching; 0: numbers were drawn from the normal distribution.
        imputes_by_site: whether the imputation models had an intercept for each site.
        seed: of the coordinator's draws.
        confidence: of the intervals.
        minimum_cell: least count that is shown.
        sites: in every sum.
        notes: what the reader should know.
    """

    formula: str
    family: str
    link: str
    outcome: str
    terms: tuple[PooledTerm, ...]
    covariance_matrix: Values
    tests: tuple[PooledTest, ...]
    complete_cases: tuple[CompleteCaseTerm, ...] | None
    variables: tuple[ImputedVariable, ...]
    num_records: int | None
    num_complete: int | None
    num_imputations: int
    num_iterations: int
    num_donors: int
    imputes_by_site: bool
    seed: int
    confidence: float
    minimum_cell: int
    sites: tuple[str, ...]
    notes: tuple[str, ...]

    def to_frame(self, *, exponentiate: bool = False) -> pd.DataFrame:
        """Pooled coefficients, one a row, indexed by term.

        Args:
            exponentiate: estimates and intervals as ratios (links logit and log).
        """
        frame = pd.DataFrame([asdict(term) for term in self.terms]).set_index("term")
        if exponentiate:
            if self.link not in ("logit", "log"):
                raise ValueError(f"exponentiate needs the link 'logit' or 'log', this model has {self.link!r}")
            with np.errstate(over="ignore"):  # the ratio of a huge coefficient is infinite
                frame[["estimate", "low", "high"]] = np.exp(frame[["estimate", "low", "high"]])
        return frame

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return dict(json_value(asdict(self)))

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict())

    def summary(self) -> str:
        """Pooled coefficients, missing values, and what the reader should know, as text."""
        tail = (1 - self.confidence) / 2
        frame = self.to_frame()[["estimate", "standard_error", "df", "p_value", "low", "high", "fmi"]]
        frame.columns = pd.Index(["coef", "std err", "df", "P>|t|", f"[{tail:.3g}", f"{1 - tail:.3g}]", "FMI"])
        table = frame.rename_axis(None).to_string(float_format="{:.4g}".format)
        head = (
            f"Regression after multiple imputation: {self.formula}\n{self.family}, link {self.link}; "
            f"{self._shown(self.num_records)} records of {len(self.sites)} sites (complete: "
            f"{self._shown(self.num_complete)}); {self.num_imputations} imputations, {self.num_iterations} iterations"
        )
        missing = [f"{v.variable}: {self.missing_text(v)}" for v in self.variables if v.model]
        lines = [head, "", table, "", "Missing: " + ("; ".join(missing) or "nothing")]
        lines += [
            f"{t.term}: F({t.df}, {t.df_denominator:.4g}) = {t.statistic:.4g}, p = {t.p_value:.3g}" for t in self.tests
        ]
        return "\n".join([*lines, *self.notes])

    def missing_text(self, variable: ImputedVariable) -> str:
        """How many records lack a variable, in words."""
        if variable.num_missing is None or variable.share_missing is None:
            return self._shown(None)
        return f"{variable.num_missing} ({100 * variable.share_missing:.1f}%)"

    def _shown(self, count: int | None) -> str:
        return "hidden" if count is None else str(count)

    def plot(self) -> Figure:
        """Forest plot: the pooled coefficients, beside those of the complete records."""
        from wardround.analytics.imputed_exhibits import forest

        return forest(self)

    def methods(self) -> str:
        """What was done, as a methods section says it."""
        from wardround.analytics.imputed_exhibits import imputed_methods

        return imputed_methods(self)

    @property
    def references(self) -> tuple[str, ...]:
        """The papers behind it."""
        from wardround.analytics.imputed_exhibits import imputed_references

        return imputed_references(self)

    def headlines(self) -> tuple[str, ...]:
        """What was missing, and where the pooled model differs from the complete records'."""
        from wardround.analytics.imputed_exhibits import imputed_headlines

        return imputed_headlines(self)

    def exhibits(self) -> tuple[Exhibit, ...]:
        """Forest plot, pooled coefficients, missing values, convergence."""
        from wardround.analytics.imputed_exhibits import imputed_exhibits

        return imputed_exhibits(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableRole:
    """A variable with what was counted of it, before anything is hidden."""

    name: str
    role: Role
    kind: Literal["number", "category", "hazard"]
    num_missing: int
    num_sites_without: int
    sites_without: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What was imputed and how, before anything is hidden."""

    variables: tuple[VariableRole, ...]
    num_records: int
    num_patients: int
    num_complete: int
    num_iterations: int
    num_donors: int
    by_site: bool
    seed: int
    nonlinear: tuple[str, ...]
    centred: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What is pooled of one fit.

    Attributes:
        formula: as given.
        family: distribution of the outcome; "cox" for proportional hazards.
        link: link function.
        outcome: what is modelled, in words.
        names: of the coefficients.
        estimates: shape (num_terms,).
        covariance: of the estimates, shape (num_terms, num_terms).
        low: lower ends of their intervals, shape (num_terms,).
        high: upper ends.
        df: residual degrees of freedom of the complete data.
        tests: terms of the formula with their numbers of columns.
    """

    formula: str
    family: str
    link: str
    outcome: str
    names: tuple[str, ...]
    estimates: Values
    covariance: Values
    low: Values
    high: Values
    df: float
    tests: tuple[tuple[str, int], ...]

    @classmethod
    def of_glm(cls, fit: GLMResult) -> Fitted:
        """Of a generalised linear model."""
        return cls(
            formula=fit.formula,
            family=fit.family,
            link=fit.link,
            outcome=fit.outcome,
            names=tuple(term.term for term in fit.terms),
            estimates=np.array([term.estimate for term in fit.terms]),
            covariance=fit.covariance_matrix,
            low=np.array([term.low for term in fit.terms]),
            high=np.array([term.high for term in fit.terms]),
            df=float(fit.df_residual if fit.df_residual is not None else np.inf),
            tests=tuple((test.term, test.df) for test in fit.tests),
        )


def summarise(
    rules: DisclosureRules,
    confidence: float,
    planned: Planned,
    fits: list[Fitted],
    complete: Fitted | str | None,
    courses: Mapping[str, Course],
    sites: tuple[str, ...],
) -> ImputedResult:
    """Pool the fits and hide what the rules hide."""
    first = fits[0]
    estimates = np.array([fit.estimates for fit in fits])
    covariances = np.array([fit.covariance for fit in fits])
    pooled = pool(estimates, covariances, first.df)
    variables = tuple(_variable(rules, planned, v, courses.get(v.name)) for v in planned.variables)
    return ImputedResult(
        formula=first.formula,
        family=first.family,
        link=first.link,
        outcome=first.outcome,
        terms=_terms(first.names, pooled, confidence),
        covariance_matrix=pooled.covariance,
        tests=_tests(first, pooled, len(fits)),
        complete_cases=_complete_terms(complete) if isinstance(complete, Fitted) else None,
        variables=variables,
        num_records=rules.shown(planned.num_records),
        num_complete=_shown_complete(rules, planned),
        num_imputations=len(fits),
        num_iterations=planned.num_iterations if courses else 0,
        num_donors=planned.num_donors,
        imputes_by_site=planned.by_site,
        seed=planned.seed,
        confidence=confidence,
        minimum_cell=rules.minimum_cell,
        sites=sites,
        notes=_notes(rules, planned, variables, complete, courses),
    )


def _terms(names: tuple[str, ...], pooled: Pooled, confidence: float) -> tuple[PooledTerm, ...]:
    errors = np.sqrt(np.maximum(np.diag(pooled.covariance), 0.0))
    rows = []
    for i, name in enumerate(names):
        estimate, error, df = float(pooled.estimates[i]), float(errors[i]), float(pooled.df[i])
        statistic = estimate / error if error > 0 else float("nan")
        reach = two_sided_quantile(confidence, df) * error
        rows.append(
            PooledTerm(
                term=name,
                estimate=estimate,
                standard_error=error,
                statistic=statistic,
                df=df,
                p_value=two_sided_p(statistic, df),
                low=estimate - reach,
                high=estimate + reach,
                fmi=float(pooled.fmi[i]),
                share_missing=float(pooled.share_missing[i]),
                efficiency=float(pooled.efficiency[i]),
            )
        )
    return tuple(rows)


def _tests(first: Fitted, pooled: Pooled, num_copies: int) -> tuple[PooledTest, ...]:
    """Of terms that have several columns and are no interactions."""
    tests = []
    for term, size in first.tests:
        index = [i for i, name in enumerate(first.names) if name.startswith(f"{term}[")]
        if size < 2 or len(index) != size:
            continue
        statistic, df, denominator, p_value = joint_test(pooled, index, num_copies)
        tests.append(PooledTest(term=term, statistic=statistic, df=df, df_denominator=denominator, p_value=p_value))
    return tuple(tests)


def _complete_terms(fit: Fitted) -> tuple[CompleteCaseTerm, ...]:
    errors = np.sqrt(np.maximum(np.diag(fit.covariance), 0.0))
    columns = zip(fit.names, fit.estimates.tolist(), errors.tolist(), fit.low.tolist(), fit.high.tolist(), strict=True)
    return tuple(
        CompleteCaseTerm(term=name, estimate=estimate, standard_error=error, low=low, high=high)
        for name, estimate, error, low, high in columns
    )


def _shown_complete(rules: DisclosureRules, planned: Planned) -> int | None:
    """The complete records, unless what is shown beside them would give a small count back by subtraction."""
    left_out = planned.num_records - planned.num_complete
    analysed = [variable.num_missing for variable in planned.variables if variable.role != "auxiliary"]
    differences = [left_out, *(left_out - num_missing for num_missing in analysed)]
    if any(map(rules.is_small, [*differences, *analysed])):
        return None
    return rules.shown(planned.num_complete)


def _variable(rules: DisclosureRules, planned: Planned, found: VariableRole, course: Course | None) -> ImputedVariable:
    is_hidden = rules.is_small(found.num_missing) or rules.is_small(planned.num_records - found.num_missing)
    shown = None if is_hidden or rules.shown(planned.num_records) is None else rules.shown(found.num_missing)
    is_told = found.sites_without is not None or not 0 < found.num_sites_without < FEWEST_SITES
    reduction = float("nan") if course is None else convergence(course.mean)
    return ImputedVariable(
        variable=found.name,
        role=found.role,
        model=_model(found.kind, planned.num_donors) if found.num_missing else None,
        num_missing=shown,
        share_missing=None if shown is None else shown / max(planned.num_records, 1),
        absent_sites=found.num_sites_without if is_told else None,
        sites_without=found.sites_without if found.num_sites_without else (),
        mean=None if course is None or is_hidden else course.mean,
        deviation=None if course is None or is_hidden else course.deviation,
        scale_reduction=None if np.isnan(reduction) else reduction,
        share_drawn_back=0.0 if course is None else round(course.share_drawn_back, 3),
    )


def _model(kind: str, num_donors: int) -> str:
    if kind == "category":
        return "logistic"
    return "predictive mean matching" if num_donors else "linear"


def _notes(
    rules: DisclosureRules,
    planned: Planned,
    variables: tuple[ImputedVariable, ...],
    complete: Fitted | str | None,
    courses: Mapping[str, Course],
) -> tuple[str, ...]:
    if not courses:
        return ("nothing is missing: the model was fitted once, to all records",)
    notes = [_without(variable) for variable in variables if variable.absent_sites != 0]
    if isinstance(complete, str):
        notes.append(f"the model of the complete records {complete}")
    if planned.nonlinear:
        notes.append(
            f"{', '.join(planned.nonlinear)}: computed from the completed variables; the imputation models themselves "
            "hold main effects only, which draws such terms towards zero"
        )
    if planned.centred:
        notes.append("center() and scale() take each completed copy's own mean and standard deviation")
    for variable in variables:
        if variable.share_drawn_back > MUCH_DRAWN_BACK:
            notes.append(
                f"{variable.variable}: {100 * variable.share_drawn_back:.0f}% of the imputed values were drawn back "
                "into the contract's range; a normal distribution fits it badly (try method = 'pmm')"
            )
        if variable.scale_reduction is not None and variable.scale_reduction > UNSETTLED:
            notes.append(
                f"{variable.variable}: the copies have not mixed (potential scale reduction "
                f"{variable.scale_reduction:.2f}); look at the course of the means, and take more iterations"
            )
    lacking = [name for name, course in courses.items() if course.num_without_donors]
    if lacking:
        notes.append(
            f"{', '.join(lacking)}: at sites with fewer than {planned.num_donors} values no donor was chosen; the "
            "values were drawn from the normal distribution there"
        )
    if planned.num_patients < planned.num_records:
        notes.append("some patients have several records; these were imputed as if they were independent")
    return tuple(notes)


def _without(variable: ImputedVariable) -> str:
    if variable.sites_without:
        where = f"at {', '.join(variable.sites_without)}"
    else:
        number = variable.absent_sites
        where = "at one or more sites" if number is None else f"at {number} sites"
    return (
        f"{variable.variable} has no value at all {where}: there it rests on the other sites' records alone, and on "
        "the assumption that it relates to the other variables as it does elsewhere"
    )


__all__ = ["CompleteCaseTerm", "ImputedResult", "ImputedVariable", "PooledTerm", "PooledTest"]
