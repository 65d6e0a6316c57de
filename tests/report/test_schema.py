"""The published schema is that of the code, and real outcomes fit it."""

import json
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray
from typing_extensions import TypedDict

from tests.report.conftest import EVERY_WORKFLOW, carried_out
from tests.report.make_schema import SHIPPED, built_in, digest_of, digests, schema_text
from wardround.analytics.result import json_value
from wardround.data.report import ContractReport, Violation
from wardround.privacy.disclosure import DisclosureRules
from wardround.privacy.protection import SumProtection
from wardround.report.outcome import OUTCOME_SCHEMA, OUTCOME_VERSION, DataReading, Failure
from wardround.report.protection import SumsInWords
from wardround.report.schema import outcome_schema, result_type, shipped_schema
from wardround.sums import Steps, Vocabulary, workflow

REMEDY = (
    "the JSON of outcomes changed: raise OUTCOME_VERSION, say so in CHANGELOG.md, and run "
    "`python -m tests.report.make_schema` (with --unreleased where nobody has this version yet)"
)


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(shipped_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_shipped_schema_is_the_codes():
    assert SHIPPED.read_text(encoding="utf-8") == schema_text(), REMEDY


def test_a_version_names_one_schema():
    assert digests()[str(OUTCOME_VERSION)] == digest_of(schema_text()), REMEDY


def test_it_names_itself():
    schema = json.loads(shipped_schema())
    assert schema["$id"] == OUTCOME_SCHEMA
    assert OUTCOME_SCHEMA.endswith(f"outcome-{OUTCOME_VERSION}.json")


def test_the_command_prints_it(tmp_path):
    from typer.testing import CliRunner

    from wardround.cli.app import app

    done = CliRunner().invoke(app, ["schema"])
    assert (done.exit_code, json.loads(done.stdout)) == (0, json.loads(shipped_schema()))


def test_outcomes_fit_it(outcome, validator):
    document = json.loads(outcome.to_json())
    validator.validate(document)
    assert document["schema"] == OUTCOME_SCHEMA
    broken = replace(outcome.analyses[1], result=Failure("ModelError", "why"), facts=None)
    misfit = ContractReport(
        site="North",
        shown_records="80",
        violations=(Violation.counted("age", "out of range", 3),),
        are_made_missing=True,
    )
    reading = DataReading(is_inferred=True, notes=("read so",), misfits=(misfit,))
    rules = {"North": DisclosureRules.of("nhs")}
    sums = SumsInWords.of(SumProtection(bucket_size=3), 9, None)
    more = replace(outcome, analyses=(broken,), reading=reading, site_disclosure=rules, sums=sums, date="2026-11-23")
    validator.validate(json.loads(more.to_json()))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("analyses", 1, "result", "terms", 0, "estimate"), "0.5"),
        (("analyses", 1, "result", "num_records"), None),
        (("analyses", 1, "result", "more"), 1),
        (("analyses", 0, "result", "variables"), None),
        (("analyses", 0, "run", "rounds"), 1.5),
        (("cohort", "num_patients"), "many"),
        (("disclosure", "own_cells"), "sometimes"),
        (("schema",), "https://example.org"),
        (("sites",), "North"),
    ],
)
def test_what_is_wrong_does_not_fit(outcome, validator, path, value):
    document = json.loads(outcome.to_json())
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    if path[-1] == "num_records":  # a number that is not finite is null
        place[path[-1]] = []
    assert not validator.is_valid(document)


def test_a_result_of_every_built_in_workflow_fits(everything, validator):
    assert {one["workflow"] for one in EVERY_WORKFLOW} == set(built_in().workflows), "add it to EVERY_WORKFLOW"
    errors = sorted(validator.iter_errors(json.loads(everything.to_json())), key=lambda error: list(error.path))
    assert [f"{error.json_path}: {error.message[:200]}" for error in errors] == []


def test_every_built_in_workflow_has_a_form_of_its_own(validator):
    rules = validator.schema["$defs"]["schema.Analysis"]["allOf"]
    workflows = built_in().workflows
    assert [rule["if"]["properties"]["workflow"]["const"] for rule in rules] == sorted(workflows)
    for rule in rules:
        assert "$ref" in rule["then"]["properties"]["result"]["anyOf"][0], rule


def test_results_of_other_packages_are_free(outcome, validator):
    document = json.loads(outcome.to_json())
    document["analyses"][0] |= {"workflow": "theirs", "result": {"anything": [1, "x"]}}
    validator.validate(document)


@dataclass(frozen=True, slots=True)
class Part:
    """A part.

    Attributes:
        size: how large it is,
            over two lines.
    """

    size: float


class Written(TypedDict):
    total: int


@dataclass(frozen=True, slots=True)
class Odd:
    """Its JSON is not its fields."""

    json_type: ClassVar[Any] = Written
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Whole:
    """One of each kind."""

    name: str | None
    pair: tuple[int, bool]
    kind: Literal["a", "b"]
    parts: tuple[Part, ...]
    by_site: dict[str, Part]
    matrix: NDArray[np.float64]
    odd: Odd


def schema_of(kind):
    @workflow("whole", version=1)
    def whole(setting: object) -> Steps[kind]:
        """Nothing."""
        return None
        yield

    assert result_type(whole) is kind
    return outcome_schema(Vocabulary({}, {"whole": whole}))


def test_a_form_follows_from_the_types():
    schema = schema_of(Whole)
    definition = schema["$defs"]["test_schema.Whole"]
    validator = jsonschema.Draft202012Validator({**definition, "$defs": schema["$defs"]})
    part = {"size": 1}
    good = {
        "name": None,
        "pair": [1, True],
        "kind": "a",
        "parts": [part, {"size": None}],
        "by_site": {"North": part},
        "matrix": json_value(np.array([[1.0, np.nan], [2.0, 3.0]])),
        "odd": {"total": 3},
    }
    validator.validate(good)
    for name, bad in [
        ("name", 1),
        ("pair", [1]),
        ("pair", [True, 1.5]),
        ("kind", "c"),
        ("parts", [{"size": "1"}]),
        ("parts", [{}]),
        ("by_site", {"North": {"size": 1, "more": 2}}),
        ("matrix", [["x"]]),
        ("odd", {"parts": []}),
    ]:
        assert not validator.is_valid({**good, name: bad}), name
    assert (
        schema["$defs"]["test_schema.Part"]["properties"]["size"]["description"] == "how large it is, over two lines."
    )


def test_a_type_without_a_form_is_refused():
    @dataclass(frozen=True)
    class Bad:
        what: complex

    with pytest.raises(TypeError, match="JSON has no form for <class 'complex'>"):
        schema_of(Bad)


def test_carried_out_again_it_has_the_same_form(validator):
    validator.validate(json.loads(carried_out(sites=("A", "B", "C"), level="x").to_json()))
