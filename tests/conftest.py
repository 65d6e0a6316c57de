"""Fixtures that several rooms' tests use."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Deadlines measure the machine, not the code.
settings.register_profile("wardround", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("wardround")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data sets beside the repository; tests that need it skip when it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("WARDROUND_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"needs the shared data sets, which are not at {folder}")
    return folder
