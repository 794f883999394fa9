"""One case: a flow at its start and when it is trained, or ideal layers that whiten."""

import copy
import math
from typing import Any

import torch
from torch import Tensor

from kappaflow.bijection import Chain
from kappaflow.conditioning import Profile, profile
from kappaflow.flows import Flow, StandardNormal
from kappaflow.stack import CouplingStack
from kappaflow_studies.depth_conditioning.laws import Law, law_named
from kappaflow_studies.depth_conditioning.peers import flow_of
from kappaflow_studies.depth_conditioning.training import gradient_norms, train
from kappaflow_studies.depth_conditioning.whitening import whitened
from kappaflow_studies.engine.study import Case, Row

LEVELS = {"low": 0.05, "median": 0.5, "high": 0.95}


def measure(case: Case) -> list[Row]:
    """Returns a row at the start and one when trained; or one for each layer and draw."""
    if case["what"] == "whitening":
        arguments = case["scheme"], case["features"], case["hardness"], case["layers"]
        return [
            {"draw": draw, **row}
            for draw in range(case["draws"])
            for row in whitened(*arguments, seed=case["seed"] * 1000 + draw)
        ]
    law = law_named(case["law"], case["features"], case["hardness"], case["seed"])
    torch.manual_seed(case["seed"])
    flow = flow_of(case["library"], case["features"], case["depth"], case["hidden"])
    generator = torch.Generator().manual_seed(case["seed"])
    test = law.sample(case["test_points"], generator)
    rows = [{"when": "start", **_measured(flow, law, test, case["points"])}]
    failed = train(
        flow,
        law,
        steps=case["steps"],
        batch=case["batch"],
        rate=case["learning_rate"],
        generator=generator,
    )
    trained = {"when": "trained", "failed_at": failed}
    return [*rows, {**trained, **_measured(flow, law, test, case["points"])}]


def _measured(flow: Flow, law: Law, test: Tensor, points: int) -> Row:
    """Returns likelihood, conditioning and gradients of a flow, in float64."""
    with torch.no_grad():
        in_its_type = torch.isfinite(flow.log_prob(test.to(flow.dtype)))
    wide = opened(flow)
    with torch.no_grad():
        missed = law.log_prob(test) - wide.log_prob(test)
    found = profile(wide, test[:points])
    return {
        "gap": missed.mean().item(),
        "gap_error": missed.std().item() / math.sqrt(len(missed)),
        "finite_share": in_its_type.double().mean().item(),
        "gradient_norms": gradient_norms(wide, test),
        "reference": _reference(law, test[:points]),
        **_conditioning(found),
    }


def _conditioning(found: Profile) -> Row:
    """Returns the singular values of the whole, and the products of those of the layers."""
    row: dict[str, Any] = {}
    quantities = {
        "condition": found.condition_number[-1],
        "condition_product": found.layer_condition_number.log().sum(0).exp(),
        "sigma_max": found.sigma_max[-1],
        "product_max": found.layer_sigma_max.log().sum(0).exp(),
        "sigma_min": found.sigma_min[-1],
        "product_min": found.layer_sigma_min.log().sum(0).exp(),
    }
    for name, values in quantities.items():
        for end, level in LEVELS.items():
            row[f"{name}_{end}"] = values.quantile(level).item()
    slack = 1 + 1e-9
    within = (quantities["sigma_max"] <= slack * quantities["product_max"]) & (
        slack * quantities["sigma_min"] >= quantities["product_min"]
    )
    return {**row, "within_products": within.double().mean().item()}


def _reference(law: Law, x: Tensor) -> float:
    """Returns the median condition number of a map that makes the law standard normal exactly."""
    jacobian = torch.func.vmap(torch.func.jacrev(lambda one: law.whiten(one[None])[0]))(x)
    return torch.linalg.cond(jacobian).median().item()


def opened(flow: Flow) -> Flow:
    """Returns a copy in float64 with a bijection for each layer."""
    parts = []
    for layer in copy.deepcopy(flow).double().core:
        parts += list(layer.to_chain()) if isinstance(layer, CouplingStack) else [layer]
    return Flow(StandardNormal(flow.event_shape), Chain(parts))
