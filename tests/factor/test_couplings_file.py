"""The file of couplings can be read without this package."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

import kappaflow as kf
from kappaflow.errors import FileError
from kappaflow.factor.couplings_file import save_couplings
from kappaflow.storage import read_tensors, write_tensors

ODD = np.eye(6)[[1, 0, 2, 3, 4, 5]] + np.diag(np.arange(6.0))


def product(path):
    """Returns the product of the couplings in a file, as the documentation says."""
    with safe_open(path, framework="numpy") as file:
        said = json.loads(file.metadata()["kappaflow"])
        made = np.eye(int(said["features"]))
        for number in range(1, int(said["couplings"]) + 1):
            part = {
                name: file.get_tensor(f"coupling.{number}.{name}")
                for name in ("kept", "changed", "weight", "diagonal")
            }
            factor = np.eye(len(made))
            factor[np.ix_(part["changed"], part["kept"])] = part["weight"]
            factor[part["changed"], part["changed"]] = part["diagonal"]
            made = made @ factor
    return made, said


@pytest.mark.parametrize("partition", ["half", "alternating"])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_product_of_the_couplings_is_the_matrix(tmp_path, partition, sign):
    """For each partition and either sign of the determinant, in float64."""
    matrix = ODD.copy()
    matrix[0] *= sign
    found = kf.factor_linear(matrix, couplings=11, partition=partition)
    save_couplings(found, tmp_path / "c.safetensors")
    made, said = product(tmp_path / "c.safetensors")
    assert np.abs(made - matrix).max() < 1e-12 * np.abs(matrix).max()
    assert said["method"] == found.method and float(said["residual"]) == found.residual


def test_the_same_couplings_are_the_same_bytes(tmp_path):
    """Nothing in the file depends on the call."""
    found = kf.factor_linear(ODD)
    for name in ("a", "b"):
        save_couplings(found, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_place_that_cannot_be_written_leaves_nothing(tmp_path):
    """One sentence, and no temporary file."""
    with pytest.raises(FileError, match="cannot be written"):
        save_couplings(kf.factor_linear(ODD), tmp_path)
    assert list(tmp_path.parent.glob(f".{tmp_path.name}*")) == []


@pytest.mark.parametrize("partition", ["half", "alternating", 2])
@pytest.mark.parametrize("sign", [1, -1])
def test_what_was_saved_is_loaded(tmp_path, partition, sign):
    """Matrix, couplings, method and note; the residual is computed from what was read."""
    matrix = ODD.copy()
    matrix[0] *= sign
    found = kf.factor_linear(matrix, couplings=20, partition=partition)
    kf.save_couplings(found, tmp_path / "c.safetensors")
    again = kf.load_couplings(str(tmp_path / "c.safetensors"))
    assert np.array_equal(again.matrix, matrix) and len(again) == len(found)
    for one, other in zip(again.couplings, found.couplings, strict=True):
        assert one.partition == other.partition
        assert np.allclose(one.matrix(), other.matrix(), rtol=1e-14, atol=0)
    assert (again.method, again.flipped, again.note) == (found.method, found.flipped, found.note)
    assert again.residual < 1e-13


def test_the_identity_comes_back_without_a_coupling(tmp_path):
    """It has none to tell the partition from."""
    kf.save_couplings(kf.factor_linear(np.eye(4)), tmp_path / "c.safetensors")
    again = kf.load_couplings(tmp_path / "c.safetensors")
    assert len(again) == 0 and again.residual == 0


def changed(path, change):
    """Writes the tensors and notes of a file again, changed, with a digest that fits."""
    tensors, said = read_tensors(path)
    change(tensors, said)
    write_tensors(path, tensors, said)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "there is no file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "damaged or cut short"),
        (lambda path: path.write_bytes(b""), "damaged or cut short"),
        (lambda path: path.write_bytes(pickle.dumps([1])), "damaged or cut short"),
        (lambda path: save_file({"a": np.ones(2)}, path), "was written by something else"),
        (lambda path: write_tensors(path, {}, {}), "holds no couplings: 'kappaflow factor"),
        (lambda path: changed(path, lambda _, s: s.update(format_version="1")), "version '1'"),
        (lambda path: changed(path, lambda _, s: s.update(couplings="7")), "coupling.7.weight"),
        (lambda path: changed(path, lambda _, s: s.update(couplings="x")), "not of this format"),
        (lambda path: changed(path, lambda t, _: t.pop("matrix")), "not of this format"),
        (
            lambda path: changed(path, lambda t, _: t["coupling.2.kept"].add_(-1)),
            "not of this format",
        ),
        (
            lambda path: changed(path, lambda t, _: t["coupling.2.diagonal"].zero_()),
            "nowhere zero",
        ),
        (
            lambda path: changed(
                path,
                lambda t, _: t.update({
                    "coupling.2.kept": torch.tensor([0, 2, 4]),
                    "coupling.2.changed": torch.tensor([1, 3, 5]),
                }),
            ),
            "several partitions",
        ),
    ],
)
def test_a_file_that_is_no_such_file_is_refused_in_a_sentence(tmp_path, spoil, message):
    """Missing, cut short, a pickle, other tensors, another version, tensors that do not fit."""
    path = tmp_path / "c.safetensors"
    kf.save_couplings(kf.factor_linear(ODD), path)
    spoil(path)
    with pytest.raises(FileError, match=message) as refused:
        kf.load_couplings(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_a_folder_is_no_file_of_couplings(tmp_path):
    """One sentence, too."""
    with pytest.raises(FileError, match="is a folder"):
        kf.load_couplings(tmp_path)
