"""Clear asks: refused unless agreed on, visible as such, and what robust means make of them."""

import dataclasses
import itertools
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.samples import Moments, Roster, Update, hospitals, moments, update
from wardround.engines.record import RunRecord, replay
from wardround.engines.record_file import load_record, save_record
from wardround.engines.script import Event
from wardround.engines.simulation import Progress, Simulation
from wardround.engines.summing import ClearSum, plain_sum
from wardround.errors import DisclosureError, LocalProtocolError, RemoteProtocolError, SiteError
from wardround.privacy.disclosure import DisclosureRules
from wardround.privacy.protection import PLAIN, SumProtection
from wardround.sums import (
    Array,
    Contribution,
    Steps,
    Vocabulary,
    ask,
    ask_each,
    bounded,
    exact,
    site_function,
    stateful_site_function,
    workflow,
)
from wardround.sums.contribution import layout_of
from wardround.sums.local import run_locally
from wardround.sums.message import pack_total
from wardround.sums.robust import coordinate_median, geometric_median, multi_krum, trimmed_mean
from wardround.testing.fingerprint import fingerprint

CLEAR = SumProtection(secure_sums=False, allows_clear=True)
MEANS = {
    "mean": lambda parts: np.mean(parts, axis=0),
    "median": coordinate_median,
    "trimmed": lambda parts: trimmed_mean(parts, 1),
    "krum": lambda parts: multi_krum(parts, 1),
    "geometric": geometric_median,
}


@workflow("clear.train", version=1)
def clear_training(setting: Roster, mean: str = "median", rounds: int = 3) -> Steps[tuple[float, ...]]:
    """Steps by a mean over the sites' own updates, after a sum."""
    params = (yield from ask(moments, np.zeros(3))).sum.total * 0.0
    for _ in range(rounds):
        total = yield from ask_each(update, params, 5.0)
        assert total.sites == tuple(site for part in total.parts for site in part.sites)
        params = params + MEANS[mean](np.stack([part.sum.step for part in total.parts]))
    return tuple(params.tolist())


@workflow("plain.train", version=1)
def plain_training(setting: Roster) -> Steps[tuple[float, ...]]:
    """The first round of the other, without its parts."""
    params = (yield from ask(moments, np.zeros(3))).sum.total * 0.0
    return tuple((yield from ask(update, params, 5.0)).sum.step.tolist())


VOCABULARY = Vocabulary(
    {f.function_id: f for f in (moments, update)}, {w.name: w for w in (clear_training, plain_training)}
)


def simulation(num_sites: int = 5, protection: SumProtection = CLEAR, **options: Any) -> Simulation:
    sites = options.pop("sites", None) or hospitals(num_sites)
    return Simulation(sites, Roster(tuple(sites)), protection=protection, **options)


# Who may ask


class Untouchable:
    """Data that nobody may look at."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError("the data were looked at")


class Anything(Contribution):
    value: float = exact()


CALLS: list[str] = []


@site_function("clear.spy", version=1, rows=lambda data: CALLS.append("rows") or 1, parameters=lambda: 1)
def spy(data: Any, /) -> Anything:
    """Remembers that it was called."""
    CALLS.append("computed")
    return Anything(value=1.0)


@workflow("clear.spying", version=1)
def spying(setting: Roster) -> Steps[float]:
    """One clear ask."""
    return (yield from ask_each(spy)).sum.value


@pytest.mark.parametrize(("allows_clear", "allows_site_results"), list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("more", [{}, {"minimum_rows_site": 2, "parameters_per_row": 0.1}])
def test_clear_asks_are_agreed_on(allows_clear: bool, allows_site_results: bool, more: dict[str, Any]) -> None:
    protection = SumProtection(secure_sums=False, allows_clear=allows_clear)
    rules = DisclosureRules(allows_site_results=allows_site_results, **(more if not allows_site_results else {}))
    sites = {"a": Untouchable(), "b": Untouchable(), "c": Untouchable()}
    simulated = Simulation(sites, Roster(("a", "b", "c")), protection=protection, disclosure=rules)
    CALLS.clear()
    if allows_clear and allows_site_results:
        assert simulated.run(spying()) == 3.0
        assert CALLS == ["computed"] * 3
        return
    with pytest.raises(DisclosureError) as caught:
        simulated.run(spying())
    assert caught.value.rule == ("allows_site_results" if allows_clear else "allows_clear")
    assert caught.value.site == "a"
    assert f"{caught.value.rule} = true" in str(caught.value)
    assert CALLS == []


def test_studies_do_not_allow_it_unless_they_say_so() -> None:
    assert not SumProtection().allows_clear
    assert not PLAIN.allows_clear
    with pytest.raises(DisclosureError, match="disclosure rule allows_clear of site 'site_0'"):
        simulation(protection=PLAIN).run(clear_training())


def test_a_hospital_may_keep_out_of_clear_asks() -> None:
    own = {"site_1": DisclosureRules(preset="own", minimum_cell=1)}
    with pytest.raises(DisclosureError, match="allows_site_results of site 'site_1'"):
        simulation(site_disclosure=own).run(clear_training())
    run = simulation(site_disclosure=own, minimum_sites=3).record(clear_training())
    assert [round_.total.num_sites for round_ in run.record.rounds] == [5, 4, 4, 4]
    assert "allows_site_results" in run.record.failures["site_1"]


# What they give


def test_clear_total_is_the_same() -> None:
    clear = simulation(seed=4).record(clear_training(rounds=1)).record.rounds[1]
    plain = simulation(seed=4, protection=PLAIN).record(plain_training()).record.rounds[1]
    assert clear.ask.is_clear
    assert not plain.ask.is_clear
    assert pack_total(dataclasses.replace(clear.total, parts=())) == pack_total(plain.total)
    assert plain.total.parts == ()
    assert clear.bytes_up == plain.bytes_up


def test_parts_are_the_sites_own() -> None:
    sites = hospitals(5)
    total = simulation(sites=sites).record(clear_training(rounds=1)).record.rounds[1].total
    assert [part.sites for part in total.parts] == [(site,) for site in sites]
    quantum = 5.0 / (2**15 - 2)
    for part, data in zip(total.parts, sites.values(), strict=True):
        own = update(data, np.zeros(3), 5.0)
        assert part.sum.loss == own.loss
        np.testing.assert_allclose(part.sum.step, own.step, atol=quantum)
    np.testing.assert_allclose(sum(part.sum.step for part in total.parts), total.sum.step, rtol=1e-12)
    with pytest.raises(ValueError, match="read-only"):
        total.parts[0].sum.step[0] = 1


@pytest.mark.parametrize("mean", [name for name in MEANS if name != "mean"])
def test_a_liar_does_not_move_a_robust_mean(mean: str) -> None:
    rng = np.random.default_rng(1)
    sites = {f"site_{i}": {"x": rng.normal(1.0, 0.5, (40, 3))} for i in range(7)}
    lie = Update(step=np.array([-1e9, 1e9, -1e9]), loss=0.0)
    script = [Event(site="site_3", behaviour="garbage", round=round_, garbage=lie) for round_ in (2, 3, 4)]
    honest, lied_to = (np.array(simulation(sites=sites, script=s).run(clear_training(mean=mean))) for s in ((), script))
    plain, moved = (np.array(simulation(sites=sites, script=s).run(clear_training(mean="mean"))) for s in ((), script))
    assert np.linalg.norm(moved - plain) > 0.6  # a clip norm of 5 over 7 sites
    assert np.linalg.norm(lied_to - honest) < 0.15


def test_who_is_missing_has_no_part() -> None:
    script = [
        Event(site="site_0", behaviour="drops_before", round=3),
        Event(site="site_4", behaviour="garbage", round=2, garbage=3),
    ]
    record = simulation(script=script, minimum_sites=2).record(clear_training()).record
    assert [[part.sites[0][-1] for part in round_.total.parts] for round_ in record.rounds] == [
        [],
        list("0123"),
        list("1234"),
        list("1234"),
    ]
    assert set(record.rounds[1].failures) == {"site_4"}


def test_a_site_that_fails_is_named() -> None:
    script = [Event(site="site_4", behaviour="garbage", round=2, garbage=3)]
    with pytest.raises(SiteError, match=r"site 'site_4', function sample\.update@1: expected a Update"):
        simulation(script=script).run(clear_training())


def test_refused_site_is_not_in_the_total() -> None:
    layout = layout_of(Moments, {"num_columns": 1})
    good = layout.flatten(Moments(total=np.ones(1), square=1.0, num_records=2))
    bad = layout.flatten(Moments(total=np.full(1, np.nan), square=1.0, num_records=2))
    for summing in (ClearSum(layout, 2), plain_sum(layout, 2)):
        summing.add("a", good, None)
        with pytest.raises(LocalProtocolError, match="contains NaN"):
            summing.add("b", bad, None)
        summing.add("c", good, None)
        total = summing.close()
        assert (total.sites, total.sum.num_records) == (("a", "c"), 4)
        assert summing.left_out == {}


def test_a_sum_has_room_for_the_sites_it_was_planned_for() -> None:
    layout = layout_of(Moments, {"num_columns": 1})
    summing = ClearSum(layout, 1)
    good = layout.flatten(Moments(total=np.ones(1), square=1.0, num_records=2))
    summing.add("a", good, None)
    with pytest.raises(LocalProtocolError, match="one more contribution"):
        summing.add("b", good, None)
    assert summing.close().sites == ("a",)


# One site by itself


class Visit(Contribution):
    step: Array = bounded(2, clip_norm=1.0, bits=8)
    number: float = exact()


@stateful_site_function("clear_visits.visit", version=1)
def visit(data: Any, state: int | None, rng: np.random.Generator, /) -> tuple[Visit, int]:
    seen = (state or 0) + 1
    return Visit(step=rng.normal(size=2), number=float(seen)), seen


@workflow("clear.visits", version=1)
def visits(setting: Roster) -> Steps[list[float]]:
    seen: list[float] = []
    for _ in range(3):
        total = yield from ask_each(visit)
        seen += [part.sum.number for part in total.parts]
    return seen


def test_equals_a_federation_of_one() -> None:
    sites = hospitals(1)
    expected = simulation(sites=sites, seed=7).record(clear_training(rounds=1))
    assert expected.record.rounds[1].total.parts[0].sites == ("site_0",)
    rng = np.random.default_rng([7, 2, 0])  # the engine's in round 2 of its first site
    got = run_locally(clear_training(rounds=1).steps(Roster(("site_0",))), sites["site_0"], "site_0", rng)
    assert got == expected.result
    assert run_locally(visits().steps(Roster(("x",))), None, "x", np.random.default_rng(0)) == [1.0, 2.0, 3.0]


# Records


def recorded() -> Any:
    return simulation(seed=2).record(clear_training())


def test_a_record_tells_what_was_asked_in_clear(tmp_path: Path) -> None:
    run = recorded()
    save_record(run.record, tmp_path / "a.run")
    loaded = load_record(tmp_path / "a.run", VOCABULARY)
    for record in (run.record, loaded):
        assert [round_.ask.is_clear for round_ in record.rounds] == [False, True, True, True]
        assert record.num_clear_rounds == 3
        assert [len(round_.total.parts) for round_ in record.rounds] == [0, 5, 5, 5]
        assert replay(clear_training(), Roster(record.sites), record) == run.result
    assert [pack_total(r.total) for r in loaded.rounds] == [pack_total(r.total) for r in run.record.rounds]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_resumed_run_equals_uninterrupted(number: int, tmp_path: Path) -> None:
    def crash(progress: Progress) -> None:
        if progress.round.number == number:
            raise KeyboardInterrupt

    path = tmp_path / "a.run"
    with pytest.raises(KeyboardInterrupt):
        simulation(seed=2, progress=crash).record(clear_training(), save_to=path)
    resumed = simulation(seed=2).record(clear_training(), resume=load_record(path, VOCABULARY), save_to=path)
    assert fingerprint(resumed.result) == fingerprint(recorded().result)
    assert load_record(path, VOCABULARY).num_clear_rounds == 3


def test_a_sum_is_not_replayed_as_a_clear_ask() -> None:
    record = recorded().record
    first, second, *rest = record.rounds
    plain = dataclasses.replace(second, ask=dataclasses.replace(second.ask, is_clear=False))
    changed: RunRecord = dataclasses.replace(record, rounds=(first, plain, *rest))
    with pytest.raises(LocalProtocolError, match="round 2: the workflow asks something else than the record holds"):
        replay(clear_training(), Roster(record.sites), changed)


def test_a_record_whose_parts_are_missing_is_refused(tmp_path: Path) -> None:
    run = recorded()
    path = tmp_path / "a.run"
    total = run.record.rounds[1].total
    joined = dataclasses.replace(total.parts[0], sites=total.sites[:2])
    for parts in ((), (joined, *total.parts[2:])):
        save_record(run.record, path)
        load_record(path, VOCABULARY)
        with sqlite3.connect(path) as connection:
            message = pack_total(dataclasses.replace(total, parts=parts))
            connection.execute("UPDATE round SET total = ? WHERE number = 2", (message,))
        connection.close()
        with pytest.raises(RemoteProtocolError, match="is not a run record"):
            load_record(path, VOCABULARY)
