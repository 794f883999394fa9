"""Programs in ONNX, run by ONNX Runtime."""

import copy
import json
import sys
from itertools import product

import pytest
import torch

import kappaflow as kf
from kappaflow.interop.exports.programs import _expm1, _log1p, _substituted
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


@pytest.mark.slow
def test_an_operation_that_the_runtime_lacks_is_one_sentence(tmp_path):
    """ONNX Runtime has no error function in float64, which intervals need."""
    pytest.importorskip("onnxruntime")
    flow = kf.real_nvp(1, bounds=[(0, 1)])
    with pytest.raises(kf.errors.ArgumentError, match="'decode' of this flow cannot be exported"):
        kf.export(flow, tmp_path / "out", format="onnx", functions=["decode"])
    assert not list(tmp_path.iterdir())


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


def test_a_missing_package_is_one_sentence(tmp_path, monkeypatch):
    """The message names the package and what installs it."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    flow = kf.real_nvp(2, depth=1, hidden=(4,))
    with pytest.raises(kf.errors.ArgumentError, match="pip install 'kappaflow\\[onnx\\]'"):
        kf.export(flow, tmp_path / "out", format="onnx")
