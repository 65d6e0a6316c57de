"""Table 1 in a report: the table, the figure, and the sentences of a methods section."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from wardround.analytics.description import DescribeResult, VariableSummary
from wardround.analytics.journal_text import count_text, listed
from wardround.analytics.result import Exhibit, FigureExhibit, TableExhibit
from wardround.analytics.table_one import EVERYBODY, table_frame, table_notes

_LARGE_DIFFERENCE = 0.1
"""Standardised difference that is usually taken as a mark of imbalance."""
_MOST_NAMED = 5
QUANTILES_REFERENCE = (
    "Hyndman RJ, Fan Y. Sample quantiles in statistical packages. The American Statistician 1996; 50(4): 361-365."
)
_REFERENCES = {
    "Hyndman": QUANTILES_REFERENCE,
    "Welch": "Welch BL. The generalization of 'Student's' problem when several different population variances are "
    "involved. Biometrika 1947; 34(1-2): 28-35.",
    "Yang": "Yang D, Dalton JE. A unified approach to measuring the effect size between two groups using SAS. "
    "SAS Global Forum 2012; paper 335-2012.",
    "Pollard": "Pollard TJ, Johnson AEW, Raffa JD, Mark RG. tableone: an open source Python package for producing "
    "summary statistics for research papers. JAMIA Open 2018; 1(1): 26-31.",
}


def describe_methods(result: DescribeResult) -> str:
    """What was computed, as a methods section says it."""
    head = (
        f"{count_text(result.num_records)} records of {_sites(len(result.sites))} were described (Pollard 2018) from "
        "sums over sites: categories by counts and percentages, numbers by mean, standard deviation and quantiles. "
        "Quantiles were read from counts in brackets that were narrowed until their width was negligible; where it is "
        "not, the error bound is stated (Hyndman and Fan 1996)."
    )
    sentences, tests = [head], _tests(result)
    if tests:
        sentences.append(f"Groups of {_plain(result.by)} were compared by {listed([_cited(test) for test in tests])}.")
    if any(variable.differences for variable in result.variables):
        sentences.append("Standardised differences of two groups are reported (Yang and Dalton 2012).")
    return " ".join([*sentences, _small_counts(result)]).strip()


def _small_counts(result: DescribeResult) -> str:
    if result.minimum_cell < 2:
        return ""
    return f"Counts below {result.minimum_cell}, and counts that would give them back, are not shown."


def _sites(number: int) -> str:
    return f"{number} site{'s' * (number != 1)}"


def _plain(name: str | None) -> str:
    return (name or "").replace("_", " ")


def _tests(result: DescribeResult) -> list[str]:
    return sorted({variable.test.name for variable in result.variables if variable.test})


def _cited(test: str) -> str:
    return f"{test} (Welch 1947)" if test.startswith("Welch") else test


def describe_references(result: DescribeResult) -> tuple[str, ...]:
    """Of the methods that were used."""
    text = describe_methods(result)
    return tuple(reference for name, reference in _REFERENCES.items() if f"({name}" in text)


def describe_exhibits(result: DescribeResult) -> tuple[Exhibit, ...]:
    """Table 1, then its figure."""
    by = f", by {_plain(result.by)}" if result.groups else ""
    table = TableExhibit(
        title=f"Characteristics of the patients{by}",
        frame=_frame(result),
        note=" ".join([*_test_notes(result), *table_notes(result)]),
        kind="table_one",
    )
    title = "Differences between groups" if len(result.groups) > 1 else "Missing values"
    figure = FigureExhibit(title=title, draw=result.plot, description=_figure_description(result))
    return (table, figure)


def _frame(result: DescribeResult) -> pd.DataFrame:
    """The printed table with headings that a reader knows."""
    frame = table_frame(result)
    is_boolean = set(result.groups) == {"False", "True"}
    heads = {group: f"{_plain(result.by)}: {_answer(group) if is_boolean else group}" for group in result.groups}
    units = {v.variable + (f", {v.unit}" if v.unit else ""): v for v in result.variables}
    booleans = {label for label, variable in units.items() if variable.type == "boolean"}
    rows = [
        ("Records", "") if label == "n" else (_label(label, units), _answer(level) if label in booleans else level)
        for label, level in frame.index
    ]
    if "test" in frame:  # the notes say which; a column of names would push the numbers off a page
        is_rough = frame["test"].str.endswith("*")
        frame = frame.assign(**{"P value": frame["P value"] + is_rough.map({True: "*", False: ""})}).drop(
            columns="test"
        )
    renamed = frame.rename(columns={EVERYBODY: "All", **heads})
    return renamed.set_axis(pd.MultiIndex.from_tuples(rows, names=["", ""]))


def _test_notes(result: DescribeResult) -> Iterator[str]:
    """Which test a P value is of, where a whole kind of variables has the same one."""
    for kind, is_numeric in (("numbers", True), ("categories", False)):
        by_test: dict[str, list[str]] = {}
        for variable in result.variables:
            if variable.test and variable.is_numeric == is_numeric:
                by_test.setdefault(variable.test.name, []).append(_plain(variable.variable))
        usual = max(by_test, key=lambda name: len(by_test[name]), default=None)
        others = [f"{name} of {listed(variables)}" for name, variables in by_test.items() if name != usual]
        if usual:
            yield f"P values of {kind}: {usual}{''.join(f'; {other}' for other in others)}."


def _label(label: str, units: dict[str, VariableSummary]) -> str:
    name, comma, unit = label.partition(", ") if label in units else (label, "", "")
    return _plain(name) + comma + unit


def _answer(level: str) -> str:
    return {"False": "no", "True": "yes"}.get(level, level)


def _figure_description(result: DescribeResult) -> str:
    if len(result.groups) > 1:
        return _differences_description(result)
    known = [(v.columns[0].num_missing, _plain(v.variable)) for v in result.variables]
    missing = [(count, name) for count, name in known if count is not None]
    if result.num_records is None or len(missing) < len(known):
        return "How much of each variable is missing."
    most = sorted((pair for pair in missing if pair[0]), key=lambda pair: -pair[0])[:_MOST_NAMED]
    if not most:
        return "No variable has missing values."
    named = [f"{name} ({100 * count / max(result.num_records, 1):.1f}%)" for count, name in most]
    return f"Share of records without a value; the largest: {listed(named)}."


def _differences_description(result: DescribeResult) -> str:
    sizes = [(v.largest_difference, _plain(v.variable)) for v in result.variables]
    known = sorted(((size, name) for size, name in sizes if size is not None), key=lambda pair: -pair[0])
    large = [f"{name} ({size:.2f})" for size, name in known if size > _LARGE_DIFFERENCE]
    if not large:
        return f"No variable differs between the groups of {_plain(result.by)} by a standardised difference over 0.1."
    more = f", and {len(large) - _MOST_NAMED} more" if len(large) > _MOST_NAMED else ""
    return (
        f"Between the groups of {_plain(result.by)}, {len(large)} of {len(result.variables)} variables differ by a "
        f"standardised difference over 0.1, most of all {listed(large[:_MOST_NAMED])}{more}."
    )
