"""Draws the pictures of docs/depth-and-conditioning.md: python docs/depth_pictures.py [FOLDER].

It trains a small flow of two columns and a deeper one of MAGIC, a minute or two in all. The
pictures are SVG on white, and go to docs/images unless a folder is given.
"""

import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

import kappaflow as kf

IMAGES = Path(__file__).parent / "images"
BLUE, RED, GRAY = "#0072b2", "#b7470a", "#555555"
DEPTH = 32
RADIUS = 0.12
STRETCHES = torch.logspace(0.5, 10, 20)  # condition numbers of the layers under which digits go


def style() -> None:
    """Sets the common style of the pictures."""
    mpl.rcParams.update({"svg.hashsalt": "kappaflow", "font.size": 9, "figure.facecolor": "white"})
    mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})


def write(figure: plt.Figure, path: Path) -> None:
    """Writes a picture, the same bytes for the same numbers."""
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def ellipses(path: Path) -> None:
    """Draws small circles around points of two moons, and their images under the flow."""
    torch.manual_seed(0)
    moons = kf.data.toy("two_moons", 4000, seed=0)
    flow = kf.real_nvp(2, depth=12, hidden=(64, 64))
    kf.fit(flow, moons, max_epochs=60, batch_size=256, progress=False)
    flow = flow.double().eval()
    with torch.no_grad():
        data = flow.standardization(torch.tensor(moons.values))[
            0
        ]  # standardized, as conditioning is
        latent = flow.core(data)[0]
    centers = data[::222]
    kappa = kf.spectrum(flow.core, centers).condition_number.detach()
    angle = torch.linspace(0, 2 * torch.pi, 100, dtype=torch.float64)
    circle = RADIUS * torch.stack((angle.cos(), angle.sin()), dim=1)
    linear = flow.core.linearize(centers)
    with torch.no_grad():
        images = torch.stack([linear.jv(way.expand_as(centers)) for way in circle])
    figure, axes = plt.subplots(1, 2, figsize=(9, 4))
    rings(axes[0], data, centers + circle[:, None], kappa)
    rings(axes[1], latent, linear.value.detach() + images, kappa)
    axes[0].set_title("data, and circles of one size")
    least, most = kappa.min().item(), kappa.max().item()
    axes[1].set_title(f"latent: their images, condition numbers {least:.1f} to {most:.0f}")
    write(figure, path)


def rings(axis: plt.Axes, cloud: Tensor, curves: Tensor, kappa: Tensor) -> None:
    """Draws points, and closed curves (steps, B, 2), the darker the larger their number."""
    axis.plot(*cloud[::8].T.numpy(), ".", color="#bbbbbb", ms=1.5, zorder=0)
    tones = plt.get_cmap("cividis_r")(kappa.log() / kappa.log().max())
    for curve_, tone in zip(curves.unbind(1), tones, strict=True):
        axis.plot(*curve_.T.numpy(), color=tone, lw=1.3)
    axis.set_aspect("equal")


def over_depth(path: Path) -> None:
    """Draws the condition number of all layers so far, and the product over the layers."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
    torch.manual_seed(0)
    rows = kf.load_table("magic")
    trained = kf.real_nvp(10, depth=DEPTH, hidden=(64,), partition="random-half")
    kf.fit(trained, rows, max_epochs=15, progress=False)
    own = kf.profile(trained, torch.tensor(rows.values[:512], dtype=torch.float32))
    x = torch.randn(512, 10)
    theirs = kf.profile(kf.wrap(freia_blocks(DEPTH // 2), x), x)
    for axis, profile, title in (
        (axes[0], own, f"RealNVP of {DEPTH} couplings, trained on MAGIC"),
        (axes[1], theirs, f"{DEPTH // 2} blocks of FrEIA ({DEPTH} couplings), untrained"),
    ):
        curve(axis, profile)
        axis.set(title=title, xlabel="depth (layers from the data)")
    axes[0].set_ylabel("condition number")
    axes[0].legend(frameon=False, fontsize=8)
    write(figure, path)


def freia_blocks(count: int) -> torch.nn.Module:
    """Returns FrEIA blocks with default scales and random weights."""
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import GLOWCouplingBlock
    from torch import nn

    def network(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, outputs))

    torch.manual_seed(0)
    flow = SequenceINN(10)
    for _ in range(count):
        flow.append(GLOWCouplingBlock, subnet_constructor=network)
    return flow


def curve(axis: plt.Axes, profile: kf.conditioning.Profile) -> None:
    """Draws one profile: medians over points, and the middle 90 % of what is measured."""
    whole, each = profile.condition_number.double(), profile.layer_condition_number.double()
    depth = range(1, len(whole) + 1)
    low, middle, high = whole.quantile(torch.tensor([0.05, 0.5, 0.95]).double(), dim=1).numpy()
    axis.fill_between(depth, low, high, color=BLUE, alpha=0.2, linewidth=0)
    axis.plot(depth, middle, color=BLUE, label="all layers so far, measured")
    product = each.log().cumsum(0).exp().median(dim=1).values
    axis.plot(depth, product, "--", color=RED, label="product of the layers' own: the bound")
    axis.plot(depth, each.median(dim=1).values, ".", color=GRAY, label="each layer alone")
    axis.set(yscale="log", ylim=(0.8, 1e12))


def digits_lost(path: Path) -> None:
    """Draws the error of sigma_min in float32 from the Jacobian and from the inverse."""
    errors: dict[str, list[float]] = {"from J": [], "from the inverse": []}
    for stretch in STRETCHES:
        from_jacobian, from_inverse = smallest(float(stretch))
        errors["from J"].append(from_jacobian)
        errors["from the inverse"].append(from_inverse)
    figure, axis = plt.subplots(figsize=(6, 3.2))
    labels = {
        "from J": "smallest singular value of J, formed in float32",
        "from the inverse": "1 / largest singular value of the inverse's Jacobian",
    }
    for (name, values), color, mark in zip(errors.items(), (RED, BLUE), ("o", "s"), strict=True):
        axis.plot(STRETCHES, np.maximum(values, 1e-8), mark + "-", color=color, ms=3, lw=1.2)
        axis.lines[-1].set_label(labels[name])
    axis.axvline(1 / torch.finfo(torch.float32).eps, color=GRAY, lw=0.8, ls=":")
    axis.text(1.1 / torch.finfo(torch.float32).eps, 2e-7, "1 / eps", color=GRAY, fontsize=8)
    axis.set(
        xscale="log", yscale="log", xlabel="condition number", ylabel="relative error of σ_min"
    )
    axis.legend(frameon=False, fontsize=8)
    write(figure, path)


def smallest(stretch: float, features: int = 16, draws: int = 9) -> tuple[float, float]:
    """Returns the relative errors of both ways, the median over random linear flows.

    A flow is a turn, a stretch of each feature, and a turn, so that the smallest stretch is what
    the smallest singular value should be.
    """
    found = []
    for seed in range(draws):
        generator = torch.Generator().manual_seed(seed)
        turns = [rotation(features, generator) for _ in range(2)]
        scales = torch.logspace(0, -np.log10(stretch), features)
        exact = scales.min().item()
        forward = (turns[0] * scales) @ turns[1]
        backward = (turns[1].T / scales) @ turns[0].T
        found.append((
            abs(torch.linalg.svdvals(forward).min().item() / exact - 1),
            abs(1 / torch.linalg.svdvals(backward).max().item() / exact - 1),
        ))
    middle = torch.tensor(found).median(dim=0).values
    return middle[0].item(), middle[1].item()


def rotation(features: int, generator: torch.Generator) -> Tensor:
    """Returns a random orthogonal matrix in float32."""
    return torch.linalg.qr(torch.randn(features, features, generator=generator))[0]


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    style()
    ellipses(folder / "depth-ellipses.svg")
    over_depth(folder / "depth-product.svg")
    digits_lost(folder / "depth-sigma-min.svg")
