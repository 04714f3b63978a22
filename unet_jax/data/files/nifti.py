"""Reads and writes NIfTI: voxels as stored, with their affine in millimetres."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from unet_jax.data.files.stored import Color, StoredImage, check_affine
from unet_jax.errors import InputError


def read_nifti(
    path: Path, axes: str | None = None, indices: bool = False
) -> StoredImage:
    """Decode a NIfTI as stored, with its affine in millimetres.

    Returns:
        The volume ``(x, y, z, channels)``, its affine, spacing and header.

    Raises:
        InputError: the file is no NIfTI volume, or its affine cannot be inverted.
    """
    nifti = nibabel.load(path, mmap=False, keep_file_open=True)
    if not isinstance(nifti, nibabel.Nifti1Image):
        raise InputError(
            f"{path}: is {type(nifti).__name__}; expected a NIfTI image; export it as "
            "a volume"
        )
    proxy: Any = nifti.dataobj
    slope, inter = float(proxy.slope), float(proxy.inter)
    scaled = (slope, inter) != (1.0, 0.0)
    image = _nifti_channels(_read_slabs(proxy, scaled), path)
    affine = np.array(nifti.affine, dtype=np.float64)
    affine[:3] *= millimetres(nifti.header)
    spacing = np.sqrt(np.sum(affine[:3, :3] ** 2, axis=0))
    check_affine(affine, path)
    voxel = tuple(float(size) for size in spacing)
    return StoredImage(
        path,
        image,
        affine,
        voxel,
        "volume",
        nifti.header,
        step=abs(slope) if scaled else 0.0,
        tags={"scl_slope": f"{slope:.6g}", "scl_inter": f"{inter:.6g}"}
        if scaled
        else {},
    )


def _read_slabs(proxy: Any, scaled: bool) -> np.ndarray:
    """Read voxels a few planes at a time, so that no second volume is in memory.

    A file has its first axis inside and may have another byte order, and scaled values
    are float64.
    """
    if proxy.dtype.names:
        return np.asarray(proxy)
    dtype = np.float32 if scaled else proxy.dtype.newbyteorder("=")
    image = np.empty(proxy.shape, dtype)
    if not image.size:
        return image  # what nibabel reads has lost its axes
    axis = max((i for i, size in enumerate(proxy.shape) if size > 1), default=0)
    step = max(1, _SLAB_BYTES * proxy.shape[axis] // max(image.nbytes, 1))
    for start in range(0, proxy.shape[axis], step):
        slab = (*(slice(None),) * axis, slice(start, start + step))
        image[slab] = proxy[slab]
    return image


_SLAB_BYTES = 2**23
"""Bytes of the planes that are read at once."""


def file_shape(stored: StoredImage) -> tuple[int, ...]:
    """Return the shape of labels with the axes of an image's file.

    A plane of NIfTI has two axes, and a volume may have further axes of one.
    """
    spatial = stored.image.shape[:-1]
    if stored.header is None:
        return spatial
    shape = tuple(map(int, stored.header.get_data_shape()))
    return shape if math.prod(shape) == math.prod(spatial) else spatial


def millimetres(header: nibabel.Nifti1Header) -> float:
    """Return the millimetres of the header's unit; 1 if it has none."""
    unit = header.get_xyzt_units()[0]
    return {"meter": 1000.0, "micron": 1e-3}.get(unit, 1.0)


def _nifti_channels(image: np.ndarray, path: Path) -> np.ndarray:
    """Return (x, y, z, channels)."""
    if image.dtype.names:
        # RGB24 and RGBA32 are records; alpha is dropped.
        names = [name for name in image.dtype.names if name in "RGB"]
        image = np.stack([image[name] for name in names], axis=-1)
    elif image.ndim == 5 and image.shape[3] == 1:
        # NIfTI keeps axis 4 for time, so a vector stands on axis 5.
        image = image.squeeze(3)
    elif image.ndim <= 3:
        image = image[..., None]
    if image.ndim == 3:
        image = image[:, :, None]
    if image.ndim != 4:
        raise InputError(
            f"{path}: shape {image.shape}; expected (x, y, z) or (x, y, z, channels); "
            "save one volume per file"
        )
    return image


def write_nifti(
    path: Path, labels: np.ndarray, stored: StoredImage, palette: Sequence[Color]
) -> None:
    """Write a label map with the affine, codes and units of its image.

    Args:
        labels: ``(x, y, z)`` uint8 or uint16.
        stored: the image; without a header the label map has the affine only.
    """
    if stored.header is None:
        header = nibabel.Nifti1Header()
        header.set_xyzt_units("mm")
    else:
        header = stored.header.copy()
    header.extensions.clear()
    header.set_data_dtype(labels.dtype)
    header.set_intent("none")
    header["cal_min"] = header["cal_max"] = 0
    affine = np.array(stored.affine, dtype=np.float64)
    affine[:3] /= millimetres(header)
    labels = labels.reshape(file_shape(stored))
    two = isinstance(header, nibabel.Nifti2Header)
    kind = nibabel.Nifti2Image if two else nibabel.Nifti1Image
    # nibabel keeps the header's codes where the affine is the header's own.
    nibabel.save(kind(labels, affine, header), path)
