"""A workflow over one site's own data."""

import numpy as np
import pytest

from tests.analytics.by_hand import number, tables_of
from wardround.analytics.glm import glm
from wardround.engines.simulation import Simulation
from wardround.errors import RankDeficiencyError
from wardround.sums import Array, Contribution, Snapshot, Steps, ask, bounded, exact, stateful_site_function
from wardround.sums.local import run_locally
from wardround.testing.fingerprint import fingerprint


def _one_site() -> tuple[dict, object]:
    rng = np.random.default_rng(5)
    x = rng.normal(size=80)
    columns = {"x": x, "y": 1 + 2 * x + rng.normal(size=80), "twice": 2 * x}
    return tables_of([number("x"), number("y"), number("twice")], columns, np.zeros(80, int))


def test_equals_a_federation_of_one() -> None:
    tables, setting = _one_site()
    model = glm(formula="y ~ x")
    expected = Simulation(tables, setting).run(model)  # type: ignore[arg-type]
    got = run_locally(model.steps(setting), tables["site0"], "site0")
    assert fingerprint(got) == fingerprint(expected)


def test_raises_what_the_workflow_raises() -> None:
    tables, setting = _one_site()
    with pytest.raises(RankDeficiencyError, match="twice"):
        run_locally(glm(formula="y ~ x + twice").steps(setting), tables["site0"], "site0")


class Visits(Contribution):
    num_visits: float = exact()
    update: Array = bounded(2, clip_norm=1.0, bits=16)


@stateful_site_function("counted.visit", version=1)
def visit(data: np.ndarray, state: int | None, rng: np.random.Generator) -> tuple[Visits, int]:
    seen = (state or 0) + 1
    return Visits(num_visits=float(seen), update=data), seen


def _three_visits() -> Steps[list[float]]:
    seen = []
    for _ in range(3):
        seen.append((yield from ask(visit)).sum.num_visits)
        assert (yield Snapshot(seen)) is None
    return seen


def test_state_is_kept_and_snapshots_are_passed_over() -> None:
    rng = np.random.default_rng(0)
    assert run_locally(_three_visits(), np.array([0.1, 0.2]), "here", rng) == [1.0, 2.0, 3.0]


def test_randomness_must_be_given() -> None:
    with pytest.raises(TypeError, match="rng"):
        run_locally(_three_visits(), np.array([0.1, 0.2]), "here")
