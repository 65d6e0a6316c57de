"""How sums were protected, as a report and its JSON say it."""

from dataclasses import replace

import numpy as np
import pytest

from tests.samples import Moments, moments
from wardround.cli.carry_out import outcome_text
from wardround.engines.record import Round
from wardround.privacy.protection import PLAIN, SumProtection
from wardround.privacy.secagg.terms import Terms
from wardround.report.html import render_report
from wardround.report.outcome import StudyOutcome
from wardround.report.protection import SumsInWords, named
from wardround.report.run_facts import RoundFacts, RunFacts
from wardround.sums import Ask, Total


def words(protection, num_sites=10, minimum_sites=None, noun="hospital"):
    sums = SumsInWords.of(protection, num_sites, minimum_sites, noun=noun)
    return sums, {one.question: one.answer for one in sums.said()}


def shown(outcome: StudyOutcome, protection, num_sites=10, minimum_sites=None) -> str:
    """The section of a report."""
    sums = SumsInWords.of(protection, num_sites, minimum_sites, noun="hospital")
    page = render_report(replace(outcome, sums=sums))
    return page[page.index('<section id="sums"') : page.index('<section id="analysis-1"')]


def with_log(outcome: StudyOutcome, **changes) -> StudyOutcome:
    """The outcome with the first round of its first analysis changed."""
    first, *others = outcome.analyses
    assert isinstance(first.facts, RunFacts)
    log = (replace(first.facts.log[0], **changes), *first.facts.log[1:])
    return replace(outcome, analyses=(replace(first, facts=replace(first.facts, log=log)), *others))


def test_secure_sums_over_all_sites():
    sums, said = words(SumProtection())
    assert sums.line() == (
        "Secure sums: the coordinator sees sums over all 10 hospitals, never what one hospital contributes."
    )
    assert "all 10 hospitals must be in it" in said["What if a hospital drops out?"]
    assert "as long as 7 hospitals are left" in said["What if a hospital drops out?"]
    assert "The coordinator and up to 3 hospitals" in said["Who could learn more by working together?"]
    assert "7 hospitals and the coordinator could open" in said["Who could learn more by working together?"]
    assert "release nothing unless 7 of them signed the same" in said["What if the coordinator lies?"]
    assert "this is not differential privacy" in said["What is not protected?"]
    assert sums.legs == 3


def test_sites_that_may_drop_out_and_collude():
    sums, said = words(SumProtection(colluding_sites=2, allows_repeats=False), minimum_sites=8, noun="site")
    assert "over at least 8 sites" in sums.line()
    assert "up to 2 of 10 sites may be missing: every sum is over at least 8" in said["What if a site drops out?"]
    assert "The study was planned for 2." in said["Who could learn more by working together?"]
    assert "an analysis that has to do so stops" in said["What if a site drops out?"]
    _, said = words(SumProtection(allows_repeats=True), minimum_sites=8, noun="site")
    assert "whoever subtracts the sum without the site from the one with it" in said["What if a site drops out?"]


def test_two_legs_say_whom_a_lie_isolates():
    terms = Terms.of(9, is_strict=False)
    sums, said = words(SumProtection(is_strict=False, allows_repeats=True), 9, 6)
    assert sums.legs == 2
    assert f"could get the sum over as few as {terms.num_isolated()} hospitals" in said["What if the coordinator lies?"]
    assert "as long as the coordinator keeps to the rules" in said["Who could learn more by working together?"]
    lying = SumProtection(is_strict=False, colluding_sites=30, threshold=67, allows_repeats=True)
    _, said = words(lying, 100, 67)
    assert (
        "helped by 30 hospitals, could get the sum over as few as 8 hospitals" in said["What if the coordinator lies?"]
    )
    _, said = words(SumProtection(), 3)
    assert "it cannot lie, as all 3 must be" in said["What if the coordinator lies?"]


def test_nobody_may_help_where_no_colluder_is_tolerated():
    _, said = words(SumProtection(threshold=3), 5)
    assert "no hospital may help it" in said["Who could learn more by working together?"]


def test_groups_are_told_of():
    sums, said = words(SumProtection(bucket_size=3), 11)
    assert sums.line().endswith(
        "sums over all 11 hospitals (and of model updates the sums of 3 groups), never what one hospital contributes."
    )
    assert "3 fixed groups of hospitals (1 with 3 and 2 with 4)" in said["Are there smaller sums?"]
    assert sums.to_dict()["bucket_sizes"] == [4, 4, 3]
    in_clear, _ = words(SumProtection(secure_sums=False, bucket_size=3), 11)
    assert in_clear.to_dict()["bucket_sizes"] == [4, 4, 3]
    assert in_clear.to_dict()["buckets"] == []


def test_sums_in_clear_are_called_so():
    sums, said = words(PLAIN)
    assert sums.line() == "Sums in clear: the coordinator sees what each hospital contributes."
    assert "secure_sums = false" in said["What does the coordinator see?"]
    assert sums.to_dict()["sum"] is None
    assert sums.legs == 1


@pytest.mark.parametrize(
    ("titles", "expected"),
    [([], ""), (["A"], "“A”"), (["A", "A", "B"], "“A” and “B”"), (["A", "B", "C"], "“A”, “B” and “C”")],
)
def test_titles_in_a_sentence(titles, expected):
    assert named(titles) == expected


def test_the_report_shows_it(outcome):
    section = shown(outcome, SumProtection(allows_repeats=False), minimum_sites=8)
    assert "never what one hospital contributes" in section
    assert "No: no analysis may ask a hospital for its own contribution in clear." in section
    assert "took three exchanges of messages" in section
    assert "nothing was hidden from the person who ran it" in section
    assert "masked" in render_report(replace(outcome, sums=SumsInWords.of(SumProtection(), 10, None)))
    assert "Bonawitz" not in render_report(outcome)
    groups = SumsInWords.of(SumProtection(bucket_size=3, allows_repeats=True), 10, 9, noun="hospital")
    least = replace(outcome, sums=groups, study=replace(outcome.study, minimum_sites=9))
    assert "over fewer than 9 hospitals, but for those of groups." in render_report(least)
    plain = shown(outcome, PLAIN)
    assert "Sums in clear" in plain
    assert "Did anything go round" not in plain


def test_the_report_names_analyses_in_clear(outcome):
    clear = with_log(outcome, is_clear=True)
    title = clear.analyses[0].analysis.title
    section = shown(clear, SumProtection(allows_clear=True))
    assert "But 1 of 2 analyses asked for just that, in clear." in section
    assert f"Yes: “{title}” asked every hospital for its own contribution, in clear" in section
    page = render_report(clear)
    assert page.count("In clear.</strong> For this analysis") == 1
    assert "each hospital, in clear" in page
    assert "IN CLEAR: every hospital was asked for its own contribution" in outcome_text(clear)
    assert "IN CLEAR" not in outcome_text(outcome)
    assert "it could read what each of them sent" in page
    assert "None did." in shown(outcome, SumProtection(allows_clear=True))
    assert clear.to_dict()["analyses"][0]["run"]["by_round"][0]["is_clear"]


@pytest.mark.parametrize("is_clear", [False, True])
def test_what_was_asked_in_clear_is_read_off_the_record(is_clear):
    ask = Ask(moments, {"center": np.zeros(2)}, is_clear=is_clear)
    total = Total(Moments(total=np.zeros(2), square=0.0, num_records=5), ("A",))
    round_ = Round(number=1, ask=ask, total=total, failures={}, bytes_up=48, seconds=0.1)
    assert RoundFacts.of(round_).is_clear is is_clear
    assert RoundFacts.of(round_).to_dict()["is_clear"] is is_clear


def test_the_report_names_analyses_that_tell_of_each_hospital(outcome):
    telling = with_log(outcome, tells_of_sites=True)
    section = shown(telling, SumProtection())
    secure = replace(telling, sums=SumsInWords.of(SumProtection(), 10, None))
    assert "But 1 of 2 analyses asks for what is each hospital's own, and the sums tell it" in secure.sums_line
    assert (
        "the sums tell what is each hospital&#39;s own" in section or "the sums tell what is each hospital's" in section
    )


def test_the_json_holds_the_terms(outcome):
    secure = replace(outcome, sums=SumsInWords.of(SumProtection(allows_repeats=True), 10, 8))
    document = secure.to_dict()["privacy"]
    assert document["secure_sums"]
    assert document["sum"] == {
        "sites": 10,
        "mode": "strict",
        "threshold": 7,
        "minimum_survivors": 8,
        "allows_repeats": True,
        "may_drop": 2,
        "tolerated_colluders": 3,
        "honest_in_a_total": 8,
        "isolated": 0,
    }
    assert not outcome.to_dict()["privacy"]["secure_sums"]
