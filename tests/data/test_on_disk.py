"""A table on disk is read in chunks, as `load_table` reads it at once, and divided into parts."""

import numpy as np
import polars as pl
import pytest

from kappaflow.data import TableOnDisk, chunks, load_table, on_disk
from kappaflow.data.chunks import open_chunks
from kappaflow.data.duplicates import row_hashes
from kappaflow.data.on_disk import (
    MOST_HELD_OUT,
    REST,
    TRAIN,
    SplitRequest,
    divide,
    read_split,
    split_on_disk,
)
from kappaflow.data.raw import Reading
from kappaflow.errors import DataError, KappaflowError

ROWS = 57


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Chunks of ten rows."""
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 10)


def settled(path, columns, context=()):
    """Returns the chunks of a table whose columns are known."""
    return open_chunks(str(path), Reading(tuple(columns), context=tuple(context)))


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


def frame(rows=ROWS):
    """A table with numbers of several types, truth values and text."""
    x = np.random.default_rng(0).normal(size=(rows, 3))
    return pl.DataFrame({
        "a": x[:, 0],
        "text": [f'say "{i}",\nplease' if i % 7 == 0 else "plain" for i in range(rows)],
        "b": x[:, 1].astype(np.float32),
        "count": np.arange(rows) - 20,
        "truth": [i > 25 for i in range(rows)],
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
    """Few rows, streams, shipped tables; a name with signs of a pattern is the name of a file."""
    table = frame()
    table.head(10).write_parquet(tmp_path / "few.parquet")
    table.head(10).write_csv(tmp_path / "few.csv")
    table.write_ipc_stream(tmp_path / "stream.arrow")
    np.savez(tmp_path / "t.npz", a=np.zeros(ROWS), b=np.zeros(ROWS))
    (tmp_path / "old.csv").write_text("\r".join(["a,c", *["1,2"] * ROWS]), newline="")
    for path in sorted(tmp_path.iterdir()):
        assert len(settled(path, ["a"])) == 1, path.name
    monkeypatch.chdir(tmp_path)
    assert len(settled("magic", ["fDist"])) == 1
    table.write_parquet("t[1].parquet")
    table.head(5).write_parquet("t1.parquet")
    assert settled("t[1].parquet", ["a"]).rows == ROWS


def test_a_text_file_is_converted_once(tmp_path):
    """The converted file lasts as long as the chunks, and each row is counted once."""
    (tmp_path / "t.csv").write_text(lines_with({23: "1,,1", 51: "inf,1,1"}))
    result = open_chunks(str(tmp_path / "t.csv"), scratch=tmp_path)
    assert len(list(tmp_path.glob(".t.*.tmp"))) == 1
    assert np.isnan(result.read(2).values[2, 1]) and result.read(2).rows[2] == 23
    del result
    assert sorted(tmp_path.iterdir()) == [tmp_path / "t.csv"]


def test_a_damaged_file_is_refused_as_it_is_when_read_at_once(tmp_path):
    """Pickles, cubes, a file that is cut off, UTF-32, and columns that are text or missing."""
    np.save(tmp_path / "pickle.npy", np.array([[{}]] * ROWS), allow_pickle=True)
    np.save(tmp_path / "cube.npy", np.zeros((ROWS, 3, 2)))
    for name in ("t.parquet", "t.arrow", "cut.parquet"):
        WRITERS[name.replace("cut", "t")](frame(), tmp_path / name)
    content = (tmp_path / "cut.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[: len(content) // 2])
    (tmp_path / "wide.csv").write_bytes(frame().write_csv().encode("utf-32"))
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


MANY = 157
FRACTIONS = (0.8, 0.1, 0.1)


def divided(requested, folder):
    """Returns what is divided, whatever was there before."""
    result = requested.table.chunks()
    return split_on_disk(result, requested, folder, lambda more: None)


def request_for(path, *, fractions=FRACTIONS, seed=0, dtype="float64", **table):
    """Returns what to make of a file."""
    return SplitRequest(TableOnDisk(path, **table), fractions, seed, dtype)


@pytest.mark.parametrize("rows", [7, 10, MANY])
@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.csv", "t.tsv", "t.npy"])
def test_each_row_of_the_table_is_for_one_thing(tmp_path, name, rows):
    """With its numbers and its row number; the file has the others in their order."""
    context = "x2" if name == "t.npy" else "c"
    if name == "t.npy":
        np.save(tmp_path / name, frame(rows).select("a", "b", "c").to_numpy())
    else:
        WRITERS[name](frame(rows), tmp_path / name)
    result = divided(request_for(tmp_path / name, context=context), tmp_path / "rows")
    table = load_table(str(tmp_path / name), context=context)
    parts = [*result.train.blocks(), *result.held_out]
    numbers = np.concatenate([part.rows for part in parts])
    assert sorted(numbers) == list(range(1, rows + 1)) and result.rows == rows
    for part in (*parts, result.train.sample):
        assert part.columns == table.columns and part.left_out == table.left_out
        assert part.values.tobytes() == table.values[part.rows - 1].tobytes()
        assert part.context.tobytes() == table.context[part.rows - 1].tobytes()
    trained = np.concatenate([part.rows for part in result.train.blocks()])
    assert (np.diff(trained) > 0).all() and set(result.train.sample.rows) <= set(trained)
    assert len(set(result.train.sample.rows)) == min(10, len(trained))
    some = np.array([len(trained) - 1, 0, 2])
    both = np.hstack([table.values, table.context])
    assert result.train.at(some).tobytes() == both[trained[some] - 1].tobytes()


def test_the_draw_depends_on_rows_and_seed_alone(tmp_path, monkeypatch):
    """Not on the kind of file, nor on its chunks; another seed draws others."""
    WRITERS["t.csv"](frame(MANY), tmp_path / "t.csv")
    WRITERS["t.parquet"](frame(MANY), tmp_path / "t.parquet")
    first = divided(request_for(tmp_path / "t.csv", exclude="b"), tmp_path / "one")
    other = divided(request_for(tmp_path / "t.parquet", exclude="b"), None)
    assert first.train.fingerprint() == other.train.fingerprint()
    assert [part.fingerprint() for part in first.held_out] == [
        part.fingerprint() for part in other.held_out
    ]
    seeded = divided(request_for(tmp_path / "t.csv", exclude="b", seed=1), None)
    assert seeded.train.fingerprint() != first.train.fingerprint()
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 1000)
    table = divided(request_for(tmp_path / "t.parquet", fractions=(0.9, 0.1)), None)
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 50)
    some = divided(request_for(tmp_path / "t.parquet", fractions=(0.9, 0.1)), None)
    assert table.held_out[0].fingerprint() == some.held_out[0].fingerprint()


def test_parts_held_out_are_no_larger_than_memory_should_hold(monkeypatch):
    """However many rows there are; what is over is trained on."""
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 262_144)
    monkeypatch.setattr(on_disk, "MOST_HELD_OUT", 1000)
    hashes = row_hashes(np.random.default_rng(0).normal(size=(600_000, 1)))
    result = divide(hashes, 8, FRACTIONS, seed=0)
    assert [len(part) for part in result.held_out] == [1000] * 2
    assert len(result.sample) == 262_144 and MOST_HELD_OUT == 100_000
    assert len(np.unique(result.kept)) == len(result.kept)
    assert [len(part) for part in divide(hashes, 2**20, FRACTIONS, seed=0).held_out] == [16, 16]
    assert divide(hashes[:30], 2, (), seed=0).held_out == ()


def test_the_rows_of_a_part_are_random_and_in_random_order():
    """Whatever the order in the file: their numbers and their order pass for uniform."""
    numbers = row_hashes(np.sort(np.random.default_rng(0).normal(size=(20_000, 1)), axis=0))
    for part in divide(numbers, 1, FRACTIONS, seed=0).held_out:
        assert abs(part.mean() - 10_000) < 4 * 5774 / np.sqrt(len(part))
        assert abs(np.corrcoef(part, np.arange(len(part)))[0, 1]) < 4 / np.sqrt(len(part))


def test_copies_of_a_row_are_in_one_part(tmp_path):
    """Of a file in chunks that copies are scattered over."""
    x = np.random.default_rng(0).normal(size=(400, 2)).round(1)
    pl.DataFrame(x, schema=["a", "b"], orient="row").write_parquet(tmp_path / "t.parquet")
    result = divided(request_for(tmp_path / "t.parquet"), tmp_path / "rows")
    blocks = list(result.train.blocks())
    rows = np.concatenate([block.rows for block in blocks])
    trained = np.concatenate([block.values for block in blocks])
    np.testing.assert_array_equal(trained, x[rows - 1])
    values = [trained, *(part.values for part in result.held_out)]
    different = len(np.unique(x, axis=0))
    assert sum(len(np.unique(part, axis=0)) for part in values) == different < 370
    assert sum(map(len, values)) == len(x) and result.repeats == len(x) - different
    assert all(abs(len(part) - 10) <= 4 for part in result.held_out)  # a chunk has 10


def test_rows_with_more_copies_than_a_part_has_rows_are_trained_on(monkeypatch):
    """However many they are, so that a part stays small; too few different rows are refused."""
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 262_144)
    x = np.random.default_rng(0).normal(size=(1000, 2))
    x[100:] = x[0]
    for seed in range(5):
        result = divide(row_hashes(x), 2, (0.9, 0.05, 0.05), seed)
        assert [len(part) for part in result.held_out] == [50, 49]
        assert 0 not in result.not_trained_on
    x[2:] = x[0]
    with pytest.raises(DataError, match="equal rows stay in one part"):
        divide(row_hashes(x), 2, FRACTIONS, 0)


def test_rows_are_used_again_where_they_were_made_of_the_same(tmp_path):
    """And not if the file has changed, something else is asked for, or one is damaged."""
    path, folder = tmp_path / "t.parquet", tmp_path / "rows"
    frame(MANY).write_parquet(path)
    requested = request_for(path)
    assert read_split(folder, requested) is None
    written, again = divided(requested, folder), read_split(folder, requested)
    assert again.train.fingerprint() == written.train.fingerprint()
    assert again.train.sample.fingerprint() == written.train.sample.fingerprint()
    assert [part.rows.tolist() for part in again.held_out] == [
        part.rows.tolist() for part in written.held_out
    ]
    for other in ({"seed": 1}, {"dtype": "float32"}, {"exclude": "a"}, {"fractions": (0.9, 0.1)}):
        assert read_split(folder, request_for(path, **other)) is None, other
    for name in (TRAIN, REST):
        content = (folder / name).read_bytes()
        for damaged in (content[:40], b"", None):
            if damaged is None:
                (folder / name).unlink()
            else:
                (folder / name).write_bytes(damaged)
            assert read_split(folder, requested) is None, (name, damaged)
        (folder / name).write_bytes(content)
    frame(MANY + 1).write_parquet(path)
    assert read_split(folder, requested) is None


def test_a_value_that_is_missing_is_said_with_its_row(tmp_path):
    """Of a column, or of the context; nothing is left of the rows."""
    for name, row, value in (("b", 123, None), ("c", 5, float("inf"))):
        values = frame(MANY)[name].to_list()
        values[row - 1] = value
        frame(MANY).with_columns(pl.Series(name, values)).write_parquet(tmp_path / "t.parquet")
        with pytest.raises(DataError, match=f"column '{name}' of .*, row {row} has (NaN|inf)"):
            divided(request_for(tmp_path / "t.parquet", context="c"), tmp_path / "rows")
        assert list((tmp_path / "rows").iterdir()) == []


def test_a_table_that_changes_while_it_is_read_is_refused(tmp_path):
    """Rows of two tables would be one."""
    path = tmp_path / "t.csv"
    frame(MANY).write_csv(path)
    requested = request_for(path)
    result = requested.table.chunks()
    reported = []

    def tell(more):
        reported.append(more)
        if len(reported) == 20:
            path.touch()

    with pytest.raises(DataError, match="has changed while it was read"):
        split_on_disk(result, requested, tmp_path / "rows", tell)
    assert list((tmp_path / "rows").iterdir()) == []


REFUSED = {
    "t.npz": "should be given for a file that can be read a chunk at a time",
    "magic": "should be given for a file that can be read a chunk at a time",
    "none.parquet": "there is no file",
    "empty.csv": "is empty",
    "cut.parquet": "is damaged or is not a .parquet file",
    "text.csv": "has no numeric column",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_table_on_disk_is_refused_in_a_sentence(tmp_path, monkeypatch, name):
    """In the words that `load_table` has for it, where the file is the trouble."""
    monkeypatch.chdir(tmp_path)
    np.savez("t.npz", np.zeros((MANY, 3)))
    frame(MANY).write_parquet("cut.parquet")
    content = (tmp_path / "cut.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.csv").touch()
    (tmp_path / "text.csv").write_text("word\n" + "yes, it is\n".replace(",", "") * MANY)
    with pytest.raises(KappaflowError, match=REFUSED[name]):
        divided(request_for(name), None)
