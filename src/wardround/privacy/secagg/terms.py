"""The terms of a secure sum: how many sites, how many must answer, how many may collude.

Terms that cannot keep what they promise are refused when they are written, not in a round of the study.
"""

from __future__ import annotations

from dataclasses import dataclass

from wardround.errors import ConfigError
from wardround.privacy.protection import LEAST_BUCKETS, SumProtection, bucket_sizes

LEAST_SITES = 3
"""Fewest sites of a secure sum: of two, each knows the other's share by subtracting its own."""
MOST_SITES = 256
"""Most sites of a secure sum: what the coordinator keeps of a round grows with their cube (256: 1 GB)."""
_FEW_SITES = (
    "a sum over fewer than 3 sites cannot be secure: each would know the other's share; add sites, or write "
    "secure_sums = false"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What all sites sign (protocol, section 2).

    Attributes:
        num_sites: n, of the manifest.
        threshold: t, shares that give a seed back.
        minimum_survivors: u_min, fewest sites of a total.
        colluding_sites: c, sites that may collude with the coordinator.
        is_strict: whether sites agree on who is in a sum before they release anything.
        allows_repeats: whether a site answers an ask again over other sites than before. The difference of the two
            totals is what those sites contributed that are in one of them alone.

    Raises:
        ValueError: terms that break a rule; says which, and what to do.

    Guarantees:
        accepted_terms_keep_the_rules: n in [3, 256]; c in [0, n - 2]; t in [2, n], over (n + c) / 2; u_min in
            [max(3, t, c + 2), n].
        defaults_are_accepted: for every n, and every c that some terms allow.
    """

    num_sites: int
    threshold: int
    minimum_survivors: int
    colluding_sites: int = 0
    is_strict: bool = True
    allows_repeats: bool = False

    def __post_init__(self) -> None:
        _check_sites(self.num_sites, self.colluding_sites)
        self._check_threshold()
        fewest = self.fewest_survivors
        if not fewest <= self.minimum_survivors <= self.num_sites:
            raise ValueError(
                f"minimum_survivors must be in [{fewest}, {self.num_sites}] for {self._described()}, "
                f"got minimum_survivors={self.minimum_survivors}" + self._remedy_for_few()
            )

    @classmethod
    def of(
        cls,
        num_sites: int,
        *,
        threshold: int | None = None,
        minimum_survivors: int | None = None,
        colluding_sites: int = 0,
        is_strict: bool | None = None,
        allows_repeats: bool = False,
    ) -> Terms:
        """Terms with the protocol's defaults for what is None: `minimum_survivors` is then the least that may be.

        Raises:
            ValueError: as the class.
        """
        _check_sites(num_sites, colluding_sites)
        if threshold is None:
            threshold = default_threshold(num_sites, colluding_sites)
        if minimum_survivors is None:
            minimum_survivors = _fewest_survivors(threshold, colluding_sites)
        return cls(
            num_sites=num_sites,
            threshold=threshold,
            minimum_survivors=minimum_survivors,
            colluding_sites=colluding_sites,
            is_strict=num_sites > LEAST_SITES if is_strict is None else is_strict,
            allows_repeats=allows_repeats,
        )

    def _check_threshold(self) -> None:
        num_sites, colluding = self.num_sites, self.colluding_sites
        least = (num_sites + colluding) // 2 + 1
        if not least <= self.threshold <= num_sites:
            raise ValueError(
                f"threshold must be in [{least}, {num_sites}] for {num_sites} sites of which {colluding} may collude "
                f"({self.mode}), got threshold={self.threshold}; leave it out for "
                f"{default_threshold(num_sites, colluding)}"
            )

    def _described(self) -> str:
        return f"{self.num_sites} sites with threshold={self.threshold}, colluding_sites={self.colluding_sites}"

    def _remedy_for_few(self) -> str:
        if self.minimum_survivors > self.num_sites:
            return "; add sites or lower it"
        if self.num_sites == LEAST_SITES:
            return "; of three sites all must answer: raise it to 3, or add sites"
        return "; raise it" + ("" if self.fewest_survivors > self.threshold else " or lower the threshold")

    @property
    def mode(self) -> str:
        """`strict` or `two_leg`."""
        return "strict" if self.is_strict else "two_leg"

    @property
    def fewest_survivors(self) -> int:
        """The least that `minimum_survivors` may be with this threshold and so many colluding sites."""
        return _fewest_survivors(self.threshold, self.colluding_sites)

    @property
    def num_may_drop(self) -> int:
        """Sites that may be missing from a total. Of those in it, all but `threshold` may be lost after they sent."""
        return self.num_sites - self.minimum_survivors

    @property
    def tolerated_colluders(self) -> int:
        """The most colluding sites that this threshold and minimum allow; at least `colluding_sites`."""
        return min(self.num_sites - 2, self.minimum_survivors - 2, 2 * self.threshold - self.num_sites - 1)

    @property
    def num_honest_in_a_total(self) -> int:
        """Fewest honest sites whose sum the coordinator and `colluding_sites` sites can get, by whatever lie."""
        return self.num_isolated() or self.minimum_survivors - self.colluding_sites

    def num_isolated(self, num_colluding: int | None = None) -> int:
        """Fewest honest sites whose sum a coordinator gets that tells sites of different survivors; 0: it cannot.

        The coordinator wants the sum of honest sites T alone. For a site i of T it needs `t - c` honest shares of the
        self mask, of holders who were told that i survived; as 2t > n + c, too few holders are left to be told that i
        dropped out, so the pairwise mask of i with a site j outside T can only come from what i shared: from `t - c`
        honest holders who were told that j dropped out. No holder is told of more than `n - u_min` that did. So at
        most `(n - c)(n - u_min) / (t - c)` honest sites can be cut off.

        Args:
            num_colluding: sites that collude with the coordinator; None: `colluding_sites`.

        Guarantees:
            strict_isolates_nobody: 0 where strict, and where all sites must answer.
        """
        colluding = self.colluding_sites if num_colluding is None else num_colluding
        if self.is_strict or not self.num_may_drop:
            return 0
        if 2 * self.threshold <= self.num_sites + colluding:
            return 1
        honest = self.num_sites - colluding
        return max(1, honest - honest * self.num_may_drop // (self.threshold - colluding))


def default_threshold(num_sites: int, colluding_sites: int = 0) -> int:
    """`max(ceil(2n/3), floor((n + c)/2) + 1)`."""
    return max(-(-2 * num_sites // 3), (num_sites + colluding_sites) // 2 + 1)


def _fewest_survivors(threshold: int, colluding_sites: int) -> int:
    return max(LEAST_SITES, threshold, colluding_sites + 2)


def _check_sites(num_sites: int, colluding_sites: int) -> None:
    if num_sites < LEAST_SITES:
        raise ValueError(f"{_FEW_SITES} (got num_sites={num_sites})")
    if num_sites > MOST_SITES:
        raise ValueError(f"num_sites must be at most {MOST_SITES}, got num_sites={num_sites}; split the consortium")
    if not 0 <= colluding_sites <= num_sites - 2:
        raise ValueError(
            f"colluding_sites must be in [0, {num_sites - 2}] for {num_sites} sites, got "
            f"colluding_sites={colluding_sites}; two honest sites at least must be left"
        )


def terms_for(protection: SumProtection, num_sites: int, minimum_sites: int | None) -> Terms:
    """The terms of one sum over all sites.

    Args:
        protection: what the study says.
        num_sites: of the study.
        minimum_sites: fewest sites of a total that the study allows; None: all of them.

    Raises:
        ConfigError: secure sums cannot be so; names the study's keys, the smallest possible figure and the remedy.
    """
    least = _terms(protection, num_sites, None)
    wanted = num_sites if minimum_sites is None else minimum_sites
    if wanted < least.fewest_survivors:
        raise ConfigError(_too_few(least, wanted))
    _check_repeats(protection, num_sites, wanted)
    return _terms(protection, num_sites, wanted)


def _check_repeats(protection: SumProtection, num_sites: int, minimum_sites: int) -> None:
    """A study that is to go on without a site must say whether the same may then be asked again."""
    if minimum_sites < num_sites and protection.allows_repeats is None:
        raise ConfigError(
            f"study.minimum_sites is {minimum_sites} of {num_sites}: an analysis that loses a site asks the others the "
            "same again, and the difference of the two totals is what the lost site had contributed; write "
            "allows_repeats = true under [privacy] if all sites agree to that, allows_repeats = false if such an "
            "analysis is to stop, or leave minimum_sites out"
        )


def check_minimum_sites(protection: SumProtection, minimum_sites: int | None) -> None:
    """Refuse early what `terms_for` and `bucket_terms` would refuse for every number of sites.

    Raises:
        ConfigError: no secure sum may be over so few sites; says how many it takes.
    """
    if not protection.secure_sums or minimum_sites is None:
        return
    colluding, size = protection.colluding_sites, protection.bucket_size
    fewest = _fewest_survivors(protection.threshold or 2, colluding)
    if size is not None:
        fewest = LEAST_BUCKETS * _fewest_survivors(default_threshold(size, colluding), colluding)
    if minimum_sites < fewest:
        raise ConfigError(
            f"study.minimum_sites is {minimum_sites}: secure sums as [privacy] has them are over more sites; raise "
            f"minimum_sites to {fewest} at least, or write secure_sums = false under [privacy]"
        )


def _terms(protection: SumProtection, num_sites: int, minimum_survivors: int | None) -> Terms:
    try:
        return Terms.of(
            num_sites,
            threshold=protection.threshold,
            minimum_survivors=minimum_survivors,
            colluding_sites=protection.colluding_sites,
            is_strict=protection.is_strict,
            allows_repeats=bool(protection.allows_repeats),
        )
    except ValueError as error:
        raise ConfigError(f"[privacy]: {error}") from None


def _too_few(least: Terms, wanted: int) -> str:
    fewest, num_sites, colluding = least.fewest_survivors, least.num_sites, least.colluding_sites
    if num_sites == LEAST_SITES:
        return (
            f"study.minimum_sites is {wanted}: with secure sums over three sites all three must answer; leave "
            "minimum_sites out, add sites, or write secure_sums = false under [privacy]"
        )
    lowest = (num_sites + colluding) // 2 + 1
    lower = f", lower the threshold (to {lowest} at least)" if lowest < fewest == least.threshold else ""
    return (
        f"study.minimum_sites is {wanted}: secure sums over {num_sites} sites with threshold = {least.threshold} need "
        f"at least {fewest} in every sum; raise minimum_sites to {fewest}{lower}, or write secure_sums = false under "
        "[privacy]"
    )


def bucket_terms(protection: SumProtection, num_sites: int, minimum_sites: int | None) -> tuple[Terms, ...]:
    """The terms of the secure sum of each bucket, in the order of `bucket_sizes`; none without buckets.

    A bucket is a secure sum of its own: colluding sites and mode hold within it, its threshold is the default. Where
    all sites must answer all of a bucket must, else as many as its threshold needs.

    Raises:
        ConfigError: as `terms_for`, and where buckets cannot be so.
    """
    if protection.bucket_size is None:
        return ()
    sizes = bucket_sizes(num_sites, protection.bucket_size)
    if minimum_sites in (None, num_sites):
        return tuple(terms_for(protection, size, None) for size in sizes)
    terms = tuple(_terms(protection, size, None) for size in sizes)
    fewest = sum(sorted(one.minimum_survivors for one in terms)[:LEAST_BUCKETS])
    if minimum_sites is not None and minimum_sites < fewest:
        raise ConfigError(
            f"study.minimum_sites is {minimum_sites}: {LEAST_BUCKETS} buckets of {num_sites} sites need at least "
            f"{fewest} together; raise minimum_sites to {fewest}, or write secure_sums = false under [privacy]"
        )
    _check_repeats(protection, num_sites, minimum_sites or num_sites)
    return terms
