"""Writes folders of small images and masks."""

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from unet_jax.data.folder.open import open_folder
from unet_jax.data.folder.options import FolderOptions
from unet_jax.errors import InputError

AFFINE = np.diag([-1.0, 1.5, 4.0, 1.0])


def rng(number):
    return np.random.default_rng(number)


def write_picture(path, number, *, mask=None, size=(8, 10), classes=3, channels=None):
    """Write an image, and its mask with every class."""
    shape = size if channels is None else (*size, channels)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng(number).integers(0, 255, shape).astype(np.uint8)
    write_pixels(path, pixels)
    if mask is not None:
        labels = np.arange(np.prod(size)).reshape(size) % classes
        mask.parent.mkdir(parents=True, exist_ok=True)
        write_pixels(mask, labels.astype(np.uint8))
    return pixels


def write_pixels(path, pixels):
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels)
    elif path.name.endswith(".nii.gz"):
        nibabel.save(nibabel.Nifti1Image(pixels, AFFINE), path)
    else:
        Image.fromarray(pixels).save(path)


def write_set(folder, count=6, first=0, **options):
    """Write a plain set of two folders."""
    for number in range(first, first + count):
        name = f"{number}.png"
        write_picture(
            folder / "images" / name, number, mask=folder / "masks" / name, **options
        )
    return folder


def open_set(folder, cache=None, seed=0, recorded=None, **options):
    return open_folder(
        FolderOptions(path=str(folder), **options),
        seed=seed,
        num_threads=2,
        scan_cache=cache,
        recorded=recorded,
    )


def ids_of(dataset, split):
    source = dataset.source(split)
    return [source[index].id for index in range(len(source))]


def problems_of(folder, **options):
    """Return the lines of the error."""
    with pytest.raises(InputError) as info:
        open_set(folder, **options)
    return [*info.value.details] or [str(info.value)]
