"""Models from what people have: a file of coefficients (TOML or JSON), a fit of ours, an ONNX file.

name = "Risk of readmission"
link = "logit"
intercept = -3.2
[coefficients]
age = 0.031
"sex[M]" = 0.4
"np.log(creatinine)" = 0.9
"age:sex[M]" = -0.004
"""

from __future__ import annotations

import base64
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import numpy as np
import pydantic
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from wardround.analytics.design import MAX_COLUMNS, Column, Feature, Level, Numeric
from wardround.analytics.expression import is_plain, parse_expression, shorten
from wardround.analytics.families import LinkName
from wardround.analytics.glm_result import GLMResult
from wardround.analytics.scoring_model import MAX_MODEL_BYTES, LinearModel, OnnxInput, OnnxModel, Scale
from wardround.analytics.scoring_onnx import Port, Ports, check_graph, fed_as
from wardround.errors import ConfigError
from wardround.sums.parameters import explain, read_json

_LEVEL = re.compile(
    r"(?:C\((?P<category>[^,()]+)(?:,.*)?\)|(?P<name>`[^`]+`|[^\s\[\]()+*/-]+))\[(?:T\.)?(?P<level>.+)\]"
)
_ARITHMETIC = frozenset("()[]{}+-*/%<>=!&|^~,.:;`'\"\\@")
_OURS = ("center(", "scale(", "rcs(", "bs(", "cr(")
MAX_TERM_CHARACTERS = 2_000
"""Longest name of a term, interactions and all (unit: characters)."""
MAX_TOML_BYTES = 2**20
"""Largest file of coefficients in TOML, which is read slowly (unit: bytes)."""
_MAX_PERIODS_IN_A_LINE = 100
# The TOML parser's time grows with the square of the number of parts of a dotted key.


_Number: TypeAlias = Annotated[float, Field(strict=True)]
# Not a text, nor true or false.


class _CoefficientFile(TypedDict, total=False):
    """The keys of a file of coefficients."""

    __pydantic_config__ = pydantic.ConfigDict(extra="forbid")  # type: ignore[misc]  # pydantic reads it
    name: str
    link: LinkName
    intercept: _Number
    coefficients: dict[str, _Number]


class _FitFile(TypedDict, total=False):
    """What is read of the JSON of a fit of ours."""

    __pydantic_config__ = pydantic.ConfigDict(extra="ignore")  # type: ignore[misc]  # pydantic reads it
    formula: str
    link: LinkName
    terms: list[dict[str, Any]]
    columns: tuple[Column, ...]
    offset: str | None


_coefficient_file = TypeAdapter(_CoefficientFile)
_fit_file = TypeAdapter(_FitFile)


def linear_model(
    coefficients: Mapping[str, float], *, intercept: float = 0.0, link: LinkName = "logit", name: str = "coefficients"
) -> LinearModel:
    """A model from coefficients by term.

    Args:
        coefficients: by term: a variable (`age`), a level of a category (`sex[M]`), arithmetic (`np.log(crp)`), or
            a product of such (`age:sex[M]`).
        intercept: added to the linear predictor.
        link: of the mean; "logit" for a logistic model.
        name: for people.

    Raises:
        ConfigError: a term that cannot be read, or a coefficient that is no finite number.
    """
    if len(coefficients) > MAX_COLUMNS:
        raise ConfigError(f"model: {len(coefficients)} coefficients; the limit is {MAX_COLUMNS}")
    terms = {"Intercept": float(intercept), **coefficients}
    if "Intercept" in coefficients and intercept:
        raise ConfigError("model: the intercept is given twice; leave one out")
    for term, value in terms.items():
        if isinstance(value, bool | str) or value is None or not np.isfinite(value):
            raise ConfigError(f"model: the coefficient of {shorten(term)!r} must be a finite number")
    return _linear(name, tuple(term_column(term) for term in terms), list(terms.values()), link)


def _linear(name: str, columns: tuple[Column, ...], coefficients: Sequence[float], link: LinkName) -> LinearModel:
    try:
        return LinearModel(name=name, columns=columns, coefficients=np.array(coefficients, np.float64), link=link)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None


def term_column(term: str) -> Column:
    """The column that a term's name stands for, as regressions name their coefficients.

    Raises:
        ConfigError: it cannot be read, or holds what is not in its name (the knots of a spline).
    """
    if len(term) > MAX_TERM_CHARACTERS:
        raise ConfigError(f"model: a term has {len(term)} characters; the limit is {MAX_TERM_CHARACTERS}")
    if term in ("Intercept", "(Intercept)", "const"):
        return Column(name="Intercept", features=())
    return Column(name=term, features=tuple(_feature(part) for part in _parts(term)))


def _parts(term: str) -> list[str]:
    """The factors of a product: split at colons that stand in no bracket."""
    parts, depth = [""], 0
    for character in term:
        depth = max(0, depth + (character in "([") - (character in ")]"))
        if character == ":" and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _feature(part: str) -> Feature:
    if any(name in part for name in _OURS):
        raise ConfigError(
            f"model: {shorten(part)!r} needs numbers that are not in its name; give the fit itself, or write the "
            "arithmetic out"
        )
    match = _LEVEL.fullmatch(part.strip())
    if match:
        name = (match["category"] or match["name"]).strip().strip("`")
        return Level(variable=name, level=match["level"].strip())
    return Numeric(expression=_expression(part.strip()))


def _expression(text: str) -> str:
    try:
        return parse_expression(text, "model").text
    except ConfigError:
        if not text or not text.isprintable() or set(text) & _ARITHMETIC:
            raise
    return parse_expression(f"`{text}`", "model").text  # 'systolic bp', 'class': a name, without the quotes


def model_of_fit(fit: GLMResult, name: str | None = None) -> LinearModel:
    """A model from a fit of ours: its columns as they were fitted, an offset with the coefficient 1.

    Args:
        fit: of `glm`.
        name: for people; None: the formula.

    Raises:
        ConfigError: the fit does not hold a column for each coefficient.
    """
    link: Any = fit.link
    estimates = [term.estimate for term in fit.terms]
    return _of_fit(name or shorten(" ".join(fit.formula.split())), fit.columns, estimates, fit.offset, link)


def _of_fit(
    name: str, columns: tuple[Column, ...], estimates: list[float], offset: str | None, link: LinkName
) -> LinearModel:
    if len(columns) != len(estimates):
        raise ConfigError("model: the fit does not hold a column for each coefficient; fit it again")
    if offset is not None:
        columns, estimates = (*columns, Column(name="offset", features=(_feature(offset),))), [*estimates, 1.0]
    return _linear(name, columns, estimates, link)


def model_of_bytes(
    file: bytes,
    name: str,
    *,
    features: Sequence[str] = (),
    output: str | None = None,
    scale: Scale = "probability",
) -> LinearModel | OnnxModel:
    """A model from the bytes of a file; what it is is told from the name's ending.

    Args:
        file: coefficients in TOML or JSON, the JSON of a fit, or ONNX.
        name: of the file, ending in .toml, .json or .onnx.
        features: for ONNX, as `onnx_model`.
        output: for ONNX, as `onnx_model`.
        scale: for ONNX, as `onnx_model`.

    Raises:
        ConfigError: another ending, or the file is not what its name says.
    """
    ending = name.rpartition(".")[2].lower()
    if len(file) > MAX_MODEL_BYTES:
        raise ConfigError(f"{name} has {len(file)} bytes; a model file may have {MAX_MODEL_BYTES}")
    if ending == "onnx":
        return onnx_model(file, name=name, features=features, output=output, scale=scale)
    if ending not in ("toml", "json"):
        raise ConfigError(
            f"{name}: a model file ends in .toml or .json (coefficients) or .onnx; other kinds may run code when they "
            "are loaded, and are not read"
        )
    if features or output is not None or scale != "probability":
        raise ConfigError(f"{name}: features, output and scale are for ONNX models; coefficients name their terms")
    return _from_text(_decoded(file, name), name, is_toml=ending == "toml")


def _decoded(file: bytes, name: str) -> str:
    try:
        return file.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{name} is not UTF-8 text, so no file of coefficients; save it as .toml or .json") from None


def _from_text(text: str, name: str, *, is_toml: bool) -> LinearModel:
    document = _document(text, name, is_toml=is_toml)
    if not isinstance(document, dict):
        raise ConfigError(f"{name}: must hold coefficients by term; see docs/evaluate.md")
    try:
        if "terms" in document:
            return _from_fit_file(_fit_file.validate_python(document), name)
        read = _coefficient_file.validate_python(document)
    except pydantic.ValidationError as error:
        raise ConfigError(explain(error, name, tuple(_CoefficientFile.__annotations__))) from None
    if "coefficients" not in read:
        raise ConfigError(f"{name}: coefficients: missing; add [coefficients], a number by term")
    try:
        return linear_model(
            read["coefficients"],
            intercept=read.get("intercept", 0.0),
            link=read.get("link", "logit"),
            name=read.get("name", name),
        )
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _document(text: str, name: str, *, is_toml: bool) -> Any:
    if is_toml and len(text) > MAX_TOML_BYTES:
        raise ConfigError(f"{name} has over {MAX_TOML_BYTES} characters; so many coefficients are read from .json only")
    if is_toml and any(line.count(".") > _MAX_PERIODS_IN_A_LINE for line in text.split("\n")):
        raise ConfigError(f"{name}: a line has over {_MAX_PERIODS_IN_A_LINE} periods; write it over several lines")
    try:
        return tomllib.loads(text) if is_toml else read_json(text)
    except RecursionError:
        raise ConfigError(f"{name} is nested too deeply") from None
    except ValueError as error:  # of both parsers; long integers raise their own
        kind = "TOML" if is_toml else "JSON"
        raise ConfigError(f"{name} is not valid {kind}: {shorten(' '.join(str(error).split()))}") from None


def _from_fit_file(read: _FitFile, name: str) -> LinearModel:
    terms = read.get("terms", [])
    if not all(isinstance(t.get("term"), str) and isinstance(t.get("estimate"), int | float) for t in terms):
        raise ConfigError(f"{name}: each of its terms must have a name and an estimate; it is no result of `glm`")
    columns = read.get("columns", ())
    if "link" not in read:
        raise ConfigError(f"{name}: a fit's JSON says its link; save it again")
    shown = shorten(" ".join(read.get("formula", name).split()))
    return _of_fit(shown, columns, [term["estimate"] for term in terms], read.get("offset"), read["link"])


def onnx_model(
    file: bytes,
    *,
    name: str = "model.onnx",
    features: Sequence[str] = (),
    output: str | None = None,
    scale: Scale = "probability",
) -> OnnxModel:
    """A model from the bytes of an ONNX file, checked.

    Args:
        file: the bytes.
        name: for people.
        features: where an input has several columns, what each is, in the model's order: a variable, a level
            (`sex[M]`) or arithmetic. May stand in the file's own metadata instead, under `wardround.features`, as a
            JSON list. Inputs of one column that bear the names of variables need none.
        output: name of the output that is the prediction; None where only one can be it.
        scale: whether it is the probability of the outcome, or any score.

    Raises:
        ConfigError: the file is no ONNX model or holds what is not allowed; or inputs and features do not fit.
    """
    ports = check_graph(file)
    chosen = tuple(features) or _features_in(ports)
    if len(chosen) > MAX_COLUMNS:
        raise ConfigError(f"{name}: over {MAX_COLUMNS} features, which is the limit")
    try:
        return OnnxModel(
            name=name,
            content=base64.b64encode(file).decode("ascii"),
            inputs=_inputs(ports.inputs, chosen),
            output=output if output is not None else _prediction(ports),
            scale=scale,
        )
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


def _features_in(ports: Ports) -> tuple[str, ...]:
    text = ports.metadata.get("wardround.features")
    if text is None:
        return ()
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError):
        listed = None
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise ConfigError("the ONNX model's metadata wardround.features must be a JSON list of strings")
    return tuple(listed[: MAX_COLUMNS + 1])


def _inputs(ports: tuple[Port, ...], features: tuple[str, ...]) -> tuple[OnnxInput, ...]:
    if len(ports) == 1 and features:
        return (OnnxInput(name=ports[0].name, columns=tuple(term_column(feature) for feature in features)),)
    if features:
        raise ConfigError("features are for a model with one input; this one's inputs are named after variables")
    wide = [port for port in ports if port.width != 1]
    if wide:
        columns = "several" if wide[0].width is None else str(wide[0].width)
        raise ConfigError(
            f"input {wide[0].name!r} of the ONNX model has {columns} columns; list what they are: features = [...]"
        )
    return tuple(
        OnnxInput(name=port.name, category=port.name)
        if fed_as(port) is None
        else OnnxInput(
            name=port.name, columns=(Column(name=port.name, features=(Numeric(expression=_quoted(port.name)),)),)
        )
        for port in ports
    )


def _quoted(name: str) -> str:
    return name if is_plain(name) else f"`{name}`"


def _prediction(ports: Ports) -> str:
    """The one output that holds real numbers, not the label of a class."""
    real = [port for port in ports.outputs if port.type in ("float", "double")]
    if len(real) != 1:
        named = ", ".join(port.name for port in ports.outputs)
        raise ConfigError(f"the ONNX model has the outputs {named}; say which is the prediction: output = '...'")
    return real[0].name
