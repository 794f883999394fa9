"""Flows of the plane: one training, and the floor of its distances."""

import torch
from torch import Tensor

from kappaflow.data import toy, toy_log_prob, toy_sets
from kappaflow.errors import NumericalError
from kappaflow.flows import real_nvp
from kappaflow.training import fit
from kappaflow_studies.engine.study import Case, Row
from kappaflow_studies.padding.judged import conditioning, curve, distances, likelihood
from kappaflow_studies.padding.spec import spec_of

PARTS = ("train", "validation", "test", "other test")  # each from a seed of its own
HELD_OUT = 2000
PICTURED, CELLS = 40_000, 48
MARGIN = 1.15


def trained_on_plane(case: Case) -> Row:
    """Returns what a flow of a set with a padding came to."""
    spec, seed, name = spec_of(case["padding"]), case["seed"], case["set"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow = real_nvp(
            2,
            depth=case["depth"],
            hidden=case["hidden"],
            padding=spec.padding((2,)),
            memory="store",
        )
    try:
        result = fit(
            flow,
            table(name, case["rows"], seed, "train"),
            validation=table(name, HELD_OUT, seed, "validation"),
            max_epochs=case["epochs"],
            patience=case["epochs"],
            batch_size=case["batch_size"],
            learning_rate=case["learning_rate"],
            conditioning_every=case["measured_every"],
            seed=seed,
            progress=False,
        )
    except NumericalError as error:
        return {"error": str(error)}
    x = points(name, HELD_OUT, seed, "test")
    drawn = flow.sample(case["drawn"], generator=torch.Generator().manual_seed(seed))
    found = {
        **curve(result.history),
        **conditioning(flow, x[: case["points"]]),
        **likelihood(flow, x, case["draws"], truth(name, x)),
        **distances(drawn, points(name, case["drawn"], seed, "test")),
        "best_epoch": result.best_epoch,
        "time_s": result.history[-1]["time_s"],
    }
    if case["pictured"]:
        many = flow.sample(PICTURED, generator=torch.Generator().manual_seed(seed + 1))
        found["picture"] = picture(name, many)
    return found


def plane_floor(case: Case) -> Row:
    """Returns how far apart two independent samples of a set are."""
    name, seed, count = case["set"], case["seed"], case["drawn"]
    one, other = (points(name, count, seed, part) for part in PARTS[2:])
    found = distances(one, other)
    if case["pictured"]:
        found["picture"] = picture(name, points(name, PICTURED, seed, "other test"))
    return found


def table(name: str, count: int, seed: int, part: str) -> Tensor:
    """Returns points of a set for a purpose, in float64."""
    return torch.from_numpy(toy(name, count, seed=len(PARTS) * seed + PARTS.index(part)).values)


def points(name: str, count: int, seed: int, part: str) -> Tensor:
    """Returns the same in the type of a flow."""
    return table(name, count, seed, part).float()


def truth(name: str, x: Tensor) -> Tensor | None:
    """Returns the log-density of a set at points, None where it has no closed form."""
    closed = {one.name for one in toy_sets() if one.log_prob is not None}
    return torch.from_numpy(toy_log_prob(name, x.double().numpy())) if name in closed else None


def span(name: str) -> float:
    """Returns how far pictures of a set go, from its centre."""
    return MARGIN * float(abs(toy(name, HELD_OUT, seed=0).values).max())


def picture(name: str, drawn: Tensor) -> list[int]:
    """Returns how many of some points lie in each cell of a grid, row by row from below."""
    end = span(name)
    edges = torch.linspace(-end, end, CELLS + 1).double()
    finite = drawn[drawn.isfinite().all(1)].double()
    counts = torch.histogramdd(finite.flip(1), [edges, edges]).hist
    return counts.flatten().int().tolist()
