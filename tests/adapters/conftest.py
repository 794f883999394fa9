"""Each test draws the same weights each time: libraries start from torch's global generator."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
