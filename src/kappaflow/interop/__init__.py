"""Flows of other libraries: `wrap` measures them in place, `convert` copies them into a `Flow`.

No library is imported here: the module of a flow's class determines its adapter and converter.

wrap           `wrap` and `Wrapped`; also plain functions and objects with `encode` and `decode`
foreign        the layers and the base of a wrapped flow
convert        `convert`; builds bijections and stacks from a blueprint
blueprint      the parts of a flow that is read and not built yet
folding        folds scales and shifts between couplings into their networks
layers         converts the layers of a flow, or reports why one is not supported
networks       conditioner networks, read layer by layer and compared with their outputs
matrices       linear maps in factored form
zuko, nflows, normflows, freia    adapter and converter of one library each
distributions, sbi, torchflows    adapters of libraries whose flows are not converted
exported       flows that `kappaflow.export` wrote, read back
"""

from kappaflow.interop.convert import convert
from kappaflow.interop.exported import read_exported
from kappaflow.interop.wrap import Wrapped, wrap

__all__ = ["Wrapped", "convert", "read_exported", "wrap"]
