"""Sites that have been set up in memory, for every test that needs some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from wardround.privacy.secagg.keys import ExchangeKey, SigningKey
from wardround.privacy.secagg.manifest import Manifest, RosterSite, advertise, encapsulate_all, pair_keys
from wardround.privacy.secagg.terms import Terms
from wardround.testing.seeded_entropy import SeededEntropy


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUp:
    """What all parties together know after the set-up; lists are by site."""

    manifest: Manifest
    coordinator: SigningKey
    signing: tuple[SigningKey, ...]
    exchange: tuple[ExchangeKey, ...]
    exchange_seeds: tuple[bytes, ...]
    signing_seeds: tuple[bytes, ...]
    own_keys: tuple[bytes, ...]
    advertisements: tuple[bytes, ...]
    encapsulations: tuple[bytes, ...]
    secrets: tuple[Mapping[int, bytes], ...]
    pair_keys: tuple[tuple[bytes, ...], ...]


@lru_cache(maxsize=32)
def setup_of(
    num_sites: int,
    *,
    seed: int = 0,
    terms: Terms | None = None,
    encapsulations: tuple[tuple[bytes, bytes], ...] = (),
) -> SetUp:
    """Set sites up: everything but the ML-KEM secrets follows from the seed; those too where pairs are recorded.

    Args:
        num_sites: how many sites; they are called `site 0`, `site 1`, ...
        seed: of all keys.
        terms: by default the protocol's for so many sites.
        encapsulations: recorded pairs of an ML-KEM secret and its ciphertext, for (0, 1), (0, 2), ..., (1, 2), ...
    """
    entropy = SeededEntropy(seed, encapsulations)
    coordinator = SigningKey.from_seed(entropy.random(32))
    signing_seeds = tuple(entropy.random(32) for _ in range(num_sites))
    signing = tuple(SigningKey.from_seed(each) for each in signing_seeds)
    exchange_seeds = tuple(entropy.random(96) for _ in range(num_sites))
    exchange = tuple(ExchangeKey.from_seed(each) for each in exchange_seeds)
    own_keys = tuple(entropy.random(32) for _ in range(num_sites))
    manifest = Manifest(
        study_digest=entropy.random(32),
        coordinator=coordinator.public,
        terms=terms or Terms.of(num_sites),
        roster=tuple(RosterSite(f"site {index}", key.public) for index, key in enumerate(signing)),
    )
    sites = range(num_sites)
    advertisements = tuple(advertise(manifest, index, signing[index], exchange[index]) for index in sites)
    encapsulated = [
        encapsulate_all(manifest, i, signing[i], exchange[i], advertisements, advertisements[i], entropy) for i in sites
    ]
    messages, secrets = tuple(message for message, _ in encapsulated), tuple(secret for _, secret in encapsulated)
    return SetUp(
        manifest=manifest,
        coordinator=coordinator,
        signing=signing,
        exchange=exchange,
        exchange_seeds=exchange_seeds,
        signing_seeds=signing_seeds,
        own_keys=own_keys,
        advertisements=advertisements,
        encapsulations=messages,
        secrets=secrets,
        pair_keys=tuple(
            pair_keys(manifest, i, exchange[i], advertisements, messages, secrets[i], own_keys[i]) for i in sites
        ),
    )
