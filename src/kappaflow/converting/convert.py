"""`convert`: a trained coupling flow of another library as a flow of ours."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch

from kappaflow.bijection import Bijection
from kappaflow.converting.assemble import flow_of
from kappaflow.converting.layers import does_the_same, is_changed
from kappaflow.converting.plan import Plan
from kappaflow.errors import ArgumentError, ConversionError
from kappaflow.flows import Flow

# A class whose module begins so, itself or by inheritance; the file that reads it, and the methods
# that say its density. No library is imported here.
HOMES = {
    "zuko": ("zuko", ("forward",)),
    "nflows": ("nflows", ("log_prob", "_log_prob")),
    "normflows": ("normflows", ("log_prob",)),
    "FrEIA": ("freia", ("forward",)),
}
CONVERTERS = "'converters' should hold functions by class."


def convert(
    flow: object,
    *,
    converters: Mapping[type, Callable[[Any], Bijection]] | None = None,
) -> Flow:
    """Returns a flow of ours with the function of a coupling flow of another library.

    Taken are flows of zuko, nflows, normflows and FrEIA that consist of affine or additive
    couplings and of maps that kappaflow has, too: permutations, linear maps, norms in evaluation
    mode. Weights are copied, and the original stays as it is. What comes back is a `Flow` like
    any other: it is trained, saved, measured and rewritten; couplings of one shape run as stacks,
    and the scales and shifts between them are taken into their networks.

    Args:
        flow: The flow, which is read as it is in evaluation mode.
        converters: For layers of your own: by class, a function that takes the layer and returns
            a bijection from data to latent.

    Returns:
        The flow, of the original's type, on its device, and in its mode (training or evaluation).
        The base is a standard normal: another mean and deviation of the original's base is a map
        at the end of the bijection.

    Raises:
        ConversionError: Some layers have no equal; all of them are named, each with the reason.
        ArgumentError: It is no flow of these libraries.

    Example:
        >>> import torch, zuko, kappaflow as kf  # doctest: +SKIP
        >>> theirs = zuko.flows.RealNVP(3, transforms=4).double()  # doctest: +SKIP
        >>> ours, x = kf.convert(theirs), torch.randn(5, 3).double()  # doctest: +SKIP
        >>> (ours.log_prob(x) - theirs().log_prob(x)).abs().max() < 1e-12  # doctest: +SKIP
        tensor(True)
    """
    plan_of = _reader_of(flow)
    if not isinstance(converters, Mapping | None):
        raise ArgumentError(CONVERTERS)
    made = dict(converters or {})
    for kind, function in made.items():
        if not isinstance(kind, type) or not callable(function):
            raise ArgumentError(CONVERTERS)
    with torch.no_grad():
        plan = plan_of(flow, made)
    return flow_of(plan).train(getattr(flow, "training", False))


def _reader_of(flow: object) -> Callable[[Any, Any], Plan]:
    """Returns what reads a flow of its library."""
    for kind in type(flow).__mro__:
        library = kind.__module__.partition(".")[0]
        if library in HOMES:
            name, methods = HOMES[library]
            if is_changed(flow) or not does_the_same(flow, kind, methods):
                reason = f"it has hooks, or another {methods[0]} than that of {kind.__name__}"
                raise ConversionError(library, [(type(flow).__name__, reason)])
            return import_module(f"kappaflow.converting.{name}").plan_of
    raise ArgumentError(
        f"'flow' should be a flow of {', '.join(HOMES)}, got {type(flow).__name__}: "
        "others can be looked at with kappaflow.wrap."
    )
