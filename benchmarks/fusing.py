"""The effect of fusing sequences of linear layers."""

from functools import partial
from statistics import median

import torch

import kappaflow as kf
from benchmarks.turns import in_turn, timed

FEATURES, DEPTH, BATCH = 64, 8, 512


def fusing(*, repetitions: int = 21) -> None:
    """Time log_prob and sample of a flow, rewritten to one partition, and fused, in turn.

    The flow has 64 features and eight couplings with conditioners 32-128-128-64. An activation
    norm and a learned linear layer (SVD) precede each. The batch has 512 rows in float32.

    Parameters
    ----------
    repetitions
        Number of repetitions; the printed values are medians, and ratios to the original flow.
    """
    torch.manual_seed(0)
    half = kf.Partition.half(FEATURES)
    parts: list[kf.Bijection] = []
    for layer in range(DEPTH):
        own = half if layer % 2 == 0 else half.swapped()
        network = kf.nets.MLP(FEATURES // 2, FEATURES, (128, 128))
        affine = kf.bijections.ElementwiseAffine(FEATURES)
        parts += [affine, kf.bijections.SVDLinear(FEATURES), kf.AffineCoupling(own, network)]
    flow = kf.Flow(kf.StandardNormal(FEATURES), kf.Chain(parts)).eval()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    x = torch.randn(BATCH, FEATURES)
    rewritten, certificate = kf.rewrite_fixed_partition(flow, x)
    flows = {
        "as it was": flow,
        "fused": kf.fuse(flow),
        "rewritten": rewritten,
        "rewritten, then fused": kf.fuse(rewritten),
    }
    error = max(
        (other.log_prob(x) - flow.log_prob(x)).abs().max().item() for other in flows.values()
    )
    print(f"largest difference of log_prob: {error:.1e} nats")
    print(f"couplings: {certificate.couplings_before} before, {certificate.couplings_after} after")
    for name, call in {
        "log_prob": lambda f: f.log_prob(x),
        "sample": lambda f: f.sample(BATCH),
    }.items():
        with torch.no_grad():
            takes = {kind: partial(timed, partial(call, f)) for kind, f in flows.items()}
            times = in_turn(takes, repetitions)
        for kind, taken in times.items():
            ratios = [a / b for a, b in zip(taken, times["as it was"], strict=True)]
            print(f"{name:<9} {kind:<22} {median(taken) * 1e3:7.2f} ms  {median(ratios):.2f}")
