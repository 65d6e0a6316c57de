"""Key streams: AES-128 in counter mode. They mask vectors, and round bounded numbers.

References:
    NIST SP 800-38A, section 6.5 (CTR).
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

SEED_BYTES = 32
ZEROS = memoryview(bytes(2**18))
"""What is encrypted: `key_stream(seed).update_into(ZEROS[:num_bytes], out)` writes the stream's next bytes."""


def key_stream(seed: bytes) -> CipherContext:
    """The key stream with key `seed[:16]` and initial counter block `seed[16:]`.

    Raises:
        ValueError: the seed has not 32 bytes.
    """
    if len(seed) != SEED_BYTES:
        raise ValueError(f"seed must have {SEED_BYTES} bytes, got {len(seed)}")
    return Cipher(algorithms.AES128(seed[:16]), modes.CTR(seed[16:])).encryptor()
