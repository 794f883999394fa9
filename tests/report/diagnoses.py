"""Diagnoses of real flows for the tests of their pages."""

import torch

import kappaflow as kf


def with_wrong_samples():
    """A flow whose samples come with the log_det of the wrong sign: KF206."""

    class Sampling(kf.Flow):
        def sample_and_log_prob(self, n, context=None, *, generator=None):
            x, log_prob = super().sample_and_log_prob(n, context, generator=generator)
            return x, log_prob - 2 * self.bijection(x, context)[1]

    flow = Sampling(kf.StandardNormal(2), kf.bijections.ElementwiseAffine(2, log_scale=[1.0, 0.0]))
    return kf.doctor(flow, points())


def ill_conditioned():
    """A flow of a condition number of e^14: KF301."""
    layers = kf.bijections.ElementwiseAffine(2, log_scale=[12.0, -2.0])
    return kf.doctor(kf.Flow(kf.StandardNormal(2), layers), 1e-6 * points())


def not_finite():
    """A flow whose scale overflows: KF101."""
    layers = kf.bijections.ElementwiseAffine(2, log_scale=[200.0, 0.0])
    return kf.doctor(kf.Flow(kf.StandardNormal(2), layers), points())


def with_small_error():
    """A log_det that is off by 0.01 nats where it varies by several: KF203."""
    torch.manual_seed(0)
    flow = kf.real_nvp(2, depth=4, hidden=(8,)).double()
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.5)

    class Off:
        def encode(self, x):
            z, log_det = flow.bijection(x)
            return z, log_det + 0.01

        def decode(self, z):
            x, log_det = flow.bijection.inverse(z)
            return x, log_det - 0.01

    return kf.doctor(Off(), points().double())


def healthy():
    """A flow without a finding above a note."""
    return kf.doctor(kf.real_nvp(3, depth=2, hidden=(8,)), torch.randn(64, 3))


def points():
    """64 points of N(0, I)."""
    return torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
