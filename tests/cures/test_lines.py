"""The lines that are printed for code of other libraries: applied, they cure."""

import json
import re
import subprocess

import pytest

from kappaflow.cli.app import main
from kappaflow.cures.edits import Text

FREIA = """
import FrEIA.framework as Ff
import FrEIA.modules as Fm
import numpy as np
import torch
from torch import nn


def subnet(a, b):
    net = nn.Sequential(nn.Linear(a, 16), nn.ReLU(), nn.Linear(16, b))
    net[-1].weight.data *= 30
    return net


def make():
    torch.manual_seed(0)
    np.random.seed(0)  # of its permutations
    inn = Ff.SequenceINN(4)
    for _ in range(8):
        inn.append(Fm.AllInOneBlock, subnet_constructor=subnet)
    return inn, torch.randn(64, 4)
"""

GRAPH = """
import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch
from torch import nn


def subnet(a, b):
    net = nn.Sequential(nn.Linear(a, 16), nn.ReLU(), nn.Linear(16, b))
    net[-1].weight.data *= 4
    return net


def make():
    torch.manual_seed(0)
    nodes = [Ff.InputNode(4, name="in")]
    for i in range(8):
        nodes.append(Ff.Node(nodes[-1], Fm.GLOWCouplingBlock, {"subnet_constructor": subnet}))
    nodes.append(Ff.OutputNode(nodes[-1]))
    return Ff.GraphINN(nodes), torch.randn(64, 4)
"""

ZUKO = """
import torch
from zuko.flows import MAF


def make():
    torch.manual_seed(0)
    flow = MAF(4, transforms=4)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(4)
    return flow, 2 * torch.randn(64, 4)
"""

FREIA_NORMS = """
import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch
from torch import nn


def subnet(a, b):
    return nn.Sequential(nn.Linear(a, 16), nn.ReLU(), nn.Linear(16, b))


def make():
    x = torch.randn(64, 4)
    inn = Ff.SequenceINN(4)
    inn.append(Fm.ActNorm)
    inn.append(Fm.AllInOneBlock, subnet_constructor=subnet)
    return inn, x
"""

FREIA_NORMS_GIVEN = (
    FREIA_NORMS.replace("subnet_constructor", "cond=0, cond_shape=(1,), subnet_constructor")
    .replace("    inn = ", "    c = torch.randn(64, 1)\n    inn = ")
    .replace("inn, x", "inn, x, c")
)

NORMS = """
import normflows as nf
import torch


def make():
    torch.manual_seed(0)
    layers = [nf.flows.ActNorm(3)]
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(3), layers)
    x = 5 + torch.randn(64, 3)
    return flow, x
"""

PYRO = """
import pyro.distributions as dist
import pyro.distributions.transforms as T
import torch

torch.manual_seed(0)
base = dist.Normal(torch.zeros(4), torch.ones(4)).to_event(1)
layers = [T.affine_coupling(4, hidden_dims=[16]) for _ in range(10)]
for layer in layers:
    for parameter in layer.parameters():
        parameter.data *= 6
made = dist.TransformedDistribution(base, layers)
"""


def examined(folder, capsys, name, *words):
    """Returns what the doctor says of a flow of flows.py, as JSON says it."""
    capsys.readouterr()
    main(["doctor", f"flows.py:{name}", "--json", *words])
    return json.loads(capsys.readouterr().out)


def need_imports(source):
    """Skips a test of flows of a library that is not there."""
    for library in re.findall(r"^(?:import|from) (\w+)", source, flags=re.MULTILINE):
        pytest.importorskip(library)


def severity(said):
    """Returns the codes above a note."""
    return {one["code"] for one in said["findings"] if one["severity"] != "note"}


@pytest.mark.parametrize(
    ("source", "name", "line", "cured"),
    [
        (FREIA, "make", "affine_clamping=1.0)", {"KF202", "KF301"}),
        (GRAPH, "make", "{\"subnet_constructor\": subnet, 'clamp': 1.0}", {"KF301"}),
        (ZUKO, "make", "slope=0.1)", {"KF202", "KF301"}),
        (PYRO, "made", "log_scale_min_clip=-2.0, log_scale_max_clip=2.0)", set()),
    ],
)
def test_bounds_and_float64_cure_what_they_are_for(
    tmp_path, capsys, monkeypatch, source, name, line, cured
):
    need_imports(source)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "flows.py"
    file.write_text(source)
    before = examined(tmp_path, capsys, name, "--fix")
    assert cured <= severity(before)
    assert line in before["lines_to_change"]
    patch = subprocess.run(
        ["git", "apply", "-p0", "-"],
        input=before["lines_to_change"],
        text=True,
        cwd=tmp_path,
        check=False,
        capture_output=True,
    )
    assert patch.returncode == 0, patch.stderr
    after = examined(tmp_path, capsys, name)
    assert not cured & severity(after), after["findings"]
    worst = [said["measured"]["condition_number_max"] for said in (before, after)]
    assert worst[1] < 1e-3 * worst[0]
    dtype = "float32" if name == "made" else "float64"
    assert after["measured"]["dtype"] == dtype


@pytest.mark.parametrize("source", [NORMS, FREIA_NORMS, FREIA_NORMS_GIVEN])
def test_norms_get_their_first_rows(source, tmp_path, capsys, monkeypatch):
    """By log_prob, or by a call where a network has none, as those of FrEIA."""
    need_imports(source)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flows.py").write_text(source)
    before = examined(tmp_path, capsys, "make", "--fix")
    assert "KF401" in [one["code"] for one in before["findings"]]
    subprocess.run(
        ["git", "apply", "-p0", "-"],
        input=before["lines_to_change"],
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert "KF401" not in [one["code"] for one in examined(tmp_path, capsys, "make")["findings"]]


def test_a_wrong_density_of_draws_is_asked_for_on_its_own():
    from kappaflow.cures import lines_to_change
    from kappaflow.diagnosis import Diagnosis, Finding

    found = Diagnosis((Finding("KF206", "error", None, "message", "cause", "cure"),), "verdict")
    source = "def draw(flow):\n    x, p = flow.sample(9, return_log_prob=True)\n    return x, p\n"
    diff = lines_to_change(source, "flows.py", "make", object(), found)
    assert "+    x = flow.sample(9, return_log_prob=False)\n+    p = flow.log_prob(x)\n" in diff


def test_an_import_comes_behind_those_of_the_future():
    """And behind a docstring; where nothing is imported at the top, in front of the rest."""
    import ast

    from kappaflow.cures.lines import lines_to_change
    from kappaflow.diagnosis import Diagnosis, Finding

    zuko = pytest.importorskip("zuko")
    found = Diagnosis((Finding("KF301", "error", None, "message", "cause", "cure"),), "verdict")
    start = '"""Flows."""\nfrom __future__ import annotations\n'
    plain = "from zuko.flows import MAF\n\n\ndef make():\n    return MAF(2)\n"
    inside = "@print\ndef make():\n    from zuko.flows import MAF\n    return MAF(2)\n"
    for rest in (plain, inside):
        diff = lines_to_change(start + rest, "x.py", "make", zuko.flows.MAF(2), found)
        changed = [line[1:] for line in diff.splitlines() if line[:1] in ("+", " ")][1:]
        assert changed[:3] == [*start.splitlines(), "import zuko"]
        ast.parse("\n".join(changed))


def test_a_healthy_flow_needs_no_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flows.py").write_text(
        "import torch\nimport zuko\n\ntorch.manual_seed(0)\nmade = zuko.flows.MAF(3)\n"
    )
    assert examined(tmp_path, capsys, "made", "--fix")["lines_to_change"] == ""
    main(["doctor", "flows.py:made", "--fix"])
    assert "No line to change is known." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("f()", "f(a=1)"),
        ("f(b)", "f(b, a=1)"),
        ("f(b, a=2)", "f(b, a=1)"),
        ("f(b, *c, **d)", "f(b, *c, **d, a=1)"),
        ("f(\n    b,\n)", "f(\n    b, a=1,\n)"),
        ("f('é', (b))", "f('é', (b), a=1)"),
    ],
)
def test_a_keyword_is_set_in_any_call(before, after):
    text = Text(before + "\n")
    call = text.tree.body[0].value
    text.set_keyword(call, "a", "1")
    changed = [line[1:] for line in text.diff("x").splitlines() if line[0] in "+ "][1:]
    assert "\n".join(changed) == after


def test_cures_by_name_are_for_runs(capsys, tmp_path):
    (tmp_path / "flows.py").write_text("import zuko\nmade = zuko.flows.MAF(3)\n")
    assert main(["doctor", f"{tmp_path}/flows.py:made", "--fix", "pad"]) == 2
    assert "prints lines" in capsys.readouterr().err
    assert main(["doctor", f"{tmp_path}/flows.py:made", "--into", "x"]) == 2
    assert "'into' should be left out" in capsys.readouterr().err
