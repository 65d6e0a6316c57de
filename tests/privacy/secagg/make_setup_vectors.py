"""Write `vectors/setup.json`: a whole set-up of three sites, and messages that must be refused.

    python -m tests.privacy.secagg.make_setup_vectors

All keys follow from fixed seeds. ML-KEM's encapsulation takes no seed, so its pairs of secret and ciphertext are taken
from the file that is there, and only made anew where there is none. In the lists of refused sets a number stands
for the good message of that place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.privacy.secagg.setup_of import SetUp, setup_of
from wardround.privacy.secagg.keys import SigningKey
from wardround.privacy.secagg.manifest import Manifest, RosterSite, advertise, keys_digest
from wardround.privacy.secagg.wire import Kind, Writer

PATH = Path(__file__).parent / "vectors" / "setup.json"
NUM_SITES = 3
SEED = 20170830
LOW_ORDER = [bytes(32), b"\x01" + bytes(31), (2**255 - 20).to_bytes(32, "little")]

Refused = dict[str, Any]


def pairs_on_file() -> tuple[tuple[bytes, bytes], ...]:
    """The recorded secrets and ciphertexts, for (0, 1), (0, 2), (1, 2)."""
    if not PATH.is_file():
        return ()
    recorded = json.loads(PATH.read_text(encoding="utf-8"))["ml_kem"]
    return tuple((bytes.fromhex(pair["secret"]), bytes.fromhex(pair["ciphertext"])) for pair in recorded)


def vectors() -> dict[str, Any]:
    """All of the file."""
    s = setup_of(NUM_SITES, seed=SEED, encapsulations=pairs_on_file())
    return {
        "command": "python -m tests.privacy.secagg.make_setup_vectors",
        "signing_seeds": [seed.hex() for seed in s.signing_seeds],
        "exchange_seeds": [seed.hex() for seed in s.exchange_seeds],
        "own_keys": [key.hex() for key in s.own_keys],
        "ml_kem": list(recorded_pairs(s)),
        "manifest": s.manifest.to_bytes().hex(),
        "manifest_digest": s.manifest.digest.hex(),
        "advertisements": [message.hex() for message in s.advertisements],
        "keys_digest": keys_digest(s.advertisements).hex(),
        "encapsulations": [message.hex() for message in s.encapsulations],
        "pair_keys": [[key.hex() for key in keys] for keys in s.pair_keys],
        "refused_manifests": list(refused_manifests(s)),
        "refused_advertisements": list(refused_advertisements(s)),
        "refused_encapsulations": list(refused_encapsulations(s)),
    }


def recorded_pairs(s: SetUp) -> Iterator[dict[str, Any]]:
    for i, secrets in enumerate(s.secrets):
        for j, secret in secrets.items():
            at = 40 + 1088 * (j - i - 1)
            ciphertext = s.encapsulations[i][at : at + 1088]
            yield {"from": i, "to": j, "secret": secret.hex(), "ciphertext": ciphertext.hex()}


def refused_manifests(s: SetUp) -> Iterator[Refused]:
    good = s.manifest.to_bytes()
    head, sites = good[:80], [good[80 + 40 * k : 120 + 40 * k] for k in range(NUM_SITES)]
    last, key = sites[2], sites[2][8:]
    cases = {
        "empty": b"",
        "frame alone": good[:6],
        "not our magic": b"WRSB" + good[4:],
        "a later frame version": good[:4] + b"\x02" + good[5:],
        "another kind": good[:5] + b"\x02" + good[6:],
        "a later version of the manifest": good[:6] + b"\x02" + good[7:],
        "last byte missing": good[:-1],
        "one byte more": good + b"\0",
        "a site fewer than n": head + sites[0] + sites[1],
        "a site more than n": good + b"\x01\0x" + key,
        "n = 2": good[:71] + b"\x02\0" + good[73:],
        "n = 65535": good[:71] + b"\xff\xff" + good[73:],
        "t over n": good[:73] + b"\x04\0" + good[75:],
        "u_min = 2": good[:75] + b"\x02\0" + good[77:],
        "c = n - 1": good[:77] + b"\x02\0" + good[79:],
        "is_strict = 2": good[:79] + b"\x02" + good[80:],
        "allows_repeats = 2": good[:80] + b"\x02" + good[81:],
        "a name twice": head + sites[0] + sites[1] + sites[0][:8] + key,
        "a key twice": head + sites[0] + sites[1] + last[:8] + sites[0][8:],
        "the coordinator's key as a site's": head + sites[0] + sites[1] + last[:8] + good[39:71],
        "a name that is not UTF-8": head + sites[0] + sites[1] + b"\x02\0\xc3\x28" + key,
        "a name in overlong UTF-8": head + sites[0] + sites[1] + b"\x02\0\xc1\x81" + key,
        "a name with half a surrogate pair": head + sites[0] + sites[1] + b"\x03\0\xed\xa0\x80" + key,
        "no name": head + sites[0] + sites[1] + b"\0\0" + key,
        "a name with a line break": head + sites[0] + sites[1] + b"\x02\0a\n" + key,
        "a name of 201 characters": head + sites[0] + sites[1] + b"\xc9\0" + b"a" * 201 + key,
        "a name of 801 bytes": head + sites[0] + sites[1] + b"\x21\x03" + b"a" * 801 + key,
        "a site called coordinator": head + sites[0] + sites[1] + b"\x0b\0coordinator" + key,
    }
    for what, message in cases.items():
        yield {"what": what, "message": message.hex(), "rule": "malformed", "peer": "coordinator"}


def signed(s: SetUp, index: int, name: str, body: bytes, signing: SigningKey | None = None) -> bytes:
    """The bytes and a signature over them that holds, unless it is by another key."""
    return body + (signing or s.signing[index]).sign(name, s.manifest.digest, body)


def advertised(s: SetUp, index: int, x25519: bytes, mlkem: bytes) -> bytes:
    body = Writer().u16(index).raw(x25519).raw(mlkem).finish(Kind.ADVERTISE_KEYS)
    return signed(s, index % NUM_SITES, "advertise_keys", body)


def changed(message: bytes, at: int) -> bytes:
    return message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]


def other_manifest(s: SetUp) -> Manifest:
    return Manifest(
        study_digest=bytes(32), coordinator=s.manifest.coordinator, terms=s.manifest.terms, roster=s.manifest.roster
    )


def case(what: str, messages: list[bytes | int], rule: str, peer: str) -> Refused:
    """A set as site 0 gets it."""
    written = [message.hex() if isinstance(message, bytes) else message for message in messages]
    return {"what": what, "messages": written, "rule": rule, "peer": peer}


def in_place_of_site_1(cases: dict[str, tuple[bytes, str]], peer: str = "coordinator") -> Iterator[Refused]:
    """At fault is who handed it over; site 1 where it signed it."""
    for what, (message, rule) in cases.items():
        yield case(what, [0, message, 2], rule, peer)


def refused_advertisements(s: SetUp) -> Iterator[Refused]:
    good, x25519, mlkem = s.advertisements[1], s.exchange[1].x25519_public, s.exchange[1].mlkem_public
    yield case("one is missing", [0, 1], "malformed", "coordinator")
    yield case("one too many", [0, 1, 2, 2], "malformed", "coordinator")
    yield case("two changed places", [0, 2, 1], "malformed", "coordinator")
    yield case("one twice, one missing", [0, 1, 1], "malformed", "coordinator")
    fresh = advertised(s, 0, s.exchange[2].x25519_public, s.exchange[0].mlkem_public)
    yield case("the site's own, with another key, signed by itself", [fresh, 1, 2], "manifest", "coordinator")
    yield case("the site's own, altered", [changed(s.advertisements[0], 1287), 1, 2], "manifest", "coordinator")
    renamed = RosterSite("south", s.signing[0].public), *s.manifest.roster[1:]
    elsewhere = Manifest(
        study_digest=s.manifest.study_digest,
        coordinator=s.manifest.coordinator,
        terms=s.manifest.terms,
        roster=renamed,
    )
    yield from in_place_of_site_1(
        {
            "empty": (b"", "malformed"),
            "another kind": (s.encapsulations[2], "malformed"),
            "another version": (changed(good, 4), "malformed"),
            "last byte missing": (good[:-1], "malformed"),
            "one byte more": (good + b"\0", "malformed"),
            "an index outside the roster": (advertised(s, 3, x25519, mlkem), "unknown_peer"),
            "the largest index": (advertised(s, 2**16 - 1, x25519, mlkem), "unknown_peer"),
            "X25519 key altered": (changed(good, 8), "signature"),
            "ML-KEM key altered": (changed(good, 40), "signature"),
            "signature altered": (changed(good, 1224), "signature"),
            "no signature": (good[:-64] + bytes(64), "signature"),
            "of a manifest of another study": (
                advertise(other_manifest(s), 1, s.signing[1], s.exchange[1]),
                "signature",
            ),
            "of a manifest with another name": (advertise(elsewhere, 1, s.signing[1], s.exchange[1]), "signature"),
            "signed by another site": (signed(s, 1, "advertise_keys", good[:-64], s.signing[2]), "signature"),
            "signed by the coordinator": (signed(s, 1, "advertise_keys", good[:-64], s.coordinator), "signature"),
            "signed as another message": (signed(s, 1, "encapsulate", good[:-64]), "signature"),
            "signed without its frame": (
                good[:-64] + s.signing[1].sign("advertise_keys", s.manifest.digest, good[6:-64]),
                "signature",
            ),
        }
    )
    unreduced = advertised(s, 1, x25519, b"\xff\xff\xff" + mlkem[3:])
    yield from in_place_of_site_1({"an ML-KEM key that is not reduced": (unreduced, "malformed")}, "site 1")
    for point in LOW_ORDER:
        what = f"an X25519 key of low order, {point[:1].hex()}..."
        yield from in_place_of_site_1({what: (advertised(s, 1, point, mlkem), "malformed")}, "site 1")


def refused_encapsulations(s: SetUp) -> Iterator[Refused]:
    good = s.encapsulations[1]
    yield case("one is missing", [0, 1], "malformed", "coordinator")
    yield case("one too many", [0, 1, 2, 2], "malformed", "coordinator")
    yield case("two changed places", [0, 2, 1], "malformed", "coordinator")
    other_keys = Writer().u16(1).raw(bytes(32)).raw(good[40:-64]).finish(Kind.ENCAPSULATE)
    of_site_0 = Writer().u16(1).raw(s.encapsulations[0][8:-64]).finish(Kind.ENCAPSULATE)
    outside = Writer().u16(3).raw(good[8:-64]).finish(Kind.ENCAPSULATE)
    to_others = signed(s, 1, "encapsulate", other_keys)
    yield from in_place_of_site_1({"to other keys": (to_others, "manifest")}, "site 1")
    yield from in_place_of_site_1(
        {
            "empty": (b"", "malformed"),
            "another kind": (s.advertisements[1], "malformed"),
            "last byte missing": (good[:-1], "malformed"),
            "one byte more": (good + b"\0", "malformed"),
            "a ciphertext too many": (signed(s, 1, "encapsulate", of_site_0), "malformed"),
            "no ciphertext": (signed(s, 1, "encapsulate", good[:40]), "malformed"),
            "an index outside the roster": (signed(s, 1, "encapsulate", outside), "unknown_peer"),
            "keys altered": (changed(good, 8), "signature"),
            "ciphertext altered": (changed(good, 40), "signature"),
            "signature altered": (changed(good, len(good) - 1), "signature"),
            "signed by another site": (signed(s, 1, "encapsulate", good[:-64], s.signing[0]), "signature"),
            "signed as another message": (signed(s, 1, "advertise_keys", good[:-64]), "signature"),
            "of a manifest of another study": (
                good[:-64] + s.signing[1].sign("encapsulate", other_manifest(s).digest, good[:-64]),
                "signature",
            ),
        }
    )


def as_text() -> str:
    """The file's text."""
    return json.dumps(vectors(), indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(as_text(), encoding="utf-8")
