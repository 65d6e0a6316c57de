"""`wardround vocabulary`."""

import json

from wardround.cli.vocabulary import vocabulary_document
from wardround.data.table import Table
from wardround.sums import Array, Contribution, Vocabulary, bounded, exact, people, site_function


class Everything(Contribution):
    mean: Array = exact("num_columns", 2)
    deviance: float = exact()
    num_patients: int = people()
    num_at_step: Array = people("size", cells="sums")
    num_missing: int = people(cells="none")
    update: Array = bounded("size", clip_norm="clip", bits=8)


@site_function("zoo.all", version=3)
def zoo(table: Table, size: int, clip: float = 1.0) -> Everything:
    """Everything at once.

    More that is not shown.
    """


class Module:
    zoo = zoo


def test_functions_tell_name_version_meaning_and_what_is_summed():
    (function,) = vocabulary_document(Vocabulary.of_modules([Module]))["functions"]
    assert function["id"] == "zoo.all@3"
    assert function["summary"] == "Everything at once."
    assert function["parameters"] == [
        {"name": "size", "type": "int", "required": True},
        {"name": "clip", "type": "float", "required": False, "default": 1.0},
    ]
    assert function["returns"] == [
        {"field": "mean", "kind": "exact", "shape": ["num_columns", 2]},
        {"field": "deviance", "kind": "exact", "shape": []},
        {"field": "num_patients", "kind": "people", "shape": [], "cells": "each"},
        {"field": "num_at_step", "kind": "people", "shape": ["size"], "cells": "sums"},
        {"field": "num_missing", "kind": "people", "shape": [], "cells": "none"},
        {"field": "update", "kind": "bounded", "shape": ["size"], "clip_norm": "clip", "bits": 8},
    ]


def test_the_installed_ones_are_listed(run):
    document = json.loads(run("vocabulary", "--json").stdout)
    workflows = {workflow["name"]: workflow for workflow in document["workflows"]}
    assert {"census", "describe", "glm"} <= set(workflows)
    options = {option["name"]: option for option in workflows["glm"]["options"]}
    assert options["formula"] == {"name": "formula", "type": "str", "required": True}
    assert options["family"]["type"] == '"gaussian" | "binomial" | "poisson" | "gamma"'
    assert options["family"]["default"] == "gaussian"


def test_the_text_names_them_too(run):
    text = run("vocabulary").stdout
    assert "glm (version 1, wardround)\n" in text
    assert "    formula: str (required)\n" in text
    assert "census.count@1 (wardround)\n" in text
    assert "    -> num_patients: a count of people or records\n" in text
    assert "    -> num_missing: num_required counts of people or records (no cells of a table)\n" in text
    assert "num_steps counts of people or records (cells: their sums over the last axis)\n" in text
    assert "    -> gram: num_pairs real numbers, summed exactly\n" in text
