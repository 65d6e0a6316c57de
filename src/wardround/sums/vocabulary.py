"""Site functions and workflows by name: the vocabulary that a hospital can read and allow-list.

Code is never sent. An ask names a site function and its version; the site resolves it from the packages
installed there. A module's vocabulary is whatever site functions and workflows it defines: there is no
global registry, a `Vocabulary` is made from modules.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import numpy as np

from wardround.errors import ConfigError, LocalProtocolError
from wardround.sums.contribution import Contribution, Layout, Symbols, layout_of
from wardround.sums.parameters import Parameters
from wardround.sums.workflow import Steps

D = TypeVar("D")
S = TypeVar("S")
P = ParamSpec("P")
C = TypeVar("C", bound=Contribution)
R = TypeVar("R")

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")


def _check_name(name: str, version: int) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"name must look like 'glm.newton_terms', got {name!r}")
    if version < 1:
        raise ValueError(f"version must be >= 1, got {version}")


def _summary(function: Callable[..., Any]) -> str:
    return " ".join((function.__doc__ or "").strip().split("\n\n")[0].split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosed:
    """What disclosure rules must know of an answer, from the ask's arguments.

    Attributes:
        parameters: number of model parameters that the answer is about; None: it is about no model.
        per_site: whether the answer's total tells what is one site's alone.
        rows: called with the site's data and the arguments, the number of records that the answer is over; None:
            all of the site's (`data.num_records`).
    """

    parameters: Callable[..., int] | None = None
    per_site: bool | Callable[..., bool] = False
    rows: Callable[..., int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SiteFunction(Generic[P, C]):
    """The half of an analysis that runs inside a hospital: pure, named, versioned."""

    name: str
    version: int
    function: Callable[..., Any]
    contribution: type[C]
    parameters: Parameters
    symbols: Callable[..., Symbols] | None
    is_stateful: bool
    disclosed: Disclosed = Disclosed()

    @property
    def function_id(self) -> str:
        """Name and version, as a site's policy lists them."""
        return f"{self.name}@{self.version}"

    @property
    def summary(self) -> str:
        """First paragraph of the documentation, for a steward to read."""
        return _summary(self.function)

    def layout(self, arguments: Mapping[str, Any]) -> Layout:
        """The layout that this function's contribution to an ask with these arguments must have."""
        symbols: Symbols = self.symbols(**arguments) if self.symbols else {}
        return layout_of(self.contribution, symbols)

    def num_parameters(self, arguments: Mapping[str, Any]) -> int:
        """How many parameters the model has that an answer to these arguments is about; 0: it is about no model."""
        return 0 if self.disclosed.parameters is None else self.disclosed.parameters(**arguments)

    def is_per_site(self, arguments: Mapping[str, Any]) -> bool:
        """Whether the total of the answers to these arguments tells what is one site's alone."""
        per_site = self.disclosed.per_site
        return per_site if isinstance(per_site, bool) else per_site(**arguments)

    def num_rows(self, data: Any, arguments: Mapping[str, Any]) -> int | None:
        """How many records of these data an answer to these arguments is over; None where the data do not tell."""
        if self.disclosed.rows is not None:
            return self.disclosed.rows(data, **arguments)
        num_records: int | None = getattr(data, "num_records", None)
        return num_records

    def compute(
        self, data: Any, arguments: Mapping[str, Any], state: Any, rng: np.random.Generator | None
    ) -> tuple[C, Any]:
        """Run at a site: the contribution and the site's new state (the old one for a stateless function)."""
        if not self.is_stateful:
            return self.function(data, **arguments), state
        answer = self.function(data, state, rng, **arguments)
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise LocalProtocolError(f"{self.function_id} must return (contribution, state)")
        return answer

    def __call__(self, data: Any, /, *args: P.args, **kwargs: P.kwargs) -> C:
        """Call a stateless site function directly, as its tests do."""
        if self.is_stateful:
            raise TypeError(f"{self.function_id} keeps state; call its `.function(data, state, rng, ...)`")
        contribution: C = self.function(data, *args, **kwargs)
        return contribution


def site_function(
    name: str,
    *,
    version: int,
    symbols: Callable[..., Symbols] | None = None,
    parameters: Callable[..., int] | None = None,
    per_site: bool | Callable[..., bool] = False,
    rows: Callable[..., int] | None = None,
) -> Callable[[Callable[Concatenate[D, P], C]], SiteFunction[P, C]]:
    """Make a pure function `(data, ...) -> Contribution` part of the vocabulary.

    Args:
        name: dotted lower-case name, unique in a vocabulary.
        version: raised whenever the numbers it returns may differ.
        symbols: called with the ask's arguments, gives the values of the names in the contribution's
            declarations (sizes, clip norms, bits), at the site and at the coordinator alike.
        parameters: called with the ask's arguments, gives the number of parameters of the model that the answer is
            about. Disclosure rules limit it by the number of records.
        per_site: whether the total tells what is one site's alone; a callable is given the ask's arguments.
        rows: called with the site's data and the ask's arguments, gives the number of records that the answer is
            over (the complete ones, say); None: all records of the site.
    """
    disclosed = Disclosed(parameters=parameters, per_site=per_site, rows=rows)

    def register(function: Callable[Concatenate[D, P], C]) -> SiteFunction[P, C]:
        return _make(name, version, function, symbols, disclosed, num_given=1)

    return register


def stateful_site_function(
    name: str,
    *,
    version: int,
    symbols: Callable[..., Symbols] | None = None,
    parameters: Callable[..., int] | None = None,
    per_site: bool | Callable[..., bool] = False,
    rows: Callable[..., int] | None = None,
) -> Callable[[Callable[Concatenate[D, S | None, np.random.Generator, P], tuple[C, S]]], SiteFunction[P, C]]:
    """Like `site_function`, for `(data, state, rng, ...) -> (contribution, state)`.

    The agent keeps the state between the rounds of a run (None in the first) and passes a generator in,
    so that the function itself stays pure. Functions whose names share their first part share the state.
    """
    disclosed = Disclosed(parameters=parameters, per_site=per_site, rows=rows)

    def register(
        function: Callable[Concatenate[D, S | None, np.random.Generator, P], tuple[C, S]],
    ) -> SiteFunction[P, C]:
        return _make(name, version, function, symbols, disclosed, num_given=3)

    return register


def _make(
    name: str,
    version: int,
    function: Callable[..., Any],
    symbols: Callable[..., Symbols] | None,
    disclosed: Disclosed,
    num_given: int,
) -> SiteFunction[Any, Any]:
    _check_name(name, version)
    returned = typing.get_type_hints(function).get("return")
    is_stateful = num_given == 3
    contribution = typing.get_args(returned)[0] if is_stateful and typing.get_args(returned) else returned
    if not (isinstance(contribution, type) and issubclass(contribution, Contribution)):
        raise TypeError(f"{name}: annotate the return type with its Contribution")
    parameters = Parameters.of(function, num_given)
    return SiteFunction(name, version, function, contribution, parameters, symbols, is_stateful, disclosed)


@dataclass(frozen=True, slots=True, eq=False)
class WorkflowType(Generic[P, R]):
    """The coordinator's half of an analysis, before its options are given; calling it gives a `Workflow`."""

    name: str
    version: int
    function: Callable[..., Steps[R]]
    parameters: Parameters
    snapshot_type: type[Any] | None

    @property
    def summary(self) -> str:
        """First paragraph of the documentation."""
        return _summary(self.function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Workflow[R]:
        """Bind the options and check them.

        Raises:
            TypeError: an option is missing or unknown.
            ConfigError: an option has a wrong type or value.
        """
        return self.with_options(self.parameters.bind(args, kwargs), self.name)

    def with_options(self, options: Mapping[str, Any], where: str) -> Workflow[R]:
        """A workflow from options that came from outside; `where` is named in errors."""
        return Workflow(self, MappingProxyType(self.parameters.validate(options, where)))


@dataclass(frozen=True, slots=True, eq=False)
class Workflow(Generic[R]):
    """A workflow with its options: what an engine carries out."""

    type: WorkflowType[..., R]
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The workflow's name in the vocabulary."""
        return self.type.name

    def steps(self, setting: Any, snapshot: Any = None) -> Steps[R]:
        """A fresh generator of asks, from the beginning or from a snapshot's state.

        Raises:
            LocalProtocolError: a snapshot for a workflow that offers none, or no generator.
        """
        if snapshot is not None and self.type.snapshot_type is None:
            raise LocalProtocolError(f"workflow {self.name} offers no snapshots; replay its totals instead")
        given = {} if snapshot is None else {"snapshot": snapshot}
        steps = self.type.function(setting, **self.options, **given)
        if not isinstance(steps, Generator):
            raise LocalProtocolError(f"workflow {self.name} must be a generator function; yield its asks")
        return steps


def workflow(name: str, *, version: int) -> Callable[[Callable[Concatenate[S, P], Steps[R]]], WorkflowType[P, R]]:
    """Make a generator function `(setting, ...) -> Steps[Result]` part of the vocabulary.

    A keyword parameter `snapshot: State | None = None` is not an option: it receives the state of a
    `Snapshot` the workflow yielded, when a run is resumed from there.
    """

    def register(function: Callable[Concatenate[S, P], Steps[R]]) -> WorkflowType[P, R]:
        _check_name(name, version)
        parameters = Parameters.of(function, 1, without=frozenset({"snapshot"}))
        return WorkflowType(name, version, function, parameters, _snapshot_type(function))

    return register


def _snapshot_type(function: Callable[..., Any]) -> type[Any] | None:
    hint = typing.get_type_hints(function).get("snapshot")
    types = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    if hint is not None and (len(types) != 1 or not isinstance(types[0], type)):
        raise TypeError(f"{function.__qualname__}: annotate `snapshot: State | None = None`")
    return types[0] if types else None


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Site functions by `name@version` and workflows by name."""

    functions: Mapping[str, SiteFunction[..., Any]]
    workflows: Mapping[str, WorkflowType[..., Any]]

    @classmethod
    def of_modules(cls, modules: Iterable[ModuleType]) -> Vocabulary:
        """Everything that these modules define.

        Raises:
            ConfigError: two different definitions under one name.
        """
        functions: dict[str, SiteFunction[..., Any]] = {}
        workflows: dict[str, WorkflowType[..., Any]] = {}
        for module in modules:
            for value in vars(module).values():
                if isinstance(value, SiteFunction):
                    _add(functions, value.function_id, value, module)
                elif isinstance(value, WorkflowType):
                    _add(workflows, value.name, value, module)
        return cls(MappingProxyType(functions), MappingProxyType(workflows))

    def function(self, function_id: str) -> SiteFunction[..., Any]:
        """The site function of this name and version. Raises `ConfigError` with the remedy."""
        if function_id not in self.functions:
            hint = _hint(function_id, self.functions, "install the package that defines it")
            raise ConfigError(f"unknown site function {function_id!r}; {hint}")
        return self.functions[function_id]

    def workflow(self, name: str, where: str = "workflow") -> WorkflowType[..., Any]:
        """The workflow of this name. Raises `ConfigError` naming the known ones."""
        if name not in self.workflows:
            hint = _hint(name, self.workflows, f"known: {', '.join(sorted(self.workflows))}")
            raise ConfigError(f"{where}: unknown workflow {name!r}; {hint}")
        return self.workflows[name]


def _hint(name: str, known: Iterable[str], otherwise: str) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else otherwise


def _add(known: dict[str, Any], name: str, value: Any, module: ModuleType) -> None:
    if known.setdefault(name, value) is not value:
        raise ConfigError(f"{module.__name__} defines {name!r}, which another installed package already defines")
