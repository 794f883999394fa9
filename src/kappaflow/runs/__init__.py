"""Run folders from end to end: the functions behind the commands.

`fit_run` is the path of `kappaflow fit`: a `DataConfig`, such as `TableConfig`, loads the data
(`kinds.py`, `table_data.py`), `search_model` may choose a model,
`kappaflow.training.fit_split` trains, and `evaluate` makes report and metrics.

Each name of the stub is loaded at its first use, so that a command loads only what it needs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
