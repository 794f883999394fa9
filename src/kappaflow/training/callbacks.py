"""Training callbacks, including one for TensorBoard."""

from collections.abc import Sequence
from pathlib import Path

from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.storage import make_directory
from kappaflow.training.objective import Figures
from kappaflow.training.results import EnergyResult, FitResult
from kappaflow.training.settings import EnergySettings, Settings


class Callback:
    """Base class of training callbacks; each method does nothing until a subclass overrides it.

    The flow is in evaluation mode with the weights that are validated, and callbacks must not
    change it. With a condition budget the figures may belong to projected weights. An exception in
    a method ends the training; its run folder can be resumed. Fitting a finished run again calls
    no callbacks. An interval of `kappaflow.fit_energy` counts as an epoch.

    Example:
        >>> import torch, kappaflow as kf
        >>> class Shown(kf.training.Callback):
        ...     def on_epoch(self, flow, figures):
        ...         print(figures["epoch"], round(figures["validation_nll"]))
        >>> flow, x = kf.real_nvp(2, depth=2, hidden=(8,)), torch.arange(160.0).reshape(80, 2)
        >>> result = kf.fit(flow, x.sin() + 2, max_epochs=2, progress=False, callbacks=[Shown()])
        1 2
        2 2
    """

    def on_start(self, flow: Flow, settings: Settings | EnergySettings) -> None:
        """Called before the first epoch, or before the next epoch of a resumed run."""

    def on_epoch(self, flow: Flow, figures: Figures) -> None:
        """Called after each epoch, with the figures that metrics.jsonl holds."""

    def on_best(self, flow: Flow, figures: Figures) -> None:
        """Called after `on_epoch` if the weights are the best so far."""

    def on_end(self, result: FitResult | EnergyResult) -> None:
        """Called with the result at the end."""


class TensorBoard(Callback):
    """Writes the figures of each epoch as scalars for TensorBoard.

    Args:
        folder: The folder of the logs. TensorBoard can compare several runs in one folder.

    Raises:
        ArgumentError: tensorboard is not installed, or the folder is a file.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ArgumentError(
                "'tensorboard' needs a package: pip install \"kappaflow[tensorboard]\"."
            ) from None
        self._folder = Path(folder)
        if self._folder.exists() and not self._folder.is_dir():
            raise ArgumentError(f"'tensorboard' should be a folder, {folder} is a file.")
        self._make = SummaryWriter

    def on_start(self, flow: Flow, settings: Settings | EnergySettings) -> None:
        # The folder is made here, so that a training with wrong arguments leaves none.
        self._writer = self._make(str(make_directory(self._folder)))
        self._writer.add_text("settings", settings.model_dump_json())
        self._writer.add_text("flow", f"<pre>{flow!r}</pre>")

    def on_epoch(self, flow: Flow, figures: Figures) -> None:
        for name, value in figures.items():
            if isinstance(value, int | float) and name != "epoch":
                self._writer.add_scalar(name, value, figures["epoch"])
        self._writer.flush()

    def on_end(self, result: FitResult | EnergyResult) -> None:
        self._writer.close()


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Raises ArgumentError for an object that is not a `Callback`."""
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise ArgumentError(
                "'callbacks' should hold kappaflow.training.Callback, "
                f"got {type(callback).__name__}."
            )
