"""What a run cost and which sites were in it, read off its record: for reports, JSON and the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wardround.engines.record import Round, RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFacts:
    """One ask and what came back, without the numbers themselves.

    Attributes:
        number: counts the rounds of a run from 1.
        function: the site function, by name and version.
        meaning: what it computes, in words.
        tells_of_sites: whether the total tells what is one site's alone.
        is_clear: whether each site's own contribution was asked for, in clear.
        num_people: counts of people or records that one site sent.
        num_real: real numbers that one site sent, to be summed exactly.
        num_bounded: numbers that one site sent, clipped and rounded.
        bytes_up: bytes that one site sent.
        bytes_down: bytes of the question as one site was sent it.
        seconds: wall time.
        absent: the sites that are not in the total.
    """

    number: int
    function: str
    meaning: str
    tells_of_sites: bool
    num_people: int
    num_real: int
    num_bounded: int
    bytes_up: int
    bytes_down: int
    seconds: float
    absent: tuple[str, ...] = ()
    is_clear: bool = False

    @property
    def numbers_up(self) -> int:
        """Numbers that one site sent."""
        return self.num_people + self.num_real + self.num_bounded

    @classmethod
    def of(cls, round_: Round) -> RoundFacts:
        """Read off one round of a record."""
        function, layout = round_.ask.function, round_.ask.layout
        return cls(
            number=round_.number,
            function=function.function_id,
            meaning=function.summary,
            tells_of_sites=function.is_per_site(round_.ask.arguments),
            num_people=layout.num_people,
            num_real=layout.num_exact,
            num_bounded=sum(field.size for field in layout.bounded),
            bytes_up=round_.bytes_up,
            bytes_down=round_.bytes_down,
            seconds=round_.seconds,
            absent=tuple(round_.failures),
            is_clear=round_.ask.is_clear,
        )

    def to_dict(self) -> dict[str, Any]:
        """All attributes but the meaning as JSON values."""
        return {
            "number": self.number,
            "function": self.function,
            "tells_of_sites": self.tells_of_sites,
            "is_clear": self.is_clear,
            "people": self.num_people,
            "real": self.num_real,
            "bounded": self.num_bounded,
            "bytes": self.bytes_up,
            "bytes_received": self.bytes_down,
            "seconds": self.seconds,
            "absent": list(self.absent),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFacts:
    """What one site took part in, and how much of it left the site.

    Attributes:
        site: its name.
        rounds: asks that it answered.
        numbers_up: numbers that it sent in answers that are in a total.
        bytes_up: bytes of these.
        absence: when it was missing from a total for the first time, and why; None where it never was.
    """

    site: str
    rounds: int
    numbers_up: int
    bytes_up: int
    absence: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """All attributes as JSON values."""
        return {
            "site": self.site,
            "rounds": self.rounds,
            "numbers": self.numbers_up,
            "bytes": self.bytes_up,
            "absence": self.absence,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a run cost, and which sites were in it.

    Attributes:
        run_id: tells runs apart, as the record does.
        log: the rounds.
        sites: the roster.
        failures: by site that was missing from some total: when, and why.
    """

    run_id: str
    log: tuple[RoundFacts, ...]
    sites: tuple[str, ...]
    failures: Mapping[str, str]

    @classmethod
    def of(cls, record: RunRecord) -> RunFacts:
        """Read off a run's record."""
        return cls(
            run_id=record.run_id,
            log=tuple(RoundFacts.of(round_) for round_ in record.rounds),
            sites=record.sites,
            failures=dict(record.failures),
        )

    @property
    def rounds(self) -> int:
        """Number of asks."""
        return len(self.log)

    @property
    def asks_in_clear(self) -> bool:
        """Whether some ask was for every site's own contribution."""
        return any(round_.is_clear for round_ in self.log)

    @property
    def tells_of_sites(self) -> bool:
        """Whether some total tells what is one site's alone."""
        return any(round_.tells_of_sites for round_ in self.log)

    @property
    def asked(self) -> Mapping[str, int]:
        """How often each site function was asked, by name and version, in order of first use."""
        asked: dict[str, int] = {}
        for round_ in self.log:
            asked[round_.function] = asked.get(round_.function, 0) + 1
        return asked

    @property
    def numbers_up(self) -> int:
        """Numbers that one site sent, over all rounds."""
        return sum(round_.numbers_up for round_ in self.log)

    @property
    def bytes_up(self) -> int:
        """Bytes that one site sent, over all rounds."""
        return sum(round_.bytes_up for round_ in self.log)

    @property
    def bytes_down(self) -> int:
        """Bytes of the questions that one site was sent, over all rounds."""
        return sum(round_.bytes_down for round_ in self.log)

    @property
    def seconds(self) -> float:
        """Wall time of the rounds."""
        return sum(round_.seconds for round_ in self.log)

    @property
    def by_site(self) -> tuple[SiteFacts, ...]:
        """What each site of the roster took part in."""
        whole = SiteFacts(site="", rounds=self.rounds, numbers_up=self.numbers_up, bytes_up=self.bytes_up)
        missed = {site: [round_ for round_ in self.log if site in round_.absent] for site in self.failures}
        return tuple(
            SiteFacts(
                site=site,
                rounds=whole.rounds - len(missed.get(site, [])),
                numbers_up=whole.numbers_up - sum(round_.numbers_up for round_ in missed.get(site, [])),
                bytes_up=whole.bytes_up - sum(round_.bytes_up for round_ in missed.get(site, [])),
                absence=self.failures.get(site),
            )
            for site in self.sites
        )

    def summary(self) -> str:
        """One paragraph."""
        text = (
            f"{self.rounds} rounds in {self.seconds:.2f} s; each site sent {self.numbers_up:,} numbers "
            f"({self.bytes_up:,} bytes) and was sent questions of {self.bytes_down:,} bytes."
        )
        return " ".join([text, *(f"Site {site} was absent {reason}." for site, reason in self.failures.items())])

    def to_dict(self) -> dict[str, Any]:
        """All attributes and properties as JSON values."""
        return {
            "run_id": self.run_id,
            "rounds": self.rounds,
            "asked": dict(self.asked),
            "numbers": self.numbers_up,
            "bytes": self.bytes_up,
            "bytes_received": self.bytes_down,
            "seconds": self.seconds,
            "sites": list(self.sites),
            "failures": dict(self.failures),
            "by_site": [site.to_dict() for site in self.by_site],
            "by_round": [round_.to_dict() for round_ in self.log],
        }
