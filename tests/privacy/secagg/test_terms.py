"""Terms of a secure sum: what is accepted, what is refused and how, and what a lying coordinator could isolate."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.errors import ConfigError
from wardround.privacy.protection import SumProtection
from wardround.privacy.secagg.terms import (
    Terms,
    bucket_terms,
    check_minimum_sites,
    default_threshold,
    terms_for,
)

SIZES = st.integers(3, 60)


@st.composite
def any_figures(draw):
    """Figures in and out of range."""
    near = st.integers(-1, 62)
    return {
        "num_sites": draw(near),
        "threshold": draw(near),
        "minimum_survivors": draw(near),
        "colluding_sites": draw(st.integers(-1, 12)),
        "is_strict": draw(st.booleans()),
    }


def keeps_the_rules(n, t, u, c, is_strict):
    """The table of protocol.md, section 2, as it stands there."""
    return 3 <= n <= 256 and 0 <= c <= n - 2 and 2 <= t <= n and t > c and 2 * t > n + c and max(3, t, c + 2) <= u <= n


@given(figures=any_figures())
def test_accepted_terms_keep_the_rules(figures):
    names = ("num_sites", "threshold", "minimum_survivors", "colluding_sites", "is_strict")
    should_be = keeps_the_rules(*(figures[name] for name in names))
    try:
        Terms(**figures)
    except ValueError:
        assert not should_be
    else:
        assert should_be


@pytest.mark.parametrize("num_sites", range(3, 61))
def test_defaults_are_accepted(num_sites):
    for colluding in range(num_sites - 1):
        for is_strict in (None, True, False):
            terms = Terms.of(num_sites, colluding_sites=colluding, is_strict=is_strict)
            assert terms.threshold == default_threshold(num_sites, colluding)
            assert terms.minimum_survivors == max(3, terms.threshold, colluding + 2)
            assert terms.is_strict is (num_sites >= 4 if is_strict is None else is_strict)
            assert terms.tolerated_colluders >= colluding


@given(num_sites=SIZES, data=st.data())
def test_as_many_collude_as_the_terms_tolerate_and_no_more(num_sites, data):
    colluding = data.draw(st.integers(0, num_sites - 2))
    terms = Terms.of(num_sites, colluding_sites=colluding, is_strict=data.draw(st.booleans()))
    rest = {"threshold": terms.threshold, "minimum_survivors": terms.minimum_survivors, "is_strict": terms.is_strict}
    Terms.of(num_sites, colluding_sites=terms.tolerated_colluders, **rest)
    with pytest.raises(ValueError, match="must be"):
        Terms.of(num_sites, colluding_sites=terms.tolerated_colluders + 1, **rest)


def test_of_three_nobody_may_drop():
    terms = Terms.of(3)
    assert (terms.threshold, terms.minimum_survivors, terms.num_may_drop, terms.mode) == (2, 3, 0, "two_leg")
    assert terms.num_honest_in_a_total == 3


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        (
            {"num_sites": 2},
            (
                "a sum over fewer than 3 sites cannot be secure: each would know the other's share; add sites, or "
                "write secure_sums = false (got num_sites=2)"
            ),
        ),
        ({"num_sites": 257}, "num_sites must be at most 256, got num_sites=257"),
        ({"num_sites": 5, "colluding_sites": 4}, "colluding_sites must be in [0, 3] for 5 sites, got"),
        ({"num_sites": 5, "colluding_sites": -1}, "colluding_sites must be in [0, 3] for 5 sites, got"),
        (
            {"num_sites": 5, "threshold": 7},
            "threshold must be in [3, 5] for 5 sites of which 0 may collude (strict), got threshold=7; leave it out",
        ),
        ({"num_sites": 10, "threshold": 5}, "threshold must be in [6, 10] for 10 sites"),
        (
            {"num_sites": 10, "threshold": 3, "colluding_sites": 3, "is_strict": False},
            "threshold must be in [7, 10] for 10 sites of which 3 may collude (two_leg), got threshold=3",
        ),
        (
            {"num_sites": 10, "minimum_survivors": 6},
            (
                "minimum_survivors must be in [7, 10] for 10 sites with threshold=7, colluding_sites=0, got "
                "minimum_survivors=6; raise it or lower the threshold"
            ),
        ),
        ({"num_sites": 10, "minimum_survivors": 11}, "got minimum_survivors=11; add sites or lower it"),
        ({"num_sites": 3, "minimum_survivors": 2}, "of three sites all must answer: raise it to 3, or add sites"),
    ],
)
def test_a_refusal_names_argument_range_value_and_remedy(figures, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is compared below
        Terms.of(**figures)
    assert message in str(caught.value)


# What a coordinator can do that tells each site of other survivors.


def learns_their_sum(terms, wanted, colluding, dropped):
    """Whether the shares that the sites release give the coordinator the sum of the sites in `wanted`, and no more.

    Args:
        terms: of a sum with two legs.
        wanted: honest sites.
        colluding: sites that give the coordinator everything.
        dropped: by honest site, who it is told has dropped out.
    """
    honest = set(range(terms.num_sites)) - colluding
    for site, gone in dropped.items():
        assert site not in gone, "a site refuses to be missing from the survivors"
        assert terms.num_sites - len(gone) >= terms.minimum_survivors, "a site refuses too few survivors"
    assert set(dropped) == honest

    def shares_of_self_mask(site):
        return len(colluding) + sum(site not in gone for gone in dropped.values())

    def shares_of_pair(one, other):
        # What both shared of their common seed are different polynomials: shares of one do not fit the other.
        by_one = sum(one not in gone and other in gone for gone in dropped.values())
        by_other = sum(other not in gone and one in gone for gone in dropped.values())
        return len(colluding) + max(by_one, by_other)

    pairs = itertools.product(wanted, honest - wanted)
    return all(shares_of_self_mask(site) >= terms.threshold for site in wanted) and all(
        shares_of_pair(one, other) >= terms.threshold for one, other in pairs
    )


def attack(terms, num_wanted):
    """By honest site, who it is told has dropped out, so that the sum of the first `num_wanted` sites comes out."""
    honest = terms.num_sites - terms.colluding_sites
    cut_off = list(range(num_wanted, honest))
    told = dict.fromkeys(cut_off, 0)
    dropped = {}
    for site in reversed(range(honest)):  # those first who cannot be told of themselves
        others = sorted((one for one in cut_off if one != site), key=lambda one: told[one])
        dropped[site] = set(others[: terms.num_may_drop])
        for one in dropped[site]:
            told[one] += 1
    return dropped


@pytest.mark.parametrize(
    ("num_sites", "colluding", "threshold", "isolated"),
    [
        (10, 0, 7, 6),
        (100, 30, 67, 8),
        (9, 0, 6, 5),
        (10, 1, 7, 5),
        (10, 2, 7, 4),
        (30, 0, 20, 15),
        (5, 0, 3, 2),
        (6, 0, 4, 3),
        (7, 1, 5, 3),
    ],
)
def test_a_lie_isolates_so_many_and_the_bound_is_met(num_sites, colluding, threshold, isolated):
    terms = Terms.of(num_sites, colluding_sites=colluding, threshold=threshold, is_strict=False)
    assert terms.num_isolated() == terms.num_honest_in_a_total == isolated
    liars = set(range(num_sites - colluding, num_sites))
    assert learns_their_sum(terms, set(range(isolated)), liars, attack(terms, isolated))
    if isolated > 1:  # by this way of lying not one less; that there is no other is argued where the number is made
        assert not learns_their_sum(terms, set(range(isolated - 1)), liars, attack(terms, isolated - 1))


def test_beyond_the_colluders_that_the_threshold_allows_one_site_is_isolated():
    terms = Terms.of(10, threshold=7, is_strict=False)
    assert terms.tolerated_colluders == 3
    assert terms.num_isolated(3) > 1
    assert terms.num_isolated(4) == terms.num_isolated(7) == 1


@given(num_sites=SIZES, data=st.data())
def test_strict_isolates_nobody(num_sites, data):
    colluding = data.draw(st.integers(0, num_sites - 2))
    strict = Terms.of(num_sites, colluding_sites=colluding, is_strict=True)
    assert strict.num_isolated() == 0
    assert strict.num_honest_in_a_total == strict.minimum_survivors - colluding >= 2
    whole = Terms.of(num_sites, colluding_sites=colluding, is_strict=False, minimum_survivors=num_sites)
    assert whole.num_isolated() == 0
    assert whole.num_honest_in_a_total == num_sites - colluding


@given(num_sites=SIZES, data=st.data())
def test_no_lie_gets_more_than_the_truth_and_more_colluders_get_no_less(num_sites, data):
    colluding = data.draw(st.integers(0, num_sites - 3))
    terms = Terms.of(num_sites, colluding_sites=colluding, is_strict=False)
    assert 1 <= terms.num_honest_in_a_total <= terms.minimum_survivors - colluding
    if terms.num_may_drop and terms.threshold > colluding + 1:
        assert terms.num_isolated(colluding + 1) <= terms.num_isolated(colluding)


# The terms of a study.


@given(num_sites=SIZES, data=st.data())
def test_a_study_has_terms_for_every_minimum_that_they_name(num_sites, data):
    colluding = data.draw(st.integers(0, num_sites - 2))
    protection = SumProtection(colluding_sites=colluding, allows_repeats=data.draw(st.booleans()))
    assert terms_for(protection, num_sites, None).num_may_drop == 0
    minimum = data.draw(st.integers(1, num_sites))
    fewest = Terms.of(num_sites, colluding_sites=protection.colluding_sites).minimum_survivors
    if minimum >= fewest:
        terms = terms_for(protection, num_sites, minimum)
        assert (terms.minimum_survivors, terms.allows_repeats) == (minimum, protection.allows_repeats)
    else:
        with pytest.raises(ConfigError, match=f"at least {fewest}|all three must answer"):
            terms_for(protection, num_sites, minimum)


@pytest.mark.parametrize(
    ("protection", "num_sites", "minimum", "message"),
    [
        (SumProtection(), 2, None, "[privacy]: a sum over fewer than 3 sites cannot be secure"),
        (SumProtection(), 3, 2, "over three sites all three must answer; leave minimum_sites out, add sites, or"),
        (SumProtection(threshold=8), 6, None, "[privacy]: threshold must be in [4, 6] for 6 sites"),
        (
            SumProtection(),
            10,
            3,
            (
                "study.minimum_sites is 3: secure sums over 10 sites with threshold = 7 need at least 7 in every sum; "
                "raise minimum_sites to 7, lower the threshold (to 6 at least), or write secure_sums = false under "
                "[privacy]"
            ),
        ),
        (SumProtection(threshold=6), 10, 5, "raise minimum_sites to 6, or write secure_sums = false"),
        (SumProtection(), 4, 5, "add sites or lower it"),
    ],
)
def test_a_study_that_cannot_be_secure_is_refused_with_the_remedy(protection, num_sites, minimum, message):
    with pytest.raises(ConfigError) as caught:
        terms_for(protection, num_sites, minimum)
    assert message in str(caught.value)


def test_a_study_that_may_lose_a_site_says_whether_the_same_may_be_asked_again():
    for silent in (SumProtection(), SumProtection(bucket_size=4)):
        terms = bucket_terms if silent.bucket_size else terms_for
        assert terms(silent, 12, None)
        assert terms(silent, 12, 12)
        with pytest.raises(
            ConfigError, match=r"minimum_sites is 11 of 12: .* write allows_repeats = true .* leave min"
        ):
            terms(silent, 12, 11)
        for said in (True, False):
            assert terms(replace(silent, allows_repeats=said), 12, 11)


def test_buckets_are_secure_sums_of_their_own():
    protection = SumProtection(bucket_size=3)
    assert [one.num_sites for one in bucket_terms(protection, 11, None)] == [4, 4, 3]
    assert all(one.num_may_drop == 0 for one in bucket_terms(protection, 11, 11))
    assert [
        one.minimum_survivors for one in bucket_terms(SumProtection(bucket_size=5, allows_repeats=True), 15, 12)
    ] == [4, 4, 4]
    assert bucket_terms(SumProtection(bucket_size=3, allows_repeats=True), 15, 9)
    with pytest.raises(ConfigError, match="need at least 12 together; raise minimum_sites to 12"):
        bucket_terms(SumProtection(bucket_size=5), 15, 11)
    with pytest.raises(ConfigError, match="makes 2 buckets of 8 sites"):
        bucket_terms(protection, 8, None)
    assert bucket_terms(SumProtection(), 11, None) == ()


@pytest.mark.parametrize(
    ("protection", "minimum", "fewest"),
    [
        (SumProtection(), 2, 3),
        (SumProtection(colluding_sites=4), 5, 6),
        (SumProtection(threshold=7), 6, 7),
        (SumProtection(bucket_size=6, allows_repeats=True), 11, 12),
    ],
)
def test_a_minimum_that_no_number_of_sites_mends_is_refused_early(protection, minimum, fewest):
    with pytest.raises(ConfigError, match=f"is {minimum}: secure sums .*raise minimum_sites to {fewest} at least"):
        check_minimum_sites(protection, minimum)
    check_minimum_sites(protection, fewest)
    check_minimum_sites(protection, None)
    num_sites = 18 if protection.bucket_size else fewest
    assert bucket_terms(protection, num_sites, fewest) or terms_for(protection, num_sites, fewest)
