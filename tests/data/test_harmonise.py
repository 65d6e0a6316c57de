"""Raw tables against their contract: what fits, what does not, and what is told of it."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.harmonised import harmonise
from wardround.data.contract import Contract, Variable
from wardround.data.harmonise import TableBuilder, check_frames, check_size
from wardround.errors import ContractError, DataError

CONTRACT = Contract(
    variables=(
        Variable(name="age", type="integer", range=(0, 120), missing=(-9.0, "unknown"), is_required=True, unit="years"),
        Variable(name="chol", type="number", range=(1, 20), unit="mmol/L", missing=(0.0,)),
        Variable(name="sex", type="category", levels=("1", "2"), missing=("9",)),
        Variable(name="seen", type="date"),
        Variable(name="note", type="text"),
    ),
    patient="pid",
)


def table(num_records=8, **changes):
    columns = {"age": 50, "chol": 5.5, "sex": "1", "seen": "2024-01-01", "note": "x", "pid": range(num_records)}
    return pd.DataFrame({**columns, **changes}, index=range(num_records))


def violations(frame, **options):
    report = check_frames([frame], CONTRACT, "North", **options).report
    return {(v.column, v.rule): v.num_rows for v in report.violations}


def test_what_fits_becomes_compact_columns():
    frame = table(sex=["1", "2", "9", "1.0", None, "", "2", "1"], chol=["5,5" if i < 0 else "5.5" for i in range(8)])
    made = harmonise(frame, CONTRACT, "North")
    assert made.codes("sex").tolist() == [0, 1, -1, 0, -1, -1, 1, 0]
    assert made.numbers("chol").tolist() == [5.5] * 8
    assert set(made.columns) == {"age", "chol", "sex", "seen"}
    assert made.num_patients == 8
    assert not made.columns["age"].flags.writeable


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"age": 121}, {("age", "out of range"): 8}),
        ({"age": 50.5}, {("age", "not an integer"): 8}),
        ({"age": "fifty"}, {("age", "wrong type"): 8}),
        ({"age": None}, {("age", "missing value"): 8}),
        ({"age": ["-9", "-9.0", "unknown", " ", "5", "5", "5", "5"]}, {("age", "missing value"): None}),
        ({"age": [-9, -9, -9, -9, -9, 1, 1, 1]}, {("age", "missing value"): 5}),
        ({"chol": [0, "0", "0.0", 0.0, None, 1, 1, 1]}, {}),
        ({"chol": np.inf}, {("chol", "wrong type"): 8}),
        ({"sex": 3}, {("sex", "unknown level"): 8}),
        ({"sex": 1.0}, {}),
        ({"sex": 9}, {}),
        ({"sex": "01"}, {}),
        ({"seen": "01.02.2024"}, {("seen", "wrong type"): 8}),
        ({"seen": 45000}, {("seen", "wrong type"): 8}),
        ({"pid": [None] * 6 + [1, 2]}, {("pid", "missing value"): 6}),
        ({"chol": [-1] * 4 + [5] * 4}, {("chol", "out of range"): None}),
        ({"chol": [-1] * 5 + ["x"] * 3}, {("chol", "out of range"): 5, ("chol", "wrong type"): None}),
    ],
)
def test_rules(changes, expected):
    assert violations(table(**changes)) == expected


def test_small_counts_are_hidden():
    for count, shown in ((4, "1 to 4"), (5, "5")):
        report = check_frames([table(chol=[-1] * count + [5] * (8 - count))], CONTRACT, "North").report
        assert f"'chol': out of range in {shown} rows" in str(report)
        assert report.to_dict()["violations"][0]["rows"] == (None if count == 4 else 5)
    small = check_frames([table(3, chol=-1)], CONTRACT, "North").report
    assert "(1 to 4 rows)" in str(small)
    assert "3" not in repr(small).replace("'1 to 4'", "")


def test_missing_columns_are_told_with_all_else():
    with pytest.raises(ContractError) as caught:
        harmonise(table(age=-1).drop(columns=["chol", "pid"]), CONTRACT, "North")
    assert "'chol': missing column" in str(caught.value)
    assert "'pid': missing column" in str(caught.value)
    assert "'age': out of range in 8 rows" in str(caught.value)
    assert caught.value.reports[0].site == "North"


def test_a_wrong_unit_is_suspected():
    report = check_frames([table(chol=[200.0] * 5 + [5.0] * 3)], CONTRACT, "North").report
    assert "more than half of its values: are they in mmol/L, as the contract says?" in str(report)
    report = check_frames([table(12, chol=[200.0] * 6 + [5.0] * 6)], CONTRACT, "North").report
    assert "mmol/L" not in str(report)


def test_violations_may_count_as_missing():
    frame = table(chol=[-1] * 6 + [5, 5], sex=["3"] + ["1"] * 7)
    checked = check_frames([frame], CONTRACT, "North", violations="missing")
    assert checked.table.is_missing("chol").tolist() == [True] * 6 + [False] * 2
    assert checked.table.codes("sex")[0] == -1
    assert {v.column: v.num_rows for v in checked.report.violations} == {"chol": 6, "sex": None}
    assert "count as missing" in str(checked.report)
    # A required value does not become missing, and no column appears from nothing.
    assert check_frames([table(age=-1)], CONTRACT, "North", violations="missing").table is None
    assert check_frames([table().drop(columns="sex")], CONTRACT, "North", violations="missing").table is None
    with pytest.raises(ValueError, match="violations must be"):
        TableBuilder("North", CONTRACT, violations="ignore")


def test_names_are_matched_after_normalisation_and_must_be_one():
    contract = Contract(variables=(Variable(name="Gr\u00f6\u00dfe", type="number"),))
    frame = pd.DataFrame({" Gro\u0308\u00dfe ": [1.0]})
    assert harmonise(frame, contract, "A").numbers("Gr\u00f6\u00dfe").tolist() == [1.0]
    doubled = pd.DataFrame([[1, 2]], columns=["Gr\u00f6\u00dfe", "Gro\u0308\u00dfe"])
    with pytest.raises(DataError, match="two columns are named 'Größe'"):
        harmonise(doubled, contract, "A")
    unneeded = pd.DataFrame([[1.0, 2, 3]], columns=["Gr\u00f6\u00dfe", "x", "x"])
    assert harmonise(unneeded, contract, "A").num_records == 1


@pytest.mark.parametrize("num_records", [0, 1])
def test_empty_and_one_row_tables(num_records):
    made = harmonise(table(num_records), CONTRACT, "North")
    assert (made.num_records, made.num_patients) == (num_records, num_records)
    assert made.columns["sex"].dtype == np.int32
    assert made.columns["age"].dtype == np.float64


def test_an_empty_frame_without_columns_lacks_them():
    assert set(violations(pd.DataFrame())) == {(name, "missing column") for name in (*CONTRACT.names, "pid")}


def test_patients_are_told_apart_over_chunks():
    ids = ["b", "a", "b", "1", 1, 1.0, "007", "7"]
    frame = table(pid=pd.Series(ids, dtype=object))
    for size in (1, 3, 8):
        chunks = [frame.iloc[i : i + size] for i in range(0, 8, size)]
        made = check_frames(chunks, CONTRACT, "North").table
        first = {}
        assert [first.setdefault(i, len(first)) for i in made.patient_index] == [0, 1, 0, 2, 2, 2, 3, 4]
        assert made.num_patients == 5


def test_patients_by_wide_integers():
    frame = table(4, pid=[2**60, 2**60 + 1, 2**60, 5])
    made = harmonise(frame, CONTRACT, "North")
    assert made.num_patients == 3
    assert made.patient_index[0] == made.patient_index[2] != made.patient_index[1]


CELLS = st.one_of(st.none(), st.integers(-20, 200), st.floats(), st.text(max_size=3), st.sampled_from(["1", "2", "-9"]))


@given(st.data())
def test_chunks_do_not_matter(data):
    num = data.draw(st.integers(0, 9))
    frame = pd.DataFrame(
        {name: pd.Series(data.draw(st.lists(CELLS, min_size=num, max_size=num)), dtype=object) for name in table()}
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, num), max_size=3)))
    chunks = [frame.iloc[a:b] for a, b in itertools.pairwise([0, *cuts, num])]
    for policy in ("refuse", "missing"):
        whole = check_frames([frame], CONTRACT, "A", violations=policy)
        pieces = check_frames(chunks, CONTRACT, "A", violations=policy)
        assert pieces.report == whole.report
        assert (pieces.table is None) == (whole.table is None)
        if whole.table is not None:
            assert np.array_equal(pieces.table.patient_index, whole.table.patient_index)
            for name, column in whole.table.columns.items():
                np.testing.assert_array_equal(pieces.table.columns[name], column)


SECRETS = [
    "Xq7Secret",
    b"Xq7Secret",
    -77.7125,
    "77.7125kg",
    {"Xq7Secret": 1},
    ["Xq7Secret"],
    pd.Timestamp("2077-01-25"),
]


@given(st.data())
def test_shows_nothing_of_a_patient(data):
    cells = st.lists(st.sampled_from([*SECRETS, None, 5]), min_size=6, max_size=6)
    frame = pd.DataFrame({name: pd.Series(data.draw(cells), dtype=object) for name in table()})
    checked = check_frames([frame], CONTRACT, "A", violations=data.draw(st.sampled_from(["refuse", "missing"])))
    told = [str(checked.report), repr(checked.report), str(checked.report.to_dict())]
    try:
        harmonise(frame, CONTRACT, "A")
    except DataError as error:
        told += [str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
    for text in told:
        assert not any(secret in text for secret in ("Xq7", "77.7125", "2077"))


def test_a_table_that_would_not_fit_is_refused_early():
    wide = Contract(variables=tuple(Variable(name=f"x{i}", type="number") for i in range(10_000)))
    with pytest.raises(DataError, match=r"745.2 GiB, the limit is 8.0 GiB; list in the contract only"):
        check_size(wide, 10_000_000, "North")
    builder = TableBuilder("North", CONTRACT, max_bytes=40 * 20)
    builder.add(table())
    with pytest.raises(DataError, match="list in the contract only"):
        builder.add(table(20))


def test_ten_thousand_columns():
    names = [f"x{i}" for i in range(10_000)]
    contract = Contract(variables=tuple(Variable(name=name, type="number", range=(0, 1)) for name in names))
    frame = pd.DataFrame(np.full((3, 10_000), 0.5), columns=names)
    assert harmonise(frame, contract, "A").numbers("x9999").tolist() == [0.5] * 3
