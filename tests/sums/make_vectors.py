"""Writes the golden messages: `python -m tests.sums.make_vectors`."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from tests.samples import Moments, Trained, Update, drift, moments, update
from wardround.sums import Ask, Snapshot, Total
from wardround.sums.message import pack_ask, pack_snapshot, pack_total
from wardround.sums.parameters import digest, write_message

PATH = Path(__file__).parent / "vectors" / "messages.json"


def moments_total(**changed: Any) -> Total[Moments]:
    fields: dict[str, Any] = {"total": np.array([1.5, -2.0]), "square": 0.1, "num_records": 12}
    return Total(Moments(**(fields | changed)), ("north", "süd"))


def update_total(number: int, *sites: str) -> Total[Update]:
    return Total(Update(step=np.array([0.5, 0.0, -0.25 * number]), loss=0.1 * number), sites)


def of_parts(*parts: Total[Update]) -> Total[Update]:
    return Total(update_total(3).sum, tuple(site for part in parts for site in part.sites), parts)


def good() -> Iterator[tuple[str, str, bytes]]:
    center = np.array([0.0, -0.0])
    yield "ask", "an array", pack_ask(Ask(moments, {"center": center}))
    yield "ask", "an empty array", pack_ask(Ask(moments, {"center": np.empty(0)}))
    yield "ask", "special numbers", pack_ask(Ask(moments, {"center": np.array([math.inf, math.nan, 5e-324])}))
    yield "ask", "defaults filled in", pack_ask(Ask(update, {"params": center, "clip": 1.0, "bits": 16}))
    yield "ask", "infinity", pack_ask(Ask(drift, {"pull": -math.inf}))
    yield "ask", "no array", pack_ask(Ask(drift, {"pull": 0.25}))
    yield "ask", "in clear", pack_ask(Ask(update, {"params": center, "clip": 1.0, "bits": 16}, is_clear=True))
    yield "total", "moments", pack_total(moments_total())
    yield "total", "large numbers", pack_total(moments_total(square=-9e18, num_records=2**62))
    yield "total", "no site", pack_total(Total(moments_total().sum, ()))
    yield "total", "bounded", pack_total(Total(Update(step=np.array([0.5, 0.0, -0.5]), loss=1.0), ("a",)))
    yield "total", "each site's", pack_total(of_parts(update_total(1, "north"), update_total(2, "süd")))
    yield "total", "by buckets", pack_total(of_parts(update_total(1, *"abc"), update_total(2, *"defg")))
    yield "snapshot", "trained", pack_snapshot(Snapshot(Trained(np.arange(3.0), 4)))
    yield "snapshot", "trained nothing", pack_snapshot(Snapshot(Trained(np.empty(0), 0)))


def bad() -> Iterator[tuple[str, str, bytes]]:
    message = pack_ask(Ask(moments, {"center": np.array([1.0])}))
    yield "ask", "cut short", message[:-1]
    yield "total", "NaN", pack_total(moments_total(square=math.nan))
    yield "total", "negative count", pack_total(moments_total(num_records=-1))
    astray = Total(update_total(3).sum, ("a", "b"), (update_total(1, "a"), update_total(2, "c")))
    yield "total", "a part of another site", pack_total(astray)
    body = {"body": {"center": {"$array": "b0"}}, "function": "sample.moments@1"}
    yield "ask", "dangling array", write_message({"a0": np.zeros(1)}, body)


def entries() -> list[dict[str, Any]]:
    return [
        {"kind": kind, "name": name, "is_good": is_good, "digest": digest(message), "message": message.hex()}
        for is_good, messages in ((True, good()), (False, bad()))
        for kind, name, message in messages
    ]


def other_format() -> bytes:
    """A safetensors file of somebody else."""
    return save({"weights": np.zeros(3)}, metadata={"format": "pt"})


if __name__ == "__main__":
    PATH.write_text(json.dumps(entries(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
