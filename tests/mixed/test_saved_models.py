"""Saved table models: loaded as they were, replaced with overwrite=True, refused if damaged."""

import shutil

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal as polars_equal
from tests.mixed.exact import exact_model, gaps

import kappaflow as kf
from kappaflow.errors import ArgumentError, FileError
from kappaflow.mixed import TableModel
from kappaflow.mixed.saved import COLUMNS, LABELS, _digest
from kappaflow.storage import read_tensors, write_tensors


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small fitted model, its rows, and a folder in which it was saved."""
    rows = gaps(exact_model().frame.head(300), share=0.1)
    model = kf.fit_table(rows, max_epochs=1, search_time=0, progress=False).model
    folder = tmp_path_factory.mktemp("models") / "model"
    model.save(folder)
    return model, rows, folder


@pytest.fixture
def copied(saved, tmp_path):
    """A copy of the folder."""
    return shutil.copytree(saved[2], tmp_path / "copy")


def test_a_loaded_model_is_identical(saved):
    """Scores, samples and completions agree, up to the last digits of a sum."""
    model, rows, folder = saved[0], saved[1].head(30), saved[2]
    loaded = TableModel.load(folder)
    for first, second in zip(model.log_prob(rows), loaded.log_prob(rows), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-9)
    polars_equal(loaded.sample(50, seed=3), model.sample(50, seed=3))
    polars_equal(loaded.impute(rows).frame, model.impute(rows).frame)
    assert repr(loaded) == repr(model)


def test_saving_replaces_a_model_only_with_overwrite(saved, copied):
    """Also one of labels alone, which has no flow."""
    model = saved[0]
    with pytest.raises(ArgumentError, match="pass overwrite=True to replace it"):
        model.save(copied)
    model.save(copied, overwrite=True)
    labels = kf.fit_table(pl.DataFrame({"a": ["x", "y"] * 60}), progress=False).model
    with pytest.raises(ArgumentError, match="pass overwrite=True to replace it"):
        labels.save(copied)
    labels.save(copied.with_name("labels"))
    loaded = TableModel.load(copied.with_name("labels"))
    assert loaded.flow is None and loaded.sample(20).equals(labels.sample(20))
    with pytest.raises(ArgumentError, match="pass overwrite=True to replace it"):
        labels.save(copied.with_name("labels"))


DAMAGED = [
    "",
    "{",
    "[1]",
    "3",
    '"a"',
    "null",
    "{}",
    '{"version": 1}',
    '{"version": 1, "columns": 3}',
]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_description_is_a_file_error_in_one_line(copied, text):
    """With a digest that does not fit, and with one that does."""
    (copied / COLUMNS).write_text(text)
    with pytest.raises(FileError, match=f"{LABELS} does not match {COLUMNS} next to it"):
        TableModel.load(copied)
    tensors, _ = read_tensors(copied / LABELS)
    write_tensors(copied / LABELS, tensors, {COLUMNS: _digest(text.encode())})
    with pytest.raises(FileError, match=r"is damaged: |is of another version") as error:
        TableModel.load(copied)
    assert "\n" not in str(error.value)


def test_missing_damaged_and_swapped_files_are_file_errors(saved, copied):
    """Each file of the folder in turn, and the flow of another table."""
    content = (copied / LABELS).read_bytes()
    (copied / LABELS).write_bytes(content[:200])
    with pytest.raises(FileError, match=LABELS):
        TableModel.load(copied)
    (copied / LABELS).unlink()
    with pytest.raises(FileError, match=LABELS):
        TableModel.load(copied)
    tensors, metadata = read_tensors(saved[2] / LABELS)
    name = "proposals.mean"
    write_tensors(copied / LABELS, tensors | {name: tensors[name][:-1]}, metadata)
    with pytest.raises(FileError, match=name.removeprefix("proposals.")):
        TableModel.load(copied)
    (copied / LABELS).write_bytes(content)
    kf.save(kf.real_nvp(3, depth=1, hidden=(4,), context_features=5), copied, overwrite=True)
    with pytest.raises(FileError, match="has a flow of other columns"):
        TableModel.load(copied)
    (copied / COLUMNS).unlink()
    with pytest.raises(FileError, match="holds no table model"):
        TableModel.load(copied)
