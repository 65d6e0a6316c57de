"""Subgroups and sites of an evaluation: which are hidden, and how their figures differ."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from wardround.analytics.calibration import normal
from wardround.analytics.discrimination import Estimate
from wardround.analytics.evaluation import Difference, EqualityTest, GroupPerformance, Performance
from wardround.analytics.families import two_sided_p

Counts = NDArray[np.int64]

COMPARED = ("auroc", "calibration_in_the_large", "calibration_slope")


def hidden_groups(cells: Counts, total: Counts, minimum_cell: int) -> NDArray[np.bool_]:
    """Which groups of one variable are hidden, so that no shown sum less the shown groups tells of few.

    Args:
        cells: events and others by group, shape (num_groups, 2).
        total: of everybody, shape (2,); what is in no group belongs to the remainder.
        minimum_cell: least count, other than 0, that is shown.

    Guarantees:
        what_is_not_shown_is_zero_or_enough: of events as of others, everybody less the shown groups.
    """

    def is_small(counts: Counts) -> NDArray[np.bool_]:
        return np.asarray(((counts > 0) & (counts < minimum_cell)).any(axis=-1), np.bool_)

    hidden = is_small(cells)
    while is_small(total - cells[~hidden].sum(axis=0)):
        sizes = np.where(hidden | (cells.sum(axis=1) == 0), np.iinfo(np.int64).max, cells.sum(axis=1))
        smallest = int(sizes.argmin())
        if sizes[smallest] == np.iinfo(np.int64).max:
            break
        hidden[smallest] = True
    return hidden


def differences_of(groups: tuple[GroupPerformance, ...], confidence: float) -> tuple[Difference, ...]:
    """Each shown group's figures less those of the first shown group of its variable; groups share no records."""
    made = []
    for variable in dict.fromkeys(group.variable for group in groups):
        shown = [(g.level, g.performance) for g in groups if g.variable == variable and g.performance is not None]
        for figure in COMPARED:
            with_it = [(level, _figure(performance, figure)) for level, performance in shown]
            usable = [(level, estimate) for level, estimate in with_it if _has_error(estimate)]
            for level, estimate in usable[1:]:
                made.append(_difference(variable, figure, usable[0], (level, estimate), confidence))
    return tuple(made)


def _figure(performance: Performance, name: str) -> Estimate:
    estimate: Estimate = getattr(performance, name)
    return estimate


def _has_error(estimate: Estimate) -> bool:
    return estimate.value is not None and estimate.standard_error is not None and estimate.standard_error > 0


def _difference(
    variable: str, figure: str, first: tuple[str, Estimate], second: tuple[str, Estimate], confidence: float
) -> Difference:
    value = float(second[1].value or 0.0) - float(first[1].value or 0.0)
    error = float(np.hypot(first[1].standard_error or 0.0, second[1].standard_error or 0.0))
    return Difference(
        variable=variable,
        level=second[0],
        reference=first[0],
        figure=figure,
        difference=normal(value, error, confidence),
        p_value=two_sided_p(value / error, None),
    )


def equality_tests_of(groups: tuple[GroupPerformance, ...]) -> tuple[EqualityTest, ...]:
    """Whether a figure is the same in all shown groups of a variable."""
    made = []
    for variable in dict.fromkeys(group.variable for group in groups):
        shown = [g.performance for g in groups if g.variable == variable and g.performance is not None]
        for figure in COMPARED:
            usable = [e for e in (_figure(performance, figure) for performance in shown) if _has_error(e)]
            if len(usable) >= 2:
                made.append(_equality(variable, figure, usable))
    return tuple(made)


def _equality(variable: str, figure: str, estimates: list[Estimate]) -> EqualityTest:
    values = np.array([float(e.value or 0.0) for e in estimates])
    weights = np.array([float(e.standard_error or 1.0) ** -2 for e in estimates])
    mean = weights @ values / weights.sum()
    statistic, df = float(weights @ (values - mean) ** 2), len(values) - 1
    return EqualityTest(
        variable=variable, figure=figure, statistic=statistic, df=df, p_value=float(special.chdtrc(df, statistic))
    )
