"""The vocabulary of what is installed: our analyses and a consortium's."""

import pkgutil
from importlib import import_module
from importlib.metadata import EntryPoint

import pytest

import wardround
from wardround.errors import ConfigError
from wardround.studies.extensions import ENTRY_POINT_GROUP, installed_vocabulary, vocabulary_of
from wardround.sums import SiteFunction, WorkflowType

ANALYSIS = '''
from wardround.data.table import Table
from wardround.sums import Contribution, Steps, ask, people, site_function, workflow

class Rows(Contribution):
    num_rows: int = people()

@site_function("{name}.rows", version=1)
def rows(table: Table, /) -> Rows:
    """Number of rows."""
    return Rows(num_rows=table.num_records)

@workflow("{name}", version=1)
def counting(setting: object) -> Steps[int]:
    """Count the rows."""
    return (yield from ask(rows)).sum.num_rows
'''


def point(value):
    return EntryPoint(name="ours", value=value, group=ENTRY_POINT_GROUP)


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        return name

    return write


def test_everything_defined_here_is_in_the_vocabulary():
    vocabulary = installed_vocabulary()
    for info in pkgutil.walk_packages(wardround.__path__, "wardround."):
        if info.name.split(".")[1] not in ("analytics", "studies"):
            continue
        for value in vars(import_module(info.name)).values():
            if isinstance(value, SiteFunction):
                assert vocabulary.function(value.function_id) is value
            elif isinstance(value, WorkflowType):
                assert vocabulary.workflow(value.name) is value


def test_an_installed_package_adds_its_analyses(module, tmp_path):
    module("triage_analyses", ANALYSIS.format(name="triage"))
    info = tmp_path / "triage-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: triage\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\ntriage = triage_analyses\n")
    vocabulary = installed_vocabulary()
    assert vocabulary.workflow("triage").summary == "Count the rows."
    assert vocabulary.function("triage.rows@1").summary == "Number of rows."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import not_installed_anywhere", "cannot be loaded: ModuleNotFoundError"),
        ("1/0", "cannot be loaded: ZeroDivisionError"),
        (ANALYSIS.format(name="glm"), "defines 'glm', which another installed package already defines"),
    ],
)
def test_a_broken_package_is_refused_by_name(module, text, message):
    name = module(f"broken_{abs(hash(message))}", text)
    with pytest.raises(ConfigError, match=r".+") as caught:
        vocabulary_of([point(name)])
    assert message in str(caught.value)
    assert name in str(caught.value)


def test_an_entry_point_must_name_a_module():
    with pytest.raises(ConfigError, match="must name a module, got function; repair or uninstall it"):
        vocabulary_of([point("json:dumps")])
