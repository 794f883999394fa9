"""Text files with comments, blanks or compression, and the options for how they are written."""

import bz2
import gzip
import io
import lzma
import zipfile

import numpy as np
import pytest
from astropy.table import Table as AstropyTable

from kappaflow.data import chunks, load_table
from kappaflow.data.chunks import open_chunks
from kappaflow.data.raw import Reading
from kappaflow.errors import ArgumentError, DataError, FileError

X = np.array([[1.5, 2.0], [2.5, -3.0], [3.25, 1e-4]])


def zipped(files):
    """Returns a zip archive of some files by name."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


PACKERS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zip": lambda text: zipped({"t.tsv": text, "__MACOSX/._t.tsv": b""}),
}


@pytest.mark.parametrize("name", ["t.dat", "t.txt", "t.dat.gz", "t.txt.xz"])
@pytest.mark.parametrize(
    "options", [{}, {"delimiter": ","}, {"delimiter": "\t"}, {"fmt": "%12.4f"}]
)
@pytest.mark.parametrize("header", ["mass spin", "made by hand\nmass, spin"])
def test_what_numpy_writes_is_read_with_its_header(tmp_path, name, options, header):
    """In any separator, with blanks around numbers, also compressed."""
    np.savetxt(tmp_path / name, X, header=header, **options)
    table = load_table(tmp_path / name)
    assert table.columns == ("mass", "spin") and table.notes == ()
    np.testing.assert_array_equal(table.values, X)
    assert table.lines is not None
    first = 2 + header.count("\n")
    assert table.lines.tolist() == [first, first + 1, first + 2]


def test_a_text_without_header_gets_names_and_a_note(tmp_path):
    """Also below a comment with another number of words; a CSV without a header is refused."""
    np.savetxt(tmp_path / "t.dat", X)
    np.savetxt(tmp_path / "u.dat", X, header="seed 1 of 3", comments="% ")
    for name, line in (("t.dat", 1), ("u.dat", 2)):
        table = load_table(tmp_path / name)
        assert table.columns == ("x0", "x1") and table.lines.tolist()[0] == line
        assert "has no header: its columns are called 'x0', 'x1'" in table.notes[0]
    np.savetxt(tmp_path / "t.csv", X, delimiter=",")
    with pytest.raises(DataError, match="holds numbers"):
        load_table(tmp_path / "t.csv")


@pytest.mark.parametrize("options", [{}, {"delimiter": ","}])
def test_a_table_of_astropy_is_read_with_its_header(tmp_path, options):
    """The line after the comments is the header, and quoted texts may hold blanks."""
    names = ["NGC 1", "an M 31", "x"]
    AstropyTable({"mass": X[:, 0], "name": names}).write(tmp_path / "t.ecsv", **options)
    table = load_table(tmp_path / "t.ecsv", where="name=an M 31")
    assert table.columns == ("mass",) and table.values.tolist() == [[2.5]]


def test_a_row_that_does_not_fit_is_named_by_its_line_in_the_file(tmp_path):
    """Comments count as lines, in a text of blanks and in a CSV."""
    path = tmp_path / "t.dat"
    path.write_text("# a b\n1 2\n  3   4\n5\n")
    with pytest.raises(FileError, match="line 4 of .* has 1 field where the header has 2"):
        load_table(path)
    path.write_text("# a\n\n# b c d\n1 2\n3 n.a.\n4 5\n6 7\n")
    with pytest.raises(DataError, match="'x1' .* 'n.a.' at line 5"):
        load_table(path)
    path = tmp_path / "t.csv"
    path.write_text("# units, and more\na,b\n1,2\n3,4,5\n")
    with pytest.raises(FileError, match="line 4 of .* has 3 fields where the header has 2"):
        load_table(path, comment="#")
    path.write_text("# units\na,b\n1,2\n")
    with pytest.raises(FileError, match="if lines with # are comments, name it .comment='#'."):
        load_table(path)
    path.write_text("# only\n")
    with pytest.raises(FileError, match="holds comments only"):
        load_table(path, comment="#")


def test_separator_and_comment_can_be_named(tmp_path):
    """One sign each; a blank stands for any run of blanks."""
    path = tmp_path / "t.csv"
    path.write_text("// made by hand\na|b\n1|2,5\n3|4,5\n")
    table = load_table(path, separator="|", comment="//")
    assert table.columns == ("a", "b") and table.values.tolist() == [[1, 2.5], [3, 4.5]]
    path.write_text("a\tb\n1\t2,5\n3\t4,5\n")
    assert load_table(path, separator="\\t").values.tolist() == [[1, 2.5], [3, 4.5]]
    path.write_text("a  b\n1   2,5\n 3 4,5\n")
    assert load_table(path, separator=" ").values.tolist() == [[1, 2.5], [3, 4.5]]
    path.with_suffix(".dat").write_text("1,5 2,5 3,5\n2,5 3,5 4,5\n")
    assert load_table(path.with_suffix(".dat")).values.tolist() == [
        [1.5, 2.5, 3.5],
        [2.5, 3.5, 4.5],
    ]
    with pytest.raises(
        ArgumentError, match="'separator' should be one sign, such as ';', got '::'"
    ):
        load_table(path, separator="::")
    with pytest.raises(ArgumentError, match="'comment' should be a sign, such as '#', got ''"):
        load_table(path, comment="")


def test_a_file_on_disk_skips_its_comments(tmp_path, monkeypatch):
    """And names the same lines as the table in memory; UTF-16 and blanks are read into memory."""
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 20)
    rows = "".join(f"{i / 7},{i * i}\n" for i in range(100))
    texts = {
        "t.csv": ("# about\n# a,b\n" + rows, Reading(comment="#")),
        "u.csv": ("# about\na,b\n" + rows, Reading(comment="#")),
        "v.csv": ("a  b\n" + rows.replace(",", "  "), Reading(separator=" ")),
    }
    for name, (text, reading) in texts.items():
        (tmp_path / name).write_text(text)
        parts = open_chunks(str(tmp_path / name), reading, scratch=tmp_path)
        assert len(parts) == (1 if name == "v.csv" else 5)
        table = load_table(tmp_path / name, comment=reading.comment, separator=reading.separator)
        for number in range(len(parts)):
            part = parts.read(number)
            same = slice(number * parts.size, number * parts.size + len(part))
            np.testing.assert_array_equal(part.values, table.values[same])
            np.testing.assert_array_equal(part.lines, table.lines[same])
    (tmp_path / "w.csv").write_text("a,b\n" + rows, encoding="utf-16")
    assert open_chunks(str(tmp_path / "w.csv")).read(0).columns == ("a", "b")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_with_a_byte_order_mark_is_read(tmp_path, encoding):
    """As Excel exports it."""
    (tmp_path / "t.csv").write_bytes("\ufeffmå,b\r\n1.5,2\r\n".encode(encoding))
    assert load_table(tmp_path / "t.csv").columns == ("må", "b")
    (tmp_path / "t.csv").write_bytes("\ufeffa,b\n1.5,2\n".encode(encoding)[:-1])
    with pytest.raises(FileError, match="UTF-16 text that is cut off"):
        load_table(tmp_path / "t.csv")


@pytest.mark.parametrize("kind", PACKERS)
def test_compressed_text_is_read_or_refused_if_it_is_cut_off(tmp_path, kind):
    """A tsv keeps its separator."""
    text = b"a\tb\n" + b"".join(b"%d\t%d\n" % (i, i * i % 17) for i in range(300))
    packed = PACKERS[kind](text)
    path = tmp_path / f"t.tsv.{kind}"
    path.write_bytes(packed)
    assert load_table(path, columns=["a", "b"]).values.shape == (300, 2)
    for length in (10, len(packed) // 2, len(packed) - 3):
        path.write_bytes(packed[:length])
        with pytest.raises(FileError, match=f"is not a complete .{kind} file"):
            load_table(path)


def test_a_zip_of_several_files_needs_the_name_of_one(tmp_path):
    """It follows the path; a file of one table has no names."""
    path = tmp_path / "t.csv.zip"
    path.write_bytes(zipped({"a.csv": b"a\n1.5\n", "b.csv": b"b\n2.5\n"}))
    with pytest.raises(FileError, match="holds 2 files, 'a.csv', 'b.csv': name one .*zip::a.csv'"):
        load_table(path)
    assert load_table(f"{path}::b.csv").columns == ("b",)
    with pytest.raises(FileError, match="names none of the files 'a.csv', 'b.csv'"):
        load_table(f"{path}::c.csv")
    (tmp_path / "t.csv").write_text("a\n1.5\n")
    with pytest.raises(FileError, match="names a table, and a .csv file holds only one"):
        load_table(f"{tmp_path / 't.csv'}::a")
    (tmp_path / "t.csv.zst").write_bytes(b"x")
    with pytest.raises(FileError, match="decompress it first, by zstd -d t.csv.zst"):
        load_table(tmp_path / "t.csv.zst")
