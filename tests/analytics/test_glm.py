"""Generalised linear models: federated equals pooled, and what cannot be estimated is said."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.preprocessing import StandardScaler

from tests.analytics.pooled import fit_pooled, relative, split
from wardround.analytics.glm import glm
from wardround.analytics.glm_penalty import PENALTY_GRID, fold_of
from wardround.analytics.glm_result import GLMResult
from wardround.data.contract import Contract, Variable
from wardround.engines.script import Event
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
from wardround.privacy.disclosure import DisclosureRules

TOLERANCE = 1e-8


def make_patients(seed: int = 1, n: int = 1200) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.normal(60, 12, n).round(1),
            "bmi": rng.gamma(30, 0.9, n).round(2),
            "sex": rng.choice(["F", "M"], n),
            "ward": rng.choice(["acute", "day", "rehab"], n, p=[0.5, 0.3, 0.2]),
            "grade": rng.integers(1, 5, n),
            "case": rng.integers(1, 4, n),
            "precision": rng.uniform(0.5, 2.0, n),
            "log_stay": np.log(rng.uniform(0.5, 3.0, n)),
            "team": rng.integers(0, 25, n),
        }
    )
    eta = -4 + 0.05 * frame.age + 0.5 * (frame.sex == "M") - 0.4 * (frame.ward == "day")
    frame["died"] = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int)
    frame["falls"] = rng.poisson(np.exp(eta / 2 + frame.log_stay))
    frame["cost"] = rng.gamma(2, np.exp(eta / 3))
    frame["score"] = eta + rng.normal(size=n)
    return frame


PATIENTS = make_patients()
SITES = split(PATIENTS, 4, seed=7)
POOLED = pd.concat(SITES.values(), ignore_index=True)
FEDERATION = simulate(SITES)


def fit(formula: str, family: str = "gaussian", **options: Any) -> GLMResult:
    return FEDERATION.run(glm(formula=formula, family=family, **options))  # type: ignore[arg-type]


def assert_equals(result: GLMResult, pooled: Any, tolerance: float = TOLERANCE) -> None:
    """Every number that both report."""
    frame = result.to_frame().loc[list(pooled.params.index)]
    assert len(result.terms) == len(pooled.params)
    assert relative(frame.estimate, pooled.params) < tolerance
    assert relative(frame.standard_error, pooled.bse) < tolerance
    assert relative(frame.statistic, pooled.tvalues) < tolerance
    seen = pooled.pvalues.to_numpy() > 1e-200
    assert relative(frame.p_value[seen], pooled.pvalues[seen]) < 1e3 * tolerance
    np.testing.assert_allclose(frame.p_value, pooled.pvalues, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(frame[["low", "high"]], pooled.conf_int(), rtol=1e-7, atol=1e-10)
    assert relative(result.deviance, pooled.deviance) < tolerance
    assert relative(result.null_deviance, pooled.null_deviance) < tolerance
    assert relative(result.pearson_chi2, pooled.pearson_chi2) < tolerance
    if (result.family, result.link) != ("gaussian", "log"):  # there statsmodels does not maximise over the dispersion
        assert relative(result.log_likelihood, pooled.llf) < tolerance
        assert relative(result.aic, pooled.aic) < tolerance
        assert relative(result.bic, pooled.bic_llf) < tolerance
    assert relative(result.dispersion, pooled.scale) < tolerance
    assert (result.df_model, result.df_residual) == (pooled.df_model, pooled.df_resid)


CASES: list[tuple[str, str, str, dict[str, str]]] = [
    ("score ~ age + C(sex) + C(ward)", "gaussian", "identity", {}),
    ("score ~ age * sex + ward:bmi", "gaussian", "identity", {}),
    ("cost ~ age + sex", "gaussian", "log", {}),
    ("died ~ age + C(sex) + C(ward)", "binomial", "logit", {}),
    ("died ~ age * sex + ward:sex", "binomial", "logit", {}),
    ("died ~ 0 + ward + age", "binomial", "logit", {}),
    ("died ~ age + C(grade)", "binomial", "probit", {}),
    ("died ~ bmi + sex", "binomial", "cloglog", {}),
    ("falls ~ age + sex", "poisson", "log", {}),
    ("falls ~ age + sex", "poisson", "log", {"offset": "log_stay"}),
    ("falls ~ age", "poisson", "sqrt", {}),
    ("cost ~ age + sex", "gamma", "log", {}),
    ("cost ~ age + sex", "gamma", "inverse", {}),
    ("score ~ age + sex", "gaussian", "identity", {"variance_weights": "precision"}),
    ("died ~ age + sex", "binomial", "logit", {"frequency_weights": "case"}),
    ("cost ~ age + sex", "gamma", "log", {"variance_weights": "precision"}),
    ("cost ~ age + sex", "gamma", "log", {"frequency_weights": "case", "variance_weights": "precision"}),
    ("falls ~ age + sex", "poisson", "log", {"variance_weights": "precision", "offset": "log_stay"}),
    ("I(score > 0) ~ np.log(bmi) + I(age ** 2) + np.sqrt(bmi)", "binomial", "logit", {}),
]


@pytest.mark.parametrize(("formula", "family", "link", "extras"), CASES)
def test_equals_pooled(formula: str, family: str, link: str, extras: dict[str, str]) -> None:
    names = {"frequency_weights": "freq_weights", "variance_weights": "var_weights", "offset": "offset"}
    given_ = {names[key]: POOLED[column].to_numpy() for key, column in extras.items()}
    frame = POOLED.assign(above=(POOLED.score > 0).astype(int))
    oracle = fit_pooled(frame, formula.replace("I(score > 0)", "above"), family, link, {}, **given_)
    assert_equals(fit(formula, family, link=link, **extras), oracle)


@given(st.integers(1, 9), st.integers(0, 10**6))
@settings(max_examples=12)
def test_the_split_does_not_matter(num_sites: int, seed: int) -> None:
    reference = fit("died ~ age + C(ward)", "binomial")
    other = simulate(split(POOLED, num_sites, seed)).run(glm(formula="died ~ age + C(ward)", family="binomial"))
    assert relative(other.to_frame(), reference.to_frame()) < 1e-9


def test_outcome_may_be_a_boolean_or_a_category() -> None:
    reference = fit("died ~ age", "binomial")
    for values in (POOLED.died == 1, np.where(POOLED.died == 1, "yes", "no")):
        sites = split(POOLED.assign(outcome=values), 3, 2)
        result = simulate(sites).run(glm(formula="outcome ~ age", family="binomial"))
        assert relative(result.to_frame(), reference.to_frame()) < 1e-9
        assert result.outcome.startswith("outcome = ")


@pytest.mark.parametrize("kind", ["HC0", "HC1", "HC2", "HC3"])
def test_robust_standard_errors_of_a_linear_model(kind: str) -> None:
    oracle = smf.ols("score ~ age + sex + ward", POOLED).fit(cov_type=kind)
    result = fit("score ~ age + sex + ward", covariance=kind).to_frame()
    assert relative(result.standard_error.loc[oracle.bse.index], oracle.bse) < TOLERANCE


def test_robust_standard_errors_of_a_logistic_model() -> None:
    oracle = fit_pooled(POOLED, "died ~ age + sex", "binomial", "logit", {"cov_type": "HC0"})
    assert_equals(fit("died ~ age + sex", "binomial", covariance="HC0"), oracle)


def test_frequency_weights_are_copies_of_records() -> None:
    copies = {name: frame.loc[frame.index.repeat(frame.case)].reset_index(drop=True) for name, frame in SITES.items()}
    for kind in ("model", "HC0", "HC3"):
        options: dict[str, Any] = {"formula": "died ~ age + sex", "family": "binomial", "covariance": kind}
        repeated = simulate(copies).run(glm(**options))
        weighted = FEDERATION.run(glm(**options, frequency_weights="case"))
        assert relative(weighted.to_frame(), repeated.to_frame()) < 1e-8


@pytest.mark.parametrize(("family", "outcome"), [("binomial", "died"), ("gaussian", "score"), ("poisson", "falls")])
def test_standard_errors_by_clusters(family: str, outcome: str) -> None:
    link = {"binomial": "logit", "gaussian": "identity", "poisson": "log"}[family]
    site = np.concatenate([np.full(len(frame), i) for i, frame in enumerate(SITES.values())])
    for cluster, groups in (("team", site * 1000 + POOLED.team), ("site", site)):
        how = {"cov_type": "cluster", "cov_kwds": {"groups": np.asarray(groups)}}
        oracle = fit_pooled(POOLED, f"{outcome} ~ age + sex", family, link, how)
        result = fit(f"{outcome} ~ age + sex", family, covariance="cluster", cluster=cluster)
        assert_equals(result, oracle)
        assert result.num_clusters == len(np.unique(groups))


def test_clusters_are_patients_by_default() -> None:
    frame = POOLED.assign(patient=np.arange(len(POOLED)) // 3)
    sites = {"A": frame[:600], "B": frame[600:]}
    result = simulate(sites, patient="patient").run(glm(formula="score ~ age", covariance="cluster"))
    oracle = smf.ols("score ~ age", frame).fit(cov_type="cluster", cov_kwds={"groups": frame.patient}, use_t=False)
    assert relative(result.to_frame().standard_error, oracle.bse) < TOLERANCE
    assert result.num_clusters == 400


def test_t_statistics_are_those_of_least_squares() -> None:
    oracle = smf.ols("score ~ age + sex", POOLED).fit()
    frame = fit("score ~ age + sex", use_t=True).to_frame()
    assert relative(frame.p_value, oracle.pvalues.loc[frame.index]) < 1e-6
    np.testing.assert_allclose(frame[["low", "high"]], oracle.conf_int().loc[frame.index], rtol=1e-9)


def test_each_site_may_have_its_intercept() -> None:
    with pytest.raises(ConfigError, match="allows_site_results"):
        fit("died ~ age", "binomial", site_intercepts=True)
    federation = simulate(SITES, disclosure=DisclosureRules(allows_site_results=True))
    frame = pd.concat([f.assign(place=name) for name, f in SITES.items()], ignore_index=True)
    oracle = fit_pooled(frame, "died ~ age + C(place)", "binomial", "logit", {})
    result = federation.run(glm(formula="died ~ age", family="binomial", site_intercepts=True))
    assert relative(sorted(result.to_frame().estimate), sorted(oracle.params)) < TOLERANCE
    assert relative(result.deviance, oracle.deviance) < TOLERANCE
    assert [c.term for c in result.terms][2:] == [f"site[T.{name}]" for name in list(SITES)[1:]]
    without = federation.run(glm(formula="died ~ 0 + age", family="binomial", site_intercepts=True))
    assert relative(without.deviance, oracle.deviance) < TOLERANCE


def test_centring_and_scaling_use_all_sites() -> None:
    frame = POOLED.assign(a=POOLED.age - POOLED.age.mean(), b=(POOLED.bmi - POOLED.bmi.mean()) / POOLED.bmi.std(ddof=1))
    oracle = fit_pooled(frame, "score ~ a + I(a ** 2) + b", "gaussian", "identity", {})
    result = fit("score ~ center(age) + I(center(age) ** 2) + scale(bmi)")
    assert relative(result.to_frame().estimate, oracle.params) < 1e-7
    assert relative(result.to_frame().standard_error, oracle.bse) < 1e-7


def test_spline_with_given_knots_is_patsys() -> None:
    low, high = POOLED.age.min(), POOLED.age.max()
    spline = f"bs(age, knots=[50, 65], lower_bound={low}, upper_bound={high})"
    oracle = fit_pooled(POOLED, f"died ~ {spline} + sex", "binomial", "logit", {})
    result = fit(f"died ~ {spline} + sex", "binomial")
    assert relative(result.deviance, oracle.deviance) < TOLERANCE
    assert relative(result.to_frame().estimate, oracle.params.loc[_patsy_names(result)]) < 1e-6


def _patsy_names(result: GLMResult) -> list[str]:
    return [term.term for term in result.terms]


def test_restricted_cubic_spline_spans_the_natural_splines() -> None:
    knots = [40.0, 55.0, 65.0, 80.0]
    natural = f"cr(age, knots={knots[1:3]}, lower_bound={knots[0]}, upper_bound={knots[3]}) - 1"
    oracle = fit_pooled(POOLED, f"score ~ {natural}", "gaussian", "identity", {})
    result = fit(f"score ~ rcs(age, knots={knots})")
    assert relative(result.deviance, oracle.deviance) < TOLERANCE


def test_spline_knots_are_quantiles_of_all_sites() -> None:
    knots = np.quantile(POOLED.age, [1 / 3, 2 / 3])
    given_ = f"bs(age, knots=[{knots[0]}, {knots[1]}], lower_bound=0, upper_bound=120)"
    found = fit("score ~ bs(age, df=5, lower_bound=0, upper_bound=120)")
    # Federated quantiles carry a bound of error, so the knots differ by as little.
    assert relative(found.deviance, fit(f"score ~ {given_}").deviance) < 1e-4


@pytest.mark.parametrize("l2", [0.3, 5.0, 200.0])
@pytest.mark.parametrize("is_raw", [True, False])
def test_penalised_fits_are_scikit_learns(l2: float, is_raw: bool) -> None:
    raw = POOLED[["age", "bmi", "precision"]].to_numpy()
    x = raw if is_raw else StandardScaler().fit_transform(raw)
    undo = np.ones(3) if is_raw else raw.std(axis=0)
    options: dict[str, Any] = {"l2": l2, "l2_scale": "raw" if is_raw else "standardized"}
    right = "age + bmi + precision"
    logistic = LogisticRegression(C=1 / l2, tol=1e-12, max_iter=10_000, solver="newton-cholesky").fit(x, POOLED.died)
    ridge = Ridge(alpha=l2, tol=1e-12, solver="cholesky").fit(x, POOLED.score)
    poisson = PoissonRegressor(alpha=l2 / len(x), tol=1e-12, max_iter=10_000, solver="newton-cholesky")
    poisson.fit(x, POOLED.falls)
    for outcome, family, oracle in (
        ("died", "binomial", logistic.coef_[0]),
        ("score", "gaussian", ridge.coef_),
        ("falls", "poisson", poisson.coef_),
    ):
        got = fit(f"{outcome} ~ {right}", family, **options).to_frame().estimate[1:]
        assert relative(got, oracle / undo) < 1e-6


def test_cross_validated_penalty_is_the_best_by_hand() -> None:
    formula = "died ~ age + bmi + precision + log_stay"
    result = fit(formula, "binomial", l2="cross-validated", num_folds=4)
    x = POOLED[["age", "bmi", "precision", "log_stay"]].to_numpy()
    # A row is a patient here, numbered from 0 at each site.
    folds = np.concatenate([fold_of(np.arange(len(frame)), 4, name) for name, frame in SITES.items()])
    scale = x.std(axis=0)
    penalties = np.array(PENALTY_GRID) * len(x)
    assert [score.l2 for score in result.l2_path] == pytest.approx(penalties)
    for score in result.l2_path[::5]:
        losses = []
        for fold in range(4):
            model = LogisticRegression(C=1 / score.l2, tol=1e-12, max_iter=10_000, solver="newton-cholesky")
            model.fit(x[folds != fold] / scale, POOLED.died[folds != fold])
            p = model.predict_proba(x[folds == fold] / scale)[:, 1]
            y = POOLED.died[folds == fold].to_numpy()
            losses.append(-2 * np.mean(np.log(np.where(y == 1, p, 1 - p))))
        assert score.deviance == pytest.approx(np.mean(losses), rel=1e-6)
    assert result.l2 == min(result.l2_path, key=lambda score: score.deviance).l2


def test_folds_hold_patients_together_and_are_even() -> None:
    patients = np.repeat(np.arange(5000), 3)
    folds = fold_of(patients, 5, "A")
    assert (folds.reshape(-1, 3) == folds.reshape(-1, 3)[:, :1]).all()
    # 5000 patients in 5 folds: a count outside 1000 +- 150 (5.3 standard deviations) has probability 5e-7.
    assert np.abs(np.bincount(folds[::3]) - 1000).max() < 150
    # A recorded run must find the same folds in every later version: SplitMix64 of CRC-32 * 2^32 + 0, 1, ... modulo 5.
    begin = 0xD3D99E8B << 32  # the published CRC-32 of "A"
    assert folds[::3][:4].tolist() == [splitmix64(begin + k) % 5 for k in range(4)]


def splitmix64(state: int) -> int:
    """Written from the published constants with Python's integers."""
    z = (state + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_wald_tests_are_those_of_statsmodels() -> None:
    oracle = fit_pooled(POOLED, "died ~ age + C(ward)", "binomial", "logit", {})
    result = fit("died ~ age + C(ward)", "binomial")
    expected = oracle.wald_test("C(ward)[T.day] = 0, C(ward)[T.rehab] = 0", scalar=True)
    by_hand = result.wald_test("C(ward)[T.day]", "C(ward)[T.rehab]")
    (by_term,) = [test for test in result.tests if test.term == "C(ward)"]
    for test in (by_hand, by_term):
        assert (test.statistic, test.df) == (pytest.approx(float(expected.statistic), rel=1e-8), 2)
        assert test.p_value == pytest.approx(float(expected.pvalue), rel=1e-7)


def test_likelihood_ratio_tests_compare_deviances() -> None:
    large, small = fit("died ~ age + C(ward)", "binomial"), fit("died ~ age", "binomial")
    oracles = [fit_pooled(POOLED, f, "binomial", "logit", {}) for f in ("died ~ age + C(ward)", "died ~ age")]
    test = large.likelihood_ratio_test(small)
    assert test.statistic == pytest.approx(2 * (oracles[0].llf - oracles[1].llf), rel=1e-8)
    drops = fit("died ~ age + C(ward)", "binomial", term_tests="likelihood_ratio").tests
    assert [t.term for t in drops] == ["age", "C(ward)"]
    assert drops[1].statistic == pytest.approx(test.statistic, rel=1e-8)
    with pytest.raises(ValueError, match="same family"):
        large.likelihood_ratio_test(fit("died ~ age", "binomial", l2=1.0))
    with pytest.raises(ValueError, match="must be among"):
        large.wald_test("height")


DATASETS = [
    ("longley", "TOTEMP ~ GNPDEFL + GNP + UNEMP + ARMED + POP + YEAR", "gaussian", "identity"),
    ("fair", "affairs ~ age + rate_marriage + religious + children", "poisson", "log"),
    ("spector", "GRADE ~ GPA + TUCE + PSI", "binomial", "logit"),
    ("randhie", "mdvis ~ lncoins + idp + physlm + disea + hlthp", "poisson", "log"),
    ("scotland", "YES ~ COUTAX + UNEMPF + MOR + ACT + GDP + AGE", "gamma", "inverse"),
]


@pytest.mark.parametrize(("name", "formula", "family", "link"), DATASETS)
def test_textbook_data(name: str, formula: str, family: str, link: str) -> None:
    frame = getattr(sm.datasets, name).load_pandas().data.rename(columns={"COUTAX_FEMALEUNEMP": "both"})
    federation = simulate(split(frame, 3, seed=3))
    result = federation.run(glm(formula=formula, family=family, link=link))  # type: ignore[arg-type]
    assert_equals(
        result, fit_pooled(frame, formula, family, link, {}), 1e-6 if name in ("longley", "scotland") else TOLERANCE
    )


def heart(folder: Any) -> dict[str, pd.DataFrame]:
    text = "age sex cp trestbps chol fbs restecg thalach exang oldpeak slope ca thal num"
    names = text.split(" ")
    return {
        site: pd.read_csv(folder / "heart_uci4" / f"processed.{site}.data", header=None, na_values="?", names=names)
        for site in ("cleveland", "hungarian", "switzerland", "va")
    }


def test_four_real_hospitals(shared_data: Any) -> None:
    sites = {name: frame.assign(disease=(frame.num > 0).astype(int)) for name, frame in heart(shared_data).items()}
    formula = "disease ~ age + C(sex) + C(cp) + trestbps + exang + oldpeak"
    result = simulate(sites).run(glm(formula=formula, family="binomial"))
    pooled = pd.concat(sites.values(), ignore_index=True)
    for name in ("sex", "cp"):
        pooled[name] = pooled[name].astype(int)
    assert_equals(result, fit_pooled(pooled, formula, "binomial", "logit", {}))
    assert result.num_records + result.num_left_out == 920


def test_186_real_hospitals(shared_data: Any) -> None:
    folder = shared_data / "eicu_demo"
    stays = pd.read_parquet(folder / "patient.parquet").merge(
        pd.read_parquet(folder / "apacheapsvar.parquet"), on="patientunitstayid"
    )
    stays["died"] = stays.hospitaldischargestatus.eq("Expired").fillna(False).astype(int)
    numbers = ["heartrate", "meanbp", "temperature", "creatinine"]
    stays[numbers] = stays[numbers].astype(float).replace(-1, np.nan)
    stays = stays[["hospitalid", "died", *numbers]]
    sites = {
        str(key): frame.drop(columns="hospitalid").reset_index(drop=True) for key, frame in stays.groupby("hospitalid")
    }
    formula = "died ~ heartrate + meanbp + temperature + creatinine"
    result = simulate(sites).run(glm(formula=formula, family="binomial"))
    assert len(result.sites) == len(sites) > 150
    assert_equals(result, fit_pooled(stays, formula, "binomial", "logit", {}))


def run(sites: dict[str, pd.DataFrame], formula: str, family: str = "gaussian", **options: Any) -> GLMResult:
    return simulate(sites).run(glm(formula=formula, family=family, **options))  # type: ignore[arg-type]


def test_a_level_missing_at_a_site() -> None:
    sites = {"A": POOLED[POOLED.ward != "rehab"][:300], "B": POOLED[300:], "C": POOLED[POOLED.ward == "day"][:50]}
    oracle = fit_pooled(pd.concat(sites.values()), "died ~ C(ward) + age", "binomial", "logit", {})
    assert_equals(run(sites, "died ~ C(ward) + age", "binomial"), oracle)


def test_one_row_empty_and_one_sided_sites() -> None:
    deaths = POOLED[POOLED.died == 1]
    sites = {"A": POOLED, "one": POOLED[:1], "none": POOLED[:0].astype(POOLED.dtypes), "all dead": deaths[:20]}
    oracle = fit_pooled(pd.concat([POOLED, POOLED[:1], deaths[:20]]), "died ~ age + sex", "binomial", "logit", {})
    assert_equals(run(sites, "died ~ age + sex", "binomial"), oracle)


@pytest.mark.parametrize(("shift", "unit"), [(0.0, 1e-9), (0.0, 1e12), (1e9, 1.0), (-1e6, 1e-3)])
def test_units_do_not_matter(shift: float, unit: float) -> None:
    scaled = {name: frame.assign(lab=shift + unit * frame.bmi) for name, frame in SITES.items()}
    result = run(scaled, "died ~ lab + age", "binomial").to_frame()
    reference = fit("died ~ bmi + age", "binomial").to_frame()
    # The shifted numbers themselves hold fewer digits.
    tolerance = 1e-8 + 1e3 * abs(shift) / unit * 1e-16
    assert relative(result.estimate["lab"] * unit, reference.estimate["bmi"]) < tolerance
    assert relative(result.statistic["lab"], reference.statistic["bmi"]) < tolerance


def test_levels_nobody_has_are_left_out_and_said() -> None:
    contract = Contract(
        variables=(
            Variable(name="died", type="integer", range=(0, 1)),
            Variable(name="age", type="number"),
            Variable(name="ward", type="category", levels=("acute", "day", "hospice", "rehab")),
        )
    )
    sites = {name: frame[["died", "age", "ward"]] for name, frame in SITES.items()}
    result = simulate(sites, contract=contract).run(glm(formula="died ~ C(ward) + age", family="binomial"))
    assert_equals(result, fit_pooled(POOLED, "died ~ C(ward) + age", "binomial", "logit", {}))
    assert any("hospice" in note for note in result.notes)


def test_records_with_missing_values_are_left_out() -> None:
    rng = np.random.default_rng(0)
    sites = {name: frame.assign(bmi=frame.bmi.where(rng.random(len(frame)) > 0.2)) for name, frame in SITES.items()}
    pooled = pd.concat(sites.values(), ignore_index=True)
    result = run(sites, "died ~ bmi + age", "binomial")
    assert_equals(result, fit_pooled(pooled, "died ~ bmi + age", "binomial", "logit", {}))
    assert result.num_left_out == result.num_missing["bmi"] == int(pooled.bmi.isna().sum())


def with_column(values: Any) -> dict[str, pd.DataFrame]:
    frame = POOLED.assign(extra=values)
    return {"A": frame[:500], "B": frame[500:900], "C": frame[900:]}


@pytest.mark.parametrize(
    ("values", "formula", "culprit"),
    [
        (np.full(1200, 7.25), "died ~ age + extra", "extra"),
        (np.full(1200, 1e9), "died ~ age + extra", "extra"),
        (2 * POOLED.age - 3, "died ~ age + extra", "extra"),
        (POOLED.age - POOLED.bmi, "died ~ age + bmi + extra", "extra"),
        (POOLED.ward, "died ~ C(ward) + C(extra)", r"C\(extra\)\[T.day\]"),
        (np.zeros(1200), "died ~ 0 + age + extra", "extra"),
    ],
)
def test_rank_deficiency_is_said_or_dropped(values: Any, formula: str, culprit: str) -> None:
    sites = with_column(values)
    with pytest.raises(RankDeficiencyError, match=culprit):
        run(sites, formula, "binomial")
    dropped = run(sites, formula, "binomial", aliased="drop")
    smaller = run(sites, formula.replace(" + extra", "").replace(" + C(extra)", ""), "binomial")
    assert relative(dropped.to_frame().estimate, smaller.to_frame().estimate) < 1e-7
    assert dropped.dropped


@pytest.mark.parametrize(
    ("values", "family", "outcome"),
    [
        (POOLED.died * 2.0 + np.arange(1200) / 1e4, "binomial", "died"),  # complete
        (((np.arange(1200) % 7 == 0) & (POOLED.died == 1)).astype(int), "binomial", "died"),  # quasi-complete
        ((POOLED.falls.eq(0) & (np.arange(1200) % 2 == 0)).astype(int), "poisson", "falls"),
    ],
)
def test_separation_is_detected_and_said(values: Any, family: str, outcome: str) -> None:
    with pytest.raises(SeparationError, match=r"extra.*add an l2 penalty"):
        run(with_column(values), f"{outcome} ~ age + extra", family)
    assert abs(run(with_column(values), f"{outcome} ~ age + extra", family, l2=1.0).terms[2].estimate) < 50


def test_nearly_separated_is_not_called_separated() -> None:
    almost = ((np.arange(1200) % 7 == 0) & (POOLED.died == 1)).astype(int)
    almost[int(np.flatnonzero(POOLED.died == 0)[0])] = 1
    sites = with_column(almost)
    pooled = pd.concat(sites.values())
    assert_equals(
        run(sites, "died ~ age + extra", "binomial"), fit_pooled(pooled, "died ~ age + extra", "binomial", "logit", {})
    )


def test_one_record_against_separation_is_enough() -> None:
    # 9,000 of a group died and one survived: finite, but the iteration is still far from it when it is checked.
    rng = np.random.default_rng(5)
    died = np.concatenate([np.ones(9_000), [0], rng.integers(0, 2, 3_000)]).astype(int)
    frame = pd.DataFrame({"died": died, "group": (np.arange(12_001) < 9_001).astype(int)})
    result = run(split(frame, 3, 1), "died ~ group", "binomial")
    rate = died[9_001:].mean()
    assert result.terms[1].estimate == pytest.approx(np.log(9_000) - np.log(rate / (1 - rate)), rel=1e-8)


def test_all_outcomes_equal() -> None:
    sites = {"A": POOLED.assign(died=1)[:100], "B": POOLED.assign(died=1)[100:200]}
    with pytest.raises(SeparationError):
        run(sites, "died ~ age", "binomial")


@pytest.mark.parametrize(
    ("formula", "family", "options", "error", "message"),
    [
        ("grade ~ age", "binomial", {}, SiteError, "must be 0 or 1"),
        ("score ~ age", "poisson", {}, SiteError, "a count"),
        ("died ~ age", "gamma", {}, SiteError, "greater than 0"),
        ("died ~ age", "binomial", {"frequency_weights": "score"}, SiteError, "negative"),
        ("score ~ log(died)", "gaussian", {}, SiteError, "not a finite number"),
        ("ward ~ age", "binomial", {}, ConfigError, "it must have two"),
        ("died ~ age", "binomial", {"link": "inverse"}, ConfigError, "links logit"),
        ("died ~ age", "binomial", {"l2": -1.0}, ConfigError, "l2: must be"),
        ("died ~ age", "binomial", {"confidence": 95}, ConfigError, "confidence"),
        ("died ~ age", "binomial", {"cluster": "team"}, ConfigError, "covariance"),
        ("died ~ age", "binomial", {"covariance": "cluster", "cluster": "nowhere"}, ConfigError, "no variable"),
        ("died ~ age", "binomial", {"frequency_weights": "sex"}, ConfigError, "not a number"),
        ("died ~ age", "binomial", {"offset": "sex"}, ConfigError, "is a category"),
        ("died ~ age", "binomial", {"use_t": True}, ConfigError, "no dispersion"),
    ],
)
def test_bad_input_is_refused(
    formula: str, family: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fit(formula, family, **options)


def test_options_are_checked_when_they_are_given() -> None:
    with pytest.raises(ConfigError, match="family"):
        glm(formula="died ~ age", family="binomal")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected"):
        glm(formula="died ~ age", famly="binomial")  # type: ignore[call-arg]


def test_too_few_records() -> None:
    with pytest.raises(ModelError, match="cannot be estimated from"):
        simulate({"A": POOLED[:2], "B": POOLED[2:4]}, disclosure="none").run(glm(formula="score ~ age + bmi + grade"))
    with pytest.raises(DisclosureError, match="minimum_cell: fewer than 5 records are complete"):
        run({"A": POOLED[:2], "B": POOLED[2:4]}, "score ~ age + bmi + grade")
    nothing = POOLED.assign(bmi=np.nan)
    with pytest.raises(DataError, match="missing everywhere: bmi"):
        run({"A": nothing[:50], "B": nothing[50:]}, "score ~ bmi")


@pytest.mark.parametrize("behaviour", ["drops_before", "drops_after"])
@pytest.mark.parametrize("round_", [1, 3, 5, 8, 10])
def test_a_site_that_drops_out_is_left_out_of_everything(behaviour: Any, round_: int) -> None:
    gone = next(iter(SITES))
    event = Event(site=gone, behaviour=behaviour, round=round_)
    federation: Simulation = simulate(SITES, minimum_sites=3, script=(event,))
    result = federation.run(glm(formula="died ~ age + C(ward)", family="binomial"))
    if gone in result.sites:  # it was lost after the last round
        assert behaviour == "drops_after"
        return
    rest = pd.concat([frame for name, frame in SITES.items() if name != gone])
    assert_equals(result, fit_pooled(rest, "died ~ age + C(ward)", "binomial", "logit", {}))


def test_result_prints_tabulates_and_serialises() -> None:
    import json

    result = fit("died ~ age + C(ward)", "binomial")
    text = result.summary()
    assert "C(ward)[T.rehab]" in text
    assert "P>|z|" in text
    (row,) = [line for line in text.splitlines() if line.startswith("age")]
    assert f"{result.terms[1].estimate:.4f}" in row
    decoded = json.loads(result.to_json())
    keys = {"term", "estimate", "standard_error", "p_value", "low", "high"}
    assert all(keys <= set(term) for term in decoded["terms"])
    assert decoded["terms"][1]["estimate"] == result.terms[1].estimate
    ratios = result.to_frame(exponentiate=True)
    assert ratios.estimate["age"] == pytest.approx(np.exp(result.terms[1].estimate))
    assert len(result.plot().axes[0].get_yticks()) == 3
    with pytest.raises(ValueError, match="logit"):
        fit("score ~ age").to_frame(exponentiate=True)


def test_columns_over_the_limit_are_refused() -> None:
    rng = np.random.default_rng(0)
    wide = pd.DataFrame(rng.normal(size=(300, 45)), columns=[f"x{i}" for i in range(45)])
    wide["team"] = [f"team {i % 50}" for i in range(300)]
    products = " + ".join(f"team:x{i}" for i in range(1, 45))
    with pytest.raises(DataError, match=r"would have 2201 columns; the limit is 2000"):
        run({"A": wide[:150], "B": wide[150:]}, f"x0 ~ {products}")


@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1e9])
@pytest.mark.parametrize(
    ("family", "link", "outcome"),
    [
        ("gaussian", "identity", "score"),
        ("gaussian", "log", "cost"),
        ("gamma", "inverse", "cost"),
        ("gamma", "log", "cost"),
        ("gamma", "identity", "cost"),
    ],
)
def test_the_outcomes_unit_does_not_matter(unit: float, family: str, link: str, outcome: str) -> None:
    scaled = {name: frame.assign(y=unit * frame[outcome], shift=frame.log_stay) for name, frame in SITES.items()}
    predictor = {"identity": unit, "inverse": 1 / unit, "log": 1.0}[link]
    deviance = unit**2 if family == "gaussian" else 1.0
    offset = {"offset": "shift"} if link == "log" else {}
    reference = run(scaled, f"{outcome} ~ age + sex", family, link=link, **offset)
    result = run(scaled, "y ~ age + sex", family, link=link, **offset)
    for index in (1, 2):
        assert relative(result.terms[index].estimate / predictor, reference.terms[index].estimate) < 1e-9
        assert relative(result.terms[index].standard_error / predictor, reference.terms[index].standard_error) < 1e-9
    assert relative(result.deviance / deviance, reference.deviance) < 1e-9
    assert relative(result.null_deviance / deviance, reference.null_deviance) < 1e-9
    assert relative(result.log_likelihood + len(POOLED) * np.log(unit), reference.log_likelihood) < 1e-9
    # The same penalty on the same likelihood: what it is on carries the unit.
    l2 = 5.0 / len(POOLED) * np.linalg.norm([c.estimate for c in reference.terms])
    penalised = run(scaled, f"{outcome} ~ age + sex", family, link=link, l2=l2, **offset)
    same = run(scaled, "y ~ age + sex", family, link=link, l2=l2 * deviance / predictor**2, **offset)
    assert relative(same.terms[1].estimate / predictor, penalised.terms[1].estimate) < 1e-7


@pytest.mark.parametrize("weight", ["variance_weights", "frequency_weights"])
@pytest.mark.parametrize(("family", "outcome"), [("gaussian", "score"), ("gamma", "cost"), ("binomial", "died")])
@pytest.mark.parametrize("covariance", ["model", "HC3", "cluster"])
def test_records_of_weight_zero_do_not_count(weight: str, family: str, outcome: str, covariance: str) -> None:
    weighted = {name: frame.assign(w=(frame.grade != 2).astype(float)) for name, frame in SITES.items()}
    result = run(weighted, f"{outcome} ~ age + sex", family, covariance=covariance, **{weight: "w"})
    rest = {name: frame[frame.grade != 2] for name, frame in SITES.items()}
    reference = run(rest, f"{outcome} ~ age + sex", family, covariance=covariance)
    assert relative(result.to_frame(), reference.to_frame()) < 1e-9
    for name in ("df_residual", "deviance", "null_deviance", "log_likelihood", "num_records", "num_clusters"):
        assert (getattr(result, name) or 0) == pytest.approx(getattr(reference, name) or 0, rel=1e-10), name


def test_a_record_of_weight_zero_does_not_hide_separation() -> None:
    extra = ((np.arange(1200) % 7 == 0) & (POOLED.died == 1)).astype(int)
    against = int(np.flatnonzero(POOLED.died == 0)[0])
    extra[against] = 1
    sites = {name: f.assign(w=1.0) for name, f in with_column(extra).items()}
    sites["A"].loc[sites["A"].index[against], "w"] = 0.0
    with pytest.raises(SeparationError):
        run(sites, "died ~ age + extra", "binomial", frequency_weights="w")


def test_one_record_slightly_against_separation_is_enough() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=20_000)
    y = (x > 0).astype(int)
    x[int(np.argmin(np.where(y == 1, x, 9.0)))] = -0.002
    result = run(split(pd.DataFrame({"x": x, "y": y}), 3, 1), "y ~ x", "binomial")
    # Finite, and the maximum: the step from there is nothing beside the standard errors.
    p = special.expit(result.terms[0].estimate + result.terms[1].estimate * x)
    design = np.column_stack([np.ones_like(x), x])
    score = design.T @ (y - p)
    information = design.T @ (design * (p * (1 - p))[:, None])
    assert score @ np.linalg.solve(information, score) < 1e-12


@pytest.mark.parametrize(("family", "link"), [("binomial", "log"), ("poisson", "identity")])
def test_only_a_settled_fit_is_returned(family: str, link: str) -> None:
    # The likelihood is largest where a mean reaches the edge of what is possible; its slope is not zero there.
    rng = np.random.default_rng(0)
    x = np.arange(360) / 360
    edge = rng.random(360) < np.minimum(1, 2 * x) if family == "binomial" else rng.poisson(3, 360) * (x > 0.5)
    with pytest.raises(ConvergenceError, match="no convergence in 100 steps"):
        run(split(pd.DataFrame({"x": x, "y": edge.astype(int)}), 3, 1), "y ~ x", family, link=link)


def test_weights_that_vanish_are_no_fit() -> None:
    # The mean of one group is 0, its logarithm infinite: the deviance settles long before the coefficient would.
    sites = {name: frame.assign(y=np.where(frame.sex == "M", frame.cost, 0.0)) for name, frame in SITES.items()}
    with pytest.raises(SeparationError, match=r"direction of Intercept, sex\[T.M\]"):
        run(sites, "y ~ sex + age", "gaussian", link="log")


def test_no_possible_start_is_said() -> None:
    shifted = {name: frame.assign(shift=-9.0) for name, frame in SITES.items()}
    with pytest.raises(ConvergenceError, match="at which every record's mean is possible"):
        run(shifted, "falls ~ 0 + I(age - 60)", "poisson", link="identity", offset="shift")


def test_a_perfect_fit_has_no_errors_and_still_prints() -> None:
    import json

    result = run({n: f.assign(y=2 * f.age + 1) for n, f in SITES.items()}, "y ~ age + C(ward)")
    assert result.terms[1].estimate == pytest.approx(2)
    assert result.deviance < 1e-20 * len(POOLED)
    decoded = json.loads(result.to_json())
    if result.dispersion == 0:
        assert decoded["log_likelihood"] is None
        assert decoded["terms"][1]["p_value"] is None
    assert "C(ward)[T.day]" in result.summary()
    assert result.plot()


def test_an_outcome_without_spread_is_refused() -> None:
    for value in (0.0, 5.0, 1e9 / 3):
        with pytest.raises(DataError, match="same in all complete records"):
            run({n: f.assign(y=value) for n, f in SITES.items()}, "y ~ age")


def test_wald_test_without_an_inverse_is_not_a_number() -> None:
    federation = simulate({"A": POOLED[:600], "B": POOLED[600:]}, disclosure="none")
    result = federation.run(glm(formula="score ~ C(ward)", covariance="cluster", cluster="site"))
    assert np.isnan(result.tests[0].p_value)
    assert "nan" in result.summary()


def test_likelihood_ratios_respect_marginality_and_refuse_penalties() -> None:
    tests = fit("score ~ age * sex + ward", term_tests="likelihood_ratio").tests
    assert [test.term for test in tests] == ["ward", "age:sex"]
    with pytest.raises(ConfigError, match="term_tests"):
        fit("score ~ age", l2=1.0, term_tests="likelihood_ratio")


def test_small_sites_fill_different_folds() -> None:
    result = run({f"s{i}": POOLED[i : i + 1] for i in range(40)}, "score ~ age", l2="cross-validated")
    assert np.isfinite([score.deviance for score in result.l2_path]).all()
    with pytest.raises(ModelError, match="take fewer folds"):
        run({"A": POOLED[:5], "B": POOLED[5:9]}, "score ~ age", l2="cross-validated", num_folds=20)


def test_cross_validation_of_many_columns_is_refused() -> None:
    rng = np.random.default_rng(0)
    wide = pd.DataFrame(rng.normal(size=(900, 30)), columns=[f"x{i}" for i in range(30)])
    wide["team"] = [f"team {i % 25}" for i in range(900)]
    products = " + ".join(f"team:x{i}" for i in range(1, 30))
    with pytest.raises(ModelError, match="set l2 to a number"):
        run({"A": wide[:450], "B": wide[450:]}, f"x0 ~ {products}", l2="cross-validated")


def test_levels_that_are_not_listed_are_refused_where_anybody_has_them() -> None:
    with pytest.raises(DataError, match=r"does not list \(rehab\)"):
        fit("score ~ C(ward, levels=['day', 'acute'])")
    without = {name: frame[frame.ward != "rehab"] for name, frame in SITES.items()}
    assert len(run(without, "score ~ C(ward, levels=['day', 'acute'])").terms) == 2


def test_clusters_longer_than_a_block_are_summed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = fit("score ~ age + sex", covariance="cluster", cluster="team")
    monkeypatch.setattr("wardround.analytics.design.BLOCK_ELEMENTS", 30)  # ten rows
    result = fit("score ~ age + sex", covariance="cluster", cluster="team")
    assert result.num_clusters == reference.num_clusters
    assert relative(result.to_frame(), reference.to_frame()) < 1e-12


def test_dates_are_days() -> None:
    days = POOLED.age.round().astype(int)
    sites = split(POOLED.assign(day=pd.Timestamp("2020-01-01") + pd.to_timedelta(days, "D"), days=days), 3, 1)
    assert (
        relative(
            run(sites, "died ~ day", "binomial").terms[1].statistic,
            run(sites, "died ~ days", "binomial").terms[1].statistic,
        )
        < 1e-9
    )


def test_names_and_numbers_of_any_size_print_and_plot() -> None:
    import io
    from dataclasses import replace

    result = fit("died ~ age + C(ward)", "binomial")
    (term, *_) = result.terms
    for factor in (1e-12, 1e3, np.inf, np.nan):
        values = {"estimate": factor, "low": -1e3 * factor, "high": 2e3 * factor, "standard_error": factor}
        many = replace(result, terms=tuple(replace(term, term=f"$x_{i}^\n" * 20, **values) for i in range(75)))
        rows = [line for line in many.summary().splitlines() if line.startswith("$x_")]
        assert len(rows) == 75
        assert all(len(line[48:].split()) == 6 and len(line) < 125 for line in rows)
        figure = many.plot()
        figure.savefig(io.BytesIO(), format="svg")
        assert "the first 60 of 75" in figure.axes[0].get_xlabel()
        many.to_json()
        many.to_frame(exponentiate=True)
    assert len(fit("died ~ 1", "binomial").plot().axes[0].get_yticks()) == 0


def test_a_dollar_sign_in_a_name_is_shown_as_it_is() -> None:
    import io

    dear = {name: frame.rename(columns={"age": "cost in $ and $"}) for name, frame in SITES.items()}
    drawing = io.StringIO()
    run(dear, "score ~ `cost in $ and $`").plot().savefig(drawing, format="svg", metadata={"Date": None})
    assert "cost in $ and $" in drawing.getvalue()
    assert "\\$" not in drawing.getvalue()
