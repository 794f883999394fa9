"""Paddings: their densities, what they make of a likelihood, and recipes that take them."""

import math

import pytest
import torch

import kappaflow as kf
from kappaflow import images
from kappaflow.flows import augmentation, padding_in, padding_of_kind
from kappaflow.flows.coupling_flow import padded_partition
from kappaflow.flows.padding import KINDS
from kappaflow.testing.contract import jittered

WITH_DENSITY = ("gaussian", "uniform", "copy", "learned")
RECIPES = {"real_nvp": kf.real_nvp, "nice": kf.nice}
TINY = {"depth": 4, "hidden": (8,)}


def seeded(seed=0):
    """Returns a generator."""
    return torch.Generator().manual_seed(seed)


def grid(low, high, count):
    """Returns the middles of count intervals, (count, 1), and their width."""
    width = (high - low) / count
    return (low + width * (torch.arange(count) + 0.5).double())[:, None], width


def padded(kind, features=1, padding=1, scale=None, seed=0):
    """Returns a small flow off its start, in float64, padded with a kind."""
    given = padding_of_kind(kind, padding, (features,), scale=scale)
    return jittered(kf.real_nvp(features, padding=given, **TINY), seed=seed).double().eval()


def padded_widely(kind, features=1, padding=1, seed=0):
    """Returns such a flow, the padding drawn wider than its own: the weights have a variance."""
    scale = {"gaussian": 1.5, "copy": 2.0}.get(kind)
    flow = padded(kind, features, padding, scale, seed)
    if kind == "learned":
        flow.augment.network.layers[-1].bias.data[padding:] += 0.5
    return flow


@torch.no_grad()
def true_log_prob(flow, x):
    """Returns log of the integral of p(x, e) over one padding feature, by a fine sum."""
    e, width = grid(-12, 12, 1500)
    rows = [flow.joint_log_prob(row.expand(len(e), -1), e) for row in x]
    return torch.stack(rows).logsumexp(1) + math.log(width)


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
    found = kf.flows.Pad(3, scale=scale).log_prob(e, x)
    assert torch.allclose(found, normal.log_prob(e).sum(1))
    ends = scale * torch.tensor([-1.0, 1.0]).double()
    uniform = torch.distributions.Uniform(*ends, validate_args=False)
    found = kf.flows.UniformPad(3, scale=scale).log_prob(e, x)
    assert torch.allclose(found, uniform.log_prob(e).sum(1))
    copies = kf.flows.CopyPad(2, 3, scale=scale).double()
    copies.fit(x)
    standard = (x - x.mean(0)) / x.std(0, correction=0)
    turned = standard[:, [0, 1, 0]]
    assert torch.allclose(copies.log_prob(e, x), normal.log_prob(e - turned).sum(1))


def test_draws_are_as_wide_as_the_scale():
    """Of 20,000 draws, within five standard errors."""
    x = torch.zeros(20_000, 1)
    normal = kf.flows.Pad(1, scale=0.3).draw(x, generator=seeded())[0]
    assert normal.std().item() == pytest.approx(0.3, rel=5 / math.sqrt(40_000))
    uniform = kf.flows.UniformPad(1, scale=0.3).draw(x, generator=seeded())[0]
    assert uniform.abs().max() <= 0.3 and uniform.abs().max() > 0.299
    assert uniform.mean().abs() < 5 * 0.3 / math.sqrt(3 * 20_000)


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


@pytest.mark.slow
def test_the_learned_padding_makes_the_bound_tight():
    """Z = (x + a e, e): its p(e | x) is normal, so that training q alone closes the gap."""
    slope = 0.8
    mix = kf.factor.LinearCoupling(kf.Partition(2, (1,)), torch.tensor([[slope]]))
    flow = kf.Flow(kf.StandardNormal(2), mix, kf.flows.LearnedPad(1, 1)).double()
    x = torch.randn(256, 1, generator=seeded()).double()
    normal = torch.distributions.Normal(0.0, math.sqrt(1 + slope**2))
    exact = normal.log_prob(x[:, 0]).mean().item()
    assert flow.log_prob(x, generator=seeded()).mean().item() < exact - 0.1
    optimizer = torch.optim.Adam(flow.augment.parameters(), lr=3e-2)
    generator = seeded(1)
    for _ in range(120):
        optimizer.zero_grad()
        (-flow.log_prob(x, generator=generator).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        gap = exact - flow.log_prob(x, generator=generator).mean().item()
    assert abs(gap) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaussian", "copy", "learned"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_weighted_density_integrates_to_one(kind, seed):
    """Over a line, within five of the standard errors that it comes with; 60 draws a point."""
    flow = padded_widely(kind, seed=seed)
    x, width = grid(-9, 9, 600)
    estimate, error = kf.flows.importance_weighted_log_prob(flow, x, 60, generator=seeded())
    p = estimate.exp()
    total, off = p.sum().item() * width, (p * error).square().sum().sqrt().item() * width
    assert off < 0.05
    assert abs(total - 1) < 5 * off + 1e-3


def test_the_weighted_density_of_two_features_integrates_to_one():
    """Over a plane, with two features of padding."""
    flow = padded_widely("gaussian", features=2, padding=2)
    x, width = grid(-7, 7, 60)
    plane = torch.cartesian_prod(x[:, 0], x[:, 0])
    estimate, error = kf.flows.importance_weighted_log_prob(flow, plane, 30, generator=seeded())
    p = estimate.exp()
    off = (p * error).square().sum().sqrt().item() * width**2
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaussian", "copy", "learned"])
def test_the_weighted_estimate_is_as_far_off_as_it_says(kind):
    """Against a fine sum over the padding, z-scores of 100 points have a spread of about 1."""
    flow = padded_widely(kind)
    x = torch.randn(100, 1, generator=seeded(3)).double()
    estimate, error = kf.flows.importance_weighted_log_prob(flow, x, 300, generator=seeded(4))
    z = (estimate - true_log_prob(flow, x)) / error
    assert z.abs().max() < 5
    assert 0.75 < z.square().mean().sqrt() < 1.25


def test_the_weighted_estimate_is_log_prob_with_as_many_samples():
    """The same draws; the error is the spread of the weights, by hand."""
    flow = padded("gaussian", features=2, padding=3)
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


def test_what_a_likelihood_is_can_be_asked():
    """Exact, a bound, or the joint density where the padding has none of its own."""
    made = {
        "exact": [kf.real_nvp(2)],
        "bound": [padded(kind, 2) for kind in WITH_DENSITY],
        "joint": [padded("zero", 2), padded("copy", 2, scale=0.0)],
    }
    for expected, flows in made.items():
        assert [flow.likelihood for flow in flows] == [expected] * len(flows)


@pytest.mark.parametrize(("kind", "scale"), [("zero", None), ("copy", 0.0)])
def test_without_a_density_log_prob_is_the_joint_one(kind, scale):
    """And nothing pretends to estimate a likelihood from it."""
    flow = padded(kind, 2, 2, scale=scale)
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


@pytest.mark.slow
@pytest.mark.parametrize("partition", ["half", "random-half"])
@pytest.mark.parametrize("features", [1, 2, 3, 5])
@pytest.mark.parametrize("padding", [1, 2, 3, 5])
def test_each_coupling_sees_data_and_padding(partition, features, padding):
    """Each part is one of the data, as without padding, with half of the padding."""
    arguments = {"depth": 5, "hidden": (4,), "partition": partition}
    flow = kf.real_nvp(features, padding=padding, **arguments)
    stack = next(part for part in flow.modules() if isinstance(part, kf.CouplingStack))
    for layer, coupling in enumerate(stack.plain()):
        parts = coupling.partition.kept, coupling.partition.changed
        own = [[i for i in part if i < features] for part in parts]
        added = [[i for i in part if i >= features] for part in parts]
        if features > 1:
            plain = kf.real_nvp(features, **arguments)
            alone = next(p for p in plain.modules() if isinstance(p, kf.CouplingStack)).plain()
            assert tuple(own[0]) == list(alone)[layer].partition.kept
            assert all(own)
        assert sum(map(len, own)) == features and sum(map(len, added)) == padding
        assert abs(len(added[0]) - len(added[1])) <= 1
        assert padding == 1 or all(added)
        assert all(parts)


def test_a_padded_flow_can_be_the_flow_without():
    """Couplings that are deaf to the padding, and leave it, are those of the data alone."""
    plain = jittered(kf.real_nvp(2, depth=2, hidden=(4,))).eval()
    both = kf.real_nvp(2, depth=2, hidden=(4,), padding=2).eval()
    mask = padded_partition(kf.Partition.half(2), 2)
    assert mask.kept == (0, 2) and mask.changed == (1, 3)
    stacks = [
        next(p for p in flow.modules() if isinstance(p, kf.CouplingStack))
        for flow in (plain, both)
    ]
    ours, theirs = ([c.conditioner.layers for c in stack.plain()] for stack in stacks)
    with torch.no_grad():
        for one, two in zip(ours, theirs, strict=True):
            two[0].weight.zero_()
            two[0].weight[:, :1] = one[0].weight
            two[0].bias.copy_(one[0].bias)
            for old, new in zip(one[1].weight, two[1].weight[::2], strict=True):
                new.copy_(old)
            two[1].bias[::2] = one[1].bias
    flow = kf.Flow(kf.StandardNormal(4), kf.Chain(list(stacks[1].plain())), kf.flows.Pad(2))
    x = torch.randn(6, 2, generator=seeded())
    assert torch.allclose(flow.log_prob(x), plain.log_prob(x), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", KINDS)
def test_recipes_of_tables_take_any_padding(recipe, kind, tmp_path):
    """Trained, saved, loaded, measured, sampled; units are fitted, those of the padding too."""
    x = 10 + 3 * torch.randn(200, 2, generator=seeded())
    given = padding_of_kind(kind, 2, (2,))
    flow = RECIPES[recipe](2, padding=given, **TINY)
    assert flow.event_shape == (2,) and flow.joint_shape == (4,)
    assert padding_in(flow.augment) is given
    result = kf.fit(flow, x, max_epochs=2, out=tmp_path / "run", progress=False)
    assert math.isfinite(result.validation_nll)
    units = flow.bijection.bijections[0]
    assert units.mean[:2].mean() > 8 and not units.mean[2:].any()
    if kind in ("copy", "learned"):
        assert given.standardization.fitted and given.standardization.mean.min() > 8
    loaded = kf.load(tmp_path / "run")
    assert repr(loaded.augment) == repr(flow.augment)
    scores = [f.log_prob(x, generator=seeded(1)) for f in (flow, loaded)]
    assert torch.equal(*scores)
    assert kf.profile(flow, x[:5]).condition_number.shape[1] == 5
    assert kf.spectrum(flow.bijection, flow.augmented(x[:5])).condition_number.min() >= 1
    assert kf.doctor(flow, x[:5]).profile is not None
    assert flow.sample(3).shape == (3, 2)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["glow", "real_nvp_image", "jet"])
@pytest.mark.parametrize("kind", KINDS)
def test_recipes_of_images_take_any_padding(recipe, kind, tmp_path):
    """Filled pixels next to channels of any kind; the model file names it."""
    tiny = {"depth": 2, "patch": 1, "network": {"width": 4}}
    small = tiny if recipe == "jet" else {"levels": 1, "hidden": 4}
    given = padding_of_kind(kind, 2, (1, 4, 4))
    pixels = {"dequantize": "uniform", "values": 8}
    flow = getattr(kf, recipe)((1, 4, 4), padding=given, pixels=pixels, **small)
    x = torch.randint(0, 8, (6, 1, 4, 4), generator=seeded()).float()
    flow.augment.fit(x)
    assert kind not in ("copy", "learned") or given.standardization.fitted
    assert flow.joint_shape == (3, 4, 4) and flow.sample(2).shape == (2, 1, 4, 4)
    flow.log_prob(x)  # what starts from a batch does
    kf.save(flow, tmp_path)
    scores = [f.eval().log_prob(x, generator=seeded(1)) for f in (flow, kf.load(tmp_path))]
    assert torch.equal(*scores) and scores[0].isfinite().all()
    assert flow.likelihood == ("joint" if kind == "zero" else "bound")


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


@pytest.mark.slow
def test_a_padded_flow_is_written_anew_and_fused():
    """Padding stays what it is."""
    flow = padded("learned", 2, 2)
    x = torch.randn(5, 2, generator=seeded()).double()
    rewritten, _ = kf.rewrite_fixed_partition(flow)
    for other in (rewritten, kf.fuse(flow)):
        found = other.log_prob(x, generator=seeded(1))
        assert torch.allclose(found, flow.log_prob(x, generator=seeded(1)), atol=1e-8)


@pytest.mark.slow
def test_a_whitened_start_takes_padding():
    """Data and padding are uncorrelated together."""
    flow = kf.real_nvp(2, padding=1, start="whiten", **TINY)
    x = torch.randn(400, 2, generator=seeded()) @ torch.tensor([[1.0, 0.9], [0.0, 0.2]])
    kf.fit(flow, x, max_epochs=1, progress=False)
    assert next(p for p in flow.modules() if isinstance(p, kf.factor.Whiten)).fitted


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kf.flows.Pad(0), "'features' should be at least 1"),
        (lambda: kf.flows.Pad(1, scale=0), "'scale' should be a finite number above 0, got 0"),
        (lambda: kf.flows.Pad(1, scale=-1.0), "'scale' should be a finite number above 0"),
        (
            lambda: kf.flows.UniformPad(1, scale=math.nan),
            "'scale' should be a finite number above 0",
        ),
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
        (lambda: kf.nice(2, padding=True), "'padding' should be a whole number"),
        (
            lambda: kf.real_nvp(2, padding=kf.flows.ZeroPad(1), start="whiten"),
            "'start' should be 'identity' with padding that has no density",
        ),
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


def test_no_padding_is_none_or_zero():
    """The flow is then exact."""
    for padding in (None, 0):
        assert kf.real_nvp(2, padding=padding).augment is None
