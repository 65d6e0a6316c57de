"""Formulas from outside: understood against the contract, coded as formulaic codes them, never executed."""

import time

import formulaic
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.analytics.design import evaluate_blocks
from wardround.analytics.expression import parse_expression
from wardround.analytics.formula import CategoryFactor, NumericFactor, SplineFactor, plan_formula
from wardround.analytics.preparation import Extras, prepare
from wardround.data.contract import Contract, Setting, Variable
from wardround.engines.simulated_hospitals import simulate
from wardround.errors import ConfigError
from wardround.sums import Ask, Total

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
        Variable(name="log(age)", type="number"),
        Variable(name="1", type="number"),
        Variable(name="class", type="number"),
        Variable(name="crea_µmol", type="number"),
        Variable(name="fix", type="number"),
        Variable(name="ﬁx", type="number"),
        *(Variable(name=f"{i}", type="category", levels=("a", "b", "c")) for i in range(2, 14)),
    )
)

CONTRACT_OF_PATIENTS = Contract(variables=(*CONTRACT.variables[:5], CONTRACT.variables[6]))


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
        ("died ~ C(ward, levels=['c', 'a', 'b'])", ("c", "a", "b")),
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
    "died + 1 ~ age": "one outcome",
    "died - age ~ bmi": "one outcome",
    "1 ~ age": "one outcome",
    "(died) ~ age": "one outcome",
    "died ~ age ~ sex": "write 'outcome ~ predictors'",
    "died ~ died + age": "also the outcome",
    "died ~ 0": "nothing is left",
    "died ~ age - age - 1": "nothing is left",
    # R and patsy leave the intercept out, formulaic keeps it.
    "died ~ (age - 1)": "outside of brackets",
    "died ~ (age - 1 + bmi)": "outside of brackets",
    "died ~ age + (-1)": "stands where a variable should",
    "died ~ (age + 1) ** 2": "outside of brackets",
    "died ~ 1:age": "outside of brackets",
    "died ~ age:0": "outside of brackets",
    # R reads a:b, formulaic b + a:b.
    "died ~ sex %in% ward": "is not allowed",
    # Formulaic drops a part of these silently.
    "died ~ age :++ bmi": "is not allowed",
    "died ~ age +-*+- bmi": "is not allowed",
    "died ~ age %+% bmi": "is not allowed",
    "died ~ ``": "backtick",
    "died ~ `age": "backtick",
    "died ~ I(age # + bmi\n)": "a #",
    "died ~ `a\\`b`": "backslash",
    "died ~ ((age)": "cannot read",
    "died ~ [age]": "brackets",
    "died ~ " + "(" * 51 + "age" + ")" * 51: "nested at most 50",
    "died ~ I(" + "-" * 400 + "age)": "nested",
    "died ~ foo(0x" + "F" * 5000 + ")": "cannot read",
    "died ~ C(ward, Treatment(0x" + "F" * 5000 + "))": "cannot read",
    "died ~ "
    + ":".join(f"C(grade, Treatment({i}))" for i in range(1, 4))
    + ":ward:sex:smoker:`2`:`3`:`4`": "more than 8",
    "died ~ C(ward, levels='abc')": "must be a list of levels",
    "died ~ C(ward, levels={'a': 1})": "must be a list of levels",
    "died ~ bs(age, degree=[3])": "degree must be in",
    "died ~ bs(age, degree=2.7)": "degree must be in",
    "died ~ bs(age, df=4, lower_bound=[1])": "not a list",
    "died ~ bs(age, knots=[50], df=9)": "not both",
    "died ~ bs(age, knots=[500])": "between the bounds",
    "died ~ bs(age, knots=[18])": "between the bounds",
    "died ~ rcs(age, [4])": "not a list",
    "died ~ log(serum.iron)": "dot in backticks",
    "died ~ `log(age)` + log(age)": "rename that",
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
    "died ~ age | sex": "is not allowed",
    "died ~ [age ~ sex]": "write 'outcome ~ predictors'",
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


def test_many_categories_are_refused_before_they_are_coded() -> None:
    begin = time.process_time()
    for right in ("*".join(f"`{i}`" for i in range(2, 12)), ":".join(f"`{i}`" for i in range(2, 11))):
        with pytest.raises(ConfigError, match=r"interactions of more than 8 categories|more than 2000 terms"):
            plan_formula(f"died ~ {right}", CONTRACT)
    assert len(coded("died ~ " + ":".join(f"`{i}`" for i in range(2, 10)))) == 2  # 256 products
    assert time.process_time() - begin < 2.0


@pytest.mark.parametrize(
    ("right", "names"),
    [
        ("`1` + age", ["Intercept", "1", "age"]),  # a column named 1 is not the intercept
        ("class", ["Intercept", "class"]),
        ("log(class)", ["Intercept", "log(`class`)"]),
        ("crea_µmol + log(crea_µmol)", ["Intercept", "crea_µmol", "log(crea_µmol)"]),
        ("`age` + age", ["Intercept", "age"]),
        ("log(`blood pressure`)", ["Intercept", "log(`blood pressure`)"]),
        ("`log(age)`", ["Intercept", "log(age)"]),
    ],
)
def test_any_column_name_may_be_written(right: str, names: list[str]) -> None:
    assert [term.name for term in plan_formula(f"died ~ {right}", CONTRACT).terms] == names


def test_letters_that_python_normalises_stay_themselves() -> None:
    # Python would read the ligature as f and i: another column.
    for right in ("ﬁx", "log(ﬁx)", "`ﬁx`", "I(`ﬁx` ** 2)"):
        (factor,) = plan_formula(f"died ~ {right}", CONTRACT).factors
        assert isinstance(factor, NumericFactor)
        assert parse_expression(factor.resolve({}, {})).variables == ("ﬁx",)


def test_deep_nesting_and_length_are_refused_or_read() -> None:
    with pytest.raises(ConfigError, match="20000 characters"):
        plan_formula("died ~ " + "age + " * 10_000 + "age", CONTRACT)
    assert coded("died ~ " + "(" * 50 + "age" + ")" * 50) == coded("died ~ age")


RNG = np.random.default_rng(4)
PATIENTS = pd.DataFrame(
    {
        "died": RNG.integers(0, 2, 90),
        "age": RNG.uniform(18, 100, 90),
        "bmi": RNG.normal(30, 4, 90),
        "sex": pd.Categorical(RNG.choice(["F", "M"], 90)),
        "ward": pd.Categorical(RNG.choice(["a", "b", "c"], 90)),
        "smoker": pd.Categorical(RNG.choice(["False", "True"], 90)),
    }
)
TABLE = simulate({"A": PATIENTS.assign(smoker=PATIENTS.smoker == "True")}, contract=CONTRACT_OF_PATIENTS)._data["A"]


def columns_of(formula: str) -> pd.DataFrame:
    """The design's columns over all patients, as the workflow asks for them."""
    steps = prepare(Setting(contract=CONTRACT_OF_PATIENTS, sites=("A",)), formula, Extras())
    answer = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as stop:
            prepared = stop.value
            break
        assert isinstance(step, Ask)
        answer = Total(step.function(TABLE, **step.arguments), ("A",))
    (block,) = evaluate_blocks(TABLE, prepared.design, prepared.frame)
    names = [column.name for column in prepared.design.columns]
    return pd.DataFrame(block.x * prepared.design.scale + prepared.design.center, columns=names)


ATOMS = st.sampled_from(
    ["age", "bmi", "sex", "ward", "smoker", "log(bmi)", "I(age ** 2)", "C(ward)", "I(age * bmi + 1)", "{age / bmi}"]
)
PRODUCTS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" + ", " - ", "*", ":", "/", " * ", " : "]), inner).map("".join),
        inner.map(lambda text: f"({text})"),
        st.tuples(inner, st.sampled_from(["**2", " ** 3"])).map(lambda pair: f"({pair[0]}){pair[1]}"),
    ),
    max_leaves=5,
)
RIGHT_SIDES = st.tuples(
    st.sampled_from(["", "", "0 + ", "1 + ", "-1 + "]), PRODUCTS, st.sampled_from(["", "", " - 1", " + 0", " + 1"])
).map("".join)


@given(RIGHT_SIDES)
@settings(max_examples=200)
def test_accepted_formulas_mean_what_they_mean_in_formulaic(right: str) -> None:
    try:
        plan = plan_formula(f"died ~ {right}", CONTRACT_OF_PATIENTS)
    except ConfigError as error:
        assert "not offered" in str(error)  # noqa: PT017  # all else in this grammar is allowed
        return
    expected = formulaic.Formula(f"died ~ {right}").get_model_matrix(PATIENTS).rhs
    if not plan.terms:
        assert expected.shape[1] == 0
        return
    got = columns_of(f"died ~ {right}")
    np.testing.assert_allclose(got.to_numpy(), expected.to_numpy(float), rtol=1e-9, atol=1e-7)
    assert list(got.columns) == list(expected.columns)


PIECES = st.sampled_from(
    [
        "died",
        "~",
        "age",
        "sex",
        "ward",
        "+",
        "-",
        "*",
        ":",
        "/",
        "**",
        "2",
        "1",
        "0",
        "(",
        ")",
        "C(",
        "bs(",
        "scale(",
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
