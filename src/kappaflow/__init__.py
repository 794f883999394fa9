"""kappaflow: normalizing flows with their depth and their conditioning in plain sight.

The stub `__init__.pyi` lists the public names. Each is loaded at its first use, so that `import
kappaflow` and the help of the command line do not wait for torch.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
