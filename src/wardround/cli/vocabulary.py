"""`wardround vocabulary`: what a site can be asked here, as a steward reads it."""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Callable
from typing import Any

from wardround.analytics.result import json_text, json_value
from wardround.cli.terminal import output_kept_pure, show, show_json
from wardround.studies.extensions import installed_vocabulary
from wardround.sums import SiteFunction, Vocabulary, WorkflowType
from wardround.sums.contribution import Bounded, Declaration, People


def show_vocabulary(*, as_json: bool) -> int:
    """Print the installed vocabulary; returns the exit code."""
    with output_kept_pure():
        document = vocabulary_document(installed_vocabulary())
    if as_json:
        show_json(json_text(document))
    else:
        show(_text(document))
    return 0


def vocabulary_document(vocabulary: Vocabulary) -> dict[str, Any]:
    """Functions with what they return, and workflows with their options, as JSON values."""
    functions = sorted(vocabulary.functions.values(), key=lambda function: (function.name, function.version))
    workflows = sorted(vocabulary.workflows.values(), key=lambda workflow: workflow.name)
    return {
        "functions": [_function(function) for function in functions],
        "workflows": [_workflow(workflow) for workflow in workflows],
    }


def _function(function: SiteFunction[..., Any]) -> dict[str, Any]:
    fields = function.contribution.declarations.items()
    return {
        "id": function.function_id,
        "name": function.name,
        "version": function.version,
        "summary": function.summary,
        "package": function.function.__module__.split(".")[0],
        "keeps_state": function.is_stateful,
        "parameters": _parameters(function.function, function.parameters.signature),
        "returns": [{"field": name, **_declared(declaration)} for name, declaration in fields],
    }


def _declared(declaration: Declaration) -> dict[str, Any]:
    described: dict[str, Any] = {"kind": type(declaration).__name__.lower(), "shape": list(declaration.shape)}
    if isinstance(declaration, People):
        described["cells"] = declaration.cells
    if isinstance(declaration, Bounded):
        described |= {"clip_norm": declaration.clip_norm, "bits": declaration.bits}
    return described


def _workflow(workflow: WorkflowType[..., Any]) -> dict[str, Any]:
    return {
        "name": workflow.name,
        "version": workflow.version,
        "summary": workflow.summary,
        "package": workflow.function.__module__.split(".")[0],
        "options": _parameters(workflow.function, workflow.parameters.signature),
    }


def _parameters(function: Callable[..., Any], signature: inspect.Signature) -> list[dict[str, Any]]:
    hints = typing.get_type_hints(function)
    return [_parameter(parameter, hints[name]) for name, parameter in signature.parameters.items()]


def _parameter(parameter: inspect.Parameter, hint: Any) -> dict[str, Any]:
    is_required = parameter.default is parameter.empty
    described = {"name": parameter.name, "type": _type_text(hint), "required": is_required}
    return described if is_required else {**described, "default": _default(parameter.default)}


def _type_text(hint: Any) -> str:
    """A type as a study file's author reads it: the values of a choice, the members of a union."""
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " | ".join(json.dumps(member, ensure_ascii=False) for member in members)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type_text(member) for member in members)
    if hint is type(None):
        return "null"
    if isinstance(hint, type) and not members:
        return hint.__name__
    return inspect.formatannotation(hint).replace("typing.", "").replace("numpy.", "")


def _default(value: Any) -> Any:
    plain = json_value(value)
    return plain if isinstance(plain, str | int | float | bool | list | None) else repr(value)


def _text(document: dict[str, Any]) -> str:
    lines = ["WORKFLOWS: what a study may name, with its options", ""]
    for workflow in document["workflows"]:
        lines += [f"{workflow['name']} (version {workflow['version']}, {workflow['package']})"]
        lines += [f"    {workflow['summary']}", *_option_lines(workflow["options"]), ""]
    lines += ["SITE FUNCTIONS: what a hospital computes, and what of it is summed", ""]
    for function in document["functions"]:
        memory = ", keeps state between rounds" if function["keeps_state"] else ""
        lines += [f"{function['id']} ({function['package']}{memory})", f"    {function['summary']}"]
        lines += [f"    -> {field['field']}: {_field_text(field)}" for field in function["returns"]]
        lines += [""]
    return "\n".join(lines).rstrip()


def _option_lines(options: list[dict[str, Any]]) -> list[str]:
    lines = []
    for option in options:
        default = " (required)" if option["required"] else f" = {json.dumps(option['default'], ensure_ascii=False)}"
        lines.append(f"    {option['name']}: {option['type']}{default}")
    return lines


_KINDS = {
    "people": ("a count of people or records", "counts of people or records"),
    "exact": ("a real number, summed exactly", "real numbers, summed exactly"),
}

_CELLS = {"sums": " (cells: their sums over the last axis)", "none": " (no cells of a table)"}


def _field_text(field: dict[str, Any]) -> str:
    shape = " x ".join(str(size) for size in field["shape"])
    if field["kind"] == "bounded":
        return f"{shape} numbers of norm at most {field['clip_norm']}, in {field['bits']} bits each"
    one, many = _KINDS[field["kind"]]
    text = f"{shape} {many}" if shape else one
    return text + _CELLS.get(field.get("cells", ""), "")
