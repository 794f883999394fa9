"""The shipped data sets: found, counted in their files, cited."""

import subprocess
import sys

import pytest

from kappaflow.data import data_sets, load_table, path_of, shipped_names
from kappaflow.errors import ArgumentError


def test_every_data_set_is_loaded_by_its_name() -> None:
    """With the rows and columns that its entry gives."""
    assert [data.name for data in data_sets()] == list(shipped_names())
    for data in data_sets():
        table = load_table(data.name)
        assert len(table) == data.rows
        assert set(table.columns) | set(table.left_out) == set(data.columns)
        assert data.path == path_of(data.name)
        assert data.path.is_file()


def test_magic_is_described_and_cited() -> None:
    """With what its license asks for."""
    (magic,) = (data for data in data_sets() if data.name == "magic")
    assert (magic.rows, len(magic.columns), magic.license) == (19_020, 11, "CC BY 4.0")
    assert magic.columns[-1] == "class"
    for part in ("Bock", "2007", "UCI Machine Learning Repository", "10.24432/C52C8B"):
        assert part in magic.citation
    counts = [len(load_table("magic", where=f"class={letter}")) for letter in "gh"]
    assert counts == [12_332, 6_688]


def test_an_unknown_name_lists_the_known_ones() -> None:
    """As an argument that is wrong."""
    with pytest.raises(ArgumentError, match="'name' should be one of 'magic', got 'majic'"):
        path_of("majic")


def test_importing_the_package_loads_neither_polars_nor_torch() -> None:
    """So that a command answers before they are needed."""
    code = (
        "import sys, kappaflow.data as data; data.path_of('magic'); "
        "print(sorted({'polars', 'torch', 'narwhals'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
