"""What a study says of its sums, and the buckets it makes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.errors import ConfigError
from wardround.privacy.protection import PLAIN, SumProtection, bucket_sizes


def test_sums_are_secure_unless_a_study_says_otherwise():
    assert SumProtection() == SumProtection(secure_sums=True, threshold=None, colluding_sites=0, is_strict=None)
    assert not SumProtection().allows_clear
    assert not PLAIN.secure_sums


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"threshold": 1}, "threshold must be at least 2, got threshold=1"),
        ({"colluding_sites": -1}, "colluding_sites must be >= 0, got colluding_sites=-1"),
        ({"bucket_size": 2}, "bucket_size must be at least 3, got bucket_size=2"),
        ({"threshold": 3, "colluding_sites": 3}, "threshold must be over colluding_sites=3, got threshold=3"),
        ({"bucket_size": 3, "colluding_sites": 2}, "bucket_size must be at least colluding_sites + 2 = 4"),
        ({"bucket_size": 3, "threshold": 3}, "leave it out beside bucket_size"),
        ({"secure_sums": False, "threshold": 3}, "threshold: of no effect with secure_sums = false"),
        (
            {"secure_sums": False, "colluding_sites": 1, "is_strict": True},
            "colluding_sites and mode: of no effect with secure_sums = false; leave out one or the other",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(figures, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is compared below
        SumProtection(**figures)
    assert message in str(caught.value)


@given(num_sites=st.integers(9, 200), data=st.data())
def test_buckets_hold_every_site(num_sites, data):
    bucket_size = data.draw(st.integers(3, num_sites // 3))
    sizes = bucket_sizes(num_sites, bucket_size)
    assert sum(sizes) == num_sites
    assert len(sizes) >= 3
    assert min(sizes) >= bucket_size
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("num_sites", "bucket_size", "message"),
    [
        (8, 3, "bucket_size = 3 makes 2 buckets of 8 sites, and a median needs at least 3; take at least 9 sites, or"),
        (4, 3, "makes 1 bucket of 4 sites"),
        (10, 4, "lower it to 3 at most, or leave it out"),
    ],
)
def test_too_few_buckets_are_refused(num_sites, bucket_size, message):
    with pytest.raises(ConfigError) as caught:
        bucket_sizes(num_sites, bucket_size)
    assert message in str(caught.value)
