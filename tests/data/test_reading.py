"""Raw columns of every dtype become plain numbers, days or texts."""

import datetime as dt
import decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.data.contract import Variable
from wardround.data.reading import Days, Numeric, Texts, day_of, day_text, number_of, number_text, read_column
from wardround.data.rounding import rounded_days, rounded_range
from wardround.data.values import values_of

NAN = float("nan")
NUMBER = Variable(name="x", type="number")


def read(values, variable=NUMBER, **series):
    return values_of(read_column(pd.Series(values, **series)), variable)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, 2, 3]),
        pd.Series([1, 2, 3], dtype="int8"),
        pd.Series([1, 2, 3], dtype="uint64"),
        pd.Series([1, 2, 3], dtype="float32"),
        pd.Series([1, 2, 3], dtype="Int64"),
        pd.Series([1, 2, 3], dtype="Float64"),
        pd.Series([1, 2, 3], dtype="int64[pyarrow]"),
        pd.Series([1, 2, 3], dtype="double[pyarrow]"),
        pd.Series(["1", "2.0", " 3e0 "]),
        pd.Series(["1", "2", "3"], dtype="string"),
        pd.Series(["1", "2", "3"], dtype="string[pyarrow]"),
        pd.Series(["1", "2", "3"], dtype="category"),
        pd.Series([1, 2, 3], dtype="category"),
        pd.Series([1, "2", decimal.Decimal("3.00")], dtype=object),
        pd.Series([b"1", np.float64(2), np.int8(3)], dtype=object),
        pd.Series(pd.arrays.SparseArray([1.0, 2.0, 3.0])),
    ],
    ids=lambda column: str(column.dtype),
)
def test_every_way_to_hold_numbers(column):
    values, broken = values_of(read_column(column), NUMBER)
    assert values.tolist() == [1.0, 2.0, 3.0]
    assert broken == []
    codes, broken = values_of(read_column(column), Variable(name="x", type="category", levels=("3", "2", "1")))
    assert codes.tolist() == [2, 1, 0]
    assert broken == []


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1.0, NAN]),
        pd.Series([1, None], dtype="Int64"),
        pd.Series([1, None], dtype="Float64"),
        pd.Series([1, None], dtype="int64[pyarrow]"),
        pd.Series(["1", None]),
        pd.Series(["1", "  "]),
        pd.Series(["1", pd.NA], dtype="string"),
        pd.Series(["1", None], dtype="category"),
        pd.Series(["1", ""], dtype="category"),
        pd.Series([1, pd.NaT], dtype=object),
        pd.Series([1, decimal.Decimal("sNaN")], dtype=object),
        pd.Series([1, np.datetime64("NaT")], dtype=object),
        pd.Series([True, None], dtype="boolean"),
        pd.Series([True, None], dtype=object),
    ],
    ids=lambda column: str(column.dtype),
)
def test_every_way_to_miss_a_value(column):
    values, broken = values_of(read_column(column), NUMBER)
    assert values[0] == 1.0
    assert np.isnan(values[1])
    assert broken == []


@pytest.mark.parametrize(
    "text",
    ["1,5", "1 000", "1_000", "0x10", "inf", "nan", "NA", "twelve", "12.5.1", "--1", "1e", "١٢", "1" * 401, "1e999"],
)
def test_what_is_no_number(text):
    values, broken = read([text, "7"])
    assert [rule for rule, _ in broken] == ["wrong type"]
    assert broken[0][1].tolist() == [True, False]
    assert np.isnan(values[0])


@pytest.mark.parametrize(
    "cell", [[1], {"a": 1}, object(), b"\xff", 10**400, decimal.Decimal("Infinity"), np.inf, complex(1, 1), "a\x00b"]
)
def test_strange_objects_are_of_the_wrong_type(cell):
    for variable in (NUMBER, Variable(name="x", type="date"), Variable(name="x", type="boolean")):
        _, broken = read([cell, None], variable, dtype=object)
        assert [(rule, mask.tolist()) for rule, mask in broken] == [("wrong type", [True, False])]


def test_truth_values_in_every_guise():
    variable = Variable(name="x", type="boolean")
    codes, broken = read(["True", "false", "YES", "no", "1", "0", "1.0", True, 0, 1.0, None], variable, dtype=object)
    assert codes.tolist() == [1, 0, 1, 0, 1, 0, 1, 1, 0, 1, -1]
    assert broken == []
    assert read([True, False], variable)[0].tolist() == [1, 0]
    assert [rule for rule, _ in read([2, 1], variable)[1]] == ["wrong type"]


def test_one_and_true_stay_apart_in_a_column_of_objects():
    reading = read_column(pd.Series([1, True, 1.0, "1"], dtype=object))
    assert [reading.texts[code] for code in reading.codes] == ["1", "True", "1", "1"]


def test_days_are_taken_in_utc():
    variable = Variable(name="x", type="date")
    late = "2024-02-28T23:30:00-02:00"  # the 29th in UTC
    expected = day_of("2024-02-29")
    zoned = pd.Series(pd.to_datetime([late])).dt.tz_convert("Asia/Tokyo")
    for column in ([late], [dt.datetime.fromisoformat(late)], [pd.Timestamp(late)], [dt.date(2024, 2, 29)], zoned):
        values, broken = values_of(read_column(pd.Series(column)), variable)
        assert values.tolist() == [expected]
        assert broken == []


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_datetimes_of_every_resolution(unit):
    column = pd.Series(np.array(["1969-12-31T23:59:59", "2024-02-29T12:00", "NaT"], dtype=f"datetime64[{unit}]"))
    assert read_column(column).days[:2].tolist() == [-1.0, day_of("2024-02-29")]
    assert np.isnan(read_column(column).days[2])


def test_dates_of_arrow_and_periods():
    pyarrow = pytest.importorskip("pyarrow")
    days = [day_of("2024-02-29")]
    for type_ in (pyarrow.date32(), pyarrow.timestamp("us"), pyarrow.timestamp("ns", tz="UTC")):
        column = pd.Series(["2024-02-29"]).astype("datetime64[ns]").dt.tz_localize("UTC")
        column = (column if getattr(type_, "tz", None) else column.dt.tz_localize(None)).astype(pd.ArrowDtype(type_))
        assert values_of(read_column(column), Variable(name="x", type="date"))[0].tolist() == days
    period = pd.Series(pd.PeriodIndex(["2024-02-29"], freq="D"))
    assert read_column(period).days.tolist() == days


@pytest.mark.parametrize(
    "text",
    [
        "29.02.2024",
        "2024-02-30",
        "2024-13-01",
        "20240229",
        "2024-02-29T25:00",
        "2024-W09-4",
        "02/29/2024",
        "0000-01-01",
    ],
)
def test_what_is_no_date(text):
    assert day_of(text) is None


@given(st.integers(min_value=-700_000, max_value=2_900_000))
def test_days_and_back(day):
    assert day_of(day_text(float(day))) == day


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_and_back(number):
    assert number_of(number_text(number)) == number


def test_texts_are_normalised():
    reading = read_column(pd.Series(["Zu\u0308rich ", "Z\u00fcrich"]))
    assert set(reading.texts) == {"Z\u00fcrich"}


def test_wide_integers_keep_their_digits_as_levels():
    levels = ("9007199254740993", "9007199254740992")
    column = pd.Series([9007199254740993, 9007199254740992])
    assert values_of(read_column(column), Variable(name="x", type="category", levels=levels))[0].tolist() == [0, 1]
    _, broken = values_of(read_column(pd.Series([2**53 + 2])), Variable(name="x", type="integer"))
    assert [rule for rule, _ in broken] == ["wrong type"]


_DTYPES = st.sampled_from([None, object, "string", "category", "boolean", "Int64", "Float64", "datetime64[ns]"])
_CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=4),
    st.decimals(), st.dates(), st.datetimes(), st.datetimes(timezones=st.timezones()), st.just(pd.NA), st.just(pd.NaT),
    st.lists(st.integers(), max_size=2), st.fractions(), st.complex_numbers(), st.timedeltas(), st.times(),
)  # fmt: skip
_VARIABLES = st.sampled_from(
    [
        NUMBER,
        Variable(name="x", type="integer", range=(0, 10), missing=(-9.0, "NA")),
        Variable(name="x", type="category", levels=("a", "1")),
        Variable(name="x", type="boolean"),
        Variable(name="x", type="date", missing=("0",)),
    ]
)


@given(cells=st.lists(_CELLS, max_size=6), dtype=_DTYPES, variable=_VARIABLES)
@pytest.mark.filterwarnings("ignore")  # pandas' own, while it builds the series
def test_whatever_the_cells_the_outcome_is_values_and_rules(cells, dtype, variable):
    try:
        column = pd.Series(cells, dtype=dtype)
    except (ValueError, TypeError, OverflowError):
        return  # pandas refuses such a series
    reading = read_column(column)
    assert isinstance(reading, Numeric | Days | Texts)
    values, broken = values_of(reading, variable)
    assert values.shape == (len(cells),)
    assert values.dtype == (np.int32 if variable.category_levels else np.float64)
    assert not np.isinf(values.astype(float)).any()
    for _, mask in broken:
        assert mask.shape == (len(cells),)
        assert mask.any()
        bad = values[mask]
        assert np.all(np.isnan(bad) if values.dtype.kind == "f" else bad < 0)


@given(st.floats(min_value=-1e299, max_value=1e299), st.floats(min_value=-1e299, max_value=1e299), st.booleans())
def test_range_holds_both_ends(one, other, is_integer):
    low, high = min(one, other), max(one, other)
    if is_integer:
        low, high = float(np.floor(low)), float(np.ceil(high))
    least, greatest = rounded_range(low, high, is_integer=is_integer)
    assert least <= low <= high <= greatest
    assert not is_integer or (least.is_integer() and greatest.is_integer())


def test_ranges_are_round():
    assert rounded_range(28, 77, is_integer=True) == (25, 80)
    assert rounded_range(0, 1, is_integer=True) == (0, 1)
    assert rounded_range(63, 63, is_integer=True) == (50, 100)
    assert rounded_range(0.123, 0.987, is_integer=False) == (0.1, 1.0)
    assert rounded_range(0, 0, is_integer=False) == (0, 1)
    assert rounded_days(day_of("2014-03-05"), day_of("2015-07-01")) == (day_of("2014-01-01"), day_of("2015-12-31"))


@pytest.mark.parametrize("type_", ["number", "category", "date", "boolean"])
def test_days_of_no_year_are_of_the_wrong_type(type_):
    far = pd.Series(np.array(["148108-01-01", "2024-01-01", "NaT"], dtype="datetime64[s]"))
    variable = Variable(name="x", type=type_, levels=("2024-01-01",) if type_ == "category" else None)
    for column in (far, far.astype("category")):
        _, broken = values_of(read_column(column), variable)
        assert [bool(mask[0]) for _, mask in broken] == [True]
        assert not any(mask[2] for _, mask in broken)
