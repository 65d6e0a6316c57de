"""Secure sums beside Flower's SecAgg+, TenSEAL's CKKS, a plain float32 sum and the AES limit.

Times are of the processor, not of the clock: a peer gains nothing by two threads, and a busy machine costs little.
What is measured runs through the machines that hospitals run. A hundred sites are measured from scale 0.1 up.
"""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from benchmarks.measure import Row, milliseconds, peak_bytes
from benchmarks.secure_sums_parties import (
    ENTROPY,
    SMALL,
    Losses,
    Parties,
    flat_of,
    layout_for,
    losses_of,
    site_round,
    step_of,
    summed_alone,
)
from wardround.privacy.secagg.prg import apply_masks
from wardround.privacy.secagg.shamir import combine, split
from wardround.privacy.secagg.terms import Terms
from wardround.privacy.secagg.vector import add_words, contribution_of, shape_of, to_words
from wardround.sums import Contribution
from wardround.sums.contribution import Layout
from wardround.sums.kernels import COMPILED_FROM

MANY_SITES = 100
NUM_SITES = (3, 10, 30, MANY_SITES)
MIDDLE, LARGE = 10**5, 25 * 10**6
BITS = 12
"""Of ten sites, four slots of 16 bits fill a word: 2 bytes a number."""
MOST_BITS = 20
"""Flower's 22 bits span [-8, 8]: of a step that is never larger than 2, 20 of them are left."""
SECONDS = 2.0
"""Of processor time that a task may take again and again, at scale 1; three times as long for a row with a goal."""

SITE_GOAL, MASKS_GOAL, COORDINATOR_GOAL, MEMORY_GOAL = 1 / 20, 1.25, 2.0, 1.1
# The vector alone is a half, a quarter and less than a 28th: one in a hundred is left for shares and signatures.
FLOAT32_GOAL, FLOWER_BYTES_GOAL, CKKS_BYTES_GOAL = 1.01 / 2, 1.01 / 4, 1.01 / 28

Task = Callable[[], object]


def rows(scale: float) -> Iterator[Row]:
    """Masks, a site, the sum, the coordinator, whole rounds, bytes, memory."""
    from benchmarks import secure_sums_peers as peers  # slow to import, and other benchmarks do not need it

    for name, is_here in (("flwr", peers.HAS_FLOWER), ("tenseal", peers.HAS_TENSEAL)):
        if not is_here:
            print(f"{name} is not installed: its rows are left out; `make bench` installs it", file=sys.stderr)
    large = max(int(LARGE * scale), SMALL)
    bench = Bench(
        peers=peers,
        sizes=tuple(sorted({SMALL, min(MIDDLE, large), large})),
        parties={number: Parties(number) for number in NUM_SITES if number < MANY_SITES or scale >= 0.1},
        seconds=min(scale, 1) * SECONDS,
    )
    for group in (bench.masks, bench.sites, bench.sums, bench.coordinators, bench.rounds, bench.ckks, bench.uploads):
        yield from group()
    yield _memory_row(max(int(4e6 * scale), SMALL))


def _memory_row(size: int) -> Row:
    # So large that the compiler, which takes much more memory than a round, is there before.
    warm_up = functools.partial(summed_alone, 3, COMPILED_FROM)
    peaks = {number: peak_bytes(functools.partial(summed_alone, number, size), warm_up) / 2**20 for number in (3, 30)}
    name, goal = f"memory of a round, 30 sites x {size:,}", MEMORY_GOAL if size > COMPILED_FROM else None
    return Row(name=name, measured=peaks[30], against="3 sites", limit=peaks[3], goal=goal, unit="MiB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What is measured with what.

    Attributes:
        peers: the module of the peers.
        sizes: numbers of parameters.
        parties: machines by number of sites.
        seconds: that a task may take again and again.
    """

    peers: ModuleType
    sizes: tuple[int, ...]
    parties: Mapping[int, Parties]
    seconds: float

    def best(self, tasks: Mapping[str, Task], goal: float | None = None, repeats: int = 10) -> dict[str, float]:
        """The least processor time of each task, all of them run in turn; a slow one fewer times."""
        enough = self.seconds * (1 if goal is None else 3)
        best, spent = dict.fromkeys(tasks, math.inf), dict.fromkeys(tasks, 0.0)
        for repeat in range(repeats):
            for name, task in tasks.items():
                if not repeat or spent[name] < enough:
                    begin = time.process_time()
                    task()
                    seconds = time.process_time() - begin
                    best[name], spent[name] = min(best[name], seconds), spent[name] + seconds
        return best

    def masks(self) -> Iterator[Row]:
        """A site's masks, those with every other site and its own."""
        for size, num_sites in ((size, number) for size in self.sizes for number in self.parties):
            words = np.zeros(shape_of(layout_for(size, BITS), num_sites).num_words, np.uint64)
            seeds = [(ENTROPY.random(32), 1) for _ in range(num_sites)]
            tasks = {
                "ours": functools.partial(apply_masks, words, 0, seeds),
                "AES-CTR alone": functools.partial(self.peers.aes, num_sites, words.nbytes),
            }
            goal = MASKS_GOAL if (num_sites, size) == (10, LARGE) else None
            yield _time_row(f"masking, {num_sites} sites x {size:,}", "AES-CTR alone", self.best(tasks, goal), goal)

    def sites(self) -> Iterator[Row]:
        """A site's whole work in a round."""
        for size, num_sites in ((size, number) for size in self.sizes for number in self.parties):
            yield from self._site(num_sites, size, BITS)
        yield from self._site(10, self.sizes[-1], MOST_BITS)

    def _site(self, num_sites: int, size: int, bits: int) -> Iterator[Row]:
        layout, step, rng = layout_for(size, bits), step_of(size), np.random.default_rng(0)
        events, flat = self.parties[num_sites].site_events, flat_of(layout, step)
        words = to_words(flat, layout, num_sites, rng)
        tasks: dict[str, Task] = {
            "ours": lambda: site_round(events, flat, layout, num_sites),
            "AES + SHA-256": lambda: (self.peers.aes(num_sites, words.nbytes), self.peers.sha256(words)),
            "encoding": lambda: to_words(flat, layout, num_sites, rng),
        }
        if self.peers.HAS_FLOWER:
            tasks["Flower"] = self._flower_client(num_sites, step)
        goal = SITE_GOAL if (num_sites, size, bits) == (10, LARGE, BITS) else None
        best = self.best(tasks, goal)
        name = f"{{}}, {num_sites} sites x {size:,}" + (f", {bits} bits" if bits != BITS else "")
        if self.peers.HAS_FLOWER:
            yield _time_row(name.format("site"), "Flower", best, goal)
        if num_sites == 10 or not self.peers.HAS_FLOWER:
            yield _time_row(name.format("site"), "AES + SHA-256", best)
        if num_sites == 10:
            yield _time_row(name.format("encoding"), "AES + SHA-256", {**best, "ours": best["encoding"]})

    def _flower_client(self, num_sites: int, step: np.ndarray) -> Task:
        """Stages 1 to 3 of the first client."""
        round_ = self.peers.FlowerRound(num_sites, self.parties[num_sites].terms.threshold, 1)
        client, sealed = round_.clients[0], round_.sealed_for(0)

        def stages() -> None:
            client.share_keys(round_.all_keys)
            client.masked_vector(sealed, [step])
            client.unmask(range(num_sites), ())

        return stages

    def sums(self) -> Iterator[Row]:
        """Vectors added up and unmasked, beside the sum that it would be without protection."""
        for size, num_sites in ((size, number) for size in self.sizes for number in self.parties):
            # A tenth of a hundred sites lost leaves a thousand masks.
            for losses in losses_of(num_sites)[: 2 if num_sites * size <= 10 * LARGE else 1]:
                yield self._sum(num_sites, size, losses)

    def _sum(self, num_sites: int, size: int, losses: Losses) -> Row:
        layout, rng = layout_for(size, BITS), np.random.default_rng(0)
        steps = [step_of(size, seed) for seed in range(min(num_sites, 5))]
        vectors = [to_words(flat_of(layout, step), layout, num_sites, rng) for step in steps]
        num_added, plain = num_sites - len(losses.before), np.empty(size, np.float32)
        tasks = {
            "ours": functools.partial(_unmasked_sum, Masked(num_sites, losses, vectors), layout),
            "float32 sum": lambda: self.peers.plain_sum((steps[i % len(steps)] for i in range(num_added)), plain),
        }
        goal = COORDINATOR_GOAL if (num_sites, size) == (10, LARGE) and not losses.before else None
        name = f"unmasked sum, {num_sites} sites x {size:,}{losses.words}"
        return _time_row(name, "float32 sum", self.best(tasks, goal), goal)

    def coordinators(self) -> Iterator[Row]:
        """The coordinator's whole work, beside Flower's server and the hashes that authenticate what arrives."""
        for size, num_sites in ((size, number) for size in self.sizes for number in self.parties):
            if num_sites * size <= 10 * LARGE:
                for losses in losses_of(num_sites):
                    yield from self._coordinator(num_sites, size, losses)

    def _coordinator(self, num_sites: int, size: int, losses: Losses) -> Iterator[Row]:
        layout, step = layout_for(size, BITS), step_of(size)
        words = to_words(flat_of(layout, step), layout, num_sites, np.random.default_rng(0))
        tasks: dict[str, Task] = {
            "ours": self.parties[num_sites].play(layout, step, losses).again,
            "SHA-256": lambda: [self.peers.sha256(words) for _ in range(num_sites - len(losses.before))],
        }
        if self.peers.HAS_FLOWER and num_sites < MANY_SITES:  # so many secrets take minutes to combine
            tasks["Flower"] = self._flower_server(num_sites, step, losses)
        best = self.best(tasks)
        against = "Flower" if "Flower" in tasks else "SHA-256"
        yield _time_row(f"coordinator, {num_sites} sites x {size:,}{losses.words}", against, best)
        if (num_sites, size) == (10, self.sizes[-1]) and against == "Flower":
            yield _time_row(f"coordinator, {num_sites} sites x {size:,}{losses.words}", "SHA-256", best)

    def _flower_server(self, num_sites: int, step: np.ndarray, losses: Losses) -> Task:
        """Stages 2 and 3. Every client's vector and shares are the first one's: the work is the same."""
        round_ = self.peers.FlowerRound(num_sites, self.parties[num_sites].terms.threshold, 1)
        client, active = round_.clients[0], range(num_sites - len(losses.before))
        vector = client.masked_vector(round_.sealed_for(0), [step])
        shares = {node: client.seed_shares if node in active else client.key_shares for node in round_.all_keys}
        return lambda: round_.server.total([vector] * len(active), shares, active)

    def rounds(self) -> Iterator[Row]:
        """Whole rounds of small vectors: all sites and the coordinator in one process."""
        layout, step = layout_for(SMALL, BITS), step_of(SMALL)
        for num_sites, parties in self.parties.items():
            for losses in losses_of(num_sites):
                against, factor, task = self._flower_round(num_sites, step, losses)
                best = self.best({"ours": functools.partial(parties.play, layout, step, losses), against: task})
                best[against] *= factor
                yield _time_row(f"whole round, {num_sites} sites x {SMALL:,}{losses.words}", against, best)

    def _flower_round(self, num_sites: int, step: np.ndarray, losses: Losses) -> tuple[str, int, Task]:
        if not self.peers.HAS_FLOWER:
            return "AES-CTR alone", num_sites, functools.partial(self.peers.aes, num_sites, 8 * SMALL)
        if num_sites > 10:
            return f"Flower, 1 site x {num_sites}", num_sites, self._flower_client(num_sites, step)
        round_ = self.peers.FlowerRound(num_sites, self.parties[num_sites].terms.threshold, 0)
        return "Flower", 1, functools.partial(round_.total, [step], losses.before)

    def ckks(self) -> Iterator[Row]:
        """A site and the coordinator beside homomorphic encryption."""
        if not self.peers.HAS_TENSEAL:
            return
        num_sites, size = 10, min(10**6, self.sizes[-1])
        layout, step, ckks, parties = layout_for(size, BITS), step_of(size), self.peers.Ckks(), self.parties[num_sites]
        events, flat, sent = parties.site_events, flat_of(layout, step), ckks.encrypted(step)
        site_tasks: dict[str, Task] = {
            "ours": lambda: site_round(events, flat, layout, num_sites),
            "TenSEAL": lambda: ckks.encrypted(step),
        }
        yield _time_row(f"site, {num_sites} sites x {size:,}", "TenSEAL", self.best(site_tasks))
        tasks: dict[str, Task] = {
            "ours": parties.play(layout, step).again,
            "TenSEAL": lambda: ckks.total([sent] * num_sites),
        }
        yield _time_row(f"coordinator, {num_sites} sites x {size:,}", "TenSEAL", self.best(tasks))

    def uploads(self) -> Iterator[Row]:
        """What one site sends in a round, everything included."""
        for num_sites, size in ((10, 10**6), *((number, SMALL) for number in self.parties)):
            layout, step = layout_for(size, BITS), step_of(size)
            ours = site_round(self.parties[num_sites].site_events, flat_of(layout, step), layout, num_sites)
            for against, limit, goal in self._other_uploads(num_sites, step):
                yield Row(
                    name=f"upload, {num_sites} sites x {size:,}",
                    measured=ours / 2**20,
                    against=against,
                    limit=limit / 2**20,
                    goal=goal if size > SMALL else None,
                    unit="MiB",
                )

    def _other_uploads(self, num_sites: int, step: np.ndarray) -> Iterator[tuple[str, int, float]]:
        yield "float32", step.nbytes, FLOAT32_GOAL
        if self.peers.HAS_FLOWER:
            round_ = self.peers.FlowerRound(num_sites, self.parties[num_sites].terms.threshold, 1)
            yield "Flower", self.peers.flower_client_bytes(round_, step.size), FLOWER_BYTES_GOAL
        if self.peers.HAS_TENSEAL:
            yield "TenSEAL", sum(map(len, self.peers.Ckks().encrypted(step))), CKKS_BYTES_GOAL


def _time_row(name: str, against: str, best: Mapping[str, float], goal: float | None = None) -> Row:
    measured, limit = milliseconds(best["ours"]), milliseconds(best[against])
    return Row(name=name, measured=measured, against=against, limit=limit, goal=goal)


class Masked:
    """Vectors as they lie before the coordinator, with the shares of what masks them, of as many holders as needed.

    Args:
        num_sites: of the round.
        losses: in it.
        vectors: what the sites sent, again and again from the first; masked or not is all the same to the adding.
    """

    def __init__(self, num_sites: int, losses: Losses, vectors: Sequence[np.ndarray]) -> None:
        self.num_sites, self.num_added = num_sites, num_sites - len(losses.before)
        self.vectors, self.total = vectors, np.empty_like(vectors[0])
        self.holders = tuple(range(Terms.of(num_sites).threshold))
        seeds = [[ENTROPY.random(32) for _ in range(1 + len(losses.before))] for _ in range(self.num_added)]
        self.shares = [split(each, len(self.holders), self.holders, ENTROPY.random(32)) for each in seeds]


def _unmasked_sum(masked: Masked, layout: Layout) -> Contribution:
    masked.total[:] = 0
    for index in range(masked.num_added):
        add_words(masked.total, masked.vectors[index % len(masked.vectors)], 0)
    apply_masks(masked.total, 0, [(seed, -1) for shares in masked.shares for seed in combine(shares, masked.holders)])
    return contribution_of(masked.total, layout, masked.num_sites, masked.num_added)
