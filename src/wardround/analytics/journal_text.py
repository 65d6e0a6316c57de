"""Numbers as journals print them: few digits, true minus signs, intervals as "1.32 (1.10 to 1.58)"."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
ABSENT = "\N{EN DASH}"
LEAST_P = 0.001
"""P-values below are printed as "<0.001"."""
LARGEST_RATIO = 1e4
"""Ratios above are printed as ">10000", those below one over it as "<0.0001"."""
_NARROW = 0.06
# Width of an interval around a ratio near 1 below which it is printed to three decimals.
_CATEGORY = re.compile(r"C\((\w+)\)")
_LEVEL = re.compile(r"(?:C\((.*?)(?:, .*)?\)|(.*?))\[(?:T\.)?(.*)\]", re.DOTALL)


def p_text(p_value: float) -> str:
    """A p-value to three decimals, "<0.001" below and ">0.999" above; a dash where there is none."""
    if math.isnan(p_value):
        return ABSENT
    if p_value < LEAST_P:
        return f"<{LEAST_P}"
    return f">{1 - LEAST_P}" if p_value >= 1 - LEAST_P / 2 else f"{p_value:.3f}"


def p_relation(p_value: float) -> str:
    """A p-value as it stands behind "P": "= 0.012", "<0.001"."""
    text = p_text(p_value)
    return text if text[0] in "<>" else f"= {text}"


def fixed_text(value: float, decimals: int) -> str:
    """A number with so many decimals, a true minus sign before it; a dash where there is none."""
    if math.isnan(value):
        return ABSENT
    if math.isinf(value):
        return "\N{INFINITY}" if value > 0 else f"{MINUS}\N{INFINITY}"
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)


def ratio_text(value: float) -> str:
    """A ratio (of odds, hazards, means) to two decimals or two digits, whichever says more of it."""
    if math.isnan(value):
        return ABSENT
    if value > LARGEST_RATIO:
        return f">{LARGEST_RATIO:.0f}"
    if value < 1 / LARGEST_RATIO:
        return f"<{1 / LARGEST_RATIO:.4f}"
    decimals = 2 if 0.095 <= value < 10 else 1 - math.floor(math.log10(value)) if value < 1 else int(value < 100)
    return f"{value:.{decimals}f}"


def ratio_interval(estimate: float, low: float, high: float) -> str:
    """A ratio with its interval: "1.32 (1.10 to 1.58)"."""
    if low > 0.5 and high < 2 and high - low < _NARROW:  # near 1, two decimals would hide the interval
        return f"{estimate:.3f} ({low:.3f} to {high:.3f})"
    return f"{ratio_text(estimate)} ({ratio_text(low)} to {ratio_text(high)})"


def interval_text(estimate: float, low: float, high: float) -> str:
    """An estimate with its interval, with as many decimals as its uncertainty calls for."""
    decimals = decimals_for((high - low) / 2 if math.isfinite(high - low) else estimate)
    shown = [fixed_text(value, decimals) for value in (estimate, low, high)]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


def decimals_for(uncertainty: float) -> int:
    """How many decimals show two digits of an uncertainty of this size, at most 8."""
    if not math.isfinite(uncertainty) or uncertainty == 0:
        return 2
    return min(8, max(0, 1 - math.floor(math.log10(abs(uncertainty)))))


def percent_text(confidence: float) -> str:
    """A confidence as "95%"."""
    return f"{100 * confidence:.4g}%"


def count_text(count: float | None) -> str:
    """A count; "hidden" where the disclosure rules hide it (None)."""
    return "hidden" if count is None else f"{count:.10g}"


def plain_term(term: str) -> str:
    """A formula's term as people call it: "C(sex)[T.Male]:age" is "sex: Male × age"."""
    return f" {TIMES} ".join(_plain_factor(factor) for factor in _factors(" ".join(term.split())))


def _factors(term: str) -> list[str]:
    """The parts of an interaction: split at colons that stand in no bracket."""
    factors, depth = [""], 0
    for character in term:
        depth = max(0, depth + (character in "([") - (character in ")]"))
        if character == ":" and depth == 0:
            factors.append("")
        else:
            factors[-1] += character
    return factors


def _plain_factor(factor: str) -> str:
    match = _LEVEL.fullmatch(factor)
    if match is None:
        category = _CATEGORY.fullmatch(factor)
        return (category[1] if category else factor).replace("_", " ")
    name, level = (match[1] or match[2]).replace("_", " "), match[3]
    return name if level == "True" else f"{name}: {level}"


def sentence(text: str) -> str:
    """A remark as a sentence: capital letter, full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def time_label(time: str, unit: str | None) -> str:
    """A time with its unit, as an axis is labelled; a time that is called by its unit has it once."""
    name = time.replace("_", " ")
    return name if not unit or unit.casefold() == name.casefold() else f"{name} ({unit})"


def as_sentences(notes: Iterable[str]) -> str:
    """Notes one after the other, each as a sentence."""
    return " ".join(sentence(note) for note in notes if note)


def listed(items: list[str] | tuple[str, ...]) -> str:
    """Items as a sentence lists them: "a", "a and b", "a, b and c"."""
    *first, last = items or [""]
    return f"{', '.join(first)} and {last}" if first else last
