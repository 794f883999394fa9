"""Flows of other libraries, and exports: registered with the core, which imports none of it.

No library is imported here: the module of a flow's class determines its adapter.

zuko, nflows, normflows, freia, torchflows, distributions    adapters of one library each
sbi            its estimators, and conditional flows as such estimators
exports        `kappaflow.export`: programs that run without kappaflow
"""

from kappaflow.foreign import Wrapped, register_library, wrap

__all__ = ["Wrapped", "register_library", "wrap"]

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
