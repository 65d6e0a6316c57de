"""Kaplan-Meier curves and log-rank tests: equal to R's, lifelines' and scikit-survival's fits of the pooled records."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter, NelsonAalenFitter
from lifelines.datasets import load_multicenter_aids_cohort_study, load_waltons
from lifelines.statistics import multivariate_logrank_test
from sksurv.nonparametric import kaplan_meier_estimator

from tests.analytics.pooled import split
from tests.analytics.survival_data import lung_by_institution, on_grid, pooled, reference, two_trials
from wardround.analytics.kaplan_meier import kaplan_meier
from wardround.analytics.kaplan_meier_estimate import Estimate, grid_error
from wardround.analytics.kaplan_meier_result import KaplanMeierResult, SurvivalCurve
from wardround.analytics.log_rank import LogRankSums, TestWeighting, time_weights
from wardround.analytics.result import Headlined, Result
from wardround.analytics.survival_counts import Division, departures
from wardround.analytics.survival_time import SurvivalOutcome
from wardround.data.contract import Contract, Variable
from wardround.engines.simulated_hospitals import simulate
from wardround.engines.simulation import Simulation
from wardround.errors import ConfigError, DataError, SiteError
from wardround.privacy.disclosure import DisclosureRules
from wardround.testing import check_workflow

REFERENCE = reference("kaplan_meier")
TOLERANCE = 1e-8
INTEGER = Variable(name="event", type="integer", range=(0, 1))


def federate(sites: dict[str, pd.DataFrame], **options: Any) -> Simulation:
    """Hospitals that show everything."""
    return simulate(sites, disclosure="none", **options)


def estimate(federation: Simulation, **options: Any) -> KaplanMeierResult:
    return federation.run(kaplan_meier(**{"time": "time", "event": "event", **options}))


@pytest.fixture(scope="module")
def lung() -> Simulation:
    return federate(lung_by_institution())


def fit_lung(lung: Simulation, **options: Any) -> KaplanMeierResult:
    return estimate(lung, event="status", event_level="2", **options)


def assert_close(got: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    """Equal, and missing in the same places; R's tables may hold a zero where nothing is defined."""
    got, expected = np.array(got, float), np.array(expected, float)
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=1e-12)


def assert_is_r(
    result: KaplanMeierResult, stored: dict[str, Any], *, has_counts: bool = True, has_limits: bool = True
) -> None:
    """Every number that R's `summary(survfit(...), censored = TRUE)` and `quantile` give."""
    frame = result.to_frame().reset_index()
    if result.by:
        assert frame.group.tolist() == [str(group) for group in stored["group"]]
    assert_close(frame.time, stored["time"])
    assert_close(frame.survival, stored["surv"])
    is_positive = frame.survival.to_numpy() > 0
    for name, theirs in (("standard_error", "std_err"), ("low", "lower"), ("high", "upper")):
        assert_close(frame[name][is_positive], np.array(stored[theirs], float)[is_positive])
    assert_close(frame.cumulative_hazard, stored["cumhaz"])
    assert_close(frame.cumulative_hazard_error, stored["std_chaz"])
    if has_counts:
        assert_close(frame.num_at_risk, stored["n_risk"])
        assert_close(frame.num_events, stored["n_event"])
        assert_close(frame.num_censored, stored["n_censor"])
    for index, curve in enumerate(result.curves):
        assert_close([q.time for q in curve.quantiles], stored["quantile"][index])
        if has_limits:
            assert_close([q.low for q in curve.quantiles], stored["quantile_lower"][index])
        assert_close([q.high for q in curve.quantiles], stored["quantile_upper"][index])


# Equal to R


@pytest.mark.parametrize("confidence_type", ["log-log", "log", "plain"])
def test_curves_equal_the_pooled(lung: Simulation, confidence_type: str) -> None:
    assert_is_r(fit_lung(lung, confidence_type=confidence_type), REFERENCE[f"lung_{confidence_type}"])


def test_groups_equal_r(lung: Simulation) -> None:
    assert_is_r(fit_lung(lung, by="sex"), REFERENCE["lung_sex"])
    assert_is_r(fit_lung(lung, by="sex", confidence_type="log", confidence=0.9), REFERENCE["lung_90"])


def test_weights_equal_r(lung: Simulation) -> None:
    result = fit_lung(lung, by="sex", weights="weight")
    assert_is_r(result, REFERENCE["lung_weights"], has_counts=False)
    assert "as if it stood for so many" in " ".join(result.notes)


def test_weights_that_are_not_whole_have_rs_robust_errors() -> None:
    sites = {name: frame.assign(share=frame.age / 60) for name, frame in lung_by_institution().items()}
    federation = federate(sites)
    result = fit_lung(federation, by="sex", weights="share", rmst_at=500.0)
    assert_is_r(result, REFERENCE["lung_robust"], has_counts=False)
    assert "standard errors are robust" in " ".join(result.notes)
    frame = pooled(sites)
    for curve, mean in zip(result.curves, REFERENCE["lung_robust_means"]["rmean"], strict=True):
        assert curve.restricted_mean is not None
        assert_close(curve.restricted_mean.estimate, mean)
        error = jackknife_error_of_mean(frame[frame.sex == int(curve.group)], 500)
        assert_close(curve.restricted_mean.standard_error, error, 1e-4)  # derivatives are differences there
    late = fit_lung(federation, weights="share", entry="start")
    assert "Standard errors take weights as numbers of records" in " ".join(late.notes)


def jackknife_error_of_mean(frame: pd.DataFrame, horizon: int) -> float:
    """From the change of the restricted mean with each record's weight (R's is not robust)."""
    time, event, weights = frame.time.to_numpy(int), frame.status.to_numpy() == 2, frame.share.to_numpy()

    def mean(weights: Any) -> float:
        size = horizon + time.max() + 1
        events = np.bincount(time, weights * event, minlength=size)
        at_risk = np.cumsum(np.bincount(time, weights, minlength=size)[::-1])[::-1]
        hazard = np.divide(events, at_risk, out=np.zeros(size), where=events > 0)
        return float(np.cumprod(1 - hazard)[:horizon].sum())

    change = np.eye(len(weights)) * 1e-5
    slopes = [(mean(weights + row) - mean(weights - row)) / 2e-5 for row in change]
    return float(np.sqrt(np.sum((weights * slopes) ** 2)))


def test_left_truncation_equals_r(lung: Simulation) -> None:
    result = fit_lung(lung, by="sex", entry="start")
    # While few have entered, lower limits dip and rise again; which of their crossings ends an interval is convention.
    assert_is_r(result, REFERENCE["lung_entry"], has_counts=False, has_limits=False)
    frame = result.to_frame()
    assert np.all(frame.num_at_risk >= REFERENCE["lung_entry"]["n_risk"])  # who entered at that very time is counted
    assert_close(frame.num_events, REFERENCE["lung_entry"]["n_event"])


def test_restricted_means_equal_r(lung: Simulation) -> None:
    result = fit_lung(lung, by="sex", rmst_at=500.0)
    means = [curve.restricted_mean for curve in result.curves]
    assert_close([mean.estimate for mean in means if mean], REFERENCE["lung_means"]["rmean"])
    assert_close([mean.standard_error for mean in means if mean], REFERENCE["lung_means"]["se"])
    (difference,) = result.mean_differences
    assert_close(difference.estimate, np.diff(REFERENCE["lung_means"]["rmean"])[0])
    assert_close(difference.standard_error, np.hypot(*REFERENCE["lung_means"]["se"]))
    assert difference.p_value == pytest.approx(math.erfc(abs(difference.estimate / difference.standard_error) / 2**0.5))


def assert_is_survdiff(result: KaplanMeierResult, stored: dict[str, Any]) -> None:
    test = result.test
    assert test is not None
    assert_close(test.statistic, stored["chisq"])
    assert_close([group.observed for group in test.groups], stored["observed"])
    assert_close([group.expected for group in test.groups], stored["expected"])


def test_log_rank_tests_equal_r(lung: Simulation) -> None:
    assert_is_survdiff(fit_lung(lung, by="sex"), REFERENCE["test_sex"])
    rho = fit_lung(lung, by="sex", test="fleming-harrington", rho=1.0)
    assert_is_survdiff(rho, REFERENCE["test_sex_rho"])
    ecog = fit_lung(lung, by="ph.ecog")
    assert ecog.test is not None
    assert ecog.test.df == REFERENCE["test_ecog"]["df"]
    assert_is_survdiff(ecog, REFERENCE["test_ecog"])
    assert_is_survdiff(fit_lung(lung, by="sex", strata=("ph.ecog",)), REFERENCE["test_sex_ecog"])


def test_sites_as_strata_equal_r(lung: Simulation) -> None:
    result = fit_lung(lung, by="sex", strata=("site",))
    assert_is_survdiff(result, REFERENCE["test_sex_inst"])
    assert result.test is not None
    assert result.test.strata == ("site",)
    # Only sums over sites left: the curves are those without strata.
    assert_close(result.to_frame().survival, fit_lung(lung, by="sex").to_frame().survival)


def test_sites_and_variables_may_be_strata_together(lung: Simulation) -> None:
    result = fit_lung(lung, by="sex", strata=("site", "ph.ecog"))
    sites = lung_by_institution()
    frame = pooled({name: part.assign(hospital=name) for name, part in sites.items()}).dropna(subset=["ph.ecog"])
    frame = frame.assign(stratum=pd.Categorical(frame.hospital + frame["ph.ecog"].astype(str)))
    other = estimate(federate({"all": frame}), event="status", event_level="2", by="sex", strata=("stratum",))
    assert result.test is not None
    assert other.test is not None
    assert_close(result.test.statistic, other.test.statistic)


def test_two_trials_equal_r() -> None:
    federation = federate(two_trials())
    stored = REFERENCE["two"]
    result = estimate(federation, by="hormone", times=(365.0, 730.0, 1825.0), rmst_at=1825.0)
    rows = [at for curve in result.curves for at in curve.at_times]
    assert_close([at.survival for at in rows], stored["surv"])
    assert_close([at.low for at in rows], stored["lower"])
    assert_close([at.high for at in rows], stored["upper"])
    assert_close([at.num_at_risk for at in rows], stored["n_risk_after"])
    means = [curve.restricted_mean for curve in result.curves]
    assert_close([mean.estimate for mean in means if mean], stored["means"]["rmean"])
    assert_close([mean.standard_error for mean in means if mean], stored["means"]["se"])
    assert_is_survdiff(result, REFERENCE["test_two"])
    assert_is_survdiff(estimate(federation, by="hormone", strata=("site",)), REFERENCE["test_two_strata"])


# Equal to lifelines and scikit-survival

RECORDS = st.integers(5, 60).flatmap(
    lambda n: st.fixed_dictionaries(
        {
            "time": st.lists(st.integers(0, 12), min_size=n, max_size=n),
            "event": st.lists(st.integers(0, 1), min_size=n, max_size=n),
            "arm": st.lists(st.sampled_from(["a", "b", "c"]), min_size=n, max_size=n),
            "weight": st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=n, max_size=n),
            "early": st.lists(st.integers(0, 6), min_size=n, max_size=n),
        }
    )
)
CONTRACT = Contract(
    variables=(
        Variable(name="time", type="integer"),
        INTEGER,
        Variable(name="arm", type="category", levels=("a", "b", "c")),
        Variable(name="weight", type="number"),
        Variable(name="start", type="integer"),
    )
)

SHORT = Contract(variables=CONTRACT.variables[:3])


def some_hospitals(records: dict[str, list[Any]], num_sites: int = 3) -> dict[str, pd.DataFrame]:
    frame = pd.DataFrame(records)
    frame["start"] = np.maximum(frame.time - 1 - frame.pop("early"), 0)
    return split(frame, num_sites, seed=len(frame))


@given(RECORDS)
@settings(max_examples=25)
def test_curves_equal_lifelines_and_scikit_survival(records: dict[str, list[Any]]) -> None:
    sites = some_hospitals(records)
    frame = pooled(sites)
    curve = estimate(federate(sites, contract=CONTRACT)).curve()
    fitted = KaplanMeierFitter().fit(frame.time, frame.event)
    assert_close(curve.survival, fitted.survival_function_at_times(curve.times))
    times, theirs = kaplan_meier_estimator(frame.event.to_numpy(bool), frame.time)
    assert_close(curve.times, times)
    assert_close(curve.survival, theirs)
    hazard = NelsonAalenFitter(nelson_aalen_smoothing=False).fit(frame.time, frame.event)
    assert_close(curve.cumulative_hazard, hazard.cumulative_hazard_at_times(curve.times))


@given(RECORDS)
@settings(max_examples=25)
def test_weights_and_late_entries_equal_lifelines(records: dict[str, list[Any]]) -> None:
    sites = some_hospitals({**records, "time": [time + 1 for time in records["time"]]})
    frame = pooled(sites)
    result = estimate(federate(sites, contract=CONTRACT), weights="weight", entry="start")
    # A record that enters at time 0 is at risk from the beginning, which lifelines writes as no entry at all.
    fitted = KaplanMeierFitter().fit(frame.time, frame.event, weights=frame.weight, entry=frame.start)
    assert_close(result.curve().survival, fitted.survival_function_at_times(result.curve().times))


LIFELINES = {
    "log-rank": {},
    "gehan": {"weightings": "wilcoxon"},
    "tarone-ware": {"weightings": "tarone-ware"},
    "peto": {"weightings": "peto"},
    "fleming-harrington": {"weightings": "fleming-harrington", "p": 1.0, "q": 0.5},
}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("test", LIFELINES)
def test_tests_equal_lifelines(test: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 60 + 40 * seed
    frame = pd.DataFrame({"time": rng.integers(1, 6 + 10 * seed, n), "event": rng.integers(0, 2, n)})
    sites = split(frame.assign(arm=rng.choice(["a", "b", "c"], n)), 3, seed)
    frame = pooled(sites)
    exponents = {"rho": 1.0, "gamma": 0.5} if test == "fleming-harrington" else {}
    found = estimate(federate(sites, contract=SHORT), by="arm", test=test, **exponents).test
    theirs = multivariate_logrank_test(frame.time, frame.arm, frame.event, **LIFELINES[test])
    assert found is not None
    assert_close([found.statistic, found.p_value], [theirs.test_statistic, theirs.p_value])


@given(RECORDS, st.integers(1, 6))
@settings(max_examples=20)
def test_the_split_does_not_matter(records: dict[str, list[Any]], num_sites: int) -> None:
    options = {"by": "arm", "weights": "weight"}
    one = estimate(federate(some_hospitals(records, 1), contract=CONTRACT), **options)
    many = estimate(federate(some_hospitals(records, num_sites), contract=CONTRACT), **options)
    pd.testing.assert_frame_equal(one.to_frame(), many.to_frame(), rtol=1e-13)


def test_lifelines_own_tables() -> None:
    waltons = load_waltons()
    result = estimate(federate(split(waltons, 4, 1)), time="T", event="E", by="group")
    theirs = multivariate_logrank_test(waltons["T"], waltons.group, waltons.E)
    assert result.test is not None
    assert_close([result.test.statistic, result.test.p_value], [theirs.test_statistic, theirs.p_value], 1e-7)
    for curve in result.curves:
        part = waltons[waltons.group == curve.group]
        fitted = KaplanMeierFitter().fit(part["T"], part.E)
        assert_close(curve.survival, fitted.survival_function_at_times(curve.times))
        assert curve.quantiles[1].time == fitted.median_survival_time_


def test_late_entries_of_the_multicenter_aids_cohort() -> None:
    cohort = load_multicenter_aids_cohort_study().rename(columns={"W": "start", "T": "time", "D": "event"})
    cohort = cohort[cohort.time > cohort.start]
    curve = estimate(federate(split(cohort, 3, 2)), entry="start", grid=1e-3).curve()
    fitted = KaplanMeierFitter().fit(cohort.time, cohort.event, entry=cohort.start)
    assert_close(curve.survival, fitted.survival_function_at_times(curve.times * (1 + 1e-9)))
    assert curve.grid_error == 0


def test_fed_tcga_brca(shared_data: Path) -> None:
    folder = shared_data / "tcga_brca"
    patients = pd.read_csv(folder / "brca.csv").merge(pd.read_csv(folder / "train_test_split.csv"), on="pid")
    regions = patients.fold2.astype(str).str[-1]
    sites = {f"region {region}": part[["T", "E"]] for region, part in patients.groupby(regions)}
    assert len(sites) == 6
    curve = estimate(federate(sites), time="T", event="E").curve()
    fitted = KaplanMeierFitter().fit(patients["T"], patients.E)
    assert_close(curve.survival, fitted.survival_function_at_times(curve.times))
    assert (curve.num_records, curve.num_events) == (1088, 151)


# The grid


def test_years_lie_on_a_grid_of_days(lung: Simulation) -> None:
    sites = {
        name: frame.assign(time=frame.time / 365.25)[["time", "status"]]
        for name, frame in lung_by_institution().items()
    }
    contract = Contract(
        variables=(Variable(name="time", type="number", unit="years"), Variable(name="status", type="integer"))
    )
    result = estimate(federate(sites, contract=contract), event="status", event_level="2")
    days = fit_lung(lung)
    assert result.curve().grid_error == 0
    assert_close(result.curve().times * 365.25, days.curve().times)
    assert_close(result.to_frame().survival, days.to_frame().survival, 0.0)
    with pytest.raises(ConfigError, match="give grid ="):
        estimate(federate(sites), event="status", event_level="2")


@given(RECORDS, st.sampled_from([1.0, 2.0, 3.5]), st.booleans(), st.integers(0, 10**6))
@settings(max_examples=30)
def test_grid_error_bounds_the_unrounded_estimate(
    records: dict[str, list[Any]], grid: float, has_entry: bool, seed: int
) -> None:
    sites = some_hospitals({**records, "time": [time + grid + 1 for time in records["time"]]})
    rng = np.random.default_rng(seed)
    for frame in sites.values():
        frame["time"] = frame.time + rng.uniform(0, 1, len(frame)).round(2)
        frame["start"] = np.maximum(frame.time - grid - rng.uniform(0.01, 3, len(frame)), 0)
    variables = tuple(
        v if v.name not in ("time", "start") else Variable(name=v.name, type="number") for v in CONTRACT.variables
    )
    options: dict[str, Any] = {"entry": "start"} if has_entry else {}
    federation = federate(sites, contract=Contract(variables=variables))
    coarse = estimate(federation, grid=grid, **options).curve()
    exact = estimate(federation, grid=1e-3, **options).curve()
    before = np.searchsorted(exact.times, coarse.times * (1 + 1e-12), side="right") - 1
    unrounded = np.where(before < 0, 1.0, exact.survival[before])
    assert np.all(np.abs(unrounded - coarse.survival) <= coarse.grid_error + 1e-12)
    if not has_entry:
        assert np.all(unrounded <= coarse.survival + 1e-12)


@pytest.mark.parametrize("has_entry", [False, True])
def test_the_error_of_a_grid_is_reached_in_small_groups(has_entry: bool) -> None:
    rng = np.random.default_rng(5)
    largest = 0.0
    for _ in range(1000):
        n, step = int(rng.integers(2, 20)), int(rng.choice([50, 100, 250]))
        cause, exits = rng.integers(0, 2, n), rng.integers(1, 500, n)
        entry = np.maximum(exits - rng.integers(1, 500, n), 0) if has_entry else np.zeros(n, int)
        is_kept = -(-entry // step) < -(-exits // step)  # others are refused
        if is_kept.any():
            tables = [on_grid(entry[is_kept], exits[is_kept], cause[is_kept], size) for size in (step, 1)]
            coarse, fine = (Estimate.of(left[1], at_risk, 1.0).survival for left, at_risk, _ in tables)
            left, at_risk, entered = tables[0]
            bound = grid_error(left[1], left[0], entered, at_risk)
            difference = np.abs(fine[np.minimum(np.arange(len(coarse)) * step, len(fine) - 1)] - coarse)
            assert np.all(difference <= bound + 1e-12)
            largest = max(largest, float(np.max(difference / np.maximum(bound, 1e-12))))
    assert largest > 0.99


def test_a_coarse_grid_states_its_error(lung: Simulation) -> None:
    coarse = fit_lung(lung, grid=30.0)
    assert 0 < coarse.curve().grid_error < 0.02
    assert f"differ by at most {coarse.curve().grid_error:.2g}" in " ".join(coarse.notes)
    assert fit_lung(lung, grid=1.0).curve().grid_error == 0


# What is shown


def shown_cells(
    curve: SurvivalCurve, num_records: int, minimum_cell: int
) -> list[tuple[float, int | None, int | None]]:
    """Events and censored so far at every time of which anything is told."""
    cells = [(0.0, 0, 0)]
    if curve.is_shown:
        events, censored = np.cumsum(curve.num_events_since), np.cumsum(curve.num_censored_since)
        cells += list(zip(curve.times.tolist(), events.tolist(), censored.tolist(), strict=True))
    cells += [(at.time, at.num_events, at.num_censored) for at in curve.at_times if at.num_events is not None]
    return sorted(cells)


def gone_so_far(curve: SurvivalCurve, num_records: int) -> list[int]:
    """How many left by every time at which that may be worked out, where all were there from the beginning."""
    gone = [0, num_records]
    gone += [num_records - at.num_at_risk for at in curve.at_times if at.num_at_risk is not None]
    if curve.is_shown:
        gone += [num_records - count for count in curve.num_at_risk if count is not None]
    return sorted(set(gone))


@given(RECORDS, st.integers(2, 8), st.booleans())
@settings(max_examples=30)
def test_shown_counts_are_not_small(records: dict[str, list[Any]], minimum_cell: int, has_entry: bool) -> None:
    sites = some_hospitals({**records, "time": [time + 1 for time in records["time"]]})
    frame = pooled(sites)
    federation = simulate(sites, contract=CONTRACT, disclosure=rules(minimum_cell))
    options: dict[str, Any] = {"entry": "start"} if has_entry else {}
    result = estimate(federation, by="arm", times=(0.0, 2.0, 3.0, 5.0, 7.0, 9.0), **options)
    for curve in result.curves:
        part = frame[frame.arm == curve.group]
        cells = shown_cells(curve, len(part), minimum_cell)
        for (_, *before), (_, *after) in pairwise(cells):
            for one, other in zip(before, after, strict=True):
                assert one is not None
                assert other is not None
                assert other - one == 0 or other - one >= minimum_cell
        counts = [curve.num_records, curve.num_events, curve.num_censored]
        assert all(count is None or count == 0 or count >= minimum_cell for count in counts)
        if not has_entry and curve.num_records is not None:
            assert min(np.diff(gone_so_far(curve, len(part))), default=minimum_cell) >= minimum_cell
        for at in curve.at_times:
            assert at.num_at_risk is None or at.num_at_risk == 0 or at.num_at_risk >= minimum_cell
            if at.num_events is not None:
                assert at.num_events == ((part.time <= at.time) & (part.event == 1)).sum()
        if curve.num_records is not None and curve.num_events is not None:
            assert curve.num_records - curve.num_events not in range(1, minimum_cell)
        if curve.num_records is None or curve.num_events is None:
            assert not curve.is_shown
            assert curve.quantiles == ()
            assert curve.restricted_mean is None
    hidden = [curve for curve in result.curves if curve.num_records is None]
    assert not hidden or result.num_records is None
    hidden = [curve for curve in result.curves if curve.num_events is None]
    assert not hidden or result.num_events is None


def rules(minimum_cell: int) -> DisclosureRules:
    return DisclosureRules.of("standard", minimum_cell=minimum_cell)


def test_counts_worked_out_of_an_exact_curve_are_not_small(lung: Simulation) -> None:
    """Whoever knows the size of a group may look for the counts that give exactly the survival shown."""
    result = simulate(lung_by_institution()).run(kaplan_meier(time="time", event="status", event_level="2", by="sex"))
    for curve in result.curves:
        assert curve.num_records is not None
        at_risk, before = curve.num_records, 1.0
        for survival, events, censored in zip(
            curve.survival, curve.num_events_since, curve.num_censored_since, strict=True
        ):
            assert events is not None
            assert censored is not None
            ratio = survival / before
            # With nobody censored in between, the counts follow; they are those that are shown.
            found = round(at_risk * (1 - ratio))
            if censored == 0:
                assert found == events
            assert events >= 5 or events == 0
            at_risk, before = at_risk - events - censored, survival


def test_shown_estimates_are_those_of_the_whole_curve(lung: Simulation) -> None:
    thinned = simulate(lung_by_institution()).run(
        kaplan_meier(time="time", event="status", event_level="2", by="sex", rmst_at=300.0)
    )
    whole = fit_lung(lung, by="sex", rmst_at=300.0)
    columns = ["survival", "standard_error", "low", "high", "cumulative_hazard"]
    frame = thinned.to_frame()[columns]
    assert 10 < len(frame) < 40
    pd.testing.assert_frame_equal(frame, whole.to_frame().loc[frame.index, columns])
    assert thinned.test == whole.test
    for one, other in zip(thinned.curves, whole.curves, strict=True):
        assert one.quantiles == other.quantiles
        assert one.restricted_mean == other.restricted_mean


def test_rounded_counts_are_rounded_everywhere() -> None:
    result = simulate(lung_by_institution(), disclosure=DisclosureRules.of("standard", rounding=5)).run(
        kaplan_meier(time="time", event="status", event_level="2", by="sex")
    )
    frame = result.to_frame()
    assert result.test is not None
    counts = [
        *frame.num_at_risk,
        *frame.num_events,
        *frame.num_censored,
        *(group.observed for group in result.test.groups),
    ]
    counts += [count for curve in result.curves for count in (curve.num_records, curve.num_events, curve.num_censored)]
    assert all(count % 5 == 0 for count in counts)


def test_more_numbers_under_observation_may_be_shown_than_estimates() -> None:
    result = simulate(lung_by_institution()).run(
        kaplan_meier(time="time", event="status", event_level="2", times=tuple(float(t) for t in range(0, 1000, 60)))
    )
    rows = result.curve().at_times
    lung = pooled(lung_by_institution())
    has_estimate, has_risk = ([getattr(at, name) is not None for at in rows] for name in ("survival", "num_at_risk"))
    assert sum(has_risk) > sum(has_estimate) > 3
    for at in rows:
        assert at.num_at_risk in (None, (lung.time > at.time).sum())


def test_quantiles_do_not_list_event_times() -> None:
    all_of_them = tuple(i / 50 for i in range(1, 50))
    federation = simulate(lung_by_institution())
    result = federation.run(kaplan_meier(time="time", event="status", event_level="2", by="sex", quantiles=all_of_them))
    lung = pooled(lung_by_institution())
    for curve in result.curves:
        part = lung[(lung.sex == int(curve.group)) & (lung.status == 2)]
        counts = sorted({(part.time <= q.time).sum() for q in curve.quantiles if q.time is not None})
        assert 5 < len(counts) < 20
        assert min(np.diff([0, *counts])) >= 5
        assert 0.5 in [q.probability for q in curve.quantiles]


def test_a_restricted_mean_does_not_tell_a_single_event_time() -> None:
    sites = hospitals([7, *range(50, 109)], [1, *[0, 1] * 29, 1])
    assert estimate(simulate(sites), rmst_at=20.0).curve().restricted_mean is None
    assert estimate(simulate(sites), rmst_at=6.0).curve().restricted_mean is not None
    assert estimate(federate(sites), rmst_at=20.0).curve().restricted_mean is not None


def test_one_sites_curves_need_the_rules_to_allow_them(lung: Simulation) -> None:
    with pytest.raises(ConfigError, match="allows_site_results"):
        simulate(lung_by_institution()).run(kaplan_meier(time="time", event="status", event_level="2", by="site"))
    result = fit_lung(lung, by="site")
    assert len(result.curves) == len(lung.data)
    site = "site 1"
    alone = estimate(federate({site: lung_by_institution()[site]}), event="status", event_level="2")
    assert_close(result.curve(site).survival, alone.curve().survival)


# Bad input


def hospitals(time: list[Any], event: list[Any], **columns: list[Any]) -> dict[str, pd.DataFrame]:
    frame = pd.DataFrame({"time": time, "event": event, **columns})
    return {"North": frame.iloc[::2].reset_index(drop=True), "South": frame.iloc[1::2].reset_index(drop=True)}


def test_all_censored_stays_at_one() -> None:
    result = estimate(simulate(hospitals(list(range(1, 31)), [0] * 30)))
    assert set(result.curve().survival) == {1.0}
    assert "Nobody had the event" in " ".join(result.notes)
    assert result.curve().quantiles[1].time is None
    result.plot()
    assert "NA" in result.summary()


def test_ties_everywhere() -> None:
    result = estimate(federate(hospitals([3] * 20, [1] * 15 + [0] * 5)))
    (row,) = result.to_frame().itertuples()
    assert (row.num_at_risk, row.num_events, row.num_censored, row.survival) == (20, 15, 5, 0.25)


def test_one_event() -> None:
    sites = hospitals(list(range(1, 31)), [0] * 12 + [1] + [0] * 17)
    assert estimate(federate(sites)).curve().survival[-1] == pytest.approx(1 - 1 / 18)
    hidden = estimate(simulate(sites))
    assert not hidden.curve().is_shown
    assert (hidden.num_events, hidden.curve().num_censored) == (None, None)
    assert "too few left" in " ".join(hidden.notes)
    assert hidden.exhibits()
    assert "hidden" in hidden.summary()


@pytest.mark.parametrize(
    ("events", "median"),
    [([2], 6.0), ([2, 8], 5.0), ([2, 10], 6.0), ([], None)],
)
def test_a_curve_that_stands_at_a_half_has_its_median_in_the_middle(events: list[int], median: float | None) -> None:
    # R: quantile(survfit(Surv(time, event) ~ 1), 0.5), whose flat piece ends with the last time.
    time = [2, 2, 8, 10]
    frame = pd.DataFrame({"time": time, "event": [0, 0, 0, 0]})
    if events:
        frame.loc[:1, "event"] = 1
    frame.loc[frame.time.isin(events[1:]), "event"] = 1
    (quantile,) = estimate(federate({"A": frame[::2], "B": frame[1::2]}), quantiles=(0.5,)).curves[0].quantiles
    assert quantile.time == median


def test_nobody_left_in_between_and_late_entries_after() -> None:
    frame = pd.DataFrame({"time": [2, 3, 6, 8], "start": [0, 0, 4, 4], "event": [1, 1, 1, 0]})
    result = estimate(federate({"A": frame[:2], "B": frame[2:]}), entry="start", rmst_at=7.0)
    (curve,) = result.curves
    assert curve.survival.tolist() == [0.5, 0, 0, 0]
    assert curve.restricted_mean is not None
    assert curve.restricted_mean.estimate == pytest.approx(2.5)  # as R's print(survfit(...), rmean = 7)
    assert curve.restricted_mean.standard_error == pytest.approx(math.sqrt(0.125))


def test_a_subgroup_of_two_is_hidden() -> None:
    sites = hospitals(list(range(1, 42)), [1, 0] * 20 + [1], arm=["a"] * 20 + ["b"] * 19 + ["c"] * 2)
    result = estimate(simulate(sites), by="arm", rmst_at=30.0)
    small = result.curve("c")
    assert (small.num_records, small.is_shown, small.restricted_mean) == (None, False, None)
    assert result.num_records is None
    assert result.test is not None
    assert [group.num_records for group in result.test.groups] == [20, 19, None]
    assert "41" not in result.summary()
    result.plot()


def test_strata_that_live_at_one_site(lung: Simulation) -> None:
    names = list(lung.data)
    sites = {
        name: frame.assign(ward=pd.Categorical([name] * len(frame), names))
        for name, frame in lung_by_institution().items()
    }
    one = estimate(federate(sites), event="status", event_level="2", by="sex", strata=("ward",))
    assert_is_survdiff(one, REFERENCE["test_sex_inst"])


@pytest.mark.parametrize(
    ("time", "event", "message"),
    [
        ([-1, *range(2, 21)], [1] * 20, "negative"),
        ([None] * 20, [1] * 20, "missing"),
        (list(range(20)), [None] * 20, "missing"),
        (list(range(20)), [3] * 20, "neither an event"),
    ],
)
def test_unusable_records_are_refused(time: list[Any], event: list[Any], message: str) -> None:
    contract = Contract(variables=(Variable(name="time", type="integer"), Variable(name="event", type="integer")))
    with pytest.raises(DataError, match=message):
        estimate(simulate(hospitals(time, event), contract=contract))


def test_missing_values_are_left_out() -> None:
    sites = hospitals([None, *range(2, 41)], [1, 0, 1, None] * 10, arm=["a", None, "b", "a", "b"] * 8)
    frame = pooled(sites).dropna()
    result = estimate(federate(sites), by="arm")
    assert result.num_records == len(frame)
    assert result.num_left_out == 40 - len(frame)


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"by": "tim"}, "did you mean 'time'"),
    ({"by": "time"}, "without levels"),
    ({"strata": ("arm",)}, "strata: there are no groups"),
    ({"by": "arm", "strata": ("arm",)}, "cannot be compared within"),
    ({"weights": "arm"}, "weights: 'arm' must be a number"),
    ({"times": (-1.0,)}, "times: give at most"),
    ({"times": tuple(map(float, range(200)))}, "times: give at most"),
    ({"quantiles": (0.0,)}, "quantiles: give at most"),
    ({"rmst_at": 0.0}, "rmst_at: must be a time"),
    ({"confidence": 0.2}, "confidence: must be in"),
    ({"rho": 1.0}, "are of the Fleming-Harrington test"),
    ({"test": "fleming-harrington", "rho": 11.0}, "rho, gamma: must be in"),
    ({"test": "wilcoxon"}, "test"),
    ({"confidence_type": "logit"}, "confidence_type"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_wrong_options_are_refused_before_anything_is_asked(options: dict[str, Any], message: str) -> None:
    federation = simulate(hospitals(list(range(0, 2000, 100)), [0, 1] * 10, arm=["a", "b"] * 10))
    with pytest.raises(ConfigError, match=message):
        next(kaplan_meier(**{"time": "time", "event": "event", **options}).steps(federation.setting))


def test_negative_weights_are_refused() -> None:
    sites = hospitals(list(range(1, 21)), [0, 1] * 10, weight=[-1.0] * 20)
    with pytest.raises(SiteError, match="negative in some rows"):
        estimate(simulate(sites), weights="weight")


def test_a_table_over_the_limit_is_refused() -> None:
    sites = hospitals(
        list(range(0, 100_000, 5000)), [0, 1] * 10, arm=list("abcdefghij") * 2, ward=list("abcdefghij") * 2
    )
    with pytest.raises(DataError, match=r"over the limit of .* coarser grid"):
        estimate(simulate(sites), by="arm", strata=("ward",))


def test_records_of_weight_zero_are_not_counted() -> None:
    sites = hospitals(list(range(1, 41)), [0, 1] * 20, weight=[0.0, 1.0, 1.0, 2.0] * 10)
    result = estimate(federate(sites), weights="weight")
    assert result.num_records == 30
    with pytest.raises(DataError, match="all records have weight 0"):
        estimate(federate(hospitals([1, 2], [1, 1], weight=[0.0, 0.0])), weights="weight")


def test_a_horizon_after_the_end_of_follow_up_has_no_mean(lung: Simulation) -> None:
    result = fit_lung(lung, by="sex", rmst_at=2000.0)
    assert [curve.restricted_mean for curve in result.curves] == [None, None]
    assert "No mean up to 2000, as follow-up ended before" in " ".join(result.notes)
    to_the_last = estimate(federate(hospitals([1, 2, 3, 4], [1, 1, 1, 1])), rmst_at=10.0).curve().restricted_mean
    assert to_the_last is not None
    assert to_the_last.estimate == pytest.approx(2.5)


def test_a_level_that_nobody_has_changes_nothing() -> None:
    sites = hospitals(list(range(1, 41)), [0, 1] * 20, arm=list("aabb") * 10)
    found = []
    for levels in (("a", "b"), ("z", "a", "y", "b")):
        arm = Variable(name="arm", type="category", levels=levels)
        contract = Contract(variables=(Variable(name="time", type="integer"), INTEGER, arm))
        found.append(estimate(federate(sites, contract=contract), by="arm"))
    tests = [result.test for result in found if result.test is not None]
    assert_close(tests[0].statistic, tests[1].statistic)
    assert [test.df for test in tests] == [1, 1]
    assert [group.group for group in tests[1].groups] == ["a", "b"]
    assert "Without any record: z, y." in found[1].notes


def test_a_site_that_was_not_asked_does_not_answer(lung: Simulation) -> None:
    outcome = SurvivalOutcome(time="time", event="status", events=("2",), step=1.0, num_steps=1100)
    division = Division(by="site", num_groups=1, sites=("elsewhere",), required=("time", "status"))
    with pytest.raises(DataError, match="not among those that were asked"):
        departures(lung.data["site 1"], outcome, division)
    with pytest.raises(ValueError, match="the sites are given"):
        Division(by="site", required=("time", "status"))
    with pytest.raises(ValueError, match="number of levels for each stratum"):
        Division(strata=("ward",), required=("time", "status"))


def test_groups_that_never_meet_have_no_statistic() -> None:
    alone = LogRankSums(observed=np.array([3.0, 0.0]), expected=np.array([3.0, 0.0]), variance=np.zeros((2, 2)))
    assert math.isnan(alone.test()[0])


def test_weighted_events_of_all_who_are_left_leave_nobody() -> None:
    # The same weights, summed in another order, and one is more than the other in the last digit.
    events, at_risk = np.array([0.1 + 0.2 + 0.3, 1.0]), np.array([0.3 + 0.2 + 0.1, 2.0])
    assert events[0] > at_risk[0]
    weights = time_weights(events, at_risk, TestWeighting("fleming-harrington", rho=0.5))
    assert weights.tolist() == [1.0, 0.0]


def test_groups_in_sets_that_never_meet_have_fewer_degrees_of_freedom() -> None:
    rng = np.random.default_rng(5)
    early = pd.DataFrame({"time": rng.integers(1, 9, 60), "start": 0, "group": rng.choice(["a", "b"], 60)})
    late = pd.DataFrame({"time": rng.integers(21, 29, 60), "start": 20, "group": rng.choice(["c", "d"], 60)})
    alone = pd.DataFrame({"time": rng.integers(41, 49, 20), "start": 40, "group": "e"})
    sets = [frame.assign(event=rng.integers(0, 2, len(frame))) for frame in (early, late, alone)]
    parts = [estimate(federate({"A": frame}), by="group", entry="start").test for frame in sets[:2]]
    for order in (list("abcde"), list("ecabd")):
        frame = pd.concat(sets, ignore_index=True)
        contract = Contract(
            variables=(
                Variable(name="time", type="integer"),
                Variable(name="start", type="integer"),
                Variable(name="event", type="integer"),
                Variable(name="group", type="category", levels=tuple(order)),
            )
        )
        federation = federate({"A": frame[::2], "B": frame[1::2]}, contract=contract)
        test = estimate(federation, by="group", entry="start").test
        assert test is not None
        assert test.df == 2
        assert_close(test.statistic, sum(part.statistic for part in parts if part))
    nobody = estimate(federate({"A": early.assign(event=0)}), by="group")
    assert "cannot be compared" in nobody.summary()
    assert "nan" not in nobody.summary()


# As a result


def test_is_a_workflow(lung: Simulation) -> None:
    options = {"time": "time", "event": "status", "event_level": "2", "by": "sex", "strata": ("site",)}
    check_workflow(kaplan_meier(**options), dict(lung.data), lung.setting)


def test_is_a_result(lung: Simulation) -> None:
    result = fit_lung(lung, by="sex", rmst_at=365.0)
    assert isinstance(result, Result)
    assert isinstance(result, Headlined)
    assert json.loads(result.to_json())["curves"][0]["group"] == "1"
    assert "Log-rank test: chi2(1) = 10.21, p = 0.0014" in result.summary()
    assert "Kaplan and Meier 1958" in result.methods()
    assert any(reference.startswith("Irwin") for reference in result.references)
    figure, groups, risk = result.exhibits()
    assert figure.kind == groups.kind == risk.kind == "survival"
    medians = "Median survival (95% CI): sex 1: 269 (210 to 306); sex 2: 426 (345 to 524)."
    assert medians in figure.description  # type: ignore[union-attr]
    assert "Log-rank test: chi-squared 10.21, df 1, p = 0.001." in groups.note
    assert groups.frame.loc["sex 1", "Median (95% CI)"] == "269 (210 to 306)"  # type: ignore[union-attr]


def test_the_figure_holds_no_mark_of_a_single_patient(lung: Simulation) -> None:
    everything = fit_lung(lung, by="sex").plot().axes[0]
    thinned = simulate(lung_by_institution()).run(kaplan_meier(time="time", event="status", event_level="2", by="sex"))
    shown = thinned.plot().axes[0]
    assert [line.get_marker() for line in everything.lines].count("|") == 2
    assert [line.get_marker() for line in shown.lines].count("|") == 0
    points = {x for line in shown.lines for x in line.get_xdata()}
    assert points == {0.0, *thinned.to_frame().reset_index().time}


def test_a_curve_is_found_by_its_group(lung: Simulation) -> None:
    result = fit_lung(lung, by="sex")
    assert result.curve("2").group == "2"
    with pytest.raises(ValueError, match="group must be one of"):
        result.curve("3")
    with pytest.raises(ValueError, match="group must be one of"):
        result.curve()
