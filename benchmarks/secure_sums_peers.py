"""What secure sums are measured beside: Flower's SecAgg+, TenSEAL's CKKS, and what no protocol of masks can beat.

Flower's client and server do here what its `secaggplus_mod` and `SecAggPlusWorkflow` do, by the same public functions
in the same order and with their defaults; records, messages and the network are left out, in its favour.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

HAS_FLOWER = importlib.util.find_spec("flwr") is not None
HAS_TENSEAL = importlib.util.find_spec("tenseal") is not None

if HAS_FLOWER:
    from flwr.common import bytes_to_ndarray, ndarray_to_bytes
    from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
    from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt, generate_shared_key
    from flwr.common.secure_aggregation.ndarrays_arithmetic import (
        factor_combine,
        factor_extract,
        get_parameters_shape,
        parameters_addition,
        parameters_mod,
        parameters_multiply,
        parameters_subtraction,
    )
    from flwr.common.secure_aggregation.quantization import dequantize, quantize
    from flwr.common.secure_aggregation.secaggplus_utils import (
        pseudo_rand_gen,
        share_keys_plaintext_concat,
        share_keys_plaintext_separate,
    )
    from flwr.supercore.primitives.asymmetric import (
        bytes_to_private_key,
        bytes_to_public_key,
        generate_key_pairs,
        private_key_to_bytes,
        public_key_to_bytes,
    )
if HAS_TENSEAL:
    import tenseal

# The workflow's defaults.
CLIPPING_RANGE, TARGET_RANGE, MOD_RANGE, MAX_WEIGHT = 8.0, 2**22, 2**32, 1000.0
NUM_EXAMPLES = 1000


class FlowerClient:
    """One client of a round; every client is every other's neighbour, as in SecAgg."""

    def __init__(self, node_id: int, num_sites: int, threshold: int) -> None:
        self.node_id, self.num_sites, self.threshold = node_id, num_sites, threshold
        (private_1, public_1), (private_2, public_2) = generate_key_pairs(), generate_key_pairs()
        self.sk1, self.sk2 = private_key_to_bytes(private_1), private_key_to_bytes(private_2)
        self.public_keys = public_key_to_bytes(public_1), public_key_to_bytes(public_2)

    def share_keys(self, all_keys: Mapping[int, tuple[bytes, bytes]]) -> dict[int, bytes]:
        """Stage 1: what each other client is sent."""
        self.all_keys = all_keys
        self.seed = os.urandom(32)
        self.seed_shares = create_shares(self.seed, self.threshold, self.num_sites)
        self.key_shares = create_shares(self.sk1, self.threshold, self.num_sites)
        self.shared_keys: dict[int, bytes] = {}
        sealed = {}
        for place, (node_id, (_, public_2)) in enumerate(all_keys.items()):
            if node_id == self.node_id:
                self.held = {node_id: (self.seed_shares[place], self.key_shares[place])}
                continue
            shared = generate_shared_key(bytes_to_private_key(self.sk2), bytes_to_public_key(public_2))
            self.shared_keys[node_id] = shared
            plain = share_keys_plaintext_concat(self.node_id, node_id, self.seed_shares[place], self.key_shares[place])
            sealed[node_id] = encrypt(shared, plain)
        return sealed

    def masked_vector(self, sealed: Mapping[int, bytes], parameters: Sequence[np.ndarray]) -> list[bytes]:
        """Stage 2: the update, multiplied by its weight, quantised and masked."""
        for source, ciphertext in sealed.items():
            _, _, seed_share, key_share = share_keys_plaintext_separate(decrypt(self.shared_keys[source], ciphertext))
            self.held[source] = seed_share, key_share
        ratio = round(NUM_EXAMPLES / MAX_WEIGHT * TARGET_RANGE)
        weighted = parameters_multiply(list(parameters), ratio / TARGET_RANGE)
        vector = factor_combine(ratio, quantize(weighted, CLIPPING_RANGE, TARGET_RANGE))
        shapes = [array.shape for array in vector]
        vector = parameters_addition(vector, pseudo_rand_gen(self.seed, MOD_RANGE, shapes))
        for node_id in sealed:
            public_1 = self.all_keys[node_id][0]
            shared = generate_shared_key(bytes_to_private_key(self.sk1), bytes_to_public_key(public_1))
            mask = pseudo_rand_gen(shared, MOD_RANGE, shapes)
            combine = parameters_addition if self.node_id > node_id else parameters_subtraction
            vector = combine(vector, mask)
        return [ndarray_to_bytes(array) for array in parameters_mod(vector, MOD_RANGE)]

    def unmask(self, active: Iterable[int], dead: Iterable[int]) -> dict[int, bytes]:
        """Stage 3: shares of the active clients' seeds and of the dead ones' keys."""
        return {node: self.held[node][0] for node in active} | {node: self.held[node][1] for node in dead}


class FlowerServer:
    """The server of a round, stages 2 and 3."""

    def __init__(self, all_keys: Mapping[int, tuple[bytes, bytes]], threshold: int) -> None:
        self.all_keys, self.threshold = all_keys, threshold

    def total(
        self,
        vectors: Iterable[Sequence[bytes]],
        shares: Mapping[int, Sequence[bytes]],
        active: Sequence[int],
    ) -> list[np.ndarray]:
        """The weighted mean of the active clients' updates."""
        total = None
        for received in vectors:
            vector = [bytes_to_ndarray(array) for array in received]
            total = vector if total is None else parameters_addition(total, vector)
        total = parameters_mod(total, MOD_RANGE)
        shapes = get_parameters_shape(total)
        for node_id, held in shares.items():
            secret = combine_shares(list(held)[: self.threshold])
            if node_id in active:
                total = parameters_subtraction(total, pseudo_rand_gen(secret, MOD_RANGE, shapes))
            else:
                total = self._without_pairs(total, node_id, secret, active, shapes)
        ratio, total = factor_extract(parameters_mod(total, MOD_RANGE))
        mean = dequantize(total, CLIPPING_RANGE, TARGET_RANGE)
        for array in mean:
            array -= (len(active) - 1) * CLIPPING_RANGE
            array *= TARGET_RANGE / ratio
        return mean

    def _without_pairs(
        self, total: list[np.ndarray], dead: int, secret: bytes, active: Sequence[int], shapes: list[tuple[int, ...]]
    ) -> list[np.ndarray]:
        # The workflow goes over all neighbours, dead ones too, whose masks are in no vector: left out, in its favour.
        for node_id in active:
            shared = generate_shared_key(bytes_to_private_key(secret), bytes_to_public_key(self.all_keys[node_id][0]))
            mask = pseudo_rand_gen(shared, MOD_RANGE, shapes)
            combine = parameters_addition if dead > node_id else parameters_subtraction
            total = combine(total, mask)
        return total


class FlowerRound:
    """All clients of a round and the server.

    Args:
        num_sites: clients.
        threshold: shares that give a secret back.
        num_real: clients that share their secrets in earnest; what the others send is as long, and is never opened.
    """

    def __init__(self, num_sites: int, threshold: int, num_real: int | None = None) -> None:
        self.clients = [FlowerClient(node, num_sites, threshold) for node in range(num_sites)]
        self.all_keys = {client.node_id: client.public_keys for client in self.clients}
        self.server = FlowerServer(self.all_keys, threshold)
        self.sealed = {client.node_id: client.share_keys(self.all_keys) for client in self.clients[:num_real]}

    def sealed_for(self, node_id: int) -> dict[int, bytes]:
        """What a client is sent in stage 2; where the sender is not real, what this one sent to it, turned round."""
        client = self.clients[node_id]
        sealed = {}
        for node in self.all_keys.keys() - {node_id}:
            if node in self.sealed:
                sealed[node] = self.sealed[node][node_id]
            else:
                shares = client.seed_shares[node], client.key_shares[node]
                sealed[node] = encrypt(client.shared_keys[node], share_keys_plaintext_concat(node, node_id, *shares))
        return sealed

    def total(self, parameters: Sequence[np.ndarray], dropped: Sequence[int] = ()) -> list[np.ndarray]:
        """A whole round after stage 0, of which the dropped send no vector. All clients have the same parameters."""
        self.sealed = {client.node_id: client.share_keys(self.all_keys) for client in self.clients}
        vectors = {
            client.node_id: client.masked_vector(self.sealed_for(client.node_id), parameters)
            for client in self.clients
            if client.node_id not in dropped
        }
        active = sorted(vectors)
        answers = [self.clients[node].unmask(active, dropped) for node in active]
        shares = {node: [answer[node] for answer in answers] for node in self.all_keys}
        return self.server.total(vectors.values(), shares, active)


def flower_client_bytes(round_: FlowerRound, num_parameters: int, dropped: int = 0) -> int:
    """What one client uploads in stages 0 to 3: keys, sealed shares, masked vector, shares."""
    num_sites = len(round_.clients)
    client = round_.clients[0]
    sealed = sum(map(len, round_.sealed[0].values()))
    vector = sum(len(ndarray_to_bytes(np.zeros(size, np.int64))) for size in (1, num_parameters))
    shares = (num_sites - dropped) * len(client.seed_shares[0]) + dropped * len(client.key_shares[0])
    return sum(map(len, client.public_keys)) + sealed + vector + shares


class Ckks:
    """CKKS with 8192 coefficients and the smallest modulus that sums need: it is only added, never multiplied."""

    def __init__(self) -> None:
        self.context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 60])
        self.context.global_scale = 2**40

    def encrypted(self, values: np.ndarray) -> list[bytes]:
        """Ciphertexts of 4096 numbers each, as they are sent."""
        parts = (values[start : start + 4096] for start in range(0, len(values), 4096))
        return [tenseal.ckks_vector(self.context, part).serialize() for part in parts]

    def total(self, received: Sequence[Sequence[bytes]]) -> np.ndarray:
        """The sum of what arrived, decrypted."""
        return np.concatenate([self._part(parts) for parts in zip(*received, strict=True)])

    def _part(self, parts: Sequence[bytes]) -> list[float]:
        total = tenseal.ckks_vector_from(self.context, parts[0])
        for ciphertext in parts[1:]:
            total += tenseal.ckks_vector_from(self.context, ciphertext)
        return total.decrypt()


_AES_BLOCK = 2**18
_ZEROS, _OUT = bytes(_AES_BLOCK), bytearray(_AES_BLOCK)


def aes(num_masks: int, num_bytes: int) -> None:
    """The key streams of so many masks of this length and nothing else, block by block in the cache."""
    streams = [Cipher(algorithms.AES128(bytes(16)), modes.CTR(bytes(16))).encryptor() for _ in range(num_masks)]
    for start in range(0, num_bytes, _AES_BLOCK):
        size = min(_AES_BLOCK, num_bytes - start)
        zeros, out = memoryview(_ZEROS)[:size], memoryview(_OUT)[:size]
        for stream in streams:
            stream.update_into(zeros, out)


def sha256(words: np.ndarray) -> bytes:
    """The hash of a vector."""
    return hashlib.sha256(words.data.cast("B")).digest()


def plain_sum(vectors: Iterable[np.ndarray], total: np.ndarray) -> np.ndarray:
    """The sum of vectors in float32, in kept memory."""
    total[:] = 0
    for vector in vectors:
        np.add(total, vector, out=total)
    return total
