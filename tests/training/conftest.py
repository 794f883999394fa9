"""What tests of trainings share."""

import pytest


@pytest.fixture
def each_epoch(monkeypatch):
    """Writes a checkpoint after each epoch, however quick."""
    monkeypatch.setattr("kappaflow.training.run_folder.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
