"""How many records and patients a study is about: the smallest analysis there is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from wardround.analytics.journal_text import count_text
from wardround.analytics.result import Exhibit, TableExhibit, json_text, json_value
from wardround.data.contract import Setting
from wardround.data.table import Table
from wardround.sums import Contribution, Steps, ask, people, site_function, workflow

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Census(Contribution):
    """Sizes of the cohort."""

    num_records: int = people()
    num_patients: int = people()


@site_function("census.count", version=1)
def count(table: Table, /) -> Census:
    """Number of records and of patients of the cohort."""
    return Census(num_records=table.num_records, num_patients=table.num_patients)


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortSize:
    """The cohort over all sites that answered. A count that the disclosure rules hide is None."""

    num_records: int | None
    num_patients: int | None
    sites: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """None: two numbers need no explanation."""
        return ()

    def summary(self) -> str:
        """One sentence."""
        records, patients = count_text(self.num_records), count_text(self.num_patients)
        return f"{records} records of {patients} patients at {len(self.sites)} sites"

    def to_frame(self) -> pd.DataFrame:
        """One row: num_records, num_patients, num_sites."""
        sizes = {"num_records": self.num_records, "num_patients": self.num_patients, "num_sites": len(self.sites)}
        return pd.DataFrame([sizes])

    def to_dict(self) -> dict[str, Any]:
        """All attributes as JSON values."""
        return dict(json_value(asdict(self)))

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json_text(self.to_dict())

    def plot(self) -> Figure:
        """Two bars: records and patients. Needs matplotlib (the extra `report`)."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.0, 1.6), layout="constrained")
        axes = figure.add_subplot()
        counts = [self.num_patients, self.num_records]
        bars = axes.barh(["patients", "records"], [count or 0 for count in counts])
        axes.bar_label(bars, labels=[count_text(count) for count in counts], padding=3)
        axes.set_xlabel("number")
        axes.spines[["top", "right"]].set_visible(False)
        return figure

    def methods(self) -> str:
        """What was counted."""
        return f"Records and patients were counted at each of {len(self.sites)} sites, and the counts were summed."

    @property
    def references(self) -> tuple[str, ...]:
        """None: counting needs no paper."""
        return ()

    def exhibits(self) -> tuple[Exhibit, ...]:
        """The two numbers, as a table."""
        counts = {"Records": self.num_records, "Patients": self.num_patients}
        sizes = {**{name: count_text(count) for name, count in counts.items()}, "Sites": str(len(self.sites))}
        return (TableExhibit(title="Size of the cohort", frame=pd.DataFrame([sizes])),)


@workflow("census", version=1)
def census(setting: Setting) -> Steps[CohortSize]:
    """Count the records and patients of the cohort over all sites."""
    total = yield from ask(count)
    shown = setting.disclosure.shown
    num_records, num_patients = total.sum.num_records, total.sum.num_patients
    return CohortSize(num_records=shown(num_records), num_patients=shown(num_patients), sites=total.sites)
