"""Numbers and headings as a journal prints them."""

import numpy as np
import pandas as pd
import pytest

from wardround.report.tables import number_text, table_view


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (3.0, "3"),
        (1234567.0, "1,234,567"),
        (-1.76916869, "−1.769"),  # noqa: RUF001
        (0.0301638, "0.03016"),
        (12345.678, "12,346"),
        (0.00012345, "1.234e−04"),  # noqa: RUF001
        (-2.5e9 - 0.5, "−2,500,000,000.5".replace("2,500,000,000.5", "2.500e+09")),  # noqa: RUF001
        (float("nan"), "–"),  # noqa: RUF001
        (float("inf"), "∞"),
        (float("-inf"), "−∞"),  # noqa: RUF001
    ],
)
def test_numbers(value, text):
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "<0.001"), (0.00099, "<0.001"), (0.001, "0.001"), (0.0456, "0.046"), (1.0, "1.000")]
)
def test_p_values(value, text):
    assert number_text(value, is_p_value=True) == text


def test_an_index_heads_the_rows():
    frame = pd.DataFrame({"estimate": [1.5, -2.0], "p_value": [1e-9, 0.5], "note": ["a", None]}, index=["x", "z"])
    view = table_view(frame.rename_axis("term"))
    assert [cell.text for cell in view.header] == ["term", "estimate", "p value", "note"]
    assert [cell.is_number for cell in view.header] == [False, True, True, False]
    assert [[cell.text for cell in row] for row in view.rows] == [
        ["x", "1.500", "<0.001", "a"],
        ["z", "−2", "0.500", "–"],  # noqa: RUF001
    ]
    assert view.num_headings == 1


def test_the_first_column_heads_the_rows_of_a_plain_frame():
    view = table_view(pd.DataFrame({"site": ["A"], "n": [np.int64(12)]}))
    assert ([cell.text for cell in view.rows[0]], view.num_headings) == (["A", "12"], 1)


def test_equal_first_headings_become_one_that_spans_their_rows():
    index = pd.MultiIndex.from_tuples([("age", "mean"), ("age", "median"), ("sex", "f")], names=["variable", "level"])
    view = table_view(pd.DataFrame({"all": ["1", "2", "3"]}, index=index))
    assert [row[0].num_rows for row in view.rows] == [2, 0, 1]
    assert view.num_headings == 2


def test_columns_of_two_levels_are_named_by_both():
    frame = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("disease", "yes"), ("disease", "")]))
    assert [cell.text for cell in table_view(frame).header] == ["disease yes", "disease"]


def test_an_empty_frame_is_a_header():
    view = table_view(pd.DataFrame({"a": [], "b": []}))
    assert ([cell.text for cell in view.header], view.rows) == (["a", "b"], ())
