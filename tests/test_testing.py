"""The shipped contract suite passes good workflows and catches each kind of bad one."""

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest
from pydantic import PlainSerializer

from tests.analytics.by_hand import number, tables_of
from tests.samples import Drift, Moments, Roster, Trained, Update, hospitals, mean, moments, train, update, wander
from wardround.analytics.census import census, count
from wardround.data.contract import Setting
from wardround.engines import secure_sum
from wardround.errors import DisclosureError
from wardround.privacy.disclosure import DisclosureRules
from wardround.privacy.protection import SumProtection
from wardround.sums import (
    Array,
    Snapshot,
    Steps,
    Workflow,
    ask,
    ask_each,
    site_function,
    stateful_site_function,
    workflow,
)
from wardround.testing import check_workflow, fingerprint
from wardround.testing.small_counts import shown_small_counts

SITES = hospitals(3)
ROSTER = Roster(tuple(SITES))


@pytest.mark.parametrize("analysis", [mean(), train(), wander(), mean(rounds=0)], ids=lambda a: a.name)
def test_good_workflows_pass(analysis: Workflow[Any]) -> None:
    result = check_workflow(analysis, SITES, ROSTER)
    assert result is not None


def workflow_asking(function: Any, *arguments: Any, rounds: int = 2) -> Workflow[Any]:
    @workflow("bad", version=1)
    def bad(setting: Roster) -> Steps[list[float]]:
        seen = []
        for _ in range(rounds):
            total = yield from ask(function, *arguments)
            seen.append(float(np.sum(total.sum.moved)))
        return seen

    return bad()


def forgetful_clock() -> Workflow[Any]:
    clock = itertools.count()

    @workflow("bad", version=1)
    def bad(setting: Roster) -> Steps[int]:
        yield from ask(moments, np.zeros(1))
        return next(clock)

    return bad()


def wandering_question() -> Workflow[Any]:
    clock = itertools.count()

    @workflow("bad", version=1)
    def bad(setting: Roster) -> Steps[None]:
        yield from ask(moments, np.full(1, float(next(clock))))

    return bad()


def global_randomness() -> Workflow[Any]:
    @site_function("bad.random", version=1)
    def random(data: Any, /) -> Drift:
        return Drift(moved=np.random.default_rng().normal(size=2))

    return workflow_asking(random)


def order_of_calls() -> Workflow[Any]:
    calls = itertools.count()

    @site_function("bad.order", version=1)
    def order(data: Any, /) -> Drift:
        return Drift(moved=data["x"][0, :2] * (next(calls) % 3))

    return workflow_asking(order)


def changed_data() -> Workflow[Any]:
    @site_function("bad.change", version=1)
    def change(data: Any, /) -> Drift:
        data["x"] -= data["x"].mean(axis=0)
        return Drift(moved=data["x"][0, :2])

    return workflow_asking(change)


def cached_data() -> Workflow[Any]:
    @site_function("bad.cache", version=1)
    def cache(data: Any, /) -> Drift:
        data["mean"] = data["x"].mean(axis=0)
        return Drift(moved=data["mean"][:2])

    return workflow_asking(cache)


def changed_state() -> Workflow[Any]:
    @stateful_site_function("bad.state", version=1)
    def state(data: Any, state: list[float] | None, rng: np.random.Generator, /) -> tuple[Drift, list[float]]:
        state = [] if state is None else state
        state.append(1.0)
        return Drift(moved=np.full(2, float(len(state)))), state

    return workflow_asking(state)


@dataclass(frozen=True)
class Hidden:
    shown: float
    hidden: float = field(default=1.0, init=False)


def lossy_argument() -> Workflow[Any]:
    @site_function("bad.lossy", version=1)
    def lossy(data: Any, /, how: Annotated[float, PlainSerializer(lambda value: round(value, 1))]) -> Drift:
        return Drift(moved=np.full(2, how))

    return workflow_asking(lossy, 0.123)


def unreadable_argument() -> Workflow[Any]:
    @site_function("bad.hidden", version=1)
    def hidden(data: Any, /, how: Hidden) -> Drift:
        return Drift(moved=np.full(2, how.hidden))

    return workflow_asking(hidden, Hidden(0.123))


def incomplete_snapshot() -> Workflow[Any]:
    @workflow("bad", version=1)
    def bad(setting: Roster, snapshot: Trained | None = None) -> Steps[float]:
        state, square = snapshot or Trained(np.zeros(1), 0), 0.0
        for i in range(state.rounds, 4):
            square += (yield from ask(moments, np.zeros(1))).sum.square  # not in the snapshot
            yield Snapshot(Trained(np.zeros(1), i + 1))
        return square

    return bad()


def memory_between_runs() -> Workflow[Any]:
    seen: list[bytes] = []

    @workflow("bad", version=1)
    def bad(setting: Roster) -> Steps[int]:
        total = yield from ask(moments, np.zeros(1))
        seen.append(total.sum.total.tobytes())
        return 1 if len(seen) < 3 else 2  # differs only when it is replayed

    return bad()


def resumed_differently() -> Workflow[Any]:
    starts = itertools.count()

    @workflow("bad", version=1)
    def bad(setting: Roster) -> Steps[int]:
        start = next(starts)
        yield from ask(moments, np.zeros(1))
        yield from ask(moments, np.ones(1))
        return 0 if start < 4 else start

    return bad()


def unchecked_option() -> Workflow[Any]:
    @workflow("bad", version=1)
    def bad(setting: Roster, anything: Any = None) -> Steps[None]:
        yield from ask(moments, np.zeros(1))

    return bad()


def unchecked_argument() -> Workflow[Any]:
    @site_function("bad.unchecked", version=1)
    def unchecked(data: Any, /, anything: Any) -> Drift:
        return Drift(moved=np.zeros(2))

    return workflow_asking(unchecked, 3)


@pytest.mark.parametrize(
    ("make", "guarantee"),
    [
        (forgetful_clock, "is_deterministic: the same totals gave another result"),
        (wandering_question, "is_deterministic: round 1 asked something else"),
        (global_randomness, "is_deterministic: the total of round 1"),
        (order_of_calls, "site_functions_are_pure: round 1"),
        (changed_data, "site_functions_leave_their_data_alone: the data of 'site_0' changed"),
        (cached_data, "site_functions_leave_their_data_alone: the data of 'site_0' changed"),
        (changed_state, "site_functions_are_pure: bad.state@1 changes the state"),
        (lossy_argument, "messages_survive_their_bytes: round 1"),
        (unreadable_argument, "messages_survive_their_bytes: round 1"),
        (memory_between_runs, "replay_is_equal: replayed from the beginning"),
        (incomplete_snapshot, "replay_is_equal: replayed from the last snapshot"),
        (resumed_differently, "resume_is_equal: after a crash in round 1"),
        (unchecked_option, "arguments_are_validated: option 'anything'"),
        (unchecked_argument, "arguments_are_validated: argument 'anything' of bad.unchecked@1"),
    ],
)
def test_each_bad_workflow_is_caught(make: Callable[[], Workflow[Any]], guarantee: str) -> None:
    with pytest.raises(AssertionError, match=f"^{guarantee}"):
        check_workflow(make(), hospitals(3), ROSTER)


@workflow("clear", version=1)
def clear(setting: Roster) -> Steps[list[float]]:
    total = yield from ask_each(update, np.zeros(3), 1.0)
    return [float(part.sum.step[0]) for part in total.parts]


@pytest.mark.parametrize(
    ("analysis", "num_sites", "protection"),
    [
        (clear(), 3, SumProtection(secure_sums=False, allows_clear=True)),
        (train(), 9, SumProtection(bucket_size=3)),
    ],
    ids=["clear", "buckets"],
)
def test_workflows_are_checked_under_their_protection(
    analysis: Workflow[Any], num_sites: int, protection: SumProtection
) -> None:
    sites = hospitals(num_sites)
    assert check_workflow(analysis, sites, Roster(tuple(sites)), protection=protection) is not None


def test_totals_that_masks_change_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = secure_sum.contribution_of
    monkeypatch.setattr(secure_sum, "contribution_of", lambda words, *more: honest(words + np.uint64(2**60), *more))
    with pytest.raises(AssertionError, match=r"^masked_equals_unmasked"):
        check_workflow(mean(), SITES, ROSTER)


@dataclass(frozen=True)
class Ward:
    num_patients: int
    num_iterations: int

    def summary(self) -> str:
        return f"{self.num_patients} patients"

    def to_frame(self) -> pd.DataFrame:
        return pd.DataFrame([vars(self)])

    def to_dict(self) -> dict[str, Any]:
        return {"wards": [{"num_patients": self.num_patients}], "num_iterations": self.num_iterations}

    def to_json(self) -> str:
        return str(self.to_dict())


@workflow("ward", version=1)
def ward(setting: Setting, refuses: bool = False) -> Steps[Ward]:
    total = yield from ask(count)
    if refuses and setting.disclosure.is_small(total.sum.num_patients):
        raise DisclosureError("minimum_cell", "too few")
    return Ward(total.sum.num_patients, 3)


def test_a_shown_small_count_is_caught() -> None:
    tables, setting = tables_of([number("x")], {"x": np.arange(6.0)}, np.arange(6) % 2)
    allowed = dataclasses.replace(setting, disclosure=DisclosureRules.of("none"))
    with pytest.raises(AssertionError, match=r"^hides_small_counts: counts below 7 .*wards\[0\].num_patients = 6"):
        check_workflow(ward(), tables, allowed)
    assert check_workflow(ward(refuses=True), tables, allowed).num_patients == 6
    assert check_workflow(census(), tables, allowed).num_patients == 6


def test_all_numbers_under_a_count_of_people_are_looked_at() -> None:
    whole = {"num_missing": {"age": 3, "sex": [0, 2.0, None]}, "groups": [{"count": 1}], "num_sites": 2, "mean": 1}
    assert shown_small_counts(whole, 5) == ["num_missing.age = 3", "num_missing.sex[1] = 2.0", "groups[0].count = 1"]


def test_the_suite_leaves_the_given_data_alone() -> None:
    before = fingerprint(SITES)
    check_workflow(train(), SITES, ROSTER)
    assert fingerprint(SITES) == before


# Fingerprints


@dataclass(frozen=True)
class Node:
    value: Any


class Plain:
    def __init__(self, value: Any) -> None:
        self.value = value


FRAME = pd.DataFrame({"a": [1.0, np.nan], "b": ["x", None]})
DIFFERENT = [
    0, 1, -1, 0.0, -0.0, 1.0, np.nan, True, None, "", "1", b"1", (1,), [1], {1}, {1: 1}, {"1": 1}, (1, (2,)), ((1, 2),),
    np.zeros(2), -np.zeros(2), np.zeros((2, 1)), np.zeros(2, np.float32), np.float64(1), np.array(["a"], object),
    np.array(["b"], object), Node(1), Node(2), Plain(1), Plain(2), FRAME, FRAME[["a"]], FRAME["a"], FRAME.index,
    FRAME.rename(columns={"a": "c"}), FRAME.set_axis([1, 2]), Moments, Update, Array,
]  # fmt: skip


def test_different_values_have_different_fingerprints() -> None:
    assert len({fingerprint(value) for value in DIFFERENT}) == len(DIFFERENT)


def test_equal_values_have_equal_fingerprints() -> None:
    assert fingerprint(np.arange(6.0)[::2]) == fingerprint(np.array([0.0, 2.0, 4.0]))
    assert fingerprint({"b", "a", "c"}) == fingerprint({"c", "b", "a"})
    assert fingerprint(FRAME.copy()) == fingerprint(FRAME)
    assert fingerprint((FRAME, FRAME)) == fingerprint((FRAME, FRAME.copy()))
    assert fingerprint(Plain([np.nan])) == fingerprint(Plain([np.nan]))


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="a list contains itself"):
        fingerprint(loop)
