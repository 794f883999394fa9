"""Optimizers and schedulers of torch in `fit`."""

from functools import partial

import pytest
import torch
from torch import optim
from torch.optim import lr_scheduler as schedulers

import kappaflow as kf
from kappaflow.errors import ArgumentError

X = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
QUICK = {"max_epochs": 5, "progress": False, "batch_size": 128}  # three steps an epoch
SGD = partial(optim.SGD, lr=0.01, momentum=0.9)


def flow_of():
    torch.manual_seed(0)
    return kf.real_nvp(2, depth=2, hidden=(4,))


class Interrupt(kf.training.Callback):
    """Stops a training after an epoch, as Ctrl-C does."""

    def on_epoch(self, flow, figures):
        if figures["epoch"] == 3:
            raise KeyboardInterrupt


def figures(result):
    """Returns what does not depend on the clock."""
    return [
        (line["train_nll"], line["validation_nll"], line["learning_rate"])
        for line in result.history
    ]


def two_phases(optimizer):
    parts = [
        schedulers.LinearLR(optimizer, total_iters=2),
        schedulers.MultiStepLR(optimizer, [1, 2], gamma=0.3),
    ]
    return schedulers.SequentialLR(optimizer, parts, milestones=[2])


WAYS = {
    "sgd": {"optimizer": SGD},
    "adam, steps": {
        "optimizer": partial(optim.Adam, lr=0.01, amsgrad=True),
        "scheduler": partial(schedulers.StepLR, step_size=2, gamma=0.1),
    },
    "rmsprop, plateau": {
        "optimizer": partial(optim.RMSprop, lr=0.05),
        "scheduler": partial(schedulers.ReduceLROnPlateau, patience=0, threshold=1.0),
    },
    "adamw, cosine": {"scheduler": partial(schedulers.CosineAnnealingLR, T_max=5)},
    "sgd, one cycle": {
        "optimizer": SGD,
        "scheduler": partial(schedulers.OneCycleLR, max_lr=0.05, total_steps=15),
    },
    "nadam, two phases": {"optimizer": optim.NAdam, "scheduler": two_phases},
}


@pytest.mark.parametrize("name", WAYS)
def test_an_interrupted_run_resumes_bit_for_bit(name, tmp_path, monkeypatch):
    monkeypatch.setattr("kappaflow.training.session.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    out = tmp_path / "run"
    expected = kf.fit(flow_of(), X, **WAYS[name], **QUICK)
    with pytest.raises(KeyboardInterrupt):
        kf.fit(flow_of(), X, out=out, callbacks=[Interrupt()], **WAYS[name], **QUICK)
    result = kf.fit(flow_of(), X, out=out, **WAYS[name], **QUICK)
    assert figures(result) == figures(expected)
    for name, tensor in expected.flow.state_dict().items():
        assert torch.equal(tensor, result.flow.state_dict()[name])


def test_the_default_is_adamw_of_torch():
    """Up to the rounding of the learning rate, which rises and falls alike."""
    adamw = partial(optim.AdamW, lr=2e-3, weight_decay=1e-4, fused=True)
    result, expected = (
        kf.fit(flow_of(), X, optimizer=adamw, **QUICK),
        kf.fit(flow_of(), X, **QUICK),
    )
    for own, default in zip(figures(result), figures(expected), strict=True):
        assert own == pytest.approx(default, rel=1e-5)


def test_a_scheduler_moves_after_each_epoch_or_step():
    """As torch documents it; it replaces the rise and fall of the default."""
    halving = partial(schedulers.StepLR, step_size=1, gamma=0.5)
    rates = [line[2] for line in figures(kf.fit(flow_of(), X, scheduler=halving, **QUICK))]
    assert rates == [2e-3 / 2**epoch for epoch in range(5)]
    cycle = WAYS["sgd, one cycle"]
    rates = [line[2] for line in figures(kf.fit(flow_of(), X, **cycle, **QUICK))]
    reference = torch.zeros(1, requires_grad=True)
    optimizer = SGD([reference])
    scheduler = cycle["scheduler"](optimizer)
    expected = []
    for _ in range(14):
        optimizer.step()
        scheduler.step()
        expected.append(optimizer.param_groups[0]["lr"])
    assert rates[:4] == expected[2::3]


def test_an_optimizer_may_hold_some_parameters():
    flow = flow_of()
    *_, last = flow.parameters()  # a shift, which has a gradient from the start
    before = {name: value.clone() for name, value in flow.named_parameters()}
    kf.fit(flow, X, optimizer=lambda parameters: optim.SGD(parameters[-1:], lr=0.1), **QUICK)
    changed = [n for n, value in flow.named_parameters() if not torch.equal(value, before[n])]
    assert [name for name, value in flow.named_parameters() if value is last] == changed


def test_a_run_with_another_optimizer_is_not_resumed(tmp_path):
    """The sentence names what differs."""
    out, steps = tmp_path / "run", partial(schedulers.StepLR, step_size=2)
    kf.fit(flow_of(), X, out=out, optimizer=SGD, scheduler=steps, **QUICK)
    for other, difference in (
        ({}, "optimizer class"),
        ({"optimizer": optim.Adam, "scheduler": steps}, "optimizer class .*SGD"),
        ({"optimizer": partial(SGD, momentum=0.5), "scheduler": steps}, "momentum 0.9, not 0.5"),
        ({"optimizer": SGD}, "scheduler"),
        (
            {"optimizer": SGD, "scheduler": partial(schedulers.StepLR, step_size=3)},
            "scheduler step_size 2, not 3",
        ),
    ):
        with pytest.raises(ArgumentError, match=f"'out' should be a new folder.*{difference}"):
            kf.fit(flow_of(), X, out=out, **other, **QUICK)


class Noted(optim.SGD):
    """Its state holds something that no file can hold."""

    def state_dict(self):
        return {**super().state_dict(), "note": object()}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"optimizer": optim.SGD([torch.zeros(1)])}, "a function such as functools.partial.* SGD"),
        ({"optimizer": "adam"}, "'optimizer' should be a function such as .* got str"),
        ({"optimizer": lambda: None}, "this one fails: .* takes 0 positional"),
        ({"optimizer": lambda parameters: None}, "'optimizer' should return one of torch.optim"),
        ({"optimizer": optim.LBFGS}, "steps without a closure, got LBFGS"),
        (
            {"optimizer": lambda _: optim.SGD([torch.zeros(1, requires_grad=True)])},
            "should hold trainable parameters of the flow, and no others",
        ),
        ({"scheduler": schedulers.StepLR}, "'scheduler' should be .* this one fails: .*step_size"),
        ({"scheduler": lambda optimizer: 3}, "'scheduler' should return one of torch.optim"),
        ({"optimizer": SGD, "learning_rate": 0.1}, "'learning_rate' should be left out: the 'opt"),
        ({"scheduler": two_phases, "warmup": 0.1}, "'warmup' should be left out: the 'scheduler'"),
        (
            {"scheduler": partial(schedulers.OneCycleLR, max_lr=0.1, total_steps=4)},
            "'scheduler' should last for the whole training",
        ),
    ],
)
def test_wrong_ones_are_refused_in_one_sentence(arguments, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        kf.fit(flow_of(), X, **arguments, **QUICK)


def test_a_state_that_no_file_holds_is_refused(tmp_path):
    kf.fit(flow_of(), X, optimizer=partial(Noted, lr=0.01), **QUICK)
    with pytest.raises(ArgumentError, match="'out' should be left out: .* 'state.0.note'"):
        kf.fit(flow_of(), X, optimizer=partial(Noted, lr=0.01), out=tmp_path, **QUICK)
