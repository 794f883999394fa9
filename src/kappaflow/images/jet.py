"""The recipe for Jet: couplings on image patches with vision transformers as conditioners."""

from collections.abc import Sequence

from kappaflow._checks import image_shape, natural_int, positive_int
from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import Flatten, Permutation, SigmoidCoupling, Squeeze
from kappaflow.errors import ArgumentError
from kappaflow.flows.flow import Flow
from kappaflow.flows.padding import Padding
from kappaflow.flows.recipe import Options, as_group, recipe
from kappaflow.images import VisionTransformer
from kappaflow.images.options import JetOptions, PixelOptions, TransformerOptions
from kappaflow.images.recipes import padded_shape, pixel_flow
from kappaflow.partition import AnyPartition, Partition, SpatialPartition

PATTERNS = ("rows", "columns", "checkerboard")


@recipe("jet")
def jet(
    shape: Sequence[int],
    *,
    patch: int = 4,
    depth: int = 16,
    context_features: int = 0,
    padding: int | Padding | None = None,
    couplings: JetOptions | Options = JetOptions(),
    network: TransformerOptions | Options = TransformerOptions(),
    pixels: PixelOptions | Options = PixelOptions(),
) -> Flow:
    """Returns a Jet: couplings of patches of one size, without scales.

    The image becomes patches, whose pixels are channels. Before each coupling, the channels are
    permuted in a fixed random order. A vision transformer reads one half of the channels at all
    places and changes the other half. Every spatial_every-th coupling splits the places instead,
    by rows, columns and checkerboard in turn.

    Args:
        shape: (C, H, W) of the images.
        patch: Side of a patch in pixels; it divides H and W.
        depth: Number of couplings.
        context_features: Number of classes or other numbers to condition on; 0 for none.
        padding: Number of channels to add, or a `Padding`; None for none.
        couplings: `scale_bound`, `spatial_every`, `memory` and `seed`: see `JetOptions`. A dict
            will do.
        network: `width`, `blocks` and `heads`: see `TransformerOptions`. A dict will do.
        pixels: `dequantize`, `values` and `logit`: see `PixelOptions`. A dict will do.

    Raises:
        ArgumentError: An argument is out of its range, or the image has no such patches.

    Source:
        Kolesnikov, Pinto, Tschannen 2024, Jet: a modern transformer-based normalizing flow. What
        is not from there: the lower bound on the scales.

    Example:
        >>> flow = jet((1, 8, 8), depth=2, network={"width": 8, "blocks": 1, "heads": 2})
        >>> flow.sample(2).shape
        torch.Size([2, 1, 8, 8])
    """
    sizes = image_shape("shape", shape)
    channels, height, width_of_image = padded_shape(sizes, padding)
    side = positive_int("patch", patch)
    if height % side or width_of_image % side:
        raise ArgumentError(
            f"'patch' should divide the sides of the images, {height} and {width_of_image}, "
            f"got {side}."
        )
    places = height // side, width_of_image // side
    features = channels * side**2
    form = as_group(JetOptions, "couplings", couplings)
    transformer = as_group(TransformerOptions, "network", network)
    natural_int("seed", form.seed)
    every = natural_int("spatial_every", form.spatial_every)

    def couple(partition: AnyPartition) -> Bijection:
        net = VisionTransformer(
            len(partition.kept),
            2 * len(partition.changed),
            width=transformer.width,
            depth=transformer.blocks,
            heads=transformer.heads,
            places=places,
            context_features=context_features,
        )
        return SigmoidCoupling(
            partition, net, context_features=context_features, scale_bound=form.scale_bound
        )

    layers: list[Bijection] = [Squeeze(side)]
    spatial = 0
    for layer in range(positive_int("depth", depth)):
        if features == 1 or (every and layer % every == every - 1):
            pattern = PATTERNS[spatial // 2 % len(PATTERNS)]
            layers.append(couple(SpatialPartition(features, pattern, odd=spatial % 2 == 1)))
            spatial += 1
        else:
            layers.append(Permutation.random(features, seed=form.seed + layer))
            layers.append(couple(Partition.half(features)))
    squeezed = (features, *places)
    return pixel_flow(
        sizes,
        Chain([*layers, Flatten(squeezed)], memory=form.memory),
        pixels=pixels,
        padding=padding,
        context_features=natural_int("context_features", context_features),
    )
