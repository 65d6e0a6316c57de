"""From the fit of a mixed model to what is reported of it: arithmetic on totals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from wardround.analytics.families import two_sided_p, two_sided_quantile
from wardround.analytics.glm_disclosed import shown_missing
from wardround.analytics.glm_result import Coefficient, Units, unstandardise
from wardround.analytics.linear import unpack_symmetric
from wardround.analytics.mixed_effects import SiteEffects
from wardround.analytics.mixed_linear import num_theta
from wardround.analytics.mixed_result import MixedResult, RandomTest, SiteEffect, VarianceComponent
from wardround.analytics.mixed_variance import (
    LATENT_VARIANCE,
    Spread,
    intraclass,
    median_ratio,
    wald_components,
)
from wardround.analytics.preparation import Prepared
from wardround.data.contract import Setting
from wardround.privacy.disclosure import round_count
from wardround.sums import Total

Values = NDArray[np.float64]

_LINKS = {"gaussian": "identity", "binomial": "logit", "poisson": "log"}
_FEW_GROUPS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Where the iteration ended.

    Attributes:
        prepared: the design.
        units: of a linear model's outcome in its own size; None for the others.
        random: which columns have random effects.
        coefficients: of the standardised columns.
        covariance: of them.
        theta: lower triangle of the random effects' factor, by columns.
        variance: of a linear model's residuals in the outcome's own size; else 1.
        information: half the second derivative of the deviance by theta (and log sigma).
        deviance: at the end.
        null_deviance: without random effects.
        freedom: of the residual variance; of the others, the number of records.
        interval: of a random intercept's standard deviation, in the outcome's own size; None: Wald's is to be made.
        num_groups: sites with records.
        num_iterations: evaluations.
        sites: in the sums.
    """

    prepared: Prepared
    units: Units | None
    random: tuple[int, ...]
    coefficients: Values
    covariance: Values
    theta: Values
    variance: float
    information: Values
    deviance: float
    null_deviance: float
    freedom: int
    interval: tuple[float, float] | None
    num_groups: int
    num_iterations: int
    sites: tuple[str, ...]

    @property
    def outcome_scale(self) -> float:
        """What the outcome was divided by."""
        return 1.0 if self.units is None else self.units.outcome


def finish_mixed(
    setting: Setting,
    ending: Ending,
    *,
    formula: str,
    random: str,
    family: str,
    is_restricted: bool,
    quadrature_points: int,
    confidence: float,
    effects: Total[SiteEffects] | None,
) -> MixedResult:
    """Everything that is reported, in the variables' own units."""
    prepared, rules = ending.prepared, setting.disclosure
    num_left_out, num_missing = shown_missing(prepared.num_records - prepared.num_complete, prepared.num_missing, rules)
    spread = _spread(ending)
    components, correlations = wald_components(spread, confidence)
    components = _with_interval(components, ending)
    deviance = _in_units(ending, is_restricted)
    num_parameters = len(ending.coefficients) + num_theta(len(ending.random)) + int(family == "gaussian")
    raw = unstandardise(prepared) * ending.outcome_scale
    covariance = raw @ ending.covariance @ raw.T
    icc, icc_low, icc_high = _icc(components, family)
    is_one = len(ending.random) == 1
    return MixedResult(
        formula=formula,
        random=random,
        family=family,
        link=_LINKS[family],
        method=_method(family, is_restricted, quadrature_points),
        quadrature_points=quadrature_points,
        outcome=prepared.outcome_name,
        terms=_fixed(prepared, raw @ ending.coefficients, covariance, confidence),
        covariance_matrix=covariance,
        components=components,
        random_covariance=spread.covariance(),
        correlations=correlations,
        icc=icc,
        icc_low=icc_low,
        icc_high=icc_high,
        median_odds_ratio=median_ratio(components[0].standard_deviation) if is_one and family != "gaussian" else None,
        deviance=deviance,
        log_likelihood=-deviance / 2,
        aic=deviance + 2 * num_parameters,
        bic=deviance + float(np.log(round_count(prepared.num_complete, rules.rounding))) * num_parameters,
        test=_test(ending),
        is_singular=spread.is_singular,
        num_records=rules.shown(prepared.num_complete),
        num_left_out=num_left_out,
        num_missing=num_missing,
        num_groups=ending.num_groups,
        num_iterations=ending.num_iterations,
        site_effects=() if effects is None else _site_effects(setting, ending, effects, confidence),
        interval_method="wald" if ending.interval is None else "profile",
        confidence=confidence,
        sites=ending.sites,
        notes=_notes(setting, ending, spread, family, effects),
    )


def _spread(ending: Ending) -> Spread:
    names = tuple(ending.prepared.design.columns[j].name for j in ending.random)
    scale = unstandardise(ending.prepared)[np.ix_(ending.random, ending.random)]
    is_linear = ending.units is not None
    return Spread(
        names=names,
        theta=ending.theta,
        scale=scale,
        log_sigma=float(np.log(ending.variance) / 2 + np.log(ending.outcome_scale)) if is_linear else None,
        information=ending.information,
    )


def _with_interval(components: tuple[VarianceComponent, ...], ending: Ending) -> tuple[VarianceComponent, ...]:
    if ending.interval is None:
        return components
    first, size = components[0], ending.outcome_scale
    profiled = VarianceComponent(
        name=first.name,
        standard_deviation=first.standard_deviation,
        variance=first.variance,
        low=ending.interval[0] * size,
        high=ending.interval[1] * size,
    )
    return (profiled, *components[1:])


def _in_units(ending: Ending, is_restricted: bool) -> float:
    """The deviance of the outcome and (for the restricted one) of the columns in their own units."""
    if ending.units is None:
        return ending.deviance
    stretch = 2 * float(np.log(ending.prepared.design.scale).sum()) if is_restricted else 0.0
    return ending.deviance + 2 * ending.freedom * float(np.log(ending.outcome_scale)) + stretch


def _method(family: str, is_restricted: bool, quadrature_points: int) -> str:
    if family == "gaussian":
        return "REML" if is_restricted else "ML"
    return "Laplace" if quadrature_points == 1 else "adaptive quadrature"


def _fixed(prepared: Prepared, estimates: Values, covariance: Values, confidence: float) -> tuple[Coefficient, ...]:
    quantile = two_sided_quantile(confidence, None)
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    rows = []
    for column, estimate, error in zip(prepared.design.columns, estimates.tolist(), errors.tolist(), strict=True):
        statistic = estimate / error if error > 0 else float("nan")
        rows.append(
            Coefficient(
                term=column.name,
                estimate=estimate,
                standard_error=error,
                statistic=statistic,
                p_value=two_sided_p(statistic, None),
                low=estimate - quantile * error,
                high=estimate + quantile * error,
            )
        )
    return tuple(rows)


def _icc(components: tuple[VarianceComponent, ...], family: str) -> tuple[float | None, float | None, float | None]:
    """Intraclass correlation of a random intercept alone, and at the ends of its interval."""
    is_linear = family == "gaussian"
    if len(components) != 1 + int(is_linear) or family == "poisson":
        return None, None, None
    within = components[1].variance if is_linear else LATENT_VARIANCE
    first = components[0]
    low = None if first.low is None else intraclass(first.low, within)
    high = None if first.high is None else intraclass(first.high, within)
    return intraclass(first.standard_deviation, within), low, high


def _test(ending: Ending) -> RandomTest:
    statistic = max(ending.null_deviance - ending.deviance, 0.0)
    df = num_theta(len(ending.random))
    p = float(special.chdtrc(df, statistic))
    # A variance lies on the edge of its range when it is zero: half of the time the statistic is (Self & Liang 1987).
    is_mixture = df == 1
    if is_mixture:
        p = 0.5 * p if statistic > 0 else 1.0
    return RandomTest(statistic=statistic, df=df, p_value=p, is_mixture=is_mixture)


def _site_effects(
    setting: Setting, ending: Ending, effects: Total[SiteEffects], confidence: float
) -> tuple[SiteEffect, ...]:
    sums, rows = effects.sum, []
    scale = unstandardise(ending.prepared)[np.ix_(ending.random, ending.random)] * ending.outcome_scale
    quantile = two_sided_quantile(confidence, None)
    for place, site in enumerate(setting.sites):
        if site not in effects.sites or not sums.is_told[place]:
            continue
        modes = scale @ sums.modes[place]
        spread = np.sqrt(np.maximum(np.diag(scale @ unpack_symmetric(sums.covariances[place]) @ scale.T), 0.0))
        for j, mode, deviation in zip(ending.random, modes.tolist(), spread.tolist(), strict=True):
            rows.append(
                SiteEffect(
                    site=site,
                    name=ending.prepared.design.columns[j].name,
                    effect=mode,
                    standard_deviation=deviation,
                    low=mode - quantile * deviation,
                    high=mode + quantile * deviation,
                )
            )
    return tuple(rows)


def _notes(
    setting: Setting, ending: Ending, spread: Spread, family: str, effects: Total[SiteEffects] | None
) -> tuple[str, ...]:
    notes = list(ending.prepared.notes)
    if spread.is_singular:
        notes.append(
            "the fit is singular: a variance between sites is zero, or a correlation is 1 or -1; intervals that need "
            "more are left out, and fewer random effects would fit as well"
        )
    if ending.num_groups < _FEW_GROUPS:
        notes.append(f"with {ending.num_groups} sites the variance between them is hardly known")
    if family != "gaussian" and ending.interval is None and len(ending.random) == 1:
        notes.append("the interval of the standard deviation between sites is Wald's")
    if effects is not None:
        told = {site for site, is_told in zip(setting.sites, effects.sum.is_told, strict=True) if is_told}
        kept = [site for site in effects.sites if site not in told]
        if kept:
            notes.append(f"{', '.join(kept)}: fewer records than the disclosure rules allow to be told of")
    return tuple(notes)
