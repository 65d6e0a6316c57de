"""The installed program as a person or another program runs it: its own process, its own streams."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points

import pytest

from wardround.cli.app import main

pytestmark = pytest.mark.e2e

NOISY = '''
import os
import sys
import warnings

from wardround.data.table import Table
from wardround.sums import Contribution, Steps, ask, people, site_function, workflow
from wardround.analytics.census import CohortSize

print("a library greets")

class Rows(Contribution):
    num_rows: int = people()

@site_function("noisy.rows", version=1)
def rows(table: Table, /) -> Rows:
    """Number of rows."""
    print("a library prints")
    os.write(1, b"a C library prints\\n")
    os.system("echo a child prints")
    warnings.warn("a library warns")
    return Rows(num_rows=table.num_records)

@workflow("noisy", version=1)
def counting(setting: object) -> Steps[CohortSize]:
    """Count the rows, loudly."""
    total = yield from ask(rows)
    return CohortSize(num_records=total.sum.num_rows, num_patients=0, sites=total.sites)
'''


def program(*args, **more):
    command = [sys.executable, "-m", "wardround.cli.app", *(str(arg) for arg in args)]
    return subprocess.run(command, capture_output=True, timeout=120, check=False, **more)


@pytest.fixture
def noisy(tmp_path):
    """Environment in which a package is installed whose analysis writes wherever it can."""
    site_packages = tmp_path / "packages"
    info = site_packages / "noisy-1.0.dist-info"
    info.mkdir(parents=True)
    (site_packages / "noisy_analyses.py").write_text(NOISY, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: noisy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[wardround.analyses]\nnoisy = noisy_analyses\n")
    return {**os.environ, "PYTHONPATH": str(site_packages)}


def test_output_is_pure(folder, study_file, noisy):
    path = study_file('[study]\nname = "n"\nquestion = "q"\n[[analysis]]\nworkflow = "noisy"\n')
    done = program("run", path, "--simulate", folder, "--json", env=noisy)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["analyses"][0]["result"]["num_records"] == 360
    for noise in (b"a library greets", b"a library prints", b"a C library prints", b"a child prints", b"library warns"):
        assert noise in done.stderr


def test_json_is_json_in_any_encoding(folder, study_file):
    for encoding in ("utf-8", "ascii", "latin-1"):
        env = {**os.environ, "PYTHONIOENCODING": encoding}
        done = program("run", study_file(), "--simulate", folder, "--json", env=env)
        assert json.loads(done.stdout.decode("utf-8"))["sites"][1] == "Süd·Zürich"


def test_text_survives_a_terminal_without_unicode(folder, study_file):
    done = program("run", study_file(), "--simulate", folder, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert b"S\\xfcd" in done.stdout


def test_a_refusal_is_one_message_and_exit_code_1(tmp_path, folder):
    done = program("run", tmp_path / "none.toml", "--simulate", folder)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"wardround: there is no study file {tmp_path / 'none.toml'}\n"


def test_wrong_usage_is_exit_code_2():
    assert program("run").returncode == 2


def test_a_reader_that_goes_away_is_no_fault():
    command = [sys.executable, "-m", "wardround.cli.app", "vocabulary", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""


def test_the_keyboard_stops_it_without_a_traceback(folder, study_file, noisy, tmp_path):
    started = tmp_path / "started"
    slow = tmp_path / "packages" / "noisy_analyses.py"
    slow.write_text(
        NOISY.replace('print("a library prints")', f"open({str(started)!r}, 'w'); import time; time.sleep(60)")
    )
    path = study_file('[study]\nname = "n"\nquestion = "q"\n[[analysis]]\nworkflow = "noisy"\n')
    command = [sys.executable, "-m", "wardround.cli.app", "run", str(path), "--simulate", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=noisy) as process:
        deadline = time.monotonic() + 60
        while not started.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, talk = process.communicate(timeout=60)
    assert process.returncode == 130
    assert talk.endswith(b"wardround: stopped\n")
    assert b"Traceback" not in talk


def test_the_console_script_is_installed():
    (point,) = entry_points(group="console_scripts", name="wardround")
    assert point.load() is main


def test_the_ten_line_example_of_the_python_face():
    code = """
import numpy as np, pandas as pd, wardround as wr
rng = np.random.default_rng(0)
def hospital(n):
    return pd.DataFrame({"age": rng.integers(20, 90, n), "sex": rng.choice(["f", "m"], n), "y": rng.integers(0, 2, n)})
federation = wr.simulate({"North": hospital(200), "South": hospital(150)})
print(wr.glm(federation, "y ~ age + C(sex)", family="binomial").summary())
print(wr.describe(federation, by="sex").summary())
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "C(sex)[T.m]" in done.stdout
    assert "Table 1 by sex: 350 records at 2 sites" in done.stdout
