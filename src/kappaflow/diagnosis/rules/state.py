"""Rules on what a flow holds: its start, what calls change, stale values, what is not saved."""

from collections.abc import Iterator

from kappaflow.bijections import ActNorm, Domain, Gaussianize, Standardize
from kappaflow.diagnosis.finding import Finding
from kappaflow.diagnosis.measured import Measured
from kappaflow.factor import Whiten
from kappaflow.nets import StandardizeInputs


def not_started(m: Measured) -> Iterator[Finding]:
    """KF401: a data-dependent start that has not happened."""
    waiting = [
        name
        for name, module in m.flow.named_modules()
        if (isinstance(module, ActNorm) and not module.initialized)
        or (
            isinstance(module, (Domain, Gaussianize, Standardize, StandardizeInputs, Whiten))
            and not module.fitted
        )
    ]
    waiting += dict.fromkeys(name.rpartition(".")[0] or "the flow" for name in m.state.first)
    if waiting:
        parts = "part waits for its" if len(waiting) == 1 else "parts wait for their"
        yield Finding(
            code="KF401",
            severity="note",
            layer=waiting[0],
            message=f"{len(waiting)} {parts} first data, beginning with {waiting[0]}.",
            cause="The flow has not been trained.",
            cure="Train it, or show it a batch of the data, before it is saved or compared.",
            evidence={"layers": len(waiting)},
        )


def calls_change(m: Measured) -> Iterator[Finding]:
    """KF402: each call changes parameters or buffers, in evaluation mode as well."""
    names = m.state.later
    if len(names) == 0:
        return
    also = f" and {len(names) - 1} more" if len(names) > 1 else ""
    yield Finding(
        code="KF402",
        severity="warning",
        layer=None,
        message=f"Calling the flow in evaluation mode changes {names[0]}{also}, each time.",
        cause="A norm starts anew or moves its running statistics, or something is counted.",
        cure="Change state in training mode only: the density depends on who called before.",
        evidence={"changed": ", ".join(names)},
    )


def values_stale(m: Measured) -> Iterator[Finding]:
    """KF211: values that were computed before a step of training are used after it."""
    if not m.state.stale:
        return
    yield Finding(
        code="KF211",
        severity="error",
        layer=m.state.stale_layer,
        message=(
            f"After the parameters have moved, values are off by up to {m.state.stale:.2g} if the "
            "flow was called before."
        ),
        cause="A matrix, an inverse or a log_det is kept, and not made anew when weights change.",
        cure="Let go of kept values in train() and load_state_dict(), or keep none.",
        evidence={"worst": m.state.stale},
    )


def state_incomplete(m: Measured) -> Iterator[Finding]:
    """KF212: a flow made anew is another one after it has loaded the state."""
    if m.state.refused is None and not m.state.reloaded:
        return
    off = m.state.reloaded
    yield Finding(
        code="KF212",
        severity="error",
        layer=None,
        message=(
            f"A flow made anew cannot load the state_dict of this one: {m.state.refused}"
            if off is None
            else f"A flow made anew that loads the state_dict has another log_prob, by up to "
            f"{off:.2g} nats."
        ),
        cause="A mask, a permutation or a flag is drawn or set, and is no parameter or buffer.",
        cure="Register it (register_buffer), so that it is saved with the weights.",
        evidence={"worst_nats": off},
    )
