"""The time that a condition budget adds to a training."""

from statistics import median
from typing import Annotated

from cyclopts import Parameter

from benchmarks.tables import markdown
from benchmarks.turns import in_turn, timed

Many = Parameter(consume_multiple=True)
DEPTHS = (8, 32, 128)
BATCH, STEPS, HELD_OUT = 512, 30, 1890  # an epoch of MAGIC, 10 columns
HEAD = ("depth", "penalty / step, budget at work", "not at work", "epoch, at work", "not at work")


def budget_time(
    *, depths: Annotated[list[int] | None, Many] = None, repetitions: int = 11
) -> None:
    """Time steps, penalties and measurements in turn, and print the time they add to an epoch.

    It runs on one thread. Ratios are medians of the ratios within one repetition.

    Parameters
    ----------
    depths
        Numbers of couplings (8, 32, 128).
    repetitions
        Number of repetitions of each time.
    """
    print(markdown(HEAD, [_row(depth, repetitions) for depth in depths or DEPTHS]))


def _row(depth: int, repetitions: int) -> list[str]:
    import torch

    import kappaflow as kf
    from kappaflow.training import Batch
    from kappaflow.training.budget import ConditionBudget, DualVariable
    from kappaflow.training.measure import budget_figures, conditioning_figures

    torch.set_num_threads(1)
    torch.manual_seed(0)
    flow = kf.real_nvp(10, depth=depth, partition="random-half", dropout=0.1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    batch, held_out = (Batch(torch.randn(count, 10), None) for count in (BATCH, HELD_OUT))
    at_work, idle = (
        ConditionBudget(asked, flow, DualVariable(), 60 * STEPS) for asked in (1.01, 1e9)
    )

    def step() -> None:
        flow.zero_grad()
        flow.train()
        (-flow.log_prob(batch.x).mean()).backward()

    def penalised(budget: ConditionBudget) -> None:
        flow.zero_grad()
        loss = budget._penalty(batch)
        if loss is not None:
            loss.backward()

    def usual() -> None:
        flow.eval()
        conditioning_figures(flow, held_out)

    def measured() -> None:
        flow.eval()
        conditioning_figures(flow, held_out, budget_figures(flow, held_out))

    calls = {
        "step": step,
        "at work": lambda: penalised(at_work),
        "idle": lambda: penalised(idle),
        "usual": usual,
        "measured": measured,
    }
    takes = {name: lambda call=call: timed(call) for name, call in calls.items()}
    in_turn(takes, 2)  # warm-up
    times = in_turn(takes, repetitions)
    rounds = [dict(zip(times, row, strict=True)) for row in zip(*times.values(), strict=True)]

    def ratio(kind: str) -> float:
        return median(one[kind] / one["step"] for one in rounds)

    def epoch(kind: str) -> float:
        return median(
            (STEPS * one["step"] + STEPS / at_work.every * one[kind] + one["measured"])
            / (STEPS * one["step"] + one["usual"])
            for one in rounds
        )

    kinds = ("at work", "idle")
    return [str(depth), *(f"{of(kind):.2f}" for of in (ratio, epoch) for kind in kinds)]
