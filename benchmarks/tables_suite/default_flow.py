"""The flow that `kappaflow fit TABLE` trains by default, on rows that are split already."""

import time
from dataclasses import dataclass

from kappaflow import Flow
from kappaflow.data import Table
from kappaflow.runs.model_search import ModelSearch, search_model
from kappaflow.runs.recipes import build_flow
from kappaflow.training import checked_settings, fit_split, loop


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
    loop.clock = time.process_time  # what all models of the suite are given as much of
    settings = checked_settings(seed=seed, max_time_s=seconds)
    choice, start = search_model(train, validation, ModelSearch(), settings, progress=False)
    flow, settings = build_flow(choice.model, train, seed), choice.settings(settings)
    result = fit_split(flow, train, validation, settings, progress=False, start=start)
    steps = len(result.history) * -(-len(train) // settings.rows_a_step(len(train)))
    return Default(result.flow, steps, str(choice))
