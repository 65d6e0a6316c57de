"""Start every analysis up to its first ask, so that a bad one is refused before any site computes anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wardround.errors import ConfigError, WardroundError
from wardround.studies.fitted_model import misplaced_models, with_stand_ins
from wardround.studies.study import Analysis


def preflight(analyses: Sequence[Analysis], setting: Any) -> None:
    """Check the analyses' formulas, columns and options against the contract.

    A workflow checks what it was given before it asks anything, and does no IO: starting it costs nothing.

    Args:
        analyses: of a study.
        setting: what the workflows will be given.

    Raises:
        ConfigError: some analyses cannot start; lists each with its place and the remedy.
    """
    problems = misplaced_models(analyses)
    if not problems:
        whole = [with_stand_ins(analysis, analyses) for analysis in analyses]
        problems = [problem for analysis in whole if (problem := _problem(analysis, setting))]
    if problems:
        raise ConfigError("\n".join(problems))


def _problem(analysis: Analysis, setting: Any) -> str | None:
    steps = analysis.workflow.steps(setting)
    try:
        next(steps, None)
    except (WardroundError, ValueError, TypeError) as error:
        return f"{analysis.label}: {error}"
    finally:
        steps.close()
    return None
