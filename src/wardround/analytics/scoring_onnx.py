"""ONNX graphs: what one may hold, checked from its bytes before anything runs it, and its predictions.

ONNX is a graph of named operators, so a graph runs no code of its own. What can still do harm is refused: files
beside it (external data), operators of other domains (native libraries), control flow and functions, operators
that make arrays from numbers in the graph (a few bytes that ask for terabytes), and sequences or maps. What shapes
alone do not tell is bounded while it runs: all graphs together have `MAX_WORKING_BYTES`.
Needs onnx and onnxruntime (the extra `onnx`).

References:
    The ONNX specification, onnx.proto; operators of the domains ai.onnx and ai.onnx.ml.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.analytics.expression import shorten
from wardround.analytics.scoring_model import MAX_MODEL_BYTES
from wardround.errors import ConfigError

Values = NDArray[np.float64]

DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
MAX_NODES = 20_000
"""Most operators of a graph."""
MAX_PARTS = 50_000
"""Most tensors, most named values, and most attributes of an operator; the parts of a real graph are far fewer."""
MAX_WORKING_BYTES = 2**30
"""What graphs may hold in memory while they run, weights and all (unit: bytes); onnxruntime allocates no more."""
MAX_ROW_ELEMENTS = 20_000
"""Widest intermediate of a graph whose shape can be told beforehand (unit: elements a record)."""
ROWS_AT_A_TIME = 1_024
"""Records that a graph is given at once."""
_OPERATOR_NAMES = """
    Abs Add And ArgMax ArgMin BatchNormalization Cast CastLike Ceil Clip Concat Constant Cos Div Dropout Elu Equal
    Erf Exp Flatten Floor Gather GatherElements Gelu Gemm Greater GreaterOrEqual HardSigmoid HardSwish Identity
    IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max Mean Min Mish Mul Neg Not
    Or PRelu Pow Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare Relu Reshape Round Selu Shape Sigmoid Sign Sin Slice Softmax Softplus
    Softsign Split Sqrt Squeeze Sub Sum Tan Tanh TopK Transpose Unsqueeze Where Xor
    ArrayFeatureExtractor Binarizer CategoryMapper DictVectorizer FeatureVectorizer Imputer LabelEncoder
    LinearClassifier LinearRegressor Normalizer OneHotEncoder SVMClassifier SVMRegressor Scaler TreeEnsemble
    TreeEnsembleClassifier TreeEnsembleRegressor
"""
OPERATORS = frozenset(_OPERATOR_NAMES.split())
"""Operators that a graph may use."""
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a graph.

    Attributes:
        name: in the graph.
        type: of its elements: "float", "double", "int64", "int32", "bool", "string", or another's number.
        width: columns; None where the graph leaves them open.
        rank: number of axes.
    """

    name: str
    type: str
    width: int | None
    rank: int


@dataclass(frozen=True, slots=True)
class Ports:
    """A checked graph's inputs and outputs, and what its file says of itself."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: dict[str, str]


_DTYPES: dict[str, Any] = {
    "float": np.float32, "double": np.float64, "int64": np.int64, "int32": np.int32, "bool": np.bool_,
}  # fmt: skip


def _libraries() -> tuple[ModuleType, ModuleType]:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ConfigError("models in ONNX need onnx and onnxruntime: pip install 'wardround[onnx]'") from error
    return onnx, onnxruntime


def check_graph(file: bytes) -> Ports:
    """Parse an ONNX file and check everything in it; nothing is run.

    Args:
        file: its bytes.

    Returns:
        Its inputs and outputs.

    Raises:
        ConfigError: it is no ONNX file, or holds what is not allowed; says what.

    Guarantees:
        graphs_hold_the_allow_list_only: an operator, a domain or a part that is not on the list is refused.
    """
    return _checked(file)[0]


def _checked(file: bytes) -> tuple[Ports, bytes]:
    """Inputs and outputs of a graph, and the graph written anew: what was checked and nothing else.

    A file can be read in two ways, or hold fields that onnxruntime knows and onnx does not.
    """
    onnx, _ = _libraries()
    graph = _parsed(onnx, file)
    graph.DiscardUnknownFields()
    _check_parts(graph)
    _check_nodes(onnx, graph.graph)
    _check_tensors(onnx, graph.graph)
    _check_form(onnx, graph)
    stored = {tensor.name for tensor in graph.graph.initializer}
    given = [value for value in graph.graph.input if value.name not in stored]
    for value in given:
        _refuse_fixed_rows(value)
    inputs = tuple(_port(onnx, value) for value in given)
    outputs = tuple(_port(onnx, value) for value in graph.graph.output)
    if not inputs or not outputs:
        raise ConfigError("the ONNX model has no input or no output")
    _check_widths(onnx, graph)
    ports = Ports(inputs, outputs, {entry.key: entry.value for entry in graph.metadata_props})
    return ports, graph.SerializeToString()


def _parsed(onnx: ModuleType, file: bytes) -> Any:
    if len(file) > MAX_MODEL_BYTES:
        raise ConfigError(f"the ONNX model has {len(file)} bytes; the limit is {MAX_MODEL_BYTES} bytes")
    what = _other_kind(file)
    if what:
        raise ConfigError(f"this is no ONNX model but {what}; convert the model with skl2onnx or torch.onnx.export")
    try:
        return onnx.load_model_from_string(file)
    except Exception as error:  # the parser raises classes of its own, and plain ValueError
        raise _broken(error) from None


def _broken(error: Exception) -> ConfigError:
    return ConfigError(f"this is no ONNX model, or it is cut short or broken: {shorten(' '.join(str(error).split()))}")


def _check_form(onnx: ModuleType, graph: Any) -> None:
    """The library's own check; after ours, as it would look for files that tensors name."""
    try:
        onnx.checker.check_model(graph, full_check=False)
    except Exception as error:  # the checker's own classes
        raise _broken(error) from None


def _other_kind(file: bytes) -> str | None:
    if file.startswith(_PICKLES):
        return "a pickle (joblib files are pickles, too), which may run any code when it is loaded"
    if file.startswith((b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
        return "an archive or a compressed file"
    if not file.strip():
        return "an empty file"
    return "text" if file.lstrip()[:1] in (b"{", b"[", b"#") and file.isascii() else None


def _check_parts(model: Any) -> None:
    domains = {entry.domain for entry in model.opset_import}
    foreign = sorted(domains - set(DOMAINS))
    if foreign:
        raise ConfigError(f"the ONNX model uses operators of the domain {shorten(foreign[0])!r}; allowed: ai.onnx[.ml]")
    if model.functions or model.training_info:
        raise ConfigError("the ONNX model holds functions or training information; export it for inference, inlined")
    if model.graph.sparse_initializer:
        raise ConfigError("the ONNX model holds sparse tensors; export it with dense ones")
    graph = model.graph
    if len(graph.node) > MAX_NODES:
        raise ConfigError(f"the ONNX model has {len(graph.node)} operators; the limit is {MAX_NODES}")
    named = (graph.initializer, graph.input, graph.output, graph.value_info)
    if max(map(len, (*named, *(node.attribute for node in graph.node)))) > MAX_PARTS:
        raise ConfigError(f"the ONNX model has over {MAX_PARTS} tensors, named values or attributes of an operator")


def _check_nodes(onnx: ModuleType, graph: Any) -> None:
    for node in graph.node:
        if node.domain not in DOMAINS:
            raise ConfigError(f"the ONNX model uses the domain {shorten(node.domain)!r}; allowed: ai.onnx, ai.onnx.ml")
        if node.op_type == "ZipMap":
            raise ConfigError("the ONNX model ends in maps (ZipMap); convert it with options={'zipmap': False}")
        if node.op_type not in OPERATORS:
            raise ConfigError(
                f"the ONNX model uses the operator {shorten(node.op_type)!r}, which is not on the list of allowed "
                "ones (no control flow, no random numbers, nothing that makes arrays of any size)"
            )
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs or attribute.sparse_tensors:
                raise ConfigError(f"the ONNX model has a graph or a sparse tensor inside {node.op_type!r}")
        if _is_in_training(node):
            raise ConfigError(f"the ONNX model's {node.op_type} is in training mode; export it for inference")


def _is_in_training(node: Any) -> bool:
    """Whether an operator draws random numbers, or predicts a record by the other records beside it."""
    if node.op_type == "Dropout":
        return len(node.input) > 2 and node.input[2] != ""
    return any(attribute.name == "training_mode" and attribute.i != 0 for attribute in node.attribute)


def _check_tensors(onnx: ModuleType, graph: Any) -> None:
    inside = [a for node in graph.node for a in node.attribute]
    attached = [tensor for a in inside for tensor in ([a.t] if a.HasField("t") else []) + list(a.tensors)]
    for tensor in [*graph.initializer, *attached]:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ConfigError("the ONNX model keeps tensors in other files; save it as one file")
        num_elements = int(np.prod([max(int(size), 0) for size in tensor.dims], dtype=object))
        if num_elements > MAX_MODEL_BYTES:
            raise ConfigError(f"a tensor of the ONNX model has {num_elements} elements, more than its file can hold")


def _check_widths(onnx: ModuleType, model: Any) -> None:
    """Refuse intermediates that are very wide, where shapes can be told without running."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except Exception as error:  # the library's own classes
        raise ConfigError(f"the shapes of the ONNX model do not fit: {shorten(str(error))}") from None
    for value in [*inferred.graph.value_info, *inferred.graph.output]:
        sizes = [int(d.dim_value) for d in value.type.tensor_type.shape.dim if d.HasField("dim_value")]
        if int(np.prod(sizes, dtype=object)) > MAX_ROW_ELEMENTS:
            raise ConfigError(f"the ONNX model is over {MAX_ROW_ELEMENTS} elements wide at one of its operators")


def _refuse_fixed_rows(value: Any) -> None:
    rows = next(iter(value.type.tensor_type.shape.dim), None)
    if rows is not None and rows.HasField("dim_value") and rows.dim_value != 0:
        raise ConfigError(
            f"{shorten(value.name)!r} of the ONNX model takes {rows.dim_value} records at a time; export it with a "
            "first axis of any size"
        )


def _port(onnx: ModuleType, value: Any) -> Port:
    if not value.type.HasField("tensor_type"):
        raise ConfigError(
            f"{shorten(value.name)!r} of the ONNX model is no tensor; convert it with options={{'zipmap': False}}"
        )
    tensor = value.type.tensor_type
    name = onnx.TensorProto.DataType.Name(tensor.elem_type).lower() if tensor.elem_type else "unknown"
    dims = list(tensor.shape.dim)
    width = 1 if len(dims) == 1 else int(dims[1].dim_value) if len(dims) == 2 and dims[1].dim_value > 0 else None
    return Port(value.name, name, width, len(dims))


def fed_as(port: Port) -> Any:
    """The numpy type of an input's numbers; None for text.

    Raises:
        ConfigError: a type that is not fed.
    """
    if port.type == "string":
        return None
    if port.type not in _DTYPES:
        raise ConfigError(f"input {shorten(port.name)!r} of the ONNX model holds {port.type}; allowed: float and int64")
    return _DTYPES[port.type]


@cache
def _limit_memory() -> None:
    """Give onnxruntime an allocator of `MAX_WORKING_BYTES`; only sessions that ask for it are affected."""
    _, runtime = _libraries()
    kinds = runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT
    arena = {"max_mem": MAX_WORKING_BYTES, "arena_extend_strategy": 1}  # as much as is asked for, not twice that
    own = {"initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
    runtime.create_and_register_allocator(runtime.OrtMemoryInfo("Cpu", *kinds), runtime.OrtArenaCfg(arena | own))


def _session_options(runtime: ModuleType) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # what it would log might hold values
    options.enable_mem_pattern = False
    # Optimising runs parts of the graph beforehand, and with another allocator.
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Else bytes that begin as its own format does are read as that, whatever onnx made of them.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


class OnnxSession:
    """A checked graph that is ready to predict, in one thread.

    Args:
        file: its bytes; checked before a session is made of them.
        output: name of the output that is the prediction.

    Raises:
        ConfigError: as `check_graph`, or the runtime does not know an operator's version.

    Guarantees:
        graphs_have_limited_memory: one whose values grow while it runs is refused before they are large.
        a_records_score_is_its_own: a graph that scores a record by the records beside it is refused.
    """

    def __init__(self, file: bytes, output: str) -> None:
        self.ports, checked = _checked(file)
        if output not in {port.name for port in self.ports.outputs}:
            raise ConfigError(f"the ONNX model has no output {shorten(output)!r}")
        _, runtime = _libraries()
        _limit_memory()
        self._output = output
        self._is_tried = False
        self._run_options = runtime.RunOptions()
        self._run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        try:
            self._session = runtime.InferenceSession(
                checked, _session_options(runtime), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's own classes
            raise ConfigError(f"onnxruntime refuses the model: {shorten(' '.join(str(error).split()))}") from None

    def predict(self, feeds: dict[str, NDArray[Any]], num_rows: int) -> Values:
        """Predictions by record, shape (num_rows,); of two columns the second.

        Args:
            feeds: by input, shape (num_rows, width) or (num_rows,).
            num_rows: number of records.

        Raises:
            ConfigError: the graph cannot compute them, or its output is not one number a record.
        """
        parts = []
        for start in range(0, num_rows, ROWS_AT_A_TIME):
            part = {name: values[start : start + ROWS_AT_A_TIME] for name, values in feeds.items()}
            parts.append(self._predict_some(part, min(ROWS_AT_A_TIME, num_rows - start)))
            if not self._is_tried:
                self._try_in_halves(part, parts[0])
        return np.concatenate(parts) if parts else np.empty(0)

    def _try_in_halves(self, feeds: dict[str, NDArray[Any]], together: Values) -> None:
        half = (len(together) + 1) // 2
        first = self._predict_some({name: values[:half] for name, values in feeds.items()}, half)
        rest = {name: values[half:] for name, values in feeds.items()}
        second = self._predict_some(rest, len(together) - half) if len(together) > half else np.empty(0)
        # Other sizes of blocks change last digits.
        far = 1e-4 * np.abs(together[np.isfinite(together)]).max(initial=0.0)
        if not np.allclose(together, np.concatenate([first, second]), rtol=0.0, atol=far, equal_nan=True):
            raise ConfigError(
                "the ONNX model scores a record by the records beside it (or by chance), so its score is not the "
                "record's own; export it for inference, with no operator over the first axis"
            )
        self._is_tried = True

    def _predict_some(self, feeds: dict[str, NDArray[Any]], num_rows: int) -> Values:
        try:
            (answer,) = self._session.run([self._output], feeds, self._run_options)
        except Exception:  # the runtime's own classes; its words may hold values
            raise ConfigError(
                "the ONNX model cannot be computed on these records, or needs over 1 GiB of memory; check its inputs"
            ) from None
        answer = np.asarray(answer)
        if answer.dtype.kind not in "fiu" or answer.shape not in {(num_rows,), (num_rows, 1), (num_rows, 2)}:
            raise ConfigError(
                f"the output {shorten(self._output)!r} of the ONNX model must be one number a record, or the "
                f"probabilities of two classes; it has the shape {answer.shape[1:]} a record"
            )
        return np.asarray(answer if answer.ndim == 1 else answer[:, -1], np.float64)


__all__ = ["OPERATORS", "OnnxSession", "Port", "Ports", "check_graph", "fed_as"]
