"""Where the machines get their randomness from: always an argument."""

from __future__ import annotations

from typing import Protocol


class Entropy(Protocol):
    """A source of keys and masks: the operating system's generator, or, in tests, one that repeats itself."""

    def random(self, num_bytes: int) -> bytes:
        """So many uniform random bytes."""

    def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        """A fresh ML-KEM-768 secret (32 bytes) and its ciphertext (1088 bytes) for this public key (1184 bytes).

        Raises:
            ValueError: the key is malformed.
        """
