"""Flows of other libraries, and exports: registered with the core, which imports none of it.

No library is imported here: the module of a flow's class determines its adapter and converter.

zuko, nflows, normflows, freia    adapter and converter of one library each
distributions, torchflows         adapters of libraries whose flows are not converted
sbi            its estimators, and conditional flows as such estimators
exports        `kappaflow.export`: programs that run without kappaflow
convert        `convert`; builds bijections and stacks from a blueprint
blueprint      the parts of a flow that is read and not built yet
folding        folds scales and shifts between couplings into their networks
layers         converts the layers of a flow, or reports why one is not supported
networks       conditioner networks, read layer by layer and compared with their outputs
"""

from kappaflow.foreign import Wrapped, register_library, wrap
from kappaflow.interop.convert import convert

__all__ = ["Wrapped", "convert", "register_library", "wrap"]

LIBRARIES = {
    "zuko": "zuko",
    "nflows": "nflows",
    "normflows": "normflows",
    "FrEIA": "freia",
    "torchflows": "torchflows",
    "sbi": "sbi",
    "pyro": "distributions",
    "torch.distributions": "distributions",
}
for package, adapter in LIBRARIES.items():
    register_library(package, f"{__name__}.{adapter}")
