"""Proportional hazards after multiple imputation: covariates are completed at the sites, `cox` is fitted to each copy.

The imputation models hold the event and the cumulative hazard up to each record's time, which is what a proportional
hazards model asks of them (White and Royston 2009). The hazard is Nelson and Aalen's, from counts by point of the grid.

References:
    White, Royston (2009), Imputing missing covariate values for the Cox model, Statistics in Medicine 28.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from wardround.analytics.cox import cox
from wardround.analytics.cox_result import CoxResult
from wardround.analytics.cox_risk import RiskFrame, Ties
from wardround.analytics.cox_robust import CoxCovariance
from wardround.analytics.cox_sums import leaving
from wardround.analytics.design import Frame, Numeric
from wardround.analytics.expression import is_plain
from wardround.analytics.formula import plan_formula
from wardround.analytics.imputation_chain import ChainVariable, Values
from wardround.analytics.imputed_result import Fitted, ImputedResult
from wardround.analytics.imputed_run import Options, attempt, check_options, codes_of, roles_of
from wardround.analytics.steady_sites import with_steady_sites
from wardround.analytics.survival_time import prepare_survival
from wardround.data.contract import Setting
from wardround.errors import ConfigError, DataError
from wardround.sums import Steps, ask, workflow

MAX_POINTS = 20_000
"""Most points of the grid of times: the cumulative hazard is sent to the sites with every imputation model."""


@workflow("imputed_cox", version=1)
def imputed_cox(
    setting: Setting,
    formula: str,
    time: str,
    event: str,
    event_level: str | None = None,
    entry: str | None = None,
    grid: float | None = None,
    ties: Ties = "efron",
    strata: tuple[str, ...] = (),
    covariance: CoxCovariance = "model",
    cluster: str | None = None,
    num_imputations: int = 20,
    num_iterations: int = 10,
    seed: int = 0,
    auxiliary: tuple[str, ...] = (),
    categorical: tuple[str, ...] = (),
    method: Literal["norm", "pmm"] = "norm",
    num_donors: int = 5,
    keeps_range: bool = True,
    imputes_by_site: bool = False,
    complete_cases: bool = True,
    confidence: float = 0.95,
) -> Steps[ImputedResult]:
    """Cox model after multiple imputation of its covariates; no imputed value leaves its site.

    Args:
        setting: contract, sites and disclosure rules.
        formula: the predictors, as in `cox`.
        time: as in `cox`; not imputed.
        event: as in `cox`; not imputed.
        event_level: as in `cox`.
        entry: as in `cox`; not imputed.
        grid: as in `cox`.
        ties: as in `cox`.
        strata: as in `cox`; imputed as categories, but for "site".
        covariance: as in `cox`.
        cluster: as in `cox`; not imputed.
        num_imputations: completed copies, 2 to 200.
        num_iterations: how often each variable is imputed in turn, 1 to 100.
        seed: of the coordinator's draws; the sites draw with generators of their own.
        auxiliary: further variables that help to impute those of the formula.
        categorical: as in `imputed`.
        method: as in `imputed`.
        num_donors: as in `imputed`.
        keeps_range: as in `imputed`.
        imputes_by_site: whether the imputation models have an intercept for each site.
        complete_cases: whether the model is also fitted to the complete records, for comparison.
        confidence: of the intervals.

    Raises:
        ConfigError: an option or the formula is wrong, before anything is asked.
        DataError: a time or an event is missing, or a variable is missing everywhere.
        ModelError: an imputation model or the model itself cannot be estimated.
    """
    predictors = formula.strip().removeprefix("~").strip()
    quoted = time if is_plain(time) else f"`{time}`"
    plan = plan_formula(f"{quoted} ~ {predictors}", setting.contract)
    named = tuple(name for name in strata if name != "site")
    roles = {time: "outcome", event: "outcome", **roles_of(plan, setting.contract, (event, *named, *auxiliary))}
    roles |= {event: "outcome", **dict.fromkeys(named, "predictor")}
    check_options(setting, num_imputations, num_iterations, seed, num_donors, imputes_by_site)
    model = cox(
        formula,
        time=time,
        event=event,
        event_level=event_level,
        entry=entry,
        grid=grid,
        ties=ties,
        strata=strata,
        covariance=covariance,
        cluster=cluster,
        proportionality_test=None,
        confidence=confidence,
    )
    options = Options(
        model=model,
        read=_fitted,
        confidence=confidence,
        plan=plan,
        roles=roles,
        codes=codes_of(plan, setting.contract, tuple(roles), (*categorical, *named)),
        hazard_of=time,
        hazard=_hazard(time, event, event_level, entry, grid),
        complete=(time, event, *(() if entry is None else (entry,))),
        num_imputations=num_imputations,
        num_iterations=num_iterations,
        seed=seed,
        num_donors=num_donors if method == "pmm" else 0,
        keeps_range=keeps_range,
        by_site=imputes_by_site,
        complete_cases=complete_cases,
    )
    return (yield from with_steady_sites(lambda: attempt(setting, options), len(setting.sites)))


def _hazard(
    time: str, event: str, event_level: str | None, entry: str | None, grid: float | None
) -> Callable[[Setting], Steps[ChainVariable]]:
    def found(setting: Setting) -> Steps[ChainVariable]:
        required = (time, event, *(() if entry is None else (entry,)))
        survival = yield from prepare_survival(
            setting,
            time=time,
            event=event,
            event_level=event_level,
            entry=entry,
            grid=grid,
            also_required=required,
        )
        outcome = survival.outcome
        if outcome.num_steps > MAX_POINTS:
            raise ConfigError(
                f"grid: the times have {outcome.num_steps} points, over {MAX_POINTS}; give a coarser grid"
            )
        frame = Frame(outcome=Numeric(expression=time if is_plain(time) else f"`{time}`"), required=required)
        counts = (yield from ask(leaving, frame, RiskFrame(outcome=outcome))).sum
        return cumulative_hazard(
            time, outcome.step, counts.num_events[0], counts.num_leaving[0], counts.num_entering[0]
        )

    return found


def cumulative_hazard(
    time: str, step: float, num_events: Values, num_leaving: Values, num_entering: Values
) -> ChainVariable:
    """Nelson and Aalen's estimate at each point of the grid, standardised over the records that leave there.

    Args:
        time: the variable.
        step: of the grid.
        num_events: records with the event by point, shape (num_steps,).
        num_leaving: records that leave there, likewise.
        num_entering: records that come under observation after it, likewise.
    """
    at_risk = np.cumsum((num_leaving - num_entering)[::-1])[::-1]
    hazard = np.cumsum(np.where(at_risk > 0, num_events / np.maximum(at_risk, 1), 0.0))
    share = num_leaving / max(num_leaving.sum(), 1)
    center = float(share @ hazard)
    scale = float(np.sqrt(share @ (hazard - center) ** 2))
    if not scale > 0:
        raise DataError(f"nobody had the event before others left: {time!r} tells nothing of the covariates")
    return ChainVariable(
        name=time, kind="hazard", center=(center,), scale=(scale,), hazard=tuple(hazard.tolist()), step=step
    )


def _fitted(fit: CoxResult) -> Fitted:
    num_terms = len(fit.terms)
    return Fitted(
        formula=fit.formula,
        family="cox",
        link="log",
        outcome=fit.event,
        names=tuple(term.term for term in fit.terms),
        estimates=np.array([term.estimate for term in fit.terms]),
        covariance=fit.covariance_matrix,
        low=np.array([term.low for term in fit.terms]),
        high=np.array([term.high for term in fit.terms]),
        df=float(fit.num_events - num_terms) if fit.num_events is not None else float("inf"),
        tests=tuple((test.name, test.df) for test in fit.tests),
    )


# A module's vocabulary is what it names: the workflow with the site functions that it asks for.
__all__ = ["imputed_cox", "leaving"]
