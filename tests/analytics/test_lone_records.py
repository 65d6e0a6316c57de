"""Formulas that single few records out are refused; honest ones are not."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import wardround as wr
from wardround.analytics.glm import glm
from wardround.errors import DisclosureError
from wardround.privacy.disclosure import DisclosureRules

RNG = np.random.default_rng(8)
NUM = 240
FRAME = pd.DataFrame(
    {
        "age": RNG.integers(300, 900, NUM) / 10,
        "crp": np.exp(RNG.normal(1, 1.2, NUM)),
        "score": RNG.normal(10, 2, NUM),
        "ward": RNG.choice(["a", "b", "c"], NUM),
        "died": RNG.random(NUM) < 0.3,
    }
)
FRAME.loc[17, "age"] = 87.15


def federation(frame: pd.DataFrame = FRAME, disclosure: DisclosureRules | str = "standard") -> wr.Simulation:
    return wr.simulate({"A": frame[:100], "B": frame[100:180], "C": frame[180:]}, disclosure=disclosure)


@pytest.mark.parametrize(
    "predictors",
    [
        "I(age == 87.15)",
        "I(age != 87.15)",
        "0 + I(age == 87.15)",
        "0 + I(age != 87.15)",
        "0 + C(ward) + I(age != 87.15)",
        "age + I(2 * (age == 87.15) + 3)",
        "age + I(1e-6 * (age == 87.15))",
        "crp + I((age == 87.15) + 1e-3 * crp / 100)",
        "crp:I(age == 87.15)",
        "C(ward) * I(age == 87.15)",
        "I(exp(-1e4 * (age - 87.15) ** 2))",
        "I(age == 87.15) - 1 + crp",
    ],
)
def test_nobody_is_singled_out(predictors: str) -> None:
    with pytest.raises(DisclosureError, match="disclosure rule minimum_cell: all records but fewer than 5") as caught:
        federation().run(glm(formula=f"score ~ {predictors}"))
    assert "87.15" in str(caught.value)  # the column is named, as the statistician wrote it
    allowed = federation(disclosure="none")
    if "C(ward) *" not in predictors:  # nobody of the other wards: not estimable in any case
        assert allowed.run(glm(formula=f"score ~ {predictors}", aliased="drop")).terms


def test_an_outcome_that_is_one_patient_is_refused() -> None:
    with pytest.raises(DisclosureError, match=r"the outcome I\(age == 87.15\)"):
        federation().run(glm(formula="I(age == 87.15) ~ crp"))
    few = FRAME.assign(died=[i < 3 for i in range(NUM)])
    with pytest.raises(DisclosureError, match="the outcome died"):
        federation(few).run(glm(formula="died ~ crp", family="binomial"))


@pytest.mark.parametrize("num_with", [1, 4, 5])
def test_levels_of_few_are_refused(num_with: int) -> None:
    ward = FRAME["ward"].mask(np.arange(NUM) % (NUM // num_with) == 3, "rare")
    frame = FRAME.assign(ward=ward)
    rare = int((ward == "rare").sum())
    assert rare == num_with
    if num_with == 5:
        assert federation(frame).run(glm(formula="score ~ C(ward)")).terms
        return
    with pytest.raises(DisclosureError, match=r"ward = 'rare'; join such levels") as caught:
        federation(frame).run(glm(formula="score ~ C(ward)"))
    assert str(num_with) not in str(caught.value).replace("fewer than 5", "")
    assert federation(frame, "none").run(glm(formula="score ~ C(ward)")).terms


def test_few_complete_records_are_refused() -> None:
    frame = FRAME.assign(crp=FRAME["crp"].where(np.arange(NUM) % 80 == 0))
    with pytest.raises(DisclosureError, match="fewer than 5 records are complete"):
        federation(frame).run(glm(formula="score ~ crp"))


@pytest.mark.parametrize(
    "formula",
    [
        "score ~ age + crp + C(ward) + died",
        "score ~ bs(age, df=6) + rcs(crp, 4)",
        "score ~ crp + I(crp ** 3)",
        "score ~ 0 + C(ward) + age:died",
        "score ~ I(age > 80) + center(age) + I(log(crp))",
        "crp ~ age",
    ],
)
def test_honest_formulas_are_let_through(formula: str) -> None:
    free = federation(disclosure="none").run(glm(formula=formula))
    kept = federation().run(glm(formula=formula))
    assert [c.estimate for c in kept.terms] == [c.estimate for c in free.terms]


@given(st.integers(0, 2**32), st.sampled_from(["normal", "lognormal", "cauchy", "counts"]), st.integers(40, 150))
def test_no_false_alarm_on_values_of_all_sizes(seed: int, kind: str, num_records: int) -> None:
    rng = np.random.default_rng(seed)
    values = {
        "normal": lambda: rng.normal(size=num_records),
        "lognormal": lambda: np.exp(rng.normal(0, 1, num_records)),
        "cauchy": lambda: np.clip(rng.standard_cauchy(num_records), -6, 6),
        "counts": lambda: rng.poisson(2.0, num_records).astype(float),
    }[kind]()
    frame = pd.DataFrame({"x": values, "y": rng.normal(size=num_records)})
    half = num_records // 2
    wr.simulate({"A": frame[:half], "B": frame[half:]}).run(glm(formula="y ~ x"))


def test_one_value_far_from_all_others_is_told() -> None:
    # A slip of the keyboard makes a column that is, in effect, an indicator of one patient.
    frame = FRAME.assign(crp=FRAME["crp"].mask(FRAME.index == 9, 1e6))
    with pytest.raises(DisclosureError, match="nearly the same value in crp"):
        federation(frame).run(glm(formula="score ~ crp"))


def test_a_larger_floor_refuses_more() -> None:
    elderly = (FRAME["age"] > 84).sum()
    assert 5 <= elderly <= 40
    formula = "score ~ I(age > 84)"
    assert federation().run(glm(formula=formula)).terms
    with pytest.raises(DisclosureError, match=f"fewer than {elderly + 1} "):
        federation(disclosure=DisclosureRules(minimum_cell=int(elderly) + 1)).run(glm(formula=formula))


def test_missing_counts_of_a_regression_are_hidden() -> None:
    frame = FRAME.assign(crp=FRAME["crp"].mask(FRAME.index < 3), age=FRAME["age"].mask(FRAME.index % 10 == 9))
    result = federation(frame).run(glm(formula="score ~ crp + age"))
    assert result.num_missing == {"score": 0, "crp": None, "age": 24}
    assert result.num_left_out is None
    assert "hidden" in result.summary()
    free = federation(frame, "none").run(glm(formula="score ~ crp + age"))
    assert (free.num_missing["crp"], free.num_left_out) == (3, 27)


def test_a_regression_shows_no_small_count() -> None:
    from wardround.testing.small_counts import shown_small_counts

    frame = FRAME.assign(id=np.arange(NUM) % 4, crp=FRAME["crp"].mask(FRAME.index < 2))
    sites = {"A": frame[:100], "B": frame[100:]}
    clustered = glm(formula="score ~ crp", covariance="cluster")
    with pytest.raises(DisclosureError, match="fewer than 9 clusters by patient"):
        wr.simulate(sites, patient="id", disclosure=DisclosureRules(minimum_cell=9)).run(clustered)
    result = wr.simulate(sites, patient="id", disclosure=DisclosureRules(minimum_cell=8)).run(clustered)
    assert (result.num_clusters, result.num_missing["crp"]) == (8, None)
    assert shown_small_counts(result.to_dict(), 8) == []
    assert wr.simulate(sites, patient="id", disclosure="none").run(clustered).num_clusters == 8


def test_numbers_of_records_are_rounded_with_all_that_tells_them() -> None:
    exact = federation(FRAME[:238], "none").run(glm(formula="score ~ age"))
    rounded = federation(FRAME[:238], "nhs").run(glm(formula="score ~ age"))
    assert (exact.num_records, rounded.num_records, rounded.df_residual) == (238, 240, 238)
    assert rounded.bic != exact.bic
    assert rounded.terms == exact.terms
