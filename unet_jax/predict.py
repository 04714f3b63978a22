"""Files in, label maps out, with the network of a finished run."""

import pathlib

import numpy as np

from unet_jax.data.preprocess import from_canonical, to_canonical
from unet_jax.data.reading import list_images, read_image
from unet_jax.data.stored import StoredImage, output_name
from unet_jax.data.writing import label_statistics, write_csv, write_label_map
from unet_jax.errors import InputError
from unet_jax.experiment import TrainedRun, load_run
from unet_jax.report.overlay import overlay, write_figure


def predict_files(
    workdir: pathlib.Path, *, input_path: str, output_folder: str
) -> list[pathlib.Path]:
    """Segment images with the best checkpoint of a run.

    Args:
        workdir: folder of the run; nothing else is needed.
        input_path: an image file, or a folder of them.
        output_folder: for the label maps, ``overlays/`` and ``classes.csv``.

    Returns:
        The label maps.

    Raises:
        InputError: there is no run, or some files cannot be segmented; the others are
            done nevertheless.
    """
    files = list_images(input_path)
    folder = pathlib.Path(output_folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--output {folder}: cannot be made ({error.strerror}); name a folder that "
            "can be written"
        ) from None
    run = load_run(workdir)
    written, rows, failures = [], [], []
    for number, file in enumerate(files, start=1):
        try:
            stored = read_image(file)
            labels = _segment(run, stored)
            target = write_label_map(
                folder, stored, labels, tuple(run.config.data.class_colors)
            )
        except InputError as error:
            failures.append(str(error))
            print(f"[{number}/{len(files)}] {file}: FAILED")
            continue
        _draw(run, stored, labels, folder)
        rows += label_statistics(
            labels,
            file=file.name,
            spacing=stored.spacing,
            class_names=tuple(run.config.data.class_names),
        )
        written.append(target)
        print(f"[{number}/{len(files)}] {file} -> {target}")
    if rows:
        write_csv(folder / "classes.csv", rows)
    if failures:
        raise InputError(
            f"{len(failures)} of {len(files)} files not segmented: "
            + " | ".join(failures)
        )
    return written


def _segment(run: TrainedRun, stored: StoredImage) -> np.ndarray:
    """Segment one image on its own grid, whatever its storage order."""
    name = str(stored.path)
    if stored.affine is not None:
        image, spacing, orientation = to_canonical(stored.image, stored.affine)
        labels = run.predict_fn(image, spacing, name=name)
        return from_canonical(labels, orientation)
    if stored.image.ndim == 3:
        return run.predict_fn(stored.image, stored.spacing, name=name)
    # A TIFF stack has its pages first and says nothing of the patient's axes.
    axis = run.preprocessing.slice_axis
    pages, sizes = np.moveaxis(stored.image, 0, axis), stored.spacing
    if sizes is not None:
        sizes = tuple(np.insert(sizes[1:], axis, sizes[0]).tolist())
    labels = run.predict_fn(pages, sizes, name=name)
    return np.moveaxis(labels, axis, 0)


def _draw(
    run: TrainedRun, stored: StoredImage, labels: np.ndarray, folder: pathlib.Path
) -> None:
    """Write the overlay of one image; volumes are shown in RAS order."""
    image, spacing = stored.image, stored.spacing
    if stored.affine is not None:
        image, spacing, _ = to_canonical(image, stored.affine)
        labels, _, _ = to_canonical(labels, stored.affine)
    data = run.config.data
    stack = stored.kind == "tiff"
    figure = overlay(
        image,
        None,
        labels,
        slice_axis=0 if stack else data.slice_axis,
        spacing=spacing,
        class_names=tuple(data.class_names),
        class_colors=tuple(data.class_colors),
        title=stored.path.name,
    )
    write_figure(folder / "overlays" / f"{output_name(stored.path)}.png", figure)
