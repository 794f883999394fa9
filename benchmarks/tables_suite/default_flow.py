"""The flow that `kappaflow fit TABLE` trains by default, on rows that are split already."""

import time
from dataclasses import dataclass

from kappaflow import Flow
from kappaflow.data import Table
from kappaflow.runs.job import Tables
from kappaflow.runs.pilot import Pilot, pilot
from kappaflow.runs.recipes import build_flow
from kappaflow.training import checked_settings, fit_tables

SEARCH_SHARE = 0.25  # of the time goes to the choice of a model


@dataclass(frozen=True)
class Default:
    """What the default came to.

    Attributes:
        flow: Takes rows in the units of the table.
        steps: Steps of the optimizer in the final training.
        chosen: The model that was chosen, as text.
    """

    flow: Flow
    steps: int
    chosen: str


def default_flow(train: Table, validation: Table, seconds: float, seed: int) -> Default:
    """Trains the default flow of `kappaflow fit` within a time limit.

    Args:
        train: Rows for training, in the units of the table.
        validation: Rows that model selection and early stopping use.
        seconds: Limit for model selection and training together.
        seed: Of weights and batches.

    Returns:
        The trained flow.
    """
    from kappaflow.cli.table_options import DEFAULTS, LEARNING_RATE

    start = time.perf_counter()
    settings = checked_settings(learning_rate=LEARNING_RATE, seed=seed)
    arguments = {key: value for key, value in DEFAULTS.items() if key != "depth"}
    tables = Tables(
        train, validation, validation, None, loaded=len(train), duplicates=None, notes=()
    )
    choice = pilot(tables, Pilot(arguments, SEARCH_SHARE * seconds), settings, progress=False)
    left = seconds - (time.perf_counter() - start)
    settings = settings.model_copy(update={"max_time_s": max(left, 0.1)})
    flow = build_flow(choice.model, train, seed)
    result = fit_tables(flow, train, validation, settings, progress=False)
    steps = len(result.history) * -(-len(train) // settings.batch_size)
    return Default(result.flow, steps, choice.taken.named())
