"""Transforms of zuko as bijections, and a recipe for flows of zuko."""

import copy
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kappaflow._checks import layer_widths, one_of, positive_int
from kappaflow.autograd.replay import without_autocast
from kappaflow.bijection import Bijection, Chain, log_det_dtype, zero_log_det
from kappaflow.errors import ArgumentError
from kappaflow.flows.base import StandardNormal
from kappaflow.flows.flow import Flow
from kappaflow.flows.recipe import recipe
from kappaflow.flows.standardization import Bounds, context_embedding, input_layers
from kappaflow.nets.activations import MODULES, AnyActivation, named_activation


class ZukoLayer(Bijection):
    """A lazy transform of zuko, which makes a map for each context, as a bijection.

    `context_features` is the width of the context that the transform reads; 0 for none.
    """

    def __init__(self, transform: nn.Module, context_features: int = 0) -> None:
        super().__init__()
        self.transform = transform
        self.context_features = context_features

    def layer_name(self) -> str:
        return type(self.transform).__name__

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _answer(x, lambda: self._transform_at(context).call_and_ladj(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _answer(z, lambda: self._transform_at(context).inv.call_and_ladj(z))

    def __repr__(self) -> str:  # zuko's own one draws random numbers and reads masks
        return f"{type(self).__name__}({self.layer_name()})"

    def _transform_at(self, context: Tensor | None) -> Any:
        """Returns the transform for contexts (B, C)."""
        return self.transform(context if self.context_features else None)


def _answer(x: Tensor, call: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Returns the result of a transform in the dtype of x, and its log_det, (B,).

    Some transforms return one log_det for all rows, some return one per feature, and some reject
    an empty batch.
    """
    if not x.shape[0]:
        return x.clone(), zero_log_det(x)
    with without_autocast(x.device.type):
        value, log_det = call()
    log_det = log_det.to(log_det_dtype(x.dtype))
    return value.to(x.dtype), log_det.sum(1) if log_det.dim() > 1 else log_det.expand(x.shape[0])


# Class of zuko and default number of transforms; a continuous flow is one transform.
KINDS: dict[str, tuple[str, int | None]] = {
    "maf": ("MAF", 5),
    "nsf": ("NSF", 5),
    "naf": ("NAF", 3),
    "sospf": ("SOSPF", 3),
    "bpf": ("BPF", 3),
    "gf": ("GF", 6),
    "cnf": ("CNF", None),
    "realnvp": ("RealNVP", 8),
}
OPTIONS = {"nsf": ("bins",)}  # options of a kind that `kappaflow fit` has too


@recipe("zuko_flow")
def zuko_flow(
    features: int,
    kind: str = "nsf",
    *,
    depth: int | None = None,
    hidden: Sequence[int] = (128, 128),
    context_features: int = 0,
    embedding: nn.Module | None = None,
    activation: AnyActivation | None = None,
    bounds: Bounds = None,
    **options: Any,
) -> Flow:
    """Returns a flow of zuko that can be trained, saved and diagnosed like any other flow.

    A standardization comes first. The other layers are zuko's, with zuko's initial weights from
    torch's global generator. zuko must be installed: pip install 'kappaflow[zuko]'.

    Args:
        features: Number of features.
        kind: "maf" (masked autoregressive), "nsf" (neural spline), "naf" (neural autoregressive),
            "sospf" (sums of squares of polynomials), "bpf" (Bernstein polynomials), "gf"
            (Gaussianization), "cnf" (continuous) or "realnvp" (affine couplings).
        depth: Number of transforms. The default is 5 for maf and nsf, 3 for naf, sospf and bpf, 6
            for gf, and 8 for realnvp. It must be left out for cnf, which is one transform.
        hidden: Widths of the networks' hidden layers; gf has networks only with a context.
        context_features: Width of the context; 0 for none.
        embedding: A network that embeds the context first, as for `kappaflow.real_nvp`.
        activation: Activation of the networks, as for `kappaflow.real_nvp`; None for zuko's.
        bounds: The domain of each feature, as for `kappaflow.real_nvp`.
        **options: More arguments of zuko's class: numbers, strings and lists of these. Examples
            are bins=16 for nsf, and passes=2 for couplings of autoregressive kinds.

    Raises:
        ArgumentError: zuko is not installed, or an argument does not fit the kind.

    Note:
        The inverse of an autoregressive kind takes one pass per feature. The inverse of naf,
        sospf, bpf and gf is a search among values up to 10, to 1e-6. cnf solves its equation to
        the tolerances atol=1e-6 and rtol=1e-5. `kappaflow.doctor` reports the effect on round
        trips.

    Source:
        Rozet and others, Zuko: normalizing flows in PyTorch, doi 10.5281/zenodo.7625672.

    Example:
        >>> zuko_flow(3, "maf", depth=2, hidden=(16,)).sample(4).shape
        torch.Size([4, 3])
    """
    positive_int("features", features)
    width, before = context_embedding(context_features, embedding)
    name, usual = KINDS[one_of("kind", kind, tuple(KINDS))]
    arguments: dict[str, Any] = {"hidden_features": list(layer_widths(hidden))}
    if usual is not None:
        arguments["transforms"] = positive_int("depth", usual if depth is None else depth)
    elif depth is not None:
        raise ArgumentError(f"'depth' should be left out for {kind!r}, which is one transform.")
    if activation is not None:
        arguments["activation"] = _activation_maker(named_activation(activation))
    if kind == "gf" and not context_features:
        del arguments["hidden_features"]
    make = getattr(_zuko_flows(), name)
    try:
        foreign = _tried(make(features, width, **arguments, **options), features, width)
    except (TypeError, ValueError, AssertionError, RuntimeError, IndexError) as error:
        raise ArgumentError(
            f"the options of {kind!r} should be arguments of zuko.flows.{name}: {error}."
        ) from None
    layers = getattr(foreign.transform, "transforms", [foreign.transform])
    wrapped = [ZukoLayer(layer, width) for layer in layers]
    bijection = Chain([*input_layers(features, bounds), *wrapped], **before)
    return Flow(StandardNormal(features), bijection)


def _activation_maker(activation: str | nn.Module) -> Callable[[], nn.Module]:
    """Returns a function that makes a new activation, as zuko's networks take it."""
    if isinstance(activation, nn.Module):
        return lambda: copy.deepcopy(activation)
    return next(kind for kind, name in MODULES.items() if name == activation)


def _tried(flow: Any, features: int, width: int) -> Any:
    """Returns the flow after computing a density, in which zuko checks some arguments."""
    with torch.no_grad():
        flow(torch.zeros(1, width) if width else None).log_prob(torch.zeros(1, features))
    return flow


def _zuko_flows() -> Any:
    try:
        return importlib.import_module("zuko.flows")
    except ImportError:
        raise ArgumentError(
            "flows of zuko need zuko: install it with pip install 'kappaflow[zuko]'."
        ) from None
