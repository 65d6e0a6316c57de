from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.samples import VOCABULARY, Drift, Moments, Roster, drift, mean, moments, train, update
from wardround.errors import ConfigError, LocalProtocolError
from wardround.sums import Array, Ask, Snapshot, Steps, Vocabulary, ask, site_function, stateful_site_function, workflow


def module(name: str, **values: object) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(values)
    return made


def one(data: Any, /, center: Array) -> Moments:
    """Another function."""
    raise AssertionError


@pytest.mark.parametrize(
    "name", ["", "Glm", "glm.", ".glm", "glm..x", "glm terms", "glm.Terms", "1glm", "glm\n", "naïve"]
)
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name must look like"):
        site_function(name, version=1)(one)


@pytest.mark.parametrize("version", [0, -1])
def test_versions_count_from_one(version: int) -> None:
    with pytest.raises(ValueError, match="version must be >= 1"):
        site_function("sample.one", version=version)(one)


def test_a_site_function_must_say_what_it_contributes() -> None:
    def silent(data: Any, /):  # type: ignore[no-untyped-def]
        pass

    def wrong(data: Any, /) -> int:
        return 1

    for function in (silent, wrong):
        with pytest.raises(TypeError, match="annotate the return type"):
            site_function("sample.x", version=1)(function)  # type: ignore[type-var]


def test_parameters_must_be_named_and_annotated() -> None:
    def bare(data: Any, /, center) -> Moments:  # type: ignore[no-untyped-def]
        raise AssertionError

    def many(data: Any, /, *centers: float) -> Moments:
        raise AssertionError

    def more(data: Any, /, **centers: float) -> Moments:
        raise AssertionError

    def positional(data: Any, center: float, /) -> Moments:
        raise AssertionError

    def few(data: Any, state: Any) -> tuple[Drift, int]:
        raise AssertionError

    for function, message in ((bare, "needs a type annotation"), (many, "may not take"), (more, "may not take")):
        with pytest.raises(TypeError, match=message):
            site_function("sample.x", version=1)(function)
    with pytest.raises(TypeError, match="must be one that a name can give"):
        site_function("sample.x", version=1)(positional)
    with pytest.raises(TypeError, match="at least 3"):
        stateful_site_function("sample.x", version=1)(few)  # type: ignore[arg-type]


def test_a_vocabulary_is_what_modules_define() -> None:
    words = Vocabulary.of_modules([module("a", f=moments, again=moments, other=3), module("b", f=moments, w=mean)])
    assert list(words.functions) == ["sample.moments@1"]
    assert list(words.workflows) == ["mean"]
    assert words.function("sample.moments@1") is moments
    assert words.workflow("mean") is mean
    assert moments.summary == "Sums about a center."


def test_two_definitions_under_one_name_are_refused() -> None:
    other = site_function("sample.moments", version=1)(one)
    with pytest.raises(ConfigError, match=r"theirs defines 'sample.moments@1', which another"):
        Vocabulary.of_modules([module("ours", f=moments), module("theirs", f=other)])
    newer = site_function("sample.moments", version=2)(one)
    assert len(Vocabulary.of_modules([module("ours", f=moments), module("theirs", f=newer)]).functions) == 2


def test_unknown_names_get_a_remedy() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'sample\.moments@1'"):
        VOCABULARY.function("sample.moment@1")
    with pytest.raises(ConfigError, match="install the package that defines it"):
        VOCABULARY.function("zzz")
    with pytest.raises(ConfigError, match=r"analysis\.1: unknown workflow 'trian'; did you mean 'train'\?"):
        VOCABULARY.workflow("trian", "analysis.1")
    with pytest.raises(ConfigError, match="known: mean, train, wander"):
        VOCABULARY.workflow("zzz")


def test_options_are_checked() -> None:
    assert dict(mean(rounds=2).options) == {"num_columns": 2, "rounds": 2}
    with pytest.raises(TypeError):
        mean(roundz=2)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"study\.mean\.roundz: unknown key; did you mean 'rounds'\?"):
        mean.with_options({"roundz": 2}, "study.mean")
    with pytest.raises(ConfigError, match=r"mean\.rounds: Input should be a valid integer"):
        mean(rounds="many")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown key"):
        train.with_options({"snapshot": {}}, "train")


def test_a_missing_option_is_named() -> None:
    @workflow("needs", version=1)
    def needs(setting: Roster, target: str) -> Steps[None]:
        yield from ask(moments, np.zeros(1))

    with pytest.raises(ConfigError, match=r"needs\.target: missing; add it"):
        needs.with_options({}, "needs")


def test_a_workflow_must_be_a_generator() -> None:
    @workflow("plain", version=1)
    def plain(setting: Roster) -> Steps[int]:
        return 3  # type: ignore[return-value]

    with pytest.raises(LocalProtocolError, match="must be a generator function"):
        plain().steps(Roster(()))


def test_a_snapshot_parameter_must_name_its_type() -> None:
    with pytest.raises(TypeError, match="annotate `snapshot: State"):

        @workflow("odd", version=1)
        def odd(setting: Roster, snapshot: Any = None) -> Steps[None]:
            yield Snapshot(None)


def test_a_snapshot_for_a_workflow_without_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="mean offers no snapshots"):
        mean().steps(Roster(()), snapshot=3)


# Asks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"center": "x"}, "center: Value error, must be an array of real numbers"),
        ({"center": np.array([True])}, "must be an array of real numbers, got bool"),
        ({"center": np.array([1j])}, "must be an array of real numbers"),
        ({"center": object()}, "must be an array of real numbers"),
        ({"center": [1.0, [2.0]]}, "center: "),
        ({}, "center: missing"),
        ({"center": [1.0], "centre": 1}, "centre: unknown key; did you mean 'center'"),
    ],
)
def test_arguments_are_validated(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(LocalProtocolError, match=message):
        Ask(moments, arguments)


def test_arguments_become_what_a_site_receives() -> None:
    given = Ask(moments, {"center": [1, 2]}).arguments["center"]
    assert given.dtype == np.float64
    fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    kept = Ask(update, {"params": fortran, "clip": 1, "bits": 8}).arguments
    assert kept["params"].flags.c_contiguous
    assert isinstance(kept["clip"], float)


def test_an_ask_keeps_its_arguments_to_itself() -> None:
    center = np.zeros(2)
    asked = Ask(moments, {"center": center})
    center += 1
    assert asked.arguments["center"].tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="read-only"):
        asked.arguments["center"][0] = 1
    with pytest.raises(TypeError):
        asked.arguments["center"] = center  # type: ignore[index]
    assert Ask(moments, asked.arguments).arguments["center"] is asked.arguments["center"]


def test_a_view_of_somebodys_array_is_copied() -> None:
    whole = np.zeros(4)
    view = whole[:2]
    view.setflags(write=False)
    asked = Ask(moments, {"center": view})
    whole += 1
    assert asked.arguments["center"].tolist() == [0.0, 0.0]


def test_site_functions_are_called_directly() -> None:
    data = {"x": np.ones((4, 2))}
    assert moments(data, np.zeros(2)).num_records == 4
    with pytest.raises(TypeError, match="keeps state"):
        drift(data, 1.0)


def test_a_stateful_function_must_return_its_state() -> None:
    @stateful_site_function("sample.loose", version=1)
    def loose(data: Any, state: Any, rng: np.random.Generator, /) -> tuple[Drift, int]:
        return Drift(moved=np.zeros(2))  # type: ignore[return-value]

    with pytest.raises(LocalProtocolError, match=r"must return \(contribution, state\)"):
        loose.compute({}, {}, None, np.random.default_rng(0))


@dataclass(frozen=True)
class Box:
    values: Array


def test_arrays_within_arguments_survive_json() -> None:
    @workflow("boxed", version=1)
    def boxed(setting: Roster, box: Box) -> Steps[None]:
        yield from ask(moments, box.values)

    options = boxed.with_options({"box": {"values": [1.0, 2.0]}}, "boxed").options
    assert boxed.parameters.to_json(options) == {"box": {"values": [1.0, 2.0]}}
