"""What can be checked of a total, whoever added it up.

Whether it can be a sum of contributions that keep to their declaration; and whether a model that it changed is the
worse for it on records that it was not made from. Both look at totals alone, so they hold under secure sums as in
clear. A sum does not tell which site is to blame.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.errors import DataError, QuorumError, RemoteProtocolError
from wardround.sums.codec import index_beyond
from wardround.sums.contribution import Bounded, Contribution, FieldLayout, Layout, exact, people
from wardround.sums.vocabulary import SiteFunction
from wardround.sums.workflow import Ask, Total, ask

_LIMIT = 2.0**63
"""Every sum of exact numbers is below this in size."""
_TAIL = 8.5
"""exp(-_TAIL**2 / 2) is 2e-16: how probable it is that honest rounding passes the bound on a norm."""
_FLOAT = 1e-9
"""Room for the rounding of float64, relative."""
_PIECE = 2**13
"""Elements of a dot product that stays in one thread (see `wardround.sums.codec`)."""


def check_total(total: Total[Any], layout: Layout) -> None:
    """Check that a total can be a sum of contributions that keep to their declaration.

    A bounded field of k sites, d elements, clip norm C and b bits: a site's vector has norm C at most, and each
    element is then rounded up or down to a multiple of the quantum q = C / (2^(b-1) - 2), zero staying zero. So

    - no element is beyond k (C + q);
    - the norm is at most k C + q k sqrt(d);
    - and it is at most k C + q (sqrt(k d) / 2 + 8.5 sqrt(k) + k sqrt(d) / 2^16), but with probability 2e-16: an
      element's rounding is independent of the others', lies in an interval of length q, has a variance of q^2 / 4 at
      most and a mean of q / 2^16 at most (`wardround.sums.codec`). So the expected norm of the roundings' sum is
      q sqrt(k d) / 2 at most beside the mean's; it is convex in the k d roundings, with Lipschitz constant sqrt(k), and
      passes its expectation by q t sqrt(k) with a probability of exp(-t^2 / 2) at most (Boucheron 2013, theorem 6.10).

    The smaller of the two norms is the bound. Few bits and many elements leave a liar room: with 8 bits, a million
    elements and ten sites the bound is 2.3 times k C; with 16 bits it is 1.005 times.

    Args:
        total: a sum as it was decoded: not one over buckets, whose median is no sum (check its parts).
        layout: of the ask.

    Raises:
        RemoteProtocolError: a count is negative, a number not finite or beyond the ring, or a bounded field too long.

    Guarantees:
        honest_sums_pass: no sum of contributions that were encoded as declared is refused.
        long_sums_are_refused: no bounded field beyond its bounds is handed on.

    References:
        Boucheron, Lugosi, Massart (2013), Concentration inequalities, Oxford, theorem 6.10.
    """
    for field in layout.exact:
        value = getattr(total.sum, field.name)
        if not (index_beyond(value.ravel(), _LIMIT) is None if field.shape else -_LIMIT < value < _LIMIT):
            raise _broken(field, layout, total, "holds a number that is not finite or beyond the ring")
    for field in layout.people:
        counts = getattr(total.sum, field.name)
        if (counts.min(initial=0) if field.shape else counts) < 0:
            raise _broken(field, layout, total, "counts people and is negative")
    for field in layout.bounded:
        if not _is_within(getattr(total.sum, field.name).ravel(), field, total.num_sites):
            raise _broken(field, layout, total, "is longer than so many clipped vectors can add up to")


def _is_within(vector: NDArray[np.float64], field: FieldLayout, num_sites: int) -> bool:
    if not vector.size:
        return True
    largest, longest = bounds(field, num_sites)
    # Comparisons so that NaN is not within.
    return bool(vector.max() <= largest and vector.min() >= -largest) and _norm(vector) <= longest


def bounds(field: FieldLayout, num_sites: int) -> tuple[float, float]:
    """The largest element and the largest norm that a bounded field's sum over so many sites can have."""
    assert isinstance(field.declaration, Bounded)
    clip_norm, bits = float(field.declaration.clip_norm), int(field.declaration.bits)
    quantum = clip_norm / (2 ** (bits - 1) - 2)
    root_size, root_sites = math.sqrt(field.size), math.sqrt(num_sites)
    certain = num_sites * root_size
    probable = root_sites * (root_size / 2 + _TAIL) + num_sites * root_size / 2**16
    longest = num_sites * clip_norm + quantum * min(certain, probable)
    return num_sites * (clip_norm + quantum) * (1 + _FLOAT), longest * (1 + _FLOAT)


def _norm(vector: NDArray[np.float64]) -> float:
    square = 0.0
    for start in range(0, vector.size, _PIECE):
        piece = vector[start : start + _PIECE]
        square += float(np.dot(piece, piece))
    return math.sqrt(square)


def _broken(field: FieldLayout, layout: Layout, total: Total[Any], what: str) -> RemoteProtocolError:
    if total.num_sites == 1:
        who = f"site {total.sites[0]!r} broke its declaration"
    else:
        who = (
            f"one of {', '.join(total.sites)} broke its declaration, and their sum does not tell which; to find out, "
            "sum by buckets (bucket_size), or agree on clear asks (allows_clear)"
        )
    return RemoteProtocolError(f"{layout.label(field)} {what}: {who}")


class HeldOutLoss(Contribution):
    """A model's losses on records that a site has kept from its training."""

    loss: float = exact()
    """Sum of the records' losses, in whatever unit; lower is better."""
    num_records: int = people(cells="none")
    """Records that the sum is over."""


def improves(
    loss: SiteFunction[..., HeldOutLoss], before: Any, after: Any, *, most_worse: float, **arguments: Any
) -> Generator[Ask[HeldOutLoss], Total[HeldOutLoss], bool]:
    """Whether a change of parameters is good enough to keep; a step of a workflow, used with `yield from`.

        total = yield from ask(update, params)
        changed = params + total.sum.step / total.num_sites
        if (yield from improves(validation_loss, params, changed, most_worse=0.05)):
            params = changed

    The site function chooses the records, each site's own that it does not train on, and should bound a record's loss,
    so that a model that has diverged gives a large loss and no error. It catches faults, bad data and updates that harm
    the model at large. It does not catch a site that lies about its loss as well, nor harm to few records only.

    Args:
        loss: takes the parameters as its first argument.
        before: parameters without the change.
        after: with it.
        most_worse: how much larger the mean loss may be and the change still be kept, in the loss's unit. Losses of
            small steps go up and down by chance; with 0 some honest rounds are dropped.
        arguments: further ones of `loss`, by name.

    Returns:
        False where the mean loss over all sites' records is larger by more than `most_worse`.

    Raises:
        ValueError: `most_worse` is not finite.
        QuorumError: the sites that answered were never the same ones before and after.
        DataError: no record was held out.
    """
    if not math.isfinite(most_worse):
        raise ValueError(f"most_worse must be finite, got most_worse={most_worse}")
    without = yield from ask(loss, before, **arguments)
    with_ = yield from ask(loss, after, **arguments)
    if without.sites != with_.sites:  # a site that has left does not come back as a rule: once more is enough
        without = yield from ask(loss, before, **arguments)
    if without.sites != with_.sites:
        raise QuorumError(
            f"{loss.function_id}: other sites answered before than after, so their losses cannot be compared; "
            "run again when all can be reached"
        )
    return _mean_loss(with_.sum, loss) - _mean_loss(without.sum, loss) <= most_worse


def _mean_loss(total: HeldOutLoss, loss: SiteFunction[..., HeldOutLoss]) -> float:
    if not total.num_records:
        raise DataError(f"{loss.function_id}: no site has a record held out; hold some out, or leave the check out")
    return total.loss / total.num_records
