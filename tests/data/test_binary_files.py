"""Tables in HDF5, FITS, ROOT, SQLite, DuckDB and Excel files, written by the real libraries."""

import gzip
import importlib
import sqlite3
import sys
import zipfile
from contextlib import closing

import duckdb
import h5py
import numpy as np
import polars as pl
import pytest
import uproot
from astropy.io import fits
from astropy.table import MaskedColumn
from astropy.table import Table as AstropyTable

from kappaflow.data import binary_files, limits, load_table
from kappaflow.data.chunks import open_chunks
from kappaflow.errors import DataError, FileError

ROWS = 30
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=ROWS), RNG.normal(size=ROWS).astype(np.float32)
N, CLASS = RNG.permutation(ROWS) // 2, np.array(["g", "hådron"] * (ROWS // 2))


def records(order="="):
    """Returns numbers in an order of bytes, as records."""
    kinds = [("x", f"{order}f8"), ("y", f"{order}f4"), ("n", f"{order}i4")]
    result = np.empty(ROWS, kinds)
    result["x"], result["y"], result["n"] = X, Y, N
    return result


def write_hdf5(path, name):
    with h5py.File(path, "w") as file:
        for column, values in {"x": X, "y": Y, "n": N}.items():
            file[f"{name}/{column}"] = values
        file[f"{name}/class"] = CLASS.astype(object)
        file["about"] = 1.0


def write_records(path, name):
    with h5py.File(path, "w") as file:
        kinds = [*records().dtype.descr, ("class", h5py.string_dtype()), ("pixels", "f4", (2, 2))]
        values = np.zeros(ROWS, kinds)
        for column in records().dtype.names:
            values[column] = records()[column]
        values["class"] = CLASS
        file[name] = values


def write_fits(path, name):
    columns = [
        fits.Column("x", "D", array=X),
        fits.Column("y", "E", array=Y),
        fits.Column("n", "J", array=N),
        fits.Column("class", "A6", array=np.array(["g", "hadron"] * (ROWS // 2))),
        fits.Column("hits", "PJ()", array=np.array([[1], [2, 3]] * (ROWS // 2), dtype=object)),
    ]
    image = fits.PrimaryHDU(np.zeros((3, 3)))
    table = fits.BinTableHDU.from_columns(columns, name=name)
    fits.HDUList([image, table]).writeto(path, overwrite=True)


def write_packed_fits(path, name):
    write_fits(path.with_suffix(""), name)
    path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))


def write_root(path, name):
    import awkward

    hits = awkward.Array([[1.0], [2.0, 3.0]] * (ROWS // 2))
    values = {"x": X, "y": Y, "n": N, "hits": hits}
    with uproot.recreate(path) as file:
        if "tuple" in path.name:
            file.mkrntuple(name, values)
        else:
            kinds = {column: values[column].dtype for column in "xyn"}
            file.mktree(name, {**kinds, "hits": hits.type})
            file[name].extend(values)


def rows():
    return list(zip(X.tolist(), Y.tolist(), N.tolist(), CLASS.tolist(), strict=True))


def write_sqlite(path, name):
    name = name.replace('"', '""')
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f'CREATE TABLE "{name}" (x REAL, y REAL, n INTEGER, class TEXT)')
        connection.executemany(f'INSERT INTO "{name}" VALUES (?, ?, ?, ?)', rows())
        connection.commit()


def write_duckdb(path, name):
    with closing(duckdb.connect(str(path))) as connection:
        connection.execute(f'CREATE TABLE "{name}" (x DOUBLE, y FLOAT, n INTEGER, class VARCHAR)')
        connection.executemany(f'INSERT INTO "{name}" VALUES (?, ?, ?, ?)', rows())


def write_excel(path, name):
    frame = pl.DataFrame({"x": X, "y": Y.astype(float), "n": N, "class": CLASS})
    frame.write_excel(path, name)


WRITERS = {
    "t.h5": write_hdf5,
    "t.hdf5": write_records,
    "t.fits": write_fits,
    "t.fits.gz": write_packed_fits,
    "t.root": write_root,
    "tuple.root": write_root,
    "t.sqlite": write_sqlite,
    "t.db": write_sqlite,
    "t.duckdb": write_duckdb,
    "t.xlsx": write_excel,
}


@pytest.mark.parametrize("name", WRITERS)
def test_each_kind_of_file_holds_the_same_numbers(tmp_path, name):
    """With the name of the table or without, at once or in chunks."""
    WRITERS[name](tmp_path / name, "events")
    path = str(tmp_path / name)
    for source in (path, f"{path}::{'EVENTS' if 'fits' in name else 'events'}"):
        table = load_table(source, columns=["x", "y", "n"])
        np.testing.assert_allclose(
            table.values, np.column_stack([X, Y, N]), rtol=1e-14 * name.endswith("xlsx")
        )
        assert table.source == source
        parts = open_chunks(source)
        assert len(parts) == 1 and {"x", "y"} <= {*parts.read(0).columns}
    with pytest.raises(FileError, match="none of the (tables|sheets) '(events|EVENTS)'"):
        load_table(f"{path}::other")


@pytest.mark.parametrize("name", ["t.h5", "t.fits", "t.sqlite", "t.duckdb", "t.xlsx"])
def test_texts_choose_rows(tmp_path, name):
    """They are left out of the model, as in a data frame."""
    WRITERS[name](tmp_path / name, "events")
    table = load_table(tmp_path / name, where="class=g")
    assert len(table) == ROWS // 2 and "class" in table.left_out


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("t.hdf5", "'class', 'pixels'"),
        ("t.fits", "'hits'"),
        ("t.root", "'hits'"),
        ("tuple.root", "'hits'"),
    ],
)
def test_a_note_names_columns_of_lists_and_objects(tmp_path, name, left_out):
    """Objects of HDF5, variable arrays of FITS and jagged branches of ROOT are not read."""
    WRITERS[name](tmp_path / name, "events")
    first, *_ = load_table(tmp_path / name).notes
    assert first.startswith("left out of ") and first.endswith(f"lists or objects: {left_out}")


def test_several_tables_are_listed(tmp_path):
    """None of them is guessed, and the error says how to name one."""
    write_sqlite(tmp_path / "t.db", "a")
    write_sqlite(tmp_path / "t.db", 'say "b"; DROP TABLE a')
    with pytest.raises(FileError, match="holds 2 tables, 'a', .*: name one .* as '.*t.db::a'.$"):
        load_table(tmp_path / "t.db")
    table = load_table(f'{tmp_path / "t.db"}::say "b"; DROP TABLE a', columns=["x"])
    np.testing.assert_array_equal(table.values[:, 0], X)
    assert len(load_table(f"{tmp_path / 't.db'}::a")) == ROWS
    units = [fits.BinTableHDU(records(), name=name) for name in ("A", "A", "")]
    fits.HDUList([fits.PrimaryHDU(), *units]).writeto(tmp_path / "t.fits")
    with pytest.raises(FileError, match="holds 3 tables, 'A', '2', '3'"):
        load_table(tmp_path / "t.fits")
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["group/matrix"], file["x"] = np.eye(3), X
    with pytest.raises(FileError, match="holds 2 tables, 'group/matrix', '/'"):
        load_table(tmp_path / "t.h5")
    assert load_table(f"{tmp_path / 't.h5'}::group/matrix").columns == ("x0", "x1", "x2")
    assert load_table(f"{tmp_path / 't.h5'}::/").columns == ("x",)


@pytest.mark.parametrize("name", ["t.h5", "t.fits", "t.root", "t.duckdb", "t.xlsx"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, name):
    """With the command that installs it."""
    WRITERS[name](tmp_path / name, "events")
    package = {"h5": "h5py", "fits": "astropy", "root": "uproot", "duckdb": "duckdb"}
    needed = package.get(name[2:], "fastexcel")
    monkeypatch.setitem(sys.modules, "astropy.io.fits" if needed == "astropy" else needed, None)
    with pytest.raises(FileError, match=rf"{name}' needs the package {needed}: pip install 'kap"):
        load_table(tmp_path / name)


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_cut_off_is_damaged(tmp_path, name):
    """As after a broken copy; another file under the suffix is refused too."""
    WRITERS[name](tmp_path / name, "events")
    content = (tmp_path / name).read_bytes()
    half = 1000 if name.endswith(".root") else len(content) // 2 - 5  # the rest is not needed
    for damaged in (content[:half], content[:100], b"PK\3\4" + bytes(3000)):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(
            FileError, match=r"is damaged or is not a|is not a complete .gz"
        ) as error:
            load_table(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["t.h5", "t.hdf5", "t.fits", "t.root", "t.sqlite", "t.duckdb"])
def test_a_table_that_does_not_fit_in_memory_is_refused(tmp_path, monkeypatch, name):
    """Before its rows are read."""
    WRITERS[name](tmp_path / name, "events")
    monkeypatch.setattr(limits, "memory_bytes", lambda: 400)
    with pytest.raises(FileError, match="would unpack to .* GiB, which is more than"):
        load_table(tmp_path / name)


def test_no_class_is_made_from_a_root_file(tmp_path, monkeypatch):
    """Where uproot does not know a version of a class, it would execute code from the file."""
    write_root(tmp_path / "t.root", "events")
    monkeypatch.setattr(uproot.classes["TTree"], "known_versions", {})
    with uproot.open(tmp_path / "t.root") as file:
        assert file["events"].num_entries  # uproot alone makes the class
    monkeypatch.setattr(uproot.classes["TTree"], "known_versions", {})
    with pytest.raises(FileError, match="runs no code from a file"):
        load_table(tmp_path / "t.root")


def test_a_bomb_of_a_workbook_is_refused(tmp_path, monkeypatch):
    """By the sizes in the archive."""
    monkeypatch.setattr(limits, "memory_bytes", lambda: 2**20)
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", bytes(2**20))
    with pytest.raises(FileError, match="would unpack to"):
        load_table(tmp_path / "t.xlsx")


def test_numbers_of_fits_are_native_and_missing_where_they_are_null(tmp_path):
    """TNULL marks whole numbers, and scaled columns are scaled."""
    masked = MaskedColumn(N, mask=N == 3, fill_value=-1)
    AstropyTable({"n": masked, "v": np.column_stack([X, Y])}).write(tmp_path / "t.fits")
    table = load_table(tmp_path / "t.fits", columns=["n", "v0", "v1"])
    np.testing.assert_array_equal(np.isnan(table.values[:, 0]), N == 3)
    np.testing.assert_array_equal(table.values[:, 1], X)
    np.save(tmp_path / "t.npy", records(">"))
    assert load_table(tmp_path / "t.npy", columns=["n"]).values[:, 0].tolist() == N.tolist()


def test_data_frames_of_pandas_are_read_or_refused(tmp_path):
    """The fixed format by its blocks, the table format if each column has its own field."""
    with h5py.File(tmp_path / "t.h5", "w") as file:
        group = file.create_group("events")
        group.attrs["pandas_type"] = np.bytes_("frame")
        group["axis1"] = np.arange(ROWS)
        group["block0_items"] = np.array([b"x", "ä".encode()])
        group["block0_values"] = np.column_stack([X, Y])
        group["block1_items"] = np.array([b"class"])
        kind = h5py.vlen_dtype(np.uint8)
        group.create_dataset("block1_values", (1,), kind)[0] = np.frombuffer(b"a pickle", "u1")
    table = load_table(tmp_path / "t.h5")
    assert table.columns == ("x", "ä") and "'class'" in table.notes[0]
    np.testing.assert_array_equal(table.values, np.column_stack([X, Y]))
    for names, refused in ((("index", "values_block_0"), True), (("index", "x"), False)):
        with h5py.File(tmp_path / "t.h5", "w") as file:
            kinds = [(names[0], "i8"), (names[1], "f8", (2,) if refused else ())]
            file["events/table"] = np.zeros(ROWS, kinds)
            file["events"].attrs["pandas_type"] = np.bytes_("frame_table")
        if refused:
            with pytest.raises(FileError, match="pandas pickled, which are never read: write it"):
                load_table(tmp_path / "t.h5")
        else:
            assert load_table(tmp_path / "t.h5", columns=["x"]).columns == ("x",)


def test_hdf5_reads_no_other_file(tmp_path):
    """Links, virtual and external datasets are not followed; objects alone are not a table."""
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.eye(3)
    layout = h5py.VirtualLayout((3, 3), "f8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (3, 3))
    (tmp_path / "raw").write_bytes(bytes(72))
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["link"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("raw", (3, 3), "f8", external=str(tmp_path / "raw"))
    with pytest.raises(FileError, match="holds no table that can be read"):
        load_table(tmp_path / "t.h5")
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.create_dataset("lists", (3,), h5py.vlen_dtype(np.float64))
    with pytest.raises(DataError, match="has no columns"):
        load_table(tmp_path / "t.h5")
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["x"], file["y"] = X, X[:-1]
    with pytest.raises(FileError, match=r"arrays of different lengths: 'x' \(30,\), 'y' \(29,\)"):
        load_table(tmp_path / "t.h5")


def test_databases_are_not_changed_and_read_no_other_file(tmp_path):
    """They are opened to be read, views are no tables, and cells of mixed types are text."""
    write_sqlite(tmp_path / "t.db", "a")
    with closing(sqlite3.connect(tmp_path / "t.db")) as connection:
        connection.execute("CREATE VIEW v AS SELECT * FROM a")
        connection.execute("UPDATE a SET y = 'bad', x = NULL WHERE rowid = 2")
        connection.commit()
    before = (tmp_path / "t.db").read_bytes()
    table = load_table(tmp_path / "t.db", columns=["x"])
    assert np.flatnonzero(np.isnan(table.values)).tolist() == [1]
    assert load_table(tmp_path / "t.db").left_out == ("y", "class")
    assert (tmp_path / "t.db").read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    write_duckdb(tmp_path / "t.duckdb", "a")
    (tmp_path / "t.csv").write_text("x\n1.5\n")
    with closing(duckdb.connect(str(tmp_path / "t.duckdb"))) as connection:
        connection.execute(f"CREATE VIEW v AS SELECT * FROM '{tmp_path / 't.csv'}'")
    with pytest.raises(FileError, match="none of the tables 'a'"):
        load_table(f"{tmp_path / 't.duckdb'}::v")
    config = binary_files.CLOSED
    with closing(duckdb.connect(str(tmp_path / "t.duckdb"), config=config)) as connection:
        with pytest.raises(duckdb.Error):
            connection.execute("SELECT * FROM v").fetchall()


def test_a_sheet_without_names_of_columns_is_refused(tmp_path):
    """As a CSV is; a sheet of several is named after the path."""
    frame = pl.DataFrame({"x": X})
    frame.write_excel(tmp_path / "t.xlsx", "a", include_header=False)
    with pytest.raises(DataError, match="holds numbers .*, not names of columns"):
        load_table(tmp_path / "t.xlsx")
    with importlib.import_module("xlsxwriter").Workbook(tmp_path / "t.xlsx") as book:
        frame.write_excel(book, "a")
        frame.rename({"x": "y"}).write_excel(book, "b")
    with pytest.raises(FileError, match="holds 2 sheets, 'a', 'b': name one after the path"):
        load_table(tmp_path / "t.xlsx")
    assert load_table(f"{tmp_path / 't.xlsx'}::b").columns == ("y",)
