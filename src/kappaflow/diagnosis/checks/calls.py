"""KF105: calls of the flow that raise an error."""

from collections.abc import Callable, Iterator

from kappaflow.diagnosis.check import Symptom, check
from kappaflow.diagnosis.isolation import one_line
from kappaflow.diagnosis.measurements import Measurements
from kappaflow.foreign import Wrapped


@check(
    "KF105",
    "a call of the flow raises an error",
    cause="The method is not implemented for this layer, or not for these values.",
    fix="Call the method alone at the same values, and read where the error comes from.",
)
def call_raises(m: Measurements) -> Iterator[Symptom]:
    """The flow encodes the rows, but raises an error where it decodes samples of the base, or the
    library raises one in its own log_prob or sample. It is a warning if the method is not
    implemented. The checks that need the call are listed as not checked.

    Example:
        def decode(z):
            raise ValueError("no solution")


        flow = (lambda x: (x, torch.zeros(len(x))), decode)
        x = torch.randn(64, 2)
    """
    flow = m.flow
    calls: dict[str, Callable[[], object]] = {"Decoding samples of the base": lambda: m.samples}
    if isinstance(flow, Wrapped):
        calls[f"log_prob of {flow.library}"] = lambda: flow.own_log_prob(m.points, m.context)
        number = len(m.points) if m.context is None else len(m.context)
        calls[f"sample of {flow.library}"] = lambda: flow.own_sample(number, m.context)
    seen = set()
    for name, call in calls.items():
        try:
            call()
        except Exception as error:
            if one_line(error) in seen:
                continue
            seen.add(one_line(error))
            yield Symptom(
                f"{name} raises {one_line(error)}.",
                layer=_layer_that_raises(m) if name.startswith("Decoding") else None,
                severity="warning" if isinstance(error, NotImplementedError) else None,
            )


def _layer_that_raises(m: Measurements) -> str | None:
    """Returns the layer that raises an error where samples of the base are decoded."""
    z = m.sample_latents
    for layer in reversed(m.layers):
        try:
            z = layer.decode(z)[0]
        except Exception:
            return layer.name
    return None
