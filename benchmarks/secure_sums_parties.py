"""The machines of secure sums, taken apart: a round is played and noted down; a party is given its half again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from wardround.engines.entropy import SystemEntropy
from wardround.engines.secure_sum import Loss, SecureFederation, SecureSum
from wardround.privacy.secagg import coordinator, keys, site
from wardround.privacy.secagg.messages import Chunk
from wardround.privacy.secagg.terms import Terms
from wardround.privacy.secagg.vector import chunks, contribution_of, layout_digest, shape_of, to_words
from wardround.sums import Array, Contribution, bounded, people
from wardround.sums.contribution import Flat, Layout, layout_of

SMALL = 1000
ENTROPY = SystemEntropy()


class Update(Contribution):
    """A step of a model, and of how many patients."""

    step: Array = bounded("size", clip_norm=1.0, bits="bits")
    num_patients: int = people()


def layout_for(size: int, bits: int) -> Layout:
    """Of an update of so many parameters."""
    return layout_of(Update, {"size": size, "bits": bits})


def step_of(size: int, seed: int = 0) -> np.ndarray:
    """A step of norm 1/2 in float32."""
    return np.random.default_rng(seed).normal(scale=0.5 / math.sqrt(size), size=size).astype(np.float32)


def flat_of(layout: Layout, step: np.ndarray) -> Flat:
    """An update as the codec gets it."""
    return layout.flatten(Update(step=step, num_patients=1000))


@dataclass(frozen=True, slots=True)
class Losses:
    """Sites lost in a round, those before the upload and those between the legs."""

    before: tuple[int, ...] = ()
    between: tuple[int, ...] = ()

    @property
    def words(self) -> str:
        """For a row's name."""
        return f", {len(self.before)}+{len(self.between)} lost" if self.before else ""


def losses_of(num_sites: int) -> tuple[Losses, ...]:
    """None; and, from ten sites up, a tenth before the upload and a tenth between the legs, the last of the roster."""
    tenth, sites = num_sites // 10, range(num_sites)
    some = Losses(tuple(sites[num_sites - tenth :]), tuple(sites[num_sites - 2 * tenth : num_sites - tenth]))
    return (Losses(), some) if tenth else (Losses(),)


class NotedFederation(SecureFederation):
    """Notes what the first site is sent, and in which state it then is."""

    def __init__(self, sites: Sequence[str], terms: Terms) -> None:
        self.noted: list[tuple[site.SiteState, site.Event]] = []
        super().__init__(sites, terms, ENTROPY)

    def step(self, index: int, event: site.Event) -> site.Effects:
        if index == 0:
            self.noted.append((self.states[0], event))
        return super().step(index, event)


class NotedSum(SecureSum):
    """Notes what the coordinator is sent, and can give it all of that again."""

    def __post_init__(self) -> None:
        self.noted: list[coordinator.Event] = []
        super().__post_init__()
        self._first = self._state

    def _arrived(self, event: coordinator.Event) -> None:
        self.noted.append(event)
        super()._arrived(event)

    def again(self) -> Contribution:
        """The coordinator's whole work in the round."""
        keys._verify_digest.cache_clear()  # it has not seen these signatures
        self._state, phase = self._first, None
        self._sum[:] = 0
        for event in self.noted:
            if self._state.phase != phase:
                phase = self._state.phase
                for index in self._state.survivors or self._state.roster:
                    self._owed(index)
            super()._arrived(event)
        return contribution_of(self._sum, self.layout, self.num_sites, len(self._state.survivors))


class Parties:
    """The machines of so many sites, set up."""

    def __init__(self, num_sites: int) -> None:
        self.num_sites, self.terms, self._round = num_sites, Terms.of(num_sites), 0
        self.names = tuple(f"site {index}" for index in range(num_sites))
        self.federation = NotedFederation(self.names, self.terms)
        self._run = self.federation.new_run()

    def play(self, layout: Layout, step: np.ndarray, losses: Losses = Losses()) -> NotedSum:
        """A whole round, in which all sites have the same to add."""
        self.federation.noted.clear()
        self._round += 1
        summed = NotedSum(
            federation=self.federation,
            run=self._run,
            number=self._round,
            roster=self.names,
            broadcast=b"ask %d" % self._round,  # the same ask is not answered over other sites
            layout=layout,
            num_sites=self.num_sites,
            losses={self.names[index]: Loss.BEFORE_CONSISTENCY for index in losses.between},
        )
        flat, rng = flat_of(layout, step), np.random.default_rng(0)
        for index, name in enumerate(self.names):
            if index not in losses.before:
                summed.add(name, flat, rng)
        summed.close()
        return summed

    @cached_property
    def site_events(self) -> tuple[tuple[site.SiteState, site.Event], ...]:
        """What the first site is sent in a small round without losses."""
        layout = layout_for(SMALL, 12)
        self.play(layout, step_of(SMALL))
        return tuple(self.federation.noted)


def site_round(events: Sequence[tuple[site.SiteState, site.Event]], flat: Flat, layout: Layout, num_sites: int) -> int:
    """One site's whole work in a round, of which the vector alone depends on the layout. Returns the bytes it sends."""
    keys._verify_digest.cache_clear()  # it has not seen these signatures
    words = to_words(flat, layout, num_sites, np.random.default_rng(0))
    num_wide, digest, num_bytes = shape_of(layout, num_sites).num_wide, layout_digest(layout, num_sites), 0
    for state, event in events:
        if isinstance(event, site.Computed):
            event = replace(event, words=words, num_wide=num_wide, layout=digest)
        for effect in site.step(state, event, ENTROPY)[1]:
            if isinstance(effect, site.Send | site.Upload):
                num_bytes += len(effect.message)
            if isinstance(effect, site.Upload):
                for number, content in enumerate(chunks(effect.words)):
                    chunk = Chunk(context=effect.context, sender=0, number=number, content=content)
                    num_bytes += len(chunk.to_bytes())
    return num_bytes


def summed_alone(num_sites: int, size: int) -> None:
    """As `Parties.play`, and nothing is noted down. Of 11 bits four slots fill a word for 3 sites and for 30."""
    names, layout = tuple(f"site {index}" for index in range(num_sites)), layout_for(size, 11)
    federation = SecureFederation(names, Terms.of(num_sites), ENTROPY)
    summed = SecureSum(
        federation=federation,
        run=federation.new_run(),
        number=1,
        roster=names,
        broadcast=b"ask",
        layout=layout,
        num_sites=num_sites,
    )
    flat, rng = flat_of(layout, step_of(size)), np.random.default_rng(0)
    for name in names:
        summed.add(name, flat, rng)
    summed.close()
