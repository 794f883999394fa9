"""Trainings that are interrupted resume to the same bits, whatever is trained."""

from functools import partial

import numpy as np
import pytest
import torch
from tests.training.examples import (
    Interrupt,
    Theirs,
    digits,
    gaussian,
    small,
    small_glow,
    with_overflows,
    without_clock,
)
from torch import optim
from torch.optim import lr_scheduler as schedulers

import kappaflow as kf
from kappaflow.errors import ArgumentError

X = gaussian(100)[0]
PLANE = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
BOUNDS = {0: "circular", 1: "positive"}
SGD, ADAM = partial(optim.SGD, lr=0.01, momentum=0.9), partial(optim.Adam, lr=0.01, amsgrad=True)
RMSPROP = partial(optim.RMSprop, lr=np.float32(0.05))
STEPS = partial(schedulers.StepLR, step_size=2, gamma=0.1)
ONE_CYCLE = partial(schedulers.OneCycleLR, max_lr=0.05, total_steps=12)
PLATEAU = partial(schedulers.ReduceLROnPlateau, patience=0, threshold=1.0)
COSINE = partial(schedulers.CosineAnnealingLR, T_max=5)


def overfitted():
    """Returns a training that is best long before its end: few rows, a large step."""
    options = {"batch_size": 16, "learning_rate": 2e-2, "warmup": 0.0, "max_epochs": 25}
    return small(hidden=(64,)), gaussian(60)[0], options | {"validation": gaussian(200, seed=1)[0]}


slow = partial(pytest.param, marks=pytest.mark.slow)
TRAININGS = {
    "25 epochs, few with conditioning": lambda: (small(2), PLANE, {"max_epochs": 25}),
    "dropout": lambda: (small(dropout=0.3), X, {}),
    "overfitted": overfitted,
    "budget": lambda: (small(), X, {"condition_budget": 3.0, "learning_rate": 2e-2}),
    "bounds": lambda: (kf.spline(2, depth=2, hidden=(8,)), PLANE.abs(), {"bounds": BOUNDS}),
    "another library": lambda: (Theirs(), PLANE, {"learning_rate": 0.05}),
    "float16": lambda: (with_overflows(), PLANE, {"precision": "fp16", "batch_size": 50}),
    "sgd, one cycle": lambda: (small(2), PLANE, {"optimizer": SGD, "scheduler": ONE_CYCLE}),
    "adam, cosine": lambda: (small(2), PLANE, {"optimizer": ADAM, "scheduler": COSINE}),
    "rmsprop, plateau": lambda: (small(2), PLANE, {"optimizer": RMSPROP, "scheduler": PLATEAU}),
    "nadam, steps": lambda: (small(2), PLANE, {"optimizer": optim.NAdam, "scheduler": STEPS}),
    "images": lambda: (small_glow(), digits(), {"batch_size": 64}),
}
LONG = {"dropout", "overfitted", "budget", "bounds", "float16", "images", "nadam, steps"}


@pytest.mark.filterwarnings("ignore::kappaflow.errors.DataWarning")
@pytest.mark.parametrize("name", [slow(n) if n in LONG else n for n in TRAININGS])
def test_an_interrupted_training_resumes_bit_for_bit(name, tmp_path, each_epoch):
    """Losses and weights equal those of a training in one go; a finished one returns them."""

    def fit(out, **more):
        flow, data, options = TRAININGS[name]()
        options = {"max_epochs": 4, "progress": False} | options | more
        return kf.fit(flow, data, out=tmp_path / out, **options)

    expected = fit("whole")
    with pytest.raises(KeyboardInterrupt):
        fit("run", callbacks=[Interrupt(22 if name == "overfitted" else 3)])
    torch.rand(9)
    result = fit("run")
    assert without_clock(result) == without_clock(expected)
    assert result.best_epoch == expected.best_epoch
    if name == "overfitted":
        assert result.best_epoch < 21
    finished = fit("run")
    assert finished.history == result.history and not finished.flow.training
    for key, tensor in expected.flow.state_dict().items():
        assert torch.equal(tensor, result.flow.state_dict()[key]), key
        assert torch.equal(tensor, finished.flow.state_dict()[key]), key


def test_a_rate_may_be_a_tensor_and_other_states_are_refused(tmp_path):
    """A checkpoint holds numbers."""

    def noted(parameters):
        optimizer = optim.SGD(parameters, lr=0.01)
        optimizer.param_groups[0]["note"] = object()
        return optimizer

    options = {"max_epochs": 1, "progress": False}
    adam = partial(optim.Adam, lr=torch.tensor(0.01))
    assert len(kf.fit(small(2), PLANE, optimizer=adam, out=tmp_path / "a", **options).history) == 1
    with pytest.raises(ArgumentError, match="'out' should be left out: .* type object"):
        kf.fit(small(2), PLANE, optimizer=noted, out=tmp_path / "b", **options)
