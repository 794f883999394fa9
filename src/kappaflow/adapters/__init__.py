"""Flows of other libraries, in one protocol. Nothing here imports one of them."""

from kappaflow.adapters.wrap import wrap
from kappaflow.adapters.wrapped import Wrapped

__all__ = ["Wrapped", "wrap"]
