"""Bijections: the layers of flows, from couplings and linear maps to maps of images."""

from kappaflow.bijections.actnorm import ActNorm
from kappaflow.bijections.affine import AffineCoupling, SigmoidCoupling
from kappaflow.bijections.autoregressive import AutoregressiveSpline
from kappaflow.bijections.conv1x1 import InvertibleConv1x1
from kappaflow.bijections.coupling import AdditiveCoupling
from kappaflow.bijections.domain import CircleToLine, Domain
from kappaflow.bijections.elementwise import ElementwiseAffine, LeakyReLU, Logit, Standardize
from kappaflow.bijections.factored import LULinear, QRLinear, SVDLinear
from kappaflow.bijections.gaussianize import Gaussianize
from kappaflow.bijections.image import Flatten, MultiScale, Squeeze
from kappaflow.bijections.image_chain import ImageChain
from kappaflow.bijections.linear import Linear
from kappaflow.bijections.on_features import OnFeatures
from kappaflow.bijections.permutation import Permutation
from kappaflow.bijections.planar_radial import Planar, Radial
from kappaflow.bijections.rotation_coupling import RotationCoupling
from kappaflow.bijections.spline_coupling import SplineCoupling

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "AutoregressiveSpline",
    "CircleToLine",
    "Domain",
    "ElementwiseAffine",
    "Flatten",
    "ImageChain",
    "InvertibleConv1x1",
    "LULinear",
    "LeakyReLU",
    "Linear",
    "Logit",
    "MultiScale",
    "OnFeatures",
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
    "Gaussianize",
]
