"""Describes slices as TFDS features, and reads volumes that packages carry."""

import importlib.util
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import tensorflow_datasets as tfds
from nibabel.filebasedimages import ImageFileError
from nibabel.wrapstruct import WrapStructError

from unet_jax.errors import InputError


def slice_features(
    plane: tuple[int, int], image_dtype: type[np.generic], **more: Any
) -> tfds.features.FeaturesDict:
    """Describe a labelled slice; Tensor, since Image encodes through TensorFlow.

    Args:
        plane: height and width.
        image_dtype: dtype of the image, which has one channel.
        **more: further features by name.
    """
    stored = {"encoding": tfds.features.Encoding.BYTES}
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Tensor(
                shape=(*plane, 1), dtype=image_dtype, **stored
            ),
            "label": tfds.features.Tensor(shape=plane, dtype=np.uint8, **stored),
            "volume": tfds.features.Text(),
            "slice_index": tfds.features.Scalar(np.int64),
            "slice_axis": tfds.features.Scalar(np.int64),
            "spacing": tfds.features.Tensor(shape=(3,), dtype=np.float32),
            **more,
        }
    )


def installed_folder(package: str) -> Path | None:
    """Find the folder of an installed package, which is not imported.

    Args:
        package: name of the package.

    Returns: The folder; None where the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def read_volume(path: Path, *, fix: str) -> tuple[nibabel.Nifti1Image, np.ndarray]:
    """Read a NIfTI file.

    Args:
        path: file of an installed package.
        fix: what to do where the file is missing or damaged.

    Returns: The volume and its voxels in stored order.
    Raises: InputError: the file is missing or damaged.
    """
    try:
        volume = nibabel.Nifti1Image.from_filename(path)
        return volume, np.asarray(volume.dataobj)
    except (OSError, EOFError, zlib.error, ImageFileError, WrapStructError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {fix}") from error
