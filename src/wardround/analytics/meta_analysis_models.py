"""The models that a meta-analysis knows: how each is prepared, collected from the sites, and fitted to all records."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.cox import cox
from wardround.analytics.cox_result import HazardRatio
from wardround.analytics.cox_risk import MAX_PLACES, RiskFrame, Ties
from wardround.analytics.families import FAMILIES, FamilyName, LinkName
from wardround.analytics.formula import plan_formula
from wardround.analytics.glm import glm, in_own_units
from wardround.analytics.glm_result import Coefficient, unstandardise
from wardround.analytics.glm_sums import Model
from wardround.analytics.grouping import named_levels
from wardround.analytics.preparation import Extras, Prepared, formula_variables, prepare
from wardround.analytics.site_estimates import SiteEstimates, cox_estimates, glm_estimates
from wardround.analytics.survival_time import prepare_survival
from wardround.data.contract import Setting
from wardround.errors import ConfigError, ModelError
from wardround.sums import Steps, Total, ask

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """The sites' estimates as they came.

    Attributes:
        prepared: the columns, the same at all sites.
        total: a slot a site.
        matrix: turns coefficients of the standardised columns into those of raw ones, shape (p, p).
        outcome: what is modelled, in words.
        notes: what the reader should know of the preparation.
    """

    prepared: Prepared
    total: Total[SiteEstimates]
    matrix: Values
    outcome: str
    notes: tuple[str, ...]


class SiteModel(Protocol):
    """A model that each site fits, and all of them together."""

    @property
    def formula(self) -> str:
        """As given."""

    @property
    def model_name(self) -> str:
        """Of the workflow."""

    @property
    def family_name(self) -> str:
        """Of the outcome's distribution."""

    @property
    def link_name(self) -> str:
        """Of the link; "hazard" for a survival model."""

    @property
    def site_parts(self) -> str:
        """What each site has of its own in the exact fit, in words."""

    @property
    def common_part(self) -> str:
        """What the sites share there otherwise."""

    def check(self, setting: Setting) -> None:
        """Raise `ConfigError` where an option or the formula is wrong."""

    def collect(self, setting: Setting) -> Steps[Collected]:
        """Prepare the columns, and ask every site for its own fit."""

    def exact(self, setting: Setting, has_own: bool) -> Steps[tuple[Coefficient | HazardRatio, ...]]:
        """Coefficients of the fit to all records; `has_own`: with a part for each site."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GLMSites:
    """A generalised linear model."""

    formula: str
    model: Model
    offset: str | None
    confidence: float
    model_name: str = "glm"
    site_parts: str = "an intercept for each site"
    common_part: str = "one intercept for all sites"

    @classmethod
    def of(
        cls, formula: str, family: FamilyName, link: LinkName | None, offset: str | None, confidence: float
    ) -> GLMSites:
        """With the family's canonical link where none is given. Raises `ConfigError` for one it does not have."""
        allowed = FAMILIES[family].links
        if link is not None and link not in allowed:
            raise ConfigError(f"link: a {family} model has the links {', '.join(allowed)}, got {link!r}")
        model = Model(family=family, link=link or allowed[0])
        return cls(formula=formula, model=model, offset=offset, confidence=confidence)

    @property
    def family_name(self) -> str:
        """Of the outcome's distribution."""
        return self.model.family

    @property
    def link_name(self) -> str:
        """Of the link."""
        return self.model.link

    def check(self, setting: Setting) -> None:
        """Raise `ConfigError` where the formula is wrong."""
        plan_formula(self.formula, setting.contract)

    def collect(self, setting: Setting) -> Steps[Collected]:
        """Prepare the columns, and ask every site for its own fit."""
        prepared = yield from prepare(setting, self.formula, Extras(offset=self.offset))
        own, units = in_own_units(prepared, self.model)
        floor = setting.disclosure.minimum_cell
        total = yield from ask(glm_estimates, setting.sites, own.design, own.frame, self.model, floor)
        return Collected(
            prepared=own,
            total=total,
            matrix=unstandardise(own) / units.predictor,
            outcome=prepared.outcome_name,
            notes=prepared.notes,
        )

    def exact(self, setting: Setting, has_own: bool) -> Steps[tuple[Coefficient | HazardRatio, ...]]:
        """Coefficients of the fit to all records."""
        fit = glm(
            formula=self.formula,
            family=self.model.family,
            link=self.model.link,
            offset=self.offset,
            site_intercepts=has_own,
            aliased="drop",
            confidence=self.confidence,
        )
        return (yield from fit.steps(setting)).terms


@dataclass(frozen=True, slots=True, kw_only=True)
class CoxSites:
    """A Cox model; each site has risk sets of its own."""

    formula: str
    time: str
    event: str
    event_level: str | None
    entry: str | None
    grid: float | None
    ties: Ties
    strata: tuple[str, ...]
    confidence: float
    model_name: str = "cox"
    family_name: str = "cox"
    link_name: str = "hazard"
    site_parts: str = "a baseline hazard for each site"
    common_part: str = "one baseline hazard for all sites"

    @property
    def _whole_formula(self) -> str:
        return f"`{self.time}` ~ {self.formula.strip().removeprefix('~').strip()}"

    def check(self, setting: Setting) -> None:
        """Raise `ConfigError` where an option or the formula is wrong."""
        setting.contract.variable(self.time, "time")
        setting.contract.variable(self.event, "event")
        if "site" in self.strata:
            raise ConfigError("strata: leave 'site' out; in a meta-analysis each site has a baseline hazard anyway")
        for name in self.strata:
            named_levels(setting.contract, name, "strata")
        plan = plan_formula(self._whole_formula, setting.contract)
        if not plan.has_intercept or len(plan.terms) == 1:
            raise ConfigError(
                "formula: name the predictors of the Cox model, such as 'age + sex', without '0' or '- 1'"
            )

    def collect(self, setting: Setting) -> Steps[Collected]:
        """Prepare the grid and the columns, and ask every site for its own fit."""
        plan = plan_formula(self._whole_formula, setting.contract)
        also = tuple(name for name in (self.event, self.entry, *self.strata) if name is not None)
        survival = yield from prepare_survival(
            setting,
            time=self.time,
            event=self.event,
            event_level=self.event_level,
            entry=self.entry,
            grid=self.grid,
            also_required=tuple(dict.fromkeys((*formula_variables(plan), *also))),
        )
        sizes = tuple(len(named_levels(setting.contract, name, "strata")) for name in self.strata)
        if int(np.prod([*sizes, survival.outcome.num_steps], dtype=object)) > MAX_PLACES:
            raise ConfigError("strata: on so fine a grid they are too many; name fewer strata, or give a coarser grid")
        risk = RiskFrame(outcome=survival.outcome, strata=self.strata, num_levels=sizes)
        prepared = _without_intercept((yield from prepare(setting, self._whole_formula, Extras(also_required=also))))
        floor = setting.disclosure.minimum_cell
        total = yield from ask(cox_estimates, setting.sites, prepared.design, prepared.frame, risk, self.ties, floor)
        return Collected(
            prepared=prepared,
            total=total,
            matrix=unstandardise(prepared),
            outcome=f"{survival.outcome.event} = {' or '.join(survival.outcome.events)}",
            notes=(*survival.notes, *prepared.notes),
        )

    def exact(self, setting: Setting, has_own: bool) -> Steps[tuple[Coefficient | HazardRatio, ...]]:
        """Coefficients of the fit to all records."""
        fit = cox(
            formula=self.formula,
            time=self.time,
            event=self.event,
            event_level=self.event_level,
            entry=self.entry,
            grid=self.grid,
            ties=self.ties,
            strata=(*self.strata, "site") if has_own else self.strata,
            aliased="drop",
            proportionality_test=None,
            confidence=self.confidence,
        )
        return (yield from fit.steps(setting)).terms


def _without_intercept(prepared: Prepared) -> Prepared:
    """The design without the constant, which the baseline hazards take up."""
    kept = [j for j, column in enumerate(prepared.design.columns) if column.features]
    if not kept:
        raise ModelError("no predictor has more than one level in the complete records; leave such variables out")
    return replace(prepared.with_columns(kept), terms=())
