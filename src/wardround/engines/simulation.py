"""The simulation engine: hospitals in this process, with everything that can go wrong on a script.

Deterministic for a seed: the same workflow, data, seed and script give the same totals bit for bit. Time on
the script is virtual: a lagging site costs no waiting.
"""

from __future__ import annotations

import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar

import numpy as np

from wardround.engines.record import Playback, Round, RunRecord
from wardround.engines.record_file import RecordFile
from wardround.errors import QuorumError, SiteError, WardroundError
from wardround.sums import Ask, Layout, Snapshot, Total, Workflow
from wardround.sums.codec import Accumulator, Encoded, encode, encoded_bytes

R = TypeVar("R")

Behaviour: TypeAlias = Literal["drops_before", "drops_after", "lags", "garbage"]
States: TypeAlias = dict[tuple[str, str], Any]

DEFAULT_DEADLINE_SECONDS = 60.0
"""Virtual time after which a lagging site is left out of a round (unit: seconds)."""


class HasSites(Protocol):
    """What the engine needs of a setting."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happens to a site on a script.

    Attributes:
        site: whose.
        behaviour: `drops_before` it answers in this round, or `drops_after` it answered, and never comes
            back; `lags` by `seconds` in this round; sends `garbage` in this round.
        round: number of the round, from 1.
        seconds: how long a lagging site takes.
        garbage: what is sent instead of a contribution.
    """

    site: str
    behaviour: Behaviour
    round: int
    seconds: float = 0.0
    garbage: Any = None


@dataclass(frozen=True, slots=True)
class Progress:
    """A round just ended."""

    workflow: str
    round: Round


@dataclass(frozen=True, slots=True)
class Run(Generic[R]):
    """A finished run: its result and its record."""

    result: R
    record: RunRecord


class Simulation:
    """Named in-memory sites that carry out any workflow.

    Args:
        sites: each site's data, as its site functions take them.
        setting: what workflows are given; it must name the same sites.
        seed: of the sites' random generators.
        minimum_sites: fewest sites that a total may be over; None: every site must answer.
        script: events at the sites.
        deadline_seconds: virtual time after which a lagging site is left out of a round.
        progress: called after every round.
        shows_site_errors: chain a failing site function's own exception to the `SiteError`. It may hold
            patients' values: only for data that are yours to see.

    Guarantees:
        deterministic_for_a_seed: equal inputs give equal totals, bit for bit.
        errors_show_no_value: a `SiteError` names site, function, kind and place of the failure, and no value.
        quorum_holds: no total is over fewer than `minimum_sites` sites.
    """

    def __init__(
        self,
        sites: Mapping[str, Any],
        setting: HasSites,
        *,
        seed: int = 0,
        minimum_sites: int | None = None,
        script: Sequence[Event] = (),
        deadline_seconds: float = DEFAULT_DEADLINE_SECONDS,
        progress: Callable[[Progress], None] | None = None,
        shows_site_errors: bool = False,
    ) -> None:
        if not sites:
            raise ValueError("sites must name at least one site")
        if tuple(sites) != tuple(setting.sites):
            raise ValueError(f"the setting names sites {list(setting.sites)}, the data are of {list(sites)}")
        if minimum_sites is not None and not 1 <= minimum_sites <= len(sites):
            raise ValueError(f"minimum_sites must be in [1, {len(sites)}], got minimum_sites={minimum_sites}")
        unknown = sorted({event.site for event in script} - set(sites))
        if unknown:
            raise ValueError(f"the script names unknown sites: {', '.join(unknown)}")
        self._data = MappingProxyType(dict(sites))
        self.setting = setting
        self.seed = seed
        self.minimum_sites = len(sites) if minimum_sites is None else minimum_sites
        self._script = {(event.site, event.round): event for event in script}
        self._deadline_seconds = deadline_seconds
        self._progress = progress
        self._shows_site_errors = shows_site_errors
        self._unfinished: dict[str, States] = {}

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, in order."""
        return tuple(self._data)

    def run(self, workflow: Workflow[R]) -> R:
        """Carry a workflow out and return its result; raises as `record` does."""
        return self.record(workflow).result

    def record(self, workflow: Workflow[R], *, resume: RunRecord | None = None, save_to: Path | None = None) -> Run[R]:
        """Carry a workflow out; return its result with the record.

        Args:
            workflow: what to carry out.
            resume: record of a run of the same workflow that ended early: its totals are used before the
                sites are asked again. Site state is kept in this object, not in the record.
            save_to: file that holds the record from round to round, so that a crash loses nothing.

        Raises:
            SiteError: a site function failed, and too few sites were left to go on without the site.
            QuorumError: fewer than `minimum_sites` sites answered.
            LocalProtocolError: `resume` is of another workflow, or needs site state that is not here.
        """
        record = resume or RunRecord(
            run_id=uuid.uuid4().hex, workflow=workflow.name, version=workflow.type.version, sites=self.sites
        )
        playback = Playback(record, workflow, self.sites)
        states = self._unfinished.setdefault(record.run_id, {})
        file = RecordFile.create(save_to, record) if save_to else None
        steps = workflow.steps(self.setting, playback.state)
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as stop:
                del self._unfinished[record.run_id]
                return Run(stop.value, record)
            if isinstance(step, Snapshot):
                answer = None
                if playback.is_over:
                    record = record.with_snapshot(step)
                    if file:
                        file.keep_snapshot(step, record.rounds_before_snapshot)
            elif not playback.is_over:
                answer = playback.total(step)
            else:
                round_ = self._round(step, record, states)
                record = record.with_round(round_)
                if file:
                    file.append(round_)
                if self._progress:
                    self._progress(Progress(workflow.name, round_))
                answer = round_.total

    def _round(self, ask: Ask[Any], record: RunRecord, states: States) -> Round:
        """Ask every site that is still there; add up what arrives."""
        begin = time.perf_counter()
        number = record.rounds[-1].number + 1 if record.rounds else record.rounds_before_snapshot + 1
        layout = ask.layout
        accumulator = Accumulator(layout, len(self._data))
        answered: list[str] = []
        failures: dict[str, SiteError | str] = {}
        new_states: States = {}
        for index, site in enumerate(self._data):
            reason = self._absence(site, number)
            if reason is None:
                try:
                    accumulator.add(self._answer(ask, layout, site, index, number, states, new_states))
                    answered.append(site)
                except SiteError as error:
                    failures[site] = error
            else:
                failures[site] = reason
        self._check_quorum(ask, number, answered, failures)
        states.update(new_states)
        return Round(
            number=number,
            ask=ask,
            total=Total(accumulator.total(), tuple(answered)),
            failures={site: str(reason) for site, reason in failures.items()},
            bytes_up=encoded_bytes(layout, len(self._data)),
            seconds=time.perf_counter() - begin,
        )

    def _absence(self, site: str, number: int) -> str | None:
        """Why the script keeps a site out of a round."""
        for event in self._script.values():
            if event.site != site:
                continue
            is_gone = event.behaviour == "drops_before" and event.round <= number
            if is_gone or (event.behaviour == "drops_after" and event.round < number):
                return "dropped out"
        event_now = self._script.get((site, number))
        if event_now and event_now.behaviour == "lags" and event_now.seconds > self._deadline_seconds:
            return f"answered after {event_now.seconds:g} s, the deadline is {self._deadline_seconds:g} s"
        return None

    def _answer(
        self, ask: Ask[Any], layout: Layout, site: str, index: int, number: int, states: States, new_states: States
    ) -> Encoded:
        """What one site sends. Raises `SiteError`, which shows no value."""
        function = ask.function
        key = (site, function.name.split(".")[0])
        needs_rng = function.is_stateful or bool(layout.bounded)
        rng = np.random.default_rng([self.seed, number, index]) if needs_rng else None
        event = self._script.get((site, number))
        try:
            if event and event.behaviour == "garbage":
                contribution = event.garbage
            else:
                contribution, state = function.compute(self._data[site], ask.arguments, states.get(key), rng)
                if function.is_stateful:
                    new_states[key] = state
            return encode(layout.flatten(contribution), layout, len(self._data), rng)
        except Exception as error:
            new_states.pop(key, None)
            raise self._site_error(error, site, function.function_id) from (error if self._shows_site_errors else None)

    def _site_error(self, error: Exception, site: str, function_id: str) -> SiteError:
        if isinstance(error, WardroundError):  # ours name fields and columns, never values
            what = str(error)
        else:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
        return SiteError(f"site {site!r}, function {function_id}: {what}", site=site, function=function_id)

    def _check_quorum(
        self, ask: Ask[Any], number: int, answered: list[str], failures: Mapping[str, SiteError | str]
    ) -> None:
        if len(answered) >= self.minimum_sites:
            return
        for reason in failures.values():
            if isinstance(reason, SiteError):
                raise reason
        reasons = "; ".join(f"{site}: {reason}" for site, reason in failures.items())
        raise QuorumError(
            f"round {number} ({ask.function.function_id}): {len(answered)} of {len(self._data)} sites answered, "
            f"at least {self.minimum_sites} must ({reasons})"
        )
