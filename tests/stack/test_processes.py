"""Forked processes: neither the threads nor the buffers of the parent are there."""

import subprocess
import sys

import pytest

FORK = """
import os, torch, warnings
warnings.simplefilter("ignore")  # Python 3.12 warns of forks with threads
import kappaflow as kf
from kappaflow.stack import block_pass
from kappaflow.stack.block_pass import POOL

block_pass.MOST_ROWS = block_pass.LEAST_ROWS = 16
block_pass.LEAST_WORK = 0.0
torch.set_num_threads(2)
torch.manual_seed(0)
half = kf.Partition.half(4)
stack = kf.CouplingStack([half, half.swapped()] * 3, (8,))
with torch.no_grad():
    for parameter in stack.parameters():
        parameter.normal_(0, 0.3)
x = torch.randn(100, 4)

def close(a, b):
    return torch.allclose(a, b, rtol=1e-5, atol=1e-6)

def step():
    stack.zero_grad()
    value, log_det = stack(x)
    (value.square().sum() - log_det.sum()).backward()
    return [p.grad.clone() for p in stack.parameters()]

for memory in ("recompute", "invert"):
    stack.memory = memory
    wanted = step()
    alive = stack(x)  # a pass of the parent that the child lets go of
    assert POOL.idle() > 0
    child = os.fork()
    if not child:
        assert POOL.idle() == 0
        found = [step(), step()]
        del alive
        found.append(step())
        good = all(close(a, b) for other in found for a, b in zip(other, wanted))
        os._exit(0 if good else 3)
    _, status = os.waitpid(child, 0)
    after = step()
    assert all(close(a, b) for a, b in zip(after, wanted))
    assert os.waitstatus_to_exitcode(status) == 0, memory
"""


END = """
import torch, kappaflow as kf
from kappaflow.stack import block_pass

block_pass.MOST_ROWS = block_pass.LEAST_ROWS = 16
block_pass.LEAST_WORK = 0.0
torch.set_num_threads(2)
half = kf.Partition.half(4)
stack = kf.CouplingStack([half, half.swapped()], (8,))
alive = stack(torch.randn(100, 4))
"""


def run(program):
    """Returns the finished process of a program; a deadlock ends as an error after a minute."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork here")
def test_a_forked_process_can_train():
    """After the parent has trained on threads, a child trains too, with the same gradients."""
    finished = run(FORK)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.slow
def test_a_program_may_end_with_a_graph_alive():
    """At the end of a program with a graph alive nothing is printed, and nothing waits."""
    finished = run(END)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
