"""A study carried out, for the report to show."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import wardround as wr
from wardround.cli.carry_out import carry_out
from wardround.errors import ConfigError
from wardround.report.pdf import find_browser
from wardround.studies.extensions import installed_vocabulary
from wardround.studies.study import parse_study


def _browser() -> Path | None:
    try:
        return find_browser()
    except ConfigError:
        return None


BROWSER = _browser()
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="needs a browser: install Chromium (Debian: apt-get install chromium)"
)


def hospital(seed, level):
    rng = np.random.default_rng(seed)
    n = 80
    return pd.DataFrame(
        {
            "age": rng.integers(20, 90, n),
            "sex": rng.choice(["f", level], n),
            "died": rng.random(n) < 0.4,
        }
    )


def carried_out(sites=("North", "South"), level="m", name="n", question="q", title="t", **more):
    """The outcome of a study with a regression and a table, at sites of these names."""
    vocabulary = installed_vocabulary()
    head = {"name": name, "question": question, **more.pop("study", {})}
    analyses = [
        {"workflow": "describe", "title": title, "by": "died"},
        {"workflow": "glm", "title": title, "formula": "died ~ age + C(sex)", "family": "binomial"},
    ]
    import tomli_w

    study = parse_study(tomli_w.dumps({"study": head, "analysis": analyses}), vocabulary)
    tables = {site: hospital(i, level) for i, site in enumerate(sites)}
    return carry_out(study, wr.simulate(tables, **more))


@pytest.fixture(scope="session")
def outcome():
    return carried_out(name="Wards", question="Who dies?", title="Mortality")
