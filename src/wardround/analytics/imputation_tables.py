"""Any analysis on a completed copy: its site functions, run at each site on the copy that the site keeps.

A workflow stays as it is: what it asks is turned into the same ask on copy number so-and-so (`on_copy`). Which site
functions may be so asked is written out here, one by one, as a hospital's allow-list has them.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from wardround.analytics.cox import (
    pair_products,
    risk_sums,
    score_histogram,
    score_products,
    score_table,
    second_moment_sums,
    site_pairs,
    site_score_products,
    site_terms,
)
from wardround.analytics.cox_sums import leaving
from wardround.analytics.glm import finish, first_terms, separated, terms
from wardround.analytics.imputation_chain import Copies
from wardround.analytics.preparation_sums import census, column_sums, expression_sums, far_records
from wardround.analytics.quantiles import bracket_counts, magnitudes
from wardround.analytics.survival_time import check_times
from wardround.data.table import Table
from wardround.errors import DataError, LocalProtocolError
from wardround.sums import Ask, Contribution, SiteFunction, Steps, stateful_site_function
from wardround.sums.contribution import Symbols

C = TypeVar("C", bound=Contribution)
R = TypeVar("R")


def on_completed(function: SiteFunction[..., C]) -> SiteFunction[..., C]:
    """The site function that computes `function` on one of the completed copies that a site keeps.

    It takes the argument `copy` beside those of `function`, contributes the same sums, and changes no copy.

    Guarantees:
        a_copy_is_a_table: the contribution is the one of `function` on the table with the copy's values filled in.
    """

    def completed(
        data: Table, state: Copies | None, rng: np.random.Generator, copy: int, **arguments: Any
    ) -> tuple[C, Copies]:
        if state is None:
            raise DataError(f"site {data.site!r} has no completed copies; ask imputation.begin first")
        contribution: C = function.function(state.table(data, copy), **arguments)
        return contribution, state

    def symbols(copy: int, **arguments: Any) -> Symbols:
        return function.symbols(**arguments) if function.symbols else {}

    def num_parameters(copy: int, **arguments: Any) -> int:
        return function.num_parameters(arguments)

    def is_per_site(copy: int, **arguments: Any) -> bool:
        return function.is_per_site(arguments)

    described: Any = completed
    kept = [p for p in function.parameters.signature.parameters.values() if p.name != "copy"]
    own = list(inspect.signature(completed).parameters.values())[:4]
    as_named = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in kept]
    hints = typing.get_type_hints(function.function, include_extras=True)
    described.__signature__ = inspect.Signature([*own, *as_named])
    described.__annotations__ = {
        "data": Table,
        "state": Copies | None,
        "rng": np.random.Generator,
        "copy": int,
        **{parameter.name: hints[parameter.name] for parameter in kept},
        "return": tuple[function.contribution, Copies],  # type: ignore[name-defined]  # a class known at run time
    }
    described.__doc__ = f"On a completed copy: {function.function.__doc__}"
    register = stateful_site_function(
        f"imputation.{function.name}",
        version=function.version,
        symbols=symbols,
        parameters=num_parameters,
        per_site=is_per_site,
    )
    made: SiteFunction[..., C] = register(described)
    return made


on_census = on_completed(census)
on_column_sums = on_completed(column_sums)
on_expression_sums = on_completed(expression_sums)
on_far_records = on_completed(far_records)
on_magnitudes = on_completed(magnitudes)
on_bracket_counts = on_completed(bracket_counts)
on_first_terms = on_completed(first_terms)
on_terms = on_completed(terms)
on_separated = on_completed(separated)
on_finish = on_completed(finish)
on_check_times = on_completed(check_times)
on_leaving = on_completed(leaving)
on_risk_sums = on_completed(risk_sums)
on_second_moment_sums = on_completed(second_moment_sums)
on_site_terms = on_completed(site_terms)
on_score_products = on_completed(score_products)
on_site_score_products = on_completed(site_score_products)
on_score_histogram = on_completed(score_histogram)
on_score_table = on_completed(score_table)
on_pair_products = on_completed(pair_products)
on_site_pairs = on_completed(site_pairs)

COMPLETED: Mapping[str, SiteFunction[..., Any]] = MappingProxyType(
    {
        function.function_id.removeprefix("imputation."): function
        for function in (
            on_census,
            on_column_sums,
            on_expression_sums,
            on_far_records,
            on_magnitudes,
            on_bracket_counts,
            on_first_terms,
            on_terms,
            on_separated,
            on_finish,
            on_check_times,
            on_leaving,
            on_risk_sums,
            on_second_moment_sums,
            on_site_terms,
            on_score_products,
            on_site_score_products,
            on_score_histogram,
            on_score_table,
            on_pair_products,
            on_site_pairs,
        )
    }
)
"""By the identity of a site function, the one that computes it on a completed copy."""


def on_copy(steps: Steps[R], copy: int) -> Steps[R]:
    """A workflow's steps, each ask on a completed copy instead of on the tables.

    Args:
        steps: of a workflow whose site functions are all in `COMPLETED`.
        copy: number of the copy, from 0.
    """
    answer: Any = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as stop:
            result: R = stop.value
            return result
        answer = None
        if isinstance(step, Ask):
            function = COMPLETED.get(step.function.function_id)
            if function is None:
                raise LocalProtocolError(f"{step.function.function_id} has no form that runs on a completed copy")
            answer = yield Ask(function, {**step.arguments, "copy": copy})
