"""The simulation engine: hospitals in this process, with everything that can go wrong on a script.

Deterministic for a seed: the same workflow, data, seed and script give the same totals bit for bit. Time on
the script is virtual: a lagging site costs no waiting.
"""

from __future__ import annotations

import dataclasses
import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import numpy as np

from wardround.engines.protected_sums import ClosedTranscript, ProtectedSums
from wardround.engines.record import Playback, Round, RunRecord, checked_step
from wardround.engines.record_file import RecordFile
from wardround.engines.script import DEFAULT_DEADLINE_SECONDS, Event, Script
from wardround.engines.site_gates import SiteGates, without_frames
from wardround.engines.summing import Summing
from wardround.errors import DisclosureError, LocalProtocolError, QuorumError, SiteError, WardroundError
from wardround.privacy.disclosure import PRESETS, DisclosureRules, rules_of
from wardround.privacy.disclosure_gate import is_refusal, refuse_clear
from wardround.privacy.protection import PLAIN, SumProtection
from wardround.sums import Ask, SiteFunction, Snapshot, Total, Workflow
from wardround.sums.codec import check_num_sites
from wardround.sums.message import pack_snapshot, unpack_snapshot
from wardround.sums.total_checks import check_total

R = TypeVar("R")

States: TypeAlias = dict[tuple[str, str], Any]
"""What sites remember, by site and the first part of the function's name."""
Absence: TypeAlias = SiteError | DisclosureError | str
"""Why a site is not in a sum."""


class HasSites(Protocol):
    """What the engine needs of a setting."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites."""


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


@dataclass(slots=True)
class _Memory:
    """What the sites remember of a run, as of a round.

    `is_lost` where a run goes on from a snapshot and what sites remembered before that is not here. A site that
    a disclosure rule kept out of a sum is in `refused`: it stays out of the run, so that all sums are over the same.
    `run` tells the run from others in secure sums.
    """

    run: bytes = b""
    states: States = field(default_factory=dict, repr=False)
    number: int = 0
    is_lost: bool = False
    refused: dict[str, Absence] = field(default_factory=dict)


class _Journal:
    """The record of a run in the making."""

    def __init__(self, record: RunRecord, save_to: Path | None) -> None:
        self._begun = record
        self._rounds = list(record.rounds)
        self._snapshot = record.snapshot
        self._rounds_before_snapshot = record.rounds_before_snapshot
        self._file = RecordFile.create(save_to, record) if save_to else None

    @property
    def next_number(self) -> int:
        """Number of the next round."""
        return 1 + (self._rounds[-1].number if self._rounds else self._rounds_before_snapshot)

    def append(self, round_: Round) -> None:
        self._rounds.append(round_)
        if self._file:
            self._file.append(round_)

    def keep_snapshot(self, snapshot: Snapshot, state_type: type[Any] | None) -> None:
        if state_type is None:
            raise LocalProtocolError("a workflow that yields snapshots must take `snapshot: State | None = None`")
        # By way of its bytes: the workflow may go on to change the arrays in its state.
        self._snapshot = unpack_snapshot(pack_snapshot(snapshot), state_type)
        self._rounds_before_snapshot = self.next_number - 1
        if self._file:
            self._file.keep_snapshot(self._snapshot, self._rounds_before_snapshot)

    def record(self) -> RunRecord:
        return dataclasses.replace(
            self._begun,
            rounds=tuple(self._rounds),
            snapshot=self._snapshot,
            rounds_before_snapshot=self._rounds_before_snapshot,
        )


class Simulation:
    """Named in-memory sites that carry out any workflow.

    Args:
        sites: each site's data, as its site functions take them.
        setting: what workflows are given; it must name the same sites. Where it has `disclosure`, workflows are
            given the strictest of the study's and all sites' rules there.
        seed: of the sites' random generators.
        minimum_sites: fewest sites that a total may be over; None: every site must answer.
        script: events at the sites.
        deadline_seconds: virtual time after which a lagging site is left out of a round.
        progress: called after every round.
        shows_site_errors: chain a failing site function's own exception to the `SiteError`. It may hold
            patients' values: only for data that are yours to see.
        disclosure: the study's disclosure rules, or a preset's name; None: those of the setting, or none at all where
            it has none.
        site_disclosure: by site that has some, its own rules; they can only tighten the study's.
        secure: whether sums are secure ones: the protocol of hospitals with all its machines, keys and masks, so
            that whoever adds up sees totals alone. Short for `protection=SumProtection()`.
        protection: how sums are protected in more detail.
        study_digest: of what the sites agreed to, 32 bytes: all keys are bound to it.
        transcripts: folder in which the transcripts of secure sums are kept; it must be there.

    Guarantees:
        deterministic_for_a_seed: equal inputs give equal totals, bit for bit.
        errors_show_no_value: a `SiteError` names site, function, kind and place of the failure, and no value.
        quorum_holds: no total is over fewer than `minimum_sites` sites.
        resumed_run_equals_uninterrupted: a run that ended early and is resumed from its record, here or in
            another object with the same sites and seed, gives the result it would have given.
        who_refuses_stays_out: a site that a disclosure rule keeps out of a sum is in no later one of the run,
            resumed or not.
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
        disclosure: DisclosureRules | str | None = None,
        site_disclosure: Mapping[str, DisclosureRules | str] = MappingProxyType({}),
        secure: bool = False,
        protection: SumProtection | None = None,
        study_digest: bytes = bytes(32),
        transcripts: str | Path | None = None,
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
        if seed < 0:
            raise ValueError(f"seed must be >= 0, got seed={seed}")
        check_num_sites(len(sites))
        if secure and protection is not None:
            raise ValueError("secure is short for protection=SumProtection(); give one of the two")
        self.protection = protection or (SumProtection() if secure else PLAIN)
        self._data = MappingProxyType(dict(sites))
        self._gates = SiteGates(self._data, _study_rules(disclosure, setting), site_disclosure)
        self.setting = _with_rules(setting, self._gates.effective)
        self.seed = seed
        self.minimum_sites = len(sites) if minimum_sites is None else minimum_sites
        self._sums = ProtectedSums(
            tuple(sites), self.protection, self.minimum_sites, study_digest=study_digest, transcripts=transcripts
        )
        self._script = Script(script, deadline_seconds, self.protection.secure_sums)
        self._progress = progress
        self._shows_site_errors = shows_site_errors
        self._unfinished: dict[str, _Memory] = {}

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, in order."""
        return tuple(self._data)

    @property
    def disclosure(self) -> DisclosureRules:
        """The rules that results keep to: the study's and all sites' together."""
        return self._gates.effective

    @property
    def site_disclosure(self) -> Mapping[str, DisclosureRules]:
        """The rules that each site keeps to: the study's, tightened by its own."""
        return self._gates.rules

    @property
    def data(self) -> Mapping[str, Any]:
        """Each site's data: they are in this process, and whoever simulates owns them."""
        return self._data

    def close_transcripts(self) -> tuple[ClosedTranscript, ...]:
        """End the transcripts of the secure sums so far; returns where they are. Raises `StoreError`."""
        return self._sums.close_transcripts()

    def run(self, workflow: Workflow[R]) -> R:
        """Carry a workflow out and return its result; raises as `record` does."""
        return self.record(workflow).result

    def record(self, workflow: Workflow[R], *, resume: RunRecord | None = None, save_to: Path | None = None) -> Run[R]:
        """Carry a workflow out; return its result with the record.

        Args:
            workflow: what to carry out.
            resume: record of a run of the same workflow that ended early: its totals are used before the
                sites are asked again. Site state is not in the record; what is not kept in this object is
                computed again.
            save_to: file that holds the record from round to round, so that a crash loses nothing.

        Raises:
            DisclosureError: a disclosure rule refuses a sum, or keeps a site out and too few are left.
            SiteError: a site function failed, and too few sites were left to go on without the site.
            QuorumError: fewer than `minimum_sites` sites answered.
            LocalProtocolError: `resume` is of another workflow, or needs site state from before its snapshot
                that is not here; or the workflow breaks the rules of the waist.
            StoreError: `save_to` cannot be written.
        """
        record = resume or RunRecord(
            run_id=uuid.uuid4().hex, workflow=workflow.name, version=workflow.type.version, sites=self.sites
        )
        playback = Playback(record, workflow, self.sites)
        journal = _Journal(record, save_to)
        memory = self._memory_of(record, journal.next_number - 1)
        # A run has one name at the sites and in its record; what a broken round left behind is of another run.
        memory.run = bytes.fromhex(record.run_id) if resume is None else self._sums.new_run()
        steps = workflow.steps(self.setting, playback.state)
        answer: Any = None
        while True:
            try:
                step = checked_step(steps.send(answer))
            except StopIteration as stop:
                playback.check_over()
                self._unfinished.pop(record.run_id, None)
                return Run(stop.value, journal.record())
            if isinstance(step, Snapshot):
                answer = None
                if playback.is_over:
                    journal.keep_snapshot(step, workflow.type.snapshot_type)
            elif not playback.is_over:
                round_ = playback.round(step)
                self._remember(round_, memory)
                answer = round_.total
            else:
                round_ = self._round(step, journal.next_number, memory)
                journal.append(round_)
                if self._progress:
                    self._progress(Progress(workflow.name, round_))
                answer = round_.total

    def _memory_of(self, record: RunRecord, last_round: int) -> _Memory:
        memory = self._unfinished.get(record.run_id)
        if memory is None or memory.number != last_round:
            forgotten = record.rounds_before_snapshot
            told = {site: reason for r in record.rounds for site, reason in r.failures.items() if is_refusal(reason)}
            memory = _Memory(number=forgotten, is_lost=forgotten > 0, refused=dict(told))
            self._unfinished[record.run_id] = memory
        return memory

    def _remember(self, round_: Round, memory: _Memory) -> None:
        """Bring the sites' state up to a recorded round, as they computed it then."""
        if round_.number <= memory.number:
            return
        function = round_.ask.function
        if function.is_stateful:
            _check_memory(memory, function.function_id)
            for index, site in enumerate(self._data):
                if site in round_.total.sites:
                    rng = self._rng(round_.number, index)
                    key = _state_key(site, function)
                    state = memory.states.get(key)
                    _, memory.states[key] = function.compute(self._data[site], round_.ask.arguments, state, rng)
        memory.number = round_.number

    def _round(self, ask: Ask[Any], number: int, memory: _Memory) -> Round:
        """Ask every site that is still there; add up what arrives."""
        begin = time.perf_counter()
        if ask.function.is_stateful:
            _check_memory(memory, ask.function.function_id)
        failures = self._absences(ask, number, memory)
        self._check_quorum(ask, number, failures)
        asked = tuple(s for s in self._data if s not in memory.refused and not self._script.has_gone(s, number))
        summing = self._sums.open(ask, memory.run, number, asked, self._script.losses(number))
        new_states: States = {}
        for index, site in enumerate(self._data):
            if site not in failures:
                reason = self._add_answer(ask, summing, site, number, index, memory.states, new_states)
                if reason is not None:
                    failures[site] = reason
        memory.refused |= {site: reason for site, reason in failures.items() if isinstance(reason, DisclosureError)}
        total = self._closed(summing, ask, number, failures)
        memory.states.update({key: state for key, state in new_states.items() if key[0] not in failures})
        memory.number = number
        return Round(
            number=number,
            ask=ask,
            total=total,
            failures={site: str(failures[site]) for site in self._data if site in failures},
            bytes_up=summing.bytes_up,
            seconds=time.perf_counter() - begin,
        )

    def _closed(self, summing: Summing, ask: Ask[Any], number: int, failures: dict[str, Absence]) -> Total[Any]:
        """The total, checked; sites that the sum left out are then in `failures`."""
        failures |= summing.left_out
        self._check_quorum(ask, number, failures)
        try:
            total = summing.close()
        except QuorumError as error:
            raise self._no_total(ask, number, str(error), failures) from None
        if summing.left_out:
            failures |= summing.left_out
            self._check_quorum(ask, number, failures)
        for sum_ in total.parts or (total,):  # a median over buckets is no sum
            check_total(sum_, summing.layout)
        for sum_ in total.parts if self._sums.is_by_bucket(ask) else (total,):
            self._gates.check_total(ask, sum_.sites)
        return total

    def _absences(self, ask: Ask[Any], number: int, memory: _Memory) -> dict[str, Absence]:
        """Who is not in a round before anybody has computed anything, and why."""
        absences: dict[str, Absence] = {}
        for site in self._data:
            reason = memory.refused.get(site) or self._script.absence(site, number) or self._refusal(ask, site)
            if reason is not None:
                absences[site] = reason
        for roster in self._sums.rosters(ask):
            absences |= self._gates.refused_shares(ask, [site for site in roster if site not in absences])
        return absences

    def _refusal(self, ask: Ask[Any], site: str) -> SiteError | DisclosureError | None:
        try:
            if ask.is_clear:
                refuse_clear(self._gates.rules[site], self.protection, site=site)
            self._gates.check_ask(ask, site)
        except Exception as error:
            return self._site_error(error, site, ask.function.function_id)
        return None

    def _rng(self, number: int, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, number, index])

    def _add_answer(
        self,
        ask: Ask[Any],
        summing: Summing,
        site: str,
        number: int,
        index: int,
        states: States,
        new_states: States,
    ) -> SiteError | DisclosureError | None:
        """Add what one site sends; on failure add nothing, and return the error.

        It is returned and raised elsewhere, so that neither its context nor its frames hold the site's values.
        """
        function, layout = ask.function, summing.layout
        key = _state_key(site, function)
        rng = self._rng(number, index) if function.is_stateful or layout.bounded else None
        garbage = self._script.garbage(site, number)
        try:
            if garbage:
                contribution, state = garbage.garbage, states.get(key)
            else:
                contribution, state = function.compute(self._data[site], ask.arguments, states.get(key), rng)
                self._gates.check_answer(contribution, site)
            summing.add(site, layout.flatten(contribution), rng)
        except Exception as error:
            return self._site_error(error, site, function.function_id)
        if function.is_stateful:
            new_states[key] = state
        return None

    def _site_error(self, error: Exception, site: str, function_id: str) -> SiteError | DisclosureError:
        if isinstance(error, DisclosureError):
            return without_frames(error)
        if isinstance(error, WardroundError):  # ours name fields and columns, never values
            what = str(error)
        else:
            *_, (frame, line) = traceback.walk_tb(error.__traceback__)
            what = f"{type(error).__name__} at {Path(frame.f_code.co_filename).name}:{line}"
        failure = SiteError(f"site {site!r}, function {function_id}: {what}", site=site, function=function_id)
        failure.__cause__ = error if self._shows_site_errors else None
        return failure

    def _check_quorum(self, ask: Ask[Any], number: int, failures: Mapping[str, Absence]) -> None:
        num_answered = len(self._data) - len(failures)
        if num_answered >= self.minimum_sites:
            return
        what = f"{num_answered} of {len(self._data)} sites answered, at least {self.minimum_sites} must"
        remedy = "; run again when more sites can be reached, or agree on a lower minimum_sites"
        raise self._no_total(ask, number, what, failures, remedy)

    def _no_total(
        self, ask: Ask[Any], number: int, what: str, failures: Mapping[str, Absence], remedy: str = ""
    ) -> WardroundError:
        """The first failure or refusal of a site; without one, too few answered."""
        for reason in failures.values():
            if isinstance(reason, SiteError | DisclosureError):
                return reason
        reasons = "; ".join(f"{site}: {reason}" for site, reason in failures.items())
        told = f"{what} ({reasons})" if reasons else what
        return QuorumError(f"round {number} ({ask.function.function_id}): {told}{remedy}")


def _study_rules(disclosure: DisclosureRules | str | None, setting: HasSites) -> DisclosureRules:
    if disclosure is None:
        return getattr(setting, "disclosure", PRESETS["none"])
    return rules_of(disclosure)


def _with_rules(setting: Any, rules: DisclosureRules) -> Any:
    """The setting with these rules; as it is where it has none."""
    if getattr(setting, "disclosure", rules) == rules:
        return setting
    return dataclasses.replace(setting, disclosure=rules)


def _state_key(site: str, function: SiteFunction[..., Any]) -> tuple[str, str]:
    return site, function.name.split(".")[0]


def _check_memory(memory: _Memory, function_id: str) -> None:
    if memory.is_lost:
        raise LocalProtocolError(
            f"{function_id} needs what the sites remembered before the snapshot, which is not here; "
            "run the workflow from its beginning"
        )
