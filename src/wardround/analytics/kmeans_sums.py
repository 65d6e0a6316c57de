"""What the sites add up for k-means: who is nearest to which centre, and the sums of these records.

Two asks a step: how many records are nearest to each centre, and then their sums, if every cluster is large enough (the
sum of a small cluster would follow from those of the others). So no sum over few records is ever asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.correlation_sums import complete_blocks, num_complete_rows
from wardround.data.table import Table
from wardround.errors import DataError
from wardround.sums import Array, Contribution, exact, people, site_function

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


class ClusterCounts(Contribution):
    """Records nearest to each centre, by start."""

    num_records: Counts = people("num_starts", "num_clusters")


class ClusterSums(Contribution):
    """Sums over the records nearest to each centre of what lies between them and the centre, by start.

    `squares` holds squared differences, by variable; `silhouette` the sum of the simplified silhouette.
    """

    sums: Array = exact("num_starts", "num_clusters", "num_variables")
    squares: Array = exact("num_starts", "num_clusters", "num_variables")
    silhouette: Array = exact("num_starts", "num_clusters")


def _sizes(variables: tuple[str, ...], positions: Array, **_: Any) -> dict[str, float]:
    num_starts, num_clusters = positions.shape[:2] if positions.ndim == 3 else (0, 0)
    return {"num_starts": num_starts, "num_clusters": num_clusters, "num_variables": len(variables)}


def _num_coordinates(positions: Array, **_: Any) -> int:
    return int(positions[0].size) if len(positions) else 0


def _rows(data: Table, variables: tuple[str, ...], **_: Any) -> int:
    return num_complete_rows(data, variables)


def _check(variables: tuple[str, ...], positions: Floats) -> None:
    if positions.ndim != 3 or positions.shape[2] != len(variables) or not np.isfinite(positions).all():
        raise DataError("positions must be finite, of shape (num_starts, num_clusters, num_variables)")


def _distances(block: Floats, centres: Floats) -> Floats:
    """Squared distances, shape (num_rows, num_clusters); no difference of large squares."""
    return np.stack([((block - centre) ** 2).sum(axis=1) for centre in centres], axis=1)


def _nearest(
    data: Table, variables: tuple[str, ...], centers: Floats, scales: Floats, centres: Floats
) -> Iterator[tuple[Floats, Floats, NDArray[np.intp]]]:
    """Blocks of standardised records, their squared distances from the centres, and the nearest (ties: the first)."""
    for block in complete_blocks(data, variables, centers, scales):
        distances = _distances(block, centres)
        yield block, distances, distances.argmin(axis=1)


@site_function("kmeans.counts", version=1, symbols=_sizes, parameters=_num_coordinates, rows=_rows)
def counts(data: Table, variables: tuple[str, ...], centers: Array, scales: Array, positions: Array) -> ClusterCounts:
    """How many complete records are nearest to each centre.

    Args:
        data: this site's table.
        variables: names of numeric variables.
        centers: taken off the variables, shape (num_variables,).
        scales: divided by, shape (num_variables,), positive.
        positions: of the clusters' centres, standardised alike, shape (num_starts, num_clusters, num_variables).
    """
    _check(variables, positions)
    found = np.zeros(positions.shape[:2], np.int64)
    for start, centres in enumerate(positions):
        for _, _, nearest in _nearest(data, variables, centers, scales, centres):
            found[start] += np.bincount(nearest, minlength=len(centres))
    return ClusterCounts(num_records=found)


@site_function("kmeans.sums", version=1, symbols=_sizes, parameters=_num_coordinates, rows=_rows)
def sums(data: Table, variables: tuple[str, ...], centers: Array, scales: Array, positions: Array) -> ClusterSums:
    """Sums over the complete records that are nearest to each centre.

    Args:
        data: this site's table.
        variables: names of numeric variables.
        centers: taken off the variables, shape (num_variables,).
        scales: divided by, shape (num_variables,), positive.
        positions: of the clusters' centres, standardised alike, shape (num_starts, num_clusters, num_variables).
    """
    _check(variables, positions)
    total = np.zeros((2, *positions.shape))
    silhouette = np.zeros(positions.shape[:2])
    for start, centres in enumerate(positions):
        for block, distances, nearest in _nearest(data, variables, centers, scales, centres):
            width = _silhouette(distances)
            for cluster in range(len(centres)):
                mine = nearest == cluster
                left = block[mine] - centres[cluster]
                total[:, start, cluster] += left.sum(axis=0), (left**2).sum(axis=0)
                silhouette[start, cluster] += width[mine].sum()
    return ClusterSums(sums=total[0], squares=total[1], silhouette=silhouette)


def _silhouette(distances: Floats) -> Floats:
    """`1 - a / b` by record, for the distances a to the nearest centre and b to the next; 0 where both are 0.

    Shape (num_rows,).
    """
    if distances.shape[1] < 2:
        return np.zeros(len(distances))
    nearest, following = np.sqrt(np.partition(distances, 1, axis=1)[:, :2].T)
    return np.where(following > 0, 1 - nearest / np.where(following > 0, following, 1.0), 0.0)
