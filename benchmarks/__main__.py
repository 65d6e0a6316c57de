"""`python -m benchmarks [--scale S] [NAME...]`: prints one table; 1 where a goal is missed, if `--strict`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

from benchmarks import codec, cox, engine, evaluate, glm, kaplan_meier, multivariate, report, secure_sums
from benchmarks.measure import COLUMNS, Row, cells

BENCHMARKS: dict[str, Callable[[float], Iterator[Row]]] = {
    "codec": codec.rows,
    "cox": cox.rows,
    "engine": engine.rows,
    "evaluate": evaluate.rows,
    "glm": glm.rows,
    "kaplan_meier": kaplan_meier.rows,
    "multivariate": multivariate.rows,
    "report": report.rows,
    "secure_sums": secure_sums.rows,
}
WIDTHS = (46, 12, 34, 7, 7, 4)


def main() -> int:
    """Run the benchmarks that were named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--scale", type=float, default=1.0, help="of the sizes; 0.01 for a quick look")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a goal is missed")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(BENCHMARKS)):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if not options.scale > 0:
        parser.error(f"--scale must be positive, got {options.scale}")
    missed = 0
    show(COLUMNS)
    for name in options.names or BENCHMARKS:
        for row in BENCHMARKS[name](options.scale):
            show(cells(row))
            missed += row.is_met is False
    return 1 if options.strict and missed else 0


def show(texts: tuple[str, ...]) -> None:
    """One line of the table, at once."""
    print("  ".join(text.ljust(width) for text, width in zip(texts, WIDTHS, strict=True)).rstrip(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
