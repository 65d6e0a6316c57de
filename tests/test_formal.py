"""The models of formal/: what holds of the protocol, and that attacks are found where a rule is taken away."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "formal"


def _module(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"formal_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


prove = _module("prove")
rounds = _module("rounds")


@pytest.mark.parametrize(("rules", "broken"), [pytest.param(*case[1:], id=case[0]) for case in rounds.FULL])
def test_every_state_of_a_round(rules, broken):
    outcome = rounds.search(rules)
    assert outcome.broken == broken
    assert outcome.fewest_in_a_sum == rules.minimum_survivors - rules.colluding_sites


@pytest.mark.parametrize(("rules", "broken"), [pytest.param(*case[1:], id=case[0]) for case in rounds.WEAKENED])
def test_an_attack_is_found_where_a_rule_is_taken_away(rules, broken):
    assert broken in rounds.search(rules, stop_at=broken).broken


@pytest.mark.parametrize(
    ("num_sites", "threshold", "minimum_survivors", "colluding_sites"),
    [(4, 3, 3, 0), (4, 3, 3, 1), (5, 4, 4, 1), (5, 4, 4, 2), (5, 3, 4, 0)],
)
def test_smallest_sum_of_two_legs(num_sites, threshold, minimum_survivors, colluding_sites):
    rules = rounds.Rules(
        num_sites=num_sites,
        threshold=threshold,
        minimum_survivors=minimum_survivors,
        colluding_sites=colluding_sites,
        is_strict=False,
    )
    outcome = rounds.search(rules)
    assert outcome.fewest_in_a_sum == rounds.fewest_by_formula(rules)
    assert rounds.TOTALS not in outcome.broken


def test_two_legs_let_out_a_sum_below_the_least_survivors():
    rules = rounds.replace(rounds.FIVE, is_strict=False)
    found = rounds.search(rules, stop_at=rounds.ISOLATION).fewest_in_a_sum
    assert found == rounds.fewest_by_formula(rules) == 2 < rules.minimum_survivors


@pytest.mark.parametrize("model", ["setup.pv", "round.pv"])
def test_every_marked_rule_is_taken_away_once(model):
    marked = set(re.findall(r"\(\*@(?:not )?(\w+)\*\)", (FOLDER / model).read_text("utf-8")))
    assert marked == {rule for variant in prove.VARIANTS if variant.model == model for rule in variant.without}


def test_a_rule_taken_away_changes_the_model():
    whole = prove.Variant("round.pv", (), frozenset())
    weakened = prove.Variant("round.pv", ("keys",), frozenset())
    assert "context(nothing, asked, said)" not in prove.text_of(whole)
    assert "context(k, asked, said)" not in prove.text_of(weakened)


@pytest.mark.skipif(
    prove.program() is None, reason="ProVerif is not installed (formal/README.md says how); its models were not run"
)
@pytest.mark.parametrize("variant", prove.VARIANTS, ids=lambda v: f"{v.model}-{'-'.join(v.without) or 'whole'}")
def test_proverif(variant):
    found = prove.results(variant, prove.program())
    assert prove.is_as_expected(variant, found), found
