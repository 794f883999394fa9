"""Paddings: their densities, what they make of a likelihood, and recipes that take them."""

import math

import pytest
import torch

import kappaflow as kf
from cases import seeded
from kappaflow import images
from kappaflow.flows import augmentation, padding_in, padding_of_kind
from kappaflow.flows.padding import KINDS
from kappaflow.testing.contract import jittered

WITH_DENSITY = ("gaussian", "uniform", "copy", "learned")
TINY = {"depth": 4, "hidden": (8,)}


def grid(low, high, count):
    """Returns the middles of count intervals, (count, 1), and their width."""
    width = (high - low) / count
    return (low + width * (torch.arange(count) + 0.5).double())[:, None], width


def padded(kind, features=1, padding=1, scale=None, seed=0):
    """Returns a small flow off its start, in float64, padded with a kind."""
    pad = padding_of_kind(kind, padding, (features,), scale=scale)
    return jittered(kf.real_nvp(features, padding=pad, **TINY), seed=seed).double().eval()


def padded_widely(kind, features=1, padding=1, seed=0):
    """Returns such a flow, the padding drawn wider than its own: the weights have a variance."""
    scale = {"gaussian": 1.5, "copy": 2.0}.get(kind)
    flow = padded(kind, features, padding, scale, seed)
    if kind == "learned":
        flow.augment.network.layers[-1].bias.data[padding:] += 0.5
    return flow


@pytest.mark.parametrize("kind", WITH_DENSITY)
@pytest.mark.parametrize("x", [-1.0, 2.5])
def test_a_padding_integrates_to_one(kind, x):
    """Given a point, over one feature; a wrong scale would not."""
    scale = None if kind == "learned" else 0.4
    augment = jittered(padding_of_kind(kind, 1, (1,), scale=scale)).double()
    e, width = grid(-8, 8, 20_000)
    with torch.no_grad():
        log_q = augment.log_prob(e, torch.full_like(e, x))
    assert log_q.exp().sum().item() * width == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_densities_are_those_of_torch(scale):
    """Coordinate by coordinate: the normal, the uniform, and the normal around copies."""
    x = torch.randn(6, 2, generator=seeded(1)).double()
    e = 0.2 * torch.randn(6, 3, generator=seeded(2)).double()
    normal = torch.distributions.Normal(0.0, scale)
    actual = kf.flows.Pad(3, scale=scale).log_prob(e, x)
    assert torch.allclose(actual, normal.log_prob(e).sum(1))
    ends = scale * torch.tensor([-1.0, 1.0]).double()
    uniform = torch.distributions.Uniform(*ends, validate_args=False)
    actual = kf.flows.UniformPad(3, scale=scale).log_prob(e, x)
    assert torch.allclose(actual, uniform.log_prob(e).sum(1))
    copies = kf.flows.CopyPad(2, 3, scale=scale).double()
    copies.fit(x)
    standard = (x - x.mean(0)) / x.std(0, correction=0)
    turned = standard[:, [0, 1, 0]]
    assert torch.allclose(copies.log_prob(e, x), normal.log_prob(e - turned).sum(1))


def test_copies_are_standardized_features_in_turn():
    """More of them than features begin again, at each place of an image alike."""
    x = 7 + 3 * torch.randn(50, 2, 3, 3, generator=seeded())
    copies = kf.flows.CopyPad(2, 3, scale=0.0)
    copies.fit(x)
    e, _ = copies.draw(x)
    assert torch.equal(e[:, 0], e[:, 2])
    assert e.mean((0, 2, 3)).abs().max() < 1e-5
    assert torch.allclose(e.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)
    copies.fit(x + 100)
    assert torch.equal(copies.draw(x)[0], e)  # fitted once only


def test_the_learned_padding_starts_at_the_standard_normal():
    """Of tables and of images, whatever the point."""
    for shape in ((3,), (2, 4, 4)):
        x = 5 * torch.randn(4, *shape, generator=seeded())
        augment = padding_of_kind("learned", 2, shape)
        e, log_q = augment.draw(x, generator=seeded(1))
        assert torch.equal(e, kf.flows.Pad(2).draw(x, generator=seeded(1))[0])
        assert torch.allclose(log_q, kf.flows.Pad(2).log_prob(e, x))


@pytest.mark.parametrize("kind", ["gaussian", "copy", "learned"])
def test_the_weighted_density_integrates_to_one(kind):
    """Over a plane, within five of the standard errors that it comes with."""
    flow = padded_widely(kind, features=2, padding=2)
    x, width = grid(-7, 7, 60)
    plane = torch.cartesian_prod(x[:, 0], x[:, 0])
    estimate, error = kf.flows.importance_weighted_log_prob(flow, plane, 30, generator=seeded())
    p = estimate.exp()
    off = (p * error).square().sum().sqrt().item() * width**2
    assert off < 0.1
    assert abs(p.sum().item() * width**2 - 1) < 5 * off + 1e-3


def test_uniform_padding_misses_what_the_flow_puts_outside():
    """The integral is the share of the flow's own padding that lies in the interval."""
    flow = padded("uniform", scale=1.5)
    x, width = grid(-9, 9, 600)
    estimate, error = kf.flows.importance_weighted_log_prob(flow, x, 60, generator=seeded())
    p = estimate.exp()
    off = (p * error).square().sum().sqrt().item() * width
    z = torch.randn(100_000, 2, generator=seeded(1)).double()
    with torch.no_grad():
        inside = (flow.bijection.inverse(z)[0][:, 1].abs() <= 1.5).double().mean().item()
    assert inside < 0.95
    assert p.sum().item() * width == pytest.approx(inside, abs=5 * off + 0.01)


def test_the_weighted_estimate_is_log_prob_with_as_many_samples():
    """The same draws; the error is the spread of the weights, by hand."""
    flow = padded("gaussian", features=2, padding=3)
    assert (flow.likelihood, kf.real_nvp(2, padding=0).likelihood) == ("bound", "exact")
    x = torch.randn(5, 2, generator=seeded()).double()
    estimate, error = kf.flows.importance_weighted_log_prob(flow, x, 7, generator=seeded(1))
    with torch.no_grad():
        expected = flow.log_prob(x, samples=7, generator=seeded(1))
        rows = x.repeat(7, 1)
        e, log_q = flow.augment.draw(rows, generator=seeded(1))
        weights = (flow.joint_log_prob(rows, e) - log_q).exp().reshape(7, 5)
    assert torch.allclose(estimate, expected)
    assert torch.allclose(estimate, weights.mean(0).log())
    assert torch.allclose(error, weights.std(0) / (weights.mean(0) * math.sqrt(7)))


def test_many_samples_are_drawn_in_chunks(monkeypatch):
    """As many as fit at once, the same number in all."""
    monkeypatch.setattr(augmentation, "ROWS_AT_ONCE", 12)
    flow = padded("gaussian", features=2, padding=3)
    x = torch.randn(5, 2, generator=seeded()).double()
    with torch.no_grad():
        parts = augmentation.log_weights(
            flow.augment, flow.augmented_log_prob, x, None, 7, seeded(1)
        )
        sizes = [len(part) for part in parts]
    assert sizes == [2, 2, 2, 1]


@pytest.mark.parametrize(("kind", "scale"), [("zero", None), ("copy", 0.0)])
def test_without_a_density_log_prob_is_the_joint_one(kind, scale):
    """And nothing pretends to estimate a likelihood from it."""
    flow = padded(kind, 2, 2, scale=scale)
    assert flow.likelihood == "joint"
    x = torch.randn(5, 2, generator=seeded()).double()
    e, log_q = flow.augment.draw(x)
    assert not log_q.any()
    assert torch.equal(flow.log_prob(x), flow.joint_log_prob(x, e))
    assert flow.augment.log_prob(e + 1e-9, x).isneginf().all()
    drawn, log_prob = flow.sample_and_log_prob(3, generator=seeded())
    assert torch.allclose(log_prob, flow.log_prob(drawn))
    for call in (
        lambda: flow.log_prob(x, samples=2),
        lambda: kf.flows.importance_weighted_log_prob(flow, x, 2),
    ):
        with pytest.raises(
            kf.errors.ArgumentError, match="joint density of a point and its padding"
        ):
            call()


@pytest.mark.parametrize("partition", ["half", "random-half"])
@pytest.mark.parametrize(("features", "padding"), [(1, 2), (2, 1), (2, 2), (5, 3)])
def test_each_coupling_sees_data_and_padding(partition, features, padding):
    """Each part is one of the data, as without padding, with half of the padding."""

    def kept(**options):
        flow = kf.real_nvp(features, depth=5, hidden=(4,), partition=partition, **options)
        stack = next(part for part in flow.modules() if isinstance(part, kf.CouplingStack))
        return [coupling.partition.kept for coupling in stack.plain()]

    parts = kept(padding=padding)
    if features > 1:
        assert [tuple(i for i in part if i < features) for part in parts] == kept()
    added = [sum(i >= features for i in part) for part in parts]
    assert {*added} <= {padding // 2, (padding + 1) // 2}
    assert all(len(part) < features + padding for part in parts)


def table_flow(padding):
    return kf.nice(2, padding=padding, **TINY), 10 + 3 * torch.randn(6, 2, generator=seeded())


def image_flow(padding):
    pixels = {"dequantize": "uniform", "values": 8}
    flow = kf.glow((1, 4, 4), padding=padding, pixels=pixels, levels=1, hidden=4)
    return flow, torch.randint(0, 8, (6, 1, 4, 4), generator=seeded()).float()


@pytest.mark.slow
@pytest.mark.parametrize(("make", "shape"), [(table_flow, (2,)), (image_flow, (1, 4, 4))])
@pytest.mark.parametrize("kind", KINDS)
def test_recipes_take_any_padding(make, shape, kind, tmp_path):
    """Fitted, sampled, saved, loaded, and measured."""
    pad = padding_of_kind(kind, 2, shape)
    flow, x = make(pad)
    flow.standardization.fit(x)
    assert kind not in ("copy", "learned") or pad.standardization.fitted
    assert padding_in(flow.augment) is pad
    assert flow.joint_shape == (shape[0] + 2, *shape[1:]) and flow.sample(2).shape == (2, *shape)
    flow.log_prob(x)  # what starts from a batch does
    kf.save(flow, tmp_path)
    scores = [f.eval().log_prob(x, generator=seeded(1)) for f in (flow, kf.load(tmp_path))]
    assert torch.equal(*scores) and scores[0].isfinite().all()
    assert kf.doctor(flow, x).profile is not None


def test_a_training_goes_on_with_the_network_of_its_padding(tmp_path):
    """It learns, is part of the checkpoint, and comes back from there, as from the model file."""
    x = torch.randn(300, 2, generator=seeded()) ** 2

    def fitted():
        torch.manual_seed(0)
        flow = kf.real_nvp(2, padding=kf.flows.LearnedPad(2, 2), **TINY)
        return kf.fit(flow, x, max_epochs=2, batch_size=64, out=tmp_path / "run", progress=False)

    weights = fitted().flow.augment.network.layers[-1].weight
    assert weights.abs().max() > 0
    (tmp_path / "run/result.json").unlink()
    again = fitted()
    assert torch.equal(again.flow.augment.network.layers[-1].weight, weights)
    assert torch.equal(kf.load(tmp_path / "run").augment.network.layers[-1].weight, weights)


def test_one_feature_with_padding_has_couplings():
    """They read the padding: such a flow is no longer a Gaussian."""
    flow = kf.real_nvp(1, padding=1, **TINY)
    (stack,) = (part for part in flow.modules() if isinstance(part, kf.CouplingStack))
    assert len(list(stack.plain())) == 4
    assert not any(isinstance(part, kf.bijections.ElementwiseAffine) for part in flow.modules())
    assert kf.nice(1, padding=2, **TINY).bijection.bijections[-1].features == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kf.flows.Pad(0), "'features' should be at least 1"),
        (lambda: kf.flows.Pad(1, scale=0), "'scale' should be a finite number above 0, got 0"),
        (lambda: kf.flows.UniformPad(1, scale="1"), "'scale' should be a finite number above 0"),
        (lambda: kf.flows.CopyPad(2, 1, scale=-0.1), "'scale' should be 0 or more, got -0.1"),
        (lambda: kf.flows.CopyPad(0, 1), "'inputs' should be at least 1"),
        (
            lambda: kf.flows.LearnedPad(2, 2, kf.nets.MLP(2, 3)).draw(torch.zeros(1, 2)),
            "'network' should return shape .1, 4., mu and log sigma of 2 features",
        ),
        (lambda: kf.real_nvp(2, padding=-1), "'padding' should be at least 0, got -1"),
        (lambda: kf.real_nvp(2, padding="zero"), "got 'zero': or a Padding, such as"),
        (lambda: kf.nice(2, padding=images.Dequantize(4)), "'padding' should be a whole number"),
        (
            lambda: kf.real_nvp(2, padding=1, partition=kf.Partition.half(2)),
            "'partition' should have 3 features, got 2",
        ),
        (lambda: padding_of_kind("noise", 1, (2,)), "'padding_kind' should be one of 'gaussian'"),
        (lambda: padding_of_kind("learned", 1, (2,), scale=1.0), "left out for learned padding"),
        (
            lambda: kf.flows.importance_weighted_log_prob(kf.real_nvp(2), torch.zeros(1, 2), 2),
            "should have an augmentation: the log_prob of this one is exact",
        ),
        (
            lambda: kf.flows.importance_weighted_log_prob(
                kf.real_nvp(2, padding=1), torch.zeros(1, 2), 1
            ),
            "'samples' should be at least 2",
        ),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    """In one sentence."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        call()
