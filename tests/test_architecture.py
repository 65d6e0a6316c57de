"""The direction of imports, and the purity of the rooms that decide and compute.

Pure means: no file, socket, process, thread, environment or wall clock, no global random state and no other
global switch. A pure room may import what `ALLOWED` lists, at whatever depth in a function. Randomness is a
`numpy.random.Generator` passed in; making one (`np.random.default_rng(...)`) is allowed with an explicit seed only.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "wardround"
PURE = ("sums", "privacy", "data", "analytics", "errors.py")
IMPURE_PART = SOURCE / "data" / "sources"

ALLOWED = {
    "__future__", "abc", "ast", "base64", "bisect", "collections", "contextlib", "copy", "dataclasses", "datetime",
    "decimal", "difflib", "enum", "fractions", "functools", "hashlib", "heapq", "hmac", "inspect", "itertools", "json",
    "keyword", "math", "numbers", "operator", "re", "string", "struct", "textwrap", "tomllib", "types", "typing",
    "unicodedata", "warnings", "zlib",
    "cryptography", "dp_accounting", "formulaic", "matplotlib", "numpy", "pandas", "pydantic", "safetensors", "scipy",
    "tomli_w", "typing_extensions", "wardround",
    # Compiled kernels, where it is installed.
    "numba",
    # Models in ONNX are parsed and run from bytes; graphs that name files or native operators are refused before.
    "onnx", "onnxruntime",
}  # fmt: skip
FORBIDDEN_MODULES = {"matplotlib.pyplot", "numpy.ctypeslib"}
FORBIDDEN_BUILTINS = {"open", "input", "print", "exec", "eval", "compile", "__import__", "breakpoint"}
FORBIDDEN_METHODS = {
    "now", "today", "utcnow",
    "read_csv", "read_parquet", "read_sql", "read_table", "read_excel", "read_json", "read_pickle", "read_text",
    "read_bytes", "to_parquet", "to_pickle", "to_sql", "to_excel", "write_text", "write_bytes", "tofile", "fromfile",
    "memmap", "loadtxt", "savetxt", "genfromtxt", "savefig", "save_file", "load_file",
    "seterr", "set_printoptions", "set_option", "seed", "set_state",
}  # fmt: skip
RANDOM_TYPES = {"Generator", "BitGenerator", "SeedSequence"}
SEEDED = {"default_rng", "PCG64", "PCG64DXSM", "Philox", "SFC64"}


def impurities(source: str) -> list[str]:
    """What in a module's text is not pure, each with its line."""
    tree = ast.parse(source)
    names = dict(_imported_names(tree))
    found = [(node.lineno, what) for node in ast.walk(tree) for what in _impurities_of(node, names)]
    found += [(line, "changes the warning filters for all") for line in _filter_changes(tree)]
    return [f"line {line}: {what}" for line, what in sorted(found)]


def _imported_names(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Local names with the dotted names they stand for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.split(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _impurities_of(node: ast.AST, names: dict[str, str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from _refused_imports([alias.name for alias in node.names])
    elif isinstance(node, ast.ImportFrom):
        yield from ["imports relatively"] if node.level else []
        yield from _refused_imports([node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)])
    elif isinstance(node, ast.Global):
        yield f"global {', '.join(node.names)}"
    elif isinstance(node, ast.Call):
        yield from _impurities_of_call(node, names)
    elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
        name = _dotted(node, names)
        if name.startswith("numpy.random.") and name.split(".")[2] not in RANDOM_TYPES | SEEDED:
            yield f"uses {name}"


def _filter_changes(tree: ast.AST) -> Iterator[int]:
    """Lines that change the warning filters and do not put them back."""
    kept = [node for node in ast.walk(tree) if isinstance(node, ast.With) and "catch_warnings(" in ast.unparse(node)]
    inside = {id(child) for node in kept for child in ast.walk(node)}
    for node in ast.walk(tree):
        is_change = isinstance(node, ast.Attribute) and node.attr in {"simplefilter", "filterwarnings"}
        if is_change and id(node) not in inside:
            yield node.lineno


def _refused_imports(modules: list[str]) -> Iterator[str]:
    for module in modules:
        if module.split(".")[0] not in ALLOWED or module in FORBIDDEN_MODULES:
            yield f"imports {module}"
    for module in modules[1:]:
        if module.startswith("numpy.random.") and module.split(".")[2] not in RANDOM_TYPES | SEEDED:
            yield f"imports {module}"


def _impurities_of_call(node: ast.Call, names: dict[str, str]) -> Iterator[str]:
    name = _dotted(node.func, names)
    last = name.rsplit(".", 1)[-1]
    if isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_BUILTINS:
        yield f"calls {node.func.id}()"
    if isinstance(node.func, ast.Attribute) and last in FORBIDDEN_METHODS:
        yield f"calls .{last}()"
    if name.startswith("numpy.") and last in {"load", "save", "savez"}:
        yield f"calls {name}()"
    if name.startswith("numpy.random.") and last in SEEDED:
        seeds = [*node.args, *(keyword.value for keyword in node.keywords)]
        if not seeds or (isinstance(seeds[0], ast.Constant) and seeds[0].value is None):
            yield f"calls {last}() without a seed"


def _dotted(node: ast.AST, names: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else "?"


def pure_modules() -> list[Path]:
    modules = [
        path for name in PURE for path in ([SOURCE / name] if name.endswith(".py") else (SOURCE / name).rglob("*.py"))
    ]
    return sorted(path for path in modules if IMPURE_PART not in path.parents)


def test_all_rooms_are_looked_at() -> None:
    rooms = {path.relative_to(SOURCE).parts[0] for path in pure_modules()}
    assert rooms == set(PURE)
    assert len(pure_modules()) > 20


@pytest.mark.parametrize("path", pure_modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_pure_rooms_are_pure(path: Path) -> None:
    assert impurities(path.read_text(encoding="utf-8")) == []


IMPURE = {
    "import os": "imports os",
    "import os.path": "imports os.path",
    "import numpy, socket": "imports socket",
    "from time import perf_counter": "imports time",
    "from pathlib import Path": "imports pathlib",
    "def f():\n    import threading": "imports threading",
    "def f():\n    from urllib.request import urlopen": "imports urllib.request",
    "if True:\n    import duckdb": "imports duckdb",
    "try:\n    import logging\nexcept ImportError:\n    pass": "imports logging",
    "import random": "imports random",
    "from matplotlib import pyplot": "imports matplotlib.pyplot",
    "import matplotlib.pyplot as plt": "imports matplotlib.pyplot",
    "from . import sources": "imports relatively",
    "open('x')": "calls open()",
    "def f():\n    return eval('1')": "calls eval()",
    "print(1)": "calls print()",
    "import pandas as pd\npd.read_csv('x')": "calls .read_csv()",
    "def f(frame):\n    frame.to_parquet('x')": "calls .to_parquet()",
    "import numpy as np\nnp.save('x', 1)": "calls numpy.save()",
    "import numpy as np\nnp.random.normal()": "uses numpy.random.normal",
    "import numpy as np\nnp.random.seed(1)": "uses numpy.random.seed",
    "import numpy\nx = numpy.random.rand": "uses numpy.random.rand",
    "from numpy import random\nrandom.normal()": "uses numpy.random.normal",
    "import numpy.random as r\nr.normal()": "uses numpy.random.normal",
    "from numpy.random import normal": "imports numpy.random.normal",
    "import numpy as np\nnp.random.default_rng()": "calls default_rng() without a seed",
    "import numpy as np\nnp.random.default_rng(None)": "calls default_rng() without a seed",
    "from numpy.random import default_rng\ndefault_rng()": "calls default_rng() without a seed",
    "import numpy as np\nnp.random.Generator(np.random.PCG64())": "calls PCG64() without a seed",
    "from datetime import datetime\ndatetime.now()": "calls .now()",
    "import datetime\ndatetime.date.today()": "calls .today()",
    "import numpy as np\nnp.seterr(all='ignore')": "calls .seterr()",
    "import warnings\nwarnings.simplefilter('ignore')": "changes the warning filters for all",
    "x = 1\ndef f():\n    global x": "global x",
}


@pytest.mark.parametrize("source", IMPURE)
def test_a_planted_impurity_is_found(source: str) -> None:
    assert any(IMPURE[source] in found for found in impurities(source)), impurities(source)


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\ndef f(rng: np.random.Generator, seed: int):\n    return np.random.default_rng([seed, 1])",
        "import re\nre.compile('x')",
        "import warnings\nwith warnings.catch_warnings():\n    warnings.simplefilter('error')",
        "from datetime import date\ndate.fromisoformat('2020-01-01')",
        "import numpy as np\nwith np.errstate(over='ignore'):\n    pass",
        "import json\njson.loads('{}')",
    ],
)
def test_what_is_pure_is_let_through(source: str) -> None:
    assert impurities(source) == []


# The direction of imports


def lint(config: Path) -> int:
    return lint_imports(config_filename=str(config), no_cache=True, no_logo=True)


def test_a_room_imports_only_rooms_above_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert lint(ROOT / "pyproject.toml") == 0, capsys.readouterr().out


def test_every_room_is_in_the_contract() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    rooms = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").is_file()} | {"errors"}
    assert {room for room in rooms if f'"wardround.{room}",' not in text} == set()


@pytest.mark.parametrize("is_in_function", [False, True])
def test_a_planted_import_in_the_wrong_direction_is_found(
    is_in_function: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"planted_{is_in_function}".lower()
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "above.py").write_text(
        f"def f():\n    import {name}.below\n" if is_in_function else f"import {name}.below\n"
    )
    (package / "below.py").touch()
    config = tmp_path / "lint.toml"
    config.write_text(
        f'[tool.importlinter]\nroot_package = "{name}"\n[[tool.importlinter.contracts]]\nname = "direction"\n'
        f'type = "layers"\nlayers = ["{name}.below", "{name}.above"]\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert lint(config) == 1
    assert "BROKEN" in capsys.readouterr().out


# Guarantees


def guarantees() -> Iterator[tuple[str, str]]:
    """Every guarantee that a docstring names, with the place."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield from ((name, str(path.relative_to(SOURCE))) for name in guarantees_of(ast.get_docstring(node)))


def guarantees_of(docstring: str | None) -> list[str]:
    section = re.search(r"^Guarantees:\n((?: .*\n?|\n)*)", docstring or "", re.MULTILINE)
    return re.findall(r"^ {4}(\w+):", section.group(1), re.MULTILINE) if section else []


def test_every_guarantee_has_a_test_of_its_name() -> None:
    tests = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert ("sums_do_not_depend_on_order", "sums/accumulator.py") in set(guarantees())
    assert [(name, place) for name, place in guarantees() if f"test_{name}" not in tests] == []
