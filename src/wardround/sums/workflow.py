"""Ask every site, receive the sum: the loop that every analysis is.

A workflow is a generator. It yields `Ask`, is sent `Total`, and returns its result; in between it may offer
a `Snapshot`. It does no IO, keeps no clock and draws no randomness of its own, so an engine may run it,
replay it from a record, or resume it after a crash.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeAlias, TypeVar

if TYPE_CHECKING:
    from wardround.sums.contribution import Contribution, Layout
    from wardround.sums.vocabulary import SiteFunction

P = ParamSpec("P")
C = TypeVar("C", bound="Contribution")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Ask(Generic[C]):
    """A site function with its arguments, to be computed by every site and summed.

    The arguments are made what a site will receive: of the annotated types, arrays read-only copies.

    Attributes:
        function: what every site computes.
        arguments: by name.
        is_clear: whether the total comes with every site's own contribution, unprotected. Every site refuses such an
            ask unless the study declares it (`allows_clear`) and its disclosure rules allow it (`allows_site_results`).

    Raises:
        LocalProtocolError: an argument does not fit the function's annotations.
    """

    function: SiteFunction[..., C]
    arguments: Mapping[str, Any]
    is_clear: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        arguments = self.function.parameters.normalised(self.arguments, self.function.function_id)
        object.__setattr__(self, "arguments", MappingProxyType(arguments))

    @property
    def layout(self) -> Layout:
        """The layout that every contribution to this ask must have."""
        return self.function.layout(self.arguments)


@dataclass(frozen=True, slots=True)
class Total(Generic[C]):
    """The sum over the sites that answered, and which these were.

    Attributes:
        sum: of the contributions; where sums are by buckets, each bounded field is the number of sites times the
            median over the buckets of their means.
        sites: in the sum, in the order of the roster.
        parts: what the sum was made of, where that is known: one total a site for a clear ask, one a bucket where
            sums are by buckets. Together they are over the same sites in the same order.
    """

    sum: C
    sites: tuple[str, ...]
    parts: tuple[Total[C], ...] = ()

    @property
    def num_sites(self) -> int:
        """How many sites are in the sum."""
        return len(self.sites)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state from which the workflow can start again; totals before it need not be kept.

    `state` is a frozen dataclass of numbers, strings, tuples and `Array` values.
    """

    state: Any


Steps: TypeAlias = Generator[Ask[Any] | Snapshot, Any, R]
"""What a workflow is: yields asks and snapshots, is sent totals (None for a snapshot), returns R."""


def ask(function: SiteFunction[P, C], /, *args: P.args, **kwargs: P.kwargs) -> Generator[Ask[C], Total[C], Total[C]]:
    """Yield one ask and return its total, typed; used with `yield from`."""
    return (yield Ask(function, function.parameters.bind(args, kwargs)))


def ask_each(
    function: SiteFunction[P, C], /, *args: P.args, **kwargs: P.kwargs
) -> Generator[Ask[C], Total[C], Total[C]]:
    """Yield one clear ask and return its total, whose `parts` are the sites' own contributions.

    For studies whose consortium has agreed that the coordinator may see them, as robust means over single updates
    need (`wardround.sums.robust`). Used with `yield from`.
    """
    return (yield Ask(function, function.parameters.bind(args, kwargs), is_clear=True))
