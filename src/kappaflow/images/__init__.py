"""Images, as a kind of data that registers itself: loading, recipes, samples, report.

Pixels are whole numbers in uint8 arrays; a flow makes them continuous. Images are decoded when
they are loaded. No code in a file is executed.

Each name of the stub is loaded at its first use, so that a command loads only what it needs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
