"""Multiple imputation's parts: the models equal the pooled ones, Rubin's rules equal mice's, copies are tables."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from sklearn.linear_model import LogisticRegression

from tests.analytics.pooled import relative
from wardround.analytics.design import Column, Design, Frame, Numeric
from wardround.analytics.glm_sums import Model, terms
from wardround.analytics.imputation import begin, draw, linear_sums, logistic_sums, observed
from wardround.analytics.imputation_chain import Chain, ChainVariable, Copies, SiteColumn, matched
from wardround.analytics.imputation_models import Posterior, augmentation, linear_posterior, logistic_fit
from wardround.analytics.imputation_pooling import convergence, joint_test, pool
from wardround.analytics.imputation_tables import COMPLETED, on_copy, on_terms
from wardround.data.table import Table
from wardround.engines.simulated_hospitals import simulate
from wardround.errors import DataError, LocalProtocolError, ModelError
from wardround.sums import Steps, ask

REFERENCES = json.loads((Path(__file__).parents[1] / "references" / "imputation.json").read_text())


def make_patients(seed: int = 1, n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"age": rng.normal(60, 10, n), "sex": rng.choice(["F", "M"], n)})
    frame["bmi"] = 20 + 0.1 * frame.age + rng.normal(0, 2, n)
    frame["ward"] = np.where(frame.bmi + rng.normal(0, 3, n) > 27, "acute", rng.choice(["day", "rehab"], n))
    for name, share in (("age", 0.1), ("sex", 0.2), ("bmi", 0.25), ("ward", 0.3)):
        frame.loc[rng.random(n) < share, name] = np.nan
    return frame


PATIENTS = make_patients()
SIMULATION = simulate({"North": PATIENTS[:150], "South": PATIENTS[150:]})
TABLES: dict[str, Table] = dict(SIMULATION.data)
CHAIN = Chain(
    variables=(
        ChainVariable(name="age", kind="number", center=(60.0,), scale=(10.0,)),
        ChainVariable(name="sex", kind="category", levels=(0.0, 1.0), center=(0.5,), scale=(0.5,)),
        ChainVariable(name="bmi", kind="number", center=(26.0,), scale=(2.5,), low=18.0, high=30.0),
        ChainVariable(name="ward", kind="category", levels=(0.0, 1.0, 2.0), center=(0.3, 0.3), scale=(0.45, 0.45)),
    ),
    num_copies=3,
)


def begun(chain: Chain = CHAIN) -> dict[str, Copies]:
    return {
        site: begin.function(table, None, np.random.default_rng([5, i]), chain)[1]
        for i, (site, table) in enumerate(TABLES.items())
    }


def summed(function: Any, states: dict[str, Copies], *args: Any) -> Any:
    rng = np.random.default_rng(0)
    parts = [function.function(table, states[site], rng, *args)[0] for site, table in TABLES.items()]
    return parts[0] + parts[1]


def completed(states: dict[str, Copies], copy: int) -> pd.DataFrame:
    """Both sites' tables as they stand in a copy."""
    tables = [pd.DataFrame(dict(states[site].table(table, copy).columns)) for site, table in TABLES.items()]
    return pd.concat(tables, ignore_index=True)


def design_of(frame: pd.DataFrame, target: str) -> np.ndarray:
    columns = [np.ones(len(frame))]
    for variable in CHAIN.variables:
        if variable.name != target:
            columns += list(variable.coded(frame[variable.name].to_numpy(float)).T)
    return np.column_stack(columns)


def is_observed(target: str) -> np.ndarray:
    return np.concatenate([~table.is_missing(target) for table in TABLES.values()])


def test_linear_model_equals_pooled() -> None:
    states = begun()
    sums = summed(linear_sums, states, CHAIN, "bmi")
    posterior = linear_posterior(CHAIN, "bmi", sums.gram, sums.cross, sums.square, sums.num_observed)
    for copy in range(CHAIN.num_copies):
        frame, at = completed(states, copy), is_observed("bmi")
        y = (frame.bmi.to_numpy() - 26.0) / 2.5
        pooled = sm.OLS(y[at], design_of(frame, "bmi")[at]).fit()
        assert relative(posterior.estimates[copy, 0], pooled.params) < 1e-8
        assert relative(posterior.covariance[copy], pooled.normalized_cov_params) < 1e-8
        assert posterior.residual is not None
        assert relative(posterior.residual[copy], pooled.ssr) < 1e-8
        assert posterior.df is not None
        assert posterior.df[copy] == pooled.df_resid


def fit_category(states: dict[str, Copies], target: str) -> Posterior:
    def asked(coefficients: Any) -> Steps[Any]:
        sums = summed(logistic_sums, states, CHAIN, target, coefficients)
        return sums.information, sums.score, sums.deviance
        yield

    steps = logistic_fit(CHAIN, target, asked, None)
    with pytest.raises(StopIteration) as stop:
        next(steps)
    posterior: Posterior = stop.value.value
    return posterior


def test_binary_model_equals_pooled() -> None:
    states = begun()
    posterior = fit_category(states, "sex")
    for copy in range(CHAIN.num_copies):
        frame, at = completed(states, copy), is_observed("sex")
        x = design_of(frame, "sex")[at]
        more, levels, weights = augmentation(x.shape[1], 2)
        pooled = sm.GLM(
            np.concatenate([frame.sex[at], levels]),
            np.vstack([x, more]),
            family=sm.families.Binomial(),
            freq_weights=np.concatenate([np.ones(len(x)), weights]),
        ).fit(tol=1e-14, tol_criterion="params")
        assert relative(posterior.estimates[copy, 0], pooled.params) < 1e-8
        assert relative(posterior.covariance[copy], pooled.cov_params()) < 1e-6
    assert weights.sum() == pytest.approx(x.shape[1])


def test_category_model_equals_pooled() -> None:
    states = begun()
    posterior = fit_category(states, "ward")
    frame, at = completed(states, 1), is_observed("ward")
    x = design_of(frame, "ward")[at]
    more, levels, weights = augmentation(x.shape[1], 3)
    everything, every_level = np.vstack([x, more]), np.concatenate([frame.ward[at], levels]).astype(int)
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=5000, solver="newton-cg")
    model.fit(everything, every_level, sample_weight=np.concatenate([np.ones(len(x)), weights]))
    expected = model.coef_[1:] - model.coef_[0]
    np.testing.assert_allclose(posterior.estimates[1], expected, rtol=1e-6, atol=1e-7)
    # The information at the estimates, by statsmodels: of the records, and of those that were added.
    at_estimates = posterior.estimates[1].T.ravel(order="F")
    information = -sm.MNLogit(every_level[: len(x)], x).hessian(at_estimates)
    information -= sm.MNLogit(levels, more).hessian(at_estimates) * weights[0]
    assert relative(posterior.covariance[1], np.linalg.inv(information)) < 1e-8


def test_a_predictor_that_separates_has_finite_coefficients() -> None:
    table = simulate({"One": pd.DataFrame({"x": np.arange(40.0), "y": ["a"] * 20 + ["b"] * 20})}).data["One"]
    chain = Chain(
        variables=(
            ChainVariable(name="x", kind="number", center=(19.5,), scale=(11.5,)),
            ChainVariable(name="y", kind="category", levels=(0.0, 1.0), center=(0.5,), scale=(0.5,)),
        ),
        num_copies=1,
    )
    state = begin.function(table, None, np.random.default_rng(0), chain)[1]

    def asked(coefficients: Any) -> Steps[Any]:
        sums = logistic_sums.function(table, state, np.random.default_rng(0), chain, "y", coefficients)[0]
        return sums.information, sums.score, sums.deviance
        yield

    with pytest.raises(StopIteration) as stop:
        next(logistic_fit(chain, "y", asked, None))
    assert 1 < stop.value.value.estimates[0, 0, 1] < 50


def test_draws_follow_the_posterior() -> None:
    """Means and covariances of 4,000 draws; a z of 6 has a false-alarm rate below 1e-7 over all comparisons."""
    covariance = np.array([[2.0, 0.6], [0.6, 0.5]])
    posterior = Posterior(
        estimates=np.tile([[[1.0, -3.0]]], (4000, 1, 1)),
        covariance=np.tile(covariance, (4000, 1, 1)),
        residual=np.full(4000, 180.0),
        df=np.full(4000, 20.0),
    )
    coefficients, deviations = posterior.draw(np.random.default_rng(2))
    expected = 180.0 / 18  # mean of residual / chi-square
    drawn = coefficients[:, 0]
    assert np.abs(drawn.mean(axis=0) - [1.0, -3.0]).max() < 6 * np.sqrt(expected * 2.0 / 4000)
    np.testing.assert_allclose(np.cov(drawn.T), expected * covariance, rtol=0.2)
    assert np.mean(deviations**2) == pytest.approx(expected, rel=0.06)
    assert not np.allclose(np.cov(drawn.T), covariance, rtol=0.2)  # a wrong scale is seen


def test_numbers_are_drawn_about_their_model() -> None:
    chain = Chain(variables=CHAIN.variables[:3], num_copies=150)
    states = begun(chain)
    size = chain.num_predictors("bmi")
    coefficients = np.zeros((150, 1, size))
    coefficients[:, 0, 0] = 0.4
    sums = summed(draw, states, chain, "bmi", coefficients, coefficients, np.full(150, 0.2), True)
    mean, num = sums.total.sum() / (150 * sums.num_imputed), 150 * sums.num_imputed
    assert abs(mean - 0.4) < 6 * 0.2 / np.sqrt(num)
    assert sums.square.sum() / num - mean**2 == pytest.approx(0.04, rel=0.1)
    untraced, state = draw.function(
        TABLES["North"],
        states["North"],
        np.random.default_rng(1),
        chain,
        "bmi",
        coefficients,
        coefficients * 100,
        np.full(150, 0.2),
        False,
    )
    assert (state.values["bmi"] == 30.0).all()  # the contract's greatest value
    assert not untraced.total.any()
    assert not untraced.square.any()
    assert states["North"].values["bmi"].max() < 40
    assert (states["North"].values["bmi"] != state.values["bmi"]).any()


def test_matched_values_are_near_ones() -> None:
    rng = np.random.default_rng(3)
    near = rng.normal(size=200)
    to = rng.normal(size=50)
    drawn = matched(near, near, to, 5, rng)
    fifth = np.sort(np.abs(near[None, :] - to[:, None]), axis=1)[:, 4]
    assert (np.abs(drawn - to) <= fifth + 1e-12).all()
    assert len({float(matched(near, near, to[:1], 5, rng)[0]) for _ in range(60)}) == 5
    assert set(matched(near[:2], near[:2], to, 5, rng).tolist()) == set(near[:2].tolist())


def test_matching_takes_values_of_the_same_site() -> None:
    chain = Chain(variables=CHAIN.variables, num_copies=3, num_donors=4)
    states = begun(chain)
    shape = (3, 1, chain.num_predictors("bmi"))
    coefficients = np.full(shape, 0.1)
    args = (chain, "bmi", coefficients, coefficients, np.ones(3), True)
    sums, state = draw.function(TABLES["North"], states["North"], np.random.default_rng(0), *args)
    own = TABLES["North"].numbers("bmi")
    assert np.isin(state.values["bmi"], own[~np.isnan(own)].clip(18.0, 30.0)).all()
    assert sums.num_without_donors == 0
    few = TABLES["North"].take(np.flatnonzero(np.isnan(own))[:30])
    copies = begin.function(few, None, np.random.default_rng(0), chain)[1]
    sums, _ = draw.function(few, copies, np.random.default_rng(0), *args)
    assert sums.num_without_donors == 30


def test_a_copy_is_a_table() -> None:
    states = begun()
    design = Design(
        columns=(Column(name="Intercept", features=()), Column(name="age", features=(Numeric(expression="age"),))),
        center=np.array([0.0, 60.0]),
        scale=np.array([1.0, 10.0]),
    )
    frame = Frame(outcome=Numeric(expression="bmi"), required=("age", "bmi"))
    model = Model(family="gaussian", link="identity")
    arguments = {"design": design, "frame": frame, "model": model, "coefficients": np.zeros(2)}
    table, state = TABLES["North"], states["North"]
    filled = state.table(table, 2)
    assert not np.isnan(filled.numbers("bmi")).any()
    seen = ~table.is_missing("bmi")
    np.testing.assert_array_equal(filled.numbers("bmi")[seen], table.numbers("bmi")[seen])
    np.testing.assert_array_equal(filled.numbers("bmi")[~seen], state.values["bmi"][2])
    got, kept = on_terms.function(table, state, np.random.default_rng(0), copy=2, **arguments)
    expected = terms(filled, design, frame, model, np.zeros(2))
    np.testing.assert_array_equal(got.gram, expected.gram)
    assert got.num_rows == expected.num_rows == table.num_records
    assert kept is state
    with pytest.raises(DataError, match=r"copy must be in \[0, 3\)"):
        state.table(table, 3)
    with pytest.raises(DataError, match=r"imputation\.begin first"):
        on_terms.function(table, None, np.random.default_rng(0), copy=0, **arguments)


def test_completed_functions_are_named_and_versioned() -> None:
    for function_id, function in COMPLETED.items():
        assert function.function_id == f"imputation.{function_id}"
        assert function.is_stateful
        assert function.parameters.names[0] == "copy"
    with pytest.raises(LocalProtocolError, match="no form that runs on a completed copy"):
        next(on_copy(ask(observed, ("age",), ((),), (), 1), 0))


def test_too_few_records_are_refused() -> None:
    chain = Chain(variables=CHAIN.variables, num_copies=1)
    size = chain.num_predictors("bmi")
    x = np.random.default_rng(0).normal(size=(size, size))
    gram = (x.T @ x)[np.triu_indices(size)][None]
    with pytest.raises(ModelError, match=r"'bmi' has a value in .* too few for a model with"):
        linear_posterior(chain, "bmi", gram, np.zeros((1, size)), 1.0, size)


def test_a_site_without_values_stands_at_the_average_of_sites() -> None:
    """Site intercepts have the weight of one record as their prior, so that a site without records has a proper one."""
    sites = tuple(SiteColumn(site=site, center=1 / 3, scale=0.5) for site in ("a", "b", "c"))
    chain = Chain(
        variables=(ChainVariable(name="x", kind="number", center=(0.0,), scale=(1.0,)),), sites=sites, num_copies=1
    )
    dummies = np.repeat(np.eye(3)[:2], 500, axis=0)  # nobody at c
    x = np.column_stack([np.ones(1000), (dummies - 1 / 3) / 0.5])
    y = np.repeat([1.0, 3.0], 500)
    gram = (x.T @ x)[np.triu_indices(4)][None]
    posterior = linear_posterior(chain, "x", gram, (x.T @ y)[None], float(y @ y), 1000)
    at_c = np.concatenate([[1.0], (np.eye(3)[2] - 1 / 3) / 0.5])
    assert at_c @ posterior.estimates[0, 0] == pytest.approx(2.0, abs=0.05)
    assert at_c @ posterior.covariance[0] @ at_c > 1.0
    assert x[0] @ posterior.covariance[0] @ x[0] < 0.01


def test_rubins_rules_equal_mice() -> None:
    q, u = np.array(REFERENCES["q"]), np.array(REFERENCES["u"])
    pooled = pool(q, np.array([np.diag(row) for row in u]), 57)
    for j, expected in enumerate(REFERENCES["scalar"]):
        assert relative(pooled.estimates[j], expected["estimate"]) < 1e-10
        assert relative(pooled.covariance[j, j], expected["variance"]) < 1e-10
        assert relative(pooled.df[j], expected["df"]) < 1e-10
        assert relative(pooled.fmi[j], expected["fmi"]) < 1e-10
        assert relative(pooled.share_missing[j], expected["lambda"]) < 1e-10
        assert pooled.efficiency[j] == pytest.approx(1 / (1 + expected["fmi"] / 5))


def test_joint_test_equals_mice() -> None:
    joint = REFERENCES["joint"]
    pooled = pool(np.array(joint["estimates"]), np.array(joint["covariances"]), 1e12)
    statistic, df, _, p_value = joint_test(pooled, [2, 3], len(joint["estimates"]))
    assert df == 2
    assert relative(statistic, joint["statistic"]) < 1e-8
    assert p_value == pytest.approx(joint["p"], rel=0.05)


def test_nothing_missing_changes_nothing() -> None:
    covariance = np.array([[2.0, 0.5], [0.5, 1.0]])
    for copies in (1, 4):
        pooled = pool(np.tile([1.0, 2.0], (copies, 1)), np.tile(covariance, (copies, 1, 1)), 50)
        np.testing.assert_array_equal(pooled.estimates, [1.0, 2.0])
        np.testing.assert_array_equal(pooled.covariance, covariance)
        assert (pooled.fmi == 0).all()
        assert (pooled.share_missing == 0).all()


def test_convergence_is_judged() -> None:
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(40, 10))
    assert convergence(mixed) < 1.1
    assert convergence(mixed + np.arange(10)) > 2
    assert np.isnan(convergence(mixed[:3]))
    assert np.isnan(convergence(np.ones((10, 5))))
