"""Runs ProVerif on the models of this folder, as they stand and with one rule at a time taken away.

`python formal/prove.py` needs the program `proverif` (2.05 was used) on the path, or its place in the environment
variable PROVERIF.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
TIMEOUT_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Variant:
    """A model, the rules taken out of it, and the queries (by number, from 1) for which an attack must be found."""

    model: str
    without: tuple[str, ...]
    attacked: frozenset[int]


# The last queries of each model ask for an ordinary run to be found, so that nothing holds because nothing can happen.
VARIANTS = (
    Variant("setup.pv", (), frozenset({5})),
    Variant("setup.pv", ("signatures",), frozenset({1, 2, 3, 5})),
    Variant("setup.pv", ("x25519",), frozenset({5})),
    Variant("setup.pv", ("ml_kem",), frozenset({5})),
    Variant("setup.pv", ("x25519", "ml_kem"), frozenset({1, 2, 5})),
    Variant("round.pv", (), frozenset({8, 9})),
    Variant("round.pv", ("one_survivors_set",), frozenset({1, 3, 4, 5, 6, 8, 9})),
    Variant("round.pv", ("once",), frozenset({7, 8, 9})),
    Variant("round.pv", ("broadcast",), frozenset({2, 8, 9})),
    Variant("round.pv", ("keys",), frozenset({1, 8, 9})),
    Variant("round.pv", ("agreement",), frozenset({1, 8, 9})),
    Variant("round.pv", ("threshold",), frozenset({1, 3, 4, 5, 6, 8, 9})),
    Variant("round.pv", ("one_kind",), frozenset({3, 4, 5, 6, 8, 9})),
)


def program() -> str | None:
    """The place of ProVerif, or None."""
    return os.environ.get("PROVERIF") or shutil.which("proverif")


def text_of(variant: Variant) -> str:
    """The model without lines marked `(*@rule*)`, and with those marked `(*@not rule*)`, of the rules taken away."""
    lines = []
    for line in (FOLDER / variant.model).read_text("utf-8").splitlines():
        marks = re.findall(r"\(\*@(not )?(\w+)\*\)", line)
        needs = {rule for negated, rule in marks if negated}
        if needs <= set(variant.without) and not {rule for negated, rule in marks if not negated} & set(
            variant.without
        ):
            lines.append(line)
    return "\n".join(lines) + "\n"


def results(variant: Variant, prover: str) -> list[str]:
    """What ProVerif says of each query: "true", "false" (an attack was found), or "cannot be proved"."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / variant.model
        path.write_text(text_of(variant), "utf-8")
        said = subprocess.run(  # noqa: S603 - the program is the user's own choice
            [prover, str(path)], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        ).stdout
    summary = said.rpartition("Verification summary:")[2]
    return re.findall(r"^(?: - )?Query .* (?:is )?(true|false|cannot be proved)\.$", summary, flags=re.MULTILINE)


def is_as_expected(variant: Variant, found: list[str]) -> bool:
    """Whether every query is decided, and attacks were found just where they should be."""
    attacked = {number for number, result in enumerate(found, start=1) if result == "false"}
    return bool(found) and "cannot be proved" not in found and attacked == variant.attacked


def main() -> int:
    """Run all variants; 0 when each ends as it should."""
    prover = program()
    if prover is None:
        sys.stderr.write("proverif is not on the path: install it, or set PROVERIF to its place (formal/README.md)\n")
        return 2
    is_right = True
    for variant in VARIANTS:
        found = results(variant, prover)
        is_right &= is_as_expected(variant, found)
        name = f"{variant.model} without {' and '.join(variant.without) or 'nothing'}"
        verdict = "as expected" if is_as_expected(variant, found) else "NOT AS EXPECTED"
        sys.stdout.write(f"{name}: {', '.join(found) or 'no result'}: {verdict}\n")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
