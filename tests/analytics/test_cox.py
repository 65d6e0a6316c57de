"""The Cox model: the pooled fit of other libraries, whatever the split; what cannot be fitted is said."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from lifelines.datasets import load_rossi
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv
from statsmodels.duration.hazard_regression import PHReg

from tests.analytics.pooled import relative, split
from wardround.analytics.cox import cox
from wardround.analytics.cox_concordance import MAX_BINS
from wardround.analytics.cox_result import CoxResult
from wardround.engines.simulated_hospitals import simulate
from wardround.engines.simulation import Simulation
from wardround.errors import (
    ConfigError,
    ConvergenceError,
    DataError,
    DisclosureError,
    ModelError,
    RankDeficiencyError,
    SeparationError,
    SiteError,
)
from wardround.testing.small_counts import shown_small_counts
from wardround.testing.workflow_contract import check_workflow

TOLERANCE = 1e-8


def make_patients(seed: int = 3, n: int = 420) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.normal(62, 11, n).round(1),
            "crp": rng.lognormal(1.5, 0.8, n).round(2),
            "sex": rng.choice(["F", "M"], n),
            "ward": rng.choice(["acute", "day", "rehab"], n, p=[0.5, 0.3, 0.2]),
            "case": rng.integers(1, 4, n),
            "team": rng.integers(0, 25, n),
        }
    )
    risk = 0.04 * frame.age + 0.5 * (frame.sex == "M") - 0.3 * (frame.ward == "day") + 0.02 * frame.crp
    time = np.ceil(rng.exponential(90 * np.exp(2 - risk))).astype(int)
    stopped = rng.integers(5, 200, n)
    frame["time"], frame["dead"] = np.minimum(time, stopped), (time <= stopped).astype(int)
    frame["start"] = np.maximum(frame.time - rng.integers(1, 120, n), 0)
    return frame


PATIENTS = make_patients()
SITES = split(PATIENTS, 4, seed=7)
POOLED = pd.concat(SITES.values(), ignore_index=True)
FEDERATION = simulate(SITES)
OPEN = simulate(SITES, disclosure="none")
SMALL = {"time": "time", "event": "dead"}


def fit(federation: Simulation = FEDERATION, **options: Any) -> CoxResult:
    return federation.run(cox(**{**SMALL, "formula": "age + C(sex) + crp", **options}))


def fit_frame(frame: pd.DataFrame, num_sites: int = 2, **options: Any) -> CoxResult:
    return fit(simulate(split(frame, num_sites, 1)), **options)


def estimates(result: CoxResult) -> np.ndarray:
    return np.array([(term.estimate, term.standard_error) for term in result.terms])


# Federated equals pooled


def test_rossi_as_lifelines_fits_it() -> None:
    rossi = load_rossi()
    formula = "fin + age + race + wexp + mar + paro + prio"
    result = fit_frame(rossi, 3, formula=formula, time="week", event="arrest")
    pooled = CoxPHFitter().fit(rossi, "week", "arrest", formula=formula, fit_options={"precision": 1e-12})
    frame = result.to_frame()
    assert relative(frame.estimate, pooled.params_.loc[frame.index]) < 1e-7  # where it stops
    assert relative(frame.standard_error, pooled.standard_errors_.loc[frame.index]) < 1e-7
    assert relative(frame.p_value, pooled.summary.p.loc[frame.index]) < 1e-6
    assert relative(frame[["ratio_low", "ratio_high"]], np.exp(pooled.confidence_intervals_.loc[frame.index])) < 1e-7
    assert relative(result.log_likelihood, pooled.log_likelihood_) < TOLERANCE
    ratio = pooled.log_likelihood_ratio_test()
    assert relative(result.tests[0].statistic, ratio.test_statistic) < 1e-7
    assert result.concordance is not None
    assert abs(result.concordance.estimate - pooled.concordance_index_) <= result.concordance.error_bound


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("extras", [{}, {"entry": "start"}, {"strata": ("ward",)}])
def test_coefficients_of_statsmodels(ties: Any, extras: dict[str, Any]) -> None:
    design = np.c_[POOLED.age, POOLED.sex == "M", POOLED.crp].astype(float)
    # It counts one who enters at an event's time as at risk there; R and we do not.
    kind = {"entry": POOLED.start + 0.5} if "entry" in extras else {"strata": POOLED.ward} if extras else {}
    pooled = PHReg(POOLED.time, design, status=POOLED.dead, ties=ties, **kind).fit(disp=0, tol=1e-12)
    result = fit(ties=ties, **extras)
    assert relative([term.estimate for term in result.terms], pooled.params) < 1e-6  # where it stops
    assert relative([term.standard_error for term in result.terms], pooled.bse) < 1e-6
    score = PHReg(POOLED.time, design, status=POOLED.dead, ties=ties, **kind).score(estimates(result)[:, 0])
    assert np.abs(score * estimates(result)[:, 1]).max() < TOLERANCE


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_ridge_of_scikit_survival(ties: Any) -> None:
    design = np.c_[POOLED.age, POOLED.sex == "M", POOLED.crp].astype(float)
    outcome = Surv.from_arrays(POOLED.dead == 1, POOLED.time)
    pooled = CoxPHSurvivalAnalysis(alpha=25.0, ties=ties, tol=1e-13, n_iter=200).fit(design, outcome)
    result = fit(ties=ties, l2=25.0, l2_scale="raw")
    assert relative([term.estimate for term in result.terms], pooled.coef_) < TOLERANCE


def test_a_standardised_ridge_is_one_on_columns_of_deviation_one() -> None:
    scaled = POOLED.assign(age=POOLED.age / POOLED.age.std(ddof=0), crp=POOLED.crp / POOLED.crp.std(ddof=0))
    raw = fit_frame(scaled, 3, formula="age + crp", l2=10.0, l2_scale="raw")
    standardised = fit(formula="age + crp", l2=10.0)
    size = POOLED[["age", "crp"]].std(ddof=0).to_numpy()
    assert relative(estimates(standardised) * size[:, None], estimates(raw)) < TOLERANCE


@given(st.integers(1, 7), st.integers(0, 10**6))
@settings(max_examples=8)
def test_the_split_of_a_cox_fit_does_not_matter(num_sites: int, seed: int) -> None:
    options: dict[str, Any] = {"strata": ("ward",), "entry": "start", "weights": "case", "covariance": "robust"}
    reference, other = fit(**options), fit(simulate(split(POOLED, num_sites, seed)), **options)
    assert relative(estimates(other), estimates(reference)) < 1e-9
    assert (
        relative([t.statistic for t in other.proportionality], [t.statistic for t in reference.proportionality]) < 1e-8
    )
    assert other.concordance is not None
    assert reference.concordance is not None
    assert other.concordance.estimate == pytest.approx(reference.concordance.estimate, abs=1e-6)


def test_only_a_settled_cox_fit_is_returned() -> None:
    """On data of many kinds, the score at what is returned is zero; else an error says why nothing is."""
    settled = 0
    for seed in range(25):
        frame = make_patients(seed, n=12 + 2 * seed)
        try:
            result = fit_frame(frame, formula="age + crp")
        except ModelError:
            continue
        score = PHReg(frame.time, frame[["age", "crp"]], status=frame.dead, ties="efron").score(estimates(result)[:, 0])
        assert np.abs(score * estimates(result)[:, 1]).max() < 1e-7
        settled += 1
    assert settled > 15


def test_weights_are_copies_of_records() -> None:
    copies = POOLED.loc[POOLED.index.repeat(POOLED.case)]
    weighted, repeated = fit(weights="case", ties="breslow"), fit_frame(copies, 3, ties="breslow")
    assert relative(estimates(weighted), estimates(repeated)) < TOLERANCE
    assert any("sampling weights" in note for note in weighted.notes)


def test_records_of_weight_zero_are_not_there() -> None:
    weight = np.where(np.arange(len(POOLED)) % 5 == 0, 0, 1)
    with_zeros = fit_frame(POOLED.assign(weight=weight), 3, weights="weight", covariance="robust")
    without = fit_frame(POOLED[weight == 1], 3, covariance="robust")
    assert relative(estimates(with_zeros), estimates(without)) < 1e-9
    assert with_zeros.num_records == without.num_records
    assert with_zeros.concordance is not None
    assert without.concordance is not None
    assert abs(with_zeros.concordance.estimate - without.concordance.estimate) < without.concordance.error_bound


def test_a_cluster_without_weight_is_none() -> None:
    weighted = fit_frame(
        changed(weight=(POOLED.team > 4).astype(int)), 1, weights="weight", covariance="cluster", cluster="team"
    )
    assert weighted.num_clusters == (np.unique(POOLED.team) > 4).sum()


def test_sites_as_strata_are_strata_of_a_variable_with_their_names() -> None:
    options: dict[str, Any] = {"covariance": "cluster", "cluster": "team", "entry": "start"}
    sites = {name: part.assign(place=f"p{i}") for i, (name, part) in enumerate(SITES.items())}
    own, other = fit(strata=("site",), **options), fit(simulate(sites), strata=("place",), **options)
    assert relative(estimates(own), estimates(other)) < 1e-9
    assert relative(own.log_likelihood, other.log_likelihood) < 1e-12
    assert relative([t.statistic for t in own.proportionality], [t.statistic for t in other.proportionality]) < 1e-8
    assert own.concordance is not None
    assert other.concordance is not None
    assert own.concordance.estimate == pytest.approx(other.concordance.estimate, abs=1e-12)
    assert own.concordance.standard_error == pytest.approx(other.concordance.standard_error, abs=1e-12)
    assert own.baselines == ()


def test_a_stratum_that_lives_at_one_site() -> None:
    sites = {name: part.assign(lab="new" if name == "hospital 0" else "old") for name, part in SITES.items()}
    pooled = pd.concat(sites.values())
    result = fit(simulate(sites), strata=("lab",))
    pooled_fit = PHReg(
        pooled.time,
        np.c_[pooled.age, pooled.sex == "M", pooled.crp].astype(float),
        status=pooled.dead,
        ties="efron",
        strata=pooled.lab,
    )
    assert np.abs(pooled_fit.score(estimates(result)[:, 0]) * estimates(result)[:, 1]).max() < TOLERANCE
    assert [curve.stratum for curve in result.baselines] == ["lab = new", "lab = old"]


def test_a_site_without_events_or_records_takes_part() -> None:
    sites = {**SITES, "new": POOLED[:20].assign(dead=0, time=3, start=0), "empty": POOLED[:0]}
    federation = simulate(sites, contract=OPEN.setting.contract)
    result = fit(federation, strata=("site",))
    assert relative(estimates(result), estimates(fit(strata=("site",)))) < 1e-9
    assert fit(federation).num_records == len(POOLED) + 20


def test_a_coarser_grid_is_the_pooled_fit_of_rounded_times() -> None:
    result = fit(grid=7.0)
    rounded = fit_frame(POOLED.assign(time=7 * np.ceil(POOLED.time / 7).astype(int)), 3)
    assert relative(estimates(result), estimates(rounded)) < 1e-9
    assert result.step == 7.0
    assert any("rounded up" in note for note in result.notes)


def test_events_of_every_type() -> None:
    reference = estimates(fit())
    for values, options in (
        (POOLED.dead == 1, {}),
        (np.where(POOLED.dead == 1, "died", "alive"), {"event_level": "died"}),
        (POOLED.dead + 1, {"event_level": "2"}),
    ):
        result = fit_frame(POOLED.assign(end=values), 3, event="end", **options)
        assert relative(estimates(result), reference) < 1e-9


# Concordance


def harrell(frame: pd.DataFrame, score: np.ndarray, start: np.ndarray | None = None) -> float:
    """By its definition, pair by pair."""
    time, dead = frame.time.to_numpy(), frame.dead.to_numpy()
    start = np.full(len(frame), -1) if start is None else start
    agree = pairs = 0.0
    for i, j in combinations(range(len(frame)), 2):
        for case, other in ((i, j), (j, i)):
            outlives = time[other] > time[case] or (time[other] == time[case] and not dead[other])
            if dead[case] and outlives and start[other] < time[case]:
                pairs += 1
                agree += 1.0 if score[case] > score[other] else 0.5 * (score[case] == score[other])
    return agree / pairs


@pytest.mark.parametrize("entry", [None, "start"])
def test_concordance_lies_within_its_bound(entry: str | None) -> None:
    result = fit(entry=entry)
    score = result.predict_risk(POOLED).linear_predictor.to_numpy()
    exact = harrell(POOLED, score, POOLED.start.to_numpy() if entry else None)
    found = result.concordance
    assert found is not None
    assert 0 < found.error_bound < 1 / MAX_BINS
    assert abs(found.estimate - exact) <= found.error_bound
    assert found.low < exact < found.high


def test_concordance_of_few_scores_is_exact() -> None:
    result = fit(formula="C(sex) + C(ward)")
    risk = result.predict_risk(POOLED)
    exact = harrell(POOLED, risk.linear_predictor.round(9).to_numpy())
    assert result.concordance is not None
    assert result.concordance.error_bound == 0
    assert result.concordance.estimate == pytest.approx(exact, abs=1e-12)


# Predictions


def test_predictions_are_those_of_lifelines() -> None:
    result = fit(OPEN)
    pooled = CoxPHFitter(baseline_estimation_method="breslow")
    pooled.fit(POOLED, "time", "dead", formula="age + sex + crp", fit_options={"precision": 1e-12})
    profiles = pd.DataFrame({"age": [50.0, 70.0], "crp": [3.0, 9.0], "sex": ["F", "M"]})
    got = result.predict_risk(profiles)
    difference = np.diff(pooled.predict_log_partial_hazard(profiles))
    assert relative(np.diff(got.linear_predictor), difference) < TOLERANCE
    assert relative(np.log(got.high / got.low), 2 * 1.959963984540054 * got.standard_error) < 1e-12
    survival = result.predict(profiles, times=(1.0, 20.0, 77.0)).survival.to_numpy().reshape(2, 3).T
    assert np.abs(survival - pooled.predict_survival_function(profiles, times=[1, 20, 77])).to_numpy().max() < 0.01


def test_before_the_first_event_nobody_has_died_however_far_the_profile() -> None:
    result = fit(OPEN, formula="age")
    far = result.predict(pd.DataFrame({"age": [-1e9, 1e9]}), times=(0.0, 100.0))
    assert far.survival.tolist() == [1.0, 1.0, 1.0, 0.0]
    assert far[far.time == 0][["low", "high"]].to_numpy().tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_between_shown_times_the_curve_stands_and_after_them_it_is_unknown() -> None:
    result = fit()
    times = result.baselines[0].times
    profile = POOLED[["age", "crp", "sex"]][:1]
    got = result.predict(profile, times=(0.0, times[3], (times[3] + times[4]) / 2, times[-1], times[-1] + 1))
    survival = got.survival.to_numpy()
    assert survival[0] == 1
    assert survival[1] == survival[2]
    assert np.isfinite(survival[3])
    assert np.isnan(survival[4])
    assert (got[["low"]][:4].to_numpy() <= got[["survival"]][:4].to_numpy()).all()


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ({"age": [50], "crp": [1.0]}, "the column 'sex'"),
        ({"age": [50], "crp": [1.0], "sex": ["X"]}, "one of F, M"),
        ({"age": ["old"], "crp": [1.0], "sex": ["F"]}, "must be a number"),
    ],
)
def test_profiles_that_do_not_fit(profile: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fit().predict_risk(pd.DataFrame(profile))


def test_nothing_is_predicted_of_a_level_that_nobody_had() -> None:
    contract = replace(
        OPEN.setting.contract,
        variables=tuple(
            replace(v, levels=(*(v.levels or ()), "icu")) if v.name == "ward" else v
            for v in OPEN.setting.contract.variables
        ),
    )
    result = fit(simulate(SITES, contract=contract), formula="age + C(ward)")
    assert any("level icu" in note for note in result.notes)
    with pytest.raises(ValueError, match="ward = icu"):
        result.predict_risk(pd.DataFrame({"age": [50.0], "ward": ["icu"]}))
    assert result.predict_risk(pd.DataFrame({"age": [50.0], "ward": ["day"]})).hazard_ratio.notna().all()
    graded = split(POOLED.assign(grade=1 + 2 * (POOLED.age > 60)), 2, 1)
    result = fit(simulate(graded), formula="C(grade)")
    with pytest.raises(ValueError, match="grade = 2"):
        result.predict_risk(pd.DataFrame({"grade": [1, 2.0]}))


def test_survival_needs_a_baseline_and_its_stratum() -> None:
    profile = POOLED[["age", "crp", "sex", "ward"]][:2]
    with pytest.raises(ValueError, match="stays there"):
        fit(strata=("site",)).predict(profile)
    with pytest.raises(ValueError, match="stratum must be one of 'ward = acute', 'ward = day'"):
        fit(strata=("ward",)).predict(profile)
    assert len(fit(strata=("ward",)).predict(profile, stratum="ward = day", times=(10.0,))) == 2


# What cannot be fitted


def changed(**columns: Any) -> pd.DataFrame:
    return POOLED.assign(**columns)


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"formula": "1"}, "names no predictor"),
    ({"formula": ""}, "formula"),
    ({"formula": "0 + age"}, "no intercept"),
    ({"formula": "dead ~ age"}, "formula"),
    ({"formula": "age + dead"}, "is the event"),
    ({"formula": "age + time"}, "time"),
    ({"formula": "age + start", "entry": "start"}, "is the entry"),
    ({"formula": "aeg"}, "did you mean 'age'"),
    ({"time": "dura"}, "time"),
    ({"event": "ward"}, "event_level"),
    ({"strata": ("age",)}, "without levels"),
    ({"strata": ("ward", "ward")}, "named once"),
    ({"cluster": "team"}, "covariance = 'cluster'"),
    ({"covariance": "cluster", "cluster": "tema"}, "did you mean 'team'"),
    ({"weights": "ward"}, "not a number"),
    ({"l2": -1.0}, "0 or more"),
    ({"confidence": 0.2}, "confidence"),
    ({"grid": 0.0}, "grid"),
    ({"ties": "exact"}, "ties"),
]


@pytest.mark.parametrize(("options", "said"), BAD_OPTIONS)
def test_wrong_options_are_refused_before_anything_is_asked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        next(cox(**{**SMALL, "formula": "age", **options}).steps(FEDERATION.setting))


def test_all_censored() -> None:
    with pytest.raises(DataError, match="nobody had the event"):
        fit_frame(changed(dead=0))


def test_no_weight_at_any_event() -> None:
    with pytest.raises(DataError, match="weight"):
        fit_frame(changed(weight=1 - POOLED.dead), weights="weight")


def test_negative_times_and_weights() -> None:
    with pytest.raises(DataError, match="negative"):
        fit_frame(changed(time=POOLED.time - 10))
    with pytest.raises(SiteError, match="negative"):
        fit_frame(changed(weight=-1), weights="weight")


def test_missing_values_are_left_out_and_counted() -> None:
    holes = POOLED.astype({"time": float, "age": float}).copy()
    holes.loc[::9, "time"], holes.loc[1::9, "age"] = np.nan, np.nan
    result, complete = fit_frame(holes, 3), holes.dropna()
    assert result.num_records == len(complete)
    assert result.num_left_out == len(holes) - len(complete)
    assert relative(estimates(result), estimates(fit_frame(complete, 3))) < 1e-9


def test_one_event() -> None:
    events = np.zeros(len(POOLED), int)
    events[int(np.argsort(POOLED.age.to_numpy())[len(POOLED) // 2])] = 1
    frame = changed(dead=events, time=np.where(events == 1, 5, POOLED.time + 5))
    with pytest.raises(DisclosureError, match="fewer than 5 records had the event"):
        fit_frame(frame, formula="age")
    result = fit(simulate(split(frame, 2, 1), disclosure="none"), formula="age")
    pooled = PHReg(frame.time, frame[["age"]], status=frame.dead, ties="efron")
    assert np.abs(pooled.score(estimates(result)[:, 0]) * estimates(result)[:, 1]).max() < TOLERANCE
    assert result.proportionality == ()
    assert result.num_events == 1


def test_every_event_at_one_time() -> None:
    frame = changed(time=np.where(POOLED.dead == 1, 10, 10 + POOLED.time))
    for ties in ("efron", "breslow"):
        result = fit_frame(frame, ties=ties)
        design = np.c_[frame.age, frame.sex == "M", frame.crp].astype(float)
        score = PHReg(frame.time, design, status=frame.dead, ties=ties).score(estimates(result)[:, 0])
        assert np.abs(score * estimates(result)[:, 1]).max() < TOLERANCE


@pytest.mark.parametrize(
    ("columns", "formula", "strata", "named"),
    [
        ({"same": 4.0}, "age + same", (), "same"),
        ({"copy": 3 * POOLED.age + 2}, "age + copy", (), "copy"),
        ({}, "age + C(ward)", ("ward",), "ward"),
        (
            {"level": POOLED.ward.map({"acute": 0.1, "day": 1e4 / 3, "rehab": 1e7 / 7})},
            "age + level",
            ("ward",),
            "level",
        ),
        ({"late": (POOLED.time > 150) & (POOLED.dead == 0)}, "age + late + I(late * 2)", (), "late"),
    ],
)
def test_rank_deficiency_is_named(columns: dict[str, Any], formula: str, strata: tuple[str, ...], named: str) -> None:
    with pytest.raises(RankDeficiencyError, match=named):
        fit_frame(changed(**columns), formula=formula, strata=strata)


def test_dependent_columns_are_dropped_on_request() -> None:
    result = fit_frame(changed(copy=2 * POOLED.age), 3, formula="age + copy + C(sex)", aliased="drop")
    assert result.dropped == ("copy",)
    assert relative(estimates(result), estimates(fit(formula="age + C(sex)"))) < TOLERANCE
    assert result.predict_risk(changed(copy=0.0)[:2]).hazard_ratio.notna().all()


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("strata", [(), ("site",)])
def test_monotone_likelihood_is_named(ties: str, strata: tuple[str, ...]) -> None:
    frame = changed(safe=np.where(POOLED.dead == 1, "no", np.where(POOLED.age > 60, "yes", "no")))
    with pytest.raises(SeparationError, match="safe"):
        fit_frame(frame, formula="crp + C(safe)", ties=ties, strata=strata)
    first = changed(risk=-POOLED.time.rank())  # who dies first has the most
    with pytest.raises(SeparationError, match="risk"):
        fit_frame(first, formula="risk + crp", ties=ties, strata=strata)
    shrunk = fit_frame(frame, formula="crp + C(safe)", ties=ties, strata=strata, l2=1.0)
    assert np.isfinite(estimates(shrunk)).all()


def test_clusters_of_one() -> None:
    with pytest.raises(ModelError, match="two clusters"):
        fit_frame(changed(all=1), covariance="cluster", cluster="all", num_sites=1)


def test_heavy_tails_and_large_units() -> None:
    result = fit_frame(changed(crp=POOLED.crp**3 * 1e6), 3, formula="age + crp")
    plain = fit_frame(changed(crp=POOLED.crp**3), 3, formula="age + crp")
    assert relative(estimates(result)[1] * 1e6, estimates(plain)[1]) < TOLERANCE


def test_a_value_far_from_all_others_is_named() -> None:
    rng = np.random.default_rng(2)
    x = np.r_[rng.normal(size=400), 90.0]  # one in another unit, who dies first
    time = np.ceil(1000 * rng.exponential(1, 401) / np.exp(np.minimum(x, 9.0)))
    frame = pd.DataFrame({"far": x, "time": time.astype(int), "dead": 1})
    with pytest.raises(ConvergenceError, match="by far; look for values far from all others"):
        fit_frame(frame, formula="far")
    with pytest.raises(ConvergenceError, match="by far; look for values far from all others"):
        fit_frame(frame, formula="far", l2=1e-6)


def test_a_likelihood_that_is_flat_to_the_last_digit_is_monotone() -> None:
    """Far out, information is a difference of two large numbers, and may come out as zero or below."""
    columns = {
        "time": [5, 1, 1, 2, 5, 1, 4, 2, 2, 5, 5, 3, 5, 2, 4, 2, 2],
        "dead": [0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0],
        "x": [1.0, 1.0, 2.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 2.0, 2.0, 1.0, 0.0, 1.0, 2.0, 0.0],
        "z": [
            0.747,
            -1.228,
            -1.924,
            0.88,
            -0.976,
            -0.112,
            0.131,
            0.83,
            -0.261,
            -1.297,
            -1.082,
            -0.074,
            0.892,
            -0.56,
            -1.193,
            -1.713,
            1.831,
        ],
    }
    frame = pd.DataFrame({**columns, "ward": list("cabddabccabbccadd")})
    for num_sites in (1, 2):
        with pytest.raises(SeparationError, match="x, z"):
            fit(simulate(split(frame, num_sites, 1), disclosure="none"), formula="x + z", strata=("ward",))


def test_a_step_to_a_risk_set_without_any_hazard_is_taken_back() -> None:
    frame = pd.DataFrame(
        {
            "time": [8, 8, 13, 5, 16, 16, 2, 18],
            "start": [0, 1, 7, 3, 8, 5, 1, 10],
            "dead": [0, 0, 0, 1, 0, 0, 0, 0],
            "case": [3, 2, 2, 3, 3, 3, 1, 2],
            "x": [-0.282, -1.929, -2.103, -0.185, 0.875, 0.404, 1.959, 1.479],
            "z": [-0.832, 0.686, -0.572, -0.92, 0.199, 0.719, 0.173, 1.449],
        }
    )
    federation = simulate(split(frame, 2, 1), disclosure="none")
    with pytest.raises(SeparationError, match="x"):
        fit(federation, formula="x + z", entry="start", weights="case")


def test_few_clusters_have_no_joint_test() -> None:
    frame = changed(third=np.arange(len(POOLED)) % 3)
    federation = simulate(split(frame, 1, 1), disclosure="none")
    result = fit(federation, formula="age + crp + C(ward)", covariance="cluster", cluster="third")
    assert [test.name for test in result.tests] == ["likelihood ratio", "score", "C(ward)"]
    assert "Too few clusters" in " ".join(result.notes)
    assert result.summary()


def test_proportional_hazards_are_not_tested_where_events_are_too_few() -> None:
    """Two events in two strata, for two coefficients: R's cox.zph stops as its system is singular."""
    columns = {
        "time": [5, 9, 5, 3, 6, 8, 12, 5, 2, 11, 1, 6],
        "dead": [0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
        "x": [2.0, 1.0, 2.0, 0.0, 1.0, 0.0, 1.0, 2.0, 1.0, 2.0, 1.0, 1.0],
        "z": [-1.131, 1.133, -2.111, -0.36, 0.198, -1.208, -2.918, -0.157, -0.467, 0.66, 0.649, -1.565],
    }
    frame = pd.DataFrame({**columns, "ward": list("caaaacaacbcd")})
    federation = simulate(split(frame, 2, 1), disclosure="none")
    result = fit(federation, formula="x + z", strata=("ward",), ties="breslow")
    np.testing.assert_allclose(estimates(result)[:, 0], [-0.0231091492855176, 0.600237643779681], rtol=TOLERANCE)
    assert "GLOBAL" not in [test.term for test in result.proportionality]


def test_a_penalised_fit_counts_its_effective_parameters() -> None:
    plain, shrunk = fit(formula="age + crp"), fit(formula="age + crp", l2=1e-9)
    assert abs(plain.aic - shrunk.aic) < 1e-6
    hard = fit(formula="age + crp", l2=1e9)
    assert abs(hard.aic + 2 * hard.null_log_likelihood) < 1e-3


# What leaves the sites, and what is shown


def test_messages_grow_with_times_times_columns() -> None:
    run = FEDERATION.record(cox(**SMALL, formula="age + crp + C(sex) + C(ward)", covariance="robust"))
    num_points, num_columns = len(np.unique(POOLED.time[POOLED.dead == 1])), 5
    for round_ in run.record.rounds:
        name, layout = round_.ask.function.name, round_.ask.layout
        if name in ("cox.risk_sums", "cox.second_moments", "cox.score_products"):
            assert layout.num_exact <= 2 * num_points * (num_columns + 1) + num_columns**2 + 1
        if name.startswith("cox.score_table"):
            assert layout.num_exact <= 2 * MAX_BINS * (2 * num_points + 3)


def test_small_counts_are_hidden_and_curves_thinned() -> None:
    frame = changed(age=np.where(np.arange(len(POOLED)) % 200 == 0, np.nan, POOLED.age))
    result = fit_frame(frame, 3)
    assert result.num_left_out is None
    assert result.num_missing["age"] is None
    assert shown_small_counts(result.to_dict(), 5) == []
    assert "hidden" in result.summary()
    (curve,) = result.baselines
    complete = frame.dropna()
    left = np.histogram(complete.time, [-1, *(curve.times + 0.5)])[0]
    assert left.min() >= 5
    assert left.sum() == len(complete)
    exact = fit(simulate(split(frame, 3, 1), disclosure="none")).baselines[0]
    place = np.searchsorted(exact.times, curve.times)
    assert relative(curve.cumulative_hazard, exact.cumulative_hazard[place]) < 1e-12


@pytest.mark.parametrize("options", [{}, {"strata": ("site",), "covariance": "robust"}, {"entry": "start", "l2": 1.0}])
def test_a_cox_result_tells_itself(options: dict[str, Any]) -> None:
    result = fit(**options)
    assert "C(sex)[T.M]" in result.summary()
    assert "Cox 1972" in result.methods()
    assert any("Life" in reference or "life-tables" in reference for reference in result.references)
    assert ("Lin DY" in " ".join(result.references)) == ("covariance" in options)
    assert result.to_dict()["terms"][0]["term"] == "age"
    assert result.to_json()
    assert "hazard ratio" in result.headlines()[0]
    kinds = [exhibit.kind for exhibit in result.exhibits()]
    assert kinds[:2] == ["forest", "forest"]
    assert ("survival" in kinds) == bool(result.baselines)
    for exhibit in result.exhibits():
        if hasattr(exhibit, "draw"):
            assert exhibit.draw().axes
            assert exhibit.description


@pytest.mark.parametrize(
    "options",
    [
        {"formula": "age + C(sex)", "covariance": "robust", "strata": ("ward",)},
        {"formula": "age", "strata": ("site",), "covariance": "cluster", "cluster": "team"},
        {"formula": "age", "entry": "start", "weights": "case", "ties": "breslow"},
    ],
)
def test_cox_keeps_to_the_contract_of_workflows(options: dict[str, Any]) -> None:
    sites = split(PATIENTS[:90], 2, 3)
    federation = simulate(sites)
    workflow = cox(**{**SMALL, **options})
    check_workflow(workflow, federation.data, federation.setting, max_crashes=3)


def test_regional_breast_cancer_of_fed_tcga(shared_data: Any) -> None:
    """Ridge regression on the training fold of six regions, concordance on the pooled test fold."""
    folder = shared_data / "tcga_brca"
    frame = pd.read_csv(folder / "brca.csv").merge(pd.read_csv(folder / "train_test_split.csv"), on="pid")
    centers = pd.read_csv(folder / "centers.csv").set_index("TSS Code").Region
    features = [name for name in frame.columns if name not in ("pid", "E", "T", "fold", "fold2")]
    renamed = {name: f"f{i}" for i, name in enumerate(features)}
    region = frame.pid.str.split("-").str[1].map(centers)
    frame = frame.rename(columns=renamed).assign(T=frame["T"].astype(float))
    columns = [*renamed.values(), "T", "E"]
    train, test = frame[frame.fold == "train"], frame[frame.fold == "test"]
    sites = {str(name): part[columns] for name, part in train.groupby(region)}
    assert len(sites) == 6
    result = simulate(sites).run(
        cox(formula=" + ".join(renamed.values()), time="T", event="E", grid=1.0, l2=10.0, aliased="drop")
    )
    score = result.predict_risk(test).linear_predictor.to_numpy()
    outcome = test.rename(columns={"T": "time", "E": "dead"})
    concordance = harrell(outcome, score)
    assert 0.82 < concordance < 0.86, concordance
