"""AUROC and average precision from histograms: the figures of the records lie within the stated limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from wardround.analytics.decision_curve import at_threshold, safe_cuts, spread_out, wilson
from wardround.analytics.discrimination import auroc, average_precision, logit_interval, next_edges

SCORES = st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=4, max_size=60)


def binned(score, y, edges):
    """Events, others, and whether a bin's scores are all equal."""
    bins = np.searchsorted(edges, score, side="right")
    size = len(edges) + 1
    tied = np.array([len(np.unique(score[bins == b])) <= 1 for b in range(size)])
    return np.bincount(bins[y == 1], minlength=size), np.bincount(bins[y == 0], minlength=size), tied


def two_classes(records):
    score = np.array([s for s, _ in records], float)
    y = np.array([e for _, e in records], int)
    y[:2] = 0, 1
    return score, y


@given(SCORES, st.lists(st.integers(0, 30), max_size=12))
def test_auroc_lies_between_its_limits(records, edges):
    score, y = two_classes(records)
    area = auroc(*binned(score, y, np.unique(edges)), 0.95)
    exact = metrics.roc_auc_score(y, score)
    assert area.least - 1e-12 <= exact <= area.greatest + 1e-12
    assert area.least <= area.value <= area.greatest


@given(SCORES, st.lists(st.integers(0, 30), max_size=12))
def test_average_precision_lies_between_its_limits(records, edges):
    score, y = two_classes(records)
    found = average_precision(*binned(score, y, np.unique(edges)), 0.95)
    exact = metrics.average_precision_score(y, score)
    assert found.least - 1e-12 <= exact <= found.greatest + 1e-12
    assert found.least <= found.value <= found.greatest


@given(SCORES)
def test_figures_are_exact_where_each_bin_has_one_score(records):
    score, y = two_classes(records)
    counts = binned(score, y, np.arange(0.5, 30))
    assert auroc(*counts, 0.95).bound < 1e-11
    assert auroc(*counts, 0.95).value == pytest.approx(metrics.roc_auc_score(y, score), abs=1e-12)
    assert average_precision(*counts, 0.95).value == pytest.approx(metrics.average_precision_score(y, score), abs=1e-12)


def test_the_limits_are_reached():
    # One bin, all events above or all below all others.
    events, others, tied = np.array([3]), np.array([4]), np.array([False])
    area = auroc(events, others, tied, 0.95)
    assert (area.least, area.value, area.greatest) == (0, 0.5, 1)
    precision = average_precision(events, others, tied, 0.95)
    assert precision.greatest == pytest.approx(1)
    assert precision.least == pytest.approx(np.mean([1 / 5, 2 / 6, 3 / 7]))


def test_variance_is_delongs():
    rng = np.random.default_rng(4)
    score, y = rng.integers(0, 12, 80).astype(float), rng.integers(0, 2, 80)
    x0, x1 = score[y == 0], score[y == 1]
    psi = (x1[:, None] > x0) + 0.5 * (x1[:, None] == x0)
    variance = psi.mean(1).var(ddof=1) / len(x1) + psi.mean(0).var(ddof=1) / len(x0)
    area = auroc(*binned(score, y, np.arange(0.5, 12)), 0.95)
    assert area.standard_error == pytest.approx(np.sqrt(variance), rel=1e-12)
    assert 0 < area.low < area.value < area.high < 1


def test_without_events_or_without_error_there_is_no_interval():
    tied = np.array([True, True])
    assert auroc(np.array([0, 0]), np.array([3, 2]), tied, 0.95).value is None
    assert average_precision(np.array([0, 0]), np.array([3, 2]), tied, 0.95).value is None
    perfect = auroc(np.array([0, 5]), np.array([5, 0]), tied, 0.95)
    assert (perfect.value, perfect.low, perfect.high) == (1, None, None)
    alone = auroc(np.array([0, 1]), np.array([5, 0]), tied, 0.95)
    assert (alone.value, alone.standard_error, alone.low) == (1, None, None)
    assert logit_interval(0.5, float("nan"), 0.95) == (None, None)


@given(
    st.lists(st.integers(0, 30), min_size=3, max_size=40), st.integers(3, 30), st.integers(1, 8), st.integers(0, 10**6)
)
def test_better_edges_increase_and_keep_those_of_tied_bins(counts, num_bins, floor, seed):
    rng = np.random.default_rng(seed)
    events = rng.binomial(counts, 0.4)
    edges = np.cumsum(rng.random(len(counts) - 1) + 0.01)
    tied = rng.random(len(counts)) < 0.3
    found = next_edges(edges, events, np.array(counts) - events, tied, num_bins, floor)
    assert (np.diff(found) > 0).all()
    sides = set(edges[tied[:-1]]) | set(edges[tied[1:]])
    assert sides <= set(found)
    assert len(found) <= max(num_bins - 1, len(sides))
    # No bin gets more edges than the floor goes into its records, but for one on a border.
    inside = np.histogram(found, np.concatenate([[-1e9], edges, [1e9]]))[0]
    assert (inside <= np.array(counts) / floor + 2 + 2 * tied).all()


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=40),
    st.integers(1, 12),
    st.integers(0, 10**6),
)
def test_cells_between_cuts_are_zero_or_enough(cells, floor, seed):
    events, others = (np.array(column) for column in zip(*cells, strict=True))
    events[0], others[0] = events[0] + floor, others[0] + floor
    wanted = np.random.default_rng(seed).permutation(np.arange(1, len(cells))).tolist()
    cuts = safe_cuts(events, others, wanted, floor, 30)
    assert cuts == sorted(set(cuts))
    for counts in (events, others):
        cell = np.add.reduceat(counts, [0, *cuts])
        if counts.sum() >= floor:
            assert all(n == 0 or n >= floor for n in cell)


def test_cuts_come_back_where_everything_may_be_shown():
    events, others = np.array([1, 2, 1]), np.array([3, 1, 0])
    assert safe_cuts(events, others, [2, 1, 2], 1, 10) == [1, 2]
    assert safe_cuts(events, others, [2, 1], 1, 1) == [2]
    assert safe_cuts(events, others, [1, 2], 5, 10) == []


@given(st.integers(1, 300))
def test_spread_out_holds_every_number_once(count):
    assert sorted(spread_out(count)) == list(range(1, count))


def test_wilson_is_statsmodels():
    from statsmodels.stats.proportion import proportion_confint

    for count, total in ((0, 9), (9, 9), (3, 17), (500, 1000)):
        low, high = proportion_confint(count, total, method="wilson")
        found = wilson(count, total, 0.95)
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    assert wilson(0, 0, 0.95).value is None


def test_net_benefit_and_its_error_are_those_of_the_records():
    y = np.array([1] * 30 + [0] * 70)
    acted = np.array([True] * 20 + [False] * 10 + [True] * 15 + [False] * 55)
    odds = 0.2 / 0.8
    gain = np.where(acted, np.where(y == 1, 1, -odds), 0.0)
    found = at_threshold(0.2, (20, 15), (10, 55), 0.95, is_probability=True)
    assert found.net_benefit.value == pytest.approx(gain.mean())
    assert found.net_benefit.standard_error == pytest.approx(gain.std() / 10)
    over_all = gain - np.where(y == 1, 1, -odds)
    assert found.gain_over_all.value == pytest.approx(over_all.mean())
    assert found.gain_over_all.standard_error == pytest.approx(over_all.std() / 10)
    assert found.net_benefit_of_all == pytest.approx(np.where(y == 1, 1, -odds).mean())
    assert at_threshold(0.2, (20, 15), (10, 55), 0.95, is_probability=False).net_benefit.value is None
