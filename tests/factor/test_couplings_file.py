"""The file of couplings can be read without this package."""

import json

import numpy as np
import pytest
from safetensors import safe_open

import kappaflow as kf
from kappaflow.errors import FileError
from kappaflow.factor.couplings_file import write_couplings

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
    write_couplings(found, tmp_path / "c.safetensors")
    made, said = product(tmp_path / "c.safetensors")
    assert np.abs(made - matrix).max() < 1e-12 * np.abs(matrix).max()
    assert said["method"] == found.method and float(said["residual"]) == found.residual


def test_the_same_couplings_are_the_same_bytes(tmp_path):
    """Nothing in the file depends on the call."""
    found = kf.factor_linear(ODD)
    for name in ("a", "b"):
        write_couplings(found, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_place_that_cannot_be_written_leaves_nothing(tmp_path):
    """One sentence, and no temporary file."""
    with pytest.raises(FileError, match="cannot be written"):
        write_couplings(kf.factor_linear(ODD), tmp_path)
    assert list(tmp_path.parent.glob(f".{tmp_path.name}*")) == []
