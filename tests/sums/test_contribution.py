import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.samples import Moments, Update
from wardround.errors import ContributionError, LocalProtocolError
from wardround.sums import Array, Contribution, bounded, codec, exact, people
from wardround.sums import accumulator as accumulator_module
from wardround.sums.accumulator import Accumulator, check_values, encode, encoded_bytes
from wardround.sums.codec import MAX_SITES
from wardround.sums.contribution import Flat, Layout, layout_of


class Mixed(Contribution):
    a: Array = exact("n", 2)
    count: int = people()
    b: float = exact()
    counts: Array = people("n")
    step: Array = bounded("m", clip_norm="clip", bits=16)


def layout(n: int = 2, m: int = 3, clip: float = 1.0) -> Layout:
    return layout_of(Mixed, {"n": n, "m": m, "clip": clip})


def mixed(**changed: Any) -> Mixed:
    fields: dict[str, Any] = {"a": np.ones((2, 2)), "count": 3, "b": 0.5, "counts": np.array([1, 2])}
    return Mixed(**({"step": np.ones(3)} | fields | changed))


NUMBERS = st.floats(-1e6, 1e6)
COUNTS = st.integers(0, 10**9)


@st.composite
def contributions(draw: st.DrawFn, n: int = 2, m: int = 3) -> Mixed:
    return Mixed(
        a=np.array(draw(st.lists(NUMBERS, min_size=2 * n, max_size=2 * n))).reshape(n, 2),
        count=draw(COUNTS),
        b=draw(NUMBERS),
        counts=np.array(draw(st.lists(COUNTS, min_size=n, max_size=n)), np.int64),
        step=np.array(draw(st.lists(NUMBERS, min_size=m, max_size=m))),
    )


def values_of(contribution: Contribution) -> list[Any]:
    return [np.asarray(getattr(contribution, name)).tolist() for name in type(contribution).declarations]


def rngs(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# The declaration


def test_every_field_needs_a_declaration() -> None:
    with pytest.raises(TypeError, match=r"Bare\.number has no declaration"):

        class Bare(Contribution):
            number: float = 0.0


def test_a_contribution_without_fields_is_refused() -> None:
    with pytest.raises(TypeError, match="declares no field"):

        class Empty(Contribution):
            pass


def test_a_contribution_is_frozen_and_keyword_only() -> None:
    contribution = mixed()
    with pytest.raises(AttributeError):
        contribution.b = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        Mixed(1, 2)  # type: ignore[misc]


@given(contributions(), contributions())
def test_addition_is_fieldwise(one: Mixed, other: Mixed) -> None:
    before = values_of(one), values_of(other)
    total = one + other
    assert (values_of(one), values_of(other)) == before
    for name in Mixed.declarations:
        expected = np.asarray(getattr(one, name)) + np.asarray(getattr(other, name))
        assert np.asarray(getattr(total, name)).tolist() == expected.tolist()
    assert values_of(other + one) == values_of(total)


def test_addition_of_lists_and_small_integers_does_not_join_or_wrap() -> None:
    one = mixed(a=[[1.0, 2.0], [3.0, 4.0]], counts=np.array([200, 1], np.uint8))
    total = one + one
    assert np.asarray(total.a).tolist() == [[2.0, 4.0], [6.0, 8.0]]
    assert np.asarray(total.counts).tolist() == [400, 2]


def test_addition_of_other_types_or_shapes_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot add Moments to Mixed"):
        mixed() + Moments(total=np.zeros(1), square=0.0, num_records=1)  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"a has shape \(2, 2\) on the left and \(1, 2\)"):
        mixed() + mixed(a=np.ones((1, 2)))


@pytest.mark.parametrize(
    ("symbols", "message"),
    [
        ({"n": 2, "m": 3}, "step needs a value for 'clip'"),
        ({"n": -1, "m": 3, "clip": 1.0}, "a: a size must be a whole number"),
        ({"n": 1.5, "m": 3, "clip": 1.0}, "a: a size must be a whole number"),
        ({"n": math.nan, "m": 3, "clip": 1.0}, "a: a size must be a whole number"),
        ({"n": math.inf, "m": 3, "clip": 1.0}, "a: a size must be a whole number"),
        ({"n": 10**400, "m": 3, "clip": 1.0}, "a: a size must be a whole number"),
        ({"n": 2**31, "m": 3, "clip": 1.0}, "elements; the limit is"),
        ({"n": 2, "m": 3, "clip": 0.0}, "step: clip_norm must be in"),
        ({"n": 2, "m": 3, "clip": math.nan}, "step: clip_norm must be in"),
        ({"n": 2, "m": 3, "clip": math.inf}, "step: clip_norm must be in"),
        ({"n": 2, "m": 3, "clip": 10**400}, "step: clip_norm must be in"),
    ],
)
def test_bad_symbols_are_refused_with_the_field(symbols: dict[str, float], message: str) -> None:
    with pytest.raises(ContributionError, match=message):
        layout_of(Mixed, symbols)


@pytest.mark.parametrize("bits", [3, 33, 0, -1])
def test_bits_out_of_range_are_refused(bits: int) -> None:
    with pytest.raises(ContributionError, match=r"Update\.step: "):
        layout_of(Update, {"size": 3, "clip": 1.0, "bits": bits})


# Form and numbers


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"a": np.ones((2, 3))}, r"Mixed\.a must have shape \(2, 2\), got \(2, 3\)"),
        ({"a": 1.0}, r"Mixed\.a must have shape"),
        ({"a": np.ones((2, 2), complex)}, r"Mixed\.a holds complex128"),
        ({"a": np.full((2, 2), "x")}, r"Mixed\.a holds <U1"),
        ({"a": [[1.0], [1.0, 2.0]]}, r"Mixed\.a cannot be read as an array"),
        ({"a": None}, r"Mixed\.a holds object"),
        ({"a": np.full((2, 2), 2**53 + 1)}, r"Mixed\.a holds an integer over 2\^53"),
        ({"a": np.full((2, 2), -(2**63))}, r"Mixed\.a holds an integer over 2\^53"),
        ({"b": np.ones(1)}, r"Mixed\.b must have shape \(\), got \(1,\)"),
        ({"b": True}, r"Mixed\.b holds bool"),
        ({"b": 10**400}, r"Mixed\.b holds object"),
        ({"b": math.nan}, r"Mixed\.b contains NaN"),
        ({"b": -math.inf}, r"Mixed\.b contains infinity"),
        ({"b": 1e30}, r"Mixed\.b contains a number of 9\.2e\+17 or more"),
        ({"a": np.array([[0.0, 0.0], [0.0, math.nan]])}, r"Mixed\.a contains NaN"),
        ({"count": -1}, r"Mixed\.count counts people and contains a negative number"),
        ({"count": 1.0}, r"Mixed\.count holds float64"),
        ({"counts": np.array([0, 2**64 - 1], np.uint64)}, r"Mixed\.counts counts people and contains"),
        ({"counts": np.array([0, 2**63 - 1])}, r"Mixed\.counts counts people and contains one too large to be summed"),
        ({"counts": np.array([0, -5])}, r"Mixed\.counts counts people and contains a negative number"),
        ({"step": np.array([0.0, math.nan, 1.0])}, r"Mixed\.step contains NaN or infinity"),
        ({"step": np.array([0.0, math.inf, 1.0], np.float32)}, r"Mixed\.step contains NaN or infinity"),
        ({"step": np.array([1, 2, 3])}, r"Mixed\.step holds int64"),
        ({"step": np.array([1e200, 0.0, 0.0])}, r"Mixed\.step has a norm of 1e154 or more"),
    ],
)
def test_refused_with_the_field_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ContributionError, match=message):
        encode(layout().flatten(mixed(**changed)), layout(), 10, rngs())
    kept = Accumulator(layout(), 10)
    with pytest.raises(ContributionError, match=message):
        kept.add_flat(layout().flatten(mixed(**changed)), rngs())


@pytest.mark.parametrize("garbage", [None, {}, 3, Moments(total=np.ones(1), square=1.0, num_records=1), mixed])
def test_another_type_is_refused(garbage: object) -> None:
    with pytest.raises(ContributionError, match="expected a Mixed, the site function returned"):
        layout().flatten(garbage)


def test_numbers_of_many_kinds_are_taken() -> None:
    form = layout_of(Moments, {"num_columns": 2})
    for total in ([1, 2], np.array([1, 2], np.int8), np.array([1, 2], np.float16), np.array([1, 2], ">f8"),
                  np.array([1, 2], np.longdouble), np.array([[1, 9], [2, 9]])[:, 0]):  # fmt: skip
        flat = form.flatten(Moments(total=np.asarray(total), square=np.float32(1), num_records=np.uint8(3)))  # type: ignore[arg-type]
        check_values(flat, form, 10)
        assert flat.exact.tolist() == [1.0, 2.0, 1.0]
        assert flat.people.tolist() == [3]


@given(contributions())
def test_flatten_and_unflatten_are_inverse(contribution: Mixed) -> None:
    form = layout()
    again = form.unflatten(form.flatten(contribution))
    assert values_of(again) == values_of(contribution)


def test_empty_fields() -> None:
    form = layout(n=0, m=0)
    nothing = Mixed(a=np.empty((0, 2)), count=1, b=2.0, counts=np.empty(0, np.int64), step=np.empty(0))
    total = total_of(form, [nothing, nothing], 3)
    assert values_of(total) == [[], 2, 4.0, [], []]


def test_totals_are_read_only() -> None:
    total = total_of(layout(), [mixed(), mixed()], 2)
    for array in (total.a, total.counts, total.step):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


# Sums


def total_of(form: Layout, summands: list[Mixed], num_sites: int) -> Any:
    accumulator = Accumulator(form, num_sites)
    for i, summand in enumerate(summands):
        accumulator.add_flat(form.flatten(summand), rngs(i))
    return accumulator.total()


@given(
    st.lists(contributions(), min_size=1, max_size=6), st.randoms(), st.integers(0, 6), st.sampled_from((1, 3, 8, 64))
)
def test_sums_do_not_depend_on_order(summands: list[Mixed], shuffle: Any, num_encoded: int, block: int) -> None:
    """Nor on how they are grouped or batched, nor on whether a site or the accumulator encodes."""
    form, num_sites = layout(), 10
    expected = values_of(total_of(form, summands, num_sites))
    order = list(enumerate(summands))
    shuffle.shuffle(order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accumulator_module, "BLOCK", block)
        accumulator = Accumulator(form, num_sites)
        for place, (i, summand) in enumerate(order):
            flat = form.flatten(summand)
            if place < num_encoded:
                accumulator.add(encode(flat, form, num_sites, rngs(i)))
            else:
                accumulator.add_flat(flat, rngs(i))
        assert values_of(accumulator.total()) == expected
        assert values_of(accumulator.total()) == expected


@given(st.lists(contributions(), min_size=1, max_size=8))
def test_exact_fields_and_counts_are_summed_exactly(summands: list[Mixed]) -> None:
    total = total_of(layout(), summands, 8)
    assert total.count == sum(summand.count for summand in summands)
    assert total.counts.tolist() == np.sum([summand.counts for summand in summands], axis=0).tolist()
    assert total.b == pytest.approx(math.fsum(summand.b for summand in summands), rel=2**-52, abs=8 * 2.0**-64)
    for index in np.ndindex(2, 2):
        expected = math.fsum(summand.a[index] for summand in summands)
        assert total.a[index] == pytest.approx(expected, rel=2**-52, abs=8 * 2.0**-64)


def test_large_contributions_are_summed_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    form = layout(n=500)
    rng = rngs(4)
    summands = [mixed(a=rng.normal(size=(500, 2)) * 10.0**i, counts=rng.integers(0, 9, 500)) for i in range(3)]
    expected = values_of(total_of(form, summands, 3))
    monkeypatch.setattr(accumulator_module, "BLOCK", 128)
    monkeypatch.setattr(codec, "BLOCK", 100)
    assert values_of(total_of(form, summands, 3)) == expected


def test_a_kept_buffer_may_be_changed_after_it_was_added() -> None:
    form, buffer = layout(), np.ones((2, 2))
    accumulator = Accumulator(form, 2)
    for value in (1.0, 2.0):
        buffer[:] = value
        accumulator.add_flat(form.flatten(mixed(a=buffer)), rngs())
    assert accumulator.total().a.tolist() == [[3.0, 3.0], [3.0, 3.0]]  # type: ignore[attr-defined]


def test_refused_contribution_changes_nothing() -> None:
    form = layout()
    accumulator = Accumulator(form, 2)
    accumulator.add_flat(form.flatten(mixed()), rngs())
    before = values_of(accumulator.total())
    for changed in ({"b": 1e30}, {"count": -1}, {"step": np.array([1e200, 0.0, 0.0])}):
        with pytest.raises(ContributionError):
            accumulator.add_flat(form.flatten(mixed(**changed)), rngs())
    assert values_of(accumulator.total()) == before
    accumulator.add_flat(form.flatten(mixed()), rngs())
    with pytest.raises(LocalProtocolError, match="planned for 2 sites"):
        accumulator.add_flat(form.flatten(mixed()), rngs())
    with pytest.raises(LocalProtocolError, match="planned for 2 sites"):
        accumulator.add(encode(form.flatten(mixed()), form, 2, rngs()))


@pytest.mark.parametrize("num_sites", [0, -1, MAX_SITES + 1])
def test_number_of_sites_is_checked(num_sites: int) -> None:
    with pytest.raises(ValueError, match="num_sites must be in"):
        Accumulator(layout(), num_sites)
    with pytest.raises(ValueError, match="num_sites must be in"):
        encode(layout().flatten(mixed()), layout(), num_sites, rngs())


def test_rounding_needs_a_generator() -> None:
    with pytest.raises(TypeError, match="rng must be given"):
        encode(layout().flatten(mixed()), layout(), 2, None)


def test_encoded_bytes_is_the_size_of_what_is_encoded() -> None:
    form = layout(n=7, m=100)
    flat = Flat(exact=np.ones(15), people=np.ones(8, np.int64), bounded=(np.ones(100),))
    encoded = encode(flat, form, 10, rngs())
    arrays = (encoded.exact.high, encoded.exact.low, encoded.people, *encoded.bounded)
    assert encoded_bytes(form, 10) == sum(array.nbytes for array in arrays)
