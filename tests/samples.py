"""Small but whole analyses that the tests of the waist and of the engines run."""

from dataclasses import dataclass, replace

import numpy as np

from wardround.sums import (
    Array,
    Contribution,
    Snapshot,
    Steps,
    Vocabulary,
    ask,
    bounded,
    exact,
    people,
    site_function,
    stateful_site_function,
    workflow,
)


@dataclass(frozen=True)
class Roster:
    """A setting that names sites and nothing else."""

    sites: tuple[str, ...]


class Moments(Contribution):
    total: Array = exact("num_columns")
    square: float = exact()
    num_records: int = people()


class Update(Contribution):
    step: Array = bounded("size", clip_norm="clip", bits="bits")
    loss: float = exact()


class Drift(Contribution):
    moved: Array = exact(2)


@site_function("sample.moments", version=1, symbols=lambda center: {"num_columns": len(center)})
def moments(data: dict[str, np.ndarray], /, center: Array) -> Moments:
    """Sums about a center."""
    deviation = data["x"][:, : len(center)] - center
    return Moments(total=deviation.sum(axis=0), square=float((deviation**2).sum()), num_records=len(deviation))


@site_function(
    "sample.update", version=1, symbols=lambda params, clip, bits: {"size": len(params), "clip": clip, "bits": bits}
)
def update(data: dict[str, np.ndarray], /, params: Array, clip: float, bits: int = 16) -> Update:
    """One step towards this site's mean."""
    step = data["x"].mean(axis=0)[: len(params)] - params
    return Update(step=step, loss=float((step**2).sum()))


@stateful_site_function("drift.step", version=1)
def drift(
    data: dict[str, np.ndarray], state: tuple[float, float] | None, rng: np.random.Generator, /, pull: float
) -> tuple[Drift, tuple[float, float]]:
    """A random walk with a memory."""
    before = np.array(state or (0.0, 0.0))
    after = before * pull + rng.normal(size=2) + data["x"][0, :2]
    return Drift(moved=after - before), (float(after[0]), float(after[1]))


@workflow("mean", version=1)
def mean(setting: Roster, num_columns: int = 2, rounds: int = 4) -> Steps[tuple[float, ...]]:
    """The mean, found by moving a center."""
    center = np.zeros(num_columns)
    for _ in range(rounds):
        total = (yield from ask(moments, center)).sum
        center += 0.5 * total.total / total.num_records
    return tuple(center.tolist())


@dataclass(frozen=True)
class Trained:
    params: Array
    rounds: int


@workflow("train", version=1)
def train(setting: Roster, rounds: int = 6, every: int = 2, snapshot: Trained | None = None) -> Steps[Trained]:
    """Bounded updates, with a snapshot every few rounds."""
    state = snapshot or Trained(np.zeros(3), 0)
    params = state.params.copy()
    while state.rounds < rounds:
        total = yield from ask(update, params, 5.0)
        params += 0.3 * total.sum.step / total.num_sites
        state = Trained(params, state.rounds + 1)
        if state.rounds % every == 0:
            yield Snapshot(state)
    return replace(state, params=params.copy())


@workflow("wander", version=1)
def wander(setting: Roster, rounds: int = 5) -> Steps[tuple[float, ...]]:
    """Sums of random walks that the sites remember."""
    place = np.zeros(2)
    for _ in range(rounds):
        place = place + (yield from ask(drift, 0.9)).sum.moved
    return tuple(place.tolist())


def hospitals(num_sites: int = 3, seed: int = 1) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return {f"site_{i}": {"x": rng.normal(2.0, 1.0 + i, (5 + i, 3))} for i in range(num_sites)}


FUNCTIONS = (moments, update, drift)
WORKFLOWS = (mean, train, wander)
VOCABULARY = Vocabulary({f.function_id: f for f in FUNCTIONS}, {w.name: w for w in WORKFLOWS})
