"""Means that a few liars cannot move far: over sites' own updates, where they are shown, or over buckets of sites.

Every function takes an array of shape (num_parts, num_elements), one row a part (a site's update, or the mean of a
bucket), and returns a row. How many liars it bears, its *breakdown point*, stands with each: up to so many rows may
be anything, and the result stays within a bound that depends on the other rows alone. What is beyond that is not
promised: liars who stay close to the others move any of these means a little, always (Baruch et al. 2019), and where
sites differ honestly a robust mean passes over the one that differs most.

Memory beside the input: a few rows.

References:
    Yin, Chen, Ramchandran, Bartlett (2018), Byzantine-robust distributed learning, ICML (median, trimmed mean).
    Blanchard, El Mhamdi, Guerraoui, Stainer (2017), Machine learning with adversaries, NeurIPS (Krum, multi-Krum).
    Pillutla, Kakade, Harchaoui (2022), Robust aggregation for federated learning, IEEE TSP 70 (geometric median).
    Baruch, Baruch, Goldberg (2019), A little is enough, NeurIPS (what none of them stops).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.sums.codec import BLOCK, Ring128, decode_exact, encode_exact, index_beyond
from wardround.sums.contribution import Contribution, Flat, Layout
from wardround.sums.workflow import Total

Rows = NDArray[np.float64]

MAX_SIZE = 1e140
"""Magnitude that elements must stay below, so that no sum of squares is infinite."""
_WIDTH = 2**13
"""Elements of one row in a block of columns; a dot product of so many stays in one thread (`wardround.sums.codec`)."""
_MAX_STEPS = 1000
_STEP = 1e-12
"""Length of a step of the geometric median, over the parts' typical distance, that is its last."""


def coordinate_median(parts: NDArray[Any]) -> Rows:
    """The median of each element over the parts; of two middle ones, their mean.

    Breakdown point: `(num_parts - 1) // 2` parts. Each element then lies between two honest parts' elements.

    Args:
        parts: finite numbers, shape (num_parts, num_elements).

    Returns:
        Shape (num_elements,).

    Raises:
        ValueError: no parts, or a number that is NaN, infinite or too large.
    """
    rows = _checked(parts)
    median = np.empty(rows.shape[1])
    for block in _blocks(rows):
        np.median(rows[:, block], axis=0, out=median[block])
    return median


def trimmed_mean(parts: NDArray[Any], num_trimmed: int) -> Rows:
    """The mean of each element over the parts without its `num_trimmed` largest and as many smallest.

    Breakdown point: `num_trimmed` parts. Each element then lies between two honest parts' elements.

    Args:
        parts: finite numbers, shape (num_parts, num_elements).
        num_trimmed: at either end, in [0, (num_parts - 1) // 2].

    Returns:
        Shape (num_elements,).

    Raises:
        ValueError: as `coordinate_median`; or `num_trimmed` is out of range.
    """
    rows = _checked(parts)
    most = (len(rows) - 1) // 2
    if not 0 <= num_trimmed <= most:
        raise ValueError(f"num_trimmed must be in [0, {most}] for {len(rows)} parts, got num_trimmed={num_trimmed}")
    mean = np.empty(rows.shape[1])
    last = len(rows) - num_trimmed
    for block in _blocks(rows):
        ordered = np.partition(rows[:, block], sorted({num_trimmed, last - 1}), axis=0)
        np.mean(ordered[num_trimmed:last], axis=0, out=mean[block])
    return mean


def multi_krum(parts: NDArray[Any], num_liars: int, num_kept: int | None = None) -> Rows:
    """The mean of the `num_kept` parts that are closest to their nearest others; with one it is Krum.

    A part's score is the sum of its squared distances to its `num_parts - num_liars - 2` nearest others (Blanchard
    2017, section 4). Parts that tie with the last one kept are kept as well, so that no order of the parts decides.

    Breakdown point: `num_liars` parts. Of the `num_parts - num_liars` lowest scores none is above every honest
    part's, and an honest part's depends on honest ones alone; so a liar that is kept is near honest ones.

    Args:
        parts: finite numbers, shape (num_parts, num_elements); at least `2 * num_liars + 3` parts.
        num_liars: how many parts may be anything, at least 0.
        num_kept: in [1, num_parts - num_liars]; None: all of these.

    Returns:
        Shape (num_elements,).

    Raises:
        ValueError: as `coordinate_median`; or there are too few parts, or `num_kept` is out of range.
    """
    rows = _checked(parts)
    if num_liars < 0 or len(rows) < 2 * num_liars + 3:
        most = (len(rows) - 3) // 2
        allowed = f"in [0, {most}] for {len(rows)} parts" if most >= 0 else "of at least 3 parts"
        raise ValueError(f"num_liars must be {allowed}, got num_liars={num_liars}")
    most = len(rows) - num_liars
    num_kept = most if num_kept is None else num_kept
    if not 1 <= num_kept <= most:
        raise ValueError(f"num_kept must be in [1, {most}], got num_kept={num_kept}")
    # A part's own distance, 0, is the first of each sorted row.
    nearest = np.sort(_square_distances(rows), axis=1)[:, 1 : most - 1]
    scores = np.array([math.fsum(row) for row in nearest])
    kept = scores <= np.sort(scores)[num_kept - 1]
    mean: Rows = np.mean(rows, axis=0, where=kept[:, np.newaxis])
    return mean


def geometric_median(parts: NDArray[Any], *, smoothing: float = 1e-9) -> Rows:
    """The point whose distances to the parts have the smallest sum, by Weiszfeld's iteration.

    Distances below `smoothing` times the parts' typical distance count as that (Pillutla 2022, algorithm 2), which
    keeps the weights finite where the point meets a part.

    Breakdown point: `(num_parts - 1) // 2` parts. With f liars the result is then at most
    `2 (num_parts - f) / (num_parts - 2 f)` times the largest distance of honest parts from their own mean away from it.

    Args:
        parts: finite numbers, shape (num_parts, num_elements).
        smoothing: in (0, 1].

    Returns:
        Shape (num_elements,).

    Raises:
        ValueError: as `coordinate_median`; or `smoothing` is out of range.
    """
    if not 0 < smoothing <= 1:
        raise ValueError(f"smoothing must be in (0, 1], got smoothing={smoothing}")
    rows = _checked(parts)
    point = coordinate_median(rows)
    typical = float(np.median(_distances(rows, point)))
    if typical == 0.0:  # half of the parts are this point, and it is a geometric median
        return point
    for _ in range(_MAX_STEPS):
        weights = 1 / np.maximum(_distances(rows, point), smoothing * typical)
        moved = _weighted_mean(rows, weights / weights.sum())
        (step,) = _distances(moved[np.newaxis], point)
        point = moved
        if step <= _STEP * typical:
            break
    return point


def sum_over_buckets(layout: Layout, parts: Sequence[Total[Any]]) -> Contribution:
    """One sum of the totals of buckets of sites: a median in place of a sum where a field is bounded.

    Exact numbers and counts are added. A bounded field is the number of sites in all buckets times the median, element
    by element, over the buckets of their means; every bucket counts the same, whether it lost a site or not. So a
    site function's weights (a field of its own) are not those of the median.

    Breakdown point of bounded fields: `(num_buckets - 1) // 2` buckets with a liar; of the others: none. The median's
    norm is at most sqrt(2) times the largest of the buckets' means.

    Args:
        layout: of the ask.
        parts: the buckets' totals, which `check_total` has accepted, each over at least one site.

    Returns:
        The sum; its arrays are read-only.

    Raises:
        ValueError: no parts.
    """
    if not parts:
        raise ValueError("a sum over buckets needs at least one bucket")
    flats = [layout.flatten(part.sum) for part in parts]
    exact = Ring128.zeros(layout.num_exact)
    for flat in flats:
        exact.add(encode_exact(flat.exact, 1))
    num_sites = sum(part.num_sites for part in parts)
    bounded = []
    for vectors in zip(*(flat.bounded for flat in flats), strict=True):
        means = np.stack([vector / part.num_sites for vector, part in zip(vectors, parts, strict=True)])
        bounded.append(num_sites * coordinate_median(means))
    people = np.stack([flat.people for flat in flats]).sum(axis=0)
    return layout.unflatten(Flat(decode_exact(exact), people, tuple(bounded)))


def _checked(parts: NDArray[Any]) -> Rows:
    rows: Rows = np.asarray(parts, dtype=np.float64)
    if rows.ndim != 2 or not len(rows):
        raise ValueError(f"parts must have shape (num_parts, num_elements) with num_parts >= 1, got {rows.shape}")
    for index, row in enumerate(rows):
        if index_beyond(row, MAX_SIZE) is not None:
            raise ValueError(f"part {index} contains NaN, infinity or a number of {MAX_SIZE:g} or more")
    return rows


def _blocks(rows: Rows) -> Iterator[slice]:
    """Columns at a time, so that copies of a block stay small."""
    width = max(BLOCK // len(rows), 1)
    for start in range(0, rows.shape[1], width):
        yield slice(start, start + width)


def _square_distances(rows: Rows) -> Rows:
    """Between all pairs of parts, shape (num_parts, num_parts).

    From differences: the faster way by dot products cancels where all parts are far from zero.
    """
    squares = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], _WIDTH):
        block = rows[:, start : start + _WIDTH]
        for index, row in enumerate(block[:-1]):
            for other in range(index + 1, len(block)):
                difference = block[other] - row
                squares[index, other] += np.dot(difference, difference)
    return squares + squares.T


def _distances(rows: Rows, point: Rows) -> Rows:
    """Of all parts from a point, shape (num_parts,)."""
    squares = np.zeros(len(rows))
    for start in range(0, rows.shape[1], _WIDTH):
        block = slice(start, start + _WIDTH)
        for index, row in enumerate(rows):
            difference = row[block] - point[block]
            squares[index] += np.dot(difference, difference)
    return np.sqrt(squares)


def _weighted_mean(rows: Rows, weights: Rows) -> Rows:
    mean = np.empty(rows.shape[1])
    for start in range(0, rows.shape[1], _WIDTH):
        block = slice(start, start + _WIDTH)
        np.dot(weights, rows[:, block], out=mean[block])
    return mean
