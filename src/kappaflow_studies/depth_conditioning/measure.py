"""The cases of `depth-conditioning`, and their measurement."""

import copy
import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from kappaflow.bijection import Chain
from kappaflow.conditioning import Profile, profile
from kappaflow.conditioning.points import layers_of
from kappaflow.flows import Flow, StandardNormal
from kappaflow.stack import CouplingStack
from kappaflow_studies.depth_conditioning.distributions import (
    Distribution,
    Gaussian,
    distribution_named,
    random_rotation,
)
from kappaflow_studies.depth_conditioning.ideal_couplings import (
    after_ideal_coupling,
    expected_non_standardness,
    non_standardness,
    whitening_factor,
)
from kappaflow_studies.depth_conditioning.peers import LIBRARIES, flow_of, installed
from kappaflow_studies.engine.presets import Count, Counts, Even, Many, NotEmpty, Positive, one_of
from kappaflow_studies.engine.study import Case, Row, StudySettings


def train(
    flow: Flow,
    distribution: Distribution,
    *,
    steps: int,
    batch: int,
    rate: float,
    generator: Generator,
) -> int | None:
    """Returns the first step that was not finite, after training in place; None if all were."""
    parameters = [parameter for parameter in flow.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    flow.train()
    for step in range(steps):
        optimizer.zero_grad()
        loss = -flow.log_prob(distribution.sample(batch, generator).to(flow.dtype)).mean()
        loss.backward()
        if not _finite(loss, parameters):
            return step
        optimizer.step()
        schedule.step()
    return None


def gradient_norms(flow: Flow, x: Tensor) -> list[float]:
    """Returns the gradient norm of -log p for the parameters of each layer that has parameters."""
    flow.zero_grad()
    (-flow.log_prob(x).mean()).backward()
    norms = []
    for layer in layers_of(flow.bijection):
        parts = [p.grad.square().sum() for p in layer.bijection.parameters() if p.grad is not None]
        if parts:
            norms.append(torch.stack(parts).sum().sqrt().item())
    flow.zero_grad()
    return norms


def _finite(loss: Tensor, parameters: list[torch.nn.Parameter]) -> bool:
    gradients = [p.grad for p in parameters if p.grad is not None]
    return bool(torch.isfinite(loss)) and all(bool(g.isfinite().all()) for g in gradients)


ROTATIONS = "random rotations"
SCHEMES = (ROTATIONS, "random permutations", "binary digits", "one partition")


def whitened(
    scheme: str, features: int, condition_number: float, layers: int, seed: int
) -> list[dict[str, float | None]]:
    """Returns the loss of a Gaussian in nats after each ideal layer, with bounds for rotations."""
    distribution, half = Gaussian(features, condition_number, seed), features // 2
    generator = torch.Generator().manual_seed(seed)
    covariance, start = distribution.covariance, distribution.loss
    factor = whitening_factor(start, features, half)
    rows: list[dict[str, float | None]] = [
        {"layer": 0, "loss": start, "expected": start, "guaranteed": start}
    ]
    for layer in range(1, layers + 1):
        row: dict[str, float | None] = {"layer": layer}
        if scheme == ROTATIONS:
            turn = random_rotation(features, generator)
            covariance = turn @ covariance @ turn.T
            spectrum = torch.linalg.eigvalsh(covariance)
            row["expected"] = max(0.0, expected_non_standardness(spectrum, half).item())
            row["guaranteed"] = start * factor**layer
            kept = torch.arange(half)
        else:
            kept = _kept(scheme, features, layer, generator)
        covariance = _after_coupling(covariance, kept)
        row["loss"] = max(0.0, non_standardness(covariance).item())
        rows.append(row)
    return rows


def _kept(scheme: str, n: int, layer: int, generator: torch.Generator) -> Tensor:
    numbers = torch.arange(n)
    if scheme == "random permutations":
        return torch.randperm(n, generator=generator)[: n // 2]
    if scheme == "binary digits":
        digit = (layer - 1) % (n - 1).bit_length()
        return numbers[(numbers >> digit) % 2 == 0]
    return numbers[: n // 2] if layer % 2 else numbers[n // 2 :]


def _after_coupling(covariance: Tensor, kept: Tensor) -> Tensor:
    """Returns the covariance after the ideal coupling, with the features in their old order."""
    is_kept = torch.zeros(len(covariance), dtype=torch.bool)
    is_kept[kept] = True
    order = torch.cat((is_kept.nonzero()[:, 0], (~is_kept).nonzero()[:, 0]))
    after = torch.empty_like(covariance)
    after[order[:, None], order] = after_ideal_coupling(covariance[order][:, order], len(kept))
    return after


MAX_DRAWS = 1000  # largest number of distributions, so that different seeds never overlap
Library = Annotated[str, one_of("library", lambda: LIBRARIES)]
AboveOne = Annotated[float, Field(ge=1, allow_inf_nan=False)]


class DepthConditioningSettings(StudySettings):
    """Settings of the flows, the distributions and the ideal layers."""

    libraries: Annotated[tuple[Library, ...], NotEmpty]  # missing ones are left out, with a note
    depths: Annotated[tuple[Even, ...], NotEmpty]  # a block of FrEIA is two couplings
    features: Annotated[int, Field(ge=4, multiple_of=2)]
    hidden: Counts  # widths of the networks' hidden layers
    condition_number: AboveOne  # of the Gaussian
    thickness: Positive  # of the sheet
    draws: Annotated[int, Field(ge=1, le=MAX_DRAWS)]  # distributions of a kind, flows of a depth
    steps: Count  # of Adam
    batch: Count  # samples in a step
    learning_rate: Positive  # the first one
    points: Count  # number of points at which Jacobians are measured
    test_points: Many  # number of points for the likelihood and for gradients
    whitening_draws: Count  # number of Gaussians that ideal layers whiten
    whitening_layers: Many

    @property
    def distributions(self) -> dict[str, float]:
        """The distributions, each with the parameter that makes it hard."""
        return {"Gaussian": self.condition_number, "sheet": self.thickness}


def cases(settings: DepthConditioningSettings, seed: int) -> list[Case]:
    """Returns a case for each distribution, depth, library and draw, and the whitening cases."""
    planned: list[Case] = []
    common = settings.model_dump(
        include={"features", "steps", "batch", "learning_rate", "points", "test_points"}
    )
    for depth in sorted(settings.depths, reverse=True):
        for library in filter(installed, settings.libraries):
            for distribution, hardness in settings.distributions.items():
                case = {"what": "flow", "library": library, "law": distribution}
                case |= {"hardness": hardness, "depth": depth, "hidden": list(settings.hidden)}
                planned += [
                    {**case, **common, "seed": seed * MAX_DRAWS + draw}
                    for draw in range(settings.draws)
                ]
    for scheme in SCHEMES:
        case = {"what": "whitening", "scheme": scheme, "features": settings.features}
        case |= {"hardness": settings.condition_number, "layers": settings.whitening_layers}
        planned.append({**case, "draws": settings.whitening_draws, "seed": seed})
    return planned


LEVELS = {"low": 0.05, "median": 0.5, "high": 0.95}


def measure(case: Case) -> list[Row]:
    """Returns a row at the start and one after training; or one for each layer and draw."""
    if case["what"] == "whitening":
        arguments = case["scheme"], case["features"], case["hardness"], case["layers"]
        return [
            {"draw": draw, **row}
            for draw in range(case["draws"])
            for row in whitened(*arguments, seed=case["seed"] * 1000 + draw)
        ]
    problem = case["law"], case["features"], case["hardness"], case["seed"]
    distribution = distribution_named(*problem)
    torch.manual_seed(case["seed"])
    flow = flow_of(case["library"], case["features"], case["depth"], case["hidden"])
    generator = torch.Generator().manual_seed(case["seed"])
    test = distribution.sample(case["test_points"], generator)
    rows = [{"when": "start", **_measured(flow, distribution, test, case["points"])}]
    options = {"steps": case["steps"], "batch": case["batch"], "rate": case["learning_rate"]}
    failed = train(flow, distribution, generator=generator, **options)
    trained = {"when": "trained", "failed_at": failed}
    return [*rows, {**trained, **_measured(flow, distribution, test, case["points"])}]


def _measured(flow: Flow, distribution: Distribution, test: Tensor, points: int) -> Row:
    with torch.no_grad():
        in_its_type = torch.isfinite(flow.log_prob(test.to(flow.dtype)))
    double_flow = in_float64(flow)
    with torch.no_grad():
        missed = distribution.log_prob(test) - double_flow.log_prob(test)
    flow_profile = profile(double_flow, test[:points])
    return {
        "gap": missed.mean().item(),
        "gap_error": missed.std().item() / math.sqrt(len(missed)),
        "finite_share": in_its_type.double().mean().item(),
        "gradient_norms": gradient_norms(double_flow, test),
        "reference": _reference(distribution, test[:points]),
        **_conditioning(flow_profile),
    }


def _conditioning(flow_profile: Profile) -> Row:
    """Returns the singular values of the flow, and the products of its layers' singular values."""
    quantities = {
        "condition": flow_profile.condition_number[-1],
        "condition_product": flow_profile.layer_condition_number.log().sum(0).exp(),
        "sigma_max": flow_profile.sigma_max[-1],
        "product_max": flow_profile.layer_sigma_max.log().sum(0).exp(),
        "sigma_min": flow_profile.sigma_min[-1],
        "product_min": flow_profile.layer_sigma_min.log().sum(0).exp(),
    }
    row: Row = {
        f"{name}_{end}": values.quantile(level).item()
        for name, values in quantities.items()
        for end, level in LEVELS.items()
    }
    slack = 1 + 1e-9
    within = (quantities["sigma_max"] <= slack * quantities["product_max"]) & (
        slack * quantities["sigma_min"] >= quantities["product_min"]
    )
    return {**row, "within_products": within.double().mean().item()}


def _reference(distribution: Distribution, x: Tensor) -> float:
    """Returns the median condition number of a map that whitens the distribution exactly."""
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: distribution.whiten(row[None])[0]))(x)
    return torch.linalg.cond(jacobian).median().item()


def in_float64(flow: Flow) -> Flow:
    """Returns a copy in float64 with a bijection for each layer."""
    parts = []
    for layer in copy.deepcopy(flow).double().core:
        parts += list(layer.to_chain()) if isinstance(layer, CouplingStack) else [layer]
    return Flow(StandardNormal(flow.event_shape), Chain(parts))
