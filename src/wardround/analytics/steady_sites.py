"""Analyses whose totals belong together: all of them over the same sites, or none of them counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from wardround.errors import QuorumError
from wardround.sums import Steps, Total

R = TypeVar("R")


def with_steady_sites(attempt: Callable[[], Steps[R]], num_sites: int) -> Steps[R]:
    """Run `attempt`; when a total is over other sites than the first one was, start it again.

    A mean over four hospitals and a spread over three of them would be silently wrong together.

    Args:
        attempt: makes the generator afresh.
        num_sites: size of the roster; each may leave once, and one more attempt is made than that.

    Raises:
        QuorumError: the sites came and went in every attempt.

    Guarantees:
        totals_are_over_the_same_sites: the attempt that returns was sent totals over one and the same set of sites.
    """
    for _ in range(num_sites + 1):
        steps = attempt()
        sites: tuple[str, ...] | None = None
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as stop:
                result: R = stop.value
                return result
            answer = yield step
            if isinstance(answer, Total):
                if sites is not None and answer.sites != sites:
                    steps.close()
                    break
                sites = answer.sites
    raise QuorumError(
        f"the sites that answered changed within each of {num_sites + 1} attempts; "
        "run again when all are reachable, or without those that come and go"
    )
