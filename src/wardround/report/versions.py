"""The versions of what computed a result."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

COMPUTING_PACKAGES = ("wardround", "numpy", "scipy", "pandas", "formulaic", "duckdb")


def package_version(name: str) -> str:
    """The installed version of a package; "unknown" where its metadata are missing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def versions() -> dict[str, str]:
    """Of Python and of the packages that compute, by name."""
    return {**{name: package_version(name) for name in COMPUTING_PACKAGES}, "python": platform.python_version()}
