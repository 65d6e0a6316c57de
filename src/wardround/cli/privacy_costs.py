"""What the protection of a study's sums costs each analysis: legs, bytes and seconds of computing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from wardround.privacy.secagg.cost import (
    NO_TRAFFIC,
    Speeds,
    Traffic,
    coordinator_seconds,
    plain_traffic,
    round_traffic,
    site_seconds,
)
from wardround.privacy.secagg.terms import Terms
from wardround.report.protection import SumsInWords
from wardround.sums import Ask
from wardround.sums.accumulator import encoded_bytes
from wardround.sums.contribution import Layout
from wardround.sums.message import pack_ask


@dataclass(frozen=True, slots=True)
class Question:
    """The sizes of one ask and of what it is answered with."""

    layout: Layout
    ask_bytes: int
    is_clear: bool
    tells_of_sites: bool

    @classmethod
    def of(cls, ask: Ask[Any]) -> Question:
        """Read off an ask."""
        return cls(ask.layout, len(pack_ask(ask)), ask.is_clear, ask.function.is_per_site(ask.arguments))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisCost:
    """What the sums of an analysis cost.

    Attributes:
        label: the analysis as messages name it.
        title: for people.
        questions: asks that are counted.
        is_whole: whether these are all of the analysis; else its first one alone.
        problem: why there are no figures; None where there are.
        num_clear: asks for every site's own contribution, in clear.
        num_of_sites: sums that tell what is each site's own.
        traffic: bytes of all questions; its legs are theirs together.
        site_seconds: computing time of one site.
        coordinator_seconds: computing time of the coordinator, where all sites answer.
        coordinator_seconds_with_dropouts: the same where as many sites are lost as may be.
    """

    label: str
    title: str
    questions: int
    is_whole: bool
    problem: str | None = None
    num_clear: int = 0
    num_of_sites: int = 0
    traffic: Traffic = NO_TRAFFIC
    site_seconds: float = 0.0
    coordinator_seconds: float = 0.0
    coordinator_seconds_with_dropouts: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; `rounds` is null where they are not known."""
        return {
            "analysis": self.label,
            "title": self.title,
            "problem": self.problem,
            "questions": self.questions,
            "rounds": self.questions if self.is_whole else None,
            "clear_rounds": self.num_clear,
            "rounds_that_tell_of_sites": self.num_of_sites,
            **traffic_dict(self.traffic),
            "site_seconds": self.site_seconds,
            "coordinator_seconds": self.coordinator_seconds,
            "coordinator_seconds_with_dropouts": self.coordinator_seconds_with_dropouts,
        }


def traffic_dict(traffic: Traffic) -> dict[str, int]:
    """Bytes by who sends and who is sent them."""
    return {
        "legs": traffic.legs,
        "site_bytes_sent": traffic.site_up,
        "site_bytes_received": traffic.site_down,
        "coordinator_bytes_sent": traffic.coordinator_up,
        "coordinator_bytes_received": traffic.coordinator_down,
    }


@dataclass(frozen=True, slots=True)
class Pricing:
    """What a question costs under a study's protection.

    Args:
        sums: the protection.
        speeds_of: the speeds of this machine for sums with such terms.
    """

    sums: SumsInWords
    speeds_of: Callable[[Terms], Speeds]

    def of(self, label: str, title: str, questions: Sequence[Question], *, is_whole: bool = True) -> AnalysisCost:
        """The cost of an analysis with these questions."""
        cost = AnalysisCost(
            label=label,
            title=title,
            questions=len(questions),
            is_whole=is_whole,
            num_clear=sum(question.is_clear for question in questions),
            num_of_sites=sum(question.tells_of_sites for question in questions),
        )
        for question in questions:
            cost = self._with(cost, question)
        return cost

    def _with(self, cost: AnalysisCost, question: Question) -> AnalysisCost:
        if self.sums.terms is None or question.is_clear:
            vector = encoded_bytes(question.layout, self.sums.num_sites)
            more = plain_traffic(self.sums.num_sites, vector, question.ask_bytes)
            return dataclasses.replace(cost, traffic=cost.traffic + more)
        parts = self.sums.buckets if question.layout.bounded and self.sums.buckets else (self.sums.terms,)
        largest = max(parts, key=lambda terms: terms.num_sites)
        seconds = [self._coordinator_seconds(terms, question, 0) for terms in parts]
        worst = [self._coordinator_seconds(terms, question, terms.num_may_drop) for terms in parts]
        return dataclasses.replace(
            cost,
            traffic=cost.traffic + _joined([_traffic(terms, question) for terms in parts]),
            site_seconds=cost.site_seconds + site_seconds(largest, _vector(largest, question), self.speeds_of(largest)),
            coordinator_seconds=cost.coordinator_seconds + sum(seconds),
            coordinator_seconds_with_dropouts=cost.coordinator_seconds_with_dropouts + sum(worst),
        )

    def _coordinator_seconds(self, terms: Terms, question: Question, num_dropped: int) -> float:
        vector = _vector(terms, question)
        return coordinator_seconds(terms, vector, self.speeds_of(terms), num_dropped=num_dropped)


def _vector(terms: Terms, question: Question) -> int:
    return encoded_bytes(question.layout, terms.num_sites)


def _traffic(terms: Terms, question: Question) -> Traffic:
    return round_traffic(terms, _vector(terms, question), question.ask_bytes)


def _joined(parts: Sequence[Traffic]) -> Traffic:
    """Of sums that go on beside each other: a site is in one of them, the coordinator in all."""
    return Traffic(
        legs=max(part.legs for part in parts),
        site_up=max(part.site_up for part in parts),
        site_down=max(part.site_down for part in parts),
        coordinator_up=sum(part.coordinator_up for part in parts),
        coordinator_down=sum(part.coordinator_down for part in parts),
    )
