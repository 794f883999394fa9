"""Programs in ONNX, run by ONNX Runtime."""

import copy
import json
import math
import sys
from itertools import product

import pytest
import torch
from scipy import special

import kappaflow as kf
from kappaflow.interop.exports.formulas import (
    FORMULAS,
    _expm1,
    _log1p,
    _log_ndtr,
    _ndtri,
    _substituted,
)
from kappaflow.testing.contract import jittered


@pytest.mark.slow
def test_onnx_runtime_computes_what_the_flow_computes_in_float64(tmp_path):
    """The flow needs what ONNX lacks: log1p, a triangular solve, a sorted search."""
    onnxruntime = pytest.importorskip("onnxruntime")
    bounds = ["positive", None, None]
    flow = kf.real_nvp(
        3,
        depth=1,
        hidden=(4,),
        start={"start": "gaussianize", "components": 2},
        bounds=bounds,
        couplings={"mixing": "svd"},
    )
    x = torch.randn(200, 3).abs() + 0.1
    flow.standardization.fit(x)
    assert "near=" in repr(flow.domain)
    flow = jittered(flow, seed=1).eval()
    done = kf.export(flow, tmp_path / "out", format="onnx", functions=["log_prob"])
    (path,) = done.path.iterdir()
    session = onnxruntime.InferenceSession(path)
    double = copy.deepcopy(flow).double()
    for rows in (x[:1], x[:100]):
        (log_prob,) = session.run(["log_prob"], {"x": rows.numpy()})
        exact = double.log_prob(rows.double())
        assert torch.allclose(torch.from_numpy(log_prob).double(), exact, atol=1e-4)
    outside = torch.tensor([[-1.0, 0.5, 0.5]]).numpy()
    assert session.run(None, {"x": outside})[0].item() == -float("inf")
    notes = json.loads(session.get_modelmeta().custom_metadata_map["kappaflow"])
    assert notes["function"] == "log_prob" and notes["domains"] == ["above 0", None, None]


@pytest.mark.slow
def test_a_flow_in_float64_is_exported_with_all_digits(tmp_path):
    """Numbers in its code are written as float64, which differ from float32 by 1e-8."""
    pytest.importorskip("onnxruntime")
    flow = jittered(kf.real_nvp(2, depth=1, hidden=(4,)), seed=1).double()
    done = kf.export(flow, tmp_path / "out", format="onnx", functions=["encode"])
    assert done.differences["encode"] < 1e-13 and not done.left_out


COLUMNS = [None, "positive", (0, 1), "circular"]
RECIPES = ("nice", "real_nvp", "spline", "autoregressive")
STARTS = ("identity", "whiten", "gaussianize", "whiten-gaussianize")


def bounded_flow(recipe, start, components):
    """Returns a flow fitted to columns of each domain; circles need splines and one normal."""
    circles = recipe == "spline" and components == 1
    bounds = COLUMNS if circles else COLUMNS[:-1]
    torch.manual_seed(0)
    options = {"start": start, "components": components}
    mixing = {} if recipe in ("nice", "autoregressive") else {"couplings": {"mixing": "lu"}}
    flow = getattr(kf, recipe)(
        len(bounds), depth=2, hidden=(4,), bounds=bounds, start=options, **mixing
    )
    shares = torch.rand(500, 4).clamp(0.01, 0.99)
    flow.standardization.fit(shares[:, : len(bounds)])
    return jittered(flow, seed=1).eval()


def test_intervals_and_circles_are_exported(tmp_path):
    """ONNX has neither the normal quantile nor the logarithm of the normal distribution."""
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    flow = kf.spline(2, depth=1, hidden=(4,), bounds=[(0, 1), "circular"])
    flow.standardization.fit(torch.rand(200, 2).clamp(0.01, 0.99))
    done = kf.export(flow, tmp_path / "out", format="onnx", functions=["log_prob"])
    assert done.differences["log_prob"] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("components", [1, 2])
def test_each_recipe_start_base_and_domain_is_exported(recipe, start, components, tmp_path):
    """`export` compares the programs with the flow; both directions have all operations."""
    pytest.importorskip("onnxruntime")
    flow = bounded_flow(recipe, start, components)
    done = kf.export(flow, tmp_path / "out", format="onnx", functions=["log_prob", "sample"])
    assert set(done.differences) == {"log_prob", "sample"}
    assert max(done.differences.values()) < 1e-3


@pytest.mark.slow
def test_no_operation_of_a_flow_is_traced_twice(tmp_path, monkeypatch):
    """All operations have a formula, where the exporter would decompose and trace all again."""
    pytest.importorskip("onnxruntime")
    count = []
    decompose = torch.export.ExportedProgram.run_decompositions
    monkeypatch.setattr(
        torch.export.ExportedProgram,
        "run_decompositions",
        lambda *args: count.append(args) or decompose(*args),
    )
    done = kf.export(bounded_flow("spline", "gaussianize", 1), tmp_path / "out", format="onnx")
    assert not count and not done.left_out and done.round_trip < 1e-3


def test_the_formulas_for_what_onnx_lacks_are_accurate():
    """Each has few units of rounding, also where 1 + x rounds to 1."""
    x = torch.cat((torch.logspace(-12, 1.5, 200), -torch.logspace(-12, -0.1, 200), torch.zeros(1)))
    for formula, exact in ((_log1p, torch.log1p), (_expm1, torch.expm1)):
        assert torch.allclose(formula(x).double(), exact(x.double()), rtol=1e-6, atol=0)
    a = torch.randn(2, 4, 4, dtype=torch.float64) + 4 * torch.eye(4, dtype=torch.float64)
    for upper, left, unit in product((False, True), repeat=3):
        b = torch.randn(2, 4, 3) if left else torch.randn(2, 3, 4)
        options = {"upper": upper, "left": left, "unitriangular": unit}
        expected = torch.linalg.solve_triangular(a, b.double(), **options)
        assert torch.allclose(_substituted(a, b.double(), **options), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_formulas_of_the_normal_distribution_are_accurate(dtype):
    """Compared with scipy's in float64, down to the smallest probabilities."""
    z = torch.cat((torch.linspace(-37, 9, 5001), torch.tensor([-1e9, -40, -0.0, 0.0, 40, 1e9])))
    z = z.to(dtype)
    exact = torch.from_numpy(special.log_ndtr(z.double().numpy()))
    rtol = 3e-7 if dtype == torch.float32 else 1e-13
    assert torch.allclose(_log_ndtr(z).double(), exact, rtol=rtol, atol=0)
    least = torch.finfo(dtype).tiny
    p = torch.cat((torch.logspace(math.log10(least), 0, 3001)[:-1], torch.linspace(0.01, 1, 999)))
    p = p.to(dtype).clamp(least, 1 - torch.finfo(dtype).eps)
    exact = torch.from_numpy(special.ndtri(p.double().numpy()))
    error = (_ndtri(p).double() - exact).abs()
    assert (error < 1e-7 + torch.finfo(dtype).eps * exact.abs()).all()
    assert dtype == torch.float32 or (error < 1e-13 + 4e-14 * exact.abs()).all()
    ends = _ndtri(torch.tensor([0.0, 1.0], dtype=dtype))
    assert ends.tolist() == [-math.inf, math.inf]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("diff", ((4, 3),)),
        ("diff", ((4, 3), 1, 0)),
        ("diff", ((4, 3), 2)),
        ("diag", ((3,),)),
        ("diag", ((3, 3),)),
        ("argsort", ((4, 3),)),
        ("argsort", ((4, 3), 0, True)),
        ("movedim", ((2, 3, 4), 1, -1)),
        ("movedim", ((2, 3, 4), -1, 1)),
        ("index_copy", ((2, 5), 1, torch.tensor([3, 0]), (2, 2))),
        ("rsub", ((2, 5), 1.5)),
        ("square", ((2, 5),)),
    ],
)
def test_a_formula_returns_what_its_function_does(name, arguments):
    """Shapes stand for random tensors."""
    torch.manual_seed(0)
    values = [torch.randn(each) if isinstance(each, tuple) else each for each in arguments]
    function = getattr(torch, name)
    expected = function(*values)
    assert torch.equal(FORMULAS[function](*values), expected)
    assert FORMULAS[torch.eye](3).equal(torch.eye(3))
    assert FORMULAS[torch.eye](2, dtype=torch.float64).dtype == torch.float64


def test_a_missing_package_is_one_sentence(tmp_path, monkeypatch):
    """The message names the package and what installs it."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    flow = kf.real_nvp(2, depth=1, hidden=(4,))
    with pytest.raises(kf.errors.ArgumentError, match="pip install 'kappaflow\\[onnx\\]'"):
        kf.export(flow, tmp_path / "out", format="onnx")
