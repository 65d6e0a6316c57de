"""What the coordinator sees says nothing but the total: as far as a test can see, and by construction.

All seeds are fixed. A statistical test here raises a false alarm with a chance of at most 1e-6 over all its cases.

References:
    Bonawitz et al., Practical Secure Aggregation (CCS 2017), lemma 6.1: masks that sum to zero hide all but the sum.
"""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

from tests.privacy.secagg.lies import parsed
from tests.privacy.secagg.two_machines import BOTH_MODES, WIDE, TwoMachines, encoded
from wardround.privacy.secagg import coordinator, site
from wardround.privacy.secagg.keys import derive
from wardround.privacy.secagg.messages import Chunk
from wardround.privacy.secagg.prg import apply_masks, keystream
from wardround.privacy.secagg.vector import add_words
from wardround.testing.seeded_entropy import SeededEntropy

MODES = pytest.mark.parametrize("mode", BOTH_MODES)
FALSE_ALARM = 1e-6 / 100
"""Of one comparison; there are fewer than a hundred."""


def is_uniform(octets: bytes) -> bool:
    """Pearson's test of 256 equal chances, on both sides: too even is not uniform either."""
    counts = np.bincount(np.frombuffer(octets, np.uint8), minlength=256)
    statistic = ((counts - len(octets) / 256) ** 2).sum() / (len(octets) / 256)
    return bool(chi2.isf(1 - FALSE_ALARM / 2, 255) < statistic < chi2.isf(FALSE_ALARM / 2, 255))


def are_alike(first: bytes, second: bytes) -> bool:
    """Whether two samples of bytes may be of one distribution: Pearson's test of homogeneity."""
    counts = np.array([np.bincount(np.frombuffer(one, np.uint8), minlength=256) for one in (first, second)])
    expected = counts.sum(axis=0) * counts.sum(axis=1)[:, None] / counts.sum()
    return bool(((counts - expected) ** 2 / expected).sum() < chi2.isf(FALSE_ALARM, 255))


def masked(machines: TwoMachines, index: int) -> np.ndarray:
    """The vector that a site uploads."""
    _, parts = machines.upload(index)
    return np.frombuffer(b"".join(bytes(Chunk.from_bytes(part, "").content) for part in parts), np.uint64)


def subtract_words(total: np.ndarray, words: np.ndarray, num_wide: int) -> None:
    """The inverse of `add_words`: adds the negative numbers."""
    negative = ~words
    low, high = negative[: 2 * num_wide : 2], negative[1 : 2 * num_wide : 2]
    low += np.uint64(1)
    high += low == 0
    negative[2 * num_wide :] += np.uint64(1)
    add_words(total, negative, num_wide)


def subtracted(first: np.ndarray, second: np.ndarray, num_wide: int) -> np.ndarray:
    """Their difference in the ring."""
    difference = first.copy()
    subtract_words(difference, second, num_wide)
    return difference


# Uniform


@MODES
def test_masked_vectors_are_uniform(mode):
    machines = TwoMachines(3, BOTH_MODES[mode](3), layout=WIDE).open()
    for index in range(3):
        words = masked(machines, index)
        plain = encoded(WIDE, index, 3)
        assert is_uniform(words.tobytes())
        assert not is_uniform(plain.tobytes())
        assert is_uniform(subtracted(words, plain, machines.shape.num_wide).tobytes())


@MODES
def test_masked_vectors_are_uniform_place_by_place(mode):
    """The first words of many rounds: not only bytes within one vector."""
    rows = []
    for number in range(1, 301):
        machines = TwoMachines(3, BOTH_MODES[mode](3))
        machines.entropy = SeededEntropy(number)
        machines.open(number)
        rows.append(masked(machines, 1))
    table = np.array(rows)
    assert is_uniform(table.tobytes())
    ones = np.unpackbits(table.view(np.uint8), axis=1).mean(axis=0)
    assert np.abs(ones - 0.5).max() < 8 * 0.5 / np.sqrt(len(table))  # eight standard deviations, of 500 bits


def test_a_self_mask_of_its_own_is_enough():
    """The same context (as after a restart that must not be): all pair masks cancel, the self masks do not."""
    vectors = []
    for seed in (1, 1, 2):
        machines = TwoMachines(4, layout=WIDE)
        machines.entropy = SeededEntropy(seed)
        vectors.append(masked(machines.open(), 1))
    first, again, other = vectors
    assert not subtracted(first, again, machines.shape.num_wide).any()
    assert is_uniform(subtracted(first, other, machines.shape.num_wide).tobytes())


@pytest.mark.parametrize("change", ["round", "attempt", "run", "ask", "roster"])
def test_pair_masks_of_two_rounds_have_nothing_in_common(change):
    """The self mask is the same in both: were a pair mask reused, it would cancel, and the difference be small."""
    parties = [TwoMachines(4, layout=WIDE), TwoMachines(4, layout=WIDE, run=_run(change))]
    vectors = []
    for machines, is_other in zip(parties, (False, True), strict=True):
        changed = change if is_other else ""
        machines.open(
            2 if changed == "round" else 1,
            2 if changed == "attempt" else 1,
            roster=(0, 1, 2) if changed == "roster" else None,
            ask=b"another" if changed == "ask" else b"the same",
        )
        event = site.Opened(machines.owed(1), machines.opening.broadcast_digest)
        (compute,) = machines.to_site(1, event)
        (upload,) = machines.to_site(1, machines.computed(1, compute.opening))
        vectors.append(upload.words)
    difference = subtracted(*vectors, parties[0].shape.num_wide)
    assert is_uniform(difference.tobytes())


def _run(change: str) -> bytes:
    return bytes(16) if change == "run" else bytes(range(16))


def test_the_tests_of_uniformity_see_small_faults():
    octets = SeededEntropy(3).random(2**20)
    words = np.frombuffer(octets, np.uint64)
    assert is_uniform(octets)
    assert not is_uniform(bytes(b & 0xFE if k % 50 == 0 else b for k, b in enumerate(octets)))
    assert not is_uniform(bytes(range(256)) * 4096)  # too even
    assert not is_uniform((words >> np.uint64(1)).tobytes())
    assert are_alike(octets, SeededEntropy(4).random(2**20))
    assert not are_alike(octets, (words >> np.uint64(1)).tobytes())


class _Other:
    """Entropy of which one draw is another."""

    def __init__(self, changed: int) -> None:
        self.entropy, self.changed, self.sizes = SeededEntropy(5), changed, []

    def random(self, num_bytes: int) -> bytes:
        """The next bytes."""
        drawn = self.entropy.random(num_bytes)
        self.sizes.append(num_bytes)
        return bytes(b ^ 255 for b in drawn) if len(self.sizes) - 1 == self.changed else drawn


def test_every_draw_of_randomness_is_used_for_one_thing():
    """The self mask, the sharing of all seeds, and each seal have randomness of their own."""
    uploads = []
    for changed in range(-1, 6):
        machines = TwoMachines(4)
        machines.entropy = _Other(changed)
        machines.open().upload(1)
        uploads.append(parsed(machines, 1))
        assert machines.entropy.sizes == [32, 32, 12, 12, 12, 12]
    honest, own, sharing, *seals = uploads
    assert own.chunk_digests != honest.chunk_digests
    assert [one == other for one, other in zip(own.seed_commitments, honest.seed_commitments, strict=True)] == [
        True,
        False,
        True,
        True,
    ]
    assert sharing.chunk_digests == honest.chunk_digests
    assert sharing.seed_commitments == honest.seed_commitments
    commitments = zip(sharing.share_commitments, honest.share_commitments, strict=True)
    for row, other in commitments:  # no share of any seed stays what it was
        pieces = [(row[k : k + 16], other[k : k + 16]) for k in range(0, len(row), 16)]
        assert all(piece != before for piece, before in pieces)
    for place, sealed in enumerate(seals):
        changed = [one != other for one, other in zip(sealed.blobs, honest.blobs, strict=True)]
        assert changed == [holder == place for holder in range(4)]
        assert sealed.share_commitments == honest.share_commitments
    assert len({blob[:12] for blob in honest.blobs}) == 4


# Swapped inputs


class Swapped(TwoMachines):
    """Sites 1 and 2 have each other's numbers."""

    def computed(self, index, opening=None):
        """As if the site were the other."""
        other = {1: 2, 2: 1}.get(index, index)
        return replace(TwoMachines.computed(self, index, opening), words=encoded(*self._where(other)).copy())

    def _where(self, index):
        return self.layout, index, self.num_sites


def view(kind, mode, seed=0, lost=()):
    """A round and all that the coordinator receives in it, by site and message."""
    machines = kind(5, BOTH_MODES[mode](5), layout=WIDE).open()
    machines.entropy = SeededEntropy(seed)
    seen = {}
    for index in range(5):
        if index not in lost:
            message, parts = machines.upload(index)
            machines.receive(index)
            seen |= {(index, "masked_input"): message, (index, "chunks"): b"".join(parts)}
    machines.close()
    while machines.round.phase in (coordinator.Phase.CONSISTENCY, coordinator.Phase.UNMASK):
        phase = machines.round.phase
        for index in machines.round.survivors:
            if machines.round.phase == phase:
                seen[index, phase.value] = machines.answer(index)
                machines.to_coordinator(machines.answered(index, seen[index, phase.value]))
    return machines, seen


@MODES
@pytest.mark.parametrize("lost", [(), (3,)])
def test_views_of_swapped_inputs_look_the_same(mode, lost):
    machines, seen = view(TwoMachines, mode, 1, lost)
    others, swapped = view(Swapped, mode, 2, lost)
    assert np.array_equal(machines.total, others.total)
    machines.check_total()
    assert {key: len(message) for key, message in seen.items()} == {key: len(m) for key, m in swapped.items()}
    for index in (1, 2):
        assert are_alike(seen[index, "chunks"], swapped[index, "chunks"])
        assert are_alike(seen[index, "masked_input"], swapped[index, "masked_input"])
    assert not are_alike(encoded(WIDE, 1, 5)[: 2**16].tobytes(), seen[1, "chunks"])


@MODES
def test_nothing_but_the_masked_vector_depends_on_the_input(mode):
    """With all randomness fixed, commitments, seals and shares are the same bytes whatever is summed."""
    machines, seen = view(TwoMachines, mode, 1, (3,))
    others, swapped = view(Swapped, mode, 1, (3,))
    for index in machines.round.survivors:
        one, other = parsed(machines, index), parsed(others, index)
        if index not in (1, 2):
            assert one == other
        assert one.chunk_digests != other.chunk_digests or index not in (1, 2)
        assert replace(one, chunk_digests=(), signature=b"") == replace(other, chunk_digests=(), signature=b"")
        unmasked, unswapped = seen[index, "unmask"], swapped[index, "unmask"]
        assert unmasked[6 + 32 + 2 + 32 : -64] == unswapped[6 + 32 + 2 + 32 : -64]


@MODES
@pytest.mark.parametrize("lost", [(), (3,), (0,)])
def test_other_masks_explain_the_same_view_by_other_inputs(mode, lost):
    """A simulator: for any inputs with the same total there are pair masks, never released, that give these vectors.

    The coordinator learns the self masks of the survivors and their masks with the dropped. The masks of two
    survivors it never learns; were they uniform (they are key streams), each of these explanations would be as likely.
    """
    machines, seen = view(TwoMachines, mode, 1, lost)
    survivors, num_wide, num_bytes = machines.round.survivors, machines.shape.num_wide, machines.shape.num_bytes
    own, released = _released_seeds(machines, seen)
    inputs = {index: encoded(WIDE, index, 5) for index in survivors}
    wanted = _other_inputs(inputs, num_wide)
    masks = {
        (i, j): np.frombuffer(keystream(_pair_seed(machines, i, j), num_bytes), np.uint64).copy()
        for i in survivors
        for j in survivors
        if i < j
    }
    assert not released & {_pair_seed(machines, i, j) for i, j in masks}
    moved = np.zeros_like(machines.total)  # what the sites so far have less than they had
    for first, second in itertools.pairwise(survivors):
        add_words(moved, inputs[first], num_wide)
        subtract_words(moved, wanted[first], num_wide)
        add_words(masks[first, second], moved, num_wide)
    for index in survivors:
        explained = _with_known_masks(machines, own, index, wanted[index], lost)
        for (i, j), mask in masks.items():
            if index == i:
                add_words(explained, mask, num_wide)
            if index == j:
                subtract_words(explained, mask, num_wide)
        sent = b"".join(bytes(Chunk.from_bytes(part, "").content) for part in machines.uploads[index][1])
        assert explained.tobytes() == sent
        assert not np.array_equal(wanted[index], inputs[index])
    for mask in masks.values():
        assert is_uniform(mask.tobytes())


def _other_inputs(inputs, num_wide):
    """Uniform vectors with the same total."""
    entropy, last = SeededEntropy(b"other inputs"), max(inputs)
    total = np.zeros_like(inputs[last])
    wanted = {}
    for index, words in inputs.items():
        add_words(total, words, num_wide)
        if index != last:
            wanted[index] = np.frombuffer(entropy.random(words.nbytes), np.uint64)
            subtract_words(total, wanted[index], num_wide)
    return wanted | {last: total}


def _pair_seed(machines, i, j):
    return derive(machines.setup.pair_keys[i][j], "mask", machines.round.context)


def _released_seeds(machines, seen):
    """What the coordinator can rebuild from what it was sent: by survivor its self mask's seed, then all seeds."""
    state, masks = machines.round, ()
    before = replace(state, phase=coordinator.Phase.UNMASK, releases={})
    for index in state.survivors:
        before, effects = coordinator.step(before, coordinator.UnmaskArrived(index, seen[index, "unmask"]))
        masks += tuple(mask for effect in effects for mask in effect.masks)
    num_each = 1 + len(state.dropped)
    assert len(masks) == num_each * len(state.survivors)
    own = {index: masks[place * num_each][0] for place, index in enumerate(state.survivors)}
    return own, {seed for seed, _ in masks}


def _with_known_masks(machines, own, index, words, lost):
    """A vector with all the masks that the coordinator knows."""
    known = [(own[index], 1)]
    known += [(_pair_seed(machines, index, other), 1 if other > index else -1) for other in lost]
    explained = words.copy()
    apply_masks(explained, machines.shape.num_wide, known)
    return explained


def test_a_vector_whose_pair_masks_are_known_has_one_explanation_alone():
    """The other side of it: with all seeds of a site its numbers lie open."""
    machines, seen = view(TwoMachines, "strict", 1)
    own, _ = _released_seeds(machines, seen)
    known = [(own[1], 1)]
    known += [(_pair_seed(machines, 1, other), 1 if other > 1 else -1) for other in (0, 2, 3, 4)]
    sent = b"".join(bytes(Chunk.from_bytes(part, "").content) for part in machines.uploads[1][1])
    words = np.frombuffer(sent, np.uint64).copy()
    apply_masks(words, machines.shape.num_wide, [(seed, -sign) for seed, sign in known])
    assert np.array_equal(words, encoded(WIDE, 1, 5))
