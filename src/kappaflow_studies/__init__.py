"""Reproducible studies of the source's claims: trainings, measurements and a page for each.

Each name of the stub is loaded at its first use: the theory does not load the studies.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
