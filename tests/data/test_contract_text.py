"""The contract's TOML: strict, bounded, and back again."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.data.contract import Contract, Variable
from wardround.data.contract_text import MAX_CONTRACT_BYTES, contract_text, parse_contract
from wardround.data.reading import day_of
from wardround.errors import ConfigError

TEXT = """
[contract]
patient = "pid"
description = "Stays"
[variables.age]
type = "integer"
unit = "years"
range = [18, 110]
missing = [-9, "unknown"]
required = true
description = "Age on admission"
[variables.admitted]
type = "date"
range = [2014-01-01, "2015-12-31"]
[variables."Blood group"]
type = "category"
levels = ["AB", 0, "A", "B"]
[variables.weight]
type = "number"
range = [0.5, inf]
resolution = 0.25
"""


def test_reads_what_is_written():
    contract = parse_contract(TEXT)
    assert contract.patient == "pid"
    assert contract.names == ("age", "admitted", "Blood group", "weight")
    age, admitted, group, weight = contract.variables
    assert age == Variable(
        name="age", type="integer", unit="years", range=(18, 110), missing=(-9, "unknown"), is_required=True,
        description="Age on admission",
    )  # fmt: skip
    assert admitted.range == (day_of("2014-01-01"), day_of("2015-12-31"))
    assert group.levels == ("AB", "0", "A", "B")
    assert weight.range == (0.5, math.inf)
    assert (weight.resolution, age.resolution) == (0.25, None)
    assert parse_contract(contract_text(contract, ("a note\nof two lines",))) == contract


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "variables: missing"),
        ("variables = 3", "variables: missing"),
        ("[variables]", "variables: missing"),
        ("[variable.age]\ntype='text'", "variable: unknown key; did you mean 'variables'?"),
        ("[contract]\npatien='x'\n[variables.a]\ntype='text'", "contract.patien: unknown key; did you mean 'patient'?"),
        ("[variables.age]\ntype='number'\nrnage=[0,1]", "variables.age.rnage: unknown key; did you mean 'range'?"),
        ("[variables.age]\nunit='a'", "variables.age.type: missing"),
        ("[variables.age]\ntype='nmber'", "variables.age.type"),
        ("[variables.age]\ntype='number'\nresolution=0", "resolution must be greater than 0, got 0"),
        ("[variables.age]\ntype='number'\nresolution=inf", "resolution must be greater than 0, got inf"),
        ("[variables.age]\ntype='date'\nresolution=1", "a date has no resolution"),
        ("[variables.age]\ntype='number'\nresolution='1'", "variables.age.resolution"),
        ("[variables.age]\ntype='number'\nrange=[0]", "variables.age.range: must be [least, greatest], got 1 values"),
        ("[variables.age]\ntype='number'\nrange=[1,0]", "range must be [least, greatest]"),
        ("[variables.age]\ntype='number'\nrange=[0,nan]", "variables.age.range: a bound must not be nan"),
        ("[variables.age]\ntype='number'\nrange=[true,2]", "the bounds of a number must be numbers, as in"),
        ("[variables.age]\ntype='number'\nrange=['a','b']", "variables.age.range: the bounds of a number"),
        ("[variables.d]\ntype='date'\nrange=[1,2]", "variables.d.range: the bounds of a date must be ISO dates"),
        ("[variables.d]\ntype='date'\nrange=['01.02.2020','2020-02-30']", "variables.d.range: the bounds of a date"),
        ("[variables.s]\ntype='category'", "a category needs its levels"),
        ("[variables.s]\ntype='category'\nlevels=[]", "variables.s.levels"),
        ("[variables.s]\ntype='category'\nlevels=['a','a ']", "a level is listed twice"),
        ("[variables.s]\ntype='category'\nlevels=['1','1.0']", "a level is listed twice"),
        ("[variables.s]\ntype='category'\nlevels=['']", "variables.s.levels: a name must not be empty"),
        ("[variables.s]\ntype='category'\nlevels=[true]", "variables.s.levels"),
        ("[variables.s]\ntype='number'\nlevels=['a']", "only a category has levels"),
        ("[variables.s]\ntype='text'\nrange=[0,1]", "a text has no range"),
        ("[variables.s]\ntype='number'\nrequired='yes'", "variables.s.required"),
        ("[variables.s]\ntype='number'\nmissing=[inf]", "variables.s.missing"),
        ("[variables.s]\ntype='number'\nmissing=[true]", "variables.s.missing"),
        ("[variables.s]\ntype='number'\nmissing=" + "9" * 400, "variables.s.missing"),
        ('[variables."a\\u0000b"]\ntype="number"', "control characters"),
        ('[variables."a\\u202eb"]\ntype="number"', "control characters"),
        ('[variables."  "]\ntype="number"', "must not be empty"),
        (f"[variables.{'a' * 300}]\ntype='number'", "at most 256 characters"),
        ('[variables."Zu\\u0308rich"]\ntype="number"\n[variables."Z\\u00fcrich"]\ntype="number"', "twice"),
        ("x = [", "not TOML"),
        ("x = " + "[" * 50_000, "nested too deeply"),
        ("x = " + "9" * 50_000, "not TOML"),
        (".".join("a" * 300) + " = 1", "more than 200 periods"),
        ("#" * (MAX_CONTRACT_BYTES + 1), f"at most {MAX_CONTRACT_BYTES} bytes"),
    ],
)  # fmt: skip
def test_refusals_name_the_place(text, said):
    with pytest.raises(ConfigError) as caught:
        parse_contract(text)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_all_errors_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        parse_contract("[variables.a]\ntype='x'\n[variables.b]\ntype='number'\nunits='kg'")
    assert "variables.a.type" in str(caught.value)
    assert "variables.b.units: unknown key; did you mean 'unit'?" in str(caught.value)


_KEYS = st.sampled_from(
    ["type", "unit", "range", "levels", "missing", "required", "description", "patient", "[contract]", "[variables.x]",
     "[variables.y]", "[[variables]]", "variables.x.type", "contract"]
)  # fmt: skip
_VALUES = st.sampled_from(
    ["'number'", "'category'", "'date'", "[0, 1]", "['a', 'b']", "[1, 'x', nan]", "true", "1979-05-27", "{}", "{a=1}",
     "[[]]", "'\\'", "inf", "1e400", "07:32:00", "[1979-05-27, 'x']", "0x1F", "''", '"\\u0000"', "'''", "-9", "\x00"]
)  # fmt: skip
_LINES = st.one_of(st.builds("{} = {}".format, _KEYS, _VALUES), _KEYS, st.text(max_size=20))


@given(st.lists(_LINES, max_size=12).map("\n".join))
def test_refuses_with_config_error(text):
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_contract(text), Contract)


_NAMES = st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp")), min_size=1, max_size=12).filter(
    lambda text: text.strip()
)
_RANGES = st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)).map(sorted).map(tuple)


@st.composite
def variables(draw):
    type_ = draw(st.sampled_from(["number", "integer", "category", "boolean", "date", "text"]))
    bounds = {
        "number": st.none() | _RANGES,
        "date": st.none() | st.just((-1000.0, 20000.0)) | st.just((-math.inf, 0.0)),
    }.get(type_, st.none())
    return Variable(
        name=draw(_NAMES),
        type=type_,
        unit=draw(st.none() | _NAMES),
        range=draw(bounds),
        levels=draw(st.lists(_NAMES.filter(str.isalpha), min_size=1, max_size=4, unique_by=lambda t: t.casefold()))
        if type_ == "category"
        else None,
        missing=tuple(draw(st.lists(st.just(-9.0) | st.just("NA") | st.just(0.5), unique=True))),
        is_required=draw(st.booleans()),
        resolution=draw(st.sampled_from([None, 1.0, 0.1, 1 / 365.25])) if type_ in ("number", "integer") else None,
        description=draw(st.none() | st.text(st.characters(exclude_categories=("Cs",)), max_size=20)),
    )


@given(st.lists(variables(), min_size=1, max_size=4, unique_by=lambda v: v.name), st.none() | _NAMES)
def test_text_and_back(listed, patient):
    contract = Contract(variables=tuple(listed), patient=patient)
    assert parse_contract(contract_text(contract)) == contract


def test_ten_thousand_columns():
    text = "\n".join(f"[variables.x{i}]\ntype = 'number'\nrange = [0, 1]" for i in range(10_000))
    contract = parse_contract(text)
    assert len(contract.variables) == 10_000
    assert contract.variable("x9999").range == (0, 1)
