"""The residual of a factorization, and its file."""

import json
import pickle
from fractions import Fraction

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
from kappaflow.factor.factorization import residuals, save_couplings
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
    found = residuals(factors, matrix)
    assert found == pytest.approx(in_200_bits(factors, matrix), rel=1e-5)
    assert 0 < found[0] < 1e-13


def test_the_residual_is_accurate_for_cancelling_factors():
    """Weights of 1e6 that cancel lose six digits in a float64 product."""
    rng = np.random.default_rng(1)
    big = 1e6 * rng.standard_normal((4, 4))
    factors = unit_factors([big, np.eye(4), -big + 1e-3 * np.eye(4), -np.eye(4)])
    matrix = np.eye(8)
    for factor in factors:
        matrix = matrix @ factor.matrix
    matrix = matrix.round(3)
    found = residuals(factors, matrix)
    assert found[0] == pytest.approx(in_200_bits(factors, matrix)[0], rel=1e-5)


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


def test_integer_factors_have_a_zero_residual():
    """The product of fractions is exact."""
    rng = np.random.default_rng(2)
    factors = unit_factors(rng.integers(-9, 10, (6, 3, 3)).astype(float))
    exact = [[Fraction(int(i == j)) for j in range(6)] for i in range(6)]
    for factor in factors:
        rows = factor.matrix.tolist()
        exact = [
            [sum(row[k] * Fraction(rows[k][j]) for k in range(6)) for j in range(6)]
            for row in exact
        ]
    matrix = np.array([[float(entry) for entry in row] for row in exact])
    assert residuals(factors, matrix)[0] == 0.0
    matrix[0, 0] += 1
    assert residuals(factors, matrix)[0] == pytest.approx(1 / np.linalg.norm(matrix))


def test_the_low_part_of_the_product_is_kept():
    """Scales that are not powers of two, and many factors: each product has a low part."""
    rng = np.random.default_rng(3)
    scales = (np.full(3, 1.1), np.full(3, 1 / 1.1))
    factors = [
        Factor(i % 2 == 0, 30 * rng.standard_normal((3, 3)), scales[i // 2 % 2]) for i in range(8)
    ]
    matrix = np.array(in_full(factors))
    found = residuals(factors, matrix)[0]
    assert found == pytest.approx(in_200_bits(factors, matrix)[0], rel=1e-6)
    assert 0 < found < 2e-16


def in_full(factors):
    """Returns the product, rounded once."""
    with mpmath.workprec(400):
        result = mpmath.eye(6)
        for factor in factors:
            result = result * mpmath.matrix(factor.matrix.tolist())
        return [[float(result[i, j]) for j in range(6)] for i in range(6)]


def test_the_rounding_of_a_product_of_scales_is_seen():
    """1.1 times 1.1 is not a float64: the residual is the rounding error of the product."""
    twice = [Factor(True, np.zeros((1, 1)), np.array([1.1]))] * 2
    matrix = np.diag([1.0, 1.1 * 1.1])
    error = float(Fraction(1.1) ** 2 - Fraction(1.1 * 1.1))
    found = residuals(twice, matrix)[0]
    assert found == pytest.approx(abs(error) / np.linalg.norm(matrix), rel=1e-10, abs=0)
    assert found > 0


def product(path):
    """Returns the product of the couplings in a file, as the documentation says."""
    with safe_open(path, framework="numpy") as file:
        text = json.loads(file.metadata()["kappaflow"])
        made = np.eye(int(text["features"]))
        for number in range(1, int(text["couplings"]) + 1):
            part = {
                name: file.get_tensor(f"coupling.{number}.{name}")
                for name in ("kept", "changed", "weight", "diagonal")
            }
            factor = np.eye(len(made))
            factor[np.ix_(part["changed"], part["kept"])] = part["weight"]
            factor[part["changed"], part["changed"]] = part["diagonal"]
            made = made @ factor
    return made, text


@pytest.mark.slow
@pytest.mark.parametrize("partition", ["half", "alternating"])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_product_of_the_couplings_is_the_matrix(tmp_path, partition, sign):
    """For each partition and either sign of the determinant, in float64."""
    matrix = ODD.copy()
    matrix[0] *= sign
    found = kf.factor_linear(matrix, couplings=11, partition=partition)
    save_couplings(found, tmp_path / "c.safetensors")
    made, text = product(tmp_path / "c.safetensors")
    assert np.abs(made - matrix).max() < 1e-12 * np.abs(matrix).max()
    assert text["method"] == found.method and float(text["residual"]) == found.residual


@pytest.mark.slow
def test_the_same_couplings_are_the_same_bytes(tmp_path):
    """The file does not depend on when or where it is written."""
    found = kf.factor_linear(ODD)
    for name in ("a", "b"):
        save_couplings(found, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failed_write_leaves_no_file(tmp_path):
    """The error is one sentence, and no temporary file remains."""
    with pytest.raises(FileError, match="cannot be written"):
        save_couplings(kf.factor_linear(ODD), tmp_path)
    assert list(tmp_path.parent.glob(f".{tmp_path.name}*")) == []


@pytest.mark.slow
@pytest.mark.parametrize("partition", ["half", "alternating", 2])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_saved_factorization_is_loaded(tmp_path, partition, sign):
    """Matrix, couplings, method and note are equal; the residual is computed again."""
    matrix = ODD.copy()
    matrix[0] *= sign
    found = kf.factor_linear(matrix, couplings=20, partition=partition)
    kf.factor.save_couplings(found, tmp_path / "c.safetensors")
    again = kf.factor.load_couplings(str(tmp_path / "c.safetensors"))
    assert np.array_equal(again.matrix, matrix) and len(again) == len(found)
    for one, other in zip(again.couplings, found.couplings, strict=True):
        assert one.partition == other.partition
        assert np.allclose(one.matrix(), other.matrix(), rtol=1e-14, atol=0)
    assert (again.method, again.flipped, again.note) == (found.method, found.flipped, found.note)
    assert again.residual < 1e-13


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


@pytest.fixture(scope="module")
def factored():
    """Couplings of a small map."""
    return kf.factor_linear(ODD)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "there is no file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "damaged or cut short"),
        (lambda path: path.write_bytes(b""), "damaged or cut short"),
        (lambda path: path.write_bytes(pickle.dumps([1])), "damaged or cut short"),
        (lambda path: save_file({"a": np.ones(2)}, path), "was written by something else"),
        (lambda path: write_tensors(path, {}, {}), "holds no couplings: give a file"),
        (lambda path: changed(path, lambda _, s: s.update(format_version="1")), "version '1'"),
        (lambda path: changed(path, lambda _, s: s.update(couplings="7")), "coupling.7.weight"),
        (
            lambda path: changed(path, lambda _, s: s.update(couplings="x")),
            "factor the matrix again",
        ),
        (lambda path: changed(path, lambda t, _: t.pop("matrix")), "factor the matrix again"),
        (
            lambda path: changed(path, lambda t, _: t["coupling.2.kept"].add_(-1)),
            "factor the matrix again",
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
            "different partitions",
        ),
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


def test_a_folder_is_refused(tmp_path):
    """The error is one sentence."""
    with pytest.raises(FileError, match="is a folder"):
        kf.factor.load_couplings(tmp_path)
