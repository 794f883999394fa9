"""The residual of a factorization, and its file."""

import json
import pickle

import mpmath
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

import kappaflow as kf
from factor.ensembles import orthogonal
from kappaflow.errors import FileError
from kappaflow.factor.coupling import Factor, unit_factors
from kappaflow.factor.factorization import residuals
from kappaflow.factor.rotation import factor_rotation
from kappaflow.storage import read_tensors, write_tensors

ODD = np.eye(6)[[1, 0, 2, 3, 4, 5]] + np.diag(np.arange(6.0))


def in_200_bits(factors, matrix):
    """Returns the residuals of the product and of its inverse, by mpmath."""
    with mpmath.workprec(200):
        result = mpmath.eye(len(matrix))
        for factor in factors:
            result = result * mpmath.matrix(factor.matrix.tolist())
        expected = mpmath.matrix(matrix.tolist())
        left = mpmath.inverse(result) * (result - expected)
        return (
            float(mpmath.mnorm(result - expected, "f") / mpmath.mnorm(expected, "f")),
            float(mpmath.mnorm(left, "f")) / len(matrix) ** 0.5,
        )


@pytest.mark.parametrize("n", [2, 5, 16])
def test_rounding_errors_of_the_factors_are_measured_to_many_digits(n):
    """A float64 product would add its own, which are as large."""
    rng = np.random.default_rng(n)
    if n % 2:
        shapes, diagonals = [(3, 2), (2, 3), (3, 2)], [rng.standard_normal(k) for k in (3, 2, 3)]
        factors = [
            Factor(i % 2 == 0, rng.standard_normal(shape), diagonals[i])
            for i, shape in enumerate(shapes)
        ]
        matrix = factors[0].matrix @ factors[1].matrix @ factors[2].matrix
    else:
        matrix = orthogonal(n, rng)
        factors = unit_factors(factor_rotation(matrix))
    measured = residuals(factors, matrix)
    assert measured == pytest.approx(in_200_bits(factors, matrix), rel=1e-5)
    assert 0 < measured[0] < 1e-13


def test_the_residual_is_accurate_for_cancelling_factors():
    """Weights of 1e6 that cancel lose six digits in a float64 product."""
    rng = np.random.default_rng(1)
    big = 1e6 * rng.standard_normal((4, 4))
    factors = unit_factors([big, np.eye(4), -big + 1e-3 * np.eye(4), -np.eye(4)])
    matrix = np.eye(8)
    for factor in factors:
        matrix = matrix @ factor.matrix
    matrix = matrix.round(3)
    measured = residuals(factors, matrix)
    assert measured[0] == pytest.approx(in_200_bits(factors, matrix)[0], rel=1e-5)


@pytest.mark.parametrize("exponent", [-1000, -600, 600, 960])
def test_extreme_scales_do_not_overflow_in_the_residual(exponent):
    """A power of two in one factor and in the map changes nothing."""
    factors = unit_factors([np.array([[3.0]]), np.array([[1 / 3]]), np.array([[0.1]])])
    matrix = factors[0].matrix @ factors[1].matrix @ factors[2].matrix
    matrix[0, 0] += 1e-3
    plain = residuals(factors, matrix)[0]
    scale = 2.0**exponent
    both = [Factor(lower, np.zeros((1, 1)), np.array([scale])) for lower in (True, False)]
    assert residuals([*both, *factors], scale * matrix)[0] == plain > 1e-5


def product(path):
    """Returns the product of the couplings in a file, as the documentation says."""
    with safe_open(path, framework="numpy") as file:
        text = json.loads(file.metadata()["kappaflow"])
        built = np.eye(int(text["features"]))
        for number in range(1, int(text["couplings"]) + 1):
            part = {
                name: file.get_tensor(f"coupling.{number}.{name}")
                for name in ("kept", "changed", "weight", "diagonal")
            }
            factor = np.eye(len(built))
            factor[np.ix_(part["changed"], part["kept"])] = part["weight"]
            factor[part["changed"], part["changed"]] = part["diagonal"]
            built = built @ factor
    return built, text


@pytest.mark.parametrize(("partition", "sign"), [("alternating", 1), (2, -1)])
def test_a_saved_factorization_is_loaded(tmp_path, partition, sign):
    """Matrix, couplings, method and note are equal; the product of the file is the matrix."""
    matrix, path = ODD.copy(), tmp_path / "c.safetensors"
    matrix[0] *= sign
    saved = kf.factor_linear(matrix, couplings=20, partition=partition)
    kf.factor.save_couplings(saved, path)
    loaded = kf.factor.load_couplings(str(path))
    assert np.array_equal(loaded.matrix, matrix) and len(loaded) == len(saved)
    for first, second in zip(loaded.couplings, saved.couplings, strict=True):
        assert first.partition == second.partition
        assert np.allclose(first.matrix(), second.matrix(), rtol=1e-14, atol=0)
    for name in ("method", "flipped", "note"):
        assert getattr(loaded, name) == getattr(saved, name)
    product_of_file, text = product(path)
    assert np.abs(product_of_file - matrix).max() < 1e-12 * np.abs(matrix).max()
    assert float(text["residual"]) == saved.residual and loaded.residual < 1e-13


def test_the_identity_comes_back_without_a_coupling(tmp_path):
    """A file without couplings defines no partition."""
    kf.factor.save_couplings(kf.factor_linear(np.eye(4)), tmp_path / "c.safetensors")
    again = kf.factor.load_couplings(tmp_path / "c.safetensors")
    assert len(again) == 0 and again.residual == 0


def changed(path, change):
    """Writes the tensors and notes of a file again, changed, with a digest that fits."""
    tensors, text = read_tensors(path)
    change(tensors, text)
    write_tensors(path, tensors, text)


def exchange(tensors, _):
    """Gives one coupling another partition."""
    tensors["coupling.2.kept"] = torch.tensor([0, 2, 4])
    tensors["coupling.2.changed"] = torch.tensor([1, 3, 5])


@pytest.fixture(scope="module")
def factored():
    """Couplings of a small map."""
    return kf.factor_linear(ODD)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "there is no file"),
        (lambda path: (path.unlink(), path.mkdir()), "is a folder"),
        (lambda path: path.write_bytes(pickle.dumps([1])), "damaged or cut short"),
        (lambda path: save_file({"a": np.ones(2)}, path), "was written by something else"),
        (lambda path: write_tensors(path, {}, {}), "holds no couplings: give a file"),
        (lambda path: changed(path, lambda _, s: s.update(format_version="1")), "version '1'"),
        (lambda path: changed(path, lambda _, s: s.update(couplings="7")), "coupling.7.weight"),
        (lambda path: changed(path, lambda _, s: s.update(couplings="x")), "factor the matrix"),
        (lambda path: changed(path, lambda t, _: t["coupling.2.kept"].add_(-1)), "factor the"),
        (lambda path: changed(path, lambda t, _: t["coupling.2.diagonal"].zero_()), "nowhere"),
        (lambda path: changed(path, exchange), "different partitions"),
    ],
)
def test_invalid_files_are_refused_in_one_sentence(tmp_path, factored, spoil, message):
    """Missing, cut short, a pickle, other tensors, another version, tensors that do not fit."""
    path = tmp_path / "c.safetensors"
    kf.factor.save_couplings(factored, path)
    spoil(path)
    with pytest.raises(FileError, match=message) as refused:
        kf.factor.load_couplings(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)
