"""One case: a training and what came of it, or how far apart two samples of the data are."""

from kappaflow_studies.engine.study import Case, Row
from kappaflow_studies.padding.images import image_floor, trained_on_images
from kappaflow_studies.padding.plane import plane_floor, trained_on_plane

MEASURES = {
    "plane": trained_on_plane,
    "plane floor": plane_floor,
    "images": trained_on_images,
    "image floor": image_floor,
}


def measure(case: Case) -> list[Row]:
    """Returns the row of a case."""
    return [MEASURES[case["kind"]](case)]
