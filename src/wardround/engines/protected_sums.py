"""Who adds up, as a study's protection has it: in clear, securely over all sites, by buckets, or site by site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wardround.engines.entropy import SystemEntropy
from wardround.engines.secure_sum import Loss, SecureFederation, SecureSum
from wardround.engines.summing import BucketSum, ClearSum, Summing, buckets_of, plain_sum
from wardround.engines.transcript_file import TranscriptFile
from wardround.errors import ConfigError
from wardround.privacy.protection import SumProtection
from wardround.privacy.secagg.context import RUN_BYTES
from wardround.privacy.secagg.entropy import Entropy
from wardround.privacy.secagg.terms import Terms, bucket_terms, terms_for
from wardround.sums import Ask
from wardround.sums.message import pack_ask


@dataclass(frozen=True, slots=True)
class ClosedTranscript:
    """A transcript on disk, and the fingerprint of the manifest that it has to be of (hexadecimal)."""

    path: Path
    fingerprint: str


class ProtectedSums:
    """The sums of a federation under one protection.

    Keys are made when the first secure sum begins, once for all runs.

    Args:
        sites: names of all sites, in order.
        protection: what the study says.
        minimum_sites: fewest sites of any total.
        entropy: of keys and masks; None: the operating system's.
        study_digest: of what the sites agreed to, 32 bytes.
        transcripts: folder in which the transcripts of secure sums are kept; None keeps none.

    Raises:
        ConfigError: the protection cannot hold for these sites, or there is no such folder; says what to do.
    """

    def __init__(
        self,
        sites: tuple[str, ...],
        protection: SumProtection,
        minimum_sites: int,
        *,
        entropy: Entropy | None = None,
        study_digest: bytes = bytes(32),
        transcripts: str | Path | None = None,
    ) -> None:
        size = protection.bucket_size
        self._sites = sites
        self.buckets = buckets_of(sites, size) if size else (sites,)
        self._terms: dict[tuple[str, ...], Terms] = {}
        if protection.secure_sums:
            self._terms[sites] = terms_for(protection, len(sites), minimum_sites)
            terms = bucket_terms(protection, len(sites), minimum_sites)
            self._terms |= dict(zip(self.buckets, terms, strict=True)) if terms else {}
        self._entropy = entropy or SystemEntropy()
        self._study_digest = study_digest
        self._transcripts = None if transcripts is None else Path(transcripts)
        if self._transcripts and not self._transcripts.is_dir():
            raise ConfigError(f"transcripts={str(transcripts)!r} is no folder; make it, or name another one")
        self._federations: dict[tuple[str, ...], SecureFederation] = {}
        self._files: dict[tuple[str, ...], TranscriptFile] = {}

    def new_run(self) -> bytes:
        """What tells a run from all others at the sites."""
        return self._entropy.random(RUN_BYTES)

    def is_by_bucket(self, ask: Ask[Any]) -> bool:
        """Whether an ask is summed bucket by bucket."""
        return len(self.buckets) > 1 and bool(ask.layout.bounded) and not ask.is_clear

    def rosters(self, ask: Ask[Any]) -> tuple[tuple[str, ...], ...]:
        """The sites of each sum that an ask leads to."""
        return self.buckets if self.is_by_bucket(ask) else (self._sites,)

    def open(
        self, ask: Ask[Any], run: bytes, number: int, present: tuple[str, ...], losses: Mapping[str, Loss]
    ) -> Summing:
        """Who adds up the answers to an ask.

        Args:
            ask: what is asked.
            run: of `new_run`.
            number: of the round.
            present: the sites that are asked; enough for a sum over all of them.
            losses: sites that answer and are lost before the sum is complete.
        """
        layout = ask.layout
        if ask.is_clear:
            return ClearSum(layout, len(self._sites))
        if not self._terms:
            if self.is_by_bucket(ask):
                return BucketSum(layout, self.buckets, lambda sites: plain_sum(layout, len(sites)))
            return plain_sum(layout, len(self._sites))
        broadcast = pack_ask(ask)

        def secure(sites: tuple[str, ...]) -> Summing | None:
            there = tuple(site for site in sites if site in present)
            if len(there) < self._terms[sites].minimum_survivors:
                return None
            return SecureSum(
                federation=self._federation(sites),
                run=run,
                number=number,
                roster=there,
                broadcast=broadcast,
                layout=layout,
                num_sites=len(sites),
                losses={site: loss for site, loss in losses.items() if site in there},
                function_id=ask.function.function_id,
            )

        if self.is_by_bucket(ask):
            return BucketSum(layout, self.buckets, secure)
        whole = secure(self._sites)
        if whole is None:
            raise ValueError(f"a sum over {len(present)} of {len(self._sites)} sites was asked for")
        return whole

    def _federation(self, sites: tuple[str, ...]) -> SecureFederation:
        if sites not in self._federations:
            made = SecureFederation(sites, self._terms[sites], self._entropy, self._study_digest)
            if self._transcripts:
                stem = "secure-sums" if sites == self._sites else f"secure-sums-bucket-{self.buckets.index(sites) + 1}"
                file = TranscriptFile.create_in(self._transcripts, stem, made.manifest, made.setup_messages)
                made.recorder = self._files[sites] = file
            self._federations[sites] = made
        return self._federations[sites]

    def close_transcripts(self) -> tuple[ClosedTranscript, ...]:
        """End the transcripts with the coordinator's signature; returns where they are.

        Raises:
            StoreError: one cannot be written.
        """
        closed = []
        while self._files:  # sums after this have keys and a transcript of their own
            sites, file = self._files.popitem()
            federation = self._federations.pop(sites)
            file.close(federation.signing_seed)
            closed.append(ClosedTranscript(file.path, federation.manifest.digest.hex()))
        return tuple(sorted(closed, key=lambda one: one.path))
