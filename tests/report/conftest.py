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


MODEL = {
    "kind": "linear",
    "name": "score",
    "link": "logit",
    "coefficients": [-6.0, 0.09],
    "columns": [
        {"name": "Intercept", "features": []},
        {"name": "age", "features": [{"kind": "numeric", "expression": "age"}]},
    ],
}
EVERY_WORKFLOW = [
    {"workflow": "describe", "title": "The patients, by ward", "by": "ward"},
    {"workflow": "glm", "title": "Deaths", "formula": "died ~ age + C(sex) + C(ward)", "family": "binomial"},
    {"workflow": "glm", "title": "By hospital", "formula": "stay ~ age", "site_intercepts": True},
    {"workflow": "glm", "title": "It fails", "formula": "died ~ age + perfect", "family": "binomial"},
    {"workflow": "kaplan_meier", "title": "Survival", "time": "days", "event": "died", "by": "sex", "grid": 10.0},
    {"workflow": "cox", "title": "Hazards", "formula": "age + C(sex)", "time": "days", "event": "died", "grid": 10.0},
    {"workflow": "cumulative_incidence", "title": "Causes", "time": "days", "event": "end", "grid": 10.0}
    | {"causes": ["died", "went home"], "censored": "alive", "by": "sex"},
    {"workflow": "meta_analysis", "title": "As a meta-analysis", "formula": "stay ~ age + C(sex)"},
    {"workflow": "mixed", "title": "Random effects", "formula": "stay ~ age"},
    {"workflow": "heterogeneity", "title": "Differences", "outcome": "died", "variables": ["age", "sex", "stay"]},
    {"workflow": "evaluate", "title": "A score", "model": MODEL, "outcome": "died", "by": "sex", "by_site": True},
    {"workflow": "compare_means", "title": "Means", "variables": ["age", "stay"], "by": "sex"},
    {"workflow": "contingency", "title": "Wards and sexes", "rows": "ward", "columns": "sex"},
    {"workflow": "correlation", "title": "Correlations", "variables": ["age", "stay", "days"]},
    {"workflow": "pca", "title": "Components", "variables": ["age", "stay", "days"]},
    {"workflow": "kmeans", "title": "Clusters", "variables": ["age", "stay"], "num_clusters": 2, "num_restarts": 2},
    {"workflow": "imputed", "title": "Imputed", "formula": "stay ~ age + C(sex)"}
    | {"num_imputations": 2, "num_iterations": 2},
    {"workflow": "imputed_cox", "title": "Imputed hazards", "formula": "age", "time": "days", "event": "died"}
    | {"num_imputations": 2, "num_iterations": 2, "grid": 10.0},
    {"workflow": "quantiles", "title": "Quantiles", "variables": ["age"]},
    {"workflow": "census", "title": "How many"},
]


def ward_table(seed, n=400):
    rng = np.random.default_rng(seed)
    age = rng.normal(60, 10, n)
    died = rng.random(n) < 1 / (1 + np.exp((65 - age) / 8))
    columns = {
        "age": np.where(rng.random(n) < 0.05, np.nan, age.round()),
        "sex": rng.choice(["female", "male"], n),
        "ward": rng.choice([f"ward number {i}" for i in range(1, 11)], n),
        "stay": rng.gamma(2, 3 + seed, n).round(1),
        "days": rng.integers(1, 1000, n),
        "died": died,
        "end": np.where(died, "died", rng.choice(["alive", "went home"], n)),
        "perfect": died * 2.0,
    }
    return pd.DataFrame(columns)


@pytest.fixture(scope="session")
def everything():
    """The outcome of a study with every built-in workflow, a wide table, long names and a failure."""
    import tomli_w

    head = {
        "name": "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
        "question": "Who stays, and why?",
        "purpose": "To see a report.",
    }
    rules = {"preset": "standard", "allows_site_results": True}
    document = {"study": head, "disclosure": rules, "analysis": EVERY_WORKFLOW}
    study = parse_study(tomli_w.dumps(document), installed_vocabulary())
    sites = ["North", "Krankenhaus der Barmherzigen Schwestern", "St_Mary's"]
    tables = {name: ward_table(number) for number, name in enumerate(sites)}
    outcome = carry_out(study, wr.simulate(tables, disclosure=study.disclosure), date="2026-11-23")
    assert {one.analysis.title: one.failure for one in outcome.failed}.keys() == {"It fails"}
    return outcome
