"""kappaflow: normalizing flows with their depth and their conditioning in plain sight.

The public names are loaded at their first use, so that `import kappaflow` and the command line's
help do not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "errors": (
        "ArgumentError",
        "ConversionError",
        "DataError",
        "DataWarning",
        "FileError",
        "KappaflowError",
        "NumericalError",
        "NumericalWarning",
    ),
    "registry": ("register",),
    "bijection": ("Bijection", "Chain", "Inverse"),
    "linearization": ("Linearization",),
    "nets": (
        "SinCosEmbedding",
        "ConvNet",
        "MLP",
        "ResidualConvNet",
        "ResidualMLP",
        "StandardizeInputs",
        "PairedMLP",
        "VisionTransformer",
    ),
    "partition": ("Partition", "SpatialPartition"),
    "bijections": (
        "ActNorm",
        "AdditiveCoupling",
        "AffineCoupling",
        "CircleToLine",
        "Domain",
        "ElementwiseAffine",
        "Gaussianize",
        "Flatten",
        "ImageChain",
        "InvertibleConv1x1",
        "LULinear",
        "LeakyReLU",
        "Linear",
        "Logit",
        "MultiScale",
        "Permutation",
        "Planar",
        "QRLinear",
        "Radial",
        "RotationCoupling",
        "SVDLinear",
        "SigmoidCoupling",
        "SplineCoupling",
        "Squeeze",
        "Standardize",
    ),
    "stack": ("CouplingStack",),
    "factor": (
        "Factorization",
        "LinearCoupling",
        "Whiten",
        "factor_linear",
        "load_couplings",
        "save_couplings",
    ),
    "flows": (
        "Augmentation",
        "CopyPad",
        "Dequantize",
        "DequantizeAndPad",
        "Flow",
        "LearnedPad",
        "NormalMixture",
        "Pad",
        "Padding",
        "StandardNormal",
        "UniformPad",
        "VariationalDequantize",
        "ZeroPad",
        "glow",
        "importance_weighted_log_prob",
        "interpolate",
        "invertible_network",
        "jet",
        "nice",
        "planar",
        "radial",
        "real_nvp",
        "real_nvp_image",
        "reconstruct",
        "spline",
        "zuko_flow",
    ),
    "files": ("load", "save"),
    "conditioning": ("Profile", "RoundTrip", "Spectrum", "profile", "round_trip", "spectrum"),
    "energies": ("ImportanceSamples", "importance_sample"),
    "rewrite": ("Certificate", "SandwichCoupling", "fuse", "rewrite_fixed_partition"),
    "data": ("load_images", "load_table"),
    "interop": ("Wrapped", "convert", "wrap"),
    "diagnosis": ("Diagnosis", "Finding", "doctor"),
    "runs": ("fit_auto",),
    "training": ("Callback", "EnergyResult", "FitResult", "fit", "fit_energy"),
    "report": ("write_diagnosis",),
}
_MODULES = ("data", "errors", "registry", "testing", "theory")
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(["__version__", *_HOME_OF])  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from kappaflow import registry, testing, theory  # noqa: F401
    from kappaflow.bijection import Bijection, Chain, Inverse  # noqa: F401
    from kappaflow.bijections import (  # noqa: F401
        ActNorm,
        AdditiveCoupling,
        AffineCoupling,
        CircleToLine,
        Domain,
        ElementwiseAffine,
        Flatten,
        Gaussianize,
        ImageChain,
        InvertibleConv1x1,
        LeakyReLU,
        Linear,
        Logit,
        LULinear,
        MultiScale,
        Permutation,
        Planar,
        QRLinear,
        Radial,
        RotationCoupling,
        SigmoidCoupling,
        SplineCoupling,
        Squeeze,
        Standardize,
        SVDLinear,
    )
    from kappaflow.conditioning import (  # noqa: F401
        Profile,
        RoundTrip,
        Spectrum,
        profile,
        round_trip,
        spectrum,
    )
    from kappaflow.data import load_images, load_table  # noqa: F401
    from kappaflow.diagnosis import Diagnosis, Finding, doctor  # noqa: F401
    from kappaflow.energies import ImportanceSamples, importance_sample  # noqa: F401
    from kappaflow.errors import (  # noqa: F401
        ArgumentError,
        ConversionError,
        DataError,
        FileError,
        KappaflowError,
        NumericalError,
        NumericalWarning,
    )
    from kappaflow.factor import (  # noqa: F401
        Factorization,
        LinearCoupling,
        Whiten,
        factor_linear,
        load_couplings,
        save_couplings,
    )
    from kappaflow.files import load, save  # noqa: F401
    from kappaflow.flows import (  # noqa: F401
        Augmentation,
        CopyPad,
        Dequantize,
        DequantizeAndPad,
        Flow,
        LearnedPad,
        NormalMixture,
        Pad,
        Padding,
        StandardNormal,
        UniformPad,
        VariationalDequantize,
        ZeroPad,
        glow,
        importance_weighted_log_prob,
        interpolate,
        invertible_network,
        jet,
        nice,
        planar,
        radial,
        real_nvp,
        real_nvp_image,
        reconstruct,
        spline,
        zuko_flow,
    )
    from kappaflow.interop import Wrapped, convert, wrap  # noqa: F401
    from kappaflow.linearization import Linearization  # noqa: F401
    from kappaflow.nets import (  # noqa: F401
        MLP,
        ConvNet,
        PairedMLP,
        ResidualConvNet,
        ResidualMLP,
        SinCosEmbedding,
        StandardizeInputs,
        VisionTransformer,
    )
    from kappaflow.partition import Partition, SpatialPartition  # noqa: F401
    from kappaflow.registry import register  # noqa: F401
    from kappaflow.report import write_diagnosis  # noqa: F401
    from kappaflow.rewrite import (  # noqa: F401
        Certificate,
        SandwichCoupling,
        fuse,
        rewrite_fixed_partition,
    )
    from kappaflow.runs import fit_auto  # noqa: F401
    from kappaflow.stack import CouplingStack  # noqa: F401
    from kappaflow.training import (  # noqa: F401
        Callback,
        EnergyResult,
        FitResult,
        fit,
        fit_energy,
    )


def __getattr__(name: str) -> object:
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"kappaflow.{_HOME_OF[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"kappaflow.{name}")
    raise AttributeError(f"module 'kappaflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_MODULES]
