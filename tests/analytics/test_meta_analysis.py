"""Meta-analysis of the sites' own fits: each as an independent library fits it, and what cannot be fitted is said."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter

from tests.analytics.pooled import fit_pooled
from wardround.analytics.glm import glm
from wardround.analytics.linear import unpack_symmetric
from wardround.analytics.meta_analysis import meta_analysis
from wardround.analytics.meta_analysis_combine import combine, combine_vectors
from wardround.analytics.meta_analysis_result import MetaAnalysisResult
from wardround.analytics.result import FigureExhibit, Result
from wardround.analytics.site_estimates import glm_estimates
from wardround.engines.script import Event
from wardround.engines.simulated_hospitals import simulate
from wardround.errors import ConfigError, DataError, ModelError
from wardround.privacy.disclosure import DisclosureRules
from wardround.testing.workflow_contract import check_workflow

LINKS = {"gaussian": "identity", "binomial": "logit", "poisson": "log", "gamma": "log"}


def make_sites(num_sites: int = 5, seed: int = 4) -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    sites = {}
    for i in range(num_sites):
        n = int(rng.integers(150, 400))
        frame = pd.DataFrame(
            {
                "age": rng.normal(58 + 3 * i, 11, n).round(1),
                "sex": rng.choice(["F", "M"], n),
                "ward": rng.choice(["acute", "day", "rehab"], n),
                "log_stay": np.log(rng.uniform(0.5, 3, n)),
            }
        )
        eta = -3 + 0.3 * i + 0.045 * frame.age + (0.3 + 0.4 * rng.normal()) * (frame.sex == "M")
        frame["died"] = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int)
        frame["falls"] = rng.poisson(np.exp(eta / 3 + frame.log_stay))
        frame["cost"] = rng.gamma(2, np.exp(eta / 3))
        frame["score"] = 120 + 15 * (eta + rng.normal(size=n))
        sites[f"hospital {i + 1}"] = frame
    return sites


SITES = make_sites()
FLOOR_OF_3 = DisclosureRules(minimum_cell=3, allows_site_results=True)


def run(formula: str, sites: dict[str, pd.DataFrame] | None = None, rules: Any = "none", **options: Any) -> Any:
    return simulate(sites or SITES, disclosure=rules).run(meta_analysis(formula=formula, **options))


def own_fits(formula: str, family: str, sites: dict[str, pd.DataFrame], **model: Any) -> list[Any]:
    return [
        fit_pooled(frame, formula, family, LINKS[family], {}, **{k: frame[v].to_numpy() for k, v in model.items()})
        for frame in sites.values()
    ]


@pytest.mark.parametrize(
    ("formula", "family", "extras"),
    [
        ("died ~ age + C(sex) + C(ward)", "binomial", {}),
        ("score ~ age * C(sex)", "gaussian", {}),
        ("falls ~ age + C(sex)", "poisson", {"offset": "log_stay"}),
        ("cost ~ age", "gamma", {}),
    ],
)
def test_combines_the_sites_own_fits(formula: str, family: str, extras: dict[str, str]) -> None:
    result = run(formula, family=family, link=LINKS[family], compare=False, method="PM", **extras)
    fits = own_fits(formula, family, SITES, **extras)
    assert len(result.coefficients) == len(fits[0].params)
    for c in result.coefficients:
        estimates = [fit.params[c.term] for fit in fits]
        errors = [fit.bse[c.term] for fit in fits]
        # An estimate near zero is as exact as its standard error lets it be read.
        np.testing.assert_allclose(c.combination.estimates, estimates, rtol=1e-8, atol=1e-8 * min(errors))
        np.testing.assert_allclose(c.combination.standard_errors, errors, rtol=1e-8)
        expected = combine(estimates, errors, list(SITES), method="PM")
        for kind in ("fixed", "random"):
            got, want = getattr(c.combination, kind), getattr(expected, kind)
            np.testing.assert_allclose([got.estimate, got.standard_error], [want.estimate, want.standard_error], 1e-7)
        np.testing.assert_allclose(c.combination.heterogeneity.tau2, expected.heterogeneity.tau2, rtol=1e-6, atol=1e-12)
        assert c.exact is None
    names = [c.term for c in result.coefficients]
    together, covariance = combine_vectors(
        np.array([fit.params[names] for fit in fits]), np.array([fit.cov_params().loc[names, names] for fit in fits])
    )
    np.testing.assert_allclose([c.together_estimate for c in result.coefficients], together, rtol=1e-7)
    errors = [c.together_standard_error for c in result.coefficients]
    np.testing.assert_allclose(errors, np.sqrt(np.diag(covariance)), rtol=1e-7)
    told = [(fit.num_records, fit.num_events) for fit in result.sites]
    events = [int(f.died.sum()) if family == "binomial" else 0 for f in SITES.values()]
    assert told == list(zip([len(f) for f in SITES.values()], events, strict=True))


@pytest.mark.parametrize("site_intercepts", [True, False])
def test_exact_fit_stands_beside(site_intercepts: bool) -> None:
    federation = simulate(SITES, disclosure="none")
    result = federation.run(
        meta_analysis(formula="died ~ age + sex", family="binomial", site_intercepts=site_intercepts)
    )
    fit = federation.run(glm(formula="died ~ age + sex", family="binomial", site_intercepts=site_intercepts))
    expected = fit.to_frame()
    for c in result.coefficients:
        if c.term == "Intercept" and site_intercepts:
            assert c.exact is None  # it would be that of the first site
            continue
        assert c.exact is not None
        assert c.exact.estimate == expected.estimate[c.term]
        assert c.exact.low == expected.low[c.term]
    kind = "an intercept for each site" if site_intercepts else "one intercept for all sites"
    assert f"The federated fit has {kind}." in result.notes


def test_spline_columns_are_the_same_at_all_sites() -> None:
    # Each site's own knots would give coefficients of different columns, which cannot be combined.
    formula = "score ~ rcs(age, knots=(50, 60, 70))"
    given, found = run(formula, compare=False), run("score ~ rcs(age, 3)", compare=False)
    assert len({c.combination.estimates for c in found.coefficients}) == len(given.coefficients) == 3
    knots = np.quantile(pd.concat(SITES.values()).age, [0.1, 0.5, 0.9])
    assert abs(knots - [50, 60, 70]).max() > 1
    assert found.coefficients[2].combination.heterogeneity.df == 4


def _spoilt() -> dict[str, pd.DataFrame]:
    sites = {name: frame.copy() for name, frame in make_sites(9).items()}
    sites["hospital 2"]["ward"] = "day"
    sites["hospital 3"]["died"] = 0
    sites["hospital 4"] = sites["hospital 4"].head(3)
    sites["hospital 5"]["age"] = np.nan
    perfect = sites["hospital 6"]
    perfect["died"] = (perfect.age > perfect.age.median()).astype(int)
    alias = sites["hospital 7"]
    alias["ward"] = np.where(alias.sex == "M", "day", "acute")
    return sites


def test_unfitted_sites_are_named() -> None:
    result = run("died ~ age + sex + ward", _spoilt(), family="binomial")
    status = {fit.site: fit.status for fit in result.sites}
    assert status["hospital 1"] == "fitted"
    assert status["hospital 2"] == "a column is constant there (ward[T.day])"
    assert "outcome is the same" in status["hospital 3"]
    assert "fewer records" in status["hospital 4"]
    assert status["hospital 5"] == "no complete record"
    assert "separation" in status["hospital 6"]
    assert status["hospital 7"] == "a column is constant there (ward[T.rehab])"
    assert [fit.site for fit in result.sites if fit.is_fitted] == ["hospital 1", "hospital 8", "hospital 9"]
    assert result.coefficient("age").combination.labels == ("hospital 1", "hospital 8", "hospital 9")
    for fit in result.sites:
        named = [note for note in result.notes if note.startswith("Left out") and fit.site in note]
        assert len(named) == (not fit.is_fitted)
        assert all(fit.status in note for note in named)
    assert any("hardly known" in note for note in result.notes)
    # The estimates of those that stay are untouched by the others.
    alone = own_fits("died ~ age + sex + ward", "binomial", {"hospital 8": _spoilt()["hospital 8"]})[0]
    np.testing.assert_allclose(result.coefficient("age").combination.estimates[1], alone.params["age"], rtol=1e-8)


def test_aliased_columns_at_one_site() -> None:
    sites = {name: frame.copy() for name, frame in SITES.items()}
    sites["hospital 2"]["log_stay"] = sites["hospital 2"]["age"] / 10
    result = run("score ~ age + log_stay", sites, compare=False)
    assert "combinations" in next(fit.status for fit in result.sites if fit.site == "hospital 2")


def test_estimates_of_small_groups_stay() -> None:
    sites = {name: frame.copy() for name, frame in SITES.items()}
    rare = sites["hospital 3"]
    rare["ward"] = np.where(np.arange(len(rare)) < 4, "day", np.where(rare.sex == "M", "acute", "rehab"))
    result = run("score ~ age + ward", sites, rules=FLOOR_OF_3, compare=False)
    assert next(fit for fit in result.sites if fit.site == "hospital 3").is_fitted  # 4 are enough for a floor of 3
    rare.loc[2:3, "ward"] = "rehab"
    held = next(f for f in run("score ~ age + ward", sites, rules=FLOOR_OF_3).sites if f.site == "hospital 3")
    assert not held.is_fitted
    assert "smaller than the disclosure rules allow" in held.status
    assert (held.num_records, held.num_events) == (None, None)


def test_small_numbers_with_the_outcome_stay() -> None:
    sites = {name: frame.copy() for name, frame in SITES.items()}
    few = sites["hospital 2"]
    few["died"] = (np.arange(len(few)) < 2).astype(int)
    few["age"] = np.arange(len(few)) % 7
    for died in (few["died"].to_numpy(), 1 - few["died"].to_numpy()):
        few["died"] = died
        result = run("died ~ age", sites, rules=FLOOR_OF_3, family="binomial", compare=False)
        assert "smaller than" in next(fit.status for fit in result.sites if fit.site == "hospital 2")


@pytest.mark.parametrize("kind", ["reference level", "two values", "interaction", "outcome within a level"])
def test_what_could_be_solved_for_stays(kind: str) -> None:
    sites = {name: frame.copy() for name, frame in SITES.items()}
    one, formula, family = sites["hospital 1"], "score ~ age + ward", "gaussian"
    if kind == "reference level":
        one["ward"] = np.where(np.arange(len(one)) < 2, "acute", np.where(one.sex == "M", "day", "rehab"))
    elif kind == "two values":
        formula = "score ~ age + flag"
        for frame in sites.values():
            frame["flag"] = (frame.sex == "M").astype(int)
        one["flag"] = (np.arange(len(one)) < 2).astype(int)
    elif kind == "interaction":
        formula = "score ~ age + C(sex) * C(ward)"
        men = one.index[(one.sex == "M") & (one.ward == "day")]
        one.loc[men[2:], "ward"] = "acute"
    else:
        formula, family = "died ~ age + ward", "binomial"
        dead = one.index[(one.died == 1) & (one.ward == "day")]
        one.loc[dead[2:], "died"] = 0
    result = run(formula, sites, rules=FLOOR_OF_3, family=family, compare=False)
    assert "smaller than" in next(fit.status for fit in result.sites if fit.site == "hospital 1")


def test_without_leave_nothing_is_asked() -> None:
    asked: list[Any] = []
    federation = simulate(SITES, progress=asked.append)
    with pytest.raises(ConfigError, match="allows_site_results"):
        federation.run(meta_analysis(formula="score ~ age"))
    assert asked == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"formula": "died ~ nothing"}, ConfigError, "nothing"),
        ({"formula": "score ~ age", "confidence": 1.0}, ConfigError, "confidence"),
        ({"formula": "score ~ age", "link": "logit"}, ConfigError, "link"),
        ({"formula": "score ~ age", "method": "XX"}, ConfigError, "method"),
        ({"formula": "score ~ age", "family": "binomial"}, DataError, "0 or 1"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        run(**options)
    assert isinstance(caught.value, error) or message in str(caught.value)


def test_one_site_is_no_meta_analysis() -> None:
    with pytest.raises(ConfigError, match="two sites"):
        run("score ~ age", {"only": SITES["hospital 1"]})
    sites = {"a": SITES["hospital 1"], "b": SITES["hospital 2"].assign(died=1)}
    with pytest.raises(ModelError, match="b \\(the outcome is the same"):
        run("died ~ age", sites, family="binomial")


def test_failed_federated_fit_is_said() -> None:
    sites = {name: frame.assign(died=1 if name == "hospital 2" else frame.died) for name, frame in SITES.items()}
    result = run("died ~ age", sites, family="binomial")
    assert any("with an intercept for each site failed: separation" in note for note in result.notes)
    assert result.coefficient("age").exact is not None  # fitted with one intercept for all sites instead


def test_site_that_leaves_is_not_in_it() -> None:
    script = [Event(site="hospital 4", behaviour="drops_before", round=4)]
    federation = simulate(SITES, disclosure="none", script=script, minimum_sites=2)
    result = federation.run(meta_analysis(formula="score ~ age", compare=False))
    kept = {name: frame for name, frame in SITES.items() if name != "hospital 4"}
    expected = run("score ~ age", kept, compare=False)
    got = result.coefficient("age").combination
    assert got.labels == tuple(kept)
    np.testing.assert_allclose(got.random.estimate, expected.coefficient("age").combination.random.estimate, rtol=1e-10)


def test_keeps_to_the_workflow_contract() -> None:
    federation = simulate(make_sites(3), disclosure="none")
    model = meta_analysis(formula="died ~ age + sex", family="binomial")
    check_workflow(model, federation.data, federation.setting, max_crashes=2)


RESULT: MetaAnalysisResult = run("died ~ age + sex", family="binomial", knapp_hartung=True)


def test_result_is_a_result() -> None:
    assert isinstance(RESULT, Result)
    written = json.loads(RESULT.to_json())
    assert written["coefficients"][1]["combination"]["labels"] == list(SITES)
    frame = RESULT.to_frame()
    assert frame.loc["sex[T.M]", "random"] == RESULT.coefficient("sex[T.M]").combination.random.estimate
    assert list(RESULT.site_frame("age").index) == list(SITES)
    assert RESULT.site_frame("age").weight_random.sum() == pytest.approx(1)
    text = RESULT.summary()
    assert "Odds ratio" in text
    assert "Knapp-Hartung" in text
    with pytest.raises(ValueError, match="term must be one of"):
        RESULT.plot("bmi")


def test_methods_name_what_was_used() -> None:
    assert "restricted maximum likelihood" in RESULT.methods()
    assert any("Knapp" in reference for reference in RESULT.references)
    assert not any("Paule" in reference for reference in RESULT.references)
    plain = run("score ~ age", method="PM")
    assert any("Paule" in reference for reference in plain.references)
    assert not any("Knapp" in reference for reference in plain.references)


def test_exhibits_can_be_drawn() -> None:
    exhibits = RESULT.exhibits()
    figures = [exhibit for exhibit in exhibits if isinstance(exhibit, FigureExhibit)]
    assert [figure.kind for figure in figures] == ["forest", "forest"]
    for figure in figures:
        drawn = figure.draw()
        drawn.canvas.draw()
        labels = [label.get_text() for label in drawn.axes[0].get_yticklabels()]
        assert labels[-4:] == [
            "Fixed effect",
            "Random effects",
            "Prediction for a further site",
            "Federated, all records (exact)",
        ]
        assert "I\N{SUPERSCRIPT TWO}" in figure.description
    combined = next(exhibit for exhibit in exhibits if exhibit.title.startswith("Combined"))
    assert combined.frame.loc["sex: M", "Random effects: Odds ratio (95% CI)"] == RESULT.text_of(
        RESULT.coefficient("sex[T.M]").combination.random
    )


def test_equals_the_sites_own_fit() -> None:
    federation = simulate(SITES, disclosure="none", progress=(rounds := []).append)
    federation.run(meta_analysis(formula="died ~ age + C(sex)", family="binomial", compare=False))
    slots = rounds[-1].round.ask
    assert slots.function is glm_estimates
    own = glm_estimates(federation.data["hospital 2"], **slots.arguments)
    assert own.status.tolist() == [0] * 5
    assert not own.estimates[[0, 2, 3, 4]].any()
    fit = own_fits("died ~ age + C(sex)", "binomial", {"hospital 2": SITES["hospital 2"]})[0]
    names = [column.name for column in slots.arguments["design"].columns]
    np.testing.assert_allclose(
        own.estimates[1, 1:] / slots.arguments["design"].scale[1:], fit.params[names[1:]], rtol=1e-8
    )
    covariance = unpack_symmetric(own.covariances[1])[1:, 1:]
    scale = slots.arguments["design"].scale[1:]
    np.testing.assert_allclose(
        covariance / np.outer(scale, scale), fit.cov_params().loc[names[1:], names[1:]], rtol=1e-8
    )


def test_a_site_without_a_slot_is_told() -> None:
    federation = simulate(SITES, disclosure="none", progress=(rounds := []).append)
    federation.run(meta_analysis(formula="score ~ age", compare=False))
    arguments = {**rounds[-1].round.ask.arguments, "sites": ("elsewhere",)}
    with pytest.raises(DataError, match="no slot"):
        glm_estimates(federation.data["hospital 2"], **arguments)


def make_survival(num_sites: int = 4, seed: int = 9) -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    sites = {}
    for i in range(num_sites):
        n = int(rng.integers(150, 300))
        frame = pd.DataFrame(
            {
                "age": rng.normal(60 + 2 * i, 9, n).round(),
                "sex": rng.choice(["F", "M"], n),
                "arm": rng.integers(0, 2, n),
            }
        )
        hazard = np.exp(0.03 * (frame.age - 60) + (0.4 + 0.3 * rng.normal()) * (frame.sex == "M")) / (200 + 60 * i)
        time, censored = rng.exponential(1 / hazard), rng.uniform(50, 500, n)
        frame["days"] = np.ceil(np.minimum(time, censored)).astype(int)
        frame["died"] = (time <= censored).astype(int)
        frame["entry"] = np.floor(frame.days * rng.uniform(0, 0.5, n)).astype(int)
        sites[f"hospital {i + 1}"] = frame
    return sites


SURVIVAL = make_survival()
OWN_COX = {"model": "cox", "time": "days", "event": "died"}


def own_cox(frame: pd.DataFrame, **options: Any) -> Any:
    given_ = frame.assign(**{"sex[T.M]": (frame.sex == "M").astype(float)})
    kept = [
        "age",
        "sex[T.M]",
        "days",
        "died",
        *options.get("strata", []),
        *([options["entry_col"]] if options.get("entry_col") else []),
    ]
    fitter = CoxPHFitter()
    settings_ = {"precision": 1e-18, "r_precision": 1e-18, "step_size": 1.0}
    return fitter.fit(given_[kept], "days", "died", fit_options=settings_, **options)


@pytest.mark.parametrize("kind", ["plain", "entry", "strata"])
def test_equals_the_sites_own_cox_fit(kind: str) -> None:
    extras: dict[str, Any] = {"entry": {"entry": "entry"}, "strata": {"strata": ("arm",)}}.get(kind, {})
    theirs: dict[str, Any] = {"entry": {"entry_col": "entry"}, "strata": {"strata": ["arm"]}}.get(kind, {})
    result = run("age + sex", SURVIVAL, **OWN_COX, **extras)
    fits = [own_cox(frame, **theirs) for frame in SURVIVAL.values()]
    for c in result.coefficients:
        np.testing.assert_allclose(c.combination.estimates, [fit.params_[c.term] for fit in fits], rtol=1e-8)
        errors = [fit.standard_errors_[c.term] for fit in fits]
        np.testing.assert_allclose(c.combination.standard_errors, errors, rtol=1e-8)
    told = [(fit.num_records, fit.num_events) for fit in result.sites]
    assert told == [(len(frame), int(frame.died.sum())) for frame in SURVIVAL.values()]
    assert result.ratio_name == "Hazard ratio"
    pooled = pd.concat([frame.assign(hospital=i) for i, frame in enumerate(SURVIVAL.values())])
    theirs["strata"] = ["hospital", *theirs.get("strata", [])]
    exact = own_cox(pooled, **theirs)
    for c in result.coefficients:
        assert c.exact is not None
        assert c.exact.estimate == pytest.approx(exact.params_[c.term], rel=1e-8)
        assert c.exact.standard_error == pytest.approx(exact.standard_errors_[c.term], rel=1e-8)
    assert "The federated fit has a baseline hazard for each site." in result.notes


def test_unfitted_sites_of_a_cox_model_are_named() -> None:
    sites = {name: frame.copy() for name, frame in make_survival(6).items()}
    sites["hospital 1"]["died"] = 0
    sites["hospital 2"]["sex"] = "F"
    sites["hospital 3"].loc[sites["hospital 3"].sex == "M", "died"] = 0
    sites["hospital 4"]["died"] = (np.arange(len(sites["hospital 4"])) < 2).astype(int)
    result = run("age + sex", sites, **OWN_COX, compare=False)
    status = [fit.status for fit in result.sites]
    assert "nobody had the event" in status[0]
    assert status[1] == "a column is constant there (sex[T.M])"
    assert "separation" in status[2]
    assert "events than the model needs" in status[3]
    assert [fit.is_fitted for fit in result.sites] == [False] * 4 + [True] * 2
    held = run("age + sex", sites, rules=FLOOR_OF_3, **OWN_COX, compare=False)
    assert "smaller than the disclosure rules" in held.sites[3].status


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formula": "age", "model": "cox"}, "time, event"),
        ({"formula": "age", **OWN_COX, "family": "binomial"}, "are a glm's"),
        ({"formula": "died ~ age", "family": "binomial", "time": "days"}, "set model = 'cox'"),
        ({"formula": "1", **OWN_COX}, "predictors"),
        ({"formula": "0 + age", **OWN_COX}, "predictors"),
        ({"formula": "age", **OWN_COX, "strata": ("site",)}, "leave 'site' out"),
        ({"formula": "age", **OWN_COX, "strata": ("age",)}, "strata"),
        ({"formula": "age", **OWN_COX, "event": "dead"}, "dead"),
        ({"formula": "years", **OWN_COX}, "years"),
    ],
)
def test_wrong_options_of_a_cox_model_are_refused(options: dict[str, Any], message: str) -> None:
    asked: list[Any] = []
    federation = simulate(SURVIVAL, disclosure="none", progress=asked.append)
    with pytest.raises(ConfigError, match=message):
        federation.run(meta_analysis(**options))
    assert asked == []


def test_cox_model_keeps_to_the_workflow_contract() -> None:
    federation = simulate(make_survival(2), disclosure="none")
    model = meta_analysis(formula="age", **OWN_COX)  # type: ignore[arg-type]
    result = check_workflow(model, federation.data, federation.setting, max_crashes=1)
    assert "a Cox model" in result.methods()
    result.plot().canvas.draw()


def test_a_site_below_the_floor_is_left_out_and_the_others_go_on() -> None:
    rng = np.random.default_rng(1)

    def hospital(num_records: int) -> pd.DataFrame:
        age = rng.normal(60, 9, num_records).round()
        return pd.DataFrame({"age": age, "y": age / 10 + rng.normal(0, 1, num_records)})

    sites = {"A": hospital(80), "B": hospital(90), "C": hospital(70), "few": hospital(3)}
    rules = DisclosureRules(allows_site_results=True)
    result = run("y ~ age", sites, rules=rules)
    assert [fit.site for fit in result.sites if fit.is_fitted] == ["A", "B", "C"]
    # With an intercept of each site, one would be of three records; the exact fit has a common one instead.
    assert any(note.startswith("The federated fit with an intercept for each site failed") for note in result.notes)
    assert "The federated fit has one intercept for all sites." in result.notes
    assert result.coefficient("age").exact is not None
