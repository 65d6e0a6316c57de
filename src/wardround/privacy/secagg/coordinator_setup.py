"""The coordinator's half of the set-up: it collects the sites' keys and hands them on. It can forge none of them.

ADVERTISE_KEYS --all advertisements--> ENCAPSULATE --all encapsulations--> READY
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from wardround.errors import LocalProtocolError, MessageRefusedError
from wardround.privacy.secagg.manifest import Advertisement, Encapsulations, keys_digest
from wardround.privacy.secagg.stored import Octets, StoredManifest


class SetUpPhase(enum.StrEnum):
    """What the coordinator waits for."""

    ADVERTISE_KEYS = "advertise_keys"
    ENCAPSULATE = "encapsulate"
    READY = "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUpState:
    """The messages of the set-up that have arrived, by index."""

    manifest: StoredManifest
    phase: SetUpPhase = SetUpPhase.ADVERTISE_KEYS
    advertisements: Mapping[int, Octets] = field(default_factory=dict)
    encapsulations: Mapping[int, Octets] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the sites whose message the coordinator waits for."""
        if self.phase == SetUpPhase.READY:
            return ()
        have = self.advertisements if self.phase == SetUpPhase.ADVERTISE_KEYS else self.encapsulations
        return tuple(site.name for index, site in enumerate(self.manifest.roster) if index not in have)

    @property
    def bundle(self) -> tuple[bytes, ...]:
        """What every site is owed now, in the roster's order; empty while messages are missing.

        In the phase ENCAPSULATE all advertisements, in READY all encapsulations.
        """
        if self.phase == SetUpPhase.ADVERTISE_KEYS:
            return ()
        messages = self.advertisements if self.phase == SetUpPhase.ENCAPSULATE else self.encapsulations
        return tuple(messages[index] for index in range(len(self.manifest.roster)))

    @property
    def keys(self) -> bytes:
        """`keys_digest` of all advertisements, 32 bytes: what every context of a round holds.

        Raises:
            LocalProtocolError: some are missing.
        """
        if self.phase == SetUpPhase.ADVERTISE_KEYS:
            raise LocalProtocolError(f"no round can be opened before the set-up: {', '.join(self.missing)} must enrol")
        return keys_digest([self.advertisements[index] for index in range(len(self.manifest.roster))])


@dataclass(frozen=True, slots=True)
class SetUpArrived:
    """A message of the set-up from a site."""

    site: int
    message: bytes


@dataclass(frozen=True, slots=True)
class BundleReady:
    """Every site is owed the bundle."""

    messages: tuple[bytes, ...]


SetUpEffects: TypeAlias = tuple[BundleReady, ...]


def step(state: SetUpState, event: SetUpArrived) -> tuple[SetUpState, SetUpEffects]:
    """Take one message in.

    Raises:
        MessageRefusedError: it breaks a rule; the state is what it was.
    """
    if not 0 <= event.site < len(state.manifest.roster):
        raise MessageRefusedError("unknown_peer", str(event.site), "the manifest's roster has no such site")
    name = state.manifest.roster[event.site].name
    if event.message in (state.advertisements.get(event.site), state.encapsulations.get(event.site)):
        return state, ()  # the site was stopped, and does not know that it had sent it
    if state.phase == SetUpPhase.ADVERTISE_KEYS:
        _check_sender(Advertisement.from_bytes(event.message, state.manifest, peer=name).index, event.site, name)
        _check_first(state.advertisements, event, name)
        known = replace(state, advertisements={**state.advertisements, event.site: event.message})
        return _advanced(known, SetUpPhase.ENCAPSULATE)
    if state.phase == SetUpPhase.ENCAPSULATE:
        message = Encapsulations.from_bytes(event.message, state.manifest, peer=name)
        _check_sender(message.index, event.site, name)
        if message.keys_digest != keys_digest(state.bundle):
            raise MessageRefusedError("manifest", name, "it is for other keys than those that were advertised")
        _check_first(state.encapsulations, event, name)
        known = replace(state, encapsulations={**state.encapsulations, event.site: event.message})
        return _advanced(known, SetUpPhase.READY)
    raise MessageRefusedError("out_of_turn", name, "the set-up is complete")


def _check_sender(claimed: int, site: int, name: str) -> None:
    if claimed != site:
        raise MessageRefusedError("unknown_peer", name, f"it is signed as site {claimed}")


def _check_first(known: Mapping[int, bytes], event: SetUpArrived, name: str) -> None:
    if event.site in known:
        raise MessageRefusedError("out_of_turn", name, "it has sent another message of this kind")


def _advanced(state: SetUpState, following: SetUpPhase) -> tuple[SetUpState, SetUpEffects]:
    if state.missing:
        return state, ()
    ready = replace(state, phase=following)
    return ready, (BundleReady(ready.bundle),)
