"""How fast this machine does the parts of a secure sum: a short measurement, for plans."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable

import numpy as np

from wardround.privacy.secagg.cost import Speeds
from wardround.privacy.secagg.keys import SigningKey, derive, open_sealed, seal, verify
from wardround.privacy.secagg.prg import apply_masks
from wardround.privacy.secagg.shamir import SHARE_BYTES, combine, split
from wardround.privacy.secagg.terms import Terms
from wardround.privacy.secagg.vector import add_words
from wardround.privacy.secagg.wire import digest
from wardround.sums.codec import encode_exact

SECONDS_EACH = 0.02
"""How long each part is measured (unit: seconds)."""
_NUM_WORDS = 2**17
_SEED = bytes(range(32))
_NONCE = bytes(12)
_MOST_SEEDS = 100
_NUM_SIGNATURES = 1000


def measured_speeds(terms: Terms) -> Speeds:
    """The speeds of this machine for rounds of such terms; takes a fraction of a second."""
    words, more = np.zeros(_NUM_WORDS, np.uint64), np.ones(_NUM_WORDS, np.uint64)
    numbers = np.linspace(-1e3, 1e3, _NUM_WORDS // 2)
    holders = range(terms.num_sites)
    seeds = [_SEED] * terms.num_sites
    few = split(seeds[:_MOST_SEEDS], terms.threshold, holders, _SEED)[: terms.threshold]
    shares = bytes(SHARE_BYTES * terms.num_sites)
    sealed = seal(_SEED, _NONCE, shares)
    return Speeds(
        encode=words.nbytes / _seconds(lambda: encode_exact(numbers, terms.num_sites)),
        hash=words.nbytes / _seconds(lambda: hashlib.sha256(words.data).digest()),
        add=words.nbytes / _seconds(lambda: add_words(words, more, 0)),
        mask=words.nbytes / _seconds(lambda: apply_masks(words, 0, [(_SEED, 1)])),
        sign=_seconds(lambda: SigningKey.from_seed(_SEED).sign("calibration", _SEED)),
        verify=_seconds(_verification()),
        digest=_seconds(lambda: digest("calibration", _SEED, shares[:SHARE_BYTES])),
        derive=_seconds(lambda: derive(_SEED, "calibration", _SEED)),
        seal=_seconds(lambda: open_sealed(_SEED, sealed, peer="calibration"), lambda: seal(_SEED, _NONCE, shares)),
        split=_seconds(lambda: split(seeds, terms.threshold, holders, _SEED)),
        combine=_seconds(lambda: combine(few, holders[: terms.threshold])) / few.shape[1],
    )


def _verification() -> Callable[[], object]:
    """Verifies another signature at every call: one that holds is remembered."""
    key, number = SigningKey.from_seed(_SEED), itertools.count()
    begun = time.perf_counter_ns().to_bytes(8, "little")
    parts = [begun + place.to_bytes(2, "little") for place in range(_NUM_SIGNATURES)]
    signed = [(part, key.sign("calibration", part)) for part in parts]

    def check() -> None:
        part, signature = signed[next(number) % _NUM_SIGNATURES]
        verify(key.public, signature, "calibration", part, peer="calibration")

    return check


def _seconds(*calls: Callable[[], object]) -> float:
    """The slower of the calls, each at the quickest of many times."""
    return max(map(_quickest, calls))


def _quickest(call: Callable[[], object]) -> float:
    call()
    until, quickest = time.perf_counter() + SECONDS_EACH, np.inf
    while True:
        begin = time.perf_counter()
        call()
        end = time.perf_counter()
        quickest = min(quickest, end - begin)
        if end > until:
            return float(quickest)
