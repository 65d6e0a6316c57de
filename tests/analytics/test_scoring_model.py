"""Models of coefficients: from files, from our fits, from scikit-learn; and files that are not what they say."""

import gzip
import json
import pickle
import time
import zipfile

import numpy as np
import pandas as pd
import pytest
from scipy import special
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, LogisticRegressionCV, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, OneHotEncoder, PolynomialFeatures, StandardScaler

from tests.analytics.pooled import split
from wardround import load_model, scoring_model_of
from wardround.analytics.design import Level, Numeric
from wardround.analytics.evaluate import evaluate
from wardround.analytics.glm import glm
from wardround.analytics.scoring import scored_blocks
from wardround.analytics.scoring_model import LinearModel, ModelFile, OnnxInput, OnnxModel, frame_of
from wardround.analytics.scoring_read import linear_model, model_of_bytes, model_of_fit, term_column
from wardround.engines.simulated_hospitals import simulate
from wardround.errors import ConfigError


def make_patients(n=400, seed=3):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.normal(60, 12, n).round(1),
            "crp": rng.gamma(2, 10, n).round(1) + 0.1,
            "sex": rng.choice(["F", "M"], n),
            "ward": rng.choice(["acute", "day", "rehab"], n),
            "grade": rng.integers(1, 4, n),
        }
    )
    frame["died"] = (rng.random(n) < special.expit(-3 + 0.04 * frame.age + 0.5 * (frame.sex == "M"))).astype(int)
    return frame


PATIENTS = make_patients()
FEDERATION = simulate({"all": PATIENTS})


def scores_of(model, frame=None):
    """A model's scores of the records, in their order."""
    federation = FEDERATION if frame is None else simulate({"all": frame})
    (table,) = federation.data.values()
    blocks = scored_blocks(table, model, frame_of(model, Numeric(expression="age"), ("age",)))
    return np.concatenate([block.score for block in blocks])


TOML = """
name = "Risk of death"
link = "logit"
intercept = -3.5
[coefficients]
age = 0.04
"sex[M]" = 0.5
"np.log(crp)" = 0.1
"age:ward[day]" = -0.01
"I(age > 70)" = 0.3
"""


def by_hand(frame):
    return special.expit(
        -3.5
        + 0.04 * frame.age
        + 0.5 * (frame.sex == "M")
        + 0.1 * np.log(frame.crp)
        - 0.01 * frame.age * (frame.ward == "day")
        + 0.3 * (frame.age > 70)
    ).to_numpy()


def test_coefficients_in_toml_and_json_score_as_written(tmp_path):
    (tmp_path / "risk.toml").write_text(TOML)
    document = {"intercept": -3.5, "coefficients": {"age": 0.04, "sex[T.M]": 0.5, "log(crp)": 0.1,
                "age:C(ward)[T.day]": -0.01, "I(age > 70)": 0.3}}  # fmt: skip
    (tmp_path / "risk.json").write_text(json.dumps(document))
    toml, from_json = load_model(tmp_path / "risk.toml"), load_model(str(tmp_path / "risk.json"))
    assert (toml.name, from_json.name, toml.scale) == ("Risk of death", "risk.json", "probability")
    np.testing.assert_allclose(scores_of(toml), by_hand(PATIENTS), rtol=1e-13)
    np.testing.assert_allclose(scores_of(from_json), by_hand(PATIENTS), rtol=1e-13)


def test_terms_are_read_as_regressions_name_them():
    assert term_column("Intercept").features == ()
    assert term_column("C(sex, Treatment('F'))[T.M]").features == (Level(variable="sex", level="M"),)
    assert term_column("`blood group`[A:B+]").features == (Level(variable="blood group", level="A:B+"),)
    assert len(term_column("age:sex[M]").features) == 2
    for term in ("center(age)", "rcs(age, 4)[0]", "__import__('os')", "age +", "[M]"):
        with pytest.raises(ConfigError):
            term_column(term)


@pytest.mark.parametrize(
    "formula",
    [
        "died ~ age + C(sex) + ward",
        "died ~ age * sex + ward:sex + np.log(crp) + I(age ** 2)",
        "died ~ 0 + ward + C(grade)",
    ],
)
def test_a_fit_of_ours_predicts_what_it_fitted(formula):
    import statsmodels.formula.api as smf

    fit = simulate(split(PATIENTS, 3, 1)).run(glm(formula=formula, family="binomial"))
    expected = smf.logit(formula, PATIENTS).fit(disp=0, tol=1e-12).predict(PATIENTS)
    np.testing.assert_allclose(scores_of(model_of_fit(fit)), expected, rtol=1e-6)
    again = model_of_bytes(fit.to_json().encode(), "fit.json")
    assert again.digest == model_of_fit(fit).digest


def test_a_fit_with_constants_of_its_own_travels_with_them():
    formula = "died ~ rcs(age, 4) + center(crp) * sex + scale(grade)"
    fit = simulate(split(PATIENTS, 3, 1)).run(glm(formula=formula, family="binomial", offset="age / 50"))
    model = model_of_fit(fit)
    assert model_of_bytes(fit.to_json().encode(), "fit.json").digest == model.digest
    # What it predicts for the records it was fitted to solves the score equation of the intercept.
    assert scores_of(model).sum() == pytest.approx(PATIENTS.died.sum(), rel=1e-9)
    assert model.columns[-1].features == (Numeric(expression="age / 50"),)


def test_the_digest_is_of_what_is_computed_not_of_the_name():
    one, other = linear_model({"age": 0.1}, name="a"), linear_model({"age": 0.1}, name="b")
    assert one.digest == other.digest
    assert len(one.digest) == 64
    assert len({one.digest, linear_model({"age": 0.1000001}).digest, linear_model({"crp": 0.1}).digest,
                linear_model({"age": 0.1}, link="probit").digest}) == 4  # fmt: skip


# scikit-learn

NUMBERS = ["age", "crp"]
X, Y = PATIENTS[NUMBERS], PATIENTS.died


def encoded(**options):
    return ColumnTransformer([("n", StandardScaler(), NUMBERS), ("c", OneHotEncoder(**options), ["sex", "ward"])])


@pytest.mark.parametrize(
    ("estimator", "columns"),
    [
        (LogisticRegression(), NUMBERS),
        (LogisticRegressionCV(Cs=3, cv=3, scoring="neg_log_loss", max_iter=1000), NUMBERS),
        (make_pipeline(StandardScaler(), LogisticRegression()), NUMBERS),
        (make_pipeline(StandardScaler(with_mean=False), MinMaxScaler((1, 3)), LogisticRegression()), NUMBERS),
        (make_pipeline(MaxAbsScaler(), LogisticRegression()), NUMBERS),
        (make_pipeline(encoded(), LogisticRegression()), [*NUMBERS, "sex", "ward"]),
        (make_pipeline(encoded(drop="first"), LogisticRegression()), ["ward", "crp", "sex", "age"]),
        (
            make_pipeline(
                ColumnTransformer(
                    [("a", Pipeline([("s", StandardScaler())]), [0]), ("d", "drop", ["sex"])], remainder="passthrough"
                ),
                LogisticRegression(),
            ),
            ["age", "sex", "crp"],
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # scikit-learn's, of defaults that will change
def test_coefficients_predict_what_the_estimator_predicts(estimator, columns):
    estimator.fit(PATIENTS[columns], Y)
    np.testing.assert_allclose(
        scores_of(scoring_model_of(estimator)), estimator.predict_proba(PATIENTS[columns])[:, 1], rtol=1e-10
    )


@pytest.mark.parametrize("estimator", [LinearRegression(), make_pipeline(StandardScaler(), Ridge())])
def test_linear_regressions_are_scores(estimator):
    estimator.fit(X.to_numpy(), Y)
    model = scoring_model_of(estimator, NUMBERS, name="Linear")
    assert (model.scale, model.name) == ("score", "Linear")
    np.testing.assert_allclose(scores_of(model), estimator.predict(X.to_numpy()), rtol=1e-9, atol=1e-12)


def test_encoded_integers_are_levels_of_the_contract():
    frame = PATIENTS.assign(grade=PATIENTS.grade.astype(float))
    estimator = make_pipeline(
        ColumnTransformer([("c", OneHotEncoder(), ["grade"])], remainder="passthrough"), LogisticRegression()
    ).fit(frame[["age", "grade"]], Y)
    model = scoring_model_of(estimator)
    np.testing.assert_allclose(scores_of(model), estimator.predict_proba(frame[["age", "grade"]])[:, 1], rtol=1e-10)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: RandomForestClassifier(5).fit(X, Y), "skl2onnx"),
        (lambda: make_pipeline(PolynomialFeatures(), LinearRegression()).fit(X, Y), "PolynomialFeatures"),
        (lambda: LogisticRegression(), "not fitted"),
        (lambda: LogisticRegression().fit(X, PATIENTS.grade), "3 classes"),
        (lambda: LogisticRegression().fit(X.to_numpy(), Y), "list the features"),
        (lambda: make_pipeline(MinMaxScaler(clip=True), LogisticRegression()).fit(X, Y), "MinMaxScaler"),
        (lambda: "a text", "cannot be read off"),
    ],
)
def test_what_cannot_be_read_off_is_refused(made, words):
    with pytest.raises(ConfigError, match=words):
        scoring_model_of(made())


def test_estimators_with_the_wrong_features_are_refused():
    estimator = LogisticRegression().fit(X.to_numpy(), Y)
    with pytest.raises(ConfigError, match="2 coefficients, but 3 features"):
        scoring_model_of(estimator, ["age", "crp", "grade"])
    with pytest.raises(ConfigError, match="not fitted"):
        scoring_model_of(LogisticRegression(), ["age"])


def test_evaluate_takes_a_fit_and_an_estimator():
    estimator = LogisticRegression().fit(X, Y)
    federation = simulate(split(PATIENTS, 3, 1))
    one = federation.run(evaluate(model=estimator, outcome="died"))
    other = federation.run(evaluate(model=scoring_model_of(estimator), outcome="died"))
    assert one.overall == other.overall
    with pytest.raises(ConfigError, match="skl2onnx"):
        evaluate(model=RandomForestClassifier(3).fit(X, Y), outcome="died")


# Files that are not what they say


def zipped(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model", b"0" * 10_000_000)
    return path.read_bytes()


@pytest.mark.parametrize("name", ["risk.toml", "risk.json", "risk.onnx"])
@pytest.mark.parametrize("kind", ["empty", "pickle", "zip", "gzip", "random", "truncated", "binary text"])
def test_a_file_that_is_not_what_it_says_is_refused(name, kind, tmp_path):
    contents = {
        "empty": b"",
        "pickle": pickle.dumps(LogisticRegression()),
        "zip": zipped(tmp_path),
        "gzip": gzip.compress(TOML.encode()),
        "random": np.random.default_rng(1).bytes(5000),
        "truncated": TOML.encode()[:-40],
        "binary text": b"\xff\xfe\x00",
    }
    path = tmp_path / name
    path.write_bytes(contents[kind])
    with pytest.raises(ConfigError):
        load_model(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("age = 1", "unknown key"),
        ("intercept = 1", "coefficients: missing"),
        ("[coefficients]\nage = nan", "finite number"),
        ("[coefficients]\nage = inf", "finite number"),
        ("[coefficients]\nage = 'much'", "valid number"),
        ("link = 'magic'\n[coefficients]\nage = 1", "link"),
        ("intercept = 1\n[coefficients]\nage = 1\nIntercept = 2", "twice"),
        ("[coefficients]\n'center(age)' = 1", "not in its name"),
        ("[coefficients]\n'open(\"x\")' = 1", "not allowed"),
        ("[coefficients]\nage = true", "finite number|valid number"),
        ("a" + ".a" * 500 + " = 1", "periods"),
        ("name = ''\n[coefficients]\nage = 1", "printable"),
    ],
)
def test_wrong_coefficients_are_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        model_of_bytes(text.encode(), "risk.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, 2]", "coefficients by term"),
        ('{"a": 1, "a": 2}', "twice"),
        ("[" * 100_000, "nested|JSON"),
        ('{"terms": [{"term": "age"}], "link": "logit"}', "estimate"),
        ('{"terms": [{"term": "age", "estimate": 1.0}]}', "link"),
        ('{"terms": [{"term": "age", "estimate": 1.0}], "link": "logit"}', "a column for each coefficient"),
        (
            (
                '{"terms": [{"term": "age", "estimate": NaN}], "link": "logit", "columns": [{"name": "age", '
                '"features": [{"kind": "numeric", "expression": "age"}]}]}'
            ),
            "finite",
        ),
        ('{"terms": [], "link": "logit", "offset": "open(1)"}', "not allowed"),
        ('{"terms": [], "link": "logit"}', "1 to"),
    ],
)
def test_wrong_json_is_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        model_of_bytes(text.encode(), "risk.json")


def test_other_endings_and_large_files_are_refused(tmp_path):
    for name in ("model.pkl", "model.joblib", "model.pt", "model"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(ConfigError, match=r"ends in \.toml"):
            load_model(tmp_path / name)
    (tmp_path / "big.toml").write_bytes(b"#" * (9 * 2**20))
    with pytest.raises(ConfigError, match="limit"):
        load_model(tmp_path / "big.toml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_model(tmp_path)
    with pytest.raises(ConfigError, match="there is no model file"):
        load_model(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="for ONNX"):
        model_of_bytes(TOML.encode(), "risk.toml", features=["age"])


@pytest.mark.parametrize("file", ["", "/etc/passwd", "../risk.toml", "C:\\risk.toml", "a/../../b.toml", "a\nb.toml"])
def test_a_model_file_is_named_inside_the_folder(file):
    with pytest.raises(ValueError, match="a model's file"):
        ModelFile(file=file)


def test_models_check_themselves():
    column = term_column("age")
    for coefficients in ([np.nan], [1.0, 2.0], []):
        with pytest.raises(ValueError, match="finite number"):
            LinearModel(name="m", columns=(column,), coefficients=np.array(coefficients), link="logit")
    with pytest.raises(ValueError, match="either"):
        OnnxInput(name="x")
    with pytest.raises(ValueError, match="base64"):
        OnnxModel(name="m", content="!!!", inputs=(OnnxInput(name="x", category="sex"),), output="y")
    with pytest.raises(ValueError, match="printable"):
        OnnxModel(name="", content="", inputs=(OnnxInput(name="x", category="sex"),), output="y")


@pytest.mark.parametrize(
    "formula", ["died ~ center(age) + scale(age ** 2)", "died ~ bs(age, df=4)", "died ~ rcs(age, 3)"]
)
def test_a_fit_with_constants_of_the_data_scores_as_it_fitted(formula):
    rng = np.random.default_rng(8)
    age = rng.normal(60, 10, 400).round()
    table = pd.DataFrame({"age": age, "died": rng.random(400) < 1 / (1 + np.exp(6 - age / 10))})
    simulation = simulate({"North": table[:250], "South": table[250:]})
    fit = simulation.run(glm(formula, family="binomial"))
    evaluation = simulation.run(evaluate(fit, "died"))
    # Of the records that it was fitted to, a logistic regression is calibrated, and its log loss is its deviance's.
    assert evaluation.overall.calibration_slope.value == pytest.approx(1, abs=1e-6)
    assert evaluation.overall.log_loss.value == pytest.approx(fit.deviance / 2 / 400, rel=1e-9)


HUGE = {
    "terms": ('{"coefficients": {' + ", ".join(f'"v{i}": 1' for i in range(5_000)) + "}}", "limit is 2000"),
    "a term": ('{"coefficients": {"' + "a" * 3_000_000 + '": 1}}', "characters; the limit is"),
    "a level": ('{"coefficients": {"sex[' + "a" * 3_000_000 + ']": 1}}', "characters; the limit is"),
    "factors": ('{"coefficients": {"' + "a:" * 900 + 'a": 1}}', "product of at most 50"),
}


@pytest.mark.parametrize("kind", HUGE)
def test_huge_files_of_coefficients_are_refused_at_once(kind):
    text, words = HUGE[kind]
    started = time.perf_counter()
    with pytest.raises(ConfigError, match=words):
        model_of_bytes(text.encode(), "risk.json")
    assert time.perf_counter() - started < 5


def test_long_toml_is_refused_before_it_is_parsed():
    with pytest.raises(ConfigError, match="only"):
        model_of_bytes(b"[coefficients]\n" + b"a = 1\n" * 200_000, "risk.toml")


def test_coefficients_may_be_a_dict_of_numbers():
    said = {"Intercept": -4.0, "age": 0.05, "C(sex)[T.M]": 0.4}  # as statsmodels names them
    federation = simulate({"a": PATIENTS})
    found = federation.run(evaluate(model=said, outcome="died"))
    assert found.model_digest == federation.run(evaluate(model=linear_model(said), outcome="died")).model_digest
    for wrong in ({"age": "0.05"}, {"age": None}, {"age": True}):
        with pytest.raises(ConfigError, match=r"finite number|model"):
            evaluate(model=wrong, outcome="died")
        with pytest.raises(ConfigError, match="finite number"):
            linear_model(wrong)


@pytest.mark.parametrize("step", [StandardScaler(), MinMaxScaler(), MaxAbsScaler(), OneHotEncoder()])
def test_a_step_that_is_not_fitted_is_refused(step):
    fitted = LogisticRegression().fit(PATIENTS[["age"]], PATIENTS.died)
    with pytest.raises(ConfigError, match="is not fitted"):
        scoring_model_of(Pipeline([("a", step), ("b", fitted)]), ["age"])


def test_names_with_spaces_and_words_of_python_are_names():
    frame = PATIENTS.assign(**{"systolic bp": 2 * PATIENTS.age, "class": PATIENTS.crp})
    estimator = LogisticRegression().fit(frame[["systolic bp", "class"]], frame.died)
    model = scoring_model_of(estimator)
    expected = estimator.predict_proba(frame[["systolic bp", "class"]])[:, 1]
    np.testing.assert_allclose(scores_of(model, frame), expected, rtol=1e-12)
    with pytest.raises(ConfigError, match="cannot read"):
        term_column("age +")
