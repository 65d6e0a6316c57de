"""Ranges rounded outward, so that a contract lists no patient's extreme value."""

from __future__ import annotations

import datetime as dt
import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext

from wardround.data.reading import day_of, day_text

_LARGEST = 1e300  # wider ranges are left as they are rather than overflow


def rounded_range(low: float, high: float, *, is_integer: bool) -> tuple[float, float] | None:
    """A range that holds `low` and `high`, in steps of 1, 2 or 5 times a power of ten.

    The step is at most a fifth of the span; a constant is rounded to its first
    digit. Integers are rounded to whole steps.

    Guarantees:
        range_holds_both_ends: `range[0] <= low` and `high <= range[1]`.
    """
    largest = max(abs(low), abs(high))
    if largest > _LARGEST:
        return None
    width = high - low
    step = _step_below(width / 5 if width > 0 else abs(high)) if largest else Decimal(1)
    if is_integer:
        step = max(step, Decimal(1))
    with localcontext() as context:
        context.prec = 1000  # exact for every float64
        least = (Decimal(repr(low)) / step).to_integral_value(ROUND_FLOOR) * step
        greatest = (Decimal(repr(high)) / step).to_integral_value(ROUND_CEILING) * step
        if least == greatest:
            greatest += step
    return float(least), float(greatest)


def rounded_days(low: float, high: float, *, is_integer: bool = False) -> tuple[float, float]:
    """Whole years that hold the days `low` and `high` (unit: days since 1970-01-01)."""
    first, last = dt.date.fromisoformat(day_text(low)).year, dt.date.fromisoformat(day_text(high)).year
    begin, end = day_of(f"{first:04}-01-01"), day_of(f"{last:04}-12-31")
    assert begin is not None  # the first day of a year is a date
    assert end is not None
    return begin, end


def _step_below(size: float) -> Decimal:
    """The largest of 1, 2, 5 times a power of ten that is at most `size`."""
    if size < 1e-300:
        return Decimal("1e-300")
    power = Decimal(10) ** math.floor(math.log10(size))
    return max(power * factor for factor in (Decimal("0.5"), 1, 2, 5) if power * factor <= Decimal(size) or factor < 1)
