"""`wardround privacy plan`: what it says of a study before anybody runs it."""

import json

import pytest

from tests.cli.conftest import STUDY
from wardround.cli.privacy_costs import Pricing, Question
from wardround.cli.privacy_plan import in_clear
from wardround.privacy.protection import SumProtection
from wardround.privacy.secagg import cost
from wardround.privacy.secagg.cost import Speeds, round_traffic, setup_traffic
from wardround.privacy.secagg.terms import Terms
from wardround.report.protection import SumsInWords
from wardround.sums import Array, Contribution, bounded, exact
from wardround.sums.accumulator import encoded_bytes
from wardround.sums.contribution import layout_of

TWO = STUDY + '[[analysis]]\nworkflow = "describe"\ntitle = "Table 1"\n'
IN_CLEAR = TWO + "[privacy]\nsecure_sums = false\n"
SPEEDS = Speeds(
    **dict.fromkeys(("encode", "hash", "add", "mask"), 1e9),
    **dict.fromkeys(("sign", "verify", "digest", "derive", "seal", "split", "combine"), 1e-4),
)


@pytest.fixture
def plan(run, study_file, tmp_path):
    """The plan of a study as JSON."""

    def invoke(text, *args):
        done = run("privacy", "plan", study_file(text), *args, "--json")
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    return invoke


@pytest.fixture
def with_contract(run, folder, tmp_path):
    """The study with a contract beside it."""
    assert run("contract", "infer", folder, "--output", tmp_path / "contract.toml").exit_code == 0
    return TWO.replace("[[analysis]]", 'contract = "contract.toml"\n[[analysis]]', 1)


def test_a_rehearsal_counts_the_rounds_that_a_run_takes(run, plan, study_file, folder):
    document = plan(TWO, "--simulate", folder)
    shown = run("run", study_file(IN_CLEAR), "--simulate", folder, "--json").stdout
    ran = [one["run"] for one in json.loads(shown)["analyses"]]
    cohort, *analyses = document["analyses"]
    assert cohort["title"] == "Counting the cohort"
    assert cohort["rounds"] == 1
    assert [one["title"] for one in analyses] == ["glm", "Table 1"]
    assert [one["rounds"] for one in analyses] == [facts["rounds"] for facts in ran]
    for one, facts in zip(analyses, ran, strict=True):
        terms = Terms.of(3, minimum_survivors=3)
        sizes = [(number["bytes"], number["bytes_received"]) for number in facts["by_round"]]
        traffic = [round_traffic(terms, vector, ask) for vector, ask in sizes]
        assert one["legs"] == 2 * facts["rounds"]
        assert one["site_bytes_sent"] == sum(each.site_up for each in traffic)
        assert one["site_bytes_received"] == sum(each.site_down for each in traffic)
        assert one["coordinator_bytes_received"] == 3 * one["site_bytes_sent"]
        assert one["site_seconds"] > 0
        assert one["problem"] is None
    assert document["set_up"]["site_bytes_sent"] == setup_traffic(3).site_up


def test_a_run_sends_what_the_plan_says_and_gives_what_a_run_in_clear_gives(run, plan, study_file, folder):
    planned = plan(TWO, "--simulate", folder)
    secure = json.loads(run("run", study_file(TWO), "--simulate", folder, "--json").stdout)
    plain = json.loads(run("run", study_file(IN_CLEAR), "--simulate", folder, "--json").stdout)
    assert secure["privacy"] == planned["privacy"]
    assert (secure["privacy"]["secure_sums"], plain["privacy"]["secure_sums"]) == (True, False)
    sent = [one["site_bytes_sent"] for one in planned["analyses"][1:]]
    assert [one["run"]["bytes"] for one in secure["analyses"]] == sent
    assert [one["result"] for one in secure["analyses"]] == [one["result"] for one in plain["analyses"]]
    text = run("run", study_file(TWO), "--simulate", folder).stdout
    assert "Secure sums: the coordinator sees sums over all 3 hospitals, never what one hospital contributes." in text


def test_a_rehearsal_asks_what_a_run_asks():
    assert in_clear(SumProtection(bucket_size=4)) == SumProtection(secure_sums=False, bucket_size=4)
    assert in_clear(SumProtection(colluding_sites=2, allows_clear=True)) == SumProtection(
        secure_sums=False, allows_clear=True
    )


def test_the_plan_in_words_fits_a_terminal(run, study_file, folder):
    done = run("privacy", "plan", study_file(TWO), "--simulate", folder)
    assert done.exit_code == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    for said in (
        "length-of-stay: how its sums are protected at 3 sites",
        "Who could learn more by working together?",
        "Set-up, once a study",
        "Counting the cohort",
        "Table 1",
        "Time on the network",
    ):
        assert said in done.stdout


def test_with_a_contract_the_first_questions_are_foreseen(plan, run, study_file, with_contract):
    document = plan(with_contract, "--sites", 12)
    assert document["sites"] == 12
    assert [one["rounds"] for one in document["analyses"]] == [None, None]
    assert all(one["legs"] == 3 and one["site_bytes_sent"] > 0 for one in document["analyses"])
    assert "first question of each analysis" in document["notes"][0]
    text = run("privacy", "plan", study_file(with_contract), "--sites", 12).stdout
    assert " 1+" in text


def test_without_a_contract_there_are_terms_alone(plan):
    document = plan(TWO, "--sites", 5)
    assert document["analyses"] == []
    assert document["privacy"]["sum"]["threshold"] == 4
    assert "try --simulate" in document["notes"][0]


def test_dropouts_and_colluders_stand_in_words(plan, run, study_file):
    text = TWO.replace(
        "[[analysis]]", "minimum_sites = 8\n[privacy]\ncolluding_sites = 2\nallows_repeats = true\n[[analysis]]", 1
    )
    document = plan(text, "--sites", 10)
    assert (document["privacy"]["sum"]["may_drop"], document["privacy"]["colluding_sites"]) == (2, 2)
    assert "at least 8 sites" in document["summary"]
    two_leg = text.replace("colluding_sites = 2", 'colluding_sites = 2\nmode = "two_leg"')
    said = run("privacy", "plan", study_file(two_leg), "--sites", 10).stdout
    assert "could get the sum over as few as" in " ".join(said.split())


def test_what_may_go_round_the_sums_is_said(plan, run, study_file):
    text = STUDY + "[privacy]\nallows_clear = true\n[disclosure]\nallows_site_results = true\n"
    question = "Does anything go round the sums?"
    assert question in [one["question"] for one in plan(text, "--sites", 5)["answers"]]
    assert question in run("privacy", "plan", study_file(text), "--sites", 5).stdout
    assert question not in run("privacy", "plan", study_file(), "--sites", 5).stdout


def test_sums_in_clear_have_no_set_up(plan, folder):
    document = plan(IN_CLEAR, "--simulate", folder)
    assert document["set_up"] is document["speeds"] is document["privacy"]["sum"] is None
    assert document["analyses"][1]["legs"] == document["analyses"][1]["rounds"]
    assert document["summary"].startswith("Sums in clear")


def test_an_analysis_that_fails_in_rehearsal_is_told(run, study_file, folder, hospitals):
    for name, table in hospitals.items():
        table.assign(perfect=table["long_stay"] * 2.5).to_csv(folder / f"{name}.csv", index=False)
    text = TWO + '[[analysis]]\nworkflow = "glm"\nformula = "long_stay ~ perfect"\nfamily = "binomial"\n'
    done = run("privacy", "plan", study_file(text), "--simulate", folder)
    assert done.exit_code == 0
    assert "analysis 3 (glm): no result in the rehearsal (separation" in done.stdout


def test_sums_that_tell_of_each_site_are_told_of(run, study_file, folder):
    text = STUDY + "site_intercepts = true\n[disclosure]\nallows_site_results = true\n"
    done = run("privacy", "plan", study_file(text), "--simulate", folder)
    assert "tell what is each site's own" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("extra", "sites", "message"),
    [
        ("", 2, "a sum over fewer than 3 sites cannot be secure"),
        (
            "[study]\nminimum_sites = 5\n",
            4,
            "study.minimum_sites is 5, and --sites says 4 sites; add sites or lower it",
        ),
        ("[privacy]\nthreshold = 9\n", 5, "threshold must be in [3, 5]"),
        ("[privacy]\nbucket_size = 3\n", 8, "makes 2 buckets of 8 sites"),
        ("[privacy]\ncolluding_sites = 4\n", 5, "colluding_sites must be in [0, 3]"),
    ],
)
def test_what_cannot_keep_its_promise_is_refused(run, study_file, extra, sites, message):
    text = STUDY.replace("[study]", extra) if extra.startswith("[study]") else STUDY + extra
    done = run("privacy", "plan", study_file(text), "--sites", sites)
    assert (done.exit_code, done.stdout) == (1, "")
    assert message in done.stderr


def test_a_run_of_what_cannot_be_secure_is_refused_before_tables_are_read(run, study_file, folder):
    (folder / "West.csv").unlink()
    done = run("run", study_file(), "--simulate", folder)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "a sum over fewer than 3 sites cannot be secure" in done.stderr
    allowed = run("run", study_file(STUDY + "[privacy]\nsecure_sums = false\n"), "--simulate", folder)
    assert allowed.exit_code == 0
    assert "Sums in clear: the coordinator sees what each hospital contributes." in allowed.stdout


@pytest.mark.parametrize("args", [[], ["--sites", "4", "--simulate", "x"], ["--sites", "0"]])
def test_wrong_usage_is_exit_code_2(run, study_file, args):
    assert run("privacy", "plan", study_file(), *args).exit_code == 2


# What a question costs.


class Update(Contribution):
    step: Array = bounded("size", clip_norm=1.0, bits=16)
    loss: float = exact()


def question(size=100, **more):
    return Question(layout_of(Update, {"size": size}), 50, **{"is_clear": False, "tells_of_sites": False, **more})


def test_buckets_are_priced_by_their_own_terms():
    sums = SumsInWords.of(SumProtection(bucket_size=3), 10, None)
    priced = Pricing(sums, lambda terms: SPEEDS).of("a", "A", [question()])
    parts = [round_traffic(terms, encoded_bytes(question().layout, terms.num_sites), 50) for terms in sums.buckets]
    assert priced.traffic.site_up == max(part.site_up for part in parts)
    assert priced.traffic.coordinator_down == sum(part.coordinator_down for part in parts)
    whole = Pricing(SumsInWords.of(SumProtection(), 10, None), lambda terms: SPEEDS).of("a", "A", [question()])
    assert whole.traffic.site_up > priced.traffic.site_up


def test_a_clear_question_has_one_leg():
    pricing = Pricing(SumsInWords.of(SumProtection(allows_clear=True), 10, None), lambda terms: SPEEDS)
    priced = pricing.of("a", "A", [question(is_clear=True), question()])
    assert priced.num_clear == 1
    assert priced.traffic.legs == 1 + 3
    assert pricing.of("a", "A", [question(is_clear=True)]).site_seconds == 0


def test_dropouts_cost_the_coordinator_more():
    pricing = Pricing(SumsInWords.of(SumProtection(allows_repeats=False), 10, 7), lambda terms: SPEEDS)
    priced = pricing.of("a", "A", [question(10**6)])
    assert priced.coordinator_seconds_with_dropouts > priced.coordinator_seconds > 0
    assert pricing.of("a", "A", []).traffic == cost.NO_TRAFFIC
