"""Recipes: depth, start, width, partitions and what they refuse."""

import inspect
import math
import re
from pathlib import Path
from typing import get_args

import pytest
import torch

import kappaflow as kf
from kappaflow.bijections.coupling import Coupling
from kappaflow.flows.recipe import from_options
from kappaflow.options import AnyModel
from kappaflow.runs.recipes import recipes
from kappaflow.testing.contract import jittered

RECIPES = {"real_nvp": kf.real_nvp, "nice": kf.nice}


def parts(flow, kind):
    """Returns the parts of one kind that the stacks of a flow stand for, in order."""
    stacks = [part for part in flow.modules() if isinstance(part, kf.CouplingStack)]
    return [part for stack in stacks for part in stack.plain() if isinstance(part, kind)]


def couplings(flow):
    """Returns the couplings of a flow, in order."""
    return parts(flow, Coupling)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    "partition", ["half", "alternating", "random", "random-half", kf.Partition(5, (0, 3, 4))]
)
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_depth_counts_couplings(recipe, partition, depth):
    """Whatever the partition adds between them, there are as many couplings as depth says."""
    flow = RECIPES[recipe](5, depth=depth, hidden=(4,), partition=partition)
    assert len(couplings(flow)) == depth


@pytest.mark.parametrize("partition", ["half", "alternating", kf.Partition(5, (0, 3, 4))])
def test_the_parts_take_turns(partition):
    """What one coupling keeps the next one changes."""
    layers = couplings(kf.real_nvp(5, depth=4, partition=partition))
    kept, changed = zip(*((c.partition.kept, c.partition.changed) for c in layers), strict=True)
    assert kept[1:] == changed[:-1]


def test_a_random_partition_is_a_seeded_permutation_before_each_coupling():
    """The same seed gives the same flow, another seed another."""

    def indices(seed):
        flow = kf.real_nvp(16, depth=3, hidden=(4,), partition="random", couplings={"seed": seed})
        return [part.index.tolist() for part in parts(flow, kf.bijections.Permutation)]

    assert len(indices(0)) == 3
    assert len(set(map(tuple, indices(0)))) == 3
    assert indices(0) == indices(0)
    assert indices(0) != indices(100)


def test_a_random_half_is_drawn_for_every_two_couplings_which_take_turns():
    """Pairs complement each other, differ from pair to pair, and follow from the seed."""

    def kept(seed):
        flow = kf.real_nvp(
            16, depth=5, hidden=(4,), partition="random-half", couplings={"seed": seed}
        )
        return [set(coupling.partition.kept) for coupling in couplings(flow)]

    halves = kept(0)
    assert all(halves[i] | halves[i + 1] == set(range(16)) for i in (0, 2))
    assert not halves[0] & halves[1]
    assert len({tuple(sorted(half)) for half in halves[::2]}) == 3
    assert kept(0) == halves
    assert kept(100) != halves


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("partition", ["half", "alternating", "random", "random-half"])
@pytest.mark.parametrize("features", [1, 2, 3, 7])
def test_a_new_flow_is_the_standard_normal(recipe, partition, features):
    """Before training the map is at most a permutation, and the density is the base's."""
    flow = RECIPES[recipe](features, depth=3, hidden=(4,), partition=partition)
    x = torch.randn(6, features)
    z, log_det = flow.bijection(x)
    assert torch.equal(z.sort(1)[0], x.sort(1)[0])
    assert torch.equal(log_det, torch.zeros(6))
    assert partition == "random" or torch.equal(z, x)


def test_one_feature_is_an_affine_map():
    """A coupling has nothing to read: there is none, and scale and shift are learned."""
    (affine,) = kf.real_nvp(1, depth=8).core
    assert isinstance(affine, kf.bijections.ElementwiseAffine)


def test_one_feature_with_context_is_an_affine_map_of_the_context():
    """One coupling of the context, which may use the whole bound on the log-scale."""
    flow = kf.real_nvp(1, depth=8, context_features=2, couplings={"scale_bound": 5.0})
    (coupling,) = couplings(flow)
    assert coupling.scale_bound == 5.0
    flow = jittered(flow)
    log_prob = flow.log_prob(torch.zeros(2, 1), torch.tensor([[0.0, 1.0], [5.0, 2.0]]))
    assert log_prob[0] != log_prob[1]


def test_the_bound_on_the_log_scales_is_shared_by_the_depth():
    """The sum over depth is what the argument says."""
    layers = couplings(kf.real_nvp(4, depth=12, couplings={"scale_bound": 3.0}))
    assert sum(layer.scale_bound for layer in layers) == pytest.approx(3.0)


@pytest.mark.parametrize("page", ["depth-and-conditioning.md", "why-does-my-flow-explode.md"])
def test_the_docs_name_the_default_bound_on_the_scale_of_a_feature(page):
    """Both pages have the factor by which 256 couplings scale a feature at most."""
    bounds = torch.zeros(6)
    for layer in couplings(kf.real_nvp(6, depth=256, hidden=(4,))):
        bounds[list(layer.partition.changed)] += layer.scale_bound
    text = (Path(__file__).parents[2] / "docs" / page).read_text()
    match = re.search(r"at\s+most\s+\$\\exp\((\d+)\)\$, about (\d+)", text)
    assert match is not None
    log_scale, scale = map(int, match.groups())
    assert bounds.tolist() == pytest.approx([log_scale] * 6, rel=1e-4)
    assert scale == round(math.exp(log_scale))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_256_couplings_are_finite_and_invertible_from_the_first_steps(recipe):
    """After each of three steps of Adam values and gradients are finite and round trips hold."""
    flow = RECIPES[recipe](6, depth=256, hidden=(8,))
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
    x = torch.randn(64, 6) * torch.linspace(0.5, 3, 6)
    for _ in range(3):
        loss = -flow.log_prob(x).mean()
        optimizer.zero_grad()
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(p.grad).all() for p in flow.parameters() if p.grad is not None)
        optimizer.step()
        errors = kf.round_trip(flow, x)
        assert errors.data.max() < 1e-3
        assert errors.latent.max() < 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": 0}, "'features' should be at least 1, got 0"),
        ({"features": 2.0}, "'features' should be a whole number of at least 1, got 2.0"),
        ({"depth": 0}, "'depth' should be at least 1, got 0: depth counts couplings"),
        ({"hidden": "64"}, "'hidden' should be a sequence of layer widths, got '64'"),
        ({"hidden": (0,)}, "'hidden' should be at least 1"),
        ({"partition": "thirds"}, "one of 'half', .* or a Partition, got 'thirds'"),
        ({"partition": 3}, "or a Partition, got 3"),
        ({"partition": kf.Partition.half(5)}, "have 4 features, got 5"),
        ({"partition": kf.Partition(4, ())}, "'partition' should leave between 1 and 3"),
        ({"context_features": -1}, "'context_features' should be at least 0"),
        (
            {"couplings": {"memory": "none"}},
            "'memory' should be one of 'recompute', 'store', 'invert', got 'none'",
        ),
        ({"couplings": {"seed": "a"}}, "'seed' should be a whole number"),
    ],
)
@pytest.mark.parametrize("recipe", RECIPES)
def test_arguments_that_cannot_be_are_refused(recipe, arguments, message):
    """One sentence names the argument, what it should be, and what it was."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        RECIPES[recipe](**{"features": 4, **arguments})


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"layers": 5}, "'layers' is not an argument of real_nvp: did you mean 'depth'"),
        ({"context": 3}, "did you mean 'context_features'"),
        ({"detph": 3}, "did you mean 'depth'"),
        ({"qqq": 3}, "'qqq' is not an argument of real_nvp; there are features, depth, "),
        ({"hidden": 64}, r"'hidden' should be .* got 64: hidden=\(64, 64\) are two hidden layers"),
        (
            {"dropout": 0.1},
            r"'dropout' is an option of 'network': real_nvp\(..., network=\{'dropout': 0.1\}\)",
        ),
        ({"network": {"drop": 0.1}}, "'drop' is not an option of 'network': .* 'dropout'"),
        ({"network": {"qqq": 1}}, "'network'; there are activation, residual, dropout, embedding"),
        ({"network": 3}, "'network' should be NetworkOptions or a dict of its options, got 3"),
        ({"start": "whitened"}, "'start' should be one of 'identity', .* got 'whitened'"),
    ],
)
def test_arguments_of_other_libraries_lead_to_those_here(arguments, sentence):
    with pytest.raises(kf.errors.ArgumentError, match=sentence):
        kf.real_nvp(2, **arguments)


def test_options_stand_in_groups_or_dicts_or_side_by_side():
    """All three make the same flow, whose file holds the options side by side."""
    groups = {
        "start": kf.flows.StartOptions("whiten", components=2),
        "couplings": kf.flows.AffineOptions(scale_bound=3.0, seed=5),
        "network": kf.flows.NetworkOptions(activation=torch.nn.SiLU(), residual=True),
    }
    options = {name: value for group in groups.values() for name, value in vars(group).items()}
    flows = [
        kf.real_nvp(3, depth=2, **groups),
        kf.real_nvp(3, depth=2, **{name: vars(group) for name, group in groups.items()}),
        from_options(kf.real_nvp, 3, depth=2, **options),
    ]
    described = [kf.registry.describe(flow) for flow in flows]
    assert described[0] == described[1] == described[2]
    expected = {**options, "activation": "silu", "depth": 2}
    assert described[0]["arguments"].items() >= expected.items()


@pytest.mark.parametrize("name", get_args(AnyModel))
def test_recipes_have_at_most_nine_keyword_arguments(name):
    recipe = recipes()[name]
    keywords = [
        parameter
        for parameter in inspect.signature(recipe).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    assert len(keywords) <= 9
