"""The recipe of Glow."""

from collections.abc import Sequence

from kappaflow._checks import image_shape, natural_int, one_of, positive_float, positive_int
from kappaflow.autograd.checkpoint import MEMORY_MODES
from kappaflow.bijection import Bijection
from kappaflow.bijections import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    ImageChain,
    InvertibleConv1x1,
    MultiScale,
    Squeeze,
)
from kappaflow.flows.flow import Flow
from kappaflow.flows.images import check_levels, image_flow, padded_shape
from kappaflow.flows.pad import Padding
from kappaflow.nets import ConvNet
from kappaflow.partition import Partition
from kappaflow.registry import register

PRIOR_BOUND = 4.0  # on the log-scale of what is factored out, given what goes on


@register("glow")
def glow(
    shape: Sequence[int],
    *,
    levels: int = 3,
    steps: int = 8,
    hidden: int = 128,
    coupling: str = "affine",
    mixing: str = "lu",
    condition_bound: float | None = None,
    scale_bound: float = 12.0,
    context_features: int = 0,
    memory: str = "recompute",
    dequantize: str | None = None,
    values: int = 256,
    logit: float | None = None,
    padding: int | Padding | None = None,
) -> Flow:
    """Returns a Glow: levels of steps, each an ActNorm, a 1x1 convolution and a coupling.

    A level squeezes the image and takes its steps; behind each but the last, half of the channels
    are factored out, with a learned normal density given the other half. The latent is one flat
    tensor; `flow.latents` shows it by scale.

    Args:
        shape: (C, H, W) of the images; H and W divide by 2^levels.
        levels: L, how often the image is squeezed.
        steps: K, in each level.
        hidden: Channels of the couplings' networks, `ConvNet`.
        coupling: "affine" or "additive".
        mixing: Form of the 1x1 convolutions, "lu", "plain", "qr", "svd" or "orthogonal": see
            `InvertibleConv1x1`.
        condition_bound: For mixing="svd": the largest condition number of each.
        scale_bound: Bound on the sum over all steps of the couplings' log-scales.
        context_features: Width of the context, such as the number of classes; 0 for none.
        memory: What is kept for the backward pass: "store" everything, "recompute" all but the
            hidden layers of the networks, which are most of it and run again, "invert" the output
            of each level, from which inputs are taken back, see `Chain`.
        dequantize: None for images of real numbers, whose log_prob is exact; "uniform" or
            "variational" for pixels of whole numbers, see `Dequantize` and
            `VariationalDequantize`.
        values: How many values such a pixel may have.
        logit: A margin, such as 0.05, puts a logit of the pixels, from 0 to `values`, in front;
            None a standardisation of the channels, which the first `kappaflow.fit` sets.
        padding: How many Gaussian channels are added beside those of the image, or any `Padding`:
            log_prob is then a bound, samples drop them. None for none.

    Returns:
        A flow with `log_prob` and `sample`.

    Raises:
        ArgumentError: An argument is out of its range, or the sides cannot be halved so often.

    Source:
        Kingma, Dhariwal 2018.

    Example:
        >>> import torch
        >>> flow = glow((3, 8, 8), levels=2, steps=2, hidden=8)
        >>> flow.sample(4).shape, [tuple(part.shape) for part in flow.latents(torch.zeros(1, 192))]
        (torch.Size([4, 3, 8, 8]), [(1, 6, 4, 4), (1, 24, 2, 2)])
    """
    sizes = image_shape("shape", shape)
    check_levels(sizes, levels, squeezes=levels)
    natural_int("context_features", context_features)
    one_of("coupling", coupling, ("affine", "additive"))
    one_of("memory", memory, MEMORY_MODES)
    bound = positive_float("scale_bound", scale_bound) / (levels * positive_int("steps", steps))

    def couple(channels: int, kind: str, bound: float) -> Bijection:
        partition = Partition.half(channels)
        outputs = (2 if kind == "affine" else 1) * len(partition.changed)
        network = ConvNet(
            len(partition.kept),
            outputs,
            hidden,
            context_features=context_features,
            memory="recompute" if memory == "recompute" else "store",
        )
        settings = {"context_features": context_features, "memory": "store"}
        if kind == "additive":
            return AdditiveCoupling(partition, network, **settings)
        return AffineCoupling(partition, network, scale_bound=bound, **settings)

    joint_shape = padded_shape(sizes, padding)
    scales, channels = [], joint_shape[0]
    for level in range(levels):
        channels *= 4
        layers: list[Bijection] = [Squeeze()]
        for _ in range(steps):
            mix = InvertibleConv1x1(channels, form=mixing, condition_bound=condition_bound)
            layers += [ActNorm(channels), mix, couple(channels, coupling, bound)]
        if level < levels - 1:
            layers.append(couple(channels, "affine", PRIOR_BOUND))
        # The networks run their hidden layers again by themselves, at less cost than whole layers.
        scales.append(ImageChain(layers, memory="invert" if memory == "invert" else None))
        channels //= 2
    return image_flow(
        sizes,
        MultiScale(joint_shape, scales),
        dequantize=dequantize,
        values=values,
        logit=logit,
        padding=padding,
        context_features=context_features,
    )
