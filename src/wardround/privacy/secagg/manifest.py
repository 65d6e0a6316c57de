"""The set-up of a study's secure sums, by which every two sites come to share a key.

The messages advertise_keys and encapsulate of `docs/protocol.md`, section 4.

References:
    Bonawitz et al., Practical Secure Aggregation for Privacy-Preserving Machine Learning, CCS 2017, round 0.
    NIST FIPS 203, Module-Lattice-Based Key-Encapsulation Mechanism Standard, 2024.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from wardround.errors import MessageRefusedError
from wardround.privacy.secagg.entropy import Entropy
from wardround.privacy.secagg.keys import (
    KEY_BYTES,
    MLKEM_CIPHERTEXT_BYTES,
    MLKEM_PUBLIC_BYTES,
    SIGNATURE_BYTES,
    ExchangeKey,
    SigningKey,
    check_exchange_keys,
    verify,
)
from wardround.privacy.secagg.roster import Manifest, RosterSite
from wardround.privacy.secagg.wire import (
    COORDINATOR,
    DIGEST_BYTES,
    FRAME_BYTES,
    Kind,
    Reader,
    Writer,
    check_length,
    digest,
    u16,
)

__all__ = [
    "Advertisement",
    "Encapsulations",
    "Manifest",
    "RosterSite",
    "advertise",
    "encapsulate_all",
    "encapsulation_bytes",
    "keys_digest",
    "pair_keys",
]

ADVERTISEMENT_BYTES = FRAME_BYTES + 2 + KEY_BYTES + MLKEM_PUBLIC_BYTES + SIGNATURE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Advertisement:
    """The message advertise_keys: a site's public exchange keys, signed together with the manifest.

    Attributes:
        index: the site's place in the roster.
        x25519: 32 bytes.
        mlkem: 1184 bytes.
        signature: 64 bytes.
    """

    index: int
    x25519: bytes
    mlkem: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """The message."""
        return _advertised(self.index, self.x25519, self.mlkem) + self.signature

    @classmethod
    def from_bytes(cls, message: bytes | memoryview, manifest: Manifest, *, peer: str = COORDINATOR) -> Advertisement:
        """Read a site's message and check its signature and its keys.

        Args:
            message: the message with its frame.
            manifest: the study's.
            peer: who handed it over, and is at fault where it is not what its site signed.

        Raises:
            MessageRefusedError: `malformed`, `unknown_peer` or `signature`.
        """
        reader = Reader(message, Kind.ADVERTISE_KEYS, peer, max_bytes=ADVERTISEMENT_BYTES)
        index = _read_index(reader, manifest)
        x25519, mlkem = reader.raw(KEY_BYTES), reader.raw(MLKEM_PUBLIC_BYTES)
        signature = _read_signature(reader, manifest, index, "advertise_keys")
        check_exchange_keys(x25519, mlkem, peer=manifest.name_of(index))
        return cls(index=index, x25519=x25519, mlkem=mlkem, signature=signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encapsulations:
    """The message encapsulate: a site's ML-KEM ciphertexts for every site after it, signed.

    Attributes:
        index: the site's place in the roster.
        keys_digest: the digest of all advertisements as this site got them, 32 bytes.
        ciphertexts: 1088 bytes each, for the sites `index + 1`, ..., `n - 1`.
        signature: 64 bytes.
    """

    index: int
    keys_digest: bytes
    ciphertexts: tuple[bytes, ...] = field(repr=False)
    signature: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """The message."""
        return _encapsulated(self.index, self.keys_digest, self.ciphertexts) + self.signature

    @classmethod
    def from_bytes(cls, message: bytes | memoryview, manifest: Manifest, *, peer: str = COORDINATOR) -> Encapsulations:
        """Read a site's message and check its signature; the arguments and errors are those of `Advertisement`."""
        num_sites = manifest.terms.num_sites
        reader = Reader(message, Kind.ENCAPSULATE, peer, max_bytes=encapsulation_bytes(num_sites, 0))
        index = _read_index(reader, manifest)
        keys_digest = reader.raw(DIGEST_BYTES)
        ciphertexts = tuple(reader.raw(MLKEM_CIPHERTEXT_BYTES) for _ in range(index + 1, num_sites))
        signature = _read_signature(reader, manifest, index, "encapsulate")
        return cls(index=index, keys_digest=keys_digest, ciphertexts=ciphertexts, signature=signature)


def encapsulation_bytes(num_sites: int, index: int) -> int:
    """How long the message encapsulate of the site with this index is."""
    return FRAME_BYTES + 2 + DIGEST_BYTES + (num_sites - 1 - index) * MLKEM_CIPHERTEXT_BYTES + SIGNATURE_BYTES


def _advertised(index: int, x25519: bytes, mlkem: bytes) -> bytes:
    return Writer().u16(index).raw(x25519).raw(mlkem).finish(Kind.ADVERTISE_KEYS)


def _encapsulated(index: int, keys_digest: bytes, ciphertexts: Sequence[bytes]) -> bytes:
    return Writer().u16(index).raw(keys_digest).raw(b"".join(ciphertexts)).finish(Kind.ENCAPSULATE)


def _read_index(reader: Reader, manifest: Manifest) -> int:
    index = reader.u16()
    if index >= manifest.terms.num_sites:
        reason = f"it is of site number {index}, and the manifest has the numbers 0 to {manifest.terms.num_sites - 1}"
        raise MessageRefusedError("unknown_peer", reader.peer, reason)
    return index


def _read_signature(reader: Reader, manifest: Manifest, index: int, name: str) -> bytes:
    signed, signature = reader.taken, reader.raw(SIGNATURE_BYTES)
    reader.end()
    # Whoever hands over what the site has not signed is at fault, not the site.
    verify(manifest.identity_of(index), signature, name, manifest.digest, signed, peer=reader.peer)
    return signature


def advertise(manifest: Manifest, index: int, signing: SigningKey, exchange: ExchangeKey) -> bytes:
    """A site's message advertise_keys. By it the site signs the manifest.

    Raises:
        ValueError: the signing key is not the one that the manifest pins for this site.
    """
    _check_signing(manifest, index, signing)
    x25519, mlkem = exchange.x25519_public, exchange.mlkem_public
    signature = signing.sign("advertise_keys", manifest.digest, _advertised(index, x25519, mlkem))
    return Advertisement(index=index, x25519=x25519, mlkem=mlkem, signature=signature).to_bytes()


def keys_digest(advertisements: Sequence[bytes]) -> bytes:
    """The digest of all sites' messages advertise_keys in the roster's order, 32 bytes: `K` of the protocol."""
    return digest("keys", *advertisements)


def encapsulate_all(
    manifest: Manifest,
    index: int,
    signing: SigningKey,
    exchange: ExchangeKey,
    advertisements: Sequence[bytes],
    own: bytes,
    entropy: Entropy,
) -> tuple[bytes, Mapping[int, bytes]]:
    """Check all sites' keys, and agree on an ML-KEM secret with every site after this one.

    Args:
        manifest: the study's.
        index: this site's.
        signing: this site's.
        exchange: this site's.
        advertisements: all sites' messages advertise_keys in the roster's order, as the coordinator handed them over.
        own: the message advertise_keys that this site sent.
        entropy: where the secrets come from.

    Returns:
        The message encapsulate, and by site after this one the ML-KEM secret (32 bytes). The secrets are this site's to
        keep until `pair_keys`, then to forget.

    Raises:
        MessageRefusedError: `manifest` if the set does not hold `own`; `malformed`, `unknown_peer` or `signature`.
        ValueError: the signing key is not the one that the manifest pins for this site.
    """
    _check_signing(manifest, index, signing)
    if len(advertisements) == manifest.terms.num_sites and advertisements[index] != own:
        reason = "the set of keys holds another message of this site than the one that it sent"
        raise MessageRefusedError("manifest", COORDINATOR, reason)
    peers = _read_advertisements(manifest, index, exchange, advertisements)
    made = {peer.index: _encapsulate(entropy, peer, manifest) for peer in peers[index + 1 :]}
    agreed, ciphertexts = keys_digest(advertisements), tuple(ciphertext for _, ciphertext in made.values())
    signature = signing.sign("encapsulate", manifest.digest, _encapsulated(index, agreed, ciphertexts))
    message = Encapsulations(index=index, keys_digest=agreed, ciphertexts=ciphertexts, signature=signature)
    return message.to_bytes(), MappingProxyType({j: secret for j, (secret, _) in made.items()})


def _encapsulate(entropy: Entropy, peer: Advertisement, manifest: Manifest) -> tuple[bytes, bytes]:
    try:
        secret, ciphertext = entropy.encapsulate(peer.mlkem)
    except ValueError:
        reason = "its ML-KEM-768 key is malformed; the site has to make a new one and advertise it"
        raise MessageRefusedError("malformed", manifest.name_of(peer.index), reason) from None
    check_length("an ML-KEM secret", secret, KEY_BYTES)
    check_length("an ML-KEM ciphertext", ciphertext, MLKEM_CIPHERTEXT_BYTES)
    return secret, ciphertext


def pair_keys(
    manifest: Manifest,
    index: int,
    exchange: ExchangeKey,
    advertisements: Sequence[bytes],
    encapsulations: Sequence[bytes],
    own_secrets: Mapping[int, bytes],
    own_key: bytes,
) -> tuple[bytes, ...]:
    """The keys that this site shares with every other for as long as the study lasts.

    Args:
        manifest: the study's.
        index: this site's.
        exchange: this site's.
        advertisements: those that `encapsulate_all` took.
        encapsulations: all sites' messages encapsulate in the roster's order, as the coordinator handed them over.
        own_secrets: what `encapsulate_all` gave.
        own_key: 32 random bytes, the key to what this site seals for itself.

    Returns:
        `n` secret keys of 32 bytes, by index; `own_key` at this site's own.

    Raises:
        MessageRefusedError: `manifest` if a site answered to other keys than these; `malformed`, `unknown_peer` or
            `signature`.
        ValueError: `own_secrets` or `own_key` is not complete.

    Guarantees:
        both_ends_get_the_same_key: site i's key for j is site j's key for i, and no other two sites have it.
        a_pair_key_depends_on_the_whole_setup: another manifest, advertisement or ciphertext gives another key.
    """
    check_length("own_key", own_key, KEY_BYTES)
    if sorted(own_secrets) != list(range(index + 1, manifest.terms.num_sites)):
        raise ValueError(f"own_secrets must have one for every site after {index}, got those of {sorted(own_secrets)}")
    for secret in own_secrets.values():
        check_length("an ML-KEM secret", secret, KEY_BYTES)
    peers = _read_advertisements(manifest, index, exchange, advertisements)
    agreed = keys_digest(advertisements)
    answers = _read_encapsulations(manifest, agreed, encapsulations)

    def key_with(other: int) -> bytes:
        first, second, peer = min(index, other), max(index, other), manifest.name_of(other)
        ciphertext = answers[first].ciphertexts[second - first - 1]
        secret = own_secrets[other] if index < other else exchange.decapsulate(ciphertext, peer)
        pair = (u16(first), u16(second), agreed, hashlib.sha256(ciphertext).digest())
        return _pair_key(manifest, exchange.agree(peers[other].x25519, peer) + secret, pair)

    return tuple(own_key if other == index else key_with(other) for other in range(manifest.terms.num_sites))


def _pair_key(manifest: Manifest, secret: bytes, pair: tuple[bytes, ...]) -> bytes:
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=manifest.digest, info=digest("pair", *pair)).derive(secret)


def _read_advertisements(
    manifest: Manifest, index: int, exchange: ExchangeKey, messages: Sequence[bytes]
) -> list[Advertisement]:
    _check_count(manifest, messages)
    read = [Advertisement.from_bytes(message, manifest) for message in messages]
    _check_order([advertisement.index for advertisement in read])
    if (read[index].x25519, read[index].mlkem) != (exchange.x25519_public, exchange.mlkem_public):
        raise MessageRefusedError("manifest", COORDINATOR, "the set of keys holds others for this site than its own")
    return read


def _read_encapsulations(manifest: Manifest, agreed: bytes, messages: Sequence[bytes]) -> list[Encapsulations]:
    _check_count(manifest, messages)
    read = [Encapsulations.from_bytes(message, manifest) for message in messages]
    _check_order([encapsulations.index for encapsulations in read])
    for encapsulations in read:
        if encapsulations.keys_digest != agreed:
            reason = "it was given other keys than this site was; the sites have to compare their sets of keys"
            raise MessageRefusedError("manifest", manifest.name_of(encapsulations.index), reason)
    return read


def _check_count(manifest: Manifest, messages: Sequence[bytes]) -> None:
    if len(messages) != manifest.terms.num_sites:
        reason = f"it handed over {len(messages)} messages, and the manifest has {manifest.terms.num_sites} sites"
        raise MessageRefusedError("malformed", COORDINATOR, reason)


def _check_order(indices: Sequence[int]) -> None:
    for place, index in enumerate(indices):
        if index != place:
            reason = f"it handed over the message of site number {index} in the place of number {place}"
            raise MessageRefusedError("malformed", COORDINATOR, reason)


def _check_signing(manifest: Manifest, index: int, signing: SigningKey) -> None:
    if manifest.identity_of(index) != signing.public:
        name = manifest.name_of(index)
        raise ValueError(f"signing must be the key that the manifest pins for site {name!r}; it is another")
