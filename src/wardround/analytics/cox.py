"""The Cox proportional hazards model, exactly as the pooled records would give it.

Each step of the iteration needs sums over risk sets by event time, and sums over records: `cox_sums.py` at the
sites, `cox_fit.py` at the coordinator. Robust covariances (`cox_robust.py`), concordance (`cox_concordance.py`),
the test of proportional hazards and baselines (`cox_hazards.py`) follow from further sums.

References:
    Cox (1972), J. R. Stat. Soc. B 34, 187-220.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np

from wardround.analytics.cox_concordance import (
    Concordance,
    concordance,
    pair_products,
    score_histogram,
    score_table,
    site_pairs,
)
from wardround.analytics.cox_fit import (
    At,
    CoxFit,
    SharedRiskSets,
    SiteRiskSets,
    fit_cox,
    independent,
    refuse_dependent,
)
from wardround.analytics.cox_hazards import (
    Baseline,
    ProportionalityTest,
    TimeTransform,
    baselines,
    proportionality,
    time_values,
)
from wardround.analytics.cox_result import Counted, CoxResult, Settled, summarise_cox
from wardround.analytics.cox_risk import MAX_PLACES, RiskFrame, Ties, Values
from wardround.analytics.cox_robust import (
    CoxCovariance,
    HazardSteps,
    ScoreProducts,
    score_products,
    site_score_products,
)
from wardround.analytics.cox_sums import Leaving, leaving, risk_sums, second_moment_sums, site_terms
from wardround.analytics.expression import shorten
from wardround.analytics.formula import plan_formula
from wardround.analytics.glm_penalty import penalty_unit
from wardround.analytics.grouping import named_levels
from wardround.analytics.linear import solve_symmetric, unpack_symmetric
from wardround.analytics.preparation import Extras, Prepared, formula_variables, prepare
from wardround.analytics.steady_sites import with_steady_sites
from wardround.analytics.survival_time import PreparedSurvival, prepare_survival
from wardround.data.contract import Setting
from wardround.errors import ConfigError, DataError, DisclosureError, ModelError
from wardround.sums import Steps, Total, ask, workflow

SITE = "site"
"""The name among the strata under which each site is one."""
MAX_STRATA = 10_000
"""Most combinations of levels of the strata variables."""


@workflow("cox", version=1)
def cox(
    setting: Setting,
    formula: str,
    time: str,
    event: str,
    event_level: str | None = None,
    entry: str | None = None,
    grid: float | None = None,
    ties: Ties = "efron",
    strata: tuple[str, ...] = (),
    weights: str | None = None,
    l2: float = 0.0,
    l2_scale: Literal["standardized", "raw"] = "standardized",
    covariance: CoxCovariance = "model",
    cluster: str | None = None,
    aliased: Literal["refuse", "drop"] = "refuse",
    proportionality_test: TimeTransform | None = "km",
    confidence: float = 0.95,
) -> Steps[CoxResult]:
    """Cox proportional hazards model, equal to the fit of the pooled records.

    What the coordinator sees are, at each event time of the grid, sums of relative hazards and of columns over those
    at risk. The difference of two such sums is that of the patients who left in between: on a fine grid, one
    patient's. A coarser `grid` joins them; secure sums hide the sites, not this.

    Args:
        setting: contract, sites and disclosure rules.
        formula: the predictors, as in R ("age + C(sex)"); a leading "~" is allowed. See `formula.py`.
        time: variable that says when follow-up ended.
        event: variable that says how it ended.
        event_level: its value that counts as the event; all others are then censored.
        entry: variable that says after which time a record was under observation (left truncation).
        grid: distance of two times that are told apart, in the unit of `time`; None: the contract's, or a day.
        ties: Efron's method for tied events, or Breslow's.
        strata: variables whose combined levels have baseline hazards of their own; "site" makes each site one,
            whose risk sets it then keeps to itself.
        weights: variable of case weights; records of weight 0 are left out.
        l2: ridge penalty: half of it times the squared norm of the coefficients is taken from the log-likelihood.
        l2_scale: whether the penalty is on coefficients of columns with standard deviation 1, or of raw columns.
        covariance: model-based, robust by records, or robust by clusters.
        cluster: variable whose values are the clusters, or "patient" (the default) or "site".
        aliased: what to do about columns that are combinations of others within the risk sets.
        proportionality_test: function of time along which effects may change; None: no test.
        confidence: of the intervals.

    Raises:
        ConfigError: an option or the formula is wrong, before anything is asked.
        DataError: times or events that cannot be used, or nobody had the event.
        ModelError: rank deficiency, monotone likelihood, no convergence.

    Guarantees:
        cox_equals_pooled: estimates, standard errors, tests and likelihood are those of the pooled records.
    """
    options = _options(
        setting,
        formula=formula,
        time=time,
        event=event,
        event_level=event_level,
        entry=entry,
        grid=grid,
        ties=ties,
        strata=strata,
        weights=weights,
        l2=l2,
        l2_scale=l2_scale,
        covariance=covariance,
        cluster=cluster,
        aliased=aliased,
        transform=proportionality_test,
        confidence=confidence,
    )
    return (yield from with_steady_sites(lambda: _attempt(setting, options), len(setting.sites)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The options of `cox`, checked; `formula` has the time as its outcome, so that it is one like others."""

    predictors: str
    formula: str
    variables: tuple[str, ...]
    time: str
    event: str
    event_level: str | None
    entry: str | None
    grid: float | None
    ties: Ties
    strata: tuple[str, ...]
    levels: tuple[tuple[str, ...], ...]
    has_site_strata: bool
    weights: str | None
    l2: float
    l2_scale: str
    covariance: CoxCovariance
    cluster: str
    aliased: str
    transform: TimeTransform | None
    confidence: float

    @property
    def required(self) -> tuple[str, ...]:
        """Variables beside those of the formula that a record must have."""
        named = [self.event, self.entry, self.weights, *self.strata]
        if self.covariance == "cluster" and self.cluster not in ("patient", SITE):
            named.append(self.cluster)
        return tuple(dict.fromkeys(name for name in named if name is not None))

    @property
    def labels(self) -> tuple[str, ...]:
        """The strata in words, in the order of their numbers."""
        names = [
            [f"{name} = {level}" for level in levels] for name, levels in zip(self.strata, self.levels, strict=True)
        ]
        return tuple(", ".join(parts) for parts in product(*names))


def _options(
    setting: Setting,
    *,
    formula: str,
    strata: tuple[str, ...],
    time: str,
    event: str,
    entry: str | None,
    weights: str | None,
    l2: float,
    covariance: CoxCovariance,
    cluster: str | None,
    confidence: float,
    **others: object,
) -> _Options:
    contract = setting.contract
    predictors = formula.strip().removeprefix("~").strip()
    _check_numbers(l2, confidence)
    if "`" in time:
        raise ConfigError(f"time: rename variable {shorten(time)!r}, whose name holds a backtick")
    contract.variable(time, "time")
    plan = plan_formula(f"`{time}` ~ {predictors}", contract)
    if not plan.has_intercept:
        raise ConfigError("formula: leave out '0' or '- 1'; a Cox model has no intercept, its baseline hazard is one")
    if len(plan.terms) == 1:
        raise ConfigError("formula: names no predictor; kaplan_meier estimates survival without any")
    variables = formula_variables(plan)
    for name, where in ((event, "event"), (entry, "entry")):
        if name is not None and name in variables:
            raise ConfigError(f"formula: {name!r} is the {where}, and cannot be a predictor or the time too")
    if weights is not None and not contract.variable(weights, "weights").is_numeric:
        raise ConfigError(f"weights: variable {weights!r} is not a number")
    if cluster is not None and covariance != "cluster":
        raise ConfigError("cluster: give covariance = 'cluster' with it")
    if cluster not in (None, "patient", SITE) and contract.variable(str(cluster), "cluster").type == "text":
        raise ConfigError(f"cluster: variable {cluster!r} is text; declare it a category")
    names = tuple(name for name in strata if name != SITE)
    if len(set(strata)) < len(strata):
        raise ConfigError("strata: each is named once")
    return _Options(
        predictors=predictors,
        formula=plan.text,
        variables=variables,
        time=time,
        event=event,
        entry=entry,
        strata=names,
        levels=_levels(setting, names),
        has_site_strata=SITE in strata,
        weights=weights,
        l2=l2,
        covariance=covariance,
        cluster=cluster or "patient",
        confidence=confidence,
        **others,  # type: ignore[arg-type]  # the workflow's own, checked against its annotations
    )


def _check_numbers(l2: float, confidence: float) -> None:
    if not 0 <= l2 < np.inf:
        raise ConfigError(f"l2: must be 0 or more, got {l2}")
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"confidence: must be in [0.5, 1), got {confidence}")


def _levels(setting: Setting, names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    levels = tuple(named_levels(setting.contract, name, "strata") for name in names)
    if int(np.prod([len(part) for part in levels], dtype=object)) > MAX_STRATA:
        raise ConfigError(f"strata: their levels combine to more than {MAX_STRATA} strata; name fewer variables")
    return levels


def _attempt(setting: Setting, options: _Options) -> Steps[CoxResult]:
    """Prepare, fit and finish, over one set of sites."""
    survival = yield from prepare_survival(
        setting,
        time=options.time,
        event=options.event,
        event_level=options.event_level,
        entry=options.entry,
        grid=options.grid,
        also_required=tuple(dict.fromkeys((*options.variables, *options.required))),
    )
    extras = Extras(frequency_weights=options.weights, also_required=options.required)
    prepared = _without_intercept((yield from prepare(setting, options.formula, extras)))
    risk = _risk_frame(survival, options)
    counts = yield from ask(leaving, prepared.frame, risk)
    _refuse_few_events(int(counts.sum.num_events.sum()), options, setting)
    sets, start = yield from _risk_sets(prepared, risk, options, counts.sum)
    kept = independent(start)
    if options.aliased == "refuse" or not kept:
        refuse_dependent(prepared, kept)
    names = [column.name for column in prepared.design.columns]
    dropped = tuple(name for j, name in enumerate(names) if j not in set(kept))
    if dropped:
        prepared, sets, start = _with_columns(prepared, sets, start, kept)
    penalty = options.l2 * (yield from penalty_unit(prepared, options.l2, options.l2_scale))
    fit = yield from fit_cox(prepared, sets, start, penalty)
    settled = yield from _finish(prepared, sets, fit, penalty, options, counts.sum)
    num_records = int(counts.sum.num_leaving.sum())
    return summarise_cox(
        predictors=options.predictors,
        survival=survival,
        prepared=prepared,
        settled=settled,
        counted=Counted(
            num_records=num_records,
            num_events=int(counts.sum.num_events.sum()),
            num_strata=int((counts.sum.num_leaving.sum(axis=1) > 0).sum()),
        ),
        curves=_curves(setting, sets, fit.end, counts.sum, options),
        ties=options.ties,
        strata=(*options.strata, *((SITE,) if options.has_site_strata else ())),
        weights=options.weights,
        covariance=(options.covariance, options.cluster),
        penalty=(options.l2, options.l2_scale),
        transform=options.transform,
        dropped=dropped,
        confidence=options.confidence,
        sites=counts.sites,
        setting=setting,
    )


def _refuse_few_events(num_events: int, options: _Options, setting: Setting) -> None:
    """Raise where nobody had the event, or so few that the coefficients would tell of them."""
    if num_events == 0:
        raise DataError(f"nobody with a weight above 0 had the event; check {options.weights!r}")
    floor = setting.disclosure.minimum_cell
    if num_events < floor:
        raise DisclosureError(
            "minimum_cell",
            f"some, but fewer than {floor} records had the event, of whom the coefficients would tell; widen the "
            "cohort or the event",
        )


def _without_intercept(prepared: Prepared) -> Prepared:
    """The design without the constant, which the baseline hazard takes up; columns stay centred on their means."""
    kept = [j for j, column in enumerate(prepared.design.columns) if column.features]
    if not kept:
        raise ModelError("no predictor has more than one level in the complete records; leave such variables out")
    prepared = prepared.with_columns(kept)
    return replace(prepared, terms=tuple(term for term in prepared.terms if term.name != "Intercept"))


def _risk_frame(survival: PreparedSurvival, options: _Options) -> RiskFrame:
    sizes = tuple(len(levels) for levels in options.levels)
    num_places = int(np.prod([*sizes, survival.outcome.num_steps], dtype=object))
    if num_places > MAX_PLACES:
        raise ConfigError(
            f"strata: {num_places // survival.outcome.num_steps} strata on a grid of {survival.outcome.num_steps} "
            f"times are more than {MAX_PLACES} places; name fewer strata, or give a coarser grid"
        )
    return RiskFrame(outcome=survival.outcome, strata=options.strata, num_levels=sizes)


def _risk_sets(
    prepared: Prepared, risk: RiskFrame, options: _Options, counts: Leaving
) -> Steps[tuple[SharedRiskSets | SiteRiskSets, At]]:
    """The risk sets, and the likelihood with its information at coefficients of zero."""
    if options.has_site_strata:
        own = SiteRiskSets(risk=risk, ties=options.ties)
        start = yield from own.at(prepared, np.zeros(prepared.design.num_columns))
        return own, start
    events = counts.num_events.ravel()
    points = np.flatnonzero(events)
    sets, start = yield from SharedRiskSets.found(prepared, risk, options.ties, points, events[points])
    start = yield from sets.with_information(prepared, start)
    return sets, start


def _with_columns(
    prepared: Prepared, sets: SharedRiskSets | SiteRiskSets, start: At, kept: list[int]
) -> tuple[Prepared, SharedRiskSets | SiteRiskSets, At]:
    """The same with only these columns."""
    index = np.ix_(kept, kept)
    start = replace(
        start,
        coefficients=start.coefficients[kept],
        score=start.score[kept],
        information=start.curvature[index],
        hazard=None,
    )
    return prepared.with_columns(kept), sets.with_columns(kept), start


def _finish(
    prepared: Prepared,
    sets: SharedRiskSets | SiteRiskSets,
    fit: CoxFit,
    penalty: Values,
    options: _Options,
    counts: Leaving,
) -> Steps[Settled]:
    """Covariance, concordance and the test of proportional hazards at the fit."""
    end = fit.end
    bread = solve_symmetric(end.curvature + np.diag(penalty), np.eye(len(penalty)))
    covariance, num_clusters = bread @ end.curvature @ bread, None
    if options.covariance != "model":
        total = yield from _score_products(prepared, sets, end, options)
        covariance = bread @ unpack_symmetric(total.sum.meat) @ bread
        num_clusters = total.sum.num_clusters if options.covariance == "cluster" else None
        if num_clusters == 1:
            raise ModelError("covariance by clusters needs at least two clusters, there is 1")
    agreement = yield from _concordance(prepared, sets, end, options)
    tests: tuple[ProportionalityTest, ...] = ()
    if options.transform is not None and options.l2 == 0:
        values = time_values(counts, sets.risk.outcome.times, options.transform)
        tests = yield from proportionality(prepared, sets, end, values)
    return Settled(
        fit=fit,
        covariance=covariance,
        bread=bread,
        num_clusters=num_clusters,
        concordance=agreement,
        tests=tests,
    )


def _score_products(
    prepared: Prepared, sets: SharedRiskSets | SiteRiskSets, end: At, options: _Options
) -> Steps[Total[ScoreProducts]]:
    design, frame, kind, cluster = prepared.design, prepared.frame, options.covariance, options.cluster
    if isinstance(sets, SiteRiskSets):
        return (
            yield from ask(site_score_products, design, frame, sets.risk, sets.ties, end.coefficients, kind, cluster)
        )
    where, steps = sets.points.astype(np.float64), HazardSteps.of(end.known_hazard)
    return (yield from ask(score_products, design, frame, sets.risk, where, end.coefficients, steps, kind, cluster))


def _concordance(
    prepared: Prepared, sets: SharedRiskSets | SiteRiskSets, end: At, options: _Options
) -> Steps[Concordance | None]:
    cluster = options.cluster if options.covariance == "cluster" else None
    points = sets.points if isinstance(sets, SharedRiskSets) else None
    return (
        yield from concordance(prepared, sets.risk, points, end.coefficients, end.squares, cluster, options.confidence)
    )


def _curves(
    setting: Setting, sets: SharedRiskSets | SiteRiskSets, end: At, counts: Leaving, options: _Options
) -> tuple[Baseline, ...]:
    if isinstance(sets, SiteRiskSets):
        return ()  # a baseline of a site is its own
    return baselines(sets, end, counts, options.labels, setting.disclosure.minimum_cell)


# A module's vocabulary is what it names: the workflow with the site functions that it asks for.
__all__ = [
    "cox",
    "leaving",
    "pair_products",
    "risk_sums",
    "score_histogram",
    "score_products",
    "score_table",
    "second_moment_sums",
    "site_pairs",
    "site_score_products",
    "site_terms",
]
