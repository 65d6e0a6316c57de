"""Keys: the primitives against the vectors of their standards, and what is put on top of them."""

from __future__ import annotations

import copy
import hashlib
import hmac
import pickle
import sys

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from wardround.engines.entropy import SystemEntropy
from wardround.errors import MessageRefusedError
from wardround.privacy.secagg.keys import (
    SEAL_BYTES,
    ExchangeKey,
    SigningKey,
    _verify_digest,
    check_exchange_keys,
    derive,
    open_sealed,
    seal,
    verify,
)
from wardround.privacy.secagg.wire import digest
from wardround.testing.seeded_entropy import SeededEntropy

KEY = bytes(range(32))
SIGNING = SigningKey.from_seed(bytes(range(1, 33)))
EXCHANGE = ExchangeKey.from_seed(bytes(range(2, 98)))
P = 2**255 - 19
LOW_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
    P,
    P + 1,
]


def assert_refused(error: pytest.ExceptionInfo[MessageRefusedError], rule: str) -> None:
    assert (error.value.rule, error.value.peer) == (rule, "north")


# The standards' vectors


@pytest.mark.parametrize(
    ("seed", "public", "message", "signature"),
    [
        (  # RFC 8032, section 7.1, test 1
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            (
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
                "d25bf5f0595bbe24655141438e7a100b"
            ),
        ),
        (  # test 2
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            (
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
                "387b2eaeb4302aeeb00d291612bb0c00"
            ),
        ),
    ],
)
def test_ed25519_is_that_of_rfc_8032(seed: str, public: str, message: str, signature: str) -> None:
    key = SigningKey.from_seed(bytes.fromhex(seed))
    assert key.public.hex() == public
    assert key._private.sign(bytes.fromhex(message)).hex() == signature


def test_x25519_is_that_of_rfc_7748() -> None:  # section 6.1
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    alice_key, bob_key = (ExchangeKey.from_seed(seed + bytes(64)) for seed in (alice, bob))
    assert alice_key.x25519_public.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert bob_key.x25519_public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert alice_key.agree(bob_key.x25519_public, "bob").hex() == shared
    assert bob_key.agree(alice_key.x25519_public, "alice").hex() == shared


def test_hkdf_is_that_of_rfc_5869() -> None:  # appendix A.1
    salt, info = bytes(range(13)), bytes(range(0xF0, 0xFA))
    output = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    extracted = bytes.fromhex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
    assert HKDFExpand(hashes.SHA256(), 42, info).derive(extracted).hex() == output
    assert HKDF(hashes.SHA256(), 42, salt, info).derive(b"\x0b" * 22).hex() == output


def test_aes_256_gcm_is_that_of_its_authors() -> None:  # McGrew and Viega, test cases 13 and 14
    assert seal(bytes(32), bytes(12), b"")[12:].hex() == "530f8afbc74536b9a963b4f1c4cb738b"
    sealed = "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
    assert seal(bytes(32), bytes(12), bytes(16))[12:].hex() == sealed


# Signatures


def test_a_signature_is_over_the_digest() -> None:
    SIGNING._private.public_key().verify(SIGNING.sign("opening", b"a", b"b"), digest("opening", b"a", b"b"))
    verify(SIGNING.public, SIGNING.sign("opening", b"a", b"b"), "opening", b"a", b"b", peer="north")


@pytest.mark.parametrize(
    "name_and_parts", [("opening", b"ab"), ("opening", b"a"), ("opening", b"b", b"a"), ("x", b"a", b"b")]
)
def test_a_signature_over_something_else_is_refused(name_and_parts: tuple[str, bytes]) -> None:
    signature = SIGNING.sign("opening", b"a", b"b")
    verify(SIGNING.public, signature, "opening", b"a", b"b", peer="north")
    with pytest.raises(MessageRefusedError, match="does not hold") as error:
        verify(SIGNING.public, signature, *name_and_parts, peer="north")
    assert_refused(error, "signature")


@given(st.integers(0, 511))
def test_a_signature_with_one_bit_changed_is_refused(bit: int) -> None:
    signature = SIGNING.sign("opening", b"a")
    verify(SIGNING.public, signature, "opening", b"a", peer="north")
    changed = (int.from_bytes(signature, "little") ^ (1 << bit)).to_bytes(64, "little")
    with pytest.raises(MessageRefusedError) as error:
        verify(SIGNING.public, changed, "opening", b"a", peer="north")
    assert_refused(error, "signature")


def test_a_second_form_of_a_signature_is_refused() -> None:
    signature = SIGNING.sign("opening", b"a")
    order = 2**252 + 27742317777372353535851937790883648493
    second = (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    with pytest.raises(MessageRefusedError):
        verify(SIGNING.public, signature[:32] + second, "opening", b"a", peer="north")


@pytest.mark.parametrize("public", [SigningKey.from_seed(KEY).public, b"", bytes(31), b"\xff" * 32])
def test_a_signature_under_another_key_is_refused(public: bytes) -> None:
    signature = SIGNING.sign("opening", b"a")
    with pytest.raises(MessageRefusedError) as error:
        verify(public, signature, "opening", b"a", peer="north")
    assert_refused(error, "signature")


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65), SIGNING.sign("opening", b"a") + b"\0"])
def test_what_is_no_signature_is_refused(signature: bytes) -> None:
    with pytest.raises(MessageRefusedError):
        verify(SIGNING.public, signature, "opening", b"a", peer="north")


def test_checking_again_is_remembered_without_what_was_signed() -> None:
    part = bytes(2**20) + b"for this test alone"
    signature = SIGNING.sign("opening", part)
    before, hits = sys.getrefcount(part), _verify_digest.cache_info().hits
    for _ in range(2):
        verify(SIGNING.public, signature, "opening", part, peer="north")
    assert sys.getrefcount(part) == before
    assert _verify_digest.cache_info().hits == hits + 1


def test_bad_signatures_push_no_good_ones_out() -> None:
    size = _verify_digest.cache_info().currsize
    for number in range(20):
        with pytest.raises(MessageRefusedError):
            verify(SIGNING.public, bytes([number]) * 64, "opening", b"a", peer="north")
    assert _verify_digest.cache_info().currsize == size


# Derivation and sealing


def test_derive_is_one_block_of_hkdf_expand() -> None:
    info = digest("mask", b"context")
    assert derive(KEY, "mask", b"context") == hmac.digest(KEY, info + b"\x01", "sha256")
    assert len({derive(KEY, "mask", b"c"), derive(KEY, "blob", b"c"), derive(KEY, "mask", b"d")}) == 3
    assert derive(KEY, "mask", b"c") != derive(KEY[::-1], "mask", b"c")


@given(st.binary(max_size=100), st.binary(min_size=12, max_size=12))
def test_what_is_sealed_opens(plaintext: bytes, nonce: bytes) -> None:
    blob = seal(KEY, nonce, plaintext)
    assert blob[:12] == nonce
    assert len(blob) == len(plaintext) + SEAL_BYTES
    assert open_sealed(KEY, blob, peer="north") == plaintext


def test_a_blob_that_was_altered_does_not_open() -> None:
    blob = seal(KEY, bytes(12), b"shares")
    altered = [blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :] for at in range(len(blob))]
    cut = [blob[:size] for size in range(len(blob))]
    for each in [*altered, *cut, blob + b"\0"]:
        with pytest.raises(MessageRefusedError) as error:
            open_sealed(KEY, each, peer="north")
        assert_refused(error, "blob")
    with pytest.raises(MessageRefusedError):
        open_sealed(KEY[::-1], blob, peer="north")


@given(st.binary(max_size=100))
def test_no_other_bytes_open(blob: bytes) -> None:
    with pytest.raises(MessageRefusedError):
        open_sealed(KEY, blob, peer="north")


# Agreement


@pytest.mark.parametrize("point", LOW_ORDER)
@pytest.mark.parametrize("top_bit", [0, 1])
def test_points_of_low_order_are_refused(point: int, top_bit: int) -> None:
    public = (point + (top_bit << 255)).to_bytes(32, "little")
    with pytest.raises(MessageRefusedError, match="gives no secret") as error:
        EXCHANGE.agree(public, "north")
    assert_refused(error, "malformed")
    with pytest.raises(MessageRefusedError, match="gives no secret") as error:
        check_exchange_keys(public, EXCHANGE.mlkem_public, peer="north")
    assert_refused(error, "malformed")


@pytest.mark.parametrize("public", [b"", bytes(31), b"\x09" * 33])
def test_what_is_no_x25519_key_is_refused(public: bytes) -> None:
    with pytest.raises(MessageRefusedError):
        EXCHANGE.agree(public, "north")


@pytest.mark.parametrize(
    "public", [b"", bytes(1183), bytes(1185), b"\xff" * 1184, b"\x01\x0d\0" + EXCHANGE.mlkem_public[3:]]
)
def test_ml_kem_keys_that_fail_the_standards_check_are_refused(public: bytes) -> None:
    # 0xd01 = 3329 is the modulus: a first coefficient that is not reduced.
    with pytest.raises(MessageRefusedError, match="ML-KEM-768 key is malformed") as error:
        check_exchange_keys(EXCHANGE.x25519_public, public, peer="north")
    assert_refused(error, "malformed")
    for entropy in (SystemEntropy(), SeededEntropy(0)):
        with pytest.raises(ValueError, match="ML-KEM"):
            entropy.encapsulate(public)


def test_good_keys_are_accepted_and_their_secret_comes_back() -> None:
    check_exchange_keys(EXCHANGE.x25519_public, EXCHANGE.mlkem_public, peer="north")
    secret, ciphertext = SystemEntropy().encapsulate(EXCHANGE.mlkem_public)
    assert (len(secret), len(ciphertext)) == (32, 1088)
    assert EXCHANGE.decapsulate(ciphertext, "north") == secret
    assert EXCHANGE.decapsulate(bytes([ciphertext[0] ^ 1]) + ciphertext[1:], "north") != secret


@pytest.mark.parametrize("size", [0, 1087, 1089])
def test_a_ciphertext_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(MessageRefusedError) as error:
        EXCHANGE.decapsulate(bytes(size), "north")
    assert_refused(error, "malformed")


# Secrets


def assert_shows_nothing(key: object, seed: bytes) -> None:
    shown = repr(key) + str(key) + f"{key}"
    for size in (4, 8):
        pieces = [seed[at : at + size] for at in range(len(seed) - size + 1)]
        assert not any(piece.hex() in shown or repr(piece)[2:-1] in shown for piece in pieces)
    with pytest.raises(TypeError):
        pickle.dumps(key)


def test_a_signing_key_shows_no_secret() -> None:
    seed = hashlib.sha256(b"signing").digest()
    assert_shows_nothing(SigningKey.from_seed(seed), seed)


def test_an_exchange_key_shows_no_secret() -> None:
    seed = hashlib.sha256(b"exchange").digest() * 3
    key = ExchangeKey.from_seed(seed)
    assert_shows_nothing(key, seed)
    assert_shows_nothing(copy.copy(key), seed)


@pytest.mark.parametrize(("kind", "size"), [(SigningKey, 32), (ExchangeKey, 96)])
def test_a_seed_of_another_length_is_refused_and_not_shown(kind: type[SigningKey], size: int) -> None:
    for wrong in (0, size - 1, size + 1):
        with pytest.raises(ValueError, match=rf"^seed must have {size} bytes, got {wrong}$"):
            kind.from_seed(b"s" * wrong)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_keys_and_nonces_of_another_length_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="key must have 32 bytes"):
        derive(bytes(size), "mask")
    with pytest.raises(ValueError, match="key must have 32 bytes"):
        seal(bytes(size), bytes(12), b"")
    with pytest.raises(ValueError, match="key must have 32 bytes"):
        open_sealed(bytes(size), bytes(40), peer="north")
    with pytest.raises(ValueError, match="nonce must have 12 bytes"):
        seal(KEY, bytes(size), b"")


# Entropy


def test_seeded_entropy_repeats() -> None:
    first, second = SeededEntropy(7), SeededEntropy(7)
    assert first.random(5) + first.random(0) + first.random(40) == second.random(45)
    others = {SeededEntropy(seed).random(32) for seed in (7, 8, -7, b"7", b"", 2**80)}
    assert len(others) == 6


def test_seeded_entropy_gives_recorded_encapsulations_first() -> None:
    recorded = [(b"s" * 32, b"c" * 1088), (b"t" * 32, b"d" * 1088)]
    entropy = SeededEntropy(7, recorded)
    assert [entropy.encapsulate(EXCHANGE.mlkem_public) for _ in recorded] == recorded
    secret, ciphertext = entropy.encapsulate(EXCHANGE.mlkem_public)
    assert EXCHANGE.decapsulate(ciphertext, "north") == secret


def test_the_systems_entropy_does_not_repeat() -> None:
    entropy = SystemEntropy()
    assert len({entropy.random(16) for _ in range(100)}) == 100
    assert len(entropy.random(0)) == 0
