"""Contract suites that are shipped, so that an analysis written elsewhere can be held to the same rules as ours.

from wardround.testing import check_workflow

def test_my_analysis():
    result = check_workflow(my_analysis(columns=("age",)), {"north": north, "south": south}, setting)
    assert result.mean == pytest.approx(61.3)
"""

from wardround.testing.fingerprint import fingerprint
from wardround.testing.workflow_contract import check_workflow

__all__ = ["check_workflow", "fingerprint"]
