"""The disclosure gate of every simulated site: who keeps out of an ask, and by which rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from wardround.errors import DisclosureError
from wardround.privacy.disclosure import DisclosureRules, rules_of
from wardround.privacy.disclosure_gate import (
    LargestPatient,
    needs_totals,
    refuse_ask,
    refuse_lone_site,
    refuse_own_cells,
    refuse_share,
    refuse_total,
)
from wardround.sums import Ask, Contribution


class SiteGates:
    """Every site's rules with what they need to know of its data.

    Args:
        data: by site.
        study: the study's rules.
        own: by site that has some, its own rules; they tighten the study's.

    Raises:
        ValueError: rules of an unknown site, or a preset that there is not.

    Guarantees:
        a_site_can_only_tighten: each site keeps to the study's rules, whatever its own are.
    """

    def __init__(
        self, data: Mapping[str, Any], study: DisclosureRules, own: Mapping[str, DisclosureRules | str]
    ) -> None:
        unknown = sorted(set(own) - set(data))
        if unknown:
            raise ValueError(f"site_disclosure names unknown sites: {', '.join(unknown)}")
        self._data = data
        self._study = study
        self.rules = MappingProxyType(
            {site: study.tightened_by(rules_of(own[site])) if site in own else study for site in data}
        )
        self._patients = {
            site: LargestPatient.of(data[site]) for site, rules in self.rules.items() if rules.patient_dominance < 1
        }

    @property
    def effective(self) -> DisclosureRules:
        """The study's rules and all sites' together, rule by rule the strictest: what a result must keep to."""
        rules = self._study
        for site_rules in self.rules.values():
            rules = rules if site_rules is self._study else rules.tightened_by(site_rules)
        return rules

    def check_ask(self, ask: Ask[Any], site: str) -> None:
        """Raises `DisclosureError` where the site keeps out of this ask."""
        patient = self._patients.get(site, LargestPatient(None))
        refuse_ask(self.rules[site], ask.function, ask.arguments, self._data[site], patient, site=site)

    def refused_shares(self, ask: Ask[Any], sites: Sequence[str]) -> dict[str, DisclosureError]:
        """Of the sites that would be in a sum, those that keep out for its size, or for their share of it.

        With each that keeps out the others' shares grow, so they are looked at again.
        """
        if not any(needs_totals(rules) for rules in self.rules.values()):
            return {}
        num_rows = {site: ask.function.num_rows(self._data[site], ask.arguments) or 0 for site in sites}
        refused: dict[str, DisclosureError] = {}
        while True:
            left = [site for site in sites if site not in refused]
            total = sum(num_rows[site] for site in left)
            found = {site: error for site in left if (error := self._refused_share(site, num_rows[site], total))}
            if not found:
                return refused
            refused |= found

    def _refused_share(self, site: str, num_rows: int, num_rows_total: int) -> DisclosureError | None:
        try:
            refuse_share(self.rules[site], num_rows, num_rows_total, site=site)
        except DisclosureError as error:
            return without_frames(error)
        return None

    def check_answer(self, contribution: object, site: str) -> None:
        """Raises `DisclosureError` where the site keeps its answer back."""
        if isinstance(contribution, Contribution):  # what is none is refused for that
            refuse_own_cells(self.rules[site], contribution, site=site)

    def check_total(self, ask: Ask[Any], sites: Sequence[str]) -> None:
        """Raises `DisclosureError` where the sum over these sites may not be handed to the workflow."""
        refuse_lone_site(self._study, len(sites), len(self._data))
        if self._study.minimum_rows_total > 1:
            num_rows = sum(ask.function.num_rows(self._data[site], ask.arguments) or 0 for site in sites)
            refuse_total(self._study, num_rows)


def without_frames(error: DisclosureError) -> DisclosureError:
    """The same error without the frames of the site, which hold its data."""
    return DisclosureError(error.rule, error.reason, site=error.site)
