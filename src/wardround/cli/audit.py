"""`wardround audit verify`: what a transcript of secure sums shows, in words for people who know no cryptography."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from wardround.analytics.result import json_text
from wardround.cli.terminal import show, show_json, talk
from wardround.engines.transcript_file import verify_file
from wardround.errors import TranscriptRefusedError
from wardround.privacy.secagg.account import Account, Outcome, RoundAccount

_FINGERPRINT_DIGITS = 64
_MOST_ROUNDS = 200
_MOST_NAMED = 12

RULES = {
    "malformed": "the line is not one that this program writes: it was altered, or the file is no transcript",
    "chain": "the line does not follow the one before it: something was altered, removed, added or swapped",
    "signature": "a signature does not hold: what stands here is not what that site or the coordinator signed",
    "unknown_peer": "the line is of a site that has no part in this round",
    "manifest": "the transcript is of other sites, keys or terms than it should be",
    "context": "the line belongs to another round, another ask or another set of sites",
    "replayed": "a round comes again, or after a later one, or has a second total",
    "roster": "the round asks unknown sites, or too few",
    "out_of_turn": "the line cannot come here: too early, too late or twice",
    "survivors": "the sites in the sum are not those that signed their contribution",
    "too_few_survivors": "fewer sites are in the sum than the sites have agreed on",
    "second_answer": "the sites in the sum were named twice",
    "agreement": "shares were released before enough sites had signed who is in the sum",
    "too_few_releases": "there is a total, and too few sites released the shares that it needs",
    "same_ask": "the same question was answered over other sites before, and the study does not allow that",
}
"""What each rule means that a transcript can break."""


def verify_transcript(path: Path, *, fingerprint: str | None, allows_unfinished: bool, as_json: bool) -> int:
    """Verify a transcript and print what it tells; returns the exit code.

    A transcript that is not closed has the exit code 1, too, unless `allows_unfinished`: lines may have been cut off.

    Raises:
        StoreError: the file cannot be read.
        typer.BadParameter: the fingerprint is none.
    """
    pinned = None if fingerprint is None else _fingerprint(fingerprint)
    try:
        account = verify_file(path, fingerprint=pinned)
    except TranscriptRefusedError as error:
        if as_json:
            told = {"is_verified": False, "line": error.line, "rule": error.rule, "reason": error.reason}
            show_json(json_text(told))
        talk(f"wardround: {path}: {error}")
        talk(f"wardround: that is, {RULES.get(error.rule, 'a rule of the protocol was broken')}")
        return 1
    if as_json:
        show_json(json_text(_document(account)))
    else:
        show(_text(account, path))
    if account.is_closed or allows_unfinished:
        return 0
    talk(f"wardround: {path}: not closed; --unfinished accepts a transcript that is still being written")
    return 1


def _fingerprint(text: str) -> bytes:
    digits = "".join(c for c in text if c not in " :-\t\n")
    try:
        found = bytes.fromhex(digits)
    except ValueError:
        found = b""
    if len(digits) != _FINGERPRINT_DIGITS or not found:
        told = f"it must have {_FINGERPRINT_DIGITS} digits of 0-9 and a-f; spaces, colons and dashes do not count"
        raise typer.BadParameter(told, param_hint="--fingerprint")
    return found


def _in_groups(fingerprint: bytes) -> str:
    digits = fingerprint.hex()
    return " ".join(digits[start : start + 4] for start in range(0, len(digits), 4))


def _counts(account: Account) -> list[tuple[str, int, int, int]]:
    """By site: its name, rounds in which it was asked, totals that it is in, sums that it is not in."""
    asked: Counter[int] = Counter()
    summed: Counter[int] = Counter()
    dropped: Counter[int] = Counter()
    for one in account.rounds:
        asked.update(one.roster)
        dropped.update(one.dropped)
        if one.outcome == Outcome.TOTAL:
            summed.update(one.survivors)
    roster = enumerate(account.manifest.roster)
    return [(site.name, asked[index], summed[index], dropped[index]) for index, site in roster]


def _text(account: Account, path: Path) -> str:
    return "\n".join(
        [
            f"{path.name}: verified{'' if account.is_closed else ' as far as it goes: it is NOT CLOSED'}",
            "",
            *_standing(account),
            "",
            *_terms(account),
            "",
            *_sites(account),
            "",
            *_rounds(account),
            *_refusals(account),
        ]
    )


def _standing(account: Account) -> Iterator[str]:
    yield f"{account.num_lines} lines. Each follows the one before it, and every signature holds."
    if account.is_closed:
        yield "The coordinator has signed its end: nobody else has cut anything off. What it never wrote cannot be"
        yield "seen: each site can compare the rounds below with those that it answered."
    else:
        yield "NOT CLOSED: the coordinator has not signed its end, and lines may be missing there. It is still being"
        yield "written, or its writing was stopped, or somebody has cut its end off: ask the coordinator for all of it."
    if account.num_bytes_cut:
        yield f"Its last line is not whole ({account.num_bytes_cut} bytes) and is not counted."
    yield ""
    yield f"Fingerprint of the sites' agreement: {_in_groups(account.manifest.digest)}"
    if account.is_pinned:
        yield "It is the one that you gave."
    else:
        yield "Compare it with the one that the sites have agreed on. Until then you know that the transcript agrees"
        yield "with itself, and not whose it is: whoever wrote the file could have made up all keys in it."


def _terms(account: Account) -> Iterator[str]:
    terms = account.manifest.terms
    over = f"at least {terms.minimum_survivors} of" if terms.minimum_survivors < terms.num_sites else "all"
    yield f"A total is over {over} {terms.num_sites} sites."
    yield f"To open it, {terms.threshold} sites must release their shares."
    if terms.is_strict:
        yield f"Before that, {terms.threshold} sites must sign the same list of sites in the sum."
    else:
        yield "Sites do not sign to each other who is in the sum (two_leg)."
    if terms.allows_repeats:
        yield "The same may be asked again over other sites: two such totals give away what one site contributed."


def _sites(account: Account) -> Iterator[str]:
    counts = _counts(account)
    width = max(len("site"), *(len(name) for name, *_ in counts))
    yield f"{'site':<{width}}  asked  in totals  left out"
    for name, asked, summed, dropped in counts:
        yield f"{name:<{width}}  {asked:5}  {summed:9}  {dropped:8}"


def _rounds(account: Account) -> Iterator[str]:
    ended = {outcome: account.num_of(outcome) for outcome in Outcome}
    yield (
        f"Runs: {account.num_runs}. Rounds: {len(account.rounds)}, of these with a total {ended[Outcome.TOTAL]}, "
        f"failed {ended[Outcome.FAILED]}, not finished {ended[Outcome.UNFINISHED]}."
    )
    numbers: dict[bytes, int] = {}
    for one in account.rounds[:_MOST_ROUNDS]:
        number = numbers.setdefault(one.run, len(numbers) + 1)
        attempt = f", attempt {one.attempt}" if one.attempt > 1 else ""
        yield f"  run {number}, round {one.round}{attempt}, {one.function or 'no name'}: {_ending(account, one)}"
    if len(account.rounds) > _MOST_ROUNDS:
        yield f"  and {len(account.rounds) - _MOST_ROUNDS} more; --json tells all"


def _ending(account: Account, one: RoundAccount) -> str:
    if one.outcome == Outcome.FAILED:
        return f"failed: {one.failure}"
    asked = len(one.roster)
    if one.outcome == Outcome.UNFINISHED:
        return f"not finished; {asked} sites were asked"
    names = [account.manifest.name_of(index) for index in one.dropped]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    without = f", without {', '.join(names[:_MOST_NAMED])}{more}" if names else ""
    return f"total over {len(one.survivors)} of {asked} sites{without}"


def _refusals(account: Account) -> Iterator[str]:
    if account.refused:
        yield f"Refused messages: {len(account.refused)}."
    for (rule, peer), count in sorted(Counter(account.refused).items())[:_MOST_ROUNDS]:
        yield f"  {count} of {peer}: {rule}"


def _document(account: Account) -> dict[str, Any]:
    terms, name_of = account.manifest.terms, account.manifest.name_of
    keys = [site.identity.hex() for site in account.manifest.roster]
    return {
        "is_verified": True,
        "is_closed": account.is_closed,
        "is_pinned": account.is_pinned,
        "fingerprint": account.manifest.digest.hex(),
        "study_digest": account.manifest.study_digest.hex(),
        "num_lines": account.num_lines,
        "num_bytes_cut": account.num_bytes_cut,
        "last_line": account.chain.hex(),
        "terms": {
            "num_sites": terms.num_sites,
            "threshold": terms.threshold,
            "minimum_survivors": terms.minimum_survivors,
            "colluding_sites": terms.colluding_sites,
            "is_strict": terms.is_strict,
            "allows_repeats": terms.allows_repeats,
        },
        "sites": [
            {"name": name, "key": key, "num_asked": asked, "num_totals": summed, "num_left_out": dropped}
            for key, (name, asked, summed, dropped) in zip(keys, _counts(account), strict=True)
        ],
        "num_runs": account.num_runs,
        "num_rounds": len(account.rounds),
        "num_totals": account.num_of(Outcome.TOTAL),
        "num_failed": account.num_of(Outcome.FAILED),
        "num_unfinished": account.num_of(Outcome.UNFINISHED),
        "rounds": [
            {
                "run": one.run.hex(),
                "round": one.round,
                "attempt": one.attempt,
                "function": one.function,
                "outcome": one.outcome.value,
                "asked": [name_of(index) for index in one.roster],
                "survivors": [name_of(index) for index in one.survivors],
                "left_out": [name_of(index) for index in one.dropped],
                "num_signatures": one.num_signatures,
                "num_releases": one.num_releases,
                "failure": one.failure,
                "commitment": one.commitment.hex(),
            }
            for one in account.rounds
        ],
        "refused": [{"rule": rule, "peer": peer} for rule, peer in account.refused],
    }
