"""A workflow carried out over one site's own data, inside the site: nothing is sent, nothing is asked of others.

What hospitals compare their joint analysis with is an analysis of each of them alone. A site function that
needs one runs the workflow's own steps here, so that there is no second implementation that could differ.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from wardround.sums.accumulator import Accumulator
from wardround.sums.contribution import Contribution
from wardround.sums.workflow import Ask, Snapshot, Steps, Total

R = TypeVar("R")


def run_locally(steps: Steps[R], data: Any, site: str, rng: np.random.Generator | None = None) -> R:
    """Answer a workflow's asks from this data alone, until it returns.

    Args:
        steps: a workflow's generator, as `workflow.steps(setting)` makes it for a setting of this one site, or a
            part of one.
        data: what the site functions are given.
        site: the name that the totals carry.
        rng: for site functions that keep state or have bounded fields.

    Raises:
        TypeError: a function needs a generator and `rng` is None.
        WardroundError: whatever the workflow and its site functions raise.

    Guarantees:
        equals_a_federation_of_one: the totals are, to the last bit, those of a federation of this site alone.
    """
    states: dict[str, Any] = {}
    answer: Total[Contribution] | None = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as stop:
            result: R = stop.value
            return result
        answer = None if isinstance(step, Snapshot) else _total_of_one(step, data, site, states, rng)


def _total_of_one(
    step: Ask[Any], data: Any, site: str, states: dict[str, Any], rng: np.random.Generator | None
) -> Total[Contribution]:
    total = Total(_sum_of_one(step, data, states, rng), (site,))
    return Total(total.sum, total.sites, (total,)) if step.is_clear else total


def _sum_of_one(step: Ask[Any], data: Any, states: dict[str, Any], rng: np.random.Generator | None) -> Contribution:
    function, family = step.function, step.function.name.split(".")[0]
    if function.is_stateful and rng is None:
        raise TypeError(f"{function.function_id} draws at random: rng must be given")
    contribution, state = function.compute(data, step.arguments, states.get(family), rng)
    if function.is_stateful:
        states[family] = state
    # Through the ring, as everywhere: its rounding and its refusals are part of what a total is.
    total = Accumulator(step.layout, 1)
    total.add_flat(step.layout.flatten(contribution), rng)
    return total.total()
