"""The cases of `universal`, and their measurement."""

from itertools import product
from typing import Annotated

import torch
from torch import Tensor

from kappaflow.bijection import Chain, Inverse
from kappaflow.conditioning import Spectrum, layers_of, spectrum
from kappaflow.flows import Flow
from kappaflow_studies.engine.charts import cells
from kappaflow_studies.engine.presets import Count, Many, NotEmpty, Positive, one_of
from kappaflow_studies.engine.study import Case, Row, StudySettings
from kappaflow_studies.universal.approximation import CHUNK_SIZE, total_variation, transport_error
from kappaflow_studies.universal.boxes import MASSES, Divergence, Strips, grids_of, likelihood_flow
from kappaflow_studies.universal.commutators import at_every_point
from kappaflow_studies.universal.construction import Scales, universal_flow
from kappaflow_studies.universal.targets import TARGETS, Target
from kappaflow_studies.universal.triangular import triangular_flow
from kappaflow_studies.wasserstein import wasserstein

FORMS = {"any map": None, "triangular, 3": 3, "triangular, 4": 4}  # numbers of couplings

TRIANGULAR = {name: target for name, target in TARGETS.items() if target.triangular}
TargetName = Annotated[str, one_of("target", lambda: TARGETS)]
TriangularName = Annotated[str, one_of("triangular target", lambda: TRIANGULAR)]
MassesName = Annotated[str, one_of("target with known masses", lambda: MASSES)]


class UniversalSettings(StudySettings):
    """Settings of the constructions and of their measurement."""

    targets: Annotated[tuple[TargetName, ...], NotEmpty]
    errors: Annotated[tuple[Positive, ...], NotEmpty]  # allowed errors in W2
    samples: Many  # normal samples for the bound on W2
    points: Count  # normal samples for the singular values
    draws: Many  # size of each sample for the two-sample W2
    two_sample_down_to: Positive  # smallest error for which the two-sample W2 is computed
    pictured: tuple[Positive, ...]  # allowed errors of the constructions that are drawn
    picture_draws: Count  # number of samples in a picture
    bins: Many  # of a picture, along each axis
    triangular: tuple[TriangularName, ...]  # targets of the constructions with a triangular map
    triangular_errors: tuple[Positive, ...]  # allowed errors in W2 of these
    triangular_samples: Many  # normal samples for their bound on W2
    steps: tuple[Count, ...]  # of four couplings each, well conditioned at every point
    divergence: tuple[MassesName, ...]  # targets of the couplings that are close in KL
    reaches: tuple[Positive, ...]  # R of each of their grids
    digits: tuple[Count, ...]  # of each grid, which has 2^digits cells along each axis
    divergence_samples: Many  # of the target, for KL


TRIANGULAR_FORMS = [form for form, couplings in FORMS.items() if couplings is not None]


def cases(settings: UniversalSettings, seed: int) -> list[Case]:
    """Returns a case for each construction, and one for each picture."""
    planned: list[Case] = []
    for name in settings.targets:
        for error in settings.errors:
            draws = settings.draws if error >= settings.two_sample_down_to else 0
            counts = {"samples": settings.samples, "points": settings.points, "draws": draws}
            planned.append({"what": "error", "target": name, "epsilon": error, **counts})
        if TARGETS[name].features == 2:
            counts = {"draws": settings.picture_draws, "bins": settings.bins}
            for error in (0.0, *settings.pictured):
                planned.append({"what": "picture", "target": name, "epsilon": error, **counts})
    counts = {"samples": settings.triangular_samples, "points": settings.points, "draws": 0}
    for name, error, form in product(
        settings.triangular, settings.triangular_errors, TRIANGULAR_FORMS
    ):
        case = {"what": "triangular", "target": name, "epsilon": error, "form": form}
        planned.append({**case, **counts})
    planned += [{"what": "every point", "steps": steps} for steps in settings.steps]
    grids = zip(settings.reaches, settings.digits, strict=True)
    for (reach, digits), name in product(grids, settings.divergence):
        case = {"what": "divergence", "target": name, "reach": reach, "digits": digits}
        case |= {"samples": settings.divergence_samples, "points": settings.points}
        planned += [{**case, "couplings": n} for n in ((3, 4) if name == "square" else (4,))]
    return [{**case, "seed": seed} for case in planned]


LEVELS = {"_low": 0.05, "": 0.5, "_high": 0.95}  # quantiles of singular values
ROUND_TRIP_POINTS = 200  # number of points for the round trip


def measure(case: Case) -> list[Row]:
    """Returns the single row of a case."""
    if case["what"] == "every point":
        return [at_every_point(case["steps"])]
    if case["what"] == "divergence":
        return [divergence(case)]
    target = TARGETS[case["target"]]
    if case["what"] == "picture":
        return [{"counts": cells(_draws(target, case), 1.1 * target.reach, case["bins"])}]
    couplings = FORMS[case.get("form", "any map")]
    if couplings is None:
        scales = Scales.of(target, case["epsilon"])
        flow, sizes = (
            universal_flow(target, case["epsilon"]),
            {
                **{name: getattr(scales, name) for name in ("low_digits", "eta", "eta_prime")},
                "hidden_layers": 2 * scales.input_grid.digits,
            },
        )
    else:
        flow, sizes = triangular_flow(target, case["epsilon"], couplings), {}
    return [{**approximated(flow, target, case), **sizes}]


def approximated(flow: Flow, target: Target, case: Case) -> Row:
    """Returns the errors of a construction, and its singular values from latent to data."""
    seed, unseen = case["seed"], (case["epsilon"] / 8) ** 2
    bound, error = transport_error(flow, target, unseen=unseen, samples=case["samples"], seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    singular_values = _from_latent(flow, case["points"], generator)
    row: Row = {"bound": bound, "standard_error": error, "unseen": unseen**0.5}
    row |= {"two_sample_w2": None, "floor": None}
    if case["draws"]:
        generated = flow.sample(case["draws"], generator=generator)
        first, second = (target.sample(case["draws"], generator=generator) for _ in range(2))
        row["two_sample_w2"] = wasserstein(generated, first, order=2)
        row["floor"] = wasserstein(first, second, order=2)
    row["total_variation"] = total_variation(flow, target, samples=case["points"], seed=seed)
    for name in ("sigma_min", "sigma_max"):
        values: Tensor = getattr(singular_values, name)
        row |= {f"{name}{end}": values.quantile(level).item() for end, level in LEVELS.items()}
    return row | {"round_trip": _round_trip(flow, case)}


def divergence(case: Case) -> Row:
    """Returns KL(Q | g) in nats of couplings between cells and boxes, and its proved bounds."""
    target, grids = MASSES[case["target"]](), grids_of(case["reach"], case["digits"])
    flow = Strips(grids).flow(grids) if case["couplings"] == 3 else likelihood_flow(target, grids)
    generator = torch.Generator().manual_seed(case["seed"])
    with torch.no_grad():
        ratios = torch.cat([
            target.log_density(x) - flow.log_prob(x)
            for x in target.sample(case["samples"], generator=generator).split(CHUNK_SIZE)
        ])
    bounds = Divergence.of(target, grids)
    condition = _from_latent(flow, case["points"], generator).condition_number
    return {
        "kl": ratios.mean().item(),
        "kl_error": ratios.std().item() / len(ratios) ** 0.5,
        "kl_middle": bounds.coarse + target.features * bounds.cells,
        "kl_slack": target.features * bounds.slack,
        "kl_bound": bounds.bound,
        "condition_number": condition.median().item(),
    }


def _from_latent(flow: Flow, points: int, generator: torch.Generator) -> Spectrum:
    """Returns the singular values from latent to data, at normal samples.

    Inverted part by part: the inverse of the whole flow is too ill-conditioned to recover z.
    """
    z = torch.randn(points, *flow.event_shape, dtype=torch.float64, generator=generator)
    layers = reversed(layers_of(flow.bijection))
    return spectrum(Chain(Inverse(layer.bijection) for layer in layers), z)


def _draws(target: Target, case: Case) -> Tensor:
    """Returns samples of the construction; an error of zero stands for the target itself."""
    generator = torch.Generator().manual_seed(case["seed"])
    if not case["epsilon"]:
        return target.sample(case["draws"], generator=generator)
    flow = universal_flow(target, case["epsilon"])
    return flow.sample(case["draws"], generator=generator)


@torch.no_grad()
def _round_trip(flow: Flow, case: Case) -> float:
    """Returns the median distance between normal samples and their reconstructions."""
    generator = torch.Generator().manual_seed(case["seed"])
    z = torch.randn(ROUND_TRIP_POINTS, *flow.event_shape, dtype=flow.dtype, generator=generator)
    back = flow.bijection(flow.bijection.inverse(z)[0])[0]
    return (back - z).norm(dim=1).median().item()
