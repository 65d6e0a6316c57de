"""Meta-analysis of the sites' own fits, beside the exact fit of all records: what hospitals use, and what sums add.

Each site fits the model to its own records (`site_estimates.py`), the coordinator combines the estimates
(`meta_analysis_combine.py`). The federated fit needs no estimate of any site, and is the one that the pooled
records would give; a report can show both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.cox_result import HazardRatio
from wardround.analytics.cox_risk import Ties
from wardround.analytics.families import FamilyName, LinkName
from wardround.analytics.glm_result import Coefficient
from wardround.analytics.journal_text import listed, sentence
from wardround.analytics.linear import unpack_symmetric
from wardround.analytics.meta_analysis_combine import CombinedEstimate, TauMethod, combine, combine_vectors
from wardround.analytics.meta_analysis_models import Collected, CoxSites, GLMSites, SiteModel
from wardround.analytics.meta_analysis_result import MetaAnalysisResult, MetaCoefficient, SiteFit
from wardround.analytics.preparation import Prepared
from wardround.analytics.site_estimates import FITTED, STATUSES, SiteEstimates, cox_estimates, glm_estimates
from wardround.analytics.steady_sites import with_steady_sites
from wardround.data.contract import Setting
from wardround.errors import ConfigError, DisclosureError, ModelError
from wardround.sums import Steps, Total, workflow

Values = NDArray[np.float64]
_FEW_SITES = 5
# Below this many sites the variance between them is hardly known.


@workflow("meta_analysis", version=1)
def meta_analysis(
    setting: Setting,
    formula: str,
    model: Literal["glm", "cox"] = "glm",
    family: FamilyName = "gaussian",
    link: LinkName | None = None,
    offset: str | None = None,
    time: str | None = None,
    event: str | None = None,
    event_level: str | None = None,
    entry: str | None = None,
    grid: float | None = None,
    ties: Ties = "efron",
    strata: tuple[str, ...] = (),
    method: TauMethod = "REML",
    knapp_hartung: bool = False,
    compare: bool = True,
    site_intercepts: bool = True,
    confidence: float = 0.95,
) -> Steps[MetaAnalysisResult]:
    """Meta-analysis of every site's own fit of a model, each coefficient by fixed and by random effects.

    Needs the disclosure rule `allows_site_results`: what it combines is each site's alone.

    Args:
        setting: contract, sites and disclosure rules.
        formula: as `glm` or `cox` take it; its columns (levels, knots, means) are found over all sites together.
        model: what each site fits.
        family: distribution of a glm's outcome.
        link: None for the family's canonical link.
        offset: expression added to a glm's linear predictor.
        time: of a Cox model, as are `event`, `event_level`, `entry`, `grid`, `ties` and `strata`; see `cox`.
        event: variable that says how follow-up ended.
        event_level: its value that counts as the event.
        entry: variable that says after which time a record was under observation.
        grid: distance of two times that are told apart.
        ties: method for tied events.
        strata: variables whose combined levels have baseline hazards of their own, within each site.
        method: how the variance between sites is estimated: "DL", "REML", "ML", "PM" or "EB".
        knapp_hartung: whether the random-effects intervals are Knapp and Hartung's.
        compare: whether the model is fitted to the records of all sites together, too.
        site_intercepts: whether each site has an intercept (a Cox model: a baseline hazard) of its own in that fit, as
            it has in the meta-analysis.
        confidence: of the intervals.

    Raises:
        ConfigError: an option or the formula is wrong, or the rules allow no site's results; nothing was asked.
        DataError: the outcome does not fit the model, or nothing is left to compute on.
        ModelError: fewer than two sites could fit the model; says why.

    Guarantees:
        combines_the_sites_own_fits: estimates are what `combine` makes of the models that the sites would fit alone.
        unfitted_sites_are_named: a site whose own fit fails is left out, and the reason stands in the notes.
    """
    _check_setting(setting, confidence)
    survival = (time, event, event_level, entry, grid, strata)
    kind: SiteModel
    if model == "cox":
        if (family, link, offset) != ("gaussian", None, None):
            raise ConfigError("family, link, offset: are a glm's; leave them out with model = 'cox'")
        if time is None or event is None:
            raise ConfigError("time, event: name both variables with model = 'cox'")
        kind = CoxSites(
            formula=formula,
            time=time,
            event=event,
            event_level=event_level,
            entry=entry,
            grid=grid,
            ties=ties,
            strata=strata,
            confidence=confidence,
        )
    elif survival != (None, None, None, None, None, ()):
        raise ConfigError("time, event, event_level, entry, grid, strata: are a Cox model's; set model = 'cox'")
    else:
        kind = GLMSites.of(formula, family, link, offset, confidence)
    kind.check(setting)
    options = _Options(
        method=method,
        knapp_hartung=knapp_hartung,
        compare=compare,
        site_intercepts=site_intercepts,
        confidence=confidence,
    )
    return (yield from with_steady_sites(lambda: _attempt(setting, kind, options), len(setting.sites)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """What `meta_analysis` does with the sites' fits."""

    method: TauMethod
    knapp_hartung: bool
    compare: bool
    site_intercepts: bool
    confidence: float


def _check_setting(setting: Setting, confidence: float) -> None:
    if not setting.disclosure.allows_site_results:
        raise ConfigError(
            "a meta-analysis combines estimates that are each one site's alone, which the disclosure rule "
            "allows_site_results = false does not allow; fit the model to all records by its exact sums instead "
            "(glm, cox), or agree on allows_site_results = true"
        )
    if len(setting.sites) < 2:
        raise ConfigError(f"a meta-analysis needs two sites or more, the roster has {len(setting.sites)}")
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"confidence: must be in [0.5, 1), got {confidence}")


def _attempt(setting: Setting, kind: SiteModel, options: _Options) -> Steps[MetaAnalysisResult]:
    """Prepare the columns, collect the sites' fits, combine them, and fit all records, over one set of sites."""
    collected = yield from kind.collect(setting)
    fits = site_fits(setting, collected.total, collected.prepared)
    own = _raw_scale(setting, collected.total.sum, fits, collected.matrix)
    exact, remarks = (yield from _exact(setting, kind, options)) if options.compare else ({}, ())
    return _result(kind, options, collected, fits, own, exact, remarks)


def site_fits(setting: Setting, total: Total[SiteEstimates], prepared: Prepared) -> tuple[SiteFit, ...]:
    """How each site's fit went.

    Raises:
        ModelError: fewer than two sites have one.
    """
    sums, rules = total.sum, setting.disclosure
    fits = []
    for place, site in enumerate(setting.sites):
        if site not in total.sites:
            continue
        status = STATUSES[int(sums.status[place])]
        column = int(sums.column[place]) - 1
        is_told = int(sums.num_records[place]) > 0
        fits.append(
            SiteFit(
                site=site,
                is_fitted=status == FITTED,
                status=f"{status} ({prepared.design.columns[column].name})" if column >= 0 else status,
                num_records=rules.shown(int(sums.num_records[place])) if is_told else None,
                num_events=rules.shown(int(sums.num_events[place])) if is_told else None,
            )
        )
    if sum(fit.is_fitted for fit in fits) < 2:
        failed = "; ".join(_failures(tuple(fits)))
        raise ModelError(
            f"a meta-analysis needs two sites that can fit the model on their own ({failed}); use fewer or coarser "
            "predictors, or fit the model to all records by its exact sums (glm, cox)"
        )
    return tuple(fits)


def _failures(fits: tuple[SiteFit, ...]) -> list[str]:
    """The sites without a fit, by reason."""
    by_reason: dict[str, list[str]] = {}
    for fit in fits:
        if not fit.is_fitted:
            by_reason.setdefault(fit.status, []).append(fit.site)
    return [f"{listed(sites)} ({reason})" for reason, sites in by_reason.items()]


def _raw_scale(
    setting: Setting, sums: SiteEstimates, fits: tuple[SiteFit, ...], matrix: Values
) -> tuple[Values, Values]:
    """Fitted sites' coefficients of the raw columns, and their covariances."""
    slots = [setting.sites.index(fit.site) for fit in fits if fit.is_fitted]
    covariances = [matrix @ unpack_symmetric(sums.covariances[slot]) @ matrix.T for slot in slots]
    return sums.estimates[slots] @ matrix.T, np.array(covariances)


def _exact(
    setting: Setting, kind: SiteModel, options: _Options
) -> Steps[tuple[dict[str, CombinedEstimate], tuple[str, ...]]]:
    """The coefficients of the fit to all records, by name, and remarks on it."""
    failures: list[str] = []
    for has_own in (True, False) if options.site_intercepts else (False,):
        what = kind.site_parts if has_own else kind.common_part
        try:
            terms = yield from kind.exact(setting, has_own)
        except (ModelError, DisclosureError) as error:  # a site with fewer records than the floor has no column
            failures.append(f"the federated fit with {what} failed: {error}")
            continue
        # With an intercept for each site, the one that has no site's name is the first site's.
        found = {c.term: _as_estimate(c) for c in terms if c.term != "Intercept" or not has_own}
        return found, (*failures, f"the federated fit has {what}")
    return {}, tuple(failures)


def _as_estimate(c: Coefficient | HazardRatio) -> CombinedEstimate:
    return CombinedEstimate(
        estimate=c.estimate,
        standard_error=c.standard_error,
        statistic=c.statistic,
        p_value=c.p_value,
        low=c.low,
        high=c.high,
    )


def _result(
    kind: SiteModel,
    options: _Options,
    collected: Collected,
    fits: tuple[SiteFit, ...],
    own: tuple[Values, Values],
    exact: dict[str, CombinedEstimate],
    remarks: tuple[str, ...],
) -> MetaAnalysisResult:
    estimates, covariances = own
    labels = [fit.site for fit in fits if fit.is_fitted]
    together, spread = combine_vectors(estimates, covariances)
    coefficients = []
    for j, column in enumerate(collected.prepared.design.columns):
        combination = combine(
            estimates[:, j],
            np.sqrt(covariances[:, j, j]),
            labels,
            method=options.method,
            knapp_hartung=options.knapp_hartung,
            confidence=options.confidence,
        )
        coefficients.append(
            MetaCoefficient(
                term=column.name,
                combination=combination,
                together_estimate=float(together[j]),
                together_standard_error=float(np.sqrt(spread[j, j])),
                exact=exact.get(column.name),
            )
        )
    return MetaAnalysisResult(
        formula=kind.formula,
        model=kind.model_name,
        family=kind.family_name,
        link=kind.link_name,
        outcome=collected.outcome,
        sites=fits,
        coefficients=tuple(coefficients),
        method=options.method,
        knapp_hartung=options.knapp_hartung,
        confidence=options.confidence,
        notes=_notes(collected, fits, coefficients, remarks),
    )


def _notes(
    collected: Collected, fits: tuple[SiteFit, ...], coefficients: list[MetaCoefficient], remarks: tuple[str, ...]
) -> tuple[str, ...]:
    notes = list(collected.notes)
    notes += [f"left out of the meta-analysis: {text}" for text in _failures(fits)]
    if not all(fit.is_fitted for fit in fits) and any(c.exact for c in coefficients):
        notes.append("the federated fit is over the records of all sites, those that are left out among them")
    num_fitted = sum(fit.is_fitted for fit in fits)
    if num_fitted < _FEW_SITES:
        notes.append(
            f"with {num_fitted} sites the variance between sites is hardly known; see its interval, and the "
            "random-effects interval with knapp_hartung = true"
        )
    return tuple(sentence(note) for note in (*notes, *remarks))


# A module's vocabulary is what it names: the workflow with the site functions that it asks for.
__all__ = ["cox_estimates", "glm_estimates", "meta_analysis", "site_fits"]
