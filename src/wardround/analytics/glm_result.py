"""The result of a generalised linear model: what is reported, how it prints, and tests on it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from wardround.analytics.design import Column
from wardround.analytics.families import FamilyName, LinkName, two_sided_p, two_sided_quantile
from wardround.analytics.linear import unpack_symmetric
from wardround.analytics.preparation import Prepared
from wardround.analytics.result import Exhibit, json_text, json_value
from wardround.errors import ModelError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficient:
    """One coefficient on the scale of the linear predictor, in the variables' own units."""

    term: str
    estimate: float
    standard_error: float
    statistic: float
    p_value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HypothesisTest:
    """A test that some coefficients are zero."""

    term: str
    test: Literal["wald", "likelihood_ratio"]
    statistic: float
    df: int
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PenaltyScore:
    """Mean held-out deviance a record at a penalty, with its standard error over the folds."""

    l2: float
    deviance: float
    standard_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GLMResult:
    """A fitted generalised linear model.

    Attributes:
        formula: as given.
        family: distribution of the outcome.
        link: link function.
        outcome: what is modelled.
        terms: the coefficients.
        covariance_matrix: of the estimates, rows and columns as `terms`.
        covariance: how it was estimated.
        num_clusters: clusters, where it is by clusters.
        num_records: records used (the sum of the frequency weights, where there are any).
        num_left_out: records with a missing value; None where that is hidden.
        num_missing: by variable, records in which it is missing; None where that is hidden.
        df_model: coefficients beyond a constant.
        df_residual: records less coefficients.
        deviance: of the model.
        null_deviance: of the model with an intercept alone (and the offset), whether or not this one has one.
        pearson_chi2: sum of squared Pearson residuals.
        log_likelihood: of the model (a gaussian's at the dispersion that maximises it, a gamma's at the
            reported one).
        dispersion: estimated (Pearson) or 1.
        aic: Akaike's information criterion; counts the coefficients, not the dispersion (R counts both).
        bic: Bayesian information criterion, likewise.
        num_iterations: steps of the iteration.
        tests: of the formula's terms.
        l2: ridge penalty.
        l2_scale: what it is on.
        l2_path: scores of the penalties that cross-validation tried.
        dropped: columns left out as combinations of others.
        distribution: of the statistics.
        confidence: of the intervals.
        sites: in the final sum.
        notes: what the reader should know.
        columns: what each coefficient is multiplied by, in the variables' own units.
        offset: expression that is added to the linear predictor.
    """

    formula: str
    family: str
    link: str
    outcome: str
    terms: tuple[Coefficient, ...]
    covariance_matrix: Values
    covariance: str
    num_clusters: int | None
    num_records: float
    num_left_out: int | None
    num_missing: dict[str, int | None]
    df_model: int
    df_residual: float
    deviance: float
    null_deviance: float
    pearson_chi2: float
    log_likelihood: float
    dispersion: float
    aic: float
    bic: float
    num_iterations: int
    tests: tuple[HypothesisTest, ...]
    l2: float
    l2_scale: str
    l2_path: tuple[PenaltyScore, ...]
    dropped: tuple[str, ...]
    distribution: Literal["normal", "t"]
    confidence: float
    sites: tuple[str, ...]
    notes: tuple[str, ...]
    columns: tuple[Column, ...]
    offset: str | None

    def to_frame(self, *, exponentiate: bool = False) -> pd.DataFrame:
        """Coefficients, one a row, indexed by term.

        Args:
            exponentiate: estimates and intervals as ratios (odds ratios of a logistic model, rate ratios of a
                log-linear one); the standard error stays on the scale of the linear predictor.
        """
        frame = pd.DataFrame([_fields(term) for term in self.terms]).set_index("term")
        if exponentiate:
            if self.link not in ("logit", "log"):
                raise ValueError(f"exponentiate needs the link 'logit' or 'log', this model has {self.link!r}")
            with np.errstate(over="ignore"):  # the ratio of a huge coefficient is infinite
                frame[["estimate", "low", "high"]] = np.exp(frame[["estimate", "low", "high"]])
        return frame

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values; `terms` holds a dict a coefficient."""
        values = _fields(self)
        values["terms"] = [_fields(term) for term in self.terms]
        values["tests"] = [_fields(test) for test in self.tests]
        values["l2_path"] = [_fields(score) for score in self.l2_path]
        values["columns"] = [asdict(column) for column in self.columns]
        converted: dict[str, Any] = json_value(values)
        return converted

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict())

    def wald_test(self, *terms: str) -> HypothesisTest:
        """Wald test that all these coefficients are zero.

        Raises:
            ValueError: a coefficient that the model does not have.
        """
        names = [coefficient.term for coefficient in self.terms]
        unknown = [term for term in terms if term not in names]
        if unknown or not terms:
            raise ValueError(f"terms must be among {names}, got {list(terms)}")
        estimates = np.array([coefficient.estimate for coefficient in self.terms])
        index = [names.index(term) for term in terms]
        return _wald(", ".join(terms), estimates, self.covariance_matrix, index, self._df)

    @property
    def _df(self) -> float | None:
        return self.df_residual if self.distribution == "t" else None

    def likelihood_ratio_test(self, smaller: GLMResult) -> HypothesisTest:
        """Likelihood-ratio test of this model against a smaller one that is nested in it.

        Raises:
            ValueError: the models are not of the same records, family and link, or not nested.
        """
        mine = (self.family, self.link, self.outcome, self.num_records, self.sites, self.l2, 0.0)
        others = (smaller.family, smaller.link, smaller.outcome, smaller.num_records, smaller.sites, 0.0, smaller.l2)
        if mine != others:
            raise ValueError(
                "the models must have the same family, link, outcome, sites and records, and no penalty: "
                f"{self.num_records:g} and {smaller.num_records:g} records"
            )
        df = len(self.terms) - len(smaller.terms)
        if df <= 0 or not {c.term for c in smaller.terms} <= {c.term for c in self.terms}:
            raise ValueError("the other model must have a part of this model's coefficients")
        growth = smaller.deviance - self.deviance
        return _likelihood_ratio("model", growth, df, self.family, self.dispersion)

    def summary(self) -> str:
        """The fit as text, laid out as users of statsmodels know it."""
        left = [
            ("Outcome", " ".join(self.outcome.split())),
            ("Family", self.family),
            ("Link", self.link),
            ("Covariance", self.covariance),
            ("Sites", str(len(self.sites))),
            ("Iterations", str(self.num_iterations)),
        ]
        right = [
            ("Records", f"{self.num_records:g}"),
            ("Left out (missing)", "hidden" if self.num_left_out is None else str(self.num_left_out)),
            ("Df residuals", f"{self.df_residual:g}"),
            ("Log-likelihood", f"{self.log_likelihood:.5g}"),
            ("Deviance", f"{self.deviance:.5g}"),
            ("Dispersion", f"{self.dispersion:.5g}"),
        ]
        table = _table(self.terms, self.distribution, self.confidence)
        width = max(len(table[0]), 78)
        head = [
            f"{a + ':':<14}{b[:22]:<24}{c + ':':<22}{d:>{width - 60}}"
            for (a, b), (c, d) in zip(left, right, strict=True)
        ]
        title = "Federated generalised linear model".center(width)
        lines = [title, "=" * width, *head, "=" * width, *table, "=" * width]
        lines += [self._line(test) for test in self.tests if test.df > 1]
        return "\n".join([*lines, *self.notes])

    def _line(self, test: HypothesisTest) -> str:
        statistic = f"chi2({test.df}) = {test.statistic:.4g}"
        if test.test == "wald" and self.distribution == "t":
            statistic = f"F({test.df}, {self.df_residual:g}) = {test.statistic / test.df:.4g}"
        return f"{test.term}: {test.test.replace('_', ' ')} {statistic}, p = {test.p_value:.3g}"

    def plot(self) -> Figure:
        """Forest plot of the coefficients, the intercept left out; ratios for logit and log links."""
        from wardround.analytics.forest_plot import forest_plot

        return forest_plot(self)

    def methods(self) -> str:
        """How the model was fitted, as a methods section says it."""
        from wardround.analytics.glm_exhibits import glm_methods

        return glm_methods(self)

    @property
    def references(self) -> tuple[str, ...]:
        """The papers behind it."""
        from wardround.analytics.glm_exhibits import glm_references

        return glm_references(self)

    def headlines(self) -> tuple[str, ...]:
        """The coefficients that differ from zero most clearly, in a sentence."""
        from wardround.analytics.glm_exhibits import glm_headlines

        return glm_headlines(self)

    def exhibits(self) -> tuple[Exhibit, ...]:
        """The forest plot, the coefficients, tests of whole terms, the fit."""
        from wardround.analytics.glm_exhibits import glm_exhibits

        return glm_exhibits(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """How what was fitted in the outcome's own size turns back into its unit.

    Attributes:
        outcome: divided the outcome.
        predictor: multiplied the linear predictor, coefficients and offset alike.
        deviance: divided the deviance, the Pearson statistic and the dispersion.
    """

    outcome: float = 1.0
    predictor: float = 1.0
    deviance: float = 1.0

    @classmethod
    def of(cls, outcome: float, *, is_gaussian: bool, link: LinkName) -> Units:
        """For an outcome that was divided by `outcome`."""
        predictor = {"identity": 1 / outcome, "inverse": outcome}.get(link, 1.0)
        return cls(outcome=outcome, predictor=predictor, deviance=outcome**2 if is_gaussian else 1.0)

    @property
    def penalty(self) -> float:
        """What an l2 penalty is multiplied by."""
        return 1 / (self.deviance * self.predictor**2)


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def _table(terms: tuple[Coefficient, ...], distribution: str, confidence: float) -> list[str]:
    letter = "t" if distribution == "t" else "z"
    tail = (1 - confidence) / 2
    name_width = min(max([12, *(len(term.term) for term in terms)]), 48)
    heads = ["coef", "std err", letter, f"P>|{letter}|", f"[{tail:.3g}", f"{1 - tail:.3g}]"]
    rows = ["".join([" " * name_width, *(f"{head:>11}" for head in heads)])]
    rows.append("-" * len(rows[0]))
    for c in terms:
        name = " ".join(c.term.split())  # a column's name may hold a line break
        name = name if len(name) <= name_width else name[: name_width - 3] + "..."
        is_odd = 0 < abs(c.estimate) < 1e-3 or 0 < c.standard_error < 5e-3
        is_odd |= max(map(abs, (c.estimate, c.standard_error, c.low, c.high))) > 1e5
        plain, fine = (".4g", ".3g") if is_odd else (".4f", ".3f")
        bound = ".4g" if is_odd else ".3f"
        statistic = f"{c.statistic:.3f}" if abs(c.statistic) < 1e5 else f"{c.statistic:.3g}"
        shown = [f"{c.estimate:{plain}}", f"{c.standard_error:{fine}}", statistic, f"{c.p_value:.3f}"]
        bounds = [f"{c.low:{bound}}", f"{c.high:{bound}}"]
        rows.append("".join([f"{name:<{name_width}}", *(f"{number:>11}" for number in [*shown, *bounds])]))
    return rows


def _wald(name: str, estimates: Values, covariance: Values, index: list[int], df: float | None) -> HypothesisTest:
    part, size = estimates[index], len(index)
    matrix = covariance[np.ix_(index, index)]
    scale = np.sqrt(np.maximum(np.diag(matrix), 0.0))
    with np.errstate(all="ignore"):
        correlation = matrix / np.outer(scale, scale)
    # A robust covariance from few clusters, or of a perfect fit, has no inverse.
    is_regular = np.isfinite(correlation).all() and np.linalg.matrix_rank(correlation, hermitian=True) == size
    standardised = part / np.where(scale > 0, scale, 1.0)
    statistic = float(standardised @ np.linalg.solve(correlation, standardised)) if is_regular else float("nan")
    p = special.chdtrc(size, statistic) if df is None else special.fdtrc(size, df, statistic / size)
    return HypothesisTest(term=name, test="wald", statistic=statistic, df=size, p_value=float(p))


def _likelihood_ratio(name: str, growth: float, df: int, family: str, dispersion: float) -> HypothesisTest:
    """Growth of the deviance over the dispersion of the larger model: chi-squared with `df` degrees of freedom."""
    statistic = max(growth, 0.0) / dispersion
    p = float(special.chdtrc(df, statistic))
    return HypothesisTest(term=name, test="likelihood_ratio", statistic=statistic, df=df, p_value=p)


def unstandardise(prepared: Prepared) -> Values:
    """Matrix that turns standardised coefficients into those of the raw columns, shape (num_columns, num_columns)."""
    design = prepared.design
    matrix = np.diag(1 / design.scale)
    for j, column in enumerate(design.columns):
        if not column.features:
            matrix[j] -= design.center / design.scale
            matrix[j, j] = 1.0
    return matrix


def _robust(bread: Values, meat: Values, kind: str, num_records: float, num_clusters: int) -> Values:
    """Sandwich covariance with the corrections for small samples that go with its kind."""
    p = len(bread)
    if kind == "cluster":
        if num_clusters <= 1:
            raise ModelError(f"covariance by clusters needs at least two clusters, there is {num_clusters}")
        correction = num_clusters / (num_clusters - 1) * (num_records - 1) / (num_records - p)
    else:
        correction = num_records / (num_records - p) if kind == "HC1" else 1.0
    return correction * (bread @ meat @ bread)


def _covariance(
    bread: Values, gram: Values, meat: Values, kind: str, dispersion: float, num_records: float, num_clusters: int
) -> Values:
    if kind == "model":
        return dispersion * (bread @ gram @ bread)
    return _robust(bread, meat, kind, num_records, num_clusters)


def _coefficients(
    names: list[str], estimates: Values, covariance: Values, df: float | None, confidence: float
) -> tuple[Coefficient, ...]:
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    quantile = two_sided_quantile(confidence, df)
    rows = []
    for name, estimate, error in zip(names, estimates.tolist(), errors.tolist(), strict=True):
        statistic = estimate / error if error > 0 else float("nan")  # a perfect fit has no error
        rows.append(
            Coefficient(
                term=name,
                estimate=estimate,
                standard_error=error,
                statistic=statistic,
                p_value=two_sided_p(statistic, df),
                low=estimate - quantile * error,
                high=estimate + quantile * error,
            )
        )
    return tuple(rows)


def _tests(
    prepared: Prepared,
    estimates: Values,
    covariance: Values,
    df: float | None,
    ratios: dict[str, tuple[float, int]] | None,
    family: str,
    dispersion: float,
) -> tuple[HypothesisTest, ...]:
    if ratios is not None:
        return tuple(_likelihood_ratio(name, g, k, family, dispersion) for name, (g, k) in ratios.items())
    tested = [term for term in prepared.terms if term.columns and term.name != "Intercept"]
    return tuple(_wald(term.name, estimates, covariance, list(term.columns), df) for term in tested)


def _notes(prepared: Prepared, l2: float, dropped: tuple[str, ...], gram: Values) -> tuple[str, ...]:
    notes = list(prepared.notes)
    if dropped:
        notes.append(f"left out as combinations of other columns: {', '.join(dropped)}")
    if l2 > 0:
        notes.append(
            f"l2 = {l2:g}: estimates are drawn towards zero; their standard errors describe the penalised "
            "estimator and do not count the bias"
        )
    scaled = gram / np.sqrt(np.outer(np.diag(gram), np.diag(gram)))
    condition = float(np.linalg.cond(scaled))
    if condition > 1e6:
        digits = max(1, int(15 - np.log10(condition)))
        notes.append(f"the columns are nearly combinations of each other: about {digits} digits are reliable")
    return tuple(notes)


def _in_units(score: PenaltyScore, units: Units) -> PenaltyScore:
    deviance, error = score.deviance * units.deviance, score.standard_error * units.deviance
    return PenaltyScore(l2=score.l2, deviance=deviance, standard_error=error)


def summarise(
    *,
    formula: str,
    model: tuple[FamilyName, LinkName],
    prepared: Prepared,
    fit: tuple[Values, Values, int],
    sums: Any,
    finish: Any,
    sites: tuple[str, ...],
    null_deviance: float | None,
    dispersion: float,
    bread: Values,
    covariance: tuple[str, str],
    penalty: tuple[float, str, tuple[PenaltyScore, ...]],
    dropped: tuple[str, ...],
    likelihood_ratios: dict[str, tuple[float, int]] | None,
    use_t: bool,
    confidence: float,
    units: Units,
) -> GLMResult:
    """Turn the last sums of a fit into what is reported; all of it is arithmetic on totals."""
    (family, link), (standardised, gram, num_iterations), (kind, cluster) = model, fit, covariance
    names = [column.name for column in prepared.design.columns]
    num_records, p = sums.num_rows, len(names)
    df_residual = num_records - p
    df = df_residual if use_t else None
    raw = unstandardise(prepared) / units.predictor
    log_likelihood = finish.log_likelihood - num_records * float(np.log(units.outcome))
    if dispersion == 0:  # a perfect fit
        log_likelihood = float("inf")
    estimates = raw @ standardised
    spread = (
        raw
        @ _covariance(bread, gram, unpack_symmetric(finish.meat), kind, dispersion, num_records, finish.num_clusters)
        @ raw.T
    )
    return GLMResult(
        formula=formula,
        family=family,
        link=link,
        outcome=prepared.outcome_name,
        terms=_coefficients(names, estimates, spread, df, confidence),
        covariance_matrix=spread,
        covariance=f"{kind} ({cluster})" if kind == "cluster" else kind,
        num_clusters=finish.num_clusters if kind == "cluster" else None,
        num_records=num_records,
        num_left_out=prepared.num_records - prepared.num_complete,
        num_missing=dict(prepared.num_missing),
        df_model=p - int(prepared.spans_constant),
        df_residual=df_residual,
        deviance=sums.deviance * units.deviance,
        null_deviance=(finish.null_deviance if null_deviance is None else null_deviance) * units.deviance,
        pearson_chi2=sums.pearson * units.deviance,
        log_likelihood=log_likelihood,
        dispersion=dispersion * units.deviance,
        aic=-2 * log_likelihood + 2 * p,
        bic=-2 * log_likelihood + float(np.log(num_records)) * p,
        num_iterations=num_iterations,
        tests=_tests(prepared, estimates, spread, df, likelihood_ratios, family, dispersion),
        l2=penalty[0],
        l2_scale=penalty[1],
        l2_path=tuple(_in_units(score, units) for score in penalty[2]),
        dropped=dropped,
        distribution="t" if use_t else "normal",
        confidence=confidence,
        sites=sites,
        notes=_notes(prepared, penalty[0], dropped, gram),
        columns=prepared.design.columns,
        offset=prepared.frame.offset,
    )


__all__ = ["Coefficient", "GLMResult", "HypothesisTest", "PenaltyScore", "Units", "summarise", "unstandardise"]
