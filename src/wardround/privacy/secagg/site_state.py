"""What a site knows of a study's secure sums, what can happen to it, and what it then does.

The machine itself is `site.step`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from wardround.privacy.secagg.context import Opening
from wardround.privacy.secagg.entropy import Entropy
from wardround.privacy.secagg.keys import KEY_BYTES, MLKEM_SEED_BYTES, SigningKey
from wardround.privacy.secagg.stored import Octets, StoredManifest

EXCHANGE_SEED_BYTES = KEY_BYTES + MLKEM_SEED_BYTES


class Stage(enum.StrEnum):
    """How far the set-up has come."""

    NEW = "new"
    ADVERTISED = "advertised"
    ENCAPSULATED = "encapsulated"
    READY = "ready"


class Phase(enum.StrEnum):
    """How far the last round of a run has come at this site."""

    ASKED = "asked"
    MASKED = "masked"
    SIGNED = "signed"
    RELEASED = "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSecrets:
    """What a site alone knows, for the whole study.

    Attributes:
        identity: seed of the Ed25519 key whose public part the manifest pins, 32 bytes.
        exchange: seed of its X25519 and ML-KEM keys, 96 bytes; erased when the set-up is complete.
        own_key: seals what it sends to itself, 32 bytes.
    """

    identity: Octets = field(repr=False)
    exchange: Octets = field(repr=False)
    own_key: Octets = field(repr=False)

    @classmethod
    def drawn(cls, identity: bytes, entropy: Entropy) -> SiteSecrets:
        """Fresh secrets of a study, beside the identity, which outlives studies."""
        return cls(identity=identity, exchange=entropy.random(EXCHANGE_SEED_BYTES), own_key=entropy.random(KEY_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundMemory:
    """What a site remembers of a run: its last round, and how it answered.

    Attributes:
        opening: of the round.
        phase: how far it has come.
        context: once it has answered, 32 bytes.
        survivors: whom it was told to be in the sum.
        survivors_digest: what it signed, or released shares for.
        answer: the unmask message that it sent; the same question gets the same bytes again.
        release: the shares that wait for the agreement.
    """

    opening: Opening
    phase: Phase = Phase.ASKED
    context: Octets = b""
    survivors: tuple[int, ...] = ()
    survivors_digest: Octets = b""
    answer: Octets = field(default=b"", repr=False)
    release: Octets = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteState:
    """All that a site knows of a study's secure sums.

    Attributes:
        manifest: of the study.
        index: the site's place in its roster.
        secrets: the site's own.
        stage: how far the set-up has come.
        advertisement: the message by which it advertised its keys.
        advertisements: all sites' such messages, until the set-up is complete.
        encapsulation: its message to the keys of the others, until the set-up is complete.
        encapsulated: the secrets in it by index, until the set-up is complete.
        keys: the digest of all advertisements, once the set-up is complete.
        pair_keys: by index what it shares with each site, once the set-up is complete.
        rounds: by run (hex) its last round. A run is never forgotten: its rounds could be replayed.
        answered: by the digest of an ask (hex) whom the sum was over that it released shares for.

    Guarantees:
        survives_a_restart: a state that is stored and read again answers as the one that was stored.
        the_exchange_keys_are_erased: after the set-up nothing is left that pair keys could be made from again.
    """

    manifest: StoredManifest
    index: int
    secrets: SiteSecrets
    stage: Stage = Stage.NEW
    advertisement: Octets = b""
    advertisements: tuple[Octets, ...] = ()
    encapsulation: Octets = b""
    encapsulated: Mapping[int, Octets] = field(default_factory=dict, repr=False)
    keys: Octets = b""
    pair_keys: tuple[Octets, ...] = field(default=(), repr=False)
    rounds: Mapping[str, RoundMemory] = field(default_factory=dict)
    answered: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.index < len(self.manifest.roster):
            raise ValueError(f"index must be in [0, {len(self.manifest.roster) - 1}], got index={self.index}")
        if self.signing.public != self.manifest.roster[self.index].identity:
            raise ValueError(
                f"the manifest pins another key for site {self.name!r}; compare fingerprints with the other sites"
            )

    @property
    def name(self) -> str:
        """The site's name in the manifest."""
        return self.manifest.roster[self.index].name

    @property
    def signing(self) -> SigningKey:
        """The site's key to sign with."""
        return SigningKey.from_seed(self.secrets.identity)


# Events


@dataclass(frozen=True, slots=True)
class Enrol:
    """The site has the manifest from people and takes part."""


@dataclass(frozen=True, slots=True)
class AdvertisementsArrived:
    """The keys of all sites, in the roster's order."""

    messages: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class EncapsulationsArrived:
    """The encapsulated secrets of all sites, in the roster's order."""

    messages: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """A round is opened; `broadcast_digest` is the SHA-256 of the ask as it arrived here."""

    message: bytes
    broadcast_digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """The site has computed and encoded its contribution.

    Attributes:
        opening: what it answers, as `Compute` had it: an answer to an earlier ask is not sent as one to a later.
        words: the encoded vector; masked in place, as nobody needs it any more.
        num_wide: elements of it that take two words.
        layout: digest of its layout, as this site derived it from the ask.
    """

    opening: Opening
    words: NDArray[np.uint64] = field(repr=False)
    num_wide: int
    layout: bytes


@dataclass(frozen=True, slots=True)
class SurvivorsArrived:
    """The coordinator says who is in the sum."""

    message: bytes


@dataclass(frozen=True, slots=True)
class AgreementArrived:
    """The coordinator shows that enough sites were told the same."""

    message: bytes


Event: TypeAlias = (
    Enrol | AdvertisementsArrived | EncapsulationsArrived | Opened | Computed | SurvivorsArrived | AgreementArrived
)


# Effects


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to the coordinator."""

    message: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Compute:
    """Check the ask of this round, and compute its answer if the site agrees."""

    opening: Opening


@dataclass(frozen=True, slots=True)
class Upload:
    """Send the masked_input, then the masked vector in chunks."""

    message: bytes = field(repr=False)
    context: bytes
    sender: int
    words: NDArray[np.uint64] = field(repr=False)


Effect: TypeAlias = Send | Compute | Upload
Effects: TypeAlias = tuple[Effect, ...]
