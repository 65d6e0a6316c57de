"""Regression after multiple imputation: right in distribution, deterministic, and nothing hidden is shown."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from wardround.analytics.glm import glm
from wardround.analytics.imputed import imputed
from wardround.analytics.imputed_result import ImputedResult
from wardround.analytics.result import FigureExhibit, Result, TableExhibit
from wardround.data.contract import Contract, Variable
from wardround.engines.script import Event
from wardround.engines.simulated_hospitals import simulate
from wardround.engines.simulation import Simulation
from wardround.errors import ConfigError, DataError
from wardround.privacy.disclosure import DisclosureRules
from wardround.testing.workflow_contract import check_workflow

REFERENCES = json.loads((Path(__file__).parents[1] / "references" / "imputation.json").read_text())
FORMULA = "risk ~ age + sex + C(ward)"


def make_patients(seed: int = 1, n: int = 240) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.normal(60, 10, n).round(1),
            "sex": rng.choice(["F", "M"], n),
            "ward": rng.choice(["acute", "day", "rehab"], n),
            "bmi": rng.normal(26, 3, n),
        }
    )
    frame["risk"] = 0.1 * frame.age + (frame.sex == "M") + 0.5 * (frame.ward == "day") + rng.normal(0, 1, n)
    frame["died"] = (rng.random(n) < 1 / (1 + np.exp(6 - frame.risk))).astype(int)
    for name, share in (("age", 0.2), ("sex", 0.15), ("ward", 0.1)):
        frame.loc[rng.random(n) < share, name] = np.nan
    return frame


PATIENTS = make_patients()
SITES = {"North": PATIENTS[:100], "South": PATIENTS[100:]}


def federation(sites: dict[str, pd.DataFrame] | None = None, **rules: Any) -> Simulation:
    return simulate(sites or SITES, disclosure=DisclosureRules.of("standard", **rules))


def run(formula: str = FORMULA, sites: dict[str, pd.DataFrame] | None = None, **options: Any) -> ImputedResult:
    rules = options.pop("rules", {})
    chosen = {"num_imputations": 3, "num_iterations": 2, **options}
    return federation(sites, **rules).run(imputed(formula, **chosen))


def test_keeps_the_workflow_contract() -> None:
    simulation = federation()
    workflow = imputed(FORMULA, num_imputations=2, num_iterations=2, auxiliary=("bmi",))
    result = check_workflow(workflow, simulation.data, simulation.setting, max_crashes=2)
    assert isinstance(result, Result)


def test_deterministic_for_seeds() -> None:
    first, again, other = run(seed=4), run(seed=4), run(seed=5)
    assert first.to_json() == again.to_json()
    assert first.to_json() != other.to_json()


def test_imputed_values_stay() -> None:
    """What the sites send does not grow with their records, though they impute four times as many values."""
    workflow = imputed(FORMULA, num_imputations=3, num_iterations=2)
    larger = {site: pd.concat([frame] * 4, ignore_index=True) for site, frame in SITES.items()}
    sizes = []
    for sites in (SITES, larger):
        rounds = federation(sites).record(workflow).record.rounds
        layouts = {r.ask.function.function_id: r.ask.layout for r in rounds}
        sizes.append({name: layout.num_exact + layout.num_people for name, layout in layouts.items()})
    assert sizes[0] == sizes[1]
    assert {"imputation.begin@1", "imputation.draw@1", "imputation.glm.terms@1"} <= set(sizes[0])


def one_truth(seed: int, n: int = 160) -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng([seed, 3])
    x = rng.normal(size=n)
    y = 1 + x + rng.normal(size=n)
    x[rng.random(n) < 0.8 / (1 + np.exp(-2 * (y - 1)))] = np.nan  # missing at random: where y is large
    frame = pd.DataFrame({"x": x, "y": y})
    return {"a": frame[: n // 3], "b": frame[n // 3 :]}


def test_estimates_are_unbiased_and_intervals_cover_the_truth() -> None:
    """Of 70 data sets: the mean within 5 standard errors (false alarm 6e-7), coverage within 1e-6 of its binomial."""
    estimates, complete, covered, halved = [], [], [], []
    for seed in range(70):
        result = simulate(one_truth(seed), seed=seed).run(
            imputed("y ~ x", num_imputations=6, num_iterations=1, seed=seed, keeps_range=False)
        )
        frame = result.to_frame()
        estimates.append(frame.estimate.to_numpy())
        complete.append([term.estimate for term in result.complete_cases or ()])
        reach = (frame.high - frame.low) / 2
        covered.append(np.abs(frame.estimate - 1) < reach)
        halved.append(np.abs(frame.estimate - 1) < reach / 2)
    assert np.abs(_z(estimates)).max() < 5
    assert np.abs(_z(complete)).max() > 5  # the complete records alone are biased
    fewest = stats.binom.ppf(1e-6, 70, 0.95)
    assert np.sum(covered, axis=0).min() >= fewest
    assert np.sum(halved, axis=0).min() < fewest  # a wrong scale is seen
    assert frame.fmi.max() > 0.15


def _z(estimates: list[Any]) -> np.ndarray:
    values = np.array(estimates) - 1
    z: np.ndarray = values.mean(axis=0) / (values.std(axis=0, ddof=1) / np.sqrt(len(values)))
    return z


def heart(shared_data: Path) -> dict[str, pd.DataFrame]:
    names = "age,sex,cp,trestbps,chol,fbs,restecg,thalach,exang,oldpeak,slope,ca,thal,num".split(",")  # noqa: SIM905
    sites = {}
    for file, site in (("cleveland", "Cleveland"), ("hungarian", "Hungary"), ("switzerland", "Zurich"), ("va", "VA")):
        frame = pd.read_csv(
            shared_data / "heart_uci4" / f"processed.{file}.data", header=None, na_values="?", names=names
        )
        frame["chol"], frame["trestbps"] = frame.chol.replace(0, np.nan), frame.trestbps.replace(0, np.nan)
        frame["disease"] = (frame.num > 0).astype(int)
        sites[site] = frame.drop(columns="num")
    return sites


def test_heart_disease_agrees_with_mice(shared_data: Path) -> None:
    """Estimates by R's mice with 200 imputations; ours vary about them by the between-imputation error of 40."""
    expected = REFERENCES["heart"]
    formula = "disease ~ age + sex + chol + thalach + exang + oldpeak"
    result = simulate(heart(shared_data), disclosure=DisclosureRules.of("standard", allows_site_results=True)).run(
        imputed(formula, family="binomial", num_imputations=40, num_iterations=5, keeps_range=False)
    )
    for term, estimate, error in zip(result.terms, expected["estimate"], expected["std_error"], strict=True):
        monte_carlo = error * np.sqrt(term.share_missing * (1 / 40 + 1 / 200))
        assert abs(term.estimate - estimate) < 5 * monte_carlo + 1e-6 * abs(estimate), term.term
        assert term.standard_error == pytest.approx(error, rel=0.08)
    chol = next(v for v in result.variables if v.variable == "chol")
    assert chol.sites_without == ("Zurich",)
    assert any("chol has no value at all at Zurich" in note for note in result.notes)


def test_matching_and_site_intercepts_run() -> None:
    result = run(method="pmm", num_donors=3, imputes_by_site=True, rules={"allows_site_results": True})
    assert {v.model for v in result.variables} == {None, "predictive mean matching", "logistic"}
    assert result.imputes_by_site
    assert "Little 1988" in result.methods()


def test_site_intercepts_follow_the_sites() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"y": rng.normal(size=400), "x": rng.normal(size=400)})
    frame.loc[200:, "x"] += 10  # the second site measures otherwise
    frame.loc[rng.random(400) < 0.5, "x"] = np.nan
    sites = {"a": frame[:200], "b": frame[200:]}
    apart = run("y ~ x", sites, imputes_by_site=True, rules={"allows_site_results": True}, num_imputations=20)
    mixed = run("y ~ x", sites, num_imputations=20)
    spreads = [next(v.deviation for v in r.variables if v.variable == "x") for r in (apart, mixed)]
    assert all(spread is not None for spread in spreads)
    means = [r.to_frame().share_missing["x"] for r in (apart, mixed)]
    assert means[0] < means[1]  # imputed by site, the copies agree more


def test_complete_records_are_left_out_where_a_site_has_too_few() -> None:
    north = SITES["North"].reset_index(drop=True).assign(age=50.0, ward="day", sex="F")
    north.loc[50:, "age"] = np.nan
    north.loc[:47, "sex"] = None  # two records have both
    sites = {"North": north, "South": SITES["South"]}
    result = run(sites=sites, rules={"minimum_rows_site": 3})
    assert result.complete_cases is None
    assert any("the model of the complete records left out" in note for note in result.notes)
    assert result.sites == ("North", "South")
    assert run(sites=sites, rules={"minimum_rows_site": 2}).complete_cases is not None


def test_nothing_missing_equals_the_plain_model() -> None:
    sites = {name: frame.drop(columns=["age", "sex", "ward"]) for name, frame in SITES.items()}
    simulation = federation(sites)
    result = simulation.run(imputed("risk ~ bmi"))
    plain = simulation.run(glm("risk ~ bmi"))
    assert [t.estimate for t in result.terms] == [t.estimate for t in plain.terms]
    assert [t.standard_error for t in result.terms] == pytest.approx([t.standard_error for t in plain.terms])
    assert result.notes == ("nothing is missing: the model was fitted once, to all records",)
    assert all(term.fmi == 0 for term in result.terms)


def test_missing_at_a_whole_site_is_told_and_everywhere_is_refused() -> None:
    sites = {"North": SITES["North"].assign(bmi=np.nan), "South": SITES["South"]}
    result = run("risk ~ bmi", sites)
    bmi = next(v for v in result.variables if v.variable == "bmi")
    assert (bmi.num_missing, bmi.absent_sites, bmi.sites_without) == (100, None, None)
    assert any("bmi has no value at all at one or more sites" in note for note in result.notes)
    contract = Contract(variables=(Variable(name="risk", type="number"), Variable(name="bmi", type="number")))
    empty = {name: frame.assign(bmi=np.nan)[["risk", "bmi"]] for name, frame in SITES.items()}
    with pytest.raises(DataError, match="bmi: missing in all records of all sites"):
        simulate(empty, contract=contract).run(imputed("risk ~ bmi"))


def test_small_counts_are_hidden() -> None:
    frame = PATIENTS.drop(columns=["sex", "ward"]).assign(age=PATIENTS.age.fillna(60.0))
    frame.loc[[3, 50, 120], "age"] = np.nan
    sites = {"North": frame[:100], "South": frame[100:]}
    result = run("risk ~ age", sites)
    age = next(v for v in result.variables if v.variable == "age")
    assert (age.num_missing, age.share_missing, age.mean, result.num_complete) == (None, None, None, None)
    texts = [result.summary(), result.to_json(), *(str(e.frame) for e in result.exhibits() if hasattr(e, "frame"))]
    assert not any("237" in text for text in texts)
    # Two variables whose counts are shown may not give a third by the number of complete records.
    frame.loc[10:40, "age"] = np.nan
    frame.loc[[11, 12, 13, 14, 15, 16, 50], "bmi"] = np.nan
    result = run("risk ~ age + bmi", {"North": frame[:100], "South": frame[100:]})
    assert all(v.num_missing is not None for v in result.variables)
    assert result.num_complete is not None
    frame.loc[60, "bmi"] = np.nan
    result = run("risk ~ age + bmi", {"North": frame[:100], "South": frame[100:]})
    assert result.num_complete is None


def test_transformations_are_of_the_completed_values() -> None:
    result = run("risk ~ log(age) + age:bmi + center(age)")
    assert [t.term for t in result.terms][1:] == ["log(age)", "center(age)", "age:bmi"]
    assert any("log(age), age:bmi: computed from the completed variables" in note for note in result.notes)
    with pytest.raises(ConfigError, match=r"knots of rcs\(age, 4\) would be others"):
        run("risk ~ rcs(age, 4)")
    assert run("risk ~ rcs(age, knots=[45, 60, 75])").tests[0].df == 2


def test_codes_and_binary_outcomes_are_imputed_as_levels() -> None:
    frame = PATIENTS.assign(grade=np.random.default_rng(0).integers(1, 4, len(PATIENTS)).astype(float))
    frame.loc[5:30, ["grade", "died"]] = np.nan
    sites = {"North": frame[:100], "South": frame[100:]}
    result = run("died ~ C(grade) + bmi", sites, family="binomial")
    assert {v.variable: v.model for v in result.variables} == {"died": "logistic", "grade": "logistic", "bmi": None}
    assert result.tests[0].df == 2
    with pytest.raises(ConfigError, match="'bmi' must be an integer with a range"):
        run("died ~ grade + bmi", sites, family="binomial", categorical=("bmi",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_imputations": 1}, "num_imputations: must be in"),
        ({"num_iterations": 0}, "num_iterations: must be in"),
        ({"seed": -1}, "seed: must be 0 or more"),
        ({"num_donors": 0}, "num_donors: must be in"),
        ({"auxiliary": ("bmx",)}, "did you mean 'bmi'"),
        ({"categorical": ("bmi",)}, "in neither formula nor auxiliary"),
        ({"site_intercepts": True}, "allows_site_results = false forbids"),
        ({"imputes_by_site": True}, "allows_site_results = false forbids"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_asked(options: dict[str, Any], message: str) -> None:
    simulation = federation()
    with pytest.raises(ConfigError, match=message):
        next(imputed(FORMULA, **options).steps(simulation.setting))


def test_a_site_that_leaves_is_in_no_sum() -> None:
    whole = {"North": PATIENTS[:80], "South": PATIENTS[80:160], "East": PATIENTS[160:]}
    workflow = imputed("risk ~ age", num_imputations=2, num_iterations=1)
    leaves = Event(site="East", behaviour="drops_before", round=8)
    left = simulate(whole, minimum_sites=2, script=[leaves]).run(workflow)
    assert left.sites == ("North", "South")
    assert left.num_records == 160


def test_what_is_shown() -> None:
    result = run(auxiliary=("bmi",), num_iterations=5, num_imputations=5)
    exhibits = result.exhibits()
    assert [type(e) for e in exhibits] == [FigureExhibit, TableExhibit, TableExhibit, FigureExhibit]
    for exhibit in exhibits:
        if isinstance(exhibit, FigureExhibit):
            exhibit.draw().canvas.draw()
            assert exhibit.description
        else:
            assert not exhibit.frame.empty
    assert "FMI" in result.summary()
    assert "C(ward): F(2, " in result.summary()
    assert len(result.references) >= 4
    assert result.headlines()[0].startswith("Missing most often: age (")
    ratios = run("died ~ age + sex", family="binomial")
    assert (ratios.to_frame(exponentiate=True).low > 0).all()
    with pytest.raises(ValueError, match="exponentiate needs the link"):
        result.to_frame(exponentiate=True)
