"""ONNX models: scored at the sites as onnxruntime and scikit-learn score them, and refused where they may do harm."""

import base64
import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tests.analytics.pooled import split
from tests.analytics.test_scoring_model import PATIENTS, scores_of
from wardround import load_model
from wardround.analytics.evaluate import evaluate
from wardround.analytics.scoring_model import MAX_MODEL_BYTES, OnnxModel
from wardround.analytics.scoring_onnx import OnnxSession, check_graph
from wardround.engines.simulated_hospitals import simulate
from wardround.errors import ConfigError, DataError

onnx = pytest.importorskip("onnx")
skl2onnx = pytest.importorskip("skl2onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

NUMBERS = ["age", "crp"]
X, Y = PATIENTS[NUMBERS].to_numpy(), PATIENTS.died


def converted(estimator, example=None, **options):
    example = X[:1].astype(np.float32) if example is None else example
    return skl2onnx.to_onnx(estimator, example, options={"zipmap": False, **options}, target_opset=17)


@pytest.fixture(scope="module")
def forest():
    return RandomForestClassifier(12, max_depth=4, random_state=0).fit(X.astype(np.float32), Y)


@pytest.fixture(scope="module")
def file(forest):
    return converted(forest).SerializeToString()


def test_it_scores_as_the_estimator_does(forest, file):
    model = load_model(file, features=NUMBERS)
    np.testing.assert_allclose(scores_of(model), forest.predict_proba(X.astype(np.float32))[:, 1], atol=1e-6)


def test_evaluation_of_an_onnx_model_equals_pooled(forest, file):
    federation = simulate(split(PATIENTS, 3, 1))
    found = federation.run(evaluate(model=load_model(file, features=NUMBERS), outcome="died", by="sex"))
    p = forest.predict_proba(X.astype(np.float32))[:, 1]
    assert found.overall.auroc.least - 1e-6 <= roc_auc_score(Y, p) <= found.overall.auroc.greatest + 1e-6
    assert found.overall.brier.value == pytest.approx(brier_score_loss(Y, p), abs=1e-6)
    assert found.model_kind == "onnx"


def test_the_digest_is_that_of_the_file_and_stands_where_a_steward_reads(file):
    model = load_model(file, features=NUMBERS)
    digest = hashlib.sha256(file).hexdigest()
    assert model.digest == digest
    workflow = evaluate(model=model, outcome="died")
    shown = json.dumps(workflow.type.parameters.to_json(workflow.options))
    assert f"sha256:{digest}" in shown
    assert model.content not in shown


def test_an_input_for_each_variable_and_text_for_a_category():
    chosen = PATIENTS[["age", "crp", "sex"]]
    estimator = make_pipeline(
        ColumnTransformer([("n", StandardScaler(), NUMBERS), ("c", OneHotEncoder(), ["sex"])]), LogisticRegression()
    ).fit(chosen, Y)
    kinds = skl2onnx.common.data_types
    inputs = [("age", kinds.FloatTensorType([None, 1])), ("crp", kinds.FloatTensorType([None, 1]))]
    inputs.append(("sex", kinds.StringTensorType([None, 1])))
    graph = skl2onnx.convert_sklearn(estimator, initial_types=inputs, options={"zipmap": False}, target_opset=17)
    model = load_model(graph.SerializeToString())
    np.testing.assert_allclose(scores_of(model), estimator.predict_proba(chosen)[:, 1], atol=1e-5)


def test_features_may_stand_in_the_files_metadata(forest):
    graph = converted(forest)
    graph.metadata_props.add(key="wardround.features", value=json.dumps(NUMBERS))
    model = load_model(graph.SerializeToString())
    np.testing.assert_allclose(scores_of(model), forest.predict_proba(X.astype(np.float32))[:, 1], atol=1e-6)
    graph.metadata_props[0].value = "{"
    with pytest.raises(ConfigError, match="JSON list"):
        load_model(graph.SerializeToString())


def test_features_may_be_arithmetic_and_levels():
    x = np.column_stack([np.log(PATIENTS.crp), PATIENTS.sex == "M"])
    boosted = GradientBoostingClassifier(n_estimators=10, random_state=0).fit(x.astype(np.float32), Y)
    graph = converted(boosted, x[:1].astype(np.float32))
    model = load_model(graph.SerializeToString(), features=["np.log(crp)", "sex[M]"])
    np.testing.assert_allclose(scores_of(model), boosted.predict_proba(x.astype(np.float32))[:, 1], atol=1e-5)


def test_a_network_of_matrices_is_scored_in_blocks():
    rng = np.random.default_rng(0)
    weights, last = rng.normal(0, 0.05, (2, 16)).astype(np.float32), rng.normal(0, 0.3, (16, 1)).astype(np.float32)
    file = made(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("MatMul", ["b", "v"], ["c"]),
            helper.make_node("Sigmoid", ["c"], ["y"]),
        ],
        tensors={"w": weights, "v": last},
    )
    frame = pd.concat([PATIENTS] * 8, ignore_index=True)  # more rows than are scored at a time
    x = frame[NUMBERS].to_numpy(np.float32)
    expected = 1 / (1 + np.exp(-(np.maximum(x @ weights, 0) @ last)[:, 0]))
    np.testing.assert_allclose(scores_of(load_model(file, features=NUMBERS), frame), expected, rtol=1e-4)


def made(nodes, *, tensors=None, inputs=None, outputs=None, domains=(("", 17),), functions=(), change=None):
    """Bytes of a graph of these nodes, from `x` of two columns to `y` of one unless said otherwise."""
    graph = helper.make_graph(
        nodes,
        "g",
        inputs or [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        outputs or [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(value, name) for name, value in (tensors or {}).items()],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains]
    model = helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=8)
    if change:
        change(model)
    return model.SerializeToString()


W = {"w": np.ones((2, 1), np.float32)}
MATMUL = helper.make_node("MatMul", ["x", "w"], ["y"])


def external(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def claims_terabytes(model):
    model.graph.initializer[0].dims[:] = [2**20, 2**20]


def branch():
    body = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "b", [],
                             [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)])  # fmt: skip
    return helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)


FUNCTION = helper.make_function("own", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])],
                                [helper.make_opsetid("", 17)])  # fmt: skip
SHAPE = {"s": np.array([2**20, 2**20], np.int64)}
HARMFUL = {
    "external data": ({"nodes": [MATMUL], "tensors": W, "change": external}, "other files"),
    "a tensor of terabytes": ({"nodes": [MATMUL], "tensors": W, "change": claims_terabytes}, "file can hold"),
    "control flow": (
        {"nodes": [branch()], "tensors": {"c": np.array(True)}},
        "'If', which is not on the list|inside 'If'",
    ),
    "random numbers": ({"nodes": [helper.make_node("RandomNormalLike", ["x"], ["y"])]}, "not on the list"),
    "arrays of any size": (
        {"nodes": [helper.make_node("ConstantOfShape", ["s"], ["y"])], "tensors": SHAPE},
        "not on the list",
    ),
    "expansion": ({"nodes": [helper.make_node("Expand", ["x", "s"], ["y"])], "tensors": SHAPE}, "not on the list"),
    "a foreign domain": (
        {"nodes": [helper.make_node("Evil", ["x"], ["y"], domain="com.evil")], "domains": (("", 17), ("com.evil", 1))},
        "domain 'com.evil'",
    ),
    "a function": (
        {"nodes": [helper.make_node("F", ["x"], ["y"], domain="own")], "functions": [FUNCTION],
         "domains": (("", 17), ("own", 1))},
        "domain 'own'|functions",
    ),
    "an unknown operator": ({"nodes": [helper.make_node("Evil", ["x"], ["y"])]}, "not on the list"),
    "very wide": (
        {"nodes": [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("ReduceSum", ["a"], ["y"])],
         "tensors": {"w": np.ones((2, 200_000), np.float32)}},
        "elements wide",
    ),
    "records one at a time": (
        {"nodes": [MATMUL], "tensors": W, "inputs": [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])]},
        "1 records at a time",
    ),
    "no output": (
        {"nodes": [MATMUL], "tensors": W, "change": lambda model: model.graph.ClearField("output")},
        "no output|broken",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HARMFUL)
def test_graphs_hold_the_allow_list_only(kind):
    options, words = HARMFUL[kind]
    with pytest.raises(ConfigError, match=words):
        check_graph(made(**options))


def test_a_harmless_graph_passes_and_so_the_refusals_mean_something():
    ports = check_graph(made([MATMUL], tensors=W))
    assert [(port.name, port.width) for port in ports.inputs] == [("x", 2)]
    assert OnnxSession(made([MATMUL], tensors=W), "y").predict({"x": np.ones((3, 2), np.float32)}, 3).tolist() == [
        2,
        2,
        2,
    ]


def test_sites_check_the_graph_again():
    honest = load_model(made([MATMUL], tensors=W), features=NUMBERS, scale="score")
    evil = made([helper.make_node("RandomNormalLike", ["x"], ["y"])])
    model = OnnxModel(
        name="m", content=base64.b64encode(evil).decode(), inputs=honest.inputs, output="y", scale="score"
    )
    with pytest.raises(ConfigError, match="not on the list"):
        scores_of(model)


@pytest.mark.parametrize("size", [0, 1, 10, 100, 1000])
def test_truncated_and_damaged_files_are_refused_or_score(file, size):
    with pytest.raises(ConfigError):
        load_model(file[:size], features=NUMBERS)
    damaged = bytearray(file)
    damaged[min(size, len(file) - 1)] ^= 0xFF
    try:
        model = load_model(bytes(damaged), features=NUMBERS)
        scores_of(model)
    except ConfigError:
        pass


def value_of(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def doubled(axis, times):
    """The input joined to itself again and again, and then added up."""
    nodes = [
        helper.make_node("Concat", ["x" if i == 0 else f"c{i - 1}"] * 2, [f"c{i}"], axis=axis) for i in range(times)
    ]
    return [
        *nodes,
        helper.make_node("ReduceSum", [f"c{times - 1}"], ["r"], keepdims=1),
        helper.make_node("Add", ["x", "r"], ["s"]),
        helper.make_node("ReduceSum", ["s", "one"], ["y"], keepdims=1),
    ]


ONE = {"one": np.array([1])}
GROWING = {
    "records": made(doubled(0, 20), tensors=ONE),
    "columns of an open input": made(doubled(1, 20), tensors=ONE, inputs=[value_of("x", None, None)]),
    "the product of two constants": made(
        [
            helper.make_node("Add", ["a", "b"], ["c"]),
            helper.make_node("MatMul", ["c", "d"], ["o"]),
            helper.make_node("ReduceSum", ["x", "one"], ["y"], keepdims=1),
        ],
        tensors={"a": np.ones((20_000, 1), np.float32), "b": np.zeros(1, np.float32), **ONE},
        inputs=[value_of("x", None, 2), value_of("d", None, None)],
        outputs=[value_of("y", None, 1), value_of("o", "p", "q")],
    ),
}


@pytest.mark.parametrize("kind", GROWING)
def test_graphs_have_limited_memory(kind):
    rows = 1024
    feeds = {"x": np.ones((rows, 2), np.float32), "d": np.ones((1, 20_000), np.float32)}
    session = OnnxSession(GROWING[kind], "y")
    with pytest.raises(ConfigError, match="over 1 GiB of memory"):
        session.predict({port.name: feeds[port.name] for port in session.ports.inputs}, rows)
    # What was refused is no longer held.
    assert OnnxSession(made([MATMUL], tensors=W), "y").predict({"x": feeds["x"]}, rows).tolist() == [2.0] * rows


def test_wide_outputs_are_refused_beforehand():
    file = made(
        [helper.make_node("MatMul", ["a", "b"], ["o"]), MATMUL],
        tensors={"a": np.ones((20_000, 1), np.float32), "b": np.ones((1, 20_000), np.float32), **W},
        outputs=[value_of("y", None, 1), value_of("o", "p", "q")],
    )
    with pytest.raises(ConfigError, match="elements wide"):
        check_graph(file)


BESIDE = {
    "the mean over records": [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0]),
        helper.make_node("Sub", ["x", "m"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ],
    "its place among them": [
        helper.make_node("MatMul", ["x", "w"], ["s"]),
        helper.make_node("Softmax", ["s"], ["y"], axis=0),
    ],
}


@pytest.mark.parametrize("kind", BESIDE)
def test_a_records_score_is_its_own(kind):
    model = load_model(made(BESIDE[kind], tensors=W), features=NUMBERS, scale="score")
    with pytest.raises(ConfigError, match="records beside it"):
        scores_of(model)


TRAINING = {
    "Dropout": (
        helper.make_node("Dropout", ["x", "half", "yes"], ["z"]),
        {"half": np.float32(0.5), "yes": np.array(True)},
    ),
    "BatchNormalization": (
        helper.make_node("BatchNormalization", ["x", *"smbv"], ["z", "b2", "v2"], training_mode=1),
        {name: np.ones(2, np.float32) for name in "smbv"},
    ),
}


@pytest.mark.parametrize("kind", TRAINING)
def test_operators_in_training_are_refused(kind):
    node, tensors = TRAINING[kind]
    with pytest.raises(ConfigError, match=f"{kind} is in training mode"):
        check_graph(made([node, helper.make_node("MatMul", ["z", "w"], ["y"])], tensors={**tensors, **W}))


def varint(number):
    return bytes([number & 127 | 128]) + varint(number >> 7) if number > 127 else bytes([number])


def test_what_runs_is_what_was_checked():
    # Bytes 4 to 7 make a file one of the runtime's own format, which would be read in place of the graph.
    file = b"\x12\x06\x00\x00ORTM" + made([MATMUL], tensors=W)
    assert file[4:8] == b"ORTM"
    assert OnnxSession(file, "y").predict({"x": np.ones((1, 2), np.float32)}, 1).tolist() == [2.0]


@pytest.mark.parametrize("field", [b"\x0a", b"\x2a", b"\x5a", b"\x6a"])
def test_millions_of_empty_parts_are_refused_at_once(field):
    parts = field + b"\x00"
    body = parts * 60_000
    with pytest.raises(ConfigError, match=r"limit is|over 50000"):
        check_graph(b"\x08\x08\x3a" + varint(len(body)) + body)


def test_the_label_beside_a_prediction_may_have_any_shape(file):
    graph = onnx.load_model_from_string(file)
    graph.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1  # as some converters write it
    assert load_model(graph.SerializeToString(), features=NUMBERS).output == "probabilities"


def test_maps_are_refused_with_the_remedy(forest):
    graph = skl2onnx.to_onnx(forest, X[:1].astype(np.float32), target_opset=17)
    with pytest.raises(ConfigError, match="zipmap"):
        load_model(graph.SerializeToString(), features=NUMBERS)


def test_inputs_and_features_must_fit(file):
    with pytest.raises(ConfigError, match="features = "):
        load_model(file)
    with pytest.raises(ConfigError, match="takes 2 columns, the features are 3"):
        simulate({"a": PATIENTS}).run(
            evaluate(model=load_model(file, features=["age", "crp", "grade"]), outcome="died")
        )
    with pytest.raises(ConfigError, match="no output 'nothing'"):
        scores_of(load_model(file, features=NUMBERS, output="nothing"))
    wide = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])
    three = made([MATMUL], tensors={"w": np.ones((2, 3), np.float32)}, outputs=[wide])
    with pytest.raises(ConfigError, match="one number a record"):
        scores_of(load_model(three, features=NUMBERS))
    with pytest.raises(ConfigError, match="limit"):
        check_graph(b"\x08" * (MAX_MODEL_BYTES + 1))


def test_a_label_is_no_prediction(file):
    two = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in ("y", "z")]
    graph = made([MATMUL, helper.make_node("Sigmoid", ["y"], ["z"])], tensors=W, outputs=two)
    with pytest.raises(ConfigError, match="outputs y, z; say which"):
        load_model(graph, features=NUMBERS)
    assert load_model(graph, features=NUMBERS, output="z").output == "z"
    assert load_model(file, features=NUMBERS).output == "probabilities"


def test_scores_that_are_no_probabilities_are_refused_or_ranked():
    graph = made([MATMUL], tensors=W)
    federation = simulate(split(PATIENTS, 3, 1))
    with pytest.raises(DataError, match="scale = 'score'"):
        federation.run(evaluate(model=load_model(graph, features=NUMBERS), outcome="died"))
    found = federation.run(evaluate(model=load_model(graph, features=NUMBERS, scale="score"), outcome="died"))
    exact = roc_auc_score(Y, X.astype(np.float32).sum(axis=1))
    assert found.overall.auroc.least <= exact <= found.overall.auroc.greatest
