"""Programs in ONNX, run by ONNX Runtime."""

import copy
import json
import math
import sys
from itertools import product

import pytest
import torch

import kappaflow as kf
from kappaflow.cli.app import main
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
    flow = jittered(flow, seed=1).eval()
    done = kf.export(flow, tmp_path / "out", format="onnx", functions=["log_prob"])
    (path,) = done.path.iterdir()
    session = onnxruntime.InferenceSession(path)
    wide = copy.deepcopy(flow).double()
    for rows in (x[:1], x[:100]):
        (log_prob,) = session.run(["log_prob"], {"x": rows.numpy()})
        exact = wide.log_prob(rows.double())
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


def write_program(folder, name, scale, log_det):
    """Writes a program that multiplies two features by numbers, with a log_det for each row."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make, real = onnx.helper, onnx.TensorProto.FLOAT
    given, result = {"encode": ("x", "z"), "decode": ("z", "x")}[name]
    nodes = [
        make.make_node("Mul", [given, "scale"], [result]),
        make.make_node("Sub", [given, given], ["zeros"]),
        make.make_node("ReduceSum", ["zeros", "axis"], ["sums"], keepdims=0),
        make.make_node("Add", ["sums", "number"], ["log_det"]),
    ]
    numbers = [
        make.make_tensor("scale", real, [2], scale),
        make.make_tensor("number", real, [], [log_det]),
        make.make_tensor("axis", onnx.TensorProto.INT64, [1], [1]),
    ]
    shapes = {given: ["batch", 2], result: ["batch", 2], "log_det": ["batch"]}
    values = {key: make.make_tensor_value_info(key, real, one) for key, one in shapes.items()}
    outputs = [values[result], values["log_det"]]
    graph = make.make_graph(nodes, name, [values[given]], outputs, numbers)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=9)
    about = {
        "inputs": {given: shapes[given]},
        "outputs": {key: shapes[key] for key in (result, "log_det")},
        "dtype": "float32",
        "base": "StandardNormal",
        "location": [0.0, 0.0],
        "scale": [1.0, 1.0],
    }
    make.set_model_props(model, {"kappaflow": json.dumps(about)})
    onnx.save(model, folder / f"{name}.onnx")


def test_the_doctor_finds_a_wrong_log_det_in_onnx_without_trust(tmp_path):
    """Both directions agree, and both lack a term; the verdict says what it did not check."""
    write_program(tmp_path, "encode", [2.0, 5.0], math.log(2))
    write_program(tmp_path, "decode", [0.5, 0.2], -math.log(2))
    found = kf.doctor(kf.interop.read_exported(tmp_path), torch.randn(8, 2) / 3)
    (finding,) = (one for one in found.findings if one.severity == "error")
    assert finding.code == "KF203" and finding.layer == "1 exported flow"
    assert finding.evidence["worst_nats"] == pytest.approx(math.log(5), abs=1e-3)
    assert found.measured["condition_number_max"] == pytest.approx(2.5, rel=1e-3)
    assert "no derivatives" in found.measured["not_checked"]


@pytest.mark.slow
def test_the_doctor_examines_an_exported_flow_in_onnx(tmp_path, capsys):
    """A correct one has no finding, and about the condition number of the flow."""
    pytest.importorskip("onnxruntime")
    flow = jittered(kf.real_nvp(2, depth=2, hidden=(4,)), seed=1).eval()
    kf.export(flow, tmp_path / "out", format="onnx", functions=["encode", "decode", "log_prob"])
    x = torch.randn(16, 2)
    found = kf.doctor(kf.interop.read_exported(tmp_path / "out" / "encode.onnx"), x)
    assert found.ok and "have no derivatives" in found.measured["not_checked"]
    own = kf.wrap(kf.interop.read_exported(tmp_path / "out"))
    found, expected = (kf.spectrum(one.bijection, x).condition_number for one in (own, flow))
    assert torch.allclose(found, expected, rtol=1e-2)
    assert main(["doctor", str(tmp_path / "out")]) == 0
    assert "programs in ONNX have no derivatives" in capsys.readouterr().out
    write_program(tmp_path / "out", "decode", [0.5, 0.5], 0.0)
    assert "KF201" in [
        one.code for one in kf.doctor(kf.interop.read_exported(tmp_path / "out"), x).findings
    ]


def test_a_file_in_onnx_that_cannot_be_read_is_one_sentence(tmp_path, capsys, monkeypatch):
    """A damaged file, and a missing runtime."""
    pytest.importorskip("onnxruntime")
    (tmp_path / "encode.onnx").touch()
    assert main(["doctor", str(tmp_path)]) == 2
    assert "encode.onnx cannot be loaded" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(kf.errors.ArgumentError, match="need onnxruntime: pip install"):
        kf.interop.read_exported(tmp_path)
