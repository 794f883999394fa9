"""A table on disk is divided: each row is for one thing, and none is read into memory for good."""

import numpy as np
import polars as pl
import pytest

from kappaflow.data import TableOnDisk, chunks, load_table, on_disk
from kappaflow.data.on_disk import (
    MOST_HELD_OUT,
    REST,
    TRAIN,
    SplitRequest,
    divide,
    read_split,
    split_on_disk,
)
from kappaflow.data.split import row_hashes
from kappaflow.errors import DataError, KappaflowError

ROWS = 157
FRACTIONS = (0.8, 0.1, 0.1)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Chunks of ten rows."""
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 10)


def frame(rows=ROWS):
    """A table of three columns of numbers and one of text."""
    x = np.random.default_rng(0).normal(size=(rows, 3))
    return pl.DataFrame({"a": x[:, 0], "text": ["word"] * rows, "b": x[:, 1], "c": x[:, 2]})


WRITERS = {
    "t.parquet": lambda f, path: f.write_parquet(path),
    "t.arrow": lambda f, path: f.write_ipc(path),
    "t.csv": lambda f, path: f.write_csv(path),
    "t.tsv": lambda f, path: f.write_csv(path, separator="\t"),
    "t.npy": lambda f, path: np.save(path, f.drop("text").to_numpy()),
}


def divided(requested, folder):
    """Returns what is divided, whatever was there before."""
    result = requested.table.chunks()
    return split_on_disk(result, requested, folder, lambda more: None)


def request_for(path, *, fractions=FRACTIONS, seed=0, dtype="float64", **table):
    """Returns what to make of a file."""
    return SplitRequest(TableOnDisk(path, **table), fractions, seed, dtype)


@pytest.mark.parametrize("rows", [7, 10, ROWS])
@pytest.mark.parametrize("name", WRITERS)
def test_each_row_of_the_table_is_for_one_thing(tmp_path, name, rows):
    """With its numbers and its row number; the file has the others in their order."""
    WRITERS[name](frame(rows), tmp_path / name)
    context = "x2" if name == "t.npy" else "c"
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
    WRITERS["t.csv"](frame(), tmp_path / "t.csv")
    WRITERS["t.parquet"](frame(), tmp_path / "t.parquet")
    first = divided(request_for(tmp_path / "t.csv"), tmp_path / "one")
    other = divided(request_for(tmp_path / "t.parquet"), None)
    assert first.train.fingerprint() == other.train.fingerprint()
    assert [part.fingerprint() for part in first.held_out] == [
        part.fingerprint() for part in other.held_out
    ]
    seeded = divided(request_for(tmp_path / "t.csv", seed=1), None)
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
    frame().write_parquet(path)
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
    frame(ROWS + 1).write_parquet(path)
    assert read_split(folder, requested) is None


def test_a_value_that_is_missing_is_said_with_its_row(tmp_path):
    """Of a column, or of the context; nothing is left of the rows."""
    for name, row, value in (("b", 123, None), ("c", 5, float("inf"))):
        values = frame()[name].to_list()
        values[row - 1] = value
        frame().with_columns(pl.Series(name, values)).write_parquet(tmp_path / "t.parquet")
        with pytest.raises(DataError, match=f"column '{name}' of .*, row {row} has (NaN|inf)"):
            divided(request_for(tmp_path / "t.parquet", context="c"), tmp_path / "rows")
        assert list((tmp_path / "rows").iterdir()) == []


def test_a_table_that_changes_while_it_is_read_is_refused(tmp_path):
    """Rows of two tables would be one."""
    path = tmp_path / "t.csv"
    frame().write_csv(path)
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
    np.savez("t.npz", np.zeros((ROWS, 3)))
    frame().write_parquet("cut.parquet")
    content = (tmp_path / "cut.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.csv").touch()
    (tmp_path / "text.csv").write_text("word\n" + "yes, it is\n".replace(",", "") * ROWS)
    with pytest.raises(KappaflowError, match=REFUSED[name]):
        divided(request_for(name), None)
