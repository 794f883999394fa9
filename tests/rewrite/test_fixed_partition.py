"""A flow on one partition is the same function, and a flow like any other."""

import dataclasses

import pytest
import torch

import kappaflow as kf
from cases import affine
from kappaflow.errors import ArgumentError
from kappaflow.flows.base import StandardNormal
from kappaflow.flows.recipe import from_options
from kappaflow.rewrite import certificate as module
from kappaflow.rewrite.layers import is_elementwise, partition_of
from rewrite.examples import flow_of, moved


def recipe(features, partition, depth=4, **settings):
    """Returns a RealNVP with random weights."""
    return moved(
        from_options(
            kf.real_nvp, features, depth=depth, hidden=(8, 8), partition=partition, **settings
        )
    )


def couplings_of(flow):
    """Returns all couplings of a flow, stacks opened."""
    parts = []
    for part in flow.bijection:
        parts += part.plain() if isinstance(part, kf.CouplingStack) else [part]
    return [part for part in parts if partition_of(part)]


FLOWS = {
    "random": lambda: recipe(6, "random"),
    "alternating": lambda: recipe(6, "alternating"),
    "random halves": lambda: recipe(8, "random-half", 6),
    "half": lambda: recipe(6, "half"),
    "two features": lambda: recipe(2, "random"),
    "odd, alternating": lambda: recipe(5, "alternating"),
    "additive": lambda: moved(kf.nice(4, depth=4, hidden=(8,), partition="random")),
    "standardized": lambda: standardized(),
    "elementwise maps": lambda: flow_of(
        kf.bijections.Permutation((3, 1, 0, 2)),
        kf.bijections.ElementwiseAffine(4),
        affine(kf.Partition.half(4)),
        kf.bijections.ElementwiseAffine(4),
        kf.bijections.Permutation((1, 2, 3, 0)),
        kf.bijections.ElementwiseAffine(4),
        affine(kf.Partition.half(4).swapped()),
        features=4,
    ),
    "linear layers in a row": lambda: flow_of(
        kf.bijections.LULinear(4),
        kf.bijections.ElementwiseAffine(4),
        kf.bijections.Permutation((3, 1, 0, 2)),
        kf.bijections.ElementwiseAffine(4),
        kf.bijections.SVDLinear(4),
        kf.bijections.ElementwiseAffine(4),
        kf.bijections.ElementwiseAffine(4),
        affine(kf.Partition.half(4)),
        kf.bijections.Permutation((1, 0, 3, 2)),
        kf.bijections.ElementwiseAffine(4),
        kf.factor.LinearCoupling(kf.Partition.half(4)),
        kf.bijections.QRLinear(4),
        kf.bijections.LULinear(4),
        kf.bijections.ElementwiseAffine(4),
        affine(kf.Partition.alternating(4)),
    ),
    "a linear coupling behind a linear layer": lambda: flow_of(
        kf.bijections.LULinear(4),
        kf.factor.LinearCoupling(kf.Partition.half(4)),
        affine(kf.Partition.half(4)),
    ),
    "inverses": lambda: flow_of(
        kf.Inverse(
            kf.Chain([kf.bijections.Permutation((1, 2, 3, 0)), kf.bijections.ElementwiseAffine(4)])
        ),
        affine(kf.Partition.alternating(4)),
    ),
    "inverses of couplings": lambda: flow_of(
        kf.Inverse(affine(kf.Partition.alternating(4))),
        kf.bijections.Permutation((1, 2, 3, 0)),
        kf.Inverse(affine(kf.Partition.half(4))),
        kf.bijections.ElementwiseAffine(4),
        kf.bijections.LULinear(4),
        affine(kf.Partition.half(4)),
    ),
    "an inverse of an inverse": lambda: flow_of(
        kf.Inverse(
            kf.Chain([
                kf.Inverse(affine(kf.Partition.alternating(4))),
                kf.bijections.LULinear(4),
            ])
        )
    ),
    "nested, the same way twice": lambda: flow_of(
        kf.Chain([affine(kf.Partition.half(4)), kf.bijections.Permutation((2, 0, 3, 1))]),
        affine(kf.Partition.half(4)),
    ),
}


def standardized():
    """Returns a flow whose standardization is fitted."""
    flow = recipe(6, "random")
    flow.bijection.bijections[0].fit(torch.randn(50, 6) * 3 + 1)
    return flow


LONG = ("alternating", "random", "random halves", "standardized", "linear layers in a row")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in FLOWS],
)
def test_the_function_is_the_same_and_all_couplings_have_one_partition(name):
    """z, log_det and log_prob in float64 to 1e-9, in float32 to 1e-3; samples too.

    The partition's parts may be exchanged; only elementwise maps are left between couplings.
    """
    flow = FLOWS[name]()
    state = {key: value.clone() for key, value in flow.state_dict().items()}
    rewritten, certificate = kf.rewrite_fixed_partition(flow)
    assert certificate.points == 256
    for kind, allowed in (("float64", 1e-9), ("float32", 1e-3)):
        actual = dataclasses.astuple(certificate.differences[kind])
        assert max(actual) <= allowed, actual
    x = flow.sample(20, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(rewritten.log_prob(x), flow.log_prob(x), atol=1e-3)
    z = torch.randn(20, *flow.event_shape)
    expected, actual = (f.bijection.inverse(z)[0].detach() for f in (flow, rewritten))
    assert torch.allclose(actual, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert all(torch.equal(state[key], value) for key, value in flow.state_dict().items())
    half = kf.Partition.half(*flow.event_shape)
    couplings = couplings_of(rewritten)
    assert {partition_of(part) for part in couplings} <= {half, half.swapped()}
    assert len(couplings) == certificate.couplings_after
    assert certificate.left == ()
    next_to = [part for part in rewritten.bijection if not isinstance(part, kf.CouplingStack)]
    assert all(partition_of(part) or is_elementwise(part) for part in next_to)


@pytest.mark.slow
def test_a_permutation_between_couplings_costs_four():
    """Six couplings, of which both ends join a neighbor: that is what depth costs."""
    half = kf.Partition.half(8)
    flow = flow_of(
        affine(half), kf.bijections.Permutation.random(8, seed=1), affine(half), features=8
    )
    _, certificate = kf.rewrite_fixed_partition(flow)
    inside, outside = certificate.replaced
    assert (inside.name, inside.couplings) == ("Permutation", 6)
    assert inside.residual <= 1e-14
    numbers = inside.condition_numbers + outside.condition_numbers
    assert max(numbers) == certificate.condition_number <= 13.6
    assert (certificate.couplings_before, certificate.mixing_before) == (2, 1)
    assert certificate.joined == 3, "two inside, one at the last coupling"
    assert certificate.couplings_after == 2 + 6 + outside.couplings - 3


def test_a_permutation_within_the_halves_needs_no_coupling():
    """Conditioners are reordered if no feature changes its half."""
    flow = flow_of(
        affine(kf.Partition.half(4)),
        kf.bijections.Permutation((1, 0, 3, 2)),
        affine(kf.Partition.half(4).swapped()),
        kf.bijections.Permutation((1, 0, 3, 2)),
    )
    rewritten, certificate = kf.rewrite_fixed_partition(flow)
    assert certificate.replaced == ()
    assert certificate.couplings_after == 2
    assert isinstance(rewritten.bijection.bijections[0], kf.CouplingStack)


@pytest.mark.slow
def test_alternating_partitions_move_the_features_once():
    """Even and odd features: moved at the first coupling, and back at the end."""
    _, certificate = kf.rewrite_fixed_partition(recipe(6, "alternating", 10))
    assert [linear.name for linear in certificate.replaced] == ["another partition"] * 2


@pytest.mark.slow
def test_a_conditional_flow_is_compared_with_its_contexts():
    """The embedding of the context is taken over; without points there is nothing to compare."""
    flow = recipe(6, "random", context_features=2)
    x, context = torch.randn(30, 6), torch.randn(30, 2)
    rewritten, certificate = kf.rewrite_fixed_partition(flow, x, context=context)
    assert certificate.points == 30
    assert certificate.differences["float64"].log_prob <= 1e-9
    assert torch.allclose(rewritten.log_prob(x, context), flow.log_prob(x, context), atol=1e-3)
    rewritten, certificate = kf.rewrite_fixed_partition(flow, x, context=context[:1])
    assert certificate.points == 30
    for rows, contexts, message in (
        (x, context[:7], "a row for each of the 30 rows of 'x', got 7"),
        (x[:1], context, "a row for each of the 1 rows of 'x', got 30"),
        (x, context * torch.inf, "'context' should hold finite"),
        (None, None, "'x' and 'context' should be given"),
    ):
        with pytest.raises(ArgumentError, match=message):
            kf.rewrite_fixed_partition(flow, rows, context=contexts)


@pytest.mark.slow
def test_the_new_flow_trains_and_is_stored(tmp_path):
    """It is a flow like any other."""
    torch.manual_seed(0)
    rewritten, _ = kf.rewrite_fixed_partition(recipe(4, "random"))
    x = torch.randn(60, 4) @ torch.randn(4, 4)
    kf.save(rewritten, tmp_path / "model")
    assert torch.equal(kf.load(tmp_path / "model").log_prob(x), rewritten.log_prob(x))
    before = rewritten.log_prob(x).mean()
    kf.fit(rewritten, x, max_epochs=5)
    assert rewritten.log_prob(x).mean() > before


def test_unknown_layers_are_kept():
    """They get the features in their old order, and the certificate names them."""
    torch.manual_seed(0)

    class Cubic(kf.Bijection):
        def forward(self, x, context=None):
            scale = torch.arange(1.0, 5.0).to(x)
            return (x * scale).sinh(), ((x * scale).cosh() * scale).log().sum(1)

        def inverse(self, z, context=None):
            raise NotImplementedError

    flow = flow_of(
        affine(kf.Partition.alternating(4)),
        kf.bijections.Logit(-9.0, 9.0),
        Cubic(),
        affine(kf.Partition.half(4)),
    )
    x = 0.3 * torch.randn(40, 4)
    _, certificate = kf.rewrite_fixed_partition(flow, x)
    assert certificate.left == ("Logit", "Cubic")
    assert certificate.differences["float64"].log_prob <= 1e-9


@pytest.mark.slow
def test_another_partition_is_used():
    """Even and odd features, or parts of other sizes, if couplings have those sizes."""
    rewritten, certificate = kf.rewrite_fixed_partition(
        recipe(6, "random"), partition="alternating"
    )
    even = kf.Partition.alternating(6)
    assert {partition_of(part) for part in couplings_of(rewritten)} <= {even, even.swapped()}
    assert certificate.differences["float64"].log_prob <= 1e-9
    with pytest.raises(ArgumentError, match="parts of the sizes that the couplings"):
        kf.rewrite_fixed_partition(recipe(6, "random"), partition=2)


def test_other_arguments_than_a_flow_are_refused():
    """Numbers, and chains that embed the context inside the chain."""
    with pytest.raises(ArgumentError, match="'flow' should be a Flow, got int"):
        kf.rewrite_fixed_partition(3)
    inner = kf.Chain(
        [affine(kf.Partition.half(4), context=3)],
        embedding=torch.nn.Linear(2, 3),
        context_features=2,
    )
    with pytest.raises(ArgumentError, match="a context embedding"):
        kf.rewrite_fixed_partition(flow_of(inner))


@pytest.mark.parametrize(
    ("points", "message"),
    [(torch.zeros(0, 6), "at least one row"), (torch.full((2, 6), torch.nan), "finite")],
)
def test_points_that_are_missing_or_not_finite_are_refused(points, message):
    """They have no largest difference."""
    with pytest.raises(ArgumentError, match=message):
        kf.rewrite_fixed_partition(recipe(6, "random"), points)


def test_layers_that_start_from_data_are_not_started():
    """By the comparison, in either flow; modes do not change."""
    half = kf.Partition.half(4)
    flow = flow_of(
        kf.bijections.ActNorm(4), affine(half), kf.bijections.Permutation((1, 2, 3, 0)), features=4
    ).train()
    waiting = flow.bijection.bijections[0]
    flow.bijection.bijections[1].eval()
    rewritten, certificate = kf.rewrite_fixed_partition(flow, 3 * torch.randn(50, 4) + 1)
    assert not waiting.initialized and not rewritten.bijection.bijections[0].initialized
    assert certificate.differences["float64"].log_prob <= 1e-9
    assert flow.training and not flow.bijection.bijections[1].training


def test_all_points_are_compared(monkeypatch):
    """In chunks, with their contexts; the largest difference is that of all."""
    flow, other = recipe(4, "random", context_features=2), recipe(4, "half", context_features=2)
    x, context = torch.randn(50, 4), torch.randn(50, 2)
    answers = [(*f.bijection(x, context), f.log_prob(x, context)) for f in (flow, other)]
    expected = [(a - b).abs().max().item() for a, b in zip(*answers, strict=True)]
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 7)
    for order in (torch.arange(50), torch.arange(50).flip(0)):
        actual = module.difference(flow, other, x[order], context[order], torch.float64)
        assert dataclasses.astuple(actual) == pytest.approx(expected, rel=1e-4)


class Shifted(kf.AffineCoupling):
    """A subclass that adds one to the output."""

    def forward(self, x, context=None):
        """Returns one more."""
        z, log_det = super().forward(x, context)
        return z + 1, log_det

    def inverse(self, z, context=None):
        """Returns what it was."""
        return super().inverse(z - 1, context)


@pytest.mark.slow
def test_a_coupling_of_another_class_keeps_its_partition():
    """Linear maps next to it are factored on the requested partition."""
    own = affine(kf.Partition.alternating(4))
    flow = flow_of(
        Shifted(own.partition, own.conditioner),
        kf.bijections.Permutation((1, 2, 3, 0)),
        affine(kf.Partition.half(4)),
    )
    rewritten, certificate = kf.rewrite_fixed_partition(flow, torch.randn(20, 4))
    assert certificate.left == ("Shifted",)
    assert certificate.differences["float64"].log_prob <= 1e-9
    half = kf.Partition.half(4)
    others = {partition_of(p) for p in rewritten.bijection if not isinstance(p, Shifted)}
    assert others <= {half, half.swapped()}


def twice(module, inputs, answer):
    """A hook that doubles the output of a layer."""
    return answer * 2


def one_more(module, inputs, answer):
    """A hook that adds one to the output of a bijection."""
    return answer[0] + 1, answer[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda flow: flow.bijection.bijections[2].register_forward_hook(one_more),
        lambda flow: flow.bijection.bijections[3].register_forward_hook(one_more),
        lambda flow: flow.bijection.bijections[4].register_forward_hook(one_more),
        lambda flow: flow.bijection.bijections[5].register_forward_hook(one_more),
        lambda flow: (
            flow.bijection.bijections[2].conditioner.layers[-1].register_forward_hook(twice)
        ),
        lambda flow: torch.nn.utils.parametrizations.weight_norm(
            flow.bijection.bijections[2].conditioner.layers[0]
        ),
    ],
)
def test_hooks_and_parametrizations_keep_their_effect(change):
    """Layers with hooks or parametrizations are not replaced by their weights."""
    half = kf.Partition.half(4)
    flow = flow_of(
        affine(half),
        kf.bijections.Permutation((1, 0, 3, 2)),
        affine(half),
        kf.bijections.ElementwiseAffine(4),
        kf.factor.LinearCoupling(half),
        kf.bijections.Permutation((0, 2, 1, 3)),
    )
    change(flow)
    _, certificate = kf.rewrite_fixed_partition(flow, torch.randn(20, 4))
    assert certificate.differences["float64"].log_prob <= 1e-9


def test_a_map_that_cannot_be_factored_is_named():
    """By the layers that it replaces."""
    half = kf.Partition.half(8)
    flow = flow_of(
        affine(half), kf.bijections.Permutation.random(8, seed=1), affine(half), features=8
    )
    with pytest.raises(ArgumentError, match="the flow's Permutation: 'couplings' should be"):
        kf.rewrite_fixed_partition(flow, couplings=3)
    flow = flow_of(
        kf.bijections.Linear(4),
        kf.bijections.LULinear(4),
        affine(kf.Partition.half(4)),
    )
    flow.bijection.bijections[0].weight.data.zero_()
    with pytest.raises(ArgumentError, match="the flow's Linear and LULinear: 'matrix' should be"):
        kf.rewrite_fixed_partition(flow, torch.randn(9, 4))


def flips(*parts):
    """Returns which of the linear maps of 8 features have a negative scale."""
    flow = kf.Flow(StandardNormal(8), kf.Chain(parts))
    return [linear.flipped for linear in kf.rewrite_fixed_partition(flow)[1].replaced]


@pytest.mark.slow
def test_two_odd_permutations_need_no_negative_scale():
    """Two more features swap at the first one, and back at the second."""
    half, swap = kf.Partition.half(8), kf.bijections.Permutation((4, 1, 2, 3, 0, 5, 6, 7))
    assert flips(swap, affine(half), swap, affine(half)) == [False] * 3
    assert flips(swap, affine(half)) == [False, True], "one alone does, at the end"


@pytest.mark.slow
def test_a_logit_of_all_features_does_not_restore_their_order():
    """It is the same function of each feature."""
    parts = [affine(kf.Partition.alternating(4)) for _ in range(2)]
    _, without = kf.rewrite_fixed_partition(flow_of(*parts))
    flow = flow_of(parts[0], kf.bijections.Logit(-99.0, 99.0), parts[1])
    _, certificate = kf.rewrite_fixed_partition(flow, torch.randn(9, 4))
    assert len(certificate.replaced) == len(without.replaced) == 2


@pytest.mark.slow
def test_a_logit_with_padding_restores_the_order():
    """It changes only some features."""
    parts = [affine(kf.Partition.alternating(4)) for _ in range(2)]
    flow = flow_of(parts[0], kf.bijections.Logit(-99.0, 99.0, padding=2), parts[1])
    _, certificate = kf.rewrite_fixed_partition(flow, torch.randn(9, 4))
    assert certificate.differences["float64"].log_prob <= 1e-9


def test_an_untrained_linear_layer_needs_no_coupling():
    """It is the identity, and not part of the certificate."""
    half = kf.Partition.half(4)
    parts = affine(half), kf.bijections.LULinear(4), affine(half.swapped())
    _, certificate = kf.rewrite_fixed_partition(kf.Flow(StandardNormal(4), kf.Chain(parts)))
    assert certificate.replaced == ()


@pytest.mark.slow
def test_condition_numbers_are_in_the_order_of_the_flow():
    """They are those of the couplings in the new flow."""
    rewritten, certificate = kf.rewrite_fixed_partition(flow_of(kf.bijections.LULinear(4)))
    (linear,) = certificate.replaced
    actual = [part.condition_number for part in couplings_of(rewritten)]
    assert actual == pytest.approx(list(linear.condition_numbers), rel=1e-5)
    assert actual != pytest.approx(actual[::-1], rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("partition", [kf.Partition.half(4), kf.Partition.half(4).swapped()])
@pytest.mark.parametrize("first", [True, False])
def test_a_map_at_either_end_of_the_flow_merges_with_its_neighbor(partition, first):
    """One of six couplings merges."""
    parts = [kf.bijections.LULinear(4), affine(partition)][:: 1 if first else -1]
    _, certificate = kf.rewrite_fixed_partition(flow_of(*parts))
    assert certificate.replaced[0].couplings == 6
    assert (certificate.joined, certificate.couplings_after) == (1, 6)


@pytest.mark.slow
def test_the_embedding_of_the_context_is_copied():
    """Training the new one does not change the old one."""
    parts = affine(kf.Partition.alternating(4), context=3), kf.bijections.LULinear(4)
    chain = kf.Chain(parts, embedding=torch.nn.Linear(2, 3), context_features=2)
    flow = moved(kf.Flow(StandardNormal(4), chain))
    x, context = torch.randn(9, 4), torch.randn(9, 2)
    for rewritten in (kf.fuse(flow), kf.rewrite_fixed_partition(flow, x, context=context)[0]):
        expected = flow.log_prob(x, context)
        assert torch.allclose(rewritten.log_prob(x, context), expected, atol=1e-4)
        rewritten.bijection.embedding.weight.data.zero_()
        assert torch.equal(flow.log_prob(x, context), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["log_scale", "shift"])
def test_an_elementwise_map_that_only_scales_or_only_shifts_is_kept(name):
    """In another order of features; an identity is left out."""
    elementwise = kf.bijections.ElementwiseAffine(4)
    parts = kf.bijections.Permutation((1, 0, 3, 2)), elementwise, affine(kf.Partition.half(4))
    flow = kf.Flow(StandardNormal(4), kf.Chain(parts))
    rewritten, _ = kf.rewrite_fixed_partition(flow)
    assert not any(
        isinstance(part, kf.bijections.ElementwiseAffine) for part in rewritten.bijection
    )
    getattr(elementwise, name).data.copy_(torch.arange(4.0))
    _, certificate = kf.rewrite_fixed_partition(flow)
    assert certificate.differences["float64"].log_prob <= 1e-9


@pytest.mark.slow
def test_linear_couplings_merge_with_the_inverse_of_a_coupling():
    """As many as merge with the coupling itself; the new flow can be rewritten again."""
    half = kf.Partition.half(8)
    turn = kf.bijections.Permutation.random(8, seed=1)
    actual = []
    for coupling in (affine, lambda part: kf.Inverse(affine(part))):
        flow = flow_of(coupling(half), turn, coupling(half), features=8)
        again, certificate = kf.rewrite_fixed_partition(flow)
        actual.append((certificate.couplings_before, certificate.couplings_after))
    assert actual[0] == actual[1] and actual[0][0] == 2
    assert kf.rewrite_fixed_partition(again)[1].differences["float64"].log_prob <= 1e-9


def test_frozen_layers_stay_frozen():
    """Factors and elementwise maps of frozen layers, next to couplings that train."""
    half = kf.Partition.half(4)
    fixed = [
        kf.bijections.LULinear(4),
        kf.bijections.ElementwiseAffine(4),
        kf.bijections.ElementwiseAffine(4),
        kf.bijections.LULinear(4),
    ]
    flow = flow_of(
        kf.bijections.Permutation((3, 1, 0, 2)),
        affine(half),
        *fixed[:2],
        affine(half),
        fixed[2],
        affine(kf.Partition.alternating(4)),
        fixed[3],
    )
    for part in fixed:
        part.requires_grad_(False)
    rewritten, certificate = kf.rewrite_fixed_partition(flow)
    assert certificate.differences["float64"].log_prob <= 1e-9
    kinds = (kf.factor.LinearCoupling, kf.bijections.ElementwiseAffine)
    flags = [
        parameter.requires_grad
        for part in rewritten.modules()
        if isinstance(part, kinds)
        for parameter in part.parameters()
    ]
    trained = sum(p.requires_grad for p in rewritten.parameters())
    assert flags.count(False) > 10 and 0 < flags.count(True) < trained
    x = torch.randn(20, 4)
    rewritten.log_prob(x).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in rewritten.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("wrapped", [kf.Chain, lambda parts: kf.CouplingStack.of(parts)])
def test_a_chain_or_a_stack_with_a_hook_is_kept(wrapped):
    """The certificate names it, and its hook is called."""
    half = kf.Partition.half(4)
    inner = wrapped([affine(half), affine(half.swapped())])
    flow = flow_of(kf.bijections.Permutation((1, 2, 3, 0)), inner, affine(half))
    inner.register_forward_hook(one_more)
    x = torch.randn(20, 4)
    for rewritten in (kf.rewrite_fixed_partition(flow, x)[0], kf.fuse(flow)):
        assert torch.allclose(rewritten.log_prob(x), flow.log_prob(x), atol=1e-4)
    assert kf.rewrite_fixed_partition(flow, x)[1].left == (type(inner).__name__,)


@pytest.mark.slow
def test_a_frozen_flow_stays_frozen():
    """With the couplings made from permutations."""
    rewritten, _ = kf.rewrite_fixed_partition(recipe(4, "random").requires_grad_(False))
    assert not any(parameter.requires_grad for parameter in rewritten.parameters())


def test_a_hook_on_the_chain_of_the_flow_is_refused():
    """The new flow has another chain, without the hook."""
    flow = recipe(4, "random")
    flow.bijection.register_forward_hook(one_more)
    for change in (kf.rewrite_fixed_partition, kf.fuse):
        with pytest.raises(ArgumentError, match="no hook on its chain"):
            change(flow)
