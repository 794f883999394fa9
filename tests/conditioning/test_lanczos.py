"""Golub-Kahan-Lanczos against dense singular values."""

import pytest
import torch

from kappaflow.conditioning.lanczos import golub_kahan


def run(matrices, k, tolerance=1e-6, max_steps=100, near=None):
    """Returns the result of the iteration for a batch of matrices (B, n, n)."""
    return golub_kahan(
        lambda v: torch.einsum("bij,kbj->kbi", matrices, v),
        lambda u: torch.einsum("bji,kbj->kbi", matrices, u),
        matrices[:, 0],
        k=k,
        tolerance=tolerance,
        max_steps=max_steps,
        near=near,
    )


def rotated(*spectra):
    """Returns matrices with these singular values and random singular vectors."""
    n = len(spectra[0])
    u, v = (torch.linalg.qr(torch.randn(len(spectra), n, n).double())[0] for _ in range(2))
    return u @ torch.diag_embed(torch.tensor(spectra, dtype=torch.float64)) @ v.mT


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "spectrum",
    [
        [1.0] * 8,
        [5.0, 5.0, 5.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        [9.0, 3.0, 3.0, 2.0, 1.0, 0.5, 0.1, 1e-3],
        [1e8, 1e4, 1.0, 1.0, 1.0, 1e-4, 1e-8, 1e-9],
        [1e-12] * 4 + [1e-13] * 4,
    ],
)
def test_repeated_and_graded_values_are_found_as_often_as_they_occur(spectrum, k):
    """A value that occurs k times is found k times, in blocks of k vectors."""
    result = run(rotated(spectrum), k)
    assert result.converged.all()
    expected = torch.tensor([spectrum[:k]], dtype=torch.float64)
    torch.testing.assert_close(result.values, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("n", [2, 3, 5, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_invariant_subspace_is_left_from_every_start(dtype, n, k):
    """Where nothing is left but rounding, no direction is counted twice.

    A thousand starts of each: about one in a thousand needs a third pass, or a second draw.
    """
    matrices = rotated([1.0] * n).to(dtype).expand(1000, n, n)
    result = run(matrices, min(n, k), tolerance=1e-3)
    torch.testing.assert_close(result.values, torch.ones_like(result.values), rtol=1e-5, atol=0)
    ones = torch.ones(n, n, dtype=dtype).expand(1000, n, n) / n
    result = run(ones, 1, tolerance=1e-3).values
    torch.testing.assert_close(result, torch.ones_like(result), rtol=1e-5, atol=0)
    steep = rotated([1e6, *[1.0] * (n - 1)]).to(dtype).expand(1000, n, n)
    result = run(steep, 1, tolerance=1e-3).values / 1e6
    torch.testing.assert_close(result, torch.ones_like(result), rtol=1e-5, atol=0)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vectors_stay_orthogonal_over_many_steps(dtype, k):
    """For values so close that the whole space is needed."""
    spectrum = [1 + i / 1000 for i in range(60, 0, -1)]
    result = run(rotated(spectrum, spectrum[::-1]).to(dtype), k, tolerance=1e-12)
    expected = torch.tensor([spectrum[:k]] * 2, dtype=torch.float64)
    torch.testing.assert_close(result.values, expected, rtol=1e-6, atol=0)


def test_values_below_the_rounding_of_the_largest_are_not_called_converged():
    """In float32 a value 1e6 times smaller than the largest has no six digits to converge to."""
    result = run(rotated([1e3] + [1e-3] * 29, [1e3] + [8e2] * 29).float(), 2)
    assert result.converged.tolist() == [False, True]


def test_too_few_steps_are_not_called_converged():
    """The value is a lower bound, and the flag says that it may not be the value."""
    matrix = rotated([2.0 - i / 60 for i in range(60)])
    result = run(matrix, 1, max_steps=3)
    assert not result.converged.any()
    assert result.steps == 3
    assert 0 < result.values.item() <= 2


def test_a_value_that_only_looks_settled_is_not_called_converged():
    """In its first step the search has hardly seen the largest direction."""
    matrix = torch.ones(1, 3000, dtype=torch.float64)
    matrix[0, 17] = 1.05
    result = golub_kahan(
        lambda v: matrix * v,
        lambda u: matrix * u,
        torch.zeros_like(matrix),
        k=1,
        tolerance=1e-2,
        max_steps=1,
    )
    assert result.values.item() < 1.01
    assert not result.converged.any()


def test_a_point_that_is_not_finite_does_not_spoil_the_others():
    """Its own values are nan and not converged."""
    matrices = rotated([3.0, 2.0, 1.0, 0.5], [4.0, 3.0, 1.0, 1.0])
    matrices[0] = torch.nan
    result = run(matrices, 2)
    assert result.values[0].isnan().all()
    assert result.converged.tolist() == [False, True]
    torch.testing.assert_close(result.values[1], torch.tensor([4.0, 3.0]).double())


def test_directions_of_a_similar_map_save_steps():
    """The result does not depend on them."""
    torch.manual_seed(0)
    spectra = [[20.0 * 0.97**i for i in range(400)]] * 3
    matrices = rotated(*spectra)
    first = run(matrices, 1, tolerance=1e-3)
    close = matrices + 1e-3 * torch.randn_like(matrices)
    expected = torch.linalg.svdvals(close)[:, :1]
    cold = run(close, 1, tolerance=1e-3)
    for near in (first.vectors, torch.randn_like(first.vectors)):
        near = near / near.norm(dim=2, keepdim=True)
        warm = run(close, 1, tolerance=1e-3, near=near)
        torch.testing.assert_close(warm.values, expected, rtol=1e-3, atol=0)
        assert warm.converged.all()
    warm = run(close, 1, tolerance=1e-3, near=first.vectors)
    assert warm.steps < 0.8 * cold.steps
    image = torch.einsum("bij,bkj->bki", matrices, first.vectors)
    assert first.vectors.norm(dim=2).tolist() == [[pytest.approx(1)]] * 3
    torch.testing.assert_close(image.norm(dim=2), first.values, rtol=1e-6, atol=0)


@pytest.mark.parametrize("ahead", [1.1, 1.5, 10.0])
def test_misleading_directions_do_no_harm(ahead):
    """Noise in the start finds directions that were small before."""
    values = torch.linspace(1.0, 0.1, 1000, dtype=torch.float64)
    values[700] = ahead
    near = torch.zeros(2, 1, 1000, dtype=torch.float64)
    near[:, :, 0] = 1.0  # an exact singular vector, of the value 1
    result = run(torch.diag(values).expand(2, -1, -1), 1, tolerance=1e-2, near=near)
    assert result.values[:, 0].tolist() == pytest.approx([ahead] * 2, rel=1e-2)
