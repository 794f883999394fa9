"""Linear couplings: their matrix, their condition number, what they refuse."""

import mpmath
import numpy as np
import pytest
import torch

import kappaflow as kf
from kappaflow.testing.contract import jittered

half = kf.Partition.half


def coupling(partition, seed=0, diagonal=None):
    """Returns a coupling with random numbers in float64."""
    generator = torch.Generator().manual_seed(seed)
    shape = len(partition.changed), len(partition.kept)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    return kf.factor.LinearCoupling(partition, weight, diagonal)


@pytest.mark.parametrize("partition", [half(4), half(5).swapped(), kf.Partition(6, (5, 0))])
def test_the_matrix_acts_on_columns(partition):
    """Rows x become x M^T, and the matrix contains the weight at the partition's positions."""
    layer = coupling(partition, diagonal=torch.linspace(-1, 2, len(partition.changed)) + 0.1)
    matrix = layer.matrix()
    x = torch.randn(7, partition.features, dtype=torch.float64)
    torch.testing.assert_close(layer(x)[0], x @ matrix.mT)
    torch.testing.assert_close(
        matrix[list(partition.changed)][:, list(partition.kept)], layer.weight.detach()
    )
    assert torch.equal(
        matrix[list(partition.kept)], torch.eye(len(matrix)).double()[list(partition.kept)]
    )


@pytest.mark.parametrize("scale", [1.0, 0.03, 50.0])
@pytest.mark.parametrize(
    "partition", [half(6), kf.Partition(6, (1,)), kf.Partition(6, (0, 1, 2, 4))]
)
def test_the_condition_number_in_closed_form_is_that_of_the_matrix(partition, scale):
    """One size of the diagonal, of either sign: from the largest singular value of the weight."""
    diagonal = scale * torch.ones(len(partition.changed), dtype=torch.float64)
    diagonal[-1] *= -1
    layer = coupling(partition, diagonal=diagonal)
    dense = torch.linalg.cond(layer.matrix()).item()
    assert layer.condition_number == pytest.approx(dense, rel=1e-10)


def test_the_condition_number_of_a_diagonal_of_several_sizes_is_that_of_the_matrix():
    """There is no closed form then."""
    layer = coupling(half(4), diagonal=[0.1, 3.0])
    assert layer.condition_number == pytest.approx(torch.linalg.cond(layer.matrix()).item())


def test_several_sizes_and_a_huge_weight_do_not_spoil_the_condition_number():
    """Against 60 digits: the smallest singular value of the dense matrix would be rounding."""
    weight = torch.tensor([[1e9, 2e3], [3.0, 4e8]], dtype=torch.float64)
    layer = kf.factor.LinearCoupling(half(4), weight, [1e-5, -2e3])
    with mpmath.workdps(60):
        values = mpmath.svd_r(mpmath.matrix(layer.matrix().tolist()), compute_uv=False)
        exact = float(max(values) / min(values))
    assert layer.condition_number == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("diagonal", [None, [1.0, 2.0]])
@pytest.mark.parametrize("name", ["weight", "log_scale"])
def test_numbers_that_are_not_finite_have_no_condition_number(name, diagonal):
    """Such as the numbers after a diverged training."""
    layer = coupling(half(4), diagonal=diagonal)
    getattr(layer, name).data.fill_(float("nan"))
    assert np.isnan(layer.condition_number)


def test_a_diagonal_alone_keeps_its_dtype():
    """With a weight, the diagonal takes the dtype of the weight."""
    diagonal = torch.tensor([1 / 3, 1e-60], dtype=torch.float64)
    layer = kf.factor.LinearCoupling(half(4), None, diagonal)
    torch.testing.assert_close(layer.diagonal.detach(), diagonal, rtol=1e-13, atol=0)
    assert (
        kf.factor.LinearCoupling(half(4), torch.ones(2, 2), [1.0, 2.0]).diagonal.dtype
        == torch.float32
    )


def test_a_huge_weight_does_not_spoil_the_condition_number():
    """It is w^2, where the smallest singular value of the dense matrix would be rounding."""
    layer = kf.factor.LinearCoupling(half(2), torch.tensor([[1e10]], dtype=torch.float64))
    assert layer.condition_number == pytest.approx(1e20, rel=1e-12)


def test_signs_stay_when_the_scales_learn():
    """Moving the log-scales moves sizes only."""
    layer = jittered(coupling(half(4), diagonal=[-1.0, 2.0]), seed=3)
    assert layer.diagonal.sign().tolist() == [-1, 1]
    assert layer.diagonal.abs().tolist() != [1, 2]


def test_channels_of_an_image_have_the_same_map_at_each_place():
    """log_det is multiplied by the number of pixels."""
    layer = coupling(half(4), diagonal=[2.0, 3.0])
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    z, log_det = layer(x)
    torch.testing.assert_close(z[:, :, 1, 2], layer(x[:, :, 1, 2])[0])
    torch.testing.assert_close(log_det, torch.full((2,), 15 * np.log(6.0), dtype=torch.float64))


def test_a_flow_of_linear_couplings_is_saved_and_loaded(tmp_path):
    """Constructor arguments are stored as text, those of `of` with the weights."""
    for make in (kf.factor.LinearCoupling, kf.factor.LinearCoupling.of):
        part = make(half(4), np.arange(4.0).reshape(2, 2), [2.0, -0.5])
        flow = kf.Flow(kf.StandardNormal(4), kf.Chain([part])).double()
        kf.save(flow, tmp_path / make.__name__)
        x = torch.randn(5, 4, dtype=torch.float64)
        assert torch.equal(kf.load(tmp_path / make.__name__).log_prob(x), flow.log_prob(x))
    described = kf.registry.describe(part)["arguments"]
    assert described["weight"] is None and described["diagonal"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((half(4), np.ones((2, 3))), r"'weight' should have the shape \(2, 2\)"),
        ((half(4), None, [1.0]), r"'diagonal' .* shape \(2,\) of \(changed\) features, got \(1,"),
        ((half(4), None, [1.0, 0.0]), "'diagonal' should be nowhere zero"),
        ((half(4), np.full((2, 2), np.nan)), "'weight' should hold finite numbers"),
        ((half(4), [["a", "b"]]), "'weight' should hold numbers"),
        ((half(4), torch.ones(2, 2) * 1j), "'weight' should hold real numbers"),
        ((half(4), None, [1.0, 1j]), "'diagonal' should hold real numbers"),
        ((kf.Partition(2, ()),), "a coupling must both read and change something"),
    ],
)
def test_invalid_numbers_are_refused(arguments, message):
    """The error names the expected and the given value."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        kf.factor.LinearCoupling(*arguments)
