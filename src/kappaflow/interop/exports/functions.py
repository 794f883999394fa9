"""The functions of a flow as modules, random rows to compare them on, and their metadata."""

import math
from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from kappaflow import __version__
from kappaflow.errors import ArgumentError
from kappaflow.flows import Base, DiagonalNormal, Flow, StandardNormal
from kappaflow.flows.base import NormalMixture
from kappaflow.flows.standardization import context_standardization
from kappaflow.options import ExportFormat, ExportFunction

FUNCTIONS: tuple[ExportFunction, ...] = get_args(ExportFunction)
INPUTS = {"log_prob": "x", "sample": "noise", "encode": "x", "decode": "z"}
OUTPUTS = {
    "log_prob": ("log_prob",),
    "sample": ("x",),
    "encode": ("z", "log_det"),
    "decode": ("x", "log_det"),
}
ROWS = 64  # random rows that programs are compared on
Shape = tuple[int, ...]
Answer = Tensor | tuple[Tensor, Tensor]


class FlowFunction(nn.Module):
    """One function of a flow as a module, which takes rows and the context."""

    def __init__(self, flow: Flow, name: str) -> None:
        super().__init__()
        self.flow, self.name = flow, name
        self.latents = latents_of(flow.base) if name == "sample" else None
        if name == "log_prob" and flow.likelihood == "bound":
            raise ArgumentError(
                "'log_prob' cannot be exported for this flow: it is a bound that is estimated "
                "with random numbers. Export 'encode', which maps points joined with their noise."
            )

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Answer:
        """Returns the outputs for rows, (B, ...)."""
        flow = self.flow
        if self.name == "encode":
            return flow.bijection(rows, context)
        if self.name == "log_prob":
            return flow.augmented_log_prob(flow.augmented(rows), context)
        if self.latents is None:
            return flow.bijection.inverse(rows, context)
        joined = flow.bijection.inverse(self.latents(rows), context)[0]
        return joined if flow.augment is None else flow.augment.drop(joined)[0]


class _MixtureLatents(nn.Module):
    """Maps noise N(0, I) of D + 1 features to samples of a mixture of normals, (B, D).

    The last feature selects the component: its cumulative probability is uniform on [0, 1].
    """

    def __init__(self, base: NormalMixture) -> None:
        super().__init__()
        weights = base.logits.double().softmax(0)
        lower = base.lower(torch.float64)[0]
        unit = torch.eye(lower.shape[-1], dtype=lower.dtype)
        inverse = torch.linalg.solve_triangular(lower, unit, upper=False)
        dtype = base.logits.dtype
        self.ends: Tensor
        self.means: Tensor
        self.spreads: Tensor
        self.register_buffer("ends", torch.special.ndtri(weights.cumsum(0)[:-1]).to(dtype))
        self.register_buffer("means", base.means.clone())
        self.register_buffer("spreads", inverse.to(dtype))

    def forward(self, noise: Tensor) -> Tensor:
        """Returns latents for noise, (B, D + 1)."""
        which = (noise[:, -1:] >= self.ends).sum(1)
        return self.means[which] + (self.spreads[which] @ noise[:, :-1, None])[..., 0]


class _DiagonalLatents(nn.Module):
    """Maps noise N(0, I) to samples of a diagonal normal."""

    def __init__(self, base: DiagonalNormal) -> None:
        super().__init__()
        self.loc: Tensor
        self.scale: Tensor
        self.register_buffer("loc", base.loc.detach().clone())
        self.register_buffer("scale", base.log_scale.detach().exp())

    def forward(self, noise: Tensor) -> Tensor:
        """Returns latents for noise, (B, *event)."""
        return self.loc + self.scale * noise


def latents_of(base: Base) -> nn.Module:
    """Returns a module that maps standard normal noise to samples of a base."""
    if isinstance(base, StandardNormal):
        return nn.Identity()
    if isinstance(base, DiagonalNormal):
        return _DiagonalLatents(base)
    if isinstance(base, NormalMixture):
        return _MixtureLatents(base)
    raise ArgumentError(
        f"'sample' cannot be exported for a base of the class {type(base).__name__}."
    )


def noise_shape(base: Base) -> tuple[int, ...]:
    """Returns the shape of the noise of one sample."""
    one_more = isinstance(base, NormalMixture)
    return (base.event_shape[0] + 1,) if one_more else tuple(base.event_shape)


class RandomRows:
    """Random rows for each function: samples of the flow, with their noise and their latents."""

    def __init__(self, flow: Flow) -> None:
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(ROWS, *shape, generator=generator).to(flow.dtype)

        self.context = normal(flow.context_features) if flow.context_features else None
        layer = context_standardization(flow)
        if self.context is not None and layer is not None:
            self.context = layer.shift + layer.scale * self.context
        self.noise = normal(*noise_shape(flow.base))
        try:
            self.z = latents_of(flow.base)(self.noise)
        except ArgumentError:
            self.z = normal(*flow.base.event_shape)
        self.joined = flow.bijection.inverse(self.z, self.context)[0]
        self.x = self.joined if flow.augment is None else flow.augment.drop(self.joined)[0]

    def of(self, name: str) -> tuple[Tensor, ...]:
        """Returns the inputs of a function."""
        rows = {"log_prob": self.x, "sample": self.noise, "encode": self.joined}
        inputs = rows.get(name, self.z)
        return (inputs,) if self.context is None else (inputs, self.context)


def describe_functions(
    flow: Flow,
    functions: tuple[str, ...],
    kind: ExportFormat,
    columns: Sequence[str],
    context_columns: Sequence[str],
) -> dict[str, Any]:
    """Returns the metadata of all files, with the inputs and the outputs of each function."""
    width = flow.context_features
    joint, latent = flow.joint_shape, flow.base.event_shape
    shapes: dict[str, tuple[Shape, list[Shape]]] = {  # of the input and of the outputs
        "log_prob": (flow.event_shape, [()]),
        "sample": (noise_shape(flow.base), [flow.event_shape]),
        "encode": (joint, [latent, ()]),
        "decode": (latent, [joint, ()]),
    }
    inputs = {name: {INPUTS[name]: shapes[name][0]} for name in functions}
    if width:
        inputs = {name: {**shapes, "context": (width,)} for name, shapes in inputs.items()}
    results = {name: dict(zip(OUTPUTS[name], shapes[name][1], strict=True)) for name in functions}
    domain = flow.domain
    domains = domain.domains[: math.prod(flow.event_shape)] if domain is not None else ()
    return {
        "kappaflow": __version__,
        "torch": torch.__version__,
        "format": kind,
        "functions": functions,
        "inputs": {name: _with_batch(shapes) for name, shapes in inputs.items()},
        "outputs": {name: _with_batch(shapes) for name, shapes in results.items()},
        "dtype": str(flow.dtype).removeprefix("torch."),
        "base": type(flow.base).__name__,
        "likelihood": flow.likelihood,
        "columns": list(columns),
        "context_columns": list(context_columns),
        "domains": [None if domain is None else domain.description for domain in domains],
        "units": "x as in the data; log_prob and log_det in nats, for x in these units",
    }


def _with_batch(shapes: dict[str, tuple[int, ...]]) -> dict[str, list[str | int]]:
    return {name: ["batch", *shape] for name, shape in shapes.items()}
