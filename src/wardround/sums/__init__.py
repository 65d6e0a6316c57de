"""The waist: contribution, ask, total, workflow, vocabulary, codec. Pure; knows no network and no statistics."""

from wardround.sums.contribution import Contribution, Layout, bounded, exact, people
from wardround.sums.parameters import Array
from wardround.sums.vocabulary import (
    SiteFunction,
    Vocabulary,
    Workflow,
    WorkflowType,
    site_function,
    stateful_site_function,
    workflow,
)
from wardround.sums.workflow import Ask, Snapshot, Steps, Total, ask, ask_each

__all__ = [
    "Array",
    "Ask",
    "Contribution",
    "Layout",
    "SiteFunction",
    "Snapshot",
    "Steps",
    "Total",
    "Vocabulary",
    "Workflow",
    "WorkflowType",
    "ask",
    "ask_each",
    "bounded",
    "exact",
    "people",
    "site_function",
    "stateful_site_function",
    "workflow",
]
