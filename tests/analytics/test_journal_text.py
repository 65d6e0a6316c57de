"""Numbers and names as journals print them."""

import math

import pytest

from wardround.analytics.journal_text import (
    as_sentences,
    count_text,
    fixed_text,
    interval_text,
    listed,
    p_relation,
    p_text,
    percent_text,
    plain_term,
    ratio_interval,
    ratio_text,
    time_label,
)


@pytest.mark.parametrize(
    ("p_value", "text"),
    [
        (0.0, "<0.001"),
        (0.00099, "<0.001"),
        (0.001, "0.001"),
        (0.0456, "0.046"),
        (0.99949, "0.999"),
        (0.9995, ">0.999"),
        (1.0, ">0.999"),
        (math.nan, "–"),  # noqa: RUF001
    ],
)
def test_p_values(p_value, text):
    assert p_text(p_value) == text


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [(-1.25, 1, "−1.2"), (-0.04, 1, "0.0"), (3.0, 0, "3"), (math.nan, 2, "–"), (-math.inf, 2, "−∞")],  # noqa: RUF001
)
def test_numbers_have_true_minus_signs_and_no_negative_zero(value, decimals, text):
    assert fixed_text(value, decimals) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.32, "1.32"),
        (0.0951, "0.10"),
        (0.034, "0.034"),
        (0.00123, "0.0012"),
        (14.06, "14.1"),
        (234.5, "234"),
        (2e4, ">10000"),
        (1e-5, "<0.0001"),
        (math.inf, ">10000"),
        (0.0, "<0.0001"),
        (math.nan, "–"),  # noqa: RUF001
    ],
)
def test_ratios(value, text):
    assert ratio_text(value) == text


def test_intervals():
    assert ratio_interval(1.32, 1.1, 1.58) == "1.32 (1.10 to 1.58)"
    assert ratio_interval(0.99, 0.9807, 0.9996) == "0.990 (0.981 to 1.000)"
    assert interval_text(0.01532, 0.0123, 0.0181) == "0.0153 (0.0123 to 0.0181)"
    assert interval_text(-120.4, -180.2, -60.6) == "−120 (−180 to −61)"  # noqa: RUF001
    assert interval_text(1.5, -math.inf, math.inf) == "1.5 (−∞ to ∞)"  # noqa: RUF001
    assert interval_text(2.0, 2.0, 2.0) == "2.00 (2.00 to 2.00)"
    assert interval_text(math.nan, math.nan, math.nan) == "– (– to –)"  # noqa: RUF001


@pytest.mark.parametrize(
    ("term", "plain"),
    [
        ("C(sex)[T.Male]", "sex: Male"),
        ("exercise_angina[T.True]", "exercise angina"),
        ("C(sex)[T.M]:age", "sex: M × age"),  # noqa: RUF001
        ("C(w, Treatment('a'))[T.b:c]", "w: b:c"),
        ("bs(age, df=3)[2]", "bs(age, df=3): 2"),
        ("C(chest_pain)", "chest pain"),
        ("C(x)[T.]]", "x: ]"),
        ("a\nb", "a b"),
        (")](:", ")](:"),
    ],
)
def test_terms_as_people_call_them(term, plain):
    assert plain_term(term) == plain


def test_notes_are_sentences():
    assert as_sentences(["left out: b", "", "The rest is in."]) == "Left out: b. The rest is in."


def test_small_things():
    assert (percent_text(0.95), percent_text(0.999)) == ("95%", "99.9%")
    assert (count_text(None), count_text(12), count_text(12.0)) == ("hidden", "12", "12")
    assert (listed([]), listed(["a"]), listed(["a", "b", "c"])) == ("", "a", "a, b and c")


def test_p_values_in_a_sentence() -> None:
    assert [p_relation(value) for value in (0.0123, 0.0002, 0.99999)] == ["= 0.012", "<0.001", ">0.999"]


def test_a_time_that_is_called_by_its_unit_has_it_once():
    assert time_label("days", "days") == time_label("Days", "days").lower() == "days"
    assert time_label("follow_up", "months") == "follow up (months)"
    assert time_label("follow_up", None) == "follow up"
