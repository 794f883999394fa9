"""Arguments of layers of other libraries that bound their scales: what a cure sets in a file."""

Arguments = dict[str, str]

# By library, and the name of what is called or handed on to be called: keywords, as Python text.
BOUNDS: dict[tuple[str, str], Arguments] = {
    ("FrEIA", "AllInOneBlock"): {"affine_clamping": "1.0"},
    ("FrEIA", "GLOWCouplingBlock"): {"clamp": "1.0"},
    ("FrEIA", "RNVPCouplingBlock"): {"clamp": "1.0"},
    ("FrEIA", "AffineCouplingOneSided"): {"clamp": "1.0"},
    ("FrEIA", "ConditionalAffineTransform"): {"clamp": "1.0"},
    ("normflows", "AffineCoupling"): {"scale_map": '"sigmoid"'},
    ("normflows", "AffineCouplingBlock"): {"scale_map": '"sigmoid"'},
    ("normflows", "GlowBlock"): {"scale_map": '"sigmoid"'},
    ("pyro", "affine_coupling"): {"log_scale_min_clip": "-2.0", "log_scale_max_clip": "2.0"},
    ("pyro", "AffineCoupling"): {"log_scale_min_clip": "-2.0", "log_scale_max_clip": "2.0"},
    ("pyro", "affine_autoregressive"): {"log_scale_min_clip": "-2.0", "log_scale_max_clip": "2.0"},
    ("pyro", "AffineAutoregressive"): {"log_scale_min_clip": "-2.0", "log_scale_max_clip": "2.0"},
    **{
        ("zuko", name): {
            "univariate": (
                "lambda shift, scale: "
                "zuko.transforms.MonotonicAffineTransform(shift, scale, slope=0.1)"
            )
        }
        for name in ("MAF", "RealNVP", "MaskedAutoregressiveTransform", "GeneralCouplingTransform")
    },
}
