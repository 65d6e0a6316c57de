"""Attacks of somebody who sees one result on what it hides."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

import wardround as wr
from wardround.errors import DataError, DisclosureError, ModelError, RankDeficiencyError


def wards(num_sites: int = 3) -> dict[str, pd.DataFrame]:
    """Hospitals of 80; three records of the first lack `pressure`, seven others of it `weight`."""
    frames = {}
    for site in range(num_sites):
        rng = np.random.default_rng(site)
        frame = pd.DataFrame({"age": rng.normal(60, 9, 80).round(), "pressure": rng.normal(130, 20, 80).round()})
        frame["weight"] = rng.normal(80, 9, 80).round()
        frame["stay"] = 9 + 0.1 * frame.age + rng.normal(size=80)
        frame["time"] = rng.exponential(300, 80).round() + 1
        frame["cause"] = rng.choice(["none", "heart", "other"], 80)
        frame["died"] = (frame.cause == "heart").astype(int)
        frame["sex"] = ["f", "m"] * 40
        frames[f"H{site}"] = frame
    frames["H0"].loc[:2, "pressure"] = np.nan
    frames["H0"].loc[3:9, "weight"] = np.nan
    return frames


OF_TWO_VARIABLES = {
    "glm": lambda f: wr.glm(f, "stay ~ pressure + weight"),
    "cox": lambda f: wr.cox(f, "pressure + weight", time="time", event="died"),
    "mixed": lambda f: wr.mixed(f, "stay ~ pressure + weight"),
    "imputed": lambda f: wr.imputed(f, "stay ~ pressure + weight", num_imputations=2, num_iterations=1),
    "survival": lambda f: wr.kaplan_meier(f, time="pressure", event="died", weights="weight"),
    "incidence": lambda f: wr.cumulative_incidence(
        f, time="pressure", event="cause", censored="none", weights="weight"
    ),
}


@pytest.mark.parametrize("analysis", OF_TWO_VARIABLES.values(), ids=OF_TWO_VARIABLES)
def test_records_left_out_do_not_give_back_how_many_lack_a_variable(analysis: Any) -> None:
    shown = analysis(wr.simulate(wards())).to_dict()
    missing = shown.get("num_missing") or {v["variable"]: v["num_missing"] for v in shown["variables"]}
    if isinstance(missing, list):
        missing = {entry["variable"]: entry["num_missing"] for entry in missing}
    assert missing["pressure"] is None
    assert missing["weight"] in (7, None)
    # 10 are left out, 7 of them without a weight: the attacker's difference is the hidden 3.
    assert shown.get("num_left_out") is None


def test_few_clusters_are_refused() -> None:
    frames = wards(2)
    for frame in frames.values():
        frame["flag"] = "no"
    frames["H0"].loc[20, "flag"] = "yes"
    one = {"H0": frames["H0"]}
    free = wr.glm(wr.simulate(one, disclosure="none"), "stay ~ age", covariance="cluster", cluster="flag")
    # The attack: the bread taken off, the covariance is one record's score times itself, (1, age) times a residual.
    variance = wr.glm(wr.simulate(one, disclosure="none"), "stay ~ age").covariance_matrix
    halves = np.linalg.solve(variance, np.linalg.solve(variance, free.covariance_matrix).T)
    assert halves[0, 1] / halves[0, 0] == pytest.approx(frames["H0"].age[20], rel=1e-6)
    for analysis in (
        lambda f: wr.glm(f, "stay ~ age", covariance="cluster", cluster="flag"),
        lambda f: wr.imputed(f, "stay ~ weight", covariance="cluster", cluster="flag", num_imputations=2),
        lambda f: wr.cox(f, "age", time="time", event="died", covariance="cluster", cluster="flag"),
    ):
        for sites in (one, frames):
            with pytest.raises(DisclosureError, match="fewer than 5 clusters by flag"):
                analysis(wr.simulate(sites))


def test_two_sites_are_no_clusters_where_site_results_are_not_allowed() -> None:
    def by_site(num_sites: int, **rules: Any) -> Any:
        federation = wr.simulate(wards(num_sites), disclosure=wr.DisclosureRules.of(**rules))
        return wr.glm(federation, "stay ~ age", covariance="cluster", cluster="site")

    with pytest.raises(DisclosureError, match="allows_site_results"):
        by_site(2)
    assert by_site(2, allows_site_results=True).num_clusters == 2
    assert by_site(3).num_clusters == 3


def test_records_are_not_counted_by_other_variables() -> None:
    federation = wr.simulate(wards())
    both = wr.compare_means(federation, ("age", "pressure", "weight"), by="sex")
    # The attack: a variable's values and missing ones are all records; less another's values they are who lacks that.
    assert [c.num_missing for c in both.comparisons] == [None, None, None]
    assert "(hidden missing)" in both.summary()
    shown = wr.compare_means(federation, ("age", "weight"), by="sex")
    assert [c.num_missing for c in shown.comparisons] == [0, 7]
    free = wr.compare_means(wr.simulate(wards(), disclosure="none"), ("age", "pressure"), by="sex")
    assert [c.num_missing for c in free.comparisons] == [0, 3]


def test_missing_values_do_not_give_back_a_group_that_is_left_out() -> None:
    frames = wards()
    frames["H0"]["ward"] = ["a"] * 6 + ["b"] * 74
    frames["H1"]["ward"] = frames["H2"]["ward"] = "b"
    frames["H0"]["stay"] = frames["H0"].stay.where((frames["H0"].index > 2) & (frames["H0"].index < 70))
    result = wr.compare_means(wr.simulate(frames), ("age", "stay"), by="ward")
    stay = result.comparison("stay")
    assert [group.num_values for group in result.comparison("age").groups] == [6, 234]
    # Three of ward a have a stay: all records less those of b and those without one, where that number is shown.
    assert not any(group.group == "a" for group in stay.groups)
    assert all(comparison.num_missing is None for comparison in result.comparisons)


@pytest.mark.parametrize(("num_bad", "told"), [(3, "1 to 4 of 240 records"), (7, "7 of 240"), (238, "nearly all")])
def test_messages_show_no_small_count_of_times(num_bad: int, told: str) -> None:
    frames = wards()
    pooled = pd.concat(frames.values(), ignore_index=True)
    pooled.loc[: num_bad - 1, "time"] = -1.0
    halves = {"A": pooled[:120], "B": pooled[120:]}
    with pytest.raises(DataError, match=told):
        wr.kaplan_meier(wr.simulate(halves), time="time", event="died")
    with pytest.raises(DataError, match="some records"):
        wr.kaplan_meier(wr.simulate({"A": pooled[:1], "B": pooled[2:4]}), time="time", event="died")


def test_messages_of_models_do_not_count_records() -> None:
    frames = {name: frame[:4].drop(columns=["sex", "cause"]) for name, frame in wards(2).items()}
    many = "age + I(age ** 2) + time + I(time ** 2) + weight + I(weight ** 2)"
    for formula in (f"stay ~ {many} + I(age * time)", f"stay ~ {many} + I(2 * age)"):
        with pytest.raises((ModelError, RankDeficiencyError)) as caught:
            wr.glm(wr.simulate(frames, disclosure="none"), formula)
        assert "8" not in str(caught.value)
