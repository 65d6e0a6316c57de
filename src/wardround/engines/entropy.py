"""Randomness for keys and masks, from the operating system."""

from __future__ import annotations

import os

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey


class SystemEntropy:
    """The operating system's generator, and the library's ML-KEM-768, which draws from it too."""

    def random(self, num_bytes: int) -> bytes:
        """So many uniform random bytes."""
        return os.urandom(num_bytes)

    def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        """A fresh secret (32 bytes) and its ciphertext (1088 bytes) for this public key (1184 bytes).

        Raises:
            ValueError: the key is malformed.
        """
        return MLKEM768PublicKey.from_public_bytes(public_key).encapsulate()
