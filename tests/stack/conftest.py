"""Fixtures of the tests of stacks: several chunks of few rows, several threads, no old buffers."""

import pytest
import torch

from kappaflow.stack import block_pass
from kappaflow.stack.block_pass import POOL


@pytest.fixture
def chunked(monkeypatch):
    """Cuts batches into chunks of about 16 rows, which takes 256 and wide networks otherwise."""
    monkeypatch.setattr(block_pass, "MOST_ROWS", 16)
    monkeypatch.setattr(block_pass, "LEAST_ROWS", 16)
    monkeypatch.setattr(block_pass, "LEAST_WORK", 0.0)


@pytest.fixture
def threads(monkeypatch):
    """Returns what sets the number of threads, which is put back at the end."""
    monkeypatch.delenv("KAPPAFLOW_THREADS", raising=False)
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def pool():
    """Returns the pool of buffers, empty."""
    POOL.forget()
    yield POOL
    POOL.forget()
