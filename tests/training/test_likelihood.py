"""Compiled steps: the gradients of those without, in each memory mode, or a stop."""

import functools
import math
import os
import subprocess
import sys

import pytest
import torch
from faults.trainings import ended, started, write_rows
from tests.training.examples import Interrupt
from torch import nn

import kappaflow as kf
from kappaflow.training.maximum_likelihood import CheckedLikelihood

EPOCHS = {"max_epochs": 4, "batch_size": 50, "validation": torch.randn(40, 3)}
# Warnings of torch itself while it compiles, which it hides from users.
compiling = pytest.mark.filterwarnings(
    "ignore:.*autograd.function.Function.* should not be instantiated:DeprecationWarning",
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning",
)


class Net(nn.Module):
    """A conditioner that draws, and that counts batches."""

    def __init__(self, kept, changed):
        super().__init__()
        self.first, self.last = nn.Linear(kept, 16), nn.Linear(16, changed)
        self.norm, self.drop = nn.BatchNorm1d(16), nn.Dropout(0.3)

    def forward(self, x):
        return self.last(self.drop(self.norm(self.first(x)).tanh()))


def rows(n=175):
    """Three columns; three batches of 50, and 25 rows over."""
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(1))
    return torch.stack([x[:, 0], x[:, 1] + x[:, 0] ** 2, 3 * x[:, 2] + 5], dim=1)


def shaken(flow):
    """Returns a flow no map of which is the identity any more."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return flow


def drawing(memory):
    """Returns a flow whose conditioners draw and count, with the same weights each time."""
    torch.manual_seed(0)
    half = kf.Partition.half(4)
    parts = [
        kf.bijections.SplineCoupling(each, Net(2, 2 * 11), bins=4)
        for each in (half, half.swapped())
    ]
    return kf.Flow(kf.StandardNormal(4), kf.Chain(parts, memory=memory)).train()


def with_dropout(memory):
    """Returns a flow whose networks are ours, of so many layers that a compiler reorders draws."""
    torch.manual_seed(0)
    flow = kf.spline(
        10, depth=4, hidden=(16, 16), network={"dropout": 0.1}, couplings={"memory": memory}
    )
    return shaken(flow).train()


def spline(memory):
    return kf.spline(3, depth=2, hidden=(8,), couplings={"bins": 4, "memory": memory})


FLOWS = {
    "planar": lambda: kf.planar(3, depth=2),
    "real_nvp": lambda: kf.real_nvp(3, depth=2, hidden=(8,)),
    "spline, recompute": lambda: spline("recompute"),
    "spline, invert": lambda: spline("invert"),
}


def as_compiled_by(compiled, monkeypatch):
    """Puts a function of another in the place of `torch.compile`."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled(function))


def longer(factor):
    """Returns a compiler whose gradients are longer by a factor; the values are right."""

    def compiled(function):
        def run(x, context):
            result = function(x, context)
            return result.detach() + factor * (result - result.detach())

        return run

    return compiled


@pytest.mark.parametrize(("factor", "error"), [(1.05, r"0.0\d+"), (math.nan, "inf")])
def test_wrong_gradients_stop_the_training(monkeypatch, factor, error):
    """With the parameter at which they are worst; the flow is as it was."""
    as_compiled_by(longer(factor), monkeypatch)
    flow = shaken(FLOWS["planar"]())
    before = {name: t.clone() for name, t in flow.state_dict().items() if "bijections.1" in name}
    message = (
        r"compile=True: torch.compile returns wrong gradients for this flow, with a relative "
        rf"error of {error} at bijection\.\S+; "
    )
    with pytest.raises(kf.errors.BuildError, match=message):
        kf.fit(flow, rows(), compile=True, **EPOCHS)
    assert before
    assert all(torch.equal(t, flow.state_dict()[name]) for name, t in before.items())


def test_rounding_is_not_wrong(monkeypatch):
    """Nor what a step that is not finite for both has: that step is skipped."""
    as_compiled_by(longer(1.001), monkeypatch)
    assert len(kf.fit(FLOWS["planar"](), rows(), compile=True, **EPOCHS).history) == 4
    flow = shaken(FLOWS["planar"]())
    flow.unchecked = False  # as `kappaflow.fit` leaves it: it looks at its rows itself
    CheckedLikelihood(flow, compiled=True).check(rows() * math.nan, None, 1)


def test_a_compiler_that_fails_is_one_sentence(monkeypatch):
    """With the first line of what it reported."""

    def failing(function):
        def run(x, context):
            raise OSError("no g++ here\nand much more")

        return run

    as_compiled_by(failing, monkeypatch)
    with pytest.raises(kf.errors.BuildError, match=r"g\+\+, failed here \(no g\+\+ here\); leave"):
        kf.fit(FLOWS["planar"](), rows(), compile=True, **EPOCHS)


@pytest.mark.slow
def test_whole_batches_are_compiled_and_comparing_changes_nothing(monkeypatch):
    """Neither random numbers nor statistics of batches: the same losses, bit for bit."""
    seen = []

    def noting(function):
        def run(x, context):
            seen.append(len(x))
            return function(x, context)

        return run

    as_compiled_by(noting, monkeypatch)
    x = torch.randn(175, 4, generator=torch.Generator().manual_seed(2))
    settings = EPOCHS | {"validation": x[:40]}
    plain = kf.fit(drawing("store"), x, **settings)
    assert not seen
    compiled = kf.fit(drawing("store"), x, compile=True, **settings)
    for key in ("train_nll", "validation_nll"):
        assert [a[key] for a in plain.history] == [b[key] for b in compiled.history]
    assert set(seen) == {50}
    assert len(seen) == 4 * 3 + 3  # compared in epochs 1, 2 and 4


@pytest.mark.slow
def test_a_training_that_is_resumed_compares_at_once(tmp_path, monkeypatch, each_epoch):
    """Whatever its epoch."""
    checked, original = [], CheckedLikelihood._fault
    monkeypatch.setattr(
        CheckedLikelihood,
        "_fault",
        lambda self, x, context: checked.append(original(self, x, context)),
    )
    as_compiled_by(lambda function: function, monkeypatch)
    options = EPOCHS | {"compile": True, "out": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        kf.fit(FLOWS["planar"](), rows(), callbacks=[Interrupt(3)], **options)
    assert len(checked) == 2
    kf.fit(FLOWS["planar"](), rows(), **options)
    assert len(checked) == 2 + 2  # epochs 3, where it was resumed, and 4


@pytest.mark.slow
def test_every_flow_of_a_process_is_compiled(monkeypatch):
    """Also after as many others as torch compiles of one function."""
    from torch._dynamo.testing import CompileCounter  # here: it takes a second

    counter = CompileCounter()
    compiled = functools.partial(torch.compile, backend=counter)
    as_compiled_by(compiled, monkeypatch)
    for depth in range(1, 12):
        CheckedLikelihood(kf.planar(2, depth=depth), compiled=True).check(
            torch.randn(7, 2), None, 1
        )
    assert counter.frame_count == 11


@pytest.mark.slow
@compiling
@pytest.mark.parametrize("name", FLOWS)
def test_compiled_gradients_are_those_without(name):
    """Up to rounding; the same bits of what is left as it is."""
    flow = shaken(FLOWS[name]())
    kf.fit(flow, rows(), max_epochs=1)  # its units
    trained, result = flow.train(), []
    model = CheckedLikelihood(trained, compiled=True)
    for is_whole in (False, True):
        log_prob = model(rows(), None, is_whole)
        result.append([
            log_prob.detach(),
            *torch.autograd.grad(log_prob.mean(), flow.parameters()),
        ])
    is_left = "real_nvp" in name or "invert" in name
    for plain, compiled in zip(*result, strict=True):
        if is_left:
            assert torch.equal(plain, compiled)
        else:
            torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)
    if not is_left:
        assert not all(map(torch.equal, *result))  # it was compiled
        torch.compiler.reset()
        assert torch._dynamo.explain(flow.log_prob)(rows()).graph_break_count == 0


@pytest.mark.slow
@compiling
@pytest.mark.parametrize(
    ("make", "memory"),
    [(drawing, "recompute"), (with_dropout, "recompute")],
)
def test_compiled_conditioners_draw_and_count_as_those_without(make, memory):
    """Dropout leaves out the same units, and no batch is counted twice."""
    flows, result = [make(memory) for _ in range(2)], []
    x = torch.randn(64, *flows[0].base.event_shape, generator=torch.Generator().manual_seed(2))
    for is_whole, flow in enumerate(flows):
        flow.eval().log_prob(x)  # what a first call makes once for all
        flow.train()
        model = CheckedLikelihood(flow, compiled=True)
        for _ in range(2):
            torch.manual_seed(5)
            log_prob = model(x, None, bool(is_whole))
            gradients = torch.autograd.grad(log_prob.mean(), flow.parameters())
        result.append([log_prob.detach(), *gradients, *flow.buffers()])
    for plain, compiled in zip(*result, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)
    counts = [b.item() for name, b in flows[1].named_buffers() if "num_batches" in name]
    assert set(counts) <= {2}
    torch.compiler.reset()
    assert torch._dynamo.explain(flows[1].log_prob)(x).graph_break_count == 0


@pytest.mark.slow
@compiling
def test_two_processes_compile_to_the_same_bits(tmp_path):
    """Of the command; and where there is no compiler it is one sentence."""
    data = write_rows(tmp_path / "rows.csv", 300)
    words = ["fit", str(data), "--model", "planar", "--depth", "2", "--compile", "--quiet"]
    words += ["--batch-size", "100", "--max-epochs", "3"]
    weights = []
    for name in ("one", "other"):
        status, printed = ended(started([*words, "--out", str(tmp_path / name)]))
        assert status == 0, printed
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    for file in ("config.json", "report.json"):  # what a stored run could not say rightly
        assert '"compile"' not in (tmp_path / "one" / file).read_text()
    none = os.environ | {"CXX": "/nowhere", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "kappaflow", *words, "--out", str(tmp_path / "none")]
    failed = subprocess.run(command, env=none, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1, failed.stderr
    assert "which needs a C++ compiler such as g++, failed here (" in failed.stderr
