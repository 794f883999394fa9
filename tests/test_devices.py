"""Every public path runs on an accelerator: no mixed devices, and no host that waits in a step.

Two devices stand for one: "meta", whose tensors have no values, and a pretended CUDA device, whose
tensors have those of the CPU.
"""

import numpy as np
import pytest
import torch

import kappaflow as kf
from cases import BIJECTIONS, FLOWS
from kappaflow.autograd.checkpoint import MEMORY_MODES
from kappaflow.data.batches import Batch
from kappaflow.training.batches import fit_standardization
from kappaflow.training.distributed import Engine
from kappaflow.training.loop import Training
from kappaflow.training.maximum_likelihood import MaximumLikelihood, Share
from kappaflow.training.settings import Settings
from pretend import CUDA, PretendedDevice

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the real one")

# What needs values by nature, by recipe: the inverses of planar and radial layers are searches
# that stop when they have converged, and zuko selects the points inside its splines by a mask.
SEARCHES = ("planar", "radial")
BY_VALUES = {
    **dict.fromkeys(SEARCHES, "aten._local_scalar_dense, planar_radial.py"),
    "zuko_flow": "aten.nonzero, zuko_flow.py",
}
FIXED = {"Flow of one permutation", "triangular_flow"}  # have no parameters
LARGE = {"jet", "real_nvp_image", "glow"}
PLAIN = [name for name in FLOWS if "," not in name] + [
    "nice, random, context",
    "real_nvp, fitted units",
    "real_nvp, mixed, whitened",
    "glow, three channels, H != W, additive, context",
    "spline, bounds, circles",
    "zuko_flow, context",
]


def slow_but(names, few):
    """Returns names as parameters; all but a few are slow."""
    return [name if name in few else pytest.param(name, marks=pytest.mark.slow) for name in names]


FEW = {*PLAIN} - LARGE - {"spline, bounds, circles", "nice", "radial", "zuko_flow"}
PROFILED = {"real_nvp, fitted units", "zuko_flow, context", "nice"}
PROFILED |= {"glow, three channels, H != W, additive, context"}
TRAINED = slow_but([name for name in FLOWS if name not in FIXED], FEW)
WITHOUT_MASKS = slow_but([name for name in FLOWS if name != "zuko_flow, context"], FEW)


@pytest.fixture
def device(monkeypatch):
    """A pretended CUDA device; stacks on the CPU run in Python, as those on CUDA do."""
    monkeypatch.setenv("KAPPAFLOW_NATIVE", "0")
    with PretendedDevice() as pretended:
        yield pretended


def moved(*tensors, to=CUDA):
    return [None if tensor is None else tensor.to(to) for tensor in tensors]


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual.detach().cpu(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", BIJECTIONS)
def test_bijections_stay_on_the_device_and_agree_with_the_cpu(name, device):
    """Forward and inverse agree; forward never makes the host wait."""
    module, x, context = BIJECTIONS[name].build(torch.float64)
    with torch.no_grad():
        expected = module(x, context)
        module.to(CUDA)
        x, context = moved(x, context)
        device.waits.clear()
        z, log_det = module(x, context)
        assert not device.waits
        close(z, expected[0])
        close(log_det, expected[1])
        assert module.inverse(z, context)[0].device == CUDA


@pytest.mark.parametrize("name", slow_but(FLOWS, FEW))
def test_densities_and_samples_stay_on_the_device(name, device):
    """They agree with the CPU and never make the host wait, but for values."""
    flow, x, context = FLOWS[name].build(torch.float64)
    with torch.no_grad():
        torch.manual_seed(0)
        expected = flow.log_prob(x, context)
        torch.manual_seed(0)
        samples = flow.sample(3, context)
        flow.to(CUDA)
        x, context = moved(x, context)
        device.waits.clear()
        torch.manual_seed(0)
        log_prob = flow.log_prob(x, context)
        torch.manual_seed(0)
        drawn = flow.sample(3, context)
    waits = {wait.partition(":")[0] for wait in device.waits}
    close(log_prob, expected)
    close(drawn, samples)
    assert waits <= {BY_VALUES.get(name.partition(",")[0])}


@pytest.mark.parametrize("name", TRAINED)
def test_the_host_reads_once_in_a_training_step(name, device):
    """It reads the loss and the gradient norm together; memory="invert" also reads its errors."""
    case = FLOWS[name]
    flow = case.build(torch.float32)[0]
    x, context = torch.randn(16, *case.event), None
    if case.interval is not None:
        x = case.interval[0] + torch.rand_like(x) * (case.interval[1] - case.interval[0])
    if case.context:
        context = torch.randn(16, case.context)
    fit_standardization(flow, Batch(x, context))
    batch = Batch(*moved(x, context))
    settings, engine = Settings(batch_size=16), Engine(CUDA)
    objective = MaximumLikelihood(flow.to(CUDA), batch, batch, settings, engine)
    training, share = Training(objective, settings, engine), Share(batch, 1.0, is_whole=True)
    flow.train()
    training._step(share, 1e-3)
    device.waits.clear()
    assert training._step(share, 1e-3) is not None
    where = [wait.rpartition(", ")[2].partition(":")[0] for wait in device.waits.elements()]
    if "invert" in name and "reversible.py" in where:
        where.remove("reversible.py")
    if name.startswith("zuko_flow"):
        where = [entry for entry in where if entry != "zuko_flow.py"]
    assert where == ["distributed.py"], device.waits


@pytest.mark.parametrize("memory", MEMORY_MODES)
@pytest.mark.parametrize("make", [kf.real_nvp, pytest.param(kf.spline, marks=pytest.mark.slow)])
def test_steps_in_each_memory_mode_match_those_of_the_cpu(make, memory, device):
    """The gradients agree; 40 layers are several blocks, and the weights are stacked."""
    flow = make(4, depth=40, hidden=(8,), couplings={"memory": memory}).double()
    x = torch.randn(16, 4).double()
    flow.log_prob(x).mean().backward()
    expected = [p.grad.clone() for p in flow.parameters()]
    flow.zero_grad()
    flow.to(CUDA)
    flow.log_prob(x.to(CUDA)).mean().backward()
    for p, gradient in zip(flow.parameters(), expected, strict=True):
        assert p.grad.device == CUDA
        close(p.grad, gradient)


@pytest.mark.parametrize("name", slow_but(PLAIN, PROFILED))
def test_spectra_and_profiles_run_on_the_device_and_agree(name, device):
    """They read values: a dense SVD of finite rows only, and iterations that stop by residuals."""
    flow, x, context = FLOWS[name].build(torch.float64)
    torch.manual_seed(0)
    expected = kf.profile(flow, x, context=context)
    flow.to(CUDA)
    x, context = moved(x, context)
    torch.manual_seed(0)
    actual = kf.profile(flow, x, context=context)
    assert actual.sigma_max.device == CUDA
    close(actual.sigma_max, expected.sigma_max)
    close(actual.sigma_min, expected.sigma_min)
    if flow.augment is None:
        start = flow.standardization(x)[0]
        spectrum = kf.spectrum(flow.core, start, context=context)
        close(spectrum.condition_number, expected.condition_number[-1])


def test_a_training_on_the_device_matches_that_of_the_cpu(device):
    """With validation, measurements and the best weights; a budget reads condition numbers."""
    rows = np.random.default_rng(0).normal(size=(150, 3))
    results = []
    for where in ("cpu", "cuda"):
        torch.manual_seed(0)
        flow = kf.real_nvp(3, depth=4, hidden=(8,))
        kept = {"max_epochs": 2, "seed": 0, "progress": False, "condition_budget": 20.0}
        results.append(kf.fit(flow, rows, device=where, **kept))
    nll = [[epoch["validation_nll"] for epoch in entry.history] for entry in results]
    assert nll[1] == pytest.approx(nll[0], rel=1e-5)
    assert results[1].flow.device == CUDA


@pytest.mark.parametrize("name", WITHOUT_MASKS)
def test_densities_gradients_and_samples_need_no_values(name):
    """Except by a search, a new ActNorm, the errors of memory="invert" and zuko's masks."""
    case = FLOWS[name]
    flow, x, context = case.build(torch.float32)
    flow.to("meta")
    x, context = moved(x, context, to="meta")
    if name not in FIXED and "invert" not in name.split(", "):
        from_data = any(isinstance(m, kf.bijections.ActNorm) for m in flow.modules())
        flow.train(not from_data).log_prob(x, context).mean().backward()
        assert all(p.grad is None or p.grad.is_meta for p in flow.parameters())
    assert flow.eval().log_prob(x, context).shape == (len(x),)
    if not name.startswith(SEARCHES):
        samples = flow.sample(3, context)
        assert samples.is_meta
        assert samples.shape[-len(case.event) :] == case.event


class Reads(kf.Bijection):
    """A layer with one fault of devices."""

    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def forward(self, x, context=None):
        return self.fault(x), x.new_zeros(len(x))

    def inverse(self, z, context=None):
        return z, z.new_zeros(len(z))


ORDER = torch.tensor([1, 0])
WAITING = {
    "a value": lambda x: x * x.mean().item(),
    "a mask": lambda x: x[(x < 9).all(1)],
    "an index of the host": lambda x: x[:, ORDER],
    "a list as an index": lambda x: x[:, [1, 0]],
    "a copy to the device": lambda x: x + torch.tensor([1.0, 2.0], device=x.device),
    "a copy to the host": lambda x: x.cpu().to(x.device),
}
MIXED = {
    "a tensor of the host": lambda x: x + torch.ones(2),
    "an index of the host": lambda x: x.index_select(1, ORDER),
    "an index of the device": lambda x: torch.ones(3, 2)[:, torch.arange(2, device=x.device)],
}


@pytest.mark.parametrize("fault", WAITING)
def test_a_layer_that_waits_is_counted(fault, device):
    """Each kind of waiting is seen."""
    flow, x = kf.Flow(kf.StandardNormal(2), Reads(WAITING[fault])).to(CUDA), torch.zeros(3, 2)
    x = x.to(CUDA)
    device.waits.clear()
    flow.log_prob(x)
    assert device.waits


@pytest.mark.parametrize("fault", MIXED)
def test_a_layer_that_mixes_devices_is_refused(fault, device):
    """Each kind of mixing is seen."""
    flow = kf.Flow(kf.StandardNormal(2), Reads(MIXED[fault])).to(CUDA)
    with pytest.raises(RuntimeError, match="mixes devices"):
        flow.log_prob(torch.zeros(3, 2).to(CUDA))


def test_arrays_and_tables_are_moved_to_the_device_of_the_flow(device):
    """Tensors are not: moving them is the user's choice."""
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)).double()
    flow = kf.real_nvp(2, depth=2, hidden=(8,), context_features=1).double()
    expected = flow.log_prob(x[:, :2], x[:, 2:]).detach()
    flow, table = flow.to(CUDA), kf.load_table(x.numpy(), context=["x2"])
    close(flow.log_prob(table.values, table.context), expected)
    assert kf.two_sample(flow, table, train=table).rows == 60
    with pytest.raises(kf.errors.ArgumentError, match="should be on the flow's device"):
        kf.two_sample(flow, x[:, :2], x[:, 2:])
