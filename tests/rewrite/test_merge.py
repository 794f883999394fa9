"""Neighboring layers as one: merges, couplings with linear ends, and `fuse`."""

import pytest
import torch
from torch import nn

import kappaflow as kf
from cases import additive, affine, linear, mixed
from kappaflow.errors import ArgumentError
from kappaflow.flows.base import StandardNormal
from kappaflow.rewrite.merge import backward, forward, merged, pair
from rewrite.examples import flow_of, moved

HALF = kf.Partition.half(5)


TWO_AND_TWO = kf.Partition.half(4)


def same(parts, others):
    """Asserts that two lists of layers are one function."""
    x = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z, log_det = kf.Chain(parts).double()(x)
    other, other_log_det = kf.Chain(others).double()(x)
    assert torch.allclose(other, z, rtol=1e-12, atol=1e-12)
    assert torch.allclose(other_log_det, log_det, rtol=1e-12, atol=1e-12)


def off_start(part):
    """Returns a layer with random weights, in float64."""
    generator = torch.Generator().manual_seed(1)
    for parameter in part.parameters():
        parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return part.double()


@pytest.mark.parametrize("partition", [HALF, HALF.swapped()])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (linear, linear),
        (linear, affine),
        (affine, linear),
        (linear, lambda p: mixed(affine(p), after=True)),
        (linear, lambda p: mixed(affine(p), before=True)),
        (lambda p: mixed(affine(p), before=True), linear),
        (lambda p: mixed(affine(p), after=True), linear),
    ],
)
def test_a_linear_coupling_merges_with_a_neighbor(partition, first, second):
    """Of any kind, on either side."""
    torch.manual_seed(0)
    parts = [off_start(first(partition)), off_start(second(partition))]
    both = pair(*parts)
    assert both is not None
    same(parts, [both])


def test_other_layers_do_not_merge():
    """Two nonlinear couplings, other partitions, and what is no coupling."""
    assert pair(affine(HALF), affine(HALF)) is None
    assert pair(linear(HALF), affine(HALF.swapped())) is None
    assert pair(kf.bijections.ActNorm(5), linear(HALF)) is None
    assert pair(kf.bijections.ActNorm(5), kf.bijections.ActNorm(5)) is None
    assert pair(kf.bijections.ElementwiseAffine(5), kf.bijections.ActNorm(5)) is None


@pytest.mark.parametrize("partition", [HALF, HALF.swapped()])
def test_a_linear_coupling_passes_an_elementwise_map(partition):
    """In either direction, with the same function."""
    torch.manual_seed(0)
    elementwise, coupling = (
        off_start(kf.bijections.ElementwiseAffine(5)),
        off_start(linear(partition)),
    )
    first, second = forward(elementwise, coupling)
    assert isinstance(first, kf.factor.LinearCoupling)
    same([elementwise, coupling], [first, second])
    first, second = backward(coupling, elementwise)
    assert isinstance(second, kf.factor.LinearCoupling)
    same([coupling, elementwise], [first, second])


def test_a_run_is_merged_in_one_pass():
    """Linear couplings pass elementwise maps in both directions to join their neighbors."""
    torch.manual_seed(0)

    def elementwise(_):
        return kf.bijections.ElementwiseAffine(5)

    first = affine, linear, elementwise, linear, linear, elementwise
    second = linear, elementwise, elementwise, affine
    parts = [off_start(make(HALF)) for make in first]
    parts += [off_start(make(HALF.swapped())) for make in second]
    actual = merged(parts)
    same(parts, actual)
    names = [type(part).__name__ for part in actual]
    assert names == ["SandwichCoupling", "ElementwiseAffine", "SandwichCoupling"]


@pytest.mark.parametrize("kind", [affine, additive])
def test_a_sandwich_is_one_affine_coupling(kind):
    """The kept features scale and shift the others."""
    torch.manual_seed(0)
    partition = kf.Partition(5, (0, 3))
    coupling = mixed(kind(partition), before=True, after=True).double()
    for parameter in coupling.parameters():
        parameter.data.normal_(0, 0.5)
    kept = torch.randn(2, dtype=torch.float64).expand(4, 2)
    changed = torch.randn(4, 3, dtype=torch.float64)
    changed[3] = changed[0] + changed[1] - changed[2]  # an affine map keeps such sums
    z, log_det = coupling(partition.merge(kept, changed))
    z_kept, z_changed = partition.split(z)
    assert torch.equal(z_kept, kept)
    assert torch.allclose(z_changed[3], z_changed[0] + z_changed[1] - z_changed[2])
    assert torch.allclose(log_det, log_det[:1])
    slopes = (z_changed[1:3] - z_changed[0]) / (changed[1:3] - changed[0])
    assert torch.allclose(slopes[0], slopes[1]), "each feature has a slope of its own"
    assert torch.allclose(slopes[0].abs().log().sum(), log_det[0])


def test_ends_that_do_not_fit_are_refused():
    """Of another partition, of another kind, or none."""
    half = kf.Partition.half(4)
    with pytest.raises(ArgumentError, match="'after' should have the partition"):
        kf.rewrite.SandwichCoupling(affine(half), after=kf.factor.LinearCoupling(half.swapped()))
    with pytest.raises(ArgumentError, match="got None for both"):
        kf.rewrite.SandwichCoupling(affine(half))
    with pytest.raises(ArgumentError, match="'coupling' should be an affine"):
        kf.rewrite.SandwichCoupling(kf.bijections.ActNorm(4), kf.factor.LinearCoupling(half))
    with pytest.raises(ArgumentError, match="'before' should be a LinearCoupling"):
        kf.rewrite.SandwichCoupling(affine(half), affine(half))


def kinds(flow):
    """Returns the classes of a flow's layers."""
    return [type(part).__name__ for part in flow.bijection]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (
            [kf.bijections.Permutation((1, 2, 3, 0)), kf.bijections.Permutation((2, 0, 3, 1))],
            ["Permutation"],
        ),
        (
            [
                kf.bijections.Permutation((1, 2, 3, 0)),
                kf.Inverse(kf.bijections.Permutation((1, 2, 3, 0))),
            ],
            [],
        ),
        (
            [kf.bijections.ElementwiseAffine(4), kf.Inverse(kf.bijections.ElementwiseAffine(4))],
            ["ElementwiseAffine"],
        ),
        (
            [kf.bijections.ElementwiseAffine(4), kf.bijections.Permutation((1, 2, 3, 0))],
            ["Linear"],
        ),
        (
            [
                kf.bijections.LULinear(4),
                kf.bijections.SVDLinear(4),
                kf.factor.LinearCoupling(TWO_AND_TWO),
            ],
            ["Linear"],
        ),
        ([kf.bijections.LULinear(4)], ["LULinear"]),
        (
            [
                kf.bijections.LULinear(4),
                kf.Chain([kf.bijections.Permutation((1, 2, 3, 0)), affine(TWO_AND_TWO)]),
            ],
            ["Linear", "AffineCoupling"],
        ),
        (
            [
                kf.bijections.Standardize(4),
                kf.bijections.ElementwiseAffine(4),
                kf.bijections.LULinear(4),
            ],
            ["Standardize", "Linear"],
        ),
        (
            [kf.bijections.LULinear(4), kf.bijections.ActNorm(4), kf.bijections.LULinear(4)],
            ["LULinear", "ActNorm", "LULinear"],
        ),
        ([kf.factor.Whiten(4), kf.bijections.LULinear(4)], ["Whiten", "LULinear"]),
    ],
)
def test_a_run_of_linear_layers_is_fused(parts, expected):
    """A permutation, an elementwise map, a matrix, or nothing, with the same function."""
    flow = flow_of(*parts)
    rewritten = kf.fuse(flow)
    assert kinds(rewritten) == expected
    x = torch.randn(9, 4)
    assert torch.allclose(rewritten.log_prob(x), flow.log_prob(x), rtol=1e-5, atol=1e-5)
    z, back = rewritten.bijection(x)[0], flow.bijection(x)[0]
    assert torch.allclose(z, back, rtol=1e-5, atol=1e-5)
    assert torch.allclose(rewritten.bijection.inverse(z)[0], x, rtol=1e-4, atol=1e-4)


def test_a_started_actnorm_is_fused():
    """One that has not started is kept."""
    flow = flow_of(kf.bijections.ActNorm(4), kf.bijections.LULinear(4)).train()
    flow.log_prob(torch.randn(50, 4) * 3 + 1)
    assert kinds(kf.fuse(flow)) == ["Linear"]


@pytest.mark.slow
def test_fusing_undoes_rewriting():
    """One matrix between two couplings is left."""
    layer = nn.utils.parametrizations.orthogonal(nn.Linear(4, 4)).weight.detach()
    flow = flow_of(
        affine(TWO_AND_TWO), kf.bijections.Linear.of(layer), affine(TWO_AND_TWO.swapped())
    )
    plain, certificate = kf.rewrite_fixed_partition(flow)
    assert certificate.replaced[0].name == "Linear"
    assert kinds(plain).count("Linear") == 0
    fused = kf.fuse(plain)
    assert kinds(fused) == ["AffineCoupling", "Linear", "AffineCoupling"]
    x = torch.randn(9, 4)
    assert torch.allclose(fused.log_prob(x), flow.log_prob(x), rtol=1e-5, atol=1e-5)


def test_the_old_flow_does_not_change():
    """The new one has its mode."""
    flow = flow_of(kf.bijections.LULinear(4), kf.bijections.LULinear(4)).eval()
    before = {key: value.clone() for key, value in flow.state_dict().items()}
    rewritten = kf.fuse(flow)
    assert not rewritten.training
    for parameter in rewritten.parameters():
        parameter.data.zero_()
    assert all(torch.equal(value, before[key]) for key, value in flow.state_dict().items())


def test_a_stack_with_nothing_to_fuse_stays_a_stack():
    """With the permutations between its couplings."""
    flow = moved(kf.real_nvp(4, depth=4, hidden=(8,), partition="random"))
    assert kinds(kf.fuse(flow)) == ["Standardize", "CouplingStack"]
    x = torch.randn(9, 4)
    assert torch.equal(kf.fuse(flow).log_prob(x), flow.log_prob(x))


@pytest.mark.parametrize(
    "make", [kf.bijections.LULinear, lambda n: kf.Inverse(kf.bijections.LULinear(n))]
)
def test_a_large_shift_does_not_hide_the_matrix(make):
    """The matrix is a derivative, not a difference of values."""
    units = kf.bijections.ElementwiseAffine(4)
    flow = flow_of(units, make(4), affine(TWO_AND_TWO)).double()
    units.shift.data.sub_(1e8 * units.log_scale.exp().detach())
    x = 1e8 + torch.randn(9, 4, dtype=torch.float64)
    expected = flow.bijection(x)[0]
    actual = kf.fuse(flow).bijection(x)[0]
    assert torch.allclose(actual, expected, rtol=0, atol=1e-6), (actual - expected).abs().max()


def test_a_run_that_is_singular_to_rounding_is_kept():
    """Each layer has an inverse in float32, but not their product."""
    parts = kf.bijections.SVDLinear(4), kf.bijections.SVDLinear(4)
    flow = flow_of(*parts, affine(TWO_AND_TWO))
    for part in parts:
        part.log_scale.data.copy_(torch.tensor([5.0, 0.0, 0.0, -5.0]))
    flow.eval()  # in training its log_prob would warn
    rewritten = kf.fuse(flow).eval()
    assert kinds(rewritten) == ["SVDLinear", "SVDLinear", "AffineCoupling"]
    x = torch.randn(9, 4)
    assert torch.equal(rewritten.log_prob(x), flow.log_prob(x))
    assert kinds(kf.fuse(flow.double())) == ["Linear", "AffineCoupling"]


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["store", "recompute", "invert"])
@pytest.mark.parametrize("change", [kf.fuse, lambda flow: kf.rewrite_fixed_partition(flow)[0]])
def test_memory_modes_are_kept(change, memory):
    """Of stacks, and of chains."""
    stack = change(
        kf.real_nvp(4, depth=3, hidden=(4,), couplings={"memory": memory})
    ).bijection.bijections[-1]
    assert isinstance(stack, kf.CouplingStack) and stack.memory == memory
    chain = kf.Chain([affine(TWO_AND_TWO), kf.bijections.LULinear(4)], memory=memory)
    assert change(kf.Flow(StandardNormal(4), chain)).bijection.memory == memory


@pytest.mark.parametrize("second", [True, False])
def test_a_run_of_frozen_layers_becomes_a_frozen_one(second):
    """With a trainable layer it is trainable; permutations do not count."""
    layers = [
        kf.bijections.LULinear(4),
        kf.bijections.Permutation((1, 2, 3, 0)),
        kf.bijections.LULinear(4),
    ]
    layers[0].requires_grad_(False)
    layers[2].requires_grad_(second)
    fused = kf.fuse(kf.Flow(kf.StandardNormal(4), kf.Chain(layers)))
    (layer,) = fused.bijection
    assert [p.requires_grad for p in layer.parameters()] == [second] * 2
