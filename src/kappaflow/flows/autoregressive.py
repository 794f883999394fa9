"""The recipe for autoregressive splines."""

from collections.abc import Sequence
from dataclasses import asdict

from kappaflow._checks import natural_int, positive_float, positive_int
from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import AutoregressiveSpline, Permutation
from kappaflow.flows.coupling_flow import base_of, layers_before
from kappaflow.flows.flow import Flow
from kappaflow.flows.recipe import Options, as_group, recipe
from kappaflow.flows.standardization import Bounds, context_embedding, input_layers
from kappaflow.options import AutoregressiveOptions, NetworkOptions, StartName, StartOptions


@recipe("autoregressive")
def autoregressive(
    features: int,
    *,
    depth: int = 3,
    hidden: Sequence[int] = (128, 128),
    context_features: int = 0,
    bounds: Bounds = None,
    start: StartName | StartOptions | Options = StartOptions(),
    couplings: AutoregressiveOptions | Options = AutoregressiveOptions(),
    network: NetworkOptions | Options = NetworkOptions(),
) -> Flow:
    """Returns an autoregressive flow: layers that map each feature given the features before it.

    Standardization comes first. Each layer shifts, scales and bends a feature by numbers that a
    masked network computes from the features before it and the context, see
    `AutoregressiveSpline`. Between layers the order of the features is reversed; with at least
    four features, every second of these permutations is random instead. A new flow is a
    permutation up to rounding. Sampling takes D short steps for each layer.

    The arguments are those of `kappaflow.real_nvp`, without `partition` and `padding`: each layer
    changes all features. For circles among `bounds` use `kappaflow.spline`.

    Args:
        features: Number D of features; one needs no context.
        depth: Number of layers.
        hidden: Widths of the hidden layers of each network.
        context_features: Width of the context; 0 for none.
        bounds: The domain of each feature.
        start: What the first `kappaflow.fit` computes from the training rows.
        couplings: Options of the layers: see `AutoregressiveOptions`. A dict will do.
        network: Options of the networks: see `NetworkOptions`. A dict will do.

    Source:
        Papamakarios, Pavlakou, Murray 2017, Masked autoregressive flow for density estimation;
        Durkan, Bekasov, Murray, Papamakarios 2019, Neural spline flows.

    Example:
        >>> autoregressive(4, depth=2, hidden=(8,), couplings={"bins": 4}).sample(3).shape
        torch.Size([3, 4])
    """
    positive_int("features", features)
    positive_int("depth", depth, "depth counts layers.")
    start = as_group(StartOptions, "start", start)
    settings = asdict(as_group(AutoregressiveOptions, "couplings", couplings))
    network = as_group(NetworkOptions, "network", network)
    seed = natural_int("seed", settings.pop("seed"))
    settings["scale_bound"] = positive_float("scale_bound", settings["scale_bound"]) / depth
    width, before = context_embedding(
        context_features, network.embedding, gaussianize=start.gaussianize_context
    )
    settings |= {name: getattr(network, name) for name in ("activation", "residual", "dropout")}
    layers = [*input_layers(features, bounds), *layers_before(start.start, features)]
    for number in range(depth):
        layers += _order(features, number, seed)
        layers.append(AutoregressiveSpline(features, hidden, context_features=width, **settings))
    return Flow(base_of(start, features), Chain(layers, **before))


def _order(features: int, number: int, seed: int) -> list[Bijection]:
    """Returns the permutation before a layer, counted from 0."""
    if features == 1 or not number:
        return []
    if number % 2 or features < 4:
        return [Permutation(range(features)[::-1])]
    return [Permutation.random(features, seed=seed + number)]
