"""`AdamW` against that of torch, and optimizers of torch in `fit`."""

from functools import partial

import pytest
import torch
from tests.training.examples import small, without_clock
from torch import optim
from torch.optim.lr_scheduler import OneCycleLR, StepLR

import kappaflow as kf
from kappaflow.training.optimizer import AdamW


def trained(make, steps, *, dtype=torch.float32, start=None):
    """Returns parameters and the optimizer after some steps; one parameter has no gradient."""
    torch.manual_seed(0)
    values = [torch.randn(shape, dtype=dtype) for shape in ((3, 4), (5,), (2,), ())]
    values[0] = values[0].mT  # not contiguous
    parameters = [torch.nn.Parameter(value) for value in values]
    optimizer = make(parameters, lr=1e-2, weight_decay=0.1)
    if start is not None:
        start(parameters, optimizer)
    for step in range(*steps):
        optimizer.param_groups[0]["lr"] = 1e-2 / (step + 1)
        optimizer.zero_grad()
        loss = sum((p.sin() * (p + step)).sum() for p in parameters[: 2 + (step > 1)])
        loss.backward()
        optimizer.step()
    return [p.detach().clone() for p in parameters], optimizer


def ours_of(parameters, **settings):
    """Returns the optimizer of the trainings."""
    return AdamW(torch.nn.ParameterList(parameters), **settings)


def torchs(parameters, **settings):
    """Returns torch's own optimizer, fused."""
    return torch.optim.AdamW(parameters, fused=True, **settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_and_states_are_those_of_torch_bit_for_bit(dtype):
    """With a changing rate, a parameter that gets its gradient late and one that has none."""
    ours, our = trained(ours_of, (0, 6), dtype=dtype)
    theirs, their = trained(torchs, (0, 6), dtype=dtype)
    assert all(map(torch.equal, ours, theirs))
    state = their.state_dict()["state"]
    assert our.state_dict().keys() == state.keys() == {0, 1, 2}
    for index, entries in our.state_dict().items():
        assert entries.keys() == state[index].keys()
        for name, tensor in entries.items():
            assert torch.equal(tensor, state[index][name]), name
            assert tensor.dtype == state[index][name].dtype, name


def test_a_restored_optimizer_takes_the_same_steps():
    """From a state of another type, and contiguous, as from a file."""
    expected, _ = trained(ours_of, (0, 6))
    half, optimizer = trained(ours_of, (0, 3))
    state = {
        i: {name: tensor.double().contiguous() for name, tensor in entries.items()}
        for i, entries in optimizer.state_dict().items()
    }

    def start(parameters, restored):
        for parameter, value in zip(parameters, half, strict=True):
            parameter.data.copy_(value)
        restored.load_state_dict(state)

    resumed, _ = trained(ours_of, (3, 6), start=start)
    assert all(map(torch.equal, resumed, expected))


@pytest.mark.parametrize(
    "state",
    [
        {0: {"step": torch.zeros(()), "exp_avg": torch.zeros(1), "exp_avg_sq": torch.zeros(4, 3)}},
        {0: {"step": torch.zeros(()), "exp_avg": torch.zeros(4, 3)}},
        {4: {}},
        {-1: {}},
    ],
)
def test_a_state_of_other_parameters_is_refused(state):
    """The kernel does not check shapes and would write past the end of a tensor."""
    _, optimizer = trained(ours_of, (0, 1))
    with pytest.raises(ValueError, match="exp_avg|has no parameter"):
        optimizer.load_state_dict(state)


X = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
QUICK = {"max_epochs": 5, "progress": False, "batch_size": 128}


def test_the_default_is_adamw_of_torch():
    """Up to the rounding of the learning rate, which rises and falls alike."""
    adamw = partial(optim.AdamW, lr=2e-3, weight_decay=1e-4, fused=True)
    own, default = (kf.fit(small(2), X, **more, **QUICK) for more in ({"optimizer": adamw}, {}))
    for figures, expected in zip(without_clock(own), without_clock(default), strict=True):
        for name in ("train_nll", "validation_nll", "learning_rate"):
            assert figures[name] == pytest.approx(expected[name], rel=1e-5)


def test_a_scheduler_moves_after_each_epoch_or_step():
    """As torch documents it; it replaces the rise and fall of the default."""
    halving = partial(StepLR, step_size=1, gamma=0.5)
    history = kf.fit(small(2), X, scheduler=halving, **QUICK).history
    assert [line["learning_rate"] for line in history] == [2e-3 / 2**epoch for epoch in range(5)]
    cycle = partial(OneCycleLR, max_lr=0.05, total_steps=15)
    history = kf.fit(small(2), X, optimizer=optim.SGD, scheduler=cycle, **QUICK).history
    optimizer, expected = optim.SGD([torch.zeros(1, requires_grad=True)]), []
    scheduler = cycle(optimizer)
    for _ in range(14):
        optimizer.step()
        scheduler.step()
        expected.append(optimizer.param_groups[0]["lr"])
    assert [line["learning_rate"] for line in history[:4]] == expected[2::3]


def test_an_optimizer_may_hold_some_parameters():
    flow = small(2)
    *_, last = flow.parameters()  # a shift, which has a gradient from the start
    before = {name: value.clone() for name, value in flow.named_parameters()}
    kf.fit(flow, X, optimizer=lambda parameters: optim.SGD(parameters[-1:], lr=0.1), **QUICK)
    changed = [n for n, value in flow.named_parameters() if not torch.equal(value, before[n])]
    assert [name for name, value in flow.named_parameters() if value is last] == changed
