"""What a verified transcript of secure sums tells: its rounds, who was in which total, and what failed."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from wardround.privacy.secagg.manifest import Manifest


class Outcome(enum.StrEnum):
    """How a round ended."""

    TOTAL = "total"
    FAILED = "failed"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundAccount:
    """What a transcript tells of a round.

    Attributes:
        run: 16 bytes that tell runs apart.
        round, attempt: its numbers.
        function: id of the site function that was asked for.
        context: of the round, 32 bytes.
        roster: indices of the sites that were asked.
        survivors: of those whose contributions are in the sum; empty where it did not come so far.
        num_signatures: sites that signed who is in the sum.
        num_releases: sites that released shares.
        outcome: how it ended.
        failure: why it has no total; empty where it has one, or nobody said.
        commitment: binds the coordinator to the total; empty where there is none.
    """

    run: bytes
    round: int
    attempt: int
    function: str
    context: bytes
    roster: tuple[int, ...]
    survivors: tuple[int, ...]
    num_signatures: int
    num_releases: int
    outcome: Outcome
    failure: str
    commitment: bytes

    @property
    def dropped(self) -> tuple[int, ...]:
        """Sites that were asked and are not among the survivors, where survivors were named."""
        left = set(self.survivors)
        return tuple(index for index in self.roster if left and index not in left)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a verified transcript tells.

    Attributes:
        manifest: the sites, their keys and the terms.
        is_pinned: whether the caller gave the manifest or its fingerprint. Else whoever wrote the file could have made
            up all keys in it.
        is_closed: whether the coordinator's signature ends it. Else lines may be missing at its end.
        num_lines: that were verified.
        num_bytes: of these lines.
        num_bytes_cut: of a last line that is not whole, which was left out.
        rounds: in the order of their openings.
        refused: messages that were refused, as rule and peer.
        chain: of the last line, 32 bytes; two copies with the same one are the same.
    """

    manifest: Manifest
    is_pinned: bool
    is_closed: bool
    num_lines: int
    num_bytes: int
    num_bytes_cut: int
    rounds: tuple[RoundAccount, ...]
    refused: tuple[tuple[str, str], ...]
    chain: bytes

    @property
    def num_runs(self) -> int:
        """Runs that the rounds are of."""
        return len({one.run for one in self.rounds})

    def num_of(self, outcome: Outcome) -> int:
        """Rounds that ended so."""
        return sum(one.outcome == outcome for one in self.rounds)
