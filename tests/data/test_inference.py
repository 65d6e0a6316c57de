"""Contracts inferred from the tables at hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.data.contract_text import contract_text, parse_contract
from wardround.data.harmonise import check_frames
from wardround.data.inference import (
    MAX_INFERRED_LEVELS,
    _profile_plain_numbers,
    _profile_words,
    infer_contract,
    profile,
)
from wardround.errors import ConfigError


def infer(patient=None, **tables):
    frames = {site: pd.DataFrame(table) for site, table in tables.items()}
    return infer_contract({site: profile([frame], site) for site, frame in frames.items()}, patient=patient)


def inferred(values, **series):
    return infer(A=pd.DataFrame({"x": pd.Series(values, **series), "_": 1})).contract.variable("x")


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        ([1, 2, 3], "integer"),
        ([1.0, None, 3.0], "integer"),
        (["1", "", "3"], "integer"),
        ([0, 1, 1], "integer"),
        ([1.5, 2], "number"),
        (["1", "2.5"], "number"),
        ([True, False], "boolean"),
        ([True, None], "boolean"),
        (["True", "false", None], "boolean"),
        (["2024-01-01", "2024-02-29T10:00Z"], "date"),
        (pd.to_datetime(["2024-01-01", None]), "date"),
        (["M", "F", "M", "M"], "category"),
        (["M", "1"], "category"),
        (["007", "008"], "category"),
        ([f"name {i}" for i in range(10)], "text"),
        ([f"level {i}" for i in range(MAX_INFERRED_LEVELS + 1)] * 3, "text"),
        (["x" * 300, "y"] * 3, "text"),
        ([None, None], "number"),
        ([2**60, 1], "number"),
        ([[1], [2]], "text"),
    ],
)
def test_types(values, type_):
    assert inferred(values).type == type_


def test_missing_texts_are_found_and_listed():
    variable = inferred(["1", "?", "NA", "3"])
    assert (variable.type, variable.missing) == ("integer", ("?", "NA"))
    assert inferred(["M", "N/A", "F"]).levels == ("F", "M")
    assert inferred(["None", "some", "None"]).levels == ("None", "some")  # may well be an answer


def test_levels_are_sorted_unless_all_sites_declare_one_order():
    assert inferred(["b", "a", "b"]).levels == ("a", "b")
    declared = pd.Categorical(["low", "high"], categories=["low", "high", "never"], ordered=True)
    other = pd.Categorical(["low", "high"], categories=["high", "low"])
    assert inferred(declared).levels == ("low", "high")
    assert infer(A={"x": declared}, B={"x": declared}).contract.variable("x").levels == ("low", "high")
    assert infer(A={"x": declared}, B={"x": other}).contract.variable("x").levels == ("high", "low")


def test_ranges_list_no_extreme():
    variable = inferred([28, 43, 77, None])
    assert variable.range == (25, 80)
    assert inferred(["1934-03-05", "1999-12-01"]).range == (-13149.0, 10956.0)  # 1934-01-01, 1999-12-31


def test_sites_are_united():
    contract = infer(
        A={"x": [1, 2], "s": ["b", "b"], "t": [True, False], "empty": [None, None]},
        B={"x": [1.5, 2.0], "s": ["a", None], "t": [1, 0], "empty": [3, 4]},
    ).contract
    assert [variable.type for variable in contract.variables] == ["number", "category", "boolean", "integer"]
    assert contract.variable("s").levels == ("a", "b")
    assert contract.is_inferred


def test_sites_that_disagree_are_named():
    inference = infer(
        A={"sex": ["M", "F"], "x": [1, 2]}, B={"sex": [1, 2], "x": [1, 2]}, C={"sex": [1, 2], "x": [1, 2]}
    )
    assert inference.contract.names == ("x",)
    with pytest.raises(ConfigError, match=r"'sex'; it was left out: the sites disagree: texts at site 'A', numbers at"):
        inference.contract.variable("sex")
    assert any("'sex' was left out" in note for note in inference.notes)


def test_a_column_that_a_site_lacks_is_left_out_with_the_reason():
    contract = infer(A={"x": [1], "y": [1]}, B={"x": [1]}).contract
    with pytest.raises(ConfigError, match="site 'B' has no such column"):
        contract.variable("y")
    with pytest.raises(ConfigError, match="share no column"):
        infer(A={"x": [1]}, B={"y": [1]})


def test_patient_column():
    inference = infer(A={"Patient_ID": ["p1", "p1"], "x": [1, 2]})
    assert inference.patient_columns == ("Patient_ID",)
    assert inference.contract.patient is None
    chosen = infer("Patient_ID", A={"Patient_ID": ["p1", "p1"], "x": [1, 2]}).contract
    assert (chosen.patient, chosen.names) == ("Patient_ID", ("x",))
    with pytest.raises(ConfigError, match="no column 'pid' at site 'A'"):
        infer("pid", A={"x": [1]})


def test_rare_levels_are_noted():
    notes = infer(A={"x": ["common"] * 10 + ["rare"] * 4}).notes
    assert any("'x': 1 of its levels are held by fewer than 5 rows" in note for note in notes)
    assert not any("rare'" in note for note in notes)
    assert infer(A={"x": ["common"] * 10 + ["rare"] * 5}).notes == ()


_COLUMNS = st.sampled_from(
    [
        st.integers(-(10**6), 10**6) | st.none(),
        st.floats() | st.none(),
        st.booleans() | st.none(),
        st.sampled_from(["M", "F", "?", None, " M "]),
        st.dates(),
        st.text(max_size=5),
        st.sampled_from([1, "1", 2.5, True, "x", None]),
    ]
)


@given(st.data())
def test_tables_fit_the_contract_inferred_from_them(data):
    kind = data.draw(_COLUMNS)
    sites = {
        name: [pd.DataFrame({"x": pd.Series(chunk, dtype=object), "y": 1.0}) for chunk in chunks]
        for name, chunks in data.draw(
            st.dictionaries(
                st.sampled_from("ABC"), st.lists(st.lists(kind, max_size=8), min_size=1, max_size=3), min_size=1
            )
        ).items()
    }
    inference = infer_contract({site: profile(frames, site) for site, frames in sites.items()})
    again = parse_contract(contract_text(inference.contract, inference.notes))
    assert again.variables == inference.contract.variables
    for site, frames in sites.items():
        report = check_frames(frames, again, site).report
        # Infinity is a number to nobody, so no contract can hold it.
        has_infinity = any(isinstance(x, float) and np.isinf(x) for frame in frames for x in frame["x"])
        assert report.fits or has_infinity, str(report)


AGES = [str(age) for age in range(40, 60)]


@pytest.mark.parametrize("word", [".", "n/a", "#N/A"])
def test_what_other_programs_write_for_missing(word):
    assert inferred(["1", word, "3"]).missing == (word,)
    assert inferred(["M", word, "F"]).levels == ("F", "M")


@pytest.mark.parametrize("word", ["unknown", "Unknown", "-", "not done", "None"])
def test_words_among_measured_numbers_are_missing_values(word):
    found = infer(A=pd.DataFrame({"x": [*AGES, word]}), B={"x": [1, 2]})
    variable = found.contract.variable("x")
    assert (variable.type, variable.missing) == ("integer", (word,))
    assert found.assumptions == (f"'x': {word!r} among its values count as missing",)
    assert inferred(["2024-01-01", word]).type == "date"


@pytest.mark.parametrize("codes", [["0", "1"], ["F", "M"], ["true", "false"], [], ["1", "5", "1000"]])
def test_words_among_codes_are_levels(codes):
    assert inferred([*codes * 6, "unknown", "unknown"]).levels == tuple(sorted([*codes, "unknown"]))


def test_words_among_codes_that_other_sites_hold_as_numbers_are_not_dropped():
    found = infer(A={"x": [0, 1], "y": 1}, B={"x": ["0", "unknown"], "y": 1})
    with pytest.raises(ConfigError, match="the sites disagree: numbers at site 'A', texts at site 'B'"):
        found.contract.variable("x")


def test_chunks_do_not_matter_to_words():
    column = pd.DataFrame({"x": ["unknown", *AGES, "unknown", "7.5"]})
    whole = profile([column], "A")
    assert profile([column.iloc[i : i + 5] for i in range(0, 25, 5)], "A")["x"].type == whole["x"].type == "number"
    assert profile([column.iloc[:1], column.iloc[1:]], "A")["x"].words == {"unknown"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([f"{age},5" for age in AGES], "its numbers have a decimal comma; write them with a decimal point"),
        ([*AGES, *(f"{age}.5" for age in AGES), *(f"{age}.7" for age in AGES), "7O"], "it holds numbers, but not only"),
    ],
)
def test_numbers_that_cannot_be_read_are_told(values, said):
    found = infer(A=pd.DataFrame({"x": values, "y": 1}))
    with pytest.raises(ConfigError, match=f"no variable 'x'; it was left out: {said}"):
        found.contract.variable("x")
    assert "7O" not in "".join(found.notes)


def test_a_site_with_decimal_commas_is_told():
    found = infer(A=pd.DataFrame({"x": range(20), "y": 1}), B=pd.DataFrame({"x": [f"{a},5" for a in AGES], "y": 1}))
    with pytest.raises(ConfigError, match="numbers at site 'A', numbers with a decimal comma at site 'B'"):
        found.contract.variable("x")


def test_a_column_of_other_capitals_is_told():
    found = infer(A={"age": [1], "y": 1}, B={"Age": [1], "y": 1}, C={"x": [1], "y": 1})
    with pytest.raises(ConfigError, match="sites 'B', 'C' have no such column; at site 'B' there is 'Age': rename one"):
        found.contract.variable("age")


def test_a_table_of_other_columns_is_told():
    with pytest.raises(ConfigError, match="site 'C': no column is named as elsewhere; is its first line"):
        infer(A={"x": [1]}, B={"x": [1]}, C={"x^y": ["1^2"]})


def test_levels_that_differ_in_capitals_alone_are_told_without_being_shown():
    (said,) = infer(A={"x": ["Yes", "no", "Yes"]}, B={"x": ["yes", "no"]}).assumptions
    assert said == "'x': 1 of its levels differ from others in capitals alone; write alike what is one"


def test_days_of_no_year_are_dates():
    far = pd.Series(np.array(["148108-01-01", "2024-01-01"], dtype="datetime64[s]"))
    assert inferred(far).type == "date"
    assert inferred(far.iloc[:1]).range is None


@given(
    st.lists(
        st.one_of(
            st.integers().map(str),
            st.floats().map(str),
            st.sampled_from(["007", "-0", "+1", ".5", "1e999", "-01.5", "9" * 40]),
        ),
        min_size=1,
    )
)
def test_plain_numbers_are_profiled_as_any_text_is(texts):
    fast = _profile_plain_numbers(texts)
    assert fast is None or fast == _profile_words(texts)


def test_numbers_are_plain_numbers():
    assert _profile_plain_numbers(["1", "-2.5"]).kinds == {"integer", "number"}
    assert _profile_plain_numbers(["1", "007"]) is None
