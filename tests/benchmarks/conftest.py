"""What the tests of the benchmarks share."""

import importlib

import pytest

from abacus import ROOT


@pytest.fixture
def benchmark(monkeypatch):
    """Returns what imports a module of the benchmarks, from wherever the tests are started."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")
