"""What all tests share: one thread, and the same random numbers each time."""

import gc

import pytest
import torch

torch.set_num_threads(1)
collect_ignore = ["rank_cases.py"]  # a program: it registers names that are registered once


@pytest.fixture(autouse=True)
def _seeded():
    """Starts each test from the same state of torch's global generator."""
    torch.manual_seed(0)


@pytest.fixture
def only_new_objects():
    """Hides the objects of earlier tests from the garbage collector, which is much quicker."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
