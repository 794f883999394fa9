"""Bijections: each is a plain noun, registered by its name, and held to `kappaflow.testing`."""

from kappaflow.bijections.actnorm import ActNorm
from kappaflow.bijections.coupling import AdditiveCoupling, AffineCoupling
from kappaflow.bijections.elementwise import ElementwiseAffine, Logit, Standardize
from kappaflow.bijections.factored import LULinear, QRLinear, SVDLinear
from kappaflow.bijections.linear import Linear
from kappaflow.bijections.permutation import Permutation

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "ElementwiseAffine",
    "LULinear",
    "Linear",
    "Logit",
    "Permutation",
    "QRLinear",
    "SVDLinear",
    "Standardize",
]
