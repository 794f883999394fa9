"""Names of other libraries and near misses: what they are called here."""

from collections.abc import Iterable
from difflib import get_close_matches

#: Argument names of zuko, nflows, normflows, FrEIA, scikit-learn and Keras, by the name here.
ARGUMENTS = {
    "depth": "layers num_layers n_layers transforms num_transforms n_transforms flows n_flows "
    "num_flows couplings n_couplings num_couplings num_blocks n_blocks",
    "steps": "layers num_layers n_layers transforms flows num_steps n_steps",
    "context_features": "context context_dim context_size context_shape cond_dim condition_dim "
    "n_context num_context_channels conditional_features",
    "hidden": "hidden_features hidden_units hidden_dim hidden_dims hidden_size hidden_sizes "
    "hidden_layers hidden_channels",
    "bins": "num_bins n_bins",
    "bound": "tail_bound tails",
    "features": "dim dims n_dim input_dim n_features num_features in_features data_dim",
    "shape": "input_shape image_shape img_size",
    "dropout": "dropout_probability dropout_rate",
    "partition": "mask masks masking",
    "embedding": "embedding_net context_net cond_net",
    "seed": "random_state",
    "learning_rate": "lr",
    "max_epochs": "epochs n_epochs num_epochs",
    "max_time_s": "max_time time_limit",
    "validation": "val val_data valid validation_data validation_set x_val",
    "optimizer": "optim optimizer_class",
    "callbacks": "callback",
    "weights": "sample_weight sample_weights",
}
#: Classes of zuko, nflows, normflows and FrEIA, and what to use here.
CLASSES = {
    "real_nvp": "RealNVP SimpleRealNVP",
    "spline": "NSF NeuralSplineFlow",
    "flows.UniformBox": "Uniform BoxUniform",
    'zuko_flow(features, "maf")': "MAF MaskedAutoregressiveFlow MaskedAffineAutoregressive",
    'zuko_flow(features, "naf")': "NAF",
    'zuko_flow(features, "sospf")': "SOSPF",
    'zuko_flow(features, "bpf")': "BPF",
    'zuko_flow(features, "gf")': "GF",
    'zuko_flow(features, "cnf")': "CNF FFJORD",
    "Flow": "NormalizingFlow NormalizingFlowModel TransformedDistribution",
    "Chain": "CompositeTransform ComposedTransform SequenceINN Sequential",
    "Inverse": "InverseTransform",
    "AffineCoupling": "AffineCouplingTransform AffineCouplingBlock MaskedAffineFlow "
    "RNVPCouplingBlock AffineCouplingLayer",
    "bijections.SplineCoupling": "CoupledRationalQuadraticSpline "
    "PiecewiseRationalQuadraticCouplingTransform",
    "bijections.Permutation": "Permute RandomPermutation ReversePermutation PermuteRandom",
    "bijections.ActNorm": "BatchNorm",
    "bijections.InvertibleConv1x1": "Invertible1x1Conv OneByOneConvolution",
    "bijections.MultiScale": "MultiscaleFlow MultiscaleCompositeTransform",
    "flows.DiagonalNormal": "DiagGaussian DiagNormal",
    "flows.ClassConditionalNormal": "ConditionalDiagonalNormal ClassCondDiagGaussian",
    "flows.NormalMixture": "GMM GaussianMixture",
}


def did_you_mean(name: str, known: Iterable[str], others: dict[str, str]) -> str:
    """Returns ": did you mean 'depth'?" for a name that is not among the known ones, or "".

    `others` has the names of other libraries by the one here, as `ARGUMENTS` does.
    """
    names = list(known)
    for own, foreign in others.items():
        if name in foreign.split() and own in names:
            return f": did you mean {own!r}?"
    plain = {_plain(known_name): known_name for known_name in reversed(names)}
    close = [_plain(name)] if _plain(name) in plain else get_close_matches(_plain(name), plain, 1)
    return f": did you mean {plain[close[0]]!r}?" if close else ""


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
