"""Table 1 against pandas, scipy and tableone on the pooled records."""

import json
import warnings
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.analytics.by_hand import category, hospitals, number, tables_of
from wardround.analytics.describe import describe
from wardround.analytics.group_tests import compare_levels, compare_means, level_difference
from wardround.analytics.result import Result
from wardround.data.contract import Contract, Setting, Variable
from wardround.engines.script import Event
from wardround.engines.simulated_hospitals import simulate
from wardround.errors import ConfigError, DataError, QuorumError, SiteError
from wardround.testing import check_workflow

SEX, GROUP = category("sex", "f", "m", "x"), category("group", "a", "b", "c")
close = {"rel": 1e-8, "abs": 1e-12}


@st.composite
def pooled_tables(draw):
    """Some 0 to 120 records: numbers at hard places, levels, groups, all with missing values."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    num_records = draw(st.integers(0, 120))
    offset, scale = draw(
        st.sampled_from([(0.0, 1.0), (1e9, 1.0), (-1e12, 1e-2), (0.0, 1e-15), (1e15, 1e14), (3.0, 0.0)])
    )
    columns = {
        "x": offset + scale * rng.standard_t(2, num_records),
        "y": rng.integers(0, 4, num_records).astype(float),
        "sex": rng.integers(0, draw(st.integers(1, 3)), num_records),
        "group": rng.integers(0, draw(st.integers(1, 3)), num_records),
    }
    for name, missing in (("x", np.nan), ("y", np.nan), ("sex", -1), ("group", -1)):
        columns[name][rng.random(num_records) < draw(st.sampled_from([0.0, 0.2, 1.0]))] = missing
    return columns, rng.integers(0, draw(st.integers(1, 8)), num_records)


VARIABLES = [number("x"), Variable(name="y", type="integer"), SEX, GROUP]


def columns_of(columns, names=("a", "b", "c")):
    """(records in it) for everybody and each group."""
    group = columns["group"]
    return [group >= 0, *(group == code for code in range(len(names)))]


@given(pooled_tables())
def test_equals_pooled(table):
    columns, site_of = table
    result = hospitals(VARIABLES, columns, site_of, 8).run(describe(by="group", minimum_cell=1))
    assert result.num_records == np.count_nonzero(columns["group"] >= 0)
    assert result.num_ungrouped == np.count_nonzero(columns["group"] < 0)
    assert result.sites == tuple(f"site{i}" for i in range(8))
    for name in ("x", "y"):
        size = np.nanmax(np.abs(columns[name]), initial=0.0)
        for column, is_in in zip(result.variable(name).columns, columns_of(columns), strict=True):
            check_number(column, columns[name][is_in], size)
    for column, is_in in zip(result.variable("sex").columns, columns_of(columns), strict=True):
        codes = columns["sex"][is_in]
        assert [level.count for level in column.levels] == [np.count_nonzero(codes == code) for code in range(3)]
        assert column.num_missing == np.count_nonzero(codes < 0)


def check_number(column, values, size):
    present = pd.Series(values).dropna()
    assert (column.num_records, column.num_missing) == (len(values), len(values) - len(present))
    if not len(present):
        assert column.mean is None
        assert column.quantiles[0].value is None
        return
    assert column.mean == pytest.approx(present.mean(), rel=1e-12, abs=1e-14 * size)
    if len(present) == 1:
        assert column.sd is None
    else:
        # The pooled two-pass spread itself is rounded at the last place of the values.
        assert column.sd == pytest.approx(present.std(), rel=1e-9, abs=1e-15 * size)
    for quantile in column.quantiles:
        assert abs(quantile.value - np.quantile(present, quantile.probability)) <= quantile.bound


@given(pooled_tables(), st.integers(0, 2**32))
def test_counts_and_quantiles_do_not_depend_on_the_split(table, seed):
    columns, site_of = table
    here = hospitals(VARIABLES, columns, site_of, 8).run(describe(by="group"))
    elsewhere = np.random.default_rng(seed).permutation(site_of)
    there = hospitals(VARIABLES, columns, elsewhere, 8).run(describe(by="group"))
    for one, other in zip(here.variables, there.variables, strict=True):
        for left, right in zip(one.columns, other.columns, strict=True):
            assert (left.quantiles, left.levels, left.num_missing) == (right.quantiles, right.levels, right.num_missing)


@pytest.mark.parametrize("num_groups", [2, 3])
def test_tests_equal_scipy(num_groups):
    rng = np.random.default_rng(num_groups)
    group = rng.integers(0, num_groups, 500)
    x = np.where(rng.random(500) < 0.1, np.nan, 1e9 + rng.normal(group * 0.2, 1 + group))
    sex = np.where(rng.random(500) < 0.1, -1, rng.integers(0, 3, 500))
    names = ("a", "b", "c")[:num_groups]
    variables = [number("x"), SEX, category("group", *names)]
    result = hospitals(variables, {"x": x, "sex": sex, "group": group}, rng.integers(0, 9, 500)).run(
        describe(by="group")
    )
    # Less the offset, which is exact: scipy itself loses six digits to it.
    parts = [x[(group == code) & ~np.isnan(x)] - 1e9 for code in range(num_groups)]
    expected = stats.ttest_ind(*parts, equal_var=False) if num_groups == 2 else stats.f_oneway(*parts)
    test = result.variable("x").test
    assert test.name == ("Welch's t-test" if num_groups == 2 else "one-way ANOVA")
    assert (test.statistic, test.p_value) == pytest.approx((expected.statistic, expected.pvalue), **close)
    table = pd.crosstab(sex[sex >= 0], group[sex >= 0])
    chi_square = stats.chi2_contingency(table)
    test = result.variable("sex").test
    assert (test.statistic, test.p_value) == pytest.approx((chi_square.statistic, chi_square.pvalue), **close)


HEART = ("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg")
HEART += ("thalach", "exang", "oldpeak", "slope", "ca", "thal", "num")


def heart_frames(folder):
    frames = {}
    for site in ("cleveland", "hungarian", "switzerland", "va"):
        frame = pd.read_csv(folder / "heart_uci4" / f"processed.{site}.data", header=None, na_values="?", names=HEART)
        frames[site] = frame.assign(num=frame["num"].astype(int))
    return frames


CODED = ("sex", "cp", "fbs", "restecg", "exang", "slope", "ca", "thal")


@pytest.mark.parametrize("by", ["sick", "num"])
def test_equals_tableone_on_four_hospitals(shared_data, by):
    frames = {site: frame.assign(sick=frame["num"] > 0) for site, frame in heart_frames(shared_data).items()}
    pooled = pd.concat(frames.values(), ignore_index=True)
    numeric = ("age", "trestbps", "chol", "thalach", "oldpeak")
    federation = simulate(frames, disclosure="none")
    result = federation.run(describe(variables=(*numeric, *CODED), by=by, categorical=CODED))
    check_against_tableone(result, pooled, by, numeric, CODED)
    for name in numeric:
        for column, (_, part) in zip(result.variable(name).columns[1:], pooled.groupby(by), strict=True):
            for quantile in column.quantiles:
                exact = part[name].quantile(quantile.probability)
                assert abs(quantile.value - exact) <= quantile.bound <= 1e-4


def check_against_tableone(result, pooled, by, numeric, coded):
    from tableone import TableOne

    pooled = pooled.assign(**{by: pooled[by].map(str, na_action="ignore").astype(object)})

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own advice, and deprecations of its dependencies
        table = TableOne(
            pooled, columns=[*numeric, *coded], categorical=list(coded), groupby=by, pval=True, smd=True,
            htest_name=True, include_null=False,
        )  # fmt: skip
    groups = [str(group) for group in sorted(pooled[by].dropna().unique())]
    for name in (*numeric, *coded):
        ours, theirs = result.variable(name), table.htest_table.loc[name]
        assert ours.test.p_value == pytest.approx(theirs["P-Value"], rel=1e-8), name
        for first, second in combinations(groups, 2):
            smd = table.smd_table.loc[name, f"SMD ({first},{second})"]
            (ours_smd,) = [d.value for d in ours.differences if d.groups == (first, second)]
            assert ours_smd == pytest.approx(smd, rel=1e-8), name
    for name in numeric:
        for column in result.variable(name).columns[1:]:
            assert column.mean == pytest.approx(table.cont_describe["mean"][column.group][name], rel=1e-8)
            assert column.sd == pytest.approx(table.cont_describe["std"][column.group][name], rel=1e-8)
        everybody, known = result.variable(name).columns[0], pooled[name][pooled[by].notna()]
        assert (everybody.mean, everybody.sd) == pytest.approx((known.mean(), known.std()), rel=1e-8)
        assert everybody.num_missing == known.isna().sum()
    for name in coded:
        for column in result.variable(name).columns[1:]:
            freq = table.cat_describe["freq"][column.group][name]
            counts = {level.level: level.count for level in column.levels}
            assert {level.removesuffix(".0"): count for level, count in freq.items() if count} == {
                level: count for level, count in counts.items() if count
            }


@pytest.mark.slow
def test_equals_tableone_on_186_hospitals(shared_data):
    folder = shared_data / "eicu_demo"
    stays = pd.read_parquet(folder / "patient.parquet")
    stays["age"] = pd.to_numeric(stays["age"].replace("> 89", "90"))
    stays["dead"] = stays["hospitaldischargestatus"].eq("Expired")
    physiology = pd.read_parquet(folder / "apacheapsvar.parquet")
    numeric = ("age", "admissionheight", "heartrate", "sodium", "wbc", "creatinine")
    coded = ("gender", "unittype", "eyes")
    pooled = stays.merge(physiology, on="patientunitstayid")
    pooled = pooled[["hospitalid", "dead", *numeric, *coded]].replace(-1, np.nan)
    pooled["gender"] = pooled["gender"].replace("", None)
    frames = {f"h{site}": part.drop(columns="hospitalid") for site, part in pooled.groupby("hospitalid")}
    assert len(frames) > 150
    result = simulate(frames, disclosure="none").run(describe(by="dead", categorical=("eyes",)))
    check_against_tableone(result, pooled, "dead", numeric, ("gender", "unittype"))
    assert len(result.sites) == len(frames)
    assert f"at {len(frames)} sites\n" in result.summary()


def test_what_is_absent_stays_absent():
    columns = {
        "x": np.full(12, np.nan),
        "constant": np.full(12, 0.1),
        "once": np.array([5.0] + [np.nan] * 11),
        "sex": np.array([0, 1] * 6),
        "group": np.array([0, 0, 1, 1] * 3),
    }
    variables = [number("x"), number("constant"), number("once"), SEX, GROUP]
    # One record at site 0, none at site 1 (and so no "m" at either).
    result = hospitals(variables, columns, [0] + [2] * 11, 4).run(describe(by="group", minimum_cell=1))
    assert [column.mean for column in result.variable("x").columns] == [None] * 4
    constant = result.variable("constant")
    assert (constant.columns[0].mean, constant.columns[0].sd) == (0.1, 0.0)
    assert constant.test is None
    assert [difference.value for difference in constant.differences] == [None] * 3
    assert result.variable("once").columns[1].sd is None
    assert result.variable("once").columns[1].mean == 5.0
    assert result.variable("sex").columns[3].percent(result.variable("sex").columns[3].levels[0]) is None
    assert result.variable("sex").test.groups == ("a", "b")
    assert "nan" not in (result.summary() + result.to_json()).lower()
    assert "None" not in result.summary()
    assert result.to_dict()["variables"][0]["groups"][0]["mean"] is None


def test_no_records_at_all():
    columns = {"x": np.zeros(0), "sex": np.zeros(0), "group": np.zeros(0)}
    result = hospitals([number("x"), SEX, GROUP], columns, np.zeros(0, int), 3).run(describe(by="group"))
    assert result.num_records == 0
    assert "nan" not in result.summary().lower()


def test_records_without_a_group_are_left_out_and_counted():
    columns = {"x": np.arange(30.0), "group": np.array([0, 1, -1] * 10)}
    result = hospitals([number("x"), GROUP], columns, np.arange(30) % 4).run(describe(by="group"))
    assert (result.num_records, result.num_ungrouped, result.num_by_group) == (20, 10, (10, 10, 0))
    assert result.variable("x").columns[0].mean == np.delete(np.arange(30.0), np.arange(2, 30, 3)).mean()
    assert "10 records without group are left out." in result.summary()


def test_grouped_by_an_integer_of_short_range():
    grade = Variable(name="grade", type="integer", range=(1, 3))
    columns = {"x": np.arange(30.0), "grade": np.where(np.arange(30) % 10 == 0, np.nan, np.arange(30) % 3 + 1.0)}
    simulation = hospitals([number("x"), grade], columns, np.arange(30) % 2)
    result = simulation.run(describe(by="grade"))
    assert result.groups == ("1", "2", "3")
    assert result.num_ungrouped == 3
    result = simulation.run(describe(variables=("grade",), categorical=("grade",)))
    assert [(level.level, level.count) for level in result.variables[0].columns[0].levels] == [
        ("1", 9), ("2", 9), ("3", 9)
    ]  # fmt: skip
    outside = {"x": np.arange(3.0), "grade": np.array([1.0, 2.0, 4.0])}
    with pytest.raises(SiteError, match="outside its declared range"):
        hospitals([number("x"), grade], outside, [0, 0, 0]).run(describe(by="grade"))


def test_dates_are_written_as_dates():
    days = Variable(name="admitted", type="date")
    result = hospitals([days], {"admitted": np.arange(19000.0, 19101.0)}, np.arange(101) % 3).run(
        describe(minimum_cell=1)
    )
    assert "2022-02-27 [2022-02-02, 2022-03-24]" in result.summary()
    assert "2022-02-27 (29.3 days)" in result.summary()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variables": ("sexx",)}, "did you mean 'sex'"),
        ({"variables": ("note",)}, "'note' is text"),
        ({"variables": ("x", "group"), "by": "group"}, "grouped by"),
        ({"by": "x"}, "'x' is a number without levels"),
        ({"by": "nothing"}, "no variable 'nothing'"),
        ({"variables": ()}, "no variable to describe"),
        ({"quantiles": (0.5, 1.0)}, "not between 0 and 1"),
        ({"categorical": ("x",)}, "'x' is a number without levels"),
        ({"variables": ("x",), "categorical": ("sex",)}, "not among the variables"),
        ({"minimum_cell": 0}, "at least 1"),
    ],
)
def test_wrong_options_are_refused_before_any_work(options, message):
    contract = Contract(variables=(number("x"), SEX, GROUP, Variable(name="note", type="text")))
    steps = describe(**options).steps(Setting(contract=contract, sites=("a",)))
    with pytest.raises(ConfigError, match=message):
        next(steps)


def test_text_patient_and_group_are_left_out_by_default():
    frame = pd.DataFrame({"pid": ["p1", "p2"] * 8, "age": range(16), "sex": ["f", "m"] * 8, "dead": [True, False] * 8})
    result = simulate({"a": frame, "b": frame}, patient="pid").run(describe(by="dead"))
    assert [variable.variable for variable in result.variables] == ["age", "sex"]


def test_patient_column_in_the_contract_is_left_out_by_default():
    contract = Contract(variables=(number("x"), Variable(name="pid", type="integer")), patient="pid")
    ask = next(describe().steps(Setting(contract=contract, sites=("a",))))
    assert ask.arguments["variables"] == ("x",)


def test_sites_that_disagree_about_levels_are_told():
    simulation = hospitals([SEX], {"sex": np.zeros(4)}, np.arange(4) % 2)
    other = Contract(variables=(category("sex", "f", "m"),))
    steps = describe().steps(Setting(contract=other, sites=("site0",)))
    ask = next(steps)
    with pytest.raises(DataError, match="send the study's contract"):
        ask.function(simulation._data["site0"], **ask.arguments)


def test_totals_are_over_the_same_sites():
    rng = np.random.default_rng(5)
    x, site_of = rng.normal(0, 1, 90), np.arange(90) % 3
    leaves = [Event(site="site1", behaviour="drops_before", round=3)]
    run = hospitals([number("x")], {"x": x}, site_of, script=leaves, minimum_sites=2).record(describe())
    assert run.result.sites == ("site0", "site2")
    left = x[site_of != 1]
    assert run.result.num_records == 60
    assert run.result.variables[0].columns[0].mean == pytest.approx(left.mean(), rel=1e-12)
    for quantile in run.result.variables[0].columns[0].quantiles:
        assert abs(quantile.value - np.quantile(left, quantile.probability)) <= quantile.bound


def test_sites_that_keep_coming_and_going_end_the_run():
    lags = [Event(site="site1", behaviour="lags", round=r, seconds=1e9) for r in range(2, 99, 2)]
    simulation = hospitals([number("x")], {"x": np.arange(9.0)}, np.arange(9) % 3, script=lags, minimum_sites=2)
    with pytest.raises(QuorumError, match="changed within each of 4 attempts"):
        simulation.run(describe())


def test_result_has_every_face():
    rng = np.random.default_rng(0)
    columns = {"x": rng.normal(0, 1, 200), "sex": rng.integers(0, 2, 200), "group": rng.integers(0, 2, 200)}
    for by in (None, "group"):
        result = hospitals([number("x", unit="kg"), SEX, GROUP], columns, np.arange(200) % 4).run(describe(by=by))
        assert isinstance(result, Result)
        whole = json.loads(result.to_json())
        assert whole == result.to_dict()
        assert set(whole) == {
            "by", "groups", "num_records", "num_ungrouped", "sites", "minimum_cell", "variables"
        }  # fmt: skip
        assert set(whole["variables"][0]) == {"variable", "type", "unit", "groups", "test", "smd", "is_hidden"}
        assert [group["group"] for group in whole["variables"][0]["groups"]] == (
            [None, "a", "b", "c"] if by else [None]
        )
        assert result.plot().axes
        frame = result.to_frame()
        assert frame.index.names == ["variable", "level"]
        assert frame.loc[("n", ""), "everybody"] == "200"
        assert ("x, kg", "median [Q1, Q3]") in frame.index
        assert list(frame.columns[: 1 + len(result.groups)]) == ["everybody", *result.groups]


def test_ten_thousand_columns_go_in_parts_of_bounded_size():
    names = [f"x{i}" for i in range(3000)]
    columns = dict.fromkeys(names, np.arange(8.0))
    record = hospitals([number(name) for name in names], columns, [0] * 8).record(describe()).record
    assert max(round_.bytes_up for round_ in record.rounds) < 2**24
    assert len(record.rounds) < 40


def test_fisher_of_small_two_by_two_tables():
    test = compare_levels(("a", "b"), np.array([[3, 1], [1, 9]]))
    assert test.name == "Fisher's exact test"
    assert test.p_value == pytest.approx(stats.fisher_exact([[3, 1], [1, 9]]).pvalue)


def test_nothing_to_test():
    assert compare_levels(("a", "b"), np.array([[3, 1], [0, 0]])) is None
    assert compare_levels(("a", "b"), np.array([[3, 0], [4, 0]])) is None
    assert compare_means(("a", "b"), np.array([3, 0]), np.array([1.0, 0.0]), np.array([1.0, 0.0])) is None


def test_groups_of_one_value_are_compared_by_analysis_of_variance():
    parts = [np.array([1.0, 2.0, 4.0]), np.array([9.0])]
    moments = np.array([(len(p), p.mean(), ((p - p.mean()) ** 2).sum()) for p in parts]).T
    test = compare_means(("a", "b"), moments[0].astype(int), moments[1], moments[2])
    assert test.p_value == pytest.approx(stats.f_oneway(*parts).pvalue)


def test_differences_of_levels():
    assert level_difference(np.array([[5, 5], [0, 0]])) == 0.0
    assert level_difference(np.array([[5, 0], [0, 5]])) is None  # infinitely far apart
    assert level_difference(np.array([[5, 0], [1, 0]])) is None
    first, second = 0.25, 0.6
    pooled = np.sqrt((first * (1 - first) + second * (1 - second)) / 2)
    assert level_difference(np.array([[3, 4], [1, 6]])) == pytest.approx((second - first) / pooled)


def test_keeps_the_contract_of_workflows():
    rng = np.random.default_rng(4)
    columns = {
        "x": rng.normal(0, 1, 90),
        "y": rng.integers(0, 9, 90),
        "sex": rng.integers(-1, 3, 90),
        "group": rng.integers(0, 2, 90),
    }
    result = check_workflow(describe(by="group"), *tables_of(VARIABLES, columns, np.arange(90) % 3))
    assert result.num_records == 90
