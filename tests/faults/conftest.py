"""What the tests of the fault suite share."""

import importlib

import pytest

from abacus import ROOT


@pytest.fixture
def part(monkeypatch):
    """Returns what imports a module of the suite, from wherever the tests are started."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"faults.{name}")
