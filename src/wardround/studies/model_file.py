"""Reading a model's file: the one that a study names, or any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wardround.analytics.scoring_model import MAX_MODEL_BYTES, LinearModel, ModelFile, OnnxModel, Scale
from wardround.analytics.scoring_read import model_of_bytes, onnx_model
from wardround.errors import ConfigError
from wardround.studies.study import Analysis, Study


def load_model(
    source: str | Path | bytes,
    *,
    features: Sequence[str] = (),
    output: str | None = None,
    scale: Scale = "probability",
) -> LinearModel | OnnxModel:
    """A model that `evaluate` can score at the sites; nothing in the file is run.

    Args:
        source: path of a file: .toml or .json with coefficients (or the JSON of a fit of ours), or .onnx; or the
            bytes of an ONNX model.
        features: for ONNX, what each column of its input is, in the model's order: a variable, `sex[M]`, arithmetic.
            Not needed where the inputs bear the names of variables, or the file's metadata list the features.
        output: for ONNX, the output that is the prediction; None where only one can be it.
        scale: for ONNX, whether it predicts a probability, or any score.

    Raises:
        ConfigError: the file cannot be read, or is not what its name says; says what to do.
    """
    if isinstance(source, bytes):
        return onnx_model(source, features=features, output=output, scale=scale)
    path = Path(source)
    return model_of_bytes(_bytes_of(path), path.name, features=features, output=output, scale=scale)


def _bytes_of(path: Path) -> bytes:
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name the model's file in it")
    if not path.is_file():
        raise ConfigError(f"there is no model file {path}")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MODEL_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the model file {path} cannot be read ({error.strerror})") from None
    if len(data) > MAX_MODEL_BYTES:
        raise ConfigError(f"the model file {path} has over {MAX_MODEL_BYTES} bytes, which is the limit")
    return data


def with_models(study: Study, folder: Path) -> Study:
    """The study with the models that its analyses name read from beside it.

    Args:
        study: as it was parsed.
        folder: of the study file; models lie in it.

    Raises:
        ConfigError: a model cannot be read, or lies outside the folder; names the analysis.
    """
    return replace(study, analyses=tuple(_with_models(analysis, folder.resolve()) for analysis in study.analyses))


def _with_models(analysis: Analysis, folder: Path) -> Analysis:
    named = {key: value for key, value in analysis.workflow.options.items() if isinstance(value, ModelFile)}
    if not named:
        return analysis
    read = {key: _read(file, folder, f"analysis[{analysis.number}].{key}") for key, file in named.items()}
    options = {**analysis.workflow.options, **read}
    return replace(analysis, workflow=analysis.workflow.type.with_options(options, f"analysis[{analysis.number}]"))


def _read(file: ModelFile, folder: Path, where: str) -> LinearModel | OnnxModel:
    path = (folder / file.file).resolve()
    if not path.is_relative_to(folder):
        raise ConfigError(f"{where}: {file.file} leads out of the study file's folder; put the model beside it")
    try:
        return load_model(path, features=file.features, output=file.output, scale=file.scale)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
