"""Small trainings whose results do not depend on how many ranks share them.

As a program, for torchrun, it is given a folder, into which each rank writes its outcomes.
"""

import atexit
import json
import sys
from pathlib import Path

import torch
from torch import nn

import kappaflow as kf
from kappaflow.flows.recipe import from_options
from kappaflow.images import load_images
from kappaflow.ranks import rank
from kappaflow.storage import write_tensors
from kappaflow.training import run_folder

ROWS, BATCH = 101, 25  # the last batch is one row: of two ranks one has none
MARKED, MARKED_ROW = 37.0, 11
# One that moves nothing: Adam makes a gradient that is rounding alone as long as any other.
ONE_STEP = {"max_epochs": 1, "batch_size": 1000, "clip_norm": 1e9, "learning_rate": 1e-12}
EPOCHS = {"max_epochs": 2, "batch_size": BATCH, "learning_rate": 1e-2}


@kf.register("OfRanks")
class OfRanks(kf.Bijection):
    """The identity, with a parameter that has no part in it; a marked row has no log_det."""

    def __init__(self):
        super().__init__()
        self.idle = nn.Parameter(torch.ones(2))

    def forward(self, x, context=None):
        log_det = torch.where((x == MARKED).any(1), torch.nan, 0.0)
        return x, log_det.to(x.dtype)

    def inverse(self, z, context=None):
        return z, z.new_zeros(len(z))


def rows(n=ROWS):
    """Returns a curved table of three columns."""
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.stack([x[:, 0], x[:, 1] + x[:, 0] ** 2, 3 * x[:, 2] + 5], dim=1)


def weights():
    """Returns a weight for each row, some of them zero."""
    return torch.linspace(0, 3, ROWS, dtype=torch.float64).round()


def flow(**arguments):
    """Returns a flow of tables with the same weights each time; no map of it is the identity."""
    torch.manual_seed(0)
    result = from_options(kf.real_nvp, 3, **{"depth": 4, "hidden": (8,)} | arguments).double()
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return result


def of_images():
    """Returns a small flow of images of real numbers."""
    torch.manual_seed(0)
    return kf.glow((1, 8, 8), levels=1, steps=2, hidden=4).double()


def outcome(result):
    """Returns weights, the gradients of the last step, and the losses of all epochs."""
    tensors = {f"weights.{name}": t for name, t in result.flow.state_dict().items()}
    for name, parameter in result.flow.named_parameters():
        if parameter.grad is not None:
            tensors[f"gradients.{name}"] = parameter.grad
    for name in ("train_nll", "validation_nll", "skipped_steps"):
        values = [line[name] for line in result.history]
        tensors[name] = torch.tensor(values, dtype=torch.float64)
    return tensors


def table(**settings):
    """Trains on rows with weights."""
    return kf.fit(flow(), rows(), validation=rows(40), weights=weights(), **settings)


def images(**settings):
    """Trains on images of digits."""
    digits = load_images("digits")
    return kf.fit(of_images(), digits.subset(range(51)), **settings)


def in_mode(memory):
    """Trains a flow with a context in a memory mode."""
    data = (rows(), rows()[:, 2:] + 1)
    return kf.fit(flow(memory=memory, context_features=1), data, **ONE_STEP)


def marked():
    """Trains on rows of which one is not finite, with parameters idle and frozen."""
    layers = flow().bijection.bijections
    chain = kf.Chain([OfRanks(), *layers]).double()
    next(p for p in layers.parameters() if p.ndim == 2).requires_grad_(requires_grad=False)
    x = rows()
    x[MARKED_ROW, 0] = MARKED
    return kf.fit(kf.Flow(kf.StandardNormal(3), chain), x, validation=rows(40), **EPOCHS)


def narrow(precision):
    """Trains in float32, with products in a narrow type."""
    return kf.fit(flow().float(), rows(), precision=precision, **EPOCHS)


CASES = {
    "a step on rows with weights": lambda: table(**ONE_STEP),
    "epochs on rows with weights": lambda: table(**EPOCHS),
    "a step on images": lambda: images(**ONE_STEP),
    "epochs on images": lambda: images(**EPOCHS),
    "store": lambda: in_mode("store"),
    "recompute": lambda: in_mode("recompute"),
    "invert": lambda: in_mode("invert"),
    "a row that is not finite": marked,
    "bfloat16": lambda: narrow("bf16"),
    "float16": lambda: narrow("fp16"),
}


class Counted(kf.training.Callback):
    """Counts the epochs that it is called for."""

    epochs = 0

    def on_epoch(self, flow, figures):
        self.epochs += 1


class Stopped(kf.training.Callback):
    """Ends a training in its third epoch."""

    def on_epoch(self, flow, figures):
        if figures["epoch"] == 3:
            raise kf.KappaflowError("stopped")


def resumed(out, *, stop):
    """Returns the losses of a training that is stopped, or resumed, each epoch being kept."""
    settings = EPOCHS | {"max_epochs": 5}
    callbacks = [Stopped()] if stop else []
    run_folder.SECONDS_BETWEEN_CHECKPOINTS = 0.0
    try:
        result = kf.fit(flow(), rows(), out=out, callbacks=callbacks, **settings)
    except kf.KappaflowError:
        return None
    return [(line["train_nll"], line["validation_nll"]) for line in result.history]


def refused():
    """Returns what is reported of what ranks cannot do, by argument."""
    message = {}
    for name, call in {
        "condition_budget": lambda: table(condition_budget=50.0),
        "device": lambda: kf.fit(flow(), rows(), device="cuda:0"),
        "fit_energy": lambda: kf.fit_energy(flow(), lambda x: -x.square().sum(1)),
        "out": lambda: kf.fit(flow(), rows(), out=__file__),
    }.items():
        try:
            call()
        except kf.KappaflowError as error:
            message[name] = str(error)
    return message


def threads():
    """Returns the names of the threads of this process (Linux only)."""
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


def main(folder):
    """Writes what this rank came to."""
    # Registered before the ranks connect, so called after they have disconnected.
    atexit.register(lambda: (folder / f"{rank()}.threads").write_text("\n".join(threads())))
    for i, case in enumerate(CASES.values()):
        write_tensors(folder / f"{i}-{rank()}.safetensors", outcome(case()), {})
    resumed(folder / "one then two", stop=False)
    resumed(folder / "two then one", stop=True)
    counted, out = Counted(), folder / "run"
    first = kf.fit(flow(), rows(), out=out, callbacks=[counted], **EPOCHS)
    again = kf.fit(flow(), rows(), out=out, callbacks=[counted], **EPOCHS)
    same = all(
        map(torch.equal, first.flow.state_dict().values(), again.flow.state_dict().values())
    )
    content = {
        "epochs reported": counted.epochs,
        "again": same and again.history == first.history,
        "refused": refused(),
    }
    (folder / f"{rank()}.json").write_text(json.dumps(content))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
