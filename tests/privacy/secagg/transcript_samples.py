"""Transcripts of real secure sums in memory, and what a forger does to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from tests.samples import moments
from wardround.engines.entropy import SystemEntropy
from wardround.engines.secure_sum import Loss, SecureFederation, SecureSum
from wardround.errors import MessageRefusedError, QuorumError
from wardround.privacy.secagg import site
from wardround.privacy.secagg.keys import SigningKey
from wardround.privacy.secagg.recording import closed_entry, setup_entries
from wardround.privacy.secagg.terms import Terms
from wardround.privacy.secagg.transcript import START, Entry, Refused, from_line, to_line
from wardround.sums import Ask
from wardround.sums.message import pack_ask, pack_total

NAMES = ("North", "Süd·Zürich", "East", "West")


@dataclass
class Recording:
    """A recorder that keeps the entries."""

    entries: list[Entry] = field(default_factory=list)

    def record(self, entries: Sequence[Entry]) -> None:
        self.entries += entries


class WatchedEntropy(SystemEntropy):
    """Remembers every secret that it gave out."""

    def __init__(self) -> None:
        self.given: list[bytes] = []

    def random(self, num_bytes: int) -> bytes:
        self.given.append(super().random(num_bytes))
        return self.given[-1]

    def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        secret, ciphertext = super().encapsulate(public_key)
        self.given.append(secret)
        return secret, ciphertext


class WatchedFederation(SecureFederation):
    """Remembers what sites sent, and what they contributed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.effects: list[Any] = []
        self.values: list[float] = []
        self.totals: list[bytes] = []
        super().__init__(*args, **kwargs)

    def step(self, index: int, event: site.Event) -> site.Effects:
        if isinstance(event, site.Computed):
            self.effects.append(event.words.tobytes())
        effects = super().step(index, event)
        for effect in effects:
            if isinstance(effect, site.Upload):
                self.effects.append(effect.words.tobytes())
            self.effects.append(effect)
        return effects


@dataclass(frozen=True)
class Sample:
    """A study with what was recorded of it."""

    federation: WatchedFederation
    entropy: WatchedEntropy
    entries: tuple[Entry, ...]
    runs: tuple[bytes, ...]

    @property
    def coordinator(self) -> SigningKey:
        return SigningKey.from_seed(self.federation.signing_seed)

    def signing(self, index: int) -> SigningKey:
        return self.federation.states[index].signing

    @property
    def lines(self) -> list[bytes]:
        return chained(self.entries)

    def closed(self, entries: Iterable[Entry]) -> list[bytes]:
        """Lines of these entries, closed with the coordinator's real key."""
        return closed(entries, self)


def chained(entries: Iterable[Entry]) -> list[bytes]:
    """Lines that follow one another, as anybody can make them."""
    lines, chain = [], START
    for entry in entries:
        line, chain = to_line(entry, chain)
        lines.append(line)
    return lines


def closed(entries: Iterable[Entry], sample: Sample, signing: SigningKey | None = None) -> list[bytes]:
    lines, chain = [], START
    for entry in entries:
        line, chain = to_line(entry, chain)
        lines.append(line)
    return [*lines, to_line(closed_entry(sample.federation.manifest, signing or sample.coordinator, chain), chain)[0]]


def entries_of(lines: Iterable[bytes]) -> list[Entry]:
    entries, chain = [], START
    for number, line in enumerate(lines, start=1):
        entry, chain = from_line(line, chain, number)
        entries.append(entry)
    return entries


@lru_cache(maxsize=8)
def sample(is_strict: bool = True, seed: int = 0, allows_repeats: bool = False) -> Sample:
    """Four sites, two runs: three totals, one of them without a site that dropped out, and one failure."""
    entropy = WatchedEntropy()
    terms = Terms.of(4, minimum_survivors=3, is_strict=is_strict, allows_repeats=allows_repeats)
    federation = WatchedFederation(NAMES, terms, entropy)
    recording = Recording()
    recording.record(setup_entries(federation.manifest, *federation.setup_messages))
    federation.recorder = recording
    first, second = federation.new_run(), federation.new_run()
    rng = np.random.default_rng(seed)
    data = {name: {"x": rng.normal(50, 9, (12, 2))} for name in NAMES}

    def one_round(run: bytes, number: int, center: float, absent: tuple[str, ...] = (), **more: Any) -> None:
        ask = Ask(moments, {"center": np.array([center, center])})
        secure = SecureSum(
            federation=federation,
            run=run,
            number=number,
            roster=NAMES,
            broadcast=pack_ask(ask),
            layout=ask.layout,
            num_sites=len(NAMES),
            function_id=ask.function.function_id,
            **more,
        )
        for name in NAMES:
            if name not in absent:
                contribution = moments(data[name], **ask.arguments)
                federation.values += [*contribution.total.tolist(), contribution.square, *data[name]["x"].ravel()]
                secure.add(name, ask.layout.flatten(contribution), None)
        total = secure.close()
        federation.values += [*total.sum.total.tolist(), total.sum.square]
        federation.totals.append(pack_total(total))

    one_round(first, 1, 0.0)
    one_round(first, 2, 1.0, losses={"East": Loss.UPLOADING})
    with pytest.raises(QuorumError):
        one_round(second, 1, 2.0, absent=("North", "West"))
    recording.record([Refused.of(MessageRefusedError("share", "West", "what was in it is not told"))])
    one_round(second, 2, 3.0)
    return Sample(
        federation,
        entropy,
        tuple(entries_of(closed(recording.entries, Sample(federation, entropy, (), ())))),
        (first, second),
    )
