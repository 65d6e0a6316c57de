"""The public face is what `__all__` says, is documented, and costs nothing until it is used."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import pytest

import wardround
from wardround import api
from wardround.studies.extensions import installed_vocabulary

WITHOUT_A_FACE = {"census", "quantiles"}
"""Workflows that other analyses are made of."""
PUBLIC = [
    "Contract",
    "DisclosureRules",
    "Event",
    "Simulation",
    "SumProtection",
    "Variable",
    "WardroundError",
    "__version__",
    "compare_means",
    "contingency",
    "correlation",
    "cox",
    "cumulative_incidence",
    "describe",
    "errors",
    "evaluate",
    "glm",
    "heterogeneity",
    "imputed",
    "imputed_cox",
    "kaplan_meier",
    "kmeans",
    "load_model",
    "meta_analysis",
    "mixed",
    "pca",
    "scoring_model_of",
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


ANALYSES = [name for name in PUBLIC if isinstance(getattr(api, name, None), FunctionType)]


class Echo:
    """A federation that gives the workflow back."""

    def run(self, workflow):
        return workflow


@pytest.mark.parametrize("name", ANALYSES)
def test_a_face_has_the_options_of_its_workflow(name):
    face, workflow = getattr(wardround, name), installed_vocabulary().workflow(name)
    mine = {p.name: p.default for p in inspect.signature(face).parameters.values() if p.name != "federation"}
    assert mine == {p.name: p.default for p in workflow.parameters.signature.parameters.values()}
    documented = inspect.getdoc(face)
    assert documented.count("federation: ") == 1
    assert "setting: " not in documented
    assert all(f"    {option}: " in documented for option in mine)


def test_every_analysis_has_a_face():
    workflows = set(installed_vocabulary().workflows)
    assert workflows - WITHOUT_A_FACE == set(ANALYSES)


def test_a_function_hands_every_option_on():
    given = {"family": "poisson", "l2": 0.5, "covariance": "cluster", "cluster": "site", "confidence": 0.9}
    workflow = api.glm(Echo(), "y ~ x", **given)
    assert {name: workflow.options[name] for name in given} == given
    assert api.describe(Echo(), by="sex", quantiles=(0.1,)).options["quantiles"] == (0.1,)


def test_a_face_is_known_to_type_checkers_by_its_options(tmp_path):
    code = tmp_path / "use.py"
    code.write_text(
        "import wardround as wr\nimport pandas as pd\n"
        "federation = wr.simulate({'North': pd.DataFrame()})\n"
        "wr.glm(federation, 'y ~ x', l2='much')\nwr.glm(federation, 'y ~ x', family='poisson').summary()\n"
    )
    done = subprocess.run([sys.executable, "-m", "mypy", "--strict", str(code)], capture_output=True, text=True)
    assert 'Argument "l2" has incompatible type' in done.stdout
    assert "Found 1 error" in done.stdout
