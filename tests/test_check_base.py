"""Every law of a base can be broken: each mutant is caught by the law meant for it."""

import pytest
import torch
from torch import nn

import kappaflow as kf
from kappaflow.errors import ArgumentError
from kappaflow.flows import Base
from kappaflow.testing import ContractError, check_base, check_flow


class Right(Base):
    """A correct base of two features with a learned scale, which mutants break."""

    def __init__(self):
        super().__init__()
        self.event_shape = (2,)
        self.log_scale = nn.Parameter(torch.zeros(2))

    def log_prob(self, z, context=None):
        scaled = z * (-self.log_scale).exp()
        return kf.StandardNormal(2).log_prob(scaled) - self.log_scale.sum()

    def sample(self, n, *, context=None, dtype=torch.float32, device=None, generator=None):
        noise = torch.randn(n, 2, dtype=dtype, generator=generator)
        return (noise * self.log_scale.exp()).to(dtype)


def mutant(*, log_prob=None, sample=None):
    """Returns a class of bases whose densities or samples are changed by a function."""

    class Made(Right):
        def log_prob(self, z, context=None):
            density = super().log_prob(z)
            return density if log_prob is None else log_prob(z, density)

        def sample(self, n, **named):
            z = super().sample(n, **named)
            return z if sample is None else sample(z)

    return Made


def correlated(z):
    """Returns samples of which each coordinate is right, but not both together."""
    return torch.stack((z[:, 0], 0.5 * z[:, 0] + 0.75**0.5 * z[:, 1]), 1)


class Counting(Right):
    """A call changes its state."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def log_prob(self, z, context=None):
        self.calls += 1
        return super().log_prob(z)


class Global(Right):
    """Ignores its generator."""

    def sample(self, n, *, generator=None, **named):
        return super().sample(n, **named)


class Fixed(Right):
    """Always gives the same samples."""

    def sample(self, n, *, generator=None, **named):
        return super().sample(n, generator=torch.Generator().manual_seed(0), **named)


class Unused(Right):
    """Has a parameter that nothing reads."""

    def __init__(self):
        super().__init__()
        self.other = nn.Parameter(torch.zeros(3))


@pytest.mark.parametrize(
    ("base", "law"),
    [
        (mutant(log_prob=lambda z, density: density + 0.1), "should integrate to 1, got 1.1"),
        (mutant(sample=lambda z: 0.9 * z), "samples should follow log_prob"),
        (mutant(sample=lambda z: z + 0.1), "samples should follow log_prob"),
        (mutant(sample=correlated), "samples should follow log_prob"),
        (
            mutant(sample=lambda z: z * torch.tensor([1.0, 0.0])),
            "samples should vary in each coordinate",
        ),
        (
            mutant(log_prob=lambda z, density: density.where(z[:, 0] > -2, torch.nan)),
            "should be (finite|a number or -inf)",
        ),
        (
            mutant(log_prob=lambda z, density: density + 0.01 * z.mean()),
            "should not depend on the other rows",
        ),
        (Counting, "should change no state"),
        (Global, "should repeat with the generator's seed"),
        (Fixed, "should depend on the generator's seed"),
        (
            mutant(log_prob=lambda z, density: density.bfloat16()),
            "float32 or wider, got torch.bfloat16",
        ),
        (
            mutant(sample=torch.Tensor.detach),
            "gradients of samples should reach .* set has_rsample = False",
        ),
        (Unused, r"gradients of log_prob should reach .* \['base.other'\]"),
    ],
)
def test_each_law_is_broken_by_a_mutant(base, law):
    with pytest.raises(ContractError, match=law):
        check_base(base())


def test_a_correct_base_passes():
    base = Right()
    check_base(base)
    base.has_rsample = False
    check_base(base)


def test_a_conditional_base_needs_its_context():
    base = kf.flows.ClassConditionalNormal(2, classes=3)
    with pytest.raises(ArgumentError, match=r"shape \(B, 3\) with two rows or more, got none"):
        check_base(base)
    with pytest.raises(ArgumentError, match="got Linear"):
        check_base(nn.Linear(2, 2))


def test_many_features_are_not_testable():
    with pytest.raises(ContractError, match="not testable with 40 features: use a base of at"):
        check_base(kf.StandardNormal(40))


def test_a_flow_is_checked_with_its_base():
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    bijection = kf.Chain([kf.bijections.ElementwiseAffine(2)])
    check_flow(kf.Flow(Right(), bijection), x)
    with pytest.raises(ContractError, match="samples should follow log_prob"):
        check_flow(kf.Flow(mutant(sample=lambda z: z + 0.1)(), bijection), x)
