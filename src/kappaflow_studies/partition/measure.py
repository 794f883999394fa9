"""One case: a flow is trained, judged and measured, and so is its twin on one partition."""

import torch

from kappaflow.data import Images
from kappaflow.errors import NumericalError
from kappaflow.flows import Flow
from kappaflow_studies.engine.study import Case, Row
from kappaflow_studies.partition.flows import (
    HALVES,
    ONE,
    changes_one,
    image_flow,
    parameters,
    table_flow,
    widths,
)
from kappaflow_studies.sets import Parts, image_parts, table_parts
from kappaflow_studies.trained import FAILED, held_out, points, trained
from kappaflow_studies.twins import conditioning, twin_of

TWIN = "twin_"


def measure(case: Case) -> list[Row]:
    """Returns one row: the flow, and beside it its twin, whose columns begin with "twin_"."""
    of_table = case["what"] == "table"
    parts = (
        table_parts(case["data"], case["rows"], case["seed"])
        if of_table
        else image_parts(case["data"], None, case["seed"])
    )
    with torch.random.fork_rng():
        torch.manual_seed(case["seed"])
        flow, about = _flow(case, parts)
        try:
            trained(flow, parts, case)
        except NumericalError as error:
            return [{**about, FAILED: str(error)}]
    x = points(flow, parts, case["points"])
    row = {**about, **held_out(flow, parts), **conditioning(flow, x)}
    if case["kind"] == HALVES:  # its own twin
        return [row]
    alone = case["kind"] == ONE
    twin, said = twin_of(
        flow,
        x,
        partition=changes_one(flow.event_shape[0]) if alone else "half",
        couplings=None if alone else 6,
    )
    row |= {f"{TWIN}{name}": value for name, value in said.items()}
    if twin is not None:
        of_twin = {**held_out(twin.eval(), parts), **conditioning(twin, x)}
        row |= {f"{TWIN}{name}": value for name, value in of_twin.items()}
    return [row]


def _flow(case: Case, parts: Parts) -> tuple[Flow, Row]:
    """Returns a new flow of the kind, with its number of parameters and of couplings."""
    kind, depth, hidden = case["kind"], case["depth"], case["hidden"]
    if isinstance(parts.train, Images):
        shape, values = parts.train.shape, parts.train.values
        equal = parameters(image_flow(HALVES, shape, values, depth, hidden))
        flow = image_flow(kind, shape, values, depth, hidden)
        return flow, {
            "couplings": 2 * depth + 1,  # and one between the levels
            "parameters": parameters(flow),
            "of_halves": equal,
            "widths": [hidden],
        }
    features = len(parts.train.columns)

    def made(*chosen: int, like: str = kind) -> Flow:
        return table_flow(like, features, depth, chosen, case["seed"])

    equal = parameters(made(hidden, hidden, like=HALVES))
    chosen = widths(lambda a, b: parameters(made(a, b)), equal, hidden)
    flow = made(*chosen)
    return flow, {
        "couplings": depth,
        "parameters": parameters(flow),
        "of_halves": equal,
        "widths": list(chosen),
    }
