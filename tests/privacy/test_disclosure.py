"""The rules: presets, limits, tightening, and what is shown of small counts."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wardround
from wardround.privacy.disclosure import (
    DEFAULT_MINIMUM_CELL,
    PRESETS,
    RULES,
    DisclosureRules,
    is_small,
    round_count,
    rules_of,
    shown_count,
)

rules = st.builds(
    DisclosureRules,
    preset=st.sampled_from(["a", "b", "c"]),
    minimum_cell=st.integers(1, 20),
    minimum_rows_site=st.integers(1, 20),
    minimum_rows_total=st.integers(1, 20),
    parameters_per_row=st.sampled_from([0.1, 0.33, 1.0, 5.0, math.inf]),
    site_dominance=st.sampled_from([0.2, 0.5, 1.0]),
    patient_dominance=st.sampled_from([0.2, 0.5, 1.0]),
    rounding=st.integers(1, 10),
    allows_site_results=st.booleans(),
    own_cells=st.sampled_from(["allow", "refuse"]),
)


def strictness(given: DisclosureRules) -> tuple[float, ...]:
    """Larger in each place is stricter."""
    return (
        given.minimum_cell,
        given.minimum_rows_site,
        given.minimum_rows_total,
        -given.parameters_per_row,
        -given.site_dominance,
        -given.patient_dominance,
        given.rounding,
        not given.allows_site_results,
        given.own_cells == "refuse",
    )


@given(rules, rules)
def test_tightened_rules_are_never_looser(one: DisclosureRules, other: DisclosureRules) -> None:
    both = strictness(one.tightened_by(other))
    assert both == tuple(map(max, strictness(one), strictness(other)))


@given(rules, rules, rules)
def test_tightening_is_a_meet(a: DisclosureRules, b: DisclosureRules, c: DisclosureRules) -> None:
    assert a.tightened_by(a) == a
    assert a.tightened_by(b) == b.tightened_by(a)
    assert a.tightened_by(b).tightened_by(c) == a.tightened_by(b.tightened_by(c))
    assert a.tightened_by(b).tightened_by(b) == a.tightened_by(b)


def test_every_rule_is_tightened() -> None:
    # A rule that is added must be thought of in `tightened_by` and in `strictness`.
    assert len(RULES) == len(strictness(DisclosureRules()))
    assert {field.name for field in dataclasses.fields(DisclosureRules)} == {*RULES, "preset"}


def test_presets_are_what_their_sources_say() -> None:
    assert wardround.DisclosureRules() == PRESETS["standard"] == rules_of(None)
    datashield = rules_of("datashield")
    assert (datashield.minimum_cell, datashield.minimum_rows_site, datashield.parameters_per_row) == (3, 3, 0.33)
    assert datashield.own_cells == "refuse"
    nhs = rules_of("nhs")
    assert [nhs.shown(n) for n in (0, 1, 7, 8, 12, 13)] == [0, None, None, 10, 10, 15]
    cms = rules_of("cms11")
    assert [cms.shown(n) for n in (0, 1, 10, 11, 12)] == [0, None, None, 11, 12]
    none = rules_of("none")
    assert strictness(none) == (1, 1, 1, -math.inf, -1.0, -1.0, 1, False, False)
    assert none.summary() == "none: nothing is hidden"
    assert all(name == preset.preset for name, preset in PRESETS.items())


def test_a_changed_preset_says_so() -> None:
    assert DisclosureRules.of("nhs", rounding=5) == PRESETS["nhs"]
    changed = DisclosureRules.of("nhs", minimum_cell=10)
    assert (changed.preset, changed.minimum_cell, changed.rounding) == ("nhs (changed)", 10, 5)
    assert "counts from 1 to 9 are hidden" in changed.summary()
    assert changed.tightened_by(PRESETS["standard"]).preset == "nhs (changed) and standard"


def test_a_summary_names_each_rule_that_refuses() -> None:
    strict = DisclosureRules(
        minimum_rows_site=10, minimum_rows_total=50, parameters_per_row=0.5, site_dominance=0.8, patient_dominance=0.1
    )
    for part in ("1 to 4", "10 records", "50 records", "0.5 parameters", "80%", "10%", "no result of one site alone"):
        assert part in strict.summary()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minimum_cell": 0}, "minimum_cell must be a whole number in"),
        ({"minimum_cell": 2.5}, "minimum_cell=2.5"),
        ({"minimum_rows_site": True}, "minimum_rows_site"),
        ({"minimum_rows_total": -1}, "minimum_rows_total"),
        ({"rounding": 1001}, r"rounding must be a whole number in \[1, 1000\]"),
        ({"parameters_per_row": 0}, "parameters_per_row must be greater than 0"),
        ({"parameters_per_row": math.nan}, "parameters_per_row"),
        ({"site_dominance": 1.5}, r"site_dominance must be in \(0, 1\]"),
        ({"patient_dominance": "much"}, "patient_dominance"),
        ({"allows_site_results": 1}, "allows_site_results must be true or false"),
        ({"own_cells": "hide"}, 'own_cells must be "allow" or "refuse"'),
        ({"minimum_sell": 3}, "unknown disclosure rule 'minimum_sell'; known: minimum_cell"),
        ({"preset": "dhs"}, "preset must be one of standard, datashield, nhs"),
    ],
)
def test_rules_out_of_range_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DisclosureRules.of(**changes)  # type: ignore[arg-type]


def test_rules_are_given_by_name_or_value() -> None:
    own = DisclosureRules(minimum_cell=7)
    assert rules_of(own) is own
    with pytest.raises(TypeError, match="DisclosureRules or a preset's name"):
        rules_of(7)  # type: ignore[arg-type]


@given(st.integers(0, 60), st.integers(1, 20), st.integers(1, 10))
def test_small_counts_are_not_shown(count: int, floor: int, base: int) -> None:
    shown = DisclosureRules(minimum_cell=floor, rounding=base).shown(count)
    assert (shown is None) == (0 < count < floor)
    if shown is not None:
        assert shown % base == 0
        assert (shown == 0) == (count == 0)
        assert abs(shown - count) <= base / 2 or shown == base


def test_the_default_floor_is_five() -> None:
    assert DEFAULT_MINIMUM_CELL == 5
    assert [shown_count(count) for count in (0, 1, 4, 5, 1234)] == ["0", "1 to 4", "1 to 4", "5", "1234"]
    assert [is_small(count) for count in (0, 1, 4, 5)] == [False, True, True, False]


@given(st.integers(1, 30), st.integers(0, 60))
def test_small_counts_look_alike(floor: int, count: int) -> None:
    if 0 < count < floor:
        assert shown_count(count, floor) == shown_count(1, floor)
    else:
        assert shown_count(count, floor) == str(count)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="count=-1"):
        shown_count(-1)
    with pytest.raises(ValueError, match="minimum_cell=0"):
        is_small(1, 0)
    with pytest.raises(ValueError, match="base=0"):
        round_count(1, 0)
