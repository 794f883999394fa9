"""Files: what each kind yields, and the one sentence for each way a file can fail."""

import gzip
import io
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from kappaflow.data import load_table, path_of
from kappaflow.errors import DataError, FileError, KappaflowError

Write = Callable[[str, str | bytes], Path]

CSV = "a,b,c\n1,2.5,x\n2,3.5,y\n3,4,x\n"
FRAME = pl.DataFrame({"a": [1, 2, 3], "b": [2.5, 3.5, 4.0], "c": ["x", "y", "x"]})
BINARY = Path(sys.executable).resolve().read_bytes()[:20_000]
SUFFIXES = ("csv", "csv.gz", "tsv", "dat", "parquet", "arrow", "feather", "ipc", "npy", "npz")


def one_sentence(error: pytest.ExceptionInfo[KappaflowError]) -> str:
    """Returns the message after checking that it is one line that ends in a full stop."""
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def write_every_kind(folder: Path) -> list[Path]:
    """Writes the same three rows in every kind of file that holds text columns."""
    (folder / "t.csv").write_text(CSV)
    (folder / "T.CSV").write_text(CSV.replace("\n", "\r\n"))
    (folder / "bom.csv").write_bytes(b"\xef\xbb\xbf" + CSV.encode())
    (folder / "mac.csv").write_text(CSV.replace("\n", "\r"), newline="")
    (folder / "semicolon.csv").write_text(CSV.replace(",", ";"))
    (folder / "t.tsv").write_text(CSV.replace(",", "\t"))
    (folder / "t.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    (folder / "t.tsv.gz").write_bytes(gzip.compress(CSV.replace(",", "\t").encode()))
    FRAME.write_parquet(folder / "t.parquet")
    FRAME.write_ipc(folder / "t.arrow")
    FRAME.write_ipc(folder / "t.feather")
    FRAME.write_ipc_stream(folder / "t.ipc")
    return sorted(folder.iterdir())


def test_every_kind_of_file_holds_the_same_table(tmp_path: Path) -> None:
    """CSV of all line ends and separators, parquet and Arrow agree to the last bit."""
    tables = [load_table(path) for path in write_every_kind(tmp_path)]
    assert len(tables) == 12
    for table in tables:
        assert table.columns == ("a", "b")
        assert table.left_out == ("c",)
        assert table.integer_columns == ("a",)
        assert table.rows.tolist() == [1, 2, 3]
        assert table.values.dtype == np.float64
    assert len({table.fingerprint() for table in tables}) == 1
    assert tables[0].source == str(sorted(tmp_path.iterdir())[0])


def test_arrays_in_files_name_their_columns(tmp_path: Path) -> None:
    """x0, x1 for one array; keys, numbered where the array has two axes, for several."""
    np.save(tmp_path / "two.npy", np.arange(6.0).reshape(3, 2))
    np.save(tmp_path / "one.npy", np.arange(3.0))
    np.savez(tmp_path / "single.npz", np.eye(3))
    np.savez_compressed(tmp_path / "several.npz", x=np.zeros((3, 2)), y=np.arange(3))
    fields = np.array([(1.5, 2), (2.5, 3)], dtype=[("height", "f4"), ("count", "i8")])
    np.save(tmp_path / "fields.npy", fields)
    columns = {name: load_table(tmp_path / name).columns for name in os.listdir(tmp_path)}
    assert columns == {
        "two.npy": ("x0", "x1"),
        "one.npy": ("x0",),
        "single.npz": ("x0", "x1", "x2"),
        "several.npz": ("x0", "x1", "y"),
        "fields.npy": ("height", "count"),
    }


def test_a_dash_reads_csv_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipe is read, and an empty pipe is one sentence."""
    for text in (b"a,b\n1.5,2\n", b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        if text:
            assert load_table("-").values.tolist() == [[1.5, 2.0]]
        else:
            with pytest.raises(FileError, match=r"^standard input is empty"):
                load_table("-")


def test_a_file_on_disk_wins_over_a_shipped_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shipped name is a name only where no file of that name lies; a folder is no file."""
    monkeypatch.chdir(tmp_path)
    assert load_table("magic").fingerprint() == load_table(path_of("magic")).fingerprint()
    (tmp_path / "magic").mkdir()
    assert load_table("magic").source == "magic"
    (tmp_path / "magic").rmdir()
    (tmp_path / "magic").write_text("a,b\n1,2\n")
    with pytest.raises(FileError, match="no suffix that names a table"):
        load_table("magic")


def test_a_missing_file_names_its_nearest_neighbor(write: Write, tmp_path: Path) -> None:
    """A mistyped name is answered with the file, or the data set, that was meant."""
    write("measured.csv", CSV)
    with pytest.raises(
        FileError, match=r"no file .*mesured.csv.*did you mean 'measured.csv'"
    ) as error:
        load_table(tmp_path / "mesured.csv")
    one_sentence(error)
    with pytest.raises(FileError, match="did you mean 'magic'"):
        load_table("majic")
    with pytest.raises(FileError, match=r"no file .*data set \(magic, eight_"):
        load_table(tmp_path / "no folder" / "x.csv")


@pytest.mark.parametrize(
    "name", ["t.parquet", "t.arrow", "t.feather", "t.csv.gz", "t.npy", "t.npz"]
)
def test_a_file_cut_off_anywhere_is_damaged(tmp_path: Path, name: str) -> None:
    """A file of any kind without its tail is refused, wherever the cut is."""
    write_every_kind(tmp_path)
    np.save(tmp_path / "t.npy", np.arange(600.0).reshape(300, 2))
    np.savez(tmp_path / "t.npz", a=np.arange(300.0), b=np.arange(300.0))
    path = tmp_path / name
    content = path.read_bytes()
    for length in (
        3,
        10,
        len(content) // 3,
        len(content) // 2,
        len(content) - 20,
        len(content) - 1,
    ):
        path.write_bytes(content[:length])
        with pytest.raises(FileError) as error:
            load_table(path)
        one_sentence(error)


def test_bytes_overwritten_inside_a_file_are_damage(tmp_path: Path) -> None:
    """A file whose ends are right and whose middle is not."""
    FRAME.write_parquet(tmp_path / "t.parquet")
    np.savez(tmp_path / "t.npz", a=np.arange(300.0), b=np.arange(300.0))
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        half = len(content) // 2
        path.write_bytes(content[:half] + b"\xff" * 40 + content[half + 40 :])
        with pytest.raises(FileError, match="damaged"):
            load_table(path)


class Trap:
    """An object whose unpickling writes a file."""

    def __init__(self, path: Path) -> None:
        """Remembers the file to write."""
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        """Returns what a careless reader would call."""
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["t.npy", "t.npz", "pair.npz", "raw.npy", "raw.npz", "raw.csv"])
def test_a_pickle_is_never_read(tmp_path: Path, name: str) -> None:
    """Objects in numpy files and bare pickles are refused without running them."""
    trap = np.empty((2, 1), dtype=object)
    trap[:] = Trap(tmp_path / "sprung")
    path = tmp_path / name
    if name == "t.npy":
        np.save(path, trap, allow_pickle=True)
    elif name.startswith("raw"):
        path.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    else:
        arrays = {"x": trap} if name == "t.npz" else {"x": trap, "y": np.ones(2)}
        np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]
    with pytest.raises(FileError) as error:
        load_table(path)
    one_sentence(error)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\): reshape it to two axes"),
        (np.float64(3.0), r"shape \(\): reshape"),
        (np.zeros((2, 2), dtype=complex), "complex numbers, not real numbers"),
        (np.zeros((0, 3)), "has no rows"),
        (np.zeros((3, 0)), "has no columns"),
        (np.array([["a", "b"]]), "no numeric column"),
    ],
)
def test_an_array_that_is_no_table_of_numbers_is_refused(
    tmp_path: Path, array: np.ndarray, words: str
) -> None:
    """Too many axes, none, no real numbers, no rows, no columns, text only."""
    np.save(tmp_path / "t.npy", array)
    with pytest.raises(DataError, match=words) as error:
        load_table(tmp_path / "t.npy")
    assert "t.npy" in one_sentence(error)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_says_so(write: Write) -> None:
    """The operating system's refusal is passed on as text."""
    path = write("t.csv", CSV)
    path.chmod(0)
    with pytest.raises(FileError, match="may not be read"):
        load_table(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_another_kind_is_no_table(write: Write, suffix: str) -> None:
    """Nothing, an executable, noise and a pickle under every suffix end in one sentence."""
    contents = BINARY, np.random.default_rng(0).bytes(3000), pickle.dumps([1.5, "x"] * 50)
    for content in contents:
        with pytest.raises((FileError, DataError)) as error:
            load_table(write(f"t.{suffix}", content))
        assert f"t.{suffix}'" in one_sentence(error)
    with pytest.raises(FileError, match=r"is empty \(0 bytes\)"):
        load_table(write(f"t.{suffix}", b""))


def test_what_has_no_suffix_of_a_table_is_refused(write: Write, tmp_path: Path) -> None:
    """The kind of a file is never guessed from its content; a folder is reported as one."""
    words = r"use one of .csv, .tsv, .*\.npz.*, text also with .gz, .bz2, .xz, .zip after it"
    for name in ("table.xls", "table", "table.gz", "table.pkl", "table.parquet.bz2"):
        with pytest.raises(FileError, match=words) as error:
            load_table(write(name, CSV))
        one_sentence(error)
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(FileError, match="is a folder: give a file in it"):
        load_table(tmp_path / "x.csv")
