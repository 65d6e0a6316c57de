"""How the sums of a study are protected: in figures for machines, in words for those who approve it or read of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from typing_extensions import TypedDict

from wardround.privacy.protection import LEAST_BUCKET, PLAIN, SumProtection, bucket_sizes
from wardround.privacy.secagg.cost import PLAIN_LEGS, STRICT_LEGS, TWO_LEGS
from wardround.privacy.secagg.terms import Terms, bucket_terms, terms_for


class SumForm(TypedDict):
    """The terms of one secure sum, and what follows from them.

    Attributes:
        sites: that it is over.
        mode: whether they agree on who is in a sum before they release anything.
        threshold: shares that give a seed back.
        minimum_survivors: fewest sites of a total.
        allows_repeats: whether the same may be asked again over other sites.
        may_drop: sites that may be missing from a total.
        tolerated_colluders: most sites that may collude with a coordinator that keeps to the rules.
        honest_in_a_total: fewest sites besides the planned colluding ones whose sum the coordinator can get, by a lie.
        isolated: that number where a lie helps; 0 where it does not.
    """

    sites: int
    mode: Literal["strict", "two_leg"]
    threshold: int
    minimum_survivors: int
    allows_repeats: bool
    may_drop: int
    tolerated_colluders: int
    honest_in_a_total: int
    isolated: int


class PrivacyForm(TypedDict):
    """How sums were protected.

    Attributes:
        secure_sums: whether the coordinator saw sums alone, rather than each site's contribution.
        colluding_sites: sites that may collude with the coordinator, as planned.
        allows_clear: whether an analysis may ask for every site's own contribution.
        bucket_sizes: sites of each bucket, where bounded numbers were summed in buckets; else none.
        legs: how often a round goes to and fro between a site and the coordinator.
        sum: the terms of a sum over all sites; null where sums are in clear.
        buckets: the terms of the sum of each bucket; none where there are no buckets, or sums are in clear.
    """

    secure_sums: bool
    colluding_sites: int
    allows_clear: bool
    bucket_sizes: list[int]
    legs: int
    sum: SumForm | None
    buckets: list[SumForm]


@dataclass(frozen=True, slots=True)
class Said:
    """A question that people ask about the sums, and the answer."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SumsInWords:
    """How sums are protected over so many sites.

    Attributes:
        protection: what the study says.
        num_sites: of the roster.
        terms: of a secure sum over all sites; None where sums are in clear.
        sizes: sites of each bucket; none without buckets.
        buckets: the terms of the secure sum of each bucket.
        noun: what a site is called.
    """

    protection: SumProtection
    num_sites: int
    terms: Terms | None = None
    sizes: tuple[int, ...] = ()
    buckets: tuple[Terms, ...] = ()
    noun: str = "site"

    @classmethod
    def of(
        cls, protection: SumProtection, num_sites: int, minimum_sites: int | None, *, noun: str = "site"
    ) -> SumsInWords:
        """For a study with this quorum.

        Raises:
            ConfigError: sums cannot be protected so; says what to do.
        """
        is_secure, size = protection.secure_sums, protection.bucket_size
        return cls(
            protection=protection,
            num_sites=num_sites,
            terms=terms_for(protection, num_sites, minimum_sites) if is_secure else None,
            sizes=() if size is None else bucket_sizes(num_sites, size),
            buckets=bucket_terms(protection, num_sites, minimum_sites) if is_secure else (),
            noun=noun,
        )

    @property
    def legs(self) -> int:
        """How often a round goes to and fro between a site and the coordinator."""
        if self.terms is None:
            return PLAIN_LEGS
        return STRICT_LEGS if self.terms.is_strict else TWO_LEGS

    def to_dict(self) -> PrivacyForm:
        """The figures as JSON values."""
        return {
            "secure_sums": self.terms is not None,
            "colluding_sites": self.protection.colluding_sites,
            "allows_clear": self.protection.allows_clear,
            "bucket_sizes": list(self.sizes),
            "legs": self.legs,
            "sum": None if self.terms is None else _form(self.terms),
            "buckets": [_form(one) for one in self.buckets],
        }

    def line(self) -> str:
        """One line."""
        if self.terms is None:
            return f"Sums in clear: the coordinator sees what each {self.noun} contributes."
        fewest = self.terms.minimum_survivors
        over = f"at least {self.count(fewest)}" if self.terms.num_may_drop else f"all {self.count(fewest)}"
        groups = f" (and of model updates the sums of {len(self.sizes)} groups)" if self.sizes else ""
        return f"Secure sums: the coordinator sees sums over {over}{groups}, never what one {self.noun} contributes."

    def count(self, number: int) -> str:
        """A number of sites."""
        return f"{number} {self.noun}{'s' * (number != 1)}"

    def said(self) -> tuple[Said, ...]:
        """Questions and answers."""
        said: tuple[Said, ...]
        if self.terms is None:
            said = (self._seen_in_clear(),)
        else:
            weakest = min((self.terms, *self.buckets), key=lambda terms: terms.tolerated_colluders)
            most_exposed = min((self.terms, *self.buckets), key=lambda terms: terms.num_honest_in_a_total)
            said = (
                self._seen(),
                self._dropping(self.terms),
                self._colluding(weakest),
                self._lying(most_exposed),
            )
        grouped = (self._grouped(),) if self.sizes else ()
        return (*said, *grouped, self._not_protected())

    def _seen_in_clear(self) -> Said:
        return Said(
            "What does the coordinator see?",
            f"What each {self.noun} contributes to every sum: counts and sums over that {self.noun}'s own records, not "
            "the records themselves. The study chose this (secure_sums = false).",
        )

    def _seen(self) -> Said:
        return Said(
            "What does the coordinator see?",
            f"Each {self.noun} hides what it contributes under random numbers, which cancel out in the sum and nowhere "
            f"else. The coordinator, which runs the study and adds up, sees the sum, which {self.noun}s are in it, how "
            f"much each sent and when. It does not see what any one {self.noun} contributed, nor does another "
            f"{self.noun}.",
        )

    def _dropping(self, terms: Terms) -> Said:
        if terms.num_may_drop:
            lost = (
                f"Before it has sent its answer, {_up_to(terms.num_may_drop)} of {self.count(terms.num_sites)} may be "
                f"missing: every sum is over at least {terms.minimum_survivors}."
            )
        else:
            lost = (
                f"Before it has sent its answer, there is no sum without it: all {self.count(self.num_sites)} must be "
                "in it."
            )
        after = (
            f"After that it is still in the sum, as long as {self.count(terms.threshold)} are left to take the random "
            "numbers off."
        )
        return Said(f"What if a {self.noun} drops out?", f"{lost} {after}{self._repeating(terms)}")

    def _repeating(self, terms: Terms) -> str:
        if not terms.num_may_drop:
            return ""
        if terms.allows_repeats:
            return (
                f" The analysis may then ask the others the same again (allows_repeats = true): whoever subtracts the "
                f"sum without the {self.noun} from the one with it has what it contributed."
            )
        return (
            f" No {self.noun} answers the same question again over others than before, as the difference of the sums "
            "would be what one contributed: an analysis that has to do so stops."
        )

    def _colluding(self, terms: Terms) -> Said:
        tolerated, planned = terms.tolerated_colluders, self.protection.colluding_sites
        honest = "" if terms.is_strict or not terms.num_may_drop else ", as long as the coordinator keeps to the rules"
        if tolerated:
            head = (
                f"The coordinator and {_up_to(tolerated)} {self.noun}{'s' * (tolerated != 1)}, putting together all "
                f"that they know, learn the sum over the others and nothing more about any one of them{honest}."
            )
        else:
            head = f"The coordinator alone learns nothing about any one {self.noun}; no {self.noun} may help it."
        plan = f" The study was planned for {planned}." if planned else ""
        beyond = (
            f" With more the promise ends; {self.count(terms.threshold)} and the coordinator could open what each "
            f"sent. {self.noun.capitalize()}s without the coordinator learn what the questions and the results tell."
        )
        return Said("Who could learn more by working together?", head + plan + beyond)

    def _lying(self, terms: Terms) -> Said:
        questions = (
            f"A {self.noun} that is asked another question than the others contributes noise, from which nothing is "
            "learnt."
        )
        if terms.is_strict:
            who = (
                f"About who is in a sum it cannot lie: the {self.noun}s sign who is in it, and release nothing unless "
                f"{terms.threshold} of them signed the same."
            )
        elif not terms.num_may_drop:
            who = f"About who is in a sum it cannot lie, as all {terms.num_sites} must be."
        else:
            who = self._isolating(terms)
        return Said("What if the coordinator lies?", f"{questions} {who}")

    def _isolating(self, terms: Terms) -> str:
        smallest, helpers = terms.num_isolated(), terms.colluding_sites
        helped = f", helped by {self.count(helpers)}," if helpers else ""
        found = f"the sum over as few as {self.count(smallest)}"
        if smallest == 1:
            found = f"what a single {self.noun} contributed"
        return (
            f"With two legs the {self.noun}s do not compare who is in a sum: a coordinator that tells them of "
            f'different dropouts{helped} could get {found}. mode = "strict" prevents that.'
        )

    def _grouped(self) -> Said:
        sizes = " and ".join(f"{count} with {size}" for size, count in sorted(Counter(self.sizes).items()))
        least = min((one.minimum_survivors for one in self.buckets), default=LEAST_BUCKET)
        return Said(
            "Are there smaller sums?",
            f"Model updates are summed in {len(self.sizes)} fixed groups of {self.noun}s ({sizes}), and the median "
            f"over the groups is taken, so that one bad {self.noun} cannot move it far. The coordinator sees the sum "
            f"of each group, over at least {self.count(least)}.",
        )

    def _not_protected(self) -> Said:
        return Said(
            "What is not protected?",
            f"A sum tells what it tells: over few patients, or of a kind that singles a {self.noun} out, it may tell "
            f"of them; the disclosure rules limit that. If nearly the same question is asked twice, and a {self.noun} "
            "is in one sum only, the difference is nearly its part. No noise is added to the sums: this is not "
            f"differential privacy. And nobody can see whether what a {self.noun} contributes is true.",
        )


def _up_to(number: int) -> str:
    return "one" if number == 1 else f"up to {number}"


def _form(terms: Terms) -> SumForm:
    return {
        "sites": terms.num_sites,
        "mode": "strict" if terms.is_strict else "two_leg",
        "threshold": terms.threshold,
        "minimum_survivors": terms.minimum_survivors,
        "allows_repeats": terms.allows_repeats,
        "may_drop": terms.num_may_drop,
        "tolerated_colluders": terms.tolerated_colluders,
        "honest_in_a_total": terms.num_honest_in_a_total,
        "isolated": terms.num_isolated(),
    }


IN_CLEAR = SumsInWords(protection=PLAIN, num_sites=0)
"""Nothing is hidden from the coordinator."""


def named(titles: Iterable[str]) -> str:
    """Titles in a sentence, each once; empty if there are none."""
    *first, last = [
        f"\N{LEFT DOUBLE QUOTATION MARK}{title}\N{RIGHT DOUBLE QUOTATION MARK}" for title in dict.fromkeys(titles)
    ] or [""]
    return f"{', '.join(first)} and {last}" if first else last
