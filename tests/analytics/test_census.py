"""The size of the cohort."""

import json

import pandas as pd

import wardround as wr
from wardround.analytics.census import census
from wardround.analytics.result import Result


def test_records_and_patients_are_counted_over_sites():
    one = pd.DataFrame({"id": [1, 1, 2], "x": [1.5, 2.5, 3.5]})
    other = pd.DataFrame({"id": [1, 7], "x": [0.5, 2.0]})
    assert wr.simulate({"A": one, "B": other}, patient="id").run(census()).num_patients is None
    size = wr.simulate({"A": one, "B": other}, patient="id", disclosure="none").run(census())
    assert (size.num_records, size.num_patients, size.sites) == (5, 4, ("A", "B"))
    assert isinstance(size, Result)
    assert size.summary() == "5 records of 4 patients at 2 sites"
    assert json.loads(size.to_json()) == {"num_records": 5, "num_patients": 4, "sites": ["A", "B"]}
    assert size.to_frame().iloc[0].to_dict() == {"num_records": 5, "num_patients": 4, "num_sites": 2}
    assert [text.get_text() for text in size.plot().axes[0].texts] == ["4", "5"]
