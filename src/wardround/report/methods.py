"""The methods paragraph of an analysis, from its workflow and options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wardround.report.outcome import AnalysisOutcome


def methods_text(outcome: AnalysisOutcome) -> str:
    """What was computed, with which options."""
    kind = outcome.analysis.workflow.type
    sentences = [f"{kind.summary.rstrip('.')} (workflow {kind.name}, version {kind.version})."]
    if outcome.analysis.given:
        sentences.append(f"Options: {_options_text(outcome.analysis.given)}.")
    return " ".join(sentences)


def _options_text(options: Mapping[str, Any]) -> str:
    return "; ".join(f"{name} = {_value_text(value)}" for name, value in options.items())


def _value_text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_value_text(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
