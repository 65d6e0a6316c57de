"""A transcript of secure sums: what stands in it, what never does, and that no byte of it can change unseen."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import itertools
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.privacy.secagg.transcript_samples import NAMES, chained, closed, entries_of, sample
from wardround.errors import MessageRefusedError, TranscriptRefusedError
from wardround.privacy.secagg import coordinator, site
from wardround.privacy.secagg.account import Outcome
from wardround.privacy.secagg.audit import Audit, verify
from wardround.privacy.secagg.context import Opening
from wardround.privacy.secagg.keys import SigningKey, derive
from wardround.privacy.secagg.manifest import encapsulation_bytes, keys_digest
from wardround.privacy.secagg.messages import Evidence, survivors_digest
from wardround.privacy.secagg.recording import round_entries, total_commitment
from wardround.privacy.secagg.roster import MAX_MANIFEST_BYTES, MAX_SITES
from wardround.privacy.secagg.transcript import (
    MAX_LINE_BYTES,
    MAX_TEXT_CHARACTERS,
    START,
    Advertised,
    Agreed,
    Closed,
    Encapsulated,
    Failed,
    Named,
    Opened,
    Pinned,
    Refused,
    Released,
    Summed,
    Uploaded,
    from_line,
    in_short,
    to_line,
)
from wardround.privacy.secagg.wire import Kind, digest, u16

MODES = pytest.mark.parametrize("is_strict", [True, False], ids=["strict", "two_leg"])


def refused(lines, rule=None, *, line=None, **more):
    with pytest.raises(TranscriptRefusedError) as caught:
        verify(lines, **more)
    assert rule is None or caught.value.rule == rule, str(caught.value)
    assert line is None or caught.value.line == line, str(caught.value)
    assert f"line {caught.value.line} " in str(caught.value)
    return caught.value


def places(entries, kind, context=None):
    """Where entries of this kind stand."""
    return [
        place
        for place, entry in enumerate(entries)
        if isinstance(entry, kind) and context in (None, getattr(entry, "context", None))
    ]


def without(entries, gone):
    return [entry for place, entry in enumerate(entries) if place not in gone]


def body(one):
    """The entries before the closing line."""
    assert isinstance(one.entries[-1], Closed)
    return list(one.entries[:-1])


def contexts(entries):
    return [entry.context for entry in entries if isinstance(entry, Opened)]


# What a transcript tells


@MODES
def test_what_a_transcript_tells(is_strict):
    one = sample(is_strict)
    account = verify(one.lines)
    first, second, third, fourth = account.rounds
    assert account.is_closed
    assert not account.is_pinned
    assert account.num_bytes_cut == 0
    assert account.manifest == one.federation.manifest
    assert (account.num_lines, account.num_bytes) == (len(one.lines), len(b"".join(one.lines)))
    assert [(r.run, r.round, r.attempt) for r in account.rounds] == [
        (one.runs[0], 1, 1),
        (one.runs[0], 2, 1),
        (one.runs[1], 1, 1),
        (one.runs[1], 2, 1),
    ]
    assert {r.roster for r in account.rounds} == {(0, 1, 2, 3)}
    assert {r.function for r in account.rounds} == {"sample.moments@1"}
    assert first.survivors == fourth.survivors == (0, 1, 2, 3)
    assert first.dropped == ()
    assert second.survivors == (0, 1, 3)
    assert second.dropped == (2,)
    assert third.survivors == ()
    assert third.dropped == ()
    assert "at least 3 must" in third.failure
    assert [r.outcome for r in account.rounds] == [Outcome.TOTAL, Outcome.TOTAL, Outcome.FAILED, Outcome.TOTAL]
    assert [r.num_signatures for r in account.rounds] == ([4, 3, 0, 4] if is_strict else [0] * 4)
    assert [r.num_releases for r in account.rounds] == [4, 3, 0, 4]
    assert account.num_runs == 2
    assert account.num_of(Outcome.TOTAL) == 3
    assert account.refused == (("share", "West"),)


def test_the_pinned_manifest_is_the_one():
    one, other = sample(), sample(seed=1)
    manifest = one.federation.manifest
    assert verify(one.lines, manifest=manifest).is_pinned
    assert verify(one.lines, fingerprint=manifest.digest).is_pinned
    refused(one.lines, "manifest", line=1, manifest=other.federation.manifest)
    refused(one.lines, "manifest", line=1, fingerprint=bytes(32))


@MODES
def test_a_line_has_one_form(is_strict):
    one = sample(is_strict)
    assert {type(entry) for entry in one.entries} >= {Pinned, Opened, Named, Released, Summed, Failed, Refused, Closed}
    assert chained(entries_of(one.lines)) == one.lines
    assert all(line.isascii() and line.count(b"\n") == 1 for line in one.lines)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('","', '", "'),
        lambda text: text.replace('{"kind"', '{ "kind"'),
        lambda text: text.replace('"site":0', '"site":0.0'),
        lambda text: text.replace('"site":0', '"site":false'),
        lambda text: text.replace('"site":0', '"site":-0'),
        lambda text: text.replace('"site":0', '"site":"0"'),
        lambda text: text.replace('"site":0,', ""),
        lambda text: text.replace('"site":0,', '"site":0,"site":0,'),
        lambda text: text.replace('"site":0,', '"site":0,"more":0,'),
        lambda text: text.replace('"kind":"masked_input",', "")[:-1] + ',"kind":"masked_input"}',
        lambda text: text.replace("masked_input", "masked_\\u0069nput"),
        lambda text: text.upper(),
        lambda text: text + " ",
        lambda text: text + "\r",
        lambda text: "\ufeff" + text,
        lambda text: "[" + text + "]",
        lambda text: "[" * 100_000,
        lambda text: '{"kind":' + "[" * 100_000,
        lambda text: text.replace('"site":0', '"site":' + "9" * 10_000),
        lambda text: text.replace('"site":0', '"site":' + "[" * 900 + "]" * 900),
        lambda text: text.replace('"site":0', '"site":NaN'),
        lambda text: "x" * MAX_LINE_BYTES,
        lambda text: "",
    ],
)
def test_another_form_of_a_line_is_refused(change):
    place = places(sample().entries, Uploaded)[0]
    line = sample().lines[place]
    changed = change(line[:-1].decode()).encode() + b"\n"
    assert changed != line
    refused([*sample().lines[:place], changed, *sample().lines[place + 1 :]], "malformed", line=place + 1)


def test_a_field_of_another_form_is_named():
    line = sample().lines[-1].replace(b'"signature":"', b'"signature":"00')
    assert "signature" in refused([*sample().lines[:-1], line], "malformed").reason


def test_base64_has_one_form():
    for place, entry in enumerate(sample().entries):
        if isinstance(entry, Advertised | Pinned | Opened):
            text = base64.b64encode(entry.message)
            if text.endswith(b"="):
                other = text.rstrip(b"=")[:-1] + bytes([text.rstrip(b"=")[-1] + 1]) + b"=" * text.count(b"=")
                lines = sample().lines
                lines[place] = lines[place].replace(text, other)
                assert lines[place] != sample().lines[place]
                refused(lines, line=place + 1)


def test_text_is_cut_and_printable():
    assert in_short("a" * MAX_TEXT_CHARACTERS) == "a" * MAX_TEXT_CHARACTERS
    assert len(in_short("a" * 9999)) == MAX_TEXT_CHARACTERS
    assert in_short("a\nb\x1b[2J\ud800") == "a?b?[2J?"
    line, chain = to_line(Refused(rule="r" * MAX_TEXT_CHARACTERS, peer=in_short("Süd·Zürich\U0001f3e5")), START)
    assert from_line(line, START, 1)[1] == chain


@pytest.mark.parametrize("text", ["a" * (MAX_TEXT_CHARACTERS + 1), "a\nb", "\x1b[2J", "\ud800", "\u202e"])
def test_text_that_is_too_long_or_not_printable_is_refused(text):
    line, _ = to_line(Refused(rule="share", peer=text), START)
    with pytest.raises(TranscriptRefusedError, match="peer is not what it must be"):
        from_line(line, START, 1)


def test_a_line_that_is_too_long_is_refused_unread():
    line, _ = to_line(Advertised(message=bytes(MAX_LINE_BYTES)), START)
    with pytest.raises(TranscriptRefusedError, match="longer than"):
        from_line(line, START, 1)


def test_what_comes_twice_is_recorded_once_and_a_failure_names_its_peer():
    federation = sample().federation
    message = next(e.message for e in federation.effects if isinstance(e, site.Send) and e.message[5] == Kind.UNMASK)
    event = coordinator.UnmaskArrived(0, message)
    opening = Opening(run=bytes(16), round=1, attempt=1, roster=(0, 1, 2, 3), broadcast_digest=bytes(32))
    state, _ = coordinator.open_round(
        federation.manifest, federation.signing_seed, opening, keys=bytes(32), layout=bytes(32), num_words=1
    )
    assert [type(entry) for entry in round_entries(state, event, state, ())] == [Released]
    answered = dataclasses.replace(state, releases={0: b"shares"})
    assert round_entries(answered, event, answered, ()) == ()
    (failed,) = round_entries(answered, event, answered, (coordinator.Fail("why", "seed", "West"),))
    assert failed == Failed(context=state.context, rule="seed", peer="West", reason="why")
    (failed,) = round_entries(answered, event, answered, (coordinator.Fail("why"),))
    assert failed == Failed(context=state.context, rule="", peer="", reason="why")


# What never stands in it


def decoded(lines):
    """All that a transcript holds, decoded, and its text."""
    parts = []
    for line in lines:
        for value in json.loads(line).values():
            if isinstance(value, str):
                parts.append(value.encode())
                for decode in (bytes.fromhex, lambda text: base64.b64decode(text, validate=True)):
                    try:
                        parts.append(decode(value))
                    except ValueError:
                        continue
    return b"|".join(parts)


def pieces(secret, size=12):
    return {secret[start : start + size] for start in range(0, len(secret) - size + 1, 4)} or {secret}


@MODES
def test_no_secret_value_or_share_is_in_a_transcript(is_strict):
    one = sample(is_strict)
    federation, content = one.federation, decoded(one.lines)
    secrets = [given for given in one.entropy.given if given not in one.runs]
    secrets += [key for state in federation.states for key in state.pair_keys]
    for effect in federation.effects:
        if isinstance(effect, bytes):  # a vector, before and after it was masked
            secrets.append(effect)
        elif isinstance(effect, site.Upload):  # commitments and sealed shares; context and signature are in it
            secrets.append(effect.message[64:-64])
        elif isinstance(effect, site.Send) and effect.message[5] == Kind.UNMASK:  # the shares of an unmask
            secrets.append(effect.message[6 + 32 + 2 + 32 : -64])
    secrets += [total[: len(total)] for total in federation.totals]
    assert len(secrets) > 100
    for secret in secrets:
        assert [piece for piece in pieces(secret) if len(piece) >= 8 and piece in content] == []
    text = b"".join(one.lines)
    for value in federation.values:
        assert repr(float(value)).encode() not in text
        assert value.hex().encode() not in text


def test_the_search_for_secrets_finds_one():
    one = sample()
    for secret in (one.entropy.given[0], one.federation.states[0].pair_keys[1]):
        for leak in (secret.hex(), base64.b64encode(b"x" + secret).decode()):
            line = json.dumps({"leak": leak}).encode()
            assert any(piece in decoded([*one.lines, line]) for piece in pieces(secret))


def test_small_total_cannot_be_guessed():
    one = sample()
    commitments = [entry for entry in one.entries if isinstance(entry, Summed)]
    seed = one.federation.signing_seed
    for entry, total in zip(commitments, one.federation.totals, strict=True):
        assert entry.commitment == total_commitment(seed, entry.context, total)
        blind = derive(seed, "total_blind", entry.context)  # shown with the total, it opens this one and no other
        assert entry.commitment == digest("total", entry.context, blind, total)
        assert entry.commitment != total_commitment(bytes(32), entry.context, total)
        assert entry.commitment != total_commitment(seed, entry.context, total + b" ")
        assert entry.commitment != total_commitment(seed, bytes(32), total)


# Every byte


def is_found(audit, line):
    """Whether an audit that waits for a line refuses this one, or does not count it."""
    try:
        audit.take(line)
    except TranscriptRefusedError:
        return True
    return False


@pytest.mark.parametrize("flip", [0x01, 0x20, None], ids=["lowest bit", "case", "doubled and removed"])
def test_any_altered_byte_is_found(flip):
    """Every byte of every line but its newline: altered, doubled, removed. `refused_line_changes_nothing` besides."""
    lines, audit, missed = sample().lines, Audit(None), []
    for number, line in enumerate(lines):
        for place in range(len(line) - 1):
            if flip is None:
                altered = [line[:place] + line[place:][:1] + line[place:], line[:place] + line[place + 1 :]]
            else:
                altered = [line[:place] + bytes([line[place] ^ flip]) + line[place + 1 :]]
            missed += [(number, place) for one in altered if not is_found(audit, one)]
        audit.take(line)
    assert missed == []
    assert audit.account() == verify(lines)


def test_any_altered_newline_is_found():
    lines = sample().lines
    for number, line in enumerate(lines):
        before, after = b"".join(lines[:number]), b"".join(lines[number + 1 :])
        for end in (b"", b"\n\n", b" \n", b"\x0b", b"\0", b"\n "):
            try:
                account = verify(io.BytesIO(before + line[:-1] + end + after))
            except TranscriptRefusedError:
                continue
            assert (number, account.is_closed) == (len(lines) - 1, False), end


def test_refused_line_changes_nothing():
    one, other = sample(), sample(seed=1).lines
    audit = Audit(one.federation.manifest.digest)
    for line, stranger in zip(one.lines, other, strict=False):
        for bad in (b"{}\n", stranger, line.replace(b'"chain":"', b'"chain":"0'), b"x" * (MAX_LINE_BYTES + 1)):
            assert is_found(audit, bad)
        audit.take(line)
    assert audit.account() == verify(one.lines, manifest=one.federation.manifest)


def test_lines_removed_swapped_repeated_or_added_are_found():
    lines = sample().lines
    for place, line in enumerate(lines):
        if place < len(lines) - 1:
            refused([*lines[:place], *lines[place + 1 :]])
            refused([*lines[:place], lines[place + 1], line, *lines[place + 2 :]])
        refused([*lines[: place + 1], *lines[place:]])
        for added in (lines[-1], lines[1], b"\n", b"{}\n"):
            refused([*lines[: place + 1], added, *lines[place + 1 :]])


def test_a_transcript_that_ends_early_is_not_closed():
    lines = sample().lines
    refused([], "malformed", line=1)
    refused([lines[0][:-1]], "malformed", line=1)
    for num_whole in range(1, len(lines)):
        account = verify(lines[:num_whole])
        assert (account.is_closed, account.num_lines, account.num_bytes_cut) == (False, num_whole, 0)
        for cut in {1, len(lines[num_whole]) // 2, len(lines[num_whole]) - 1}:
            account = verify([*lines[:num_whole], lines[num_whole][:cut]])
            assert (account.is_closed, account.num_lines, account.num_bytes_cut) == (False, num_whole, cut)
            assert account.chain == verify(lines[:num_whole]).chain
    assert verify(lines[: places(sample().entries, Summed)[-1]]).rounds[-1].outcome == Outcome.UNFINISHED


# Forgers


@MODES
def test_no_site_can_be_left_out_of_a_total(is_strict):
    """Whoever writes the file drops a survivor and hashes everything again; even with the coordinator's key."""
    one = sample(is_strict)
    entries = body(one)
    context = contexts(entries)[3]
    evidence = [entry for entry in entries if isinstance(entry, Uploaded) and entry.context == context]
    for left_out in range(4):
        forged = [
            entry
            for entry in entries
            if not (getattr(entry, "context", None) == context and getattr(entry, "site", None) == left_out)
        ]
        kept = [e for e in evidence if e.site != left_out]
        proofs = [
            Evidence(sender=e.site, vector_digest=e.vector, shares_digest=e.shares, signature=e.signature) for e in kept
        ]
        (place,) = places(forged, Named, context)
        sites = tuple(e.site for e in kept)
        forged[place] = dataclasses.replace(forged[place], sites=sites, digest=survivors_digest(context, proofs))
        for key in (one.coordinator, SigningKey.from_seed(bytes(32))):
            refused(closed(forged, one, key), "signature", line=place + 2)


def test_a_forger_without_the_coordinators_key_cannot_close():
    one = sample()
    stranger = SigningKey.from_seed(bytes(range(32)))
    refused(closed(body(one), one, stranger), "signature", line=len(one.lines))
    forged = body(one)
    (place,) = places(forged, Failed)
    forged[place] = dataclasses.replace(forged[place], reason="West was slow")
    refused(closed(forged, one, stranger), "signature", line=len(one.lines))
    refused(chained([*forged, one.entries[-1]]), "signature", line=len(one.lines))


def test_another_studys_lines_do_not_fit():
    one, other = sample(), sample(seed=1)
    start, end = places(one.entries, Opened)[1], places(one.entries, Summed)[1]
    refused([*one.lines[:start], *other.lines[start : end + 1], *one.lines[end + 1 :]], "chain")
    spliced = [*body(one)[:start], *other.entries[start : end + 1], *body(one)[end + 1 :]]
    refused(one.closed(spliced), "signature", line=start + 1)
    refused(one.closed([*body(one)[:1], *body(other)[1:]]), "signature", line=2)
    refused(one.closed([*body(one), other.entries[-1]]), "signature", line=len(one.lines))


def test_a_set_up_out_of_order_is_refused():
    one = sample()
    entries = body(one)
    refused(one.closed([entries[0], entries[2], entries[1], *entries[3:]]), "out_of_turn", line=2)
    refused(one.closed([*entries[:5], entries[6], entries[5], *entries[7:]]), "out_of_turn", line=6)
    refused(one.closed([*entries[:4], *entries[5:]]), "out_of_turn", line=5)
    refused(one.closed([*entries[:8], *entries[9:]]), "out_of_turn", line=9)
    refused(one.closed(entries[1:]), "out_of_turn", line=1)
    refused(one.closed([entries[0], *entries]), "out_of_turn", line=2)
    refused(one.closed([dataclasses.replace(entries[0], version=2), *entries[1:]]), "malformed", line=1)
    assert [type(entry) for entry in entries[:9]] == [Pinned, *[Advertised] * 4, *[Encapsulated] * 4]


def test_answers_to_other_keys_are_refused():
    one = sample()
    entries, manifest = body(one), one.federation.manifest
    message = entries[5].message
    altered = message[:8] + bytes(32) + message[40:-64]
    forged = altered + one.signing(0).sign("encapsulate", manifest.digest, altered)
    entries[5] = dataclasses.replace(entries[5], message=forged)
    refused(one.closed(entries), "manifest", line=6)


def opening_of(one, *, run, number=1, attempt=1, roster=(0, 1, 2, 3)):
    """An opening with all signatures and digests that it needs."""
    opening = Opening(run=run, round=number, attempt=attempt, roster=roster, broadcast_digest=bytes(32))
    manifest = one.federation.manifest
    keys = keys_digest(one.federation.setup_messages[0])
    return Opened(
        message=opening.to_bytes(manifest, one.coordinator),
        function="f@1",
        broadcast=bytes(32),
        layout=bytes(32),
        context=opening.context(manifest, keys, bytes(32)),
    )


def upload_of(one, context, index):
    parts = (one.federation.manifest.digest, context, u16(index), bytes(32), bytes(32))
    signature = one.signing(index).sign("masked_input", *parts)
    return Uploaded(context=context, site=index, vector=bytes(32), shares=bytes(32), signature=signature)


def test_rounds_go_forward():
    one = sample()
    first, second = one.runs
    entries = body(one)
    for run, round_, attempt in ((first, 2, 1), (first, 1, 9), (second, 1, 1), (second, 2, 1)):
        late = opening_of(one, run=run, number=round_, attempt=attempt)
        refused(one.closed([*entries, late]), "replayed", line=len(entries) + 1)
    again = refused(one.closed([*entries, opening_of(one, run=first, number=2, attempt=2)]), "replayed")
    assert "has had its total" in again.reason
    for number, attempt in ((5, 2), (5, 1), (4, 9)):
        ahead = opening_of(one, run=first, number=5, attempt=2)
        late = opening_of(one, run=first, number=number, attempt=attempt)
        refused(one.closed([*entries, ahead, late]), "replayed", line=len(entries) + 2)
    account = verify(one.closed([*entries, opening_of(one, run=first, number=3), opening_of(one, run=bytes(16))]))
    assert [one.outcome for one in account.rounds[-2:]] == [Outcome.UNFINISHED] * 2


def test_a_failed_round_may_have_another_attempt_and_an_open_one_is_over_then():
    one = sample()
    entries = body(one)[:9]
    first = opening_of(one, run=one.runs[0])
    second = opening_of(one, run=one.runs[0], attempt=2)
    account = verify(one.closed([*entries, first, second, upload_of(one, second.context, 0)]))
    assert [(r.attempt, r.outcome) for r in account.rounds] == [(1, Outcome.UNFINISHED), (2, Outcome.UNFINISHED)]
    refused(one.closed([*entries, first, second, upload_of(one, first.context, 0)]), "context", line=12)
    failed = Failed(context=first.context, rule="", peer="", reason="too few")
    assert verify(one.closed([*entries, first, failed, second])).rounds[0].failure == "too few"
    refused(one.closed([*entries, first, failed, failed]), "context", line=12)


def test_who_released_shares_answers_no_other_attempt():
    one = sample()
    entries = body(one)
    start = places(entries, Opened)[0]
    releases = places(entries, Released)[:2]
    cut = without(entries[: releases[-1] + 1], [])
    context = contexts(entries)[0]
    failed = Failed(context=context, rule="seed", peer="West", reason="what it shared is no seed")
    again = opening_of(one, run=one.runs[0], attempt=2)
    told = [entries[place].site for place in releases]
    assert start < releases[0]
    assert told == [0, 1]
    refused(one.closed([*cut, failed, again, upload_of(one, again.context, 1)]), "replayed", line=len(cut) + 3)
    verify(one.closed([*cut, failed, again, upload_of(one, again.context, 2)]))
    third = opening_of(one, run=one.runs[0], attempt=3)
    refused(one.closed([*cut, failed, again, third, upload_of(one, third.context, 0)]), "replayed")
    other = opening_of(one, run=one.runs[0], number=2)
    verify(one.closed([*cut, failed, again, other, upload_of(one, other.context, 0)]))


def test_a_rounds_roster_and_context_are_checked():
    one = sample()
    entries = body(one)[:9]
    refused(one.closed([*entries, opening_of(one, run=bytes(16), roster=(0, 1))]), "roster", line=10)
    refused(one.closed([*entries, opening_of(one, run=bytes(16), roster=(0, 1, 4))]), "roster", line=10)
    good = opening_of(one, run=bytes(16), roster=(0, 1, 3))
    refused(one.closed([*entries, dataclasses.replace(good, layout=bytes([1] * 32))]), "context", line=10)
    refused(one.closed([*entries, dataclasses.replace(good, context=bytes(32))]), "context", line=10)
    refused(one.closed([*entries, dataclasses.replace(good, broadcast=bytes([1] * 32))]), "signature", line=10)
    refused(one.closed([*entries, good, upload_of(one, good.context, 2)]), "unknown_peer", line=11)
    nobody = dataclasses.replace(upload_of(one, good.context, 0), site=1000)
    refused(one.closed([*entries, good, nobody]), "unknown_peer", line=11)


@MODES
def test_survivors_are_those_who_signed(is_strict):
    one = sample(is_strict)
    entries = body(one)
    context = contexts(entries)[0]
    (named,) = places(entries, Named, context)
    uploads = places(entries, Uploaded, context)

    def forged(**change):
        return one.closed([*entries[:named], dataclasses.replace(entries[named], **change), *entries[named + 1 :]])

    refused(forged(sites=(0, 1, 2)), "survivors", line=named + 1)
    refused(forged(sites=(1, 0, 2, 3)), "survivors", line=named + 1)
    refused(forged(sites=(0, 1, 2, 3, 3)), "survivors", line=named + 1)
    refused(forged(sites=()), "survivors", line=named + 1)
    refused(forged(digest=bytes(32)), "survivors", line=named + 1)
    few = [*without(entries[:named], uploads[:2]), dataclasses.replace(entries[named], sites=(2, 3))]
    refused(one.closed(few), "too_few_survivors")
    refused(one.closed([*entries[: named + 1], *entries[named:]]), "second_answer", line=named + 2)
    refused(one.closed([*entries[: named + 1], *entries[uploads[0] :]]), "out_of_turn", line=named + 2)
    refused(one.closed([*entries[: uploads[0] + 1], *entries[uploads[0] :]]), "out_of_turn", line=uploads[0] + 2)


def test_who_uploads_late_is_not_among_the_survivors():
    one = sample()
    entries = body(one)
    (named,) = places(entries, Named, contexts(entries)[1])  # of the round in which the third site dropped out
    late = upload_of(one, contexts(entries)[1], 2)
    refused(one.closed([*entries[: named + 1], late, *entries[named + 1 :]]), "out_of_turn", line=named + 2)


def test_shares_are_released_after_enough_signatures():
    one = sample()
    entries = body(one)
    context = contexts(entries)[0]
    signatures, releases = places(entries, Agreed, context), places(entries, Released, context)
    assert len(signatures) == 4
    verify(one.closed(without(entries, signatures[:1])))
    refused(one.closed(without(entries, signatures[:2])), "agreement", line=releases[0] - 1)
    late = [*without(entries[: releases[0] + 1], signatures[:1]), entries[signatures[0]], *entries[releases[1] :]]
    refused(one.closed(late), "out_of_turn", line=releases[0] + 1)
    refused(one.closed([*entries[: signatures[0] + 1], *entries[signatures[0] :]]), "out_of_turn")
    other = dataclasses.replace(entries[signatures[0]], context=contexts(entries)[1])
    refused(one.closed([*entries[: signatures[0]], other, *entries[signatures[0] :]]), "context")


def test_a_survivor_alone_signs_and_releases():
    one = sample()
    entries = body(one)
    context = contexts(entries)[1]  # in which the third site dropped out
    manifest = one.federation.manifest
    (named,) = places(entries, Named, context)
    told = entries[named].digest
    signature = one.signing(2).sign("consistency", manifest.digest, context, told)
    stranger = Agreed(context=context, site=2, signature=signature)
    refused(one.closed([*entries[: named + 1], stranger, *entries[named + 1 :]]), "unknown_peer", line=named + 2)
    signature = one.signing(2).sign("unmask", manifest.digest, context, u16(2), told, bytes(32))
    stranger = Released(context=context, site=2, shares=bytes(32), signature=signature)
    release = places(entries, Released, context)[0]
    refused(one.closed([*entries[:release], stranger, *entries[release:]]), "unknown_peer", line=release + 1)


def test_nobody_signs_where_nobody_is_asked_to():
    one = sample(is_strict=False)
    entries = body(one)
    context = contexts(entries)[0]
    (named,) = places(entries, Named, context)
    signature = one.signing(0).sign("consistency", one.federation.manifest.digest, context, entries[named].digest)
    signed = Agreed(context=context, site=0, signature=signature)
    refused(one.closed([*entries[: named + 1], signed, *entries[named + 1 :]]), "out_of_turn", line=named + 2)


def round_of(one, opening, survivors):
    """A whole round over these sites, with all signatures that it needs."""
    manifest, context = one.federation.manifest, opening.context
    uploads = [upload_of(one, context, index) for index in survivors]
    proofs = [
        Evidence(sender=e.site, vector_digest=e.vector, shares_digest=e.shares, signature=e.signature) for e in uploads
    ]
    told = survivors_digest(context, proofs)
    signatures = [one.signing(index).sign("consistency", manifest.digest, context, told) for index in survivors]
    releases = [
        one.signing(index).sign("unmask", manifest.digest, context, u16(index), told, bytes(32)) for index in survivors
    ]
    return [
        opening,
        *uploads,
        Named(context=context, sites=survivors, digest=told),
        *(Agreed(context=context, site=index, signature=s) for index, s in zip(survivors, signatures, strict=True)),
        *(
            Released(context=context, site=index, shares=bytes(32), signature=s)
            for index, s in zip(survivors, releases, strict=True)
        ),
        Summed(context=context, commitment=bytes(32)),
    ]


def test_one_ask_is_not_answered_over_other_sites():
    one = sample()
    entries = [*body(one)[:9], *round_of(one, opening_of(one, run=bytes(16)), (0, 1, 2, 3))]
    same = round_of(one, opening_of(one, run=bytes(16), number=2), (0, 1, 2, 3))
    verify(one.closed([*entries, *same]))
    other = round_of(one, opening_of(one, run=bytes(16), number=2), (0, 1, 3))
    refused(one.closed([*entries, *other]), "same_ask", line=len(entries) + 9)
    fewer = [*body(one)[:9], *round_of(one, opening_of(one, run=bytes(16)), (0, 1, 2))]
    verify(one.closed(fewer))
    as_many = round_of(one, opening_of(one, run=bytes(16), number=2), (0, 1, 3))
    refused(one.closed([*fewer, *as_many]), "same_ask", line=len(fewer) + 9)


def test_one_ask_is_answered_over_other_sites_where_the_study_allows_it():
    one = sample(allows_repeats=True)
    entries = [*body(one)[:9], *round_of(one, opening_of(one, run=bytes(16)), (0, 1, 2, 3))]
    other = round_of(one, opening_of(one, run=bytes(16), number=2), (0, 1, 3))
    assert [r.dropped for r in verify(one.closed([*entries, *other])).rounds] == [(), (2,)]


@MODES
def test_a_total_needs_enough_releases_and_comes_once(is_strict):
    one = sample(is_strict)
    entries = body(one)
    context = contexts(entries)[0]
    releases, (total,) = places(entries, Released, context), places(entries, Summed, context)
    verify(one.closed(without(entries, releases[:1])))
    refused(one.closed(without(entries, releases[:2])), "too_few_releases", line=total - 1)
    refused(one.closed([*entries[: total + 1], *entries[total:]]), "context", line=total + 2)
    refused(one.closed([*entries[: releases[0] + 1], *entries[releases[0] :]]), "out_of_turn")
    forged = dataclasses.replace(entries[releases[0]], shares=bytes(32))
    refused(one.closed([*entries[: releases[0]], forged, *entries[releases[0] + 1 :]]), "signature")


def test_runs_may_take_turns():
    """Rounds of two runs may be open at once: each line says which round it is of."""
    one = sample()
    entries = body(one)
    starts = [*places(entries, Opened), len(entries)]
    rounds = [entries[start:end] for start, end in itertools.pairwise(starts)]
    mixed = [entry for pair in zip(rounds[0], rounds[3], strict=False) for entry in pair]
    mixed += [*rounds[0][len(rounds[3]) :], *rounds[3][len(rounds[0]) :]]
    account = verify(one.closed([*entries[: starts[0]], *mixed]))
    assert [r.outcome for r in account.rounds] == [Outcome.TOTAL] * 2


# Bytes of all kinds

LINES = sample().lines
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary().map(bytes.hex),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)
FIELDS = sorted({name for line in LINES for name in json.loads(line)})


@given(st.lists(st.binary(max_size=80) | st.binary(max_size=80).map(lambda line: line + b"\n"), max_size=4))
def test_random_bytes_are_refused_in_words(lines):
    try:
        account = verify([*LINES[:12], *lines])
    except TranscriptRefusedError:
        return
    assert account.num_lines == 12
    assert account.num_bytes_cut == sum(map(len, lines))


@given(st.integers(0, len(LINES) - 1), st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1, max_size=3))
def test_random_fields_are_refused_in_words(place, change):
    content = json.loads(LINES[place]) | change
    line = json.dumps(content, separators=(",", ":")).encode() + b"\n"
    if line != LINES[place]:
        refused([*LINES[:place], line, *LINES[place + 1 :]], line=place + 1)


@given(st.integers(0, len(LINES) - 2), st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1, max_size=2))
def test_random_fields_under_a_new_chain_raise_nothing_else(place, change):
    """A forger who can hash reaches the checks behind the chain, too."""
    content = json.loads(LINES[place]) | change
    line = json.dumps(content, separators=(",", ":")).encode() + b"\n"
    with contextlib.suppress(TranscriptRefusedError):
        assert len(from_line(line, START, 1)[1]) == 32


@given(st.integers(0, 2**16), st.integers(1, 255))
@settings(max_examples=5)
@pytest.mark.parametrize("place", range(len(LINES) - 1))
def test_altered_entries_that_the_coordinator_signs_are_refused(place, where, flip):
    """Every signature and digest counts, and every message, even if the coordinator itself alters them."""
    entry = body(sample())[place]
    names = [f.name for f in dataclasses.fields(entry) if isinstance(getattr(entry, f.name), bytes)]
    for name in set(names) - {"commitment"}:
        value = bytearray(getattr(entry, name))
        value[where % len(value)] ^= flip
        forged = body(sample())
        forged[place] = dataclasses.replace(entry, **{name: bytes(value)})
        refused(sample().closed(forged))


def test_hostile_files_cost_little():
    """Long lines, deep ones and many open rounds are refused or counted in time that grows with their size."""
    one = sample()
    begin = time.process_time()
    for bad in (
        b"[" * (MAX_LINE_BYTES - 1) + b"\n",
        b'{"kind":"' + b"\\u0041" * 300_000 + b'"}\n',
        b"9" * 2_000_000 + b"\n",
    ):
        refused([*one.lines[:9], bad], "malformed")
    many = [opening_of(one, run=number.to_bytes(16, "little")) for number in range(1000)]
    assert len(verify(one.closed([*body(one)[:9], *many])).rounds) == 1000
    assert time.process_time() - begin < 5


def test_the_longest_line_has_room():
    message = bytes(encapsulation_bytes(MAX_SITES, 0))
    assert len(to_line(Encapsulated(message=message), START)[0]) < MAX_LINE_BYTES
    assert len(to_line(Pinned(version=1, message=bytes(MAX_MANIFEST_BYTES)), START)[0]) < MAX_LINE_BYTES


def test_a_refusal_tells_rule_and_peer_alone():
    entry = Refused.of(MessageRefusedError("share", "West", "its share was 1234567890"))
    line, _ = to_line(entry, START)
    assert b"1234567890" not in line
    assert json.loads(line)["peer"] == "West"


def test_names_of_sites_are_kept_as_they_are():
    assert tuple(site.name for site in verify(sample().lines).manifest.roster) == NAMES
