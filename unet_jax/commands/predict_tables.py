"""Makes the rows of classes.csv and objects.csv for a segmented image."""

from collections.abc import Mapping

import numpy as np

from unet_jax.data.files.label_table import label_statistics, mean_by_class
from unet_jax.data.files.object_table import find_objects
from unet_jax.data.files.stored import StoredImage
from unet_jax.experiment.regions import score_groups
from unet_jax.experiment.trained_run import TrainedRun
from unet_jax.inference.distance import Distance

Row = dict[str, object]


def table_rows(
    run: TrainedRun,
    stored: StoredImage,
    labels: np.ndarray,
    maps: Mapping[str, np.ndarray],
    distance: Distance | None,
) -> tuple[list[Row], list[Row]]:
    """Describe the classes or regions of an image, and their objects.

    A volume of one slice is measured as a picture.

    Args:
        run: run whose network segmented the image.
        stored: image as its file stores it.
        labels: ``(*spatial)`` class indices.
        maps: maps of uncertainty ``(*spatial)`` by name.
        distance: distance of the image from training; None where it is unknown.

    Returns: Rows of classes.csv, and rows of objects.csv.
    """
    spacing, names = stored.spacing, tuple(run.config.data.class_names)
    regions = score_groups(run.config)
    means = {
        f"mean_{name}": mean_by_class(labels, values, len(names), regions)
        for name, values in maps.items()
    }
    single = [axis for axis, size in enumerate(labels.shape) if size == 1]
    if labels.ndim == 3 and len(single) == 1:
        labels = labels.squeeze(single[0])
        if spacing is not None:
            spacing = (*spacing[: single[0]], *spacing[single[0] + 1 :])
    file = stored.path.name
    rows = label_statistics(
        labels, spacing, file=file, class_names=names, regions=regions
    )
    found = find_objects(labels, spacing, file=file, class_names=names, regions=regions)
    for name, reason in found.left_out.items():
        print(f"{file}: objects of {name} are not measured ({reason})")
    for index, row in enumerate(rows):
        row["objects"] = found.counts.get(str(row["class"]), "")
        row |= {column: values[index] for column, values in means.items()}
        row |= _distance_columns(distance)
    return rows, found.rows


def _distance_columns(distance: Distance | None) -> Row:
    """Return the columns of a distance; none where it is unknown."""
    if distance is None:
        return {}
    return {
        "distance_features": round(distance.features, 3),
        "distance_intensities": round(distance.intensities, 3),
        "unlike_training": "yes" if distance.is_beyond else "no",
    }
