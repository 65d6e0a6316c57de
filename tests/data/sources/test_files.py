"""CSV, TSV and Parquet files: read in pieces, and refused with a word that helps."""

import gzip

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wardround.data.reading import day_text, read_column
from wardround.data.sources import files, source
from wardround.data.sources.database import reading_files
from wardround.data.sources.files import file_source
from wardround.errors import ConfigError, DataError, StoreError


def read(path, columns=None):
    return pd.concat(file_source(path, "North").chunks(columns), ignore_index=True)


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "x,y\n1,p q\n2,\n"),
        ("a.csv", "x;y\n1;p q\n2;\n"),
        ("a.csv", "x|y\n1|p q\n2|\n"),
        ("a.csv", "x\ty\n1\tp q\n2\t\n"),
        ("a.tsv", "x\ty\n1\tp q\n2\t\n"),
        ("a.csv", "x,y\r\n1,p q\r\n2,\r\n"),
        ("a.csv", "x,y\r1,p q\r2,\r"),
        ("a.csv", "\ufeffx,y\n1,p q\n2,"),
        ("a.csv", ' x , "y"\n1,"p q"\n2,""\n'),
        ("A.CSV", "x,y\n\n1,p q\n2,\n\n"),
        ("a.csv.gz", gzip.compress(b"x,y\n1,p q\n2,\n")),
        ("it's [a] *.csv", "x,y\n1,p q\n2,\n"),
    ],
)
def test_dialects(tmp_path, name, content):
    frame = read(written(tmp_path, name, content))
    assert list(frame.columns) == ["x", "y"]
    assert frame["x"].tolist() == ["1", "2"]
    assert frame["y"].fillna("").tolist() == ["p q", ""]


def test_cells_keep_their_text(tmp_path):
    path = written(tmp_path, "a.csv", 'x,y\n007,"a,""b""\nc"\n1e3,NA\n')
    assert read(path).to_dict("list") == {"x": ["007", "1e3"], "y": ['a,"b"\nc', "NA"]}


def test_only_the_columns_asked_for_are_read(tmp_path):
    path = written(tmp_path, "a.csv", "x,y,z\n1,2,3\n")
    assert read(path, ["z", "x", "absent"]).to_dict("list") == {"x": ["1"], "z": ["3"]}
    assert len(read(path, ["absent"])) == 1
    pd.DataFrame({"x": [1], "y": [2.5], "z": ["a"]}).to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", ["z", "x"]).to_dict("list") == {"x": [1], "z": ["a"]}


def test_pieces_make_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "CHUNK_CELLS", 5_000)
    frame = pd.DataFrame({"x": np.arange(20_000), "y": "a"})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        chunks = list(file_source(tmp_path / name, "North").chunks())
        assert len(chunks) > 5
        assert pd.concat(chunks)["x"].astype(int).tolist() == list(range(20_000))
    assert file_source(tmp_path / "a.parquet", "North").num_records() == 20_000
    assert file_source(tmp_path / "a.csv", "North").num_records() is None


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet"])
def test_header_only(tmp_path, name):
    frame = pd.DataFrame({"x": pd.Series([], dtype=float), "y": pd.Series([], dtype=str)})
    if name == "a.parquet":
        frame.to_parquet(tmp_path / name)
    else:
        frame.to_csv(tmp_path / name, index=False)
    chunks = list(file_source(tmp_path / name, "North").chunks())
    assert [len(chunk) for chunk in chunks] == [0]
    assert list(chunks[0].columns) == ["x", "y"]


def test_types_of_parquet(tmp_path):
    frame = pd.DataFrame(
        {
            "i": pd.Series([1, None], dtype="Int64"),
            "s": ["a", None],
            "b": pd.Series([True, None], dtype="boolean"),
            "d": pd.to_datetime(["2024-02-29T23:30:00-02:00", None], utc=True),
            "far": np.array(["9999-12-31", "0001-01-01"], dtype="datetime64[s]"),
            "list": [[1], [2]],
        }
    )
    frame.to_parquet(tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert found["s"].fillna("").tolist() == ["a", ""]
    assert [day_text(day) for day in read_column(found["far"]).days] == ["9999-12-31", "0001-01-01"]
    assert day_text(read_column(found["d"]).days[0]) == "2024-03-01"


SECRET = "Xq7Secret"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "", "is empty; its first line must hold the columns' names"),
        ("a.csv", " \n\n", "is empty"),
        ("a.csv", "\nx,y\n1,2\n", "the first line is empty"),
        ("a.csv", f"x,y\n1,2\n1,2,{SECRET}\n", "line 3 does not have as many cells as the line of names"),
        ("a.csv", f"x,y\n1,2\n{SECRET}\n", "line 3 does not have as many cells as the line of names"),
        ("a.csv", f'x,y\n1,"{SECRET}\n2,3\n', "line 2 has a double quote that is not closed"),
        ("a.csv", f'x,y\n1,"2"{SECRET}\n', "line 2 has a double quote that is not closed, or text after a closing one"),
        ("a.csv", f"x,y\n1,{SECRET}\xe9\n".encode("latin-1"), "line 2 is not UTF-8 text; save the file as UTF-8"),
        ("a.csv", "gr\xf6\xdfe,y\n1,2\n".encode("latin-1"), "the line of names is not UTF-8 text"),
        ("a.csv", f"x,y\n1,{SECRET}\n".encode("utf-16"), "is UTF-16 text; save the file as UTF-8 (in Excel: Save As"),
        ("a.csv", f"x,y\n1,{SECRET}\n".encode("utf-16-le"), "is not a text file"),
        ("a.csv", f"63,1.5,{'7' * 8}\n1,2,3\n", "the first line holds numbers, not names"),
        ("a.csv", f"{SECRET},y,{SECRET}\n1,2,3\n", "columns 1 and 3 have one name"),
        ("a.csv", '"x,y\n1,2\n', "the line of names has quotes that do not match"),
        ("a.csv", "x,y\n1,2\r\n3,4\n", "its line ends are not all of one kind"),
        ("a.csv", f"sep=;\nx;y\n1;{SECRET}\n", "the first line, sep=..., is for Excel alone; delete it"),
        ("a.csv.gz", "x,y\n1,2\n", "is not a gzip file, or damaged"),
        ("a.csv.gz", gzip.compress(b"x,y\n" + np.random.default_rng(0).bytes(99))[:-20], "is not a gzip file"),
        ("a.parquet", "PAR1", "is not a Parquet file, or damaged"),
        ("a.parquet", f"x,y\n1,{SECRET}\n", "is not a Parquet file, or damaged"),
    ],
)
def test_malformed_files(tmp_path, name, content, said):
    with pytest.raises(DataError) as caught:
        read(written(tmp_path, name, content))
    assert said in str(caught.value)
    assert "'North'" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_damage_deep_inside_is_found(tmp_path):
    whole = gzip.compress(b"x,y\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(200_000)))
    with pytest.raises(DataError):
        read(written(tmp_path, "a.csv.gz", whole[:-1000]))
    pd.DataFrame({"x": np.random.default_rng(0).normal(size=50_000)}).to_parquet(tmp_path / "a.parquet")
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[1000:200_000] = bytes(199_000)
    with pytest.raises(DataError):
        read(written(tmp_path, "a.parquet", bytes(data)))


def test_a_line_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 2**16)
    with pytest.raises(DataError, match=r"line 2 is longer than"):
        read(written(tmp_path, "a.csv", f"x,y\n1,{'z' * 2**18}\n"))


@pytest.mark.parametrize("name", ["absent.csv", "https://example.org/a.csv", "s3://bucket/a.parquet", "*.csv"])
def test_only_files_that_exist(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "real.csv", "x\n1\n")
    with pytest.raises(ConfigError, match="there is no file"):
        file_source(name, "North")


@pytest.mark.parametrize("name", ["*.csv", "[ab].csv", "?.csv"])
def test_a_name_is_no_pattern(tmp_path, name):
    for other in ("a.csv", "b.csv", name):
        written(tmp_path, other, f"x\n{other}\n")
    assert read(tmp_path / name)["x"].tolist() == [name]


def test_kinds(tmp_path):
    with pytest.raises(ConfigError, match="is a folder"):
        file_source(tmp_path, "North")
    with pytest.raises(ConfigError, match=r"a.xlsx is not of a kind that is read \(.csv, .tsv"):
        file_source(written(tmp_path, "a.xlsx", "PK"), "North")


def test_ten_thousand_columns(tmp_path):
    names = [f"a rather long name of a column {i}" for i in range(10_000)]
    path = written(tmp_path, "a.csv", ",".join(names) + "\n" + ",".join(["1"] * 10_000) + "\n")
    frame = read(path, [names[9_999], names[0]])
    assert frame.to_dict("list") == {names[0]: ["1"], names[9_999]: ["1"]}


PIECES = st.sampled_from(
    [b"x,y\n", b"1,2\n", b'"', b",", b"\n", b"\r", b"\r\n", b"\x00", b"\xff", b"\xe9", b";", b"\t", b"x",
     b"\xef\xbb\xbf", b'""', b"PAR1", b"\x1f\x8b", b"\\", b"#", b"'", b" ", "ü".encode(), b"a" * 3000]
)  # fmt: skip


@given(st.lists(PIECES | st.binary(max_size=5), max_size=12).map(b"".join), st.sampled_from(files.TABLE_SUFFIXES))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_a_table_or_an_error_of_ours(tmp_path, content, suffix):
    path = written(tmp_path, "any" + suffix, content)
    try:
        frame = read(path)
    except (DataError, ConfigError, StoreError) as error:
        assert "any" in str(error)  # noqa: PT017  # either outcome is right
    else:
        assert len(frame.columns) >= 1


def test_a_date_of_no_year_is_told(tmp_path):
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT DATE 'infinity' AS d) TO '{tmp_path / 'a.parquet'}'")
    with pytest.raises(DataError, match="a date is of no year from 1 to 9999; correct it, or make it missing"):
        read(tmp_path / "a.parquet")


def test_too_many_columns_to_read_are_told(tmp_path, monkeypatch):
    def fail(*args):
        raise duckdb.OutOfMemoryException("out of memory")

    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    monkeypatch.setattr("wardround.data.sources.files.chunks_of", fail)
    with pytest.raises(StoreError, match=r"a\.csv has 2 columns, and .* keep only those that the study needs"):
        read(tmp_path / "a.csv")


def test_many_small_files_share_one_reader(tmp_path, monkeypatch):
    """Starting DuckDB takes longer than reading a small file does."""
    made = []
    connect = duckdb.connect
    monkeypatch.setattr(duckdb, "connect", lambda name, **more: made.append(name) or connect(name, **more))
    for site in "abc":
        (tmp_path / f"{site}.csv").write_text("x,y\n1,2\n")
    with reading_files():
        for site in "abc":
            assert len(read(tmp_path / f"{site}.csv")) == 1
    assert len(made) == 4
    assert len(set(made)) == 1
    assert set(made) != {":memory:"}  # that would be one each
