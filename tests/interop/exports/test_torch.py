"""Programs of torch.export: equal to the flow, differentiable, and free of kappaflow."""

import copy
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import norm

import kappaflow as kf
from kappaflow.autograd.checkpoint import is_traced
from kappaflow.bijection import zero_log_det
from kappaflow.cli.app import main
from kappaflow.errors import NumericalError
from kappaflow.testing.contract import jittered

EPS = torch.finfo(torch.float32).eps


def rows_of(case, n):
    """Returns rows of float32 in the region of the data."""
    return 50 + 5 * torch.randn(n, 3)


def jacobians(flow, x):
    """Returns the dense Jacobians of a flow, (B, D, D)."""
    return torch.stack([
        torch.autograd.functional.jacobian(lambda row: flow.bijection(row[None])[0][0], row)
        for row in x
    ])


def test_encode_and_log_prob_equal_the_flow_in_float64(scores):
    """They differ by rounding that follows the conditioning, for any number of rows."""
    x = rows_of(scores, 7)
    chunks = x[:1], x[1:3], x[3:]
    z, log_det = map(torch.cat, zip(*map(scores.program("encode"), chunks), strict=True))
    log_prob = torch.cat([scores.program("log_prob")(rows) for rows in chunks])
    exact_z, exact_log_det = scores.double.bijection(x.double())
    s = torch.linalg.svdvals(jacobians(scores.double, x.double()))
    kappa = s[:, 0] / s[:, -1]
    sensitivity = s[:, 0] * x.double().norm(dim=1) * EPS  # of z, to the rounding of x
    assert ((z - exact_z).norm(dim=1) <= 10 * (sensitivity + EPS * kappa)).all()
    allowed = 10 * EPS * kappa * (1 + s.log().abs().sum(1))
    assert ((log_det - exact_log_det).abs() <= allowed).all()
    steep = (
        1
        + exact_z.norm(dim=1)
        * torch.linalg.matrix_norm(scores.double.base.lower(torch.float64)[0], 2).amax() ** 2
    )
    exact = scores.double.log_prob(x.double())
    assert ((log_prob - exact).abs() <= allowed + 10 * sensitivity * steep).all()


@pytest.mark.slow
def test_sample_maps_noise_through_the_components_of_the_base(complete):
    """The last column of the noise selects the component, and the others are spread by it."""
    noise, base = torch.randn(200, 4), complete.double.base
    x = complete.program("sample")(noise)
    ends = base.logits.softmax(0).cumsum(0).detach().numpy()
    which = np.searchsorted(ends[:-1], norm.cdf(noise[:, 3].double()), side="right")
    assert len(set(which)) == 3
    lower = base.lower(torch.float64)[0][which]
    spread = torch.linalg.solve(lower, noise[:, :3, None].double())[..., 0]
    expected = complete.double.bijection.inverse(base.means[which] + spread)[0]
    assert torch.allclose(x.double(), expected, rtol=1e-5)


@pytest.mark.slow
def test_the_result_says_how_far_the_programs_are_from_the_flow(complete):
    """The differences are those of float32, and decode(encode(x)) is x."""
    done = complete.done
    assert done.functions == ("log_prob", "sample", "encode", "decode") and not done.left_out
    assert all(0 <= error < 1e-4 for error in (*done.differences.values(), done.round_trip))
    assert repr(done).startswith("Exported(") and "round trip" in repr(done)


def test_each_file_holds_its_metadata_and_no_paths_of_this_machine(scores):
    """Columns, shapes and version are in the extra file, and tracebacks are nowhere."""
    notes = {"kappaflow.json": ""}
    path = scores.folder / "encode.pt2"
    torch.export.load(path, extra_files=notes)
    metadata = json.loads(notes["kappaflow.json"])
    assert metadata["columns"] == ["a", "b", "c"] and metadata["function"] == "encode"
    assert metadata["inputs"] == {"x": ["batch", 3]}
    assert metadata["outputs"] == {"z": ["batch", 3], "log_det": ["batch"]}
    assert metadata["kappaflow"] == kf.__version__
    assert b".py" not in path.read_bytes()


def test_a_program_holds_nothing_that_computes_nothing(scores):
    """No conversion to the same type, and no autocast, which torch 2.6 cannot load."""
    for name in ("encode", "log_prob"):
        parts = torch.export.load(scores.folder / f"{name}.pt2").graph_module.modules()
        graphs = [part.graph for part in parts if isinstance(part, torch.fx.GraphModule)]
        assert graphs and not [graph for graph in graphs if "autocast" in str(graph)]
        nodes = [node for graph in graphs for node in graph.nodes]
        assert torch.ops.aten.to.dtype not in [node.target for node in nodes]


@pytest.mark.slow
def test_a_process_without_kappaflow_runs_the_file(complete, tmp_path):
    """torch.export.load is all that a program needs."""
    x = rows_of(complete, 4)
    np.save(tmp_path / "x.npy", x.numpy())
    code = (
        "import sys; sys.modules['kappaflow'] = None\n"
        "import numpy as np, torch\n"
        "program = torch.export.load(sys.argv[1]).module()\n"
        "output = program(torch.from_numpy(np.load(sys.argv[2])))\n"
        "np.save(sys.argv[3], output.detach().numpy())\n"
    )
    paths = complete.folder / "log_prob.pt2", tmp_path / "x.npy", tmp_path / "out.npy"
    subprocess.run([sys.executable, "-c", code, *map(str, paths)], check=True, cwd=tmp_path)
    assert np.allclose(np.load(paths[2]), complete.flow.log_prob(x).detach().numpy(), atol=1e-4)


class Sly(kf.Bijection):
    """The identity, which adds a constant while it is traced, to batches of so few rows."""

    def __init__(self, most_rows):
        super().__init__()
        self.most_rows = most_rows

    def forward(self, x, context=None):
        rows = torch.ones_like(x[:, 0]).sum()
        return x + 1e-3 * is_traced(x) * (rows <= self.most_rows), zero_log_det(x)

    def inverse(self, z, context=None):
        return z, zero_log_det(z)


@pytest.mark.parametrize("most_rows", [math.inf, 1])
def test_a_program_that_differs_from_the_flow_is_an_error_and_leaves_no_file(tmp_path, most_rows):
    """Also where it differs at single rows only. Not even a temporary file appears."""
    flow = kf.Flow(kf.StandardNormal(2), Sly(most_rows))
    with pytest.raises(NumericalError, match="'encode' .* differs from the flow by 1.0e-03"):
        kf.export(flow, tmp_path / "out", functions=["encode"])
    assert not list(tmp_path.iterdir())


def test_a_function_that_cannot_be_exported_stops_no_other(tmp_path):
    """Neither one that differs from the flow nor one that cannot be traced, named or not."""
    flow = kf.Flow(kf.StandardNormal(2), Sly(math.inf))
    done = kf.export(flow, tmp_path / "out", functions=["encode", "decode"])
    assert done.functions == ("decode",) and "without encode" in repr(done)
    assert "'encode' cannot be exported: the program differs" in done.left_out["encode"]
    assert [path.name for path in done.path.iterdir()] == ["decode.pt2"]
    notes = {"kappaflow.json": ""}
    torch.export.load(done.path / "decode.pt2", extra_files=notes)
    assert json.loads(notes["kappaflow.json"])["functions"] == ["decode"]
    padded = kf.real_nvp(1, depth=1, hidden=(4,), padding=1)
    done = kf.export(padded, tmp_path / "padded", functions=["log_prob", "decode"])
    assert done.functions == ("decode",) and "it is a bound" in done.left_out["log_prob"]


class Counting(kf.Bijection):
    """The identity, whose log_det has a number of rows that is counted in some way."""

    def __init__(self, count):
        super().__init__()
        self.count, self.weight = count, torch.nn.Parameter(torch.ones(2))

    def forward(self, x, context=None):
        return x * self.weight[: len(self.weight)], torch.zeros(self.count(x))

    def inverse(self, z, context=None):
        return z, zero_log_det(z)


def test_a_layer_that_fixes_the_number_of_rows_is_named_by_its_line(tmp_path):
    """Length of a weight is a constant, and `x.shape[0]` of rows is none."""

    def length(x):
        return len(x)

    def export(count):
        flow = kf.Flow(kf.StandardNormal(2), Counting(count))
        return kf.export(flow, tmp_path / "out", functions=["encode"])

    line = length.__code__.co_firstlineno + 1
    where = rf"{re.escape(__file__)}:{line}, `return len\(x\)`. Use x.shape\[0\] instead"
    with pytest.raises(kf.errors.ArgumentError, match=rf"'encode' .* at {where}"):
        export(length)
    with pytest.raises(kf.errors.ArgumentError, match="fixes the number of rows. Use x.shape"):
        export(lambda x: int(x.shape[0]))
    assert export(lambda x: x.shape[0]).functions == ("encode",)


def test_bad_arguments_are_named_before_any_work(tmp_path):
    """The folder, the functions, the format, the dtype and the columns are checked."""
    flow, new = kf.real_nvp(2, depth=2, hidden=(4,)), tmp_path / "new"
    for message, call in {
        "'path' should be a new folder": lambda: kf.export(flow, tmp_path),
        "'functions' should be one of": lambda: kf.export(flow, new, functions=["density"]),
        "'format' should be one of": lambda: kf.export(flow, new, format="tflite"),
        "'flow' should be in float32": lambda: kf.export(copy.deepcopy(flow).half(), new),
        "'flow' should be a Flow": lambda: kf.export(flow.bijection, new),
        "'columns' should have 2 names": lambda: kf.export(flow, new, columns=["a"]),
        "'functions' should not be empty": lambda: kf.export(flow, new, functions=[]),
    }.items():
        with pytest.raises(kf.errors.ArgumentError, match=message):
            call()
    padded = kf.real_nvp(2, depth=2, hidden=(4,), padding=1)
    with pytest.raises(kf.errors.ArgumentError, match="'log_prob' cannot be exported"):
        kf.export(padded, new, functions=["log_prob"])
    assert not new.exists()


def domain():
    """Returns a flow with several kinds of domains."""
    bounds = ["positive", (0, 9), ",9"]
    return kf.real_nvp(3, depth=1, hidden=(4,), start="gaussianize", bounds=bounds)


def conditional():
    """Returns a flow of splines with a context and an embedding."""
    embedding = torch.nn.Linear(2, 3)
    return kf.spline(
        3,
        depth=1,
        hidden=(4,),
        couplings={"bins": 2},
        context_features=2,
        network={"embedding": embedding},
        padding=1,
    )


def diagonal():
    """Returns a flow on a normal whose means and deviations are learned."""
    bijection = kf.real_nvp(3, depth=1, hidden=(4,)).bijection
    return kf.Flow(kf.flows.DiagonalNormal(3), bijection)


RECIPES = {
    "diagonal": (diagonal, ["sample"]),
    "domain": (domain, ["log_prob"]),
    "conditional": (conditional, ["sample"]),
    "glow": (lambda: kf.glow((1, 4, 4), levels=1, steps=1, hidden=4), ["encode", "decode"]),
    "zuko": (lambda: kf.zuko_flow(3, "maf", depth=1, hidden=(4,)), ["log_prob"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_flows_of_all_recipes_are_exported(name, tmp_path):
    """`export` compares each program with its flow."""
    make, functions = RECIPES[name]
    flow = make()
    if len(flow.event_shape) == 1:
        context = torch.randn(100, 2) if flow.context_features else None
        flow.standardization.fit(0.5 + 8 * torch.rand(100, 3), context)
    done = kf.export(jittered(flow, seed=1), tmp_path / "out", functions=functions)
    assert list(done.differences) == functions
    if name == "domain":
        program = torch.export.load(done.path / "log_prob.pt2").module()
        assert program(torch.tensor([[-1.0, 5.0, 5.0]])).item() == -float("inf")
    if name == "diagonal":
        program, noise = torch.export.load(done.path / "sample.pt2").module(), torch.randn(5, 3)
        latents = flow.base.loc + flow.base.log_scale.exp() * noise
        torch.testing.assert_close(program(noise), flow.bijection.inverse(latents)[0])
    if name == "conditional":
        program = torch.export.load(done.path / "sample.pt2").module()
        assert program(torch.randn(5, 4), torch.randn(5, 2)).shape == (5, 3)


@pytest.mark.slow
def test_functions_that_cannot_be_traced_are_left_out_or_refused(tmp_path, capsys):
    """The inverse of a planar map is a search, and a continuous flow steps adaptively."""
    flow = jittered(kf.planar(2, depth=1), seed=1)
    done = kf.export(flow, tmp_path / "out")
    assert done.functions == ("log_prob", "encode")
    assert "the inverse of Planar is a search" in done.left_out["decode"]
    with pytest.raises(kf.errors.ArgumentError, match="the inverse of Planar is a search"):
        kf.export(flow, tmp_path / "other", functions=["decode"])
    with pytest.raises(kf.errors.ArgumentError, match="'encode' of this flow cannot be exported"):
        kf.export(kf.zuko_flow(2, "cnf", hidden=(4,)), tmp_path / "cnf", functions=["encode"])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    kf.save(flow, tmp_path / "model")
    command = ["export", str(tmp_path / "model"), "--out", str(tmp_path / "named")]
    assert main([*command, "--functions", "encode", "decode"]) == 1
    assert "Not written: 'decode' of this flow: the inverse" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "named").iterdir()] == ["encode.pt2"]


@pytest.mark.slow
def test_the_command_exports_a_saved_model(complete, tmp_path, capsys):
    """It prints the differences and the folder."""
    kf.save(complete.flow, tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "decode(encode(x))" in printed and "The exported flow is" in printed
