"""Advice with the argument names of the library of a flow."""

import dataclasses
import inspect
import re

from torch import nn

from kappaflow import flows
from kappaflow.bijection import Bijection
from kappaflow.diagnosis.check import Symptom
from kappaflow.diagnosis.isolation import original_of
from kappaflow.errors import ArgumentError
from kappaflow.finding import Finding
from kappaflow.flows import Flow
from kappaflow.foreign import Wrapped
from kappaflow.registry import describe

CLIPS = "log_scale_min_clip=-2.0, log_scale_max_clip=2.0"
BOUNDS = {
    "FrEIA": "pass affine_clamping=1.0 to AllInOneBlock, and clamp=1.0 to GLOWCouplingBlock, "
    "RNVPCouplingBlock, AffineCouplingOneSided or ConditionalAffineTransform",
    "normflows": 'pass scale_map="sigmoid" to AffineCoupling, AffineCouplingBlock or GlowBlock',
    "pyro": f"pass {CLIPS} to affine_coupling, AffineCoupling, affine_autoregressive or "
    "AffineAutoregressive",
    "zuko": "pass univariate=lambda shift, scale: "
    "zuko.transforms.MonotonicAffineTransform(shift, scale, slope=0.1) to MAF, RealNVP, "
    "MaskedAutoregressiveTransform or GeneralCouplingTransform",
}
OWN_BOUNDS = {"scale_bound": "smaller", "min_slope": "larger"}  # of flows of kappaflow
# Hints in parentheses that only apply to flows of kappaflow.
OWN_HINT = re.compile(r" \([^()]*(?:kappaflow|scale_bound|--|depth, hidden|steps, hidden)[^()]*\)")
OTHER = "replace each raw log-scale by bound * torch.tanh(raw / bound) with a bound such as 2.0"


def bound_scales(flow: Flow) -> str:
    """Returns how to bound the scales in the code that builds a flow, as part of a sentence."""
    if not isinstance(flow, Wrapped):
        for name, change in OWN_BOUNDS.items():
            if owner := _recipe(flow, name) or _classes(flow, name):
                return f"use a {change} {name} (an argument of {owner})"
        return OTHER
    libraries = {type(part).__module__.split(".")[0] for part in _parts(flow)}
    return "; ".join(BOUNDS[name] for name in sorted(libraries & BOUNDS.keys())) or OTHER


def _recipe(flow: Flow, option: str) -> str | None:
    """Returns the recipe that made a flow, if its couplings have an option."""
    try:
        name = describe(flow)["name"]
    except ArgumentError:  # a flow with layers of the user
        return None
    recipe = getattr(flows, name, None)
    groups = inspect.signature(recipe).parameters if inspect.isfunction(recipe) else {}
    has_option = "couplings" in groups and hasattr(groups["couplings"].default, option)
    return f"{name}: couplings={{{option!r}: ...}}" if has_option else None


def _classes(flow: Flow, argument: str) -> str:
    """Returns the classes of the layers that have such an argument."""
    names = {
        type(layer).__name__
        for layer in flow.modules()
        for owner in (layer, getattr(layer, "shape", None))
        if isinstance(layer, Bijection) and isinstance(getattr(owner, argument, None), float)
    }
    return ", ".join(sorted(names))


def _parts(flow: Flow) -> list[object]:
    """Returns the modules of a flow, or the transforms of a distribution."""
    original = original_of(flow)
    parts: list[object] = (
        list(original.modules()) if isinstance(original, nn.Module) else [original]
    )
    return parts + list(getattr(original, "transforms", None) or [])


def in_float64(flow: Flow) -> str:
    """Returns how to compute in float64, as part of a sentence."""
    if isinstance(original_of(flow), nn.Module):
        return "flow, x = flow.double(), x.double()"
    return "build the flow from float64 tensors, and pass x.double()"


def loses_digits(flow: Flow, symptom: Symptom) -> Symptom:
    """Returns the symptom of an error that a float64 copy does not have, as a warning."""
    return dataclasses.replace(
        symptom,
        severity="warning",
        cause="The formula is correct, but it loses digits where large numbers cancel.",
        fix=f"Score and sample in float64: {in_float64(flow)}. Or rewrite the formula.",
    )


def without_own_names(finding: Finding) -> Finding:
    """Returns a finding on a flow of another library, without hints for kappaflow's own flows."""
    cause, fix = (OWN_HINT.sub("", text) for text in (finding.cause, finding.fix))
    return dataclasses.replace(finding, cause=cause, fix=fix)
