import math
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.samples import Drift, Moments, Roster, hospitals, mean, moments, train, wander
from wardround.engines.record import RunRecord
from wardround.engines.script import Behaviour, Event
from wardround.engines.simulation import Progress, Run, Simulation
from wardround.errors import DataError, LocalProtocolError, QuorumError, SiteError
from wardround.sums import Array, Ask, Contribution, Snapshot, Steps, Total, ask, exact, site_function, workflow
from wardround.sums.message import pack_total
from wardround.testing import fingerprint


def simulation(num_sites: int = 3, **options: Any) -> Simulation:
    sites = options.pop("sites", None) or hospitals(num_sites)
    return Simulation(sites, Roster(tuple(sites)), **options)


def totals(record: RunRecord) -> list[bytes]:
    return [pack_total(round_.total) for round_ in record.rounds]


def answered(run: Run[Any]) -> list[list[int]]:
    """Numbers of the sites in each round's total."""
    return [[int(site[-1]) for site in round_.total.sites] for round_ in run.record.rounds]


# Results


def test_the_result_is_that_of_pooling() -> None:
    sites = hospitals(5)
    result = simulation(sites=sites).run(mean(num_columns=3, rounds=200))
    pooled = np.concatenate([data["x"] for data in sites.values()]).mean(axis=0)
    assert result == pytest.approx(pooled.tolist(), abs=1e-14)


@pytest.mark.parametrize("analysis", [mean(), train(), wander()])
def test_deterministic_for_a_seed(analysis: Any) -> None:
    runs = [simulation(seed=seed).record(analysis) for seed in (4, 4, 5)]
    assert totals(runs[0].record) == totals(runs[1].record)
    assert fingerprint(runs[0].result) == fingerprint(runs[1].result)
    assert (fingerprint(runs[0].result) == fingerprint(runs[2].result)) == (analysis.name == "mean")


@settings(max_examples=15)
@given(st.permutations(range(5)))
def test_exact_totals_do_not_depend_on_the_order_of_sites(order: list[int]) -> None:
    sites = hospitals(5)
    shuffled = {f"site_{i}": sites[f"site_{i}"] for i in order}
    results = [simulation(sites=those).run(mean()) for those in (sites, shuffled)]
    assert results[0] == results[1]


def test_one_site_and_many() -> None:
    assert len(simulation(1).record(mean()).record.sites) == 1
    sites = hospitals(300)
    run = simulation(sites=sites).record(mean(num_columns=3, rounds=1))
    assert run.record.rounds[0].total.sum.num_records == sum(len(data["x"]) for data in sites.values())


def test_progress_tells_of_every_round() -> None:
    seen: list[Progress] = []
    simulation(progress=seen.append).run(mean(rounds=3))
    assert [(p.workflow, p.round.number) for p in seen] == [("mean", 1), ("mean", 2), ("mean", 3)]


def test_the_record_says_what_happened() -> None:
    record = (
        simulation(script=[Event(site="site_1", behaviour="drops_before", round=2)], minimum_sites=2)
        .record(mean(rounds=3))
        .record
    )
    assert (record.workflow, record.version, record.sites) == ("mean", 1, ("site_0", "site_1", "site_2"))
    assert [round_.number for round_ in record.rounds] == [1, 2, 3]
    assert record.failures == {"site_1": "from round 2: dropped out"}
    assert record.bytes_up == 3 * (3 * 16 + 8)
    assert record.rounds[0].bytes_down > 16
    assert record.seconds > 0


def test_a_workflow_that_changes_its_arrays_does_not_change_the_record() -> None:
    record = simulation().record(train(rounds=4)).record  # `train` adds to its params in place
    params = [round_.ask.arguments["params"].tolist() for round_ in record.rounds]
    assert len({tuple(p) for p in params}) == 4


def test_a_site_cannot_change_what_the_next_one_is_sent() -> None:
    @site_function("spoil.center", version=1, symbols=lambda center: {"num_columns": len(center)})
    def spoil(data: Any, /, center: Array) -> Moments:
        center += 1
        raise AssertionError

    @workflow("spoil", version=1)
    def spoiled(setting: Roster) -> Steps[None]:
        yield from ask(spoil, np.zeros(2))

    with pytest.raises(SiteError, match="ValueError at"):
        simulation().run(spoiled())


# Scripts


def event(site: int, behaviour: Behaviour, round_: int, **more: Any) -> Event:
    return Event(site=f"site_{site}", behaviour=behaviour, round=round_, **more)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ([], [[0, 1, 2], [0, 1, 2], [0, 1, 2]]),
        ([event(1, "drops_before", 1)], [[0, 2], [0, 2], [0, 2]]),
        ([event(1, "drops_before", 2)], [[0, 1, 2], [0, 2], [0, 2]]),
        ([event(1, "drops_after", 2)], [[0, 1, 2], [0, 1, 2], [0, 2]]),
        ([event(1, "drops_after", 1), event(1, "drops_before", 3)], [[0, 1, 2], [0, 2], [0, 2]]),
        ([event(0, "lags", 2, seconds=60.0)], [[0, 1, 2], [0, 1, 2], [0, 1, 2]]),
        ([event(0, "lags", 2, seconds=60.1)], [[0, 1, 2], [1, 2], [0, 1, 2]]),
        ([event(0, "lags", 2, seconds=99), event(0, "lags", 2, seconds=1)], [[0, 1, 2], [1, 2], [0, 1, 2]]),
        ([event(0, "lags", 1, seconds=99), event(0, "drops_after", 1)], [[1, 2], [1, 2], [1, 2]]),
        ([event(2, "lags", 1, seconds=99), event(2, "drops_before", 3)], [[0, 1], [0, 1, 2], [0, 1]]),
        ([event(2, "garbage", 2)], [[0, 1, 2], [0, 1], [0, 1, 2]]),
        ([event(2, "garbage", 2), event(2, "lags", 2, seconds=99)], [[0, 1, 2], [0, 1], [0, 1, 2]]),
        ([event(2, "garbage", 1), event(2, "drops_after", 1)], [[0, 1], [0, 1], [0, 1]]),
        ([event(0, "drops_before", 3), event(1, "garbage", 1)], [[0, 2], [0, 1, 2], [1, 2]]),
    ],
)
def test_scripts(script: list[Event], expected: list[list[int]]) -> None:
    run = simulation(script=script, minimum_sites=1).record(mean(rounds=3))
    assert answered(run) == expected
    for round_, sites in zip(run.record.rounds, expected, strict=True):
        assert round_.total.sum.num_records == sum(5 + site for site in sites)
        assert set(round_.failures) == {f"site_{i}" for i in range(3)} - set(round_.total.sites)


def test_the_reasons_are_said() -> None:
    script = [event(0, "lags", 1, seconds=61), event(1, "drops_before", 1), event(2, "garbage", 1, garbage=7)]
    run = simulation(4, script=script, minimum_sites=1).record(mean(rounds=1))
    assert run.record.rounds[0].failures == {
        "site_0": "answered after 61 s, the deadline is 60 s",
        "site_1": "dropped out",
        "site_2": "site 'site_2', function sample.moments@1: expected a Moments, the site function returned int",
    }


def bad(**changed: Any) -> Moments:
    fields: dict[str, Any] = {"total": np.zeros(2), "square": 0.0, "num_records": 1}
    return Moments(**(fields | changed))


GARBAGE: list[tuple[Any, str]] = [
    (None, "expected a Moments"),
    (object(), "expected a Moments"),
    (Drift(moved=np.zeros(2)), "expected a Moments"),
    ({"total": [0, 0]}, "expected a Moments"),
    (bad(total=np.array([0.0, math.nan])), r"Moments\.total contains NaN"),
    (bad(square=math.inf), r"Moments\.square contains infinity"),
    (bad(square=1e300), r"Moments\.square contains a number of 3\.1e\+18 or more"),
    (bad(total=np.zeros(3)), r"Moments\.total must have shape \(2,\), got \(3,\)"),
    (bad(total=np.zeros((10_000, 1_000), np.int8)), r"Moments\.total must have shape"),
    (bad(total="sick"), r"Moments\.total holds <U4"),
    (bad(total=[[1], [1, 2]]), r"Moments\.total cannot be read"),
    (bad(num_records=-1), r"Moments\.num_records counts people and contains a negative number"),
    (bad(num_records=2**62), r"Moments\.num_records counts people and contains one too large"),
    (bad(num_records=2**70), r"Moments\.num_records holds object"),
    (bad(num_records=0.5), r"Moments\.num_records holds float64"),
    (bad(num_records=None), r"Moments\.num_records holds object"),
]


@pytest.mark.parametrize(("garbage", "message"), GARBAGE)
def test_garbage_of_every_kind_is_kept_out(garbage: Any, message: str) -> None:
    script = [event(1, "garbage", 2, garbage=garbage)]
    with pytest.raises(SiteError, match=rf"site 'site_1', function sample\.moments@1: {message}") as caught:
        simulation(script=script).run(mean())
    assert (caught.value.site, caught.value.function) == ("site_1", "sample.moments@1")
    run = simulation(script=script, minimum_sites=2).record(mean(rounds=2))
    assert answered(run) == [[0, 1, 2], [0, 2]]


def test_garbage_that_fits_is_counted_in() -> None:
    run = simulation(script=[event(1, "garbage", 1, garbage=bad(num_records=1000))]).record(mean(rounds=1))
    assert run.record.rounds[0].total.sum.num_records == 5 + 1000 + 7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Event(site="a", behaviour="sleeps", round=1), "behaviour must be one of drops_before, "),  # type: ignore[arg-type]
        (lambda: event(0, "lags", 0), "counted from 1, got round=0"),
        (lambda: event(0, "lags", 1, seconds=-1), "seconds must be >= 0"),
        (lambda: event(0, "lags", 1, seconds=math.nan), "seconds must be >= 0"),
        (lambda: simulation(script=[event(7, "lags", 1)]), "unknown sites: site_7"),
        (lambda: simulation(script=[event(0, "garbage", 1)] * 2), "send garbage twice in round 1"),
        (lambda: simulation(minimum_sites=0), r"minimum_sites must be in \[1, 3\], got minimum_sites=0"),
        (lambda: simulation(minimum_sites=4), r"minimum_sites must be in \[1, 3\], got minimum_sites=4"),
        (lambda: simulation(seed=-1), "seed must be >= 0"),
        (lambda: Simulation({}, Roster(())), "at least one site"),
        (lambda: Simulation({"a": 1}, Roster(("b",))), "the setting names sites"),
        (lambda: Simulation({"a": 1, "b": 1}, Roster(("b", "a"))), "the setting names sites"),
    ],
)
def test_wrong_arguments_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@given(st.sets(st.integers(0, 4)), st.integers(1, 5))
def test_quorum_holds(gone: set[int], minimum: int) -> None:
    script = [event(site, "drops_before", 2) for site in gone]
    federation = simulation(5, script=script, minimum_sites=minimum)
    if 5 - len(gone) >= minimum:
        assert answered(federation.record(mean(rounds=2)))[1] == sorted(set(range(5)) - gone)
    else:
        with pytest.raises(QuorumError, match=rf"round 2 .*: {5 - len(gone)} of 5 sites .*, at least {minimum} must"):
            federation.record(mean(rounds=2))


def test_state_is_not_advanced_in_a_round_that_does_not_count() -> None:
    class Strange(Contribution):
        moved: Array = exact(3)

    plain = simulation().record(wander(rounds=3))
    script = [event(1, "garbage", 2, garbage=Strange(moved=np.zeros(3)))]
    with_garbage = simulation(script=script, minimum_sites=2).record(wander(rounds=3))
    late = simulation(script=[event(1, "lags", 2, seconds=99)], minimum_sites=2).record(wander(rounds=3))
    assert totals(with_garbage.record) == totals(late.record)
    assert totals(plain.record)[0] == totals(late.record)[0]


# Errors that show no value

SECRET = "Erika-Mustermann-1964"
NUMBER = 271828.1828


def leaks(error: BaseException) -> bool:
    """Whether a value is anywhere in an error: its text, its chain, its traceback with local variables."""
    texts = [str(error), repr(error), repr(vars(error)), *getattr(error, "__notes__", ())]
    texts += traceback.TracebackException.from_exception(error, capture_locals=True).format()
    chained = [link for link in (error.__cause__, error.__context__) if link]
    return any(secret in text for text in texts for secret in (SECRET, "271828")) or any(map(leaks, chained))


def fail_twice(name: str) -> None:
    try:
        float(name)
    except ValueError as error:
        raise RuntimeError(NUMBER) from error


def failing(kind: str) -> Any:
    @site_function("leak.fail", version=1)
    def fail(data: dict[str, Any], /) -> Drift:
        name, number = data["name"], data["number"]
        if kind == "key":
            return {}[name]
        if kind == "value":
            raise ValueError(f"patient {name} has {number}")
        if kind == "group":
            raise ExceptionGroup(name, [ValueError(name)])
        if kind == "chained":
            fail_twice(name)
        assert kind != "assertion", f"{name} {number}"
        if kind == "garbage":
            return Drift(moved=np.array([number, math.nan]))
        if kind == "text":
            return Drift(moved=name)
        return Drift(moved=np.array([number] * 3))

    @workflow("leak", version=1)
    def leak(setting: Roster) -> Steps[None]:
        yield from ask(fail)

    return leak()


KINDS = ["key", "value", "group", "chained", "assertion", "garbage", "text", "shape"]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_show_no_value(kind: str) -> None:
    sites = {"north": {"name": SECRET, "number": NUMBER}, "south": {"name": SECRET, "number": NUMBER}}
    with pytest.raises(SiteError, match=r"site 'north', function leak\.fail@1: ") as caught:
        Simulation(sites, Roster(("north", "south"))).run(failing(kind))
    frames = [frame for frame in traceback.extract_tb(caught.value.__traceback__) if "engines" in frame.filename]
    assert frames
    error = caught.value
    error.__traceback__ = own_frames(error)
    assert not leaks(error)
    assert error.__cause__ is None
    assert error.__context__ is None


def own_frames(error: BaseException) -> Any:
    """The traceback without this file's frames, which hold the secret by right."""
    tb = error.__traceback__
    while tb and tb.tb_frame.f_code.co_filename == __file__:
        tb = tb.tb_next
    return tb


def test_a_leak_would_be_noticed() -> None:
    sites = {"north": {"name": SECRET, "number": NUMBER}}
    with pytest.raises(SiteError) as caught:
        Simulation(sites, Roster(("north",)), shows_site_errors=True).run(failing("value"))
    assert leaks(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)


def test_the_error_says_kind_and_place() -> None:
    sites = {"north": {"name": SECRET, "number": NUMBER}}
    with pytest.raises(SiteError, match=r"site 'north', function leak\.fail@1: KeyError at test_simulation\.py:\d+$"):
        Simulation(sites, Roster(("north",))).run(failing("key"))


def test_our_own_errors_are_shown() -> None:
    @site_function("own.fail", version=1)
    def fail(data: Any, /) -> Drift:
        raise DataError("column 'age' is missing in 12 rows")

    @workflow("own", version=1)
    def own(setting: Roster) -> Steps[None]:
        yield from ask(fail)

    with pytest.raises(SiteError, match="column 'age' is missing in 12 rows"):
        simulation().run(own())


# Workflows that break the rules


def test_what_is_no_step_is_refused() -> None:
    @workflow("odd", version=1)
    def odd(setting: Roster) -> Steps[None]:
        yield 3  # type: ignore[misc]

    with pytest.raises(LocalProtocolError, match="yields asks and snapshots, this one yielded a int"):
        simulation().run(odd())


def test_a_snapshot_needs_a_parameter_to_come_back_by() -> None:
    @workflow("lost", version=1)
    def lost(setting: Roster) -> Steps[None]:
        yield Snapshot(Roster(()))

    with pytest.raises(LocalProtocolError, match="must take `snapshot"):
        simulation().run(lost())


def test_an_error_of_the_workflow_comes_out_as_it_is() -> None:
    @workflow("broken", version=1)
    def broken(setting: Roster) -> Steps[None]:
        total: Total[Moments] = yield Ask(moments, {"center": np.zeros(1)})
        raise ZeroDivisionError(total.num_sites)

    with pytest.raises(ZeroDivisionError, match="3"):
        simulation().run(broken())
