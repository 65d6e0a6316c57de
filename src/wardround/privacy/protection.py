"""How the sums of a study are protected: what `[privacy]` in a study file says."""

from __future__ import annotations

from dataclasses import dataclass

LEAST_BUCKET = 3
"""Fewest sites of a bucket: a sum over two tells each of them what the other one sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SumProtection:
    """What the sites agree on about their sums, apart from the number of sites.

    Attributes:
        secure_sums: whether the coordinator sees totals alone (`docs/protocol.md`), or each contribution.
        threshold: shares that give a seed back; None: the default for the number of sites.
        colluding_sites: sites that may collude with the coordinator without learning more than all others' sum.
        is_strict: whether sites agree on who is in a sum before they release anything; None: from four sites up.
        bucket_size: sites of a bucket, over whose sums bounded fields take their median; None: one sum over all.
        allows_clear: whether an analysis may ask for every site's own contribution, unprotected.

    Raises:
        ValueError: a value is out of range.
    """

    secure_sums: bool = True
    threshold: int | None = None
    colluding_sites: int = 0
    is_strict: bool | None = None
    bucket_size: int | None = None
    allows_clear: bool = False

    def __post_init__(self) -> None:
        if self.threshold is not None and self.threshold < 2:
            raise ValueError(f"threshold must be at least 2, got threshold={self.threshold}")
        if self.colluding_sites < 0:
            raise ValueError(f"colluding_sites must be >= 0, got colluding_sites={self.colluding_sites}")
        if self.bucket_size is not None and self.bucket_size < LEAST_BUCKET:
            raise ValueError(f"bucket_size must be at least {LEAST_BUCKET}, got bucket_size={self.bucket_size}")


PLAIN = SumProtection(secure_sums=False)
"""Contributions in clear to whoever carries the run out: a simulation on one's own data."""
