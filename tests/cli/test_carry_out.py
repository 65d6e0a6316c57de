"""Analyses carried out one after the other."""

import wardround as wr
from tests.report.conftest import hospital
from wardround.analytics.census import count
from wardround.cli.carry_out import carry_out, outcome_text
from wardround.data.contract import Setting
from wardround.report.html import render_report
from wardround.report.outcome import Failure
from wardround.studies.extensions import installed_vocabulary
from wardround.studies.study import parse_study
from wardround.sums import Steps, Vocabulary, ask, workflow

STUDY = """
[study]
name = "n"
question = "q"
[[analysis]]
workflow = "counting"
[[analysis]]
workflow = "census"
"""


def test_what_is_no_result_fails_and_leaves_the_others_standing():
    @workflow("counting", version=1)
    def counting(setting: Setting) -> Steps[int]:
        """Count."""
        return (yield from ask(count)).sum.num_records

    installed = installed_vocabulary()
    vocabulary = Vocabulary(dict(installed.functions), {**installed.workflows, "counting": counting})
    study = parse_study(STUDY, vocabulary)
    outcome = carry_out(study, wr.simulate({"North": hospital(1, "m"), "South": hospital(2, "m")}))
    first, second = outcome.analyses
    assert isinstance(first.result, Failure)
    assert first.failure.startswith("the workflow gave a int, which is no result that can be shown; return one with")
    assert first.facts.rounds == 1
    assert second.failure is None
    assert "No result: the workflow gave a int" in outcome_text(outcome)
    assert "which is no result that can be shown" in render_report(outcome)
    assert outcome.to_dict()["analyses"][0]["result"] is None
