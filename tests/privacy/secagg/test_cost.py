"""Sizes of messages, added up field by field from docs/protocol.md, and what depends on them."""

from dataclasses import astuple, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.privacy.secagg import cost
from wardround.privacy.secagg.context import opening_bytes
from wardround.privacy.secagg.cost import Speeds, plain_traffic, round_traffic, setup_traffic, upload_bytes
from wardround.privacy.secagg.manifest import ADVERTISEMENT_BYTES, encapsulation_bytes
from wardround.privacy.secagg.messages import (
    CONSISTENCY_BYTES,
    agreement_bytes,
    masked_input_bytes,
    survivors_bytes,
    unmask_bytes,
)
from wardround.privacy.secagg.terms import Terms

MIB = 2**20
SPEEDS = Speeds(
    encode=1e9,
    hash=1e9,
    add=4e9,
    mask=5e9,
    sign=4e-5,
    verify=1e-4,
    digest=1e-6,
    derive=2e-6,
    seal=3e-6,
    split=1e-4,
    combine=1e-5,
)


def test_sizes_of_the_set_up():
    assert ADVERTISEMENT_BYTES == 6 + 2 + 32 + 1184 + 64
    assert encapsulation_bytes(5, 0) == 6 + 2 + 32 + 4 * 1088 + 64
    assert encapsulation_bytes(5, 4) == 6 + 2 + 32 + 64


def test_sizes_of_a_round():
    assert opening_bytes(4) == 6 + 16 + 4 + 2 + 2 + 4 * 2 + 64
    # ctx, i, words, chunks; a hash a chunk; seed and share commitments; sealed blobs of m shares; signature
    blob = 12 + 4 * 36 + 16
    masked = 6 + (32 + 2 + 8 + 4) + 4 * 32 + 16 * 16 + 4 * blob + 64
    assert masked_input_bytes(4, 100) == masked + 32
    chunk = 6 + 32 + 2 + 4
    assert upload_bytes(4, 2 * MIB + 8) == masked + 3 * (32 + chunk) + 2 * MIB + 8
    assert upload_bytes(4, 0) == masked
    assert survivors_bytes(4, 3) == 6 + 32 + 2 + 2 + 3 * (2 + 32 + 32 + 64 + (2 + 2) * 32 + blob) + 64
    assert CONSISTENCY_BYTES == 6 + 32 + 2 + 32 + 64
    assert agreement_bytes(3) == 6 + 32 + 2 + 3 * (2 + 64) + 64
    assert unmask_bytes(4, 3) == 6 + 32 + 2 + 32 + 3 * 2 * 36 + 64
    assert unmask_bytes(4, 4) == 6 + 32 + 2 + 32 + 4 * 36 + 64


@given(num_sites=st.integers(3, 60), vector=st.integers(0, 10**7), ask=st.integers(1, 10**6), data=st.data())
def test_what_all_send_is_what_the_coordinator_is_sent(num_sites, vector, ask, data):
    terms = Terms.of(num_sites)
    dropped = data.draw(st.integers(0, terms.num_may_drop))
    traffic = round_traffic(terms, vector, ask, num_dropped=dropped)
    left = num_sites - dropped
    assert traffic.coordinator_down == left * traffic.site_up
    assert traffic.site_up >= vector
    lost = dropped * (opening_bytes(num_sites) + ask)
    assert traffic.coordinator_up == left * traffic.site_down + lost


def test_strict_costs_a_leg_and_its_messages():
    strict = round_traffic(Terms.of(6), 800, 100)
    two = round_traffic(Terms.of(6, is_strict=False), 800, 100)
    assert (strict.legs, two.legs) == (3, 2)
    assert strict.site_up - two.site_up == CONSISTENCY_BYTES
    assert strict.site_down - two.site_down == agreement_bytes(6)


def test_the_set_up_goes_to_every_site():
    traffic = setup_traffic(10)
    whole = 10 * ADVERTISEMENT_BYTES + sum(encapsulation_bytes(10, index) for index in range(10))
    assert (traffic.site_down, traffic.coordinator_down, traffic.coordinator_up) == (whole, whole, 10 * whole)
    assert traffic.site_up == ADVERTISEMENT_BYTES + encapsulation_bytes(10, 0)


def test_traffic_adds_up():
    one, other = plain_traffic(4, 800, 100), round_traffic(Terms.of(4), 800, 100)
    assert astuple(one + other) == tuple(a + b for a, b in zip(astuple(one), astuple(other), strict=True))
    assert one + cost.NO_TRAFFIC == one
    assert (one.site_up, one.coordinator_down, one.site_down, one.coordinator_up) == (800, 3200, 100, 400)


@pytest.mark.parametrize("name", list(Speeds.__dataclass_fields__))
def test_no_slower_part_makes_a_round_quicker(name):
    terms = Terms.of(10)
    is_rate = name in ("encode", "hash", "add", "mask")
    slower = replace(SPEEDS, **{name: getattr(SPEEDS, name) * (0.5 if is_rate else 2)})
    before = cost.site_seconds(terms, 10**7, SPEEDS), cost.coordinator_seconds(terms, 10**7, SPEEDS)
    after = cost.site_seconds(terms, 10**7, slower), cost.coordinator_seconds(terms, 10**7, slower)
    assert after[0] >= before[0]
    assert after[1] >= before[1]
    assert after != before


def test_masking_many_parameters_is_what_takes_the_time():
    terms = Terms.of(10)
    assert cost.site_seconds(terms, 10**9, SPEEDS) == pytest.approx(1 + 1 + 10 / 5, rel=0.01)
    assert cost.coordinator_seconds(terms, 10**9, SPEEDS) == pytest.approx(10 * (1 + 0.25) + 10 / 5, rel=0.01)
    dropped = cost.coordinator_seconds(terms, 10**9, SPEEDS, num_dropped=3)
    assert dropped == pytest.approx(7 * (1 + 0.25) + 7 * 4 / 5, rel=0.01)
