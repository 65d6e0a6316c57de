"""Vectors of words against the accumulator, which adds the same contributions without masks."""

import dataclasses
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.errors import ContributionError
from wardround.privacy.secagg import vector
from wardround.privacy.secagg.prg import apply_masks
from wardround.privacy.secagg.vector import (
    CHUNK_WORDS,
    VectorShape,
    add_words,
    chunks,
    contribution_of,
    layout_digest,
    shape_of,
    to_words,
)
from wardround.sums.accumulator import Accumulator, encoded_bytes
from wardround.sums.codec import exact_limit
from wardround.sums.contribution import (
    Bounded,
    Contribution,
    Declaration,
    Exact,
    FieldLayout,
    Flat,
    Layout,
    People,
    bounded,
    exact,
    layout_of,
    people,
)


class Anything(Contribution):
    """Its fields are those of the layout at hand; `unflatten` fills them."""

    any: float = exact()

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


def field(name: str, declaration: Declaration) -> FieldLayout:
    shape = tuple(int(size) for size in declaration.shape)
    return FieldLayout(name, declaration, shape, int(np.prod(shape, dtype=int)))


SHAPES = st.lists(st.integers(0, 6), max_size=3).map(tuple)
BOUNDS = st.builds(
    Bounded, SHAPES.filter(len), st.sampled_from((1e-3, 1.0, 50.0)), st.sampled_from((4, 8, 12, 16, 21, 32))
)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    kinds = [draw(st.lists(kind, max_size=3)) for kind in (st.builds(Exact, SHAPES), st.builds(People, SHAPES), BOUNDS)]
    named = [tuple(field(f"{k}_{i}", found) for i, found in enumerate(kind)) for k, kind in enumerate(kinds)]
    return Layout(Anything, *named)


def flats(layout: Layout, num_sites: int, num_summed: int, seed: int) -> list[Flat]:
    rng = np.random.default_rng(seed)
    limit = exact_limit(num_sites)
    size, people_size = layout.num_exact, layout.num_people
    return [
        Flat(
            np.clip(rng.normal(size=size) * 10.0 ** rng.integers(-22, 19, size), -limit / 2, limit / 2),
            rng.integers(0, 2 ** rng.integers(1, 50), people_size),
            tuple((rng.normal(size=f.size) * rng.choice((0.01, 10))).astype(np.float32) for f in layout.bounded),
        )
        for _ in range(num_summed)
    ]


def bits_of(total: Any) -> list[tuple[str, Any, bytes]]:
    return [(name, np.shape(value), np.asarray(value).tobytes()) for name, value in sorted(vars(total).items())]


@settings(max_examples=60)
@given(st.data(), layouts(), st.sampled_from((1, 2, 3, 10, 1000)), st.integers(0, 99))
def test_a_sum_of_vectors_is_the_accumulators_total_bit_for_bit(
    data: st.DataObject, layout: Layout, num_sites: int, seed: int
) -> None:
    num_summed = data.draw(st.integers(1, min(num_sites, 4)))
    accumulator = Accumulator(layout, num_sites)
    shape = shape_of(layout, num_sites)
    words = np.zeros(shape.num_words, np.uint64)
    for site, flat in enumerate(flats(layout, num_sites, num_summed, seed)):
        accumulator.add_flat(flat, np.random.default_rng(site))
        add_words(words, to_words(flat, layout, num_sites, np.random.default_rng(site)), shape.num_wide)
    assert bits_of(contribution_of(words, layout, num_sites, num_summed)) == bits_of(accumulator.total())


def test_large_vectors_too() -> None:
    sizes = (("exact", Exact((70_001,))), ("people", People((3,))), ("update", Bounded((300_001,), 1.0, 12)))
    layout = Layout(Anything, *((field(*size),) for size in sizes))
    accumulator = Accumulator(layout, 10)
    words = np.zeros(shape_of(layout, 10).num_words, np.uint64)
    for site, flat in enumerate(flats(layout, 10, 3, 1)):
        accumulator.add_flat(flat, np.random.default_rng(site))
        add_words(words, to_words(flat, layout, 10, np.random.default_rng(site)), 70_001)
    assert bits_of(contribution_of(words, layout, 10, 3)) == bits_of(accumulator.total())


def test_a_site_needs_the_memory_of_one_vector() -> None:
    size = 2**22
    layout = Layout(Anything, (), (), (field("update", Bounded((size,), 1.0, 12)),))
    flat = Flat(np.empty(0), np.empty(0, np.int64), (np.ones(size, np.float32),))
    apply_masks(to_words(flat, layout, 10, np.random.default_rng(0)), 0, [])  # whatever is made once only
    tracemalloc.start()
    apply_masks(to_words(flat, layout, 10, np.random.default_rng(0)), 0, [(bytes(32), 1)] * 9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < shape_of(layout, 10).num_bytes + 2**22


@given(layouts(), st.sampled_from((1, 3, 1000)))
def test_the_shape_is_that_of_the_words(layout: Layout, num_sites: int) -> None:
    shape = shape_of(layout, num_sites)
    words = to_words(flats(layout, num_sites, 1, 0)[0], layout, num_sites, np.random.default_rng(0))
    assert words.shape == (shape.num_words,)
    assert shape.num_bytes == words.nbytes == encoded_bytes(layout, num_sites)
    assert shape.num_wide == layout.num_exact
    assert len(list(chunks(words))) == shape.num_chunks


class Mixed(Contribution):
    """All three kinds, declared in another order than they travel in."""

    update: np.ndarray = bounded(3, clip_norm=1.0, bits=16)
    counts: np.ndarray = people(2)
    level: float = exact()
    change: float = exact()


def test_the_order_on_the_wire() -> None:
    layout = layout_of(Mixed, {})
    flat = Flat(np.array([2.5, -(2.0**-64)]), np.array([7, 9]), (np.zeros(3),))
    words = to_words(flat, layout, 3, np.random.default_rng(0))
    # Exact numbers low word first, then counts, then the packed vector: three slots of 18 bits that hold 2^15 each.
    packed = sum(2**15 << (18 * slot) for slot in range(3))
    assert words.tolist() == [2**63, 2, 2**64 - 1, 2**64 - 1, 7, 9, packed]
    total = contribution_of(words, layout, 3, 1)
    assert isinstance(total, Mixed)
    assert (total.level, total.change, total.counts.tolist()) == (2.5, -(2.0**-64), [7, 9])


def test_a_total_does_not_keep_the_vector() -> None:
    layout = layout_of(Mixed, {})
    words = to_words(Flat(np.ones(2), np.array([1, 2]), (np.ones(3),)), layout, 3, np.random.default_rng(0))
    total: Any = contribution_of(words, layout, 3, 1)
    before = bits_of(total)
    words[:] = 0
    assert bits_of(total) == before
    with pytest.raises(ValueError, match="read-only"):
        total.counts[0] = 1


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        (Flat(np.array([np.nan, 0]), np.zeros(2, int), (np.zeros(3),)), "Mixed.level contains NaN"),
        (Flat(np.zeros(2), np.array([0, -1]), (np.zeros(3),)), "Mixed.counts .* negative"),
        (Flat(np.zeros(2), np.zeros(2, int), (np.full(3, 1e200),)), "Mixed.update has a norm"),
    ],
)
def test_numbers_that_cannot_be_summed_are_refused(flat: Flat, message: str) -> None:
    with pytest.raises(ContributionError, match=message):
        to_words(flat, layout_of(Mixed, {}), 3, np.random.default_rng(0))


# Chunks


@pytest.mark.parametrize("size", [0, 1, CHUNK_WORDS - 1, CHUNK_WORDS, CHUNK_WORDS + 1, 3 * CHUNK_WORDS])
def test_chunks_are_the_vectors_bytes(size: int) -> None:
    words = np.random.default_rng(0).integers(0, 2**64, size, np.uint64)
    parts = list(chunks(words))
    assert b"".join(parts) == words.astype("<u8").tobytes()
    assert [part.nbytes for part in parts[:-1]] == [2**20] * (len(parts) - 1)
    assert len(parts) == VectorShape(0, size).num_chunks
    assert size == 0 or 0 < parts[-1].nbytes <= 2**20


# The digest of a layout


def changed(layout: Layout) -> dict[str, Layout]:
    """The layout with one thing changed at a time."""

    def with_bounded(**changes: Any) -> Layout:
        first = layout.bounded[0]
        return dataclasses.replace(layout, bounded=(dataclasses.replace(first, **changes), *layout.bounded[1:]))

    update: Any = layout.bounded[0].declaration
    level, *others = layout.exact
    return {
        "contribution": dataclasses.replace(layout, contribution=Mixed),
        "field's name": with_bounded(name="another"),
        "shape": with_bounded(shape=(1, *layout.bounded[0].shape)),
        "size": with_bounded(shape=(99,), size=99),
        "clip norm": with_bounded(declaration=dataclasses.replace(update, clip_norm=np.nextafter(update.clip_norm, 9))),
        "bits": with_bounded(declaration=dataclasses.replace(update, bits=update.bits + 1)),
        "kind": dataclasses.replace(layout, exact=tuple(others), people=(level, *layout.people)),
        "order": dataclasses.replace(layout, exact=layout.exact[::-1]),
        "fewer": dataclasses.replace(layout, exact=tuple(others)),
    }


def test_layout_digest_changes_with_the_layout() -> None:
    kinds = (
        (field("a", Exact(())), field("b", Exact(())), field("c", Exact((2, 3)))),
        (field("n", People(())),),
        (field("update", Bounded((4,), 1.0, 12)), field("rest", Bounded((6,), 2.0, 16))),
    )
    layout = Layout(Anything, *kinds)
    digests = {"itself": layout_digest(layout, 10), "num_sites": layout_digest(layout, 11)}
    digests |= {what: layout_digest(other, 10) for what, other in changed(layout).items()}
    assert len(set(digests.values())) == len(digests), digests
    assert layout_digest(Layout(Anything, *kinds), 10) == digests["itself"]


def test_names_of_fields_do_not_run_into_each_other() -> None:
    one = Layout(Anything, (field("ab", Exact(())), field("c", Exact(()))), (), ())
    two = Layout(Anything, (field("a", Exact(())), field("bc", Exact(()))), (), ())
    assert layout_digest(one, 3) != layout_digest(two, 3)


def test_the_digest_is_the_same_in_every_process() -> None:
    digest = layout_digest(layout_of(Mixed, {}), 3)
    assert digest.hex() == "c8f25f96c1b01814ef6376120d0cd390729568ce2fdfe5ee51e58e3ae1756c4f"


def test_what_the_module_offers() -> None:
    assert all(hasattr(vector, name) for name in vector.__all__)
