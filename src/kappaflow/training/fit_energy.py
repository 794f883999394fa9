"""`fit_energy` trains a flow on an unnormalized log-density."""

from collections.abc import Sequence
from typing import Any

import torch

from kappaflow.data.batches import Batch
from kappaflow.energies import LogDensity, check_target, importance_sample
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.flows.base import check_has_rsample
from kappaflow.ranks import ranks
from kappaflow.training.batches import fit_standardization
from kappaflow.training.callbacks import Callback, check_callbacks
from kappaflow.training.distributed import make_engine
from kappaflow.training.energy import Energy, check_start, latents
from kappaflow.training.loop import Training, epoch_seed
from kappaflow.training.objective import Figures
from kappaflow.training.progress import short
from kappaflow.training.results import EnergyResult
from kappaflow.training.session import trained
from kappaflow.training.settings import checked_energy_settings

START_FROM = 256  # base samples that check the target and fit the standardization at the start
FINAL_DRAWS = 4096  # samples of the result


def fit_energy(
    flow: Flow,
    log_density: LogDensity,
    *,
    device: str | torch.device | None = None,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> EnergyResult:
    r"""Trains a flow q on an unnormalized density p by the reverse KL divergence.

    Training minimizes the variational free energy, the mean of log q(x) - log p(x) over samples x
    of the flow. It equals :math:`\mathrm{KL}(q \| p / Z) - \log Z`. No data is needed, only the
    log-density and its gradient. The target is flattened at first: it is p to a power that rises
    to 1, so that the flow finds more than one mode. A step that is not finite is skipped and
    counted, and many in a row stop the training. The averaged weights with the lowest free energy
    are kept; each interval is measured with the same base samples.

    Training starts from the present weights of the flow. A new flow is a standard normal, so shift
    and scale the energy until its mass is within a few units of the origin.

    Args:
        flow: The flow, which is trained in place. It needs an exact log_prob and no context.
        log_density: A function that returns the log-density in nats, up to a constant, of shape
            (n,). Its input is x, (n, *event), in the dtype and on the device of the flow. It must
            be differentiable, and the value of one point must not depend on another point.
        device: Device of the training, "cpu" or "cuda"; the device of the flow by default.
        progress: Whether to show a progress bar; by default on a terminal and in a notebook.
        callbacks: Called after each interval, as after an epoch of `kappaflow.fit`.
        **settings: `steps`, `batch_size`, `learning_rate`, `annealing`, `seed`, `max_time_s`
            and the other fields of `kappaflow.training.EnergySettings`.

    Returns:
        The result; its `flow` is the one that was passed in.

    Raises:
        ArgumentError: An argument is wrong, or the log-density has a wrong shape or no gradient.
        NumericalError: The log-density is not finite where the flow starts, many steps in a row
            were not finite, or no interval had a finite free energy. The flow then has the best
            weights so far.

    Note:
        The reverse divergence can miss modes, and samples of the flow do not show it: the
        importance weights of a flow that covers one of two modes look perfect.
        ``kappaflow.doctor(flow, log_density=...)`` searches for missing modes.

    Source:
        Rezende, Mohamed 2015, Variational inference with normalizing flows; the gradient is from
        Roeder, Wu, Duvenaud 2017.

    Example:
        >>> import kappaflow as kf
        >>> flow = kf.real_nvp(2, depth=2, hidden=(8,))
        >>> result = kf.fit_energy(flow, lambda x: -0.5 * x.square().sum(1), steps=20)
        >>> round(result.samples.log_normalizer, 2)  # log of 2 pi
        1.84
    """
    checked = checked_energy_settings(**settings)
    check_target(flow, log_density)
    check_has_rsample(flow.base)
    check_callbacks(callbacks)
    if ranks() > 1:
        raise ArgumentError(
            f"'fit_energy' trains in one process, and this is one of {ranks()}: start it with "
            "WORLD_SIZE=1, and without a process group."
        )
    engine = make_engine(flow, device)
    with torch.inference_mode(False), torch.enable_grad():
        z = latents(flow, START_FROM, epoch_seed(checked.seed, -3))
        check_start(flow.eval(), log_density, z)
        _fit_start(flow, z)
        training = Training(Energy(flow, log_density, checked), checked, engine)

        def result_of(reason: str) -> EnergyResult:
            generator = torch.Generator().manual_seed(epoch_seed(checked.seed, -2))
            samples = importance_sample(flow, log_density, FINAL_DRAWS, generator=generator)
            best, history = training.progress.best_epoch, tuple(training.history)
            return EnergyResult(flow, history, samples, best, reason)

        return trained(training, callbacks, result_of, describe=describe_energy, progress=progress)


def _fit_start(flow: Flow, z: torch.Tensor) -> None:
    """Fits the standardization of a flow to base samples with mean 0 and deviation 1."""
    # Without data there is no scale to estimate, so the scale of the energy is used.
    z = torch.cat((z, -z))
    x = z / z.square().mean(0).sqrt()
    if flow.domain is not None:
        with torch.no_grad():
            x = flow.domain.inverse(x)[0]
    fit_standardization(flow, Batch(x, None))
    flow.eval()


def describe_energy(figures: Figures) -> str:
    """Returns a measured interval as text."""
    measured = figures["condition_number_p95"]
    condition = "" if measured is None else f", cond {short(measured)}"
    ess = figures["effective_sample_size"]
    share = "not finite" if ess is None else f"{ess:.0%}"
    return f"free energy {short(figures['free_energy'])}, effective {share}{condition}"
