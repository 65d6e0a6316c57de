"""Times on the grid: rounding, what is refused, and where a curve may be shown."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wardround.analytics.design import complete_rows
from wardround.analytics.survival_time import (
    MAX_GRID_POINTS,
    PreparedSurvival,
    SurvivalOutcome,
    grid_index,
    grid_step,
    prepare_survival,
    shown_times,
    survival_rows,
)
from wardround.data.contract import Contract, Setting, Variable
from wardround.engines.simulated_hospitals import simulate
from wardround.engines.simulation import Simulation
from wardround.errors import ConfigError, DataError, SiteError
from wardround.sums import Steps, workflow


@workflow("testing.prepare_survival", version=1)
def prepared(
    setting: Setting,
    time: str = "time",
    event: str = "event",
    event_level: str | None = None,
    causes: tuple[str, ...] | None = None,
    censored: str | None = None,
    entry: str | None = None,
    grid: float | None = None,
    needs_events: bool = True,
) -> Steps[PreparedSurvival]:
    """The preparation alone."""
    return (
        yield from prepare_survival(
            setting,
            time=time,
            event=event,
            event_level=event_level,
            causes=causes,
            censored=censored,
            entry=entry,
            grid=grid,
            needs_events=needs_events,
        )
    )


def hospitals(*variables: Variable, **columns: Any) -> Simulation:
    frame = pd.DataFrame(columns)
    contract = Contract(variables=variables) if variables else None
    half = len(frame) // 2
    return simulate({"North": frame[:half], "South": frame[half:]}, contract=contract)


def prepare(federation: Simulation, **options: Any) -> PreparedSurvival:
    return federation.run(prepared(**options))


TIMES = [5, 6, 6, 2, 4, 4, 12, 9, 0, 30]
EVENTS = [1, 0, 1, 1, 0, 1, 0, 1, 1, 0]


def test_whole_times_lie_on_the_grid_of_ones() -> None:
    found = prepare(hospitals(time=TIMES, event=EVENTS))
    outcome = found.outcome
    assert (outcome.events, outcome.censored, outcome.step) == (("1",), ("0",), 1.0)
    assert 31 <= outcome.num_steps <= 32
    np.testing.assert_array_equal(outcome.times, np.arange(outcome.num_steps))
    assert (found.num_records, found.num_complete, found.num_events) == (10, 10, (6,))
    assert found.is_on_grid
    assert found.notes == ()


def test_rows_are_entries_exits_and_causes() -> None:
    federation = hospitals(time=TIMES, event=EVENTS, start=[1, 2, 3, 1, 0, 1, 2, 3, 0, 29])
    with pytest.raises(DataError, match="'start' is not before 'time'"):
        prepare(federation, entry="start")
    federation = hospitals(time=[1.5, 3, 4, 5], event=[1, 1, 0, 1], start=[0, 0.5, 1, 4])
    found = prepare(federation, entry="start", grid=1.0)
    table = federation.data["North"]
    rows = survival_rows(table, found.outcome, complete_rows(table, found.outcome.variables))
    assert (rows.entry.tolist(), rows.exit.tolist(), rows.cause.tolist()) == ([0, 1], [2, 3], [1, 1])
    assert not found.is_on_grid
    assert "rounded up to multiples of 1" in found.notes[0]


@given(
    hnp.arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 100_000)),
    st.sampled_from([1.0, 0.1, 1 / 7, 1 / 30.4375, 1 / 365.25, 0.01, 24.0]),
)
def test_points_of_the_grid_keep_their_index(index: np.ndarray, step: float) -> None:
    np.testing.assert_array_equal(grid_index(index * step, step), index)
    np.testing.assert_array_equal(grid_index(index / (1 / step), step), index)


@given(
    hnp.arrays(float, st.integers(1, 30), elements=st.floats(0, 1e4)),
    st.sampled_from([1.0, 0.1, 1 / 365.25, 24.0]),
)
def test_times_move_by_less_than_a_step_and_keep_their_order(times: np.ndarray, step: float) -> None:
    rounded = grid_index(times, step) * step
    assert np.all(rounded - times < step * (1 + 1e-6))
    assert np.all(rounded - times > -1e-8 * np.maximum(step, times))
    order = np.argsort(times, kind="stable")
    assert np.all(np.diff(rounded[order]) >= 0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"type": "integer"}, 1.0),
        ({"type": "integer", "unit": "years"}, 1.0),
        ({"type": "number", "unit": "days"}, 1.0),
        ({"type": "number", "unit": " Weeks "}, 1 / 7),
        ({"type": "number", "unit": "months"}, 1 / 30.4375),
        ({"type": "number", "unit": "years"}, 1 / 365.25),
        ({"type": "number", "unit": "years", "resolution": 0.5}, 0.5),
        ({"type": "number", "unit": "hours"}, 24.0),
    ],
)
def test_the_grid_is_a_day_unless_the_contract_says_more(options: Any, expected: float) -> None:
    variable = Variable(name="t", **options)
    assert grid_step(variable) == pytest.approx(expected, rel=1e-15)
    assert grid_step(variable, 3.0) == 3.0


@pytest.mark.parametrize("unit", [None, "mmol/L"])
def test_a_number_that_says_nothing_of_its_unit_needs_a_grid(unit: str | None) -> None:
    with pytest.raises(ConfigError, match=r"give grid = .*resolution or a unit"):
        grid_step(Variable(name="t", type="number", unit=unit))


@pytest.mark.parametrize("grid", [0.0, -1.0, float("inf"), float("nan")])
def test_a_grid_is_positive(grid: float) -> None:
    with pytest.raises(ConfigError, match="grid: must be a positive number"):
        prepare(hospitals(time=TIMES, event=EVENTS), grid=grid)


CATEGORY = Variable(name="event", type="category", levels=("alive", "relapse", "death"))
INTEGER = Variable(name="time", type="integer")


@pytest.mark.parametrize(
    ("variables", "events", "options", "expected"),
    [
        ((), [True, False] * 5, {}, (5,)),
        ((), [1, 2] * 5, {"event_level": "2"}, (5,)),
        ((), [1.0, 2.0] * 5, {"event_level": "2.0"}, (5,)),
        ((INTEGER, CATEGORY), ["alive", "death"] * 5, {"event_level": "death"}, (5,)),
        ((INTEGER, CATEGORY), ["alive", "death"] * 5, {"causes": ("relapse", "death")}, (0, 5)),
        ((), [0, 1, 2, 2, 2] * 2, {"causes": ("1", "2")}, (2, 6)),
        ((), [9, 1, 2, 2, 2] * 2, {"causes": ("2", "1"), "censored": "9"}, (6, 2)),
        ((), [True, False] * 5, {"causes": ("True",)}, (5,)),
    ],
)
def test_what_counts_as_the_event(
    variables: tuple[Variable, ...], events: list[Any], options: Any, expected: tuple[int, ...]
) -> None:
    assert prepare(hospitals(*variables, time=TIMES, event=events), **options).num_events == expected


@pytest.mark.parametrize(
    ("variables", "options", "message"),
    [
        ((INTEGER, CATEGORY), {}, "event_level = one of 'alive', 'relapse', 'death'"),
        ((INTEGER, CATEGORY), {"event_level": "dead"}, "did you mean 'death'"),
        ((INTEGER, CATEGORY), {"causes": ("death",)}, "'relapse' of 'event' is neither a cause nor censored"),
        ((INTEGER, CATEGORY), {"causes": ("alive", "relapse", "death")}, "'alive' means censored"),
        ((INTEGER, CATEGORY), {"causes": ()}, "give 1 to"),
        ((INTEGER, CATEGORY), {"event_level": "death", "causes": ("death",)}, "give either"),
        ((INTEGER, Variable(name="event", type="integer")), {"event_level": "dead"}, "it is a number"),
        ((INTEGER, Variable(name="event", type="integer")), {"event_level": "nan"}, "it is a number"),
        ((INTEGER, Variable(name="event", type="date")), {}, "event: 'event' is a date"),
        ((Variable(name="time", type="date"), CATEGORY), {"event_level": "death"}, "time: 'time' is a date"),
        ((INTEGER, CATEGORY), {"event_level": "death", "entry": "event"}, "entry: 'event' is a category"),
        ((INTEGER, CATEGORY), {"event_level": "death", "entry": "star"}, "no variable 'star'"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_asked(
    variables: tuple[Variable, ...], options: Any, message: str
) -> None:
    setting = Setting(contract=Contract(variables=variables), sites=("North",))
    with pytest.raises(ConfigError, match=message):
        next(prepared(**options).steps(setting))


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"time": [-1, *TIMES[1:]], "event": EVENTS}, {}, r"times are negative.*\(1 to 4 of 10 records\)"),
        ({"time": TIMES, "event": [2, *EVENTS[1:]]}, {}, r"neither an event \(1\) nor censored \(0\).*1 to 4 of 10"),
        ({"time": TIMES, "event": [0] * 10}, {}, "nobody had the event"),
        ({"time": [None] * 10, "event": EVENTS}, {"grid": 1.0}, "'time' missing in all records"),
        ({"time": TIMES, "event": EVENTS, "start": TIMES}, {"entry": "start"}, r"not before 'time'.*\(10 of 10"),
        (
            {"time": [t + 0.9 for t in TIMES], "event": EVENTS, "start": [t + 0.2 for t in TIMES]},
            {"entry": "start", "grid": 1.0},
            r"within one step of the grid, 1;.*\(10 of 10",
        ),
        ({"time": [t * 1e6 for t in TIMES], "event": EVENTS}, {}, r"coarser grid \(grid = 256 or more\)"),
        ({"time": [t * 1e290 for t in TIMES], "event": EVENTS}, {"grid": 1.0}, "coarser grid"),
    ],
)
def test_what_the_data_do_not_allow_is_refused(columns: Any, options: Any, message: str) -> None:
    names = [
        Variable(
            name=name, type="integer" if name == "event" else "number", resolution=None if name == "event" else 1.0
        )
        for name in columns
    ]
    with pytest.raises(DataError, match=message) as refused:
        prepare(hospitals(*names, **columns), **options)
    assert "-1" not in str(refused.value)


def test_no_events_may_be_allowed() -> None:
    assert prepare(hospitals(time=TIMES, event=[0] * 10), needs_events=False).num_events == (0,)


def test_the_range_of_the_contract_ends_the_grid() -> None:
    time = Variable(name="time", type="integer", range=(0, 30))
    found = prepare(hospitals(time, Variable(name="event", type="integer"), time=TIMES, event=EVENTS))
    assert found.outcome.num_steps == 31


def test_the_longest_grid_is_allowed() -> None:
    found = prepare(hospitals(time=[*TIMES[:-1], MAX_GRID_POINTS - 1], event=EVENTS))
    assert found.outcome.num_steps == MAX_GRID_POINTS


def test_records_with_a_missing_value_are_left_out() -> None:
    found = prepare(hospitals(time=[None, *TIMES[1:]], event=[*EVENTS[:-1], None]))
    assert (found.num_records, found.num_complete) == (10, 8)
    assert found.num_missing == {"time": 1, "event": 1}


def test_another_table_than_the_one_checked_is_refused() -> None:
    federation = hospitals(time=TIMES, event=EVENTS)
    table = federation.data["South"]
    outcome = SurvivalOutcome(time="time", event="event", events=("1",), censored=("0",), step=1.0, num_steps=8)
    with pytest.raises(DataError, match="not the one that was checked"):
        survival_rows(table, outcome, complete_rows(table, outcome.variables))


def test_a_site_whose_contract_has_other_levels_is_told() -> None:
    variables = (INTEGER, Variable(name="event", type="category", levels=("alive", "death")))
    federation = hospitals(*variables, time=TIMES, event=["alive", "death"] * 5)
    agreed = Setting(contract=Contract(variables=(INTEGER, CATEGORY)), sites=federation.setting.sites)
    with pytest.raises(SiteError, match="other levels in this site's contract"):
        Simulation(federation.data, agreed).run(prepared(event_level="relapse"))


@pytest.mark.parametrize(
    "wrong",
    [{"step": 0.0}, {"num_steps": 0}, {"num_steps": MAX_GRID_POINTS + 1}, {"events": ()}, {"censored": ("1",)}],
)
def test_an_outcome_checks_itself(wrong: Any) -> None:
    right = {"time": "t", "event": "e", "events": ("1",), "censored": ("0",), "step": 1.0, "num_steps": 9}
    SurvivalOutcome(**right)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must be|may mean"):
        SurvivalOutcome(**{**right, **wrong})


COUNTS = hnp.arrays(np.int64, st.tuples(st.integers(1, 3), st.integers(1, 40)), elements=st.integers(0, 4))


@given(COUNTS, st.integers(1, 8))
def test_enough_left_between_shown_times(leavers: np.ndarray, minimum_cell: int) -> None:
    shown = shown_times(leavers, minimum_cell)
    total = leavers.sum(axis=1)
    if not len(shown):
        assert not leavers.any() or np.any((total > 0) & (total < minimum_cell))
        return
    assert np.all(np.diff(shown) > 0)
    ends = np.cumsum(leavers, axis=1)[:, shown]
    between = np.diff(ends, axis=1, prepend=0)
    assert np.all((between == 0) | (between >= minimum_cell))
    np.testing.assert_array_equal(ends[:, -1], total)


@given(hnp.arrays(np.int64, st.integers(1, 40), elements=st.integers(0, 4)))
def test_a_floor_of_one_shows_every_time(leavers: np.ndarray) -> None:
    np.testing.assert_array_equal(shown_times(leavers, 1), np.flatnonzero(leavers))


def test_as_many_times_are_shown_as_the_floor_allows() -> None:
    assert shown_times(np.array([0, 2, 0, 3, 5, 1, 4, 4]), 5).tolist() == [3, 4, 7]
