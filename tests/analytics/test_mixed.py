"""Mixed models: R's lme4 and nlme through stored outputs, statsmodels, and integrals computed one by one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import integrate, special

from tests.analytics.by_hand import number, tables_of
from wardround.analytics.mixed import mixed
from wardround.analytics.mixed_effects import site_effects
from wardround.analytics.mixed_integral import CURVES, integral_terms, log_integral, quadrature, site_mode
from wardround.analytics.mixed_integral import Records as SiteRecords
from wardround.analytics.mixed_linear import linear_terms, profile_point
from wardround.analytics.mixed_newton import MAX_ITERATIONS, Point, minimise
from wardround.analytics.mixed_result import MixedResult
from wardround.analytics.result import FigureExhibit, Result
from wardround.engines.script import Event
from wardround.engines.simulated_hospitals import simulate
from wardround.errors import (
    ConfigError,
    ConvergenceError,
    DataError,
    ModelError,
    RankDeficiencyError,
    SeparationError,
)
from wardround.privacy.disclosure import DisclosureRules
from wardround.testing.workflow_contract import check_workflow

REFERENCE = json.loads((Path(__file__).parents[1] / "references" / "mixed.json").read_text())
CASES = {(case["name"], case["method"]): case for case in REFERENCE["cases"]}
POOLED = pd.DataFrame(REFERENCE["data"]).assign(log_stay=lambda frame: np.log(frame.stay))
SITES = {f"site {site}": part.drop(columns="site") for site, part in POOLED.groupby("site")}
FEDERATION = simulate(SITES, disclosure="none")
FORMULAS = {
    "intercept": ("score ~ age + male", "1"),
    "slope": ("score ~ age10 + male", "1 + age10"),
    "own slopes": ("gain ~ age10 + male", "1 + age10"),
    "alike": ("alike ~ age", "1"),
    "logistic": ("died ~ age10 + male", "1"),
    "logistic slope": ("died ~ age10 + male", "1 + age10"),
    "poisson": ("falls ~ age10 + male", "1"),
}


def fit(formula: str, **options: Any) -> MixedResult:
    return FEDERATION.run(mixed(formula=formula, **options))


def numbers(result: MixedResult) -> tuple[np.ndarray, np.ndarray]:
    frame = result.to_frame()
    return frame.estimate.to_numpy(), frame.standard_error.to_numpy()


@pytest.mark.parametrize("name", ["intercept", "slope", "own slopes", "alike"])
@pytest.mark.parametrize("method", ["REML", "ML"])
def test_linear_equals_pooled(name: str, method: Any) -> None:
    expected, (formula, random) = CASES[name, method], FORMULAS[name]
    result = fit(formula, random=random, method=method, by_site=True)
    estimates, errors = numbers(result)
    assert result.deviance == pytest.approx(expected["deviance"], rel=1e-10)
    assert result.log_likelihood == pytest.approx(expected["log_likelihood"], rel=1e-10)
    np.testing.assert_allclose(estimates, expected["coefficients"], rtol=1e-7)
    np.testing.assert_allclose(errors, expected["errors"], rtol=1e-7)
    assert result.components[-1].standard_deviation == pytest.approx(expected["sigma"], rel=1e-8)
    np.testing.assert_allclose(result.random_covariance, expected["covariance"], rtol=1e-6, atol=1e-9)
    modes = np.array([effect.effect for effect in result.site_effects]).reshape(len(SITES), -1)
    np.testing.assert_allclose(modes, np.array(expected["modes"]), rtol=1e-6, atol=1e-6)
    first = np.array([e.standard_deviation for e in result.site_effects if e.site == "site 1"])
    np.testing.assert_allclose(first**2, expected["mode_variances"], rtol=1e-5, atol=1e-9)
    assert result.is_singular == (name in ("slope", "alike"))


@pytest.mark.parametrize(("name", "points"), [(n, int(m.split()[1])) for n, m in CASES if m.startswith("points")])
def test_integral_equals_pooled(name: str, points: int) -> None:
    expected, (formula, random) = CASES[name, f"points {points}"], FORMULAS[name]
    family: Any = "poisson" if name == "poisson" else "binomial"
    offset = "log_stay" if name == "poisson" else None
    result = fit(formula, random=random, family=family, quadrature_points=points, offset=offset, by_site=points == 1)
    estimates, errors = numbers(result)
    # With several points lme4 leaves a constant of the Poisson likelihood out.
    if name != "poisson" or points == 1:
        assert result.deviance == pytest.approx(expected["deviance"], rel=1e-9)
    scale = np.array(expected["errors"])
    np.testing.assert_allclose((estimates - expected["coefficients"]) / scale, 0, atol=1e-6)
    np.testing.assert_allclose(errors, expected["errors"], rtol=1e-5)
    q = 2 if random != "1" else 1
    factor = np.zeros((q, q))
    factor[np.tril_indices(q)[::-1] if q == 1 else ([0, 1, 1], [0, 0, 1])] = expected["theta"]
    np.testing.assert_allclose(result.random_covariance, factor @ factor.T, rtol=1e-5)
    if points == 1:
        modes = np.array([effect.effect for effect in result.site_effects]).reshape(len(SITES), -1)
        np.testing.assert_allclose(modes, expected["modes"], rtol=1e-3, atol=1e-3)  # its own fit stops earlier


def test_linear_equals_statsmodels() -> None:
    for is_restricted, method in ((True, "REML"), (False, "ML")):
        model = smf.mixedlm("score ~ age + male", POOLED, groups=POOLED.site)
        oracle = model.fit(reml=is_restricted, gtol=1e-12)
        result = fit("score ~ age + male", method=method)
        estimates, errors = numbers(result)
        assert result.log_likelihood == pytest.approx(oracle.llf, rel=1e-9)
        np.testing.assert_allclose(estimates, oracle.fe_params, rtol=1e-6)
        # Its standard errors count the uncertainty of the variances by a formula of its own.
        np.testing.assert_allclose(errors, oracle.bse_fe, rtol=2e-3)
        assert result.components[0].variance == pytest.approx(float(oracle.cov_re.iloc[0, 0]), rel=1e-5)
        assert result.components[1].variance == pytest.approx(oracle.scale, rel=1e-6)


def _density(u: float, fixed: np.ndarray, died: np.ndarray, deviation: float) -> float:
    p = special.expit(fixed + u)
    normal = np.exp(-0.5 * (u / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
    return float(np.prod(np.where(died == 1, p, 1 - p)) * normal)


def test_quadrature_is_the_integral() -> None:
    result = fit("died ~ age10 + male", family="binomial", quadrature_points=25)
    estimates, _ = numbers(result)
    total = 0.0
    for part in SITES.values():
        fixed = estimates[0] + estimates[1] * part.age10.to_numpy() + estimates[2] * part.male.to_numpy()
        given = (fixed, part.died.to_numpy(), result.components[0].standard_deviation)
        options = {"epsabs": 1e-40, "epsrel": 1e-11, "limit": 400, "points": [-2, 0, 2]}
        total += np.log(integrate.quad(_density, -12, 12, args=given, **options)[0])
    assert -2 * total == pytest.approx(result.deviance, rel=1e-8)


def test_one_site_gives_a_linear_model_no_more_than_its_gram_matrix_does() -> None:
    # The deviance at a given theta, as lme4 has it.
    expected = CASES["intercept", "REML"]["at_half"]
    tables, setting = FEDERATION.data, FEDERATION.setting
    asked: list[Any] = []
    simulate(SITES, disclosure="none", progress=asked.append).run(mixed(formula="score ~ age + male"))
    ask = next(p.round.ask for p in asked if p.round.ask.function is linear_terms)
    arguments = {**ask.arguments, "theta": np.array([0.5])}
    parts = [linear_terms(tables[site], **arguments) for site in setting.sites]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    point = profile_point(np.array([0.5]), total, arguments["start"], True)
    design, scale = arguments["design"], arguments["frame"].outcome_scale
    freedom = len(POOLED) - 3
    stretch = 2 * np.log(design.scale).sum() + 2 * freedom * np.log(scale)
    assert point.value + stretch == pytest.approx(expected, rel=1e-11)


def _linear_point(theta: np.ndarray, *, is_restricted: bool) -> Point:
    asked: list[Any] = []
    model = mixed(formula="gain ~ age10 + male", random="1 + age10")
    simulate(SITES, disclosure="none", progress=asked.append).run(model)
    arguments = next(p.round.ask for p in asked if p.round.ask.function is linear_terms).arguments

    def at(theta: np.ndarray) -> Point:
        parts = [linear_terms(table, **{**arguments, "theta": theta}) for table in FEDERATION.data.values()]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return profile_point(theta, total, arguments["start"], is_restricted)

    point, h = at(theta), 1e-5
    for k, e in enumerate(np.eye(len(theta)) * h):
        up, down = at(theta + e), at(theta - e)
        assert (up.value - down.value) / (2 * h) == pytest.approx(point.gradient[k], rel=1e-6, abs=1e-6)
        np.testing.assert_allclose((up.gradient - down.gradient) / (2 * h), point.hessian[k], rtol=1e-6, atol=1e-5)
    return point


@pytest.mark.parametrize("is_restricted", [True, False])
def test_linear_derivatives_are_exact(is_restricted: bool) -> None:
    _linear_point(np.array([0.7, 0.2, 0.4]), is_restricted=is_restricted)


@pytest.mark.parametrize("family", ["binomial", "poisson"])
@pytest.mark.parametrize(("q", "points"), [(1, 1), (1, 7), (2, 1)])
def test_integral_derivatives_are_exact(family: Any, q: int, points: int) -> None:
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(60), rng.normal(size=(60, 2))])
    eta = x @ [0.3, 0.5, -0.2] + 0.8
    y = rng.poisson(np.exp(eta)) if family == "poisson" else rng.random(60) < special.expit(eta)
    columns = {"one": x[:, 1], "two": x[:, 2], "y": np.asarray(y, float)}
    names = [number("one"), number("two"), number("y")]
    tables, _ = tables_of(names, columns, np.zeros(60, int))
    asked: list[Any] = []
    sites = {"a": pd.DataFrame(columns), "b": pd.DataFrame(columns)}
    simulate(sites, progress=asked.append).run(mixed(formula="y ~ one + two", family=family))
    arguments = dict(next(p.round.ask for p in asked if p.round.ask.function is integral_terms).arguments)
    whole = np.concatenate([[0.1, 0.4, 0.1], [0.7, 0.2, 0.4][: q * (q + 1) // 2]])
    arguments |= {"random": tuple(range(q)), "num_points": points}

    def at(whole: np.ndarray) -> Any:
        return integral_terms(tables["site0"], **{**arguments, "coefficients": whole[:3], "theta": whole[3:]})

    found, h = at(whole), 1e-5
    pairs = list(zip(*np.triu_indices(len(whole)), strict=True))
    for k, e in enumerate(np.eye(len(whole)) * h):
        up, down = at(whole + e), at(whole - e)
        slope = (up.log_likelihood - down.log_likelihood) / (2 * h)
        assert slope == pytest.approx(found.gradient[k], rel=1e-7, abs=1e-7)
        row = (up.gradient - down.gradient) / (2 * h)
        got = [found.hessian[pairs.index((min(j, k), max(j, k)))] for j in range(len(whole))]
        np.testing.assert_allclose(row, got, rtol=1e-6, atol=1e-6)


def test_intervals_of_the_standard_deviation() -> None:
    wald = fit("score ~ age + male", variance_intervals="wald")
    ours = [wald.components[0].low, wald.components[0].standard_deviation, wald.components[0].high]
    np.testing.assert_allclose(ours, REFERENCE["nlme"]["site"], rtol=2e-4)  # it takes derivatives by differences
    ours = [wald.components[1].low, wald.components[1].standard_deviation, wald.components[1].high]
    np.testing.assert_allclose(ours, REFERENCE["nlme"]["residual"], rtol=1e-5)
    profile = fit("score ~ age + male", method="ML").components[0]
    np.testing.assert_allclose([profile.low, profile.high], REFERENCE["profile"], rtol=1e-4)  # it interpolates


@pytest.mark.parametrize(("formula", "family"), [("died ~ age10 + male", "binomial"), ("score ~ age", "gaussian")])
def test_profile_ends_where_the_deviance_has_grown(formula: str, family: Any) -> None:
    result = fit(formula, family=family, method="ML")
    assert result.interval_method == "profile"
    growth = float(special.chdtri(1, 0.05))
    for end in (result.components[0].low, result.components[0].high):
        assert end is not None
        assert _deviance_at(formula, family, end) - result.deviance == pytest.approx(growth, abs=1e-5)


def test_wald_interval_is_of_the_profiled_curvature() -> None:
    formula, h = "died ~ age10 + male", 0.05
    result = fit(formula, family="binomial", variance_intervals="wald")
    between = result.components[0]
    assert result.interval_method == "wald"
    assert between.low is not None
    assert between.high is not None
    heights = [_deviance_at(formula, "binomial", between.standard_deviation * np.exp(k * h)) for k in (-2, -1, 1, 2)]
    bend = (16 * (heights[1] + heights[2]) - heights[0] - heights[3] - 30 * result.deviance) / (12 * h**2)
    reach = special.ndtri(0.975) * np.sqrt(2 / bend)
    expected = between.standard_deviation * np.exp([-reach, reach])
    np.testing.assert_allclose([between.low, between.high], expected, rtol=1e-4)


@pytest.mark.parametrize("ratio", [0.1, 1.0, 1e3])
def test_balanced_sites_have_the_estimates_of_the_analysis_of_variance(ratio: float) -> None:
    rng = np.random.default_rng(4)
    num_sites, n = 6, 30
    effects, noise = rng.normal(size=num_sites), rng.normal(size=(num_sites, n))
    y = 7.0 + 3 * ratio * effects[:, None] + noise
    sites = {f"h{i}": pd.DataFrame({"y": y[i]}) for i in range(num_sites)}
    result = simulate(sites).run(mixed(formula="y ~ 1"))
    within = ((y - y.mean(axis=1, keepdims=True)) ** 2).sum() / (num_sites * (n - 1))
    between = (n * y.mean(axis=1).var(ddof=1) - within) / n
    assert result.components[1].variance == pytest.approx(within, rel=1e-8)
    assert result.components[0].variance == pytest.approx(between, rel=1e-7)
    assert result.terms[0].estimate == pytest.approx(y.mean(), rel=1e-10)
    assert result.terms[0].standard_error == pytest.approx(np.sqrt(y.mean(axis=1).var(ddof=1) / num_sites), rel=1e-7)


def _deviance_at(formula: str, family: str, deviation: float) -> float:
    """The least deviance at a standard deviation between sites, by an independent search over plain likelihoods."""
    from scipy.optimize import minimize

    outcome, predictors = formula.split(" ~ ")
    names = predictors.split(" + ")
    x = np.column_stack([np.ones(len(POOLED)), *((POOLED[n] - POOLED[n].mean()) / POOLED[n].std() for n in names)])
    y, p = POOLED[outcome].to_numpy(float), x.shape[1]
    groups = [POOLED.site.to_numpy() == site for site in POOLED.site.unique()]

    def gaussian(parameters: np.ndarray) -> float:
        rest, variance = y - x @ parameters[:p], np.exp(2 * parameters[p])
        total = 0.0
        for group in groups:
            n, r = group.sum(), rest[group]
            size = 1 + n * deviation**2 / variance
            square = r @ r - deviation**2 / variance * r.sum() ** 2 / size
            total += n * np.log(2 * np.pi * variance) + np.log(size) + square / variance
        return float(total)

    def laplace(parameters: np.ndarray) -> float:
        total = 0.0
        for group in groups:
            records = SiteRecords(x=x[group], y=y[group], offset=np.zeros(group.sum()), random=[0])
            mode = site_mode(records, "binomial", parameters, np.array([deviation]))
            assert mode is not None
            eta = x[group] @ parameters + deviation * mode[0]
            weight = special.expit(eta) * special.expit(-eta)
            height = (y[group] * eta - np.logaddexp(0, eta)).sum() - mode[0] ** 2 / 2
            total -= 2 * (height - 0.5 * np.log(1 + deviation**2 * weight.sum()))
        return float(total)

    function, start = (gaussian, np.zeros(p + 1)) if family == "gaussian" else (laplace, np.zeros(p))
    if family == "gaussian":
        start[0], start[p] = y.mean(), 1.0
    found = minimize(function, start, method="BFGS", options={"gtol": 1e-7})
    return float(minimize(function, found.x, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-10}).fun)


def test_tests_and_summaries_of_the_variance() -> None:
    result = fit("score ~ age + male", method="ML")
    plain = smf.ols("score ~ age + male", POOLED).fit()
    statistic = 2 * (result.log_likelihood - plain.llf)
    assert result.test.statistic == pytest.approx(statistic, rel=1e-9)
    assert result.test.p_value == pytest.approx(0.5 * special.chdtrc(1, statistic), rel=1e-6, abs=0)
    between, within = result.components
    assert result.icc == pytest.approx(between.variance / (between.variance + within.variance))
    assert result.aic == pytest.approx(result.deviance + 2 * 5)
    assert result.bic == pytest.approx(result.deviance + 5 * np.log(len(POOLED)))
    logistic = fit("died ~ age10", family="binomial")
    glm = smf.logit("died ~ age10", POOLED).fit(disp=0)
    assert logistic.test.statistic == pytest.approx(-2 * glm.llf - logistic.deviance, rel=1e-9)
    sd = logistic.components[0].standard_deviation
    assert logistic.icc == pytest.approx(sd**2 / (sd**2 + np.pi**2 / 3))
    draws = np.random.default_rng(0).normal(size=(400_000, 2)) * sd
    assert np.median(np.exp(np.abs(draws[:, 0] - draws[:, 1]))) == pytest.approx(logistic.median_odds_ratio, rel=0.02)


def test_no_variance_between_sites() -> None:
    result = fit("alike ~ age", method="ML")
    assert result.components[0].standard_deviation == 0
    assert result.components[0].low == 0
    assert result.components[0].high is not None
    assert result.components[0].high > 0
    assert (result.icc, result.test.p_value, result.is_singular) == (0, 1, True)
    assert any("singular" in note for note in result.notes)
    plain = smf.ols("alike ~ age", POOLED).fit()
    np.testing.assert_allclose(numbers(result)[0], plain.params, rtol=1e-9)
    assert result.log_likelihood == pytest.approx(plain.llf, rel=1e-11)
    assert _deviance_at("alike ~ age", "gaussian", result.components[0].high) - result.deviance == pytest.approx(
        float(special.chdtri(1, 0.05)), abs=1e-5
    )


def test_logistic_variance_of_zero() -> None:
    rng = np.random.default_rng(2)
    sites = {f"h{i}": pd.DataFrame({"x": rng.normal(size=80), "y": np.arange(80) % 2}) for i in range(4)}
    result = simulate(sites).run(mixed(formula="y ~ x", family="binomial"))
    assert result.components[0].standard_deviation == 0
    assert result.is_singular
    assert result.components[0].high is not None
    plain = smf.logit("y ~ x", pd.concat(sites.values())).fit(disp=0, tol=1e-12)
    np.testing.assert_allclose(numbers(result)[0], plain.params, rtol=1e-6)
    np.testing.assert_allclose(numbers(result)[1], plain.bse, rtol=1e-6)


def test_units_and_shifts_do_not_matter() -> None:
    plain = fit("gain ~ age10 + male", random="1 + age10")
    moved = {
        name: part.assign(years=1000 + 3 * part.age10, score2=1e6 + 1e-3 * part.gain) for name, part in SITES.items()
    }
    result = simulate(moved, disclosure="none").run(mixed(formula="score2 ~ years + male", random="1 + years"))
    assert result.to_frame().estimate["years"] == pytest.approx(1e-3 / 3 * plain.to_frame().estimate["age10"], rel=1e-7)
    deviations = [c.standard_deviation for c in result.components]
    expected = [c.standard_deviation for c in plain.components]
    assert deviations[1] == pytest.approx(1e-3 / 3 * expected[1], rel=1e-7)
    assert deviations[2] == pytest.approx(1e-3 * expected[2], rel=1e-7)
    assert result.test.statistic == pytest.approx(plain.test.statistic, rel=1e-7)


def test_order_of_sites_and_split_of_nothing() -> None:
    empty = SITES["site 1"].head(0)
    more = simulate({**SITES, "site 9": empty.astype(SITES["site 1"].dtypes)}, contract=FEDERATION.setting.contract)
    result = more.run(mixed(formula="score ~ age + male"))
    assert result.num_groups == 8
    assert result.deviance == pytest.approx(CASES["intercept", "REML"]["deviance"], rel=1e-10)


@pytest.mark.parametrize("family", ["binomial", "poisson"])
def test_sites_without_events(family: Any) -> None:
    sites = {name: part.assign(died=0 if name in ("site 2", "site 3") else part.died) for name, part in SITES.items()}
    result = simulate(sites, disclosure="none").run(mixed(formula="died ~ age10", family=family, by_site=True))
    effects = {effect.site: effect.effect for effect in result.site_effects}
    assert min(effects, key=effects.__getitem__) in ("site 2", "site 3")
    assert np.isfinite(numbers(result)[1]).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"formula": "score ~ nothing"}, ConfigError, "nothing"),
        ({"formula": "score ~ age", "random": "1 + male"}, ConfigError, "must be in the formula too"),
        ({"formula": "score ~ age", "random": "0 + age"}, ConfigError, "keep the intercept"),
        ({"formula": "score ~ 0 + age"}, ConfigError, "keep the intercept"),
        ({"formula": "score ~ age", "random": "1 | site"}, ConfigError, "the groups are the sites"),
        ({"formula": "score ~ age", "quadrature_points": 5}, ConfigError, "quadrature_points"),
        ({"formula": "died ~ age", "family": "binomial", "quadrature_points": 0}, ConfigError, "quadrature_points"),
        (
            {"formula": "died ~ age", "family": "binomial", "quadrature_points": 5, "random": "1 + age"},
            ConfigError,
            "quadrature_points",
        ),
        ({"formula": "score ~ age", "confidence": 0.2}, ConfigError, "confidence"),
        ({"formula": "score ~ age", "family": "gamma"}, ConfigError, "family"),
        ({"formula": "score ~ age + I(2 * age)"}, RankDeficiencyError, "age"),
        ({"formula": "score ~ age + I(0 * age + 3)"}, RankDeficiencyError, "0 \\* age"),
        ({"formula": "I(0 * age) ~ male"}, DataError, "same in all"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fit(**options)


def test_outcomes_must_fit_the_family() -> None:
    with pytest.raises(Exception, match="0 or 1"):
        fit("stay ~ age", family="binomial")
    half = {name: part.assign(died=part.died / 2) for name, part in SITES.items()}
    with pytest.raises(Exception, match="0 or 1; some records are not"):
        simulate(half).run(mixed(formula="died ~ age", family="binomial"))


def test_sites_of_one_outcome_each_are_no_mixed_model() -> None:
    # The likelihood grows with the variance between sites, without end.
    sites = {f"h{i}": pd.DataFrame({"x": np.arange(40) % 7, "y": np.full(40, i % 2)}) for i in range(6)}
    with pytest.raises(ConvergenceError, match="variance between sites"):
        simulate(sites).run(mixed(formula="y ~ x", family="binomial"))


def test_separation_is_found() -> None:
    apart = {name: part.assign(died=(part.age > 70).astype(int)) for name, part in SITES.items()}
    with pytest.raises(SeparationError, match="age"):
        simulate(apart).run(mixed(formula="died ~ age", family="binomial"))


def test_perfect_fit_is_refused() -> None:
    exact = {name: part.assign(score=3 * part.age10 + 1) for name, part in SITES.items()}
    with pytest.raises(ModelError, match="perfectly"):
        simulate(exact).run(mixed(formula="score ~ age10"))


def test_one_site_is_refused() -> None:
    with pytest.raises(ConfigError, match="two sites"):
        simulate({"only": SITES["site 1"]}).run(mixed(formula="score ~ age"))
    one = {"a": SITES["site 1"], "b": SITES["site 2"].assign(age=np.nan)}
    federation = simulate(one, contract=FEDERATION.setting.contract)
    with pytest.raises(ModelError, match="two sites with complete records"):
        federation.run(mixed(formula="score ~ age"))


def test_effects_of_sites_need_leave() -> None:
    asked: list[Any] = []
    with pytest.raises(ConfigError, match="allows_site_results"):
        simulate(SITES, progress=asked.append).run(mixed(formula="score ~ age", by_site=True))
    assert asked == []
    assert fit("score ~ age").site_effects == ()


def test_effects_of_few_records_stay() -> None:
    rules = DisclosureRules(minimum_cell=5, allows_site_results=True)
    result = simulate(SITES, disclosure=rules).run(mixed(formula="score ~ age", by_site=True))
    assert "site 4" not in {effect.site for effect in result.site_effects}  # it has one record
    assert len(result.site_effects) == 7
    assert any(note.startswith("site 4: fewer records") for note in result.notes)
    rounds: list[Any] = []
    simulate(SITES, disclosure=rules, progress=rounds.append).run(mixed(formula="score ~ age", by_site=True))
    arguments = rounds[-1].round.ask.arguments
    slot = site_effects(FEDERATION.data["site 4"], **arguments)
    assert not slot.is_told.any()
    assert not slot.modes.any()
    assert not slot.covariances.any()
    with pytest.raises(DataError, match="no slot"):
        site_effects(FEDERATION.data["site 4"], **{**arguments, "sites": ("elsewhere",)})


def test_site_that_leaves_is_not_in_it() -> None:
    script = [Event(site="site 8", behaviour="drops_before", round=5)]
    result = simulate(SITES, script=script, minimum_sites=2).run(mixed(formula="score ~ age + male"))
    kept = {name: part for name, part in SITES.items() if name != "site 8"}
    expected = simulate(kept).run(mixed(formula="score ~ age + male"))
    assert result.num_groups == 7
    assert result.sites == tuple(kept)
    assert result.deviance == pytest.approx(expected.deviance, rel=1e-12)


def test_only_a_minimum_is_returned() -> None:
    def saddle(at: np.ndarray) -> Any:
        # Two minima at (0, -1) and (0, 1), a saddle between them, where it starts.
        x, y = at
        value = x**2 + (y**2 - 1) ** 2
        gradient = np.array([2 * x, 4 * y * (y**2 - 1)])
        hessian = np.array([[2.0, 0.0], [0.0, 12 * y**2 - 4]])
        return Point(at=at, value=float(value), gradient=gradient, hessian=hessian, found=None)
        yield

    def uphill(at: np.ndarray) -> Any:
        # A gradient that is another function's: every step along it makes things worse.
        return Point(at=at, value=float(at[0]), gradient=np.array([-1.0]), hessian=np.eye(1), found=None)
        yield

    steps = minimise(saddle, np.array([0.5, 0.0]))
    with pytest.raises(StopIteration) as ended:
        next(steps)
    point, num_evaluations = ended.value.value
    np.testing.assert_allclose(np.abs(point.at), [0, 1], atol=1e-12)
    assert num_evaluations < MAX_ITERATIONS
    with pytest.raises(ConvergenceError, match="no convergence"):
        next(minimise(uphill, np.array([0.0])))


def test_mode_is_found_far_away() -> None:
    y = np.full(500, 40.0)
    records = SiteRecords(x=np.ones((500, 1)), y=y, offset=np.zeros(500), random=[0])
    mode = site_mode(records, "poisson", np.array([-5.0]), np.array([3.0]))
    assert mode is not None
    slope = 3.0 * (y - np.exp(-5.0 + 3.0 * mode[0])).sum() - mode[0]
    assert slope == pytest.approx(0, abs=1e-6)
    assert site_mode(records, "poisson", np.array([-5000.0]), np.array([3.0])) is None
    value, gradient = log_integral(records, "poisson", quadrature(1), np.array([-5.0, 3.0]), mode)
    assert np.isfinite([value, *gradient]).all()
    assert CURVES["poisson"].allows(y)


@pytest.mark.parametrize(
    ("formula", "options"),
    [("score ~ age + male", {"by_site": True}), ("died ~ male", {"family": "binomial", "quadrature_points": 3})],
)
def test_keeps_to_the_workflow_contract(formula: str, options: dict[str, Any]) -> None:
    names = ("site 1", "site 2", "site 6")
    federation = simulate({name: SITES[name] for name in names}, disclosure="none")
    check_workflow(mixed(formula=formula, **options), federation.data, federation.setting, max_crashes=2)


def test_result_is_a_result() -> None:
    for result in (
        fit("score ~ age10 + male", random="1 + age10", by_site=True),
        fit("died ~ age10 + male", family="binomial"),
        fit("falls ~ age10", family="poisson", offset="log_stay", quadrature_points=3),
    ):
        assert isinstance(result, Result)
        assert json.loads(result.to_json())["formula"] == result.formula
        assert result.formula in result.summary()
        assert result.methods()
        assert len(result.references) >= 2
        assert result.random_frame().standard_deviation.iloc[0] == result.components[0].standard_deviation
        for exhibit in result.exhibits():
            if isinstance(exhibit, FigureExhibit):
                exhibit.draw().canvas.draw()
                assert exhibit.description
            else:
                assert len(exhibit.frame)
        result.plot().canvas.draw()
    assert len(fit("score ~ age", by_site=True).site_frame()) == 8
    assert fit("died ~ age10", family="binomial").to_frame(exponentiate=True).estimate["age10"] > 1
    with pytest.raises(ValueError, match="identity"):
        fit("score ~ age").to_frame(exponentiate=True)


def test_caterpillar_is_in_order() -> None:
    result = fit("score ~ age", by_site=True)
    labels = [label.get_text() for label in result.plot().axes[0].get_yticklabels()]
    ordered = sorted(result.site_effects, key=lambda effect: -effect.effect)
    assert labels == [effect.site for effect in ordered]
