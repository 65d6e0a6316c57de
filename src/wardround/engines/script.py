"""What happens to simulated sites, written beforehand: who drops out when, who lags, who answers garbage.

Time on the script is virtual: a lagging site costs no waiting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args

from wardround.engines.secure_sum import Loss

Behaviour: TypeAlias = Literal[
    "drops_before",
    "drops_uploading",
    "drops_before_consistency",
    "drops_before_unmask",
    "drops_after",
    "lags",
    "garbage",
]
_LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        "drops_uploading": Loss.UPLOADING,
        "drops_before_consistency": Loss.BEFORE_CONSISTENCY,
        "drops_before_unmask": Loss.BEFORE_UNMASK,
    }
)
"""Behaviours by which a site is lost within a round of a secure sum."""
DEFAULT_DEADLINE_SECONDS = 60.0
"""Virtual time after which a lagging site is left out of a round (unit: seconds)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happens to a site on a script.

    Attributes:
        site: whose.
        behaviour: `drops_before` it answers in this round, or `drops_after` it answered, and never comes
            back; in a secure sum also `drops_uploading`, when half of it is sent, `drops_before_consistency`
            or `drops_before_unmask`, when it is sent (without secure sums the first is as `drops_before`, the others
            as `drops_after`); `lags` by `seconds` in this round; sends `garbage` in this round.
        round: number of the round, from 1.
        seconds: how long a lagging site takes.
        garbage: what is sent instead of a contribution.

    Several events of a site add up: it lags by the longest of its lags of a round, and is gone from the first
    of its drops on. A lag that misses the deadline keeps garbage back, too.
    """

    site: str
    behaviour: Behaviour
    round: int
    seconds: float = 0.0
    garbage: Any = None

    def __post_init__(self) -> None:
        if self.behaviour not in get_args(Behaviour):
            raise ValueError(f"behaviour must be one of {', '.join(get_args(Behaviour))}, got {self.behaviour!r}")
        if self.round < 1:
            raise ValueError(f"rounds are counted from 1, got round={self.round}")
        if not self.seconds >= 0:
            raise ValueError(f"seconds must be >= 0, got seconds={self.seconds}")


class Script:
    """The events by site and round."""

    def __init__(self, events: Sequence[Event], deadline_seconds: float, is_secure: bool) -> None:
        self._deadline_seconds = deadline_seconds
        self._losses: dict[tuple[str, int], Loss] = {}
        absent = {"drops_before"} if is_secure else {"drops_before", "drops_uploading"}
        self._gone_from: dict[str, int] = {}
        self._lags: dict[tuple[str, int], float] = {}
        self._garbage: dict[tuple[str, int], Event] = {}
        for event in events:
            key = (event.site, event.round)
            if event.behaviour == "lags":
                self._lags[key] = max(event.seconds, self._lags.get(key, 0.0))
            elif event.behaviour == "garbage":
                if key in self._garbage:
                    raise ValueError(f"the script lets {event.site!r} send garbage twice in round {event.round}")
                self._garbage[key] = event
            else:
                first = event.round if event.behaviour in absent else event.round + 1
                self._gone_from[event.site] = min(first, self._gone_from.get(event.site, first))
                if is_secure and event.behaviour in _LOSSES:
                    self._losses[key] = _LOSSES[event.behaviour]

    def absence(self, site: str, number: int) -> str | None:
        """Why a site is not in a round; None if it is."""
        if number >= self._gone_from.get(site, number + 1):
            return "dropped out"
        seconds = self._lags.get((site, number), 0.0)
        if seconds > self._deadline_seconds:
            return f"answered after {seconds:g} s, the deadline is {self._deadline_seconds:g} s"
        return None

    def has_gone(self, site: str, number: int) -> bool:
        """Whether a site was gone before this round, so that nobody asks it any more."""
        return number > self._gone_from.get(site, number)

    def losses(self, number: int) -> dict[str, Loss]:
        """Sites that answer in this round and are lost before its sum is complete."""
        return {site: loss for (site, lost_in), loss in self._losses.items() if lost_in == number}

    def garbage(self, site: str, number: int) -> Event | None:
        """The event of a site that sends garbage in this round."""
        return self._garbage.get((site, number))
