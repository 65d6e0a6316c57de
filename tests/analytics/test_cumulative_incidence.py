"""Cumulative incidences and Gray's tests: equal to R's survival and cmprsk on the pooled records."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analytics.pooled import split
from tests.analytics.survival_data import mgus2, on_grid, pooled, reference
from wardround.analytics.cumulative_incidence import cumulative_incidence
from wardround.analytics.cumulative_incidence_estimate import incidences
from wardround.analytics.cumulative_incidence_result import CumulativeIncidenceResult
from wardround.analytics.result import Headlined, Result
from wardround.data.contract import Contract, Variable
from wardround.engines.simulated_hospitals import simulate
from wardround.engines.simulation import Simulation
from wardround.errors import ConfigError, DataError
from wardround.privacy.disclosure import DisclosureRules
from wardround.testing import check_workflow

REFERENCE = reference("kaplan_meier")
CAUSES = ("malignancy", "death")
CONTRACT = Contract(
    variables=(
        Variable(name="etime", type="integer", unit="months"),
        Variable(name="state", type="category", levels=("censored", *CAUSES)),
        Variable(name="cause", type="integer"),
        Variable(name="sex", type="category", levels=("F", "M")),
        Variable(name="third", type="category", levels=("a", "b", "c", "d")),
    )
)


def estimate(federation: Simulation, **options: Any) -> CumulativeIncidenceResult:
    return federation.run(cumulative_incidence(**{"time": "etime", "event": "state", **options}))


@pytest.fixture(scope="module")
def sites() -> dict[str, pd.DataFrame]:
    return mgus2()


@pytest.fixture(scope="module")
def federation(sites: dict[str, pd.DataFrame]) -> Simulation:
    return simulate(sites, contract=CONTRACT, disclosure="none")


def assert_close(got: Any, expected: Any, tolerance: float = 1e-8) -> None:
    np.testing.assert_allclose(np.array(got, float), np.array(expected, float), rtol=tolerance, atol=1e-12)


def assert_is_r(result: CumulativeIncidenceResult, stored: dict[str, Any]) -> None:
    """Every number of R's multi-state `survfit`, where it has an interval."""
    groups = np.array([str(group) for group in stored["group"]])
    for curve in result.curves:
        rows, column = groups == curve.group, result.causes.index(curve.cause)
        parts = {name: np.array(stored[name], float)[rows, column] for name in ("pstate", "std_err", "lower", "upper")}
        assert_close(curve.times, np.array(stored["time"], float)[rows])
        assert_close(curve.incidence, parts["pstate"])
        assert_close(curve.standard_error, parts["std_err"])
        has_interval = parts["std_err"] > 0
        assert_close(curve.low[has_interval], parts["lower"][has_interval])
        assert_close(curve.high[has_interval], parts["upper"][has_interval])


@pytest.mark.parametrize("confidence_type", ["log-log", "log", "plain"])
def test_incidences_equal_the_pooled(federation: Simulation, confidence_type: str) -> None:
    assert_is_r(estimate(federation, confidence_type=confidence_type), REFERENCE[f"mgus2_{confidence_type}"])


def test_groups_equal_r(federation: Simulation) -> None:
    assert_is_r(estimate(federation, by="sex"), REFERENCE["mgus2_sex"])


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"by": "sex"}, "gray_sex"),
        ({"by": "third"}, "gray_age"),
        ({"by": "third", "rho": 1.0}, "gray_age_rho"),
        ({"by": "third", "strata": ("sex",)}, "gray_age_strata"),
    ],
)
def test_grays_tests_equal_cmprsk(federation: Simulation, options: dict[str, Any], name: str) -> None:
    tests = estimate(federation, **options).tests
    assert [test.cause for test in tests] == list(CAUSES)
    assert_close([test.statistic for test in tests], [row[0] for row in REFERENCE[name]])
    assert [test.df for test in tests] == [row[2] for row in REFERENCE[name]]
    np.testing.assert_allclose(
        [test.p_value for test in tests], [row[1] for row in REFERENCE[name]], rtol=1e-8, atol=1e-20
    )


def test_sites_as_strata_are_strata(sites: dict[str, pd.DataFrame], federation: Simulation) -> None:
    frame = pooled({name: part.assign(ward=name) for name, part in sites.items()})
    wards = Variable(name="ward", type="category", levels=tuple(sites))
    contract = Contract(variables=(*CONTRACT.variables, wards))
    one = simulate({"all": frame}, contract=contract, disclosure="none")
    expected = estimate(one, by="sex", strata=("ward",)).tests
    found = estimate(federation, by="sex", strata=("site",)).tests
    assert_close([test.statistic for test in found], [test.statistic for test in expected])
    assert found[0].strata == ("site",)


def test_numbers_may_be_causes(federation: Simulation) -> None:
    named = estimate(federation)
    numbered = estimate(federation, event="cause", causes=("1", "2"))
    assert_close(numbered.to_frame().incidence, named.to_frame().incidence)


def test_incidences_and_survival_sum_up_to_one(federation: Simulation) -> None:
    result = estimate(federation, by="sex")
    table = pooled(mgus2())
    for group in ("F", "M"):
        one, other = (result.curve(cause, group) for cause in CAUSES)
        part = table[table.sex == group]
        at_risk = np.array([(part.etime >= time).sum() for time in one.times])
        events = np.array([((part.etime == time) & (part.cause > 0)).sum() for time in one.times])
        assert_close(1 - one.incidence - other.incidence, np.cumprod(1 - events / at_risk))


RECORDS = st.integers(8, 80).flatmap(
    lambda n: st.fixed_dictionaries(
        {
            "etime": st.lists(st.integers(1, 10), min_size=n, max_size=n),
            "state": st.lists(st.sampled_from(["censored", *CAUSES]), min_size=n, max_size=n),
            "sex": st.lists(st.sampled_from(["F", "M"]), min_size=n, max_size=n),
        }
    )
)


def some_hospitals(records: dict[str, list[Any]]) -> dict[str, pd.DataFrame]:
    frame = pd.DataFrame(records)
    return split(frame, 3, seed=len(frame))


def short(time: Variable) -> Contract:
    return Contract(variables=(time, *(CONTRACT.variable(name) for name in ("state", "sex"))))


@given(RECORDS, st.integers(2, 6))
@settings(max_examples=40)
def test_no_small_count_of_a_cause_is_shown(records: dict[str, list[Any]], minimum_cell: int) -> None:
    sites = some_hospitals(records)
    rules = DisclosureRules.of("standard", minimum_cell=minimum_cell)
    hospitals = simulate(sites, contract=short(CONTRACT.variable("etime")), disclosure=rules)
    result = estimate(hospitals, by="sex", times=(2.0, 5.0, 7.0))
    for curve in result.curves:
        cells = [(0.0, 0)]
        if curve.is_shown:
            cells += list(zip(curve.times.tolist(), np.cumsum(curve.num_events_since).tolist(), strict=True))
        cells += [(at.time, at.num_events) for at in curve.at_times if at.num_events is not None]
        for (_, before), (_, after) in pairwise(sorted(cells)):
            assert after - before == 0 or after - before >= minimum_cell
        assert curve.num_records is None or curve.num_records >= minimum_cell
        assert all(
            at.num_at_risk is None or at.num_at_risk == 0 or at.num_at_risk >= minimum_cell for at in curve.at_times
        )
        if not curve.is_shown:
            assert curve.num_events is None
    if any(curve.num_records is None for curve in result.curves):
        assert result.num_records is None


def test_a_subgroup_of_two_is_hidden() -> None:
    states = ["censored", *CAUSES] * 14
    frame = pd.DataFrame({"etime": range(1, 43), "state": states, "sex": ["F"] * 40 + ["M"] * 2})
    result = estimate(simulate(split(frame, 3, 1), contract=short(CONTRACT.variable("etime"))), by="sex")
    small = [curve for curve in result.curves if curve.group == "M"]
    assert [(curve.num_records, curve.num_events, curve.is_shown) for curve in small] == [(None, None, False)] * 2
    assert result.num_records is None
    assert "42" not in result.summary()
    assert "too few left" in " ".join(result.notes)
    result.plot()


def test_a_rare_cause_hides_what_would_give_it_back() -> None:
    states = ["censored", "death"] * 20 + ["malignancy"] * 2
    frame = pd.DataFrame({"etime": range(1, 43), "state": states, "sex": ["F"] * 42})
    result = estimate(simulate(split(frame, 3, 1), contract=short(CONTRACT.variable("etime"))))
    assert [(curve.num_records, curve.num_events, curve.is_shown) for curve in result.curves] == [(42, None, False)] * 2


@given(RECORDS, st.sampled_from([1.0, 2.5, 4.0]), st.integers(0, 10**6))
@settings(max_examples=15)
def test_a_coarse_grid_states_its_error(records: dict[str, list[Any]], grid: float, seed: int) -> None:
    sites = some_hospitals(records)
    rng = np.random.default_rng(seed)
    for frame in sites.values():
        frame["etime"] = frame.etime + rng.uniform(0, 1, len(frame)).round(2)
    hospitals = simulate(sites, contract=short(Variable(name="etime", type="number")), disclosure="none")
    coarse, exact = estimate(hospitals, grid=grid), estimate(hospitals, grid=1e-3)
    for curve, fine in zip(coarse.curves, exact.curves, strict=True):
        before = np.searchsorted(fine.times, curve.times * (1 + 1e-12), side="right") - 1
        unrounded = np.where(before < 0, 0.0, fine.incidence[before])
        assert np.all(np.abs(unrounded - curve.incidence) <= curve.grid_error + 1e-12)


@pytest.mark.parametrize("has_entry", [False, True])
def test_grid_error_bounds_the_unrounded_incidence(has_entry: bool) -> None:
    """In small groups, where the order within a step matters most."""
    rng = np.random.default_rng(11)
    largest = 0.0
    for _ in range(1500):
        n, step = int(rng.integers(2, 20)), int(rng.choice([50, 100, 250]))
        cause, exits = rng.integers(0, 3, n), rng.integers(1, 500, n)
        entry = np.maximum(exits - rng.integers(1, 500, n), 0) if has_entry else np.zeros(n, int)
        is_kept = -(-entry // step) < -(-exits // step)  # others are refused
        if not is_kept.any():
            continue
        coarse, fine = (on_grid(entry[is_kept], exits[is_kept], cause[is_kept], size) for size in (step, 1))
        for rough, exact in zip(incidences(*coarse), incidences(*fine), strict=True):
            places = np.minimum(np.arange(len(rough.incidence)) * step, len(exact.incidence) - 1)
            difference = np.abs(exact.incidence[places] - rough.incidence)
            assert np.all(difference <= rough.grid_error + 1e-12)
            largest = max(largest, float(np.max(difference / np.maximum(rough.grid_error, 1e-12))))
    assert largest > 0.99  # and it is reached


def test_late_entries_are_at_risk_from_their_entry_on() -> None:
    rng = np.random.default_rng(3)
    n = 200
    frame = pd.DataFrame({"start": rng.integers(0, 10, n), "state": rng.choice(["censored", *CAUSES], n)})
    frame["etime"] = frame.start + rng.integers(1, 12, n)
    frame["sex"] = rng.choice(["F", "M"], n)
    contract = Contract(
        variables=(*short(CONTRACT.variable("etime")).variables, Variable(name="start", type="integer"))
    )
    hospitals = simulate(split(frame, 3, 1), contract=contract, disclosure="none")
    result = estimate(hospitals, entry="start", by="sex")
    assert result.tests == ()
    assert "not known for late entries" in " ".join(result.notes)
    for curve in result.curves:
        part, free, incidence = frame[frame.sex == curve.group], 1.0, 0.0
        for time, found in zip(curve.times, curve.incidence, strict=True):
            at_risk = ((part.start < time) & (part.etime >= time)).sum()
            here = part[part.etime == time]
            incidence += free * (here.state == curve.cause).sum() / at_risk
            free *= 1 - (here.state != "censored").sum() / at_risk
            assert found == pytest.approx(incidence, rel=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"event": "cause"}, "name its values that are causes"),
        ({"causes": ("death",)}, "'malignancy' of 'state' is neither a cause nor censored"),
        ({"causes": ("deaht", "malignancy")}, "did you mean 'death'"),
        ({"strata": ("sex",)}, "needs groups"),
        ({"rho": -1.0}, "rho: must be in"),
        ({"confidence": 1.0}, "confidence: must be in"),
        ({"times": (float("nan"),)}, "times: give at most"),
        ({"by": "etime"}, "without levels"),
    ],
)
def test_wrong_options_are_refused(federation: Simulation, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        next(cumulative_incidence(**{"time": "etime", "event": "state", **options}).steps(federation.setting))


def test_groups_with_late_entries_are_estimated_and_not_tested() -> None:
    # What all would share of the incidence passes 1 here, and its complement has no square root.
    frame = pd.DataFrame(
        {
            "time": [534, 1478, 1555, 1153, 1260, 919, 423, 798, 1293, 1275, 1104, 1653, 277],
            "start": [429, 707, 590, 585, 409, 4, 11, 604, 344, 943, 686, 830, 71],
            "cause": [1, 1, 0, 1, 0, 1, 0, 0, 1, 2, 2, 1, 1],
            "group": list("babcaccbaaacb"),
        }
    )
    federation = simulate({"A": frame[::2], "B": frame[1::2]}, disclosure="none")
    options = {"time": "time", "event": "cause", "causes": ("1", "2"), "entry": "start", "by": "group"}
    assert not estimate(federation, **options, rho=0.5).tests


def test_values_that_are_no_cause_are_refused(federation: Simulation) -> None:
    with pytest.raises(DataError, match="neither an event"):
        estimate(federation, event="cause", causes=("1",))


def test_a_cause_that_nobody_had(sites: dict[str, pd.DataFrame]) -> None:
    dead_only = {name: part.assign(state=part.state.replace("malignancy", "death")) for name, part in sites.items()}
    result = estimate(simulate(dead_only, contract=CONTRACT), by="sex")
    assert "Nobody had: malignancy" in " ".join(result.notes)
    assert set(result.curve("malignancy", "F").incidence) == {0.0}
    assert np.isnan(result.tests[0].statistic)
    result.plot()
    assert result.summary()


def test_is_a_workflow(federation: Simulation) -> None:
    workflow = cumulative_incidence(time="etime", event="state", by="sex", strata=("site",))
    check_workflow(workflow, dict(federation.data), federation.setting)


def test_is_a_result(sites: dict[str, pd.DataFrame]) -> None:
    result = estimate(simulate(sites, contract=CONTRACT), by="sex")
    assert isinstance(result, Result)
    assert isinstance(result, Headlined)
    assert json.loads(result.to_json())["causes"] == list(CAUSES)
    assert "Gray's test, death: chi2(1) = 11.65, p = 0.000642" in result.summary()
    assert [reference.split()[0] for reference in result.references] == [
        "Aalen",
        "Gaynor",
        "Kalbfleisch",
        "Gray",
        "Guyot",
    ]
    figure, table = result.exhibits()
    assert figure.kind == table.kind == "survival"
    assert "Cumulative incidence at" in figure.description  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="must be among"):
        result.curve("malignancy")
