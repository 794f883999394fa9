"""Tables of strangers: what is small on disk is neither large in memory nor long in time."""

import gzip
import lzma
import struct
import zipfile
from contextlib import suppress

import numpy as np
import polars as pl
import pytest

from kappaflow.data import limits, load_matrix, load_table
from kappaflow.errors import FileError, KappaflowError
from kappaflow.images import load_images

ROOM = 2**22


@pytest.fixture
def narrow(monkeypatch):
    """A machine of 4 MiB, so that bombs can be small."""
    monkeypatch.setattr(limits, "memory_bytes", lambda: ROOM)


def bomb_npz(path):
    np.savez_compressed(path, x=np.zeros(ROOM))


def bomb_gz(path):
    path.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * ROOM))


def bomb_zip(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t.csv", b"a,b\n" + b"1,2\n" * ROOM)


def bomb_xz(path):
    path.write_bytes(lzma.compress(b"a,b\n" + b"1,2\n" * ROOM))


def bomb_parquet(path):
    pl.DataFrame({"a": np.zeros(ROOM)}).write_parquet(path)


def bomb_arrow(path):
    pl.DataFrame({"a": np.zeros(ROOM)}).write_ipc(path, compression="zstd")


@pytest.mark.parametrize(
    ("name", "write"),
    [("t.npz", bomb_npz), ("t.csv.gz", bomb_gz), ("t.parquet", bomb_parquet)]
    + [("t.arrow", bomb_arrow), ("t.csv.zip", bomb_zip), ("t.dat.xz", bomb_xz)],
)
def test_a_bomb_is_refused_by_the_size_that_it_unpacks_to(name, write, narrow, tmp_path):
    """A file of some KB that would need more than there is."""
    write(tmp_path / name)
    assert (tmp_path / name).stat().st_size < ROOM // 16
    with pytest.raises(FileError, match="would unpack to .* more than the .* room for"):
        load_table(tmp_path / name)


def test_a_gzipped_bomb_of_images_is_refused(narrow, tmp_path):
    """Its header promises what it holds."""
    header = struct.pack(">IIII", 0x803, ROOM, 2, 2)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(header + bytes(4 * ROOM)))
    with pytest.raises(FileError, match="would unpack to"):
        load_images(path)


def test_an_archive_that_lies_about_its_sizes_is_refused(tmp_path):
    """The directory says ten bytes of what has thousands."""
    path = tmp_path / "t.npz"
    np.savez_compressed(path, x=np.arange(1000.0))
    content, size = path.read_bytes(), zipfile.ZipFile(path).infolist()[0].file_size
    printed = struct.pack("<I", size)
    assert content.count(printed) >= 1
    path.write_bytes(content.replace(printed, struct.pack("<I", 10)))
    with pytest.raises(FileError, match="is damaged"):
        load_table(path)


def test_names_in_an_archive_are_names_of_columns(tmp_path):
    """Nothing is unpacked to a place that the archive names."""
    np.savez(tmp_path / "in.npz", x=np.arange(3.0))
    with zipfile.ZipFile(tmp_path / "in.npz") as archive:
        content = archive.read("x.npy")
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        archive.writestr("../../escaped.npy", content)
        archive.writestr("/etc/escaped.npy", content)
    assert load_table(tmp_path / "t.npz").columns == ("../../escaped", "/etc/escaped")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["in.npz", "t.npz"]


def npy(shape, descr="<f8"):
    """Returns an npy file of a shape, and 64 bytes of numbers."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    padded = header + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + bytes(64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy((10**12,)), "promises an array of shape"),
        (npy((10**12,), "|S0"), "promises an array of shape"),
        (npy((2**40, 2**40)), "promises an array of shape"),
        (npy((0, 10**9)), "has 1,000,000,000 columns"),
        (npy((8,), "|O"), "holds pickled objects"),
        (npy((-8,)), "is damaged"),
        (npy((-2, -4)), "is damaged"),
        (npy("eval('1')"), "is damaged"),
        (npy("[" * 5000), "is damaged"),
    ],
)
def test_an_array_whose_header_lies_is_refused(content, message, tmp_path):
    """Before anything of the size that it promises is made."""
    (tmp_path / "t.npy").write_bytes(content)
    with pytest.raises(FileError, match=message):
        load_table(tmp_path / "t.npy")


def test_a_name_in_an_archive_that_is_no_text_is_refused(tmp_path):
    """The list of names of an npz is read before its arrays are."""
    path = tmp_path / "t.npz"
    np.savez(path, **{"é": np.eye(2)})
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xfe\xfe"))
    for load in (load_matrix, load_table):
        with pytest.raises(FileError, match="is damaged"):
            load(str(path))


@pytest.mark.parametrize("line", ["1" + " " * ROOM + "2", '"' * ROOM, "# " * ROOM, "#\n" * ROOM])
def test_blanks_quotes_and_comments_take_time_in_proportion(line, tmp_path):
    """A long run of any of them is a table or is refused, at once."""
    (tmp_path / "t.dat").write_text(f"{line}\n1 2\n")
    with suppress(KappaflowError):
        assert load_table(tmp_path / "t.dat").values.tolist()[-1] == [1, 2]


def test_very_many_columns_are_refused(tmp_path):
    """Each takes its time; their number is that of the whole header."""
    text = ",".join(f"c{i}" for i in range(200_000)) + "\n" + ",".join(["1"] * 200_000)
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(FileError, match="has 200,000 columns, more than the 100,000"):
        load_table(tmp_path / "t.csv")


@pytest.mark.parametrize("name", ["t.csv", "t.dat"])
def test_a_header_may_be_long(name, tmp_path):
    """Longer than the part of a file that shows how it is written."""
    separator = "," if name == "t.csv" else "  "
    names = [f"c{i:01000d}" for i in range(1100)]
    lines = (names, ["1.5"] * 1100, ["2.5"] * 1100)
    (tmp_path / name).write_text("".join(separator.join(line) + "\n" for line in lines))
    assert load_table(tmp_path / name).columns == tuple(names)


TEXTS = {
    "nothing but separators": b"," * 1000,
    "a field of 20 MB": b"a,b\n1," + b"x" * (20 * 2**20) + b"\n",
    "one line of 20 MB": b"1" * (20 * 2**20),
    "mixed line ends": b"a,b\r1,2\n3,4\r\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_that_is_no_table_is_one_sentence(name, tmp_path):
    """Or a table, where one can be made of it; never another exception."""
    (tmp_path / "t.csv").write_bytes(TEXTS[name])
    try:
        printed = f"{len(load_table(tmp_path / 't.csv').values)} rows"
    except KappaflowError as error:
        printed = str(error)
    assert printed and "\n" not in printed
