import contextlib
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.samples import VOCABULARY, Moments, Trained, Update, drift, moments, update
from tests.sums.make_vectors import PATH, entries, other_format
from wardround.errors import ConfigError, RemoteProtocolError
from wardround.sums import Array, Ask, Snapshot, Total
from wardround.sums import parameters as parameters_module
from wardround.sums.contribution import layout_of
from wardround.sums.message import pack_ask, pack_snapshot, pack_total, unpack_ask, unpack_snapshot, unpack_total
from wardround.sums.parameters import digest, read_head, write_message

MOMENTS = layout_of(Moments, {"num_columns": 2})
UPDATE = layout_of(Update, {"size": 3, "clip": 1.0, "bits": 16})
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


def unpack(kind: str, message: bytes) -> Any:
    if kind == "ask":
        return unpack_ask(message, VOCABULARY)
    if kind == "snapshot":
        return unpack_snapshot(message, Trained)
    return unpack_total(message, MOMENTS if b"num_records" in message else UPDATE)


def pack(kind: str, value: Any) -> bytes:
    return {"ask": pack_ask, "snapshot": pack_snapshot, "total": pack_total}[kind](value)


# Round trips


@given(st.lists(NUMBERS, max_size=8), NUMBERS, st.integers(4, 32))
def test_asks_survive_their_bytes(params: list[float], clip: float, bits: int) -> None:
    clip = abs(clip) if 1e-100 <= abs(clip) <= 1e100 else 1.0
    asked = Ask(update, {"params": np.array(params), "clip": clip, "bits": bits})
    received = unpack_ask(pack_ask(asked), VOCABULARY)
    assert received.function is update
    assert received.arguments["params"].tobytes() == asked.arguments["params"].tobytes()
    assert repr(received.arguments["clip"]) == repr(clip)
    assert received.arguments["bits"] == bits
    assert pack_ask(received) == pack_ask(asked)
    with pytest.raises(ValueError, match="read-only"):
        received.arguments["params"][...] = 0


@given(
    st.lists(st.floats(-1e18, 1e18), min_size=2, max_size=2),
    st.integers(0, 2**63 - 1),
    st.sets(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=4),
)
def test_totals_survive_their_bytes(total: list[float], count: int, sites: set[str]) -> None:
    summed = Total(Moments(total=np.array(total), square=total[0], num_records=count), tuple(sites))
    received = unpack_total(pack_total(summed), MOMENTS)
    assert received.sites == summed.sites
    assert received.sum.total.tobytes() == summed.sum.total.tobytes()
    assert (received.sum.square, received.sum.num_records) == (summed.sum.square, count)
    assert isinstance(received.sum.num_records, int)
    with pytest.raises(ValueError, match="read-only"):
        received.sum.total[...] = 0


def test_snapshots_survive_their_bytes() -> None:
    received = unpack_snapshot(pack_snapshot(Snapshot(Trained(np.arange(3.0), 5))), Trained).state
    assert received.params.tolist() == [0.0, 1.0, 2.0]
    assert received.rounds == 5


def test_equal_values_give_equal_bytes() -> None:
    fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    strided = np.repeat(fortran, 2, axis=0)[::2]
    messages = {pack_ask(Ask(update, {"bits": 8, "clip": clip, "params": params}))
                for params in (fortran, strided, fortran.tolist(), fortran.astype(">f8"), fortran.astype(np.float32))
                for clip in (1, 1.0, np.float64(1))}  # fmt: skip
    messages |= {pack_ask(Ask(update, {"params": fortran, "clip": 1.0, "bits": np.int64(8)}))}
    assert len(messages) == 1


def test_a_snapshot_must_be_a_dataclass() -> None:
    with pytest.raises(TypeError, match="a snapshot's state must be a dataclass, got dict"):
        pack_snapshot(Snapshot({"a": 1}))


# Golden messages


@pytest.mark.parametrize(
    "entry", json.loads(PATH.read_text(encoding="utf-8")), ids=lambda e: f"{e['kind']}: {e['name']}"
)
def test_golden_messages(entry: dict[str, Any]) -> None:
    message = bytes.fromhex(entry["message"])
    assert digest(message) == entry["digest"]
    if entry["is_good"]:
        assert pack(entry["kind"], unpack(entry["kind"], message)) == message
    else:
        with pytest.raises(RemoteProtocolError):
            unpack(entry["kind"], message)


def test_golden_messages_are_what_is_written_today() -> None:
    recorded = json.loads(PATH.read_text(encoding="utf-8"))
    assert recorded == entries()
    assert 4 * sum(not entry["is_good"] for entry in recorded) == len(recorded)


# Hostile messages


def head_only(text: str) -> bytes:
    """A message of arrays `a0` (one zero) with this inner header."""
    return with_outer(json.dumps({"__metadata__": {"wardround": text}, "a0": {
        "dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}), bytes(8))  # fmt: skip


def with_outer(header: str, data: bytes = b"") -> bytes:
    encoded = header.encode()
    return len(encoded).to_bytes(8, "little") + encoded + data


ASK = {"format": "wardround-message-1", "function": "sample.moments@1", "body": {"center": {"$array": "a0"}}}


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x00" * 7,
        b"\xff" * 8,
        b"\xff" * 100,
        other_format(),
        with_outer("{}"),
        with_outer("[]"),
        with_outer('{"__metadata__": 3}'),
        with_outer('{"__metadata__": {"wardround": 3}}'),
        with_outer('{"__metadata__": {"wardround": "[]"}}'),
        with_outer("[" * 100_000),
        head_only("[" * 100_000),
        head_only('{"format": ' + "1" * 10_000 + "}"),
        head_only("[]"),
        head_only('"x"'),
        head_only("null"),
        head_only('{"format": "wardround-message-0"}'),
        head_only(json.dumps(ASK).replace('"function"', '"format": "wardround-message-1", "function"')),
        head_only(json.dumps(ASK | {"function": None})),
        head_only(json.dumps(ASK | {"function": ["sample.moments@1"]})),
        head_only(json.dumps(ASK | {"function": "x" * 1000})),
        head_only(json.dumps(ASK | {"body": None})),
        head_only(json.dumps(ASK | {"body": {}})),
        head_only(json.dumps(ASK | {"body": {"center": {"$array": "b"}}})),
        head_only(json.dumps(ASK | {"body": {"center": {"$array": ["a0"]}}})),
        head_only(json.dumps(ASK | {"body": {"center": {"$array": "a0", "x": 1}}})),
        head_only(json.dumps(ASK | {"body": {"center": "a0"}})),
        head_only(json.dumps(ASK | {"body": {"center": [1.0]}})),  # the array is not used
        head_only(json.dumps(ASK | {"body": {"center": {"$array": "a0"}, "more": 1}})),
        head_only(json.dumps(ASK)).replace(b'"shape": [1]', b'"shape": [9]'),
        head_only(json.dumps(ASK)).replace(b"[0, 8]", b"[0, 9]"),
        head_only(json.dumps(ASK)).replace(b'"F64"', b'"F65"'),
        head_only(json.dumps(ASK)).replace(b'"F64"', b'"C64"'),
        head_only(json.dumps(ASK)) + b"x",
    ],
    ids=range(34),
)  # fmt: skip
def test_hostile_asks_are_refused(message: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        unpack_ask(message, VOCABULARY)


def test_the_frame_of_the_hostile_asks_is_a_good_one() -> None:
    assert unpack_ask(head_only(json.dumps(ASK)), VOCABULARY).arguments["center"].tolist() == [0.0]


@pytest.mark.parametrize("arguments", [{"clip": -1.0}, {"clip": math.nan}, {"bits": 3}, {"bits": 10**30}])
def test_arguments_that_give_no_layout_are_refused(arguments: dict[str, Any]) -> None:
    message = pack_ask(Ask(update, {"params": np.zeros(2), "clip": 1.0, "bits": 8} | arguments))
    with pytest.raises(RemoteProtocolError, match=r"sample\.update@1 cannot answer with these arguments"):
        unpack_ask(message, VOCABULARY)


def test_an_unknown_function_is_a_matter_of_configuration() -> None:
    with pytest.raises(ConfigError, match="unknown site function 'other@1'"):
        unpack_ask(head_only(json.dumps(ASK | {"function": "other@1"})), VOCABULARY)


def test_messages_are_bounded_before_they_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    message = pack_ask(Ask(drift, {"pull": 1.0}))
    monkeypatch.setattr(parameters_module, "load_tensors", None)
    monkeypatch.setattr(parameters_module.json, "loads", None)
    monkeypatch.setattr(parameters_module, "MAX_MESSAGE_BYTES", len(message) - 1)
    with pytest.raises(RemoteProtocolError, match="bytes is over the limit"):
        read_head(message)
    monkeypatch.setattr(parameters_module, "MAX_MESSAGE_BYTES", len(message))
    monkeypatch.setattr(parameters_module, "MAX_HEAD_BYTES", 10)
    with pytest.raises(RemoteProtocolError, match=r"a header of \d+ bytes is over the limit of 10"):
        read_head(message)


def total_message(**changed: Any) -> bytes:
    tensors: dict[str, Any] = {"total": np.zeros(2), "square": np.array(1.0), "num_records": np.array(3)}
    tensors = {name: array for name, array in (tensors | changed).items() if array is not None}
    head = {"sites": tensors.pop("sites", ["a", "b"])}
    return write_message(tensors, head)


@pytest.mark.parametrize(
    "changed",
    [
        {"total": np.zeros(3)}, {"total": np.zeros((2, 1))}, {"total": np.zeros((1, 2))}, {"total": None},
        {"total": np.zeros(2, np.float32)}, {"total": np.zeros(2, np.int64)}, {"total": np.array([0.0, math.nan])},
        {"total": np.array([0.0, math.inf])}, {"total": np.array([0.0, 2.0**63])}, {"square": np.ones(1)},
        {"num_records": np.array(-1)}, {"num_records": np.array(1, np.uint64)}, {"num_records": np.array(1.0)},
        {"num_records": np.array(True)}, {"more": np.zeros(1)}, {"sites": None}, {"sites": ["a", 3]},
        {"sites": ["a", "a"]}, {"sites": "ab"}, {"sites": {"a": 1}},
    ],
    ids=str,
)  # fmt: skip
def test_hostile_totals_are_refused(changed: dict[str, Any]) -> None:
    unpack_total(total_message(), MOMENTS)
    message = write_message({}, {}) if changed.get("sites", 0) is None else total_message(**changed)
    with pytest.raises(RemoteProtocolError):
        unpack_total(message, MOMENTS)


def parts_message(head: Any, **changed: Any) -> bytes:
    """A total over a, b, c and d, of two parts."""
    one = {"total": np.zeros(2), "square": np.array(1.0), "num_records": np.array(3)}
    tensors: dict[str, Any] = {prefix + name: array for prefix in ("", "0.", "1.") for name, array in one.items()}
    tensors |= {name.removeprefix("part").replace("_at_", "."): array for name, array in changed.items()}
    tensors = {name: array for name, array in tensors.items() if array is not None}
    return write_message(tensors, {"sites": list("abcd"), "parts": head})


GOOD_PARTS = [["a", "b"], ["c", "d"]]


@pytest.mark.parametrize(
    "head",
    [
        [], [["a", "b", "c", "d"]], [["a", "b"], ["c"]], [["c", "d"], ["a", "b"]], [["a", "b"], ["c", "c"]],
        [["a", "b"], ["c", "d"], []], [["a", "b"], [], ["c", "d"]], [["a", "b"], ["c", "d", "e"]], None, 2, "abcd",
        ["ab", "cd"], [["a", "b"], ["c", 3]], [["a", "b"], [["c"], "d"]], {"a": ["b"]}, [["a", "b"]] * 100_000,
    ],
    ids=lambda head: str(head)[:30],
)  # fmt: skip
def test_hostile_parts_are_refused(head: Any) -> None:
    assert [part.sites for part in unpack_total(parts_message(GOOD_PARTS), MOMENTS).parts] == [("a", "b"), ("c", "d")]
    with pytest.raises(RemoteProtocolError):
        unpack_total(parts_message(head), MOMENTS)


@pytest.mark.parametrize(
    "changed",
    [
        {"part1_at_total": None}, {"part1_at_total": np.zeros(3)}, {"part1_at_square": np.array(math.nan)},
        {"part0_at_num_records": np.array(-1)}, {"part2_at_total": np.zeros(2)}, {"part01_at_total": np.zeros(2)},
        {"part1_at_total": np.zeros(2, np.float32)}, {"part0_at_more": np.zeros(1)},
    ],
    ids=str,
)  # fmt: skip
def test_hostile_arrays_of_parts_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        unpack_total(parts_message(GOOD_PARTS, **changed), MOMENTS)


def test_empty_parts_are_refused() -> None:
    empty = {"part2_at_total": np.zeros(2), "part2_at_square": np.array(0.0), "part2_at_num_records": np.array(0)}
    unpack_total(parts_message([["a"], ["b"], ["c", "d"]], **empty), MOMENTS)
    with pytest.raises(RemoteProtocolError, match="its parts must be over its sites"):
        unpack_total(parts_message([["a", "b"], ["c", "d"], []], **empty), MOMENTS)
    none = {"total": np.zeros(2), "square": np.array(0.0), "num_records": np.array(0)}
    unpack_total(write_message(none, {"sites": []}), MOMENTS)
    with pytest.raises(RemoteProtocolError, match="its parts must be over its sites"):
        unpack_total(write_message(none, {"sites": [], "parts": []}), MOMENTS)


@pytest.mark.parametrize("shown", [None, True, "", "all", ["each"], 1])
def test_what_an_ask_shows_is_one_word(shown: Any) -> None:
    unpack_ask(head_only(json.dumps(ASK | {"shown": "each"})), VOCABULARY)
    with pytest.raises(RemoteProtocolError, match="what an ask shows"):
        unpack_ask(head_only(json.dumps(ASK | {"shown": shown})), VOCABULARY)


def test_clear_asks_and_parts_survive_their_bytes() -> None:
    for is_clear in (False, True):
        asked = Ask(drift, {"pull": 0.5}, is_clear=is_clear)
        assert unpack_ask(pack_ask(asked), VOCABULARY).is_clear is is_clear
    received = unpack_total(parts_message(GOOD_PARTS), MOMENTS)
    assert pack_total(unpack_total(pack_total(received), MOMENTS)) == pack_total(received)
    with pytest.raises(ValueError, match="read-only"):
        received.parts[1].sum.total[...] = 1


def test_a_snapshot_of_another_state_is_refused() -> None:
    @dataclass(frozen=True)
    class Other:
        params: Array
        rounds: int

    with pytest.raises(RemoteProtocolError, match="not a snapshot of"):
        unpack_snapshot(pack_snapshot(Snapshot(Trained(np.zeros(1), 1))), Other)


GOOD = [(entry["kind"], bytes.fromhex(entry["message"])) for entry in json.loads(PATH.read_text("utf-8"))]
SPLICES = [b"", b"\x00", b"\xff", b'"', b"{", b"[", b"]", b"-1", b"NaN", b"1e999", b"null", b"\\ud800", b"$array",
           b"F16", b"BF16", b"18446744073709551616"]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    kind, message = draw(st.sampled_from(GOOD))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(message)))
        stop = start + draw(st.integers(0, 6))
        message = message[:start] + draw(st.one_of(st.sampled_from(SPLICES), st.binary(max_size=4))) + message[stop:]
    if draw(st.booleans()) and len(message) > 8:  # keep the header's length right, to get past the frame
        end = message.rfind(b"}", 8) + 1
        message = max(end - 8, 0).to_bytes(8, "little") + message[8:]
    return draw(st.sampled_from(("ask", "total", "snapshot", kind, kind, kind))), message


@settings(max_examples=1500)
@given(mutated())
def test_mutated_messages_raise_only_our_errors(case: tuple[str, bytes]) -> None:
    kind, message = case
    with contextlib.suppress(RemoteProtocolError, ConfigError):
        pack(kind, unpack(kind, message))


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(("center", "$array", "pull", "params", "rounds", "a0")), inner)
        ),
    )
)
def test_any_body_raises_only_our_errors(body: Any) -> None:
    for function in (moments, drift):
        message = head_only(json.dumps(ASK | {"function": function.function_id, "body": body}))
        with contextlib.suppress(RemoteProtocolError):
            unpack_ask(message, VOCABULARY)
