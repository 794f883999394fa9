"""Tables that are written come back, whatever their columns are called."""

import numpy as np
import pytest

from kappaflow.data import load_table
from kappaflow.data.write import WRITTEN, write_table

NAMES = ("file", "allow_pickle", "kwds", "a b")


@pytest.mark.parametrize("suffix", WRITTEN)
def test_lists_are_written_as_arrays_are(suffix, tmp_path):
    write_table({"x0": [1.5, 2.5]}, str(tmp_path / f"t{suffix}"))
    np.testing.assert_array_equal(load_table(tmp_path / f"t{suffix}").values, [[1.5], [2.5]])


@pytest.mark.parametrize("suffix", [suffix for suffix in WRITTEN if suffix != ".npy"])
def test_columns_may_have_any_name(suffix, tmp_path):
    """Those that numpy has arguments of too."""
    columns = {name: np.arange(4.0) + offset for offset, name in enumerate(NAMES)}
    write_table(columns, str(tmp_path / f"t{suffix}"))
    table = load_table(tmp_path / f"t{suffix}")
    assert table.columns == NAMES
    np.testing.assert_array_equal(table.values, np.stack(list(columns.values()), axis=1))
