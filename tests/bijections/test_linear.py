"""Learned linear layers: what their matrices are, how they start, learn and are kept."""

import json
import math

import numpy as np
import pytest
import torch

import kappaflow as kf
from cases import BIJECTIONS, public_classes
from kappaflow.bijections.matrices import Reflections
from kappaflow.testing.contract import jittered

LAYERS = (
    kf.bijections.Linear,
    kf.bijections.LULinear,
    kf.bijections.QRLinear,
    kf.bijections.SVDLinear,
)
every_layer = pytest.mark.parametrize("kind", LAYERS)


def moved(layer, seed=0, size=0.3):
    """Returns the layer in float64, N(0, size^2) added to each parameter in place."""
    generator = torch.Generator().manual_seed(seed)
    layer = layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter += size * noise
    return layer


def reflected(vectors):
    """Returns H_1 ... H_k, one factor after the other."""
    unit = torch.eye(vectors.shape[1], dtype=vectors.dtype)
    product = unit
    for v in vectors:
        product = product @ (unit - 2 * torch.outer(v, v) / (v @ v))
    return product


@every_layer
def test_the_matrix_acts_on_columns(kind):
    """Rows x go to x M^T + shift."""
    layer = moved(kind(5))
    x = torch.randn(7, 5, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(layer(x)[0], x @ layer.matrix().mT + layer.shift)
    assert layer.shift.abs().min() > 0


@every_layer
def test_on_images_it_is_the_convolution_of_one_pixel(kind):
    """The same matrix at each place, and log_det counts each place."""
    layer = moved(kind(4))
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    kernel = layer.matrix()[:, :, None, None]
    with torch.no_grad():
        z, log_det = layer(x)
        torch.testing.assert_close(z, torch.nn.functional.conv2d(x, kernel, layer.shift))
        torch.testing.assert_close(layer.inverse(z)[0], x)
    one = torch.linalg.slogdet(layer.matrix()).logabsdet
    torch.testing.assert_close(log_det, (15 * one).expand(2))


def test_the_forms_are_what_they_are_called():
    """P L U, Q R and Q_1 D Q_2, multiplied out from the parameters."""
    with torch.no_grad():
        lu = moved(kf.bijections.LULinear(4, seed=4))
        lower = lu.triangles.tril(-1) + torch.eye(4)
        upper = lu.triangles.triu(1) + lu.triangles.diagonal().exp().diag()
        order = torch.eye(4).double()[lu.permutation.index]
        torch.testing.assert_close(lu.matrix(), order @ lower @ upper)
        qr = moved(kf.bijections.QRLinear(3))
        a, b, c, d, e, f = qr.triangle
        upper = torch.tensor([[a.exp(), b, c], [0, d.exp(), e], [0, 0, f.exp()]]).double()
        torch.testing.assert_close(qr.matrix(), reflected(qr.reflections) @ upper)
        svd = moved(kf.bijections.SVDLinear(4))
        scaled = reflected(svd.left) * svd.log_scale.exp()
        torch.testing.assert_close(svd.matrix(), scaled @ reflected(svd.right))


@pytest.mark.parametrize(("count", "n"), [(0, 3), (1, 1), (2, 5), (5, 5), (12, 4)])
def test_reflections_at_once_are_those_one_after_the_other(count, n):
    """Of any number, vectors of any length, even nearly parallel ones; their inverse as well."""
    vectors = torch.randn(count, n, dtype=torch.float64)
    vectors[1::2] *= 1e4
    vectors[2::3] = vectors[:1] + 1e-9
    product = Reflections(vectors)
    expected = reflected(vectors)
    unit = torch.eye(n, dtype=torch.float64)
    torch.testing.assert_close(product.times(unit).mT, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(product.solve(unit).mT, expected.mT, rtol=0, atol=1e-14)


@every_layer
@pytest.mark.parametrize("features", [1, 2, 7])
def test_the_start_is_the_identity(kind, features):
    """To the bit, in float32, with a condition number of 1."""
    layer = kind(features)
    assert torch.equal(layer.matrix(), torch.eye(features))
    assert layer.condition_number == 1
    x = torch.randn(3, features)
    assert torch.equal(layer(x)[0], x)
    assert not layer(x)[1].any()


@pytest.mark.parametrize(("count", "planes"), [(None, 12), (10, 15), (2, 5)])
def test_so_many_planes_have_a_gradient_at_the_start(count, planes):
    """Pairs of reflections at axis i turn it towards each other axis: of 15 planes, 5 + 4 + 3."""
    layer = kf.bijections.QRLinear(6, reflections=count)

    def turned(vectors):
        return Reflections(vectors).times(torch.eye(6))

    slope = torch.autograd.functional.jacobian(turned, layer.reflections.detach())
    assert torch.linalg.matrix_rank(slope.reshape(36, -1)).item() == planes


def test_a_seed_starts_the_triangles_behind_a_permutation():
    """The same one as `Permutation.random` makes of it; and it stays where the layer learns."""
    layer, permutation = (
        kf.bijections.LULinear(9, seed=4),
        kf.bijections.Permutation.random(9, seed=4),
    )
    x = torch.randn(2, 9)
    assert torch.equal(layer(x)[0], permutation(x)[0])
    assert not torch.equal(layer(x)[0], kf.bijections.LULinear(9, seed=5)(x)[0])
    assert torch.equal(jittered(layer).permutation.index, permutation.index)


@pytest.mark.slow
def test_the_singular_value_form_is_the_best_conditioned_under_noise():
    """Medians over 100 draws of N(0, 0.3) on all parameters, 16 features, as the Note says."""
    medians = {
        kind: np.median([moved(kind(16), seed).condition_number for seed in range(100)])
        for kind in LAYERS
    }
    assert medians[kf.bijections.SVDLinear] == pytest.approx(2.8, abs=0.05)
    assert medians[kf.bijections.QRLinear] == pytest.approx(9.8, abs=0.05)
    assert medians[kf.bijections.LULinear] == pytest.approx(27.5, abs=0.05)
    assert medians[kf.bijections.Linear] == pytest.approx(31.8, abs=0.05)


@every_layer
def test_the_condition_number_is_that_of_the_matrix(kind):
    """Whatever the type; nan where the parameters are."""
    layer = moved(kind(6))
    dense = torch.linalg.cond(layer.matrix()).item()
    assert layer.condition_number == pytest.approx(dense, rel=1e-12)
    with torch.no_grad():
        next(p for name, p in layer.named_parameters() if name != "shift").fill_(math.nan)
    assert math.isnan(layer.condition_number)


@every_layer
def test_wide_points_and_narrow_ones_are_computed_in_float32_or_wider(kind):
    """A float32 layer takes float64 as float64; bfloat16 is rounded at the end only."""
    layer = jittered(kind(4))
    x = torch.randn(5, 4, dtype=torch.float64)
    z, log_det = layer(x)
    assert z.dtype == log_det.dtype == torch.float64
    torch.testing.assert_close(layer.inverse(z)[0], x)
    narrow, log_det = layer(x.bfloat16())
    assert narrow.dtype == torch.bfloat16
    assert log_det.dtype == torch.float32
    assert torch.equal(narrow, layer(x.bfloat16().float())[0].bfloat16())
    half = jittered(kind(4)).bfloat16()
    assert half.inverse(half(x.bfloat16())[0])[0].dtype == torch.bfloat16
    assert half.matrix().dtype == torch.bfloat16


@every_layer
def test_products_of_the_linearization_can_be_differentiated(kind):
    """The gradient of u^T J v by a parameter is the same whichever side is multiplied first."""
    layer = moved(kind(4))
    x, u, v = torch.randn(3, 2, 4, dtype=torch.float64)
    at = layer.linearize(x)
    parameter = next(p for name, p in layer.named_parameters() if name != "shift")
    first = torch.autograd.grad((u * at.jv(v)).sum(), parameter, retain_graph=True)[0]
    second = torch.autograd.grad((at.vjp(u) * v).sum(), parameter)[0]
    torch.testing.assert_close(first, second)
    assert first.any()


def test_numbers_of_a_matrix_are_kept_with_the_weights(tmp_path):
    """A model file names the width, not the numbers; type and values come back."""
    matrix = np.array([[0.0, 2.0], [1.0, 1 / 3]])
    flow = kf.Flow(kf.StandardNormal(2), kf.bijections.Linear.of(matrix, [3, 1]).double())
    kf.save(flow, tmp_path)
    loaded = kf.load(tmp_path)
    assert torch.equal(loaded.bijection.matrix(), torch.as_tensor(matrix))
    assert loaded.bijection.shift.tolist() == [3, 1]
    described = json.loads((tmp_path / "config.json").read_text())["model"]
    assert described["arguments"]["bijection"]["arguments"] == {"features": 2}


def test_a_layer_of_a_matrix_is_of_its_own_numbers_and_type():
    """Whole numbers become the default type, and the given tensor is not shared."""
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    layer = kf.bijections.Linear.of(weight)
    weight[0, 0] = 9
    assert layer.matrix().tolist() == [[1, 2], [3, 4]]
    assert layer.matrix().dtype == torch.float64
    assert kf.bijections.Linear.of([[1, 2], [3, 4]]).matrix().dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1.0, 2.0]],), r"'matrix' should be square, \(n, n\), got shape \(1, 2\)"),
        (([[math.inf]],), "'matrix' should hold finite numbers"),
        (([[0.0]],), "'matrix' should be invertible"),
        (([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]],), "'matrix' should be invertible"),
        (([[1e4, 0.0], [0.0, 1e-4]],), "torch.float32 cannot tell from zero: use a wider"),
        (([[2.0]], [1.0, 2.0]), r"'shift' should have shape \(1,\)"),
    ],
)
def test_numbers_that_make_no_layer_are_refused(arguments, message):
    """With what was wanted, and what was given."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        kf.bijections.Linear.of(*arguments)


def test_a_wider_type_takes_a_matrix_that_a_narrow_one_cannot_tell_from_singular():
    """The way out that the message names."""
    matrix = torch.tensor([[1.0, 0.0], [0.0, 1e-8]], dtype=torch.float64)
    assert kf.bijections.Linear.of(matrix).condition_number == pytest.approx(1e8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kf.bijections.QRLinear(3, reflections=3), "'reflections' should be even, got 3"),
        (
            lambda: kf.bijections.QRLinear(3)(torch.zeros(2, 4)),
            r"shape \(batch, 3\), got \(2, 4\)",
        ),
        (
            lambda: kf.bijections.Linear(3).inverse(torch.zeros(2, 4, 5)),
            r"shape \(batch, 3, 5\), got",
        ),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(make, message):
    """Widths, seeds, numbers of reflections, and points of another width."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        make()


def test_a_weight_that_became_singular_says_so():
    """The inverse names the causes and the ways out; log_det is minus infinity."""
    layer = kf.bijections.Linear(2)
    with torch.no_grad():
        layer.weight.copy_(torch.ones(2, 2))
    x = torch.ones(1, 2)
    assert layer(x)[1].item() == -math.inf
    with pytest.raises(
        kf.errors.NumericalError, match="singular.*SVDLinear cannot become singular"
    ):
        layer.inverse(x)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in BIJECTIONS.items() if not case.context])
def test_maps_that_say_so_are_linear_and_no_others(name):
    """Weighted means of points go to those of their images, and places do not mix."""
    bijection, x, _ = BIJECTIONS[name].build(torch.float64)
    with torch.no_grad():
        mean = bijection(0.3 * x + 0.7 * x.flip(0))[0]
        z = bijection(x)[0]
    linear = torch.allclose(mean, 0.3 * z + 0.7 * z.flip(0), atol=1e-12)
    composed = isinstance(bijection, kf.Chain | kf.Inverse)
    mixed = z.shape != x.shape  # places among each other
    assert bijection.is_linear == (linear and not composed and not mixed)


def test_the_linear_maps_are_these():
    """So that nobody's answer changes by accident."""
    linear = {kind for kind in public_classes(kf.Bijection) if kind.is_linear}
    others = {
        kf.bijections.Permutation,
        kf.bijections.ActNorm,
        kf.bijections.ElementwiseAffine,
        kf.bijections.Standardize,
    }
    others |= {kf.bijections.InvertibleConv1x1}
    assert linear == others | {kf.factor.LinearCoupling, kf.factor.Whiten} | set(LAYERS)


@every_layer
def test_autocast_rounds_no_product(kind):
    """Nor the matrix; the contract tests both directions."""
    layer, x = jittered(kind(8)), torch.randn(5, 8)
    plain = layer.linearize(x).vjp(x), layer.matrix()
    with torch.autocast("cpu", torch.bfloat16):
        cast = layer.linearize(x).vjp(x), layer.matrix()
    assert all(map(torch.equal, plain, cast))
