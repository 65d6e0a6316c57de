"""The record of a run: every ask with its total, so that a run can be replayed, resumed and shown."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from wardround.errors import LocalProtocolError
from wardround.sums import Ask, Snapshot, Total, Workflow
from wardround.sums.message import pack_ask

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One ask and its total.

    Attributes:
        number: counts the rounds of a run from 1.
        ask: what was asked, and whether in clear.
        total: the sum over the sites that answered, with its parts for a clear ask or under buckets.
        failures: by site that is not in the sum, the reason.
        bytes_up: size of one site's encoded contribution (unit: bytes).
        seconds: wall time of the round.
    """

    number: int
    ask: Ask[Any]
    total: Total[Any]
    failures: Mapping[str, str]
    bytes_up: int
    seconds: float

    @property
    def bytes_down(self) -> int:
        """Size of the ask as sent to one site, in bytes."""
        return len(pack_ask(self.ask))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What happened in a run.

    Attributes:
        run_id: tells runs apart.
        workflow: the workflow's name.
        version: its version.
        sites: the roster.
        rounds: in order; those before the snapshot may have been forgotten.
        snapshot: the last one that the workflow offered.
        rounds_before_snapshot: number of the last round before it.
    """

    run_id: str
    workflow: str
    version: int
    sites: tuple[str, ...]
    rounds: tuple[Round, ...] = field(default=(), repr=False)
    snapshot: Snapshot | None = None
    rounds_before_snapshot: int = 0

    @property
    def seconds(self) -> float:
        """Wall time of all rounds."""
        return sum(round_.seconds for round_ in self.rounds)

    @property
    def bytes_up(self) -> int:
        """Bytes of encoded contributions that one site sent over all rounds."""
        return sum(round_.bytes_up for round_ in self.rounds)

    @property
    def num_clear_rounds(self) -> int:
        """Rounds in which the coordinator was shown every site's own contribution."""
        return sum(round_.ask.is_clear for round_ in self.rounds)

    @property
    def failures(self) -> Mapping[str, str]:
        """By site that was missing from some total: when, and why."""
        missing: dict[str, str] = {}
        for round_ in self.rounds:
            for site, reason in round_.failures.items():
                missing.setdefault(site, f"from round {round_.number}: {reason}")
        return missing

    def since_snapshot(self) -> RunRecord:
        """The record without the rounds that its snapshot makes unnecessary for resuming."""
        kept = tuple(r for r in self.rounds if r.number > self.rounds_before_snapshot)
        return dataclasses.replace(self, rounds=kept)


class Playback:
    """Feeds a record's totals to a workflow for as long as its asks are the recorded ones.

    Raises:
        LocalProtocolError: the record is of another workflow, version or roster.
    """

    def __init__(self, record: RunRecord, workflow: Workflow[Any], sites: tuple[str, ...]) -> None:
        recorded = (record.workflow, record.version, record.sites)
        if recorded != (workflow.name, workflow.type.version, sites):
            raise LocalProtocolError(
                f"the record is of {record.workflow} version {record.version} at {', '.join(record.sites)}; "
                "replay it with the same workflow and sites"
            )
        self.state = record.snapshot.state if record.snapshot else None
        first = record.rounds_before_snapshot if record.snapshot else 0
        self._left = deque(round_ for round_ in record.rounds if round_.number > first)
        numbers = [round_.number for round_ in self._left]
        if numbers != list(range(first + 1, first + 1 + len(numbers))):
            raise LocalProtocolError(f"the record lacks rounds: it holds {numbers} after round {first}")

    @property
    def is_over(self) -> bool:
        """Whether all recorded totals have been used."""
        return not self._left

    def round(self, ask: Ask[Any]) -> Round:
        """The recorded round of this ask.

        Raises:
            LocalProtocolError: the workflow asks something else than it did when it was recorded.
        """
        recorded = self._left.popleft()
        if pack_ask(ask) != pack_ask(recorded.ask):
            raise LocalProtocolError(
                f"round {recorded.number}: the workflow asks something else than the record holds; "
                "replay it with the same version, options and contract"
            )
        return recorded

    def check_over(self) -> None:
        """Raise `LocalProtocolError` where the workflow has ended and recorded totals are left."""
        if self._left:
            raise LocalProtocolError(
                f"the workflow ended before round {self._left[0].number}, which the record holds; "
                "replay it with the same version, options and contract"
            )


def checked_step(step: object) -> Ask[Any] | Snapshot:
    """What a workflow yielded. Raises `LocalProtocolError` unless it is an ask or a snapshot."""
    if not isinstance(step, Ask | Snapshot):
        raise LocalProtocolError(f"a workflow yields asks and snapshots, this one yielded a {type(step).__name__}")
    return step


def replay(workflow: Workflow[R], setting: Any, record: RunRecord) -> R:
    """Run a workflow on recorded totals alone: no site is asked.

    Raises:
        LocalProtocolError: the record is of another run, or ends before the workflow does.
    """
    playback = Playback(record, workflow, setting.sites)
    steps = workflow.steps(setting, playback.state)
    answer: Any = None
    while True:
        try:
            step = checked_step(steps.send(answer))
        except StopIteration as stop:
            playback.check_over()
            result: R = stop.value
            return result
        if isinstance(step, Snapshot):
            answer = None
        elif playback.is_over:
            raise LocalProtocolError("the record ends before the workflow does; resume it instead")
        else:
            answer = playback.round(step).total
