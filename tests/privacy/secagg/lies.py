"""What liars say: messages that are well formed and well signed, and not true."""

from dataclasses import replace

from tests.privacy.secagg.two_machines import (
    BOTH_MODES,
    TwoMachines,
    sha256,
)
from wardround.privacy.secagg import site
from wardround.privacy.secagg.keys import derive
from wardround.privacy.secagg.messages import MaskedInput, Survivors
from wardround.privacy.secagg.wire import u16


def machines_of(mode: str, num_sites: int = 5, **terms) -> TwoMachines:
    """Sites of which one may be missing."""
    return TwoMachines(num_sites, BOTH_MODES[mode](num_sites, **terms))


def named(mode: str, uploaded=(0, 1, 2, 4), **terms) -> TwoMachines:
    """A round whose survivors are about to be told to the sites."""
    machines = machines_of(mode, **terms).open().upload_all(uploaded)
    machines.close()
    return machines


def survivors_of(machines: TwoMachines, index: int) -> Survivors:
    """What an honest coordinator says to a site of the survivors."""
    return Survivors.from_bytes(machines.owed(index), machines.manifest, len(machines.opening.roster))


def told(machines: TwoMachines, survivors: Survivors) -> site.SurvivorsArrived:
    """It, signed by the coordinator."""
    return site.SurvivorsArrived(survivors.to_bytes(machines.manifest, machines.signing))


def without(survivors: Survivors, index: int) -> Survivors:
    """The same without a survivor."""
    kept = [place for place, one in enumerate(survivors.indices) if one != index]
    return replace(
        survivors,
        evidence=tuple(survivors.evidence[place] for place in kept),
        sealed=tuple(survivors.sealed[place] for place in kept),
    )


def opened(machines: TwoMachines, ask: bytes = b"ask", **changes) -> site.Opened:
    """An opening that the coordinator signed, with these changes."""
    opening = replace(machines.opening, **{"broadcast_digest": sha256(ask), **changes})
    return site.Opened(opening.to_bytes(machines.manifest, machines.signing), sha256(ask))


def parsed(machines: TwoMachines, index: int) -> MaskedInput:
    """What a site uploaded."""
    num_words = machines.shape.num_words
    return MaskedInput.from_bytes(machines.uploads[index][0], "", len(machines.opening.roster), num_words)


def signed(machines: TwoMachines, index: int, masked: MaskedInput) -> bytes:
    """An upload signed by a site."""
    return masked.signed(machines.manifest, machines.opening.roster, machines.setup.signing[index])


def new_site(setup, index) -> site.SiteState:
    exchange, own_key = setup.exchange_seeds[index], setup.own_keys[index]
    secrets = site.SiteSecrets(identity=setup.signing_seeds[index], exchange=exchange, own_key=own_key)
    return site.SiteState(manifest=setup.manifest, index=index, secrets=secrets)


def blob_key(machines: TwoMachines, sender: int, holder: int) -> bytes:
    key = machines.setup.pair_keys[sender][holder]
    return derive(key, "blob", machines.round.context, u16(sender), u16(holder))
