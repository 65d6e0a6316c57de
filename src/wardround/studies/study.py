"""The study file: the question, the contract, how sums and results are protected, the analyses, as TOML.

    [study]
    name = "length-of-stay"
    question = "Which patients stay longer than a week?"
    [disclosure]
    preset = "nhs"
    [privacy]
    colluding_sites = 1
    [[analysis]]
    workflow = "glm"
    formula = "long_stay ~ C(procedure) + C(sex) + age"
    family = "binomial"

Text in, a frozen `Study` out: reading the file, and what else it names, is the reader's business.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, cast

import pydantic
from pydantic import AfterValidator, Field, StringConstraints, TypeAdapter
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from wardround.errors import ConfigError
from wardround.privacy.disclosure import PRESETS, DisclosureRules
from wardround.privacy.protection import SumProtection
from wardround.privacy.secagg.terms import check_minimum_sites
from wardround.studies.privacy_section import protection_of
from wardround.sums import Vocabulary, Workflow
from wardround.sums.parameters import explain

MAX_STUDY_BYTES = 2**20
"""Largest study file (unit: bytes of UTF-8)."""
MAX_ANALYSES = 100
"""Most analyses of one study."""
MAX_NAME_LENGTH = 200
"""Longest name, title or path (unit: characters)."""
MAX_TEXT_LENGTH = 20_000
"""Longest question, purpose, cohort or option (unit: characters)."""
MAX_OPTION_VALUES = 10_000
"""Most values that the options of one analysis may hold, lists within lists counted through."""
MAX_PROBLEMS = 30
"""Most lines of one refusal."""
MAX_OPTION_DEPTH = 8
"""Deepest lists and tables within an option."""
_SECURE = SumProtection()
_MAX_PERIODS_IN_A_LINE = 100
# The TOML parser's time grows with the square of the number of parts of a dotted key.


def _printable(text: str) -> str:
    if not all(character.isprintable() or character in "\n\t" for character in text):
        raise PydanticCustomError("printable", "contains control characters; remove them")
    return text


def _one_line(text: str) -> str:
    if "\n" in text or "\t" in text:
        raise PydanticCustomError("one_line", "must be one line without tabs")
    return text


def _inside_folder(path: str) -> str:
    is_absolute = path.startswith(("/", "\\")) or bool(PureWindowsPath(path).drive)
    parts = {*PurePosixPath(path).parts, *PureWindowsPath(path).parts}
    if is_absolute or ".." in parts:
        raise PydanticCustomError("inside", "must be a path inside the study file's folder, without '..'")
    return path


_Name: TypeAlias = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_NAME_LENGTH, strip_whitespace=True),
    AfterValidator(_printable),
    AfterValidator(_one_line),
]
_Text: TypeAlias = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_TEXT_LENGTH, strip_whitespace=True),
    AfterValidator(_printable),
]
_STRICT = pydantic.ConfigDict(extra="forbid", strict=True)


class _StudySection(TypedDict):
    """The keys of [study]."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]  # pydantic reads it from a TypedDict
    name: _Name
    question: _Text
    purpose: NotRequired[_Text]
    minimum_sites: NotRequired[Annotated[int, Field(ge=1, le=100_000)]]
    contract: NotRequired[Annotated[_Name, AfterValidator(_inside_folder)]]
    patient: NotRequired[_Name]
    cohort: NotRequired[_Text]
    violations: NotRequired[Literal["refuse", "missing"]]


class _DisclosureSection(TypedDict):
    """The keys of [disclosure]: a preset, and the rules that are changed."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]  # pydantic reads it from a TypedDict
    preset: NotRequired[_Name]
    minimum_cell: NotRequired[int]
    minimum_rows_site: NotRequired[int]
    minimum_rows_total: NotRequired[int]
    parameters_per_row: NotRequired[float]
    site_dominance: NotRequired[float]
    patient_dominance: NotRequired[float]
    rounding: NotRequired[int]
    allows_site_results: NotRequired[bool]
    own_cells: NotRequired[Literal["allow", "refuse"]]


class _AnalysisHead(TypedDict):
    """The keys of an [[analysis]] that are not options of its workflow."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]  # pydantic reads it from a TypedDict
    workflow: _Name
    title: NotRequired[_Name]


_STUDY_KEYS = tuple(_StudySection.__annotations__)
_ANALYSIS_KEYS = tuple(_AnalysisHead.__annotations__)
_DISCLOSURE_KEYS = tuple(_DisclosureSection.__annotations__)
_FILE_KEYS = ("study", "disclosure", "privacy", "analysis")
_study_section = TypeAdapter(_StudySection)
_disclosure_section = TypeAdapter(_DisclosureSection)
_analysis_head = TypeAdapter(_AnalysisHead)


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """One analysis of a study.

    Attributes:
        number: its place in the study, from 1.
        title: heading for people.
        workflow: what is carried out, with its options.
        given: the options as the study file wrote them.
    """

    number: int
    title: str
    workflow: Workflow[Any]
    given: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The analysis as messages name it."""
        return f"analysis {self.number} ({self.workflow.name})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What the sites are asked to approve.

    Attributes:
        name: short name.
        question: what the study wants to know.
        purpose: why, and for whom.
        minimum_sites: fewest sites that any total may be over; None: all of them.
        contract: path of the data contract, relative to the study file; None: inferred from the tables.
        patient: where the contract is inferred, the column that tells patients apart.
        cohort: condition that a record must meet to be of the study.
        violations: what becomes of values that break the contract: `refuse` stops the study, `missing` makes
            them missing values.
        disclosure: the rules that sums and results keep to; a hospital's own can only tighten them.
        privacy: what the coordinator may see of the contributions: their sums alone, unless the study says otherwise.
        analyses: in the order they are carried out.
    """

    name: str
    question: str
    purpose: str | None
    minimum_sites: int | None
    contract: str | None
    patient: str | None
    cohort: str | None
    violations: Literal["refuse", "missing"]
    disclosure: DisclosureRules = PRESETS["standard"]
    privacy: SumProtection = _SECURE
    analyses: tuple[Analysis, ...]


def parse_study(text: str, vocabulary: Vocabulary) -> Study:
    """A study from the text of its file.

    Args:
        text: the TOML text, at most `MAX_STUDY_BYTES`.
        vocabulary: the workflows that may be named.

    Raises:
        ConfigError: the text is no study; lists every problem found, with its place and the remedy.

    Guarantees:
        hostile_text_gives_config_error_only: no text raises anything else.
    """
    document = _document(text)
    problems: list[str] = []
    head = _head(document, problems)
    disclosure = _disclosure(document, problems)
    privacy = _privacy(document, head, problems)
    if privacy.allows_clear and not disclosure.allows_site_results:
        problems.append(
            "privacy.allows_clear: sites answer no clear ask while [disclosure] has allows_site_results = false; set "
            "allows_site_results = true there, or leave allows_clear out"
        )
    analyses = _analyses(document, vocabulary, problems)
    if problems or head is None:
        raise ConfigError(_listed(problems))
    return Study(
        name=head["name"],
        question=head["question"],
        purpose=head.get("purpose"),
        minimum_sites=head.get("minimum_sites"),
        contract=head.get("contract"),
        patient=head.get("patient"),
        cohort=head.get("cohort"),
        violations=head.get("violations", "refuse"),
        disclosure=disclosure,
        privacy=privacy,
        analyses=analyses,
    )


def _listed(problems: list[str]) -> str:
    lines = [line for problem in problems for line in problem.splitlines()]
    more = [f"... and {len(lines) - MAX_PROBLEMS} more"] if len(lines) > MAX_PROBLEMS else []
    return "\n".join([*lines[:MAX_PROBLEMS], *more])


def _document(text: str) -> dict[str, Any]:
    num_bytes = len(text.encode("utf-8", "surrogatepass"))
    if num_bytes > MAX_STUDY_BYTES:
        raise ConfigError(f"has {num_bytes} bytes; the limit is {MAX_STUDY_BYTES} bytes")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > _MAX_PERIODS_IN_A_LINE:
            raise ConfigError(f"line {number} has over {_MAX_PERIODS_IN_A_LINE} periods; write it over several lines")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError("is nested too deeply; write it flat") from None
    except ValueError as error:  # not only TOMLDecodeError: dates and long integers raise their own
        raise ConfigError(f"is not valid TOML: {_printed(str(error))}") from None


def _printed(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_NAME_LENGTH])


def _head(document: dict[str, Any], problems: list[str]) -> _StudySection | None:
    for key in document:
        if key not in _FILE_KEYS:
            problems.append(
                f"{_printed(key)}: unknown key; a study file has [study], [disclosure], [privacy] and [[analysis]]"
            )
    section = document.get("study")
    if not isinstance(section, dict):
        problems.append('[study] is missing; begin with [study], name = "..." and question = "..."')
        return None
    try:
        head = _study_section.validate_python(section)
    except pydantic.ValidationError as error:
        problems.append(explain(error, "study", _STUDY_KEYS))
        return None
    if "contract" in head and "patient" in head:
        problems.append("study.patient: the contract names the patient column; leave it out here")
    return head


def parse_disclosure(text: str) -> DisclosureRules:
    """A hospital's own disclosure rules from the text of their file: the keys of [disclosure], without that heading.

    Raises:
        ConfigError: the text is no rules; lists every problem found.
    """
    return _rules(_document(text), "")


def _disclosure(document: dict[str, Any], problems: list[str]) -> DisclosureRules:
    section = document.get("disclosure", {})
    if not isinstance(section, dict):
        problems.append('disclosure: must be a table; write [disclosure] and preset = "standard"')
        return PRESETS["standard"]
    try:
        return _rules(section, "disclosure")
    except ConfigError as error:
        problems.append(str(error))
    return PRESETS["standard"]


def _rules(section: dict[str, Any], where: str) -> DisclosureRules:
    try:
        return DisclosureRules.of(**_disclosure_section.validate_python(section))
    except pydantic.ValidationError as error:
        raise ConfigError(explain(error, where, _DISCLOSURE_KEYS)) from None
    except ValueError as error:
        raise ConfigError((f"{where}: " if where else "") + _printed(str(error))) from None


def _privacy(document: dict[str, Any], head: _StudySection | None, problems: list[str]) -> SumProtection:
    protection = _SECURE
    try:
        protection = protection_of(document.get("privacy", {}))
        check_minimum_sites(protection, head.get("minimum_sites") if head else None)
    except ConfigError as error:
        problems.append(str(error))
    return protection


def _analyses(document: dict[str, Any], vocabulary: Vocabulary, problems: list[str]) -> tuple[Analysis, ...]:
    tables = document.get("analysis", [])
    if not (isinstance(tables, list) and all(isinstance(table, dict) for table in tables)):
        problems.append("analysis: must be a list of tables; write [[analysis]] with two brackets")
        return ()
    if not 1 <= len(tables) <= MAX_ANALYSES:
        problems.append(f"analysis: a study has 1 to {MAX_ANALYSES} of them, got {len(tables)}; write [[analysis]]")
        return ()
    analyses = []
    for number, table in enumerate(tables, start=1):
        try:
            analyses.append(_analysis(number, table, vocabulary))
        except ConfigError as error:
            problems.append(str(error))
    return tuple(analyses)


def _analysis(number: int, table: dict[str, Any], vocabulary: Vocabulary) -> Analysis:
    where = f"analysis[{number}]"
    try:
        head = _analysis_head.validate_python({key: table[key] for key in _ANALYSIS_KEYS if key in table})
    except pydantic.ValidationError as error:
        raise ConfigError(explain(error, where)) from None
    given = {key: value for key, value in table.items() if key not in _ANALYSIS_KEYS}
    _check_options(given, where)
    kind = vocabulary.workflow(head["workflow"], f"{where}.workflow")
    return Analysis(
        number=number,
        title=head.get("title", kind.name),
        workflow=kind.with_options(given, where),
        given=given,
    )


def _check_options(options: dict[str, Any], where: str) -> None:
    """Bound what an options table may hold, before anybody walks through it."""
    num_values, level = 0, list(options.items())
    for _ in range(MAX_OPTION_DEPTH):
        num_values += len(level)
        if num_values > MAX_OPTION_VALUES:
            raise ConfigError(f"{where}: its options hold over {MAX_OPTION_VALUES} values; shorten them")
        for key, value in level:
            _check_text(key, f"{where}: the name of an option", MAX_NAME_LENGTH)
            if isinstance(value, str):
                _check_text(value, f"{where}.{key}", MAX_TEXT_LENGTH)
        level = [item for key, value in level for item in _within(key, value)]
        if not level:
            return
    raise ConfigError(f"{where}: its options are nested over {MAX_OPTION_DEPTH} deep; write them flat")


def _within(key: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(cast(str, name), item) for name, item in value.items()]
    return [(key, item) for item in value] if isinstance(value, list) else []


def _check_text(text: str, where: str, max_length: int) -> None:
    if len(text) > max_length:
        raise ConfigError(f"{where} has {len(text)} characters; the limit is {max_length} characters")
    try:
        _printable(text)
    except PydanticCustomError as error:
        raise ConfigError(f"{where} {error.message()}") from None
