"""A site's steps of the set-up, one a transition of `site.step`."""

from __future__ import annotations

from dataclasses import replace

from wardround.errors import MessageRefusedError
from wardround.privacy.secagg.entropy import Entropy
from wardround.privacy.secagg.keys import ExchangeKey
from wardround.privacy.secagg.manifest import advertise, encapsulate_all, keys_digest, pair_keys
from wardround.privacy.secagg.site_state import (
    AdvertisementsArrived,
    Effects,
    EncapsulationsArrived,
    Enrol,
    Send,
    SiteState,
    Stage,
)
from wardround.privacy.secagg.wire import COORDINATOR


def enrol(state: SiteState, event: Enrol, entropy: Entropy) -> tuple[SiteState, Effects]:
    """The site advertises its keys."""
    message = advertise(state.manifest, state.index, state.signing, _exchange(state))
    return replace(state, stage=Stage.ADVERTISED, advertisement=message), (Send(message),)


def _exchange(state: SiteState) -> ExchangeKey:
    return ExchangeKey.from_seed(state.secrets.exchange)


def keys_arrived(state: SiteState, event: AdvertisementsArrived, entropy: Entropy) -> tuple[SiteState, Effects]:
    """It checks the others' keys and makes secrets with them."""
    message, secrets = encapsulate_all(
        state.manifest,
        state.index,
        state.signing,
        _exchange(state),
        event.messages,
        state.advertisement,
        entropy,
    )
    known = replace(
        state,
        stage=Stage.ENCAPSULATED,
        advertisements=tuple(event.messages),
        encapsulation=message,
        encapsulated=dict(secrets),
    )
    return known, (Send(message),)


def enrolled_again(state: SiteState, event: Enrol, entropy: Entropy) -> tuple[SiteState, Effects]:
    """It was stopped before it had sent them."""
    return state, (Send(state.advertisement),)


def keys_arrived_again(state: SiteState, event: AdvertisementsArrived, entropy: Entropy) -> tuple[SiteState, Effects]:
    """It was stopped before it had sent its answer."""
    if tuple(event.messages) != state.advertisements:
        raise MessageRefusedError("out_of_turn", COORDINATOR, "this site has answered to another set of keys")
    return state, (Send(state.encapsulation),)


def secrets_arrived(state: SiteState, event: EncapsulationsArrived, entropy: Entropy) -> tuple[SiteState, Effects]:
    """It has all that its pair keys are made from."""
    keys = pair_keys(
        state.manifest,
        state.index,
        _exchange(state),
        state.advertisements,
        event.messages,
        state.encapsulated,
        state.secrets.own_key,
    )
    ready = replace(state, stage=Stage.READY, pair_keys=keys, keys=keys_digest(state.advertisements))
    # Who gets hold of this state later must not be able to make the pair keys of another set-up.
    return replace(
        ready,
        secrets=replace(state.secrets, exchange=b""),
        advertisements=(),
        encapsulation=b"",
        encapsulated={},
    ), ()
