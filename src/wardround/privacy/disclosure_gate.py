"""The gate at the waist: what a site refuses to contribute, and which totals may not be handed on.

Every engine calls the same functions, at the same moments:

- `refuse_clear`, at the site before it looks at its data: allows_clear, allows_site_results, for a clear ask;
- `refuse_ask`, at the site before it computes: allows_site_results, minimum_rows_site, parameters_per_row,
  patient_dominance;
- `refuse_share`, at the site before it computes, when it was told how many records of all sites the sum is over (a
  sum itself): minimum_rows_total, site_dominance;
- `refuse_own_cells`, at the site before its answer is masked and sent: own_cells;
- `refuse_total` and `refuse_lone_site`, at the coordinator before a total is handed to the workflow:
  minimum_rows_total, allows_site_results.

What a site checks from its own records protects its patients against the coordinator, too, and holds whether or not
answers are masked: nothing of a refused answer leaves. `refuse_share` relies on the number of records that the
coordinator tells; a coordinator that lies about it is not stopped by it. What the coordinator checks protects
against those who see results, not against the coordinator.

A refusal names the rule and its floor, and not the number that is too small. That a site refuses tells, unavoidably,
that the number is below the floor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from wardround.errors import DisclosureError
from wardround.privacy.disclosure import DisclosureRules
from wardround.privacy.protection import SumProtection
from wardround.sums import Contribution
from wardround.sums.contribution import People

_REFUSAL = "disclosure rule "


class Disclosing(Protocol):
    """What the gate must know of a site function."""

    def num_parameters(self, arguments: Mapping[str, Any]) -> int:
        """Number of parameters of the model that an answer is about."""

    def is_per_site(self, arguments: Mapping[str, Any]) -> bool:
        """Whether the total tells what is one site's alone."""

    def num_rows(self, data: Any, arguments: Mapping[str, Any]) -> int | None:
        """Records that an answer is over."""


@dataclass(frozen=True, slots=True)
class LargestPatient:
    """How large a part of a site's records the patient with the most of them has; found once a site."""

    share: float | None

    @classmethod
    def of(cls, data: Any) -> LargestPatient:
        """From data with `patient_index` and `num_records`; unknown (None) without them, 0 of no records."""
        index = getattr(data, "patient_index", None)
        if index is None:
            return cls(None)
        return cls(float(np.bincount(index).max() / len(index)) if len(index) else 0.0)


def refuse_clear(rules: DisclosureRules, protection: SumProtection, *, site: str) -> None:
    """At a site that is asked for its contribution in clear, before anything is computed.

    Raises:
        DisclosureError: the study does not declare clear asks, or the rules keep a site's results in.

    Guarantees:
        clear_asks_are_agreed_on: no site answers one unless the study's `allows_clear` and the rule
            `allows_site_results` of the study and of the site all hold.
    """
    if not protection.allows_clear:
        raise DisclosureError(
            "allows_clear",
            "the ask is for this site's own contribution, unprotected; choose an analysis that needs sums alone, or "
            "agree on allows_clear = true under [privacy]",
            site=site,
        )
    if not rules.allows_site_results:
        raise DisclosureError(
            "allows_site_results",
            "a clear ask shows what is one site's alone; choose an analysis that needs sums alone, or agree on "
            "allows_site_results = true",
            site=site,
        )


def refuse_ask(
    rules: DisclosureRules,
    function: Disclosing,
    arguments: Mapping[str, Any],
    data: Any,
    largest_patient: LargestPatient,
    *,
    site: str,
) -> None:
    """At a site, before anything is computed. A site without records tells of nobody and is let through.

    Raises:
        DisclosureError: the site keeps out of this sum; names the rule.

    Guarantees:
        small_sites_stay_out: no site contributes to a sum over 1 to `minimum_rows_site - 1` of its records.
        wide_models_stay_out: no site contributes to a model of more than `parameters_per_row` parameters a record.
        one_sites_results_stay_in: no ask whose total is one site's alone is answered unless the rules allow it.
    """
    if not rules.allows_site_results and function.is_per_site(arguments):
        raise DisclosureError(
            "allows_site_results",
            "the ask is for what is one site's alone; leave per-site results out, or agree on "
            "allows_site_results = true",
            site=site,
        )
    needs_rows = needs_totals(rules) or rules.minimum_rows_site > 1 or rules.parameters_per_row < np.inf
    num_rows = function.num_rows(data, arguments) if needs_rows else 0
    if num_rows is None:
        raise DisclosureError(
            "minimum_rows_site", "the data do not tell how many records they hold (num_records)", site=site
        )
    if 0 < num_rows < rules.minimum_rows_site:
        raise DisclosureError(
            "minimum_rows_site",
            f"fewer than {rules.minimum_rows_site} records would be in this site's answer; widen the cohort, or "
            "carry on without the site (minimum_sites)",
            site=site,
        )
    num_parameters = function.num_parameters(arguments)
    if num_rows and num_parameters > rules.parameters_per_row * num_rows:
        raise DisclosureError(
            "parameters_per_row",
            f"{num_parameters} parameters are more than {rules.parameters_per_row:g} a record of this site; "
            "use a smaller model, or carry on without the site (minimum_sites)",
            site=site,
        )
    _refuse_patient(rules, largest_patient, site)


def _refuse_patient(rules: DisclosureRules, largest_patient: LargestPatient, site: str) -> None:
    if rules.patient_dominance >= 1:
        return
    if largest_patient.share is None:
        raise DisclosureError(
            "patient_dominance", "the data do not tell which records are of one patient (patient_index)", site=site
        )
    if largest_patient.share > rules.patient_dominance:
        raise DisclosureError(
            "patient_dominance",
            f"one patient has more than {rules.patient_dominance:.0%} of this site's records; choose fewer records a "
            "patient by the cohort, or carry on without the site (minimum_sites)",
            site=site,
        )


def needs_totals(rules: DisclosureRules) -> bool:
    """Whether a rule needs to know how many records of all sites a sum is over."""
    return rules.minimum_rows_total > 1 or rules.site_dominance < 1


def refuse_share(rules: DisclosureRules, num_rows: int, num_rows_total: int, *, site: str) -> None:
    """At a site that was told over how many records of all sites the sum will be.

    Raises:
        DisclosureError: the sum is over too few records, or over too many of this site's.

    Guarantees:
        no_site_dominates: no sum is over more than `site_dominance` of one site's records.
    """
    refuse_total(rules, num_rows_total, site=site)
    if num_rows > rules.site_dominance * num_rows_total:
        raise DisclosureError(
            "site_dominance",
            f"more than {rules.site_dominance:.0%} of the records in the sum would be of this site; carry on without "
            "the site (minimum_sites), or with more sites",
            site=site,
        )


def refuse_total(rules: DisclosureRules, num_rows_total: int, *, site: str | None = None) -> None:
    """At the coordinator, before a total is handed to the workflow.

    Raises:
        DisclosureError: the sum is over too few records.

    Guarantees:
        small_totals_are_not_handed_on: no workflow is given a sum over 1 to `minimum_rows_total - 1` records.
    """
    if 0 < num_rows_total < rules.minimum_rows_total:
        raise DisclosureError(
            "minimum_rows_total",
            f"the sum would be over fewer than {rules.minimum_rows_total} records of all sites; widen the cohort, "
            "or ask more sites",
            site=site,
        )


def refuse_lone_site(rules: DisclosureRules, num_sites: int, num_sites_asked: int) -> None:
    """At the coordinator: a sum over one site of several that were asked is that site's own result.

    A run that asks one site alone is let through: whoever runs it holds that site's records anyway.

    Raises:
        DisclosureError: only one site is in the sum.

    Guarantees:
        no_sum_is_over_one_of_several_sites: unless `allows_site_results`.
    """
    if num_sites == 1 and num_sites_asked > 1 and not rules.allows_site_results:
        raise DisclosureError(
            "allows_site_results",
            "only one site is left in the sum, which would be its own result; run again when more can be reached, "
            "or agree on allows_site_results = true",
        )


def refuse_own_cells(rules: DisclosureRules, contribution: Contribution, *, site: str) -> None:
    """At a site, before its answer is masked and sent.

    Raises:
        DisclosureError: a cell of this site's is small; names the field.

    Guarantees:
        own_small_cells_stay_in: where own_cells is "refuse", no contribution has a cell of people (`cells` of their
            declaration) from 1 to `minimum_cell - 1`.
    """
    if rules.own_cells == "allow":
        return
    for name, declaration in contribution.declarations.items():
        if not isinstance(declaration, People) or declaration.cells == "none":
            continue
        counts = np.asarray(getattr(contribution, name))
        if declaration.cells == "sums":
            counts = counts.sum(axis=-1)
        if ((counts > 0) & (counts < rules.minimum_cell)).any():
            raise DisclosureError(
                "own_cells",
                f"{type(contribution).__name__}.{name} would hold a count below {rules.minimum_cell} of this site "
                '(minimum_cell); join levels, widen the cohort, or agree on own_cells = "allow"',
                site=site,
            )


def is_refusal(reason: str) -> bool:
    """Whether a recorded failure of a site (`str(error)`) is a refusal by a disclosure rule."""
    return reason.startswith(_REFUSAL)
