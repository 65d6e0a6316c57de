"""The gate in the simulation: who keeps out of a sum, by which rule, and what becomes of the run."""

import dataclasses
import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import wardround as wr
from tests.analytics.by_hand import number, tables_of
from tests.samples import Roster, hospitals, mean
from wardround.analytics.census import census
from wardround.analytics.describe import describe
from wardround.analytics.glm import glm
from wardround.data.contract import Setting
from wardround.data.table import Table
from wardround.engines.record import replay
from wardround.engines.record_file import load_record
from wardround.engines.script import Event
from wardround.engines.simulation import Progress, Simulation
from wardround.errors import DisclosureError, PolicyError, SiteError
from wardround.privacy.disclosure import PRESETS, DisclosureRules
from wardround.privacy.disclosure_gate import refuse_own_cells
from wardround.studies.extensions import installed_vocabulary
from wardround.sums import Contribution, Steps, ask, people, site_function, workflow
from wardround.testing import check_workflow

FREE = PRESETS["none"]


def sized(*sizes: int) -> tuple[dict[str, Table], Setting]:
    """Sites with so many records of two numbers."""
    rng = np.random.default_rng(1)
    site_of = np.repeat(np.arange(len(sizes)), sizes)
    columns = {"x": rng.normal(size=len(site_of)), "y": rng.normal(size=len(site_of))}
    return tables_of([number("x"), number("y")], columns, site_of, len(sizes))


def under(rules: DisclosureRules, *sizes: int, **options: Any) -> Simulation:
    return Simulation(*sized(*sizes), disclosure=rules, **options)


def refusal(simulation: Simulation, analysis: Any, rule: str) -> DisclosureError:
    with pytest.raises(DisclosureError, match=f"^disclosure rule {rule}\\b") as caught:
        simulation.run(analysis)
    assert caught.value.rule == rule
    assert isinstance(caught.value, PolicyError)
    return caught.value


# Every rule at the site


@pytest.mark.parametrize("size", [1, 6, 9])
def test_small_sites_stay_out(size: int) -> None:
    rules = dataclasses.replace(FREE, minimum_rows_site=10)
    error = refusal(under(rules, 30, size), census(), "minimum_rows_site")
    assert error.site == "site1"
    assert "fewer than 10 records" in str(error)
    assert not re.search(rf"\b{size}\b", str(error).replace("site1", "")), "the hidden count is told"
    run = under(rules, 30, size, 20, minimum_sites=2).record(census())
    assert (run.result.num_records, run.result.sites) == (50, ("site0", "site2"))
    assert run.record.failures["site1"].startswith("from round 1: disclosure rule minimum_rows_site")


def test_a_site_without_records_tells_of_nobody() -> None:
    rules = dataclasses.replace(FREE, minimum_rows_site=10, parameters_per_row=0.1, patient_dominance=0.2)
    assert under(rules, 30, 0).run(census()).sites == ("site0", "site1")


def test_complete_records_count_not_those_of_the_table() -> None:
    tables, setting = sized(40, 40)
    x = tables["site1"].columns["x"].copy()
    x[4:] = np.nan
    tables["site1"] = dataclasses.replace(tables["site1"], columns={**tables["site1"].columns, "x": x})
    simulation = Simulation(tables, setting, disclosure=dataclasses.replace(FREE, minimum_rows_site=5))
    assert simulation.run(census()).num_records == 80
    refusal(simulation, glm(formula="y ~ x"), "minimum_rows_site")


def test_wide_models_stay_out() -> None:
    rules = dataclasses.replace(FREE, parameters_per_row=0.33)
    wide = glm(formula="y ~ x + I(x ** 2) + I(x ** 3)")
    error = refusal(under(rules, 300, 12), wide, "parameters_per_row")
    assert (error.site, "4 parameters are more than 0.33 a record" in str(error)) == ("site1", True)
    assert under(rules, 300, 13).run(wide).sites == ("site0", "site1")  # 4 / 13 < 0.33
    assert under(rules, 300, 2).run(describe()).sites == ("site0", "site1")  # no model


def test_a_patient_may_not_dominate_a_site() -> None:
    frame = pd.DataFrame({"id": [1] * 6 + [2, 3, 4, 5], "x": np.arange(10.0)})
    other = pd.DataFrame({"id": range(10), "x": np.arange(10.0)})
    rules = dataclasses.replace(FREE, patient_dominance=0.5)
    simulation = wr.simulate({"A": frame, "B": other}, patient="id", disclosure=rules)
    error = refusal(simulation, census(), "patient_dominance")
    assert (error.site, "more than 50%" in str(error)) == ("A", True)
    looser = dataclasses.replace(FREE, patient_dominance=0.6)
    assert wr.simulate({"A": frame, "B": other}, patient="id", disclosure=looser).run(census()).num_records == 20


class Slots(Contribution):
    num_at: np.ndarray = people("num_sites")


@site_function("slots.count", version=1, symbols=lambda sites: {"num_sites": len(sites)}, per_site=True)
def slots(data: Table, sites: tuple[str, ...]) -> Slots:
    """Records by site."""
    return Slots(num_at=np.array([data.num_records * (data.site == site) for site in sites]))


@workflow("slots", version=1)
def by_site(setting: Setting) -> Steps[list[int]]:
    """Records by site."""
    return list((yield from ask(slots, setting.sites)).sum.num_at)


def test_one_sites_results_stay_in() -> None:
    assert refusal(under(DisclosureRules(), 30, 20), by_site(), "allows_site_results").site == "site0"
    assert under(DisclosureRules(allows_site_results=True), 30, 20).run(by_site()) == [30, 20]


def test_own_small_cells_stay_in() -> None:
    rules = dataclasses.replace(FREE, minimum_cell=3, own_cells="refuse")
    error = refusal(under(rules, 30, 2), census(), "own_cells")
    assert "Census.num_records would hold a count below 3" in str(error)
    assert under(rules, 30, 3).run(census()).num_records == 33
    assert under(dataclasses.replace(rules, own_cells="allow"), 30, 2).run(census()).num_records == 32


class Binned(Contribution):
    num_at: np.ndarray = people(2, 3, cells="sums")
    num_without: int = people(cells="none")


def test_own_cells_are_those_that_are_declared() -> None:
    rules = DisclosureRules.of("datashield")
    refuse_own_cells(rules, Binned(num_at=np.array([[1, 2, 0], [0, 0, 0]]), num_without=1), site="A")
    with pytest.raises(DisclosureError, match=r"Binned.num_at would hold a count below 3"):
        refuse_own_cells(rules, Binned(num_at=np.array([[1, 2, 0], [0, 1, 1]]), num_without=0), site="A")
    with pytest.raises(ValueError, match=r"^cells must be"):
        people(cells="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs an axis"):
        people(cells="sums")


def _wards(num_rare: int) -> dict[str, pd.DataFrame]:
    rng, wards = np.random.default_rng(3), {}
    for ward in "AB":
        ages, pressure = rng.normal(60, 9, 90).round(), rng.normal(130, 20, 90).round()
        pressure[-2:] = np.nan
        arm = np.array((["old"] * num_rare + ["new"] * 90)[:90] if ward == "A" else ["old", "new"] * 45)
        died, time = rng.integers(0, 2, 90), rng.exponential(90, 90).round() + 1
        wards[ward] = pd.DataFrame({"age": ages, "bp": pressure, "arm": arm, "died": died, "time": time})
    return wards


_OF_NUMBERS: list[Any] = [
    lambda federation: wr.describe(federation, by="arm"),
    lambda federation: wr.glm(federation, "died ~ age + bp + arm", family="binomial"),
    lambda federation: wr.kaplan_meier(federation, time="time", event="died", by="arm"),
    lambda federation: wr.cox(federation, "age + arm", time="time", event="died"),
    lambda federation: wr.compare_means(federation, ("age",), by="arm", rank_tests=True),
]


@pytest.mark.parametrize("analysis", _OF_NUMBERS)
def test_the_preset_datashield_can_be_used(analysis: Any) -> None:
    assert analysis(wr.simulate(_wards(30), disclosure="datashield")).summary()
    with pytest.raises(DisclosureError, match="own_cells of site 'A'"):  # two of A have the old arm
        analysis(wr.simulate(_wards(2), disclosure="datashield"))


# Rules that need the total


def test_small_totals_are_not_handed_on() -> None:
    rules = dataclasses.replace(FREE, minimum_rows_total=50)
    refusal(under(rules, 30, 19), census(), "minimum_rows_total")
    assert under(rules, 30, 20).run(census()).num_records == 50


def test_no_site_dominates() -> None:
    rules = dataclasses.replace(FREE, site_dominance=0.6)
    error = refusal(under(rules, 80, 20), census(), "site_dominance")
    assert error.site == "site0"
    assert under(rules, 60, 40).run(census()).num_records == 100
    # Without the largest the next one dominates, and so on, until none is left that may be summed.
    refusal(under(rules, 80, 20, 6, minimum_sites=1), census(), "site_dominance")
    assert under(rules, 80, 10, 9, minimum_sites=2).run(census()).sites == ("site1", "site2")


def test_data_that_do_not_tell_their_size_are_refused() -> None:
    sites = hospitals(2)
    rules = dataclasses.replace(FREE, minimum_rows_site=2)
    with pytest.raises(DisclosureError, match="do not tell how many records"):
        Simulation(sites, Roster(tuple(sites)), disclosure=rules).run(mean())
    rules = dataclasses.replace(FREE, patient_dominance=0.5)
    with pytest.raises(DisclosureError, match="do not tell which records are of one patient"):
        Simulation(sites, Roster(tuple(sites)), disclosure=rules).run(mean())


# A hospital's own rules


def test_a_site_can_only_tighten() -> None:
    own = {"site1": DisclosureRules(preset="own", minimum_rows_site=25, allows_site_results=True)}
    simulation = under(DisclosureRules(), 30, 20, site_disclosure=own)
    assert refusal(simulation, census(), "minimum_rows_site").site == "site1"
    refusal(under(DisclosureRules(), 30, 30, site_disclosure=own), by_site(), "allows_site_results")
    assert (simulation.disclosure.preset, simulation.disclosure.minimum_rows_site) == ("own and standard", 25)


@given(st.integers(1, 12), st.integers(1, 12), st.booleans(), st.booleans())
def test_results_keep_to_the_strictest(study: int, own: int, allows: bool, own_allows: bool) -> None:
    rules = DisclosureRules(minimum_cell=study, allows_site_results=allows)
    strict = DisclosureRules(minimum_cell=own, allows_site_results=own_allows)
    simulation = under(rules, 30, 30, site_disclosure={"site0": strict})
    assert simulation.setting.disclosure.minimum_cell == max(study, own)
    assert simulation.setting.disclosure.allows_site_results == (allows and own_allows)
    assert simulation.run(describe()).minimum_cell == max(study, own)


def test_rules_of_an_unknown_site_or_preset_are_refused() -> None:
    with pytest.raises(ValueError, match="site_disclosure names unknown sites: nowhere"):
        under(FREE, 30, 30, site_disclosure={"nowhere": "nhs"})
    with pytest.raises(ValueError, match="preset must be one of"):
        Simulation(*sized(30, 30), disclosure="strict")


def test_a_setting_without_rules_is_left_alone() -> None:
    sites = hospitals(2)
    roster = Roster(tuple(sites))
    assert Simulation(sites, roster).setting is roster
    assert Simulation(sites, roster).disclosure == FREE


def test_simulate_takes_rules_by_name() -> None:
    frame = pd.DataFrame({"x": np.arange(7.0)})
    assert wr.simulate({"A": frame}, disclosure="nhs").disclosure == PRESETS["nhs"]
    frames = {"A": frame, "B": frame, "C": frame[:2]}
    federation = wr.simulate(frames, site_disclosure={"B": "cms11"}, minimum_sites=2)
    assert federation.disclosure.minimum_cell == 11
    assert federation.run(census()).sites == ("A", "C")
    assert federation.run(census()).num_records is None  # 9, and the strictest floor is 11


def test_no_sum_is_over_one_of_several_sites() -> None:
    leaves = [Event(site="site1", behaviour="drops_before", round=1)]
    with pytest.raises(DisclosureError, match="only one site is left in the sum"):
        under(DisclosureRules(), 30, 30, minimum_sites=1, script=leaves).run(census())
    assert under(FREE, 30, 30, minimum_sites=1, script=leaves).run(census()).num_records == 30
    assert under(DisclosureRules(), 30).run(census()).num_records == 30  # one hospital by itself


# What becomes of the run


def test_who_refuses_stays_out() -> None:
    # The census of the design is no model: site1 answers it, and keeps out of the model that follows.
    rules = dataclasses.replace(FREE, parameters_per_row=0.2)
    simulation = under(rules, 100, 9, 100, minimum_sites=2)
    run = simulation.record(glm(formula="y ~ x"))
    assert run.result.sites == ("site0", "site2")
    assert run.result.num_records == 200
    rounds_in = [round_.number for round_ in run.record.rounds if "site1" in round_.total.sites]
    assert rounds_in == list(range(1, len(rounds_in) + 1))
    assert len(rounds_in) < len(run.record.rounds)


@pytest.mark.parametrize("number_of_round", range(1, 9))
def test_who_refuses_stays_out_when_resumed(number_of_round: int, tmp_path: Any) -> None:
    rules = dataclasses.replace(FREE, parameters_per_row=0.2)
    analysis = glm(formula="y ~ x")
    expected = under(rules, 100, 9, 100, minimum_sites=2).record(analysis)

    def crash(progress: Progress) -> None:
        if progress.round.number == number_of_round:
            raise KeyboardInterrupt

    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        under(rules, 100, 9, 100, minimum_sites=2, progress=crash).record(analysis, save_to=path)
    again = under(rules, 100, 9, 100, minimum_sites=2)
    record = load_record(path, installed_vocabulary())
    resumed = again.record(analysis, resume=record)
    assert resumed.result.to_dict() == expected.result.to_dict()
    assert [r.total.sites for r in resumed.record.rounds] == [r.total.sites for r in expected.record.rounds]


def test_replay_asks_no_site_and_needs_no_rule() -> None:
    simulation = under(dataclasses.replace(FREE, minimum_rows_site=10), 30, 5, 30, minimum_sites=2)
    run = simulation.record(describe())
    assert replay(describe(), simulation.setting, run.record).to_dict() == run.result.to_dict()


def test_the_contract_of_workflows_holds_under_rules() -> None:
    tables, setting = sized(40, 30)
    rules = DisclosureRules.of("hospital")
    check_workflow(describe(), tables, dataclasses.replace(setting, disclosure=rules))


def test_a_refusal_holds_no_data() -> None:
    with pytest.raises(DisclosureError) as caught:
        under(dataclasses.replace(FREE, minimum_rows_site=10), 5).run(census())
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    frames = []
    trace = caught.value.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    assert not any(isinstance(value, Table) for frame in frames for value in frame.f_locals.values())


def test_a_failure_while_rows_are_counted_is_the_sites() -> None:
    tables, setting = sized(30, 30)
    del tables["site1"].columns["x"]  # type: ignore[attr-defined]  # a dict by construction
    simulation = Simulation(tables, setting, disclosure=dataclasses.replace(FREE, minimum_rows_site=2))
    with pytest.raises(SiteError):
        simulation.run(glm(formula="y ~ x"))


def test_no_rule_no_work() -> None:
    # Under rules that allow everything, nothing is asked of the data before they are computed on.
    assert FREE.parameters_per_row == math.inf
    sites = hospitals(2)
    assert Simulation(sites, Roster(tuple(sites)), disclosure="none").run(mean()) is not None
