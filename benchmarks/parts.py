"""Times single parts of a coupling stack and what they replaced."""

from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import nn

from benchmarks.turns import in_turn, timed
from kappaflow.stack import native
from kappaflow.stack.operations import Operations
from kappaflow.stack.tape import Executor, Job, NativeExecutor, TapeCache

SHAPES = ((128, 32), (128,), (128, 128), (128,), (64, 128), (64,))
DEPTH, BLOCK, CHANGED, COLUMNS = 128, 32, 32, 256

Call = Callable[[], object]


def parts(*, repetitions: int = 41) -> None:
    """Print median times, interleaved, on one thread.

    Weights are those of 128 conditioners 32-128-128-64, and inputs have 32 features at 256 points.
    The native backend is timed if it is there.

    Parameters
    ----------
    repetitions
        Number of repetitions; the median is printed.
    """
    torch.set_num_threads(1)
    separate = [nn.Parameter(torch.randn(s)) for _ in range(DEPTH) for s in SHAPES]
    stacked = [
        nn.Parameter(torch.randn(BLOCK, *shape)) for _ in range(DEPTH // BLOCK) for shape in SHAPES
    ]
    _compare(
        "optimizer, 128 separate networks and stacked by 32",
        {
            f"{name}, {kind}": call
            for kind, weights in (("separate", separate), ("stacked", stacked))
            for name, call in _steps(weights).items()
        },
        repetitions,
    )
    x = torch.randn(CHANGED, COLUMNS) / 10
    out = torch.empty_like(x)
    functions = {
        "exp": torch.exp,
        "exp2": torch.exp2,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
    }
    _compare(
        "functions of 32 x 256 numbers",
        {name: lambda f=f: f(x, out=out) for name, f in functions.items()},
        20 * repetitions,
    )
    ways = {"Python": Executor("cpu"), "backend": native.executor([x], x.dtype)}
    _compare(
        "affine couplings of 32 x 256 numbers",
        {
            f"{name}, {way}": call
            for way, executor in ways.items()
            if way == "Python" or isinstance(executor, NativeExecutor)
            for name, call in _couplings(executor).items()
        },
        20 * repetitions,
    )


def _steps(weights: list[nn.Parameter]) -> dict[str, Call]:
    optimizer = torch.optim.Adam(weights, lr=1e-6, fused=True)
    averages = [weight.detach().clone() for weight in weights]
    for weight in weights:
        weight.grad = torch.randn_like(weight)

    def clip() -> None:
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        torch.nn.utils.clip_grads_with_norm_(weights, 1e9, norm)

    @torch.no_grad()
    def average() -> None:
        for mean, weight in zip(averages, weights, strict=True):
            mean.lerp_(weight, 0.01)

    return {"fused Adam": optimizer.step, "clipping": clip, "moving average": average}


def _couplings(executor: Executor) -> dict[str, Call]:
    x, y, factor, sigmoid, total = (torch.randn(CHANGED, COLUMNS) for _ in range(5))
    answer, slope = torch.randn(2 * CHANGED, COLUMNS), torch.randn(2 * CHANGED, COLUMNS)
    offset, log_det = torch.tensor(-0.1), torch.randn(COLUMNS)

    def forward(do: Operations) -> None:
        do.affine(x, answer, offset, 10.0, 0.2, sigmoid, factor, total, y)

    def backward(do: Operations) -> None:
        do.affine_pull(x, factor, sigmoid, answer, log_det, 4.0, y, slope)

    def call(describe: Callable[[Operations], None]) -> Call:
        job = Job(describe, TapeCache(), "always the same")
        return lambda: executor.run([[lambda: iter([job])]])

    return {"affine": call(forward), "its gradient": call(backward)}


def _compare(title: str, calls: dict[str, Call], repetitions: int) -> None:
    with torch.no_grad():
        times = in_turn({name: partial(timed, c) for name, c in calls.items()}, repetitions)
    print(title)
    for name, taken in times.items():
        print(f"  {name:<26} {median(taken) * 1e6:9.1f} us")
