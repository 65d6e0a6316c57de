"""Formulas from outside: understood against the contract, coded as formulaic codes them, never executed."""

import time

import formulaic
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.analytics.formula import CategoryFactor, NumericFactor, SplineFactor, plan_formula
from wardround.data.contract import Contract, Variable
from wardround.errors import ConfigError

CONTRACT = Contract(
    variables=(
        Variable(name="died", type="integer", range=(0, 1)),
        Variable(name="age", type="number", range=(18, 100)),
        Variable(name="bmi", type="number"),
        Variable(name="sex", type="category", levels=("F", "M")),
        Variable(name="ward", type="category", levels=("a", "b", "c")),
        Variable(name="grade", type="integer", range=(1, 3)),
        Variable(name="smoker", type="boolean"),
        Variable(name="blood pressure", type="number"),
        Variable(name="letter", type="text"),
        Variable(name="huge", type="integer", range=(0, 10**9)),
    )
)


def coded(formula: str) -> list[list[list[tuple[str, bool]]]]:
    plan = plan_formula(formula, CONTRACT)
    return [[[(s.factor.name, s.is_reduced) for s in product] for product in term.products] for term in plan.terms]


@pytest.mark.parametrize(
    "right",
    [
        "age + sex",
        "sex * ward",
        "sex:ward",
        "sex:age",
        "0 + sex + ward",
        "age * ward - age",
        "(sex + ward + age) ** 2",
        "ward / age",
        "smoker + sex:smoker",
        "1",
    ],
)
def test_full_rank_coding_is_formulaics(right: str) -> None:
    rng = np.random.default_rng(4)
    frame = pd.DataFrame(
        {
            "died": rng.integers(0, 2, 60),
            "age": rng.normal(size=60),
            "sex": pd.Categorical(rng.choice(["F", "M"], 60)),
            "ward": pd.Categorical(rng.choice(["a", "b", "c"], 60)),
            "smoker": pd.Categorical(rng.choice(["False", "True"], 60)),
        }
    )
    matrix = formulaic.Formula(f"died ~ {right}").get_model_matrix(frame).rhs
    expected = [
        [[(s.factor.expr, s.reduced) for s in scoped.factors] for scoped in encoded.scoped_terms]
        for encoded in matrix.model_spec.structure
    ]
    assert coded(f"died ~ {right}") == expected


def test_factors_are_told_apart() -> None:
    plan = plan_formula("died ~ sex + C(grade) + smoker + bs(age, df=5) + scale(log(bmi)) + `blood pressure`", CONTRACT)
    assert [type(factor) for factor in plan.factors] == [
        CategoryFactor,
        CategoryFactor,
        CategoryFactor,
        SplineFactor,
        NumericFactor,
        NumericFactor,
    ]
    assert plan.factors[1].levels == ("1", "2", "3")
    assert plan.factors[3].knot_quantiles == pytest.approx((1 / 3, 2 / 3))
    assert plan.factors[3].bounds == (18, 100)


def test_center_and_scale_become_constants() -> None:
    (factor,) = plan_formula("died ~ I(center(age) ** 2 + scale(`blood pressure`))", CONTRACT).factors
    text = factor.resolve({"age": 60.5, "`blood pressure`": -3.0}, {"`blood pressure`": 2.0})
    assert text == "I((age - 60.5) ** 2 + (`blood pressure` - -3.0) / 2.0)"


@pytest.mark.parametrize(
    ("formula", "levels"),
    [
        ("died ~ C(ward)", ("a", "b", "c")),
        ("died ~ C(ward, Treatment('c'))", ("c", "a", "b")),
        ("died ~ C(ward, Treatment(reference='b'))", ("b", "a", "c")),
        ("died ~ C(ward, contr.treatment('b'))", ("b", "a", "c")),
        ("died ~ C(ward, levels=['c', 'a'])", ("c", "a")),
        ("died ~ C(grade, Treatment(2))", ("2", "1", "3")),
    ],
)
def test_reference_level_is_the_first(formula: str, levels: tuple[str, ...]) -> None:
    assert plan_formula(formula, CONTRACT).factors[0].levels == levels


REFUSED = {
    "died": "write 'outcome ~ predictors'",
    "": "write 'outcome ~ predictors'",
    "~ age": "write 'outcome ~ predictors'",
    "died + age ~ sex": "one outcome",
    "died ~ agee": "did you mean 'age'",
    "died ~ letter": "is a text",
    "died ~ log(sex)": "is a category, not a number",
    "died ~ C(age)": "declare it a category",
    "died ~ C(huge)": "over 1000 levels",
    "died ~ C(ward, Sum)": "only treatment coding",
    "died ~ C(ward, Treatment('z'))": "no level of 'ward'",
    "died ~ C(ward, levels=['z'])": "must be among a, b, c",
    "died ~ C(ward, levels=open('x'))": "must be a list of levels",
    "died ~ .": "operator '.' is not allowed",
    "died ~ age | sex": "cannot read",
    "died ~ [age ~ sex]": "cannot read",
    "died ~ (age + sex) ** 9": "exponent",
    "died ~ age ** bmi": "exponent",
    "died ~ 2 * age": "cannot read",
    "died ~ 'a'": "cannot read",
    "died ~ age ^ 2": "not allowed",
    "died ~ __import__('os').system('true')": "formula",
    "died ~ {age.__class__}": "Attribute is not allowed",
    "died ~ np.load(age)": "not allowed",
    "died ~ I(age.x)": "Attribute is not allowed",
    "died ~ center(scale(age))": "not nested",
    "died ~ scale(age, 3)": "without options",
    "died ~ bs(age, df=99)": "df must be in",
    "died ~ bs(bmi, df=4)": "range in the contract",
    "died ~ bs(log(age), df=5, lower_bound=1, upper_bound=9)": "give knots",
    "died ~ bs(age, knots=[5, 4])": "knots must increase",
    "died ~ bs(age, degree=9)": "degree must be in",
    "died ~ bs(age, knots=__import__('os'))": "must be numbers",
    "died ~ rcs(age, 9)": "3 to 7 knots",
    "died ~ bs(age, nonsense=3)": "takes the options",
    "scale(died) ~ age": "outcome must be",
}


@pytest.mark.parametrize(("formula", "message"), REFUSED.items())
def test_refusals_say_what_to_do(formula: str, message: str) -> None:
    from wardround.analytics.glm import glm
    from wardround.data.contract import Setting

    with pytest.raises(ConfigError) as caught:
        next(glm(formula=formula).steps(Setting(contract=CONTRACT, sites=("A",))))
    assert message in str(caught.value)


def test_executes_nothing(tmp_path: object) -> None:
    ran = []
    import builtins

    builtins.wardround_trap = lambda *_: ran.append(1)  # type: ignore[attr-defined]
    try:
        for text in ("wardround_trap()", "I(wardround_trap(age))", "{wardround_trap()}", "C(ward, wardround_trap())"):
            with pytest.raises(ConfigError):
                plan_formula(f"died ~ {text}", CONTRACT)
    finally:
        del builtins.wardround_trap  # type: ignore[attr-defined]
    assert ran == []


@pytest.mark.parametrize(
    "right",
    [
        "*".join(["age", "sex", "ward", "bmi", "grade", "smoker"] * 4),
        "(" + "+".join(f"I(age + {i})" for i in range(50)) + ") ** 4",
        "/".join(["(age + sex + bmi)"] * 12),
        ":".join(["(age + sex + ward)"] * 12),
    ],
)
def test_bounded_work(right: str) -> None:
    begin = time.process_time()
    with pytest.raises(ConfigError, match="expands to more than 2000 terms"):
        plan_formula(f"died ~ {right}", CONTRACT)
    assert time.process_time() - begin < 2.0


def test_deep_nesting_and_length_are_refused_or_read() -> None:
    with pytest.raises(ConfigError, match="20000 characters"):
        plan_formula("died ~ " + "age + " * 10_000 + "age", CONTRACT)
    assert coded("died ~ " + "(" * 400 + "age" + ")" * 400) == coded("died ~ age")


PIECES = st.sampled_from(
    ["died", "~", "age", "sex", "ward", "+", "-", "*", ":", "/", "**", "2", "1", "0", "(", ")", "C(", "bs(", "scale("]
    + [
        "I(",
        "[",
        "]",
        "{",
        "}",
        "`",
        "'",
        '"',
        ",",
        "=",
        ".",
        "|",
        "%",
        "in",
        " ",
        "\\",
        "\n",
        "\x00",
        "é",
        "df=4",
        "~~",
    ]
)


@given(st.lists(PIECES, max_size=20).map("".join))
def test_any_text_is_understood_or_refused(text: str) -> None:
    for formula in (text, f"died ~ {text}"):
        try:
            plan_formula(formula, CONTRACT)
        except ConfigError:
            continue
