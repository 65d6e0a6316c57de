"""A study that cannot work is refused before any site is asked."""

import pandas as pd
import pytest

import wardround as wr
from wardround.errors import ConfigError
from wardround.studies.extensions import installed_vocabulary
from wardround.studies.preflight import preflight
from wardround.studies.study import parse_study

TABLE = pd.DataFrame({"y": [0.5, 1.5, 2.0, 1.0, 3.5, 2.5], "age": [50, 60, 41, 72, 35, 66], "sex": list("fmfmmf")})
HEAD = '[study]\nname = "n"\nquestion = "q"\n'


def study(*analyses):
    text = HEAD + "".join(f"[[analysis]]\n{analysis}\n" for analysis in analyses)
    return parse_study(text, installed_vocabulary())


@pytest.fixture
def asked():
    return []


@pytest.fixture
def federation(asked):
    return wr.simulate({"A": TABLE, "B": TABLE}, progress=asked.append)


def test_a_good_study_passes(federation):
    preflight(study('workflow = "census"', 'workflow = "glm"\nformula = "y ~ age"').analyses, federation.setting)


def test_all_problems_are_told_with_their_place_and_nothing_is_asked(federation, asked):
    bad = study(
        'workflow = "glm"\nformula = "y ~ agee"',
        'workflow = "census"',
        'workflow = "glm"\nformula = "y ~ (age"',
        'workflow = "describe"\nvariables = ["weight"]',
        'workflow = "glm"\nformula = "y ~ age"\nconfidence = 2.0',
    )
    with pytest.raises(ConfigError) as caught:
        preflight(bad.analyses, federation.setting)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("analysis 1 (glm): ")
    assert "did you mean 'age'?" in lines[0]
    starts = [line.split(":")[0] for line in lines if line.startswith("analysis ")]
    assert starts == ["analysis 1 (glm)", "analysis 3 (glm)", "analysis 4 (describe)", "analysis 5 (glm)"]
    assert asked == []


def test_code_in_a_formula_is_refused_and_not_run(federation, tmp_path):
    target = tmp_path / "written"
    formula = f"y ~ open('{target}', 'w')"
    with pytest.raises(ConfigError, match=r"analysis 1 \(glm\)"):
        preflight(study(f'workflow = "glm"\nformula = "{formula}"').analyses, federation.setting)
    assert not target.exists()
