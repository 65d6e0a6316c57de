"""The public face is what `__all__` says, is documented, and costs nothing until it is used."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import wardround
from wardround import api
from wardround.analytics.describe import describe
from wardround.analytics.glm import glm

PUBLIC = [
    "Contract",
    "Event",
    "Simulation",
    "Variable",
    "WardroundError",
    "__version__",
    "describe",
    "errors",
    "glm",
    "simulate",
    "simulate_folder",
]


def test_all_is_the_public_face():
    assert sorted(wardround.__all__) == sorted(PUBLIC) == dir(wardround)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(wardround, name)
    if name == "__version__":
        assert value.count(".") == 2
    else:
        assert inspect.getdoc(value), f"{name} has no documentation"


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(wardround.__file__).read_text(encoding="utf-8"))
    guarded = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {alias.name for node in ast.walk(guarded[0]) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(wardround.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'fedavg'"):
        wardround.fedavg  # noqa: B018


def test_the_waist_imports_light():
    code = (
        "import sys, wardround.sums; print([m for m in ('pandas', 'scipy', 'duckdb', 'formulaic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("function", "workflow"), [(api.glm, glm), (api.describe, describe)])
def test_a_function_takes_the_options_of_its_workflow_with_the_same_defaults(function, workflow):
    mine = {p.name: p.default for p in inspect.signature(function).parameters.values() if p.name != "federation"}
    theirs = {p.name: p.default for p in workflow.parameters.signature.parameters.values()}
    assert mine == theirs
    documented = inspect.getdoc(function)
    assert all(f"    {name}: " in documented for name in mine)


def test_a_function_hands_every_option_on():
    class Federation:
        def run(self, workflow):
            return workflow

    given = {"family": "poisson", "l2": 0.5, "covariance": "cluster", "cluster": "site", "confidence": 0.9}
    workflow = api.glm("y ~ x", Federation(), **given)
    assert {name: workflow.options[name] for name in given} == given
    assert api.describe(Federation(), by="sex", quantiles=(0.1,)).options["quantiles"] == (0.1,)
