"""One case: a flow with linear maps is trained, rewritten without them, and both are measured."""

import torch

from kappaflow.data import Images
from kappaflow.errors import NumericalError
from kappaflow.flows import Flow, glow, real_nvp
from kappaflow_studies.engine.study import Case, Row
from kappaflow_studies.sets import Parts, image_parts, table_parts
from kappaflow_studies.trained import FAILED, held_out, points, trained
from kappaflow_studies.twins import conditioning, times_in_turns, twin_of

TWIN = "twin_"


def measure(case: Case) -> list[Row]:
    """Returns one row: the flow, and its twin, whose columns begin with "twin_"."""
    parts = (
        table_parts(case["data"], case["rows"], case["seed"])
        if case["what"] == "table"
        else image_parts(case["data"], case["size"] or None, case["seed"])
    )
    with torch.random.fork_rng():
        torch.manual_seed(case["seed"])
        flow = _flow(case, parts)
        try:
            trained(flow, parts, case)
        except NumericalError as error:
            return [{FAILED: str(error)}]
    few = points(flow, parts, case["points"])
    shape = " x ".join(map(str, flow.event_shape))
    row = {"shape": shape, **held_out(flow, parts), **conditioning(flow, few)}
    twin, said = twin_of(flow, few)
    row |= said
    if twin is None:
        return [row]
    batch = points(flow, parts, case["batch_size"])
    times = times_in_turns({"time_s": flow, f"{TWIN}time_s": twin}, batch, case["repeats"])
    of_twin = {**held_out(twin.eval(), parts), **conditioning(twin, few)}
    return [{**row, **{f"{TWIN}{name}": value for name, value in of_twin.items()}, **times}]


def _flow(case: Case, parts: Parts) -> Flow:
    """Returns a new RealNVP with LU maps between its couplings, or a new Glow."""
    if not isinstance(parts.train, Images):
        hidden = (case["hidden"], case["hidden"])
        features = len(parts.train.columns)
        return real_nvp(features, depth=case["depth"], hidden=hidden, mixing="lu")
    return glow(
        parts.train.shape,
        levels=case["levels"],
        steps=case["depth"],
        hidden=case["hidden"],
        dequantize="uniform",
        values=parts.train.values,
    )
