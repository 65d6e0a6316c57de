"""The result of a comparison of sites: shifts in order of their size, with tests, distances and, where allowed, sites.

References:
    Rao (1948), Proc Cambridge Phil Soc 44 (score test).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from wardround.analytics.brackets import Counts
from wardround.analytics.glm_fit import Fit
from wardround.analytics.glm_sums import Model, Terms
from wardround.analytics.heterogeneity_statistics import SiteTest, corrected, equality_test
from wardround.analytics.heterogeneity_sums import Deviation, Deviations, Item, SiteHistograms, SiteScores, deviations
from wardround.analytics.journal_text import p_text
from wardround.analytics.linear import unpack_symmetric
from wardround.analytics.preparation import Prepared
from wardround.analytics.result import Exhibit, json_text, json_value
from wardround.analytics.small_cells import hidden_cells, hidden_sizes
from wardround.data.contract import Setting
from wardround.privacy.disclosure import DisclosureRules

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = NDArray[np.float64]
ShiftKind: TypeAlias = Literal["label", "covariate", "missing"]

MAX_BINS = 50
"""Most bins that a number is cut into."""
FEWEST_SITES = 3
"""Fewest sites that are compared, or, other than none, counted, where sites' own figures are not allowed."""
MUCH_SMALL = 0.2
"""Share of cells with a small expected count from which on a chi-square test is said to be rough."""
NUM_DECIMALS = 3
"""Decimals of what is shown of a single site: more would tell its counts."""
LEVEL = 0.05
"""Corrected p-value below which a difference is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteShift:
    """One site in one shift; None where too few records would show.

    Attributes:
        site: which.
        num_values: records with a value (of a missingness shift: all records).
        value: mean of a number; share of a binary variable's second level; share missing; None for other categories.
        difference: from all sites, in standard deviations.
        jensen_shannon: distance from all sites' distribution over bins, in [0, 1].
        total_variation: likewise.
        wasserstein: of numbers, in standard deviations.
    """

    site: str
    num_values: int | None
    value: float | None
    difference: float | None
    jensen_shannon: float | None
    total_variation: float | None
    wasserstein: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How much one variable, or whether it is missing, differs between sites.

    Attributes:
        kind: of the outcome (label), of a covariate, or of what is missing.
        variable: its name.
        test: which test of equality over sites.
        statistic: F, or chi-square.
        df: degrees of freedom.
        df_residual: of F; None for chi-square.
        p_value: of the test.
        p_adjusted: corrected for the number of tests.
        rank_p_value: of numbers, of the Kruskal-Wallis test on the bins.
        intraclass_correlation: share of the variance that is between sites; about 0, and then at times below, where
            there is no difference.
        difference: root mean square, over records, of their site's difference from all sites, in standard deviations.
        jensen_shannon: mean, over records, of their site's distance.
        total_variation: likewise.
        wasserstein: likewise, of numbers.
        num_sites: sites with a value.
        sites_apart: of them, those more than a quarter of a standard deviation from all; None: one or a few.
        is_rough: many cells expect fewer than 5 records, so that the chi-square test is rough.
        sites: each site; None where sites' own figures are not asked.
    """

    kind: ShiftKind
    variable: str
    test: Literal["analysis of variance", "chi-square"]
    statistic: float
    df: int
    df_residual: int | None
    p_value: float
    p_adjusted: float
    rank_p_value: float | None
    intraclass_correlation: float
    difference: float
    jensen_shannon: float
    total_variation: float
    wasserstein: float | None
    num_sites: int
    sites_apart: int | None
    is_rough: bool
    unit: str | None
    level: str | None
    sites: tuple[SiteShift, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditional:
    """Score test of whether the outcome, given covariates, differs between sites.

    Attributes:
        adjusted_for: the covariates.
        statistic: chi-square.
        df: sites less one.
        p_value: of the test.
        num_records: complete ones; None: hidden.
    """

    adjusted_for: tuple[str, ...]
    statistic: float
    df: int
    p_value: float
    num_records: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeterogeneityResult:
    """How the sites differ.

    Attributes:
        outcome: whose difference is the label shift.
        shifts: the largest intraclass correlation first.
        conditional: of the outcome given covariates, where it was asked for.
        num_records: records of all sites; None: hidden.
        site_sizes: records of each site, None where hidden; None where sites' own figures are not asked.
        num_bins: that numbers were cut into.
        correction: of the p-values.
        minimum_cell: least count that is shown.
        sites: in every sum.
        notes: what the reader should know.
    """

    outcome: str | None
    shifts: tuple[Shift, ...]
    conditional: Conditional | None
    num_records: int | None
    site_sizes: tuple[int | None, ...] | None
    num_bins: int
    correction: Literal["holm", "bh"]
    minimum_cell: int
    sites: tuple[str, ...]
    notes: tuple[str, ...]

    def shift(self, variable: str, kind: ShiftKind = "covariate") -> Shift:
        """The shift of this variable and kind. Raises `ValueError` naming those there are."""
        for shift in self.shifts:
            if (shift.variable, shift.kind) == (variable, kind):
                return shift
        known = ", ".join(f"{s.variable} ({s.kind})" for s in self.shifts[:20])
        raise ValueError(f"no {kind} shift of {variable!r}; there are {known}")

    def to_frame(self) -> pd.DataFrame:
        """A row a shift, indexed by variable and kind, the largest first."""
        names = (
            "test", "statistic", "df", "p_value", "p_adjusted", "intraclass_correlation", "difference",
            "jensen_shannon", "total_variation", "wasserstein", "num_sites",
        )  # fmt: skip
        rows = [
            {"variable": s.variable, "kind": s.kind, **{name: getattr(s, name) for name in names}} for s in self.shifts
        ]
        return pd.DataFrame(rows).set_index(["variable", "kind"])

    def site_frame(self, figure: str = "jensen_shannon") -> pd.DataFrame:
        """A row a shift, a column a site: one of the figures of `SiteShift`.

        Raises:
            ValueError: sites' own figures were not asked, or there is no such figure.
        """
        if self.site_sizes is None:
            raise ValueError("the sites' own figures were not asked (by_site)")
        if figure not in SiteShift.__slots__ or figure == "site":
            raise ValueError(f"figure must be one of {', '.join(SiteShift.__slots__[1:])}, got {figure!r}")
        index = pd.MultiIndex.from_tuples([(s.variable, s.kind) for s in self.shifts], names=["variable", "kind"])
        rows = [{one.site: getattr(one, figure) for one in s.sites or ()} for s in self.shifts]
        return pd.DataFrame(rows, index=index, dtype=float)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return dict(json_value(asdict(self)))

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict())

    def summary(self) -> str:
        """The findings in words, then the shifts as a table."""
        frame = self.to_frame()[["test", "p_adjusted", "intraclass_correlation", "difference", "jensen_shannon"]]
        frame["p_adjusted"] = [p_text(p) for p in frame["p_adjusted"]]
        frame.columns = pd.Index(["test", "p (corrected)", "ICC", "difference (SD)", "JS distance"])
        size = "hidden" if self.num_records is None else self.num_records
        head = f"Differences between {len(self.sites)} sites with {size} records"
        table = frame.to_string(float_format="{:.3f}".format)
        return "\n".join([head, "", *self.headlines(), "", table, "", *self.notes])

    def headlines(self) -> tuple[str, ...]:
        """The largest differences, a sentence each."""
        from wardround.analytics.heterogeneity_exhibits import heterogeneity_headlines

        return heterogeneity_headlines(self)

    def plot(self) -> Figure:
        """Distances by site and variable; without sites' own figures, the variables' intraclass correlations."""
        from wardround.analytics.heterogeneity_exhibits import heterogeneity_figure

        return heterogeneity_figure(self)

    def methods(self) -> str:
        """What was computed, as a methods section says it."""
        from wardround.analytics.heterogeneity_exhibits import heterogeneity_methods

        return heterogeneity_methods(self)

    @property
    def references(self) -> tuple[str, ...]:
        """The papers behind it."""
        from wardround.analytics.heterogeneity_exhibits import heterogeneity_references

        return heterogeneity_references(self)

    def exhibits(self) -> tuple[Exhibit, ...]:
        """The figure, the table of shifts and, where allowed, the sites' figures."""
        from wardround.analytics.heterogeneity_exhibits import heterogeneity_exhibits

        return heterogeneity_exhibits(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemName:
    """What an item is called."""

    variable: str
    kind: ShiftKind
    unit: str | None
    levels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the sites' sums say, before anything is hidden."""

    outcome: str | None
    items: tuple[Item, ...]
    names: tuple[ItemName, ...]
    counts: Counts
    num_records: int
    has_repeats: bool
    total: Deviations
    slots: SiteHistograms | None
    references: tuple[Values, Values, Values]
    conditional: Conditional | None
    num_bins: int
    correction: Literal["holm", "bh"]


def summarise(setting: Setting, found: Found, sites: tuple[str, ...]) -> HeterogeneityResult:
    """Test, put in order, and hide what the rules hide."""
    rules = setting.disclosure
    bounds = np.cumsum([item.num_bins for item in found.items])[:-1]
    by_item = np.split(found.counts, bounds)
    pairs = zip(found.items, by_item, strict=True)
    tests = [equality_test(item, counts, found.total, i) for i, (item, counts) in enumerate(pairs)]
    adjusted = corrected(np.array([test.p_value for test in tests]), found.correction)
    at_sites = _at_sites(rules, found, setting.sites, sites) if found.slots is not None else None
    shifts = [
        _shift(found, i, test, float(p), None if at_sites is None else at_sites[i])
        for i, (test, p) in enumerate(zip(tests, adjusted, strict=True))
    ]
    shifts.sort(key=lambda shift: -shift.intraclass_correlation if shift.df > 0 else np.inf)
    sizes = None if found.slots is None else _site_sizes(rules, found.slots, setting.sites, sites)
    return HeterogeneityResult(
        outcome=found.outcome,
        shifts=tuple(shifts),
        conditional=_shown_conditional(rules, found.conditional),
        num_records=rules.shown(found.num_records),
        site_sizes=sizes,
        num_bins=found.num_bins,
        correction=found.correction,
        minimum_cell=rules.minimum_cell,
        sites=sites,
        notes=_notes(shifts, sizes, found.has_repeats),
    )


def _shift(found: Found, i: int, test: SiteTest, adjusted: float, sites: tuple[SiteShift, ...] | None) -> Shift:
    item, name, total = found.items[i], found.names[i], found.total
    bounds = np.cumsum([0, *(one.num_bins for one in found.items)])
    counts = found.counts[bounds[i] : bounds[i + 1]]
    num, num_sites = max(int(counts.sum()), 1), round(float(total.num_sites[i]))
    num_apart = round(float(total.num_notable[i]))
    is_told = sites is not None or num_apart == 0 or num_apart >= FEWEST_SITES
    num_cells = num_sites * max(int((counts > 0).sum()), 1)
    return Shift(
        kind=name.kind,
        variable=name.variable,
        test=test.name,
        statistic=test.statistic,
        df=test.df,
        df_residual=test.df_residual,
        p_value=test.p_value,
        p_adjusted=adjusted,
        rank_p_value=test.rank_p_value,
        intraclass_correlation=test.correlation,
        difference=float(np.sqrt(total.difference[i] / num)),
        jensen_shannon=float(total.jensen_shannon[i] / num),
        total_variation=float(total.total_variation[i] / num),
        wasserstein=float(total.wasserstein[i] / num) if item.kind == "number" else None,
        num_sites=num_sites,
        sites_apart=num_apart if is_told else None,
        is_rough=item.kind != "number" and float(total.num_small[i]) > MUCH_SMALL * max(num_cells, 1),
        unit=name.unit,
        level=name.levels[1] if len(name.levels) == 2 else None,
        sites=sites,
    )


def _site_sizes(
    rules: DisclosureRules, slots: SiteHistograms, roster: tuple[str, ...], sites: tuple[str, ...]
) -> tuple[int | None, ...]:
    hidden = hidden_sizes(slots.num_records, rules.minimum_cell)
    return tuple(
        None if hidden[slot] else rules.shown(int(slots.num_records[slot]))
        for slot, site in enumerate(roster)
        if site in sites
    )


def _at_sites(
    rules: DisclosureRules, found: Found, roster: tuple[str, ...], sites: tuple[str, ...]
) -> list[tuple[SiteShift, ...]]:
    """Every item at every site that answered."""
    assert found.slots is not None  # the caller looked
    sizes = hidden_sizes(found.slots.num_records, rules.minimum_cell)
    bounds = np.cumsum([item.num_bins for item in found.items])[:-1]
    by_item = np.split(found.slots.num_in_bin, bounds, axis=1)
    references = [np.split(array, bounds) for array in found.references]
    own = [_hidden(rules, item, counts) for item, counts in zip(found.items, by_item, strict=True)]
    # A site's number of values gives its number of missing ones back.
    lacking = {item.variable: own[i] for i, item in enumerate(found.items) if item.kind == "missing"}
    rows = []
    for i, (item, counts) in enumerate(zip(found.items, by_item, strict=True)):
        of_item = [array[i] for array in references]
        hidden = sizes | own[i] | lacking.get(item.variable, sizes)
        shown = []
        for slot in [slot for slot, site in enumerate(roster) if site in sites]:
            mean, square_sum = float(found.slots.mean[slot, i]), float(found.slots.square_sum[slot, i])
            one = None if own[i][slot] else deviations(item, counts[slot], mean, square_sum, *of_item)
            num = None if hidden[slot] else rules.shown(int(counts[slot].sum()))
            shown.append(_site_shift(item, roster[slot], one, num, counts[slot], mean))
        rows.append(tuple(shown))
    return rows


def _hidden(rules: DisclosureRules, item: Item, counts: Counts) -> NDArray[np.bool_]:
    """Sites whose figures of an item are hidden: few records, or a share that would tell a small count."""
    few = hidden_sizes(counts.sum(axis=1), rules.minimum_cell)
    if item.num_bins == 2 and item.kind != "number":
        few = few | hidden_cells(counts.T, few, rules.minimum_cell)[:, 1:].any(axis=0)
    return few


def _site_shift(
    item: Item, site: str, one: Deviation | None, num: int | None, counts: Counts, mean: float
) -> SiteShift:
    if one is None:
        return SiteShift(
            site=site,
            num_values=num,
            value=None,
            difference=None,
            jensen_shannon=None,
            total_variation=None,
            wasserstein=None,
        )
    value: float | None = None
    if item.kind == "number":
        value = item.center + item.scale * mean
    elif item.num_bins == 2:
        value = round(float(counts[1] / counts.sum()), NUM_DECIMALS)
    return SiteShift(
        site=site,
        num_values=num,
        value=value,
        difference=round(one.difference, NUM_DECIMALS),
        jensen_shannon=round(one.jensen_shannon, NUM_DECIMALS),
        total_variation=round(one.total_variation, NUM_DECIMALS),
        wasserstein=round(one.wasserstein, NUM_DECIMALS) if item.kind == "number" else None,
    )


def score_test(
    adjusted_for: tuple[str, ...], prepared: Prepared, model: Model, fit: Fit, scores: SiteScores
) -> Conditional:
    """Rao's score test of intercepts of the sites, from sums over sites alone.

    With U the sites' residuals, D their weights (a diagonal), C the columns' weighted sums at the sites and G the Gram
    matrix, the statistic is U'D^-1 U + (C D^-1 U)' K^- (C D^-1 U) with K = G - C D^-1 C'.
    """
    terms: Terms = fit.total.sum
    num_sites = round(scores.num_sites)
    rest = fit.gram - unpack_symmetric(scores.gram)
    size = np.sqrt(np.maximum(np.diag(fit.gram), 1e-300))
    inverse = np.linalg.pinv(rest / np.outer(size, size), rcond=1e-11, hermitian=True)
    cross = scores.cross / size
    statistic = scores.square + float(cross @ inverse @ cross)
    if model.family == "gaussian":
        statistic /= terms.pearson / (terms.num_rows - prepared.design.num_columns)
    df = num_sites - 1
    return Conditional(
        adjusted_for=adjusted_for,
        statistic=statistic,
        df=df,
        p_value=float(special.chdtrc(df, statistic)) if df > 0 else float("nan"),
        num_records=prepared.num_complete,
    )


def _shown_conditional(rules: DisclosureRules, found: Conditional | None) -> Conditional | None:
    if found is None or found.num_records is None:
        return found
    return Conditional(
        adjusted_for=found.adjusted_for,
        statistic=found.statistic,
        df=found.df,
        p_value=found.p_value,
        num_records=rules.shown(found.num_records),
    )


def _notes(shifts: list[Shift], sizes: tuple[int | None, ...] | None, has_repeats: bool) -> tuple[str, ...]:
    notes = []
    rough = [f"{s.variable} ({s.kind})" for s in shifts if s.is_rough]
    if rough:
        shown = ", ".join(rough[:6]) + (", ..." if len(rough) > 6 else "")
        notes.append(f"{shown}: many cells expect fewer than 5 records, so that the chi-square test is rough")
    if has_repeats:
        notes.append("some patients have several records; the tests take records as independent")
    if sizes is None:
        notes.append("only sums over sites were asked: they tell how much the sites differ, not which site does")
    if any(s.num_sites < 2 for s in shifts):
        notes.append("a variable that one site alone has cannot be compared")
    return tuple(notes)


__all__ = ["Conditional", "Found", "HeterogeneityResult", "ItemName", "Shift", "SiteShift", "score_test", "summarise"]
