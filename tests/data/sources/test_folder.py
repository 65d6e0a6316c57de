"""A folder with one table a site."""

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
    (tmp_path / "folder.csv").mkdir()
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
