"""A comparison of sites in a report: what differs in words, a picture of it, tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from wardround.analytics.heterogeneity_result import LEVEL, HeterogeneityResult, Shift, SiteShift
from wardround.analytics.journal_text import ABSENT, count_text, fixed_text, listed, p_text
from wardround.analytics.result import Exhibit, FigureExhibit, TableExhibit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_ROWS = 24
"""Most shifts that the figure shows."""
MAX_SITES_NAMED = 16
"""Most sites whose names and numbers fit into the figure."""
MAX_TOLD = 4
"""Most shifts that are told in words, beside the outcome's."""
LEAST_CORRELATION = 0.01
"""Intraclass correlation below which a difference is not told in words, however small its p-value."""
_STRONGEST = 0.75
# Opacity of the largest distance: numbers on it stay readable.
_REFERENCES = {
    "Moreno-Torres": "Moreno-Torres JG, Raeder T, Alaiz-Rodriguez R, Chawla NV, Herrera F. A unifying view on dataset "
    "shift in classification. Pattern Recognit 2012; 45(1): 521-530.",
    "Donner": "Donner A. A review of inference procedures for the intraclass correlation coefficient in the one-way "
    "random effects model. Int Stat Rev 1986; 54(1): 67-82.",
    "Lin": "Lin J. Divergence measures based on the Shannon entropy. IEEE Trans Inf Theory 1991; 37(1): 145-151.",
    "Holm": "Holm S. A simple sequentially rejective multiple test procedure. Scand J Stat 1979; 6(2): 65-70.",
    "Benjamini": "Benjamini Y, Hochberg Y. Controlling the false discovery rate: a practical and powerful approach to "
    "multiple testing. J R Stat Soc B 1995; 57(1): 289-300.",
    "Rao": "Rao CR. Large sample tests of statistical hypotheses concerning several parameters with applications to "
    "problems of estimation. Math Proc Camb Philos Soc 1948; 44(1): 50-57.",
}


def heterogeneity_headlines(result: HeterogeneityResult) -> tuple[str, ...]:
    """The outcome's difference, then the largest others, a sentence each."""
    clear = [s for s in result.shifts if s.p_adjusted < LEVEL and s.intraclass_correlation >= LEAST_CORRELATION]
    label = [s for s in result.shifts if s.kind == "label"]
    rest = [s for s in clear if s.kind != "label"][:MAX_TOLD]
    told = [_sentence(shift, result) for shift in (*(s for s in label if s in clear), *rest)]
    if label and label[0] not in clear:
        told.insert(
            0, f"The outcome {_name(label[0])} does not differ clearly between the sites ({_p(label[0].p_adjusted)})."
        )
    if not told:
        return ("No clear difference between the sites was found.",)
    conditional = result.conditional
    if conditional is not None:
        verb = "still differs" if conditional.p_value < LEVEL else "does not differ clearly"
        given = listed(conditional.adjusted_for)
        told.append(f"Given {given}, the outcome {verb} between the sites (score test, {_p(conditional.p_value)}).")
    return tuple(told)


def _p(p_value: float) -> str:
    text = p_text(p_value)
    return f"p {text}" if text[0] in "<>" else f"p = {text}"


def _name(shift: Shift) -> str:
    return f"{shift.variable} = {shift.level}" if shift.level and shift.kind != "missing" else shift.variable


def _sentence(shift: Shift, result: HeterogeneityResult) -> str:
    known = [one for one in shift.sites or () if one.value is not None]
    p = _p(shift.p_adjusted)
    what = (
        f"How often {shift.variable} is missing" if shift.kind == "missing" else f"The distribution of {_name(shift)}"
    )
    if len({one.value for one in known}) < 2:
        return f"{what} differs between the sites (intraclass correlation {shift.intraclass_correlation:.2f}, {p})."
    low, high = min(known, key=_value), max(known, key=_value)
    reach = f"from {_shown(shift, low)} ({low.site}) to {_shown(shift, high)} ({high.site}); {p}"
    if shift.kind == "missing":
        return f"{shift.variable} is missing in a share of records that ranges {reach}."
    if shift.level:
        return f"The share with {_name(shift)} ranges {reach}."
    return f"The mean of {shift.variable} ranges {reach}."


def _value(one: SiteShift) -> float:
    return one.value if one.value is not None else float("nan")


def _shown(shift: Shift, one: SiteShift) -> str:
    if shift.level:
        return f"{100 * _value(one):.0f}%"
    unit = f" {shift.unit}" if shift.unit else ""
    return f"{_value(one):.4g}{unit}"


def heterogeneity_methods(result: HeterogeneityResult) -> str:
    """What was computed, as a methods section says it."""
    holm = "Holm's method (Holm 1979)"
    how = holm if result.correction == "holm" else "the method of Benjamini and Hochberg (Benjamini 1995)"
    text = (
        f"Differences between {len(result.sites)} sites in the outcome, the covariates and missing values "
        f"(Moreno-Torres 2012) were measured from sums: numbers in {result.num_bins} bins cut at quantiles over all "
        "sites, categories by their levels. The share of the variance that is between sites is given as the "
        "intraclass correlation of an analysis of variance (Donner 1986), the distance between distributions as the "
        "Jensen-Shannon distance of a site from all sites together (Lin 1991). Equality over sites was tested by "
        "analysis of variance for numbers and by chi-square tests for categories and missing values; p-values were "
        f"corrected by {how}."
    )
    if result.conditional is not None:
        given = listed(result.conditional.adjusted_for)
        text += f" The outcome given {given} was compared by a score test of the sites' intercepts (Rao 1948)."
    return text


def heterogeneity_references(result: HeterogeneityResult) -> tuple[str, ...]:
    """Of the methods that were used."""
    text = heterogeneity_methods(result)
    return tuple(reference for name, reference in _REFERENCES.items() if f"({name} " in text)


def heterogeneity_exhibits(result: HeterogeneityResult) -> tuple[Exhibit, ...]:
    """The figure, the table of shifts and, where allowed, the sites' figures."""
    by_site = result.site_sizes is not None
    exhibits: list[Exhibit] = [
        FigureExhibit(
            title="Distance of each site from all sites" if by_site else "Differences between sites by variable",
            draw=result.plot,
            description=" ".join(heterogeneity_headlines(result)),
            note="Jensen-Shannon distance: 0 the same distribution, 1 nothing in common; darker is farther."
            if by_site
            else "Intraclass correlation: the share of the variance that is between sites.",
            kind="heterogeneity",
        ),
        TableExhibit(title="Differences between sites", frame=_shifts(result), note=_note(), kind="heterogeneity"),
    ]
    if by_site and len(result.sites) <= MAX_SITES_NAMED:
        exhibits.append(
            TableExhibit(
                title="Means and shares by site",
                frame=_values(result),
                note=f"Numbers: mean; binary variables: share of the named level; missing: share. {ABSENT}: hidden, or "
                "no value.",
                kind="heterogeneity",
            )
        )
    return tuple(exhibits)


def _note() -> str:
    return (
        "ICC: intraclass correlation. Difference: root mean square difference of the sites from all together, in "
        "standard deviations. Sites apart: more than a quarter of a standard deviation from all."
    )


def _row_name(shift: Shift) -> str:
    return f"{shift.variable} missing" if shift.kind == "missing" else _name(shift)


def _shifts(result: HeterogeneityResult) -> pd.DataFrame:
    rows = {}
    for shift in result.shifts:
        df = str(shift.df) if shift.df_residual is None else f"{shift.df}, {shift.df_residual}"
        letter = "chi-square" if shift.df_residual is None else "F"
        rows[_row_name(shift)] = {
            "Kind": {"label": "outcome", "covariate": "covariate", "missing": "missing values"}[shift.kind],
            "Test": f"{letter}({df}) = {fixed_text(shift.statistic, 1)}",
            "p, corrected": p_text(shift.p_adjusted),
            "ICC": fixed_text(shift.intraclass_correlation, 3),
            "Difference": fixed_text(shift.difference, 2),
            "Jensen-Shannon": fixed_text(shift.jensen_shannon, 2),
            "Sites apart": f"{count_text(shift.sites_apart)} of {shift.num_sites}"
            if shift.sites_apart is not None
            else f"a few of {shift.num_sites}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _values(result: HeterogeneityResult) -> pd.DataFrame:
    rows = {"Records": dict(zip(result.sites, map(count_text, result.site_sizes or ()), strict=True))}
    for shift in result.shifts:
        known = {one.site: _shown(shift, one) if one.value is not None else ABSENT for one in shift.sites or ()}
        if any(text != ABSENT for text in known.values()):
            rows[_row_name(shift)] = known
    return pd.DataFrame.from_dict(rows, orient="index")


def heterogeneity_figure(result: HeterogeneityResult) -> Figure:
    """Distances by site and variable; without sites' own figures, the variables' intraclass correlations."""
    return _correlations(result) if result.site_sizes is None else _map(result)


def _labels(axes: Any, shifts: list[Shift]) -> None:
    axes.set_yticks(range(len(shifts)), [_row_name(shift)[:40] for shift in shifts])
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _map(result: HeterogeneityResult) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    shifts = list(result.shifts[:MAX_ROWS])
    is_named = len(result.sites) <= MAX_SITES_NAMED
    figure = Figure(figsize=(6.5, 1.6 + 0.27 * len(shifts)), layout="constrained")
    axes = figure.subplots()
    for row, shift in enumerate(shifts):
        for column, one in enumerate(shift.sites or ()):
            distance = one.jensen_shannon
            if distance is None:
                place = (column - 0.5, row - 0.5)
                axes.add_patch(Rectangle(place, 1, 1, fill=False, hatch="//", linewidth=0, edgecolor="0.7"))
                continue
            opacity = _STRONGEST * min(distance, 1.0)
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color="C0", alpha=opacity, linewidth=0))
            if is_named:
                axes.text(column, row, f"{distance:.2f}", ha="center", va="center", fontsize=8, color="black")
    axes.set_xlim(-0.5, len(result.sites) - 0.5)
    axes.set_ylim(len(shifts) - 0.5, -0.5)
    _labels(axes, shifts)
    axes.xaxis.tick_top()
    if is_named:
        axes.set_xticks(range(len(result.sites)), [site[:20] for site in result.sites])
        if max(map(len, result.sites)) * len(result.sites) > 50:
            axes.tick_params(axis="x", labelrotation=60)
    else:
        axes.set_xticks([])
        axes.set_title(f"{len(result.sites)} sites", fontsize="medium")
    part = f"; the {len(shifts)} largest of {len(result.shifts)}" if len(result.shifts) > len(shifts) else ""
    axes.set_xlabel(f"Jensen-Shannon distance from all sites (hatched: hidden, or no value{part})")
    return figure


def _correlations(result: HeterogeneityResult) -> Figure:
    from matplotlib.figure import Figure

    shifts = list(result.shifts[:MAX_ROWS])
    values = np.array([shift.intraclass_correlation for shift in shifts])
    figure = Figure(figsize=(6.5, 1.1 + 0.27 * len(shifts)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(shifts))
    axes.hlines(places, 0, values, color="C0", linewidth=1.5)
    for kind, marker, color, words in (
        ("label", "D", "C1", "outcome"),
        ("covariate", "o", "C0", "covariate"),
        ("missing", "s", "C2", "missing values"),
    ):
        chosen = [i for i, shift in enumerate(shifts) if shift.kind == kind]
        if chosen:
            axes.plot(values[chosen], places[chosen], marker, color=color, linestyle="none", label=words)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_ylim(len(shifts) - 0.5, -0.5)
    _labels(axes, shifts)
    axes.spines["bottom"].set_visible(True)
    axes.legend(frameon=False)
    axes.set_xlabel("Intraclass correlation: share of the variance between sites")
    return figure
