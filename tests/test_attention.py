"""Attention in a conditioner, whose fused kernels in torch have no second derivatives."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import kappaflow as kf
from kappaflow.linearization import AutogradLinearization
from kappaflow.testing import check_bijection

WIDTH = 8


class Attending(nn.Module):
    """A network with one token for each input, and attention of one kind between them."""

    def __init__(self, inputs, outputs, kind):
        super().__init__()
        self.kind = kind
        self.embedding = nn.Linear(1, WIDTH)
        self.places = nn.Parameter(0.5 * torch.randn(inputs, WIDTH))
        if kind == "MultiheadAttention":
            self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        elif kind == "TransformerEncoderLayer":
            self.attention = nn.TransformerEncoderLayer(
                WIDTH, 2, 16, dropout=0.0, batch_first=True
            )
        self.last = nn.Linear(WIDTH * inputs, outputs)

    def forward(self, x, context=None):
        tokens = self.embedding(x[..., None]) + self.places
        if self.kind == "MultiheadAttention":
            tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        elif self.kind == "TransformerEncoderLayer":
            tokens = self.attention(tokens)
        else:
            head = tokens[:, None]
            tokens = tokens + functional.scaled_dot_product_attention(head, head, head)[:, 0]
        return self.last(tokens.flatten(1)).tanh()


class ByHand(nn.Module):
    """Two couplings written by hand, as a flow of another library."""

    def __init__(self, kind):
        super().__init__()
        self.nets = nn.ModuleList(Attending(2, 4, kind) for _ in range(2))

    def encode(self, x):
        log_det = x.new_zeros(len(x))
        for net in self.nets:
            kept, changed = x.chunk(2, 1)
            scale, shift = net(kept).chunk(2, 1)
            x, log_det = (
                torch.cat((changed * scale.exp() + shift, kept), 1),
                log_det + scale.sum(1),
            )
        return x, log_det

    def decode(self, z):
        log_det = z.new_zeros(len(z))
        for net in reversed(self.nets):
            changed, kept = z.chunk(2, 1)
            scale, shift = net(kept).chunk(2, 1)
            z = torch.cat((kept, (changed - shift) * (-scale).exp()), 1)
            log_det = log_det - scale.sum(1)
        return z, log_det


def couplings(kind, memory="store"):
    """Two couplings of kappaflow as a flow."""
    layers = [
        kf.bijections.AffineCoupling(kf.Partition(4, kept), Attending(2, 4, kind))
        for kept in ((0, 1), (2, 3))
    ]
    return kf.Flow(kf.StandardNormal(4), kf.Chain(layers, memory=memory))


@pytest.fixture(params=["MultiheadAttention", "TransformerEncoderLayer", "function"])
def kind(request):
    """The form of attention."""
    return request.param


@pytest.fixture(params=[couplings, ByHand])
def flow(request, kind):
    """A flow in evaluation mode, where TransformerEncoderLayer would use one fused operation."""
    torch.manual_seed(0)
    return request.param(kind).eval()


def rows(n=16):
    """Rows of N(0, I)."""
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(0))


def test_singular_values_are_those_of_the_jacobian(flow):
    """In the profile, and by Lanczos iterations."""
    x = rows(4)
    wrapped = kf.wrap(flow.double(), x.double())
    profile = kf.profile(wrapped, x.double())
    lanczos = kf.spectrum(wrapped.bijection, x.double(), method="lanczos")
    for i, one in enumerate(x.double()):
        matrix = torch.autograd.functional.jacobian(
            lambda a: wrapped.bijection(a[None])[0][0], one
        )
        values = torch.linalg.svdvals(matrix)
        torch.testing.assert_close(profile.sigma_max[-1, i], values[0])
        torch.testing.assert_close(1 / profile.sigma_min[-1, i], 1 / values[-1])
        torch.testing.assert_close(lanczos.condition_number[i], values[0] / values[-1])


def test_the_doctor_and_the_contract_examine_such_flows(flow):
    """Without an error, and without leaving out a check."""
    diagnosis = kf.doctor(flow, rows())
    assert diagnosis.ok and diagnosis.measured["not_checked"] == ""
    check_bijection(kf.wrap(flow, rows()).bijection, rows(4))


def test_a_condition_budget_trains_such_flows(flow):
    """Its penalty differentiates the derivatives."""
    wrapped = kf.wrap(flow, rows())
    before = [parameter.clone() for parameter in flow.parameters()]
    kf.fit(wrapped, rows(100), max_epochs=1, progress=False, condition_budget=100.0)
    assert any(not torch.equal(a, b) for a, b in zip(before, flow.parameters(), strict=True))


@pytest.mark.parametrize("memory", ["recompute", "invert"])
def test_memory_modes_differentiate_twice(kind, memory):
    """Their backward pass runs the layers again, with derivatives of the same values."""
    torch.manual_seed(0)
    flow = couplings(kind, memory).double()
    x = rows().double().requires_grad_()
    (score,) = torch.autograd.grad(flow.log_prob(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(score[0, 0], x)
    step = 1e-5 * torch.eye(4, dtype=torch.float64)[0]

    def slope(at):
        at = at.detach().requires_grad_()
        return torch.autograd.grad(flow.log_prob(at).sum(), at)[0][0, 0]

    expected = (slope(x + step) - slope(x - step)) / 2e-5
    torch.testing.assert_close(second[0, 0], expected, rtol=1e-5, atol=1e-6)


def test_products_with_a_softmax_are_differentiable():
    """Torch's derivative of softmax in forward mode works in place."""
    weight = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)

    def encode(x, context):
        value = x + (x @ weight).softmax(1)
        return value, value[:, 0]

    x, v = torch.randn(2, 5, 3, dtype=torch.float64)

    def product(at):
        return AutogradLinearization(lambda x, c: encode(x, c), encode, at, None).jv(v)

    assert torch.autograd.gradcheck(product, x.requires_grad_())
    product(x).square().sum().backward()
    assert weight.grad is not None and weight.grad.abs().sum() > 0
