"""The section [privacy] of a study file: how its sums are protected."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

import pydantic
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from wardround.errors import ConfigError
from wardround.privacy.protection import LEAST_BUCKET, SumProtection
from wardround.privacy.secagg.terms import MOST_SITES
from wardround.sums.parameters import explain


class _PrivacySection(TypedDict):
    """The keys of [privacy]."""

    __pydantic_config__ = pydantic.ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]  # read by pydantic
    secure_sums: NotRequired[bool]
    threshold: NotRequired[Annotated[int, Field(ge=2, le=MOST_SITES)]]
    colluding_sites: NotRequired[Annotated[int, Field(ge=0, le=MOST_SITES - 2)]]
    mode: NotRequired[Literal["strict", "two_leg"]]
    bucket_size: NotRequired[Annotated[int, Field(ge=LEAST_BUCKET, le=MOST_SITES)]]
    allows_clear: NotRequired[bool]
    allows_repeats: NotRequired[bool]


_KEYS = tuple(_PrivacySection.__annotations__)
_section = TypeAdapter(_PrivacySection)


def protection_of(section: object) -> SumProtection:
    """What a study file's [privacy] says; without one (an empty table), sums are secure.

    Raises:
        ConfigError: an unknown key, a value out of range, or keys that contradict each other.
    """
    if not isinstance(section, dict):
        raise ConfigError("privacy: must be a table; write [privacy] and secure_sums = true")
    try:
        given: dict[str, Any] = {**_section.validate_python(section)}
        mode = given.pop("mode", None)
        return SumProtection(**given, is_strict=None if mode is None else mode == "strict")
    except pydantic.ValidationError as error:
        raise ConfigError(explain(error, "privacy", _KEYS)) from None
    except ValueError as error:
        raise ConfigError(f"privacy: {error}") from None
