"""Flows on circles and intervals: the doctor measures through the bounds and knows the seam."""

import math

import pytest
import torch

import kappaflow as kf
from diagnosis.faulty import doctor
from kappaflow.testing.contract import jittered


def angles(rows=64):
    """Returns rows of two angles."""
    generator = torch.Generator().manual_seed(0)
    return (2 * torch.rand(rows, 2, generator=generator) - 1) * 3.1


def cut(bounds, width):
    """Returns a flow whose latents are `width` times narrower than the base, after a domain."""
    scales = kf.bijections.ElementwiseAffine(2, log_scale=[-math.log(width)] * 2)
    return kf.Flow(kf.StandardNormal(2), kf.Chain([kf.bijections.Domain(bounds), scales]))


def test_a_healthy_flow_on_circles_has_no_finding():
    """Latents far out are next to the seam: KF303 compares points on the circle."""
    torch.manual_seed(0)
    flow = kf.spline(2, depth=4, hidden=(16,), bounds=["circular"] * 2)
    flow.standardization.fit(angles())
    assert doctor(jittered(flow), angles()).findings == ()


def test_a_layer_that_loses_points_of_a_circle_far_out_is_found():
    """KF303 still sees a layer that is wrong in a part of the circle that few samples reach."""

    class Sticky(kf.Bijection):
        def forward(self, x, context=None):
            return torch.where(x > 4.8, x - 0.1, x), torch.zeros(len(x))

        def inverse(self, z, context=None):
            return z, torch.zeros(len(z))

    parts = [
        kf.bijections.Domain(["circular"] * 2, circle=5.0),
        Sticky(),
        kf.bijections.CircleToLine(2, [0, 1], half_period=5.0),
    ]
    diagnosis = doctor(kf.Flow(kf.StandardNormal(2), kf.Chain(parts)), angles().clamp(-2, 2))
    assert {"KF202", "KF303"} & {finding.code for finding in diagnosis.findings}


@pytest.mark.parametrize(
    ("bounds", "width", "warns"),
    [
        ([(0, 1)] * 2, 2.0, True),
        ([(0, 1)] * 2, 1.0, False),
        (["positive"] * 2, 2.0, False),
    ],
)
def test_samples_next_to_an_end_have_no_reliable_density_in_float32(bounds, width, warns):
    """KF206: an end where the density has no bound, unless float32 resolves it, as next to 0."""
    flow = cut(bounds, width)
    diagnosis = doctor(flow, flow.sample(64).detach())
    by_code = {finding.code: finding for finding in diagnosis.findings}
    assert ("KF206" in by_code) == warns
    if warns:
        finding = by_code["KF206"]
        assert finding.severity == "warning" and finding.evidence["worst_nats"] > 1
        assert "float32" in finding.cause and "float64" in finding.fix
        assert "KF206" not in {finding.code for finding in doctor(flow.double()).findings}


def test_padded_flows_are_measured_through_their_bounds():
    """KF206 compares the joint density of the columns and the padding."""
    scales = kf.bijections.ElementwiseAffine(2, log_scale=[-1.2, 0.0])
    chain = kf.Chain([kf.bijections.Domain([(0, 1), None]), scales])
    flow = kf.Flow(kf.StandardNormal(2), chain, augment=kf.flows.Pad(1))
    results = doctor(flow, torch.rand(64, 1)).findings
    assert "KF206" in {finding.code for finding in results}
