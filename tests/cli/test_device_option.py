"""`--device` of sample, score and doctor."""

import numpy as np
import pytest
import torch
from tests.pretend import CUDA, PretendedDevice

from kappaflow.errors import ArgumentError
from kappaflow.runs import diagnose_run, sample_run, score_run
from kappaflow.runs import user_code as module

CODE = """
import torch
import kappaflow as kf

def make():
    torch.manual_seed(0)
    return kf.nice(3, hidden=(4,)), torch.zeros(64, 3)

def same(x):
    return x, x.new_zeros(len(x))

def functions():
    return (same, same), torch.ones(9, 2)
"""


@pytest.fixture
def calls(finished, table):
    """The words of each command, as far as they are needed."""
    return {
        "sample": ("sample", finished, "-n", 5),
        "score": ("score", finished, table),
        "doctor": ("doctor", finished),
    }


@pytest.fixture
def code(tmp_path):
    """A file with a flow, and with functions that are one."""
    path = tmp_path / "flows.py"
    path.write_text(CODE)
    return path


@pytest.mark.parametrize("command", ["sample", "score", "doctor"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpu", "'device' should be \"cpu\" or \"cuda\", got 'tpu'."),
        ("cuda:7", "'device' should exist on this machine, got cuda:7; there are 0 CUDA devices."),
    ],
)
def test_a_device_that_does_not_exist_is_refused(run, calls, monkeypatch, command, name, message):
    """With the sentence of fit."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    outcome = run(*calls[command], "--device", name)
    assert outcome.status == 2 and message in outcome.err and not outcome.out


@pytest.mark.skipif(
    torch.version.cuda is not None and not torch.cuda.is_available(),
    reason="torch would call the missing driver",
)
@pytest.mark.parametrize("command", ["sample", "score", "doctor"])
def test_a_cuda_device_is_mentioned_once_where_it_is_not_used(run, calls, monkeypatch, command):
    """On stderr; the default stays the CPU."""
    note = "--device cuda runs on the CUDA device of this machine"
    plain = run(*calls[command])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    outcome = run(*calls[command])
    assert outcome.err.count(note) == 1 and note not in plain.err
    assert outcome.out == plain.out
    assert note not in run(*calls[command], "--device", "cpu").err


def test_a_fix_takes_no_device(run, finished):
    """It compares on the CPU."""
    outcome = run("doctor", finished, "--fix", "--device", "cpu")
    assert outcome.status == 2 and "'fix' only combines with" in outcome.err


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the real one")
@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_the_device_gives_the_samples_the_scores_and_the_findings_of_the_cpu(
    finished, table, code, monkeypatch
):
    """Samples are drawn from the same latents."""
    monkeypatch.setenv("KAPPAFLOW_NATIVE", "0")
    devices = []
    original = module.doctor
    monkeypatch.setattr(
        module, "doctor", lambda f, x, *a, **k: devices.append(x.device) or original(f, x, *a, **k)
    )

    def results(device):
        drawn, scores = (
            sample_run(finished, 50, device=device),
            score_run(finished, str(table), device=device),
        )
        found = diagnose_run(finished, str(table), device=device)[0]
        of_code = module.diagnose_code(f"{code}:make", device=device)[0]
        return drawn, scores, [[one.code for one in d.findings] for d in (found, of_code)]

    expected = results(None)
    with PretendedDevice():
        found = results("cuda")
    for one, other in zip(found[:2], expected[:2], strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-4)
    assert found[2] == expected[2]
    assert devices == [torch.device("cpu"), CUDA]


def test_a_flow_of_functions_chooses_its_own_device(code):
    """There is nothing to move."""
    with pytest.raises(ArgumentError, match="should be left out for this flow"):
        module.diagnose_code(f"{code}:functions", device="cpu")
