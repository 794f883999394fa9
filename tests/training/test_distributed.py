"""The engine of a training: devices, ranks, and what it costs to import."""

import json
import math
import subprocess
import sys

import pytest
import torch

import kappaflow as kf
from kappaflow.training.distributed import connect_ranks, make_engine
from kappaflow.training.optimizer import AdamW

COMPILER = {"torch._dynamo", "torch._inductor", "sympy"}


def loaded(code):
    """Returns which modules of COMPILER a new process has loaded after some code."""
    program = (
        f"{code}\nimport json, sys\nprint(json.dumps([n for n in {COMPILER} if n in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def three_ranks(monkeypatch):
    """The environment of the second of three processes, two on a machine."""
    second = {"RANK": 1, "WORLD_SIZE": 3, "LOCAL_RANK": 1}
    for name, value in {**second, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29500}.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.slow
def test_neither_importing_nor_fitting_loads_the_compiler_of_torch():
    """It takes more than a second, and is needed for compile=True only."""
    fits = """
import torch, kappaflow as kf
kf.fit(kf.real_nvp(2, depth=2, hidden=(4,)), torch.randn(100, 2), max_epochs=2)
kf.fit_energy(kf.real_nvp(2, depth=2, hidden=(4,)), lambda x: -x.square().sum(1), steps=3)
"""
    assert not loaded(fits)


def test_one_process_has_one_rank_and_no_scale():
    """In full precision nothing is scaled, and a checkpoint holds no scale."""
    engine = make_engine(kf.real_nvp(2, depth=2, hidden=(4,)), None)
    assert (engine.device, engine.rank, engine.world_size) == (torch.device("cpu"), 0, 1)
    assert engine.scaler_state() == {} and engine.lower_scale() is None
    assert engine.mean_over_ranks(torch.tensor(2.5)) == 2.5


def test_the_scale_is_halved_until_it_is_not_the_cause():
    """A scale of at most 1 cannot make a gradient overflow."""
    engine = make_engine(kf.real_nvp(2, depth=2, hidden=(4,)), "cpu", "fp16")
    other = make_engine(kf.real_nvp(2, depth=2, hidden=(4,)), "cpu", "fp16")
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = AdamW(torch.nn.ParameterList([parameter]), lr=1.0, weight_decay=0.0)
    scales = []
    for _ in range(3):
        engine.restore_scaler({**engine.scaler_state(), "scale": 2.0 ** (1 - len(scales))})
        loss = (parameter * torch.inf).sum()
        value, norm = engine.clipped_step(optimizer, loss, torch.ones(()), clip_norm=1.0)
        assert value == 1 and not math.isfinite(norm)
        assert parameter.item() == 1
        scales.append(engine.lower_scale())
        assert engine.scaler_state()["scale"] == 2.0 ** (1 - len(scales))
    assert scales == [2.0, None, None]
    other.restore_scaler(engine.scaler_state())
    assert other.scaler_state() == engine.scaler_state()


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("tpu", "'device' should be \"cpu\" or \"cuda\", got 'tpu'"),
        ("cuda:0", "each of which gets its own device, got 'cuda:0'"),
        ("cuda", "each rank of a machine needs its own CUDA device; rank 1 of this one finds 0"),
    ],
)
def test_ranks_that_cannot_train_together_are_refused_before_they_connect(
    three_ranks, monkeypatch, device, message
):
    """Each for its own reason."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(kf.errors.ArgumentError, match=message):
        connect_ranks(device)
    with pytest.raises(kf.errors.ArgumentError, match=message):
        make_engine(kf.real_nvp(2, depth=2, hidden=(4,)), device)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("MASTER_PORT", "MASTER_PORT should be set too"),
        ("WORLD_SIZE", "WORLD_SIZE should be set too"),
        ("LOCAL_RANK", 'LOCAL_RANK should be set for device="cuda"'),
    ],
)
def test_an_incomplete_launch_is_refused(three_ranks, monkeypatch, missing, message):
    """Rather than train a flow in each process."""
    monkeypatch.delenv(missing)
    with pytest.raises(kf.errors.ArgumentError, match=message):
        connect_ranks("cuda")


def test_ranks_that_are_connected_for_cuda_do_not_train_on_the_cpu(three_ranks, monkeypatch):
    """As after a first training on CUDA in the same process."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "nccl")
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(kf.errors.ArgumentError, match="already connected by nccl"):
        connect_ranks("cpu")


def test_a_cuda_device_that_is_not_there_is_refused(monkeypatch):
    """The message says how many there are."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(kf.errors.ArgumentError, match="got cuda:3; there are 1 CUDA devices"):
        make_engine(kf.real_nvp(2, depth=2, hidden=(4,)), "cuda:3")
