"""What the simulation engine takes beyond the site functions themselves."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.measure import Row, best_seconds, milliseconds, peak_bytes
from wardround.engines.simulation import Simulation
from wardround.sums import (
    Array,
    Contribution,
    Steps,
    ask,
    bounded,
    exact,
    people,
    site_function,
    workflow,
)

NUM_SITES = 10
ROUND_LIMIT_MS = 0.2
LARGE = 2**21


@dataclass(frozen=True)
class Sites:
    """A setting that names sites."""

    sites: tuple[str, ...]


class Tiny(Contribution):
    """Two numbers and a count."""

    total: Array = exact(2)
    num_records: int = people()


class Large(Contribution):
    """A model's worth of numbers."""

    total: Array = exact("size")


class Step(Contribution):
    """A bounded update."""

    step: Array = bounded("size", clip_norm=1.0, bits=16)


@site_function("benchmark.tiny", version=1)
def tiny(data: np.ndarray, /) -> Tiny:
    """Sums of ten rows."""
    return Tiny(total=data[:10].sum(axis=0), num_records=10)


@site_function("benchmark.large", version=1, symbols=lambda size: {"size": size})
def large(data: np.ndarray, /, size: int) -> Large:
    """As many numbers as were asked for."""
    return Large(total=data.ravel()[:size])


@site_function("benchmark.step", version=1, symbols=lambda size: {"size": size})
def step(data: np.ndarray, /, size: int) -> Step:
    """As many numbers as were asked for."""
    return Step(step=data.ravel()[:size])


@workflow("benchmark.rounds", version=1)
def rounds_of(setting: Sites, rounds: int) -> Steps[float]:
    """Many tiny rounds."""
    for _ in range(rounds):
        total = yield from ask(tiny)
    return float(total.sum.num_records)


@workflow("benchmark.one_large", version=1)
def one_large(setting: Sites, size: int, is_bounded: bool = False) -> Steps[float]:
    """One round of a large contribution."""
    if is_bounded:
        return float((yield from ask(step, size)).sum.step[0])
    return float((yield from ask(large, size)).sum.total[0])


def simulation(num_sites: int, num_numbers: int) -> Simulation:
    """Sites that share one array: they only read it."""
    data = np.random.default_rng(1).normal(size=(max(num_numbers // 2 + 1, 10), 2))
    names = tuple(f"site_{i}" for i in range(num_sites))
    return Simulation(dict.fromkeys(names, data), Sites(names))


def rows(scale: float) -> Iterator[Row]:
    """Overhead of a round, throughput of large rounds, memory by the number of sites."""
    yield _overhead(max(int(300 * scale), 3))
    size = max(int(LARGE * scale), 1)
    yield from _large_rows(size)
    yield _memory_row(size)


def _overhead(num_rounds: int) -> Row:
    federation = simulation(NUM_SITES, 20)
    data = federation._data["site_0"]
    best = best_seconds(
        {
            "rounds": lambda: federation.run(rounds_of(rounds=num_rounds)),
            "functions": lambda: [tiny(data) for _ in range(num_rounds * NUM_SITES)],
        },
        repeats=15,
    )
    return Row(
        name=f"engine, one tiny round of {NUM_SITES} sites",
        measured=milliseconds((best["rounds"] - best["functions"]) / num_rounds),
        against="most that it may take",
        limit=ROUND_LIMIT_MS,
        goal=1.0,
    )


def _large_rows(size: int) -> Iterator[Row]:
    federation = simulation(NUM_SITES, size)
    values, copy = np.zeros(size), np.empty(size)
    best = best_seconds(
        {
            "copies": lambda: [np.copyto(copy, values) for _ in range(NUM_SITES)],
            "exact": lambda: federation.run(one_large(size=size)),
            "bounded": lambda: federation.run(one_large(size=size, is_bounded=True)),
        },
        repeats=4,
    )
    for kind in ("exact", "bounded"):
        yield Row(
            name=f"engine, {NUM_SITES} sites x {size:,} {kind}",
            measured=milliseconds(best[kind]),
            against=f"{NUM_SITES} copies",
            limit=milliseconds(best["copies"]),
            goal=None,
        )


def _memory_row(size: int) -> Row:
    peaks = {
        num_sites: peak_bytes(functools.partial(_run_large, num_sites, size), functools.partial(_run_large, 1, 1000))
        for num_sites in (2, 20)
    }
    return Row(
        name=f"engine, memory of 20 sites x {size:,} exact",
        measured=peaks[20] / 2**20,
        against="2 sites",
        limit=peaks[2] / 2**20,
        goal=1.1,
        unit="MiB",
    )


def _run_large(num_sites: int, size: int) -> None:
    simulation(num_sites, size).run(one_large(size=size))
