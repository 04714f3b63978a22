"""Writes small raw data sets, one of each kind that a path alone describes."""

import json

import nibabel
import numpy as np
from PIL import Image

from tests.data.files.dicoms import UIDS, write_seg, write_series


def _blobs(number, size, classes):
    """Return classes around a random centre, each in the one before it."""
    rng = np.random.default_rng(number)
    centre = [rng.uniform(0.4, 0.6) * side for side in size]
    grid = np.stack(np.indices(size), axis=-1)
    distance = np.linalg.norm((grid - centre) / size, axis=-1)
    return sum(np.int16(distance < 0.35 / part) for part in range(1, classes)), rng


def _volume(path, pixels, spacing):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(pixels, np.diag([*spacing, 1.0])), path)


def _describe(folder, cases, channels, **entries):
    """Write nnU-Net's description of a set."""
    content = {
        "channel_names": {str(at): name for at, name in enumerate(channels)},
        "numTraining": cases,
        "file_ending": ".nii.gz",
        **entries,
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def write_pictures(folder, cases=10):
    """Pictures with masks of 0 and 255, in two folders."""
    for number in range(cases):
        label, rng = _blobs(number, (24, 28), 2)
        image = 60 + 120 * label + rng.normal(0, 20, label.shape)
        for name, pixels in (("images", image.clip(0, 255)), ("masks", 255 * label)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            file = folder / name / f"{number}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    return folder / "images"


def write_regions(folder, cases=10):
    """MR of four channels with overlapping regions, in nnU-Net's layout."""
    for number in range(cases):
        label, rng = _blobs(number, (20, 18, 16), 4)
        for channel in range(4):
            image = rng.normal(0, 10, label.shape) + 40 * (label > channel)
            name = f"imagesTr/c{number}_{channel:04d}.nii.gz"
            _volume(folder / name, image.astype(np.float32), (1, 1, 1.2))
        _volume(folder / f"labelsTr/c{number}.nii.gz", label, (1, 1, 1.2))
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "top": [3]}
    order = [1, 2, 3]
    channels = ("T1", "T1CE", "T2", "FLAIR")
    _describe(folder, cases, channels, labels=labels, regions_class_order=order)
    return folder / "imagesTr"


def write_thick_slices(folder, cases=10):
    """CT of thick slices of which some pixels are to be ignored."""
    for number in range(cases):
        label, rng = _blobs(number, (26, 24, 6), 2)
        image = np.round(100 * label + rng.normal(0, 15, label.shape))
        label[:4, :4] = 2
        _volume(
            folder / f"imagesTr/c{number}_0000.nii.gz",
            image.astype(np.int16),
            (1, 1, 5),
        )
        _volume(folder / f"labelsTr/c{number}.nii.gz", label, (1, 1, 5))
    _describe(folder, cases, ["CT"], labels={"background": 0, "a": 1, "ignore": 2})
    return folder / "imagesTr"


def write_dicoms(folder, cases=10):
    """DICOM series, with a segmentation beside the slices of each."""
    for number in range(cases):
        label, rng = _blobs(number, (6, 20, 18), 3)
        pixels = np.round(1024 + 300 * label + rng.normal(0, 30, label.shape))
        place, uid = folder / f"p{number}", f"1.5.{number}"
        write_series(place, pixels=pixels.astype(int), series=uid, **UIDS)
        write_seg(place / "seg.dcm", place, {"organ": label == 1, "core": label == 2})
    return folder / "p0"


def write_partly_labelled(folder, cases=10):
    """Volumes in half of which nobody drew the inner class, with a CSV that says so."""
    for number in range(cases):
        label, rng = _blobs(number, (20, 18, 16), 3)
        image = rng.normal(0, 10, label.shape) + 40 * label
        label = label if number % 2 == 0 else np.minimum(label, 1)
        _volume(
            folder / f"imagesTr/c{number}_0000.nii.gz",
            image.astype(np.float32),
            [1] * 3,
        )
        _volume(folder / f"labelsTr/c{number}.nii.gz", label, [1] * 3)
    labels = {"background": 0, "organ": 1, "core": 2}
    _describe(folder, cases, ["MR"], labels=labels)
    rows = [f"c{number},organ" for number in range(1, cases, 2)]
    (folder / "labelled.csv").write_text("\n".join(["case,class", *rows]))
    return folder / "imagesTr"


SETS = {
    "pictures": write_pictures,
    "regions": write_regions,
    "thick slices": write_thick_slices,
    "dicom": write_dicoms,
    "partly labelled": write_partly_labelled,
}
