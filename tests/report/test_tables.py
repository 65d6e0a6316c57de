"""Numbers and headings as a journal prints them."""

import numpy as np
import pandas as pd
import pytest

from wardround.report.tables import Cell, count_text, number_text, sentence, table_view

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
BOUND = "\N{NO-BREAK SPACE}"
THIN = "\N{NARROW NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (3.0, "3"),
        (1234567.0, f"1{THIN}234{THIN}567"),
        (-1.76916869, f"{MINUS}1.769"),
        (0.0301638, "0.0302"),
        (12345.678, f"12{THIN}346"),
        (-0.5, f"{MINUS}0.5000"),
        (0.00001234, f"1.23e{MINUS}05"),
        (-2.5e9 - 0.5, f"{MINUS}2.50e+09"),
        (float("nan"), DASH),
        (float("inf"), "∞"),
        (float("-inf"), f"{MINUS}∞"),
    ],
)
def test_numbers(value, text):
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "<0.001"), (0.00099, "<0.001"), (0.001, "0.001"), (0.0456, "0.046"), (1.0, ">0.999")]
)
def test_p_values(value, text):
    assert number_text(value, is_p_value=True) == text


def test_counts():
    assert [count_text(n) for n in (0, 9999, 10_000, -1_234_567)] == [
        "0",
        "9999",
        f"10{THIN}000",
        f"-1{THIN}234{THIN}567",
    ]


def texts(view):
    return [(row.heading, [cell.text for cell in row.cells]) for group in view.groups for row in group.rows]


def test_an_index_heads_the_rows():
    frame = pd.DataFrame({"estimate": [1.5, -2.0], "p_value": [1e-9, 0.5], "note": ["a", None]}, index=["x", "z"])
    view = table_view(frame.rename_axis("term"))
    assert view.corner == "Term"
    assert view.header == (Cell("Estimate", True), Cell("P value", True), Cell("Note", False))
    assert texts(view) == [("x", ["1.500", "<0.001", "a"]), ("z", [f"{MINUS}2.000", "0.500", DASH])]


def test_the_first_column_heads_the_rows_of_a_plain_frame():
    view = table_view(pd.DataFrame({"site": ["A"], "n": [np.int64(12)]}))
    assert (view.corner, texts(view)) == ("Site", [("A", ["12"])])
    assert texts(table_view(pd.DataFrame({"n": [1, 2]}))) == [("", ["1"]), ("", ["2"])]


def test_the_numbers_of_a_column_have_the_same_decimals():
    view = table_view(pd.DataFrame({"x": [-2.595, 0.0242, 1.25, -0.00998]}, index=list("abcd")))
    assert [row[1][0] for row in texts(view)] == [f"{MINUS}2.5950", "0.0242", "1.2500", f"{MINUS}0.0100"]
    view = table_view(pd.DataFrame({"x": [12345.0, 3.0]}, index=list("ab")))
    assert [row[1][0] for row in texts(view)] == [f"12{THIN}345", "3"]


@pytest.mark.parametrize(
    ("text", "shown", "is_number"),
    [
        ("1.32 (1.10 to 1.58)", f"1.32 (1.10{BOUND}to{BOUND}1.58)", True),
        ("-0.5 (-1.2 to -0.1)", f"{MINUS}0.5 ({MINUS}1.2{BOUND}to{BOUND}{MINUS}0.1)", True),
        ("54.0 [47.0, 60.0]", f"54.0 [47.0,{BOUND}60.0]", True),
        ("<5", "<5", True),
        ("1 to 4", "1 to 4", True),
        ("hidden", "hidden", True),
        ("", "", True),
        ("1e-05", "1e-05", False),
        ("1981-03-02", "1981-03-02", True),
        ("3 months", "3 months", False),
        ("COVID-19", "COVID-19", False),
        ("Welch's t-test", "Welch's t-test", False),
    ],
)
def test_text_that_is_a_number_lines_up_as_one(text, shown, is_number):
    view = table_view(pd.DataFrame({"x": [text]}, index=["a"]))
    assert view.groups[0].rows[0].cells[0] == Cell(shown, is_number)


def test_variables_stand_over_their_levels():
    index = pd.MultiIndex.from_tuples([("n", ""), ("age", "mean"), ("age", "median"), ("sex", "f")])
    frame = pd.DataFrame({"all": ["9", "1", "2", "3"], "P value": ["", "0.02", "", "0.5"]}, index=index)
    first, age, sex = table_view(frame).groups
    assert (first.head, [row.heading for row in first.rows]) == (None, ["n"])
    assert (age.head.heading, [cell.text for cell in age.head.cells]) == ("Age", ["", "0.02"])
    assert [(row.heading, [cell.text for cell in row.cells]) for row in age.rows] == [
        ("mean", ["1", ""]),
        ("median", ["2", ""]),
    ]
    assert (sex.head, sex.rows[0].heading) == (None, "Sex, f")


def test_columns_of_two_levels_are_named_by_both():
    frame = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("disease", "yes"), ("disease", "")]))
    frame.index = pd.Index(["n"])
    assert [cell.text for cell in table_view(frame).header] == ["Disease yes", "Disease"]


def test_names_and_answers_are_those_of_people():
    frame = pd.DataFrame({"True": ["True", "a_b"]}, index=["max_heart_rate", "False"])
    view = table_view(frame.rename_axis("group_name"))
    assert (view.corner, view.header[0].text) == ("Group name", "Yes")
    assert texts(view) == [("Max heart rate", ["yes"]), ("No", ["a_b"])]


@pytest.mark.parametrize("text", ["p", "pH", "eGFR", "τ²", "", "1 year", "Äpfel", "x"])
def test_what_is_no_word_begins_as_it_is(text):
    assert sentence(text) == text


def test_words_begin_as_in_a_sentence():
    assert [sentence(text) for text in ("age, years", "a patient", "ärzte")] == ["Age, years", "A patient", "Ärzte"]


def test_a_column_with_words_in_it_lines_up_as_words():
    view = table_view(pd.DataFrame({"x": ["3", "three"]}, index=["a", "b"]))
    assert [row.cells[0].is_number for row in view.groups[0].rows] == [False, False]
    assert not view.header[0].is_number


def test_an_empty_frame_is_a_header():
    view = table_view(pd.DataFrame({"a": [], "b": []}))
    assert (view.corner, [cell.text for cell in view.header], view.groups) == ("a", ["b"], ())
    assert table_view(pd.DataFrame(index=["a", "b"])).num_rows == 2


def test_a_table_of_many_columns_is_wide():
    assert table_view(pd.DataFrame([range(9)], index=["a"])).is_wide
    assert not table_view(pd.DataFrame([range(8)], index=["a"])).is_wide
