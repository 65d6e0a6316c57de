"""How the sites differ, from sums: the outcome, the covariates, what is missing, and the outcome given covariates.

Differences of these kinds are called label shift, covariate shift, missingness shift and conditional shift. Each
variable is compared in bins that quantiles over all sites cut, or by its levels; each site measures its distance from
all of them together (`heterogeneity_sums.py`). What is one site's alone is asked only where the rules allow it.

References:
    Moreno-Torres, Raeder, Alaiz-Rodriguez, Chawla, Herrera (2012), A unifying view on dataset shift in
    classification, Pattern Recognition 45.
    Donner (1986), A review of inference procedures for the intraclass correlation coefficient, Int Stat Review 54.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.brackets import FIRST_EDGES, Counts
from wardround.analytics.expression import is_plain
from wardround.analytics.families import FAMILIES
from wardround.analytics.glm import in_own_units
from wardround.analytics.glm_fit import fit_model
from wardround.analytics.glm_sums import Model, first_terms
from wardround.analytics.grouping import levels_of, named_levels
from wardround.analytics.heterogeneity_result import (
    FEWEST_SITES,
    MAX_BINS,
    Conditional,
    Found,
    HeterogeneityResult,
    ItemName,
    ShiftKind,
    score_test,
    summarise,
)
from wardround.analytics.heterogeneity_sums import (
    Deviations,
    Histograms,
    Item,
    SiteHistograms,
    deviations,
    histograms,
    site_deviations,
    site_histograms,
    site_scores,
    summed,
)
from wardround.analytics.moments import moments
from wardround.analytics.preparation import Extras, prepare
from wardround.analytics.quantiles import check_sizes, in_chunks, magnitudes, refine
from wardround.analytics.steady_sites import with_steady_sites
from wardround.data.contract import Contract, Setting, Variable
from wardround.errors import ConfigError, DataError, DisclosureError
from wardround.sums import Steps, ask, workflow

Values = NDArray[np.float64]

EDGE_TOLERANCE = 1e-3
"""How precise the bins' edges are, as a part of the interquartile range: they need not be exact, only the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is compared, checked."""

    outcome: str | None
    variables: tuple[Variable, ...]
    levels: Mapping[str, tuple[str, ...]]
    adjusted_for: tuple[str, ...]
    by_site: bool
    num_bins: int
    correction: Literal["holm", "bh"]


@workflow("heterogeneity", version=1)
def heterogeneity(
    setting: Setting,
    outcome: str | None = None,
    variables: tuple[str, ...] | None = None,
    adjusted_for: tuple[str, ...] = (),
    categorical: tuple[str, ...] = (),
    by_site: bool | None = None,
    num_bins: int = 10,
    correction: Literal["holm", "bh"] = "holm",
) -> Steps[HeterogeneityResult]:
    """How the sites differ in the outcome, in the covariates and in what is missing, from sums.

    Args:
        setting: contract and sites.
        outcome: the variable to be predicted, whose difference between sites is called label shift.
        variables: covariates; None: all of the contract but text, the patient column and the outcome.
        adjusted_for: covariates given which the outcome is compared between sites (a score test of intercepts of the
            sites in a regression on them); a category outcome must have two levels.
        categorical: integers of short range (codes) to be compared by their values; those of two values always are.
        by_site: whether each site's own figures are in the result; None: where the disclosure rules allow it.
        num_bins: into how many bins of equal share numbers are cut, 2 to 50.
        correction: how p-values are corrected for their number: Holm's method (none is wrong, with 95%), or Benjamini
            and Hochberg's (few are).

    Raises:
        ConfigError: an unknown or unsuitable variable, an option out of range, or `by_site` where the rules forbid it.
        DataError: fewer than two sites have values.
        DisclosureError: sites' own figures are not allowed, and fewer than three sites are left.
        ModelError: the regression of the outcome cannot be fitted.

    Guarantees:
        both_modes_agree: sums over sites and sites' own figures give the same tests and distances, up to rounding.
    """
    contract, allowed = setting.contract, setting.disclosure.allows_site_results
    if by_site and not allowed:
        raise ConfigError(
            "by_site: each site's own figures are what the disclosure rule allows_site_results = false forbids; leave "
            "by_site out to compare the sites from sums alone"
        )
    if not allowed and len(setting.sites) < FEWEST_SITES:
        raise ConfigError(
            f"with fewer than {FEWEST_SITES} sites, how they differ tells each one's own figures, which the disclosure "
            "rule allows_site_results = false forbids; agree on allows_site_results = true, or ask more sites"
        )
    if not 2 <= num_bins <= MAX_BINS:
        raise ConfigError(f"num_bins: must be in [2, {MAX_BINS}], got {num_bins}")
    compared = _compared(contract, outcome, variables)
    levels = _levels(contract, compared, categorical)
    plan = _Plan(
        outcome=outcome,
        variables=compared,
        levels=levels,
        adjusted_for=_adjusting(contract, outcome, adjusted_for, levels),
        by_site=allowed if by_site is None else by_site,
        num_bins=num_bins,
        correction=correction,
    )
    return (yield from with_steady_sites(lambda: _attempt(setting, plan), len(setting.sites)))


def _compared(contract: Contract, outcome: str | None, names: tuple[str, ...] | None) -> tuple[Variable, ...]:
    first = () if outcome is None else (contract.variable(outcome, "outcome"),)
    if names is None:
        rest = tuple(v for v in contract.variables if v.type != "text" and v.name not in (contract.patient, outcome))
    else:
        rest = tuple(contract.variable(name, "variables") for name in dict.fromkeys(names) if name != outcome)
    for variable in (*first, *rest):
        if variable.type == "text":
            raise ConfigError(f"variables: {variable.name!r} is text, which is not analysed; leave it out")
    if not first and not rest:
        raise ConfigError("variables: there is nothing to compare; name one that is not text")
    return (*first, *rest)


def _levels(
    contract: Contract, compared: tuple[Variable, ...], categorical: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    for name in categorical:
        if name not in [variable.name for variable in compared]:
            raise ConfigError(f"categorical: {name!r} is not among the variables compared; add it or leave it out")
    levels = {}
    for variable in compared:
        is_code = not variable.is_numeric or variable.name in categorical
        if is_code or len(levels_of(variable) or ()) == 2:
            levels[variable.name] = named_levels(contract, variable.name, "categorical")
    return levels


def _adjusting(
    contract: Contract, outcome: str | None, names: tuple[str, ...], levels: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    if names and outcome is None:
        raise ConfigError("adjusted_for: name the outcome that is to be compared given these")
    for name in names:
        if contract.variable(name, "adjusted_for").type == "text" or name == outcome:
            raise ConfigError(f"adjusted_for: {name!r} is text or the outcome itself; leave it out")
    if names and outcome in levels and len(levels[str(outcome)]) != 2:
        raise ConfigError(f"adjusted_for: the outcome {outcome!r} has {len(levels[str(outcome)])} levels, not two")
    return tuple(dict.fromkeys(names))


def _attempt(setting: Setting, plan: _Plan) -> Steps[HeterogeneityResult]:
    items, names = yield from _items(setting, plan)
    pooled = yield from ask(histograms, items)
    if pooled.sum.num_records == 0:
        raise DataError("no site has any record")
    items, names, kept = _varying(items, names, pooled.sum)
    if not items:
        raise DataError("every variable is the same in all records of all sites; there is nothing to compare")
    counts = pooled.sum.num_in_bin[kept]
    references = _references(items, counts, pooled.sum.sums[kept])
    slots: SiteHistograms | None = None
    if plan.by_site:
        slots = (yield from ask(site_histograms, items, setting.sites)).sum
        total = _by_slot(items, slots, references)
    else:
        _refuse_few_sites(setting, pooled.sites)
        total = (yield from ask(site_deviations, items, *references)).sum
    if total.num_sites.max() < 2:
        raise DataError("fewer than two sites have values; there is nothing to compare")
    conditional = yield from _conditional(setting, plan)
    found = Found(
        outcome=plan.outcome,
        items=items,
        names=names,
        counts=counts,
        num_records=pooled.sum.num_records,
        has_repeats=pooled.sum.num_patients < pooled.sum.num_records,
        total=total,
        slots=slots,
        references=references,
        conditional=conditional,
        num_bins=plan.num_bins,
        correction=plan.correction,
    )
    return summarise(setting, found, pooled.sites)


def _refuse_few_sites(setting: Setting, answered: tuple[str, ...]) -> None:
    if len(answered) < FEWEST_SITES and not setting.disclosure.allows_site_results:
        raise DisclosureError(
            "allows_site_results",
            f"only {len(answered)} sites are left, whose differences tell each one's own figures; run again when all "
            "are reachable",
        )


def _items(setting: Setting, plan: _Plan) -> Steps[tuple[tuple[Item, ...], tuple[ItemName, ...]]]:
    """What is compared, with the bins of numbers; and whether each variable is missing."""
    numbers = tuple(v.name for v in plan.variables if v.name not in plan.levels)
    cut: dict[str, Item | None] = {}
    for part in in_chunks(numbers, 0):
        cut |= yield from _cut(setting, part, plan.num_bins)
    items: list[Item] = []
    names: list[ItemName] = []
    for variable in plan.variables:
        levels = plan.levels.get(variable.name, ())
        kind: ShiftKind = "label" if variable.name == plan.outcome else "covariate"
        values = Item(variable=variable.name, kind="category", num_levels=len(levels)) if levels else cut[variable.name]
        if values is not None:
            items.append(values)
            names.append(ItemName(variable=variable.name, kind=kind, unit=variable.unit, levels=levels))
        items.append(Item(variable=variable.name, kind="missing"))
        names.append(ItemName(variable=variable.name, kind="missing", unit=None, levels=("present", "missing")))
    return tuple(items), tuple(names)


def _cut(setting: Setting, numbers: tuple[str, ...], num_bins: int) -> Steps[dict[str, Item | None]]:
    """Bins of equal share for numbers, with their mean and spread over all sites; None where they do not vary."""
    first = yield from ask(magnitudes, numbers, None, 1)
    check_sizes(numbers, first.sum)
    count = first.sum.num_values.sum(axis=2)
    floor = max(setting.disclosure.minimum_cell, 2)
    if (count < floor).any():  # compare the others: means and quantiles of so few would tell of them
        enough = tuple(name for name, num in zip(numbers, count[:, 0], strict=True) if num >= floor)
        cut = (yield from _cut(setting, enough, num_bins)) if enough else {}
        return {**dict.fromkeys(numbers), **cut}
    probabilities = tuple(float(p) for p in np.arange(1, num_bins) / num_bins)
    quantiles = yield from refine(numbers, first.sum, probabilities, floor=floor, tolerance=EDGE_TOLERANCE)
    bounds = np.maximum(np.abs(FIRST_EDGES[:-1]), np.abs(FIRST_EDGES[1:]))
    largest = np.where(first.sum.num_values.any(axis=1), bounds, 0.0).max(axis=1)
    scales = np.where(largest >= np.ldexp(1.0, -64), largest, 1.0)
    spread = yield from moments(numbers, count, scales, None, 1)
    cut = {}
    for row, name in enumerate(numbers):
        deviation = float(np.sqrt(spread.square_sum[row, 0] / max(int(count[row, 0]), 1)))
        edges = sorted({q.value for q in quantiles[row][0] if q.value is not None})
        if deviation > 0 and edges:
            center = float(spread.mean[row, 0])
            cut[name] = Item(variable=name, kind="number", edges=tuple(edges), center=center, scale=deviation)
        else:
            cut[name] = None
    return cut


def _varying(
    items: tuple[Item, ...], names: tuple[ItemName, ...], pooled: Histograms
) -> tuple[tuple[Item, ...], tuple[ItemName, ...], NDArray[np.intp]]:
    """The items of which more than one bin holds a record, and where their bins are."""
    bounds = np.cumsum([0, *(item.num_bins for item in items)])
    varies = [bool((pooled.num_in_bin[a:b] > 0).sum() > 1) for a, b in pairwise(bounds)]
    kept = np.concatenate(
        [np.arange(bounds[i], bounds[i + 1]) for i, varied in enumerate(varies) if varied] or [np.zeros(0, np.intp)]
    )
    chosen = [i for i, varied in enumerate(varies) if varied]
    return tuple(items[i] for i in chosen), tuple(names[i] for i in chosen), kept.astype(np.intp)


def _references(items: tuple[Item, ...], counts: Counts, sums: Values) -> tuple[Values, Values, Values]:
    """Shares, means and middle ranks by bin, over all sites."""
    bounds = np.cumsum([item.num_bins for item in items])[:-1]
    shares, places, ranks = [], [], []
    for in_bin, total in zip(np.split(counts, bounds), np.split(sums, bounds), strict=True):
        num = in_bin.sum()
        shares.append(in_bin / num)
        means = total / np.maximum(in_bin, 1)
        # An empty bin lies where the one before it does: nothing is moved there.
        filled = np.maximum.accumulate(np.where(in_bin > 0, np.arange(len(in_bin)), 0))
        places.append(means[filled])
        ranks.append((np.cumsum(in_bin) - in_bin / 2) / num - 0.5)
    return np.concatenate(shares), np.concatenate(places), np.concatenate(ranks)


def _by_slot(items: tuple[Item, ...], slots: SiteHistograms, references: tuple[Values, Values, Values]) -> Deviations:
    """The sums over sites, from the sites' own slots."""
    bounds = np.cumsum([item.num_bins for item in items])[:-1]
    parts = [np.split(array, bounds) for array in references]
    total: Deviations | None = None
    for slot in range(len(slots.num_records)):
        counts = np.split(slots.num_in_bin[slot], bounds)
        found = [
            deviations(item, counts[i], float(slots.mean[slot, i]), float(slots.square_sum[slot, i]), *of_item)
            for i, (item, *of_item) in enumerate(zip(items, *parts, strict=True))
        ]
        total = summed(found) if total is None else total + summed(found)
    assert total is not None  # a roster is never empty
    return total


def _conditional(setting: Setting, plan: _Plan) -> Steps[Conditional | None]:
    """Score test of intercepts of the sites in the outcome's regression on covariates."""
    if not plan.adjusted_for or plan.outcome is None:
        return None
    family: Literal["binomial", "gaussian"] = "binomial" if plan.outcome in plan.levels else "gaussian"
    model = Model(family=family, link=FAMILIES[family].links[0])
    prepared = yield from prepare(setting, _formula(plan), Extras())
    prepared, _ = in_own_units(prepared, model)
    first = yield from ask(first_terms, prepared.design, prepared.frame, model, prepared.outcome_mean)
    fit = yield from fit_model(prepared, model, np.zeros(prepared.design.num_columns), first.sum)
    scores = yield from ask(site_scores, prepared.design, prepared.frame, model, fit.coefficients)
    return score_test(plan.adjusted_for, prepared, model, fit, scores.sum)


def _formula(plan: _Plan) -> str:
    def name(variable: str) -> str:
        quoted = variable if is_plain(variable) else f"`{variable}`"
        is_code = variable in plan.levels and any(v.name == variable and v.is_numeric for v in plan.variables)
        return f"C({quoted})" if is_code and variable != plan.outcome else quoted

    return f"{name(str(plan.outcome))} ~ {' + '.join(map(name, plan.adjusted_for))}"


# A module's vocabulary is what it names: the workflow with the site functions that it asks for.
__all__ = ["heterogeneity", "histograms", "site_deviations", "site_histograms", "site_scores"]
