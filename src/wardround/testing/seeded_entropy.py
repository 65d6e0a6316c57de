"""Randomness that repeats itself, so that a test of secure sums can be repeated."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR


class SeededEntropy:
    """A source of randomness for tests and simulations alone: who knows the seed knows every key and mask.

    Never give it to a site that holds patients' data. `random` is the AES-256-CTR key stream of the seed's hash.
    `encapsulate` gives the recorded pairs in their order; when there are none left it asks the library, which has no
    seed, so that only what follows from the pairs can be repeated.

    Args:
        seed: any integer or bytes; each gives a stream of its own.
        encapsulations: recorded pairs of an ML-KEM-768 secret (32 bytes) and its ciphertext (1088 bytes).

    Guarantees:
        seeded_entropy_repeats: equal seeds give equal bytes, however they are asked for; others give others.
    """

    def __init__(self, seed: int | bytes, encapsulations: Iterable[tuple[bytes, bytes]] = ()) -> None:
        key = hashlib.sha256(b"wardround/testing/seeded_entropy" + repr(seed).encode()).digest()
        self._stream = Cipher(AES256(key), CTR(bytes(16))).encryptor()
        self._encapsulations = iter(encapsulations)

    def random(self, num_bytes: int) -> bytes:
        """The next bytes of the stream."""
        return self._stream.update(bytes(num_bytes))

    def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        """The next recorded pair, or, when there are none left, one of the library's for this key (1184 bytes).

        Raises:
            ValueError: the key is malformed.
        """
        public = MLKEM768PublicKey.from_public_bytes(public_key)
        return next(self._encapsulations, None) or public.encapsulate()
