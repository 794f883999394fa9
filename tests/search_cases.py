"""A model search limited by steps alone, whose choice does not depend on the number of ranks.

As a program it is given a folder, into which each rank writes what it found and how many steps it
took.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from kappaflow.data import load_table
from kappaflow.errors import DataError
from kappaflow.ranks import rank, ranks
from kappaflow.runs import model_search
from kappaflow.runs.candidate import Candidate, ModelSearch
from kappaflow.runs.racers import Racer
from kappaflow.training import checked_settings
from kappaflow.training.collectives import from_each_rank

DEPTHS = (1, 2, 3)
SETTINGS = {"max_epochs": 200, "batch_size": 50, "learning_rate": 1e-2}


def models(table, search, **more):
    """Returns six small models."""
    common = {"hidden": (8,), "partition": "half", "dropout": 0.0, "start": "whiten"}
    return [
        Candidate(recipe, {"depth": depth, **common}, 1e-2)
        for depth in DEPTHS
        for recipe in ("real_nvp", "spline")
    ]


def found():
    """Returns what a search found, and how many steps this rank took for it."""
    steps, race = 0, Racer.race

    def counted(self, *arguments):
        nonlocal steps
        before = self.training.progress.step
        race(self, *arguments)
        steps += self.training.progress.step - before

    model_search.candidates_of, Racer.race = models, counted
    rows = np.random.default_rng(0).uniform(-1, 1, (900, 2)) @ np.array([[1, 0.5], [0, 1]])
    table, settings = load_table(rows), checked_settings(**SETTINGS)
    choice, (groups, progress, history) = model_search.search_model(
        table.select(slice(0, 700)),
        table.select(slice(700, 900)),
        ModelSearch(seconds=3600.0),
        settings,
        progress=False,
    )
    digest = hashlib.sha256()
    for group in sorted(groups):
        for name, tensor in sorted(groups[group].items()):
            digest.update(f"{group}.{name}".encode() + tensor.numpy().tobytes())
    trials = [trial.model_dump(mode="json", exclude={"seconds"}) for trial in choice.trials]
    losses = [[figures["train_nll"], figures["validation_nll"]] for figures in history]
    facts = {"trials": trials, "state": digest.hexdigest(), "losses": losses}
    return facts | {"step": progress["step"]}, steps


def refused():
    """Returns the error of a function that the last rank cannot call."""

    def last_fails():
        if rank() == ranks() - 1:
            raise DataError(f"rank {rank()} has no rows")

    try:
        from_each_rank(last_fails)
    except DataError as error:
        return str(error)


if __name__ == "__main__":
    facts, steps = found()
    path = Path(sys.argv[1]) / f"{rank()}.json"
    path.write_text(json.dumps({"facts": facts, "steps": steps, "refused": refused()}))
