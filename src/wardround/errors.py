"""Every error Wardround raises on purpose.

    WardroundError
    ├── ConfigError              a study file, contract, formula or setting is wrong; says where and what to do
    ├── DataError                a site's data do not fit (counts and column names only, never a patient's value)
    │   ├── ContractError        the table does not fit the data contract; carries the report
    │   └── ModelError           the data cannot identify the model asked for
    │       ├── RankDeficiencyError   columns that are combinations of others
    │       ├── SeparationError       the outcome is predicted perfectly; no finite estimate exists
    │       └── ConvergenceError      the iteration did not settle
    ├── ProtocolError
    │   ├── LocalProtocolError   we misused the waist
    │   │   └── ContributionError    a contribution breaks its own declaration (names the field)
    │   └── RemoteProtocolError  a peer sent what it may not send
    │       ├── MessageRefusedError     a message of a secure sum breaks a rule; names the rule and the peer
    │       └── TranscriptRefusedError  a transcript of secure sums was altered; names the line and the rule
    ├── SiteError                a site function failed at a site; names both, shows no patient's value
    ├── QuorumError              too few sites answered an ask
    ├── PrivacyError             a privacy rule refuses; never retried
    ├── PolicyError              a site's policy refuses; never retried
    │   └── DisclosureError      a disclosure rule refuses; names the rule
    ├── TransportError           the network failed; may be retried
    └── StoreError               a file or database of ours cannot be read or written

A wrong argument to a Python function stays `ValueError` or `TypeError`.
"""

from typing import Any


class WardroundError(Exception):
    """Root of the tree above."""


class ConfigError(WardroundError):
    """A study file, contract, formula or setting is wrong."""


class DataError(WardroundError):
    """A site's data do not fit; the message holds counts and column names only."""


class ContractError(DataError):
    """A table does not fit the data contract; `reports` says how, site by site."""

    def __init__(self, message: str, *, reports: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.reports = reports


class ModelError(DataError):
    """The data cannot identify the model that was asked for."""


class RankDeficiencyError(ModelError):
    """Some columns of the design are combinations of others."""


class SeparationError(ModelError):
    """The outcome is predicted perfectly, so that no finite estimate exists."""


class ConvergenceError(ModelError):
    """The iteration did not settle within its limit."""


class ProtocolError(WardroundError):
    """The waist's rules were broken."""


class LocalProtocolError(ProtocolError):
    """We misused the waist."""


class ContributionError(LocalProtocolError):
    """A contribution breaks its own declaration; the message names the field."""


class RemoteProtocolError(ProtocolError):
    """A peer sent what it may not send."""


class MessageRefusedError(RemoteProtocolError):
    """A message of a secure sum breaks a rule of the protocol; nothing was changed by it.

    Attributes:
        rule: the rule's name, as `docs/protocol.md` lists them.
        peer: whose message it was: a site's name, or "coordinator".
    """

    def __init__(self, rule: str, peer: str, reason: str) -> None:
        super().__init__(f"message of {peer!r} refused, rule {rule}: {reason}")
        self.rule = rule
        self.peer = peer


class TranscriptRefusedError(RemoteProtocolError):
    """A transcript was altered, or tells of sums that break a rule.

    Attributes:
        line: number of the line, from 1.
        rule: the rule's name, as `docs/audit.md` lists them.
        reason: in words.
    """

    def __init__(self, line: int, rule: str, reason: str) -> None:
        super().__init__(f"line {line} of the transcript is refused, rule {rule}: {reason}")
        self.line = line
        self.rule = rule
        self.reason = reason


class SiteError(WardroundError):
    """A site function failed at a site; names both and shows no patient's value."""

    def __init__(self, message: str, *, site: str, function: str) -> None:
        super().__init__(message)
        self.site = site
        self.function = function


class QuorumError(WardroundError):
    """Too few sites answered an ask."""


class PrivacyError(WardroundError):
    """A privacy rule refuses; never retried."""


class PolicyError(WardroundError):
    """A site's policy refuses; never retried."""


class DisclosureError(PolicyError):
    """A disclosure rule refuses. The message names the rule and its floor, and never a count that it hides.

    Attributes:
        rule: the rule's name, as `DisclosureRules` has it.
        reason: what it refuses and what to do, without the site.
        site: who refuses; None where the coordinator does.
    """

    def __init__(self, rule: str, reason: str, *, site: str | None = None) -> None:
        super().__init__(f"disclosure rule {rule}" + (f" of site {site!r}" if site else "") + f": {reason}")
        self.rule = rule
        self.reason = reason
        self.site = site


class TransportError(WardroundError):
    """The network failed; may be retried."""


class StoreError(WardroundError):
    """A file or database of ours cannot be read or written."""
