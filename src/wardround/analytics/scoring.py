"""A model's scores of a site's records, in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from wardround.analytics.design import Block, Frame, evaluate_blocks
from wardround.analytics.families import LINKS
from wardround.analytics.scoring_model import LinearModel, OnnxModel, Scale, ScoringModel, design_of
from wardround.analytics.scoring_onnx import OnnxSession, Port, fed_as
from wardround.data.table import Table
from wardround.errors import ConfigError

Values = NDArray[np.float64]

LARGEST_LINE = 709.0
"""Beyond it the hyperbolic sine is no finite number."""
EPSILON = float(np.finfo(np.float64).eps)
"""How near to 0 or 1 a probability counts as this far from it, where its logarithm is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Complete records of a site with their scores.

    Attributes:
        score: of the model, shape (num_rows,); may be no finite number.
        outcome: shape (num_rows,).
        rows: their indices in the table, shape (num_rows,).
    """

    score: Values
    outcome: Values
    rows: NDArray[np.intp]


def scored_blocks(table: Table, model: ScoringModel, frame: Frame) -> Iterator[Scored]:
    """The complete records of a site with their scores, in blocks of bounded size.

    Raises:
        ConfigError: an ONNX model that may not, or cannot, be run.
        DataError: a column of the model is no finite number.
    """
    predict = _linear(model) if isinstance(model, LinearModel) else _onnx(table, model)
    for block in evaluate_blocks(table, design_of(model), frame):
        with np.errstate(all="ignore"):  # what is not finite is counted
            yield Scored(score=predict(block), outcome=block.y, rows=block.rows)


def _linear(model: LinearModel) -> Callable[[Block], Values]:
    inverse = LINKS[model.link].inverse
    return lambda block: inverse(block.x @ model.coefficients)


def _onnx(table: Table, model: OnnxModel) -> Callable[[Block], Values]:
    session = OnnxSession(model.file, model.output)
    ports = {port.name: port for port in session.ports.inputs}
    check_inputs(model, ports)

    def predict(block: Block) -> Values:
        feeds: dict[str, NDArray[Any]] = {}
        start = 0
        for given in model.inputs:
            stop = start + len(given.columns)
            if given.category is not None:
                feeds[given.name] = _texts(table, given.category, block.rows, ports[given.name])
            else:
                feeds[given.name] = _numbers(block.x[:, start:stop], ports[given.name])
            start = stop
        return session.predict(feeds, len(block.rows))

    return predict


def check_inputs(model: OnnxModel, ports: dict[str, Port]) -> None:
    """Hold what a model declares against its graph.

    Raises:
        ConfigError: an input is missing, is not the graph's, or has another number of columns or another type.
    """
    declared = {given.name for given in model.inputs}
    if declared != set(ports):
        odd = sorted(declared ^ set(ports))
        raise ConfigError(f"the ONNX model has the inputs {', '.join(sorted(ports))}; not the same: {', '.join(odd)}")
    for given in model.inputs:
        port = ports[given.name]
        is_text = fed_as(port) is None
        if is_text != (given.category is not None):
            wanted = "text, a category" if is_text else "numbers"
            raise ConfigError(f"input {given.name!r} of the ONNX model takes {wanted}")
        if not is_text and port.width not in (None, len(given.columns)):
            raise ConfigError(
                f"input {given.name!r} of the ONNX model takes {port.width} columns, the features are "
                f"{len(given.columns)}; list them in the model's order"
            )


def _numbers(x: Values, port: Port) -> NDArray[Any]:
    values = np.ascontiguousarray(x, dtype=fed_as(port))
    return values[:, 0] if port.rank == 1 else values


def _texts(table: Table, category: str, rows: NDArray[np.intp], port: Port) -> NDArray[Any]:
    levels = np.array(table.contract.variable(category).category_levels or (), dtype=object)
    texts = levels[table.codes(category)[rows]]
    return texts if port.rank == 1 else texts[:, None]


def to_line(score: Values, scale: Scale) -> Values:
    """Scores on the scale on which they are spread evenly: the logit of a probability, asinh of another score."""
    if scale == "score":
        return np.arcsinh(score)
    clipped: Values = special.logit(np.clip(score, EPSILON, 1 - EPSILON))
    return clipped


def from_line(values: Values, scale: Scale) -> Values:
    """The inverse of `to_line`."""
    if scale == "score":
        return np.sinh(np.clip(values, -LARGEST_LINE, LARGEST_LINE))
    return np.asarray(special.expit(values), np.float64)
