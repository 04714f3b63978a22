"""Segments image files with the network of a finished run."""

import os
import pathlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from unet_jax.commands.predict_tables import table_rows
from unet_jax.commands.report import run_facts
from unet_jax.data.files.canonical import to_canonical
from unet_jax.data.files.contours import write_contours
from unet_jax.data.files.dicom_seg import check_highdicom, write_dicom_seg
from unet_jax.data.files.formats import (
    DICOM,
    file_suffix,
    format_of,
    output_name,
    stem_of,
)
from unet_jax.data.files.label_table import write_csv
from unet_jax.data.files.nifti import file_shape
from unet_jax.data.files.object_table import COLUMNS
from unet_jax.data.files.stored import StoredImage
from unet_jax.data.files.write import (
    check_targets,
    map_name,
    write_label_map,
    write_map,
)
from unet_jax.data.folder.new_images import NewImage, find_new_images, read_new_image
from unet_jax.errors import InputError, named_files
from unet_jax.experiment.ensemble import load_trained
from unet_jax.experiment.trained_run import TrainedRun
from unet_jax.report.color_tables import NAMES as COLOR_TABLES
from unet_jax.report.color_tables import write_color_tables
from unet_jax.report.figure import problem_of_drawing, write_figure
from unet_jax.report.overlay import overlay
from unet_jax.report.prediction_page import write_prediction_page
from unet_jax.report.template import PAGE
from unet_jax.runtime.atomic import atomic_path


def predict_files(
    workdir: pathlib.Path,
    *,
    input_path: str,
    output_folder: str,
    probabilities: bool = False,
    uncertainty: bool = False,
    contours: bool = False,
    dicom_seg: bool = False,
    overwrite: bool = False,
) -> list[pathlib.Path]:
    """Segment images with the best checkpoint of a run.

    Args:
        workdir: folder of the run, or of a cross-validation, the mean of whose folds
            is used; nothing else is needed.
        input_path: path of an image file or of a folder of them. For a network of
            several channels also one file for each (``scan_0000.nii.gz``, ...).
        output_folder: folder for the label maps, ``overlays/``, ``classes.csv`` and
            ``objects.csv``; for volumes also the tables of colours ``colors.ctbl``
            and ``colors.itksnap.txt``.
        probabilities: write the probabilities too, ``(*spatial, classes)`` float16 on
            the grid of the file, to ``<name>.probabilities.npy``.
        uncertainty: write maps too: ``<name>.entropy`` of the probabilities and, where
            several votes are averaged, their ``<name>.disagreement``; .nii.gz for a
            NIfTI, .tif for other images. classes.csv has the mean of each class.
        contours: write the outlines too, to ``<name>.geojson``.
        dicom_seg: write the label map of each DICOM series too, as the DICOM
            segmentation ``<name>.seg.dcm``.
        overwrite: replace the files of an earlier prediction.

    Raises:
        InputError: there is no run, a file must not be replaced, or some files cannot
            be segmented; all others are segmented first.
    """
    run, folder = load_trained(workdir), pathlib.Path(output_folder)
    images = find_new_images(
        input_path, run.reading, channels=run.preprocessing.channels
    )
    overlays = _overlay_names([image.path for image in images])
    maps = _MAPS[: 1 + run.predict_fn.disagrees] if uncertainty else ()
    _check_output(folder, images)
    if dicom_seg:
        _check_dicom(input_path, images)
    check_targets(
        _targets(
            folder,
            images,
            probabilities=probabilities,
            contours=contours,
            dicom_seg=dicom_seg,
            maps=maps,
        ),
        inputs=[file for image in images for file in image.files],
        overwrite=overwrite,
    )
    written, rows, objects = [], [], []
    failures, what = [], "segmented"
    unlike: list[str] = []
    for number, image in enumerate(images, start=1):
        file, place = image.path, f"[{number}/{len(images)}] {image.path}"
        try:
            stored = read_new_image(image, run.reading)
            kept = folder if probabilities else None
            labels, uncertain = _segment(run, stored, kept, maps)
            target = _write_labels(run, folder, stored, labels, contours=contours)
            if dicom_seg and _is_dicom(image.files[0]):
                _write_seg(run, folder, stored, labels, series=image.files[0])
            for name, values in uncertain.items():
                path = folder / map_name(_stem(overlays[file]), name, file)
                write_map(path, stored, values)
        except InputError as error:
            failures.append(str(error))
            print(f"{place}: FAILED")
            continue
        drawn = folder / "overlays" / overlays[file]
        if problem := problem_of_drawing(_draw, run, stored, labels, drawn):
            what = "segmented or not drawn"
            failures.append(f"{file}: segmented, but not drawn ({problem})")
        distance = run.distance(stored)
        if distance is not None and distance.is_beyond:
            unlike.append(file.name)
        of_classes, of_objects = table_rows(run, stored, labels, uncertain, distance)
        rows += of_classes
        objects += of_objects
        written.append(target)
        print(f"{place} -> {target}")
    if any(map(_is_volume, written)):
        write_color_tables(
            folder,
            class_names=tuple(run.config.data.class_names),
            class_colors=tuple(run.config.data.class_colors),
        )
    if rows:
        write_csv(folder / "classes.csv", rows)
        write_csv(folder / "objects.csv", objects, columns=COLUMNS)
        pictures = [folder / "overlays" / overlays[image.path] for image in images]
        _write_page(folder, rows, pictures, unlike, workdir)
    if unlike:
        print(_warning(unlike, len(images)))
    if failures:
        raise InputError(
            f"--input {input_path}: {len(failures)} of {len(images)} images not "
            f"{what}:",
            failures,
        )
    return written


_MAPS = ("entropy", "disagreement")
"""Maps of uncertainty; a network with one vote has the first alone."""


def _write_page(
    folder: pathlib.Path,
    rows: Sequence[Mapping[str, Any]],
    pictures: Sequence[pathlib.Path],
    unlike: Sequence[str],
    workdir: pathlib.Path,
) -> None:
    """Write report.html; a problem of it is one line, and the labels are there."""

    def write() -> None:
        write_prediction_page(
            folder,
            rows=rows,
            overlays=[path for path in pictures if path.is_file()],
            unlike=unlike,
            facts=run_facts(workdir),
        )

    if problem := problem_of_drawing(write):
        print(f"{PAGE} is not written ({problem})")


def _warning(names: Sequence[str], count: int) -> str:
    """Warn of images that are unlike those of training."""
    return (
        f"warning: {len(names)} of {count} images are unlike those that the network "
        f"learnt from ({named_files(names)}). Do not trust their labels before you "
        "have looked at overlays/; classes.csv has the distances (docs/trust.md)."
    )


def _write_labels(
    run: TrainedRun,
    folder: pathlib.Path,
    stored: StoredImage,
    labels: np.ndarray,
    *,
    contours: bool,
) -> pathlib.Path:
    """Write the label map of an image, and its contours if asked for."""
    data = run.config.data
    colors = tuple(data.class_colors)
    target = write_label_map(folder, stored, labels, colors)
    if contours:
        write_contours(
            folder / f"{stem_of(stored.path)}.geojson",
            labels,
            class_names=tuple(data.class_names),
            class_colors=colors,
            slice_axis=_stored_slice_axis(run, stored),
        )
    return target


def _write_seg(
    run: TrainedRun,
    folder: pathlib.Path,
    stored: StoredImage,
    labels: np.ndarray,
    *,
    series: pathlib.Path,
) -> None:
    """Write the DICOM segmentation of a series."""
    data = run.config.data
    write_dicom_seg(
        folder / _seg_name(stored.path),
        stored,
        labels,
        series=series,
        class_names=tuple(data.class_names),
        class_colors=tuple(data.class_colors),
    )


def _is_dicom(path: pathlib.Path) -> bool:
    return format_of(path) is DICOM


def _is_volume(path: pathlib.Path) -> bool:
    return format_of(path).volumes


def _seg_name(path: pathlib.Path) -> str:
    return f"{stem_of(path)}.seg.dcm"


def _check_dicom(input_path: str, images: Sequence[NewImage]) -> None:
    """Refuse --dicom_seg without highdicom, or without a series."""
    check_highdicom()
    if not any(_is_dicom(image.files[0]) for image in images):
        raise InputError(
            f"--input {input_path}: holds no DICOM series; expected one for "
            "--dicom_seg; leave this flag out"
        )


def _check_output(folder: pathlib.Path, images: list[NewImage]) -> None:
    """Refuse an output folder that cannot be written, or that holds the images."""
    if folder.resolve() == images[0].path.parent.resolve():
        raise InputError(
            f"--output {folder}: is the folder of the images, whose files could be "
            "overwritten; name another folder"
        )
    # The folder is made with the first label map, so that a refusal leaves nothing.
    made = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not made.is_dir():
        raise InputError(
            f"--output {folder}: {made} is a file, expected a folder; name another"
        )
    if not os.access(made, os.W_OK | os.X_OK):
        raise InputError(
            f"--output {folder}: {made} cannot be written; name a folder that can"
        )


def _targets(
    folder: pathlib.Path,
    images: list[NewImage],
    *,
    probabilities: bool,
    contours: bool,
    dicom_seg: bool,
    maps: Sequence[str],
) -> Iterator[pathlib.Path]:
    """Yield the paths of all files that will be written."""
    files = [image.path for image in images]
    for file, name in _overlay_names(files).items():
        yield folder / "overlays" / name
        for what in maps:
            yield folder / map_name(_stem(name), what, file)
    for file in files:
        yield folder / output_name(file)
        if probabilities:
            yield folder / f"{stem_of(file)}.probabilities.npy"
        if contours:
            yield folder / f"{stem_of(file)}.geojson"
        if dicom_seg and _is_dicom(file):
            yield folder / _seg_name(file)
    if any(map(_is_volume, files)):
        yield from (folder / name for name in COLOR_TABLES)
    yield folder / "classes.csv"
    yield folder / "objects.csv"
    yield folder / PAGE


def _overlay_names(files: Sequence[pathlib.Path]) -> dict[pathlib.Path, str]:
    """Name the overlay of each image: n0.png for n0.png and for n0.nii.gz.

    Where both are there, n0_png.png and n0_nii_gz.png.
    """
    count = Counter(stem_of(file) for file in files)
    names = {}
    for file in files:
        ending = file_suffix(file).replace(".", "_") if count[stem_of(file)] > 1 else ""
        names[file] = f"{stem_of(file)}{ending}.png"
    return names


def _stem(overlay: str) -> str:
    """Return the part of an overlay's name that no other image has."""
    return overlay.removesuffix(".png")


def _stored_slice_axis(run: TrainedRun, stored: StoredImage) -> int:
    """Return the axis of the slices in the label map."""
    if stored.kind == "tiff" or stored.affine is None:
        return 0
    if run.reading.orientation == "stored":
        return int(run.config.data.slice_axis)
    _, _, orientation = to_canonical(stored.image, stored.affine)
    return orientation.axes.index(run.config.data.slice_axis)


def _segment(
    run: TrainedRun,
    stored: StoredImage,
    folder: pathlib.Path | None,
    maps: Sequence[str],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Segment one image on its own grid; return its labels and maps of uncertainty.

    With a folder, write probabilities there.
    """
    made = np.zeros((len(maps), *stored.image.shape[:-1]), np.float32)
    uncertain = dict(zip(maps, made, strict=True))
    filled = np.moveaxis(made, 0, -1) if maps else None
    if folder is None:
        return run.segment(stored, uncertainty=filled), uncertain
    path = folder / f"{stem_of(stored.path)}.probabilities.npy"
    classes = run.predict_fn.num_classes
    with atomic_path(path) as temporary:
        numbers = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.float16, shape=(*file_shape(stored), classes)
        )
        view = numbers.reshape(*stored.image.shape[:-1], classes)
        labels = run.segment(stored, view, uncertainty=filled)
        numbers.flush()
    return labels, uncertain


def _draw(
    run: TrainedRun, stored: StoredImage, labels: np.ndarray, path: pathlib.Path
) -> None:
    """Write the overlay of an image; volumes as the network sees them."""
    image, spacing = stored.image, stored.spacing
    if stored.affine is not None and run.reading.orientation != "stored":
        image, spacing, _ = to_canonical(image, stored.affine)
        labels, _, _ = to_canonical(labels, stored.affine)
    data = run.config.data
    figure = overlay(
        image,
        None,
        labels,
        slice_axis=0 if stored.kind == "tiff" else data.slice_axis,
        spacing=spacing,
        class_names=tuple(data.class_names),
        class_colors=tuple(data.class_colors),
        color_background=data.include_background,
        title=stored.path.name,
    )
    write_figure(path, figure)
