"""One frame as a site's table, which must fit."""

import pandas as pd

from wardround.data.contract import Contract
from wardround.data.harmonise import check_frames
from wardround.data.report import refuse_misfits
from wardround.data.table import Table


def harmonise(frame: pd.DataFrame, contract: Contract, site: str, **options) -> Table:
    checked = check_frames([frame], contract, site, **options)
    refuse_misfits([checked.report])
    return checked.table
