"""Sums by buckets of sites: the median over them, who is left out, and which rules hold of each."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.samples import VOCABULARY, Roster, Update, hospitals, mean, moments, train
from wardround.engines.record import replay
from wardround.engines.record_file import load_record
from wardround.engines.script import Event
from wardround.engines.simulation import Progress, Simulation
from wardround.engines.summing import BucketSum, ClearSum, PlainSum, Summing, buckets_of, plain_sum
from wardround.errors import (
    ConfigError,
    ContributionError,
    DisclosureError,
    QuorumError,
    RemoteProtocolError,
    SiteError,
)
from wardround.privacy.disclosure import PRESETS
from wardround.privacy.protection import PLAIN, SumProtection
from wardround.sums import (
    Array,
    Contribution,
    Steps,
    Total,
    ask,
    ask_each,
    bounded,
    exact,
    people,
    site_function,
    stateful_site_function,
    workflow,
)
from wardround.sums.contribution import layout_of
from wardround.sums.message import pack_total
from wardround.testing.fingerprint import fingerprint

BY_THREE = SumProtection(secure_sums=False, bucket_size=3)


class Step(Contribution):
    step: Array = bounded(3, clip_norm=5.0, bits=24)
    loss: float = exact()
    num_records: int = people()


@site_function("bucket.step", version=1, symbols=lambda params: {})
def step_to_mean(data: dict[str, np.ndarray], /, params: Array) -> Step:
    """The way to this site's mean."""
    step = data["x"].mean(axis=0) - params
    return Step(step=step, loss=float((step**2).sum()), num_records=len(data["x"]))


@workflow("bucket.means", version=1)
def means(setting: Roster, rounds: int = 1) -> Steps[tuple[float, ...]]:
    """Steps to the sites' mean, and a count without bounded fields before them."""
    params = (yield from ask(moments, np.zeros(3))).sum.total * 0.0
    for _ in range(rounds):
        total = yield from ask(step_to_mean, params)
        params = params + total.sum.step / total.num_sites
    return tuple(params.tolist())


WORDS = dataclasses.replace(
    VOCABULARY,
    functions={f.function_id: f for f in (moments, step_to_mean)} | dict(VOCABULARY.functions),
    workflows={means.name: means} | dict(VOCABULARY.workflows),
)


def alike(num_sites: int) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return {f"site_{i}": {"x": rng.normal(1.0, 0.5, (40, 3))} for i in range(num_sites)}


def simulation(num_sites: int = 9, protection: SumProtection = BY_THREE, **options: Any) -> Simulation:
    sites = options.pop("sites", None) or alike(num_sites)
    return Simulation(sites, Roster(tuple(sites)), protection=protection, **options)


def event(site: int, behaviour: Any, number: int, **more: Any) -> Event:
    return Event(site=f"site_{site}", behaviour=behaviour, round=number, **more)


def numbers(total: Total[Any]) -> list[str]:
    """The sites of each part, as digits."""
    return ["".join(site.removeprefix("site_") for site in part.sites) for part in total.parts]


# Who is in which bucket


@given(st.integers(9, 200), st.integers(3, 20))
def test_buckets_are_neighbours_of_nearly_equal_size(num_sites: int, bucket_size: int) -> None:
    sites = [f"s{i}" for i in range(num_sites)]
    if num_sites // bucket_size < 3:
        with pytest.raises(ConfigError, match="a median needs at least 3"):
            buckets_of(sites, bucket_size)
        return
    buckets = buckets_of(sites, bucket_size)
    assert [site for bucket in buckets for site in bucket] == sites
    assert len(buckets) == num_sites // bucket_size
    assert min(map(len, buckets)) >= bucket_size
    assert max(map(len, buckets)) - min(map(len, buckets)) <= 1


@pytest.mark.parametrize(("num_sites", "size"), [(8, 3), (11, 4), (2, 3)])
def test_fewer_than_three_buckets_are_refused_at_once(num_sites: int, size: int) -> None:
    protection = SumProtection(secure_sums=False, bucket_size=size)
    with pytest.raises(ConfigError, match=r"a median needs at least 3"):
        simulation(num_sites, protection)
    assert simulation(3 * size, protection).sites


# What they give


def test_bounded_fields_are_medians_over_buckets() -> None:
    sites = alike(10)
    run = simulation(sites=sites).record(means())
    total = run.record.rounds[1].total
    assert numbers(total) == ["0123", "456", "789"]
    steps = np.array([data["x"].mean(axis=0) for data in sites.values()])
    by_hand = np.median([steps[:4].mean(axis=0), steps[4:7].mean(axis=0), steps[7:].mean(axis=0)], axis=0)
    np.testing.assert_allclose(total.sum.step, 10 * by_hand, atol=1e-5)
    np.testing.assert_allclose(total.parts[1].sum.step, steps[4:7].sum(axis=0), atol=1e-5)
    assert total.num_sites == 10


def test_exact_fields_and_counts_are_plain_sums() -> None:
    by_bucket = simulation(seed=3).record(means()).record.rounds[1].total
    plain = simulation(seed=3, protection=PLAIN).record(means()).record.rounds[1].total
    assert by_bucket.sum.num_records == plain.sum.num_records == 360
    assert by_bucket.sum.loss == pytest.approx(plain.sum.loss, rel=1e-15)
    assert by_bucket.sites == plain.sites
    assert (by_bucket.sum.step != plain.sum.step).any()


def test_asks_without_bounded_fields_are_summed_as_ever() -> None:
    by_bucket = simulation().record(mean(num_columns=3))
    plain = simulation(protection=PLAIN).record(mean(num_columns=3))
    assert by_bucket.result == plain.result
    for one, other in zip(by_bucket.record.rounds, plain.record.rounds, strict=True):
        assert one.total.parts == ()
        assert pack_total(one.total) == pack_total(other.total)
        assert one.bytes_up == other.bytes_up


@pytest.mark.parametrize("liar", [0, 4, 8])
def test_one_bucket_with_liars_does_not_move_the_median_far(liar: int) -> None:
    lie = Step(step=np.full(3, -1e9), loss=0.0, num_records=40)
    first = 3 * (liar // 3)
    script = [event(site, "garbage", 2, garbage=lie) for site in range(first, first + 3)]
    honest, lied_to = (np.array(simulation(script=s).run(means())) for s in ((), script))
    plain = np.array(simulation(script=script, protection=PLAIN).run(means()))
    assert np.linalg.norm(lied_to - honest) < 0.2
    assert np.linalg.norm(plain - honest) > 1.5
    two = [*script, event((first + 3) % 9, "garbage", 2, garbage=lie)]
    assert np.linalg.norm(np.array(simulation(script=two).run(means())) - honest) > 0.5


def test_deterministic_for_a_seed() -> None:
    analysis = train(rounds=4)
    runs = [simulation(sites=hospitals(9), seed=seed).record(analysis).record for seed in (1, 1, 2)]
    totals = [[pack_total(round_.total) for round_ in record.rounds] for record in runs]
    assert totals[0] == totals[1]
    assert totals[0] != totals[2]


# Who is left out


def test_small_buckets_are_left_out() -> None:
    run = simulation(13, minimum_sites=6, script=[event(5, "drops_before", 2)]).record(means(rounds=2))
    assert [numbers(round_.total) for round_ in run.record.rounds] == [
        [],
        ["0123", "789", "101112"],
        ["0123", "789", "101112"],
    ]
    failures = run.record.rounds[1].failures
    assert set(failures) == {"site_4", "site_5", "site_6"}
    assert failures["site_5"] == "dropped out"
    assert failures["site_4"] == (
        "left out with its bucket (number 2: site_4, site_5, site_6), of which fewer than 3 sites are left"
    )
    steps = np.array([data["x"].mean(axis=0) for data in alike(13).values()])
    by_hand = np.median([steps[:4].mean(axis=0), steps[7:10].mean(axis=0), steps[10:].mean(axis=0)], axis=0)
    np.testing.assert_allclose(run.record.rounds[1].total.sum.step, 10 * by_hand, atol=1e-5)
    assert run.record.rounds[1].total.sum.num_records == 400


def test_a_large_bucket_may_lose_a_site() -> None:
    run = simulation(10, minimum_sites=6, script=[event(0, "drops_before", 2)]).record(means())
    assert numbers(run.record.rounds[1].total) == ["123", "456", "789"]


def test_the_quorum_counts_those_left_out() -> None:
    script = [event(5, "drops_before", 2)]
    with pytest.raises(QuorumError, match=r"10 of 13 .* at least 11 must .*left out with its bucket"):
        simulation(13, minimum_sites=11, script=script).run(means())


def test_median_is_over_three_buckets_or_more() -> None:
    script = [event(5, "drops_before", 2)]
    with pytest.raises(QuorumError, match=r"round 2 \(bucket\.step@1\): 2 of 3 buckets have 3 sites .*dropped out"):
        simulation(9, minimum_sites=3, script=script).run(means())
    garbage = [event(5, "garbage", 2, garbage=None)]
    with pytest.raises(SiteError, match="expected a Step"):
        simulation(9, minimum_sites=3, script=garbage).run(means())


class Walk(Contribution):
    step: Array = bounded(1, clip_norm=100.0, bits=32)
    visit: float = exact()


@stateful_site_function("bucket_walk.step", version=1)
def walk(data: Any, state: int | None, rng: np.random.Generator, /) -> tuple[Walk, int]:
    """Counts its own visits."""
    visit = (state or 0) + 1
    return Walk(step=np.ones(1), visit=float(visit)), visit


@workflow("bucket.walk", version=1)
def walking(setting: Roster, rounds: int = 4) -> Steps[list[list[float]]]:
    """By round and bucket, the sum of visits."""
    seen = []
    for _ in range(rounds):
        total = yield from ask(walk)
        seen.append([part.sum.visit for part in total.parts])
    return seen


@pytest.mark.parametrize("number", [1, 2, 3])
def test_state_is_not_advanced_where_a_bucket_is_left_out(number: int) -> None:
    script = [event(5, "lags", 2, seconds=99)]

    def crash(progress: Progress) -> None:
        if progress.round.number == number:
            raise KeyboardInterrupt

    expected = [[3.0] * 4, [6.0] * 3, [9.0, 6.0, 9.0, 9.0], [12.0, 9.0, 12.0, 12.0]]
    whole = simulation(12, minimum_sites=9, script=script).record(walking())
    assert whole.result == expected
    seen: list[Any] = []
    broken = simulation(12, minimum_sites=9, script=script, progress=lambda p: seen.append(p.round) or crash(p))
    with pytest.raises(KeyboardInterrupt):
        broken.record(walking())
    record = dataclasses.replace(whole.record, rounds=tuple(seen))
    assert simulation(12, minimum_sites=9, script=script).record(walking(), resume=record).result == expected


# Rules of each bucket's sum


@dataclass(frozen=True)
class Ward:
    """Data that tell how many they are."""

    x: np.ndarray

    @property
    def num_records(self) -> int:
        return len(self.x)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.x


def wards(*sizes: int) -> dict[str, Any]:
    return {f"site_{i}": Ward(np.full((size, 3), 1.0 + i)) for i, size in enumerate(sizes)}


@workflow("bucket.only", version=1)
def only_step(setting: Roster) -> Steps[int]:
    """One ask by buckets."""
    return (yield from ask(step_to_mean, np.zeros(3))).sum.num_records


def test_a_buckets_sum_is_over_enough_records() -> None:
    rules = dataclasses.replace(PRESETS["none"], minimum_rows_total=50)
    sites = wards(*[20] * 6, *[16] * 3)  # 60, 60, 48
    assert simulation(sites=sites, disclosure=rules, protection=PLAIN).run(only_step()) == 168
    with pytest.raises(DisclosureError, match="minimum_rows_total of site 'site_6'"):
        simulation(sites=sites, disclosure=rules).run(only_step())
    assert simulation(sites=wards(*[17] * 9), disclosure=rules).run(only_step()) == 153


def test_a_bucket_that_shrinks_is_looked_at_again() -> None:
    """What sites were told before they computed may not hold any more when one of them fails."""
    rules = dataclasses.replace(PRESETS["none"], minimum_rows_total=50)
    sites = wards(*[15] * 4, *[20] * 6)
    assert simulation(sites=sites, disclosure=rules).run(only_step()) == 180
    script = [event(1, "garbage", 1, garbage=None)]  # 45 are left of 60
    with pytest.raises(DisclosureError, match="minimum_rows_total"):
        simulation(sites=sites, disclosure=rules, script=script, minimum_sites=9).run(only_step())


@workflow("bucket.clear", version=1)
def clear_step(setting: Roster) -> Steps[int]:
    """One clear ask."""
    return (yield from ask_each(step_to_mean, np.zeros(3))).sum.num_records


def test_a_clear_ask_is_not_by_buckets() -> None:
    rules = dataclasses.replace(PRESETS["none"], minimum_rows_total=100)
    protection = dataclasses.replace(BY_THREE, allows_clear=True)
    run = simulation(sites=wards(*[20] * 9), disclosure=rules, protection=protection).record(clear_step())
    assert numbers(run.record.rounds[0].total) == list("012345678")
    assert run.result == 180
    with pytest.raises(DisclosureError, match="minimum_rows_total"):
        simulation(sites=wards(*[20] * 9), disclosure=rules, protection=protection).run(only_step())


def test_no_site_dominates_its_bucket() -> None:
    rules = dataclasses.replace(PRESETS["none"], site_dominance=0.5)
    sites = wards(20, 20, 20, 20, 20, 20, 60, 20, 20)
    assert simulation(sites=sites, disclosure=rules, protection=PLAIN).run(only_step()) == 220
    with pytest.raises(DisclosureError, match="site_dominance of site 'site_6'"):
        simulation(sites=sites, disclosure=rules).run(only_step())


# Records


def test_a_record_holds_the_buckets_totals(tmp_path: Path) -> None:
    path = tmp_path / "a.run"
    script = [event(5, "drops_before", 3)]
    run = simulation(12, minimum_sites=8, script=script).record(means(rounds=3), save_to=path)
    loaded = load_record(path, WORDS)
    assert [pack_total(r.total) for r in loaded.rounds] == [pack_total(r.total) for r in run.record.rounds]
    assert [len(r.total.parts) for r in loaded.rounds] == [0, 4, 3, 3]
    assert replay(means(rounds=3), Roster(loaded.sites), loaded) == run.result
    assert loaded.num_clear_rounds == 0


@pytest.mark.parametrize("number", [1, 2, 3])
def test_resumed_run_equals_uninterrupted(number: int, tmp_path: Path) -> None:
    def crash(progress: Progress) -> None:
        if progress.round.number == number:
            raise KeyboardInterrupt

    path = tmp_path / "a.run"
    with pytest.raises(KeyboardInterrupt):
        simulation(progress=crash).record(means(rounds=4), save_to=path)
    resumed = simulation().record(means(rounds=4), resume=load_record(path, WORDS))
    assert fingerprint(resumed.result) == fingerprint(simulation().run(means(rounds=4)))


# Whatever sum each bucket has


LAYOUT = layout_of(Update, {"size": 2, "clip": 1.0, "bits": 16})
BUCKETS = buckets_of([f"s{i}" for i in range(12)], 3)


class Lossy(PlainSum):
    """Loses sites after they were added, as a secure sum may."""

    def __init__(self, lost: Sequence[str]) -> None:
        super().__init__(LAYOUT, 3)
        self._lost = lost
        self.left_out: Mapping[str, str] = {}

    def close(self) -> Total[Any]:
        self.left_out = dict.fromkeys(self._lost, "lost after its upload")
        total = super().close()
        return Total(total.sum, tuple(site for site in total.sites if site not in self._lost))


class Failing(PlainSum):
    def __init__(self) -> None:
        super().__init__(LAYOUT, 3)

    def close(self) -> Total[Any]:
        raise QuorumError("the secure sum cannot be completed")


class Lying(PlainSum):
    """A bucket whose words add up to more than was declared."""

    def __init__(self) -> None:
        super().__init__(LAYOUT, 3)

    def close(self) -> Total[Any]:
        total = super().close()
        return Total(Update(step=np.array([3.5, 0.0]), loss=0.0), total.sites)


class Unopened(PlainSum):
    """A bucket's sum that is never to be known."""

    def __init__(self) -> None:
        super().__init__(LAYOUT, 3)

    def close(self) -> Total[Any]:
        raise AssertionError("the sum over two sites was taken")


def test_no_sum_is_taken_of_a_small_bucket() -> None:
    summing = BucketSum(LAYOUT, BUCKETS, lambda sites: Unopened() if "s0" in sites else plain_sum(LAYOUT, 3))
    for index in range(1, 12):
        flat = LAYOUT.flatten(Update(step=np.zeros(2), loss=1.0))
        summing.add(f"s{index}", flat, np.random.default_rng(index))
    assert summing.close().num_sites == 9


def filled(second: Summing | None) -> BucketSum:
    made = iter([plain_sum(LAYOUT, 3), second, plain_sum(LAYOUT, 3), plain_sum(LAYOUT, 3)])
    summing = BucketSum(LAYOUT, BUCKETS, lambda sites: next(made))
    for index in range(12):
        flat = LAYOUT.flatten(Update(step=np.array([0.25, 0.0]), loss=float(index)))
        summing.add(f"s{index}", flat, np.random.default_rng(index))
    return summing


@pytest.mark.parametrize("second", [None, Failing(), Lossy(["s4"])], ids=["none", "failing", "lossy"])
def test_a_bucket_without_a_sum_is_left_out(second: Summing | None) -> None:
    summing = filled(second)
    total = summing.close()
    assert [part.sites[0] for part in total.parts] == ["s0", "s6", "s9"]
    assert set(summing.left_out) == {"s3", "s4", "s5"}
    assert summing.left_out["s3"].startswith("left out with its bucket (number 2: s3, s4, s5)")
    if isinstance(second, Lossy):
        assert summing.left_out["s4"] == "lost after its upload"
    assert total.sum.loss == 0 + 1 + 2 + 6 + 7 + 8 + 9 + 10 + 11
    assert summing.bytes_up > 0


def test_a_bucket_that_breaks_its_declaration_is_named() -> None:
    with pytest.raises(RemoteProtocolError, match=r"Update\.step is longer .*: one of s3, s4, s5 broke"):
        filled(Lying()).close()


class Overfull(PlainSum):
    """The sum of a bucket in which somebody sent numbers far above the others'."""

    def close(self) -> Total[Any]:
        sites = super().close().sites
        return Total(Step(step=np.zeros(3), loss=self.loss, num_records=self.num_records), sites)

    loss, num_records = 0.0, 0


@pytest.mark.parametrize(("loss", "num_records"), [(2.0**62, 0), (-(2.0**62), 0), (0.0, 2**62)])
def test_buckets_sums_that_pass_the_ring_together_are_refused(loss: float, num_records: int) -> None:
    layout = layout_of(Step, {"size": 3})

    def overfull(sites: Sequence[str]) -> Summing:
        made = Overfull(layout, 3)
        made.loss, made.num_records = loss, num_records
        return made

    summing = BucketSum(layout, BUCKETS, overfull)
    for index in range(12):
        flat = layout.flatten(Step(step=np.zeros(3), loss=0.0, num_records=1))
        summing.add(f"s{index}", flat, np.random.default_rng(index))
    with pytest.raises(RemoteProtocolError, match="Step: the buckets' sums together are beyond the ring: one of s0"):
        summing.close()


def test_numbers_are_bounded_by_the_whole_roster() -> None:
    """A bucket's sum may hold what the sum over all buckets may not."""
    summing = filled(plain_sum(LAYOUT, 4))
    large = LAYOUT.flatten(Update(step=np.zeros(2), loss=2.0**63 / 11))
    with pytest.raises(ContributionError, match=r"Update\.loss contains a number of"):
        summing.add("s3", large, np.random.default_rng(0))
    assert summing.close().num_sites == 12


def test_every_total_of_a_round_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever adds up: here in ways that no sum of clipped vectors comes out."""
    plain_close, clear_close = PlainSum.close, ClearSum.close

    def close(self: PlainSum) -> Total[Any]:
        sites = plain_close(self).sites
        return Total(Step(step=np.full(3, 5.1 * len(sites)), loss=0.0, num_records=1), sites)

    def close_each(self: ClearSum) -> Total[Any]:
        total = clear_close(self)
        off = Total(Step(step=np.full(3, 5.1), loss=0.0, num_records=1), total.parts[4].sites)
        return Total(total.sum, total.sites, (*total.parts[:4], off, *total.parts[5:]))

    monkeypatch.setattr(PlainSum, "close", close)
    with pytest.raises(RemoteProtocolError, match=r"Step\.step is longer .*: one of site_0, .*, site_8 broke"):
        simulation(protection=PLAIN).run(only_step())
    with pytest.raises(RemoteProtocolError, match=r"Step\.step is longer .*: one of site_0, site_1, site_2 broke"):
        simulation().run(only_step())
    monkeypatch.setattr(ClearSum, "close", close_each)
    with pytest.raises(RemoteProtocolError, match=r"Step\.step is longer .*: site 'site_4' broke its declaration"):
        simulation(protection=SumProtection(secure_sums=False, allows_clear=True)).run(clear_step())
