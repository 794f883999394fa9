"""Flows of other libraries, measured in place: `wrap` and the registry of libraries.

wrapped  `wrap`, `Wrapped` and `register_library`; also plain functions
layers   the layers and the base of a wrapped flow

No library is known here: `kappaflow.interop` registers those that it adapts.
"""

from kappaflow.foreign.layers import ForeignLayer
from kappaflow.foreign.wrapped import Wrapped, register_library, wrap

__all__ = ["ForeignLayer", "Wrapped", "register_library", "wrap"]
