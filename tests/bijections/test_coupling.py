"""Couplings: their start, bound and precision, and their derivatives in each memory mode."""

import pytest
import torch

import kappaflow as kf
from cases import additive, affine
from kappaflow.bijections.log_scales import bounded
from kappaflow.testing.contract import jittered

half = kf.Partition.half
MAKE = {"affine": affine, "additive": additive}


def moved(kind="affine", features=5, **settings):
    """Returns a coupling off its start."""
    return jittered(MAKE[kind](half(features), **settings), seed=2)


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("features", [2, 3, 7])
def test_a_new_coupling_is_exactly_the_identity(kind, features):
    """Bit for bit in both directions, with a log_det of zero."""
    coupling, x = MAKE[kind](half(features)), torch.randn(6, features)
    for direction in (coupling, coupling.inverse):
        value, log_det = direction(x)
        assert torch.equal(value, x)
        assert torch.equal(log_det, torch.zeros(6))


def test_the_kept_part_passes_bit_for_bit():
    """Only the changed features change."""
    coupling, x = moved(), torch.randn(6, 5)
    z, _ = coupling(x)
    assert torch.equal(z[:, :2], x[:, :2])
    assert (z[:, 2:] != x[:, 2:]).all()


def test_an_affine_coupling_is_the_formula():
    """z_2 = x_2 exp(c tanh(r / c)) + t, and log_det is the sum of the log-scales."""
    coupling, x = moved(scale_bound=0.7).double(), torch.randn(6, 5, dtype=torch.float64)
    raw, shift = coupling.conditioner(x[:, :2]).chunk(2, 1)
    log_scale = 0.7 * torch.tanh(raw / 0.7)
    z, log_det = coupling(x)
    torch.testing.assert_close(z[:, 2:], x[:, 2:] * log_scale.exp() + shift)
    torch.testing.assert_close(log_det, log_scale.sum(1))


@pytest.mark.parametrize("bound", [0.1, 2.0, 6.0])
def test_the_log_scale_stays_within_its_bound(bound):
    """However large the conditioner's answer, log_det is at most the bound a feature."""
    coupling = moved(scale_bound=bound)
    with torch.no_grad():
        coupling.conditioner.layers[-1].weight.mul_(1e6)
    z, log_det = coupling(torch.randn(100, 5))
    assert log_det.abs().max() <= 3 * bound * (1 + 1e-6)
    assert log_det.abs().max() > 2.9 * bound / 3
    assert torch.isfinite(z).all()


class Recording(torch.nn.Module):
    """A conditioner that notes the type in which its layers compute."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 6)
        self.seen = []

    def forward(self, x, context=None):
        answer = self.linear(x)
        self.seen.append(answer.dtype)
        return answer


def test_mixed_precision_is_for_training_steps_only():
    """Under autocast a training step rounds; scoring and both uses of the inverse do not."""
    coupling = kf.AffineCoupling(half(5), Recording())
    seen, x = coupling.conditioner.seen, torch.randn(4, 5)

    def types(call):
        seen.clear()
        call()
        return set(seen)

    with torch.autocast("cpu", torch.bfloat16):
        assert types(lambda: coupling(x)) == {torch.bfloat16}
        assert types(lambda: coupling.inverse(x)) == {torch.float32}
        with torch.no_grad():
            assert types(lambda: coupling(x)) == {torch.float32}
        coupling.eval()
        assert types(lambda: coupling(x)) == {torch.float32}
        assert types(lambda: coupling.inverse(x)) == {torch.float32}


def test_a_context_that_a_coupling_does_not_read_is_passed_over():
    """In a chain some couplings may read the context and others not."""
    coupling, x = moved(), torch.randn(4, 5)
    assert torch.equal(coupling(x, torch.randn(4, 3))[0], coupling(x)[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: moved(context=2)(torch.zeros(4, 5)), "'context' should be given, of shape"),
        (
            lambda: moved(context=2)(torch.zeros(4, 5), torch.zeros(4, 3)),
            "'context' should have shape \\(batch, 2\\), got \\(4, 3\\)",
        ),
        (lambda: moved()(torch.zeros(5)), "'x' should have shape \\(batch, 5\\), got \\(5,\\)"),
        (lambda: moved(scale_bound=0.0), "'scale_bound' should be a finite number above 0"),
        (
            lambda: kf.AffineCoupling(kf.Partition(3, ()), torch.nn.Identity()),
            "between 1 and 2 features unchanged, got 0: a coupling must both read and change",
        ),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    """The message names the argument, what it should be, and what it was."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        call()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bound", [0.1, 2.0, 12.0])
def test_the_bound_is_a_tanh_up_to_rounding_of_the_size_of_the_bound(bound, dtype):
    """The absolute error is at most 2 eps * bound, however small the argument, and 0 gives 0."""
    raw = torch.cat((torch.logspace(-12, 3, 4001).to(dtype), torch.zeros(1, dtype=dtype)))
    raw = torch.cat((raw, -raw))
    # float64 is held to a tanh of its own, whose error is smaller still
    reference = bound * torch.tanh(raw.double() / bound)
    actual = bounded(raw, bound)
    assert (actual.double() - reference).abs().max() <= 2 * torch.finfo(dtype).eps * bound
    assert (actual[raw == 0] == 0).all()


def spline(partition, conditioner, **settings):
    """Returns a coupling by splines of 2 bins: 5 numbers a feature."""
    return kf.bijections.SplineCoupling(partition, conditioner, bins=2, **settings)


def rotation(partition, conditioner, **settings):
    """Returns a coupling that turns angles."""
    return kf.bijections.RotationCoupling(partition, conditioner, half_period=5.0, **settings)


WIDTHS = {
    "AffineCoupling": (kf.AffineCoupling, 8, "a log-scale and a shift"),
    "SigmoidCoupling": (kf.bijections.SigmoidCoupling, 8, "a log-scale and a shift"),
    "AdditiveCoupling": (kf.bijections.AdditiveCoupling, 4, "a shift"),
    "SplineCoupling": (spline, 20, "5 spline parameters"),
    "RotationCoupling": (rotation, 8, "two numbers, which give an angle,"),
}


@pytest.mark.parametrize("returned", [1, 7])
@pytest.mark.parametrize("name", WIDTHS)
def test_a_conditioner_of_the_wrong_width_is_refused_with_both_numbers(name, returned):
    """A width of 1 would broadcast; each way to call a coupling says what is wrong."""
    make, width, meaning = WIDTHS[name]
    coupling = make(half(8), kf.nets.MLP(4, returned, ()))
    x = torch.randn(3, 8)
    expected = (
        f"{name}: the conditioner should return {width} numbers per row ({meaning} for each of "
        f"4 features), got {returned}."
    )
    for call in (
        coupling,
        coupling.inverse,
        coupling.linearize,
        coupling.trace_from_output,
    ):
        with pytest.raises(kf.errors.ArgumentError) as caught:
            call(x)
        assert str(caught.value) == expected
    with torch.no_grad(), pytest.raises(kf.errors.ArgumentError, match="numbers per row"):
        coupling(x)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (torch.nn.Conv2d(2, 5, 1), r"return 4 channels \(.* for each of 2 channels\), got 5\."),
        (torch.nn.Conv2d(2, 4, 3), r"tensor of shape \(3, 4, 6, 6\) .*, got shape \(3, 4, 4, 4\)"),
        (torch.nn.MaxPool2d(1, return_indices=True), "got tuple"),
    ],
)
def test_a_conditioner_of_images_returns_channels_of_their_size(net, message):
    """Smaller maps and other objects are refused too."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        kf.AffineCoupling(half(4), net)(torch.randn(3, 4, 6, 6))


def test_a_step_of_an_image_chain_refuses_the_wrong_width_too():
    """Its steps run a network by its weights, without a call."""
    coupling = kf.AffineCoupling(half(4), kf.nets.ConvNet(2, 3, 8))
    chain = kf.bijections.ImageChain([kf.bijections.InvertibleConv1x1(4), coupling])
    with pytest.raises(kf.errors.ArgumentError, match=r"should return 4 channels .*, got 3"):
        chain(torch.randn(2, 4, 6, 6))


@pytest.mark.parametrize("partition", [half(2), kf.SpatialPartition(2)])
def test_a_conditioner_may_return_the_same_numbers_for_all_rows_and_places(partition):
    """Value and log_det are those of the expanded numbers: each place counts."""
    width, image = 2 * len(partition.changed), torch.randn(3, 2, 4, 4)

    class Same(torch.nn.Module):
        def __init__(self, *expanded):
            super().__init__()
            self.expanded = expanded

        def forward(self, x):
            return torch.arange(1.0, width + 1).view(1, width, 1, 1).expand(*self.expanded)

    actual, expected = (
        kf.AffineCoupling(partition, Same(*shape))(image)
        for shape in ((1, width, 1, 1), (3, width, 4, 4))
    )
    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[1], expected[1])
