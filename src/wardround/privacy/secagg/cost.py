"""What secure sums cost: the exact size of every message, and the work of a round as counts of operations.

Sizes follow from `docs/protocol.md` alone, without a key or a mask: whoever plans a study can know them beforehand.
All sizes are in bytes and hold the frame.
"""

from __future__ import annotations

from dataclasses import dataclass

from wardround.privacy.secagg.context import opening_bytes
from wardround.privacy.secagg.manifest import ADVERTISEMENT_BYTES, encapsulation_bytes
from wardround.privacy.secagg.messages import (
    CHUNK_HEAD_BYTES,
    CONSISTENCY_BYTES,
    agreement_bytes,
    masked_input_bytes,
    num_chunks,
    survivors_bytes,
    unmask_bytes,
)
from wardround.privacy.secagg.terms import Terms

STRICT_LEGS, TWO_LEGS, PLAIN_LEGS = 3, 2, 1
"""How often a round goes to and fro between a site and the coordinator."""


def upload_bytes(num_in_round: int, vector_bytes: int) -> int:
    """Size of masked_input and of all chunks of its vector."""
    num_words = vector_bytes // 8
    return masked_input_bytes(num_in_round, num_words) + num_chunks(num_words) * CHUNK_HEAD_BYTES + vector_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Bytes of a round, or of the set-up.

    Attributes:
        legs: how often a site sends something and waits for the answer of all others.
        site_up: that a site sends (the site with most, where they differ).
        site_down: that a site is sent.
        coordinator_up: that the coordinator sends to all sites.
        coordinator_down: that the coordinator is sent.
    """

    legs: int
    site_up: int
    site_down: int
    coordinator_up: int
    coordinator_down: int

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            legs=self.legs + other.legs,
            site_up=self.site_up + other.site_up,
            site_down=self.site_down + other.site_down,
            coordinator_up=self.coordinator_up + other.coordinator_up,
            coordinator_down=self.coordinator_down + other.coordinator_down,
        )


NO_TRAFFIC = Traffic(legs=0, site_up=0, site_down=0, coordinator_up=0, coordinator_down=0)


def setup_traffic(num_sites: int) -> Traffic:
    """Of the set-up, once a study, without the manifest, which people hand on: every key goes to every site."""
    advertised = num_sites * ADVERTISEMENT_BYTES
    encapsulated = sum(encapsulation_bytes(num_sites, index) for index in range(num_sites))
    return Traffic(
        legs=2,
        site_up=ADVERTISEMENT_BYTES + encapsulation_bytes(num_sites, 0),
        site_down=advertised + encapsulated,
        coordinator_up=num_sites * (advertised + encapsulated),
        coordinator_down=advertised + encapsulated,
    )


def round_traffic(terms: Terms, vector_bytes: int, ask_bytes: int, *, num_dropped: int = 0) -> Traffic:
    """Of one round that opens with all sites.

    Args:
        terms: of the sum.
        vector_bytes: size of one site's encoded contribution.
        ask_bytes: size of the ask.
        num_dropped: sites that are lost before they have sent anything.
    """
    asked, left = terms.num_sites, terms.num_sites - num_dropped
    opened = opening_bytes(asked) + ask_bytes
    up = upload_bytes(asked, vector_bytes) + unmask_bytes(asked, left) + (CONSISTENCY_BYTES if terms.is_strict else 0)
    down = survivors_bytes(asked, left) + (agreement_bytes(left) if terms.is_strict else 0)
    return Traffic(
        legs=STRICT_LEGS if terms.is_strict else TWO_LEGS,
        site_up=up,
        site_down=opened + down,
        coordinator_up=asked * opened + left * down,
        coordinator_down=left * up,
    )


def plain_traffic(num_sites: int, vector_bytes: int, ask_bytes: int) -> Traffic:
    """Of one round in clear: the ask, and the contribution."""
    return Traffic(
        legs=PLAIN_LEGS,
        site_up=vector_bytes,
        site_down=ask_bytes,
        coordinator_up=num_sites * ask_bytes,
        coordinator_down=num_sites * vector_bytes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Speeds:
    """How fast a machine is, measured for rounds of so many sites.

    Attributes:
        encode, hash, add: bytes of a vector a second: to integers, hashed, added to another.
        mask: bytes of a vector a second that one mask is made and added to.
        sign, verify: one signature (unit: seconds).
        digest: one commitment (unit: seconds).
        derive: one key (unit: seconds).
        seal: one site's shares sealed for one holder, or opened (unit: seconds).
        split: one site's seeds of a round shared with all holders (unit: seconds).
        combine: one seed rebuilt, of a hundred at a time (unit: seconds).
    """

    encode: float
    hash: float
    add: float
    mask: float
    sign: float
    verify: float
    digest: float
    derive: float
    seal: float
    split: float
    combine: float


def site_seconds(terms: Terms, vector_bytes: int, speeds: Speeds) -> float:
    """Computing time of one site in a round of all sites, what its contribution itself takes not counted."""
    asked, legs = terms.num_sites, 1 + terms.is_strict
    masking = vector_bytes * (1 / speeds.encode + asked / speeds.mask + 1 / speeds.hash)
    # Commitments: to its seeds and their shares, and once more to all shares that it holds.
    sharing = speeds.split + asked * (2 * asked + 1) * speeds.digest
    sealing = 2 * asked * (speeds.seal + speeds.derive) + asked * speeds.derive
    # The opening, survivors and agreement are the coordinator's; the others' uploads and consistency are theirs.
    checking = (1 + legs + legs * asked) * speeds.verify
    return masking + sharing + sealing + checking + (1 + legs) * speeds.sign


def coordinator_seconds(terms: Terms, vector_bytes: int, speeds: Speeds, *, num_dropped: int = 0) -> float:
    """Computing time of the coordinator in a round, what the workflow makes of the total not counted."""
    asked, left = terms.num_sites, terms.num_sites - num_dropped
    num_seeds = left * (1 + num_dropped)
    adding = vector_bytes * left * (1 / speeds.hash + 1 / speeds.add)
    unmasking = vector_bytes * num_seeds / speeds.mask
    rebuilding = num_seeds * (speeds.combine + speeds.digest * (1 + left))
    legs = 1 + terms.is_strict
    return adding + unmasking + rebuilding + (1 + legs) * left * speeds.verify + (asked + legs * left) * speeds.sign
