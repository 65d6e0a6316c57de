"""The manifest and the set-up: one form, every signature checked, and the same keys at both ends alone."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.privacy.secagg.make_setup_vectors import NUM_SITES, PATH, SEED, as_text, pairs_on_file
from tests.privacy.secagg.setup_of import setup_of
from wardround.errors import MessageRefusedError
from wardround.privacy.secagg.keys import ExchangeKey, SigningKey
from wardround.privacy.secagg.manifest import (
    Advertisement,
    Encapsulations,
    Manifest,
    RosterSite,
    advertise,
    encapsulate_all,
    encapsulation_bytes,
    keys_digest,
    pair_keys,
)
from wardround.privacy.secagg.roster import MAX_MANIFEST_BYTES
from wardround.privacy.secagg.terms import Terms
from wardround.privacy.secagg.wire import Kind, Writer, digest
from wardround.testing.seeded_entropy import SeededEntropy

VECTORS: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
S = setup_of(NUM_SITES, seed=SEED, encapsulations=pairs_on_file())
NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=200)


def octets(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    names = draw(st.lists(NAMES, min_size=3, max_size=6, unique=True).filter(lambda names: "coordinator" not in names))
    n = len(names)
    strict = draw(st.booleans())
    threshold = draw(st.integers(n // 2 + 1, n))
    return Manifest(
        study_digest=draw(st.binary(min_size=32, max_size=32)),
        coordinator=octets(-1),
        terms=Terms(
            num_sites=n,
            threshold=threshold,
            minimum_survivors=draw(st.integers(max(3, threshold), n)),
            colluding_sites=0,
            is_strict=strict,
            allows_repeats=draw(st.booleans()),
        ),
        roster=tuple(RosterSite(name, octets(index)) for index, name in enumerate(names)),
    )


def encapsulate(messages: Sequence[bytes], index: int = 0) -> tuple[bytes, Any]:
    s = S
    return encapsulate_all(
        s.manifest, index, s.signing[index], s.exchange[index], messages, s.advertisements[index], SeededEntropy(1)
    )


def pair(messages: Sequence[bytes], index: int = 0) -> tuple[bytes, ...]:
    s = S
    return pair_keys(
        s.manifest, index, s.exchange[index], s.advertisements, messages, s.secrets[index], s.own_keys[index]
    )


# The manifest


@given(manifests())
def test_a_manifest_has_one_form(manifest: Manifest) -> None:
    message = manifest.to_bytes()
    again = Manifest.from_bytes(message)
    assert again == manifest
    assert (again.to_bytes(), again.digest) == (message, manifest.digest)
    assert [again.index_of(again.name_of(index)) for index in range(len(again.roster))] == [
        *range(again.terms.num_sites)
    ]


def test_a_manifest_has_the_bytes_of_the_protocol() -> None:
    terms = Terms(
        num_sites=3, threshold=3, minimum_survivors=3, colluding_sites=1, is_strict=False, allows_repeats=True
    )
    roster = tuple(RosterSite(name, octets(index)) for index, name in enumerate(["Bern", "Zürich", "東京"]))
    manifest = Manifest(study_digest=octets(8), coordinator=octets(9), terms=terms, roster=roster)
    expected = b"WRSA\x01\x01" + b"\x01" + octets(8) + octets(9) + b"\3\0\3\0\3\0\1\0" + b"\0\1"
    expected += b"\x04\0Bern" + octets(0) + b"\x07\0Z\xc3\xbcrich" + octets(1)
    expected += b"\x06\0\xe6\x9d\xb1\xe4\xba\xac" + octets(2)
    assert manifest.to_bytes() == expected
    assert manifest.digest == digest("manifest", expected)


def test_every_field_is_in_the_digest() -> None:
    base = Manifest(
        study_digest=octets(8),
        coordinator=octets(9),
        terms=Terms(num_sites=5, threshold=4, minimum_survivors=4, colluding_sites=0, is_strict=True),
        roster=tuple(RosterSite(f"site {index}", octets(index)) for index in range(5)),
    )
    others = [
        replace(base, study_digest=octets(10)),
        replace(base, coordinator=octets(10)),
        *(
            replace(base, terms=replace(base.terms, **change))
            for change in (
                {"threshold": 3},
                {"minimum_survivors": 5},
                {"colluding_sites": 1},
                {"is_strict": False},
                {"allows_repeats": True},
            )
        ),
        replace(base, roster=(RosterSite("other", octets(0)), *base.roster[1:])),
        replace(base, roster=(RosterSite("site 0", octets(10)), *base.roster[1:])),
        replace(base, roster=base.roster[::-1]),
    ]
    assert len({base.digest, *(other.digest for other in others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"study_digest": bytes(31)}, "study_digest must have 32 bytes, got 31"),
        ({"coordinator": bytes(33)}, "coordinator must have 32 bytes, got 33"),
        ({"roster": S.manifest.roster[:2]}, "terms.num_sites=3 sites, got 2"),
        ({"roster": (*S.manifest.roster[:2], RosterSite("site 0", bytes(32)))}, "name of its own"),
        ({"roster": (*S.manifest.roster[:2], RosterSite("x", S.signing[0].public))}, "key of its own"),
        ({"roster": (*S.manifest.roster[:2], RosterSite("x", S.coordinator.public))}, "key of its own"),
    ],
)
def test_a_manifest_that_breaks_a_rule_is_not_made(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(S.manifest, **change)


@pytest.mark.parametrize("name", ["", "a" * 201, "a\nb", "\x00", "a\u202eb", "\ud800", "\u00a0", "coordinator"])
def test_names_that_are_not_taken(name: str) -> None:
    with pytest.raises(ValueError, match="a site"):
        RosterSite(name, bytes(32))


def test_names_that_are_taken() -> None:
    for name in ("a", "東" * 200, "\U0001f3e5" * 200, "Hôpital universitaire n° 1"):
        roster = (*S.manifest.roster[:2], RosterSite(name, bytes(32)))
        manifest = replace(S.manifest, roster=roster)
        assert Manifest.from_bytes(manifest.to_bytes()).name_of(2) == name


def test_a_place_or_name_outside_the_roster() -> None:
    for index in (-1, 3):
        with pytest.raises(ValueError, match=rf"index must be in \[0, 2\], got index={index}"):
            S.manifest.name_of(index)
        with pytest.raises(ValueError, match="index must be"):
            S.manifest.identity_of(index)
    with pytest.raises(ValueError, match="no site 'west'; it has site 0, site 1, site 2"):
        S.manifest.index_of("west")


def test_the_largest_manifest_is_read_and_a_larger_message_is_not() -> None:
    roster = tuple(RosterSite(chr(0x20000 + index) + "\U0001f3e5" * 199, octets(index)) for index in range(256))
    manifest = replace(S.manifest, terms=Terms.of(256), roster=roster)
    message = manifest.to_bytes()
    assert len(message) == MAX_MANIFEST_BYTES
    assert Manifest.from_bytes(message) == manifest
    with pytest.raises(MessageRefusedError, match="at most"):
        Manifest.from_bytes(message + b"\0")


# Fuzzing


DECODERS: list[tuple[Kind, Callable[[bytes], Any], bytes]] = [
    (Kind.MANIFEST, Manifest.from_bytes, S.manifest.to_bytes()),
    (Kind.ADVERTISE_KEYS, partial(Advertisement.from_bytes, manifest=S.manifest), S.advertisements[1]),
    (Kind.ENCAPSULATE, partial(Encapsulations.from_bytes, manifest=S.manifest), S.encapsulations[1]),
]
decoders = pytest.mark.parametrize(("kind", "decode", "good"), DECODERS, ids=lambda value: getattr(value, "name", ""))


def assert_read_or_refused(decode: Callable[[bytes], Any], message: bytes) -> bool:
    """Whether it was read; what is read is written the same, and nothing but a refusal comes out."""
    try:
        read = decode(message)
    except MessageRefusedError:
        return False
    assert read.to_bytes() == message
    return True


@decoders
def test_good_messages_are_read(kind: Kind, decode: Callable[[bytes], Any], good: bytes) -> None:
    assert assert_read_or_refused(decode, good)
    assert decode(memoryview(good)).to_bytes() == good


@decoders
@given(content=st.binary(max_size=300), is_framed=st.booleans())
def test_random_bytes_are_refused(
    kind: Kind, decode: Callable[[bytes], Any], good: bytes, content: bytes, is_framed: bool
) -> None:
    assert not assert_read_or_refused(decode, (b"WRSA\x01" + bytes([kind]) if is_framed else b"") + content)


@decoders
@pytest.mark.parametrize("change", [0x01, 0x80])
def test_every_changed_byte_is_seen(kind: Kind, decode: Callable[[bytes], Any], good: bytes, change: int) -> None:
    original = decode(good)
    for at in range(len(good)):
        message = good[:at] + bytes([good[at] ^ change]) + good[at + 1 :]
        if assert_read_or_refused(decode, message):  # a manifest is not signed: another one is read as another
            assert kind == Kind.MANIFEST
            assert decode(message) != original
            assert decode(message).digest != original.digest


@decoders
@settings(max_examples=200)
@given(data=st.data())
def test_no_mutation_breaks_a_decoder(
    kind: Kind, decode: Callable[[bytes], Any], good: bytes, data: st.DataObject
) -> None:
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(good)), st.integers(0, len(good)))))
    message = good[:start] + data.draw(st.binary(max_size=40)) + good[end:]
    is_read = assert_read_or_refused(decode, message)
    assert not is_read or kind == Kind.MANIFEST or message == good


@decoders
def test_truncated_and_extended_messages_are_malformed(kind: Kind, decode: Callable[[bytes], Any], good: bytes) -> None:
    for message in [*(good[:size] for size in range(len(good))), *(good + bytes(size) for size in (1, 2, 64, 5000))]:
        with pytest.raises(MessageRefusedError) as error:
            decode(message)
        assert error.value.rule == "malformed"
    with pytest.raises(MessageRefusedError, match="at most"):  # before anything else of it is looked at
        decode(bytes(MAX_MANIFEST_BYTES + 1))


# Golden vectors


def test_the_vectors_are_what_the_generator_writes() -> None:
    assert as_text() == PATH.read_text(encoding="utf-8"), VECTORS["command"]


def test_there_are_as_many_bad_vectors_as_good_ones() -> None:
    bad = sum(len(VECTORS[f"refused_{kind}"]) for kind in ("manifests", "advertisements", "encapsulations"))
    assert bad >= 1 + 2 * NUM_SITES + NUM_SITES**2


def test_recorded_ciphertexts_open_to_the_recorded_secrets() -> None:
    for entry in VECTORS["ml_kem"]:
        key = MLKEM768PrivateKey.from_seed_bytes(bytes.fromhex(VECTORS["exchange_seeds"][entry["to"]])[32:])
        assert key.decapsulate(bytes.fromhex(entry["ciphertext"])).hex() == entry["secret"]


def test_pair_keys_of_the_vectors_follow_from_the_protocols_text() -> None:
    def sha(*parts: bytes) -> bytes:
        return hashlib.sha256(b"".join(parts)).digest()

    def named(name: str, *parts: bytes) -> bytes:
        joined = [b"wardround/secagg/1/" + name.encode(), *parts]
        return sha(*(len(part).to_bytes(8, "little") + part for part in joined))

    seeds = [X25519PrivateKey.from_private_bytes(bytes.fromhex(seed)[:32]) for seed in VECTORS["exchange_seeds"]]
    messages = [bytes.fromhex(message) for message in VECTORS["advertisements"]]
    M, K = named("manifest", bytes.fromhex(VECTORS["manifest"])), named("keys", *messages)
    assert (M.hex(), K.hex()) == (VECTORS["manifest_digest"], VECTORS["keys_digest"])
    for entry in VECTORS["ml_kem"]:
        i, j = entry["from"], entry["to"]
        secret = seeds[i].exchange(X25519PublicKey.from_public_bytes(messages[j][8:40]))
        ciphertext = bytes.fromhex(entry["ciphertext"])
        extracted = hmac.digest(M, secret + bytes.fromhex(entry["secret"]), "sha256")
        info = named("pair", i.to_bytes(2, "little"), j.to_bytes(2, "little"), K, sha(ciphertext))
        key = hmac.digest(extracted, info + b"\x01", "sha256")
        assert [VECTORS["pair_keys"][i][j], VECTORS["pair_keys"][j][i]] == [key.hex()] * 2


def test_each_site_gets_the_vectors_keys() -> None:
    messages = [[bytes.fromhex(message) for message in VECTORS[kind]] for kind in ("advertisements", "encapsulations")]
    manifest = Manifest.from_bytes(bytes.fromhex(VECTORS["manifest"]))
    secrets: list[dict[int, bytes]] = [{}, {}, {}]
    for entry in VECTORS["ml_kem"]:
        secrets[entry["from"]][entry["to"]] = bytes.fromhex(entry["secret"])
    for index in range(NUM_SITES):
        exchange = ExchangeKey.from_seed(bytes.fromhex(VECTORS["exchange_seeds"][index]))
        signing = SigningKey.from_seed(bytes.fromhex(VECTORS["signing_seeds"][index]))
        assert advertise(manifest, index, signing, exchange) == messages[0][index]
        own_key = bytes.fromhex(VECTORS["own_keys"][index])
        keys = pair_keys(manifest, index, exchange, *messages, secrets[index], own_key)
        assert [key.hex() for key in keys] == VECTORS["pair_keys"][index]


def assert_case_is_refused(case: dict[str, Any], do: Callable[[], object]) -> None:
    with pytest.raises(MessageRefusedError) as error:
        do()
    assert (error.value.rule, error.value.peer) == (case["rule"], case["peer"]), str(error.value)


@pytest.mark.parametrize("case", VECTORS["refused_manifests"], ids=lambda case: case["what"])
def test_bad_manifests_are_refused(case: dict[str, Any]) -> None:
    assert_case_is_refused(case, lambda: Manifest.from_bytes(bytes.fromhex(case["message"])))


def filled(case: dict[str, Any], good: Sequence[bytes]) -> list[bytes]:
    return [good[message] if isinstance(message, int) else bytes.fromhex(message) for message in case["messages"]]


@pytest.mark.parametrize("case", VECTORS["refused_advertisements"], ids=lambda case: case["what"])
def test_bad_sets_of_advertisements_are_refused(case: dict[str, Any]) -> None:
    assert_case_is_refused(case, lambda: encapsulate(filled(case, S.advertisements)))


@pytest.mark.parametrize("case", VECTORS["refused_encapsulations"], ids=lambda case: case["what"])
def test_bad_sets_of_encapsulations_are_refused(case: dict[str, Any]) -> None:
    assert_case_is_refused(case, lambda: pair(filled(case, S.encapsulations)))


# The set-up


@pytest.mark.parametrize("num_sites", [3, 4, 7])
def test_both_ends_get_the_same_key(num_sites: int) -> None:
    s = setup_of(num_sites, seed=5)
    places = [(i, j) for i in range(num_sites) for j in range(num_sites)]
    assert all(s.pair_keys[i][j] == s.pair_keys[j][i] for i, j in places)
    assert all(s.pair_keys[i][i] == s.own_keys[i] for i in range(num_sites))
    assert len({s.pair_keys[i][j] for i, j in places}) == num_sites * (num_sites + 1) // 2
    assert all(len(key) == 32 for keys in s.pair_keys for key in keys)


def test_messages_have_the_lengths_of_the_protocol() -> None:
    assert [len(message) for message in S.advertisements] == [6 + 2 + 32 + 1184 + 64] * 3
    lengths = [6 + 2 + 32 + 1088 * others + 64 for others in (2, 1, 0)]
    assert [len(message) for message in S.encapsulations] == lengths
    assert [encapsulation_bytes(3, index) for index in range(3)] == lengths
    assert len(Encapsulations.from_bytes(S.encapsulations[2], S.manifest).ciphertexts) == 0


def keys_of_site_0(manifest: Manifest, exchange_2: ExchangeKey, ciphertext: bytes = b"") -> tuple[bytes, ...]:
    """Site 0's keys where the manifest, a third site's advertisement or one ciphertext may be another."""
    exchange = (*S.exchange[:2], exchange_2)
    advertisements = [advertise(manifest, index, S.signing[index], exchange[index]) for index in range(3)]
    agreed, messages = keys_digest(advertisements), []
    for index in range(3):
        ciphertexts = list(Encapsulations.from_bytes(S.encapsulations[index], S.manifest).ciphertexts)
        if index == 0 and ciphertext:
            ciphertexts[0] = ciphertext
        signed = Writer().u16(index).raw(agreed).raw(b"".join(ciphertexts)).finish(Kind.ENCAPSULATE)
        messages.append(signed + S.signing[index].sign("encapsulate", manifest.digest, signed))
    return pair_keys(manifest, 0, exchange[0], advertisements, messages, S.secrets[0], S.own_keys[0])


def test_a_pair_key_depends_on_the_whole_setup() -> None:
    keys = keys_of_site_0(S.manifest, S.exchange[2])
    assert keys == S.pair_keys[0]
    in_another_study = keys_of_site_0(replace(S.manifest, study_digest=bytes(32)), S.exchange[2])
    assert not set(keys[1:]) & set(in_another_study)
    with_another_third = keys_of_site_0(S.manifest, ExchangeKey.from_seed(bytes(96)))
    assert not set(keys[1:]) & set(with_another_third)
    with_another_ciphertext = keys_of_site_0(S.manifest, S.exchange[2], bytes(1088))
    assert (keys[1] == with_another_ciphertext[1], keys[2] == with_another_ciphertext[2]) == (False, True)


def test_a_ciphertext_that_was_made_for_others_gives_another_key_at_the_other_end() -> None:
    # FIPS 203 rejects without saying so: the two ends get different keys.
    signed = S.encapsulations[0][:40] + bytes(1088) + S.encapsulations[0][1128:-64]
    message = signed + S.signing[0].sign("encapsulate", S.manifest.digest, signed)
    messages = [message, *S.encapsulations[1:]]
    assert pair(messages, 1)[0] != pair(messages, 0)[1]


def test_a_secret_of_either_kind_alone_is_not_enough() -> None:
    other_secrets = {j: bytes(32) for j in S.secrets[0]}
    keys = pair_keys(S.manifest, 0, S.exchange[0], S.advertisements, S.encapsulations, other_secrets, S.own_keys[0])
    assert not set(keys[1:]) & set(S.pair_keys[0])


def test_the_own_message_must_be_the_one_that_was_sent() -> None:
    exchange = ExchangeKey.from_seed(bytes(96))
    earlier = advertise(S.manifest, 0, S.signing[0], exchange)  # signed by the site itself, before it lost its state
    with pytest.raises(MessageRefusedError) as error:
        encapsulate([earlier, *S.advertisements[1:]])
    assert (error.value.rule, error.value.peer) == ("manifest", "coordinator")
    with pytest.raises(MessageRefusedError) as error:
        pair_keys(S.manifest, 0, exchange, S.advertisements, S.encapsulations, S.secrets[0], S.own_keys[0])
    assert (error.value.rule, error.value.peer) == ("manifest", "coordinator")


def test_a_key_that_the_source_of_entropy_refuses_names_its_site() -> None:
    class Refusing(SeededEntropy):
        def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
            if public_key == S.exchange[2].mlkem_public:
                raise ValueError("no such key")
            return super().encapsulate(public_key)

    with pytest.raises(MessageRefusedError, match="ML-KEM-768") as error:
        encapsulate_all(S.manifest, 0, S.signing[0], S.exchange[0], S.advertisements, S.advertisements[0], Refusing(1))
    assert (error.value.rule, error.value.peer) == ("malformed", "site 2")


@pytest.mark.parametrize("recorded", [(b"s" * 31, b"c" * 1088), (b"s" * 32, b"c" * 1087)])
def test_a_source_of_entropy_that_gives_too_few_bytes_is_our_own_fault(recorded: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="must have") as error:
        encapsulate_all(
            S.manifest,
            0,
            S.signing[0],
            S.exchange[0],
            S.advertisements,
            S.advertisements[0],
            SeededEntropy(1, [recorded]),
        )
    assert "ss" not in str(error.value)


def test_our_own_mistakes_are_not_blamed_on_a_peer() -> None:
    with pytest.raises(ValueError, match="signing must be the key that the manifest pins for site 'site 0'"):
        advertise(S.manifest, 0, S.signing[1], S.exchange[0])
    with pytest.raises(ValueError, match="signing must be"):
        encapsulate_all(
            S.manifest, 0, S.signing[1], S.exchange[0], S.advertisements, S.advertisements[0], SeededEntropy(1)
        )
    for index in (-1, 3):
        with pytest.raises(ValueError, match="index must be"):
            advertise(S.manifest, index, S.signing[0], S.exchange[0])
    make = partial(pair_keys, S.manifest, 0, S.exchange[0], S.advertisements, S.encapsulations)
    with pytest.raises(ValueError, match="own_key must have 32 bytes, got 31"):
        make(S.secrets[0], bytes(31))
    with pytest.raises(ValueError, match=r"one for every site after 0, got those of \[1\]"):
        make({1: bytes(32)}, bytes(32))
    with pytest.raises(ValueError, match="secret") as error:
        make({1: bytes(32), 2: b"s" * 31}, bytes(32))
    assert "ss" not in str(error.value)
