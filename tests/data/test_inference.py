"""Contracts inferred from the tables at hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.data.contract_text import contract_text, parse_contract
from wardround.data.harmonise import check_frames
from wardround.data.inference import MAX_INFERRED_LEVELS, infer_contract, profile
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
