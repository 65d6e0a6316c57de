"""Combining estimates: R's metafor and statsmodels on the same numbers, and what cannot be combined."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.meta_analysis import combine_effects

from wardround.analytics.meta_analysis_combine import combine, combine_vectors

REFERENCE = json.loads((Path(__file__).parents[1] / "references" / "meta_analysis.json").read_text())
CASES = REFERENCE["cases"]
TOLERANCE = {"rtol": 1e-8, "atol": 1e-10}


def _id(case: dict[str, Any]) -> str:
    return f"{case['set']}-{case['method']}-{case['test']}"


@pytest.mark.parametrize("case", [c for c in CASES if c["method"] == "FE"], ids=_id)
def test_fixed_effect_equals_metafor(case: dict[str, Any]) -> None:
    data = REFERENCE["sets"][case["set"]]
    result = combine(data["yi"], data["sei"])
    fixed = result.fixed
    got = [fixed.estimate, fixed.standard_error, fixed.statistic, fixed.p_value, fixed.low, fixed.high]
    np.testing.assert_allclose(got, [case[k] for k in ("estimate", "se", "statistic", "p", "low", "high")], **TOLERANCE)
    np.testing.assert_allclose(result.weights_fixed, case["weights"], **TOLERANCE)


@pytest.mark.parametrize("case", [c for c in CASES if c["method"] != "FE"], ids=_id)
def test_equals_metafor(case: dict[str, Any]) -> None:
    data = REFERENCE["sets"][case["set"]]
    result = combine(data["yi"], data["sei"], method=case["method"], knapp_hartung=case["test"] == "knha")
    random, spread = result.random, result.heterogeneity
    got = [random.estimate, random.standard_error, random.statistic, random.p_value, random.low, random.high]
    np.testing.assert_allclose(got, [case[k] for k in ("estimate", "se", "statistic", "p", "low", "high")], **TOLERANCE)
    np.testing.assert_allclose(result.weights_random, case["weights"], **TOLERANCE)
    got = [spread.q, spread.p_value, spread.tau2, spread.i2]
    np.testing.assert_allclose(got, [case[k] for k in ("q", "q_p", "tau2", "i2")], **TOLERANCE)
    got = [spread.tau2_low, spread.tau2_high, spread.i2_low, spread.i2_high]
    np.testing.assert_allclose(got, [case[k] for k in ("tau2_low", "tau2_high", "i2_low", "i2_high")], **TOLERANCE)
    if len(data["yi"]) > 2:
        np.testing.assert_allclose([result.predicted_low, result.predicted_high], case["predicted"], **TOLERANCE)
        got = [[w.estimate, w.standard_error, w.low, w.high, w.tau2, w.q] for w in result.without]
        np.testing.assert_allclose(got, case["without"], **TOLERANCE)
    else:
        assert result.predicted_low is None
        assert result.without == ()


@pytest.mark.parametrize(("method", "theirs"), [("DL", "chi2"), ("PM", "iterated")])
@pytest.mark.parametrize("name", ["bcg", "four"])
def test_equals_statsmodels(method: str, theirs: str, name: str) -> None:
    data = REFERENCE["sets"][name]
    options = {"atol": 1e-14} if theirs == "iterated" else {}
    oracle = combine_effects(np.array(data["yi"]), np.array(data["sei"]) ** 2, method_re=theirs, **options)
    plain = combine(data["yi"], data["sei"], method=method)  # type: ignore[arg-type]
    adjusted = combine(data["yi"], data["sei"], method=method, knapp_hartung=True)  # type: ignore[arg-type]
    np.testing.assert_allclose(plain.heterogeneity.tau2, oracle.tau2, rtol=1e-8)
    np.testing.assert_allclose(plain.random.estimate, oracle.mean_effect_re, rtol=1e-8)
    np.testing.assert_allclose(plain.random.standard_error, oracle.sd_eff_w_re, rtol=1e-8)
    np.testing.assert_allclose(adjusted.random.standard_error, oracle.sd_eff_w_re_hksj, rtol=1e-8)
    np.testing.assert_allclose(plain.fixed.estimate, oracle.mean_effect_fe, rtol=1e-8)
    np.testing.assert_allclose(plain.heterogeneity.q, oracle.q, rtol=1e-8)


@settings(max_examples=40)
@given(
    pairs=st.lists(st.tuples(st.floats(-3, 3), st.floats(0.05, 2)), min_size=2, max_size=8),
    unit=st.sampled_from([1e-9, 1e-3, 7.0, 1e12]),
    method=st.sampled_from(["DL", "REML", "ML", "PM"]),
)
def test_unit_does_not_matter(pairs: list[tuple[float, float]], unit: float, method: Any) -> None:
    y, se = np.array(pairs).T
    one, other = combine(y, se, method=method), combine(y * unit, se * unit, method=method)
    for name in ("fixed", "random"):
        got, expected = getattr(other, name), getattr(one, name)
        np.testing.assert_allclose(got.estimate, expected.estimate * unit, rtol=1e-9, atol=1e-9 * unit)
        np.testing.assert_allclose(got.standard_error, expected.standard_error * unit, rtol=1e-9)
    tau2, size = one.heterogeneity.tau2, float(np.max(se)) ** 2
    np.testing.assert_allclose(other.heterogeneity.tau2 / unit**2, tau2, rtol=1e-8, atol=1e-9 * size)


@settings(max_examples=40)
@given(pairs=st.lists(st.tuples(st.floats(-3, 3), st.floats(0.05, 2)), min_size=2, max_size=8))
def test_restricted_likelihood_is_highest_where_it_is_said_to_be(pairs: list[tuple[float, float]]) -> None:
    y, se = np.array(pairs).T

    def restricted(tau2: float) -> float:
        w = 1 / (se**2 + tau2)
        mean = w @ y / w.sum()
        return float(np.log(w).sum() - np.log(w.sum()) - w @ (y - mean) ** 2)

    tau2 = combine(y, se).heterogeneity.tau2
    assert all(restricted(tau2) >= restricted(other) - 1e-9 for other in np.geomspace(1e-8, 100, 300))


def test_all_coefficients_together_weigh_by_their_covariance() -> None:
    rng = np.random.default_rng(3)
    designs = [rng.normal(size=(40 + 20 * i, 3)) for i in range(3)]
    outcomes = [x @ [1.0, -0.5, 0.25] + rng.normal(size=len(x)) for x in designs]
    estimates = np.array([np.linalg.lstsq(x, y)[0] for x, y in zip(designs, outcomes, strict=True)])
    covariances = np.array([np.linalg.inv(x.T @ x) for x in designs])
    estimate, covariance = combine_vectors(estimates, covariances)
    x, y = np.concatenate(designs), np.concatenate(outcomes)
    # With one known residual variance, this is the pooled least-squares fit.
    np.testing.assert_allclose(estimate, np.linalg.lstsq(x, y)[0], rtol=1e-10)
    np.testing.assert_allclose(covariance, np.linalg.inv(x.T @ x), rtol=1e-10)


def test_same_estimate_everywhere() -> None:
    result = combine([0.5, 0.5, 0.5], [0.1, 0.2, 0.3], knapp_hartung=True)
    assert result.heterogeneity.q == pytest.approx(0, abs=1e-20)
    assert result.heterogeneity.tau2 == result.heterogeneity.i2 == 0
    assert (result.heterogeneity.tau2_low, result.heterogeneity.tau2_high) == (0, 0)
    assert result.random.estimate == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("estimates", "errors", "message"),
    [
        ([0.1], [0.1], "2 to"),
        ([0.1, 0.2], [0.1, 0.0], "greater than 0"),
        ([0.1, np.nan], [0.1, 0.2], "finite"),
        ([0.1, 0.2], [0.1], "one element a site"),
        ([0.1, 0.2], [0.1, np.inf], "finite"),
    ],
)
def test_unusable_numbers_are_refused(estimates: list[float], errors: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        combine(estimates, errors)


def test_confidence_is_checked() -> None:
    with pytest.raises(ValueError, match="confidence"):
        combine([0.1, 0.2], [0.1, 0.1], confidence=1.0)
