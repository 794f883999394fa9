"""Advice with the argument names of the library of a flow."""

import dataclasses
import functools
import inspect
import re

from torch import nn

from kappaflow import flows
from kappaflow.bijection import Bijection
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
SPLINES = {"Spline", "RQS", "RationalQuadratic"}  # parts of the names of classes
BOX = ("tail_bound", "bound", "boundary", "max_input")  # names of half the width of their box
ZUKO_BOUND = 5.0  # default of zuko.transforms.MonotonicRQSTransform
OTHER = "replace each raw log-scale by bound * torch.tanh(raw / bound) with a bound such as 2.0"


def bound_scales(flow: Flow) -> str:
    """Returns how to bound the scales in the code that builds a flow, as part of a sentence."""
    if not isinstance(flow, Wrapped):
        for name, change in OWN_BOUNDS.items():
            if taking := _recipe(flow, name) or _classes(flow, name):
                return f"use a {change} {name} (an argument of {taking})"
        return OTHER
    libraries = {type(part).__module__.split(".")[0] for part in _parts(flow)}
    return "; ".join(BOUNDS[one] for one in sorted(libraries & BOUNDS.keys())) or OTHER


def _recipe(flow: Flow, argument: str) -> str | None:
    """Returns the name of the recipe that made a flow, if it takes an argument."""
    try:
        name = describe(flow)["name"]
    except ArgumentError:  # a flow with layers of the user
        return None
    recipe = getattr(flows, name, None)
    takes = inspect.isfunction(recipe) and argument in inspect.signature(recipe).parameters
    return name if takes else None


def _classes(flow: Flow, argument: str) -> str:
    """Returns the classes of the layers that have such an argument."""
    found = {
        type(one).__name__
        for one in flow.modules()
        for place in (one, getattr(one, "shape", None))
        if isinstance(one, Bijection) and isinstance(getattr(place, argument, None), float)
    }
    return ", ".join(sorted(found))


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


def spline_box(flow: Flow) -> float | None:
    """Returns half the width of the box outside of which splines are linear; None without any."""
    found = []
    for part in _parts(flow):
        for one in (part, getattr(part, "shape", None), getattr(part, "univariate", None)):
            kind = one.func if isinstance(one, functools.partial) else one
            name = getattr(kind, "__name__", type(kind).__name__)
            if any(word in name for word in SPLINES):
                given = one.keywords if isinstance(one, functools.partial) else {}
                values = [given.get(key, getattr(one, key, None)) for key in BOX]
                values += [ZUKO_BOUND] if name == "MonotonicRQSTransform" else []
                found += [one for one in values if isinstance(one, float | int)][:1]
    return min(map(float, found), default=None)


def without_own_names(finding: Finding) -> Finding:
    """Returns a finding on a flow of another library, without hints for kappaflow's own flows."""
    cause, fix = (OWN_HINT.sub("", text) for text in (finding.cause, finding.fix))
    return dataclasses.replace(finding, cause=cause, fix=fix)
