"""Differences between sites: scipy's and statsmodels' tests and distances, both modes alike, small counts hidden."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy import stats
from scipy.spatial.distance import jensenshannon
from statsmodels.stats.multitest import multipletests

from tests.analytics.pooled import relative, split
from tests.analytics.test_imputed import heart
from wardround.analytics.heterogeneity import heterogeneity
from wardround.analytics.heterogeneity_result import HeterogeneityResult, Shift
from wardround.analytics.heterogeneity_statistics import corrected, intraclass
from wardround.analytics.heterogeneity_sums import Item, count_item
from wardround.analytics.result import FigureExhibit, Result
from wardround.engines.script import Event
from wardround.engines.simulated_hospitals import simulate
from wardround.engines.simulation import Simulation
from wardround.errors import ConfigError, DataError, DisclosureError
from wardround.privacy.disclosure import DisclosureRules
from wardround.testing.workflow_contract import check_workflow


def make_patients(seed: int = 1, n: int = 900) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.normal(60, 12, n).round(1),
            "stay": rng.poisson(4, n),
            "sex": rng.choice(["F", "M"], n),
            "ward": rng.choice(["acute", "day", "rehab"], n),
            "bmi": rng.gamma(30, 0.9, n),
        }
    )
    frame["died"] = (rng.random(n) < 1 / (1 + np.exp(5 - 0.06 * frame.age))).astype(int)
    frame.loc[rng.random(n) < 0.1, "bmi"] = np.nan
    return frame


def shifted(sites: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The sites, each a little older than the one before, the last without many of its body masses."""
    moved = {name: frame.assign(age=frame.age + 3 * i) for i, (name, frame) in enumerate(sites.items())}
    *_, last = moved
    moved[last] = moved[last].assign(bmi=moved[last].bmi.where(moved[last].age < 70))
    return moved


SITES = shifted(split(make_patients(), 4, seed=2))
POOLED = pd.concat([frame.assign(site=name) for name, frame in SITES.items()], ignore_index=True)


def federation(sites: dict[str, pd.DataFrame] | None = None, **rules: Any) -> Simulation:
    return simulate(sites or SITES, disclosure=DisclosureRules.of("standard", **rules))


def run(sites: dict[str, pd.DataFrame] | None = None, *, named: bool = True, **options: Any) -> HeterogeneityResult:
    return federation(sites, allows_site_results=named).run(heterogeneity(**options))


BY_SITE = run(outcome="died")
FROM_SUMS = run(outcome="died", named=False)


def bins_of(variable: str) -> pd.Series:
    """The bins the workflow cut, found again from the record of a run."""
    record = federation().record(heterogeneity(variables=(variable,))).record
    asked = next(r.ask for r in record.rounds if r.ask.function.name == "heterogeneity.histograms")
    (item,) = [item for item in asked.arguments["items"] if item.kind == "number"]
    places = np.searchsorted(item.edges, POOLED[variable], side="left").astype(float)
    return pd.Series(np.where(POOLED[variable].isna(), np.nan, places))


def test_keeps_the_workflow_contract() -> None:
    for named in (True, False):
        simulation = federation(allows_site_results=named)
        workflow = heterogeneity("died", adjusted_for=("age", "sex"))
        result = check_workflow(workflow, simulation.data, simulation.setting, max_crashes=3)
        assert isinstance(result, Result)


def test_both_modes_agree() -> None:
    for one in BY_SITE.shifts:
        other = FROM_SUMS.shift(one.variable, one.kind)
        assert other.sites is None
        for name in ("statistic", "p_value", "p_adjusted", "intraclass_correlation", "difference", "jensen_shannon",
                     "total_variation", "wasserstein", "rank_p_value", "df", "df_residual", "num_sites"):  # fmt: skip
            mine, others = getattr(one, name), getattr(other, name)
            expected = None if others is None else pytest.approx(others, rel=1e-8, abs=1e-12)
            assert mine == expected, (one.variable, one.kind, name)


def test_no_ask_from_sums_is_of_one_site() -> None:
    record = federation(allows_site_results=False).record(heterogeneity("died", adjusted_for=("age",))).record
    assert not any(round_.ask.function.is_per_site(round_.ask.arguments) for round_ in record.rounds)


@pytest.mark.parametrize("variable", ["age", "stay", "bmi"])
def test_numbers_are_tested_as_scipy_does(variable: str) -> None:
    shift = FROM_SUMS.shift(variable)
    groups = [frame[variable].dropna() for frame in SITES.values()]
    expected = stats.f_oneway(*groups)
    assert relative(shift.statistic, expected.statistic) < 1e-8
    assert relative(shift.p_value, expected.pvalue) < 1e-6
    bins = bins_of(variable)
    ranked = stats.kruskal(*[bins[POOLED.site == site].dropna() for site in SITES])
    assert shift.rank_p_value == pytest.approx(ranked.pvalue, rel=1e-8)


@pytest.mark.parametrize("variable", ["sex", "ward", "died"])
def test_categories_are_tested_as_scipy_does(variable: str) -> None:
    shift = FROM_SUMS.shift(variable, "label" if variable == "died" else "covariate")
    table = pd.crosstab(POOLED[variable], POOLED.site)
    expected = stats.chi2_contingency(table, correction=False)
    assert relative(shift.statistic, expected.statistic) < 1e-8
    assert relative(shift.p_value, expected.pvalue) < 1e-8
    assert shift.df == expected.dof


def test_missing_values_are_tested_as_scipy_does() -> None:
    shift = FROM_SUMS.shift("bmi", "missing")
    expected = stats.chi2_contingency(pd.crosstab(POOLED.bmi.isna(), POOLED.site), correction=False)
    assert relative(shift.statistic, expected.statistic) < 1e-8
    known = [(one.site, one.value) for one in BY_SITE.shift("bmi", "missing").sites or () if one.value is not None]
    for site, value in known:
        assert value == pytest.approx(SITES[site].bmi.isna().mean(), abs=5e-4)
    assert len(known) >= 2
    with pytest.raises(ValueError, match="no missing shift of 'age'"):
        FROM_SUMS.shift("age", "missing")  # nobody lacks it


def test_distances_are_scipys() -> None:
    bins, pooled = bins_of("age"), POOLED.age
    share = np.bincount(bins.astype(int)) / len(bins)
    places = ((pooled - pooled.mean()) / pooled.std(ddof=0)).groupby(bins).mean().to_numpy()
    for one in BY_SITE.shift("age").sites or ():
        of_site = np.bincount(bins[POOLED.site == one.site].astype(int), minlength=len(share))
        of_site = of_site / of_site.sum()
        assert one.jensen_shannon == pytest.approx(jensenshannon(of_site, share, base=2), abs=5e-4)
        assert one.total_variation == pytest.approx(np.abs(of_site - share).sum() / 2, abs=5e-4)
        assert one.wasserstein == pytest.approx(stats.wasserstein_distance(places, places, of_site, share), abs=5e-4)
        mean = SITES[one.site].age.mean()
        assert one.value == pytest.approx(mean, rel=1e-10)
        assert one.difference == pytest.approx((mean - pooled.mean()) / pooled.std(ddof=0), abs=5e-4)
    # The mean distance over records is not rounded.
    sites = BY_SITE.shift("age").sites or ()
    sizes = np.array([len(SITES[one.site]) for one in sites])
    rounded = np.array([one.wasserstein for one in sites], float)
    assert BY_SITE.shift("age").wasserstein == pytest.approx(sizes @ rounded / sizes.sum(), abs=5e-4)


def test_intraclass_correlation_is_the_anova_estimator() -> None:
    groups = [frame.age.to_numpy() for frame in SITES.values()]
    sizes = np.array([len(group) for group in groups])
    num, k = sizes.sum(), len(sizes)
    within = sum(((group - group.mean()) ** 2).sum() for group in groups) / (num - k)
    between = sum(n * (group.mean() - POOLED.age.mean()) ** 2 for n, group in zip(sizes, groups, strict=True)) / (k - 1)
    size = (num - (sizes**2).sum() / num) / (k - 1)
    assert FROM_SUMS.shift("age").intraclass_correlation == pytest.approx(
        (between - within) / (between + (size - 1) * within)
    )
    # A binary variable: the same of its 0 and 1, by a model with random intercepts in balanced groups.
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(40), 25)
    y = (rng.random(1000) < np.repeat(rng.beta(2, 2, 40), 25)).astype(float)
    model = sm.MixedLM(y, np.ones(1000), groups=group).fit(reml=True)
    expected = float(model.cov_re[0, 0] / (model.cov_re[0, 0] + model.scale))
    means = y.reshape(40, 25).mean(axis=1)
    got = intraclass(25 * ((means - y.mean()) ** 2).sum(), 25 * (means * (1 - means)).sum(), 1000, 40, 40 * 625.0)
    assert got == pytest.approx(expected, rel=1e-4)


def test_p_values_are_corrected_as_statsmodels_does() -> None:
    p_values = np.array([0.01, 0.5, np.nan, 0.03, 0.04, 0.9, 0.0001])
    known = ~np.isnan(p_values)
    for mine, theirs in (("holm", "holm"), ("bh", "fdr_bh")):
        expected = multipletests(p_values[known], method=theirs)[1]
        np.testing.assert_allclose(corrected(p_values, mine)[known], expected)  # type: ignore[arg-type]
        assert np.isnan(corrected(p_values, mine)[2])  # type: ignore[arg-type]


@pytest.mark.parametrize(("outcome", "family"), [("died", "binomial"), ("bmi", "gaussian")])
def test_outcome_given_covariates_is_tested_as_statsmodels_does(outcome: str, family: str) -> None:
    for named in (True, False):
        found = run(outcome=outcome, adjusted_for=("age", "ward"), named=named).conditional
        kind = {"binomial": sm.families.Binomial(), "gaussian": sm.families.Gaussian()}[family]
        complete = POOLED.dropna(subset=[outcome])
        fit = smf.glm(f"{outcome} ~ age + ward", complete, family=kind).fit(tol=1e-13, tol_criterion="params")
        sites = pd.get_dummies(complete.site, drop_first=True).to_numpy(float)
        expected = fit.score_test(sites)
        assert found is not None
        assert found.df == 3
        assert relative(found.statistic, expected[0]) < 1e-7
        assert relative(found.p_value, expected[1]) < 1e-6


def test_heart_disease_hospitals_differ_as_is_known(shared_data: Path) -> None:
    """Switzerland: nearly all have the disease, and nobody's cholesterol was measured."""
    result = run(heart(shared_data), outcome="disease", categorical=("cp",))
    told = " ".join(result.headlines())
    assert "The share with disease = 1 ranges from 36% (Hungary) to 93% (Zurich)" in told.replace("94%", "93%")
    assert "chol is missing in a share of records that ranges from 0% (Cleveland) to 100% (Zurich)" in told
    chol = result.shift("chol", "missing")
    assert result.shifts.index(chol) <= 3
    assert chol.p_adjusted < 1e-100
    assert result.shift("trestbps").p_adjusted > 0.05
    disease = {one.site: one.value for one in result.shift("disease", "label").sites or ()}
    assert disease["Zurich"] == pytest.approx(115 / 123, abs=5e-4)


def test_186_hospitals(shared_data: Path) -> None:
    folder = shared_data / "eicu_demo"
    patient = pd.read_parquet(folder / "patient.parquet")
    patient["age"] = pd.to_numeric(patient.age.astype(str).str.replace("> 89", "90"), errors="coerce")
    patient["died"] = patient.hospitaldischargestatus.astype(str).eq("Expired").astype(int)
    columns = ["age", "gender", "admissionweight", "died"]
    sites = {f"hospital {i}": frame[columns] for i, frame in patient.groupby("hospitalid")}
    assert len(sites) > 150
    for named in (True, False):
        result = run(sites, outcome="died", named=named)
        expected = stats.f_oneway(*[g for g in (f.age.dropna() for f in sites.values()) if len(g)])
        assert relative(result.shift("age").statistic, expected.statistic) < 1e-8
        assert result.notes[0].endswith("so that the chi-square test is rough")
        result.plot().canvas.draw()
        assert len(result.to_json()) > 1000
        if named:
            shown = result.site_sizes or ()
            assert all(size is None or size >= 5 for size in shown)
            assert sum(size is None for size in shown) >= sum(len(frame) < 5 for frame in sites.values())


def test_small_counts_of_a_site_are_hidden() -> None:
    small = {**SITES, "tiny": make_patients(9, 4), "lone": make_patients(8, 400).assign(died=[1] * 3 + [0] * 397)}
    result = run(small, outcome="died")
    at = {one.site: one for one in result.shift("died", "label").sites or ()}
    assert at["tiny"].num_values is None
    assert at["tiny"].value is None
    assert at["lone"].value is None  # 3 of 400
    assert at["lone"].jensen_shannon is None
    hidden = [one.site for one in at.values() if one.value is None]
    assert len(hidden) >= 2  # or the others and the total would give it back
    sizes = dict(zip(result.sites, result.site_sizes or (), strict=True))
    assert sizes["tiny"] is None
    assert sum(size is None for size in sizes.values()) >= 2
    ages = {one.site: one.value for one in result.shift("age").sites or ()}
    assert ages["tiny"] is None
    assert ages["lone"] is not None


def test_few_sites_apart_are_not_counted_without_their_figures() -> None:
    rest = split(make_patients(3), 6, seed=1)
    least = min(rest, key=lambda site: len(rest[site]))
    sites = {**rest, least: rest[least].assign(age=rest[least].age + 12)}
    assert run(sites).shift("age").sites_apart == 1
    assert run(sites, named=False).shift("age").sites_apart is None
    assert run(sites, named=False).shift("stay").sites_apart == 0


def test_equal_sites_are_rarely_called_different() -> None:
    """Of 40 draws of 4 variables without any difference, corrected p-values are below 5% in at most 9 (chance 2e-4)."""
    false_alarms = sum(
        min(shift.p_adjusted for shift in run(split(make_patients(seed, 300), 4, seed), named=False).shifts) < 0.05
        for seed in range(40)
    )
    assert false_alarms <= 9


def test_bins_are_closed_above() -> None:
    table = simulate({"a": pd.DataFrame({"x": [1.0, 2.0, 2.0, 3.0, np.nan]})}).data["a"]
    item = Item(variable="x", kind="number", edges=(2.0, 2.5))
    assert count_item(table, item).tolist() == [3, 0, 1]
    assert count_item(table, Item(variable="x", kind="missing")).tolist() == [4, 1]
    with pytest.raises(ValueError, match="edges must increase"):
        Item(variable="x", kind="number", edges=(2.0, 2.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outcome": "dead"}, "did you mean 'died'"),
        ({"num_bins": 1}, "num_bins: must be in"),
        ({"categorical": ("age",)}, "'age' is a number without levels"),
        ({"categorical": ("x",)}, "not among the variables compared"),
        ({"adjusted_for": ("age",)}, "name the outcome"),
        ({"outcome": "ward", "adjusted_for": ("age",)}, "has 3 levels, not two"),
        ({"outcome": "died", "adjusted_for": ("died",)}, "the outcome itself"),
        ({"by_site": True}, "allows_site_results = false forbids"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_asked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        next(heterogeneity(**options).steps(federation(allows_site_results=False).setting))


def test_numbers_that_few_have_are_not_compared() -> None:
    rare = {name: frame.assign(rare=np.nan) for name, frame in SITES.items()}
    first = next(iter(rare))
    rare[first].loc[:2, "rare"] = [1.0, 2.0, 3.0]
    record = federation(rare).record(heterogeneity(variables=("age", "rare")))
    assert [(s.variable, s.kind) for s in record.result.shifts] == [("age", "covariate"), ("rare", "missing")]
    asked = [r.ask.arguments["variables"] for r in record.record.rounds if r.ask.function.name == "moments.sums"]
    assert asked == [("age",)]


def test_two_sites_are_compared_only_where_their_own_figures_are_allowed() -> None:
    two = dict(list(SITES.items())[:2])
    assert run(two).shift("age").num_sites == 2
    with pytest.raises(ConfigError, match="with fewer than 3 sites"):
        run(two, named=False)
    leaves = [Event(site=site, behaviour="drops_before", round=1) for site in list(SITES)[2:]]
    left = simulate(SITES, minimum_sites=2, script=leaves, disclosure="standard")
    with pytest.raises(DisclosureError, match="only 2 sites are left"):
        left.run(heterogeneity())
    alone = {**two, list(two)[1]: two[list(two)[1]].iloc[:0]}
    contract = federation().setting.contract
    allowing = DisclosureRules.of("standard", allows_site_results=True)
    with pytest.raises(DataError, match="fewer than two sites have values"):
        simulate(alone, contract=contract, disclosure=allowing).run(heterogeneity())


def test_nothing_to_compare_is_said() -> None:
    same = {name: pd.DataFrame({"x": [1.0] * 20}) for name in ("a", "b")}
    with pytest.raises(DataError, match="the same in all records"):
        run(same)


def test_what_is_shown() -> None:
    for result in (BY_SITE, FROM_SUMS, run(outcome="died", adjusted_for=("age",), correction="bh", by_site=False)):
        for exhibit in result.exhibits():
            assert exhibit.kind == "heterogeneity"
            if isinstance(exhibit, FigureExhibit):
                exhibit.draw().canvas.draw()
                assert exhibit.description
        assert len(result.references) >= 4
        assert "Differences between 4 sites" in result.summary()
    assert any("only sums over sites were asked" in note for note in FROM_SUMS.notes)
    assert "The mean of age ranges from" in " ".join(BY_SITE.headlines())
    assert BY_SITE.site_frame("value").shape == (len(BY_SITE.shifts), 4)
    with pytest.raises(ValueError, match="not asked"):
        FROM_SUMS.site_frame()
    with pytest.raises(ValueError, match="figure must be one of"):
        BY_SITE.site_frame("name")
    first: Shift = BY_SITE.shifts[0]
    assert first.variable in ("age", "bmi")
