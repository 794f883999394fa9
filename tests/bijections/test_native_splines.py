"""Splines by the native backend equal those of Python, on each instruction set."""

import pytest
import torch

import kappaflow as kf
from kappaflow.bijections.native_splines import MOST_BINS, POINTS, NativePieces, library_for
from kappaflow.bijections.spline import Pieces, pieces_of
from kappaflow.bijections.spline_shape import SplineShape
from kappaflow.native import Library

SHAPES = {
    "default": (SplineShape(), (70, 5)),
    "two bins": (SplineShape(2, 1.5, 0.05, 0.01), (3, 1)),
    "many bins": (SplineShape(MOST_BINS), (5, 3)),
    "more points than a tile in a row": (SplineShape(4), (3, 200)),
    "images": (SplineShape(5), (2, 3, 4, 6)),
    "one point": (SplineShape(8), (1, 1)),
}


def examples(name):
    """Returns points on both sides of the bound, parameters, and cotangents of y and log_det."""
    shape, size = SHAPES[name]
    x = torch.randn(size) * shape.bound * 0.6
    raw = torch.randn(size[0], shape.parameters, *size[1:]) * 2
    return shape, x, raw, torch.randn(size), torch.randn(size[0])


def outcomes(pieces, cotangent, rows):
    """Returns all results as vectors."""
    actual = (pieces.x, pieces.y, pieces.log_det, *pieces.pulled_back(cotangent, rows))
    return [result.flatten().double() for result in actual]


@pytest.mark.parametrize("is_output", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_values_and_gradients_are_those_of_float64(libraries, name, is_output):
    """With no more error than the formulas in float32, up to a factor."""
    shape, points, raw, cotangent, rows = examples(name)
    exact = outcomes(
        Pieces(points.double(), raw.double(), shape, is_output=is_output),
        cotangent.double(),
        rows.double(),
    )
    python = outcomes(Pieces(points, raw, shape, is_output=is_output), cotangent, rows)
    for path in libraries.values():
        pieces = NativePieces(Library(path), points, raw, shape, is_output=is_output)
        for ours, plain, expected in zip(
            outcomes(pieces, cotangent, rows), python, exact, strict=True
        ):
            size = expected.norm() + 1e-30
            assert (ours - expected).norm() / size <= 4 * (plain - expected).norm() / size + 1e-6


def test_parameters_of_another_shape_are_expanded_or_refused(libraries):
    """The library reads memory by the shape of the points."""
    shape, x, raw, cotangent, rows = examples("default")
    library = Library(libraries["default"])
    actual = outcomes(NativePieces(library, x, raw[:1], shape), cotangent, rows)
    expected = NativePieces(library, x, raw[:1].expand_as(raw).contiguous(), shape)
    for first, second in zip(actual, outcomes(expected, cotangent, rows), strict=True):
        assert torch.equal(first, second)
    for wrong in (raw[:3], raw[:, 1:], raw[:, :, :2]):
        with pytest.raises(RuntimeError, match="expanded size"):
            NativePieces(library, x, wrong, shape)
    with pytest.raises(RuntimeError, match="expanded size"):
        expected.pulled_back(cotangent[:3], rows)


def test_numbers_that_are_not_finite_stay_where_they_are(libraries):
    """Points beyond the bound map to themselves with slope 1; other points do not notice."""
    shape, points, raw, cotangent, rows = examples("default")
    points[3, 1], points[4, 2], points[5, 0] = float("nan"), float("inf"), -shape.bound
    raw[6, 0, 3] = float("nan")
    points[6, 3] = 0.1
    expected = outcomes(Pieces(points, raw, shape), cotangent, rows)
    for path in libraries.values():
        actual = outcomes(NativePieces(Library(path), points, raw, shape), cotangent, rows)
        for ours, plain in zip(actual, expected, strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_points_at_knots_stay_there_without_parameters(libraries):
    """Parameters of zero are the identity, at both ends too."""
    shape = SplineShape(8)
    knots = torch.linspace(-shape.bound, shape.bound, 9)[:, None]
    raw = torch.zeros(9, shape.parameters, 1)
    for path in libraries.values():
        pieces = NativePieces(Library(path), knots, raw, shape)
        torch.testing.assert_close(pieces.y, knots, rtol=1e-6, atol=1e-6)
        assert pieces.log_det.abs().max() < 1e-6


def test_threads_give_the_same_bits(libraries):
    """Rows are divided among threads, and none depends on another."""
    shape = SplineShape(8)
    points, raw = torch.randn(3 * POINTS, 2), torch.randn(3 * POINTS, shape.parameters, 2)
    actual = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        pieces = NativePieces(Library(list(libraries.values())[-1]), points, raw, shape)
        actual.append(outcomes(pieces, torch.ones_like(points), torch.ones(len(points))))
    torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(*actual, strict=True))


def test_what_the_library_does_not_compute_runs_in_python(libraries, monkeypatch):
    """Other dtypes and devices, more bins, and KAPPAFLOW_NATIVE=0."""
    monkeypatch.delenv("KAPPAFLOW_NATIVE", raising=False)
    monkeypatch.setattr("kappaflow.native.path_of_library", lambda: libraries["default"])
    monkeypatch.setattr("kappaflow.native._loaded", lambda: Library(libraries["default"]))
    shape, x, raw, *_ = examples("default")
    assert isinstance(pieces_of(x, raw, shape), NativePieces)
    assert library_for(x.double(), raw.double(), shape) is None
    assert library_for(x.to("meta"), raw.to("meta"), shape) is None
    assert library_for(x, raw, SplineShape(MOST_BINS + 1)) is None
    monkeypatch.setenv("KAPPAFLOW_NATIVE", "0")
    assert isinstance(pieces_of(x, raw, shape), Pieces)


def test_a_training_step_uses_it_in_each_memory_mode(libraries, monkeypatch):
    """Gradients of a flow are those of Python, and "recompute" equals "store" bit for bit."""
    library = Library(list(libraries.values())[-1])
    gradients = {}
    for name, actual in (("python", None), ("native", library)):
        monkeypatch.setattr("kappaflow.native._loaded", lambda actual=actual: actual)
        monkeypatch.delenv("KAPPAFLOW_NATIVE", raising=False)
        for memory in ("store", "recompute", "invert"):
            torch.manual_seed(0)
            flow = kf.spline(5, depth=3, hidden=(16,), couplings={"memory": memory})
            for parameter in flow.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
            loss = -flow.log_prob(torch.randn(40, 5)).mean()
            gradients[name, memory] = torch.autograd.grad(loss, list(flow.parameters()))
    for first, second in zip(
        gradients["native", "store"], gradients["native", "recompute"], strict=True
    ):
        assert torch.equal(first, second)
    for memory in ("store", "invert"):
        for first, second in zip(
            gradients["native", memory], gradients["python", "store"], strict=True
        ):
            torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)
