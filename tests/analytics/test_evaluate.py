"""A model scored at the sites: federated equals pooled, small groups stay hidden, and what makes no sense is said."""

import dataclasses
import json
import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn import metrics
from sklearn.linear_model import LogisticRegression

from tests.analytics.pooled import relative, split
from wardround.analytics.evaluate import evaluate
from wardround.analytics.evaluation import Evaluation
from wardround.analytics.evaluation_figures import calibration_figure, precision_figure, roc_figure
from wardround.analytics.evaluation_groups import hidden_groups
from wardround.analytics.glm import glm
from wardround.analytics.result import FigureExhibit, Headlined, Result, TableExhibit
from wardround.analytics.scoring_read import linear_model
from wardround.analytics.splines import spline_basis
from wardround.data.contract import Contract, Variable
from wardround.engines.script import Event
from wardround.engines.simulated_hospitals import simulate
from wardround.errors import ConfigError, DataError, DisclosureError, SiteError
from wardround.privacy.disclosure import DisclosureRules
from wardround.testing import check_workflow

OPEN = DisclosureRules.of("none")
MODEL = linear_model({"age": 0.06, "sex[M]": 0.5, "crp": 0.02}, intercept=-6, name="Risk")


def make_patients(seed=0, n=2500):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.normal(60, 12, n).round(1),
            "sex": rng.choice(["F", "M"], n),
            "crp": rng.gamma(2, 10, n).round(1),
            "ward": rng.choice(["acute", "day", "rehab"], n, p=[0.6, 0.3, 0.1]),
        }
    )
    frame["died"] = (rng.random(n) < special.expit(0.8 * logits(frame) + 0.1)).astype(int)
    return frame


def logits(frame):
    return -6 + 0.06 * frame.age + 0.5 * (frame.sex == "M") + 0.02 * frame.crp


PATIENTS = make_patients()
SITES = split(PATIENTS, 4, seed=2)
POOLED = pd.concat(SITES.values(), ignore_index=True)
P, Y = special.expit(logits(POOLED)).to_numpy(), POOLED.died.to_numpy()


def run(frame_or_sites, *, disclosure=None, model=MODEL, outcome="died", contract=None, **options) -> Evaluation:
    sites = frame_or_sites if isinstance(frame_or_sites, dict) else split(frame_or_sites, 3, seed=1)
    federation = simulate(sites, disclosure=disclosure, contract=contract)
    return federation.run(evaluate(model=model, outcome=outcome, **options))


@pytest.fixture(scope="module")
def result():
    return run(SITES, by=("sex", "ward"), by_site=True, thresholds=(0.1, 0.25), disclosure=OPEN)


def logistic(x, y, offset=None):
    return sm.GLM(y, x, family=sm.families.Binomial(), offset=offset).fit(tol=1e-14, maxiter=100)


def check_exact_figures(performance, p, y):
    n = len(y)
    brier, loss = metrics.brier_score_loss(y, p), metrics.log_loss(y, p)
    assert relative(performance.brier.value, brier) < 1e-12
    assert relative(performance.brier.standard_error, ((p - y) ** 2).std() / np.sqrt(n)) < 1e-9
    assert relative(performance.log_loss.value, loss) < 1e-12
    assert relative(performance.observed_over_expected.value, y.sum() / p.sum()) < 1e-12
    # Binomial events over a fixed expectation, on the log scale.
    ratio, error = y.sum() / p.sum(), np.sqrt((1 - y.mean()) / y.sum())
    assert relative(performance.observed_over_expected.standard_error, ratio * error) < 1e-9
    assert relative(performance.observed_over_expected.high, ratio * np.exp(1.959963984540054 * error)) < 1e-9
    assert relative(performance.observed_over_expected.low, ratio * np.exp(-1.959963984540054 * error)) < 1e-9
    assert relative(performance.mean_predicted, p.mean()) < 1e-12
    assert relative(performance.scaled_brier, 1 - brier / (y.mean() * (1 - y.mean()))) < 1e-10
    lp = special.logit(p)
    line = logistic(sm.add_constant(lp), y)
    large = logistic(np.ones((n, 1)), y, offset=lp)
    for found, expected, error in (
        (performance.calibration_intercept, line.params[0], line.bse[0]),
        (performance.calibration_slope, line.params[1], line.bse[1]),
        (performance.calibration_in_the_large, large.params[0], large.bse[0]),
    ):
        assert abs(found.value - expected) < 1e-8 * max(abs(expected), 0.1)
        assert relative(found.standard_error, error) < 1e-8
    start = -metrics.log_loss(y, p) * n
    assert performance.calibration_p == pytest.approx(special.chdtrc(2, 2 * (line.llf - start)), rel=1e-6)
    z = ((y - p) * (1 - 2 * p)).sum() / np.sqrt(((1 - 2 * p) ** 2 * p * (1 - p)).sum())
    assert performance.spiegelhalter_z == pytest.approx(z, rel=1e-9)


def check_within_limits(performance, p, y):
    for found, exact in (
        (performance.auroc, metrics.roc_auc_score(y, p)),
        (performance.average_precision, metrics.average_precision_score(y, p)),
    ):
        assert found.least <= exact <= found.greatest
        assert abs(found.value - exact) <= found.bound


def test_moments_equal_pooled(result):
    check_exact_figures(result.overall, P, Y)
    assert (result.overall.num_records, result.overall.num_events) == (len(Y), Y.sum())


def test_evaluation_is_within_its_limits(result):
    check_within_limits(result.overall, P, Y)
    assert result.overall.auroc.bound < 1e-3


def test_every_group_equals_its_own_records(result):
    assert len(result.groups) == 2 + 3 + 4
    for group in result.groups:
        chosen = POOLED[group.variable] == group.level if group.variable != "site" else slice(None)
        frame = POOLED[chosen] if group.variable != "site" else SITES[group.level]
        p, y = special.expit(logits(frame)).to_numpy(), frame.died.to_numpy()
        check_exact_figures(group.performance, p, y)
        check_within_limits(group.performance, p, y)


def test_differences_are_between_independent_groups(result):
    by = {(g.variable, g.level): g.performance for g in result.groups}
    found = next(d for d in result.differences if (d.level, d.figure) == ("M", "auroc"))
    a, b = by["sex", "F"].auroc, by["sex", "M"].auroc
    assert found.reference == "F"
    assert found.difference.value == pytest.approx(b.value - a.value)
    assert found.difference.standard_error == pytest.approx(np.hypot(a.standard_error, b.standard_error))
    test = next(t for t in result.equality_tests if (t.variable, t.figure) == ("sex", "auroc"))
    assert test.df == 1
    assert test.p_value == pytest.approx(found.p_value, rel=1e-9)


def test_thresholds_equal_pooled(result):
    assert result.chosen == (0.1, 0.25)
    for at in result.thresholds:
        acted = at.threshold <= P
        assert at.sensitivity.value == pytest.approx(acted[Y == 1].mean())
        assert at.specificity.value == pytest.approx((~acted)[Y == 0].mean())
        if acted.any():
            assert at.positive_predictive_value.value == pytest.approx(Y[acted].mean())
        odds = at.threshold / (1 - at.threshold)
        assert at.net_benefit.value == pytest.approx((acted * (Y - odds * (1 - Y))).mean(), abs=1e-12)
    assert {0.05, 0.1, 0.25, 0.5} <= {at.threshold for at in result.thresholds}


def test_the_roc_curve_goes_through_points_of_the_records(result):
    curve = result.curve
    for cut, sensitivity, rate, precision in zip(
        curve.cuts, curve.sensitivity, curve.false_positive_rate, curve.precision, strict=True
    ):
        acted = cut <= P
        assert (sensitivity, rate) == pytest.approx((acted[Y == 1].mean(), acted[Y == 0].mean()), abs=1e-12)
        assert np.isnan(precision) if not acted.any() else precision == pytest.approx(Y[acted].mean())
    assert len(curve.cuts) > 100


def test_calibration_groups_and_the_parts_of_the_brier_score(result):
    ends = [0.0, *(group.high for group in result.calibration_groups)]
    assert len(ends) == 11
    group_of = np.searchsorted(ends[1:-1], P, side="right")
    for index, group in enumerate(result.calibration_groups):
        here = group_of == index
        assert (group.num_records, group.num_events) == (here.sum(), Y[here].sum())
        assert group.predicted == pytest.approx(P[here].mean(), rel=1e-12)
        assert group.observed.value == pytest.approx(Y[here].mean())
    parts = result.brier_parts
    total = parts["reliability"] - parts["resolution"] + parts["uncertainty"] + parts["within_groups"]
    assert total == pytest.approx(result.overall.brier.value, rel=1e-12)
    observed = np.array([Y[group_of == g].mean() for g in range(10)])[group_of]
    predicted = np.array([P[group_of == g].mean() for g in range(10)])[group_of]
    assert parts["reliability"] == pytest.approx(((predicted - observed) ** 2).mean(), rel=1e-9)
    assert parts["resolution"] == pytest.approx(((observed - Y.mean()) ** 2).mean(), rel=1e-9)
    statistic, df, p = result.hosmer_lemeshow
    n = np.bincount(group_of)
    mean = np.array([P[group_of == g].mean() for g in range(10)])
    events = np.bincount(group_of, Y)
    assert statistic == pytest.approx(((events - n * mean) ** 2 / (n * mean * (1 - mean))).sum())
    assert (df, p) == (10, pytest.approx(special.chdtrc(10, statistic)))


def test_the_smooth_curve_is_the_pooled_spline_fit(result):
    smooth = result.smooth
    lp, knots = special.logit(P), tuple(special.logit(np.array(smooth.knots)))
    x = np.column_stack([np.ones(len(P)), spline_basis(lp, "rcs", 3, knots, (0.0, 1.0))])
    fit = logistic(x, Y)
    at = special.logit(smooth.predicted)
    grid = np.column_stack([np.ones(len(at)), spline_basis(at, "rcs", 3, knots, (0.0, 1.0))])
    eta = grid @ fit.params
    error = np.sqrt(np.einsum("ij,jk,ik->i", grid, fit.cov_params(), grid))
    np.testing.assert_allclose(smooth.observed, special.expit(eta), rtol=1e-7)
    np.testing.assert_allclose(smooth.low, special.expit(eta - 1.959963984540054 * error), rtol=1e-6)
    distance = np.abs(special.expit(x @ fit.params) - P)
    assert smooth.ici == pytest.approx(distance.mean(), rel=1e-3)
    assert smooth.e50 == pytest.approx(np.median(distance), rel=2e-2)
    assert smooth.e90 == pytest.approx(np.quantile(distance, 0.9), rel=2e-2)
    quantiles = np.quantile(lp, (0.05, 0.275, 0.5, 0.725, 0.95))
    np.testing.assert_allclose(knots, quantiles, atol=0.02)


@given(st.integers(1, 7), st.integers(0, 10**6))
@settings(max_examples=8)
def test_the_split_does_not_matter(num_sites, seed):
    one = run(split(POOLED, 2, seed=5), by="sex")
    other = run(split(POOLED, num_sites, seed), by="sex")
    assert other.num_bins == one.num_bins
    for mine, theirs in zip(one.groups, other.groups, strict=True):
        assert relative(theirs.performance.auroc.value, mine.performance.auroc.value) < 1e-6
        assert relative(theirs.performance.calibration_slope.value, mine.performance.calibration_slope.value) < 1e-9


@given(st.integers(40, 400), st.integers(1, 12), st.integers(0, 10**6))
@settings(max_examples=25)
def test_few_values_of_the_score_make_exact_figures(n, num_values, seed):
    # Whole numbers as scores: every bin ends up with one of them, or is widened by what is stated.
    rng = np.random.default_rng(seed)
    score = rng.integers(0, num_values, n)
    y = (rng.random(n) < 0.2 + 0.6 * score / max(num_values, 1)).astype(int)
    y[:20] = np.tile([0, 1], 10)
    frame = pd.DataFrame({"x": score, "y": y})
    contract = Contract(variables=(Variable(name="x", type="integer"), Variable(name="y", type="integer")))
    try:
        found = run(frame, model=linear_model({"x": 1.0}, link="identity"), outcome="y", contract=contract)
    except DisclosureError:
        return
    check_within_limits(found.overall, score, y)
    if num_values <= 3:
        assert found.overall.auroc.bound < 1e-11


def test_predictions_of_zero_and_one_are_finite_in_every_figure():
    frame = PATIENTS.assign(p=np.clip(np.round(special.expit(logits(PATIENTS)) * 2 - 0.3, 1), 0, 1))
    found = run(frame, model=linear_model({"p": 1.0}, link="identity"))
    assert found.scale == "score"
    steep = linear_model({"age": 30.0, "crp": 3.0}, intercept=-1800)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = run(POOLED, model=steep)
    p = special.expit((30.0 * POOLED.age + 3 * POOLED.crp - 1800).to_numpy())
    eps = np.finfo(float).eps
    assert relative(found.overall.log_loss.value, metrics.log_loss(Y, np.clip(p, eps, 1 - eps))) < 1e-9
    line = logistic(sm.add_constant(special.logit(np.clip(p, eps, 1 - eps))), Y)
    assert found.overall.calibration_slope.value == pytest.approx(line.params[1], rel=1e-7)
    assert any("0 or 1" in note for note in found.notes)


# What is there to evaluate


def test_a_fit_of_ours_on_its_own_records_is_calibrated():
    federation = simulate(SITES)
    fit = federation.run(glm(formula="died ~ age + C(sex) + crp + ward", family="binomial"))
    found = federation.run(evaluate(model=fit, outcome="died"))
    assert found.overall.calibration_slope.value == pytest.approx(1, abs=1e-8)
    assert found.overall.calibration_intercept.value == pytest.approx(0, abs=1e-8)
    assert found.overall.observed_over_expected.value == pytest.approx(1, abs=1e-10)


def test_missing_values_are_left_out_and_told():
    frame = PATIENTS.copy()
    frame.loc[:39, "age"] = np.nan
    frame.loc[30:59, "died"] = np.nan
    found = run(frame.astype({"died": float}))
    kept = frame.dropna()
    check_exact_figures(found.overall, special.expit(logits(kept)).to_numpy(), kept.died.to_numpy())
    assert (found.num_left_out, found.num_records) == (60, len(frame))
    assert found.num_missing == {"died": 30, "age": 40}


def test_a_small_number_left_out_is_hidden_everywhere():
    frame = PATIENTS.copy()
    frame.loc[:2, "age"] = np.nan
    found = run(frame)
    assert (found.num_left_out, found.num_records, found.num_missing) == (None, None, {"age": None})
    assert "2500" not in found.summary()


def test_outcomes_may_be_booleans_categories_and_comparisons():
    frame = PATIENTS.assign(
        dead=PATIENTS.died == 1, end=np.where(PATIENTS.died == 1, "yes", "no"), stay=3 + 10 * PATIENTS.died
    )
    reference = run(frame)
    for outcome, said in (("dead", "dead = True"), ("end", "end = yes"), ("stay > 7", "stay > 7")):
        found = run(frame, outcome=outcome)
        assert found.outcome == said
        assert found.overall == reference.overall


def test_a_score_has_an_auroc_and_no_calibration():
    found = run(POOLED, model=linear_model({"age": 1.0, "crp": 0.3}, link="identity"), thresholds=(60.0,), by="sex")
    score = (POOLED.age + 0.3 * POOLED.crp).to_numpy()
    check_within_limits(found.overall, score, Y)
    assert found.overall.brier.value is None
    assert found.overall.calibration_slope.value is None
    assert found.smooth is None
    assert not found.calibration_groups
    (at,) = found.thresholds
    assert at.sensitivity.value == pytest.approx((score[Y == 1] >= 60).mean())
    assert at.net_benefit.value is None
    assert any("not a probability" in note for note in found.notes)
    found.plot()
    assert found.summary()


@pytest.mark.parametrize(
    ("change", "bound"),
    [
        (lambda x: 1e6 + x, 0.02),  # apart by a millionth of their size
        (lambda x: np.exp(12 * x), 0.02),
        (lambda x: x * 1e200, 0.02),
        (lambda x: np.sign(x), 1e-11),
        (lambda x: np.where(x > 1.5, 1e9 * x, x), 0.02),
    ],
)
def test_scores_of_any_size_and_shape_are_ranked(change, bound):
    frame = POOLED.assign(x=change((POOLED.age.to_numpy() - 60) / 12 + 0.03 * POOLED.crp.to_numpy() / 20))
    found = run(frame, model=linear_model({"x": 1.0}, link="identity"))
    check_within_limits(found.overall, frame.x.to_numpy(), frame.died.to_numpy())
    assert found.overall.auroc.bound < bound


def test_rare_events_are_not_searched_out_one_by_one():
    frame = POOLED.assign(died=(np.arange(len(POOLED)) % 200 == 0).astype(int))
    found = run(frame)
    check_within_limits(found.overall, P, frame.died.to_numpy())
    assert found.overall.auroc.bound > 1e-5  # each event is still in a bin with others


def test_several_records_of_a_patient_are_said():
    frame = PATIENTS.assign(patient=np.arange(len(PATIENTS)) // 2)
    federation = simulate({"a": frame[:1200], "b": frame[1200:]}, patient="patient")
    found = federation.run(evaluate(model=MODEL, outcome="died"))
    assert any(note.startswith("Some patients have several records") and note.endswith(".") for note in found.notes)


def test_constant_predictions_have_no_slope():
    found = run(POOLED, model=linear_model({"age": 0.0}, intercept=-1.0))
    overall = found.overall
    assert overall.auroc.value == 0.5
    assert overall.auroc.bound < 1e-11
    assert overall.average_precision.value == pytest.approx(Y.mean())
    assert overall.calibration_slope.value is None
    assert overall.calibration_in_the_large.value == pytest.approx(special.logit(Y.mean()) + 1, rel=1e-8)
    assert any("no calibration slope: all predictions are equal" in note for note in found.notes)
    assert found.summary()
    found.plot()


def test_perfect_predictions_have_no_slope_and_no_interval():
    frame = POOLED.assign(sick=POOLED.died)
    found = run(frame, model=linear_model({"sick": 4.0, "age": 0.001}, intercept=-2))
    assert found.overall.auroc.value == 1
    assert found.overall.auroc.low is None
    assert found.overall.calibration_slope.value is None
    assert "no calibration slope" in found.summary()


def test_a_model_of_one_hospital_at_three_others(shared_data):
    listed = "age sex cp trestbps chol fbs restecg thalach exang oldpeak slope ca thal num"
    used = ["age", "sex", "cp", "thalach", "exang", "oldpeak"]
    tables = {}
    for site in ("cleveland", "hungarian", "switzerland", "va"):
        path = shared_data / "heart_uci4" / f"processed.{site}.data"
        frame = pd.read_csv(path, header=None, na_values="?", names=listed.split())[[*used, "num"]].dropna()
        tables[site] = frame.assign(disease=(frame.num > 0).astype(int)).drop(columns="num").astype({"cp": int})
    local = tables.pop("cleveland")
    fitted = LogisticRegression(C=1.0, max_iter=5000).fit(local[used], local.disease)
    found = run(
        tables, model=fitted, outcome="disease", by_site=True, disclosure=DisclosureRules(allows_site_results=True)
    )
    pooled = pd.concat(tables.values())
    p, y = fitted.predict_proba(pooled[used])[:, 1], pooled.disease.to_numpy()
    check_exact_figures(found.overall, p, y)
    check_within_limits(found.overall, p, y)
    assert found.overall.auroc.bound < 0.005
    for group in found.groups:
        frame = tables[group.level]
        check_exact_figures(group.performance, fitted.predict_proba(frame[used])[:, 1], frame.disease.to_numpy())


# Bad input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"outcome": "dide"}, "did you mean 'died'"),
        ({"outcome": "ward"}, "3 levels"),
        ({"outcome": "age + 1", "model": MODEL}, "reads 'age'"),
        ({"outcome": "age"}, "the model itself reads"),
        ({"outcome": "1 + 1"}, "name a variable"),
        ({"by": "age"}, "by"),
        ({"by": ("sex", "sex")}, "twice"),
        ({"by": "wrd"}, "ward"),
        ({"by": "died"}, "groups by the outcome"),
        ({"thresholds": (1.2,)}, r"in \(0, 1\)"),
        ({"thresholds": (float("nan"),)}, "thresholds"),
        ({"num_bins": 3}, "num_bins"),
        ({"num_groups": 1}, "num_groups"),
        ({"confidence": 1.0}, "confidence"),
        ({"model": linear_model({"bmi": 1.0})}, "bmi"),
        ({"model": linear_model({"ward": 1.0})}, r"write ward\[level\]"),
        ({"model": linear_model({"ward[icu]": 1.0})}, "no level 'icu'"),
        ({"model": "risk.toml"}, "load_model"),
        ({"model": 7}, "must be a fit"),
        ({"model": {"kind": "pickle"}}, "model"),
        ({"by_site": True}, "allows_site_results"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_asked(options, words):
    asked = []
    federation = simulate(SITES, progress=asked.append)
    with pytest.raises(ConfigError, match=words):
        federation.run(evaluate(**{"model": MODEL, "outcome": "died", **options}))
    assert not asked


def test_probabilities_outside_their_range_are_refused():
    rules = {"link": "probit"}
    model = dataclasses.replace(linear_model({"age": 0.01}, **rules), link="logit")
    run(POOLED, model=model)
    onnx_like = dataclasses.replace(linear_model({"age": 0.01}), link="cloglog")
    run(POOLED, model=onnx_like)
    with pytest.raises(DataError, match="no finite number"):
        run(POOLED, model=linear_model({"np.exp(age)": 1e300, "np.exp(age + 1)": -1e300}))


def test_one_class_and_too_few_events_are_refused():
    with pytest.raises(DataError, match="no record has the event"):
        run(POOLED.assign(died=0.0), contract=number_contract("died"))
    with pytest.raises(DataError, match="every record has the event"):
        run(POOLED.assign(died=1.0), contract=number_contract("died"))
    few = POOLED.assign(died=(np.arange(len(POOLED)) < 3).astype(float))
    with pytest.raises(DisclosureError, match="fewer than 5 records are events"):
        run(few, contract=number_contract("died"))
    with pytest.raises(DataError, match="must be 0 or 1"):
        run(POOLED.assign(died=POOLED.died * 2.0), contract=number_contract("died"))
    with pytest.raises(DataError, match="no record has the outcome"):
        run(POOLED.assign(age=np.nan), contract=number_contract("died"))


def number_contract(name):
    return Contract(
        variables=(
            Variable(name="age", type="number"),
            Variable(name="crp", type="number"),
            Variable(name="sex", type="category", levels=("F", "M")),
            Variable(name="ward", type="category", levels=("acute", "day", "rehab")),
            Variable(name=name, type="number"),
        )
    )


def test_a_value_that_cannot_be_computed_shows_none():
    with pytest.raises(SiteError) as refused:
        run(POOLED.assign(age=POOLED.age.where(POOLED.age < 90, 0.0)), model=linear_model({"np.log(age - 500)": 1.0}))
    assert "not a finite number" in str(refused.value)


# Disclosure


def with_small_group(num=2):
    frame = PATIENTS.copy()
    frame["ward"] = np.where(np.arange(len(frame)) < num, "rare", frame.ward)
    return frame


def test_a_subgroup_of_two_people_is_hidden_and_not_given_back():
    found = run(with_small_group(), by="ward")
    hidden = [group.level for group in found.groups if group.performance is None]
    assert "rare" in hidden
    assert len(hidden) == 2  # everybody less the others would give the two back
    assert found.to_frame().loc[("ward", "rare"), "num_records"] is None or np.isnan(
        found.to_frame().loc[("ward", "rare"), "num_records"]
    )
    assert any("ward = rare" in note for note in found.notes)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=8),
    st.tuples(st.integers(0, 12), st.integers(0, 12)),
    st.integers(1, 11),
)
def test_what_is_not_shown_is_zero_or_enough(cells, missing, floor):
    counts = np.array(cells)
    total = counts.sum(axis=0) + missing
    hidden = hidden_groups(counts, total, floor)
    rest = total - counts[~hidden].sum(axis=0)
    if (~hidden).any():
        assert all(n == 0 or n >= floor for n in rest)
    shown = counts[~hidden]
    assert ((shown == 0) | (shown >= floor)).all()


def counts_in(value, path=""):
    """Every whole number of people in a result, by its place."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from counts_in(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from counts_in(item, path)
    elif ".num_" in path and "num_bins" not in path and value is not None:
        yield path, value


@pytest.mark.parametrize("floor", [5, 11])
def test_no_small_count_is_in_a_result_or_follows_from_one(floor):
    found = run(
        split(with_small_group()[:700], 3, seed=4),
        by=("ward", "sex"),
        thresholds=(0.5, 0.51, 0.9),
        disclosure=DisclosureRules(minimum_cell=floor),
    )
    assert [path for path, n in counts_in(found.to_dict()) if 0 < n < floor] == []
    num_events, num_others = found.overall.num_events, found.overall.num_records - found.overall.num_events
    # Counts that follow from the curves and from the thresholds, together.
    points = [
        (cut, s, f)
        for cut, s, f in zip(found.curve.cuts, found.curve.sensitivity, found.curve.false_positive_rate, strict=True)
    ]
    points += [(at.threshold, at.sensitivity.value, 1 - at.specificity.value) for at in found.thresholds]
    above = sorted({(cut, round(s * num_events), round(f * num_others)) for cut, s, f in points})
    table = np.array([[num_events, num_others], *[[e, o] for _, e, o in above], [0, 0]])
    cells = -np.diff(table, axis=0)
    assert ((cells == 0) | (cells >= floor)).all()
    assert {group.high for group in found.calibration_groups[:-1]} <= set(found.curve.cuts)
    for group in found.calibration_groups:
        others = group.num_records - group.num_events
        assert all(n == 0 or n >= floor for n in (group.num_events, others))


def test_counts_are_rounded_where_the_rules_say_so():
    found = run(POOLED, by="sex", disclosure=DisclosureRules(rounding=5))
    assert [path for path, n in counts_in(found.to_dict()) if n % 5] == []


@pytest.mark.parametrize(
    "model",
    [
        linear_model({"I(age == 71.3)": 3.0}, intercept=-1),
        linear_model({"I(age == 71.3)": 1e-6, "age": 0.06, "crp": 0.02}, intercept=-6),
        linear_model({"I(age == 71.3):sex[M]": 1e-6, "I(age == 71.3):sex[F]": 1e-6, "crp": 0.02}, intercept=-2),
    ],
)
def test_a_model_that_singles_somebody_out_is_refused(model):
    frame = PATIENTS.assign(
        age=np.where(np.arange(len(PATIENTS)) == 7, 71.3, PATIENTS.age.where(PATIENTS.age != 71.3, 70))
    )
    with pytest.raises(DisclosureError, match="minimum_cell"):
        run(frame, model=model)
    assert run(frame, model=model, disclosure=OPEN).overall.auroc.value is not None


NOTED = {
    "a score": {"model": linear_model({"age": 1.0}, link="identity")},
    "a score the wrong way round": {"model": linear_model({"age": -0.06}, intercept=4)},
    "one prediction": {"model": linear_model({}, intercept=-1)},
    "certain predictions": {"model": linear_model({"age": 3.0}, intercept=-150)},
    "hidden groups": {"frame_or_sites": with_small_group(), "by": "ward"},
    "a threshold near the end": {"thresholds": (float(np.sort(P)[-3]),)},
    "few records": {"frame_or_sites": POOLED[:60]},
}


@pytest.mark.parametrize("kind", NOTED)
def test_notes_are_sentences(kind):
    found = run(**{"frame_or_sites": POOLED, **NOTED[kind]})
    assert found.notes
    assert [note for note in found.notes if not (note[0].isupper() and note.endswith((".", "?")))] == []


def test_a_score_that_falls_with_the_risk_is_said():
    found = run(POOLED, model=NOTED["a score the wrong way round"]["model"])
    assert found.overall.auroc.high < 0.5
    assert any("below a half" in note for note in found.notes)
    assert not any("below a half" in note for note in run(POOLED).notes)


def test_a_fitted_model_takes_degrees_of_freedom_from_the_test_of_its_groups():
    apparent = run(POOLED, model=dataclasses.replace(MODEL, is_apparent=True))
    elsewhere = run(POOLED)
    assert apparent.hosmer_lemeshow[1] == len(apparent.calibration_groups) - 2
    assert elsewhere.hosmer_lemeshow[1] == len(elsewhere.calibration_groups)
    assert apparent.hosmer_lemeshow[0] == elsewhere.hosmer_lemeshow[0]
    assert apparent.hosmer_lemeshow[2] < elsewhere.hosmer_lemeshow[2]


def test_variables_may_have_any_name():
    frame = POOLED.rename(columns={"died": "lambda", "crp": "c reactive"})
    model = linear_model({"age": 0.06, "sex[M]": 0.5, "c reactive": 0.02}, intercept=-6)
    found = run(frame, model=model, outcome="lambda")
    assert relative(found.overall.brier.value, metrics.brier_score_loss(POOLED["died"], P)) < 1e-12


def test_arithmetic_that_tells_of_many_is_evaluated():
    model = linear_model({"I(age > 60)": 0.8, "np.log(crp + 1)": 0.3, "age:sex[M]": 0.01}, intercept=-3)
    found = run(POOLED, model=model)
    frame = POOLED
    p = special.expit(-3 + 0.8 * (frame.age > 60) + 0.3 * np.log(frame.crp + 1) + 0.01 * frame.age * (frame.sex == "M"))
    check_exact_figures(found.overall, p.to_numpy(), Y)


def test_bins_hold_enough_records_on_average():
    found = run(POOLED[:300])
    assert found.num_bins <= 300 / 5 + 30
    assert found.overall.auroc.bound < 0.02


# Faults on the way, the contract of workflows, and how it is shown


def test_a_site_that_leaves_is_in_no_figure():
    federation = simulate(SITES, minimum_sites=3, script=[Event(site="hospital 1", behaviour="drops_before", round=3)])
    found = federation.run(evaluate(model=MODEL, outcome="died"))
    rest = pd.concat([frame for name, frame in SITES.items() if name != "hospital 1"])
    assert "hospital 1" not in found.sites
    check_exact_figures(found.overall, special.expit(logits(rest)).to_numpy(), rest.died.to_numpy())


def test_it_keeps_to_the_contract_of_workflows():
    federation = simulate({name: frame[:150] for name, frame in SITES.items()})
    workflow = evaluate(model=MODEL, outcome="died", by="sex", thresholds=(0.2,))
    check_workflow(workflow, federation.data, federation.setting, max_crashes=2)


def test_a_result_offers_everything(result):
    assert isinstance(result, Result)
    assert isinstance(result, Headlined)
    assert json.loads(result.to_json()) == json.loads(json.dumps(result.to_dict()))
    text = result.summary()
    assert "exact: in [" in text
    assert result.model_digest[:12] in text
    assert "sex = M" in text
    assert all(line == line.rstrip() or "  " not in line for line in text.splitlines()[:1])
    assert result.model_digest in result.methods()
    assert all(name.split()[0] in result.methods() for name in result.references)
    assert len(result.headlines()) >= 2
    assert len(result.thresholds_frame()) == len(result.thresholds)
    assert result.to_frame().shape[0] == 1 + len(result.groups)


def test_exhibits_draw_and_say_what_they_show(result):
    exhibits = result.exhibits()
    figures = [exhibit for exhibit in exhibits if isinstance(exhibit, FigureExhibit)]
    tables = [exhibit for exhibit in exhibits if isinstance(exhibit, TableExhibit)]
    assert len(figures) == 5
    assert len(tables) == 4
    assert [figure.title for figure in figures if figure.kind == "calibration"] == ["Calibration"]
    for figure in figures:
        assert figure.draw().get_axes()
        assert any(character.isdigit() for character in figure.description)
    assert result.plot().get_axes()


@pytest.mark.parametrize("draw", [precision_figure, roc_figure, calibration_figure])
@pytest.mark.parametrize("shift", [-2, 0, 2])
def test_words_lie_over_no_curve(draw, shift):
    model = linear_model({"age": 0.06, "sex[M]": 0.5, "crp": 0.02}, intercept=-6 + shift)
    figure = draw(run(SITES, model=model))
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in [*axes.texts, axes.title] if len(text.get_text()) > 10]
        shapes = [line.get_path().transformed(line.get_transform()) for line in axes.lines if line.get_color() == "C0"]
        shapes += [part.get_path().transformed(part.get_transform()) for part in axes.patches]
        assert not any(shape.intersects_bbox(box, filled=False) for shape in shapes for box in boxes)


def test_a_name_with_a_dollar_sign_is_drawn_as_it_is():
    frame = PATIENTS.assign(ward=np.where(PATIENTS.ward == "day", "$cheap$_day", PATIENTS.ward))
    found = run(frame, by="ward")
    for exhibit in found.exhibits():
        if isinstance(exhibit, FigureExhibit):
            exhibit.draw().draw_without_rendering()


def test_intervals_cover_the_truth():
    # 200 samples; 95% intervals that covered with probability 0.95 would fail this with probability < 1e-6.
    truth = 0.7602499389065233  # of two normals that lie one standard deviation apart
    rng = np.random.default_rng(11)
    num_samples, covered = 200, 0
    from wardround.analytics.discrimination import auroc

    for _ in range(num_samples):
        x1, x0 = rng.normal(1, 1, 60), rng.normal(0, 1, 140)
        values = np.sort(np.concatenate([x1, x0]))
        edges = (values[1:] + values[:-1]) / 2
        events = np.bincount(np.searchsorted(edges, x1, side="right"), minlength=200)
        area = auroc(events, 1 - events, np.ones(200, bool), 0.95)
        covered += area.low <= truth <= area.high
    assert 0.86 * num_samples <= covered <= num_samples - 1
