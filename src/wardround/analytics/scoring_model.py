"""Models that travel: coefficients with the columns they belong to, or ONNX; nothing that runs code when loaded.

A model is a value. It can be read by a steward, is sent to every hospital as an argument of an ask, and is
named by a digest. What a scikit-learn or R user has is turned into one of the two forms at his own desk
(`scoring_read.py`, `scoring_sklearn.py`).
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import Field, PlainSerializer, SerializationInfo

from wardround.analytics.design import (
    MAX_COLUMNS,
    AtSite,
    Column,
    Design,
    Feature,
    Frame,
    Level,
    Numeric,
    SplineColumn,
)
from wardround.analytics.expression import parse_expression, shorten
from wardround.analytics.families import LinkName
from wardround.data.contract import Contract
from wardround.errors import ConfigError
from wardround.sums import Array

MAX_MODEL_BYTES = 8 * 2**20
"""Largest model file (unit: bytes); it travels in the head of a message."""
MAX_NAME_LENGTH = 200
"""Longest name of a model, an input or an output (unit: characters)."""
MAX_FACTORS = 50
"""Most features of which a column is the product."""
PROBABILITY_LINKS = ("logit", "probit", "cloglog")

Scale: TypeAlias = Literal["probability", "score"]
"""What a model predicts: the probability of the outcome, or any number that grows with the risk."""


def _check_name(name: str, what: str) -> None:
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise ValueError(f"the name of {what} must be 1 to {MAX_NAME_LENGTH} printable characters")


def _check_factors(columns: tuple[Column, ...]) -> None:
    if any(len(column.features) > MAX_FACTORS for column in columns):
        raise ValueError(f"a term is a product of at most {MAX_FACTORS} factors")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearModel:
    """Coefficients: the score is the inverse of the link at `sum(coefficient * column)`.

    Attributes:
        kind: tells the forms apart.
        name: for people.
        columns: what each coefficient is multiplied by; the empty product is the intercept.
        coefficients: in the variables' own units, shape (num_columns,).
        link: of the mean.
        is_apparent: whether it was fitted to the very records on which it is to be evaluated.
    """

    kind: Literal["linear"] = "linear"
    name: str
    columns: tuple[Column, ...]
    coefficients: Array
    link: LinkName
    is_apparent: bool = False

    def __post_init__(self) -> None:
        _check_name(self.name, "a model")
        if not 1 <= len(self.columns) <= MAX_COLUMNS:
            raise ValueError(f"a model has 1 to {MAX_COLUMNS} coefficients, got {len(self.columns)}")
        _check_factors(self.columns)
        if self.coefficients.shape != (len(self.columns),) or not np.isfinite(self.coefficients).all():
            raise ValueError("each column must have one coefficient, a finite number")

    @property
    def scale(self) -> Scale:
        """What it predicts: a probability for the links whose means are probabilities."""
        return "probability" if self.link in PROBABILITY_LINKS else "score"

    @property
    def digest(self) -> str:
        """SHA-256 of columns, coefficients and link, in hexadecimal; the name is not in it."""
        parts = [[column.name, [_feature_fields(feature) for feature in column.features]] for column in self.columns]
        said = {"columns": parts, "coefficients": [c.hex() for c in self.coefficients.tolist()], "link": self.link}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    @property
    def all_columns(self) -> tuple[Column, ...]:
        """Every column that a site must evaluate."""
        return self.columns


def _feature_fields(feature: Feature) -> dict[str, Any]:
    return {name: getattr(feature, name) for name in feature.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxInput:
    """What an input of an ONNX graph is fed with.

    Attributes:
        name: of the input in the graph.
        columns: numbers, one a column of the input.
        category: instead of columns, a variable whose levels are fed as text.
    """

    name: str
    columns: tuple[Column, ...] = ()
    category: str | None = None

    def __post_init__(self) -> None:
        _check_name(self.name, "an input")
        if bool(self.columns) == (self.category is not None):
            raise ValueError(f"input {shorten(self.name)!r} is fed either with columns or with a category")
        _check_factors(self.columns)


def _sent_or_named(content: str, info: SerializationInfo) -> str:
    """The content in a message; in what people read, its digest."""
    return content if info.context is not None else f"sha256:{hashlib.sha256(base64.b64decode(content)).hexdigest()}"


FileContent: TypeAlias = Annotated[str, PlainSerializer(_sent_or_named)]
"""A file in base64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxModel:
    """An ONNX graph; what it may hold is in `scoring_onnx.py`, which every site checks before it runs it.

    Attributes:
        kind: tells the forms apart.
        name: for people.
        content: the file, in base64.
        inputs: what the graph's inputs are fed with.
        output: name of the graph's output that is the prediction.
        scale: what it predicts.
    """

    kind: Literal["onnx"] = "onnx"
    name: str
    content: FileContent
    inputs: tuple[OnnxInput, ...]
    output: str
    scale: Scale = "probability"

    def __post_init__(self) -> None:
        _check_name(self.name, "a model")
        _check_name(self.output, "an output")
        if len(self.content) > 4 * (MAX_MODEL_BYTES // 3 + 1):
            raise ValueError(f"an ONNX model may have {MAX_MODEL_BYTES} bytes")
        if not self.inputs or len(self.all_columns) > MAX_COLUMNS or len(self.inputs) > MAX_COLUMNS:
            raise ValueError(f"an ONNX model has inputs, of at most {MAX_COLUMNS} columns together")
        if len({given.name for given in self.inputs}) < len(self.inputs):
            raise ValueError("an input is named twice")
        _ = self.file  # raises where it is no base64

    @property
    def file(self) -> bytes:
        """The file's bytes."""
        try:
            return base64.b64decode(self.content, validate=True)
        except ValueError:
            raise ValueError("the content of an ONNX model must be base64") from None

    @property
    def digest(self) -> str:
        """SHA-256 of the file, in hexadecimal: what `sha256sum` prints."""
        return hashlib.sha256(self.file).hexdigest()

    @property
    def all_columns(self) -> tuple[Column, ...]:
        """Every column that a site must evaluate, in the order of the inputs."""
        return tuple(column for given in self.inputs for column in given.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedModel:
    """The model that an earlier analysis of the same study fits: `studies/fitted_model.py` puts it in its place.

    Attributes:
        analysis: its number in the study, from 1.
    """

    analysis: int

    def __post_init__(self) -> None:
        if self.analysis < 1:
            raise ValueError(f"analyses are numbered from 1, got analysis = {self.analysis}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A model that a study names and somebody has still to read: `studies/model_file.py` does.

    Attributes:
        file: path, relative to the study file's folder.
        features: for an ONNX input of several columns, what each is: a variable, `sex[M]`, or arithmetic.
        output: for ONNX, the output that is the prediction; None where the graph has one only.
        scale: for ONNX, what it predicts.
    """

    file: str
    features: tuple[str, ...] = ()
    output: str | None = None
    scale: Scale = "probability"

    def __post_init__(self) -> None:
        parts = self.file.replace("\\", "/").split("/")
        if not 1 <= len(self.file) <= 1_000 or not self.file.isprintable():
            raise ValueError("a model's file must be a path of 1 to 1000 printable characters")
        if parts[0] == "" or ".." in parts or parts[0].endswith(":"):
            raise ValueError("a model's file must be a path inside the study file's folder, without '..'")


ScoringModel: TypeAlias = Annotated[LinearModel | OnnxModel, Field(discriminator="kind")]
"""A model as a site receives it."""


def design_of(model: ScoringModel) -> Design:
    """The model's columns, unscaled."""
    columns = model.all_columns
    return Design(columns=columns, center=np.zeros(len(columns)), scale=np.ones(len(columns)))


def frame_of(model: ScoringModel, outcome: Feature, outcome_variables: tuple[str, ...]) -> Frame:
    """The records that have everything the model and the outcome need."""
    return Frame(outcome=outcome, required=tuple(dict.fromkeys((*outcome_variables, *variables_of(model)))))


def variables_of(model: ScoringModel) -> tuple[str, ...]:
    """The variables that a model reads, each once."""
    names = dict.fromkeys(name for c in model.all_columns for f in c.features for name in _variables(f))
    if isinstance(model, OnnxModel):
        names |= dict.fromkeys(given.category for given in model.inputs if given.category is not None)
    return tuple(names)


def _variables(feature: Feature) -> tuple[str, ...]:
    match feature:
        case Numeric(expression=text) | SplineColumn(expression=text):
            return parse_expression(text).variables
        case Level(variable=name):
            return (name,)
        case AtSite():
            return ()


def check_model(model: ScoringModel, contract: Contract) -> None:
    """Check every column against the contract.

    Raises:
        ConfigError: a variable or a level that the contract does not list, or of the wrong type.
    """
    for column in model.all_columns:
        for feature in column.features:
            _check_feature(feature, contract, f"model, {shorten(column.name)!r}")
    for given in model.inputs if isinstance(model, OnnxModel) else ():
        if given.category is not None:
            _levels(given.category, contract, f"model, input {shorten(given.name)!r}")


def _check_feature(feature: Feature, contract: Contract, where: str) -> None:
    for name in _variables(feature):
        variable = contract.variable(name, where)
        if isinstance(feature, Level):
            if not variable.is_numeric and feature.level not in _levels(name, contract, where):
                raise ConfigError(f"{where}: {name!r} has no level {shorten(feature.level)!r} in the contract")
        elif not variable.is_numeric and variable.type != "boolean":
            raise ConfigError(
                f"{where}: {name!r} is a {variable.type}, not a number; write {name}[level] for one of its levels"
            )


def _levels(name: str, contract: Contract, where: str) -> tuple[str, ...]:
    variable = contract.variable(name, where)
    if variable.category_levels is None:
        raise ConfigError(f"{where}: {name!r} is a {variable.type}, not a category")
    return variable.category_levels
