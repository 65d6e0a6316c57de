"""A folder with one table a site."""

import os
from pathlib import Path

import pytest

from wardround.data.sources.folder import site_of, tables_in
from wardround.errors import ConfigError


def make(folder, *names):
    for name in names:
        (folder / name).write_text("x\n1\n")
    return folder


def test_names_of_files_are_names_of_sites(tmp_path):
    make(
        tmp_path,
        "South.csv",
        "North.csv.gz",
        "West v1.2.parquet",
        "Zu\u0308rich.TSV",
        "README.md",
        "contract.toml",
        ".x.csv",
    )
    (tmp_path / "folder").mkdir()
    (tmp_path / "archive.zip").mkdir()
    assert list(tables_in(tmp_path)) == ["North", "South", "West v1.2", "Z\u00fcrich"]
    assert site_of(tmp_path / "North.csv.gz") == "North"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "holds no table"),
        (["README.md"], "holds no table"),
        (["a.csv", "a.parquet"], "a.csv and a.parquet are both of site 'a'"),
        (["a.csv", "b.xlsx"], "b.xlsx: tables of this kind are not read; save it as one of .csv"),
    ],
)
def test_folders_that_are_refused(tmp_path, names, said):
    with pytest.raises(ConfigError) as caught:
        tables_in(make(tmp_path, *names))
    assert said in str(caught.value)


def test_no_folder(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        tables_in(tmp_path / "absent")


def test_a_hospital_is_not_lost_without_a_word(tmp_path):
    make(tmp_path, "a.csv")
    for number, put in enumerate(
        (
            Path.mkdir,
            os.mkfifo,
            lambda path: path.symlink_to(tmp_path / "absent"),
            lambda path: path.symlink_to("/dev/zero"),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        put(make(folder, "a.csv") / "b.csv")
        with pytest.raises(ConfigError, match=r"b\.csv: is no file, as its name says"):
            tables_in(folder)
