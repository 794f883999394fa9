"""Advice on bounding the scales of a flow, with the argument names of its library."""

from torch import nn

from kappaflow.diagnosis.isolation import original_of
from kappaflow.flows import Flow
from kappaflow.interop import Wrapped

FLOAT64 = "flow, x = flow.double(), x.double()"
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
OTHER = "replace each raw log-scale by bound * torch.tanh(raw / bound) with a bound such as 2.0"


def bound_scales(flow: Flow) -> str:
    """Returns how to bound the scales in the code that builds a flow, as part of a sentence."""
    if not isinstance(flow, Wrapped):
        return "use a smaller scale_bound (an argument of real_nvp)"
    original = original_of(flow)
    parts = list(original.modules()) if isinstance(original, nn.Module) else [original]
    parts += getattr(original, "transforms", None) or []  # transforms of a pyro distribution
    libraries = {type(part).__module__.split(".")[0] for part in parts}
    return "; ".join(BOUNDS[one] for one in sorted(libraries & BOUNDS.keys())) or OTHER
