"""How things are measured: interleaved, the best of several, as a ratio to a peer or a limit.

A benchmark module has `def rows(scale: float) -> Iterator[Row]`. On a machine that others use as well, the best of
several interleaved runs is the least disturbed one; a ratio of two bests says more than either.
"""

from __future__ import annotations

import math
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        name: what was measured, with its size.
        measured: the value, in `unit`.
        against: what it is compared with.
        limit: that one's value, in `unit`.
        goal: largest ratio of the two that is good enough; None where there is no goal.
        unit: "ms" or "MiB".
    """

    name: str
    measured: float
    against: str
    limit: float
    goal: float | None
    unit: str = "ms"

    @property
    def ratio(self) -> float:
        """Measured over limit."""
        return self.measured / self.limit if self.limit else math.inf

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is; None without one."""
        return None if self.goal is None else self.ratio <= self.goal


def best_seconds(tasks: Mapping[str, Callable[[], object]], repeats: int = 15) -> dict[str, float]:
    """The shortest time of each task, all of them run in turn `repeats` times, after one round to warm up."""
    best = dict.fromkeys(tasks, math.inf)
    for repeat in range(repeats + 1):
        for name, task in tasks.items():
            begin = time.perf_counter()
            task()
            if repeat:
                best[name] = min(best[name], time.perf_counter() - begin)
    return best


def peak_bytes(task: Callable[[], object], prepare: Callable[[], object] | None = None) -> int:
    """How far `task` lifts the peak memory of a process of its own, in which `prepare` ran before.

    Both must be importable (functions of a module, or `functools.partial`s of such). Includes what compiled code
    allocates. Where the task stays below a peak that `prepare` reached, the answer is 0.
    """
    context = multiprocessing.get_context("spawn")  # a fork would begin with this process's peak
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report_peak, args=(task, prepare, sender))
    process.start()
    sender.close()
    try:
        return int(receiver.recv())
    except EOFError:
        raise RuntimeError("the measured process failed; its error is above") from None
    finally:
        process.join()


def _report_peak(task: Callable[[], object], prepare: Callable[[], object] | None, sender: Connection) -> None:
    if prepare:
        prepare()
    before = _peak()
    task()
    sender.send(_peak() - before)


def _peak() -> int:
    # Not ru_maxrss where it can be had better: Linux lets a new program inherit its parent's peak.
    status = Path("/proc/self/status")
    if status.exists():
        lines = (line.split() for line in status.read_text(encoding="ascii", errors="replace").splitlines())
        return next(int(line[1]) * 1024 for line in lines if line[0] == "VmHWM:")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def milliseconds(seconds: float) -> float:
    """Seconds as milliseconds."""
    return seconds * 1e3


COLUMNS = ("name", "measured", "against", "ratio", "goal", "met?")


def cells(row: Row) -> tuple[str, ...]:
    """A row as text."""
    goal = "" if row.goal is None else f"<= {row.goal:g}"
    met = {None: "", True: "yes", False: "NO"}[row.is_met]
    against = f"{row.against}: {row.limit:.3g} {row.unit}"
    return row.name, f"{row.measured:.3g} {row.unit}", against, f"{row.ratio:.2f}", goal, met
