"""The JSON schema of a study's outcome, derived from the types of its parts: every workflow's result has its own.

A result's `to_dict` holds its fields, so that its annotations say what the JSON holds; a class whose `to_dict` holds
something else names the `TypedDict` that it is as `json_type`. Numbers that are not finite are null in JSON, so that
every float may be null.

References:
    JSON Schema, draft 2020-12 (https://json-schema.org/draft/2020-12/schema).
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from typing_extensions import TypedDict, is_typeddict

from wardround.analytics.census import CohortSize
from wardround.report.outcome import OUTCOME_SCHEMA, OUTCOME_VERSION
from wardround.report.protection import PrivacyForm
from wardround.sums import Vocabulary, WorkflowType

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]

_ATTRIBUTES = re.compile(r"^Attributes:\n((?: {4}.*\n?|\n)+)", re.MULTILINE)
_ATTRIBUTE = re.compile(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", re.MULTILINE)
_PLAIN: Mapping[Any, Schema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": ["number", "null"]},
    type(None): {"type": "null"},
    Any: {},
    object: {},
}
_ARRAY = {"type": "array", "items": {"anyOf": [{"type": ["number", "boolean", "null"]}, {"$ref": "#/$defs/array"}]}}


class _Study(TypedDict):
    """What was asked.

    Attributes:
        name: of the study.
        question: in words.
        purpose: why, for those who approve.
        minimum_sites: fewest sites that a sum may be over; null: all of them.
        contract: file of the data contract; null where it was inferred.
        patient: column that tells patients apart, where the contract was inferred.
        cohort: which records the study is of, as SQL writes it after WHERE; null: all.
        violations: what is done with values that break the contract.
    """

    name: str
    question: str
    purpose: str | None
    minimum_sites: int | None
    contract: str | None
    patient: str | None
    cohort: str | None
    violations: typing.Literal["refuse", "missing"]


class _Error(TypedDict):
    """Why an analysis has no result."""

    kind: str
    message: str


class _SiteRun(TypedDict):
    """What one site took part in.

    Attributes:
        site: its name.
        rounds: questions that it answered.
        numbers: numbers that it sent.
        bytes: bytes of these.
        absence: when it was missing from a sum for the first time, and why; null where it never was.
    """

    site: str
    rounds: int
    numbers: int
    bytes: int
    absence: str | None


class _Round(TypedDict):
    """One question to all sites, and the sum.

    Attributes:
        number: from 1.
        function: the site function, by name and version.
        tells_of_sites: whether the sum tells what is one site's alone.
        is_clear: whether each site's own contribution was asked for, in clear.
        people: counts of people or records that one site sent.
        real: real numbers that one site sent, to be summed exactly.
        bounded: numbers that one site sent, clipped and rounded.
        bytes: bytes that one site sent.
        bytes_received: bytes of the question that one site was sent.
        seconds: wall time.
        absent: sites that are not in the sum.
    """

    number: int
    function: str
    tells_of_sites: bool
    is_clear: bool
    people: int
    real: int
    bounded: int
    bytes: int
    bytes_received: int
    seconds: float
    absent: list[str]


class _Run(TypedDict):
    """What a run cost, and which sites were in it.

    Attributes:
        run_id: tells runs apart, as the record does.
        rounds: number of questions.
        asked: how often each site function was asked.
        numbers: numbers that one site sent.
        bytes: bytes that one site sent.
        bytes_received: bytes of the questions that one site was sent.
        seconds: wall time of the rounds.
        sites: the roster.
        failures: by site that was missing from a sum, when and why.
        by_site: what each site took part in.
        by_round: the rounds in order.
    """

    run_id: str
    rounds: int
    asked: dict[str, int]
    numbers: int
    bytes: int
    bytes_received: int
    seconds: float
    sites: list[str]
    failures: dict[str, str]
    by_site: list[_SiteRun]
    by_round: list[_Round]


class _Violation(TypedDict):
    """A rule of the contract that a column broke.

    Attributes:
        column: the column.
        rule: what it broke.
        rows: in how many rows; null where that is too few to be shown.
        shown_rows: that number as it may be seen.
        hint: what may be the matter.
    """

    column: str
    rule: str
    rows: int | None
    shown_rows: str
    hint: str | None


class _Misfit(TypedDict):
    """The values of one site's table that broke the contract."""

    site: str
    fits: bool
    records: str
    violations: list[_Violation]
    made_missing: bool


class _Data(TypedDict):
    """How the sites' tables became data.

    Attributes:
        contract_is_inferred: whether the contract was made from the tables rather than agreed on.
        reading_notes: of an inferred contract: how tables were read where one may read them otherwise.
        made_missing: by site, the values that broke the contract and count as missing.
    """

    contract_is_inferred: bool
    reading_notes: list[str]
    made_missing: list[_Misfit]


class _Disclosure(TypedDict):
    """Disclosure rules; null where a rule has no limit."""

    preset: str
    minimum_cell: int
    minimum_rows_site: int
    minimum_rows_total: int
    parameters_per_row: float | None
    site_dominance: float
    patient_dominance: float
    rounding: int
    allows_site_results: bool
    own_cells: typing.Literal["allow", "refuse"]


class _Analysis(TypedDict):
    """An analysis that was carried out.

    Attributes:
        workflow: its workflow's name.
        version: its workflow's version.
        title: as the study has it.
        options: of the workflow.
        result: what came of it, in the form of its workflow; null beside an `error`.
        run: what the run cost; null where it failed.
    """

    workflow: str
    version: int
    title: str
    options: dict[str, Any]
    result: dict[str, Any] | None
    run: _Run | None


class _Outcome(TypedDict):
    """A study that was carried out.

    Attributes:
        schema: names this schema.
        study: what was asked.
        date: on which it was carried out (ISO 8601).
        is_simulation: whether the hospitals were tables in one process.
        cohort: how many records and patients it is about.
        analyses: in the study's order.
        sites: the roster.
        disclosure: the rules that the results keep to.
        site_disclosure: by site whose own rules tighten the study's, the rules that it keeps to.
        privacy: how the sums were protected.
        data: how the sites' tables became data.
        wardround: the version of Wardround.
        versions: of everything that computed, by name.
    """

    schema: str
    study: _Study
    date: str | None
    is_simulation: bool
    cohort: CohortSize
    analyses: list[_Analysis]
    sites: list[str]
    disclosure: _Disclosure
    site_disclosure: dict[str, _Disclosure]
    privacy: PrivacyForm
    data: _Data
    wardround: str
    versions: dict[str, str]


def outcome_schema(vocabulary: Vocabulary) -> Schema:
    """The schema of `StudyOutcome.to_dict`, with the results of a vocabulary's workflows.

    Raises:
        TypeError: a result has a field of a type that JSON has no form for; names it.
    """
    definitions = _Definitions()
    definitions.add("array", {**_ARRAY, "description": "Numbers, in as many dimensions as there are."})
    top = definitions.of(_Outcome)
    analysis = definitions.schemas[_name(_Analysis)]
    analysis["properties"]["error"] = definitions.of(_Error)
    analysis["allOf"] = [_result_rule(kind, definitions) for kind in _sorted(vocabulary.workflows.values())]
    definitions.schemas[_name(_Outcome)]["properties"]["schema"] = {"const": OUTCOME_SCHEMA}
    head = {"$schema": DIALECT, "$id": OUTCOME_SCHEMA, "title": "Outcome of a study"}
    return {**head, **top, "$defs": dict(sorted(definitions.schemas.items()))}


def _sorted(workflows: Iterable[WorkflowType[..., Any]]) -> list[WorkflowType[..., Any]]:
    return sorted(workflows, key=lambda kind: kind.name)


def shipped_schema() -> str:
    """The published schema as JSON text: with the results of the built-in workflows."""
    name = f"outcome-{OUTCOME_VERSION}.json"
    return files("wardround.report").joinpath("published", "schema", name).read_text(encoding="utf-8").rstrip("\n")


def _result_rule(kind: WorkflowType[..., Any], definitions: _Definitions) -> Schema:
    """Where the workflow is this one, the result has this form."""
    is_this = {"properties": {"workflow": {"const": kind.name}, "version": {"const": kind.version}}}
    result = {"anyOf": [definitions.of(result_type(kind)), {"type": "null"}]}
    return {"if": is_this, "then": {"properties": {"result": result}}}


def result_type(kind: WorkflowType[..., Any]) -> Any:
    """What a workflow returns, by its annotation `Steps[...]`."""
    steps = typing.get_type_hints(kind.function).get("return")
    return (*typing.get_args(steps), Any, Any, Any)[2]


class _Definitions:
    """Schemas of types; each dataclass and `TypedDict` is defined once, by module and name."""

    def __init__(self) -> None:
        self.schemas: dict[str, Schema] = {}

    def add(self, name: str, schema: Schema) -> None:
        self.schemas[name] = schema

    def of(self, hint: Any) -> Schema:
        """The schema of values of this type, as `json_value` writes them."""
        if hint in _PLAIN:
            return dict(_PLAIN[hint])
        origin, members = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            return {"anyOf": [self.of(member) for member in members]}
        if origin is typing.Literal:
            return {"enum": list(members)}
        if origin is typing.Annotated:
            return self.of(members[0])
        if origin is np.ndarray or hint is np.ndarray:
            return {"$ref": "#/$defs/array"}
        if dataclasses.is_dataclass(hint) or is_typeddict(hint):
            return self._object(getattr(hint, "json_type", hint))
        return self._collection(hint, origin or hint, members)

    def _collection(self, hint: Any, origin: Any, members: Sequence[Any]) -> Schema:
        if not isinstance(origin, type):
            raise TypeError(f"JSON has no form for {hint!r}")
        if issubclass(origin, Mapping):
            return {"type": "object", "additionalProperties": self.of(members[1]) if members else {}}
        if not issubclass(origin, Sequence):
            raise TypeError(f"JSON has no form for {hint!r}")
        if origin is tuple and members and members[-1] is not Ellipsis:
            each = [self.of(member) for member in members]
            return {"type": "array", "prefixItems": each, "minItems": len(each), "maxItems": len(each)}
        return {"type": "array", "items": self.of(members[0]) if members else {}}

    def _object(self, kind: Any) -> Schema:
        name = _name(kind)
        if name not in self.schemas:
            self.schemas[name] = {}  # a type may hold itself
            self.schemas[name] = self._properties(kind)
        return {"$ref": f"#/$defs/{name}"}

    def _properties(self, kind: Any) -> Schema:
        hints = typing.get_type_hints(kind)
        names = [one.name for one in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else list(hints)
        words = _attributes(kind)
        properties = {name: self.of(hints[name]) for name in names}
        for name in names:
            if name in words:
                properties[name]["description"] = words[name]
        first = (inspect.getdoc(kind) or "").split("\n\n")[0]
        return {
            "description": " ".join(first.split()),
            "type": "object",
            "properties": properties,
            "required": names,
            "additionalProperties": False,
        }


def _name(kind: Any) -> str:
    return f"{kind.__module__.split('.')[-1]}.{kind.__name__.strip('_')}"


def _attributes(kind: Any) -> dict[str, str]:
    """What the documentation says of each attribute."""
    section = _ATTRIBUTES.search((inspect.getdoc(kind) or "") + "\n")
    found = _ATTRIBUTE.findall(section[1]) if section else []
    return {name: " ".join(words.split()) for name, words in found}
