"""Write `vectors/rounds.json`: two whole rounds, every message and number of them, and messages that must be refused.

    python -m tests.privacy.secagg.make_vectors

The rounds begin where the set-up ends: pair keys are given. One is strict and loses a site while it uploads, the other
has no consistency leg. `steps` are the messages in their order; one of `refused` is to be tried before the step that it
names, by the party that it names, and changes nothing. All is in hexadecimal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.privacy.secagg.lies import opened, parsed, signed, survivors_of, told, without
from tests.privacy.secagg.setup_of import SetUp
from tests.privacy.secagg.two_machines import TwoMachines
from wardround.privacy.secagg import coordinator
from wardround.privacy.secagg.coordinator import Phase
from wardround.privacy.secagg.keys import SigningKey, derive
from wardround.privacy.secagg.manifest import Manifest, RosterSite, keys_digest
from wardround.privacy.secagg.messages import Agreement, Chunk, Consistency, Unmask
from wardround.privacy.secagg.prg import keystream
from wardround.privacy.secagg.shamir import split
from wardround.privacy.secagg.terms import Terms
from wardround.privacy.secagg.vector import layout_digest
from wardround.testing.seeded_entropy import SeededEntropy

PATH = Path(__file__).parent / "vectors" / "rounds.json"
SEED = 17
TERMS = {"strict, a site is lost": Terms.of(4, is_strict=True), "two_leg": Terms.of(3, is_strict=False)}
LOST = {"strict, a site is lost": (1,), "two_leg": ()}
KINDS = {2: "advertise_keys", 4: "opening", 5: "masked_input", 6: "chunk", 7: "survivors", 8: "consistency",
         9: "agreement", 10: "unmask"}  # fmt: skip


@lru_cache(maxsize=8)
def given_setup(terms: Terms) -> SetUp:
    """Sites that share keys which no set-up made: a round does not depend on how they came to them."""
    entropy = SeededEntropy(SEED)
    coordinator_key = SigningKey.from_seed(entropy.random(32))
    sites = range(terms.num_sites)
    seeds = tuple(entropy.random(32) for _ in sites)
    signing = tuple(SigningKey.from_seed(seed) for seed in seeds)
    pairs = {(i, j): entropy.random(32) for i in sites for j in sites if i <= j}
    manifest = Manifest(
        study_digest=entropy.random(32),
        coordinator=coordinator_key.public,
        terms=terms,
        roster=tuple(RosterSite(f"site {index}", key.public) for index, key in enumerate(signing)),
    )
    return SetUp(
        manifest=manifest,
        coordinator=coordinator_key,
        signing=signing,
        exchange=(),
        exchange_seeds=(),
        signing_seeds=seeds,
        own_keys=tuple(pairs[i, i] for i in sites),
        advertisements=tuple(f"in the place of the keys of site {index}".encode() for index in sites),
        encapsulations=(),
        secrets=(),
        pair_keys=tuple(tuple(pairs[min(i, j), max(i, j)] for j in sites) for i in sites),
    )


class Drawn:
    """Entropy of one site, and what it gave."""

    def __init__(self, seed: bytes) -> None:
        self.entropy = SeededEntropy(seed)
        self.given: list[bytes] = []

    def random(self, num_bytes: int) -> bytes:
        """The next bytes."""
        self.given.append(self.entropy.random(num_bytes))
        return self.given[-1]


class Given(TwoMachines):
    """Machines of such sites."""

    @property
    def setup(self) -> SetUp:
        """Of these terms."""
        assert self.terms is not None
        return given_setup(self.terms)


@dataclass(slots=True)
class Script:
    """A round as it is played, step by step."""

    machines: Given
    lost: tuple[int, ...]
    steps: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    draws: dict[int, list[bytes]] = field(default_factory=dict)

    def step(self, index: int, message: bytes, *, is_up: bool) -> None:
        """A message that arrives."""
        ends = (f"site {index}", "coordinator") if is_up else ("coordinator", f"site {index}")
        self.steps.append({"from": ends[0], "to": ends[1], "kind": KINDS[message[5]], "message": message.hex()})

    def lie(self, what: str, index: int, message: bytes, rule: str, *, is_up: bool, peer: str = "") -> None:
        """A message that must be refused at this moment by the site, or by the coordinator as the site's."""
        ends = (f"site {index}", "coordinator") if is_up else ("coordinator", f"site {index}")
        case = {"what": what, "before": len(self.steps), "from": ends[0], "to": ends[1]}
        self.refused.append({**case, "message": message.hex(), "rule": rule, "peer": peer or ends[0]})


def played(name: str) -> tuple[Script, dict[str, Any]]:
    """The round, and its numbers."""
    terms = TERMS[name]
    machines = Given(terms.num_sites, terms, seed=SEED)
    machines.open()
    script = Script(machines, LOST[name])
    _play_openings(script)
    masked = _play_uploads(script)
    machines.close()
    survivors_digest = machines.round.survivors_digest
    _play_survivors(script)
    if terms.is_strict:
        signed_by = [machines.answer(index) for index in machines.round.survivors]
        _play_consistency(script, signed_by)
        _play_agreement(script)
    released = [machines.answer(index) for index in machines.round.survivors]
    masks = _play_unmask(script, released)
    machines.check_total()
    numbers = {
        "shares": [_shares(script, index).tobytes().hex() for index in range(terms.num_sites)],
        "masked_vectors": masked,
        "S": survivors_digest.hex(),
        "survivors": list(machines.round.survivors),
        "removed": [[seed.hex(), sign] for seed, sign in masks],
        "total": machines.total.tobytes().hex(),
    }
    return script, numbers


def flipped(message: bytes, place: int = -1) -> bytes:
    """One bit of it is another."""
    place %= len(message)
    return message[:place] + bytes([message[place] ^ 1]) + message[place + 1 :]


def _play_openings(script: Script) -> None:
    machines = script.machines
    for index in range(machines.num_sites):
        message = machines.opened(index).message
        if index == 0:
            script.lie("a flipped bit of the run", 0, flipped(message, 6), "signature", is_up=False)
            script.lie("a flipped bit of the signature", 0, flipped(message), "signature", is_up=False)
            script.lie("cut short", 0, message[:-1], "malformed", is_up=False)
            script.lie("one byte more", 0, message + b"\0", "malformed", is_up=False)
            script.lie("a later version", 0, message[:4] + b"\2" + message[5:], "malformed", is_up=False)
            lacks = opened(machines, ASK, roster=tuple(range(1, machines.num_sites))).message
            script.lie("a roster without the site", 0, lacks, "roster", is_up=False)
            few = opened(machines, ASK, roster=(0, 1)).message
            script.lie("a roster of fewer than u_min", 0, few, "roster", is_up=False)
            unknown = opened(machines, ASK, roster=(0, 1, machines.num_sites)).message
            script.lie("a roster with an unknown site", 0, unknown, "roster", is_up=False)
            other_ask = opened(machines, b"another ask").message
            script.lie("for another ask than came with it", 0, other_ask, "signature", is_up=False)
            zero = _signed_opening(machines, replace(machines.opening, round=1), zero_round=True)
            script.lie("round 0", 0, zero, "malformed", is_up=False)
        script.step(index, message, is_up=False)
        machines.entropy = Drawn(f"site {index}".encode())
        machines.upload(index)
        script.draws[index] = machines.entropy.given


ASK = b"how many, and how far from here?"


def _signed_opening(machines: TwoMachines, opening: Any, *, zero_round: bool) -> bytes:
    body = opening._body()
    body = body[:22] + bytes(4) + body[26:] if zero_round else body
    return body + machines.signing.sign("opening", machines.manifest.digest, body, opening.broadcast_digest)


def _play_uploads(script: Script) -> list[str]:
    machines, masked = script.machines, []
    script.lie("the same opening after it was answered", 0, machines.opened(0).message, "replayed", is_up=False)
    for index in range(machines.num_sites):
        upload, (chunk,) = machines.uploads[index]
        content = bytes(Chunk.from_bytes(chunk, "").content)
        masked.append(content.hex())
        if index == 0:
            _lie_about_uploads(script, upload, chunk)
        script.step(index, upload, is_up=True)
        machines.receive(index, 0)
        if index == 0:
            _lie_about_chunks(script, chunk)
        if index not in script.lost:
            script.step(index, chunk, is_up=True)
            machines.to_coordinator(coordinator.ChunkArrived(index, chunk))
    return masked


def _lie_about_uploads(script: Script, upload: bytes, chunk: bytes) -> None:
    machines, masked = script.machines, parsed(script.machines, 0)
    script.lie("a chunk before its masked_input", 0, chunk, "out_of_turn", is_up=True)
    script.lie("a flipped bit of a blob", 0, flipped(upload, -80), "signature", is_up=True)
    script.lie("cut short", 0, upload[:-1], "malformed", is_up=True)
    script.lie("of another context", 0, signed(machines, 0, replace(masked, context=bytes(32))), "context", is_up=True)
    script.lie("of another site", 0, machines.uploads[1][0], "unknown_peer", is_up=True)
    short = signed(machines, 0, replace(masked, num_words=masked.num_words - 1))
    script.lie("a vector of another length", 0, short, "malformed", is_up=True)
    other = masked.signed(machines.manifest, machines.opening.roster, machines.setup.signing[1])
    script.lie("signed by another site", 0, other, "signature", is_up=True)


def _lie_about_chunks(script: Script, chunk: bytes) -> None:
    one = Chunk.from_bytes(chunk, "")
    script.lie("a flipped bit of a word", 0, flipped(chunk), "chunk", is_up=True)
    script.lie("a chunk of another number", 0, replace(one, number=1).to_bytes(), "chunk", is_up=True)
    script.lie("a chunk that is too short", 0, chunk[:-8], "chunk", is_up=True)
    script.lie("a chunk of another context", 0, replace(one, context=bytes(32)).to_bytes(), "context", is_up=True)
    script.lie("a chunk of another site", 0, replace(one, sender=1).to_bytes(), "unknown_peer", is_up=True)


def _play_survivors(script: Script) -> None:
    machines = script.machines
    for index in machines.round.survivors:
        message = machines.owed(index)
        if index == 0:
            _lie_about_survivors(script, message)
        script.step(index, message, is_up=False)


def _lie_about_survivors(script: Script, message: bytes) -> None:
    machines = script.machines
    honest = survivors_of(machines, 0)
    first, *others = honest.sealed
    lies = {
        "without the site": (without(honest, 0), "survivors"),
        "for another site": (survivors_of(machines, 2), "survivors"),
        "fewer than u_min": (without(honest, 2), "too_few_survivors"),
        "two blobs in each other's place": (replace(honest, sealed=(others[0], first, *others[1:])), "blob"),
        "another path": (replace(honest, sealed=(replace(first, path=first.path[::-1]), *others)), "blob"),
        "a vector that was not signed": (
            replace(honest, evidence=(replace(honest.evidence[0], vector_digest=bytes(32)), *honest.evidence[1:])),
            "signature",
        ),
        "of another context": (replace(honest, context=bytes(32)), "context"),
    }
    for what, (lie, rule) in lies.items():
        script.lie(what, 0, told(machines, lie).message, rule, is_up=False)
    script.lie("a flipped bit of a blob", 0, flipped(message, -80), "signature", is_up=False)
    script.lie("cut short", 0, message[:-1], "malformed", is_up=False)


def _play_consistency(script: Script, messages: list[bytes]) -> None:
    machines = script.machines
    context, digest = machines.round.context, machines.round.survivors_digest
    keys, manifest = machines.setup.signing, machines.manifest
    script.lie("over other survivors", 0, Consistency.signed(manifest, context, 0, bytes(32), keys[0]), "survivors",
               is_up=True)  # fmt: skip
    script.lie("of another context", 0, Consistency.signed(manifest, bytes(32), 0, digest, keys[0]), "context",
               is_up=True)  # fmt: skip
    script.lie("of a lost site", 1, Consistency.signed(manifest, context, 1, digest, keys[1]), "out_of_turn",
               is_up=True)  # fmt: skip
    script.lie("of another site", 0, messages[1], "unknown_peer", is_up=True)
    script.lie("a flipped bit", 0, flipped(messages[0]), "signature", is_up=True)
    script.lie("another U for a context that was answered", 0, _other_survivors(machines), "second_answer", is_up=False)
    for index, message in zip(machines.round.survivors, messages, strict=True):
        script.step(index, message, is_up=True)
        machines.to_coordinator(coordinator.ConsistencyArrived(index, message))


def _other_survivors(machines: TwoMachines) -> bytes:
    """As if the coordinator had counted the lost site, too."""
    other = machines.fork()
    other.round = replace(machines.round, phase=Phase.MASKED_INPUT, survivors=(), survivors_digest=b"", signatures={})
    for index in machines.opening.roster:
        if index not in machines.round.survivors:
            other.receive(index)
    other.close()
    return other.owed(0)


def _play_agreement(script: Script) -> None:
    machines = script.machines
    signatures = tuple(sorted(machines.round.signatures.items()))
    context, threshold = machines.round.context, machines.manifest.terms.threshold

    def agreement(some: tuple[tuple[int, bytes], ...]) -> bytes:
        return Agreement(context=context, signatures=some).to_bytes(machines.manifest, machines.signing)

    one = machines.setup.signing[1].sign(
        "consistency", machines.manifest.digest, context, machines.round.survivors_digest
    )
    lies = {
        "fewer than t": (agreement(signatures[: threshold - 1]), "agreement"),
        "one signature twice": (agreement((*signatures[:2], signatures[1])), "malformed"),
        "two signatures swapped": (
            agreement(((0, signatures[1][1]), (signatures[1][0], signatures[0][1]), *signatures[2:])),
            "agreement",
        ),
        "with a site that is not in U": (agreement((signatures[0], (1, one), *signatures[1:])), "agreement"),
        "a flipped bit": (flipped(agreement(signatures)), "signature"),
        "cut short": (agreement(signatures)[:-1], "malformed"),
    }
    for what, (lie, rule) in lies.items():
        script.lie(what, 0, lie, rule, is_up=False)
    for index in machines.round.survivors:
        script.step(index, machines.owed(index), is_up=False)


def _play_unmask(script: Script, messages: list[bytes]) -> list[tuple[bytes, int]]:
    machines = script.machines
    _lie_about_shares(script, messages)
    masks: list[tuple[bytes, int]] = []
    for index, message in zip(machines.round.survivors, messages, strict=True):
        script.step(index, message, is_up=True)
        effects = machines.to_coordinator(coordinator.UnmaskArrived(index, message))
        masks += [mask for effect in effects if isinstance(effect, coordinator.RemoveMasks) for mask in effect.masks]
    script.lie("a late one", 0, messages[0], "out_of_turn", is_up=True)
    repeated = replace(machines.opening, attempt=2).to_bytes(machines.manifest, machines.signing)
    script.lie("a further attempt at a round that has had its total", 0, repeated, "replayed", is_up=False)
    return masks


def _lie_about_shares(script: Script, messages: list[bytes]) -> None:
    machines = script.machines
    manifest, key = machines.manifest, machines.setup.signing[0]
    sizes = len(machines.opening.roster), len(machines.round.survivors)
    honest = Unmask.from_bytes(messages[0], manifest, "", *sizes)
    lies = {
        "a share that is not the one that was sealed": (replace(honest, shares=flipped(honest.shares)), "share"),
        "for other survivors": (replace(honest, survivors_digest=bytes(32)), "survivors"),
        "of another context": (replace(honest, context=bytes(32)), "context"),
        "a share too many": (replace(honest, shares=honest.shares + bytes(36)), "malformed"),
    }
    for what, (lie, rule) in lies.items():
        script.lie(what, 0, lie.signed(manifest, key), rule, is_up=True)
    script.lie("of another site", 0, messages[1], "unknown_peer", is_up=True)
    script.lie("a flipped bit", 0, flipped(messages[0]), "signature", is_up=True)


def seeds_of(script: Script, index: int) -> list[bytes]:
    """`s_i`."""
    machines = script.machines
    keys, context = machines.setup.pair_keys[index], machines.round.context
    own = script.draws[index][0]
    return [own if j == index else derive(keys[j], "mask", context) for j in machines.opening.roster]


def _shares(script: Script, index: int) -> Any:
    machines = script.machines
    seeds, threshold = seeds_of(script, index), machines.manifest.terms.threshold
    return split(seeds, threshold, machines.opening.roster, script.draws[index][1]).astype("<u2")


def _masks(script: Script, index: int) -> Iterator[dict[str, Any]]:
    shape = script.machines.shape
    for seed in seeds_of(script, index):
        words = np.frombuffer(keystream(seed, shape.num_bytes), "<u8")
        yield {"seed": seed.hex(), "first_word": int(words[0]), "last_word": int(words[-1])}


def case_of(name: str) -> dict[str, Any]:
    """One round of the file."""
    script, numbers = played(name)
    machines = script.machines
    setup, terms = machines.setup, machines.manifest.terms
    unmasked = [machines.expected((index,)).tobytes().hex() for index in range(machines.num_sites)]
    return {
        "name": name,
        "threshold": terms.threshold,
        "minimum_survivors": terms.minimum_survivors,
        "is_strict": terms.is_strict,
        "manifest": machines.manifest.to_bytes().hex(),
        "K": keys_digest(setup.advertisements).hex(),
        "coordinator_seed": SeededEntropy(SEED).random(32).hex(),
        "signing_seeds": [seed.hex() for seed in setup.signing_seeds],
        "pair_keys": [[key.hex() for key in keys] for keys in setup.pair_keys],
        "ask": ASK.hex(),
        "layout": layout_digest(machines.layout, machines.num_sites).hex(),
        "num_wide": machines.shape.num_wide,
        "vectors": unmasked,
        "draws": [[drawn.hex() for drawn in script.draws[index]] for index in range(machines.num_sites)],
        "context": machines.round.context.hex(),
        "masks": [list(_masks(script, index)) for index in range(machines.num_sites)],
        **numbers,
        "steps": script.steps,
        "refused": script.refused,
    }


def vectors() -> dict[str, Any]:
    """All of the file."""
    command = "python -m tests.privacy.secagg.make_vectors"
    return {"command": command, "rounds": [case_of(name) for name in TERMS]}


def main() -> None:
    """Write the file."""
    PATH.write_text(json.dumps(vectors(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
