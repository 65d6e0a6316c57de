"""Attacks on single records through means, correlations, components and clusters of numbers."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

import wardround as wr
from wardround.analytics.lone_variables import lone_variables
from wardround.errors import DisclosureError
from wardround.sums import Steps, workflow


def hospitals(**columns: Any) -> dict[str, pd.DataFrame]:
    """Two hospitals of 90; `columns` name numbers that are 0 in all records but the first few of the first hospital."""
    rng, frames = np.random.default_rng(5), {}
    for name in ("North", "South"):
        frame = pd.DataFrame({"age": rng.normal(60, 9, 90).round(), "x": rng.normal(size=90), "ward": ["a", "b"] * 45})
        for column, values in columns.items():
            frame[column] = 0.0
            if name == "North":
                frame.loc[: len(values) - 1, column] = values
        frames[name] = frame
    return frames


ATTACKS = {
    "correlation": lambda f: wr.correlation(f, ("flag", "age")),
    "rank correlation": lambda f: wr.correlation(f, ("flag", "age"), method="spearman"),
    "partial correlation": lambda f: wr.correlation(f, ("x", "age"), partial=("flag",), missing="listwise"),
    "components": lambda f: wr.pca(f, ("flag", "age")),
    "clusters": lambda f: wr.kmeans(f, 2, ("flag", "age")),
    "paired means": lambda f: wr.compare_means(f, ("flag", "zero"), paired=True),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("values", [[1.0], [1.0] * 4, [87.0], [-3.0, -3.1]])
def test_variables_of_few_are_refused(attack: Any, values: list[float]) -> None:
    with pytest.raises(DisclosureError, match="all records but fewer than 5 have nearly the same value in flag"):
        attack(wr.simulate(hospitals(flag=values, zero=[])))


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_variables_of_enough_are_not(attack: Any) -> None:
    flags = hospitals(flag=[1.0] * 5, zero=[])
    assert attack(wr.simulate(flags)).summary()
    assert attack(wr.simulate(hospitals(flag=[1.0] * 8, zero=[]), disclosure="nhs")).summary()
    with pytest.raises(DisclosureError, match="minimum_cell"):
        attack(wr.simulate(flags, disclosure="nhs"))


def test_one_value_in_all_but_one_record_has_no_correlation_that_gives_it_away() -> None:
    frames = hospitals(flag=[1.0])
    pooled = pd.concat(frames.values())
    free = wr.simulate(frames, disclosure="none")
    (pair,) = wr.correlation(free, ("flag", "age")).pairs
    count = len(pooled)
    # What the attacker does: the correlation with an indicator is the one record's standard score.
    age = pooled.age.mean() + pair.value * pooled.age.std(ddof=0) * np.sqrt(count - 1)
    assert age == pytest.approx(frames["North"].age[0])
    with pytest.raises(DisclosureError):
        wr.correlation(wr.simulate(frames), ("flag", "age"))


@pytest.mark.parametrize("values", [[1.0], [0.0, 1.0, 0.0, 1.0], [44.0]])
def test_means_are_no_counts(values: list[float]) -> None:
    frames = hospitals(flag=values, many=[1.0] * 30)
    (lone,) = wr.compare_means(wr.simulate(frames), ("flag",), by="ward", rank_tests=True).comparisons
    is_of_few = {"a": values[0] != 0, "b": any(values[1::2])}
    assert lone.left_out == tuple(ward for ward, hidden in is_of_few.items() if hidden)
    assert [group.group for group in lone.groups] == [ward for ward, hidden in is_of_few.items() if not hidden]
    assert (lone.test, lone.rank_test, lone.differences) == (None, None, ())
    (many,) = wr.compare_means(wr.simulate(frames), ("many",), by="ward").comparisons
    assert not many.left_out


@workflow("lone", version=1)
def lone(setting: Any, variables: tuple[str, ...], minimum_cell: int, by: str | None = None) -> Steps[Any]:
    """Which are lone."""
    return (yield from lone_variables(variables, minimum_cell, by=by, num_groups=1 if by is None else 2))


def test_lone_values_are_found() -> None:
    rng = np.random.default_rng(2)
    frames = hospitals(one=[1.0], far=[1000.0, 1001.0], some=[1.0] * 5, spread=rng.normal(size=90), none=[])
    frames["South"]["level"] = "a"
    frames["North"]["level"] = ["b"] * 2 + ["a"] * 88
    frames["North"].loc[3:5, "one"] = np.nan
    names = ("one", "far", "some", "spread", "none", "age", "level")
    federation = wr.simulate(frames)
    assert federation.run(lone(names, 5))[:, 0].tolist() == [True, True, False, False, False, False, True]
    assert not federation.run(lone(names, 1)).any()
    by_ward = federation.run(lone(("one", "some", "age"), 5, "ward"))
    assert by_ward.tolist() == [[True, False], [True, True], [False, False]]


def test_a_handful_of_records_is_not_refused() -> None:
    frames = {name: frame[:3] for name, frame in hospitals().items()}
    assert not wr.simulate(frames).run(lone(("age", "x"), 5)).any()
