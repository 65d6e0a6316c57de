"""The study file: what it may say, and how it is refused."""

import contextlib
import tomllib

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from wardround.data.contract import Contract, Setting, Variable
from wardround.errors import ConfigError
from wardround.privacy.disclosure import DisclosureRules
from wardround.privacy.protection import SumProtection
from wardround.studies.extensions import installed_vocabulary
from wardround.studies.preflight import preflight
from wardround.studies.study import (
    MAX_ANALYSES,
    MAX_OPTION_DEPTH,
    MAX_PROBLEMS,
    MAX_STUDY_BYTES,
    parse_study,
)

VOCABULARY = installed_vocabulary()
LEAST = """
[study]
name = "length-of-stay"
question = "Which patients stay longer than a week?"
[[analysis]]
workflow = "glm"
formula = "long_stay ~ C(procedure) + C(sex) + age"
family = "binomial"
"""
HEAD = '[study]\nname = "n"\nquestion = "q"\n'
CENSUS = '[[analysis]]\nworkflow = "census"\n'


def refusal(text):
    with pytest.raises(ConfigError) as caught:
        parse_study(text, VOCABULARY)
    return str(caught.value)


def test_the_least_study_file():
    study = parse_study(LEAST, VOCABULARY)
    assert (study.name, study.question) == ("length-of-stay", "Which patients stay longer than a week?")
    assert (study.purpose, study.minimum_sites, study.contract, study.cohort) == (None, None, None, None)
    assert study.violations == "refuse"
    (analysis,) = study.analyses
    assert (analysis.number, analysis.title, analysis.label) == (1, "glm", "analysis 1 (glm)")
    assert analysis.workflow.options["family"] == "binomial"
    assert analysis.workflow.options["confidence"] == 0.95  # a default
    assert dict(analysis.given) == {"formula": "long_stay ~ C(procedure) + C(sex) + age", "family": "binomial"}


def test_every_key():
    study = parse_study(
        HEAD
        + 'purpose = "p"\nminimum_sites = 3\ncontract = "agreed/contract.toml"\ncohort = "age >= 18"\n'
        + 'violations = "missing"\n'
        + CENSUS
        + 'title = "Größe"\n'
        + '[[analysis]]\nworkflow = "describe"\nquantiles = [0.1, 0.9]\n',
        VOCABULARY,
    )
    assert (study.purpose, study.minimum_sites, study.contract) == ("p", 3, "agreed/contract.toml")
    assert (study.cohort, study.violations) == ("age >= 18", "missing")
    assert [analysis.title for analysis in study.analyses] == ["Größe", "describe"]
    assert study.analyses[1].workflow.options["quantiles"] == (0.1, 0.9)


def test_disclosure_rules_are_a_preset_with_changes():
    assert parse_study(LEAST, VOCABULARY).disclosure == DisclosureRules()
    text = LEAST + '\n[disclosure]\npreset = "nhs"\nminimum_cell = 10\nparameters_per_row = 1\n'
    assert parse_study(text, VOCABULARY).disclosure == DisclosureRules.of("nhs", minimum_cell=10, parameters_per_row=1)


def test_sums_are_secure_unless_the_study_says_otherwise():
    assert parse_study(LEAST, VOCABULARY).privacy == SumProtection()
    text = LEAST + '[privacy]\nthreshold = 8\ncolluding_sites = 2\nmode = "strict"\n'
    expected = SumProtection(threshold=8, colluding_sites=2, is_strict=True)
    assert parse_study(text, VOCABULARY).privacy == expected
    assert parse_study(LEAST + "[privacy]\nbucket_size = 4", VOCABULARY).privacy == SumProtection(bucket_size=4)
    assert parse_study(LEAST + '[privacy]\nmode = "two_leg"', VOCABULARY).privacy == SumProtection(is_strict=False)
    allowed = "[disclosure]\nallows_site_results = true\n[privacy]\nsecure_sums = false\nallows_clear = true"
    in_clear = parse_study(LEAST + allowed, VOCABULARY).privacy
    assert in_clear == SumProtection(secure_sums=False, allows_clear=True)
    few = HEAD + "minimum_sites = 1\n" + CENSUS + "[privacy]\nsecure_sums = false"
    assert parse_study(few, VOCABULARY).minimum_sites == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", '[study] is missing; begin with [study], name = "..." and question = "..."'),
        ("study = 1", "[study] is missing"),
        ("[[study]]", "[study] is missing"),
        (CENSUS, "[study] is missing"),
        (HEAD, "analysis: a study has 1 to 100 of them, got 0; write [[analysis]]"),
        (HEAD + '[analysis]\nworkflow = "census"', "write [[analysis]] with two brackets"),
        (HEAD + "[[analysis]]\n", "analysis[1].workflow: missing; add it"),
        (HEAD + '[[analysis]]\nworkflow = "gml"', "analysis[1].workflow: unknown workflow 'gml'; did you mean 'glm'?"),
        (HEAD + CENSUS + CENSUS + "foo = 1", "analysis[2].foo: unknown key"),
        (LEAST + "famly = 1", "analysis[1].famly: unknown key; did you mean 'family'?"),
        (LEAST.replace("binomial", "binomal"), "analysis[1].family: "),
        (LEAST.replace('formula = "long_stay ~', 'frmula = "long_stay ~'), "analysis[1].formula: missing; add it"),
        (HEAD.replace("question", "qestion") + CENSUS, "study.qestion: unknown key; did you mean 'question'?"),
        (HEAD.replace('"n"', "1") + CENSUS, "study.name: Input should be a valid string"),
        (HEAD.replace('"n"', '""') + CENSUS, "study.name: String should have at least 1 character"),
        (HEAD.replace('"n"', '"a\\nb"') + CENSUS, "study.name: must be one line"),
        (HEAD.replace('"n"', '"\\u001b[2J"') + CENSUS, "study.name: contains control characters; remove them"),
        (HEAD + "minimum_sites = 0\n" + CENSUS, "study.minimum_sites: Input should be greater than or equal to 1"),
        (HEAD + "minimum_sites = true\n" + CENSUS, "study.minimum_sites: Input should be a valid integer"),
        (HEAD + 'violations = "drop"\n' + CENSUS, "study.violations: Input should be 'refuse' or 'missing'"),
        (HEAD + 'contract = "c"\npatient = "id"\n' + CENSUS, "study.patient: the contract names the patient column"),
        (
            HEAD + CENSUS + "[stdy]",
            "stdy: unknown key; a study file has [study], [disclosure], [privacy] and [[analysis]]",
        ),
        (
            LEAST + "[disclosure]\nminimum_sell = 3",
            "disclosure.minimum_sell: unknown key; did you mean",
        ),
        (LEAST + "[disclosure]\nminimum_cell = 0", "disclosure: minimum_cell must be a whole number in"),
        (LEAST + '[disclosure]\npreset = "dhs"', "disclosure: preset must be one of standard, datashield"),
        (LEAST + '[disclosure]\nown_cells = "hide"', "disclosure.own_cells: Input should be 'allow' or 'refuse'"),
        (LEAST + "[disclosure]\nparameters_per_row = nan", "disclosure: parameters_per_row must be greater than 0"),
        (LEAST + "[[disclosure]]\nrounding = 5", "disclosure: must be a table; write [disclosure]"),
        (LEAST + "[privacy]\nsecure_sum = true", "privacy.secure_sum: unknown key; did you mean 'secure_sums'?"),
        (LEAST + "[privacy]\nsecure_sums = 1", "privacy.secure_sums: Input should be a valid boolean"),
        (LEAST + "[privacy]\nthreshold = 1", "privacy.threshold: Input should be greater than or equal to 2"),
        (LEAST + "[privacy]\nthreshold = true", "privacy.threshold: Input should be a valid integer"),
        (LEAST + "[privacy]\ncolluding_sites = -1", "privacy.colluding_sites: Input should be greater than or equal"),
        (LEAST + '[privacy]\nmode = "fast"', "privacy.mode: Input should be 'strict' or 'two_leg'"),
        (LEAST + "[privacy]\nbucket_size = 2", "privacy.bucket_size: Input should be greater than or equal to 3"),
        (LEAST + "[privacy]\nthreshold = 2\ncolluding_sites = 2", "privacy: threshold must be over colluding_sites=2"),
        (
            LEAST + '[privacy]\nsecure_sums = false\nmode = "strict"',
            "privacy: mode: of no effect with secure_sums = false; leave out one or the other",
        ),
        (
            LEAST + "[privacy]\nallows_clear = true",
            "privacy.allows_clear: sites answer no clear ask while [disclosure]",
        ),
        (LEAST + "[[privacy]]\nsecure_sums = true", "privacy: must be a table; write [privacy]"),
        (
            HEAD + "minimum_sites = 2\n" + CENSUS,
            "study.minimum_sites is 2: secure sums as [privacy] has them are over more sites; raise minimum_sites to 3",
        ),
        (
            HEAD + "minimum_sites = 4\n" + CENSUS + "[privacy]\nthreshold = 5",
            "raise minimum_sites to 5 at least, or write secure_sums = false under [privacy]",
        ),
        ("[study", "is not valid TOML: "),
        ("a = " + "9" * 5000, "is not valid TOML: "),
        ("a = 2020-13-45", "is not valid TOML: "),
        ("a = " + "[" * 100_000, "is nested too deeply; write it flat"),
        ("a." * 200_000 + "a = 1", "line 1 has over 100 periods; write it over several lines"),
    ],
)
def test_refusals_name_place_and_remedy(text, message):
    assert message in refusal(text)


@pytest.mark.parametrize(
    "path", ["/etc/contract.toml", "../contract.toml", "a/../../c.toml", "C:\\c.toml", "\\\\host\\c.toml", "a\\..\\b"]
)
def test_a_contract_outside_the_folder_is_refused(path):
    text = HEAD + f"contract = '{path}'\n" + CENSUS
    assert "study.contract: must be a path inside the study file's folder" in refusal(text)


def test_all_problems_are_told_at_once():
    message = refusal('[study]\nname = ""\n[[analysis]]\nworkflow = "gml"\n' + CENSUS + "x = 1\n")
    for place in ("study.name", "study.question", "analysis[1].workflow", "analysis[2].x"):
        assert place in message


def test_sizes_are_limited():
    assert f"the limit is {MAX_STUDY_BYTES} bytes" in refusal("#" * (MAX_STUDY_BYTES + 1))
    assert f"1 to {MAX_ANALYSES}" in refusal(HEAD + CENSUS * (MAX_ANALYSES + 1))
    assert len(parse_study(HEAD + CENSUS * MAX_ANALYSES, VOCABULARY).analyses) == MAX_ANALYSES
    assert "at most 200 characters" in refusal(HEAD.replace('"n"', f'"{"n" * 201}"') + CENSUS)
    assert "the limit is 20000 characters" in refusal(HEAD + CENSUS + f'x = "{"y" * 20_001}"')
    assert "the limit is 200 characters" in refusal(HEAD + CENSUS + f"{'x' * 201} = 1")
    assert "hold over 10000 values" in refusal(HEAD + CENSUS + f"x = [{'1,' * 10_001}]")
    deep = "[" * (MAX_OPTION_DEPTH + 1) + "]" * (MAX_OPTION_DEPTH + 1)
    assert "nested over 8 deep" in refusal(HEAD + CENSUS + f"x = {deep}")


def test_control_characters_in_options_are_refused():
    assert "analysis[1].x contains control characters" in refusal(HEAD + CENSUS + 'x = "\\u001b]0;"')
    assert "contains control characters" in refusal(HEAD + CENSUS + '"\\u0007" = 1')


SETTING = Setting(
    contract=Contract(
        variables=(
            Variable(name="x", type="number"),
            Variable(name="y", type="boolean"),
            Variable(name="z", type="category", levels=("a", "b")),
        )
    ),
    sites=("A", "B"),
)


def attempt(text):
    """Parse a text and start its analyses; anything but a ConfigError fails the test."""
    with contextlib.suppress(ConfigError):
        preflight(parse_study(text, VOCABULARY).analyses, SETTING)


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.times()
_values = st.recursive(
    _scalars.filter(lambda value: value is not None),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
PRIVACY_KEYS = ["secure_sums", "threshold", "colluding_sites", "mode", "bucket_size", "allows_clear", "allows_repeats"]
_keys = st.sampled_from(
    ["name", "question", "contract", "cohort", "minimum_sites", "violations", "patient", *PRIVACY_KEYS]
)
_options = st.sampled_from(["workflow", "title", "formula", "family", "l2", "by", "variables", "quantiles", "cluster"])
_words = st.sampled_from(["glm", "describe", "census", "y ~ x", "x ~ C(z)", "x", "z", "binomial", "cross-validated"])
_sections = st.dictionaries(_keys | st.text(max_size=4), _values | _words, max_size=6)
_tables = st.dictionaries(_options | st.text(max_size=4), _values | _words, max_size=6)
_good_heads = st.just({"name": "n", "question": "q"})
_good_tables = st.sampled_from(["glm", "describe"]).flatmap(lambda name: _tables.map(lambda t: {**t, "workflow": name}))
_documents = st.fixed_dictionaries(
    {
        "disclosure": _values | _sections,
        "privacy": _values | _sections,
        "study": _values | _sections | _good_heads,
        "analysis": _values | st.lists(_tables | _good_tables, max_size=3),
    }
)


@given(st.text() | st.text(alphabet='[]{}=."\\\n study analysis'))
def test_hostile_text_gives_config_error_only(text):
    attempt(text)


@given(_documents)
def test_hostile_documents_give_config_error_only(document):
    try:
        text = tomli_w.dumps(document)
        tomllib.loads(text)
    except (ValueError, TypeError):  # the generator made what TOML cannot say
        return
    attempt(text)


@given(st.data())
def test_a_study_cut_or_changed_anywhere_gives_config_error_only(data):
    place = data.draw(st.integers(0, len(LEAST) - 1))
    cut = data.draw(st.integers(0, 10))
    attempt(LEAST[:place] + data.draw(st.text(max_size=5)) + LEAST[place + cut :])


def test_a_refusal_is_of_bounded_length():
    said = refusal('[study]\nname = "x"\nquestion = "q"\n' + "\n".join(f"k{i} = 1" for i in range(5000)))
    assert len(said.splitlines()) == MAX_PROBLEMS + 1
    assert "... and 4971 more" in said
