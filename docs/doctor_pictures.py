"""Draws pictures of the doctor's pages: python docs/doctor_pictures.py. Needs Chromium.

One page is about a RealNVP of torchflows with random weights, whose samples come with a wrong
density; the other about a run on two moons with zero padding, which training squeezes further.
"""

import os
import tempfile
from pathlib import Path

import torch
from playwright.sync_api import sync_playwright

import kappaflow as kf
from kappaflow.cli.app import main

IMAGES = Path(__file__).parent / "images"
CHROMIUM = os.environ.get("KAPPAFLOW_CHROMIUM", "/usr/bin/chromium")
RUN = (
    *("--padding", "2", "--padding-kind", "zero", "--scale-bound", "60", "--depth", "16"),
    *("--hidden", "32", "--max-epochs", "60", "--quiet"),
)


def torchflows_page(folder: Path) -> Path:
    """Returns the page of a flow of another library."""
    from torchflows.bijections.finite.autoregressive.architectures import RealNVP
    from torchflows.flows import Flow

    torch.manual_seed(0)
    flow = Flow(RealNVP((3,), n_layers=4))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    diagnosis = kf.doctor(flow, torch.randn(256, 3))
    title = "RealNVP of torchflows"
    return kf.write_diagnosis(diagnosis, folder / "torchflows.html", title=title)


def run_page(folder: Path) -> Path:
    """Returns the page of a run."""
    run, page = folder / "moons", folder / "run.html"
    main(["fit", "two_moons", "--out", str(run), *RUN])
    main(["doctor", str(run), "--out", str(page)])
    return page


def draw(page: Path, picture: Path, height: int) -> None:
    """Draws the top of a page, 1000 pixels wide."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1000, "height": height}, color_scheme="light")
        tab.goto(page.as_uri())
        tab.wait_for_selector("html[data-drawn]", state="attached")
        tab.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        draw(torchflows_page(Path(place)), IMAGES / "doctor-torchflows.png", 1240)
        draw(run_page(Path(place)), IMAGES / "doctor-run.png", 1270)
