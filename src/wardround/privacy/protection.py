"""How the sums of a study are protected: what `[privacy]` in a study file says."""

from __future__ import annotations

from dataclasses import dataclass

from wardround.errors import ConfigError

LEAST_BUCKET = 3
"""Fewest sites of a bucket: a sum over two tells each of them what the other one sent."""
LEAST_BUCKETS = 3
"""Fewest buckets: the median over two is their mean, which one bad site moves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SumProtection:
    """What the sites agree on about their sums, apart from the number of sites.

    Attributes:
        secure_sums: whether the coordinator sees totals alone (`docs/protocol.md`), or each contribution.
        threshold: shares that give a seed back; None: the default for the number of sites.
        colluding_sites: sites that may collude with the coordinator without learning more than all others' sum.
        is_strict: whether sites agree on who is in a sum before they release anything; None: from four sites up.
        bucket_size: fewest sites of a bucket, over whose sums bounded fields take their median; None: one sum over all.
        allows_clear: whether an analysis may ask for every site's own contribution, unprotected.
        allows_repeats: whether the same may be asked again over other sites, as analyses do that lose a site; the
            difference of the totals is the lost site's contribution. None: not said, as where all sites must answer.

    Raises:
        ValueError: a value is out of range, or two contradict each other.
    """

    secure_sums: bool = True
    threshold: int | None = None
    colluding_sites: int = 0
    is_strict: bool | None = None
    bucket_size: int | None = None
    allows_clear: bool = False
    allows_repeats: bool | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and self.threshold < 2:
            raise ValueError(f"threshold must be at least 2, got threshold={self.threshold}")
        if self.colluding_sites < 0:
            raise ValueError(f"colluding_sites must be >= 0, got colluding_sites={self.colluding_sites}")
        if self.bucket_size is not None and self.bucket_size < LEAST_BUCKET:
            raise ValueError(f"bucket_size must be at least {LEAST_BUCKET}, got bucket_size={self.bucket_size}")
        if self.threshold is not None and self.threshold <= self.colluding_sites:
            raise ValueError(
                f"threshold must be over colluding_sites={self.colluding_sites}, got threshold={self.threshold}: "
                "colluding sites would hold enough shares to open what a site sent; raise it, or leave it out"
            )
        if self.bucket_size is not None and self.bucket_size < self.colluding_sites + 2:
            raise ValueError(
                f"bucket_size must be at least colluding_sites + 2 = {self.colluding_sites + 2}, got bucket_size="
                f"{self.bucket_size}: all colluding sites may be in one bucket; raise it"
            )
        if self.bucket_size is not None and self.threshold is not None:
            raise ValueError(
                "threshold cannot be that of buckets and of sums over all sites at once; leave it out beside "
                "bucket_size"
            )
        self._check_plain()

    def _check_plain(self) -> None:
        if self.secure_sums:
            return
        given = {
            "threshold": self.threshold is not None,
            "colluding_sites": self.colluding_sites > 0,
            "mode": self.is_strict is not None,
            "allows_repeats": self.allows_repeats is not None,
        }
        if idle := [name for name, is_given in given.items() if is_given]:
            raise ValueError(f"{' and '.join(idle)}: of no effect with secure_sums = false; leave out one or the other")


PLAIN = SumProtection(secure_sums=False)
"""Contributions in clear to whoever carries the run out: a simulation on one's own data."""


def bucket_sizes(num_sites: int, bucket_size: int) -> tuple[int, ...]:
    """How many sites each bucket has, where none may have fewer than `bucket_size`; the first ones may have one more.

    Sites are in buckets in the order of the roster, for the whole study.

    Raises:
        ConfigError: there would be fewer than three buckets.

    Guarantees:
        buckets_hold_every_site: the sizes add up to `num_sites`, none is below `bucket_size`, and none differs from
            another by more than one.
    """
    num_buckets = num_sites // bucket_size
    if num_buckets < LEAST_BUCKETS:
        largest = num_sites // LEAST_BUCKETS
        remedy = f"lower it to {largest} at most" if largest >= LEAST_BUCKET else "take at least 9 sites"
        raise ConfigError(
            f"[privacy]: bucket_size = {bucket_size} makes {num_buckets} bucket{'s' * (num_buckets != 1)} of "
            f"{num_sites} sites, and a median needs at least {LEAST_BUCKETS}; {remedy}, or leave it out"
        )
    each, more = divmod(num_sites, num_buckets)
    return tuple(each + (number < more) for number in range(num_buckets))
