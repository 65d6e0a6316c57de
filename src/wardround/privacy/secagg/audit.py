"""Verify a transcript: that nothing in it was altered, and that it tells of sums that kept to the protocol.

Anybody can: it takes the file alone, and to know whose keys these are, the fingerprint that the sites agreed on.
What it can and cannot show is `docs/audit.md`.

    an opening --(masked_input)*--> survivors --(consistency)*--> (unmask)* --> total, or a failure at any time

References:
    `docs/protocol.md`, sections 4 and 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wardround.errors import MessageRefusedError, TranscriptRefusedError
from wardround.privacy.secagg.account import Account, Outcome, RoundAccount
from wardround.privacy.secagg.context import Opening
from wardround.privacy.secagg.keys import verify as verify_signature
from wardround.privacy.secagg.manifest import Advertisement, Encapsulations, Manifest, keys_digest
from wardround.privacy.secagg.messages import Evidence, survivors_digest, verify_consistency
from wardround.privacy.secagg.transcript import (
    MAX_LINE_BYTES,
    START,
    TRANSCRIPT_VERSION,
    Advertised,
    Agreed,
    Closed,
    Encapsulated,
    Entry,
    Failed,
    Named,
    Opened,
    Pinned,
    Refused,
    Released,
    Summed,
    Uploaded,
    from_line,
)
from wardround.privacy.secagg.wire import COORDINATOR, u16


def verify(lines: Iterable[bytes], *, manifest: Manifest | None = None, fingerprint: bytes | None = None) -> Account:
    """Verify a transcript line by line.

    Args:
        lines: with their newlines; a last one without is taken for one whose writing was cut short.
        manifest: that the transcript must be of, from people; None if it is not at hand.
        fingerprint: the manifest's digest instead, 32 bytes.

    Raises:
        TranscriptRefusedError: names the line and the rule.

    Guarantees:
        any_altered_byte_is_found: a transcript with its closing line of which a byte was altered, added or removed is
            refused, or is said not to be closed.
        no_site_can_be_left_out_of_a_total: without the sites' keys nobody makes a transcript that verifies in which a
            total has other survivors than those who released shares were told of.
    """
    pinned = manifest.digest if manifest else fingerprint
    audit = Audit(pinned)
    for line in lines:
        audit.take(line)
    return audit.account()


@dataclass(slots=True, kw_only=True)
class _Round:
    opening: Opening
    function: str
    context: bytes
    evidence: dict[int, Evidence] = field(default_factory=dict)
    survivors: tuple[int, ...] = ()
    digest: bytes = b""
    signers: set[int] = field(default_factory=set)
    releasers: set[int] = field(default_factory=set)
    num_signatures: int = 0
    num_releases: int = 0
    outcome: Outcome = Outcome.UNFINISHED
    failure: str = ""
    commitment: bytes = b""

    def forget(self) -> None:
        """Keep of a round that is over what its account needs: a transcript may have very many."""
        self.num_signatures, self.num_releases = len(self.signers), len(self.releasers)
        self.evidence, self.signers, self.releasers = {}, set(), set()

    def account(self) -> RoundAccount:
        return RoundAccount(
            run=self.opening.run,
            round=self.opening.round,
            attempt=self.opening.attempt,
            function=self.function,
            context=self.context,
            roster=self.opening.roster,
            survivors=self.survivors,
            num_signatures=self.num_signatures or len(self.signers),
            num_releases=self.num_releases or len(self.releasers),
            outcome=self.outcome,
            failure=self.failure,
            commitment=self.commitment,
        )


@dataclass(slots=True)
class _Run:
    """The last round of a run, whether its number has had a total, and who has released shares for that number."""

    last: _Round
    has_total: bool = False
    releasers: set[int] = field(default_factory=set)


class Audit:
    """A transcript that is verified as its lines come.

    Args:
        pinned: fingerprint of the manifest that it must be of; None if it is not at hand.

    Guarantees:
        refused_line_changes_nothing: after `take` raised, the line that belongs there is accepted.
    """

    def __init__(self, pinned: bytes | None) -> None:
        self._pinned = pinned
        self._chain = START
        self._num_lines = self._num_bytes = self._num_bytes_cut = 0
        self._manifest: Manifest | None = None
        self._advertisements: list[bytes] = []
        self._keys = b""
        self._num_encapsulations = 0
        self._is_closed = False
        self._rounds: list[_Round] = []
        self._open: dict[bytes, _Round] = {}
        self._runs: dict[bytes, _Run] = {}
        self._answers: dict[bytes, dict[tuple[int, ...], int]] = {}
        """By ask and survivors, the sites that released shares, as bits."""
        self._refused: list[tuple[str, str]] = []

    def account(self) -> Account:
        """What the lines so far tell.

        Raises:
            TranscriptRefusedError: there was not even a manifest.
        """
        if self._manifest is None:
            raise TranscriptRefusedError(1, "malformed", "there is no whole line; a transcript begins with a manifest")
        return Account(
            manifest=self._manifest,
            is_pinned=self._pinned is not None,
            is_closed=self._is_closed,
            num_lines=self._num_lines,
            num_bytes=self._num_bytes,
            num_bytes_cut=self._num_bytes_cut,
            rounds=tuple(one.account() for one in self._rounds),
            refused=tuple(self._refused),
            chain=self._chain,
        )

    def take(self, line: bytes) -> None:
        """Verify the next line, with its newline.

        Raises:
            TranscriptRefusedError: names the line and the rule.
        """
        number = self._num_lines + 1
        if self._num_bytes_cut:
            raise TranscriptRefusedError(number, "malformed", "it does not end, and other lines follow")
        if self._is_closed:
            raise TranscriptRefusedError(number, "out_of_turn", "it follows the line that closes the transcript")
        if not line.endswith(b"\n") and len(line) <= MAX_LINE_BYTES:
            self._num_bytes_cut = len(line)
            return
        entry, chain = from_line(line, self._chain, number)
        try:
            self._check_turn(entry)
            _HANDLERS[type(entry)](self, entry)
        except MessageRefusedError as error:
            told = str(error).removeprefix(f"message of {error.peer!r} refused, rule {error.rule}: ")
            raise TranscriptRefusedError(number, error.rule, f"{error.peer}: {told}") from None
        self._chain, self._num_lines, self._num_bytes = chain, number, self._num_bytes + len(line)

    def _check_turn(self, entry: Entry) -> None:
        """The set-up comes first and whole."""
        if self._manifest is None:
            is_due = isinstance(entry, Pinned)
        elif len(self._advertisements) < len(self._manifest.roster):
            is_due = isinstance(entry, Advertised | Refused | Closed)
        elif self._num_encapsulations < len(self._manifest.roster):
            is_due = isinstance(entry, Encapsulated | Refused | Closed)
        else:
            is_due = not isinstance(entry, Pinned | Advertised | Encapsulated)
        if not is_due:
            raise _refused("out_of_turn", f"a line of kind {entry.kind} cannot come here")

    @property
    def _known(self) -> Manifest:
        assert self._manifest is not None  # _check_turn lets nothing else in before
        return self._manifest

    # The set-up

    def _pinned_line(self, entry: Pinned) -> None:
        if entry.version != TRANSCRIPT_VERSION:
            reason = f"it is of version {entry.version}; this installation reads version {TRANSCRIPT_VERSION}"
            raise _refused("malformed", reason)
        manifest = Manifest.from_bytes(entry.message)
        if self._pinned is not None and manifest.digest != self._pinned:
            reason = f"its manifest has the fingerprint {manifest.digest.hex()}, not the one that was given"
            raise _refused("manifest", reason)
        self._manifest = manifest

    def _advertised(self, entry: Advertised) -> None:
        due = len(self._advertisements)
        _check_place(Advertisement.from_bytes(entry.message, self._known).index, due)
        self._advertisements.append(entry.message)
        if len(self._advertisements) == len(self._known.roster):
            self._keys = keys_digest(self._advertisements)

    def _encapsulated(self, entry: Encapsulated) -> None:
        message = Encapsulations.from_bytes(entry.message, self._known)
        _check_place(message.index, self._num_encapsulations)
        if message.keys_digest != self._keys:
            raise _refused(
                "manifest", "it was given other keys than those in this transcript", self._name(message.index)
            )
        self._num_encapsulations += 1

    # Rounds

    def _opened(self, entry: Opened) -> None:
        manifest = self._known
        opening = Opening.from_bytes(entry.message, manifest, entry.broadcast)
        if any(index >= len(manifest.roster) for index in opening.roster):
            raise _refused("roster", "it asks sites that the manifest does not have")
        if len(opening.roster) < manifest.terms.minimum_survivors:
            least = manifest.terms.minimum_survivors
            raise _refused("roster", f"it asks {len(opening.roster)} sites, and a total needs {least}")
        if opening.context(manifest, self._keys, entry.layout) != entry.context:
            raise _refused("context", "its context is not the one of this opening, ask and layout")
        one = _Round(opening=opening, function=entry.function, context=entry.context)
        self._runs[opening.run] = self._advanced(one)
        self._open[entry.context] = one
        self._rounds.append(one)

    def _advanced(self, one: _Round) -> _Run:
        """The run with this round as its last; the one before is over, whether or not it was finished."""
        run = self._runs.get(one.opening.run)
        if run is None:
            return _Run(one)
        before, now = run.last.opening, one.opening
        if (now.round, now.attempt) <= (before.round, before.attempt):
            told = (
                f"round {now.round}, attempt {now.attempt} comes after round {before.round}, attempt {before.attempt}"
            )
            raise _refused("replayed", f"{told} of the same run")
        if now.round == before.round and run.has_total:
            raise _refused("replayed", f"round {now.round} of this run has had its total")
        self._end(run.last)
        return _Run(one, releasers=run.releasers if now.round == before.round else set())

    def _end(self, one: _Round) -> None:
        if self._open.pop(one.context, None):
            one.forget()

    def _round_of(self, context: bytes) -> _Round:
        one = self._open.get(context)
        if one is None:
            raise _refused("context", "it is of no round that is open here")
        return one

    def _uploaded(self, entry: Uploaded) -> None:
        one = self._round_of(entry.context)
        self._check_member(entry.site, one.opening.roster)
        if one.survivors or entry.site in one.evidence:
            raise _refused("out_of_turn", "it comes twice, or after the survivors were named", self._name(entry.site))
        if entry.site in self._runs[one.opening.run].releasers:
            reason = "it has released shares for this round already, and answers another attempt at it"
            raise _refused("replayed", reason, self._name(entry.site))
        evidence = Evidence(
            sender=entry.site, vector_digest=entry.vector, shares_digest=entry.shares, signature=entry.signature
        )
        evidence.verify(self._known, entry.context)
        one.evidence[entry.site] = evidence

    def _check_member(self, site: int, members: tuple[int, ...]) -> None:
        if site not in members:
            raise _refused("unknown_peer", f"it is of site {site}, which is not in this round or this sum")

    def _name(self, site: int) -> str:
        return self._known.name_of(site)

    def _named(self, entry: Named) -> None:
        one, least = self._round_of(entry.context), self._known.terms.minimum_survivors
        if one.survivors:
            raise _refused("second_answer", "the survivors of this round were named before")
        if list(entry.sites) != sorted(one.evidence):
            raise _refused("survivors", "they are not those sites whose signatures stand here, in ascending order")
        if len(entry.sites) < least:
            raise _refused("too_few_survivors", f"{len(entry.sites)} are left, and a total needs {least}")
        if entry.digest != survivors_digest(entry.context, [one.evidence[index] for index in entry.sites]):
            raise _refused("survivors", "their digest is not the one of what they signed")
        one.survivors, one.digest = entry.sites, entry.digest

    def _agreed(self, entry: Agreed) -> None:
        one = self._round_of(entry.context)
        if not self._known.terms.is_strict or one.releasers or entry.site in one.signers:
            raise _refused("out_of_turn", "it is signed twice, or when nobody is asked to sign")
        self._check_member(entry.site, one.survivors)
        verify_consistency(self._known, entry.context, entry.site, one.digest, entry.signature)
        one.signers.add(entry.site)

    def _released(self, entry: Released) -> None:
        one, terms = self._round_of(entry.context), self._known.terms
        self._check_member(entry.site, one.survivors)
        if terms.is_strict and len(one.signers) < terms.threshold:
            told = f"shares were released when {len(one.signers)} sites had signed who is in the sum"
            raise _refused("agreement", f"{told}; at least {terms.threshold} must", self._name(entry.site))
        if entry.site in one.releasers:
            raise _refused("out_of_turn", "it released shares twice", self._name(entry.site))
        self._check_same_ask(entry.site, one)
        parts = (self._known.digest, entry.context, u16(entry.site), one.digest, entry.shares)
        identity, name = self._known.identity_of(entry.site), self._name(entry.site)
        verify_signature(identity, entry.signature, "unmask", *parts, peer=name)
        one.releasers.add(entry.site)
        answers = self._answers.setdefault(one.opening.broadcast_digest, {})
        answers[one.survivors] = answers.get(one.survivors, 0) | 1 << entry.site
        self._runs[one.opening.run].releasers.add(entry.site)

    def _check_same_ask(self, site: int, one: _Round) -> None:
        """Two totals of one ask over other sites give away, as their difference, what one site sent."""
        if self._known.terms.allows_repeats:
            return
        answers = self._answers.get(one.opening.broadcast_digest, {})
        if any(sites >> site & 1 for survivors, sites in answers.items() if survivors != one.survivors):
            raise _refused("same_ask", "it answers an ask again that it answered over other sites", self._name(site))

    def _summed(self, entry: Summed) -> None:
        one, threshold = self._round_of(entry.context), self._known.terms.threshold
        if len(one.releasers) < threshold:
            told = f"it has a total, and {len(one.releasers)} sites released their shares"
            raise _refused("too_few_releases", f"{told}; at least {threshold} must")
        one.outcome, one.commitment = Outcome.TOTAL, entry.commitment
        self._runs[one.opening.run].has_total = True
        self._end(one)

    def _failed(self, entry: Failed) -> None:
        one = self._round_of(entry.context)
        one.outcome, one.failure = Outcome.FAILED, entry.reason
        self._end(one)

    def _refused_line(self, entry: Refused) -> None:
        self._refused.append((entry.rule, entry.peer))

    def _closed(self, entry: Closed) -> None:
        manifest = self._known
        parts = (manifest.digest, self._chain)
        verify_signature(manifest.coordinator, entry.signature, "transcript", *parts, peer=COORDINATOR)
        self._is_closed = True


def _refused(rule: str, reason: str, peer: str = COORDINATOR) -> MessageRefusedError:
    return MessageRefusedError(rule, peer, reason)


def _check_place(index: int, due: int) -> None:
    if index != due:
        raise _refused("out_of_turn", f"the message of site {due} is next, and it is of site {index}")


_HANDLERS: Mapping[type[Entry], Callable[[Audit, Any], None]] = {
    Pinned: Audit._pinned_line,
    Advertised: Audit._advertised,
    Encapsulated: Audit._encapsulated,
    Opened: Audit._opened,
    Uploaded: Audit._uploaded,
    Named: Audit._named,
    Agreed: Audit._agreed,
    Released: Audit._released,
    Summed: Audit._summed,
    Failed: Audit._failed,
    Refused: Audit._refused_line,
    Closed: Audit._closed,
}
