"""What a total can be, and whether a model is the worse for it."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.samples import Moments, Roster, Update, hospitals
from wardround.engines.script import Event
from wardround.engines.simulation import Simulation
from wardround.errors import DataError, QuorumError, RemoteProtocolError
from wardround.privacy.protection import PLAIN, SumProtection
from wardround.sums import Array, Contribution, Layout, Steps, Total, ask, bounded, people, site_function, workflow
from wardround.sums.accumulator import Accumulator, Encoded, decode, encode
from wardround.sums.codec import Ring128
from wardround.sums.contribution import layout_of
from wardround.sums.total_checks import HeldOutLoss, bounds, check_total, improves

CLIP = 2.0


def layout(size: int, bits: int = 16) -> Layout:
    return layout_of(Update, {"size": size, "clip": CLIP, "bits": bits})


def total_of(those: Layout, vectors: np.ndarray, rng: np.random.Generator) -> Total[Update]:
    """As sites that keep to their declaration make it."""
    accumulator = Accumulator(those, len(vectors))
    for vector in vectors:
        accumulator.add_flat(those.flatten(Update(step=vector, loss=0.0)), rng)
    total: Any = accumulator.total()
    return Total(total, tuple(f"site_{i}" for i in range(len(vectors))))


def of_step(step: Any, num_sites: int = 3) -> Total[Update]:
    return Total(Update(step=np.asarray(step, float), loss=0.0), tuple(f"site_{i}" for i in range(num_sites)))


# Range checks


@settings(max_examples=300)
@given(
    st.integers(0, 2**32),
    st.integers(1, 12),
    st.sampled_from([1, 2, 3, 17, 1000]),
    st.sampled_from([4, 5, 8, 16, 32]),
    st.sampled_from(["same", "random", "one element", "half a quantum", "zero"]),
    st.sampled_from([1e-3, 1.0, 1e6]),
)
def test_honest_sums_pass(seed: int, num_sites: int, size: int, bits: int, kind: str, scale: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = np.zeros((num_sites, size))
    if kind == "same":
        vectors[:] = rng.normal(size=size) * scale
    elif kind == "random":
        vectors = rng.normal(size=(num_sites, size)) * scale
    elif kind == "one element":
        vectors[:, 0] = -scale * CLIP
    elif kind == "half a quantum":  # where rounding adds the most
        vectors[:] = CLIP / (2 ** (bits - 1) - 2) / 2
    check_total(total_of(layout(size, bits), vectors, rng), layout(size, bits))


def test_the_bound_is_near_what_rounding_does() -> None:
    """With four bits and many elements, rounding is most of the norm; a bound of twice that would be a loose one."""
    rng = np.random.default_rng(1)
    those = layout(20_000, bits=4)
    (field,) = those.bounded
    quantum = CLIP / 6
    for num_sites in (1, 4, 16):
        # Half a quantum each is beyond the clip norm as a whole: the rounding's zero-mean part is what is measured.
        vectors = np.full((num_sites, 20_000), CLIP / math.sqrt(20_000))
        vectors *= rng.choice([-1.0, 1.0], vectors.shape)
        total = total_of(those, vectors, rng)
        fraction = CLIP / math.sqrt(20_000) / quantum
        typical = quantum * math.sqrt(num_sites * 20_000 * fraction * (1 - fraction))
        norm = float(np.linalg.norm(total.sum.step))
        assert typical < norm * 1.1
        assert norm < bounds(field, num_sites)[1]
        assert bounds(field, num_sites)[1] <= num_sites * CLIP + quantum * math.sqrt(num_sites) * (71 + 8.6) + num_sites


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("num_sites", [1, 3, 10])
def test_long_sums_are_refused(bits: int, num_sites: int) -> None:
    those = layout(100, bits)
    largest, longest = bounds(those.bounded[0], num_sites)
    even = np.full(100, 1 / 10)  # of norm 1
    check_total(of_step(even * longest * 0.999999, num_sites), those)
    with pytest.raises(RemoteProtocolError, match=r"Update\.step is longer than so many clipped vectors can add up to"):
        check_total(of_step(even * longest * 1.000001, num_sites), those)
    one = np.zeros(100)
    for sign in (1, -1):
        one[3] = sign * largest * 1.000001
        with pytest.raises(RemoteProtocolError, match=r"Update\.step is longer"):
            check_total(of_step(one, num_sites), those)


def test_bounds_are_those_of_the_codec() -> None:
    """The largest element that slots of honest sites can hold, and the quantum, from encoding itself."""
    rng = np.random.default_rng(2)
    for bits in (4, 8, 16):
        those = layout(1, bits)
        total = total_of(those, np.full((5, 1), CLIP), rng)
        assert total.sum.step[0] == pytest.approx(5 * CLIP, rel=1e-12)
        largest, _ = bounds(those.bounded[0], 5)
        rounded = total_of(layout(400, bits), np.full((1, 400), CLIP / 2**bits), rng).sum.step
        (smallest,) = set(rounded[rounded != 0].tolist())  # less than half a quantum becomes none or a whole one
        assert largest == pytest.approx(5 * (CLIP + smallest), rel=1e-8)


def test_bounds_are_tighter_than_the_certain_ones_where_it_matters() -> None:
    (field,) = layout(10**6, bits=8).bounded
    _, longest = bounds(field, 10)
    assert longest == pytest.approx(2.28 * 10 * CLIP, rel=0.01)
    (field,) = layout(10**6, bits=16).bounded
    assert bounds(field, 10)[1] == pytest.approx(1.005 * 10 * CLIP, rel=0.001)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2.0**63, -(2.0**64)])
def test_numbers_beyond_the_ring_are_refused(value: float) -> None:
    those = layout_of(Moments, {"num_columns": 40})
    good = Moments(total=np.zeros(40), square=0.0, num_records=3)
    check_total(Total(good, ("a", "b", "c")), those)
    where = np.zeros(40)
    where[30] = value
    for bad in (replace(good, square=value), replace(good, total=where)):
        with pytest.raises(RemoteProtocolError, match=r"Moments\.\w+ holds a number that is not finite or beyond"):
            check_total(Total(bad, ("a", "b", "c")), those)
    with pytest.raises(RemoteProtocolError, match=r"Update\.step is longer"):
        check_total(of_step([value, 0.0]), layout(2))


def test_negative_counts_are_refused_and_all_sites_named() -> None:
    those = layout_of(Moments, {"num_columns": 1})
    bad = Moments(total=np.zeros(1), square=0.0, num_records=-1)
    with pytest.raises(RemoteProtocolError, match=r"one of a, b broke its declaration, .*bucket_size.*allows_clear"):
        check_total(Total(bad, ("a", "b")), those)
    with pytest.raises(RemoteProtocolError, match=r"num_records counts people and is negative: site 'a' broke its"):
        check_total(Total(bad, ("a",)), those)


class Cells(Contribution):
    num_in: Array = people(3)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_one_negative_count_of_several_is_refused(index: int) -> None:
    counts = np.array([5, 0, 7])
    check_total(Total(Cells(num_in=counts), ("a", "b")), layout_of(Cells, {}))
    counts[index] = -1
    with pytest.raises(RemoteProtocolError, match=r"Cells\.num_in counts people and is negative"):
        check_total(Total(Cells(num_in=counts), ("a", "b")), layout_of(Cells, {}))


@pytest.mark.parametrize("size", [8, 300])
def test_a_liar_among_encoded_contributions_is_found(size: int) -> None:
    """Words that no honest encoder makes, added to honest ones in the ring, as a masked sum would."""
    those, rng, num_sites = layout(size), np.random.default_rng(3), 4
    accumulator = Accumulator(those, num_sites)
    for _ in range(num_sites - 1):
        accumulator.add_flat(those.flatten(Update(step=rng.normal(size=size), loss=0.0)), rng)

    def words(step: float) -> np.ndarray:
        return encode(those.flatten(Update(step=np.full(size, step), loss=0.0)), those, num_sites, rng).bounded[0]

    lie = 8 * words(CLIP) - 7 * words(0.0)  # eight times as long as declared
    accumulator.add(Encoded(Ring128.zeros(1), np.zeros(0, np.uint64), (lie,)))
    total: Any = accumulator.total()
    assert np.linalg.norm(total.step) > 5 * CLIP
    with pytest.raises(RemoteProtocolError, match=r"Update\.step is longer"):
        check_total(Total(total, ("a", "b", "c", "d")), those)


def test_wrapped_counts_are_found() -> None:
    those = layout_of(Moments, {"num_columns": 1})
    words = Encoded(Ring128.zeros(2), np.array([2**64 - 5], np.uint64), ())
    total: Any = decode(words, those, 3, 3)
    with pytest.raises(RemoteProtocolError, match="counts people and is negative"):
        check_total(Total(total, ("a", "b", "c")), those)


class Empty(Contribution):
    step: Array = bounded(0, clip_norm=1.0, bits=16)


def test_nothing_is_within_its_bounds() -> None:
    check_total(Total(Empty(step=np.empty(0)), ("a",)), layout_of(Empty, {}))


# Held-out records


class Step(Contribution):
    step: Array = bounded("size", clip_norm=1.0, bits=16)


@site_function("held.step", version=1, symbols=lambda params: {"size": len(params)})
def step_to_mean(data: dict[str, np.ndarray], /, params: Array) -> Step:
    """Half of the way to the mean of the records that are trained on."""
    return Step(step=0.5 * (data["x"][:-2].mean(axis=0) - params))


@site_function("held.loss", version=1)
def held_out_loss(data: dict[str, np.ndarray], /, params: Array, cap: float = 1e6) -> HeldOutLoss:
    """Squared distance of the last two records."""
    losses = np.minimum(((data["x"][-2:] - params) ** 2).sum(axis=1), cap)
    return HeldOutLoss(loss=float(losses.sum()), num_records=2)


@workflow("held.train", version=1)
def checked_training(setting: Roster, rounds: int = 8, most_worse: float = 0.02) -> Steps[tuple[float, ...]]:
    """Rounds whose totals are dropped where held-out records fare worse by them."""
    params, num_dropped = np.zeros(3), 0
    for _ in range(rounds):
        total = yield from ask(step_to_mean, params)
        changed = params + total.sum.step / total.num_sites
        if (yield from improves(held_out_loss, params, changed, most_worse=most_worse, cap=1e4)):
            params = changed
        else:
            num_dropped += 1
    return (*params.tolist(), float(num_dropped))


def sites_of(seed: int = 1) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return {f"site_{i}": {"x": rng.normal(1.0, 0.5, (40, 3))} for i in range(4)}


def simulation(**options: Any) -> Simulation:
    return Simulation(sites_of(), Roster(tuple(sites_of())), **options)


def poisoned(*rounds: int) -> list[Event]:
    """One site of four sends what is long but within its clip norm, away from the mean."""
    lie = Step(step=np.array([-1e6, -1e6, -1e6]))
    return [Event(site="site_2", behaviour="garbage", round=number, garbage=lie) for number in rounds]


@pytest.mark.parametrize("protection", [PLAIN, SumProtection()], ids=["in clear", "under masks"])
def test_a_poisoned_round_is_dropped(protection: SumProtection) -> None:
    late = poisoned(19, 22)  # each of eight rounds of training is three asks
    clean = simulation(protection=protection).run(checked_training())
    caught = simulation(protection=protection, script=late).run(checked_training())
    blind = simulation(protection=protection, script=late).run(checked_training(most_worse=1e9))
    assert (clean[3], caught[3], blind[3]) == (0, 2, 0)
    clean_params, caught_params, blind_params = (np.array(result[:3]) for result in (clean, caught, blind))
    assert np.linalg.norm(caught_params - clean_params) < 0.1
    assert np.linalg.norm(blind_params - clean_params) > 0.3


@workflow("held.compare", version=1)
def compare(setting: Roster, distance: float = 1.0, most_worse: float = 0.0) -> Steps[bool]:
    """Whether a model that is so far off improves on one at the mean."""
    return (yield from improves(held_out_loss, np.ones(3), np.array([1.0 + distance, 1.0, 1.0]), most_worse=most_worse))


def mean_losses(distance: float) -> tuple[float, float]:
    held = np.concatenate([data["x"][-2:] for data in sites_of().values()])
    at = np.array([1.0 + distance, 1.0, 1.0])
    return float(((held - 1.0) ** 2).sum(axis=1).mean()), float(((held - at) ** 2).sum(axis=1).mean())


@pytest.mark.parametrize("distance", [-1.0, 0.0, 0.3, 2.0])
def test_the_mean_loss_over_all_sites_decides(distance: float) -> None:
    before, after = mean_losses(distance)
    assert simulation().run(compare(distance=distance, most_worse=after - before + 1e-9))
    assert not simulation().run(compare(distance=distance, most_worse=after - before - 1e-9))


@pytest.mark.parametrize("most_worse", [math.nan, math.inf])
def test_the_tolerance_must_be_finite(most_worse: float) -> None:
    with pytest.raises(ValueError, match="most_worse must be finite"):
        next(improves(held_out_loss, np.ones(3), np.ones(3), most_worse=most_worse))


def test_losses_of_the_same_sites_are_compared() -> None:
    """A site that leaves between the two asks is in neither loss; one that comes and goes ends the check."""
    leaves = [Event(site="site_1", behaviour="drops_before", round=2)]
    run = simulation(script=leaves, minimum_sites=2).record(compare())
    assert [round_.total.num_sites for round_ in run.record.rounds] == [4, 3, 3]
    lags = [Event(site="site_1", behaviour="lags", round=2, seconds=99)]
    with pytest.raises(QuorumError, match=r"held\.loss@1: other sites answered before than after"):
        simulation(script=lags, minimum_sites=2).run(compare())


@site_function("held.none", version=1)
def no_loss(data: dict[str, np.ndarray], /, params: Array) -> HeldOutLoss:
    """Of no record."""
    return HeldOutLoss(loss=0.0, num_records=0)


def test_no_held_out_record_is_an_error() -> None:
    @workflow("held.nothing", version=1)
    def nothing(setting: Roster) -> Steps[bool]:
        return (yield from improves(no_loss, np.ones(3), np.ones(3), most_worse=0.0))

    sites = hospitals(2)
    with pytest.raises(DataError, match=r"held\.none@1: no site has a record held out"):
        Simulation(sites, Roster(tuple(sites))).run(nothing())
