"""A site's own SELECT."""

import sqlite3

import duckdb
import pandas as pd
import pytest

from wardround.data.sources import source
from wardround.data.sources.sql import SQLiteSource, sql_source
from wardround.errors import ConfigError, DataError

FRAME = pd.DataFrame({"age": [50, 60, 70], "sex": ["M", "F", None]})


@pytest.fixture(params=["duckdb", "sqlite"])
def database(request, tmp_path):
    path = tmp_path / f"hospital's {request.param}.db"
    if request.param == "duckdb":
        with duckdb.connect(str(path)) as connection:
            connection.execute("CREATE TABLE stays (age INTEGER, sex VARCHAR)")
            connection.execute("INSERT INTO stays VALUES (50, 'M'), (60, 'F'), (70, NULL)")
        return path
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE stays (age INTEGER, sex TEXT)")
    connection.execute("INSERT INTO stays VALUES (50, 'M'), (60, 'F'), (70, NULL)")
    connection.commit()
    connection.close()
    return path


def read(made, columns=None):
    return pd.concat(made.chunks(columns), ignore_index=True)


def test_a_query_on_a_database(database):
    made = sql_source(
        "SELECT age, sex AS Geschlecht, 1 AS one FROM stays ORDER BY age -- oldest last", "A", database=database
    )
    assert made.names() == ("age", "Geschlecht", "one")
    assert made.num_records() is None
    frame = read(made, ["one", "age"])
    assert frame.to_dict("list") == {"age": [50, 60, 70], "one": [1, 1, 1]}
    assert read(made)["Geschlecht"].fillna("").tolist() == ["M", "F", ""]
    assert len(read(made, ["absent"])) == 3


def test_no_rows(database):
    chunks = list(sql_source("SELECT * FROM stays WHERE age > 99;", "A", database=database).chunks())
    assert [len(chunk) for chunk in chunks] == [0]
    assert list(chunks[0].columns) == ["age", "sex"]


def test_pieces(database, monkeypatch):
    monkeypatch.setattr(source, "CHUNK_CELLS", 4)
    query = "SELECT a.age FROM stays a, stays b, stays c, stays d"
    chunks = list(sql_source(query, "A", database=database).chunks())
    assert sum(len(chunk) for chunk in chunks) == 81


def test_over_a_table(tmp_path):
    FRAME.to_csv(tmp_path / "it's.csv", index=False)
    FRAME.to_parquet(tmp_path / "a.parquet")
    query = "SELECT sex, max(age::INTEGER) AS oldest FROM records WHERE sex IS NOT NULL GROUP BY sex ORDER BY sex"
    for records in (FRAME, tmp_path / "it's.csv", str(tmp_path / "a.parquet")):
        assert read(sql_source(query, "A", records=records)).to_dict("list") == {"sex": ["F", "M"], "oldest": [60, 50]}


@pytest.mark.parametrize(
    "query",
    [
        "",
        "SELEC 1",
        "SELECT 1; SELECT 2",
        "SELECT 1) UNION (SELECT 2; DROP TABLE stays",
        "DROP TABLE stays",
        "DELETE FROM stays",
        "INSERT INTO stays VALUES (1, 'M')",
        "CREATE TABLE x AS SELECT 1",
        "COPY stays TO '/tmp/x'",
        "ATTACH '/tmp/other.db' AS other",
        "PRAGMA database_list",
        "SET threads = 3",
        "INSTALL httpfs",
        "CALL pragma_version()",
        "SELECT nothing FROM stays",
        "SELECT * FROM nowhere",
        "SELECT 1" + " " * 200_000,
    ],
)
def test_what_is_not_one_select(database, query):
    with pytest.raises(ConfigError, match="'A'"):
        read(sql_source(query, "A", database=database))
    assert len(read(sql_source("SELECT * FROM stays", "A", database=database))) == 3


@pytest.mark.parametrize("query", ["ATTACH ':memory:' AS other", "PRAGMA table_info(stays)", "DELETE FROM stays"])
def test_sqlite_itself_refuses_all_but_reading(tmp_path, query):
    connection = sqlite3.connect(tmp_path / "a.db")
    connection.execute("CREATE TABLE stays (age INTEGER)")
    connection.close()
    with pytest.raises(ConfigError, match="the query is refused"):
        SQLiteSource(query=query, site="A", database=tmp_path / "a.db").read_columns()


@pytest.mark.parametrize(
    "expression",
    [
        "(SELECT count(*) FROM read_csv('{0}'))",
        "(SELECT count(*) FROM '{0}')",
        "(SELECT content FROM read_text('{0}'))",
    ],
)
def test_a_query_reads_no_other_file(tmp_path, database, expression):
    (tmp_path / "other.csv").write_text("x\n1\n")
    query = f"SELECT {expression.format(tmp_path / 'other.csv')} AS x"
    for place in ({"database": database}, {"records": FRAME}):
        with pytest.raises((ConfigError, DataError)):
            read(sql_source(query, "A", **place))


def test_errors_show_no_value(tmp_path):
    frame = pd.DataFrame({"x": ["Xq7Secret"]})
    with pytest.raises(DataError) as caught:
        read(sql_source("SELECT CAST(x AS INTEGER) AS y FROM records", "A", records=frame))
    assert "Xq7" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_what_is_no_database(tmp_path):
    with pytest.raises(ConfigError, match="there is no database file"):
        sql_source("SELECT 1", "A", database=tmp_path / "absent.db")
    (tmp_path / "text.db").write_text("hello")
    with pytest.raises((ConfigError, DataError)):
        sql_source("SELECT 1", "A", database=tmp_path / "text.db")
    (tmp_path / "broken.db").write_bytes(b"SQLite format 3\x00" + b"\xff" * 500)
    with pytest.raises(ConfigError, match="cannot be read"):
        read(sql_source("SELECT * FROM stays", "A", database=tmp_path / "broken.db"))
    with pytest.raises(ValueError, match="either a database or records"):
        sql_source("SELECT 1", "A")
