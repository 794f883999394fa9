"""Tables in chunks hold what `load_table` reads at once, and complain of the same."""

import numpy as np
import polars as pl
import pytest

from kappaflow.data import chunks, load_table
from kappaflow.data.chunks import open_chunks
from kappaflow.data.raw import Reading
from kappaflow.errors import KappaflowError

ROWS = 57


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Chunks of ten rows."""
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 10)


def settled(path, columns, context=()):
    """Returns the chunks of a table whose columns are known."""
    result = open_chunks(str(path), Reading(tuple(columns), context=tuple(context)))
    return result


def table_and_chunks(path, columns, context=()):
    """Returns the table that is read at once, and its chunks."""
    result = settled(path, columns, context)
    at_once = load_table(str(path), columns=columns, context=context)
    return at_once, [result.read(number) for number in range(len(result))]


def assert_same(at_once, parts):
    """Checks values, context, names, row numbers and lines."""
    assert [len(part) for part in parts[:-1]] == [10] * (len(parts) - 1)
    for name in ("values", "context", "rows", "lines"):
        expected = getattr(at_once, name)
        if expected is not None:
            actual = np.concatenate([getattr(part, name) for part in parts])
            assert actual.tobytes() == expected.tobytes()
    assert {part.columns for part in parts} == {at_once.columns}


def frame():
    """A table with numbers of several types, truth values and text."""
    x = np.random.default_rng(0).normal(size=(ROWS, 3))
    return pl.DataFrame({
        "a": x[:, 0],
        "text": [f'say "{i}",\nplease' if i % 7 == 0 else "plain" for i in range(ROWS)],
        "b": x[:, 1].astype(np.float32),
        "count": np.arange(ROWS) - 20,
        "truth": [i > 25 for i in range(ROWS)],
        "c": x[:, 2],
    })


WRITERS = {
    "t.parquet": lambda f, path: f.write_parquet(path),
    "groups.parquet": lambda f, path: f.write_parquet(path, row_group_size=13),
    "t.arrow": lambda f, path: f.write_ipc(path),
    "packed.feather": lambda f, path: f.write_ipc(path, compression="zstd"),
    "t.csv": lambda f, path: f.write_csv(path),
    "t.tsv": lambda f, path: f.write_csv(path, separator="\t"),
    "semicolon.csv": lambda f, path: f.write_csv(path, separator=";"),
    "windows.csv": lambda f, path: f.write_csv(path, line_terminator="\r\n", include_bom=True),
}


@pytest.mark.parametrize("name", WRITERS)
def test_chunks_are_the_table(tmp_path, name):
    """Of every kind of file: numbers, truth values, context, and row numbers."""
    WRITERS[name](frame(), tmp_path / name)
    columns, context = ["count", "truth", "a", "b"], ["c"]
    assert_same(*table_and_chunks(tmp_path / name, columns, context))


@pytest.mark.parametrize(
    "array",
    [
        np.random.default_rng(0).normal(size=(ROWS, 3)),
        np.asfortranarray(np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)),
        np.arange(3 * ROWS).reshape(ROWS, 3),
        np.array([(1.5 * i, i, i) for i in range(ROWS)], [("x0", "f4"), ("b", "i8"), ("x2", "?")]),
    ],
    ids=["float64", "fortran", "integers", "fields"],
)
def test_chunks_of_an_array_are_the_array(tmp_path, array):
    """Columns by place or by field, in the order of the run."""
    np.save(tmp_path / "t.npy", array)
    assert_same(*table_and_chunks(tmp_path / "t.npy", ["x2", "x0"]))


def test_the_type_of_a_column_is_that_of_all_of_it(tmp_path):
    """Truth values that are text to another chunk, empty columns, columns without a name."""
    lines = [
        f"{i}.5,,{'true' if i % 3 else ' FALSE'},{i if i > 30 else 'NA'}" for i in range(ROWS)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["a,,yes,", *lines]) + "\n\n\r\n")
    at_once, parts = table_and_chunks(tmp_path / "t.csv", ["a", "yes", "column_3"])
    assert_same(at_once, parts)
    assert at_once.values[:, 1].tolist() == [float(i % 3 != 0) for i in range(ROWS)]


def test_empty_lines_are_rows_in_the_middle_and_nothing_at_the_end(tmp_path):
    """As polars reads them, also where a chunk ends with one."""
    lines = ["" if i in {9, 10, 25} else str(i) for i in range(31)]
    (tmp_path / "t.csv").write_text("\n".join(["long_name", *lines]) + "\n" * 40)
    at_once, parts = table_and_chunks(tmp_path / "t.csv", ["long_name"])
    assert len(at_once) == 31
    assert_same(at_once, parts)


def lines_with(changes):
    """Returns text of a table of 57 rows, some lines of which are others."""
    return "\n".join(["a,b,c", *(changes.get(i, f"{i},{i}.5,{i}") for i in range(1, 58))]) + "\n"


BAD = {
    "stray": lines_with({33: "33,oops,3", 41: "x,1,1"}),
    "ragged": lines_with({36: "1,2,3,4"}),
    "short": lines_with({44: "1,2"}),
    "bytes": lines_with({29: "1,2,3"}).encode().replace(b"1,2,3", b"1,\xff,3"),
    "zero byte": lines_with({29: "1,2\0,3"}),
    "quotes in the middle": lines_with({12: '1,2",3', 14: '1,2",3'}),
    "open quote": lines_with({12: '1,"2,3'}),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_text_is_said_in_the_same_words(tmp_path, name):
    """With the number of the row, or of the line, in the whole file."""
    path, content = tmp_path / "t.csv", BAD[name]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(KappaflowError) as at_once:
        load_table(str(path), columns=["a", "b"], context=["c"])
    with pytest.raises(KappaflowError) as in_chunks:
        settled(path, ["a", "b"], ["c"])
    assert str(in_chunks.value) == str(at_once.value)
    assert type(in_chunks.value) is type(at_once.value)


def test_what_cannot_be_read_in_chunks_is_read_at_once(tmp_path, monkeypatch):
    """Few rows, streams, names with signs of patterns, shipped tables."""
    table = frame()
    table.head(10).write_parquet(tmp_path / "few.parquet")
    table.head(10).write_csv(tmp_path / "few.csv")
    table.write_ipc_stream(tmp_path / "stream.arrow")
    np.savez(tmp_path / "t.npz", a=np.zeros(ROWS), b=np.zeros(ROWS))
    table.write_parquet(tmp_path / "t[1].parquet")
    (tmp_path / "old.csv").write_text("\r".join(["a,c", *["1,2"] * ROWS]), newline="")
    paths = sorted(tmp_path.iterdir())
    table.write_parquet(tmp_path / "t1.parquet")  # of which t[1].parquet is a pattern
    for path in paths:
        assert len(settled(path, ["a"])) == 1, path.name
    monkeypatch.chdir(tmp_path)
    assert len(settled("magic", ["fDist"])) == 1


def test_a_text_file_is_converted_once(tmp_path):
    """The converted file lasts as long as the chunks, and each row is counted once."""
    (tmp_path / "t.csv").write_text(lines_with({23: "1,,1", 51: "inf,1,1"}))
    result = open_chunks(str(tmp_path / "t.csv"), scratch=tmp_path)
    assert len(list(tmp_path.glob(".t.*.tmp"))) == 1
    assert np.isnan(result.read(2).values[2, 1]) and result.read(2).rows[2] == 23
    del result
    assert sorted(tmp_path.iterdir()) == [tmp_path / "t.csv"]


def test_a_damaged_file_is_refused_as_it_is_when_read_at_once(tmp_path):
    """Pickles, cubes, a file that is cut off, UTF-16, and columns that are text or missing."""
    np.save(tmp_path / "pickle.npy", np.array([[{}]] * ROWS), allow_pickle=True)
    np.save(tmp_path / "cube.npy", np.zeros((ROWS, 3, 2)))
    for name in ("t.parquet", "t.arrow", "cut.parquet"):
        WRITERS[name.replace("cut", "t")](frame(), tmp_path / name)
    content = (tmp_path / "cut.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[: len(content) // 2])
    (tmp_path / "wide.csv").write_bytes(frame().write_csv().encode("utf-16"))
    for path in sorted(tmp_path.iterdir()):
        for columns in (["a", "d"], ["text"]):
            with pytest.raises(KappaflowError) as at_once:
                load_table(str(path), columns=columns)
            with pytest.raises(KappaflowError) as in_chunks:
                settled(path, columns)
            assert str(in_chunks.value) == str(at_once.value)


def test_the_size_of_a_chunk_is_a_multiple_of_what_is_computed_at_once(monkeypatch):
    """And never nothing; wide tables have fewer rows a chunk."""
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 262_144)
    sizes = {(10, 4096): 262_144, (10, 100_000): 200_000, (2**12, 256): 2**12, (2**30, 256): 256}
    assert {case: chunks.chunk_size(*case) for case in sizes} == sizes
