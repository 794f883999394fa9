"""How the condition number grows over depth at the worst point: spread out, or in one layer."""

from dataclasses import dataclass

from kappaflow.conditioning import Profile

NOTHING = 1e-3  # a growth, as a logarithm, that counts as none
MOST = 0.5  # of all growth, in logarithms: from this share on one layer has most of it


@dataclass(frozen=True)
class Growth:
    """How the condition number of everything up to each layer grows at one point.

    Attributes:
        point: The point whose condition number is largest of those that are finite.
        layers: How many there are.
        growing: In how many of them it grows.
        a_layer: The factor by which it grows from layer to layer, in the geometric mean.
        largest: The largest factor.
        layer: The name of the layer that it is from.
        in_one: Whether that layer alone has most of all growth.
    """

    point: int
    layers: int
    growing: int
    a_layer: float
    largest: float
    layer: str
    in_one: bool

    def in_words(self, row: str) -> str:
        """Returns where it grows, as half a sentence; `row` names the point."""
        where = f"at {row}, the worst,"
        if self.in_one:
            return f"{where} most of it in layer {self.layer}, by a factor of {self.largest:.3g}"
        return (
            f"{where} by {self.a_layer:.2g} a layer over {self.layers} layers, in {self.growing} "
            "of which the condition number grows"
        )


def growth_of(profile: Profile) -> Growth:
    """Returns the growth at the worst of the points that have a finite condition number."""
    numbers = profile.condition_number
    point = int(numbers[-1].nan_to_num(0.0, posinf=0.0).argmax())
    logs = numbers[:, point].log()
    steps = logs.diff(prepend=logs.new_zeros(1)).nan_to_num(0.0, posinf=0.0, neginf=0.0)
    worst, up = int(steps.argmax()), steps.clamp_min(0)
    return Growth(
        point=point,
        layers=len(steps),
        growing=int((steps > NOTHING).sum()),
        a_layer=(logs[-1] / len(steps)).exp().item(),
        largest=steps[worst].exp().item(),
        layer=profile.layers[worst],
        in_one=bool(up[worst] >= MOST * up.sum()),
    )
