"""What every workflow must keep to, so that any engine may run, replay and resume it."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np

from wardround.engines.protected_sums import ProtectedSums
from wardround.engines.record import RunRecord, replay
from wardround.engines.record_file import load_record
from wardround.engines.simulation import HasSites, Progress, Run, Simulation
from wardround.errors import ConfigError, DisclosureError, LocalProtocolError, WardroundError
from wardround.privacy.disclosure import DisclosureRules
from wardround.privacy.protection import PLAIN, SumProtection
from wardround.privacy.secagg.terms import LEAST_SITES
from wardround.sums import Ask, Total, Vocabulary, Workflow
from wardround.sums.message import pack_ask, pack_total, unpack_ask, unpack_total
from wardround.testing.fingerprint import fingerprint
from wardround.testing.small_counts import shown_small_counts

R = TypeVar("R")
_FLOORS = (7, 1_000_000)
# Some counts are hidden, then all of them.


class _CrashError(Exception):
    """Stands for the end of the process."""


def check_workflow(
    workflow: Workflow[R],
    sites: Mapping[str, Any],
    setting: HasSites,
    *,
    seed: int = 0,
    max_crashes: int = 5,
    protection: SumProtection = PLAIN,
) -> R:
    """Run a workflow on these sites in every way an engine may, and compare to the last bit.

    Args:
        workflow: what to check, with its options.
        sites: each site's data; at least two sites make the checks worth something.
        setting: what the workflow is given; names the same sites.
        seed: of the sites' random generators.
        max_crashes: at how many of the rounds a crash is tried, spread evenly.
        protection: of the sums, beside their being secure or not: what a workflow with clear asks needs, say.

    Returns:
        The workflow's result, for checks of one's own.

    Raises:
        AssertionError: a guarantee is broken; the message starts with its name.
        WardroundError: the workflow fails on these data to begin with.

    Checks:
        is_deterministic: a second run gives the same asks, totals and result.
        site_functions_leave_their_data_alone: the sites' data are the same after a run.
        site_functions_are_pure: called again, in another order of sites, they contribute the same.
        messages_survive_their_bytes: asks and totals that were written and read again give the same totals.
        replay_is_equal: the recorded totals alone give the same result.
        resume_is_equal: a run that crashed after a round and was resumed, from memory or from its file, gives
            the same result.
        masked_equals_unmasked: with secure sums every total and the result are the same; needs three sites.
        arguments_are_validated: no option and no argument of a site function accepts just anything.
        hides_small_counts: under rules that hide counts, none from 1 to the floor less 1 is in `to_dict` (fields
            `num_...`, but for those of `small_counts.NOT_PEOPLE`), and the result still prints. Needs a setting with
            `disclosure`; a workflow that refuses by a `DisclosureError` or `ConfigError` shows nothing.
    """
    before = {site: fingerprint(data) for site, data in sites.items()}
    hospitals = _Hospitals(sites, seed, dataclasses.replace(protection, secure_sums=False))
    simulation = hospitals.simulation(setting)
    run = simulation.record(workflow)
    for site, data in sites.items():
        if fingerprint(data) != before[site]:
            _broken("site_functions_leave_their_data_alone", f"the data of {site!r} changed during a run")
    _check_determinism(workflow, hospitals, setting, run)
    _Rounds(hospitals).check(run.record)
    _check_replay(workflow, setting, run)
    _check_resume(workflow, simulation.setting, hospitals, run, max_crashes)
    _check_masked(workflow, setting, hospitals, run)
    _check_arguments(workflow, run.record)
    _check_small_counts(workflow, hospitals, setting)
    return run.result


@dataclasses.dataclass(frozen=True, slots=True)
class _Hospitals:
    """What every simulation of a check is made of."""

    sites: Mapping[str, Any]
    seed: int
    protection: SumProtection

    def simulation(self, setting: HasSites, **more: Any) -> Simulation:
        return Simulation(self.sites, setting, **{"seed": self.seed, "protection": self.protection, **more})


def _broken(guarantee: str, what: str) -> NoReturn:
    raise AssertionError(f"{guarantee}: {what}")


def _check_determinism(workflow: Workflow[R], hospitals: _Hospitals, setting: HasSites, run: Run[R]) -> None:
    again = hospitals.simulation(setting).record(workflow)
    if len(again.record.rounds) != len(run.record.rounds):
        _broken("is_deterministic", f"{len(run.record.rounds)} rounds, then {len(again.record.rounds)}")
    for one, other in zip(run.record.rounds, again.record.rounds, strict=True):
        if pack_ask(one.ask) != pack_ask(other.ask):
            _broken("is_deterministic", f"round {one.number} asked something else the second time")
        if pack_total(one.total) != pack_total(other.total):
            _broken("is_deterministic", f"the total of round {one.number} was another one the second time")
    if fingerprint(again.result) != fingerprint(run.result):
        _broken("is_deterministic", "the same totals gave another result the second time")


class _Rounds:
    """Does every recorded round again, in other ways."""

    def __init__(self, hospitals: _Hospitals) -> None:
        self._sites, self._seed = hospitals.sites, hospitals.seed
        self._sums = ProtectedSums(tuple(self._sites), hospitals.protection, len(self._sites))
        self._states: dict[tuple[str, str], Any] = {}

    def check(self, record: RunRecord) -> None:
        for round_ in record.rounds:
            expected, function = pack_total(round_.total), round_.ask.function
            where = f"round {round_.number} ({function.function_id})"
            reverse, _ = self._total(round_.ask, round_.number, reverse=True)
            if pack_total(reverse) != expected:
                _broken("site_functions_are_pure", f"{where}: called again, last site first, the total is another one")
            vocabulary = Vocabulary({function.function_id: function}, {})
            try:
                received = unpack_ask(pack_ask(round_.ask), vocabulary)
            except WardroundError as error:
                raise AssertionError(f"messages_survive_their_bytes: {where}: {error}") from error
            total, states = self._total(received, round_.number, reverse=False)
            if pack_ask(received) != pack_ask(round_.ask) or pack_total(total) != expected:
                _broken("messages_survive_their_bytes", f"{where}: the ask, as a site receives it, gives another total")
            if pack_total(unpack_total(expected, round_.ask.layout)) != expected:
                _broken("messages_survive_their_bytes", f"{where}: the total is another one after its travel")
            self._states |= states

    def _total(self, ask: Ask[Any], number: int, *, reverse: bool) -> tuple[Total[Any], dict[tuple[str, str], Any]]:
        layout = ask.layout
        summing = self._sums.open(ask, b"", number, tuple(self._sites), {})
        states, answers = {}, {}
        sites = list(enumerate(self._sites))
        for index, site in reversed(sites) if reverse else sites:
            rng = np.random.default_rng([self._seed, number, index])
            key = (site, ask.function.name.split(".")[0])
            state = self._states.get(key)
            before = fingerprint(state)
            contribution, states[key] = ask.function.compute(self._sites[site], ask.arguments, state, rng)
            if fingerprint(state) != before:
                _broken("site_functions_are_pure", f"{ask.function.function_id} changes the state it is given")
            answers[site] = layout.flatten(contribution), rng
        for site in self._sites if ask.is_clear or self._sums.is_by_bucket(ask) else answers:
            summing.add(site, *answers[site])
        total = dataclasses.replace(summing.close(), sites=tuple(self._sites))
        return total, states if ask.function.is_stateful else {}


def _check_replay(workflow: Workflow[R], setting: HasSites, run: Run[R]) -> None:
    whole = dataclasses.replace(run.record, snapshot=None, rounds_before_snapshot=0)
    for record, start in ((whole, "the beginning"), (run.record, "the last snapshot")):
        try:
            result = replay(workflow, setting, record)
        except LocalProtocolError as error:
            raise AssertionError(f"replay_is_equal: from {start}: {error}") from error
        if fingerprint(result) != fingerprint(run.result):
            _broken("replay_is_equal", f"replayed from {start}, the result is another one")


def _check_masked(workflow: Workflow[R], setting: HasSites, hospitals: _Hospitals, run: Run[R]) -> None:
    if len(hospitals.sites) < LEAST_SITES:
        return
    secure = dataclasses.replace(hospitals.protection, secure_sums=True)
    masked = hospitals.simulation(setting, protection=secure).record(workflow)
    totals = [[pack_total(round_.total) for round_ in one.record.rounds] for one in (run, masked)]
    if totals[0] != totals[1] or fingerprint(masked.result) != fingerprint(run.result):
        _broken("masked_equals_unmasked", "with secure sums the totals or the result are other ones")


def _check_resume(
    workflow: Workflow[R], setting: HasSites, hospitals: _Hospitals, run: Run[R], max_crashes: int
) -> None:
    num_rounds = len(run.record.rounds)
    expected = fingerprint(run.result)
    step = -(-num_rounds // max(max_crashes, 1)) or 1
    for number in range(1, num_rounds + 1, step):
        kept = dataclasses.replace(
            run.record, rounds=run.record.rounds[:number], snapshot=None, rounds_before_snapshot=0
        )
        fresh = hospitals.simulation(setting)
        try:
            results = (
                fresh.record(workflow, resume=kept).result,
                _after_crash(workflow, setting, hospitals, number),
            )
        except WardroundError as error:
            raise AssertionError(f"resume_is_equal: after a crash in round {number}: {error}") from error
        if any(fingerprint(result) != expected for result in results):
            _broken("resume_is_equal", f"after a crash in round {number} the result is another one")


def _after_crash(workflow: Workflow[R], setting: HasSites, hospitals: _Hospitals, number: int) -> R:
    """Result of a run that ended when round `number` was on disk, and was resumed from its file."""
    asked: dict[str, Any] = {}

    def crash(progress: Progress) -> None:
        asked[progress.round.ask.function.function_id] = progress.round.ask.function
        if progress.round.number == number:
            raise _CrashError

    simulation = hospitals.simulation(setting, progress=crash)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "crashed.run"
        try:
            simulation.record(workflow, save_to=path)
        except _CrashError:
            number = -1
        record = load_record(path, Vocabulary(asked, {workflow.name: workflow.type}))
        return simulation.record(workflow, resume=record, save_to=path).result


def _check_small_counts(workflow: Workflow[Any], hospitals: _Hospitals, setting: HasSites) -> None:
    rules = getattr(setting, "disclosure", None)
    if not isinstance(rules, DisclosureRules):
        return
    for minimum_cell in _FLOORS:
        hiding: Any = dataclasses.replace(setting, disclosure=dataclasses.replace(rules, minimum_cell=minimum_cell))  # type: ignore[type-var]
        try:
            result = hospitals.simulation(hiding).run(workflow)
        except (DisclosureError, ConfigError):
            continue
        if not hasattr(result, "to_dict"):
            continue
        for what, text in (("summary", result.summary()), ("to_json", result.to_json())):
            if not isinstance(text, str):
                _broken("hides_small_counts", f"{what} is no text where counts below {minimum_cell} are hidden")
        result.to_frame()
        shown = shown_small_counts(result.to_dict(), minimum_cell)
        if shown:
            _broken("hides_small_counts", f"counts below {minimum_cell} are to be hidden, and are shown: {shown[:5]}")


def _check_arguments(workflow: Workflow[Any], record: RunRecord) -> None:
    for name in workflow.type.parameters.names:
        try:
            workflow.type.with_options({**workflow.options, name: object()}, workflow.name)
        except ConfigError:
            continue
        _broken("arguments_are_validated", f"option {name!r} accepts any object; annotate its type")
    for ask in {round_.ask.function.function_id: round_.ask for round_ in record.rounds}.values():
        for name in ask.function.parameters.names:
            try:
                Ask(ask.function, {**ask.arguments, name: object()})
            except LocalProtocolError:
                continue
            _broken(
                "arguments_are_validated",
                f"argument {name!r} of {ask.function.function_id} accepts any object; annotate its type",
            )
