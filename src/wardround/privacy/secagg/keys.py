"""The keys of secure sums: what signs, what agrees on secrets, what derives and what seals.

Primitives are those of the `cryptography` library: Ed25519 (RFC 8032), X25519 (RFC 7748), ML-KEM-768 (FIPS 203),
HKDF-SHA256 (RFC 5869), AES-256-GCM (NIST SP 800-38D). How they are put together is `docs/protocol.md`, section 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from wardround.errors import MessageRefusedError
from wardround.privacy.secagg.wire import check_length, digest

KEY_BYTES = 32
SIGNATURE_BYTES = 64
MLKEM_PUBLIC_BYTES = 1184
MLKEM_CIPHERTEXT_BYTES = 1088
MLKEM_SEED_BYTES = 64
NONCE_BYTES = 12
SEAL_BYTES = NONCE_BYTES + 16  # what sealing adds: the nonce before, the tag behind


@dataclass(frozen=True, slots=True, eq=False)
class SigningKey:
    """A party's Ed25519 key: who it is.

    Attributes:
        public: 32 bytes; what others pin.

    Guarantees:
        a_signing_key_shows_no_secret: neither repr nor str holds a byte of the seed, and it cannot be pickled.
    """

    public: bytes
    _private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """The key of a secret seed of 32 bytes (RFC 8032's private key)."""
        check_length("seed", seed, KEY_BYTES)
        private = Ed25519PrivateKey.from_private_bytes(seed)
        return cls(private.public_key().public_bytes_raw(), private)

    def sign(self, name: str, *parts: bytes | memoryview) -> bytes:
        """The signature (64 bytes) over `digest(name, *parts)`."""
        return self._private.sign(digest(name, *parts))


def verify(public: bytes, signature: bytes, name: str, *parts: bytes | memoryview, peer: str) -> None:
    """Check a signature over `digest(name, *parts)`.

    That a signature holds is remembered: in a simulation all sites are in one process and check the same ones. What is
    kept is public: key, signature and digest.

    Args:
        public: the signer's pinned key, 32 bytes.
        signature: 64 bytes.
        name: what was signed.
        parts: as they were signed.
        peer: whose signature it has to be, for the error.

    Raises:
        MessageRefusedError: `signature`.
    """
    try:
        _verify_digest(public, signature, digest(name, *parts))
    except (InvalidSignature, ValueError):
        reason = f"its signature as {name} does not hold under the key that the manifest pins, or is of another study"
        raise MessageRefusedError("signature", peer, reason) from None


@lru_cache(maxsize=2**14)
def _verify_digest(public: bytes, signature: bytes, signed: bytes) -> None:
    # An error is not remembered, so bad signatures push no good ones out.
    Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)


def derive(key: bytes, name: str, *parts: bytes | memoryview) -> bytes:
    """A key (32 bytes) from a key (32 bytes): HKDF-Expand-SHA256 with `digest(name, *parts)` as its info."""
    check_length("key", key, KEY_BYTES)
    return HKDFExpand(hashes.SHA256(), KEY_BYTES, digest(name, *parts)).derive(key)


def seal(key: bytes, nonce: bytes, plaintext: bytes) -> bytes:
    """Encrypt under AES-256-GCM.

    Args:
        key: 32 bytes.
        nonce: 12 bytes; never twice under one key.
        plaintext: any number of bytes.

    Returns:
        The nonce, the ciphertext and its tag: `len(plaintext) + SEAL_BYTES` bytes.
    """
    check_length("key", key, KEY_BYTES)
    check_length("nonce", nonce, NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, None)


def open_sealed(key: bytes, blob: bytes, *, peer: str) -> bytes:
    """What was sealed.

    Raises:
        MessageRefusedError: `blob`: it was not sealed under this key, or was altered since.
    """
    check_length("key", key, KEY_BYTES)
    try:
        return AESGCM(key).decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], None)
    except (InvalidTag, ValueError):
        reason = "what it sealed for this site does not open under the key that the two share"
        raise MessageRefusedError("blob", peer, reason) from None


@dataclass(frozen=True, slots=True, eq=False)
class ExchangeKey:
    """A site's keys to agree on secrets with: X25519 and ML-KEM-768, so that either may break.

    Attributes:
        x25519_public: 32 bytes.
        mlkem_public: 1184 bytes.

    Guarantees:
        an_exchange_key_shows_no_secret: neither repr nor str holds a byte of the seed, and it cannot be pickled.
    """

    x25519_public: bytes
    mlkem_public: bytes = field(repr=False)
    _x25519: X25519PrivateKey = field(repr=False)
    _mlkem: MLKEM768PrivateKey = field(repr=False)

    @classmethod
    def from_seed(cls, seed: bytes) -> ExchangeKey:
        """The keys of a secret seed of 96 bytes: 32 for X25519, then 64 for ML-KEM (FIPS 203's d and z)."""
        check_length("seed", seed, KEY_BYTES + MLKEM_SEED_BYTES)
        x25519 = X25519PrivateKey.from_private_bytes(seed[:KEY_BYTES])
        mlkem = MLKEM768PrivateKey.from_seed_bytes(seed[KEY_BYTES:])
        return cls(x25519.public_key().public_bytes_raw(), mlkem.public_key().public_bytes_raw(), x25519, mlkem)

    def agree(self, peer_x25519: bytes, peer: str) -> bytes:
        """The X25519 secret (32 bytes) with a peer.

        Raises:
            MessageRefusedError: `malformed`: a key of low order, which would make the secret zero, or no key.
        """
        try:
            return _exchanged(self._x25519, peer_x25519)
        except ValueError as error:
            raise MessageRefusedError("malformed", peer, f"{error}; the site has to make a new one") from None

    def decapsulate(self, ciphertext: bytes, peer: str) -> bytes:
        """The ML-KEM secret (32 bytes) of a peer's ciphertext; an altered one gives another secret (FIPS 203, 6.3).

        Raises:
            MessageRefusedError: `malformed`: not 1088 bytes.
        """
        try:
            return self._mlkem.decapsulate(ciphertext)
        except ValueError:
            raise MessageRefusedError("malformed", peer, "its ML-KEM-768 ciphertext is malformed") from None


def check_exchange_keys(x25519: bytes, mlkem: bytes, *, peer: str) -> None:
    """Refuse public keys that nobody could agree on a secret with; that keys are good is remembered.

    Raises:
        MessageRefusedError: `malformed`: an X25519 key of low order, or an ML-KEM-768 key that fails FIPS 203's check.
    """
    try:
        _check_usable(x25519, mlkem)
    except ValueError as error:
        raise MessageRefusedError("malformed", peer, f"{error}; the site has to make a new one") from None


# Every private key gives zero with a point of low order, and with no other point, so any will do to find one.
_PROBE = X25519PrivateKey.from_private_bytes(bytes(KEY_BYTES))


@lru_cache(maxsize=2**11)
def _check_usable(x25519: bytes, mlkem: bytes) -> None:
    _exchanged(_PROBE, x25519)
    try:
        MLKEM768PublicKey.from_public_bytes(mlkem)
    except ValueError:
        raise ValueError("its ML-KEM-768 key is malformed") from None


def _exchanged(private: X25519PrivateKey, public: bytes) -> bytes:
    try:
        secret = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        secret = bytes(KEY_BYTES)
    # RFC 7748, section 6.1. The library refuses zero itself; the protocol demands it, so it is not left to a library.
    if not any(secret):
        raise ValueError("its X25519 key gives no secret (a point of low order, or not 32 bytes)")
    return secret
