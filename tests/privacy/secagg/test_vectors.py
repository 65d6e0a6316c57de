"""The golden vectors of rounds: the machines send them, byte for byte, and refuse what must be refused.

What the specification says of digests, keys, masks and commitments is computed here once more, from its text alone.
"""

import hashlib
import hmac
import json
import struct
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.privacy.secagg.make_vectors import PATH, vectors
from wardround.errors import MessageRefusedError
from wardround.privacy.secagg import coordinator, site
from wardround.privacy.secagg.context import Opening
from wardround.privacy.secagg.manifest import Manifest
from wardround.privacy.secagg.prg import apply_masks
from wardround.privacy.secagg.vector import add_words

ROUNDS: list[dict[str, Any]] = json.loads(PATH.read_text(encoding="utf-8"))["rounds"]
EACH = pytest.mark.parametrize("case", ROUNDS, ids=lambda case: case["name"])


def test_the_command_writes_this_file():
    assert PATH.read_text(encoding="utf-8") == json.dumps(vectors(), indent=1) + "\n"


@EACH
def test_a_quarter_of_the_messages_are_bad(case):
    assert len(case["refused"]) * 4 >= len(case["steps"]) + len(case["refused"])
    kinds = {bytes.fromhex(bad["message"])[5] for bad in case["refused"]}
    assert kinds == ({4, 5, 6, 7, 8, 9, 10} if case["is_strict"] else {4, 5, 6, 7, 10})


# Replay


class Recorded:
    """Entropy that gives what was drawn."""

    def __init__(self, draws: list[str]) -> None:
        self.draws = [bytes.fromhex(drawn) for drawn in draws]

    def random(self, num_bytes: int) -> bytes:
        """The next bytes."""
        drawn = self.draws.pop(0)
        assert len(drawn) == num_bytes
        return drawn

    def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        """Nothing is set up here."""
        raise AssertionError


class Replay:
    """The parties of a recorded round."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case, self.manifest = case, Manifest.from_bytes(bytes.fromhex(case["manifest"]))
        self.words = [np.frombuffer(bytes.fromhex(vector), np.uint64) for vector in case["vectors"]]
        self.total, self.arriving = np.zeros_like(self.words[0]), {}
        self.states = [self._site(index) for index in range(len(self.manifest.roster))]
        self.entropy = [Recorded(draws) for draws in case["draws"]]
        self.sent: dict[str, list[bytes]] = {}
        opening = self._opening()
        self.round, _ = coordinator.open_round(
            self.manifest,
            bytes.fromhex(case["coordinator_seed"]),
            opening,
            keys=bytes.fromhex(case["K"]),
            layout=bytes.fromhex(case["layout"]),
            num_words=self.words[0].size,
        )

    def _opening(self) -> Opening:
        message = bytes.fromhex(self.case["steps"][0]["message"])
        return Opening.from_bytes(message, self.manifest, self._ask())

    def _ask(self) -> bytes:
        return hashlib.sha256(bytes.fromhex(self.case["ask"])).digest()

    def _site(self, index: int) -> site.SiteState:
        keys = tuple(bytes.fromhex(key) for key in self.case["pair_keys"][index])
        identity = bytes.fromhex(self.case["signing_seeds"][index])
        return site.SiteState(
            manifest=self.manifest,
            index=index,
            secrets=site.SiteSecrets(identity=identity, exchange=b"", own_key=keys[index]),
            stage=site.Stage.READY,
            keys=bytes.fromhex(self.case["K"]),
            pair_keys=keys,
        )

    def deliver(self, step: dict[str, Any]) -> None:
        """A message arrives; what its sender owes it was compared before."""
        message = bytes.fromhex(step["message"])
        if step["to"] == "coordinator":
            self._to_coordinator(int(step["from"].removeprefix("site ")), message)
        else:
            self._to_site(int(step["to"].removeprefix("site ")), message)

    def _to_coordinator(self, index: int, message: bytes) -> None:
        kinds = {
            5: coordinator.UploadArrived,
            6: coordinator.ChunkArrived,
            8: coordinator.ConsistencyArrived,
            10: coordinator.UnmaskArrived,
        }
        self.round, effects = coordinator.step(self.round, kinds[message[5]](index, message))
        for effect in effects:
            match effect:
                case coordinator.StoreChunk(content=content):
                    self.arriving[index] = np.frombuffer(content, np.uint64)
                case coordinator.AddVector():
                    add_words(self.total, self.arriving[index], self.case["num_wide"])
                case coordinator.RemoveMasks(masks=masks):
                    assert [[seed.hex(), sign] for seed, sign in masks] == self.case["removed"]
                    apply_masks(self.total, self.case["num_wide"], masks)

    def _to_site(self, index: int, message: bytes) -> None:
        kinds = {4: lambda m: site.Opened(m, self._ask()), 7: site.SurvivorsArrived, 9: site.AgreementArrived}
        state, effects = site.step(self.states[index], kinds[message[5]](message), self.entropy[index])
        if isinstance(effects[0], site.Compute):
            state, effects = site.step(state, self._computed(index, effects[0]), self.entropy[index])
        self.states[index] = state
        sent = self.sent.setdefault(f"site {index}", [])
        for effect in effects:
            sent.append(effect.message)
            if isinstance(effect, site.Upload):
                assert effect.words.tobytes().hex() == self.case["masked_vectors"][index]

    def _computed(self, index: int, compute: site.Compute) -> site.Computed:
        layout = bytes.fromhex(self.case["layout"])
        words = self.words[index].copy()
        return site.Computed(opening=compute.opening, words=words, num_wide=self.case["num_wide"], layout=layout)


@EACH
def test_the_machines_send_and_refuse_what_is_recorded(case):
    replay = Replay(case)
    uploaded = False
    for number, step in enumerate(case["steps"]):
        if step["kind"] == "survivors" and not uploaded:
            replay.round, _ = coordinator.step(replay.round, coordinator.Closed())
            uploaded = True
        for bad in case["refused"]:
            if bad["before"] == number:
                _is_refused(replay, bad)
        _is_what_is_owed(replay, step)
        replay.deliver(step)
    for bad in case["refused"]:
        if bad["before"] == len(case["steps"]):
            _is_refused(replay, bad)
    assert replay.round.phase == coordinator.Phase.DONE
    assert replay.total.tobytes().hex() == case["total"]
    assert list(replay.round.survivors) == case["survivors"]
    assert replay.round.context.hex() == case["context"]
    assert replay.round.survivors_digest.hex() == case["S"]


def _is_refused(replay: Replay, bad: dict[str, Any]) -> None:
    before = list(replay.states), replay.round
    with pytest.raises(MessageRefusedError) as caught:
        replay.deliver(bad)
    assert (caught.value.rule, caught.value.peer) == (bad["rule"], bad["peer"]), bad["what"]
    assert before == (replay.states, replay.round)


def _is_what_is_owed(replay: Replay, step: dict[str, Any]) -> None:
    message = bytes.fromhex(step["message"])
    if step["from"] == "coordinator":
        assert coordinator.message_for(replay.round, int(step["to"].removeprefix("site "))) == message
    elif step["kind"] != "chunk":
        assert replay.sent[step["from"]].pop(0) == message


# The specification's formulas, from its text


def _digest(name: str, *parts: bytes) -> bytes:
    tag = b"wardround/secagg/1/" + name.encode()
    return _h(b"".join(struct.pack("<Q", len(part)) + part for part in (tag, *parts)))


def _h(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _derive(key: bytes, name: str, *parts: bytes) -> bytes:
    return hmac.digest(key, _digest(name, *parts) + b"\x01", "sha256")  # RFC 5869, section 2.3, one block


def _u16(value: int) -> bytes:
    return struct.pack("<H", value)


def _stream(seed: bytes, num_bytes: int) -> bytes:
    return Cipher(algorithms.AES128(seed[:16]), modes.CTR(seed[16:])).encryptor().update(bytes(num_bytes))


class Parsed:
    """A masked_input cut up by the specification."""

    def __init__(self, message: bytes, m: int) -> None:
        place = 6

        def take(count: int) -> bytes:
            nonlocal place
            place += count
            return message[place - count : place]

        self.context, self.sender = take(32), struct.unpack("<H", take(2))[0]
        self.words, self.num_chunks = struct.unpack("<Q", take(8))[0], struct.unpack("<I", take(4))[0]
        self.chunks = [take(32) for _ in range(self.num_chunks)]
        self.seeds = [take(32) for _ in range(m)]
        self.shares = [[take(16) for _ in range(m)] for _ in range(m)]
        self.blobs = [take(12 + 36 * m + 16) for _ in range(m)]
        self.signature = take(64)
        assert place == len(message)


@lru_cache(maxsize=4)
def _uploads(name: str) -> list[Parsed]:
    case = next(case for case in ROUNDS if case["name"] == name)
    messages = [step for step in case["steps"] if step["kind"] == "masked_input"]
    return [Parsed(bytes.fromhex(step["message"]), len(case["vectors"])) for step in messages]


def _hex(case: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(case[name])


@EACH
def test_the_context_binds_what_the_specification_says(case):
    body = bytes.fromhex(case["steps"][0]["message"])[6:-64]
    run, number, attempt = body[:16], body[16:20], body[20:22]
    manifest = _digest("manifest", _hex(case, "manifest"))
    parts = (manifest, _hex(case, "K"), run, number, attempt, body[24:], _h(_hex(case, "ask")), _hex(case, "layout"))
    assert _digest("context", *parts) == _hex(case, "context")
    assert body[22:24] == _u16(len(case["vectors"]))
    for place in range(len(parts)):  # and nothing of it can be left out or changed unseen
        changed = [*parts]
        changed[place] = bytes([parts[place][0] ^ 1]) + parts[place][1:]
        assert _digest("context", *changed) != _hex(case, "context")


@EACH
def test_seeds_and_masks_are_those_of_the_specification(case):
    context, n = _hex(case, "context"), len(case["vectors"])
    num_bytes = len(_hex(case, "total"))
    for i in range(n):
        masked = int_vector(case, bytes.fromhex(case["vectors"][i]))
        for j, mask in enumerate(case["masks"][i]):
            key = bytes.fromhex(case["pair_keys"][i][j])
            seed = bytes.fromhex(case["draws"][i][0]) if i == j else _derive(key, "mask", context)
            stream = _stream(seed, num_bytes)
            assert mask["seed"] == seed.hex()
            assert mask["first_word"] == int.from_bytes(stream[:8], "little")
            assert mask["last_word"] == int.from_bytes(stream[-8:], "little")
            masked = added(case, masked, int_vector(case, stream), -1 if j < i else 1)
        assert masked == int_vector(case, bytes.fromhex(case["masked_vectors"][i]))


def int_vector(case, words: bytes) -> list[int]:
    """As Python's integers: the first 128-bit, the others 64-bit."""
    wide = 16 * case["num_wide"]
    sizes = [16] * case["num_wide"] + [8] * ((len(words) - wide) // 8)
    numbers, place = [], 0
    for size in sizes:
        numbers.append(int.from_bytes(words[place : place + size], "little"))
        place += size
    return numbers


def added(case, numbers: list[int], others: list[int], sign: int) -> list[int]:
    """In the ring."""
    bits = [128] * case["num_wide"] + [64] * (len(numbers) - case["num_wide"])
    return [(a + sign * b) % 2**size for a, b, size in zip(numbers, others, bits, strict=True)]


@EACH
def test_the_total_is_the_sum_of_the_survivors(case):
    total = [0] * len(int_vector(case, _hex(case, "total")))
    for index in case["survivors"]:
        total = added(case, total, int_vector(case, bytes.fromhex(case["vectors"][index])), 1)
    assert total == int_vector(case, _hex(case, "total"))


@EACH
def test_commitments_seals_and_signatures_are_those_of_the_specification(case):
    n, context = len(case["vectors"]), _hex(case, "context")
    manifest = _digest("manifest", _hex(case, "manifest"))
    for i, upload in enumerate(_uploads(case["name"])):
        assert (upload.sender, upload.context) == (i, context)
        shares = np.frombuffer(bytes.fromhex(case["shares"][i]), "<u2").reshape(n, n, 18)
        leaves = []
        for j in range(n):
            pair = _u16(i), _u16(j)
            key = _derive(bytes.fromhex(case["pair_keys"][i][j]), "blob", context, *pair)
            blob = upload.blobs[j]
            assert AESGCM(key).decrypt(blob[:12], blob[12:], None) == shares[j].tobytes()
            for place in range(n):
                share = shares[j, place].tobytes()
                assert upload.shares[j][place] == _digest("share", context, *pair, _u16(place), share)[:16]
            seed = bytes.fromhex(case["masks"][i][j]["seed"])
            assert upload.seeds[j] == _digest("seed", context, _u16(min(i, j)), _u16(max(i, j)), seed)
            leaves.append(_digest("holder", context, *pair, _h(b"".join(upload.shares[j])), _h(blob)))
        assert upload.chunks == [_h(bytes.fromhex(case["masked_vectors"][i]))]
        vector = _digest("vector", context, struct.pack("<Q", upload.words), b"".join(upload.chunks))
        shared = _digest("shares", context, _h(b"".join(upload.seeds)), _root(leaves))
        signed = _digest("masked_input", manifest, context, _u16(i), vector, shared)
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(case["signing_seeds"][i]))
        assert upload.signature == key.sign(signed)


def _root(nodes: list[bytes]) -> bytes:
    while len(nodes) > 1:
        if len(nodes) % 2:
            nodes = [*nodes, nodes[-1]]
        nodes = [_digest("node", nodes[k], nodes[k + 1]) for k in range(0, len(nodes), 2)]
    return nodes[0]


@EACH
def test_shares_are_points_of_polynomials_through_the_seed(case):
    """By plain arithmetic: any t of them give the limbs of the seed at zero, and t - 1 of them any others."""
    n, t = len(case["vectors"]), case["threshold"]
    for i in range(n):
        shares = np.frombuffer(bytes.fromhex(case["shares"][i]), "<u2").reshape(n, n, 18).astype(object)
        for place in range(n):
            number = int.from_bytes(bytes.fromhex(case["masks"][i][place]["seed"]), "little")
            limbs = [number >> 15 * k & 0x7FFF for k in range(18)]
            for holders in (range(t), range(n - t, n)):
                found = [_at_zero({j + 1: shares[j, place, k] for j in holders}) for k in range(18)]
                assert found == limbs
            fewer = [_at_zero({j + 1: shares[j, place, k] for j in range(t - 1)}) for k in range(18)]
            assert fewer != limbs


def _at_zero(points: dict[int, int]) -> int:
    total = 0
    for x, y in points.items():
        above = below = 1
        for other in points:
            if other != x:
                above, below = above * other % 65521, below * (other - x) % 65521
        total += y * above * pow(below, -1, 65521)
    return total % 65521


@EACH
def test_who_signed_who_is_in_the_sum(case):
    manifest, context = _digest("manifest", _hex(case, "manifest")), _hex(case, "context")
    keys = [Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed)) for seed in case["signing_seeds"]]
    u = [upload for upload in _uploads(case["name"]) if upload.sender in case["survivors"]]
    vectors_of = [_digest("vector", context, struct.pack("<Q", one.words), b"".join(one.chunks)) for one in u]
    shared = [_shares_digest(context, one) for one in u]
    names = b"".join(_u16(index) for index in case["survivors"])
    s = _digest("survivors", context, names, b"".join(vectors_of), b"".join(shared))
    assert s == _hex(case, "S")
    coordinator_key = Ed25519PrivateKey.from_private_bytes(_hex(case, "coordinator_seed")).public_key()
    for step in case["steps"]:
        message = bytes.fromhex(step["message"])
        body, signature = message[:-64], message[-64:]
        if step["kind"] in ("survivors", "agreement"):
            coordinator_key.verify(signature, _digest(step["kind"], manifest, body))
        elif step["kind"] == "opening":
            coordinator_key.verify(signature, _digest("opening", manifest, body, _h(_hex(case, "ask"))))
        elif step["kind"] == "consistency":
            _public(keys, body).verify(signature, _digest("consistency", manifest, context, s))
        elif step["kind"] == "unmask":
            parts = (manifest, context, body[38:40], s, _h(body[72:]))
            _public(keys, body).verify(signature, _digest("unmask", *parts))
            assert body[72:] == _released(case, body)


def _public(keys: list[Ed25519PrivateKey], body: bytes) -> Ed25519PublicKey:
    return keys[struct.unpack("<H", body[38:40])[0]].public_key()


def _shares_digest(context: bytes, one: Parsed) -> bytes:
    leaves = [
        _digest("holder", context, _u16(one.sender), _u16(j), _h(b"".join(row)), _h(blob))
        for j, (row, blob) in enumerate(zip(one.shares, one.blobs, strict=True))
    ]
    return _digest("shares", context, _h(b"".join(one.seeds)), _root(leaves))


def _released(case: dict[str, Any], body: bytes) -> bytes:
    """For each survivor the share of its self mask, then those of its masks with the dropped; never both of one."""
    n, holder = len(case["vectors"]), struct.unpack("<H", body[38:40])[0]
    dropped = [index for index in range(n) if index not in case["survivors"]]
    released = b""
    for sender in case["survivors"]:
        shares = np.frombuffer(bytes.fromhex(case["shares"][sender]), "<u2").reshape(n, n, 18)
        released += b"".join(shares[holder, place].tobytes() for place in (sender, *dropped))
    return released
