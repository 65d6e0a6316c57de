"""K-means from sums: Lloyd's iteration, equal to that of the pooled records from the same centres.

The first centres are drawn from the normal distribution that has the records' means and covariances, far apart from
each other: no patient's record is anybody's centre. Clusters that few records belong to, or none, are drawn anew, and
their sums are never asked for: the centre of a cluster of one is a patient.

What is not promised: the coordinator sees the sums of every step. Where a single record changes its cluster between
two steps, their difference is that record.

References:
    Lloyd (1982), Least squares quantization in PCM, IEEE Transactions on Information Theory 28(2).
    Arthur, Vassilvitskii (2007), k-means++: the advantages of careful seeding, SODA.
    Hruschka, de Castro, Campello (2004), Evolutionary algorithms for clustering gene-expression data, ICDM
    (the simplified silhouette).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.correlation_sums import (
    Standardisation,
    check_complete,
    checked_variables,
    covariance,
    standardisation,
)
from wardround.analytics.kmeans_result import Cluster, KMeansResult
from wardround.analytics.kmeans_sums import ClusterSums, counts, sums
from wardround.analytics.lone_variables import refuse_lone_variables
from wardround.analytics.steady_sites import with_steady_sites
from wardround.data.contract import Setting
from wardround.errors import ConfigError, DataError, DisclosureError
from wardround.sums import Steps, ask, workflow

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

MAX_CLUSTERS = 100
"""Most clusters."""
MAX_STARTS = 100
"""Most starts."""
MAX_REDRAWS = 30
"""How often a start may draw centres anew before it is given up."""
SETTLED = 1e-12
"""Distance that no centre moves any more when a start has settled (unit: a variable's mean deviation)."""
SAME_INERTIA = 1e-6
"""Relative difference up to which two starts have found the same clusters."""
_CLOUD = 50
# Points of the cloud that first centres are chosen from (unit: points a cluster).


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The options of `kmeans`, checked."""

    variables: tuple[str, ...]
    num_clusters: int
    is_scaled: bool
    num_starts: int
    seed: int
    max_iterations: int
    given: Floats | None


@dataclass(slots=True)
class _Start:
    """One start on its way.

    Attributes:
        positions: of the centres, shape (num_clusters, num_variables).
        rng: of this start alone.
        root: of the records' covariance: normal numbers times it have that covariance; shape (num_variables,) * 2.
        sizes: records nearest to each centre, shape (num_clusters,).
        found: sums about these centres, once they have been asked for.
    """

    positions: Floats
    rng: np.random.Generator
    root: Floats
    num_iterations: int = 0
    num_redraws: int = 0
    is_done: bool = False
    sizes: Counts = field(default_factory=lambda: np.zeros(0, np.int64))
    squares: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    silhouette: Floats = field(default_factory=lambda: np.zeros(0))

    @property
    def is_given_up(self) -> bool:
        """Whether its clusters became too small again and again."""
        return self.num_redraws > MAX_REDRAWS

    @property
    def inertia(self) -> float:
        """Sum of squared distances from the clusters' means."""
        return float(self.squares.sum())


@workflow("kmeans", version=1)
def kmeans(
    setting: Setting,
    num_clusters: int,
    variables: tuple[str, ...] | None = None,
    scale: bool = True,
    num_restarts: int = 10,
    seed: int = 0,
    max_iterations: int = 300,
    initial_centers: tuple[tuple[float, ...], ...] | None = None,
) -> Steps[KMeansResult]:
    """Clusters of records around centres, equal to those of the pooled records from the same first centres.

    Args:
        setting: contract, sites and disclosure rules.
        num_clusters: how many, from 2 to 100.
        variables: numbers, integers, dates or booleans; None: all numbers and integers of the contract. Records in
            which one of them is missing are left out.
        scale: whether the variables are first divided by their standard deviations (denominator n - 1).
        num_restarts: starts from different centres, from 1 to 100; the one with the least inertia is reported.
        seed: of the first centres.
        max_iterations: steps of a start before it is taken as it is.
        initial_centers: first centres in the variables' own units, instead of drawn ones; one start is made.

    Returns:
        The clusters: largest first, or in the order of the `initial_centers`.

    Raises:
        ConfigError: an unknown or unsuitable variable, or an option out of range, before anything is asked.
        DataError: fewer complete records than clusters, or a variable whose values are all equal.
        DisclosureError: every start ended in clusters of fewer records than may be shown.
        QuorumError: the sites came and went in every attempt.

    Guarantees:
        equals_pooled: from the same first centres, the centres and the inertia are those of Lloyd's iteration on the
            pooled records, up to rounding, as long as no cluster is drawn anew.
        small_clusters_are_never_summed: no sum over a cluster of fewer than `minimum_cell` records is asked for, nor
            one from which it would follow.
    """
    options = _Options(
        variables=checked_variables(setting.contract, variables, "kmeans.variables", 1),
        num_clusters=num_clusters,
        is_scaled=scale,
        num_starts=num_restarts if initial_centers is None else 1,
        seed=seed,
        max_iterations=max_iterations,
        given=None if initial_centers is None else _given(initial_centers),
    )
    _check_options(options)
    return (yield from with_steady_sites(lambda: _attempt(setting, options), len(setting.sites)))


def _given(centers: tuple[tuple[float, ...], ...]) -> Floats:
    if len({len(center) for center in centers}) != 1:
        raise ConfigError("kmeans.initial_centers: give each centre a number for every variable")
    return np.array(centers, np.float64)


def _check_options(options: _Options) -> None:
    limits = (
        ("num_clusters", options.num_clusters, 2, MAX_CLUSTERS),
        ("num_restarts", options.num_starts, 1, MAX_STARTS),
        ("max_iterations", options.max_iterations, 1, 10_000),
        ("seed", options.seed, 0, 2**63 - 1),
    )
    for name, value, least, most in limits:
        if not least <= value <= most:
            raise ConfigError(f"kmeans.{name}: must be in [{least}, {most}], got {value}")
    shape = (options.num_clusters, len(options.variables))
    if options.given is not None and (options.given.shape != shape or not np.isfinite(options.given).all()):
        raise ConfigError(
            f"kmeans.initial_centers: must hold {shape[0]} centres (num_clusters) of {shape[1]} finite numbers, one a "
            f"variable, got {' of '.join(map(str, options.given.shape))}"
        )


def _attempt(setting: Setting, options: _Options) -> Steps[KMeansResult]:
    yield from refuse_lone_variables(options.variables, setting.disclosure.minimum_cell, "kmeans")
    found = yield from standardisation(options.variables, complete_only=True)
    check_complete(setting, found, "kmeans")
    found.refuse_constants("kmeans")
    floor = setting.disclosure.minimum_cell
    _check_enough(found.num_complete, options.num_clusters, floor)
    means, covariances = yield from covariance(found)
    # Everything below is in these units: standard deviations, or one and the same for all variables.
    units = np.sqrt(np.diag(covariances)) * found.scale
    if not options.is_scaled:
        units = np.full(len(units), found.scale.max())
    ratio = found.scale / units
    starts = _first_starts(options, covariances * np.outer(ratio, ratio), (means, units))
    while any(not start.is_done for start in starts):
        yield from _step(starts, options, (means, units), floor)
    return _result(setting, options, found, starts, (means, units), covariances * np.outer(ratio, ratio))


def _check_enough(num_complete: int, num_clusters: int, floor: int) -> None:
    if num_complete < num_clusters:
        raise DataError(f"kmeans: there are fewer complete records than {num_clusters} clusters; ask for fewer")
    if num_complete < num_clusters * floor:
        raise DisclosureError(
            "minimum_cell",
            f"kmeans: {num_clusters} clusters of {floor} records each need more complete records; ask for fewer "
            "clusters, or name fewer variables",
        )


def _first_starts(options: _Options, covariances: Floats, frame: tuple[Floats, Floats]) -> list[_Start]:
    means, units = frame
    values, vectors = np.linalg.eigh(covariances)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))).T
    if options.given is not None:
        return [_Start((options.given - means) / units, np.random.default_rng([options.seed, 0]), root)]
    starts = []
    for number in range(options.num_starts):
        rng = np.random.default_rng([options.seed, number])
        cloud = rng.standard_normal((_CLOUD * options.num_clusters, len(values))) @ root
        starts.append(_Start(_spread_out(rng, cloud, options.num_clusters), rng, root))
    return starts


def _spread_out(rng: np.random.Generator, cloud: Floats, num_clusters: int) -> Floats:
    """Points of a cloud far from each other: each is drawn by its squared distance from those before (k-means++)."""
    chosen = [cloud[0]]
    nearest = np.full(len(cloud), np.inf)
    for _ in range(num_clusters - 1):
        nearest = np.minimum(nearest, ((cloud - chosen[-1]) ** 2).sum(axis=1))
        chosen.append(cloud[rng.choice(len(cloud), p=nearest / nearest.sum())])
    return np.array(chosen)


def _step(starts: list[_Start], options: _Options, frame: tuple[Floats, Floats], floor: int) -> Steps[None]:
    """One step of every start that has not settled; those with too small clusters draw these anew."""
    open_starts = [start for start in starts if not start.is_done]
    positions = np.array([start.positions for start in open_starts])
    found = (yield from ask(counts, options.variables, *frame, positions)).sum
    for start, sizes in zip(open_starts, found.num_records, strict=True):
        start.sizes = sizes
        if sizes.min() < floor:
            _draw_anew(start, floor)
    moving = [start for start in open_starts if start.sizes.min() >= floor]
    if moving:
        positions = np.array([start.positions for start in moving])
        total = (yield from ask(sums, options.variables, *frame, positions)).sum
        for start, part in zip(moving, _by_start(total), strict=True):
            _move(start, *part, options.max_iterations)


def _draw_anew(start: _Start, floor: int) -> None:
    """Put the centres of too small clusters somewhere else: within the largest cluster, or among all records."""
    start.num_redraws += 1
    start.is_done = start.is_given_up
    largest = start.positions[start.sizes.argmax()].copy()
    for cluster in np.flatnonzero(start.sizes < floor):
        is_within = start.rng.random() < 0.5
        step = start.rng.standard_normal(len(largest)) @ start.root
        # How wide the largest cluster is has not been asked for: up to 2^6 times less than all records.
        start.positions[cluster] = largest + step * 2.0 ** -start.rng.uniform(0, 6) if is_within else step


def _by_start(total: ClusterSums) -> Iterator[tuple[Floats, Floats, Floats]]:
    yield from zip(total.sums, total.squares, total.silhouette, strict=True)


def _move(start: _Start, left: Floats, squares: Floats, silhouette: Floats, max_iterations: int) -> None:
    """Centres to the means of their clusters."""
    shift = left / start.sizes[:, None]
    start.squares = np.maximum(squares - left * shift, 0.0)
    start.silhouette = silhouette
    start.num_iterations += 1
    start.positions = start.positions + shift
    start.is_done = bool(np.abs(shift).max() <= SETTLED) or start.num_iterations >= max_iterations


def _result(
    setting: Setting,
    options: _Options,
    found: Standardisation,
    starts: list[_Start],
    frame: tuple[Floats, Floats],
    covariances: Floats,
) -> KMeansResult:
    kept = [start for start in starts if not start.is_given_up]
    if not kept:
        reason = "kmeans: every start ended in clusters of too few records; ask for fewer clusters, or try another seed"
        raise DataError(reason) if setting.disclosure.minimum_cell == 1 else DisclosureError("minimum_cell", reason)
    best = min(kept, key=lambda start: start.inertia)
    means, units = frame
    # Where nothing is scaled, squared distances are in the squares of the variables' own units.
    unit = 1.0 if options.is_scaled else float(units[0]) ** 2
    total = float(np.trace(covariances)) * (found.num_complete - 1)
    order = range(options.num_clusters) if options.given is not None else np.argsort(-best.sizes, kind="stable")
    clusters = tuple(
        Cluster(
            name=str(number + 1),
            num_records=setting.disclosure.shown(int(best.sizes[j])),
            center=means + best.positions[j] * units,
            inertia=float(best.squares[j].sum()) * unit,
            silhouette=float(best.silhouette[j] / best.sizes[j]),
        )
        for number, j in enumerate(order)
    )
    degrees = options.num_clusters - 1, found.num_complete - options.num_clusters
    between = total - best.inertia
    return KMeansResult(
        variables=options.variables,
        units=tuple(setting.contract.variable(name).unit for name in options.variables),
        is_scaled=options.is_scaled,
        mean=means,
        standard_deviation=np.sqrt(np.diag(covariances)) * units,
        clusters=clusters,
        inertia=best.inertia * unit,
        total_sum_of_squares=total * unit,
        calinski_harabasz=between / degrees[0] / (best.inertia / degrees[1]) if best.inertia and degrees[1] else None,
        silhouette=float(best.silhouette.sum() / best.sizes.sum()),
        num_iterations=best.num_iterations,
        is_settled=best.num_iterations < options.max_iterations,
        has_given_centers=options.given is not None,
        starts_made=len(starts),
        starts_alike=sum(start.inertia <= best.inertia * (1 + SAME_INERTIA) for start in kept),
        starts_given_up=len(starts) - len(kept),
        is_redrawn=best.num_redraws > 0,
        num_records=setting.disclosure.shown(found.num_complete),
        num_left_out=setting.disclosure.shown(found.num_records - found.num_complete),
        sites=found.sites,
    )


# A module's vocabulary is what it names: the workflow with the site functions that it asks for.
__all__ = ["counts", "kmeans", "sums"]
