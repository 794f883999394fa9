"""Distances between laws, against cases that are known."""

import math

import pytest
import torch

import kappaflow as kf
from kappaflow_studies.universal.approximation import transport_error, two_sample_w2
from kappaflow_studies.universal.targets import UniformCube

SQUARE = UniformCube()


def test_a_shift_has_its_length():
    """W2 between a sample and the same sample elsewhere."""
    a = torch.randn(200, 3, dtype=torch.float64)
    shift = torch.tensor([3.0, -4.0, 12.0])
    assert two_sample_w2(a, (a + shift)[torch.randperm(200)]) == pytest.approx(13.0, rel=1e-12)


def test_on_the_line_it_pairs_by_rank():
    """The closed form in one dimension."""
    a, b = torch.randn(300, 1), torch.rand(300, 1)
    expected = (a.double().sort(0)[0] - b.double().sort(0)[0]).square().mean().sqrt().item()
    assert two_sample_w2(a, b) == pytest.approx(expected, rel=1e-12)


def test_it_is_the_optimal_transport_cost():
    """That of POT, where it is installed."""
    ot = pytest.importorskip("ot")
    a, b = torch.randn(100, 2), torch.rand(100, 2)
    costs = torch.cdist(a.double(), b.double()).square().numpy()
    assert two_sample_w2(a, b) == pytest.approx(math.sqrt(ot.emd2([], [], costs)), rel=1e-9)


def test_samples_of_two_shapes_are_refused():
    """A pairing needs as many points on both sides."""
    with pytest.raises(kf.errors.ArgumentError, match="one shape"):
        two_sample_w2(torch.zeros(3, 2), torch.zeros(4, 2))


def gaussian(scale):
    """Returns the flow whose draws are scale * z."""
    part = kf.bijections.ElementwiseAffine(2, log_scale=[-math.log(scale)] * 2)
    return kf.Flow(kf.StandardNormal(2), part).double()


class Plain(UniformCube):
    """The standard normal itself, as a target."""

    def transport(self, z):
        return z


def test_the_error_of_a_known_map_is_found():
    """E |z / 2 - z|^2 = 1 / 2 in two dimensions, within four standard errors."""
    error = transport_error(gaussian(0.5), Plain(), samples=50_000)
    assert abs(error.bound - math.sqrt(0.5)) < 4 * error.standard_error
    assert error.unseen == 0


def test_the_standard_error_is_the_spread_over_seeds():
    """Of forty estimates, within a third."""
    found = [transport_error(gaussian(0.5), Plain(), samples=500, seed=i) for i in range(40)]
    spread = torch.tensor([error.bound for error in found]).std().item()
    assert spread == pytest.approx(found[0].standard_error, rel=0.34)


def test_all_samples_are_used_however_many_are_in_memory(monkeypatch):
    """Four chunks, the last one short; the mean is over all of them."""
    seen = []

    class Seen(Plain):
        def transport(self, z):
            seen.append(len(z))
            return z + len(seen)

    monkeypatch.setattr("kappaflow_studies.universal.approximation.CHUNK_SIZE", 300)
    error = transport_error(gaussian(1.0), Seen(), samples=1000)
    assert seen == [300, 300, 300, 100]
    assert error.bound**2 == pytest.approx(2 * (0.3 * (1 + 4 + 9) + 0.1 * 16), rel=1e-12)


@pytest.mark.parametrize(
    ("flow", "samples", "message"),
    [
        (kf.real_nvp(3, depth=1, hidden=(4,)), 100, "target's 2 features"),
        (gaussian(1.0), 1, "at least 2"),
    ],
)
def test_what_cannot_be_compared_is_refused(flow, samples, message):
    """Another number of features, or no spread."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        transport_error(flow, SQUARE, samples=samples)
