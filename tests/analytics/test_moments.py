"""Means and sums of squares from sums, where float64 arithmetic is hardest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.analytics.by_hand import hospitals, number
from wardround.analytics.describe import describe
from wardround.analytics.moments import Moments


def described(values, num_sites=3):
    values = np.asarray(values, float)
    simulation = hospitals([number("x")], {"x": values}, np.arange(len(values)) % num_sites, num_sites)
    return simulation.run(describe()).variables[0].columns[0]


@pytest.mark.parametrize("offset", [0.0, 1e9, -1e12, 2.0**60])
@pytest.mark.parametrize("unit", [1.0, 2.0**-20])
def test_exact_at_large_offsets(offset, unit):
    # Multiples of the last place, so that nothing is rounded before we see it.
    step = max(unit, np.spacing(abs(offset)))
    small = np.random.default_rng(0).integers(-50, 50, 1000) * step
    column = described(offset + small)
    assert column.sd == pytest.approx(small.std(ddof=1), rel=1e-12)
    assert column.mean == pytest.approx(offset + small.mean(), rel=1e-15, abs=1e-12 * step)


@given(st.floats(-1e18, 1e18), st.integers(2, 60))
def test_constant_has_no_spread(value, count):
    column = described([value] * count)
    assert column.sd == 0.0
    assert column.mean == pytest.approx(value, rel=1e-15, abs=1e-40)


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e-3, 1e6, 1e15])
def test_precise_in_any_unit(scale):
    values = np.random.default_rng(1).lognormal(0, 2, 500) * scale
    column = described(values)
    assert column.sd == pytest.approx(values.std(ddof=1), rel=1e-12)
    assert column.mean == pytest.approx(values.mean(), rel=1e-12)


def test_one_giant_among_dwarfs():
    values = np.append(np.random.default_rng(2).normal(0, 1e-6, 400), 1e15)
    column = described(values)
    assert column.sd == pytest.approx(values.std(ddof=1), rel=1e-12)


@given(st.integers(0, 2**32), st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_groups_combine_to_everybody(seed, sizes):
    rng = np.random.default_rng(seed)
    parts = [1e9 + rng.normal(group, 1, size) for group, size in enumerate(sizes)]
    centres = [part.mean() if len(part) else 1e9 for part in parts]
    offsets = [(part - 1e9).mean() if len(part) else 0.0 for part in parts]
    moments = Moments(
        count=np.array([sizes]),
        origin=np.array([1e9]),
        offset=np.array([offsets]),
        square_sum=np.array([[((part - centre) ** 2).sum() for part, centre in zip(parts, centres, strict=True)]]),
    ).with_everybody()
    everything = np.concatenate(parts)
    assert moments.count[0, 0] == len(everything)
    if len(everything) > 1:
        assert moments.mean[0, 0] == pytest.approx(everything.mean(), rel=1e-15)
        assert moments.standard_deviation[0, 0] == pytest.approx(everything.std(ddof=1), rel=1e-8)
