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
STEPS = partial(schedulers.StepLR, step_size=2, gamma=0.1)
ONE_CYCLE = partial(schedulers.OneCycleLR, max_lr=0.05, total_steps=15)
PLATEAU = partial(schedulers.ReduceLROnPlateau, patience=0, threshold=1.0)
WAYS = {
    "sgd": {"optimizer": SGD},
    "adam, steps": {"optimizer": partial(optim.Adam, lr=0.01, amsgrad=True), "scheduler": STEPS},
    "rmsprop, plateau": {"optimizer": partial(optim.RMSprop, lr=0.05), "scheduler": PLATEAU},
    "adamw, cosine": {"scheduler": partial(schedulers.CosineAnnealingLR, T_max=5)},
    "sgd, one cycle": {"optimizer": SGD, "scheduler": ONE_CYCLE},
    "nadam, milestones": {
        "optimizer": optim.NAdam,
        "scheduler": partial(schedulers.MultiStepLR, milestones=[2, 3]),
    },
}


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


@pytest.mark.parametrize("name", WAYS)
def test_an_interrupted_run_resumes_bit_for_bit(name, tmp_path, monkeypatch):
    monkeypatch.setattr("kappaflow.training.run_folder.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    out, options = tmp_path / "run", WAYS[name] | QUICK
    expected = kf.fit(flow_of(), X, **options)
    with pytest.raises(KeyboardInterrupt):
        kf.fit(flow_of(), X, out=out, callbacks=[Interrupt()], **options)
    result = kf.fit(flow_of(), X, out=out, **options)
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
    rates = [line[2] for line in figures(kf.fit(flow_of(), X, **WAYS["sgd, one cycle"], **QUICK))]
    optimizer = SGD([torch.zeros(1, requires_grad=True)])
    scheduler, expected = ONE_CYCLE(optimizer), []
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
    out = tmp_path / "run"
    kf.fit(flow_of(), X, out=out, optimizer=SGD, **QUICK)
    for other, difference in (
        ({}, "optimizer class"),
        ({"optimizer": optim.Adam}, "optimizer class .*SGD"),
        ({"optimizer": partial(SGD, momentum=0.5)}, "momentum 0.9, not 0.5"),
        ({"optimizer": SGD, "scheduler": STEPS}, "scheduler"),
    ):
        with pytest.raises(ArgumentError, match=f"'out' should be a new folder.*{difference}"):
            kf.fit(flow_of(), X, out=out, **other, **QUICK)


@pytest.mark.parametrize(
    ("optimizer", "sentence"),
    [
        (optim.SGD([torch.zeros(1)]), "a function such as functools.partial.* SGD"),
        ("adam", "'optimizer' should be a function such as .* got str"),
        (lambda: None, "this one fails: .* takes 0 positional"),
        (lambda parameters: None, "'optimizer' should return one of torch.optim"),
        (optim.LBFGS, "steps without a closure, got LBFGS"),
        (
            lambda _: optim.SGD([torch.zeros(1, requires_grad=True)]),
            "should hold trainable parameters of the flow, and no others",
        ),
    ],
)
def test_wrong_ones_are_refused_in_one_sentence(optimizer, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        kf.fit(flow_of(), X, optimizer=optimizer, **QUICK)
    with pytest.raises(ArgumentError, match="'learning_rate' should be left out: the 'optimizer'"):
        kf.fit(flow_of(), X, optimizer=SGD, learning_rate=0.1, **QUICK)


@pytest.mark.parametrize(
    ("scheduler", "sentence"),
    [
        (schedulers.StepLR, "'scheduler' should be .* this one fails: .*step_size"),
        (lambda optimizer: 3, "'scheduler' should return one of torch.optim"),
        (partial(ONE_CYCLE, total_steps=4), "'scheduler' should last for the whole training"),
    ],
)
def test_wrong_schedulers_are_refused_in_one_sentence(scheduler, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        kf.fit(flow_of(), X, scheduler=scheduler, **QUICK)
    with pytest.raises(ArgumentError, match="'warmup' should be left out: the 'scheduler'"):
        kf.fit(flow_of(), X, scheduler=STEPS, warmup=0.1, **QUICK)
