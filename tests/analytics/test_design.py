"""What a site is asked comes from outside: refused before it costs work or memory, without a patient's value."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from wardround.analytics.design import Column, Design, Frame, Level, Numeric, SplineColumn
from wardround.analytics.glm_finish import finish
from wardround.analytics.glm_fit import separated
from wardround.analytics.glm_penalty import fold_terms
from wardround.analytics.glm_sums import Model, first_terms, terms
from wardround.analytics.preparation import census, column_sums, expression_sums
from wardround.engines.simulated_hospitals import simulate
from wardround.errors import ConfigError, DataError, LocalProtocolError, WardroundError
from wardround.sums import Ask

RNG = np.random.default_rng(2)
PATIENTS = pd.DataFrame(
    {
        "died": RNG.integers(0, 2, 200),
        "age": RNG.normal(60, 9, 200),
        "ward": RNG.choice(["acute", "day"], 200),
        "letter": [f"a letter about patient {i}" for i in range(200)],
    }
)
TABLE = simulate({"A": PATIENTS})._data["A"]
INTERCEPT = Column(name="Intercept", features=())
FRAME = Frame(outcome=Numeric(expression="died"), required=("died", "age"))
MODEL = Model(family="binomial", link="logit")


def design_of(*features: Any) -> Design:
    columns = (INTERCEPT, *(Column(name=f"c{i}", features=(f,)) for i, f in enumerate(features)))
    return Design(columns=columns, center=np.zeros(len(columns)), scale=np.ones(len(columns)))


AGE = design_of(Numeric(expression="age"))
SPLINE = SplineColumn(expression="age", basis="bs", degree=3, knots=(50.0, 60.0), bounds=(0.0, 120.0), column=0)


@pytest.mark.parametrize(
    ("design", "error", "message"),
    [
        (design_of(Level(variable="ward", level="hospice")), DataError, "no level 'hospice'"),
        (design_of(Level(variable="age", level="many")), DataError, "no level 'many'"),
        (design_of(Level(variable="nowhere", level="a")), ConfigError, "no variable"),
        (design_of(Numeric(expression="ward")), DataError, "not a number"),
        (design_of(Numeric(expression="letter")), DataError, r"not a number|is text"),
        (design_of(Numeric(expression="__import__('os')")), ConfigError, "not allowed"),
        (design_of(Numeric(expression="log(age - 1000)")), DataError, "not a finite number"),
        (design_of(Numeric(expression="age ** 9e9")), ConfigError, "exponent"),
        (design_of(replace(SPLINE, bounds=(0.0, 61.0))), DataError, "outside its bounds"),
    ],
)
def test_a_design_that_does_not_fit_is_refused(design: Design, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        terms(TABLE, design, FRAME, MODEL, np.zeros(design.num_columns))
    assert not any(f"{value:.4f}"[:6] in str(caught.value) for value in PATIENTS.age)


@pytest.mark.parametrize(
    "change",
    [
        {"scale": np.array([1.0, np.nan])},
        {"scale": np.array([1.0, 0.0])},
        {"scale": np.array([1.0, -1.0])},
        {"center": np.array([0.0, np.inf])},
        {"center": np.zeros(3)},
        {"columns": (INTERCEPT,) * 2001, "center": np.zeros(2001), "scale": np.ones(2001)},
        {"columns": (INTERCEPT, Column(name="many", features=(Numeric(expression="age"),) * 51))},
    ],
)
def test_a_malformed_design_cannot_be_made(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"design|center|scale"):
        replace(AGE, **change)


@pytest.mark.parametrize(
    "change",
    [
        {"knots": (60.0, 50.0)},
        {"knots": (60.0, 60.0)},
        {"knots": (np.nan,)},
        {"knots": (np.inf,)},
        {"knots": (150.0,)},
        {"knots": tuple(float(k) for k in range(1, 60))},
        {"degree": 10**6},
        {"degree": 0},
        {"bounds": (120.0, 0.0)},
        {"column": 5},
        {"column": -1},
        {"basis": "rcs", "knots": (1.0, 2.0)},
    ],
)
def test_a_malformed_spline_cannot_be_made(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="spline"):
        replace(SPLINE, **change)


def test_malformed_frames_and_models_cannot_be_made() -> None:
    for scale in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="outcome_scale"):
            replace(FRAME, outcome_scale=scale)
    with pytest.raises(ValueError, match="no link"):
        Model(family="gamma", link="probit")


TOO_MANY = tuple(Level(variable="ward", level="day") for _ in range(20_001))


@pytest.mark.parametrize(
    "call",
    [
        lambda: terms(TABLE, AGE, FRAME, MODEL, np.zeros(3)),
        lambda: terms(TABLE, AGE, FRAME, MODEL, np.zeros(())),
        lambda: terms(TABLE, AGE, FRAME, MODEL, np.array([np.nan, 0.0])),
        lambda: separated(TABLE, AGE, FRAME, MODEL, np.zeros((9, 3)), 0.1),
        lambda: finish(TABLE, AGE, FRAME, MODEL, np.zeros(2), 0.5, 1.0, np.zeros((2, 3)), "HC3", "patient"),
        lambda: finish(TABLE, AGE, FRAME, MODEL, np.zeros(2), 0.5, np.nan, np.eye(2), "model", "patient"),
        lambda: finish(TABLE, AGE, FRAME, MODEL, np.zeros(2), 0.5, 1.0, np.eye(2), "cluster", "nowhere"),
        lambda: finish(TABLE, AGE, FRAME, MODEL, np.zeros(2), 0.5, 1.0, np.eye(2), "cluster", "letter"),
        lambda: fold_terms(TABLE, AGE, FRAME, MODEL, np.zeros((10**6, 1, 2))),
        lambda: fold_terms(TABLE, AGE, FRAME, MODEL, np.zeros((2, 10**7, 2))),
        lambda: fold_terms(TABLE, AGE, FRAME, MODEL, np.zeros((2, 0, 2))),
        lambda: fold_terms(TABLE, AGE, FRAME, MODEL, np.zeros(2)),
        lambda: expression_sums(TABLE, ("age",) * 20_001, np.zeros(20_001), 1, ("age",)),
        lambda: expression_sums(TABLE, ("age",), np.zeros(2), 1, ("age",)),
        lambda: census(TABLE, ("age",), TOO_MANY),
        lambda: census(TABLE, ("nowhere",), ()),
        lambda: first_terms(TABLE, AGE, replace(FRAME, outcome=Numeric(expression="age")), MODEL, 0.5),
        lambda: column_sums(TABLE, AGE, replace(FRAME, frequency_weights="letter"), 0.0),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call: Any) -> None:
    with pytest.raises(WardroundError):
        call()


def test_a_power_is_one_or_two() -> None:
    with pytest.raises(LocalProtocolError, match="power"):
        Ask(expression_sums, {"expressions": ("age",), "centers": np.zeros(1), "power": 10**9, "required": ("age",)})


def test_a_census_counts_levels_as_pandas_does() -> None:
    levels = (Level(variable="ward", level="day"), Level(variable="died", level="1"), Level(variable="died", level="7"))
    counted = census(TABLE, ("age", "ward"), levels)
    assert counted.num_with_level.tolist() == [(PATIENTS.ward == "day").sum(), PATIENTS.died.sum(), 0]
