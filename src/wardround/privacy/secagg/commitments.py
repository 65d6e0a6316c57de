"""What a site commits to when it uploads: whoever then lies about a seed, a share or a seal is found out, by name.

A site signs one digest over all of it, the root of a tree with one leaf a holder. So each holder sees, by the few
digests on its path, that what was sealed for it is what the coordinator holds commitments to.

References:
    Merkle, A digital signature based on a conventional encryption function (CRYPTO 1987), for the tree;
    `docs/protocol.md`, section 5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

from wardround.privacy.secagg.shamir import MAX_HOLDERS, SHARE_BYTES
from wardround.privacy.secagg.wire import DIGEST_BYTES, digest, preimage, u16, u64

SHARE_COMMITMENT_BYTES = 16
_PLACES = [u64(2) + u16(place) + u64(SHARE_BYTES) for place in range(MAX_HOLDERS)]


def seed_commitment(context: bytes, first: int, second: int, seed: bytes) -> bytes:
    """What a site commits to a seed with, 32 bytes; for a self mask both indices are its own."""
    return digest("seed", context, u16(min(first, second)), u16(max(first, second)), seed)


def share_commitments(context: bytes, sender: int, holder: int, shares: bytes, places: Sequence[int]) -> list[bytes]:
    """What a site commits to the shares of one holder with, 16 bytes each.

    Args:
        context: of the round.
        sender: index of the site whose seeds are shared.
        holder: index of the site that the shares are for.
        shares: joined, one a place.
        places: of the seeds in the round's roster.
    """
    # `digest("share", ...)[:16]` of each, with what all have in common hashed once: it is the most frequent digest.
    begun, committed = hashlib.sha256(preimage("share", context, u16(sender), u16(holder))).copy, []
    for place, first in zip(places, range(0, len(shares), SHARE_BYTES), strict=True):
        hasher = begun()
        hasher.update(_PLACES[place] + shares[first : first + SHARE_BYTES])
        committed.append(hasher.digest()[:SHARE_COMMITMENT_BYTES])
    return committed


_NODE, _RIGHT = preimage("node") + u64(DIGEST_BYTES), u64(DIGEST_BYTES)


def _node(left: bytes, right: bytes) -> bytes:
    """`digest("node", left, right)`."""
    return hashlib.sha256(_NODE + left + _RIGHT + right).digest()


def holder_digest(context: bytes, sender: int, holder: int, committed: bytes, blob: bytes) -> bytes:
    """A leaf: of the SHA-256 of one holder's share commitments, and of its sealed shares."""
    return digest("holder", context, u16(sender), u16(holder), committed, hashlib.sha256(blob).digest())


@lru_cache(maxsize=2048)
def _levels(leaves: tuple[bytes, ...]) -> tuple[tuple[bytes, ...], ...]:
    """All levels of the tree, the leaves first. Where a level is odd its last node is its own sibling."""
    levels = [leaves]
    while len(below := levels[-1]) > 1:
        pairs = zip(below[::2], (*below[1::2], below[-1]), strict=False)
        levels.append(tuple(_node(left, right) for left, right in pairs))
    return tuple(levels)


def path_digests(num_leaves: int) -> int:
    """How many digests a path has."""
    return (num_leaves - 1).bit_length()


def path_of(leaves: tuple[bytes, ...], place: int) -> tuple[bytes, ...]:
    """The siblings on the way from a leaf to the root."""
    path = []
    for level in _levels(leaves)[:-1]:
        path.append(level[min(place ^ 1, len(level) - 1)])
        place //= 2
    return tuple(path)


def root_of(leaf: bytes, path: Sequence[bytes], place: int) -> bytes:
    """The root of the tree in which this leaf has this place and path."""
    for sibling in path:
        leaf = _node(sibling, leaf) if place % 2 else _node(leaf, sibling)
        place //= 2
    return leaf


def shares_digest(context: bytes, committed: bytes, root: bytes) -> bytes:
    """What a site signs of all its shares: the SHA-256 of its seed commitments, and the root of the tree."""
    return digest("shares", context, committed, root)
